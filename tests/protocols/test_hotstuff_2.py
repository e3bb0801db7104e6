"""HotStuff-2: what only it does (see test_certified_chains): the wait for a hidden lock, and its voting rule."""

from __future__ import annotations

import pytest

from sim.host import Run
from sim.ledger import rows as ledger
from sim.protocol import Ballot, Block, Signing
from sim.protocols.hotstuff_2 import QC, HotStuff2, HotStuff2Parameters, Prepare, Propose
from tests import chains
from tests.chains import (
    DELAY,
    MS,
    agree,
    decided,
    equal_delays,
    events,
    replica,
)

BRIEF = HotStuff2Parameters(view_timeout_ns=150 * MS, view_timeout_max_ns=1_200 * MS, delta_ns=40 * MS)


def world(
    n: int, *, protocol: type[HotStuff2] = HotStuff2, parameters: HotStuff2Parameters | None = None, **more: object
) -> Run:
    return chains.world(n, protocol, parameters or HotStuff2Parameters(), **more)


# --- laws ------------------------------------------------------------------------------------------------


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
def test_a_hidden_lock_makes_honest_views_fail_only_without_delta(protocol: type[HotStuff2], succeeds: bool) -> None:
    """Each view that honest replica 1 leads follows one in which replica 2 alone was locked.

    Replica 2's NEW-VIEW reaches replica 1 last of all. The network is timely and nothing else fails.
    """
    latency = equal_delays(4)
    latency[2, 1] = 15 * MS
    parameters = HotStuff2Parameters(view_timeout_ns=200 * MS, view_timeout_max_ns=200 * MS, delta_ns=40 * MS)
    run = world(4, protocol=protocol, parameters=parameters, latency_ns=latency)
    run.advance(10_000 * MS)
    led = {row.view for row in events(run, ledger.EVENT_PROPOSED) if row.node == 1 and row.view > 1}
    final = {row.view for of in decided(run).values() for row in of}
    assert len(led) > 8
    assert len(led & final) >= len(led) - 1 if succeeds else not led & final
    assert agree(run)


def test_a_leader_with_a_certificate_of_the_view_before_does_not_wait() -> None:
    """Responsive: with Delta just below the timeout, blocks still come every four delays."""
    run = world(4, parameters=HotStuff2Parameters(delta_ns=1_999 * MS))
    run.advance(4_000 * MS - 1)
    assert len(events(run, ledger.EVENT_PROPOSED)) == 100


# --- trouble ---------------------------------------------------------------------------------------------


def test_one_crash_of_four_costs_time_but_no_commits() -> None:
    """Unlike in chains, a block is final within its own view: all views but those around the crash commit."""
    run = world(4, parameters=BRIEF)
    run.crash(3)
    run.advance(20_000 * MS)
    final = {row.view % 4 for row in decided(run)[1]}
    assert final == {0, 1, 2}
    assert agree(run)


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
    with pytest.raises(ValueError, match="delta: 3 s must be below view_timeout: 2 s"):
        HotStuff2.check(HotStuff2Parameters(delta_ns=3_000 * MS), 4)
