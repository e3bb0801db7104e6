"""Practical Byzantine Fault Tolerance.

M. Castro, B. Liskov, "Practical Byzantine Fault Tolerance", OSDI 1999, sections 4.1-4.5.

n = 3f + 1 replicas. In view v the primary p = v mod n orders batches of requests: it multicasts
<PRE-PREPARE, v, n, d>; a backup that accepts it multicasts <PREPARE, v, n, d, i>; a replica with the
pre-prepare and 2f matching prepares from different backups (`prepared`) multicasts <COMMIT, v, n, d, i>; with
2f + 1 matching commits (`committed-local`) it executes, in order of n. Every K sequence numbers replicas
exchange <CHECKPOINT, n, d, i>; 2f + 1 make it stable and let the log below it go. A backup whose request is
not executed in time multicasts <VIEW-CHANGE, v + 1, h, C, P, i>; the new primary answers 2f + 1 of them with
<NEW-VIEW, v + 1, V, O>.

Safe: two quorums share a correct replica, so no two batches prepare at one (v, n). What has committed anywhere has
prepared at a quorum. A NEW-VIEW rests on VIEW-CHANGEs of a quorum, one of which is of a correct replica that prepared
it; O takes the batch of the highest view, and a correct replica checks O itself. So it is ordered again at its
number.
Live from when delays are bounded: each failed view doubles the timer, until one with a correct primary outlasts three
message delays, and f + 1 who leave a view draw the rest after them, so that correct replicas are in it together.

paper           here
-----           ----
v, n, d         view, ballot.number (also block.height), block.number
p = v mod |R|   primary_of(view)
h, H = h + L    low_mark, low_mark + parameters.log_window
C, P            ViewChange.low_mark (its proof is counted in bytes), ViewChange.prepared
V, O            NewView.changes, NewView.proposals
timer           the progress timer: runs while a request waits, restarts at each execution

Deviations
* Quorums are the least integer above (n + f) / 2, which is the paper's 2f + 1 for n = 3f + 1 and stays safe for
  the values of n in between, where 2f + 1 would not.
* A request is a transaction of the ledger; a batch is a block, and its digest is its number.
* The request timer is the progress timer: it expires when a request has waited for its whole period without
  any batch being executed here. The primary's does not change the view: it asks another replica where they are, for
  a primary that was cut off must learn of the view that followed (the paper assumes retransmission of NEW-VIEW).
* A backup passes requests of its own clients to the primary; to all, as the paper's clients do, if its VIEW-CHANGE
  finds too few others that wait for something.
* VIEW-CHANGE is sent again while fewer than a quorum are known, and so are pre-prepares and votes of a view that has a
  longer patience than the first, every first patience in which nothing was executed (the paper's library retransmits).
* What a replica voted for, and its NEW-VIEW, is on disk before it is sent; it keeps its votes through a crash (section
  4.5 assumes replicas that do not forget). A restarted replica takes no part until it has heard the current view.
* The primary alone keeps below H; a backup accepts any batch above its h.
* A new primary that lacks batches up to min-s fetches them before it sends NEW-VIEW.
* A batch that O carries over may get a new parent: position, not ancestry, is what PBFT agrees on. P and O name it by
  its digest; a replica that never received it has it then, without the transfer that the paper leaves open.
* In a gap of O stands a batch of what waits at the new primary, or an empty one, in place of the null request.
* A certificate in P is true if a quorum has signed its PREPAREs, in transit or not. What is executed stands in P as
  prepared last, proven by its commit certificate. The stable checkpoint of a VIEW-CHANGE and the view of `Executed` are
  believed, their proofs counted only.
* A view that began after failed ones keeps its longer patience to its end.
* State transfer, and how replicas join and leave (the paper's group is fixed): sim.families.pbft.groups, with the
  quorums and primaries of a group, and what a replica does about the fast path.

Not modelled: the time it takes to write votes to disk (cpu.fsync has no effect here), the read-only and
tentative-execution optimisations, MAC authenticators (all messages are signed), proactive recovery, garbage
collection of client reply caches.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from sim.families.pbft.groups import PATIENCE_MAX_NS, VIEW_CHANGE_TIMER, VIEWS, VOTES_TIMER, GroupReplica
from sim.families.pbft.viewchange import Executed, NewView, ViewChange, first_quorum, min_s
from sim.families.sync import HEADER_BYTES, Fetch, Status
from sim.families.turns import FirstLeader
from sim.parameters import Nanoseconds, count, quantity
from sim.protocol import (
    ALL,
    BATCH,
    NO_PROGRESS,
    Ballot,
    Block,
    Context,
    FastPath,
    Lease,
    Message,
    NormalCase,
    Quorum,
    Signing,
    Step,
    VoteType,
    invariant,
    upon,
)


class PbftParameters(FirstLeader):
    """Parameters of PBFT."""

    request_timeout_ns: Nanoseconds = quantity(
        "2 s", "a backup waits this long for progress before a view change", patience=True
    )
    checkpoint_interval: int = count(128, "K: sequence numbers between checkpoints", low=1)
    log_window: int = count(256, "L: sequence numbers that may be under way above the stable checkpoint", low=1)
    pipeline: int = count(1, "batches the primary has under way at a time", low=1)
    faults: int | None = count(None, "f: Byzantine replicas tolerated; by default the most that n allows", low=0)


@dataclasses.dataclass(frozen=True, slots=True)
class PrePrepare(Message):
    """<PRE-PREPARE, v, n, d> with the batch."""

    view: int
    sequence: int
    block: Block

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES + self.block.bytes

    def carries(self) -> Block:
        return self.block


PREPARE = VoteType("PREPARE", HEADER_BYTES)
COMMIT = VoteType("COMMIT", HEADER_BYTES)
CHECKPOINT = VoteType("CHECKPOINT", HEADER_BYTES, decides=False)


class Pbft(GroupReplica):
    """One PBFT replica."""

    messages: ClassVar[tuple[type[Message], ...]] = (PrePrepare, ViewChange, NewView, Fetch, Executed)
    votes: ClassVar[tuple[VoteType, ...]] = (PREPARE, COMMIT, CHECKPOINT)
    later_messages = (Status,)
    decides_out_of_order = True
    progress = "waiting"
    block_rules = frozenset({"batch_timeout"})
    executes = "between"

    @staticmethod
    def check(parameters: PbftParameters, voters: int) -> None:
        """Refuse parameters that n replicas cannot run with."""
        faults = parameters.faults
        if faults is not None and voters < 3 * faults + 1:
            raise ValueError(
                f"faults: {faults} needs at least 3f + 1 = {3 * faults + 1} voters, there are {voters}; "
                f"add voters or write faults: {(voters - 1) // 3}"
            )
        if parameters.log_window < parameters.checkpoint_interval:
            raise ValueError(
                f"log_window: {parameters.log_window} must not be below checkpoint_interval: "
                f"{parameters.checkpoint_interval}; the paper takes twice that"
            )

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.checkpointed = 0  # of which height a CHECKPOINT was last sent, as far as known since the start
        self.voting_again = 0  # handle of the timer of a view with a longer patience
        self.patient_since = -1  # executed height when this view was entered or asked for; -1: it is a first one

    def quorums(self) -> dict[VoteType, Quorum]:
        return {
            PREPARE: Quorum(self.prepared_quorum(), gated=True),
            COMMIT: Quorum(self.committed_quorum(), gated=True),
            CHECKPOINT: Quorum(self.committed_quorum()),
        }

    def prepared_quorum(self) -> int:
        """2f prepares from different backups, besides the pre-prepare (n = 3f + 1)."""
        return self.committed_quorum() - 1

    def quorum_of(self, vote: VoteType, ballot: Ballot) -> Quorum:
        members = self.group_at(ballot.number).members
        enough = (len(members) + self.tolerated_of(len(members))) // 2 + 1
        gated = vote is not CHECKPOINT
        return self.voters.quorum_of(members, enough - 1 if vote is PREPARE else enough, gated=gated)

    def normal_cases(self) -> tuple[NormalCase, ...]:
        if self.context.membership.may_change:
            return ()  # the fast path knows one size of group
        return (NormalCase(upon=PrePrepare, votes=(Step(PREPARE), Step(COMMIT)), gate=True, decide=True),)

    # --- invariants --------------------------------------------------------------------------------------

    @invariant("one batch is prepared for a view and sequence number")
    def prepares_one(self) -> bool:
        return self.votes_once(PREPARE)

    @invariant("one batch is committed for a view and sequence number")
    def commits_one(self) -> bool:
        return self.votes_once(COMMIT)

    @invariant("a VIEW-CHANGE tells what its sender committed to")
    def changes_are_honest(self) -> bool:
        """The last one of its own."""
        context = self.context
        own = self.changes.get(self.view, {}).get(context.me)
        if own is None or self.active:
            return True
        told = {sequence for sequence, _, _ in own.prepared}
        return all(
            sequence <= own.low_mark or sequence in told or not context.votes.has_voted(COMMIT, ballot)
            for sequence in self.next_sequences
            for view in range(self.first_view, own.view)
            for ballot in context.votes.ballots(view, sequence)
        )

    def abstract_state(self) -> tuple[int, tuple[tuple[int, int], ...]]:
        """Executed height, and what prepared above it."""
        found = [(sequence, self.last_prepared(sequence)) for sequence in self.next_sequences]
        return self.context.height, tuple((sequence, last[1].number) for sequence, last in found if last is not None)

    def waits_for(self) -> str:
        if self.active:
            return f"primary {self.primary_of(self.view)}"
        if self.recovering:
            return "to hear of the view it is to work in"
        known = sorted(self.changes.get(self.view, {}))
        return f"NEW-VIEW of primary {self.primary_of(self.view)}, has VIEW-CHANGE of {known}"

    # --- normal case, section 4.2 ----------------------------------------------------------------------

    def start(self) -> None:
        if "view" in self.context.disk.stable:
            self.rejoin()
            return
        self.context.disk.persist(view=0, low_mark=0)
        self.enter(0)

    def enter(self, view: int) -> None:
        """Work in a view from now on."""
        self.view = view
        self.active = self.belongs
        self.recovering = False
        self.patient_since = -1 if view == self.first_view else self.context.height
        self.context.disk.persist(view=view)
        self.context.enter_view(view)
        self.context.clients.follow(self.primary_of(view))
        self.checkpoint(again=True)
        self.context.clock.watch_progress(self.timeout_ns if self.active else 0)
        self.vote_again_later()
        for sender, message in self.kept():
            self.on_pre_prepare(sender, message)
        if self.is_primary:
            self.propose()

    @upon(BATCH)
    def propose(self) -> None:
        """The primary multicasts pre-prepares while the pipeline and the water marks allow."""
        context = self.context
        self.checkpoint()
        if not (self.active and self.is_primary) or context.height < self.low_mark:
            return
        changes = context.membership.may_change and self.voters.due() is not None
        while True:
            height, last = context.height, self.last_proposed
            if last is None or last.height <= height:
                last = context.chain.decided(height)
            top = height if last is None else last.height
            if top >= height + self.parameters.pipeline or top >= self.high_mark or self.ends_group(last):
                return
            if not context.pacing.await_batch() and not changes:
                return
            block = context.new_block(last, self.view, empty=changes)
            if block is None:
                context.pacing.await_batch()
                return
            self.voters.attach(block)
            self.last_proposed = block
            self.pre_prepare(block)

    def pre_prepare(self, block: Block) -> None:
        """Multicast <PRE-PREPARE, v, n, d>. Up to the next checkpoint the fast path may go on by itself."""
        interval = self.parameters.checkpoint_interval
        upper = block.height - block.height % interval + interval - 1
        ballot = self.context.votes.ballot(self.view, block.height, block)
        self.context.disk.persist(proposed=(self.view, block))
        self.context.propose(
            PrePrepare(self.view, block.height, block),
            ballot,
            FastPath(
                before=self.view,
                after=self.view,
                notify=ALL if block.height % interval == 0 else None,
                lease=Lease(min(upper, self.high_mark), self.parameters.pipeline),
            ),
            audience=self.audience,
        )
        self.accept(ballot, self.context.me)

    def pre_prepare_again(self) -> None:
        """What this primary has under way is sent once more: if it was lost, nobody else knows of it."""
        block, under_way = self.last_proposed, []
        while block is not None and block.height > self.context.height and block.view == self.view:
            under_way.append(block)
            block = block.parent
        for lost in reversed(under_way):
            self.context.broadcast(PrePrepare(self.view, lost.height, lost), self.audience)

    def vote_again_later(self) -> None:
        """In a view of a longer patience, what is said may be lost: it is said again after the first patience."""
        self.context.cancel(self.voting_again)
        first_ns = self.parameters.request_timeout_ns
        if self.timeout_ns > first_ns:
            about = self.view, self.context.height
            self.voting_again = self.context.set_timer(VOTES_TIMER, first_ns, about)

    @upon(VOTES_TIMER)
    def vote_again(self, about: tuple[int, int]) -> None:
        """Nothing was executed since: my pre-prepares and votes of this view once more; others may have executed it."""
        context = self.context
        if about[0] != self.view or not self.active:
            return
        self.vote_again_later()
        if context.height > about[1]:
            return
        if self.is_primary:
            self.pre_prepare_again()
        waits = False
        for sequence in range(context.height + 1, min(self.high_mark, context.votes.highest_number()) + 1):
            for ballot in context.votes.ballots(self.view, sequence):
                for vote in self.said_again():
                    if context.votes.has_voted(vote, ballot):
                        context.vote(vote, ballot, self.audience, gate=vote is COMMIT)
                        waits = True
        if waits:
            self.fetch()

    def said_again(self) -> tuple[VoteType, ...]:
        """Which votes of mine may have been lost: a primary's pre-prepare is its prepare."""
        return (COMMIT,) if self.is_primary else (PREPARE, COMMIT)

    def accept(self, ballot: Ballot, primary: int) -> None:
        """The pre-prepare is here. It stands for the primary's prepare; a backup multicasts <PREPARE, v, n, d, i>."""
        self.context.votes.open_gate(PREPARE, ballot, by=primary)
        if self.context.me != primary:
            self.context.vote(PREPARE, ballot, self.audience)

    @staticmethod
    def message_of(block: Block) -> PrePrepare:
        return PrePrepare(block.view, block.height, block)

    @upon(PrePrepare)
    def on_pre_prepare(self, sender: int, message: PrePrepare) -> None:
        """A backup accepts: in view v, from its primary, above h, no other batch for (v, n)."""
        if self.groups_change and message.view // VIEWS > self.epoch:
            self.keep(sender, message)
            return
        if message.view < self.view or sender != self.primary_of(message.view):
            return
        if message.view > self.view or not self.active:
            self.keep(sender, message)
            return
        context = self.context
        if message.sequence <= context.height:  # executed here, perhaps by state transfer: a vote may help others
            if context.chain.decided(message.sequence) is not message.block:
                return
        elif message.sequence <= self.low_mark:
            return
        for ballot in context.votes.ballots(message.view, message.sequence):
            if context.votes.has_voted(PREPARE, ballot):
                return
        if self.ends_group(message.block.parent) or not self.voters.accepts(message.block):
            return
        self.accept(context.votes.ballot(message.view, message.sequence, message.block), sender)

    @upon(PREPARE)
    def on_prepared(self, ballot: Ballot) -> None:
        """prepared(m, v, n, i): multicast <COMMIT, v, n, d, i>."""
        if self.active and ballot.view == self.view and not self.context.votes.has_voted(COMMIT, ballot):
            self.context.vote(COMMIT, ballot, self.audience, gate=True)

    @upon(COMMIT)
    def on_committed(self, ballot: Ballot) -> None:
        """committed-local(m, v, n, i): execute in order of n."""
        assert ballot.block is not None
        if self.active and ballot.view == self.view:
            self.context.decide(ballot.block)
            self.begin_group()
            self.propose()

    # --- garbage collection, section 4.3 ---------------------------------------------------------------

    def checkpoint(self, *, again: bool = False) -> None:
        """Multicast <CHECKPOINT, n, d, i> after executing a K-th batch, and `again` where it may have been lost."""
        executed = self.context.height
        height = executed - executed % self.parameters.checkpoint_interval
        if height <= self.low_mark or not self.is_voter:
            return
        if again or height > self.checkpointed:
            block = self.context.chain.decided(height)
            if block is None:
                return
            ballot = self.context.votes.ballot(-1, height, block)
            if again or not self.context.votes.has_voted(CHECKPOINT, ballot):
                self.context.vote(CHECKPOINT, ballot, self.audience)
            self.checkpointed = height
        if self.stable <= executed:
            self.raise_low_mark(self.stable)

    @upon(CHECKPOINT)
    def on_stable(self, ballot: Ballot) -> None:
        """2f + 1 checkpoints: the log up to n may go, once it is executed here.

        A later batch committed here before one that is missing: it was lost. Else batches may be on their way.
        """
        if ballot.number <= self.stable:
            return
        self.stable = ballot.number
        if self.stable > self.context.height:
            if self.context.chain.is_behind():
                self.fetch()
            else:
                self.await_late_batches()
        self.propose()

    # --- view changes, section 4.4 ---------------------------------------------------------------------

    @upon(NO_PROGRESS)
    def on_request_timeout(self) -> None:
        """A request waited too long: view v + 1, unless this replica alone is behind (then others know more).

        A primary does not suspect itself; it says again what it proposed, and asks whether the others left its view.
        """
        if not self.active or self.fetches_instead():
            return
        if self.is_primary:
            self.pre_prepare_again()
            self.fetch()
            self.context.clock.made_progress()
            self.context.clock.watch_progress(self.timeout_ns)
        else:
            self.change_view(self.view + 1)

    def change_view(self, view: int) -> None:
        """Multicast <VIEW-CHANGE, v, h, C, P, i>, and wait twice as long if nothing was executed since the last."""
        context = self.context
        if not self.is_voter:
            return
        executed = context.height > self.patient_since
        longer_ns = min(2 * self.timeout_ns, max(PATIENCE_MAX_NS, self.parameters.request_timeout_ns))
        self.timeout_ns = self.parameters.request_timeout_ns if executed else longer_ns
        self.patient_since = context.height
        self.view = view
        self.active = False
        context.disk.persist(view=view)
        context.clock.watch_progress(0)
        self.recovering = False
        self.await_new_view()
        message = ViewChange(view, self.low_mark, self.prepared(), self.signers(), context.me)
        context.broadcast(message, self.audience)
        self.on_view_change(context.me, message)

    def prepared(self) -> tuple[tuple[int, int, Block], ...]:
        """P: what prepared here above the stable checkpoint, each with the highest view it prepared in.

        Above H too: a backup that missed a checkpoint votes for what its primary proposes above a later one.
        """
        top = self.context.votes.highest_number()
        found = [(sequence, self.last_prepared(sequence)) for sequence in range(self.low_mark + 1, top + 1)]
        return tuple((sequence, *last) for sequence, last in found if last is not None)

    def last_prepared(self, sequence: int) -> tuple[int, Block] | None:
        """The highest view in which a batch of this number prepared here, and the batch."""
        context = self.context
        block = context.chain.decided(sequence)
        if block is not None:  # executed: no certificate for another batch can be younger
            return self.view - 1, block
        for view in range(self.view, self.first_view - 1, -1):
            for ballot in reversed(context.votes.ballots(view, sequence)):
                # A COMMIT of my own stands for a certificate that I had before a crash.
                certified = context.votes.is_complete(PREPARE, ballot) or context.votes.has_voted(COMMIT, ballot)
                if ballot.block is not None and certified:
                    return view, ballot.block
        return None

    def is_proven(self, change: ViewChange) -> bool:
        """Whether all of P is certified: else a liar could name a batch that never prepared, against one executed."""
        return all(self.was_prepared(*entry) for entry in change.prepared)

    def was_prepared(self, sequence: int, view: int, block: Block) -> bool:
        """Whether a certificate for an entry of P exists: 2f PREPAREs from backups, or that of its execution."""
        context = self.context
        if sequence <= context.height:
            return context.chain.decided(sequence) in (None, block)
        return context.chain.has_certificate(block) or self.quorums()[PREPARE].met_by(
            self.who_prepared(context.votes.ballot(view, sequence, block))
        )

    def who_prepared(self, ballot: Ballot) -> set[int]:
        """The backups of this group whose PREPARE exists; the primary's pre-prepare does not count."""
        return {*self.context.votes.signers(PREPARE, ballot)} & {*self.members} - {self.primary_of(ballot.view)}

    @upon(ViewChange)
    def on_view_change(self, sender: int, message: ViewChange) -> None:
        """Collect; join after f + 1 higher ones; the new primary answers 2f + 1."""
        if not self.awaits(sender, message.view, message.low_mark):
            return
        if sender != self.context.me and not self.is_proven(message):
            return
        changes = self.changes.setdefault(message.view, {})
        before = self.enough(changes)
        changes[sender] = message
        if message.view > self.view:
            ahead = {replica for view, of in self.changes.items() if view > self.view for replica in of}
            if len(ahead) > self.f:
                self.change_view(min(view for view in self.changes if view > self.view))
            return
        if self.recovering and len({*changes} - {self.context.me}) > self.f:
            self.change_view(message.view)  # asked for before the crash: the others need it again
            return
        if not self.enough(changes):
            return
        if not before:
            self.await_new_view()
        if self.primary_of(message.view) == self.context.me:
            self.new_view(message.view)

    @upon(VIEW_CHANGE_TIMER)
    def on_view_change_timeout(self, view: int) -> None:
        """No NEW-VIEW in time: the next view; too few changes: send mine again."""
        if self.active or self.view != view:
            return
        context = self.context
        if self.enough(self.changes.get(view, {})):
            self.change_view(view + 1)
            return
        own = self.changes[view][context.me]
        context.broadcast(own, self.audience)
        self.await_new_view()
        self.fetch()
        if len(self.changes[view]) <= self.f:
            context.clients.spread(self.members)

    def new_view(self, view: int) -> None:
        """The new primary multicasts <NEW-VIEW, v + 1, V, O> and enters the view; after a crash, with the one sent."""
        context = self.context
        sent: NewView | None = context.disk.stable.get("new_view")
        if sent is not None and sent.view == view:
            context.broadcast(sent, self.audience)
            self.adopt(context.me, sent)
            return
        changes = first_quorum(self.changes[view], self.enough)
        low, carried = self.carried_over(changes)
        if context.height < low:
            self.fetch()
            return
        message = NewView(view, changes, self.lay_out(view, low, carried))
        context.disk.persist(new_view=message)
        context.broadcast(message, self.audience)
        self.adopt(context.me, message)

    @upon(NewView)
    def on_new_view(self, sender: int, message: NewView) -> None:
        """A backup checks V and O, and enters the view."""
        if not self.awaits(sender, message.view):
            return
        asked = {change.replica for change in message.changes if change.view == message.view}
        if sender != self.primary_of(message.view) or not self.enough(asked & {*self.members}):
            return
        if not all(self.is_proven(change) for change in message.changes):
            return
        _, carried = self.carried_over(message.changes)
        if message.follows_from(carried):
            self.adopt(sender, message)

    def adopt(self, primary: int, message: NewView) -> None:
        """Enter the view and treat O's batches as pre-prepared in it."""
        context = self.context
        self.forget_changes(message.view)
        self.last_proposed = message.proposals[-1][1] if message.proposals else None
        if context.me == primary:
            view, before = context.disk.stable.get("proposed", (-1, None))
            if view == message.view and before is not None:  # by me, before a crash: no other batch in its place
                self.last_proposed = before
            context.disk.persist(proposed=(message.view, self.last_proposed))
        low = min_s(message.changes)
        self.raise_low_mark(low)
        self.view = message.view
        self.active = True
        for sequence, block in message.proposals:
            self.accept(context.votes.ballot(message.view, sequence, block), primary)
        self.enter(message.view)
        if context.height < low:
            self.fetch()
