"""How many replications: go on until the interval is narrow enough, within a cap.

The rule looks at the data after each stage, which lowers coverage a little below nominal; a first stage of at least
ten replications keeps the loss small. A relative target g is met when the half-width is at most g/(1+g) of the
estimate: the true relative error is then at most g whenever the interval covers.

References: Law, 5th ed., 9.4.1; Chow and Robbins, Annals of Mathematical Statistics 36 (1965), for why the coverage
tends to nominal as the target tightens.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from scipy import special

from sim.measure.statistics.intervals import Floats, Interval, Sample, SampleError, as_sample, t_interval

_DOUBT = 0.001  # a target is called out of reach when only a run of luck this rare could still meet it

Outcome = Literal["reached", "go on", "capped"]


@dataclasses.dataclass(frozen=True)
class Target:
    """Stop when the half-width is at most `width`: a fraction of the estimate if `relative`, else in the data's unit.

    `least` and `cap`: replications, 3 <= least <= cap. Raises SampleError outside these ranges.
    """

    width: float
    relative: bool = True
    level: float = 0.95
    least: int = 10
    cap: int = 1000

    def __post_init__(self) -> None:
        if not (self.width > 0 and math.isfinite(self.width)):
            raise SampleError(f"target half-width {self.width!r} must be above zero; no sample has a narrower interval")
        if self.relative and self.width >= 1:
            raise SampleError(f"relative half-width {self.width!r} must be below 1; write 5 % as 0.05")
        if not 0 < self.level < 1:
            raise SampleError(f"level {self.level!r} must lie between 0 and 1; write 95 % as 0.95")
        if not 3 <= self.least <= self.cap:
            raise SampleError(f"replications: least {self.least} and cap {self.cap}, but 3 <= least <= cap is needed")

    def allowed(self, estimate: float) -> float:
        """The largest half-width that meets the target at this estimate, in the data's unit."""
        return abs(estimate) * self.width / (1 + self.width) if self.relative else self.width

    def text(self) -> str:
        """In words."""
        width = f"{100 * self.width:g} % of the mean" if self.relative else f"{self.width:g}"
        return f"half-width of {width} at {100 * self.level:g} %"


@dataclasses.dataclass(frozen=True)
class Standing:
    """Where a sample stands against a target.

    `more`: replications to run next (0 unless the outcome is "go on"); `interval` is None below two values.
    "capped" means that the interval is honest but wider than asked for.
    """

    outcome: Outcome
    interval: Interval | None
    more: int

    def text(self, unit: str = "") -> str:
        """In words."""
        known = "no interval yet" if self.interval is None else self.interval.text(unit)
        if self.outcome == "capped":
            return f"{known}: wider than asked for, the cap on replications is reached"
        return f"{known}: run {self.more} more" if self.outcome == "go on" else known


def standing(sample: Sample, target: Target) -> Standing:
    """What to do with the replications run so far, shape (n,), one value each.

    The next stage is what the spread so far asks for, but never more than as many again. A pure function of the
    values: workers may finish in any order as long as the values are passed in the order of their seeds, and all of
    a stage are waited for (stopping on the fast ones would prefer short runs).

    Raises SampleError when a relative target has no meaning (the mean is zero), or when even a lucky spread would
    need more than the cap; the message says how many replications it would take.
    """
    x = as_sample(sample, 0, "sequential stopping")
    n = len(x)
    interval = t_interval(x, target.level) if n >= 2 else None
    if interval is None or n < target.least:
        return Standing("go on", interval, target.least - n)
    if target.relative and interval.estimate == 0:
        raise SampleError(
            f"target {target.text()}: the mean of {n} replications is exactly 0, so no interval is narrow relative "
            "to it; give an absolute half-width"
        )
    if interval.half_width <= target.allowed(interval.estimate):
        return Standing("reached", interval, 0)
    if n >= target.cap:
        return Standing("capped", interval, 0)
    _refuse_if_hopeless(x, interval, target)
    wanted = _needed(float(x.std(ddof=1)), abs(interval.estimate), target)
    more = min(max(wanted - n, 1), n, target.cap - n)
    return Standing("go on", interval, int(more))


def replicate(run: Callable[[int], float], target: Target) -> tuple[Floats, Standing]:
    """Run replications 0, 1, 2, ... until the target is reached or the cap is: their values, shape (n,), and standing.

    `run(i)` gives the value of replication i, from a seed of its own. Raises SampleError as `standing` does.
    """
    values: list[float] = []
    while True:
        now = standing(values, target)
        if now.outcome != "go on":
            return np.array(values, dtype=np.float64), now
        values += [float(run(i)) for i in range(len(values), len(values) + now.more)]


def _needed(deviation: float, mean: float, target: Target) -> int:
    """Replications for which z s / sqrt(n) meets the target."""
    z = float(special.ndtri((1 + target.level) / 2))
    allowed = target.allowed(mean)
    return math.ceil(min((z * deviation / allowed) ** 2, 1e15))


def _refuse_if_hopeless(x: Floats, interval: Interval, target: Target) -> None:
    """Raise if the smallest spread and the largest mean that the data leave possible still need more than the cap."""
    n = len(x)
    deviation = float(x.std(ddof=1))
    least_deviation = deviation * math.sqrt((n - 1) / float(special.chdtri(n - 1, _DOUBT)))
    reach = float(special.stdtrit(n - 1, 1 - _DOUBT)) * deviation / math.sqrt(n)
    most_mean = abs(interval.estimate) + reach
    if _needed(least_deviation, most_mean, target) > target.cap:
        likely = _needed(deviation, abs(interval.estimate), target)
        raise SampleError(
            f"target {target.text()}: out of reach with {target.cap} replications. After {n} the interval is "
            f"{interval.text()}, which would take about {likely:,}; widen the target, raise the cap, lengthen the runs"
            + (", or give an absolute half-width (zero is within the interval)" if interval.contains(0) else "")
        )
