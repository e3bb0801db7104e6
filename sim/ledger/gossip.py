"""Gossip: what a voter says reaches all by way of neighbours, who pass on what is new to them.

The neighbours form a random regular graph, the same for all voters of a run. A message is passed on at its first
receipt, to all neighbours but the one it came from; a further copy ends where it arrives. In a graph of E edges a
message that everybody receives therefore costs 2E - (n - 1) copies. An author signs once; who passes on signs
nothing. Every copy is verified, a further one too, which overstates the work of a node that looks first.

What was heard of a height is kept while the height lasts, and can be sent again: a crash, a cut or a loss may have
kept it from a neighbour, whose own neighbours will not repeat what they believe is known.
"""

from __future__ import annotations

import dataclasses

from sim.protocol import Block, Context, Letter, Signing, VoteType

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
class Said(Letter):
    """A message from its author to the neighbours: a vote, or a letter that names its height."""

    author: int
    height: int
    content: CastVote | Letter

    def size_bytes(self, signing: Signing) -> int:
        content = self.content
        return content.size_bytes(signing) if isinstance(content, Letter) else content.vote.size_bytes

    def carries(self) -> Block | None:
        return self.content.carries() if isinstance(self.content, Letter) else None

    def place(self) -> tuple[int | None, int | None]:
        content = self.content
        return content.place() if isinstance(content, Letter) else (content.round, content.height)


class Relayed(Said):
    """The same passed on, with its author's signature."""

    __slots__ = ()
    signed = False

    def size_bytes(self, signing: Signing) -> int:
        return Said.size_bytes(self, signing) + signing.signature_bytes

    def signatures(self) -> int:
        return 1


class Gossip:
    """One replica's side of it. `degree`: how many neighbours each voter has, all others if there are not so many."""

    def __init__(self, context: Context, degree: int) -> None:
        self.context = context
        self.neighbours = context.neighbours(degree)
        self.others: dict[int, tuple[int, ...]] = {}  # the neighbours without the one that something came from
        self.heard: dict[int, dict[CastVote | Letter, int]] = {}  # height -> content -> author

    def know(self, height: int, content: CastVote | Letter) -> None:
        """Something of one's own that was said before a crash."""
        self.heard.setdefault(height, {})[content] = self.context.me

    def say(self, height: int, content: CastVote | Letter) -> None:
        """Say something of one's own."""
        self.know(height, content)
        if self.neighbours:
            self.context.multicast(self.neighbours, Said(self.context.me, height, content))

    def is_new(self, sender: int, message: Said) -> bool:
        """Take a message that arrived. The first time it is passed on."""
        if message.height <= self.context.height - KEPT_HEIGHTS:
            return False
        known = self.heard.setdefault(message.height, {})
        if message.content in known:
            return False
        known[message.content] = message.author
        others = self.others.get(sender)
        if others is None:
            others = self.others[sender] = tuple(other for other in self.neighbours if other != sender)
        if others:
            self.context.multicast(others, Relayed(message.author, message.height, message.content))
        return True

    def repeat(self, height: int, to: int | None = None) -> None:
        """Send what was heard of a height again, to all neighbours or to one."""
        for neighbour in self.neighbours if to is None else (to,):
            for content, author in self.heard.get(height, {}).items():
                self.context.send(neighbour, Relayed(author, height, content))

    def forget(self, height: int) -> None:
        """This replica works at a height now: what is far below is forgotten."""
        for old in [known for known in self.heard if known < height - KEPT_HEIGHTS]:
            del self.heard[old]


def check_degree(degree: int, voters: int) -> None:
    """Raise ValueError if the parameter `gossip_degree` gives no graph of so many voters."""
    if degree < voters - 1 and degree * voters % 2:
        raise ValueError(
            f"gossip_degree: {degree} neighbours for each of {voters} voters: one of the two must be even; "
            f"write gossip_degree: {degree + 1}"
        )
