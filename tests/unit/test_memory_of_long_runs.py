"""Memory of long runs: after the first tenth it grows no more, whoever is down for ever.

What a voter that is down will have to fetch is kept in files (sim.kernel.cold); so is what checks know of every height.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOWN = "faults=[{at: 10 s, crash: {nodes: [6]}}]"
PROGRAM = """
import sys
from sim.engine import loop
from sim.scenario.build import build
from sim.scenario.monitor import RunMonitor
from sim.scenario.load import load_scenario

chosen = load_scenario(sys.argv[1], sys.argv[2:])
world = build(chosen)
monitor = RunMonitor(world)
for tenth in range(1, 11):
    world.clock.drive(world.run.advance, loop.UNTIL, chosen.duration_ns * tenth // 10)
    world.run.flush_trace()
    monitor.look()
    with open("/proc/self/statm") as file:
        print(int(file.read().split()[1]))
assert not monitor.safety.conflicts and monitor.decisions.count > 0
"""


def resident_pages(protocol: str, *sets: str) -> list[int]:
    """Pages in memory after each tenth of a run, in a process of its own."""
    command = [sys.executable, "-c", PROGRAM, str(ROOT / f"scenarios/pilot-zone/island-7-{protocol}.yaml"), *sets]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ, cwd=ROOT)
    return [int(line) for line in done.stdout.split()]


def grown(pages: list[int]) -> float:
    """By which share memory has grown since the first tenth; pages come and go: the least of the last three counts."""
    return min(pages[-3:]) / pages[0] - 1


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux what is in memory")
@pytest.mark.parametrize("protocol", ["pbft", pytest.param("raft", marks=pytest.mark.slow)])
def test_a_voter_down_for_ever_costs_no_memory(protocol: str) -> None:
    """Within 25 minutes caches still fill, which takes 2 %; a leak that was mended took 67 % in two hours."""
    assert any(grown(resident_pages(protocol, "duration=25 min", DOWN)) < 0.04 for _ in range(3))


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["pbft", "raft"])
@pytest.mark.parametrize("sets", [("duration=24 h",), ("duration=2 h", DOWN)], ids=["24 h", "2 h, one down"])
def test_long_runs_stay_flat(protocol: str, sets: tuple[str, ...]) -> None:
    assert grown(resident_pages(protocol, *sets)) < 0.02
