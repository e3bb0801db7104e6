"""Which parameter matters: Sobol indices of a Saltelli design, or Morris' elementary effects (SALib).

The study's sweep is `saltelli` or `morris`; every case has the study's replications. Noise is handled in three ways.
All cases share their seeds (common random numbers), so a seed's effect on all of them alike is no difference between
cases. Indices are those of the mean over replications. And the share of that mean's variance that is still noise is
stated (`noise`: what neither case nor seed alone explains, over the number of replications): it lowers first-order
indices by that share and raises total ones; add replications where it matters.

Intervals are bootstrap ones over the points of the design (Saltelli) or over trajectories (Morris), from SALib.

References: Saltelli et al., Computer Physics Communications 181 (2010), "Variance based sensitivity analysis of model
output"; Morris, Technometrics 33 (1991), "Factorial sampling plans for preliminary computational experiments";
Campolongo, Cariboni and Saltelli, Environmental Modelling & Software 22 (2007), for mu*.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sim.kernel import chance
from sim.measure.names import METRICS, unknown, words_of
from sim.measure.statistics.intervals import Floats
from sim.scenario.designs import Trajectories, unit_cube
from sim.scenario.errors import ScenarioError
from sim.scenario.results import replay, rows
from sim.scenario.study import Study, load_study
from sim.scenario.sweep import Tell, run_study

if TYPE_CHECKING:
    import pandas as pd

DEFAULT = ("latency_p99_ms", "committed_tps")
_RESAMPLES = 1000
_BOOTSTRAP = 3  # key of the draw that seeds the bootstrap


@dataclasses.dataclass(frozen=True)
class VariedParameter:
    """One key's indices, each with the half-width of its interval.

    Saltelli: `first` is the share of the metric's variance that the key alone explains, `total` with all it does
    together with others. Morris: `first` is mu*, the mean absolute effect of moving the key over its range, in the
    metric's unit; `total` is sigma, the spread of effects (how much they depend on the other keys), without interval.
    """

    key: str
    first: float
    first_half: float
    total: float
    total_half: float | None


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """Indices of all keys for one metric. `noise`: share of the variance of case means that replications explain."""

    metric: str
    kind: str
    cases: int
    replications: int
    level: float
    noise: float | None
    parameters: tuple[VariedParameter, ...]

    def verdict(self) -> str:
        """In words: which parameter matters most, and whether it is told apart from the next."""
        words, unit = words_of(self.metric), METRICS[self.metric].unit
        if not self.parameters:
            return f"{words}: the same in all {self.cases} cases; no parameter in these ranges matters"
        value, half = ("first", "first_half") if self.kind == "morris" else ("total", "total_half")
        ranked = sorted(self.parameters, key=lambda parameter: getattr(parameter, value), reverse=True)
        best = ranked[0]
        shown = f"{getattr(best, value):.3g} +- {getattr(best, half):.2g}"
        what = f"mu* {shown} {unit}".strip() if self.kind == "morris" else f"total index {shown}"
        text = f"{words}: {best.key} matters most ({what}, {100 * self.level:g} % interval)"
        if len(ranked) > 1:
            second = ranked[1]
            apart = getattr(best, value) - getattr(best, half) > getattr(second, value) + getattr(second, half)
            text += f", ahead of {second.key}" if apart else f"; it is not told apart from {second.key}"
        if self.noise is None:
            return f"{text}; one replication, so noise is not known"
        return f"{text}; noise is {100 * self.noise:.2g} % of the variance"


def sensitivity(
    study: str | Path,
    metrics: Sequence[str] = DEFAULT,
    *,
    level: float = 0.95,
    overrides: Sequence[str] = (),
    out: str | Path = "results",
    workers: int = 2,
    cluster: str | None = None,
    tell: Tell | None = None,
) -> list[Sensitivity]:
    """Run what is missing of a study with a `saltelli` or `morris` sweep, and tell which of its keys matter.

    One entry per metric. `cluster`: as for `sim.sweep`. Raises ScenarioError for another kind of sweep, an unknown
    metric, or cases without a result: indices need every point of the design.
    """
    for name in metrics:
        if name not in METRICS:
            raise ScenarioError(f"sensitivity: {name}: {unknown(name)}")
    if not 0 < level < 1:
        raise ScenarioError(f"sensitivity: level {level!r} must lie between 0 and 1; write 95 % as 0.95")
    laid = load_study(study, overrides)
    if laid.sampled is None or laid.sampled[0] not in ("saltelli", "morris"):
        rule = "indices need a sweep of the kind saltelli or morris; write sweep: {morris: {samples: 20, ranges: ...}}"
        raise ScenarioError(f"{study}: sweep: {rule}")
    swept = run_study(laid, out=out, workers=workers, cluster=cluster, tell=tell)
    if swept.stopped:
        raise ScenarioError(f"{study}: the sweep ended early: {swept.stopped}")
    laid, _ = replay(laid, swept.folder)
    return [indices(laid, metric, table(laid, rows(swept.runs), metric), level) for metric in metrics]


def table(study: Study, found: Sequence[dict[str, object]], metric: str) -> list[Floats]:
    """A metric of every case, one value per replication. Raises ScenarioError if a run ended otherwise than ok."""
    columns: dict[int, list[float]] = {case.number: [] for case in study.cases}
    bad: dict[str, int] = {}
    for row in found:
        value = row.get(metric) if row["status"] == "ok" else None
        if value is None:
            why = str(row["status"]) if row["status"] != "ok" else f"no {metric}"
            bad[why] = bad.get(why, 0) + 1
        else:
            columns[int(str(row["case"]))].append(float(str(value)))
    if bad:
        named = ", ".join(f"{why} {count}" for why, count in sorted(bad.items()))
        raise ScenarioError(
            f"{study.name}: {metric}: {sum(bad.values())} of {len(found)} runs have no usable value ({named}), and "
            "indices need every point of the design; narrow the ranges, or take another metric"
        )
    return [np.array(columns[case.number], dtype=np.float64) for case in study.cases]


def indices(study: Study, metric: str, values: Sequence[Floats], level: float = 0.95) -> Sensitivity:
    """Indices from the values of all cases, one array of replications each, in the order of the design."""
    assert study.sampled is not None
    kind, settings = study.sampled
    names = list(settings.ranges)
    problem = {"num_vars": len(names), "names": names, "bounds": [[0.0, 1.0]] * len(names)}
    means = np.array([column.mean() for column in values])
    least = min(len(column) for column in values)
    noise = None
    spread = float(means.var())
    if least >= 2 and spread > 0:
        runs = np.stack([column[:least] for column in values])
        rest = runs - runs.mean(axis=1, keepdims=True) - runs.mean(axis=0, keepdims=True) + runs.mean()
        within = float((rest**2).sum()) / ((len(runs) - 1) * (least - 1) * least)
        noise = min(within / spread, 1.0)
    if spread == 0:
        return Sensitivity(metric, kind, len(values), least, level, noise, ())
    number = chance.draw(study.seed, chance.REPLICATION, _BOOTSTRAP) % (1 << 32)
    if not isinstance(settings, Trajectories):
        from SALib.analyze import sobol

        # Centred and scaled: the estimators lose digits on values far from zero.
        scaled = (means - means.mean()) / means.std()
        found = sobol.analyze(
            problem, scaled, calc_second_order=False, num_resamples=_RESAMPLES, conf_level=level, seed=number
        )
        columns = (found["S1"], found["S1_conf"], found["ST"], found["ST_conf"])
    else:
        from SALib.analyze import morris

        x = np.array(unit_cube(kind, settings, study.seed))
        found = morris.analyze(
            problem, x, means, num_levels=settings.levels, num_resamples=_RESAMPLES, conf_level=level, seed=number
        )
        columns = (found["mu_star"], found["mu_star_conf"], found["sigma"], [None] * len(names))
    parameters = tuple(
        VariedParameter(
            name, float(first), float(first_half), float(total), None if total_half is None else float(total_half)
        )
        for name, first, first_half, total, total_half in zip(names, *columns, strict=True)
    )
    return Sensitivity(metric, kind, len(values), least, level, noise, parameters)


def frame(found: Sequence[Sensitivity]) -> pd.DataFrame:
    """One row per metric and key: each index with its half-width."""
    import pandas as pd

    table = []
    for one in found:
        names = ("mu_star", "mu_star_half", "sigma") if one.kind == "morris" else ("S1", "S1_half", "ST", "ST_half")
        for parameter in one.parameters:
            indexed = (parameter.first, parameter.first_half, parameter.total, parameter.total_half)
            row = {"metric": one.metric, "key": parameter.key, **dict(zip(names, indexed, strict=False))}
            table.append(row | {"level": one.level, "replications": one.replications, "noise": one.noise})
    return pd.DataFrame(table)
