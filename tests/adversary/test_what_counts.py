"""What corrupted replicas decide counts nowhere, and who is silent is silent to clients too."""

from __future__ import annotations

from typing import Any

import pytest

from sim.ledger import rows as ledger
from sim.protocols import PROTOCOLS
from sim.scenario.run import run
from tests.runs import MS, Played, S, play, scenario

LOAD = [{"kind": "open", "rate": "40 tx/s", "bytes": "200 B"}]
BEHAVIOURS: dict[str, dict[str, Any]] = {
    "silent": {},
    "slow": {"delay": "150 ms"},
    "withholding": {"to": [2]},
    "equivocating": {},
    "double-voting": {},
    "replaying": {"after": "40 ms"},
}


def recounted(played: Played, voters: int, corrupted: set[int]) -> dict[int, int]:
    """Block number -> when a correct voter was the first to decide it, from the raw trace."""
    first: dict[int, int] = {}
    for time_ns, _, node, block, *_ in played.decided():
        if node < voters and node not in corrupted:
            first.setdefault(block, time_ns)
    return first


def holds_only_correct(played: Played, voters: int, corrupted: set[int]) -> None:
    """All that is counted agrees with the trace of correct voters."""
    first = recounted(played, voters, corrupted)
    blocks, run_state = played.monitor.blocks, played.world.run.run_state
    born = {row.block: row for row in played.events(ledger.EVENT_PROPOSED)}
    assert blocks.count == int(run_state[ledger.DECISIONS]) == len(first)
    assert blocks.latency_sum_ns == sum(time - born[block][0] for block, time in first.items())
    assert {int(row[0]): int(row[7]) for row in blocks.table()} == first
    assert int(run_state[ledger.COMMITTED] + run_state[ledger.REPEATED]) == sum(born[block][6] for block in first)
    assert int(run_state[ledger.ACKED]) <= int(run_state[ledger.COMMITTED])
    assert played.monitor.decisions.last_ns <= max(first.values(), default=-1)
    outcomes = played.verdict().outcomes
    assert {outcomes["conservation_transactions"], outcomes["conservation_messages"]} <= {"pass", "not applicable"}


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_count_is_of_correct_voters(protocol: str, behaviour: str) -> None:
    voters = 7 if protocol == "kauri" else 4
    corrupted = [{"nodes": [1], "behaviour": behaviour, **BEHAVIOURS[behaviour]}]
    played = play(scenario(voters, protocol=protocol, duration="6 s", workload=LOAD, corrupted=corrupted))
    holds_only_correct(played, voters, {1})


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_above_the_bound_too(protocol: str) -> None:
    corrupted = [
        {"nodes": [0, 1], "behaviour": "equivocating"},
        {"nodes": [0, 1], "behaviour": "double-voting"},
        {"nodes": [2], "behaviour": "withholding", "to": [3]},
    ]
    played = play(scenario(4, protocol=protocol, duration="4 s", workload=LOAD, corrupted=corrupted))
    holds_only_correct(played, 4, {0, 1, 2})


def test_both_seats_of_a_twin_count_for_nothing() -> None:
    twin = [{"nodes": [0], "behaviour": "twin"}]
    played = play(scenario(4, duration="4 s", workload=LOAD, corrupted=twin))
    seats = {0, *played.world.run.engine.twin_seats}
    assert len(seats) == 2
    holds_only_correct(played, 4, seats)


def test_jolteon_waits_one_view_longer_for_the_successor_of_a_silent_leader() -> None:
    """Four voters 10 ms apart, views of 200 ms: 264.5 ms by hand from the trace; the silent one decided after 40 ms."""
    protocol = {"name": "jolteon", "view_timeout": "200 ms", "view_timeout_max": "200 ms"}
    silent = [{"nodes": [1], "behaviour": "silent"}]
    result = run(scenario(4, protocol=protocol, duration="60 s", corrupted=silent))
    assert result.metrics["decision_latency_mean_ms"] == pytest.approx(264.5, abs=1)


@pytest.mark.parametrize(("voters", "leaders", "mean_ms"), [(4, [1], 280 / 3), (7, [1, 4], 124.0)])
def test_forked_tails_delay_what_correct_voters_decide(voters: int, leaders: list[int], mean_ms: float) -> None:
    """Chained HotStuff whose corrupted leaders build on the certificate before the last: closed forms, 20 ms a view.

    The leader itself, who has the certificate that it hides, decided earlier: 73.3 and 76 ms were printed once.
    """
    everyone_else = [node for node in range(voters) if node not in leaders]
    forking = [{"nodes": leaders, "behaviour": "equivocating", "older": 1, "groups": [[], everyone_else]}]
    result = run(scenario(voters, protocol="hotstuff", duration="60 s", corrupted=forking))
    assert result.metrics["decision_latency_mean_ms"] == pytest.approx(mean_ms, abs=0.1)


# --- silent to clients ----------------------------------------------------------------------------------------


def of(played: Played, name: str, node: int) -> list[int]:
    """When a node sent messages of a type, ns."""
    names = played.world.run.names
    return [int(row[0]) for row in played.log if names[row[3]] == name and row[1] == node]


def test_a_silent_voter_answers_no_clients() -> None:
    silent = [{"nodes": [3], "behaviour": "silent", "at": "2 s", "until": "4 s"}]
    played = play(scenario(4, duration="6 s", workload=LOAD, trace="messages", corrupted=silent))
    answers = of(played, "REPLY", 3)
    assert any(time < 2 * S for time in answers)
    assert [time for time in answers if 2 * S + 1 * MS < time < 4 * S] == []
    assert any(time > 4 * S for time in answers)


def test_clients_of_a_silent_voter_ask_another() -> None:
    """It passes nothing on either; after `resend_after` its clients turn to the next voter and are served."""
    silent = [{"nodes": [3], "behaviour": "silent"}]
    patient = {"clients.resend_after": "1 s"}
    result = run(scenario(4, duration="12 s", workload=LOAD, corrupted=silent, **patient))
    assert result.status == "ok"
    assert result.metrics["latency_p50_ms"] < 100 < 1000 < result.metrics["latency_p99_ms"]
    assert result.metrics["acknowledged"] > 0.7 * result.metrics["submitted"]


def test_a_client_without_an_answer_asks_less_and_less_often() -> None:
    """Every copy takes longer than the run: one second, two, four, eight, and every eight from then on."""
    late = [{"types": ["TRANSACTION"], "delay_by": "1000 s"}]
    load = [{"kind": "closed", "outstanding": 1, "bytes": "200 B", "sites": ["0"]}]
    patient = {"clients.resend_after": "1 s"}
    played = play(scenario(4, duration="33 s", workload=load, rules=late, trace="messages", **patient))
    assert played.sent("TRANSACTION") == 1 + len([1, 2, 4, 8, 16, 24, 32])
