"""What a server of a replicated log does besides electing and replicating: snapshots, membership, reads.

D. Ongaro, "Consensus: bridging theory and practice", PhD thesis, Stanford 2014, chapters 4 to 6. The handlers are
methods of the replica, for a handler needs one, so Raft derives from this class. How each part works stands in
`catchup`, `members` and `reads`; here is what a server does with them.

Deviations
* Where members change (see `Membership.may_change`), the results of AppendEntries and RequestVote are messages, Stored
  and Granted, counted by the leader and the candidate against the configuration in force.
* A removed server is told the entry that removes it, and then stands for election no more.
* Reads are one a `read_interval` from each server's clients, passed to the leader. A lease lasts the least election
  timeout from when the latest message that a majority answered was sent; clocks run alike. A server that restarts
  gives no vote for as long, since it may have forgotten whom it heard; nor does one that learns of a later term.
* At most 64 rounds of heartbeats are under way for reads; those that come meanwhile share the next.
"""

from __future__ import annotations

import abc
import enum
import functools
from collections.abc import Collection
from typing import Literal

from pydantic import Field

from sim.families.raft.catchup import Catchup
from sim.families.raft.log import Log
from sim.families.raft.members import Members, Membership
from sim.families.raft.reads import READ, LeaderReads, Read, ReadAnswer
from sim.families.raft.rpc import Granted, Heartbeat, InstallSnapshot, Received, Reply, RequestVote, Stored
from sim.families.turns import FirstLeader
from sim.parameters import Bytes, Nanoseconds, count, quantity
from sim.protocol import (
    MEMBERSHIP,
    Ballot,
    Block,
    Context,
    MembersChange,
    Message,
    Quorum,
    Replica,
    Timer,
    invariant,
    upon,
)


class Role(enum.Enum):
    """What a server is."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


HEARTBEAT_TIMER = Timer("heartbeat")
QUORUM_TIMER = Timer("check quorum")


class LogParameters(FirstLeader):
    """Parameters of what this file adds."""

    membership: Literal["single", "joint"] = Field(
        "single", description="members change one voter at a time, or all at once through a joint configuration"
    )
    configurations: Literal["appended", "applied"] = Field(
        "appended", description="a configuration is in force once it is in the log (thesis), or once committed (etcd)"
    )
    reads: Literal["off", "read_index", "lease"] = Field(
        "off", description="how the leader answers reads: not at all, after a round of heartbeats, or under a lease"
    )
    read_interval_ns: Nanoseconds = quantity(
        "10 ms", "with reads: time between two reads of each server's clients", positive=True
    )
    snapshot_every: int = count(
        100_000, "entries after which a server takes a snapshot and drops its log up to there; 0: never"
    )
    snapshot_size_bytes: Bytes = quantity("10 MB", "size of a snapshot on the wire", positive=True)
    snapshot_chunk_bytes: Bytes = quantity("1 MB", "most of a snapshot sent at a time", positive=True)


class LogServer(Replica, abc.ABC):
    """One server: its term, role and log, and what is around them."""

    later_messages = (Stored, Granted, InstallSnapshot, Received, Read, ReadAnswer)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.term = 0
        self.voted_for: int | None = None
        self.role = Role.FOLLOWER
        self.known_leader: int | None = None
        self.log = Log(context)
        self.sent_ns = 0  # of a leader: when all followers were last sent something
        self.commit_at_election = 0  # of a leader: commit index when its term began
        self.left_index = 0  # of a leader: no entry up to this one waits at its network card
        self.heard: set[int] = set()  # of a leader: followers heard from since the last quorum check
        self.catchup = Catchup(context, self.log)
        self.membership = Membership(
            context,
            joint=self.parameters.membership == "joint",
            when_applied=self.parameters.configurations == "applied",
        )
        self.reads = LeaderReads(context, self.lease_ns(), self.send_heartbeat)
        self.silent_until_ns = 0  # no vote before: whoever was given a lease may have been promised it by me

    def first_start(self) -> None:
        """Stable storage is empty."""
        self.context.disk.persist(tail=(), doubtful=(), settled=self.membership.settled, requests=())

    def restore(self) -> None:
        """Read the log and its members from disk."""
        self.log.restore()
        self.membership.restore()
        self.take_members()
        self.silent_until_ns = self.context.clock.deadline_ns(self.lease_ns())

    @property
    def view_number(self) -> int:
        return self.term

    def voters_needed(self) -> int:
        return self.quorum()

    def needs(self) -> tuple[Quorum, ...]:
        if not self.context.membership.may_change:
            return super().needs()
        return tuple(
            Quorum(len(voters) // 2 + 1, weights=tuple(int(server in voters) for server in range(self.context.n)))
            for members in (self.membership.settled, self.membership.members)
            for voters in (members.voters, members.leaving)
            if voters is not None
        )

    def carried_out(self) -> Collection[int]:
        settled = self.membership.settled
        return range(1, settled.request + (settled.leaving is None))

    # --- what the protocol says --------------------------------------------------------------------------

    @abc.abstractmethod
    def quorum(self) -> int:
        """How many servers are enough where members do not change."""

    @abc.abstractmethod
    def step_down(self, term: int) -> None:
        """Be a follower."""

    @abc.abstractmethod
    def hear(self, sender: int, term: int) -> bool:
        """Whether a message comes from this term's leader."""

    @abc.abstractmethod
    def on_elected(self, ballot: Ballot) -> None:
        """Enough voted for me."""

    @abc.abstractmethod
    def on_pre_elected(self, ballot: Ballot) -> None:
        """Enough would vote for me."""

    @abc.abstractmethod
    def replicate(self, block: Block) -> None:
        """Append an entry and send it to all."""

    @abc.abstractmethod
    def count_replicas(self) -> None:
        """Commit what enough servers store."""

    # --- the log -----------------------------------------------------------------------------------------

    def absorb_fast_path(self) -> None:
        """Learn what the fast path accepted and decided since the last handler ran."""
        if self.role is not Role.LEADER:
            self.log.absorb_fast_path()

    def store(self, entries: tuple[Block, ...]) -> None:
        """AppendEntries rules 3 and 4; a configuration among the entries is in force now."""
        self.log.store(entries)
        self.take_members()

    def commit_to(self, index: int) -> None:
        """AppendEntries rule 5: decide the log up to an index."""
        for block in self.log.commit_to(index):
            self.settle_members(block)

    @invariant("currentTerm and votedFor are on disk")
    def promises_are_stored(self) -> bool:
        """Before anybody hears of them (figure 2, persistent state)."""
        stable = self.context.disk.stable
        return bool(stable["term"] == self.term and stable["voted_for"] == self.voted_for)

    @invariant("who stands for election, or leads, has voted for itself")
    def candidates_vote_for_themselves(self) -> bool:
        """In this term."""
        return self.role not in (Role.CANDIDATE, Role.LEADER) or self.voted_for == self.context.me

    @invariant("a leader commits entries of its own term, and older ones with them")
    def commits_its_own(self) -> bool:
        """Section 5.4.2: what it committed last is of its term."""
        height = self.context.height
        if self.role is not Role.LEADER or height == self.commit_at_election:
            return True
        last = self.context.chain.decided(height)
        return last is None or last.view == self.term

    @invariant("the log goes on where it is committed to")
    def log_is_whole(self) -> bool:
        """No entry lacks between the commit index and the last index."""
        return not self.log.tail or self.log.tail[0].height <= self.context.height + 1

    @invariant("entries follow each other, in terms that never go back")
    def log_is_in_order(self) -> bool:
        """The log above the last decided entry."""
        return self.log.is_in_order()

    @invariant("no entry is of a later term than the server")
    def log_is_of_the_past(self) -> bool:
        """Entries come from leaders of terms that the server has seen."""
        return not self.log.tail or self.log.tail[-1].view <= self.term

    def waits_for(self) -> str:
        return f"{self.role.value} in term {self.term}"

    def abstract_state(self) -> tuple[int, str]:
        return self.context.height, self.role.value

    def leader(self, ahead: int = 0) -> int | None:
        """Nobody knows who will win a later term."""
        return None if ahead else self.known_leader

    # --- leaders and those who wait for one ------------------------------------------------------------------

    def await_leader(self) -> None:
        """Run the election timer; who has no vote does not stand for election."""
        parameters = self.parameters
        if not self.membership.members.votes(self.context.me):
            self.context.clock.watch_progress(0)
            return
        low, high = parameters.election_timeout_low_ns, parameters.election_timeout_high_ns
        self.context.clock.watch_progress(low, high, parameters.election_tick_ns)

    def begin_term(self) -> None:
        """I lead: what I know of others and of my own leadership begins anew."""
        self.heard = set()
        self.commit_at_election = self.context.height
        self.left_index = self.log.last_index
        self.catchup.begin()
        self.membership.joining = set()
        self.reads.begin()

    def tell_all(self, message: Message) -> None:
        """Send a message to all who get the log."""
        if self.context.membership.may_change:
            self.membership.tell(self.membership.receivers(), message)
        else:
            self.context.broadcast(message)

    def heartbeat(self, round_: int) -> Heartbeat:
        """AppendEntries without entries. It asks for no entry that it would overtake."""
        self.note_what_left()
        last = max(self.left_index, self.context.height)
        return Heartbeat(self.term, last, self.log.term_at(last), self.context.height, round_)

    def note_what_left(self) -> None:
        """Entries that no longer wait at my network card are on their way, before whatever I send now."""
        if self.context.pacing.blocks_have_left:
            self.left_index = self.log.last_index

    def send_heartbeat(self) -> None:
        """One to all, whose answers count."""
        round_ = self.reads.sent()
        self.tell_all(self.heartbeat(round_))
        self.sent_ns = self.context.now_ns
        self.reads.answered(round_, self.context.me, self.majority)  # alone, I am a majority

    @upon(HEARTBEAT_TIMER)
    def on_heartbeat_due(self, term: int) -> None:
        """Send a heartbeat if nothing else was sent for an interval."""
        context = self.context
        if self.role is not Role.LEADER or term != self.term:
            return
        interval_ns = self.parameters.heartbeat_interval_ns
        if context.now_ns - self.sent_ns >= interval_ns:
            self.send_heartbeat()
        context.set_timer(HEARTBEAT_TIMER, self.sent_ns + interval_ns - context.now_ns, term)

    def answers_me(self, term: int) -> bool:
        """Whether the result of a call is meant for me as I am: this term's leader. Follow whoever has a newer one."""
        if term > self.term:
            self.step_down(term)
        return self.role is Role.LEADER and term == self.term

    @upon(QUORUM_TIMER)
    def on_quorum_check(self, term: int) -> None:
        """Thesis 6.2: a leader that no majority answers steps down."""
        if self.role is not Role.LEADER or term != self.term:
            return
        if not self.majority(self.heard | {self.context.me}):
            self.step_down(term)
            return
        self.heard = set()
        self.context.set_timer(QUORUM_TIMER, self.parameters.election_timeout_low_ns, term)

    # --- snapshots: paper section 7, thesis chapter 5 ----------------------------------------------------

    @upon(InstallSnapshot)
    def on_install_snapshot(self, leader: int, message: InstallSnapshot) -> None:
        """Keep a chunk; with the last one, take the snapshot's place for the log up to its last entry."""
        if not self.hear(leader, message.term):
            return
        context, last = self.context, message.last
        if last.height > context.height:
            if not self.catchup.take(leader, message, self.term):
                return
            for block in self.log.install(last):
                self.settle_members(block)
            self.take_members()
            self.in_step = False
        context.disk.when_stored(functools.partial(context.send, leader, Reply(self.term, True, context.height, True)))

    @upon(Received)
    def on_received(self, follower: int, message: Received) -> None:
        """Send the next chunk."""
        if self.answers_me(message.term) and follower in self.catchup.sending:
            self.heard.add(follower)
            self.catchup.send_more(follower, message)

    # --- membership: thesis chapter 4 --------------------------------------------------------------------

    def majority(self, servers: Collection[int]) -> bool:
        """Whether these servers are enough to elect and to commit."""
        return (
            self.membership.members.agrees(servers)
            if self.context.membership.may_change
            else len(servers) >= self.quorum()
        )

    def take_members(self) -> None:
        """The latest configuration in the log is in force, committed or not, or the latest that is committed."""
        if self.context.membership.may_change and self.membership.take(self.log.tail) and self.role is not Role.LEADER:
            self.await_leader()

    def settle_members(self, block: Block) -> None:
        """A configuration is committed."""
        self.membership.settle(block)
        if isinstance(block.body, Members):
            if self.membership.when_applied:
                self.take_members()
            self.context.clients.serve(yes=self.context.me in block.body.everyone())

    @upon(MEMBERSHIP)
    def on_membership(self, change: MembersChange) -> None:
        """The operator asks for a change; whoever leads sees to it, now or later."""
        self.membership.ask(change)
        self.change_members()

    def change_members(self) -> None:
        """Append the next configuration, once the last one and an entry of this term are committed."""
        context, membership = self.context, self.membership
        if not context.membership.may_change or self.role is not Role.LEADER:
            return
        if membership.is_under_way(self.log.tail) or self.log.term_at(context.height) != self.term:
            return
        if membership.has_left_me:
            self.retire()
            return
        following = membership.following(lambda server: self.catchup.matches(server) >= context.height)
        if following is not None:
            self.append_members(following)

    def append_members(self, members: Members) -> None:
        """A configuration is an entry; transactions ride along."""
        block = self.context.new_block(self.log.entry(self.log.last_index), self.term, empty=True)
        assert block is not None
        block.body = members
        if not self.membership.when_applied:
            self.membership.joining -= members.everyone()
        self.replicate(block)

    def retire(self) -> None:
        """The configuration without me is committed: tell it, and lead no more."""
        self.tell_all(self.heartbeat(0))
        self.step_down(self.term)

    @upon(Granted)
    def on_granted(self, voter: int, message: Granted) -> None:
        """A vote for me, perhaps the one that makes a majority of the members."""
        ballot = self.membership.count(voter, message, self.majority)
        if ballot is not None:
            (self.on_pre_elected if message.pre else self.on_elected)(ballot)

    def grant(self, candidate: int, request: RequestVote) -> None:
        """Vote for a candidate, perhaps myself."""
        granted = Granted(request.term, request.round_, request.pre)
        if candidate == self.context.me:
            self.on_granted(candidate, granted)
        else:
            self.context.send(candidate, granted)

    @upon(Stored)
    def on_stored_by(self, server: int, message: Stored) -> None:
        """A server, perhaps myself, stores an entry."""
        if not self.answers_me(message.term):
            return
        self.heard.add(server)
        self.catchup.stores(server, message.match)
        self.count_replicas()
        self.change_members()

    # --- reads: thesis 6.4 -------------------------------------------------------------------------------

    def lease_ns(self) -> int:
        """How long after a majority was last heard nobody else can lead; 0 without leases."""
        return self.parameters.election_timeout_low_ns if self.parameters.reads == "lease" else 0

    def promised_until_ns(self) -> int:
        """How long a leader may count on me that I have heard and now forget."""
        return self.context.clock.deadline_ns(self.lease_ns() - self.context.clock.since_progress_ns)

    def begin_reads(self) -> None:
        """Wait for my clients' first read."""
        if self.parameters.reads != "off":
            self.context.set_timer(READ, self.parameters.read_interval_ns)

    @upon(READ)
    def on_read_due(self, _about: None) -> None:
        """My clients read something: pass it to the leader, if I know one."""
        context = self.context
        context.set_timer(READ, self.parameters.read_interval_ns)
        read = Read(context.now_ns)
        if self.known_leader == context.me:
            self.on_read(context.me, read)
        elif self.known_leader is not None:
            context.send(self.known_leader, read)

    @upon(Read)
    def on_read(self, asker: int, read: Read) -> None:
        """Answer once an entry of my term is decided, so that I know all that is."""
        if self.role is Role.LEADER and self.log.term_at(self.context.height) == self.term:
            self.reads.serve(asker, read)

    @upon(ReadAnswer)
    def on_read_answer(self, leader: int, answer: ReadAnswer) -> None:
        """Tell my client."""
        self.context.clients.answer_read(answer.asked_ns, answer.height)
