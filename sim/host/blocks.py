"""Blocks as objects: those that replicas hold, and those of the engine's that somebody asks for.

A block lives as a row of the ledger from its proposal until every voter has decided it and the next. Blocks that a
handler made have an object from the start. Blocks that the engine proposed by itself (sim/engine/lease.py) get one
when a handler looks at them; most never do.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sim.engine import actions, entry, lease
from sim.engine.settings import NO_LIMIT
from sim.kernel import run_state as kernel
from sim.kernel import tally
from sim.ledger import rows as ledger
from sim.protocol import Ballot, Block, VoteType

if TYPE_CHECKING:
    from sim.host.run import Run

_DEAD_AFTER = 64  # heights after which an undecided block has lost
_FEW = 8  # ballots of a block: more are looked up by their names
_REST_EVERY = 8192  # decisions, while voters are down
_TRIES = 64  # to part with an object, one at each sweep
_LATE_KEPT = 8  # closed blocks that are still voted on
_TOLD = 7  # of what a tally says of a voter: it was told of a threshold
_LATER_HEIGHTS = 1  # blocks below everybody's tip that are kept


class LinkedBlock(Block):
    """A block that finds its parent when somebody asks: one recalls no whole chain, and one keeps none."""

    __slots__ = ("tree",)

    def __init__(self, tree: BlockStore, row: int, number: int, height: int, view: int, proposer: int) -> None:
        super().__init__(number, height, view, proposer, None)
        del self.parent
        self.tree = tree
        self.row = row

    def __getattr__(self, name: str) -> Block | None:
        if name != "parent":
            raise AttributeError(name)
        self.parent = self.tree.parent(self.row)
        return self.parent

    def let_go_of_parent(self) -> None:
        """Find it again when somebody asks."""
        with contextlib.suppress(AttributeError):  # nobody has asked
            del self.parent


def fork(old: Block | None, new: Block) -> tuple[int, list[Block], list[Block]]:
    """Where two branches part: the height up to which they are one, and what each has above.

    The old branch's blocks come from its top down, the new one's from the bottom up.
    """
    left: list[Block] = []
    right: list[Block] = []
    a: Block | None = old
    b: Block | None = new
    while a is not b:
        if b is None or (a is not None and a.height >= b.height):
            assert a is not None
            left.append(a)
            a = a.parent
        else:
            right.append(b)
            b = b.parent
    return (0 if a is None else a.height), left, right[::-1]


class BlockStore:
    """The blocks of a run, their ballots, and when they go."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.of_row: dict[int, Block] = {}
        self.ballots: dict[tuple[int, int], list[Ballot]] = {}  # by view and number
        self.rivalled: dict[tuple[int, int], None] = {}  # views and numbers at which several blocks stood, in order
        self.blank: dict[int, list[Ballot]] = {}  # those without a block, by view
        self.owner_of_row: dict[int, tuple[Ballot, VoteType]] = {}  # by tally row
        self.any_values: dict[int, list[Ballot]] = {}  # ballots without a block that votes count under, by number
        self.abandoned: dict[int, Block] = {}
        self._at_height: dict[int, list[Block]] = {}
        self._chain: dict[int, Block] = {}  # the decided block of a height, as far as it was asked for
        self._closed: list[Block] = []  # that everybody has decided, and some still vote on
        self._scan_above = 4 * _DEAD_AFTER  # objects from which it is worth looking for dead blocks
        self._shed_height = 0
        self._agreed_height = 0  # of the highest block that every voter has decided
        self._crashed_ns: dict[int, int] = {}  # voters that are down
        self._rest_at = 0
        self._idle: list[tuple[int, int, int]] = []  # row, number and tries of blocks that nobody up needs

    def add(self, block: Block) -> None:
        """A new object."""
        self.of_row[block.row] = block
        self._at_height.setdefault(block.height, []).append(block)

    # --- finding blocks --------------------------------------------------------------------------------

    def at(self, row: int) -> Block | None:
        """The block of a row; None if the row is none or serves no block."""
        if row < 0:
            return None
        block = self.of_row.get(row)
        if block is None and self.run.blocks[row * ledger.BLOCK_WIDTH + ledger.NUMBER] >= 0:
            block = self._recall(row)
        return block

    def _recall(self, row: int) -> Block:
        """Make an object of an unseen block."""
        rows, at = self.run.blocks, row * ledger.BLOCK_WIDTH
        height, view = rows[at + ledger.HEIGHT], rows[at + ledger.VIEW]
        block = LinkedBlock(self, row, rows[at + ledger.NUMBER], height, view, rows[at + ledger.PROPOSER])
        block.txs, block.bytes, block.made_ns = (
            rows[at + ledger.TXS],
            rows[at + ledger.BYTES],
            rows[at + ledger.PROPOSED_NS],
        )
        entry.see_block(self.run.run_state, row)
        self.add(block)
        if rows[at + ledger.CASE_ACTION] > 0:
            block.actions.append(rows[at + ledger.CASE_ACTION])
            ballot = self.ballot(view, height, block)
            for i, vote in enumerate(self.run.case_votes[rows[at + ledger.CASE]]):
                tally = rows[at + ledger.CASE_ROWS + i]
                ballot.rows[vote] = tally
                self.owner_of_row[tally] = (ballot, vote)
        return block

    def parent(self, row: int) -> Block | None:
        """The parent of a row's block; None if it is the genesis block or nobody needs it any more."""
        rows, at = self.run.blocks, row * ledger.BLOCK_WIDTH
        parent = rows[at + ledger.PARENT]
        if parent < 0 or rows[parent * ledger.BLOCK_WIDTH + ledger.NUMBER] != rows[at + ledger.PARENT_NUMBER]:
            return None
        return self.at(parent)

    def at_height(self, height: int) -> list[Block]:
        """All blocks of a height."""
        while (row := entry.unseen_at(self.run.run_state, height)) >= 0:
            self._recall(row)
        return self._at_height.get(height, [])

    def decided(self, node: int, height: int) -> Block | None:
        """The block that a node decided at a height."""
        run = self.run
        at = node * ledger.PEER_WIDTH
        if height >= run.peers[at + ledger.TIP_HEIGHT]:
            return self.at(run.peers[at + ledger.TIP]) if height == run.peers[at + ledger.TIP_HEIGHT] else None
        rivals = self.at_height(height)
        block = self._chain.get(height)
        if block is not None and len(rivals) == 1:
            return block
        decided = [b for b in rivals if self.is_decided(b)]
        if len(decided) == 1:
            self._chain[height] = decided[0]
            return decided[0]
        return self._own_ancestor(node, height) if decided else None

    def is_decided(self, block: Block) -> bool:
        """Whether anybody has decided a block, corrupted or not: it is kept as long as that one may ask for it."""
        return block.row >= 0 and bool(
            self.run.blocks[block.row * ledger.BLOCK_WIDTH + ledger.STANDING] > ledger.UNDECIDED
        )

    def _own_ancestor(self, node: int, height: int) -> Block | None:
        """The block of a height below a node's last one: where replicas disagree, each has its own chain."""
        block = self.at(self.run.peers[node * ledger.PEER_WIDTH + ledger.TIP])
        while block is not None and block.height > height:
            block = block.parent
        return block

    def move(self, block: Block, parent: Block | None) -> None:
        """Put an undecided block on top of another."""
        row, rows, width = block.row, self.run.blocks, ledger.BLOCK_WIDTH
        old = int(rows[row * width + ledger.PARENT])
        if old >= 0 and rows[old * width + ledger.CHILD] == row:
            rows[old * width + ledger.CHILD] = rows[row * width + ledger.SIBLING]
        block.parent = parent
        rows[row * width + ledger.PARENT] = -1 if parent is None else parent.row
        rows[row * width + ledger.PARENT_NUMBER] = -1 if parent is None else parent.number
        if parent is not None:
            rows[row * width + ledger.SIBLING] = rows[parent.row * width + ledger.CHILD]
            rows[parent.row * width + ledger.CHILD] = row

    def numbered(self, number: int) -> Block | None:
        """The block of a number, if it is still kept."""
        rows = (self.run.engine.block()[:, ledger.NUMBER] == number).nonzero()[0].tolist()
        return self.at(rows[0]) if rows else None

    def proposed_last(self, node: int) -> Block | None:
        """The block a node proposed last, while it is kept."""
        leases, at = self.run.leases, node * lease.LEASE_WIDTH
        row = leases[at + lease.LAST]
        if row < 0 or self.run.blocks[row * ledger.BLOCK_WIDTH + ledger.NUMBER] != leases[at + lease.LAST_NUMBER]:
            return None
        return self.at(row)

    # --- ballots ---------------------------------------------------------------------------------------

    def ballot(self, view: int, number: int, block: Block | None) -> Ballot:
        """Find or open a ballot."""
        ballot: Ballot
        if block is not None and len(block.ballots) < _FEW:
            for ballot in block.ballots:  # one or two, and asked for several times
                if ballot.view == view and ballot.number == number:
                    return ballot
        same = self.ballots.setdefault((view, number), [])
        for ballot in same:
            if ballot.block is block:
                return ballot
        ballot = Ballot(view, number, block)
        if block is not None and any(ballot.block is not None for ballot in same):
            self.rivalled[view, number] = None
        same.append(ballot)
        if block is not None:
            block.ballots.append(ballot)
        else:
            self.blank.setdefault(view, []).append(ballot)
        return ballot

    def _drop_ballot(self, ballot: Ballot) -> None:
        """Nobody will ask for a ballot any more; its rows are the caller's to release."""
        name = (ballot.view, ballot.number)
        same = self.ballots[name]
        if len(same) == 1:
            del self.ballots[name]
            self.rivalled.pop(name, None)
        else:
            same.remove(ballot)
        if ballot.block is None:
            blank = self.blank[ballot.view]
            blank.remove(ballot)
            if not blank:
                del self.blank[ballot.view]
        ballot.rows = {}

    def ballots_of(self, view: int, number: int) -> list[Ballot]:
        """All ballots of a view and number."""
        self.at_height(number)
        return self.ballots.get((view, number), [])

    def highest_number(self) -> int:
        """The greatest number of any ballot there is."""
        leases = self.run.engine.run_state[lease.LEASE].reshape(-1, lease.LEASE_WIDTH)
        return max(int(leases[:, lease.LAST_HEIGHT].max()), max((number for _, number in self.ballots), default=0))

    def all_ballots(self) -> list[tuple[tuple[int, int], list[Ballot]]]:
        """All ballots by view and number, but for the engine's own that no other rivals."""
        for number in {number for _, number in self.ballots}:
            self.at_height(number)
        return list(self.ballots.items())

    def owner(self, tally: int) -> tuple[Ballot, VoteType] | None:
        """What a tally row counts."""
        found = self.owner_of_row.get(tally)
        if found is None:
            blocks = self.run.engine.block()
            cases = blocks[:, ledger.CASE_ROWS : ledger.CASE_ROWS + 3]
            unseen = (blocks[:, ledger.NUMBER] >= 0) & (blocks[:, ledger.SEEN] == 0)
            for row in (unseen & (cases == tally).any(axis=1)).nonzero()[0].tolist():
                self._recall(row)
            found = self.owner_of_row.get(tally)
        return found

    # --- any-value tallies: votes counted whatever their block ---------------------------------------------------

    def any_value(self, ballot: Ballot) -> Ballot:
        """The ballot without a block under which votes of all ballots of this view and number count together."""
        over = self.ballot(ballot.view, ballot.number, None)
        same = self.any_values.setdefault(ballot.number, [])
        if over not in same:
            same.append(over)
        return over

    def under_any_value(self, ballot: Ballot, votes: Iterable[VoteType]) -> bool:
        """Whether votes under the any-value tally of one of these were cast for any ballot of this view and number."""
        over = next((over for over in self.any_values.get(ballot.number, ()) if over.view == ballot.view), None)
        return over is not None and any(vote.any_value in over.rows for vote in votes)

    def _close_any_values(self, number: int) -> None:
        """Everybody has decided well beyond this number: tallies under an any-value tally end together with it."""
        for over in self.any_values.pop(number):
            name = (over.view, over.number)
            for ballot in self.ballots[name]:
                for row in ballot.rows.values():
                    del self.owner_of_row[row]
                    entry.drop_tally(self.run.run_state, row)
                ballot.rows = {}
            self._drop_ballot(over)

    # --- voters that go and come -----------------------------------------------------------------------

    def voter_goes(self, node: int) -> None:
        """A voter crashes: it may have voted on whatever was proposed until now."""
        self._crashed_ns[node] = self.run.now_ns
        self._sweep_next()
        self.end_lease(node)

    def voter_comes(self, node: int) -> None:
        """A voter runs again."""
        del self._crashed_ns[node]
        self._sweep_next()

    def end_lease(self, node: int) -> None:
        """The engine proposes no longer for a node; what it proposed and nobody decided may be lost, so see it."""
        leases, at = self.run.leases, node * lease.LEASE_WIDTH
        if leases[at + lease.UNTIL] == 0:
            return
        leases[at + lease.UNTIL] = 0
        block = self.proposed_last(node)
        while block is not None and not self.is_decided(block):
            block = block.parent

    # --- freeing ---------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Free the blocks that everybody has decided and left behind, and their ballots."""
        run = self.run
        lowest = self._lowest_needed()
        for number in [number for number in self.any_values if number < lowest]:
            self._close_any_values(number)
        self._closed += self._listed(entry.sweep(run.run_state, lowest))
        kept = self._voted_on_late()
        for block in self._closed:
            if block not in kept:
                self._free(block)
        self._closed = kept
        for block in [block for block in self.abandoned.values() if block.height < lowest]:
            del self.abandoned[block.number]
            if block.row >= 0 and not self.is_decided(block):
                self._free(block)
        if len(self.of_row) > self._scan_above:
            self._free_dead(lowest)
            self._scan_above = 2 * len(self.of_row) + 4 * _DEAD_AFTER
        if self._crashed_ns:
            self._shed()
        run.run_state[actions.SWEEP_CLOSED] = run.run_state[ledger.CLOSED_LEN] + run.engine.sweep_every
        self._sweep_next()

    def _voted_on_late(self) -> list[Block]:
        """Closed blocks with votes that decide nothing (checkpoints), of which some voter has not got enough.

        Until it has, or has enough for a later one, they are said again where they were lost. The latest few are
        enough: no protocol goes on for long without them.
        """
        run = self.run
        late = [(block, row) for block in self._closed for row in self._late_rows(block)][-_LATE_KEPT:]
        if not late:
            return []
        state = run.engine.run_state
        tallies, fired = state[kernel.TALLY], state[kernel.TALLY_FIRED]
        voters = [node for node in range(run.engine.voters) if run.works(node)]
        kept: list[Block] = []
        without = set(voters)  # of this block and all later ones
        for block, row in sorted(late, key=lambda entry: -entry[0].height):
            start, step = (int(tallies[row * tally.ROW + at]) for at in (tally.COUNT_AT, tally.COUNT_STEP))
            without = {node for node in without if not fired[start + node * step] & _TOLD}
            if without:
                kept.append(block)
        return kept[::-1]

    def _late_rows(self, block: Block) -> list[int]:
        """Tallies of a block's votes that decide nothing."""
        return [row for ballot in block.ballots for vote, row in ballot.rows.items() if not vote.decides]

    def _sweep_next(self) -> None:
        """While voters are down nothing closes: sweep after so many decisions, to shed what is kept for them."""
        run_state = self.run.run_state
        again = run_state[ledger.DECISIONS] + self.run.engine.sweep_every
        run_state[actions.SWEEP_DECISIONS] = again if self._crashed_ns else NO_LIMIT

    def _lowest_needed(self) -> int:
        """Height below which nobody needs a block: everybody's tip; where there are branches, their common root."""
        run = self.run
        if not run.protocol.forks:
            return int(run.engine.peer()[: run.engine.seats, ledger.TIP_HEIGHT].min()) - _LATER_HEIGHTS
        closed = run.engine.run_state[ledger.CLOSED][: run.run_state[ledger.CLOSED_LEN]]
        heights = run.engine.block()[closed, ledger.HEIGHT]
        self._agreed_height = max(self._agreed_height, int(heights.max(initial=0)))
        return self._agreed_height - _LATER_HEIGHTS

    def _listed(self, count: int) -> list[Block]:
        """The blocks that the engine leaves to Python."""
        rows = self.run.engine.run_state[ledger.HANDED][:count]
        return [self.of_row[row] for row in rows.tolist()]

    def _free(self, block: Block) -> None:
        """Let go of a block, its ballots and actions: nobody will ask for it any more."""
        rows = self._forget_ballots(block)
        if len(rows) < 3:
            rows += (-1, -1, -1)
        actions = block.actions or (0,)
        run_state = self.run.run_state
        entry.drop_case(run_state, block.row, actions[0], rows[0], rows[1], rows[2])
        for row in rows[3:]:
            if row >= 0:
                entry.drop_tally(run_state, row)
        for action in actions[1:]:
            entry.drop_action(run_state, action)
        del self.of_row[block.row]
        same_height = self._at_height[block.height]
        if len(same_height) == 1:
            del self._at_height[block.height]
        else:
            same_height.remove(block)
        self._chain.pop(block.height, None)
        block.row = -1
        block.parent = None
        block.body = None
        block.actions = []

    def _forget_ballots(self, block: Block) -> list[int]:
        """Nobody will ask for a block's ballots any more; returns their tally rows."""
        rows: list[int] = []
        for ballot in block.ballots:
            rows += ballot.rows.values()
            self._drop_ballot(ballot)
        for row in rows:
            del self.owner_of_row[row]
        block.ballots = []
        return rows

    def _free_dead(self, lowest: int) -> None:
        """Let go of blocks that lost: undecided, and far below what everybody has decided."""
        dead = [
            block
            for block in self.of_row.values()
            if block.height < lowest - _DEAD_AFTER and not self.is_decided(block)
        ]
        for block in dead:
            self._free(block)

    def _shed(self) -> None:
        """While voters are down, blocks are kept for them. Let go of what is kept with them (see `lead.trim`)."""
        run = self.run
        self._shed_height, count = entry.trim(run.run_state, self._shed_height, max(self._crashed_ns.values()))
        rows = run.engine.run_state[ledger.HANDED][
            :count
        ].tolist()  # from the highest down: each may be held by the next
        idle = [(row, self.of_row[row].number, 0) for row in rows]
        self._idle = [
            (row, number, tries + 1)
            for row, number, tries in (*idle, *self._idle)
            if not self._part_with(row, number) and tries < _TRIES
        ]
        if run.run_state[ledger.DECISIONS] >= self._rest_at:  # whoever is touched again comes back page by page
            run.engine.run_state.rest()
            self._rest_at = run.run_state[ledger.DECISIONS] + _REST_EVERY

    def _strip(self, block: Block) -> bool:
        """Forget a block's ballots and actions, unless votes in them are under way."""
        run_state = self.run.run_state
        tallies = [row for ballot in block.ballots for row in ballot.rows.values()]
        if any(entry.has_votes_under_way(run_state, row) for row in tallies):
            return False
        self._forget_ballots(block)
        for row in tallies:
            entry.drop_tally(run_state, row)
        for action in block.actions:
            entry.drop_action(run_state, action)
        block.actions = []
        return True

    def _part_with(self, row: int, number: int) -> bool:
        """Part with the object of a block that waits for voters who are down; False if somebody else has it.

        Whoever asks for the block later gets another object. One that a protocol keeps something with stays.
        """
        held = self._loosen(row, number)
        if held is None:
            return True  # it is gone, or stays
        block = held()
        rows, at = self.run.blocks, row * ledger.BLOCK_WIDTH
        if block is not None:
            if row not in self.of_row:
                self.add(block)
            return False
        rows[at + ledger.CASE_ACTION] = 0
        for i in range(3):
            rows[at + ledger.CASE_ROWS + i] = -1
        entry.unsee_block(self.run.run_state, row)
        return True

    def _loosen(self, row: int, number: int) -> weakref.ref[Block] | None:
        """Keep a block's object no longer; None if the row has another block, or one that a protocol knows more of."""
        block = self.of_row.get(row)
        if block is None or block.number != number:
            return None
        if not self._strip(block):
            return weakref.ref(block)
        if block.body is not None:
            return None
        del self.of_row[row]
        self._chain.pop(block.height, None)
        for child in self._at_height.get(block.height + 1, ()):
            if isinstance(child, LinkedBlock):
                child.let_go_of_parent()
        same = self._at_height[block.height]
        if len(same) == 1:
            del self._at_height[block.height]
        else:
            same.remove(block)
        return weakref.ref(block)
