"""Nodes and links that differ from the rest: processors, disks, cards, parameters; latency, jitter, loss, bandwidth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.kernel import run_state as kernel
from sim.ledger import rows as ledger
from sim.protocols import PROTOCOLS
from sim.scenario.errors import ScenarioError
from sim.scenario.run import Result, run
from sim.scenario.schema import Scenario
from tests.runs import begin, scenario

ALL = [0, 1, 2, 3]
CPU = {"crypto": "ed25519", "handle": "20 us", "fsync": "1 ms"}


def both_paths(chosen: Scenario) -> Result:
    """A run, which is the same with and without the fast path."""
    fast, handlers = run(chosen), run(chosen, fast_path=False)
    assert fast.digest == handlers.digest
    assert fast.status == "ok"
    return fast


def same(one: Scenario, other: Scenario) -> None:
    """Two ways to say the same are the same run."""
    assert both_paths(one).digest == both_paths(other).digest


# --- nodes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["pbft", "raft", "hotstuff", "tendermint"])
def test_what_all_nodes_have_may_be_said_of_each(protocol: str) -> None:
    common: dict[str, Any] = {"protocol": protocol, "duration": "3 s"}
    card = {"network.bandwidth": "10 Mbit/s"}
    each = [{"nodes": ALL, "cores": 4, "upload": "10 Mbit/s", "download": "10 Mbit/s"}]
    same(
        scenario(**common, **card, cpu=CPU | {"cores": 4}),
        scenario(**common, **{"network.bandwidth": "1 Gbit/s"}, cpu=CPU, nodes=each),
    )


@pytest.mark.parametrize("protocol", ["pbft", "raft", "hotstuff"])
def test_a_slow_node_is_slow_from_the_beginning_or_by_a_fault(protocol: str) -> None:
    common: dict[str, Any] = {"protocol": protocol, "duration": "3 s", "cpu": CPU}
    for node in (0, 3):
        built = both_paths(scenario(**common, nodes=[{"nodes": [node], "cpu": 4, "disk": 3}]))
        fault = [{"at": "0 s", "slow_node": {"nodes": [node], "cpu": 4, "disk": 3}}]
        struck = both_paths(scenario(**common, faults=fault))
        assert built.metrics["decisions"] == struck.metrics["decisions"]
        struck_ms = struck.metrics["decision_latency_mean_ms"]
        assert built.metrics["decision_latency_mean_ms"] == pytest.approx(
            struck_ms, rel=1e-3
        )  # all but the first block


def test_a_fault_slows_what_is_slow_already() -> None:
    """Twice and twice are four times, and when the fault is over it is twice again."""
    common: dict[str, Any] = {"duration": "2 s", "cpu": CPU, "nodes": [{"nodes": [1], "cpu": 2, "crypto": 0.5}]}
    fault = [{"at": "500 ms", "for": "500 ms", "slow_node": {"nodes": [1], "cpu": 2}}]
    played = begin(scenario(**common, faults=fault))
    speeds = []
    for at_ms in (100, 700, 1500):
        played.until(at_ms * 10**6)
        speeds.append(played.world.run.engine.node()[1, [6, 30]].tolist())
    assert speeds == [[2048, 1024], [4096, 2048], [2048, 1024]]


def test_crypto_alone() -> None:
    """A node that verifies ten times as fast: a hundredth of a second saved where all had to wait for it."""
    slow = {"crypto": "bls12-381"}
    plain = both_paths(scenario(duration="3 s", cpu=slow)).metrics["verify_utilisation_max"]
    quick = both_paths(scenario(duration="3 s", cpu=slow, nodes=[{"nodes": ALL, "crypto": 0.1}]))
    assert quick.metrics["decisions"] > both_paths(scenario(duration="3 s", cpu=slow)).metrics["decisions"]
    assert 0 < quick.metrics["verify_utilisation_max"] < plain <= 1


def test_use_counts_the_cores_that_a_node_has() -> None:
    """Of four cores one node has one: it is as busy as its one core is."""
    cpu = {"crypto": "bls12-381", "cores": 4}
    one = both_paths(scenario(duration="3 s", cpu=cpu, nodes=[{"nodes": [2], "cores": 1}])).metrics
    four = both_paths(scenario(duration="3 s", cpu=cpu)).metrics
    assert four["verify_utilisation_max"] < one["verify_utilisation_max"] <= 1
    fault = [{"at": "1 s", "for": "300 ms", "crash": {"nodes": [2]}}]
    back = both_paths(scenario(duration="3 s", cpu=cpu, nodes=[{"nodes": [2], "cores": 1}], faults=fault)).metrics
    assert back["verify_utilisation_max"] <= 1


def test_one_uplink_is_narrow() -> None:
    """The leader's: three copies of 100 kB share 8 Mbit/s, all there after 300 ms; anybody else's costs nothing."""
    load = [{"kind": "backlog", "bytes": "1 kB"}]
    block = {"max_transactions": 100}
    common: dict[str, Any] = {"duration": "20 s", "workload": load, "block": block}
    narrow = both_paths(scenario(**common, nodes=[{"nodes": [0], "upload": "8 Mbit/s"}])).metrics
    assert narrow["decision_latency_mean_ms"] == pytest.approx(300 + 30, rel=0.02)
    other = both_paths(scenario(**common, nodes=[{"nodes": [3], "upload": "8 Mbit/s"}])).metrics
    assert other["decision_latency_mean_ms"] == pytest.approx(30, rel=0.02)
    inwards = both_paths(scenario(**common, nodes=[{"nodes": [1, 2], "download": "8 Mbit/s"}])).metrics
    # the two have it at 110 ms, with node 3's vote of long ago: both commit at once, and node 3 decides a delay later
    assert inwards["decision_latency_mean_ms"] == pytest.approx(100 + 20, rel=0.02)


def test_parameters_of_single_nodes() -> None:
    """One of four is gone: where the others' timers are 1 s instead of 4 s, its turns cost a quarter."""
    gone = [{"at": "0 s", "crash": {"nodes": [0]}}]
    common: dict[str, Any] = {"protocol": {"name": "qbft", "round_timeout": "4 s"}, "duration": "20 s", "faults": gone}
    pause_s = [
        both_paths(scenario(**common, nodes=nodes)).metrics["longest_pause_s"]
        for nodes in ([], [{"nodes": [1, 2, 3], "parameters": {"round_timeout": "1 s"}}])
    ]
    assert pause_s[0] - pause_s[1] == pytest.approx(3, abs=0.001)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_parameters_said_of_all_nodes_are_those_of_the_protocol(name: str) -> None:
    key = {"clique": "block_period", "aura": "step_duration", "raft": "election_timeout_low"}.get(name)
    key = key or next(
        key
        for key in ("request_timeout", "round_timeout", "propose_timeout", "timeout_propose", "view_timeout")
        if f"{key}_ns" in PROTOCOLS[name].parameters.model_fields
    )
    more = {"election_timeout_high": "900 ms"} if name == "raft" else {}
    size = 7 if name == "wheat" else 4
    common: dict[str, Any] = {"n": size, "duration": "20 s" if name in ("clique", "aura") else "2 s"}
    value = {key: "700 ms", **more}
    own = run(scenario(protocol={"name": name, **value}, **common), fast_path=False)
    each = run(scenario(protocol=name, nodes=[{"nodes": list(range(size)), "parameters": value}], **common))
    assert own.digest == each.digest


# --- links -----------------------------------------------------------------------------------------------

MATRIX = [[0, 20, 30, 40], [25, 0, 35, 45], [10, 15, 0, 5], [60, 55, 50, 0]]


@pytest.mark.parametrize("protocol", ["pbft", "raft", "hotstuff", "kauri", "ibft", "aura"])
def test_latencies_said_link_by_link_are_a_matrix(protocol: str) -> None:
    """Each direction has its own."""
    common: dict[str, Any] = {"protocol": protocol, "duration": "10 s" if protocol == "aura" else "3 s"}
    links = [{"from": i, "to": j, "one_way": f"{MATRIX[i][j]} ms"} for i in ALL for j in ALL if i != j]
    # between a voter and the clients of another there is a link too; there are none here
    whole = {"nodes": 4, "latency": {"model": "explicit", "one_way_ms": MATRIX}}
    same(scenario(**common, links=links), scenario(**common, network=whole))


def test_a_link_is_the_same_in_both_directions_or_in_one() -> None:
    """A client's request to node 0 over a long way: it takes 90 ms more each way, or one way alone."""
    sites = {"sites": ["HAK", "SYX", "DZH", "WNG"], "latency": {"model": "fixed", "one_way": "10 ms"}}
    load = [{"kind": "open", "rate": "2 tx/s", "arrivals": "uniform", "sites": ["SZX"]}]
    waits = []
    for links in (
        [],
        [{"between": ["SZX", "HAK"], "one_way": "100 ms"}],
        [{"from": "SZX", "to": "HAK", "one_way": "100 ms"}],
        [{"from": "HAK", "to": "SZX", "one_way": "100 ms"}, {"from": "HAK", "to": "SZX", "one_way": "50 ms"}],
    ):
        waits.append(both_paths(scenario(duration="20 s", network=sites, workload=load, links=links)).metrics)
    base = waits[0]["latency_p50_ms"]
    assert [metrics["latency_p50_ms"] - base for metrics in waits] == pytest.approx([0, 180, 90, 40], abs=0.01)


def test_a_jittery_link() -> None:
    """Node 3's decisions are late by up to 40 ms, by half of that on average; the others' are on time."""
    links = [{"between": [node, 3], "jitter": "40 ms"} for node in (0, 1, 2)]
    result = begin(scenario(duration="20 s", links=links, **{"block.interval": "200 ms"}))
    result.until(20 * 10**9)
    waits = result.latencies_ns()
    late = np.array([wait for (_, node), wait in waits.items() if node == 3]) / 1e6
    rest = np.array([wait for (_, node), wait in waits.items() if node in (1, 2)]) / 1e6
    assert late.max() > 45 and late.min() >= 30
    assert rest.max() == 30
    both_paths(scenario(duration="5 s", links=links))


def test_a_lossy_link_loses_that_share() -> None:
    links = [{"from": 0, "to": 1, "loss": "20 %"}]
    result = both_paths(scenario(duration="60 s", links=links, **{"network.links": "datagram"}))
    sent_over = result.metrics["messages_sent"] / 12  # one link of twelve
    assert result.metrics["messages_dropped"] == pytest.approx(0.2 * sent_over, rel=0.15)


def test_a_narrow_link() -> None:
    """100 kB over 8 Mbit/s is 100 ms later there, and nobody needs that node."""
    load = [{"kind": "backlog", "bytes": "1 kB"}]
    common: dict[str, Any] = {"duration": "20 s", "workload": load}
    block = {"max_transactions": 100, "interval": "500 ms"}
    for network in ({}, {"network.bandwidth": "10 Gbit/s"}):
        chosen = scenario(**common, **network, block=block, links=[{"between": [0, 1], "bandwidth": "8 Mbit/s"}])
        played = begin(chosen)
        played.until(chosen.duration_ns)
        waits = played.latencies_ns()
        late = [wait / 1e6 for (_, node), wait in waits.items() if node == 1]
        rest = [wait / 1e6 for (_, node), wait in waits.items() if node in (2, 3)]
        assert late == pytest.approx([100 + 10] * len(late), abs=2)
        assert rest == pytest.approx([30] * len(rest), abs=2)
        both_paths(chosen)


def test_a_narrow_link_is_shared_by_all_at_its_ends() -> None:
    """Two voters here and two there: the leader's two copies cross one after the other, 100 ms and 200 ms late."""
    sites = {"sites": ["HAK", "HAK", "SYX", "SYX"], "latency": {"model": "fixed", "one_way": "10 ms"}}
    block = {"max_transactions": 100, "interval": "1 s"}
    load = [{"kind": "backlog", "bytes": "1 kB"}]
    links = [{"between": ["HAK", "SYX"], "bandwidth": "8 Mbit/s"}]
    chosen = scenario(duration="10 s", network=sites, workload=load, block=block, links=links)
    played = begin(chosen)
    played.until(chosen.duration_ns)
    waits = played.latencies_ns()
    there = {node: [wait / 1e6 for (_, at), wait in waits.items() if at == node] for node in (2, 3)}
    assert min(there[2] + there[3]) > 100
    assert max(there[3]) == pytest.approx(200 + 10, abs=5)


def test_a_fault_adds_to_what_a_link_is() -> None:
    links = [{"between": [0, 1], "one_way": "50 ms"}, {"between": [0, 1], "bandwidth": "800 Mbit/s"}]
    fault = [{"at": "5 s", "for": "5 s", "degrade_link": {"between": [0, 1], "add_latency": "100 ms"}}]
    chosen = scenario(duration="15 s", links=links, faults=fault, **{"block.interval": "250 ms"})
    played = begin(chosen)
    played.until(chosen.duration_ns)
    born = {row.block: row.time_ns for row in played.events(ledger.EVENT_PROPOSED)}
    late = {born[block] / 1e9: wait / 1e6 for (block, node), wait in played.latencies_ns().items() if node == 1}
    calm = [wait for at, wait in late.items() if not 4.7 < at < 10.1]
    hard = [wait for at, wait in late.items() if 5 < at < 9.5]
    assert calm == pytest.approx([55.12] * len(calm), abs=0.5)
    assert hard == pytest.approx([155.12] * len(hard), abs=0.5)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    protocol=st.sampled_from(["pbft", "raft", "tendermint", "hotstuff", "jolteon", "kauri", "ibft", "clique"]),
    rules=st.lists(
        st.tuples(
            st.sampled_from(ALL), st.sampled_from(ALL), st.sampled_from(["one_way", "jitter", "bandwidth", "loss"])
        ),
        max_size=5,
    ),
    slow=st.dictionaries(st.sampled_from(["cores", "cpu", "crypto", "disk", "upload"]), st.sampled_from([1, 2, 3])),
    seed=st.integers(0, 99),
)
def test_both_paths_agree_whatever_the_equipment(
    protocol: str, rules: list[tuple[int, int, str]], slow: dict[str, int], seed: int
) -> None:
    values = {"one_way": "35 ms", "jitter": "20 ms", "bandwidth": "20 Mbit/s", "loss": "3 %"}
    links = [{"from": a, "to": b, key: values[key]} for a, b, key in rules if a != b]
    node = {"nodes": [seed % 4], **slow}
    if "upload" in slow:
        node["upload"] = f"{10 * slow['upload']} Mbit/s"
    chosen = scenario(
        protocol=protocol, seed=seed, duration="2 s", cpu=CPU, links=links, nodes=[node] if slow else [],
        workload=[{"kind": "open", "rate": "300 tx/s", "bytes": "1 kB"}],
    )  # fmt: skip
    assert run(chosen).digest == run(chosen, fast_path=False).digest


# --- bad input -------------------------------------------------------------------------------------------

BAD = {
    "no such node": ({"nodes": [{"nodes": [9], "cores": 2}]}, "9: no node has this number; nodes are 0 to 3"),
    "nothing said": ({"nodes": [{"nodes": [1]}]}, "says nothing of these nodes; write for example cores: 2"),
    "cores of nothing": ({"nodes": [{"nodes": [1], "cores": 2}]}, "nothing is verified here; set cpu.crypto"),
    "disk of nothing": ({"nodes": [{"nodes": [1], "disk": 2}]}, "writes cost no time here; set cpu.fsync"),
    "crypto and execution": (
        {"nodes": [{"nodes": [1], "crypto": 2}], "cpu": CPU | {"execute": "1 ms", "execution": "before_vote"}},
        "would count for execution before votes too; write cpu: instead",
    ),
    "factor": ({"nodes": [{"nodes": [1], "cpu": 0}], "cpu": CPU}, "must be at least 0.01; raise it"),
    "no such parameter": ({"nodes": [{"nodes": [1], "parameters": {"timeout": "1 s"}}]}, "pbft has no such parameter"),
    "bad parameter": ({"nodes": [{"nodes": [1], "parameters": {"request_timeout": 5}}]}, "has no unit"),
    "no end": ({"links": [{"from": 0, "loss": "1 %"}]}, "says one end; write from and to, or between"),
    "three ends": ({"links": [{"between": [0, 1], "to": 2, "loss": "1 %"}]}, "has exactly one of between"),
    "nothing of a link": ({"links": [{"between": [0, 1]}]}, "says nothing of this link; write for example one_way"),
    "itself": ({"links": [{"between": [1, 1], "loss": "1 %"}]}, "both ends are the same; name two different ends"),
    "no such place": ({"links": [{"between": [0, "XXX"], "loss": "1 %"}]}, "XXX: "),
    "certain loss": ({"links": [{"between": [0, 1], "loss": "100 %"}]}, "must be less than 1; lower it"),
    "queues": (
        {"links": [{"between": [0, 1], "bandwidth": "1 Mbit/s"}], "network.bandwidth": "1 Gbit/s",
         "network.sharing": "fifo"},
        "goes with cards that share what they send",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_equipment(case: str) -> None:
    changes, rule = BAD[case]
    with pytest.raises(ScenarioError, match=r"test\.yaml:1:\d+: ") as error:
        scenario(**changes)
    assert rule in str(error.value)
    assert "; " in str(error.value)


# --- timers on the way -----------------------------------------------------------------------------------


def test_each_step_waits_for_a_flush() -> None:
    """PBFT's three steps of 10 ms, each set off 100 ms before it leaves: 330 ms; the round back to clients has none."""
    result = both_paths(scenario(duration="20 s", **{"network.flush_after": "100 ms"}))
    assert result.metrics["decision_latency_mean_ms"] == 330
    load = [{"kind": "open", "rate": "0.5 tx/s", "arrivals": "uniform"}]
    lone = both_paths(scenario(duration="40 s", workload=load, **{"network.flush_after": "100 ms"}))
    waits = lone.tables["latency_by_place"]
    assert waits["mean_ms"] == pytest.approx([10 + 330 + 10, *[10 + 110 + 330 + 10] * 3], abs=0.01)


def test_what_comes_meanwhile_goes_with_the_same_flush() -> None:
    """Two transactions at one entry 60 ms apart leave it together: the second waited for 40 ms."""
    steps = [{"rate": "0 tx/s", "for": "1 s"}, {"rate": "16.6667 tx/s", "for": "120 ms"}]
    load = [{"kind": "open", "steps": steps, "arrivals": "uniform", "sites": ["3"]}]
    block = {"batch_timeout": "5 ms"}  # so that one block holds both
    result = both_paths(scenario(duration="4 s", workload=load, block=block, **{"network.flush_after": "100 ms"}))
    waits = result.tables["latency_by_place"]
    assert waits["transactions"] == [2]
    assert waits["greatest_ms"][0] - waits["least_ms"][0] == pytest.approx(60, abs=0.1)


def test_a_look_that_comes_too_late_costs_another_flush() -> None:
    """A flush after 1 ms and looks every 5 ms: a step takes 1 to 6 ms more than its 10 ms, 2 to 5 on average."""
    timers = {"network.flush_after": "1 ms", "network.look_every": "5 ms"}
    metrics = both_paths(scenario(n=7, duration="20 s", **timers)).metrics
    assert 3 * (10 + 2) < metrics["decision_latency_mean_ms"] < 3 * (10 + 5)
    assert metrics["decision_latency_max_ms"] <= 3 * 16


@pytest.mark.parametrize("protocol", ["raft", "tendermint", "hotstuff", "kauri", "ibft", "clique"])
@pytest.mark.parametrize("bandwidth", ["unlimited", "50 Mbit/s"])
def test_flushes_are_the_same_on_both_paths(protocol: str, bandwidth: str) -> None:
    load = [{"kind": "open", "rate": "200 tx/s", "bytes": "1 kB"}]
    network = {"network.flush_after": "20 ms", "network.look_every": "30 ms", "network.bandwidth": bandwidth}
    gossip = {"name": "tendermint", "dissemination": "gossip"} if protocol == "tendermint" else protocol
    both_paths(scenario(protocol=gossip, duration="10 s", workload=load, **network))


def test_looks_need_flushes() -> None:
    with pytest.raises(ScenarioError, match="goes with flush_after; write flush_after: 100 ms beside it"):
        scenario(**{"network.look_every": "100 ms"})


def test_processing_is_so_much_more_latency_everywhere() -> None:
    """The same bytes as links that are so much longer, links of their own and paths without a cable included."""
    links = [{"between": [0, 1], "one_way": "20 ms"}]
    taken = [{"between": [0, 1], "one_way": "22 ms"}]
    load = [{"kind": "open", "rate": "20 tx/s", "bytes": "100 B"}]
    for more, less in (({}, {}), ({"links": links}, {"links": taken})):
        with_it = {"nodes": 4, "latency": {"model": "fixed", "one_way": "10 ms"}, "processing": "2 ms"}
        without = {"nodes": 4, "latency": {"model": "fixed", "one_way": "12 ms"}}
        runs = [
            run(scenario(4, network=net, workload=load, duration="5 s", **x))
            for net, x in ((with_it, more), (without, less))
        ]
        assert runs[0].digest == runs[1].digest


def test_processing_stays_when_a_cable_is_cut() -> None:
    """Round the other way: three edges of 5 ms, and the time of processing once."""
    ring = [{"from": str(i), "to": str((i + 1) % 4), "one_way": "5 ms"} for i in range(4)]
    network = {"nodes": 4, "latency": {"model": "fixed", "one_way": "1 ms"}, "topology": {"edges": ring}}
    cut = [{"at": "1 s", "for": "1 s", "cut_cable": {"between": ["0", "1"]}}]
    played = begin(scenario(4, network=network | {"processing": "3 ms"}, faults=cut, duration="3 s"))
    for at_s, ways_ms in ((0.5, 8), (1.5, 18), (2.5, 8)):
        played.until(round(at_s * 1e9))
        assert played.world.run.engine.run_state[kernel.LATENCY].reshape(4, 4)[0, 1] == ways_ms * 1_000_000


@pytest.mark.parametrize(("size", "round_trips"), [("1 kB", 0), ("100 kB", 1), ("250 kB", 2), ("1 MB", 10)])
@pytest.mark.parametrize("sharing", ["fair", "fifo"])
def test_a_block_above_the_window_takes_a_round_trip_for_each_further_one(
    size: str, round_trips: int, sharing: str
) -> None:
    """Raft's entry of one transaction and some bytes more over 10 ms there and back; the vote comes back at once."""
    network = {"nodes": 3, "latency": {"model": "fixed", "one_way": "10 ms"}, "window": "100 kB", "sharing": sharing}
    load = [{"kind": "backlog", "bytes": size}]
    block = {"max_transactions": 1, "max_bytes": "2 MB"}
    chosen = scenario(3, network=network, protocol="raft", workload=load, block=block, duration="10 s")
    result = run(chosen)
    assert result.metrics["decision_latency_mean_ms"] == pytest.approx(20 + 20 * round_trips, abs=0.01)
    assert begin(chosen, fast_path=False).until(chosen.duration_ns).digest == result.digest
