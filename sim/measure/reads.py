"""Reads that were answered: how many, and how long their clients waited."""

from __future__ import annotations

import numpy as np

from sim.ledger import rows as ledger
from sim.trace.rows import Rows


class Reads:
    """Fold over trace rows."""

    def __init__(self, warm_up_ns: int) -> None:
        self.warm_up_ns = warm_up_ns
        self.count = 0
        self.sum_ns = 0
        self.max_ns = 0

    def __call__(self, rows: np.ndarray) -> None:
        """Take in a chunk of trace rows."""
        answered = Rows(rows).of(ledger.EVENT_READ)
        waits = answered.block  # of this event: how long the answer took
        waits = waits[answered.time_ns - waits >= self.warm_up_ns]
        if len(waits):
            self.count += len(waits)
            self.sum_ns += int(waits.sum())
            self.max_ns = max(self.max_ns, int(waits.max()))

    def metrics(self) -> dict[str, float | int | None]:
        """Null latencies if nothing was read."""
        some = self.count > 0
        return {
            "reads": self.count,
            "read_latency_mean_ms": self.sum_ns / self.count / 1e6 if some else None,
            "read_latency_max_ms": self.max_ns / 1e6 if some else None,
        }
