"""Counts of a run against its raw trace: proposals that were made, and rounds that were left."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from sim.ledger import rows as ledger
from sim.measure.metrics import collect, done_by
from sim.protocols import PROTOCOLS
from sim.scenario.errors import ScenarioError
from sim.scenario.run import run as run_scenario
from tests.runs import S, play, scenario

SLOW_LOAD = [{"kind": "open", "rate": "20 tx/s", "bytes": "100 B"}]


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast path", "handlers"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_without_faults_no_proposal_is_lost_and_none_is_made_twice(protocol: str, fast_path: bool) -> None:
    """Nobody has proposed a block that was given back because nothing waited after all."""
    duration = "2 min" if PROTOCOLS[protocol].protocol.forks else "10 s"  # these are final by depth, after minutes
    run = play(scenario(4, protocol=protocol, duration=duration, workload=SLOW_LOAD), fast_path=fast_path)
    assert len(run.decided()) > 0
    proposals = run.events(ledger.EVENT_PROPOSED)
    places = Counter((row.node, row.height, row.view) for row in proposals)  # by whom, height, view
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
    late = sum(row.view > 0 for row in run.events(ledger.EVENT_PROPOSED) if row.block in run.decided_blocks(0).values())
    changes = metrics(run)["view_changes"]
    assert late > 20
    assert late <= changes <= late + 1  # the last round may have decided nothing yet


@pytest.mark.parametrize("protocol", ["pbft", "raft"])
def test_views_that_go_on_over_heights_are_counted_once(protocol: str) -> None:
    faults = [{"at": "1 s", "crash": {"nodes": [0]}}] if protocol == "pbft" else []
    run = play(scenario(4, duration="10 s", protocol=protocol, faults=faults))
    views = {row.block for row in run.events(ledger.EVENT_VIEW)}
    assert metrics(run)["view_changes"] == len(views) - 1 == (1 if faults else 0)


@pytest.mark.parametrize(("pipeline", "bandwidth"), [(8, "100 Mbit/s"), (1, "100 Mbit/s"), (1, "1 Gbit/s")])
def test_a_card_is_used_for_what_it_sent_within_the_run(pipeline: int, bandwidth: str) -> None:
    """Against the log of all copies; with eight batches under way three times as much is queued as can be sent."""
    run = play(
        scenario(
            4,
            duration="1 s",
            trace="messages",
            protocol={"name": "pbft", "pipeline": pipeline},
            workload=[{"kind": "backlog", "bytes": "1 kB"}],
            **{"network.bandwidth": bandwidth},
        )
    )
    per_byte_ns = 80 if bandwidth == "100 Mbit/s" else 8
    sent = np.zeros(4)
    for row in run.log:
        leaves_ns, size = int(row[5]), int(row[9])
        sent[row[1]] += max(min(leaves_ns, S) - max(leaves_ns - size * per_byte_ns, 0), 0)
    logged = float(sent.max()) / S
    used = float(metrics(run)["nic_send_utilisation_max"])
    assert logged * 0.9 <= used <= 1.0  # copies that are still on their way are not in the log
    if pipeline == 8:
        assert used == pytest.approx(1.0, abs=1e-6)


def test_what_is_queued_at_the_end_is_not_done() -> None:
    """Two servers of three nodes, after 100 ns: idle, in the middle of work, and far behind with it."""
    busy_ns, free_ns = np.array([60, 150, 900]), np.array([[40, 90], [130, 100], [500, 600]])
    nobody, all_ = np.zeros(3, dtype=bool), np.ones(3, dtype=bool)
    assert done_by(100, busy_ns, free_ns, nobody).tolist() == [60, 120, 0]
    assert done_by(100, busy_ns, free_ns, all_).tolist() == [60, 150 / 1.3, 150]
    assert done_by(100, np.array([900, 900, 1200]), free_ns, nobody).tolist() == [200, 200, 200]


@pytest.mark.parametrize(("protocol", "halts"), [("pbft", True), ("raft", False)])
def test_a_pause_through_an_outage_that_is_played_short_is_as_long_as_what_it_stands_for(
    protocol: str, halts: bool
) -> None:
    """Gone for 20 s that stand for an hour: PBFT halts all the time without two of four, Raft goes on without one."""
    gone = [{"at": "5 s", "for": "20 s", "crash": {"nodes": [2, 3] if halts else [3]}}]
    played = run_scenario(scenario(4, protocol=protocol, duration="40 s", faults=gone))
    stands = run_scenario(scenario(4, protocol=protocol, duration="40 s", faults=[gone[0] | {"stands_for": "1 h"}]))
    assert stands.digest == played.digest
    before, after = (result.metrics["longest_pause_s"] for result in (played, stands))
    assert after == pytest.approx(before + (3600 - 20 if halts else 0))
    assert any("20 s stand for 1 h" in warning for warning in stands.warnings)


def test_a_view_change_within_such_an_outage_is_as_long_as_it_is() -> None:
    """The primary is gone: two seconds of patience, however long it stays away."""
    gone = {"at": "5 s", "for": "20 s", "stands_for": "74 h", "crash": {"nodes": [0]}}
    result = run_scenario(scenario(4, duration="40 s", faults=[gone]))
    assert 2 < result.metrics["longest_pause_s"] < 3


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ({"at": "1 s", "crash": {"nodes": [0]}, "stands_for": "1 h"}, "belongs to a fault that ends"),
        (
            {"at": "1 s", "for": "20 s", "crash": {"nodes": [0]}, "stands_for": "10 s"},
            "is shorter than the fault itself",
        ),
        (
            {"at": "1 s", "until": "20 s", "crash": {"nodes": [0]}, "stands_for": "18 s"},
            "is shorter than the fault itself",
        ),
    ],
)
def test_an_outage_stands_for_a_longer_one(fault: dict[str, object], rule: str) -> None:
    with pytest.raises(ScenarioError, match=rule):
        scenario(4, duration="40 s", faults=[fault])


def metrics(run):  # type: ignore[no-untyped-def]
    """The metrics of a played run."""
    monitor = run.monitor
    return collect(run.world.run, monitor.blocks, monitor.lags, end_ns=run.now_ns, offered_tps=0.0)
