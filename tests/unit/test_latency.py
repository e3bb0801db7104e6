"""Latency: distances against hand calculation, and every model's matrix."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from sim.host import Costs
from sim.network.crypto import profiles
from sim.network.distance import great_circle_km, rtt_ms
from sim.network.latency import distance_one_way_ns, one_way_matrix_ns
from sim.network.settings import Network
from sim.network.sites import sites
from sim.network.topology import random_regular_edges
from sim.protocol import Signing


def _network(**fields: object) -> Network:
    return Network.from_text(fields)


def test_haikou_to_sanya_by_the_law_of_cosines() -> None:
    # An independent formula, by hand: cos c = sin a sin b + cos a cos b cos(l), with a = 20.0342, b = 18.2544
    # and l = 110.3465 - 109.5095 = 0.837 degrees: c = 0.033991 rad, times 6371.0088 km.
    a, b, longitude = math.radians(20.0342), math.radians(18.2544), math.radians(0.837)
    angle = math.acos(math.sin(a) * math.sin(b) + math.cos(a) * math.cos(b) * math.cos(longitude))
    assert angle == pytest.approx(0.033991, abs=1e-6)
    assert great_circle_km(sites()["HAK"].coordinates_deg, sites()["SYX"].coordinates_deg) == pytest.approx(
        6371.0088 * angle, abs=1e-3
    )
    assert great_circle_km(sites()["HAK"].coordinates_deg, sites()["SYX"].coordinates_deg) == pytest.approx(
        216.555, abs=1e-3
    )


@pytest.mark.parametrize(("site", "km"), [("RSC", 25), ("WEC", 72)])
def test_the_northern_domain_is_close_together(site: str, km: int) -> None:
    assert great_circle_km(sites()["HAK"].coordinates_deg, sites()[site].coordinates_deg) == pytest.approx(km, abs=0.5)


@pytest.mark.parametrize(
    ("quality", "rtt"),
    # 102 km: 2 * 102 / 204 = 1 ms in the straightest fibre; times rf, plus overhead.
    [("low", Fraction("2.3")), ("mid", Fraction("3.8")), ("high", Fraction("7.5"))],
)
def test_round_trip_formula(quality: str, rtt: Fraction) -> None:
    assert rtt_ms(102.0, quality) == rtt


def test_one_way_is_half_the_round_trip() -> None:
    # 216.555 km, mid: 2 * 216.555 * 1.8 / 204 + 2 = 5.821558823... ms; half: 2.910779411... ms.
    assert distance_one_way_ns("HAK", "SYX", "mid") == 2_910_779


def test_distance_matrix_is_symmetric_with_the_local_time_on_its_diagonal() -> None:
    network = _network(sites=["HAK", "SYX", "HAK"], latency={"model": "distance"})
    assert network.places == ("HAK", "SYX")
    matrix = one_way_matrix_ns(network, 1)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == [[250_000, 2_910_779], [2_910_779, 250_000]]


def test_a_measured_round_trip_overrides_the_model() -> None:
    network = _network(
        sites=["HAK", "SYX"],
        latency={"model": "distance"},
        measured_rtt=[{"between": ["HAK", "SYX"], "rtt": "9 ms"}],
    )
    assert one_way_matrix_ns(network, 1)[0, 1] == 4_500_000


def test_fixed_latency_holds_everywhere() -> None:
    network = _network(nodes=3, latency={"model": "fixed", "one_way": "10 ms"})
    assert (one_way_matrix_ns(network, 1) == 10_000_000).all()


def test_uniform_latency_is_keyed_by_the_seed_and_by_the_pair_only() -> None:
    latency = {"model": "uniform", "low": "2 ms", "high": "20 ms"}
    four, five = (one_way_matrix_ns(_network(nodes=n, latency=latency), 7) for n in (4, 5))
    assert (four == four.T).all()
    assert ((four >= 2_000_000) & (four <= 20_000_000)).all()
    assert (five[:4, :4] == four).all()
    assert (one_way_matrix_ns(_network(nodes=4, latency=latency), 8) != four).any()


def test_explicit_latency_keeps_both_directions() -> None:
    network = _network(nodes=2, latency={"model": "explicit", "one_way_ms": [[0, 1.5], [2, 0.25]]})
    assert one_way_matrix_ns(network, 1).tolist() == [[0, 1_500_000], [2_000_000, 250_000]]


def test_regions_go_round() -> None:
    network = _network(nodes=5, latency={"model": "matrix", "regions": ["us-east-1", "eu-north-1"]})
    assert network.place_of_node == ("us-east-1", "eu-north-1", "us-east-1", "eu-north-1", "us-east-1")
    assert one_way_matrix_ns(network, 1).tolist() == [[500_000, 56_500_000], [56_500_000, 500_000]]


def test_a_message_follows_the_fastest_path() -> None:
    fixed = {"model": "fixed", "one_way": "10 ms"}
    ring = one_way_matrix_ns(_network(nodes=5, latency=fixed, topology="ring"), 1) // 10_000_000
    assert ring[0].tolist() == [1, 1, 2, 2, 1]
    star = one_way_matrix_ns(_network(nodes=4, latency=fixed, topology={"family": "star"}), 1) // 10_000_000
    assert star[1].tolist() == [1, 1, 2, 2]


def test_clients_without_a_voter_are_linked_to_the_nearest() -> None:
    network = _network(sites=["HAK", "SYX"], latency={"model": "distance"}, topology="line")
    matrix = one_way_matrix_ns(network, 1, ("HAK", "SYX", "WZS"))
    nearest_ns = distance_one_way_ns("SYX", "WZS", "mid")
    assert matrix[2].tolist() == [nearest_ns + 2_910_779, nearest_ns, 250_000]


@pytest.mark.parametrize(("count", "degree"), [(8, 3), (20, 4), (33, 6)])
def test_random_regular_graphs_are_regular_and_keyed(count: int, degree: int) -> None:
    edges = random_regular_edges(count, degree, 3)
    assert [sum(node in edge for edge in edges) for node in range(count)] == [degree] * count
    assert edges == random_regular_edges(count, degree, 3)
    assert edges != random_regular_edges(count, degree, 4)


def test_graphml_edges_carry_their_own_latency(tmp_path: object) -> None:
    import networkx as nx

    graph = nx.Graph()
    graph.add_node("a", site="0")
    graph.add_node("b", site="1")
    graph.add_edge("a", "router", one_way_ms=1.0)
    graph.add_edge("router", "b", rtt_ms=6.0)
    nx.write_graphml(graph, f"{tmp_path}/net.graphml")
    network = Network.from_text(
        {
            "nodes": 2,
            "latency": {"model": "fixed", "one_way": "10 ms"},
            "topology": {"graphml": "net.graphml"},
        },
        base_dir=str(tmp_path),
    )
    assert one_way_matrix_ns(network, 1)[0, 1] == 4_000_000


def test_signature_costs_are_those_of_the_table() -> None:
    table = profiles()
    assert (table["ecdsa-p256"].sign_ns, table["ecdsa-p256"].verify_ns) == (15_100, 44_500)
    assert table["sm2-slow"].verify_ns / table["ecdsa-p256"].verify_ns == pytest.approx(32.5, abs=0.1)
    assert table["sm2-fast"].verify_ns < table["ecdsa-p256"].verify_ns
    assert table["none"].signature_bytes == 0


def test_a_certificate_is_a_list_an_aggregate_or_one_threshold_signature() -> None:
    assert Signing(100, 64, "list").certificate_bytes(67) == 67 * 66
    assert Signing(100, 96, "aggregate").certificate_bytes(67) == 96 + 13
    assert Signing(100, 96, "threshold").certificate_bytes(67) == 96
    assert Signing(100, 96, "aggregate").certificate_bytes(0) == 0
    costs = {kind: Costs(certificates=kind, verify_ns=1000, add_ns=3) for kind in ("list", "aggregate", "threshold")}
    assert [cost.verify_certificate_ns(67) for cost in costs.values()] == [67_000, 1000 + 201, 1000]
