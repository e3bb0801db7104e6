"""Known flaws, replayed: each attack is a file of pairs, a flawed variant and its control under one schedule.

An attack file (scenarios/attacks/*.py) names its scenario files, its rule overrides, and what must be seen. It is a
program like a protocol file: it is loaded because a command names its folder, never because a scenario says so.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from sim.protocol import Replica
from sim.scenario.errors import ScenarioError
from sim.scenario.load import load_scenario
from sim.scenario.run import Result, run

FOLDER = Path(__file__).resolve().parents[2] / "scenarios" / "attacks"
NAME = "ATTACK"  # the attribute of a file that holds its attack


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a run showed, in words, and whether that is what was expected."""

    as_expected: bool
    text: str


Look = Callable[[Result], Seen]


@dataclasses.dataclass(frozen=True)
class Play:
    """One side of a pair: a scenario file beside the attack file, overrides, a replaced class, and what to look for."""

    scenario: str
    look: Look
    sets: tuple[str, ...] = ()
    protocol: type[Replica] | None = None


@dataclasses.dataclass(frozen=True)
class Pair:
    """A flawed variant and its control (None: the control is that of another pair)."""

    name: str
    flawed: Play
    control: Play | None = None


@dataclasses.dataclass(frozen=True)
class Attack:
    """A published flaw: where it is from, what must be seen, and the pairs that show it."""

    id: str
    title: str
    source: str
    expected: str
    control: str
    pairs: tuple[Pair, ...]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A pair as played."""

    attack: str
    pair: str
    seen: Seen
    control: Seen | None

    @property
    def as_expected(self) -> bool:
        """Whether both sides were as the source says."""
        return self.seen.as_expected and (self.control is None or self.control.as_expected)


def load_attacks(folder: Path = FOLDER, ids: Sequence[str] = ()) -> list[tuple[Path, Attack]]:
    """The attacks of a folder, in the order of their ids. Raises ScenarioError."""
    if not folder.is_dir():
        raise ScenarioError(f"{folder}: no such folder; name one with attack files: --folder scenarios/attacks")
    found = []
    for file in sorted(folder.glob("*.py")):
        attack = getattr(_module(file), NAME, None)
        if not isinstance(attack, Attack):
            raise ScenarioError(f"{file}: has no {NAME} of class sim.plan.attacks.Attack; add it, or move the file")
        found.append((file, attack))
    known = [attack.id for _, attack in found]
    for id_ in ids:
        if id_.upper() not in known:
            raise ScenarioError(f"{id_}: no such attack in {folder}; there are {', '.join(known) or 'none'}")
    wanted = {id_.upper() for id_ in ids}
    return sorted(
        ((file, attack) for file, attack in found if not wanted or attack.id in wanted), key=lambda pair: pair[1].id
    )


def _module(file: Path) -> ModuleType:
    name = f"attack_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ScenarioError(f"{file}: {type(error).__name__}: {error}; mend the file") from error
    return module


def play(file: Path, side: Play) -> Result:
    """Run one side of a pair; nothing is stored."""
    scenario = load_scenario(file.parent / side.scenario, side.sets)
    return run(scenario, protocol=side.protocol)


def play_all(attacks: Sequence[tuple[Path, Attack]]) -> Iterator[tuple[Attack, Outcome, float]]:
    """Every pair of every attack with its outcome and the seconds it took."""
    for file, attack in attacks:
        for pair in attack.pairs:
            begun = time.perf_counter()
            seen = pair.flawed.look(play(file, pair.flawed))
            control = None if pair.control is None else pair.control.look(play(file, pair.control))
            yield attack, Outcome(attack.id, pair.name, seen, control), time.perf_counter() - begun


# --- what to look for ------------------------------------------------------------------------------------------


def forks(result: Result) -> Seen:
    """Two final blocks at one height, reported with both certificates."""
    found = [violation for violation in result.violations if violation.check == "agreement"]
    if not found:
        return Seen(False, f"agreement {result.checks['agreement']}")
    first = found[0]
    proven = len(first.certificates) == 2
    guilty = ", ".join(map(str, first.culprits)) or "nobody"
    return Seen(proven, f"two final blocks at {first.evidence.split(':')[0]}; signed both: {guilty}")


def agrees(result: Result) -> Seen:
    """No safety violation, and something was decided."""
    broken = [violation for violation in result.violations if violation.kind == "safety"]
    if broken:
        return Seen(False, broken[0].evidence)
    decisions = int(result.metrics["decisions"] or 0)
    return Seen(decisions > 0, f"agreement holds, {decisions} decisions")


def halts(result: Result) -> Seen:
    """Nothing moves any more: no view, no proposal, no decision."""
    found = [violation for violation in result.violations if violation.check == "halt"]
    if not found:
        return Seen(False, f"liveness {result.checks['liveness']}, halt {result.checks['halt']}")
    return Seen(result.checks["agreement"] == "pass", found[0].evidence.rpartition("; ")[2])


def livelocks(result: Result) -> Seen:
    """Nothing is decided any more, and that is told from slowness."""
    found = [violation for violation in result.violations if violation.check == "livelock"]
    if not found:
        return Seen(False, f"liveness {result.checks['liveness']}, livelock {result.checks['livelock']}")
    return Seen(result.checks["agreement"] == "pass", f"livelock: {found[0].evidence.rpartition('; ')[2]}")


def goes_on(within_s: float, after_s: float = 0.0) -> Look:
    """Safe, and the first decision after `after_s` comes within a bound."""

    def look(result: Result) -> Seen:
        safe = agrees(result)
        first_ns = np.asarray(result.tables["blocks"]["first_ns"])
        later = first_ns[first_ns >= after_s * 1e9]
        if not safe.as_expected or not len(later):
            return Seen(False, safe.text if not safe.as_expected else f"nothing decided after {after_s:g} s")
        wait_s = float(later.min()) / 1e9 - after_s
        return Seen(wait_s <= within_s, f"decides {wait_s:.3f} s after {after_s:g} s")

    return look


def metric(name: str, low: float, high: float, unit: str = "") -> Look:
    """Safe, and a metric lies in [low, high]."""

    def look(result: Result) -> Seen:
        safe = agrees(result)
        value = float(result.metrics[name] or 0.0)
        text = f"{name} {value:,.4g}{unit}"
        return Seen(safe.as_expected and low <= value <= high, text if safe.as_expected else safe.text)

    return look


def both(*looks: Look) -> Look:
    """All of several."""

    def look(result: Result) -> Seen:
        seen = [one(result) for one in looks]
        return Seen(all(one.as_expected for one in seen), "; ".join(one.text for one in seen))

    return look
