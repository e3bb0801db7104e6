"""How far observers are behind: time and blocks from the first decision by a voter to having the block."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sim.ledger import rows as ledger
from sim.trace.rows import Rows

_SHARES = {"p50": 0.50, "p99": 0.99, "max": 1.0}


class Lags:
    """Fold over trace rows. Blocks that a voter decided before the end of the warm-up are not measured."""

    def __init__(self, voters: int, seats: int, warm_up_ns: int) -> None:
        self.voters = voters
        self.warm_up_ns = warm_up_ns
        self.top = 0  # greatest height that a voter has decided
        self.first_ns = np.full(1024, -1, dtype=np.int64)  # height -> first decision by a voter
        self.lags: dict[int, list[np.ndarray]] = {seat: [] for seat in range(voters, seats)}  # (ns, blocks) pairs

    def __call__(self, rows: np.ndarray) -> None:
        """Take in a chunk of trace rows, shape (rows, TRACE_WIDTH), in order of time."""
        if not self.lags:
            return
        decided = Rows(rows).of(ledger.EVENT_DECIDED)
        if not len(decided):
            return
        by_voter = decided.node < self.voters
        tops = np.maximum.accumulate(np.maximum(np.where(by_voter, decided.height, 0), self.top))
        self._first(decided[by_voter])
        self.top = int(tops[-1])
        for seat in self.lags:
            mine = np.flatnonzero(decided.node == seat)
            first = self.first_ns[decided.height[mine]]
            measured = first >= self.warm_up_ns
            mine, first = mine[measured], first[measured]
            if len(mine):
                self.lags[seat].append(
                    np.column_stack((decided.time_ns[mine] - first, tops[mine] - decided.height[mine]))
                )

    def _first(self, decided: Rows) -> None:
        if not len(decided):
            return
        heights, at = np.unique(decided.height, return_index=True)
        if heights[-1] >= len(self.first_ns):
            longer = np.full(max(2 * len(self.first_ns), int(heights[-1]) + 1), -1, dtype=np.int64)
            longer[: len(self.first_ns)] = self.first_ns
            self.first_ns = longer
        fresh = self.first_ns[heights] < 0
        self.first_ns[heights[fresh]] = decided.time_ns[at[fresh]]

    def _quantile(self, name: str, seats: Iterable[int], column: int) -> int | None:
        found = [part[:, column] for seat in seats for part in self.lags[seat]]
        if not found:
            return None
        values = np.sort(np.concatenate(found))
        return int(values[max(int(np.ceil(_SHARES[name] * len(values))), 1) - 1])

    def quantile_ms(self, name: str, seats: Iterable[int] | None = None) -> float | None:
        """The lag that a share of blocks (p50, p99, max) at these observers, or at all, did not exceed, ms."""
        value = self._quantile(name, self.lags if seats is None else seats, 0)
        return None if value is None else value / 1e6

    def quantile_blocks(self, name: str, seats: Iterable[int] | None = None) -> int | None:
        """The same in blocks: how many newer ones were decided when a block came."""
        return self._quantile(name, self.lags if seats is None else seats, 1)
