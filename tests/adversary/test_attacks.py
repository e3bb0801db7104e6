"""Known flaws are seen, and their controls are sound: `pilotzone attacks`, in full."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.plan.attacks import FOLDER, Pair, load_attacks, play

PAIRS = [
    pytest.param(file, pair, id=f"{attack.id} {pair.name}") for file, attack in load_attacks() for pair in attack.pairs
]


@pytest.mark.parametrize(("file", "pair"), PAIRS)
def test_the_flaw_is_seen_and_the_control_is_sound(file: Path, pair: Pair) -> None:
    seen = pair.flawed.look(play(file, pair.flawed))
    assert seen.as_expected, seen.text
    if pair.control is not None:
        control = pair.control.look(play(file, pair.control))
        assert control.as_expected, control.text


def test_the_command_tells_expected_seen_and_control() -> None:
    result = CliRunner().invoke(app, ["attacks", "D3"])
    assert result.exit_code == 0, result.output
    for word in ("expected:", "seen:    livelock", "control: decides", "1 of 1 as expected"):
        assert word in result.output
    data = json.loads(CliRunner().invoke(app, ["attacks", "d3", "--json"]).output)
    assert [outcome["as_expected"] for outcome in data["outcomes"]] == [True]


def test_an_attack_that_is_not_there_is_refused() -> None:
    result = CliRunner().invoke(app, ["attacks", "D99"])
    assert result.exit_code == 2
    assert "D99: no such attack" in result.output


def test_an_unexpected_outcome_is_an_error(tmp_path: Path) -> None:
    """The control of D3 is no livelock; whoever says so is told."""
    for name in ("d3-deadlock.yaml", "d3-control.yaml"):
        (tmp_path / name).write_text((FOLDER / name).read_text())
    text = (FOLDER / "d3_ibft_lock.py").read_text()
    wrong = text.replace('"d3-deadlock.yaml", livelocks, protocol=TwoThirds', '"d3-control.yaml", livelocks')
    (tmp_path / "wrong.py").write_text(wrong)
    result = CliRunner().invoke(app, ["attacks", "--folder", str(tmp_path)])
    assert result.exit_code == 1
    assert "FAIL" in result.output
