"""Voters that agree on what a block results in before they answer (FISCO BCOS's checkpoints): times, counts, losses."""

from __future__ import annotations

from typing import Any

import pytest

from sim.protocols import PROTOCOLS
from sim.scenario.errors import ScenarioError
from sim.scenario.run import Result, run
from tests.runs import play, scenario

FINAL = [name for name, entry in PROTOCOLS.items() if not entry.protocol.forks]
ONE_BY_ONE = [{"kind": "closed", "outstanding": 1, "bytes": "100 B", "sites": ["0"]}]
WAYS_MS = [[0, 10, 30, 60], [10, 0, 25, 55], [30, 25, 0, 40], [60, 55, 40, 0]]


def result(n: int = 4, *, results: str = "n - f", **changes: Any) -> Result:
    """A run whose voters agree on results."""
    changes = {"workload": ONE_BY_ONE, "duration": "20 s", "clients": {"results": results}, **changes}
    return run(scenario(n, **changes))


def answers_ms(found: Result) -> set[float]:
    """The medians of a closed loop at node 0, to a tenth of a millisecond."""
    median = found.metrics["latency_p50_ms"]
    assert median is not None
    return {round(float(median), 1)}


def messages(found: Result) -> dict[str, int]:
    """How many messages of each type were sent."""
    table = found.tables["messages_by_type"]
    return dict(zip(table["type"], map(int, table["messages"]), strict=True))


def test_it_takes_one_delay_more_and_a_message_from_each_to_each() -> None:
    own, agreed = result(results="own"), result()
    assert answers_ms(agreed) == {next(iter(answers_ms(own))) + 10}
    blocks = agreed.metrics["decisions"]
    assert 12 * (blocks - 1) <= messages(agreed)["RESULT"] <= 12 * blocks
    assert "RESULT" not in own.tables["messages_by_type"]["type"]
    assert own.metrics["messages_per_decision"] == agreed.metrics["messages_per_decision"], (
        "it is no part of a decision"
    )


def test_each_voter_answers_once_however_many_results_come_later() -> None:
    """The fourth result comes before the client has its answer: it is no second word of the same voter."""
    found = result(workload=[{"kind": "open", "rate": "5 tx/s", "bytes": "100 B", "sites": ["0"]}], protocol="pbft")
    assert 0.9 * found.metrics["acknowledged"] < messages(found)["REPLY"] <= found.metrics["acknowledged"]
    asked = {"results": "n - f", "acknowledge": "quorum"}
    quorum = result(clients=asked, workload=[{"kind": "open", "rate": "5 tx/s", "bytes": "100 B"}], protocol="pbft")
    assert messages(quorum)["REPLY"] <= 4 * quorum.metrics["committed"]


@pytest.mark.parametrize(("results", "others"), [("f + 1", 1), ("n - f", 2)])
def test_a_voter_answers_with_the_last_of_those_it_needs(results: str, others: int) -> None:
    """Raft: node 0 leads, decides with the second answer, and tells the others, who execute a delay later."""
    network = {"nodes": 4, "latency": {"model": "explicit", "one_way_ms": WAYS_MS}}
    raft = {
        "name": "raft",
        "first_leader": 0,
        "commits": "at_once",
        "election_timeout_low": "2 s",
        "election_timeout_high": "3 s",
    }
    kept = {"network": network, "protocol": raft}
    decided_ms = 2 * WAYS_MS[0][2]  # a majority of four is three
    executed_ms = [decided_ms, *(decided_ms + way for way in WAYS_MS[0][1:])]
    comes_ms = sorted(executed_ms[i] + WAYS_MS[i][0] for i in range(1, 4))[others - 1]
    assert answers_ms(result(results=results, **kept)) == {comes_ms}


def test_who_executes_slowly_is_waited_for_only_if_needed() -> None:
    """Two of four execute ten times as slowly, 100 ms in place of 10."""
    cpu = {"execute": "10 ms", "execution": "after"}
    slow = [{"nodes": [2, 3], "cpu": 10}]
    quick = next(iter(answers_ms(result(results="f + 1", cpu=cpu, nodes=slow))))
    late = next(iter(answers_ms(result(results="n - f", cpu=cpu, nodes=slow))))
    assert late == pytest.approx(quick + 90, abs=0.2)


def test_f_that_are_gone_are_not_waited_for_and_one_more_stops_the_answers() -> None:
    crash = [{"at": "1 s", "crash": {"nodes": [3]}}]
    assert result(faults=crash, protocol={"name": "qbft", "round_timeout": "200 ms"}).metrics["acknowledged"] > 100
    raft = {"name": "raft", "first_leader": 0}
    five = [{"at": "1 s", "crash": {"nodes": [3, 4]}}]  # Raft goes on with three of five; four results are asked for
    stopped = result(5, faults=five, protocol=raft)
    assert stopped.status == "ok"
    assert (
        0
        < stopped.metrics["acknowledged"]
        < 60
        < result(5, faults=five, protocol=raft, results="f + 1").metrics["acknowledged"]
    )


def test_a_silent_voter_tells_no_result() -> None:
    """Its word is not needed."""
    silent = [{"nodes": [3], "behaviour": "silent"}]
    assert result(corrupted=silent).metrics["acknowledged"] > 100


def test_what_was_lost_is_asked_for() -> None:
    """Each copy is lost one time in twenty, for good: who was not answered asks again, and is."""
    network = {"nodes": 4, "latency": {"model": "fixed", "one_way": "10 ms"}, "links": "datagram", "loss": "5 %"}
    load = [{"kind": "open", "rate": "20 tx/s", "bytes": "100 B"}]
    clients = {"results": "n - f", "resend_after": "1 s"}
    found = result(network=network, workload=load, clients=clients, duration="60 s", protocol={"name": "pbft"})
    committed, acknowledged = found.metrics["committed"], found.metrics["acknowledged"]
    assert committed is not None and acknowledged is not None
    assert acknowledged > 0.9 * committed > 900


@pytest.mark.parametrize("protocol", FINAL)
@pytest.mark.parametrize("results", ["f + 1", "n - f"])
def test_both_paths_agree_whatever_happens(protocol: str, results: str) -> None:
    """Crashes, cuts and losses; a clean run answers all but the last."""
    for n, seed in ((4, 1), (7, 2)):
        faults = [
            {"at": "1 s", "for": "2 s", "crash": {"nodes": [1]}},
            {"at": "4 s", "for": "1 s", "cut_link": {"between": [0, 2]}},
        ]
        chosen = scenario(
            n, protocol=protocol, duration="8 s", faults=faults, clients={"results": results}, seed=seed,
            cpu={"execute": "1 ms"}, workload=[{"kind": "open", "rate": "50 tx/s", "bytes": "200 B"}],
        )  # fmt: skip
        fast, slow = play(chosen), play(chosen, fast_path=False)
        assert fast.digest == slow.digest
        assert not fast.verdict().violations


@pytest.mark.parametrize("protocol", ["pbft", "qbft", "tendermint", "hotstuff"])
@pytest.mark.parametrize(
    "lie",
    [
        {"behaviour": "equivocating"}, {"behaviour": "double-voting"}, {"behaviour": "withholding", "to": [0]},
        {"behaviour": "twin", "groups": [[0, 1], [3]]}, {"behaviour": "slow", "delay": "50 ms"},
    ],
    ids=lambda lie: lie["behaviour"],
)  # fmt: skip
def test_liars_neither_stop_the_answers_nor_tell_the_paths_apart(protocol: str, lie: dict[str, Any]) -> None:
    load = [{"kind": "open", "rate": "20 tx/s", "bytes": "100 B"}]
    chosen = scenario(
        4,
        protocol=protocol,
        corrupted=[{"nodes": [2]} | lie],
        clients={"results": "n - f"},
        duration="8 s",
        workload=load,
    )
    fast, slow = play(chosen), play(chosen, fast_path=False)
    assert fast.digest == slow.digest
    assert not fast.verdict().violations


def test_more_voters_than_a_word_has_bits() -> None:
    load = [{"kind": "open", "rate": "5 tx/s", "bytes": "100 B"}]
    found = result(70, workload=load, duration="5 s", protocol="pbft")
    assert found.metrics["acknowledged"] >= 0.8 * found.metrics["committed"] > 0


def test_a_quarter_of_a_million_results_at_one_instant_are_no_livelock() -> None:
    found = result(500, workload=[{"kind": "backlog", "bytes": "100 B"}], duration="100 ms", protocol="pbft")
    assert found.status == "ok"
    assert found.metrics["decisions"] == 3


def test_decisions_that_may_be_undone_have_no_result_to_agree_on() -> None:
    with pytest.raises(ScenarioError, match="n - f: needs decisions that stand"):
        scenario(4, protocol="clique", clients={"results": "n - f"}, workload=ONE_BY_ONE)
