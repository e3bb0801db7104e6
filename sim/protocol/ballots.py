"""Ballots: what votes are about."""

from __future__ import annotations

from sim.protocol.blocks import Block
from sim.protocol.messages import VoteType


class Ballot:
    """What votes are about: a view, a number (height, sequence, candidate) and usually a block."""

    __slots__ = ("block", "number", "rows", "view")

    def __init__(self, view: int, number: int, block: Block | None) -> None:
        self.view = view
        self.number = number
        self.block = block
        self.rows: dict[VoteType, int] = {}

    def __repr__(self) -> str:
        return f"Ballot(view={self.view}, number={self.number}, block={self.block})"
