"""Understating: where the replica tells a certificate it knows, it tells an older one of the same chain.

The older certificate is genuine, so nobody can say that it lies: it may have missed the latest. Messages of the normal
case are not altered (see `equivocating` with `older`); what changes are messages such as NEW-VIEW that report one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from sim.adversary.wrapper import Behaviour, Utterance
from sim.families.chained.tree import QC


class Understating(Behaviour):
    """Puts certificates `older` blocks back. `messages`: types with content, none for all."""

    def __init__(self, at_ns: int, until_ns: int | None, messages: Iterable[str], older: int) -> None:
        super().__init__(at_ns, until_ns)
        self.messages = frozenset(messages)
        self.older = older

    def outgoing(self, utterance: Utterance) -> Iterable[Utterance]:
        message = utterance.message
        normal = {case.upon for case in self.seat.host.run.normal_cases}
        if message is None or type(message) in normal or (self.messages and utterance.name not in self.messages):
            return (utterance,)
        known = {
            field.name: getattr(message, field.name)
            for field in dataclasses.fields(message)  # type: ignore[arg-type]  # every message is a dataclass
            if isinstance(getattr(message, field.name), QC)
        }
        told = {name: before(certificate, self.older) for name, certificate in known.items()}
        if told == known:
            return (utterance,)
        self.acts += 1
        return (dataclasses.replace(utterance, message=dataclasses.replace(message, **told)),)  # type: ignore[type-var]


def before(certificate: QC, blocks: int) -> QC:
    """The certificate on which a certified block stands, and so on, as far as the chain is still known."""
    for _ in range(blocks):
        block = certificate.block
        if block is None or not isinstance(block.body, QC):
            break
        certificate = block.body
    return certificate
