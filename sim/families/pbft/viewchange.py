"""How PBFT and its variants change their view, and bring one another up to date: messages, and what follows from them.

M. Castro, B. Liskov, "Practical Byzantine Fault Tolerance", OSDI 1999, section 4.4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping

from sim.families.sync import HEADER_BYTES
from sim.protocol import Block, Message, Signing


@dataclasses.dataclass(frozen=True, slots=True)
class ViewChange(Message):
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
class NewView(Message):
    """<NEW-VIEW, v, V, O>. A batch of O that was made for it travels inside; the others are named."""

    view: int
    changes: tuple[ViewChange, ...]
    proposals: tuple[tuple[int, Block], ...]

    def size_bytes(self, signing: Signing) -> int:
        inside = sum(change.size_bytes(signing) + signing.signature_bytes for change in self.changes)
        filled = sum(block.bytes for _, block in self.proposals if block.view == self.view)  # gaps: nobody has those
        return HEADER_BYTES + inside + len(self.proposals) * HEADER_BYTES + filled

    def follows_from(self, carried: list[tuple[int, Block | None]]) -> bool:
        """Whether O is what V asks for: the batches carried over, and in the gaps whatever the primary chose."""
        return len(self.proposals) == len(carried) and all(
            sequence == expected and (block is None or proposed is block)
            for (sequence, proposed), (expected, block) in zip(self.proposals, carried, strict=True)
        )

    def signatures(self) -> int:
        return len(self.changes)

    def certificates(self) -> tuple[int, ...]:
        return tuple(signers for change in self.changes for signers in change.certificates())


@dataclasses.dataclass(frozen=True, slots=True)
class Executed(Message):
    """State transfer, upon `Fetch`: executed blocks, each with its commit certificate, and the sender's view."""

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


def first_quorum(
    changes: Mapping[int, ViewChange], enough: Callable[[Collection[int]], bool]
) -> tuple[ViewChange, ...]:
    """V: of the VIEW-CHANGEs for a view, by sender and as they came, those that were a quorum first."""
    chosen: dict[int, ViewChange] = {}
    for replica, change in changes.items():
        chosen[replica] = change
        if enough(chosen):
            break
    return tuple(chosen.values())


def min_s(changes: Iterable[ViewChange]) -> int:
    """The latest stable checkpoint in V."""
    return max(change.low_mark for change in changes)


def carried_over(changes: tuple[ViewChange, ...]) -> tuple[int, list[tuple[int, Block | None]]]:
    """min-s and O's batches: per sequence number the one prepared in the highest view, or none (null)."""
    low = min_s(changes)
    best: dict[int, tuple[int, Block]] = {}
    for change in changes:
        for sequence, view, block in change.prepared:
            if sequence > low and (sequence not in best or view > best[sequence][0]):
                best[sequence] = (view, block)
    top = max(best, default=low)
    return low, [(s, best[s][1] if s in best else None) for s in range(low + 1, top + 1)]
