"""A host joins one replica to the engine: the core of the `Context` the replica sees; `parts` holds the rest."""

from __future__ import annotations

import difflib
import typing
import zlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from sim.engine import actions, entry
from sim.host.blocks import LinkedBlock
from sim.host.costs import ProtocolError
from sim.host.fast_path import FastPathBracket
from sim.host.parts import (
    ChainPart,
    ClientsPart,
    ClockPart,
    DiskPart,
    GossipPart,
    MembershipPart,
    PacingPart,
    VotesPart,
)
from sim.kernel import chance, tally
from sim.kernel import run_state as kernel
from sim.ledger import rows as ledger
from sim.protocol import ALL, Audience, Ballot, Block, Context, FastPath, Message, Replica, Timer, Tree, VoteType

if TYPE_CHECKING:
    from sim.host.run import Run


class ReplicaContext:
    """One replica's context. Attributes and methods as described in `sim.protocol.Context`."""

    def __init__(self, run: Run, seat: int) -> None:
        self.run = run
        self.seat = seat
        self.me = run.name_of_seat[seat]
        self.n = run.engine.voters
        self.parameters = run.parameters_of.get(seat, run.parameters)
        self.replica: Replica | None = None
        self.handlers: dict[Any, Callable[..., None]] = {}
        self._asked: dict[str, int] = {}
        self._run_state = run.engine.state
        self._height_at = seat * ledger.PEER_WIDTH + ledger.TIP_HEIGHT
        self.is_voter = run.engine.identity[seat] >= 0  # an observer has no identity
        self.votes = VotesPart(self)
        self.chain = ChainPart(self)
        self.disk = DiskPart(self)
        self.pacing = PacingPart(self)
        self.clock = ClockPart(self)
        self.clients = ClientsPart(self)
        self.membership = MembershipPart(self)
        self.gossip = GossipPart(self)
        self.fast_path = FastPathBracket(
            self, allowed=run.fast_path_allowed and seat not in run.wrappers and self.is_voter
        )

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Whoever asks for what is not here is told where it may be."""
            raise AttributeError(_not_here(name))

    # --- time and chance -------------------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        return self.run.scalars[kernel.NOW]

    def draw(self, purpose: str, low: int, high: int) -> int:
        number = self._asked.get(purpose, 0)
        self._asked[purpose] = number + 1
        key = zlib.crc32(purpose.encode())
        span = high - low + 1
        if span >= 1 << 31:
            raise ProtocolError(f"draw range [{low}, {high}] is too wide: at most 2**31 - 1 values")
        return low + chance.draw_below(span, self.run.seed, chance.TIMEOUT, self.seat, key, number)

    def quiet(self) -> None:
        """Forget the timers of a replica that crashed."""
        mine = [number for number, (_, _, node) in self.run.timers.items() if node == self.seat]
        for number in mine:
            del self.run.timers[number]
        self.pacing.forget()
        self.clock.forget()

    # --- messages --------------------------------------------------------------------------------------

    def send(self, to: int | tuple[int, ...], message: Message) -> None:
        messages = self.run.messages
        if isinstance(to, tuple):
            messages.post(self.seat, messages.several(to), message)
            return
        if to == self.me:
            raise ProtocolError(f"replica {to} sends {type(message).__name__} to itself; call the handler instead")
        messages.post(self.seat, self.run.engine.address[to], message)

    def broadcast(self, message: Message, to: Audience = ALL, *, fast: FastPath | None = None) -> None:
        messages = self.run.messages
        case = None if fast is None else self.run.cases.get(type(message))
        if fast is None or case is None:
            messages.post(self.seat, messages.target(to), message)
            return
        block = message.carries()
        if block is None:
            raise ProtocolError(
                f"replica {self.me} broadcasts {type(message).__name__} with a normal case, but it carries no block; "
                f"its carries() must name the one that the case is about"
            )
        ballot = Ballot(block.view, block.height, block)
        messages.send_case(self.seat, message, ballot, case, fast, to, nobody=actions.NOTIFY_NOBODY)

    def vote(self, vote: VoteType, ballot: Ballot, to: int | Audience = ALL, *, gate: bool = False) -> None:
        if not self.is_voter:
            raise ProtocolError(f"observer {self.me} casts a {vote.name}; observers have no vote")
        if ballot.block is not None:
            self.chain.await_decision(ballot.block)
        row = self.run.tallies.row(ballot, vote, to, self)
        local = 1 + tally.GATE if gate else 1
        self.run.messages.name_leaders(self.seat)
        self.run.ask(entry.vote, self.seat, row, self.run.messages.target(to), local)

    def vote_to(
        self, vote: VoteType, ballot: Ballot, to: int, receivers: Iterable[int], *, own: bool, gate: bool = False
    ) -> None:
        """Cast a vote meant for `to` at some receivers only; `own`: it counts here. For corrupted replicas."""
        row = self.run.tallies.row(ballot, vote, to, self)
        if own:
            self.run.ask(entry.vote, self.seat, row, self.seat, 1 + tally.GATE if gate else 1)
        others = tuple(receivers)
        self.run.messages.name_leaders(self.seat)
        again = entry.sends_again(self._run_state, self.seat, row) if others else 0
        for receiver in others:
            self.run.ask(entry.vote_to, self.seat, row, self.run.engine.address[receiver], again)

    # --- proposals and decisions -----------------------------------------------------------------------

    def propose(
        self, message: Message, ballot: Ballot, fast: FastPath | None = None, *, audience: Audience = ALL,
        tree: Tree | None = None,
    ) -> None:  # fmt: skip
        run = self.run
        self.pacing.begin_interval()
        case = None if fast is None else run.cases.get(type(message))
        if tree is not None:
            if fast is None or case is None:
                self.send(tree.children(self.me), message)
            else:
                run.messages.send_down(self.seat, message, ballot, case, fast, tree)
            return
        if (
            fast is None
            or case is None
            or (ballot.rows and not case.votes.keys().isdisjoint(ballot.rows))
            or (run.block_store.any_values and run.block_store.under_any_value(ballot, case.votes))
        ):
            run.block_store.end_lease(self.seat)
            run.messages.post(self.seat, run.messages.target(audience), message)
            return
        if fast.lease is None:
            run.block_store.end_lease(self.seat)
        run.messages.propose(self.seat, message, ballot, case, fast, audience)

    def all_waits_again(self) -> None:
        """What stands in blocks that may never be decided counts as waiting; `fill_block` finds what does not."""
        self.run.peers[self.seat * ledger.PEER_WIDTH + ledger.FRESH] = self.waiting()

    def new_block(
        self, parent: Block | None, view: int, *, number: int | None = None, empty: bool = False
    ) -> Block | None:
        run = self.run
        height = number if number is not None else (parent.height + 1 if parent is not None else 1)
        parent_row = -1 if parent is None else parent.row
        if not empty and not run.backlog and not self.waiting():
            run.peers[self.seat * ledger.PEER_WIDTH + ledger.FRESH] = 0  # what had come was decided elsewhere meanwhile
            return None
        row = run.ask(entry.make_block, self.seat, parent_row, height, view, int(empty))
        if row == -2:
            return None
        at = row * ledger.BLOCK_WIDTH
        block = LinkedBlock(run.block_store, row, run.blocks[at + ledger.NUMBER], height, view, self.me)
        block.parent = parent
        block.made_ns = self.clock.time_ns
        if run.time_step_ns:
            block.made_ns -= block.made_ns % run.time_step_ns
        block.txs = run.blocks[at + ledger.TXS]
        block.bytes = run.blocks[at + ledger.BYTES]
        run.block_store.add(block)
        return block

    def waiting(self) -> int:
        """Transactions in my pool, some of them perhaps decided since it was last looked through."""
        at = self.seat * ledger.PEER_WIDTH
        return int(self.run.peers[at + ledger.POOL_TAIL] - self.run.peers[at + ledger.POOL_HEAD])

    def decide(self, block: Block) -> bool:
        if block.row < 0 or block.height <= self.height:
            mine = None if block.row < 0 else self.chain.decided(block.height)
            if mine is not None and mine is not block:
                self.run.contradiction(self.seat, block, mine)
            return True
        outcome = entry.decide_block(self._run_state, self.seat, block.row, self.run.decides_out_of_order)
        if outcome == -2:
            mine, below = self.chain.decided(self.height), block.parent
            while below is not None and below.height > self.height:
                below = below.parent
            if mine is not None and below is not None and below is not mine:
                self.run.contradiction(self.seat, block, mine)
                return False
            raise ProtocolError(
                f"replica {self.me} decides {block} but its last decided block is at height {self.height}"
            )
        return bool(outcome)

    @property
    def height(self) -> int:
        return self.run.peers[self._height_at]

    # --- timers ----------------------------------------------------------------------------------------

    def set_timer(self, timer: Timer, delay_ns: int, about: Any = None) -> int:
        run = self.run
        number = run.next_timer()
        run.timers[number] = (timer, about, self.seat)
        entry.set_timer(self._run_state, self.seat, self.now_ns + self.clock.true_ns(delay_ns), number)
        return number

    def cancel(self, handle: int) -> None:
        self.run.timers.pop(handle, None)

    def enter_view(self, view: int) -> None:
        self.all_waits_again()
        self.run.recorder.note(ledger.EVENT_VIEW, self.seat, view)
        self.run.views_entered.append(self.seat)


def _not_here(name: str) -> str:
    parts = {
        part: typing.get_type_hints(member.fget)["return"]
        for part, member in vars(Context).items()
        if isinstance(member, property) and part not in ("now_ns", "height")
    }
    members = {f"{part}.{name}": name for part, kind in parts.items() for name in (*vars(kind), *kind.__annotations__)}
    found = [path for path, member in members.items() if member == name]
    if not found:
        close = difflib.get_close_matches(name, members.values(), n=1)
        found = [path for path, member in members.items() if close == [member]]
    remedy = f"; write context.{found[0]}" if found else ""
    return f"a context has no {name}{remedy}; sim/protocol/context.py says what it has"
