"""Saturation: what an objective means, how a load is judged, and a capacity that is known beforehand."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

import sim
from sim.measure.statistics import t_interval
from sim.plan.objective import parse, success
from sim.plan.saturate import LOADS_MAX, Saturated, _Search, nominal_tps, saturate, scaled
from sim.scenario.errors import ScenarioError
from tests.runs import scenario

ROOT = Path(__file__).resolve().parents[2]
LAW = """
duration: 4 s
network: {nodes: 4, latency: {model: fixed, one_way: 10 ms}}
protocol: {name: pbft}
block: {max_transactions: 10}
workload: [{kind: open, rate: 100 tx/s}]
"""


def test_an_objective_is_read_in_the_units_of_its_metrics() -> None:
    found = parse("p99 < 2 s and success > 99.9 % and committed_tps >= 50 tx/s and view_changes < 3")
    assert [(c.metric, c.side, c.bound) for c in found.conditions] == [
        ("latency_p99_ms", "<", 2000.0), ("success", ">", 0.999), ("committed_tps", ">", 50.0),
        ("view_changes", "<", 3.0),
    ]  # fmt: skip
    assert parse("recovery_s < 500 ms").conditions[0].bound == 0.5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p99", "'p99' is not NAME < VALUE; write, say, 'p99 < 2 s"),
        ("p98 < 2 s", "p98: is no metric of a run"),
        ("p99 < 2", "objective 'p99 < 2': 2: "),
        ("success > 120 %", "120 %: "),
        ("p99 < 2 s and", "is not NAME < VALUE"),
    ],
)
def test_objectives_without_meaning_are_refused(text: str, expected: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse(text)
    assert expected in str(caught.value)


def test_success_forgives_what_the_end_of_the_run_cuts_off_and_nothing_else() -> None:
    run = {"submitted": 1000, "acknowledged": 990, "rejected": 0, "expired": 0, "offered_tps": 100.0}
    assert success(run, 0.1) == 1.0  # ten under way: what arrives in 100 ms
    assert success(run, 0.05) == pytest.approx(0.995)
    assert success({**run, "rejected": 10}, 0.1) == pytest.approx(0.99)
    assert success({**run, "submitted": 0}, 0.1) is None
    nothing = {**run, "acknowledged": 0, "latency_p99_ms": None}
    assert parse("p99 < 2 s").values(nothing) == [math.inf]


def test_scaling_multiplies_every_open_source_and_nothing_else() -> None:
    chosen = scenario(4, workload=[{"kind": "demand", "tier": "T2"}, {"kind": "open", "rate": "20 tx/s"}])
    assert nominal_tps(chosen) == pytest.approx(100)
    twice = scaled(chosen, 2.0)
    assert nominal_tps(twice) == pytest.approx(200)
    assert twice.model_copy(update={"workload": chosen.workload}) == chosen
    assert nominal_tps(scenario(4)) is None
    result = sim.run(scaled(scenario(4, workload=[{"kind": "demand", "tier": "T1"}]), 3.0))
    assert result.metrics["offered_nominal_tps"] == pytest.approx(60)


def judge(p99_ms: list[float], committed: float = 100.0, status: str = "ok") -> tuple[str, str]:
    asked = parse("p99 < 100 ms and success > 99 %")
    chosen = scenario(4, workload=[{"kind": "open", "rate": "100 tx/s"}])
    search = _Search(chosen, asked, 0.95, 3, 6, Path("nowhere"), 1, None)
    runs = [
        {
            "status": status, "latency_p99_ms": p99, "latency_p50_ms": 1.0, "latency_mean_ms": 1.0,
            "committed_tps": 100.0, "submitted": 100, "acknowledged": committed,
            "rejected": 0, "expired": 0, "offered_tps": 10.0,
        }
        for p99 in p99_ms
    ]  # fmt: skip
    load = search.judge(1.0, 100.0, runs)
    each = 1 - 0.05 / (2 * LOADS_MAX)
    assert load.values[0] is None or load.values[0] == t_interval(p99_ms, each)
    return load.state, load.why


def test_a_load_is_judged_by_the_whole_interval() -> None:
    assert judge([50.0, 50.5, 51.0])[0] == "meets"
    assert judge([50.0, 70.0, 90.0])[0] == "undecided"  # the mean is well below the bound, the interval is not
    assert judge([150.0, 150.5, 151.0])[0] == "fails"
    assert judge([50.0, 50.5, 51.0], committed=90.0) == (
        "fails", "success > 99 % does not hold: 91 % (interval 91 % to 91 %, n = 3)",
    )  # fmt: skip
    assert judge([50.0, 50.5, 51.0], status="liveness failure")[0] == "fails"


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Saturated:
    folder = tmp_path_factory.mktemp("saturate")
    (folder / "law.yaml").write_text(LAW)
    return saturate(
        folder / "law.yaml", "p99 < 250 ms and success > 99 %", start="200 tx/s", tolerance=0.2, replications=3, most=6,
        curve=False, out=folder / "out", workers=1,
    )  # fmt: skip


def test_the_capacity_of_full_blocks_is_found(answer: Saturated) -> None:
    """Ten transactions per block and three delays of 10 ms per block: 333 tx/s, less what p99 < 250 ms costs."""
    assert answer.meets is not None and answer.fails is not None
    assert answer.meets.offered_tps < 1000 / 3 * 1.05
    assert answer.fails.offered_tps > 1000 / 3 * 0.85
    undecided = [load for load in answer.loads if load.state == "undecided"]
    assert undecided or answer.fails.offered_tps / answer.meets.offered_tps <= 1.2
    assert not answer.stopped
    for load in answer.loads:
        assert load.committed_tps is not None
        assert load.committed_tps.estimate < 1000 / 3 * 1.02
    assert answer.verdict()[0].startswith("law: p99 < 250 ms and success > 99 % holds up to ")
    assert (answer.loads[0].state, answer.loads[-1].state) == ("meets", "fails")


def test_loads_that_are_not_committed_as_they_are_offered_are_called_saturated(answer: Saturated) -> None:
    for load in answer.loads:
        if load.offered_tps > 1000 / 3 * 1.1:
            assert load.saturated
        elif load.offered_tps < 1000 / 3 * 0.9:
            assert not load.saturated
    assert answer.saturation is not None and answer.saturation.orderly
    assert any(" falls behind at " in line for line in answer.verdict())


def test_an_answer_beyond_saturation_is_said_to_hold_for_short_runs_only(answer: Saturated) -> None:
    beyond = next(load for load in answer.loads if load.saturated)
    patient = dataclasses.replace(answer, meets=beyond, fails=None)
    assert "so the answer holds for runs of this length only; give a longer duration" in patient.verdict()


def test_its_table_fits_a_terminal_and_has_every_load(answer: Saturated) -> None:
    lines = answer.text().splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[3:]] == [f"{load.offered_tps:,.6g}" for load in answer.loads]


def test_its_runs_are_those_of_a_study_and_are_reused(answer: Saturated) -> None:
    frame = sim.results(answer.folder)
    assert sorted(frame.load_factor.unique()) == [load.factor for load in answer.loads]
    stamps = {path: path.stat().st_mtime_ns for path in answer.folder.glob("runs/*/manifest.json")}
    file = answer.folder.parent.parent / "law.yaml"
    again = saturate(
        file, "p99 < 250 ms and success > 99 %", start="200 tx/s", tolerance=0.2, replications=3, most=6, curve=False,
        out=answer.folder.parent, workers=2,
    )  # fmt: skip
    assert again.frame().equals(answer.frame())
    assert {path: path.stat().st_mtime_ns for path in answer.folder.glob("runs/*/manifest.json")} == stamps


def test_a_cut_run_stops_the_search_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "law.yaml").write_text(LAW + "limits: {max_events: 500}\n")
    found = saturate(tmp_path / "law.yaml", "p99 < 1 s", replications=2, out=tmp_path / "out", workers=1)
    assert found.meets is None and found.loads == ()
    assert "truncated 4" in found.verdict()[-1]


def test_questions_without_an_answer_are_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "law.yaml").write_text(LAW)
    full = ROOT / "scenarios" / "protocols" / "pbft" / "baseline.yaml"
    cases = [
        (full, {}, "has no open or demand entry"),
        (tmp_path / "law.yaml", {"start": "0 tx/s"}, "must be above zero"),
        (tmp_path / "law.yaml", {"start": "fast"}, "saturate: start fast: "),
        (tmp_path / "law.yaml", {"tolerance": 5}, "write 5 % as 0.05"),
        (tmp_path / "law.yaml", {"most": 2}, "2 <= replications <= most"),
        (tmp_path / "law.yaml", {"level": 95}, "write 95 % as 0.95"),
    ]
    for file, options, words in cases:
        with pytest.raises(ScenarioError, match=words):
            saturate(file, "p99 < 1 s", out=tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
