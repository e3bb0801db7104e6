"""Chained HotStuff: what only it does (see test_certified_chains): delays, rules, patience, and a lying leader."""

from __future__ import annotations

import fractions
import itertools
from typing import Any

import pytest

from sim.host import Run
from sim.kernel import post
from sim.ledger import rows as ledger
from sim.protocol import Block
from sim.protocols.hotstuff import QC, VOTE, HotStuff, HotStuffParameters, Proposal
from tests import chains
from tests.chains import DELAY, MS, agree, decided, events, replica

FOREVER = 1 << 60
EVEN = HotStuffParameters(view_timeout_ns=100 * MS, view_timeout_max_ns=100 * MS)  # no back-off


def world(
    n: int, *, protocol: type[HotStuff] = HotStuff, parameters: HotStuffParameters | None = None, **more: Any
) -> Run:
    return chains.world(n, protocol, parameters or HotStuffParameters(), **more)


# --- laws ------------------------------------------------------------------------------------------------


def test_the_least_block_delay_is_paid_once_per_view() -> None:
    """The oracle of the published measurements: three periods, and three times the block delay."""
    run = world(4, parameters=HotStuffParameters(min_block_delay_ns=10 * MS))
    run.advance(2_000 * MS)
    times = [row.time_ns for row in events(run, ledger.EVENT_PROPOSED)]
    assert {b - a for a, b in itertools.pairwise(times)} == {2 * DELAY + 10 * MS}


def test_the_block_interval_spaces_the_blocks_of_one_proposer() -> None:
    run = world(4, interval_ns=200 * MS)
    run.advance(5_000 * MS)
    times: dict[int, list[int]] = {}
    for row in events(run, ledger.EVENT_PROPOSED):
        times.setdefault(row.node, []).append(row.time_ns)
    gaps = [b - a for of in times.values() for a, b in itertools.pairwise(of)]
    assert len(gaps) > 80
    assert min(gaps) == 200 * MS


# --- the fast path ---------------------------------------------------------------------------------------


def test_a_rule_override_is_not_bypassed_by_the_fast_path() -> None:
    class Reluctant(HotStuff):
        def safe_node(self, block: Block) -> bool:
            return block.view < 10

    run = world(4, protocol=Reluctant)
    run.advance(1_000 * MS)
    assert max(row.block for of in decided(run).values() for row in of) == 7


# --- D6: commits lost to plain crashes -------------------------------------------------------------------


def commits_per_view(n: int, crashed: set[int], protocol: type[HotStuff] = HotStuff) -> fractions.Fraction:
    return chains.commits_per_view(n, crashed, protocol, EVEN)


def test_a_commit_rule_that_ignores_gaps_is_told_apart() -> None:
    """Without dummy nodes the chain of four with one crash would commit: the paper's does not."""

    class Gapped(HotStuff):
        def commits(self, justify: QC) -> Block | None:
            two = justify.block
            one = None if two is None else two.body.block
            return None if one is None or one.body is None else one.body.block

    assert commits_per_view(4, {3}) == 0
    assert commits_per_view(4, {3}, protocol=Gapped) > 0


# --- view changes ----------------------------------------------------------------------------------------


def test_patience_grows_with_views_that_were_tried() -> None:
    """One view by itself, then a wish, said again after the first patience for as long as no quorum hears it."""
    run = world(4, parameters=HotStuffParameters(view_timeout_ns=100 * MS, view_timeout_max_ns=3_600_000 * MS))
    run.advance(1_000 * MS)
    for node in (2, 3):
        run.crash(node)
    run.advance(60_000 * MS)
    alone = replica(run, 0).pacemaker
    assert (alone.failures, alone.timeout_ns) == (2, 400 * MS)
    for node in (2, 3):
        run.restart(node)
    decided = run.run_state[ledger.DECISIONS]
    run.advance(run.now_ns + 2_000 * MS)
    assert run.run_state[ledger.DECISIONS] > decided + 10
    assert replica(run, 0).pacemaker.timeout_ns == 100 * MS


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
    assert run.run_state[ledger.DECISIONS] > 20
    assert agree(run)


# --- safety ----------------------------------------------------------------------------------------------


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
            context.vote(VOTE, context.votes.ballot(view, block.height, block), to=self.leader_of(view + 1))
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
    blocks = {row.block: row for row in events(run, ledger.EVENT_PROPOSED) if row.node == 0}
    assert len(blocks) > 20
    assert run.run_state[ledger.DECISIONS] > 50


def test_lock_and_certificate_rules() -> None:
    """safeNode's two rules, and chains that a gap interrupts."""
    run = world(4)
    run.advance(10 * DELAY)
    found = replica(run, 0)
    two = found.high.block
    assert two is not None
    assert found.locks(two.view + 1, found.high) is two.body
    assert found.commits(found.high) is two.body.block.parent
    assert found.locks(two.view + 2, found.high) is None
    assert found.commits(QC(two.view + 1, two, 3)) is None  # one view lies between it and the certificate below
    stray = Block(10_000, found.locked.block.height + 1, 99, 3, found.locked.block.parent)  # type: ignore[union-attr]
    stray.body = QC(found.locked.view, stray.parent, 3)
    assert not found.safe_node(stray)  # neither extends the lock nor has a higher certificate
    stray.body = QC(found.locked.view + 1, stray.parent, 3)
    assert found.safe_node(stray)
