"""Voters that join and leave at a height: IBFT, PBFT, QBFT, rPBFT, Tendermint, WHEAT."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from sim.families.voters import ValidatorSet
from sim.ledger import rows as ledger
from sim.protocol import Block, MembersChange, Quorum
from sim.protocols.qbft import COMMIT, PREPARE, Qbft
from sim.protocols.tendermint import Tendermint
from sim.scenario.load import ScenarioError
from sim.scenario.run import run as run_scenario
from tests.runs import MS, Played, S, begin, play, scenario, unsafe

SHORT: dict[str, dict[str, Any]] = {
    "ibft": {"name": "ibft", "round_timeout": "400 ms"},
    "pbft": {"name": "pbft", "request_timeout": "400 ms", "checkpoint_interval": 10, "log_window": 20},
    "qbft": {"name": "qbft", "round_timeout": "400 ms"},
    "rpbft": {"name": "rpbft", "request_timeout": "400 ms", "group": 9, "epoch": 1},  # all, and a change at any height
    "wheat": {"name": "wheat", "request_timeout": "400 ms", "checkpoint_interval": 10, "log_window": 20},
    "tendermint": {
        "name": "tendermint",
        "timeout_propose": "300 ms",
        "timeout_prevote": "100 ms",
        "timeout_precommit": "100 ms",
        "resend_after": "500 ms",
    },
}
NAMES = tuple(SHORT)
DELAY = dict.fromkeys(NAMES, 1) | {"tendermint": 2}
DECIDING = dict.fromkeys(NAMES, "COMMIT") | {"tendermint": "PRECOMMIT"}
PROPOSAL = dict.fromkeys(NAMES, "PrePrepare") | {"tendermint": "Proposal"}


def changing(name: str, n: int, members: int, *requests: dict[str, Any], **changes: Any) -> Any:
    """A scenario of n voters of which the first are members, with requests of the operator."""
    changes = {"network.members": list(range(members)), "membership": list(requests), "duration": "3 s"} | changes
    return scenario(n, protocol=SHORT[name] | changes.pop("parameters", {}), **changes)


def quorums_by_height(run: Played) -> dict[int, Quorum]:
    """What decided at each height, from the tallies of the votes that decide."""
    world = run.world.run
    vote = next(vote for vote in world.protocol.votes if vote.name == DECIDING[run.world.scenario.protocol.name])
    found = {}
    for block in world.block_store.of_row.values():
        for ballot in block.ballots:
            if vote in ballot.rows and ballot.view >= 0:
                found[block.height] = world.tallies.quorum_of(ballot.rows[vote], vote)
    return found


def members_by_height(run: Played) -> dict[int, tuple[int, ...]]:
    """Whose votes counted at each height."""
    return {
        height: tuple(node for node, weight in enumerate(quorum.weights) if weight)
        for height, quorum in quorums_by_height(run).items()
    }


def validator_sets(run: Played) -> dict[int, ValidatorSet]:
    """Blocks that say who votes, by height, as the last replica to join or stay decided them."""
    blocks = run.world.run.block_store.of_row.values()
    return {block.height: block.body for block in blocks if isinstance(block.body, ValidatorSet)}


def deciders(run: Played, after_ns: float) -> set[int]:
    return {row.node for row in run.decided() if row.time_ns > after_ns}


@pytest.mark.parametrize("name", NAMES)
def test_a_voter_joins_exactly_at_its_height(name: str) -> None:
    run = play(changing(name, 5, 4, {"at": "1 s", "add": [4]}))
    changed = [
        height for height, validator_set in validator_sets(run).items() if validator_set.members == (0, 1, 2, 3, 4)
    ]
    assert len(changed) == 1
    first = changed[0] + DELAY[name]
    seen = members_by_height(run)
    assert {seen[height] for height in seen if height < first} == {(0, 1, 2, 3)}
    assert {seen[height] for height in seen if height >= first} == {(0, 1, 2, 3, 4)}
    last = run.world.run.hosts[0].height
    assert run.sent(PROPOSAL[name]) in {3 * (first - 1) + 4 * (height - first + 1) for height in (last, last + 1)}
    assert deciders(run, 2.9 * S) == {0, 1, 2, 3, 4}
    assert min(row.time_ns for row in run.decided(4)) > 1 * S, "it has fetched nothing before it was asked"
    times = sorted(row.time_ns for row in run.decided(1))
    assert max(b - a for a, b in itertools.pairwise(times)) <= 200 * MS, "nobody waited for a timeout"
    assert unsafe(run) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_voter_leaves_and_is_silent(name: str) -> None:
    run = play(changing(name, 5, 5, {"at": "1 s", "remove": [2]}, trace="messages"))
    height = next(height for height, validator_set in validator_sets(run).items() if 2 not in validator_set.members)
    first = height + DELAY[name]
    assert {members for at, members in members_by_height(run).items() if at >= first} == {(0, 1, 3, 4)}
    assert run.world.run.hosts[2].height == first - 1
    left = max(row.time_ns for row in run.decided(2))
    assert left < 1.4 * S
    later = run.log[run.log[:, 0] > left + 20 * MS]
    assert 2 not in set(later[:, 1]), "a former voter sends nothing"
    assert deciders(run, 2.9 * S) == {0, 1, 3, 4}
    assert unsafe(run) == []


@pytest.mark.parametrize("name", NAMES)
def test_who_is_no_member_is_sent_no_vote(name: str) -> None:
    """Four of five: three copies of each vote."""
    run = play(changing(name, 5, 4, {"at": "199 ms", "add": [4]}, trace="messages", duration="200 ms"))
    assert len(run.decided(0)) >= 5
    assert 4 not in set(run.log[:, 2])


class Foreseeing(Tendermint):
    """Says at the beginning of a height who will propose at the one after it."""

    def begin_height(self) -> None:
        super().begin_height()
        foreseen = self.context.run.__dict__.setdefault("foreseen", {})  # type: ignore[attr-defined]
        foreseen.setdefault(self.height + 1, set()).add(self.proposer_of(self.height + 1, 0))


def test_a_proposal_that_comes_a_height_early_is_judged_by_the_powers_of_its_height() -> None:
    """Whose turn it is after a change is known a height before: a slow process must not drop what comes then."""
    requests = [{"at": f"{200 * i} ms", "remove" if i % 2 else "add": [2]} for i in range(1, 5)]
    run = play(changing("tendermint", 5, 5, *requests, duration="1 s"), protocol=Foreseeing)
    proposers = {row.height: row.node for row in run.events(ledger.EVENT_PROPOSED)}
    foreseen = run.world.run.__dict__["foreseen"]
    assert len(validator_sets(run)) == 4
    assert {height: foreseen[height] for height in proposers if height in foreseen} == {
        height: {proposer} for height, proposer in proposers.items() if height in foreseen
    }


@pytest.mark.parametrize("name", NAMES)
def test_who_proposes_is_removed_and_others_go_on(name: str) -> None:
    run = play(changing(name, 5, 5, {"at": "1 s", "remove": [0]}, {"at": "2 s", "remove": [1]}))
    proposers = {row.node for row in run.events(ledger.EVENT_PROPOSED) if row.time_ns > 2.5 * S}
    assert proposers <= {2, 3, 4}
    assert proposers
    times = sorted(row.time_ns for row in run.decided(3))
    assert max(b - a for a, b in itertools.pairwise(times)) <= 200 * MS
    assert deciders(run, 2.9 * S) == {2, 3, 4}
    assert unsafe(run) == []


@pytest.mark.parametrize("name", NAMES)
def test_joining_and_leaving_in_one_run_and_in_one_request(name: str) -> None:
    requests = ({"at": "1 s", "add": [4, 5], "remove": [0]}, {"at": "2 s", "add": [0], "remove": [1, 2]})
    run = play(changing(name, 6, 4, *requests, duration="4 s"))
    assert sorted(run.replica(5).members) == [0, 3, 4, 5]
    assert deciders(run, 3.9 * S) == {0, 3, 4, 5}
    assert unsafe(run) == []


@pytest.mark.parametrize("name", NAMES)
def test_with_f_crashed_after_the_change_blocks_go_on(name: str) -> None:
    """Seven of six: from then on two may crash, of six only one."""
    crash = [{"at": "1.5 s", "crash": {"nodes": [1, 6]}}]
    run = play(changing(name, 7, 6, {"at": "500 ms", "add": [6]}, faults=crash, duration="6 s"))
    assert sorted(run.replica(0).members) == [*range(7)]
    assert deciders(run, 4 * S) == {0, 2, 3, 4, 5}
    assert unsafe(run) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_quorum_is_that_of_the_height(name: str) -> None:
    """Four of six stay: three of them decide, and two of them with both former ones do not."""
    crash = [{"at": "1.5 s", "crash": {"nodes": [3]}}, {"at": "4.5 s", "crash": {"nodes": [2]}}]
    run = play(changing(name, 6, 6, {"at": "500 ms", "remove": [4, 5]}, faults=crash, duration="6 s"))
    assert deciders(run, 1.6 * S) == {0, 1, 2}
    assert not deciders(run, 4.6 * S)


@pytest.mark.parametrize("name", NAMES)
def test_a_partition_around_the_change_is_safe_and_heals(name: str) -> None:
    cut = [{"at": "950 ms", "for": "700 ms", "partition": {"groups": [[0, 1, 4], [2, 3]]}}]
    requests = ({"at": "1 s", "add": [4]}, {"at": "1.1 s", "remove": [0]})
    run = play(changing(name, 5, 4, *requests, faults=cut, duration="6 s"))
    assert deciders(run, 5 * S) == {1, 2, 3, 4}
    assert sorted(run.replica(3).members) == [1, 2, 3, 4]
    assert unsafe(run) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_newcomer_first_fetches_what_it_lacks(name: str) -> None:
    asked = {"at": "2 s", "add": [4], "when": "level"}
    run = begin(changing(name, 5, 4, asked, **{"network.bandwidth": "100 Mbit/s"}))
    run.until(2 * S - 1)
    height = run.world.run.hosts[0].height
    assert run.world.run.hosts[4].height == 0
    run.until(6 * S)
    changed = min(validator_sets(run))
    level_ns = min(row.time_ns for row in run.decided(4) if row.height >= height)
    born = min(row.time_ns for row in run.events(ledger.EVENT_PROPOSED) if row.height == changed)
    assert born > level_ns, "it was level before the block that admits it"


@pytest.mark.parametrize("name", NAMES)
def test_a_removed_voter_that_was_away_learns_that_it_is_out(name: str) -> None:
    crash = [{"at": "900 ms", "until": "2 s", "crash": {"nodes": [3]}}]
    run = play(changing(name, 5, 5, {"at": "1 s", "remove": [3]}, faults=crash, duration="4 s"))
    assert 3 not in run.replica(3).members
    assert deciders(run, 3.9 * S) >= {0, 1, 2, 4}
    assert unsafe(run) == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(6))
def test_agreement_while_voters_change_in_trouble(name: str, seed: int) -> None:
    changes: dict[str, Any] = {
        "seed": seed,
        "network.jitter": {"model": "proportional", "up_to": "50 %"},
        "faults": [
            {"at": "900 ms", "for": "500 ms", "crash": {"nodes": [seed % 6]}},
            {"at": "1.8 s", "for": "600 ms", "partition": {"groups": [[seed % 6, (seed + 1) % 6]]}},
            {"at": "2.9 s", "for": "400 ms", "crash": {"nodes": [(seed + 2) % 6]}},
        ],
        "duration": "7 s",
    }
    requests = (
        {"at": "800 ms", "add": [4, 5]},
        {"at": "1.9 s", "remove": [seed % 4]},
        {"at": "3 s", "add": [seed % 4], "remove": [4]},
    )
    run = play(changing(name, 6, 4, *requests, **changes))
    assert unsafe(run) == []
    assert sorted(run.replica(5).members) == [0, 1, 2, 3, 5]
    assert deciders(run, 6 * S) >= {0, 1, 2, 3, 5}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_run_twice(name: str) -> None:
    chosen = changing(name, 5, 4, {"at": "300 ms", "add": [4]}, {"at": "600 ms", "remove": [0]}, duration="1 s")
    assert play(chosen).digest == play(chosen, fast_path=False).digest


class Intruder(Qbft):
    """Replica 4, which is no member, votes as if it were."""

    def accept(self, ballot: Any) -> None:
        super().accept(ballot)
        for vote in (PREPARE, COMMIT):
            self.run_host(4).vote(vote, ballot, self.audience)

    def run_host(self, node: int) -> Any:
        """Another replica's place."""
        return self.context.run.hosts[node]  # type: ignore[attr-defined]


def test_the_vote_of_one_who_is_no_member_weighs_nothing() -> None:
    crash = [{"at": "1 s", "crash": {"nodes": [2, 3]}}]
    run = play(changing("qbft", 5, 4, {"at": "2.9 s", "add": [4]}, faults=crash), protocol=Intruder)
    assert deciders(run, 0) >= {0, 1, 2, 3}
    assert not {0, 1} & deciders(run, 1.2 * S), "two members and a stranger are no quorum of four"


class Usurper(Qbft):
    """Replica 1 writes a set of voters into its blocks that nobody asked for."""

    def new_block(self, parent: Block | None) -> Block | None:
        block = super().new_block(parent)
        if block is not None and self.context.me == 1:
            block.body = ValidatorSet((1,), MembersChange(9, remove=(0, 2, 3)), done=())
        return block


def test_a_set_of_voters_that_does_not_follow_is_refused() -> None:
    run = play(changing("qbft", 5, 4, {"at": "2.9 s", "add": [4]}), protocol=Usurper)
    assert {*members_by_height(run).values()} == {(0, 1, 2, 3)}
    theirs = {row.block for row in run.events(ledger.EVENT_PROPOSED) if row.node == 1}
    assert theirs
    assert not theirs & {*run.decided_blocks(0).values()}
    assert 1 in run.views(), "each block of replica 1 costs a round"


def test_header_votes_need_more_than_half() -> None:
    """IBFT: three of four proposers have to name the candidate, one block each."""
    run = play(changing("ibft", 5, 4, {"at": "1 s", "add": [4]}))
    said = sorted(validator_sets(run).items())
    assert [len(validator_set.votes) for _, validator_set in said] == [1, 2, 0]
    assert [validator_set.members for _, validator_set in said] == [(0, 1, 2, 3)] * 2 + [(0, 1, 2, 3, 4)]


def test_header_votes_by_hand() -> None:
    validator_set, request = ValidatorSet((0, 1, 2)), MembersChange(1, add=(3,), remove=(0,))
    validator_set = validator_set.with_vote(request, 0)
    assert (validator_set.members, validator_set.votes) == ((0, 1, 2), ((0, 3),))
    assert validator_set.with_vote(request, 0).votes == ((0, 3),), "once each"
    validator_set = validator_set.with_vote(request, 1)
    assert (validator_set.members, validator_set.votes, validator_set.done) == ((0, 1, 2, 3), (), ())
    for voter in (1, 2, 3):
        validator_set = validator_set.with_vote(request, voter)
    assert (validator_set.members, validator_set.done) == ((1, 2, 3), (1,))
    assert ValidatorSet((7,)).after(MembersChange(1, remove=(7,))).members == (7,), "nobody left to vote: no change"


def test_turns_go_on_when_powers_change() -> None:
    """The newcomer begins last; powers 1, 1, 1 and 3: it has half of the turns in the long run."""
    powers = {"parameters": {"power": [1, 1, 1, 3]}, "duration": "4 s"}
    run = play(changing("tendermint", 4, 3, {"at": "1 s", "add": [3]}, **powers))
    proposers = [row.node for row in run.events(ledger.EVENT_PROPOSED) if row.time_ns > 1.2 * S]
    assert abs(proposers.count(3) - len(proposers) / 2) <= 2
    (height,) = validator_sets(run)
    by_height = {row.height: row.node for row in run.events(ledger.EVENT_PROPOSED)}
    assert by_height[height + 2] != 3, "who joins does not propose first"
    assert unsafe(run) == []


def test_by_gossip_a_newcomer_has_heard_everything_already() -> None:
    gossip = {"dissemination": "gossip", "gossip_degree": 4}
    run = play(changing("tendermint", 6, 5, {"at": "1 s", "add": [5]}, parameters=gossip))
    assert min(row.time_ns for row in run.decided(5)) < 200 * MS
    assert run.replica(0).members == tuple(range(6))
    assert deciders(run, 2.9 * S) == set(range(6))
    assert unsafe(run) == []


@pytest.mark.parametrize("name", ["hotstuff", "jolteon", "clique"])
def test_protocols_with_a_fixed_group_refuse(name: str) -> None:
    with pytest.raises(ScenarioError, match=rf"test.yaml:1:\d+: membership: {name} cannot change its members"):
        scenario(5, protocol=name, membership=[{"at": "500 ms", "add": [4]}])


@pytest.mark.parametrize(
    ("requests", "told"),
    [
        ([{"at": "1 s", "remove": [0, 1, 2, 3]}], "leaves no voter"),
        ([{"at": "1 s", "add": [4], "remove": [4]}], "node 4 is named in add already"),
        ([{"at": "1 s", "add": [3]}], "node 3 is a voter at that time already"),
        ([{"at": "1 s", "remove": [4]}], "node 4 is no member at that time already"),
        ([{"at": "2 s", "remove": [4]}, {"at": "1 s", "remove": [4]}], "node 4 is no member"),
    ],
)
def test_requests_that_ask_for_nothing_or_leave_nobody_are_refused(requests: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(ScenarioError, match=told):
        changing("qbft", 5, 4, *requests)
    changing("qbft", 5, 4, {"at": "1 s", "remove": [4]}, {"at": "500 ms", "add": [4]})


def test_learners_are_refused() -> None:
    with pytest.raises(ScenarioError, match="qbft has no learners"):
        scenario(5, protocol="qbft", membership=[{"at": "500 ms", "learn": [4]}])


@pytest.mark.parametrize("name", [*NAMES, "raft"])
def test_clients_of_one_who_is_no_member_turn_to_a_member(name: str) -> None:
    """Those beside voter 4 are served by another until it has joined; those of voter 0 from when it has left."""
    chosen = scenario(
        5,
        protocol=SHORT.get(name, name),
        duration="4 s",
        workload=[{"kind": "open", "rate": "100 tx/s", "bytes": "500 B"}],
        membership=[{"at": "1 s", "add": [4]}, {"at": "2 s", "remove": [0]}],
        clients={"failover_after": "100 ms"},
        **{"network.members": [0, 1, 2, 3]},
    )
    run = begin(chosen)
    entry = run.world.run.engine.peer()[:, ledger.ENTRY]
    first, last = run.world.gateways[0].endpoint, run.world.gateways[4].endpoint
    assert (entry[first], entry[last]) == (0, 0)
    run.until(2 * S)
    assert (entry[first], entry[last]) == (0, 4)
    run.until(4 * S)
    assert (entry[first], entry[last]) == (1, 4)
    assert unsafe(run) == []


@pytest.mark.parametrize(
    ("heavy", "weights"),
    [
        (None, [(3, 3, 1, 1, 1, 1, 0), (4, 4, 1, 1, 1, 1, 1), (0, 3, 3, 1, 1, 1, 1)]),
        ([0, 6], [(3, 3, 1, 1, 1, 1, 0), (4, 1, 1, 1, 1, 1, 4), (0, 3, 1, 1, 1, 1, 3)]),
    ],
)
def test_wheat_weighs_each_group_anew(heavy: list[int] | None, weights: list[tuple[int, ...]]) -> None:
    """Vmax = 1 + delta, Qv = 2 (1 + delta) + 1: of six, of seven, of six others. Who is named and away has a deputy."""
    requests = ({"at": "1 s", "add": [6]}, {"at": "2 s", "remove": [0]})
    run = play(changing("wheat", 7, 6, *requests, parameters={"faults": 1, "heavy": heavy}))
    joined, left = sorted(validator_sets(run))
    seen = quorums_by_height(run)
    for first, last, of, enough in ((1, joined, 0, 7), (joined + 1, left, 1, 9), (left + 1, max(seen), 2, 7)):
        found = {(seen[height].weights, seen[height].votes) for height in seen if first <= height <= last}
        assert found == {(weights[of], enough)}
    assert deciders(run, 2.9 * S) == {1, 2, 3, 4, 5, 6}
    assert unsafe(run) == []


def test_wheat_chooses_the_fastest_of_the_group() -> None:
    """Two of three near replicas are heavy; when one of them leaves, the third takes its place."""
    near = (1, 3, 5)
    ms = [[0 if a == b else 5 if {a, b} <= {*near} else 40 for b in range(7)] for a in range(7)]
    run = play(
        changing(
            "wheat",
            7,
            7,
            {"at": "1 s", "remove": [1]},
            parameters={"faults": 1, "heavy": "fastest"},
            **{"network.latency": {"model": "explicit", "one_way_ms": ms}},
        )
    )
    (height,) = validator_sets(run)
    seen = quorums_by_height(run)
    assert seen[height].weights == (1, 4, 1, 4, 1, 1, 1)
    assert seen[height + 1].weights == (1, 0, 1, 3, 1, 3, 1)
    assert unsafe(run) == []


@pytest.mark.parametrize("crash_ms", [1005, 1015, 1025, 1035])
@pytest.mark.parametrize("name", ["pbft", "wheat"])
def test_the_view_changes_while_the_batch_with_the_change_is_under_way(name: str, crash_ms: int) -> None:
    """Four batches under way, and the primary goes at every step of the one that changes the group."""
    changes: dict[str, Any] = {
        "parameters": {"pipeline": 4},
        "faults": [{"at": f"{crash_ms} ms", "until": "3 s", "crash": {"nodes": [0]}}],
        "duration": "5 s",
    }
    run = play(changing(name, 5, 4, {"at": "900 ms", "add": [4]}, **changes))
    assert unsafe(run) == []
    assert deciders(run, 4.5 * S) == {0, 1, 2, 3, 4}
    assert run.replica(0).members == tuple(range(5))


def test_pbft_proposes_nothing_above_a_batch_that_changes_the_group() -> None:
    run = play(changing("pbft", 5, 4, {"at": "1 s", "add": [4]}, parameters={"pipeline": 8}, duration="1.3 s"))
    (height,) = validator_sets(run)
    born = {row.height: row.time_ns for row in run.events(ledger.EVENT_PROPOSED)}
    executed = next(row.time_ns for row in run.decided(0) if row.height == height)
    assert born[height + 1] >= executed
    assert born[height] < executed
    assert unsafe(run) == []


# --- liveness is judged by the group of the moment ----------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_newcomer_that_is_down_leaves_the_others_to_be_judged(name: str) -> None:
    down = {"at": "300 ms", "crash": {"nodes": [4]}}
    asked = {"at": "500 ms", "add": [4], "when": "level"}
    found = play(changing(name, 5, 4, asked, faults=[down], liveness_bound="1 s")).verdict()
    assert found.outcomes["liveness"] == "pass"
    assert found.warnings == ["membership 0 (at 500 ms) never took effect"]


class Stuck(Qbft):
    """Votes for nothing once the operator has asked for a change."""

    def on_pre_prepare(self, sender: int, message: Any) -> None:
        if not self.voters.requests:
            super().on_pre_prepare(sender, message)


def test_who_stops_upon_a_request_is_found_out_though_the_newcomer_is_down() -> None:
    down = {"at": "300 ms", "crash": {"nodes": [4]}}
    chosen = changing("qbft", 5, 4, {"at": "500 ms", "add": [4]}, faults=[down], liveness_bound="1 s")
    found = play(chosen, protocol=Stuck).verdict()
    assert [violation.kind for violation in found.violations] == ["liveness"]


@pytest.mark.parametrize("name", NAMES)
def test_a_group_grown_smaller_needs_a_quorum_of_those_who_stayed(name: str) -> None:
    request = {"at": "500 ms", "remove": [4]}
    one, two = ({"at": "1500 ms", "crash": {"nodes": nodes}} for nodes in ([3], [2, 3]))
    judged = play(changing(name, 5, 5, request, faults=[one], liveness_bound="1 s")).verdict()
    assert judged.outcomes["liveness"] == "pass"  # three of four, and the one that left
    other = play(changing(name, 5, 5, request, faults=[two], liveness_bound="1 s")).verdict()
    assert other.outcomes["liveness"] == "not applicable"  # two of four: who left does not count
    assert "too few linked voters ran" in other.warnings[0]


# --- a newcomer that is not there ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ibft", "qbft"])
def test_who_is_admitted_at_once_and_is_away_costs_a_round_at_each_of_its_turns(name: str) -> None:
    """As polygon-edge#637 tells of IBFT: three members, a fourth that starts at 120 s is voted in at 30 s."""
    away = [{"at": "0 s", "for": "120 s", "crash": {"nodes": [3]}}]
    asked = {"at": "30 s", "add": [3]}
    common: dict[str, Any] = {
        "n": 4, "protocol": {"name": name, "round_timeout": "10 s"}, "duration": "4 min", "faults": away,
        "workload": [{"kind": "open", "rate": "20 tx/s"}], "network.members": [0, 1, 2],
    }  # fmt: skip
    result = run_scenario(scenario(membership=[asked], **common))
    assert result.status == "ok"
    assert 10 < result.metrics["longest_pause_s"] < 11
    made_s = np.sort(np.asarray(result.tables["blocks"]["proposed_ns"])) / 1e9
    pauses = np.flatnonzero(np.diff(made_s) > 9)
    assert ((30 < made_s[pauses]) & (made_s[pauses] < 120)).all() and len(pauses) >= 7
    waited = run_scenario(scenario(membership=[asked | {"when": "level"}], **common))
    assert waited.metrics["longest_pause_s"] < 1


def test_raft_refuses_to_be_told_when() -> None:
    with pytest.raises(ScenarioError, match="newcomers catch up before they vote"):
        asked = [{"at": "1 s", "add": [3], "when": "at_once"}]
        scenario(4, protocol="raft", membership=asked, **{"network.members": [0, 1, 2]})
