"""What clients were told, against what had been decided: reads must not be stale.

A read is linearizable if its answer reflects every write that was acknowledged before it was asked (Herlihy, Wing,
"Linearizability: a correctness condition for concurrent objects", TOPLAS 12(3), 1990). The state that a replica answers
with is that after the block of some height. So the height of an answer is at least that of every block which a correct
replica had decided when the read was asked (nobody was told of others), and of every answer given before that time.

Acknowledged writes survive because they stand in decided blocks, and the checks `agreement` and `finality` say that no
correct replica ever has another block at that height.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sim.check.verdict import Violation
from sim.ledger import rows as r

_MOST = 20  # violations kept in words
_KEPT = 20_000  # heights and their times; reads that took longer than so many decisions are judged by the oldest


class Reads:
    """Fold over trace rows: feed it every chunk, then read `violations`. `corrupted` replicas do not count."""

    def __init__(self, corrupted: Iterable[int] = ()) -> None:
        self.corrupted = np.array(sorted(corrupted), dtype=np.int64)
        self.violations: list[Violation] = []
        # When a greater height was first decided, or told to a client: times ascend, and heights with them.
        self._times_ns = np.zeros(0, dtype=np.int64)
        self._heights = np.zeros(0, dtype=np.int64)

    def __call__(self, rows: np.ndarray) -> None:
        """Take in a chunk of trace rows, shape (rows, TRACE_WIDTH), in order of time."""
        rows = rows[(rows[:, 1] == r.EVENT_DECIDED) | (rows[:, 1] == r.EVENT_READ)]
        if len(self.corrupted):
            rows = rows[~np.isin(rows[:, 2], self.corrupted)]
        if not len(rows):
            return
        heights = rows[:, 4]
        known = self._heights[-1] if len(self._heights) else 0
        before = np.maximum.accumulate(np.concatenate(([known], heights[:-1])))
        greater = heights > before
        self._times_ns = np.concatenate((self._times_ns, rows[greater, 0]))[-_KEPT:]
        self._heights = np.concatenate((self._heights, heights[greater]))[-_KEPT:]
        for time_ns, _, node, waited_ns, height in rows[rows[:, 1] == r.EVENT_READ, :5].tolist():
            at = int(np.searchsorted(self._times_ns, time_ns - waited_ns, side="left")) - 1
            if at >= 0 and self._heights[at] > height and len(self.violations) < _MOST:
                text = (
                    f"replica {node} answered a read asked at {(time_ns - waited_ns) / 1e9:.6f} s with the state after "
                    f"height {height}; height {self._heights[at]} had been decided, or read, at "
                    f"{self._times_ns[at] / 1e9:.6f} s"
                )
                self.violations.append(Violation("reads", "safety", time_ns, node, text))
