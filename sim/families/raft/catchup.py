"""How a leader brings a follower's log level with its own: by chunks of the log, or of a snapshot that replaces it.

One chunk is under way at a time (Raft, sections 5.3 and 7), of `entries_per_append` or `snapshot_chunk`. A snapshot
is taken every `snapshot_every` entries at no cost, and the log before it is dropped at once; its size is a parameter.
What is not answered within the least election timeout may be sent again.
"""

from __future__ import annotations

from typing import Any

from sim.families.raft.log import Log
from sim.families.raft.rpc import InstallSnapshot, Received, Repair, Reply
from sim.protocol import Block, Context

SNAPSHOT_PATIENCE = 20  # times the patience, before a chunk of a snapshot is sent again


class Catchup:
    """Both sides of it at one server."""

    def __init__(self, context: Context, log: Log) -> None:
        self.context = context
        self.log = log
        self.parameters: Any = context.parameters
        # of a leader
        self.match_index: dict[int, int] = {}  # what followers are known to store, from their replies
        self.next_index: dict[int, int] = {}
        self.sent_ns: dict[int, int] = {}  # when a follower was last sent something
        self.sending: dict[int, Block] = {}  # last entry of the snapshot that a follower is being sent
        self.offset: dict[int, int] = {}  # where the chunk of it that was sent last begins
        # of a follower: index of the last entry of the snapshot it receives, and bytes
        self.received = (0, 0)

    def begin(self) -> None:
        """A new leadership."""
        self.match_index = {self.context.me: self.log.last_index}
        self.next_index, self.sent_ns, self.sending = {}, {}, {}

    def matches(self, server: int) -> int:
        """The last entry up to which a server is known to store the log."""
        return self.match_index.get(server, 0)

    def stores(self, server: int, index: int) -> None:
        """A server says that it stores the log up to an index."""
        self.match_index[server] = max(self.matches(server), index)

    @property
    def compacted(self) -> int:
        """The last entry that is in the snapshot and no more in the log."""
        every: int = self.parameters.snapshot_every
        return self.context.height // every * every if every else 0

    def go_on(self, follower: int, message: Reply, term: int) -> None:
        """A follower has what it was sent, or its log differs: send what follows the last entry that may match."""
        following = max(self.matches(follower), message.match) + 1
        if message.success:
            if not message.repair or message.match < self.next_index.get(follower, 0):
                return  # of a heartbeat; or of a chunk before the one under way: links may double what is said
            self.sent_ns.pop(follower, None)
            self.sending.pop(follower, None)
        elif not (message.repair and following < self.next_index.get(follower, 0)) and self.under_way(follower):
            return
        self.repair(follower, following, term)

    def under_way(self, follower: int) -> bool:
        """Whether something was sent to a follower so lately that an answer may still come."""
        sent_ns = self.sent_ns.get(follower)
        times = SNAPSHOT_PATIENCE if follower in self.sending else 1
        patience_ns: int = self.parameters.election_timeout_low_ns * times
        return sent_ns is not None and self.context.now_ns - sent_ns < patience_ns

    def repair(self, follower: int, first: int, term: int) -> None:
        """Send a chunk of the log from an entry on, or of the snapshot that contains it."""
        context, log = self.context, self.log
        self.next_index[follower] = first
        if first <= self.compacted:
            self.send_snapshot(follower, 0, term)
            return
        top = min(log.last_index, first + self.parameters.entries_per_append - 1)
        entries = tuple(block for block in map(log.entry, range(first, top + 1)) if block is not None)
        if not entries or entries[0].height != first:
            return
        prev = first - 1
        context.send(follower, Repair(term, prev, log.term_at(prev), entries, context.height))
        self.sent_ns[follower] = context.now_ns

    def send_snapshot(self, follower: int, offset: int, term: int) -> None:
        """Send a chunk of the snapshot: of the one under way, or the latest."""
        context, size_bytes = self.context, self.parameters.snapshot_size_bytes
        last = self.sending.get(follower) or context.chain.decided(self.compacted)
        if last is None:
            return
        length = min(self.parameters.snapshot_chunk_bytes, size_bytes - offset)
        context.send(follower, InstallSnapshot(term, last, offset, length, offset + length == size_bytes))
        self.sending[follower] = last
        self.offset[follower] = offset
        self.sent_ns[follower] = context.now_ns

    def send_more(self, follower: int, message: Received) -> None:
        """A follower has so much of a snapshot: send the next chunk, unless it is under way."""
        last = self.sending.get(follower)
        if last is not None and last.height == message.last_index and message.offset != self.offset[follower]:
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
