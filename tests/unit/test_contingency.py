"""Contingency studies: what can be lost, what quorum arithmetic says, what runs say, and expected downtime."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sim.cli import app
from sim.network.settings import Network
from sim.plan.contingency import contingency
from sim.plan.downtime import downtime, hazards, storm_downtime_h
from sim.plan.losses import can_decide, can_meet, elements, losses
from sim.protocol import Quorum
from sim.report.contingency import loss_map
from tests.runs import play, scenario

ISLAND = {
    "sites": ["HAK", "RSC", "WEC", "QHI", "LSH", "SYX", "YPG"],
    "latency": {"model": "distance"},
    "organisations": {"bank": ["HAK", "SYX"], "port": [6]},
}


def island() -> Network:
    return Network.from_text(ISLAND)


def test_elements_are_nodes_domains_links_and_organisations() -> None:
    found = elements(island())
    assert [sum(e.kind == kind for e in found) for kind in ("node", "domain", "link", "organisation")] == [7, 3, 21, 2]
    bank = next(e for e in found if e.name == "bank")
    assert bank.nodes == {0, 5}
    assert bank.fault == {"crash": {"nodes": [0, 5]}}


def test_a_loss_that_another_implies_is_not_lost_twice() -> None:
    found = elements(island(), ["node", "domain", "link"])
    pairs = [{str(e) for e in loss} for loss in losses(found, 2) if len(loss) == 2]
    assert {"node 0 (HAK)", "domain N"} not in pairs
    assert {"node 0 (HAK)", "link HAK-SYX"} not in pairs
    assert {"node 0 (HAK)", "domain E"} in pairs


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=6))
def test_as_many_can_meet_as_a_largest_clique_has(n: int, pairs: set[tuple[int, int]]) -> None:
    cuts = {(min(p), max(p)) for p in pairs if p[0] != p[1]}
    graph = nx.complete_graph(n)
    graph.remove_edges_from(pair for pair in cuts if max(pair) < n)
    largest = max(len(clique) for clique in nx.find_cliques(graph))
    assert can_meet(range(n), cuts, [Quorum(largest)])
    assert not can_meet(range(n), cuts, [Quorum(largest + 1)])


def test_losing_the_north_halts_pbft_and_not_raft() -> None:
    north = [e for e in elements(island()) if str(e) == "domain N"]
    assert not can_decide(7, [Quorum(5)], north)
    assert can_decide(7, [Quorum(4)], north)


def test_runs_agree_with_quorum_arithmetic(tmp_path: Path) -> None:
    """Four voters: any one may go; two together, or a node and a link between two others, halt PBFT."""
    study = contingency("scenarios/quickstart.yaml", most=2, kinds=["node", "link"], outage_ns=5 * 10**9, out=tmp_path)
    assert study.quorum == 3
    assert study.mispredicted == ()
    halts = {loss.name for loss in study.losses if loss.effect == "halts"}
    two = [f"node {a} + node {b}" for a, b in itertools.combinations(["0 (HAK)", "1 (QHI)", "2 (SYX)", "3 (YPG)"], 2)]
    assert {name for name in halts if name.count("node") == 2} == set(two)
    assert "node 0 (HAK) + link QHI-SYX" in halts
    assert not any(loss.effect == "halts" for loss in study.losses if len(loss.lost) == 1)
    back = [loss.recovery_s for loss in study.losses if loss.effect == "halts"]
    assert all(time is not None and 0 < time < 10 for time in back)


def test_storms_take_the_binomial_share_of_a_domain() -> None:
    """All voters in the north, a quorum of all: down whenever any voter is; checked against the closed form."""
    h = hazards()
    n, storms = 4, 40_000
    down = storm_downtime_h(("N",) * n, [Quorum(n)], seed=3, storms=storms)
    up_core = ((1 - h["storm.node_core"]) * (1 - h["storm.fibre_core"])) ** n
    up_flank = ((1 - h["storm.node_flank"]) * (1 - h["storm.fibre_flank"])) ** n
    share = 1 - (up_core + 2 * up_flank) / 3
    error = math.sqrt(share * (1 - share) / storms)
    assert abs((down > 0).mean() - share) < 4 * error
    assert down.max() <= h["storm.cap"]


def test_more_spread_means_less_downtime_and_the_seed_repeats_it() -> None:
    cured = Network.from_text(ISLAND | {"sites": ["HAK", "RSC", "WZS", "QHI", "LSH", "SYX", "YPG"]})
    before, after = downtime(island(), [Quorum(5)], seed=1), downtime(cured, [Quorum(5)], seed=1)
    assert before is not None
    assert after is not None
    assert after.storm_min_per_year.estimate < before.storm_min_per_year.estimate
    assert downtime(island(), [Quorum(5)], seed=1) == before
    assert (
        downtime(Network.from_text({"nodes": 4, "latency": {"model": "fixed", "one_way": "1 ms"}}), [Quorum(3)], 1)
        is None
    )


def test_mainland_voters_are_out_of_the_storm_but_behind_the_strait() -> None:
    h = hazards()
    domains = ("N", "N", "M", "M")
    assert np.all(storm_downtime_h(domains, [Quorum(2)], seed=1, storms=500) == 0)
    split = Network.from_text(ISLAND | {"sites": ["HAK", "RSC", "ZHA", "CAN"], "organisations": {}})
    found = downtime(split, [Quorum(3)], seed=1)
    assert found is not None
    assert found.cable_min_per_year == h["cable.rate"] * h["cable.repair"] * 60


def test_the_command_says_what_halts_and_what_was_written(tmp_path: Path) -> None:
    args = ["contingency", "scenarios/quickstart.yaml", "--kinds", "node", "--outage", "5 s", "--json"]
    told = json.loads(CliRunner().invoke(app, [*args, "--out", str(tmp_path)]).stdout)
    assert [loss["effect"] for loss in told["losses"]].count("halts") == 0
    assert all(Path(file).is_file() for file in told["files"])
    assert any("expected downtime (A)" in line for line in told["summary"])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--kinds", "cable"], "there is no kind cable"),
        (["--outage", "5"], "--outage 5"),
        (["--outage", "1 ms"], "too short"),
        (["--set", "network.organisations={bank: [9]}"], "no node has this number"),
        (["--set", "network.organisations={bank: [0], port: [0]}"], "belongs to bank already"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(more: list[str], says: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["contingency", "scenarios/quickstart.yaml", "--out", str(tmp_path / "o"), *more])
    assert done.exit_code == 2
    assert says in done.output
    assert not (tmp_path / "o").exists()


def needs_of(n: int, **protocol: object) -> tuple[Quorum, ...]:
    replica = play(scenario(n, protocol=protocol, duration="1 ms")).world.run.hosts[0].replica  # type: ignore[arg-type]
    found: tuple[Quorum, ...] = replica.needs()
    return found


def test_what_can_decide_is_asked_of_the_protocol_weights_and_all() -> None:
    """WHEAT, n = 5, f = 1: two heavy replicas and any one more decide; without one heavy, all four others must."""
    wheat = needs_of(5, name="wheat", faults=1, heavy=[0, 1])
    assert [can_meet(up, (), wheat) for up in ([0, 1, 2], [0, 2, 3, 4], [0, 2, 3])] == [True, True, False]
    power = needs_of(4, name="tendermint", power=[7, 1, 1, 1])
    assert [can_meet(up, (), power) for up in ([0], [1, 2, 3])] == [True, False]
    assert [can_meet(range(up), (), needs_of(4, name="clique")) for up in (3, 2)] == [True, False]


def test_a_storm_is_over_when_the_weights_are_back() -> None:
    """Two heavy voters of five on the mainland never go: one more is enough; five equal ones need four."""
    domains = ("M", "M", "N", "N", "N")
    wheat, equal = needs_of(5, name="wheat", faults=1, heavy=[0, 1]), [Quorum(4)]
    heavy, light = (storm_downtime_h(domains, needs, seed=1, storms=2000).mean() for needs in (wheat, equal))
    assert heavy < light


def test_three_of_five_run_and_weights_decide_so_liveness_is_judged() -> None:
    down = [{"at": "0 s", "crash": {"nodes": [3, 4]}}]
    protocol = {"name": "wheat", "faults": 1, "heavy": [0, 1]}
    run = play(scenario(5, protocol=protocol, duration="5 s", liveness_bound="1 s", faults=down))
    assert run.verdict().outcomes["liveness"] == "pass"
    assert len(run.decided(0)) > 50


@pytest.mark.parametrize(("kinds", "shown"), [(["domain"], {"not run"}), (["node"], {"carries on", "slows", "halts"})])
def test_the_map_marks_only_what_was_run(kinds: list[str], shown: set[str], tmp_path: Path) -> None:
    """Losing domains says nothing of single voters: before, the map said that each could be lost."""
    study = contingency("scenarios/quickstart.yaml", most=1, kinds=kinds, outage_ns=2 * 10**9, out=tmp_path)
    (axes,) = loss_map(study, "command").axes
    legend = axes.get_legend()
    assert legend is not None
    assert {text.get_text().rpartition(": ")[2] for text in legend.get_texts()} == shown
