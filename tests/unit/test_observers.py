"""Observers and nodes that catch up: lag laws, sizes, sources that fail, and what the backlog costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.observers.messages import MESSAGES, Item, SyncHeaders
from sim.observers.source import Source
from sim.protocol import Signing
from sim.protocols import PROTOCOLS
from sim.scenario.errors import ScenarioError
from sim.scenario.load import load_scenario
from sim.scenario.run import run
from tests.runs import MS, Played, S, play, scenario, unsafe

SLOW = {"block.interval": "50 ms"}
FIXED = {"model": "fixed", "one_way": "10 ms"}


def lags_ns(played: Played, seat: int) -> np.ndarray:
    """Time from the first decision by a voter to this seat's, per block in order of height."""
    first: dict[int, int] = {}
    for row in played.decided():
        if row.node < 4:
            first.setdefault(row.height, row.time_ns)
    return np.array([row.time_ns - first[row.height] for row in played.decided(seat)])


# --- laws --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROTOCOLS)
def test_push_lags_one_delay_behind_its_voter(name: str) -> None:
    """Equal delays, no queues: decided at the source + one delay, whatever the protocol."""
    length = "60 s" if PROTOCOLS[name].protocol.forks else "5 s"  # proof of authority: a block every few seconds
    played = play(scenario(4, protocol=name, duration=length, observers=[{"name": "o", "source": 0}], **SLOW))
    at_source = {row.height: row.time_ns for row in played.decided(0)}
    mine = played.decided(4)
    assert len(mine) >= sum(time_ns <= played.now_ns - 10 * MS for time_ns in at_source.values()) > 0
    followed = mine[mine.time_ns > 21 * MS]  # what was decided before it had asked comes with the answer
    assert {row.time_ns - at_source[row.height] for row in followed} == {10 * MS}
    assert unsafe(played) == []


def test_pull_lags_uniformly_within_the_interval() -> None:
    """Blocks come evenly: the wait for the next question is uniform in the interval, then three delays for a body."""
    observers = [{"name": "o", "mode": "pull", "interval": "997 ms", "source": 0}]
    played = play(scenario(4, duration="60 s", observers=observers, **SLOW))
    lags = np.sort(lags_ns(played, 4)) / 1e6
    assert len(lags) > 900
    expected = 40 - 10 + 997 * (np.arange(len(lags)) + 0.5) / len(lags)
    assert np.abs(lags - expected).max() < 60  # the blocks' own spacing blurs it
    assert played.monitor.lags.quantile_blocks("max") == pytest.approx(20, abs=2)


def test_rules_can_name_observers_and_what_they_are_sent() -> None:
    """All that goes to it takes 10 ms more, from the moment it has asked; a name of no observer is refused."""
    late = {"dst": ["bank"], "types": ["SyncHeaders", "SyncBodies"], "delay_by": "10 ms"}
    played = play(scenario(4, duration="2 s", observers=[{"name": "bank", "source": 0}], rules=[late], **SLOW))
    assert set(lags_ns(played, 4)[2:].tolist()) == {20 * MS}
    with pytest.raises(ScenarioError, match="no observer has this name"):
        scenario(4, observers=[{"name": "bank"}], rules=[{"dst": ["bnk"], "drop": True}])


def test_headers_only_moves_no_bodies() -> None:
    whole = play(scenario(4, duration="5 s", observers=[{"name": "o"}], **SLOW))
    thin = play(scenario(4, duration="5 s", observers=[{"name": "o", "headers_only": True}], **SLOW))
    assert whole.sent("SyncBodies") > 50
    assert thin.sent("SyncBodies") == thin.sent("SyncWanted") == 0
    assert len(thin.decided(4)) == len(whole.decided(4))


def test_a_headers_size_follows_from_the_quorum_and_the_signatures() -> None:
    headers = SyncHeaders(9, (), 3, True)
    assert headers.size_bytes(Signing(4)) == 48
    two = SyncHeaders(9, (Item(0, 1, 1, 500), Item(1, 2, 2, 500)), 3, True)
    assert two.size_bytes(Signing(4, 64)) == 48 + 2 * (256 + 3 * 66)
    assert two.size_bytes(Signing(4, 48, "aggregate")) == 48 + 2 * (256 + 49)
    assert two.certificates() == (3, 3)
    assert play(scenario(4, duration="1 ms")).world.run.deciding_quorum() == 3
    assert play(scenario(4, protocol="raft", duration="1 ms")).world.run.deciding_quorum() == 1


def test_observers_change_no_protocol_message_and_no_decision() -> None:
    alone = play(scenario(4, duration="3 s"))
    followed = play(scenario(4, duration="3 s", observers=[{"name": "o", "count": 3}]))
    for name in ("PrePrepare", "PREPARE", "COMMIT"):
        assert alone.sent(name) == followed.sent(name)
    assert [alone.decided_blocks(node) for node in range(4)] == [followed.decided_blocks(node) for node in range(4)]
    assert alone.sent() == followed.sent()  # theirs is housekeeping


def test_an_observed_run_is_repeatable_and_conserves_everything() -> None:
    chosen = scenario(
        4, duration="5 s", observers=[{"name": "a"}, {"name": "b", "mode": "pull", "bandwidth": "50 Mbit/s"}],
        faults=[{"at": "1 s", "for": "1 s", "crash": {"nodes": ["a", 1]}}],
        **{"network.bandwidth": "1 Gbit/s", "network.loss": "1 %"},
    )  # fmt: skip
    first, second = run(chosen), run(chosen)
    assert first.digest == second.digest
    assert first.status == "ok"
    assert {first.checks[name] for name in ("agreement", "order", "conservation_messages", "conservation_bytes")} == {
        "pass"
    }


# --- what fails --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["push", "pull"])
def test_an_observer_leaves_a_dead_source_for_the_next_nearest(mode: str) -> None:
    """Voter 3 is its source and stops: after one to three timeouts the observer has everything from voter 0."""
    observers = [{"name": "o", "mode": mode, "source": 3, "timeout": "500 ms"}]
    faults = [{"at": "2 s", "crash": {"nodes": [3]}}]
    result = run(scenario(4, duration="10 s", observers=observers, faults=faults, **SLOW))
    table = result.tables["observers"]
    assert (table["source"], table["switches"]) == ([0], [1])
    assert table["behind_blocks"][0] <= (1 if mode == "push" else 22)
    assert 500 < result.metrics["observer_lag_max_ms"] < 1500 + (100 if mode == "push" else 1200)


@pytest.mark.parametrize("mode", ["push", "pull"])
def test_an_observer_leaves_a_source_that_is_behind(mode: str) -> None:
    """Its source answers, and is cut off from the other voters: another one is further."""
    observers = [{"name": "o", "mode": mode, "source": 3, "timeout": "500 ms", "interval": "100 ms"}]
    observers = [{key: value for key, value in observers[0].items() if mode == "pull" or key != "interval"}]
    faults = [{"at": "2 s", "cut_link": {"between": [other, 3]}} for other in range(3)]
    result = run(scenario(4, duration="10 s", observers=observers, faults=faults, **SLOW))
    table = result.tables["observers"]
    assert (table["source"], table["switches"]) == ([0], [1])
    assert table["behind_blocks"][0] <= 2


def test_an_observer_stays_where_nobody_is_further() -> None:
    """Nothing is decided for eight seconds: it asks others, and keeps its source."""
    faults = [{"at": "1 s", "for": "8 s", "crash": {"nodes": [0, 1]}}]
    observers = [{"name": "o", "source": 3, "timeout": "500 ms"}]
    result = run(scenario(4, duration="10 s", observers=observers, faults=faults, **SLOW))
    assert (result.tables["observers"]["source"], result.tables["observers"]["switches"]) == ([3], [0])


def test_an_observer_that_was_down_fetches_what_it_missed() -> None:
    faults = [{"at": "1 s", "for": "4 s", "crash": {"nodes": ["o"]}}]
    played = play(scenario(4, duration="6 s", observers=[{"name": "o"}], faults=faults, **SLOW))
    heights = [row.height for row in played.decided(4)]
    assert heights == list(range(1, len(heights) + 1))
    assert heights[-1] >= played.monitor.lags.top - 1
    assert unsafe(played) == []


# --- what leaves, and how the ledger grows --------------------------------------------------------------------


def _pilot(**changes: Any) -> Any:
    network = {"sites": ["HAK", "QHI", "SYX", "YPG"], "latency": {"model": "distance", "quality": "mid"}}
    return scenario(None, network=network, **changes)


def test_bytes_that_leave_the_mainland() -> None:
    """To Beijing nothing leaves; to Hong Kong what its observer receives, for requests go the other way."""
    at_home = run(_pilot(observers=[{"name": "o", "site": "PEK"}], **SLOW))
    abroad = run(_pilot(observers=[{"name": "o", "site": "HKG"}], duration="2 s", **SLOW))
    assert at_home.metrics["exported_bytes"] is None
    received = abroad.tables["observers"]["bytes_received"][0]
    assert 0 <= abroad.metrics["exported_bytes"] - received <= 2 * 512_000 + 1000  # what is on its way at the end
    headers = run(_pilot(observers=[{"name": "o", "site": "HKG", "headers_only": True}], **SLOW))
    assert 0 < headers.metrics["exported_bytes"] < 30 * 1000


def test_nineteen_transactions_a_second_of_a_kilobyte_are_0_6_tb_a_year() -> None:
    load = [{"kind": "open", "rate": "19 tx/s", "bytes": "1 kB"}]
    result = run(scenario(4, duration="300 s", workload=load, **{"block.interval": "1 s"}))
    assert result.metrics["ledger_growth_tb_per_year"] == pytest.approx(0.6, rel=0.03)
    assert result.metrics["ledger_growth_gb_per_day"] == pytest.approx(
        result.metrics["ledger_growth_tb_per_year"] * 1000 / 365
    )


# --- catching up --------------------------------------------------------------------------------------------


def test_catching_up_takes_bytes_over_what_growth_leaves_of_the_bandwidth() -> None:
    """T = B / (w - g): 2000 blocks of 100 kB through 100 Mbit/s, of which new blocks take a part."""
    entry = {"node": "o", "blocks": 2000, "block_interval": "1 s", "rate": "100 tx/s", "bytes": "1 kB"}
    chosen = scenario(
        4, duration="40 s", observers=[{"name": "o", "bandwidth": "100 Mbit/s"}], catch_up=[entry],
        **{"block.interval": "200 ms"},
    )  # fmt: skip
    result = run(chosen)
    backlog_bytes = result.tables["catch_up"]["bytes"][0]
    assert backlog_bytes == 2000 * (100_000 + 256 + 3 * 2)  # no signatures here, but who signed
    line = 100e6 / 8
    growth = result.metrics["ledger_growth_gb_per_day"] * 1e9 / 86_400
    assert growth > 0.15 * line
    assert result.metrics["catch_up_s"] == pytest.approx(backlog_bytes / (line - growth), rel=0.03)
    assert result.metrics["catch_up_s"] > backlog_bytes / line
    assert result.tables["catch_up"]["headers_s"][0] < 0.02 * result.metrics["catch_up_s"]  # headers come first


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_voter_takes_part_once_it_has_caught_up(name: str) -> None:
    """Voter 3 was away. When it is back, voter 1 stops, and three of four go on with it.

    Chained HotStuff, whose leaders take turns, does not go on with three of four whoever is missing.
    """
    entry = {"node": 3, "blocks": 100, "block_interval": "1 s", "rate": "100 tx/s", "bytes": "1 kB"}
    alone = name != "hotstuff"
    chosen = scenario(
        4, protocol=name, duration="90 s", catch_up=[entry], liveness_bound="45 s",
        faults=[{"at": "40 s", "crash": {"nodes": [1]}}] if alone else [],
        **{"network.bandwidth": "100 Mbit/s", "block.interval": "1 s", "block.max_transactions": 10},
    )  # fmt: skip
    result = run(chosen)
    assert result.status == "ok", (result.violations, result.warnings)
    assert 0.8 < result.metrics["catch_up_s"] < 20
    blocks = result.tables["blocks"]
    late = blocks["first_ns"] > 60 * S
    assert late.any()
    assert blocks["decides"][late][0] == (3 if alone else 4)


def test_a_backlog_of_headers_only() -> None:
    entry = {"node": "o", "away": "8 h", "block_interval": "1 s", "rate": "19 tx/s"}
    observers = [{"name": "o", "headers_only": True, "bandwidth": "10 Mbit/s"}]
    result = run(scenario(4, duration="30 s", observers=observers, catch_up=[entry], **{"block.interval": "1 s"}))
    table = result.tables["catch_up"]
    assert table["blocks"] == [28_800]
    assert table["bytes"] == [28_800 * (256 + 3 * 2)]
    assert result.metrics["catch_up_s"] == pytest.approx(table["bytes"][0] * 8 / 10e6, rel=0.02)


# --- what a file may say ------------------------------------------------------------------------------------


def test_no_protocol_has_a_message_of_these_names() -> None:
    names = {message.__name__ for message in MESSAGES}
    for entry in PROTOCOLS.values():
        assert names.isdisjoint((*entry.content_names, *entry.vote_names))


@pytest.mark.parametrize(
    ("lines", "where", "says"),
    [
        (["observers:", "  - {name: Nobody}"], ":2:", "must begin with a small letter"),
        (["observers:", "  - {name: o}", "  - {name: o}"], ":3:", "names another observer already"),
        (["observers:", "  - {name: o, interval: 2 s}"], ":2:", "is for mode: pull"),
        (["observers:", "  - {name: o, site: PEKK}"], ":2:", "PEK"),
        (["observers:", "  - {name: o, source: 9}"], ":2:", "nodes are 0 to 6"),
        (["catch_up:", "  - {node: 3, block_interval: 1 s, rate: 1 tx/s}"], ":2:", "exactly one of away and blocks"),
        (["catch_up:", "  - {node: nobody, blocks: 3, block_interval: 1 s, rate: 1 tx/s}"], ":2:", "no voter stands"),
        (["faults:", "  - {at: 1 s, crash: {nodes: [regulatr]}}", "observers:", "  - {name: regulator}"], ":2:",
         "did you mean 'regulator'"),
    ],
)  # fmt: skip
def test_mistakes_are_answered_with_place_and_remedy(lines: list[str], where: str, says: str, tmp_path: Path) -> None:
    base = Path(__file__).parents[2] / "scenarios" / "pilot-zone" / "island-7-pbft.yaml"
    file = tmp_path / "wrong.yaml"
    file.write_text("\n".join([*lines, f"extends: {base}"]))
    with pytest.raises(ScenarioError) as caught:
        load_scenario(file)
    assert where in str(caught.value)
    assert says in str(caught.value)


def test_who_asks_for_what_all_have_gets_what_is_left_of_it() -> None:
    """An old word comes late: blocks above it were given back, and their rows are others' (campaign 70, rpbft 82)."""
    played = play(scenario(4, duration="20 s", observers=[{"name": "o", "source": 0}]))
    height = played.world.run.hosts[0].height
    assert height > 400, "rows of blocks were used several times"
    items = Source(played.world.run, 0)._above(0)
    assert [item.height for item in items] == [*range(height - len(items) + 1, height + 1)]
    assert 0 < len(items) < height / 2
