"""HotStuff-2: its exact laws, the wait for a hidden lock, its rules in trouble, and its fast lane."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sim.engine import loop
from sim.host import Run
from sim.kernel import desk as d
from sim.ledger import rows as r
from sim.protocol import Ballot, Block, Signing
from sim.protocols.hotstuff_2 import QC, HotStuff2, HotStuff2Parameters, Prepare, Propose
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

BRIEF = HotStuff2Parameters(view_timeout_ns=150 * MS, view_timeout_max_ns=1_200 * MS, delta_ns=40 * MS)


def world(
    n: int, *, protocol: type[HotStuff2] = HotStuff2, parameters: HotStuff2Parameters | None = None, **more: object
) -> Run:
    return chains.world(n, protocol, parameters or HotStuff2Parameters(), **more)


# --- laws ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lane", [True, False])
@pytest.mark.parametrize("n", [4, 5, 7, 31])
def test_messages_period_and_latency_follow_the_laws(n: int, lane: bool) -> None:
    """4(n-1) messages and four delays a block: final after four at the next leader, five elsewhere."""
    run = world(n, lane=lane)
    blocks = 60
    assert run.advance(4 * DELAY * blocks - 1) == loop.UNTIL
    proposed = {row[3]: row for row in events(run, r.EVENT_PROPOSED)}
    assert len(proposed) == blocks
    assert run.desk[d.SENT] == 4 * (n - 1) * blocks
    for view, row in enumerate(proposed.values(), 1):
        assert (row[0], row[2], row[4], row[5]) == (4 * DELAY * (view - 1), view % n, view, view)
    rows = decided(run)
    for node in range(n):
        assert len(rows[node]) >= blocks - 2
        for time, number, _, view in rows[node]:
            delays = 4 if node == (view + 1) % n else 5
            assert time - proposed[number][0] == delays * DELAY


def test_unequal_delays_make_the_period_two_order_statistics() -> None:
    """Certificate: q-th smallest of d(L, i) + d(i, L). Then the next proposal: q-th smallest of d(L, i) + d(i, L')."""
    n, q = 7, 5
    latency = np.random.default_rng(2).integers(1 * MS, 40 * MS, (n, n))
    np.fill_diagonal(latency, 0)
    run = world(n, latency_ns=latency)
    run.advance(4_000 * MS)
    times = [row[0] for row in events(run, r.EVENT_PROPOSED)]
    assert len(times) > 30
    for view, (before, after) in enumerate(itertools.pairwise(times), 1):
        old, new = view % n, (view + 1) % n
        certified = sorted(int(latency[old, i] + latency[i, old]) for i in range(n))[q - 1]
        twice = sorted(int(latency[old, i] + latency[i, new]) for i in range(n))[q - 1]
        assert after - before == certified + twice


def test_certificates_cost_what_the_signatures_say() -> None:
    block = Block(1, 1, 1, 1, None)
    block.body = QC(0, None, 0)
    certificate = QC(1, block, 3)
    assert Prepare(certificate).size_bytes(Signing(4)) == 48 + 48 + 3 * 66
    assert Prepare(certificate).size_bytes(Signing(4, 48, "aggregate")) == 48 + 48 + 48 + 1
    above = Block(2, 2, 2, 2, block)
    above.body = certificate
    assert Propose(2, above, certificate).certificates() == (3, 3)


# --- the hidden lock -------------------------------------------------------------------------------------


class Hider(HotStuff2):
    """Replica 0 shows its certificates to replica 2 only, and votes for nobody's blocks but its own."""

    def may_vote(self, block: Block) -> bool:
        return super().may_vote(block) and (self.context.me != 0 or block.proposer == 0)

    def on_votes(self, ballot: Ballot) -> None:
        if self.context.me == 0:
            self.context.send(2, Prepare(QC(ballot.view, ballot.block, self.quorum())))
        else:
            super().on_votes(ballot)


class Hasty(Hider):
    """... and leaders do not wait for Delta."""

    def status_wait_ns(self) -> int:
        return 0


@pytest.mark.parametrize(("protocol", "succeeds"), [(Hider, True), (Hasty, False)])
def test_a_hidden_lock_makes_honest_views_fail_only_without_delta(
    protocol: type[HotStuff2], succeeds: bool
) -> None:
    """Each view that honest replica 1 leads follows one in which replica 2 alone was locked.

    Replica 2's NEW-VIEW reaches replica 1 last of all. The network is timely and nothing else fails.
    """
    latency = equal_delays(4)
    latency[2, 1] = 15 * MS
    parameters = HotStuff2Parameters(view_timeout_ns=200 * MS, view_timeout_max_ns=200 * MS, delta_ns=40 * MS)
    run = world(4, protocol=protocol, parameters=parameters, latency_ns=latency)
    run.advance(10_000 * MS)
    led = {row[5] for row in events(run, r.EVENT_PROPOSED) if row[2] == 1 and row[5] > 1}
    final = {view for of in decided(run).values() for _, _, _, view in of}
    assert len(led) > 8
    assert len(led & final) >= len(led) - 1 if succeeds else not led & final
    assert agree(run)


def test_a_leader_with_a_certificate_of_the_view_before_does_not_wait() -> None:
    """Responsive: with Delta just below the timeout, blocks still come every four delays."""
    run = world(4, parameters=HotStuff2Parameters(delta_ns=1_999 * MS))
    run.advance(4_000 * MS - 1)
    assert run.desk[r.PROPOSED] == 100


# --- the fast lane ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [4, 7])
@pytest.mark.parametrize("case", CASES)
def test_fast_lane_and_handlers_give_the_same_events(n: int, case: str) -> None:
    fast, slow = lane_and_handlers(n, HotStuff2, BRIEF, case)
    assert fast == slow


# --- trouble ---------------------------------------------------------------------------------------------


def test_one_crash_of_four_costs_time_but_no_commits() -> None:
    """Unlike in chains, a block is final within its own view: all views but those around the crash commit."""
    run = world(4, parameters=BRIEF)
    run.crash(3)
    run.advance(20_000 * MS)
    final = {view % 4 for _, _, _, view in decided(run)[1]}
    assert final == {0, 1, 2}
    assert agree(run)


@pytest.mark.parametrize("seed", range(30))
def test_agreement_and_progress_with_jitter_loss_and_crashes(seed: int) -> None:
    """f crashed replicas come back one by one, datagrams are lost until then: no two decisions, then progress."""
    run = lossy_crashes((4, 7, 5, 10)[seed % 4], seed, HotStuff2, BRIEF)
    before = run.desk[r.DECISIONS]
    run.advance(12_000 * MS)
    assert run.desk[r.DECISIONS] > before + 20
    assert agree(run)
    heights = [host.height for host in run.hosts]
    assert max(heights) - min(heights) <= 1


class Noting(HotStuff2):
    """Notes every vote cast by a handler; the lane stays open."""

    normal_cases = HotStuff2.normal_cases
    cast: dict[tuple[int, int], set[int]]

    def may_vote(self, block: Block) -> bool:
        votes = super().may_vote(block)
        if votes:
            self.cast.setdefault((self.context.me, block.view), set()).add(block.number)
        return votes


@pytest.mark.parametrize("lane", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_a_restarted_replica_never_votes_twice_and_keeps_its_lock(seed: int, lane: bool) -> None:
    Noting.cast = {}
    run = world(4, protocol=Noting, lane=lane, seed=seed, parameters=BRIEF, **JITTER)
    chance = np.random.default_rng(seed)
    for _ in range(20):
        run.advance(run.now_ns + int(chance.integers(1, 400 * MS)))
        node = int(chance.integers(4))
        before = replica(run, node)
        run.crash(node)
        if chance.random() < 0.5:
            run.advance(run.now_ns + int(chance.integers(1, 900 * MS)))
        run.restart(node)
        after = replica(run, node)
        assert (after.voted_view, after.confirmed_view) == (before.voted_view, before.confirmed_view)
        assert after.locked.view >= before.locked.view
    run.advance(run.now_ns + 5_000 * MS)
    assert all(len(numbers) == 1 for numbers in Noting.cast.values())
    assert agree(run)
    assert run.desk[r.DECISIONS] > 40


def test_too_small_a_quorum_is_seen_to_split() -> None:
    class Weak(HotStuff2):
        def quorum(self) -> int:
            return self.context.n // 2

    run = world(8, protocol=Weak, links_change=True, parameters=BRIEF)
    for a, b in itertools.product(range(4), range(4, 8)):
        run.cut(a, b)
    run.advance(10_000 * MS)
    assert not agree(run)


def test_voting_rule() -> None:
    run = world(4)
    run.advance(10 * DELAY)
    found = replica(run, 0)
    lock = found.locked
    block = Block(10_000, lock.block.height + 1, found.voted_view + 1, 1, lock.block)
    block.body = lock
    assert found.may_vote(block)
    block.body = QC(lock.view - 1, lock.block.parent, 3)
    assert not found.may_vote(block)  # ranks below the lock
    block.body, block.view = lock, found.voted_view
    assert not found.may_vote(block)  # voted in this view


def test_check_names_value_rule_and_remedy() -> None:
    HotStuff2.check(HotStuff2Parameters(), 4)
    with pytest.raises(ValueError, match="delta 3000000000 ns: must be below view_timeout 2000000000 ns"):
        HotStuff2.check(HotStuff2Parameters(delta_ns=3_000 * MS), 4)
