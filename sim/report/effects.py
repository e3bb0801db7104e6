"""What the cases of a study did to a metric: one estimate with its interval per case, from runs that are ok.

Runs that failed a check, reached a limit or have no result are left out, and counted, so that a caption can say so.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sim.measure import names
from sim.measure.statistics import Interval, t_interval

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.95
METRICS = ("committed_tps", "latency_p50_ms", "latency_p99_ms", "decision_latency_mean_ms")
_QUANTITY = re.compile(r"\s*([-+]?[0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z%/µ]*)\s*")


@dataclasses.dataclass(frozen=True)
class Case:
    """One design of a study: its number, what varied, and how many of its runs are ok."""

    number: int
    values: dict[str, Any]
    planned: int
    ok: int


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A metric in one case. `interval` is None with fewer than two values: one run says nothing about its spread."""

    case: Case
    n: int
    mean: float
    interval: Interval | None

    @property
    def bounds(self) -> tuple[float, float]:
        """The interval, or the single value twice."""
        return (self.mean, self.mean) if self.interval is None else (self.interval.low, self.interval.high)


@dataclasses.dataclass(frozen=True)
class Effect:
    """A metric over all cases that have a value of it. `assumed`: its values rest on an assumption, (A)."""

    metric: str
    estimates: tuple[Estimate, ...]
    assumed: bool = False

    @property
    def title(self) -> str:
        """The metric as people name it, with its unit, and (A) if it rests on an assumption."""
        return titled(self.metric) + (" (A)" if self.assumed else "")

    @property
    def replications(self) -> str:
        """Values behind an estimate: 10, or 3 to 10."""
        least, most = min(e.n for e in self.estimates), max(e.n for e in self.estimates)
        return str(least) if least == most else f"{least} to {most}"


def titled(metric: str) -> str:
    """A metric's name for an axis: committed throughput [tx/s]."""
    known = names.METRICS.get(metric)
    if known is None:
        return metric.replace("_", " ")
    words = f"latency {known.words}" if metric.startswith("latency_p") else known.words
    return f"{words} [{known.unit}]" if known.unit else words


def cases_of(frame: pd.DataFrame) -> list[Case]:
    """The cases of a study's frame (`sim.results`), in order."""
    swept = swept_keys(frame)
    found = []
    for number in sorted(frame.case.unique().tolist()):
        runs = frame[frame.case == number]
        values = {name: _plain(runs[name].iloc[0]) for name in swept}
        found.append(Case(number, values, len(runs), int((runs.status == "ok").sum())))
    return found


def swept_keys(frame: pd.DataFrame) -> list[str]:
    """What varies: the columns between case and replication."""
    names = list(frame.columns)
    return names[1 : names.index("replication")]


def effect(frame: pd.DataFrame, cases: Sequence[Case], metric: str, *, assumed: bool = False) -> Effect | None:
    """A metric over the cases, or None if no ok run has it."""
    found = []
    ok = frame[frame.status == "ok"]
    for case in cases:
        values = ok.loc[ok.case == case.number, metric].dropna().to_numpy(dtype=float)
        if len(values):
            interval = t_interval(values, LEVEL).within(*names.possible(metric)) if len(values) > 1 else None
            found.append(Estimate(case, len(values), float(values.mean()), interval))
    return Effect(metric, tuple(found), assumed) if found else None


def _named(value: Any) -> Any:
    """A section of a scenario by its name, if it has one; other values as they are."""
    if isinstance(value, str) and value.startswith('{"name":'):
        return json.loads(value)["name"]
    return value["name"] if isinstance(value, dict) and "name" in value else value


def short(values: dict[str, Any]) -> str:
    """A case in a legend: only the values where they say enough, the last word of the key where they do not."""
    given = {key.rpartition(".")[2]: _named(value) for key, value in values.items() if value is not None}
    parts = [value if isinstance(value, str) else f"{key} {value}" for key, value in given.items()]
    return ", ".join(parts) or "as the base"


def number_of(value: Any) -> tuple[float, str] | None:
    """A value as a number with its unit, or None: 50 ms, 31, 10 Mbit/s."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return float(value), ""
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    return (float(match[1].replace("_", "")), match[2]) if match else None


def axis_key(cases: Sequence[Case]) -> str | None:
    """The key that can be a horizontal axis: numbers in one unit, at least three, the most there are."""
    best, count = None, 2
    for key in cases[0].values if cases else ():
        numbers = [number_of(case.values[key]) for case in cases]
        units = {number[1] for number in numbers if number is not None}
        distinct = len(set(numbers))
        if None not in numbers and len(units) == 1 and distinct > count:
            best, count = key, distinct
    return best


def _plain(value: Any) -> Any:
    """A cell as plain data: numpy's numbers as Python's, missing as None."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and value != value else value
