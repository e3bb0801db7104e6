"""Double voting: the replica casts each of its votes for every rival too.

A rival is another ballot of the same view and number (another block), or of the same view where ballots have no
block (another candidate). Rivals that come up later get the vote then.
"""

from __future__ import annotations

from collections.abc import Iterable

from sim.adversary.wrapper import Behaviour, Message
from sim.kernel.desk import TALLY
from sim.kernel.tally import OWNER, ROW
from sim.protocol import Ballot, VoteType

_KEPT = 256  # votes remembered


class DoubleVoting(Behaviour):
    """Votes for rivals. `messages`: vote types, none for all."""

    def __init__(self, at_ns: int, until_ns: int | None, messages: Iterable[str]) -> None:
        super().__init__(at_ns, until_ns)
        self.messages = frozenset(messages)
        self.cast: dict[tuple[VoteType, int, int], tuple[Ballot, int]] = {}  # type, view, number -> ballot, to

    def outgoing(self, message: Message) -> Iterable[Message]:
        if message.vote is not None and message.ballot is not None:
            if not self.messages or message.name in self.messages:
                ballot = message.ballot
                self.cast[message.vote, ballot.view, ballot.number] = ballot, message.meant_for
                if len(self.cast) > _KEPT:
                    del self.cast[next(iter(self.cast))]
        return (message,)

    def looks(self) -> None:
        known = self.seat.host.run.tree.ballots
        candidates: dict[int, list[Ballot]] | None = None  # ballots without a block, by view
        for (vote, view, number), (ballot, to) in list(self.cast.items()):
            if (view, number) not in known:
                del self.cast[vote, view, number]  # over
                continue
            if ballot.block is not None:
                rivals = [other for other in known[view, number] if other.block is not None]
            else:
                candidates = candidates or _without_block(known.values())
                rivals = [other for other in candidates.get(view, ()) if vote in other.rows]  # somebody votes there
            for rival in rivals:
                if rival is not ballot and not self.seat.host.has_voted(vote, rival):
                    self._vote(vote, rival, to)

    def _vote(self, vote: VoteType, rival: Ballot, to: int) -> None:
        seat, host = self.seat, self.seat.host
        if to >= 0 and vote in rival.rows:
            to = int(host.run.engine.desk[TALLY][rival.rows[vote] * ROW + OWNER])
        elif to >= 0 and rival.block is None:
            return  # nobody stands there to be elected
        self.acts += 1
        gated = host.run.quorums[vote].gated
        host.vote_to(vote, rival, to, (), own=True, gate=gated)
        receivers = seat.receivers(to)
        seat.carry_out(Message(vote.name, rival.view, receivers, vote=vote, ballot=rival, meant_for=to))


def _without_block(known: Iterable[list[Ballot]]) -> dict[int, list[Ballot]]:
    """Ballots that have no block, by view."""
    found: dict[int, list[Ballot]] = {}
    for same in known:
        for ballot in same:
            if ballot.block is None:
                found.setdefault(ballot.view, []).append(ballot)
    return found
