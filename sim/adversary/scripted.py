"""Scripted: the replica follows a short table, "when it sees X in view v, send Y to Z", and is correct elsewhere."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable

from sim.adversary.settings import ANY
from sim.adversary.wrapper import Behaviour, Utterance, names_of
from sim.faults.rules import ROLES
from sim.protocol import ALL, Block, Message


@dataclasses.dataclass(frozen=True)
class Step:
    """A line of the table (`sim.adversary.settings.Step`), nodes as numbers."""

    receives: str | None
    sends: str | None
    view: int | None
    from_view: int | None
    sender: frozenset[int] | str
    times: int | None
    drop: bool
    delay_ns: int | None
    send: str | None
    vote: str | None
    to: frozenset[int] | str
    only_to: frozenset[int] | str
    every: int

    def is_about(self, wanted: str | None, names: Iterable[str], view: int | None) -> bool:
        """Whether a message of one of these types and this view is meant."""
        if wanted is None or wanted not in (ANY, *names):
            return False
        if self.view is not None:
            return view == self.view
        if self.from_view is None and self.every == 1:
            return True
        low = self.from_view or 0
        return view is not None and view >= low and (view - low) % self.every == 0


class Scripted(Behaviour):
    """Does what its steps say."""

    def __init__(self, at_ns: int, until_ns: int | None, steps: Iterable[Step]) -> None:
        super().__init__(at_ns, until_ns)
        self.steps = tuple(steps)
        self.done = [0] * len(self.steps)
        self.made: dict[str, Message] = {}  # the last message of each type that the replica made
        self.held: set[int] = set()  # messages that were held back and are given now

    def _fits(self, number: int) -> bool:
        times = self.steps[number].times
        return times is None or self.done[number] < times

    def _acted(self, number: int) -> None:
        self.done[number] += 1
        self.acts += 1

    def outgoing(self, utterance: Utterance) -> Iterable[Utterance]:
        if utterance.message is not None:
            self.made[utterance.name] = utterance.message
        messages = [utterance]
        for number, step in enumerate(self.steps):
            if not self._fits(number) or not step.is_about(step.sends, utterance.names, utterance.view):
                continue
            changed = [part for one in messages for part in self._change(step, one)]
            if changed != messages or step.send or step.vote:
                self._acted(number)
            messages = changed
            self._besides(step, utterance.view, utterance.block, utterance.to)
        return messages

    def _meant(self, nodes: frozenset[int] | str) -> frozenset[int]:
        """Nodes that a step names; the leader of the replica's own view, or the next, as it stands now."""
        if not isinstance(nodes, str):
            return nodes
        replica = self.seat.host.replica
        leader = None if replica is None else replica.leader(ROLES.index(nodes))
        return frozenset() if leader is None else frozenset({leader})

    def _change(self, step: Step, utterance: Utterance) -> Iterable[Utterance]:
        if step.only_to:
            return self._to(utterance, frozenset(utterance.to) & self._meant(step.only_to))
        if not (step.drop or step.delay_ns):
            return (utterance,)
        hit = frozenset(utterance.to) & self._meant(step.to) if step.to else frozenset(utterance.to)
        rest = self._to(utterance, frozenset(utterance.to) - hit)
        if step.drop:
            return rest
        late = [
            dataclasses.replace(one, delay_ns=one.delay_ns + (step.delay_ns or 0)) for one in self._to(utterance, hit)
        ]
        return [*rest, *late]

    @staticmethod
    def _to(utterance: Utterance, nodes: frozenset[int]) -> list[Utterance]:
        to = tuple(node for node in utterance.to if node in nodes)
        return [dataclasses.replace(utterance, to=to)] if to else []

    def incoming(self, sender: int, message: Message) -> bool:
        if id(message) in self.held:
            self.held.discard(id(message))
            return True
        names, view, given = names_of(message), message.place()[0], True
        for number, step in enumerate(self.steps):
            if (
                not self._fits(number)
                or not step.is_about(step.receives, names, view)
                or (step.sender and sender not in self._meant(step.sender))
            ):
                continue
            self._acted(number)
            if step.drop:
                given = False
            elif step.delay_ns:
                given = False
                self.seat.later(step.delay_ns, functools.partial(self._give, sender, message))
            self._besides(step, view, message.carries(), ())
        return given

    def _give(self, sender: int, message: Message) -> None:
        self.held.add(id(message))
        handler = self.seat.host.handlers.get(type(message))
        if handler is not None:
            handler(sender, message)

    def _besides(self, step: Step, view: int | None, block: Block | None, to: tuple[int, ...]) -> None:
        """Send or vote besides what the replica does itself."""
        meant = self._meant(step.to)
        receivers = tuple(node for node in self.seat.others if node in meant) if step.to else to
        if step.send is not None and step.send in self.made:
            message = self.made[step.send]
            self.seat.carry_out(Utterance(step.send, message.place()[0], receivers, message))
        if step.vote is not None and block is not None and block.row >= 0 and view is not None:
            host = self.seat.host
            vote = next(vote for vote in host.run.protocol.votes if vote.name == step.vote)
            ballot = host.votes.ballot(view, block.height, block)
            for receiver in receivers:
                meant_for = ALL if self.seat.goes_to_all(vote) else receiver
                host.vote_to(vote, ballot, meant_for, (receiver,), own=False)
