"""One-way latency between places, as a matrix of integer nanoseconds: measured, drawn, or by distance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.network.distance import great_circle_km, rtt_ms
from sim.network.links import DistanceLatency, ExplicitLatency, FixedLatency, MatrixLatency, UniformLatency
from sim.network.settings import Network
from sim.network.sites import sites
from sim.units import NS_PER_MS

if TYPE_CHECKING:
    from sim.network.topology import Condition


def distance_one_way_ns(a: str, b: str, quality: str) -> int:
    """One-way time between two sites given by code, integer ns, ties to even."""
    table = sites()
    return round(rtt_ms(great_circle_km(table[a].coordinates_deg, table[b].coordinates_deg), quality) / 2 * NS_PER_MS)


def one_way_matrix_ns(network: Network, seed: int, places: Sequence[str] | None = None) -> NDArray[np.int64]:
    """One-way latency from place (row) to place (column), int64 ns, shape (places, places).

    `places` defaults to `network.places`; clients' own places may follow them. The diagonal is the time
    within a place: between two voters there, and between a client and its node. Measured round trips override
    the model; with a topology other than the full mesh, entries are fastest paths along its edges.
    """
    names = tuple(network.places if places is None else places)
    matrix = _direct_ns(network, names, seed)
    if not network.topology.is_mesh:
        from sim.network.topology import routes  # imports networkx

        return routes(network, names, matrix, seed).one_way_ns
    return matrix


def without_cables_ns(
    network: Network, seed: int, places: Sequence[str], cut: Iterable[tuple[str, str]]
) -> NDArray[np.int64]:
    """The matrix of `one_way_matrix_ns` when edges of the topology are cut; -1: no path is left.

    Raises RuleError if the topology has no such edge.
    """
    from sim.network.topology import without_cables

    names = tuple(places)
    return without_cables(network, names, _direct_ns(network, names, seed), seed, cut)


def path_conditions(
    network: Network, seed: int, places: Sequence[str], cut: Iterable[tuple[str, str]] = ()
) -> dict[tuple[int, int], Condition]:
    """What cables do to messages between places (indices) besides taking time, where they do anything."""
    if not network.topology.has_conditions:
        return {}
    from sim.network.topology import conditions

    names = tuple(places)
    return conditions(network, names, _direct_ns(network, names, seed), seed, cut)


def _direct_ns(network: Network, names: tuple[str, ...], seed: int) -> NDArray[np.int64]:
    """Latency of direct links: the model's, with what was measured in place of it."""
    matrix = _model_ns(network, names, seed)
    index = {name: i for i, name in enumerate(names)}
    for measured in network.measured_rtt:
        i, j = (index[_place(network, ref)] for ref in measured.between)
        matrix[i, j] = matrix[j, i] = round(Fraction(measured.rtt_ns, 2))
    return matrix


def _place(network: Network, ref: int | str) -> str:
    return network.place_of_node[ref] if isinstance(ref, int) else ref


def _model_ns(network: Network, names: tuple[str, ...], seed: int) -> NDArray[np.int64]:
    latency = network.latency
    if isinstance(latency, ExplicitLatency):
        return np.array(latency.one_way_ns, dtype=np.int64)
    count = len(names)
    matrix = np.zeros((count, count), dtype=np.int64)
    if isinstance(latency, FixedLatency):
        matrix[:] = latency.one_way_ns
        return matrix
    if isinstance(latency, MatrixLatency):
        return _measured_ns(latency, names)
    for i, a in enumerate(names):
        for j in range(i, count):
            matrix[i, j] = matrix[j, i] = _pair_ns(latency, seed, i, j, a, names[j])
    return matrix


def _measured_ns(latency: MatrixLatency, names: tuple[str, ...]) -> NDArray[np.int64]:
    """The table's entries, each direction as it says."""
    table = latency.one_ways_ns()
    matrix = np.zeros((len(names), len(names)), dtype=np.int64)
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            if a != b and (a, b) not in table:
                raise KeyError(f"the latency table has no row for {a} and {b}; add it")
            matrix[i, j] = latency.intra_site_ns if a == b else table[a, b]
    return matrix


def _pair_ns(latency: UniformLatency | DistanceLatency, seed: int, i: int, j: int, a: str, b: str) -> int:
    if isinstance(latency, UniformLatency):
        from sim.kernel import chance  # compiled code: imported only where something is drawn

        span_ns = latency.high_ns - latency.low_ns + 1
        return latency.low_ns + int(chance.draw_below(span_ns, seed, chance.LATENCY_PAIR, i, j))
    if a == b:
        return latency.intra_site_ns
    return distance_one_way_ns(a, b, latency.quality)
