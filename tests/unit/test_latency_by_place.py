"""How long clients waited, by their place and by class of transaction: by hand, and adding up to all."""

from __future__ import annotations

import pytest

from sim.scenario.run import Result, run
from tests.runs import scenario

TWO = [
    {"kind": "open", "rate": "40 tx/s", "bytes": "500 B", "name": "small"},
    {"kind": "open", "rate": "10 tx/s", "bytes": "5 kB", "name": "large"},
]


def result(**changes: object) -> Result:
    return run(scenario(None, **{"workload": TWO, "duration": "10 s", **changes}))  # type: ignore[arg-type]


def test_each_place_waits_for_its_own_way_to_the_leader_and_the_quorum_s() -> None:
    """Three voters in a line, 10 ms from one to the next; the leader stands at one end, a quorum is two.

    The middle prepares and commits as soon as it has a proposal, so the leader decides after 20 ms. The middle hears
    of a commit 20 ms after its transaction has reached the leader, 10 + 10 + 20; the far end at once with its proposal,
    since the middle's commit has come by then, 20 + 20.
    """
    delays = [[0, 10, 20], [10, 0, 10], [20, 10, 0]]
    found = result(
        network={"sites": ["HAK", "QHI", "SYX"], "latency": {"model": "explicit", "one_way_ms": delays},
                 "jitter": {"model": "none"}, "bandwidth": "unlimited"},
        protocol={"name": "pbft"}, cpu={"crypto": "none"}, workload=[TWO[1] | {"rate": "1 tx/s"}], duration="60 s",
    )  # fmt: skip
    table = found.tables["latency_by_place"]
    assert table["place"] == ["HAK", "QHI", "SYX"]
    assert table["least_ms"] == [20, 40, 40]
    assert table["mean_ms"] == pytest.approx([20, 40, 40], rel=0.05), "seldom two at once"


def test_they_add_up_to_what_all_clients_waited() -> None:
    found = result(network={"nodes": 4, "latency": {"model": "fixed", "one_way": "10 ms"}}, warm_up="2 s")
    table, all_ = found.tables["latency_by_place"], found.tables["latency_client"]
    assert {*table["class"]} == {"small", "large"}
    assert sum(table["transactions"]) == all_["transactions"].sum()
    assert min(table["least_ms"]) == pytest.approx(all_["latency_us"][0] / 1000, abs=0.001)
    assert max(table["greatest_ms"]) == pytest.approx(all_["latency_us"][-1] / 1000, abs=0.001)
    for least, mean, greatest in zip(table["least_ms"], table["mean_ms"], table["greatest_ms"], strict=True):
        assert least <= mean <= greatest
