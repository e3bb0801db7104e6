"""Shapes of demand over a day: rate multipliers per quarter of an hour, in per mille of the mean.

All shapes are assumptions (A): the uses they stand for publish daily or yearly totals, not curves. Each is
given as 24 hourly weights, spread over 96 quarters and normalised so that the multipliers sum to exactly
96 000: a day's expected number of transactions does not depend on the shape. Integers only, so every machine
agrees.
"""

from __future__ import annotations

import functools
from typing import Literal

from sim.units import NS_PER_H

ShapeName = Literal["constant", "office-hours", "round-the-clock", "holiday", "night-batch", "deadline"]

QUARTERS = 96
QUARTER_NS = NS_PER_H // 4
DAY_NS = 24 * NS_PER_H
MEAN_PERMILLE = 1000

# Weight of each hour of the day, local time, from 0:00. (A)
_WEIGHTS: dict[str, tuple[int, ...]] = {
    # Every hour alike.
    "constant": (1,) * 24,
    # Counters and offices: a morning and an afternoon peak, a lunch break, little at night.
    "office-hours": (1, 1, 1, 1, 1, 1, 2, 6, 20, 34, 36, 26, 10, 12, 30, 34, 30, 18, 6, 4, 3, 2, 1, 1),
    # Ports and trucks: all night long, somewhat busier by day.
    "round-the-clock": (7, 7, 6, 6, 6, 7, 8, 9, 11, 12, 12, 12, 11, 11, 12, 12, 12, 11, 10, 10, 9, 9, 8, 8),
    # Travel and shopping: rising from late morning to an evening peak.
    "holiday": (3, 2, 1, 1, 1, 2, 5, 9, 13, 17, 20, 20, 18, 18, 19, 20, 21, 22, 24, 26, 25, 20, 12, 6),
    # One batch of four hours, 0:00 to 4:00, and nothing else.
    "night-batch": (1, 1, 1, 1) + (0,) * 20,
    # The last day of a term: office hours with a rush before the counter closes at 18:00.
    "deadline": (1, 1, 1, 1, 1, 1, 1, 3, 8, 12, 14, 12, 8, 12, 20, 34, 60, 90, 12, 8, 6, 5, 5, 12),
}
SHAPES: tuple[str, ...] = tuple(_WEIGHTS)


@functools.cache
def multipliers_permille(shape: str) -> tuple[int, ...]:
    """Multipliers of the mean rate per quarter of an hour from local midnight, per mille, length 96.

    They sum to 96 000 exactly: what rounding down leaves over goes one by one to the largest remainders, the
    earlier quarter first. Raises KeyError for an unknown shape.
    """
    weights = [weight for weight in _WEIGHTS[shape] for _ in range(4)]
    total = sum(weights)
    goal = MEAN_PERMILLE * QUARTERS
    shares = [divmod(goal * weight, total) for weight in weights]
    result = [whole for whole, _ in shares]
    by_remainder = sorted(range(QUARTERS), key=lambda quarter: (-shares[quarter][1], quarter))
    for quarter in by_remainder[: goal - sum(result)]:
        result[quarter] += 1
    return tuple(result)


def multiplier_permille(shape: str, time_ns: int, start_hour: float = 0.0) -> int:
    """The multiplier at a simulated time, per mille; `start_hour` is the local hour at time zero."""
    local_ns = (time_ns + round(start_hour * NS_PER_H)) % DAY_NS
    return multipliers_permille(shape)[local_ns // QUARTER_NS]


def peak_permille(shape: str) -> int:
    """The largest multiplier of the day, per mille."""
    return max(multipliers_permille(shape))
