"""Whoever is killed leaves no process behind: idle workers of a pool see that their parent is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sim.scenario.workers import _is_alive

SCENARIO = """
duration: 10 s
network: {nodes: 7, latency: {model: fixed, one_way: 1 ms}}
protocol: {name: pbft}
workload: [{kind: backlog, bytes: 512 B}]
"""
COMMANDS = {
    "campaign": ["campaign", "--budget", "10 min", "--out", "found"],
    "compare": ["compare", "a.yaml", "b.yaml", "--replications", "100", "--out", "results"],
    "contingency": ["contingency", "a.yaml", "--kinds", "node", "--out", "results"],
    "sweep": ["sweep", "study.yaml", "--out", "results"],
}


def children(pid: int) -> set[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()
    return {int(one) for one in found}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux shows them")
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_workers_end_with_a_killed_parent(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SCENARIO)
    (tmp_path / "b.yaml").write_text(SCENARIO.replace("1 ms", "2 ms"))
    (tmp_path / "study.yaml").write_text("base: a.yaml\nsweep: {grid: {network.nodes: [4, 7]}}\nreplications: 400\n")
    parent = subprocess.Popen(
        [sys.executable, "-m", "sim.cli", *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while len(workers := children(parent.pid)) < 3:  # two workers and Python's resource tracker
            assert time.monotonic() < deadline and parent.poll() is None
            time.sleep(0.1)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 60
    while alive := [pid for pid in workers if _is_alive(pid)]:
        assert time.monotonic() < deadline, f"{alive} are still there"
        time.sleep(0.1)
