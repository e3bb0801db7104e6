"""docs/metrics.md defines what runs report: every name, and no name that is gone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sim
from sim.measure.blocks import COLUMNS as BLOCK_COLUMNS
from sim.scenario.run import Result

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")


def section(title: str) -> list[list[str]]:
    """Cells of the table rows under a heading of the second level, header rows left out."""
    text = re.split(rf"^## {title}$", PAGE, flags=re.MULTILINE)[1]
    text = re.split(r"^## ", text, flags=re.MULTILINE)[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if "|" in line]
    return [row for row in rows if row[0].startswith("`")]


def names(title: str) -> list[str]:
    """The names that a section defines."""
    return [row[0].strip("`| ") for row in section(title)]


@pytest.fixture(scope="module")
def result() -> Result:
    return sim.run(sim.load(ROOT / "scenarios" / "quickstart.yaml", ["duration=1 s", "faults=[]"]))


def test_every_metric_is_defined_once_and_every_definition_is_a_metric(result: Result) -> None:
    defined = names("Metrics")
    assert len(defined) == len(set(defined))
    assert set(defined) == set(result.metrics)


def test_every_metric_has_a_sentence_and_a_formula() -> None:
    for row in section("Metrics"):
        assert len(row) == 3, row
        assert row[1].endswith("."), row
        assert row[2].strip("| "), row


def test_every_check_is_defined(result: Result) -> None:
    assert set(names("Checks")) == {*result.checks, "reads"}  # that one where reads are answered


def test_every_table_and_its_columns_are_described(result: Result) -> None:
    assert set(names("Tables")) == set(result.tables)
    for row in section("Tables"):
        told = set(re.findall(r"`(\w+)`", row[2]))
        name = row[0].strip("`")
        assert told == set(result.tables[name]), name
    assert set(BLOCK_COLUMNS) == set(result.tables["blocks"])
