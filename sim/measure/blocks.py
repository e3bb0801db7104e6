"""Per-block facts from the trace: when proposed, when first and last decided, how large."""

from __future__ import annotations

import numpy as np

from sim.ledger import rows as ledger
from sim.past import Past
from sim.trace.rows import Rows

COLUMNS = (
    "block",
    "height",
    "view",
    "proposer",
    "txs",
    "bytes",
    "proposed_ns",
    "first_ns",
    "last_ns",
    "decides",
)
_BLOCK, _HEIGHT, _VIEW, _PROPOSER, _TXS, _BYTES, _PROPOSED, _FIRST, _LAST, _DECIDES = range(10)
_KEEP = 1 << 17  # blocks kept; older ones are counted and let go
_REST_EVERY = 1 << 13  # blocks


class Blocks:
    """Fold over trace rows. Sums cover all blocks; the rows of old ones are let go.

    What begins before `warm_up_ns`, or at `measure_end_ns` and later, is not measured.
    `restarts`: rounds begin at 0 at each height, so what a replica leaves is a round of a height.
    """

    def __init__(self, warm_up_ns: int, bin_ns: int, voters: int, *, measure_end_ns: int, restarts: bool) -> None:
        self.voters = voters  # what others decide is not counted
        self.restarts = restarts
        self.warm_up_ns = warm_up_ns
        self.measure_end_ns = measure_end_ns
        self.bin_ns = bin_ns
        self._past = Past(len(COLUMNS))
        self._rest_at = 0  # block number
        self.base = 1  # block number of row 0
        self.count = 0
        self.measured = 0
        self.measured_txs = 0  # first decided after the warm-up
        self.measured_bytes = 0
        self.measured_decisions = 0
        self.latency_sum_ns = 0
        self.latency_max_ns = 0
        self.replica_sum_ns = 0
        self.replica_count = 0
        self.first_messages = 0  # deciding messages sent up to the first decision, and to the last
        self.last_messages = 0
        self.first_decision_ns = -1
        self.last_decision_ns = -1
        self.txs_by_bin: dict[int, int] = {}
        self.decisions_by_bin: dict[int, int] = {}
        self.top = 0  # greatest decided height
        self.lost_before = 0  # stale among the blocks let go
        self.reorganisations = 0
        self.reorganisation_depth_max = 0
        self.views: set[tuple[int, int]] = set()  # height (0 if views go on over heights), and view, that some entered
        self._heights: dict[int, int] = {}  # decided by each voter

    def __call__(self, chunk: np.ndarray) -> None:
        """Take in a chunk of trace rows."""
        rows = Rows(chunk)
        born = rows.of(ledger.EVENT_PROPOSED)
        if len(born):
            self._born(born)
        decided = rows[(rows.event == ledger.EVENT_DECIDED) & (rows.node < self.voters)]
        if len(decided):
            self._decided(decided)
        self._entered(rows)
        depths = rows.of(ledger.EVENT_HEAD).view  # of this event: the blocks left
        if len(depths):
            self.reorganisations += int((depths > 0).sum())
            self.reorganisation_depth_max = max(self.reorganisation_depth_max, int(depths.max()))

    def _entered(self, rows: Rows) -> None:
        """Views entered; of a height, if rounds begin anew there."""
        after = 0
        entered = np.flatnonzero(rows.event == ledger.EVENT_VIEW)
        for at, fact in zip(entered.tolist(), rows[entered], strict=True):
            if self.restarts:
                self._decided_until(rows[after:at])
                after = at
            self.views.add((self._heights.get(fact.node, 0) + 1 if self.restarts else 0, fact.block))
        if self.restarts:
            self._decided_until(rows[after:])

    def _decided_until(self, rows: Rows) -> None:
        """Note how far each voter has come."""
        decided = rows.of(ledger.EVENT_DECIDED)
        self._heights.update(zip(decided.node.tolist(), decided.height.tolist(), strict=True))

    @property
    def view_changes(self) -> int:
        """Views entered beyond the first; where rounds begin anew, rounds beyond the first of their height."""
        if self.restarts:
            return sum(view > 0 for _, view in self.views)
        return max(len(self.views) - 1, 0)

    def _born(self, born: Rows) -> None:
        top = int(born.block.max()) - self.base
        while top >= _KEEP:
            self._let_go()
            top -= _KEEP // 2
        self._past.reach(top)
        if self.base + top >= self._rest_at:
            self._rest_at = self.base + top + _REST_EVERY
            self._past.rest()
        at = born.block - self.base
        self.rows[at, _BLOCK] = born.block
        self.rows[at, _HEIGHT] = born.height
        self.rows[at, _VIEW] = born.view
        self.rows[at, _PROPOSER] = born.node
        self.rows[at, _TXS] = born.txs
        self.rows[at, _BYTES] = born.bytes
        self.rows[at, _PROPOSED] = born.time_ns
        self.rows[at, _FIRST] = -1

    @property
    def rows(self) -> np.ndarray:
        """The blocks kept, shape (blocks, len(COLUMNS)); zeros where none is."""
        return self._past.values

    def _let_go(self) -> None:
        half, kept = _KEEP // 2, len(self.rows) - _KEEP // 2
        self.lost_before += self._stale(self.rows[:half])
        self.rows[:kept] = self.rows[half:]
        self.rows[kept:] = 0
        self.base += half

    def _decided(self, decided: Rows) -> None:
        at = decided.block - self.base
        known = at >= 0
        decided, at = decided[known], at[known]
        if not len(at):
            return
        self.top = max(self.top, int(decided.height.max()))
        times = decided.time_ns
        order = np.unique(at, return_index=True)
        fresh = self.rows[order[0], _FIRST] < 0
        new, first = order[0][fresh], times[order[1][fresh]]
        self.rows[new, _FIRST] = first
        np.maximum.at(self.rows[:, _LAST], at, times)
        np.add.at(self.rows[:, _DECIDES], at, 1)
        waits = times - self.rows[at, _PROPOSED]
        measured = self._measured(self.rows[at, _PROPOSED])
        self.replica_sum_ns += int(waits[measured].sum())
        self.replica_count += int(measured.sum())
        if len(new):
            self._first_decisions(new, first)
            sent = decided.bytes[decided.bytes > 0]  # of each first decision: messages sent until then
            if len(sent):
                self.first_messages = self.first_messages or int(sent[0])
                self.last_messages = int(sent[-1])

    def _measured(self, times_ns: np.ndarray) -> np.ndarray:
        return np.asarray((times_ns >= self.warm_up_ns) & (times_ns < self.measure_end_ns))

    def _first_decisions(self, new: np.ndarray, first: np.ndarray) -> None:
        self.count += len(new)
        if self.first_decision_ns < 0:
            self.first_decision_ns = int(first.min())
        self.last_decision_ns = max(self.last_decision_ns, int(first.max()))
        waits = first - self.rows[new, _PROPOSED]
        measured = self._measured(self.rows[new, _PROPOSED])
        self.measured += int(measured.sum())
        self.latency_sum_ns += int(waits[measured].sum())
        self.latency_max_ns = max(self.latency_max_ns, int(waits.max()))
        late = new[self._measured(first)]
        self.measured_txs += int(self.rows[late, _TXS].sum())
        self.measured_bytes += int(self.rows[late, _BYTES].sum())
        self.measured_decisions += len(late)
        bins, at = np.unique(first // self.bin_ns, return_inverse=True)
        txs = np.bincount(at, weights=self.rows[new, _TXS]).astype(np.int64)
        blocks = np.bincount(at)
        for i, bin_ in enumerate(bins.tolist()):
            self.txs_by_bin[bin_] = self.txs_by_bin.get(bin_, 0) + int(txs[i])
            self.decisions_by_bin[bin_] = self.decisions_by_bin.get(bin_, 0) + int(blocks[i])

    def _stale(self, rows: np.ndarray) -> int:
        lost = (rows[:, _BLOCK] > 0) & (rows[:, _FIRST] < 0) & (rows[:, _HEIGHT] <= self.top)
        return int(lost.sum())

    @property
    def stale(self) -> int:
        """Blocks that lost: nobody decided them, and a block of their height or a greater one is decided."""
        return self.lost_before + self._stale(self.rows)

    def table(self) -> np.ndarray:
        """The decided blocks still in memory, shape (blocks, len(COLUMNS))."""
        return self.rows[(self.rows[:, _BLOCK] > 0) & (self.rows[:, _FIRST] >= 0)]
