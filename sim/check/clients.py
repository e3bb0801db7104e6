"""What clients were told, against what is decided: it must hold for ever, and reads must not be stale.

A read is linearizable if its answer reflects every write that was acknowledged before it was asked (Herlihy, Wing,
"Linearizability: a correctness condition for concurrent objects", TOPLAS 12(3), 1990). The state that a replica answers
with is that after the block of some height. So the height of an answer is at least that of every block which a correct
replica had decided when the read was asked (nobody was told of others), and of every answer given before that time.

A transaction is acknowledged with its block. From then on no correct replica may decide another block at that height,
or give that block up. The first reply that convinces a client comes after a correct replica's decision.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sim.check.verdict import Violation
from sim.ledger import rows as r
from sim.past import Past

_MOST = 20  # violations kept in words
_KEPT = 20_000  # heights and their times; reads that took longer than so many decisions are judged by the oldest


class Acknowledged:
    """Fold over trace rows: acknowledged blocks survive. What `corrupted` replicas decide does not count."""

    def __init__(self, voters: int, corrupted: Iterable[int] = ()) -> None:
        self.voters = voters
        self.corrupted = np.array(sorted(corrupted), dtype=np.int64)
        self.count = 0  # blocks of which a client was told
        self.violations: list[Violation] = []
        self._told = Past()  # height -> the block that clients know there, 0 for none
        self._told_ns = Past()  # height -> since when
        self._decided_ns = Past()  # block -> when a correct voter decided it as the first, plus 1; 0: not yet

    def __call__(self, rows: np.ndarray) -> None:
        """Take in a chunk of trace rows, shape (rows, TRACE_WIDTH), in order of time."""
        events = rows[:, 1]
        told = rows[events == r.EVENT_TOLD]
        theirs = rows[(rows[:, 2] < self.voters) & (events != r.EVENT_TOLD)]
        if len(self.corrupted):
            theirs = theirs[~np.isin(theirs[:, 2], self.corrupted)]
        decided = theirs[theirs[:, 1] == r.EVENT_DECIDED]
        if len(decided):
            self._decide(decided)
        if len(told):
            self._tell(told)
        if len(decided) and self.count:
            known = self._told.reach(int(decided[:, 4].max()))[decided[:, 4]]
            self._complain(decided[(known != 0) & (known != decided[:, 3])], "decided another block, {block}, there")
        gone = theirs[theirs[:, 1] == r.EVENT_REVERTED]
        if len(gone) and self.count:
            known = self._told.reach(int(gone[:, 4].max()))[gone[:, 4]]
            self._complain(gone[known == gone[:, 3]], "gave it up")

    def _decide(self, decided: np.ndarray) -> None:
        blocks, times = decided[:, 3], decided[:, 0]
        first = self._decided_ns.reach(int(blocks.max()))
        fresh = np.flatnonzero(first[blocks] == 0)[::-1]
        first[blocks[fresh]] = times[fresh] + 1  # the earliest is written last and stays

    def _tell(self, told: np.ndarray) -> None:
        self.count += len(told)
        blocks, heights, times = told[:, 3], told[:, 4], told[:, 0]
        first = self._decided_ns.reach(int(blocks.max()))[blocks]
        for row in told[(first == 0) | (first > times + 1)][: _MOST - len(self.violations)].tolist():
            text = f"a client was told of block {row[3]} (height {row[4]}), which no correct replica had decided"
            self.violations.append(Violation("acknowledged", "safety", row[0], -1, text))
        known, since = self._told.reach(int(heights.max())), self._told_ns.reach(int(heights.max()))
        fresh = np.flatnonzero(known[heights] == 0)[::-1]
        known[heights[fresh]], since[heights[fresh]] = blocks[fresh], times[fresh]
        for row in told[known[heights] != blocks][: _MOST - len(self.violations)].tolist():
            text = f"clients were told of block {known[row[4]]} and of block {row[3]} at height {row[4]}"
            self.violations.append(Violation("acknowledged", "safety", row[0], -1, text))

    def _complain(self, rows: np.ndarray, what: str) -> None:
        for time_ns, _, node, block, height, *_ in rows[: _MOST - len(self.violations)].tolist():
            known, since_ns = self._told.values[height], self._told_ns.values[height]
            text = (
                f"clients knew block {known} as final at height {height} since {since_ns / 1e9:.6f} s; "
                f"replica {node} {what.format(block=block)}"
            )
            self.violations.append(Violation("acknowledged", "safety", time_ns, node, text))


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
