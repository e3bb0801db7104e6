"""What a verdict proves: culprits, certificates, the event and the way back to it; livelock; what never happened."""

from __future__ import annotations

import shlex
from collections.abc import Hashable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sim.check.lasso import Lasso
from sim.cli import app
from sim.protocol import Ballot, invariant, upon
from sim.protocols import PROTOCOLS
from sim.protocols.pbft import COMMIT, Pbft
from sim.scenario.run import EXIT_LIVENESS, EXIT_SAFETY, run
from tests.runs import MS, S, begin, play, scenario

DIVIDED = {"corrupted": [{"nodes": [0], "behaviour": "equivocating", "groups": [[1, 2], [3, 4]]}]}


class TwoFPlusOne(Pbft):
    """Quorums of 2f + 1 whatever n is: two of them among five share one replica, which may be corrupt."""

    def committed_quorum(self) -> int:
        return 2 * self.f + 1


def test_a_fork_is_proven_by_both_certificates_and_their_common_signer() -> None:
    found = play(scenario(5, **DIVIDED), protocol=TwoFPlusOne).verdict()
    first = found.violations[0]
    assert (first.check, first.time_ns, first.culprits) == ("agreement", 30 * MS, (0,))
    assert [certificate["voters"] for certificate in first.certificates] == [(0, 1, 2), (0, 3, 4)]
    assert {certificate["vote"] for certificate in first.certificates} == {"COMMIT"}
    assert found.outcomes["certificates"] == "fail"


def test_a_partition_is_nobodys_fault() -> None:
    """2f + 1 = 3 of six: both halves decide, and no replica has signed twice."""
    parted = [{"at": "0 s", "partition": {"groups": [[0, 1, 2], [3, 4, 5]]}}]
    run = play(scenario(6, protocol={"name": "pbft", "request_timeout": "100 ms"}, duration="5 s", faults=parted),
               protocol=TwoFPlusOne)  # fmt: skip
    first = run.verdict().violations[0]
    assert first.culprits == ()
    assert "nobody signed both: 3 and 3 of 6 need not meet" in first.evidence


def test_the_right_quorum_survives_the_same() -> None:
    assert play(scenario(5, **DIVIDED)).verdict().violations == []


def test_what_corrupted_replicas_decide_is_not_judged() -> None:
    """The same division, but all of the second group is corrupt (and silent): no two correct replicas disagree."""
    corrupted = [*DIVIDED["corrupted"], {"nodes": [3, 4], "behaviour": "silent", "at": "900 ms"}]
    assert play(scenario(5, corrupted=corrupted), protocol=TwoFPlusOne).verdict().outcomes["agreement"] == "pass"


def test_the_printed_command_leads_to_the_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("divided.yaml").write_text(
        "duration: 4 s\nnetwork: {nodes: 5, latency: {model: fixed, one_way: 10 ms}}\nprotocol: {name: pbft}\n"
        "workload: [{kind: backlog, bytes: 512 B}]\n"
        "corrupted: [{nodes: [0], behaviour: equivocating, at: 1 s, groups: [[1, 2], [3, 4]]}]\n"
    )
    Path("rules.py").write_text(
        "from sim.protocols.pbft import Pbft\nclass Weak(Pbft):\n    def committed_quorum(self):\n        return 3\n"
    )
    first = CliRunner().invoke(app, ["run", "divided.yaml", "--protocol-file", "rules.py:Weak"])
    assert first.exit_code == EXIT_SAFETY
    command = next(line for line in first.output.splitlines() if "replay to agreement" in line)
    again = CliRunner().invoke(app, shlex.split(command.partition("pilotzone ")[2]))
    assert again.exit_code == EXIT_SAFETY
    event = next(line for line in first.output.splitlines() if "VIOLATION agreement" in line)
    assert event in again.output.splitlines(), "the same event, node and certificates"
    simulated = next(line for line in again.output.splitlines() if line.startswith("  simulated_s"))
    assert f" at {float(simulated.split()[1]):.6f} s:" in event


def test_a_replica_that_goes_against_its_own_decisions_is_caught() -> None:
    run = play(scenario(5, **DIVIDED), protocol=TwoFPlusOne)
    world = run.world.run
    before = world.hosts[1].height
    other = world.hosts[3].chain.decided(before - 1)
    assert other is not None
    assert other is not world.hosts[1].chain.decided(before - 1), "each has its own chain"
    world.hosts[1].decide(other)
    assert world.hosts[1].height == before, "the ledger does not follow"
    found = [violation for violation in run.verdict().violations if violation.check == "finality"]
    assert [violation.node for violation in found] == [1]
    assert found[0].culprits == (0,)


class NeverPrepares(Pbft):
    """A replica that collects prepares and does nothing."""

    @upon(COMMIT)
    def on_committed(self, ballot: Ballot) -> None:
        """Never decides."""


def test_views_that_go_by_in_the_same_state_are_a_livelock() -> None:
    quick = {"name": "pbft", "request_timeout": "50 ms"}
    found = run(scenario(4, protocol=quick, duration="60 s", liveness_bound="10 s"), protocol=NeverPrepares)
    assert found.exit_code == EXIT_LIVENESS
    assert found.checks["livelock"] == "fail"
    assert "livelock, not slowness" in found.violations[0].evidence


def test_slowness_is_no_livelock() -> None:
    """One batch per 5 s is decided, later than the bound asks for."""
    slow = [{"nodes": [0], "behaviour": "slow", "messages": ["PrePrepare"], "delay": "5 s"}]
    patient = {"name": "pbft", "request_timeout": "8 s"}
    found = play(scenario(4, protocol=patient, duration="30 s", liveness_bound="2 s", corrupted=slow)).verdict()
    assert found.outcomes["liveness"] == "fail"
    assert found.outcomes["livelock"] == "pass"


def test_a_lasso_needs_a_state_that_comes_back_in_later_views() -> None:
    lasso = Lasso(rounds=3)
    for view, state in enumerate("abcab"):
        lasso.sample(7, view, state)
    assert lasso.loop() is None
    lasso.sample(7, 8, "b")
    found = lasso.loop()
    assert found is not None
    assert (found.first_view, found.last_view, found.times) == (1, 8, 3)
    lasso.sample(8, 9, "b")
    assert lasso.loop() is None, "something was decided"


def test_the_same_view_looked_at_often_is_no_loop() -> None:
    lasso = Lasso(rounds=3)
    state: Hashable = ("locked", 1)
    for _ in range(50):
        lasso.sample(0, 4, state)
    assert lasso.loop() is None


def test_too_many_corrupted_replicas_leave_liveness_unjudged() -> None:
    found = play(scenario(4, duration="70 s", stop_after_decisions=0 or None,
                          corrupted=[{"count": 2, "behaviour": "silent"}])).verdict()  # fmt: skip
    assert found.outcomes["liveness"] == "not applicable"
    assert any("2 corrupted, the protocol bears 1" in warning for warning in found.warnings)


def test_a_behaviour_that_never_acted_is_a_warning() -> None:
    run_ = play(scenario(corrupted=[{"nodes": [3], "behaviour": "silent", "messages": ["NewView"]}]))
    found = run_.verdict()
    assert found.sometimes == {"corrupted replica 3 (silent) acted": False}
    assert "corrupted replica 3 (silent) never acted" in found.warnings


class Promises(Pbft):
    """Says of itself what is not so."""

    @invariant("nothing is decided above height 3")
    def low(self) -> bool:
        return self.context.height <= 3


def test_an_invariant_of_the_protocol_is_checked_while_it_runs() -> None:
    run = begin(scenario(4, duration="1 s"), protocol=Promises)
    run.until(50 * MS).monitor.look()
    assert run.monitor.broken == {}
    run.until(400 * MS).monitor.look()
    verdict = run.until(S).verdict()
    assert verdict.outcomes["invariants"] == "fail"
    broken = next(violation for violation in verdict.violations if violation.check == "invariants")
    assert "nothing is decided above height 3" in broken.evidence
    assert broken.time_ns == 400 * MS, "as early as it was looked at"


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_protocols_keep_their_invariants_in_trouble(protocol: str) -> None:
    troubles = [{"at": "1 s", "for": "1 s", "crash": {"nodes": [0]}},
                {"at": "3 s", "for": "1 s", "partition": {"groups": [[0, 1]]}}]  # fmt: skip
    run = begin(scenario(4, protocol=protocol, duration="6 s", faults=troubles))
    for step in range(1, 121):
        run.until(step * 50 * MS).monitor.look()
    assert [violation.evidence for violation in run.verdict().violations if violation.kind == "safety"] == []
