"""What a handler waits for besides messages, and the marks on handlers and invariants."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

from sim.protocol.messages import Message, VoteType

_Handler = TypeVar("_Handler", bound=Callable[..., None])
_Predicate = TypeVar("_Predicate", bound=Callable[..., bool])


@dataclasses.dataclass(frozen=True, eq=False)
class Timer:
    """The kind of timer a handler waits for."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class MembersChange:
    """What the operator asks of the group, told to every replica: each request once, numbered from 1.

    A replica that does not run hears it when it has started again. Whether, how and when it happens is the protocol's
    affair.
    """

    number: int
    add: tuple[int, ...] = ()
    remove: tuple[int, ...] = ()
    learn: tuple[int, ...] = ()  # receive everything, have no vote
    at_once: bool = False  # whoever joins is not waited for until it has what was decided


class Signal:
    """What else a handler can wait for: see the constants below."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


BATCH = Signal("BATCH")  # transactions wait, and the block interval is over
NO_PROGRESS = Signal("NO_PROGRESS")  # the progress timer expired
DECIDED = Signal("DECIDED")  # the fast path decided something this replica asked to know
MEMBERSHIP = Signal("MEMBERSHIP")  # the operator asks for other members; the handler gets the `MembersChange`


def upon(*causes: type[Message] | VoteType | Timer | Signal) -> Callable[[_Handler], _Handler]:
    """Mark a method as the handler of these causes ("upon receiving ...", "upon a quorum of ...")."""

    def mark(handler: _Handler) -> _Handler:
        handler.__dict__["_upon"] = causes
        return handler

    return mark


def invariant(name: str) -> Callable[[_Predicate], _Predicate]:
    """Mark a method as a predicate that holds whenever a handler has returned. It reads, and changes nothing."""

    def mark(predicate: _Predicate) -> _Predicate:
        predicate.__dict__["_invariant"] = name
        return predicate

    return mark
