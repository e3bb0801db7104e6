"""The table of docs/guides/cards.md is what runs give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sim.scenario.run import run
from tests.runs import scenario

PAGE = Path("docs/guides/cards.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.split("<!-- sharing -->")[1].split("\n\n")[1].splitlines()[2:]
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_table_is_what_runs_give(row: list[str]) -> None:
    network, *shown = row
    match = re.fullmatch(r"(\w+), (\d+) voters, (\d+ Mbit/s), (\d+) kB", network)
    assert match
    name, n, bandwidth, kilobytes = match.groups()
    whole = name == "raft"  # its entries are cut by bytes, or are one transaction
    load = [{"kind": "backlog", "bytes": "100 kB" if kilobytes == "100" else "512 B"}]
    most = 1 if kilobytes == "100" else 2000 if whole else round(int(kilobytes) * 1000 / 512)
    for sharing, expected in zip(("fifo", "fair", "priority"), shown, strict=True):
        cards = {"network.bandwidth": bandwidth, "network.sharing": sharing, "block": {"max_transactions": most}}
        result = run(scenario(int(n), protocol=name, duration="30 s", workload=load, **cards))
        interval_ms = result.metrics["block_interval_mean_ms"]
        assert expected == ("none" if interval_ms is None else f"{interval_ms:,.1f} ms")
