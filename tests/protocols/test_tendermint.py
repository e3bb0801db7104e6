"""Tendermint: the laws of a fault-free run, its timeouts, locks and valid values, and agreement in trouble."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from typing import Any

import networkx as nx
import numpy as np
import pytest

from sim.engine import loop
from sim.engine.gossip import GOSSIP, GOSSIP_WIDTH
from sim.families.heights.gossip import Relayed, Said
from sim.families.heights.powers import Powers
from sim.ledger import rows as ledger
from sim.network.topology import neighbours
from sim.protocol import Ballot, Block, Signing, VoteType
from sim.protocols.tendermint import PRECOMMIT, PREVOTE, Proposal, Tendermint
from sim.scenario.errors import ScenarioError
from sim.scenario.schema import Scenario
from tests.protocols.laws import one_rotation_s
from tests.runs import MS, Played, S, begin, play, scenario, unsafe

FAST = {
    "name": "tendermint", "timeout_propose": "300 ms", "timeout_propose_delta": "100 ms",
    "timeout_prevote": "100 ms", "timeout_prevote_delta": "50 ms",
    "timeout_precommit": "100 ms", "timeout_precommit_delta": "50 ms", "resend_after": "700 ms",
}  # fmt: skip
OPEN = [{"kind": "open", "rate": "80 tx/s", "bytes": "500 B"}]


def crash(nodes: list[int], at: str, for_: str | None = None) -> dict[str, Any]:
    """A scripted crash."""
    return {"at": at, "crash": {"nodes": nodes}} | ({} if for_ is None else {"for": for_})


def cut(at: str, for_: str, *pairs: tuple[int, int]) -> list[dict[str, Any]]:
    """These processes do not hear each other for a while."""
    return [{"at": at, "for": for_, "cut_link": {"between": list(pair)}} for pair in pairs]


def first_decided(run: Played, view: int) -> Any:
    """The first decision of a block proposed in this round."""
    return next(row for row in run.decided() if row.view == view)


# --- laws --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [4, 5, 6, 7, 10, 31, 100])
def test_a_decision_costs_2n_plus_1_times_n_minus_1_messages(n: int) -> None:
    """Proposer after proposer, a block every 30 ms: just before the fourth all messages of four are on their way."""
    run = play(scenario(n, protocol="tendermint", duration="119 ms"))
    assert {len(run.decided(node)) for node in range(n)} == {3}
    assert [row.node for row in run.events(ledger.EVENT_PROPOSED)] == [0, 1, 2, 3]
    assert run.sent("Proposal") == 4 * (n - 1)
    assert run.sent("PREVOTE") == run.sent("PRECOMMIT") == 4 * n * (n - 1)
    assert run.sent() == 4 * (2 * n + 1) * (n - 1)
    assert set(run.latencies_ns().values()) == {30 * MS}
    assert unsafe(run) == []


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_validators_decide_too(n: int) -> None:
    run = play(scenario(n, protocol="tendermint", duration="1 s", **{"block.interval": "100 ms"}))
    assert min(len(run.decided(node)) for node in range(n)) >= 10
    assert unsafe(run) == []


@pytest.mark.parametrize("seed", range(8))
def test_after_losses_the_holder_of_the_highest_lock_has_its_turn_within_n_rounds(seed: int) -> None:
    """Growing timeouts make later rounds long: the bound follows from the round reached when losses end."""
    n, delay_ms = 7, 15
    lossy = [
        {"at": "0 s", "until": "1.5 s", "degrade_link": {"between": list(pair), "loss": "30 %"}}
        for pair in itertools.combinations(range(n), 2)
    ]
    changes: dict[str, Any] = {"faults": lossy, "workload": OPEN, "network.links": "datagram"}
    changes["network.jitter"] = {"model": "proportional", "up_to": "30 %"}
    run = begin(scenario(n, protocol=FAST, seed=seed, duration="60 s", **changes)).until(1_500 * MS)
    reached = max(run.replica(node).view_number for node in range(n))
    ms = {key: int(value.split()[0]) for key, value in FAST.items() if key != "name"}
    bound_ns = int(one_rotation_s(ms, n, reached, delay_ms) * S)
    run.until(1_500 * MS + bound_ns)
    assert max(row.time_ns for row in run.decided()) > 1_500 * MS
    assert unsafe(run) == []


def order_statistics(delays: np.ndarray, q: int) -> np.ndarray:
    """DESIGN section 8, all processes prevote: q-th smallest twice over. Row: from, column: to; proposer 0."""
    d = delays.copy()
    np.fill_diagonal(d, 0)
    accepted = d[0]
    locked = np.maximum(accepted, np.sort(accepted[:, None] + d, axis=0)[q - 1])
    return np.maximum(accepted, np.sort(locked[:, None] + d, axis=0)[q - 1])


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize(("n", "seed"), list(itertools.product([4, 5, 9], range(3))))
def test_unequal_delays_follow_their_order_statistics(n: int, seed: int, fast_path: bool) -> None:
    ms = np.random.default_rng(seed).integers(1, 90, size=(n, n))
    latency = {"model": "explicit", "one_way_ms": ms.tolist()}
    run = play(
        scenario(n, protocol="tendermint", duration="300 ms", **{"network.latency": latency}), fast_path=fast_path
    )
    first = run.events(ledger.EVENT_PROPOSED)[0].block
    expected = order_statistics(ms * MS, 2 * n // 3 + 1)
    found = run.latencies_ns()
    assert [found[first, j] for j in range(n)] == expected.tolist()


def test_scaling_every_delay_scales_every_decision() -> None:
    ms = np.random.default_rng(7).integers(1, 50, size=(7, 7))

    def decided(scale: int) -> list[tuple[int, int, int]]:
        latency = {"model": "explicit", "one_way_ms": (ms * scale).tolist()}
        protocol = {"name": "tendermint", "timeout_propose": f"{scale} s"}
        run = play(scenario(7, protocol=protocol, duration=f"{1000 * scale} ms", **{"network.latency": latency}))
        return [(row.time_ns // scale, row.node, row.block) for row in run.decided()]

    assert decided(3) == decided(1)


# --- timeouts ------------------------------------------------------------------------------------------------


def test_proposers_take_turns_by_height_and_round() -> None:
    run = play(scenario(4, protocol=FAST, duration="4 s", faults=[crash([1], "5 ms")]))
    born = run.events(ledger.EVENT_PROPOSED)
    assert {row.node for row in born} == {0, 2, 3}
    assert all(row.node == (row.height - 1 + row.view) % 4 for row in born)


def test_a_silent_proposer_costs_a_propose_and_a_precommit_timeout() -> None:
    """Height 2 begins at 30 ms: nil prevotes at 330, nil precommits at 340, all of them at 350, round 1 at 450."""
    run = play(scenario(4, protocol=FAST, duration="1 s", faults=[crash([1], "5 ms")]))
    began = {row.node: row.time_ns for row in run.events(ledger.EVENT_VIEW)[:3]}
    assert began == dict.fromkeys([0, 2, 3], 450 * MS)
    assert int(first_decided(run, 1)[0]) == 480 * MS
    assert unsafe(run) == []


def test_votes_for_different_values_cost_all_three_timeouts() -> None:
    """Processes 1 and 2 miss the proposal and prevote nil at 300 ms, as many as those for the value."""
    run = play(scenario(4, protocol=FAST, duration="1 s", faults=cut("5 ms", "10 ms", (0, 1), (0, 2))))
    began = {row.node: row.time_ns for row in run.events(ledger.EVENT_VIEW)[:4]}
    # Three prevotes are everywhere at 310, nil precommits leave at 410 and are three everywhere at 420.
    assert began == dict.fromkeys(range(4), 520 * MS)
    assert int(first_decided(run, 1)[0]) == 550 * MS
    assert unsafe(run) == []


def test_the_next_proposer_waits_for_timeout_commit() -> None:
    run = play(scenario(4, protocol={**FAST, "timeout_commit": "100 ms"}, duration="1 s"))
    born = [row.time_ns for row in run.events(ledger.EVENT_PROPOSED)]
    assert born == [130 * MS * i for i in range(8)]
    assert run.views() == []


def test_timeouts_grow_with_the_round() -> None:
    judge = begin(scenario(4, protocol=FAST)).replica(0)
    assert [judge.timeout_propose_ns(round_) // MS for round_ in range(3)] == [300, 400, 500]


def test_an_idle_chain_makes_no_rounds() -> None:
    once = [{"kind": "open", "rate": "0.2 tx/s", "bytes": "500 B"}]
    run = play(scenario(4, protocol=FAST, duration="30 s", workload=once))
    assert run.views() == []
    assert 1 <= len(run.decided(0)) < 20


# --- locks and valid values ----------------------------------------------------------------------------------


def test_what_a_locked_process_may_prevote_for() -> None:
    """Lines 23 and 29."""
    judge = begin(scenario(4, protocol=FAST)).replica(3)
    a, b = Block(1, 1, 0, 0, None), Block(2, 1, 0, 0, None)
    assert judge.may_prevote(Proposal(1, 3, b, -1))
    judge.locked_value, judge.locked_round = a, 1
    assert judge.may_prevote(Proposal(1, 3, a, -1))
    assert not judge.may_prevote(Proposal(1, 3, b, -1))
    assert not judge.may_prevote(Proposal(1, 3, b, 0))  # prevoted for before the lock
    assert judge.may_prevote(Proposal(1, 3, b, 1))
    assert judge.may_prevote(Proposal(1, 3, b, 2))  # prevoted for after the lock: line 29 releases it


def test_a_valid_value_is_proven_by_prevotes_heard_or_by_a_certificate_that_is_true() -> None:
    """Line 28. Two of four signed for A in round 0: no certificate makes that 2f + 1; the third signature does."""
    run = begin(scenario(4, protocol=FAST)).until(S)
    judge, hosts = run.replica(3), run.world.run.hosts
    judge.absorb_fast_path()
    height, judge.round = judge.height, 2
    a, b = (hosts[0].new_block(None, 7, number=height, empty=True) for _ in range(2))
    ballot = hosts[0].votes.ballot(1, height, a)
    for node in (0, 1):
        hosts[node].votes.count(PREVOTE, ballot, node)
    again = Proposal(height, 2, a, 1, prevotes=3)
    assert not judge.is_proven(again), "forged"
    hosts[2].votes.count(PREVOTE, ballot, 2)
    assert not judge.context.votes.is_complete(PREVOTE, ballot), "3 has heard of none"
    assert judge.is_proven(again)
    assert not judge.is_proven(dataclasses.replace(again, prevotes=0)), "without a certificate they must be heard"
    assert not judge.is_proven(dataclasses.replace(again, block=b)), "they are for A"
    assert not judge.is_proven(dataclasses.replace(again, valid_round=0)), "they are of round 1"
    assert not judge.is_proven(dataclasses.replace(again, valid_round=2)), "vr < r"
    assert judge.is_proven(Proposal(height, 2, b, -1))


def test_a_certificate_has_its_price() -> None:
    """Three signatures of 64 bytes, each with two that name its signer."""
    a = Block(1, 1, 0, 0, None)
    new, again = Proposal(1, 3, a, -1), Proposal(1, 3, a, 1, prevotes=3)
    assert again.size_bytes(Signing(4)) - new.size_bytes(Signing(4)) == 3 * 66
    assert (new.certificates(), again.certificates()) == ((), (3,))
    assert (Said(0, 1, again).certificates(), Relayed(0, 1, again).certificates()) == ((3,), (3,))


def test_certificates_are_weighed_by_power() -> None:
    """Of powers 4, 1, 1 and 1 a quorum is 5: three are not enough, and with the first they are."""
    run = begin(scenario(4, protocol=with_power(4, 1, 1, 1))).until(S)
    judge, hosts = run.replica(3), run.world.run.hosts
    judge.absorb_fast_path()
    height, judge.round = judge.height, 2
    ballot = hosts[0].votes.ballot(1, height, hosts[0].new_block(None, 7, number=height, empty=True))
    again = Proposal(height, 2, ballot.block, 1, prevotes=2)
    for node, enough in ((1, False), (2, False), (3, False), (0, True)):
        hosts[node].votes.count(PREVOTE, ballot, node)
        assert judge.is_proven(again) == enough


class Unproven(Tendermint):
    """As if nothing but prevotes that it heard proved a value."""

    def is_certified(self, ballot: Ballot) -> bool:
        return False


# One for good, two that restart, at about one time: prevotes that a lock rests on are lost.
LOSING = [
    [crash([3], "1378 ms", "1795 ms"), crash([2], "1381 ms"), crash([0], "2434 ms", "1362 ms")],
    [crash([0], "629 ms"), crash([2], "611 ms", "1448 ms"), crash([3], "601 ms", "511 ms")],
    [crash([2], "1393 ms"), crash([0], "1383 ms", "1178 ms"), crash([3], "1420 ms", "847 ms")],
]


def losing(faults: list[dict[str, Any]], duration: str) -> Any:
    """A run with these crashes."""
    timeouts = {"timeout_propose": "300 ms", "timeout_prevote": "100 ms", "timeout_precommit": "100 ms"}
    protocol = {"name": "tendermint", "resend_after": "500 ms", **timeouts}
    return scenario(4, protocol=protocol, duration=duration, faults=faults)


@pytest.mark.parametrize("faults", LOSING)
def test_prevotes_lost_with_those_who_heard_them_do_not_halt_a_height(faults: list[dict[str, Any]]) -> None:
    """The dead process's prevote was one of the 2f + 1: nobody will hear so many again."""
    run = play(losing(faults, "6 s"))
    assert run.decided()[-1].time_ns > 5.5 * S
    assert unsafe(run) == []


def test_without_certificates_a_height_halts_upon_lost_prevotes() -> None:
    run = play(losing(LOSING[1], "5 s"), protocol=Unproven)
    assert run.decided()[-1].time_ns < 1 * S
    assert unsafe(run) == []


class Forger(Tendermint):
    """Process 2 says of what it proposes in round 1 that it had 2f + 1 prevotes in round 0."""

    def proposal(self) -> Proposal | None:
        message = super().proposal()
        if message is None or (self.context.me, self.round) != (2, 1):
            return message
        return dataclasses.replace(message, valid_round=0, prevotes=3)

    def is_certified(self, ballot: Ballot) -> bool:
        return self.context.me == 2 or super().is_certified(ballot)


class Credulous(Forger):
    """Verifies no certificate."""

    def is_certified(self, ballot: Ballot) -> bool:
        return True


@pytest.mark.parametrize(("protocol", "round_"), [(Forger, 2), (Credulous, 1)])
def test_nobody_prevotes_upon_a_forged_certificate(protocol: type[Tendermint], round_: int) -> None:
    """Process 1, whose turn height 2 is, has crashed: in round 1 it is 2's, in round 2 it is 3's."""
    run = play(scenario(4, protocol=FAST, duration="2 s", faults=[crash([1], "5 ms")]), protocol=protocol)
    assert next(row.view for row in run.decided() if row.height == 2) == round_
    assert unsafe(run) == []


def test_a_lock_of_one_process_does_not_stop_the_others() -> None:
    """0 alone locks A; 1, who has not seen A, proposes B in round 1; 0 prevotes nil and decides B with the others."""
    faults = [*cut("5 ms", "10 ms", (0, 1)), *cut("15 ms", "10 ms", (2, 3))]
    run = begin(scenario(4, protocol=FAST, duration="2 s", faults=faults)).until(200 * MS)
    for node in range(4):
        run.replica(node).absorb_fast_path()
    a = run.replica(0).locked_value
    assert [run.replica(node).locked_round for node in range(4)] == [0, -1, -1, -1]
    run.until(2 * S)
    assert run.decided_blocks(0)[1] == run.decided_blocks(2)[1] != a.number
    assert run.decided()[0].view == 1
    assert unsafe(run) == []


def test_a_valid_value_is_proposed_again_with_its_round() -> None:
    """1 and 3 lock A in round 0, 2 has not seen it, 0 lacks votes; 1 leads round 1 and proposes A with vr = 0."""
    faults = [*cut("5 ms", "10 ms", (0, 2)), *cut("15 ms", "10 ms", (0, 1), (0, 3))]
    run = begin(scenario(4, protocol=FAST, duration="2 s", faults=faults)).until(515 * MS)
    again = run.replica(1).proposals[-1]
    assert (again.round, again.valid_round, again.prevotes) == (1, 0, 3)
    assert again.block is run.replica(1).valid_value
    assert run.replica(0).valid_value is None  # it prevotes for A when those of round 0 are repeated to it
    run.until(2 * S)
    times = {row.node: row.time_ns for row in run.decided() if row.height == 1}
    # The repeated prevotes make 0, still in round 0, precommit A; with those of 1 and 3 that decides A.
    assert times == {0: 520 * MS} | dict.fromkeys([1, 2, 3], 530 * MS)
    assert run.decided_blocks(0)[1] == again.block.number
    assert len({blocks[1] for node in range(4) if (blocks := run.decided_blocks(node))}) == 1
    assert unsafe(run) == []


def test_lock_and_valid_value_survive_a_crash() -> None:
    """All lock A at 20 ms and crash before a precommit arrives; they decide A in round 0."""
    run = begin(scenario(4, protocol=FAST, duration="4 s", faults=[crash([0, 1, 2, 3], "27 ms", "10 ms")]))
    run.until(40 * MS)
    assert {run.replica(node).locked_round for node in range(4)} == {0}
    locked = run.replica(0).locked_value
    run.until(4 * S)
    assert run.decided_blocks(2)[1] == locked.number
    assert run.decided()[0].view == 0
    assert unsafe(run) == []


def test_lost_votes_are_sent_again() -> None:
    """No precommit arrives at 30 ms. Nobody has 2f + 1 votes to start a timer upon: repetition helps."""
    all_cut = cut("25 ms", "10 ms", *itertools.combinations(range(4), 2))
    run = play(scenario(4, protocol=FAST, duration="2 s", faults=all_cut))
    first = run.decided()[0]
    assert (first.time_ns, first.view) == (300 * MS + 700 * MS + 10 * MS, 0)
    assert 1 not in run.views()
    assert unsafe(run) == []


def test_what_counts_under_an_umbrella_is_freed() -> None:
    """Every fourth height takes two rounds, one of nil votes only."""
    run = begin(scenario(4, protocol=FAST, duration="400 s", faults=[crash([1], "5 ms", "399 s")]))
    most = 0
    for second in range(20, 400, 20):
        run.until(second * S)
        most = max(most, len(run.world.run.block_store.ballots))
    run.until(400 * S)
    assert len(run.decided(0)) > 2_000
    assert most < 9_000
    # Decided here by all at last: what stood for heights that nobody needs is gone.
    assert len(run.world.run.block_store.ballots) < 3_000


# --- crash, restart, synchronisation -----------------------------------------------------------------------


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("node", [0, 1])
def test_nobody_votes_twice_after_a_restart(node: int, fast_path: bool) -> None:
    """For a height and round every process votes for one block, the restarted proposer included."""
    twice = set()
    for seed in range(4):
        faults = [crash([node], f"{301 + 7 * seed} ms", f"{20 + 9 * seed} ms")]
        jitter = {"model": "proportional", "up_to": 1.0}
        chosen = scenario(4, protocol=FAST, seed=seed, duration="1 s", faults=faults, **{"network.jitter": jitter})
        run = begin(chosen, fast_path=fast_path)
        for ms in range(296, 900, 12):
            run.until(ms * MS)
            for (view, number), same in run.world.run.block_store.all_ballots():
                for voter, host in enumerate(run.world.run.hosts):
                    for vote in (PREVOTE, PRECOMMIT):
                        if sum(host.votes.has_voted(vote, ballot) for ballot in same) > 1:
                            twice.add((seed, voter, view, number, vote.name))
        assert unsafe(run) == []
    assert twice == set()


def test_a_restarted_process_catches_up_and_takes_part() -> None:
    """Validator 3 misses a hundred blocks; then 2 leaves for good, and without 3 there is no quorum."""
    faults = [crash([3], "500 ms", "3 s"), crash([2], "5 s")]
    run = begin(scenario(4, protocol=FAST, duration="8 s", faults=faults)).until(int(3.4 * S))
    before = len(run.decided(3))
    run.until(5 * S)
    assert len(run.decided(0)) - len(run.decided(3)) <= 1
    assert len(run.decided(3)) > before + 20
    run.until(8 * S)
    assert run.decided(3)[-1].time_ns > 7 * S
    assert unsafe(run) == []


def test_who_missed_a_proposal_fetches_what_was_decided() -> None:
    """Process 0 hears of three precommits for a value it has not seen; the proposal after the next tells it."""
    run = play(scenario(4, protocol=FAST, duration="2 s", faults=cut("35 ms", "10 ms", (0, 1))))
    assert run.sent("Blocks") >= 1
    assert len(run.decided(1)) - len(run.decided(0)) <= 1
    assert unsafe(run) == []


@pytest.mark.parametrize("n", [1, 4, 7])
def test_a_whole_cluster_crashes_and_recovers(n: int) -> None:
    faults = [crash(list(range(n)), "1005 ms", "1 s")]
    run = play(scenario(n, protocol=FAST, duration="4 s", faults=faults, **{"block.interval": "10 ms"}))
    before = [len(run.decided(node)[run.decided(node).time_ns < 2 * S]) for node in range(n)]
    assert all(len(run.decided(node)) > before[node] + 30 for node in range(n))
    assert unsafe(run) == []


# --- agreement, validity, and the two ways to run ------------------------------------------------------------


def troubled(seed: int, *, lossy: bool, protocol: dict[str, Any] = FAST) -> Any:
    """A short run with f crashes at once at most, a partition that heals, jitter, and loss or not."""
    choice = random.Random(seed)  # of the scenario; the run's own chance is keyed by its seed
    n = choice.choice([4, 7])
    ids = list(range(n))
    choice.shuffle(ids)
    faults: list[dict[str, Any]] = [
        crash(ids[: (n - 1) // 3], f"{choice.randint(100, 900)} ms", f"{choice.randint(5, 900)} ms"),
        {"at": f"{choice.randint(1900, 2100)} ms", "for": f"{choice.randint(5, 1000)} ms",
         "partition": {"groups": [ids[: choice.randint(1, n - 1)]]}},
        crash([choice.choice(ids)], f"{choice.randint(3200, 3500)} ms", f"{choice.randint(5, 400)} ms"),
    ]  # fmt: skip
    return scenario(
        n, seed=seed, protocol=protocol, duration="8 s", faults=faults,
        workload=choice.choice([OPEN, OPEN, [{"kind": "backlog", "bytes": "500 B"}]]),
        **{
            "network.latency": {"model": "uniform", "low": "2 ms", "high": "15 ms"},
            "network.jitter": {"model": "proportional", "up_to": choice.choice([0.2, 1.0])},
            "network.loss": "2 %" if lossy else "0 %",
            "network.retransmit_after": "30 ms",
            "network.links": choice.choice(["ordered", "datagram"]) if lossy else "ordered",
            "block.interval": "20 ms",
        },
    )  # fmt: skip


@pytest.mark.parametrize("seeds", [range(6), pytest.param(range(6, 40), marks=pytest.mark.slow)], ids=["few", "many"])
def test_agreement_and_validity_in_trouble(seeds: range) -> None:
    for seed in seeds:
        run = play(troubled(seed, lossy=seed % 2 == 1))
        assert run.code == loop.UNTIL
        assert unsafe(run) == [], f"seed {seed}"
        if seed % 2 == 0:  # nothing lost but by faults: decisions go on after the last one
            assert run.decided()[-1].time_ns > 6 * S, f"seed {seed}"


@pytest.mark.parametrize("seeds", [range(3), pytest.param(range(3, 12), marks=pytest.mark.slow)], ids=["few", "many"])
def test_the_fast_path_does_what_the_handlers_do(seeds: range) -> None:
    for seed in seeds:
        chosen = troubled(seed, lossy=seed % 2 == 1)
        fast, slow = play(chosen, fast_path=True), play(chosen, fast_path=False)
        np.testing.assert_array_equal(fast.rows, slow.rows, err_msg=f"seed {seed}")
        assert fast.digest == slow.digest, f"seed {seed}"


# --- voting power ------------------------------------------------------------------------------------------


UNEQUAL = [7, 1, 4, 2, 3]


def with_power(*power: int) -> dict[str, Any]:
    """Quick timeouts, and these powers."""
    return {**FAST, "power": list(power)}


@pytest.mark.parametrize("powers", [(7, 1, 4, 2, 3), (1, 1, 1, 1), (10, 1), (6, 4, 2)])
def test_turns_are_proportional_to_power(powers: tuple[int, ...]) -> None:
    """Over any window as long as the total power (in its smallest unit), exactly; and evenly spread over it."""
    turns = Powers(powers)
    unit = math.gcd(*powers)
    total = sum(powers) // unit
    order = [turns.turn(step) for step in range(3 * total)]
    for start in range(2 * total):
        window = order[start : start + total]
        assert [unit * window.count(voter) for voter in range(len(powers))] == list(powers)
    for length in range(1, total):
        for voter, power in enumerate(powers):
            assert abs(order[:length].count(voter) - length * power / (unit * total)) < 2


def test_the_proposers_of_a_run_have_their_share() -> None:
    run = play(scenario(5, protocol={"name": "tendermint", "power": UNEQUAL}, duration="3 s"))
    proposers = [row.node for row in run.events(ledger.EVENT_PROPOSED)]
    assert [proposers[: 3 * sum(UNEQUAL)].count(voter) for voter in range(5)] == [3 * power for power in UNEQUAL]
    assert unsafe(run) == []


def test_equal_powers_are_no_powers() -> None:
    plain, equal = (play(scenario(7, protocol=chosen)).digest for chosen in ("tendermint", with_power(*[9] * 7)))
    assert equal == play(scenario(7, protocol=FAST)).digest
    assert equal == plain


def test_who_has_a_third_of_the_power_halts_the_chain_by_leaving() -> None:
    """0 has 3 of 9, one third: what is left is not more than two thirds. With 2 of 8 it is."""
    for power, goes_on in ((3, False), (2, True)):
        faults = [crash([0], "500 ms")]
        run = play(scenario(7, protocol=with_power(power, *[1] * 6), duration="6 s", faults=faults))
        assert (run.decided()[-1].time_ns > 5 * S) == goes_on
        assert unsafe(run) == []


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_weighted_delays_follow_their_order_statistics(seed: int, fast_path: bool) -> None:
    """A quorum is complete with the vote that brings the power above two thirds: see `order_statistics`."""
    ms = np.random.default_rng(seed).integers(1, 90, size=(5, 5))
    latency = {"model": "explicit", "one_way_ms": ms.tolist()}
    protocol = {"name": "tendermint", "power": UNEQUAL}
    run = play(scenario(5, protocol=protocol, duration="300 ms", **{"network.latency": latency}), fast_path=fast_path)
    copies = np.repeat(np.arange(5), UNEQUAL)  # a voter of power p is p voters at one place
    many = (ms * MS)[np.ix_(copies, copies)]
    many[copies[:, None] == copies] = 0
    expected = order_statistics(many, 2 * sum(UNEQUAL) // 3 + 1)[np.searchsorted(copies, range(5))]
    found = run.latencies_ns()
    first = run.events(ledger.EVENT_PROPOSED)[0].block
    assert [found[first, j] for j in range(5)] == expected.tolist()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"power": [1, 2, 3]}, "3 values for 4 voters"),
        ({"power": [1, 2, 3, 0]}, "must be at least 1"),
        ({"power": [1 << 20] * 4}, "at most 2097151"),
    ],
)
def test_powers_that_do_not_fit_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ScenarioError, match=words):
        scenario(4, protocol={**FAST, **changes})


# --- gossip ------------------------------------------------------------------------------------------------


def gossip(degree: int = 4, **changes: Any) -> dict[str, Any]:
    """Patient processes that pass messages on."""
    return {"name": "tendermint", "dissemination": "gossip", "gossip_degree": degree, **changes}


@pytest.mark.parametrize(("n", "degree"), [(4, 8), (10, 4), (16, 6)])
def test_every_process_hears_everything_at_a_fixed_price(n: int, degree: int) -> None:
    """2E - (n - 1) copies of each of 2n + 1 messages; at 950 ms all those of three heights have come to rest."""
    run = play(scenario(n, seed=1, protocol=gossip(degree, timeout_commit="300 ms"), duration="950 ms"))
    near = neighbours(n, degree, 1)
    edges = sum(map(len, near)) // 2
    assert {len(run.decided(node)) for node in range(n)} == {3}
    hosts = run.world.run.hosts
    assert [len(hosts[0].gossip.seen(height)) for height in (1, 2, 3)] == [2 * n + 1] * 3
    assert all(host.gossip.seen(2) == hosts[0].gossip.seen(2) for host in hosts)
    assert run.sent() == 3 * (2 * n + 1) * (2 * edges - (n - 1))
    assert run.sent("Said") == sum(len(near[v]) * 6 + len(near[v]) * (v < 3) for v in range(n))
    assert unsafe(run) == []


@pytest.mark.parametrize("seed", range(3))
def test_with_gossip_the_shortest_paths_are_the_delays(seed: int) -> None:
    n = 9
    ms = np.random.default_rng(seed).integers(1, 90, size=(n, n))
    latency = {"model": "explicit", "one_way_ms": ms.tolist()}
    changes: dict[str, Any] = {"network.latency": latency, "block.interval": "900 ms"}
    run = play(scenario(n, seed=seed, protocol=gossip(), duration="800 ms", **changes))
    graph = nx.DiGraph()
    for a, near in enumerate(neighbours(n, 4, seed)):
        graph.add_weighted_edges_from((a, b, int(ms[a, b])) for b in near)
    paths = dict(nx.all_pairs_dijkstra_path_length(graph))
    delays = np.array([[paths[a][b] for b in range(n)] for a in range(n)]) * MS
    first = run.events(ledger.EVENT_PROPOSED)[0].block
    found = run.latencies_ns()
    assert [found[first, j] for j in range(n)] == order_statistics(delays, 2 * n // 3 + 1).tolist()


@pytest.mark.parametrize("mode", ["direct", "gossip"])
def test_gossip_goes_on_where_direct_broadcast_halts(mode: str) -> None:
    """Of ten processes on a ring of neighbours only neighbours are linked: seven never hear each other directly."""
    ring = neighbours(10, 2, 1)
    strangers = [(a, b) for a, b in itertools.combinations(range(10), 2) if b not in ring[a]]
    faults = cut("0 s", "4 s", *strangers)
    protocol = {**gossip(2, **FAST), "dissemination": mode}
    run = play(scenario(10, seed=1, protocol=protocol, duration="4 s", faults=faults))
    assert (len(run.decided()) > 0) == (mode == "gossip")
    if mode == "gossip":
        assert min(len(run.decided(node)) for node in range(10)) > 5
    assert unsafe(run) == []


def test_a_restarted_process_hears_from_its_neighbours_what_it_missed() -> None:
    faults = [crash([3], "500 ms", "2 s"), crash([2], "4 s")]
    run = play(scenario(7, protocol=gossip(4, **FAST), duration="7 s", faults=faults))
    assert run.decided(3)[-1].time_ns > 6 * S
    assert len(run.decided(0)) - len(run.decided(3)) <= 1
    assert unsafe(run) == []


@pytest.mark.parametrize("seed", range(4))
def test_agreement_in_trouble_with_gossip(seed: int) -> None:
    chosen = troubled(seed, lossy=seed % 2 == 1, protocol=gossip(2, **FAST))
    run = play(chosen)
    assert unsafe(run) == []
    if seed % 2 == 0:
        assert run.decided()[-1].time_ns > 6 * S
    assert run.digest == play(chosen).digest == play(chosen, fast_path=False).digest


def test_votes_that_spread_reach_no_handler_and_pass_on_in_the_fast_path_as_by_handlers() -> None:
    """A process hears of proposals, and of quorums; the same events with every first copy at a handler."""
    chosen = scenario(16, protocol=gossip(4), duration="1 s")
    heard: dict[bool, list[Said]] = {}
    digests = set()
    for fast_path in (True, False):
        run = begin(chosen, fast_path=fast_path)
        found = heard[fast_path] = []
        for host in run.world.run.hosts:
            for kind in (Said, Relayed):
                taken = host.handlers[kind]
                host.handlers[kind] = lambda via, message, taken=taken, found=found: (
                    found.append(message), taken(via, message),
                )  # fmt: skip
        run.until(S)
        digests.add(run.digest)
    assert len(digests) == 1
    assert all(isinstance(message.content, Proposal) for message in heard[True])
    votes = [message for message in heard[False] if not isinstance(message.content, Proposal)]
    assert len(votes) > 20 * len(heard[True]) > 0


def test_what_is_long_decided_is_forgotten_by_all_and_its_slots_used_again() -> None:
    run = play(scenario(4, protocol=gossip(2), duration="5 s"))
    assert min(len(run.decided(node)) for node in range(4)) > 60
    assert [len(run.world.run.hosts[0].gossip.seen(height)) > 0 for height in (1, len(run.decided(0)))] == [False, True]
    assert len(run.world.run.engine.run_state[GOSSIP]) <= 1024 * GOSSIP_WIDTH


def test_a_graph_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ScenarioError, match="write gossip_degree: 4"):
        scenario(7, protocol=gossip(3))


# --- a liar that tells one process what the others do not hear --------------------------------------------------------


class Faithless(Tendermint):
    """Process 0 prevotes against its lock, tells the proposer alone, and never proposes."""

    def may_prevote(self, proposal: Proposal) -> bool:
        return self.context.me == 0 or super().may_prevote(proposal)

    def proposal(self) -> Proposal | None:
        return None if self.context.me == 0 else super().proposal()

    def cast(self, vote: VoteType, block: Block | None) -> None:
        context = self.context
        if context.me != 0 or vote is not PREVOTE or block is None:
            super().cast(vote, block)
            return
        ballot = context.votes.ballot(self.round, self.height, block)
        context.votes.count(vote, ballot, 0)
        context.vote(vote, ballot, self.proposer_of(self.height, self.round))

    def repeat_votes(self, round_: int, *, values_only: bool) -> None:
        if self.context.me != 0:
            super().repeat_votes(round_, values_only=values_only)


class Unshown(Faithless):
    """And nobody is shown why another is locked."""

    def pass_on_prevotes(self, block: Block) -> None:
        """Keep it."""


def liar(**changes: Any) -> Scenario:
    """Round 1 does not reach process 3 until 3 s; timeouts of 100 and 200 ms that do not grow."""
    zero = {f"timeout_{name}_delta": "0 ms" for name in ("propose", "prevote", "precommit")}
    quick = {"timeout_propose": "200 ms", "timeout_prevote": "100 ms", "timeout_precommit": "100 ms", **zero}
    held = {"types": ["Proposal", "PREVOTE", "PRECOMMIT"], "height": 1, "view": 1, "dst": [3], "delay_until": "3 s"}
    script = [{"sends": "PREVOTE", "view": 2, "drop": True}, {"sends": "Proposal", "drop": True}]
    protocol = {"name": "tendermint", "resend_after": "2 s", **quick}
    corrupted = [{"nodes": [0], "behaviour": "scripted", "script": script}]
    return scenario(protocol=protocol, duration="12 s", rules=[held], corrupted=corrupted, **changes)


def test_one_liar_that_shows_its_prevotes_to_one_process_does_not_halt_the_others() -> None:
    run = play(liar(), protocol=Faithless)
    assert unsafe(run) == []
    assert run.decided(1)[0].time_ns < 3 * S
    assert len(run.decided(1)) > 80


def test_if_locks_were_not_shown_it_would() -> None:
    assert len(play(liar(), protocol=Unshown).decided(1)) == 0


class NeverPrecommits(Tendermint):
    """Rounds without end: values are prevoted, and nil precommitted."""

    def update_lock(self, block: Block | None) -> None:
        """Lock nothing."""

    def precommit(self, block: Block | None) -> None:
        super().precommit(None)


def test_a_round_costs_the_same_however_many_were_before_it_at_its_height() -> None:
    """Votes of the round before are said again, not those of all rounds."""
    run = begin(liar(**{"liveness_bound": "60 s"}), protocol=NeverPrecommits)
    counts = []
    for at_ns in (4 * S, 6 * S, 8 * S, 10 * S):
        run.until(at_ns)
        counts.append((len(run.events(ledger.EVENT_VIEW)), run.sent("PREVOTE") + run.sent("PRECOMMIT")))
    early, late = ((b[1] - a[1]) / (b[0] - a[0]) for a, b in (counts[:2], counts[2:]))
    assert late <= 1.5 * early
