"""What a scenario's `nodes` and `links` mean for the endpoints of a run: speeds, cards, parameters, latencies."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from sim.engine.settings import Speeds
from sim.faults.disasters import CutCable
from sim.faults.script import LinkEffect, Links
from sim.network.equipment import ClockRule, LinkRule, NodeRule
from sim.network.latency import path_conditions
from sim.network.links import GraphCard, Ref
from sim.parameters import Parameters, Problem, RuleError, key_of
from sim.protocols import PROTOCOLS

if TYPE_CHECKING:
    from sim.scenario.schema import Scenario

LINKS = -1_000_000  # who holds links as they are, among the faults
EFFECTS_MAX = 200  # different links that are lossy, jittery or narrow
_LATENCY_ENDS_MAX = 4_000
_Path = tuple[str | int, ...]


@dataclasses.dataclass(frozen=True)
class Endpoints:
    """The endpoints of a run: voters, observers, twins, then clients' places and attackers.

    `place`: where each is. `node`: the voter or observer that it is, or is a copy of; clients have none.
    """

    place: tuple[str, ...]
    node: tuple[int, ...]

    def meant(self, scenario: Scenario, ref: Ref) -> list[int]:
        """Endpoints that a reference means: nodes and their copies, and clients if it is a place."""
        nodes = {*scenario.nodes_of(ref)}
        return [
            end
            for end, place in enumerate(self.place)
            if (self.node[end] in nodes if end < len(self.node) else place == ref)
        ]


# --- nodes -----------------------------------------------------------------------------------------------


def own_parameters(scenario: Scenario) -> dict[int, Parameters]:
    """The protocol's parameters at nodes that have others than the rest."""
    found: dict[int, Parameters] = {}
    for rule in scenario.nodes:
        for node in _nodes_of(rule, scenario) if rule.parameters else ():
            found[node] = changed(found.get(node, scenario.protocol.parameters), rule.parameters)
    return found


def changed(base: Parameters, text: Mapping[str, Any]) -> Parameters:
    """Parameters with some keys as a scenario writes them. Raises ValidationError."""
    said = type(base).from_text(text)
    fields = {field for field in type(base).model_fields if key_of(field) in text or field in text}
    values = {field: getattr(base, field) for field in type(base).model_fields}
    return type(base).model_validate(values | {field: getattr(said, field) for field in fields})


def _nodes_of(rule: NodeRule, scenario: Scenario) -> list[int]:
    return list(dict.fromkeys(node for ref in rule.nodes for node in scenario.nodes_of(ref)))


def wrong_clocks(scenario: Scenario, ends: Endpoints) -> dict[int, ClockRule]:
    """The clocks of seats whose clocks are wrong."""
    found: dict[int, ClockRule] = {}
    for rule in scenario.nodes:
        if rule.clock is not None:
            nodes = {*_nodes_of(rule, scenario)}
            found |= {seat: rule.clock for seat, node in enumerate(ends.node) if node in nodes}
    return found


def cores_of(scenario: Scenario, ends: Endpoints) -> NDArray[np.int64] | None:
    """Cores of each endpoint, int64, shape (endpoints,); None if all have as many."""
    if all(rule.cores is None for rule in scenario.nodes):
        return None
    return _values(scenario, ends, "cores", np.full(len(ends.place), scenario.cpu.cores))


def speeds(scenario: Scenario, ends: Endpoints) -> Speeds | None:
    """Slowness of each endpoint's equipment, or None if it is all alike."""
    if all(rule.cpu is rule.crypto is rule.disk is None for rule in scenario.nodes):
        return None
    cpu, crypto, disk = (_values(scenario, ends, key, np.ones(len(ends.place))) for key in ("cpu", "crypto", "disk"))
    return Speeds(*(np.maximum(np.rint(1024 * x), 1).astype(np.int64) for x in (cpu, cpu * crypto, disk)))


def cards_ps(scenario: Scenario, ends: Endpoints, tx_ps: NDArray[Any], rx_ps: NDArray[Any]) -> None:
    """Write the bandwidth of nodes that have their own, by the topology's file or by themselves, into those of all."""
    cards = _file_cards(scenario)
    for seat, node in enumerate(ends.node):
        if card := cards.get(node):
            tx_ps[seat] = tx_ps[seat] if card.upload_ps_per_byte is None else card.upload_ps_per_byte
            rx_ps[seat] = rx_ps[seat] if card.download_ps_per_byte is None else card.download_ps_per_byte
    tx_ps[:] = _values(scenario, ends, "upload_ps_per_byte", tx_ps)
    rx_ps[:] = _values(scenario, ends, "download_ps_per_byte", rx_ps)


def _file_cards(scenario: Scenario) -> dict[int, GraphCard]:
    """Cards that the topology's file gives to the nodes at which voters stand, by voter."""
    cards = {card.node: card for card in scenario.network.topology.cards}
    if not cards:
        return {}
    from sim.network.topology import standing  # imports networkx, which most scenarios do not need

    stands = standing(scenario.network)
    places = enumerate(scenario.network.place_of_node)
    return {node: card for node, place in places if (card := cards.get(stands.get(place, place))) is not None}


def _values(scenario: Scenario, ends: Endpoints, field: str, base: NDArray[Any]) -> NDArray[Any]:
    found = base.copy()
    node = np.array(ends.node, dtype=np.int64)
    for rule in scenario.nodes:
        if getattr(rule, field) is not None:
            found[: len(node)][np.isin(node, _nodes_of(rule, scenario))] = getattr(rule, field)
    return found


# --- links -----------------------------------------------------------------------------------------------


class StaticLinks:
    """Links that differ from the rest for the whole run: by their cables, or because `links` says so."""

    def __init__(self, scenario: Scenario, ends: Endpoints) -> None:
        self._scenario, self._ends = scenario, ends
        self.one_way_ns: dict[tuple[int, int], int] = {}
        edges = scenario.network.topology.edges
        self.caps_ps: list[int] = []
        self._cap_of_cable = {
            2 * number + back: self._cap(edge.bandwidth_ps_per_byte)
            for number, edge in enumerate(edges)
            for back in range(1 if edge.directed else 2)
        }
        self._said: list[tuple[LinkRule, int, list[tuple[int, int]]]] = []  # rule, cap and links, a direction each
        for rule in scenario.links:
            for start, to in rule.directions:
                pairs = self._pairs(ends.meant(scenario, start), ends.meant(scenario, to))
                self._said.append((rule, self._cap(rule.bandwidth_ps_per_byte), pairs))
                if rule.one_way_ns is not None:
                    self.one_way_ns |= dict.fromkeys(pairs, rule.one_way_ns + scenario.network.processing_ns)

    def _cap(self, ps_per_byte: int | None) -> int:
        """The place of one direction's bandwidth in the engine's table; 0: it is unlimited."""
        if not ps_per_byte:
            return 0
        self.caps_ps.append(ps_per_byte)
        return len(self.caps_ps)

    @staticmethod
    def _pairs(starts: Sequence[int], to: Sequence[int]) -> list[tuple[int, int]]:
        return [(a, b) for a in starts for b in to if a != b]

    def effects(self, cut: Sequence[tuple[str, str]] = ()) -> dict[tuple[int, int], LinkEffect]:
        """What links do to messages, by directed pair of endpoints, with some cables cut."""
        scenario = self._scenario
        effects: dict[tuple[int, int], LinkEffect] = {}
        if found := path_conditions(scenario.network, scenario.seed, scenario.places, cut):
            index = {place: i for i, place in enumerate(scenario.places)}
            at = [index[place] for place in self._ends.place]
            for pair in self._pairs(range(len(at)), range(len(at))):
                if condition := found.get((at[pair[0]], at[pair[1]])):
                    cap = 0 if condition.narrowest is None else self._cap_of_cable[condition.narrowest]
                    effects[pair] = LinkEffect(loss=condition.loss, cap=cap)
        for rule, cap, pairs in self._said:
            for pair in pairs:
                old = effects.get(pair, LinkEffect())
                effects[pair] = LinkEffect(
                    loss=old.loss if rule.loss is None else rule.loss,
                    span_ns=old.span_ns if rule.jitter_ns is None else rule.jitter_ns,
                    cap=old.cap if rule.bandwidth_ps_per_byte is None else cap,
                )
        return {pair: effect for pair, effect in effects.items() if effect != LinkEffect()}

    def hold(self, links: Links, cut: Sequence[tuple[str, str]] = ()) -> None:
        """Put the links under their effects, which last until other cables are cut."""
        for pair, effect in self.effects(cut).items():
            links.hold(LINKS, [pair], effect)

    def reroute(self, links: Links, cut: Sequence[tuple[str, str]]) -> None:
        """Cables were cut or mended: messages take other cables."""
        if self._scenario.network.topology.has_conditions:
            links.let_go(LINKS)
            self.hold(links, cut)

    def latency_ns(self, matrix: NDArray[np.int64], at: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Latency and the place in it of each endpoint: `matrix` and `at`, unless some link takes another time."""
        if not self.one_way_ns:
            return matrix, np.array(at)
        found = matrix[np.ix_(at, at)]
        for (src, dst), one_way_ns in self.one_way_ns.items():
            found[src, dst] = one_way_ns
        return found, np.arange(len(at))


# --- rules -----------------------------------------------------------------------------------------------


def problems(scenario: Scenario) -> Iterator[Problem]:
    """Nodes and links that do not exist, and what can have no effect."""
    for i, node_rule in enumerate(scenario.nodes):
        yield from _node_problems(node_rule, scenario, ("nodes", i))
    places = {*scenario.places}
    for i, link_rule in enumerate(scenario.links):
        sound = True
        for key, ref in _ends_of(link_rule):
            problem = None if ref in places else scenario.ref_problem(ref)
            if problem is not None:
                sound = False
                yield Problem(("links", i, *key), problem)
        if sound:
            yield from _link_problems(link_rule, scenario, ("links", i))
    yield from _effect_problems(scenario)
    longer = any(rule.one_way_ns is not None for rule in scenario.links)
    if longer and 2 * scenario.network.n > _LATENCY_ENDS_MAX:
        message = f"are for at most {_LATENCY_ENDS_MAX // 2} voters; give network.latency a table"
        yield Problem(("links",), message)
    if longer and any(isinstance(getattr(fault, fault.kind), CutCable) for fault in scenario.faults):
        yield Problem(("links",), "with one_way have no way round a cut cable; write the edge's latency in topology")


def _effect_problems(scenario: Scenario) -> Iterator[Problem]:
    """The engine knows so many kinds of links; and cards in queues know no link that is narrower than they are."""
    network, edges = scenario.network, scenario.network.topology.edges
    kinds = {(rule.loss, rule.jitter_ns) for rule in scenario.links}
    narrow = sum(len(rule.directions) for rule in scenario.links if rule.bandwidth_ps_per_byte)
    if len(kinds) + narrow > EFFECTS_MAX:
        rule_text = f"have {len(kinds) + narrow} different losses, jitters and bandwidths, more than {EFFECTS_MAX}"
        yield Problem(("links",), f"{rule_text}; make some of them alike")
    if not network.topology.has_conditions:
        return
    path = ("network", "topology")
    if _queues_at_cards(scenario) and any(edge.bandwidth_ps_per_byte for edge in edges):
        message = "has edges with a bandwidth, which goes with cards that share what they send; write"
        yield Problem(path, f"{message} network.sharing: fair, or priority")
    try:
        paths = {*path_conditions(network, scenario.seed, scenario.places).values()}
    except RuleError:
        return  # what is wrong with the topology is said elsewhere
    if len(paths) + len(kinds) + narrow > EFFECTS_MAX:
        message = f"gives paths of {len(paths)} different losses and narrowest edges, more than {EFFECTS_MAX}"
        yield Problem(path, f"{message}; make edges alike, or leave their loss and bandwidth out")


def _queues_at_cards(scenario: Scenario) -> bool:
    """Whether copies wait for one another at some card."""
    network = scenario.network
    slow = any(r.upload_ps_per_byte for r in scenario.nodes) or any(
        c.upload_ps_per_byte for c in network.topology.cards
    )
    return network.sharing == "fifo" and bool(network.bandwidth_ps_per_byte or slow)


def _ends_of(rule: LinkRule) -> Iterator[tuple[_Path, Ref]]:
    if rule.between is not None:
        yield from ((("between", i), ref) for i, ref in enumerate(rule.between))
    elif rule.start is not None and rule.to is not None:
        yield from ((("from",), rule.start), (("to",), rule.to))


def _node_problems(rule: NodeRule, scenario: Scenario, path: _Path) -> Iterator[Problem]:
    wrong = [(i, scenario.ref_problem(ref)) for i, ref in enumerate(rule.nodes)]
    yield from (Problem((*path, "nodes", i), problem) for i, problem in wrong if problem is not None)
    cpu = scenario.cpu
    crypto = cpu.crypto != "none"
    executes = cpu.execute_ns or cpu.execute_block_ns or cpu.execute_io_ns
    costs = crypto or cpu.handle_ns or cpu.hash_ps_per_byte or executes
    idle = {
        "cores": (crypto, "nothing is verified here; set cpu.crypto"),
        "cpu": (costs, "nothing costs processor time here; set cpu.crypto or cpu.handle"),
        "crypto": (crypto, "nothing is signed here; set cpu.crypto"),
        "disk": (cpu.fsync_ns, "writes cost no time here; set cpu.fsync"),
    }
    for key, (some, message) in idle.items():
        if getattr(rule, key) is not None and not some:
            yield Problem((*path, key), message)
    name = scenario.protocol.name
    if name in PROTOCOLS and rule.crypto is not None and crypto and executes:
        place = PROTOCOLS[name].protocol.executes if cpu.execution == "auto" else cpu.execution
        if place == "before_vote":  # then a block's execution is part of what its receivers verify
            yield Problem((*path, "crypto"), "would count for execution before votes too; write cpu: instead")
    if not rule.parameters or name not in PROTOCOLS:
        return
    keys = {key_of(field) for field in type(scenario.protocol.parameters).model_fields}
    for key in rule.parameters:
        if key not in keys:
            yield Problem((*path, "parameters", key), f"{name} has no such parameter; it has {', '.join(sorted(keys))}")
            return
    try:
        PROTOCOLS[name].check(changed(scenario.protocol.parameters, rule.parameters), scenario.network.n)
    except ValidationError as error:
        yield from _parameter_problems(error, (*path, "parameters"))
    except ValueError as error:
        yield Problem((*path, "parameters"), str(error))


def _parameter_problems(error: ValidationError, path: _Path) -> Iterator[Problem]:
    for item in error.errors(include_url=False):
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, RuleError):
            yield from (Problem((*path, *problem.path), problem.message) for problem in cause.problems)
        else:
            text = str(cause) if cause is not None else f"{item['msg'].lower()}; correct it"
            yield Problem((*path, *(part for part in item["loc"] if isinstance(part, str))), text)


def _link_problems(rule: LinkRule, scenario: Scenario, path: _Path) -> Iterator[Problem]:
    (start, to), key = rule.directions[0], "between" if rule.between is not None else "to"
    ends = [{*scenario.nodes_of(ref)} for ref in (start, to)]
    if start == to or (len(ends[0]) == 1 and ends[0] == ends[1]):
        yield Problem((*path, key), "both ends are the same; name two different ends")
    if rule.bandwidth_ps_per_byte and _queues_at_cards(scenario):
        message = "goes with cards that share what they send; write network.sharing: fair, or priority"
        yield Problem((*path, "bandwidth"), message)
