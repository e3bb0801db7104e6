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
