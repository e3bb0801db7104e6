"""Rules between the parts of a scenario. Each problem names its place and says rule and remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from sim.adversary.settings import Corruption, nodes_meant
from sim.faults.disasters import CutCable, LoseDomain, LosePower, Storm
from sim.faults.gray import ClientBurst, FlapLink, InvalidFlood, SkewClock, SlowNode
from sim.faults.rules import MessageRule
from sim.faults.settings import Crash, CutLink, DegradeLink, Fault, Partition
from sim.network.crypto import profiles
from sim.network.links import Ref
from sim.network.residency import HOME
from sim.network.settings import Network
from sim.network.sites import domains, suggestion
from sim.observers.endorsement import PEERS_MAX, parse_policy
from sim.parameters import Problem, key_of
from sim.protocols import PROTOCOLS
from sim.scenario.equipment import problems as equipment_problems
from sim.scenario.followers import problems as follower_problems
from sim.scenario.patience import transaction_bytes
from sim.units import format_ns
from sim.workload.keys import KEYS_MAX
from sim.workload.settings import Backlog, ClosedLoop, DemandLoad, External, OpenLoop, Trace, Workload

if TYPE_CHECKING:
    from sim.scenario.schema import Scenario

Path = tuple[str | int, ...]


def problems(scenario: Scenario) -> Iterator[Problem]:
    """All broken rules, in the order of the fields."""
    duration_ns = scenario.duration_ns
    if scenario.warm_up_ns >= duration_ns:
        message = f"must be shorter than the duration, {format_ns(duration_ns)}; shorten it"
        yield Problem(("warm_up",), message)
    elif scenario.warm_up_ns + scenario.cool_down_ns >= duration_ns:
        message = f"and warm_up together leave nothing of the duration, {format_ns(duration_ns)}; shorten one of them"
        yield Problem(("cool_down",), message)
    if scenario.cpu.certificates == "aggregate" and not profiles()[scenario.cpu.crypto].aggregates:
        message = f"{scenario.cpu.crypto} signatures do not aggregate; write crypto: bls12-381, or certificates: list"
        yield Problem(("cpu", "certificates"), message)
    yield from _block_rules(scenario)
    yield from equipment_problems(scenario)
    yield from _workload(scenario)
    yield from _state(scenario)
    yield from _endorsement(scenario)
    yield from _residency(scenario)
    yield from _clients(scenario)
    for i, fault in enumerate(scenario.faults):
        yield from _times(fault, duration_ns, ("faults", i))
        yield from _targets(fault, scenario, ("faults", i))
    yield from _membership(scenario)
    yield from _corrupted(scenario)
    yield from follower_problems(scenario)
    if scenario.network.gst is not None and scenario.network.gst.at_ns >= duration_ns:
        message = f"must be earlier than the end of the run, {format_ns(duration_ns)}; write an earlier time"
        yield Problem(("network", "gst", "at"), message)
    for i, rule in enumerate(scenario.rules):
        yield from _message_rule(rule, scenario, ("rules", i))


_SENDERS_MAX = 20_000_000  # counts of pool.per_sender
_TOUCHED_MAX = 10_000_000  # keys in one block, where lanes look for conflicts
_KINDS_MAX = 2_000  # classes of transactions in a trace, each size apart
_OWN_PERIODS = ("block_period", "step_duration", "timeout_commit", "min_block_delay")  # parameters of protocols


def _block_rules(scenario: Scenario) -> Iterator[Problem]:
    """Rules of block production and execution that the protocol knows, and a pool that holds a block."""
    block, cpu, name = scenario.block, scenario.cpu, scenario.protocol.name
    known = PROTOCOLS[name].protocol.block_rules if name in PROTOCOLS else frozenset()
    keys = {key_of(field) for field in type(scenario.protocol.parameters).model_fields}
    own = next((f"write protocol: {{{key}: ...}}" for key in _OWN_PERIODS if key in keys), "write interval")
    for key, given in (("period", block.period_ns), ("batch_timeout", block.batch_timeout_ns)):
        if given and key not in known:
            remedy = "write period, or interval" if "period" in known else own
            able = ", ".join(other for other, entry in PROTOCOLS.items() if key in entry.protocol.block_rules)
            yield Problem(("block", key), f"{name} has no {key} ({able} do); {remedy}")
    if block.ticks and "batch_timeout" not in known:
        able = ", ".join(other for other, entry in PROTOCOLS.items() if "batch_timeout" in entry.protocol.block_rules)
        yield Problem(("block", "ticks"), f"{name} has no such clock ({able} do); remove it")
    chosen = PROTOCOLS[name].protocol if name in PROTOCOLS else None
    if block.built == "at_parent" and block.period_ns is None and chosen is not None and not chosen.forks:
        forking = ", ".join(other for other, entry in PROTOCOLS.items() if entry.protocol.forks)
        message = f"goes with blocks that come when their time has, full or empty ({forking}, or period); remove it"
        yield Problem(("block", "built"), message)
    idle = not cpu.execute_ns and not cpu.execute_block_ns and not cpu.execute_io_ns
    if cpu.execution != "auto" and idle and scenario.platform is None:
        yield Problem(("cpu", "execution"), "executing takes no time here; write execute: 1 ms beside it")
    if cpu.lanes > 1 and not cpu.execute_ns:
        yield Problem(("cpu", "lanes"), "executing takes no time here; write execute: 1 ms beside it")
    if scenario.clients.results != "own" and chosen is not None and chosen.forks:
        message = f"needs decisions that stand, and a head of {name} may be left; write results: own"
        yield Problem(("clients", "results"), message)
    backlog = any(isinstance(entry, Backlog) for entry in scenario.workload)
    yield from _pool(scenario, backlog)
    if block.batch_timeout_ns and backlog:
        yield Problem(("block", "batch_timeout"), "blocks of a backlog are always full; write another workload")


def _pool(scenario: Scenario, backlog: bool) -> Iterator[Problem]:
    """A pool holds a block and each transaction; its keys and those of retries have something to act upon."""
    pool, block, clients = scenario.pool, scenario.block, scenario.clients
    set_ = [key for key in ("max_transactions", "max_bytes", "per_sender") if getattr(pool, key) is not None]
    limits = [*set_, *["expires_after"] * (pool.expires_after_ns is not None)]
    if backlog and limits:
        yield Problem(("pool", limits[0]), "a backlog goes through no pool; write workload: {kind: open, ...}")
    if pool.max_transactions is not None and pool.max_transactions < block.max_transactions:
        rule = f"is below block.max_transactions, {block.max_transactions}, so that no block is ever full"
        yield Problem(("pool", "max_transactions"), f"{rule}; raise it, or lower that")
    largest = transaction_bytes(scenario)
    if pool.max_bytes is not None and pool.max_bytes < largest and not backlog:
        rule = f"is below the size of a transaction, {largest} B, which no voter would ever take"
        yield Problem(("pool", "max_bytes"), f"{rule}; raise it")
    if pool.when_full != "reject" and not {"max_transactions", "max_bytes"} & {*set_}:
        yield Problem(
            ("pool", "when_full"), "no pool is ever full here; write max_transactions, or max_bytes, beside it"
        )
    for i, entry in enumerate(scenario.workload):
        if not isinstance(entry, (Backlog, External)) and entry.senders > 1 and pool.per_sender is None:
            message = "nothing asks who sends here; write pool: {per_sender: 100}, or remove it"
            yield Problem(("workload", i, "senders"), message)
    if pool.per_sender is not None:
        places = len(scenario.places)
        several = [entry for entry in scenario.workload if not isinstance(entry, (Backlog, External))]
        most = sum(places * entry.senders for entry in several)
        if most * scenario.network.n > _SENDERS_MAX:
            rule = f"is counted for {most:,} senders at {scenario.network.n} voters, more than {_SENDERS_MAX:,} in all"
            yield Problem(("pool", "per_sender"), f"{rule}; write fewer senders in workload")
    if clients.retries and clients.retry_at_most_ns < clients.retry_after_ns:
        yield Problem(("clients", "retry_at_most"), "is below retry_after; raise it, or lower that")
    if backlog and clients.retries:
        yield Problem(("clients", "retries"), "a backlog has no clients; write workload: {kind: open, ...}")


def _membership(scenario: Scenario) -> Iterator[Problem]:
    """A protocol that can change its members, voters that exist, and times within the run."""
    network, name = scenario.network, scenario.protocol.name
    changes = bool(scenario.membership) or len(network.member_nodes) < network.n
    allowed = PROTOCOLS[name].protocol.group_changes if name in PROTOCOLS else "learners"
    if changes and allowed == "never":
        able = [other for other, entry in PROTOCOLS.items() if entry.protocol.group_changes != "never"]
        key = "members" if network.members else "learners"
        where: Path = ("membership",) if scenario.membership else ("network", key)
        message = f"{name} cannot change its members; remove this, or choose a protocol that can: {', '.join(able)}"
        yield Problem(where, message)
    elif allowed == "voters":
        learning: list[Path] = [("membership", i, "learn") for i, c in enumerate(scenario.membership) if c.learn]
        for path_ in [("network", "learners")] * bool(network.learners) + learning:
            yield Problem(path_, f"{name} has no learners; write an entry of observers: instead, or remove this")
    for i, change in enumerate(scenario.membership):
        path: Path = ("membership", i)
        if change.at_ns >= scenario.duration_ns:
            length = format_ns(scenario.duration_ns)
            yield Problem((*path, "at"), f"must be earlier than the end of the run, {length}; write an earlier time")
        if allowed == "learners" and change.when != "auto":
            yield Problem((*path, "when"), f"{name}'s newcomers catch up before they vote; remove it")
        for key in ("add", "remove", "learn", "told"):
            refs = getattr(change, key)
            for j, ref in enumerate(() if refs == "all" else refs):
                yield from _voter(ref, network, (*path, key, j))
    yield from _group(scenario)


def _group(scenario: Scenario) -> Iterator[Problem]:
    """Requests that ask for something: who joins is outside, who leaves is inside, and somebody stays to vote."""
    network = scenario.network
    voters, learners = set(network.member_nodes), set(network.learner_nodes)
    for i, change in sorted(enumerate(scenario.membership), key=lambda entry: entry[1].at_ns):
        if any(network.ref_problem(ref) for ref in (*change.add, *change.remove, *change.learn)):
            return  # said already
        path: Path = ("membership", i)
        asked: dict[int, str] = {}
        for key, inside in (("add", voters), ("remove", voters | learners), ("learn", learners)):
            for node in (node for ref in getattr(change, key) for node in network.nodes_of(ref)):
                if node in asked:
                    yield Problem((*path, key), f"node {node} is named in {asked[node]} already; name it once")
                elif (node in inside) != (key == "remove"):
                    state = {"add": "a voter", "remove": "no member", "learn": "a learner"}[key]
                    yield Problem((*path, key), f"node {node} is {state} at that time already; leave it out")
                asked[node] = key
        named = {key: {node for node, where in asked.items() if where == key} for key in ("add", "remove", "learn")}
        voters = (voters | named["add"]) - named["remove"] - named["learn"]
        learners = (learners | named["learn"]) - named["add"] - named["remove"]
        if not voters:
            yield Problem(path, "leaves no voter, and nothing would be decided any more; keep one")
            return


def _corrupted(scenario: Scenario) -> Iterator[Problem]:
    """Nodes that exist, at least one of them correct, and times within the run."""
    network, n = scenario.network, scenario.network.n
    found: set[int] = set()
    for i, entry in enumerate(scenario.corrupted):
        path: Path = ("corrupted", i)
        if entry.count is not None and entry.count > n:
            yield Problem((*path, "count"), f"there are {n} voters; write at most {n - 1}")
        if entry.at_ns >= scenario.duration_ns:
            length = format_ns(scenario.duration_ns)
            yield Problem((*path, "at"), f"must be earlier than the end of the run, {length}; write an earlier time")
        wrong = [(where, ref) for where, ref in entry.refs() if network.ref_problem(ref) is not None]
        for where, ref in wrong:
            yield Problem((*path, *where), str(network.ref_problem(ref)))
        if not wrong:
            meant = nodes_meant(entry, network.nodes_of, n)
            found.update(meant)
            yield from _groups(entry, meant, network, path)
    if len(found) >= n:
        message = f"all {n} voters are corrupted, and nothing is left to judge; leave at least one correct"
        yield Problem(("corrupted",), message)


def _groups(entry: Corruption, meant: tuple[int, ...], network: Network, path: Path) -> Iterator[Problem]:
    groups = getattr(entry, "groups", None)
    if groups is None:
        return
    sides = [{node for ref in group for node in network.nodes_of(ref)} for group in groups]
    both = sides[0] & sides[1]
    if both:
        yield Problem((*path, "groups"), f"node {min(both)} is in both groups; remove it from one")
    for node in meant:
        if node in sides[0] | sides[1]:
            yield Problem((*path, "groups"), f"node {node} is the corrupted one and hears itself; remove it")


def _state(scenario: Scenario) -> Iterator[Problem]:
    """Every class says which keys it touches, and the spaces exist; or nobody does."""
    state, spaces = scenario.state, scenario.key_spaces
    if state is not None and sum(spaces.values()) > KEYS_MAX:
        rule = f"have {sum(spaces.values()):,} keys together, more than {KEYS_MAX:,}"
        yield Problem(("state", "spaces"), f"{rule}; write fewer, a smaller space conflicts more often")
    loads = [load for load in scenario.workload if not isinstance(load, (Backlog, DemandLoad))]
    touched = max((sum(one.count for one in load.accesses) for load in loads), default=1)
    if state is not None and scenario.cpu.execute_ns and touched * scenario.block.max_transactions > _TOUCHED_MAX:
        rule = f"times {touched} keys of a transaction are more than {_TOUCHED_MAX:,} that a block may touch"
        yield Problem(("block", "max_transactions"), f"{rule}; lower it")
    for i, entry in enumerate(scenario.workload):
        path: Path = ("workload", i)
        if isinstance(entry, Backlog):
            if state is not None:
                message = "a backlog's transactions touch no keys; write workload: {kind: open, ..., accesses: [...]}"
                yield Problem(("state",), message)
            continue
        if isinstance(entry, DemandLoad):
            continue
        if isinstance(entry, External):
            yield from _follows(scenario, i)
            continue
        if state is None:
            if entry.accesses:
                yield Problem(
                    (*path, "accesses"), "belong to a state; write state: {spaces: {accounts: 10000}} beside it"
                )
            if entry.supervises:
                yield Problem((*path, "supervises"), "is about keys of a state; write state, or remove it")
            continue
        if not entry.accesses:
            message = (
                "touches no keys, so it conflicts with nothing; write accesses: [{space: accounts}], or remove state"
            )
            yield Problem(path, message)
        yield from _follows(scenario, i)
        for j, one in enumerate(entry.accesses):
            if one.space not in spaces:
                yield Problem(
                    (*path, "accesses", j, "space"), f"state has no such space; {suggestion(one.space, spaces)}"
                )
            if one.leaves in ("frozen", "thawed") and not entry.supervises:
                message = "is for orders of the supervising department; write supervises: true beside accesses"
                yield Problem((*path, "accesses", j, "leaves"), message)
            if one.ignores_freeze and entry.supervises:
                yield Problem(
                    (*path, "accesses", j, "ignores_freeze"), "goes without saying for supervises: true; remove it"
                )


def _endorsement(scenario: Scenario) -> Iterator[Problem]:
    """Peers of every organisation that the policy cannot do without, and nothing else that executes or answers."""
    rules, path = scenario.endorsement, ("endorsement",)
    peers = {observer.organisation for observer in scenario.observers if observer.organisation is not None}
    if rules is None:
        for i, observer in enumerate(scenario.observers):
            if observer.organisation is not None:
                message = "is about endorsing peers; write endorsement: {policy: OR(a, b)} too, or remove it"
                yield Problem(("observers", i, "organisation"), message)
        return
    policy = parse_policy(rules.policy)
    for name in policy.organisations:
        if name not in peers:
            hint = suggestion(name, sorted(peers)) if peers else "write observers: [{name: p1, organisation: ...}]"
            yield Problem((*path, "policy"), f"names {name}, which has no peer; {hint}")
            return
    count = sum(observer.count for observer in scenario.observers if observer.organisation is not None)
    if len(scenario.observer_of_seat) > PEERS_MAX:
        message = f"goes with at most {PEERS_MAX} observers, of which {count} are peers; there are more"
        yield Problem(path, f"{message}; write fewer")
    for i, observer in enumerate(scenario.observers):
        if observer.organisation is not None and observer.headers_only:
            yield Problem(("observers", i, "headers_only"), "a peer executes whole blocks; remove it")
    if any(isinstance(entry, Backlog) for entry in scenario.workload):
        yield Problem(path, "a backlog has no clients to endorse for; write workload: {kind: open, ...}")
    if scenario.state is not None and scenario.state.conflicts == "serialise":
        message = "what peers executed before the order is out of date once a key was written; write abort, or retry"
        yield Problem(("state", "conflicts"), message)
    clients = scenario.clients
    for key, given in (("acknowledge", clients.acknowledge != "entry"), ("results", clients.results != "own"),
                       ("entry", clients.entry != "local")):  # fmt: skip
        if given:
            yield Problem(("clients", key), "is about voters who answer, and here peers do; remove it")
    if scenario.cpu.execution not in ("auto", "after"):
        yield Problem(("cpu", "execution"), "voters only order here, and peers execute after that; remove it")
    if scenario.protocol.name in PROTOCOLS and PROTOCOLS[scenario.protocol.name].protocol.forks:
        message = (
            f"needs an order that stands, and a head of {scenario.protocol.name} may be left; choose another protocol"
        )
        yield Problem(path, message)


def _follows(scenario: Scenario, i: int) -> Iterator[Problem]:
    """Who follows another class comes after it, at its places, and touches some of its keys in the same way."""
    entry, path = scenario.workload[i], ("workload", i, "follows")
    if not isinstance(entry, (OpenLoop, External)) or entry.follows is None:
        return
    before = [load for load in scenario.workload[:i] if isinstance(load, (OpenLoop, ClosedLoop, External))]
    led = [load for load in before if load.name == entry.follows]
    if not led:
        remedy = suggestion(entry.follows, [load.name for load in before])
        yield Problem(path, f"no class before this one has that name; {remedy}")
        return
    theirs_in = {one.space: one for one in reversed(led[-1].accesses)}
    both = [(theirs_in[one.space], one) for one in entry.accesses if one.space in theirs_in]
    if not both:
        yield Problem(path, f"{entry.follows} touches no space that this class does; remove it")
    for theirs, mine in both:
        if (theirs.skew, theirs.count) != (mine.skew, mine.count):
            message = f"{entry.follows} touches {mine.space} with another skew or count; write the same"
            yield Problem(path, message)
    if getattr(led[-1], "sites", None) != getattr(entry, "sites", None):
        yield Problem(path, f"{entry.follows} is at other sites; write the same")


def _residency(scenario: Scenario) -> Iterator[Problem]:
    """Voters at home, and places whose jurisdiction is known where something depends on it."""
    network, rules = scenario.network, scenario.rules_of_place
    known = scenario.jurisdictions(scenario.places)
    if rules.voters == "home":
        for i, place in enumerate(network.place_of_node):
            if known.get(place, HOME) != HOME:
                where: Path = ("network", "sites", i) if network.sites is not None else ("network",)
                rule = f"voters stand at home, and {place} is in {known[place]}"
                remedy = "write an observer with headers_only: true there, or residency: {voters: anywhere}"
                yield Problem(where, f"{rule}; {remedy}")
    if scenario.residency is None:
        return
    for place in scenario.residency.places:
        if place not in scenario.places:
            yield Problem(("residency", "places", place), f"nobody stands there; {suggestion(place, scenario.places)}")
    labels = {
        one.row.data_label for load in scenario.workload if isinstance(load, DemandLoad) for one in load.classes()
    }
    labels |= {load.label for load in scenario.workload if not isinstance(load, (Backlog, DemandLoad))}
    stay = sorted(labels & {*scenario.residency.labels})
    lost = [place for place in scenario.places if place not in known]
    if stay and lost and network.site is None:
        rule = f"records labelled {stay[0]} must stay at home, and nobody knows in which jurisdiction {lost[0]} is"
        yield Problem(("residency",), f"{rule}; write residency: {{places: {{{lost[0]}: {HOME}}}}}, or remove it")


def _workload(scenario: Scenario) -> Iterator[Problem]:
    for i, entry in enumerate(scenario.workload):
        for j, event in enumerate(entry.events if isinstance(entry, DemandLoad) else ()):
            if event.at_ns >= scenario.duration_ns:
                length = format_ns(scenario.duration_ns)
                message = f"must be earlier than the end of the run, {length}; write an earlier time"
                yield Problem(("workload", i, "events", j, "at"), message)
        if isinstance(entry, Backlog):
            if len(scenario.workload) > 1:
                message = "keeps every block full, so nothing else can be sent; make it the only entry"
                yield Problem(("workload", i, "kind"), message)
        elif isinstance(entry, External):
            problem = None if entry.site is None else scenario.network.client_problem(entry.site)
            if problem is not None:
                yield Problem(("workload", i, "site"), problem)
        elif isinstance(entry, Trace):
            yield from _trace(entry, scenario, ("workload", i))
        elif entry.sites != "all":
            own = entry.own_places if isinstance(entry, DemandLoad) and entry.sites == "own" else ()
            for j, site in enumerate(own or entry.sites):
                problem = scenario.network.client_problem(site)
                if problem is not None:
                    yield Problem(("workload", i, "sites", *([] if own else [j])), problem)
                    if own:
                        break


def _trace(entry: Trace, scenario: Scenario, path: Path) -> Iterator[Problem]:
    """Places that exist, transactions within the run, and not too many classes."""
    rows = entry.rows
    for key, names in (("sites", () if entry.sites == "all" else entry.sites), ("file", entry.own_places)):
        for name in names:
            problem = scenario.network.client_problem(name)
            if problem is not None:
                yield Problem((*path, key), problem if key == "sites" else f"names the site {name}: {problem}")
    if rows[0, 0] >= scenario.duration_ns:
        rule = f"begins at {format_ns(int(rows[0, 0]))}, after the run is over"
        yield Problem((*path, "file"), f"{rule}; write starts_at: first, or another time_unit")
    kinds = len(np.unique(rows[:, 1:3], axis=0))
    if kinds > _KINDS_MAX:
        rule = f"has {kinds:,} different pairs of class and size, more than {_KINDS_MAX:,}"
        yield Problem((*path, "file"), f"{rule}; round the sizes")


def _clients(scenario: Scenario) -> Iterator[Problem]:
    """Somebody to pass transactions on to, where proposers wait for some: else who alone holds one waits for ever."""
    name = scenario.protocol.name
    if scenario.clients.dissemination != "forward" or name not in PROTOCOLS:
        return
    replica = PROTOCOLS[name].protocol
    if not replica.lasting_leader and replica.progress == "waiting":
        rule = f"leaders of {name} take turns and wait for transactions, so there is no leader to pass them on to"
        yield Problem(("clients", "dissemination"), f"{rule}; write broadcast, or auto")


def _times(fault: Fault, duration_ns: int, path: Path) -> Iterator[Problem]:
    length = format_ns(duration_ns)
    if fault.at_ns >= duration_ns:
        yield Problem((*path, "at"), f"must be earlier than the end of the run, {length}; write an earlier time")
    elif fault.end_ns is not None and fault.end_ns > duration_ns:
        key = "for" if fault.for_ns is not None else "until"
        end = format_ns(fault.end_ns)
        message = f"ends at {end}, after the run does ({length}); shorten it, or leave it out: it then never heals"
        yield Problem((*path, key), message)


def _targets(fault: Fault, scenario: Scenario, path: Path) -> Iterator[Problem]:
    """Why a fault has nothing to act upon."""
    action = getattr(fault, fault.kind)
    network, path = scenario.network, (*path, fault.kind)
    if isinstance(action, LoseDomain):
        yield from _domain(action.domain, network, (*path, "domain"))
    elif isinstance(action, Storm):
        for key in ("track", "flank"):
            for i, domain in enumerate(getattr(action, key)):
                yield from _domain(domain, network, (*path, key, i))
    elif isinstance(action, (Crash, LosePower, SkewClock)):
        yield from _nodes(action.nodes, scenario, (*path, "nodes"))
    elif isinstance(action, SlowNode):
        yield from _nodes(action.nodes, scenario, (*path, "nodes"))
        yield from _speeds(action, scenario, path)
    elif isinstance(action, (CutLink, DegradeLink, FlapLink)):
        yield from _two_ends(action.between, scenario, (*path, "between"))
    elif isinstance(action, Partition):
        yield from _partition(action, scenario, (*path, "groups"))
    elif isinstance(action, CutCable):
        if network.topology.is_mesh:
            message = "a full mesh has no cables to cut; give network.topology edges, or write cut_link"
            yield Problem((*path, "between"), message)
    elif isinstance(action, InvalidFlood):
        yield from _voter(action.node, network, (*path, "node"))
        if any(isinstance(entry, Backlog) for entry in scenario.workload):
            yield Problem(path, "goes with transactions that clients send; replace the backlog workload")
    elif isinstance(action, ClientBurst):
        yield from _clients_at(action.site, scenario, (*path, "site"))


def _nodes(refs: tuple[Ref, ...], scenario: Scenario, path: Path) -> Iterator[Problem]:
    for i, ref in enumerate(refs):
        yield from _voter(ref, scenario, (*path, i))


def _two_ends(between: tuple[Ref, Ref], scenario: Scenario, path: Path) -> Iterator[Problem]:
    before = 0
    for i, ref in enumerate(between):
        for problem in _voter(ref, scenario, (*path, i)):
            before += 1
            yield problem
    ends = [scenario.nodes_of(ref) for ref in between]
    if not before and set(ends[0]) & set(ends[1]):
        yield Problem(path, "both ends are the same node; name two different ends")


def _speeds(action: SlowNode, scenario: Scenario, path: Path) -> Iterator[Problem]:
    """Being slower matters only where something takes time."""
    cpu = scenario.cpu
    costs_time = cpu.crypto != "none" or cpu.handle_ns or cpu.hash_ps_per_byte or cpu.execute_ns or cpu.execute_io_ns
    if action.cpu > 1 and not costs_time:
        yield Problem((*path, "cpu"), "nothing costs processor time here; set cpu.crypto or cpu.handle")
    if action.disk > 1 and not cpu.fsync_ns:
        yield Problem((*path, "disk"), "writes cost no time here; set cpu.fsync")


def _places_of(entry: Workload, scenario: Scenario) -> tuple[str, ...]:
    """Where an entry of the workload has clients."""
    if isinstance(entry, Backlog):
        return ()
    if isinstance(entry, External):
        return (entry.site or scenario.network.places[0],)
    if isinstance(entry, DemandLoad) and entry.sites == "own":
        return entry.own_places
    if isinstance(entry, Trace) and entry.own_places:
        return entry.own_places
    return scenario.network.places if isinstance(entry.sites, str) else entry.sites


def _clients_at(site: str, scenario: Scenario, path: Path) -> Iterator[Problem]:
    with_clients = [place for entry in scenario.workload for place in _places_of(entry, scenario)]
    if site not in with_clients:
        known = tuple(dict.fromkeys(with_clients))
        yield Problem(path, f"no clients are at this place; {suggestion(site, known)}")


def _message_rule(rule: MessageRule, scenario: Scenario, path: Path) -> Iterator[Problem]:
    """Why a message rule can never take effect."""
    sound = True
    for key in ("src", "dst", "only_to"):
        refs = getattr(rule, key)
        for i, ref in enumerate(refs if isinstance(refs, tuple) else ()):
            for problem in _end(ref, scenario, (*path, key, i)):
                sound = False
                yield problem
    if rule.from_ns >= scenario.duration_ns:
        length = format_ns(scenario.duration_ns)
        yield Problem((*path, "from"), f"must be earlier than the end of the run, {length}; write an earlier time")
    if rule.delay_until_ns is not None and rule.delay_until_ns <= rule.from_ns:
        message = "is not later than from, so it delays nothing; write a later time"
        yield Problem((*path, "delay_until"), message)
    if rule.delay_until_healed is not None:
        yield from _heals(rule.delay_until_healed, scenario, (*path, "delay_until_healed"))
    if sound:
        yield from _links_of(rule, scenario, path)


def _end(ref: Ref, scenario: Scenario, path: Path) -> Iterator[Problem]:
    """A rule's end is a voter, an observer, or a place of voters or clients."""
    if ref not in scenario.places:
        yield from _voter(ref, scenario, path)


def _heals(number: int, scenario: Scenario, path: Path) -> Iterator[Problem]:
    count = len(scenario.faults)
    if number >= count:
        remedy = f"faults are 0 to {count - 1}" if count else "there are none; write a fault, or delay_until: 5 s"
        yield Problem(path, f"no fault has this place in the list; {remedy}")
    elif scenario.faults[number].end_ns is None:
        yield Problem(path, "this fault never heals; give it a for or until, or write drop: true")


def _links_of(rule: MessageRule, scenario: Scenario, path: Path) -> Iterator[Problem]:
    """A rule needs a link whose ends differ, and a receiver that only_to leaves without it."""
    everybody = {*range(scenario.network.n + len(scenario.observer_of_seat)), *scenario.places}

    def members(refs: object) -> set[int | str]:
        if not isinstance(refs, tuple):
            return set(everybody)
        nodes = {node for ref in refs for node in scenario.nodes_of(ref)}
        return nodes | {ref for ref in refs if ref in scenario.places}

    sources, targets = members(rule.src), members(rule.dst)
    if len(sources | targets) == 1:
        yield Problem((*path, "dst"), "is the sender itself, who sends itself nothing; name another receiver")
    elif rule.only_to is not None and targets <= members(rule.only_to):
        yield Problem((*path, "only_to"), "names every receiver, so nothing is dropped; leave some out, or widen dst")


def _voter(ref: Ref, among: Network | Scenario, path: Path) -> Iterator[Problem]:
    problem = among.ref_problem(ref)
    if problem is not None:
        yield Problem(path, problem)


def _domain(domain: str, network: Network, path: Path) -> Iterator[Problem]:
    if domain not in domains():
        yield Problem(path, f"no site is in such a fault domain; {suggestion(domain, domains())}")
    elif domain not in network.domain_of_node:
        held = tuple(dict.fromkeys(d for d in network.domain_of_node if d is not None))
        if held:
            yield Problem(
                path,
                f"this fault domain holds no voter; choose one that does: {', '.join(held)}",
            )
        else:
            yield Problem(
                path,
                "no domain holds a voter, as none has a location here; give network.sites, or crash nodes",
            )


def _partition(action: Partition, scenario: Scenario, path: Path) -> Iterator[Problem]:
    group_of: dict[int, int] = {}
    for i, group in enumerate(action.groups):
        for j, ref in enumerate(group):
            yield from _voter(ref, scenario, (*path, i, j))
            for node in scenario.nodes_of(ref):
                if node in group_of:
                    message = f"node {node} is in group {group_of[node] + 1} already; remove it from one"
                    yield Problem((*path, i, j), message)
                group_of.setdefault(node, i)
    if len(action.groups) == 1 and len(group_of) == scenario.network.n + len(scenario.observer_of_seat):
        yield Problem(path, "one group of all nodes parts nothing; write two groups")
