"""Reports show what runs left behind: nothing more, nothing less, and the same bytes each time."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import sim
from sim.cli import app
from sim.network.sites import sites
from sim.report import compare, demo, figures, island_map, outcome, tables, verdicts
from sim.report.outcome import Outcome
from sim.scenario.errors import ScenarioError

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "scenarios" / "quickstart.yaml"
SHORT = ("duration=4 s", "faults.0.at=1 s", "faults.0.for=1500 ms")


@pytest.fixture(scope="module")
def jobs() -> list[compare.Job]:
    """Quickstart, cut short, and the same on slower fibres."""
    return [
        compare.Job(QUICKSTART, SHORT, label="mid"),
        compare.Job(QUICKSTART, (*SHORT, "network.latency.quality=high"), label="high"),
    ]


@pytest.fixture(scope="module")
def outcomes(jobs: list[compare.Job], tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    return compare.aggregate(jobs, tmp_path_factory.mktemp("results"), workers=1)


def test_a_distribution_rises_to_one_and_agrees_with_the_quantiles(outcomes: list[Outcome]) -> None:
    for run in outcomes:
        latency_ms, share = figures.cdf(run)
        assert (np.diff(latency_ms) > 0).all()
        assert (np.diff(share) > 0).all()
        assert share[0] > 0
        assert share[-1] == 1
        assert run.tables["latency_client"]["transactions"].sum() == run.metrics["measured_transactions"]
        for name, q in (("latency_p50_ms", 0.50), ("latency_p99_ms", 0.99)):
            assert latency_ms[np.searchsorted(share, q)] == run.metrics[name]


def test_the_drawn_distribution_passes_through_the_exact_one(outcomes: list[Outcome]) -> None:
    axes = figures.comparison(outcomes, "test").axes[0]
    assert len(axes.lines) == len(outcomes)
    for run, line in zip(outcomes, axes.lines, strict=True):
        x, y = line.get_data()
        assert y[-1] == 1
        assert (np.diff(y) >= 0).all()
        exact = dict(zip(*figures.cdf(run), strict=True))
        assert all(exact[a] == b for a, b in zip(x[1:], y[1:], strict=True))


def test_the_timeline_holds_every_committed_transaction(outcomes: list[Outcome]) -> None:
    for run in outcomes:
        edges, rate = figures.throughput(run)
        assert (rate * np.diff(edges)).sum() == pytest.approx(run.metrics["committed"])


def test_shading_begins_and_ends_with_the_fault(outcomes: list[Outcome]) -> None:
    figure = figures.comparison(outcomes, "test")
    for run, axes in zip(outcomes, figure.axes[1:], strict=True):
        assert run.outages_s == [(1.0, 2.5)]
        shades = [p for p in axes.patches if p.get_facecolor()[:3] == _rgb(figures.OUTAGE)]
        spans = [shade.get_extents().transformed(axes.transData.inverted()) for shade in shades]
        assert [(span.x0, span.x1) for span in spans] == [pytest.approx((1.0, 2.5))]


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


def test_a_fault_that_never_heals_is_shaded_to_the_end(outcomes: list[Outcome]) -> None:
    run = outcomes[0]
    faults = run.tables["faults"] | {"ended_s": np.array([None], dtype=object)}
    lasting = dataclasses.replace(run, tables=run.tables | {"faults": faults})
    assert lasting.outages_s == [(1.0, run.metrics["simulated_s"])]


def test_figures_are_the_same_bytes_each_time(outcomes: list[Outcome], tmp_path: Path) -> None:
    plan = island_map.Plan(("HAK", "QHI", "SYX", "YPG"), (("HAK", "SYX"),), lost="N")
    for folder in ("one", "two"):
        figures.save(figures.comparison(outcomes, "test"), tmp_path / folder, "comparison")
        figures.save(island_map.island_map(plan, outcomes, "test"), tmp_path / folder, "map")
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["comparison.png", "comparison.svg", "map.png", "map.svg"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_memory_and_disk_tell_the_same(jobs: list[compare.Job], outcomes: list[Outcome]) -> None:
    fresh = outcome.of_result(sim.run(jobs[0].load()), "mid")
    assert _plain(fresh) == _plain(outcomes[0])


def test_workers_change_nothing(jobs: list[compare.Job], outcomes: list[Outcome], tmp_path: Path) -> None:
    shares: list[float] = []
    parallel = compare.aggregate(jobs, tmp_path, workers=2, progress=shares.append)
    assert [_plain(run) for run in parallel] == [_plain(run) for run in outcomes]
    assert shares == sorted(shares)


def _plain(run: Outcome) -> dict[str, object]:
    found = {field.name: getattr(run, field.name) for field in dataclasses.fields(run)}
    found["tables"] = {name: {key: list(values) for key, values in table.items()} for name, table in run.tables.items()}
    return found


def test_the_table_has_a_row_per_scenario(outcomes: list[Outcome]) -> None:
    rows = list(csv.DictReader(io.StringIO(tables.as_csv(outcomes))))
    assert [row["design"] for row in rows] == ["mid", "high"]
    for row, run in zip(rows, outcomes, strict=True):
        assert float(row["latency_p50_ms"]) == run.metrics["latency_p50_ms"]
        assert row["digest"] == run.digest
    assert len(tables.rows(outcomes)) == 2
    assert all(len(row) == len(tables.headings(outcomes)) for row in tables.rows(outcomes))
    assert [line.split()[0] for line in verdicts.short_table(outcomes).splitlines()[-2:]] == ["mid", "high"]


def test_assumptions_and_the_note_on_claims_stand_by_the_numbers(outcomes: list[Outcome]) -> None:
    assert "latency p50 [ms] (A)" in tables.headings(outcomes)
    assert "messages/ decision" in tables.headings(outcomes)
    page = tables.markdown(outcomes, "test")
    assert tables.VENDOR_NOTE in page
    assert "estimated from distance" in page


def test_numbers_are_written_for_people() -> None:
    assert tables.shown(None, 1) == tables.NOTHING
    assert tables.shown(5060, 1) == "5,060"
    assert tables.shown(104_551.36, 1) == "104,551"
    assert tables.shown(79.888, 1) == "79.9"


def test_compare_writes_tables_and_figures_and_reuses_runs(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(f"extends: {QUICKSTART}\nnetwork: {{bandwidth: 10 Mbit/s}}\n")
    out = tmp_path / "results"
    words = ["compare", str(QUICKSTART), str(other), "--out", str(out), "--json", "--replications", "2"]
    words += [word for override in SHORT for word in ("--set", override)]
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 0, first.output
    data = json.loads(first.stdout)
    assert [run["design"] for run in data["runs"]] == ["quickstart", "other"]
    names = ["comparison.png", "comparison.svg", "differences.csv", "differences.png", "differences.svg"]
    assert sorted(Path(file).name for file in data["files"]) == [
        "caliper.csv",
        *names,
        "summary.csv",
        "table.csv",
        "table.md",
    ]
    assert all(Path(file).is_file() for file in data["files"])
    manifests = sorted(out.glob("*/runs/*/manifest.json"))
    stamps = [manifest.stat().st_mtime_ns for manifest in manifests]
    assert len(manifests) == 4
    assert json.loads(CliRunner().invoke(app, words).stdout) == data
    assert [manifest.stat().st_mtime_ns for manifest in manifests] == stamps


def test_a_damaged_result_is_run_again(jobs: list[compare.Job], tmp_path: Path) -> None:
    (first,) = compare.aggregate(jobs[:1], tmp_path, workers=1)
    (file,) = tmp_path.glob("*/runs/*/timeline.parquet")
    file.write_bytes(file.read_bytes()[:-1])
    (again,) = compare.aggregate(jobs[:1], tmp_path, workers=1)
    assert _plain(again) == _plain(first)


def test_compare_refuses_a_bad_scenario_before_anything_runs(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(f"extends: {QUICKSTART}\nsede: 1\n")
    found = CliRunner().invoke(app, ["compare", str(QUICKSTART), str(bad), "--out", str(tmp_path / "out")])
    assert found.exit_code == 2
    assert not (tmp_path / "out").exists()
    assert CliRunner().invoke(app, ["compare", str(QUICKSTART)]).exit_code == 2


def test_the_worst_run_decides_the_exit_code(outcomes: list[Outcome]) -> None:
    def with_status(*statuses: str) -> int:
        return outcome.worst_exit_code([dataclasses.replace(outcomes[0], status=s) for s in statuses])

    assert with_status("ok", "ok") == 0
    assert with_status("ok", "liveness failure", "truncated") == 4
    assert with_status("liveness failure", "safety violation", "ok") == 3
    assert with_status("safety violation", "conservation violation") == 1


def test_equal_names_are_told_apart(jobs: list[compare.Job]) -> None:
    scenarios = [job.load() for job in jobs]
    assert compare.labels(jobs, scenarios) == ["scenarios/quickstart #1", "scenarios/quickstart #2"]
    assert figures.short_labels(["island-7-pbft", "island-7-raft-storm"]) == ["pbft", "raft-storm"]
    assert figures.short_labels(["island-7", "island-7-raft"]) == ["7", "7-raft"]


def test_the_map_marks_the_lost_domain_and_no_other_voter() -> None:
    network = sim.load(ROOT / "scenarios" / "pilot-zone" / "island-7-pbft.yaml").network
    table = sites()
    lost = [table[code] for code in network.sites or () if table[code].domain == "N"]
    lon, lat, radius_km = island_map.circle_around([(s.longitude_deg, s.latitude_deg) for s in lost], 8)
    for code in network.sites or ():
        site = table[code]
        east = (site.longitude_deg - lon) * island_map.KM_PER_DEGREE * np.cos(np.radians(lat))
        inside = np.hypot(east, (site.latitude_deg - lat) * island_map.KM_PER_DEGREE) < radius_km
        assert inside == (site.domain == "N"), code


def test_the_demo_says_where_it_looked_for_its_scenarios(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert demo.scenario_folder() == ROOT / "scenarios" / "pilot-zone"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "FOLDER", Path("scenarios") / "nowhere")
    with pytest.raises(ScenarioError, match="checkout"):
        demo.scenario_folder()


def test_designs_that_make_blocks_by_different_rules_are_told_apart() -> None:
    from sim.report.outcome import of_result
    from sim.scenario.run import run
    from tests.runs import scenario

    load = {"workload": [{"kind": "open", "rate": "20 tx/s"}], "duration": "5 s"}
    spaced = of_result(run(scenario(4, protocol="qbft", block={"period": "2 s"}, **load)), "spaced")
    tendermint = {"name": "tendermint", "timeout_commit": "1 s"}
    paused = of_result(run(scenario(4, protocol=tendermint, **load)), "paused")
    soon = of_result(run(scenario(4, protocol="pbft", **load)), "soon")
    (line,) = [note for note in tables.notes([spaced, soon, paused]) if "different rules" in note]
    assert line.endswith("spaced: period 2 s; soon: as soon as something waits; paused: timeout_commit 1 s.")
    assert not any("different rules" in note for note in tables.notes([soon, soon]))


def test_runs_stand_in_one_table_with_calipers(outcomes: list[Outcome]) -> None:
    header, *rows = [line.split(",") for line in tables.as_caliper(outcomes).splitlines()]
    assert header == list(tables.CALIPER)
    assert [row[0] for row in rows] == [one.label for one in outcomes]
    for row, one in zip(rows, outcomes, strict=True):
        assert int(row[1]) == one.metrics["acknowledged"]
        least, mean, most = float(row[5]), float(row[6]), float(row[4])
        assert 0 < least <= mean <= most
        assert mean == pytest.approx((one.metrics["latency_mean_ms"] or 0) / 1000, abs=1e-3)
