"""IBFT v1: the laws of a fault-free run, its locks and round changes, and the flaws it is known for."""

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
from sim.protocols.ibft import COMMIT, PREPARE, Ibft, RoundChange
from tests.runs import MS, Played, S, begin, play, scenario, unsafe

FAST = {"name": "ibft", "round_timeout": "300 ms"}
STICKY = {**FAST, "proposer_policy": "sticky"}
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
    run = play(scenario(n, protocol="ibft", duration="119 ms"))
    assert {len(run.decided(node)) for node in range(n)} == {3}
    assert [row.node for row in run.events(ledger.EVENT_PROPOSED)] == [0, 1, 2, 3]
    assert run.sent("PrePrepare") == 4 * (n - 1)
    assert run.sent("PREPARE") == run.sent("COMMIT") == 4 * n * (n - 1)
    assert run.sent() == 4 * (2 * n + 1) * (n - 1)
    assert set(run.latencies_ns().values()) == {30 * MS}
    assert unsafe(run) == []


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_validators_decide_too(n: int) -> None:
    """F = 0: a validator's own word is a quorum."""
    run = play(scenario(n, protocol="ibft", duration="1 s", **{"block.interval": "100 ms"}))
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
@pytest.mark.parametrize(("n", "seed"), list(itertools.product([4, 7, 10], range(3))))
def test_unequal_delays_follow_their_order_statistics(n: int, seed: int, fast_path: bool) -> None:
    ms = np.random.default_rng(seed).integers(1, 90, size=(n, n))
    latency = {"model": "explicit", "one_way_ms": ms.tolist()}
    run = play(scenario(n, protocol="ibft", duration="300 ms", **{"network.latency": latency}), fast_path=fast_path)
    first = run.events(ledger.EVENT_PROPOSED)[0].block
    expected = order_statistics(ms * MS, 2 * ((n - 1) // 3) + 1)
    found = run.latencies_ns()
    assert [found[first, j] for j in range(n)] == expected.tolist()


def test_scaling_every_delay_scales_every_decision() -> None:
    ms = np.random.default_rng(7).integers(1, 50, size=(7, 7))

    def decided(scale: int) -> list[tuple[int, int, int]]:
        latency = {"model": "explicit", "one_way_ms": (ms * scale).tolist()}
        protocol = {"name": "ibft", "round_timeout": f"{scale} s"}
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


def test_a_sticky_proposer_stays_until_a_round_change() -> None:
    run = play(scenario(4, protocol=STICKY, duration="4 s", faults=[crash([0], "1 s")]))
    proposers = [row.node for row in run.events(ledger.EVENT_PROPOSED)]
    assert proposers == sorted(proposers)
    assert set(proposers) == {0, 1}
    assert run.views().count(1) == 3


def test_patience_doubles_with_every_round() -> None:
    """From 30 ms on height 2 waits for validators 1 and 2 in vain: 300 ms and a delay, then 600 ms and a delay."""
    run = play(scenario(7, protocol=FAST, duration="2 s", faults=[crash([1, 2], "5 ms")]))
    began = {view: row.time_ns for row in run.events(ledger.EVENT_VIEW)[::-1] if (view := row.block) > 0}
    assert began[1] == 340 * MS
    assert began[2] == 950 * MS
    assert int(first_decided(run, 2)[0]) == began[2] + 30 * MS


def test_f_plus_1_round_changes_are_joined() -> None:
    """Three time out at 300 ms; validator 1 restarted in between and would be patient until 550 ms."""
    faults = [*cut("5 ms", "310 ms", (0, 2), (0, 3)), crash([1], "200 ms", "50 ms")]
    run = begin(scenario(4, protocol=FAST, duration="1 s", faults=faults)).until(305 * MS)
    assert [run.replica(node).changing for node in range(4)] == [True, False, True, True]
    run.until(309 * MS)
    assert not run.replica(1).changing  # restarted at 250 ms, it has 241 ms left
    run.until(310 * MS)
    assert run.replica(1).round == 1
    run.until(1 * S)
    assert min(len(run.decided(node)) for node in range(4)) > 5
    assert unsafe(run) == []


def test_a_restarted_validator_still_wants_the_round_it_asked_for() -> None:
    """3 is away from 302 to 308 ms, between its ROUND-CHANGE and those of 1 and 2. Without 0 its voice is needed."""
    faults = [crash([0], "1 ms"), *cut("1 ms", "200 ms", (0, 1), (0, 2), (0, 3)), crash([3], "302 ms", "6 ms")]
    run = begin(scenario(4, protocol=FAST, duration="1 s", faults=faults)).until(315 * MS)
    assert [(run.replica(node).round, run.replica(node).changing) for node in (1, 2, 3)] == [(1, False)] * 3
    run.until(350 * MS)
    assert int(first_decided(run, 1)[0]) == 340 * MS
    assert unsafe(run) == []


def test_an_idle_chain_changes_no_rounds() -> None:
    once = [{"kind": "open", "rate": "0.2 tx/s", "bytes": "500 B"}]
    run = play(scenario(4, protocol=FAST, duration="30 s", workload=once))
    assert run.views() == []
    assert 1 <= len(run.decided(0)) < 20


# --- locks -------------------------------------------------------------------------------------------------


ALL_CUT = cut("25 ms", "10 ms", *itertools.combinations(range(4), 2))  # PREPAREs have arrived, COMMITs do not


def test_a_locked_block_is_proposed_again() -> None:
    """All lock block 1 at 20 ms, no COMMIT arrives at 30: the next round's proposer proposes the same block."""
    run = play(scenario(4, protocol=FAST, duration="2 s", faults=ALL_CUT))
    first = run.events(ledger.EVENT_PROPOSED)[0]
    decided = run.decided()[0]
    assert (decided.block, decided.height) == (first.block, 1)
    assert decided.time_ns > 310 * MS
    assert 1 in run.views()
    assert unsafe(run) == []


def test_who_is_locked_on_another_block_votes_for_a_round_change() -> None:
    """Validator 0 alone locks A in round 0; B of round 1 has its quorum without it, and its insertion unlocks."""
    faults = cut("15 ms", "10 ms", (1, 2), (1, 3), (2, 3))
    run = begin(scenario(4, protocol=FAST, duration="2 s", faults=faults)).until(50 * MS)
    for node in range(4):
        run.replica(node).absorb_fast_path()  # what the fast path did
    assert [run.replica(node).locked is None for node in range(4)] == [False, True, True, True]
    a = run.replica(0).locked
    run.until(325 * MS)
    assert run.replica(0).changing
    assert run.replica(0).round == 2
    run.until(2 * S)
    assert run.decided_blocks(3)[1] == run.decided_blocks(0)[1] != a.number
    assert unsafe(run) == []


DEADLOCK = [
    *cut("15 ms", "10 ms", (1, 2), (1, 3), (2, 3)),  # round 0: A is locked at 0 alone, one COMMIT is not enough
    *cut("325 ms", "10 ms", (2, 3)),  # round 1: B is locked at 1 alone
    crash([2], "345 ms"),  # and one of the two without a lock is gone for ever
]


def test_two_locks_and_a_crash_hold_up_a_height_for_ever() -> None:
    """Section 7.1 of the analysis. From 345 ms on the network is perfect, and one of four has crashed."""
    run = play(scenario(4, protocol=FAST, duration="120 s", faults=DEADLOCK))
    assert len(run.decided()) == 0
    locks = {node: run.replica(node).locked for node in (0, 1, 3)}
    assert locks[3] is None
    assert locks[0] is not None
    assert locks[1] not in (None, locks[0])
    assert run.verdict().has("liveness")


class Forgetful(Ibft):
    """Votes for a block in spite of a lock: it frees the height, and endangers agreement."""

    def may_vote_for(self, block: Block) -> bool:
        return True


def test_the_unlock_rule_can_be_overridden() -> None:
    run = play(scenario(4, protocol=FAST, duration="20 s", faults=DEADLOCK), protocol=Forgetful)
    assert len(run.decided(1)) > 10


def test_a_lock_survives_a_crash() -> None:
    """All crash after locking block 1; what they come back with is that block."""
    faults = [*ALL_CUT, crash([0, 1, 2, 3], "27 ms", "10 ms")]
    run = begin(scenario(4, protocol=FAST, duration="2 s", faults=faults)).until(40 * MS)
    assert len({run.replica(node).locked.number for node in range(4)}) == 1
    locked = run.replica(0).locked.number
    run.until(2 * S)
    assert run.decided_blocks(2)[1] == locked
    assert unsafe(run) == []


# --- the quorum --------------------------------------------------------------------------------------------


class TwoThirds(Ibft):
    """ceil(2n / 3), as Quorum has it since 2020."""

    def quorum_size(self) -> int:
        return -(-2 * self.context.n // 3)


HALVES = [{"at": "0 s", "for": "4 s", "partition": {"groups": [[0, 1, 2]]}}]


def test_two_halves_of_six_decide_two_blocks_at_one_height() -> None:
    run = play(scenario(6, protocol=FAST, duration="8 s", faults=HALVES))
    assert any(v.check == "agreement" for v in run.verdict().violations)


def test_two_thirds_keep_the_halves_together() -> None:
    run = play(scenario(6, protocol=FAST, duration="20 s", faults=HALVES), protocol=TwoThirds)
    assert unsafe(run) == []
    assert min(len(run.decided(node)) for node in range(6)) > 50
    assert run.decided()[0].time_ns > 4 * S


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
    block = Block(1, 1, 0, 0, None)
    block.bytes = 1000
    assert Blocks((block, block), 3, 9).size_bytes(Signing(4, 64)) == 48 + 2 * (1000 + 48 + 3 * 66)
    assert Blocks((block, block), 3, 9).certificates() == (3, 3)


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
    protocol = {**FAST, "proposer_policy": choice.choice(["round-robin", "sticky"])}
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


def test_a_round_that_one_validator_asks_for_is_not_the_next_one() -> None:
    """F = 1: whoever gives up a round goes to the highest that two ask for, or to the next."""
    run = begin(scenario(4, protocol=FAST, duration="1 s")).until(15 * MS)
    judge = run.replica(2)
    height = judge.height
    judge.on_round_change(3, RoundChange(height, 7))
    assert judge.round == 0, "one may lie"
    judge.leave_round()
    assert (judge.round, judge.changing) == (1, True)
    judge.on_round_change(0, RoundChange(height, 7))
    assert judge.round == 7, "one of two is correct"
