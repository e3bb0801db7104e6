"""Hunts on what is known to be broken, and on what is not: how good a hunt is, in one table.

Every seeded bug, two published flaws (D2 and D5 of scenarios/attacks), and every protocol as it is. A find counts if
the sound protocol keeps its promise under the same schedule. Timers are quick beside links of 10 ms, as in trials.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from sim.adversary.mutants import MUTANTS, Mutant
from sim.adversary.mutants.hotstuff_2 import WithoutWait
from sim.plan.hunt import hunt
from sim.plan.mutation import home
from sim.plan.trials import quick
from sim.protocol import Replica
from sim.protocols import PROTOCOLS
from sim.protocols.ibft import Ibft
from sim.scenario.errors import ScenarioError

SCENARIOS = Path(__file__).resolve().parents[2] / "scenarios" / "protocols"
PAUSE_S = 3.0  # longer without a decision once the trouble is over: a bug of liveness
_JITTER = ("network.latency.one_way=20 ms", 'network.jitter={"model": "uniform", "plus_minus": "15 ms"}')


@dataclasses.dataclass(frozen=True)
class Target:
    """What is hunted: a name, what is wrong with it ("": nothing known), a protocol, and the class in its place."""

    name: str
    bug: str
    protocol: str
    voters: int
    replica: type[Replica] | None = None
    pause_s: float | None = None
    corrupted: int | None = None
    sets: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class HuntResult:
    """How a hunt on it ended: `what` broke (None: nothing) in which schedule, or the bound if nothing did."""

    name: str
    bug: str
    protocol: str
    voters: int
    corrupted: int
    what: str | None
    evidence: str
    schedules: int
    source: str  # of the schedule: no trouble, enumerated, drawn
    share_below: float | None
    wall_s: float


def targets(names: Sequence[str] = ()) -> list[Target]:
    """Those of these names, all if none is given. Raises ScenarioError."""
    found = [
        Target(mutant.name, mutant.bug, home(mutant)[0], _voters(mutant), mutant.protocol, PAUSE_S)
        for mutant in MUTANTS
    ]
    ibft = _name_of(Ibft)
    found.append(Target("d2-equivocation", "D2 (a): IBFT v1, quorum 2F + 1", ibft, 5))
    found.append(Target("d2-partition", "D2 (b): IBFT v1, quorum 2F + 1", ibft, 6, corrupted=0))
    slow = (*_JITTER, "protocol.view_timeout_max=200 ms", "protocol.delta=40 ms")
    hidden = "D5: two-phase HotStuff without Delta, an honest view fails"
    found.append(Target("d5-hidden-lock", hidden, _name_of(WithoutWait), 4, WithoutWait, 0.45, sets=slow))
    found += [Target(name, "", name, 4) for name in PROTOCOLS]
    known = {target.name: target for target in found}
    for name in names:
        if name not in known:
            raise ScenarioError(f"{name}: nothing of that name to hunt; there are {', '.join(known)}")
    return [known[name] for name in names] if names else found


def _name_of(replica: type[Replica]) -> str:
    return next(name for name, entry in PROTOCOLS.items() if issubclass(replica, entry.protocol))


def _voters(mutant: Mutant) -> int:
    """3f + 1 = 4 where lies are tolerated, else 2f + 1 = 5; the greatest it can show at if it cannot there."""
    usual = 4 if home(mutant)[1].tolerates_lies else 5
    return usual if usual in mutant.voters else mutant.voters[-1]


def hunt_all(chosen: Sequence[Target], schedules: int) -> Iterator[HuntResult]:
    """Hunt each with at most so many schedules, half of them enumerated."""
    for target in chosen:
        entry = PROTOCOLS[target.protocol]
        sets = [f"network.nodes={target.voters}", *quick(entry), *target.sets]
        with tempfile.TemporaryDirectory() as folder:
            found = hunt(
                SCENARIOS / target.protocol / "baseline.yaml",
                budget_s=math.inf,
                overrides=sets,
                replica=target.replica,
                corrupted=target.corrupted,
                pause_s=target.pause_s,
                most=schedules,
                unlike=None if target.replica is None else entry.protocol,
                shrink=False,
                out=folder,
            )
        catch = found.catch
        calm = catch is not None and not any(catch.patch.values())
        yield HuntResult(
            target.name, target.bug, target.protocol, target.voters, found.limits.corrupted,
            None if catch is None else catch.what, "" if catch is None else catch.evidence,
            found.tried if found.first is None else found.first,
            "" if catch is None else "no trouble" if calm else "drawn" if found.drawn else "enumerated",
            None if found.bound is None else found.bound.high, found.wall_s,
        )  # fmt: skip


def tables(bags: Sequence[HuntResult], schedules: int) -> str:
    """The finds, and what was not found, as two Markdown tables."""
    broken = [bag for bag in bags if bag.bug]
    sound = [bag for bag in bags if not bag.bug]
    finds = sum(bag.what is not None for bag in broken)
    lines = ["| hunted | what is wrong | found | schedules | source | voters | corrupted at most |", "|" + "---|" * 7]
    for bag in broken:
        lines.append(
            f"| `{bag.name}` | {bag.bug} | {bag.what or '**nothing**'} | {bag.schedules} | {bag.source} | {bag.voters} "
            f"| {bag.corrupted} |"
        )
    lines += ["", f"{finds} of {len(broken)} found, with at most {schedules} schedules each.", ""]
    lines += ["| protocol as it is | found | schedules | share that breaks it, below (95 %) | corrupted at most |"]
    lines += ["|" + "---|" * 5]
    for bag in sound:
        bound = "" if bag.share_below is None else f"{bag.share_below:.2%}"
        lines.append(f"| `{bag.name}` | {bag.what or 'nothing'} | {bag.schedules} | {bound} | {bag.corrupted} |")
    return "\n".join(lines) + "\n"
