"""Two runs of one scenario are compared to the last event, and the first difference is found."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sim.check.determinism import first_divergence, part
from sim.cli import app
from sim.scenario.run import run
from sim.trace import read
from sim.trace.read import StoredRun, open_run
from tests.runs import scenario

SCENARIO = {
    "duration": "500 ms",
    "network": {"nodes": 4, "latency": {"model": "fixed", "one_way": "10 ms"}},
    "protocol": {"name": "pbft"},
    "workload": [{"kind": "backlog", "bytes": "512 B"}],
}
OVERRIDE = '''
import os
import time

from sim.protocol import Timer, upon
from sim.protocols.pbft import Pbft

LATER = Timer("later")


class Drawn(Pbft):
    """A PBFT whose primary makes one pause, for a time that no seed determines."""

    paused = False

    def propose(self):
        if self.paused or self.context.height < 5:
            super().propose()
        else:
            self.paused = True
            self.context.set_timer(LATER, 1 + EXPRESSION)

    @upon(LATER)
    def on_later(self, about):
        super().propose()
'''


def twice(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and output of `run --check-determinism`."""
    file = tmp_path / "small.yaml"
    file.write_text(json.dumps(SCENARIO))  # JSON is YAML
    done = CliRunner().invoke(app, ["run", str(file), "--check-determinism", "--quiet", *arguments])
    return done.exit_code, done.output


def test_a_protocol_of_ours_runs_twice_the_same(tmp_path: Path) -> None:
    code, output = twice(tmp_path)
    assert code == 0, output
    digest = run(scenario(duration="500 ms")).digest
    assert f"same digest {digest} twice" in output  # keeping all messages for the comparison changes nothing


@pytest.mark.parametrize(
    "expression",
    [
        'int.from_bytes(os.urandom(4), "big") % 9_000_000',
        "time.perf_counter_ns() % 9_000_000",
        "hash('a word') % 9_000_000",  # differs between processes with other PYTHONHASHSEED
    ],
)
def test_a_rule_that_no_seed_determines_is_found_where_it_first_shows(tmp_path: Path, expression: str) -> None:
    file = tmp_path / "drawn.py"
    file.write_text(OVERRIDE.replace("EXPRESSION", expression))
    code, output = twice(tmp_path, "--protocol-file", f"{file}:Drawn")
    assert code == 1, output
    # Five decisions of 30 ms each; the sixth block is the first thing that happens at another time.
    assert re.search(r"first divergent event: proposed at node 0, 0\.15\d+ s \(row \d+ of trace\.parquet\)", output)
    assert re.search(r"run 1: time_ns 15\d+, event proposed, node 0, block 6, height 6", output)
    assert re.search(r"run 2: time_ns 15\d+, event proposed, node 0, block 6, height 6", output)


def test_a_scenario_that_cannot_run_is_no_divergence(tmp_path: Path) -> None:
    code, output = twice(tmp_path, "--set", "nonsense=1")
    assert code == 2
    assert "nonsense: unknown key" in output


def test_streams_are_compared_whatever_their_chunks() -> None:
    rows = np.arange(20).reshape(10, 2)
    changed = rows.copy()
    changed[7, 1] = 99
    assert part(iter([rows]), iter([rows[:3], rows[3:3], rows[3:]])) is None
    assert part(iter([rows[:4], rows[4:]]), iter([changed])) == (7, [14, 15], [14, 99])
    assert part(iter([rows]), iter([rows[:6]])) == (6, [12, 13], None)
    assert part(iter([]), iter([rows])) == (0, None, [0, 1])


def test_a_message_may_be_the_first_difference(tmp_path: Path) -> None:
    def stored(name: str, **changes: Any) -> StoredRun:
        result = run(scenario(trace="messages", duration="200 ms", **changes), out=tmp_path / name)
        assert result.path is not None
        return open_run(result.path)

    first, same, other = stored("a"), stored("b"), stored("c", **{"cpu.handle": "1 us"})
    assert first_divergence(first, same) is None
    found = first_divergence(first, other)
    assert found is not None
    assert (found.table, found.index) == (read.MESSAGES_FILE, 0)
    assert found.event == "PrePrepare from node 0 delivered"
    assert found.time_ns == 10_000_000
    assert found.first is not None
    assert found.second is not None
    assert (found.first["done_ns"], found.second["done_ns"]) == (10_000_000, 10_001_000)
