"""What a scenario can say of messages, replies and the operator: every k-th view, messages of a file, who is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sim.scenario.errors import ScenarioError
from sim.scenario.run import run
from tests.runs import scenario

GUIDE = Path("docs/guides/attacks.md").read_text()
OVERRIDE = GUIDE.split("## An override with messages and timers of its own")[1].split("```python\n")[1].split("```")[0]


def test_rules_name_messages_of_a_protocol_file(tmp_path: Path) -> None:
    (tmp_path / "polite.py").write_text(OVERRIDE)
    (tmp_path / "greetings.yaml").write_text(
        "duration: 1 s\nnetwork: {nodes: 4, latency: {model: fixed, one_way: 10 ms}}\nprotocol: {name: pbft}\n"
        "workload: [{kind: backlog, bytes: 512 B}]\nrules: [{types: [Greeting], src: [0], drop: true}]\n"
    )
    words = ["run", "greetings.yaml", "--protocol-file", "polite.py:Polite", "--quiet"]
    code = "from sim.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(Path.cwd()), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "never" not in done.stdout  # the rule took effect
    plain = subprocess.run(
        [sys.executable, "-c", code, "check", "greetings.yaml"], cwd=tmp_path, capture_output=True, text=True,
        check=False, env={"PYTHONPATH": str(Path.cwd()), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert plain.returncode == 2
    assert "greetings.yaml:5" in plain.stderr and "pbft sends no such message" in plain.stderr


def test_every_third_height() -> None:
    """One proposal to each of three replicas at heights 1, 4, 7 ...; the height that a range begins at counts."""
    for span, of in (({"every": 3}, {0}), ({"from": 1, "every": 3}, {1}), ({"from": 2, "to": 8, "every": 3}, {2})):
        slow = {"rules": [{"types": ["PrePrepare"], "height": span, "delay_by": "1 ms"}]}
        result = run(scenario(4, duration="1 s", **slow))
        heights = range(1, result.metrics["decisions"] + 2)
        meant = [h for h in heights if h % 3 in of and span.get("from", 0) <= h <= span.get("to", 10**9)]
        (matched,) = result.tables["rules"]["matched"]
        assert matched in (3 * len(meant), 3 * (len(meant) - 1))


@pytest.mark.parametrize("replies", ["entry", "quorum", "2f + 1", "all"])
def test_so_many_replies_convince_a_client(replies: str) -> None:
    """With equal delays the replies come together; with one voter cut off for good only fewer than all arrive."""
    load = [{"kind": "open", "rate": "20 tx/s", "bytes": "512 B", "sites": ["0"]}]
    calm = scenario(4, workload=load, duration="2 s", clients={"acknowledge": replies})
    assert run(calm).metrics["latency_p50_ms"] == pytest.approx(50, abs=5)
    gone = scenario(
        4, workload=load, duration="3 s", clients={"acknowledge": replies},
        faults=[{"at": "0 s", "crash": {"nodes": [3]}}],
    )  # fmt: skip
    answered = run(gone).metrics["acknowledged"]
    assert (answered == 0) == (replies == "all")


def test_the_operator_tells_one_server_only() -> None:
    """A follower of Raft that alone was told leads nobody, and nothing changes; told the leader, it does."""
    members = {"network.members": [0, 1, 2], "duration": "5 s"}
    done = {}
    for told in (0, 1, 2, "all"):
        change = {"at": "1 s", "add": [3]} | ({} if told == "all" else {"told": [told]})
        result = run(scenario(4, protocol="raft", membership=[change], **members))
        done[told] = not any("never carried out" in warning or "membership" in warning for warning in result.warnings)
    assert done["all"]
    assert sum(done[node] for node in (0, 1, 2)) == 1


def test_a_request_told_to_nobody_is_refused() -> None:
    with pytest.raises(ScenarioError, match="names nobody, so nothing happens; name a voter, or write all"):
        scenario(4, protocol="raft", membership=[{"at": "1 s", "remove": [3], "told": []}])
    with pytest.raises(ScenarioError, match="no node has this number"):
        scenario(4, protocol="raft", membership=[{"at": "1 s", "remove": [3], "told": [9]}])


SHARED = {"network.bandwidth": "200 Mbit/s"}


@pytest.mark.parametrize("card", [{}, SHARED])
@pytest.mark.parametrize("name", ["hotstuff", "qbft", "pbft", "tendermint", "raft"])
def test_rules_name_the_leader_of_the_senders_view(name: str, card: dict[str, str]) -> None:
    """A proposal is sent by the leader: all copies match `src: leader`, and none does `dst: leader`."""
    proposal = {"hotstuff": "Proposal", "tendermint": "Proposal", "raft": "AppendEntries"}.get(name, "PrePrepare")
    later = {"delay_by": "1 ms", "types": [proposal]}
    rules = [later | {"src": "leader"}, later | {"dst": "leader"}, later]
    result = run(scenario(4, protocol=name, duration="4 s", rules=rules, **card))
    from_leader, to_leader, all_of_them = (int(matched) for matched in result.tables["rules"]["matched"])
    assert (from_leader, to_leader) == (all_of_them, 0) and all_of_them > 30


@pytest.mark.parametrize("card", [{}, SHARED])
def test_votes_of_hotstuff_go_to_the_next_leader(card: dict[str, str]) -> None:
    """A rule for `dst: next leader` matches every VOTE; one for `dst: leader` none."""
    later = {"delay_by": "1 ms", "types": ["VOTE"]}
    rules = [later | {"dst": "next leader"}, later | {"dst": "leader"}, later]
    result = run(scenario(4, protocol="hotstuff", duration="4 s", rules=rules, **card))
    to_next, to_leader, all_of_them = (int(matched) for matched in result.tables["rules"]["matched"])
    assert (to_next, to_leader) == (all_of_them, 0) and all_of_them > 100


def test_a_rule_follows_the_leader_through_a_view_change() -> None:
    """PBFT whose leaders all say nothing halts; a rule for one place only costs one view change."""
    silent = {"drop": True, "types": ["PrePrepare"]}
    quick = {"name": "pbft", "request_timeout": "200 ms"}
    one = run(scenario(4, protocol=quick, duration="10 s", rules=[silent | {"src": [0]}]))
    all_leaders = run(scenario(4, protocol=quick, duration="10 s", rules=[silent | {"src": "leader"}]))
    assert one.status == "ok" and one.metrics["decisions"] > 100
    assert all_leaders.metrics["decisions"] == 0


def test_a_script_names_the_leader_and_every_second_view() -> None:
    """A replica that keeps its votes from the next leader in every second view, and one that does in all."""

    def decisions(step: dict[str, object]) -> int:
        liar = [{"nodes": [0], "behaviour": "scripted", "script": [{"sends": "VOTE", "drop": True} | step]}]
        quick = {"name": "hotstuff", "view_timeout": "200 ms"}
        gone = [{"at": "0 s", "crash": {"nodes": [3]}}]  # all three votes are needed
        return int(run(scenario(7, protocol=quick, duration="20 s", corrupted=liar, faults=gone)).metrics["decisions"])

    never, always = decisions({"to": "leader"}), decisions({"to": "next leader"})
    assert never == always  # six of seven vote, five are needed
    four = {"name": "hotstuff", "view_timeout": "200 ms"}

    def of_four(step: dict[str, object]) -> int:
        liar = [{"nodes": [0], "behaviour": "scripted", "script": [{"sends": "VOTE", "drop": True} | step]}]
        late = [{"src": [1], "types": ["VOTE"], "delay_by": "100 ms"}]
        return int(run(scenario(4, protocol=four, duration="20 s", corrupted=liar, rules=late)).metrics["decisions"])

    kept, dropped = of_four({"to": "leader"}), of_four({"to": "next leader"})
    half = of_four({"to": "next leader", "every": 2})
    assert dropped < half < kept


@pytest.mark.parametrize("card", [{}, SHARED])
def test_rules_name_what_gossip_spreads(card: dict[str, str]) -> None:
    """With gossip a PREVOTE travels inside other messages: a rule that names it meets its copies and no others."""
    gossip = {"name": "tendermint", "dissemination": "gossip", "gossip_degree": 4}
    types = ["PREVOTE", "PRECOMMIT", "Proposal"]
    rules = [{"delay_by": "1 ms", "types": [name]} for name in (*types, "Said", "Relayed")]
    result = run(scenario(7, protocol=gossip, duration="1 s", rules=rules, **card))
    prevotes, precommits, proposals, said, relayed = (int(matched) for matched in result.tables["rules"]["matched"])
    assert prevotes + precommits + proposals == said + relayed
    assert prevotes > 3 * proposals > 0 and precommits > 3 * proposals
    halted = run(scenario(7, protocol=gossip, duration="1 s", rules=[{"drop": True, "types": ["PRECOMMIT"]}], **card))
    assert halted.metrics["decisions"] == 0


def test_a_liar_names_what_gossip_spreads() -> None:
    gossip = {"name": "tendermint", "dissemination": "gossip", "gossip_degree": 4, "timeout_propose": "200 ms"}
    for message, decides in (("PREVOTE", False), ("PRECOMMIT", False), ("Proposal", True)):
        liars = [{"nodes": [0, 1, 2], "behaviour": "silent", "messages": [message]}]  # three of seven
        result = run(scenario(7, protocol=gossip, duration="20 s", corrupted=liars))
        assert (result.metrics["decisions"] > 3) == decides, message  # a liar may count its own vote, and tell
