"""Several runs of each design: means with intervals, and verdicts that count all of them."""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence

from sim.measure.statistics import Interval, t_interval
from sim.measure.statistics.intervals import rounded
from sim.report import tables, verdicts
from sim.report.outcome import Outcome
from sim.report.words import Language, listed, say

LEVEL = 0.95
Runs = Sequence[Sequence[Outcome]]  # [i][k]: replication k of design i


def spread(runs: Sequence[Outcome], metric: str) -> Interval | None:
    """Mean of a metric over the runs that are ok, with its Student interval; None below two values."""
    values = [float(run.metrics[metric] or 0) for run in runs if run.status == "ok" and run.metrics[metric] is not None]
    return t_interval(values, LEVEL).within(0, math.inf) if len(values) > 1 else None


def cell(runs: Sequence[Outcome], metric: str) -> str:
    """`12.3 [12.1, 12.5]`, or the number alone where there is one run."""
    found = spread(runs, metric)
    if found is None:
        return tables.shown(runs[0].metrics[metric], 1)
    estimate, low, high = (_parted(text) for text in rounded(found.estimate, found.low, found.high))
    return f"{estimate} [{low}, {high}]"


def _parted(number: str) -> str:
    """Thousands separated, decimals as they are."""
    if "e" in number:
        return number
    whole, point, decimals = number.partition(".")
    return f"{int(whole):,}{point}{decimals}"


def counts(runs: Runs) -> list[collections.Counter[str]]:
    """Verdicts of each design over its replications, each beside the same replication of the other designs."""
    found = []
    for design in runs:
        beside = [[other[k] for other in runs if k < len(other)] for k in range(len(design))]
        found.append(collections.Counter(verdicts.verdict(run, some) for run, some in zip(design, beside, strict=True)))
    return found


def worst(count: collections.Counter[str]) -> str:
    """The gravest verdict of a design's replications."""
    return next(word for word in verdicts.GRAVEST_FIRST if count[word])


def differing(runs: Runs, language: Language) -> list[str]:
    """A sentence per design whose replications did not all end the same."""
    lines = []
    for design, count in zip(runs, counts(runs), strict=True):
        if len(count) > 1:
            words = [word for word in verdicts.GRAVEST_FIRST if count[word]]
            said = [say(language, "in so many", word=say(language, word), count=count[word]) for word in words]
            lines.append(say(language, "differing", name=design[0].label, words=listed(said, language)))
    return lines
