"""What is said again on a link that loses messages is another message: it may get through where the first was lost."""

from __future__ import annotations

from sim.engine import entry
from sim.ledger import rows as ledger
from sim.protocol import BATCH, Quorum, VoteType, upon
from sim.protocols.pbft import Pbft
from tests.runs import MS, S, begin, scenario

LOSSY = {"network.links": "datagram", "network.loss": 0.5}
TO_ALL, TO_ONE = VoteType("TO_ALL", 48, decides=False), VoteType("TO_ONE", 48, decides=False)


class Repeating(Pbft):
    """Says one vote to all and one to replica 0, as often as it is told to."""

    votes = (*Pbft.votes, TO_ALL, TO_ONE)

    def quorums(self) -> dict[VoteType, Quorum]:
        return {**super().quorums(), TO_ALL: Quorum(4), TO_ONE: Quorum(4)}

    def say(self) -> None:
        ballot = self.context.votes.ballot(0, 1)
        self.context.vote(TO_ALL, ballot)
        self.context.vote(TO_ONE, ballot, 0)


def heard(run, vote: VoteType, node: int) -> set[int]:  # type: ignore[no-untyped-def]
    """Whose votes have come to a node."""
    ballot = run.world.run.block_store.ballot(0, 1, None)
    row, state = ballot.rows[vote], run.world.run.run_state
    return {voter for voter in range(4) if entry.voted(state, row, node, voter)}


def repeated(seed: int, times: int):  # type: ignore[no-untyped-def]
    run = begin(scenario(4, seed=seed, duration="10 s", **LOSSY), fast_path=False, protocol=Repeating)
    run.until(MS)
    for turn in range(times):
        for node in range(4):
            run.replica(node).say()
        run.until((turn + 1) * 50 * MS)
    return run


def test_a_vote_that_is_said_often_enough_comes() -> None:
    """Half of all copies are lost: of twelve votes some do at first, none after thirty repetitions."""
    lost = [{*range(4)} - heard(repeated(seed, 1), TO_ALL, node) for seed in range(3) for node in range(4)]
    assert any(lost)
    for seed in range(3):
        run = repeated(seed, 30)
        assert [heard(run, TO_ALL, node) for node in range(4)] == [{0, 1, 2, 3}] * 4
        assert heard(run, TO_ONE, 0) == {0, 1, 2, 3}


class Idle(Pbft):
    """Its primary proposes nothing."""

    @upon(BATCH)
    def propose(self) -> None:
        pass


def test_a_transaction_that_is_passed_on_often_enough_comes() -> None:
    """The primary holds all that came to replica 3, though half of the copies that pass it on are lost."""
    workload = [{"sites": ["3"], "kind": "open", "rate": "20 tx/s", "bytes": "100 B"}]
    patient = {"clients.resend_after": "1 s", "protocol": {"name": "pbft", "request_timeout": "1 h"}}
    run = begin(scenario(4, duration="60 s", workload=workload, **patient, **LOSSY), protocol=Idle)
    run.until(60 * S)
    run_state = run.world.run.engine.run_state
    old = [
        row
        for row, tx in enumerate(run_state[ledger.TX].reshape(-1, ledger.TX_WIDTH))
        if tx[ledger.TX_REFS] > 0 and tx[ledger.TX_SUBMIT] < 2 * S
    ]
    assert len(old) > 10
    assert all(int(run_state[ledger.TX_HELD][row]) & 1 for row in old)
