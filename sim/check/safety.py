"""Agreement, validity, order and finality, as a fold over trace rows."""

from __future__ import annotations

import numpy as np

from sim.check.verdict import Violation
from sim.ledger import rows as r

_MOST = 20  # violations kept in words; more say nothing new


class Safety:
    """Fold over trace rows: feed it every chunk, then read `agreement`, `validity`, `order` and `finality`."""

    def __init__(self, voters: int) -> None:
        self.voters = voters
        self.canonical = np.zeros(1024, dtype=np.int64)  # height -> block number, 0 unknown
        self.first_by = np.zeros(1024, dtype=np.int64)  # height -> node that decided it first
        self.proposed = np.zeros(1024, dtype=bool)  # block number -> was proposed
        self.heights = np.zeros(voters, dtype=np.int64)
        self.agreement: list[Violation] = []
        self.validity: list[Violation] = []
        self.order: list[Violation] = []
        self.finality: list[Violation] = []

    def __call__(self, rows: np.ndarray) -> None:
        """Take in a chunk of trace rows, shape (rows, TRACE_WIDTH)."""
        born = rows[rows[:, 1] == r.EVENT_PROPOSED]
        if len(born):
            self.proposed = _long_enough(self.proposed, int(born[:, 3].max()))
            self.proposed[born[:, 3]] = True
        decided = rows[rows[:, 1] == r.EVENT_DECIDED]
        if len(decided):
            self._agree(decided)
            self._valid(decided)
        given_up = rows[rows[:, 1] == r.EVENT_REVERTED]
        if len(given_up):
            self._final(given_up)
            decided = rows[(rows[:, 1] == r.EVENT_DECIDED) | (rows[:, 1] == r.EVENT_REVERTED)]
        if len(decided):
            self._ordered(decided)

    def _agree(self, decided: np.ndarray) -> None:
        heights, numbers = decided[:, 4], decided[:, 3]
        top = int(heights.max())
        self.canonical = _long_enough(self.canonical, top)
        self.first_by = _long_enough(self.first_by, top)
        fresh = np.flatnonzero(self.canonical[heights] == 0)[::-1]
        self.canonical[heights[fresh]] = numbers[fresh]  # the earliest row is written last and stays
        self.first_by[heights[fresh]] = decided[fresh, 2]
        for row in decided[self.canonical[heights] != numbers][:_MOST]:
            height = int(row[4])
            self.agreement.append(
                Violation(
                    "agreement",
                    "safety",
                    int(row[0]),
                    int(row[2]),
                    f"height {height}: replica {int(row[2])} decided block {int(row[3])} (view {int(row[5])}), "
                    f"replica {int(self.first_by[height])} had decided block {int(self.canonical[height])}",
                )
            )

    def _valid(self, decided: np.ndarray) -> None:
        self.proposed = _long_enough(self.proposed, int(decided[:, 3].max()))
        for row in decided[~self.proposed[decided[:, 3]]][:_MOST]:
            text = f"replica {int(row[2])} decided block {int(row[3])}, which nobody proposed"
            self.validity.append(Violation("validity", "safety", int(row[0]), int(row[2]), text))

    def _final(self, given_up: np.ndarray) -> None:
        room = _MOST - len(self.finality)
        for time_ns, _, node, block, height, instead, *_ in given_up[: max(room, 0)].tolist():
            by = f"block {instead}" if instead else "a branch that does not reach that height"
            text = f"height {height}: replica {node} had decided block {block} and gave it up for {by}"
            self.finality.append(Violation("finality", "safety", time_ns, node, text))

    def _ordered(self, rows: np.ndarray) -> None:
        """Each replica decides heights 1, 2, 3, ... once each, without a gap, counted anew from what it gives up."""
        by_node = rows[np.argsort(rows[:, 2], kind="stable")]
        nodes, starts = np.unique(by_node[:, 2], return_index=True)
        decides = by_node[:, 1] == r.EVENT_DECIDED
        after = by_node[:, 4] - ~decides  # height of the last decided block after each row
        before = np.empty(len(by_node), dtype=np.int64)
        before[1:] = after[:-1]
        before[starts] = self.heights[nodes]
        wrong = decides & (by_node[:, 4] != before + 1)
        for row, last in zip(by_node[wrong][:_MOST], before[wrong], strict=False):
            text = f"replica {int(row[2])} decided height {int(row[4])} after height {int(last)}"
            self.order.append(Violation("order", "safety", int(row[0]), int(row[2]), text))
        self.heights[nodes] = after[np.append(starts[1:], len(by_node)) - 1]


def _long_enough(array: np.ndarray, index: int) -> np.ndarray:
    if index < len(array):
        return array
    longer = np.zeros(max(2 * len(array), index + 1), dtype=array.dtype)
    longer[: len(array)] = array
    return longer
