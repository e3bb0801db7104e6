"""Raft's members change, its logs are compacted: servers join, learn, leave, and catch up from snapshots."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from sim.families.raft.members import Members
from sim.families.raft.server import Role
from sim.ledger import rows as ledger
from sim.protocol import Block, MembersChange
from sim.protocols.raft import Raft
from sim.scenario.errors import ScenarioError
from sim.scenario.run import run as run_scenario
from tests.runs import MS, Played, S, begin, play, scenario, unsafe


def raft(**parameters: Any) -> dict[str, Any]:
    """Raft with parameters."""
    return {"name": "raft", **parameters}


def leaders(run: Played) -> list[int]:
    """Who leads now."""
    hosts = run.world.run.hosts
    return [h.me for h in hosts if h.replica is not None and run.replica(h.me).role is Role.LEADER]


def deciders(run: Played, after_ns: int) -> set[int]:
    """Servers that decided something after a time."""
    return {row.node for row in run.decided() if row.time_ns > after_ns}


class Watched(Raft):
    """Keeps the configurations it has seen committed, with their blocks' numbers."""

    def settle_members(self, block: Block) -> None:
        super().settle_members(block)
        if isinstance(block.body, Members):
            self.context.disk.persist(seen=(*self.context.disk.stable.get("seen", ()), (block.number, block.body)))


def configurations(run: Played) -> list[Members]:
    """Every configuration of the decided chain, in order."""
    return [members for _, members in run.world.run.hosts[leaders(run)[0]].disk.stable["seen"]]


# --- membership ------------------------------------------------------------------------------------------------------


def test_members_alone_decide_with_messages_to_each_other_only() -> None:
    run = play(scenario(7, protocol="raft", duration="5 s", **{"network.members": [0, 1, 2]}), protocol=Watched)
    assert deciders(run, 0) == {0, 1, 2}
    decisions = len({row.height for row in run.decided()})
    assert decisions > 150
    assert run.sent("AppendEntries") in (2 * decisions, 2 * (decisions + 1))
    assert 0 <= run.sent("AppendEntries") - run.sent("Stored") <= 2
    leader = leaders(run)[0]
    times = run.latencies_ns()
    assert {times[block, node] for block, node in times if node == leader} == {20 * MS}
    assert unsafe(run) == []


@pytest.mark.parametrize("membership", ["single", "joint"])
def test_servers_join_and_leave_while_clients_are_served(membership: str) -> None:
    """Three servers become five, then the first three leave, leader included."""
    changes: dict[str, Any] = {
        "network.members": [0, 1, 2],
        "membership": [{"at": "2 s", "add": [3, 4]}, {"at": "5 s", "remove": [0, 1, 2]}],
        "liveness_bound": "1 s",
    }
    run = play(scenario(5, protocol=raft(membership=membership), duration="10 s", **changes), protocol=Watched)
    seen = [config.voters for config in configurations(run)]
    joint = [config.leaving for config in configurations(run)]
    if membership == "joint":
        assert seen == [(0, 1, 2, 3, 4), (0, 1, 2, 3, 4), (3, 4), (3, 4)]
        assert joint == [(0, 1, 2), None, (0, 1, 2, 3, 4), None]
    else:
        sizes = [len(voters) for voters in seen]
        assert sizes == [4, 5, 4, 3, 2]
        assert joint == [None] * 5
    assert deciders(run, 4 * S) >= {3, 4}
    assert deciders(run, 8 * S) == {3, 4}
    assert set(leaders(run)) <= {3, 4}
    late = sorted(row.time_ns for row in run.decided() if row.time_ns > 1 * S)
    assert max(b - a for a, b in itertools.pairwise(late)) < 1 * S, "no longer than an election"
    assert unsafe(run) == []


def test_a_change_waits_for_a_leader_and_survives_its_crash() -> None:
    changes: dict[str, Any] = {
        "network.members": [0, 1, 2],
        "membership": [{"at": "1.05 s", "add": [3]}],
        "faults": [{"at": "1 s", "for": "4 s", "crash": {"nodes": [0, 1]}}],
    }
    run = play(scenario(4, protocol="raft", duration="9 s", **changes), protocol=Watched)
    assert not [t for t in run.decided().time_ns if 1.1 * S < t < 5 * S]
    assert deciders(run, 8 * S) == {0, 1, 2, 3}
    assert [config.voters for config in configurations(run)] == [(0, 1, 2, 3)]
    assert unsafe(run) == []


def test_a_learner_receives_everything_and_has_no_vote() -> None:
    changes: dict[str, Any] = {
        "network.members": [0, 1, 2],
        "network.learners": [3],
        "faults": [{"at": "1 s", "crash": {"nodes": [1, 2]}}],
    }
    run = play(scenario(4, protocol="raft", duration="4 s", **changes), protocol=Watched)
    first = [row.node for row in run.decided() if row.time_ns < 1 * S]
    assert 3 in first
    assert not [t for t in run.decided().time_ns if t > 1.2 * S], "one of three voters and a learner are no majority"
    assert run.replica(3).role is Role.FOLLOWER
    assert unsafe(run) == []


def test_a_learner_becomes_a_voter_and_a_voter_a_learner() -> None:
    changes: dict[str, Any] = {
        "network.learners": [3],
        "membership": [{"at": "1 s", "add": [3]}, {"at": "2 s", "learn": [3]}],
    }
    run = play(scenario(4, protocol="raft", duration="3 s", **changes), protocol=Watched)
    assert [(c.voters, c.learners) for c in configurations(run)] == [((0, 1, 2, 3), ()), ((0, 1, 2), (3,))]
    assert 3 in deciders(run, 2.5 * S)
    assert unsafe(run) == []


class CommitsByTheOldSet(Watched):
    """Counts against the last committed configuration, as if the new one were in force only when committed."""

    def majority(self, servers: Any) -> bool:
        return self.membership.settled.agrees(servers)


@pytest.mark.parametrize(("protocol", "expected"), [(Watched, 2), (CommitsByTheOldSet, 1)])
def test_a_configuration_is_in_force_when_it_is_appended(protocol: type[Raft], expected: int) -> None:
    """From one server to two: the entry that adds the second needs the second's disk."""
    changes: dict[str, Any] = {"network.members": [0], "membership": [{"at": "1 s", "add": [1]}]}
    changes["block.interval"] = "50 ms"
    run = play(scenario(2, protocol="raft", duration="2 s", **changes), protocol=protocol)
    born = {row.block: row.time_ns for row in run.events(ledger.EVENT_PROPOSED)}
    (change,) = [b for b in run.world.run.block_store.of_row.values() if isinstance(b.body, Members)]
    decided = min(row.time_ns for row in run.decided(0) if row.block == change.number)
    assert decided - born[change.number] == (20 * MS if expected == 2 else 0)


def test_a_leader_changes_members_only_once_an_entry_of_its_term_is_committed() -> None:
    """Or two leaders in turn could change one voter each of what they know, and leave two majorities (Ongaro, 2015)."""
    run = begin(scenario(4, protocol="raft", duration="3 s", membership=[{"at": "2 s", "remove": [3]}]))
    while not leaders(run):
        run.until(run.now_ns + 1 * MS)
    (leader,) = leaders(run)
    found, elected_ns, gone = run.replica(leader), run.now_ns, (leader + 1) % 4
    found.on_membership(MembersChange(7, remove=(gone,)))
    assert gone in found.membership.members.voters
    run.until(elected_ns + 30 * MS)
    assert found.log.term_at(run.world.run.hosts[leader].height) == found.term
    assert gone not in found.membership.members.voters


def test_steps_and_joint_sets_by_hand() -> None:
    three = Members((0, 1, 2), (7,))
    goal = three.after(MembersChange(1, add=(3, 4), remove=(0,)))
    assert goal == Members((1, 2, 3, 4), (7,), None, 1)
    steps = [three]
    while steps[-1] != goal:
        steps.append(steps[-1].one_step_to(goal))
    assert [step.voters for step in steps] == [(0, 1, 2), (0, 1, 2, 3), (0, 1, 2, 3, 4), (1, 2, 3, 4)]
    joint = three.jointly_to(goal)
    assert joint.agrees({0, 1, 2, 3})
    assert not joint.agrees({0, 1, 3}), "half of the new set"
    assert not joint.agrees({2, 3, 4}), "one of the old set"
    assert joint.settled() == goal
    assert three.after(MembersChange(2, remove=(0, 1, 2))).voters == (0, 1, 2), "nobody left to vote: no change"


@pytest.mark.parametrize("seed", range(8))
def test_agreement_while_members_change_in_trouble(seed: int) -> None:
    changes: dict[str, Any] = {
        "seed": seed,
        "network.members": [0, 1, 2],
        "network.jitter": {"model": "proportional", "up_to": "50 %"},
        "membership": [
            {"at": "1 s", "add": [3, 4]},
            {"at": "2 s", "remove": [seed % 3]},
            {"at": "3 s", "add": [seed % 3], "remove": [3]},
        ],
        "faults": [
            {"at": "900 ms", "for": "700 ms", "crash": {"nodes": [seed % 5]}},
            {"at": "1.9 s", "for": "800 ms", "partition": {"groups": [[seed % 5, (seed + 1) % 5]]}},
            {"at": "2.9 s", "for": "500 ms", "crash": {"nodes": [(seed + 2) % 5]}},
        ],
    }
    protocol = raft(membership=("single", "joint")[seed & 1], pre_vote=True, check_quorum=True)
    run = play(scenario(5, protocol=protocol, duration="8 s", **changes), protocol=Watched)
    assert unsafe(run) == []
    assert configurations(run)[-1].voters == tuple(sorted({0, 1, 2, 4}))
    assert deciders(run, 7 * S) >= {0, 1, 2, 4}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"protocol": "kauri", "membership": [{"at": "1 s", "add": [3]}]}, "kauri cannot change its members"),
        ({"protocol": "kauri", "network.members": [0, 1]}, "choose a protocol that can: pbft, ibft"),
        ({"membership": [{"at": "1 s"}]}, "changes nothing"),
        ({"membership": [{"at": "1 s", "add": [9]}]}, "nodes are 0 to 3"),
        ({"membership": [{"at": "1 h", "add": [3]}]}, "must be earlier than the end of the run"),
        ({"network.members": [0, 1], "network.learners": [1]}, "is among the members already"),
        ({"network.learners": [0, 1, 2, 3]}, "nobody can vote"),
    ],
)
def test_impossible_groups_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        scenario(4, **{"protocol": "raft", **changes})


# --- snapshots -------------------------------------------------------------------------------------------------------


def test_a_server_that_was_away_installs_a_snapshot_as_fast_as_its_link_allows() -> None:
    """4 MB in chunks of 500 kB over 100 Mbit/s: eight round trips and 0.32 s on the wire, out and in at once."""
    parameters = {"snapshot_every": 50, "snapshot_size": "4 MB", "snapshot_chunk": "500 kB"}
    faults = [{"at": "1 s", "until": "6 s", "crash": {"nodes": [4]}}]
    changes: dict[str, Any] = {"faults": faults, "network.bandwidth": "100 Mbit/s", "block.max_transactions": 10}
    run = play(scenario(5, protocol=raft(**parameters), duration="9 s", **changes), protocol=Watched)
    assert run.sent("InstallSnapshot") == 8
    assert run.sent("Received") == 7
    times = sorted(row.time_ns for row in run.decided(4) if row.time_ns > 6 * S)
    installed = times[0] - 6 * S
    wire = 8 * 500_048 * 8 / 100e6
    assert 8 * 20 * MS + wire * S < installed < 8 * 20 * MS + wire * S + 200 * MS
    assert sum(t == times[0] for t in times) > 150, "all that the snapshot contains at once"
    assert run.world.run.hosts[4].height >= run.world.run.hosts[0].height - 2
    assert unsafe(run) == []


def test_without_compaction_the_log_is_repaired_entry_by_entry() -> None:
    faults = [{"at": "1 s", "until": "6 s", "crash": {"nodes": [4]}}]
    run = play(scenario(5, protocol="raft", duration="9 s", faults=faults), protocol=Watched)
    assert run.sent("InstallSnapshot") == 0
    assert run.sent("Repair") >= 3


def test_a_new_member_catches_up_from_a_snapshot_before_it_counts() -> None:
    changes: dict[str, Any] = {"network.members": [0, 1, 2], "membership": [{"at": "4 s", "add": [3]}]}
    parameters = {"snapshot_every": 50, "snapshot_size": "2 MB", "snapshot_chunk": "500 kB"}
    run = play(scenario(4, protocol=raft(**parameters), duration="7 s", **changes), protocol=Watched)
    assert run.sent("InstallSnapshot") == 4
    joined = min(row.time_ns for row in run.decided(3))
    assert joined > 4 * S
    late = sorted(row.time_ns for row in run.decided(0) if row.time_ns > 3 * S)
    assert max(b - a for a, b in itertools.pairwise(late)) <= 25 * MS, "nobody waited for it"
    assert [run.replica(node).membership.settled.voters for node in range(4)] == [(0, 1, 2, 3)] * 4
    assert unsafe(run) == []


@pytest.mark.parametrize("seed", range(6))
def test_agreement_with_snapshots_under_crashes(seed: int) -> None:
    faults = [
        {"at": f"{500 + 700 * i} ms", "for": f"{300 + 90 * seed} ms", "crash": {"nodes": [(i + seed) % 5]}}
        for i in range(7)
    ]
    parameters = {"snapshot_every": 10, "snapshot_size": "100 kB", "snapshot_chunk": "30 kB"}
    jitter = {"model": "proportional", "up_to": "50 %"}
    changes: dict[str, Any] = {"seed": seed, "faults": faults, "network.jitter": jitter}
    run = play(scenario(5, protocol=raft(**parameters), duration="9 s", **changes), protocol=Watched)
    assert unsafe(run) == []
    assert run.sent("InstallSnapshot") > 0
    assert min(host.height for host in run.world.run.hosts) >= run.world.run.hosts[0].height - 3


# --- liveness is judged by the configuration in force ----------------------------------------------------------------


@pytest.mark.parametrize("membership", ["single", "joint"])
def test_liveness_is_judged_while_a_majority_of_the_voters_of_the_moment_runs(membership: str) -> None:
    def outcome(request: dict[str, Any], down: list[int], members: int) -> str:
        chosen = scenario(
            5,
            protocol=raft(membership=membership),
            duration="4 s",
            membership=[{"at": "1 s", **request}],
            faults=[{"at": "800 ms" if down == [4] else "2 s", "crash": {"nodes": down}}],
            liveness_bound="1 s",
            **{"network.members": [*range(members)]},
        )
        return play(chosen).verdict().outcomes["liveness"]

    assert outcome({"add": [4]}, [4], 4) == "pass"  # the newcomer is down: the four go on
    assert outcome({"remove": [3, 4]}, [0], 5) == "pass"  # two of three
    assert outcome({"remove": [3, 4]}, [1, 2], 5) == "not applicable"  # one of three, and two that left


# --- configurations in force once they are committed (etcd) -------------------------------------------------------

APPLIED = {"name": "raft", "configurations": "applied"}


@pytest.mark.parametrize("configurations", ["appended", "applied"])
def test_removing_the_dead_one_of_two(configurations: str) -> None:
    """Consensys-Incorporated/quorum#1096: in etcd it counts with the old members, and waits for the dead one."""
    slow = {"election_timeout_low": "1 s", "election_timeout_high": "2 s", "heartbeat_interval": "100 ms"}
    result = run_scenario(
        scenario(
            2, protocol={"name": "raft", "configurations": configurations} | slow, duration="60 s",
            workload=[{"kind": "open", "rate": "10 tx/s", "bytes": "500 B"}],
            faults=[{"at": "10 s", "for": "20 s", "crash": {"nodes": [1]}}], membership=[{"at": "15 s", "remove": [1]}],
        )
    )  # fmt: skip
    assert result.status == "ok"
    pause_s = result.metrics["longest_pause_s"]
    assert pause_s == pytest.approx(5, abs=0.5) if configurations == "appended" else pause_s >= 20


@pytest.mark.parametrize("membership", ["single", "joint"])
def test_members_join_and_leave_where_configurations_are_applied(membership: str) -> None:
    changes = [{"at": "1 s", "add": [3, 4]}, {"at": "3 s", "remove": [0]}]
    result = run_scenario(
        scenario(5, protocol=APPLIED | {"membership": membership}, duration="8 s", membership=changes,
                 **{"network.members": [0, 1, 2]})
    )  # fmt: skip
    assert result.status == "ok" and not result.warnings
    assert result.metrics["decisions"] > 100


@pytest.mark.parametrize("seed", range(6))
def test_applied_configurations_are_safe_under_crashes(seed: int) -> None:
    faults = [{"at": f"{1000 + 400 * k} ms", "for": "300 ms", "crash": {"nodes": [(seed + k) % 4]}} for k in range(8)]
    result = run_scenario(
        scenario(4, protocol=APPLIED, duration="12 s", seed=seed, faults=faults,
                 membership=[{"at": "1.2 s", "add": [3]}, {"at": "2.5 s", "remove": [1]}],
                 **{"network.members": [0, 1, 2]})
    )  # fmt: skip
    assert result.status == "ok", result.violations[:1]
