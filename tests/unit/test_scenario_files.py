"""Every scenario in the repository loads, and says what its name promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.network.latency import one_way_matrix_ns
from sim.scenario.load import load_scenario
from sim.scenario.schema import json_schema, resolved, scenario_hash
from sim.workload.demand import classes

SCENARIOS = Path(__file__).parents[2] / "scenarios"
FILES = sorted(file for file in SCENARIOS.rglob("*.yaml") if file.parent.name not in ("studies", "federations"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SCENARIOS)))
def test_loads(file: Path) -> None:
    scenario = load_scenario(file)
    assert scenario.description or file.stem == "quickstart"
    assert len(one_way_matrix_ns(scenario.network, scenario.seed, scenario.places)) == len(scenario.places)


def test_names_are_unique() -> None:
    names = [load_scenario(file).name for file in FILES]
    assert len(set(names)) == len(names)


def test_hashes_are_unique_and_stable() -> None:
    hashes = [scenario_hash(load_scenario(file)) for file in FILES]
    assert len(set(hashes)) == len(hashes)
    assert hashes == [scenario_hash(load_scenario(file)) for file in FILES]


@pytest.mark.parametrize("name", ["pbft", "raft", "hotstuff"])
def test_baselines_isolate_the_protocol(name: str) -> None:
    scenario = load_scenario(SCENARIOS / "protocols" / name / "baseline.yaml", ["network.nodes=16"])
    assert scenario.network.n == 16
    assert (one_way_matrix_ns(scenario.network, 1) == 10_000_000).all()
    assert (scenario.network.bandwidth_ps_per_byte, scenario.cpu.crypto, scenario.cpu.handle_ns) == (
        0,
        "none",
        0,
    )


@pytest.mark.parametrize("name", ["pbft", "raft", "hotstuff"])
def test_storms_change_nothing_but_the_weather(name: str) -> None:
    calm = resolved(load_scenario(SCENARIOS / "pilot-zone" / f"island-7-{name}.yaml"))
    storm = resolved(load_scenario(SCENARIOS / "pilot-zone" / f"island-7-{name}-storm.yaml"))
    assert {key for key in calm if calm[key] != storm[key]} == {"name", "description", "faults"}
    (fault,) = storm["faults"]
    assert (fault["at_ns"], fault["for_ns"]) == (180 * 10**9, 74 * 2 * 10**9)  # 2 s an hour


def test_the_three_designs_differ_in_the_protocol_only() -> None:
    designs = [resolved(load_scenario(SCENARIOS / "pilot-zone" / f"island-7-{n}.yaml")) for n in ("pbft", "raft")]
    differing = {key for key in designs[0] if designs[0][key] != designs[1][key]}
    assert differing == {"name", "description", "protocol"}


def test_moving_wenchang_leaves_a_quorum_outside_the_storm() -> None:
    storm = load_scenario(SCENARIOS / "pilot-zone" / "island-7-pbft-storm.yaml")
    cured = load_scenario(SCENARIOS / "pilot-zone" / "island-7-cured-pbft-storm.yaml")
    assert sum(domain != "N" for domain in storm.network.domain_of_node) == 4
    assert sum(domain != "N" for domain in cured.network.domain_of_node) == 5
    assert cured.places == (*cured.network.places, "WEC")
    assert storm.workload == cured.workload


def test_the_pilot_zone_runs_at_tier_two() -> None:
    (entry,) = load_scenario(SCENARIOS / "pilot-zone" / "island-7-pbft.yaml").workload
    assert entry.kind == "demand"
    assert sum(one.rate_tps for one in classes(entry.tier, entry.level)) == pytest.approx(80)


def test_the_schema_knows_every_key_of_every_protocol() -> None:
    schema = json_schema()
    assert {choice["properties"]["name"]["const"] for choice in schema["properties"]["protocol"]["oneOf"]} >= {
        "pbft",
        "raft",
        "hotstuff",
    }
    assert "retransmit_after" in schema["$defs"]["Network"]["properties"]
    assert "extends" in schema["properties"]
