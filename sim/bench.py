"""`pilotzone bench`: how much consensus per wall second this machine simulates.

Every row is a scenario of scenarios/bench/ with another number of voters, run in this process after a warm-up
run; the median of several runs is shown, timed around the run loop (checks, measures and the trace file on).
Timings move with the machine, so the same work is also done by the naive engine of tests/oracle in the same run:
the ratio is what to compare.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sim.scenario.load import load_scenario
from sim.scenario.run import run

ROOT = Path(__file__).resolve().parent.parent
SCENARIOS = ROOT / "scenarios" / "bench"
ORACLE = ROOT / "tests" / "oracle"


@dataclasses.dataclass(frozen=True)
class Case:
    """One row: a scenario, a number of voters, and decisions per run (enough for about half a second)."""

    name: str
    scenario: str
    voters: int
    decisions: int
    unit: str = "decisions"


@dataclasses.dataclass(frozen=True)
class Row:
    """A measured row. `per_second`: median over runs; `low`, `high`: least and greatest.

    `checks_percent`: the share of the run's time on the clock that its checks took, median.
    """

    name: str
    voters: int
    unit: str
    per_second: float
    low: float
    high: float
    messages_per_second: float
    runs: int
    checks_percent: float = 0.0


_PBFT = ((4, 20_000), (16, 8_000), (32, 4_000), (64, 1_500), (128, 400), (256, 100), (1000, 8))
_HOTSTUFF = ((4, 10_000), (64, 2_000), (256, 600), (1000, 150))
CASES = (
    *(Case("PBFT, whole engine", "pbft-whole.yaml", n, d) for n, d in _PBFT),
    *(Case("PBFT, fidelity of peers", "pbft-peers.yaml", n, d) for n, d in _PBFT),
    *(Case("chained HotStuff, whole engine", "hotstuff-whole.yaml", n, d, "blocks") for n, d in _HOTSTUFF),
    Case("Raft, whole engine", "raft-whole.yaml", 5, 10_000, "batches"),
)
_YARDSTICKS = ("pbft-whole", "hotstuff-whole")  # what quadratic and linear protocols are held against
_BEFORE = 10  # decisions of a protocol that are not measured
ORACLE_SIZES = ((16, 20), (100, 1))


def measure(case: Case, runs: int) -> Row:
    """Run a case `runs` times after one warm-up run of a tenth."""
    path = SCENARIOS / case.scenario
    size = f"network.nodes={case.voters}"
    rates, messages, checks = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        warm = load_scenario(path, [size, f"stop_after_decisions={max(case.decisions // 10, 1)}"])
        run(warm, out=Path(folder))
        scenario = load_scenario(path, [size, f"stop_after_decisions={case.decisions}"])
        for _ in range(runs):
            metrics = run(scenario, out=Path(folder)).metrics
            seconds = float(metrics["drive_wall_s"] or 0)
            rates.append(float(metrics["decisions"] or 0) / seconds)
            messages.append(float(metrics["messages_sent"] or 0) / seconds)
            checks.append(100 * float(metrics["checks_wall_s"] or 0) / seconds)
    return Row(
        case.name, case.voters, case.unit, statistics.median(rates), min(rates), max(rates),
        statistics.median(messages), runs, statistics.median(checks),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ProtocolRow:
    """One protocol's speed. `ratio`: to PBFT's messages per second, or to chained HotStuff's blocks if it is linear."""

    protocol: str
    voters: int
    linear: bool
    messages_per_decision: float
    per_second: float
    messages_per_second: float
    ratio: float


def measure_protocols(tell: Callable[[str], None], voters: int = 100, seconds: float = 1.0) -> list[ProtocolRow]:
    """Every protocol of the table on the scenario of PBFT's whole-engine row, about `seconds` of wall time each.

    The first ten decisions are left out, for all alike (`_speed_of`).
    """
    from sim.protocols import PROTOCOLS

    found = {name: _speed_of(name, voters, seconds) for name in PROTOCOLS}
    quadratic, chained = (load_scenario(SCENARIOS / f"{name}.yaml").protocol.name for name in _YARDSTICKS)
    rows = []
    for name, (per_second, messages) in found.items():
        each = messages / per_second
        linear = each < voters**2 / 2
        ratio = per_second / found[chained][0] if linear else messages / found[quadratic][1]
        rows.append(ProtocolRow(name, voters, linear, each, per_second, messages, ratio))
        tell(
            f"{name:<16} n={voters} {per_second:>10,.0f} decisions/s {messages / 1e6:6.1f} M messages/s, "
            f"{ratio:5.2f} of {'chained HotStuff, blocks' if linear else 'PBFT, messages'}"
        )
    return rows


def _speed_of(name: str, voters: int, seconds: float) -> tuple[float, float]:
    """Decisions and messages per wall second once decisions come: what a run does after its first ten.

    Until then nothing can be told from decisions: where blocks are final by depth, half as many as there are voters
    are made before the first. Two runs that are equal up to the tenth decision are subtracted; the longer one is
    lengthened until what it does after that takes half of `seconds`, and longer than what it does before.
    """
    changes = [f"protocol.name={name}", f"network.nodes={voters}", "duration=1000000 s"]

    def timed(decisions: int) -> np.ndarray:
        scenario = load_scenario(SCENARIOS / "pbft-whole.yaml", [*changes, f"stop_after_decisions={decisions}"])
        metrics = run(scenario).metrics
        return np.array([float(metrics[name] or 0) for name in ("decisions", "messages_sent", "drive_wall_s")])

    timed(_BEFORE)
    start = min(timed(_BEFORE), timed(_BEFORE), key=lambda found: float(found[2]))
    further = 20
    while True:
        decisions, messages, wall_s = timed(_BEFORE + further) - start
        if wall_s >= max(seconds / 2, float(start[2])):
            return decisions / wall_s, messages / wall_s
        further = int(further * max(seconds / max(wall_s, seconds / 20), 2))


def measure_flood(runs: int, nodes: int = 6000, neighbours: int = 8) -> Row:
    """Deliveries per second of a message type that floods a random regular graph."""
    from sim.engine import entry, loop
    from sim.engine.engine import Engine
    from sim.engine.settings import Settings
    from sim.kernel import post
    from sim.kernel import run_state as kernel
    from sim.network.topology import random_regular_edges

    near: list[list[int]] = [[] for _ in range(nodes)]
    for a, b in random_regular_edges(nodes, neighbours, 1):
        near[a].append(b)
        near[b].append(a)
    sites = 20
    latency_ns = np.array([[5_000_000 + 4_000_000 * abs(i - j) for j in range(sites)] for i in range(sites)])
    speed = np.full(nodes, 80_000)  # ps per byte: 100 Mbit/s
    engine = Engine(
        Settings(
            voters=nodes, gateways=0, seed=1, site_of=np.arange(nodes) % sites, latency_ns=latency_ns,
            tx_ps_per_byte=speed, rx_ps_per_byte=speed, jitter_mode=post.PROPORTIONAL_JITTER, jitter_span=1 << 18,
            ordered=False,
        )
    )  # fmt: skip
    floods = 16
    engine.lay_neighbours(near, floods)
    engine.make_capacity()
    rates = []
    for i in range(runs + 1):
        for slot in range(floods):
            engine.clear_flood(slot)
        before = int(engine.state[kernel.DELIVERED])
        started = time.perf_counter()
        for slot in range(floods):
            while entry.flood(engine.state, slot * 97, 2, 1000, 50_000, 1_000, slot) < 0:
                engine.make_capacity()
        while loop.advance(engine.state, (i + 1) * 10**12)[0] == loop.CAPACITY:
            engine.make_capacity()
        rates.append((int(engine.state[kernel.DELIVERED]) - before) / (time.perf_counter() - started))
    rates = rates[1:]
    return Row(
        f"flood over {neighbours} neighbours", nodes, "deliveries", statistics.median(rates), min(rates), max(rates),
        statistics.median(rates), runs,
    )  # fmt: skip


SHARINGS = ("fifo", "fair", "priority")
CARDS = {
    "idle": ("stop_after_decisions=400",),  # 10 Gbit/s: one message at a time
    "busy": (  # transactions and answers among blocks and votes: trains are taken apart
        "stop_after_decisions=60",
        "network.bandwidth=100 Mbit/s",
        "block.max_transactions=200",
        "workload=[{kind: open, rate: 1000 tx/s, bytes: 500 B}]",
    ),
}


@dataclasses.dataclass(frozen=True)
class SharingRow:
    """What a way to share network cards costs. `ratio`: to a queue, of the best CPU times per message."""

    cards: str
    sharing: str
    ns_per_message: float
    ratio: float


def measure_sharing(turns: int, voters: int = 64) -> list[SharingRow]:
    """PBFT on idle and on busy cards under each way to share them, in turns: the machine's moods strike all alike."""
    best: dict[tuple[str, str], float] = {}
    for _ in range(turns):
        for cards in CARDS:
            for sharing in SHARINGS:
                found = _ns_per_message(cards, sharing, voters)
                best[cards, sharing] = min(best.get((cards, sharing), float("inf")), found)
    return [
        SharingRow(cards, sharing, time_ns, time_ns / best[cards, "fifo"]) for (cards, sharing), time_ns in best.items()
    ]


def _ns_per_message(cards: str, sharing: str, voters: int) -> float:
    """CPU time per message of one run without checks."""
    from sim.engine import loop
    from sim.kernel import run_state as kernel
    from sim.scenario.build import build

    changes = [f"network.nodes={voters}", f"network.sharing={sharing}", *CARDS[cards]]
    chosen = load_scenario(SCENARIOS / "pbft-whole.yaml", changes)
    world = build(chosen)
    begin = time.process_time()
    world.clock.drive(world.run.advance, loop.UNTIL, chosen.duration_ns)
    return (time.process_time() - begin) * 1e9 / int(world.run.run_state[kernel.SENT])


def sharing_line(row: SharingRow) -> str:
    """A row in words."""
    return f"{row.cards} cards, {row.sharing:<9} {row.ns_per_message:7.1f} ns per message, {row.ratio:.2f} of fifo"


def oracle() -> Callable[[int, int], float] | None:
    """The naive engine's PBFT (voters, decisions) -> decisions per second; None without the tests' folder."""
    path = ORACLE / "pbft.py"
    if not path.exists():
        return None
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    spec = importlib.util.spec_from_file_location("tests.oracle.pbft", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    found: Callable[[int, int], float] = module.decisions_per_second
    return found


def ratios() -> Iterator[dict[str, Any]]:
    """Engine against oracle on the same work, in one run."""
    naive = oracle()
    if naive is None:
        return
    for voters, decisions in ORACLE_SIZES:
        slow = naive(voters, decisions)
        case = Case("PBFT, local network", "pbft-lan.yaml", voters, 4_000 if voters < 50 else 400)
        fast = measure(case, 3)
        yield {
            "voters": voters,
            "engine_per_second": fast.per_second,
            "oracle_per_second": slow,
            "ratio": fast.per_second / slow,
        }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import numba
    import numpy

    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
        cores = len(lines)
    else:
        cores = 0
    return {
        "cpu": model,
        "cores": cores,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numba": numba.__version__,
        "numpy": numpy.__version__,
    }


def bench(*, quick: bool, tell: Callable[[str], None]) -> dict[str, Any]:
    """Measure everything. `tell` is given a line per row as it is measured."""
    runs = 1 if quick else 5
    rows = []
    for case in CASES:
        if quick and case.voters > 256:
            continue
        rows.append(measure(case, runs))
        tell(line(rows[-1]))
    rows.append(measure_flood(runs))
    tell(line(rows[-1]))
    shared = measure_sharing(1 if quick else 7)
    for one in shared:
        tell(sharing_line(one))
    compared = list(ratios())
    for ratio in compared:
        tell(
            f"engine against naive SimPy engine, PBFT n={ratio['voters']}: {ratio['ratio']:,.0f} times as fast "
            f"({ratio['oracle_per_second']:,.2f} decisions/s)"
        )
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    tell(f"peak memory {peak_mb:,.0f} MB")
    return {
        "machine": machine(),
        "rows": [dataclasses.asdict(row) for row in rows],
        "sharing": [dataclasses.asdict(one) for one in shared],
        "oracle": compared,
        "peak_memory_mb": peak_mb,
    }


def line(row: Row) -> str:
    """A row in words."""
    spread = f"{row.low:,.0f}-{row.high:,.0f}" if row.runs > 1 else "1 run"
    return (
        f"{row.name:<32} n={row.voters:<5} {row.per_second:>12,.0f} {row.unit}/s ({spread}) "
        f"{row.messages_per_second / 1e6:6.1f} M messages/s, checks {row.checks_percent:.0f} %"
    )
