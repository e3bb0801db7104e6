"""The campaign: configurations are functions of a number, every run has an outcome, and it goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.plan.campaign.campaign import campaign
from sim.plan.campaign.draws import QUIET_S, draw
from sim.plan.campaign.runs import INTERNAL, LIVENESS, OK, REFUSED, SAFETY, Outcome, attempt, explained, judge, shrink
from sim.protocols import PROTOCOLS
from sim.units import parse_ns

runner = CliRunner()


def test_a_configuration_is_a_function_of_seed_and_number() -> None:
    one, same = (draw("pbft", PROTOCOLS["pbft"], 3, 7) for _ in range(2))
    assert one == same
    others = [draw("pbft", PROTOCOLS["pbft"], 3, number).data for number in range(20)]
    assert len({json.dumps(data, sort_keys=True) for data in others}) == 20
    assert draw("pbft", PROTOCOLS["pbft"], 4, 7) != one


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_trouble_ends_and_a_healthy_core_is_left(protocol: str) -> None:
    for number in range(40):
        drawn = draw(protocol, PROTOCOLS[protocol], 1, number)
        data, n = drawn.data, int(drawn.data["network"]["nodes"])
        gone = {node for entry in data.get("corrupted", ()) for node in entry["nodes"]}
        assert len(gone) == drawn.corrupted <= drawn.bears
        for fault in data.get("faults", ()):
            if "until" in fault:
                assert parse_ns(fault["until"]) <= QUIET_S * 1e9
            else:
                gone |= {*fault["crash"]["nodes"]}
        for rule in data.get("rules", ()):
            assert parse_ns(rule["until"]) <= QUIET_S * 1e9
        limit = (n - 1) // 2 if not PROTOCOLS[protocol].tolerates_lies else (n - 1) // 3
        if "power" not in data["protocol"]:
            assert len(gone) <= limit


def test_beyond_the_bound_one_more_is_corrupted() -> None:
    for number in range(10):
        drawn = draw("pbft", PROTOCOLS["pbft"], 1, number, beyond=True)
        assert drawn.corrupted == drawn.bears + 1


def test_a_run_has_an_outcome_with_its_kind() -> None:
    found = attempt("pbft", 1, 3)
    assert (found.protocol, found.number, found.kind) == ("pbft", 3, OK)
    assert not found.is_finding


def test_a_fork_is_a_finding_and_shrinks_to_what_it_needs() -> None:
    """IBFT v1 with six voters parted three and three: both halves have a quorum (attack D2)."""
    data = {
        "name": "fork", "duration": "8 s", "network": {"nodes": 6, "latency": {"model": "fixed", "one_way": "10 ms"}},
        "protocol": {"name": "ibft", "round_timeout": "200 ms"}, "workload": [{"kind": "backlog"}],
        "faults": [{"at": "1 s", "until": "3 s", "partition": {"groups": [[0, 1, 2]]}},
                   {"at": "2 s", "until": "3 s", "cut_link": {"between": [0, 1]}}],
        "cpu": {"crypto": "ed25519"}, "block": {"max_transactions": 10},
    }  # fmt: skip
    kind, what, evidence, fired = judge(data)
    assert (kind, what) == (SAFETY, "agreement")
    assert "height" in evidence
    assert fired > 0
    smaller = shrink(data, kind, what)
    assert [*smaller["faults"][0]] == ["at", "until", "partition"]
    assert len(smaller["faults"]) == 1
    assert "cpu" not in smaller
    assert explained("ibft", data, SAFETY)
    assert not explained("pbft", data, SAFETY)


def test_what_is_explained_is_not_a_finding_and_only_for_its_cause() -> None:
    network = {"nodes": 4}
    dead = [{"at": "1 s", "crash": {"nodes": [1]}}]
    lasting = {"network": network, "protocol": {"name": "hotstuff"}, "faults": dead}
    assert "in a row" in explained("hotstuff", lasting, LIVENESS)
    assert explained("hotstuff", lasting | {"faults": []}, LIVENESS) == ""
    assert explained("hotstuff", lasting, SAFETY) == ""
    assert explained("hotstuff", lasting | {"network": {"nodes": 7}}, LIVENESS) == ""
    assert explained("pbft", lasting, LIVENESS) == ""
    assert Outcome("pbft", 1, INTERNAL).is_finding
    assert not Outcome("pbft", 1, REFUSED).is_finding


def test_a_campaign_goes_on_where_it_stopped(tmp_path: Path) -> None:
    def go(most: int) -> tuple[int, list[tuple[str, int]]]:
        found = campaign(["pbft", "raft"], seed=2, budget_s=600, workers=1, out=tmp_path, most=most)
        return len(found.outcomes), [(one.protocol, one.number) for one in found.outcomes]

    assert go(1) == (2, [("pbft", 0), ("raft", 0)])
    log = tmp_path / "campaign" / "2.jsonl"
    log.write_text(log.read_text() + '{"protocol": "pbft", "numb')  # a kill
    log.write_text(log.read_text() + "\n")
    count, done = go(2)
    assert count == 4
    assert sorted(done) == [("pbft", 0), ("pbft", 1), ("raft", 0), ("raft", 1)]


def test_the_command_prints_a_table_and_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    options = ["--protocol", "raft", "--runs", "1", "--workers", "1", "--out", str(tmp_path)]
    answer = runner.invoke(app, ["campaign", *options])
    assert answer.exit_code == 0, answer.output
    assert "| raft | 1 |" in answer.output
    assert all(len(line) <= 80 for line in answer.output.splitlines())
    data = json.loads(runner.invoke(app, ["campaign", *options, "--json"]).output)
    assert data["protocols"][0]["runs"] == 1
    for wrong in (["--protocol", "pbtf"], ["--budget", "0 s"], ["--budget", "ten"]):
        answer = runner.invoke(app, ["campaign", *wrong, "--out", str(tmp_path)])
        assert answer.exit_code == 2
