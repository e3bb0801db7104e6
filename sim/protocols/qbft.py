"""QBFT: Istanbul BFT with prepared certificates in place of locks.

H. Moniz, "The Istanbul BFT Consensus Algorithm", arXiv 2002.03613, 2020, Algorithms 1 to 4; Enterprise Ethereum
Alliance, "QBFT Blockchain Consensus Protocol Specification", version 1, 2023.

n validators, f = floor((n - 1) / 3). Each height is one instance, with rounds. In a round its proposer multicasts
<PRE-PREPARE> with a block; a validator to which it is justified multicasts <PREPARE>; upon a quorum of PREPAREs it
has *prepared* the block and multicasts <COMMIT>; upon a quorum of COMMITs the block is decided. A validator whose
timer expires goes to the next round and multicasts <ROUND-CHANGE, r, pr, pv> with the last block it prepared and
the PREPAREs that prove it. It joins f + 1 others that are further. The proposer of a round r > 0 needs a quorum of
ROUND-CHANGEs for r, and attaches them: if one of them prepared a block, it must propose the one prepared in the
highest round. So nobody is ever locked, and what may have been decided is proposed again. A round without trouble, the
same as IBFT's, stands in sim.families.heights.rounds; here is what makes QBFT.

Safe: a decided block was prepared by a quorum, so each quorum of ROUND-CHANGEs holds one of a correct validator that
prepared it; from then on the highest prepared block of every such quorum is that one, by induction over rounds.
Live from when delays are bounded: f + 1 who are further draw the rest, timers double, and the first correct proposer
of a long enough round can always justify a block.

paper                        here
-----                        ----
lambda, r_i                  height (ballot.number), round (ballot.view)
pr_i, pv_i                   prepared: (round, block)
quorum                       quorum_size()
leader(lambda, r)            proposer_of(round): round robin after the proposer of the last block
t(r)                         timeout_ns(round): doubles with every round
JustifyPrePrepare            justifies(message)
HighestPrepared(Q_rc)        highest_prepared(changes)
rounds 1, 2, ...             rounds 0, 1, ... as in the EEA specification

The quorum is EEA's ceil(2n / 3), which equals Moniz's floor((n + f) / 2) + 1 for every n: two quorums share at
least f + 1 validators, and n - f correct ones are a quorum.

Deviations
* The round timer is the progress timer: it runs while a transaction waits, from the beginning of the round or from
  the transaction's arrival; as with EEA, the proposal does not restart it.
* A proposer waits for a transaction in round 0, and proposes an empty block in later rounds if there is none.
* A quorum of COMMITs decides in any round (Moniz); EEA's NEW-BLOCK messages are block synchronisation here
  (sim.families.sync), in which a restarted validator begins.
* A ROUND-CHANGE of a height to come is not kept, it makes the validator fetch blocks.
* Who has left round 0 says what it said last again, every t(0), until the height is decided.
* As with EEA, a justified proposal of a higher round draws a validator into that round.
* A block that is proposed again keeps its header: its round is the one it was made in.
* Votes, what was prepared, and the round are on disk before a validator speaks.
* Validators join and leave as with Besu's and GoQuorum's validator contract (sim.families.voters): the set of a height
  is what the contract says after the block before. Their other way, header votes, is IBFT's.
* A prepared certificate is true if a quorum's PREPAREs for it exist, in transit or not.

Not modelled: invalid blocks, the time to write to disk.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

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


class QbftParameters(RoundParameters):
    """Parameters of QBFT."""

    round_timeout_ns: Nanoseconds = quantity(
        "2 s", "t(0): how long round 0 may take; grows with every round", positive=True, patience=True
    )


@dataclasses.dataclass(frozen=True, slots=True)
class RoundChange(Message):
    """<ROUND-CHANGE, h, r, pr, pv> and the quorum of PREPAREs for pv in pr, if anything was prepared."""

    height: int
    round: int
    sender: int
    prepared: tuple[int, Block] | None
    prepares: int  # how many signed the prepared certificate

    def signed_bytes(self) -> int:
        """What is signed: height, round, prepared round and digest."""
        return HEADER_BYTES + (0 if self.prepared is None else HEADER_BYTES)

    def size_bytes(self, signing: Signing) -> int:
        proof = 0
        if self.prepared is not None:
            proof = self.prepared[1].bytes + signing.certificate_bytes(self.prepares)
        return self.signed_bytes() + proof

    def certificates(self) -> tuple[int, ...]:
        return () if self.prepared is None else (self.prepares,)


@dataclasses.dataclass(frozen=True, slots=True)
class PrePrepare(Message):
    """<PRE-PREPARE, h, r, B> with its justification: a quorum of ROUND-CHANGEs, one prepared certificate."""

    height: int
    round: int
    block: Block
    changes: tuple[RoundChange, ...] = ()
    prepares: int = 0  # how many signed the prepared certificate, 0: none is needed

    def size_bytes(self, signing: Signing) -> int:
        inside = sum(change.signed_bytes() + signing.signature_bytes for change in self.changes)
        return HEADER_BYTES + self.block.bytes + inside + signing.certificate_bytes(self.prepares)

    def signatures(self) -> int:
        return len(self.changes)

    def certificates(self) -> tuple[int, ...]:
        return (self.prepares,) if self.prepares else ()

    def carries(self) -> Block:
        return self.block


def highest_prepared(changes: Iterable[RoundChange]) -> tuple[int, Block] | None:
    """HighestPrepared: round and block of the change that prepared in the highest round, if any did."""
    prepared = [change.prepared for change in changes if change.prepared is not None]
    return max(prepared, key=lambda pair: pair[0], default=None)


class Qbft(RoundByRound):
    """One validator of QBFT."""

    messages = (PrePrepare, RoundChange, Status, Fetch, Blocks)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.prepared: tuple[int, Block] | None = None  # pr, pv
        self.changes: dict[int, dict[int, RoundChange]] = {}  # round -> sender -> its ROUND-CHANGE, this height

    def normal_cases(self) -> tuple[NormalCase, ...]:
        return self.round_without_trouble(PrePrepare)

    # --- rules: what a mutant or a variant overrides -----------------------------------------------------

    def votes_of(self, members: int) -> int:
        """ceil(2n / 3)."""
        return -(-2 * members // 3)

    def justifies(self, message: PrePrepare) -> bool:
        """JustifyPrePrepare: round 0, or a quorum of ROUND-CHANGEs of which none prepared another block later.

        The highest prepared block needs its quorum of PREPAREs.
        """
        if message.round == 0:
            return True
        here = [c for c in message.changes if (c.height, c.round) == (message.height, message.round)]
        if len({change.sender for change in here} & {*self.members}) < self.quorum_size():
            return False
        best = highest_prepared(here)
        return best is None or (best[1] is message.block and self.is_certified(message.round, best))

    def is_certified(self, round_: int, prepared: tuple[int, Block]) -> bool:
        """Whether a quorum has signed PREPAREs for what was prepared in an earlier round of this height."""
        earlier, block = prepared
        signers = self.context.votes.signers(PREPARE, self.context.votes.ballot(earlier, self.height, block))
        return 0 <= earlier < round_ and len({*signers} & {*self.members}) >= self.quorum_size()

    # --- invariants --------------------------------------------------------------------------------------

    def abstract_state(self) -> tuple[int, int]:
        """The height and the block last prepared."""
        return self.height, 0 if self.prepared is None else self.prepared[1].number

    def waits_for(self) -> str:
        prepared = "" if self.prepared is None else f", has prepared block {self.prepared[1].number}"
        return super().waits_for() + prepared

    @invariant("what it prepared is of this height, and of no round to come")
    def prepared_is_here(self) -> bool:
        """pr <= r, and pv is of this instance."""
        return self.prepared is None or (0 <= self.prepared[0] <= self.round and self.prepared[1].height == self.height)

    @invariant("what it prepared has a quorum of PREPAREs")
    def prepared_is_certified(self) -> bool:
        """The certificate that a ROUND-CHANGE would carry."""
        if self.has_moved_on or self.prepared is None:
            return True
        return self.is_certified(self.prepared[0] + 1, self.prepared)

    @invariant("a ROUND-CHANGE tells the last block that its sender prepared")
    def changes_are_honest(self) -> bool:
        """Its own of this round; who prepares sends COMMIT."""
        own = self.changes.get(self.round, {}).get(self.context.me)
        if own is None or self.has_moved_on:
            return True
        before = self.voted_blocks(COMMIT, range(self.round))
        return not before or own.prepared == before[-1]

    # --- Algorithm 2: normal case ------------------------------------------------------------------------

    @property
    def is_bound(self) -> bool:
        return self.prepared is not None

    def bind(self, round_: int, block: Block) -> None:
        """pr, pv <- r, B."""
        self.prepared = (round_, block)

    def unbind(self) -> None:
        self.prepared = None

    def proposal(self) -> PrePrepare | None:
        """In round 0 a new block, later what a quorum of ROUND-CHANGEs allows; None if there are too few."""
        context = self.context
        parent = context.chain.decided(context.height)
        if self.round == 0:
            block = self.first_block(parent)
            return None if block is None else PrePrepare(self.height, 0, block)
        changes = tuple(self.changes.get(self.round, {}).values())[: self.quorum_size()]
        if len(changes) < self.quorum_size():
            return None
        best = highest_prepared(changes)
        if best is not None:
            return PrePrepare(self.height, self.round, best[1], changes, self.quorum_size())
        block = context.new_block(parent, self.round, empty=True)
        assert block is not None
        return PrePrepare(self.height, self.round, block, changes)

    @upon(PrePrepare)
    def on_pre_prepare(self, sender: int, message: PrePrepare) -> None:
        """Accept it: justified, of this round or a later one, from its proposer, on top of the last block."""
        context = self.context
        if message.height > self.height:
            self.keep(sender, message)
        if message.height == self.height:
            self.received.append(message.block)
            ballot = context.votes.ballot(message.round, message.height, message.block)
            if context.votes.is_complete(COMMIT, ballot):
                self.decide_next(message.block)
                return
            fresh = message.round > self.round or (message.round == self.round and self.accepted is None)
            on_top = message.block.parent is context.chain.decided(context.height)
            on_top = on_top and self.voters.accepts(message.block)
            if fresh and on_top and sender == self.proposer_of(message.round) and self.justifies(message):
                if message.round > self.round:
                    self.enter_round(message.round)
                if not self.voted_for_another(PREPARE, ballot):
                    self.accept_in_time(ballot)

    # --- Algorithm 3: round change -----------------------------------------------------------------------

    def leave_round(self) -> None:
        """The timer expired: r <- r + 1, multicast <ROUND-CHANGE>."""
        self.enter_round(self.round + 1)
        self.send_round_change()

    def enter_round(self, round_: int) -> None:
        """Set the round, and its timer."""
        context = self.context
        self.round = round_
        self.accepted = None
        context.disk.persist(height=self.height, round=round_)
        context.enter_view(round_)
        self.watch(round_)
        self.say_again_later()

    def send_round_change(self) -> None:
        """Multicast <ROUND-CHANGE, h, r, pr, pv>."""
        context = self.context
        message = RoundChange(self.height, self.round, context.me, self.prepared, self.quorum_size())
        self.say(message)
        self.take_round_change(message)

    @upon(RoundChange)
    def on_round_change(self, sender: int, message: RoundChange) -> None:
        """Take it in if what it prepared is proven."""
        if self.concerns_height(sender, message.height) and message.sender == sender:
            if message.prepared is None or self.is_certified(message.round, message.prepared):
                self.take_round_change(message)

    def take_round_change(self, message: RoundChange) -> None:
        """f + 1 of higher rounds: join the lowest of them. A quorum of this round: its proposer proposes."""
        self.changes.setdefault(message.round, {})[message.sender] = message
        latest: dict[int, int] = {}
        for round_, senders in self.changes.items():
            if round_ > self.round:
                for sender in senders:
                    latest[sender] = max(round_, latest.get(sender, 0))
        if len(latest) > self.f:
            self.enter_round(min(latest.values()))
            self.send_round_change()
        else:
            self.propose()
