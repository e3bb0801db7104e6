"""Basic HotStuff: what only it does (see test_certified_chains): its phases, locks, and votes with certificates."""

from __future__ import annotations

import pytest

from sim.engine import votes
from sim.host import Costs, Run
from sim.measure.metrics import message_table
from sim.protocol import Block, Signing
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
    DELAY,
    MS,
    decided,
    replica,
)

BRIEF = HotStuffBasicParameters(view_timeout_ns=150 * MS, view_timeout_max_ns=1_200 * MS)


def world(n: int, *, protocol: type[HotStuffBasic] = HotStuffBasic, **more: object) -> Run:
    return chains.world(n, protocol, more.pop("parameters", HotStuffBasicParameters()), **more)


# --- laws ------------------------------------------------------------------------------------------------


def test_certificates_cost_what_the_signatures_say() -> None:
    block = Block(1, 1, 1, 1, None)
    assert PreCommit(QC(1, block, 3)).size_bytes(Signing(4)) == 48 + 48 + 3 * 66
    assert PreCommit(QC(1, block, 3)).size_bytes(Signing(4, 64, "threshold")) == 48 + 48 + 64


@pytest.mark.parametrize(("certificates", "size", "verify"), [("list", 112 + 198, 40), ("threshold", 112 + 64, 20)])
def test_a_vote_that_carries_a_certificate_pays_for_it(certificates: str, size: int, verify: int) -> None:
    """NEXT_VIEW shows the prepareQC: three signatures, listed or combined, sent and verified with the vote's own."""
    costs = Costs(verify_ns=10, certificates=certificates)  # type: ignore[arg-type]
    run = world(4, costs=costs)
    table = run.engine.run_state[votes.KIND_COST].reshape(-1, votes.KIND_COST_WIDTH)
    row, plain = table[run.kinds[NEXT_VIEW]], table[run.kinds[PREPARE_VOTE]]
    assert (row[votes.COST_SIZE], row[votes.COST_VERIFY_NS]) == (size, verify)
    assert (plain[votes.COST_SIZE], plain[votes.COST_VERIFY_NS]) == (112, 10)


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
    """Views 0, 1 and 2 of four commit; the one of the crashed leader ends by NEW-VIEW messages to the next."""
    parameters = HotStuffBasicParameters(view_timeout_ns=200 * MS, view_timeout_max_ns=200 * MS)
    run = world(4, parameters=parameters)
    run.crash(3)
    run.advance(10_000 * MS)
    views = [row.view for row in decided(run)[1]]
    assert [view for view in range(1, views[-1]) if view not in views] == list(range(3, views[-1], 4))
    expired = len([view for view in range(1, views[-1]) if view % 4 == 3])
    table = {row["type"]: int(row["messages"]) for row in message_table(run)}
    assert 0 <= table["NewView"] - 2 * expired <= 2  # the two others write to the leader of the next view
