"""Basic HotStuff: three phases and a decision in each view.

M. Yin, D. Malkhi, M. K. Reiter, G. Golan Gueta, I. Abraham, "HotStuff: BFT consensus with linearity and
responsiveness", PODC 2019 (arXiv 1803.05069): Algorithms 1 and 2.

n >= 3f + 1 replicas. The leader of view v collects NEW-VIEW from n - f replicas and proposes a node on top of the
highest prepareQC among them. Replicas for which `safeNode` holds vote, to the leader; n - f votes are the prepareQC,
which it sends to all (pre-commit); votes for that are the precommitQC (commit), on which replicas lock; votes for that
are the commitQC (decide). Then the next view begins with NEW-VIEW to its leader.

Safe: two certificates of n - f votes share a correct replica, so a view has one prepareQC. A commitQC means n - f
replicas locked its node. The first later prepareQC that conflicts would need one of them, whose `safeNode` refuses:
the node does not extend its lock, and no newer prepareQC exists yet that could release it.
Live from when delays are bounded, given a pacemaker that keeps correct replicas in one view long enough: who is
locked was one of n - f that sent their vote upon a prepareQC, so n - f NEW-VIEWs bring the leader one as high as any
lock.

paper                         here
-----                         ----
curView                       view
LEADER(v)                     leader_of(v): v mod n
prepareQC, lockedQC           high, locked
node.parent, justify          block.parent, block.body
MSG(prepare, node, highQC)    Prepare; votes PREPARE_VOTE
MSG(pre-commit, prepareQC)    PreCommit; votes PRE_COMMIT_VOTE
MSG(commit, precommitQC)      Commit; votes COMMIT_VOTE
MSG(decide, commitQC)         Decide
MSG(new-view, prepareQC)      NEXT_VIEW after a decision, NewView after a timeout
safeNode(node, qc)            safe_node(block)
nextView interrupt            on_timeout (sim.families.chained.certified, with turns and missing blocks)

Deviations
* NEW-VIEW after a decision is a vote about the decided node, so that it is counted like one; it carries the prepareQC
  of that view. The leader of a view counts both kinds together.
* The first leader proposes at once: there is no QC to collect.
* A leader whose own view has not ended yet proposes upon n - f NEW-VIEWs all the same, and follows.
* Messages of a higher view draw a replica forward; a commitQC decides whatever view the replica is in.
* The paper leaves the pacemaker open: see sim.families.chained.views.
* Last vote, view and QCs are on disk before a vote leaves. A restarted replica asks for what it missed.

Not modelled: optimistic responsiveness against slow leaders (timers are fixed), dissemination of transactions ahead of
consensus.
"""

from __future__ import annotations

from typing import Any

from sim.families.chained.certified import NOBODY, PacedChain
from sim.families.chained.tree import GENESIS, HEADER_BYTES, QC, Blocks, Certified, Fetch, Proposal, extends
from sim.families.chained.views import NewView, TurnParameters
from sim.protocol import Ballot, Block, Context, FastPath, Message, NormalCase, Step, VoteType, invariant, upon

PREPARED, PRE_COMMITTED, COMMITTED, DECIDED = range(4)  # how far a replica has come in a view


class HotStuffBasicParameters(TurnParameters):
    """Parameters of basic HotStuff."""


class Prepare(Proposal):
    """MSG(prepare, curProposal, highQC): the block; highQC is block.body."""

    __slots__ = ()


class PreCommit(Certified):
    """MSG(pre-commit, prepareQC)."""

    __slots__ = ()


class Commit(Certified):
    """MSG(commit, precommitQC)."""

    __slots__ = ()


class Decide(Certified):
    """MSG(decide, commitQC)."""

    __slots__ = ()


PREPARE_VOTE = VoteType("PREPARE_VOTE", HEADER_BYTES, unique="view")
PRE_COMMIT_VOTE = VoteType("PRE_COMMIT_VOTE", HEADER_BYTES, unique="view")
COMMIT_VOTE = VoteType("COMMIT_VOTE", HEADER_BYTES, unique="view")
NEXT_VIEW = VoteType("NEXT_VIEW", HEADER_BYTES, unique="view", certified=True)

VOTES = (PREPARE_VOTE, PRE_COMMIT_VOTE, COMMIT_VOTE, NEXT_VIEW)
MESSAGES: tuple[type[Message], ...] = (Prepare, PreCommit, Commit, Decide)


class HotStuffBasic(PacedChain):
    """One replica of basic HotStuff."""

    messages = (*MESSAGES, NewView, Fetch, Blocks)
    votes = VOTES
    genesis_guard = DECIDED

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.stage = (0, DECIDED)  # view and phase of the last vote
        self.block: Block | None = None  # that it was for
        self.locked = GENESIS
        self.final: QC | None = None  # a commitQC; its block or an ancestor is missing
        self.ended: QC | None = None  # n - f replicas decided in this view; its block or an ancestor is missing

    # --- rules: what a mutant or a variant overrides -----------------------------------------------------

    def safe_node(self, block: Block) -> bool:
        """It extends the locked block (safety rule), or its QC is above the lock (liveness rule)."""
        return block.body.view > self.locked.view or extends(block, self.locked.block)

    def may_vote(self, block: Block) -> bool:
        """Once per view, never back."""
        return (block.view, PREPARED) > self.stage and self.safe_node(block)

    def normal_cases(self) -> tuple[NormalCase, ...]:
        return tuple(
            NormalCase(message, (Step(vote, to_all=False),)) for message, vote in zip(MESSAGES, VOTES, strict=True)
        )

    @invariant("the lock is no higher than the highest prepareQC")
    def lock_is_known(self) -> bool:
        """A precommitQC proves a prepareQC."""
        return self.locked.view <= self.high.view

    @invariant("votes are not for views to come")
    def votes_are_past(self) -> bool:
        """Of this view at most."""
        return self.stage[0] <= self.view

    def abstract_state(self) -> tuple[int, ...]:
        """Decided height, and the blocks of the lock and of the highest prepareQC."""
        numbers = (0 if qc.block is None else qc.block.number for qc in (self.locked, self.high))
        return (self.context.height, *numbers)

    # --- what is on disk, and what the fast path did meanwhile -------------------------------------------

    def recall(self, stable: dict[str, Any]) -> None:
        self.view, self.stage, self.block = stable["view"], stable["stage"], stable["block"]
        self.high, self.locked = stable["high"], stable["locked"]
        for block in (self.block, self.high.block, self.locked.block):
            self.tree.hold(block)

    def absorb_fast_path(self) -> None:
        """Catch up with the fast path.

        There each block extends one decided just before; view, QCs and vote are plain functions of the last block
        and of the phase its view has come to.
        """
        block = self.context.fast_path.block()
        if block is None:
            return
        phase = self.context.fast_path.guard - 4 * block.number
        if (block.view, phase) <= self.stage:
            return
        self.stage, self.block = (block.view, phase), block
        self.view = block.view + (phase == DECIDED)
        self.tree.renew(block)
        self.note(block.body, PREPARED)
        if phase > PREPARED:
            self.note(QC(block.view, block, self.quorum()), phase)
        self.save()

    def guard(self) -> int | None:
        """Four times the block voted for last, and the phase, if the state is a plain function of them.

        That is: nothing was learnt since, nothing is missing, no other block is under way, no back-off is in force,
        and no NEW-VIEW messages have come that only handlers count.
        """
        block, (view, phase) = self.block, self.stage
        waits = self.orphan is not None or self.final is not None or self.ended is not None
        if waits or not self.pacemaker.is_quiet or self.awaits_news():
            return None
        if block is None:
            return self.genesis_guard if self.is_fresh() else None
        plain = (
            view == block.view
            and self.view == view + (phase == DECIDED)
            and self.high.view == (block.body.view if phase == PREPARED else view)
            and len(self.tree) == block.height - self.context.height == (0 if phase == DECIDED else 1)
        )
        return 4 * block.number + phase if plain else None

    def save(self) -> None:
        """Stable storage: what must not be forgotten."""
        self.context.disk.persist(
            view=self.view, stage=self.stage, block=self.block, high=self.high, locked=self.locked
        )

    # --- the leader --------------------------------------------------------------------------------------

    def propose(self) -> None:
        """Prepare phase: a leaf on top of highQC's block."""
        context, view, high = self.context, self.view, self.high
        block = self.extend(high.block, high)
        before = 0 if high.block is None else high.block.number
        fresh = high.view == view - 1
        context.propose(
            Prepare(view, block),
            context.votes.ballot(view, block.height, block),
            FastPath(before=4 * before + DECIDED if fresh else NOBODY, after=4 * block.number, to=context.me),
        )
        self.accept(block)

    def tell(self, ballot: Ballot, message: type[Certified]) -> None:
        """n - f votes of a phase are a QC; tell all, if this view is not over, and do as they do."""
        context, block = self.context, ballot.block
        assert block is not None
        phase = MESSAGES.index(message)
        if (ballot.view, phase) <= self.stage or ballot.view < self.view:
            return
        qc = QC(ballot.view, block, self.quorum())
        now = 4 * block.number + phase
        final = phase == DECIDED
        context.propose(
            message(qc),
            ballot,
            FastPath(
                before=now - 1,
                after=now,
                to=self.leader_of(qc.view + 1) if final else context.me,
                decided=block if final else None,
            ),
        )
        if final:
            self.decide(qc)
        else:
            self.follow(qc, phase)

    @upon(PREPARE_VOTE)
    def on_prepare_votes(self, ballot: Ballot) -> None:
        """Pre-commit phase: the prepareQC."""
        self.tell(ballot, PreCommit)

    @upon(PRE_COMMIT_VOTE)
    def on_pre_commit_votes(self, ballot: Ballot) -> None:
        """Commit phase: the precommitQC."""
        self.tell(ballot, Commit)

    @upon(COMMIT_VOTE)
    def on_commit_votes(self, ballot: Ballot) -> None:
        """Decide phase: the commitQC."""
        self.tell(ballot, Decide)

    # --- replicas ----------------------------------------------------------------------------------------

    @upon(Prepare)
    def on_prepare(self, sender: int, message: Prepare) -> None:
        """A proposal from the leader of its view, extending the block of its highQC."""
        context, block = self.context, message.block
        if block.height <= context.height or not self.valid(sender, message):
            return
        self.tree.add(block)
        if message.view >= self.view and (message.view, PREPARED) > self.stage:
            if not self.has_ancestors(sender, message):
                return
            self.accept(block)
        self.resume()

    def accept(self, block: Block) -> None:
        """Prepare phase: vote, to the leader, if the block is safe."""
        self.view = block.view
        self.pacemaker.proposed(block.body, self.high)
        self.note(block.body, PREPARED)
        if self.may_vote(block):
            self.cast(block, PREPARED, self.leader_of(block.view))
        else:
            self.save()

    def cast(self, block: Block, phase: int, to: int) -> None:
        """Vote in a phase, once its record is on disk."""
        self.stage, self.block = (block.view, phase), block
        self.save()
        self.context.vote(VOTES[phase], self.context.votes.ballot(block.view, block.height, block), to=to)

    def note(self, qc: QC, phase: int) -> None:
        """What the QC shown in a phase raises: prepareQC, and lockedQC from the precommitQC on."""
        if qc.view > self.high.view:
            self.high = qc
        if phase >= COMMITTED and qc.view > self.locked.view:
            self.locked = qc

    @upon(PreCommit, Commit)
    def on_qc(self, sender: int, message: Certified) -> None:
        """Pre-commit and commit phases: a QC from the leader of its view."""
        qc, phase = message.qc, MESSAGES.index(type(message))
        if sender != self.leader_of(qc.view) or not self.valid_certificate(qc, qc.view + 1):
            return
        if qc.view < self.view or (qc.view, phase) <= self.stage or self.tree.lacks(qc.block):
            self.learn(qc, sender)
        else:
            self.follow(qc, phase)
        self.resume()

    def follow(self, qc: QC, phase: int) -> None:
        """Keep the prepareQC, or lock upon the precommitQC; vote for it, to the leader."""
        assert qc.block is not None
        self.view = qc.view
        self.pacemaker.progressed()
        self.note(qc, phase)
        self.cast(qc.block, phase, self.leader_of(qc.view))

    @upon(Decide)
    def on_decide(self, sender: int, message: Decide) -> None:
        """Decide phase: a commitQC, whoever shows it."""
        qc = message.qc
        if not self.valid_certificate(qc, qc.view + 1) or qc.block is None or qc.block.height <= self.context.height:
            return
        if self.tree.lacks(qc.block):
            if self.final is None or qc.view > self.final.view:
                self.final = qc
            self.fetch(sender, qc)
        else:
            self.decide(qc)
        self.resume()

    def decide(self, qc: QC) -> None:
        """The block and its ancestors are final; the next view begins with NEW-VIEW to its leader."""
        block = qc.block
        assert block is not None
        over = qc.view < self.view
        if not over:
            self.view = qc.view + 1
            self.pacemaker.progressed()
            self.note(qc, DECIDED)
            self.cast(block, DECIDED, self.leader_of(self.view))
        if block.height > self.context.height:
            self.tree.commit(block)
            self.pacemaker.committed()

    # --- the next view -----------------------------------------------------------------------------------

    @upon(NEXT_VIEW)
    def on_next_view(self, ballot: Ballot) -> None:
        """n - f replicas decided in the view before mine, and show its prepareQC."""
        self.ended = QC(ballot.view, ballot.block, self.quorum())
        self.resume()

    def awaits_news(self) -> bool:
        """Whether NEW-VIEW messages have come for a view that is mine to lead and that I have not led."""
        return any(
            news.view > self.turn.view and self.leader_of(news.view) == self.context.me
            for news in self.pacemaker.news.values()
        )

    def lead_after_new_views(self) -> None:
        """Propose upon NEW-VIEW of n - f replicas, by message or after a decision, on their highest prepareQC."""
        context, view, news = self.context, self.view, self.pacemaker.news
        if self.leader_of(view) != context.me or self.turn.view >= view:
            return
        if max(self.pacemaker.reports(view), default=0) > self.high.view:
            return  # its block is on the way
        if not self.awaits_news():
            return  # decisions alone: their quorum is told when it has been processed
        block = self.high.block if self.high.view == view - 1 else None
        ballot = None if block is None else context.votes.ballot(block.view, block.height, block)
        here = sum(
            (replica in news and news[replica].view == view)
            or (ballot is not None and context.votes.has_voted(NEXT_VIEW, ballot, replica))
            for replica in range(context.n)
        )
        if here >= self.quorum():
            self.lead(view)

    def learn(self, qc: QC, sender: int | None) -> None:
        """A prepareQC, not as part of this view's work: keep the highest, once its block is here."""
        if qc.view <= self.high.view or not self.is_here(qc, sender):
            return
        self.high = qc
        if qc.view > self.view:
            self.view = qc.view
            self.pacemaker.progressed()
        self.save()

    # --- what waited for blocks --------------------------------------------------------------------------

    def apply(self, block: Block) -> None:
        """Nothing yet: a block that is here may be the one that a QC or a proposal waits for."""

    def resume(self) -> None:
        final, ended = self.final, self.ended
        if final is not None and not self.tree.lacks(final.block):
            self.final = None
            self.decide(final)
        orphan = self.adopted()
        if orphan is not None:
            self.accept(orphan.block)
        if ended is not None and not self.tree.lacks(ended.block):
            self.ended = None
            self.learn(ended, None)
            if ended.view + 1 >= self.view:
                self.view = ended.view + 1
                self.pacemaker.progressed()
                self.lead(self.view)
        self.lead_after_new_views()
