"""What clients were told, against what had been decided: reads must not be stale.

A read is linearizable if its answer reflects every write that was acknowledged before it was asked (Herlihy, Wing,
"Linearizability: a correctness condition for concurrent objects", TOPLAS 12(3), 1990). The state that a replica answers
with is that after the block of some height. So the height of an answer is at least that of every block which a correct
replica had decided when the read was asked (nobody was told of others), and of every answer given before that time.

Acknowledged writes survive because they stand in decided blocks, and the checks `agreement` and `finality` say that no
correct replica ever has another block at that height.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable

import numpy as np

from sim.check.verdict import Violation
from sim.ledger import rows as r

_MOST = 20  # violations kept in words
_KEPT = 100_000  # heights and their times; reads that took longer than so many decisions are judged by the oldest


class Reads:
    """Fold over trace rows: feed it every chunk, then read `violations`. `corrupted` replicas do not count."""

    def __init__(self, corrupted: Iterable[int] = ()) -> None:
        self.corrupted = frozenset(corrupted)
        self.violations: list[Violation] = []
        self._times_ns: list[int] = []  # ascending: when a greater height was first decided, or told to a client
        self._heights: list[int] = []

    def __call__(self, rows: np.ndarray) -> None:
        """Take in a chunk of trace rows, shape (rows, TRACE_WIDTH), in order of time."""
        of_interest = (rows[:, 1] == r.EVENT_DECIDED) | (rows[:, 1] == r.EVENT_READ)
        for time_ns, event, node, a, b in rows[of_interest, :5].tolist():
            if node in self.corrupted:
                continue
            if event == r.EVENT_DECIDED:
                self._known(time_ns, b)
                continue
            asked_ns = time_ns - a
            at = bisect.bisect_left(self._times_ns, asked_ns) - 1
            if at >= 0 and self._heights[at] > b and len(self.violations) < _MOST:
                text = (
                    f"replica {node} answered a read asked at {asked_ns / 1e9:.6f} s with the state after height {b}; "
                    f"height {self._heights[at]} had been decided, or read, at {self._times_ns[at] / 1e9:.6f} s"
                )
                self.violations.append(Violation("reads", "safety", time_ns, node, text))
            self._known(time_ns, b)

    def _known(self, time_ns: int, height: int) -> None:
        if not self._heights or height > self._heights[-1]:
            self._times_ns.append(time_ns)
            self._heights.append(height)
            if len(self._heights) > 2 * _KEPT:
                del self._times_ns[:_KEPT]
                del self._heights[:_KEPT]
