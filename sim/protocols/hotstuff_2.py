"""HotStuff-2: two phases, responsive when leaders are honest.

D. Malkhi, K. Nayak, "HotStuff-2: Optimal Two-Phase Responsive BFT", ePrint 2023/397: the protocol for a sequence
of blocks, one per view, not pipelined.

n >= 3t + 1 replicas. The leader of view v proposes a block upon the highest certificate it knows; 2t + 1 votes are a
certificate C_v(B), which it sends to all in a prepare; a replica that sees it is locked on it and votes again, to the
leader of view v + 1; 2t + 1 of these votes are a double certificate C_v(C_v(B)). B is final where that is seen: at
the next leader, and at all others with its proposal. A leader who has a certificate of the view before proposes at
once. Only one who has none waits Delta, so that every honest replica's lock reaches it: three-phase HotStuff needs
no such wait, and two phases without it can be kept from deciding (a lock that only one replica has).

Safe: two certificates share a correct replica. C_v(C_v(B)) means 2t + 1 replicas locked C_v(B); a later block that
conflicts needs the vote of one of them, which votes only for what rests on a certificate at least as high as its
lock.
Live from when delays are bounded: an honest leader has the certificate of the view before, or waits until every
honest lock has reached it; either way no honest replica is locked higher than its proposal.

paper                     here
-----                     ----
C_v(B)                    QC; the highest known, `high`, is the lock
C_v(C_v(B))               QC about the same block, as `double`
propose                   Propose, propose
vote                      VOTE to leader_of(view), on_propose
prepare                   Prepare, on_votes
vote2                     VOTE2 to leader_of(view + 1), confirm
enter view v              enter (a timer, sim.families.chained.certified), on_vote2s and accept (a double certificate)
P_pc + Delta              status_wait_ns
t                         f

Deviations
* The paper takes a pacemaker as given. Here NEW-VIEW messages with the sender's lock go to the next leader when a
  view expires (sim.families.chained.views). Delta runs from the (n - f)-th of them, and not at all once all n are here.
* A leader adopts the highest certificate it is shown as its own lock.
* A proposal carries the highest double certificate that its leader formed, whatever its view.
* Last votes, view and lock are on disk before a vote leaves.

Not modelled: the pipelined variant, a pacemaker of O(n) messages in the worst case, dissemination of transactions
ahead of consensus.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from sim.families.chained.certified import NOBODY, PacedChain
from sim.families.chained.tree import HEADER_BYTES, QC, Blocks, Certified, Fetch
from sim.families.chained.tree import Proposal as CertifiedBlock
from sim.families.chained.views import NewView, TurnParameters
from sim.parameters import Nanoseconds, quantity
from sim.protocol import (
    Ballot,
    Block,
    Context,
    FastPath,
    NormalCase,
    Signing,
    Step,
    Timer,
    VoteType,
    invariant,
    upon,
)
from sim.units import format_ns


class HotStuff2Parameters(TurnParameters):
    """Parameters of HotStuff-2."""

    delta_ns: Nanoseconds = quantity(
        "300 ms",
        "Delta: how long a leader without a certificate of the view before waits for further locks; "
        "must cover one delay and the time between the first and the last to enter a view",
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Propose(CertifiedBlock):
    """<propose, B_k, v, C_v'(B_k-1), C_v''(C_v''(B_k''))>: the block; its certificate is block.body."""

    double: QC | None

    def size_bytes(self, signing: Signing) -> int:
        double = 0 if self.double is None else self.double.size_bytes(signing)
        return CertifiedBlock.size_bytes(self, signing) + double

    def certificates(self) -> tuple[int, ...]:
        double = () if self.double is None else (self.double.signatures,)
        return CertifiedBlock.certificates(self) + double


class Prepare(Certified):
    """<prepare, C_v(B_k)>."""

    __slots__ = ()


VOTE = VoteType("VOTE", HEADER_BYTES, unique="view")
VOTE2 = VoteType("VOTE2", HEADER_BYTES, unique="view", certified=True)

DELTA_TIMER = Timer("delta")


class HotStuff2(PacedChain):
    """One replica of HotStuff-2."""

    messages = (Propose, Prepare, NewView, Fetch, Blocks)
    votes = (VOTE, VOTE2)
    genesis_guard = 1  # the genesis block is certified twice

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.voted_view = 0
        self.voted: Block | None = None  # the last block voted for: others may certify it after a crash
        self.confirmed_view = 0  # of the last vote2
        self.double: QC | None = None  # the highest that this replica has formed or seen
        self.formed: QC | None = None  # a double certificate formed here; its block or an ancestor is missing
        self.delta_view = 0  # the view in which Delta runs
        self.status_view = 0  # the view in which Delta is over

    @staticmethod
    def check(parameters: HotStuff2Parameters, voters: int) -> None:
        """Raise ValueError if the parameters do not fit the number of voters."""
        parameters.check(voters)
        if parameters.delta_ns >= parameters.view_timeout_ns:
            raise ValueError(
                f"delta: {format_ns(parameters.delta_ns)} must be below "
                f"view_timeout: {format_ns(parameters.view_timeout_ns)}, "
                "or views expire while their leaders wait; shorten it or raise view_timeout"
            )

    # --- rules: what a mutant or a variant overrides -----------------------------------------------------

    @property
    def locked(self) -> QC:
        """The lock is the highest certificate known."""
        return self.high

    def status_wait_ns(self) -> int:
        """How long a leader without a certificate of the view before waits for locks after n - f of them."""
        wait: int = self.parameters.delta_ns
        return wait

    def may_vote(self, block: Block) -> bool:
        """Once per view, for a block whose certificate ranks no lower than the lock."""
        return block.view > self.voted_view and block.body.view >= self.locked.view

    def normal_cases(self) -> tuple[NormalCase, ...]:
        return (
            NormalCase(Propose, (Step(VOTE, to_all=False),)),
            NormalCase(Prepare, (Step(VOTE2, to_all=False),)),
        )

    @invariant("a vote for a certificate locks it")
    def confirmed_is_locked(self) -> bool:
        """The second vote's view is the lock's at most."""
        return self.confirmed_view <= self.locked.view

    @invariant("votes are not for views to come")
    def votes_are_past(self) -> bool:
        """Of this view at most."""
        return max(self.voted_view, self.confirmed_view) <= self.view

    def abstract_state(self) -> tuple[int, int]:
        """Decided height, and the locked block."""
        return self.context.height, 0 if self.locked.block is None else self.locked.block.number

    # --- what is on disk, and what the fast path did meanwhile -------------------------------------------

    def recall(self, stable: dict[str, Any]) -> None:
        self.view, self.voted_view, self.confirmed_view = stable["view"], stable["voted"], stable["confirmed"]
        self.high, self.double = stable["locked"], stable["double"]
        self.voted = stable["block"]
        for block in (self.voted, self.high.block):
            self.tree.hold(block)

    def absorb_fast_path(self) -> None:
        """Catch up with the fast path.

        There each proposal proves the block before it final, and each prepare locks the block it certifies: view,
        votes and lock are plain functions of the last block and of whether its prepare has come.
        """
        block = self.context.fast_path.block()
        if block is None:
            return
        confirmed = self.context.fast_path.guard == 2 * block.number + 1
        if block.view <= self.voted_view and not (confirmed and block.view > self.confirmed_view):
            return
        self.view = self.voted_view = block.view
        self.voted = block
        self.tree.renew(block)
        self.lock(block.body)
        if block.parent is not None:
            self.double = block.body  # the parent is decided, the last to be: it is certified twice
        if confirmed:
            self.confirmed_view = block.view
            self.lock(QC(block.view, block, self.quorum()))
        self.save()

    def guard(self) -> int | None:
        """Twice the block voted for last, and one for its prepare, if the state is a plain function of them.

        That is: nothing was learnt since, nothing is missing, no other block is under way, no back-off is in force.
        """
        block, confirmed = self.voted, self.confirmed_view
        if self.orphan is not None or self.formed is not None or not self.pacemaker.is_quiet:
            return None
        if block is None:
            return self.genesis_guard if self.is_fresh() else None
        plain = (
            self.voted_view == self.view == block.view
            and self.locked.view == (block.view if confirmed == block.view else block.body.view)
            and len(self.tree) == 1 == block.height - self.context.height
        )
        return 2 * block.number + (confirmed == block.view) if plain else None

    def save(self) -> None:
        """Stable storage: what must not be forgotten."""
        self.context.disk.persist(
            view=self.view,
            voted=self.voted_view,
            block=self.voted,
            confirmed=self.confirmed_view,
            locked=self.locked,
            double=self.double,
        )

    # --- propose -----------------------------------------------------------------------------------------

    def propose(self) -> None:
        """B_k extends the block of the highest certificate; the double certificate proves what is final."""
        context, view, justify, double = self.context, self.view, self.locked, self.double
        block = self.extend(justify.block, justify)
        message = Propose(view, block, double)
        fresh = justify.view == view - 1 == (0 if double is None else double.view)
        before = 0 if justify.block is None else justify.block.number
        context.propose(
            message,
            context.votes.ballot(view, block.height, block),
            FastPath(
                before=2 * before + 1 if fresh else NOBODY,
                after=2 * block.number,
                to=context.me,
                decided=None if double is None else double.block,
            ),
        )
        self.accept(message)

    # --- vote --------------------------------------------------------------------------------------------

    @upon(Propose)
    def on_propose(self, sender: int, message: Propose) -> None:
        """A proposal from the leader of its view, extending a certified block."""
        context, block = self.context, message.block
        if block.height <= context.height or not self.valid(sender, message):
            return
        self.tree.add(block)
        if message.view < self.view or message.view <= self.voted_view:
            self.learn(block.body, sender)
            self.decide(message.double)
            self.resume()
        elif self.has_ancestors(sender, message):
            self.accept(message)
            self.resume()

    def valid(self, sender: int, message: Propose) -> bool:
        """The right leader, a certificate for the parent from an earlier view, and a double one for an ancestor."""
        double = message.double
        return super().valid(sender, message) and (double is None or self.valid_certificate(double, message.view))

    def accept(self, message: Propose) -> None:
        """Vote, to the leader, if the block ranks no lower than the lock; decide what is certified twice."""
        context, block = self.context, message.block
        self.view = block.view
        self.pacemaker.proposed(block.body, self.locked)
        if self.may_vote(block):
            self.voted_view, self.voted = block.view, block
            self.save()
            ballot = context.votes.ballot(block.view, block.height, block)
            context.vote(VOTE, ballot, to=self.leader_of(block.view))
        self.lock(block.body)
        self.decide(message.double)
        self.save()

    def lock(self, certificate: QC) -> None:
        """The highest certificate seen is the lock."""
        if certificate.view > self.locked.view:
            self.high = certificate

    def decide(self, double: QC | None) -> None:
        """A double certificate makes its block and all ancestors final, once they are here."""
        if double is None or double.block is None or self.tree.lacks(double.block):
            return
        if self.double is None or double.view > self.double.view:
            self.double = double
        if double.block.height > self.context.height:
            self.tree.commit(double.block)
            self.pacemaker.committed()

    # --- prepare, vote2 ----------------------------------------------------------------------------------

    @upon(VOTE)
    def on_votes(self, ballot: Ballot) -> None:
        """n - f votes for my block: tell all its certificate, if this view is not over."""
        block = ballot.block
        assert block is not None
        certificate = QC(ballot.view, block, self.quorum())
        if ballot.view != self.view:
            self.learn(certificate, None)
            return
        self.context.propose(
            Prepare(certificate),
            ballot,
            FastPath(before=2 * block.number, after=2 * block.number + 1, to=self.leader_of(ballot.view + 1)),
        )
        self.confirm(certificate)

    @upon(Prepare)
    def on_prepare(self, sender: int, message: Prepare) -> None:
        """The certificate of this view's block, from its leader."""
        certificate = message.qc
        if sender != self.leader_of(certificate.view) or not self.valid_certificate(certificate, certificate.view + 1):
            return
        if certificate.view < self.view or self.tree.lacks(certificate.block):
            self.learn(certificate, sender)
        else:
            self.confirm(certificate)
        self.resume()

    def confirm(self, certificate: QC) -> None:
        """Lock, and vote for the certificate, to the next leader."""
        context, view, block = self.context, certificate.view, certificate.block
        assert block is not None
        self.view = view
        self.pacemaker.progressed()
        self.lock(certificate)
        if view > self.confirmed_view:
            self.confirmed_view = view
            self.save()
            context.vote(VOTE2, context.votes.ballot(view, block.height, block), to=self.leader_of(view + 1))

    # --- the next view, by a double certificate ----------------------------------------------------------

    @upon(VOTE2)
    def on_vote2s(self, ballot: Ballot) -> None:
        """n - f votes for the certificate of the view before mine: a double certificate."""
        self.formed = QC(ballot.view, ballot.block, self.quorum())
        self.resume()

    def lead_after_double(self, double: QC) -> None:
        """Lock and decide, and propose in the next view unless that is over."""
        self.lock(double)
        self.decide(double)
        view = double.view + 1
        if view >= self.view:
            self.view = view
            self.pacemaker.progressed()
            self.lead(view)
        self.save()

    # --- the next view, by a timer -----------------------------------------------------------------------

    def lead_after_new_views(self) -> None:
        """A leader with a certificate of the view before proposes at once, others Delta after n - f locks."""
        context, view, reports = self.context, self.view, self.pacemaker.reports(self.view)
        if self.leader_of(view) != context.me or not reports or max(reports) > self.locked.view:
            return
        if self.locked.view == view - 1 or len(reports) == context.n or self.status_view == view:
            self.lead(view)
        elif len(reports) >= self.quorum() and self.delta_view < view:
            self.delta_view = view
            context.set_timer(DELTA_TIMER, self.status_wait_ns(), view)

    @upon(DELTA_TIMER)
    def on_delta(self, view: int) -> None:
        """Every honest replica's lock has come, if the network is timely."""
        self.status_view = view
        self.lead_after_new_views()

    def learn(self, certificate: QC, sender: int | None) -> None:
        """A certificate, not as part of this view's work: keep the highest, once its block is here."""
        if certificate.view <= self.locked.view or not self.is_here(certificate, sender):
            return
        self.lock(certificate)
        if certificate.view > self.view:
            self.view = certificate.view
            self.pacemaker.progressed()
        self.save()

    # --- what waited for blocks --------------------------------------------------------------------------

    def apply(self, block: Block) -> None:
        self.lock(block.body)

    def resume(self) -> None:
        orphan, formed = self.adopted(), self.formed
        if orphan is not None:
            self.accept(orphan)
        if formed is not None and not self.tree.lacks(formed.block):
            self.formed = None
            self.lead_after_double(formed)
        self.lead_after_new_views()
