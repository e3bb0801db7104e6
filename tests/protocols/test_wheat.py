"""WHEAT: weights and quorums of the paper, weighted order statistics, and safety with f faults."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest

from sim.protocols.pbft import COMMIT, PREPARE
from sim.scenario.errors import ScenarioError
from tests.runs import MS, Played, S, play, scenario, unsafe

OPEN = [{"kind": "open", "rate": "80 tx/s", "bytes": "500 B"}]


def wheat(faults: int | None = None, heavy: list[int] | None = None, **more: Any) -> dict[str, Any]:
    """The protocol section of a scenario."""
    given = {"faults": faults, "heavy": heavy} | more
    return {"name": "wheat", **{key: value for key, value in given.items() if value is not None}}


def one_block(latency_ms: np.ndarray, protocol: dict[str, Any] | str, fast_path: bool = True) -> Played:
    """The first block, and nothing after it."""
    latency = {"model": "explicit", "one_way_ms": latency_ms.tolist()}
    changes: dict[str, Any] = {"network.latency": latency, "block.interval": "1 s", "duration": "900 ms"}
    return play(scenario(len(latency_ms), protocol=protocol, **changes), fast_path=fast_path)


# --- weights and quorums -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "faults", "weights", "quorum"),
    [
        (4, None, (1, 1, 1, 1), 3),  # delta 0: PBFT
        (5, None, (2, 2, 1, 1, 1), 5),  # the paper's example: Vmax 2, Qv 5
        (7, 1, (4, 4, 1, 1, 1, 1, 1), 9),
        (9, 2, (4, 4, 4, 4, 2, 2, 2, 2, 2), 18),  # Vmax 2, Vmin 1, Qv 9, times f
        (3, None, (1, 1, 1), 2),  # f = 0: a majority
    ],
)
def test_weights_are_the_papers_times_f(n: int, faults: int | None, weights: tuple[int, ...], quorum: int) -> None:
    run = play(scenario(n, protocol=wheat(faults), duration="1 ms"))
    for vote in (PREPARE, COMMIT):
        assert run.world.run.quorums[vote].weights == weights
        assert run.world.run.quorums[vote].votes == quorum


@pytest.mark.parametrize(("n", "faults"), [(4, 1), (5, 1), (6, 1), (7, 1), (7, 2), (8, 2), (9, 2), (11, 2)])
def test_two_quorums_share_a_correct_replica_and_the_others_are_enough(n: int, faults: int) -> None:
    quorum = play(scenario(n, protocol=wheat(faults), duration="1 ms")).world.run.quorums[COMMIT]
    quorums = [
        set(some) for k in range(1, n + 1) for some in itertools.combinations(range(n), k) if quorum.met_by(some)
    ]
    smallest = [some for some in quorums if not any(other < some for other in quorums)]
    assert min(len(one & two) for one in smallest for two in smallest) > faults
    assert all(quorum.met_by(set(range(n)) - {*lost}) for lost in itertools.combinations(range(n), faults))
    assert min(len(some) for some in quorums) == 2 * faults + 1


# --- laws --------------------------------------------------------------------------------------------------


def weighted_statistic(times: np.ndarray, weights: np.ndarray, quorum: int) -> np.ndarray:
    """Per column: the time by which votes cast and received at these times (row: voter) weigh a quorum."""
    order = np.argsort(times, axis=0, kind="stable")
    weight = np.cumsum(weights[order], axis=0)
    first = np.argmax(weight >= quorum, axis=0)
    return np.take_along_axis(times, order, axis=0)[first, np.arange(times.shape[1])]


def committed_ms(latency_ms: np.ndarray, weights: np.ndarray, quorum: int) -> np.ndarray:
    """DESIGN section 8 with weights: when each replica commits what replica 0 proposes at 0."""
    d = latency_ms.copy()
    np.fill_diagonal(d, 0)
    written = np.maximum(weighted_statistic(d[0][:, None] + d, weights, quorum), d[0])  # the proposal must be there
    return weighted_statistic(written[:, None] + d, weights, quorum)


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize(("n", "faults", "heavy"), [(5, 1, [1, 3]), (7, 1, [0, 6]), (7, 2, [1, 2, 3, 4]), (9, 2, None)])
def test_unequal_delays_follow_their_weighted_order_statistics(
    n: int, faults: int, heavy: list[int] | None, fast_path: bool
) -> None:
    ms = np.random.default_rng(n + faults).integers(1, 90, size=(n, n))
    run = one_block(ms, wheat(faults, heavy), fast_path)
    quorum = run.world.run.quorums[COMMIT]
    expected = committed_ms(ms, np.array(quorum.weights), quorum.votes)
    assert {node: at for (_, node), at in run.latencies_ns().items()} == {
        node: int(at) * MS for node, at in enumerate(expected)
    }


def far_and_near(near: list[int], n: int) -> np.ndarray:
    """One-way delays in ms: 5 between replicas that are near each other, 80 to and between the others."""
    ms = np.full((n, n), 80)
    ms[np.ix_(near, near)] = 5
    return ms


@pytest.mark.parametrize("near", [[2, 4, 5], [0, 3, 6]])
def test_the_fastest_are_those_near_each_other_wherever_they_stand(near: list[int]) -> None:
    """f = 1 of 7: two of three near replicas are heavy, and these three commit without any far one."""
    ms = far_and_near(near, 7)
    run = one_block(ms, {"name": "wheat", "faults": 1, "heavy": "fastest"})
    assert [run.replica(node).heavy for node in range(7)] == [tuple(near[:2])] * 7
    slow = one_block(ms, {"name": "wheat", "faults": 1, "heavy": [n for n in range(7) if n not in near][:2]})

    def first(run: Played) -> int:
        return min(at for (_, node), at in run.latencies_ns().items() if node in near)

    far = 0 if 0 in near else 75 * MS  # how much later the proposal of a far leader is there
    assert first(run) == 3 * 5 * MS + far
    assert first(slow) > first(run)


def test_three_near_replicas_commit_without_waiting_for_four_far_ones() -> None:
    """PBFT with f = 1 needs 5 of 7, so two far replicas; WHEAT two heavy ones and any third."""
    ms = far_and_near([0, 1, 2], 7)
    times = {name: one_block(ms, {"name": name, "faults": 1}).latencies_ns() for name in ("pbft", "wheat")}
    near = {name: {at for (_, node), at in found.items() if node < 3} for name, found in times.items()}
    assert near == {"pbft": {3 * 80 * MS}, "wheat": {3 * 5 * MS}}


def test_who_is_heavy_decides_whether_weights_help() -> None:
    ms = far_and_near([0, 5, 6], 7)
    first, named = (one_block(ms, wheat(1, heavy)).latencies_ns()[1, 0] for heavy in (None, [5, 6]))
    assert named == 15 * MS
    assert first > named


def test_the_leader_writes_too() -> None:
    run = play(scenario(7, protocol=wheat(1), duration="1050 ms", **{"block.interval": "100 ms"}))
    assert len({row.block for row in run.decided()}) == 11
    assert run.sent("PREPARE") == run.sent("COMMIT") == 7 * 6 * 11
    assert run.sent() == (2 * 7 + 1) * 6 * 11


# --- faults ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dead", [[0], [1], [6]])
def test_any_f_crashes_leave_a_quorum(dead: list[int]) -> None:
    """Even the heavy leader: the others elect the next with a quorum by weight."""
    faults = [{"at": "500 ms", "crash": {"nodes": dead}}]
    run = play(scenario(7, protocol=wheat(1, request_timeout="300 ms"), duration="3 s", faults=faults))
    assert max(row.time_ns for row in run.decided()) > 2.9 * S
    assert set(run.views()) == ({0, 1} if dead == [0] else {0})
    assert unsafe(run) == []


def test_both_heavy_replicas_are_too_many_to_lose() -> None:
    """Five light ones weigh 5 of the 9 needed, though as many replicas are PBFT's quorum. One back is enough."""
    faults = [{"at": "500 ms", "crash": {"nodes": [0]}}, {"at": "500 ms", "for": "2 s", "crash": {"nodes": [1]}}]
    run = play(scenario(7, protocol=wheat(1, request_timeout="300 ms"), duration="7 s", faults=faults))
    times = [row.time_ns for row in run.decided()]
    assert [at for at in times if 0.6 * S < at < 2.5 * S] == []
    assert max(times) > 6.9 * S
    assert unsafe(run) == []


@pytest.mark.parametrize("seed", range(6))
def test_replicas_agree_while_the_leader_equivocates_and_links_fail(seed: int) -> None:
    rng = random.Random(f"wheat {seed}")
    n, faults = rng.choice([(5, 1), (7, 1), (9, 2)])
    group = sorted(rng.sample(range(n), n // 2))
    run = play(
        scenario(
            n,
            protocol=wheat(faults, request_timeout="300 ms"),
            seed=seed,
            duration="6 s",
            workload=OPEN,
            corrupted=[{"nodes": [0], "behaviour": "equivocating"}],
            faults=[{"at": "500 ms", "for": "700 ms", "partition": {"groups": [group]}}],
            **{"network.jitter": {"model": "proportional", "up_to": "30 %"}},
        )
    )
    assert unsafe(run) == []
    assert max(row.time_ns for row in run.decided()) > 4 * S


# --- parameters --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heavy", [[0], [0, 0], [0, 7], [0, 1, 2]])
def test_the_heavy_are_2f_replicas_that_exist(heavy: list[int]) -> None:
    with pytest.raises(ScenarioError, match=r"must name 2f = 2 different replicas out of 0 to 6"):
        scenario(7, protocol=wheat(1, heavy))
