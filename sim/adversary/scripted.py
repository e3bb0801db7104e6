"""Scripted: the replica follows a short table, "when it sees X in view v, send Y to Z", and is correct elsewhere."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable

from sim.adversary.settings import ANY
from sim.adversary.wrapper import Behaviour, Message
from sim.protocol import ALL, Block, Letter


@dataclasses.dataclass(frozen=True)
class Step:
    """A line of the table (`sim.adversary.settings.Step`), nodes as numbers."""

    receives: str | None
    sends: str | None
    view: int | None
    from_view: int | None
    sender: frozenset[int]
    times: int | None
    drop: bool
    delay_ns: int | None
    send: str | None
    vote: str | None
    to: frozenset[int]
    only_to: frozenset[int]

    def is_about(self, wanted: str | None, name: str, view: int | None) -> bool:
        """Whether a message of this type and view is meant."""
        if wanted is None or wanted not in (ANY, name):
            return False
        if self.view is not None:
            return view == self.view
        return self.from_view is None or (view is not None and view >= self.from_view)


class Scripted(Behaviour):
    """Does what its steps say."""

    def __init__(self, at_ns: int, until_ns: int | None, steps: Iterable[Step]) -> None:
        super().__init__(at_ns, until_ns)
        self.steps = tuple(steps)
        self.done = [0] * len(self.steps)
        self.made: dict[str, Letter] = {}  # the last letter of each type that the replica made
        self.held: set[int] = set()  # letters that were held back and are given now

    def _fits(self, number: int) -> bool:
        times = self.steps[number].times
        return times is None or self.done[number] < times

    def _acted(self, number: int) -> None:
        self.done[number] += 1
        self.acts += 1

    def outgoing(self, message: Message) -> Iterable[Message]:
        if message.letter is not None:
            self.made[message.name] = message.letter
        messages = [message]
        for number, step in enumerate(self.steps):
            if not self._fits(number) or not step.is_about(step.sends, message.name, message.view):
                continue
            changed = [part for one in messages for part in self._change(step, one)]
            if changed != messages or step.send or step.vote:
                self._acted(number)
            messages = changed
            self._besides(step, message.view, message.block, message.to)
        return messages

    def _change(self, step: Step, message: Message) -> Iterable[Message]:
        if step.only_to:
            return self._to(message, frozenset(message.to) & step.only_to)
        if not (step.drop or step.delay_ns):
            return (message,)
        hit = frozenset(message.to) & step.to if step.to else frozenset(message.to)
        rest = self._to(message, frozenset(message.to) - hit)
        if step.drop:
            return rest
        late = [
            dataclasses.replace(one, delay_ns=one.delay_ns + (step.delay_ns or 0)) for one in self._to(message, hit)
        ]
        return [*rest, *late]

    @staticmethod
    def _to(message: Message, nodes: frozenset[int]) -> list[Message]:
        to = tuple(node for node in message.to if node in nodes)
        return [dataclasses.replace(message, to=to)] if to else []

    def incoming(self, sender: int, letter: Letter) -> bool:
        if id(letter) in self.held:
            self.held.discard(id(letter))
            return True
        name, view, given = type(letter).__name__, letter.place()[0], True
        for number, step in enumerate(self.steps):
            if (
                not self._fits(number)
                or not step.is_about(step.receives, name, view)
                or (step.sender and sender not in step.sender)
            ):
                continue
            self._acted(number)
            if step.drop:
                given = False
            elif step.delay_ns:
                given = False
                self.seat.later(step.delay_ns, functools.partial(self._give, sender, letter))
            self._besides(step, view, letter.carries(), ())
        return given

    def _give(self, sender: int, letter: Letter) -> None:
        self.held.add(id(letter))
        handler = self.seat.host.handlers.get(type(letter))
        if handler is not None:
            handler(sender, letter)

    def _besides(self, step: Step, view: int | None, block: Block | None, to: tuple[int, ...]) -> None:
        """Send or vote besides what the replica does itself."""
        receivers = tuple(node for node in self.seat.others if node in step.to) if step.to else to
        if step.send is not None and step.send in self.made:
            letter = self.made[step.send]
            self.seat.carry_out(Message(step.send, letter.place()[0], receivers, letter))
        if step.vote is not None and block is not None and block.row >= 0 and view is not None:
            host = self.seat.host
            vote = next(vote for vote in host.run.protocol.votes if vote.name == step.vote)
            ballot = host.ballot(view, block.height, block)
            for receiver in receivers:
                meant_for = ALL if self.seat.goes_to_all(vote) else receiver
                host.vote_to(vote, ballot, meant_for, (receiver,), own=False)
