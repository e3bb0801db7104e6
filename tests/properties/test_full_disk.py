"""A disk that fills up during a sweep costs what did not fit, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sim
from sim.scenario import store
from sim.scenario.results import INDEX

BASE = """
duration: 2 s
network: {nodes: 4, latency: {model: fixed, one_way: 10 ms}}
protocol: {name: pbft}
workload: [{kind: backlog, bytes: 512 B}]
"""
STUDY = "base: base.yaml\nsweep: {grid: {protocol.name: [pbft, raft]}}\nreplications: 4\n"


class SmallDisk:
    """A tmpfs in a mount namespace of its own, seen through the process that holds it. Needs no privileges."""

    def __init__(self, folder: Path, size_kib: int) -> None:
        self.folder = folder
        command = ["unshare", "--user", "--map-root-user", "--mount", "sh"]
        self.holder = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.does_mount = self._say(f"mount -t tmpfs -o size={size_kib}k tmpfs '{folder}' && echo done")
        self.place = Path(f"/proc/{self.holder.pid}/root{folder}")

    def grow(self, size_kib: int) -> None:
        """Make it larger."""
        assert self._say(f"mount -o remount,size={size_kib}k '{self.folder}' && echo done")

    def _say(self, line: str) -> bool:
        assert self.holder.stdin is not None
        assert self.holder.stdout is not None
        try:
            self.holder.stdin.write(f"{line} || echo failed\n".encode())
            self.holder.stdin.flush()
        except BrokenPipeError:
            return False
        return self.holder.stdout.readline() == b"done\n"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """200 KiB: room for some of eight runs."""
    if shutil.which("unshare") is None:
        pytest.skip("mounting a small disk needs the command unshare")
    (tmp_path / "disk").mkdir()
    disk = SmallDisk(tmp_path / "disk", 200)
    try:
        if not disk.does_mount:
            pytest.skip("this system does not let its users mount a small disk")
        yield disk
    finally:
        disk.holder.kill()
        disk.holder.communicate()


def command(name: str, study: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """A command on the study."""
    words = [sys.executable, "-m", "sim.cli", name, str(study), "--out", str(out), *more]
    environment = os.environ | {"GIT_DIR": os.devnull}  # the checkout's commit may change while tests run
    return subprocess.run(words, capture_output=True, text=True, timeout=600, env=environment)


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a study but its index, which notes times."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != INDEX]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def test_a_disk_that_fills_up_costs_what_did_not_fit(small_disk: SmallDisk, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    study = tmp_path / "study.yaml"
    study.write_text(STUDY)
    disk = small_disk.place

    full = command("sweep", study, disk, "--json")
    told = json.loads(full.stdout)
    assert full.returncode == 5
    assert "no space left on the disk of" in told["stopped"]
    kept = told["statuses"]["ok"]
    assert 0 < kept < 8
    assert told["statuses"] == {"missing": 8 - kept, "ok": kept}
    assert json.loads(command("status", study, disk, "--json").stdout)["done"] == kept
    assert sim.results(disk / "study").status.value_counts().to_dict() == told["statuses"]
    assert not [path for path in disk.rglob(".*")]

    small_disk.grow(4000)
    again = json.loads(command("sweep", study, disk, "--resume", "--json").stdout)
    assert (again["reused"], again["done"], again["statuses"]) == (kept, 8 - kept, {"ok": 8})
    assert json.loads(command("sweep", study, tmp_path / "roomy", "--json").stdout)["statuses"] == {"ok": 8}
    assert contents(disk) == contents(tmp_path / "roomy")


def test_a_disk_that_is_full_from_the_start_is_bad_input(small_disk: SmallDisk, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    study = tmp_path / "study.yaml"
    study.write_text(STUDY)
    with pytest.raises(OSError, match="No space left"), open(small_disk.place / "filler", "wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))
    found = command("sweep", study, small_disk.place)
    assert found.returncode == 2
    where = small_disk.place / "study"
    assert found.stderr == f"{where}: cannot be written (No space left on device); choose another --out\n"
    assert [path.name for path in small_disk.place.rglob("*") if path.is_file()] == ["filler"]
    assert not list(small_disk.place.rglob(store.MANIFEST))
