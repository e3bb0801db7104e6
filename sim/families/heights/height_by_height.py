"""Replicas that decide one height after the other: what they keep for the next one, who votes at it, what they missed.

IBFT, QBFT and Tendermint differ in what happens within a height. Between heights they do the same: proposals of
heights to come wait, blocks that others decided are fetched (sim.families.sync), and a block may change who votes
(sim.families.voters). Where voters change, messages go to the voters of the height only, a replica that has no vote is
silent, and one that is to join fetches blocks until a member's message shows it that it has become one.
"""

from __future__ import annotations

import abc
import bisect
from collections.abc import Collection, Iterable
from typing import Any

from sim.families.sync import FETCH_TIMER, Blocks, BlockSync, Fetch, Status
from sim.families.voters import Voters
from sim.protocol import (
    ALL,
    MEMBERSHIP,
    Ballot,
    Block,
    Context,
    MembersChange,
    Message,
    Quorum,
    Replica,
    VoteType,
    invariant,
    upon,
)

DOUBLINGS_MAX = 30  # of a round timer; beyond, it would not fit 64 bits


def grown(timeout_ns: int, round_: int, times: float = 2, most_ns: int | None = None) -> int:
    """A timeout that grows so many times with every round, up to a limit."""
    limit_ns = timeout_ns << DOUBLINGS_MAX if most_ns is None else max(most_ns, timeout_ns)
    if times == 2:
        return min(timeout_ns << min(round_, DOUBLINGS_MAX), limit_ns)
    for _ in range(round_ if times > 1 else 0):
        timeout_ns = min(int(timeout_ns * times), limit_ns)
        if timeout_ns == limit_ns:
            break
    return timeout_ns


class HeightByHeight(Replica, abc.ABC):
    """Base of replicas that decide the block of one height before they vote on the next."""

    lasting_leader = False
    rounds_restart = True
    progress = "waiting"
    group_changes = "voters"
    admits_at_once = True

    def __init__(
        self,
        context: Context,
        patience_ns: int,
        *,
        peers: tuple[int, ...] | None = None,
        delay: int = 1,
        by_vote: bool = False,
    ) -> None:
        super().__init__(context)
        self.height = context.height + 1  # being decided
        self.round = 0
        self.early: list[tuple[int, Any]] = []  # proposals of heights to come, and who brought them
        self.early_quorum = 0  # highest height of which a quorum came before the proposal
        self.blocks = BlockSync(context, patience_ns, peers)
        self.voters = Voters(context, delay=delay, by_vote=by_vote)
        self.members = context.membership.members  # who votes at this height
        self.audience = ALL
        self.is_member = True
        self.restarted = bool(context.disk.stable)
        if context.membership.may_change:
            self.take_members()

    # --- what the protocol says --------------------------------------------------------------------------

    @abc.abstractmethod
    def absorb_fast_path(self) -> None:
        """Catch up with what the fast path did."""

    @abc.abstractmethod
    def begin_height(self) -> None:
        """The last block is decided: the next height begins."""

    @abc.abstractmethod
    def resume(self) -> None:
        """Deal with what came early, and take part."""

    @abc.abstractmethod
    def quorum_size(self) -> int:
        """How many of this height's members are a quorum."""

    @abc.abstractmethod
    def need_at(self, height: int) -> Quorum:
        """How many of the voters at a height must run."""

    # --- votes of a height -------------------------------------------------------------------------------

    def voted_blocks(self, vote: VoteType, rounds: Iterable[int]) -> list[tuple[int, Block]]:
        """Rounds of this height in which this replica cast such a vote for a block, and the block."""
        context, height = self.context, self.height
        return [
            (ballot.view, ballot.block)
            for round_ in rounds
            for ballot in context.votes.ballots(round_, height)
            if ballot.block is not None and context.votes.has_voted(vote, ballot)
        ]

    def voted_for_another(self, vote: VoteType, ballot: Ballot) -> bool:
        """Whether this replica cast such a vote for something else in a ballot's round."""
        same = self.context.votes.ballots(ballot.view, ballot.number)
        return any(other is not ballot and self.context.votes.has_voted(vote, other) for other in same)

    @property
    def has_moved_on(self) -> bool:
        """Whether the fast path has decided this height, and no handler has run since."""
        return self.context.height >= self.height

    @invariant("at most one vote of each type in a round")
    def votes_once(self) -> bool:
        """Of those cast in this round, nil among them; a replica's own votes outlast its crashes."""
        context = self.context
        ballots = context.votes.ballots(self.round, self.height)
        return len(ballots) < 2 or all(
            sum(context.votes.has_voted(vote, ballot) for ballot in ballots) <= 1 for vote in self.votes if vote.decides
        )

    def guard_base(self) -> int:
        """The guard of who waits for a proposal on top of the last decided block: no other block has it."""
        last = self.context.chain.decided(self.context.height)
        return 0 if last is None else 2 * last.number

    # --- quorums and turns -------------------------------------------------------------------------------

    @property
    def f(self) -> int:
        """Byzantine voters said to be tolerated at this height."""
        return (len(self.members) - 1) // 3

    def needs(self) -> tuple[Quorum, ...]:
        if not self.context.membership.may_change:
            return super().needs()
        following, (latest, _) = self.context.height + 1, self.voters.validator_sets[-1]
        return tuple(self.need_at(height) for height in sorted({following, max(latest, following)}))

    def carried_out(self) -> Collection[int]:
        return self.voters.latest.done

    def turn_after(self, last: int, steps: int = 0) -> int:
        """The member that follows replica `last`, or one that is so many steps further."""
        members = self.members
        return members[(bisect.bisect_right(members, last) + steps) % len(members)]

    def say(self, message: Message, *, new: bool = False) -> None:
        """Multicast to the members; `new`: a proposal that begins the block interval."""
        if new:
            self.context.pacing.begin_interval()
        self.context.broadcast(message, self.audience)

    # --- from height to height ---------------------------------------------------------------------------

    def decide_next(self, block: Block) -> None:
        """A block is final: if it is the next one here, the height after it begins."""
        context = self.context
        if block.height == context.height + 1 and block.parent is context.chain.decided(context.height):
            context.decide(block)
            self.begin_height()
            self.resume()

    def next_height(self) -> None:
        """The height after the last decided one, and its members."""
        self.height = self.context.height + 1
        self.early = [(sender, message) for sender, message in self.early if message.height >= self.height]
        if self.context.membership.may_change:
            before = {*self.members}
            self.take_members()
            self.welcome(sorted({*self.members} - before - {self.context.me}))

    def welcome(self, newcomers: list[int]) -> None:
        """Whoever proposed the block that makes replicas members sends it to them."""
        last = self.context.chain.decided(self.context.height)
        if last is not None and last.proposer == self.context.me:
            for newcomer in newcomers:
                self.blocks.answer(newcomer, self.context.height - 1, self.quorum_size())

    def take_members(self) -> None:
        """Who votes at this height, as the chain says."""
        context, voters, me = self.context, self.voters, self.context.me
        voters.follow()
        self.members = voters.at(self.height)
        self.is_member = me in self.members
        self.audience = context.membership.audience(self.members)
        self.blocks.peers = tuple(member for member in self.members if member != me)
        self.blocks.keeps_asking = not self.is_member and (voters.adds(me) or self.restarted)
        context.clients.serve(yes=self.is_member)

    @upon(MEMBERSHIP)
    def on_membership(self, request: MembersChange) -> None:
        """The operator asks for a change. Whoever is to join fetches what it lacks."""
        self.voters.ask(request)
        if self.voters.adds(self.context.me):
            self.take_members()
            self.blocks.fetch_from_next(self.context.me)
        self.resume()

    def new_block(self, parent: Block | None) -> Block | None:
        """A block for round 0, if transactions wait and it is due, or a change of the voters is."""
        context = self.context
        changes = context.membership.may_change and self.voters.due() is not None
        block = context.new_block(parent, 0, empty=changes) if context.pacing.await_batch() or changes else None
        if block is None:
            context.pacing.await_batch()
        else:
            self.voters.attach(block)
        return block

    def keep(self, via: int, message: Any) -> None:
        """Keep a proposal until its height is reached. If that cannot be the next one here, fetch what is missing."""
        if len(self.early) == 2 * self.context.n:
            del self.early[0]
        self.early.append((via, message))
        if message.height > self.height + 1 or not self.is_member:
            self.blocks.fetch(via)

    # --- block synchronisation ---------------------------------------------------------------------------

    @upon(FETCH_TIMER)
    def on_fetch_timeout(self, peer: int) -> None:
        """No answer: ask the next."""
        self.blocks.on_timeout(peer)

    @upon(Status)
    def on_status(self, sender: int, message: Status) -> None:
        """A peer is further, or one that is no member is level."""
        self.blocks.hear_of(sender, message.height)
        self.hear_newcomer(sender)

    def hear_newcomer(self, sender: int) -> None:
        """A replica that says how far it is, and is no member, is level: it may join."""
        if sender not in self.members and sender not in self.voters.level:
            self.voters.level.add(sender)
            self.resume()

    def level_with(self, peer: int) -> None:
        """Blocks of a peer have brought this replica level with it."""

    @upon(Fetch)
    def on_fetch(self, sender: int, message: Fetch) -> None:
        """Send decided blocks with their commit certificates."""
        self.blocks.answer(sender, message.height, self.quorum_size())

    @upon(Blocks)
    def on_blocks(self, sender: int, message: Blocks) -> None:
        """Decide what was fetched, and take part."""
        level = self.blocks.take(sender, message)
        if level and message.blocks:
            self.level_with(sender)
        if self.context.height >= self.height:
            self.begin_height()
            self.resume()
        if level and self.blocks.keeps_asking:
            self.context.broadcast(Status(self.context.height), self.audience)
