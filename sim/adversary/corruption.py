"""From what a scenario says to behaviours on seats, and what each did."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from sim.adversary import settings as s
from sim.adversary.amnesia import Amnesia
from sim.adversary.double_voting import DoubleVoting
from sim.adversary.equivocating import Equivocating
from sim.adversary.replaying import Replaying
from sim.adversary.scripted import Scripted, Step
from sim.adversary.settings import NodesOf, nodes_at, nodes_meant
from sim.adversary.silent import Silent
from sim.adversary.slow import Slow
from sim.adversary.understating import Understating
from sim.adversary.withholding import Withholding
from sim.adversary.wrapper import Behaviour, CorruptedContext


@dataclasses.dataclass(frozen=True)
class CorruptedNode:
    """One behaviour of one node, as played."""

    node: int
    name: str
    behaviour: Behaviour


@dataclasses.dataclass(frozen=True)
class TwinSeats:
    """A voter of two seats: its own, linked to the first group, and `seat`, linked to the second."""

    node: int
    seat: int
    first: tuple[int, ...]
    second: tuple[int, ...]

    def cut_links(self, twins: Iterable[TwinSeats] = ()) -> Iterable[tuple[int, int]]:
        """Links that carry nothing, in both directions. Other `twins` of no group stand, like it, on either side."""
        apart = [(self.node, other) for other in self.second] + [(self.seat, other) for other in self.first]
        for twin in twins:
            if twin.node != self.node and twin.node not in (*self.first, *self.second):
                apart += [(self.node, twin.seat), (self.seat, twin.node)]
        for a, b in [*apart, (self.node, self.seat)]:
            yield a, b
            yield b, a


class Adversary:
    """All corrupted nodes of a run."""

    def __init__(self, corrupted: Iterable[s.Corrupted], nodes_of: NodesOf, voters: int, seats: int) -> None:
        """`seats`: how many there are without twins, whose seats follow."""
        self.corrupted: list[CorruptedNode] = []
        self.twins: list[TwinSeats] = []
        by_node: dict[int, list[Behaviour]] = {}
        for entry in corrupted:
            for node in nodes_meant(entry, nodes_of, voters):
                if isinstance(entry, s.Twin):
                    self.twins.append(_twin(entry, node, seats + len(self.twins), nodes_of, voters))
                    continue
                behaviour = _behaviour(entry, nodes_of)
                self.corrupted.append(CorruptedNode(node, entry.behaviour, behaviour))
                by_node.setdefault(node, []).append(behaviour)
        self.seats = {node: CorruptedContext(behaviours) for node, behaviours in by_node.items()}

    @property
    def nodes(self) -> frozenset[int]:
        """The corrupted nodes."""
        return frozenset(self.seats)

    def silences(self) -> Iterator[tuple[int, int, int | None]]:
        """Who says nothing at all, from when, and until when (None: the end), ns."""
        for part in self.corrupted:
            if isinstance(part.behaviour, Silent) and not part.behaviour.messages:
                yield part.node, part.behaviour.at_ns, part.behaviour.until_ns


def _twin(entry: s.Twin, node: int, seat: int, nodes_of: NodesOf, voters: int) -> TwinSeats:
    others = tuple(other for other in range(voters) if other != node)
    if entry.groups is None:
        return TwinSeats(node, seat, others[: len(others) // 2], others[len(others) // 2 :])
    first, second = (nodes_at(group, nodes_of) for group in entry.groups)
    return TwinSeats(node, seat, first, second)


def _behaviour(entry: s.Corrupted, nodes_of: NodesOf) -> Behaviour:
    when = entry.at_ns, entry.until_ns
    if isinstance(entry, s.Silent):
        return Silent(*when, entry.messages)
    if isinstance(entry, s.Slow):
        return Slow(*when, entry.messages, entry.delay_ns)
    if isinstance(entry, s.Withholding):
        return Withholding(*when, entry.messages, nodes_at(entry.to, nodes_of))
    if isinstance(entry, s.Equivocating):
        groups = entry.groups and (nodes_at(entry.groups[0], nodes_of), nodes_at(entry.groups[1], nodes_of))
        return Equivocating(*when, groups, entry.older)
    if isinstance(entry, s.DoubleVoting):
        return DoubleVoting(*when, entry.messages)
    if isinstance(entry, s.Replaying):
        return Replaying(*when, entry.messages, entry.after_ns, entry.times)
    if isinstance(entry, s.Understating):
        return Understating(*when, entry.messages, entry.older)
    if isinstance(entry, s.Amnesia):
        return Amnesia(*when)
    assert isinstance(entry, s.Scripted)
    return Scripted(*when, [_step(step, nodes_of) for step in entry.script])


def _step(step: s.Step, nodes_of: NodesOf) -> Step:
    sender, to, only_to = (
        refs if isinstance(refs, str) else frozenset(nodes_at(refs, nodes_of))
        for refs in (step.sender, step.to, step.only_to)
    )
    return Step(
        step.receives, step.sends, step.view, step.from_view, sender, step.times, step.drop, step.delay_ns,
        step.send, step.vote, to, only_to, step.every,
    )  # fmt: skip
