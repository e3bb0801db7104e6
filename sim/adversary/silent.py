"""Silent: the replica listens, works and says nothing, or nothing of some types. Unlike a crash, it does not end."""

from __future__ import annotations

from collections.abc import Iterable

from sim.adversary.wrapper import Behaviour, Utterance


class Silent(Behaviour):
    """Drops what it would send. `messages`: types, none for all."""

    def __init__(self, at_ns: int, until_ns: int | None, messages: Iterable[str]) -> None:
        super().__init__(at_ns, until_ns)
        self.messages = frozenset(messages)

    def outgoing(self, utterance: Utterance) -> Iterable[Utterance]:
        if self.messages and self.messages.isdisjoint(utterance.names):
            return (utterance,)
        self.acts += 1
        return ()
