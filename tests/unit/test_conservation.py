"""The checks themselves: queueing laws that a right run obeys, and violations that each check must find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sim.check import conservation
from sim.check.safety import Safety
from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.ledger import rows as ledger
from sim.scenario.run import EXIT_INTERNAL, EXIT_LIVENESS, EXIT_OK, EXIT_SAFETY, run
from tests.runs import BACKLOG, MS, Played, S, begin, play, scenario

OPEN = [{"kind": "open", "rate": "200 tx/s", "bytes": "500 B"}]


# --- queueing laws -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("outstanding", [1, 10, 100, 5000])
def test_closed_loop_littles_law(outstanding: int) -> None:
    """N = X R within 1 %: so many requests under way, each answered after R, make X answers a second."""
    load = [{"kind": "closed", "outstanding": outstanding, "bytes": "500 B"}]
    result = run(scenario(4, duration="60 s", workload=load))
    x_tps = result.metrics["acknowledged"] / 60
    r_s = result.metrics["latency_mean_ms"] / 1000
    assert x_tps * r_s == pytest.approx(outstanding, rel=0.01)


def saturated_tps(chosen: Any) -> float:
    """Throughput after the first second."""
    result = run(chosen)
    assert result.exit_code == EXIT_OK
    return float(result.metrics["committed_tps"])


@pytest.mark.parametrize("n", [4, 7, 13])
def test_a_primarys_card_saturates_at_its_bandwidth(n: int) -> None:
    """X = batch / the time the primary's card needs for a batch: n - 1 pre-prepares and n - 1 commits."""
    chosen = scenario(
        n, duration="40 s", warm_up="1 s", protocol={"name": "pbft", "pipeline": 20, "request_timeout": "10 s"},
        **{"network.latency": {"model": "fixed", "one_way": "1 ms"}, "network.bandwidth": "100 Mbit/s"},
    )  # fmt: skip
    batch_bytes = 1000 * 512 + 48
    time_s = (n - 1) * (batch_bytes + 48) * 8 / 100e6
    assert saturated_tps(chosen) == pytest.approx(1000 / time_s, rel=0.02)


def test_verification_saturates_at_the_busiest_core() -> None:
    """A backup verifies a pre-prepare, n - 2 prepares and n - 1 commits a batch; the primary 2(n - 1) votes."""
    n = 7
    chosen = scenario(
        n, duration="4 s", warm_up="1 s", cpu={"crypto": "ecdsa-p256"},
        protocol={"name": "pbft", "pipeline": 50, "request_timeout": "10 s"},
        **{"network.latency": {"model": "fixed", "one_way": "1 ms"}, "block.max_transactions": 1},
    )  # fmt: skip
    from sim.network.crypto import profiles

    time_s = 2 * (n - 1) * profiles()["ecdsa-p256"].verify_ns / 1e9
    assert saturated_tps(chosen) == pytest.approx(1 / time_s, rel=0.02)


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.8])
def test_a_link_card_queues_as_m_d_1(rho: float) -> None:
    """Poisson arrivals at one client's card, equal sizes: Wq / S = rho / (2 (1 - rho)).

    From rho = 1 / 3 on the primary's card is overloaded, so the client asks once: what it repeats is not Poisson.
    """
    service_ns = 1 * MS  # 1250 bytes at 10 Mbit/s
    load = [{"kind": "open", "rate": f"{rho * 1000} tx/s", "bytes": "1250 B", "sites": ["0"]}]
    network = {"network.latency": {"model": "fixed", "one_way": "0 ms"}, "network.bandwidth": "10 Mbit/s"}
    once = {"clients.resend_after": "0 s"}
    run_ = begin(scenario(4, duration="120 s", workload=load, **network, **once)).until(120 * S)
    card = run_.world.run.engine.node()[4]  # the gateway's
    count = card[post.TX_BUSY] / service_ns
    wait = card[post.TX_WAIT] / count
    assert count == pytest.approx(rho * 120_000, rel=0.02)
    assert wait / service_ns == pytest.approx(rho / (2 * (1 - rho)), rel=0.05)


# --- conservation finds what is missing -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def troubled() -> Played:
    """A run with loss, a crash and a partition, judged sound."""
    faults = [
        {"at": "1 s", "for": "1 s", "crash": {"nodes": [3]}},
        {"at": "3 s", "for": "1 s", "partition": {"groups": [[0], [1, 2, 3]]}},
    ]
    network = {"network.bandwidth": "100 Mbit/s", "network.loss": "1 %", "network.links": "datagram"}
    played = play(scenario(4, duration="6 s", workload=OPEN, faults=faults, **network))
    assert played.world.run.run_state[kernel.DROPPED] > 0
    assert played.world.run.run_state[ledger.REJECTED] > 0
    return played


SCALARS = {
    "submitted": (ledger.SUBMITTED, conservation.transactions),
    "committed": (ledger.COMMITTED, conservation.transactions),
    "rejected": (ledger.REJECTED, conservation.transactions),
    "expired": (ledger.EXPIRED, conservation.transactions),
    "sent": (kernel.SENT, conservation.messages),
    "delivered": (kernel.DELIVERED, conservation.messages),
    "dropped": (kernel.DROPPED, conservation.messages),
    "in flight": (kernel.IN_FLIGHT, conservation.messages),
}


@pytest.mark.parametrize("error", [-1, 1])
@pytest.mark.parametrize("name", SCALARS)
def test_one_too_many_or_too_few_is_found(troubled: Played, name: str, error: int) -> None:
    counter, check = SCALARS[name]
    engine = troubled.world.run.engine
    assert check(engine) == []
    engine.state[counter] += error
    try:
        assert len(check(engine)) == 1
    finally:
        engine.state[counter] -= error


@pytest.mark.parametrize("column", [post.TX_BUSY, post.RX_BUSY, post.TX_BYTES, post.RX_BYTES])
def test_a_card_that_was_busy_with_nothing_is_found(troubled: Played, column: int) -> None:
    engine = troubled.world.run.engine
    assert conservation.bytes_sent(engine) == []
    before = int(engine.node()[2, column])
    engine.node()[2, column] = before * 2
    try:
        (found,) = conservation.bytes_sent(engine)
        assert found.node == 2
    finally:
        engine.node()[2, column] = before


def test_a_lost_transaction_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unsound run is an internal error, whatever else it found."""
    import sim.scenario.run as runner

    honest = runner.build

    def cheating(*arguments: Any, **keywords: Any) -> Any:
        world = honest(*arguments, **keywords)
        world.run.run_state[ledger.SUBMITTED] += 1
        return world

    monkeypatch.setattr(runner, "build", cheating)
    result = run(scenario(4, duration="1 s", workload=OPEN))
    assert (result.status, result.exit_code) == ("conservation violation", EXIT_INTERNAL)
    assert result.checks["conservation_transactions"] == "fail"


# --- safety finds forks, gaps and inventions --------------------------------------------------------------------


def told(*rows: tuple[int, ...]) -> np.ndarray:
    """Trace rows: time, event, node, block, height, view."""
    return np.array([[*row, 0, 0] for row in rows], dtype=np.int64)


def proposed(*blocks: int) -> tuple[tuple[int, ...], ...]:
    """Rows by which replica 0 proposes blocks, each at the height of its number."""
    return tuple((0, ledger.EVENT_PROPOSED, 0, block, block, 0) for block in blocks)


def decided(node: int, block: int, height: int, time: int = 5) -> tuple[int, ...]:
    """A row by which a replica decides."""
    return (time, ledger.EVENT_DECIDED, node, block, height, 0)


def judged(*chunks: np.ndarray) -> dict[str, list[str]]:
    """What the fold over these chunks finds."""
    fold = Safety(4)
    for chunk in chunks:
        fold(chunk)
    found = {
        "agreement": [conflict.words() for conflict in fold.conflicts],
        "validity": [violation.evidence for violation in fold.validity],
        "order": [violation.evidence for violation in fold.order],
    }
    return {name: evidence for name, evidence in found.items() if evidence}


Cut = Callable[[np.ndarray], list[np.ndarray]]
CUTS: dict[str, Cut] = {
    "at once": lambda rows: [rows],
    "row by row": lambda rows: [rows[i : i + 1] for i in range(len(rows))],
}


@pytest.fixture(params=CUTS)
def cut(request: pytest.FixtureRequest) -> Cut:
    """The same rows must be judged the same in one chunk and in many."""
    return CUTS[request.param]


def test_a_straight_history_is_fine(cut: Cut) -> None:
    rows = told(*proposed(1, 2), decided(0, 1, 1), decided(1, 1, 1), decided(0, 2, 2), decided(1, 2, 2))
    assert judged(*cut(rows)) == {}


def test_two_blocks_at_one_height_are_a_fork(cut: Cut) -> None:
    found = judged(*cut(told(*proposed(1, 2), decided(0, 1, 1), decided(3, 2, 1))))
    assert list(found) == ["agreement"]
    assert found["agreement"] == ["height 1: replica 3 decided block 2 (view 0), replica 0 had decided block 1"]


def test_a_gap_is_out_of_order(cut: Cut) -> None:
    found = judged(*cut(told(*proposed(1, 2, 3), decided(2, 1, 1), decided(2, 3, 3))))
    assert found == {"order": ["replica 2 decided height 3 after height 1"]}


def test_a_second_decision_at_a_height_is_out_of_order(cut: Cut) -> None:
    found = judged(*cut(told(*proposed(1), decided(2, 1, 1), decided(2, 1, 1))))
    assert found == {"order": ["replica 2 decided height 1 after height 1"]}


def test_a_block_that_nobody_proposed_is_invalid(cut: Cut) -> None:
    found = judged(*cut(told(*proposed(1), decided(0, 1, 1), decided(0, 9, 2))))
    assert found == {"validity": ["replica 0 decided block 9, which nobody proposed"]}


def test_heights_and_blocks_may_be_many() -> None:
    n = 5000
    rows = told(*proposed(*range(1, n + 1)), *(decided(0, i, i) for i in range(1, n + 1)))
    assert judged(rows) == {}
    fork = judged(rows, told(*proposed(n + 1), decided(1, n + 1, 1)))
    assert list(fork) == ["agreement"]


def test_a_fork_makes_the_run_unsafe(monkeypatch: pytest.MonkeyPatch) -> None:
    import sim.scenario.run as runner

    honest = runner.build

    def forking(*arguments: Any, **keywords: Any) -> Any:
        world = honest(*arguments, **keywords)
        flush = world.run.flush_trace

        def tampered() -> None:
            trace = world.run.engine.run_state[ledger.TRACE]
            rows = trace[: int(world.run.run_state[ledger.TRACE_LEN]) * ledger.TRACE_WIDTH].reshape(
                -1, ledger.TRACE_WIDTH
            )
            mine = (rows[:, 1] == ledger.EVENT_DECIDED) & (rows[:, 2] == 1) & (rows[:, 4] == 7)
            rows[mine, 3] = 5
            flush()

        world.run.flush_trace = tampered
        return world

    monkeypatch.setattr(runner, "build", forking)
    result = run(scenario(4, duration="1 s"))
    assert (result.status, result.exit_code) == ("safety violation", EXIT_SAFETY)
    assert "height 7: replica 1 decided block 5" in result.violations[0].evidence


# --- liveness ----------------------------------------------------------------------------------------------------


def test_a_standstill_with_enough_voters_is_a_liveness_failure() -> None:
    """Everything is cut off in a way that leaves a quorum up and linked, but the timer is too long to notice."""
    slow = {"name": "pbft", "request_timeout": "1 h"}
    faults = [{"at": "1 s", "crash": {"nodes": [0]}}]
    result = run(scenario(4, duration="10 s", protocol=slow, faults=faults, liveness_bound="5 s"))
    assert (result.status, result.exit_code) == ("liveness failure", EXIT_LIVENESS)


def test_too_few_voters_cannot_be_blamed() -> None:
    faults = [{"at": "1 s", "crash": {"nodes": [0, 1]}}]
    result = run(scenario(4, duration="10 s", faults=faults, liveness_bound="5 s"))
    assert (result.exit_code, result.checks["liveness"]) == (EXIT_OK, "not applicable")


def test_silence_is_fine_while_nobody_asks() -> None:
    rare = [{"kind": "open", "rate": "0.001 tx/s", "bytes": "500 B"}]
    result = run(scenario(4, duration="2 h", workload=rare))
    assert result.metrics["committed"] > 0
    assert result.metrics["longest_pause_s"] > 60
    assert (result.exit_code, result.checks["liveness"]) == (EXIT_OK, "pass")


def test_catching_up_is_no_progress() -> None:
    """Replica 3 returns and executes old batches; new ones are not decided, as 2 left for good meanwhile."""
    slow = {"name": "pbft", "request_timeout": "1 h"}
    faults = [
        {"at": "1 s", "for": "2 s", "crash": {"nodes": [3]}},
        {"at": "2500 ms", "crash": {"nodes": [0]}},
    ]
    result = run(scenario(4, duration="20 s", protocol=slow, faults=faults, liveness_bound="5 s", workload=BACKLOG))
    assert result.exit_code == EXIT_LIVENESS


# --- finality -----------------------------------------------------------------------------------------------------


def test_a_final_block_given_up_is_a_violation_and_the_order_goes_on_from_there() -> None:
    rows = told(
        *proposed(1, 2, 3, 4), decided(1, 1, 1), decided(1, 2, 2), (30, ledger.EVENT_REVERTED, 1, 2, 2, 3),
        decided(1, 3, 2, 31), decided(1, 4, 4, 40),
    )  # fmt: skip
    for cut in CUTS.values():
        fold = Safety(4)
        for chunk in cut(rows):
            fold(chunk)
        evidence = [v.evidence for v in fold.finality]
        assert evidence == ["height 2: replica 1 had decided block 2 and gave it up for block 3"]
        assert [v.evidence for v in fold.order] == ["replica 1 decided height 4 after height 2"]


def test_a_number_between_those_proposed_is_no_proposal(cut: Cut) -> None:
    found = judged(*cut(told(*proposed(1, 3), decided(0, 1, 1), decided(0, 2, 2))))
    assert found == {"validity": ["replica 0 decided block 2, which nobody proposed"]}
