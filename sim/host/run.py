"""All replicas of one run, at their seats, with the engine that carries what they say.

What a run is made of stands beside it: `messages` and `tallies` on their way to and from the engine, `blocks`,
`dissemination` of messages that go down a tree, `gossip`, `recorder` with what was written, `event_loop`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from typing import Protocol as Interface

import numpy as np

from sim.engine import actions, dissemination, entry, lease, timers
from sim.engine.engine import Engine
from sim.engine.settings import Settings
from sim.host.blocks import BlockStore
from sim.host.cases import Case, declare, lay_costs
from sim.host.context import ReplicaContext
from sim.host.costs import Costs
from sim.host.dissemination import Dissemination
from sim.host.event_loop import run_until
from sim.host.gossip import GossipStore
from sim.host.messages import Messages
from sim.host.parts import STORED
from sim.host.recorder import TraceRecorder
from sim.host.tallies import Tallies
from sim.kernel import post, rules
from sim.kernel import run_state as kernel
from sim.kernel.calendar import grow_calendar
from sim.ledger import rows as ledger
from sim.protocol import (
    MEMBERSHIP,
    Block,
    MembersChange,
    Message,
    Quorum,
    Replica,
    Signing,
    Timer,
    VoteType,
)

# Who sits between a host and its replica: returns the replica, and the handlers that the run calls in its place.
Wrapper = Callable[[ReplicaContext], tuple[Replica, dict[Any, Callable[..., None]]]]


class Service(Interface):
    """What works at a seat beside its replica, or in its place: it sends and receives housekeeping messages."""

    def handlers(self) -> dict[Any, Callable[..., None]]:
        """What it does upon which message or timer."""

    def start(self) -> None:
        """Begin, at the start of the run and after each crash of the seat."""


_PROGRESS_MODES = {"never": 0, "waiting": 1, "always": 2}
_TRANSACTION, _REPLY = 0, 1  # message types every run has


@dataclasses.dataclass(frozen=True)
class Contradiction:
    """A replica was about to decide a block that contradicts one it has decided (the ledger did not follow)."""

    time_ns: int
    node: int
    block: Block
    decided: Block


class Run:
    """All replicas of one run, their messages, ballots and blocks, and the loop that wakes them."""

    def __init__(
        self,
        protocol: type[Replica],
        parameters: Any,
        settings: Settings,
        costs: Costs,
        *,
        block_interval_ns: int = 0,
        block_period_ns: int = 0,
        empty_period_ns: int = 0,
        time_step_ns: int = 0,
        fast_path: bool = True,
        wrappers: Mapping[int, Wrapper] | None = None,
        members: tuple[int, ...] | None = None,
        learners: tuple[int, ...] = (),
        members_change: bool = False,
        messages: tuple[type[Message], ...] = (),
        parameters_of: Mapping[int, Any] | None = None,
    ) -> None:
        """`parameters_of`: those of seats that run with others, without a fast path."""
        self.protocol = protocol
        self.members = tuple(range(settings.voters)) if members is None else members
        self.learners = learners
        self.members_change = members_change or len(self.members) < settings.voters
        self.wrappers = dict(wrappers or {})
        self.parameters = parameters
        self.parameters_of = parameters_of or {}
        self.costs = costs
        self.signing = Signing(settings.voters, costs.signature_bytes, costs.certificates)
        self.seed = settings.seed
        self.block_interval_ns = block_interval_ns
        self.block_period_ns, self.empty_period_ns = block_period_ns, empty_period_ns
        self.time_step_ns = time_step_ns
        self.clocks_differ = False
        self.backlog = settings.backlog_bytes > 0
        self.decides_out_of_order = protocol.decides_out_of_order
        self.names: list[str] = ["TRANSACTION", "REPLY"]
        self.kinds: dict[Any, int] = {}
        causes: list[Any] = [*protocol.messages, *protocol.votes, *protocol.later_messages, *messages]
        for kind in causes:
            self.kinds[kind] = len(self.names)
            self.names.append(kind.name if isinstance(kind, VoteType) else str(kind.__name__))
        settings = dataclasses.replace(
            settings, decide_waits=self.decides_out_of_order, tx_kind=_TRANSACTION, reply_kind=_REPLY,
            result_kind=len(self.names), endorse_kind=len(self.names) + (settings.results_needed > 0),
        )  # fmt: skip
        if settings.results_needed:
            self.names.append("RESULT")
        if settings.endorsement is not None:
            self.names.append("ENDORSE")
        self.engine = Engine(settings)
        self.run_state = self.engine.state
        self.run_state[ledger.DECIDING_KINDS] = sum(1 << kind for cause, kind in self.kinds.items() if cause.decides)
        for cause, kind in self.kinds.items():
            self.engine.run_state[kernel.KIND_SMALL][kind] = (
                isinstance(cause, VoteType) or cause.carries is Message.carries
            )
        if settings.results_needed:
            self.engine.run_state[kernel.KIND_SMALL][settings.result_kind] = 1
        if settings.endorsement is not None:  # voters order, and neither execute nor answer
            self.engine.run_state[kernel.KIND_SMALL][settings.endorse_kind] = 1
            self.engine.peer()[: settings.voters, ledger.QUIET] = 1
        self.run_state[ledger.FORKS] = protocol.forks
        self.engine.state[actions.PROGRESS_MODE] = _PROGRESS_MODES[protocol.progress]
        self.engine.state[actions.ADOPTS] = self.adopts = protocol.forks
        self.messages = Messages(self)
        self.tallies = Tallies(self)
        self.block_store = BlockStore(self)
        self.dissemination = Dissemination(self)
        self.gossip = GossipStore(self)
        self.contradictions: dict[
            int, Contradiction
        ] = {}  # replica -> the first time it went against its own decisions
        self.timers: dict[int, tuple[Timer, Any, int]] = {}
        self.writes = 0  # that handlers have waited for
        self.turn_timers: dict[int, Timer] = {}  # of the seats that await their turn
        self.out_of_time: Callable[[], bool] = lambda: False
        self.on_view: Callable[[int], None] = lambda seat: (
            None
        )  # told between events of each view that a replica enters
        self.views_entered: list[int] = []  # seats, since it was told
        self.calls: dict[int, Callable[[], None]] = {}
        self.recorder = TraceRecorder(self.engine, logging=settings.log_messages)
        self.trace_sinks, self.log_sinks = self.recorder.trace_sinks, self.recorder.log_sinks
        self.services: dict[int, list[Service]] = {}  # by seat
        self.not_serving = set(range(settings.voters)) - {*self.members, *learners}  # voters who turn clients away
        self.on_serving: Callable[[int], None] = lambda voter: None  # told who begins or ends
        self.without_replica: set[int] = set()  # seats whose replica does not run, though the node does
        self.watchers: dict[int, Callable[[int], None]] = {}  # by seat: told the row of each block it decides
        self.rules_name_leaders = False  # some rule means the leader of its message's view, or the next
        self.ruled = False  # message rules are laid: messages must say which view and height they are about
        # A subclass that changes rules must not be bypassed by its parent's fast path: it declares its own or has none.
        # Twins are adversaries: they need exact handlers, not speed, and the fast path knows one seat per voter.
        self.fast_path_allowed = fast_path and "normal_cases" in vars(protocol) and not self.engine.twins
        self.cases: dict[type[Message], Case] = {}
        self.case_votes: list[tuple[VoteType, ...]] = []  # by number of the case
        self.entry_follows_leader = False
        self._refresh_views()
        self.engine.moved = self._refresh_views
        # What replicas call each other: a voter's number, for each of its seats; an observer's seat.
        self.name_of_seat = [who if who >= 0 else seat for seat, who in enumerate(self.engine.identity)]
        self.hosts = [ReplicaContext(self, seat) for seat in range(self.engine.seats)]
        self.requests: list[tuple[MembersChange, frozenset[int] | None]] = []  # of the operator, and whom it tells
        self.told = [0] * self.engine.seats  # how many of them each seat has heard
        self._seat_all()

    def _refresh_views(self) -> None:
        """Columns that Python reads and writes often, as memory views: five times quicker than arrays."""
        self.scalars = self.run_state.data
        self.nodes = self.engine.run_state[kernel.NODE].data
        self.peers = self.engine.run_state[ledger.PEER].data
        self.blocks = self.engine.run_state[ledger.BLOCK].data
        self.envelopes = self.engine.run_state[kernel.ENVELOPE].data
        self.leases = self.engine.run_state[lease.LEASE].data
        self.posted = self.engine.run_state[lease.POSTED].data
        self.held = self.engine.run_state[dissemination.BUFFERED].data
        self.turns = self.engine.run_state[timers.TURN].data

    def _seat_all(self) -> None:
        for host in self.hosts:
            self.seat(host)
        first = self.hosts[0].replica
        assert first is not None
        self.quorums: dict[VoteType, Quorum] = first.quorums()
        self.voters_needed = first.voters_needed()
        self.time_to_final_ns = first.time_to_final_ns()
        lay_costs(self)
        self.normal_cases = first.normal_cases()  # as declared, whether the fast path is used or not
        for case in self.normal_cases if self.fast_path_allowed else ():
            declare(self, case)

    def seat(self, host: ReplicaContext) -> None:
        """Give a host a fresh replica (at the start, and after a crash)."""
        wrapper = self.wrappers.get(host.seat)
        if host.seat in self.without_replica:
            host.replica, host.handlers = None, {}
        elif wrapper is None:
            host.replica = self.protocol(host)
            host.handlers = host.fast_path.seat(host.replica)
        else:
            host.replica, host.handlers = wrapper(host)
        if host.replica is not None:
            host.handlers[STORED] = host.fast_path.bracket(lambda then: then(), host.replica)
        for service in self.services.get(host.seat, ()):
            host.handlers |= service.handlers()

    def _begin(self, host: ReplicaContext) -> None:
        if host.replica is not None:
            host.replica.start()
            host.fast_path.begin()
        for service in self.services.get(host.seat, ()):
            service.start()

    # --- seats without a replica -----------------------------------------------------------------------

    def serve(self, seat: int, service: Service) -> None:
        """Let a service work at a seat, before the run starts."""
        self.services.setdefault(seat, []).append(service)
        self.hosts[seat].handlers |= service.handlers()

    def detach_replica(self, seat: int) -> None:
        """No replica runs at a seat, from before the start of the run: the node keeps blocks and does nothing else."""
        host = self.hosts[seat]
        self.without_replica.add(seat)
        host.replica = None
        host.handlers = {}
        self.engine.peer()[seat, ledger.QUIET] = 1
        if host.is_voter:
            self.block_store.voter_goes(seat)

    def attach_replica(self, seat: int) -> None:
        """The replica of a vacant seat starts, with the blocks that the seat has decided."""
        host = self.hosts[seat]
        self.without_replica.discard(seat)
        self.engine.peer()[seat, ledger.QUIET] = self.engine.settings.endorsement is not None
        self.block_store.voter_comes(seat)
        self.seat(host)
        assert host.replica is not None
        host.replica.start()
        host.fast_path.begin()
        self._tell_requests(host)

    def works(self, seat: int) -> bool:
        """Whether a seat's node runs, and its replica with it."""
        return self.is_up(seat) and seat not in self.without_replica

    def serves(self, seat: int) -> bool:
        """Whether clients can submit to a seat's replica."""
        return self.works(seat) and seat not in self.not_serving

    def serve_clients(self, seat: int, *, yes: bool) -> None:
        """A replica serves clients from now on, or turns them away."""
        if yes != (seat not in self.not_serving):
            self.not_serving ^= {seat}
            self.on_serving(seat)

    def set_apart(self, seats: Iterable[int]) -> None:
        """What these decide settles nothing, from before the start of the run: corrupted voters, and observers."""
        for seat in seats:
            self.engine.peer()[seat, ledger.APART] = 1

    def mute(self, seat: int, *, yes: bool) -> None:
        """A voter answers no clients and passes nothing of theirs on, until as often told that it does again."""
        self.engine.peer()[seat, ledger.MUTE] += 1 if yes else -1

    def watch(self, seat: int, told: Callable[[int], None]) -> None:
        """Tell of each block that a seat decides, by its row, at the moment it does."""
        self.watchers[seat] = told
        self.engine.peer()[seat, ledger.WATCHED] = 1

    def unwatch(self, seat: int) -> None:
        """Tell no more of what a seat decides."""
        self.watchers.pop(seat, None)
        self.engine.peer()[seat, ledger.WATCHED] = 0

    def deciding_quorum(self) -> int:
        """How many sign the largest certificate that decides; 1 (who proposed it) if signed votes decide nothing."""
        votes = [vote for vote in self.protocol.votes if vote.decides and vote.signed]
        return max((self.quorums[vote].voters_needed() for vote in votes), default=1)

    # --- room ------------------------------------------------------------------------------------------

    def ask(self, function: Callable[..., int], *arguments: int) -> int:
        """Call an engine entry, making room as often as it asks."""
        if self.recorder.logging:
            self.recorder.ensure_log()
        result = function(self.run_state, *arguments)
        while result == -1:
            self.make_capacity()
            result = function(self.run_state, *arguments)
        return result

    def make_capacity(self) -> None:
        """The engine has found a column nearly full."""
        self.engine.make_capacity()

    def ensure_capacity(self, messages: int) -> None:
        """Make room for that many calendar entries."""
        grow_calendar(self.engine.run_state, messages * (1 + int(self.run_state[kernel.RULE_COPIES_MAX])))
        self._refresh_views()

    def contradiction(self, node: int, block: Block, decided: Block) -> None:
        """A replica contradicts its own decision: kept for the verdict, once per replica."""
        self.contradictions.setdefault(node, Contradiction(self.now_ns, node, block, decided))

    # --- the loop --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start every replica, in order of their numbers."""
        try:
            for host in self.hosts:
                self._begin(host)
        except Exception as error:
            error.add_note(self._here())
            raise
        except SystemExit as error:
            raise self._stays(error) from None

    @property
    def now_ns(self) -> int:
        """Simulated time."""
        return self.scalars[kernel.NOW]

    def execution_ns(self, block: Block) -> int:
        """Time to execute a block (as `sim.ledger.execution` has it)."""
        if self.scalars[ledger.SCHEDULES]:
            return int(self.engine.run_state[ledger.BLOCK_COST][block.row])
        return self.scalars[ledger.EXECUTE_BLOCK_NS] + block.txs * self.scalars[ledger.EXECUTE_NS]

    def turn_clients(self, node: int, leader: int) -> None:
        """Clients who last asked `node` submit to `leader` from now on."""
        peers = self.engine.peer()
        for gateway in range(self.engine.seats, self.engine.endpoints):
            if peers[gateway, ledger.ENTRY] == node:
                peers[gateway, ledger.ENTRY] = leader

    # --- crash and restart -----------------------------------------------------------------------------

    def is_up(self, node: int) -> bool:
        """Whether an endpoint runs."""
        return bool(self.nodes[node * post.NODE_WIDTH + post.UP])

    def crash(self, node: int) -> None:
        """Stop an endpoint: what it had in memory and in its queues is gone, stable storage stays."""
        if not self.is_up(node):
            return
        if node < self.engine.seats:
            self.hosts[node].fast_path.crash()
        entry.crash(self.run_state, node, self.engine.tallies)
        self.recorder.note(ledger.EVENT_CRASHED, node)
        if node < self.engine.seats:
            host = self.hosts[node]
            host.replica = None
            host.handlers = {}
            host.quiet()
            self.block_store.voter_goes(node)

    def restart(self, node: int) -> None:
        """Start a stopped endpoint again, from its stable storage."""
        if self.is_up(node):
            return
        entry.restart(self.run_state, node)
        self.recorder.note(ledger.EVENT_RESTARTED, node)
        if node < self.engine.seats:
            if node not in self.without_replica or not self.hosts[node].is_voter:
                self.block_store.voter_comes(node)
            self.seat(self.hosts[node])
            self._begin(self.hosts[node])
            self._tell_requests(self.hosts[node])

    def submit(self, gateway: int, class_: int, count: int) -> None:
        """Clients at a gateway submit so many transactions now (a few hundred at most)."""
        self.ask(entry.submit_now, gateway, class_, count)

    def lay_rules(self, rows: np.ndarray, kinds: np.ndarray, sources: np.ndarray, targets: np.ndarray) -> None:
        """Message rules for the whole run, before it starts; see `Engine.lay_rules`."""
        self.engine.lay_rules(rows, kinds, sources, targets)
        self.ruled = len(rows) > 0
        self.rules_name_leaders = bool(rows[:, rules.SRC_ROLE].any() or rows[:, rules.DST_ROLE].any())

    def set_link(self, src: int, dst: int, rule: int) -> None:
        """Put a link under a rule (0: none). Rules are rows of the engine's rule table."""
        self.engine.run_state[kernel.LINK_RULE][src * self.engine.endpoints + dst] = rule
        if rule:
            self.run_state[kernel.LINKS_CHANGED] = 1

    def cut(self, src: int, dst: int, *, both: bool = True) -> None:
        """Cut a link; rule 1 is the cut."""
        self.engine.run_state[kernel.RULE][post.RULE_WIDTH + post.RULE_DOWN] = 1
        self.set_link(src, dst, 1)
        if both:
            self.set_link(dst, src, 1)

    def heal(self, src: int, dst: int, *, both: bool = True) -> None:
        """Mend a link."""
        self.set_link(src, dst, 0)
        if both:
            self.set_link(dst, src, 0)

    def change_members(self, change: MembersChange, told: frozenset[int] | None = None) -> None:
        """The operator asks for other members: replicas that run hear of it, others when they run again.

        `told`: the voters that the operator asks; None: all.
        """
        self.recorder.note(ledger.EVENT_MEMBERSHIP, -1, change.number)
        self.requests.append((change, told))
        for host in self.hosts:
            self._tell_requests(host)

    def _tell_requests(self, host: ReplicaContext) -> None:
        """Tell a replica that runs of the requests it has not heard."""
        handler = host.handlers.get(MEMBERSHIP)
        while handler is not None and self.told[host.seat] < len(self.requests):
            self.told[host.seat] += 1
            change, told = self.requests[self.told[host.seat] - 1]
            if told is None or host.me in told:
                handler(change)

    def flush_trace(self) -> None:
        """Hand the collected trace rows to those who read them."""
        self.recorder.flush()

    def call_at(self, time_ns: int, call: Callable[[], None]) -> None:
        """Call back at a time."""
        number = self.next_timer()
        self.calls[number] = call
        entry.set_call(self.run_state, time_ns, number)

    def next_timer(self) -> int:
        """The number of a new timer or call."""
        number = self.scalars[timers.TIMER_NUMBER] + 1
        self.scalars[timers.TIMER_NUMBER] = number
        return number

    def stop_when(self, out_of_time: Callable[[], bool]) -> None:
        """Ask this now and then, also while no replica has anything to do; True ends the run."""
        self.out_of_time = out_of_time
        self.scalars[actions.TURNS_MAX] = max((1 << 20) // self.engine.seats, 256)  # a turn is at most one broadcast

    def advance(self, until_ns: int) -> int:
        """Run up to and including `until_ns`. Returns loop.UNTIL, or the code of what ended the run before.

        What a handler raises is passed on with a note of when and where.
        """
        try:
            return run_until(self, until_ns)
        except Exception as error:
            error.add_note(self._here())
            raise
        except SystemExit as error:
            raise self._stays(error) from None

    def _here(self) -> str:
        """For whoever reads an error."""
        return f"in a run of {self.protocol.__name__} at {self.now_ns / 1e9:.9f} s, seed {self.seed}"

    def _stays(self, error: SystemExit) -> RuntimeError:
        """A replica that exits does not take along whoever runs it: an error like any other, where it was raised."""
        found = RuntimeError(f"SystemExit: {error}").with_traceback(error.__traceback__)
        found.add_note(self._here())
        return found
