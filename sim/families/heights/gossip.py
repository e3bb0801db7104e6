"""Gossip: what a voter says reaches all by way of neighbours, who pass on what is new to them.

The neighbours form a random regular graph, the same for all voters of a run. A message is passed on at its first
receipt, to all neighbours but the one it came from; a further copy ends where it arrives. In a graph of E edges a
message that everybody receives therefore costs 2E - (n - 1) copies. An author signs once; who passes on signs
nothing. Every copy is verified, a further one too, which overstates the work of a node that looks first.

What a voter hears first it takes, and passes on, in the fast path if it is a vote (`sim.protocol.GossipMessage`). What
was heard of a height is kept while the height lasts, and can be sent again: a crash, a cut or a loss may have
kept it from a neighbour, whose own neighbours will not repeat what they believe is known.
"""

from __future__ import annotations

import dataclasses

from sim.protocol import Block, Context, GossipMessage, Message, Signing, VoteType

KEPT_HEIGHTS = 8  # messages of heights further back are neither kept nor passed on


@dataclasses.dataclass(frozen=True, slots=True)
class CastVote:
    """A vote as content of a message: who voted how, in which view and for which block."""

    vote: VoteType
    voter: int
    round: int
    height: int
    block: Block | None


@dataclasses.dataclass(frozen=True, slots=True)
class Said(GossipMessage):
    """A message from its author to the neighbours: a vote, or a message that names its height."""

    author: int
    height: int
    content: CastVote | Message

    def size_bytes(self, signing: Signing) -> int:
        content = self.content
        return content.vote.size_bytes if isinstance(content, CastVote) else content.size_bytes(signing)

    def certificates(self) -> tuple[int, ...]:
        return () if isinstance(self.content, CastVote) else self.content.certificates()

    def carries(self) -> Block | None:
        return None if isinstance(self.content, CastVote) else self.content.carries()

    def place(self) -> tuple[int | None, int | None]:
        content = self.content
        return (content.round, content.height) if isinstance(content, CastVote) else content.place()

    def passed_on(self) -> Relayed:
        return Relayed(self.author, self.height, self.content)

    def inside(self) -> type[Message] | VoteType:
        content = self.content
        return content.vote if isinstance(content, CastVote) else type(content)

    def counts(self) -> tuple[VoteType, int, int, Block | None, int] | None:
        cast = self.content
        return (cast.vote, cast.round, cast.height, cast.block, cast.voter) if isinstance(cast, CastVote) else None


class Relayed(Said):
    """The same passed on, with its author's signature."""

    __slots__ = ()
    signed = False

    def size_bytes(self, signing: Signing) -> int:
        return Said.size_bytes(self, signing) + signing.signature_bytes

    def signatures(self) -> int:
        return 1


class NeighbourGossip:
    """One replica's side of it. `degree`: how many neighbours each voter has, all others if there are not so many."""

    def __init__(self, context: Context, degree: int) -> None:
        self.context = context
        self.neighbours = context.gossip.neighbours(degree)
        self.others: dict[int, tuple[int, ...]] = {}  # the neighbours without the one that something came from
        context.gossip.begin(self.neighbours, KEPT_HEIGHTS)

    def know(self, height: int, content: CastVote | Message) -> None:
        """Something of one's own that was said before a crash."""
        self.context.gossip.deliver_once(Said(self.context.me, height, content))

    def say(self, height: int, content: CastVote | Message) -> None:
        """Say something of one's own."""
        self.know(height, content)
        if self.neighbours:
            self.context.send(self.neighbours, Said(self.context.me, height, content))

    def is_new(self, sender: int, message: Said) -> bool:
        """Take a message that arrived. The first time it is passed on."""
        if message.height <= self.context.height - KEPT_HEIGHTS:
            return False
        if not self.context.gossip.deliver_once(message):
            return False
        others = self.others.get(sender)
        if others is None:
            others = self.others[sender] = tuple(other for other in self.neighbours if other != sender)
        if others:
            self.context.send(others, message.passed_on())
        return True

    def repeat(self, height: int, to: int | None = None) -> None:
        """Send what was heard of a height again, to all neighbours or to one."""
        for neighbour in self.neighbours if to is None else (to,):
            for gossip_message in self.context.gossip.seen(height):
                self.context.send(neighbour, gossip_message)


def check_degree(degree: int, voters: int) -> None:
    """Raise ValueError if the parameter `gossip_degree` gives no graph of so many voters."""
    if degree < voters - 1 and degree * voters % 2:
        raise ValueError(
            f"gossip_degree: {degree} neighbours for each of {voters} voters: one of the two must be even; "
            f"write gossip_degree: {degree + 1}"
        )
