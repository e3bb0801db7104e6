"""Equivocating: the replica proposes two blocks where the protocol proposes one, each to its own group of nodes.

Whatever it says of the first block to the first group, it says of the second to the second group: votes, and the
condition that a proposal is for them. A vote that one node counts alone goes to that node for both blocks.
Certificates are never altered: a second block stands on the certificate of the first, or, with `older`, on one that its
chain carries so many blocks before, as if the replica had not seen the latest (sim.families.chained.tree).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from sim.adversary.wrapper import Behaviour, Utterance
from sim.families.chained.tree import QC
from sim.protocol import Ballot, Block, Message, VoteType

_KEPT = 4096  # blocks remembered


class Equivocating(Behaviour):
    """Doubles proposals and votes. `groups`: receivers of the first and of the second block."""

    def __init__(
        self, at_ns: int, until_ns: int | None, groups: tuple[Iterable[int], Iterable[int]] | None, older: int = 0
    ) -> None:
        super().__init__(at_ns, until_ns)
        self.older = older
        self.groups = None if groups is None else (frozenset(groups[0]), frozenset(groups[1]))
        self.rivals: dict[Block, Block] = {}  # first block -> second

    def second_group(self) -> frozenset[int]:
        """Who hears of the second block."""
        if self.groups is not None:
            return self.groups[1]
        others = self.seat.others
        return frozenset(others[len(others) // 2 :])

    def first_group(self) -> frozenset[int]:
        """Who hears of the first block."""
        if self.groups is not None:
            return self.groups[0]
        return frozenset(self.seat.others) - self.second_group()

    def outgoing(self, utterance: Utterance) -> Iterable[Utterance]:
        if utterance.message is not None:
            return self._contents(utterance, utterance.message)
        return self._votes(utterance)

    def _contents(self, utterance: Utterance, message: Message) -> Iterable[Utterance]:
        block = message.carries()
        if block is None or block.proposer != self.seat.host.me or block.row < 0:
            return (utterance,)
        rival = self.rivals.get(block) or self._rival(block)
        if rival is None:
            return (utterance,)
        self.acts += 1
        fields = {
            field.name: rival
            for field in dataclasses.fields(message)  # type: ignore[arg-type]  # every message is a dataclass
            if getattr(message, field.name) is block
        }
        other = dataclasses.replace(message, **fields)  # type: ignore[type-var]
        return self._parted(utterance, dataclasses.replace(utterance, message=other))

    def _rival(self, block: Block) -> Block | None:
        """A second block in the place of one just proposed."""
        parent, body, height = block.parent, block.body, block.height
        if body is None and parent is not None:
            parent = self.rivals.get(parent, parent)  # no certificate binds it to the first one
        for _ in range(self.older if isinstance(body, QC) else 0):
            before = body.block
            if before is None or before.body is None:
                break
            parent, body, height = before.parent, before.body, before.height
        if parent is not None and parent.row < 0:
            return None  # long gone
        made: Block | None = self.seat.host.new_block(parent, block.view, number=height, empty=True)
        if made is not None:
            made.body = body
            self.rivals[block] = made
            if len(self.rivals) > _KEPT:
                del self.rivals[next(iter(self.rivals))]
        return made

    def _parted(self, first: Utterance, second: Utterance) -> Iterable[Utterance]:
        one, two = self.first_group(), self.second_group()
        for utterance, group in ((first, one), (second, two)):
            to = tuple(node for node in utterance.to if node in group)
            if to:
                yield dataclasses.replace(utterance, to=to)

    def _other_ballot(self, ballot: Ballot) -> Ballot | None:
        first = ballot.block
        rival = None if first is None else self.rivals.get(first)
        if first is None or rival is None or rival.row < 0:
            return None
        number = rival.height if ballot.number == first.height else ballot.number
        return self.seat.host.votes.ballot(ballot.view, number, rival)

    def _votes(self, utterance: Utterance) -> Iterable[Utterance]:
        assert utterance.ballot is not None
        assert utterance.vote is not None
        other = self._other_ballot(utterance.ballot)
        if other is None:
            return (utterance,)
        self.acts += 1
        host, to = self.seat.host, utterance.meant_for
        gated = host.run.quorums[utterance.vote].gated
        host.vote_to(utterance.vote, other, to, (), own=host.me in host.run.messages.meant_by(to), gate=gated)
        second = dataclasses.replace(utterance, ballot=other)
        return self._parted(utterance, second) if to < 0 else (utterance, second)

    def open_gate(self, vote: VoteType, ballot: Ballot, by: int) -> None:
        other = self._other_ballot(ballot)
        if other is not None:
            self.seat.host.votes.open_gate(vote, other, by)
