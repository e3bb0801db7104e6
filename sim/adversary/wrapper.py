"""The wrapper between a corrupted replica and its host: context to the one, replica to the other.

What the replica says goes through its behaviours, in the order of the scenario, each of which turns one message
into none, one or several; what is left is sent. What arrives goes through them too. The replica's own votes count
for itself at once, whatever becomes of the copies. A corrupted replica never works in the fast path.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, cast

from sim.host import ReplicaContext
from sim.protocol import (
    ALL,
    Audience,
    Ballot,
    Block,
    Context,
    FastPath,
    GossipMessage,
    Message,
    Replica,
    Timer,
    Tree,
    VoteType,
)

LATER = Timer("held back by a corrupted replica")


def names_of(message: Message) -> tuple[str, ...]:
    """The names by which a scenario may mean a message."""
    outside = type(message).__name__
    inside = message.inside() if isinstance(message, GossipMessage) else None
    if inside is None:
        return (outside,)
    return outside, inside.name if isinstance(inside, VoteType) else inside.__name__


@dataclasses.dataclass(frozen=True)
class Utterance:
    """What a replica says: a message, or a vote on a ballot, to some receivers (itself not among them)."""

    name: str
    view: int | None
    to: tuple[int, ...]
    message: Message | None = None
    vote: VoteType | None = None
    ballot: Ballot | None = None
    meant_for: int = ALL  # of a vote: all, or the one who counts it
    delay_ns: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Its type, and that of what it spreads if it is gossip."""
        return (self.name,) if self.message is None else names_of(self.message)

    @property
    def block(self) -> Block | None:
        """The block it is about, if it says."""
        if self.ballot is not None:
            return self.ballot.block
        return None if self.message is None else self.message.carries()


class Behaviour:
    """One way to be corrupt. It lives as long as the run, through crashes of its node."""

    def __init__(self, at_ns: int, until_ns: int | None) -> None:
        self.at_ns = at_ns
        self.until_ns = until_ns
        self.acts = 0  # how often it made a difference
        self.seat: CorruptedContext

    def active(self, now_ns: int) -> bool:
        """Whether it is its time."""
        return self.at_ns <= now_ns and (self.until_ns is None or now_ns < self.until_ns)

    def outgoing(self, utterance: Utterance) -> Iterable[Utterance]:
        """What is sent in place of a message."""
        return (utterance,)

    def incoming(self, sender: int, message: Message) -> bool:
        """Whether the replica is given a message."""
        return True

    def looks(self) -> None:
        """The replica has dealt with something."""

    def open_gate(self, vote: VoteType, ballot: Ballot, by: int) -> None:
        """The replica says that a gated quorum's condition holds."""

    def seated(self, *, again: bool) -> None:
        """The replica starts, or starts `again` after a crash."""

    def forgot(self, vote: VoteType, ballot: Ballot) -> bool:
        """Whether the replica does not know any more that it cast this vote."""
        return False


class CorruptedVotes:
    """The votes of a corrupted replica's context: what it says of them goes through its behaviours too."""

    def __init__(self, corrupted: CorruptedContext) -> None:
        self.corrupted = corrupted
        self.honest = corrupted.host.votes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.honest, name)

    def open_gate(self, vote: VoteType, ballot: Ballot, by: int) -> None:
        self.honest.open_gate(vote, ballot, by)
        for behaviour in self.corrupted.live():
            behaviour.open_gate(vote, ballot, by)

    def has_voted(self, vote: VoteType, ballot: Ballot, voter: int | None = None) -> bool:
        mine = voter in (None, self.corrupted.host.me)
        if mine and any(behaviour.forgot(vote, ballot) for behaviour in self.corrupted.behaviours):
            return False
        return self.honest.has_voted(vote, ballot, voter)


class CorruptedContext:
    """All behaviours of one corrupted node, and the context that its replica sees (see `sim.protocol.Context`)."""

    def __init__(self, behaviours: Iterable[Behaviour]) -> None:
        self.behaviours = tuple(behaviours)
        self.host: ReplicaContext
        self.started = False
        self._to_all: dict[VoteType, bool] = {}  # as the replica last cast such a vote
        for behaviour in self.behaviours:
            behaviour.seat = self

    def __call__(self, host: ReplicaContext) -> tuple[Replica, dict[Any, Callable[..., None]]]:
        """Seat a fresh replica on a host: what `sim.host.Wrapper` asks for."""
        self.host = host
        self.votes = CorruptedVotes(self)
        for behaviour in self.behaviours:
            behaviour.seated(again=self.started)
        self.started = True
        replica = host.run.protocol(cast(Context, self))
        handlers: dict[Any, Callable[..., None]] = {LATER: self._then}
        for cause, handler in replica.bound_handlers().items():
            heard = isinstance(cause, type) and issubclass(cause, Message)
            handlers[cause] = functools.partial(self._on_message if heard else self._on_event, handler)
        return replica, handlers

    def __getattr__(self, name: str) -> Any:
        if name == "host":
            raise AttributeError(name)
        return getattr(self.host, name)  # what no behaviour changes

    @property
    def others(self) -> tuple[int, ...]:
        """All voters but this one."""
        return tuple(node for node in range(self.host.n) if node != self.host.me)

    def goes_to_all(self, vote: VoteType) -> bool:
        """Whether votes of this type go to all or a group: as the replica does it, or as its normal case says."""
        declared = {step.vote: step.to_all for case in self.host.run.normal_cases for step in case.votes}
        return self._to_all.get(vote, declared.get(vote, True))

    def live(self) -> Iterable[Behaviour]:
        """The behaviours whose time it is."""
        now_ns = self.host.now_ns
        return [behaviour for behaviour in self.behaviours if behaviour.active(now_ns)]

    # --- to the replica --------------------------------------------------------------------------------

    def _on_message(self, handler: Callable[..., None], sender: int, message: Message) -> None:
        live = self.live()
        if all([behaviour.incoming(sender, message) for behaviour in live]):
            handler(sender, message)
        for behaviour in live:
            behaviour.looks()

    def _on_event(self, handler: Callable[..., None], *arguments: Any) -> None:
        handler(*arguments)
        for behaviour in self.live():
            behaviour.looks()

    def _then(self, act: Callable[[], None]) -> None:
        act()

    def later(self, delay_ns: int, act: Callable[[], None]) -> None:
        """Do something after a while; a crash prevents it."""
        self.host.set_timer(LATER, delay_ns, act)

    # --- from the replica ------------------------------------------------------------------------------

    def receivers(self, to: int) -> tuple[int, ...]:
        """The voters but this one that a destination means."""
        return tuple(node for node in self.host.run.messages.meant_by(to) if node != self.host.me)

    def broadcast(self, message: Message, to: Audience = ALL, *, fast: FastPath | None = None) -> None:
        self._say(Utterance(type(message).__name__, message.place()[0], self.receivers(to), message))

    def send(self, to: int | tuple[int, ...], message: Message) -> None:
        receivers = to if isinstance(to, tuple) else (to,)
        self._say(Utterance(type(message).__name__, message.place()[0], receivers, message))

    def propose(
        self, message: Message, ballot: Ballot, *_: Any, audience: Audience = ALL, tree: Tree | None = None
    ) -> None:
        self.host.pacing.begin_interval()
        if tree is None:
            self.broadcast(message, audience)
        else:
            self.send(tree.children(self.host.me), message)

    def vote(self, vote: VoteType, ballot: Ballot, to: int = ALL, *, gate: bool = False) -> None:
        self._to_all[vote] = to < 0
        own = self.host.me in self.host.run.messages.meant_by(to)
        self.host.vote_to(vote, ballot, to, (), own=own, gate=gate)
        self._say(Utterance(vote.name, ballot.view, self.receivers(to), vote=vote, ballot=ballot, meant_for=to))

    # --- what becomes of it ----------------------------------------------------------------------------

    def _say(self, utterance: Utterance) -> None:
        messages = [utterance]
        for behaviour in self.live():
            messages = [changed for one in messages for changed in behaviour.outgoing(one)]
        for one in messages:
            self.carry_out(one)

    def carry_out(self, utterance: Utterance) -> None:
        """Send a message as it is now, unless it was held back for so long that a block in it is forgotten."""
        if utterance.block is not None and utterance.block.row < 0:
            return
        if any(block.row < 0 for block in getattr(utterance.message, "blocks", ())):
            return
        if utterance.delay_ns > 0:
            now = dataclasses.replace(utterance, delay_ns=0)
            self.later(utterance.delay_ns, functools.partial(self.carry_out, now))
        elif utterance.message is not None:
            if utterance.to == self.others:
                self.host.broadcast(utterance.message)
            else:
                for to in utterance.to:
                    self.host.send(to, utterance.message)
        elif utterance.vote is not None and utterance.ballot is not None and utterance.to:
            self.host.vote_to(utterance.vote, utterance.ballot, utterance.meant_for, utterance.to, own=False)
