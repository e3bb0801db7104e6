"""A context that is bent in one place, for bugs that are not in the rules but between replica and network."""

from __future__ import annotations

from typing import Any

from sim.protocol import ALL, Ballot, Block, Context, Letter, VoteType


class Bent:
    """Passes everything on."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class WithoutOwnVotes(Bent):
    """A vote that its caster counts alone is lost."""

    def vote(self, vote: VoteType, ballot: Ballot, to: int = ALL, *, gate: bool = False) -> None:
        if to != self._context.me:
            self._context.vote(vote, ballot, to, gate=gate)


class Twice(Bent):
    """Every letter leaves twice."""

    def broadcast(self, letter: Letter, to: int = ALL) -> None:
        self._context.broadcast(letter, to)
        self._context.broadcast(letter, to)

    def send(self, to: int, letter: Letter) -> None:
        self._context.send(to, letter)
        self._context.send(to, letter)

    def propose(self, letter: Letter, ballot: Ballot, **more: Any) -> None:
        self._context.propose(letter, ballot, **more)
        self._context.broadcast(letter, more.get("audience", ALL))

    def pass_on(self, letter: Letter, block: Block, *, audience: int = ALL, **more: Any) -> None:
        self._context.pass_on(letter, block, audience=audience, **more)
        self._context.broadcast(letter, audience)
