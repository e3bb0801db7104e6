"""One suite for all protocols: the laws of the fault-free case, agreement and liveness in trouble, honest limits."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.protocols import PROTOCOLS
from tests.protocols.laws import LAWS, PERIOD_MS, Law
from tests.runs import MS, Played, S, begin, play, scenario, unsafe

ROOT = Path(__file__).parents[2]
NAMES = sorted(LAWS)
TROUBLES = ("restarts", "crashes", "partition", "loss")
SEEDS = [pytest.param(range(2), id="few"), pytest.param(range(2, 200), id="many", marks=pytest.mark.slow)]


def law_of(name: str, check: str) -> Law:
    """The row of a protocol, unless the check does not apply to it."""
    law = LAWS[name]
    if check in law.exempt:
        pytest.skip(law.exempt[check])
    return law


def faultless(name: str, n: int, **changes: Any) -> Played:
    """Full blocks, one after the other, 10 ms between any two; no timeout is near, blocks by the clock are quick."""
    law = LAWS[name]
    protocol = {"name": name, **(law.timed(law.patient) if law.clock else {})}
    long = {"duration": "60 s" if law.clock else "3 s", "stop_after_decisions": 40}
    return play(scenario(n, protocol=protocol, **(long | changes)))


def steady_messages(run: Played) -> float:
    """Messages per decision between the 10th decision and the last."""
    rows = run.decided()
    firsts = {row.height: row for row in rows[::-1]}
    heights = sorted(firsts)
    low, high = heights[9], heights[-1]
    return float(firsts[high][7] - firsts[low][7]) / (high - low)


def test_every_protocol_has_its_row() -> None:
    assert set(LAWS) == set(PROTOCOLS)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_protocol_cannot_pass_stands_on_its_page(name: str) -> None:
    page = re.sub(r"\s+", " ", (ROOT / "docs" / "protocols" / f"{name}.md").read_text(encoding="utf-8"))
    assert [reason for reason in LAWS[name].exempt.values() if reason not in page] == []


# --- the fault-free case -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [4, 7, 10, 31])
@pytest.mark.parametrize("name", NAMES)
def test_messages_per_decision(name: str, n: int) -> None:
    law = law_of(name, "messages")
    assert steady_messages(faultless(name, n)) == law.messages(n)


@pytest.mark.parametrize("n", [4, 7, 16])
@pytest.mark.parametrize("name", NAMES)
def test_one_way_delays_to_the_first_decision(name: str, n: int) -> None:
    law = law_of(name, "delays")
    first: dict[int, int] = {}
    for (block, _), latency_ns in faultless(name, n).latencies_ns().items():
        first[block] = min(latency_ns, first.get(block, latency_ns))
    steady = [first[block] for block in sorted(first)[10:]]
    assert set(steady) == {law.delays * 10 * MS if law.periods is None else law.periods(n) * PERIOD_MS * MS}


@pytest.mark.parametrize("name", NAMES)
def test_scaling_every_delay_scales_every_decision(name: str) -> None:
    law = law_of(name, "scaling")
    ms = np.random.default_rng(7).integers(1, 12, size=(4, 4))

    def decided(scale: int) -> list[tuple[int, int]]:
        latency = {"model": "explicit", "one_way_ms": (ms * scale).tolist()}
        protocol = {"name": name, **law.timed(law.patient, scale)}
        changes: dict[str, Any] = {"network.latency": latency, "duration": "60 s", "stop_after_decisions": 40}
        rows = play(scenario(4, protocol=protocol, **changes)).decided()
        start = rows[0].time_ns
        return [((row.time_ns - start) // scale, row.node) for row in rows[:60]]

    assert decided(3) == decided(1)


@pytest.mark.parametrize("n", [1, 4, 5, 6, 7, 10, 31, 100])
@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_voters_decides(name: str, n: int) -> None:
    law_of(name, f"n={n}")
    run = faultless(name, n, stop_after_decisions=8, duration="20 s")
    assert len({row.height for row in run.decided()}) >= 8
    assert unsafe(run) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_run_repeats_itself(name: str) -> None:
    faults = [{"at": "500 ms", "for": "500 ms", "crash": {"nodes": [1]}}]
    changes: dict[str, Any] = {"network.jitter": {"model": "proportional", "up_to": "20 %"}, "faults": faults}
    first, second = (play(scenario(4, protocol=quick(name), duration="2 s", **changes)).digest for _ in range(2))
    assert first == second


# --- trouble -----------------------------------------------------------------------------------------------


def quick(name: str) -> dict[str, Any]:
    """The protocol with parameters for runs with faults."""
    return {"name": name, **LAWS[name].timed(LAWS[name].quick)}


def trouble(kind: str, n: int, f: int, rng: random.Random) -> list[dict[str, Any]]:
    """Faults between 0.3 s and 1.5 s that leave the protocol able to decide afterwards."""
    nodes = list(range(n))
    if kind == "crashes":  # for good
        return [{"at": f"{rng.randrange(300, 1500)} ms", "crash": {"nodes": [node]}} for node in rng.sample(nodes, f)]
    if kind == "restarts":
        return [
            {"at": f"{rng.randrange(300, 900)} ms", "for": f"{rng.randrange(50, 600)} ms", "crash": {"nodes": [node]}}
            for node in rng.sample(nodes, f)
        ]
    if kind == "partition":
        group = rng.sample(nodes, rng.randrange(1, n))
        return [{"at": f"{rng.randrange(300, 700)} ms", "until": "1.5 s", "partition": {"groups": [sorted(group)]}}]
    # Twenty percent at the most: TCP's doubling would keep a link shut for seconds after the loss is over.
    loss = rng.choice(["5 %", "10 %", "20 %"])
    return [
        {"at": "0 s", "until": "1.5 s", "degrade_link": {"between": list(pair), "loss": loss, "add_latency": "5 ms"}}
        for pair in itertools.combinations(nodes, 2)
    ]


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("kind", TROUBLES)
@pytest.mark.parametrize("name", NAMES)
def test_agreement_in_trouble_and_progress_after_it(name: str, kind: str, seeds: range) -> None:
    law = law_of(name, kind)
    for seed in seeds:
        rng = random.Random(f"{name} {kind} {seed}")
        n = rng.choice([4, 5, 7])
        changes: dict[str, Any] = {
            "seed": seed,
            "duration": f"{1.5 + law.heals_within_s + 1} s",
            "liveness_bound": f"{law.heals_within_s} s",
            "faults": trouble(kind, n, law.faults(n), rng),
            "workload": [{"kind": "open", "rate": "40 tx/s", "bytes": "300 B"}],
            "network.jitter": {"model": "proportional", "up_to": "30 %"},
            "network.links": rng.choice(["ordered", "datagram"]),
            "network.retransmit_after": "20 ms",
        }
        run = play(scenario(n, protocol=quick(name), **changes))
        verdict = run.verdict()
        assert [v.evidence for v in verdict.violations] == [], seed
        assert verdict.outcomes["liveness"] == "pass", seed
        assert max(row.time_ns for row in run.decided()) > 1.5 * S, seed


@pytest.mark.parametrize("name", NAMES)
def test_one_voter_with_clients_is_enough_to_replace_a_leader(name: str) -> None:
    """The others hear of what waits, for the crash of a leader who has nothing to do is no fault to see."""
    network = {
        "sites": ["SYX", "HAK", "QHI", "YPG", "WEC", "RSC", "LSH"],
        "latency": {"model": "distance", "quality": "mid", "intra_site": "0.25 ms"},
    }
    changes: dict[str, Any] = {
        "duration": "10 s",
        "network": network,
        "faults": [{"at": "1 s", "crash": {"nodes": [0]}}],
        "workload": [{"kind": "open", "rate": "20 tx/s", "bytes": "300 B", "sites": ["HAK"]}],
    }
    run = play(scenario(protocol=quick(name), **changes))
    assert unsafe(run) == []
    assert max(row.time_ns for row in run.decided()) > 9 * S


@pytest.mark.parametrize("n", [4, 7])
@pytest.mark.parametrize("name", NAMES)
def test_one_crash_too_many_halts_and_a_return_heals(name: str, n: int) -> None:
    law = law_of(name, "halt")
    dead = list(range(n - law.faults(n) - 1, n))
    back = 3.0
    faults = [{"at": "500 ms", "until": f"{back} s", "crash": {"nodes": dead}}]
    changes: dict[str, Any] = {"liveness_bound": f"{law.heals_within_s} s", "faults": faults}
    run = play(scenario(n, protocol=quick(name), duration=f"{back + law.heals_within_s + 1} s", **changes))
    first = {row.height: row.time_ns for row in run.decided()[::-1]}  # who is behind may still learn of old blocks
    assert [t for t in first.values() if (0.5 + law.lingers_s) * S < t <= back * S] == []
    assert max(first.values()) > back * S
    assert [v.evidence for v in run.verdict().violations] == []


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NAMES)
def test_a_restarted_replica_never_votes_twice(name: str, seed: int) -> None:
    law = law_of(name, "votes once")
    cast = cast_under_restarts(name, seed, lambda host, cast: listen(host, law, cast))
    assert len(cast) > 20  # there was something to hear
    assert {key: what for key, what in cast.items() if len(what) > 1} == {}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", [name for name in NAMES if LAWS[name].once_per_block])
def test_a_restarted_replica_never_seals_twice(name: str, seed: int) -> None:
    """Where nobody votes the block is the vote: one on each parent, or one in each step."""
    law = LAWS[name]
    sealed = cast_under_restarts(name, seed, lambda host, sealed: watch(host, law, sealed))
    assert len(sealed) > 20
    assert {key: blocks for key, blocks in sealed.items() if len(blocks) > 1} == {}


def cast_under_restarts(name: str, seed: int, attach: Any) -> dict[tuple[Any, ...], set[Any]]:
    """What replicas that crash twenty times in turn are heard to say; the run is safe."""
    rng = random.Random(f"{name} restarts {seed}")
    faults = [
        {
            "at": f"{200 + 90 * i + rng.randrange(60)} ms",
            "for": f"{rng.randrange(15, 60)} ms",
            "crash": {"nodes": [i % 4]},
        }
        for i in range(20)
    ]
    run = begin(scenario(4, protocol=quick(name), duration="4 s", faults=faults), fast_path=False)
    cast: dict[tuple[Any, ...], set[Any]] = {}
    for host in run.world.run.hosts:
        attach(host, cast)
    run.until(4 * S)
    assert unsafe(run) == []
    return cast


def watch(host: Any, law: Law, sealed: dict[tuple[Any, ...], set[Any]]) -> None:
    """Keep the blocks that a replica builds, by what it may build one for."""
    build = host.new_block

    def heard(parent: Any, view: int, **options: Any) -> Any:
        block = build(parent, view, **options)
        on = {"parent": None if parent is None else parent.number, "view": view}
        for what in law.once_per_block:
            sealed.setdefault((host.me, what, on[what]), set()).add(block.number)
        return block

    host.new_block = heard


def listen(host: Any, law: Law, cast: dict[tuple[Any, ...], set[Any]]) -> None:
    """Keep what a replica votes for, by what it may vote for once only."""
    vote = host.vote

    def heard(kind: Any, ballot: Any, *rest: Any, **options: Any) -> None:
        what = (None if ballot.block is None else ballot.block.number, options.get("to", rest[0] if rest else None))
        if kind.name in law.once_per_view:
            cast.setdefault((host.me, kind.name, ballot.view), set()).add(what)
        if kind.name in law.once_per_place:
            cast.setdefault((host.me, kind.name, ballot.view, ballot.number), set()).add(what)
        vote(kind, ballot, *rest, **options)

    host.vote = heard
