"""Service objectives: `p99 < 2 s and success > 99.9 %`, judged on a run's metrics.

A name is a metric of docs/metrics.md or one of: p50, p95, p99 (latency at the client), latency (its mean), throughput
(committed), pause (longest), and success. Success is the share of submitted transactions that were answered or still
had time to be: 1 - (rejected + expired + late) / submitted, where late are those pending at the end of the run beyond
what arrives within the latency that the objective allows (without such a bound: within the run's own p99). Without
that allowance every run would fail by what is under way at its end.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Literal

from sim.measure.names import METRICS, unknown
from sim.scenario.errors import ScenarioError
from sim.units import UnitError, parse_fraction, parse_ns, parse_rate_tps

SUCCESS = "success"
EXAMPLE = "p99 < 2 s and success > 99.9 %"
_ALIASES = {
    "p50": "latency_p50_ms",
    "p95": "latency_p95_ms",
    "p99": "latency_p99_ms",
    "latency": "latency_mean_ms",
    "throughput": "committed_tps",
    "pause": "longest_pause_s",
}
_CONDITION = re.compile(r"\s*(\w+)\s*(<=|>=|<|>)\s*(.+?)\s*")
_LATENCIES = tuple(name for name in METRICS if name.startswith("latency_"))

Metrics = Mapping[str, float | int | None]


@dataclasses.dataclass(frozen=True)
class Condition:
    """One bound: a metric (or `success`) and the value it must stay below or above, in the metric's unit."""

    metric: str
    side: Literal["<", ">"]
    bound: float
    text: str

    @property
    def unit(self) -> str:
        """Unit of the bound."""
        return "" if self.metric == SUCCESS else METRICS[self.metric].unit


@dataclasses.dataclass(frozen=True)
class Objective:
    """All conditions hold."""

    conditions: tuple[Condition, ...]

    @property
    def text(self) -> str:
        """As it was written."""
        return " and ".join(condition.text for condition in self.conditions)

    def values(self, metrics: Metrics) -> list[float]:
        """The value behind each condition; infinite on the wrong side where a run has none (nothing was answered)."""
        found = []
        for condition in self.conditions:
            if condition.metric == SUCCESS:
                value = success(metrics, self._patience_s(metrics))
            else:
                value = metrics[condition.metric]
            worst = math.inf if condition.side == "<" else -math.inf
            found.append(worst if value is None else float(value))
        return found

    def _patience_s(self, metrics: Metrics) -> float:
        """How long a transaction may take before it counts as late, s."""
        bounds = [c.bound / 1000 for c in self.conditions if c.metric in _LATENCIES and c.side == "<"]
        return min(bounds) if bounds else float(metrics.get("latency_p99_ms") or 0) / 1000


def success(metrics: Metrics, patience_s: float) -> float | None:
    """Share of submitted transactions that were answered or still had time to be; None if none were submitted."""
    submitted = metrics.get("submitted") or 0
    if not submitted:
        return None
    lost = (metrics["rejected"] or 0) + (metrics["expired"] or 0)
    waiting = submitted - (metrics["acknowledged"] or 0) - lost
    late = max(waiting - float(metrics["offered_tps"] or 0) * patience_s, 0.0)
    return 1 - (lost + late) / submitted


def parse(text: str) -> Objective:
    """Read an objective. Raises ScenarioError, "TEXT: rule; remedy"."""
    conditions = []
    for part in re.split(r"\band\b", text):
        found = _CONDITION.fullmatch(part)
        if found is None:
            raise ScenarioError(f"objective {text!r}: {part.strip()!r} is not NAME < VALUE; write, say, {EXAMPLE!r}")
        name, sign, value = found.groups()
        metric = _ALIASES.get(name, name)
        if metric != SUCCESS and metric not in METRICS:
            short = ", ".join([*_ALIASES, SUCCESS])
            raise ScenarioError(f"objective {text!r}: {name}: {unknown(metric)}; short names are {short}")
        try:
            bound = _bound(metric, value)
        except (UnitError, ValueError) as error:
            raise ScenarioError(f"objective {text!r}: {value}: {error}") from None
        conditions.append(Condition(metric, "<" if sign[0] == "<" else ">", bound, f"{name} {sign} {value}"))
    return Objective(tuple(conditions))


def _bound(metric: str, text: str) -> float:
    """A bound in the unit of its metric."""
    unit = "share" if metric == SUCCESS or metric.endswith("_share") else METRICS[metric].unit
    if unit == "share":
        return parse_fraction(text)
    if unit in ("ms", "s", "us"):
        return parse_ns(text) / {"s": 1e9, "ms": 1e6, "us": 1e3}[unit]
    if unit == "tx/s":
        return parse_rate_tps(text)
    try:
        bound = float(text.removesuffix(unit))
    except ValueError:
        raise UnitError("must be a number; write for example 10") from None
    if not math.isfinite(bound):
        raise UnitError("must be a finite number; write for example 10")
    return bound
