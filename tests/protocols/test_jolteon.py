"""Jolteon: what only it does (see test_certified_chains): leaders of several views, timeout certificates, votes."""

from __future__ import annotations

import sim
from sim.host import Run
from sim.ledger import rows as ledger
from sim.measure.metrics import message_table
from sim.protocol import Block, Signing
from sim.protocols.jolteon import QC, TC, Jolteon, JolteonParameters, Proposal, Timeout
from tests import chains
from tests.chains import (
    DELAY,
    MS,
    agree,
    events,
    replica,
)
from tests.runs import scenario

EVEN = JolteonParameters(view_timeout_ns=100 * MS, view_timeout_max_ns=100 * MS)  # no back-off
BRIEF = JolteonParameters(view_timeout_ns=150 * MS, view_timeout_max_ns=1_200 * MS)


def world(
    n: int, *, protocol: type[Jolteon] = Jolteon, parameters: JolteonParameters | None = None, **more: object
) -> Run:
    return chains.world(n, protocol, parameters or JolteonParameters(), **more)


# --- laws ------------------------------------------------------------------------------------------------


def test_a_leader_may_lead_several_views_in_a_row() -> None:
    run = world(4, parameters=JolteonParameters(leader_views=3))
    run.advance(1_000 * MS)
    leaders = [row.node for row in events(run, ledger.EVENT_PROPOSED)]
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
    assert run.run_state[ledger.DECISIONS] > 20
    assert agree(run)


def test_a_leader_that_comes_back_within_its_view_proposes_no_second_block() -> None:
    """Leader 3 is down, so 0 leads view 4 by a timeout certificate; it proposes, crashes and comes back."""
    run = world(4, parameters=EVEN)
    run.crash(3)
    while (0, 4) not in leases(run):
        run.advance(run.now_ns + MS)
    run.crash(0)
    run.advance(run.now_ns + 2 * MS)
    run.restart(0)
    run.advance(run.now_ns + 20 * DELAY)
    assert len(leases(run)) == len(set(leases(run)))


def leases(run: Run) -> list[tuple[int, int]]:
    """Who proposed a block in which view."""
    return [(node, view) for _, _, node, _, _, view, *_ in events(run, ledger.EVENT_PROPOSED)]


# --- safety ----------------------------------------------------------------------------------------------


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


def test_fetched_blocks_take_a_replica_to_their_view_whatever_the_sender_claims() -> None:
    """Found by a hunt: after a restart, blocks from a peer that shows an older certificate than they carry."""
    result = sim.run(
        scenario(
            4,
            protocol={"name": "jolteon", "view_timeout": "200 ms", "view_timeout_max": "400 ms"},
            duration="2 s",
            block={"max_transactions": 10, "interval": "50 ms"},
            corrupted=[{"nodes": [0], "behaviour": "understating", "older": 1}],
            faults=[{"at": at, "for": "50 ms", "crash": {"nodes": [3]}} for at in ("1100 ms", "1700 ms")]
            + [{"at": "1400 ms", "for": "50 ms", "crash": {"nodes": [1]}}],
        )
    )
    assert result.checks["invariants"] == "pass", result.violations


def test_a_timeout_certificate_needs_a_quorum() -> None:
    found = replica(world(4), 0)
    assert found.valid_tc(TC(2, 1, 3))
    assert not found.valid_tc(TC(2, 1, 2))
