"""Letters by which PBFT and its variants change their view, and bring one another up to date (Castro, Liskov, 1999)."""

from __future__ import annotations

import dataclasses

from sim.protocol import Block, Letter, Signing

HEADER_BYTES = 48  # type, view, sequence number, sender, digest (32)
FETCH_MAX = 512  # blocks per answer of a state transfer


@dataclasses.dataclass(frozen=True, slots=True)
class ViewChange(Letter):
    """<VIEW-CHANGE, v, h, C, P, i>: `prepared` maps a sequence number to (view, block)."""

    view: int
    low_mark: int
    prepared: tuple[tuple[int, int, Block], ...]  # sequence, view, block
    quorum: int
    replica: int

    def size_bytes(self, signing: Signing) -> int:
        proof = signing.certificate_bytes(self.quorum)
        return HEADER_BYTES + proof + len(self.prepared) * (HEADER_BYTES + proof)

    def certificates(self) -> tuple[int, ...]:
        return (self.quorum,) * (1 + len(self.prepared))


@dataclasses.dataclass(frozen=True, slots=True)
class NewView(Letter):
    """<NEW-VIEW, v, V, O>."""

    view: int
    changes: tuple[ViewChange, ...]
    proposals: tuple[tuple[int, Block], ...]

    def size_bytes(self, signing: Signing) -> int:
        inside = sum(change.size_bytes(signing) + signing.signature_bytes for change in self.changes)
        return HEADER_BYTES + inside + len(self.proposals) * HEADER_BYTES

    def signatures(self) -> int:
        return len(self.changes)

    def certificates(self) -> tuple[int, ...]:
        return tuple(signers for change in self.changes for signers in change.certificates())


@dataclasses.dataclass(frozen=True, slots=True)
class Fetch(Letter):
    """State transfer: send me what was executed above this height."""

    height: int
    decides = False

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES


@dataclasses.dataclass(frozen=True, slots=True)
class Executed(Letter):
    """State transfer: executed blocks, each with its commit certificate, and the sender's view."""

    view: int
    blocks: tuple[Block, ...]
    quorum: int
    last: int  # height of the sender
    active: bool  # whether the sender works in that view or is changing to it
    decides = False

    def size_bytes(self, signing: Signing) -> int:
        proof = HEADER_BYTES + signing.certificate_bytes(self.quorum)
        return HEADER_BYTES + sum(block.bytes + proof for block in self.blocks)

    def certificates(self) -> tuple[int, ...]:
        return (self.quorum,) * len(self.blocks)
