"""The numbers in docs/kernel.md are those of both engines."""

from __future__ import annotations

from pathlib import Path

from tests.oracle.script import Script, perform
from tests.oracle.world import ALL, Kind, Network

PAGE = Path(__file__).parents[2] / "docs" / "kernel.md"


def _table(first: str) -> list[list[str]]:
    """The rows of the table whose header begins with this word."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |")) + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_the_worked_example() -> None:
    p = {name: int(value) for name, value in _table("parameter")}
    rates = (p["bandwidth_ps_per_byte"],) * 3
    network = Network(3, ((p["latency_ns"],),), (0,) * 3, rates, rates, (1024,) * 3)
    kind = Kind(0, p["size_bytes"], p["sign_ns"], p["verify_ns"], p["handle_ns"])
    actions = ((0, ("message", 0, ALL, 0)), (1_020_000, ("message", 2, ALL, 0)))
    written = [tuple(int(cell) for cell in row) for row in _table("from")]
    for story in perform(Script(network, (kind,), actions=actions)):
        assert [(c[1], c[2], *c[4:8]) for c in story.copies] == written


def test_the_page_is_short() -> None:
    assert len(PAGE.read_text(encoding="utf-8").splitlines()) <= 120
