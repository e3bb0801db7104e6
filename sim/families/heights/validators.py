"""What a validator does around its rules of voting: power, gossip, the fast path, what it repeats, and its restart.

For protocols that decide one height after the other, in rounds of one proposal and two votes, as Tendermint does. A
protocol says when it proposes and votes, what it locks and what is decided; here are the handlers around that.
They are methods of the replica, for a handler needs one. How powers, gossip and block synchronisation work stands in
`powers`, `gossip` and `sync`; here is what a validator does with them.

* Each height has its powers, and its proposers take turns by them: step h - 1 + r is that of round r of height h. Where
  members change, whoever leaves has power 0, and the others' priorities go on.
* timeout_commit: the next proposer waits so long after a decision; others begin the next height at once, and their
  patience counts from the end of that wait.
* Directly, messages go from each to all. With `dissemination: gossip` they flood a graph of neighbours, where CometBFT
  tracks what each neighbour lacks.
* Either way, messages may be lost. A process repeats its votes for values of the round before, and of the round of
  its lock, when it begins another round (direct), and sends all its messages of this height again, with its height,
  when it has made no progress for `resend_after`; with gossip all that it has heard, to its neighbours. With them
  goes what its clients wait for: a process that waits for nothing lets no round expire. Who is further answers, and
  blocks are fetched with their commit certificates. A restarted process begins so.
* Votes, valid value (with the votes it rests on) and round are on disk before a process speaks.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar

from sim.families.heights.gossip import CastVote, NeighbourGossip, Relayed, Said
from sim.families.heights.height_by_height import HeightByHeight
from sim.families.heights.powers import Powers, powers_at, powers_of
from sim.families.sync import Status
from sim.protocol import Block, Context, FastPath, Quorum, Timer, VoteType, upon

COMMIT_TIMER = Timer("commit")


class Validator(HeightByHeight):
    """A replica with voting power that says what it has to say to all, or to its neighbours."""

    two_votes: ClassVar[tuple[VoteType, VoteType]]  # of a round, in their order

    def __init__(self, context: Context, patience_ns: int) -> None:
        p = context.parameters
        self.gossip = NeighbourGossip(context, p.gossip_degree) if p.dissemination == "gossip" else None
        self.power = p.power or (1,) * context.n
        self.powers = powers_of(self.power)
        self.first_height = 1  # from which on these powers are in force
        turns = range(self.powers.total) if p.first_leader is not None else ()
        self.steps_before = next((step for step in turns if self.powers.turn(step) == p.first_leader), 0)
        peers = None if self.gossip is None else self.gossip.neighbours
        super().__init__(context, patience_ns, peers=peers, delay=2)
        self.step = 0  # how many of the two votes it has cast in this round
        self.proposals: list[Any] = []  # received in this height from their rounds' proposers
        self.proposed: tuple[int, int, Any] | None = None  # height, round: what this process proposed
        self.timed: set[tuple[Timer, int]] = set()  # timers set in this height, by round
        self.commit_wait_over = 1  # the height whose commit wait is over here, or was not needed
        self.period_ns = 0  # of the progress timer
        self.told: dict[int, tuple[int, int]] = {}  # peers behind: the height told last, and until when not again

    @property
    def view_number(self) -> int:
        return self.round

    # --- what the protocol says --------------------------------------------------------------------------

    @abc.abstractmethod
    def quorum_power(self) -> int:
        """How much power a quorum has."""

    @abc.abstractmethod
    def timeout_propose_ns(self, round_: int) -> int:
        """How long to wait for a proposal."""

    @abc.abstractmethod
    def take(self, via: int, message: Any) -> None:
        """Take a proposal, as its author's message or as what a neighbour said."""

    @abc.abstractmethod
    def on_turn(self) -> None:
        """Propose, if it is this process's turn."""

    @abc.abstractmethod
    def recall_proposal(self, block: Block, round_: int) -> None:
        """This process has voted for a block, so it had this round's proposal of it."""

    @abc.abstractmethod
    def recall_lock(self, block: Block, round_: int) -> None:
        """This process has cast its second vote of a round for a block."""

    # --- power -------------------------------------------------------------------------------------------

    def powers_at(self, height: int) -> tuple[int, Powers]:
        """Since when the powers of a height are in force, and which they are."""
        if not self.context.membership.may_change:
            return 1, self.powers
        return powers_at(
            height, self.power, [(first, validator_set.members) for first, validator_set in self.voters.validator_sets]
        )

    def proposer_of(self, height: int, round_: int) -> int:
        """proposer(h, r): round robin weighted by power, one step for every height and every round."""
        first, powers = self.powers_at(height) if height > self.height else (self.first_height, self.powers)
        return powers.turn(self.steps_before + height - first + round_)

    def leader(self, ahead: int = 0) -> int | None:
        return self.proposer_of(self.height, self.round + ahead)

    def quorum_size(self) -> int:
        """How many sign a certificate."""
        return Quorum(self.quorum_power(), weights=self.powers.weights).voters_needed()

    def need_at(self, height: int) -> Quorum:
        _, powers = self.powers_at(height)
        return Quorum(powers.quorum(), weights=powers.powers)

    def take_members(self) -> None:
        super().take_members()
        self.first_height, self.powers = self.powers_at(self.height)
        if self.gossip is not None:
            self.blocks.peers = self.gossip.neighbours

    # --- the progress timer, and timeout_commit ----------------------------------------------------------

    def watch(self, period_ns: int) -> None:
        """Start the progress timer with this period."""
        self.period_ns = period_ns
        self.context.clock.watch_progress(period_ns)

    def first_period_ns(self) -> int:
        """Patience of round 0, counted from the decision before."""
        return int(self.parameters.timeout_commit_ns + self.timeout_propose_ns(0))

    def may_begin(self) -> bool:
        """Whether timeout_commit is over; if not, its timer runs."""
        wait_ns = self.parameters.timeout_commit_ns
        if self.round > 0 or wait_ns == 0 or self.commit_wait_over >= self.height:
            return True
        if (COMMIT_TIMER, 0) not in self.timed:
            self.timed.add((COMMIT_TIMER, 0))
            self.context.set_timer(COMMIT_TIMER, wait_ns, self.height)
        return False

    @upon(COMMIT_TIMER)
    def on_commit_wait_over(self, height: int) -> None:
        """timeout_commit is over: propose."""
        self.commit_wait_over = max(self.commit_wait_over, height)
        self.on_turn()

    def schedule(self, timer: Timer, delay_ns: int) -> None:
        """Schedule a timeout of this round, for the first time."""
        if (timer, self.round) not in self.timed:
            self.timed.add((timer, self.round))
            self.context.set_timer(timer, delay_ns, (self.height, self.round))

    # --- the fast path -----------------------------------------------------------------------------------
    #
    # Guards upon block b: 2b in round 0 before its first vote, 2b + 1 after it.

    def absorb_fast_path(self) -> None:
        """Catch up with what the fast path did: values decided, a proposal voted for, and voted for again."""
        context = self.context
        if context.height >= self.height:
            self.begin_height()
        if self.round > 0:
            return
        block = context.fast_path.block()
        if self.step == 0 and block is not None and block.height == self.height:
            self.recall_proposal(block, 0)
            self.step = 1
        second = self.two_votes[1]
        for proposal in self.proposals if self.step == 1 else ():
            if proposal.round == 0 and context.votes.has_voted(
                second, context.votes.ballot(0, self.height, proposal.block)
            ):
                self.step = 2
                self.recall_lock(proposal.block, 0)

    def guard(self) -> int | None:
        """Nothing is out of the ordinary at this height."""
        ordinary = (
            self.gossip is None
            and self.round == 0
            and not self.early
            and not self.timed
            and self.early_quorum < self.height
            and self.period_ns == self.first_period_ns()
            and (self.step == 0) == (not self.proposals)
            and (self.step == 0 or self.normal_votes())
        )
        return self.guard_base() + (self.step > 0) if ordinary else None

    def normal_votes(self) -> bool:
        """Whether this process's votes of round 0 were those of the normal case."""
        context, (first, second) = self.context, self.two_votes
        if self.proposals[0].round > 0:
            return False  # and no ballot of round 0 is opened for a block of another
        ballot = context.votes.ballot(0, self.height, self.proposals[0].block)
        return context.votes.has_voted(first, ballot) and (self.step == 1 or context.votes.has_voted(second, ballot))

    # --- to all, or to the neighbours --------------------------------------------------------------------

    def bring(self, message: Any) -> None:
        """Send a proposal of this height and round, the fast path's if it is ordinary."""
        context = self.context
        self.proposed = (self.height, self.round, message)
        context.disk.persist(proposed=self.proposed)
        self.proposals.append(message)
        if self.gossip is not None:
            if self.round == 0:
                context.pacing.begin_interval()
            self.gossip.say(self.height, message)
        elif self.round == 0 and not context.membership.may_change:
            number = self.guard_base()
            ballot = context.votes.ballot(0, self.height, message.block)
            done, next_proposer = 2 * message.block.number, self.proposer_of(self.height + 1, 0)
            context.propose(message, ballot, FastPath(number, number + 1, done=done, notify=next_proposer))
        else:
            self.say(message, new=self.round == 0)

    def cast(self, vote: VoteType, block: Block | None) -> None:
        """Vote in this round, for nil without a block. Who has no power at this height keeps quiet."""
        context, ballot = self.context, self.context.votes.ballot(self.round, self.height, block)
        if not self.is_member:
            return
        if self.gossip is None:
            context.vote(vote, ballot, self.audience)
        else:
            context.votes.count(vote, ballot, context.me)
            self.gossip.say(self.height, CastVote(vote, context.me, self.round, self.height, block))

    @upon(Said, Relayed)
    def on_gossip(self, sender: int, message: Said) -> None:
        """A proposal or a vote by way of a neighbour: pass it on, and take it as its author's."""
        context, content = self.context, message.content
        if self.gossip is None or not self.gossip.is_new(sender, message):
            return
        if not isinstance(content, CastVote):
            self.take(sender, message)
        elif content.height > context.height:
            context.votes.count(
                content.vote, context.votes.ballot(content.round, content.height, content.block), content.voter
            )

    # --- against loss: repetition and block synchronisation ----------------------------------------------

    def resend(self) -> None:
        """Send again what this process has said at this height (or heard), and how many values it has decided."""
        context = self.context
        context.clients.spread(self.members)  # who waits for nothing runs no timer, and its vote may be needed
        if self.gossip is not None:
            self.gossip_again(self.gossip)
            return
        self.say(Status(context.height))
        if self.proposed is not None and self.proposed[:2] == (self.height, self.round):
            self.say(self.proposed[2])
        for round_ in range(self.round + 1):
            self.repeat_votes(round_, values_only=False)

    def gossip_again(self, gossip: NeighbourGossip) -> None:
        """`resend` to the neighbours: all that was heard; after a crash, what this process itself had said."""
        context = self.context
        if gossip.neighbours:
            context.send(gossip.neighbours, Status(context.height))
        if self.proposed is not None and self.proposed[:2] == (self.height, self.round):
            gossip.know(self.height, self.proposed[2])
        for round_ in range(self.round + 1):
            for ballot in context.votes.ballots(round_, self.height):
                for vote in self.two_votes:
                    if context.votes.has_voted(vote, ballot):
                        gossip.know(self.height, CastVote(vote, context.me, round_, self.height, ballot.block))
        gossip.repeat(self.height)

    def repeat_votes(self, round_: int, *, values_only: bool) -> None:
        """Send again what this process voted in a round of this height, nil left out or not."""
        context = self.context
        for vote in self.two_votes:
            for ballot in list(context.votes.ballots(round_, self.height)):
                if context.votes.has_voted(vote, ballot) and not (values_only and ballot.block is None):
                    context.vote(vote, ballot, self.audience)

    @upon(Status)
    def on_status(self, sender: int, message: Status) -> None:
        """A peer is further: fetch. It is behind: tell it."""
        if message.height < self.context.height:
            self.tell(sender)
        elif message.height > self.context.height:
            self.blocks.hear_of(sender, message.height)
        elif self.gossip is not None:
            self.gossip.repeat(self.height, sender)
        self.hear_newcomer(sender)

    def tell(self, peer: int) -> None:
        """Say how far this process is; the same to the same peer once in `resend_after`."""
        now_ns, height = self.context.now_ns, self.context.height
        told, until_ns = self.told.get(peer, (-1, 0))
        if told != height or now_ns >= until_ns:
            self.told[peer] = height, now_ns + self.parameters.resend_after_ns
            self.context.send(peer, Status(height))

    def level_with(self, peer: int) -> None:
        """With gossip: what was said at this height?"""
        if self.gossip is not None:
            self.context.send(peer, Status(self.context.height))

    # --- after a crash -----------------------------------------------------------------------------------

    def restore(self) -> None:
        """Read from disk which round this is, and what this process has said in it and before."""
        stable = self.context.disk.stable
        self.proposed = stable["proposed"]
        self.commit_wait_over = self.height
        if stable["height"] == self.height:
            self.round = stable["round"]
        self.watch(self.timeout_propose_ns(self.round) if self.round else self.first_period_ns())
        for round_ in range(self.round + 1):
            self.remember(round_)

    def remember(self, round_: int) -> None:
        """What this process had voted for in a round says which step it was in, and its lock."""
        context, (first, second) = self.context, self.two_votes
        for ballot in context.votes.ballots(round_, self.height):
            once, twice = context.votes.has_voted(first, ballot), context.votes.has_voted(second, ballot)
            if ballot.block is not None and (once or twice):
                self.recall_proposal(ballot.block, round_)
            if ballot.block is not None and twice:
                self.recall_lock(ballot.block, round_)
            if round_ == self.round and (once or twice):
                self.step = max(self.step, 2 if twice else 1)

    def rejoin(self) -> None:
        """Ask what others have decided meanwhile, and say again what this process has said."""
        self.blocks.fetch_from_next(self.context.me)
        self.resend()
