"""Clique, proof of authority.

P. Szilagyi, "EIP-225: Clique proof-of-authority consensus protocol", Ethereum Improvement Proposals, 2017.

Authorised signers take turns to seal blocks: block h is in turn for signer h mod n and then weighs 2. If it does
not come, others may seal it out of turn, weight 1, each after a random wiggle, so that they seldom collide. A
signer may seal one of any floor(n/2) + 1 consecutive blocks, so a minority cannot seal a chain alone. The heaviest
chain counts. Nobody votes: a block is never final by rule, only ever deeper, and clients wait for a depth.

Final for certain at no depth: rival branches may be of any length while signers are apart, and the heavier wins.
Without a majority no branch grows for long, since a signer pauses for floor(n/2) blocks after its own; with
confirmations above that number both halves of a split cannot decide. A Byzantine signer that seals on both sides
still parts them.
Live while a majority seals and hears of each other's blocks.

paper                     here
-----                     ----
SIGNER_COUNT, N           context.n
SIGNER_INDEX, I           context.me
SIGNER_LIMIT              signer_limit(): floor(n/2) + 1
BLOCK_PERIOD              block_period
DIFF_INTURN, DIFF_NOTURN  IN_TURN, OUT_OF_TURN
header                    Header, the block's body: signer, difficulty, time, the last signers
total difficulty          Header.total
head of the chain         head; reorganisations are adopt()
confirmations             confirmations: a block is decided when the head is this much higher

Deviations
* The wiggle is drawn from [0, wiggle (floor(n/2) + 1)), as go-ethereum does; the proposal says wiggle n.
* Equal total difficulties: the lower chain, then the block with the lower (drawn) hash; go-ethereum takes the lower
  chain, then tosses a coin. `tie_break: first_seen` keeps the branch that came first.
* A block is filled when it is sealed; go-ethereum fills it when its parent came and a few times since.
* The sealer sends a block to all, or with `spread: hops` as go-ethereum does (sim.families.forks.spread). Who lacks a
  parent asks the sender. A replica that has had no new head for `status_interval` tells its own, again and again, which
  stands for the handshake of peers that find each other again.
* A block's time is in ns, not in whole seconds. One from the future, by the receiver's clock, is kept until its time,
  or refused beyond 30 s; go-ethereum looks at those it keeps every 5 s.

Not modelled: voting signers in and out, epochs and checkpoints, gas, uncles (Clique has none), disk writes.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from sim.families.forks.branches import (
    EARLY,
    Blocks,
    Branches,
    GetBlocks,
    NewBlock,
    Status,
    guard_upon,
    lies_on_decided,
    links,
)
from sim.families.forks.spread import ARRIVES_NS, MISSED, Announce, HopByHop
from sim.families.turns import FirstLeader
from sim.parameters import Nanoseconds, count, quantity
from sim.protocol import (
    NO_PROGRESS,
    Block,
    Context,
    FastPath,
    NormalCase,
    Quorum,
    Replica,
    Timer,
    Turns,
    VoteType,
    invariant,
    upon,
)

IN_TURN, OUT_OF_TURN = 2, 1
HASH_MAX = (1 << 31) - 2
MAX_TIME_FUTURE_NS = 30 * 10**9  # a block from beyond that is refused


class CliqueParameters(FirstLeader):
    """Parameters of Clique."""

    block_period_ns: Nanoseconds = quantity("5 s", "least time between a block and its parent", positive=True)
    wiggle_ns: Nanoseconds = quantity("500 ms", "out of turn: a random delay below this times floor(n/2) + 1")
    confirmations: int | None = count(
        None, "blocks on top of one that make it final for this replica; default floor(n/2) + 1"
    )
    tie_break: Literal["lowest_hash", "first_seen"] = Field(
        "lowest_hash", description="of two branches of equal total difficulty and height, which one counts"
    )
    spread: Literal["all", "hops"] = Field(
        default="all", description="blocks go from their sealer to all, or hop by hop to the square root of the peers"
    )
    blocks_per_answer: int = count(64, "most blocks sent at a time to one who lacks them", low=1)
    request_timeout_ns: Nanoseconds = quantity("2 s", "a request for blocks is not repeated before", positive=True)
    status_interval_ns: Nanoseconds = quantity(
        "10 s", "a replica without a new head for this long tells all what its head is", positive=True
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """What Clique keeps with a block."""

    signer: int
    difficulty: int
    total: int  # difficulty of the whole chain
    time_ns: int
    recent: tuple[int, ...]  # who sealed the last floor(n/2) blocks, this one included
    hash: int


GENESIS = Header(-1, 0, 0, 0, (), 0)
SEAL = Timer("seal")


class Clique(Replica):
    """One Clique signer."""

    messages = (NewBlock, Status, GetBlocks, Blocks)
    later_messages = (Announce,)
    votes = ()
    lasting_leader = False
    forks = True
    progress = "always"  # a new head
    executes = "before_vote"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.head: Block | None = None
        self.hops = HopByHop(context) if self.parameters.spread == "hops" else None
        range_ns = self.parameters.wiggle_ns * self.signer_limit()
        place = self.place_of(context.me)
        self.turns = Turns(SEAL, self.parameters.block_period_ns, range_ns, place=place, places=context.n)
        # the head and the blocks below it, down to the one that it makes final
        self.buried: collections.deque[Block] = collections.deque(maxlen=self.confirmations() + 1)

    @property
    def view_number(self) -> int:
        head = self.chain()
        return 0 if head is None else head.height

    def signer_limit(self) -> int:
        """SIGNER_LIMIT: of so many consecutive blocks a signer may seal one."""
        return self.context.n // 2 + 1

    def voters_needed(self) -> int:
        return self.signer_limit()

    def confirmations(self) -> int:
        """How deep a block lies when it is taken to be final."""
        chosen: int | None = self.parameters.confirmations
        return self.signer_limit() if chosen is None else chosen

    def time_to_final_ns(self) -> int:
        """A block and its confirmations, each a wiggle late."""
        return int((self.confirmations() + 1) * (self.parameters.block_period_ns + self.parameters.wiggle_ns))

    def normal_cases(self) -> tuple[NormalCase, ...]:
        return (NormalCase(upon=NewBlock),) if self.parameters.spread == "all" else ()

    def quorums(self) -> dict[VoteType, Quorum]:
        return {}

    def start(self) -> None:
        context, parameters, stable = self.context, self.parameters, self.context.disk.stable
        if not stable:
            context.disk.persist(known={}, head=None)
        self.branches = Branches(
            context,
            self.valid,
            known=stable["known"],
            early_ns=self.early_ns,
            blocks_per_answer=parameters.blocks_per_answer,
            patience_ns=parameters.request_timeout_ns,
        )
        self.head = stable["head"]
        self.bury_under(self.head)
        self.prepare()
        context.clock.watch_progress(parameters.status_interval_ns)

    # --- the fast path: a block that extends the head -----------------------------------------------------

    def absorb_fast_path(self) -> None:
        """Learn what the fast path accepted and decided since the last handler ran."""
        head = self.context.fast_path.block()
        if head is not None and head is not self.head:
            self.buried.extend(self.branches.follow(head))
            self.head = head
            self.context.disk.persist(head=head)

    def guard(self) -> int | None:
        """My head, unless some block waits for its parent."""
        return None if self.branches.waiting else guard_upon(self.head, self.context.height)

    def send(self, block: Block, time_ns: int) -> None:
        """Send a block that I sealed on my head to all; who has the same head decides what I decide."""
        context, height = self.context, self.context.height
        if self.hops is not None:
            context.pacing.begin_interval()
            self.hops.has(context.me, block)
            self.hops.pass_on(block)
            self.hops.announce(block)
            return
        final = self.final_under(block)
        if final is not None and final.height > height + 1:
            context.pacing.begin_interval()
            context.broadcast(NewBlock(block))
            return
        after = guard_upon(block, height if final is None else final.height)
        context.propose(
            NewBlock(block),
            context.votes.ballot(block.view, block.height, block),
            FastPath(before=guard_upon(self.head, height), after=after, decided=final, made_ns=time_ns),
        )

    @staticmethod
    def known_weakness(
        kind: str, *, sizes: Collection[int], gone: Collection[int], lying: bool, lossy: bool,
        parameters: Mapping[str, Any],
    ) -> str:  # fmt: skip
        if kind == "safety":
            return "final by depth: only while the network is synchronous"
        waits = parameters.get("tie_break") == "first_seen"  # three branches of four signers are enough
        return "signers on equal branches who wait for one another (EIP-3436)" if waits else ""

    # --- invariants --------------------------------------------------------------------------------------

    def chain(self) -> Block | None:
        """The head, as of the last block that the fast path accepted."""
        return self.context.fast_path.block() or self.head

    def last_links(self) -> Iterator[tuple[Block, Block | None]]:
        """The last SIGNER_LIMIT blocks of this signer's chain, each with its parent."""
        return links(self.chain(), self.view_number - self.signer_limit())

    @invariant("the head lies on the decided chain")
    def head_is_on_decided(self) -> bool:
        """What is final for this signer is never given up."""
        return lies_on_decided(self.context, self.chain())

    @invariant("of SIGNER_LIMIT consecutive blocks no signer sealed two")
    def signers_take_turns(self) -> bool:
        """The recency rule, of the end of the chain."""
        signers = [self.header_of(block).signer for block, _ in self.last_links()]
        return len(signers) == len({*signers})

    @invariant("blocks are BLOCK_PERIOD apart, and each adds its difficulty")
    def headers_follow(self) -> bool:
        """At the end of the chain."""
        pairs = [(self.header_of(block), self.header_of(parent)) for block, parent in self.last_links()]
        return all(
            header.time_ns >= parent.time_ns + self.parameters.block_period_ns
            and header.total == parent.total + header.difficulty
            for header, parent in pairs
        )

    # --- sealing -----------------------------------------------------------------------------------------

    def header_of(self, block: Block | None) -> Header:
        """A block's header; the genesis block's for None."""
        if block is None:
            return GENESIS
        header: Header = block.body
        return header

    def difficulty(self, signer: int, height: int) -> int:
        """Weight of a signer's block at a height."""
        return IN_TURN if height % self.context.n == self.place_of(signer) else OUT_OF_TURN

    def place_of(self, signer: int) -> int:
        """The first height (modulo n) at which a signer is in turn: signer 1 at height 1, or the first leader is."""
        later: int = self.parameters.steps_to(1)
        return (signer - later) % self.context.n

    def leader(self, ahead: int = 0) -> int | None:
        """Who is in turn on my head."""
        height = 1 if self.head is None else self.head.height + 1
        later: int = self.parameters.steps_to(1)
        return (height + ahead + later) % self.context.n

    def may_seal(self, signer: int, parent: Header) -> bool:
        """The recency rule: whoever sealed one of the last SIGNER_LIMIT - 1 blocks may not seal the next."""
        return signer not in parent.recent

    def prepare(self) -> None:
        """Wait for the time at which I may seal the next block on my head."""
        me, parent = self.context.me, self.header_of(self.head)
        height = 1 if self.head is None else self.head.height + 1
        lowest = 0
        if not self.may_seal(me, parent):
            lowest = height - len(parent.recent) + parent.recent.index(me) + self.signer_limit()
        self.context.pacing.await_turn(self.turns, height, parent.time_ns, lowest)

    @upon(SEAL)
    def on_time_to_seal(self, time_ns: int) -> None:
        """No block came before my time: seal one and send it to all."""
        context = self.context
        height = 1 if self.head is None else self.head.height + 1
        block = context.new_block(self.head, height, empty=True)
        assert block is not None
        parent, difficulty = self.header_of(self.head), self.difficulty(context.me, height)
        recent = (*parent.recent, context.me)[max(len(parent.recent) + 2 - self.signer_limit(), 0) :]
        block.body = Header(
            context.me, difficulty, parent.total + difficulty, time_ns, recent, context.draw("hash", 0, HASH_MAX)
        )
        self.send(block, time_ns)
        self.choose(self.branches.receive(context.me, block))

    # --- choosing a branch -------------------------------------------------------------------------------

    def valid(self, block: Block) -> bool:
        """Whether a block follows the rules, given its parent."""
        if block.parent is not None and block.parent.body is None:
            return False  # it branches off below what everybody has decided
        header, parent = self.header_of(block), self.header_of(block.parent)
        difficulty = self.difficulty(header.signer, block.height)
        return (
            self.may_seal(header.signer, parent)
            and header.difficulty == difficulty
            and header.total == parent.total + difficulty
            and header.time_ns >= parent.time_ns + self.parameters.block_period_ns
        )

    def better(self, block: Block, head: Block | None) -> bool:
        """Whether a chain that ends in this block counts more than one that ends in the head."""
        if head is None:
            return True
        new, old = self.header_of(block), self.header_of(head)
        if (new.total, -block.height) != (old.total, -head.height):
            return (new.total, -block.height) > (old.total, -head.height)
        return self.parameters.tie_break == "lowest_hash" and new.hash < old.hash

    def early_ns(self, block: Block) -> int | None:
        """How long until a block's time has come by my clock; None if that is too far."""
        if block.body is None or self.context.clock.all_agree:
            return 0  # it is behind everybody, or can be early by its sealer's timer only
        early_ns = max(self.header_of(block).time_ns - self.context.clock.time_ns, 0)
        return None if early_ns > MAX_TIME_FUTURE_NS else early_ns

    @upon(EARLY)
    def on_its_time(self, about: tuple[int, Block]) -> None:
        """The time of a block that came early has come."""
        self.choose(self.branches.receive(*about))

    def choose(self, blocks: list[Block]) -> None:
        """Adopt the best of these blocks if it beats the head."""
        best = self.head
        for block in blocks:
            if self.better(block, best):
                best = block
        if best is not None and best is not self.head:
            self.adopt(best)

    def adopt(self, block: Block) -> None:
        """The chain ends in this block: what lies deep enough in it is final."""
        context = self.context
        if block.parent is self.head:
            self.buried.append(block)
        else:
            self.bury_under(block)
        self.head = block
        context.disk.persist(head=block)
        context.chain.adopt(block)
        context.clock.made_progress()
        final = self.buried[0] if len(self.buried) == self.buried.maxlen else None
        if final is not None and final.row >= 0:
            self.branches.decide_to(final)
        self.prepare()

    def final_under(self, block: Block) -> Block | None:
        """What a block on my head makes final, if it is not decided already."""
        depth = self.confirmations()
        if depth > len(self.buried):
            return None
        final = block if depth == 0 else self.buried[-depth]
        return final if final.row >= 0 and final.height > self.context.height else None

    def bury_under(self, head: Block | None) -> None:
        """The chain is another one."""
        self.buried.clear()
        block, depth = head, self.confirmations()
        while block is not None and len(self.buried) <= depth:
            self.buried.appendleft(block)
            block = block.parent

    # --- exchange of blocks ------------------------------------------------------------------------------

    @upon(NewBlock)
    def on_new_block(self, sender: int, message: NewBlock) -> None:
        """A block was sealed."""
        hops, block = self.hops, message.block
        if hops is not None:
            hops.has(sender, block)
            if not self.branches.knows(block):
                hops.pass_on(block)
                self.choose(self.branches.receive(sender, block))
                hops.announce(block)
                return
        self.choose(self.branches.receive(sender, block))

    @upon(Announce)
    def on_announce(self, sender: int, message: Announce) -> None:
        """Somebody has a block: if it does not come by itself, it is asked for."""
        if self.hops is not None:
            self.hops.has(sender, message.block)
            if not self.branches.knows(message.block):
                self.context.set_timer(MISSED, ARRIVES_NS, (sender, message.block))

    @upon(MISSED)
    def on_missed(self, about: tuple[int, Block]) -> None:
        """A block that was announced should have come: ask for it, once.

        Who asks again and again leaves others no turn, and may be asking a signer that is gone; a block that still
        lacks when all is quiet is somebody's head, or under it.
        """
        self.branches.look_at(*about)

    @upon(NO_PROGRESS)
    def on_quiet(self) -> None:
        """Tell all what my head is, for it has been the same for long: they, or I, may have missed something."""
        if self.head is not None:
            self.context.broadcast(Status(self.head))
        self.context.clock.watch_progress(self.parameters.status_interval_ns)

    @upon(Status)
    def on_status(self, sender: int, message: Status) -> None:
        """Another's head: if I lack it, ask for it."""
        self.branches.look_at(sender, message.head)

    @upon(GetBlocks)
    def on_get_blocks(self, sender: int, message: GetBlocks) -> None:
        """Somebody lacks blocks."""
        self.branches.answer(sender, message)

    @upon(Blocks)
    def on_blocks(self, sender: int, message: Blocks) -> None:
        """Blocks that I lacked."""
        fresh = self.branches.receive_answer(sender, message)
        if self.hops is not None and fresh:
            self.hops.has(sender, fresh[-1])
            self.hops.pass_on(fresh[-1])
            self.hops.announce(fresh[-1])
        self.choose(fresh)
