"""What replicas say: votes, which are counted where they arrive, and messages, which carry content."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Hashable, Iterable
from typing import ClassVar, Literal, NewType

from sim.protocol.blocks import Block

Audience = NewType("Audience", int)  # destination: some voters but the sender (`Membership.audience` makes them)
ALL = Audience(-1)  # every voter but the sender, whose own vote counts at once
_VIEWS = ("view", "round", "term", "epoch")
_HEIGHTS = ("sequence", "height", "number")


@dataclasses.dataclass(frozen=True, eq=False)
class VoteType:
    """A kind of vote, itself and no other (compared by identity).

    `size_bytes` is its size without the signature; `decides` is false for housekeeping. `unique`: at most one
    ballot of a view and number can have a quorum ("number"), or of a view ("view"); "": any may. Runs are
    checked for it. `certified`: it carries a certificate, signed by as many as its own quorum needs, which is sent
    and verified with it.

    `any_value`: a type under which every vote of this one counts too, whatever its block ("2f + 1 of any value"). It
    is never cast; its quorum is reported with the ballot (view, number, no block), after the vote's own. The number
    of such ballots is a height: they end when every voter has decided beyond it.
    """

    name: str
    size_bytes: int
    decides: bool = True
    signed: bool = True
    unique: Literal["number", "view", ""] = "number"
    certified: bool = False
    any_value: VoteType | None = None


@dataclasses.dataclass(frozen=True)
class Quorum:
    """How many distinct voters complete a ballot, and whether a condition must hold besides (`gated`).

    `early` is a smaller number that is also reported (for example f + 1). With `weights`, whole numbers, one per
    voter, `votes` and `early` are sums of weights.
    """

    votes: int
    gated: bool = False
    early: int = 0
    weights: tuple[int, ...] = ()

    def met_by(self, voters: Iterable[int]) -> bool:
        """Whether the votes of these voters together are enough."""
        return sum(self.weights[voter] if self.weights else 1 for voter in voters) >= self.votes

    def voters_needed(self) -> int:
        """So many voters are enough, whichever they are."""
        if not self.weights:
            return self.votes
        return next(
            (k for k in range(1, len(self.weights) + 1) if sum(sorted(self.weights)[:k]) >= self.votes),
            len(self.weights) + 1,
        )


@dataclasses.dataclass(frozen=True)
class Signing:
    """How signatures travel: the bytes of one, and what becomes of several on the same words.

    `list`: all of them, each with its signer; `aggregate`: one of the same size and a bit per voter (BLS);
    `threshold`: one of the same size, whoever signed.
    """

    voters: int
    signature_bytes: int = 64
    certificates: Literal["list", "aggregate", "threshold"] = "list"

    def certificate_bytes(self, signers: int) -> int:
        """Size of a certificate signed by that many. Signers of single signatures are named by two bytes each."""
        if self.certificates == "list" or signers == 0:
            return signers * (self.signature_bytes + 2)
        return self.signature_bytes + ((self.voters + 7) // 8 if self.certificates == "aggregate" else 0)


class Message(abc.ABC):
    """Base of messages with content. Subclasses are frozen dataclasses with slots."""

    __slots__ = ()
    decides: ClassVar[bool] = True  # counted in messages per decision
    signed: ClassVar[bool] = True
    is_gossip: ClassVar[bool] = False

    @abc.abstractmethod
    def size_bytes(self, signing: Signing) -> int:
        """Size on the wire without the sender's own signature."""

    def signatures(self) -> int:
        """Single signatures inside that the receiver verifies, the sender's own not counted."""
        return 0

    def certificates(self) -> tuple[int, ...]:
        """Certificates inside that the receiver verifies: how many signed each."""
        return ()

    def carries(self) -> Block | None:
        """The block whose transactions travel inside, if any: the receiver hashes them."""
        return None

    def place(self) -> tuple[int | None, int | None]:
        """View and height that the message is about, as far as it has them: what a scenario's rules match.

        By default the first of its fields named view, round, term, epoch, and the first named sequence, height,
        number, or else the height of its `block`. A message that names them otherwise overrides this.
        """
        view = next((getattr(self, name) for name in _VIEWS if hasattr(self, name)), None)
        height = next((getattr(self, name) for name in _HEIGHTS if hasattr(self, name)), None)
        if height is None and isinstance(getattr(self, "block", None), Block):
            height = self.block.height  # type: ignore[attr-defined]
        return view, height


class GossipMessage(Message):
    """Base of messages that spread from neighbour to neighbour, as they leave their author and as others pass them on.

    Two messages are one if author and content are the same. Who hears one for the first time passes it on to its
    neighbours but the one it came from, and acts on it; a further copy, or one of a height no longer kept
    (`Gossip.begin`), ends where it arrives and reaches no handler. The fast path does so for votes, without entering
    Python: it passes them on, and counts them if nothing is decided here yet at their height.
    """

    __slots__ = ()
    is_gossip = True
    author: int
    height: int
    content: Hashable

    @abc.abstractmethod
    def passed_on(self) -> GossipMessage:
        """The message with which others pass it on: unsigned by them, with its author's signature."""

    def inside(self) -> type[Message] | VoteType | None:
        """The type of what it spreads, if that is a message or a vote of the protocol: rules may name it."""
        return None

    def counts(self) -> tuple[VoteType, int, int, Block | None, int] | None:
        """If it is a vote: its type, its ballot's view, number and block, and the voter."""
        return None
