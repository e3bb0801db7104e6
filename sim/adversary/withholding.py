"""Withholding: the replica keeps votes, certificates or anything else from some nodes, and is correct to the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from sim.adversary.wrapper import Behaviour, Utterance


class Withholding(Behaviour):
    """Leaves some receivers out. `messages`: types, none for all."""

    def __init__(self, at_ns: int, until_ns: int | None, messages: Iterable[str], to: Iterable[int]) -> None:
        super().__init__(at_ns, until_ns)
        self.messages = frozenset(messages)
        self.to = frozenset(to)

    def outgoing(self, utterance: Utterance) -> Iterable[Utterance]:
        kept = tuple(node for node in utterance.to if node not in self.to)
        if kept == utterance.to or (self.messages and self.messages.isdisjoint(utterance.names)):
            return (utterance,)
        self.acts += 1
        return (dataclasses.replace(utterance, to=kept),) if kept else ()
