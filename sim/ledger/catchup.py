"""How a leader brings a follower's log level with its own: by chunks of the log, or of a snapshot that replaces it.

One chunk is under way at a time (Raft, sections 5.3 and 7). A snapshot is taken every so many entries at no cost, and
the log before it is dropped at once.
"""

from __future__ import annotations

import dataclasses

from sim.ledger.log import Log
from sim.protocol import Block, Context, Letter, Signing

HEADER_BYTES = 48  # type, sender, term, index and term of an entry, commit index or offset
ENTRY_BYTES = 16  # term and length of an entry among several
SNAPSHOT_PATIENCE = 20  # times the patience, before a chunk of a snapshot is sent again


class Rpc(Letter):
    """A remote procedure call or its result: unsigned, and housekeeping unless it says otherwise."""

    __slots__ = ()
    decides = False
    signed = False

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES


@dataclasses.dataclass(frozen=True, slots=True)
class Repair(Rpc):
    """AppendEntries with older entries, for one follower whose log lacks them."""

    term: int
    prev_index: int
    prev_term: int
    entries: tuple[Block, ...]
    commit: int

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES + sum(ENTRY_BYTES + block.bytes for block in self.entries)


@dataclasses.dataclass(frozen=True, slots=True)
class InstallSnapshot(Rpc):
    """InstallSnapshot(term, leaderId, lastIncludedIndex, lastIncludedTerm, offset, data[], done)."""

    term: int
    last: Block
    offset: int
    length: int
    done: bool

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES + self.length


@dataclasses.dataclass(frozen=True, slots=True)
class Received(Rpc):
    """The result of InstallSnapshot: how much of which snapshot is there."""

    term: int
    last_index: int
    offset: int


@dataclasses.dataclass(frozen=True, slots=True)
class Chunks:
    """How much is sent at a time, and when a server takes a snapshot (0: never)."""

    entries: int
    snapshot_every: int
    snapshot_size_bytes: int
    snapshot_chunk_bytes: int
    patience_ns: int  # before a chunk of the log is sent again


class Catchup:
    """Both sides of it at one server."""

    def __init__(self, context: Context, log: Log, chunks: Chunks) -> None:
        self.context = context
        self.log = log
        self.chunks = chunks
        # of a leader
        self.next_index: dict[int, int] = {}
        self.sent_ns: dict[int, int] = {}  # when a follower was last sent something
        self.sending: dict[int, Block] = {}  # last entry of the snapshot that a follower is being sent
        # of a follower: index of the last entry of the snapshot it receives, and bytes
        self.received = (0, 0)

    def begin(self) -> None:
        """A new leadership."""
        self.next_index, self.sent_ns, self.sending = {}, {}, {}

    @property
    def compacted(self) -> int:
        """The last entry that is in the snapshot and no more in the log."""
        every = self.chunks.snapshot_every
        return self.context.height // every * every if every else 0

    def stored(self, follower: int) -> None:
        """A follower has what it was sent."""
        self.sent_ns.pop(follower, None)
        self.sending.pop(follower, None)

    def under_way(self, follower: int) -> bool:
        """Whether something was sent to a follower so lately that an answer may still come."""
        sent_ns = self.sent_ns.get(follower)
        patience_ns = self.chunks.patience_ns * (SNAPSHOT_PATIENCE if follower in self.sending else 1)
        return sent_ns is not None and self.context.now_ns - sent_ns < patience_ns

    def repair(self, follower: int, first: int, term: int) -> None:
        """Send a chunk of the log from an entry on, or of the snapshot that contains it."""
        context, log = self.context, self.log
        self.next_index[follower] = first
        if first <= self.compacted:
            self.send_snapshot(follower, 0, term)
            return
        top = min(log.last_index, first + self.chunks.entries - 1)
        entries = tuple(block for block in map(log.entry, range(first, top + 1)) if block is not None)
        if not entries or entries[0].height != first:
            return
        prev = first - 1
        context.send(follower, Repair(term, prev, log.term_at(prev), entries, context.height))
        self.sent_ns[follower] = context.now_ns

    def send_snapshot(self, follower: int, offset: int, term: int) -> None:
        """Send a chunk of the snapshot: of the one under way, or the latest."""
        context, size_bytes = self.context, self.chunks.snapshot_size_bytes
        last = self.sending.get(follower) or context.decided_block(self.compacted)
        if last is None:
            return
        length = min(self.chunks.snapshot_chunk_bytes, size_bytes - offset)
        context.send(follower, InstallSnapshot(term, last, offset, length, offset + length == size_bytes))
        self.sending[follower] = last
        self.sent_ns[follower] = context.now_ns

    def send_more(self, follower: int, message: Received) -> None:
        """A follower has so much of a snapshot: send the next chunk."""
        last = self.sending.get(follower)
        if last is not None and last.height == message.last_index:
            self.send_snapshot(follower, message.offset, message.term)

    def take(self, leader: int, message: InstallSnapshot, term: int) -> bool:
        """Keep a chunk and ask for the next one; True: that was the last."""
        index, offset = self.received
        height = message.last.height
        offset = offset if index == height else 0
        if message.offset == offset:
            offset += message.length
            self.received = (height, offset)
            if message.done:
                return True
        self.context.send(leader, Received(term, height, offset))
        return False
