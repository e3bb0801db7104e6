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
from sim.ledger import rows as ledger
from sim.past import Past
from sim.trace.rows import Rows

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

    def __call__(self, chunk: np.ndarray) -> None:
        """Take in a chunk of trace rows, shape (rows, TRACE_WIDTH), in order of time."""
        rows = Rows(chunk)
        told = rows.of(ledger.EVENT_TOLD)
        theirs = rows[(rows.node < self.voters) & (rows.event != ledger.EVENT_TOLD)]
        if len(self.corrupted):
            theirs = theirs[~np.isin(theirs.node, self.corrupted)]
        decided = theirs.of(ledger.EVENT_DECIDED)
        if len(decided):
            self._decide(decided)
        if len(told):
            self._tell(told)
        if len(decided) and self.count:
            known = self._told.reach(int(decided.height.max()))[decided.height]
            self._complain(decided[(known != 0) & (known != decided.block)], "decided another block, {block}, there")
        gone = theirs.of(ledger.EVENT_REVERTED)
        if len(gone) and self.count:
            known = self._told.reach(int(gone.height.max()))[gone.height]
            self._complain(gone[known == gone.block], "gave it up")

    def _decide(self, decided: Rows) -> None:
        blocks, times = decided.block, decided.time_ns
        first = self._decided_ns.reach(int(blocks.max()))
        fresh = np.flatnonzero(first[blocks] == 0)[::-1]
        first[blocks[fresh]] = times[fresh] + 1  # the earliest is written last and stays

    def _tell(self, told: Rows) -> None:
        self.count += len(told)
        blocks, heights, times = told.block, told.height, told.time_ns
        first = self._decided_ns.reach(int(blocks.max()))[blocks]
        for fact in told[(first == 0) | (first > times + 1)][: _MOST - len(self.violations)]:
            where = f"block {fact.block} (height {fact.height})"
            text = f"a client was told of {where}, which no correct replica had decided"
            self.violations.append(Violation("acknowledged", "safety", fact.time_ns, -1, text))
        known, since = self._told.reach(int(heights.max())), self._told_ns.reach(int(heights.max()))
        fresh = np.flatnonzero(known[heights] == 0)[::-1]
        known[heights[fresh]], since[heights[fresh]] = blocks[fresh], times[fresh]
        for fact in told[known[heights] != blocks][: _MOST - len(self.violations)]:
            text = f"clients were told of block {known[fact.height]} and of block {fact.block} at height {fact.height}"
            self.violations.append(Violation("acknowledged", "safety", fact.time_ns, -1, text))

    def _complain(self, rows: Rows, what: str) -> None:
        for fact in rows[: _MOST - len(self.violations)]:
            known, since_ns = self._told.values[fact.height], self._told_ns.values[fact.height]
            text = (
                f"clients knew block {known} as final at height {fact.height} since {since_ns / 1e9:.6f} s; "
                f"replica {fact.node} {what.format(block=fact.block)}"
            )
            self.violations.append(Violation("acknowledged", "safety", fact.time_ns, fact.node, text))


class Reads:
    """Fold over trace rows: feed it every chunk, then read `violations`. `corrupted` replicas do not count."""

    def __init__(self, corrupted: Iterable[int] = ()) -> None:
        self.corrupted = np.array(sorted(corrupted), dtype=np.int64)
        self.violations: list[Violation] = []
        # When a greater height was first decided, or told to a client: times ascend, and heights with them.
        self._times_ns = np.zeros(0, dtype=np.int64)
        self._heights = np.zeros(0, dtype=np.int64)

    def __call__(self, chunk: np.ndarray) -> None:
        """Take in a chunk of trace rows, shape (rows, TRACE_WIDTH), in order of time."""
        rows = Rows(chunk).of(ledger.EVENT_DECIDED, ledger.EVENT_READ)
        if len(self.corrupted):
            rows = rows[~np.isin(rows.node, self.corrupted)]
        if not len(rows):
            return
        heights = rows.height
        known = self._heights[-1] if len(self._heights) else 0
        before = np.maximum.accumulate(np.concatenate(([known], heights[:-1])))
        greater = heights > before
        self._times_ns = np.concatenate((self._times_ns, rows.time_ns[greater]))[-_KEPT:]
        self._heights = np.concatenate((self._heights, heights[greater]))[-_KEPT:]
        for fact in rows.of(ledger.EVENT_READ):
            asked_ns = fact.time_ns - fact.block  # of this event: how long the answer took
            at = int(np.searchsorted(self._times_ns, asked_ns, side="left")) - 1
            if at >= 0 and self._heights[at] > fact.height and len(self.violations) < _MOST:
                text = (
                    f"replica {fact.node} answered a read asked at {asked_ns / 1e9:.6f} s with the state after "
                    f"height {fact.height}; height {self._heights[at]} had been decided, or read, at "
                    f"{self._times_ns[at] / 1e9:.6f} s"
                )
                self.violations.append(Violation("reads", "safety", fact.time_ns, fact.node, text))
