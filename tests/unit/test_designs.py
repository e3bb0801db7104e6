"""The ready designs: what each survives, as the place's planners say it, and what rules of the place hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sim.network.sites import sites
from sim.scenario.errors import ScenarioError
from sim.scenario.load import load_scenario
from sim.scenario.run import Result, run
from tests.runs import scenario

FOLDER = Path(__file__).parents[2] / "scenarios" / "designs"
FILES = sorted(FOLDER.glob("*.yaml"))
N, E = "{lose_domain: {domain: N}, at: 10 s, for: 30 s}", "{lose_domain: {domain: E}, at: 10 s, for: 30 s}"
STRAIT = "{cut_cable: {between: [HAK, XUW]}, at: 10 s, for: 30 s}"
H2HE = "{cut_cable: {between: [WEC, HKG]}, at: 10 s, for: 30 s}"
LINGSHUI = "{cut_cable: {between: [LSH, HKG]}, at: 10 s, for: 30 s}"


def play(name: str, *faults: str, protocol: str = "pbft", duration: str = "60 s") -> Result:
    overrides = [
        f"duration={duration}",
        "warm_up=0 s",
        f"protocol={{name: {protocol}}}",
        f"faults=[{', '.join(faults)}]",
    ]
    return run(load_scenario(FOLDER / f"{name}.yaml", overrides))


def halted(result: Result) -> bool:
    """Whether nothing was decided in the second half of the outage (25 to 40 s)."""
    table = result.tables["timeline"]
    during = [n for start, n in zip(table["start_s"], table["decisions"], strict=True) if 25 <= start < 39]
    assert len(during) > 50
    return sum(during) == 0


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
@pytest.mark.parametrize("protocol", ["pbft", pytest.param("hotstuff", marks=pytest.mark.slow), "raft"])
def test_each_design_runs_calm_under_each_protocol(file: Path, protocol: str) -> None:
    result = play(file.stem, protocol=protocol, duration="15 s")
    assert result.status == "ok"
    assert result.metrics["view_changes"] == 0
    assert result.metrics["success_share"] == 1.0


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_voter_stands_abroad(file: Path) -> None:
    loaded = load_scenario(file)
    assert all(sites()[place].jurisdiction == "mainland" for place in loaded.network.place_of_node)


@pytest.mark.parametrize("protocol", ["pbft", "hotstuff"])
def test_losing_the_north_halts_island_7_and_not_with_a_voter_in_wuzhishan(protocol: str) -> None:
    assert halted(play("island-7", N, protocol=protocol))
    assert not halted(play("island-7-wzs", N, protocol=protocol))


@pytest.mark.parametrize("name", ["island-7", "island-7-wzs"])
def test_losing_the_east_halts_both(name: str) -> None:
    assert halted(play(name, E))


def test_thirteen_survive_any_domain() -> None:
    for domain in "NEWC":
        assert not halted(play("island-13", f"{{lose_domain: {{domain: {domain}}}, at: 10 s, for: 30 s}}"))


def test_ten_on_both_sides_survive_the_north_or_the_strait_alone() -> None:
    assert not halted(play("island-mainland-10", N))
    assert not halted(play("island-mainland-10", STRAIT))


def test_ten_on_both_sides_need_another_exit_when_both_are_lost() -> None:
    """Yagi's joint loss: with H2HE or the Lingshui exits the seven that are left are connected, without both not."""
    assert halted(play("island-mainland-10", N, STRAIT, H2HE, LINGSHUI))
    assert not halted(play("island-mainland-10", N, STRAIT, H2HE))
    assert not halted(play("island-mainland-10", N, STRAIT, LINGSHUI))


def test_a_slow_sm2_moves_the_knee_and_adds_its_verifications_to_a_light_load() -> None:
    """At 80 tx/s it adds about seven verifications of 1.5 ms, nearly a doubling; at 8,000 tx/s it costs the knee."""

    def at(crypto: str, tps: int) -> Result:
        load = f"workload=[{{kind: open, rate: {tps} tx/s, sites: [HAK, SYX, YPG]}}]"
        return run(
            load_scenario(FOLDER / "island-7.yaml", ["duration=20 s", "warm_up=5 s", load, f"cpu.crypto={crypto}"])
        )

    fast, slow = at("sm2-fast", 80), at("sm2-slow", 80)
    assert 6 * 1.5 < slow.metrics["latency_p50_ms"] - fast.metrics["latency_p50_ms"] < 7 * 1.5
    fast, slow = at("sm2-fast", 8000), at("sm2-slow", 8000)
    assert fast.metrics["committed_tps"] > 1.3 * slow.metrics["committed_tps"]


# --- organisations -----------------------------------------------------------------------------------------

OWNED: dict[str, Any] = {
    "network.organisations": {"customs": [0, 1], "bank": [2], "port": [3, 4, 5, 6]},
    "workload": [{"kind": "open", "rate": "50 tx/s"}],
    "duration": "8 s",
}


def test_an_organisation_can_be_lost_corrupted_removed_and_cut_off() -> None:
    lost = run(scenario(7, faults=[{"crash": {"nodes": ["customs"]}, "at": "2 s", "for": "2 s"}], **OWNED))
    assert lost.tables["faults"]["nodes"] == ["0,1"]
    assert lost.status == "ok"
    liar = run(scenario(7, corrupted=[{"nodes": ["customs"], "behaviour": "silent"}], **OWNED))
    assert liar.sometimes["corrupted replica 1 (silent) acted"]
    halt = run(scenario(7, faults=[{"crash": {"nodes": ["port"]}, "at": "2 s"}], **OWNED | {"duration": "90 s"}))
    assert halt.metrics["decisions"] < 200
    mute = [{"types": ["COMMIT"], "drop": True, "src": ["port"]}]
    stopped = run(scenario(7, rules=mute, **OWNED | {"duration": "90 s"}))
    told = [line for violation in stopped.violations for line in violation.waits]
    assert told and told[0].startswith("replica 0 (customs): ")
    left = run(scenario(7, membership=[{"remove": ["customs"], "at": "2 s"}], **OWNED))
    assert left.status == "ok"
    apart = {"partition": {"groups": [["port", "bank"], ["customs"]]}, "at": "2 s", "for": "2 s"}
    assert run(scenario(7, faults=[apart], **OWNED)).status == "ok"


@pytest.mark.parametrize(
    ("owned", "message"),
    [
        ({"bank": [0], "port": ["bank"]}, "is an organisation itself"),
        ({"bank": [0], "port": [0]}, "belongs to bank already"),
        ({"bank": [9]}, "nodes are 0 to 6"),
        ({"3": [0]}, "is a place where voters stand too"),
    ],
)
def test_organisations_that_make_no_sense_are_refused(owned: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        scenario(7, **OWNED | {"network.organisations": owned})


def test_a_name_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(ScenarioError, match="did you mean 'customs'"):
        scenario(7, faults=[{"crash": {"nodes": ["custms"]}, "at": "2 s"}], **OWNED)
