"""Amnesia: after a crash the replica knows nothing of what it wrote to disk, its own votes included.

What it decided stays decided: the ledger is not in its hands. To act, it needs a crash that ends in a restart.
"""

from __future__ import annotations

from collections.abc import Iterable

from sim.adversary.wrapper import Behaviour, Utterance
from sim.protocol import Ballot, VoteType


class Amnesia(Behaviour):
    """Empties stable storage at a restart."""

    def __init__(self, at_ns: int, until_ns: int | None) -> None:
        super().__init__(at_ns, until_ns)
        self.forgetful = False
        self.known: set[tuple[VoteType, Ballot]] = set()  # votes cast since

    def seated(self, *, again: bool) -> None:
        if again and self.active(self.seat.host.now_ns):
            self.acts += 1
            self.forgetful = True
            self.known = set()
            self.seat.host.disk.stable.clear()

    def outgoing(self, utterance: Utterance) -> Iterable[Utterance]:
        if self.forgetful and utterance.vote is not None and utterance.ballot is not None:
            self.known.add((utterance.vote, utterance.ballot))
        return (utterance,)

    def forgot(self, vote: VoteType, ballot: Ballot) -> bool:
        return self.forgetful and (vote, ballot) not in self.known
