"""How many pairs of runs a comparison takes until its differences are known closely enough.

    until: latency_p99_ms +-1 ms at 95%

Every design's difference to the first must have an interval no wider than that to either side; a width in per cent is a
share of the first design's mean. All intervals hold together (Bonferroni). Stages follow from values alone, as those of
a study do (`sim.scenario.until`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from sim.measure.names import METRICS
from sim.measure.statistics import SampleError, Target, standing
from sim.measure.statistics.intervals import rounded
from sim.scenario.errors import ScenarioError
from sim.scenario.until import Outcome, Until, parse

LEAST, MOST = 10, 200
_WORST: tuple[Outcome, ...] = ("out of reach", "not judged", "go on", "capped", "reached")

Values = Sequence[float | None]  # of a design, one per replication; None: the run did not end ok, or lacks the metric


@dataclasses.dataclass(frozen=True)
class Enough:
    """Where a comparison stands: the worst of its differences, and one line for each. `more`: pairs to run next."""

    outcome: Outcome
    more: int
    lines: tuple[str, ...]


def read(text: str, least: int, most: int) -> Until:
    """Read the target. Raises ScenarioError, "--until TEXT: rule; remedy"."""
    try:
        return parse(text, least, most)
    except ValueError as error:
        raise ScenarioError(f"--until {text}: {error}") from None


def judge(goal: Until, designs: Mapping[str, Values]) -> Enough:
    """Whether the pairs so far are enough, each design against the first."""
    first, *others = designs
    found = [_judge_one(goal, first, name, designs, len(others)) for name in others]
    outcome = min((one.outcome for one in found), key=_WORST.index)
    more = max(one.more for one in found) if outcome == "go on" else 0
    return Enough(outcome, more, tuple(line for one in found for line in one.lines))


def _judge_one(goal: Until, first: str, name: str, designs: Mapping[str, Values], count: int) -> Enough:
    head = f"{name} against {first}: {goal.text()}"
    pairs = [(x, y) for x, y in zip(designs[name], designs[first], strict=True) if x is not None and y is not None]
    lost = len(designs[first]) - len(pairs)
    if lost:
        why = f"{lost} of {len(designs[first])} pairs did not end ok or lack the metric"
        return Enough("not judged", 0, (f"{head} not judged: {why}",))
    a, b = (np.array(column, dtype=np.float64) for column in zip(*pairs, strict=True))
    width = goal.width * abs(float(b.mean())) if goal.relative else goal.width
    try:
        if width == 0:
            raise SampleError(f"the mean of {first} is 0, and a share of it no width; give it in the metric's unit")
        each = 1 - (1 - goal.level) / count
        now = standing(a - b, Target(width, False, each, goal.least, goal.most))
    except SampleError as error:
        return Enough("out of reach", 0, (f"{head} out of reach: {error}",))
    assert now.interval is not None
    half = rounded(now.interval.half_width, 0.0, now.interval.half_width)[0]
    unit = METRICS[goal.metric].unit
    known = f"half-width {half} {unit}".rstrip() + f" with {len(pairs)} pairs"
    words = {"reached": "reached", "capped": "not reached, and no more are allowed", "go on": "not reached yet"}
    return Enough(now.outcome, now.more, (f"{head} {words[now.outcome]}: {known}",))
