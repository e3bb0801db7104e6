"""Agreement, validity, order and finality, as a fold over trace rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from sim.check.verdict import Violation
from sim.ledger import rows as r
from sim.past import Past

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

    def __call__(self, rows: np.ndarray) -> None:
        """Take in a chunk of trace rows, shape (rows, TRACE_WIDTH)."""
        events = rows[:, 1]
        born = rows[events == r.EVENT_PROPOSED, 3]
        if len(born):
            self._proposed.reach(int(born.max()))[born] = 1
        at = np.flatnonzero(events == r.EVENT_DECIDED)
        if self.some_corrupted:
            at = at[self.correct[rows[at, 2]]]
        if len(at):
            nodes, numbers, heights = rows[at, 2], rows[at, 3], rows[at, 4]
            self._agree(rows, at, nodes, numbers, heights)
            self._valid(rows, at, numbers)
        back = np.flatnonzero(events == r.EVENT_REVERTED)
        if len(back):
            back = back[self.correct[rows[back, 2]]]
            self._final(rows[back])
            at = np.sort(np.concatenate((at, back)))
        if len(at):
            self._ordered(rows, at)

    def _agree(
        self, rows: np.ndarray, at: np.ndarray, nodes: np.ndarray, numbers: np.ndarray, heights: np.ndarray
    ) -> None:
        top = int(heights.max())
        canonical, first_by = self._canonical.reach(top), self._first_by.reach(top)
        known = canonical[heights]
        fresh = np.flatnonzero(known == 0)[::-1]
        if len(fresh):
            canonical[heights[fresh]] = numbers[fresh]  # the earliest row is written last and stays
            first_by[heights[fresh]] = nodes[fresh]
            known = canonical[heights]
        for i in np.flatnonzero(known != numbers)[: _MOST - len(self.conflicts)]:
            row, height = rows[at[i]], int(heights[i])
            first = int(first_by[height]), int(canonical[height])
            self.conflicts.append(Conflict(int(row[0]), height, int(row[2]), int(row[3]), int(row[5]), *first))

    def _valid(self, rows: np.ndarray, at: np.ndarray, numbers: np.ndarray) -> None:
        proposed = self._proposed.reach(int(numbers.max()))
        for row in rows[at[proposed[numbers] == 0][:_MOST]]:
            text = f"replica {int(row[2])} decided block {int(row[3])}, which nobody proposed"
            self.validity.append(Violation("validity", "safety", int(row[0]), int(row[2]), text))

    def _final(self, given_up: np.ndarray) -> None:
        room = _MOST - len(self.finality)
        for time_ns, _, node, block, height, instead, *_ in given_up[: max(room, 0)].tolist():
            by = f"block {instead}" if instead else "a branch that does not reach that height"
            text = f"height {height}: replica {node} had decided block {block} and gave it up for {by}"
            self.finality.append(Violation("finality", "safety", time_ns, node, text))

    def _ordered(self, rows: np.ndarray, at: np.ndarray) -> None:
        """Each replica decides heights 1, 2, 3, ... once each, without a gap, counted anew from what it gives up."""
        nodes, heights = rows[at, 2], rows[at, 4]
        small = nodes.astype(np.uint16) if self.voters < 1 << 16 else nodes  # numpy sorts 16 bits by radix
        order = np.argsort(small, kind="stable")
        by_node, heights = nodes[order], heights[order]
        decides = rows[at, 1][order] == r.EVENT_DECIDED
        after = heights - ~decides  # height of the last decided block after each row
        starts = np.flatnonzero(np.diff(by_node, prepend=-1))
        each = by_node[starts]
        before = np.empty(len(after), dtype=np.int64)
        before[1:] = after[:-1]
        before[starts] = self.heights[each]
        for i in np.flatnonzero(decides & (heights != before + 1))[:_MOST]:
            row = rows[at[order[i]]]
            text = f"replica {int(row[2])} decided height {int(row[4])} after height {int(before[i])}"
            self.order.append(Violation("order", "safety", int(row[0]), int(row[2]), text))
        self.heights[each] = after[np.append(starts[1:], len(after)) - 1]
