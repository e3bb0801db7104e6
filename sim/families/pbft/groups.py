"""A group that orders one sequence of batches: who belongs to it, and how one of it that is behind catches up.

For PBFT and its variants. A protocol says how a batch is agreed on and how a view is changed; here are the handlers
around that. They are methods of the replica, for a handler needs one.

State transfer fetches the missing batches from one replica at a time, each with its commit certificate, and the view
that replica works in. It starts upon a stable checkpoint above the last executed batch, upon restart, while a view
change finds no quorum, and in place of one when a later batch is committed here already (only this replica is behind).

A group ends with a batch that everybody knows to be its last, and the next goes on from it as from a stable checkpoint,
in views of its own (`begin_group`). Replicas join and leave as FISCO BCOS's sealers do, by its consensus precompiled
contract (addSealer, removeNode; documentation of version 2.x, "node management"): the batch that carries a request is
the last of its group. A protocol may change groups at other heights, and have replicas that wait for their turn.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Collection
from typing import Any, ClassVar, Literal

from sim.families.pbft.viewchange import Executed, ViewChange, carried_over
from sim.families.sync import FETCH_MAX, FETCH_TIMER, Fetch, Status
from sim.families.voters import ValidatorSet, Voters
from sim.protocol import (
    ALL,
    DECIDED,
    MEMBERSHIP,
    Block,
    Context,
    MembersChange,
    Quorum,
    Replica,
    Timer,
    VoteType,
    upon,
)

PATIENCE_MAX_NS = 3_600_000_000_000  # one hour: f + 1 who are ahead take others along, without any wait
VIEWS = 1000  # numbers of views per group, where groups change
VIEW_CHANGE_TIMER = Timer("view change")
LATE_TIMER = Timer("late batches")
VOTES_TIMER = Timer("votes again")


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Who decides some heights, in the order in which they lead, and who waits meanwhile."""

    members: tuple[int, ...]
    waiting: tuple[int, ...] = ()

    def has(self, replica: int) -> bool:
        """Whether a replica is one of them, or waits."""
        return replica in self.members or replica in self.waiting


class GroupReplica(Replica, abc.ABC):
    """A replica in its group's view, or on its way there."""

    group_changes: ClassVar[Literal["never", "voters"]] = "voters"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.voters = Voters(context)
        self.group = Group(context.membership.members)  # of the next batch
        self.is_voter = True  # one of its members
        self.belongs = True  # or waiting
        self.epoch = 0  # how many groups were before this one
        self.asked_at = -1  # height at which blocks were last fetched for a message of a later group, and when
        self.asked_ns = 0
        self.f = self.tolerated()
        self.audience = ALL  # whom proposals, votes and view changes go to
        self.first_view = 0  # whatever prepared did so in this view or a later one
        self.view = 0
        self.active = False
        self.recovering = False  # restarted, and not yet in a view
        self.low_mark = 0  # h
        self.stable = 0  # the last stable checkpoint, which may lie above what is executed here
        self.last_proposed: Block | None = None
        self.early: list[tuple[int, Any]] = []  # proposals of views this replica is not in yet, and who sent them
        self.behind_at = -1  # height at which a state transfer was last tried in place of a view change
        self.changes: dict[int, dict[int, ViewChange]] = {}  # view -> replica -> its VIEW-CHANGE
        self.change_timer = 0
        self.timeout_ns = self.parameters.request_timeout_ns
        self.fetching = 0  # timer of a state transfer under way
        self.fetch_from = context.me
        self.fetch_above = -1  # the height above which it asked last
        self.awaits_blocks = False  # the answer has not come, nor has patience with it ended
        self.fetch_patience_ns = context.parameters.request_timeout_ns
        if self.groups_change:
            self.join_group()

    @property
    def view_number(self) -> int:
        return self.view

    @property
    def members(self) -> tuple[int, ...]:
        """Of the group of the next batch, in the order in which they lead."""
        return self.group.members

    # --- what the protocol says --------------------------------------------------------------------------

    @abc.abstractmethod
    def enter(self, view: int) -> None:
        """Work in a view from now on."""

    @abc.abstractmethod
    def change_view(self, view: int) -> None:
        """Ask for a view."""

    @abc.abstractmethod
    def new_view(self, view: int) -> None:
        """Lead a view that enough have asked for."""

    @abc.abstractmethod
    def propose(self) -> None:
        """Propose what waits, if this replica leads."""

    @abc.abstractmethod
    def checkpoint(self) -> None:
        """Say how far the log is executed here, if it is time."""

    # --- quorums and primaries of this group -------------------------------------------------------------

    def tolerated(self) -> int:
        """f."""
        return self.tolerated_of(len(self.members))

    def tolerated_of(self, members: int) -> int:
        """f of so many."""
        faults: int | None = self.parameters.faults
        most = (members - 1) // 3
        return most if faults is None else min(faults, most)

    def committed_quorum(self) -> int:
        """2f + 1 where n = 3f + 1; for any n the least number of which two sets share a correct replica."""
        return (len(self.members) + self.f) // 2 + 1

    def enough(self, replicas: Collection[int]) -> bool:
        """Whether these replicas are a quorum."""
        return len(replicas) >= self.committed_quorum()

    def signers(self) -> int:
        """How many signatures a certificate counts."""
        return self.committed_quorum()

    def primary_of(self, view: int) -> int:
        """p = v mod |R|, in the group's order; views are counted from the group's first."""
        members, first = self.members, self.parameters.first_leader
        place = members.index(first) if first in members else 0
        return members[(place + view - self.epoch * VIEWS) % len(members)]

    def leader(self, ahead: int = 0) -> int | None:
        return self.primary_of(self.view + ahead)

    @property
    def is_primary(self) -> bool:
        """Whether this replica leads its view."""
        return self.primary_of(self.view) == self.context.me

    # --- what this replica works on ----------------------------------------------------------------------

    @property
    def window(self) -> int:
        """L."""
        return int(self.parameters.log_window)

    @property
    def high_mark(self) -> int:
        """H = h + L."""
        return self.low_mark + self.window

    def raise_low_mark(self, low: int) -> None:
        """h: the log up to here may go."""
        if low > self.low_mark:
            self.low_mark = low
            self.context.disk.persist(low_mark=low)

    @property
    def next_sequences(self) -> range:
        """The batches that come next, as many as are looked at."""
        return range(self.context.height + 1, self.context.height + 3)

    def votes_once(self, vote: VoteType) -> bool:
        """Whether it cast such a vote once at the most for this view and each of the next sequence numbers."""
        context, view = self.context, self.view
        return all(
            sum(context.votes.has_voted(vote, ballot) for ballot in context.votes.ballots(view, sequence)) <= 1
            for sequence in self.next_sequences
        )

    def keep(self, sender: int, message: Any) -> None:
        """Keep a proposal that overtook the NEW-VIEW of its view until this replica is in that view."""
        if len(self.early) == self.window:
            del self.early[0]
        self.early.append((sender, message))
        ahead = message.sequence - self.context.height
        if self.groups_change and (not self.belongs or ahead > 1 + self.parameters.pipeline):
            self.fetch_once()

    def kept(self) -> list[tuple[int, Any]]:
        """What was kept, and is not any longer."""
        early, self.early = self.early, []
        return early

    # --- the fast path -----------------------------------------------------------------------------------

    def guard(self) -> int | None:
        """The view, of who works in it and lacks nothing."""
        return self.view if self.active and self.lacks_nothing() else None

    def lacks_nothing(self) -> bool:
        """Whether no earlier batch is missing here: while one is, whatever comes must reach the handlers."""
        return self.context.height >= self.low_mark and not self.context.chain.is_behind()

    def absorb_fast_path(self) -> None:
        """Catch up with what the fast path proposed for this primary."""
        block, mine = self.context.fast_path.last_proposal(), self.last_proposed
        if block is not None and block.view == self.view and (mine is None or block.height > mine.height):
            self.last_proposed = block
            self.context.disk.persist(proposed=(self.view, block))

    @upon(DECIDED)
    def on_decided_in_fast_path(self) -> None:
        """A batch committed in the fast path."""
        self.propose()

    # --- view changes ------------------------------------------------------------------------------------

    def await_new_view(self) -> None:
        """Start the timer of the view change afresh."""
        self.context.cancel(self.change_timer)
        self.change_timer = self.context.set_timer(VIEW_CHANGE_TIMER, self.timeout_ns, self.view)

    def awaits(self, sender: int, view: int, low_mark: int | None = None) -> bool:
        """Whether a message of a view change concerns this group and a view that has not begun here."""
        if not self.concerns_group(sender, view, low_mark):
            return False
        return view > self.view or (view == self.view and not self.active)

    def carried_over(self, changes: tuple[ViewChange, ...]) -> tuple[int, list[tuple[int, Block | None]]]:
        """min-s and O's batches, as V says."""
        return carried_over(changes)

    def forget_changes(self, view: int) -> None:
        """A view begins: VIEW-CHANGEs for it, and for those before, are of no use any more."""
        self.context.cancel(self.change_timer)
        self.changes = {later: of for later, of in self.changes.items() if later > view}

    def lay_out(self, view: int, low: int, carried: list[tuple[int, Block | None]]) -> tuple[tuple[int, Block], ...]:
        """O: the batches carried over, null requests in the gaps, each on top of the one before."""
        context, parent = self.context, self.context.chain.decided(low)
        proposals = []
        for sequence, block in carried:
            chosen = block
            if chosen is None:  # a null request
                chosen = context.new_block(parent, view, number=sequence, empty=True)
                assert chosen is not None
            elif context.chain.decided(sequence) is None:
                context.chain.place(chosen, parent)
            proposals.append((sequence, chosen))
            parent = chosen
        return tuple(proposals)

    # --- groups ------------------------------------------------------------------------------------------

    @property
    def groups_change(self) -> bool:
        """Whether other groups may follow the first."""
        return self.context.membership.may_change

    def group_at(self, height: int) -> Group:
        """Who decides a height, as far as is known here."""
        return Group(self.voters.at(height))

    def groups_before(self, height: int) -> int:
        """How many groups were before that of a height."""
        return self.voters.changes()

    def needs(self) -> tuple[Quorum, ...]:
        if not self.context.membership.may_change:
            return super().needs()
        groups = {self.voters.at(self.context.height + 1), self.voters.latest.members}
        return tuple(self.need_of(members) for members in sorted(groups))

    def need_of(self, members: tuple[int, ...]) -> Quorum:
        """How many of these members must run."""
        return self.voters.quorum_of(members, (len(members) + self.tolerated_of(len(members))) // 2 + 1)

    def carried_out(self) -> Collection[int]:
        return self.voters.latest.done

    def ends_group(self, block: Block | None) -> bool:
        """Whether a batch not executed here changes the group: nothing follows it before it is."""
        return block is not None and block.height > self.context.height and isinstance(block.body, ValidatorSet)

    def begin_group(self) -> None:
        """Upon executing the last batch of a group: the next group begins, in views that count from 1000 e.

        Who proposed that batch sends it to the newcomers. Its commit certificate stands for a stable checkpoint.
        """
        context, before = self.context, self.group
        if context.membership.may_change:
            self.voters.follow()
        if not self.groups_change or self.groups_before(context.height + 1) == self.epoch:
            return
        self.join_group()
        last = context.chain.decided(context.height)
        if context.membership.may_change and last is not None and last.proposer == context.me:
            for newcomer in sorted({*self.group.members, *self.group.waiting} - {context.me}):
                if not before.has(newcomer):
                    self.on_fetch(newcomer, Fetch(context.height - 1))
        context.cancel(self.change_timer)
        self.changes = {}
        self.low_mark = context.height
        self.timeout_ns = self.parameters.request_timeout_ns
        context.disk.persist(low_mark=self.low_mark)
        self.enter(self.first_view)

    def join_group(self) -> None:
        """The group of the next batch, as the batches executed here say."""
        context = self.context
        self.group, self.epoch = self.group_at(context.height + 1), self.groups_before(context.height + 1)
        self.first_view = self.epoch * VIEWS
        self.is_voter = context.me in self.members
        self.belongs = self.group.has(context.me)
        self.f = self.tolerated()
        self.audience = (
            ALL if len(self.members) == context.n else context.membership.audience(tuple(sorted(self.members)))
        )
        if context.membership.may_change:
            context.clients.serve(yes=self.belongs)

    def concerns_group(self, sender: int, view: int, low_mark: int | None = None) -> bool:
        """Whether a message about a view is one of this group's members'.

        Who asks for a view of a group that is over is sent the batches since; for one to come: this replica is behind.
        """
        if not self.groups_change:
            return True
        epoch = view // VIEWS
        if epoch < self.epoch and low_mark is not None:
            self.on_fetch(sender, Fetch(low_mark))
        elif epoch > self.epoch:
            self.fetch_once()
        return epoch == self.epoch and self.is_voter and sender in self.members

    def fetch_once(self) -> None:
        """Fetch, once at each height; again after a while, for whoever was asked may have been behind itself."""
        if self.awaits_blocks:
            return
        now_ns, height = self.context.now_ns, self.context.height
        if self.asked_at < height or now_ns >= self.asked_ns + self.parameters.request_timeout_ns:
            self.asked_at, self.asked_ns = height, now_ns
            self.fetch()

    @upon(MEMBERSHIP)
    def on_membership(self, request: MembersChange) -> None:
        """The operator asks for a change: the primary sees to it. Who is to join fetches what it lacks."""
        self.voters.ask(request)
        if self.voters.adds(self.context.me):
            self.fetch()
        self.propose()

    def say_level(self) -> None:
        """If this replica is to be a member: tell the group that it can count on it, and go on asking until it is."""
        context, voters = self.context, self.voters
        if context.me not in voters.latest.members and not voters.adds(context.me):
            return
        context.broadcast(Status(context.height), self.audience)
        self.fetching = context.set_timer(FETCH_TIMER, self.parameters.request_timeout_ns)

    @upon(Status)
    def on_status(self, sender: int, _: Status) -> None:
        """A replica that is to join is level."""
        self.voters.level.add(sender)
        self.propose()

    # --- state transfer ----------------------------------------------------------------------------------

    def await_late_batches(self) -> None:
        """Others have executed more: what they have may be on its way here, behind copies for others on a slow card."""
        self.context.set_timer(LATE_TIMER, self.parameters.request_timeout_ns, (self.stable, self.context.height))

    @upon(LATE_TIMER)
    def on_late_batches(self, about: tuple[int, int]) -> None:
        """Nothing was executed here for a request timeout: what is missing will not come by itself."""
        stable, height = about
        if self.context.height >= stable or not self.active:
            return
        if self.context.height > height:
            self.await_late_batches()
        else:
            self.fetch()

    def peers(self) -> tuple[int, ...]:
        """Whom to ask, in ascending order."""
        return tuple(replica for replica in sorted(self.members) if replica != self.context.me)

    def fetch(self) -> None:
        """Ask the next replica for what was executed above this one's height."""
        context = self.context
        context.cancel(self.fetching)
        peers = self.peers()
        if not peers:
            self.enter(self.view)
            return
        self.fetch_from = next((peer for peer in peers if peer > self.fetch_from), peers[0])
        self.fetch_above, self.awaits_blocks = context.height, True
        context.send(self.fetch_from, Fetch(context.height))
        self.fetching = context.set_timer(FETCH_TIMER, self.fetch_patience_ns)

    def fetches_instead(self) -> bool:
        """In place of a view change: if a later batch is committed here, others know more. Once at each height."""
        context = self.context
        if not context.chain.is_behind() or context.height <= self.behind_at:
            return False
        self.behind_at = context.height
        self.fetch()
        context.clock.made_progress()
        context.clock.watch_progress(self.timeout_ns)
        return True

    def rejoin(self) -> None:
        """After a crash: ask for the view and for what was executed meanwhile."""
        stable = self.context.disk.stable
        self.view, self.low_mark = stable["view"], stable["low_mark"]
        self.recovering = True
        view, block = stable.get("proposed", (self.view, None))
        if view == self.view:  # the primary of this view must not propose another batch in its place
            self.last_proposed = block
        self.fetch()

    @upon(FETCH_TIMER)
    def on_fetch_timeout(self, _: None) -> None:
        """No answer: ask somebody else; wait longer for it, for an answer may take long to send and to verify."""
        stuck = self.context.height == self.fetch_above
        least_ns: int = self.parameters.request_timeout_ns
        self.fetch_patience_ns = min(2 * self.fetch_patience_ns, max(PATIENCE_MAX_NS, least_ns)) if stuck else least_ns
        self.fetch()

    @upon(Fetch)
    def on_fetch(self, sender: int, message: Fetch) -> None:
        """Send executed blocks with their certificates, and the view this replica works in."""
        context = self.context
        if sender == context.me:
            return  # a replica that forgot is told what it asked for before
        top = min(context.height, message.height + FETCH_MAX)
        blocks = [context.chain.decided(height) for height in range(message.height + 1, top + 1)]
        known = tuple(block for block in blocks if block is not None)
        context.send(sender, Executed(self.view, known, self.signers(), context.height, self.active))

    @upon(Executed)
    def on_executed(self, sender: int, message: Executed) -> None:
        """Execute what was fetched; go on until level with the sender, then take part in its view.

        Only the answer to what was asked last is a reason to ask again: else what comes late doubles the questions.
        """
        context = self.context
        awaited = not message.blocks or message.blocks[0].height == self.fetch_above + 1
        self.awaits_blocks = self.awaits_blocks and not awaited
        for block in message.blocks:
            if block.height == context.height + 1:
                context.decide(block)
        self.begin_group()
        self.checkpoint()
        if context.height < message.last:
            if awaited:
                self.fetch()
            return
        context.cancel(self.fetching)
        self.awaits_blocks = False
        if not self.belongs:
            self.say_level()
        elif self.groups_change and message.view // VIEWS != self.epoch:
            if self.recovering:  # whoever answered is behind itself
                self.fetching = context.set_timer(FETCH_TIMER, self.parameters.request_timeout_ns)
            self.propose()
        elif message.active and (message.view > self.view or (message.view == self.view and not self.active)):
            self.changes = {view: of for view, of in self.changes.items() if view > message.view}
            if message.view > self.view:
                context.clock.watch_progress(0)  # what it voted for in the views before may be over
            self.enter(message.view)
        elif not message.active and message.view > self.view:
            self.change_view(message.view)
        elif not message.active and self.recovering:  # everybody is recovering
            self.change_view(self.view + 1)
        elif not self.active and self.primary_of(self.view) == context.me:
            if self.enough(self.changes.get(self.view, {})):
                self.new_view(self.view)
        elif self.active:
            self.propose()
        elif self.recovering:  # whoever answered is behind itself
            self.fetching = context.set_timer(FETCH_TIMER, self.parameters.request_timeout_ns)
