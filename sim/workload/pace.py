"""A rate that changes over a run: steps and ramps, and when so many transactions have come.

The count of transactions due by a time is the integral of the rate. A transaction comes when that integral reaches its
place: k + 1/2 for one after the other, or the k-th time of a Poisson process of rate one (time change of a Poisson
process: Cox and Lewis 1966, section 2.3).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.units import NS_PER_S


@dataclasses.dataclass(frozen=True)
class Leg:
    """From one rate (transactions per second) to another, evenly, within a time."""

    from_tps: float
    to_tps: float
    ns: int


class Pace:
    """Legs one after the other from time zero on; nothing comes after the last."""

    def __init__(self, legs: Sequence[Leg]) -> None:
        self.starts_ns = np.concatenate(([0], np.cumsum([leg.ns for leg in legs], dtype=np.int64)))
        self.from_tps = np.array([leg.from_tps for leg in legs])
        self.to_tps = np.array([leg.to_tps for leg in legs])
        seconds = np.array([leg.ns for leg in legs]) / NS_PER_S
        self.slope = (self.to_tps - self.from_tps) / seconds  # transactions per second, per second
        self.counts = np.concatenate(([0.0], np.cumsum((self.from_tps + self.to_tps) / 2 * seconds)))

    @property
    def end_ns(self) -> int:
        """When the last leg is over."""
        return int(self.starts_ns[-1])

    def due(self, at_ns: int) -> float:
        """How many transactions are due before a time, fractions included."""
        at_ns = min(at_ns, self.end_ns)
        leg = min(int(np.searchsorted(self.starts_ns, at_ns, "right")) - 1, len(self.slope) - 1)
        t = (at_ns - int(self.starts_ns[leg])) / NS_PER_S
        return float(self.counts[leg] + self.from_tps[leg] * t + self.slope[leg] / 2 * t * t)

    def times_ns(self, places: NDArray[Any]) -> NDArray[np.int64]:
        """When so many transactions are due, for ascending `places` below all of them, int64 ns."""
        leg = np.minimum(np.searchsorted(self.counts, places, "right") - 1, len(self.slope) - 1)
        rest, rate, slope = places - self.counts[leg], self.from_tps[leg], self.slope[leg]
        # the root of rate t + slope / 2 t^2 = rest, in the form that does not cancel
        speed = rate + np.sqrt(np.maximum(rate * rate + 2 * slope * rest, 0))
        seconds = 2 * rest / np.where(rest > 0, speed, 1.0)
        found = self.starts_ns[leg] + np.floor(seconds * NS_PER_S).astype(np.int64)
        return np.asarray(np.minimum(found, self.starts_ns[leg + 1] - 1))


def not_faster_than(times_ns: NDArray[np.int64], gap_ns: int, free_ns: int) -> NDArray[np.int64]:
    """When a generator that needs a gap between two sendings sends what is due at ascending times.

    `free_ns`: before which it sends nothing, because of what it sent earlier.
    """
    turns = np.arange(len(times_ns), dtype=np.int64) * gap_ns
    return np.asarray(np.maximum(np.maximum.accumulate(times_ns - turns), free_ns) + turns)
