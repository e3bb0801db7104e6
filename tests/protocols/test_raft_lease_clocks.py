"""Reads under a lease are linearizable while clocks drift within their bound, and stale beyond it; the check tells."""

from __future__ import annotations

import numpy as np
import pytest

from sim.check.clients import Reads
from sim.ledger import rows as ledger
from sim.scenario.run import Result, run
from tests.runs import begin, scenario


def leased(rate: float | None, leader: int = 0, *, reads: str = "lease") -> Result:
    """Five servers; at 4 s all clocks but the leader's run at a rate, and from 4.5 to 6.5 s the leader is cut off."""
    others = [node for node in range(5) if node != leader]
    faults = [{"at": "4500 ms", "for": "2 s", "partition": {"groups": [[leader]]}}]
    if rate is not None:
        faults.append({"at": "4 s", "skew_clock": {"nodes": others, "rate": rate}})
    protocol = {
        "name": "raft",
        "reads": reads,
        "check_quorum": True,
        "read_interval": "2 ms",
        "heartbeat_interval": "50 ms",
    }
    chosen = scenario(
        5, protocol=protocol, duration="8 s", faults=faults, workload=[{"kind": "open", "rate": "200 tx/s"}]
    )
    return run(chosen)


@pytest.fixture(scope="module")
def leader() -> int:
    """Who leads before the clocks go wrong."""
    chosen = scenario(
        5,
        protocol={
            "name": "raft",
            "reads": "lease",
            "check_quorum": True,
            "read_interval": "2 ms",
            "heartbeat_interval": "50 ms",
        },
        duration="8 s",
        workload=[{"kind": "open", "rate": "200 tx/s"}],
    )
    return begin(chosen).until(4_000_000_000).events(ledger.EVENT_PROPOSED)[-1].node


@pytest.mark.parametrize("rate", [None, 1.001])
def test_leases_are_safe_while_clocks_drift_little(leader: int, rate: float | None) -> None:
    result = leased(rate, leader)
    assert result.checks["reads"] == "pass"
    assert result.metrics["reads"] > 1000


def test_leases_are_unsafe_where_the_others_clocks_run_four_times_as_fast(leader: int) -> None:
    result = leased(4.0, leader)
    stale = [violation for violation in result.violations if violation.check == "reads"]
    assert result.status == "safety violation"
    assert {violation.node for violation in stale} == {leader}


def test_reads_after_a_round_of_heartbeats_are_safe_whatever_the_clocks(leader: int) -> None:
    assert leased(4.0, leader, reads="read_index").checks["reads"] == "pass"


def rows_of(*events: tuple[int, int, int, int, int]) -> np.ndarray:
    """Trace rows of (time, event, node, a, b)."""
    return np.array([[*event, 0, 0, 0] for event in events], dtype=np.int64)


def test_a_read_must_know_what_was_decided_before_it_was_asked_and_no_more() -> None:
    fold = Reads(corrupted=[3])
    fold(rows_of((100, ledger.EVENT_DECIDED, 0, 7, 5), (200, ledger.EVENT_DECIDED, 3, 8, 9)))
    fold(rows_of((300, ledger.EVENT_READ, 1, 50, 5)))  # asked at 250: 5 was decided at 100; 9 by a liar
    fold(rows_of((300, ledger.EVENT_READ, 1, 200, 4)))  # asked at 100: not before 5 was decided
    assert fold.violations == []
    fold(rows_of((310, ledger.EVENT_READ, 2, 50, 4)))  # asked at 260, after 5 was decided, and after it was read
    assert [violation.node for violation in fold.violations] == [2]
    fold(rows_of((400, ledger.EVENT_READ, 3, 1, 0)))  # a liar's own
    assert len(fold.violations) == 1


def test_a_read_must_not_go_back_behind_an_earlier_answer() -> None:
    fold = Reads()
    fold(rows_of((100, ledger.EVENT_READ, 0, 10, 6), (120, ledger.EVENT_READ, 1, 10, 5)))
    assert len(fold.violations) == 1
