"""Where voters should stand: nobody may hold a blocking share, and clients should wait as little as possible.

A *blocking share* is as many voters as halt the network when they are lost together: one more than n less the quorum.
No fault domain, and no organisation that is named, may hold one. Of the placements left, a screen estimates what
clients wait: the way to the nearest voter, on to the leader, the proposal, each vote that the protocol declares as an
order statistic over the quorum's round trips, and the answer. It knows neither queues nor processors nor blocks that
must follow; so the best of it are simulated, and the simulated p99 decides.

Spaces of up to `EXACT_MAX` placements are looked at whole. Above that the screen climbs: from feasible placements drawn
at random it exchanges one place at a time for as long as that helps, and what it finds is called the best found.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.kernel import chance
from sim.network.latency import one_way_matrix_ns
from sim.network.sites import site_problem, sites
from sim.plan.contingency import halting, needs_of
from sim.protocol import NormalCase
from sim.report.compare import Announce, Job, Progress, aggregate
from sim.report.outcome import Outcome
from sim.scenario.build import build
from sim.scenario.errors import ScenarioError
from sim.scenario.load import load_scenario
from sim.scenario.schema import Scenario

EXACT_MAX = 200_000
FINALISTS = 5
NEAR = 1.02  # p99s that differ by less are told apart by nothing here
_STARTS = 20  # of the climb
_CELLS = 4_000_000  # of one array of the screen
_DRAW = 17

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class NoPlacementError(ScenarioError):
    """However voters are placed, some event or party holds a blocking share."""


@dataclasses.dataclass(frozen=True)
class Placement:
    """Voters at places, the first leader's first; what the screen says of it, and its run, if it was simulated."""

    places: tuple[str, ...]
    estimate_ms: float
    outcome: Outcome | None = None

    @property
    def p99_ms(self) -> float:
        """Simulated; infinite where nothing was answered or the run did not end well."""
        if self.outcome is None or self.outcome.status != "ok" or self.outcome.metrics["latency_p99_ms"] is None:
            return math.inf
        return float(self.outcome.metrics["latency_p99_ms"])

    def per_domain(self) -> dict[str, int]:
        """Voters in each fault domain, most first."""
        counts: dict[str, int] = {}
        for place in self.places:
            counts[sites()[place].domain] = counts.get(sites()[place].domain, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


@dataclasses.dataclass(frozen=True)
class Placements:
    """The answer: finalists, the best first, beside the scenario's own places if it has as many voters."""

    scenario: Scenario
    voters: int
    candidates: tuple[str, ...]
    quorum: int
    space: int  # placements there are
    feasible: int | None  # that leave nobody a blocking share; None: not all were looked at
    finalists: tuple[Placement, ...]
    own: Placement | None
    own_halted_by: tuple[str, ...]

    @property
    def blocking(self) -> int:
        """So many voters lost together halt it."""
        return self.voters - self.quorum + 1

    @property
    def best(self) -> Placement:
        """The finalist with the least simulated p99."""
        return self.finalists[0]

    def answer(self) -> list[str]:
        """In words."""
        best = self.best
        blocks = f"{self.blocking} of them in one domain or hand, whose loss would halt it"
        looked = f"Of {self.space:,} ways to place {self.voters} voters, {self.feasible or 0:,} have no {blocks}."
        if self.feasible is None:
            looked = f"Of {self.space:,} ways to place {self.voters} voters, too many to look at all, "
            looked += f"only such were tried that have no {blocks}."
        found = f"{' '.join(best.places)} has the least p99 of the {len(self.finalists)} simulated"
        lines = [f"{found}: {best.p99_ms:,.1f} ms.", looked]
        near = [one for one in self.finalists[1:] if one.p99_ms <= NEAR * best.p99_ms]
        if near:
            others = "1 other" if len(near) == 1 else f"{len(near)} others"
            lines.append(f"Within {NEAR - 1:.0%} of that: {others}, which one run each does not tell apart.")
        if self.own is not None and self.own.outcome is not None:
            halted = (
                f"losing {' or '.join(self.own_halted_by)} would halt it" if self.own_halted_by else "nothing halts it"
            )
            lines.append(f"As the scenario has them now, p99 is {self.own.p99_ms:,.1f} ms, and {halted} (arithmetic).")
        return lines


def placement(
    path: str | Path,
    voters: int | None = None,
    *,
    candidates: Sequence[str] | None = None,
    organisations: Mapping[str, Sequence[str]] | None = None,
    losses: Mapping[str, Sequence[str]] | None = None,
    finalists: int = FINALISTS,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    out: str | Path = "results",
    workers: int = 2,
    progress: Progress | None = None,
    announce: Announce = nullcontext,
) -> Placements:
    """Place voters of a scenario over candidate sites (default: all whose jurisdiction lets voters stand there).

    `organisations`: who would run the voters at which sites. `losses`: sites that are lost together, by name (default:
    each fault domain). Faults of the scenario are left out. Raises ScenarioError, NoPlacementError if none is left.
    """
    base = load_scenario(Path(path), list(overrides), seed)
    if base.network.sites is None:
        raise ScenarioError(f"{path}: network: names no sites to choose among; write sites: [HAK, RSC, ...]")
    n = base.network.n if voters is None else voters
    places = tuple(candidates or _allowed(base))
    _check(path, n, places, organisations or {}, finalists)
    pieces = _Pieces.of(base, path, n, places, overrides, seed)
    groups = _groups(places, {**(domains_of(places) if losses is None else losses), **(organisations or {})})
    space = math.comb(len(places), n)
    if space <= EXACT_MAX:
        subsets = np.array(list(itertools.combinations(range(len(places)), n)), dtype=np.int64)
        subsets = subsets[_is_feasible(subsets, groups, pieces.blocking)]
        feasible: int | None = len(subsets)
    else:
        subsets, feasible = _climb(pieces, groups, base.seed), None
    if not len(subsets):
        most = _most_spread(groups, pieces.blocking)
        raise NoPlacementError(
            f"{path}: every way to place {n} voters on {len(places)} sites leaves some domain or organisation "
            f"{pieces.blocking} of them, which halt it (at most {most} can be placed so that none does); take fewer "
            "voters, or more sites (--candidates)"
        )
    estimate_ns, leader = pieces.estimate(subsets)
    shares = [np.isin(subsets, group).sum(axis=1) for group in groups]
    largest = np.max(shares, axis=0) if shares else np.zeros(len(subsets))
    order = np.lexsort((largest, estimate_ns))[:finalists]  # of equal ones, who leaves the least together
    chosen = [_ordered(places, subsets[i].tolist(), int(leader[i])) for i in order]
    own = tuple(base.network.sites) if base.network.n == n else None
    plain = ("faults=[]", *overrides)
    first = "first_leader" in type(base.protocol.parameters).keys() and pieces.lasting
    led = (*plain, "protocol.first_leader=0") if first else plain
    jobs = [Job(Path(path), (*led, f"network.sites=[{', '.join(one)}]"), seed, " ".join(one)) for one in chosen]
    if own is not None:
        jobs.append(Job(Path(path), plain, seed, "as it is"))
    runs = aggregate(
        jobs, Path(out), study=f"placement-{base.name}", workers=workers, progress=progress, announce=announce
    )
    made = [Placement(one, float(estimate_ns[i]) / 1e6, run) for one, i, run in zip(chosen, order, runs, strict=False)]
    made.sort(key=lambda one: (one.p99_ms, one.estimate_ms))
    halted = tuple(str(element) for element in halting(base)) if own is not None else ()
    return Placements(
        base, n, places, pieces.quorum, space, feasible, tuple(made),
        None if own is None else Placement(own, math.nan, runs[-1]), halted,
    )  # fmt: skip


def _allowed(base: Scenario) -> list[str]:
    """Sites at which the rules of the place let voters stand, the scenario's own among them."""
    return [site.code for site in sites().values() if site.jurisdiction == "mainland"]


def _check(
    path: str | Path, n: int, places: Sequence[str], organisations: Mapping[str, Sequence[str]], finalists: int
) -> None:
    for code in dict.fromkeys([*places, *(code for codes in organisations.values() for code in codes)]):
        problem = site_problem(code)
        if problem is not None:
            raise ScenarioError(f"{path}: candidate {code}: {problem}")
    if len({*places}) < len(places):
        twice = next(code for code in places if list(places).count(code) > 1)
        raise ScenarioError(f"{path}: candidate {twice} is named twice; name each site once")
    if not 1 <= n <= len(places):
        raise ScenarioError(f"{path}: {n} voters on {len(places)} candidate sites: one stands at each; name more sites")
    if finalists < 1:
        raise ScenarioError(f"{path}: finalists {finalists}: at least one is simulated; write 1 or more")


def domains_of(places: Sequence[str]) -> dict[str, list[str]]:
    """The sites of each fault domain."""
    found: dict[str, list[str]] = {}
    for code in places:
        found.setdefault(f"domain {sites()[code].domain}", []).append(code)
    return found


def _groups(places: Sequence[str], together: Mapping[str, Sequence[str]]) -> list[Ints]:
    """Candidates, by number, that one event or one party takes."""
    groups = [[i for i, code in enumerate(places) if code in codes] for codes in together.values()]
    return [np.array(group, dtype=np.int64) for group in groups]


def _is_feasible(subsets: Ints, groups: Sequence[Ints], blocking: int) -> NDArray[np.bool_]:
    """Whether no group holds a blocking share; shape (placements,)."""
    fine = np.ones(len(subsets), dtype=bool)
    for group in groups:
        fine &= np.isin(subsets, group).sum(axis=1) < blocking
    return fine


def _most_spread(groups: Sequence[Ints], blocking: int) -> int:
    """How many voters can stand without a group that blocks, if no site belongs to two groups."""
    return sum(min(len(group), blocking - 1) for group in groups)


def _ordered(places: Sequence[str], subset: Sequence[int], leader: int) -> tuple[str, ...]:
    """Codes of a placement, the leader's first where one was chosen (-1: they take turns)."""
    first = [leader] if leader >= 0 else []
    return tuple(places[i] for i in [*first, *(i for i in subset if i != leader)])


# --- the screen -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Pieces:
    """What the screen knows of a scenario: times in ns between candidates and from clients to them, and the rounds."""

    between_ns: Floats  # (candidates, candidates)
    from_clients_ns: Floats  # (client places, candidates)
    n: int
    quorum: int
    rounds: tuple[bool, ...]  # of votes: to all, or to the leader
    lasting: bool

    @property
    def blocking(self) -> int:
        return self.n - self.quorum + 1

    @classmethod
    def of(
        cls, base: Scenario, path: str | Path, n: int, places: Sequence[str], overrides: Sequence[str], seed: int | None
    ) -> _Pieces:
        assert base.network.sites is not None
        world = build(base)
        clients = list(dict.fromkeys(gateway.place for gateway in world.gateways)) or list(base.network.sites)
        names = [*places, *(code for code in clients if code not in places)]
        try:
            matrix = one_way_matrix_ns(base.network, base.seed, names).astype(float)
        except KeyError as error:
            raise ScenarioError(f"{path}: network.latency: {error.args[0]}") from None
        index = {code: i for i, code in enumerate(names)}
        sized = load_scenario(Path(path), [*overrides, "faults=[]", f"network.sites=[{', '.join(places[:n])}]"], seed)
        needs = needs_of(sized)
        replica = build(sized).run.hosts[0].replica
        assert replica is not None
        cases: tuple[NormalCase, ...] = replica.normal_cases()
        rounds = tuple(step.to_all for case in cases for step in case.votes) or (True,)
        count = len(places)
        return cls(
            matrix[:count, :count],
            matrix[[index[code] for code in clients]][:, :count],
            n,
            max(need.voters_needed() for need in needs),
            rounds,
            bool(type(replica).lasting_leader),
        )

    def estimate(self, subsets: Ints) -> tuple[Floats, Ints]:
        """What the worst client place waits, ns, and the leader for whom that holds (-1: mean over all in turn)."""
        size = max(_CELLS // self.n**3, 1)
        parts = [self._estimate(subsets[i : i + size]) for i in range(0, len(subsets), size)]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _estimate(self, subsets: Ints) -> tuple[Floats, Ints]:
        way = self.between_ns[subsets[:, :, None], subsets[:, None, :]]  # (p, from, to)
        ready = way  # (p, leader, voter): when each has the proposal
        for to_all in self.rounds:
            if to_all:
                votes = ready[:, :, :, None] + way[:, None, :, :]  # (p, leader, from, to)
                ready = np.partition(votes, self.quorum - 1, axis=2)[:, :, self.quorum - 1, :]
            else:
                back = ready + np.swapaxes(way, 1, 2)  # from each voter to the leader
                at_leader = np.partition(back, self.quorum - 1, axis=2)[:, :, self.quorum - 1]
                ready = at_leader[:, :, None] + way
        near = self.from_clients_ns[:, subsets]  # (clients, p, voter)
        entry = near.argmin(axis=2)  # (clients, p)
        p = np.arange(len(subsets))
        ways = near[np.arange(len(near))[:, None], p, entry]  # (clients, p)
        forward = way[p, entry, :]  # (clients, p, leader)
        decided = np.swapaxes(ready, 1, 2)[p, entry, :]  # (clients, p, leader)
        waits = (2 * ways[:, :, None] + forward + decided).max(axis=0)  # (p, leader)
        if self.lasting:
            best = waits.argmin(axis=1)
            return waits[p, best], subsets[p, best]
        return waits.mean(axis=1), np.full(len(subsets), -1, dtype=np.int64)


def _climb(pieces: _Pieces, groups: Sequence[Ints], seed: int) -> Ints:
    """Placements that no exchange of one place improves, from feasible ones drawn at random."""
    rng = np.random.default_rng(chance.draw(seed, _DRAW))
    count = len(pieces.between_ns)
    found: dict[tuple[int, ...], None] = {}
    tries = 0
    while len(found) < _STARTS and tries < 200 * _STARTS:
        tries += 1
        here = np.sort(rng.permutation(count)[: pieces.n])
        if not _is_feasible(here[None], groups, pieces.blocking)[0]:
            continue
        best = pieces.estimate(here[None])[0][0]
        while True:
            others = [i for i in range(count) if i not in here]
            near = np.array([np.sort([*np.delete(here, k), other]) for k in range(pieces.n) for other in others])
            near = near[_is_feasible(near, groups, pieces.blocking)]
            if not len(near):
                break
            value = pieces.estimate(near)[0]
            if value.min() >= best:
                break
            best, here = value.min(), near[value.argmin()]
        found[tuple(here.tolist())] = None
    return np.array(sorted(found), dtype=np.int64).reshape(-1, pieces.n)
