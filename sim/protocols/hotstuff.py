"""Chained HotStuff with the three-chain commit rule.

M. Yin, D. Malkhi, M. K. Reiter, G. Golan Gueta, I. Abraham, "HotStuff: BFT consensus with linearity and
responsiveness", PODC 2019 (arXiv 1803.05069): Algorithm 3 (chained), pacemaker after Algorithms 4 and 5.

n >= 3f + 1 replicas. The leader of view v proposes one node b* that extends the highest certified node and
carries its certificate (b*.justify). A replica for which `safeNode` holds votes once per view, to the leader
of view v + 1; n - f votes are the certificate with which that leader proposes. Every node is a phase of its
ancestors: with b'' = b*.justify.node, b' = b''.justify.node, b = b'.justify.node, each the *direct* parent of
the one before, b*.justify is the generic certificate (one-chain), b''.justify the lock (two-chain), and b is
final (three-chain).

paper                     here
-----                     ----
curView                   view
vheight                   voted_view
genericQC, lockedQC       high, locked
LEADER(v)                 leader_of(v): v mod n
b.justify, b.parent       block.body, block.parent
safeNode(node, qc)        safe_node(block)
QC                        QC; its n - f signatures are listed, not combined
nextView, onNextSyncView  on_timeout, enter
n - f NEW-VIEW messages   lead_after_new_views

Dummy nodes. The paper fills skipped views with dummy nodes so that a node's height is its view. Here a gap
between block.view and block.parent.view stands for them, and `Block.height` counts real blocks. So
"b.parent = b'" reads "b'.view = b.view - 1", and neither locks nor commits reach across a gap.

Deviations
* `high` is the highest certificate seen (qc_high of Algorithm 4), also across a gap; locks and commits follow
  Algorithm 3. The leader that forms a certificate applies the rules at once, before it proposes.
* The paper leaves the pacemaker open. Here a replica whose view expires doubles its patience (until the next
  commit) and sends NEW-VIEW with `high` to the leader of the next view, which proposes upon n - f of them. A
  proposal or certificate of a higher view, or NEW-VIEW of f + 1 replicas above, draw a replica forward. After
  f + 1 expiries in a row, more than crashed leaders explain, it sends NEW-VIEW to all and goes on only when
  n - f replicas are known to have come as far: so replicas apart meet again, however long their timers are.
* A proposal across a gap carries no proof that n - f replicas left the skipped views: `safeNode` judges it.
* A proposal of a view that the replica has left gets no vote.
* A transaction waits where its client sent it until that replica leads, unless the scenario spreads it.
* Vote and lock are on disk before a vote leaves. A restarted replica knows them, and asks for what it missed.

Not modelled: threshold signatures (a certificate is a list), dissemination of transactions ahead of
consensus, leaders chosen by reputation.
"""

from __future__ import annotations

import dataclasses

from sim.parameters import Nanoseconds, Parameters, count, quantity
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
    upon,
)

HEADER_BYTES = 48  # type, view, height, sender, digest (32)
FETCH_MAX = 128  # blocks per answer to a Fetch
NOBODY = -2  # a guard that no replica's lane number meets


class HotStuffParameters(Parameters):
    """Parameters of chained HotStuff."""

    view_timeout_ns: Nanoseconds = quantity(
        "2 s", "how long a replica waits in a view at first", positive=True
    )
    view_timeout_max_ns: Nanoseconds = quantity(
        "30 s", "the wait doubles with each expiry up to this, until a commit"
    )
    min_block_delay_ns: Nanoseconds = quantity(
        "0 ms", "least wait of a leader between certificate and proposal"
    )
    empty_block_delay_ns: Nanoseconds = quantity(
        "0 ms",
        "how long a leader waits for a transaction while nothing is under way; 0: empty blocks at once",
    )
    faults: int | None = count(
        None, "f: Byzantine replicas tolerated; by default the most that n allows", low=0
    )


@dataclasses.dataclass(frozen=True, slots=True)
class QC:
    """A quorum certificate: n - f signatures of votes for a block in a view."""

    view: int
    block: Block | None  # None: the genesis node
    signatures: int

    def size_bytes(self, signing: Signing) -> int:
        """View, digest and signatures."""
        return HEADER_BYTES + signing.certificate_bytes(self.signatures)


GENESIS = QC(0, None, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class Proposal(Letter):
    """<GENERIC, curView, b*>: the block; its certificate is block.body."""

    view: int
    block: Block

    def size_bytes(self, signing: Signing) -> int:
        justify: QC = self.block.body
        return HEADER_BYTES + self.block.bytes + justify.size_bytes(signing)

    def certificates(self) -> tuple[int, ...]:
        justify: QC = self.block.body
        return (justify.signatures,)

    def carries(self) -> Block:
        return self.block


@dataclasses.dataclass(frozen=True, slots=True)
class NewView(Letter):
    """<NEW-VIEW, view, genericQC>: the sender enters the view without a certificate of the one before."""

    view: int
    justify: QC

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES + self.justify.size_bytes(signing)

    def certificates(self) -> tuple[int, ...]:
        return (self.justify.signatures,)


@dataclasses.dataclass(frozen=True, slots=True)
class Fetch(Letter):
    """Send me the blocks above this height up to the certified one (None: up to your highest certificate)."""

    justify: QC | None
    height: int
    decides = False

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES


@dataclasses.dataclass(frozen=True, slots=True)
class Blocks(Letter):
    """The answer: a piece of the chain below the certificate, in order of height."""

    justify: QC
    blocks: tuple[Block, ...]
    decides = False

    def size_bytes(self, signing: Signing) -> int:
        inside: int = sum(block.bytes + block.body.size_bytes(signing) for block in self.blocks)
        return HEADER_BYTES + self.justify.size_bytes(signing) + inside

    def certificates(self) -> tuple[int, ...]:
        return (self.justify.signatures, *(block.body.signatures for block in self.blocks))


VOTE = VoteType("VOTE", HEADER_BYTES)

PROPOSE_TIMER = Timer("propose")
EMPTY_TIMER = Timer("empty block")


class HotStuff(Replica):
    """One replica of chained HotStuff."""

    letters = (Proposal, NewView, Fetch, Blocks)
    votes = (VOTE,)
    lasting_leader = False
    progress = "always"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        parameters = self.parameters
        self.f = (context.n - 1) // 3 if parameters.faults is None else parameters.faults
        self.view = 1
        self.voted_view = 0
        self.voted: Block | None = None  # the block voted for in voted_view
        self.high = GENESIS
        self.locked = GENESIS
        self.blocks: dict[int, Block] = {}  # received and not decided here, by number
        self.orphan: Block | None = None  # proposed in the highest view so far; ancestors are missing
        self.certified: QC | None = None  # formed here; its block or an ancestor is missing
        self.news: dict[int, NewView] = {}  # replica -> its latest NEW-VIEW
        self.failures = 0  # views in a row that expired
        self.timeout_ns: int = parameters.view_timeout_ns
        self.leading = 0  # the last view this replica prepared to propose in
        self.idle_view = 0  # the view in which it waits for a transaction
        self.proposed_ns: int | None = None
        self.fetching_until_ns = 0

    @staticmethod
    def check(parameters: HotStuffParameters, voters: int) -> None:
        """Raise ValueError if the parameters do not fit the number of voters."""
        p = parameters
        f = (voters - 1) // 3 if p.faults is None else p.faults
        if voters < 2:
            raise ValueError(f"{voters} voter: votes go to the next leader; take at least 2 voters")
        if voters < 3 * f + 1:
            raise ValueError(
                f"faults {f}: needs n >= 3f + 1 = {3 * f + 1} voters, not {voters}; lower faults"
            )
        if p.view_timeout_max_ns < p.view_timeout_ns:
            raise ValueError(
                f"view_timeout_max {p.view_timeout_max_ns} ns: must not be below view_timeout "
                f"{p.view_timeout_ns} ns; raise it"
            )
        waits = p.min_block_delay_ns + p.empty_block_delay_ns
        if waits >= p.view_timeout_ns:
            raise ValueError(
                f"min_block_delay + empty_block_delay {waits} ns: must be below view_timeout "
                f"{p.view_timeout_ns} ns, or views expire; shorten them or raise view_timeout"
            )

    # --- rules: what a mutant or a variant overrides -----------------------------------------------------

    def quorum(self) -> int:
        """n - f."""
        return self.context.n - self.f

    def leader_of(self, view: int) -> int:
        """LEADER(view): round robin."""
        return view % self.context.n

    def safe_node(self, block: Block) -> bool:
        """It extends the locked block (safety rule), or its certificate is above the lock (liveness rule)."""
        locked = self.locked
        if block.body.view > locked.view or locked.block is None:
            return True
        below: Block | None = block
        while below is not None and below.height > locked.block.height:
            below = below.parent
        return below is locked.block

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

    def commits(self, view: int, justify: QC) -> Block | None:
        """Three-chain: the block that b* makes final, if b'', b' and b are direct parents each."""
        one = self.locks(view, justify)
        if one is None or one.block is None or one.block.body is None or one.view != one.block.body.view + 1:
            return None
        zero: Block | None = one.block.body.block
        return zero

    def quorums(self) -> dict[VoteType, Quorum]:
        return {VOTE: Quorum(self.quorum())}

    def normal_cases(self) -> tuple[NormalCase, ...]:
        return (NormalCase(upon=Proposal, votes=(Step(VOTE, to_all=False),)),)

    # --- start, and what the fast lane did meanwhile -----------------------------------------------------

    @property
    def view_number(self) -> int:
        self.sync()
        return self.view

    def start(self) -> None:
        context, stable = self.context, self.context.stable
        if not stable:
            self.save()
            context.lane(0)  # the genesis node is accepted
            context.watch_progress(self.timeout_ns)
            if self.leader_of(self.view) == context.me:
                self.lead(self.view)
            return
        self.view, self.voted = stable["view"], stable["voted"]
        self.high, self.locked = stable["high"], stable["locked"]
        self.voted_view = 0 if self.voted is None else self.voted.view
        for block in (self.voted, self.high.block, self.locked.block):
            self.hold(block)
        self.sync()
        context.lane(None)
        context.enter_view(self.view)
        context.watch_progress(self.timeout_ns)
        leader = self.leader_of(self.view)
        self.fetch(leader if leader != context.me else (leader + 1) % context.n, None)

    def sync(self) -> None:
        """Catch up with the fast lane.

        There every proposal certifies the block accepted just before it. Views are consecutive; view, vote
        and certificates are plain functions of the last block; what is final, the lane has decided.
        """
        block = self.context.lane_block()
        if block is None or block.view <= self.voted_view:
            return
        self.voted, self.voted_view, self.view = block, block.view, block.view + 1
        self.blocks = {}
        self.hold(block)
        self.update(block.view, block.body)
        self.save()

    def rejoin(self, block: Block) -> None:
        """Return to the fast lane if the state is a plain function of the block just accepted.

        That is: it got the vote, nothing is missing, no other branch is open, and no back-off is in force.
        """
        context = self.context
        plain = (
            self.voted is block
            and self.orphan is None
            and self.certified is None
            and self.timeout_ns == self.parameters.view_timeout_ns
            and len(self.blocks) == block.height - context.height
        )
        context.lane(block.number if plain else None)

    def save(self) -> None:
        """Stable storage: what must not be forgotten."""
        self.context.persist(view=self.view, voted=self.voted, high=self.high, locked=self.locked)

    # --- the leader: Algorithm 3, prepare phase ----------------------------------------------------------

    @upon(VOTE)
    def on_votes(self, ballot: Ballot) -> None:
        """n - f votes for the block of the view before: a certificate."""
        self.sync()
        self.certify(QC(ballot.view, ballot.block, self.quorum()))

    def certify(self, justify: QC) -> None:
        """A certificate was formed here: apply it and propose upon it. Its block must be here."""
        view = justify.view + 1
        if view < self.view:
            self.learn(justify, None)
        elif self.lacks(justify.block):
            self.certified = justify
            self.context.lane(None)
        else:
            self.view = view
            self.failures = 0
            self.context.made_progress()
            self.update(view, justify)
            self.lead(view)

    def lead(self, view: int) -> None:
        """Propose in this view as soon as delays and the block interval allow."""
        if self.leading >= view:
            return
        self.leading = view
        context = self.context
        wait = self.parameters.min_block_delay_ns
        if self.proposed_ns is not None and context.block_interval_ns:
            wait = max(wait, self.proposed_ns + context.block_interval_ns - context.now_ns)
        if wait > 0:
            context.set_timer(PROPOSE_TIMER, wait, view)
        else:
            self.on_due(view)

    @upon(PROPOSE_TIMER)
    def on_due(self, view: int) -> None:
        """The proposal is due: now, or when a transaction comes, if there is nothing to drive forward."""
        self.sync()
        if view != self.view:
            return
        patience = self.parameters.empty_block_delay_ns
        if patience and not self.under_way() and not self.context.await_batch():
            self.idle_view = view
            self.context.set_timer(EMPTY_TIMER, patience, view)
            return
        self.propose()

    @upon(BATCH, EMPTY_TIMER)
    def on_waited(self, _view: int = 0) -> None:
        """A transaction has come, or the leader has waited for one long enough."""
        self.sync()
        if self.idle_view == self.view:
            self.propose()

    def under_way(self) -> bool:
        """Whether transactions are in blocks that are not final."""
        block, decided = self.high.block, self.context.height
        while block is not None and block.height > decided:
            if block.txs:
                return True
            block = block.parent
        return False

    def propose(self) -> None:
        """b* extends the block of the highest certificate: <GENERIC, curView, b*> to all."""
        context, view, justify = self.context, self.view, self.high
        self.idle_view = 0
        self.proposed_ns = context.now_ns
        block = context.new_block(justify.block, view, empty=True)
        assert block is not None
        block.body = justify
        self.blocks[block.number] = block
        before = 0 if justify.block is None else justify.block.number
        context.propose(
            Proposal(view, block),
            context.ballot(view, block.height, block),
            guard=(before if justify.view == view - 1 else NOBODY, block.number),
            to=self.leader_of(view + 1),
            decided=self.commits(view, justify),
        )
        self.accept(block)

    # --- all replicas: Algorithm 3, pre-commit, commit and decide phases ---------------------------------

    @upon(Proposal)
    def on_proposal(self, sender: int, message: Proposal) -> None:
        """A proposal from the leader of its view, extending a certified block."""
        self.sync()
        context, block = self.context, message.block
        if block.height <= context.height or not self.valid(sender, message):
            return
        self.blocks[block.number] = block
        if message.view < self.view or message.view <= self.voted_view:
            context.lane(None)  # another branch, perhaps
            self.learn(block.body, sender)
            self.resume()
        elif self.lacks(block):
            context.lane(None)
            if self.orphan is None or block.view > self.orphan.view:
                self.orphan = block
            self.fetch(sender, block.body)
        else:
            self.accept(block)
            self.resume()

    def valid(self, sender: int, message: Proposal) -> bool:
        """The right leader, and a certificate for the parent from an earlier view."""
        block, justify = message.block, message.block.body
        return (
            sender == self.leader_of(message.view)
            and block.view == message.view
            and self.valid_certificate(justify, message.view)
            and justify.block is block.parent
        )

    def valid_certificate(self, justify: object, before: int) -> bool:
        """n - f signatures for a block, of a view before this one."""
        if not isinstance(justify, QC) or justify.view >= before:
            return False
        if justify.block is None:
            return justify.view == 0
        return justify.block.view == justify.view and justify.signatures >= self.quorum()

    def accept(self, block: Block) -> None:
        """Vote, to the next leader, if the block is safe; then apply the certificate it carries."""
        context, view = self.context, block.view
        self.failures = 0
        context.made_progress()
        if self.may_vote(block):
            self.voted, self.voted_view = block, view
            self.save()
            context.vote(VOTE, context.ballot(view, block.height, block), to=self.leader_of(view + 1))
        self.view = view + 1
        self.update(view, block.body)
        self.save()
        self.rejoin(block)

    def update(self, view: int, justify: QC) -> None:
        """The chain rules, for a node of `view` that carries this certificate."""
        if justify.view > self.high.view:
            self.high = justify
        lock = self.locks(view, justify)
        if lock is not None and lock.view > self.locked.view:
            self.locked = lock
        final = self.commits(view, justify)
        if final is not None and final.height > self.context.height:
            self.commit(final)

    def commit(self, head: Block) -> None:
        """The block and all its ancestors are final; blocks on other branches never will be."""
        context = self.context
        path: list[Block] = []
        block: Block | None = head
        while block is not None and block.height > context.height:
            path.append(block)
            block = block.parent
        for block in reversed(path):
            context.decide(block)
        kept = {}
        for number, block in self.blocks.items():
            below: Block | None = block
            while below is not None and below.height > head.height:
                below = below.parent
            if below is not head:
                if block not in path:
                    context.abandon(block)
            elif block is not head:
                kept[number] = block
        self.blocks = kept
        if self.timeout_ns != self.parameters.view_timeout_ns:
            self.timeout_ns = self.parameters.view_timeout_ns
            context.watch_progress(self.timeout_ns)

    # --- the pacemaker: Algorithms 4 and 5, and Deviations -----------------------------------------------

    @upon(NO_PROGRESS)
    def on_timeout(self) -> None:
        """nextView: the view expired."""
        self.sync()
        self.failures += 1
        self.timeout_ns = min(2 * self.timeout_ns, self.parameters.view_timeout_max_ns)
        alone = (
            self.failures > self.f
            and 1
            + sum(news.view >= self.view for replica, news in self.news.items() if replica != self.context.me)
            < self.quorum()
        )
        self.enter(self.view if alone else self.view + 1)
        self.lead_after_new_views()

    def enter(self, view: int) -> None:
        """Enter a view without a certificate of the one before, and tell its leader, or all."""
        context = self.context
        self.view = view
        self.save()
        context.lane(None)
        context.enter_view(view)
        context.watch_progress(self.timeout_ns)
        message = NewView(view, self.high)
        self.news[context.me] = message
        if self.failures > self.f:
            context.broadcast(message)
        elif self.leader_of(view) != context.me:
            context.send(self.leader_of(view), message)

    @upon(NewView)
    def on_new_view(self, sender: int, message: NewView) -> None:
        """Keep the highest certificate; follow f + 1 replicas to a higher view; lead upon n - f."""
        self.sync()
        if not self.valid_certificate(message.justify, message.view):
            return
        known = self.news.get(sender)
        if known is None or message.view >= known.view:
            self.news[sender] = message
        self.learn(message.justify, sender)
        ahead = sorted((news.view for news in self.news.values() if news.view > self.view), reverse=True)
        if len(ahead) > self.f:
            self.enter(ahead[self.f])
        self.lead_after_new_views()

    def lead_after_new_views(self) -> None:
        """The leader of a view proposes upon n - f NEW-VIEW letters, on their highest certificate."""
        if self.leader_of(self.view) != self.context.me:
            return
        reports = [news.justify.view for news in self.news.values() if news.view == self.view]
        if len(reports) >= self.quorum() and max(reports) <= self.high.view:
            self.lead(self.view)

    def learn(self, justify: QC, sender: int | None) -> None:
        """A certificate, not as part of a new proposal: keep the highest, once its block is here."""
        if justify.view <= self.high.view:
            return
        if self.lacks(justify.block):
            if sender is not None:
                self.fetch(sender, justify)
            return
        self.high = justify
        if justify.view >= self.view:
            self.view = justify.view + 1
            self.context.lane(None)
            self.context.made_progress()
            if self.leader_of(self.view) == self.context.me:
                self.lead(self.view)
        self.save()

    # --- missing blocks ----------------------------------------------------------------------------------

    def hold(self, block: Block | None) -> None:
        """This block and its undecided ancestors are here."""
        decided = self.context.height
        while block is not None and block.height > decided:
            self.blocks[block.number] = block
            block = block.parent

    def lacks(self, block: Block | None) -> bool:
        """Whether the block or an undecided ancestor has not arrived here."""
        decided = self.context.height
        while block is not None and block.height > decided:
            if block.number not in self.blocks:
                return True
            block = block.parent
        return False

    def fetch(self, sender: int, justify: QC | None) -> None:
        """Ask for the blocks below a certificate, one question at a time."""
        context = self.context
        if context.now_ns >= self.fetching_until_ns:
            self.fetching_until_ns = context.now_ns + self.parameters.view_timeout_ns
            context.send(sender, Fetch(justify, context.height))

    @upon(Fetch)
    def on_fetch(self, sender: int, message: Fetch) -> None:
        """Send the lowest of the blocks that the sender lacks."""
        self.sync()
        justify = self.high if message.justify is None else message.justify
        block = justify.block
        if self.lacks(block):
            return
        chain: list[Block] = []
        while block is not None and block.height > message.height and block.body is not None:
            chain.append(block)
            block = block.parent
        self.context.send(sender, Blocks(justify, tuple(chain[::-1][:FETCH_MAX])))

    @upon(Blocks)
    def on_blocks(self, sender: int, message: Blocks) -> None:
        """Apply the blocks in order; ask for more, or go on with what waited for them."""
        self.sync()
        context = self.context
        self.fetching_until_ns = 0
        for block in message.blocks:
            if block.height > context.height and self.valid_certificate(block.body, block.view):
                context.lane(None)
                self.blocks[block.number] = block
                if not self.lacks(block):
                    self.update(block.view, block.body)
        if not self.lacks(message.justify.block):
            self.learn(message.justify, None)
        elif message.blocks:
            self.fetch(sender, message.justify)
        self.resume()

    def resume(self) -> None:
        """Take up what waited for blocks."""
        orphan, certified = self.orphan, self.certified
        if orphan is not None and not self.lacks(orphan):
            self.orphan = None
            if orphan.view >= self.view and orphan.height > self.context.height:
                self.accept(orphan)
        if certified is not None and not self.lacks(certified.block):
            self.certified = None
            self.certify(certified)
        self.lead_after_new_views()
