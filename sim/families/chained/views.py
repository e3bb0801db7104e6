"""Views of protocols whose leaders take turns: when a leader proposes, and how replicas whose views expire meet again.

The parameters, the message and the bookkeeping that such protocols share; what a view does is theirs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sim.families.chained.tree import HEADER_BYTES, QC
from sim.families.turns import FirstLeader
from sim.parameters import Nanoseconds, count, quantity
from sim.protocol import Block, Context, Message, Signing, Timer
from sim.units import format_ns

PROPOSE_TIMER = Timer("propose")
EMPTY_TIMER = Timer("empty block")


def every_vote_counts(
    kind: str, sizes: Collection[int], gone: Collection[int], *, lossy: bool, parameters: Mapping[str, Any]
) -> str:
    """Why nothing may be final where links lose messages for good and f replicas are gone; '' if it must be.

    Nothing of a view is sent twice: one lost message costs the view, and one without any loss may be long in coming.
    """
    f = int(parameters.get("faults", (max(sizes) - 1) // 3))
    needed = kind == "liveness" and lossy and len(gone) >= f > 0
    return "every survivor's vote is needed, and links lose some for good" if needed else ""


def few_leaders(
    kind: str, sizes: Collection[int], gone: Collection[int], *, leaders: int, views: int, lying: bool = False
) -> str:
    """Why nothing may be final if leaders take turns, each for so many views, and some are gone; '' if it must be.

    A commit takes certified blocks of successive views, and votes for a block go to the leader after it. `lying`: where
    replicas leave f views by themselves (`Pacemaker`), a liar that speaks to one only sends it as far ahead of the
    others, and those views are lost.
    """
    n = max(sizes)
    if lying:
        leaders += (n - 1) // 3 * views
    well = "".join(" " if view // views % n in gone else "x" for view in range(2 * n * views))
    most = max(map(len, well.split()), default=0)
    if kind != "liveness" or not gone or most >= leaders:
        return ""
    return f"no commit without {leaders} correct leaders in a row (attack D6)"


class ViewParameters(FirstLeader):
    """How long views last, and how many faults they bear."""

    view_timeout_ns: Nanoseconds = quantity(
        "2 s", "how long a replica waits in a view at first", positive=True, patience=True
    )
    view_timeout_max_ns: Nanoseconds = quantity(
        "30 s", "the wait doubles with each expiry up to this, until a commit", patience=True
    )
    faults: int | None = count(None, "f: Byzantine replicas tolerated; by default the most that n allows", low=0)

    def tolerated(self, voters: int) -> int:
        """f."""
        return (voters - 1) // 3 if self.faults is None else self.faults

    def check(self, voters: int) -> None:
        """Raise ValueError if the parameters do not fit the number of voters."""
        f = self.tolerated(voters)
        if voters < 3 * f + 1:
            raise ValueError(f"faults: {f} needs n >= 3f + 1 = {3 * f + 1} voters, not {voters}; lower faults")
        if self.view_timeout_max_ns < self.view_timeout_ns:
            raise ValueError(
                f"view_timeout_max: {format_ns(self.view_timeout_max_ns)} must not be below view_timeout: "
                f"{format_ns(self.view_timeout_ns)}; raise it"
            )


class TurnParameters(ViewParameters):
    """How often leaders in turn bring blocks."""

    min_block_delay_ns: Nanoseconds = quantity("0 ms", "least wait of a leader between certificate and proposal")
    empty_block_delay_ns: Nanoseconds = quantity(
        "0 ms",
        "how long a leader waits for a transaction while nothing is under way; 0: empty blocks at once",
    )

    def check(self, voters: int) -> None:
        """Raise ValueError if the parameters do not fit the number of voters."""
        super().check(voters)
        waits = self.min_block_delay_ns + self.empty_block_delay_ns
        if waits >= self.view_timeout_ns:
            raise ValueError(
                f"view_timeout: {format_ns(self.view_timeout_ns)} must be above min_block_delay and empty_block_delay "
                f"together, {format_ns(waits)}, or views expire; shorten them or raise view_timeout"
            )


class Turn:
    """One replica's turns to propose. A timer or BATCH says when to ask again whether a block is due."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.parameters: Any = context.parameters
        self.view = 0  # the last view it prepared to propose in
        self.idle_view = 0  # the view in which it waits for a transaction
        self.proposed_ns: int | None = None

    def begin(self, view: int) -> bool:
        """It may propose in this view. False: it was told before, or PROPOSE_TIMER will say when."""
        if self.view >= view:
            return False
        self.view = view
        wait = max(self.parameters.min_block_delay_ns, self.interval_left_ns())
        if wait > 0:
            self.context.set_timer(PROPOSE_TIMER, wait, view)
        return bool(wait <= 0)

    def interval_left_ns(self) -> int:
        """Time until the block interval of this proposer is over; 0 or less: it is."""
        context = self.context
        if self.proposed_ns is None or not context.pacing.block_interval_ns:
            return 0
        return self.proposed_ns + context.pacing.block_interval_ns - context.now_ns

    def due(self, view: int, under_way: Iterable[Block]) -> bool:
        """Whether to propose now. If not: BATCH or EMPTY_TIMER will say when.

        Blocks that carry transactions and are not final (`under_way`) are driven forward at once. A voter alone,
        whose messages take no time, makes no empty blocks but for these.
        """
        context, patience = self.context, self.parameters.empty_block_delay_ns
        busy = (not patience and context.n > 1) or any(block.txs for block in under_way)
        if busy or context.pacing.await_batch():
            return True
        self.idle_view = view
        if patience:
            context.set_timer(EMPTY_TIMER, patience, view)
        return False

    def waited(self, view: int, timer_view: int | None) -> bool:
        """Whether BATCH (None) or EMPTY_TIMER ends the wait of this view."""
        return self.idle_view == view and timer_view in (None, view)

    def proposed(self) -> None:
        """It proposes now."""
        self.idle_view = 0
        self.proposed_ns = self.context.now_ns


@dataclasses.dataclass(frozen=True, slots=True)
class NewView(Message):
    """<NEW-VIEW, view, qc>: the sender enters the view without a certificate of the one before."""

    view: int
    justify: QC

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES + self.justify.size_bytes(signing)

    def certificates(self) -> tuple[int, ...]:
        return (self.justify.signatures,)


@dataclasses.dataclass(frozen=True, slots=True)
class Wish(Message):
    """<WISH, view>: the sender's view expired, and it would enter this one together with a quorum."""

    view: int

    def size_bytes(self, signing: Signing) -> int:
        return HEADER_BYTES


class Pacemaker:
    """One replica's patience with a view, what it has heard of the views of others, and how they stay together.

    A replica whose view expires doubles its patience (until the next commit). Up to `alone` times in a row, as often
    as crashed leaders explain it, it enters the next view by itself. From then on it *wishes* for the next view, stays
    in its own and does its work there. It tells all what it wishes, again at each expiry; f + 1 wishes for a higher
    view become its own; and it enters the highest view for which a quorum wishes. Of a quorum f + 1 are correct, so
    all others enter at most two delays after the first, and all timers begin together, whatever they were before.

    The rule is the synchroniser of M. Bravo, G. Chockler, A. Gotsman, "Making Byzantine Consensus Live", DISC 2020.
    """

    def __init__(self, context: Context, f: int, quorum: int, alone: int) -> None:
        self.context = context
        self.f = f
        self.quorum = quorum
        self.alone = alone
        self.news: dict[int, NewView] = {}  # replica -> its latest NEW-VIEW
        self.wishes: dict[int, int] = {}  # replica -> the highest view it wished for
        self.failures = 0  # views that expired since the last new certificate
        self.timeout_ns: int = context.parameters.view_timeout_ns

    def start(self) -> None:
        """The first view begins."""
        self.context.clock.watch_progress(self.timeout_ns)

    def progressed(self) -> None:
        """A new certificate: a quorum has worked in the view before."""
        self.failures = 0
        self.context.clock.made_progress()

    def proposed(self, certificate: QC, high: QC) -> None:
        """A proposal begins a view. Without a new certificate it shows no quorum: liars can send one to a few."""
        if certificate.view > high.view:
            self.failures = 0
        self.context.clock.made_progress()

    def committed(self) -> None:
        """Patience is as at first again."""
        if not self.calm:
            self.timeout_ns = self.context.parameters.view_timeout_ns
            self.context.clock.watch_progress(self.timeout_ns)

    @property
    def calm(self) -> bool:
        """Whether patience is as at first."""
        return bool(self.timeout_ns == self.context.parameters.view_timeout_ns)

    @property
    def is_quiet(self) -> bool:
        """Whether patience is as at first and no view has failed since the last progress: the fast path sees none."""
        return self.calm and self.failures == 0

    def expired(self, view: int) -> int | None:
        """The view expired. Returns the one to enter, or None while no quorum wishes to.

        A wish is said again after the first patience, however often views failed: whoever was cut off hears of it so
        much after healing, and the outage's length plays no part. Patience grows with views that were tried.
        """
        parameters, asked = self.context.parameters, self.wishes.get(self.context.me, 0)
        if asked <= view:
            self.failures += 1
            self.timeout_ns = min(2 * self.timeout_ns, parameters.view_timeout_max_ns)
            if self.failures <= self.alone:
                return view + 1
        self.context.clock.watch_progress(parameters.view_timeout_ns)
        self._wish(max(view + 1, asked))
        return self._agreed(view)

    def wished(self, sender: int, wish: int, view: int) -> int | None:
        """A replica in this view hears a wish. Returns the view to enter, if any."""
        self.wishes[sender] = max(wish, self.wishes.get(sender, 0))
        heard = sorted(self.wishes.values(), reverse=True)
        if len(heard) > self.f and heard[self.f] > max(view, self.wishes.get(self.context.me, 0)):
            self._wish(heard[self.f])
        return self._agreed(view)

    def _wish(self, view: int) -> None:
        self.wishes[self.context.me] = view
        self.context.broadcast(Wish(view))

    def _agreed(self, view: int) -> int | None:
        """The highest view that a quorum wishes for, if it is above this one."""
        heard = sorted(self.wishes.values(), reverse=True)
        if len(heard) < self.quorum or heard[self.quorum - 1] <= view:
            return None
        self.failures = max(self.failures, self.alone)  # nobody parts from the others before it has seen progress
        return heard[self.quorum - 1]

    def enter(self, view: int, high: QC, leader: int) -> None:
        """Enter a view without a certificate of the one before, and tell its leader."""
        context = self.context
        context.enter_view(view)
        context.clock.watch_progress(0)  # what I voted for in the views before may never be decided
        context.clock.watch_progress(self.timeout_ns)
        if high.block is not None:
            context.chain.await_decision(high.block)
        message = NewView(view, high)
        self.news[context.me] = message
        if leader != context.me:
            context.send(leader, message)

    def hear(self, sender: int, message: NewView) -> None:
        """Keep the latest NEW-VIEW of each replica."""
        known = self.news.get(sender)
        if known is None or message.view >= known.view:
            self.news[sender] = message

    def drawn(self, view: int) -> int | None:
        """The view to follow f + 1 replicas to, if so many are above this one."""
        ahead = sorted((news.view for news in self.news.values() if news.view > view), reverse=True)
        return ahead[self.f] if len(ahead) > self.f else None

    def reports(self, view: int) -> list[int]:
        """Views of the certificates that NEW-VIEW messages of this view came with."""
        return [news.justify.view for news in self.news.values() if news.view == view]
