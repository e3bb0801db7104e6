"""Double voting: the replica casts each of its votes for every rival too.

A rival is another ballot of the same view and number (another block), or of the same view where ballots have no
block (another candidate). Rivals that come up later get the vote then.
"""

from __future__ import annotations

from collections.abc import Iterable

from sim.adversary.wrapper import Behaviour, Utterance
from sim.kernel import run_state as kernel
from sim.kernel import tally as tallies
from sim.protocol import Ballot, VoteType

_KEPT = 256  # views and numbers remembered

Votes = dict[VoteType, tuple[Ballot, int]]  # the ballot, and to whom
Cast = dict[tuple[int, int], Votes]  # by view and number


class DoubleVoting(Behaviour):
    """Votes for rivals. `messages`: vote types, none for all."""

    def __init__(self, at_ns: int, until_ns: int | None, messages: Iterable[str]) -> None:
        super().__init__(at_ns, until_ns)
        self.messages = frozenset(messages)
        self.cast: Cast = {}  # in ballots with a block
        self.blank: Cast = {}  # in ballots without one

    def outgoing(self, utterance: Utterance) -> Iterable[Utterance]:
        vote, ballot = utterance.vote, utterance.ballot
        if vote is not None and ballot is not None and (not self.messages or utterance.name in self.messages):
            cast = self.blank if ballot.block is None else self.cast
            cast.setdefault((ballot.view, ballot.number), {})[vote] = ballot, utterance.meant_for
            if len(cast) > 2 * _KEPT:
                self._forget(cast)
        return (utterance,)

    def _forget(self, cast: Cast) -> None:
        """Let go of votes in ballots that are over, and of the oldest if there are still too many."""
        known = self.seat.host.run.block_store.ballots
        live = [(place, votes) for place, votes in cast.items() if place in known][-_KEPT:]
        cast.clear()
        cast.update(live)

    def looks(self) -> None:
        tree = (
            self.seat.host.run.block_store
        )  # asked after all that the replica does: it must cost little without rivals
        for place in [place for place in tree.rivalled if place in self.cast]:
            rivals = [other for other in tree.ballots[place] if other.block is not None]
            self._vote_for(rivals, self.cast[place])
        for place, votes in [(place, votes) for place, votes in self.blank.items() if place in tree.ballots]:
            self._vote_for(list(tree.blank.get(place[0], ())), votes, stood=True)

    def _vote_for(self, rivals: list[Ballot], votes: Votes, *, stood: bool = False) -> None:
        """Cast these votes for these rivals too; `stood`: if somebody has voted for them already."""
        for vote, (ballot, to) in votes.items():
            for rival in rivals:
                if rival is not ballot and (not stood or vote in rival.rows):
                    if not self.seat.host.votes.has_voted(vote, rival):
                        self._vote(vote, rival, to)

    def _vote(self, vote: VoteType, rival: Ballot, to: int) -> None:
        seat, host = self.seat, self.seat.host
        if to >= 0 and vote in rival.rows:
            to = int(host.run.engine.run_state[kernel.TALLY][rival.rows[vote] * tallies.ROW + tallies.OWNER])
        elif to >= 0 and rival.block is None:
            return  # nobody stands there to be elected
        self.acts += 1
        gated = host.run.quorums[vote].gated
        host.vote_to(vote, rival, to, (), own=True, gate=gated)
        receivers = seat.receivers(to)
        seat.carry_out(Utterance(vote.name, rival.view, receivers, vote=vote, ballot=rival, meant_for=to))
