"""The largest offered load that still meets an objective, bracketed with intervals; and the curve up to it.

All open-loop rates of the scenario are multiplied by one factor. At each load the runs have the same seeds, whose
arrivals are the same but for the scale of time. A load *meets* the objective when the interval of every condition lies
on the good side of its bound, *fails* when that of one lies wholly on the bad side (or a run of it ends in a liveness
failure), and is *undecided* otherwise; then it gets twice the replications, up to a cap. Factors double or halve until
one load meets and one fails; the gap is then cut by three loads at a time until its ends are a tolerance apart.

Intervals are Student's at 1 - (1 - level) / (conditions x LOADS_MAX): all conditions at all loads hold together
(Bonferroni), however many loads were looked at. Looking again after more replications costs a little of that.

What is run next follows from values alone. The *knee* is the load of greatest power, committed rate over mean latency
(Kleinrock, ICC 1979, "Power and deterministic rules of thumb").
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sim.measure.names import possible
from sim.measure.statistics import Interval, SampleError, Saturation, find_saturation, t_interval
from sim.measure.statistics.intervals import rounded
from sim.plan.objective import EXAMPLE, Condition, Objective, parse
from sim.scenario.errors import ScenarioError
from sim.scenario.load import load_scenario
from sim.scenario.results import rows
from sim.scenario.schema import Scenario
from sim.scenario.study import Case, Study, lay_out, replication_seed
from sim.scenario.sweep import Tell, executor, run_study
from sim.scenario.workers import Executor
from sim.units import UnitError, parse_rate_tps
from sim.workload.demand import total_tps
from sim.workload.settings import DemandLoad, OpenLoop, Workload

if TYPE_CHECKING:
    import pandas as pd

REPLICATIONS, MOST = 5, 20
TOLERANCE = 0.05
LOADS_MAX = 24
_FACTOR_MAX = 2.0**12
_CURVE = (0.25, 0.5, 0.75, 1.25)  # further loads for the curve, as shares of the answer

State = Literal["meets", "fails", "undecided"]
_FAILING = ("liveness failure",)
_MISSING = 0.02  # share of the offered load that may be under way, or chance, before a load counts as saturated


@dataclasses.dataclass(frozen=True)
class Load:
    """One offered load: its state, the interval of each condition (None where a value is infinite) and why it fails.

    `saturated`: clearly less was committed than offered. `offered_tps` is what the sources ask for; the other intervals
    are over the replications.
    """

    factor: float
    offered_tps: float
    n: int
    state: State
    values: tuple[Interval | None, ...]
    committed_tps: Interval | None
    latency_mean_ms: Interval | None
    latency_p50_ms: Interval | None
    latency_p99_ms: Interval | None
    why: str = ""
    saturated: bool = False


@dataclasses.dataclass(frozen=True)
class Saturated:
    """The answer. `meets` and `fails` are the ends of the bracket, None where no load tried was such.

    `saturation`: which loads were committed as they were offered; None if no load has two runs that submitted anything.
    """

    name: str
    objective: Objective
    level: float
    loads: tuple[Load, ...]  # ascending
    meets: Load | None
    fails: Load | None
    folder: Path
    seed: int
    statuses: dict[str, int]
    stopped: str
    saturation: Saturation | None = None

    @property
    def knee(self) -> Load | None:
        """The load of greatest power; None if no run answered anything."""
        usable = [load for load in self.loads if load.committed_tps and load.latency_mean_ms]
        return max(usable, key=_power, default=None)

    def verdict(self) -> list[str]:
        """In words."""
        asked, sure = f"{self.name}: {self.objective.text}", f"{100 * self.level:g} % sure"
        lines = [f"{asked}: undecided at every load tried"]
        if self.meets is not None and self.fails is not None:
            lines = [f"{asked} holds up to {_tps(self.meets)} and fails at {_tps(self.fails)} ({sure})"]
        elif self.meets is not None:
            lines = [f"{asked} holds up to {_tps(self.meets)}, the largest load decided ({sure})"]
        elif self.fails is not None:
            lines = [f"{asked} holds at no load tried, down to {_tps(self.loads[0])} ({sure})"]
        if self.fails is not None:
            lines.append(f"at {_tps(self.fails)}: {self.fails.why}")
        between = [load for load in self.loads if load.state == "undecided" and self._inside(load)]
        if between:
            lines.append(f"undecided in between, after {between[0].n} replications: {', '.join(map(_tps, between))}")
        if self.meets and any(one.state == "fails" and one.factor < self.meets.factor for one in self.loads):
            lines.append("a smaller load failed: look for another cause than load")
        lines += self._saturation()
        if self.knee is not None:
            assert self.knee.latency_mean_ms is not None
            shown = self.knee.latency_mean_ms.text("ms")
            lines.append(f"knee of the curve (greatest committed/latency) at {_tps(self.knee)}: mean latency {shown}")
        return lines + ([self.stopped] if self.stopped else [])

    def _saturation(self) -> list[str]:
        """From which load on less is committed than offered, and what that means for the answer."""
        known = self.saturation
        if known is None or known.saturated_tps is None:
            return []
        kept = f"keeps up with offered up to {known.kept_up_tps:,.4g} tx/s and " if known.kept_up_tps else ""
        lines = [f"committed {kept}falls behind at {known.saturated_tps:,.4g} tx/s, where queues grow without end"]
        if self.meets is not None and self.meets.saturated:
            lines.append("so the answer holds for runs of this length only; give a longer duration")
        return lines

    def _inside(self, load: Load) -> bool:
        low = self.meets.factor if self.meets else 0.0
        return low < load.factor < (self.fails.factor if self.fails else math.inf)

    def frame(self) -> pd.DataFrame:
        """One row per load, ascending: state, n, and each interval as estimate, low and high."""
        import pandas as pd

        table = []
        for load in self.loads:
            row: dict[str, Any] = {"factor": load.factor, "offered_tps": load.offered_tps, "n": load.n}
            row |= {"state": load.state, "knee": load is self.knee}
            named: list[tuple[str, Interval | None]] = [
                (name, getattr(load, name))
                for name in ("committed_tps", "latency_mean_ms", "latency_p50_ms", "latency_p99_ms")
            ]
            for condition, interval in zip(self.objective.conditions, load.values, strict=True):
                named.append((f"condition {condition.text}", interval))
            for name, interval in named:
                ends = (None,) * 3 if interval is None else (interval.estimate, interval.low, interval.high)
                row |= dict(zip((name, f"{name} low", f"{name} high"), ends, strict=True))
            table.append(row)
        return pd.DataFrame(table)

    def text(self) -> str:
        """A line per load: its state, and throughput and latency with their intervals."""
        lines = [["offered", "n", "state", "committed", "p50", "p99"], ["tx/s", "", "", "tx/s", "ms", "ms"]]
        for load in self.loads:
            p50 = "–" if load.latency_p50_ms is None else f"{load.latency_p50_ms.estimate:,.4g}"
            cells = [_cell(load.committed_tps), p50, _cell(load.latency_p99_ms)]
            lines.append([f"{load.offered_tps:,.6g}", str(load.n), load.state, *cells])
        wide = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        rows = ["  ".join(cell.rjust(width) for cell, width in zip(line, wide, strict=True)) for line in lines]
        note = f"means over n replications, with {100 * self.level:g} % intervals; that of p50 in curve.csv:"
        return "\n".join([note, *rows])


def _cell(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    estimate, low, high = rounded(interval.estimate, interval.low, interval.high)
    return f"{estimate} [{low}, {high}]"


def _power(load: Load) -> float:
    assert load.committed_tps is not None
    assert load.latency_mean_ms is not None
    return load.committed_tps.estimate / max(load.latency_mean_ms.estimate, 1e-9)


def _tps(load: Load) -> str:
    return f"{load.offered_tps:,.4g} tx/s" if load.offered_tps < 1000 else f"{load.offered_tps:,.0f} tx/s"


def saturate(
    scenario: str | Path,
    objective: str = EXAMPLE,
    *,
    start: str | None = None,
    tolerance: float = TOLERANCE,
    replications: int = REPLICATIONS,
    most: int = MOST,
    level: float = 0.95,
    curve: bool = True,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    out: str | Path = "results",
    workers: int = 2,
    cluster: str | None = None,
    tell: Tell | None = None,
) -> Saturated:
    """Bracket the largest load at which a scenario file meets an objective; runs are stored and reused as a study's.

    `start`: the first load tried, such as "1000 tx/s" (default: the scenario's own). `tolerance`: how far apart the
    ends may stay, as a fraction. `curve` adds loads below and above the answer. `cluster`: as for `sim.sweep`.
    Raises ScenarioError before anything runs if the objective, the scenario or an option makes no sense.
    """
    asked = parse(objective)
    loaded = load_scenario(scenario, overrides, seed)
    own = nominal_tps(loaded)
    if own is None:
        raise ScenarioError(f"{scenario}: workload: has no open or demand entry, whose rate could grow; add one")
    if not 0 < tolerance < 1:
        raise ScenarioError(f"saturate: tolerance {tolerance!r} must lie between 0 and 1; write 5 % as 0.05")
    if not 2 <= replications <= most:
        raise ScenarioError(f"saturate: replications {replications} to {most}, but 2 <= replications <= most is needed")
    if not 0 < level < 1:
        raise ScenarioError(f"saturate: level {level!r} must lie between 0 and 1; write 95 % as 0.95")
    try:
        first = 1.0 if start is None else parse_rate_tps(start) / own
    except UnitError as error:
        raise ScenarioError(f"saturate: start {start}: {error}") from None
    if first <= 0:
        raise ScenarioError(f"saturate: start {start}: must be above zero; write for example 1000 tx/s")
    with executor(workers, cluster) as execute:
        search = _Search(loaded, asked, level, replications, most, Path(out), execute, tell)
        search.bracket(first)
        search.narrow(tolerance)
        if curve and search.meets is not None:
            search.look_at([search.meets.factor * share for share in _CURVE])
        return search.answer()


def nominal_tps(scenario: Scenario) -> float | None:
    """What the open-loop entries of a workload ask for together, tx/s; None if there are none."""
    rates = [_rate_of(entry, scenario) for entry in scenario.workload if isinstance(entry, (OpenLoop, DemandLoad))]
    return sum(rates) if rates else None


def _rate_of(entry: OpenLoop | DemandLoad, scenario: Scenario) -> float:
    if isinstance(entry, OpenLoop):
        return entry.mean_tps(scenario.duration_ns) if entry.rate_tps is None else entry.rate_tps
    return total_tps(entry.tier, entry.level) if entry.rate_tps is None else entry.rate_tps


def scaled(scenario: Scenario, factor: float) -> Scenario:
    """The scenario with all open-loop rates multiplied, to six significant digits."""
    workload = tuple(_scaled(entry, scenario, factor) for entry in scenario.workload)
    return scenario.model_copy(update={"workload": workload})


def _scaled(entry: Workload, scenario: Scenario, factor: float) -> Workload:
    if isinstance(entry, OpenLoop) and entry.steps:
        return entry.model_copy(update={"steps": tuple(step.scaled(factor) for step in entry.steps)})
    if isinstance(entry, (OpenLoop, DemandLoad)):
        return entry.model_copy(update={"rate_tps": float(f"{_rate_of(entry, scenario) * factor:.6g}")})
    return entry


class _Search:
    """Loads tried so far, and what to try next."""

    def __init__(
        self, scenario: Scenario, objective: Objective, level: float, least: int, most: int, out: Path,
        execute: Executor, tell: Tell | None,
    ) -> None:  # fmt: skip
        self.scenario, self.objective, self.level = scenario, objective, level
        self.least, self.most, self.out, self.execute, self.tell = least, most, out, execute, tell
        self.each = 1 - (1 - level) / (len(objective.conditions) * LOADS_MAX)
        self.counts: dict[float, int] = {}
        self.loads: dict[float, Load] = {}
        self.rates: dict[float, tuple[list[float], list[float]]] = {}  # offered and committed, tx/s, of each run
        self.statuses: dict[str, int] = {}
        self.stopped = ""
        self.study = Study(
            f"saturate-{scenario.name}", scenario.name, f"loads of {scenario.name}", ("load_factor", "load_tps"), (),
            lambda k: replication_seed(scenario.seed, k), (), (),
        )  # fmt: skip

    @property
    def meets(self) -> Load | None:
        """The largest load that meets the objective, below every one that fails."""
        below = [x for x in self._of("meets") if all(x.factor < y.factor for y in self._of("fails"))]
        return max(below, key=lambda load: load.factor, default=None)

    @property
    def fails(self) -> Load | None:
        """The smallest load that fails."""
        return min(self._of("fails"), key=lambda load: load.factor, default=None)

    def _of(self, state: State) -> list[Load]:
        return [load for load in self.loads.values() if load.state == state]

    def bracket(self, first: float) -> None:
        """Double or halve, two loads at a time, until a load meets and a larger one fails."""
        self.look_at([first, first * 2])
        while not self.stopped and (self.meets is None or self.fails is None):
            low, high = min(self.loads), max(self.loads)
            if self.fails is None and high < first * _FACTOR_MAX:
                self.look_at([high * 2, high * 4])
            elif self.meets is None and low > first / _FACTOR_MAX:
                self.look_at([low / 2, low / 4])
            else:
                break
            if len(self.loads) >= LOADS_MAX:
                self.stopped = f"stopped after {len(self.loads)} loads without a bracket; give another start"

    def narrow(self, tolerance: float) -> None:
        """Cut the gap between what meets and what fails until it is no wider than the tolerance."""
        while not self.stopped and self.meets is not None and self.fails is not None:
            inside = sorted(x.factor for x in self._of("undecided") if self.meets.factor < x.factor < self.fails.factor)
            ends = [self.meets.factor, *inside, self.fails.factor]
            gaps = [(ends[0], ends[1]), *([(ends[-2], ends[-1])] if inside else [])]
            wide = [(a, b) for a, b in gaps if b / a > 1 + tolerance]
            if not wide:
                return
            if len(self.loads) >= LOADS_MAX:
                self.stopped = f"stopped after {len(self.loads)} loads; the ends are wider apart than asked for"
                return
            parts = 4 if len(wide) == 1 and wide[0][1] / wide[0][0] > (1 + tolerance) ** 2 else 2
            self.look_at([a * (b / a) ** (i / parts) for a, b in wide for i in range(1, parts)])

    def look_at(self, factors: Sequence[float]) -> None:
        """Run the loads that are new, and more replications of those that stay undecided."""
        todo = [float(f"{factor:.4g}") for factor in factors]
        todo = [factor for factor in dict.fromkeys(todo) if factor not in self.loads and not self.stopped]
        for factor in todo:
            self.counts[factor] = self.least
        while todo:
            self._run()
            if self.stopped:
                return
            todo = [f for f in todo if self.loads[f].state == "undecided" and self.counts[f] < self.most]
            for factor in todo:
                self.counts[factor] = min(2 * self.counts[factor], self.most)

    def _run(self) -> None:
        """Run what is missing and judge every load anew."""
        own = nominal_tps(self.scenario)
        assert own is not None
        numbers = {factor: i for i, factor in enumerate(self.counts)}
        values = {f: {"load_factor": f, "load_tps": float(f"{own * f:.6g}")} for f in numbers}
        cases = tuple(Case(i, values[factor], _with_load(self.scenario, factor)) for factor, i in numbers.items())
        bare = dataclasses.replace(self.study, cases=cases, counts=(0,) * len(cases))
        self.study = lay_out(bare, list(self.counts.values()))
        swept = run_study(self.study, out=self.out, execute=self.execute, tell=self.tell)
        self.statuses = swept.statuses
        unusable = {name: count for name, count in swept.statuses.items() if name not in ("ok", *_FAILING)}
        if unusable:
            named = ", ".join(f"{name} {count}" for name, count in unusable.items())
            self.stopped = f"stopped: runs without a result that could be used: {named} (see {swept.folder})"
        found: dict[int, list[dict[str, Any]]] = {}
        for row in sorted(rows(swept.runs), key=lambda row: row["replication"]):
            found.setdefault(row["case"], []).append(row)
        for factor, i in numbers.items():
            usable = [row for row in found[i] if row["status"] in ("ok", *_FAILING)]
            if len(usable) >= 2:
                offered, committed = ([float(r[k] or 0) for r in usable] for k in ("offered_tps", "committed_tps"))
                self.rates[factor] = offered, committed
                self.loads[factor] = self.judge(factor, float(f"{own * factor:.6g}"), usable)

    def judge(self, factor: float, offered_tps: float, runs: Sequence[dict[str, Any]]) -> Load:
        """Whether a load meets the objective, from its runs."""
        columns = list(zip(*(self.objective.values(run) for run in runs), strict=True))
        stuck = sum(run["status"] in _FAILING for run in runs)
        states: list[State] = []
        intervals: list[Interval | None] = []
        why = []
        for condition, values in zip(self.objective.conditions, columns, strict=True):
            finite = np.isfinite(values).all()
            interval = t_interval(values, self.each) if finite else None
            intervals.append(interval)
            states.append(_state(condition, interval))
            if states[-1] == "fails":
                why.append(f"{condition.text} does not hold: {_shown(condition, interval)}")
        if stuck:
            why.append(f"{stuck} of {len(runs)} runs ended in a liveness failure")
        state: State = "fails" if stuck or "fails" in states else "undecided" if "undecided" in states else "meets"

        def over(name: str) -> Interval | None:
            values = [float(run[name]) for run in runs if run.get(name) is not None]
            return t_interval(values, self.level).within(*possible(name)) if len(values) == len(runs) else None

        return Load(
            factor, offered_tps, len(runs), state, tuple(intervals), over("committed_tps"), over("latency_mean_ms"),
            over("latency_p50_ms"), over("latency_p99_ms"), "; ".join(why),
        )  # fmt: skip

    def answer(self) -> Saturated:
        """What is known now."""
        saturation = self._saturation()
        loads = tuple(sorted(self.loads.values(), key=lambda load: load.factor))
        return Saturated(
            self.scenario.name, self.objective, self.level, loads, self.meets, self.fails,
            self.out / self.study.name, self.scenario.seed, self.statuses, self.stopped,
            saturation,
        )  # fmt: skip

    def _saturation(self) -> Saturation | None:
        """Which loads were committed as they were offered; marks those that were not."""
        factors = [factor for factor in sorted(self.loads) if all(self.rates[factor][0])]
        if not factors:
            return None
        offered, committed = zip(*(self.rates[factor] for factor in factors), strict=True)
        try:
            found = find_saturation(offered, committed, self.level, tolerance=_MISSING)
        except SampleError:  # too few replications to bound a ratio
            return None
        for factor in factors:
            judged = next(one for one in found.loads if one.offered_tps.estimate == np.mean(self.rates[factor][0]))
            self.loads[factor] = dataclasses.replace(self.loads[factor], saturated=judged.state == "saturated")
        return found


def _with_load(scenario: Scenario, factor: float) -> Callable[[int], Scenario]:
    at = scaled(scenario, factor)
    return lambda seed: at.model_copy(update={"seed": seed})


def _state(condition: Condition, interval: Interval | None) -> State:
    if interval is None:
        return "fails"
    low, high, bound = interval.low, interval.high, condition.bound
    if condition.side == "<":
        return "meets" if high < bound else "fails" if low >= bound else "undecided"
    return "meets" if low > bound else "fails" if high <= bound else "undecided"


def _shown(condition: Condition, interval: Interval | None) -> str:
    if interval is None:
        return "some run answered nothing"
    if condition.unit or condition.bound > 1:
        estimate, low, high = rounded(interval.estimate, interval.low, interval.high)
    else:
        estimate, low, high = (f"{100 * x:.4g} %" for x in (interval.estimate, interval.low, interval.high))
    return f"{estimate} {condition.unit}".strip() + f" (interval {low} to {high}, n = {interval.n})"
