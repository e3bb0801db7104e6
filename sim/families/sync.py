"""Block synchronisation: how a replica that is behind learns what others have decided.

For protocols that decide one height after the other. Who hears from a lower height says how far it is; who hears
of a higher one fetches the missing blocks with their commit certificates, from one peer at a time.
"""

from __future__ import annotations

import dataclasses

from sim.protocol import Block, Context, Message, Signing, Timer

HEADER_BYTES = 48  # type, height, round, sender, digest (32)
FETCH_MAX = 512  # blocks per answer
FETCH_TIMER = Timer("fetch")


@dataclasses.dataclass(frozen=True, slots=True)
class Status(Message):
    """How many blocks the sender has decided, said to one who seems to have fewer."""

    height: int
    decides = False

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES


@dataclasses.dataclass(frozen=True, slots=True)
class Fetch(Message):
    """Send me the blocks above this height."""

    height: int
    decides = False

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES


@dataclasses.dataclass(frozen=True, slots=True)
class Blocks(Message):
    """Decided blocks, each with its commit certificate, and the sender's height."""

    blocks: tuple[Block, ...]
    signers: int
    last: int
    decides = False

    def size_bytes(self, signing: Signing) -> int:
        certificate = HEADER_BYTES + signing.certificate_bytes(self.signers)
        return HEADER_BYTES + sum(block.bytes + certificate for block in self.blocks)

    def certificates(self) -> tuple[int, ...]:
        return (self.signers,) * len(self.blocks)


class BlockSync:
    """One replica's side of it. `patience_ns`: how long an answer may take before another peer is asked.

    `peers`: whom it asks in turn, in order of their numbers; by default all others.
    """

    def __init__(self, context: Context, patience_ns: int, peers: tuple[int, ...] | None = None) -> None:
        self.context = context
        self.patience_ns = patience_ns
        self.peers = tuple(peer for peer in range(context.n) if peer != context.me) if peers is None else peers
        self.waiting = 0  # timer of the answer awaited
        self.asked = -1, -1  # whom it asked last, and above which height
        self.keeps_asking = False  # when level, ask again after the patience: nobody sends it blocks
        self.again = 0  # timer of that

    def fetch(self, peer: int) -> None:
        """Ask a peer for the blocks above this replica's height, unless an answer is awaited."""
        context = self.context
        if self.waiting or context.n == 1:
            return
        context.cancel(self.again)
        self.asked = peer, context.height
        context.send(peer, Fetch(context.height))
        self.waiting = context.set_timer(FETCH_TIMER, self.patience_ns, peer)

    def fetch_from_next(self, peer: int) -> None:
        """Ask the one after this peer."""
        if self.peers:
            self.fetch(next((other for other in self.peers if other > peer), self.peers[0]))

    def on_timeout(self, peer: int) -> None:
        """No answer: ask the next."""
        self.waiting = 0
        self.fetch_from_next(peer)

    def hear_of(self, peer: int, height: int) -> None:
        """A peer has decided so many blocks: fetch if this replica has fewer."""
        if height > self.context.height:
            self.fetch(peer)

    def answer(self, peer: int, above: int, signers: int) -> None:
        """Send a peer what is decided here above a height, with certificates of so many signers."""
        context = self.context
        top = min(context.height, above + FETCH_MAX)
        blocks = [context.chain.decided(height) for height in range(above + 1, top + 1)]
        context.send(peer, Blocks(tuple(block for block in blocks if block is not None), signers, context.height))

    def take(self, peer: int, message: Blocks) -> bool:
        """Decide what was fetched, and go on until level with the peer: True.

        While an answer is awaited no other is a reason to ask again: else each that comes late doubles the questions.
        """
        context = self.context
        above = message.blocks[0].height - 1 if message.blocks else self.asked[1]
        late = bool(self.waiting) and (peer, above) != self.asked
        if not late:
            context.cancel(self.waiting)
            self.waiting = 0
        for block in message.blocks:
            if block.height == context.height + 1 and block.parent is context.chain.decided(context.height):
                context.decide(block)
        if late or (context.height < message.last and message.blocks):
            self.fetch(peer)
            return False
        if self.keeps_asking:
            self.again = context.set_timer(FETCH_TIMER, self.patience_ns, peer)
        return True
