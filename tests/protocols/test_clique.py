"""Clique, as conversations: seal in turn and out of turn, part, fork, meet again; and the laws of a quiet network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.families.forks.branches import NewBlock
from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.ledger import rows as ledger
from sim.protocol import Block, Context
from sim.protocols.clique import IN_TURN, OUT_OF_TURN, Clique, Header
from sim.scenario.load import load_scenario
from sim.scenario.run import EXIT_SAFETY, run
from tests.runs import MS, Played, S, begin, play, scenario, unsafe

SLOW_RIVALS = {"name": "clique", "block_period": "1 s", "wiggle": "1000 s"}  # nobody ever seals out of turn
QUICK = {"name": "clique", "block_period": "1 s"}


def proposals(run: Played) -> list[tuple[int, int, int]]:
    """(time, signer, height) of every block sealed."""
    return [(row.time_ns, row.node, row.height) for row in run.events(ledger.EVENT_PROPOSED)]


def chain(run: Played, node: int) -> list[Block]:
    """A replica's chain, from its head down as far as it is kept."""
    found, block = [], head(run, node)
    while block is not None:
        found.append(block)
        block = block.parent
    return found


def heads(run: Played) -> set[int]:
    """The blocks in which replicas' chains end."""
    return {head(run, node).number for node in range(run.world.scenario.network.n)}


def head(run: Played, node: int) -> Block:
    """The block in which a replica's chain ends, what the fast path accepted included."""
    replica: Clique = run.replica(node)
    replica.absorb_fast_path()
    assert replica.head is not None
    return replica.head


def depths(run: Played) -> list[int]:
    """Blocks left behind by every reorganisation."""
    left = run.events(ledger.EVENT_HEAD).view  # of this event: the blocks left
    return left[left > 0].tolist()


# --- laws of a quiet network ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "confirmations"), [(4, None), (7, None), (5, 1), (4, 0), (1, 2)])
def test_a_block_a_period_n_minus_1_messages_each_final_at_its_depth(n: int, confirmations: int | None) -> None:
    protocol = SLOW_RIVALS | ({} if confirmations is None else {"confirmations": confirmations})
    run = play(scenario(n, protocol=protocol, duration="40.5 s"))
    assert [(t, node) for t, node, _ in proposals(run)] == [(h * S, h % n) for h in range(1, 41)]
    assert run.sent("NewBlock") == 40 * (n - 1)
    depth = n // 2 + 1 if confirmations is None else confirmations
    sealer = {height: node for _, node, height in proposals(run)}
    for time, _, node, _, height, *_ in run.decided():
        own = sealer[height + depth] == node
        assert time == (height + depth) * S + (0 if own else 10 * MS)
    assert len(run.decided(0)) == 40 - depth
    assert unsafe(run) == []


def test_a_signer_out_of_turn_waits_longer_and_weighs_less() -> None:
    run = play(scenario(4, protocol=QUICK, duration="60 s", faults=[{"at": "0 s", "crash": {"nodes": [2]}}]))
    waits = {height: time for time, _, height in proposals(run)}
    weights = {block.height: block.body for block in chain(run, 0)}
    late = [h for h in weights if weights[h].difficulty == OUT_OF_TURN]
    assert all(weights[h].signer == h % 4 for h in weights if h not in late)
    assert {h for h in weights if h % 4 == 2} <= set(late), "the missing signer's turns pass to others"
    for h in late:
        wait_ms = (waits[h] - weights[h].time_ns) / MS
        assert 0 <= wait_ms < 3 * 500, "a wiggle below 500 ms times floor(4/2) + 1"
    assert unsafe(run) == []


@pytest.mark.parametrize("n", [4, 5, 9])
def test_nobody_seals_two_of_floor_n_half_plus_1_consecutive_blocks(n: int) -> None:
    jitter = {"model": "proportional", "up_to": "50 %"}
    faults = [{"at": "10 s", "for": "20 s", "crash": {"nodes": [1]}}]
    changes: dict[str, Any] = {"faults": faults, "network.jitter": jitter}
    run = play(scenario(n, protocol=QUICK | {"wiggle": "20 ms"}, duration="60 s", **changes))
    limit = n // 2 + 1
    for node in range(n):
        signers = [block.proposer for block in chain(run, node)]
        assert len(signers) >= limit
        for at in range(len(signers) - limit + 1):
            assert len(set(signers[at : at + limit])) == limit
    assert depths(run), "so short a wiggle makes signers collide"
    assert unsafe(run) == []


def test_ties_leave_nobody_behind() -> None:
    """Two signers out of turn at once: equal weight, equal height; the same one wins everywhere."""
    faults = [{"at": "0 s", "crash": {"nodes": [0]}}]
    run = play(scenario(5, protocol=QUICK | {"wiggle": "0 ms"}, duration="100.5 s", faults=faults))
    assert run.sent("NewBlock") > 4 * 100
    assert len({head(run, node).number for node in range(1, 5)}) == 1
    assert len(run.decided(1)) > 60
    assert unsafe(run) == []


# --- parts of a network ----------------------------------------------------------------------------------------------


def split(
    *groups: list[int], at: str = "20 s", until: str = "60 s", absent: tuple[int, ...] = ()
) -> list[dict[str, Any]]:
    """A partition, and nodes that are never there."""
    away = [{"at": "0 s", "crash": {"nodes": list(absent)}}] if absent else []
    return [*away, {"at": at, "until": until, "partition": {"groups": list(groups)}}]


@pytest.mark.parametrize(("n", "absent"), [(8, ()), (9, (8,))])
def test_a_4_4_split_halts_both_sides_and_nothing_final_is_lost(n: int, absent: tuple[int, ...]) -> None:
    """Five of eight or nine signers are needed; a side of four seals at most one block for each and stands still."""
    faults = split([0, 1, 2, 3], [4, 5, 6, 7], at="20.5 s", absent=absent)
    run = play(scenario(n, protocol=QUICK, duration="90 s", faults=faults))
    parted = [row for row in proposals(run) if 20 * S < row[0] < 60 * S]
    for side in (range(4), range(4, 8)):
        sealed = [node for _, node, _ in parted if node in side]
        assert len(sealed) == len(set(sealed)) <= 4
        assert not [t for t, node, _ in parted if node in side and t > 35 * S], "it stands still"
    times = [row.time_ns for row in run.decided()]
    assert not [t for t in times if 35 * S < t < 60 * S]
    assert max(times) > 80 * S, "goes on once the sides see each other"
    assert len({head(run, node).number for node in range(8)}) == 1
    assert max(depths(run)) <= 4
    assert unsafe(run) == []


class Borrowed:
    """A seat that acts under another's identity, in a network of fewer identities than seats."""

    def __init__(self, seat: Context, me: int, n: int) -> None:
        self._seat = seat
        self.me = me
        self.n = n

    def __getattr__(self, name: str) -> Any:
        return getattr(self._seat, name)


class Cloned(Clique):
    """Ten seats, nine signers: the last two seats hold the same key."""

    def __init__(self, context: Context) -> None:
        seat: Any = Borrowed(context, min(context.me, 8), 9)
        super().__init__(seat)


def test_a_clone_lets_both_sides_of_a_4_4_split_go_on_and_reverts_final_blocks() -> None:
    """The attack of the clones: with the same key on both sides, each has five of nine signers."""
    faults = split([0, 1, 2, 3, 8], [4, 5, 6, 7, 9])
    result = run(scenario(10, protocol=QUICK, duration="100 s", faults=faults), protocol=Cloned)
    assert (result.status, result.exit_code) == ("safety violation", EXIT_SAFETY)
    assert (result.checks["agreement"], result.checks["finality"], result.checks["order"]) == ("fail", "fail", "pass")
    both = play(scenario(10, protocol=QUICK, duration="100 s", faults=faults), protocol=Cloned)
    for side in ([0, 1, 2, 3, 8], [4, 5, 6, 7, 9]):
        sealed = [row for row in proposals(both) if row[1] in side and 30 * S < row[0] < 60 * S]
        assert len(sealed) >= 10, "it goes on for as long as the split lasts"
    reverted = both.events(ledger.EVENT_REVERTED)
    losers = {row.node for row in reverted}
    assert losers in ({0, 1, 2, 3, 8}, {4, 5, 6, 7, 9})
    told = [v for v in both.verdict().violations if v.check == "finality"]
    row = reverted[0]
    assert told[0].evidence == (
        f"height {row.height}: replica {row.node} had decided block {row.block} and gave it up for block {row.view}"
    )
    assert result.metrics["reorg_depth_max"] == max(depths(both)) > 10
    assert result.metrics["reorganisations"] == len(depths(both))
    # The run goes on: one chain for all, and decisions on it.
    assert len(heads(both)) == 1
    chains = [[block.number for block in chain(both, node) if block.height > 60] for node in range(10)]
    assert all(other == chains[0] for other in chains)
    assert max(row.time_ns for row in both.decided()) > 95 * S


def test_transactions_of_abandoned_blocks_wait_again() -> None:
    """A signer cut off seals one block that nobody wants; what was in it is final later all the same."""
    load = [{"kind": "open", "rate": "100 tx/s", "bytes": "300 B"}]
    faults = split([0], at="10.2 s", until="30 s")
    run = play(scenario(4, protocol=QUICK, duration="60 s", faults=faults, workload=load))
    assert [row.view for row in run.events(ledger.EVENT_HEAD) if row.node == 0 and row.view > 0] == [1]
    (stale,) = [row for row in run.events(ledger.EVENT_PROPOSED) if row.node == 0 and 10.2 * S < row.time_ns < 30 * S]
    assert stale[6] > 0, "it held transactions"
    state = run.world.run.run_state
    waiting = int(state[ledger.SUBMITTED] - state[ledger.COMMITTED] - state[ledger.REJECTED] - state[ledger.EXPIRED])
    assert waiting < 100 * 4.5, "no more than what came in the last three blocks and since"
    assert int(state[ledger.EXPIRED]) <= 2, "what was on its way to the signer when the links were cut"
    assert int(state[ledger.REPEATED]) == 0
    assert run.monitor.blocks.stale >= 1
    assert unsafe(run) == []


def test_a_transaction_is_not_twice_in_one_chain() -> None:
    """Rivals seal the same transactions; whoever builds on one of the two leaves them out."""
    load = [{"kind": "open", "rate": "100 tx/s", "bytes": "300 B"}]
    faults = [{"at": "0 s", "crash": {"nodes": [0]}}]
    run = play(scenario(5, protocol=QUICK | {"wiggle": "5 ms"}, duration="60 s", faults=faults, workload=load))
    assert len(depths(run)) > 20
    assert int(run.world.run.run_state[ledger.REPEATED]) == 0
    committed = int(run.world.run.run_state[ledger.COMMITTED])
    assert committed > 0.75 * int(run.world.run.run_state[ledger.SUBMITTED])


# --- catching up and coming back -------------------------------------------------------------------------------------


def test_a_signer_that_was_away_fetches_what_it_missed() -> None:
    faults = [{"at": "5.5 s", "until": "105.5 s", "crash": {"nodes": [3]}}]
    protocol = SLOW_RIVALS | {"blocks_per_answer": 16, "wiggle": "500 ms"}
    run = play(scenario(4, protocol=protocol, duration="120 s", faults=faults))
    assert run.sent("Blocks") >= 90 // 16
    assert run.sent("Blocks") <= 90 // 16 + 4
    mine = [row.time_ns for row in run.decided(3) if row.time_ns > 105 * S]
    assert len(mine) > 80
    assert mine[70] < 109 * S, "seven round trips after the first block that reached it"
    assert len(heads(run)) == 1
    assert unsafe(run) == []


def test_a_restarted_signer_does_not_seal_twice_on_one_block() -> None:
    faults = [{"at": f"{2 + 3 * i}.003 s", "for": "500 ms", "crash": {"nodes": [i % 4]}} for i in range(18)]
    run = play(scenario(4, protocol=QUICK | {"wiggle": "100 ms"}, duration="60 s", faults=faults))
    assert len(heads(run)) <= 2
    sealed = [(node, block.parent) for node in range(4) for block in run.replica(node).branches.known.values()
              if block.proposer == node]  # fmt: skip
    assert len(sealed) == len(set(sealed))
    assert unsafe(run) == []


@pytest.mark.parametrize("seed", range(6))
def test_agreement_under_random_crashes_and_splits(seed: int) -> None:
    """With floor(n/2) + 1 confirmations, a clean split and crashes of a minority revert nothing final."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 10))
    part = rng.permutation(n)[: rng.integers(1, n)].tolist()
    faults: list[dict[str, Any]] = split(part, at="10 s", until=f"{rng.integers(15, 60)} s")
    faults += [
        {"at": f"{70 + 5 * int(i)} s", "for": "4 s", "crash": {"nodes": [int(node)]}}
        for i, node in enumerate(rng.permutation(n)[: (n - 1) // 2])
    ]
    jitter = {"model": "proportional", "up_to": "60 %"}
    changes: dict[str, Any] = {"seed": seed, "faults": faults, "network.jitter": jitter, "duration": "140 s"}
    run = play(scenario(n, protocol=QUICK | {"wiggle": "100 ms"}, **changes))
    assert unsafe(run) == []
    assert run.verdict().violations == []
    assert len(heads(run)) <= 2, "at most the block that is on its way"
    assert max(row.time_ns for row in run.decided()) > 130 * S


# --- fast path and handlers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confirmations", [0, 1, None])
@pytest.mark.parametrize("wiggle", ["10 ms", "1 s"])
def test_the_fast_path_does_what_the_handlers_do(wiggle: str, confirmations: int | None) -> None:
    """Rivals, splits, crashes, slow clocks and disks: the same events, to the nanosecond."""
    changes: dict[str, Any] = {
        "network.jitter": {"model": "proportional", "up_to": "80 %"},
        "workload": [{"kind": "open", "rate": "100 tx/s", "bytes": "300 B"}],
        "block.interval": "250 ms",
        "faults": [
            {"at": "3 s", "for": "2 s", "partition": {"groups": [[1, 2]]}},
            {"at": "7 s", "for": "2 s", "crash": {"nodes": [0, 4]}},
            {"at": "8 s", "for": "6 s", "skew_clock": {"nodes": [5], "rate": 1.25}},
            {"at": "11 s", "for": "1 s", "crash": {"nodes": [1, 2, 3]}},
        ],
    }
    protocol = {"name": "clique", "block_period": "100 ms", "wiggle": wiggle, "status_interval": "400 ms"}
    protocol |= {} if confirmations is None else {"confirmations": confirmations}
    chosen = scenario(7, protocol=protocol, duration="20 s", **changes)
    fast, slow = (play(chosen, fast_path=fast_path) for fast_path in (True, False))
    assert fast.digest == slow.digest
    assert list(fast.events(ledger.EVENT_HEAD)) == list(slow.events(ledger.EVENT_HEAD))
    assert len(fast.decided()) > 100
    assert depths(fast)


def test_blocks_in_turn_reach_no_handler() -> None:
    """Whoever extends the chain of all is followed there, also after rivals: replicas hear of the rivals only."""
    run = begin(scenario(16, protocol=SLOW_RIVALS, duration="60 s"))
    heard: list[int] = []
    for host in run.world.run.hosts:
        host.handlers[NewBlock] = lambda sender, message: heard.append(message.block.height)
    run.until(60 * S)
    assert [height for _, _, height in proposals(run)] == list(range(1, 61))
    assert heard == []


# --- rules ------------------------------------------------------------------------------------------------------------


class Greedy(Clique):
    """Signer 0 forgets for itself that it may not seal again so soon."""

    def may_seal(self, signer: int, parent: Header) -> bool:
        return super().may_seal(signer, parent) or signer == self.context.me == 0


def test_blocks_sealed_too_soon_are_not_followed() -> None:
    run = play(scenario(4, protocol=QUICK | {"wiggle": "10 ms"}, duration="40 s"), protocol=Greedy)
    assert chain(run, 0)[0].number != chain(run, 1)[0].number, "it follows itself alone"
    assert len({head(run, node).number for node in (1, 2, 3)}) == 1
    signers = [block.proposer for block in chain(run, 1)]
    assert all(len(set(signers[at : at + 3])) == 3 for at in range(len(signers) - 2))


@pytest.mark.parametrize("tie_break", ["lowest_hash", "first_seen"])
def test_the_heavier_chain_counts_then_the_lower_then_the_tie_break(tie_break: str) -> None:
    run = begin(scenario(4, protocol=QUICK | {"tie_break": tie_break}))
    me = run.replica(0)

    def block(height: int, total: int, hash_: int) -> Block:
        made = Block(1000 + hash_, height, height, 0, None)
        made.body = Header(0, IN_TURN, total, 0, (), hash_)
        return made

    head = block(5, 9, 50)
    assert me.better(block(4, 10, 99), head)
    assert not me.better(block(6, 8, 1), head)
    assert me.better(block(4, 9, 99), head), "the same weight in fewer blocks: more of them in turn"
    assert not me.better(block(6, 9, 1), head)
    assert me.better(block(5, 9, 49), head) == (tie_break == "lowest_hash")
    assert not me.better(block(5, 9, 51), head)


def test_halves_meet_again_on_a_branch_no_higher_than_what_one_of_them_decided() -> None:
    """A block in turn weighs as much as two out of turn, and the shorter branch wins."""
    run = play(load_scenario(Path(__file__).parents[1] / "trust" / "clique-branch-no-higher-than-decided.yaml"))
    late = run.decided()[run.decided().time_ns > 8 * S]
    assert set(late.node.tolist()) == {0, 1, 2, 3}


# --- blocks that go hop by hop ----------------------------------------------------------------------------------------

HOPS = SLOW_RIVALS | {"spread": "hops"}


def delays_ms(run: Played) -> dict[int, list[float]]:
    """Of each block how long after it was sealed the others had it for a head, ascending."""
    sealed = {row.block: row.time_ns for row in run.events(ledger.EVENT_PROPOSED)}
    signer = {row.block: row.node for row in run.events(ledger.EVENT_PROPOSED)}
    found: dict[int, list[float]] = {block: [] for block in sealed}
    for row in run.events(ledger.EVENT_HEAD):
        if row.block in sealed and row.node != signer[row.block]:
            found[row.block].append((row.time_ns - sealed[row.block]) / MS)
    return {block: sorted(delays) for block, delays in found.items() if len(delays) == len(signer_set(run)) - 1}


def signer_set(run: Played) -> range:
    return range(run.world.scenario.network.n)


def test_of_four_each_block_takes_one_two_and_three_hops() -> None:
    """Three peers lack it, so one gets it, who knows of two that do, and so on; nobody asks for what comes anyway."""
    run_ = play(scenario(4, protocol=HOPS, duration="60 s"))
    found = delays_ms(run_)
    assert len(found) > 50
    assert {tuple(delays) for delays in found.values()} == {(10.0, 20.0, 30.0)}
    first = {row.node for row in run_.events(ledger.EVENT_HEAD) if row.block == 1 and row.time_ns > 0}
    assert len(first) == 4
    sent = run_.world.run.engine.run_state[kernel.KIND_COUNT].reshape(-1, post.KIND_WIDTH)[:, post.COUNT_SENT]
    counts = dict(zip(run_.world.run.names, sent.tolist(), strict=False))
    assert counts["GetBlocks"] == 0 and counts["NewBlock"] == pytest.approx(3 * 60, abs=6)


def test_of_seventeen_a_block_takes_few_hops_and_each_gets_it_once_or_twice() -> None:
    """Four get it from its sealer, and each of those passes it on to three of the rest."""
    run_ = play(scenario(17, protocol=HOPS, duration="60 s"))
    found = delays_ms(run_)
    assert len(found) > 50
    assert all(delays[3] == 10.0 and delays[4] >= 20.0 for delays in found.values())
    last = [delays[-1] for delays in found.values()]
    assert np.median(last) <= 50 and max(last) <= 460, "a few are passed over, and ask 400 ms later"


def test_who_is_passed_over_asks_for_a_block_that_was_announced() -> None:
    """Whole blocks to voter 3 are lost: it hears of each, and asks 400 ms later."""
    lost = [{"types": ["NewBlock"], "dst": [3], "drop": True}]
    run_ = play(scenario(4, protocol=HOPS, duration="60 s", rules=lost))
    assert not unsafe(run_)
    own = {row.block for row in run_.events(ledger.EVENT_PROPOSED) if row.node == 3}
    late = [delays[-1] for block, delays in delays_ms(run_).items() if block not in own]
    assert len(late) > 20 and set(late) == {430.0, 860.0}, "400 ms and three delays, once or twice"


def test_both_paths_and_liars_with_hops() -> None:
    faults = [{"at": "5 s", "for": "10 s", "crash": {"nodes": [1]}}]
    for changes in ({"faults": faults}, {"corrupted": [{"nodes": [2], "behaviour": "silent"}]}):
        chosen = scenario(5, protocol=QUICK | {"spread": "hops"}, duration="40 s", **changes)
        run_ = play(chosen)
        assert run_.digest == play(chosen, fast_path=False).digest
        assert not unsafe(run_)
        assert run_.world.run.hosts[0].height > 15
