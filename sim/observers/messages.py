"""The messages between followers and the voters they follow. All are housekeeping, and none is signed by its sender.

What proves a block is the certificate that its header travels with: the signatures of the protocol's largest deciding
quorum, as `cpu.certificates` lays them out, which the receiver verifies.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from sim.ledger.header import HEADER_BYTES
from sim.protocol import Message, Signing

REQUEST_BYTES = 48  # (A)
HASH_BYTES = 32


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """A decided block of the run: its row and number in the ledger, its height, and the bytes of its transactions."""

    row: int
    number: int
    height: int
    bytes: int


class _Housekeeping(Message):
    __slots__ = ()
    decides: ClassVar[bool] = False
    signed: ClassVar[bool] = False


@dataclasses.dataclass(frozen=True, slots=True)
class SyncFollow(_Housekeeping):
    """Send me the headers above this height; `stay`: and those that follow; `bodies`: and their bodies."""

    above: int
    stay: bool
    bodies: bool

    def size_bytes(self, signing: Signing) -> int:
        return REQUEST_BYTES


@dataclasses.dataclass(frozen=True, slots=True)
class SyncLeave(_Housekeeping):
    """Send me nothing more."""

    def size_bytes(self, signing: Signing) -> int:
        return REQUEST_BYTES


@dataclasses.dataclass(frozen=True, slots=True)
class SyncHeaders(_Housekeeping):
    """Headers with their certificates, in order of height, and how high the sender's chain is."""

    tip: int
    blocks: tuple[Item, ...]
    signers: int
    answer: bool  # to `SyncFollow`

    def size_bytes(self, signing: Signing) -> int:
        return REQUEST_BYTES + len(self.blocks) * (HEADER_BYTES + signing.certificate_bytes(self.signers))

    def certificates(self) -> tuple[int, ...]:
        return (self.signers,) * len(self.blocks)


@dataclasses.dataclass(frozen=True, slots=True)
class SyncWanted(_Housekeeping):
    """Send me the bodies of these blocks."""

    blocks: tuple[Item, ...]

    def size_bytes(self, signing: Signing) -> int:
        return REQUEST_BYTES + HASH_BYTES * len(self.blocks)


@dataclasses.dataclass(frozen=True, slots=True)
class SyncBodies(_Housekeeping):
    """Transactions of blocks whose headers the receiver has: their hashes prove them."""

    blocks: tuple[Item, ...]

    def size_bytes(self, signing: Signing) -> int:
        return REQUEST_BYTES + sum(item.bytes for item in self.blocks)


@dataclasses.dataclass(frozen=True, slots=True)
class HistoryWanted(_Housekeeping):
    """Send me blocks from before the run, so many from number `first`: headers, or bodies of `body_bytes` each."""

    first: int
    count: int
    body_bytes: int | None

    def size_bytes(self, signing: Signing) -> int:
        return REQUEST_BYTES


@dataclasses.dataclass(frozen=True, slots=True)
class History(_Housekeeping):
    """Blocks from before the run: headers with their certificates, or bodies."""

    first: int
    count: int
    body_bytes: int | None
    signers: int

    def size_bytes(self, signing: Signing) -> int:
        if self.body_bytes is not None:
            return REQUEST_BYTES + self.count * self.body_bytes
        return REQUEST_BYTES + self.count * (HEADER_BYTES + signing.certificate_bytes(self.signers))

    def certificates(self) -> tuple[int, ...]:
        return () if self.body_bytes is not None else (self.signers,) * self.count


MESSAGES: tuple[type[Message], ...] = (
    SyncFollow, SyncLeave, SyncHeaders, SyncWanted, SyncBodies, HistoryWanted, History,
)  # fmt: skip
