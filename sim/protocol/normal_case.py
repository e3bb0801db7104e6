"""What a protocol declares so that it runs without entering Python: the fast path."""

from __future__ import annotations

import dataclasses
from typing import Any
from typing import Protocol as Interface

from sim.protocol.blocks import Block
from sim.protocol.causes import Timer
from sim.protocol.messages import ALL, Message, VoteType


@dataclasses.dataclass(frozen=True)
class Step:
    """One vote of a normal case: its type and whom it goes to (all, or the receiver named with the message)."""

    vote: VoteType
    to_all: bool = True  # all of the message's audience


@dataclasses.dataclass(frozen=True, slots=True)
class Tree:
    """A tree over all n voters, filled level by level: place 0 is the root."""

    n: int
    first: int  # the voter in place 0; the others follow in order of their numbers
    fanout: int

    def place(self, voter: int) -> int:
        """The voter's place."""
        return (voter - self.first) % self.n

    def parent(self, voter: int) -> int:
        """The voter above; the root is its own."""
        return (self.first + max(self.place(voter) - 1, 0) // self.fanout) % self.n

    def children(self, voter: int) -> tuple[int, ...]:
        """The voters below."""
        low = self.place(voter) * self.fanout + 1
        return tuple((self.first + at) % self.n for at in range(low, min(low + self.fanout, self.n)))

    def below(self, voter: int) -> tuple[int, int]:
        """Voters in the subtree of this one, itself included, and levels under it."""
        size, levels, low, high = 0, -1, self.place(voter), self.place(voter)
        while low < self.n:
            size += min(high, self.n - 1) - low + 1
            levels += 1
            low, high = low * self.fanout + 1, high * self.fanout + self.fanout
        return size, levels


@dataclasses.dataclass(frozen=True)
class Aggregate:
    """The other half of a normal case whose message goes down a tree: what comes back up.

    Upon the message a voter passes it on to its children and waits for `answer(block, signers)` of each: a message with
    the votes of so many voters, the child's subtree. When all have come, or at once if it has no children, it sends
    one for its own subtree to its parent. Where it waits, `timer` runs for `patience_ns` per level below it; its
    handler, called with the block, runs if the answers are not complete by then. At the root the handler of the
    answer runs with the one that makes `quorum` votes of those counted before (`FastPathView.aggregated`).
    """

    answer: Any  # the type of the message, made of the block and the number of votes
    quorum: int
    timer: Timer
    patience_ns: int


@dataclasses.dataclass(frozen=True)
class NormalCase:
    """What follows one type of message when nothing is wrong, declared so that it runs without entering Python.

    Upon the message: the first vote; upon each quorum: the next; then, if `decide`, the block is decided (at the
    message itself if there are no votes). A block decided on the word of the message
    (`FastPath.decided`) is decided right after the first vote is cast.

    A gated quorum's condition is the message: with `gate`, on the word of its sender, who casts no first vote;
    without, a voter's own vote opens its gate. With `persist`, the first vote waits for the disk.
    Every message counts as progress (`Clock.made_progress`) if the progress timer always runs. Where blocks compete
    (`Replica.forks`) whoever takes a message there adopts its block (`Chain.adopt`), which extends its head.
    Whoever awaits its turn to propose (`Pacing.await_turn`) then awaits the one above the message's block.

    With `aggregate` the message goes down a tree (`Context.propose` with `tree`) and no votes are declared: after it is
    passed on, the block `decided` by it and those below are decided, then the answer is sent or waited for. A message
    that overtakes those before it is kept until it is their turn.

    A protocol declares one case for each type of message it wants treated so, at most three votes each. The
    handlers must do the same: they are the definition, and a test compares both.
    """

    upon: type[Message]
    votes: tuple[Step, ...] = ()
    gate: bool = False
    decide: bool = False
    persist: bool = False
    aggregate: Aggregate | None = None


@dataclasses.dataclass(frozen=True)
class Lease:
    """Lease: leave to go on proposing by itself, given to the fast path with a proposal.

    Whenever this replica has decided a block there, or a batch is due, the fast path does what the handlers of
    DECIDED and BATCH would: while fewer than `pipeline` blocks are under way and a batch is due (`await_batch`),
    it makes the block on top (`new_block`), and proposes it (`propose`) with the message that `Replica.message_of`
    names, of the same size but for the block's bytes, in the same view, with the same guards and receivers, and
    telling this replica. If the case is gated by the message it opens its own gate, else it casts its own vote.
    It proposes up to height `until`; there the handler runs again. Another `Replica.guard` takes the leave back.
    """

    until: int
    pipeline: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class FastPath:
    """How a message is followed where its normal case applies (`Context.propose`)."""

    before: int  # the guard that a receiver must have (`Replica.guard`)
    after: int  # the one it has from the message on; where it is the same, only a gated case refuses a second copy
    done: int | None = None  # the one it has when the case is through, if not the same
    notify: int | None = None  # whose DECIDED handler runs when the case is through there: ALL, one; None: the sender's
    lease: Lease | None = None  # the fast path may propose the next blocks by itself
    to: int = ALL  # receiver of votes that do not go to all
    decided: Block | None = None  # the message proves it decided
    requires: Block | None = None  # in a tree: the block that a receiver must have to keep a message that comes early
    made_ns: int | None = None  # the time that the block bears, now if not given: turns to propose count from there


@dataclasses.dataclass(frozen=True)
class Turns:
    """When a replica proposes a block on top of another if it has seen nobody do so (`Pacing.await_turn`).

    Its own turn are the heights that leave `place` when divided by `places`. Then it proposes `period_ns` after the
    block below was made; at other heights it holds back for a draw from [0, spread_ns) more, keyed by itself and the
    height. It proposes neither before it has the block below nor within the block interval of its own last proposal.
    """

    timer: Timer  # its handler gets the time of the turn, without the draw
    period_ns: int
    spread_ns: int
    place: int
    places: int


class FastPathView(Interface):
    """What the fast path did for a replica since a handler ran: read where the replica makes that its own."""

    @property
    def guard(self) -> int:
        """What the fast path made of the last `Replica.guard`; -1: None. It survives a crash."""

    def block(self) -> Block | None:
        """The last block whose proposal it accepted, if any. It survives a crash: what is accepted is on disk."""

    def last_proposal(self) -> Block | None:
        """The last block proposed with a normal case, by a handler or by the fast path, if it is still kept.

        It survives a crash: a proposal is on disk before it leaves.
        """

    def aggregated(self, block: Block) -> dict[int, int]:
        """Votes counted here for a block that came down a tree, by child (the replica's own vote: itself).

        From now on answers for it come to the handlers; at the root of a complete quorum none come any more.
        """

    def buffered(self) -> list[tuple[int, Message]]:
        """Messages (with their senders) kept here because they came early; the fast path forgets them."""
