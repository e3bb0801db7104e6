"""Replaying: the replica sends what it has sent again, later. A correct receiver must not mind."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from sim.adversary.wrapper import Behaviour, Utterance


class Replaying(Behaviour):
    """Repeats messages. `messages`: types, none for all."""

    def __init__(self, at_ns: int, until_ns: int | None, messages: Iterable[str], after_ns: int, times: int) -> None:
        super().__init__(at_ns, until_ns)
        self.messages = frozenset(messages)
        self.after_ns = after_ns
        self.times = times

    def outgoing(self, utterance: Utterance) -> Iterable[Utterance]:
        yield utterance
        if not self.messages or not self.messages.isdisjoint(utterance.names):
            self.acts += 1
            for number in range(1, self.times + 1):
                yield dataclasses.replace(utterance, delay_ns=utterance.delay_ns + number * self.after_ns)
