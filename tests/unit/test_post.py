"""Laws of the message pipeline: serialisation at the NIC, FIFO queues, and the wait in an M/D/1 queue."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.engine.engine import Engine
from sim.engine.settings import Settings
from sim.kernel import chance, post, receiving, sending
from sim.kernel import run_state as kernel
from sim.kernel.run_state import compiled, pointer

CPU, NIC = 0, 1


@compiled
def _transmit(array, src, ready, size):
    return sending.transmit(pointer(array), src, ready, size)


@compiled
def _receive(array, time, dst, size, verify_ns):
    return receiving.receive(pointer(array), time, 1, dst, size, verify_ns, 0)


@compiled
def _receive_all(array, mean_ns, table, seed, count, size, verify_ns, out):
    """Poisson arrivals at node 0; the wait of each in `out`."""
    run_state = pointer(array)
    time = np.int64(0)
    for i in range(count):
        time += chance.exponential_ns(chance.join(chance.join(np.uint64(0), seed), i), mean_ns, table)
        out[i] = receiving.receive(run_state, time, 1, 0, size, verify_ns, 0)[1] - time


@compiled
def _hand_over(array, dst, verified, handle_ns):
    return receiving.hand_over(pointer(array), dst, verified, handle_ns)


def _engine(nodes: int = 2, ps: int = 0, workers: int = 1) -> Engine:
    rates = np.full(nodes, ps)
    sites = np.zeros(nodes, dtype=np.int64)
    return Engine(Settings(nodes, 0, 1, sites, np.zeros((1, 1)), rates, rates, workers=workers))


@pytest.mark.parametrize("size, ps", [(1000, 8000), (1, 8), (125, 80_000), (333, 777)])
def test_copies_leave_the_nic_at_multiples_of_size_over_bandwidth(size: int, ps: int) -> None:
    engine = _engine(ps=ps)
    each = size * ps // 1000
    assert [_transmit(engine.state, 0, 500, size) for _ in range(20)] == [500 + each * k for k in range(1, 21)]
    node = engine.node()[0]
    assert node[post.TX_BYTES] == 20 * size
    assert node[post.TX_BUSY] == 20 * each
    assert node[post.TX_WAIT] == each * 190  # 0 + 1 + ... + 19


def test_an_unlimited_nic_takes_no_time() -> None:
    engine = _engine()
    assert [_transmit(engine.state, 0, t, 10**6) for t in (5, 5, 9)] == [5, 5, 9]
    assert engine.node()[0][post.TX_BYTES] == 3 * 10**6


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 1000)), min_size=1, max_size=40), st.integers(1, 3))
def test_a_receivers_queues_are_first_in_first_out_and_lose_no_work(
    arrivals: list[tuple[int, int]], workers: int
) -> None:
    """Against the recurrences of G/G/1 and G/G/c queues in tandem (Lindley; Kiefer and Wolfowitz)."""
    engine = _engine(ps=1000, workers=workers)
    times = np.cumsum([gap for gap, _ in arrivals]).tolist()
    nic, thread, free = 0, 0, [0] * workers
    for time, (_, size) in zip(times, arrivals, strict=True):
        cost = 3 * size + 1
        nic = max(nic, time) + size
        free.sort()
        free[0] = max(free[0], nic) + cost
        received, verified = _receive(engine.state, time, 0, size, cost)
        assert (received, verified) == (nic, free[0])
        thread = max(thread, verified) + 200
        assert _hand_over(engine.state, 0, verified, 200) == thread
    node = engine.node()[0]
    assert node[post.RX_BUSY] == node[post.RX_BYTES] == sum(size for _, size in arrivals)
    assert node[post.VERIFY_BUSY] == sum(3 * size + 1 for _, size in arrivals)
    assert node[post.THREAD_BUSY] == 200 * len(arrivals)
    assert engine.state[kernel.DELIVERED] == node[post.RX_COUNT] == len(arrivals)


@pytest.mark.parametrize("queue", [CPU, NIC])
@pytest.mark.parametrize("rho", [0.5, 0.8])
def test_the_wait_is_that_of_an_m_d_1_queue(rho: float, queue: int) -> None:
    """Wq / S = rho / (2 (1 - rho)), Pollaczek-Khinchine with constant service."""
    service_ns, count = 10_000, 1_500_000
    engine = _engine(1, ps=1000 if queue == NIC else 0)
    waits = np.zeros(count, dtype=np.int64)
    size, verify_ns = (service_ns, 0) if queue == NIC else (0, service_ns)
    _receive_all(engine.state, round(service_ns / rho), chance.exponential_table(), 11, count, size, verify_ns, waits)
    wait = waits[count // 20 :].mean() / service_ns - 1
    assert wait == pytest.approx(rho / (2 * (1 - rho)), rel=0.03)
    node = engine.node()[0]
    waited = node[post.RX_WAIT] if queue == NIC else node[post.CPU_WAIT]
    assert waited == waits.sum() - count * service_ns


def test_two_workers_share_the_load_of_one() -> None:
    """M/D/2 waits less than half of what M/D/1 does at the same utilisation."""
    table, waits = chance.exponential_table(), {}
    for workers in (1, 2):
        out = np.zeros(400_000, dtype=np.int64)
        _receive_all(_engine(1, workers=workers).state, 12_500 // workers, table, 3, len(out), 0, 10_000, out)
        waits[workers] = out.mean() - 10_000
    assert 0.4 < waits[2] / waits[1] < 0.55
