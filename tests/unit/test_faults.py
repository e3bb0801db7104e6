"""Correlated and gray faults: each does what it says, when it says, and is undone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sim.faults.disasters import Storm
from sim.faults.weibull import quantiles, weibull_ns
from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.ledger import rows as ledger
from sim.measure.metrics import collect
from sim.network.sites import DATA, read_rows
from sim.scenario.errors import ScenarioError
from sim.trace import read
from tests.runs import MS, Played, S, begin, play, scenario

ISLAND = {"sites": ["HAK", "RSC", "WEC", "QHI", "LSH", "SYX", "YPG"], "latency": {"model": "distance"}}
CLIENTS = [{"kind": "open", "rate": "50 tx/s", "sites": ["HAK"]}]


def _island(*faults: dict[str, Any], **changes: Any) -> Played:
    return begin(scenario(None, network=dict(ISLAND), faults=list(faults), **({"duration": "20 s"} | changes)))


def _down_at(played: Played) -> dict[int, list[tuple[int, int]]]:
    """Node -> when it stopped and came back, ns."""
    spans: dict[int, list[tuple[int, int]]] = {}
    for row in played.rows.tolist():
        if row[1] == ledger.EVENT_CRASHED:
            spans.setdefault(row[2], []).append((row[0], -1))
        elif row[1] == ledger.EVENT_RESTARTED:
            spans[row[2]][-1] = (spans[row[2]][-1][0], row[0])
    return spans


def _refusal(*faults: dict[str, Any], **changes: Any) -> str:
    with pytest.raises(ScenarioError) as caught:
        scenario(None, network=dict(ISLAND), faults=list(faults), **({"duration": "20 s"} | changes))
    return str(caught.value)


def test_weibull_draws_have_the_distributions_quantiles() -> None:
    """Shape 1 is exponential with the scale as its mean; 63 % return within the scale whatever the shape."""
    draws = [weibull_ns(1.0, S, None, 7, k) for k in range(20_000)]
    assert np.mean(draws) == pytest.approx(S, rel=0.02)
    for shape in (0.5, 0.7, 2.0):
        draws = [weibull_ns(shape, S, None, 7, k) for k in range(20_000)]
        assert np.mean(np.array(draws) < S) == pytest.approx(1 - np.exp(-1), abs=0.01)
    assert max(weibull_ns(0.7, S, 2 * S, 7, k) for k in range(1000)) == 2 * S
    assert list(quantiles("0.7")) == sorted(quantiles("0.7"))


def test_a_storms_defaults_are_the_rows_of_the_table() -> None:
    storm = Storm(track=("N",), hour_ns=1)
    rows = {row["quantity"]: row["value"] for row in read_rows(DATA / "storms.csv") if row["storm"] == "model"}
    shares = [float(x) for x in rows["data-centre node down: super typhoon core / flank"].split(" / ")]
    fibre = [float(x) for x in rows["access fibre cut: super typhoon core / flank"].split(" / ")]
    assert [storm.down_core, storm.down_flank] == shares
    assert [storm.cut_core, storm.cut_flank] == fibre
    duration = f"Weibull k={storm.shape} scale={storm.scale_h:g} h cap {storm.cap_h / 24:g} d urban 20 d rural"
    assert rows["outage duration"] == duration


def test_a_lost_domains_nodes_return_one_by_one() -> None:
    played = _island({"at": "1 s", "lose_domain": {"domain": "N", "repair": {"scale": "3 s", "cap": "9 s"}}})
    spans = _down_at(played.until(20 * S))
    assert set(spans) == {0, 1, 2}
    assert {span[0][0] for span in spans.values()} == {S}
    back = {span[0][1] for span in spans.values()}
    assert len(back) == 3
    assert max(back) <= 10 * S
    (report,) = played.world.faults.finish()
    assert report.ended_ns == max(back)


def test_power_is_battery_then_diesel_then_nothing() -> None:
    power = {"nodes": [0, 1, 2], "battery": "2 s", "diesel": "3 s"}
    with_diesel = _island({"at": "1 s", "for": "9 s", "lose_power": power}).until(20 * S)
    without = _island({"at": "1 s", "for": "9 s", "lose_power": power | {"diesel_starts": "0 %"}}).until(20 * S)
    short = _island({"at": "1 s", "for": "4 s", "lose_power": power}).until(20 * S)
    assert _down_at(with_diesel) == {node: [(6 * S, 10 * S)] for node in (0, 1, 2)}
    assert _down_at(without) == {node: [(3 * S, 10 * S)] for node in (0, 1, 2)}
    assert _down_at(short) == {}
    assert "fault 0 (lose_power) never took effect" in short.verdict().warnings


def test_a_storm_takes_domains_one_after_the_other() -> None:
    storm = {"track": ["N", "W"], "hour": "100 ms", "pace_h": 20, "down_core": "100 %", "cap_h": 30}
    spans = _down_at(_island({"at": "1 s", "storm": storm}).until(20 * S))
    assert {node: span[0][0] for node, span in spans.items()} == {0: S, 1: S, 2: S, 6: 3 * S}
    assert all(0 < span[0][1] - span[0][0] <= 3 * S for span in spans.values())


def test_a_storm_that_cuts_fibres_leaves_nodes_running_and_alone() -> None:
    storm = {"track": ["N"], "hour": "100 ms", "down_core": "0 %", "cut_core": "100 %", "cap_h": 30}
    played = _island({"at": "1 s", "storm": storm}, trace="messages").until(1500 * MS)
    assert _down_at(played) == {}
    cut = {pair for pair in played.world.faults.links.held if 0 in pair}
    assert len(cut) == 12
    played.until(20 * S)
    assert not played.world.faults.links.held
    (report,) = played.world.faults.finish()
    assert report.nodes == (0, 1, 2)
    assert "assumed (A)" in report.note


def test_a_cut_cable_makes_messages_take_the_way_round() -> None:
    """A ring of four, 10 ms an edge: between neighbours whose edge is cut it is 30 ms."""
    ring = {"network.topology": "ring", "trace": "messages"}
    cable = {"at": "100 ms", "for": "200 ms", "cut_cable": {"between": ["0", "1"]}}
    played = play(scenario(faults=[cable], duration="500 ms", **ring))
    pair = played.log[(played.log[:, read.SOURCE] == 0) & (played.log[:, read.DESTINATION] == 1)]
    meanwhile = (pair[:, read.SENT] > 100 * MS) & (pair[:, read.SENT] <= 300 * MS)
    takes = pair[:, read.ARRIVED] - pair[:, read.SENT]
    assert set(takes[meanwhile].tolist()) == {30 * MS}
    assert set(takes[pair[:, read.SENT] < 100 * MS].tolist()) == {10 * MS}
    assert set(takes[pair[:, read.SENT] >= 330 * MS].tolist()) == {10 * MS}


def test_of_two_cables_between_two_places_the_faster_carries_until_it_is_cut() -> None:
    """Their order in the file is of no consequence; the second cut takes the other one, and the way round is left."""
    cables = [("0", "1", 15), ("0", "1", 2), ("1", "2", 10), ("2", "0", 10)]
    cut = [{"at": at, "cut_cable": {"between": ["0", "1"]}} for at in ("100 ms", "200 ms")]
    for order in (cables, cables[::-1]):
        edges = [{"from": start, "to": to, "one_way": f"{ms} ms"} for start, to, ms in order]
        network = {"network.topology": {"edges": edges}, "network.nodes": 3, "trace": "messages"}
        played = play(scenario(3, faults=cut, duration="400 ms", **network))
        ways = {}
        for name, low, high in (("both", 0, 100), ("one", 100, 200), ("none", 210, 400)):
            played_in = played.log[(played.log[:, read.SENT] > low * MS) & (played.log[:, read.SENT] <= high * MS)]
            pair = played_in[(played_in[:, read.SOURCE] < 2) & (played_in[:, read.DESTINATION] < 2)]
            ways[name] = {int(ns) // MS for ns in pair[:, read.ARRIVED] - pair[:, read.SENT]}
        assert ways == {"both": {2}, "one": {15}, "none": {20}}


def test_two_cut_cables_part_a_ring_until_one_is_mended() -> None:
    cables = [
        {"at": "100 ms", "for": "300 ms", "cut_cable": {"between": ["0", "1"]}},
        {"at": "200 ms", "for": "500 ms", "cut_cable": {"between": ["0", "3"]}},
    ]
    played = begin(scenario(faults=cables, duration="1 s", **{"network.topology": "ring"})).until(300 * MS)
    down = {pair for pair, held in played.world.faults.links.held.items() if any(e.down for e in held.values())}
    assert down == {(0, 1), (1, 0), (0, 2), (2, 0), (0, 3), (3, 0)}
    played.until(500 * MS)
    assert not any(e.down for held in played.world.faults.links.held.values() for e in held.values())
    played.until(1 * S)
    assert not played.world.faults.links.held
    assert (
        played.world.run.engine.run_state[kernel.LATENCY].reshape(4, 4) == played.world.run.engine.settings.latency_ns
    ).all()


def test_a_slow_processor_takes_longer_and_recovers() -> None:
    slow = {"at": "1 s", "for": "1 s", "slow_node": {"nodes": [2], "cpu": 20}}
    played = begin(scenario(faults=[slow], duration="4 s", cpu={"handle": "10 us"})).until(1 * S)
    nodes = played.world.run.engine.node()
    busy = [int(nodes[2, post.THREAD_BUSY])]
    for end in (2 * S, 3 * S):
        busy.append(int(played.until(end).world.run.engine.node()[2, post.THREAD_BUSY]))
    assert (busy[2] - busy[1]) / busy[0] == pytest.approx(1, rel=0.05)
    assert (busy[1] - busy[0]) / busy[0] == pytest.approx(20, rel=0.05)


def test_a_flapping_link_is_down_in_its_periods_only() -> None:
    flap = {"at": "100 ms", "for": "250 ms", "flap_link": {"between": [0, 1], "down": "50 ms", "up": "50 ms"}}
    played = play(scenario(faults=[flap], duration="1 s", trace="messages"))
    lost = played.log[played.log[:, read.FATE] != post.FATE_DELIVERED]
    assert len(lost)
    periods = {int(t) // (50 * MS) for t in lost[:, read.SENT]} | {int(t) // (50 * MS) for t in lost[:, read.ARRIVED]}
    assert {tuple(sorted(pair)) for pair in lost[:, [read.SOURCE, read.DESTINATION]].tolist()} == {(0, 1)}
    assert {2, 4, 6} & periods
    (report,) = played.world.faults.finish()
    assert (report.note, report.ended_ns) == ("down 3 times", 350 * MS)


def test_a_run_may_have_more_link_faults_than_rows_if_not_at_one_time() -> None:
    """300 one after the other in 255 rows: each is felt, and each is counted for itself."""
    faults = [
        {"at": f"{10 * i} ms", "for": "10 ms", "degrade_link": {"between": [0, 1], "add_latency": f"{i + 1} us"}}
        for i in range(300)
    ]
    played = play(scenario(faults=faults, duration="4 s"))
    reports = played.world.faults.finish()
    felt = [report.messages for report in reports]
    assert len(felt) == 300
    assert sum(count > 0 for count in felt) > 50
    assert max(felt) < 100, "no fault has the hits of another"


@pytest.mark.parametrize(("rate", "expires_ns"), [(1.0, 2 * S), (2.0, 1 * S), (0.5, 4 * S)])
def test_a_wrong_clock_changes_when_timeouts_expire(rate: float, expires_ns: int) -> None:
    """The primary is silent from the start: each backup asks for a new view when its own two seconds are over."""
    faults: list[dict[str, Any]] = [{"at": "0 s", "crash": {"nodes": [0]}}]
    if rate != 1:
        faults.append({"at": "0 s", "skew_clock": {"nodes": [1, 2, 3], "rate": rate}})
    played = play(scenario(faults=faults, duration="6 s", trace="messages"))
    change = played.world.run.names.index("ViewChange")
    first = played.log[played.log[:, read.KIND] == change][:, read.SENT].min()
    assert first == pytest.approx(expires_ns, abs=50 * MS)


def test_a_burst_of_clients_is_submitted_on_top() -> None:
    burst = {"at": "1 s", "for": "1 s", "client_burst": {"site": "HAK", "rate": "3000 tx/s"}}
    calm, busy = (
        _island(*faults, workload=CLIENTS, duration="4 s").until(4 * S).world.run.run_state for faults in ((), (burst,))
    )
    assert int(busy[ledger.SUBMITTED]) - int(calm[ledger.SUBMITTED]) == 3000


def test_clients_stay_with_the_voter_beside_them_in_a_partition() -> None:
    """Five of seven voters, named by their numbers, go on serving the clients of one of their places."""
    parted = {"at": "1 s", "partition": {"groups": [[0, 1, 2, 3, 4]]}}
    run = _island(parted, workload=CLIENTS, duration="4 s").until(4 * S).world.run
    assert int(run.run_state[ledger.SUBMITTED]) == pytest.approx(200, rel=0.3)
    assert int(run.run_state[ledger.ACKED]) > 0.9 * int(run.run_state[ledger.SUBMITTED])
    apart = {"at": "1 s", "partition": {"groups": [[5, 6, "HAK"]]}}
    run = _island(apart, workload=CLIENTS, duration="4 s").until(4 * S).world.run
    assert int(run.run_state[ledger.ACKED]) < 0.5 * int(run.run_state[ledger.SUBMITTED])


def test_invalid_transactions_cost_their_victim_and_are_rejected() -> None:
    flood = {"at": "1 s", "for": "1 s", "invalid_flood": {"node": 3, "rate": "2000 tx/s", "bytes": "600 B"}}
    changes: dict[str, Any] = {"workload": CLIENTS, "duration": "4 s", "cpu": {"crypto": "ecdsa-p256"}}
    calm, hit = (_island(*faults, **changes).until(4 * S) for faults in ((), (flood,)))
    before, after = (played.world.run.engine.node() for played in (calm, hit))
    assert int(hit.world.run.run_state[ledger.REJECTED]) == 2000
    assert int(hit.world.run.run_state[ledger.COMMITTED]) == int(calm.world.run.run_state[ledger.COMMITTED])
    assert int(after[3, post.RX_BYTES] - before[3, post.RX_BYTES]) == 2000 * 600
    assert int(after[3, post.VERIFY_BUSY] - before[3, post.VERIFY_BUSY]) == pytest.approx(2000 * 44_500, rel=0.02)
    shown, quiet = (
        collect(one.world.run, one.monitor.blocks, one.monitor.lags, end_ns=4 * S, offered_tps=0.0)
        for one in (hit, calm)
    )
    assert shown["attack_submitted"] == 2000
    for name in ("submitted", "rejected", "pending", "offered_tps", "committed_share"):
        assert shown[name] == quiet[name], "the attack's load is not the clients'"
    verdict = hit.verdict()
    assert {verdict.outcomes[f"conservation_{what}"] for what in ("transactions", "messages", "bytes")} == {"pass"}


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"at": "1 s", "for": "5 s", "storm": {"track": ["N"], "hour": "1 s"}}, "drawn for each"),
        ({"at": "1 s", "storm": {"track": ["N", "N"], "hour": "1 s"}}, "names domain N twice"),
        ({"at": "1 s", "storm": {"track": ["C"], "hour": "1 s"}}, "holds no voter"),
        ({"at": "1 s", "cut_cable": {"between": ["HAK", "RSC"]}}, "a full mesh has no cables"),
        ({"at": "1 s", "slow_node": {"nodes": [0], "cpu": 2}}, "nothing costs processor time"),
        ({"at": "1 s", "slow_node": {"nodes": [0], "disk": 2}}, "writes cost no time"),
        ({"at": "1 s", "slow_node": {"nodes": [0]}}, "changes nothing"),
        ({"at": "1 s", "skew_clock": {"nodes": [0], "rate": 1}}, "runs right"),
        ({"at": "1 s", "flap_link": {"between": [0, 0], "down": "1 s", "up": "1 s"}}, "the same node"),
        ({"at": "1 s", "client_burst": {"site": "HAK", "rate": "9 tx/s"}}, "no clients are at this place"),
        ({"at": "1 s", "invalid_flood": {"node": 0, "rate": "9 tx/s"}}, "replace the backlog workload"),
        ({"at": "1 s", "lose_power": {"nodes": [9], "battery": "1 s"}}, "no node has this number"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused_with_its_place(fault: dict[str, Any], says: str) -> None:
    message = _refusal(fault)
    assert says in message
    assert "test.yaml:1:" in message


def test_a_cable_that_does_not_exist_is_refused() -> None:
    message = _refusal({"at": "1 s", "cut_cable": {"between": ["HAK", "SYX"]}}, **{"network.topology": "ring"})
    assert "no edge of the topology joins HAK and SYX; HAK is linked to RSC, YPG" in message
