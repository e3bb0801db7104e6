"""Agreement, validity, order and finality, as a fold over trace rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from sim.check.verdict import Violation
from sim.ledger import rows as ledger
from sim.past import Past
from sim.trace.rows import Rows

_MOST = 20  # violations kept in words; more say nothing new


@dataclasses.dataclass(frozen=True)
class Conflict:
    """Two correct replicas decided different blocks at one height."""

    time_ns: int
    height: int
    node: int
    block: int
    view: int
    first_node: int
    first_block: int

    def words(self) -> str:
        """In words."""
        return (
            f"height {self.height}: replica {self.node} decided block {self.block} (view {self.view}), "
            f"replica {self.first_node} had decided block {self.first_block}"
        )


class Safety:
    """Fold over trace rows: feed it every chunk, then read `conflicts`, `validity`, `order` and `finality`.

    What `corrupted` replicas decide counts for nothing.
    """

    def __init__(self, voters: int, corrupted: Iterable[int] = ()) -> None:
        self.voters = voters
        self.correct = np.ones(voters, dtype=bool)
        self.correct[list(corrupted)] = False
        self.some_corrupted = not self.correct.all()
        self._canonical = Past()  # height -> block number, 0 unknown
        self._first_by = Past()  # height -> node that decided it first
        self._proposed = Past()  # block number -> 1 if it was proposed
        self.heights = np.zeros(voters, dtype=np.int64)
        self.conflicts: list[Conflict] = []
        self.validity: list[Violation] = []
        self.order: list[Violation] = []
        self.finality: list[Violation] = []

    def __call__(self, chunk: np.ndarray) -> None:
        """Take in a chunk of trace rows, shape (rows, TRACE_WIDTH)."""
        rows = Rows(chunk)
        born = rows.of(ledger.EVENT_PROPOSED).block
        if len(born):
            self._proposed.reach(int(born.max()))[born] = 1
        at = np.flatnonzero(rows.event == ledger.EVENT_DECIDED)
        if self.some_corrupted:
            at = at[self.correct[rows.node[at]]]
        if len(at):
            decided = rows[at]
            self._agree(decided)
            self._valid(decided)
        back = np.flatnonzero(rows.event == ledger.EVENT_REVERTED)
        if len(back):
            back = back[self.correct[rows.node[back]]]
            self._final(rows[back])
            at = np.sort(np.concatenate((at, back)))
        if len(at):
            self._ordered(rows[at])

    def _agree(self, decided: Rows) -> None:
        nodes, numbers, heights = decided.node, decided.block, decided.height
        top = int(heights.max())
        canonical, first_by = self._canonical.reach(top), self._first_by.reach(top)
        known = canonical[heights]
        fresh = np.flatnonzero(known == 0)[::-1]
        if len(fresh):
            canonical[heights[fresh]] = numbers[fresh]  # the earliest row is written last and stays
            first_by[heights[fresh]] = nodes[fresh]
            known = canonical[heights]
        for i in np.flatnonzero(known != numbers)[: _MOST - len(self.conflicts)]:
            fact, height = decided[int(i)], int(heights[i])
            first = int(first_by[height]), int(canonical[height])
            self.conflicts.append(Conflict(fact.time_ns, height, fact.node, fact.block, fact.view, *first))

    def _valid(self, decided: Rows) -> None:
        numbers = decided.block
        proposed = self._proposed.reach(int(numbers.max()))
        for fact in decided[proposed[numbers] == 0][:_MOST]:
            text = f"replica {fact.node} decided block {fact.block}, which nobody proposed"
            self.validity.append(Violation("validity", "safety", fact.time_ns, fact.node, text))

    def _final(self, given_up: Rows) -> None:
        for fact in given_up[: max(_MOST - len(self.finality), 0)]:
            instead = fact.view  # of this event: the block that takes the place
            by = f"block {instead}" if instead else "a branch that does not reach that height"
            text = f"height {fact.height}: replica {fact.node} had decided block {fact.block} and gave it up for {by}"
            self.finality.append(Violation("finality", "safety", fact.time_ns, fact.node, text))

    def _ordered(self, rows: Rows) -> None:
        """Each replica decides heights 1, 2, 3, ... once each, without a gap, counted anew from what it gives up."""
        nodes, heights = rows.node, rows.height
        small = nodes.astype(np.uint16) if self.voters < 1 << 16 else nodes  # numpy sorts 16 bits by radix
        order = np.argsort(small, kind="stable")
        by_node, heights = nodes[order], heights[order]
        decides = rows.event[order] == ledger.EVENT_DECIDED
        after = heights - ~decides  # height of the last decided block after each row
        starts = np.flatnonzero(np.diff(by_node, prepend=-1))
        each = by_node[starts]
        before = np.empty(len(after), dtype=np.int64)
        before[1:] = after[:-1]
        before[starts] = self.heights[each]
        for i in np.flatnonzero(decides & (heights != before + 1))[:_MOST]:
            fact = rows[int(order[i])]
            text = f"replica {fact.node} decided height {fact.height} after height {int(before[i])}"
            self.order.append(Violation("order", "safety", fact.time_ns, fact.node, text))
        self.heights[each] = after[np.append(starts[1:], len(after)) - 1]
