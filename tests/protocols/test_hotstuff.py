"""Chained HotStuff: its exact laws, its rules under crashes, loss, partitions and lies, and its fast lane."""

from __future__ import annotations

import fractions
import itertools
from typing import Any

import numpy as np
import pytest

from sim.engine import loop
from sim.host import Run
from sim.kernel import desk as d
from sim.kernel import post
from sim.ledger import rows as r
from sim.protocol import Block
from sim.protocols.hotstuff import QC, VOTE, HotStuff, HotStuffParameters, Proposal
from tests import chains
from tests.chains import DELAY, MS, agree, decided, digest, equal_delays, events, replica

FOREVER = 1 << 60
EVEN = HotStuffParameters(view_timeout_ns=100 * MS, view_timeout_max_ns=100 * MS)  # no back-off


def world(
    n: int, *, protocol: type[HotStuff] = HotStuff, parameters: HotStuffParameters | None = None, **more: Any
) -> Run:
    return chains.world(n, protocol, parameters or HotStuffParameters(), **more)


# --- laws ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lane", [True, False])
@pytest.mark.parametrize("n", [4, 7, 10])
def test_messages_period_and_latency_follow_the_laws(n: int, lane: bool) -> None:
    """2(n-1) messages per block, a block every two delays, final after six at the leader, seven elsewhere."""
    run = world(n, lane=lane)
    blocks = 200
    assert run.advance(2 * DELAY * blocks - 1) == loop.UNTIL
    proposed = {row[3]: row for row in events(run, r.EVENT_PROPOSED)}
    assert len(proposed) == blocks
    assert run.desk[d.SENT] == 2 * (n - 1) * blocks
    for view, row in enumerate(proposed.values(), 1):
        assert (row[0], row[2], row[4], row[5]) == (2 * DELAY * (view - 1), view % n, view, view)
    rows = decided(run)
    for node in range(n):
        assert len(rows[node]) >= blocks - 4
        for time, number, _, view in rows[node]:
            delays = 6 if node == (view + 3) % n else 7
            assert time - proposed[number][0] == delays * DELAY


@pytest.mark.parametrize("lane", [True, False])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_unequal_delays_make_the_period_an_order_statistic(seed: int, lane: bool) -> None:
    """The next leader proposes upon the q-th smallest of d(L, i) + d(i, L'), once it has the block itself."""
    n, q = 7, 5
    latency = np.random.default_rng(seed).integers(1 * MS, 40 * MS, (n, n))
    np.fill_diagonal(latency, 0)
    run = world(n, latency_ns=latency, lane=lane)
    run.advance(4_000 * MS)
    times = [row[0] for row in events(run, r.EVENT_PROPOSED)]
    assert len(times) > 60
    for view, (before, after) in enumerate(itertools.pairwise(times), 1):
        old, new = view % n, (view + 1) % n
        votes = sorted(int(latency[old, i] + latency[i, new]) for i in range(n))
        assert after - before == max(votes[q - 1], int(latency[old, new]))


def test_scaling_delays_scales_time() -> None:
    ends = []
    for k in (1, 3):
        run = world(4, latency_ns=equal_delays(4, k * DELAY), stop_after=50)
        assert run.advance(FOREVER) == loop.STOP
        ends.append(run.now_ns)
    assert ends[1] == 3 * ends[0]


def test_the_least_block_delay_is_paid_once_per_view() -> None:
    """The oracle of the published measurements: three periods, and three times the block delay."""
    run = world(4, parameters=HotStuffParameters(min_block_delay_ns=10 * MS))
    run.advance(2_000 * MS)
    times = [row[0] for row in events(run, r.EVENT_PROPOSED)]
    assert {b - a for a, b in itertools.pairwise(times)} == {2 * DELAY + 10 * MS}


def test_the_block_interval_spaces_the_blocks_of_one_proposer() -> None:
    run = world(4, interval_ns=200 * MS)
    run.advance(5_000 * MS)
    times: dict[int, list[int]] = {}
    for row in events(run, r.EVENT_PROPOSED):
        times.setdefault(row[2], []).append(row[0])
    gaps = [b - a for of in times.values() for a, b in itertools.pairwise(of)]
    assert len(gaps) > 80
    assert min(gaps) == 200 * MS


# --- the fast lane ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [4, 7])
@pytest.mark.parametrize("case", ["equal", "jitter", "datagrams", "crash", "delays"])
def test_fast_lane_and_handlers_give_the_same_events(n: int, case: str) -> None:
    """Lane on and off: the same events at the same nanosecond, whatever goes wrong meanwhile."""
    jitter = {"jitter_mode": post.PROPORTIONAL_JITTER, "jitter_span": 1 << 19}
    more: dict[str, dict[str, Any]] = {
        "equal": {},
        "jitter": jitter,
        "datagrams": {**jitter, "loss_q32": (1 << 32) // 50, "ordered": False},
        "crash": {**jitter, "parameters": EVEN},
        "delays": {**jitter, "parameters": HotStuffParameters(min_block_delay_ns=3 * MS)},
    }
    seen = []
    for lane in (True, False):
        run = world(n, lane=lane, seed=5, **more[case])
        if case == "crash":
            for node, crash_ms, restart_ms in ((2, 333, 3_001), (0, 4_200, 9_000)):
                run.advance(crash_ms * MS)
                run.crash(node)
                run.advance(restart_ms * MS)
                run.restart(node)
        run.advance(20_000 * MS)
        assert run.desk[r.DECISIONS] > 100
        seen.append((digest(run), decided(run)))
    assert seen[0] == seen[1]


def test_a_rule_override_is_not_bypassed_by_the_lane() -> None:
    class Reluctant(HotStuff):
        def safe_node(self, block: Block) -> bool:
            return block.view < 10

    run = world(4, protocol=Reluctant)
    run.advance(1_000 * MS)
    assert max(row[3] for of in decided(run).values() for row in of) == 7


# --- D6: commits lost to plain crashes -------------------------------------------------------------------

def commits_per_view(n: int, crashed: set[int], protocol: type[HotStuff] = HotStuff) -> fractions.Fraction:
    return chains.commits_per_view(n, crashed, protocol, EVEN)


@pytest.mark.parametrize(
    ("n", "crashed", "expected"),
    [
        (4, {3}, "0"),
        (5, {4}, "1/5"),
        (6, {5}, "2/6"),
        (7, {6}, "3/7"),
        (7, {5, 6}, "2/7"),
        (7, {3, 6}, "0"),
        (10, {9}, "6/10"),
        (10, {7, 8, 9}, "4/10"),
        (10, {3, 6, 9}, "0"),
        (13, {9, 10, 11, 12}, "6/13"),
        (13, {3, 6, 9, 12}, "0"),
    ],
)
def test_crashed_leaders_cost_commits_as_published(n: int, crashed: set[int], expected: str) -> None:
    """Giridharan et al., BeeGees (arXiv 2205.11652): three-chain commits per view, round-robin leaders."""
    assert commits_per_view(n, crashed) == fractions.Fraction(expected)


def test_a_commit_rule_that_ignores_gaps_is_told_apart() -> None:
    """Without dummy nodes the chain of four with one crash would commit: the paper's does not."""

    class Gapped(HotStuff):
        def commits(self, view: int, justify: QC) -> Block | None:
            two = justify.block
            one = None if two is None else two.body.block
            return None if one is None or one.body is None else one.body.block

    assert commits_per_view(4, {3}) == 0
    assert commits_per_view(4, {3}, protocol=Gapped) > 0


# --- view changes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", range(7))
def test_progress_resumes_after_a_crash_and_all_catch_up_after_a_restart(node: int) -> None:
    run = world(7)
    run.advance(1_005 * MS)
    run.crash(node)
    before = run.desk[r.DECISIONS]
    run.advance(31_000 * MS)
    assert run.desk[r.DECISIONS] > before + 10
    run.restart(node)
    run.advance(40_000 * MS)
    heights = [host.height for host in run.hosts]
    assert max(heights) - min(heights) <= 1
    assert agree(run)
    # All is normal again, so that the lane works: two delays a block.
    before = run.desk[r.DECISIONS]
    run.advance(42_000 * MS)
    assert run.desk[r.DECISIONS] - before == 100


def test_patience_doubles_until_a_commit() -> None:
    run = world(4, parameters=HotStuffParameters(view_timeout_ns=100 * MS, view_timeout_max_ns=500 * MS))
    run.advance(1_000 * MS)
    for node in (2, 3):
        run.crash(node)
    waits = []
    for _ in range(4):
        waits.append(replica(run, 0).pacemaker.timeout_ns)
        failures = replica(run, 0).pacemaker.failures
        while replica(run, 0).pacemaker.failures == failures:
            run.advance(run.now_ns + MS)
    assert waits == [100 * MS, 200 * MS, 400 * MS, 500 * MS]
    for node in (2, 3):
        run.restart(node)
    run.advance(run.now_ns + 5_000 * MS)
    assert replica(run, 0).pacemaker.timeout_ns == 100 * MS


@pytest.mark.parametrize("groups", [({0, 1}, {2, 3}), ({0}, {1, 2, 3}), ({0, 2}, {1, 3})])
def test_a_partition_heals(groups: tuple[set[int], set[int]]) -> None:
    run = world(4, links_change=True)
    run.advance(500 * MS)
    for a in groups[0]:
        for b in groups[1]:
            run.cut(a, b)
    run.advance(60_000 * MS)
    alone = [host.height for host in run.hosts]
    for a in groups[0]:
        for b in groups[1]:
            run.heal(a, b)
    run.advance(run.now_ns + 2 * HotStuffParameters().view_timeout_max_ns)
    assert min(host.height for host in run.hosts) > max(alone) + 50
    assert agree(run)


def test_replicas_in_different_views_meet_again() -> None:
    """Every replica in another view, patience at its bound: n - f must still come together."""
    run = world(7, parameters=EVEN)
    run.crash(5)
    run.crash(6)
    for node in range(5):
        found = replica(run, node)
        found.pacemaker.failures = 9
        found.enter(40 + 3 * node)
    run.advance(20_000 * MS)
    assert run.desk[r.DECISIONS] > 20
    assert agree(run)


# --- safety ----------------------------------------------------------------------------------------------


class Noting(HotStuff):
    """Notes every vote cast by a handler; the lane stays open."""

    normal_cases = HotStuff.normal_cases
    cast: dict[tuple[int, int], set[int]]

    def may_vote(self, block: Block) -> bool:
        votes = super().may_vote(block)
        if votes:
            self.cast.setdefault((self.context.me, block.view), set()).add(block.number)
        return votes


@pytest.mark.parametrize("lane", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_a_restarted_replica_never_votes_twice_in_a_view(seed: int, lane: bool) -> None:
    n = 4
    Noting.cast = {}
    parameters = HotStuffParameters(view_timeout_ns=150 * MS, view_timeout_max_ns=600 * MS)
    run = world(
        n, protocol=Noting, lane=lane, seed=seed, parameters=parameters,
        jitter_mode=post.PROPORTIONAL_JITTER, jitter_span=1 << 19,
    )  # fmt: skip
    chance = np.random.default_rng(seed)
    for _ in range(25):
        run.advance(run.now_ns + int(chance.integers(1, 400 * MS)))
        node = int(chance.integers(n))
        before = replica(run, node)
        run.crash(node)
        if chance.random() < 0.5:
            run.advance(run.now_ns + int(chance.integers(1, 900 * MS)))
        run.restart(node)
        after = replica(run, node)
        assert (after.voted_view, after.voted) == (before.voted_view, before.voted)
        assert after.locked.view >= before.locked.view
        assert after.view > after.voted_view
    run.advance(run.now_ns + 5_000 * MS)
    assert all(len(numbers) == 1 for numbers in Noting.cast.values())
    assert agree(run)
    assert run.desk[r.DECISIONS] > 50


class Equivocator(HotStuff):
    """Replica 0 proposes two blocks whenever it leads, one to each half, and votes for both."""

    normal_cases = HotStuff.normal_cases

    def propose(self) -> None:
        context, view, justify = self.context, self.view, self.high
        if context.me != 0:
            super().propose()
            return
        for half in (0, 1):
            block = context.new_block(justify.block, view, empty=True)
            assert block is not None
            block.body = justify
            self.tree.add(block)
            for to in range(1, context.n):
                if to % 2 == half:
                    context.send(to, Proposal(view, block))
            context.vote(VOTE, context.ballot(view, block.height, block), to=self.leader_of(view + 1))
        self.accept(block)


@pytest.mark.parametrize("n", [4, 7])
@pytest.mark.parametrize("seed", range(5))
def test_an_equivocating_leader_cannot_split_the_rest(n: int, seed: int) -> None:
    parameters = HotStuffParameters(view_timeout_ns=200 * MS, view_timeout_max_ns=400 * MS)
    run = world(
        n, protocol=Equivocator, parameters=parameters, seed=seed,
        jitter_mode=post.PROPORTIONAL_JITTER, jitter_span=1 << 19,
    )  # fmt: skip
    run.advance(20_000 * MS)
    assert agree(run)
    blocks = {row[3]: row for row in events(run, r.EVENT_PROPOSED) if row[2] == 0}
    assert len(blocks) > 20
    assert run.desk[r.DECISIONS] > 50


def test_too_small_a_quorum_is_seen_to_split() -> None:
    """A plain partition, and half of the votes for a certificate: `agree` can fail."""

    class Weak(HotStuff):
        def quorum(self) -> int:
            return self.context.n // 2

    run = world(8, protocol=Weak, links_change=True, parameters=EVEN)
    for a in range(4):
        for b in range(4, 8):
            run.cut(a, b)
    run.advance(10_000 * MS)
    assert not agree(run)


@pytest.mark.parametrize("seed", range(50))
def test_agreement_with_jitter_loss_and_crashes(seed: int) -> None:
    n = (4, 7, 5)[seed % 3]
    parameters = HotStuffParameters(view_timeout_ns=150 * MS, view_timeout_max_ns=1_200 * MS)
    run = world(
        n, seed=seed, parameters=parameters, ordered=False, loss_q32=(1 << 32) * 3 // 100,
        jitter_mode=post.PROPORTIONAL_JITTER, jitter_span=1 << 21,
    )  # fmt: skip
    node = seed % n
    run.advance((700 + 13 * seed) * MS)
    run.crash(node)
    run.advance((4_000 + 17 * seed) * MS)
    run.restart(node)
    run.advance(20_000 * MS)
    assert agree(run)
    before = run.desk[r.DECISIONS]
    run.advance(40_000 * MS)
    assert run.desk[r.DECISIONS] > before
    assert agree(run)


def test_lock_and_certificate_rules() -> None:
    """safeNode's two rules, and chains that a gap interrupts."""
    run = world(4)
    run.advance(10 * DELAY)
    found = replica(run, 0)
    two = found.high.block
    assert two is not None
    assert found.locks(two.view + 1, found.high) is two.body
    assert found.commits(two.view + 1, found.high) is two.body.block.parent
    assert found.locks(two.view + 2, found.high) is None
    assert found.commits(two.view + 2, found.high) is None
    stray = Block(10_000, found.locked.block.height + 1, 99, 3, found.locked.block.parent)  # type: ignore[union-attr]
    stray.body = QC(found.locked.view, stray.parent, 3)
    assert not found.safe_node(stray)  # neither extends the lock nor has a higher certificate
    stray.body = QC(found.locked.view + 1, stray.parent, 3)
    assert found.safe_node(stray)


def test_an_idle_chain_waits_for_transactions_but_not_for_ever() -> None:
    """No transactions: with `empty_block_delay` a block that often, else one every two delays."""
    counts = []
    for delay in (0, 100 * MS):
        parameters = HotStuffParameters(empty_block_delay_ns=delay)
        run = world(4, parameters=parameters, backlog_bytes=0, gateways=1, site_of=np.array([0, 1, 2, 3, 0]),
                    latency_ns=equal_delays(4))  # fmt: skip
        run.advance(12_000 * MS - 1)
        counts.append(int(run.desk[r.PROPOSED]))
    assert counts == [600, 100]


def test_check_names_value_rule_and_remedy() -> None:
    HotStuff.check(HotStuffParameters(), 4)
    with pytest.raises(ValueError, match=r"faults 2: needs n >= 3f \+ 1 = 7 voters, not 6; lower faults"):
        HotStuff.check(HotStuffParameters(faults=2), 6)
    with pytest.raises(ValueError, match="view_timeout_max 1 ns"):
        HotStuff.check(HotStuffParameters(view_timeout_max_ns=1), 4)
    with pytest.raises(ValueError, match="raise view_timeout"):
        HotStuff.check(HotStuffParameters(min_block_delay_ns=2_000 * MS), 4)
