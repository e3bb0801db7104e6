"""What `publish` writes: figures with their numbers, captions that leave nothing out, the same bytes each time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import sim
from sim import manifests
from sim.cli import app
from sim.measure.statistics import t_interval
from sim.report.crate import CRATE
from sim.report.effects import axis_key, cases_of, effect
from sim.report.paper import WIDTHS_IN, effect_rows
from sim.report.publish import FORMATS, publish
from sim.scenario import store
from sim.scenario.errors import ScenarioError
from sim.scenario.results import open_runs
from sim.scenario.sweep import sweep

BASE = """
duration: 2 s
network: {sites: [HAK, QHI, SYX, YPG], latency: {model: distance, quality: mid}}
protocol: {name: pbft}
workload: [{kind: open, rate: 100 tx/s, bytes: 500 B}]
faults: [{at: 1 s, for: 300 ms, crash: {nodes: [SYX]}}]
"""
STUDY = """
base: base.yaml
description: four voters and a crash
sweep: {grid: {"workload.0.rate": [50 tx/s, 100 tx/s, 200 tx/s]}}
replications: 3
"""
DATE = "2026-01-31"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of three cases with three replications."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "base.yaml").write_text(BASE)
    (folder / "crash.yaml").write_text(STUDY)
    assert sweep(folder / "crash.yaml", out=folder / "results").statuses == {"ok": 9}
    return folder / "results" / "crash"


@pytest.fixture(scope="module")
def published(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that is made from them."""
    folder = tmp_path_factory.mktemp("published") / "new"
    made = publish(study, folder, metrics=["committed_tps"], date=DATE)
    assert made.notes == ()
    assert {file for file in made.files} == {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_figure_comes_in_all_formats_and_widths_with_its_numbers(published: Path) -> None:
    names = ["committed_tps", "latency_cdf", "throughput"]
    figures = {f"{name}-{width}.{ending}" for name in names for width in WIDTHS_IN for ending in FORMATS}
    assert {path.name for path in (published / "figures").iterdir()} == figures
    assert {path.stem for path in (published / "data").iterdir()} == set(names)


def test_made_again_by_the_command_it_names_it_is_the_same_bytes(
    study: Path, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crate = json.loads((published / CRATE).read_text())
    command = next(entity for entity in crate["@graph"] if entity["@id"] == "#made")["description"]
    assert command in (published / "captions.md").read_text()
    monkeypatch.chdir(study.parent.parent)
    answer = CliRunner().invoke(app, command.split()[1:])
    assert answer.exit_code == 0, answer.output
    assert contents(study.parent.parent / "crash-published") == contents(published)


def test_numbers_are_means_of_the_runs_with_their_intervals(study: Path, published: Path) -> None:
    frame = sim.results(study)
    numbers = pd.read_csv(published / "data" / "committed_tps.csv")
    assert numbers["workload.0.rate"].tolist() == ["50 tx/s", "100 tx/s", "200 tx/s"]
    for row in numbers.itertuples():
        interval = t_interval(frame.loc[frame.case == row.case, "committed_tps"].to_numpy())
        assert (row.n, row.mean, row.low, row.high) == (3, interval.estimate, interval.low, interval.high)
    pd.testing.assert_frame_equal(pd.read_csv(published / "runs.csv"), frame, check_dtype=False, check_exact=True)


def test_distributions_and_time_series_agree_with_the_metrics(study: Path, published: Path) -> None:
    frame = sim.results(study)
    cdf = pd.read_csv(published / "data" / "latency_cdf.csv")
    for case, runs in frame.groupby("case"):
        mine = cdf[cdf.case == case].set_index("share")
        assert mine.latency_ms.is_monotonic_increasing
        assert (mine.least_ms <= mine.latency_ms).all()
        assert (mine.latency_ms <= mine.greatest_ms).all()
        assert mine.loc[0.5, "least_ms"] == runs.latency_p50_ms.min()
        assert mine.loc[0.5, "greatest_ms"] == runs.latency_p50_ms.max()
    time = pd.read_csv(published / "data" / "throughput.csv")
    shaded = time[time.faults & (time.case == 0)]
    assert shaded.start_s.min() <= 1.0 < shaded.end_s.min()
    assert shaded.start_s.max() < 1.3 <= shaded.end_s.max()
    committed = (time.committed_tps * (time.end_s - time.start_s)).groupby(time.case).sum()
    assert committed.tolist() == pytest.approx(frame.groupby("case").committed.mean().tolist(), rel=0.02)


def test_a_caption_names_n_intervals_seeds_assumptions_and_command(study: Path, published: Path) -> None:
    page = (published / "captions.md").read_text()
    metric = page.split("## ")[1]
    assert "means over 3 replications; whiskers: 95 % Student intervals of the mean." in metric
    assert ", ".join(str(seed) for seed in sim.results(study).seed.unique()) in metric
    assert f"pilotzone publish results/crash --out crash-published --metric committed_tps --date {DATE}" in metric
    assert "(A), an assumption: round trips are estimated from distance" in page.split("## ")[2]
    assert "Shaded: faults." in page


def test_the_crate_describes_every_file_and_refers_to_nothing_else(published: Path) -> None:
    crate = json.loads((published / CRATE).read_text())
    assert crate["@context"] == "https://w3id.org/ro/crate/1.1/context"
    entities = {entity["@id"]: entity for entity in crate["@graph"]}
    assert len(entities) == len(crate["@graph"])
    described = entities[CRATE]
    assert (described["about"], described["conformsTo"]) == ({"@id": "./"}, {"@id": "https://w3id.org/ro/crate/1.1"})
    root = entities["./"]
    assert (root["datePublished"], root["name"]) == (DATE, "crash")
    assert {part["@id"] for part in root["hasPart"]} == set(contents(published)) - {CRATE}
    for part in root["hasPart"]:
        file = entities[part["@id"]]
        assert file["contentSize"] == str((published / part["@id"]).stat().st_size)
        assert file["description"]
    for entity in crate["@graph"]:
        for value in entity.values():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, dict) and not one["@id"].startswith("https://w3id.org/"):
                    assert one["@id"] in entities
    assert entities["#pilotzone"]["version"] == store.version()
    assert entities[root["license"]["@id"]]["name"] == "Apache-2.0"


def test_publishing_again_replaces_and_keeps_the_date(study: Path, published: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published, tmp_path / "copy"))
    publish(study, folder, metrics=["latency_p99_ms"])
    names = {path.name for path in folder.rglob("*")}
    assert "latency_p99_ms.csv" in names
    assert "committed_tps.csv" not in names
    assert f'"datePublished": "{DATE}"' in (folder / CRATE).read_text()


def test_runs_that_are_not_ok_are_left_out_and_counted(study: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(study, tmp_path / "crash"))
    first, second = [run["key"] for run in open_runs(copied).runs if run["case"] == 0][:2]
    shutil.rmtree(copied / "runs" / first)
    run = copied / "runs" / second
    (run / manifests.MANIFEST).write_bytes(manifests.sealed(manifests.read(run) | {"status": "safety violation"}))
    made = publish(copied, tmp_path / "out", metrics=["committed_tps"], date=DATE)
    assert made.notes == (
        "1 of 9 runs have no result: not shown.", "1 of 9 runs ended as 'safety violation': not shown.",
    )  # fmt: skip
    numbers = pd.read_csv(tmp_path / "out" / "data" / "committed_tps.csv")
    assert numbers.n.tolist() == [1, 3, 3]
    assert numbers.low.isna().tolist() == [True, False, False]  # one run has no interval
    page = (tmp_path / "out" / "captions.md").read_text()
    assert "1 cases have one run and so no interval." in page
    assert page.count("1 of 9 runs have no result: not shown.") == 3


def test_a_numeric_key_becomes_the_axis(study: Path) -> None:
    frame = sim.results(study)
    assert axis_key(cases_of(frame)) == "workload.0.rate"
    found = effect(frame, cases_of(frame), "committed_tps")
    assert found is not None
    assert found.title == "committed throughput [tx/s]"
    assert [row["planned"] for row in effect_rows(found)] == [3, 3, 3]
    assert effect(frame.assign(committed_tps=float("nan")), cases_of(frame), "committed_tps") is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"metrics": ["latency_p9_ms"]}, "--metric latency_p9_ms: unknown; this study has "),
        ({"metrics": ["recovery_share"]}, "--metric recovery_share: unknown"),
        ({"date": "31.1.2026"}, "--date 31.1.2026: is no date; write it as 2026-01-31"),
    ],
)
def test_what_cannot_be_published_is_refused(
    study: Path, tmp_path: Path, change: dict[str, object], expected: str
) -> None:
    with pytest.raises(ScenarioError) as caught:
        publish(study, tmp_path / "out", **change)  # type: ignore[arg-type]
    assert str(caught.value).startswith(expected)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_things_is_left_alone(study: Path, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(ScenarioError, match=r"holds files that no pilotzone publish has written; name a new folder"):
        publish(study, tmp_path)
    with pytest.raises(ScenarioError, match=r"letters.txt: is a file; name a folder"):
        publish(study, tmp_path / "letters.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]
