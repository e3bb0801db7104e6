"""Basic HotStuff: its exact laws, its phases and locks, its rules in trouble, and its fast lane."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sim.engine import lanes, loop
from sim.host import Costs, Run
from sim.kernel import desk as d
from sim.ledger import rows as r
from sim.measure.metrics import message_table
from sim.protocol import Block, Quorum, Signing, VoteType
from sim.protocols.hotstuff_basic import (
    COMMITTED,
    NEXT_VIEW,
    PREPARE_VOTE,
    QC,
    HotStuffBasic,
    HotStuffBasicParameters,
    PreCommit,
)
from tests import chains
from tests.chains import (
    CASES,
    DELAY,
    JITTER,
    MS,
    agree,
    decided,
    events,
    lane_and_handlers,
    lossy_crashes,
    replica,
)

BRIEF = HotStuffBasicParameters(view_timeout_ns=150 * MS, view_timeout_max_ns=1_200 * MS)


def world(n: int, *, protocol: type[HotStuffBasic] = HotStuffBasic, **more: object) -> Run:
    return chains.world(n, protocol, more.pop("parameters", HotStuffBasicParameters()), **more)


# --- laws ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lane", [True, False])
@pytest.mark.parametrize("n", [4, 5, 7, 31])
def test_messages_period_and_latency_follow_the_laws(n: int, lane: bool) -> None:
    """7(n-1) messages and n-1 NEW-VIEWs a block; six delays at the leader, seven elsewhere, eight a block."""
    run = world(n, lane=lane)
    blocks = 30
    assert run.advance(8 * DELAY * blocks - 1) == loop.UNTIL
    proposed = {row[3]: row for row in events(run, r.EVENT_PROPOSED)}
    assert len(proposed) == blocks
    assert run.desk[d.SENT] == 8 * (n - 1) * blocks
    for view, row in enumerate(proposed.values(), 1):
        assert (row[0], row[2], row[4], row[5]) == (8 * DELAY * (view - 1), view % n, view, view)
    for node, rows in decided(run).items():
        assert len(rows) == blocks
        for time, number, _, view in rows:
            assert time - proposed[number][0] == (6 if node == view % n else 7) * DELAY


def test_unequal_delays_make_each_phase_an_order_statistic() -> None:
    """Three times the q-th smallest of d(L, i) + d(i, L); then the q-th smallest of d(L, i) + d(i, L')."""
    n, q = 7, 5
    latency = np.random.default_rng(3).integers(1 * MS, 40 * MS, (n, n))
    np.fill_diagonal(latency, 0)
    run = world(n, latency_ns=latency)
    run.advance(6_000 * MS)
    times = [row[0] for row in events(run, r.EVENT_PROPOSED)]
    assert len(times) > 20
    for view, (before, after) in enumerate(itertools.pairwise(times), 1):
        old, new = view % n, (view + 1) % n
        phase = sorted(int(latency[old, i] + latency[i, old]) for i in range(n))[q - 1]
        following = sorted(int(latency[old, i] + latency[i, new]) for i in range(n))[q - 1]
        assert after - before == 3 * phase + following


def test_certificates_cost_what_the_signatures_say() -> None:
    block = Block(1, 1, 1, 1, None)
    assert PreCommit(QC(1, block, 3)).size_bytes(Signing(4)) == 48 + 48 + 3 * 66
    assert PreCommit(QC(1, block, 3)).size_bytes(Signing(4, 64, "threshold")) == 48 + 48 + 64


@pytest.mark.parametrize(("certificates", "size", "verify"), [("list", 112 + 198, 40), ("threshold", 112 + 64, 20)])
def test_a_vote_that_carries_a_certificate_pays_for_it(certificates: str, size: int, verify: int) -> None:
    """NEXT_VIEW shows the prepareQC: three signatures, listed or combined, sent and verified with the vote's own."""
    costs = Costs(verify_ns=10, certificates=certificates)  # type: ignore[arg-type]
    run = world(4, costs=costs)
    table = run.engine.desk[lanes.KIND_COST].reshape(-1, lanes.KIND_COST_WIDTH)
    row, plain = table[run.kinds[NEXT_VIEW]], table[run.kinds[PREPARE_VOTE]]
    assert (row[lanes.COST_SIZE], row[lanes.COST_VERIFY_NS]) == (size, verify)
    assert (plain[lanes.COST_SIZE], plain[lanes.COST_VERIFY_NS]) == (112, 10)


# --- the fast lane ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [4, 7])
@pytest.mark.parametrize("case", CASES)
def test_fast_lane_and_handlers_give_the_same_events(n: int, case: str) -> None:
    fast, slow = lane_and_handlers(n, HotStuffBasic, BRIEF, case)
    assert fast == slow


# --- phases and locks ------------------------------------------------------------------------------------


def test_replicas_lock_upon_the_precommit_qc_and_no_earlier() -> None:
    """Replica 0 hears PreCommit after three delays and Commit after five."""
    run = world(4)
    seen = []
    for delays in (1, 3, 5, 7):
        run.advance(delays * DELAY)
        found = replica(run, 0)
        seen.append((found.high.view, found.locked.view, run.hosts[0].height))
    assert seen == [(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1)]


def test_safe_node_follows_the_lock_or_a_higher_qc() -> None:
    run = world(4)
    run.advance(5 * DELAY)  # all are locked on the first block
    found = replica(run, 0)
    assert found.stage == (1, COMMITTED)
    lock = found.locked
    stray = Block(10_000, 1, 9, 1, None)
    stray.body = QC(0, None, 0)
    assert not found.may_vote(stray)  # on the genesis block, beside the lock
    child = Block(10_001, 2, 9, 1, lock.block)
    child.body = lock
    assert found.may_vote(child)
    stray.body = QC(lock.view + 1, None, 3)
    assert found.may_vote(stray)  # a higher QC shows that the lock was not decided
    child.view = 1
    assert not found.may_vote(child)  # voted in this view


# --- trouble ---------------------------------------------------------------------------------------------


def test_a_crashed_leader_costs_one_timeout_and_no_commit() -> None:
    """Views 0, 1 and 2 of four commit; the one of the crashed leader ends by NEW-VIEW letters to the next."""
    parameters = HotStuffBasicParameters(view_timeout_ns=200 * MS, view_timeout_max_ns=200 * MS)
    run = world(4, parameters=parameters)
    run.crash(3)
    run.advance(10_000 * MS)
    views = [view for _, _, _, view in decided(run)[1]]
    assert [view for view in range(1, views[-1]) if view not in views] == list(range(3, views[-1], 4))
    expired = len([view for view in range(1, views[-1]) if view % 4 == 3])
    table = {row["type"]: int(row["messages"]) for row in message_table(run)}
    assert 0 <= table["NewView"] - 2 * expired <= 2  # the two others write to the leader of the next view


@pytest.mark.parametrize("seed", range(30))
def test_agreement_and_progress_with_jitter_loss_and_crashes(seed: int) -> None:
    """f crashed replicas come back one by one, datagrams are lost until then: no two decisions, then progress."""
    run = lossy_crashes((4, 7, 5, 10)[seed % 4], seed, HotStuffBasic, BRIEF)
    before = run.desk[r.DECISIONS]
    run.advance(12_000 * MS)
    assert run.desk[r.DECISIONS] > before + 20
    assert agree(run)
    heights = [host.height for host in run.hosts]
    assert max(heights) - min(heights) <= 1


@pytest.mark.parametrize("lane", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_a_restarted_replica_keeps_its_votes_and_its_lock(seed: int, lane: bool) -> None:
    class Noting(HotStuffBasic):
        normal_cases = HotStuffBasic.normal_cases

        def may_vote(self, block: Block) -> bool:
            votes = super().may_vote(block)
            if votes:
                cast.setdefault((self.context.me, block.view), set()).add(block.number)
            return votes

    cast: dict[tuple[int, int], set[int]] = {}
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
        assert after.stage == before.stage
        assert (after.high, after.locked) == (before.high, before.locked)
    run.advance(run.now_ns + 5_000 * MS)
    assert all(len(numbers) == 1 for numbers in cast.values())
    assert agree(run)
    assert run.desk[r.DECISIONS] > 30


def test_too_small_a_quorum_is_seen_to_split() -> None:
    class Weak(HotStuffBasic):
        def quorum(self) -> int:
            return self.context.n // 2

        def quorums(self) -> dict[VoteType, Quorum]:
            return {vote: Quorum(self.quorum()) for vote in self.votes}

    run = world(8, protocol=Weak, links_change=True, parameters=BRIEF)
    for a, b in itertools.product(range(4), range(4, 8)):
        run.cut(a, b)
    run.advance(10_000 * MS)
    assert not agree(run)
