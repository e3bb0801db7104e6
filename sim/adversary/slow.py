"""Slow: the replica says everything, or some types, late.

With a delay just below the others' timer a primary orders as little as it can without being deposed: Y. Amir,
B. Coan, J. Kirsch, J. Fast path, "Prime: Byzantine replication under attack", IEEE TDSC 8(4), 2011.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from sim.adversary.wrapper import Behaviour, Utterance


class Slow(Behaviour):
    """Holds messages back. `messages`: types, none for all."""

    def __init__(self, at_ns: int, until_ns: int | None, messages: Iterable[str], delay_ns: int) -> None:
        super().__init__(at_ns, until_ns)
        self.messages = frozenset(messages)
        self.delay_ns = delay_ns

    def outgoing(self, utterance: Utterance) -> Iterable[Utterance]:
        if self.messages and self.messages.isdisjoint(utterance.names):
            return (utterance,)
        self.acts += 1
        return (dataclasses.replace(utterance, delay_ns=utterance.delay_ns + self.delay_ns),)
