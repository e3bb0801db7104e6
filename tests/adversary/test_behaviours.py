"""Each behaviour, against protocols that bear one corrupted replica, and against those that do not."""

from __future__ import annotations

from typing import Any

import pytest

from sim.adversary.equivocating import Equivocating
from tests.runs import MS, Played, S, play, scenario, unsafe


def corrupt(behaviour: str, node: int = 0, **settings: Any) -> list[dict[str, Any]]:
    """The list of one corrupted node."""
    return [{"nodes": [node], "behaviour": behaviour, **settings}]


def acts(run: Played) -> list[int]:
    """How often each behaviour acted."""
    return [part.behaviour.acts for part in run.world.adversary.corrupted]


def test_a_silent_primary_is_replaced() -> None:
    run = play(scenario(duration="10 s", corrupted=corrupt("silent")))
    assert max(run.views()) == 1
    assert len(run.decided(1)) > 100
    assert unsafe(run) == []


def test_a_silent_replica_still_hears_and_decides() -> None:
    run = play(scenario(corrupted=corrupt("silent", 3)))
    assert len(run.decided(3)) == len(run.decided(1)) > 0
    assert run.verdict().outcomes["liveness"] != "fail"


def test_silence_has_a_beginning_and_an_end() -> None:
    run = play(scenario(duration="8 s", corrupted=corrupt("silent", 3, at="2 s", until="4 s")))
    whole = play(scenario(duration="8 s"))
    log = run.sent("COMMIT")
    assert 0 < whole.sent("COMMIT") - log < whole.sent("COMMIT") // 4


def test_a_slow_primary_orders_one_batch_per_delay() -> None:
    """Three phases of 10 ms after a delay of 500 ms, and nobody's timer of 2 s expires."""
    run = play(scenario(duration="10.6 s", corrupted=corrupt("slow", messages=["PrePrepare"], delay="500 ms")))
    assert run.views() == [0] * 4
    assert len(run.decided(1)) == 20
    assert acts(run) == [21], "one more is being held back"


def test_a_withheld_vote_is_missed_only_by_those_it_was_kept_from() -> None:
    run = play(scenario(trace="messages", corrupted=corrupt("withholding", 3, to=[1], messages=["COMMIT"])))
    names = run.world.run.names
    pairs = {(names[row[3]], int(row[2])) for row in run.log if row[1] == 3}
    assert ("COMMIT", 1) not in pairs
    assert {("COMMIT", 0), ("COMMIT", 2), ("PREPARE", 1)} <= pairs


@pytest.mark.parametrize("protocol", ["pbft", "hotstuff"])
def test_an_equivocating_leader_does_not_divide_correct_replicas(protocol: str) -> None:
    run = play(scenario(7, protocol=protocol, duration="10 s", corrupted=corrupt("equivocating", 1)))
    assert unsafe(run) == []
    if protocol == "hotstuff":
        assert acts(run)[0] > 0
        assert run.verdict().outcomes["liveness"] != "fail"


def test_an_equivocating_leader_divides_a_protocol_for_crashes() -> None:
    """Raft trusts its leader: followers of two groups store and commit different entries."""
    run = play(scenario(5, protocol="raft", duration="5 s", corrupted=corrupt("equivocating", _leader_of_raft(5))))
    assert any("had decided block" in text for text in unsafe(run))


def _leader_of_raft(n: int) -> int:
    run = play(scenario(n, protocol="raft", duration="5 s"))
    return next(i for i in range(n) if run.replica(i).role.value == "leader")


def test_a_second_block_may_stand_on_an_older_certificate() -> None:
    """It competes with the block that the first one certifies, and correct replicas are not divided."""
    run = play(scenario(7, protocol="hotstuff", duration="5 s", corrupted=corrupt("equivocating", 1, older=1)))
    pairs = [pair for pair in _equivocator(run).rivals.items() if min(block.row for block in pair) >= 0]
    later = [pair for pair in pairs if pair[0].body.block is not None]  # the genesis block has nothing before it
    assert later
    for first, second in later:
        assert (second.height, second.body.view) < (first.height, first.body.view)
        assert second.view == first.view
    assert unsafe(run) == []


def _equivocator(run: Played) -> Equivocating:
    behaviour = run.world.adversary.corrupted[0].behaviour
    assert isinstance(behaviour, Equivocating)
    return behaviour


def test_double_votes_do_not_divide_correct_replicas() -> None:
    both = corrupt("equivocating", 0) + corrupt("double-voting", 3)
    run = play(scenario(7, duration="10 s", corrupted=both))
    assert acts(run)[1] > 0
    assert unsafe(run) == []


def test_replayed_messages_change_nothing() -> None:
    run = play(scenario(7, duration="5 s", corrupted=corrupt("replaying", after="70 ms", times=2)))
    honest = play(scenario(7, duration="5 s"))
    assert [run.decided_blocks(i) for i in range(7)] == [honest.decided_blocks(i) for i in range(7)]
    assert run.sent() > honest.sent()


def test_what_is_long_forgotten_is_not_replayed() -> None:
    """The blocks of chained HotStuff are gone by then, and what was said of them with them."""
    run = play(scenario(protocol="hotstuff", duration="8 s", corrupted=corrupt("replaying", after="5 s", times=1)))
    assert unsafe(run) == []


def test_amnesia_needs_a_restart() -> None:
    forgetful = corrupt("amnesia", 3)
    assert acts(play(scenario(corrupted=forgetful))) == [0]
    restarted = [{"at": "300 ms", "for": "200 ms", "crash": {"nodes": [3]}}]
    run = play(scenario(duration="5 s", corrupted=forgetful, faults=restarted))
    assert acts(run) == [1]
    assert unsafe(run) == []


def test_a_script_drops_delays_and_sends() -> None:
    script = [
        {"sends": "COMMIT", "to": [1], "drop": True, "times": 1},
        {"sends": "COMMIT", "to": [2], "delay": "100 ms", "times": 1},
        {"receives": "PrePrepare", "send": "Fetch", "to": [1]},
        {"receives": "PrePrepare", "vote": "COMMIT", "to": [1], "times": 1},
    ]
    run = play(scenario(trace="messages", corrupted=corrupt("scripted", 3, script=script)))
    commit = run.world.run.names.index("COMMIT")
    mine = run.log[(run.log[:, 1] == 3) & (run.log[:, 3] == commit)]
    first = {to: mine[mine[:, 2] == to][:, 0].min() for to in range(3)}
    assert first[1] == 10 * MS, "the step that votes upon the proposal"
    assert first[0] == 20 * MS
    assert first[2] in (50 * MS, 120 * MS), "held back, or overtaken by that of the next batch"
    assert acts(run)[0] > 3


def test_a_corrupted_replica_is_never_in_the_fast_path() -> None:
    run = play(scenario(corrupted=corrupt("silent", 3, at="900 ms")))
    assert [host.fast_path.allowed for host in run.world.run.hosts] == [True, True, True, False]
    honest = play(scenario())
    assert run.decided_blocks(0) == honest.decided_blocks(0)
    assert run.now_ns == S


def test_double_votes_are_of_the_types_named() -> None:
    """Told to double its PREPAREs, it leaves its COMMITs alone, of which a liar's two blocks would get two as well."""
    seen = {}
    for messages in (["PREPARE"], ["COMMIT"], []):
        both = corrupt("equivocating", 0, groups=[[1, 2], [3]]) + corrupt("double-voting", 3, messages=messages)
        run = play(scenario(4, duration="200 ms", corrupted=both))
        host = run.world.run.hosts[0]
        seen[*messages] = {
            vote.name
            for vote in run.world.run.protocol.votes
            if sum(host.votes.has_voted(vote, ballot, 3) for ballot in host.votes.ballots(0, 1)) > 1
        }
    assert seen["PREPARE",] == {"PREPARE"}
    assert "PREPARE" not in seen["COMMIT",]
    assert "PREPARE" in seen[()]
