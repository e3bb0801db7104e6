"""Topologies from elsewhere: coordinates (Topology Zoo), delays (FNSS), GML (Shadow), parallel and directed cables."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

from sim.ledger import rows as ledger
from sim.network.distance import great_circle_km, rtt_ms
from sim.network.latency import one_way_matrix_ns, path_conditions, without_cables_ns
from sim.network.settings import Network
from sim.scenario.errors import ScenarioError
from sim.scenario.load import load_scenario
from tests.runs import Played, begin, play, scenario

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


def test_shadow_gives_latency_loss_and_cards(tmp_path: Path) -> None:
    (tmp_path / "shadow.gml").write_text(SHADOW)
    found = network(tmp_path, "shadow.gml")
    assert one_way_matrix_ns(found, 1)[0, 1] == 50_000_000
    lossy = path_conditions(found, 1, ("0", "1"))
    assert {pair: (round(c.loss, 9), c.narrowest) for pair, c in lossy.items()} == {
        (0, 1): (0.01, None),
        (1, 0): (0.01, None),
    }
    assert [(card.upload_ps_per_byte, card.download_ps_per_byte) for card in found.topology.cards] == [
        (round(8e12 / 18e6), round(8e12 / 140e6)), (8_000, 8_000),
    ]  # fmt: skip
    assert found.notes == ()


@pytest.mark.parametrize(("unit", "delay"), [("ms", 3), ("us", 3000), ("s", 0.003)])
def test_fnss_names_the_unit_of_its_delays(tmp_path: Path, unit: str, delay: float) -> None:
    graph = nx.Graph(delay_unit=unit, capacity_unit="Gbps")
    graph.add_edge("0", "1", delay=delay, capacity=10, buffer_length=3)
    nx.write_graphml(graph, tmp_path / "fnss.graphml")
    found = network(tmp_path, "fnss.graphml")
    assert one_way_matrix_ns(found, 1)[0, 1] == 3_000_000
    assert found.topology.edges[0].bandwidth_ps_per_byte == 800
    assert found.notes == ("fnss.graphml: buffer_length: not used",)


def test_the_topology_zoo_gives_bandwidths(tmp_path: Path) -> None:
    graph = nx.Graph()
    graph.add_edge("0", "1", one_way_ms=1.0, LinkSpeedRaw=155_000_000.0, LinkSpeed="155", LinkSpeedUnits="M")
    nx.write_graphml(graph, tmp_path / "zoo.graphml")
    found = network(tmp_path, "zoo.graphml")
    assert found.topology.edges[0].bandwidth_ps_per_byte == round(8e12 / 155e6)
    assert found.notes == ("zoo.graphml: LinkSpeed, LinkSpeedUnits: not used",)


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        ({"packet_loss": 3.0}, "edge 0 - 1: packet_loss must lie between 0 and 100 %"),
        ({"bandwidth": "10 ms"}, "edge 0 - 1: bandwidth is a time where a bandwidth belongs"),
        ({"capacity": -1.0}, "edge 0 - 1: capacity must not be negative"),
    ],
)
def test_values_that_cannot_be_are_refused(tmp_path: Path, data: dict[str, Any], rule: str) -> None:
    graph = nx.Graph()
    graph.add_edge("0", "1", one_way_ms=1.0, **data)
    nx.write_graphml(graph, tmp_path / "bad.graphml")
    with pytest.raises(ValueError, match=rule):
        network(tmp_path, "bad.graphml")


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


def test_two_like_directions_are_one_cable_and_others_two(tmp_path: Path) -> None:
    graph = nx.DiGraph()
    graph.add_edge("0", "1", one_way_ms=4.0)
    nx.write_graphml(graph, tmp_path / "half.graphml")
    with pytest.raises(ValueError, match="no path leads from 1 to 0"):
        one_way_matrix_ns(network(tmp_path, "half.graphml"), 1)
    graph.add_edge("1", "0", one_way_ms=4.0)
    graph.add_edge("0", "0", one_way_ms=1.0)
    nx.write_graphml(graph, tmp_path / "both.graphml")
    found = network(tmp_path, "both.graphml")
    assert len(found.topology.edges) == 1
    assert one_way_matrix_ns(found, 1)[0, 1] == 4_000_000
    assert without_cables_ns(found, 1, ("0", "1"), [("0", "1")])[0, 1] == -1
    graph["1"]["0"]["one_way_ms"] = 7.0
    nx.write_graphml(graph, tmp_path / "other.graphml")
    other = network(tmp_path, "other.graphml")
    assert one_way_matrix_ns(other, 1).tolist() == [[10_000_000, 4_000_000], [7_000_000, 10_000_000]]
    assert (without_cables_ns(other, 1, ("0", "1"), [("1", "0")])[0, 1]) == -1, "a cable is cut in both directions"


RING = {
    "edges": [
        {"from": "0", "to": "r", "one_way": "1 ms", "loss": "10 %", "bandwidth": "8 Mbit/s"},
        {"from": "r", "to": "1", "one_way": "1 ms", "loss": "50 %", "bandwidth": "4 Mbit/s"},
        {"from": "1", "to": "2", "one_way": "1 ms"},
        {"from": "2", "to": "0", "one_way": "9 ms", "bandwidth": "80 Mbit/s", "directed": True},
        {"from": "0", "to": "2", "one_way": "2 ms", "directed": True},
    ]
}


def ring() -> Network:
    return Network.from_text({"nodes": 3, "latency": {"model": "fixed", "one_way": "1 ms"}, "topology": RING})


def test_a_path_loses_what_any_edge_loses_and_carries_what_the_narrowest_does() -> None:
    found = path_conditions(ring(), 1, ("0", "1", "2"))
    assert {pair: (round(c.loss, 9), c.narrowest) for pair, c in found.items()} == {
        (0, 1): (0.55, 2), (1, 0): (0.55, 3),  # by the router: 1 - 0.9 * 0.5, the second cable, there and back
        (2, 0): (0.55, 3),  # by 1 and the router, 3 ms; the cable of 9 ms is slower
    }  # fmt: skip
    cut = path_conditions(ring(), 1, ("0", "1", "2"), [("r", "1")])
    assert {pair: (c.loss, c.narrowest) for pair, c in cut.items()} == {(1, 0): (0.0, 6), (2, 0): (0.0, 6)}


def of_a_star(capacity: str, *, fast_path: bool = True) -> Played:
    """Three voters around a router whose cable to voter 0 has a bandwidth; blocks of 100 kB."""
    edges = [{"from": str(i), "to": "hub", "one_way": "5 ms"} for i in range(4)]
    edges[0]["bandwidth"] = capacity
    return play(
        scenario(
            4, network={"nodes": 4, "latency": {"model": "fixed", "one_way": "1 ms"}, "topology": {"edges": edges}},
            block={"max_transactions": 100}, workload=[{"kind": "backlog", "bytes": "1 kB"}], duration="20 s",
        ),
        fast_path=fast_path,
    )  # fmt: skip


def test_all_that_goes_by_a_narrow_cable_waits_in_one_queue() -> None:
    """The primary's three copies of 100 kB share 8 Mbit/s: 0.3 s a block, and both paths of the engine agree."""
    played = of_a_star("8 Mbit/s")
    blocks = len({row[4] for row in played.rows.tolist() if row[1] == ledger.EVENT_DECIDED})
    assert 20 / 0.35 < blocks < 20 / 0.3
    assert of_a_star("8 Mbit/s", fast_path=False).digest == played.digest
    assert of_a_star("unlimited").monitor.decisions.height == 666, "three delays of 10 ms, 20 s"


def test_a_mended_cable_has_its_bandwidth_again() -> None:
    """Cut, messages go round by a wide one; the digest tells the two apart, and both paths agree."""
    edges = [
        {"from": "0", "to": "1", "one_way": "2 ms", "loss": "20 %"},
        {"from": "1", "to": "2", "one_way": "2 ms"}, {"from": "2", "to": "3", "one_way": "2 ms"},
        {"from": "3", "to": "0", "one_way": "2 ms"},
    ]  # fmt: skip
    net = {"nodes": 4, "latency": {"model": "fixed", "one_way": "1 ms"}, "topology": {"edges": edges}}
    faults = [{"at": "2 s", "for": "2 s", "cut_cable": {"between": ["0", "1"]}}]
    chosen = scenario(4, network=net, faults=faults, duration="6 s")
    played = play(chosen)
    assert played.digest == play(chosen, fast_path=False).digest
    late = [interval for interval in np.diff(first_decisions_ns(played)).tolist() if interval > 100_000_000]
    assert late, "a lost copy waits for 200 ms"
    times = np.array(first_decisions_ns(played))
    within = np.diff(times[(times > 2_050_000_000) & (times < 4_000_000_000)])
    assert within.max() < 100_000_000, "while the lossy cable is cut nothing is lost"
    assert np.diff(times[times > 4_050_000_000]).max() > 100_000_000


def first_decisions_ns(played: Played) -> list[int]:
    """When each height was first decided."""
    times: dict[int, int] = {}
    for row in played.rows.tolist():
        if row[1] == ledger.EVENT_DECIDED:
            times.setdefault(row[4], row[0])
    return sorted(times.values())


def test_a_files_cards_are_its_voters_and_nodes_override_them(tmp_path: Path) -> None:
    data = {
        "name": "cards", "duration": "1 s", "protocol": {"name": "raft"}, "workload": [{"kind": "backlog"}],
        "network": {
            "nodes": 3, "bandwidth": "5 Mbit/s", "latency": {"model": "fixed", "one_way": "1 ms"},
            "topology": {"graphml": "shadow.gml", "at": ["a", "b", "a"]},
        },
        "nodes": [{"nodes": [2], "upload": "1 Mbit/s"}],
    }  # fmt: skip
    (tmp_path / "cards.yaml").write_text(json.dumps(data))
    (tmp_path / "shadow.gml").write_text(SHADOW.replace("id 0", 'id 0 label "a"').replace("id 1", 'id 1 label "b"'))
    settings = begin(load_scenario(tmp_path / "cards.yaml")).world.run.engine.settings
    assert settings.tx_ps_per_byte[:3].tolist() == [round(8e12 / 18e6), 8_000, 8_000_000]
    assert settings.rx_ps_per_byte[:3].tolist() == [round(8e12 / 140e6), 8_000, round(8e12 / 140e6)]


def test_cards_in_queues_and_narrow_edges_do_not_go_together() -> None:
    edges = [{"from": "0", "to": "1", "one_way": "1 ms", "bandwidth": "8 Mbit/s"}]
    net = {
        "nodes": 2, "latency": {"model": "fixed", "one_way": "1 ms"}, "topology": {"edges": edges},
        "bandwidth": "1 Gbit/s", "sharing": "fifo",
    }  # fmt: skip
    with pytest.raises(ScenarioError, match=r"network\.topology: has edges with a bandwidth"):
        scenario(2, network=net, protocol="raft")


@pytest.mark.parametrize("content", ["", "graph [", "hello", "<graphml>", '{"nodes": []}', "graph [ node [ id 0 ] ] ]"])
def test_what_is_no_graph_is_refused_in_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.graphml").write_text(content)
    with pytest.raises(ValueError, match=r"is no GraphML or GML file|exactly one of family, graphml and edges"):
        network(tmp_path, "bad.graphml")
