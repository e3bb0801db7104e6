"""Studies: what a file lays out, what it refuses, and what a sweep leaves on disk whatever happens to it."""

from __future__ import annotations

import functools
import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyarrow.dataset import dataset
from rich.console import Console

import sim
from sim import manifests
from sim.scenario import store
from sim.scenario.errors import ScenarioError
from sim.scenario.load import load_scenario
from sim.scenario.progress import share_bar, sweep_bar
from sim.scenario.results import INDEX, STUDY, open_runs, rows
from sim.scenario.schema import scenario_hash
from sim.scenario.show import as_yaml
from sim.scenario.study import load_study, replication_seed
from sim.scenario.sweep import State, executor, run_study, sweep, verify

SCENARIOS = Path(__file__).parents[2] / "scenarios"
BASE = """
duration: 300 ms
network:
  nodes: 4
  latency: {model: fixed, one_way: 10 ms}
  jitter: {model: uniform, plus_minus: 1 ms}
protocol: {name: pbft}
workload: [{kind: backlog, bytes: 512 B}]
"""
SIX_RUNS = "sweep: {grid: {protocol.name: [pbft, raft, hotstuff]}}\nreplications: 2\n"


def write(folder: Path, text: str, name: str = "study") -> Path:
    """A study file beside its base."""
    (folder / "base.yaml").write_text(BASE)
    file = folder / f"{name}.yaml"
    file.write_text(f"base: base.yaml\n{text}")
    return file


def contents(folder: Path) -> dict[str, bytes]:
    """All result files below a folder; the index notes times, and is no result."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != INDEX]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


@pytest.fixture(scope="module", autouse=True)
def no_commit() -> Iterator[None]:
    """Manifests without the checkout's commit: it may gain one, or a change, while the tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_DIR", os.devnull)
        store.commit.cache_clear()
        yield
    store.commit.cache_clear()


def test_a_process_that_stores_a_run_while_another_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.RunFolder(tmp_path, "study", "key").seal(b"earlier")
    mine = store.RunFolder(tmp_path, "study", "key")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    other = store.RunFolder(tmp_path, "study", "key")
    rename = Path.rename

    def then_the_other(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        path.rename(target)
        if target.name.endswith(".old"):
            other.seal(b"other")
        monkeypatch.setattr(Path, "rename", then_the_other)
        return target

    monkeypatch.setattr(Path, "rename", then_the_other)
    assert (mine.seal(b"mine") / manifests.MANIFEST).read_bytes() == b"mine"
    assert [path.name for path in (tmp_path / "study" / "runs").iterdir()] == ["key"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with study.yaml and its six runs in out/study, made by two workers."""
    folder = tmp_path_factory.mktemp("swept")
    done = sweep(write(folder, SIX_RUNS), out=folder / "out")
    assert done.statuses == {"ok": 6}
    return folder


@pytest.fixture
def copied(swept: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return Path(shutil.copytree(swept, tmp_path / "copy"))


# What a study file lays out


def test_a_grid_is_every_combination_and_replications_share_seeds(tmp_path: Path) -> None:
    text = "sweep: {grid: {network.nodes: [4, 7], block.max_transactions: [10, 20, 30]}}\nreplications: 3\n"
    study = load_study(write(tmp_path, text))
    assert [tuple(case.values.values()) for case in study.cases] == [(n, b) for n in (4, 7) for b in (10, 20, 30)]
    assert len(study.runs) == 18
    assert len({run.key for run in study.runs}) == 18
    for run in study.runs:
        assert run.scenario.seed == study.seeds[run.replication] == replication_seed(1, run.replication)
        assert run.scenario.network.n == run.case.values["network.nodes"]


def test_more_replications_extend_a_study(tmp_path: Path) -> None:
    few = load_study(write(tmp_path, "sweep: {cases: [{}]}\nreplications: 2\n"))
    many = load_study(write(tmp_path, "sweep: {cases: [{}]}\nreplications: 5\n"))
    assert [run.key for run in many.runs[:2]] == [run.key for run in few.runs]


def test_a_planned_run_is_the_scenario_that_run_would_load(tmp_path: Path) -> None:
    text = "set: {duration: 2 s}\nsweep: {zip: {protocol.name: [raft, pbft], network.latency.one_way: [5 ms, 7 ms]}}\n"
    for run in load_study(write(tmp_path, text)).runs:
        overrides = ["duration=2 s", *(f"{key}={value}" for key, value in run.case.values.items())]
        assert run.scenario == load_scenario(tmp_path / "base.yaml", overrides, run.scenario.seed)


@pytest.mark.parametrize("kind", ["latin-hypercube", "sobol"])
def test_sampled_designs_fill_their_ranges_and_repeat(tmp_path: Path, kind: str) -> None:
    ranges = "{network.nodes: {from: 4, to: 35}, network.latency.one_way: {from: 1 ms, to: 100 ms, scale: log}}"
    file = write(tmp_path, f"seed: 7\nsweep: {{{kind}: {{samples: 32, ranges: {ranges}}}}}\n")
    cases = [case.values for case in load_study(file).cases]
    assert cases == [case.values for case in load_study(file).cases]
    assert sorted(case["network.nodes"] for case in cases) == list(range(4, 36))  # one per stratum
    ms = sorted(float(case["network.latency.one_way"].removesuffix(" ms")) for case in cases)
    assert 1 <= ms[0] < 1.16
    assert 8 < ms[16] < 12  # half of the samples in each decade
    assert 86 < ms[-1] <= 100


def test_the_examples_load() -> None:
    assert len(load_study(SCENARIOS / "studies" / "nodes-and-latency.yaml").runs) == 180
    tiers = load_study(SCENARIOS / "studies" / "tier-sweep.yaml")
    assert [run.case.values["workload.0.tier"] for run in tiers.runs[:6]] == ["T1", "T1", "T2", "T2", "T3", "T3"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sweep: {grid: {}}", "study.yaml:2:9: sweep.grid: varies nothing; add a line such as network.nodes: [4, 7]"),
        ("sweep: {grid: {network.nodes: []}}", "study.yaml:2:16: sweep.grid.network.nodes: has no value; "),
        ("sweep: {cases: []}", "study.yaml:2:9: sweep.cases: has no case; "),
        ("sweep: {grid: {network.nodez: [4]}}", "study.yaml:2:16: nodez: unknown key in network; did you mean "),
        ("sweep: {grid: {network.nodes: [4, zwei]}}", "study.yaml:2:35: zwei: must be a whole number; "),
        ("sweep: {cases: [{network.nodes: 7}, {wram_up: 1 s}]}", "study.yaml:2:38: wram_up: unknown key in a scen"),
        ("swep: 1\nsweep: {cases: [{}]}", "study.yaml:2:1: swep: unknown key in a study; did you mean 'sweep'?"),
        ("replications: 2", "study.yaml:1:1: study: the key sweep is missing; "),
        ("replications: 100001\nsweep: {cases: [{}]}", "study.yaml:2:15: 100001: must be at most 100000; lower it"),
        ("replications: 50001\nsweep: {cases: [{}, {}]}", "100002 runs, and 100000 is the limit; "),
        ("sweep: {cases: [{}, {}]}", "are the same scenario, and its runs would count twice; "),
        ("sweep: {zip: {network.nodes: [4], duration: [1 s, 2 s]}}", "lists have lengths 1, 2; make them equal"),
        ("sweep: {grid: {seed: [1, 2]}}", "seed: replications draw the seeds; "),
        ("sweep: {sobol: {samples: 5, ranges: {network.nodes: {from: 4, to: 9}}}}", "write 4 or 8"),
        ("sweep: {cases: [{}], grid: {network.nodes: [4]}}", "exactly one of grid, cases, zip, "),
    ],
)  # fmt: skip
def test_bad_studies_are_refused_with_their_place(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        load_study(write(tmp_path, f"{text}\n"))
    assert expected in str(caught.value)


def test_a_rule_that_a_case_breaks_in_the_base_names_the_case(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"base.yaml:.*\(in case 1: network.latency.one_way=0.5 ms\)"):
        load_study(write(tmp_path, "sweep: {grid: {network.latency.one_way: [5 ms, 0.5 ms]}}\n"))


def test_an_override_of_a_swept_key_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, SIX_RUNS)
    assert load_study(file, ["duration=1 s"]).runs[0].scenario.duration_ns == 10**9
    with pytest.raises(ScenarioError, match="the study varies this key"):
        load_study(file, ["protocol.name=pbft"])


def test_show_prints_what_loads_as_the_same_scenario(tmp_path: Path) -> None:
    for file in SCENARIOS.rglob("*.yaml"):
        if file.parent.name in ("studies", "federations"):
            continue
        scenario = load_scenario(file)
        shown = tmp_path / "shown.yaml"
        shown.write_text(as_yaml(scenario))
        assert scenario_hash(load_scenario(shown)) == scenario_hash(scenario), file


# What a sweep leaves on disk


def test_one_two_and_seven_workers_and_single_runs_leave_the_same_bytes(swept: Path, tmp_path: Path) -> None:
    expected = contents(swept / "out")
    assert len([name for name in expected if name.endswith(manifests.MANIFEST)]) == 6
    for workers in (1, 7):
        out = tmp_path / str(workers)
        assert sweep(swept / "study.yaml", out=out, workers=workers).state.done == 6
        assert contents(out) == expected
    for run in load_study(swept / "study.yaml").runs:
        protocol = f"protocol.name={run.case.values['protocol.name']}"
        one = load_scenario(swept / "base.yaml", [protocol], run.scenario.seed)
        path = sim.run(one, out=tmp_path / "single").path
        assert path is not None
        assert contents(path) == contents(swept / "out" / "study" / "runs" / run.key)


def test_intact_runs_are_reused_and_damaged_ones_run_again(copied: Path) -> None:
    expected = contents(copied / "out")
    first, second, third, fourth = (copied / "out/study/runs" / key for key in open_runs(copied / "out/study").keys[:4])
    with open(first / "timeline.parquet", "r+b") as stream:
        stream.truncate(100)
    (second / "blocks.parquet").unlink()
    manifest = third / manifests.MANIFEST
    manifest.write_text(manifest.read_text().replace('"decisions": ', '"decisions": 9'))
    (fourth / manifests.MANIFEST).unlink()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (copied / f"out/study/runs/.{first.name}.{dead.pid}").mkdir()
    (copied / f"out/study/runs/.{first.name}.{dead.pid}.old").mkdir()
    (copied / f"out/study/.study.json.{dead.pid}").write_text("half of it")
    (copied / f"out/study/runs/.{first.name}.{os.getpid()}").mkdir()  # a live process: must stay
    done = sweep(copied / "study.yaml", out=copied / "out")
    assert (done.state.reused, done.state.done) == (2, 4)
    assert list(done.state.again.values()) == [
        "timeline.parquet differs from its digest", "blocks.parquet is missing", "its manifest was altered",
        "no manifest",
    ]  # fmt: skip
    assert contents(copied / "out") == expected
    hidden = [path.name for path in (copied / "out/study").rglob(".*")]
    assert hidden == [f".{first.name}.{os.getpid()}"]


def test_a_killed_worker_costs_its_run_only(tmp_path: Path) -> None:
    file = write(tmp_path, "sweep: {cases: [{duration: 1000 h}, {}, {network.nodes: 7}, {network.nodes: 10}]}\n")
    runs = tmp_path / "out" / "study" / "runs"
    victim = load_study(file).runs[0].key
    killed: list[int] = []

    def kill(state: State) -> None:
        for folder in runs.glob(f".{victim}.*"):
            if not killed and state.done:
                killed.append(int(folder.name.rpartition(".")[2]))
                os.kill(killed[0], signal.SIGKILL)

    done = sweep(file, out=tmp_path / "out", tell=kill)
    assert done.statuses == {"failed": 1, "ok": 3}
    assert list(done.failures.values()) == ["the worker process ended by SIGKILL"]
    assert not list(runs.glob(".*"))
    frame = sim.results(tmp_path / "out" / "study")
    assert frame.status.tolist() == ["failed", "ok", "ok", "ok"]
    again = sweep(file, out=tmp_path / "out", limit_wall_s=6)
    assert again.statuses == {"missing": 1, "ok": 3}
    assert "wall-clock limit" in again.stopped
    assert not list(runs.glob(".*"))


def test_workers_stay_between_the_stages_of_a_command(tmp_path: Path) -> None:
    studies = [load_study(write(tmp_path, f"seed: {seed}\nsweep: {{cases: [{{}}]}}\n")) for seed in (1, 2)]
    with executor(1) as execute:
        seen = []
        for study in studies:
            assert run_study(study, out=tmp_path / "out", execute=execute).state.done == 1
            seen.append([child.pid for child in multiprocessing.active_children()])
    assert seen[0] == seen[1]
    assert len(seen[0]) == 1
    assert not multiprocessing.active_children()


def test_two_sweeps_into_one_folder(swept: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sim.cli", "sweep", str(swept / "study.yaml"), "--out", str(tmp_path), "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [json.loads(process.communicate(timeout=600)[0]) for process in both]
    assert [one["statuses"] for one in told] == [{"ok": 6}, {"ok": 6}]
    assert contents(tmp_path) == contents(swept / "out")


def test_an_interrupt_keeps_what_is_finished(tmp_path: Path) -> None:
    file = write(tmp_path, "sweep: {cases: [{}, {duration: 1000 h}]}\n")
    command = [sys.executable, "-m", "sim.cli", "sweep", str(file), "--out", str(tmp_path / "out")]
    # Whoever started the tests may ignore Ctrl-C (a shell's background job does), and that is inherited.
    hear = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    options = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True, "preexec_fn": hear}
    with subprocess.Popen(command, **options) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        while "ok: case 0" not in line:
            assert line
            line = process.stderr.readline()
        os.killpg(process.pid, signal.SIGINT)
        rest = process.communicate(timeout=600)[1]
    assert process.returncode == 130
    assert "go on with: pilotzone sweep" in rest
    assert "Traceback" not in rest
    runs = tmp_path / "out" / "study" / "runs"
    assert [path.name for path in runs.iterdir()] == [load_study(file).runs[0].key]


# Reading and verifying


def test_results_are_tidy_and_truncated_runs_are_never_averaged(tmp_path: Path) -> None:
    file = write(tmp_path, "sweep: {grid: {limits.max_events: [null, 10], network.nodes: [4, 7]}}\n")
    done = sweep(file, out=tmp_path / "out")
    assert done.statuses == {"ok": 2, "truncated": 2}
    frame = sim.results(tmp_path / "out" / "study")
    assert list(frame.columns[:8]) == [
        "case", "limits.max_events", "network.nodes", "replication", "seed", "status", "truncated", "key",
    ]  # fmt: skip
    assert frame.truncated.tolist() == [False, False, True, True]
    assert frame.committed_tps.notna().tolist() == [True, True, False, False]
    assert sim.results(tmp_path / "out" / "study", truncated=True).committed_tps.notna().all()
    assert frame.seed.tolist() == [replication_seed(1, 0)] * 4


def test_only_what_is_intact_is_believed_whatever_the_index_says(copied: Path) -> None:
    runs = open_runs(copied / "out" / "study")
    before = rows(runs)
    manifest = runs.folder / "runs" / runs.keys[0] / manifests.MANIFEST
    text = manifest.read_text()
    manifest.write_text(text.replace('"status": "ok"', '"status": "truncated"'))
    assert [row["status"] for row in rows(runs)] == ["damaged", *["ok"] * 5]
    manifest.write_text(text)
    (runs.folder / INDEX).unlink()
    assert rows(runs) == before


def test_parquet_files_name_their_run_and_the_index_reads_as_a_table(swept: Path) -> None:
    folder = swept / "out" / "study"
    for run in open_runs(folder).runs:
        for file in (folder / "runs" / run["key"]).glob("*.parquet"):
            metadata = pq.read_schema(file).metadata
            assert metadata[b"pilotzone.key"].decode() == run["key"], file
            assert metadata[b"pilotzone.result_schema"] == b"2"
    index = dataset(folder / INDEX).to_table().to_pandas()  # as DuckDB and others read it
    frame = sim.results(folder)
    shared = [name for name in frame.columns if name in index.columns]
    assert {"case", "protocol.name", "replication", "seed", "status", "key", "committed_tps"} <= set(shared)
    for name in shared:
        assert index[name].tolist() == frame[name].tolist() or frame[name].isna().all(), name
    timelines = dataset(folder / "runs", format="parquet", exclude_invalid_files=False, ignore_prefixes=["manifest"])
    assert {Path(one).parent.name for one in timelines.files} == set(frame.key)


def test_the_index_holds_swept_values_of_mixed_kinds_as_text(tmp_path: Path) -> None:
    text = "sweep: {cases: [{}, {limits.max_events: 1000000}, {network.latency: {model: fixed, one_way: 5 ms}}]}\n"
    sweep(write(tmp_path, text), out=tmp_path)
    index = pq.read_table(tmp_path / "study" / INDEX)
    assert index["limits.max_events"].to_pylist() == [None, 1000000, None]
    assert index["network.latency"].to_pylist() == [None, None, '{"model":"fixed","one_way":"5 ms"}']
    assert [row["status"] for row in rows(open_runs(tmp_path / "study"))] == ["ok"] * 3


def test_results_of_another_schema_are_refused(copied: Path) -> None:
    file = copied / "out" / "study" / STUDY
    file.write_text(file.read_text().replace('"study_schema": 1', '"study_schema": 99'))
    with pytest.raises(ScenarioError, match="has study schema 99, and this version reads 1"):
        sim.results(file.parent)
    before = contents(copied / "out")
    with pytest.raises(ScenarioError, match="use the version that wrote it, or sweep into another folder"):
        sweep(copied / "study.yaml", out=copied / "out")
    assert contents(copied / "out") == before
    with pytest.raises(ScenarioError, match="no such folder"):
        sim.results(copied / "nowhere")
    with pytest.raises(ScenarioError, match="holds no runs of a study; it has studies: study"):
        sim.results(copied / "out")


def test_verify_finds_what_differs(copied: Path) -> None:
    assert all(not one.differences for _, one in verify(copied / "out" / "study", sample=3))
    place = copied / "out" / "study" / "runs" / open_runs(copied / "out" / "study").keys[2]
    manifest = manifests.read(place)
    manifest["metrics"]["decisions"] += 1
    (place / manifests.MANIFEST).write_bytes(manifests.sealed(manifest))  # as if another version had run it
    found = {one.key: one.differences for _, one in verify(copied / "out" / "study")}
    assert {key for key, differences in found.items() if differences} == {place.name}
    assert found[place.name] == ("metrics decisions",)


def test_status_counts(copied: Path) -> None:
    shutil.rmtree(copied / "out" / "study" / "runs" / open_runs(copied / "out" / "study").keys[0])
    command = [sys.executable, "-m", "sim.cli", "status", str(copied / "study.yaml"), "--out", str(copied / "out")]
    told = json.loads(subprocess.run([*command, "--json"], capture_output=True, check=True, timeout=600).stdout)
    assert (told["runs"], told["done"], told["missing"], told["failed"]) == (6, 5, 1, 0)


def test_progress_bars_show_where_a_sweep_and_a_run_are(swept: Path) -> None:
    stream = io.StringIO()
    with sweep_bar(console=Console(file=stream, force_terminal=True, width=200)) as draw:
        draw(State(6, reused=1, done=2, running=2, failed=1))
    assert "done 3/6, running 2, failed 1, ETA 0:0" in stream.getvalue()
    with share_bar("one run", console=Console(file=stream, force_terminal=True, width=200)) as bar:
        bar(0.25)
    assert "one run" in stream.getvalue()
    assert " 25 %" in stream.getvalue()
    assert sweep(swept / "study.yaml", out=swept / "out", progress=True).state.reused == 6
