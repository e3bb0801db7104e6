"""Replications until a target: what is refused, when a case stops, and that stages follow from values alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import sim
from sim.cli import app
from sim.measure.names import METRICS
from sim.measure.statistics import t_interval
from sim.scenario.errors import ScenarioError
from sim.scenario.results import INDEX, open_runs
from sim.scenario.study import load_study
from sim.scenario.sweep import sweep
from sim.scenario.until import Standing, Value, parse, stand
from tests.unit.test_statistics_models import stream
from tests.unit.test_study import contents, write

CASES = "sweep: {grid: {network.jitter.plus_minus: [1 ms, 4 ms]}}\n"


def test_a_target_is_read_as_it_is_written() -> None:
    found = parse("latency_p99_ms +-5% at 95%", 10, 200)
    assert (found.metric, found.width, found.relative, found.level) == ("latency_p99_ms", 0.05, True, 0.95)
    assert found.text() == "latency_p99_ms +-5% at 95%"
    assert parse("recovery_s +- 0.2 s at 90 %", 3, 9).text() == "recovery_s +-0.2 s at 90%"
    assert parse("view_changes ±1.5", 3, 9).text() == "view_changes +-1.5 at 95%"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("until: latency_p98_ms +-5%", "study.yaml:3:8: latency_p98_ms +-5%: is no metric of a run; did you mean la"),
        ("until: latency_p99_ms 5%", "is not of the form METRIC +-WIDTH at LEVEL; write latency_p99_ms +-5% at 95%"),
        ("until: latency_p99_ms +-0%", "asks for an interval without width, which no number of runs reaches"),
        ("until: latency_p99_ms +-100%", "write a width below 100 %"),
        ("until: latency_p99_ms +-2 s", "gives the width in s, but the metric's unit is ms; write it in that"),
        ("until: latency_p99_ms +-2 at 100%", "level that is not between 0 and 100 %"),
        ("until: latency_p99_ms +-2\nreplications: 5", "is fixed, but until asks for as many as it takes"),
        ("replications: {most: 20}", "needs a target, once; write until: "),
        ("replications: {until: latency_p99_ms +-2, most: 5}", "from 10 to 5, but 3 <= least <= most is needed"),
        ("replications: {mots: 20}", "mots: unknown key"),
        ("until: latency_p99_ms +-2\nreplications: {most: 60000}", "2 cases x 60000 replications are 120000 runs"),
        ("replications: 0", "must be at least 1; raise it"),
    ],
)  # fmt: skip
def test_targets_without_meaning_are_refused_with_their_place(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        load_study(write(tmp_path, f"{CASES}{text}\n"))
    assert expected in str(caught.value)


def test_stages_grow_with_the_spread_and_stop_at_the_target() -> None:
    values = stream(600).normal(10.0, 2.0, 500)
    asked: list[int] = []

    def value_of(k: int) -> Value:
        asked.append(k)
        return float(values[k])

    until = parse("latency_p99_ms +-5%", 10, 200)
    found = stand(until, value_of)
    assert found.outcome == "reached" and found.interval is not None
    assert asked == list(range(found.replications))
    assert found.interval == t_interval(values[: found.replications])
    assert found.interval.half_width <= 0.05 / 1.05 * found.interval.estimate


def test_a_case_stops_at_its_most_at_the_impossible_and_at_a_run_without_a_value() -> None:
    values = stream(601).normal(10.0, 2.0, 500)

    def outcome(text: str, most: int, missing: int | None = None, why: Value = None) -> Standing:
        return stand(parse(text, 10, most), lambda k: why if k == missing else float(values[k]))

    assert outcome("latency_p99_ms +-5%", 40).outcome == "capped"
    assert outcome("latency_p99_ms +-5%", 40).replications == 40
    hopeless = outcome("latency_p99_ms +-0.01%", 200)
    assert (hopeless.outcome, hopeless.replications) == ("out of reach", 10)
    assert "out of reach with 200 replications" in hopeless.reason
    assert outcome("latency_p99_ms +-5%", 200, missing=12).outcome == "go on"
    cut = outcome("latency_p99_ms +-5%", 200, missing=4, why="ended with status truncated")
    assert (cut.outcome, cut.reason) == ("not judged", "replication 4 ended with status truncated")


def test_every_metric_can_be_a_target() -> None:
    quickstart = Path(__file__).parents[2] / "scenarios" / "quickstart.yaml"
    result = sim.run(sim.load(quickstart, ["duration=100 ms", "faults=[]"]))
    assert set(METRICS) == {name for name in result.metrics if not name.endswith("wall_s")}


def test_a_sweep_stops_by_itself_and_the_same_whoever_runs_it(tmp_path: Path) -> None:
    file = write(tmp_path, f"{CASES}until: decision_latency_mean_ms +-0.3 ms\nreplications: {{least: 4, most: 60}}\n")
    one = sweep(file, out=tmp_path / "one", workers=1)
    assert [standing.outcome for standing in one.standings] == ["reached", "reached"]
    few, many = (standing.replications for standing in one.standings)
    assert 4 <= few < many < 60  # four times the jitter needs more runs
    frame = sim.results(tmp_path / "one" / "study")
    values = frame[frame.case == 1].sort_values("replication").decision_latency_mean_ms
    assert len(values) == many
    assert one.standings[1].interval == t_interval(np.array(values))
    # Another machine: more workers, killed in the middle (some runs are gone), an index that is stale, resumed.
    sweep(file, out=tmp_path / "two", workers=3)
    runs = open_runs(tmp_path / "two" / "study")
    for key in runs.keys[3:9]:
        (runs.folder / "runs" / key).rename(tmp_path / key)
    (runs.folder / INDEX).unlink()
    again = sweep(file, out=tmp_path / "two", workers=2)
    assert again.state.done == 6
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert open_runs(file, out=tmp_path / "one").keys == runs.keys


def test_what_cannot_be_reached_is_an_error_and_loses_nothing(tmp_path: Path) -> None:
    file = write(tmp_path, f"{CASES}until: decision_latency_mean_ms +-0.0001%\nreplications: {{least: 3, most: 20}}\n")
    words = ["sweep", str(file), "--out", str(tmp_path / "out")]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 2
    assert "out of reach with 20 replications" in answer.stderr
    assert len(list((tmp_path / "out" / "study" / "runs").iterdir())) == 6
    told = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert (told["reused"], told["done"]) == (6, 0)
    assert [one["outcome"] for one in told["targets"]] == ["out of reach"] * 2


def test_the_interval_ends_where_no_value_can_be() -> None:
    """Four recoveries of 0 s and one of 3 s: the interval of Student's t would begin below zero."""
    reached = stand(parse("recovery_s +-1 s", 3, 5), [0.0, 0.0, 3.0, 0.0, 0.0].__getitem__)
    assert reached.outcome == "capped" and reached.interval is not None
    assert reached.interval.low == 0 < reached.interval.estimate
    assert "[0.0, " in reached.words(parse("recovery_s +-1 s", 3, 5))
