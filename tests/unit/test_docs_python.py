"""The Python on the guides' pages runs as it stands, in a folder that holds nothing but the scenarios."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.main import get_command

import sim
from sim.cli import app
from sim.measure.statistics import Interval, t_interval

ROOT = Path(__file__).resolve().parents[2]


def blocks(page: str) -> list[str]:
    """The Python blocks of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(block: str) -> dict[str, Any]:
    """The names that a block leaves behind; its last line is an expression or a statement."""
    names: dict[str, Any] = {}
    exec(compile(block, "page", "exec"), names)
    return names


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scenarios").symlink_to(ROOT / "scenarios")
    monkeypatch.chdir(tmp_path)


def test_each_thing_takes_five_lines_of_python() -> None:
    one, many, two, bar = blocks("docs/guides/python.md")
    for block in (one, many, two, bar):
        assert len([line for line in block.splitlines() if line and "import" not in line]) <= 5
    assert run(one)["result"].status == "ok"
    frame = run(many)["frame"]
    assert (len(frame), set(frame.status)) == (30, {"ok"})
    means = frame.groupby(["workload.0.tier", "workload.0.level"]).latency_p99_ms.apply(t_interval)
    assert all(isinstance(interval, Interval) for interval in means)
    found = run(two)["found"]
    assert all(isinstance(table, pd.DataFrame) for table in (found.differences(), found.summary(), found.runs()))
    assert any("island-7-raft's p99" in line for line in found.verdict())
    run(bar)


def test_the_page_names_the_commands_that_are_functions() -> None:
    """Each that it names is a command and a function; no other command is one."""
    sentence = (ROOT / "docs/guides/python.md").read_text(encoding="utf-8").split(" are functions of")[0]
    commands = {command.name for command in get_command(app).commands.values()}  # type: ignore[attr-defined]
    assert set(re.findall(r"`(\w+)`", sentence)) == commands & set(sim.__all__)


def test_every_table_is_a_frame() -> None:
    result = sim.run(sim.load("scenarios/quickstart.yaml", ["duration=10 s", "faults=[]"]))
    for name, columns in result.tables.items():
        assert list(result.table(name).columns) == list(columns)
    with pytest.raises(KeyError, match="no table 'blok'; there are blocks"):
        result.table("blok")


def test_the_first_example_of_all_runs() -> None:
    (block,) = blocks("README.md")
    assert run(block)["result"].status == "ok"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["plan", "studies", "read-a-result"])
def test_longer_examples_run(page: str) -> None:
    for block in blocks(f"docs/guides/{page}.md"):
        run(block)
