"""A host joins one replica to the engine: the `Context` the replica sees."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from sim.engine import actions, entry, lease, timers
from sim.engine.engine import LONG_AGO
from sim.host.blocks import LinkedBlock, fork
from sim.host.costs import ProtocolError
from sim.host.fast_path import FastPathBracket
from sim.kernel import chance, post, tally
from sim.kernel import run_state as d
from sim.ledger import rows as r
from sim.protocol import ALL, Ballot, Block, FastPath, GossipMessage, Message, Replica, Timer, Tree, Turns, VoteType

if TYPE_CHECKING:
    from sim.host.run import Run

_RIGHT = 1 << 20  # the rate of a clock that runs right
STORED = Timer("stored")  # the disk has written what a replica waits for


class ReplicaContext:
    """One replica's context. Attributes and methods as described in `sim.protocol.Context`."""

    def __init__(self, run: Run, seat: int) -> None:
        self.run = run
        self.seat = seat
        self.me = run.name_of_seat[seat]
        self.n = run.engine.voters
        self.parameters = run.parameters
        self.members = run.members
        self.learners = run.learners
        self.members_change = run.members_change
        self.stable: dict[str, Any] = {}
        self.replica: Replica | None = None
        self.handlers: dict[Any, Callable[..., None]] = {}
        self._asked: dict[str, int] = {}
        self._clock_q20 = _RIGHT  # how fast this node's clock runs
        self._period_ns = (0, 0)  # of the progress timer, as last asked for: least, and how much more
        self._run_state = run.engine.state
        self._node_at = seat * post.NODE_WIDTH
        self._height_at = seat * r.PEER_WIDTH + r.TIP_HEIGHT
        self._lease_at = seat * lease.LEASE_WIDTH
        self.head: Block | None = None  # of the branch adopted last
        self.fast_path = FastPathBracket(
            self, allowed=run.fast_path_allowed and seat not in run.wrappers and self.votes
        )

    # --- time, chance, storage -------------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        return self.run.scalars[d.NOW]

    def draw(self, purpose: str, low: int, high: int) -> int:
        number = self._asked.get(purpose, 0)
        self._asked[purpose] = number + 1
        key = zlib.crc32(purpose.encode())
        span = high - low + 1
        if span >= 1 << 31:
            raise ProtocolError(f"draw range [{low}, {high}] is too wide: at most 2**31 - 1 values")
        return low + chance.draw_below(span, self.run.seed, chance.TIMEOUT, self.seat, key, number)

    def persist(self, **facts: Any) -> None:
        self.stable.update(facts)

    def when_stored(self, then: Callable[[], None]) -> None:
        cost = self.run.costs.persist_ns
        if cost == 0:
            then()
            return
        nodes, at = self.run.nodes, self._node_at
        cost = (cost * int(nodes[at + post.DISK_Q10])) >> 10
        done = max(self.now_ns, int(nodes[at + post.DISK_FREE])) + cost
        nodes[at + post.DISK_FREE] = done
        nodes[at + post.DISK_BUSY] += cost
        run = self.run
        run.writes += 1  # numbered apart from timers: the fast path's writes take no such number either
        run.timers[run.writes | timers.OF_DISK] = STORED, then, self.seat
        entry.await_disk(self._run_state, self.seat, done, run.writes)

    def quiet(self) -> None:
        """Forget the timers of a replica that crashed."""
        mine = [number for number, (_, _, node) in self.run.timers.items() if node == self.seat]
        for number in mine:
            del self.run.timers[number]
        self.run.leases[self._lease_at + lease.LAST_NS] = LONG_AGO
        self._period_ns = (0, 0)

    # --- messages --------------------------------------------------------------------------------------

    def audience(self, members: tuple[int, ...]) -> int:
        return self.run.messages.audience(members)

    def broadcast(self, message: Message, to: int = ALL) -> None:
        self.run.messages.post(self.seat, self.run.messages.target(to), message)

    def send(self, to: int, message: Message) -> None:
        if to == self.me:
            raise ProtocolError(f"replica {to} sends {type(message).__name__} to itself; call the handler instead")
        self.run.messages.post(self.seat, self.run.engine.address[to], message)

    def multicast(self, to: tuple[int, ...], message: Message) -> None:
        self.run.messages.post(self.seat, self.run.messages.several(to), message)

    def neighbours(self, degree: int) -> tuple[int, ...]:
        from sim.network.topology import neighbours  # networkx: only where it is needed

        return neighbours(self.n, degree, self.run.seed)[self.me] if self.votes else ()

    def gossip(self, neighbours: tuple[int, ...], kept: int) -> None:
        self.run.gossip.begin(self.seat, neighbours, kept, in_fast_path=self.fast_path.allowed)

    def deliver_once(self, gossip_message: GossipMessage) -> bool:
        return self.run.gossip.deliver_once(self.seat, gossip_message)

    def seen(self, height: int) -> list[GossipMessage]:
        return self.run.gossip.seen(self.seat, height)

    def latency_ns(self, sender: int, receiver: int) -> int:
        settings = self.run.engine.settings
        table = settings.latency_ns
        if table.shape == (1, 1):
            return int(table[0, 0])  # the same for all links
        return int(table[settings.site_of[sender], settings.site_of[receiver]])

    def ballot(self, view: int, number: int, block: Block | None = None) -> Ballot:
        return self.run.block_store.ballot(view, number, block)

    def ballots(self, view: int, number: int) -> list[Ballot]:
        return self.run.block_store.ballots_of(view, number)

    def highest_number(self) -> int:
        return self.run.block_store.highest_number()

    @property
    def votes(self) -> bool:
        """Whether this seat has an identity; an observer has none."""
        return self.run.engine.identity[self.seat] >= 0

    def vote(self, vote: VoteType, ballot: Ballot, to: int = ALL, *, gate: bool = False) -> None:
        if not self.votes:
            raise ProtocolError(f"observer {self.me} casts a {vote.name}; observers have no vote")
        if ballot.block is not None:
            self.await_decision(ballot.block)
        row = self.run.tallies.row(ballot, vote, to, self)
        local = 1 + tally.GATE if gate else 1
        self.run.ask(entry.vote, self.seat, row, self.run.messages.target(to), local)

    def await_decision(self, block: Block) -> None:
        height = block.height
        if block.txs == 0:
            return
        peers, at = self.run.peers, self.seat * r.PEER_WIDTH
        if peers[at + r.OPEN_HEIGHT] <= peers[at + r.TIP_HEIGHT]:
            peers[at + r.OPEN_NS] = self.run.scalars[d.NOW]
        if height > peers[at + r.OPEN_HEIGHT]:
            peers[at + r.OPEN_HEIGHT] = height

    def vote_to(
        self, vote: VoteType, ballot: Ballot, to: int, receivers: Iterable[int], *, own: bool, gate: bool = False
    ) -> None:
        """Cast a vote meant for `to` at some receivers only; `own`: it counts here. For corrupted replicas."""
        row = self.run.tallies.row(ballot, vote, to, self)
        if own:
            self.run.ask(entry.vote, self.seat, row, self.seat, 1 + tally.GATE if gate else 1)
        others = tuple(receivers)
        again = entry.sends_again(self._run_state, self.seat, row) if others else 0
        for receiver in others:
            self.run.ask(entry.vote_to, self.seat, row, self.run.engine.address[receiver], again)

    def condition(self, vote: VoteType, ballot: Ballot, by: int) -> None:
        entry.open_gate(self._run_state, self.run.tallies.row(ballot, vote, ALL, self), self.seat, by)

    def count(self, vote: VoteType, ballot: Ballot, voter: int) -> None:
        row = self.run.tallies.row(ballot, vote, ALL, self)
        if voter == self.me:
            self.run.ask(entry.vote, self.seat, row, self.seat, 1)
        else:
            self.run.ask(entry.count_vote, row, self.seat, voter)

    def has_voted(self, vote: VoteType, ballot: Ballot, voter: int | None = None) -> bool:
        row = ballot.rows.get(vote)
        return row is not None and bool(
            entry.voted(self._run_state, row, self.seat, self.me if voter is None else voter)
        )

    def signers(self, vote: VoteType, ballot: Ballot) -> tuple[int, ...]:
        row = ballot.rows.get(vote)
        return () if row is None else self.run.engine.voters_in(row)

    def has_certificate(self, block: Block) -> bool:
        return self.run.block_store.is_decided(block)

    def complete(self, vote: VoteType, ballot: Ballot) -> bool:
        row = ballot.rows.get(vote)
        whole = 2 if self.run.quorums[vote].early else 1  # which of the row's thresholds
        return row is not None and bool(entry.fired(self._run_state, row, self.seat) & whole)

    # --- proposals and decisions -----------------------------------------------------------------------

    def propose(
        self, message: Message, ballot: Ballot, fast: FastPath | None = None, *, audience: int = ALL,
        tree: Tree | None = None,
    ) -> None:  # fmt: skip
        run = self.run
        self.proposing()
        case = None if fast is None else run.cases.get(type(message))
        if tree is not None:
            if fast is None or case is None:
                self.multicast(tree.children(self.me), message)
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

    def pass_on(self, message: Message, block: Block, fast: FastPath, *, audience: int = ALL) -> None:
        run = self.run
        case = run.cases.get(type(message))
        if case is None:
            run.messages.post(self.seat, run.messages.target(audience), message)
            return
        ballot = Ballot(block.view, block.height, block)
        run.messages.send_case(self.seat, message, ballot, case, fast, audience, nobody=actions.NOTIFY_NOBODY)

    def answered(self, asked_ns: int, height: int) -> None:
        self.run.recorder.note(r.EVENT_READ, self.seat, self.now_ns - asked_ns, height)

    def _all_waits_again(self) -> None:
        """What stands in blocks that may never be decided counts as waiting; `fill_block` finds what does not."""
        self.run.peers[self.seat * r.PEER_WIDTH + r.FRESH] = self._waiting()

    def proposing(self) -> None:
        """A proposal is made now: the block interval begins."""
        self.run.leases[self._lease_at + lease.LAST_NS] = self.run.scalars[d.NOW]

    def new_block(
        self, parent: Block | None, view: int, *, number: int | None = None, empty: bool = False
    ) -> Block | None:
        run = self.run
        height = number if number is not None else (parent.height + 1 if parent is not None else 1)
        parent_row = -1 if parent is None else parent.row
        if not empty and not run.backlog and not self._waiting():
            run.peers[self.seat * r.PEER_WIDTH + r.FRESH] = 0  # what had come was decided elsewhere meanwhile
            return None
        row = run.ask(entry.make_block, self.seat, parent_row, height, view, int(empty))
        if row == -2:
            return None
        at = row * r.BLOCK_WIDTH
        block = LinkedBlock(run.block_store, row, run.blocks[at + r.NUMBER], height, view, self.me)
        block.parent = parent
        block.txs = run.blocks[at + r.TXS]
        block.bytes = run.blocks[at + r.BYTES]
        run.block_store.add(block)
        return block

    def _waiting(self) -> int:
        """Transactions in my pool, some of them perhaps decided since it was last looked through."""
        at = self.seat * r.PEER_WIDTH
        return int(self.run.peers[at + r.POOL_TAIL] - self.run.peers[at + r.POOL_HEAD])

    @property
    def block_interval_ns(self) -> int:
        return self.run.block_interval_ns

    def await_batch(self) -> bool:
        due = self.run.leases[self._lease_at + lease.LAST_NS] + self.run.block_interval_ns
        return bool(entry.await_batch(self._run_state, self.seat, due))

    def decide(self, block: Block) -> bool:
        if block.row < 0 or block.height <= self.height:
            mine = None if block.row < 0 else self.decided_block(block.height)
            if mine is not None and mine is not block:
                self.run.contradiction(self.seat, block, mine)
            return True
        outcome = entry.decide_block(self._run_state, self.seat, block.row, self.run.decides_out_of_order)
        if outcome == -2:
            mine, below = self.decided_block(self.height), block.parent
            while below is not None and below.height > self.height:
                below = below.parent
            if mine is not None and below is not None and below is not mine:
                self.run.contradiction(self.seat, block, mine)
                return False
            raise ProtocolError(
                f"replica {self.me} decides {block} but its last decided block is at height {self.height}"
            )
        return bool(outcome)

    def place(self, block: Block, parent: Block | None) -> None:
        if block.parent is not parent:
            self.run.block_store.move(block, parent)

    def abandon(self, block: Block) -> None:
        if self.run.dissemination.answers:
            self.run.dissemination.aggregated(self.seat, block)  # nobody counts for it any more
        self.run.block_store.abandoned[block.number] = block
        self._all_waits_again()

    def adopt(self, head: Block) -> None:
        run, peers, at = self.run, self.run.peers, self.seat * r.PEER_WIDTH
        kept, old, new = fork(self.head, head)
        run.recorder.note(r.EVENT_HEAD, self.seat, head.number, head.height, len(old))
        for lost in old:
            if lost.height <= self.height:
                instead = new[lost.height - kept - 1].number if lost.height <= head.height else 0
                run.recorder.note(r.EVENT_REVERTED, self.seat, lost.number, lost.height, instead)
                entry.undecide_tip(self._run_state, self.seat)
        self.head = head
        if old:
            peers[at + r.FRESH] = peers[at + r.POOL_TAIL] - peers[at + r.POOL_HEAD]

    def behind(self) -> bool:
        return self.run.peers[self.seat * r.PEER_WIDTH + r.WAITING] > 0

    @property
    def height(self) -> int:
        return self.run.peers[self._height_at]

    def decided_block(self, height: int) -> Block | None:
        return self.run.block_store.decided(self.seat, height)

    def follow(self, leader: int) -> None:
        self.run.ensure_capacity(self._waiting() * (self.n if self.run.engine.settings.broadcast_txs else 1))
        entry.follow(self._run_state, self.seat, leader)
        if self.run.entry_follows_leader:
            self.run.turn_clients(self.seat, leader)

    def spread(self, voters: Iterable[int]) -> None:
        for voter in voters:
            if voter != self.me:
                entry.spread(self._run_state, self.seat, voter, self.run.engine.settings.block_txs)

    def serve(self, *, clients: bool) -> None:
        self.run.serve_clients(self.seat, yes=clients)

    # --- timers ----------------------------------------------------------------------------------------

    def set_timer(self, timer: Timer, delay_ns: int, about: Any = None) -> int:
        run = self.run
        number = run.next_timer()
        run.timers[number] = (timer, about, self.seat)
        entry.set_timer(self._run_state, self.seat, self.now_ns + self._by_my_clock(delay_ns), number)
        return number

    def cancel(self, handle: int) -> None:
        self.run.timers.pop(handle, None)

    def await_turn(self, turns: Turns, height: int, since_ns: int, lowest: int = 0) -> None:
        run = self.run
        run.turn_timers[self.seat] = turns.timer
        earliest_ns = run.leases[self._lease_at + lease.LAST_NS] + run.block_interval_ns
        entry.await_turn(
            self._run_state, self.seat, height, since_ns, lowest, earliest_ns, turns.period_ns, turns.spread_ns,
            turns.place, turns.places,
        )  # fmt: skip

    def watch_progress(self, low_ns: int, high_ns: int | None = None) -> None:
        self._period_ns = (low_ns, 0 if high_ns is None else high_ns - low_ns)
        if low_ns == 0:
            self.run.peers[self.seat * r.PEER_WIDTH + r.OPEN_HEIGHT] = 0
        self._watch(1)

    def _watch(self, again: int) -> None:
        low_ns, span_ns = (self._by_my_clock(value) for value in self._period_ns)
        entry.watch_progress(self._run_state, self.seat, low_ns, span_ns, again)

    def _by_my_clock(self, delay_ns: int) -> int:
        """How long a delay takes by a clock that may be wrong."""
        return delay_ns if self._clock_q20 == _RIGHT else max((delay_ns * _RIGHT) // self._clock_q20, delay_ns > 0)

    def run_clock_at(self, rate: float) -> None:
        """Timers set from now on run at this rate; the progress timer's current period begins afresh."""
        clock_q20 = round(rate * _RIGHT)
        if clock_q20 == self._clock_q20:
            return
        self._clock_q20 = clock_q20
        self.run.peers[self.seat * r.PEER_WIDTH + r.CLOCK_Q20] = 0 if clock_q20 == _RIGHT else clock_q20
        if self._period_ns[0] > 0 and self.run.is_up(self.seat):
            self._watch(0)

    def made_progress(self) -> None:
        nodes, at = self.run.nodes, self._node_at
        nodes[at + post.PROGRESS_NS] = self.run.scalars[d.NOW]
        nodes[at + post.PROGRESS_NUMBER] += 1

    @property
    def since_progress_ns(self) -> int:
        return self.elapsed_ns(int(self.run.nodes[self._node_at + post.PROGRESS_NS]))

    def elapsed_ns(self, since_ns: int) -> int:
        true_ns = self.now_ns - since_ns
        return true_ns if self._clock_q20 == _RIGHT else true_ns * self._clock_q20 // _RIGHT

    def deadline_ns(self, delay_ns: int) -> int:
        return self.now_ns + (delay_ns if self._clock_q20 == _RIGHT else delay_ns * _RIGHT // self._clock_q20)

    def enter_view(self, view: int) -> None:
        self._all_waits_again()
        self.run.recorder.note(r.EVENT_VIEW, self.seat, view)
