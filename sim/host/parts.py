"""The parts of a replica's context beside its core. Methods as described in `sim.protocol.context`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from sim.engine import entry, lease, timers
from sim.engine.engine import LONG_AGO
from sim.host.blocks import fork
from sim.host.costs import ProtocolError
from sim.kernel import post, sharing
from sim.kernel import run_state as kernel
from sim.ledger import rows as ledger
from sim.protocol import ALL, Audience, Ballot, Block, GossipMessage, Timer, Turns, VoteType

if TYPE_CHECKING:
    from sim.host.context import ReplicaContext

_RIGHT = 1 << 20  # the rate of a clock that runs right
STORED = Timer("stored")  # the disk has written what a replica waits for


class Part:
    """What a part knows: whose it is, and the run."""

    def __init__(self, host: ReplicaContext) -> None:
        self.host = host
        self.run = host.run
        self.seat = host.seat


class VotesPart(Part):
    """`sim.protocol.context.Votes`."""

    def ballot(self, view: int, number: int, block: Block | None = None) -> Ballot:
        return self.run.block_store.ballot(view, number, block)

    def ballots(self, view: int, number: int) -> list[Ballot]:
        return self.run.block_store.ballots_of(view, number)

    def highest_number(self) -> int:
        return self.run.block_store.highest_number()

    def count(self, vote: VoteType, ballot: Ballot, voter: int) -> None:
        row = self.run.tallies.row(ballot, vote, ALL, self.host)
        if voter == self.host.me:
            self.run.ask(entry.vote, self.seat, row, self.seat, 1)
        else:
            self.run.ask(entry.count_vote, row, self.seat, voter)

    def open_gate(self, vote: VoteType, ballot: Ballot, by: int) -> None:
        entry.open_gate(self.run.engine.state, self.run.tallies.row(ballot, vote, ALL, self.host), self.seat, by)

    def has_voted(self, vote: VoteType, ballot: Ballot, voter: int | None = None) -> bool:
        row = ballot.rows.get(vote)
        return row is not None and bool(
            entry.voted(self.run.engine.state, row, self.seat, self.host.me if voter is None else voter)
        )

    def signers(self, vote: VoteType, ballot: Ballot) -> tuple[int, ...]:
        row = ballot.rows.get(vote)
        return () if row is None else self.run.engine.voters_in(row)

    def is_complete(self, vote: VoteType, ballot: Ballot) -> bool:
        row = ballot.rows.get(vote)
        whole = 2 if self.run.quorums[vote].early else 1  # which of the row's thresholds
        return row is not None and bool(entry.fired(self.run.engine.state, row, self.seat) & whole)


class ChainPart(Part):
    """`sim.protocol.context.Chain`."""

    def __init__(self, host: ReplicaContext) -> None:
        super().__init__(host)
        self._at = self.seat * ledger.PEER_WIDTH
        self.head: Block | None = None  # of the branch adopted last

    def decided(self, height: int) -> Block | None:
        return self.run.block_store.decided(self.seat, height)

    def is_behind(self) -> bool:
        return self.run.peers[self._at + ledger.WAITING] > 0

    def has_certificate(self, block: Block) -> bool:
        return self.run.block_store.is_decided(block)

    def place(self, block: Block, parent: Block | None) -> None:
        if block.parent is not parent:
            self.run.block_store.move(block, parent)

    def abandon(self, block: Block) -> None:
        if self.run.dissemination.answers:
            self.run.dissemination.aggregated(self.seat, block)  # nobody counts for it any more
        self.run.block_store.abandoned[block.number] = block
        self.host.all_waits_again()

    def adopt(self, head: Block) -> None:
        run, peers = self.run, self.run.peers
        kept, old, new = fork(self.head, head)
        height = self.host.height
        run.recorder.note(ledger.EVENT_HEAD, self.seat, head.number, head.height, len(old))
        for lost in old:
            if lost.height <= height:
                instead = new[lost.height - kept - 1].number if lost.height <= head.height else 0
                run.recorder.note(ledger.EVENT_REVERTED, self.seat, lost.number, lost.height, instead)
                entry.undecide_tip(run.engine.state, self.seat)
                height = self.host.height
        self.head = head
        peers[self._at + ledger.BUILT_NS] = run.now_ns
        if old:
            peers[self._at + ledger.FRESH] = peers[self._at + ledger.POOL_TAIL] - peers[self._at + ledger.POOL_HEAD]

    def await_decision(self, block: Block) -> None:
        if block.txs == 0:
            return
        peers, at, height = self.run.peers, self._at, block.height
        if peers[at + ledger.OPEN_HEIGHT] <= peers[at + ledger.TIP_HEIGHT]:
            peers[at + ledger.OPEN_NS] = self.run.scalars[kernel.NOW]
        if height > peers[at + ledger.OPEN_HEIGHT]:
            peers[at + ledger.OPEN_HEIGHT] = height


class DiskPart(Part):
    """`sim.protocol.context.Disk`."""

    def __init__(self, host: ReplicaContext) -> None:
        super().__init__(host)
        self.stable: dict[str, Any] = {}

    def persist(self, **facts: Any) -> None:
        self.stable.update(facts)

    def when_stored(self, then: Callable[[], None]) -> None:
        run = self.run
        cost = run.costs.persist_ns
        if cost == 0:
            then()
            return
        nodes, at = run.nodes, self.seat * post.NODE_WIDTH
        cost = (cost * int(nodes[at + post.DISK_Q10])) >> 10
        done = max(run.now_ns, int(nodes[at + post.DISK_FREE])) + cost
        nodes[at + post.DISK_FREE] = done
        nodes[at + post.DISK_BUSY] += cost
        run.writes += 1  # numbered apart from timers: the fast path's writes take no such number either
        run.timers[run.writes | timers.OF_DISK] = STORED, then, self.seat
        entry.await_disk(run.engine.state, self.seat, done, run.writes)


class PacingPart(Part):
    """`sim.protocol.context.Pacing`."""

    def __init__(self, host: ReplicaContext) -> None:
        super().__init__(host)
        self._last_at = self.seat * lease.LEASE_WIDTH + lease.LAST_NS
        self.block_interval_ns = self.run.block_interval_ns
        self.turn_offset_ns = 0
        self.period_ns, self.empty_period_ns = self.run.block_period_ns, self.run.empty_period_ns

    def something_waits(self) -> bool:
        waits = bool(entry.waits(self.run.engine.state, self.seat))
        if not waits:
            self.run.peers[self.seat * ledger.PEER_WIDTH + ledger.FRESH] = (
                0  # what had come was decided elsewhere meanwhile
            )
        return waits

    def await_batch(self) -> bool:
        due = self.run.leases[self._last_at] + self.block_interval_ns
        return bool(entry.await_batch(self.run.engine.state, self.seat, due))

    def await_turn(self, turns: Turns, height: int, since_ns: int, lowest: int = 0) -> None:
        run = self.run
        run.turn_timers[self.seat] = turns.timer
        earliest_ns = run.leases[self._last_at] + self.block_interval_ns
        # what `since_ns` is by the clock, the engine has by the time
        self.turn_offset_ns = self.host.clock.time_ns - run.now_ns
        entry.await_turn(
            run.engine.state, self.seat, height, since_ns - self.turn_offset_ns, lowest, earliest_ns,
            turns.period_ns, turns.spread_ns, turns.place, turns.places,
        )  # fmt: skip

    @property
    def blocks_have_left(self) -> bool:
        run = self.run
        at = self.seat * sharing.CARD_WIDTH + sharing.REST * sharing.LANE_WIDTH
        cards = run.engine.run_state[kernel.CARDS]
        return not run.scalars[kernel.SHARING] or not (cards[at + sharing.HEAD] or cards[at + sharing.WAITING])

    def begin_interval(self) -> None:
        self.run.leases[self._last_at] = self.run.scalars[kernel.NOW]

    def forget(self) -> None:
        """The replica crashed: it does not know when it proposed last."""
        self.run.leases[self._last_at] = LONG_AGO


class ClockPart(Part):
    """`sim.protocol.context.Clock`."""

    def __init__(self, host: ReplicaContext) -> None:
        super().__init__(host)
        self._progress_at = self.seat * post.NODE_WIDTH + post.PROGRESS_NS
        self._rate_q20 = _RIGHT
        self._own_rate = 1.0  # without faults
        self._offset_ns = self._drift_ppb = self._set_ns = 0  # what it shows more, when it was set, and since
        self._period_ns = (0, 0, 0)  # of the progress timer, as last asked for: least, how much more, in which steps

    @property
    def all_agree(self) -> bool:
        return not self.run.clocks_differ

    @property
    def time_ns(self) -> int:
        now_ns = self.run.now_ns
        return now_ns + self._offset_ns + (now_ns - self._set_ns) // 1000 * self._drift_ppb // 10**6

    def is_wrong(self, offset_ns: int, drift_ppm: float) -> None:
        """It shows so much more than the time from now on, and runs too fast by so many millionths."""
        self._own_rate, self._drift_ppb = 1 + drift_ppm / 10**6, round(drift_ppm * 1000)
        self._offset_ns = offset_ns
        self.set_again()
        self.run_at(1.0)

    def set_again(self) -> None:
        """It is set now: what it has drifted since it was is gone."""
        self._set_ns = self.run.now_ns

    def elapsed_ns(self, since_ns: int) -> int:
        true_ns = self.run.now_ns - since_ns
        return true_ns if self._rate_q20 == _RIGHT else true_ns * self._rate_q20 // _RIGHT

    def deadline_ns(self, delay_ns: int) -> int:
        return self.run.now_ns + (delay_ns if self._rate_q20 == _RIGHT else delay_ns * _RIGHT // self._rate_q20)

    def watch_progress(self, low_ns: int, high_ns: int | None = None, step_ns: int = 0) -> None:
        self._period_ns = (low_ns, 0 if high_ns is None else high_ns - low_ns, step_ns)
        if low_ns == 0:
            self.run.peers[self.seat * ledger.PEER_WIDTH + ledger.OPEN_HEIGHT] = 0
        self._watch(1)

    def made_progress(self) -> None:
        nodes, at = self.run.nodes, self.seat * post.NODE_WIDTH
        nodes[self._progress_at] = self.run.scalars[kernel.NOW]
        nodes[at + post.PROGRESS_NUMBER] += 1

    @property
    def since_progress_ns(self) -> int:
        return self.elapsed_ns(int(self.run.nodes[self._progress_at]))

    def true_ns(self, delay_ns: int) -> int:
        """How long a delay takes by this clock."""
        return delay_ns if self._rate_q20 == _RIGHT else max((delay_ns * _RIGHT) // self._rate_q20, delay_ns > 0)

    def run_at(self, rate: float) -> None:
        """Timers set from now on run at this rate of its own; the progress timer's current period begins afresh."""
        rate_q20 = round(rate * self._own_rate * _RIGHT)
        if rate_q20 == self._rate_q20:
            return
        self._rate_q20 = rate_q20
        self.run.peers[self.seat * ledger.PEER_WIDTH + ledger.CLOCK_Q20] = 0 if rate_q20 == _RIGHT else rate_q20
        if self._period_ns[0] > 0 and self.run.is_up(self.seat):
            self._watch(0)

    @property
    def period_ns(self) -> int:
        """The least period of the progress timer, as last asked for; 0: none."""
        return self._period_ns[0]

    def forget(self) -> None:
        """The replica crashed: no period runs."""
        self._period_ns = (0, 0, 0)

    def _watch(self, again: int) -> None:
        low_ns, span_ns, step_ns = (self.true_ns(value) for value in self._period_ns)
        entry.watch_progress(self.run.engine.state, self.seat, low_ns, span_ns, step_ns, again)


class ClientsPart(Part):
    """`sim.protocol.context.Clients`."""

    def follow(self, leader: int) -> None:
        run = self.run
        run.ensure_capacity(self.host.waiting() * (self.host.n if run.engine.settings.broadcast_txs else 1))
        entry.follow(run.engine.state, self.seat, leader)
        if run.entry_follows_leader:
            run.turn_clients(self.seat, leader)

    def spread(self, voters: Iterable[int]) -> None:
        for voter in voters:
            if voter != self.host.me:
                entry.spread(self.run.engine.state, self.seat, voter, self.run.engine.settings.block_txs)

    def serve(self, *, yes: bool) -> None:
        self.run.serve_clients(self.seat, yes=yes)

    def answer_read(self, asked_ns: int, height: int) -> None:
        if not self.run.protocol.answers_reads:
            name = self.run.protocol.__name__
            raise ProtocolError(f"{name} answers a read, and says that it does not; write answers_reads = True")
        self.run.recorder.note(ledger.EVENT_READ, self.seat, self.run.now_ns - asked_ns, height)


class MembershipPart(Part):
    """`sim.protocol.context.Membership`."""

    def __init__(self, host: ReplicaContext) -> None:
        super().__init__(host)
        self.members = self.run.members
        self.learners = self.run.learners
        self.may_change = self.run.members_change

    def audience(self, members: tuple[int, ...]) -> Audience:
        return self.run.messages.audience(members)

    def latency_ns(self, sender: int, receiver: int) -> int:
        settings = self.run.engine.settings
        table = settings.latency_ns
        if table.shape == (1, 1):
            return int(table[0, 0])  # the same for all links
        return int(table[settings.site_of[sender], settings.site_of[receiver]])


class GossipPart(Part):
    """`sim.protocol.context.Gossip`."""

    def neighbours(self, degree: int) -> tuple[int, ...]:
        from sim.network.topology import neighbours  # networkx: only where it is needed

        host = self.host
        return neighbours(host.n, degree, self.run.seed)[host.me] if host.is_voter else ()

    def begin(self, neighbours: tuple[int, ...], kept: int) -> None:
        self.run.gossip.begin(self.seat, neighbours, kept, in_fast_path=self.host.fast_path.allowed)

    def deliver_once(self, gossip_message: GossipMessage) -> bool:
        return self.run.gossip.deliver_once(self.seat, gossip_message)

    def seen(self, height: int) -> list[GossipMessage]:
        return self.run.gossip.seen(self.seat, height)
