"""Topologies from elsewhere: coordinates (Topology Zoo), delays (FNSS), GML (Shadow), parallel and directed cables."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from sim.network.distance import great_circle_km, rtt_ms
from sim.network.latency import one_way_matrix_ns, without_cables_ns
from sim.network.settings import Network

NEW_YORK, CHICAGO, DENVER = (40.71427, -74.00597), (41.85003, -87.65005), (39.73915, -104.9847)
SHADOW = """graph [
  directed 0
  node [ id 0 host_bandwidth_down "140 Mbit" host_bandwidth_up "18 Mbit" ]
  node [ id 1 host_bandwidth_down "1 Gbit" host_bandwidth_up "1 Gbit" ]
  edge [ source 0 target 1 latency "50 ms" packet_loss 0.01 ]
]
"""


def network(folder: Path, name: str, nodes: int = 2, **topology: Any) -> Network:
    """Equal voters on the graph of a file."""
    data = {
        "nodes": nodes,
        "latency": {"model": "fixed", "one_way": "10 ms"},
        "topology": {"graphml": name, **topology},
    }
    return Network.from_text(data, base_dir=str(folder))


def zoo(folder: Path) -> None:
    """A file as the Topology Zoo keeps them: labels, coordinates, and nothing about time."""
    graph = nx.Graph()
    for i, (label, (latitude, longitude)) in enumerate(
        {"New York": NEW_YORK, "Chicago": CHICAGO, "Denver": DENVER}.items()
    ):
        graph.add_node(str(i), label=label, Latitude=latitude, Longitude=longitude, Internal=1)
    graph.add_edge("0", "1", LinkLabel="OC-192c")
    graph.add_edge("1", "2", LinkLabel="OC-192c")
    nx.write_graphml(graph, folder / "zoo.graphml")


def fibre_ns(*places: tuple[float, float], quality: str = "mid") -> int:
    """One way along these places."""
    return sum(round(rtt_ms(great_circle_km(a, b), quality) / 2 * 1_000_000) for a, b in itertools.pairwise(places))


def test_edges_between_coordinates_are_fibre(tmp_path: Path) -> None:
    zoo(tmp_path)
    matrix = one_way_matrix_ns(network(tmp_path, "zoo.graphml", 3), 1)
    assert matrix[0, 1] == fibre_ns(NEW_YORK, CHICAGO) > 5_600_000  # 1,145 km take 5.6 ms in any fibre
    assert matrix[0, 2] == fibre_ns(NEW_YORK, CHICAGO, DENVER)
    low = one_way_matrix_ns(network(tmp_path, "zoo.graphml", 3, quality="low"), 1)
    assert low[0, 1] == fibre_ns(NEW_YORK, CHICAGO, quality="low")


def test_voters_stand_where_the_scenario_says(tmp_path: Path) -> None:
    zoo(tmp_path)
    matrix = one_way_matrix_ns(network(tmp_path, "zoo.graphml", 3, at=["Denver", "New York", "Denver"]), 1)
    assert matrix[0, 1] == fibre_ns(DENVER, CHICAGO, NEW_YORK)
    assert matrix[0, 2] == 10_000_000, "within a place, as the latency model has it"
    cut = without_cables_ns(network(tmp_path, "zoo.graphml", 2), 1, ("0", "1"), [("New York", "Chicago")])
    assert cut[0, 1] == -1


@pytest.mark.parametrize(
    ("at", "rule"),
    [
        (["Denver"], "names 1 nodes for 2 voters; name one for each"),
        (["Denver", "Bostn"], "the file has no such node"),
    ],
)
def test_places_that_are_not_there_are_refused(tmp_path: Path, at: list[str], rule: str) -> None:
    zoo(tmp_path)
    with pytest.raises(ValueError, match=rule):
        network(tmp_path, "zoo.graphml", at=at)
    with pytest.raises(ValueError, match="names nodes of a file, and there is none"):
        Network.from_text(
            {"nodes": 2, "latency": {"model": "fixed", "one_way": "1 ms"}, "topology": {"family": "ring", "at": at}}
        )


def test_shadow_names_what_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "shadow.gml").write_text(SHADOW)
    found = network(tmp_path, "shadow.gml")
    assert one_way_matrix_ns(found, 1)[0, 1] == 50_000_000
    assert found.notes == ("shadow.gml: host_bandwidth_down, host_bandwidth_up, packet_loss: not used",)


@pytest.mark.parametrize(("unit", "delay"), [("ms", 3), ("us", 3000), ("s", 0.003)])
def test_fnss_names_the_unit_of_its_delays(tmp_path: Path, unit: str, delay: float) -> None:
    graph = nx.Graph(delay_unit=unit)
    graph.add_edge("0", "1", delay=delay, capacity=10)
    nx.write_graphml(graph, tmp_path / "fnss.graphml")
    found = network(tmp_path, "fnss.graphml")
    assert one_way_matrix_ns(found, 1)[0, 1] == 3_000_000
    assert found.notes == ("fnss.graphml: capacity: not used",)


@pytest.mark.parametrize("order", [(2.0, 50.0), (50.0, 2.0)])
@pytest.mark.parametrize("kind", ["graphml", "gml"])
def test_of_parallel_cables_the_fastest_counts_and_the_other_is_left(
    tmp_path: Path, order: tuple[float, float], kind: str
) -> None:
    if kind == "graphml":
        graph = nx.MultiGraph()
        for ms in order:
            graph.add_edge("0", "1", one_way_ms=ms)
        nx.write_graphml(graph, tmp_path / "two.graphml")
    else:
        edges = " ".join(f'edge [ source 0 target 1 latency "{ms} ms" ]' for ms in order)
        (tmp_path / "two.gml").write_text(f"graph [ node [ id 0 ] node [ id 1 ] {edges} ]")
    found = network(tmp_path, f"two.{kind}")
    assert one_way_matrix_ns(found, 1)[0, 1] == 2_000_000
    assert without_cables_ns(found, 1, ("0", "1"), [("0", "1")])[0, 1] == 50_000_000


def test_two_directions_are_one_cable_and_half_of_one_is_refused(tmp_path: Path) -> None:
    graph = nx.DiGraph()
    graph.add_edge("0", "1", one_way_ms=4.0)
    nx.write_graphml(graph, tmp_path / "half.graphml")
    with pytest.raises(ValueError, match="is directed, and 0 to 1 has no like edge back"):
        network(tmp_path, "half.graphml")
    graph.add_edge("1", "0", one_way_ms=4.0)
    graph.add_edge("0", "0", one_way_ms=1.0)
    nx.write_graphml(graph, tmp_path / "both.graphml")
    found = network(tmp_path, "both.graphml")
    assert one_way_matrix_ns(found, 1)[0, 1] == 4_000_000
    assert without_cables_ns(found, 1, ("0", "1"), [("0", "1")])[0, 1] == -1


@pytest.mark.parametrize("content", ["", "graph [", "hello", "<graphml>", '{"nodes": []}', "graph [ node [ id 0 ] ] ]"])
def test_what_is_no_graph_is_refused_in_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.graphml").write_text(content)
    with pytest.raises(ValueError, match=r"is no GraphML or GML file|exactly one of family, graphml and edges"):
        network(tmp_path, "bad.graphml")
