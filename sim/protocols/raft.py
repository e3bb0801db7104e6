"""Raft.

D. Ongaro, J. Ousterhout, "In search of an understandable consensus algorithm", USENIX ATC 2014, section 5;
D. Ongaro, "Consensus: bridging theory and practice", PhD thesis, Stanford 2014: 4 (membership), 5 (snapshots), 6.2
and 9.6 (the two options of elections).

A follower that hears of no leader for a randomised time becomes a candidate in the next term and asks all for
their vote; a server votes once a term, for a candidate whose log is at least as up to date as its own. The
candidate with a majority leads: it appends entries to its log and sends them with AppendEntries, which a
follower accepts if its log holds the entry before them. The leader commits an entry *of its own term* once a
majority stores it, and all entries before with it; the next AppendEntries tells followers the commit index.

paper                   here
-----                   ----
currentTerm, votedFor   term, voted_for (persisted)
log[]                   log: blocks, index = height, term = view; the ledger has the decided ones
commitIndex             context.height
AppendEntries RPC       AppendEntries (one new entry, to all), Heartbeat (none), Repair (older ones, to one)
its result              ACK votes for AppendEntries, Reply for the other two and whenever it is false
RequestVote RPC         RequestVote; granted by VOTE (PRE_VOTE), denied by silence, or Reply in a newer term
nextIndex, matchIndex   catchup.next_index, match_index with the ACK votes counted so far
C_old,new               membership.members, in force; membership.settled, committed
election timeout        the progress timer: runs except at the leader, restarts when the leader is heard

Deviations
* An entry is a block of transactions. A new leader starts its term with a block even if nothing waits (the
  no-op of section 8), so that entries of earlier terms can be committed.
* AppendEntries goes to all at once, whatever nextIndex is; a follower that lacks the entry before says so,
  with the last entry that may match (end of its log, or before the conflicting term), and is repaired by
  chunks of `entries_per_append`, one at a time.
* ACKs are counted per entry as they come. Replies to repairs and heartbeats, which vouch for any index, are
  counted with them when they come.
* A heartbeat is sent only when nothing else was for an interval. Nothing is retried but by the next timeout
  or heartbeat. The leader writes to disk in parallel with its followers.
* What was applied stays applied through a crash; commitIndex does not restart from 0.
* With check_quorum a server that heard its leader within the minimal timeout ignores RequestVote.

* Where members change (see `Context.members_change`), ACK and VOTE are letters with the same content, counted by the
  leader and the candidate against the configuration in force. Configurations ride on entries with transactions.
* A removed server is told the entry that removes it, and then stands for election no more.
* A snapshot is taken every `snapshot_every` entries at no cost; the log before it is dropped at once. Its size is a
  parameter. Chunks are sent one at a time.

* Reads are one a `read_interval` from each server's clients, passed to the leader. A lease lasts the least election
  timeout from when the latest message that a majority answered was sent; clocks run alike. A server that restarts
  gives no vote for as long, since it may have forgotten whom it heard.

Not modelled: leadership transfer, grouping of disk writes. Messages are not signed.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Collection, Iterable
from typing import Literal

from pydantic import Field

from sim.ledger.catchup import HEADER_BYTES, Catchup, Chunks, InstallSnapshot, Received, Repair, Rpc
from sim.ledger.log import Log
from sim.ledger.members import Granted, Members, Membership, Stored
from sim.ledger.reads import READ, LeaderReads, Read, ReadAnswer
from sim.parameters import Bytes, Nanoseconds, Parameters, count, quantity
from sim.protocol import (
    BATCH,
    MEMBERSHIP,
    NO_PROGRESS,
    Ballot,
    Block,
    Context,
    Letter,
    MembersChange,
    NormalCase,
    Quorum,
    Replica,
    Signing,
    Step,
    Timer,
    VoteType,
    invariant,
    upon,
)

INDEX_BITS = 32  # of a lane number: term, then index


class RaftParameters(Parameters):
    """Parameters of Raft."""

    election_timeout_low_ns: Nanoseconds = quantity("150 ms", "least election timeout", positive=True)
    election_timeout_high_ns: Nanoseconds = quantity("300 ms", "greatest election timeout; drawn anew each time")
    heartbeat_interval_ns: Nanoseconds = quantity("75 ms", "longest silence of a leader", positive=True)
    pipeline: int = count(1, "entries the leader has under way, not yet committed, at a time", low=1)
    entries_per_append: int = count(64, "most entries sent at a time to repair a follower's log", low=1)
    pre_vote: bool = Field(False, description="ask if an election could be won before starting it", strict=True)
    check_quorum: bool = Field(
        False, description="a leader that hears no majority for the least timeout steps down", strict=True
    )
    membership: Literal["single", "joint"] = Field(
        "single", description="members change one voter at a time, or all at once through a joint configuration"
    )
    reads: Literal["off", "read_index", "lease"] = Field(
        "off", description="how the leader answers reads: not at all, after a round of heartbeats, or under a lease"
    )
    read_interval_ns: Nanoseconds = quantity(
        "10 ms", "with reads: time between two reads of each server's clients", positive=True
    )
    snapshot_every: int = count(
        0, "entries after which a server takes a snapshot and drops its log up to there; 0: never"
    )
    snapshot_size_bytes: Bytes = quantity("10 MB", "size of a snapshot on the wire", positive=True)
    snapshot_chunk_bytes: Bytes = quantity("1 MB", "most of a snapshot sent at a time", positive=True)


def lease_of(parameters: RaftParameters) -> int:
    """How long after a majority was last heard nobody else can lead, ns; 0 without leases."""
    return parameters.election_timeout_low_ns if parameters.reads == "lease" else 0


def chunks_of(parameters: RaftParameters) -> Chunks:
    """How followers are brought level."""
    return Chunks(
        entries=parameters.entries_per_append,
        snapshot_every=parameters.snapshot_every,
        snapshot_size_bytes=parameters.snapshot_size_bytes,
        snapshot_chunk_bytes=parameters.snapshot_chunk_bytes,
        patience_ns=parameters.election_timeout_low_ns,
    )


class Role(enum.Enum):
    """What a server is."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclasses.dataclass(frozen=True, slots=True)
class RequestVote(Rpc):
    """RequestVote(term, candidateId, lastLogIndex, lastLogTerm). `round_` names the ballot."""

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
    """AppendEntries without entries."""

    term: int
    prev_index: int
    prev_term: int
    commit: int
    round_: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Reply(Rpc):
    """Result (term, success). `match`: last entry known to match; without success, the last that may."""

    term: int
    success: bool
    match: int
    repair: bool
    round_: int = 0  # of the heartbeat answered


ACK = VoteType("ACK", HEADER_BYTES, signed=False)
VOTE = VoteType("VOTE", HEADER_BYTES, decides=False, signed=False, unique="view")
PRE_VOTE = VoteType("PRE_VOTE", HEADER_BYTES, decides=False, signed=False, unique="")

HEARTBEAT_TIMER = Timer("heartbeat")
QUORUM_TIMER = Timer("check quorum")


class Raft(Replica):
    """One Raft server."""

    letters = (RequestVote, AppendEntries, Heartbeat, Repair, Reply)
    later_letters = (Stored, Granted, InstallSnapshot, Received, Read, ReadAnswer)
    votes = (ACK, VOTE, PRE_VOTE)
    progress = "always"

    @staticmethod
    def check(parameters: RaftParameters, voters: int) -> None:
        """Refuse parameters that cannot work. Raises ValueError."""
        low, high = parameters.election_timeout_low_ns, parameters.election_timeout_high_ns
        if low > high:
            raise ValueError(
                f"election_timeout_low ({low} ns) is above election_timeout_high ({high} ns); "
                "exchange them, or raise the latter"
            )
        if high - low >= 1 << 31:
            raise ValueError(
                f"election timeouts spread over {high - low} ns, more than the 2.1 s that one draw covers; "
                "bring election_timeout_low and election_timeout_high closer together"
            )
        if parameters.reads == "lease" and not parameters.check_quorum:
            raise ValueError(
                "reads under a lease need voters that shield their leader; "
                "write check_quorum: true, or reads: read_index"
            )
        if parameters.heartbeat_interval_ns >= low:
            raise ValueError(
                f"heartbeat_interval ({parameters.heartbeat_interval_ns} ns) is not below "
                f"election_timeout_low ({low} ns): a healthy leader would be deposed; take half of it or less"
            )

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.term = 0
        self.voted_for: int | None = None
        self.log = Log(context)
        self.role = Role.FOLLOWER
        self.leader: int | None = None
        self.round_ = 0
        # of a leader, started anew in each term
        self.match_index: dict[int, int] = {}
        self.told_commit = 0  # commit index in the last AppendEntries
        self.sent_ns = 0  # when all followers were last sent something
        self.heard: set[int] = set()  # followers heard from since the last quorum check
        self.catchup = Catchup(context, self.log, chunks_of(self.parameters))
        self.reads = LeaderReads(context, lease_of(self.parameters), self.send_heartbeat)
        self.heartbeats = 0
        self.silent_until_ns = 0  # no vote before: whoever was given a lease may have been promised it by me
        self.membership = Membership(context, joint=self.parameters.membership == "joint")
        self.granted: set[int] = set()  # where members change: votes for me in the election under way

    @property
    def view_number(self) -> int:
        return self.term

    def quorum(self) -> int:
        """A majority."""
        return self.context.n // 2 + 1

    def quorums(self) -> dict[VoteType, Quorum]:
        return {vote: Quorum(self.quorum()) for vote in (ACK, VOTE, PRE_VOTE)}

    def majority(self, servers: Collection[int]) -> bool:
        """Whether these servers are enough to elect and to commit."""
        return self.membership.members.agrees(servers) if self.context.members_change else len(servers) >= self.quorum()

    def voters_needed(self) -> int:
        """Where members change nobody knows in advance: liveness is judged while all voters run and are linked."""
        return self.context.n if self.context.members_change else self.quorum()

    def normal_cases(self) -> tuple[NormalCase, ...]:
        if self.context.members_change:
            return ()
        return (NormalCase(upon=AppendEntries, votes=(Step(ACK, to_all=False),), persist=True),)

    def start(self) -> None:
        context, stable = self.context, self.context.stable
        if stable:
            self.term, self.voted_for = stable["term"], stable["voted_for"]
            self.log.restore()
            self.membership.restore()
            self.sync()
            self.take_members()
            self.silent_until_ns = context.now_ns + lease_of(self.parameters)
            context.lane(None)
        else:
            settled = self.membership.settled
            context.persist(term=0, voted_for=None, tail=(), doubtful=(), settled=settled, requests=())
        self.await_leader()
        if self.parameters.reads != "off":
            context.set_timer(READ, self.parameters.read_interval_ns)

    @invariant("entries follow each other, in terms that never go back")
    def log_is_in_order(self) -> bool:
        """The log above the last decided entry."""
        return self.log.is_in_order()

    @invariant("no entry is of a later term than the server")
    def log_is_of_the_past(self) -> bool:
        """Entries come from leaders of terms that the server has seen."""
        return not self.log.tail or self.log.tail[-1].view <= self.term

    def abstract_state(self) -> tuple[int, str]:
        return self.context.height, self.role.value

    # --- the log ---------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Learn what the fast lane accepted and decided since the last handler ran."""
        if self.role is not Role.LEADER:
            self.log.sync()

    def store(self, entries: tuple[Block, ...]) -> None:
        """AppendEntries rules 3 and 4; a configuration among the entries is in force now."""
        self.log.store(entries)
        self.take_members()

    def commit_to(self, index: int) -> None:
        """AppendEntries rule 5: decide the log up to an index."""
        for block in self.log.commit_to(index):
            self.settle_members(block)

    # --- leader election, sections 5.2 and 5.4.1 -------------------------------------------------------

    def await_leader(self) -> None:
        """Run the election timer; who has no vote does not stand for election."""
        parameters = self.parameters
        if not self.membership.members.votes(self.context.me):
            self.context.watch_progress(0)
            return
        self.context.watch_progress(parameters.election_timeout_low_ns, parameters.election_timeout_high_ns)

    @upon(NO_PROGRESS)
    def on_election_timeout(self) -> None:
        """No leader was heard: stand for election."""
        self.sync()
        self.leader = None
        self.context.lane(None)
        if self.parameters.pre_vote:
            self.role = Role.PRE_CANDIDATE
            self.round_ += 1
            self.await_leader()
            self.request_votes(PRE_VOTE, self.term + 1, self.context.me + self.context.n * self.round_)
        else:
            self.campaign()

    def campaign(self) -> None:
        """Enter the next term, vote for myself, ask the others."""
        context = self.context
        self.role = Role.CANDIDATE
        self.term += 1
        self.voted_for = context.me
        context.persist(term=self.term, voted_for=context.me)
        self.await_leader()
        context.when_stored(functools.partial(self.request_votes, VOTE, self.term, context.me))

    def request_votes(self, vote: VoteType, term: int, round_: int) -> None:
        """Ask all for their vote in a term, and give mine."""
        context, last = self.context, self.log.last_index
        request = RequestVote(term, last, self.log.term_at(last), round_, vote is PRE_VOTE)
        if context.members_change:
            members = self.membership.members
            self.tell([node for node in members.everyone() if members.votes(node)], request)
            self.granted = set()
            self.on_granted(context.me, Granted(term, round_))
            return
        context.broadcast(request)
        context.vote(vote, context.ballot(term, round_), context.me)

    @upon(RequestVote)
    def on_request_vote(self, candidate: int, message: RequestVote) -> None:
        """Vote if the term is current, the vote is free and the candidate's log is up to date."""
        self.sync()
        context = self.context
        if context.now_ns < self.silent_until_ns:
            return
        if message.term < self.term:
            context.send(candidate, Reply(self.term, False, 0, False))
            return
        if (message.pre or self.parameters.check_quorum) and self.has_leader():
            return
        if not message.pre and message.term > self.term:
            self.step_down(message.term)
        if not self.may_vote_for(candidate, message):
            return
        if message.pre:
            self.give_vote(PRE_VOTE, candidate, message)
            return
        self.voted_for = candidate
        context.persist(term=self.term, voted_for=candidate)
        context.made_progress()
        context.when_stored(functools.partial(self.give_vote, VOTE, candidate, message))

    def give_vote(self, vote: VoteType, candidate: int, message: RequestVote) -> None:
        """Send a vote."""
        context = self.context
        if context.members_change:
            context.send(candidate, Granted(message.term, message.round_))
        else:
            context.vote(vote, context.ballot(message.term, message.round_), candidate)

    def has_leader(self) -> bool:
        """Whether I lead, or heard my leader within the minimal election timeout."""
        quiet_ns = self.context.since_progress_ns
        heard = self.leader is not None and quiet_ns < self.parameters.election_timeout_low_ns
        return self.role is Role.LEADER or heard

    def may_vote_for(self, candidate: int, message: RequestVote) -> bool:
        """First come, first served in a term, and never for a log that lacks what mine has."""
        free = message.term > self.term or self.voted_for in (None, candidate)
        return free and self.log_is_up_to_date(message.last_index, message.last_term)

    def log_is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Section 5.4.1: whether a log that ends so is at least as up to date as mine."""
        return self.log.is_up_to_date(last_index, last_term)

    @upon(PRE_VOTE)
    def on_pre_elected(self, ballot: Ballot) -> None:
        """A majority would vote for me: ask in earnest."""
        if self.role is Role.PRE_CANDIDATE and ballot.view == self.term + 1:
            self.campaign()

    @upon(VOTE)
    def on_elected(self, ballot: Ballot) -> None:
        """A majority voted for me."""
        if self.role is Role.CANDIDATE and ballot.view == self.term and ballot.number == self.context.me:
            self.lead()

    @upon(Granted)
    def on_granted(self, voter: int, message: Granted) -> None:
        """Where members change: a vote for me, perhaps the one that makes a majority of the members."""
        context = self.context
        earnest = self.role is Role.CANDIDATE and (message.term, message.round_) == (self.term, context.me)
        round_ = context.me + context.n * self.round_
        trial = self.role is Role.PRE_CANDIDATE and (message.term, message.round_) == (self.term + 1, round_)
        if not (earnest or trial):
            return
        self.granted.add(voter)
        if self.majority(self.granted):
            if trial:
                self.campaign()
            else:
                self.lead()

    def lead(self) -> None:
        """Lead, and start the term with an entry of it."""
        context = self.context
        self.role = Role.LEADER
        self.leader = context.me
        self.match_index = {context.me: self.log.last_index}
        self.catchup.begin()
        self.membership.joining = set()
        self.reads.begin()
        self.told_commit = 0
        self.heard = set()
        context.watch_progress(0)
        context.follow(context.me)
        context.enter_view(self.term)
        block = context.new_block(self.log.entry(self.log.last_index), self.term, empty=True)
        assert block is not None
        self.replicate(block)
        context.set_timer(HEARTBEAT_TIMER, self.parameters.heartbeat_interval_ns, self.term)
        if self.parameters.check_quorum:
            context.set_timer(QUORUM_TIMER, self.parameters.election_timeout_low_ns, self.term)
        self.propose()

    def step_down(self, term: int) -> None:
        """Be a follower, of a newer term perhaps; its leader is not known yet."""
        if term > self.term:
            self.term, self.voted_for = term, None
            self.context.persist(term=term, voted_for=None)
        self.context.lane(None)
        if self.role is Role.LEADER:
            self.await_leader()
        self.role = Role.FOLLOWER
        self.leader = None

    # --- log replication, section 5.3: leader ----------------------------------------------------------

    @upon(BATCH)
    def propose(self) -> None:
        """The leader appends blocks while the pipeline allows."""
        context = self.context
        while self.role is Role.LEADER and len(self.log.tail) < self.parameters.pipeline:
            if not context.await_batch():
                return
            block = context.new_block(self.log.entry(self.log.last_index), self.term)
            if block is None:
                context.await_batch()
                return
            self.replicate(block)

    def replicate(self, block: Block) -> None:
        """Append an entry, send it to all, count myself among those who store it."""
        context = self.context
        prev, commit = block.height - 1, context.height
        self.reads.sent_entry(block.height)
        if context.members_change:
            message = AppendEntries(self.term, prev, self.log.term_at(prev), block, commit)
            self.log.append(block)
            self.take_members()
            context.proposing()
            self.tell(self.membership.receivers(), message)
            self.sent_ns = context.now_ns
            context.when_stored(functools.partial(self.on_stored_here, self.term, block.height))
            return
        ballot = context.ballot(self.term, block.height, block)
        context.propose(
            AppendEntries(self.term, prev, self.log.term_at(prev), block, commit),
            ballot,
            guard=(self.lane_number(prev), self.lane_number(block.height)),
            to=context.me,
            decided=context.decided_block(commit) if commit > self.told_commit else None,
        )
        self.told_commit = commit
        self.sent_ns = context.now_ns
        self.log.append(block)
        context.when_stored(functools.partial(context.vote, ACK, ballot, context.me))

    def lane_number(self, index: int) -> int:
        """The lane of followers whose log agrees with this term's leader's and ends at an index."""
        return (self.term << INDEX_BITS) + index

    @upon(ACK)
    def on_stored(self, ballot: Ballot) -> None:
        """A majority stores an entry."""
        if self.role is not Role.LEADER or ballot.view != self.term:
            return
        self.heard.update(range(self.context.n))  # a majority at least
        self.reads.stored_entry(ballot.number)
        if ballot.number > self.context.height:
            self.commit(ballot.number)
        self.propose()

    def commit(self, index: int) -> None:
        """Commit up to an index, if its entry is one that may be committed by counting."""
        block = self.log.entry(index)
        if block is not None and self.may_commit(block):
            self.commit_to(index)

    def may_commit(self, block: Block) -> bool:
        """Section 5.4.2, figure 8: only entries of the leader's own term are committed by counting."""
        return block.view == self.term

    def stores(self, server: int, index: int) -> bool:
        """Whether a server is known to store the log up to an index."""
        if self.match_index.get(server, 0) >= index:
            return True
        if self.context.members_change:
            return False
        height, view = self.context.height, self.term
        return any(
            self.context.has_voted(ACK, self.context.ballot(view, block.height, block), server)
            for block in self.log.tail[index - height - 1 :]
            if block.view == view
        )

    def count_replicas(self) -> None:
        """Commit the highest entry that a majority stores, whatever told the leader so."""
        for block in reversed(self.log.tail):
            stored = {server for server in range(self.context.n) if self.stores(server, block.height)}
            if self.majority(stored) and self.may_commit(block):
                self.reads.stored_entry(block.height)
                self.commit_to(block.height)
                self.change_members()
                self.propose()
                return

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

    def send_heartbeat(self) -> None:
        """AppendEntries without entries, to all."""
        context, last = self.context, self.log.last_index
        self.heartbeats += 1
        self.reads.sent(self.heartbeats)
        heartbeat = Heartbeat(self.term, last, self.log.term_at(last), context.height, self.heartbeats)
        if context.members_change:
            self.tell(self.membership.receivers(), heartbeat)
        else:
            context.broadcast(heartbeat)
        self.sent_ns = context.now_ns
        self.reads.answered(self.heartbeats, context.me, self.majority)  # alone, I am a majority

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

    @upon(Reply)
    def on_reply(self, follower: int, message: Reply) -> None:
        """Learn a newer term; or what a follower stores, and repair its log if it differs."""
        self.sync()
        if message.term > self.term:
            self.step_down(message.term)
            return
        if self.role is not Role.LEADER or message.term < self.term:
            return
        self.heard.add(follower)
        self.reads.answered(message.round_, follower, self.majority)
        known = self.match_index.get(follower, 0)
        following = max(known, message.match) + 1
        if message.success:
            self.match_index[follower] = following - 1
            if self.log.tail:
                self.count_replicas()
            self.change_members()
            if not message.repair:
                return
            self.catchup.stored(follower)
        elif not (message.repair and following < self.catchup.next_index.get(follower, 0)):
            if self.catchup.under_way(follower):
                return
        self.repair(follower, following)

    def repair(self, follower: int, first: int) -> None:
        """Send a chunk of the log from an entry on."""
        self.catchup.repair(follower, first, self.term)

    # --- log replication, section 5.3: follower --------------------------------------------------------

    def hear(self, sender: int, term: int) -> bool:
        """Whether a message comes from this term's leader. Follow it if it is new; be patient again."""
        context = self.context
        if term < self.term:
            context.send(sender, Reply(self.term, False, 0, False))
            return False
        if term > self.term or self.role is not Role.FOLLOWER or self.leader != sender:
            self.step_down(term)
            self.leader = sender
            context.follow(sender)
            context.enter_view(term)
        context.made_progress()
        return True

    def go_on(self, index: int, commit: int) -> None:
        """The log agrees with the leader's up to `index`: learn the commit index, take the lane if it can."""
        self.commit_to(min(commit, index))
        agrees = self.log.last_index == index and not self.log.doubtful
        self.context.lane(self.lane_number(index) if agrees else None)

    def refuse(self, leader: int, prev_index: int, *, repair: bool = False) -> None:
        """The entry before is not in the log."""
        self.context.send(leader, Reply(self.term, False, self.log.last_possible_match(prev_index), repair))

    @upon(AppendEntries)
    def on_append_entries(self, leader: int, message: AppendEntries) -> None:
        """Store a new entry, and acknowledge it once it is on disk."""
        self.sync()
        if not self.hear(leader, message.term):
            return
        if not self.log.matches(message.prev_index, message.prev_term):
            self.refuse(leader, message.prev_index)
            return
        context, block = self.context, message.block
        self.store((block,))
        context.when_stored(functools.partial(self.acknowledge, leader, message))
        self.go_on(block.height, message.commit)

    def acknowledge(self, leader: int, message: AppendEntries) -> None:
        """The entry is on disk."""
        context, block = self.context, message.block
        if context.members_change:
            context.send(leader, Stored(message.term, block.height))
        else:
            context.vote(ACK, context.ballot(message.term, block.height, block), leader)

    @upon(Repair)
    def on_repair(self, leader: int, message: Repair) -> None:
        """Store older entries; the reply asks for the next ones."""
        self.sync()
        if not self.hear(leader, message.term):
            return
        if not self.log.matches(message.prev_index, message.prev_term):
            self.refuse(leader, message.prev_index, repair=True)
            return
        self.store(message.entries)
        top = message.entries[-1].height
        reply = Reply(self.term, True, top, True)
        self.context.when_stored(functools.partial(self.context.send, leader, reply))
        self.go_on(top, message.commit)

    @upon(Heartbeat)
    def on_heartbeat(self, leader: int, message: Heartbeat) -> None:
        """The leader lives: learn the commit index, tell whether the logs agree."""
        self.sync()
        if not self.hear(leader, message.term):
            return
        if not self.log.matches(message.prev_index, message.prev_term):
            self.refuse(leader, message.prev_index)
            return
        self.context.send(leader, Reply(self.term, True, message.prev_index, False, message.round_))
        self.go_on(message.prev_index, message.commit)

    # --- reads, thesis 6.4 -----------------------------------------------------------------------------

    @upon(READ)
    def on_read_due(self, _about: None) -> None:
        """My clients read something: pass it to the leader, if I know one."""
        context = self.context
        context.set_timer(READ, self.parameters.read_interval_ns)
        read = Read(context.now_ns)
        if self.leader == context.me:
            self.on_read(context.me, read)
        elif self.leader is not None:
            context.send(self.leader, read)

    @upon(Read)
    def on_read(self, asker: int, read: Read) -> None:
        """Answer once an entry of my term is decided, so that I know all that is."""
        if self.role is Role.LEADER and self.log.term_at(self.context.height) == self.term:
            self.reads.serve(asker, read)

    @upon(ReadAnswer)
    def on_read_answer(self, leader: int, answer: ReadAnswer) -> None:
        """Tell my client."""
        self.context.answered(answer.asked_ns, answer.height)

    # --- log compaction, section 7 ---------------------------------------------------------------------

    @upon(InstallSnapshot)
    def on_install_snapshot(self, leader: int, message: InstallSnapshot) -> None:
        """Keep a chunk; with the last one, take the snapshot's place for the log up to its last entry."""
        self.sync()
        if not self.hear(leader, message.term):
            return
        context, last = self.context, message.last
        if last.height > context.height:
            if not self.catchup.take(leader, message, self.term):
                return
            for block in self.log.install(last):
                self.settle_members(block)
            self.take_members()
            context.lane(None)
        context.when_stored(functools.partial(context.send, leader, Reply(self.term, True, context.height, True)))

    @upon(Received)
    def on_received(self, follower: int, message: Received) -> None:
        """Send the next chunk."""
        if message.term > self.term:
            self.step_down(message.term)
            return
        if self.role is Role.LEADER and message.term == self.term and follower in self.catchup.sending:
            self.heard.add(follower)
            self.catchup.send_more(follower, message)

    # --- membership, thesis chapter 4 ------------------------------------------------------------------

    def tell(self, servers: Iterable[int], letter: Letter) -> None:
        """Send a letter to these servers but me."""
        for server in sorted({*servers} - {self.context.me}):
            self.context.send(server, letter)

    def take_members(self) -> None:
        """The latest configuration in the log is in force, committed or not."""
        if self.context.members_change and self.membership.take(self.log.tail) and self.role is not Role.LEADER:
            self.await_leader()

    def settle_members(self, block: Block) -> None:
        """A configuration is committed."""
        self.membership.settle(block)

    @upon(MEMBERSHIP)
    def on_membership(self, change: MembersChange) -> None:
        """The operator asks for a change; whoever leads sees to it, now or later."""
        self.membership.ask(change)
        self.change_members()

    def change_members(self) -> None:
        """Append the next configuration, once the last one and an entry of this term are committed."""
        context, membership = self.context, self.membership
        if not context.members_change or self.role is not Role.LEADER:
            return
        if membership.members != membership.settled or self.log.term_at(context.height) != self.term:
            return
        if membership.has_left_me:
            self.retire()
            return
        following = membership.following(lambda server: self.match_index.get(server, 0) >= context.height)
        if following is not None:
            self.append_members(following)

    def append_members(self, members: Members) -> None:
        """A configuration is an entry; transactions ride along."""
        block = self.context.new_block(self.log.entry(self.log.last_index), self.term, empty=True)
        assert block is not None
        block.body = members
        self.membership.joining -= members.everyone()
        self.replicate(block)

    def retire(self) -> None:
        """The configuration without me is committed: tell it, and lead no more."""
        last = self.log.last_index
        farewell = Heartbeat(self.term, last, self.log.term_at(last), self.context.height)
        self.tell(self.membership.receivers(), farewell)
        self.step_down(self.term)

    def on_stored_here(self, term: int, index: int) -> None:
        """My own disk has an entry."""
        if self.role is Role.LEADER and self.term == term:
            self.match_index[self.context.me] = max(self.match_index.get(self.context.me, 0), index)
            self.count_replicas()

    @upon(Stored)
    def on_stored_there(self, follower: int, message: Stored) -> None:
        """A server stores an entry."""
        if message.term > self.term:
            self.step_down(message.term)
        if self.role is not Role.LEADER or message.term < self.term:
            return
        self.heard.add(follower)
        self.match_index[follower] = max(self.match_index.get(follower, 0), message.match)
        self.count_replicas()
        self.change_members()
