"""A study on a dask cluster, on this machine: the same bytes, whatever happens to a worker, and none from strangers."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import sim
from sim.scenario import store
from sim.scenario.errors import ScenarioError
from sim.scenario.results import INDEX
from sim.scenario.sweep import State, sweep, verify

BASE = """
duration: 2 s
network:
  nodes: 4
  latency: {model: fixed, one_way: 10 ms}
  jitter: {model: proportional, up_to: 10 %}
protocol: {name: pbft}
workload: [{kind: backlog, bytes: 512 B}]
"""
STUDY = """
base: base.yaml
sweep: {cases: [{duration: 3600 s}, {}, {network.nodes: 7}, {protocol.name: raft}]}
replications: 2
"""


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a study but its index, which notes times."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != INDEX]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


class Cluster:
    """A scheduler and workers on 127.0.0.1, at ports that the system chooses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stack = contextlib.ExitStack()
        words = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--idle-timeout", "900s")
        process = self._start("scheduler", *words)
        self.address = self._told(process, r"Scheduler at:\s+(tcp://\S+)")

    def worker(self, code: Path | None = None) -> tuple[str, subprocess.Popen[str]]:
        """Start a worker; its address and its process. `code`: where its version of this package lies."""
        process = self._start(
            "worker", self.address, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard",
            "--death-timeout", "900s", "--local-directory", str(self.folder), code=code,
        )  # fmt: skip
        address = self._told(process, r"Start worker at:\s+(tcp://\S+)")
        self._told(process, r"(Registered to)")
        threading.Thread(target=process.stderr.read, daemon=True).start()  # type: ignore[union-attr]
        return address, process

    def _start(self, *words: str, code: Path | None = None) -> subprocess.Popen[str]:
        root = Path(sim.__file__).parent.parent if code is None else code
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *words], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            env=os.environ | {"PYTHONPATH": str(root)}, cwd=self.folder,
        )  # fmt: skip
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        return process

    @staticmethod
    def _told(process: subprocess.Popen[str], pattern: str) -> str:
        """Read what a process logs up to a line with this in it."""
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            if match := re.search(pattern, line):
                return match[1]
            lines.append(line)
        raise AssertionError("".join(lines))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler without workers. Manifests do not name the checkout's commit: it may change meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_DIR", os.devnull)
        store.commit.cache_clear()
        folder = tmp_path / "cluster"
        folder.mkdir()
        made = Cluster(folder)
        with made.stack:
            yield made
    store.commit.cache_clear()


def test_two_workers_one_of_which_dies_leave_what_one_process_leaves(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "study.yaml").write_text(STUDY)
    workers = dict(cluster.worker() for _ in range(2))
    victim = workers[min(workers)]  # the first in line gets the first run, the longest by far
    told: list[str] = []

    def kill(state: State) -> None:
        if state.last:
            told.append(state.last)
        if state.done == 1:
            victim.kill()

    done = sweep(tmp_path / "study.yaml", out=tmp_path / "many", cluster=cluster.address, tell=kill)
    assert done.statuses == {"ok": 8}
    assert (done.state.done, done.state.failed, done.state.running) == (8, 0, 0)
    assert "its worker has gone: case 0 (duration=3600 s), replication 0" in told
    assert sweep(tmp_path / "study.yaml", out=tmp_path / "one", workers=1).statuses == {"ok": 8}
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    checked = [one for _, one in verify(tmp_path / "one" / "study", sample=3, cluster=cluster.address)]
    assert [one.differences for one in checked] == [(), (), ()]


def test_a_worker_with_other_model_code_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "study.yaml").write_text("base: base.yaml\nsweep: {cases: [{}]}\n")
    with pytest.raises(ScenarioError, match=r"no worker to run anything \(none is there\); start some of this version"):
        sweep(tmp_path / "study.yaml", out=tmp_path / "out", cluster=cluster.address)
    root = Path(sim.__file__).parent
    shutil.copytree(root, tmp_path / "other" / "sim", ignore=shutil.ignore_patterns("__pycache__"))
    with open(tmp_path / "other" / "sim" / "units.py", "a") as stream:
        stream.write("# another version\n")
    stranger, _ = cluster.worker(code=tmp_path / "other")
    refused = f"{stranger} is refused: its model code is [0-9a-f]+ .* and the client's is {store.model_digest()[:12]} "
    with pytest.raises(ScenarioError, match=refused):
        sweep(tmp_path / "study.yaml", out=tmp_path / "out", cluster=cluster.address)
    assert not (tmp_path / "out").exists()
    cluster.worker()
    told: list[str] = []
    done = sweep(
        tmp_path / "study.yaml", out=tmp_path / "out", cluster=cluster.address, tell=lambda s: told.append(s.last)
    )
    assert done.statuses == {"ok": 1}
    assert re.match(f"worker {refused}", next(filter(None, told)))


@pytest.mark.parametrize("kind", ["nobody", "a stranger"])
def test_an_address_without_a_scheduler_is_bad_input(kind: str, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "study.yaml").write_text("base: base.yaml\nsweep: {cases: [{}]}\n")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        if kind == "nobody":
            server.close()
        else:  # speaks another protocol to everyone who calls
            threading.Thread(target=_greet, args=(server,), daemon=True).start()
        command = [sys.executable, "-m", "sim.cli", "sweep", "study.yaml", "--cluster", address, "--out", "out"]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert found.returncode == 2
    assert found.stderr.startswith(f"--cluster {address}: no dask scheduler answers there (")
    assert found.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def _greet(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            server.accept()[0].sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "study.yaml").write_text("base: base.yaml\nsweep: {cases: [{}]}\n")
    for address in ("tcp:8786", "127.0.0.1:8786", "http://there:80", "tcp://there"):
        with pytest.raises(ScenarioError, match=r"must be a dask scheduler's address; write tcp://HOST:8786"):
            sweep(tmp_path / "study.yaml", out=tmp_path / "out", cluster=address)
