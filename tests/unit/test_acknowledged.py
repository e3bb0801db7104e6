"""What clients were told survives: the fold against histories that a person can read, and in runs."""

from __future__ import annotations

import numpy as np
import pytest

from sim.check.clients import Acknowledged
from sim.ledger import rows as ledger
from sim.protocols import PROTOCOLS
from tests.runs import play, scenario

DECIDED, TOLD, REVERTED = ledger.EVENT_DECIDED, ledger.EVENT_TOLD, ledger.EVENT_REVERTED
CLIENT = 9  # an endpoint beyond the voters
LOAD = [{"kind": "open", "rate": "40 tx/s", "bytes": "200 B"}]


def fold_of(*chunks: list[tuple[int, int, int, int, int]], corrupted: tuple[int, ...] = ()) -> list[str]:
    """Evidence found in chunks of rows (time, event, node, block, height)."""
    fold = Acknowledged(4, corrupted)
    for chunk in chunks:
        rows = np.zeros((len(chunk), ledger.TRACE_WIDTH), dtype=np.int64)
        rows[:, :5] = chunk
        fold(rows)
    return [violation.evidence for violation in fold.violations]


GOOD = [(10, DECIDED, 0, 1, 1), (11, DECIDED, 1, 1, 1), (12, TOLD, CLIENT, 1, 1), (13, DECIDED, 2, 1, 1)]


def test_a_sound_history_is_sound_however_it_is_cut() -> None:
    assert fold_of(GOOD) == []
    assert fold_of(*[[row] for row in GOOD]) == []


def test_a_block_told_before_a_correct_replica_decided_it() -> None:
    assert "no correct replica had decided" in fold_of([(12, TOLD, CLIENT, 1, 1), (13, DECIDED, 0, 1, 1)])[0]
    assert "no correct replica had decided" in fold_of([(12, TOLD, CLIENT, 1, 1)], [(13, DECIDED, 0, 1, 1)])[0]
    assert "no correct replica had decided" in fold_of(GOOD, corrupted=(0, 1))[0], "only liars had"
    assert fold_of(GOOD, corrupted=(0,)) == []


@pytest.mark.parametrize("together", [True, False])
def test_another_block_decided_at_a_height_that_clients_know(together: bool) -> None:
    later = [(20, DECIDED, 3, 2, 1)]
    found = fold_of([*GOOD, *later]) if together else fold_of(GOOD, later)
    assert found == [
        "clients knew block 1 as final at height 1 since 0.000000 s; replica 3 decided another block, 2, there"
    ]
    assert fold_of(GOOD, later, corrupted=(3,)) == []


@pytest.mark.parametrize("together", [True, False])
def test_a_block_that_clients_know_is_given_up(together: bool) -> None:
    later = [(20, REVERTED, 2, 1, 1)]
    found = fold_of([*GOOD, *later]) if together else fold_of(GOOD, later)
    assert [text.rpartition("; ")[2] for text in found] == ["replica 2 gave it up"]
    assert fold_of(GOOD, [(20, REVERTED, 2, 5, 1)]) == [], "another block was given up"
    assert fold_of(GOOD, later, corrupted=(2,)) == []


def test_clients_are_told_of_two_blocks() -> None:
    two = [(10, DECIDED, 0, 1, 1), (10, DECIDED, 1, 2, 1), (12, TOLD, CLIENT, 1, 1), (12, TOLD, CLIENT, 2, 1)]
    assert any("of block 1 and of block 2 at height 1" in text for text in fold_of(two))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_runs_keep_what_they_acknowledged(protocol: str) -> None:
    faults = [{"at": at, "for": "500 ms", "crash": {"nodes": [node]}} for at, node in (("1 s", 0), ("3 s", 2))]
    duration = "30 s" if protocol in ("clique", "aura") else "8 s"  # final by depth
    run = play(scenario(4, protocol=protocol, duration=duration, workload=LOAD, faults=faults))
    assert run.monitor.acknowledged.count == len(run.events(TOLD)) > 0
    assert run.verdict().outcomes["acknowledged"] == "pass"


def test_a_divided_network_breaks_its_word() -> None:
    """Two twins of four: each side tells its clients of other blocks."""
    twins = [{"nodes": [0, 1], "behaviour": "twin", "groups": [[2], [3]]}]
    apart = [{"at": "0 s", "cut_link": {"between": [2, 3]}}]
    run = play(scenario(4, protocol="qbft", duration="6 s", workload=LOAD, corrupted=twins, faults=apart))
    assert run.verdict().outcomes["acknowledged"] == "fail"


def test_a_backlog_has_no_clients() -> None:
    assert "acknowledged" not in play(scenario(4)).verdict().outcomes
