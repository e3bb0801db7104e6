"""Blocks, and ballots about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.protocol.messages import VoteType


class Block:
    """A block as protocols see it. Its transactions are columns of the ledger; here are their count and bytes."""

    __slots__ = (
        "__weakref__",
        "actions",
        "ballots",
        "body",
        "bytes",
        "height",
        "number",
        "parent",
        "proposer",
        "row",
        "txs",
        "view",
    )

    def __init__(self, number: int, height: int, view: int, proposer: int, parent: Block | None) -> None:
        self.number = number  # identity: no two blocks of a run share it (stands for the digest)
        self.height = height
        self.view = view
        self.proposer = proposer
        self.parent = parent
        self.txs = 0
        self.bytes = 0
        self.row = -1  # the ledger's row while it has one
        self.ballots: list[Ballot] = []
        self.actions: list[int] = []  # of the fast path
        self.body: Any = None  # what the protocol keeps with it (a certificate)

    def __repr__(self) -> str:
        return f"Block({self.number}, height={self.height}, view={self.view}, proposer={self.proposer}, txs={self.txs})"


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
