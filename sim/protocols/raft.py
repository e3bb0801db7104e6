"""Raft.

D. Ongaro, J. Ousterhout, "In search of an understandable consensus algorithm", USENIX ATC 2014, section 5;
D. Ongaro, "Consensus: bridging theory and practice", PhD thesis, Stanford 2014: 4 (membership), 5 (snapshots), 6.2
and 9.6 (the two options of elections).

A follower that hears of no leader for a randomised time becomes a candidate in the next term and asks all for
their vote; a server votes once a term, for a candidate whose log is at least as up to date as its own. The
candidate with a majority leads: it appends entries to its log and sends them with AppendEntries, which a
follower accepts if its log holds the entry before them. The leader commits an entry *of its own term* once a
majority stores it, and all entries before with it; the next AppendEntries tells followers the commit index.

Safe against crashes: a majority votes once a term, so a term has one leader. An entry of the leader's term that a
majority stores is in the log of every later leader, because each needs the vote of one that stores it, and who votes
refuses a log less up to date than its own. So servers that commit at one index commit the same entry.
Live while a majority runs and is linked: one candidate in the end stands long enough before the others, timeouts
being drawn from a span wider than an election takes.

paper                   here
-----                   ----
currentTerm, votedFor   term, voted_for (persisted)
log[]                   log: blocks, index = height, term = view; the ledger has the decided ones
commitIndex             context.height
AppendEntries RPC       AppendEntries (one new entry, to all), Heartbeat (none), Repair (older ones, to one)
its result              ACK votes for AppendEntries, Reply for the other two and whenever it is false
RequestVote RPC         RequestVote; granted by VOTE (PRE_VOTE), denied by silence, or Reply in a newer term
RPCs' fields, sizes     sim/families/raft/rpc.py
nextIndex, matchIndex   catchup.next_index, catchup.match_index with the ACK votes counted so far
InstallSnapshot RPC     sim/families/raft/server.py, with membership and reads
C_old,new               membership.members, in force; membership.settled, committed
election timeout        the progress timer: runs except at the leader, restarts when the leader is heard

Deviations
* An entry is a block of transactions. A new leader starts its term with a block even if nothing waits (the
  no-op of section 8), so that entries of earlier terms can be committed.
* AppendEntries goes to all at once, whatever nextIndex is; a follower that lacks the entry before says so,
  with the last entry that may match (end of its log, or before the conflicting term), and is repaired by
  chunks of `entries_per_append`, one at a time.
* ACKs are counted per entry as they come. Replies to repairs and heartbeats, which vouch for any index, are
  counted with them when they come; a heartbeat's not for entries sent less than a heartbeat interval before.
* A heartbeat is sent only when nothing else was for an interval. Nothing is retried but by the next timeout
  or heartbeat. The leader writes to disk in parallel with its followers.
* What was applied stays applied through a crash; commitIndex does not restart from 0.
* With check_quorum a server that heard its leader within the minimal timeout ignores RequestVote.
* Timers, leases and how long voters shield a leader go by each server's own clock. A lease holds as long as the clocks'
  rates differ by less than the share of it that is left when votes can be given; beyond that reads may be stale.
* Those of snapshots, membership and reads stand in sim/ledger: `catchup`, `members`, `server`.

Not modelled: leadership transfer, grouping of disk writes. Messages are not signed.
"""

from __future__ import annotations

import functools
from typing import Literal

from pydantic import Field

from sim.families.raft.rpc import HEADER_BYTES, AppendEntries, Heartbeat, Repair, Reply, RequestVote, Stored
from sim.families.raft.server import HEARTBEAT_TIMER, QUORUM_TIMER, LogParameters, LogServer, Role
from sim.parameters import Nanoseconds, count, quantity
from sim.protocol import (
    BATCH,
    NO_PROGRESS,
    Ballot,
    Block,
    Context,
    FastPath,
    NormalCase,
    Quorum,
    Step,
    VoteType,
    invariant,
    upon,
)
from sim.units import format_ns

INDEX_BITS = 32  # of a guard: term, then index


class RaftParameters(LogParameters):
    """Parameters of Raft."""

    election_timeout_low_ns: Nanoseconds = quantity("150 ms", "least election timeout", positive=True)
    election_timeout_high_ns: Nanoseconds = quantity("300 ms", "greatest election timeout; drawn anew each time")
    election_tick_ns: Nanoseconds = quantity(
        "0 ms", "what election timeouts are drawn in, from the least on, as etcd does; 0: any time between"
    )
    heartbeat_interval_ns: Nanoseconds = quantity("75 ms", "longest silence of a leader", positive=True)
    pipeline: int = count(1, "entries the leader has under way, not yet committed, at a time", low=1)
    entries_per_append: int = count(64, "most entries sent at a time to repair a follower's log", low=1)
    commits: Literal["next", "at_once"] = Field(
        "next",
        description="followers learn of a commit with the next entry or heartbeat, or by one sent at once (etcd)",
    )
    pre_vote: bool = Field(False, description="ask if an election could be won before starting it", strict=True)
    check_quorum: bool = Field(
        False, description="a leader that hears no majority for the least timeout steps down", strict=True
    )

    @classmethod
    def least_wait(cls) -> str:
        """Elections draw from there on."""
        return "election_timeout_low_ns"


ACK = VoteType("ACK", HEADER_BYTES, signed=False)
VOTE = VoteType("VOTE", HEADER_BYTES, decides=False, signed=False, unique="view")
PRE_VOTE = VoteType("PRE_VOTE", HEADER_BYTES, decides=False, signed=False, unique="")
CANDIDATES_LOOKED_AT = 8  # by the invariant of votes: others are looked at by other servers


class Raft(LogServer):
    """One Raft server."""

    messages = (RequestVote, AppendEntries, Heartbeat, Repair, Reply)
    votes = (ACK, VOTE, PRE_VOTE)
    group_changes = "learners"
    answers_reads = True
    progress = "always"
    block_rules = frozenset({"batch_timeout"})

    @staticmethod
    def check(parameters: RaftParameters, voters: int) -> None:
        """Refuse parameters that cannot work. Raises ValueError."""
        low, high = parameters.election_timeout_low_ns, parameters.election_timeout_high_ns
        beat = parameters.heartbeat_interval_ns
        if low > high:
            text = f"election_timeout_low: {format_ns(low)} is above election_timeout_high: {format_ns(high)}"
            raise ValueError(f"{text}; exchange them, or raise the latter")
        if parameters.election_tick_ns > low:
            text = f"election_tick: {format_ns(parameters.election_tick_ns)} is above election_timeout_low"
            raise ValueError(f"{text}, {format_ns(low)}; timeouts are some ticks long")
        if beat >= low:
            text = f"heartbeat_interval: {format_ns(beat)} is not below election_timeout_low: {format_ns(low)}"
            raise ValueError(f"{text}: a healthy leader would be deposed; take half of it or less")
        if parameters.reads == "lease" and not parameters.check_quorum:
            text = "reads: under a lease they need voters that shield their leader"
            raise ValueError(f"{text}; write check_quorum: true, or reads: read_index")

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.round_ = 0  # of trials before elections
        self.in_step = False  # a follower whose whole log is known to agree with its leader's
        self.told_commit = 0  # of a leader: commit index in the last AppendEntries
        self.told_commit_to = 0  # of a leader that tells of commits at once: the last one

    def quorum(self) -> int:
        """A majority."""
        return self.context.n // 2 + 1

    def quorums(self) -> dict[VoteType, Quorum]:
        return {vote: Quorum(self.quorum()) for vote in (ACK, VOTE, PRE_VOTE)}

    def normal_cases(self) -> tuple[NormalCase, ...]:
        if self.context.membership.may_change:
            return ()
        return (NormalCase(upon=AppendEntries, votes=(Step(ACK, to_all=False),), persist=True),)

    def start(self) -> None:
        context, stable = self.context, self.context.disk.stable
        first = not stable
        if stable:
            self.term, self.voted_for = stable["term"], stable["voted_for"]
            self.restore()
        else:
            context.disk.persist(term=0, voted_for=None)
            self.first_start()
        self.await_leader()
        if first and self.parameters.first_leader == context.me:
            self.on_election_timeout()
        self.begin_reads()

    # --- invariants --------------------------------------------------------------------------------------

    @invariant("votes of a term go to one candidate")
    def votes_once(self) -> bool:
        """To votedFor; VOTEs of this term that have reached a candidate, some candidates at a time."""
        context = self.context
        some = ((context.me + i) % context.n for i in range(min(context.n, CANDIDATES_LOOKED_AT)))
        return all(
            candidate == self.voted_for or not context.votes.has_voted(VOTE, ballot)
            for candidate in some
            for ballot in context.votes.ballots(self.term, candidate)
        )

    # --- leader election, sections 5.2 and 5.4.1 -------------------------------------------------------

    @upon(NO_PROGRESS)
    def on_election_timeout(self) -> None:
        """No leader was heard: stand for election."""
        if self.role is Role.CANDIDATE:
            self.context.enter_view(self.term)  # it elected nobody, and is a term like those of leaders
        self.known_leader = None
        self.in_step = False
        if self.parameters.pre_vote:
            self.role = Role.PRE_CANDIDATE
            self.round_ += 1
            self.await_leader()
            self.request_votes(self.term + 1, self.context.me + self.context.n * self.round_, pre=True)
        else:
            self.campaign()

    def campaign(self) -> None:
        """Enter the next term, vote for myself, ask the others."""
        context = self.context
        self.role = Role.CANDIDATE
        self.term += 1
        self.voted_for = context.me
        context.disk.persist(term=self.term, voted_for=context.me)
        self.await_leader()
        context.disk.when_stored(functools.partial(self.request_votes, self.term, context.me))

    def request_votes(self, term: int, round_: int, *, pre: bool = False) -> None:
        """Ask all for their vote in a term, and give mine."""
        last = self.log.last_index
        request = RequestVote(term, last, self.log.term_at(last), round_, pre)
        if self.context.membership.may_change:
            self.membership.ask_votes(request)
        else:
            self.context.broadcast(request)
        self.give_vote(self.context.me, request)

    @upon(RequestVote)
    def on_request_vote(self, candidate: int, message: RequestVote) -> None:
        """Vote if the term is current, the vote is free and the candidate's log is up to date."""
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
            self.give_vote(candidate, message)
            return
        self.voted_for = candidate
        context.disk.persist(term=self.term, voted_for=candidate)
        context.clock.made_progress()
        context.disk.when_stored(functools.partial(self.give_vote, candidate, message))

    def give_vote(self, candidate: int, request: RequestVote) -> None:
        """Send a vote."""
        context = self.context
        if context.membership.may_change:
            self.grant(candidate, request)
        else:
            vote = PRE_VOTE if request.pre else VOTE
            context.vote(vote, context.votes.ballot(request.term, request.round_), candidate)

    def has_leader(self) -> bool:
        """Whether I lead, or heard my leader within the minimal election timeout."""
        quiet_ns = self.context.clock.since_progress_ns
        heard = self.known_leader is not None and quiet_ns < self.parameters.election_timeout_low_ns
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

    def lead(self) -> None:
        """Lead, and start the term with an entry of it."""
        context = self.context
        self.role = Role.LEADER
        self.known_leader = context.me
        self.begin_term()
        self.told_commit = 0
        context.clock.watch_progress(0)
        context.clients.follow(context.me)
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
            self.context.disk.persist(term=term, voted_for=None)
        self.in_step = False
        if self.role is Role.LEADER:
            self.await_leader()
        elif self.known_leader is not None:
            self.silent_until_ns = max(self.silent_until_ns, self.promised_until_ns())
        self.role = Role.FOLLOWER
        self.known_leader = None

    # --- log replication, section 5.3: leader ----------------------------------------------------------

    @upon(BATCH)
    def propose(self) -> None:
        """The leader appends blocks while the pipeline allows."""
        context = self.context
        while self.role is Role.LEADER and len(self.log.tail) < self.parameters.pipeline:
            if not context.pacing.await_batch():
                return
            block = context.new_block(self.log.entry(self.log.last_index), self.term)
            if block is None:
                context.pacing.await_batch()
                return
            self.replicate(block)

    def replicate(self, block: Block) -> None:
        """Append an entry, send it to all, count myself among those who store it."""
        context = self.context
        prev, commit = block.height - 1, context.height
        message = AppendEntries(self.term, prev, self.log.term_at(prev), block, commit)
        self.note_what_left()
        self.reads.sent_entry(block.height)
        if context.membership.may_change:
            self.log.append(block)
            self.take_members()
            context.pacing.begin_interval()
            self.tell_all(message)
        else:
            context.propose(
                message,
                context.votes.ballot(self.term, block.height, block),
                FastPath(
                    before=self.guard_upon(prev),
                    after=self.guard_upon(block.height),
                    to=context.me,
                    decided=context.chain.decided(commit) if commit > self.told_commit else None,
                ),
            )
            self.told_commit = commit
            self.log.append(block)
        self.sent_ns = context.now_ns
        context.disk.when_stored(functools.partial(self.acknowledge, context.me, message))

    def guard_upon(self, index: int) -> int:
        """Of followers whose log agrees with this term's leader's and ends at an index."""
        return (self.term << INDEX_BITS) + index

    def guard(self) -> int | None:
        return self.guard_upon(self.log.last_index) if self.in_step else None

    @upon(ACK)
    def on_stored(self, ballot: Ballot) -> None:
        """A majority stores an entry."""
        if self.role is not Role.LEADER or ballot.view != self.term:
            return
        self.heard.update(range(self.context.n))  # a majority at least
        self.reads.stored_entry(ballot.number)
        block = self.log.entry(ballot.number)
        if ballot.number > self.context.height and block is not None and self.may_commit(block):
            self.commit_to(ballot.number)
        self.propose()
        self.tell_commit()

    def may_commit(self, block: Block) -> bool:
        """Section 5.4.2, figure 8: only entries of the leader's own term are committed by counting."""
        return block.view == self.term

    def stored_up_to(self, server: int) -> int:
        """How much of the log a server is known to store: from a reply, or ACKs of entries of my term."""
        context, known = self.context, self.catchup.matches(server)
        for block in () if context.membership.may_change else reversed(self.log.tail):
            if block.height <= known or block.view != self.term:
                break
            if context.votes.has_voted(ACK, context.votes.ballot(self.term, block.height, block), server):
                return block.height
        return known

    def count_replicas(self) -> None:
        """Commit the highest entry that a majority stores, whatever told the leader so."""
        stored = {server: self.stored_up_to(server) for server in range(self.context.n)}
        for index in sorted({*stored.values()}, reverse=True):
            if self.majority({server for server, up_to in stored.items() if up_to >= index}):
                break
        else:
            return
        block = self.log.entry(index) if index > self.context.height else None
        if block is None or not self.may_commit(block):
            return
        self.reads.stored_entry(block.height)
        self.commit_to(block.height)
        self.change_members()
        self.propose()
        self.tell_commit()

    def tell_commit(self) -> None:
        """Followers hear of what was committed just now, if no entry has told them."""
        late = self.parameters.commits == "at_once" and self.told_commit_to < self.context.height
        if late and self.role is Role.LEADER:
            if self.sent_ns < self.context.now_ns:
                self.send_heartbeat()
            self.told_commit_to = self.context.height

    @upon(Reply)
    def on_reply(self, follower: int, message: Reply) -> None:
        """Learn a newer term; or what a follower stores, and repair its log if it differs."""
        if not self.answers_me(message.term):
            return
        self.heard.add(follower)
        self.reads.answered(message.round_, follower, self.majority)
        if message.success:
            self.catchup.stores(follower, message.match if message.repair else self.vouched(message.match))
            if self.log.tail:
                self.count_replicas()
            self.change_members()
        self.catchup.go_on(follower, message, self.term)

    def vouched(self, match: int) -> int:
        """How far a heartbeat's answer vouches for what is on disk: not for an entry whose ACK may be on its way."""
        lately_ns = self.context.now_ns - self.parameters.heartbeat_interval_ns
        while match > self.context.height and self.reads.entry_sent_ns.get(match, lately_ns) > lately_ns:
            match -= 1
        return match

    # --- log replication, section 5.3: follower --------------------------------------------------------

    def hear(self, sender: int, term: int) -> bool:
        """Whether a message comes from this term's leader. Follow it if it is new; be patient again."""
        context = self.context
        if term < self.term:
            context.send(sender, Reply(self.term, False, 0, False))
            return False
        if term > self.term or self.role is not Role.FOLLOWER or self.known_leader != sender:
            self.step_down(term)
            self.known_leader = sender
            context.clients.follow(sender)
            context.enter_view(term)
        context.clock.made_progress()
        return True

    def agrees(self, leader: int, message: AppendEntries | Heartbeat | Repair) -> bool:
        """AppendEntries rules 1 and 2: the message is of this term, and the entry before is in the log; or refuse."""
        if not self.hear(leader, message.term):
            return False
        if self.log.matches(message.prev_index, message.prev_term):
            return True
        match = self.log.last_possible_match(message.prev_index)
        self.context.send(leader, Reply(self.term, False, match, isinstance(message, Repair)))
        return False

    def go_on(self, index: int, commit: int) -> None:
        """The log agrees with the leader's up to `index`: learn the commit index."""
        self.commit_to(min(commit, index))
        self.in_step = self.log.last_index == index and not self.log.doubtful

    @upon(AppendEntries)
    def on_append_entries(self, leader: int, message: AppendEntries) -> None:
        """Store a new entry, and acknowledge it once it is on disk."""
        if self.agrees(leader, message):
            self.store((message.block,))
            self.context.disk.when_stored(functools.partial(self.acknowledge, leader, message))
            self.go_on(message.block.height, message.commit)

    def acknowledge(self, leader: int, message: AppendEntries) -> None:
        """The entry is on disk."""
        context, block = self.context, message.block
        if not context.membership.may_change:
            context.vote(ACK, context.votes.ballot(message.term, block.height, block), leader)
        elif leader == context.me:
            self.on_stored_by(leader, Stored(message.term, block.height))
        else:
            context.send(leader, Stored(message.term, block.height))

    @upon(Repair)
    def on_repair(self, leader: int, message: Repair) -> None:
        """Store older entries; the reply asks for the next ones."""
        if self.agrees(leader, message):
            self.store(message.entries)
            top = message.entries[-1].height
            reply = Reply(self.term, True, top, True)
            self.context.disk.when_stored(functools.partial(self.context.send, leader, reply))
            self.go_on(top, message.commit)

    @upon(Heartbeat)
    def on_heartbeat(self, leader: int, message: Heartbeat) -> None:
        """The leader lives: learn the commit index, tell whether the logs agree."""
        if self.agrees(leader, message):
            self.context.send(leader, Reply(self.term, True, message.prev_index, False, message.round_))
            self.go_on(message.prev_index, message.commit)
