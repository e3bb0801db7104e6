"""Throughput against latency: points of a study's frame, what is left out, and the files."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest

from sim.measure.statistics import t_interval
from sim.report.curves import answer, check, points, write
from sim.scenario.errors import ScenarioError
from sim.scenario.study import load_study

ROOT = Path(__file__).parents[2]


def frame() -> pd.DataFrame:
    """Two protocols at two rates, three replications each; one run failed."""
    rows = []
    for case, (name, rate) in enumerate([("pbft", 100), ("pbft", 1000), ("raft", 100), ("raft", 1000)]):
        for k in range(3):
            rows.append({
                "case": case, "protocol": f'{{"name":"{name}"}}', "workload.0.rate": f"{rate} tx/s", "replication": k,
                "status": "ok", "committed_tps": rate - k, "latency_p50_ms": 10.0 + k, "latency_p99_ms": 20.0 + k,
            })  # fmt: skip
    rows[-1]["status"] = "liveness failure"
    return pd.DataFrame(rows)


def test_a_point_is_an_interval_over_the_runs_that_are_ok() -> None:
    found = points(frame())
    assert [(p.protocol, p.offered, p.n, p.left_out) for p in found] == [
        ("pbft", "100 tx/s", 3, 0),
        ("pbft", "1000 tx/s", 3, 0),
        ("raft", "100 tx/s", 3, 0),
        ("raft", "1000 tx/s", 2, 1),
    ]
    assert found[0].values["committed_tps"] == t_interval([100, 99, 98])
    assert found[3].values["latency_p50_ms"] == t_interval([10, 11])


def test_files_hold_the_numbers_of_the_figure(tmp_path: Path) -> None:
    files = write([frame()], "two", "Two protocols", "pilotzone curves two.yaml", tmp_path)
    assert {file.name for file in files} == {"two.csv", "two.md", "two.png", "two.svg"}
    rows = list(csv.DictReader((tmp_path / "two.csv").open()))
    assert float(rows[1]["committed_tps_mean"]) == 999
    text = (tmp_path / "two.md").read_text()
    assert "1 of 12 runs left out" in text
    assert "pilotzone curves two.yaml" in text


def test_the_answer_says_who_keeps_up_and_who_is_soonest_beyond_chance(tmp_path: Path) -> None:
    same = frame()
    assert answer(points(same)) == [
        "100 tx/s: pbft and raft keep up, and intervals of their medians overlap.",
        "1,000 tx/s: pbft and raft keep up, and intervals of their medians overlap.",
    ]
    slower = same.copy()
    slower.loc[slower.case >= 2, "latency_p50_ms"] += 90.0
    slower.loc[slower.case == 3, "committed_tps"] -= 500
    assert answer(points(slower)) == [
        "100 tx/s: pbft and raft keep up, soonest pbft (median from 11 ms).",
        "1,000 tx/s: pbft keeps up; raft does not.",
    ]
    few = same.copy()
    few.loc[(few.case == 3) & (few.replication > 0), "status"] = "truncated"
    few.loc[few.case == 1, "committed_tps"] -= 500
    few["network.nodes"] = 4
    assert answer(points(few))[1] == (
        "4 nodes, 1,000 tx/s: none commits 95 % of it; most: pbft, 499 tx/s; too few ok runs of raft to tell."
    )
    one = same[same.case < 2]
    many = pd.concat([one.assign(protocol=f'{{"name":"{x}"}}', case=one.case + 10 * i) for i, x in enumerate("abcd")])
    many.loc[many.case >= 30, "committed_tps"] = 1.0
    assert answer(points(many))[0] == "100 tx/s: all but d keep up, and intervals of their medians overlap."
    write([slower], "two", "Two protocols", "pilotzone curves two.yaml", tmp_path)
    assert (tmp_path / "two.md").read_text().splitlines()[2] == answer(points(slower))[0]


def test_studies_drawn_as_one_keep_points_of_a_size_together(tmp_path: Path) -> None:
    first, second = (frame().assign(**{"network.nodes": [4] * 6 + [16] * 6}) for _ in range(2))
    second["protocol"] = '{"name":"aura"}'
    write([first, second], "three", "Three protocols", "pilotzone curves a.yaml b.yaml", tmp_path)
    rows = list(csv.DictReader((tmp_path / "three.csv").open()))
    assert [(row["nodes"], row["protocol"]) for row in rows] == [
        ("4", "pbft"), ("4", "pbft"), ("4", "aura"), ("4", "aura"),
        ("16", "raft"), ("16", "raft"), ("16", "aura"), ("16", "aura"),
    ]  # fmt: skip
    assert "2 of 24 runs left out" in (tmp_path / "three.md").read_text()


def test_a_study_that_varies_something_else_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"does not vary protocol and workload\.0\.rate; vary both"):
        check(["network.nodes"])


@pytest.mark.parametrize("part", ["", "-by-clock"])
@pytest.mark.parametrize("name", ["protocols-island", "protocols-scale"])
def test_the_published_studies_can_be_laid_out(name: str, part: str) -> None:
    check(load_study(ROOT / "scenarios" / "studies" / f"{name}{part}.yaml").swept)
