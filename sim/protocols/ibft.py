"""Istanbul BFT as first specified (IBFT v1), flaws included.

Y.-T. Lin, "Istanbul Byzantine Fault Tolerance", EIP-650, 2017, as Quorum shipped it; analysed by R. Saltini and
D. Hyland-Wood, "Correctness Analysis of IBFT", arXiv 1901.07160, 2019.

n validators, F = floor((n - 1) / 3). Each height runs rounds. In a round the proposer multicasts <PRE-PREPARE>
with a block; a validator that accepts it multicasts <PREPARE>; upon 2F + 1 PREPAREs it *locks* the block and
multicasts <COMMIT>; upon 2F + 1 COMMITs it inserts the block and begins the next height. A locked validator
votes for no other block at this height, and proposes it when its turn comes; nothing but insertion releases the
lock. A validator whose round timer expires, or that is locked and sees another block proposed, multicasts
<ROUND-CHANGE, r + 1>; F + 1 for a higher round are joined, 2F + 1 start it. Timers double with every round.

Two flaws, kept on purpose: 2F + 1 is no Byzantine quorum unless n = 3F + 1 (`quorum_size`), so two blocks can be
final at one height for n = 5, 6, 8, 9, 11, 12, ...; and validators locked on different blocks may hold up a
height for ever (`may_vote_for`; section 7.1 of the analysis). QBFT was made to mend both.

paper                     here
-----                     ----
h (sequence), r           height (ballot.number), round (ballot.view)
F, 2F + 1                 f, quorum_size()
proposer policy           proposer_after: the validator after the last block's proposer, or that one (sticky)
lock(B, h)                locked
NEW ROUND, PRE-PREPARED   accepted is None, accepted
PREPARED                  accepted, and locked on its block
COMMITTED                 on_committed
ROUND CHANGE              changing
backlog                   early

Deviations
* The round timer is the progress timer: it runs while a transaction waits, from the beginning of the round or
  from the transaction's arrival, so that an idle chain makes neither blocks nor round changes.
* A proposer waits for a transaction in round 0, and proposes an empty block in later rounds if there is none.
* A locked validator that is proposed its block again sends PREPARE and waits for 2F + 1 as the others do; Quorum has it
  send COMMIT at once, and counts COMMITs among PREPAREs.
* F + 1 ROUND-CHANGEs are joined in any state (Quorum: only by who has left its round already).
* A ROUND-CHANGE of a height to come is not kept, it makes the validator fetch blocks.
* 2F + 1 COMMITs for a block that is here insert it whatever round the validator is in by then, and in the state
  ROUND CHANGE too. In Quorum it would hear of the block from those who have inserted it.
* A validator that is behind fetches blocks with their commit seals (sim.families.sync); a restarted one begins so.
* What a validator voted for, its lock and its round are on disk before it speaks. (Quorum forgets its locks.)
* Validators join and leave by votes in block headers, as in EIP-650 (sim.families.voters): a block names its proposer's
  candidate; when more than half of the validators have, the next height has the other set. Epochs do not clear votes.

Not modelled: invalid blocks, the time to write to disk.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Literal

from pydantic import Field

from sim.families.heights.height_by_height import HeightByHeight, doubled
from sim.families.sync import HEADER_BYTES, Blocks, Fetch, Status
from sim.parameters import Nanoseconds, Parameters, quantity
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
    VoteType,
    invariant,
    upon,
)


class IbftParameters(Parameters):
    """Parameters of IBFT v1."""

    round_timeout_ns: Nanoseconds = quantity(
        "2 s", "how long round 0 may take before a round change; doubles with every round", positive=True
    )
    proposer_policy: Literal["round-robin", "sticky"] = Field(
        "round-robin", description="whether the proposer changes with every block, or with round changes only"
    )


@dataclasses.dataclass(frozen=True, slots=True)
class PrePrepare(Letter):
    """<PRE-PREPARE, h, r, B>."""

    height: int
    round: int
    block: Block

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES + self.block.bytes

    def carries(self) -> Block:
        return self.block


@dataclasses.dataclass(frozen=True, slots=True)
class RoundChange(Letter):
    """<ROUND-CHANGE, h, r>: the sender has left the rounds before r."""

    height: int
    round: int

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES


PREPARE = VoteType("PREPARE", HEADER_BYTES)
COMMIT = VoteType("COMMIT", HEADER_BYTES)


class Ibft(HeightByHeight):
    """One validator of IBFT v1."""

    letters = (PrePrepare, RoundChange, Status, Fetch, Blocks)
    votes = (PREPARE, COMMIT)

    def __init__(self, context: Context) -> None:
        super().__init__(context, context.parameters.round_timeout_ns, by_vote=True)
        self.changing = False  # ROUND CHANGE was sent for `round`, which has not begun
        self.accepted: Ballot | None = None  # the proposal accepted in this round
        self.locked: Block | None = None
        self.received: list[Block] = []  # proposed at this height
        self.changes: dict[int, set[int]] = {}  # round -> who sent ROUND-CHANGE for it, at this height
        self.proposed: tuple[int, int, Block] | None = None  # height, round, block: what this validator proposed

    # --- rules: what a mutant or a variant overrides -----------------------------------------------------

    def votes_of(self, members: int) -> int:
        """2F + 1, also where n is not 3F + 1 (unsafe; ceil(2n / 3) is not)."""
        return 2 * ((members - 1) // 3) + 1

    def may_vote_for(self, block: Block) -> bool:
        """A locked validator votes for the locked block only. No rule ever releases the lock within a height."""
        return self.locked is None or self.locked is block

    def proposer_after(self, last: int, round_: int) -> int:
        """Who proposes in this round after a block that `last` proposed."""
        stays = self.parameters.proposer_policy == "sticky" and last in self.members
        return self.turn_after(last, round_ - stays)

    def timeout_ns(self, round_: int) -> int:
        """The round timer doubles with every round."""
        return doubled(self.parameters.round_timeout_ns, round_)

    def quorums(self) -> dict[VoteType, Quorum]:
        return {PREPARE: Quorum(self.quorum_size()), COMMIT: Quorum(self.quorum_size())}

    def normal_cases(self) -> tuple[NormalCase, ...]:
        if self.context.members_change:
            return ()  # the lane knows one set of validators
        return (NormalCase(upon=PrePrepare, votes=(Step(PREPARE), Step(COMMIT)), decide=True),)

    @staticmethod
    def known_weakness(
        kind: str, *, sizes: Collection[int], gone: Collection[int], lying: bool, lossy: bool,
        parameters: Mapping[str, Any],
    ) -> str:  # fmt: skip
        uneven = any(size % 3 != 1 for size in sizes)
        if kind == "safety":
            return "quorums of 2F + 1 need not meet unless n = 3F + 1 (attack D2)" if uneven else ""
        return "locks of several blocks can deadlock (attack D3)" if uneven or gone else ""

    # --- invariants --------------------------------------------------------------------------------------

    @invariant("the lock is of the height being decided")
    def lock_is_of_height(self) -> bool:
        """Insertion releases it."""
        return self.locked is None or self.locked.height == self.height

    @invariant("locked on whatever it sent COMMIT for")
    def lock_is_committed(self) -> bool:
        """Nothing releases a lock within a height, and nothing but a COMMIT goes with one."""
        if self.has_moved_on or (self.locked is None and self.round == 0 and not self.changing):
            return True  # the lane may have locked since
        blocks = [block for _, block in self.voted_blocks(COMMIT, range(self.round + 1))]
        return all(block is self.locked for block in blocks) and (self.locked is None or self.locked in blocks)

    # --- start, and the fast lane ------------------------------------------------------------------------
    #
    # Lane numbers upon block b: 2b before a proposal of round 0 is accepted, 2b + 1 afterwards.

    @property
    def view_number(self) -> int:
        return self.round

    def abstract_state(self) -> tuple[int, int]:
        """The height and the locked block."""
        return self.height, 0 if self.locked is None else self.locked.number

    def start(self) -> None:
        context, stable = self.context, self.context.stable
        context.watch_progress(self.timeout_ns(0))
        if "height" not in stable:
            context.persist(height=1, round=0, changing=False, proposed=None)
            self.resume()
            return
        self.proposed = stable["proposed"]
        if stable["height"] == self.height:
            self.round, self.changing = stable["round"], stable["changing"]
            context.watch_progress(self.timeout_ns(self.round))
        for round_ in range(self.round + 1):
            for ballot in context.ballots(round_, self.height):
                if context.has_voted(COMMIT, ballot) and ballot.block is not None:
                    self.locked = ballot.block  # the latest: rounds ascend
                    self.received.append(ballot.block)
                if round_ == self.round and context.has_voted(PREPARE, ballot) and not self.changing:
                    assert ballot.block is not None
                    self.accepted = ballot
                    self.received.append(ballot.block)  # what it voted for was on disk before
        self.blocks.fetch_from_next(context.me)
        if self.changing:
            self.ask_for_round()
        self.resume()

    def absorb_fast_path(self) -> None:
        """Catch up with what the fast lane did: blocks inserted, a proposal accepted, a lock taken."""
        context = self.context
        if context.height >= self.height:
            self.begin_height()
        if self.round == 0 and not self.changing and self.locked is None:
            block = context.lane_block()
            if self.accepted is None and block is not None and block.height == self.height:
                self.accepted = context.ballot(0, self.height, block)
                self.received.append(block)
            if self.accepted is not None and context.has_voted(COMMIT, self.accepted):
                self.locked = self.accepted.block

    def set_lane(self) -> None:
        """Work in the fast lane if nothing is out of the ordinary at this height."""
        ordinary = self.round == 0 and not self.changing and self.early_quorum < self.height and not self.early
        number = self.lane_base() + (self.accepted is not None)
        self.context.lane(number if ordinary else None)

    # --- NEW ROUND ---------------------------------------------------------------------------------------

    def begin_height(self) -> None:
        """The last block is inserted, and with it the lock is gone: round 0 of the next height."""
        context = self.context
        round_before = self.round
        self.next_height()
        self.round, self.changing = 0, False
        self.accepted, self.locked = None, None
        self.received, self.changes = [], {}
        if round_before > 0:
            context.enter_view(0)
            context.watch_progress(self.timeout_ns(0))

    def start_round(self, round_: int) -> None:
        """2F + 1 want this round: it begins."""
        context = self.context
        self.round, self.changing = round_, False
        self.accepted = None
        context.persist(height=self.height, round=round_, changing=False)
        context.enter_view(round_)
        context.watch_progress(self.timeout_ns(round_))
        self.resume()

    def resume(self) -> None:
        """Deal with the backlog, propose if it is this validator's turn, and return to the lane."""
        early, self.early = self.early, []
        for sender, message in early:
            self.on_pre_prepare(sender, message)
        self.propose()
        self.set_lane()

    def proposer_of(self, round_: int) -> int:
        """Who proposes in a round of the current height. The first block is validator 0's."""
        last = self.context.decided_block(self.context.height)
        return self.turn_after(-1, round_) if last is None else self.proposer_after(last.proposer, round_)

    @upon(BATCH, DECIDED)
    def on_turn(self) -> None:
        """A transaction came, or the lane inserted the block after which this validator proposes."""
        self.propose()
        self.set_lane()

    def propose(self) -> None:
        """The proposer multicasts <PRE-PREPARE> with its locked block, or with a new one."""
        context = self.context
        if self.changing or self.accepted is not None or self.proposer_of(self.round) != context.me:
            return
        block = self.block_to_propose()
        if block is None:
            return
        self.received.append(block)
        self.proposed = (self.height, self.round, block)
        context.persist(proposed=self.proposed)
        message = PrePrepare(self.height, self.round, block)
        ballot = context.ballot(self.round, self.height, block)
        if self.round == 0 and not context.members_change:
            number = self.lane_base()
            next_proposer = self.proposer_after(context.me, 0)
            context.propose(message, ballot, guard=(number, number + 1), after=2 * block.number, tell=next_proposer)
        else:
            self.say(message, new=self.round == 0)
        self.accept(ballot)

    def block_to_propose(self) -> Block | None:
        """What was proposed before a crash, the locked block, or a new one; None if nothing waits."""
        context = self.context
        if self.proposed is not None and self.proposed[:2] == (self.height, self.round):
            return self.proposed[2]
        if self.locked is not None:
            return self.locked
        parent = context.decided_block(context.height)
        if self.round > 0:
            return context.new_block(parent, self.round, empty=True)
        return self.new_block(parent)

    # --- PRE-PREPARED, PREPARED, COMMITTED ---------------------------------------------------------------

    @upon(PrePrepare)
    def on_pre_prepare(self, sender: int, message: PrePrepare) -> None:
        """Accept it: of this height and round, from the proposer, on top of the last block, no second one."""
        context = self.context
        if message.height < self.height:
            return
        ballot = context.ballot(message.round, message.height, message.block)
        if message.height == self.height:
            self.received.append(message.block)
            if context.complete(COMMIT, ballot):
                self.decide_next(message.block)
                return
        place, here = (message.height, message.round), (self.height, self.round)
        if place > here or (place == here and self.changing):
            self.keep(sender, message)
        elif place == here and sender == self.proposer_of(self.round) and not self.voted_for_another(PREPARE, ballot):
            on_top = message.block.parent is context.decided_block(context.height)
            if not on_top or not self.voters.accepts(message.block):
                return
            if self.may_vote_for(message.block):
                self.accept(ballot)
            else:
                self.change_round(self.round + 1)
        self.set_lane()

    def accept(self, ballot: Ballot) -> None:
        """Enter PRE-PREPARED: multicast <PREPARE>."""
        context = self.context
        self.accepted = ballot
        if not context.has_voted(PREPARE, ballot):
            context.vote(PREPARE, ballot, self.audience)
        if context.complete(PREPARE, ballot):
            self.on_prepared(ballot)

    @upon(PREPARE)
    def on_prepared(self, ballot: Ballot) -> None:
        """2F + 1 PREPAREs: enter PREPARED, lock the block and multicast <COMMIT>."""
        if ballot is self.accepted:
            self.locked = ballot.block
            if not self.context.has_voted(COMMIT, ballot):
                self.context.vote(COMMIT, ballot, self.audience)
        else:
            self.early_quorum = max(self.early_quorum, ballot.number)
        self.set_lane()

    @upon(COMMIT)
    def on_committed(self, ballot: Ballot) -> None:
        """2F + 1 COMMITs: enter COMMITTED, insert the block if it is here (FINAL COMMITTED), begin the next height."""
        assert ballot.block is not None
        if ballot.block in self.received:
            self.decide_next(ballot.block)
        else:
            self.early_quorum = max(self.early_quorum, ballot.number)
            self.set_lane()

    # --- ROUND CHANGE ------------------------------------------------------------------------------------

    @upon(NO_PROGRESS)
    def on_round_timeout(self) -> None:
        """The next round, or the highest that F + 1 ask for."""
        if not self.is_member:
            self.context.watch_progress(self.timeout_ns(0))
            return
        wanted = [round_ for round_, senders in self.changes.items() if len(senders) > self.f]
        self.change_round(max([self.round + 1, *wanted]))

    def change_round(self, round_: int) -> None:
        """Leave the current round: multicast <ROUND-CHANGE, h, r> and wait for others."""
        context = self.context
        self.round, self.changing = round_, True
        self.accepted = None
        context.persist(height=self.height, round=round_, changing=True)
        context.lane(None)
        context.watch_progress(self.timeout_ns(round_))
        self.ask_for_round()

    def ask_for_round(self) -> None:
        """Multicast <ROUND-CHANGE, h, r> for the round to come."""
        self.say(RoundChange(self.height, self.round))
        self.count_round_change(self.context.me, self.round)

    @upon(RoundChange)
    def on_round_change(self, sender: int, message: RoundChange) -> None:
        """Count it; who asks at another height is told, or asked, about blocks."""
        if message.height < self.height:
            self.context.send(sender, Status(self.context.height))
        elif message.height > self.height:
            self.blocks.fetch(sender)
        elif self.is_member and sender in self.members:
            self.count_round_change(sender, message.round)

    def count_round_change(self, sender: int, round_: int) -> None:
        """F + 1 for a higher round: join. 2F + 1: it begins."""
        senders = self.changes.setdefault(round_, set())
        senders.add(sender)
        if len(senders) > self.f and round_ > self.round:
            self.change_round(round_)
        elif len(senders) >= self.quorum_size() and round_ == self.round and self.changing:
            self.start_round(round_)
