"""Several chains in one run: windows change nothing, anchors lag as they must, transfers are atomic or it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from sim.cli import app
from sim.plan.federation import Outcome, run_federation
from sim.report import federation as report
from sim.scenario.errors import ScenarioError
from sim.scenario.federation import load_federation
from sim.scenario.load import load_scenario
from sim.scenario.run import run

FOLDER = Path(__file__).parents[2] / "scenarios" / "federations"
CHAIN = """
duration: 1 s
network: {nodes: 4, latency: {model: fixed, one_way: 5 ms}}
protocol: pbft
workload: [{kind: open, rate: 40 tx/s}]
"""


def write(folder: Path, data: dict[str, Any]) -> Path:
    (folder / "chain.yaml").write_text(CHAIN, encoding="utf-8")
    file = folder / "two.yaml"
    with open(file, "w", encoding="utf-8") as stream:
        YAML(typ="safe", pure=True).dump(data, stream)
    return file


def two(**more: Any) -> dict[str, Any]:
    """Two chains joined by a gateway of 20 ms."""
    return {
        "duration": "60 s",
        "chains": {"a": {"scenario": "chain.yaml"}, "b": {"scenario": "chain.yaml", "set": {"protocol": "raft"}}},
        "gateways": {"g": {"between": ["a", "b"], "latency": "20 ms"}},
        **more,
    }


MOVES = [{"from": "a", "to": "b", "through": "g", "rate": "5 tx/s", "timeout": "2 s"}]


def play(folder: Path, data: dict[str, Any], **more: Any) -> Outcome:
    return run_federation(load_federation(write(folder, data)), **more)


# --- windows -----------------------------------------------------------------------------------------------


def test_a_chain_that_nobody_sends_to_is_as_alone(tmp_path: Path) -> None:
    data = two(anchors=[{"from": "a", "to": "b", "through": "g", "every": "1 s"}])
    found = play(tmp_path, data)
    loaded = load_federation(tmp_path / "two.yaml")
    assert found.results["a"].digest == run(loaded.scenarios["a"]).digest
    assert found.results["b"].digest != run(loaded.scenarios["b"]).digest


def test_the_order_within_a_window_and_the_run_change_nothing(tmp_path: Path) -> None:
    data = two(transfers=[*MOVES, {"from": "b", "to": "a", "through": "g", "rate": "3 tx/s"}])
    first, again = play(tmp_path, data), play(tmp_path, data)
    backwards = play(tmp_path, data, backwards=True)
    assert first.digest == again.digest == backwards.digest
    assert [vars(one) for one in first.transfers] == [vars(one) for one in backwards.transfers]


# --- anchors -----------------------------------------------------------------------------------------------


def test_roots_lag_by_half_their_interval_and_the_way(tmp_path: Path) -> None:
    data = two(duration="200 s", anchors=[{"from": "a", "to": "b", "through": "g", "every": "4 s"}])
    found = play(tmp_path, data)
    (row,) = report.anchor_rows(found)
    # uniform in the interval, 20 ms in the gateway, a step to the voter and, at worst, one to the leader, two of Raft
    assert row["lag_mean_s"] == pytest.approx(2.0 + 0.020 + 0.02, abs=0.1)
    assert row["lag_max_s"] == pytest.approx(4.0 + 0.020 + 0.02, abs=0.1)
    assert row["decided"] == row["submitted"] == 49
    assert row["share_of_transactions"] == pytest.approx(49 / (49 + 40 * 200), rel=0.05)


def test_districts_go_on_while_the_supervision_chain_is_lost() -> None:
    found = run_federation(load_federation(FOLDER / "two-layer-supervision-lost.yaml"))
    assert found.exit_code == 0
    for name in ("haikou", "sanya"):
        table = found.results[name].tables["timeline"]
        during = [n for start, n in zip(table["start_s"], table["decisions"], strict=True) if 70 <= start < 110]
        assert sum(during) > 50
    lost = found.results["supervision"].tables["timeline"]
    assert sum(n for start, n in zip(lost["start_s"], lost["decisions"], strict=True) if 70 <= start < 110) == 0
    assert "supervision stood still" in next(report.lines(found))
    rows = report.anchor_rows(found)
    assert all(row["lag_max_s"] > 50 for row in rows)


# --- transfers ---------------------------------------------------------------------------------------------


def test_a_transfer_takes_its_steps(tmp_path: Path) -> None:
    """Lock: a step to the voter and PBFT's three; the gateway; release: to the voter, to the leader, two of Raft."""
    found = play(tmp_path, two(transfers=MOVES))
    done = [one for one in found.transfers if one.state == "settled"]
    assert len(done) > 0.95 * len(found.transfers)
    locked_ms = np.array([one.locked_ns - one.asked_ns for one in done]) / 1e6
    released_ms = np.array([one.released_ns - one.locked_ns for one in done]) / 1e6
    assert 15 <= np.median(locked_ms) <= 35
    assert 35 <= np.median(released_ms) <= 50
    assert not found.violations


def test_what_is_locked_while_the_gateway_is_down_is_refunded_and_nothing_is_both(tmp_path: Path) -> None:
    down = {"g": {"between": ["a", "b"], "latency": "20 ms", "down": [{"at": "20 s", "for": "10 s"}]}}
    found = play(tmp_path, two(gateways=down, transfers=MOVES))
    (row,) = report.transfer_rows(found)
    assert not found.violations and found.exit_code == 0
    # 10 s at 5 tx/s; those of the last 2 s are released when it is up again, in time
    assert row["refunded"] == pytest.approx(40, abs=16)
    assert row["both"] == 0
    assert row["settled"] + row["refunded"] + row["under_way"] == row["asked"]


@pytest.mark.parametrize("down_at_s", [19.0, 20.5, 21.9])
def test_atomic_however_the_outage_falls(tmp_path: Path, down_at_s: float) -> None:
    """Releases are valid until the lock's own timeout, however late the gateway hands them in."""
    down = [{"at": f"{down_at_s} s", "for": "1900 ms"}, {"at": "30 s", "for": "1950 ms"}]
    gateways = {"g": {"between": ["a", "b"], "latency": "20 ms", "down": down}}
    slow = {"scenario": "chain.yaml", "set": {"faults": [{"at": "20 s", "for": "3 s", "crash": {"nodes": [0, 1]}}]}}
    data = two(gateways=gateways, transfers=MOVES)
    data["chains"]["b"] = slow
    found = play(tmp_path, data)
    assert not found.violations
    assert {one.state for one in found.transfers} <= {"settled", "refunded", "locked", "released", "asked"}


def test_a_gateway_that_refunds_without_a_look_is_found_out(tmp_path: Path) -> None:
    """The other chain is held up until just before the timeout: the release counts, and so would the refund."""
    slow = {"scenario": "chain.yaml", "set": {"faults": [{"at": "20 s", "for": "1 s", "crash": {"nodes": [2, 3]}}]}}
    far = {"g": {"between": ["a", "b"], "latency": "400 ms"}}
    data = two(gateways=far, transfers=[MOVES[0] | {"rate": "60 tx/s", "blind": True}])
    data["chains"]["b"] = slow
    found = play(tmp_path, data)
    assert found.violations and found.exit_code == 3
    assert "was locked at" in found.violations[0].evidence
    assert "NOT atomic" in next(report.lines(found))
    data["transfers"][0]["blind"] = False
    assert not play(tmp_path, data).violations


# --- the command -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.yaml")), ids=lambda file: file.stem)
def test_each_runs_from_the_command_line(file: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["federate", str(file), "--out", str(tmp_path), "--quiet"])
    assert result.exit_code == 0, result.output
    assert max(map(len, result.output.replace(str(tmp_path), "").splitlines())) <= 80
    runs = list((tmp_path / file.stem / "runs").iterdir())
    assert len(runs) == len(load_federation(file).scenarios)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gateways": {"g": {"between": ["a", "c"], "latency": "20 ms"}}}, "no such chain"),
        ({"gateways": {"g": {"between": ["a", "a"], "latency": "20 ms"}}}, "names one chain twice"),
        ({"gateways": {"g": {"between": ["a", "b"], "latency": "0 ms"}}}, "must be greater than 0"),
        ({"anchors": [{"from": "a", "to": "b", "through": "h", "every": "1 s"}]}, "no such gateway"),
        ({"anchors": [{"from": "a", "to": "z", "through": "g", "every": "1 s"}]}, "no such chain"),
        ({"anchors": [{"from": "a", "to": "b", "through": "g", "every": "1 s"},
                      {"from": "b", "to": "a", "through": "g", "every": "1 s"}]}, "anchor in a circle"),
        ({"chains": {"a": {"scenario": "nowhere.yaml"}}, "gateways": {}}, "no such scenario"),
        ({"chains": {}}, "at least 1"),
        ({"chains": {"a/b": {"scenario": "chain.yaml"}}, "gateways": {}}, "letters, digits and dashes"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_place_rule_and_remedy(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = write(tmp_path, two() | change)
    with pytest.raises(ScenarioError, match=message):
        load_federation(file)
    result = CliRunner().invoke(app, ["federate", str(file), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_a_class_called_like_those_of_gateways_is_refused(tmp_path: Path) -> None:
    data = two(transfers=MOVES)
    data["chains"]["a"]["set"] = {"workload": [{"kind": "open", "rate": "5 tx/s", "name": "lock-0"}]}
    with pytest.raises(ScenarioError, match="what gateways call theirs"):
        load_federation(write(tmp_path, data))


def test_a_federation_is_no_scenario() -> None:
    with pytest.raises(ScenarioError, match="use pilotzone federate"):
        load_scenario(FOLDER / "transfers.yaml")


def test_a_scenario_is_no_federation(tmp_path: Path) -> None:
    write(tmp_path, two())
    with pytest.raises(ScenarioError, match="has no chains"):
        load_federation(tmp_path / "chain.yaml")
