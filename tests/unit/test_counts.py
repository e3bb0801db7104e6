"""Counts of a run against its raw trace: proposals that were made, and rounds that were left."""

from __future__ import annotations

from collections import Counter

import pytest

from sim.ledger import rows as r
from sim.measure.metrics import collect
from sim.protocols import PROTOCOLS
from tests.runs import play, scenario

SLOW_LOAD = [{"kind": "open", "rate": "20 tx/s", "bytes": "100 B"}]


@pytest.mark.parametrize("lane", [True, False], ids=["fast path", "handlers"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_without_faults_no_proposal_is_lost_and_none_is_made_twice(protocol: str, lane: bool) -> None:
    """Nobody has proposed a block that was given back because nothing waited after all."""
    duration = "2 min" if PROTOCOLS[protocol].protocol.forks else "10 s"  # these are final by depth, after minutes
    run = play(scenario(4, protocol=protocol, duration=duration, workload=SLOW_LOAD), lane=lane)
    assert len(run.decided()) > 0
    proposals = run.events(r.EVENT_PROPOSED)
    places = Counter((int(row[2]), int(row[4]), int(row[5])) for row in proposals)  # by whom, height, view
    if protocol != "kauri":  # whose root has several blocks of a view under way
        assert max(places.values()) == 1
    assert metrics(run)["stale_blocks"] == 0


@pytest.mark.parametrize("protocol", ["ibft", "qbft", "tendermint"])
def test_rounds_are_counted_at_each_height(protocol: str) -> None:
    """One of four is down, and its every turn costs a round."""
    patience = "timeout_propose" if protocol == "tendermint" else "round_timeout"
    run = play(
        scenario(
            4,
            duration="60 s",
            protocol={"name": protocol, patience: "500 ms"},
            faults=[{"at": "0 s", "crash": {"nodes": [3]}}],
        )
    )
    late = sum(int(row[5]) > 0 for row in run.events(r.EVENT_PROPOSED) if int(row[3]) in run.decided_blocks(0).values())
    changes = metrics(run)["view_changes"]
    assert late > 20
    assert late <= changes <= late + 1  # the last round may have decided nothing yet


@pytest.mark.parametrize("protocol", ["pbft", "raft"])
def test_views_that_go_on_over_heights_are_counted_once(protocol: str) -> None:
    faults = [{"at": "1 s", "crash": {"nodes": [0]}}] if protocol == "pbft" else []
    run = play(scenario(4, duration="10 s", protocol=protocol, faults=faults))
    views = {int(row[3]) for row in run.events(r.EVENT_VIEW)}
    assert metrics(run)["view_changes"] == len(views) - 1 == (1 if faults else 0)


def metrics(run):  # type: ignore[no-untyped-def]
    """The metrics of a played run."""
    judge = run.judge
    return collect(run.world.run, judge.blocks, judge.lags, end_ns=run.now_ns, offered_tps=0.0)
