"""The branches a replica knows where blocks compete, and how it comes by what it lacks.

For protocols in which the chain is chosen, not voted (`Replica.forks`): they say which blocks are valid and which
branch is the better one. A block whose parent is missing waits; its sender is asked for the blocks that lead to it,
oldest first, so many at a time, from the last block decided here or, if the branches part below, from further down.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from sim.protocol import Block, Context, Message, Signing, Timer

HEADER_BYTES = 540  # of an Ethereum block: 508, and 32 of the extra data without the seal
STATUS_BYTES = 120  # network, total difficulty, head
REQUEST_BYTES = 80
FIRST_STEP_DOWN = 8  # heights below the last decided block that are asked for first, then twice as many
FORGET_ABOVE = 1024  # known blocks from which it is worth looking for some to forget
EARLY = Timer("early")
DEPTH_BITS = 20  # of a guard: the head, then how many blocks up to it are not decided


def guard_upon(head: Block | None, decided: int) -> int:
    """The guard of replicas with this head, that have decided so much of its chain."""
    return 0 if head is None else (head.number << DEPTH_BITS) + head.height - decided


@dataclasses.dataclass(frozen=True, slots=True)
class NewBlock(Message):
    """A block, from the one who sealed it; the seal is the message's signature."""

    block: Block

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES + self.block.bytes

    def carries(self) -> Block:
        return self.block


class Housekeeping(Message):
    """Not part of a decision, and unsigned."""

    __slots__ = ()
    decides = False
    signed = False


@dataclasses.dataclass(frozen=True, slots=True)
class Status(Housekeeping):
    """The sender's chain ends in this block, for those who missed something."""

    head: Block

    def size_bytes(self, signing: Signing) -> int:
        return STATUS_BYTES


@dataclasses.dataclass(frozen=True, slots=True)
class GetBlocks(Housekeeping):
    """Send me the blocks on the way to this one that lie above a height."""

    wanted: Block
    above: int

    def size_bytes(self, signing: Signing) -> int:
        return REQUEST_BYTES


@dataclasses.dataclass(frozen=True, slots=True)
class Blocks(Housekeeping):
    """The answer, oldest block first; each bears its own seal."""

    request: GetBlocks
    blocks: tuple[Block, ...]

    def size_bytes(self, signing: Signing) -> int:
        return sum(HEADER_BYTES + signing.signature_bytes + block.bytes for block in self.blocks)

    def signatures(self) -> int:
        return len(self.blocks)


def lies_on_decided(context: Context, head: Block | None) -> bool:
    """Whether the chain that ends in a head and the one decided here are one."""
    block, height = head, context.height
    while block is not None and block.height > height:
        block = block.parent
    decided = None if block is None else context.chain.decided(block.height)
    return decided is None or decided is block


def links(head: Block | None, above: int) -> Iterator[tuple[Block, Block | None]]:
    """Blocks of the chain that ends in a head, down to a height, each with its parent (None: the genesis block)."""
    block = head
    while block is not None and block.height > above and block.body is not None:
        parent = block.parent
        if parent is None or parent.body is not None:
            yield block, parent
        block = parent


class Branches:
    """One replica's tree of blocks.

    `valid` judges a block whose parent is known. `early_ns` says how long a block must wait until its time has come by
    my clock (EARLY is set off then, for the protocol to receive it again), or None if it is refused. The tree is on
    disk: it survives a crash through `known`.
    """

    def __init__(
        self,
        context: Context,
        valid: Callable[[Block], bool],
        *,
        early_ns: Callable[[Block], int | None],
        known: dict[int, Block],
        blocks_per_answer: int,
        patience_ns: int,
    ) -> None:
        self.context = context
        self.valid = valid
        self.early_ns = early_ns
        self.known = known  # by block number
        self.blocks_per_answer = blocks_per_answer
        self.patience_ns = patience_ns  # before a request is repeated
        self.waiting: dict[int, list[Block]] = {}  # by the number of the missing parent
        self.at_height: dict[int, list[Block]] = {}  # above the last decided block
        self.asked_ns: int | None = None
        self.forget_above = FORGET_ABOVE
        for block in known.values():
            self._place(block)

    def knows(self, block: Block | None) -> bool:
        """Whether a block hangs together with the genesis block here. One without a row is behind everybody."""
        return block is None or block.row < 0 or block.number in self.known

    def receive(self, sender: int, block: Block) -> list[Block]:
        """Take in a block. Returns what hangs together by it, parents first; asks for its parent if that lacks."""
        if self.knows(block) or self._is_early(sender, block):
            return []
        if not self.knows(block.parent):
            self._wait(block)
            self.ask(sender, block.parent)
            return []
        return self._connect(block)

    def _is_early(self, sender: int, block: Block) -> bool:
        """Whether a block comes from the future by my clock; it is received again when its time has come."""
        early_ns = self.early_ns(block)
        if early_ns:
            self.context.set_timer(EARLY, early_ns, (sender, block))
        return early_ns != 0

    def follow(self, head: Block) -> list[Block]:
        """The fast path has accepted the blocks up to this one, and decided some of them; their rivals are lost.

        Returns what it accepted, parents first.
        """
        height, known = self.context.height, self.known
        path: list[Block] = []
        block: Block | None = head
        while block is not None and block.row >= 0 and block.number not in known:
            path.append(block)
            block = block.parent
        path.reverse()
        for fresh in path:
            known[fresh.number] = fresh
            if fresh.height > height or fresh.height in self.at_height:
                self.at_height.setdefault(fresh.height, []).append(fresh)
        for lower in [lower for lower in self.at_height if lower <= height]:
            rivals = self.at_height.pop(lower)
            if len(rivals) > 1:
                final = self.context.chain.decided(lower)
                for rival in rivals:
                    if rival is not final:
                        self.context.chain.abandon(rival)
        if len(known) > self.forget_above:
            self._forget()
        return path

    def look_at(self, sender: int, head: Block) -> None:
        """Somebody's chain ends in this block: ask for it if I lack it."""
        if not self.knows(head):
            self.ask(sender, head)

    def ask(self, sender: int, wanted: Block | None, above: int | None = None) -> None:
        """Ask for the blocks that lead to this one, unless a request is under way.

        It may lie no higher than what is decided here, on a branch that has won elsewhere.
        """
        context = self.context
        busy = self.asked_ns is not None and context.now_ns < self.asked_ns + self.patience_ns
        if wanted is not None and not busy:
            self.asked_ns = context.now_ns
            above = min(context.height if above is None else above, wanted.height - 1)
            context.send(sender, GetBlocks(wanted, above))

    def answer(self, asker: int, request: GetBlocks) -> None:
        """Send what is asked for, as far as it is known here."""
        path: list[Block] = []
        block: Block | None = request.wanted
        if not self.knows(block):
            return
        while block is not None and block.row >= 0 and block.height > request.above:
            path.append(block)
            block = block.parent
        if path:
            self.context.send(asker, Blocks(request, tuple(path[: -self.blocks_per_answer - 1 : -1])))

    def receive_answer(self, sender: int, answer: Blocks) -> list[Block]:
        """Take in blocks that were asked for, and ask for the next ones. Returns what hangs together by them."""
        self.asked_ns = None
        first, last = answer.blocks[0], answer.blocks[-1]
        wanted = answer.request.wanted
        if not self.knows(first.parent):
            decided = self.context.height
            further = max(2 * (decided - answer.request.above), FIRST_STEP_DOWN)
            self.ask(sender, wanted, max(decided - further, 0))
            return []
        fresh: list[Block] = []
        for block in answer.blocks:
            if not self.knows(block) and self.knows(block.parent) and not self._is_early(sender, block):
                fresh += self._connect(block)
        if self.knows(last) and not self.knows(wanted):
            self.ask(sender, wanted, last.height)
        return fresh

    def decide_to(self, block: Block) -> None:
        """Decide a block with all its ancestors; their rivals are lost."""
        context = self.context
        path: list[Block] = []
        ancestor: Block | None = block
        while ancestor is not None and ancestor.height > context.height:
            path.append(ancestor)
            ancestor = ancestor.parent
        for final in reversed(path):
            context.decide(final)
            for rival in self.at_height.pop(final.height, ()):
                if rival is not final:
                    context.chain.abandon(rival)
        if len(self.known) > self.forget_above:
            self._forget()

    def _wait(self, block: Block) -> None:
        assert block.parent is not None
        same = self.waiting.setdefault(block.parent.number, [])
        if block not in same:
            same.append(block)

    def _connect(self, block: Block) -> list[Block]:
        """The block's parent is known: so are, if they are valid, the block and what waited for it."""
        found: list[Block] = []
        next_ = [block]
        while next_:
            child = next_.pop(0)
            later = self.waiting.pop(child.number, [])
            if self.knows(child) or not self.valid(child):
                continue
            self.known[child.number] = child
            self._place(child)
            found.append(child)
            next_ += later
        return found

    def _place(self, block: Block) -> None:
        if block.height > self.context.height:
            self.at_height.setdefault(block.height, []).append(block)
        elif block.row >= 0:
            self.context.chain.abandon(block)

    def _forget(self) -> None:
        """Let go of blocks that everybody has left behind."""
        for number in [number for number, block in self.known.items() if block.row < 0]:
            del self.known[number]
        for parent, blocks in list(self.waiting.items()):
            if all(block.row < 0 for block in blocks):
                del self.waiting[parent]
        self.forget_above = max(2 * len(self.known), FORGET_ABOVE)
