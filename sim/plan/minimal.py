"""The fewest voters that keep an objective and survive a list of losses.

Numbers of voters are tried upwards. For each, voters are placed so that no loss of the list takes a blocking share
(`sim.plan.placement`); the best placement's calm run must meet the objective; then each loss is played, and the network
must go on deciding while it lasts. The first number for which all of that holds is the answer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from sim.network.sites import site_problem, sites, suggestion
from sim.plan.contingency import AT_S, OUTAGE_NS
from sim.plan.objective import Objective, parse
from sim.plan.placement import NoPlacementError, Placements, domains_of, placement
from sim.protocols import PROTOCOLS
from sim.report.compare import Announce, Job, Progress, aggregate
from sim.report.outcome import Outcome
from sim.report.verdicts import verdict
from sim.scenario.errors import ScenarioError
from sim.scenario.load import load_scenario
from sim.units import format_ns

MOST = 22
_FINALISTS = 3


@dataclasses.dataclass(frozen=True)
class Tried:
    """One number of voters: its best placement, or none, and what was not met ("" if all was)."""

    voters: int
    found: Placements | None
    why: str
    losses: tuple[tuple[str, Outcome], ...] = ()


@dataclasses.dataclass(frozen=True)
class Minimal:
    """The answer: every number tried, in order; the last one meets all if any does."""

    objective: Objective
    survive: tuple[str, ...]
    tried: tuple[Tried, ...]

    @property
    def met(self) -> Tried | None:
        """The number that meets all."""
        last = self.tried[-1] if self.tried else None
        return last if last is not None and not last.why else None

    def answer(self) -> list[str]:
        """In words."""
        asked = f"{self.objective.text} and survive {', '.join(self.survive)}"
        if self.met is not None and self.met.found is not None:
            best = self.met.found.best
            where = f"{' '.join(best.places)}, p99 {best.p99_ms:,.1f} ms"
            lines = [f"{self.met.voters} voters are the fewest that keep {asked}: {where}."]
            if self.met.losses:
                lines.append(f"{len(self.met.losses)} losses were played, and it went on deciding in each.")
        else:
            lines = [f"No number of voters up to {self.tried[-1].voters} keeps {asked}."]
            reached = [one.found.best for one in self.tried if one.found is not None]
            if reached:
                best = min(reached, key=lambda one: one.p99_ms)
                where = f"{' '.join(best.places)}, p99 {best.p99_ms:,.1f} ms"
                lines.append(f"The best reached has {len(best.places)} voters: {where}.")
        return lines


def losses_of(
    texts: Sequence[str], places: Sequence[str], organisations: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Sites that each loss takes. A text is "domain N", "site HAK", "organisation bank", or several joined by "+"."""
    domains = {name.partition(" ")[2]: codes for name, codes in domains_of(places).items()}
    found: dict[str, list[str]] = {}
    for text in texts:
        taken: list[str] = []
        for part in text.split("+"):
            kind, _, name = part.strip().partition(" ")
            if kind == "domain" and name in domains:
                taken += domains[name]
            elif kind == "site" and site_problem(name) is None:
                taken.append(name)
            elif kind == "organisation" and name in organisations:
                taken += organisations[name]
            else:
                known = {"domain": domains, "site": sites(), "organisation": organisations}.get(kind)
                remedy = "write domain N, site HAK or organisation bank" if known is None else suggestion(name, known)
                raise ScenarioError(f"--survive {text!r}: {part.strip()!r} is no loss; {remedy}")
        found[text] = list(dict.fromkeys(taken))
    return found


def minimal(
    path: str | Path,
    objective: str,
    *,
    survive: Sequence[str] = (),
    candidates: Sequence[str] | None = None,
    organisations: Mapping[str, Sequence[str]] | None = None,
    liars: int = 1,
    most: int = MOST,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    out: str | Path = "results",
    workers: int = 2,
    progress: Progress | None = None,
    announce: Announce = nullcontext,
) -> Minimal:
    """Try ever more voters of a scenario over candidate sites. `survive`: losses, default each fault domain.

    `liars`: lying voters that must be tolerated besides, by protocols that tolerate any. Raises ScenarioError.
    """
    asked = parse(objective)
    if liars < 0:
        raise ScenarioError(f"{path}: liars {liars}: a number of voters; write 0 or more")
    least = 3 * liars + 1 if PROTOCOLS[load_scenario(Path(path), list(overrides)).protocol.name].tolerates_lies else 1
    places = tuple(candidates or [site.code for site in sites().values() if site.jurisdiction == "mainland"])
    owners = organisations or {}
    losses = losses_of(survive, places, owners) if survive else domains_of(places)
    tried: list[Tried] = []
    for n in range(least, min(most, len(places)) + 1):
        try:
            found = placement(
                path, n, candidates=places, organisations=owners, losses=losses, finalists=_FINALISTS,
                overrides=overrides, seed=seed, out=out, workers=workers, progress=progress, announce=announce,
            )  # fmt: skip
        except NoPlacementError:
            tried.append(Tried(n, None, "wherever they stand, some loss takes a blocking share"))
            continue
        best = found.best
        assert best.outcome is not None
        values = asked.values(best.outcome.metrics)
        missed = [
            condition.text
            for condition, value in zip(asked.conditions, values, strict=True)
            if not (value < condition.bound if condition.side == "<" else value > condition.bound)
        ]
        if best.outcome.status != "ok" or missed:
            tried.append(Tried(n, found, f"{' and '.join(missed) or best.outcome.status} does not hold"))
            continue
        played = _play(path, found, losses, overrides, seed, out, workers, progress)
        halted = [name for name, run in played if verdict(run) not in ("goes on", "slows")]
        tried.append(Tried(n, found, f"{', '.join(halted)} halts it" if halted else "", tuple(played)))
        if not halted:
            break
    if not tried:
        raise ScenarioError(
            f"{path}: {liars} liars ask for {least} voters, and at most {min(most, len(places))} may be placed; "
            "raise --most, or name more sites (--candidates)"
        )
    return Minimal(asked, tuple(losses), tuple(tried))


def _play(
    path: str | Path, found: Placements, losses: Mapping[str, Sequence[str]], overrides: Sequence[str],
    seed: int | None, out: str | Path, workers: int, progress: Progress | None,
) -> list[tuple[str, Outcome]]:  # fmt: skip
    """A run of the best placement for each loss that takes a voter of it."""
    best = found.best
    taken = {name: [k for k, place in enumerate(best.places) if place in codes] for name, codes in losses.items()}
    taken = {name: nodes for name, nodes in taken.items() if nodes}
    jobs = []
    for name, nodes in taken.items():
        fault = f"{{at: {AT_S} s, for: {format_ns(OUTAGE_NS)}, crash: {{nodes: {nodes}}}}}"
        words = [f"network.sites=[{', '.join(best.places)}]", f"faults=[{fault}]", "duration=60 s", "warm_up=5 s"]
        jobs.append(Job(Path(path), (*overrides, *words, "liveness_bound=20 s"), seed, name))
    runs = aggregate(jobs, Path(out), study=f"minimal-{found.scenario.name}", workers=workers, progress=progress)
    return list(zip(taken, runs, strict=True))
