"""Kauri: HotStuff over trees.

R. Neiheiser, M. Matos, L. Rodrigues, "Kauri: Scalable BFT Consensus with Pipelined Tree-Based Dissemination and
Aggregation", SOSP 2021 (doi 10.1145/3477132.3483584).

n >= 3f + 1 replicas. The leader is the root of a tree: blocks travel from parent to children, votes back, aggregated at
each inner node. A round is twice as high as a star's for each level, so the leader has several blocks under way: a
block carries the certificate of one some places before it, not of its parent. Three certificates in a row along these
links, in one view, make a block final, as in HotStuff. If nothing becomes final, the view ends and the next tree is
tried: inner nodes come from disjoint bins of replicas, so that with fewer faults than bins some tree has none inside;
when all bins were tried, stars follow, each replica as its centre.

Safe as chained HotStuff is: the same votes, locks and three-chain, along the links of certificates; that votes travel
up a tree changes who sees them, not what n - f of them mean.
Live if fewer voters are at fault than there are bins, or a star has a correct centre, from when delays are bounded:
wishes of a quorum bring all into one tree, and patience doubles until three certificates fit in.

paper                          here
-----                          ----
tree, root, fanout             tree_of(view): order and fanout; place 0; parameter fanout
bins B_1 ... B_t               `bins`: the inner places of tree k are replicas k * inner ... (k + 1) * inner - 1
star fallback                  tree_of(view) once all bins were tried
BroadcastMsg, relay            Proposal, propose, on_proposal
WaitFor, aggregate             Shares, collect
impatient channel (Delta)      AGGREGATE_TIMER
pipelining stretch             parameter pipeline: 1 + stretch blocks without certificate
prepareQC, lockedQC            high, locked
NEW-VIEW                       sim.families.chained.views, with WISH

Deviations
* A block's phases are those of chained HotStuff, carried by later blocks of the same view, in a window: a new block is
  sent when a certificate makes room, not at computed instants.
* The root makes empty blocks until a proposal has told everybody that the last transactions are final.
* A replica votes for blocks of a view in order of height, each extending the one before.
* An inner node sends what it has when its children are complete or its patience ends, and again what comes late.
* Voters below a crashed inner node follow by Fetch, once a timeout, while the rest has a quorum.
* The paper leaves timer and view synchronisation open: patience doubles with each expiry, until a commit, and nobody
  leaves a tree alone. A quorum of WISH moves all together (sim.families.chained.views), for a view in which all n - f
  survivors are needed must be theirs long enough. A root alone is no progress: the timer runs on until a block is
  final.
* Whoever is alone with its wish after two timeouts passes what its clients wait for to all.
* Each hop is signed by its sender.
* Channels are perfect in the paper (section 3), so nothing is sent twice. Links that lose messages for good (`links:
  datagram`) break trees: with 5 % of loss and f of nine crashed, one view in some dozens decides. With 16 blocks
  under way, six voters and nobody crashed, none did in two minutes (campaign, kauri 41 54).

Not modelled: choice of fan-out and stretch from measured bandwidth, other orders of replicas within a bin.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from sim.families.chained.certified import NOBODY, PacedChain
from sim.families.chained.tree import GENESIS, HEADER_BYTES, QC, Blocks, Fetch, Proposal, extends
from sim.families.chained.views import PROPOSE_TIMER, NewView, ViewParameters
from sim.parameters import Nanoseconds, count, quantity
from sim.protocol import Aggregate, Block, Context, FastPath, Message, NormalCase, Signing, Timer, Tree, invariant, upon

_SHORT = 8  # blocks under way, with which three certificates in a row come through losses


class KauriParameters(ViewParameters):
    """Parameters of Kauri."""

    fanout: int | None = count(
        None, "children of an inner node; by default the least with which the tree has two levels", low=1
    )
    pipeline: int = count(3, "blocks under way without a certificate: 1 and the stretch", low=1)
    aggregation_timeout_ns: Nanoseconds = quantity(
        "200 ms",
        "how long an inner node waits for its children, for each level below it",
        positive=True,
        patience=True,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Shares(Message):
    """From child to parent: votes of so many replicas of the child's subtree, aggregated."""

    block: Block
    signers: int

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES + (signing.certificate_bytes(self.signers) if self.signers > 1 else 0)

    def certificates(self) -> tuple[int, ...]:
        return (self.signers,) if self.signers > 1 else ()


def rank(qc: QC) -> tuple[int, int]:
    """Certificates are ordered by view, then by height."""
    return qc.view, 0 if qc.block is None else qc.block.height


AGGREGATE_TIMER = Timer("aggregate")


class Kauri(PacedChain):
    """One replica of Kauri."""

    messages = (Proposal, Shares, NewView, Fetch, Blocks)
    votes = ()  # they travel as messages
    lasting_leader = True
    progress = "waiting"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        n, fanout = context.n, self.parameters.fanout
        if fanout is None:
            fanout = next(m for m in range(1, n + 1) if 1 + m + m * m >= n)
        self.fanout: int = min(fanout, max(n - 1, 1))
        self.inner = -(-(n - 1) // self.fanout)
        self.bins = n // max(self.inner, 1)
        self.voted: Block | None = None
        self.locked = GENESIS
        self.tip: Block | None = None  # the last block this root has proposed in its view
        self.pause = 0  # timer: the next block is due
        self.leading = 0  # the view it proposes in
        self.told = 0  # height up to which its proposals of this view have told what is final
        self.early: dict[int, tuple[int, Proposal]] = {}  # proposals by height whose ancestors are missing
        self.shares: dict[int, dict[int, int]] = {}  # block -> child or me -> votes of its subtree
        self.passed: dict[int, int] = {}  # block -> votes passed on to the parent
        self.trees: dict[int, Tree] = {}  # by view, as they are asked for

    @staticmethod
    def check(parameters: KauriParameters, voters: int) -> None:
        """Raise ValueError if the parameters do not fit the number of voters."""
        parameters.check(voters)
        if voters < 2:
            raise ValueError(f"{voters} voter: a tree of one voter reaches nobody; take at least 2 voters")

    # --- rules: what a mutant or a variant overrides -----------------------------------------------------

    def tree_of(self, view: int) -> Tree:
        """A tree with inner nodes from one bin after the other, then stars around one replica after the other."""
        if view not in self.trees:
            n, k, later = self.context.n, (view - 1) % (self.bins + self.context.n), self.parameters.steps_to(0)
            binned = k < self.bins
            first, fanout = (k * self.inner, self.fanout) if binned else (k - self.bins, n - 1)
            self.trees[view] = Tree(n, (first + later) % n, fanout)
        return self.trees[view]

    def leader_of(self, view: int) -> int:
        """The root."""
        return self.tree_of(view).first

    def alone(self) -> int:
        """Never: a view lasts, and who is cut off from its root must not leave those who are not."""
        return 0

    def safe_node(self, block: Block) -> bool:
        """It extends the locked block (safety rule), or its certificate is above the lock (liveness rule)."""
        return rank(block.body) > rank(self.locked) or extends(block, self.locked.block)

    def may_vote(self, block: Block) -> bool:
        """In order of height within a view, along one branch; never back."""
        last = self.voted
        if block.view != self.view or not self.safe_node(block):
            return False
        if last is None or block.view > last.view:
            return True
        return block.view == last.view and block.height > last.height and extends(block, last)

    def locks(self, qc: QC) -> QC | None:
        """Two certificates in a row, in one view."""
        one: QC | None = None if qc.block is None else qc.block.body
        return one if one is not None and one.view == qc.view else None

    def commits(self, qc: QC) -> Block | None:
        """Three certificates in a row, in one view: the block that the first is about."""
        one = self.locks(qc)
        zero = None if one is None else self.locks(one)
        return None if zero is None else zero.block

    def normal_cases(self) -> tuple[NormalCase, ...]:
        patience_ns = self.parameters.aggregation_timeout_ns
        return (NormalCase(Proposal, aggregate=Aggregate(Shares, self.quorum(), AGGREGATE_TIMER, patience_ns)),)

    @staticmethod
    def known_weakness(
        kind: str, *, sizes: Collection[int], gone: Collection[int], lying: bool, lossy: bool,
        parameters: Mapping[str, Any],
    ) -> str:  # fmt: skip
        long = int(parameters.get("pipeline", 3)) > _SHORT  # three certificates in a row are so many blocks in a row
        few = kind == "liveness" and lossy and (len(gone) > 0 or long)
        return "its channels are perfect (section 3): a tree cut by losses waits for the next" if few else ""

    @staticmethod
    def message_of(block: Block) -> Proposal:
        return Proposal(block.view, block)

    @invariant("the lock is no higher than the highest certificate")
    def lock_is_known(self) -> bool:
        """Locks come from certificates seen."""
        return rank(self.locked) <= rank(self.high)

    def abstract_state(self) -> tuple[int, ...]:
        """As for chained HotStuff: decided height, and where lock, highest certificate and view are to each other."""
        lock, high = (0 if qc.block is None else qc.block.height for qc in (self.locked, self.high))
        return self.context.height, high - lock, self.view - self.high.view

    # --- what is on disk, and what the fast path did meanwhile -------------------------------------------

    def recall(self, stable: dict[str, Any]) -> None:
        self.view, self.voted = stable["view"], stable["voted"]
        self.high, self.locked = stable["high"], stable["locked"]
        for block in (self.voted, self.high.block, self.locked.block):
            self.tree.hold(block)

    def watch(self) -> None:
        super().watch()
        self.context.clients.follow(self.leader_of(self.view))

    def absorb_fast_path(self) -> None:
        """Catch up with the fast path.

        There blocks of one view are accepted in order: vote, lock and certificate are plain functions of the last.
        Proposals that overtook others wait there as they do here.
        """
        block, last = self.context.fast_path.block(), self.voted
        if block is not None and (last is None or (block.view, block.height) > (last.view, last.height)):
            self.voted = block
            self.tree.renew(block)
            self.update(block.body)
            self.save()
        for sender, message in self.context.fast_path.buffered():
            assert isinstance(message, Proposal)
            self.tree.add(message.block)
            self.early[message.block.height] = (sender, message)

    def guard(self) -> int | None:
        """The block voted for last, if the state is a plain function of it: nothing learnt since, nothing missing."""
        block = self.voted
        if self.early or not self.pacemaker.is_quiet:
            return None
        if block is None:
            return self.genesis_guard if self.is_fresh() else None
        plain = block.view == self.view and self.high is block.body
        return block.number if plain and len(self.tree) == block.height - self.context.height else None

    def save(self) -> None:
        """Stable storage: what must not be forgotten."""
        self.context.disk.persist(view=self.view, voted=self.voted, high=self.high, locked=self.locked)

    # --- the root: several blocks under way --------------------------------------------------------------

    def lead(self, view: int) -> None:
        """Propose in this view, upon the highest certificate."""
        if self.leading < view:
            self.leading = view
            self.tip = self.high.block
            self.told = 0  # of this view: others may lack what the last root made final
            self.pump()

    def on_due(self, view: int | None = None) -> None:
        self.pump()

    on_waited = on_due

    def pump(self) -> None:
        """Propose while the pipeline has room and there is something to order or to drive forward."""
        context = self.context
        while self.leading == self.view and self.room() > 0:
            due = context.pacing.await_batch()
            if not due:
                if not self.is_to_tell() and not any(block.txs for block in self.tree.undecided(self.tip)):
                    return  # BATCH will come
                wait = self.turn.interval_left_ns()
                if wait > 0:
                    context.cancel(self.pause)  # or each reason to look would add one, and they would never be fewer
                    self.pause = context.set_timer(PROPOSE_TIMER, wait, self.view)
                    return
            self.propose()

    def is_to_tell(self) -> bool:
        """Whether transactions are final here and no proposal has said so: the others would wait for the next one."""
        heights = range(self.context.height, self.told, -1)
        return any(block is not None and block.txs for block in map(self.context.chain.decided, heights))

    def room(self) -> int:
        """How many blocks may follow the last one before a certificate comes."""
        certified = 0 if self.high.block is None else self.high.block.height
        tip = 0 if self.tip is None else self.tip.height
        return int(self.parameters.pipeline) - (tip - certified)

    def propose(self) -> None:
        """A block upon the last one, with the highest certificate: to the children in the tree."""
        context, justify, tip = self.context, self.high, self.tip
        block = self.tip = self.extend(tip, justify)
        final = self.commits(justify)
        self.told = max(self.told, 0 if final is None else final.height)
        first = self.view == 1 if tip is None else tip.view == self.view
        before = 0 if tip is None else tip.number
        context.propose(
            Proposal(self.view, block),
            context.votes.ballot(self.view, block.height, block),
            FastPath(
                before=before if first else NOBODY,
                after=block.number,
                decided=final,
                requires=justify.block,
            ),
            tree=self.tree_of(self.view),
        )
        self.accept(block)

    # --- dissemination -----------------------------------------------------------------------------------

    @upon(Proposal)
    def on_proposal(self, sender: int, message: Proposal) -> None:
        """A block from the parent in the tree of its view."""
        block = message.block
        if block.height <= self.context.height or not self.valid(sender, message):
            return
        if block.number in self.tree.blocks and not self.may_vote(block):
            return  # the same once more
        self.tree.add(block)
        if self.tree.lacks(block):
            self.early[block.height] = (sender, message)
            if self.tree.lacks(block.body.block):
                self.fetch(sender, block.body)
        else:
            self.accept(block)
            self.resume()

    def valid(self, sender: int, message: Proposal) -> bool:
        """From its parent, and with a certificate for an ancestor."""
        block, justify = message.block, message.block.body
        return (
            sender == self.tree_of(message.view).parent(self.context.me)
            and block.view == message.view
            and block.proposer == self.leader_of(message.view)
            and self.valid_body(block)
            and extends(block, justify.block)
        )

    def valid_certificate(self, certificate: object, before: tuple[int, int]) -> bool:
        """n - f signatures for a block, ranked below this view and height."""
        if not isinstance(certificate, QC) or rank(certificate) >= before:
            return False
        return super().valid_certificate(certificate, before[0] + 1)

    def valid_body(self, block: Block) -> bool:
        return self.valid_certificate(block.body, (block.view, block.height))

    def valid_new_view(self, message: NewView) -> bool:
        return self.valid_certificate(message.justify, (message.view + 1, 0))

    def accept(self, block: Block) -> None:
        """Relay to the children; vote if the block is safe; apply the certificate it carries."""
        context = self.context
        if block.view > self.view:
            self.move(block.view)
        tree = self.tree_of(block.view)
        children = () if tree.first == context.me else tree.children(context.me)
        if children:
            context.send(children, Proposal(block.view, block))
        if self.may_vote(block):
            self.voted = block
            self.save()
            for below in self.tree.undecided(block):  # a vote for a block is one for all below it
                if below.txs:
                    context.chain.await_decision(below)
                    break
            self.shares.setdefault(block.number, {})[context.me] = 1
        self.update(block.body)
        self.save()
        self.collect(block)
        if children:
            _, levels = tree.below(context.me)
            context.set_timer(AGGREGATE_TIMER, levels * self.parameters.aggregation_timeout_ns, block)

    # --- aggregation -------------------------------------------------------------------------------------

    @upon(Shares)
    def on_shares(self, sender: int, message: Shares) -> None:
        """Votes of a child's subtree."""
        block = message.block
        tree = self.tree_of(block.view)
        if block.number not in self.tree.blocks or tree.parent(sender) != self.context.me:
            return
        known = self.votes_for(block)
        if known.get(sender, 0) < message.signers <= tree.below(sender)[0]:
            known[sender] = message.signers
            self.collect(block)

    @upon(AGGREGATE_TIMER)
    def on_impatient(self, block: Block) -> None:
        """Children are late: pass on what is there, and from now on whatever comes."""
        if block.number in self.tree.blocks:
            self.votes_for(block)
            self.collect(block, True)

    def votes_for(self, block: Block) -> dict[int, int]:
        """What has been counted for a block here, by the fast path too."""
        known = self.shares.setdefault(block.number, {})
        known |= self.context.fast_path.aggregated(block)
        return known

    def collect(self, block: Block, impatient: bool = False) -> None:
        """All votes of my subtree, or what there is if patience has ended: to the parent, or a certificate."""
        context, tree = self.context, self.tree_of(block.view)
        votes = sum(self.shares.get(block.number, {}).values())
        if tree.first == context.me:
            if votes >= self.quorum() and block.view == self.view:
                self.certify(QC(block.view, block, self.quorum()))
            return
        before = self.passed.get(block.number, 0)
        if votes > before and (before or impatient or votes == tree.below(context.me)[0]):
            self.passed[block.number] = votes
            context.send(tree.parent(context.me), Shares(block, votes))

    def certify(self, qc: QC) -> None:
        """The root has a certificate: room for the next block."""
        if rank(qc) > rank(self.high):
            self.update(qc)
            self.save()
            self.pump()

    def update(self, qc: QC) -> None:
        """The chain rules."""
        if rank(qc) > rank(self.high):
            self.high = qc
        lock = self.locks(qc)
        if lock is not None and rank(lock) > rank(self.locked):
            self.locked = lock
        final = self.commits(qc)
        if final is not None and final.height > self.context.height:
            self.tree.commit(final)
            self.pacemaker.failures = 0
            self.pacemaker.committed()
            live = self.tree.blocks
            self.shares = {number: votes for number, votes in self.shares.items() if number in live}
            self.passed = {number: votes for number, votes in self.passed.items() if number in live}

    # --- reconfiguration ---------------------------------------------------------------------------------

    def on_timeout(self) -> None:
        """Nothing became final: the next tree. Ask the root too: perhaps only my path to it is broken.

        It may be down: whoever shows a block meanwhile can be asked at once. And tell all what waits here, as clients
        do who get no answer: the next root may have forgotten it in a crash.
        """
        self.tree.ask(self.leader_of(self.view), None, 0)
        self.context.clients.spread(range(self.context.n))
        super().on_timeout()

    def move(self, view: int) -> None:
        """Work in this view from now on."""
        self.view = view
        self.save()
        self.context.clients.follow(self.leader_of(view))

    def enter(self, view: int) -> None:
        """Enter a view by a timer, and send the highest certificate to its root."""
        self.move(view)
        self.pacemaker.enter(view, self.high, self.leader_of(view))

    def lead_after_new_views(self) -> None:
        """The root of a view proposes upon n - f NEW-VIEW messages, on their highest certificate."""
        if self.leader_of(self.view) != self.context.me:
            return
        reports = [rank(news.justify) for news in self.pacemaker.news.values() if news.view == self.view]
        if len(reports) >= self.quorum() and max(reports) <= rank(self.high):
            self.lead(self.view)

    def learn(self, certificate: QC, sender: int | None) -> None:
        """A certificate, not as part of a new proposal: apply it once its block is here."""
        if rank(certificate) <= rank(self.high) or not self.is_here(certificate, sender):
            return
        self.update(certificate)
        self.save()

    # --- what waited for blocks --------------------------------------------------------------------------

    def apply(self, block: Block) -> None:
        self.update(block.body)

    def resume(self) -> None:
        """Take up what waited for blocks, in order of height."""
        for height in sorted(self.early):
            block = self.early[height][1].block
            if height <= self.context.height:
                del self.early[height]
            elif not self.tree.lacks(block):
                del self.early[height]
                self.accept(block)
        self.lead_after_new_views()
