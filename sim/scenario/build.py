"""Build a world from a scenario: the only module that brings all parts together."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Literal

import numpy as np

from sim.adversary.corruption import Adversary
from sim.engine.settings import NO_LIMIT, ClassRules, EndorsementSettings, Settings, StateSettings
from sim.faults.filters import MessageFilters
from sim.faults.script import Ends, FaultScript, LinkEffect
from sim.faults.settings import ON_LINKS
from sim.host import Costs, Run
from sim.host.parts import ClockPart
from sim.kernel import post, sharing
from sim.kernel.chance import lognormal_table
from sim.kernel.process import Clock, Process
from sim.ledger import rows as ledger
from sim.ledger.execution import PLACES
from sim.network.crypto import profiles
from sim.network.latency import one_way_matrix_ns, without_cables_ns
from sim.network.links import FixedLatency, LognormalJitter, ProportionalJitter, UniformJitter
from sim.network.sites import sites
from sim.observers.endorsement import PLANS_MAX, parse_policy
from sim.observers.messages import MESSAGES
from sim.protocol import MembersChange, Replica
from sim.protocols import PROTOCOLS
from sim.scenario import equipment
from sim.scenario.followers import Followers, sides
from sim.scenario.schema import Scenario
from sim.units import NS_PER_S
from sim.workload.keys import KeyAccess, skew_steps
from sim.workload.settings import Backlog, DemandLoad, External, OpenLoop, Trace
from sim.workload.sources import ClosedClients, Source, Streams, resend, start_closed_loop

_SHARING = {"fifo": sharing.FIFO, "fair": sharing.FAIR, "priority": sharing.PRIORITY}
_PEERS_TRIED = 3  # peers of another organisation that a peer may ask
_STILL_EVENTS = 200_000  # without time moving; each may send to each in one instant, a few times
BATCH_FROM = ("transaction", "last_block", "beats")
RESULT_BYTES = 48  # what a voter signs of a block's result: type, height, sender, digest (32)
RECEIPT_BYTES = 120  # a transaction's receipt: hash, status, block height, signature share (A)


@dataclasses.dataclass(frozen=True)
class TransactionClass:
    """A class of transactions, as metrics name it."""

    name: str
    size_bytes: int
    data_label: str = "general"
    tag: str = "A"
    use: str = ""
    deadline_ns: int | None = None
    source: str = ""


@dataclasses.dataclass(frozen=True)
class Gateway:
    """Clients at a place: an endpoint with its own network card, and the voter they turn to."""

    endpoint: int
    place: str
    home: int


@dataclasses.dataclass
class World:
    """Everything a run consists of."""

    scenario: Scenario
    run: Run
    clock: Clock
    faults: FaultScript
    filters: MessageFilters
    adversary: Adversary
    followers: Followers
    gateways: tuple[Gateway, ...]
    classes: tuple[TransactionClass, ...]
    streams: Streams | None
    offered_tps: float  # mean rate of the open-loop sources, or 0

    @property
    def corrupted(self) -> frozenset[int]:
        """Seats of corrupted replicas; two with one identity are not correct."""
        return self.adversary.nodes | self.run.engine.twin_seats


def build(scenario: Scenario, *, fast_path: bool = True, protocol: type[Replica] | None = None) -> World:
    """Lay out a run. `protocol` replaces the class of the scenario's protocol (rule overrides)."""
    network, n = scenario.network, scenario.network.n
    replica = protocol or PROTOCOLS[scenario.protocol.name].protocol
    classes, class_rules, plan, keyed = _plan_workload(scenario)
    client_places = tuple(dict.fromkeys(place for place, _ in plan))
    matrix = _latency(scenario)
    observed = n + len(scenario.observer_of_seat)
    adversary = Adversary(scenario.corrupted, network.nodes_of, n, observed)
    seated = observed + len(adversary.twins)
    gateways = tuple(
        Gateway(seated + k, place, _home(scenario, place, matrix)) for k, place in enumerate(client_places)
    )
    floods = _floods(scenario, seated + len(gateways), len(classes))
    ends_of_run = _endpoints(scenario, adversary, (*gateways, *(flood.gateway for flood in floods)))
    links = equipment.StaticLinks(scenario, ends_of_run)
    own = equipment.own_parameters(scenario)
    clocks = equipment.wrong_clocks(scenario, ends_of_run)
    run = Run(
        replica,
        scenario.protocol.parameters,
        _settings(scenario, replica, adversary, ends_of_run, floods, classes, class_rules, keyed, matrix, links),
        _costs(scenario, replica),
        block_interval_ns=scenario.block.interval_ns,
        block_period_ns=scenario.block.period_ns or 0,
        empty_period_ns=scenario.block.empty_period_ns or 0,
        time_step_ns=scenario.block.time_step_ns,
        # it asks nobody who leads, and takes all nodes to run with the same parameters
        fast_path=fast_path and not own and not clocks and not any(rule.names_leader for rule in scenario.rules),
        parameters_of={seat: own[node] for seat, node in enumerate(ends_of_run.node) if node in own},
        wrappers=adversary.seats,
        members=network.member_nodes,
        learners=network.learner_nodes,
        members_change=bool(scenario.membership),
        messages=MESSAGES if scenario.observers or scenario.catch_up else (),
    )
    run.set_apart(adversary.nodes | run.engine.twin_seats | {*range(n, observed)})
    _silence(adversary, run)
    peers = peers_of(scenario)
    followers = Followers(scenario, run, functools.partial(_nearest, scenario, matrix))
    clock = Clock()
    run.engine.peer()[list(peers), ledger.QUIET] = 0
    seats = ClientFailover(scenario, run, gateways, matrix)
    followers.joined = seats.restarted
    for flood in floods:
        run.engine.peer()[flood.gateway.endpoint, ledger.ENTRY] = flood.gateway.home
    index = {gateway.place: gateway.endpoint for gateway in gateways}
    ends = Ends(
        nodes_of=scenario.nodes_of,
        gateways_of=seats.others_at,
        domain=seats.in_domain,
        voters_in=lambda domain: tuple(i for i, d in enumerate(network.domain_of_node) if d == domain),
        clients=lambda site: (index[site], next(item.class_ for place, item in plan if place == site)),
        attacker=lambda number: next((f.gateway.endpoint, f.class_) for f in floods if f.fault == number),
        latency_ns=functools.partial(_left_ns, scenario),
        reroute=links.reroute,
        endpoints=run.engine.endpoints,
        homes=tuple((g.endpoint, g.home) for g in gateways if g.place == network.place_of_node[g.home]),
        stopped=seats.stopped,
        restarted=seats.restarted,
    )
    faults = FaultScript(clock, run, scenario.faults, ends)
    links.hold(faults.links)
    for twin in adversary.twins:
        faults.links.hold(-1 - twin.seat, twin.cut_links(adversary.twins), LinkEffect(down=True))
    filters = MessageFilters(clock, run, scenario.rules, network.gst, ends, faults.heals_ns)
    sources = [dataclasses.replace(item, gateway=index[place]) for place, item in plan if isinstance(item, Source)]
    streams = Streams(clock, run, sources, scenario.duration_ns) if sources else None
    if gateways and scenario.clients.resend_after_ns:
        clock.start(resend(clock, run, scenario.clients.resend_after_ns))
    _plan_membership(scenario, run)
    run.clocks_differ = bool(clocks)
    for seat, rule in clocks.items():
        run.hosts[seat].clock.is_wrong(rule.offset_ns, rule.drift_ppm)
        if rule.sync_every_ns is not None:
            clock.start(_synchronise(clock, run.hosts[seat].clock, rule.sync_every_ns))
    run.start()
    for place, item in plan:
        if isinstance(item, ClosedClients):
            start_closed_loop(run, index[place], item)
    offered = sum(source.rate_tps if source.offered_tps is None else source.offered_tps for source in sources)
    gateways += tuple(flood.gateway for flood in floods)
    classes += tuple(TransactionClass("invalid", flood.size_bytes) for flood in floods)
    return World(scenario, run, clock, faults, filters, adversary, followers, gateways, classes, streams, offered)


def _endpoints(scenario: Scenario, adversary: Adversary, gateways: tuple[Gateway, ...]) -> equipment.Endpoints:
    """Who stands where: voters, observers, twins, then the gateways."""
    network = scenario.network
    nodes = (*range(network.n + len(scenario.observer_of_seat)), *(twin.node for twin in adversary.twins))
    copies = (network.place_of_node[twin.node] for twin in adversary.twins)
    clients = (gateway.place for gateway in gateways)
    return equipment.Endpoints((*network.place_of_node, *scenario.place_of_observer, *copies, *clients), nodes)


def _synchronise(clock: Clock, of: ClockPart, every_ns: int) -> Process:
    """A node's clock is set again, every so often."""
    while True:
        yield clock.wait(every_ns)
        of.set_again()


def _silence(adversary: Adversary, run: Run) -> None:
    """Who says nothing says nothing to clients either."""
    for node, at_ns, until_ns in adversary.silences():
        if at_ns == 0:
            run.mute(node, yes=True)
        else:
            run.call_at(at_ns, functools.partial(run.mute, node, yes=True))
        if until_ns is not None:
            run.call_at(until_ns, functools.partial(run.mute, node, yes=False))


def _plan_membership(scenario: Scenario, run: Run) -> None:
    """The operator's requests, in order of time."""
    nodes_of = scenario.network.nodes_of
    for number, change in enumerate(sorted(scenario.membership, key=lambda change: change.at_ns), start=1):
        add, remove, learn = (
            tuple(node for ref in refs for node in nodes_of(ref)) for refs in (change.add, change.remove, change.learn)
        )
        told = None if change.told == "all" else frozenset(node for ref in change.told for node in nodes_of(ref))
        at_once = change.when == "at_once" or (change.when == "auto" and run.protocol.admits_at_once)
        request = MembersChange(number, add, remove, learn, at_once)
        run.call_at(change.at_ns, functools.partial(run.change_members, request, told))


@dataclasses.dataclass(frozen=True)
class Flood:
    """Who sends the invalid transactions of a fault: a gateway beside its victim, and a class of its own."""

    fault: int
    gateway: Gateway
    class_: int
    size_bytes: int


def _floods(scenario: Scenario, first: int, classes: int) -> tuple[Flood, ...]:
    """Floods in the scenario's faults; their endpoints follow the clients', their classes those of the workload."""
    place_of_node = scenario.network.place_of_node
    actions = [(i, fault.invalid_flood) for i, fault in enumerate(scenario.faults) if fault.invalid_flood is not None]
    return tuple(
        Flood(i, Gateway(first + k, place_of_node[action.node], action.node), classes + k, action.size_bytes)
        for k, (i, action) in enumerate(actions)
    )


def _one_distance(scenario: Scenario) -> bool:
    """Whether every link takes the same time: then one entry stands for the whole latency matrix."""
    network = scenario.network
    return isinstance(network.latency, FixedLatency) and network.topology.is_mesh and not network.measured_rtt


def _latency(scenario: Scenario) -> np.ndarray:
    """One-way latency between places with the time of processing, ns, or shape (1, 1) if they are all alike."""
    network = scenario.network
    if _one_distance(scenario):
        assert isinstance(network.latency, FixedLatency)
        return np.array([[network.latency.one_way_ns + network.processing_ns]], dtype=np.int64)
    return one_way_matrix_ns(network, scenario.seed, scenario.places) + network.processing_ns


def _left_ns(scenario: Scenario, cut: tuple[tuple[str, str], ...]) -> np.ndarray:
    """The same without some cables; -1 between places that no path joins."""
    left = without_cables_ns(scenario.network, scenario.seed, scenario.places, cut)
    return np.where(left < 0, left, left + scenario.network.processing_ns)


def _distance_ns(scenario: Scenario, matrix: np.ndarray, place: str, node: int) -> int:
    """One-way latency from a place to a voter."""
    if _one_distance(scenario):
        return int(matrix[0, 0])
    places = scenario.places
    return int(matrix[places.index(place), places.index(scenario.network.place_of_node[node])])


def _home(scenario: Scenario, place: str, matrix: np.ndarray) -> int:
    """The voter that clients at a place turn to: one there, or else the nearest."""
    place_of_node = scenario.network.place_of_node
    if place in place_of_node:
        return place_of_node.index(place)
    return _nearest(scenario, matrix, place)[0]


def _nearest(scenario: Scenario, matrix: np.ndarray, place: str) -> list[int]:
    """All voters, the nearest to a place first."""
    return sorted(range(scenario.network.n), key=lambda node: (_distance_ns(scenario, matrix, place, node), node))


Plan = list[tuple[str, Source | ClosedClients]]


class KeySpaces:
    """Where each space of the state begins, and the tables by which skewed keys are drawn."""

    def __init__(self, scenario: Scenario) -> None:
        self.state = scenario.state
        self.scenario = scenario
        self.steps: list[np.ndarray] = []
        self.at: dict[tuple[int, float], int] = {}  # rows of a table among all
        self.first: dict[str, int] = {}
        self.accesses = 0  # laid out so far
        self.streams: dict[str, dict[str, int]] = {}  # class -> space -> the access whose draws it has
        self.size = scenario.key_spaces
        keys = 0
        for name, size in self.size.items():
            self.first[name] = keys
            keys += size
        self.keys = max(keys, 1)

    def rows(
        self, name: str, accesses: tuple[KeyAccess, ...], *, supervises: bool, follows: str | None = None
    ) -> tuple[tuple[int, ...], ...]:
        """Rows of ACCESS for the next class; none without a state."""
        if self.state is None:
            return ()
        led = {} if follows is None else self.streams[follows]
        mine = [(one, led.get(one.space, self.accesses + i)) for i, one in enumerate(accesses)]
        self.accesses += len(accesses)
        self.streams[name] = {one.space: stream for one, stream in reversed(mine)}
        return tuple(self._row(one, stream, supervises=supervises) for one, stream in mine)

    def _row(self, one: KeyAccess, stream: int, *, supervises: bool) -> tuple[int, ...]:
        size, steps, at = self.size[one.space], 0, 0
        if one.skew and size > 1:
            table = skew_steps(size, one.skew)
            steps = len(table)
            if (size, one.skew) not in self.at:
                self.at[size, one.skew] = sum(map(len, self.steps))
                self.steps.append(table)
            at = self.at[size, one.skew]
        row = {
            ledger.ACCESS_FIRST: self.first[one.space],
            ledger.ACCESS_SIZE: size,
            ledger.ACCESS_COUNT: one.count,
            ledger.ACCESS_READS: int(one.reads),
            ledger.ACCESS_WRITES: int(one.writes),
            ledger.ACCESS_NEEDS: ("any", "free", "held").index(one.needs),
            ledger.ACCESS_LEAVES: ("same", "free", "held", "frozen", "thawed").index(one.leaves),
            ledger.ACCESS_IGNORES: int(one.ignores_freeze or supervises),
            ledger.ACCESS_SKEW: at,
            ledger.ACCESS_STEPS: steps,
            ledger.ACCESS_STREAM: stream,
        }
        return tuple(row[i] for i in range(ledger.ACCESS_WIDTH))

    def settings(self) -> StateSettings | None:
        """What the engine must know of the state."""
        state, cpu = self.state, self.scenario.cpu
        if state is None:
            return None
        laid_out = cpu.execute_ns > 0 and state.conflicts == "serialise"  # else what was executed is only validated
        return StateSettings(
            keys=self.keys,
            skew=np.concatenate(self.steps) if self.steps else np.zeros((0, 2), dtype=np.int64),
            aborts=state.conflicts != "serialise",
            tries=state.tries if state.conflicts == "retry" else 0,
            try_again_ns=state.try_again_after_ns,
            records=state.record,
            lanes=cpu.lanes if laid_out else 0,
            io_ns=cpu.execute_io_ns,
        )


def _demand(
    load: DemandLoad, at: tuple[str, ...], duration_ns: int, classes: list[TransactionClass], plan: Plan
) -> None:
    """The classes of documented uses and their sources, added to what is there."""
    for one in load.classes():
        row, number = one.row, len(classes)
        classes.append(
            TransactionClass(row.name, row.size_bytes, row.data_label, row.tag, row.use, row.deadline_ns, row.source)
        )
        here = row.sites if load.sites == "own" else at
        shape = row.shape if load.shape == "own" else "constant"
        pace = load.pace(one, len(here), duration_ns)
        offered_tps = None if pace is None else pace.due(duration_ns) * NS_PER_S / duration_ns
        source = Source(
            -1, number, one.rate_tps / len(here), shape, load.start_hour, pace=pace, offered_tps=offered_tps
        )
        plan += [(place, source) for place in here]


def _plan_workload(
    scenario: Scenario,
) -> tuple[tuple[TransactionClass, ...], tuple[ClassRules, ...], Plan, KeySpaces]:
    """Transaction classes, their rules, per place what its clients do, and the keys that all that touches."""
    classes: list[TransactionClass] = []
    rules: list[ClassRules] = []
    plan: Plan = []
    keyed = KeySpaces(scenario)
    for load in scenario.workload:
        if isinstance(load, Backlog):
            continue
        if isinstance(load, External):
            site = load.site or scenario.network.places[0]
            classes.append(TransactionClass(load.name, load.size_bytes, load.label))
            accesses = keyed.rows(load.name, load.accesses, supervises=False, follows=load.follows)
            stays = load.label in scenario.rules_of_place.labels
            rules.append(ClassRules(watched=True, valid_ns=load.valid_for_ns or 0, stays=stays, accesses=accesses))
            plan.append((site, ClosedClients(len(classes) - 1, 0)))  # nobody there submits by itself
            continue
        at = scenario.network.places if isinstance(load.sites, str) else load.sites
        first = len(classes)
        rule = ClassRules(senders=load.senders)
        if not isinstance(load, DemandLoad):
            rule = dataclasses.replace(
                rule,
                stays=load.label in scenario.rules_of_place.labels,
                deadline_ns=load.deadline_ns or 0,
                signatures=load.signatures,
                supervises=load.supervises,
                accesses=keyed.rows(
                    getattr(load, "name", ""),
                    load.accesses,
                    supervises=load.supervises,
                    follows=getattr(load, "follows", None),
                ),
            )
        if isinstance(load, OpenLoop):
            classes.append(TransactionClass(load.name, load.size_bytes, load.label, "A", "", load.deadline_ns))
            plan += _open(load, first, at, scenario.duration_ns)
        elif isinstance(load, DemandLoad):
            _demand(load, at, scenario.duration_ns, classes, plan)
            rules += [
                ClassRules(
                    senders=load.senders,
                    deadline_ns=one.row.deadline_ns,
                    signatures=one.row.signatures,
                    supervises=one.row.supervises,
                    stays=one.row.data_label in scenario.rules_of_place.labels,
                    accesses=keyed.rows(
                        one.row.name, one.row.accesses, supervises=one.row.supervises, follows=one.row.follows
                    ),
                )
                for one in load.classes()
            ]
            continue
        elif isinstance(load, Trace):
            classes += [
                dataclasses.replace(kind, data_label=load.label, deadline_ns=load.deadline_ns)
                for kind in _trace(load, first, at, scenario.duration_ns, plan)
            ]
        else:
            classes.append(TransactionClass(load.name, load.size_bytes, load.label, deadline_ns=load.deadline_ns))
            rule = dataclasses.replace(
                rule,
                most=NO_LIMIT if load.count is None else load.count,
                asks=True,
                think_ns=load.think_time_ns,
                think_drawn=load.thinking == "exponential",
            )
            shares = [load.outstanding // len(at) + (i < load.outstanding % len(at)) for i in range(len(at))]
            clients = (ClosedClients(first, share, load.think_time_ns) for share in shares)
            plan += [(place, who) for place, who in zip(at, clients, strict=True) if who.outstanding]
        rules += [rule] * (len(classes) - first)
    return tuple(classes), tuple(rules), plan, keyed


def _open(load: OpenLoop, class_: int, at: tuple[str, ...], duration_ns: int) -> Plan:
    """The sources of an open loop, one per place."""
    even = load.arrivals == "uniform"
    places = len(at)
    source = Source(
        -1,
        class_,
        (load.rate_tps or 0.0) / places,
        load.shape,
        load.start_hour,
        places if even else 0,
        pace=load.pace(1 if even else places),
        offered_tps=None if load.is_plain else load.mean_tps(duration_ns) / places,
        gap_ns=0 if load.send_limit_tps is None else round(NS_PER_S * places / load.send_limit_tps),
    )
    shares = [None if load.count is None else load.count // places + (i < load.count % places) for i in range(places)]
    return [
        (place, dataclasses.replace(source, turn=turn, count=share))
        for turn, (place, share) in enumerate(zip(at, shares, strict=True))
    ]


def _trace(load: Trace, first: int, at: tuple[str, ...], duration_ns: int, plan: Plan) -> list[TransactionClass]:
    """The classes of a trace, one per class and size that it has; its sources are added to the plan."""
    rows = load.rows
    kinds, kind = np.unique(rows[:, 1:3], axis=0, return_inverse=True)
    elsewhere = np.array([not name for name in load.place_names])[rows[:, 3]]  # rows that name no place
    place = rows[:, 3].copy()
    place[elsewhere] = len(load.place_names) + np.arange(int(elsewhere.sum())) % len(at)
    for number, name in enumerate((*load.place_names, *at)):
        mine = place == number
        if mine.any():
            times_ns, kinds_here = rows[mine, 0], np.ascontiguousarray(kind.reshape(-1)[mine])
            rate_tps = float((times_ns < duration_ns).sum() * NS_PER_S / duration_ns)
            plan.append((name, Source(-1, first, rate_tps, times_ns=times_ns, kinds=kinds_here)))
    return [TransactionClass(load.class_names[class_], size_bytes) for class_, size_bytes in kinds.tolist()]


def _settings(
    scenario: Scenario,
    replica: type[Replica],
    adversary: Adversary,
    ends: equipment.Endpoints,
    floods: tuple[Flood, ...],
    classes: tuple[TransactionClass, ...],
    class_rules: tuple[ClassRules, ...],
    keyed: KeySpaces,
    matrix: np.ndarray,
    links: equipment.StaticLinks,
) -> Settings:
    network = scenario.network
    places = scenario.places
    if _one_distance(scenario):
        at = [0] * len(ends.place)
    else:
        index = {place: i for i, place in enumerate(places)}
        at = [index[place] for place in ends.place]
    latency_ns, site_of = links.latency_ns(matrix, at)
    mode, low, span, table = _jitter(scenario)
    profile = profiles()[scenario.cpu.crypto]
    backlog = [load for load in scenario.workload if isinstance(load, Backlog)]
    ordered = network.links == "ordered"
    tx_ps = np.full(len(at), network.bandwidth_ps_per_byte)
    for seat, observer in enumerate(scenario.observer_of_seat, network.n):
        if observer.bandwidth_ps_per_byte is not None:
            tx_ps[seat] = observer.bandwidth_ps_per_byte
    rx_ps = tx_ps.copy()
    equipment.cards_ps(scenario, ends, tx_ps, rx_ps)
    cores = equipment.cores_of(scenario, ends)
    tx_ps[len(at) - len(floods) :] = 0  # an attacker has all the bandwidth it needs
    return Settings(
        voters=network.n,
        gateways=len(at) - len(ends.node),
        seed=scenario.seed,
        site_of=site_of,
        latency_ns=latency_ns,
        tx_ps_per_byte=tx_ps,
        rx_ps_per_byte=rx_ps,
        identity=(*range(network.n), *[-1] * len(scenario.observer_of_seat), *(twin.node for twin in adversary.twins)),
        side=sides(scenario, tuple(_site(scenario, place) for place in ends.place)),
        workers=scenario.cpu.cores if cores is None else int(cores.max()),
        cores_of=cores,
        speeds=equipment.speeds(scenario, ends),
        link_caps_ps=tuple(links.caps_ps),
        jitter_mode=mode,
        jitter_low_ns=low,
        jitter_span=span,
        jitter_table=table,
        loss_q32=int(network.loss * (1 << 32)),
        retransmit_ns=network.retransmit_after_ns if ordered else 0,
        ordered=ordered,
        sharing=_SHARING[network.sharing],
        flush_ns=network.flush_after_ns,
        window=network.window_bytes or 0,
        look_ns=network.look_every_ns,
        links_change=bool(adversary.twins or links.effects())
        or any(fault.kind in ON_LINKS for fault in scenario.faults),
        block_txs=scenario.block.max_transactions,
        block_bytes=scenario.block.max_bytes,
        backlog_bytes=backlog[0].size_bytes if backlog else 0,
        warm_up_ns=scenario.warm_up_ns,
        measure_end_ns=scenario.measure_end_ns,
        stop_after=scenario.stop_after_decisions or 0,
        acks_needed=_acks(scenario),
        broadcast_txs=_broadcasts(scenario, replica),
        class_bytes=(*(c.size_bytes for c in classes), *(flood.size_bytes for flood in floods)) or (512,),
        class_rules=(*class_rules, *[ClassRules()] * len(floods)),
        invalid_class=len(classes) if floods else NO_LIMIT,
        tx_verify_ns=profile.verify_ns,
        receipt_bytes=RECEIPT_BYTES,
        reply_sign_ns=profile.sign_ns,
        results_needed=scenario.clients.results_needed(network.n),
        result_bytes=RESULT_BYTES + profile.signature_bytes,
        result_sign_ns=profile.sign_ns,
        result_verify_ns=profile.verify_ns,
        result_handle_ns=scenario.cpu.handle_ns,
        state=keyed.settings(),
        endorsement=_endorsement(scenario, matrix),
        execute_ns=_execute_ns(scenario),
        execute_block_ns=scenario.cpu.execute_block_ns,
        execute_place=PLACES.index(_executes(scenario, replica)),
        batch_timeout_ns=scenario.block.batch_timeout_ns,
        batch_from=BATCH_FROM.index(scenario.block.batch_from),
        tick_ns=scenario.block.interval_ns if scenario.block.ticks else 0,
        builds_early=scenario.block.built == "at_parent",
        rebuild_ns=scenario.block.rebuilt_every_ns or 0,
        pool_limit=scenario.pool.max_transactions or NO_LIMIT,
        pool_bytes=scenario.pool.max_bytes or NO_LIMIT,
        pool_per_sender=scenario.pool.per_sender or 0,
        pool_evicts=scenario.pool.when_full == "evict_oldest",
        pool_keeps_ns=scenario.pool.expires_after_ns or NO_LIMIT,
        retries=scenario.clients.retries,
        retry_ns=scenario.clients.retry_after_ns,
        retry_most_ns=scenario.clients.retry_at_most_ns,
        log_messages=scenario.trace == "messages",
        events_max=scenario.limits.max_events or NO_LIMIT,
        still_max=max(_STILL_EVENTS, 4 * len(ends.node) ** 2),
    )


def _site(scenario: Scenario, place: str) -> str:
    """The site code of a place, if it has one: nodes that all stand at one site may be places by themselves."""
    return place if scenario.network.site is None else scenario.network.site


def _broadcasts(scenario: Scenario, replica: type[Replica]) -> bool:
    """Whether entry voters pass transactions to all voters."""
    chosen = scenario.clients.dissemination
    return chosen == "broadcast" or (chosen == "auto" and not replica.lasting_leader)


def _acks(scenario: Scenario) -> int:
    """Replies that convince a client; 0: its entry voter's."""
    n = scenario.network.n
    f = (n - 1) // 3
    return {"entry": 0, "quorum": f + 1, "2f + 1": 2 * f + 1, "all": n}[scenario.clients.acknowledge]


def _jitter(scenario: Scenario) -> tuple[int, int, int, np.ndarray | None]:
    jitter = scenario.network.jitter
    if isinstance(jitter, UniformJitter):
        return post.ADDED_JITTER, -jitter.plus_minus_ns, 2 * jitter.plus_minus_ns, None
    if isinstance(jitter, ProportionalJitter):
        return post.PROPORTIONAL_JITTER, 0, round(jitter.up_to * (1 << 20)), None
    if isinstance(jitter, LognormalJitter):
        return post.TABLE_JITTER, 0, 0, lognormal_table(jitter.sigma)
    return post.NO_JITTER, 0, 0, None


def _executes(scenario: Scenario, replica: type[Replica]) -> Literal["after", "between", "before_vote"]:
    """When blocks are executed."""
    if scenario.endorsement is not None:
        return "after"  # by peers
    return replica.executes if scenario.cpu.execution == "auto" else scenario.cpu.execution


def _execute_ns(scenario: Scenario) -> int:
    """Time that a transaction adds to its block's execution, lanes side by side, state one after the other.

    With a keyed state: that it takes in its lane.
    """
    if scenario.state is not None and scenario.cpu.execute_ns and scenario.state.conflicts == "serialise":
        return scenario.cpu.execute_ns
    return -(-scenario.cpu.execute_ns // scenario.cpu.lanes) + scenario.cpu.execute_io_ns


def _costs(scenario: Scenario, replica: type[Replica]) -> Costs:
    cpu = scenario.cpu
    profile = profiles()[cpu.crypto]
    return Costs(
        signature_bytes=profile.signature_bytes,
        certificates=cpu.certificates,
        sign_ns=profile.sign_ns,
        verify_ns=profile.verify_ns,
        add_ns=profile.add_ns,
        handle_ns=cpu.handle_ns,
        hash_ps_per_byte=cpu.hash_ps_per_byte,
        persist_ns=cpu.fsync_ns,
        executes=_executes(scenario, replica),
    )


def peers_of(scenario: Scenario) -> dict[int, str]:
    """The organisation of each peer, by its seat; none where nothing is endorsed."""
    if scenario.endorsement is None:
        return {}
    observers = enumerate(scenario.observer_of_seat, scenario.network.n)
    return {seat: observer.organisation for seat, observer in observers if observer.organisation is not None}


def _endorsement(scenario: Scenario, matrix: np.ndarray) -> EndorsementSettings | None:
    """Peers, and for each which others it asks: as few as the policy needs, its own organisation first, the nearest."""
    rules = scenario.endorsement
    if rules is None:
        return None
    peers, n = peers_of(scenario), scenario.network.n
    first, last = min(peers), max(peers)
    place = dict(zip(range(n, n + len(scenario.place_of_observer)), scenario.place_of_observer, strict=True))
    by_organisation: dict[str, list[int]] = {}
    for seat, organisation in peers.items():
        by_organisation.setdefault(organisation, []).append(seat)
    ways = parse_policy(rules.policy).ways()
    plans: list[list[int]] = []
    for peer in range(first, last + 1):
        own = peers.get(peer)
        ranked = []
        for number, way in enumerate(ways):
            choices = []
            for organisation in sorted(way):
                near = sorted(
                    by_organisation.get(organisation, []),
                    key=lambda seat: (seat != peer, _between_ns(scenario, matrix, place[peer], place[seat]), seat),
                )
                choices.append(near[:1] if organisation == own else near[:_PEERS_TRIED])
            for chosen in itertools.product(*choices):
                far_ns = max((_between_ns(scenario, matrix, place[peer], place[seat]) for seat in chosen), default=0)
                ranked.append((len(way), own not in way, far_ns, number, sum(1 << (seat - first) for seat in chosen)))
        plans.append([chosen for *_, chosen in sorted(ranked)][:PLANS_MAX])
    width = max(map(len, plans))
    table = np.zeros((len(plans), width), dtype=np.int64)
    for row, ranked_sets in zip(table, plans, strict=True):
        row[: len(ranked_sets)] = ranked_sets
    profile = profiles()[scenario.cpu.crypto]
    return EndorsementSettings(
        first, table, rules.execute_ns, profile.verify_ns, profile.sign_ns, scenario.cpu.handle_ns, rules.timeout_ns,
        rules.answer_bytes, rules.orderer == "all",
    )  # fmt: skip


def _between_ns(scenario: Scenario, matrix: np.ndarray, start: str, to: str) -> int:
    """One-way latency between two places."""
    if _one_distance(scenario):
        return int(matrix[0, 0])
    places = scenario.places
    return int(matrix[places.index(start), places.index(to)])


class ClientFailover:
    """Which clients turn to which voter, as nodes fail and return."""

    def __init__(self, scenario: Scenario, run: Run, gateways: tuple[Gateway, ...], matrix: np.ndarray) -> None:
        """`matrix`: latency between places, without what single links add."""
        self.scenario = scenario
        self.run = run
        self.gateways = gateways
        self.wait_ns = scenario.clients.failover_after_ns
        self.order: dict[int, list[int]] = {}
        self.peers = peers_of(scenario)
        everyone = range(scenario.network.n)
        for gateway in gateways:
            distance = [_distance_ns(scenario, matrix, gateway.place, node) for node in everyone]
            nearest = sorted(everyone, key=lambda node: (distance[node], node))
            self.order[gateway.endpoint] = [gateway.home] + [node for node in nearest if node != gateway.home]
            if self.peers:
                self.order[gateway.endpoint] = self._nearest_peers(gateway.place, matrix)
            run.engine.peer()[gateway.endpoint, ledger.ENTRY] = self.order[gateway.endpoint][0]
        run.on_serving = self._later
        if run.without_replica or run.not_serving:
            self._choose()
        run.entry_follows_leader = scenario.clients.entry == "leader"

    def _nearest_peers(self, place: str, matrix: np.ndarray) -> list[int]:
        """Peers, the nearest to a place first."""
        at = dict(enumerate(self.scenario.place_of_observer, self.scenario.network.n))
        return sorted(self.peers, key=lambda seat: (_between_ns(self.scenario, matrix, place, at[seat]), seat))

    def gateways_at(self, ref: int | str) -> tuple[int, ...]:
        """Gateways at a place."""
        return tuple(g.endpoint for g in self.gateways if g.place == ref) if isinstance(ref, str) else ()

    def others_at(self, ref: int | str) -> tuple[int, ...]:
        """Gateways and observers at a place."""
        n, places = self.scenario.network.n, self.scenario.place_of_observer
        return (*self.gateways_at(ref), *(seat for seat, place in enumerate(places, n) if place == ref))

    def in_domain(self, domain: str) -> tuple[int, ...]:
        """Voters, observers and gateways of a fault domain."""
        table = sites()
        voters = [i for i, d in enumerate(self.scenario.network.domain_of_node) if d == domain]
        others = [(seat, place) for seat, place in enumerate(self.scenario.place_of_observer, self.scenario.network.n)]
        others += [(gateway.endpoint, gateway.place) for gateway in self.gateways]
        return (*voters, *(end for end, place in others if place in table and table[place].domain == domain))

    def stopped(self, node: int) -> None:
        """Clients of a stopped voter turn to the next one after a while; so do those of one who is no member."""
        self._later(node)

    def restarted(self, node: int) -> None:
        """Clients return to their nearest voter a while after it is back."""
        self._later(node)

    def _later(self, node: int) -> None:
        if node < self.run.engine.seats and self.gateways:
            self.run.call_at(self.run.now_ns + self.wait_ns, self._choose)

    def _choose(self) -> None:
        peers = self.run.engine.peer()
        for gateway in self.gateways:
            works = self.run.is_up if self.peers else self.run.serves
            up = [node for node in self.order[gateway.endpoint] if works(node)]
            peers[gateway.endpoint, ledger.ENTRY] = up[0] if up else -1
