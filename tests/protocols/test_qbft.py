"""QBFT: the laws of a fault-free run, justified round changes, and the schedules that stop or split IBFT v1."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest

from sim.engine import loop
from sim.families.sync import Blocks
from sim.ledger import rows as ledger
from sim.protocol import Block, Signing
from sim.protocols.qbft import COMMIT, PREPARE, PrePrepare, Qbft, RoundChange, highest_prepared
from tests.runs import MS, Played, S, begin, play, scenario, unsafe

FAST = {"name": "qbft", "round_timeout": "300 ms"}
OPEN = [{"kind": "open", "rate": "80 tx/s", "bytes": "500 B"}]


def crash(nodes: list[int], at: str, for_: str | None = None) -> dict[str, Any]:
    """A scripted crash."""
    return {"at": at, "crash": {"nodes": nodes}} | ({} if for_ is None else {"for": for_})


def cut(at: str, for_: str, *pairs: tuple[int, int]) -> list[dict[str, Any]]:
    """These validators do not hear each other for a while."""
    return [{"at": at, "for": for_, "cut_link": {"between": list(pair)}} for pair in pairs]


def first_decided(run: Played, view: int) -> Any:
    """The first decision of a block proposed in this round."""
    return next(row for row in run.decided() if row.view == view)


# --- laws --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [4, 5, 6, 7, 10, 31, 100])
def test_a_decision_costs_2n_plus_1_times_n_minus_1_messages(n: int) -> None:
    """Proposer after proposer, a block every 30 ms: just before the fourth all messages of four are on their way."""
    run = play(scenario(n, protocol="qbft", duration="119 ms"))
    assert {len(run.decided(node)) for node in range(n)} == {3}
    assert [row.node for row in run.events(ledger.EVENT_PROPOSED)] == [0, 1, 2, 3]
    assert run.sent("PrePrepare") == 4 * (n - 1)
    assert run.sent("PREPARE") == run.sent("COMMIT") == 4 * n * (n - 1)
    assert run.sent() == 4 * (2 * n + 1) * (n - 1)
    assert set(run.latencies_ns().values()) == {30 * MS}
    assert unsafe(run) == []


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_validators_decide_too(n: int) -> None:
    run = play(scenario(n, protocol="qbft", duration="1 s", **{"block.interval": "100 ms"}))
    assert min(len(run.decided(node)) for node in range(n)) >= 10
    assert unsafe(run) == []


def order_statistics(delays: np.ndarray, q: int) -> np.ndarray:
    """DESIGN section 8, all validators prepare: q-th smallest twice over. Row: from, column: to; proposer 0."""
    d = delays.copy()
    np.fill_diagonal(d, 0)
    accepted = d[0]
    prepared = np.maximum(accepted, np.sort(accepted[:, None] + d, axis=0)[q - 1])
    return np.maximum(accepted, np.sort(prepared[:, None] + d, axis=0)[q - 1])


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize(("n", "seed"), list(itertools.product([4, 5, 9], range(3))))
def test_unequal_delays_follow_their_order_statistics(n: int, seed: int, fast_path: bool) -> None:
    ms = np.random.default_rng(seed).integers(1, 90, size=(n, n))
    latency = {"model": "explicit", "one_way_ms": ms.tolist()}
    run = play(scenario(n, protocol="qbft", duration="300 ms", **{"network.latency": latency}), fast_path=fast_path)
    first = run.events(ledger.EVENT_PROPOSED)[0].block
    expected = order_statistics(ms * MS, -(-2 * n // 3))
    found = run.latencies_ns()
    assert [found[first, j] for j in range(n)] == expected.tolist()


def test_scaling_every_delay_scales_every_decision() -> None:
    ms = np.random.default_rng(7).integers(1, 50, size=(7, 7))

    def decided(scale: int) -> list[tuple[int, int, int]]:
        latency = {"model": "explicit", "one_way_ms": (ms * scale).tolist()}
        protocol = {"name": "qbft", "round_timeout": f"{scale} s"}
        run = play(scenario(7, protocol=protocol, duration=f"{1000 * scale} ms", **{"network.latency": latency}))
        return [(row.time_ns // scale, row.node, row.block) for row in run.decided()]

    assert decided(3) == decided(1)


# --- proposers and rounds ----------------------------------------------------------------------------------


def test_every_fourth_block_waits_for_a_crashed_proposer() -> None:
    run = play(scenario(4, protocol=FAST, duration="4 s", faults=[crash([0], "1 s")]))
    assert set(run.views()) == {0, 1}
    late = run.events(ledger.EVENT_PROPOSED)
    late = late[late.time_ns > int(1.2 * S)]
    assert set(late[late.view == 0].node.tolist()) == {1, 2, 3} - {1}  # 1 takes 0's turns, and 2 follows on 1
    assert set(late[late.view == 1].node.tolist()) == {1}
    assert unsafe(run) == []


def test_patience_doubles_with_every_round() -> None:
    """From 30 ms on height 2 waits for validators 1 and 2 in vain: 300 ms, then 600 ms, then ROUND-CHANGEs arrive."""
    run = play(scenario(7, protocol=FAST, duration="2 s", faults=[crash([1, 2], "5 ms")]))
    began = {view: row.time_ns for row in run.events(ledger.EVENT_VIEW)[::-1] if (view := row.block) > 0}
    assert began[1] == 330 * MS
    assert began[2] == 930 * MS
    assert int(first_decided(run, 2)[0]) == began[2] + 40 * MS


def test_f_plus_1_round_changes_are_joined() -> None:
    """Three time out at 300 ms; validator 1 restarted in between and would be patient until 550 ms."""
    faults = [*cut("5 ms", "310 ms", (0, 2), (0, 3)), crash([1], "200 ms", "50 ms")]
    run = begin(scenario(4, protocol=FAST, duration="1 s", faults=faults)).until(305 * MS)
    assert [run.replica(node).round for node in range(4)] == [1, 0, 1, 1]
    run.until(309 * MS)
    assert run.replica(1).round == 0  # restarted at 250 ms, it has 241 ms left
    run.until(310 * MS)
    assert run.replica(1).round == 1
    run.until(1 * S)
    assert min(len(run.decided(node)) for node in range(4)) > 5
    assert unsafe(run) == []


def test_an_idle_chain_changes_no_rounds() -> None:
    once = [{"kind": "open", "rate": "0.2 tx/s", "bytes": "500 B"}]
    run = play(scenario(4, protocol=FAST, duration="30 s", workload=once))
    assert run.views() == []
    assert 1 <= len(run.decided(0)) < 20


# --- justification -----------------------------------------------------------------------------------------


ALL_CUT = cut("25 ms", "10 ms", *itertools.combinations(range(4), 2))  # PREPAREs have arrived, COMMITs do not


def test_a_prepared_block_is_proposed_again() -> None:
    """All prepare block 1 at 20 ms, no COMMIT arrives at 30: the next round must propose the same block."""
    run = play(scenario(4, protocol=FAST, duration="2 s", faults=ALL_CUT))
    first = run.events(ledger.EVENT_PROPOSED)[0]
    decided = run.decided()[0]
    assert (decided.block, decided.height) == (first.block, 1)
    assert decided.time_ns == 310 * MS + 30 * MS
    assert unsafe(run) == []


def test_what_was_prepared_survives_a_crash() -> None:
    run = begin(scenario(4, protocol=FAST, duration="2 s", faults=[*ALL_CUT, crash([0, 1, 2, 3], "27 ms", "10 ms")]))
    run.until(40 * MS)
    prepared = [run.replica(node).prepared for node in range(4)]
    assert {round_ for round_, _ in prepared} == {0}
    run.until(2 * S)
    assert run.decided_blocks(2)[1] == prepared[0][1].number
    assert unsafe(run) == []


def block(number: int) -> Block:
    """A block of 1000 bytes at height 1."""
    made = Block(number, 1, 0, 0, None)
    made.bytes = 1000
    return made


def test_the_highest_prepared_round_wins() -> None:
    old, new = block(1), block(2)
    changes = [RoundChange(1, 3, 0, (0, old), 3), RoundChange(1, 3, 1, None, 3), RoundChange(1, 3, 2, (2, new), 3)]
    assert highest_prepared(changes) == (2, new)
    assert highest_prepared(changes[1:2]) is None


def test_what_justifies_a_proposal() -> None:
    run = begin(scenario(4, protocol=FAST))
    judge = run.replica(3)
    old, new, other, forged = block(1), block(2), block(3), block(4)
    for round_, chosen, voters in ((0, old, (0, 1, 2)), (2, new, (0, 1, 2)), (2, forged, (0, 1))):
        for host in (run.world.run.hosts[voter] for voter in voters):
            host.vote(PREPARE, host.votes.ballot(round_, 1, chosen))
    free = tuple(RoundChange(1, 3, sender, None, 3) for sender in range(3))
    bound = (free[0], RoundChange(1, 3, 1, (0, old), 3), RoundChange(1, 3, 2, (2, new), 3))
    assert judge.justifies(PrePrepare(1, 0, other))
    assert judge.justifies(PrePrepare(1, 3, other, free))
    assert judge.justifies(PrePrepare(1, 3, new, bound))
    assert not judge.justifies(PrePrepare(1, 3, other))  # nothing shown
    assert not judge.justifies(PrePrepare(1, 3, other, free[:2]))  # two of four are no quorum
    assert not judge.justifies(PrePrepare(1, 3, other, (free[0], free[0], free[1])))  # nor is one twice
    assert not judge.justifies(PrePrepare(1, 2, other, free))  # of another round
    assert not judge.justifies(PrePrepare(1, 3, old, bound))  # prepared, but not in the highest round
    assert not judge.justifies(PrePrepare(1, 3, other, bound))
    lie = (*bound[:2], RoundChange(1, 3, 2, (2, forged), 3))
    assert not judge.justifies(PrePrepare(1, 3, forged, lie))  # two PREPAREs are no certificate
    assert not judge.justifies(PrePrepare(1, 3, old, lie))
    early = (*free[:2], RoundChange(1, 3, 2, (3, new), 3))
    assert not judge.justifies(PrePrepare(1, 3, new, early))  # prepared in a round that is not over


class Forger(Qbft):
    """Replica 1 claims in each ROUND-CHANGE that a block of its own was prepared in the last round."""

    def send_round_change(self) -> None:
        context = self.context
        if context.me != 1:
            super().send_round_change()
            return
        mine = context.new_block(context.chain.decided(context.height), self.round, empty=True)
        assert mine is not None
        message = RoundChange(self.height, self.round, 1, (self.round - 1, mine), self.quorum_size())
        context.broadcast(message)
        self.take_round_change(message)


class Gullible(Forger):
    """Believes every certificate."""

    def is_certified(self, round_: int, prepared: tuple[int, Block]) -> bool:
        return True


@pytest.mark.parametrize(("protocol", "fooled"), [(Forger, False), (Gullible, True)])
def test_a_certificate_that_no_quorum_signed_counts_nothing(protocol: type[Qbft], fooled: bool) -> None:
    """Replica 2 alone hears the COMMITs of round 0 and cannot tell; the others meet again in round 3."""
    first = {"from": 1, "to": 1}
    rules = [
        {"types": ["COMMIT"], "dst": [0, 1, 3], "height": first, "view": {"to": 0}, "drop": True},
        {"types": ["Status", "Blocks"], "src": [2], "until": "4 s", "drop": True},
        {"types": ["PrePrepare"], "height": first, "view": {"from": 1, "to": 2}, "drop": True},
    ]
    run = play(scenario(4, protocol=FAST, duration="10 s", rules=rules), protocol=protocol)
    first_blocks = {run.decided_blocks(node)[1] for node in range(4)}
    assert len(first_blocks) == (2 if fooled else 1)
    assert (unsafe(run) != []) == fooled


def test_messages_weigh_what_they_prove() -> None:
    signing = Signing(4, 64)
    assert RoundChange(1, 3, 0, None, 3).size_bytes(signing) == 48
    prepared = RoundChange(1, 3, 1, (0, block(1)), 3)
    assert prepared.size_bytes(signing) == 2 * 48 + 1000 + 3 * 66
    assert prepared.certificates() == (3,)
    plain, proven = PrePrepare(1, 0, block(1)), PrePrepare(1, 3, block(1), (prepared,) * 3, 3)
    assert plain.size_bytes(signing) == 48 + 1000
    assert proven.size_bytes(signing) == 48 + 1000 + 3 * (2 * 48 + 64) + 3 * 66
    assert (proven.signatures(), proven.certificates()) == (3, (3,))


class Pushy(Qbft):
    """Validator 1 proposes a block of its own in later rounds, whatever was prepared."""

    def proposal(self) -> PrePrepare | None:
        honest = super().proposal()
        if honest is None or self.round == 0 or self.context.me != 1:
            return honest
        own = self.context.new_block(honest.block.parent, self.round, empty=True)
        assert own is not None
        return PrePrepare(self.height, self.round, own, honest.changes, honest.prepares)


def test_nobody_follows_a_proposal_that_ignores_what_was_prepared() -> None:
    run = play(scenario(4, protocol=FAST, duration="3 s", faults=ALL_CUT), protocol=Pushy)
    first = run.events(ledger.EVENT_PROPOSED)[0]
    decided = run.decided()[0]
    assert (decided.block, decided.height) == (first.block, 1)
    assert {1, 2} <= set(run.views())  # round 1 is validator 1's, and in vain
    assert unsafe(run) == []


def test_the_schedule_that_stops_ibft_v1_costs_two_rounds_at_most() -> None:
    """Round 0 prepares A at validator 0 alone, some votes of round 1 are lost, then validator 2 crashes for good."""
    faults = [
        *cut("15 ms", "10 ms", (1, 2), (1, 3), (2, 3)),
        *cut("325 ms", "10 ms", (2, 3)),
        crash([2], "345 ms"),
    ]
    run = play(scenario(4, protocol=FAST, duration="20 s", faults=faults))
    assert run.decided()[0].view <= 2
    assert run.decided()[0].time_ns < 2 * S
    assert min(len(run.decided(node)) for node in (0, 1, 3)) > 50
    assert unsafe(run) == []


# --- the quorum --------------------------------------------------------------------------------------------


def test_two_halves_of_six_decide_nothing_and_go_on_together() -> None:
    halves = [{"at": "0 s", "for": "4 s", "partition": {"groups": [[0, 1, 2]]}}]
    run = play(scenario(6, protocol=FAST, duration="20 s", faults=halves))
    assert unsafe(run) == []
    assert run.decided()[0].time_ns > 4 * S
    assert min(len(run.decided(node)) for node in range(6)) > 50


@pytest.mark.parametrize("n", range(1, 101))
def test_two_quorums_share_a_correct_validator_and_the_correct_ones_are_a_quorum(n: int) -> None:
    q, f = -(-2 * n // 3), (n - 1) // 3
    assert q == (n + f) // 2 + 1  # EEA's and Moniz's
    assert 2 * q - n > f
    assert n - f >= q


# --- crash, restart, synchronisation -----------------------------------------------------------------------


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("node", [0, 1])
def test_nobody_votes_twice_after_a_restart(node: int, fast_path: bool) -> None:
    """For a height and round every validator votes for one block, the restarted proposer included."""
    twice = set()
    for seed in range(4):
        faults = [crash([node], f"{301 + 7 * seed} ms", f"{20 + 9 * seed} ms")]
        jitter = {"model": "proportional", "up_to": 1.0}
        chosen = scenario(4, protocol=FAST, seed=seed, duration="1 s", faults=faults, **{"network.jitter": jitter})
        run = begin(chosen, fast_path=fast_path)
        for ms in range(296, 900, 12):
            run.until(ms * MS)
            for (view, number), same in run.world.run.block_store.ballots.items():
                for voter, host in enumerate(run.world.run.hosts):
                    for vote in (PREPARE, COMMIT):
                        if sum(host.votes.has_voted(vote, ballot) for ballot in same) > 1:
                            twice.add((seed, voter, view, number, vote.name))
        assert unsafe(run) == []
    assert twice == set()


def test_a_restarted_validator_catches_up_and_takes_part() -> None:
    """Validator 3 misses a hundred blocks; then 2 leaves for good, and without 3 there is no quorum."""
    faults = [crash([3], "500 ms", "3 s"), crash([2], "5 s")]
    run = begin(scenario(4, protocol=FAST, duration="8 s", faults=faults)).until(int(3.4 * S))
    before = len(run.decided(3))
    run.until(5 * S)
    assert len(run.decided(0)) - len(run.decided(3)) <= 1
    assert len(run.decided(3)) > before + 20
    run.until(8 * S)
    assert run.decided(3)[-1].time_ns > 7 * S
    assert run.sent("Fetch") < 20
    assert unsafe(run) == []


def test_who_missed_the_commits_is_told_and_fetches() -> None:
    """Validator 3 misses heights 2 and 3, and is to propose height 4: the others' round change tells it."""
    run = play(scenario(4, protocol=FAST, duration="2 s", faults=cut("35 ms", "60 ms", (0, 3), (1, 3), (2, 3))))
    assert run.sent("Blocks") >= 1
    assert run.decided(3)[-1].time_ns > int(1.9 * S)
    assert unsafe(run) == []


def test_commit_seals_travel_with_the_blocks() -> None:
    assert Blocks((block(1), block(2)), 3, 9).size_bytes(Signing(4, 64)) == 48 + 2 * (1000 + 48 + 3 * 66)
    assert Blocks((block(1), block(2)), 3, 9).certificates() == (3, 3)


@pytest.mark.parametrize("n", [1, 4, 7])
def test_a_whole_cluster_crashes_and_recovers(n: int) -> None:
    faults = [crash(list(range(n)), "1005 ms", "1 s")]
    run = play(scenario(n, protocol=FAST, duration="4 s", faults=faults, **{"block.interval": "10 ms"}))
    before = [len(run.decided(node)[run.decided(node).time_ns < 2 * S]) for node in range(n)]
    assert all(len(run.decided(node)) > before[node] + 30 for node in range(n))
    assert unsafe(run) == []


# --- agreement, validity, and the two ways to run ------------------------------------------------------------


def troubled(seed: int, *, lossy: bool) -> Any:
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
        n, seed=seed, protocol=FAST, duration="8 s", faults=faults,
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


def test_a_round_change_without_its_certificate_is_not_kept() -> None:
    """Two of four have signed PREPAREs for what it says had prepared, in a round before it."""
    run = begin(scenario(4, protocol=FAST))
    judge, proven, forged = run.replica(3), block(1), block(2)
    for chosen, voters in ((proven, (0, 1, 2)), (forged, (0, 1))):
        for host in (run.world.run.hosts[voter] for voter in voters):
            host.vote(PREPARE, host.votes.ballot(0, 1, chosen))
    judge.on_round_change(1, RoundChange(1, 1, 1, (0, forged), 3))
    judge.on_round_change(0, RoundChange(1, 1, 1, None, 3))  # by somebody else than it says
    assert judge.changes.get(1, {}) == {}
    judge.on_round_change(1, RoundChange(1, 1, 1, (0, proven), 3))
    assert set(judge.changes[1]) == {1}
