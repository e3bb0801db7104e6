"""Aura, as conversations: seal by steps, miss steps, part and meet again; and the laws of a quiet network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sim.ledger import rows as ledger
from sim.protocol import Block, Context
from sim.protocols.aura import SCORE_MAX, Aura, AuraParameters, Header
from sim.scenario.run import EXIT_SAFETY, run
from tests.runs import MS, Played, S, begin, play, scenario, unsafe

QUICK = {"name": "aura", "step_duration": "1 s"}


def proposals(run: Played) -> list[tuple[int, int, int]]:
    """(time, validator, height) of every block sealed."""
    return [(row.time_ns, row.node, row.height) for row in run.events(ledger.EVENT_PROPOSED)]


def heads(run: Played) -> set[int]:
    """The blocks in which replicas' chains end."""
    return {head(run, node).number for node in range(run.world.scenario.network.n)}


def head(run: Played, node: int) -> Block:
    """The block in which a replica's chain ends, what the fast path accepted included."""
    replica: Aura = run.replica(node)
    replica.absorb_fast_path()
    assert replica.head is not None
    return replica.head


def partition(*groups: list[int], at: str = "20 s", until: str = "60 s") -> list[dict[str, Any]]:
    """A partition as scenarios say it."""
    return [{"at": at, "until": until, "partition": {"groups": list(groups)}}]


# --- laws of a quiet network -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "finality", "signers"),
    [
        (4, "two_thirds", 3), (4, "majority", 3), (7, "two_thirds", 5), (7, "majority", 4), (5, "two_thirds", 4),
        (1, "majority", 1),
    ],
)  # fmt: skip
def test_a_block_a_step_n_minus_1_messages_final_at_the_last_signer_needed(n: int, finality: str, signers: int) -> None:
    run = play(scenario(n, protocol=QUICK | {"finality": finality}, duration="30.5 s"))
    assert proposals(run) == [(step * S, step % n, step) for step in range(1, 31)]
    assert run.sent("NewBlock") == 30 * (n - 1)
    for time, _, node, _, height, *_ in run.decided():
        last = height + signers - 1
        assert time == last * S + (0 if last % n == node else 10 * MS)
    assert len(run.decided(0)) == 30 - signers + 1
    assert len(run.events(ledger.EVENT_HEAD)) == 30 * n
    assert run.monitor.blocks.reorganisations == run.monitor.blocks.stale == 0
    assert unsafe(run) == []


def test_a_validator_that_is_away_leaves_its_steps_empty() -> None:
    run = play(scenario(5, protocol=QUICK, duration="50.5 s", faults=[{"at": "0 s", "crash": {"nodes": [2]}}]))
    assert [time // S for time, _, _ in proposals(run)] == [step for step in range(1, 51) if step % 5 != 2]
    assert max(row.time_ns for row in run.decided()) > 49 * S
    assert unsafe(run) == []


def test_a_step_shorter_than_a_delivery_makes_stale_blocks() -> None:
    run = play(scenario(4, protocol=QUICK | {"step_duration": "8 ms"}, duration="2 s"))
    assert run.monitor.blocks.stale > 50
    assert run.monitor.blocks.reorganisations > 50


class NeverFinal(Aura):
    """Asks for one signer more than there are, and denies it."""

    def enough(self, signers: int) -> bool:
        return signers > self.context.n

    def voters_needed(self) -> int:
        return 21


def test_waiting_for_signers_is_no_liveness_failure_but_never_final_is() -> None:
    longer = scenario(31, protocol=QUICK, duration="50 s", liveness_bound="5 s")
    found = run(longer)  # 21 signers: the first block is final after 21 s
    assert (found.status, found.checks["liveness"]) == ("ok", "pass")
    found = run(longer, protocol=NeverFinal)
    assert found.checks["liveness"] == "fail"
    assert "the bound is 36 s" in found.violations[0].evidence


# --- parts of a network ----------------------------------------------------------------------------------------------


def test_both_sides_of_a_split_seal_and_only_a_large_one_makes_blocks_final() -> None:
    run = play(scenario(7, protocol=QUICK, duration="89.5 s", faults=partition([0, 1])))
    parted = [(node, time) for time, node, _ in proposals(run) if 20 * S < time < 60 * S]
    assert {node for node, _ in parted} == set(range(7))
    assert not [t for t in run.decided(0).time_ns if 30 * S < t < 60 * S]
    assert len([t for t in run.decided(3).time_ns if 30 * S < t < 60 * S]) > 20
    assert len(heads(run)) == 1
    rows = run.events(ledger.EVENT_HEAD)
    left = {row.node: row.view for row in rows if row.view > 3}
    lost = len([node for node, _ in parted if node in (0, 1)])
    assert left == {0: lost, 1: lost}, "each of the two leaves all that both had sealed apart"
    assert unsafe(run) == []


class Borrowed:
    """A seat that acts under another's identity, in a network of fewer identities than seats."""

    def __init__(self, seat: Context, me: int, n: int) -> None:
        self._seat = seat
        self.me = me
        self.n = n

    def __getattr__(self, name: str) -> Any:
        return getattr(self._seat, name)


class Cloned(Aura):
    """Ten seats, nine validators: the last two seats hold the same key."""

    def __init__(self, context: Context) -> None:
        seat: Any = Borrowed(context, min(context.me, 8), 9)
        super().__init__(seat)


@pytest.mark.parametrize(("finality", "safe"), [("two_thirds", True), ("majority", False)])
def test_a_clone_on_both_sides_of_a_4_4_split_beats_the_majority_rule_only(finality: str, safe: bool) -> None:
    faults = partition([0, 1, 2, 3, 8], [4, 5, 6, 7, 9])
    chosen = scenario(10, protocol=QUICK | {"finality": finality}, duration="120 s", faults=faults)
    result = run(chosen, protocol=Cloned)
    assert result.checks["finality"] == ("pass" if safe else "fail")
    assert safe or result.exit_code == EXIT_SAFETY
    assert result.metrics["reorg_depth_max"] is not None
    assert result.metrics["reorg_depth_max"] > 15
    played = play(chosen, protocol=Cloned)
    assert max(row.time_ns for row in played.decided()) > 115 * S, "the run goes on, on one chain"
    assert len(heads(played)) <= 2, "at most the step's two blocks of the one key"


# --- catching up and coming back -------------------------------------------------------------------------------------


def test_a_validator_that_was_away_fetches_what_it_missed() -> None:
    faults = [{"at": "5.5 s", "until": "105.5 s", "crash": {"nodes": [3]}}]
    run = play(scenario(4, protocol=QUICK | {"blocks_per_answer": 16}, duration="119.5 s", faults=faults))
    assert 75 // 16 <= run.sent("Blocks") <= 75 // 16 + 3
    mine = [row.time_ns for row in run.decided(3) if row.time_ns > 105 * S]
    assert mine[70] < 109 * S
    assert len(heads(run)) == 1
    assert unsafe(run) == []


def test_a_restarted_validator_seals_once_a_step() -> None:
    faults = [{"at": f"{3 + i}.1 s", "for": "50 ms", "crash": {"nodes": [(3 + i) % 4]}} for i in range(20)]
    late = [{"at": "29.9 s", "for": "300 ms", "crash": {"nodes": [2]}}]
    run = play(scenario(4, protocol=QUICK, duration="40.5 s", faults=faults + late))
    sealed = [(node, time // S) for time, node, _ in proposals(run)]
    assert len(sealed) == len(set(sealed)) == 40
    assert 30_200 * MS in [time for time, _, _ in proposals(run)], "back in its own step, it seals late"
    assert unsafe(run) == []


@pytest.mark.parametrize("finality", ["two_thirds", "majority"])
@pytest.mark.parametrize("step", ["100 ms", "15 ms"])
def test_the_fast_path_does_what_the_handlers_do(step: str, finality: str) -> None:
    """Splits, crashes, and steps shorter than some deliveries: the same events, to the nanosecond."""
    changes: dict[str, Any] = {
        "network.jitter": {"model": "proportional", "up_to": "80 %"},
        "workload": [{"kind": "open", "rate": "200 tx/s", "bytes": "300 B"}],
        "faults": [
            {"at": "1 s", "for": "600 ms", "partition": {"groups": [[1, 2]]}},
            {"at": "2 s", "for": "400 ms", "crash": {"nodes": [0, 4]}},
            {"at": "2.7 s", "for": "100 ms", "crash": {"nodes": [1, 2, 3]}},
        ],
    }
    protocol = {"name": "aura", "step_duration": step, "finality": finality}
    chosen = scenario(7, protocol=protocol, duration="4 s", **changes)
    fast, slow = (play(chosen, fast_path=fast_path) for fast_path in (True, False))
    assert fast.digest == slow.digest
    assert len(fast.decided()) > 100


@pytest.mark.parametrize("seed", range(6))
def test_agreement_under_a_split_and_crashes_of_a_third(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 10))
    part = rng.permutation(n)[: rng.integers(1, n)].tolist()
    faults = partition(part, at="10 s", until=f"{rng.integers(15, 60)} s")
    faults += [
        {"at": f"{70 + 5 * int(i)} s", "for": "9.5 s", "crash": {"nodes": [int(node)]}}
        for i, node in enumerate(rng.permutation(n)[: (n - 1) // 3])
    ]
    jitter = {"model": "proportional", "up_to": "60 %"}
    changes: dict[str, Any] = {"seed": seed, "faults": faults, "network.jitter": jitter, "duration": "140 s"}
    run = play(scenario(n, protocol=QUICK, **changes))
    assert run.verdict().violations == []
    assert len(heads(run)) <= 2, "at most the block that is on its way"
    assert max(row.time_ns for row in run.decided()) > 130 * S


# --- rules -----------------------------------------------------------------------------------------------------------


class Eager(Aura):
    """Validator 0 seals in everybody's step."""

    def primary(self, step: int) -> int:
        return 0 if self.context.me == 0 else super().primary(step)


def test_blocks_out_of_step_are_not_followed() -> None:
    run = play(scenario(4, protocol=QUICK, duration="40.5 s"), protocol=Eager)
    block: Block | None = head(run, 1)
    while block is not None and block.body is not None:
        assert block.body.signer == block.body.step % 4
        block = block.parent
    assert len({head(run, node).number for node in (1, 2, 3)}) == 1


def test_the_longer_chain_counts_then_the_earlier_head() -> None:
    run = begin(scenario(4, protocol=QUICK))
    me = run.replica(0)

    def ends(steps: list[int]) -> int:
        total, before = 0, 0
        for step in steps:
            total, before = total + me.score(before, step), step
        return total

    assert ends([1, 2, 3]) > ends([2, 3]) > ends([2, 900]) > ends([1])
    assert ends([2, 3]) == ends([1, 3]), "the steps between do not matter"
    assert me.score(3, 4) == SCORE_MAX - 1


@pytest.mark.parametrize(
    ("finality", "signers", "height"),
    [("two_thirds", [0, 1, 1, 0, 2], 3), ("two_thirds", [0, 1, 1, 0, 1], None), ("majority", [3, 3, 2, 1], 2)],
)
def test_rolling_finality_counts_distinct_signers_from_a_block_to_the_head(
    finality: str, signers: list[int], height: int | None
) -> None:
    """By hand, n = 4: both shares need three. The highest block with three signers from it on is the final one."""
    run = begin(scenario(4, protocol=QUICK | {"finality": finality}))
    me = run.replica(0)
    assert isinstance(me.parameters, AuraParameters)
    block: Block | None = None
    for at, signer in enumerate(signers):
        above = Block(100 + at, at + 1, at, signer, block)
        above.body = Header(signer, at, at)
        block = above
        me.window.extend(block, signer)
    final = me.final_block()
    assert (None if final is None else final.height) == height
