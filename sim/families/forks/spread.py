"""How a block gets to everybody: from its sealer to all, or hop by hop as go-ethereum spreads it.

Hop by hop (go-ethereum 1.13, eth/handler.go, `BroadcastBlock`; eth/fetcher): who seals a block, or gets one for the
first time, sends it whole to the square root of so many peers as do not have it, drawn at random, before it looks
inside, and announces it to the others when it has taken it in. Who hears of a block that then does not come asks the
announcer for it after `ARRIVES_NS`.
"""

from __future__ import annotations

import dataclasses
import math

from sim.families.forks.branches import STATUS_BYTES, Housekeeping, NewBlock
from sim.protocol import Block, Context, Signing, Timer

ARRIVES_NS = 400_000_000  # go-ethereum's arriveTimeout less gatherSlack
MISSED = Timer("missed block")
_REMEMBERED = 64  # blocks of which it is remembered who has them


@dataclasses.dataclass(frozen=True, slots=True)
class Announce(Housekeeping):
    """The sender has this block."""

    block: Block

    def size_bytes(self, signing: Signing) -> int:
        return STATUS_BYTES


class HopByHop:
    """What one replica knows of who has which blocks, and whom it sends them to."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.have: dict[int, set[int]] = {}  # by the block's number, the latest last

    def has(self, peer: int, block: Block) -> None:
        """Note that a peer has a block."""
        self.have.setdefault(block.number, set()).add(peer)
        while len(self.have) > _REMEMBERED:
            del self.have[next(iter(self.have))]

    def lacking(self, block: Block) -> list[int]:
        """Peers that do not have a block, as far as is known here."""
        have = self.have.get(block.number, set())
        return [peer for peer in range(self.context.n) if peer not in have and peer != self.context.me]

    def pass_on(self, block: Block) -> None:
        """Send a block whole to the square root of those that lack it."""
        lacking = self.lacking(block)
        for _ in range(math.isqrt(len(lacking))):
            peer = lacking.pop(self.context.draw("hop", 0, len(lacking) - 1))
            self.have[block.number].add(peer)
            self.context.send(peer, NewBlock(block))

    def announce(self, block: Block) -> None:
        """Tell the others that it is here."""
        for peer in self.lacking(block):
            self.have[block.number].add(peer)
            self.context.send(peer, Announce(block))
