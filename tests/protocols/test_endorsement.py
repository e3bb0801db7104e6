"""Execute, order, validate: endorsement by policy, drawn orderers, delivery to peers, and what conflicts cost."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.observers.endorsement import Policy, PolicyError, parse_policy
from sim.scenario.errors import ScenarioError
from sim.scenario.run import Result, run
from tests.runs import scenario

AT_ONCE = {"name": "raft", "first_leader": 0, "commits": "at_once"}


def peers(*organisations: str, **more: Any) -> list[dict[str, Any]]:
    """A peer for each, at place 0, 1, ... in turn, following the voter there."""
    return [
        {"name": f"p{i}", "site": str(i % 4), "source": i % 4, "organisation": of, **more}
        for i, of in enumerate(organisations)
    ]


def lone(**more: Any) -> dict[str, Any]:
    return {"kind": "closed", "outstanding": 1, "sites": ["3"], "name": "w", **more}


def both_paths(*, status: str = "ok", **changes: Any) -> Result:
    """A run, which is the same with and without the fast path."""
    values = {"protocol": AT_ONCE, "duration": "10 s", "workload": [lone()], **changes}
    chosen = scenario(4, **values)
    fast, handlers = run(chosen), run(chosen, fast_path=False)
    assert fast.digest == handlers.digest
    assert fast.status == status, fast.violations
    return fast


# --- the way of a request ----------------------------------------------------------------------------------


def test_a_request_takes_as_long_as_its_steps() -> None:
    """10 ms a step. Client and peer, 5 ms of work, the other peer and back with its 5, client, peer, orderer; two steps
    of Raft, one more if the orderer drawn is not the leader; to the peer, to the client."""
    found = both_paths(observers=peers("a", "b"), endorsement={"policy": "AND(a, b)", "execute": "5 ms"})
    us = found.tables["latency_client"]["latency_us"].tolist()
    count = found.tables["latency_client"]["transactions"].tolist()
    # 10 + 5 + 10 + 5 + 10 + 10 = 50 for the endorsement; 10 + 10 (+ 10) + 20 + 10 + 10
    assert us == [110_000, 120_000]
    assert count[0] / sum(count) == pytest.approx(0.25, abs=0.12)
    assert found.metrics["endorsement_mean_ms"] == pytest.approx(50, abs=0.1)
    stages = ("endorsement_mean_ms", "ordering_mean_ms", "committing_mean_ms")
    assert sum(found.metrics[name] for name in stages) == pytest.approx(found.metrics["latency_mean_ms"], abs=1)


def test_an_organisation_of_ones_own_is_enough_where_the_policy_says_so() -> None:
    found = both_paths(observers=peers("a", "b"), endorsement={"policy": "OR(a, b)", "execute": "5 ms"})
    assert found.metrics["endorsement_mean_ms"] == pytest.approx(25, abs=0.1)


def test_to_all_orderers_spares_the_way_to_the_leader() -> None:
    found = both_paths(
        observers=peers("a", "b"), endorsement={"policy": "AND(a, b)", "execute": "5 ms", "orderer": "all"}
    )
    assert found.tables["latency_client"]["latency_us"].tolist() == [110_000]


def test_peers_execute_and_voters_do_not() -> None:
    """A block's validation takes 30 ms at its peer: that much later is the answer, and the order is as fast."""
    plain = both_paths(observers=peers("a"), endorsement={"policy": "a"})
    slow = both_paths(observers=peers("a"), endorsement={"policy": "a"}, cpu={"execute_block": "30 ms"})
    assert slow.metrics["committing_mean_ms"] - plain.metrics["committing_mean_ms"] == pytest.approx(30, abs=0.1)
    assert slow.metrics["ordering_mean_ms"] == pytest.approx(plain.metrics["ordering_mean_ms"], abs=1.5)


@pytest.mark.parametrize("protocol", ["pbft", "hotstuff", "tendermint", "qbft"])
def test_other_orderers_serve_too(protocol: str) -> None:
    load = [{"kind": "open", "rate": "30 tx/s", "name": "w"}]
    found = both_paths(
        protocol=protocol, observers=peers("a", "b", "c"), endorsement={"policy": "OutOf(2, a, b, c)"}, workload=load
    )
    assert found.metrics["success_share"] == 1.0
    assert found.metrics["committed"] >= found.metrics["submitted"] - 15


# --- peers that fail ---------------------------------------------------------------------------------------


def test_another_peer_of_an_organisation_stands_in() -> None:
    crash = [{"at": "2 s", "for": "4 s", "crash": {"nodes": ["p1"]}}]
    load = [lone(accesses=[], sites=["0"])]
    two = both_paths(observers=peers("a", "b", "b"), endorsement={"policy": "AND(a, b)"}, faults=crash, workload=load)
    one = both_paths(
        observers=peers("a", "b"), endorsement={"policy": "AND(a, b)", "timeout": "1 s"}, faults=crash, workload=load
    )
    assert two.metrics["committed"] > 1.4 * one.metrics["committed"]
    assert one.metrics["rejected"] > 0


def test_clients_of_a_peer_that_is_down_turn_to_the_next() -> None:
    crash = [{"at": "2 s", "crash": {"nodes": ["p0"]}}]
    found = both_paths(
        observers=peers("a", "a", "b"), endorsement={"policy": "AND(a, b)", "timeout": "1 s"}, faults=crash,
        workload=[lone(sites=["0"])], clients={"retries": 3, "retry_after": "500 ms"},
    )  # fmt: skip
    table = found.tables["timeline"]
    after = [n for start, n in zip(table["start_s"], table["committed"], strict=True) if start > 6]
    assert sum(after) > 15


# --- conflicts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [20, 100, 400])
def test_a_hot_key_has_r_over_1_plus_rw_successes_a_second(rate: int) -> None:
    """One success opens the next window only when it is committed where the next one is endorsed."""
    found = both_paths(
        observers=peers("a", "b"), endorsement={"policy": "AND(a, b)", "execute": "1 ms"}, duration="60 s",
        block={"max_transactions": 1000, "batch_timeout": "50 ms"},
        state={"spaces": {"hot": 1}, "conflicts": "abort", "record": True},
        workload=[{"kind": "open", "rate": f"{rate} tx/s", "sites": ["0"], "accesses": [{"space": "hot"}]}],
    )  # fmt: skip
    rows = found.tables["executed"]
    valid = [h for h, fate in zip(rows["height"].tolist(), rows["result"], strict=True) if fate == "valid"]
    assert max(Counter(valid).values()) == 1
    assert all(height > before for before, height in itertools.pairwise(valid))
    # from the execution at the first peer to the commit there: the other peer and back, client and peer, orderer,
    # batch, order, delivery
    without_batch_s = 0.010 + 0.001 + 0.010 + 0.020 + 0.010 + 0.0075 + 0.020 + 0.010
    slowest, fastest = (rate / (1 + rate * (without_batch_s + batch_s)) for batch_s in (0.050, 0.0))
    assert 0.9 * slowest <= len(valid) / 60 <= 1.1 * fastest
    assert found.metrics["conflicts"] + len(valid) == len(rows["result"])


def test_peers_at_different_heights_disagree_about_keys_written_in_between() -> None:
    """Peer b follows a voter that is 300 ms away, so it is some blocks behind, and one key is written all the time."""
    observers = peers("a", "b")
    changes = {
        "observers": observers, "endorsement": {"policy": "AND(a, b)"}, "block": {"max_transactions": 100},
        "state": {"spaces": {"hot": 3}, "conflicts": "abort", "record": True},
        "workload": [{"kind": "open", "rate": "20 tx/s", "sites": ["0"], "name": "w", "accesses": [{"space": "hot"}]}],
    }  # fmt: skip
    near, apart = both_paths(**changes), both_paths(**changes, faults=[
        {"at": "0 s", "degrade_link": {"between": ["p1", 1], "add_latency": "300 ms"}}])  # fmt: skip
    assert apart.metrics["endorsements_differing"] > near.metrics["endorsements_differing"]
    assert apart.metrics["rejected"] == apart.metrics["endorsements_differing"]


# --- anything ----------------------------------------------------------------------------------------------


@st.composite
def networks(draw: st.DrawFn) -> dict[str, Any]:
    """Peers of up to three organisations, a policy that they can meet, faults at peers and voters."""
    count = draw(st.integers(1, 5))
    of = [draw(st.sampled_from("abc")) for _ in range(count)]
    names = sorted({*of})
    policy = draw(st.sampled_from(["AND(", "OR(", "OutOf(1, "])) + ", ".join(names) + ")"
    at = draw(st.integers(100, 2000))
    victims = draw(st.lists(st.sampled_from([0, 1, 2, 3, *(f"p{i}" for i in range(count))]), max_size=2, unique=True))
    faults = [
        {"at": f"{at} ms", "for": f"{draw(st.integers(50, 1500))} ms", "crash": {"nodes": [who]}} for who in victims
    ]
    load = draw(st.sampled_from([
        {"kind": "open", "rate": "60 tx/s"}, {"kind": "closed", "outstanding": 5, "think_time": "20 ms"},
    ]))  # fmt: skip
    return {
        "protocol": draw(st.sampled_from(["raft", "pbft", "hotstuff", "tendermint"])),
        "seed": draw(st.integers(0, 99)),
        "observers": peers(*of),
        "endorsement": {
            "policy": policy, "execute": draw(st.sampled_from(["0 ms", "3 ms"])), "timeout": "700 ms",
            "orderer": draw(st.sampled_from(["drawn", "all"])),
        },
        "state": {
            "spaces": {"k": draw(st.sampled_from([1, 50]))}, "conflicts": draw(st.sampled_from(["abort", "retry"])),
        },
        "workload": [load | {"accesses": [{"space": "k", "count": 2}]}],
        "clients": {"retries": draw(st.sampled_from([0, 2])), "retry_after": "100 ms", "resend_after": "500 ms"},
        "network": {
            "nodes": 4, "latency": {"model": "fixed", "one_way": "10 ms"},
            "loss": draw(st.sampled_from(["0 %", "2 %"])), "links": draw(st.sampled_from(["ordered", "datagram"])),
        },
        "faults": faults,
        "duration": "5 s",
    }  # fmt: skip


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
def test_nothing_is_lost_or_counted_twice_whatever_fails(network: dict[str, Any]) -> None:
    chosen = scenario(4, **network)
    fast, handlers = run(chosen), run(chosen, fast_path=False)
    assert fast.digest == handlers.digest
    assert fast.status == "ok", fast.violations
    table = fast.tables["classes"]
    done = sum(table[name][0] for name in ("succeeded", "given_up", "rejected", "expired"))
    assert done <= table["submitted"][0]


# --- policies ----------------------------------------------------------------------------------------------


def test_policies_are_met_by_what_they_say() -> None:
    policy = parse_policy("AND(a, OR(b, OutOf(2, c, d, e)))")
    assert policy.organisations == ("a", "b", "c", "d", "e")
    assert policy.ways() == [frozenset("ab"), frozenset("acd"), frozenset("ace"), frozenset("ade")]
    assert not policy.met_by(frozenset("bcde"))
    assert parse_policy("bank").ways() == [frozenset({"bank"})]
    assert parse_policy(" and ( a , b ) ") == Policy(2, ("a", "b"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks a name"),
        ("AND(a", "closing bracket"),
        ("AND(a,)", "lacks a name"),
        ("NOT(a)", "write AND, OR or OutOf"),
        ("OutOf(3, a, b)", "nobody can meet"),
        ("OutOf(x, a)", "without a number"),
        ("a b", "goes on after its end"),
        ("AND(a; b)", "no name, bracket or comma"),
        ("(" * 50, "lacks a name"),
        ("AND(" * 50 + "a" + ")" * 50, "nested more than"),
        (f"OR({', '.join(f'o{i}' for i in range(13))})", "more than 12"),
    ],
)
def test_what_is_no_policy_is_refused(text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        parse_policy(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"endorsement": {"policy": "AND(a, z)"}}, "names z, which has no peer"),
        ({"endorsement": {"policy": "OutOf(3, a, b)"}}, "nobody can meet"),
        ({"endorsement": {}}, "policy"),
        ({}, "write endorsement"),
        ({"endorsement": {"policy": "a"}, "observers": peers("a", headers_only=True)}, "executes whole blocks"),
        ({"endorsement": {"policy": "a"}, "workload": [{"kind": "backlog"}]}, "no clients to endorse for"),
        ({"endorsement": {"policy": "a"}, "clients": {"acknowledge": "quorum"}}, "here peers do"),
        ({"endorsement": {"policy": "a"}, "protocol": "clique"}, "an order that stands"),
        ({"endorsement": {"policy": "a"}, "state": {"spaces": {"k": 2}}, "workload": [lone(accesses=[{"space": "k"}])]},
         "write abort, or retry"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        scenario(4, **{"observers": peers("a", "b"), "workload": [lone()]} | changes)
