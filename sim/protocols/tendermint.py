"""Tendermint.

E. Buchman, J. Kwon, Z. Milosevic, "The latest gossip on BFT consensus", arXiv 1807.04938, 2018, Algorithm 1; voting
power, proposer selection and timeout_commit as CometBFT has them.

n processes, f < n / 3. Each height runs rounds of three steps. The proposer of a round broadcasts
<PROPOSAL, h, r, v, vr>; a process answers with <PREVOTE, h, r, id(v)>, or with nil if it is locked on another value
or hears nothing in time; upon 2f + 1 PREVOTEs for v it locks v and broadcasts <PRECOMMIT, h, r, id(v)>, upon 2f + 1
for nil it precommits nil; upon 2f + 1 PRECOMMITs for v, of any round, it decides v. Otherwise 2f + 1 votes for
anything at all start a timer, and the next round begins when it expires. A value with 2f + 1 PREVOTEs becomes the
*valid* value, which a proposer proposes again, naming the round vr of those PREVOTEs; whoever locked another value
in an earlier round may then vote for it.

paper                                here
-----                                ----
h_p, round_p, step_p                 height (ballot.number), round (ballot.view), step
proposer(h, r)                       proposer_of(height, round), step h - 1 + r of sim.ledger.powers
lockedValue_p, lockedRound_p         locked_value, locked_round
validValue_p, validRound_p           valid_value, valid_round
<PREVOTE, h, r, id(v)>, nil          a vote in the ballot (r, h, v), (r, h, None)
2f + 1 <PREVOTE, h, r, *>            quorum of PREVOTES, the umbrella of PREVOTE; so PRECOMMITS
f + 1 <*, h, round, *, *>            early quorum of either umbrella
schedule OnTimeoutPropose            the progress timer
OnTimeoutPrevote, OnTimeoutPrecommit timers PREVOTE_TIMER, PRECOMMIT_TIMER
"upon" rules                         `apply_rules`, with the line numbers of Algorithm 1

Deviations
* Processes have voting power (`power`). A quorum is the least power above two thirds of all, for any powers; f + 1 the
  least that a third cannot have. With power one each and n = 3f + 1 that is 2f + 1 and f + 1 processes.
* f + 1 messages of a higher round (line 55) are counted per type of vote; who precommits has prevoted in that round.
* timeoutPropose runs while a transaction waits, from the start of the round or from the transaction's arrival; so
  an idle chain makes no rounds (CometBFT's create_empty_blocks = false).
* timeout_commit: the next proposer waits so long after a decision; others begin the next height at once, and their
  timeoutPropose counts from the end of that wait.
* Gossip is assumed to lose nothing. By default there is none: messages go from each to all directly. With
  `dissemination: gossip` they flood a graph of neighbours (sim.ledger.gossip), where CometBFT tracks what each
  neighbour lacks.
* Whichever way, messages may be lost. A process repeats its votes for values of earlier rounds when it begins another
  round (direct), and sends all its messages of this height again, with its height, when it has made no progress for
  `resend_after`; with gossip all that it has heard, to its neighbours. Who is further answers, and blocks are fetched
  with their commit certificates (sim.ledger.sync). A restarted process begins so.
* Votes, valid value and round are on disk before a process speaks.
* Processes join and leave as with CometBFT's validator updates: a block at height h changes who has power from h + 2 on
  (sim.ledger.voters), and the others' priorities go on (sim.ledger.powers).

Not modelled: changes of power, invalid values, evidence, block parts, the time to write to disk.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import Field

from sim.ledger.gossip import CastVote, Gossip, Relayed, Said
from sim.ledger.heights import HeightByHeight
from sim.ledger.powers import Powers, powers_after, powers_of
from sim.ledger.sync import HEADER_BYTES, Blocks, Fetch, Status
from sim.parameters import Count, Nanoseconds, Parameters, count, quantity
from sim.protocol import (
    BATCH,
    DECIDED,
    NO_PROGRESS,
    Ballot,
    Block,
    Context,
    Letter,
    NormalCase,
    Quorum,
    Signing,
    Step,
    Timer,
    VoteType,
    upon,
)


class TendermintParameters(Parameters):
    """Parameters of Tendermint; the defaults of the timeouts are CometBFT's."""

    timeout_propose_ns: Nanoseconds = quantity("3 s", "wait for a proposal in round 0", positive=True)
    timeout_propose_delta_ns: Nanoseconds = quantity("500 ms", "how much longer with every round")
    timeout_prevote_ns: Nanoseconds = quantity("1 s", "wait after 2f + 1 prevotes for anything, in round 0")
    timeout_prevote_delta_ns: Nanoseconds = quantity("500 ms", "how much longer with every round")
    timeout_precommit_ns: Nanoseconds = quantity("1 s", "wait after 2f + 1 precommits for anything, in round 0")
    timeout_precommit_delta_ns: Nanoseconds = quantity("500 ms", "how much longer with every round")
    timeout_commit_ns: Nanoseconds = quantity("0 s", "wait of the next proposer after a decision")
    resend_after_ns: Nanoseconds = quantity(
        "10 s", "messages of a height are sent again after so long without progress", positive=True
    )
    power: tuple[Annotated[Count, Field(ge=1)], ...] | None = Field(
        None, description="voting power of each voter; absent: all have the same"
    )
    dissemination: Literal["direct", "gossip"] = Field(
        "direct", description="proposals and votes go to all directly, or from neighbour to neighbour"
    )
    gossip_degree: Count = count(8, "neighbours of each voter, all others if there are not more", low=2)


@dataclasses.dataclass(frozen=True, slots=True)
class Proposal(Letter):
    """<PROPOSAL, h, r, v, vr>."""

    height: int
    round: int
    block: Block
    valid_round: int  # vr, or -1

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES + self.block.bytes

    def carries(self) -> Block:
        return self.block


PREVOTES = VoteType("PREVOTES", HEADER_BYTES, decides=False)
PRECOMMITS = VoteType("PRECOMMITS", HEADER_BYTES, decides=False)
PREVOTE = VoteType("PREVOTE", HEADER_BYTES, umbrella=PREVOTES)
PRECOMMIT = VoteType("PRECOMMIT", HEADER_BYTES, umbrella=PRECOMMITS)

POWER_MAX = (1 << 21) - 1  # of all voters together: what a tally can count

PREVOTE_TIMER = Timer("prevote")
PRECOMMIT_TIMER = Timer("precommit")
COMMIT_TIMER = Timer("commit")

PROPOSING, PREVOTED, PRECOMMITTED = range(3)  # step_p: propose, prevote, precommit


class Tendermint(HeightByHeight):
    """One process of Tendermint."""

    letters = (Proposal, Status, Fetch, Blocks)
    later_letters = (Said, Relayed)
    votes = (PREVOTE, PRECOMMIT, PREVOTES, PRECOMMITS)

    def __init__(self, context: Context) -> None:
        p = context.parameters
        self.gossip = Gossip(context, p.gossip_degree) if p.dissemination == "gossip" else None
        self.power = p.power or (1,) * context.n
        self.powers = powers_of(self.power)
        self.first_height = 1  # from which on these powers are in force
        peers = None if self.gossip is None else self.gossip.neighbours
        super().__init__(context, p.timeout_propose_ns, peers=peers, delay=2)
        self.step = PROPOSING
        self.proposals: list[Proposal] = []  # received in this height from their rounds' proposers
        self.locked_value: Block | None = None
        self.locked_round = -1
        self.valid_value: Block | None = None
        self.valid_round = -1
        self.timed: set[tuple[Timer, int]] = set()  # timers scheduled in this height, by round
        self.early_rounds: dict[int, int] = {}  # height to come -> highest round of which votes were reported
        self.proposed: tuple[int, int, Proposal] | None = None  # height, round: what this process proposed
        self.commit_wait_over = 1  # the height whose commit wait is over here, or was not needed
        self.period_ns = 0  # of the progress timer

    @staticmethod
    def check(parameters: TendermintParameters, voters: int) -> None:
        """Raise ValueError if the parameters do not fit the number of voters."""
        power, degree = parameters.power, parameters.gossip_degree
        if power is not None and len(power) != voters:
            raise ValueError(
                f"power: {len(power)} values for {voters} voters; give each voter one, or leave power out"
            )
        if power is not None and sum(power) > POWER_MAX:
            raise ValueError(f"power: adds up to {sum(power)}, at most {POWER_MAX}; give it in a larger unit")
        if parameters.dissemination == "gossip" and degree < voters - 1 and degree * voters % 2:
            raise ValueError(
                f"gossip_degree: {degree} neighbours for each of {voters} voters: one of the two must be even; "
                f"write gossip_degree: {degree + 1}"
            )

    # --- rules: what a mutant or a variant overrides -----------------------------------------------------

    def quorum_power(self) -> int:
        """2f + 1; for any powers the least above two thirds."""
        return self.powers.quorum()

    def may_prevote(self, proposal: Proposal) -> bool:
        """Lines 23 and 29: not locked, or locked on this value, or its prevotes are no older than the lock."""
        return (
            self.locked_round == -1
            or self.locked_value is proposal.block
            or (proposal.valid_round >= 0 and self.locked_round <= proposal.valid_round)
        )

    def update_lock(self, block: Block | None) -> None:
        """Lines 38, 39: 2f + 1 prevotes of this round, in step prevote, lock their value; for nil nothing happens."""
        if block is not None:
            self.locked_value, self.locked_round = block, self.round

    def proposer_of(self, height: int, round_: int) -> int:
        """proposer(h, r): round robin weighted by power, one step for every height and every round."""
        return self.powers.turn(height - self.first_height + round_)

    def timeout_propose_ns(self, round_: int) -> int:
        """timeoutPropose(r)."""
        p = self.parameters
        return int(p.timeout_propose_ns + round_ * p.timeout_propose_delta_ns)

    def quorums(self) -> dict[VoteType, Quorum]:
        q, few, weights = self.quorum_power(), self.powers.one_correct(), self.powers.weights
        one_value = Quorum(q, weights=weights)
        any_value = Quorum(q, early=few if few < q else 0, weights=weights)
        return {PREVOTE: one_value, PRECOMMIT: one_value, PREVOTES: any_value, PRECOMMITS: any_value}

    def quorum_of(self, vote: VoteType, ballot: Ballot) -> Quorum:
        _, powers = self.powers_at(ballot.number)
        early = powers.one_correct() if vote in (PREVOTES, PRECOMMITS) else 0
        return Quorum(powers.quorum(), early=early if early < powers.quorum() else 0, weights=powers.powers)

    def quorum_size(self) -> int:
        """How many sign a commit certificate."""
        return Quorum(self.quorum_power(), weights=self.powers.weights).voters_needed()

    def normal_cases(self) -> tuple[NormalCase, ...]:
        if self.gossip is not None or self.context.members_change:
            return ()  # every message is passed on by a handler; the lane knows one set of processes
        return (NormalCase(upon=Proposal, votes=(Step(PREVOTE), Step(PRECOMMIT)), decide=True),)

    # --- start, and the fast lane ------------------------------------------------------------------------
    #
    # Lane numbers of height h: 2h in round 0's step propose, 2h + 1 after prevoting for its proposal.

    @property
    def view_number(self) -> int:
        self.sync()
        return self.round

    def abstract_state(self) -> tuple[int, int, int]:
        """The height, the locked and the valid value."""
        locked, valid = self.locked_value, self.valid_value
        return self.height, 0 if locked is None else locked.number, 0 if valid is None else valid.number

    def start(self) -> None:
        context, stable = self.context, self.context.stable
        if "height" not in stable:
            context.persist(height=1, round=0, proposed=None, valid=(0, -1, None))
            self.watch(self.first_period_ns())
            self.resume()
            return
        self.proposed = stable["proposed"]
        self.commit_wait_over = self.height
        if stable["height"] == self.height:
            self.round = stable["round"]
        self.watch(self.timeout_propose_ns(self.round) if self.round else self.first_period_ns())
        for round_ in range(self.round + 1):
            self.remember(round_)
        height, round_, block = stable["valid"]
        if height == self.height and round_ > self.valid_round:
            self.valid_round, self.valid_value = round_, block
        self.blocks.fetch_from_next(context.me)
        self.resend()
        self.resume()

    def remember(self, round_: int) -> None:
        """After a crash: what this process had voted for in a round says which step it was in, and its lock."""
        context = self.context
        for ballot in context.ballots(round_, self.height):
            prevoted, precommitted = context.has_voted(PREVOTE, ballot), context.has_voted(PRECOMMIT, ballot)
            if ballot.block is not None and (prevoted or precommitted):
                self.proposals.append(Proposal(self.height, round_, ballot.block, -1))
            if ballot.block is not None and precommitted:
                self.locked_round = self.valid_round = round_
                self.locked_value = self.valid_value = ballot.block
            if round_ == self.round and (prevoted or precommitted):
                self.step = max(self.step, PRECOMMITTED if precommitted else PREVOTED)

    def sync(self) -> None:
        """Catch up with what the fast lane did: values decided, a proposal prevoted for, and precommitted."""
        context = self.context
        if context.height >= self.height:
            self.begin_height()
        if self.round > 0:
            return
        block = context.lane_block()
        if self.step == PROPOSING and block is not None and block.height == self.height:
            self.proposals.append(Proposal(self.height, 0, block, -1))
            self.step = PREVOTED
        for proposal in self.proposals if self.step == PREVOTED else ():
            if proposal.round == 0 and context.has_voted(PRECOMMIT, context.ballot(0, self.height, proposal.block)):
                self.step = PRECOMMITTED
                self.locked_value = self.valid_value = proposal.block
                self.locked_round = self.valid_round = 0

    def set_lane(self) -> None:
        """Work in the fast lane if nothing is out of the ordinary at this height."""
        ordinary = (
            self.gossip is None
            and self.round == 0
            and not self.early
            and not self.timed
            and self.early_quorum < self.height
            and self.period_ns == self.first_period_ns()
            and (self.step == PROPOSING) == (not self.proposals)
            and (self.step == PROPOSING or self.normal_votes())
        )
        self.context.lane(2 * self.height + (self.step > PROPOSING) if ordinary else None)

    def normal_votes(self) -> bool:
        """Whether this process's votes of round 0 were those of the normal case."""
        context = self.context
        ballot = context.ballot(0, self.height, self.proposals[0].block)
        return context.has_voted(PREVOTE, ballot) and (self.step == PREVOTED or context.has_voted(PRECOMMIT, ballot))

    def first_period_ns(self) -> int:
        """Patience of round 0, counted from the decision before."""
        return int(self.parameters.timeout_commit_ns + self.timeout_propose_ns(0))

    # --- power, at a height ------------------------------------------------------------------------------

    def powers_at(self, height: int) -> tuple[int, Powers]:
        """The powers in force at a height, and since when."""
        if not self.context.members_change:
            return 1, self.powers
        known = [(first, roll.members) for first, roll in self.voters.rolls if first <= height or first == 1]
        changes = [pair for i, pair in enumerate(known) if i == 0 or pair[1] != known[i - 1][1]]
        everybody = range(self.context.n)
        power = self.power
        history = tuple((first, tuple(power[i] * (i in members) for i in everybody)) for first, members in changes)
        return history[-1][0], powers_after(history)

    def take_members(self) -> None:
        super().take_members()
        self.first_height, self.powers = self.powers_at(self.height)
        if self.gossip is not None:
            self.blocks.peers = self.gossip.neighbours

    def watch(self, period_ns: int) -> None:
        """Start the progress timer with this period."""
        self.period_ns = period_ns
        self.context.watch_progress(period_ns)

    def begin_height(self) -> None:
        """Lines 52 to 54: the next height, nothing locked, nothing valid, an empty message log, round 0."""
        context = self.context
        round_before = self.round
        self.next_height()
        self.round, self.step = 0, PROPOSING
        self.locked_value, self.locked_round = None, -1
        self.valid_value, self.valid_round = None, -1
        self.proposals, self.timed = [], set()
        if self.gossip is not None:
            self.gossip.forget(self.height)
        if round_before > 0:
            context.enter_view(0)
        if self.period_ns != self.first_period_ns():
            self.watch(self.first_period_ns())

    def resume(self) -> None:
        """Deal with what came early, propose if it is this process's turn, and return to the lane."""
        early, self.early = self.early, []
        for via, message in early:
            self.take(via, message)
        round_ = self.early_rounds.pop(self.height, 0)
        if round_ > self.round:
            self.start_round(round_)
        self.propose()
        self.apply_rules()
        self.set_lane()

    # --- StartRound, lines 11 to 21 ----------------------------------------------------------------------

    def start_round(self, round_: int) -> None:
        """Lines 12 to 21."""
        context = self.context
        self.round, self.step = round_, PROPOSING
        context.persist(height=self.height, round=round_)
        context.lane(None)
        context.enter_view(round_)
        self.watch(self.timeout_propose_ns(round_))  # line 21
        for earlier in range(round_) if self.gossip is None else ():
            self.repeat_votes(earlier, values_only=True)
        self.propose()

    @upon(BATCH, DECIDED)
    def on_turn(self) -> None:
        """A transaction came, or the lane decided the value after which this process proposes."""
        self.sync()
        self.propose()
        self.apply_rules()
        self.set_lane()

    @upon(COMMIT_TIMER)
    def on_commit_wait_over(self, height: int) -> None:
        """timeout_commit is over: propose."""
        self.commit_wait_over = max(self.commit_wait_over, height)
        self.on_turn()

    def propose(self) -> None:
        """Lines 14 to 19: the valid value if there is one, or a new one."""
        context = self.context
        if self.step != PROPOSING or self.proposer_of(self.height, self.round) != context.me:
            return
        if any(proposal.round == self.round for proposal in self.proposals) or not self.may_begin():
            return
        message = self.proposal()
        if message is None:
            return
        self.proposed = (self.height, self.round, message)
        context.persist(proposed=self.proposed)
        self.proposals.append(message)
        if self.gossip is not None:
            if self.round == 0:
                context.proposing()
            self.gossip.say(self.height, message)
        elif self.round == 0 and not context.members_change:
            number = 2 * self.height
            ballot = context.ballot(0, self.height, message.block)
            next_proposer = self.proposer_of(self.height + 1, 0)
            context.propose(message, ballot, guard=(number, number + 1), after=number + 2, tell=next_proposer)
        else:
            self.say(message, new=self.round == 0)
        self.apply_rules()

    def may_begin(self) -> bool:
        """Whether timeout_commit is over; if not, its timer runs."""
        wait_ns = self.parameters.timeout_commit_ns
        if self.round > 0 or wait_ns == 0 or self.commit_wait_over >= self.height:
            return True
        if (COMMIT_TIMER, 0) not in self.timed:
            self.timed.add((COMMIT_TIMER, 0))
            self.context.set_timer(COMMIT_TIMER, wait_ns, self.height)
        return False

    def proposal(self) -> Proposal | None:
        """What was proposed before a crash, the valid value, or a new one; None if nothing waits."""
        context = self.context
        if self.proposed is not None and self.proposed[:2] == (self.height, self.round):
            return self.proposed[2]
        block = self.valid_value  # line 16
        if block is None and self.round > 0:
            block = context.new_block(context.decided_block(context.height), self.round, empty=True)
        elif block is None:
            block = self.new_block(context.decided_block(context.height))
        return None if block is None else Proposal(self.height, self.round, block, self.valid_round)

    # --- upon ... ------------------------------------------------------------------------------------------

    @upon(Proposal)
    def on_proposal(self, sender: int, message: Proposal) -> None:
        """It comes from its author."""
        self.take(sender, message)

    def take(self, via: int, message: Proposal | Said) -> None:
        """Take a proposal into the log if it is its proposer's, on top of the last decision. `via`: who brought it."""
        author, proposal = (message.author, message.content) if isinstance(message, Said) else (via, message)
        assert isinstance(proposal, Proposal)
        unknown = self.context.members_change and proposal.height > self.height + 1  # whose turn that is
        if self.context.members_change and proposal.height < self.height:
            return
        if not unknown and author != self.proposer_of(proposal.height, proposal.round):
            return
        self.sync()
        context, block = self.context, proposal.block
        if proposal.height > self.height:
            self.keep(via, message)
        elif proposal.height == self.height and proposal not in self.proposals:
            if block.parent is context.decided_block(context.height) and self.voters.accepts(block):
                self.proposals.append(proposal)
                self.apply_rules()
        self.set_lane()

    @upon(Said, Relayed)
    def on_gossip(self, sender: int, message: Said) -> None:
        """A proposal or a vote by way of a neighbour: pass it on, and take it as its author's."""
        gossip, content = self.gossip, message.content
        if gossip is None or not gossip.is_new(sender, message):
            return
        if isinstance(content, CastVote):
            if content.height > self.context.height:
                context = self.context
                context.count(content.vote, context.ballot(content.round, content.height, content.block), content.voter)
        elif isinstance(content, Proposal):
            self.take(sender, message)

    @upon(PREVOTE, PRECOMMIT)
    def on_votes(self, ballot: Ballot) -> None:
        """2f + 1 votes for one value or for nil."""
        self.sync()
        before = (self.height, self.step)
        if ballot.number == self.height:
            self.apply_rules()
        if ballot.number >= self.height and (self.height, self.step) == before:
            self.early_quorum = max(self.early_quorum, ballot.number)  # nothing followed yet
        self.set_lane()

    @upon(PREVOTES, PRECOMMITS)
    def on_any_votes(self, ballot: Ballot) -> None:
        """2f + 1 votes for anything, or f + 1."""
        self.sync()
        if ballot.number > self.height and ballot.view > self.early_rounds.get(ballot.number, 0):
            self.early_rounds[ballot.number] = ballot.view
        elif ballot.number == self.height:
            if ballot.view > self.round:
                self.start_round(ballot.view)  # lines 55, 56
            self.apply_rules()
        self.set_lane()

    def apply_rules(self) -> None:
        """The upon-rules of this height and round that apply now."""
        context, height, round_ = self.context, self.height, self.round
        for block in [proposal.block for proposal in self.proposals]:  # line 49; v counts, whichever round brought it
            for earlier in range(round_ + 1):
                if context.complete(PRECOMMIT, context.ballot(earlier, height, block)):
                    self.decide(block)
                    return
        current = [proposal for proposal in self.proposals if proposal.round == round_]
        for proposal in current:
            vr = proposal.valid_round
            proven = vr == -1 or (vr < round_ and context.complete(PREVOTE, context.ballot(vr, height, proposal.block)))
            if self.step == PROPOSING and proven:  # lines 22 and 28
                self.prevote(proposal.block if self.may_prevote(proposal) else None)
        for proposal in current:
            ballot = context.ballot(round_, height, proposal.block)
            if self.step >= PREVOTED and self.valid_round < round_ and context.complete(PREVOTE, ballot):  # line 36
                if self.step == PREVOTED:
                    self.update_lock(proposal.block)
                    self.precommit(proposal.block)
                self.valid_value, self.valid_round = proposal.block, round_
                context.persist(valid=(height, round_, proposal.block))
        nil = context.ballot(round_, height)
        if self.step == PREVOTED and context.complete(PREVOTE, nil):  # line 44
            self.update_lock(None)
            self.precommit(None)
        if self.step == PREVOTED and context.complete(PREVOTES, nil):  # line 34
            p = self.parameters
            self.schedule(PREVOTE_TIMER, p.timeout_prevote_ns + round_ * p.timeout_prevote_delta_ns)
        if context.complete(PRECOMMITS, nil):  # line 47
            p = self.parameters
            self.schedule(PRECOMMIT_TIMER, p.timeout_precommit_ns + round_ * p.timeout_precommit_delta_ns)

    def prevote(self, block: Block | None) -> None:
        """Broadcast <PREVOTE, h, r, id(v)>, nil for no block."""
        self.step = PREVOTED
        self.cast(PREVOTE, block)

    def precommit(self, block: Block | None) -> None:
        """Broadcast <PRECOMMIT, h, r, id(v)>, nil for no block."""
        self.step = PRECOMMITTED
        self.cast(PRECOMMIT, block)

    def cast(self, vote: VoteType, block: Block | None) -> None:
        """Vote in this round, and tell all or the neighbours. Who has no power at this height keeps quiet."""
        context, ballot = self.context, self.context.ballot(self.round, self.height, block)
        if not self.is_member:
            return
        if self.gossip is None:
            context.vote(vote, ballot, self.audience)
        else:
            context.count(vote, ballot, context.me)
            self.gossip.say(self.height, CastVote(vote, context.me, self.round, self.height, block))

    def decide(self, block: Block) -> None:
        """Lines 50 to 54."""
        context = self.context
        if block.height == context.height + 1 and block.parent is context.decided_block(context.height):
            context.decide(block)
            self.begin_height()
            self.resume()

    # --- timeouts, lines 57 to 67 ------------------------------------------------------------------------

    def schedule(self, timer: Timer, delay_ns: int) -> None:
        """Schedule a timeout of this round, for the first time."""
        if (timer, self.round) not in self.timed:
            self.timed.add((timer, self.round))
            self.context.set_timer(timer, delay_ns, (self.height, self.round))

    @upon(NO_PROGRESS)
    def on_timeout_propose(self) -> None:
        """Lines 57 to 60; later, what may have been lost is sent again."""
        self.sync()
        if not self.is_member and self.gossip is None:
            self.watch(self.first_period_ns())
            return
        if self.step == PROPOSING and self.proposer_of(self.height, self.round) != self.context.me:
            self.prevote(None)
        elif self.period_ns == self.parameters.resend_after_ns:
            self.resend()
        self.watch(self.parameters.resend_after_ns)
        self.apply_rules()
        self.set_lane()

    @upon(PREVOTE_TIMER)
    def on_timeout_prevote(self, about: tuple[int, int]) -> None:
        """Lines 61 to 64."""
        self.sync()
        if about == (self.height, self.round) and self.step == PREVOTED:
            self.precommit(None)
            self.apply_rules()
        self.set_lane()

    @upon(PRECOMMIT_TIMER)
    def on_timeout_precommit(self, about: tuple[int, int]) -> None:
        """Lines 65 to 67."""
        self.sync()
        if about == (self.height, self.round):
            self.start_round(self.round + 1)
            self.apply_rules()
        self.set_lane()

    # --- against loss: repetition and block synchronisation ----------------------------------------------

    def resend(self) -> None:
        """Send again what this process has said at this height (or heard), and how many values it has decided."""
        context = self.context
        if self.gossip is not None:
            self.gossip_again(self.gossip)
            return
        self.say(Status(context.height))
        if self.proposed is not None and self.proposed[:2] == (self.height, self.round):
            self.say(self.proposed[2])
        for round_ in range(self.round + 1):
            self.repeat_votes(round_, values_only=False)

    def gossip_again(self, gossip: Gossip) -> None:
        """`resend` to the neighbours: all that was heard; after a crash, what this process itself had said."""
        context = self.context
        if gossip.neighbours:
            context.multicast(gossip.neighbours, Status(context.height))
        if self.proposed is not None and self.proposed[:2] == (self.height, self.round):
            gossip.know(self.height, self.proposed[2])
        for round_ in range(self.round + 1):
            for ballot in context.ballots(round_, self.height):
                for vote in (PREVOTE, PRECOMMIT):
                    if context.has_voted(vote, ballot):
                        gossip.know(self.height, CastVote(vote, context.me, round_, self.height, ballot.block))
        gossip.repeat(self.height)

    def repeat_votes(self, round_: int, *, values_only: bool) -> None:
        """Send again what this process voted in a round of this height, nil left out or not."""
        context = self.context
        for vote in (PREVOTE, PRECOMMIT):
            for ballot in list(context.ballots(round_, self.height)):
                if context.has_voted(vote, ballot) and not (values_only and ballot.block is None):
                    context.vote(vote, ballot, self.audience)

    @upon(Status)
    def on_status(self, sender: int, message: Status) -> None:
        """A peer is further: fetch. It is behind: tell it."""
        if message.height < self.context.height:
            self.context.send(sender, Status(self.context.height))
        elif message.height > self.context.height:
            self.blocks.hear_of(sender, message.height)
        elif self.gossip is not None:
            self.gossip.repeat(self.height, sender)
        self.hear_newcomer(sender)

    def level_with(self, peer: int) -> None:
        """With gossip: what was said at this height?"""
        if self.gossip is not None:
            self.context.send(peer, Status(self.context.height))
