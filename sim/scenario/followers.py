"""Observers and nodes that catch up: the rules of their sections, their seats and services, and what they did."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from sim.network.residency import HOME
from sim.parameters import Problem

if TYPE_CHECKING:
    from sim.host import Run
    from sim.measure.observers import Lags
    from sim.observers.follower import Backlog, Follower
    from sim.observers.settings import CatchUp
    from sim.scenario.schema import Scenario

_VOTER_TIMEOUT_NS = 5_000_000_000  # of a voter that catches up


# --- rules -------------------------------------------------------------------------------------------------


def problems(scenario: Scenario) -> Iterator[Problem]:
    """Broken rules of the sections `observers` and `catch_up`."""
    network = scenario.network
    names: set[str] = set()
    for i, observer in enumerate(scenario.observers):
        path: tuple[str | int, ...] = ("observers", i)
        if observer.name in names:
            yield Problem((*path, "name"), "names another observer already; choose another name")
        elif network.nodes_of(observer.name):
            yield Problem((*path, "name"), "is a place where voters stand; choose another name")
        names.add(observer.name)
        if observer.site is not None and (problem := network.client_problem(observer.site)) is not None:
            yield Problem((*path, "site"), problem.replace("clients", "observers"))
        if observer.source is not None and (problem := network.ref_problem(observer.source)) is not None:
            yield Problem((*path, "source"), problem)
    yield from _catch_up_problems(scenario)


def _catch_up_problems(scenario: Scenario) -> Iterator[Problem]:
    found: set[int] = set()
    corrupted = {node for entry in scenario.corrupted for _, ref in entry.refs() for node in scenario.nodes_of(ref)}
    for i, entry in enumerate(scenario.catch_up):
        path = ("catch_up", i, "node")
        if (problem := scenario.ref_problem(entry.node)) is not None:
            yield Problem(path, problem)
        for node in scenario.nodes_of(entry.node):
            if node in found:
                yield Problem(path, f"node {node} catches up already; name it once")
            elif node in corrupted:
                yield Problem(path, f"node {node} is corrupted, and catching up is for correct nodes; name another")
            found.add(node)
    voters = {node for node in found if node < scenario.network.n}
    if len(voters) == scenario.network.n:
        yield Problem(("catch_up",), "all voters were away, and nobody has the blocks; leave at least one out")


# --- seats -------------------------------------------------------------------------------------------------


def sides(scenario: Scenario, places: tuple[str, ...]) -> tuple[int, ...]:
    """Per endpoint, by its place: 0 at home, 1 abroad, -1 nowhere."""
    known = scenario.jurisdictions(places)
    return tuple(-1 if place not in known else int(known[place] != HOME) for place in places)


class Followers:
    """Observers and nodes that catch up, at work in a run. `nearest(place)`: voters, the nearest first."""

    def __init__(self, scenario: Scenario, run: Run, nearest: Callable[[str], list[int]]) -> None:
        from sim.observers.follower import Follower
        from sim.observers.source import Source

        self.scenario = scenario
        self.run = run
        self.followers: dict[int, Follower] = {}
        self.joined: Callable[[int], None] = lambda voter: None  # told when a voter has caught up
        self.entries: list[tuple[CatchUp, int]] = [
            (entry, node) for entry in scenario.catch_up for node in scenario.nodes_of(entry.node)
        ]
        if not scenario.observers and not self.entries:
            return
        for voter in range(scenario.network.n):
            run.serve(voter, Source(run, voter))
        n = scenario.network.n
        for seat, observer in enumerate(scenario.observer_of_seat, n):
            order = nearest(scenario.place_of_observer[seat - n])
            if observer.source is not None:
                first = scenario.network.nodes_of(observer.source)
                order = [*first, *(node for node in order if node not in first)]
            self._follow(
                seat, Follower(
                    run, seat, tuple(order), interval_ns=observer.interval_ns if observer.mode == "pull" else None,
                    timeout_ns=observer.timeout_ns, headers_only=observer.headers_only,
                    backlog=self._backlog(seat, headers_only=observer.headers_only),
                ),
            )  # fmt: skip
        for _, seat in self.entries:
            if seat < n:
                order = [node for node in nearest(scenario.network.place_of_node[seat]) if node != seat]
                self._follow(
                    seat, Follower(
                        run, seat, tuple(order), interval_ns=None, timeout_ns=_VOTER_TIMEOUT_NS,
                        backlog=self._backlog(seat), caught_up=functools.partial(self._join, seat),
                    ),
                )  # fmt: skip

    def _follow(self, seat: int, follower: Follower) -> None:
        self.run.detach_replica(seat)
        self.run.serve(seat, follower)
        self.followers[seat] = follower

    def _backlog(self, seat: int, *, headers_only: bool = False) -> Any:
        from sim.observers.follower import Backlog

        for entry, node in self.entries:
            if node == seat:
                return Backlog(entry.backlog_blocks, entry.block_bytes, entry.window_bytes, headers_only)
        return None

    def _join(self, seat: int) -> None:
        """A voter has caught up: its replica starts."""
        self.followers[seat].stop()
        self.run.services[seat].remove(self.followers[seat])
        self.run.attach_replica(seat)
        self.joined(seat)

    # --- what they did -------------------------------------------------------------------------------------

    def catch_up_s(self) -> float | None:
        """The longest time that a node took to catch up, s; None if there was none, or one has not."""
        done = self.catch_up_table()["done_s"]
        return None if not done or None in done else float(max(done))

    def catch_up_table(self) -> dict[str, Any]:
        """One row per node that caught up."""
        backlogs = [(node, self.followers[node].backlog) for _, node in self.entries]
        rows = [(node, backlog) for node, backlog in backlogs if backlog is not None]

        def block_bytes(node: int, backlog: Backlog) -> int:
            return self.followers[node].header_bytes + (0 if backlog.headers_only else backlog.block_bytes)

        return {
            "node": [node for node, _ in rows],
            "blocks": [backlog.blocks for _, backlog in rows],
            "bytes": [backlog.blocks * block_bytes(node, backlog) for node, backlog in rows],
            "headers_s": [_seconds(backlog.headers_ns) for _, backlog in rows],
            "done_s": [_seconds(backlog.done_ns) for _, backlog in rows],
        }

    def observer_table(self, lags: Lags) -> dict[str, Any]:
        """One row per observer."""
        n = self.scenario.network.n
        observers = list(enumerate(self.scenario.observer_of_seat, n))
        held = [self.run.hosts[seat].height for seat, _ in observers]
        columns: dict[str, Any] = {
            "seat": [seat for seat, _ in observers],
            "name": [observer.name for _, observer in observers],
            "place": list(self.scenario.place_of_observer),
            "mode": [observer.mode for _, observer in observers],
            "headers_only": [observer.headers_only for _, observer in observers],
            "blocks": held,
            "behind_blocks": [lags.top - height for height in held],
            "source": [self.followers[seat].source for seat, _ in observers],
            "switches": [self.followers[seat].switches for seat, _ in observers],
            "bytes_received": [self._received(seat) for seat, _ in observers],
        }
        for name in ("p50", "p99", "max"):
            columns[f"lag_{name}_ms"] = [lags.quantile_ms(name, [seat]) for seat, _ in observers]
            columns[f"lag_{name}_blocks"] = [lags.quantile_blocks(name, [seat]) for seat, _ in observers]
        return columns

    def _received(self, seat: int) -> int:
        from sim.kernel import post

        return int(self.run.engine.node()[seat, post.RX_BYTES])


def _seconds(time_ns: int | None) -> float | None:
    return None if time_ns is None else time_ns / 1e9
