"""Jolteon: its exact laws, its rules under crashes, loss, partitions and restarts, and its fast lane."""

from __future__ import annotations

import fractions
import itertools

import numpy as np
import pytest

from sim.engine import loop
from sim.host import Run
from sim.kernel import desk as d
from sim.ledger import rows as r
from sim.measure.metrics import message_table
from sim.protocol import Block, Signing
from sim.protocols.jolteon import QC, TC, Jolteon, JolteonParameters, Proposal, Timeout
from tests import chains
from tests.chains import (
    CASES,
    DELAY,
    JITTER,
    MS,
    agree,
    decided,
    equal_delays,
    events,
    lane_and_handlers,
    lossy_crashes,
    replica,
)

EVEN = JolteonParameters(view_timeout_ns=100 * MS, view_timeout_max_ns=100 * MS)  # no back-off
BRIEF = JolteonParameters(view_timeout_ns=150 * MS, view_timeout_max_ns=1_200 * MS)


def world(
    n: int, *, protocol: type[Jolteon] = Jolteon, parameters: JolteonParameters | None = None, **more: object
) -> Run:
    return chains.world(n, protocol, parameters or JolteonParameters(), **more)


# --- laws ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lane", [True, False])
@pytest.mark.parametrize("n", [4, 5, 7, 31])
def test_messages_period_and_latency_follow_the_laws(n: int, lane: bool) -> None:
    """2(n-1) messages per block, a block every two delays, final after four at the leader, five elsewhere."""
    run = world(n, lane=lane)
    blocks = 100
    assert run.advance(2 * DELAY * blocks - 1) == loop.UNTIL
    proposed = {row[3]: row for row in events(run, r.EVENT_PROPOSED)}
    assert len(proposed) == blocks
    assert run.desk[d.SENT] == 2 * (n - 1) * blocks
    for view, row in enumerate(proposed.values(), 1):
        assert (row[0], row[2], row[4], row[5]) == (2 * DELAY * (view - 1), view % n, view, view)
    rows = decided(run)
    for node in range(n):
        assert len(rows[node]) >= blocks - 3
        for time, number, _, view in rows[node]:
            delays = 4 if node == (view + 2) % n else 5
            assert time - proposed[number][0] == delays * DELAY


def test_unequal_delays_make_the_period_an_order_statistic() -> None:
    """The next leader proposes upon the q-th smallest of d(L, i) + d(i, L'), once it has the block itself."""
    n, q = 7, 5
    latency = np.random.default_rng(1).integers(1 * MS, 40 * MS, (n, n))
    np.fill_diagonal(latency, 0)
    run = world(n, latency_ns=latency)
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
        assert run.advance(1 << 60) == loop.STOP
        ends.append(run.now_ns)
    assert ends[1] == 3 * ends[0]


def test_a_leader_may_lead_several_views_in_a_row() -> None:
    run = world(4, parameters=JolteonParameters(leader_views=3))
    run.advance(1_000 * MS)
    leaders = [row[2] for row in events(run, r.EVENT_PROPOSED)]
    assert leaders == [view // 3 % 4 for view in range(1, len(leaders) + 1)]
    assert len(leaders) >= 50


def test_certificates_cost_what_the_signatures_say() -> None:
    """A list grows with the signers, an aggregate by a bit each; a TC holds a round per signer besides."""
    block = Block(1, 1, 1, 1, None)
    block.body = QC(1, block, 3)
    sizes = {}
    for kind in ("list", "aggregate", "threshold"):
        signing = Signing(4, 64, kind)  # type: ignore[arg-type]
        sizes[kind] = Proposal(3, block, TC(2, 1, 3)).size_bytes(signing)
    assert sizes == {
        "list": 48 + (48 + 3 * 66) + (48 + 3 * 66 + 24),
        "aggregate": 48 + (48 + 65) + (48 + 65 + 24),
        "threshold": 48 + (48 + 64) + (48 + 64 + 24),
    }
    assert Proposal(3, block, TC(2, 1, 3)).certificates() == (3, 3)
    assert Timeout(3, QC(1, block, 3), None).certificates() == (3,)


# --- the fast lane ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [4, 7])
@pytest.mark.parametrize("case", CASES)
def test_fast_lane_and_handlers_give_the_same_events(n: int, case: str) -> None:
    """Lane on and off: the same events at the same nanosecond, whatever goes wrong meanwhile."""
    delayed = JolteonParameters(min_block_delay_ns=3 * MS, view_timeout_ns=200 * MS)
    fast, slow = lane_and_handlers(n, Jolteon, EVEN if case == "crash" else delayed, case)
    assert fast == slow


# --- commits lost to plain crashes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "crashed", "expected"),
    [
        (4, {3}, "1/4"),
        (5, {4}, "2/5"),
        (6, {5}, "3/6"),
        (7, {6}, "4/7"),
        (7, {5, 6}, "3/7"),
        (7, {3, 6}, "1/7"),
        (10, {9}, "7/10"),
        (10, {7, 8, 9}, "5/10"),
        (10, {3, 6, 9}, "1/10"),
        (13, {9, 10, 11, 12}, "7/13"),
        (13, {3, 6, 9, 12}, "1/13"),
    ],
)
def test_crashed_leaders_cost_commits_as_published(n: int, crashed: set[int], expected: str) -> None:
    """Giridharan et al., BeeGees (arXiv 2205.11652): two-chain commits per view, round-robin leaders."""
    assert chains.commits_per_view(n, crashed, Jolteon, EVEN) == fractions.Fraction(expected)


# --- view changes ----------------------------------------------------------------------------------------


def test_a_crashed_leader_costs_two_timeouts_and_quadratic_messages() -> None:
    """Leader 3 is down: view 2 ends without a certificate, then view 3; each by a Timeout from all to all."""
    run = world(4, parameters=EVEN)
    run.crash(3)
    while replica(run, 0).view < 4:
        run.advance(run.now_ns + MS)
    # View 2's block arrives after three delays; its leader, for whom that view began a delay before, gives up first,
    # then the others; a delay later all are in view 3, a timeout and a delay later in view 4.
    assert run.now_ns == 3 * DELAY + 100 * MS + DELAY + 100 * MS + DELAY
    table = {row["type"]: int(row["messages"]) for row in message_table(run)}
    assert table["Timeout"] == 2 * 3 * 3


def test_progress_resumes_after_a_crash_and_all_catch_up_after_a_restart() -> None:
    for node in range(7):
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
        before = run.desk[r.DECISIONS]  # all is normal again: two delays a block
        run.advance(42_000 * MS)
        assert run.desk[r.DECISIONS] - before == 100


@pytest.mark.parametrize("groups", [({0, 1}, {2, 3}), ({0}, {1, 2, 3}), ({0, 2}, {1, 3})])
def test_a_partition_heals(groups: tuple[set[int], set[int]]) -> None:
    run = world(4, links_change=True)
    run.advance(500 * MS)
    pairs = list(itertools.product(*groups))
    for a, b in pairs:
        run.cut(a, b)
    run.advance(60_000 * MS)
    alone = [host.height for host in run.hosts]
    for a, b in pairs:
        run.heal(a, b)
    run.advance(run.now_ns + 2 * JolteonParameters().view_timeout_max_ns)
    assert min(host.height for host in run.hosts) > max(alone) + 50
    assert agree(run)


def test_replicas_in_different_views_meet_again() -> None:
    """Every replica gives up another view: the one that is ahead draws the others after it."""
    run = world(7, parameters=EVEN)
    run.crash(5)
    run.crash(6)
    for node in range(5):
        found = replica(run, node)
        found.tc = TC(39 + 3 * node, 0, 5)
        found.give_up(40 + 3 * node)
    run.advance(5_000 * MS)
    assert run.desk[r.DECISIONS] > 20
    assert agree(run)


@pytest.mark.parametrize("seed", range(30))
def test_agreement_and_progress_with_jitter_loss_and_crashes(seed: int) -> None:
    """f crashed replicas come back one by one, datagrams are lost until then: no two decisions, then progress."""
    run = lossy_crashes((4, 7, 5, 10)[seed % 4], seed, Jolteon, BRIEF)
    before = run.desk[r.DECISIONS]
    run.advance(12_000 * MS)
    assert run.desk[r.DECISIONS] > before + 20
    assert agree(run)
    heights = [host.height for host in run.hosts]
    assert max(heights) - min(heights) <= 1


# --- safety ----------------------------------------------------------------------------------------------


class Noting(Jolteon):
    """Notes every vote cast by a handler; the lane stays open."""

    normal_cases = Jolteon.normal_cases
    cast: dict[tuple[int, int], set[int]]

    def may_vote(self, block: Block, tc: TC | None) -> bool:
        votes = super().may_vote(block, tc)
        if votes:
            self.cast.setdefault((self.context.me, block.view), set()).add(block.number)
        return votes


@pytest.mark.parametrize("lane", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_a_restarted_replica_never_votes_twice_in_a_view(seed: int, lane: bool) -> None:
    n = 4
    Noting.cast = {}
    run = world(n, protocol=Noting, lane=lane, seed=seed, parameters=BRIEF, **JITTER)
    chance = np.random.default_rng(seed)
    for _ in range(20):
        run.advance(run.now_ns + int(chance.integers(1, 400 * MS)))
        node = int(chance.integers(n))
        before = replica(run, node)
        run.crash(node)
        if chance.random() < 0.5:
            run.advance(run.now_ns + int(chance.integers(1, 900 * MS)))
        run.restart(node)
        after = replica(run, node)
        assert (after.voted_view, after.high) == (before.voted_view, before.high)
        assert after.view >= after.voted_view
    run.advance(run.now_ns + 5_000 * MS)
    assert all(len(numbers) == 1 for numbers in Noting.cast.values())
    assert agree(run)
    assert run.desk[r.DECISIONS] > 50


def test_too_small_a_quorum_is_seen_to_split() -> None:
    """A plain partition, and half of the votes for a certificate: `agree` can fail."""

    class Weak(Jolteon):
        def quorum(self) -> int:
            return self.context.n // 2

    run = world(8, protocol=Weak, links_change=True, parameters=EVEN)
    for a, b in itertools.product(range(4), range(4, 8)):
        run.cut(a, b)
    run.advance(10_000 * MS)
    assert not agree(run)


def test_vote_and_commit_rules() -> None:
    run = world(4)
    run.advance(10 * DELAY)
    found = replica(run, 0)
    high = found.high
    block = Block(10_000, high.block.height + 1, high.view + 3, 3, high.block)
    block.body = high
    assert not found.may_vote(block, None)  # a gap without a timeout certificate
    assert found.may_vote(block, TC(high.view + 2, high.view, 3))
    assert not found.may_vote(block, TC(high.view + 1, high.view, 3))  # of another view
    assert not found.may_vote(block, TC(high.view + 2, high.view + 1, 3))  # hides a higher certificate
    assert found.commits(high) is high.block.parent
    assert found.commits(QC(block.view, block, 3)) is None  # its parent is not of the view before


def test_an_idle_chain_waits_for_transactions_but_not_for_ever() -> None:
    counts = []
    for delay in (0, 100 * MS):
        run = world(
            4, parameters=JolteonParameters(empty_block_delay_ns=delay), backlog_bytes=0, gateways=1,
            site_of=np.array([0, 1, 2, 3, 0]), latency_ns=equal_delays(4),
        )  # fmt: skip
        run.advance(12_000 * MS - 1)
        counts.append(int(run.desk[r.PROPOSED]))
    assert counts == [600, 100]


def test_check_names_value_rule_and_remedy() -> None:
    Jolteon.check(JolteonParameters(), 4)
    with pytest.raises(ValueError, match=r"faults 2: needs n >= 3f \+ 1 = 7 voters, not 6; lower faults"):
        Jolteon.check(JolteonParameters(faults=2), 6)
