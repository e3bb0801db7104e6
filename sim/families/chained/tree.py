"""Chains of certified blocks: each block carries a certificate for an ancestor in its body.

Pure bookkeeping that every protocol of such chains needs and none defines: which blocks have arrived, which are
still missing below a certificate, how to ask for them, and what becomes final or dies with a decision.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from sim.protocol import Block, Context, Message, Signing

HEADER_BYTES = 48  # type, view, height, sender, digest (32)
FETCH_MAX = 128  # blocks per answer to a Fetch


@dataclasses.dataclass(frozen=True, slots=True)
class QC:
    """A quorum certificate: so many signatures of votes for a block in a view."""

    view: int
    block: Block | None  # None: the genesis block
    signatures: int

    def size_bytes(self, signing: Signing) -> int:
        """View, digest and signatures."""
        return HEADER_BYTES + signing.certificate_bytes(self.signatures)


GENESIS = QC(0, None, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class Proposal(Message):
    """A block of this view; the certificate it carries is block.body."""

    view: int
    block: Block

    def size_bytes(self, signing: Signing) -> int:
        justify: QC = self.block.body
        return HEADER_BYTES + self.block.bytes + justify.size_bytes(signing)

    def certificates(self) -> tuple[int, ...]:
        justify: QC = self.block.body
        return (justify.signatures,)

    def carries(self) -> Block:
        return self.block


@dataclasses.dataclass(frozen=True, slots=True)
class Certified(Message):
    """A certificate, told to all by the leader who formed it."""

    qc: QC

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES + self.qc.size_bytes(signing)

    def certificates(self) -> tuple[int, ...]:
        return (self.qc.signatures,)


@dataclasses.dataclass(frozen=True, slots=True)
class Fetch(Message):
    """Send me the blocks above this height up to the certified one (None: up to your highest certificate)."""

    justify: QC | None
    height: int
    decides = False

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES


@dataclasses.dataclass(frozen=True, slots=True)
class Blocks(Message):
    """The answer: a piece of the chain below the certificate, in order of height."""

    justify: QC
    blocks: tuple[Block, ...]
    decides = False

    def size_bytes(self, signing: Signing) -> int:
        inside: int = sum(block.bytes + block.body.size_bytes(signing) for block in self.blocks)
        return HEADER_BYTES + self.justify.size_bytes(signing) + inside

    def certificates(self) -> tuple[int, ...]:
        return (self.justify.signatures, *(block.body.signatures for block in self.blocks))


def extends(block: Block | None, ancestor: Block | None) -> bool:
    """Whether a block is the ancestor or descends from it; every block descends from the genesis block (None)."""
    if ancestor is None:
        return True
    height = ancestor.height
    while block is not None and block.height > height:
        block = block.parent
    return block is ancestor


class BlockTree:
    """The blocks that one replica has received and not decided yet."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.blocks: dict[int, Block] = {}
        self.asked_until_ns = 0  # one question at a time

    def __len__(self) -> int:
        return len(self.blocks)

    def add(self, block: Block) -> None:
        """This block has arrived."""
        self.blocks[block.number] = block

    def undecided(self, block: Block | None) -> Iterator[Block]:
        """The block and its undecided ancestors, highest first."""
        decided = self.context.height
        while block is not None and block.height > decided:
            yield block
            block = block.parent

    def hold(self, block: Block | None) -> None:
        """The block and its undecided ancestors are here."""
        decided, here = self.context.height, self.blocks
        while block is not None and block.height > decided:
            here[block.number] = block
            block = block.parent

    def renew(self, block: Block) -> None:
        """Nothing but the block and its undecided ancestors is here."""
        self.blocks = {}
        self.hold(block)

    def lacks(self, block: Block | None) -> bool:
        """Whether the block or an undecided ancestor has not arrived here."""
        decided, here = self.context.height, self.blocks
        while block is not None and block.height > decided:
            if block.number not in here:
                return True
            block = block.parent
        return False

    def commit(self, head: Block) -> None:
        """The block and all its ancestors are final; blocks on other branches never will be."""
        context, decided = self.context, self.context.height
        path = [head]
        while path[-1].parent is not None and path[-1].parent.height > decided:
            path.append(path[-1].parent)
        for block in reversed(path):
            context.decide(block)
            self.blocks.pop(block.number, None)
        top = head.height
        for block in self.blocks.values():  # a plain loop: it runs for every commit, and nearly always to its end
            if block.height <= top or (
                block.parent is not head and (block.parent is None or block.parent.height <= top)
            ):
                break  # it is, or begins, a branch beside the head
        else:
            return
        for number, block in list(self.blocks.items()):
            if self._is_beside(block, head):
                context.chain.abandon(block)
                del self.blocks[number]

    def _is_beside(self, block: Block | None, head: Block) -> bool:
        """Whether the block does not extend the head, as far as its ancestors are here."""
        while block is not None and block.height > head.height:
            if block.number not in self.blocks:
                return False  # nobody can tell until it is here, or the chain has passed it
            block = block.parent
        return block is not head

    # --- missing blocks ----------------------------------------------------------------------------------

    def ask(self, sender: int, justify: QC | None, patience_ns: int) -> None:
        """Ask for the blocks below a certificate, unless a question was asked less than `patience_ns` ago."""
        context = self.context
        if sender != context.me and context.now_ns >= self.asked_until_ns:
            self.asked_until_ns = context.now_ns + patience_ns
            context.send(sender, Fetch(justify, context.height))

    def answer(self, sender: int, message: Fetch, high: QC) -> None:
        """Send the lowest of the blocks that the sender lacks, if none is missing here."""
        justify = high if message.justify is None else message.justify
        block = justify.block
        if self.lacks(block):
            return
        chain: list[Block] = []
        while block is not None and block.height > message.height and block.body is not None:
            chain.append(block)
            block = block.parent
        self.context.send(sender, Blocks(justify, tuple(chain[::-1][:FETCH_MAX])))

    def take(self, message: Blocks, valid: Callable[[Block], bool]) -> Iterator[Block]:
        """Keep the valid ones of these blocks; each that now hangs together with what is decided, in order."""
        self.asked_until_ns = 0
        for block in message.blocks:
            if block.height > self.context.height and valid(block):
                self.add(block)
                if not self.lacks(block):
                    yield block
