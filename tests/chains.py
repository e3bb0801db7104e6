"""What tests of protocols with certified chains share: a bare world of n voters, its trace, and what it decided."""

from __future__ import annotations

import fractions
from typing import Any

import numpy as np

from sim.engine.settings import Settings
from sim.host import Costs, Run
from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.ledger import rows as ledger
from sim.protocol import Replica
from sim.trace.rows import Fact, Rows

MS = 1_000_000
DELAY = 10 * MS
JITTER = {"jitter_mode": post.PROPORTIONAL_JITTER, "jitter_span": 1 << 19}
LOSSY = {**JITTER, "loss_q32": (1 << 32) // 50, "ordered": False}


def equal_delays(n: int, delay_ns: int = DELAY) -> np.ndarray:
    latency = np.full((n, n), delay_ns, dtype=np.int64)
    np.fill_diagonal(latency, 0)
    return latency


def world(
    n: int,
    protocol: type[Replica],
    parameters: Any,
    *,
    latency_ns: np.ndarray | None = None,
    fast_path: bool = True,
    interval_ns: int = 0,
    costs: Costs | None = None,
    **settings: Any,
) -> Run:
    """A started run of n voters: full blocks, no CPU time, unlimited bandwidth; `rows` keeps its trace."""
    latency = equal_delays(n) if latency_ns is None else latency_ns
    free = np.zeros(n + settings.get("gateways", 0), dtype=np.int64)
    base: dict[str, Any] = {"gateways": 0, "seed": 1, "block_txs": 1, "backlog_bytes": 500}
    settings = {**base, "voters": n, "site_of": np.arange(n), "latency_ns": latency, **settings}
    run = Run(
        protocol,
        parameters,
        Settings(tx_ps_per_byte=free, rx_ps_per_byte=free.copy(), **settings),
        costs or Costs(),
        block_interval_ns=interval_ns,
        fast_path=fast_path,
    )
    run.rows = []  # type: ignore[attr-defined]
    run.trace_sinks.append(lambda rows: run.rows.extend(Rows(rows)))  # type: ignore[attr-defined]
    run.start()
    return run


def events(run: Run, event: int) -> list[Fact]:
    """Trace rows of a kind."""
    run.flush_trace()
    return [fact for fact in run.rows if fact.event == event]  # type: ignore[attr-defined]


def decided(run: Run) -> dict[int, list[Fact]]:
    """Per node its decisions."""
    found: dict[int, list[Fact]] = {node: [] for node in range(run.engine.voters)}
    for fact in events(run, ledger.EVENT_DECIDED):
        found[fact.node].append(fact)
    return found


def agree(run: Run) -> bool:
    """Whether no two nodes decided different blocks at a height."""
    at: dict[int, int] = {}
    return all(at.setdefault(row.height, row.block) == row.block for of in decided(run).values() for row in of)


def digest(run: Run) -> tuple[int, ...]:
    return tuple(
        int(run.run_state[k])
        for k in (kernel.DIGEST_ORDER, kernel.DIGEST_SUM, kernel.SENT, ledger.DECISIONS, ledger.DECIDES)
    )


CASES: dict[str, dict[str, Any]] = {
    "jitter": JITTER,
    "datagrams": LOSSY,
    "crash": {**JITTER, "costs": Costs(sign_ns=20_000, verify_ns=50_000)},
}


def both_paths(n: int, protocol: type[Replica], parameters: Any, case: str) -> list[tuple[Any, ...]]:
    """Digest and decisions of the same run with the fast path and without it, whatever goes wrong meanwhile."""
    seen = []
    for fast_path in (True, False):
        run = world(n, protocol, parameters, fast_path=fast_path, seed=5, **CASES[case])
        if case == "crash":
            for node, crash_ms, restart_ms in ((2, 333, 3_001), (0, 4_200, 6_000)):
                run.advance(crash_ms * MS)
                run.crash(node)
                run.advance(restart_ms * MS)
                run.restart(node)
        run.advance(10_000 * MS)
        assert run.run_state[ledger.DECISIONS] > 60
        seen.append((digest(run), decided(run)))
    return seen


def lossy_crashes(n: int, seed: int, protocol: type[Replica], parameters: Any) -> Run:
    """f replicas crash and come back one by one while datagrams are lost; then nothing more fails."""
    run = world(n, protocol, parameters, seed=seed, **LOSSY)
    f = (n - 1) // 3
    for k in range(f):
        run.advance((300 + 13 * seed + 100 * k) * MS)
        run.crash((seed + k) % n)
    for k in range(f):
        run.advance((2_000 + 17 * seed + 500 * k) * MS)
        run.restart((seed + k) % n)
    run.advance(6_000 * MS)
    run.run_state[kernel.LOSS_Q32] = 0
    return run


def replica(run: Run, node: int) -> Any:
    """A protocol instance that knows what the fast path did."""
    found = run.hosts[node].replica
    assert found is not None
    found.absorb_fast_path()
    return found


def commits_per_view(
    n: int, crashed: set[int], protocol: type[Replica], parameters: Any, **more: Any
) -> fractions.Fraction:
    """Commit events per view at a live replica, over whole rotations of the leaders."""
    run = world(n, protocol, parameters, latency_ns=equal_delays(n, 1000), **more)
    for node in crashed:
        run.crash(node)
    first, rotations = 2, 8
    while replica(run, 0).view < (first + rotations + 1) * n:
        run.advance(run.now_ns + 100 * MS)
    heads = {row.time_ns: row.view for row in decided(run)[0]}  # the last block decided at once is the head
    counted = [view for view in heads.values() if first * n <= view < (first + rotations) * n]
    return fractions.Fraction(len(counted), rotations * n)
