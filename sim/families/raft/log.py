"""A log that a leader dictates: entries are blocks, their index is the height, their term the view.

The ledger keeps what is decided; above it lies `tail`, which a later leader may cut and replace (Raft, section 5.3).
An entry that was cut may come back, and is given up only when another is decided in its place.
"""

from __future__ import annotations

from sim.protocol import Block, Context


class Log:
    """One server's log. `tail` and `doubtful` are on disk."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.tail: list[Block] = []  # above the last decided entry
        self.doubtful: list[Block] = []  # truncated, not yet known to be lost

    def restore(self) -> None:
        """Read it from disk."""
        stable, height = self.context.disk.stable, self.context.height
        self.tail = [block for block in stable["tail"] if block.height > height]
        self.doubtful = list(stable["doubtful"])

    def absorb_fast_path(self) -> None:
        """Bring `tail` up to date with what the fast path accepted and decided since the last handler ran."""
        height = self.context.height
        if self.tail and self.tail[0].height <= height:
            self.tail = [block for block in self.tail if block.height > height]
        last = self.last_index
        fresh = []
        block = self.context.fast_path.block()
        while block is not None and block.height > last:
            fresh.append(block)
            block = block.parent
        if fresh:
            self.tail.extend(reversed(fresh))
            self.context.disk.persist(tail=tuple(self.tail))

    def is_in_order(self) -> bool:
        """Whether entries follow each other, in terms that never go back."""
        pairs = zip(self.tail, self.tail[1:], strict=False)
        return all(a.height + 1 == b.height and a.view <= b.view for a, b in pairs)

    @property
    def last_index(self) -> int:
        """Index of the last entry."""
        return self.tail[-1].height if self.tail else self.context.height

    def entry(self, index: int) -> Block | None:
        """The entry at an index: None for 0, beyond the end, or long left behind by all."""
        at = index - self.context.height - 1
        if at < 0:
            return self.context.chain.decided(index) if index > 0 else None
        return self.tail[at] if at < len(self.tail) else None

    def term_at(self, index: int) -> int:
        """Term of the entry at an index; 0 before the first."""
        block = self.entry(index)
        return 0 if block is None else block.view

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends so is at least as up to date as this one: a later term, or as long in it."""
        mine = self.last_index
        return (last_term, last_index) >= (self.term_at(mine), mine)

    def matches(self, prev_index: int, prev_term: int) -> bool:
        """AppendEntries rule 2: the log holds the entry before. What is decided is the same everywhere."""
        if prev_index < self.context.height:
            return True
        return prev_index <= self.last_index and self.term_at(prev_index) == prev_term

    def last_possible_match(self, prev_index: int) -> int:
        """Upon a mismatch: the end of the log, or the entry before the first of the conflicting term."""
        height, last = self.context.height, self.last_index
        if prev_index > last:
            return last
        conflicting, index = self.term_at(prev_index), prev_index
        while index > height and self.term_at(index) == conflicting:
            index -= 1
        return index

    def append(self, block: Block) -> None:
        """A leader's new entry."""
        self.tail.append(block)
        self.context.disk.persist(tail=tuple(self.tail))

    def store(self, entries: tuple[Block, ...]) -> None:
        """AppendEntries rules 3 and 4: drop conflicting entries with all that follow, append the new ones."""
        height = self.context.height
        for block in entries:
            at = block.height - height - 1
            if at < 0 or (at < len(self.tail) and self.tail[at].view == block.view):
                continue
            self.doubtful.extend(self.tail[at:])
            del self.tail[at:]
            self.tail.append(block)
            if block in self.doubtful:
                self.doubtful.remove(block)
        self._persist()

    def commit_to(self, index: int) -> list[Block]:
        """Rule 5: decide up to an index; entries truncated there before are lost for good. Returns what is decided."""
        context = self.context
        done = 0
        while done < len(self.tail) and self.tail[done].height <= index:
            context.decide(self.tail[done])
            done += 1
        decided = self.tail[:done]
        del self.tail[:done]
        if done and self.doubtful:
            lost = [block for block in self.doubtful if block.height <= context.height]
            self.doubtful = [block for block in self.doubtful if block.height > context.height]
            context.disk.persist(doubtful=tuple(self.doubtful))
            for block in lost:
                context.chain.abandon(block)
        return decided

    def install(self, last: Block) -> list[Block]:
        """All up to an entry comes with a snapshot; go on behind it if the log agrees. Returns what is decided."""
        context = self.context
        follows = self.entry(last.height) is last
        path: list[Block] = []
        block: Block | None = last
        while block is not None and block.height > context.height:
            path.append(block)
            block = block.parent
        path.reverse()
        for block in path:
            context.decide(block)
        kept = [entry for entry in self.tail if entry.height > last.height] if follows else []
        self.doubtful.extend(entry for entry in self.tail if entry not in kept and entry not in path)
        self.tail = kept
        self._persist()
        return path

    def _persist(self) -> None:
        self.context.disk.persist(tail=tuple(self.tail), doubtful=tuple(self.doubtful))
