"""What protocols of certified blocks share and no paper spells out: start and restart, turns, views, missing blocks.

Each block carries a certificate for an ancestor in its body. A protocol says what it proposes, when it votes, what
it locks and what is final; here are the handlers around that. They are methods of the replica, for a handler needs
one, so protocols derive from these classes: one level more than usual, instead of five copies.
"""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping
from typing import Any

from sim.families.chained.tree import GENESIS, QC, Blocks, BlockTree, Fetch
from sim.families.chained.views import EMPTY_TIMER, PROPOSE_TIMER, NewView, Pacemaker, Turn, Wish, every_vote_counts
from sim.protocol import BATCH, NO_PROGRESS, Block, Context, Quorum, Replica, VoteType, upon

NOBODY = -2  # a guard that no replica has


class CertifiedChain(Replica, abc.ABC):
    """A replica of n >= 3f + 1 that knows a tree of certified blocks, and leaders who propose in turn."""

    lasting_leader = False
    progress = "always"
    genesis_guard = 0  # of a replica that has accepted nothing yet

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.f: int = self.parameters.tolerated(context.n)
        self.view = 1
        self.high = GENESIS  # the highest certificate seen
        self.tree = BlockTree(context)
        self.turn = Turn(context)
        self.orphan: Any = None  # the proposal of the highest view so far whose ancestors are missing

    @staticmethod
    def check(parameters: Any, voters: int) -> None:
        """Raise ValueError if the parameters do not fit the number of voters."""
        parameters.check(voters)

    def waits_for(self) -> str:
        own = self.leader_of(self.view) == self.context.me
        leads = "leads" if own else f"leader {self.leader_of(self.view)}"
        return f"{leads}, highest certificate of view {self.high.view}"

    # --- rules that a mutant or a variant overrides ------------------------------------------------------

    def quorum(self) -> int:
        """n - f."""
        return self.context.n - self.f

    def quorums(self) -> dict[VoteType, Quorum]:
        return {vote: Quorum(self.quorum()) for vote in self.votes}

    def voters_needed(self) -> int:
        """n - f, also where votes travel in messages."""
        return self.quorum()

    def leader_of(self, view: int) -> int:
        """Round robin."""
        later: int = self.parameters.steps_to(1)
        return (view + later) % self.context.n

    def leader(self, ahead: int = 0) -> int | None:
        return self.leader_of(self.view + ahead)

    def valid(self, sender: int, message: Any) -> bool:
        """A proposal by the right leader, with a certificate for the parent from an earlier view."""
        block, justify = message.block, message.block.body
        return (
            sender == self.leader_of(message.view)
            and block.view == message.view
            and self.valid_certificate(justify, message.view)
            and justify.block is block.parent
        )

    def valid_certificate(self, certificate: object, before: Any) -> bool:
        """n - f signatures for a block, of a view before this one."""
        if not isinstance(certificate, QC) or certificate.view >= before:
            return False
        if certificate.block is None:
            return certificate.view == 0
        return certificate.block.view == certificate.view and certificate.signatures >= self.quorum()

    def valid_body(self, block: Block) -> bool:
        """Whether the certificate that a block carries can be."""
        return self.valid_certificate(block.body, block.view)

    @staticmethod
    def known_weakness(
        kind: str, *, sizes: Collection[int], gone: Collection[int], lying: bool, lossy: bool,
        parameters: Mapping[str, Any],
    ) -> str:  # fmt: skip
        return every_vote_counts(kind, sizes, gone, lossy=lossy, parameters=parameters)

    # --- what each protocol says -------------------------------------------------------------------------

    @abc.abstractmethod
    def propose(self) -> None:
        """Bring the block of this view."""

    @abc.abstractmethod
    def learn(self, certificate: QC, sender: int | None) -> None:
        """A certificate, not as part of this view's work: keep the highest, once its block is here."""

    @abc.abstractmethod
    def resume(self) -> None:
        """Take up what waited for blocks."""

    @abc.abstractmethod
    def absorb_fast_path(self) -> None:
        """Catch up with the fast path."""

    @abc.abstractmethod
    def save(self) -> None:
        """Stable storage: what must not be forgotten."""

    @abc.abstractmethod
    def recall(self, stable: dict[str, Any]) -> None:
        """What was saved; its blocks are here."""

    @abc.abstractmethod
    def watch(self) -> None:
        """The progress timer begins."""

    # --- the fast path -----------------------------------------------------------------------------------

    def is_fresh(self) -> bool:
        """Whether nothing has happened to this replica yet: its guard is `genesis_guard`."""
        nothing = self.view == 1 and self.high is GENESIS and self.orphan is None
        return nothing and len(self.tree) == self.context.height == 0

    # --- start and restart -------------------------------------------------------------------------------

    @property
    def view_number(self) -> int:
        return self.view

    def start(self) -> None:
        context = self.context
        if context.disk.stable:
            self.recall(context.disk.stable)
            self.turn.view = context.disk.stable.get("led", 0)
            context.enter_view(self.view)
            self.watch()
            leader = self.leader_of(self.view)
            self.fetch(leader if leader != context.me else (leader + 1) % context.n, None)
            return
        self.save()
        self.watch()
        if self.leader_of(self.view) == context.me:
            self.lead(self.view)

    # --- turns -------------------------------------------------------------------------------------------

    def lead(self, view: int) -> None:
        """Propose in this view as soon as delays and the block interval allow."""
        if self.turn.begin(view):
            self._propose_if_due(view)

    @upon(PROPOSE_TIMER)
    def on_due(self, view: int) -> None:
        """The proposal is due: now, or when a transaction comes, if there is nothing to drive forward."""
        self._propose_if_due(view)

    def _propose_if_due(self, view: int) -> None:
        if view == self.view and self.turn.due(view, self.tree.undecided(self.high.block)):
            self.propose()

    @upon(BATCH, EMPTY_TIMER)
    def on_waited(self, view: int | None = None) -> None:
        """A transaction has come, or the leader has waited for one long enough."""
        if self.turn.waited(self.view, view):
            self.propose()

    def extend(self, parent: Block | None, justify: QC) -> Block:
        """A new block of this view on top of that one, with a certificate in its body. On disk: that it leads it."""
        self.turn.proposed()
        self.context.disk.persist(led=self.view)
        block = self.context.new_block(parent, self.view, empty=True)
        assert block is not None
        block.body = justify
        self.tree.add(block)
        return block

    # --- missing blocks ----------------------------------------------------------------------------------

    def has_ancestors(self, sender: int, message: Any) -> bool:
        """Whether the ancestors of a proposal's block are here. If not, it waits for them, and they are asked for."""
        if not self.tree.lacks(message.block):
            return True
        if self.orphan is None or message.view > self.orphan.view:
            self.orphan = message
        self.fetch(sender, message.block.body)
        return False

    def is_here(self, certificate: QC, sender: int | None) -> bool:
        """Whether a certificate's block and its ancestors are here. If not, whoever showed it is asked for them."""
        if not self.tree.lacks(certificate.block):
            return True
        if sender is not None:
            self.fetch(sender, certificate)
        return False

    def adopted(self) -> Any:
        """The proposal that waited for ancestors, once they are here, unless it is too late for it."""
        orphan = self.orphan
        if orphan is None or self.tree.lacks(orphan.block):
            return None
        self.orphan = None
        timely = orphan.view >= self.view and orphan.block.height > self.context.height
        return orphan if timely else None

    def fetch(self, sender: int, justify: QC | None) -> None:
        """Ask for the blocks below a certificate."""
        self.tree.ask(sender, justify, self.parameters.view_timeout_ns)

    @upon(Fetch)
    def on_fetch(self, sender: int, message: Fetch) -> None:
        """Send the lowest of the blocks that the sender lacks."""
        self.tree.answer(sender, message, self.high)

    @upon(Blocks)
    def on_blocks(self, sender: int, message: Blocks) -> None:
        """Apply the blocks in order; ask for more, or go on with what waited for them."""
        for block in self.tree.take(message, self.valid_body):
            self.apply(block)
        here = not self.tree.lacks(message.justify.block)
        if here or message.blocks:
            self.learn(message.justify, None if here else sender)
        self.resume()

    @abc.abstractmethod
    def apply(self, block: Block) -> None:
        """What the certificate in a fetched block teaches."""


class PacedChain(CertifiedChain):
    """A certified chain whose replicas leave views by the pacemaker of sim.families.chained.views."""

    later_messages = (Wish,)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.pacemaker = Pacemaker(context, self.f, self.quorum(), self.alone())

    def waits_for(self) -> str:
        wished = sorted(node for node, view in self.pacemaker.wishes.items() if view > self.view)
        return super().waits_for() + (f", later views wished for by {wished}" if wished else "")

    def alone(self) -> int:
        """Views in a row that a replica leaves by itself: f leaders in turn may have crashed."""
        return self.f

    def watch(self) -> None:
        self.pacemaker.start()

    @abc.abstractmethod
    def lead_after_new_views(self) -> None:
        """Propose in this view if it is mine and enough NEW-VIEW messages have come."""

    @upon(NO_PROGRESS)
    def on_timeout(self) -> None:
        """The view expired."""
        self.enter_if(self.pacemaker.expired(self.view))

    @upon(Wish)
    def on_wish(self, sender: int, message: Wish) -> None:
        """Another replica would enter a view."""
        self.enter_if(self.pacemaker.wished(sender, message.view, self.view))

    def enter_if(self, view: int | None) -> None:
        """Enter a view if there is one to enter, and lead if it is mine."""
        if view is not None:
            self.enter(view)
            self.lead_after_new_views()

    def enter(self, view: int) -> None:
        """Enter a view without a certificate of the one before, and send the highest to its leader."""
        self.view = view
        self.save()
        self.pacemaker.enter(view, self.high, self.leader_of(view))

    @upon(NewView)
    def on_new_view(self, sender: int, message: NewView) -> None:
        """Keep the highest certificate; follow f + 1 replicas to a higher view; lead if that is enough."""
        if not self.valid_new_view(message):
            return
        self.pacemaker.hear(sender, message)
        self.learn(message.justify, sender)
        view = self.pacemaker.drawn(self.view)
        if view is not None:
            self.enter(view)
        self.resume()

    def valid_new_view(self, message: NewView) -> bool:
        """A certificate of that view at most."""
        return self.valid_certificate(message.justify, message.view + 1)
