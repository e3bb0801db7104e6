"""The door through which a replica acts: a core that every protocol uses, and parts for those that need them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from typing import Protocol as Interface

from sim.protocol.ballots import Ballot
from sim.protocol.blocks import Block
from sim.protocol.causes import Timer
from sim.protocol.messages import ALL, Audience, GossipMessage, Message, VoteType
from sim.protocol.normal_case import FastPath, FastPathView, Tree, Turns


class Votes(Interface):
    """Ballots, and the votes that this replica has counted."""

    def ballot(self, view: int, number: int, block: Block | None = None) -> Ballot:
        """The ballot of that name, opened if new."""

    def ballots(self, view: int, number: int) -> list[Ballot]:
        """All ballots of a view and number (more than one block: somebody equivocated)."""

    def highest_number(self) -> int:
        """The greatest number of any ballot there is: none of my votes is for a higher one."""

    def count(self, vote: VoteType, ballot: Ballot, voter: int) -> None:
        """A voter's vote that came inside a message counts here, now; my own: I vote, and nobody is told."""

    def open_gate(self, vote: VoteType, ballot: Ballot, by: int) -> None:
        """The gated quorum's condition holds here, on the word of replica `by`."""

    def has_voted(self, vote: VoteType, ballot: Ballot, voter: int | None = None) -> bool:
        """Whether a voter's (my own) vote is in my count. My own votes survive a crash: they were on disk."""

    def signers(self, vote: VoteType, ballot: Ballot) -> tuple[int, ...]:
        """Voters whose vote exists, wherever it was counted: what verifying a certificate in a message brings to light.

        Whoever made the message can have no other signatures; this replica may not have heard of these votes.
        """

    def is_complete(self, vote: VoteType, ballot: Ballot) -> bool:
        """Whether I have been told that this quorum is complete."""


class Chain(Interface):
    """What is decided here, and what becomes of blocks that are not."""

    def decided(self, height: int) -> Block | None:
        """The block decided here at a height, if it still is in memory."""

    def is_behind(self) -> bool:
        """Whether a block is decided here whose ancestors this replica lacks (it missed messages)."""

    def has_certificate(self, block: Block) -> bool:
        """Whether somebody has decided a block: then a commit certificate for it in a message is a true one."""

    def place(self, block: Block, parent: Block | None) -> None:
        """Give an undecided block another parent (its position is what the protocol agreed on)."""

    def abandon(self, block: Block) -> None:
        """The block will never be decided: its transactions wait again."""

    def adopt(self, head: Block) -> None:
        """My chain ends in this block from now on (`forks`): an undecided one, on whatever branch.

        What was on the branch I leave waits again. If that was decided, finality is broken: it is given up,
        which the checks report as a violation.
        """

    def await_decision(self, block: Block) -> None:
        """I have voted for a block, not by `vote`: if transactions are in it, one of its height must be decided."""


class Disk(Interface):
    """Stable storage: what survives a crash."""

    stable: dict[str, Any]  # what was persisted

    def persist(self, **facts: Any) -> None:
        """Write facts; after a restart they are in `stable`."""

    def when_stored(self, then: Callable[[], None]) -> None:
        """Do this once what was persisted is on disk: at once if disks cost nothing, never after a crash."""


class Pacing(Interface):
    """When a proposal may be made."""

    @property
    def block_interval_ns(self) -> int:
        """The least time between two proposals of one proposer."""

    @property
    def period_ns(self) -> int:
        """The time from block to block; 0: there is no period."""

    @property
    def empty_period_ns(self) -> int:
        """The time to a block without transactions, if it is longer than the period; else 0."""

    def something_waits(self) -> bool:
        """Whether a transaction waits here that is not known to be decided."""

    def await_batch(self) -> bool:
        """Ask for BATCH when the next block is due. True: it is due now, and no BATCH follows."""

    def await_turn(self, turns: Turns, height: int, since_ns: int, lowest: int = 0) -> None:
        """Wait for my turn to propose at this height, on top of a block made at that time, and for no other turn.

        I propose nothing below height `lowest`: till then there is no timer. The wait goes on in the fast path: a
        block that I take there ends it, and begins that for the height above.
        """

    @property
    def blocks_have_left(self) -> bool:
        """Whether no block or long message that I sent still waits at my network card: a small one may overtake it."""

    def begin_interval(self) -> None:
        """A proposal goes out message by message, not by `propose`: the block interval begins now."""


class Clock(Interface):
    """My clock, which may run fast or slow, and the timer of my progress."""

    @property
    def all_agree(self) -> bool:
        """Whether no clock shows another time than mine, though timers may be bent."""

    @property
    def time_ns(self) -> int:
        """What my clock shows: what I write into headers, and read those of others by."""

    def elapsed_ns(self, since_ns: int) -> int:
        """Time since then by my clock."""

    def deadline_ns(self, delay_ns: int) -> int:
        """When so much time will have passed by my clock, as it runs now."""

    def watch_progress(self, low_ns: int, high_ns: int | None = None, step_ns: int = 0) -> None:
        """NO_PROGRESS after this long without progress, 0: never; with `high_ns`, each is drawn from [low, high].

        They are whole steps longer than the least one, if steps are given.

        0 stops the timer. What counts as progress is the protocol's `progress`.
        """

    def made_progress(self) -> None:
        """Restart the progress timer's period."""

    @property
    def since_progress_ns(self) -> int:
        """Time since the progress timer's period last began."""


class Clients(Interface):
    """The clients that submit here, and what waits for them."""

    def follow(self, leader: int) -> None:
        """Pass my clients' transactions to this leader from now on."""

    def spread(self, voters: Iterable[int]) -> None:
        """Pass what waits here, a block's worth, to these voters: who waits for nothing sees no fault in its leader."""

    def serve(self, *, yes: bool) -> None:
        """Whether clients may submit here from now on. Those who may not turn to the next voter after a while."""

    def answer_read(self, asked_ns: int, height: int) -> None:
        """A read asked at that time is answered now with the state after this height."""


class Membership(Interface):
    """Who takes part, and how far apart they are."""

    members: tuple[int, ...]  # whose votes count at the start: all, unless the scenario says otherwise
    learners: tuple[int, ...]  # who receive everything at the start and have no vote
    may_change: bool  # some voter is no member at the start, or the operator will ask for a change

    def audience(self, members: tuple[int, ...]) -> Audience:
        """Destination: these voters but the sender."""

    def latency_ns(self, sender: int, receiver: int) -> int:
        """The one-way delay declared for a link between two voters, without jitter."""


class Gossip(Interface):
    """Messages that voters pass on to their neighbours."""

    def neighbours(self, degree: int) -> tuple[int, ...]:
        """My neighbours in a connected random graph of the voters: so many, or all others if there are not more.

        The graph is a function of the run's seed, the same for all. `degree` or the number of voters is even.
        """

    def begin(self, neighbours: tuple[int, ...], kept: int) -> None:
        """I pass gossip on to these neighbours from now on, but for heights `kept` or more below my last decided."""

    def deliver_once(self, gossip_message: GossipMessage) -> bool:
        """I hear a gossip message. False: I have heard it since I started."""

    def seen(self, height: int) -> list[GossipMessage]:
        """What I have heard of a height since I started, as I would pass it on, in the order in which it arose."""


class Context(Interface):
    """What a replica can know and do. Times are integer nanoseconds, sizes bytes, replicas 0..n-1.

    A protocol with a leader, votes and timers needs the core, `votes` and `disk`; the other parts wait till asked for.
    """

    me: int
    n: int
    parameters: Any

    @property
    def votes(self) -> Votes:
        """Ballots, and the votes counted here."""

    @property
    def chain(self) -> Chain:
        """What is decided here, and what becomes of the rest."""

    @property
    def disk(self) -> Disk:
        """What survives a crash."""

    @property
    def pacing(self) -> Pacing:
        """When a proposal may be made."""

    @property
    def clock(self) -> Clock:
        """My clock, and the timer of my progress."""

    @property
    def clients(self) -> Clients:
        """Who submits here, and what waits for them."""

    @property
    def membership(self) -> Membership:
        """Who takes part."""

    @property
    def gossip(self) -> Gossip:
        """Messages passed on from neighbour to neighbour."""

    @property
    def fast_path(self) -> FastPathView:
        """What the fast path did for me: for `Replica.absorb_fast_path`."""

    @property
    def now_ns(self) -> int:
        """Simulated time."""

    @property
    def height(self) -> int:
        """Height of the last block decided here; 0 is the genesis block."""

    def send(self, to: int | tuple[int, ...], message: Message) -> None:
        """Send a message to another replica, or to several: signed once, a copy to each, in this order."""

    def broadcast(self, message: Message, to: Audience = ALL, *, fast: FastPath | None = None) -> None:
        """Send a message to every other voter, or those of an `audience`.

        `fast`: and lay out the normal case, one without votes, of the block that it carries (`Message.carries`), which
        was proposed before. Several replicas may do it for one block; nobody is told whom `fast` does not name.
        """

    def vote(self, vote: VoteType, ballot: Ballot, to: int | Audience = ALL, *, gate: bool = False) -> None:
        """Vote. `to`: ALL, an `audience`, or one replica; the own vote counts at once if the voter is among them.

        `gate` says that the voter's own condition for this quorum holds.
        """

    def propose(
        self, message: Message, ballot: Ballot, fast: FastPath | None = None, *, audience: Audience = ALL,
        tree: Tree | None = None,
    ) -> None:  # fmt: skip
        """Broadcast a message about a ballot's block to an audience, and begin the block interval.

        `fast`: and lay out the normal case declared for such messages, unless votes of that case have been cast in
        this ballot already. `tree`: the one whose root this replica is; the message goes to its children there, and
        they pass it on.
        """

    def new_block(
        self, parent: Block | None, view: int, *, number: int | None = None, empty: bool = False
    ) -> Block | None:
        """A block of waiting transactions on top of `parent`; None if nothing waits and `empty` is false."""

    def decide(self, block: Block) -> bool:
        """The block is final. False: it waits for its parent (if the protocol decides out of order)."""

    def set_timer(self, timer: Timer, delay_ns: int, about: Any = None) -> int:
        """Start a timer; its handler gets `about`. Returns a handle for `cancel`."""

    def cancel(self, handle: int) -> None:
        """Stop a timer; a handle that has fired or was cancelled is fine."""

    def draw(self, purpose: str, low: int, high: int) -> int:
        """A random integer in [low, high], a function of seed, replica, purpose and how often it was asked."""

    def enter_view(self, view: int) -> None:
        """Record that this replica works in a new view (term, round) now."""
