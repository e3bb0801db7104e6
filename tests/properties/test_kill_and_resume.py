"""A sweep that is killed at any moment and resumed leaves the same files as one that was left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sim.kernel import chance
from sim.scenario import store
from sim.scenario.results import INDEX
from sim.scenario.sweep import sweep

TRIALS = 3
SEED = 20_250  # of the moments
QUICK = ["network.nodes=7"]
STUDY = """
base: base.yaml
sweep:
  grid:
    protocol.name: [pbft, raft, hotstuff]
    network.bandwidth: [10 Mbit/s, 100 Mbit/s]
replications: 2
"""
BASE = """
duration: 12 s
network:
  nodes: 4
  latency: {model: fixed, one_way: 10 ms}
  jitter: {model: proportional, up_to: 10 %}
protocol: {name: pbft}
workload: [{kind: backlog, bytes: 512 B}]
"""


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a study but its index, which notes times."""
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


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of twelve quick runs."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "base.yaml").write_text(BASE)
    (folder / "study.yaml").write_text(STUDY)
    return folder / "study.yaml"


@pytest.fixture(scope="module")
def undisturbed(study: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """What a sweep leaves if nobody kills it, and how long it takes from its first run to its last, s."""
    out = tmp_path_factory.mktemp("undisturbed")
    process = start(study, out)
    began = started(out)
    assert process.wait(timeout=600) == 0
    took = max(file.stat().st_mtime for file in out.rglob("manifest.json")) - began
    files = contents(out)
    assert sum(name.endswith("manifest.json") for name in files) == 12
    return files, took


def start(study: Path, out: Path) -> subprocess.Popen[bytes]:
    """A sweep in a process group of its own."""
    command = [sys.executable, "-m", "sim.cli", "sweep", str(study), "--out", str(out), "--quiet"]
    for override in QUICK:
        command += ["--set", override]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)


def started(out: Path) -> float:
    """When the first run begins to be written."""
    deadline = time.monotonic() + 600
    while not list(out.glob("study/runs/.*")):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return time.time()


def kill_and_resume(trial: int, study: Path, out: Path, took: float) -> tuple[dict[str, bytes], int]:
    """The files after a sweep was killed at a keyed moment and resumed, and how many runs were reused."""
    process = start(study, out)
    began = started(out)
    share = chance.draw_below(1 << 20, SEED, chance.REPLICATION, trial) / (1 << 20)
    time.sleep(max(began + share * took - time.time(), 0))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = sweep(study, out=out, workers=1, overrides=QUICK)
    assert done.statuses == {"ok": 12}
    return contents(out), done.state.reused


@pytest.mark.parametrize("trial", range(TRIALS))
def test_killed_and_resumed(
    trial: int, study: Path, undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    expected, took = undisturbed
    found, reused = kill_and_resume(trial, study, tmp_path, took)
    assert found == expected
    assert not list((tmp_path / "study" / "runs").glob(".*"))
    print(f"{reused} runs had survived")


@pytest.mark.slow
def test_killed_and_resumed_fifty_times(
    study: Path, undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    expected, took = undisturbed
    reused = set()
    for trial in range(50):
        found, count = kill_and_resume(TRIALS + trial, study, tmp_path / str(trial), took)
        assert found == expected, f"trial {trial}"
        reused.add(count)
    assert len(reused) > 3  # the moments fell before, between and after finished runs
