"""PBFT: the laws a fault-free run obeys to the nanosecond, conversations about what may go wrong, and agreement."""

from __future__ import annotations

import dataclasses
import itertools
import random
from typing import Any, ClassVar

import numpy as np
import pytest

from sim.engine import loop
from sim.families.pbft.viewchange import NewView, ViewChange, carried_over
from sim.ledger import rows as ledger
from sim.protocol import Block, Signing, upon
from sim.protocols.pbft import COMMIT, PREPARE, Pbft, PrePrepare
from tests.runs import MS, Played, S, begin, play, scenario, unsafe

OPEN = [{"kind": "open", "rate": "80 tx/s", "bytes": "500 B"}]
FAST = {"name": "pbft", "request_timeout": "300 ms"}
LONELY = {"sites": ["0"], "kind": "closed", "outstanding": 1, "bytes": "500 B"}


def one_at_a_time(n: int, **changes: Any) -> Played:
    """Full blocks, one every 100 ms, for 1.05 s: at the end nothing is on its way."""
    return play(scenario(n, duration="1050 ms", **{"block.interval": "100 ms", **changes}))


def crash(nodes: list[int], at: str, for_: str | None = None) -> dict[str, Any]:
    """A scripted crash."""
    return {"at": at, "crash": {"nodes": nodes}} | ({} if for_ is None else {"for": for_})


# --- laws --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [4, 5, 7, 10, 16, 31])
def test_a_decision_costs_2n_times_n_minus_1_messages(n: int) -> None:
    run = one_at_a_time(n)
    decisions = len({row.block for row in run.decided()})
    assert decisions == 11
    assert run.sent("PrePrepare") == (n - 1) * decisions
    assert run.sent("PREPARE") == (n - 1) ** 2 * decisions  # the primary sends none
    assert run.sent("COMMIT") == n * (n - 1) * decisions
    assert run.sent() == 2 * n * (n - 1) * decisions


@pytest.mark.parametrize("n", [4, 7, 16])
def test_a_decision_takes_three_equal_delays_everywhere(n: int) -> None:
    assert set(one_at_a_time(n).latencies_ns().values()) == {30 * MS}


def test_a_client_at_the_primary_waits_five_delays() -> None:
    """Request, pre-prepare, prepare, commit, reply: 10 ms each, also between the client and its replica."""
    run = play(scenario(4, duration="30 s", workload=[LONELY]))
    counts = run.world.run.engine.run_state[ledger.HIST_CLIENT]
    assert np.flatnonzero(counts).tolist() == [50_000]  # microseconds
    assert counts[50_000] == 600


def order_statistics(delays: np.ndarray, q: int) -> np.ndarray:
    """DESIGN section 8: when each replica has prepared, and committed. Row: from, column: to; leader 0.

    A vote of one's own counts at once. prepared(j) needs the pre-prepare and q - 1 prepares of backups.
    """
    n = len(delays)
    d = delays.copy()
    np.fill_diagonal(d, 0)
    accepted = d[0]
    arrivals = accepted[1:, None] + d[1:, :]  # of the backups' prepares
    prepared = np.array([max(accepted[j], np.sort(arrivals[:, j])[q - 2]) for j in range(n)])
    return np.sort(prepared[:, None] + d, axis=0)[q - 1]


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize(("n", "seed"), list(itertools.product([4, 5, 7, 10], range(3))))
def test_unequal_delays_follow_their_order_statistics(n: int, seed: int, fast_path: bool) -> None:
    draw = np.random.default_rng(seed)
    ms = draw.integers(1, 90, size=(n, n))
    latency = {"model": "explicit", "one_way_ms": ms.tolist()}
    run = play(
        scenario(n, duration="450 ms", **{"network.latency": latency, "block.interval": "1 s"}), fast_path=fast_path
    )
    expected = order_statistics(ms * MS, (n + (n - 1) // 3) // 2 + 1)
    found = run.latencies_ns()
    assert [found[1, j] for j in range(n)] == expected.tolist()


@pytest.mark.parametrize("k", [3, 10])
def test_scaling_every_delay_scales_every_decision(k: int) -> None:
    ms = np.random.default_rng(7).integers(1, 50, size=(7, 7))

    def decided(scale: int) -> list[tuple[int, int, int]]:
        latency = {"model": "explicit", "one_way_ms": (ms * scale).tolist()}
        run = play(scenario(7, duration=f"{1000 * scale} ms", **{"network.latency": latency}))
        return [(row.time_ns // scale, row.node, row.block) for row in run.decided()]

    assert decided(k) == decided(1)


def test_no_delay_and_no_cost_mean_no_latency() -> None:
    run = one_at_a_time(4, **{"network.latency": {"model": "fixed", "one_way": "0 ms"}})
    assert set(run.latencies_ns().values()) == {0}
    assert len(run.decided(3)) == 11


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_replicas_decide_too(n: int) -> None:
    run = one_at_a_time(n)
    assert {node: len(run.decided(node)) for node in range(n)} == dict.fromkeys(range(n), 11)
    # With f = 0 the pre-prepare and a replica's own prepare are a quorum of prepares.
    assert set(run.latencies_ns().values()) == {1: {0}, 2: {20 * MS, 30 * MS}, 3: {20 * MS}}[n]
    assert unsafe(run) == []


# --- conversations -----------------------------------------------------------------------------------------


def test_a_crashed_primary_is_replaced_by_the_next() -> None:
    run = begin(scenario(4, protocol=FAST, duration="4 s", faults=[crash([0], "1 s")])).until(int(1.29 * S))
    assert set(run.views()) == {0}  # the others are patient for 300 ms
    run.until(4 * S)
    assert set(run.views()) == {0, 1}
    late = run.events(ledger.EVENT_PROPOSED)[-1]
    assert (late.node, late.view) == (1, 1)  # replica 1 proposes in view 1
    assert unsafe(run) == []


def test_crashed_primaries_cost_a_view_each_and_twice_the_patience() -> None:
    run = play(scenario(10, protocol=FAST, duration="4 s", faults=[crash([0, 1, 2], "1 s")]))
    assert set(run.views()) == {0, 3}
    # The seven others still execute at 1020 ms. View 1 is asked for at 1320, has its quorum at 1330 and 300 ms from
    # then; view 2 is asked for at 1630, has its quorum at 1640 and 600 ms from then; view 3 has its own at 2250.
    entered = {row.node: row.time_ns for row in run.events(ledger.EVENT_VIEW) if row.block == 3}
    assert entered == {3: 2250 * MS} | {node: 2260 * MS for node in range(4, 10)}


def test_a_view_that_executed_something_leaves_the_next_its_patience() -> None:
    """Primaries 0 and 1 crash one second apart: 300 ms, three delays and what was under way, both times."""
    faults = [crash([0], "500 ms"), crash([1], "1500 ms")]
    run = play(scenario(7, protocol=FAST, duration="2 s", faults=faults))
    times = run.decided(4).time_ns.tolist()
    gaps = [later - earlier for earlier, later in itertools.pairwise(times) if later - earlier > 100 * MS]
    assert gaps == [340 * MS] * 2
    assert set(run.views()) == {0, 1, 2}


def test_patience_doubles_once_a_view() -> None:
    """Repeated VIEW-CHANGEs must not double it again."""
    faults = [crash([0], "500 ms")]
    run = play(scenario(4, protocol=FAST, duration="8 s", faults=faults, **{"network.loss": "20 %"}))
    for node in (1, 2, 3):
        replica = run.replica(node)
        assert replica.timeout_ns <= 300 * MS * 2**replica.view


class Hasty(Pbft):
    """Replica 1 leads view 1 on the strength of VIEW-CHANGEs for the view before."""

    def new_view(self, view: int) -> None:
        if self.context.me == 1:
            of = self.changes[view]
            self.changes[view] = {node: dataclasses.replace(change, view=view - 1) for node, change in of.items()}
        super().new_view(view)


def test_view_changes_for_another_view_justify_none() -> None:
    faults = [crash([0], "500 ms")]
    run = play(scenario(7, protocol=FAST, duration="2 s", faults=faults), protocol=Hasty)
    assert set(run.events(ledger.EVENT_VIEW).node[run.events(ledger.EVENT_VIEW).block == 1]) == {1}
    assert {run.replica(node).view for node in range(2, 7)} == {2}
    assert unsafe(run) == []


def test_a_new_view_brings_what_fills_its_gaps() -> None:
    """A batch that prepared before is named; one made for a gap has not travelled yet."""
    carried, filling = Block(1, 8, 0, 0, None), Block(2, 7, 1, 1, None)
    carried.bytes, filling.bytes = 5000, 3000
    assert NewView(1, (), ((8, carried),)).size_bytes(Signing(4)) == 2 * 48
    assert NewView(1, (), ((7, filling), (8, carried))).size_bytes(Signing(4)) == 3 * 48 + 3000


def test_nobody_follows_fewer_than_f_plus_1() -> None:
    """One replica that cannot hear the primary asks for a view change; one request is not enough."""
    faults = [{"at": "1 s", "for": "3 s", "cut_link": {"between": [0, 3]}}]
    run = play(scenario(4, protocol=FAST, duration="4 s", faults=faults))
    assert set(run.views()) == {0}
    assert run.replica(3).view > 0
    assert not run.replica(3).active
    assert {run.replica(node).view for node in (0, 1, 2)} == {0}


def test_f_plus_1_take_the_others_along() -> None:
    """Replicas 2 and 3 cannot hear the primary. Replica 1 can, and would never complain by itself."""
    faults = [{"at": "1 s", "cut_link": {"between": [0, node]}} for node in (2, 3)]
    run = play(scenario(4, protocol=FAST, duration="4 s", workload=OPEN, faults=faults))
    assert set(run.views()) == {0, 1}
    assert len(run.decided(3)) > len(run.decided(3)[run.decided(3).time_ns < S])


def silence(at: str, for_: str) -> list[dict[str, Any]]:
    """Replicas 1, 2 and 3 do not hear each other."""
    return [{"at": at, "for": for_, "cut_link": {"between": list(pair)}} for pair in ((1, 2), (1, 3), (2, 3))]


def test_a_prepared_batch_survives_at_its_sequence_number() -> None:
    """All have prepared when the primary dies, and no commit arrives: view 1 orders the same block there."""
    faults = [crash([0], "25 ms"), *silence("25 ms", "35 ms")]
    run = begin(scenario(4, protocol=FAST, duration="2 s", faults=faults)).until(60 * MS)
    assert len(run.decided()) == 0
    (block,) = run.world.run.block_store.of_row.values()
    run.until(2 * S)
    assert [run.decided_blocks(node)[1] for node in (1, 2, 3)] == [block.number] * 3
    assert set(run.views()) == {0, 1}
    assert unsafe(run) == []


def test_who_voted_commit_reports_the_batch_after_a_restart() -> None:
    """Replica 0 alone decides and dies; the others forget in a crash that they had prepared."""
    faults = [crash([0], "31 ms"), *silence("25 ms", "11 ms"), crash([1, 2, 3], "33 ms", "1 ms")]
    run = begin(scenario(4, protocol=FAST, duration="4 s", faults=faults)).until(36 * MS)
    assert {row.node for row in run.decided()} == {0}
    run.until(4 * S)
    assert len(run.decided(1)) > 50
    assert run.decided_blocks(1)[1] == run.decided_blocks(0)[1]
    assert unsafe(run) == []


def test_checkpoints_become_stable_and_free_the_log() -> None:
    long = {"name": "pbft", "checkpoint_interval": 16, "log_window": 32}
    run = begin(scenario(4, protocol=long, duration="300 s"))
    most = 0
    for second in range(10, 301, 10):
        run.until(second * S)
        run_state = run.world.run.engine
        kept = len(run_state.run_state[ledger.BLOCK_FREE]) - int(run_state.state[ledger.BLOCKS_FREE])
        most = max(most, kept, len(run.world.run.block_store.ballots))
    assert len(run.decided(0)) > 9_900
    assert most < 600  # freed in strokes of 256 blocks
    assert {run.replica(node).low_mark for node in range(4)} == {9_984}
    assert run.sent("CHECKPOINT") == 4 * 3 * 625


def test_a_lost_checkpoint_does_not_stop_the_log() -> None:
    """K = L: the window is full and everybody crashes while the checkpoint's votes are on their way."""
    tight = {**FAST, "checkpoint_interval": 4, "log_window": 4}
    faults = [crash([0, 1, 2, 3], "122 ms", "200 ms")]  # height 4 is decided at 120 ms
    run = begin(scenario(4, protocol=tight, duration="3 s", faults=faults)).until(125 * MS)
    assert {len(run.decided(node)) for node in range(4)} == {4}
    run.until(3 * S)
    assert min(len(run.decided(node)) for node in range(4)) > 20


def test_the_log_window_bounds_the_pipeline() -> None:
    wide = {"name": "pbft", "checkpoint_interval": 2, "log_window": 4, "pipeline": 100}
    run = begin(scenario(4, protocol=wide, duration="2 s"))
    for step in range(1, 400):
        run.until(step * 5 * MS)
        primary = run.replica(0)
        last = 0 if primary.last_proposed is None else primary.last_proposed.height
        assert last <= primary.low_mark + 4
    assert len(run.decided(0)) > 50


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("node", [0, 1])
def test_nobody_votes_twice_after_a_restart(node: int, fast_path: bool) -> None:
    """For a view and sequence number every replica votes for one block, the restarted primary included."""
    twice = set()
    for seed in range(8):
        faults = [crash([node], f"{301 + 4 * seed} ms", f"{20 + 5 * seed} ms")]
        jitter = {"model": "proportional", "up_to": 1.0}
        run = begin(
            scenario(4, seed=seed, duration="1 s", faults=faults, **{"network.jitter": jitter}), fast_path=fast_path
        )
        for ms in range(296, 600, 4):
            run.until(ms * MS)
            tree = run.world.run.block_store
            for height in range(200):
                tree.at_height(height)  # lest the engine's own are not seen
            for (view, number), same in tree.ballots.items():
                for voter, host in enumerate(run.world.run.hosts):
                    for vote in (PREPARE, COMMIT):
                        if sum(host.votes.has_voted(vote, ballot) for ballot in same) > 1:
                            twice.add((seed, voter, view, number, vote.name))
        assert unsafe(run) == []
    assert twice == set()


def test_a_restarted_replica_catches_up_and_takes_part() -> None:
    """Replica 3 misses 100 batches; then replica 2 leaves for good, and without 3 there is no quorum."""
    faults = [crash([3], "500 ms", "3 s"), crash([2], "5 s")]
    run = begin(scenario(4, duration="6 s", faults=faults)).until(int(3.4 * S))
    assert len(run.decided(3)) == 16
    run.until(5 * S)
    assert len(run.decided(0)) - len(run.decided(3)) <= 1
    run.until(6 * S)
    assert len(run.decided(3)) > 190
    assert list(run.decided_blocks(3)) == list(range(1, len(run.decided(3)) + 1))


@pytest.mark.parametrize("n", [1, 4, 7])
def test_a_whole_cluster_crashes_and_recovers(n: int) -> None:
    # Not a multiple of the delay: a batch is under way. A replica alone needs time for it: its signature.
    faults = [crash(list(range(n)), "1005 ms", "1 s")]
    run = play(scenario(n, protocol=FAST, duration="6 s", faults=faults, **{"block.interval": "10 ms"}))
    before = [len(run.decided(node)[run.decided(node).time_ns < 2 * S]) for node in range(n)]
    assert all(len(run.decided(node)) > before[node] + 60 for node in range(n))
    assert unsafe(run) == []


@pytest.mark.parametrize("at_ms", range(100, 130, 3))
def test_a_hole_in_the_pipeline_is_filled_by_a_view_change(at_ms: int) -> None:
    """A batch is lost to all while later ones commit: everybody is behind, and nobody can help."""
    faults = [{"at": f"{at_ms} ms", "for": "4 ms", "cut_link": {"between": [0, node]}} for node in (1, 2, 3)]
    deep = {**FAST, "pipeline": 4}
    run = play(scenario(4, protocol=deep, duration="4 s", faults=faults, **{"block.interval": "5 ms"}))
    assert min(len(run.decided(node)) for node in range(4)) > 100
    assert unsafe(run) == []


@pytest.mark.parametrize("seed", range(10))
def test_a_pre_prepare_may_overtake_its_new_view(seed: int) -> None:
    """Datagrams change their order: what a replica hears of a view before NEW-VIEW is not lost to it."""
    jitter = {"network.jitter": {"model": "proportional", "up_to": 1.0}, "network.links": "datagram"}
    run = play(scenario(7, seed=seed, protocol=FAST, duration="3 s", faults=[crash([0], "1 s")], **jitter))
    assert set(run.views()) == {0, 1}
    assert run.decided()[-1].time_ns > int(2.9 * S)
    assert unsafe(run) == []


class Equivocator(Pbft):
    """Replica 0, as primary, orders two blocks at one place: each half of the others hears of one."""

    def pre_prepare(self, block: Any) -> None:
        if self.context.me != 0:
            super().pre_prepare(block)
            return
        other = self.context.new_block(self.context.chain.decided(block.height - 1), self.view, number=block.height)
        for to in range(1, self.context.n):
            self.context.send(to, PrePrepare(self.view, block.height, block if to % 2 else other))
        for each in (block, other):  # and it votes for both
            ballot = self.context.votes.ballot(self.view, block.height, each)
            self.context.votes.open_gate(PREPARE, ballot, by=0)
            self.context.vote(COMMIT, ballot, gate=True)


def test_equal_halves_of_an_equivocation_decide_nothing() -> None:
    run = play(scenario(7, protocol=FAST, duration="3 s"), protocol=Equivocator)
    assert [row for row in run.decided() if row.view == 0] == []  # three votes for each block, four are needed
    assert set(run.views()) == {0, 1}
    assert min(len(run.decided(node)) for node in range(1, 7)) > 50
    assert unsafe(run) == []


def test_an_equivocation_decides_one_block_at_most() -> None:
    """Replicas 1 and 3 hear of one block, 2 of another; with the primary's own votes the first has a quorum."""
    run = play(scenario(4, protocol=FAST, duration="3 s"), protocol=Equivocator)
    blocks = {node: run.decided_blocks(node) for node in range(4)}
    assert blocks[1] == blocks[3]
    assert len(blocks[1]) > 50
    assert blocks[2].items() <= blocks[1].items()
    assert [evidence for evidence in unsafe(run) if "replica 0" not in evidence] == []  # it alone breaks its rules


class Deaf(Pbft):
    """Never commits to less than everybody: a rule override, as a user may write one."""

    def committed_quorum(self) -> int:
        return self.context.n


def test_a_quorum_is_a_rule_that_can_be_overridden() -> None:
    run = play(scenario(4, duration="2 s", faults=[crash([3], "1 s")]), protocol=Deaf)
    assert len(run.decided(0)) == 33  # none after the crash
    assert not run.world.run.fast_path_allowed  # a changed rule is never bypassed


class Talker(Pbft):
    """Keeps what it hears of view changes."""

    heard: list[ViewChange]

    @upon(ViewChange)
    def on_view_change(self, sender: int, message: ViewChange) -> None:
        self.heard = [*getattr(self, "heard", []), message]
        super().on_view_change(sender, message)


def test_a_view_change_carries_what_is_prepared_above_the_stable_checkpoint() -> None:
    small = {**FAST, "checkpoint_interval": 4, "log_window": 8}
    run = play(scenario(4, protocol=small, duration="2 s", faults=[crash([0], "1 s")]), protocol=Talker)
    message = next(m for m in run.replica(1).heard if m.replica == 2)
    assert message.view == 1
    assert message.low_mark == 32  # 33 batches were executed in the first second, one more needs no primary now
    blocks = run.decided_blocks(2)
    assert [(sequence, block.number) for sequence, _, block in message.prepared] == [(33, blocks[33]), (34, blocks[34])]
    assert message.size_bytes(Signing(4, 64)) == 48 + 3 * 66 + 2 * (48 + 3 * 66)


class Forger(Pbft):
    """Replica 6 is the first to ask for a view, and says that a batch of its own prepared which nobody has seen."""

    forged: ClassVar[list[int]] = []

    def start(self) -> None:
        if self.context.me == 6:
            self.timeout_ns = 100 * MS
        super().start()

    def prepared(self) -> tuple[tuple[int, int, Block], ...]:
        context = self.context
        if context.me != 6:
            return super().prepared()
        made = context.new_block(context.chain.decided(context.height), 0, number=context.height + 1, empty=True)
        assert made is not None
        self.forged.append(made.number)
        return ((made.height, 0, made),)


def test_what_a_view_change_says_was_prepared_must_be_proven() -> None:
    Forger.forged.clear()
    run = play(scenario(7, protocol=FAST, duration="3 s", faults=[crash([0], "1 s")]), protocol=Forger)
    assert Forger.forged
    assert not {*Forger.forged} & {*run.decided().block}
    assert run.decided()[-1].time_ns > int(2.9 * S)
    assert unsafe(run) == []


def change(replica: int, low: int, *prepared: tuple[int, int, Block]) -> ViewChange:
    """A VIEW-CHANGE for view 3."""
    return ViewChange(3, low, prepared, 3, replica)


def test_o_carries_over_what_prepared_in_the_highest_view() -> None:
    """Sequence 5 prepared in views 0 and 2, 7 in view 1; 6 in none, 4 lies below the latest stable checkpoint."""
    old, new, last, gone = (Block(number, 5, 0, 0, None) for number in (1, 2, 3, 4))
    orders = itertools.permutations(
        [change(0, 3, (5, 0, old), (4, 2, gone)), change(1, 4, (5, 2, new)), change(2, 4, (7, 1, last))]
    )
    for changes in orders:
        assert carried_over(tuple(changes)) == (4, [(5, new), (6, None), (7, last)])


def test_a_backup_enters_no_view_whose_o_does_not_follow_from_v() -> None:
    """The primary of view 1 leaves out what one of three VIEW-CHANGEs carries, or puts another batch in its place."""
    run = begin(scenario(4, protocol=FAST))
    backup, hosts = run.replica(2), run.world.run.hosts
    batch, other = (hosts[0].new_block(None, 0, number=1, empty=True) for _ in range(2))
    for voter in (1, 2, 3):
        hosts[voter].vote(PREPARE, hosts[voter].votes.ballot(0, 1, batch))
    backup.change_view(1)
    changes = tuple(ViewChange(1, 0, ((1, 0, batch),) if node == 3 else (), 3, node) for node in (0, 1, 3))
    for proposals in ((), ((1, other),), ((1, batch), (2, other))):
        backup.on_new_view(1, NewView(1, changes, proposals))
        assert not backup.active
    backup.on_new_view(1, NewView(1, changes, ((1, batch),)))
    assert backup.active
    assert backup.view == 1


def test_a_backup_enters_no_view_upon_a_certificate_that_does_not_exist() -> None:
    """One of V's VIEW-CHANGEs names a batch that nobody prepared; the others are true."""
    run = begin(scenario(4, protocol=FAST))
    backup, hosts = run.replica(2), run.world.run.hosts
    forged = hosts[0].new_block(None, 0, number=1, empty=True)
    backup.change_view(1)
    changes = tuple(ViewChange(1, 0, ((1, 0, forged),) if node == 3 else (), 3, node) for node in (0, 1, 3))
    backup.on_new_view(1, NewView(1, changes, ((1, forged),)))
    assert not backup.active


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
    interval = choice.choice([1, 4, 128])
    protocol = {**FAST, "checkpoint_interval": interval, "log_window": 2 * interval, "pipeline": choice.choice([1, 3])}
    return scenario(
        n, seed=seed, protocol=protocol, duration="6 s", faults=faults, workload=choice.choice([OPEN, OPEN, [
            {"kind": "backlog", "bytes": "500 B"}]]),
        **{
            "network.latency": {"model": "uniform", "low": "2 ms", "high": "15 ms"},
            "network.jitter": {"model": "proportional", "up_to": choice.choice([0.2, 1.0])},
            "network.loss": "2 %" if lossy else "0 %",
            "network.retransmit_after": "30 ms",
            "network.links": choice.choice(["ordered", "datagram"]) if lossy else "ordered",
            "block.interval": "20 ms",
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    "seeds", [range(start, start + 20) for start in range(0, 100, 20)], ids=lambda s: f"{s.start}+"
)
def test_agreement_and_validity_in_trouble(seeds: range) -> None:
    for seed in seeds:
        run = play(troubled(seed, lossy=seed % 2 == 1))
        assert run.code == loop.UNTIL
        assert unsafe(run) == [], f"seed {seed}"
        if seed % 2 == 0:  # nothing lost but by faults: decisions go on after the last one
            assert run.decided()[-1].time_ns > 5 * S, f"seed {seed}"


@pytest.mark.parametrize("seeds", [range(start, start + 15) for start in range(0, 30, 15)], ids=lambda s: f"{s.start}+")
def test_the_fast_path_does_what_the_handlers_do(seeds: range) -> None:
    for seed in seeds:
        chosen = troubled(seed, lossy=seed % 2 == 1)
        fast, slow = play(chosen, fast_path=True), play(chosen, fast_path=False)
        np.testing.assert_array_equal(fast.rows, slow.rows, err_msg=f"seed {seed}")
        assert fast.digest == slow.digest, f"seed {seed}"


def test_blocks_kept_for_a_voter_that_is_down_keep_no_tallies() -> None:
    """A block that only a lost voter lacks stays for its catch-up, without ballots, tallies and actions."""
    network = {"network.latency": {"model": "fixed", "one_way": "1 ms"}}
    run = begin(scenario(4, duration="20 s", faults=[crash([3], "1 s", "15 s")], **network)).until(4 * S)
    engine, tree = run.world.run.engine, run.world.run.block_store
    tallies = engine.tallies
    run.until(15 * S)
    kept = len(engine.run_state[ledger.BLOCK_FREE]) - int(engine.state[ledger.BLOCKS_FREE])
    assert kept > 4_000
    assert engine.tallies == tallies
    assert len(tree.of_row) < kept / 20
    run.until(20 * S)
    assert len(run.decided(0)) - len(run.decided(3)) <= 1  # it has caught up from them
    assert unsafe(run) == []
