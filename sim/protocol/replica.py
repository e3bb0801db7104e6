"""The class that protocols derive from."""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import Any, ClassVar, Literal

from sim.protocol.ballots import Ballot
from sim.protocol.blocks import Block
from sim.protocol.context import Context
from sim.protocol.messages import Message, Quorum, VoteType
from sim.protocol.normal_case import NormalCase


class Replica(abc.ABC):
    """Base of all protocols: one instance per replica, handlers marked with `upon`."""

    handlers: ClassVar[dict[Any, str]] = {}
    invariants: ClassVar[dict[str, str]] = {}  # name -> method
    votes: ClassVar[tuple[VoteType, ...]] = ()
    messages: ClassVar[tuple[type[Message], ...]] = ()
    later_messages: ClassVar[
        tuple[type[Message], ...]
    ] = ()  # numbered after votes: one more moves no draw of the others
    decides_out_of_order: ClassVar[bool] = False
    lasting_leader: ClassVar[bool] = True  # clients' transactions can be passed on to one leader
    rounds_restart: ClassVar[bool] = False  # views are rounds of a height, and begin at 0 at the next one
    block_rules: ClassVar[frozenset[str]] = frozenset()  # of a scenario's block: batch_timeout, period
    executes: ClassVar[Literal["before_vote", "between", "after"]] = "after"  # blocks, where platforms run it
    answers_reads: ClassVar[bool] = False  # clients may read, too (`Clients.answer_read`)
    forks: ClassVar[bool] = False  # undecided blocks may compete on several branches; a replica adopts one
    group_changes: ClassVar[Literal["never", "voters", "learners"]] = "never"  # live: no; yes; and it has learners
    admits_at_once: ClassVar[bool] = False  # newcomers are not waited for, where the platforms that run it do not
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

    @abc.abstractmethod
    def quorums(self) -> dict[VoteType, Quorum]:
        """The quorum of every vote type."""

    def quorum_of(self, vote: VoteType, ballot: Ballot) -> Quorum:
        """The quorum of one ballot where members change, all but theirs of weight 0: asked as its first vote is cast.

        It follows from the ballot: every replica that knows whose votes count would say the same.
        """
        return self.quorums()[vote]

    def voters_needed(self) -> int:
        """How many running voters, each linked with each, must be able to decide: the largest deciding quorum."""
        quorums = [quorum.voters_needed() for vote, quorum in self.quorums().items() if vote.decides]
        return max(quorums, default=self.context.n)

    def needs(self) -> tuple[Quorum, ...]:
        """What running voters, each linked with each, must all meet to be able to decide, as far as is known here.

        Where members change: a quorum of the group in force, and of one to come that is decided on or under way.
        """
        weighted = tuple(quorum for vote, quorum in self.quorums().items() if vote.decides and quorum.weights)
        return weighted or (Quorum(self.voters_needed()),)

    def carried_out(self) -> Collection[int]:
        """Numbers of the operator's requests (see MembersChange) that are carried out, as far as is known here."""
        return ()

    def time_to_final_ns(self) -> int:
        """How long the rules alone keep a block from being final while enough voters run: 0 where votes decide."""
        return 0

    def normal_cases(self) -> tuple[NormalCase, ...]:
        """The declared normal cases, one per type of message; none: the protocol has no fast path."""
        return ()

    @staticmethod
    def message_of(block: Block) -> Message:
        """The message with which the fast path proposed a block (see `Lease`)."""
        raise TypeError(f"{block} was proposed by a lease; a protocol that gives leases says with which message")

    @staticmethod
    def known_weakness(
        kind: str, *, sizes: Collection[int], gone: Collection[int], lying: bool, lossy: bool,
        parameters: Mapping[str, Any],
    ) -> str:  # fmt: skip
        """Why safety or liveness (`kind`) may be broken although few enough are at fault, in words; '' if it may not.

        `sizes`: of the groups that decide; `gone`: who is crashed for good, or corrupted; `lying`: whether some are;
        `lossy`: whether links lose messages for good all the time; `parameters`: as a scenario writes them, where they
        are not the defaults. For judges of drawn runs: what a protocol's page says that it cannot do is no finding.
        """
        return ""

    def absorb_fast_path(self) -> None:
        """Make my own what the fast path did for me since, and write down of it what I must not forget.

        Called before each of my handlers, and before a crash: a handler never sees a state that is out of date.
        """
        return  # who declares no normal case has nothing to absorb

    def guard(self) -> int | None:
        """What a normal case must name for me to follow it without my handlers; None: every event comes to them.

        A function of my state and nothing else. Asked after each of my handlers; a normal case moves it on.
        """
        return None

    def bound_handlers(self) -> dict[Any, Callable[..., None]]:
        """My handlers by what calls them."""
        return {cause: getattr(self, name) for cause, name in self.handlers.items()}

    @abc.abstractmethod
    def start(self) -> None:
        """Begin; stable storage is empty at the first start."""

    @property
    @abc.abstractmethod
    def view_number(self) -> int:
        """The view (term, round) this replica is in, for reports."""

    def leader(self, ahead: int = 0) -> int | None:
        """Who leads the view (term, round) that I am in, or the one so many later; None: nobody that I know of."""
        return None

    def waits_for(self) -> str:
        """What I wait for besides votes, and what binds my own, in words; '' if nothing. For verdicts on a halt."""
        return ""

    def abstract_state(self) -> Hashable | None:
        """What decides how the next view will go, without anything that only grows: locks, not view numbers.

        If it comes back view after view and nothing is decided, the run is a livelock and not slow. None: unknown.
        """
        return None


def highest(blocks: Iterable[Block]) -> Block:
    """The block of greatest height."""
    return max(blocks, key=lambda block: block.height)
