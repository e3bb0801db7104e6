"""The oracle's PBFT obeys the laws of PBFT, and the product's PBFT decides at the same nanosecond."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from sim.engine import loop
from sim.engine.settings import Settings
from sim.families.pbft.viewchange import HEADER_BYTES
from sim.host import Costs, Run
from sim.kernel import post
from sim.ledger import rows as ledger
from sim.protocols.pbft import Pbft, PbftParameters
from tests.oracle import pbft as oracle
from tests.oracle.world import Kind, Network


@pytest.mark.parametrize("n", [4, 7, 10])
def test_a_decision_costs_2n_times_n_minus_1_messages_and_three_delays(n: int) -> None:
    free = tuple(Kind(k, 0) for k in (2, 3, 4))
    network = dataclasses.replace(oracle.lan(n, latency_ns=1000), jitter="none")
    run = oracle.Pbft(network, free, 5)
    run.run()
    assert run.oracle.sent == 5 * 2 * n * (n - 1)
    assert [{t - 3000 * k for t in times} for k, times in enumerate(run.decided)] == [{3000}] * 5


def test_it_returns_a_rate() -> None:
    assert oracle.decisions_per_second(4, 20) > 1


def _product(network: Network, costs: Costs, blocks: int, *, fast_path: bool) -> list[list[int]]:
    """When each replica of the product's PBFT decided each block."""
    settings = Settings(
        voters=network.nodes, gateways=0, seed=network.seed, site_of=np.array(network.site_of),
        latency_ns=np.array(network.latency_ns), tx_ps_per_byte=np.array(network.tx_ps),
        rx_ps_per_byte=np.array(network.rx_ps), workers=network.workers, backlog_bytes=512, block_txs=1,
        stop_after=0, jitter_mode=post.NO_JITTER, links_change=True,
    )  # fmt: skip
    run = Run(Pbft, PbftParameters(), settings, costs, fast_path=fast_path)
    rows: list[Any] = []
    run.trace_sinks.append(rows.append)
    run.start()
    assert run.advance(5_000_000) == loop.UNTIL
    run.flush_trace()
    table = np.concatenate(rows)
    decided = table[table[:, 1] == ledger.EVENT_DECIDED]
    return [sorted(decided[decided[:, 4] == height][:, 0].tolist()) for height in range(1, blocks + 1)]


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("n", [4, 7, 10])
@pytest.mark.parametrize("verify_ns", [0, 1000, 40_000])
def test_the_products_pbft_decides_when_the_oracles_does(n: int, verify_ns: int, fast_path: bool) -> None:
    """With queues at every stage, in the fast path and in the handlers."""
    network = dataclasses.replace(oracle.lan(n, latency_ns=20_000), jitter="none", workers=2)
    costs = Costs(signature_bytes=64, sign_ns=500, verify_ns=verify_ns, handle_ns=300)
    signed = HEADER_BYTES + 64
    kinds = tuple(Kind(k, size, 500, verify_ns, 300) for k, size in ((2, signed + 512), (3, signed), (4, signed)))
    theirs = oracle.Pbft(network, kinds, 3)  # type: ignore[arg-type]
    theirs.run()
    assert _product(network, costs, 3, fast_path=fast_path) == [sorted(times) for times in theirs.decided]
