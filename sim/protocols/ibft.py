"""Istanbul BFT as first specified (IBFT v1), flaws included.

Y.-T. Lin, "Istanbul Byzantine Fault Tolerance", EIP-650, 2017, as Quorum shipped it; analysed by R. Saltini and
D. Hyland-Wood, "Correctness Analysis of IBFT", arXiv 1901.07160, 2019.

n validators, F = floor((n - 1) / 3). Each height runs rounds. In a round the proposer multicasts <PRE-PREPARE>
with a block; a validator that accepts it multicasts <PREPARE>; upon 2F + 1 PREPAREs it *locks* the block and
multicasts <COMMIT>; upon 2F + 1 COMMITs it inserts the block and begins the next height. A locked validator
votes for no other block at this height, and proposes it when its turn comes; nothing but insertion releases the
lock. A validator whose round timer expires, or that is locked and sees another block proposed, multicasts
<ROUND-CHANGE, r + 1>; F + 1 for a higher round are joined, 2F + 1 start it. Timers double with every round.
A round without trouble, the same as QBFT's, stands in sim.families.heights.rounds; here is what makes IBFT v1.

Two flaws, kept on purpose: 2F + 1 is no Byzantine quorum unless n = 3F + 1 (`quorum_size`), so two blocks can be
final at one height for n = 5, 6, 8, 9, 11, 12, ...; and validators locked on different blocks may hold up a
height for ever (`may_vote_for`; section 7.1 of the analysis). QBFT was made to mend both.

Safe if n = 3F + 1: a decided block was locked by F + 1 correct validators, which vote for nothing else at its height,
so no other block gets 2F + 1 PREPAREs there. Not live in general: nothing releases a lock but a decision (the second
flaw). Where all locks are on one block, one of them proposes it within n rounds, and rounds grow without bound.

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
* Who has left round 0 says what it said last again, every first round timer, until the height is decided.
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

from sim.families.heights.rounds import COMMIT, PREPARE, RoundByRound, RoundParameters
from sim.families.sync import HEADER_BYTES, Blocks, Fetch, Status
from sim.parameters import Nanoseconds, quantity
from sim.protocol import (
    Block,
    Context,
    Message,
    NormalCase,
    Signing,
    invariant,
    upon,
)


class IbftParameters(RoundParameters):
    """Parameters of IBFT v1."""

    round_timeout_ns: Nanoseconds = quantity(
        "2 s",
        "how long round 0 may take before a round change; grows with every round",
        positive=True,
        patience=True,
    )
    proposer_policy: Literal["round-robin", "sticky"] = Field(
        "round-robin", description="whether the proposer changes with every block, or with round changes only"
    )


@dataclasses.dataclass(frozen=True, slots=True)
class PrePrepare(Message):
    """<PRE-PREPARE, h, r, B>."""

    height: int
    round: int
    block: Block

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES + self.block.bytes

    def carries(self) -> Block:
        return self.block


@dataclasses.dataclass(frozen=True, slots=True)
class RoundChange(Message):
    """<ROUND-CHANGE, h, r>: the sender has left the rounds before r."""

    height: int
    round: int

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES


class Ibft(RoundByRound):
    """One validator of IBFT v1."""

    messages = (PrePrepare, RoundChange, Status, Fetch, Blocks)

    def __init__(self, context: Context) -> None:
        super().__init__(context, by_vote=True)
        self.locked: Block | None = None
        self.changes: dict[int, set[int]] = {}  # round -> who sent ROUND-CHANGE for it, at this height

    def normal_cases(self) -> tuple[NormalCase, ...]:
        return self.round_without_trouble(PrePrepare)

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
            return True  # the fast path may have locked since
        blocks = [block for _, block in self.voted_blocks(COMMIT, range(self.round + 1))]
        return all(block is self.locked for block in blocks) and (self.locked is None or self.locked in blocks)

    def abstract_state(self) -> tuple[int, int]:
        """The height and the locked block."""
        return self.height, 0 if self.locked is None else self.locked.number

    def waits_for(self) -> str:
        return super().waits_for() + ("" if self.locked is None else f", locked on block {self.locked.number}")

    # --- NEW ROUND ---------------------------------------------------------------------------------------

    @property
    def is_bound(self) -> bool:
        return self.locked is not None

    def bind(self, round_: int, block: Block) -> None:
        """PREPARED: the block is locked."""
        self.locked = block

    def unbind(self) -> None:
        """FINAL COMMITTED: the block is inserted, and with it the lock is gone."""
        self.locked = None

    def start_round(self, round_: int) -> None:
        """2F + 1 want this round: it begins."""
        context = self.context
        self.round, self.changing = round_, False
        self.accepted = None
        context.disk.persist(height=self.height, round=round_, changing=False)
        context.enter_view(round_)
        self.watch(round_)
        self.resume()

    def proposal(self) -> PrePrepare | None:
        """The locked block, or a new one; None if nothing waits."""
        block = self.block_to_propose()
        return None if block is None else PrePrepare(self.height, self.round, block)

    def block_to_propose(self) -> Block | None:
        """The locked block, or a new one; None if nothing waits."""
        context = self.context
        if self.locked is not None:
            return self.locked
        parent = context.chain.decided(context.height)
        if self.round > 0:
            return context.new_block(parent, self.round, empty=True)
        return self.first_block(parent)

    # --- PRE-PREPARED, PREPARED, COMMITTED ---------------------------------------------------------------

    @upon(PrePrepare)
    def on_pre_prepare(self, sender: int, message: PrePrepare) -> None:
        """Accept it: of this height and round, from the proposer, on top of the last block, no second one."""
        context = self.context
        if message.height < self.height:
            return
        ballot = context.votes.ballot(message.round, message.height, message.block)
        if message.height == self.height:
            self.received.append(message.block)
            if context.votes.is_complete(COMMIT, ballot):
                self.decide_next(message.block)
                return
        place, here = (message.height, message.round), (self.height, self.round)
        if place > here or (place == here and self.changing):
            self.keep(sender, message)
        elif place == here and sender == self.proposer_of(self.round) and not self.voted_for_another(PREPARE, ballot):
            on_top = message.block.parent is context.chain.decided(context.height)
            if not on_top or not self.voters.accepts(message.block):
                return
            if self.may_vote_for(message.block):
                self.accept_in_time(ballot)
            else:
                self.change_round(self.round + 1)

    # --- ROUND CHANGE ------------------------------------------------------------------------------------

    def leave_round(self) -> None:
        """The next round, or the highest that F + 1 ask for."""
        wanted = [round_ for round_, senders in self.changes.items() if len(senders) > self.f]
        self.change_round(max([self.round + 1, *wanted]))

    def change_round(self, round_: int) -> None:
        """Leave the current round: multicast <ROUND-CHANGE, h, r> and wait for others."""
        context = self.context
        self.round, self.changing = round_, True
        self.accepted = None
        context.disk.persist(height=self.height, round=round_, changing=True)
        self.watch(round_)
        self.say_again_later()
        self.send_round_change()

    def send_round_change(self) -> None:
        """Multicast <ROUND-CHANGE, h, r> for the round to come."""
        self.say(RoundChange(self.height, self.round))
        self.count_round_change(self.context.me, self.round)

    @upon(RoundChange)
    def on_round_change(self, sender: int, message: RoundChange) -> None:
        """Count it."""
        if self.concerns_height(sender, message.height):
            self.count_round_change(sender, message.round)

    def count_round_change(self, sender: int, round_: int) -> None:
        """F + 1 for a higher round: join. 2F + 1: it begins."""
        senders = self.changes.setdefault(round_, set())
        senders.add(sender)
        if len(senders) > self.f and round_ > self.round:
            self.change_round(round_)
        elif len(senders) >= self.quorum_size() and round_ == self.round and self.changing:
            self.start_round(round_)
