"""Which design is better, and by how much: replications on the same seeds, paired differences, a verdict in words.

Replication 0 has the first scenario's own seed, replication k > 0 the seed that a study gives it. All designs get the
same seeds (common random numbers), so a difference is taken within each pair of runs. With more than two designs each
is compared with the first and the intervals hold together (Bonferroni, which holds under any dependence; Dunnett's
shorter intervals assume independent samples and serve `independent=True`). They do not hold together over metrics.

Intervals are Student's; with 30 pairs or more and clearly skewed differences they are BCa bootstrap intervals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.measure.names import METRICS, possible, unknown
from sim.measure.statistics import (
    Difference,
    Interval,
    SampleError,
    against_control,
    bca_interval,
    independent,
    paired,
    proportion_interval,
    t_interval,
)
from sim.measure.statistics.intervals import Floats, caution, rounded
from sim.plan import enough
from sim.plan.enough import Enough
from sim.report.compare import Job, aggregate, fingerprint, labels, pool_of
from sim.report.outcome import Outcome
from sim.scenario.errors import ScenarioError
from sim.scenario.study import replication_seed
from sim.scenario.until import Until

if TYPE_CHECKING:
    import pandas as pd

REPLICATIONS = 5
DEFAULT = (
    "committed_tps", "committed_share", "latency_p50_ms", "latency_p95_ms", "latency_p99_ms",
    "decision_latency_mean_ms", "messages_per_decision", "longest_pause_s", "recovery_s", "rejected", "pending",
)  # fmt: skip
_MANY, _SKEWED = 30, 1.0  # pairs and skewness from which on a bootstrap covers better than t
_APART = 1_000_000  # independent designs take seeds so far from each other

Progress = Callable[[float], None]
Announce = Callable[[], AbstractContextManager[None]]


@dataclasses.dataclass(frozen=True)
class Finding:
    """What is known of one metric in two designs, `difference.a` against the first one, `difference.b`.

    `difference` is None where there are too few pairs to say anything, for the reason in `why`. `pairs` of `planned`
    pairs of runs had the metric and ended ok.
    """

    metric: str
    a: str
    b: str
    difference: Difference | None
    pairs: int
    planned: int
    matched: bool
    why: str = ""

    def words(self) -> str:
        """The verdict as one sentence."""
        known = METRICS[self.metric]
        if self.difference is None:
            return f"{self.a} and {self.b}: nothing can be said of {known.words}: {self.why}"
        interval = self.difference.interval
        sample = f"n = {self.pairs} pairs" if self.matched else f"n = {self.pairs} runs each"
        if self.pairs < self.planned:
            sample += f" of {self.planned}, the others did not end ok or lack the metric"
        if interval.low == interval.high == 0 and self.matched:
            return f"{known.words}: {self.a} and {self.b} are equal in every pair, {sample}"
        if not self.difference.told_apart:
            shown, low, high = rounded(interval.estimate, interval.low, interval.high)
            inside = f"{_with_unit(shown, known.unit)} ({_level(interval)} {low} to {high})"
            return f"{known.words}: no difference between {self.a} and {self.b} could be shown: {inside}, {sample}"
        sign = 1 if interval.estimate > 0 else -1
        bounds = sorted((sign * interval.low, sign * interval.high))
        shown, low, high = rounded(sign * interval.estimate, *bounds)
        size = f"{_with_unit(shown, known.unit)} {'higher' if sign > 0 else 'lower'}"
        sure = f"{_level(interval)} {low} to {high}" if interval.low < interval.high else "in every pair"
        return f"{self.a}'s {known.words} is {size} than {self.b}'s ({sure}), {sample}"


def _times(factor: float) -> str:
    if factor < 10:
        return f"{factor:.2g}"
    return "over a million" if factor >= 1e6 else f"{factor:,.0f}"


def _with_unit(number: str, unit: str) -> str:
    return f"{number} {unit}".strip()


def _level(interval: Interval) -> str:
    return f"{100 * interval.level:g} % CI"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Designs side by side. `outcomes[i][k]` is replication k of design i; `findings` say what differs."""

    names: tuple[str, ...]
    seeds: tuple[tuple[int, ...], ...]
    outcomes: tuple[tuple[Outcome, ...], ...]
    metrics: tuple[str, ...]
    level: float
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    enough: Enough | None = None  # where it stands against its target, if it has one

    @property
    def replications(self) -> int:
        """Runs of each design."""
        return len(self.outcomes[0])

    @property
    def first(self) -> list[Outcome]:
        """Replication 0 of each design: one run each."""
        return [runs[0] for runs in self.outcomes]

    def verdict(self) -> list[str]:
        """A sentence per metric and design, then what must be known of the runs."""
        stands = () if self.enough is None else self.enough.lines
        few = [f"intervals of {caution(self.replications)}"] if caution(self.replications) else []
        return [finding.words() for finding in self.findings] + [*stands, *few, *self.notes]

    def told_apart(self) -> tuple[list[str], list[str]]:
        """Sentences of what differs or cannot be compared, and the metrics in which no difference could be shown."""
        differs = [one for one in self.findings if one.difference is None or one.difference.told_apart]
        same = [METRICS[one.metric].words for one in self.findings if one not in differs]
        few = [f"Intervals of {caution(self.replications)}."] if caution(self.replications) else []
        stands = () if self.enough is None else self.enough.lines
        return [f"{one.words()}." for one in differs] + [*stands, *few], list(dict.fromkeys(same))

    def savings(self) -> list[str]:
        """A table of what the same seeds saved; empty if nothing was paired.

        How many times smaller they made the variance of each difference, and the most that any common draws could,
        given how much each design varies.
        """
        others = self.names[1:]
        cells = {(one.metric, one.a): _saved(one.difference) for one in self.findings}
        rows = [[METRICS[m].words, *(cells.get((m, name), "") for name in others)] for m in self.metrics]
        rows = [row for row in rows if any(row[1:])]
        if not rows:
            return []
        head = "the same seeds cut the variance of a difference so many times (and could at most, whatever is shared):"
        return [head, *_aligned([["metric", *others], *rows])]

    def text(self) -> str:
        """Means with intervals, a line per metric and a column per design."""
        frame = self.summary()
        lines = [["metric", *self.names]]
        for metric in self.metrics:
            unit = METRICS[metric].unit
            row = [f"{METRICS[metric].words}{f' [{unit}]' if unit else ''}"]
            for name in self.names:
                one = frame[(frame.design == name) & (frame.metric == metric)].iloc[0]
                if one.n < 2:
                    row.append("–")
                    continue
                estimate, low, high = rounded(float(one.estimate), float(one.low), float(one.high))
                row.append(f"{estimate} ({low} to {high}){f', n = {one.n}' if one.n < self.replications else ''}")
            lines.append(row)
        how = "the same seeds" if self.seeds[0] == self.seeds[-1] else "seeds of their own"
        head = f"means over {self.replications} replications on {how}, with {100 * self.level:g} % intervals:"
        return "\n".join([head, *_aligned(lines)])

    def runs(self) -> pd.DataFrame:
        """One row per run: design, replication, seed, status, digest, then every metric of docs/metrics.md."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for name, outcomes in zip(self.names, self.outcomes, strict=True):
            for k, outcome in enumerate(outcomes):
                head = {"design": name, "replication": k, "seed": outcome.seed, "status": outcome.status}
                shown = {} if outcome.status == "truncated" else outcome.metrics  # what a cut run measured is no result
                rows.append({**head, "digest": outcome.digest, **shown})
        return pd.DataFrame(rows)

    def summary(self) -> pd.DataFrame:
        """One row per design and metric: mean over the runs that ended ok, with its interval; NaN below two runs."""
        import pandas as pd

        rows = []
        for name, outcomes in zip(self.names, self.outcomes, strict=True):
            for metric in self.metrics:
                values = [value for value in map(_reader(metric), outcomes) if value is not None]
                interval = t_interval(values, self.level).within(*possible(metric)) if len(values) >= 2 else None
                rows.append(
                    {"design": name, "metric": metric, "n": len(values)}
                    | _columns(interval)
                    | {"method": "" if interval is None else interval.method}
                )
        return pd.DataFrame(rows)

    def differences(self) -> pd.DataFrame:
        """One row per finding: difference to the first design with its interval, and what pairing saved."""
        import pandas as pd

        rows = []
        for finding in self.findings:
            found = finding.difference
            rows.append(
                {"metric": finding.metric, "design": finding.a, "against": finding.b, "n": finding.pairs}
                | _columns(None if found is None else found.interval)
                | {
                    "told_apart": found is not None and found.told_apart,
                    "variance_reduction": None if found is None else found.variance_reduction,
                    "variance_reduction_most": None if found is None else found.variance_reduction_most,
                    "method": "" if found is None else found.interval.method,
                    "verdict": finding.words(),
                }
            )
        return pd.DataFrame(rows)


def _aligned(lines: list[list[str]]) -> list[str]:
    """Rows of a table, with a rule below the first."""
    wide = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    ruled = [lines[0], ["-" * width for width in wide], *lines[1:]]
    return ["  ".join(c.ljust(w) for c, w in zip(row, wide, strict=True)).rstrip() for row in ruled]


def _saved(found: Difference | None) -> str:
    """How many times smaller the variance of a difference is, and the most that it could be."""
    if found is None or found.variance_reduction is None or found.variance_reduction_most is None:
        return ""
    return f"{_times(found.variance_reduction)} ({_times(found.variance_reduction_most)})"


def _columns(interval: Interval | None) -> dict[str, float | None]:
    if interval is None:
        return {"estimate": None, "low": None, "high": None, "level": None}
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high, "level": interval.level}


def compare(
    scenarios: Sequence[str | Path],
    *,
    replications: int | None = None,
    until: str | None = None,
    most: int = enough.MOST,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    metrics: Sequence[str] | None = None,
    level: float | None = None,
    common: bool = True,
    out: str | Path = "results",
    workers: int = 2,
    progress: Progress | None = None,
    announce: Announce = nullcontext,
) -> Comparison:
    """Compare scenario files with the first of them; only runs that are not stored under `out` are made.

    `replications` of each design: 5 unless given. `until` (`sim.plan.enough`) adds more until the differences are known
    so closely, or there are `most`; then `replications`, 10 unless given, are the first stage, and the target names the
    level. `metrics` defaults to those of the comparison table. `level`: 0.95 unless given. `common=False` gives every
    design seeds of its own: wider intervals (Welch for two designs, Dunnett for more), only to see what common random
    numbers save. Raises ScenarioError before anything runs.
    """
    paths = [Path(path) for path in scenarios]
    if len(paths) < 2:
        raise ScenarioError(f"compare: {', '.join(map(str, paths))} alone; name two or more scenarios, or use run")
    least = (enough.LEAST if until is not None else REPLICATIONS) if replications is None else replications
    if least < 1:
        raise ScenarioError(f"compare: {least} replications; at least 1 is needed, and 2 for an interval")
    goal = None if until is None else enough.read(until, least, most)
    level = _level_of(level, goal, common=common)
    for name in metrics or ():
        if name not in METRICS:
            raise ScenarioError(f"compare: {name}: {unknown(name)}")
    loaded = [Job(path, tuple(overrides), seed).load() for path in paths]
    names = labels([Job(path) for path in paths], loaded)
    count, stood = least, None
    with pool_of(workers, len(paths) * (least if goal is None else most)) as pool:
        while True:
            seeds = _seeds([scenario.seed for scenario in loaded], count, common=common)
            jobs = [
                Job(path, tuple(overrides), each, name)
                for path, name, row in zip(paths, names, seeds, strict=True)
                for each in row
            ]
            flat = aggregate(jobs, Path(out), progress=progress, announce=announce, pool=pool)
            outcomes = tuple(tuple(flat[i * count : (i + 1) * count]) for i in range(len(paths)))
            stood = None if goal is None else _stands(goal, names, outcomes)
            if stood is None or not stood.more:
                break
            count += stood.more
    chosen = tuple(metrics or _present(outcomes))
    if goal is not None and goal.metric not in chosen:
        chosen = (goal.metric, *chosen)
    found = findings(dict(zip(names, outcomes, strict=True)), chosen, level, common=common)
    notes = _notes(names, outcomes, level, different=len({scenario.seed for scenario in loaded}) > 1 and common)
    return Comparison(tuple(names), seeds, outcomes, chosen, level, found, notes, stood)


def _stands(goal: Until, names: Sequence[str], outcomes: Sequence[Sequence[Outcome]]) -> Enough:
    """Whether the replications so far are enough for the target."""
    read = _reader(goal.metric)
    return enough.judge(goal, {name: [read(run) for run in runs] for name, runs in zip(names, outcomes, strict=True)})


def _level_of(level: float | None, goal: Until | None, *, common: bool) -> float:
    """The level of all intervals: what was asked for, or what the target says."""
    if level is not None and not 0 < level < 1:
        raise ScenarioError(f"compare: level {level!r} must lie between 0 and 1; write 95 % as 0.95")
    if goal is None:
        return 0.95 if level is None else level
    if not common:
        raise ScenarioError(f"--until {goal.text()}: is a target for pairs; leave out --independent")
    if level not in (None, goal.level):
        raise ScenarioError(f"--until {goal.text()}: names another level than --level {level}; leave one of them out")
    return goal.level


def _seeds(own: Sequence[int], replications: int, *, common: bool) -> tuple[tuple[int, ...], ...]:
    """The seeds of each design."""
    root = own[0]
    shared = (root, *(replication_seed(root, k) for k in range(1, replications)))
    if common:
        return (shared,) * len(own)
    others = [tuple(replication_seed(root, _APART * i + k) for k in range(replications)) for i in range(1, len(own))]
    return (shared, *others)


def _present(outcomes: Sequence[Sequence[Outcome]]) -> list[str]:
    """The default metrics that some run has."""
    return [name for name in DEFAULT if any(run.metrics.get(name) is not None for runs in outcomes for run in runs)]


def _reader(metric: str) -> Callable[[Outcome], float | None]:
    """The value of a run that may be used: of one that ended ok."""

    def read(outcome: Outcome) -> float | None:
        value = outcome.metrics.get(metric) if outcome.status == "ok" else None
        return None if value is None else float(value)

    return read


def findings(
    designs: Mapping[str, Sequence[Outcome]], metrics: Sequence[str], level: float, *, common: bool = True
) -> tuple[Finding, ...]:
    """What can be said of each metric, each design against the first. Runs that did not end ok are left out."""
    names = list(designs)
    planned = len(designs[names[0]])
    found: list[Finding] = []
    for metric in metrics:
        read = _reader(metric)
        values = {name: [read(outcome) for outcome in outcomes] for name, outcomes in designs.items()}
        if common:
            found += _paired(metric, names, values, planned, level)
        else:
            found += _apart(metric, names, values, planned, level)
    return tuple(found)


def _paired(
    metric: str, names: list[str], values: dict[str, list[float | None]], planned: int, level: float
) -> list[Finding]:
    first, others = names[0], names[1:]
    each = 1 - (1 - level) / len(others)
    found = []
    for name in others:
        pairs = [(x, y) for x, y in zip(values[name], values[first], strict=True) if x is not None and y is not None]
        if len(pairs) < 2:
            why = f"{len(pairs)} of {planned} pairs ended ok and have it, and two are needed"
            found.append(Finding(metric, name, first, None, len(pairs), planned, True, why))
            continue
        a, b = (np.array(column, dtype=np.float64) for column in zip(*pairs, strict=True))
        difference = paired(a, b, each, names=(name, first))
        interval = _skewed(a - b, each) or difference.interval
        joint = f", Bonferroni over {len(others)}" if len(others) > 1 else ""
        interval = dataclasses.replace(interval, level=level, method=interval.method + joint)
        found.append(
            Finding(metric, name, first, dataclasses.replace(difference, interval=interval), len(pairs), planned, True)
        )
    return found


def _skewed(differences: Floats, level: float) -> Interval | None:
    """The bootstrap interval where Student's would miss: many differences, clearly skewed. Otherwise None."""
    spread = float(differences.std())
    if len(differences) < _MANY or spread == 0:
        return None
    skewness = float((((differences - differences.mean()) / spread) ** 3).mean())
    return bca_interval(differences, level=level) if abs(skewness) > _SKEWED else None


def _apart(
    metric: str, names: list[str], values: dict[str, list[float | None]], planned: int, level: float
) -> list[Finding]:
    first, others = names[0], names[1:]
    usable = {name: [value for value in column if value is not None] for name, column in values.items()}
    why = ", ".join(f"{name} has {len(column)} usable runs" for name, column in usable.items() if len(column) < 2)
    found = []
    try:
        if why:
            raise SampleError(f"{why}, and two are needed")
        if len(others) == 1:
            differences = [independent(usable[others[0]], usable[first], level, names=(others[0], first))]
        else:
            differences = against_control(usable, first, level)
        for difference in differences:
            n = difference.interval.n
            found.append(Finding(metric, difference.a, first, difference, n, planned, False))
    except SampleError as error:
        found = [Finding(metric, name, first, None, 0, planned, False, str(error)) for name in others]
    return found


def _notes(
    names: Sequence[str], outcomes: Sequence[Sequence[Outcome]], level: float, *, different: bool
) -> tuple[str, ...]:
    """How the runs ended, where not all ended ok; and what else must be known."""
    notes = []
    for name, runs in zip(names, outcomes, strict=True):
        bad = [run.status for run in runs if run.status != "ok"]
        if bad:
            share = proportion_interval(len(runs) - len(bad), len(runs), level)
            kinds = ", ".join(f"{status} {bad.count(status)}" for status in dict.fromkeys(bad))
            bounds = f"{100 * level:g} % CI {100 * share.low:.0f} to {100 * share.high:.0f} %"
            notes.append(f"{name} ended ok in {len(runs) - len(bad)} of {len(runs)} runs ({bounds}): {kinds}")
    if different:
        notes.append("the files name different seeds; all designs were given those of the first")
    return tuple(notes)


def folder_of(comparison: Comparison) -> str:
    """Name of the folder for a comparison: the designs, and a short hash of what determines their runs."""
    names = "-vs-".join(name.replace("/", "-").replace(" ", "-") for name in comparison.names)
    return f"{names[:80]}-{fingerprint([run for runs in comparison.outcomes for run in runs])}"
