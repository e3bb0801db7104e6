"""Raft answers reads without entries of the log: after a round of heartbeats, or at once under a lease."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sim.families.raft.rpc import Reply, RequestVote
from sim.families.raft.server import Role
from sim.ledger import rows as ledger
from sim.protocol import Context
from sim.protocols.raft import Raft, RaftParameters
from tests.runs import MS, Played, S, begin, play, scenario, unsafe

LEASE = {"name": "raft", "reads": "lease", "check_quorum": True, "pre_vote": True}
INDEX = {"name": "raft", "reads": "read_index"}
QUIET = {"block.interval": "1 h"}  # nothing but the entry of the term


def answers(run: Played, after_ns: int = 0) -> list[tuple[int, int, int, int]]:
    """(asked, answered, server, height) of every read."""
    rows = run.events(ledger.EVENT_READ)
    return [(t - wait, t, node, height) for t, _, node, wait, height, *_ in rows if t - wait >= after_ns]


def leader_of(run: Played) -> int:
    """Who leads now."""
    return next(host.me for host in run.world.run.hosts if run.replica(host.me).role is Role.LEADER)


def stale(run: Played) -> list[tuple[int, int, int, int]]:
    """Reads that did not see all that anybody had decided when they were asked."""
    decided = run.decided()
    tops = np.maximum.accumulate(decided.height)
    found = []
    for read in answers(run):
        at = int(np.searchsorted(decided.time_ns, read[0], side="left"))
        if at and read[3] < tops[at - 1]:
            found.append(read)
    return found


@pytest.mark.parametrize(("protocol", "near", "far"), [(INDEX, 2, 4), (LEASE, 0, 2)])
def test_a_read_takes_its_delays_and_no_entry(protocol: dict[str, Any], near: int, far: int) -> None:
    run = play(scenario(5, protocol=protocol, duration="3 s", **QUIET))
    leader = leader_of(run)
    found = answers(run, 1 * S)
    assert {t - asked for asked, t, node, _ in found if node == leader} == {near * 10 * MS}
    assert {t - asked for asked, t, node, _ in found if node != leader} == {far * 10 * MS}
    assert len(found) > 5 * 180
    assert len({row.height for row in run.decided()}) == 1
    assert run.monitor.reads.metrics()["reads"] == len(answers(run))


def test_reads_are_answered_however_many_come_in_a_round_trip() -> None:
    slow = {"election_timeout_low": "1500 ms", "election_timeout_high": "3 s", "heartbeat_interval": "700 ms"}
    far = {"network.latency": {"model": "fixed", "one_way": "60 ms"}}
    for interval, spare_ms in (("10 ms", 0), ("1 ms", 120)):
        protocol = INDEX | slow | {"read_interval": interval}
        run = play(scenario(5, protocol=protocol, duration="6 s", **QUIET, **far))
        leader = leader_of(run)
        found = {t - asked for asked, t, node, _ in answers(run, 4 * S) if node == leader}
        assert found and min(found) == 120 * MS and max(found) <= (120 + spare_ms) * MS


def test_heartbeats_for_reads_do_not_outrun_the_disks() -> None:
    """A decision takes two delays and a write, however many heartbeats are answered while the entry is written."""
    run = play(scenario(5, protocol=INDEX | {"read_interval": "3 ms"}, duration="1 s", **{"cpu.fsync": "30 ms"}))
    leader = leader_of(run)
    assert {time for (_, node), time in run.latencies_ns().items() if node == leader} == {50 * MS}


def test_a_single_server_answers_itself() -> None:
    assert {t - asked for asked, t, *_ in answers(play(scenario(1, protocol=INDEX, duration="1 s", **QUIET)))} == {0}


def test_a_lease_saves_the_heartbeats() -> None:
    runs = {p["reads"]: play(scenario(5, protocol=p, duration="3 s", **QUIET)) for p in (INDEX, LEASE)}
    sent = {reads: run.sent("Heartbeat") for reads, run in runs.items()}
    assert sent["lease"] < 4 * (3000 / 75 + 2)
    assert sent["read_index"] > 4 * 200


@pytest.mark.parametrize("protocol", [INDEX, LEASE], ids=["read_index", "lease"])
@pytest.mark.parametrize("seed", range(4))
def test_no_read_is_stale_whatever_becomes_of_leaders(protocol: dict[str, Any], seed: int) -> None:
    faults = [
        {"at": "1 s", "for": "800 ms", "partition": {"groups": [[seed % 5, (seed + 1) % 5]]}},
        {"at": "2.5 s", "for": "500 ms", "crash": {"nodes": [(seed + 2) % 5]}},
        {"at": "3.5 s", "for": "800 ms", "partition": {"groups": [[(seed + 3) % 5]]}},
    ]
    jitter = {"network.jitter": {"model": "proportional", "up_to": "50 %"}}
    run = play(scenario(5, protocol=protocol, duration="6 s", seed=seed, faults=faults, **jitter))
    assert len(answers(run, 5 * S)) > 100
    assert stale(run) == []
    assert unsafe(run) == []


class TrustsItsLeaseTooLong(Raft):
    """A lease of ten seconds."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.reads.lease_ns = 10 * S


def test_a_lease_that_outlives_the_election_timeout_gives_stale_reads() -> None:
    protocol = LEASE | {"check_quorum": True}
    calm = play(scenario(3, protocol=protocol, duration="1 s"))
    faults = [{"at": "1 s", "for": "1 s", "partition": {"groups": [[leader_of(calm)]]}}]
    late = play(scenario(3, protocol=protocol, duration="3 s", faults=faults), protocol=TrustsLonger)
    assert stale(late)
    assert stale(play(scenario(3, protocol=protocol, duration="3 s", faults=faults))) == []


class TrustsLonger(TrustsItsLeaseTooLong):
    """... and does not step down when it hears nobody."""

    def on_quorum_check(self, term: int) -> None:
        pass


def test_a_restarted_voter_keeps_silent_as_long_as_a_lease_it_may_have_promised() -> None:
    run = begin(scenario(3, protocol=LEASE, duration="2 s")).until(500 * MS)
    leader = leader_of(run)
    voter, rival = (leader + 1) % 3, (leader + 2) % 3
    run.world.run.crash(voter)
    run.world.run.restart(voter)
    request = RequestVote(run.replica(leader).term + 1, 1 << 20, run.replica(leader).term, rival, False)
    run.replica(voter).on_request_vote(rival, request)
    assert run.replica(voter).voted_for != rival or run.replica(voter).term < request.term
    for node in (leader, rival):
        run.world.run.crash(node)
    run.until(700 * MS)
    request = RequestVote(run.replica(voter).term + 1, 1 << 20, 1 << 20, rival, False)
    run.replica(voter).on_request_vote(rival, request)
    assert run.replica(voter).voted_for == rival


def test_a_voter_keeps_the_promise_to_a_leader_that_a_late_answer_makes_it_forget() -> None:
    """The answer of a server in a later term to a call from the time before it had a leader."""
    run = begin(scenario(3, protocol=LEASE, duration="2 s")).until(500 * MS)
    leader = leader_of(run)
    voter, rival = (leader + 1) % 3, (leader + 2) % 3
    found, term = run.replica(voter), run.replica(leader).term
    found.on_reply(rival, Reply(term + 5, False, 0, False))
    assert found.known_leader is None
    found.on_request_vote(rival, RequestVote(term + 6, 1 << 20, term + 5, rival, False))
    assert found.voted_for is None


def test_a_lease_needs_voters_that_shield_their_leader() -> None:
    with pytest.raises(ValueError, match="check_quorum: true"):
        Raft.check(RaftParameters(reads="lease"), 3)
