"""Scenario files that somebody, or something, has garbled: read, or refused in words; never a traceback."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sim.scenario.errors import ScenarioError
from sim.scenario.load import load_scenario

ROOT = Path(__file__).parents[2] / "scenarios"
TEXTS = [
    (ROOT / name).read_text()
    for name in ("quickstart.yaml", "faults/flapping.yaml", "protocols/qbft/membership.yaml")
    if "extends" not in (ROOT / name).read_text()
]
PIECES = (
    "null", "~", "[]", "{}", "-1", "0", "1e400", "9" * 40, "nan", ".inf", "'", '"', "&a", "*a", "!!python/object:os",
    "? ", ": ", "- ", "\t", "\x00", "\ufeff", "é", "<<", "|", ">", "%", "@", "`", "#", "10 ms", "1e999 ms", "=1",
)  # fmt: skip


def garbled(seed: int) -> str:
    """A scenario with one to four changes: a character, a line or a word lost, doubled, moved or replaced."""
    chance = random.Random(seed)
    text = chance.choice(TEXTS)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(text))
        to = min(len(text), at + chance.choice((1, 1, 3, 10, 40)))
        kind = chance.randrange(5)
        if kind == 0:
            text = text[:at] + text[to:]
        elif kind == 1:
            text = text[:at] + text[at:to] * 2 + text[to:]
        elif kind == 2:
            text = text[:at] + chance.choice(PIECES) + text[at:]
        elif kind == 3:
            text = text[:at] + chance.choice(PIECES) + text[to:]
        else:
            lines = text.splitlines(keepends=True)
            i, j = chance.randrange(len(lines)), chance.randrange(len(lines))
            lines[i], lines[j] = lines[j], lines[i]
            text = "".join(lines)
    return text


def attempt(folder: Path, seeds: range) -> int:
    """How many of these were refused; anything but a scenario or a refusal fails."""
    refused = 0
    file = folder / "garbled.yaml"
    for seed in seeds:
        file.write_text(garbled(seed), encoding="utf-8")
        try:
            load_scenario(file)
        except ScenarioError as error:
            refused += 1
            assert str(error), seed
    return refused


@pytest.mark.parametrize("first", [0, 150])
def test_garbled_files_are_read_or_refused(tmp_path: Path, first: int) -> None:
    assert attempt(tmp_path, range(first, first + 150)) > 50


@pytest.mark.slow
def test_many_garbled_files_are_read_or_refused(tmp_path: Path) -> None:
    assert attempt(tmp_path, range(10_000)) > 3_000
