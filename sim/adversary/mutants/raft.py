"""Seeded bugs of Raft."""

from __future__ import annotations

import dataclasses

from sim.families.raft.rpc import RequestVote
from sim.families.raft.server import Role
from sim.protocol import Ballot, Block, Quorum, VoteType, upon
from sim.protocols.raft import ACK, PRE_VOTE, VOTE, Raft


class VotesOfAnotherTerm(Raft):
    """A majority of votes elects, whatever term they are of."""

    @upon(VOTE)
    def on_elected(self, ballot: Ballot) -> None:
        if self.role is Role.CANDIDATE and ballot.number == self.context.me:
            super().on_elected(self.context.votes.ballot(self.term, self.context.me))


class VoteForgotten(Raft):
    """Whom it voted for is not on disk."""

    def start(self) -> None:
        if self.context.disk.stable:
            self.context.disk.persist(voted_for=None)
        super().start()


class StaleLeaderCommits(Raft):
    """A follower obeys leaders of terms gone by."""

    def hear(self, sender: int, term: int) -> bool:
        if term < self.term:
            self.context.clock.made_progress()
            return True
        return super().hear(sender, term)


class CommitsOldTerms(Raft):
    """Section 5.4.2 is left out."""

    def may_commit(self, block: Block) -> bool:
        return True

    @upon(ACK)
    def on_stored(self, ballot: Ballot) -> None:
        super().on_stored(ballot)
        if self.role is Role.LEADER:
            self.count_replicas()


class AnyLogWillDo(Raft):
    """Section 5.4.1 is left out."""

    def log_is_up_to_date(self, last_index: int, last_term: int) -> bool:
        return True


class VotesTwice(Raft):
    """A vote is given to whoever asks."""

    def may_vote_for(self, candidate: int, utterance: RequestVote) -> bool:
        return super().may_vote_for(candidate, dataclasses.replace(utterance, term=self.term + 1))


class CommitsOnHalf(Raft):
    """Half of the servers, which is no majority where their number is even."""

    def quorum(self) -> int:
        return max(self.context.n // 2, 1)

    def quorums(self) -> dict[VoteType, Quorum]:
        majority = Quorum(self.context.n // 2 + 1)  # elections are sound
        return {ACK: Quorum(self.quorum()), VOTE: majority, PRE_VOTE: majority}
