"""Chained HotStuff with the three-chain commit rule.

M. Yin, D. Malkhi, M. K. Reiter, G. Golan Gueta, I. Abraham, "HotStuff: BFT consensus with linearity and
responsiveness", PODC 2019 (arXiv 1803.05069): Algorithm 3 (chained), pacemaker after Algorithms 4 and 5.

n >= 3f + 1 replicas. The leader of view v proposes one node b* that extends the highest certified node and
carries its certificate (b*.justify). A replica for which `safeNode` holds votes once per view, to the leader
of view v + 1; n - f votes are the certificate with which that leader proposes. Every node is a phase of its
ancestors: with b'' = b*.justify.node, b' = b''.justify.node, b = b'.justify.node, each the *direct* parent of
the one before, b*.justify is the generic certificate (one-chain), b''.justify the lock (two-chain), and b is
final (three-chain).

Safe: two certificates of n - f votes share a correct replica, so a view certifies one node. A three-chain b, b', b''
means n - f replicas locked b when they voted in the view after b'. The first certificate of a later view that
conflicts with b would need one of them, whose `safeNode` refuses: the node does not extend its lock, and its justify,
from before any such certificate, is not newer.
Live from when delays are bounded, given a pacemaker that keeps correct replicas in one view long enough: the leader
hears n - f NEW-VIEWs, among them the certificate below the highest lock, so that all vote for its node.

paper                     here
-----                     ----
curView                   view
vheight                   voted_view
genericQC, lockedQC       high, locked
LEADER(v)                 leader_of(v): v mod n
b.justify, b.parent       block.body, block.parent
safeNode(node, qc)        safe_node(block)
QC                        QC; n - f signatures, listed or combined as `cpu: {certificates}` says
nextView, onNextSyncView  on_timeout, enter (sim.families.chained.certified, with turns and missing blocks)
n - f NEW-VIEW messages   lead_after_new_views

Dummy nodes. The paper fills skipped views with dummy nodes so that a node's height is its view. Here a gap
between block.view and block.parent.view stands for them, and `Block.height` counts real blocks. So
"b.parent = b'" reads "b'.view = b.view - 1", and neither locks nor commits reach across a gap.

Deviations
* `high` is the highest certificate seen (qc_high of Algorithm 4), also across a gap; locks follow Algorithm 3, commits
  Algorithm 4: three certificates of successive views commit, whichever node carries the last. Under Algorithm 3 that
  must be a node of the next view; who formed it commits, and if it tells nobody else the others may do so never.
* The leader that forms a certificate applies the rules at once, before it proposes.
* The paper leaves the pacemaker open. Here a replica whose view expires doubles its patience (until the next commit)
  and sends NEW-VIEW with `high` to the leader of the next view, which proposes upon n - f of them. A proposal or
  certificate of a higher view, or NEW-VIEW of f + 1 replicas above, draw a replica forward. After f + 1 expiries in a
  row, more than crashed leaders explain, it goes on only together with n - f replicas that wish for the next view as it
  does (sim.families.chained.views): so replicas apart meet again, whatever their timers are.
* A proposal across a gap carries no proof that n - f replicas left the skipped views: `safeNode` judges it. A malicious
  leader could draw some far ahead, and hold up the rest until they get there; no behaviour in sim/adversary does.
* A proposal of a view that the replica has left gets no vote.
* A transaction waits where its client sent it until that replica leads, unless the scenario spreads it.
* Vote and lock are on disk before a vote leaves. A restarted replica knows them, and asks for what it missed.

Not modelled: combining the shares of a threshold signature, dissemination of transactions ahead of consensus, leaders
chosen by reputation.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sim.families.chained.certified import NOBODY, PacedChain
from sim.families.chained.tree import GENESIS, HEADER_BYTES, QC, Blocks, Fetch, Proposal, extends
from sim.families.chained.views import NewView, TurnParameters, every_vote_counts, few_leaders
from sim.protocol import Ballot, Block, Context, FastPath, NormalCase, Step, VoteType, invariant, upon


class HotStuffParameters(TurnParameters):
    """Parameters of chained HotStuff."""


VOTE = VoteType("VOTE", HEADER_BYTES, unique="view")


class HotStuff(PacedChain):
    """One replica of chained HotStuff."""

    messages = (Proposal, NewView, Fetch, Blocks)
    votes = (VOTE,)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.voted_view = 0
        self.voted: Block | None = None  # the block voted for in voted_view
        self.locked = GENESIS
        self.ruled: tuple[int, QC] = (0, GENESIS)  # what the chain rules were applied to last
        self.certified: QC | None = None  # formed here; its block or an ancestor is missing

    # --- rules: what a mutant or a variant overrides -----------------------------------------------------

    def safe_node(self, block: Block) -> bool:
        """It extends the locked block (safety rule), or its certificate is above the lock (liveness rule)."""
        return block.body.view > self.locked.view or extends(block, self.locked.block)

    def may_vote(self, block: Block) -> bool:
        """Once per view, never back."""
        return block.view > self.voted_view and self.safe_node(block)

    def locks(self, view: int, justify: QC) -> QC | None:
        """Two-chain: what b* of this view with this certificate locks, if b'' and b' are direct parents."""
        two = justify.block
        if two is None or two.body is None or not view == justify.view + 1 == two.body.view + 2:
            return None
        one: QC = two.body
        return one

    def commits(self, justify: QC) -> Block | None:
        """Three-chain: the block that this certificate makes final, if b'', b' and b are direct parents each."""
        one = self.locks(justify.view + 1, justify)
        if one is None or one.block is None or one.block.body is None or one.view != one.block.body.view + 1:
            return None
        zero: Block | None = one.block.body.block
        return zero

    def normal_cases(self) -> tuple[NormalCase, ...]:
        return (NormalCase(upon=Proposal, votes=(Step(VOTE, to_all=False),)),)

    @invariant("the lock is no higher than the highest certificate")
    def lock_is_known(self) -> bool:
        """Locks come from certificates seen."""
        return self.locked.view <= self.high.view

    @invariant("votes are not for views to come")
    def votes_are_past(self) -> bool:
        """A vote takes the replica to the next view."""
        return self.voted_view <= self.view

    @invariant("the lock is as high as the last vote asks for")
    def lock_is_raised(self) -> bool:
        """Two-chain of the block voted for."""
        voted = self.voted
        lock = None if voted is None or voted.body is None else self.locks(voted.view, voted.body)
        return lock is None or self.locked.view >= lock.view

    @invariant("the last vote is on disk")
    def vote_lasts(self) -> bool:
        """As handlers left it."""
        return self.context.disk.stable["voted"] is self.voted

    def abstract_state(self) -> tuple[int, ...]:
        """Decided height, how far the highest certificate is above the lock, and how many views ago it was.

        Not which blocks: a chain may grow for ever without a commit, and is no nearer to one.
        """
        lock, high = (0 if qc.block is None else qc.block.height for qc in (self.locked, self.high))
        return self.context.height, high - lock, self.view - self.high.view

    @staticmethod
    def known_weakness(
        kind: str, *, sizes: Collection[int], gone: Collection[int], lying: bool, lossy: bool,
        parameters: Mapping[str, Any],
    ) -> str:  # fmt: skip
        lost = every_vote_counts(kind, sizes, gone, lossy=lossy, parameters=parameters)
        return lost or few_leaders(kind, sizes, gone, leaders=4, views=1, lying=lying)

    # --- what is on disk, and what the fast path did meanwhile -------------------------------------------

    def recall(self, stable: dict[str, Any]) -> None:
        self.view, self.voted = stable["view"], stable["voted"]
        self.high, self.locked = stable["high"], stable["locked"]
        self.voted_view = 0 if self.voted is None else self.voted.view
        for block in (self.voted, self.high.block, self.locked.block):
            self.tree.hold(block)

    def absorb_fast_path(self) -> None:
        """Catch up with the fast path.

        There every proposal certifies the block accepted just before it. Views are consecutive; view, vote
        and certificates are plain functions of the last block; what is final, the fast path has decided.
        """
        block = self.context.fast_path.block()
        if block is None or block.view <= self.voted_view:
            return
        self.voted, self.voted_view, self.view = block, block.view, block.view + 1
        self.tree.renew(block)
        self.update(block.view, block.body)
        self.save()

    def guard(self) -> int | None:
        """The block voted for last, if the state is a plain function of it.

        That is: nothing was learnt since, nothing is missing, no other branch is open, and no back-off is in force.
        """
        block = self.voted
        if self.orphan is not None or self.certified is not None or not self.pacemaker.is_quiet:
            return None
        if block is None:
            return self.genesis_guard if self.is_fresh() else None
        plain = self.view == block.view + 1 and self.high == block.body
        return block.number if plain and len(self.tree) == block.height - self.context.height else None

    def save(self) -> None:
        """Stable storage: what must not be forgotten."""
        self.context.disk.persist(view=self.view, voted=self.voted, high=self.high, locked=self.locked)

    # --- the leader: Algorithm 3, prepare phase ----------------------------------------------------------

    @upon(VOTE)
    def on_votes(self, ballot: Ballot) -> None:
        """n - f votes for the block of the view before: a certificate."""
        self.certify(QC(ballot.view, ballot.block, self.quorum()))

    def certify(self, justify: QC) -> None:
        """A certificate was formed here: apply it and propose upon it. Its block must be here."""
        view = justify.view + 1
        if view < self.view:
            self.learn(justify, None)
        elif self.tree.lacks(justify.block):
            self.certified = justify
        else:
            self.view = view
            self.pacemaker.progressed()
            self.update(view, justify)
            self.lead(view)

    def propose(self) -> None:
        """b* extends the block of the highest certificate: <GENERIC, curView, b*> to all."""
        context, view, justify = self.context, self.view, self.high
        block = self.extend(justify.block, justify)
        before = 0 if justify.block is None else justify.block.number
        context.propose(
            Proposal(view, block),
            context.votes.ballot(view, block.height, block),
            FastPath(
                before=before if justify.view == view - 1 else NOBODY,
                after=block.number,
                to=self.leader_of(view + 1),
                decided=self.commits(justify),
            ),
        )
        self.accept(block)

    # --- all replicas: Algorithm 3, pre-commit, commit and decide phases ---------------------------------

    @upon(Proposal)
    def on_proposal(self, sender: int, message: Proposal) -> None:
        """A proposal from the leader of its view, extending a certified block."""
        context, block = self.context, message.block
        if block.height <= context.height or not self.valid(sender, message):
            return
        self.tree.add(block)
        if message.view < self.view or message.view <= self.voted_view:
            self.learn(block.body, sender)
            self.resume()
        elif self.has_ancestors(sender, message):
            self.accept(block)
            self.resume()

    def accept(self, block: Block) -> None:
        """Vote, to the next leader, if the block is safe; then apply the certificate it carries."""
        context, view = self.context, block.view
        self.pacemaker.proposed(block.body, self.high)
        if self.may_vote(block):
            self.voted, self.voted_view = block, view
            self.save()
            context.vote(VOTE, context.votes.ballot(view, block.height, block), to=self.leader_of(view + 1))
        self.view = view + 1
        self.update(view, block.body)
        self.save()

    def update(self, view: int, justify: QC) -> None:
        """The chain rules, for a node of `view` that carries this certificate."""
        if self.ruled == (view, justify):
            return  # its leader formed the certificate and has applied it
        self.ruled = (view, justify)
        if justify.view > self.high.view:
            self.high = justify
        lock = self.locks(view, justify)
        if lock is not None and lock.view > self.locked.view:
            self.locked = lock
        final = self.commits(justify)
        if final is not None and final.height > self.context.height:
            self.commit(final)

    def apply(self, block: Block) -> None:
        self.update(block.view, block.body)

    def commit(self, head: Block) -> None:
        """The block and all its ancestors are final; patience is as at first again."""
        self.tree.commit(head)
        self.pacemaker.committed()

    # --- the pacemaker: Algorithms 4 and 5, and Deviations -----------------------------------------------

    def valid_new_view(self, message: NewView) -> bool:
        """A certificate of an earlier view."""
        return self.valid_certificate(message.justify, message.view)

    def lead_after_new_views(self) -> None:
        """The leader of a view proposes upon n - f NEW-VIEW messages, on their highest certificate."""
        if self.leader_of(self.view) != self.context.me:
            return
        reports = self.pacemaker.reports(self.view)
        if len(reports) >= self.quorum() and max(reports) <= self.high.view:
            self.lead(self.view)

    def learn(self, justify: QC, sender: int | None) -> None:
        """A certificate, not as part of a new proposal: keep the highest, once its block is here."""
        if justify.view <= self.high.view or not self.is_here(justify, sender):
            return
        self.high = justify
        if justify.view >= self.view:
            self.view = justify.view + 1
            self.context.clock.made_progress()
            if self.leader_of(self.view) == self.context.me:
                self.lead(self.view)
        self.save()

    def resume(self) -> None:
        orphan, certified = self.adopted(), self.certified
        if orphan is not None:
            self.accept(orphan.block)
        if certified is not None and not self.tree.lacks(certified.block):
            self.certified = None
            self.certify(certified)
        self.lead_after_new_views()
