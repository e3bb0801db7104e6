"""Blocks."""

from __future__ import annotations

from typing import Any


class Block:
    """A block as protocols see it. Its transactions are columns of the ledger; here are their count and bytes."""

    __slots__ = (
        "__weakref__",
        "actions",
        "ballots",
        "body",
        "bytes",
        "height",
        "made_ns",
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
        self.ballots: list[Any] = []  # about it (`sim.protocol.ballots`)
        self.actions: list[int] = []  # of the fast path
        self.made_ns = 0  # when its proposer made it: what stands in its header
        self.body: Any = None  # what the protocol keeps with it (a certificate)

    def __repr__(self) -> str:
        return f"Block({self.number}, height={self.height}, view={self.view}, proposer={self.proposer}, txs={self.txs})"
