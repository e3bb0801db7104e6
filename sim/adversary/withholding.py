"""Withholding: the replica keeps votes, certificates or anything else from some nodes, and is correct to the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from sim.adversary.wrapper import Behaviour, Message


class Withholding(Behaviour):
    """Leaves some receivers out. `messages`: types, none for all."""

    def __init__(self, at_ns: int, until_ns: int | None, messages: Iterable[str], to: Iterable[int]) -> None:
        super().__init__(at_ns, until_ns)
        self.messages = frozenset(messages)
        self.to = frozenset(to)

    def outgoing(self, message: Message) -> Iterable[Message]:
        kept = tuple(node for node in message.to if node not in self.to)
        if kept == message.to or (self.messages and message.name not in self.messages):
            return (message,)
        self.acts += 1
        return (dataclasses.replace(message, to=kept),) if kept else ()
