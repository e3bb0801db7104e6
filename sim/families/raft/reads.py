"""Reads that must not be stale, served by a leader without an entry of the log (Raft thesis, section 6.4).

A leader may answer from what it has decided if it was still the leader after the read arrived, or, with a lease, if
nobody else can have become leader yet. It knows either from one number: the latest time at which it sent something
that a majority has answered since.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from sim.protocol import Context, Message, Signing, Timer

READ_BYTES = 64
ANSWER_BYTES = 128
ROUNDS_MAX = 64  # of heartbeats under way; reads that come meanwhile share the next

READ = Timer("read")


@dataclasses.dataclass(frozen=True, slots=True)
class Read(Message):
    """A client of the sender asks for the latest state."""

    asked_ns: int
    decides = False
    signed = False

    def size_bytes(self, signing: Signing) -> int:
        return READ_BYTES


@dataclasses.dataclass(frozen=True, slots=True)
class ReadAnswer(Message):
    """The state after the block of this height."""

    asked_ns: int
    height: int
    decides = False
    signed = False

    def size_bytes(self, signing: Signing) -> int:
        return ANSWER_BYTES


class LeaderReads:
    """The reads that wait at a leader, and what it knows of its own leadership."""

    def __init__(self, context: Context, lease_ns: int, confirm: Callable[[], None]) -> None:
        self.context = context
        self.lease_ns = lease_ns  # 0: no lease
        self.confirm = confirm  # sends something that all answer
        self.confirmed_ns = -(1 << 62)
        self.waiting: list[tuple[int, Read, int, int]] = []  # asker, read, when it arrived, height then
        self.rounds: dict[int, tuple[int, set[int]]] = {}  # of heartbeats: when sent, who answered
        self.entry_sent_ns: dict[int, int] = {}  # by index
        self.heartbeats = 0

    def begin(self) -> None:
        """A new leadership."""
        self.confirmed_ns = -(1 << 62)
        self.waiting = []
        self.rounds = {}
        self.entry_sent_ns = {}

    def sent(self) -> int:
        """A round of heartbeats leaves now; returns its number. Of too many without an answer, the oldest is lost."""
        self.heartbeats += 1
        self.rounds[self.heartbeats] = (self.context.now_ns, {self.context.me})
        if len(self.rounds) > ROUNDS_MAX:
            del self.rounds[min(self.rounds)]
        return self.heartbeats

    def answered(self, round_: int, server: int, majority: Callable[[set[int]], bool]) -> None:
        """A server has answered a round of heartbeats: if that is enough, the rounds before it matter no more."""
        found = self.rounds.get(round_)
        if found is None:
            return
        sent_ns, servers = found
        servers.add(server)
        if majority(servers):
            self.rounds = {later: heard for later, heard in self.rounds.items() if later > round_}
            self.confirmed(sent_ns)
            self.ask()

    def sent_entry(self, index: int) -> None:
        """An entry of the log leaves now."""
        self.entry_sent_ns[index] = self.context.now_ns

    def stored_entry(self, index: int) -> None:
        """A majority stores the entry of this index: I led when I sent it."""
        sent_ns = self.entry_sent_ns.pop(index, None)
        if sent_ns is not None:
            self.confirmed(sent_ns)
            for older in [other for other in self.entry_sent_ns if other < index]:
                del self.entry_sent_ns[older]

    def confirmed(self, sent_ns: int) -> None:
        """A majority has answered what was sent then."""
        self.confirmed_ns = max(self.confirmed_ns, sent_ns)
        still = []
        for asker, read, arrived_ns, height in self.waiting:
            if arrived_ns <= self.confirmed_ns:
                self.answer(asker, read, height)
            else:
                still.append((asker, read, arrived_ns, height))
        self.waiting = still

    def serve(self, asker: int, read: Read) -> None:
        """Answer now if the lease holds, else as soon as leadership is confirmed."""
        context = self.context
        if context.clock.elapsed_ns(self.confirmed_ns) < self.lease_ns:
            self.answer(asker, read, context.height)
            return
        self.waiting.append((asker, read, context.now_ns, context.height))
        self.ask()

    def ask(self) -> None:
        """Have leadership confirmed for the last read that waits, unless a round does, or too many are under way."""
        if not self.waiting or len(self.rounds) >= ROUNDS_MAX:
            return
        last_sent_ns = self.rounds[max(self.rounds)][0] if self.rounds else -1
        if last_sent_ns < self.waiting[-1][2]:
            self.confirm()

    def answer(self, asker: int, read: Read, height: int) -> None:
        """Answer a read."""
        if asker == self.context.me:
            self.context.clients.answer_read(read.asked_ns, height)
        else:
            self.context.send(asker, ReadAnswer(read.asked_ns, height))
