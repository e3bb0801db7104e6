"""The mutation score: every seeded bug meets one trial after another until something catches it.

A mutant is caught if a check of its run fails, or it stops with an error, in a trial that the sound protocol passes.
In the calm trial it is also caught if it sends another number of messages per decision than the sound protocol, or
changes views where that does not.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

from sim.adversary.mutants import MUTANTS, Mutant
from sim.host import ProtocolError
from sim.plan.trials import CALM, SCRIPTS, trial
from sim.protocol import Replica
from sim.protocols import PROTOCOLS, Entry
from sim.scenario.errors import ScenarioError
from sim.scenario.run import Result, run
from sim.scenario.schema import Scenario

_SAME = 0.01  # relative difference of messages per decision that is no difference


@dataclasses.dataclass(frozen=True)
class Score:
    """One mutant's fate. `caught_by`: the check, None if it survived; `seeds`: trials it took, or survived."""

    name: str
    bug: str
    protocol: str
    caught_by: str | None
    evidence: str
    seeds: int
    voters: int | None
    wall_s: float


def mutants(names: Sequence[str] = ()) -> list[Mutant]:
    """The mutants of these names, all if none is given. Raises ScenarioError."""
    known = {mutant.name: mutant for mutant in MUTANTS}
    for name in names:
        if name not in known:
            raise ScenarioError(f"{name}: no such mutant; there are {', '.join(known)}")
    return [known[name] for name in names] if names else list(MUTANTS)


def home(mutant: Mutant) -> tuple[str, Entry]:
    """The protocol a mutant is one of."""
    return next((name, entry) for name, entry in PROTOCOLS.items() if issubclass(mutant.protocol, entry.protocol))


def score_all(chosen: Sequence[Mutant], budget: int) -> Iterator[Score]:
    """Try each with at most `budget` trials."""
    for mutant in chosen:
        yield score(mutant, budget)


def score(mutant: Mutant, budget: int) -> Score:
    """Trials 0, 1, 2, ...: each of the scripted ones with every number of voters, drawn ones with one in turn."""
    begun = time.perf_counter()
    name, entry = home(mutant)
    tried = 0
    for number, n in _numbers(mutant.voters):
        if tried == budget:
            break
        tried += 1
        scenario = trial(number, name, entry, n, PROTOCOLS)
        found = _caught(scenario, mutant.protocol, calm=number == CALM)
        if found is not None:
            wall_s = time.perf_counter() - begun
            return Score(mutant.name, mutant.bug, name, found[0], found[1], tried, n, wall_s)
    return Score(mutant.name, mutant.bug, name, None, "", tried, None, time.perf_counter() - begun)


def _numbers(voters: Sequence[int]) -> Iterator[tuple[int, int]]:
    for number in range(len(SCRIPTS)):
        for n in voters:
            yield number, n
    number = len(SCRIPTS)
    while True:
        yield number, voters[number % len(voters)]
        number += 1


def _caught(scenario: Scenario, protocol: type[Replica], *, calm: bool) -> tuple[str, str] | None:
    """By which check, and the evidence; the sound protocol must pass the same trial."""
    found, result = _symptom(scenario, protocol)
    if found is None and not calm:
        return None
    sound = run(scenario)
    if sound.status != "ok":
        return None  # the trial asks too much
    return found if found is not None or result is None else _unlike(result, sound)


def _symptom(scenario: Scenario, protocol: type[Replica]) -> tuple[tuple[str, str] | None, Result | None]:
    """What is wrong with a mutant's run, and the run."""
    try:
        result = run(scenario, protocol=protocol)
    except ProtocolError as error:
        return ("protocol error", str(error)), None
    except Exception as error:  # a bug may break the protocol's own code
        return ("error", f"{type(error).__name__}: {error}"), None
    if result.violations:
        first = result.violations[0]
        return (first.check, first.evidence), result
    if result.status == "truncated":
        return ("never ends", result.warnings[-1]), result
    return None, result


def _unlike(result: Result, sound: Result) -> tuple[str, str] | None:
    """What differs from the sound protocol where nothing is wrong."""
    mine, theirs = (_number(one, "messages_per_decision") for one in (result, sound))
    if abs(mine - theirs) > _SAME * theirs:
        return "messages per decision", f"{mine:.2f} without any trouble, and {theirs:.2f} of the sound protocol"
    mine, theirs = (_number(one, "view_changes") for one in (result, sound))
    if mine > theirs:
        return "view changes", f"{mine:.0f} without any trouble, and {theirs:.0f} of the sound protocol"
    return None


def _number(result: Result, name: str) -> float:
    value: Any = result.metrics.get(name)
    return float(value or 0.0)


def table(scores: Sequence[Score], budget: int) -> str:
    """The scores as a Markdown table, survivors named below."""
    lines = ["| mutant | bug | caught by | voters | seeds |", "|---|---|---|---|---|"]
    for one in scores:
        fate = one.caught_by or "**survived**"
        lines.append(f"| `{one.name}` | {one.bug} | {fate} | {one.voters or ''} | {one.seeds} |")
    survivors = [one for one in scores if one.caught_by is None]
    caught = len(scores) - len(survivors)
    lines += ["", f"{caught} of {len(scores)} caught, with at most {budget} seeds each."]
    if survivors:
        lines.append("Survivors: " + ", ".join(f"`{one.name}` ({one.seeds} seeds)" for one in survivors) + ".")
    else:
        lines.append("No survivor.")
    return "\n".join(lines) + "\n"
