"""Jolteon: two-chain HotStuff with a quadratic view change.

R. Gelashvili, L. Kokoris-Kogias, A. Sonnino, A. Spiegelman, Z. Xiang, "Jolteon and Ditto: network-adaptive
efficient consensus with asynchronous fallback", FC 2022 (arXiv 2106.10362), Figure 2; details of timeout
certificates after the Diem team, "DiemBFT v4", 2021.

n >= 3f + 1 replicas. The leader of round r proposes one block on top of the highest certified block. A replica
votes once per round, to the leader of round r + 1; n - f votes are the certificate with which that leader
proposes. A certificate for a block of round r + 1 whose parent is certified in round r makes the parent final
(two-chain). A round that expires ends by a timeout certificate: replicas stop voting in it and tell all others
their highest certificate; n - f of these are proof that a block upon the highest of them breaks no commit.

Safe: two certificates share a correct replica. Two certified blocks in rounds r and r + 1 mean that f + 1 correct
replicas knew the certificate of r when they voted in r + 1. A later proposal rests on the round before, or on a TC
whose n - f reports include one of theirs, and then on a certificate of r or higher: so it extends the final block.
Live from when delays are bounded: timeouts go to all, so a round that f + 1 correct replicas give up ends for all,
and the leader of the next proposes what all may vote for. Two correct leaders in a row decide.

paper                     here
-----                     ----
r_cur, r_vote             view, voted_view
qc_high                   high
B.qc, B.r                 block.body, block.view
tc                        TC; `tc` is the one by which the present view was entered
L_r                       leader_of(r)
Propose                   propose
Vote                      on_proposal, may_vote
Lock                      learn, update (one-chain: the highest certificate seen)
Commit                    commits(qc)
Advance round             certify, learn, advance
Timer and timeout         on_timeout, on_timeouts
round                     view

Deviations
* A TC holds, as in DiemBFT v4, the highest rounds that its signers reported, not their certificates. It costs what a
  certificate of as many signers does, though they sign different rounds: one threshold signature could not say that.
* A replica joins the timeout of a round upon f + 1 others (DiemBFT v4), and repeats its own, with the TC by which
  it came, each time its timer expires again: the paper's links lose nothing.
* A replica that votes stays in its view, as in the paper, until it sees a certificate for it: a crashed leader costs
  two timeouts, one in the view before its own, whose votes it lost.
* The timer doubles with each expiry up to a bound, until the next commit; the paper leaves it open.
* A proposal across a gap is voted for upon its TC alone, as in the paper; there is no other unlocking rule.
* Last vote with its block, round and highest certificate are on disk before a vote or a timeout leaves.

Not modelled: Ditto's asynchronous fallback, leaders chosen by reputation, dissemination of transactions ahead
of consensus, the execution results that Diem's votes carry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from sim.families.chained.certified import NOBODY, CertifiedChain
from sim.families.chained.tree import HEADER_BYTES, QC, Blocks, Fetch
from sim.families.chained.views import TurnParameters, every_vote_counts, few_leaders
from sim.parameters import count
from sim.protocol import (
    NO_PROGRESS,
    Ballot,
    Block,
    Context,
    FastPath,
    Message,
    NormalCase,
    Signing,
    Step,
    VoteType,
    invariant,
    upon,
)

ROUND_BYTES = 8


class JolteonParameters(TurnParameters):
    """Parameters of Jolteon."""

    leader_views: int = count(1, "views in a row that each leader leads, round robin", low=1)


@dataclasses.dataclass(frozen=True, slots=True)
class TC:
    """A timeout certificate: n - f replicas gave up this view; their highest certificate is of `high_view`."""

    view: int
    high_view: int
    signatures: int

    def size_bytes(self, signing: Signing) -> int:
        """View, signatures, and the round that each signer reported."""
        return HEADER_BYTES + signing.certificate_bytes(self.signatures) + self.signatures * ROUND_BYTES


def _sizes(signing: Signing, *certificates: QC | TC | None) -> int:
    return HEADER_BYTES + sum(one.size_bytes(signing) for one in certificates if one is not None)


def _signers(*certificates: QC | TC | None) -> tuple[int, ...]:
    return tuple(one.signatures for one in certificates if one is not None)


@dataclasses.dataclass(frozen=True, slots=True)
class Proposal(Message):
    """[id, qc, tc, r, v, txn]: the block; its certificate is block.body; `tc` if the view before expired."""

    view: int
    block: Block
    tc: TC | None

    def size_bytes(self, signing: Signing) -> int:
        return self.block.bytes + _sizes(signing, self.block.body, self.tc)

    def certificates(self) -> tuple[int, ...]:
        return _signers(self.block.body, self.tc)

    def carries(self) -> Block:
        return self.block


@dataclasses.dataclass(frozen=True, slots=True)
class Timeout(Message):
    """<r, qc_high>: the sender votes in this view no more; `tc` shows how it came to it."""

    view: int
    high: QC
    tc: TC | None

    def size_bytes(self, signing: Signing) -> int:
        return ROUND_BYTES + _sizes(signing, self.high, self.tc)

    def certificates(self) -> tuple[int, ...]:
        return _signers(self.high, self.tc)


@dataclasses.dataclass(frozen=True, slots=True)
class Advance(Message):
    """To the leader of the view that the sender enters by a timeout certificate."""

    tc: TC
    high: QC

    def size_bytes(self, signing: Signing) -> int:
        return _sizes(signing, self.high, self.tc)

    def certificates(self) -> tuple[int, ...]:
        return _signers(self.high, self.tc)


VOTE = VoteType("VOTE", HEADER_BYTES, unique="view")


class Jolteon(CertifiedChain):
    """One replica of Jolteon."""

    messages = (Proposal, Timeout, Advance, Fetch, Blocks)
    votes = (VOTE,)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.voted_view = 0  # voted in it or gave it up
        self.voted: Block | None = None  # the last block voted for: others may certify it after a crash
        self.tc: TC | None = None
        self.certified: QC | None = None  # formed here; its block or an ancestor is missing
        self.timeouts: dict[int, Timeout] = {}  # replica -> its latest
        self.timeout_ns: int = self.parameters.view_timeout_ns

    # --- rules: what a mutant or a variant overrides -----------------------------------------------------

    def leader_of(self, view: int) -> int:
        """L_r: round robin."""
        views: int = self.parameters.leader_views
        later: int = self.parameters.steps_to(1 // views)
        return (view // views + later) % self.context.n

    def may_vote(self, block: Block, tc: TC | None) -> bool:
        """Vote: once per view, and upon the view before or upon what its timeout certificate allows."""
        above: int = block.body.view
        allowed = block.view == above + 1 or (tc is not None and block.view == tc.view + 1 and above >= tc.high_view)
        return block.view > self.voted_view and allowed

    def commits(self, justify: QC) -> Block | None:
        """Two-chain: the block that this certificate makes final, if it and its child have consecutive views."""
        one = justify.block
        if one is None or justify.view != one.body.view + 1:
            return None
        zero: Block | None = one.body.block
        return zero

    def normal_cases(self) -> tuple[NormalCase, ...]:
        return (NormalCase(upon=Proposal, votes=(Step(VOTE, to_all=False),)),)

    @invariant("votes are not for views to come")
    def votes_are_past(self) -> bool:
        """Of this view at most."""
        return self.voted_view <= self.view

    @invariant("the highest certificate is not of a view to come")
    def high_is_past(self) -> bool:
        """A certificate takes the replica to the next view."""
        return self.high.view <= self.view

    def abstract_state(self) -> tuple[int, int]:
        """Decided height, and the block of the highest certificate."""
        return self.context.height, 0 if self.high.block is None else self.high.block.number

    @staticmethod
    def known_weakness(
        kind: str, *, sizes: Collection[int], gone: Collection[int], lying: bool, lossy: bool,
        parameters: Mapping[str, Any],
    ) -> str:  # fmt: skip
        lost = every_vote_counts(kind, sizes, gone, lossy=lossy, parameters=parameters)
        return lost or few_leaders(kind, sizes, gone, leaders=3, views=int(parameters.get("leader_views", 1)))

    # --- what is on disk, and what the fast path did meanwhile -------------------------------------------

    def recall(self, stable: dict[str, Any]) -> None:
        self.view, self.voted_view = stable["view"], stable["voted_view"]
        self.high, self.tc = stable["high"], stable["tc"]
        self.voted = stable["voted"]
        for block in (self.voted, self.high.block):
            self.tree.hold(block)

    def watch(self) -> None:
        self.context.clock.watch_progress(self.timeout_ns)

    def absorb_fast_path(self) -> None:
        """Catch up with the fast path.

        There every proposal certifies the block accepted just before it, in consecutive views: view, vote and
        certificate are plain functions of the last block; what is final, the fast path has decided.
        """
        block = self.context.fast_path.block()
        if block is None or block.view <= self.voted_view:
            return
        self.voted_view, self.voted, self.view, self.tc = block.view, block, block.view, None
        self.tree.renew(block)
        self.update(block.body)
        self.save()

    def guard(self) -> int | None:
        """The block voted for last, if the state is a plain function of it.

        That is: nothing was learnt since, nothing is missing, no other branch is open, the view is not given up, and
        no back-off is in force.
        """
        block, gave_up = self.voted, self.timeouts.get(self.context.me)
        if self.orphan is not None or self.certified is not None or self.tc is not None:
            return None
        if self.timeout_ns != self.parameters.view_timeout_ns or (gave_up and gave_up.view >= self.view):
            return None
        if block is None:  # who gave up the first view before a crash does not vote in it afterwards
            return self.genesis_guard if self.is_fresh() and self.voted_view == 0 else None
        plain = self.voted_view == self.view == block.view and self.high == block.body
        return block.number if plain and len(self.tree) == block.height - self.context.height else None

    def save(self) -> None:
        """Stable storage: what must not be forgotten."""
        self.context.disk.persist(
            view=self.view, voted_view=self.voted_view, voted=self.voted, high=self.high, tc=self.tc
        )

    # --- Propose -----------------------------------------------------------------------------------------

    def propose(self) -> None:
        """B extends the block of qc_high; with the timeout certificate if the view before has none."""
        context, view, justify = self.context, self.view, self.high
        block = self.extend(justify.block, justify)
        before = 0 if justify.block is None else justify.block.number
        context.propose(
            Proposal(view, block, self.tc),
            context.votes.ballot(view, block.height, block),
            FastPath(
                before=before if self.tc is None else NOBODY,
                after=block.number,
                to=self.leader_of(view + 1),
                decided=self.commits(justify),
            ),
        )
        self.accept(block, self.tc)

    # --- Vote --------------------------------------------------------------------------------------------

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
            self.accept(block, message.tc)
            self.resume()

    def valid(self, sender: int, message: Proposal) -> bool:
        """The right leader, a certificate for the parent from an earlier view, and a right TC if there is one."""
        tc = message.tc
        return super().valid(sender, message) and (tc is None or (tc.view == message.view - 1 and self.valid_tc(tc)))

    def valid_tc(self, tc: TC) -> bool:
        """n - f signatures."""
        return tc.signatures >= self.quorum()

    def accept(self, block: Block, tc: TC | None) -> None:
        """Advance to the view of this block; vote, to the next leader, if the rule allows; lock and commit."""
        context, view = self.context, block.view
        self.view, self.tc = view, tc
        context.clock.made_progress()
        if self.may_vote(block, tc):
            self.voted_view, self.voted = view, block
            self.save()
            context.vote(VOTE, context.votes.ballot(view, block.height, block), to=self.leader_of(view + 1))
        self.update(block.body)
        self.save()

    # --- Lock, Commit, Advance round ---------------------------------------------------------------------

    @upon(VOTE)
    def on_votes(self, ballot: Ballot) -> None:
        """n - f votes for the block of the view before: a certificate."""
        self.certify(QC(ballot.view, ballot.block, self.quorum()))

    def certify(self, justify: QC) -> None:
        """A certificate was formed here. Once its block is here: lock, commit, advance, propose."""
        if self.tree.lacks(justify.block):
            self.certified = justify
        else:
            self.learn(justify, None)

    def learn(self, justify: QC, sender: int | None) -> None:
        """A certificate, not as part of a new proposal: lock and commit; advance if it is of this view or above."""
        if justify.view <= self.high.view or not self.is_here(justify, sender):
            return
        self.update(justify)
        view = justify.view + 1
        if view >= self.view:
            self.view, self.tc = view, None
            self.context.clock.made_progress()
            if self.leader_of(view) == self.context.me:
                self.lead(view)
        self.save()

    def update(self, justify: QC) -> None:
        """Lock and Commit."""
        if justify.view > self.high.view:
            self.high = justify
        final = self.commits(justify)
        if final is not None and final.height > self.context.height:
            self.tree.commit(final)
            if self.timeout_ns != self.parameters.view_timeout_ns:
                self.timeout_ns = self.parameters.view_timeout_ns
                self.context.clock.watch_progress(self.timeout_ns)

    # --- Timer and timeout -------------------------------------------------------------------------------

    @upon(NO_PROGRESS)
    def on_timeout(self) -> None:
        """The view expired: stop voting in it, and tell all."""
        mine = self.timeouts.get(self.context.me)
        if mine is None or mine.view < self.view:
            self.timeout_ns = min(2 * self.timeout_ns, self.parameters.view_timeout_max_ns)
        self.give_up(self.view)

    def give_up(self, view: int) -> None:
        """Vote in this view no more; tell all the highest certificate."""
        context = self.context
        self.view = view
        self.voted_view = max(self.voted_view, view)
        self.save()
        context.clock.watch_progress(
            self.parameters.view_timeout_ns
        )  # then again: patience grows with views that were tried
        message = Timeout(view, self.high, self.tc)
        context.broadcast(message)
        self.timeouts[context.me] = message
        self.on_timeouts()

    @upon(Timeout)
    def on_timeout_message(self, sender: int, message: Timeout) -> None:
        """Learn what it carries: a certificate, a TC, and that the sender has given up this view."""
        tc = message.tc
        if not self.valid_certificate(message.high, message.view) or (tc and not self.valid_tc(tc)):
            return
        known = self.timeouts.get(sender)
        if known is None or message.view >= known.view:
            self.timeouts[sender] = message
        self.learn(message.high, sender)
        if tc is not None:
            self.advance(tc)
        self.on_timeouts()

    def on_timeouts(self) -> None:
        """f + 1 replicas gave up this view or a later one: so do I. n - f gave up the same: a timeout certificate."""
        views = sorted((one.view for one in self.timeouts.values() if one.view >= self.view), reverse=True)
        mine = self.timeouts.get(self.context.me)
        if len(views) > self.f:
            view = views[self.f]
            if mine is None or mine.view < view:
                self.tc = self.tc if view == self.view else None
                self.give_up(view)
                return
        same = [one.high.view for one in self.timeouts.values() if one.view == self.view]
        if len(same) >= self.quorum():
            self.advance(TC(self.view, max(same), len(same)))
        self.demand_less()

    def demand_less(self) -> None:
        """A timeout certificate that asks for a certificate which its maker keeps to itself is no use to a leader.

        n - f timeouts of the same view that ask for no more than the leader has make another one.
        """
        tc = self.tc
        if tc is None or tc.high_view <= self.high.view or self.leader_of(self.view) != self.context.me:
            return
        views = [one.high.view for one in self.timeouts.values() if one.view == tc.view]
        met = [view for view in views if view <= self.high.view]
        if len(met) >= self.quorum():
            self.tc = TC(tc.view, max(met), len(met))
            self.save()
            self.lead_after_timeouts()

    @upon(Advance)
    def on_advance(self, sender: int, message: Advance) -> None:
        """The view before is over by a timeout certificate."""
        tc = message.tc
        if self.valid_tc(tc) and self.valid_certificate(message.high, tc.view + 1):
            self.learn(message.high, sender)
            self.advance(tc)

    def advance(self, tc: TC) -> None:
        """Advance round by a timeout certificate, and show it to the leader of the next."""
        context, view = self.context, tc.view + 1
        if view > self.view:
            self.view, self.tc = view, tc
            self.save()
            context.enter_view(view)
            context.clock.watch_progress(self.timeout_ns)
            leader = self.leader_of(view)
            if leader != context.me:
                context.send(leader, Advance(tc, self.high))
        self.lead_after_timeouts()
        self.demand_less()

    def lead_after_timeouts(self) -> None:
        """The leader proposes once it has a certificate as high as the timeout certificate demands."""
        tc = self.tc
        if tc is not None and self.leader_of(self.view) == self.context.me and self.high.view >= tc.high_view:
            self.lead(self.view)

    # --- what waited for blocks --------------------------------------------------------------------------

    def apply(self, block: Block) -> None:
        """Its certificate ends the view before, whatever the certificate of the answer is: senders may understate."""
        self.update(block.body)
        if block.body.view >= self.view:
            self.view, self.tc = block.body.view + 1, None

    def resume(self) -> None:
        orphan, certified = self.adopted(), self.certified
        if orphan is not None:
            self.accept(orphan.block, orphan.tc)
        if certified is not None and not self.tree.lacks(certified.block):
            self.certified = None
            self.learn(certified, None)
        self.lead_after_timeouts()
