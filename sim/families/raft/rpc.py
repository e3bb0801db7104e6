"""What the servers of a replicated log say to each other: the remote procedure calls of Raft, and their results.

Raft, figure 2 (RequestVote, AppendEntries) and figure 13 (InstallSnapshot). AppendEntries comes in three messages: with
one new entry, with older ones for a log that lacks them, and with none. None is signed.
"""

from __future__ import annotations

import dataclasses

from sim.protocol import Block, Message, Signing

HEADER_BYTES = 48  # type, sender, term, index and term of an entry, commit index or offset
ENTRY_BYTES = 16  # term and length of an entry among several


class Rpc(Message):
    """A remote procedure call or its result: unsigned, and housekeeping unless it says otherwise."""

    __slots__ = ()
    decides = False
    signed = False

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES


@dataclasses.dataclass(frozen=True, slots=True)
class RequestVote(Rpc):
    """RequestVote(term, candidateId, lastLogIndex, lastLogTerm). `round_` names the ballot; `pre`: it is a trial."""

    term: int
    last_index: int
    last_term: int
    round_: int
    pre: bool


@dataclasses.dataclass(frozen=True, slots=True)
class AppendEntries(Rpc):
    """AppendEntries(term, leaderId, prevLogIndex, prevLogTerm, entries[], leaderCommit), one new entry."""

    term: int
    prev_index: int
    prev_term: int
    block: Block
    commit: int
    decides = True

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES + self.block.bytes

    def carries(self) -> Block:
        return self.block


@dataclasses.dataclass(frozen=True, slots=True)
class Heartbeat(Rpc):
    """AppendEntries without entries. `round_` numbers those that the leader counts answers to."""

    term: int
    prev_index: int
    prev_term: int
    commit: int
    round_: int = 0


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
class Reply(Rpc):
    """Result (term, success). `match`: last entry known to match; without success, the last that may."""

    term: int
    success: bool
    match: int
    repair: bool
    round_: int = 0  # of the heartbeat answered


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
class Stored(Rpc):
    """Result of AppendEntries where members change: I store the log up to this entry."""

    term: int
    match: int
    decides = True


@dataclasses.dataclass(frozen=True, slots=True)
class Granted(Rpc):
    """Result of RequestVote where members change: you have my vote in this term and ballot."""

    term: int
    round_: int
    pre: bool
