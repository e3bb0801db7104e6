"""Search for a schedule that makes a protocol break its promises, and shrink it to what matters.

Half of the budget goes to enumerated schedules, half to drawn ones (`sim.plan.schedules`). Every schedule is one short
run of the scenario. A run that violates safety, or, if a pause is given, decides nothing for longer than that after
the trouble is over, ends the hunt: Hypothesis shrinks a drawn schedule, an enumerated one is shrunk by leaving parts
out. What is left is written as a scenario file that replays it. If nothing is found, the number of schedules tried
bounds how often such a schedule occurs among those like them, and nothing more.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import HypothesisException

from sim.measure.statistics import Interval, rule_of_three
from sim.plan.schedules import QUIET_S, Limits, Patch, drawn, enumerated
from sim.protocol import Replica
from sim.protocols import PROTOCOLS, own
from sim.scenario.build import build
from sim.scenario.errors import ScenarioError
from sim.scenario.load import load_scenario
from sim.scenario.run import run
from sim.scenario.schema import Scenario

_CHUNK = 40  # drawn schedules between two looks at the clock
_TAIL_S = 4.0  # simulated time after the trouble
_SHRINK_S = 60.0  # wall-clock time for shrinking, at the most


@dataclasses.dataclass(frozen=True)
class Counterexample:
    """A schedule that breaks a promise: `what` was broken, the evidence, the patch, and the file that replays it."""

    what: str
    evidence: str
    patch: Patch
    file: Path


@dataclasses.dataclass(frozen=True)
class Hunt:
    """How a hunt ended. `bound`: of the share of such schedules that break a promise, if none did.

    Schedules run while a find was shrunk are counted too; `first` is the number of the first that broke a promise.
    """

    enumerated: int
    drawn: int
    refused: int
    limits: Limits
    catch: Counterexample | None
    bound: Interval | None
    wall_s: float
    first: int | None = None

    @property
    def tried(self) -> int:
        """Schedules that ran."""
        return self.enumerated + self.drawn


class _BrokenError(Exception):
    """Raised inside Hypothesis for a schedule that breaks a promise."""


class Trial:
    """Runs schedules on one scenario and remembers what they did."""

    def __init__(
        self,
        path: Path,
        overrides: Sequence[str],
        seed: int | None,
        replica: type[Replica] | None,
        pause_s: float | None,
        folder: Path,
        unlike: type[Replica] | None = None,
    ) -> None:
        self.path, self.replica, self.pause_s, self.folder, self.unlike = path, replica, pause_s, folder, unlike
        self.protocols = PROTOCOLS
        if replica is not None and not any(issubclass(replica, entry.protocol) for entry in PROTOCOLS.values()):
            name, entry = own(replica)
            self.protocols = PROTOCOLS | {name: entry}
        short = [f"duration={QUIET_S + _TAIL_S:g} s", "warm_up=0 s", "stop_after_decisions=null", "trace=blocks"]
        self.overrides = [*overrides, *short, "faults=[]"]
        self.seed = seed
        self.base = load_scenario(path, self.overrides, seed, protocols=self.protocols)
        self.tried = 0
        self.refused = 0
        self.first: int | None = None
        self.known: dict[str, tuple[str, str] | None] = {}

    def limits(self, corrupted: int | None) -> Limits:
        """Message types of the protocol, and f unless `corrupted` says otherwise: none where lies are not tolerated."""
        world = build(self.base, protocol=self.replica)
        cls = world.run.protocol
        n = self.base.network.n
        quorums = [quorum.votes for vote, quorum in world.run.quorums.items() if vote.decides]
        lies = self.protocols[self.base.protocol.name].tolerates_lies
        tolerated = max(min(n - max(quorums, default=n), (n - 1) // 3), 0) if lies else 0
        return Limits(
            n,
            tolerated if corrupted is None else corrupted,
            tuple(message.__name__ for message in (*cls.messages, *cls.later_messages)),
            tuple(vote.name for vote in cls.votes),
            tuple(case.upon.__name__ for case in world.run.normal_cases[1:]),
        )

    def outcome(self, patch: Patch) -> tuple[str, str] | None:
        """What a schedule breaks, and the evidence; None if nothing, or if the schedule cannot be."""
        key = json.dumps(patch, sort_keys=True)
        if key not in self.known:
            self.known[key] = self._run(patch)
        return self.known[key]

    def _run(self, patch: Patch) -> tuple[str, str] | None:
        try:
            scenario = self.scenario(patch)
        except ScenarioError:  # for example a rule that can never match
            self.refused += 1
            return None
        self.tried += 1
        broken = self._broken(scenario, self.replica)
        if broken is not None and self.unlike is not None and self._broken(scenario, self.unlike) is not None:
            return None  # that one breaks it too: too much is asked
        if broken is not None and self.first is None:
            self.first = self.tried
        return broken

    def _broken(self, scenario: Scenario, replica: type[Replica] | None) -> tuple[str, str] | None:
        """What a protocol breaks in a scenario."""
        try:
            result = run(scenario, protocol=replica)
        except Exception as error:  # a variant's own code may break
            return "error", f"{type(error).__name__}: {error}"
        broken = [violation for violation in result.violations if violation.kind == "safety"]
        if broken:
            return broken[0].check, broken[0].evidence
        pause = self._pause_s(result.tables["blocks"], scenario) if self.pause_s is not None else 0.0
        if self.pause_s is not None and pause > self.pause_s:
            return "progress", f"nothing was decided for {pause:.3f} s after {QUIET_S:g} s, when the trouble was over"
        return None

    def _pause_s(self, blocks: dict[str, Any], scenario: Scenario) -> float:
        """The longest time without a decision after the trouble was over, s."""
        times = sorted(int(t) / 1e9 for t in blocks["first_ns"] if t >= 0)
        marks = [QUIET_S, *(t for t in times if t > QUIET_S), scenario.duration_ns / 1e9]
        return max(b - a for a, b in itertools.pairwise(marks))

    def scenario(self, patch: Patch) -> Scenario:
        """The scenario with a schedule laid over it."""
        more = [f"{section}={json.dumps(entries)}" for section, entries in patch.items() if entries]
        return load_scenario(self.path, [*self.overrides, *more], self.seed, protocols=self.protocols)

    def catch(self, patch: Patch) -> Counterexample:
        """A schedule that breaks something, written down."""
        found = self.outcome(patch)
        assert found is not None
        what, evidence = found
        return Counterexample(what, evidence, patch, self._write(patch, f"{self.base.name}-{what.replace(' ', '-')}"))

    def _write(self, patch: Patch, name: str) -> Path:
        """A scenario file that replays a schedule: the hunted scenario, what was set, and the schedule."""
        from ruamel.yaml import YAML

        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{name}.yaml"
        data: dict[str, Any] = {"extends": os.path.relpath(self.path, self.folder), "seed": self.base.seed}
        for override in self.overrides:
            keys, _, value = override.partition("=")
            _lay(data, keys.strip().split("."), YAML(typ="safe").load(value))
        data |= copy.deepcopy(patch)
        writer = YAML()
        writer.width, writer.default_flow_style = 120, None
        with file.open("w", encoding="utf-8") as stream:
            stream.write(f"# Found by a hunt on {self.path.name}; the command printed with it replays it.\n")
            writer.dump(data, stream)
        return file


def _lay(data: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    """Set a value in nested mappings."""
    for key in keys[:-1]:
        data = data.setdefault(key, {})
    data[keys[-1]] = value


def hunt(
    path: str | os.PathLike[str],
    *,
    budget_s: float,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    replica: type[Replica] | None = None,
    corrupted: int | None = None,
    pause_s: float | None = None,
    most: int | None = None,
    unlike: type[Replica] | None = None,
    shrink: bool = True,
    out: str | os.PathLike[str] = "results",
    tell: Callable[[int], None] | None = None,
) -> Hunt:
    """Try schedules until one breaks a promise, `budget_s` wall-clock seconds are over, or `most` were tried.

    `corrupted`: nodes that may misbehave (default: as many as the quorums tolerate). `unlike`: what this protocol
    breaks too does not count. Raises ScenarioError.
    """
    started = time.monotonic()
    trial = Trial(Path(path), overrides, seed, replica, pause_s, Path(out) / "hunt", unlike)
    limits = trial.limits(corrupted)
    if trial.outcome({}) is not None:  # it needs no trouble to break
        return Hunt(0, 1, 0, limits, trial.catch({}), None, time.monotonic() - started, 1)
    trial.tried = 0

    def over(share: float) -> bool:
        if tell is not None:
            tell(trial.tried)
        full = most is not None and trial.tried >= most * share
        return full or time.monotonic() - started >= budget_s * share

    patch: Patch | None = None
    for candidate in enumerated(limits, trial.base.seed):
        if over(0.5):
            break
        if trial.outcome(candidate) is not None:
            patch = _without(trial, candidate) if shrink else candidate
            break
    listed = trial.tried
    if patch is None:
        patch = _search(trial, limits, over, shrink=shrink)
    catch = None if patch is None else trial.catch(patch)
    bound = rule_of_three(trial.tried) if catch is None and trial.tried else None
    wall_s = time.monotonic() - started
    return Hunt(listed, trial.tried - listed, trial.refused, limits, catch, bound, wall_s, trial.first)


def _without(trial: Trial, patch: Patch) -> Patch:
    """Leave out one entry after the other as long as the promise stays broken."""
    smaller = copy.deepcopy(patch)
    until = time.monotonic() + _SHRINK_S
    for section in list(smaller):
        for i in reversed(range(len(smaller[section]))):
            if time.monotonic() > until:
                return smaller
            candidate = copy.deepcopy(smaller)
            del candidate[section][i]
            if trial.outcome(candidate) is not None:
                smaller = candidate
    return {section: entries for section, entries in smaller.items() if entries}


def _search(trial: Trial, limits: Limits, over: Callable[[float], bool], *, shrink: bool) -> Patch | None:
    """Draw schedules, a chunk at a time; Hypothesis shrinks the first that breaks a promise."""
    caught: list[Patch] = []
    deadline: list[float] = []

    def attempt(patch: Patch) -> None:
        if not caught and over(1.0):
            return
        key = json.dumps(patch, sort_keys=True)
        if deadline and time.monotonic() > deadline[0] and key not in trial.known:
            return  # shrinking has had its time
        if trial.outcome(patch) is not None:
            caught[:] = [patch]
            deadline[:] = deadline or [time.monotonic() + _SHRINK_S]
            raise _BrokenError

    number = trial.base.seed
    while not over(1.0):
        number += 1
        test = seeded(number)(
            settings(
                max_examples=_CHUNK,
                deadline=None,
                database=None,
                phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
                suppress_health_check=list(HealthCheck),
                verbosity=Verbosity.quiet,
                report_multiple_bugs=False,
            )(given(drawn(limits))(attempt))
        )
        try:
            test()
        except (_BrokenError, HypothesisException):
            if caught:
                return _without(trial, caught[0]) if shrink else caught[0]
    return None
