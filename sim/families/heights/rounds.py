"""Heights decided in rounds of one proposal, PREPAREs and COMMITs: what IBFT and QBFT share.

A round's proposer multicasts PRE-PREPARE; who accepts it multicasts PREPARE; a quorum of PREPAREs makes a certificate,
and who has one multicasts COMMIT; a quorum of COMMITs decides. Both papers take this from PBFT in the same words. They
differ in what a certificate binds to, how a round is left, and what justifies the proposal of a later one: the hooks.

Both papers assume that what a correct validator says arrives some time. Here a cut loses it, so whoever asked for a
round says again, every first round timer, what it said last at this height: those who were cut off from one another
meet in a round so long after healing, though their own timers have doubled with every round of the outage.
"""

from __future__ import annotations

import abc
from typing import Any, Literal

from pydantic import Field

from sim.families.heights.height_by_height import HeightByHeight, grown
from sim.families.sync import HEADER_BYTES, Status
from sim.families.turns import FirstLeader
from sim.parameters import Nanoseconds, quantity
from sim.protocol import (
    BATCH,
    DECIDED,
    NO_PROGRESS,
    Ballot,
    Block,
    Context,
    FastPath,
    Message,
    NormalCase,
    Quorum,
    Step,
    Timer,
    VoteType,
    upon,
)

PREPARE = VoteType("PREPARE", HEADER_BYTES)
COMMIT = VoteType("COMMIT", HEADER_BYTES)
SAY_AGAIN_TIMER = Timer("say again")
PERIOD_TIMER = Timer("block period")
ROUND_TIMER = Timer("round")
FUTURE_TIMER = Timer("future block")


class RoundParameters(FirstLeader):
    """What IBFT and QBFT share: how the round timer grows, and what becomes of proposals from the future."""

    round_timeout_growth: float = Field(default=2.0, ge=1, le=10, description="by how much it grows with every round")
    round_timeout_max_ns: Nanoseconds | None = quantity(None, "but not beyond this", positive=True)
    future_allowed_ns: Nanoseconds = quantity("0 s", "so far ahead of a validator's clock a proposal's time may be")
    future_blocks: Literal["keep", "refuse"] = Field(
        default="keep", description="what becomes of one farther ahead: kept until it no longer is, or refused"
    )


class RoundByRound(HeightByHeight):
    """One validator."""

    votes = (PREPARE, COMMIT)
    block_rules = frozenset({"period", "batch_timeout"})
    executes = "before_vote"

    def __init__(self, context: Context, *, by_vote: bool = False) -> None:
        super().__init__(context, context.parameters.round_timeout_ns, by_vote=by_vote)
        self.changing = False  # `round` was asked for and has not begun
        self.accepted: Ballot | None = None  # the proposal accepted in this round
        self.received: list[Block] = []  # proposed at this height
        self.changes: dict[int, Any] = {}  # round -> the ROUND-CHANGEs for it, at this height
        self.proposed: tuple[int, int, Any] | None = None  # height, round, PRE-PREPARE: what this validator proposed
        self.period_ns = context.pacing.period_ns
        self.period_timer = self.round_timer = 0  # handles, where blocks have a period
        self.period_over = self.period_ns == 0  # round 0 has begun
        self.saying_again = 0  # handle of the timer; 0: this height's round 0 has not been left

    # --- what a protocol says ----------------------------------------------------------------------------

    @abc.abstractmethod
    def proposal(self) -> Any:
        """PRE-PREPARE for this round, if it is mine; None if nothing waits, or it is not justified yet."""

    @abc.abstractmethod
    def on_pre_prepare(self, sender: int, message: Any) -> None:
        """Upon PRE-PREPARE."""

    @property
    @abc.abstractmethod
    def is_bound(self) -> bool:
        """Whether a certificate of this height binds me."""

    @abc.abstractmethod
    def bind(self, round_: int, block: Block) -> None:
        """I have a certificate for a block in a round: a quorum of PREPAREs, or my own COMMIT that stands for it."""

    @abc.abstractmethod
    def unbind(self) -> None:
        """The height is decided, and what bound me at it is over."""

    @abc.abstractmethod
    def leave_round(self) -> None:
        """This round's timer expired."""

    @abc.abstractmethod
    def send_round_change(self) -> None:
        """Multicast ROUND-CHANGE for the round that I asked for, and count it."""

    # --- rules: what a mutant or a variant overrides -----------------------------------------------------

    def proposer_after(self, last: int, round_: int) -> int:
        """Who proposes in this round after a block that `last` proposed: they take turns."""
        return self.turn_after(last, round_)

    def timeout_ns(self, round_: int) -> int:
        """The round timer grows with every round."""
        parameters = self.parameters
        times, most_ns = parameters.round_timeout_growth, parameters.round_timeout_max_ns
        return grown(parameters.round_timeout_ns, round_, times, most_ns)

    @abc.abstractmethod
    def votes_of(self, members: int) -> int:
        """How many votes of so many members are a quorum."""

    def quorum_size(self) -> int:
        return self.votes_of(len(self.members))

    def need_at(self, height: int) -> Quorum:
        return self.voters.quorum(height, self.votes_of(len(self.voters.at(height))))

    def quorum_of(self, vote: VoteType, ballot: Ballot) -> Quorum:
        return self.need_at(ballot.number)

    def quorums(self) -> dict[VoteType, Quorum]:
        return {PREPARE: Quorum(self.quorum_size()), COMMIT: Quorum(self.quorum_size())}

    def round_without_trouble(self, proposal: type[Message]) -> tuple[NormalCase, ...]:
        """The normal case, for the protocol to declare (`Replica.normal_cases`): nobody inherits one."""
        if self.context.membership.may_change or self.period_ns:
            return ()  # the fast path knows one set of validators, and no period
        return (NormalCase(upon=proposal, votes=(Step(PREPARE), Step(COMMIT)), decide=True),)

    def waits_for(self) -> str:
        if not self.changing:
            return f"proposer {self.proposer_of(self.round)}"
        return f"round {self.round} to begin, has ROUND-CHANGE of {sorted(self.changes.get(self.round, ()))}"

    # --- start, and the fast path ------------------------------------------------------------------------
    #
    # Guards upon block b: 2b before a proposal of round 0 is accepted, 2b + 1 afterwards.

    @property
    def view_number(self) -> int:
        return self.round

    def start(self) -> None:
        context, stable = self.context, self.context.disk.stable
        if "height" not in stable:
            context.disk.persist(height=1, round=0, changing=False, proposed=None)
            self.begin_round_0()
            self.resume()
            return
        self.proposed = stable["proposed"]
        if stable["height"] == self.height and stable["round"] > 0:
            self.round, self.changing = stable["round"], stable["changing"]
            self.watch(self.round)
        else:
            self.begin_round_0()
        for round_ in range(self.round + 1):
            for ballot in context.votes.ballots(round_, self.height):
                if context.votes.has_voted(COMMIT, ballot) and ballot.block is not None:
                    self.bind(round_, ballot.block)  # to the latest: rounds ascend
                    self.received.append(ballot.block)
                if round_ == self.round and context.votes.has_voted(PREPARE, ballot) and not self.changing:
                    assert ballot.block is not None
                    self.accepted = ballot
                    self.received.append(ballot.block)  # what it voted for was on disk before
        self.blocks.fetch_from_next(context.me)
        if self.round > 0:
            if self.accepted is None:
                self.send_round_change()
            self.say_again_later()
        self.resume()

    def absorb_fast_path(self) -> None:
        """Catch up with what the fast path did: blocks decided, a proposal accepted, a certificate."""
        context = self.context
        if context.height >= self.height:
            self.begin_height()
        if self.round == 0 and not self.changing and not self.is_bound:
            block = context.fast_path.block()
            if self.accepted is None and block is not None and block.height == self.height:
                self.accepted = context.votes.ballot(0, self.height, block)
                self.received.append(block)
            if self.accepted is not None and context.votes.has_voted(COMMIT, self.accepted):
                assert self.accepted.block is not None
                self.bind(0, self.accepted.block)

    def guard(self) -> int | None:
        """Nothing is out of the ordinary at this height."""
        ordinary = self.round == 0 and not self.changing and self.early_quorum < self.height and not self.early
        return self.guard_base() + (self.accepted is not None) if ordinary else None

    # --- the block period, and the round timer -----------------------------------------------------------

    def watch(self, round_: int) -> None:
        """A round's timer begins: of waiting transactions, or where blocks have a period, of the round alone."""
        if not self.period_ns:
            self.context.clock.watch_progress(self.timeout_ns(round_))
            return
        self.context.cancel(self.round_timer)
        self.round_timer = self.context.set_timer(ROUND_TIMER, self.timeout_ns(round_), (self.height, round_))

    def begin_round_0(self) -> None:
        """Round 0 begins: at once, or a period after the last block was made."""
        if not self.period_ns:
            self.watch(0)
            return
        self.period_over = False
        self.context.cancel(self.round_timer)
        self.await_period(self.period_ns)

    def await_period(self, period_ns: int) -> None:
        """Wait until so long after the last block was made."""
        last = self.context.chain.decided(self.context.height)
        due_ns = period_ns + (0 if last is None else last.made_ns)
        self.context.cancel(self.period_timer)
        delay_ns = max(due_ns - self.context.clock.time_ns, 0)
        self.period_timer = self.context.set_timer(PERIOD_TIMER, delay_ns, (self.height, period_ns))

    @upon(PERIOD_TIMER)
    def on_period_over(self, about: tuple[int, int]) -> None:
        """Round 0 begins; where empty blocks have a longer period and nothing waits, after that, or with what comes."""
        height, period_ns = about
        if height != self.height or self.round > 0 or self.period_over:
            return
        pacing = self.context.pacing
        if period_ns < pacing.empty_period_ns and not pacing.something_waits():
            pacing.await_batch()
            self.await_period(pacing.empty_period_ns)
            return
        self.period_over = True
        self.watch(0)
        self.propose()

    @upon(ROUND_TIMER)
    def on_round_over(self, about: tuple[int, int]) -> None:
        """Nothing was decided in a round."""
        if about == (self.height, self.round):
            self.on_round_timeout()

    # --- a round without trouble -------------------------------------------------------------------------

    def begin_height(self) -> None:
        """The last block is decided: round 0 of the next height."""
        context = self.context
        round_before = self.round
        self.next_height()
        self.round, self.changing = 0, False
        self.accepted = None
        self.unbind()
        self.received, self.changes = [], {}
        if self.saying_again:
            context.cancel(self.saying_again)
            self.saying_again = 0
        if round_before > 0:
            context.enter_view(0)
        if round_before > 0 or self.period_ns:
            self.begin_round_0()

    def resume(self) -> None:
        """Deal with what came early, propose if it is this validator's turn."""
        early, self.early = self.early, []
        for sender, message in early:
            self.on_pre_prepare(sender, message)
        self.propose()

    def proposer_of(self, round_: int) -> int:
        """Who proposes in a round of this height. The first block is the first leader's."""
        last = self.context.chain.decided(self.context.height)
        if last is None:
            return self.turn_after(self.parameters.steps_to(0) - 1, round_)
        return self.proposer_after(last.proposer, round_)

    def leader(self, ahead: int = 0) -> int | None:
        return self.proposer_of(self.round + ahead)

    @upon(BATCH, DECIDED)
    def on_turn(self) -> None:
        """A transaction came, or the fast path decided the block after which this validator proposes."""
        if self.period_ns and not self.period_over and self.round == 0:
            self.await_period(self.period_ns)
        self.propose()

    def propose(self) -> None:
        """The proposer multicasts PRE-PREPARE; what it had proposed before a crash, again."""
        context = self.context
        if self.changing or self.accepted is not None or self.proposer_of(self.round) != context.me:
            return
        again = self.proposed is not None and self.proposed[:2] == (self.height, self.round)
        message = self.proposed[2] if again and self.proposed is not None else self.proposal()
        if message is None:
            return
        self.received.append(message.block)
        self.proposed = (self.height, self.round, message)
        context.disk.persist(proposed=self.proposed)
        ballot = context.votes.ballot(self.round, self.height, message.block)
        if self.round == 0 and not context.membership.may_change:
            number = self.guard_base()
            fast = FastPath(
                number, number + 1, done=2 * message.block.number, notify=self.proposer_after(context.me, 0)
            )
            context.propose(message, ballot, fast)
        else:
            self.say(message, new=self.round == 0)
        self.accept(ballot)

    def first_block(self, parent: Block | None) -> Block | None:
        """A block for round 0: as soon as something waits, or with its period, empty or not."""
        if not self.period_ns:
            return self.new_block(parent)
        if not self.period_over:
            return None
        block = self.context.new_block(parent, 0, empty=True)
        assert block is not None
        self.voters.attach(block)
        return block

    def accept(self, ballot: Ballot) -> None:
        """Multicast PREPARE."""
        context = self.context
        self.accepted = ballot
        if not context.votes.has_voted(PREPARE, ballot):
            context.vote(PREPARE, ballot, self.audience)
        if context.votes.is_complete(PREPARE, ballot):
            self.on_prepared(ballot)

    def accept_in_time(self, ballot: Ballot) -> None:
        """Accept a proposal; one from the future by my clock when its time has come, or not at all."""
        parameters, block = self.parameters, ballot.block
        assert block is not None
        if self.context.clock.all_agree:
            self.accept(ballot)
            return
        early_ns = block.made_ns - self.context.clock.time_ns - parameters.future_allowed_ns
        if early_ns <= 0:
            self.accept(ballot)
        elif parameters.future_blocks == "keep":
            self.context.set_timer(FUTURE_TIMER, early_ns, (self.height, self.round, ballot))

    @upon(FUTURE_TIMER)
    def on_its_time(self, about: tuple[int, int, Ballot]) -> None:
        """The time of a proposal has come: accept it, if its round still waits for one."""
        *place, ballot = about
        waits = place == [self.height, self.round] and self.accepted is None and not self.changing
        if waits and not self.voted_for_another(PREPARE, ballot):
            self.accept(ballot)

    @upon(PREPARE)
    def on_prepared(self, ballot: Ballot) -> None:
        """A quorum of PREPAREs: a certificate; multicast COMMIT."""
        if ballot is self.accepted:
            assert ballot.block is not None
            self.bind(ballot.view, ballot.block)
            if not self.context.votes.has_voted(COMMIT, ballot):
                self.context.vote(COMMIT, ballot, self.audience)
        else:
            self.early_quorum = max(self.early_quorum, ballot.number)

    @upon(COMMIT)
    def on_committed(self, ballot: Ballot) -> None:
        """A quorum of COMMITs: decide the block, if it is here."""
        assert ballot.block is not None
        if ballot.block in self.received:
            self.decide_next(ballot.block)
        else:
            self.early_quorum = max(self.early_quorum, ballot.number)

    # --- round changes -----------------------------------------------------------------------------------

    @upon(NO_PROGRESS)
    def on_round_timeout(self) -> None:
        """The timer expired. Who has no vote leaves no round."""
        if self.is_member:
            self.leave_round()
        else:
            self.watch(0)

    def say_again_later(self) -> None:
        """I have left round 0: till this height is decided I say again what I said last."""
        if not self.saying_again:
            self.saying_again = self.context.set_timer(SAY_AGAIN_TIMER, self.parameters.round_timeout_ns, self.height)

    @upon(SAY_AGAIN_TIMER)
    def say_again(self, height: int) -> None:
        """What I said last may have been lost: ROUND-CHANGE, or my own proposal and my votes in this round."""
        self.saying_again = 0
        if height != self.height or not self.is_member:
            return
        self.say_again_later()
        ballot = self.accepted
        if ballot is None:
            self.send_round_change()
            return
        if self.proposed is not None and self.proposed[:2] == (self.height, self.round):
            self.say(self.proposed[2])
        for vote in self.votes:
            if self.context.votes.has_voted(vote, ballot):
                self.context.vote(vote, ballot, self.audience)

    def concerns_height(self, sender: int, height: int) -> bool:
        """Whether a ROUND-CHANGE is of this height and a member's; who is elsewhere is told, or asked for blocks."""
        if height < self.height:
            self.context.send(sender, Status(self.context.height))
        elif height > self.height:
            self.blocks.fetch(sender)
        return height == self.height and self.is_member and sender in self.members
