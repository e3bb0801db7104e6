"""A sheet of acceptance tests: stop voters one by one, restart them, add and remove, synchronise.

After JR/T 0193-2020, section 7, and the tables of trusted-blockchain tests: each line is a run of the scenario, with
what was asked, what came out, and whether it passed. Faults of the scenario are left out. What is asked of stopping
voters is what the protocol's own quorums promise: to go on while they can be met, and to halt, unharmed, when they
cannot. How soon a voter must have caught up is an assumption (A).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sim.plan.contingency import needs_of
from sim.plan.losses import can_meet
from sim.protocols import PROTOCOLS
from sim.report.compare import Announce, Job, Progress, aggregate
from sim.report.outcome import Outcome
from sim.report.verdicts import time
from sim.scenario.errors import ScenarioError
from sim.scenario.load import load_scenario
from sim.scenario.schema import Scenario

STEP_S = 20  # between two stops
_LEAD_S = 10
_AWAY = (("10 blocks", {"blocks": 10}), ("8 h", {"away": "8 h"}), ("188 h", {"away": "188 h"}))
_CATCH_UP_MAX_S = {"10 blocks": 10.0, "8 h": 600.0, "188 h": 3_600.0}  # asked (A)
State = Literal["pass", "FAIL", "measured", "not asked"]


@dataclasses.dataclass(frozen=True)
class Line:
    """One test: what was asked, what came out, and whether that is enough."""

    test: str
    asked: str
    found: str
    state: State


@dataclasses.dataclass(frozen=True)
class Sheet:
    """All tests of a scenario, and the runs behind them."""

    scenario: Scenario
    lines: tuple[Line, ...]
    stopping: Outcome
    stops_s: tuple[float, ...]
    first_halting: int | None  # how many stopped voters halt it, by its quorums
    outcomes: tuple[Outcome, ...]

    def answer(self) -> list[str]:
        """In words."""
        failed = [line.test for line in self.lines if line.state == "FAIL"]
        n = self.scenario.network.n
        stops = [line for line in self.lines if line.test.startswith("stop ")]
        bears = next((k for k, line in enumerate(stops) if line.found.startswith("halts")), len(stops))
        lines = [
            f"{self.scenario.name} passes all {sum(line.state == 'pass' for line in self.lines)} tests."
            if not failed
            else f"{self.scenario.name} fails {len(failed)}: {'; '.join(failed)}."
        ]
        more = ", and halts with one more" if bears < len(stops) else ""
        lines.append(f"It goes on with {bears} of {n} voters stopped one after the other{more}.")
        return lines


def acceptance(
    path: str | Path,
    *,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    out: str | Path = "results",
    workers: int = 2,
    progress: Progress | None = None,
    announce: Announce = nullcontext,
) -> Sheet:
    """Run the tests on a scenario. Raises ScenarioError."""
    base = load_scenario(Path(path), list(overrides), seed)
    if base.network.n < 2:
        raise ScenarioError(f"{path}: network: one voter cannot be stopped while others go on; give it two or more")
    n, needs = base.network.n, needs_of(base)
    order = list(range(n - 1, -1, -1))  # the first leader last
    halting = next((k for k in range(1, n + 1) if not can_meet(set(range(n)) - set(order[:k]), (), needs)), None)
    last = n if halting is None else halting
    stops_s = tuple(float(_LEAD_S + STEP_S * k) for k in range(last))
    entry = PROTOCOLS.get(base.protocol.name)
    changes = entry is not None and entry.protocol.group_changes != "never" and not base.membership and n > 2
    jobs = [_stopping(path, overrides, seed, order, stops_s)]
    jobs += [_catching_up(path, overrides, seed, base, name, away) for name, away in _AWAY]
    if changes:
        jobs.append(_changing(path, overrides, seed, base))
    study = f"acceptance-{base.name}"
    runs = aggregate(jobs, Path(out), study=study, workers=workers, progress=progress, announce=announce)
    lines = _judge_stops(runs[0], order, stops_s, halting, n)
    for (name, _), run in zip(_AWAY, runs[1:], strict=False):
        lines.append(_judge_catch_up(name, run))
    lines.append(_judge_changes(runs[-1] if changes else None))
    growth = runs[1].metrics["ledger_growth_tb_per_year"]
    lines.append(Line("ledger growth", "measured", "-" if growth is None else f"{growth:.3g} TB a year", "measured"))
    lines.append(Line("query throughput", "not in the model", "reads of one node's state", "not asked"))
    return Sheet(base, tuple(lines), runs[0], stops_s, halting, tuple(runs))


def _job(path: str | Path, overrides: Sequence[str], seed: int | None, words: Sequence[str], label: str) -> Job:
    return Job(Path(path), (*overrides, *words), seed, label)


def _stopping(
    path: str | Path, overrides: Sequence[str], seed: int | None, order: Sequence[int], stops_s: Sequence[float]
) -> Job:
    faults = [f"{{at: {at:g} s, crash: {{nodes: [{node}]}}}}" for at, node in zip(stops_s, order, strict=False)]
    end_s = stops_s[-1] + STEP_S
    words = [f"faults=[{', '.join(faults)}]", f"duration={end_s:g} s", "warm_up=0 s", f"liveness_bound={end_s:g} s"]
    return _job(path, overrides, seed, words, "stop one by one")


def _catching_up(
    path: str | Path, overrides: Sequence[str], seed: int | None, base: Scenario, name: str, away: dict[str, Any]
) -> Job:
    lacks = ", ".join(f"{key}: {value}" for key, value in away.items())
    entry = f"{{node: {base.network.n - 1}, {lacks}, block_interval: 1 s, rate: 19 tx/s, bytes: 1 kB}}"
    duration = "2 min" if name == "10 blocks" else "20 min" if name == "8 h" else "60 min"
    words = ["faults=[]", f"catch_up=[{entry}]", f"duration={duration}", "warm_up=0 s"]
    return _job(path, overrides, seed, words, f"catch up {name}")


def _changing(path: str | Path, overrides: Sequence[str], seed: int | None, base: Scenario) -> Job:
    n, first = base.network.n, getattr(base.protocol.parameters, "first_leader", None)
    comes = n - 1 if first != n - 1 else n - 2  # not who leads at the start
    members = ", ".join(str(node) for node in range(n) if node != comes)
    words = [
        "faults=[]", f"network.members=[{members}]", "duration=60 s", "warm_up=0 s",
        f"membership=[{{at: 10 s, add: [{comes}]}}, {{at: 30 s, remove: [{comes}]}}]",
    ]  # fmt: skip
    return _job(path, overrides, seed, words, "add and remove")


def decisions_in(run: Outcome, begins_s: float, ends_s: float) -> int:
    """New decisions in the second half of a span."""
    times = run.tables["timeline"]
    start, width = (np.asarray(times[name], float) for name in ("start_s", "width_s"))
    inside = (start >= (begins_s + ends_s) / 2) & (start + width <= ends_s)
    return int(np.asarray(times["decisions"])[inside].sum())


def _judge_stops(
    run: Outcome, order: Sequence[int], stops_s: Sequence[float], halting: int | None, n: int
) -> list[Line]:
    lines = []
    unsafe = run.status == "safety violation"
    for k, at in enumerate(stops_s, start=1):
        goes_on = decisions_in(run, at, at + STEP_S) > 0
        promised = halting is None or k < halting
        asked = "goes on" if promised else "halts, nothing lost"
        found = "goes on" if goes_on else "halts"
        state: State = "pass" if goes_on == promised and not unsafe else "FAIL"
        lines.append(Line(f"stop {k} of {n}", asked, found + (", unsafe" if unsafe else ""), state))
    return lines


def _judge_catch_up(name: str, run: Outcome) -> Line:
    took, most = run.metrics["catch_up_s"], _CATCH_UP_MAX_S[name]
    found = "not in this run" if took is None else f"after {time(float(took))}"
    fine = run.status == "ok" and took is not None and float(took) <= most
    return Line(f"restart after {name}", f"caught up in {time(most)} (A)", found, "pass" if fine else "FAIL")


def _judge_changes(run: Outcome | None) -> Line:
    if run is None:
        return Line("add and remove a voter", "live", "the protocol, or this scenario, changes no members", "not asked")
    left_out = [text for text in run.warnings if text.startswith("membership ")]  # requests that were never carried out
    fine = run.status == "ok" and decisions_in(run, 40.0, 60.0) > 0 and not left_out
    found = "both carried out" if fine else left_out[0] if left_out else run.status
    return Line("add and remove a voter", "both, and goes on", found, "pass" if fine else "FAIL")
