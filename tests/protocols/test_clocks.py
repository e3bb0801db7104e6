"""Clocks that are wrong: off when they are set, farther off until they are set again; blocks from the future."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from sim.ledger import rows as ledger
from sim.scenario.errors import ScenarioError
from sim.scenario.run import run
from tests.runs import Played, begin, scenario

S = 10**9
AURA = {"name": "aura", "step_duration": "1 s"}
CLIQUE = {"name": "clique", "block_period": "1 s", "wiggle": "500 ms"}
LOAD = [{"kind": "open", "rate": "5 tx/s"}]


def played(protocol: Any, *clocks: dict[str, Any], seconds: int = 30, **more: Any) -> Played:
    """A run with wrong clocks."""
    chosen = scenario(protocol=protocol, duration=f"{seconds} s", workload=LOAD, nodes=list(clocks), **more)
    result = begin(chosen)
    result.until(chosen.duration_ns)
    assert not result.verdict().violations
    return result


def proposals(result: Played) -> list[tuple[int, float]]:
    """Who proposed, and when, s."""
    return [(row.node, row.time_ns / S) for row in result.events(ledger.EVENT_PROPOSED)]


def heads_s(result: Played, node: int, block: int) -> float:
    """When a node took a block for its head."""
    return next(row.time_ns / S for row in result.events(ledger.EVENT_HEAD) if row.node == node and row.block == block)


def test_a_clock_drifts_until_it_is_set_again() -> None:
    """A thousandth too fast: a second after a thousand; set every hundred seconds it is never a tenth off."""
    fast = {"nodes": [1], "clock": {"drift_ppm": 1000, "ahead": "5 ms"}}
    slow = {"nodes": [2], "clock": {"drift_ppm": -1000, "behind": "5 ms", "sync_every": "100 s"}}
    result = begin(scenario(duration="2000 s", protocol=AURA, workload=LOAD, nodes=[fast, slow]))
    off_ms = []
    for at_s in (999.999999, 1000.000001, 1050):
        result.until(round(at_s * S))
        off_ms.append([(host.clock.time_ns - result.now_ns) / 10**6 for host in result.world.run.hosts])
    assert [row[0] for row in off_ms] == [row[3] for row in off_ms] == [0, 0, 0]
    assert [row[1] for row in off_ms] == pytest.approx([1005, 1005, 1055], abs=0.01)
    assert [row[2] for row in off_ms] == pytest.approx([-105, -5, -55], abs=0.01)


def test_auras_block_from_the_future_is_kept_until_its_step() -> None:
    """Validator 1 is 200 ms ahead: it seals so much too early, and the others take its block when its step begins."""
    result = played(AURA, {"nodes": [1], "clock": {"ahead": "200 ms"}})
    blocks = [(row.node, row.block, row.time_ns / S) for row in result.events(ledger.EVENT_PROPOSED)]
    mine = [(block, at_s) for node, block, at_s in blocks if node == 1]
    assert len(mine) >= 6
    for block, at_s in mine:
        assert at_s % 4 == pytest.approx(0.8)
        assert heads_s(result, 0, block) == pytest.approx(at_s + 0.2)
    assert all(at_s % 1 == 0 for node, at_s in proposals(result) if node != 1)


def test_auras_block_from_too_far_is_refused() -> None:
    """Six steps ahead, and more than four are refused: nobody builds on its blocks, and the others go on."""
    result = played(AURA, {"nodes": [1], "clock": {"ahead": "6 s"}}, n=7)
    decided = {row.block for row in result.decided(0)}
    proposers = {row.node for row in result.events(ledger.EVENT_PROPOSED) if row.block in decided}
    assert proposers == {0, 2, 3, 4, 5, 6}


def test_a_clock_that_is_behind_seals_late() -> None:
    result = played(AURA, {"nodes": [2], "clock": {"behind": "100 ms"}})
    assert {round(at_s % 1, 3) for node, at_s in proposals(result) if node == 2} == {0.1}
    assert {round(at_s % 1, 3) for node, at_s in proposals(result) if node != 2} == {0.0}


def test_cliques_block_from_the_future_is_kept_until_its_time() -> None:
    """Signer 2 is 300 ms ahead: it sends its block early, and the others see it when its time has come by theirs."""
    result = played(CLIQUE, {"nodes": [2], "clock": {"ahead": "300 ms"}})
    sealed = [row for row in result.events(ledger.EVENT_PROPOSED) if row.node == 2 and row.height % 4 == 2]  # in turn
    mine = [(row.block, row.time_ns / S) for row in sealed]
    others = [at_s for node, at_s in proposals(result) if node != 2]
    assert len(mine) >= 6
    for block, at_s in mine:
        assert heads_s(result, 0, block) == pytest.approx(at_s + 0.3)
    assert min(b - a for a, b in itertools.pairwise(others)) >= 0.99


@pytest.mark.parametrize("protocol", ["qbft", "ibft"])
def test_periods_are_counted_by_each_validators_clock(protocol: str) -> None:
    """Validator 2 is 100 ms behind, so its blocks come 100 ms late; they bear the right time: the next is on time."""
    block = {"period": "2 s"}
    result = played(protocol, {"nodes": [2], "clock": {"behind": "100 ms"}}, block=block)
    assert {(node == 2, round(at_s % 2, 3)) for node, at_s in proposals(result)} == {(True, 0.1), (False, 0.0)}


@pytest.mark.parametrize("protocol", ["pbft", "raft", "tendermint", "hotstuff", "clique", "aura", "ibft"])
def test_runs_with_wrong_clocks_are_judged_and_repeat(protocol: str) -> None:
    clocks = [{"nodes": [0], "clock": {"ahead": "50 ms", "drift_ppm": 200, "sync_every": "10 s"}}]
    chosen = scenario(protocol=protocol, duration="40 s", workload=LOAD, nodes=clocks)
    first, second = run(chosen), run(chosen, fast_path=False)
    assert first.status == "ok" and first.digest == second.digest


@pytest.mark.parametrize(
    ("clock", "rule"),
    [
        ({"ahead": "1 ms", "behind": "1 ms"}, "and ahead are two answers to one question; remove one"),
        ({}, "is a clock that is right; write ahead, behind or drift_ppm"),
        ({"ahead": "1 ms", "sync_every": "1 s"}, "does nothing to a clock that does not drift; remove it"),
        ({"drift_ppm": 1e9}, "must be at most 100000.0; lower it"),
    ],
)
def test_bad_clocks(clock: dict[str, Any], rule: str) -> None:
    with pytest.raises(ScenarioError, match=rule):
        scenario(nodes=[{"nodes": [1], "clock": clock}])


@pytest.mark.parametrize("protocol", ["ibft", "qbft"])
def test_a_validator_keeps_a_proposal_from_the_future_until_its_time(protocol: str) -> None:
    """Validator 1 is 200 ms ahead, and the others vote for its blocks 200 ms after it proposed them."""
    clock = {"nodes": [1], "clock": {"ahead": "200 ms"}}
    ahead = played(protocol, clock, block={"period": "1 s"})
    waits_s = {node: set() for node in range(4)}  # type: dict[int, set[float]]
    proposed = {row.block: (row.node, row.time_ns) for row in ahead.events(ledger.EVENT_PROPOSED)}
    for row in ahead.decided(0):
        node, at_ns = proposed[row.block]
        waits_s[node].add(round((row.time_ns - at_ns) / S, 3))
    assert waits_s[1] == {0.22}, "the proposal waits until 200 ms, then PREPARE and COMMIT, 10 ms each"
    assert waits_s[0] == waits_s[2] == waits_s[3] == {0.03}
    lenient = {"name": protocol, "future_allowed": "300 ms"}
    result = played(lenient, clock, block={"period": "1 s"})
    proposed = {row.block: (row.node, row.time_ns) for row in result.events(ledger.EVENT_PROPOSED)}
    assert {round((row.time_ns - proposed[row.block][1]) / S, 3) for row in result.decided(0)} == {0.03}


@pytest.mark.parametrize("protocol", ["ibft", "qbft"])
def test_a_proposal_from_too_far_ahead_is_refused_where_the_platform_does(protocol: str) -> None:
    """Nobody votes for validator 1, two seconds ahead, in rounds 0: each of its turns costs a round."""
    strict = {"name": protocol, "future_allowed": "1 s", "future_blocks": "refuse", "round_timeout": "500 ms"}
    result = played(strict, {"nodes": [1], "clock": {"ahead": "2 s"}}, block={"period": "1 s"})
    decided = {row.block for row in result.decided(0)}
    proposers = {row.node for row in result.events(ledger.EVENT_PROPOSED) if row.block in decided}
    assert proposers == {0, 2, 3}
    assert len(decided) > 10
