"""When blocks are made: with a batch timeout, with a period; what executing them costs; and how much may wait."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from sim.protocols import PROTOCOLS
from sim.scenario.errors import ScenarioError
from sim.scenario.run import Result, run
from tests.runs import scenario

BATCHING = ("pbft", "wheat", "rpbft", "raft", "ibft", "qbft", "tendermint")
LIGHT = [{"kind": "open", "rate": "0.2 tx/s", "bytes": "1 kB"}]
SOME = [{"kind": "open", "rate": "2 tx/s", "bytes": "300 B"}]


def both_paths(**changes: Any) -> Result:
    """A run, which is the same with and without the fast path."""
    chosen = scenario(**changes)
    fast, handlers = run(chosen), run(chosen, fast_path=False)
    assert fast.digest == handlers.digest
    assert fast.status == "ok"
    return fast


def proposed_s(result: Result) -> list[float]:
    """When blocks were proposed, in order of height."""
    blocks = result.tables["blocks"]
    return [round(time_ns / 1e9, 3) for _, time_ns in sorted(zip(blocks["height"], blocks["proposed_ns"], strict=True))]


# --- a period --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [LIGHT, [{"kind": "backlog", "bytes": "300 B"}]], ids=["light", "full"])
@pytest.mark.parametrize("protocol", ["qbft", "ibft"])
def test_a_block_every_period_empty_or_not(protocol: str, load: Any) -> None:
    """besu-eth/besu blockperiodseconds: 2."""
    result = both_paths(n=4, protocol=protocol, duration="21 s", workload=load, block={"period": "2 s"})
    assert proposed_s(result) == [2.0 * k for k in range(1, 11)]
    assert result.metrics["view_changes"] == 0


@pytest.mark.parametrize("protocol", ["qbft", "ibft"])
def test_one_of_five_dead_costs_period_and_timeout_at_its_turn(protocol: str) -> None:
    """Four in turn, then two seconds of period, four of the round timer, and one delay of the round change."""
    named = {"name": protocol, "round_timeout": "4 s"}
    gone = [{"at": "0 s", "crash": {"nodes": [4]}}]
    result = both_paths(n=5, protocol=named, duration="30 s", workload=SOME, block={"period": "2 s"}, faults=gone)
    assert proposed_s(result)[:9] == [2, 4, 6, 8, 14.01, 16.01, 18.01, 20.01, 26.02]


@pytest.mark.parametrize("protocol", ["qbft", "ibft"])
def test_empty_blocks_have_a_period_of_their_own(protocol: str) -> None:
    """emptyblockperiodseconds: without transactions every 7 s; with one, as soon as 2 s are over."""
    two = {"period": "2 s", "empty_period": "7 s"}
    idle = [{"kind": "open", "rate": "0.001 tx/s", "bytes": "300 B"}]
    assert proposed_s(both_paths(n=4, protocol=protocol, duration="30 s", workload=idle, block=two)) == [7, 14, 21, 28]
    result = both_paths(n=4, protocol=protocol, duration="10 min", workload=LIGHT, block=two)
    times = [0.0, *proposed_s(result)]
    blocks = result.tables["blocks"]
    full = [txs > 0 for _, txs in sorted(zip(blocks["height"], blocks["txs"], strict=True))]
    for before, now, has_some in zip(times, times[1:], full, strict=False):
        assert now - before >= 2 and (has_some or now - before == pytest.approx(7))
    assert any(full) and not all(full)


@pytest.mark.parametrize("protocol", ["qbft", "ibft"])
def test_the_period_goes_on_after_crashes(protocol: str) -> None:
    gone = [{"at": "5 s", "for": "7 s", "crash": {"nodes": [0, 1]}}]
    result = both_paths(n=4, protocol=protocol, duration="40 s", workload=SOME, block={"period": "2 s"}, faults=gone)
    after = [time for time in proposed_s(result) if time > 16]
    assert len(after) > 10
    assert {round(b - a, 3) for a, b in itertools.pairwise(after)} == {2.0}


# --- a batch timeout -------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", BATCHING)
def test_a_lone_transaction_waits_for_the_batch_timeout(protocol: str) -> None:
    """Fabric's BatchTimeout: 2 s and the delays of the protocol, for whoever is first in a block."""
    result = both_paths(
        n=4, protocol=protocol, duration="10 min", workload=LIGHT, block={"batch_timeout": "2 s"},
        **{"network.latency": {"model": "fixed", "one_way": "1 ms"}},
    )  # fmt: skip
    assert result.metrics["finality_p99_ms"] == pytest.approx(2000, abs=6)
    blocks = result.tables["blocks"]
    assert result.metrics["finality_mean_ms"] < 2000 and max(blocks["txs"]) > 1  # others came while it waited


@pytest.mark.parametrize("limit", [{"max_transactions": 10}, {"max_bytes": "10 kB"}], ids=["count", "bytes"])
@pytest.mark.parametrize("protocol", BATCHING)
def test_a_full_block_does_not_wait(protocol: str, limit: dict[str, Any]) -> None:
    """100 tx/s of 1 kB, ten to a block: ten blocks a second, each full."""
    load = [{"kind": "open", "rate": "100 tx/s", "bytes": "1 kB"}]
    result = both_paths(n=4, protocol=protocol, duration="20 s", workload=load, block=limit | {"batch_timeout": "2 s"})
    assert result.metrics["finality_p99_ms"] < 400
    txs = list(result.tables["blocks"]["txs"])
    assert txs.count(10) > 0.95 * len(txs) and len(txs) == pytest.approx(200, abs=20)


@pytest.mark.parametrize("protocol", BATCHING)
def test_a_batch_counts_from_the_last_block_and_nobody_waits_after_a_rest(protocol: str) -> None:
    """100 tx/s: blocks 500 ms and three delays apart (two with Raft); a lone transaction goes at once."""
    block = {"batch_timeout": "500 ms", "batch_from": "last_block"}
    calm = {"network.latency": {"model": "fixed", "one_way": "1 ms"}, "block": block, "n": 4, "protocol": protocol}
    load = [{"kind": "open", "rate": "100 tx/s", "bytes": "100 B"}]
    busy = both_paths(duration="60 s", workload=load, **calm)
    assert 500 <= busy.metrics["block_interval_mean_ms"] <= 505
    assert busy.metrics["finality_p50_ms"] == pytest.approx(250, abs=15)
    lone = both_paths(duration="10 min", workload=LIGHT, **calm)
    assert lone.metrics["finality_p50_ms"] <= 6


@pytest.mark.parametrize("protocol", BATCHING)
def test_beats_run_on_from_the_last_block(protocol: str) -> None:
    """A lone request waits for half a beat; a closed loop, always just too late for one, for a whole."""
    block = {"batch_timeout": "500 ms", "batch_from": "beats"}
    calm = {"network.latency": {"model": "fixed", "one_way": "1 ms"}, "block": block, "n": 4, "protocol": protocol}
    lone = both_paths(duration="30 min", workload=LIGHT, **calm)
    waits = lone.metrics
    assert waits["finality_mean_ms"] == pytest.approx(253, abs=30)
    assert waits["finality_p99_ms"] <= 506 and waits["finality_p50_ms"] == pytest.approx(253, abs=50)
    closed = both_paths(duration="20 s", workload=[{"kind": "closed", "outstanding": 1, "sites": ["0"]}], **calm)
    assert closed.metrics["latency_p50_ms"] == pytest.approx(503, abs=5)


# --- execution -------------------------------------------------------------------------------------------

BUSY = [{"kind": "open", "rate": "1000 tx/s"}]


@pytest.mark.parametrize("execution", ["before_vote", "between"])
@pytest.mark.parametrize("protocol", ["pbft", "wheat", "rpbft", "qbft", "ibft", "tendermint", "hotstuff", "jolteon"])
def test_consensus_is_no_faster_than_execution(protocol: str, execution: str) -> None:
    """5 ms a transaction: no more than 200 a second; what is not executed is not committed, and waits."""
    result = both_paths(
        n=4, protocol=protocol, duration="15 s", workload=BUSY, block={"max_transactions": 100},
        cpu={"execute": "5 ms", "execution": execution},
    )  # fmt: skip
    assert 70 < result.metrics["committed_tps"] < 200.1
    assert result.metrics["pending"] > 10_000


PLACES = {
    "qbft": "before_vote", "ibft": "before_vote", "pbft": "between", "tendermint": "between", "raft": "after",
    "hotstuff": "after",
}  # fmt: skip


@pytest.mark.parametrize(("protocol", "place"), PLACES.items())
def test_by_default_blocks_are_executed_where_platforms_do_it(protocol: str, place: str) -> None:
    common: dict[str, Any] = {"n": 4, "protocol": protocol, "duration": "5 s", "workload": BUSY}
    small = {"block": {"max_transactions": 50}}
    default = run(scenario(**common, **small, cpu={"execute": "2 ms"}))
    assert default.digest == run(scenario(**common, **small, cpu={"execute": "2 ms", "execution": place})).digest


def test_between_blocks_nobody_loses_patience() -> None:
    """Blocks of five seconds, timeouts of three: all execute at the same time, and wait for nobody meanwhile."""
    for protocol in ("tendermint", "pbft"):
        result = run(scenario(4, protocol=protocol, duration="60 s", workload=BUSY, cpu={"execute": "5 ms"}))
        assert result.metrics["view_changes"] == 0
        assert result.metrics["committed_tps"] == pytest.approx(200, rel=0.02)


def test_a_block_that_takes_longer_than_the_round_timer_changes_rounds() -> None:
    """besu-eth/besu#11005: five seconds of execution before the vote, rounds of two."""
    result = run(scenario(4, protocol="qbft", duration="60 s", workload=BUSY, cpu={"execute": "5 ms"}))
    assert result.metrics["view_changes"] > 0
    assert result.metrics["committed_tps"] < 50


def test_lanes_and_blocks_cost_what_they_say() -> None:
    """Ten lanes: ten times as many; and 100 ms a block of 100 take as long as its transactions once more."""
    common: dict[str, Any] = {
        "n": 4, "protocol": "tendermint", "duration": "20 s", "block": {"max_transactions": 100},
        "workload": [{"kind": "open", "rate": "5000 tx/s"}],
    }  # fmt: skip
    one = run(scenario(**common, cpu={"execute": "10 ms"})).metrics["committed_tps"]
    ten = run(scenario(**common, cpu={"execute": "10 ms", "lanes": 10})).metrics["committed_tps"]
    block = run(scenario(**common, cpu={"execute": "1 ms", "execute_block": "100 ms"})).metrics["committed_tps"]
    delays_s = 0.03  # of a decision
    assert one == pytest.approx(100 / (1 + delays_s), rel=0.05)
    assert ten == pytest.approx(100 / (0.1 + delays_s), rel=0.05)
    assert block == pytest.approx(100 / (0.2 + delays_s), rel=0.05)


def test_who_executes_beside_consensus_is_warned_of_what_is_left() -> None:
    result = run(scenario(4, protocol="raft", duration="20 s", workload=BUSY, cpu={"execute": "5 ms"}))
    assert result.metrics["committed_tps"] > 900
    assert any("execution does not keep up" in warning for warning in result.warnings)
    slow = [{"kind": "open", "rate": "100 tx/s"}]
    kept = run(scenario(4, protocol="raft", duration="20 s", workload=slow, cpu={"execute": "5 ms"}))
    assert not any("execution" in warning for warning in kept.warnings)


# --- pools -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["tendermint", "pbft", "raft"])
def test_a_full_pool_refuses_at_once(protocol: str) -> None:
    """Ten times what blocks take: what gets in waits for the pool ahead of it and no longer."""
    named = {"name": protocol} | ({"timeout_commit": "1 s"} if protocol == "tendermint" else {})
    spacing = {} if protocol == "tendermint" else {"interval": "1 s"}
    result = both_paths(
        n=4, protocol=named, duration="60 s", workload=[{"kind": "open", "rate": "1000 tx/s", "bytes": "100 B"}],
        block={"max_transactions": 100} | spacing, pool={"max_transactions": 500},
    )  # fmt: skip
    metrics = result.metrics
    assert metrics["committed_tps"] == pytest.approx(100, rel=0.1)
    assert metrics["pending"] <= 4 * 500
    assert metrics["rejected"] == pytest.approx(60_000 - 6_000 - metrics["pending"], rel=0.05)
    assert metrics["latency_p99_ms"] < 1000 * 4 * 500 / 95
    assert metrics["submitted"] == sum(metrics[key] for key in ("committed", "pending", "rejected", "expired"))


def test_half_an_hour_at_ten_times_capacity_is_bounded() -> None:
    result = run(
        scenario(
            4, protocol="pbft", duration="30 min", workload=[{"kind": "open", "rate": "200 tx/s", "bytes": "100 B"}],
            block={"max_transactions": 20, "interval": "1 s"}, pool={"max_transactions": 1000},
            limits={"memory": "2 GB"},
        )
    )  # fmt: skip
    assert result.status == "ok"
    assert result.metrics["pending"] <= 4000
    assert result.metrics["rejected"] > 300_000


# --- contradictions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"protocol": "raft", "block": {"period": "2 s"}}, r"raft has no period \(ibft, qbft do\); write interval"),
        ({"protocol": "tendermint", "block": {"period": "2 s"}}, "write protocol: {timeout_commit: ...}"),
        ({"protocol": "clique", "block": {"period": "2 s"}}, "write protocol: {block_period: ...}"),
        ({"protocol": "hotstuff", "block": {"batch_timeout": "2 s"}}, "hotstuff has no batch_timeout .*; write"),
        ({"block": {"batch_from": "beats"}}, "belongs to batch_timeout"),
        ({"protocol": "qbft", "block": {"period": "2 s", "interval": "1 s"}}, "two answers to one question"),
        ({"protocol": "qbft", "block": {"empty_period": "2 s"}}, "belongs to period"),
        ({"protocol": "qbft", "block": {"period": "3 s", "empty_period": "2 s"}}, "is below period; raise it"),
        ({"pool": {"max_transactions": 10}, "workload": SOME}, "is below block.max_transactions, 1000"),
        ({"pool": {"max_transactions": 2000}}, "a backlog goes through no pool"),
        ({"protocol": "raft", "block": {"batch_timeout": "2 s"}}, "blocks of a backlog are always full"),
        ({"cpu": {"execution": "after"}}, "executing takes no time here; write execute: 1 ms"),
        ({"cpu": {"lanes": 4}}, "executing takes no time here; write execute: 1 ms"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(ScenarioError, match=rule):
        scenario(4, **changes)


def test_each_protocol_says_which_rules_it_knows() -> None:
    assert {name for name, entry in PROTOCOLS.items() if "period" in entry.protocol.block_rules} == {"ibft", "qbft"}
    batching = {name for name, entry in PROTOCOLS.items() if "batch_timeout" in entry.protocol.block_rules}
    assert batching == {*BATCHING}


# --- when a block is put together ------------------------------------------------------------------------

EARLY = {"period": "2 s", "built": "at_parent"}


def client_waits_ms(result: Result) -> list[float]:
    """How long clients waited, by place."""
    waits: list[float] = result.tables["latency_by_place"]["mean_ms"]
    return waits


@pytest.mark.parametrize("protocol", ["qbft", "ibft"])
def test_a_block_holds_what_waited_when_its_parent_came(protocol: str) -> None:
    """A client right after each block is in the block after the next: two periods, or one if built when due."""
    load = [{"kind": "closed", "outstanding": 1, "sites": ["0"]}]
    early = both_paths(n=4, protocol=protocol, duration="41 s", workload=load, block=EARLY)
    late = both_paths(n=4, protocol=protocol, duration="41 s", workload=load, block={"period": "2 s"})
    assert client_waits_ms(early) == pytest.approx([4000], abs=60)
    assert client_waits_ms(late) == pytest.approx([2000], abs=60)
    assert proposed_s(early) == proposed_s(late)


def test_poisson_clients_wait_for_one_and_a_half_periods() -> None:
    load = [{"kind": "open", "rate": "20 tx/s", "bytes": "300 B"}]
    result = both_paths(n=4, protocol="qbft", duration="10 min", workload=load, block=EARLY)
    assert result.metrics["latency_mean_ms"] == pytest.approx(1.5 * 2000 + 30 + 10, rel=0.02)


def test_a_block_may_be_put_together_anew() -> None:
    """Every half second: what came in the last of four waits for the next block, a quarter of all."""
    load = [{"kind": "open", "rate": "20 tx/s", "bytes": "300 B"}]
    block = EARLY | {"rebuilt_every": "500 ms"}
    result = both_paths(n=4, protocol="qbft", duration="10 min", workload=load, block=block)
    assert result.metrics["latency_mean_ms"] == pytest.approx(1000 + 500 + 40, rel=0.03)


def test_cliques_blocks_are_put_together_when_the_head_comes() -> None:
    load = [{"kind": "open", "rate": "20 tx/s", "bytes": "300 B"}]
    waits = []
    for block in ({}, {"built": "at_parent"}, {"built": "at_parent", "rebuilt_every": "500 ms"}):
        named = {"name": "clique", "block_period": "2 s"}
        result = both_paths(n=4, protocol=named, duration="10 min", workload=load, block=block)
        waits.append(result.metrics["latency_mean_ms"])
    assert waits[1] - waits[0] == pytest.approx(2000, rel=0.03)
    assert waits[2] - waits[0] == pytest.approx(500, rel=0.1)


def test_periods_begin_at_whole_seconds_again_after_a_round_change() -> None:
    """The block after a round change bears the second that has begun, so the next is due earlier by the rest of it."""
    named = {"name": "qbft", "round_timeout": "4 s"}
    gone = [{"at": "0 s", "crash": {"nodes": [4]}}]
    block = {"period": "2 s", "time_step": "1 s"}
    result = both_paths(n=5, protocol=named, duration="30 s", workload=SOME, block=block, faults=gone)
    assert proposed_s(result)[:9] == [2, 4, 6, 8, 14.01, 16, 18, 20, 26.01]


@pytest.mark.parametrize(
    ("protocol", "block", "rule"),
    [
        ("pbft", {"built": "at_parent"}, "goes with blocks that come when their time has"),
        ("qbft", {"built": "at_parent"}, "goes with blocks that come when their time has"),
        ("qbft", {"period": "2 s", "rebuilt_every": "1 s"}, "belongs to built: at_parent"),
        ("qbft", {"time_step": "1 s"}, "belongs to period; write period beside it"),
        ("qbft", {"period": "1500 ms", "time_step": "1 s"}, "does not go into period whole times"),
    ],
)
def test_building_early_needs_a_period(protocol: str, block: dict[str, str], rule: str) -> None:
    with pytest.raises(ScenarioError, match=rule):
        scenario(protocol=protocol, block=block)


# --- a clock that runs on --------------------------------------------------------------------------------


@pytest.mark.parametrize(("one_way_ms", "period_ms"), [(10, 60), (25, 100), (3, 30)])
def test_beats_are_used_up_by_blocks_and_by_decisions(one_way_ms: int, period_ms: int) -> None:
    """GoQuorum's minter: one client at the leader, a beat every 30 ms, a block proposed at one of them.

    10 ms: committed at 20, which waits for the beat at 30 and finds nothing then; the next request comes at 40 and
    waits for 60. 25 ms: committed at 50, which uses up the beat of 30; the request at 100 finds that of 60, and goes at
    once. 3 ms: committed at 6, which waits for the beat at 30, and the request at 12 goes with it.
    """
    load = [{"kind": "closed", "outstanding": 1, "sites": ["0"]}]
    block = {"interval": "30 ms", "ticks": True}
    network = {"nodes": 4, "latency": {"model": "fixed", "one_way": f"{one_way_ms} ms"}}
    named = {"name": "raft", "first_leader": 0, "pipeline": 9}
    result = both_paths(n=4, protocol=named, network=network, duration="20 s", workload=load, block=block)
    assert result.metrics["latency_p50_ms"] == period_ms


@pytest.mark.parametrize("protocol", ["pbft", "raft", "wheat", "rpbft"])
def test_no_more_blocks_than_beats(protocol: str) -> None:
    size = 7 if protocol == "wheat" else 4
    block = {"interval": "100 ms", "ticks": True, "max_transactions": 10}
    for load in ([{"kind": "open", "rate": "500 tx/s"}], [{"kind": "backlog"}]):
        times = proposed_s(both_paths(n=size, protocol=protocol, duration="10 s", workload=load, block=block))
        assert 45 <= len(times) <= 101


def test_ticks_belong_to_an_interval() -> None:
    with pytest.raises(ScenarioError, match="belongs to interval; write interval: 50 ms beside it"):
        scenario(block={"ticks": True})
    with pytest.raises(ScenarioError, match="hotstuff has no such clock"):
        scenario(protocol="hotstuff", block={"interval": "50 ms", "ticks": True})


def test_state_is_read_and_written_one_after_the_other() -> None:
    """8 ms in four lanes and 1 ms of state: 3 ms a transaction, so 333 a second whatever is offered; 500 without."""
    load = [{"kind": "open", "rate": "1000 tx/s", "bytes": "300 B"}]
    rates = []
    for more in ({}, {"execute_io": "1 ms"}):
        cpu = {"execute": "8 ms", "lanes": 4, "execution": "between", **more}
        result = both_paths(n=4, protocol="tendermint", duration="20 s", workload=load, cpu=cpu, warm_up="5 s")
        rates.append(result.metrics["committed_tps"])
    assert rates == pytest.approx([500, 333.3], rel=0.08)
