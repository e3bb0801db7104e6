"""Topologies: which places are linked directly, and how long the fastest path between the others is.

A message between places without a direct link follows the fastest path; its latency is the sum over the
edges, and it is lost as often as on any of them. Of a path's bandwidths the narrowest counts, in a queue that all paths
share whose narrowest it is; routers on the way add no other queueing.
Voters at one place share a local network and are linked whatever the topology says.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from sim import units
from sim.files import UnfitFileError, read_regular, unpacked
from sim.network.distance import great_circle_km, rtt_ms
from sim.network.sites import suggestion
from sim.parameters import Problem, RuleError
from sim.units import NS_PER_MS

if TYPE_CHECKING:
    from sim.network.links import Topology
    from sim.network.settings import Network

_AT = ("graphml",)
_TIMES = {"one_way_ms": 1, "rtt_ms": 2, "latency": 1, "delay": 1}  # attributes of edges, and ways there and back
_COORDINATES = (("latitude", "lat"), ("longitude", "lon", "long", "lng"))
_LOSSES = ("packet_loss", "loss")  # attributes of edges: shares of 1
_BANDWIDTHS = {"capacity": "Mbps", "LinkSpeedRaw": "bit/s", "bandwidth": ""}  # and the unit of those without one
_CARDS = {"host_bandwidth_up": "upload", "host_bandwidth_down": "download"}  # attributes of nodes, in Shadow's files
_TELLING = ("bandwidth", "capacity", "speed", "loss", "jitter", "weight", "dist", "length")
_FILE_BYTES_MAX = 5_000_000
_ATTEMPTS = 100


@dataclasses.dataclass(frozen=True)
class Routes:
    """`adjacent`: direct links, bool; `one_way_ns`: fastest paths, int64; both (places, places)."""

    adjacent: NDArray[np.bool_]
    one_way_ns: NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Condition:
    """What the cables of a path do besides taking time. `narrowest`: cable and direction, as `2 * number + back`."""

    loss: float = 0.0
    narrowest: int | None = None


def family_edges(topology: Topology, count: int, seed: int) -> list[tuple[int, int]]:
    """Edges of a named graph over places 0..count-1. Raises RuleError if no such graph has that size."""
    family = topology.family
    if family == "full-mesh":
        return list(nx.complete_graph(count).edges)
    if family == "ring":
        return list((nx.cycle_graph(count) if count > 2 else nx.path_graph(count)).edges)
    if family == "line":
        return list(nx.path_graph(count).edges)
    if family == "star":
        return list(nx.star_graph(count - 1).edges)
    if family == "tree":
        return list(nx.full_rary_tree(2, count).edges)
    return random_regular_edges(count, topology.degree or 0, seed)


def random_regular_edges(count: int, degree: int, seed: int) -> list[tuple[int, int]]:
    """A connected random regular graph, a function of the seed: a circulant graph, shuffled by edge swaps.

    Swaps are keyed by draws; networkx's own generator may change its stream with the version.
    Raises RuleError if degree * count is odd or the degree not below the count.
    """
    if degree >= count or degree * count % 2:
        message = f"no graph has {count} places of degree {degree}; choose degree < places, one of them even"
        raise RuleError([Problem(("network", "topology", "degree"), message)])
    from sim.kernel import chance  # compiled code: imported only where something is drawn

    offsets = [*range(1, degree // 2 + 1), *([count // 2] if degree % 2 else [])]
    graph = nx.circulant_graph(count, offsets)
    for attempt in range(_ATTEMPTS):
        edges = [(min(a, b), max(a, b)) for a, b in graph.edges]
        present = set(edges)
        for step in range(10 * len(edges)):
            draw = chance.draw(seed, chance.TOPOLOGY, attempt, step)
            i, j = (draw >> 32) % len(edges), (draw & 0xFFFFFFFF) % len(edges)
            (a, b), (c, d) = edges[i], edges[j]
            if draw >> 63:
                c, d = d, c
            one, two = (min(a, d), max(a, d)), (min(c, b), max(c, b))
            if len({a, b, c, d}) == 4 and one not in present and two not in present:
                present -= {edges[i], edges[j]}
                present |= {one, two}
                edges[i], edges[j] = one, two
        if nx.is_connected(nx.Graph(edges)):
            return sorted(edges)
    return sorted((min(a, b), max(a, b)) for a, b in graph.edges)


@functools.lru_cache(maxsize=4)
def neighbours(count: int, degree: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Each member's neighbours in a connected random graph: `degree` of them, or all others if there are not more.

    A function of the seed, independent of the network's own topology. Raises RuleError as `random_regular_edges`.
    """
    if degree >= count - 1:
        return tuple(tuple(other for other in range(count) if other != one) for one in range(count))
    from sim.kernel import chance  # compiled code: imported only where something is drawn

    near: list[list[int]] = [[] for _ in range(count)]
    for a, b in random_regular_edges(count, degree, chance.draw(seed, chance.TOPOLOGY, -1)):
        near[a].append(b)
        near[b].append(a)
    return tuple(tuple(sorted(members)) for members in near)


def routes(network: Network, places: Sequence[str], direct_ns: NDArray[np.int64], seed: int) -> Routes:
    """Fastest paths between places. `direct_ns`: latency of a direct link, int64 ns, (places, places).

    A client's place that the topology does not name is linked to the nearest voter's place. Raises RuleError
    if an edge has no latency, names nothing known, or a place cannot be reached.
    """
    return _fastest(_graph(network, places, direct_ns, seed), places, direct_ns, standing(network))


def without_cables(
    network: Network,
    places: Sequence[str],
    direct_ns: NDArray[np.int64],
    seed: int,
    cut: Iterable[tuple[str, str]],
) -> NDArray[np.int64]:
    """One-way latency when some edges are cut, as of `routes`; -1 between places that no path joins.

    Of parallel edges the fastest is cut, or as many of the fastest as the edge is named, in each direction. Raises
    RuleError if an edge to cut does not exist.
    """
    graph = _cut(_graph(network, places, direct_ns, seed), cut)
    return _fastest(graph, places, direct_ns, standing(network), whole=False).one_way_ns


def conditions(
    network: Network,
    places: Sequence[str],
    direct_ns: NDArray[np.int64],
    seed: int,
    cut: Iterable[tuple[str, str]] = (),
) -> dict[tuple[int, int], Condition]:
    """What happens on the fastest path from place to place (indices), where anything does, with some edges cut."""
    edges = network.topology.edges
    graph = _cut(_graph(network, places, direct_ns, seed), cut)
    found = {}
    for i, a in enumerate(places):
        paths = nx.single_source_dijkstra_path(graph, a)
        for j, b in enumerate(places):
            kept, narrowest, narrowest_ps = 1.0, None, 0
            for start, to in itertools.pairwise(paths.get(b, ())):
                arc = _fastest_cable(graph, start, to)
                if arc is None:
                    continue
                edge = edges[arc // 2]
                kept *= 1 - (edge.loss or 0.0)
                if (edge.bandwidth_ps_per_byte or 0) > narrowest_ps:
                    narrowest, narrowest_ps = arc, edge.bandwidth_ps_per_byte or 0
            if i != j and (kept < 1 or narrowest is not None):
                found[i, j] = Condition(1 - kept, narrowest)
    return found


def _fastest_cable(graph: Any, a: str, b: str) -> int | None:
    """The cable from a to b that messages take, with its direction; None: it is none of the topology's."""
    cables = graph[a][b]
    arc: int | None = cables[min(cables, key=lambda key: (cables[key]["weight"], key))]["arc"]
    return arc


def _cut(graph: Any, cut: Iterable[tuple[str, str]]) -> Any:
    for (a, b), times in Counter((min(edge), max(edge)) for edge in cut).items():
        if not graph.has_edge(a, b) and not graph.has_edge(b, a):
            near = ", ".join(sorted({*graph.successors(a), *graph.predecessors(a)})) if a in graph else ""
            remedy = f"{a} is linked to {near}" if near else f"'{a}' is no place or router; " + suggestion(a, graph)
            raise RuleError([Problem((), f"no edge of the topology joins {a} and {b}; {remedy}")])
        for start, to in ((a, b), (b, a)):
            cables = graph.get_edge_data(start, to, default={})
            for key in sorted(cables, key=lambda key: (cables[key]["weight"], key))[:times]:
                graph.remove_edge(start, to, key)
    return graph


def standing(network: Network) -> dict[str, str]:
    """At which node of the topology's file each voter's place is, where it is not called like one."""
    topology, own = network.topology, network.places
    if topology.at:
        return {place: node for place, node in zip(network.place_of_node, topology.at, strict=True) if place != node}
    if not topology.routers or {*own} & {*topology.routers} or len(own) > len(topology.routers):
        return {}
    return dict(zip(own, topology.routers, strict=False))


def _graph(network: Network, places: Sequence[str], direct_ns: NDArray[np.int64], seed: int) -> Any:
    """Places, routers and cables; each direction is an arc of its own, and two cables may join the same places."""
    index = {name: i for i, name in enumerate(places)}
    own = network.places
    graph: Any = nx.MultiDiGraph()
    graph.add_nodes_from(own)
    keys = itertools.count()

    def cable(a: str, b: str, weight: int, number: int | None = None, *, directed: bool = False) -> None:
        key = next(keys)  # the same for both directions: parallel cables are cut in one order
        graph.add_edge(a, b, key, weight=weight, arc=None if number is None else 2 * number)
        if not directed:
            graph.add_edge(b, a, key, weight=weight, arc=None if number is None else 2 * number + 1)

    if network.topology.edges:
        for number, edge in enumerate(network.topology.edges):
            weight = edge.one_way_ns
            if weight is None:
                if edge.start not in index or edge.to not in index:
                    unknown = edge.start if edge.start not in index else edge.to
                    message = f"edge {edge.start} - {edge.to} needs one_way_ms: '{unknown}' is no place; "
                    _refuse(message + suggestion(unknown, own))
                weight = int(direct_ns[index[edge.start], index[edge.to]])
            cable(edge.start, edge.to, weight, number, directed=edge.directed)
    else:
        for a, b in family_edges(network.topology, len(own), seed):
            cable(own[a], own[b], int(direct_ns[index[own[a]], index[own[b]]]))
    for place, node in standing(network).items():
        cable(place, node, 0)
    for place in places:
        if place not in graph:
            nearest = min(own, key=lambda name: (int(direct_ns[index[place], index[name]]), index[name]))
            cable(place, nearest, int(direct_ns[index[place], index[nearest]]))
    return graph


def _fastest(
    graph: Any, places: Sequence[str], direct_ns: NDArray[np.int64], stands: Mapping[str, str], *, whole: bool = True
) -> Routes:
    count = len(places)
    adjacent = np.eye(count, dtype=np.bool_)
    one_way_ns = np.zeros((count, count), dtype=np.int64)
    for i, a in enumerate(places):
        lengths = nx.single_source_dijkstra_path_length(graph, a)
        for j, b in enumerate(places):
            if b not in lengths and not whole:
                one_way_ns[i, j] = -1
                continue
            if b not in lengths:
                _refuse(f"no path leads from {a} to {b}; add an edge")
            here, there = stands.get(a, a), stands.get(b, b)
            one_way_ns[i, j] = direct_ns[i, i] if here == there else lengths[b]
            adjacent[i, j] |= graph.has_edge(here, there) or graph.has_edge(there, here)
    return Routes(adjacent, one_way_ns)


def _refuse(message: str) -> None:
    raise RuleError([Problem(("network", "topology"), message)])


@dataclasses.dataclass(frozen=True)
class GraphFile:
    """What a GraphML or GML file says: fields of `GraphEdge` and `GraphCard`, its nodes, attributes not used."""

    edges: list[dict[str, Any]]
    cards: list[dict[str, Any]]
    nodes: tuple[str, ...]
    unused: tuple[str, ...]


def read_graph(path: Path, quality: str) -> GraphFile:
    """Read a GraphML or GML file: edges and nodes in the file's order.

    Nodes are called by the first of their attributes `site`, `label`, `name`, or else by their id, and may carry
    `host_bandwidth_up` and `host_bandwidth_down` (Shadow). An edge takes `one_way_ms`, `rtt_ms`, `latency` with a unit
    (Shadow) or `delay` (FNSS, whose graph names the unit); without one, what the distance model of `quality` says if
    both ends have coordinates (Topology Zoo), or else nothing; `packet_loss` or `loss`, shares of 1; `capacity` (FNSS,
    whose graph names the unit, Mbps by default), `LinkSpeedRaw` (Topology Zoo, bit/s) or `bandwidth` with a unit. Two
    like directions of a directed file are one cable. Raises RuleError if the file cannot be used.
    """
    graph = _parsed(path)
    names = {node: _name(node, data) for node, data in graph.nodes(data=True)}
    if len(set(names.values())) != len(names):
        raise RuleError([Problem(_AT, "gives two nodes the same name; make site, label or name unique")])
    where = {node: _coordinates(data) for node, data in graph.nodes(data=True)}
    edges = []
    for a, b, data in _sorted(graph.edges(data=True), names):
        if graph.is_directed() and a == b:  # Shadow's way within a node, which the latency model says here
            continue
        edge = _edge(names[a], names[b], data, graph.graph)
        start, end = where[a], where[b]
        if "one_way" not in edge and start is not None and end is not None:
            km = great_circle_km(start, end)
            edge["one_way"] = f"{round(rtt_ms(km, quality) / 2 * NS_PER_MS)} ns"
        edges.append(edge)
    if graph.is_directed():
        edges = _paired(edges)
    cards = [card for node, data in graph.nodes(data=True) if len(card := _card(names[node], data)) > 1]
    return GraphFile(edges, cards, tuple(names.values()), tuple(_unused(graph)))


def _paired(edges: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One edge for two like directions of a cable; what has no like one back goes one way alone."""

    def says(edge: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in edge.items() if key not in ("from", "to", "directed")}

    waiting: dict[tuple[str, str], list[dict[str, Any]]] = {}
    found = []
    for edge in edges:
        there = waiting.get((edge["to"], edge["from"]), [])
        other = next((one for one in there if says(one) == says(edge)), None)
        if other is None:
            edge["directed"] = True
            waiting.setdefault((edge["from"], edge["to"]), []).append(edge)
            found.append(edge)
        else:
            there.remove(other)
            del other["directed"]
    return found


def _parsed(path: Path) -> Any:
    try:
        content = unpacked(read_regular(path, _FILE_BYTES_MAX), _FILE_BYTES_MAX)
    except UnfitFileError as error:
        raise RuleError([Problem(_AT, str(error))]) from None
    except OSError:
        raise RuleError([Problem(_AT, "cannot be read; give the path of a GraphML or GML file")]) from None
    is_xml = content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
    try:
        return nx.read_graphml(io.BytesIO(content)) if is_xml else _gml(content.decode("utf-8-sig"))
    except Exception as error:  # networkx and the XML parser raise a dozen kinds on malformed input
        why = "" if is_xml else f" ({' '.join(str(error).split())[:100]})"
        rule = f"is no GraphML or GML file{why}; write it with networkx.write_graphml"
        raise RuleError([Problem(_AT, rule)]) from None


def _gml(text: str) -> Any:
    """A GML file. Two edges between the same nodes are two cables, whether or not the file says `multigraph 1`."""
    if not re.search(r"\bmultigraph\b", text):
        text = re.sub(r"(\bgraph\s*\[)", r"\1\n  multigraph 1", text, count=1)
    return nx.parse_gml(text.splitlines(), label="id")


def _sorted(edges: Iterable[Any], names: dict[Any, str]) -> list[Any]:
    return sorted(edges, key=lambda edge: (names[edge[0]], names[edge[1]]))


def _name(node: object, data: dict[str, Any]) -> str:
    for key in ("site", "label", "name"):
        if data.get(key) not in (None, ""):
            return str(data[key])
    return str(node)


def _coordinates(data: dict[str, Any]) -> tuple[float, float] | None:
    """Latitude and longitude of a node, degrees, if it has both."""
    low = {key.lower(): value for key, value in data.items()}
    found = [next((low[key] for key in keys if key in low), None) for keys in _COORDINATES]
    try:
        latitude, longitude = (float(value) for value in found)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return (latitude, longitude) if abs(latitude) <= 90 and abs(longitude) <= 360 else None


def _edge(start: str, to: str, data: dict[str, Any], of_graph: dict[str, Any]) -> dict[str, Any]:
    edge: dict[str, Any] = {"from": start, "to": to}
    where = f"edge {start} - {to}"
    for key, halves in _TIMES.items():
        if key in data:
            unit = {"latency": "", "delay": of_graph.get("delay_unit", "ms")}.get(key, "ms")
            edge["one_way"] = f"{_value(units.parse_ns, data[key], unit, where, key) // halves} ns"
            break
    for key in _LOSSES:
        if key in data:
            edge["loss"] = _value(units.parse_fraction, data[key], "", where, key)
            break
    for key, unit in _BANDWIDTHS.items():
        if key in data:
            unit = str(of_graph.get("capacity_unit", unit)) if key == "capacity" else unit
            edge["bandwidth"] = _bandwidth(data[key], unit, where, key)
            break
    return edge


def _card(name: str, data: dict[str, Any]) -> dict[str, Any]:
    """Fields of a node's `GraphCard`; Shadow's bandwidths count a second without saying so."""
    card = {field: _bandwidth(data[key], "/s", f"node {name}", key) for key, field in _CARDS.items() if key in data}
    return {"node": name, **card}


def _bandwidth(value: object, unit: str, where: str, key: str) -> str:
    """As a scenario writes it. Zero is what some files give a cable whose bandwidth nobody knows: unlimited."""
    text = f"{value:.12g}" if isinstance(value, float) else str(value)
    if re.fullmatch(r"0(\.0*)?", text.strip()):
        return "unlimited"
    written = f"{text}{unit}" if unit == "/s" else f"{text} {unit}".strip()
    _value(units.parse_ps_per_byte, written, "", where, key)
    return written


def _value(parse: Callable[[object], Any], value: object, unit: str, where: str, key: str) -> Any:
    try:
        return parse(f"{value} {unit}".strip())
    except units.UnitError as error:
        raise RuleError([Problem(_AT, f"{where}: {key} {error}")]) from None


def _unused(graph: Any) -> list[str]:
    """Attributes that say something of links or cards, and that nothing here looks at."""
    on_edges = {key for *_, data in graph.edges(data=True) for key in data}
    on_edges -= {*_TIMES, *_LOSSES, *_BANDWIDTHS}
    on_nodes = {key for _, data in graph.nodes(data=True) for key in data} - _CARDS.keys()
    return sorted(key for key in on_edges | on_nodes if any(word in key.lower() for word in _TELLING))
