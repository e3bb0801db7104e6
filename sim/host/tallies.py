"""Ballots and where their votes are counted: the rows of the engine's tallies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.engine import entry
from sim.kernel import chance, tally
from sim.kernel import run_state as kernel
from sim.protocol import ALL, Ballot, Quorum, VoteType

if TYPE_CHECKING:
    from sim.host.context import ReplicaContext
    from sim.host.run import Run


def threshold(quorum: Quorum) -> int:
    """What completes a tally: so many votes, and the condition if it is gated."""
    return quorum.votes + (tally.GATE if quorum.gated else 0)


def _ballot_key(ballot: Ballot) -> int:
    """Identity of a ballot: the key of its votes' jitter."""
    return chance.draw(ballot.view, ballot.number, -1 if ballot.block is None else ballot.block.number) >> 1


class Tallies:
    """The tally rows of one run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._row_quorums: dict[int, Quorum] = {}  # by tally row, where members change

    def row(self, ballot: Ballot, vote: VoteType, to: int, host: ReplicaContext) -> int:
        """The tally row of a ballot's votes, opened if new. `host`: who votes or counts."""
        row = ballot.rows.get(vote)
        if row is None:
            run = self.run
            quorum = run.quorums[vote]
            if run.members_change and host.replica is not None:
                quorum = host.replica.quorum_of(vote, ballot)
            thresholds = (quorum.early, threshold(quorum), 0) if quorum.early else (threshold(quorum), 0, 0)
            key = _ballot_key(ballot)
            wide = run.messages.target(to) < 0  # a voter of several seats counts at each of them
            row = run.ask(entry.tally_row, run.kinds[vote], key, int(wide), -1 if wide else to, *thresholds)
            ballot.rows[vote] = row
            run.block_store.owner_of_row[row] = (ballot, vote)
            if run.members_change:
                self._row_quorums[row] = quorum
                run.engine.weigh(row, quorum.weights or (1,) * run.engine.voters)
            if run.ruled:
                run.engine.run_state[kernel.TALLY_PLACE][2 * row : 2 * row + 2] = ballot.view, ballot.number
            if vote.any_value is not None:
                parent = self.row(run.block_store.any_value(ballot), vote.any_value, ALL, host)
                run.engine.run_state[kernel.TALLY][row * tally.ROW + tally.PARENT] = parent
        return row

    def quorum_of(self, row: int, vote: VoteType) -> Quorum:
        """What completes a tally."""
        return self._row_quorums.get(row) or self.run.quorums[vote]

    def lay_any_value(self, ballot: Ballot, vote: VoteType, row: int, guard: int) -> None:
        """The any-value tally of a row that the fast path has laid out."""
        over, quorum = self.run.block_store.any_value(ballot), self.run.quorums[vote]
        assert ballot.block is not None
        kind, key, block = self.run.kinds[vote], _ballot_key(over), ballot.block.row
        parent = self.run.ask(entry.any_value, row, kind, key, quorum.early, quorum.votes, guard, block)
        over.rows[vote] = parent
        self.run.block_store.owner_of_row[parent] = (over, vote)
