"""The seam: all that a consensus protocol sees of the simulator, and all that the simulator sees of it.

A protocol is a class whose handlers react: *upon* a letter, a quorum of votes, a timer. It speaks through one
narrow door, the `Context`, and knows neither time's passing nor the network. A file that defines one imports
this module, and nothing numerical, random or graphical.

Two kinds of message:

* a *letter* carries content and is handed to a handler at each receiver;
* a *vote* says "I, this replica, agree to this ballot" and wakes nobody by itself: votes are counted where they
  arrive, and the handler declared for the vote type runs when a quorum is complete.

Both travel through the same queues and links, and cost the same signatures, bytes and time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable
from typing import Any, ClassVar, Literal, TypeVar
from typing import Protocol as Interface

ALL = -1  # destination: every voter but the sender (whose own vote counts at once)


_VIEWS = ("view", "round", "term", "epoch")
_HEIGHTS = ("sequence", "height", "number")

_Handler = TypeVar("_Handler", bound=Callable[..., None])


@dataclasses.dataclass(frozen=True, eq=False)
class VoteType:
    """A kind of vote, itself and no other (compared by identity).

    `size_bytes` is its size without the signature; `decides` is false for housekeeping. `unique`: at most one
    ballot of a view and number can have a quorum ("number"), or of a view ("view"); "": any may. Runs are
    checked for it. `certified`: it carries a certificate, signed by as many as its own quorum needs, which is sent
    and verified with it.

    `umbrella`: a type under which every vote of this one counts too, whatever its block ("2f + 1 of any value"). It
    is never cast; its quorum is reported with the ballot (view, number, no block), after the vote's own. The number
    of such ballots is a height: they end when every voter has decided beyond it.
    """

    name: str
    size_bytes: int
    decides: bool = True
    signed: bool = True
    unique: Literal["number", "view", ""] = "number"
    certified: bool = False
    umbrella: VoteType | None = None


@dataclasses.dataclass(frozen=True)
class Quorum:
    """How many distinct voters complete a ballot, and whether a condition must hold besides (`gated`).

    `early` is a smaller number that is also reported (for example f + 1). With `weights`, whole numbers, one per
    voter, `votes` and `early` are sums of weights.
    """

    votes: int
    gated: bool = False
    early: int = 0
    weights: tuple[int, ...] = ()

    def met_by(self, voters: Iterable[int]) -> bool:
        """Whether the votes of these voters together are enough."""
        return sum(self.weights[voter] if self.weights else 1 for voter in voters) >= self.votes

    def voters_needed(self) -> int:
        """So many voters are enough, whichever they are."""
        if not self.weights:
            return self.votes
        return next(
            (k for k in range(1, len(self.weights) + 1) if sum(sorted(self.weights)[:k]) >= self.votes),
            len(self.weights) + 1,
        )


@dataclasses.dataclass(frozen=True)
class Signing:
    """How signatures travel: the bytes of one, and what becomes of several on the same words.

    `list`: all of them, each with its signer; `aggregate`: one of the same size and a bit per voter (BLS);
    `threshold`: one of the same size, whoever signed.
    """

    voters: int
    signature_bytes: int = 64
    certificates: Literal["list", "aggregate", "threshold"] = "list"

    def certificate_bytes(self, signers: int) -> int:
        """Size of a certificate signed by that many. Signers of single signatures are named by two bytes each."""
        if self.certificates == "list" or signers == 0:
            return signers * (self.signature_bytes + 2)
        return self.signature_bytes + ((self.voters + 7) // 8 if self.certificates == "aggregate" else 0)


class Letter:
    """Base of messages with content. Subclasses are frozen dataclasses with slots."""

    __slots__ = ()
    decides: ClassVar[bool] = True  # counted in messages per decision
    signed: ClassVar[bool] = True

    def size_bytes(self, signing: Signing) -> int:
        """Size on the wire without the sender's own signature."""
        raise NotImplementedError

    def signatures(self) -> int:
        """Single signatures inside that the receiver verifies, the sender's own not counted."""
        return 0

    def certificates(self) -> tuple[int, ...]:
        """Certificates inside that the receiver verifies: how many signed each."""
        return ()

    def carries(self) -> Block | None:
        """The block whose transactions travel inside, if any: the receiver hashes them."""
        return None

    def place(self) -> tuple[int | None, int | None]:
        """View and height that the letter is about, as far as it has them: what a scenario's rules match.

        By default the first of its fields named view, round, term, epoch, and the first named sequence, height,
        number, or else the height of its `block`. A letter that names them otherwise overrides this.
        """
        view = next((getattr(self, name) for name in _VIEWS if hasattr(self, name)), None)
        height = next((getattr(self, name) for name in _HEIGHTS if hasattr(self, name)), None)
        if height is None and isinstance(getattr(self, "block", None), Block):
            height = self.block.height  # type: ignore[attr-defined]
        return view, height


class Rumour(Letter):
    """Base of letters that spread from neighbour to neighbour, as they leave their author and as others pass them on.

    Two letters are one rumour if author and content are the same. Who hears one for the first time passes it on to
    its neighbours but the one it came from, and acts on it; a further copy, or one of a height no longer kept
    (`Context.gossip`), ends where it arrives and reaches no handler. The fast lane does so for votes, without entering
    Python: it passes them on, and counts them if nothing is decided here yet at their height.
    """

    __slots__ = ()
    author: int
    height: int
    content: Hashable

    def passed_on(self) -> Rumour:
        """The letter with which others pass it on: unsigned by them, with its author's signature."""
        raise NotImplementedError

    def counts(self) -> tuple[VoteType, int, int, Block | None, int] | None:
        """If it is a vote: its type, its ballot's view, number and block, and the voter."""
        return None


class Block:
    """A block as protocols see it. Its transactions are columns of the ledger; here are their count and bytes."""

    __slots__ = (
        "ballots",
        "body",
        "bytes",
        "height",
        "number",
        "parent",
        "proposer",
        "reactions",
        "row",
        "txs",
        "view",
    )

    def __init__(self, number: int, height: int, view: int, proposer: int, parent: Block | None) -> None:
        self.number = number  # identity: no two blocks of a run share it (stands for the digest)
        self.height = height
        self.view = view
        self.proposer = proposer
        self.parent = parent
        self.txs = 0
        self.bytes = 0
        self.row = -1  # the ledger's row while it has one
        self.ballots: list[Ballot] = []
        self.reactions: list[int] = []  # of the fast lane
        self.body: Any = None  # what the protocol keeps with it (a certificate)

    def __repr__(self) -> str:
        return f"Block({self.number}, height={self.height}, view={self.view}, proposer={self.proposer}, txs={self.txs})"


class Ballot:
    """What votes are about: a view, a number (height, sequence, candidate) and usually a block."""

    __slots__ = ("block", "number", "rows", "view")

    def __init__(self, view: int, number: int, block: Block | None) -> None:
        self.view = view
        self.number = number
        self.block = block
        self.rows: dict[VoteType, int] = {}

    def __repr__(self) -> str:
        return f"Ballot(view={self.view}, number={self.number}, block={self.block})"


@dataclasses.dataclass(frozen=True)
class Step:
    """One vote of a normal case: its type and whom it goes to (all, or the receiver named with the letter)."""

    vote: VoteType
    to_all: bool = True  # all of the letter's audience


@dataclasses.dataclass(frozen=True, slots=True)
class Tree:
    """A tree over all n voters, filled level by level: place 0 is the root."""

    n: int
    first: int  # the voter in place 0; the others follow in order of their numbers
    fanout: int

    def place(self, voter: int) -> int:
        """The voter's place."""
        return (voter - self.first) % self.n

    def parent(self, voter: int) -> int:
        """The voter above; the root is its own."""
        return (self.first + max(self.place(voter) - 1, 0) // self.fanout) % self.n

    def children(self, voter: int) -> tuple[int, ...]:
        """The voters below."""
        low = self.place(voter) * self.fanout + 1
        return tuple((self.first + at) % self.n for at in range(low, min(low + self.fanout, self.n)))

    def below(self, voter: int) -> tuple[int, int]:
        """Voters in the subtree of this one, itself included, and levels under it."""
        size, levels, low, high = 0, -1, self.place(voter), self.place(voter)
        while low < self.n:
            size += min(high, self.n - 1) - low + 1
            levels += 1
            low, high = low * self.fanout + 1, high * self.fanout + self.fanout
        return size, levels


@dataclasses.dataclass(frozen=True)
class Gather:
    """The other half of a normal case whose letter goes down a tree: what comes back up.

    Upon the letter a voter passes it on to its children and waits for `answer(block, signers)` of each: a letter with
    the votes of so many voters, the child's subtree. When all have come, or at once if it has no children, it sends
    one for its own subtree to its parent. Where it waits, `timer` runs for `patience_ns` per level below it; its
    handler, called with the block, runs if the answers are not complete by then. At the root the handler of the
    answer runs with the one that makes `quorum` votes of those counted before (`Context.gathered`).
    """

    answer: Any  # the type of the letter, made of the block and the number of votes
    quorum: int
    timer: Timer
    patience_ns: int


@dataclasses.dataclass(frozen=True)
class NormalCase:
    """What follows one type of letter when nothing is wrong, declared so that it runs without entering Python.

    Upon the letter: the first vote; upon each quorum: the next; then, if `decide`, the block is decided (at the
    letter itself if there are no votes). A block decided on the word of the letter (`decided`, see
    `Context.propose`) is decided right after the first vote is cast.

    A gated quorum's condition is the letter: with `gate`, on the word of its sender, who casts no first vote;
    without, a voter's own vote opens its gate. With `persist`, the first vote waits for the disk.
    Every letter counts as progress (`Context.made_progress`) if the progress timer always runs. Where blocks compete
    (`Replica.forks`) whoever takes a letter in the lane adopts its block (`Context.adopt`), which extends its head.
    Whoever awaits its turn to propose (`Context.await_turn`) then awaits the one above the letter's block.

    With `gather` the letter goes down a tree (`Context.propose` with `along`) and no votes are declared: after it is
    passed on, the block `decided` by it and those below are decided, then the answer is sent or waited for. A letter
    that overtakes those before it is kept until it is their turn.

    A protocol declares one case for each type of letter it wants treated so, at most three votes each. The
    handlers must do the same: they are the definition, and a test compares both.
    """

    upon: type[Letter]
    votes: tuple[Step, ...] = ()
    gate: bool = False
    decide: bool = False
    persist: bool = False
    gather: Gather | None = None


@dataclasses.dataclass(frozen=True)
class Lead:
    """Leave to go on proposing by itself, given to the fast lane with a proposal.

    Whenever this replica has decided a block in the lane, or a batch is due, the lane does what the handlers of
    DECIDED and BATCH would: while fewer than `pipeline` blocks are under way and a batch is due (`await_batch`),
    it makes the block on top (`new_block`), and proposes it (`propose`) with the letter that `Replica.letter_of`
    names, of the same size but for the block's bytes, in the same view, with the same guards and receivers, and
    telling this replica. If the case is gated by the letter it opens its own gate, else it casts its own vote.
    It proposes up to height `until`; there the handler runs again. `Context.lane` takes the leave back.
    """

    until: int
    pipeline: int = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Timer:
    """The kind of timer a handler waits for."""

    name: str


@dataclasses.dataclass(frozen=True)
class Turns:
    """When a replica proposes a block on top of another if it has seen nobody do so (`Context.await_turn`).

    Its own turn are the heights that leave `place` when divided by `places`. Then it proposes `period_ns` after the
    block below was made; at other heights it holds back for a draw from [0, spread_ns) more, keyed by itself and the
    height. It proposes neither before it has the block below nor within the block interval of its own last proposal.
    """

    timer: Timer  # its handler gets the time of the turn, without the draw
    period_ns: int
    spread_ns: int
    place: int
    places: int


@dataclasses.dataclass(frozen=True, slots=True)
class MembersChange:
    """What the operator asks of the group, told to every replica: each request once, numbered from 1.

    A replica that does not run hears it when it has started again.

    Whether, how and when it happens is the protocol's affair.
    """

    number: int
    add: tuple[int, ...] = ()
    remove: tuple[int, ...] = ()
    learn: tuple[int, ...] = ()  # receive everything, have no vote


class Signal:
    """What else a handler can wait for: see the constants below."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


BATCH = Signal("BATCH")  # transactions wait, and the block interval is over
NO_PROGRESS = Signal("NO_PROGRESS")  # the progress timer expired
DECIDED = Signal("DECIDED")  # the fast lane decided something this replica asked to know


MEMBERSHIP = Signal("MEMBERSHIP")  # the operator asks for other members; the handler gets the `MembersChange`


def upon(*causes: type[Letter] | VoteType | Timer | Signal) -> Callable[[_Handler], _Handler]:
    """Mark a method as the handler of these causes ("upon receiving ...", "upon a quorum of ...")."""

    def mark(handler: _Handler) -> _Handler:
        handler.__dict__["_upon"] = causes
        return handler

    return mark


_Predicate = TypeVar("_Predicate", bound=Callable[..., bool])


def invariant(name: str) -> Callable[[_Predicate], _Predicate]:
    """Mark a method as a predicate that holds whenever a handler has returned. It reads, and changes nothing."""

    def mark(predicate: _Predicate) -> _Predicate:
        predicate.__dict__["_invariant"] = name
        return predicate

    return mark


class Context(Interface):
    """What a replica can know and do. Times are integer nanoseconds, sizes bytes, replicas 0..n-1."""

    me: int
    n: int
    parameters: Any
    members: tuple[int, ...]  # whose votes count at the start: all, unless the scenario says otherwise
    learners: tuple[int, ...]  # who receive everything at the start and have no vote
    members_change: bool  # some voter is no member at the start, or the operator will ask for a change

    @property
    def now_ns(self) -> int:
        """Simulated time."""

    def audience(self, members: tuple[int, ...]) -> int:
        """Destination: these voters but the sender."""

    def broadcast(self, letter: Letter, to: int = ALL) -> None:
        """Send a letter to every other voter, or those of an `audience`."""

    def send(self, to: int, letter: Letter) -> None:
        """Send a letter to one replica."""

    def multicast(self, to: tuple[int, ...], letter: Letter) -> None:
        """Send one letter to several other replicas: signed once, a copy to each, in this order."""

    def neighbours(self, degree: int) -> tuple[int, ...]:
        """My neighbours in a connected random graph of the voters: so many, or all others if there are not more.

        The graph is a function of the run's seed, the same for all. `degree` or the number of voters is even.
        """

    def gossip(self, neighbours: tuple[int, ...], kept: int) -> None:
        """I pass rumours on to these neighbours from now on, but for those of a height `kept` below my last decided."""

    def hear(self, rumour: Rumour) -> bool:
        """I hear a rumour. False: I have heard it since I started."""

    def heard(self, height: int) -> list[Rumour]:
        """What I have heard of a height since I started, as I would pass it on, in the order in which it arose."""

    def latency_ns(self, sender: int, receiver: int) -> int:
        """The one-way delay declared for a link between two voters, without jitter."""

    def ballot(self, view: int, number: int, block: Block | None = None) -> Ballot:
        """The ballot of that name, opened if new."""

    def ballots(self, view: int, number: int) -> list[Ballot]:
        """All ballots of a view and number (more than one block: somebody equivocated)."""

    def vote(self, vote: VoteType, ballot: Ballot, to: int = ALL, *, gate: bool = False) -> None:
        """Vote. `to`: ALL, an `audience`, or one replica; the own vote counts at once if the voter is among them.

        `gate` says that the voter's own condition for this quorum holds.
        """

    def condition(self, vote: VoteType, ballot: Ballot, by: int) -> None:
        """The gated quorum's condition holds here, on the word of replica `by`."""

    def count(self, vote: VoteType, ballot: Ballot, voter: int) -> None:
        """A voter's vote that came inside a letter counts here, now; my own: I vote, and nobody is told."""

    def has_voted(self, vote: VoteType, ballot: Ballot, voter: int | None = None) -> bool:
        """Whether a voter's (my own) vote is in my count. My own votes survive a crash: they were on disk."""

    def signers(self, vote: VoteType, ballot: Ballot) -> tuple[int, ...]:
        """Voters whose vote exists, wherever it was counted: what verifying a certificate in a letter brings to light.

        Whoever made the letter can have no other signatures; this replica may not have heard of these votes.
        """

    def complete(self, vote: VoteType, ballot: Ballot) -> bool:
        """Whether I have been told that this quorum is complete."""

    def propose(
        self,
        letter: Letter,
        ballot: Ballot,
        *,
        guard: tuple[int, int],
        after: int | None = None,
        to: int = ALL,
        audience: int = ALL,
        decided: Block | None = None,
        tell: int | None = None,
        leave: Lead | None = None,
        along: Tree | None = None,
        known: Block | None = None,
        made_ns: int | None = None,
    ) -> None:
        """Broadcast a letter about a ballot's block, and lay out the normal case declared for such letters.

        `guard`: the lane number a receiver must be in, and the one it is in from the letter on (a different one,
        or a letter that comes twice is accepted twice, unless the case is gated by it); `after`: the one it is in
        when the case is through, if not the same; `to`: receiver of votes that do not go to all; `audience`: who
        are all, for the letter and for votes; `decided`: a block this letter proves decided; `tell`: whose DECIDED
        handler runs when the case is through there: ALL, or one replica (None: this one); `leave`: the lane may
        propose the next blocks by itself. Without a lane, or if votes of that case have been cast in this ballot
        already, this is `broadcast`.

        `along`: the tree whose root this replica is; the letter goes to its children there, and they pass it on.
        `known`: the block that a receiver must have for the letter to be kept if it comes early. `made_ns`: the time
        that the block bears, now if not given; turns to propose on top of it count from there (`await_turn`).
        """

    def pass_on(
        self, letter: Letter, block: Block, *, guard: tuple[int, int], audience: int = ALL, tell: int | None = None
    ) -> None:
        """Send a letter that says more of a block proposed before, with its normal case, one without votes.

        As `propose`, but no block interval begins, several replicas may do it for one block, and by default nobody is
        told.
        """

    def gathered(self, block: Block) -> dict[int, int]:
        """Votes that the lane has counted here for a block that came down a tree, by child (my own vote: me).

        From now on answers for it come to the handlers; at the root of a complete quorum none come any more.
        """

    def held(self) -> list[tuple[int, Letter]]:
        """Letters (with their senders) that the lane keeps here because they came early; it forgets them."""

    def answered(self, asked_ns: int, height: int) -> None:
        """A read of my clients, asked at that time, is answered now with the state after this height."""

    def proposing(self) -> None:
        """A proposal goes out letter by letter, not by `propose`: the block interval begins now."""

    def lane(self, number: int | None) -> None:
        """Work in the fast lane while events fit this number; None: leave it, every event comes to me."""

    def lane_block(self) -> Block | None:
        """The last block whose proposal the fast lane accepted for me since I last called `lane`, if any.

        It survives a crash: the lane writes what it accepts to disk.
        """

    def lane_number(self) -> int:
        """The number I last gave to `lane`, or what the fast lane made of it since; -1: None. It survives a crash."""

    def last_proposal(self) -> Block | None:
        """The last block that I proposed with a normal case, or that the fast lane did for me, if it is still kept.

        It survives a crash: a proposal is on disk before it leaves.
        """

    def new_block(
        self, parent: Block | None, view: int, *, number: int | None = None, empty: bool = False
    ) -> Block | None:
        """A block of waiting transactions on top of `parent`; None if nothing waits and `empty` is false."""

    @property
    def block_interval_ns(self) -> int:
        """The least time between two proposals of one proposer."""

    def await_batch(self) -> bool:
        """Ask for BATCH when the next block is due. True: it is due now, and no BATCH follows."""

    def decide(self, block: Block) -> bool:
        """The block is final. False: it waits for its parent (if the protocol decides out of order)."""

    def place(self, block: Block, parent: Block | None) -> None:
        """Give an undecided block another parent (its position is what the protocol agreed on)."""

    def abandon(self, block: Block) -> None:
        """The block will never be decided: its transactions wait again."""

    def adopt(self, head: Block) -> None:
        """My chain ends in this block from now on (`forks`): an undecided one, on whatever branch.

        What was on the branch I leave waits again. If that was decided, finality is broken: it is given up,
        which the checks report as a violation.
        """

    def behind(self) -> bool:
        """Whether a block is decided here whose ancestors this replica lacks (it missed messages)."""

    @property
    def height(self) -> int:
        """Height of the last block decided here; 0 is the genesis block."""

    def decided_block(self, height: int) -> Block | None:
        """The block decided here at a height, if it still is in memory."""

    def follow(self, leader: int) -> None:
        """Pass my clients' transactions to this leader from now on."""

    def spread(self) -> None:
        """Pass what my clients wait for to all voters, once: who has nothing waiting sees no fault in its leader."""

    def serve(self, *, clients: bool) -> None:
        """Whether clients may submit here from now on. Those who may not turn to the next voter after a while."""

    def set_timer(self, timer: Timer, delay_ns: int, about: Any = None) -> int:
        """Start a timer; its handler gets `about`. Returns a handle for `cancel`."""

    def cancel(self, handle: int) -> None:
        """Stop a timer; a handle that has fired or was cancelled is fine."""

    def await_turn(self, turns: Turns, height: int, since_ns: int, lowest: int = 0) -> None:
        """Wait for my turn to propose at this height, on top of a block made at that time, and for no other turn.

        I propose nothing below height `lowest`: till then there is no timer. The wait goes on in the fast lane: a
        block that I take there ends it, and begins that for the height above.
        """

    def watch_progress(self, low_ns: int, high_ns: int | None = None) -> None:
        """NO_PROGRESS after this long without progress; with `high_ns`, each period is drawn anew from [low, high].

        0 stops the timer. What counts as progress is the protocol's `progress`.
        """

    def made_progress(self) -> None:
        """Restart the progress timer's period."""

    @property
    def since_progress_ns(self) -> int:
        """Time since the progress timer's period last began."""

    def enter_view(self, view: int) -> None:
        """Record that this replica works in a new view (term, round) now."""

    def persist(self, **facts: Any) -> None:
        """Write facts to stable storage; after a restart they are in `stable`."""

    def when_stored(self, then: Callable[[], None]) -> None:
        """Do this once what was persisted is on disk: at once if disks cost nothing, never after a crash."""

    @property
    def stable(self) -> dict[str, Any]:
        """Stable storage: what was persisted before."""

    def draw(self, purpose: str, low: int, high: int) -> int:
        """A random integer in [low, high], a function of seed, replica, purpose and how often it was asked."""


class Replica:
    """Base of all protocols: one instance per replica, handlers marked with `upon`."""

    handlers: ClassVar[dict[Any, str]] = {}
    invariants: ClassVar[dict[str, str]] = {}  # name -> method
    votes: ClassVar[tuple[VoteType, ...]] = ()
    letters: ClassVar[tuple[type[Letter], ...]] = ()
    later_letters: ClassVar[tuple[type[Letter], ...]] = ()  # numbered after votes: one more moves no draw of the others
    decides_out_of_order: ClassVar[bool] = False
    lasting_leader: ClassVar[bool] = True  # clients' transactions can be passed on to one leader
    forks: ClassVar[bool] = False  # undecided blocks may compete on several branches; a replica adopts one
    group_changes: ClassVar[Literal["never", "voters", "learners"]] = "never"  # live: no; yes; and it has learners
    progress: ClassVar[str] = "never"  # the progress timer runs: never, waiting (a transaction waits), always

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        table = dict(cls.handlers)
        for name, member in vars(cls).items():
            for cause in getattr(member, "_upon", ()):
                table[cause] = name
        cls.handlers = table
        named = {
            member.__dict__["_invariant"]: name
            for name, member in vars(cls).items()
            if "_invariant" in getattr(member, "__dict__", {})
        }
        cls.invariants = cls.invariants | named

    def __init__(self, context: Context) -> None:
        self.context = context
        self.parameters = context.parameters

    def quorums(self) -> dict[VoteType, Quorum]:
        """The quorum of every vote type."""
        raise NotImplementedError

    def quorum_of(self, vote: VoteType, ballot: Ballot) -> Quorum:
        """The quorum of one ballot where members change, all but theirs of weight 0: asked as its first vote is cast.

        It follows from the ballot: every replica that knows whose votes count would say the same.
        """
        return self.quorums()[vote]

    def voters_needed(self) -> int:
        """How many running voters, each linked with each, must be able to decide: the largest deciding quorum."""
        quorums = [quorum.voters_needed() for vote, quorum in self.quorums().items() if vote.decides]
        return max(quorums, default=self.context.n)

    def normal_cases(self) -> tuple[NormalCase, ...]:
        """The declared normal cases, one per type of letter; none: the protocol has no fast lane."""
        return ()

    @staticmethod
    def letter_of(block: Block) -> Letter:
        """The letter with which the lane proposed a block (see `Lead`)."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin; stable storage is empty at the first start."""
        raise NotImplementedError

    @property
    def view_number(self) -> int:
        """The view (term, round) this replica is in, for reports."""
        raise NotImplementedError

    def abstract_state(self) -> Hashable | None:
        """What decides how the next view will go, without anything that only grows: locks, not view numbers.

        If it comes back view after view and nothing is decided, the run is a livelock and not slow. None: unknown.
        """
        return None


def highest(blocks: Iterable[Block]) -> Block:
    """The block of greatest height."""
    return max(blocks, key=lambda block: block.height)
