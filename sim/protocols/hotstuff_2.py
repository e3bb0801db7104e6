"""HotStuff-2: two phases, responsive when leaders are honest.

D. Malkhi, K. Nayak, "HotStuff-2: Optimal Two-Phase Responsive BFT", ePrint 2023/397: the protocol for a sequence
of blocks, one per view, not pipelined.

n >= 3t + 1 replicas. The leader of view v proposes a block upon the highest certificate it knows; 2t + 1 votes are a
certificate C_v(B), which it sends to all in a prepare; a replica that sees it is locked on it and votes again, to the
leader of view v + 1; 2t + 1 of these votes are a double certificate C_v(C_v(B)). B is final where that is seen: at
the next leader, and at all others with its proposal. A leader who has a certificate of the view before proposes at
once. Only one who has none waits Delta, so that every honest replica's lock reaches it: three-phase HotStuff needs
no such wait, and two phases without it can be kept from deciding (a lock that only one replica has).

paper                     here
-----                     ----
C_v(B)                    QC; the highest known is `locked`
C_v(C_v(B))               QC about the same block, as `double`
propose                   Propose, propose
vote                      VOTE to leader_of(view), on_propose
prepare                   Prepare, on_votes
vote2                     VOTE2 to leader_of(view + 1), confirm
enter view v              enter (a timer), on_vote2s and accept (a double certificate)
P_pc + Delta              status_wait_ns
t                         f

Deviations
* The paper takes a pacemaker as given. Here NEW-VIEW letters with the sender's lock go to the next leader when a
  view expires (sim.ledger.views). Delta runs from the (n - f)-th of them, and not at all once all n are here.
* A leader adopts the highest certificate it is shown as its own lock.
* A proposal carries the highest double certificate that its leader formed, whatever its view.
* Last votes, view and lock are on disk before a vote leaves.

Not modelled: the pipelined variant, a pacemaker of O(n) messages in the worst case, dissemination of transactions
ahead of consensus.
"""

from __future__ import annotations

import dataclasses

from sim.ledger.tree import GENESIS, HEADER_BYTES, QC, Blocks, BlockTree, Fetch
from sim.ledger.views import EMPTY_TIMER, PROPOSE_TIMER, NewView, Pacemaker, Turn, TurnParameters
from sim.parameters import Nanoseconds, quantity
from sim.protocol import (
    BATCH,
    NO_PROGRESS,
    Ballot,
    Block,
    Context,
    Letter,
    NormalCase,
    Quorum,
    Replica,
    Signing,
    Step,
    Timer,
    VoteType,
    invariant,
    upon,
)

NOBODY = -2  # a guard that no replica's lane number meets


class HotStuff2Parameters(TurnParameters):
    """Parameters of HotStuff-2."""

    delta_ns: Nanoseconds = quantity(
        "300 ms",
        "Delta: how long a leader without a certificate of the view before waits for further locks; "
        "must cover one delay and the time between the first and the last to enter a view",
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Propose(Letter):
    """<propose, B_k, v, C_v'(B_k-1), C_v''(C_v''(B_k''))>: the block; its certificate is block.body."""

    view: int
    block: Block
    double: QC | None

    def size_bytes(self, signing: Signing) -> int:
        double = 0 if self.double is None else self.double.size_bytes(signing)
        return HEADER_BYTES + self.block.bytes + int(self.block.body.size_bytes(signing)) + double

    def certificates(self) -> tuple[int, ...]:
        double = () if self.double is None else (self.double.signatures,)
        return (self.block.body.signatures, *double)

    def carries(self) -> Block:
        return self.block


@dataclasses.dataclass(frozen=True, slots=True)
class Prepare(Letter):
    """<prepare, C_v(B_k)>."""

    certificate: QC

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES + self.certificate.size_bytes(signing)

    def certificates(self) -> tuple[int, ...]:
        return (self.certificate.signatures,)


VOTE = VoteType("VOTE", HEADER_BYTES, unique="view")
VOTE2 = VoteType("VOTE2", HEADER_BYTES, unique="view", certified=True)

DELTA_TIMER = Timer("delta")


class HotStuff2(Replica):
    """One replica of HotStuff-2."""

    letters = (Propose, Prepare, NewView, Fetch, Blocks)
    votes = (VOTE, VOTE2)
    lasting_leader = False
    progress = "always"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.f: int = self.parameters.tolerated(context.n)
        self.view = 1
        self.voted_view = 0
        self.confirmed_view = 0  # of the last vote2
        self.locked = GENESIS
        self.double: QC | None = None  # the highest that this replica has formed or seen
        self.tree = BlockTree(context)
        self.turn = Turn(context)
        self.pacemaker = Pacemaker(context, self.f, self.quorum())
        self.orphan: Propose | None = None  # of the highest view so far; ancestors are missing
        self.formed: QC | None = None  # a double certificate formed here; its block or an ancestor is missing
        self.delta_view = 0  # the view in which Delta runs
        self.status_view = 0  # the view in which Delta is over

    @staticmethod
    def check(parameters: HotStuff2Parameters, voters: int) -> None:
        """Raise ValueError if the parameters do not fit the number of voters."""
        parameters.check(voters)
        if parameters.delta_ns >= parameters.view_timeout_ns:
            raise ValueError(
                f"delta {parameters.delta_ns} ns: must be below view_timeout {parameters.view_timeout_ns} ns, "
                "or views expire while their leaders wait; shorten it or raise view_timeout"
            )

    # --- rules: what a mutant or a variant overrides -----------------------------------------------------

    def quorum(self) -> int:
        """n - f."""
        return self.context.n - self.f

    def leader_of(self, view: int) -> int:
        """L_v: round robin."""
        return view % self.context.n

    def status_wait_ns(self) -> int:
        """How long a leader without a certificate of the view before waits for locks after n - f of them."""
        wait: int = self.parameters.delta_ns
        return wait

    def may_vote(self, block: Block) -> bool:
        """Once per view, for a block whose certificate ranks no lower than the lock."""
        return block.view > self.voted_view and block.body.view >= self.locked.view

    def quorums(self) -> dict[VoteType, Quorum]:
        return {VOTE: Quorum(self.quorum()), VOTE2: Quorum(self.quorum())}

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

    # --- start, and what the fast lane did meanwhile -----------------------------------------------------

    @property
    def view_number(self) -> int:
        self.sync()
        return self.view

    def start(self) -> None:
        context, stable = self.context, self.context.stable
        if not stable:
            self.save()
            context.lane(1)  # the genesis block is certified twice
            self.pacemaker.start()
            if self.leader_of(self.view) == context.me:
                self.lead(self.view)
            return
        self.view, self.voted_view, self.confirmed_view = stable["view"], stable["voted"], stable["confirmed"]
        self.locked, self.double = stable["locked"], stable["double"]
        self.tree.hold(self.locked.block)
        self.sync()
        context.lane(None)
        context.enter_view(self.view)
        self.pacemaker.start()
        leader = self.leader_of(self.view)
        self.fetch(leader if leader != context.me else (leader + 1) % context.n, None)

    def sync(self) -> None:
        """Catch up with the fast lane.

        There each proposal proves the block before it final, and each prepare locks the block it certifies: view,
        votes and lock are plain functions of the last block and of whether its prepare has come.
        """
        block = self.context.lane_block()
        if block is None:
            return
        confirmed = self.context.lane_number() == 2 * block.number + 1
        if block.view <= self.voted_view and not (confirmed and block.view > self.confirmed_view):
            return
        self.view = self.voted_view = block.view
        self.tree.renew(block)
        self.lock(block.body)
        if block.parent is not None:
            self.double = block.body  # the parent is decided, the last to be: it is certified twice
        if confirmed:
            self.confirmed_view = block.view
            self.lock(QC(block.view, block, self.quorum()))
        self.save()

    def rejoin(self, block: Block, number: int) -> None:
        """Be in the fast lane if the state is a plain function of this block, the only one under way."""
        plain = (
            self.voted_view == self.view == block.view
            and self.orphan is None
            and self.formed is None
            and self.pacemaker.calm
            and len(self.tree) == 1 == block.height - self.context.height
        )
        self.context.lane(number if plain else None)

    def save(self) -> None:
        """Stable storage: what must not be forgotten."""
        self.context.persist(
            view=self.view,
            voted=self.voted_view,
            confirmed=self.confirmed_view,
            locked=self.locked,
            double=self.double,
        )

    # --- propose -----------------------------------------------------------------------------------------

    def lead(self, view: int) -> None:
        """Propose in this view as soon as delays and the block interval allow."""
        if self.turn.begin(view):
            self.on_due(view)

    @upon(PROPOSE_TIMER)
    def on_due(self, view: int) -> None:
        """The proposal is due: now, or when a transaction comes, if there is nothing to drive forward."""
        self.sync()
        if view == self.view and self.turn.due(view, self.tree.undecided(self.locked.block)):
            self.propose()

    @upon(BATCH, EMPTY_TIMER)
    def on_waited(self, view: int | None = None) -> None:
        """A transaction has come, or the leader has waited for one long enough."""
        self.sync()
        if self.turn.waited(self.view, view):
            self.propose()

    def propose(self) -> None:
        """B_k extends the block of the highest certificate; the double certificate proves what is final."""
        context, view, justify, double = self.context, self.view, self.locked, self.double
        self.turn.proposed()
        block = context.new_block(justify.block, view, empty=True)
        assert block is not None
        block.body = justify
        self.tree.add(block)
        message = Propose(view, block, double)
        fresh = justify.view == view - 1 == (0 if double is None else double.view)
        before = 0 if justify.block is None else justify.block.number
        context.propose(
            message,
            context.ballot(view, block.height, block),
            guard=(2 * before + 1 if fresh else NOBODY, 2 * block.number),
            to=context.me,
            decided=None if double is None else double.block,
        )
        self.accept(message)

    # --- vote --------------------------------------------------------------------------------------------

    @upon(Propose)
    def on_propose(self, sender: int, message: Propose) -> None:
        """A proposal from the leader of its view, extending a certified block."""
        self.sync()
        context, block = self.context, message.block
        if block.height <= context.height or not self.valid(sender, message):
            return
        self.tree.add(block)
        if message.view < self.view or message.view <= self.voted_view:
            context.lane(None)  # another branch, perhaps
            self.learn(block.body, sender)
            self.decide(message.double)
            self.resume()
        elif self.tree.lacks(block):
            context.lane(None)
            if self.orphan is None or message.view > self.orphan.view:
                self.orphan = message
            self.fetch(sender, block.body)
        else:
            self.accept(message)
            self.resume()

    def valid(self, sender: int, message: Propose) -> bool:
        """The right leader, a certificate for the parent from an earlier view, and a double one for an ancestor."""
        block, justify, double = message.block, message.block.body, message.double
        return (
            sender == self.leader_of(message.view)
            and block.view == message.view
            and self.valid_certificate(justify, message.view)
            and justify.block is block.parent
            and (double is None or self.valid_certificate(double, message.view))
        )

    def valid_certificate(self, certificate: object, before: int) -> bool:
        """n - f signatures for a block, of a view before this one."""
        if not isinstance(certificate, QC) or certificate.view >= before:
            return False
        if certificate.block is None:
            return certificate.view == 0
        return certificate.block.view == certificate.view and certificate.signatures >= self.quorum()

    def accept(self, message: Propose) -> None:
        """Vote, to the leader, if the block ranks no lower than the lock; decide what is certified twice."""
        context, block = self.context, message.block
        self.view = block.view
        self.pacemaker.progressed()
        if self.may_vote(block):
            self.voted_view = block.view
            self.save()
            ballot = context.ballot(block.view, block.height, block)
            context.vote(VOTE, ballot, to=self.leader_of(block.view))
        self.lock(block.body)
        self.decide(message.double)
        self.save()
        self.rejoin(block, 2 * block.number)

    def lock(self, certificate: QC) -> None:
        """The highest certificate seen is the lock."""
        if certificate.view > self.locked.view:
            self.locked = certificate

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
        self.sync()
        block = ballot.block
        assert block is not None
        certificate = QC(ballot.view, block, self.quorum())
        if ballot.view != self.view:
            self.learn(certificate, None)
            return
        self.context.propose(
            Prepare(certificate),
            ballot,
            guard=(2 * block.number, 2 * block.number + 1),
            to=self.leader_of(ballot.view + 1),
        )
        self.confirm(certificate)

    @upon(Prepare)
    def on_prepare(self, sender: int, message: Prepare) -> None:
        """The certificate of this view's block, from its leader."""
        self.sync()
        certificate = message.certificate
        if sender != self.leader_of(certificate.view) or not self.valid_certificate(
            certificate, certificate.view + 1
        ):
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
            context.vote(VOTE2, context.ballot(view, block.height, block), to=self.leader_of(view + 1))
        self.rejoin(block, 2 * block.number + 1)

    # --- the next view, by a double certificate ----------------------------------------------------------

    @upon(VOTE2)
    def on_vote2s(self, ballot: Ballot) -> None:
        """n - f votes for the certificate of the view before mine: a double certificate."""
        self.sync()
        self.formed = QC(ballot.view, ballot.block, self.quorum())
        self.resume()
        if self.formed is not None:
            self.context.lane(None)

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

    @upon(NO_PROGRESS)
    def on_timeout(self) -> None:
        """The view expired."""
        self.sync()
        self.enter(self.pacemaker.expired(self.view))
        self.lead_after_new_views()

    def enter(self, view: int) -> None:
        """Enter a view without a double certificate of the one before, and send the lock to its leader."""
        self.view = view
        self.save()
        self.pacemaker.enter(view, self.locked, self.leader_of(view))

    @upon(NewView)
    def on_new_view(self, sender: int, message: NewView) -> None:
        """Adopt the highest lock; follow f + 1 replicas to a higher view."""
        self.sync()
        if not self.valid_certificate(message.justify, message.view + 1):
            return
        self.pacemaker.hear(sender, message)
        self.learn(message.justify, sender)
        view = self.pacemaker.drawn(self.view)
        if view is not None:
            self.enter(view)
        self.resume()

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
        self.sync()
        self.status_view = view
        self.lead_after_new_views()

    def learn(self, certificate: QC, sender: int | None) -> None:
        """A certificate, not as part of this view's work: keep the highest, once its block is here."""
        if certificate.view <= self.locked.view:
            return
        if self.tree.lacks(certificate.block):
            if sender is not None:
                self.fetch(sender, certificate)
            return
        self.lock(certificate)
        self.context.lane(None)
        if certificate.view > self.view:
            self.view = certificate.view
            self.pacemaker.progressed()
        self.save()

    # --- missing blocks ----------------------------------------------------------------------------------

    def fetch(self, sender: int, justify: QC | None) -> None:
        """Ask for the blocks below a certificate."""
        self.tree.ask(sender, justify, self.parameters.view_timeout_ns)

    @upon(Fetch)
    def on_fetch(self, sender: int, message: Fetch) -> None:
        """Send the lowest of the blocks that the sender lacks."""
        self.sync()
        self.tree.answer(sender, message, self.locked)

    @upon(Blocks)
    def on_blocks(self, sender: int, message: Blocks) -> None:
        """Keep the blocks; ask for more, or go on with what waited for them."""
        self.sync()
        for block in self.tree.take(message, lambda one: self.valid_certificate(one.body, one.view)):
            self.context.lane(None)
            self.lock(block.body)
        if not self.tree.lacks(message.justify.block):
            self.learn(message.justify, None)
        elif message.blocks:
            self.fetch(sender, message.justify)
        self.resume()

    def resume(self) -> None:
        """Take up what waited for blocks."""
        orphan, formed = self.orphan, self.formed
        if orphan is not None and not self.tree.lacks(orphan.block):
            self.orphan = None
            if orphan.view >= self.view and orphan.block.height > self.context.height:
                self.accept(orphan)
        if formed is not None and not self.tree.lacks(formed.block):
            self.formed = None
            self.lead_after_double(formed)
        self.lead_after_new_views()
