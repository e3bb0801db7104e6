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

Safe: a decision in round r means f + 1 correct processes locked on v in r. They prevote another value only upon 2f +
1 prevotes for it in a round at or after r, and without them there never are 2f + 1.
Live from when delays are bounded: timeouts grow with rounds. A correct proposer proposes the latest valid value it
knows; what makes a correct process lock reaches all others within such a round, by gossip or by certificate, so
nobody is locked higher.

paper                                here
-----                                ----
h_p, round_p, step_p                 height (ballot.number), round (ballot.view), step
proposer(h, r)                       proposer_of(height, round) of sim.families.heights.validators
lockedValue_p, lockedRound_p         locked_value, locked_round
validValue_p, validRound_p           valid_value, valid_round
<PREVOTE, h, r, id(v)>, nil          a vote in the ballot (r, h, v), (r, h, None)
2f + 1 <PREVOTE, h, r, *>            quorum of PREVOTES, the any-value tally of PREVOTE; so PRECOMMITS
f + 1 <*, h, round, *, *>            early quorum of either any-value tally
broadcast                            bring, cast: to all, or to the neighbours
schedule OnTimeoutPropose            the progress timer, `watch`
OnTimeoutPrevote, OnTimeoutPrecommit timers PREVOTE_TIMER, PRECOMMIT_TIMER
"upon" rules                         `apply_rules`, with the line numbers of Algorithm 1

Deviations
* Processes have voting power (`power`). A quorum is the least power above two thirds of all, for any powers; f + 1 the
  least that a third cannot have. With power one each and n = 3f + 1 that is 2f + 1 and f + 1 processes.
* Line 49 takes v from a proposal of any round, not only of the round of its precommits.
* f + 1 messages of a higher round (line 55) are counted per type of vote; who precommits has prevoted in that round.
* timeoutPropose runs while a transaction waits, from the start of the round or from the transaction's arrival; so
  an idle chain makes no rounds (CometBFT's create_empty_blocks = false).
* Gossip is assumed to lose nothing. Here messages go from each to all directly unless `dissemination: gossip` is set,
  and may be lost either way; what is done about it stands in sim.families.heights.validators, with timeout_commit and
  restarts.
* So that all hear what one has heard, <PROPOSAL> with vr >= 0 carries the 2f + 1 PREVOTEs as a certificate, which does
  for line 28, and directly, who locks a value in a later round sends all the certificate, which does for line 36
  (CometBFT sends them to who lacks them). It is true if so many have signed them, in transit or not.
* For the same reason, directly, who leaves a round casts the votes that it has not cast there, for nil.
* Processes join and leave as with CometBFT's validator updates: a block at height h changes who has power from h + 2 on
  (sim.families.voters), and the others' priorities go on (sim.families.heights.powers).

Not modelled: changes of power, invalid values, evidence, block parts, the last height's commit inside a block (in
CometBFT some 100 bytes and a verification per voter), the time to write to disk.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from sim.families.heights.gossip import Relayed, Said, check_degree
from sim.families.heights.powers import check_power
from sim.families.heights.validators import Validator
from sim.families.sync import HEADER_BYTES, Blocks, Fetch, Status
from sim.families.turns import FirstLeader
from sim.parameters import Count, Nanoseconds, count, quantity
from sim.protocol import (
    BATCH,
    DECIDED,
    NO_PROGRESS,
    Ballot,
    Block,
    Context,
    Message,
    NormalCase,
    Quorum,
    Signing,
    Step,
    Timer,
    VoteType,
    invariant,
    upon,
)


class TendermintParameters(FirstLeader):
    """Parameters of Tendermint; the defaults of the timeouts are CometBFT's."""

    timeout_propose_ns: Nanoseconds = quantity("3 s", "wait for a proposal in round 0", positive=True, patience=True)
    timeout_propose_delta_ns: Nanoseconds = quantity("500 ms", "how much longer with every round")
    timeout_prevote_ns: Nanoseconds = quantity(
        "1 s", "wait after 2f + 1 prevotes for anything, in round 0", patience=True
    )
    timeout_prevote_delta_ns: Nanoseconds = quantity("500 ms", "how much longer with every round")
    timeout_precommit_ns: Nanoseconds = quantity(
        "1 s", "wait after 2f + 1 precommits for anything, in round 0", patience=True
    )
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
class Proposal(Message):
    """<PROPOSAL, h, r, v, vr>."""

    height: int
    round: int
    block: Block
    valid_round: int  # vr, or -1
    prevotes: int = 0  # how many signed the certificate of vr, 0: there is none

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES + self.block.bytes + signing.certificate_bytes(self.prevotes)

    def certificates(self) -> tuple[int, ...]:
        return (self.prevotes,) if self.prevotes else ()

    def carries(self) -> Block:
        return self.block


@dataclasses.dataclass(frozen=True, slots=True)
class Certified(Message):
    """The 2f + 1 <PREVOTE, h, r, id(v)> upon which its sender has locked v."""

    height: int
    round: int
    block: Block  # v, named by its digest
    prevotes: int

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES + signing.certificate_bytes(self.prevotes)

    def certificates(self) -> tuple[int, ...]:
        return (self.prevotes,)


PREVOTES = VoteType("PREVOTES", HEADER_BYTES, decides=False)
PRECOMMITS = VoteType("PRECOMMITS", HEADER_BYTES, decides=False)
PREVOTE = VoteType("PREVOTE", HEADER_BYTES, any_value=PREVOTES)
PRECOMMIT = VoteType("PRECOMMIT", HEADER_BYTES, any_value=PRECOMMITS)

PREVOTE_TIMER = Timer("prevote")
PRECOMMIT_TIMER = Timer("precommit")

PROPOSING, PREVOTED, PRECOMMITTED = range(3)  # step_p: propose, prevote, precommit


class Tendermint(Validator):
    """One process of Tendermint."""

    block_rules = frozenset({"batch_timeout"})
    executes = "between"
    messages = (Proposal, Status, Fetch, Blocks)
    later_messages = (Said, Relayed, Certified)
    votes = (PREVOTE, PRECOMMIT, PREVOTES, PRECOMMITS)
    two_votes = (PREVOTE, PRECOMMIT)

    def __init__(self, context: Context) -> None:
        super().__init__(context, context.parameters.timeout_propose_ns)
        self.locked_value: Block | None = None
        self.locked_round = -1
        self.valid_value: Block | None = None
        self.valid_round = -1
        self.early_rounds: dict[int, int] = {}  # height to come -> highest round of which votes were reported
        self.certified: set[tuple[int, Block]] = set()  # round, value: 2f + 1 prevotes that others have shown
        self.final: set[Block] = set()  # values of this height with 2f + 1 precommits in a round after the first

    @staticmethod
    def check(parameters: TendermintParameters, voters: int) -> None:
        """Raise ValueError if the parameters do not fit the number of voters."""
        check_power(parameters.power, voters)
        if parameters.dissemination == "gossip":
            check_degree(parameters.gossip_degree, voters)

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

    def is_proven(self, proposal: Proposal) -> bool:
        """Lines 22 and 28: a new value, or one with 2f + 1 PREVOTEs of round vr, heard here or in its certificate."""
        vr, context = proposal.valid_round, self.context
        if not 0 <= vr < self.round:
            return vr == -1
        ballot = context.votes.ballot(vr, self.height, proposal.block)
        return context.votes.is_complete(PREVOTE, ballot) or (proposal.prevotes > 0 and self.is_certified(ballot))

    def is_certified(self, ballot: Ballot) -> bool:
        """Whether 2f + 1 have signed PREVOTEs in a ballot of this height."""
        return (
            sum(self.powers.powers[one] for one in self.context.votes.signers(PREVOTE, ballot)) >= self.quorum_power()
        )

    def update_lock(self, block: Block | None) -> None:
        """Lines 38, 39: 2f + 1 prevotes of this round, in step prevote, lock their value; for nil nothing happens."""
        if block is not None:
            self.locked_value, self.locked_round = block, self.round

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

    def normal_cases(self) -> tuple[NormalCase, ...]:
        if self.gossip is not None or self.context.membership.may_change:
            return ()  # every message is passed on by a handler; the fast path knows one set of processes
        return (NormalCase(upon=Proposal, votes=(Step(PREVOTE), Step(PRECOMMIT)), decide=True),)

    def waits_for(self) -> str:
        locked = self.locked_value
        bound = "" if locked is None else f", locked on block {locked.number} in round {self.locked_round}"
        return f"proposer {self.proposer_of(self.height, self.round)}, step {self.step}{bound}"

    def abstract_state(self) -> tuple[int, int, int]:
        """The height, the locked and the valid value."""
        locked, valid = self.locked_value, self.valid_value
        return self.height, 0 if locked is None else locked.number, 0 if valid is None else valid.number

    @staticmethod
    def known_weakness(
        kind: str, *, sizes: Collection[int], gone: Collection[int], lying: bool, lossy: bool,
        parameters: Mapping[str, Any],
    ) -> str:  # fmt: skip
        if kind != "liveness":
            return ""
        if parameters.get("dissemination", "direct") == "direct":
            return ""
        degree = int(parameters.get("gossip_degree", 8))
        return f"so many gone can cut a graph of degree {degree}" if len(gone) >= degree else ""

    # --- invariants --------------------------------------------------------------------------------------

    @invariant("lockedRound <= validRound <= round")
    def rounds_are_in_order(self) -> bool:
        """What is locked is valid (lines 36 to 43), and nothing is of a round to come."""
        return -1 <= self.locked_round <= self.valid_round <= self.round

    @invariant("what is locked or valid is of this height")
    def lock_is_of_height(self) -> bool:
        """A decision releases it (line 53); round -1 stands for nil."""
        pairs = ((self.locked_round, self.locked_value), (self.valid_round, self.valid_value))
        return all(
            (round_ == -1) == (value is None) and (value is None or value.height == self.height)
            for round_, value in pairs
        )

    @invariant("locked on the last value it precommitted")
    def lock_is_precommitted(self) -> bool:
        """Lines 38 to 40: in that round, and on none other."""
        if self.has_moved_on or (self.locked_round == -1 and self.round == 0) or not self.is_member:
            return True  # the fast path may have locked since; who has no power follows locks and casts nothing
        locked = [] if self.locked_value is None else [(self.locked_round, self.locked_value)]
        return self.voted_blocks(PRECOMMIT, range(self.round + 1))[-1:] == locked

    # --- initialization, lines 1 to 10 -------------------------------------------------------------------

    def start(self) -> None:
        context, stable = self.context, self.context.disk.stable
        if "height" not in stable:
            context.disk.persist(height=1, round=0, proposed=None, valid=(0, -1, None))
            self.watch(self.first_period_ns())
        else:
            self.restore()
            height, round_, block = stable["valid"]
            if height == self.height and round_ > self.valid_round:
                self.valid_round, self.valid_value = round_, block
            for earlier in range(self.round + 1):
                for ballot in self.context.votes.ballots(earlier, self.height):
                    self.note_final(ballot)
            self.rejoin()
        self.resume()

    def recall_proposal(self, block: Block, round_: int) -> None:
        self.proposals.append(Proposal(self.height, round_, block, -1))

    def recall_lock(self, block: Block, round_: int) -> None:
        self.locked_value = self.valid_value = block
        self.locked_round = self.valid_round = round_

    def begin_height(self) -> None:
        """Lines 52 to 54: the next height, nothing locked, nothing valid, an empty message log, round 0."""
        round_before = self.round
        self.next_height()
        self.round, self.step = 0, PROPOSING
        self.locked_value, self.locked_round = None, -1
        self.valid_value, self.valid_round = None, -1
        self.proposals, self.timed = [], set()
        self.certified, self.final = set(), {block for block in self.final if block.height >= self.height}
        if round_before > 0:
            self.context.enter_view(0)
        if self.period_ns != self.first_period_ns():
            self.watch(self.first_period_ns())

    def resume(self) -> None:
        """Deal with what came early, propose if it is this process's turn, and return to the fast path."""
        early, self.early = self.early, []
        for via, message in early:
            self.take(via, message)
        round_ = self.early_rounds.pop(self.height, 0)
        if round_ > self.round:
            self.start_round(round_)
        self.propose()
        self.apply_rules()

    # --- StartRound, lines 11 to 21 ----------------------------------------------------------------------

    def start_round(self, round_: int) -> None:
        """Lines 12 to 21."""
        context = self.context
        if self.gossip is None:
            self.leave_round()
        self.round, self.step = round_, PROPOSING
        context.disk.persist(height=self.height, round=round_)
        context.enter_view(round_)
        self.watch(self.timeout_propose_ns(round_))  # line 21
        for earlier in sorted({self.locked_round, round_ - 1} - {-1}) if self.gossip is None else ():
            self.repeat_votes(earlier, values_only=True)
        self.propose()

    def leave_round(self) -> None:
        """The votes that I have not cast in this round are cast for nil: others may need them to leave it too.

        By gossip they would hear of whatever let me leave it. Directly, a liar's vote may have come to me alone.
        """
        votes = self.context.votes
        for vote in (PREVOTE, PRECOMMIT):
            if not any(votes.has_voted(vote, ballot) for ballot in votes.ballots(self.round, self.height)):
                self.cast(vote, None)

    @upon(BATCH, DECIDED)
    def on_turn(self) -> None:
        """A transaction came, or the fast path decided the value after which this process proposes."""
        self.propose()
        self.apply_rules()

    def propose(self) -> None:
        """Lines 14 to 19: the valid value if there is one, or a new one."""
        context = self.context
        if self.step != PROPOSING or self.proposer_of(self.height, self.round) != context.me:
            return
        if any(proposal.round == self.round for proposal in self.proposals) or not self.may_begin():
            return
        message = self.proposal()
        if message is not None:
            self.bring(message)
            self.apply_rules()

    def proposal(self) -> Proposal | None:
        """What was proposed before a crash, the valid value, or a new one; None if nothing waits."""
        context = self.context
        if self.proposed is not None and self.proposed[:2] == (self.height, self.round):
            again: Proposal = self.proposed[2]
            return again
        block = self.valid_value  # line 16
        if block is None and self.round > 0:
            block = context.new_block(context.chain.decided(context.height), self.round, empty=True)
        elif block is None:
            block = self.new_block(context.chain.decided(context.height))
        prevotes = self.quorum_size() if self.valid_round >= 0 else 0
        return None if block is None else Proposal(self.height, self.round, block, self.valid_round, prevotes)

    # --- upon ... ------------------------------------------------------------------------------------------

    @upon(Proposal)
    def on_proposal(self, sender: int, message: Proposal) -> None:
        """It comes from its author."""
        self.take(sender, message)

    def take(self, via: int, message: Proposal | Said) -> None:
        """Take a proposal into the log if it is its proposer's, on top of the last decision. `via`: who brought it."""
        author, proposal = (message.author, message.content) if isinstance(message, Said) else (via, message)
        assert isinstance(proposal, Proposal)
        unknown = self.context.membership.may_change and proposal.height > self.height + 1  # whose turn that is
        if self.context.membership.may_change and proposal.height < self.height:
            return
        if not unknown and author != self.proposer_of(proposal.height, proposal.round):
            return
        context, block = self.context, proposal.block
        if proposal.height > self.height:
            self.keep(via, message)
        elif proposal.height == self.height and proposal not in self.proposals:
            if block.parent is context.chain.decided(context.height) and self.voters.accepts(block):
                self.proposals.append(proposal)
                self.apply_rules()

    @upon(PREVOTE, PRECOMMIT)
    def on_votes(self, ballot: Ballot) -> None:
        """2f + 1 votes for one value or for nil."""
        before = (self.height, self.step)
        if ballot.number >= self.height:
            self.note_final(ballot)
        if ballot.number == self.height:
            self.apply_rules()
        if ballot.number >= self.height and (self.height, self.step) == before:
            self.early_quorum = max(self.early_quorum, ballot.number)  # nothing followed yet

    @upon(PREVOTES, PRECOMMITS)
    def on_any_votes(self, ballot: Ballot) -> None:
        """2f + 1 votes for anything, or f + 1."""
        before = (self.height, self.step)
        if ballot.number > self.height and ballot.view > self.early_rounds.get(ballot.number, 0):
            self.early_rounds[ballot.number] = ballot.view
        elif ballot.number == self.height:
            if ballot.view > self.round:
                self.start_round(ballot.view)  # lines 55, 56
            self.apply_rules()
        whole = any(self.context.votes.is_complete(votes, ballot) for votes in (PREVOTES, PRECOMMITS))
        if whole and ballot.number >= self.height and (self.height, self.step) == before:
            self.early_quorum = max(self.early_quorum, ballot.number)  # nothing followed yet

    def apply_rules(self) -> None:
        """The upon-rules of this height and round that apply now."""
        context, height, round_, p = self.context, self.height, self.round, self.parameters
        for proposal in self.proposals:  # line 49; v counts, whichever round brought it
            if self.is_final(proposal):
                self.decide_next(proposal.block)  # lines 50 to 54
                return
        current = [proposal for proposal in self.proposals if proposal.round == round_]
        for proposal in current:
            if self.step == PROPOSING and self.is_proven(proposal):
                self.prevote(proposal.block if self.may_prevote(proposal) else None)
        for proposal in current:
            ballot = context.votes.ballot(round_, height, proposal.block)
            if self.step >= PREVOTED and self.valid_round < round_ and self.has_prevotes(ballot):  # line 36
                if self.step == PREVOTED:
                    self.update_lock(proposal.block)
                    self.precommit(proposal.block)
                    self.pass_on_prevotes(proposal.block)
                self.valid_value, self.valid_round = proposal.block, round_
                context.disk.persist(valid=(height, round_, proposal.block))
        nil = context.votes.ballot(round_, height)
        if self.step == PREVOTED and context.votes.is_complete(PREVOTE, nil):  # line 44
            self.update_lock(None)
            self.precommit(None)
        if self.step == PREVOTED and context.votes.is_complete(PREVOTES, nil):  # line 34
            self.schedule(PREVOTE_TIMER, p.timeout_prevote_ns + round_ * p.timeout_prevote_delta_ns)
        if context.votes.is_complete(PRECOMMITS, nil):  # line 47
            self.schedule(PRECOMMIT_TIMER, p.timeout_precommit_ns + round_ * p.timeout_precommit_delta_ns)

    def is_final(self, proposal: Proposal) -> bool:
        """Whether 2f + 1 have precommitted its value in some round; of the first the fast path may have told nobody."""
        block = proposal.block
        return block in self.final or (
            proposal.round == 0
            and self.context.votes.is_complete(PRECOMMIT, self.context.votes.ballot(0, self.height, block))
        )

    def note_final(self, ballot: Ballot) -> None:
        """Keep in mind that a value has 2f + 1 precommits in a round."""
        if ballot.block is not None and self.context.votes.is_complete(PRECOMMIT, ballot):
            self.final.add(ballot.block)

    def has_prevotes(self, ballot: Ballot) -> bool:
        """Whether 2f + 1 have prevoted a value, heard here or shown by another."""
        return self.context.votes.is_complete(PREVOTE, ballot) or (ballot.view, ballot.block) in self.certified

    def pass_on_prevotes(self, block: Block) -> None:
        """Show all others why I am locked, once a height is in trouble: a liar may have prevoted to me alone."""
        if self.round > 0 and self.gossip is None and self.is_member:
            self.say(Certified(self.height, self.round, block, self.quorum_size()))

    @upon(Certified)
    def on_certified(self, sender: int, message: Certified) -> None:
        """Another has locked a value in this height. It counts as if its prevotes had come one by one."""
        if message.height != self.height:
            return
        if self.is_certified(self.context.votes.ballot(message.round, message.height, message.block)):
            self.certified.add((message.round, message.block))
            self.apply_rules()

    def prevote(self, block: Block | None) -> None:
        """Broadcast <PREVOTE, h, r, id(v)>, nil for no block."""
        self.step = PREVOTED
        self.cast(PREVOTE, block)

    def precommit(self, block: Block | None) -> None:
        """Broadcast <PRECOMMIT, h, r, id(v)>, nil for no block."""
        self.step = PRECOMMITTED
        self.cast(PRECOMMIT, block)

    # --- timeouts, lines 57 to 67 ------------------------------------------------------------------------

    @upon(NO_PROGRESS)
    def on_timeout_propose(self) -> None:
        """Lines 57 to 60; later, what may have been lost is sent again."""
        if not self.is_member and self.gossip is None:
            self.watch(self.first_period_ns())
            return
        if self.step == PROPOSING and self.proposer_of(self.height, self.round) != self.context.me:
            self.prevote(None)
        elif self.period_ns == self.parameters.resend_after_ns:
            self.resend()
        self.watch(self.parameters.resend_after_ns)
        self.apply_rules()

    @upon(PREVOTE_TIMER)
    def on_timeout_prevote(self, about: tuple[int, int]) -> None:
        """Lines 61 to 64."""
        if about == (self.height, self.round) and self.step == PREVOTED:
            self.precommit(None)
            self.apply_rules()

    @upon(PRECOMMIT_TIMER)
    def on_timeout_precommit(self, about: tuple[int, int]) -> None:
        """Lines 65 to 67."""
        if about == (self.height, self.round):
            self.start_round(self.round + 1)
            self.apply_rules()
