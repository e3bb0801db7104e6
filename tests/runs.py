"""What whole-run tests share: a scenario from plain Python values, and a run of it that keeps every event."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from sim.check.verdict import Verdict
from sim.engine import loop
from sim.kernel import run_state as kernel
from sim.ledger import rows as ledger
from sim.measure.metrics import message_table
from sim.protocol import Replica
from sim.scenario.build import World, build
from sim.scenario.load import load_scenario
from sim.scenario.monitor import RunMonitor
from sim.scenario.run import run_digest
from sim.scenario.schema import Scenario
from sim.trace.rows import Rows

MS = 1_000_000
S = 1_000_000_000
BACKLOG = [{"kind": "backlog", "bytes": "512 B"}]


def scenario(n: int | None = 4, *, protocol: str | dict[str, Any] = "pbft", **changes: Any) -> Scenario:
    """A scenario of n equal voters 10 ms apart with full blocks, changed by YAML values.

    A key with dots goes into a section: `**{"network.loss": "1 %"}`. Read through the loader, as a file is.
    """
    data: dict[str, Any] = {
        "name": "test",
        "duration": "1 s",
        "network": {"nodes": n, "latency": {"model": "fixed", "one_way": "10 ms"}},
        "protocol": {"name": protocol} if isinstance(protocol, str) else protocol,
        "workload": BACKLOG,
    }
    for key, value in changes.items():
        *sections, last = key.split(".")
        inner = data
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "test.yaml"
        file.write_text(json.dumps(data))  # JSON is YAML
        return load_scenario(file)


@dataclasses.dataclass
class Played:
    """A run and all it left: trace rows (time, event, node, block, height, view, txs, bytes) and message log."""

    world: World
    monitor: RunMonitor
    code: int = loop.UNTIL
    rows: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, ledger.TRACE_WIDTH), np.int64))
    log: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 12), np.int64))

    @property
    def now_ns(self) -> int:
        """Simulated time."""
        return int(self.world.run.run_state[kernel.NOW])

    @property
    def digest(self) -> str:
        """Digest of the event stream."""
        return run_digest(self.world)

    def until(self, time_ns: int) -> Played:
        """Go on to a time, faults and workload included."""
        new: list[np.ndarray] = []
        log: list[np.ndarray] = []
        run = self.world.run
        run.trace_sinks.append(new.append)
        run.log_sinks.append(log.append)
        self.code = self.world.clock.drive(run.advance, loop.UNTIL, time_ns)
        run.flush_trace()
        run.trace_sinks.remove(new.append)
        run.log_sinks.remove(log.append)
        self.rows = np.concatenate([self.rows, *new])
        self.log = np.concatenate([self.log, *log])
        return self

    def verdict(self) -> Verdict:
        """Judge the run up to now."""
        return self.monitor.verdict(self.now_ns)

    def events(self, kind: int) -> Rows:
        """Trace rows of one kind."""
        return Rows(self.rows).of(kind)

    def decided(self, node: int | None = None) -> Rows:
        """Rows of decisions, of one replica or of all."""
        rows = self.events(ledger.EVENT_DECIDED)
        return rows if node is None else rows[rows.node == node]

    def decided_blocks(self, node: int) -> dict[int, int]:
        """Height -> block number, as this replica decided."""
        return {row.height: row.block for row in self.decided(node)}

    def latencies_ns(self) -> dict[tuple[int, int], int]:
        """(block number, replica) -> time from proposal to decision."""
        born = {row.block: row.time_ns for row in self.events(ledger.EVENT_PROPOSED)}
        return {(row.block, row.node): row.time_ns - born[row.block] for row in self.decided()}

    def views(self) -> list[int]:
        """Views that replicas entered, in order of time."""
        return [row.block for row in self.events(ledger.EVENT_VIEW)]

    def sent(self, *names: str) -> int:
        """Messages sent of these types; without a name, of all that the protocol sends to decide."""
        table = message_table(self.world.run)
        return sum(int(m["messages"]) for m in table if (m["type"] in names if names else m["decides"]))

    def replica(self, node: int) -> Any:
        """A protocol instance."""
        return self.world.run.hosts[node].replica


def begin(chosen: Scenario, *, fast_path: bool = True, protocol: type[Replica] | None = None) -> Played:
    """Lay out a run and do not start the clock."""
    world = build(chosen, fast_path=fast_path, protocol=protocol)
    return Played(world, RunMonitor(world))


def play(chosen: Scenario, *, fast_path: bool = True, protocol: type[Replica] | None = None) -> Played:
    """Run a scenario to its end."""
    return begin(chosen, fast_path=fast_path, protocol=protocol).until(chosen.duration_ns)


def unsafe(played: Played) -> list[str]:
    """Evidence of everything in a run that must not happen, liveness apart."""
    return [v.evidence for v in played.verdict().violations if v.kind != "liveness"]
