"""Aura, authority round.

"Aura - Authority Round", Parity Technologies, OpenEthereum wiki, 2017, and OpenEthereum 3.3 (2021),
ethcore/engines/authority-round: lib.rs (steps, score) and finality.rs (rolling finality).

Time is cut into steps. In step s the validator s mod n, its primary, seals one block on its head and sends it to all;
nobody votes. The chain of greatest score counts: the longer one, and of two equally long the one whose head is from
the earlier step. A block is final for a replica when the blocks from it up to the head, itself included, were sealed
by more than a given share of the validators.

Safe while validators are honest and blocks reach all within a step. If not, the rule counts who sealed, not who
agreed: with clocks or links apart each side of a split can collect its share, unless the share is above half of all
(then one side only) and none of them seals on both sides.
Live while the share of validators that the rule asks for seals, a step each in n.

paper                     here
-----                     ----
step, stepDuration        step_at(), step_duration
primary                   primary(): step mod n
calculate_score           SCORE_MAX + parent's step - step
RollingFinality           Window
sign_count, is_finalized  Window.blocks_of, enough()
twoThirdsMajority         finality: two_thirds (more than 2n/3 signers), majority (more than n/2, without it)

Deviations
* The default is two_thirds; OpenEthereum's is majority unless the chain's specification sets a transition.
* A sealer sends its block to all; OpenEthereum sends it to some and announces it to others. Who lacks a parent asks
  the sender.
* A block of a step to come, by the receiver's clock, is kept until that begins, or refused if it is more than four
  steps ahead; OpenEthereum has it sent again. A step's block is filled and sealed when the step begins.
* A validator that restarts in its own step seals then, if it had not.

Not modelled: empty-step messages, changes of the validator set by contract, reports of misbehaviour, block rewards,
disk writes.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from pydantic import Field

from sim.families.forks.branches import EARLY, Blocks, Branches, GetBlocks, NewBlock, guard_upon, lies_on_decided, links
from sim.families.turns import FirstLeader
from sim.parameters import Nanoseconds, count, quantity
from sim.protocol import Block, Context, FastPath, NormalCase, Quorum, Replica, Timer, VoteType, invariant, upon

SCORE_MAX = (1 << 128) - 1
REJECTED_STEP_DRIFT = 4  # a block of a step farther ahead is refused


class AuraParameters(FirstLeader):
    """Parameters of Aura."""

    step_duration_ns: Nanoseconds = quantity("5 s", "length of a step, in which one block is sealed", positive=True)
    finality: Literal["two_thirds", "majority"] = Field(
        "two_thirds",
        description="a block is final when more than two thirds, or half, of the validators sealed one from it on",
    )
    blocks_per_answer: int = count(64, "most blocks sent at a time to one who lacks them", low=1)
    request_timeout_ns: Nanoseconds = quantity("2 s", "a request for blocks is not repeated before", positive=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """What Aura keeps with a block."""

    signer: int
    step: int
    total: int  # score of the whole chain


GENESIS = Header(-1, 0, 0)
STEP = Timer("step")


class Window:
    """The blocks at the end of a chain that its finality hangs on: no more than it takes for enough signers."""

    def __init__(self, enough: Callable[[int], bool]) -> None:
        self.enough = enough
        self.blocks: collections.deque[tuple[Block, int]] = collections.deque()  # oldest first, with their signers
        self.blocks_of: dict[int, int] = {}  # how many of them a signer sealed

    @property
    def lowest(self) -> Block:
        """The first block in it: the highest final one, if there are enough signers."""
        return self.blocks[0][0]

    @property
    def last(self) -> Block | None:
        """The last block in it."""
        return self.blocks[-1][0] if self.blocks else None

    @property
    def signers(self) -> int:
        """How many validators sealed these blocks."""
        return len(self.blocks_of)

    def extend(self, block: Block, signer: int) -> None:
        """The chain goes on."""
        self.blocks.append((block, signer))
        self.blocks_of[signer] = self.blocks_of.get(signer, 0) + 1
        self.narrow()

    def narrow(self) -> None:
        """Drop the lowest blocks as long as the others are enough without them."""
        while self.blocks and self.enough(self.signers - (self.blocks_of[self.blocks[0][1]] == 1)):
            _, lowest = self.blocks.popleft()
            self.blocks_of[lowest] -= 1
            if not self.blocks_of[lowest]:
                del self.blocks_of[lowest]

    def restart(self, path: Collection[tuple[Block, int]]) -> None:
        """The chain is another one."""
        self.blocks = collections.deque(path)
        self.blocks_of = collections.Counter(signer for _, signer in path)
        self.narrow()


class Aura(Replica):
    """One Aura validator."""

    messages = (NewBlock, GetBlocks, Blocks)
    votes = ()
    lasting_leader = False
    forks = True
    executes = "before_vote"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.head: Block | None = None
        self.newest_step = 0  # that my clock showed when I took a block: it may have been set back since
        self.window = Window(self.enough)

    @property
    def view_number(self) -> int:
        return self.step_at(self.context.clock.time_ns)

    def normal_cases(self) -> tuple[NormalCase, ...]:
        return (NormalCase(upon=NewBlock),)

    def quorums(self) -> dict[VoteType, Quorum]:
        return {}

    def voters_needed(self) -> int:
        return next(signers for signers in range(1, self.context.n + 1) if self.enough(signers))

    def time_to_final_ns(self) -> int:
        """One round: every validator that runs has sealed by then."""
        return int(self.context.n * self.parameters.step_duration_ns)

    def start(self) -> None:
        context, parameters, stable = self.context, self.parameters, self.context.disk.stable
        if not stable:
            context.disk.persist(known={}, head=None, sealed_step=0)
        self.branches = Branches(
            context,
            self.valid,
            known=stable["known"],
            early_ns=self.early_ns,
            blocks_per_answer=parameters.blocks_per_answer,
            patience_ns=parameters.request_timeout_ns,
        )
        self.head = stable["head"]
        self.window.restart(self.undecided(self.head))
        self.await_step()

    @staticmethod
    def known_weakness(
        kind: str, *, sizes: Collection[int], gone: Collection[int], lying: bool, lossy: bool,
        parameters: Mapping[str, Any],
    ) -> str:  # fmt: skip
        return "final by depth: only while the network is synchronous" if kind == "safety" else ""

    # --- invariants --------------------------------------------------------------------------------------

    def chain(self) -> Block | None:
        """The head, as of the last block that the fast path accepted."""
        return self.context.fast_path.block() or self.head

    @invariant("the head lies on the decided chain")
    def head_is_on_decided(self) -> bool:
        """What is final for this validator is never given up."""
        return lies_on_decided(self.context, self.chain())

    @invariant("steps grow along the chain, and each block is its step's primary's")
    def steps_grow(self) -> bool:
        """Of the blocks that are not decided; none is of a step to come."""
        pairs = [(block.body, self.header_of(parent)) for block, parent in links(self.chain(), self.context.height)]
        now = max(self.step_at(self.context.clock.time_ns), self.newest_step)
        return all(
            parent.step < header.step <= now and header.signer == self.primary(header.step) for header, parent in pairs
        )

    @invariant("whatever it sealed is of a step that it has noted")
    def seals_once(self) -> bool:
        """So that it seals one block a step, restarts or not."""
        context = self.context
        mine = [block.body for block, _ in links(self.chain(), context.height) if block.proposer == context.me]
        return all(header.step <= context.disk.stable["sealed_step"] for header in mine)

    # --- the fast path: a block that extends the head -----------------------------------------------------

    def absorb_fast_path(self) -> None:
        """Learn what the fast path accepted and decided since the last handler ran."""
        head = self.context.fast_path.block()
        if head is not None and head is not self.head:
            self.branches.follow(head)
            self.window.restart(self.undecided(head))
            self.head = head
            self.context.disk.persist(head=head)

    def guard(self) -> int | None:
        """My head, unless some block waits for its parent."""
        return None if self.branches.waiting else guard_upon(self.head, self.context.height)

    def send(self, block: Block) -> None:
        """Send a block that I sealed on my head to all; who has the same head decides what I decide."""
        context, height = self.context, self.context.height
        self.window.extend(block, context.me)
        final = self.final_block()
        if (final is not None and final.height > height + 1) or block.view > self.step_at(context.clock.time_ns):
            context.broadcast(NewBlock(block))
            return
        after = guard_upon(block, height if final is None else final.height)
        context.propose(
            NewBlock(block),
            context.votes.ballot(block.view, block.height, block),
            FastPath(before=guard_upon(self.head, height), after=after, decided=final),
        )

    # --- steps -------------------------------------------------------------------------------------------

    def step_at(self, time_ns: int) -> int:
        """The step of a time."""
        return time_ns // int(self.parameters.step_duration_ns)

    def primary(self, step: int) -> int:
        """Who may seal in a step."""
        later: int = self.parameters.steps_to(1)
        return (step + later) % self.context.n

    def leader(self, ahead: int = 0) -> int | None:
        return self.primary(self.step_at(self.context.clock.time_ns) + ahead)

    def await_step(self) -> None:
        """Wait for the next step that is mine and in which I have sealed nothing."""
        context = self.context
        step = max(self.step_at(context.clock.time_ns), context.disk.stable["sealed_step"] + 1)
        step += (context.me - self.primary(step)) % context.n
        begin_ns = step * self.parameters.step_duration_ns
        context.set_timer(STEP, max(begin_ns - context.clock.time_ns, 0), step)

    @upon(STEP)
    def on_step(self, step: int) -> None:
        """My step: seal a block on my head and send it to all."""
        context, parent = self.context, self.header_of(self.head)
        context.disk.persist(sealed_step=step)
        if step > parent.step:
            block = context.new_block(self.head, step, empty=True)
            assert block is not None
            block.body = Header(context.me, step, parent.total + self.score(parent.step, step))
            self.send(block)
            self.choose(self.branches.receive(context.me, block))
        self.await_step()

    # --- choosing a branch -------------------------------------------------------------------------------

    def header_of(self, block: Block | None) -> Header:
        """A block's header; the genesis block's for None."""
        if block is None:
            return GENESIS
        header: Header = block.body
        return header

    def score(self, parent_step: int, step: int) -> int:
        """What a block adds to its chain: one more block outweighs any number of steps passed over."""
        return SCORE_MAX + parent_step - step

    def valid(self, block: Block) -> bool:
        """Whether a block follows the rules, given its parent."""
        if block.parent is not None and block.parent.body is None:
            return False  # it branches off below what everybody has decided
        header, parent = self.header_of(block), self.header_of(block.parent)
        return (
            header.signer == self.primary(header.step)
            and parent.step < header.step <= self.step_at(self.context.clock.time_ns)
            and header.total == parent.total + self.score(parent.step, header.step)
        )

    def early_ns(self, block: Block) -> int | None:
        """How long until a block's step begins by my clock; None if that is too far."""
        if block.body is None:
            return 0  # it is behind everybody
        step, now = self.header_of(block).step, self.step_at(self.context.clock.time_ns)
        self.newest_step = max(self.newest_step, now)
        if step > now + REJECTED_STEP_DRIFT:
            return None
        return max(step * self.parameters.step_duration_ns - self.context.clock.time_ns, 0) if step > now else 0

    @upon(EARLY)
    def on_begun(self, about: tuple[int, Block]) -> None:
        """The step of a block that came early has begun."""
        self.choose(self.branches.receive(*about))

    def choose(self, blocks: list[Block]) -> None:
        """Adopt the best of these blocks if its chain's score is above that of the head."""
        best = self.head
        for block in blocks:
            if self.header_of(block).total > self.header_of(best).total:
                best = block
        if best is not None and best is not self.head:
            self.adopt(best)

    def adopt(self, block: Block) -> None:
        """The chain ends in this block: decide what is final in it."""
        if block.parent is self.head and self.window.last is self.head:
            self.window.extend(block, self.header_of(block).signer)
        elif self.window.last is not block:  # another branch, or what I sealed by a clock that was ahead: nobody's head
            self.window.restart(self.undecided(block))
        self.head = block
        self.context.disk.persist(head=block)
        self.context.chain.adopt(block)
        final = self.final_block()
        if final is not None:
            self.branches.decide_to(final)

    # --- finality ----------------------------------------------------------------------------------------

    def enough(self, signers: int) -> bool:
        """Whether so many distinct signers make a block final."""
        n = self.context.n
        return 3 * signers > 2 * n if self.parameters.finality == "two_thirds" else 2 * signers > n

    def undecided(self, head: Block | None) -> list[tuple[Block, int]]:
        """The chain that ends in a block, from above the last one decided here, with signers."""
        path, decided = [], self.context.height
        block = head
        while block is not None and block.height > decided:
            path.append((block, block.body.signer))
            block = block.parent
        return path[::-1]

    def final_block(self) -> Block | None:
        """The highest block that is final, if it is not decided already."""
        if not self.enough(self.window.signers):
            return None
        lowest = self.window.lowest
        return lowest if lowest.height > self.context.height else None

    # --- exchange of blocks ------------------------------------------------------------------------------

    @upon(NewBlock)
    def on_new_block(self, sender: int, message: NewBlock) -> None:
        """A block was sealed."""
        self.choose(self.branches.receive(sender, message.block))

    @upon(GetBlocks)
    def on_get_blocks(self, sender: int, message: GetBlocks) -> None:
        """Somebody lacks blocks."""
        self.branches.answer(sender, message)

    @upon(Blocks)
    def on_blocks(self, sender: int, message: Blocks) -> None:
        """Blocks that I lacked."""
        self.choose(self.branches.receive_answer(sender, message))
