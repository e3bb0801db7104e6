"""A context that is faulty in one place, for bugs that are not in the rules but between replica and network."""

from __future__ import annotations

from typing import Any

from sim.protocol import ALL, Audience, Ballot, Context, FastPath, Message, VoteType


class FaultyContext:
    """Passes everything on."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class WithoutOwnVotes(FaultyContext):
    """A vote that its caster counts alone is lost."""

    def vote(self, vote: VoteType, ballot: Ballot, to: int = ALL, *, gate: bool = False) -> None:
        if to != self._context.me:
            self._context.vote(vote, ballot, to, gate=gate)


class Twice(FaultyContext):
    """Every message leaves twice."""

    def broadcast(self, message: Message, to: Audience = ALL, *, fast: FastPath | None = None) -> None:
        self._context.broadcast(message, to, fast=fast)
        self._context.broadcast(message, to)

    def send(self, to: int | tuple[int, ...], message: Message) -> None:
        self._context.send(to, message)
        self._context.send(to, message)

    def propose(self, message: Message, *about: Any, audience: Audience = ALL, **more: Any) -> None:
        self._context.propose(message, *about, audience=audience, **more)
        self._context.broadcast(message, audience)
