"""Replications until an interval is narrow enough: what a study asks for, and where each of its cases stands.

    until: latency_p99_ms +-5% at 95%

Stages follow from the values alone, in the order of their seeds: the first holds `least` replications, each further
one what the spread so far asks for, at most as many again (`sim.measure.statistics.sequential`). So any number of
workers, a killed sweep and a resumed one lay out the same runs.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from sim.measure.names import METRICS, possible, unknown

if TYPE_CHECKING:
    from sim.measure.statistics import Interval, Target

LEAST, MOST = 10, 200
_TEXT = re.compile(
    r"\s*(?P<metric>\w+)\s*(?:\+-|\+/-|±)\s*(?P<width>[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*(?P<unit>[^\s\d][^\s]*)?"
    r"(?:\s+at\s+(?P<level>[0-9.]+)\s*%)?\s*"
)
EXAMPLE = "latency_p99_ms +-5% at 95%"

Outcome = Literal["reached", "go on", "capped", "out of reach", "not judged"]
# The value of replication k of a case: None if it has no result yet, a text (why) if it has no usable one.
Value = float | str | None


@dataclasses.dataclass(frozen=True)
class Until:
    """The target of a study: the metric, the half-width, and the least and most replications of a case."""

    metric: str
    width: float
    relative: bool
    level: float
    least: int
    most: int

    @property
    def target(self) -> Target:
        """The same for `sim.measure.statistics`."""
        from sim.measure.statistics import Target

        return Target(self.width, self.relative, self.level, self.least, self.most)

    def text(self) -> str:
        """As a study file says it."""
        unit = METRICS[self.metric].unit
        width = f"{100 * self.width:g}%" if self.relative else f"{self.width:g} {unit}".strip()
        return f"{self.metric} +-{width} at {100 * self.level:g}%"


@dataclasses.dataclass(frozen=True)
class Standing:
    """Where a case stands: how many replications it has so far, the next stage included if that is to be run."""

    outcome: Outcome
    replications: int
    interval: Interval | None
    reason: str = ""

    def words(self, until: Until) -> str:
        """In words, without the name of the case."""
        unit = METRICS[until.metric].unit
        known = "" if self.interval is None else f": {self.interval.text(unit)}"
        if self.outcome == "reached":
            return f"{until.text()} reached with {self.replications} replications{known}"
        if self.outcome == "capped":
            return f"{until.text()} not reached with {self.replications} replications, the most allowed{known}"
        if self.outcome == "go on":
            return f"{until.text()} not reached yet{known}"
        return f"{until.text()} {self.outcome}: {self.reason}"


def parse(text: str, least: int, most: int) -> Until:
    """Read what a study file says. Raises ValueError, "rule; remedy"."""
    found = _TEXT.fullmatch(text)
    if found is None:
        raise ValueError(f"is not of the form METRIC +-WIDTH at LEVEL; write {EXAMPLE}")
    metric = found["metric"]
    if metric not in METRICS:
        raise ValueError(unknown(metric))
    unit, known = found["unit"] or "", METRICS[metric].unit
    relative = unit == "%"
    if unit not in ("", "%", known):
        raise ValueError(f"gives the width in {unit}, but the metric's unit is {known or 'none'}; write it in that")
    try:
        width, level = float(found["width"]) / (100 if relative else 1), float(found["level"] or 95) / 100
    except ValueError:
        raise ValueError(f"has a number that cannot be read; write {EXAMPLE}") from None
    if width <= 0:
        raise ValueError("asks for an interval without width, which no number of runs reaches; write +-5%")
    if relative and width >= 1:
        raise ValueError("asks for less than to tell the mean from zero; write a width below 100 %")
    if not 0 < level < 1:
        raise ValueError("has a level that is not between 0 and 100 %; write at 95%")
    if not 3 <= least <= most:
        raise ValueError(f"has replications from {least} to {most}, but 3 <= least <= most is needed; change them")
    return Until(metric, width, relative, level, least, most)


def stand(until: Until, value_of: Callable[[int], Value]) -> Standing:
    """Go through a case's stages as far as its runs go. `value_of(k)` gives replication k's value."""
    from sim.measure.statistics import SampleError, standing

    values: list[float] = []
    wanted = until.least
    while True:
        for k in range(len(values), wanted):
            value = value_of(k)
            if value is None:
                return Standing("go on", wanted, None)
            if isinstance(value, str):
                return Standing("not judged", wanted, None, f"replication {k} {value}")
            values.append(value)
        try:
            now = standing(values, until.target)
        except SampleError as error:
            return Standing("out of reach", wanted, None, str(error))
        if now.outcome != "go on":
            cut = None if now.interval is None else now.interval.within(*possible(until.metric))
            return Standing(now.outcome, wanted, cut)
        wanted += now.more
