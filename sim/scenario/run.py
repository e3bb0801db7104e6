"""Run a scenario: drive the world to its end, judge it, measure it, and keep the result."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.check.verdict import Verdict, Violation
from sim.engine import entry, loop
from sim.host import OUT_OF_TIME
from sim.kernel import run_state as kernel
from sim.ledger import rows as ledger
from sim.measure import metrics as metrics_
from sim.measure import outcomes
from sim.measure.blocks import COLUMNS as BLOCK_COLUMNS
from sim.protocol import Replica
from sim.scenario import store
from sim.scenario.alarm import Limits, Overdue, alarm, building, resident_bytes
from sim.scenario.build import World, build
from sim.scenario.errors import DamagedRunError
from sim.scenario.monitor import RunMonitor
from sim.scenario.schema import Scenario
from sim.trace.events import COLUMNS, MESSAGE_COLUMNS, ColumnFile

if TYPE_CHECKING:
    import pandas as pd

EXIT_OK, EXIT_INTERNAL, EXIT_SCENARIO, EXIT_SAFETY, EXIT_LIVENESS, EXIT_LIMIT = range(6)
_SLICES = 100  # looks at the wall clock, at replicas and the progress bar per run

Progress = Callable[[float], None]


@dataclasses.dataclass(frozen=True)
class Result:
    """One run's outcome. `tables` holds columns by table name; `path` is where it was stored, if it was."""

    scenario: Scenario
    status: str
    exit_code: int
    metrics: dict[str, float | int | None]
    checks: dict[str, str]
    violations: tuple[Violation, ...]
    warnings: tuple[str, ...]
    digest: str
    key: str
    path: Path | None
    tables: dict[str, dict[str, Any]]
    sometimes: dict[str, bool] = dataclasses.field(default_factory=dict)

    def table(self, name: str) -> pd.DataFrame:
        """Return one of `tables` as a frame, a row per entry, units in column names; KeyError for another name."""
        import pandas as pd  # here: a run that nobody asks for a frame does without

        if name not in self.tables:
            raise KeyError(f"no table {name!r}; there are {', '.join(self.tables)}")
        return pd.DataFrame(self.tables[name])

    def summary(self) -> dict[str, Any]:
        """What `pilotzone run --json` prints."""
        return {
            "name": self.scenario.name,
            "status": self.status,
            "metrics": self.metrics,
            "checks": self.checks,
            "sometimes": self.sometimes,
            "violations": [dataclasses.asdict(violation) for violation in self.violations],
            "warnings": list(self.warnings),
            "seed": self.scenario.seed,
            "digest": self.digest,
            "key": self.key,
            "path": None if self.path is None else str(self.path),
        }


def run(
    scenario: Scenario,
    *,
    out: Path | None = None,
    study: str | None = None,
    progress: Progress | None = None,
    protocol: type[Replica] | None = None,
    fast_path: bool = True,
    until_ns: int | None = None,
) -> Result:
    """Run a scenario. `out`: folder for results (None: keep nothing); `progress`: called with a share of 1.

    `protocol` replaces the protocol's class by a rule override; the key of the result then names it. `until_ns`:
    stop after the events of this time and judge what has happened until then.
    """
    variant = "" if protocol is None else store.variant_of(protocol)
    if until_ns is not None:
        variant += f" until {until_ns} ns"
    key = store.run_key(scenario, variant)
    folder = None if out is None else store.RunFolder(out, study or scenario.name, key)
    try:
        with own_collection():
            return _run(scenario, folder, key, progress, protocol, fast_path, until_ns)
    except BaseException:
        if folder is not None:
            folder.discard()
        raise


@dataclasses.dataclass
class Session:
    """A run that is under way: laid out by `open_session`, advanced by whoever opened it, closed by `finish`."""

    world: World
    monitor: RunMonitor
    key: str
    folder: store.RunFolder | None
    files: list[ColumnFile]
    started_s: float
    replaced: type[Replica] | None = None
    drive_s: float = 0.0

    @property
    def scenario(self) -> Scenario:
        """What is run."""
        return self.world.scenario


def open_session(
    scenario: Scenario,
    folder: store.RunFolder | None,
    key: str,
    limits: Limits,
    *,
    protocol: type[Replica] | None = None,
    fast_path: bool = True,
) -> Session:
    """Lay out a run and all that observes it; nothing has happened yet."""
    started = time.perf_counter()
    with building(limits):
        world = build(scenario, protocol=protocol, fast_path=fast_path)
    return Session(world, RunMonitor(world), key, folder, _trace_files(world, folder), started, protocol)


def _run(
    scenario: Scenario,
    folder: store.RunFolder | None,
    key: str,
    progress: Progress | None,
    protocol: type[Replica] | None,
    fast_path: bool,
    until_ns: int | None,
) -> Result:
    wall_ns = scenario.limits.wall_ns
    deadline_s = None if wall_ns is None else time.perf_counter() + wall_ns / 1e9
    limits = Limits(deadline_s, scenario.limits.memory_bytes)
    session = open_session(scenario, folder, key, limits, protocol=protocol, fast_path=fast_path)
    driving = time.perf_counter()
    truncated = _drive(session.world, session.monitor, progress, limits, until_ns)
    session.drive_s = time.perf_counter() - driving
    return finish(session, truncated)


def finish(session: Session, truncated: str | None = None) -> Result:
    """Judge, measure and keep a run that has come to its end, or was cut short because of `truncated`."""
    world, monitor, folder, key = session.world, session.monitor, session.folder, session.key
    scenario, protocol = session.scenario, session.replaced
    world.run.flush_trace()
    if scenario.pool.expires_after_ns is not None:
        entry.trim_pools(world.run.run_state)  # what is too old is gone, whether or not anybody has looked
    _verify(world)
    for file in session.files:
        file.close()
    end_ns = int(world.run.run_state[kernel.NOW])
    verdict = monitor.verdict(end_ns)
    metrics = metrics_.collect(world.run, monitor.blocks, monitor.lags, end_ns=end_ns, offered_tps=world.offered_tps)
    metrics |= monitor.recovery(end_ns)
    metrics |= monitor.reads.metrics()
    metrics |= monitor.orders.metrics()
    metrics["catch_up_s"] = world.followers.catch_up_s()
    metrics["drive_wall_s"] = session.drive_s
    metrics["checks_wall_s"] = monitor.spent_s
    metrics["wall_s"] = time.perf_counter() - session.started_s
    status, code = _status(verdict, truncated)
    if protocol is not None:
        verdict.warnings.append(f"the protocol's class was replaced by {store.variant_of(protocol)}")
    digest = run_digest(world)
    tables = _tables(world, monitor)
    notes = (*scenario.protocol.notes, *scenario.network.notes)
    warnings = [*notes, *verdict.warnings, *([f"truncated: {truncated}"] if truncated else [])]
    path = None
    if folder is not None:
        for name, columns in tables.items():
            folder.table(name, columns)
        manifest = store.manifest_of(scenario) | {
            "key": key,
            "protocol_class": None if protocol is None else store.variant_of(protocol),
            "status": status,
            "digest": digest,
            "checks": verdict.outcomes,
            "sometimes": verdict.sometimes,
            "violations": [dataclasses.asdict(violation) for violation in verdict.violations],
            "warnings": warnings,
            "metrics": {name: value for name, value in metrics.items() if not name.endswith("wall_s")},
            # What numbers in the trace mean: endpoints are the voters, observers, the clients' gateways.
            "voters": scenario.network.n,
            "observers": [observer.name for observer in scenario.observer_of_seat],
            "places": [
                *scenario.network.place_of_node,
                *scenario.place_of_observer,
                *(gateway.place for gateway in world.gateways),
            ],
            "message_types": world.run.names,
        }
        path = folder.finish(manifest)
    return Result(
        scenario, status, code, metrics, dict(verdict.outcomes), tuple(verdict.violations), tuple(warnings),
        digest, key, path, tables, dict(verdict.sometimes),
    )  # fmt: skip


@contextlib.contextmanager
def own_collection() -> Iterator[None]:
    """Let Python look for reference cycles less often while a run lasts, and drop the run's own when it ends.

    A run makes little garbage, and each look visits everything alive. But the run itself is one large cycle (engine,
    hosts, replicas), whose columns must not wait for the next full collection: in a sweep that is gigabytes. What was
    alive before is frozen, so that the collection at the end visits what the run made and nothing else.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(200_000, 20, 20)
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
        gc.set_threshold(*before)


def _verify(world: World) -> None:
    """Raise DamagedRunError if compiled code wrote where it must not."""
    try:
        world.run.engine.run_state.verify()
    except kernel.DamagedError as error:
        raise DamagedRunError(str(error)) from None


def _trace_files(world: World, folder: store.RunFolder | None) -> list[ColumnFile]:
    level = world.scenario.trace
    if folder is None or level == "off":
        return []
    events = ColumnFile(folder.file("trace.parquet"), COLUMNS, folder.metadata)
    world.run.trace_sinks.append(events)
    files = [events]
    if level == "messages":
        log = ColumnFile(folder.file("messages.parquet"), MESSAGE_COLUMNS, folder.metadata)
        world.run.log_sinks.append(log)
        files.append(log)
    return files


def _drive(
    world: World, monitor: RunMonitor, progress: Progress | None, limits: Limits, until_ns: int | None
) -> str | None:
    """Run to the end, or to `until_ns`. Returns why the run was cut short, or None."""
    run_state = world.run.engine.run_state
    try:
        with alarm(limits, world.run.protocol):
            return _advance(world, monitor, progress, limits, until_ns)
    except Overdue as overdue:
        monitor.halted = True
        wall_ns, memory_bytes = world.scenario.limits.wall_ns, world.scenario.limits.memory_bytes
        if wall_ns is not None and limits.reached() == "wall":
            return f"wall: {wall_ns / 1e9:g} s reached in {overdue.where}, which had not returned"
        return f"memory: {memory_bytes} bytes reached in {overdue.where}"
    except MemoryError as error:
        monitor.halted = True
        return f"memory: {run_state.failure or error}"


def _advance(
    world: World, monitor: RunMonitor, progress: Progress | None, limits: Limits, until_ns: int | None
) -> str | None:
    """Slice by slice, looking at limits between events."""
    scenario = world.scenario
    asked = scenario.limits
    if limits.any:
        world.run.stop_when(lambda: limits.reached() is not None)
        world.run.engine.run_state.limit(limits.memory_bytes, resident_bytes)
    end_ns = scenario.duration_ns if until_ns is None else min(until_ns, scenario.duration_ns)
    limit_ns = end_ns if asked.simulated_ns is None else asked.simulated_ns
    cut, end_ns = limit_ns < end_ns, min(limit_ns, end_ns)
    for i in range(1, _SLICES + 1):
        slice_ns = min(scenario.duration_ns * i // _SLICES, end_ns)
        code = world.clock.drive(world.run.advance, loop.UNTIL, slice_ns)
        monitor.look()
        if progress is not None:
            progress(_share(world, i / _SLICES))
        if code == loop.STOP:
            return None
        if code == loop.TOO_MANY_EVENTS:
            return f"max_events: {asked.max_events} reached"
        if code == loop.STANDS_STILL:
            return "instant livelock: events without time moving"
        reached = limits.reached()
        if asked.wall_ns is not None and (reached == "wall" or (code == OUT_OF_TIME and asked.memory_bytes is None)):
            return f"wall: {asked.wall_ns / 1e9:g} s reached"
        if reached == "memory" or code == OUT_OF_TIME:
            return f"memory: {asked.memory_bytes} bytes reached"
        if slice_ns == end_ns:
            return f"simulated: {end_ns / 1e9:g} s reached" if cut else None
    return None


def _share(world: World, share: float) -> float:
    stop = world.scenario.stop_after_decisions
    return share if not stop else max(share, min(int(world.run.run_state[ledger.DECISIONS]) / stop, 1.0))


def _status(verdict: Verdict, truncated: str | None) -> tuple[str, int]:
    if verdict.has("safety"):
        return "safety violation", EXIT_SAFETY
    if verdict.has("conservation"):
        return "conservation violation", EXIT_INTERNAL
    if truncated:
        return "truncated", EXIT_LIMIT
    if verdict.has("liveness"):
        return "liveness failure", EXIT_LIVENESS
    return "ok", EXIT_OK


def run_digest(world: World) -> str:
    """Hash of the event stream: order and time of every due event, all arrivals, and the final counters."""
    s = world.run.run_state
    peers = world.run.engine.peer()
    final = [
        int(s[i])
        for i in (
            kernel.DIGEST_ORDER,
            kernel.DIGEST_SUM,
            kernel.SENT,
            kernel.DELIVERED,
            kernel.DROPPED,
            kernel.BYTES_SENT,
        )
    ]
    final += [
        int(s[i])
        for i in (
            ledger.SUBMITTED,
            ledger.COMMITTED,
            ledger.ACKED,
            ledger.REJECTED,
            ledger.EXPIRED,
            ledger.DECISIONS,
            kernel.NOW,
        )
    ]
    final += peers[:, ledger.TIP_HEIGHT].tolist()
    if s[ledger.STATE_ON]:
        final.append(int(s[ledger.STATE_ROOT]))
    return hashlib.blake2b(repr(final).encode(), digest_size=16).hexdigest()


def _waits(world: World) -> dict[str, list[Any]]:
    """How long clients at each place waited for answers, by class of transaction, where any were answered."""
    run = world.run
    gateways = [gateway for gateway in world.gateways if gateway.endpoint < run.engine.endpoints]
    waited = run.engine.run_state[ledger.WAITED].reshape(-1, ledger.WAITED_WIDTH)
    classes, first = max(int(run.run_state[ledger.CLASSES]), 1), int(run.run_state[ledger.GATEWAY_FIRST])
    found: dict[str, list[Any]] = {
        name: [] for name in ("place", "class", "transactions", "least_ms", "mean_ms", "greatest_ms")
    }
    for gateway in gateways:
        here = waited[(gateway.endpoint - first) * classes :][: len(world.classes)]
        for name in dict.fromkeys(kind.name for kind in world.classes):  # a trace has a class per size
            rows = here[[kind.name == name for kind in world.classes]]
            rows = rows[rows[:, ledger.WAITED_COUNT] > 0]
            if len(rows):
                count, sum_ns = int(rows[:, ledger.WAITED_COUNT].sum()), int(rows[:, ledger.WAITED_SUM_NS].sum())
                least_ns, greatest_ns = (
                    int(rows[:, ledger.WAITED_LEAST_NS].min()),
                    int(rows[:, ledger.WAITED_GREATEST_NS].max()),
                )
                shown = (gateway.place, name, count, least_ns / 1e6, sum_ns / count / 1e6, greatest_ns / 1e6)
                for column, value in zip(found.values(), shown, strict=True):
                    column.append(value)
    return found


def _outcomes(world: World) -> dict[str, list[Any]]:
    """What became of the requests of each class; nothing of an attacker's."""
    found = outcomes.by_class(world.run) if world.gateways else {}
    return {name: [*values, *[None] * (len(world.classes) - len(values))] for name, values in found.items()}


def _tables(world: World, monitor: RunMonitor) -> dict[str, dict[str, Any]]:
    """Tidy tables of a run, as columns."""
    run = world.run
    client_us, client = metrics_.histogram(run, ledger.HIST_CLIENT)
    final_us, final = metrics_.histogram(run, ledger.HIST_FINAL)
    blocks = monitor.blocks.table()
    bin_ns = monitor.blocks.bin_ns
    bins = np.arange(int(run.run_state[kernel.NOW]) // bin_ns + 1)
    classes = run.engine.run_state[ledger.CLASS].reshape(-1, ledger.CLASS_WIDTH)
    messages = metrics_.message_table(run)
    faults = world.faults.reports
    rules = world.filters.reports()
    return {
        "blocks": {name: blocks[:, i] for i, name in enumerate(BLOCK_COLUMNS)},
        "latency_client": {"latency_us": client_us, "transactions": client},
        "latency_final": {"latency_us": final_us, "transactions": final},
        "timeline": {
            "start_s": bins * bin_ns / 1e9,
            "width_s": np.full(len(bins), bin_ns / 1e9),
            "committed": np.array([monitor.blocks.txs_by_bin.get(int(b), 0) for b in bins], dtype=np.int64),
            "decisions": np.array([monitor.blocks.decisions_by_bin.get(int(b), 0) for b in bins], dtype=np.int64),
        },
        "classes": {
            "name": [c.name for c in world.classes],
            "bytes": [c.size_bytes for c in world.classes],
            "data_label": [c.data_label for c in world.classes],
            "tag": [c.tag for c in world.classes],
            "submitted": [int(classes[i, ledger.CLASS_SUBMITTED]) for i in range(len(world.classes))],
            "committed": [int(classes[i, ledger.CLASS_COMMITTED]) for i in range(len(world.classes))],
            "use": [c.use for c in world.classes],
            "source": [c.source for c in world.classes],
            **_outcomes(world),
        },
        "orders": monitor.orders.table([c.name for c in world.classes]),
        "executed": outcomes.executed(run, [c.name for c in world.classes]),
        "latency_by_place": _waits(world),
        "messages_by_type": {
            name: [row[name] for row in messages] for name in ("type", "decides", "messages", "bytes", "dropped")
        },
        "faults": {
            "fault": [f.number for f in faults],
            "kind": [f.kind for f in faults],
            "began_s": [None if f.began_ns is None else f.began_ns / 1e9 for f in faults],
            "ended_s": [None if f.ended_ns is None else f.ended_ns / 1e9 for f in faults],
            "nodes": [",".join(map(str, f.nodes)) for f in faults],
            "messages": [f.messages for f in faults],
            "note": [f.note for f in faults],
        },
        "observers": world.followers.observer_table(monitor.lags),
        "catch_up": world.followers.catch_up_table(),
        "rules": {
            "rule": [rule.number for rule in rules],
            "kind": [rule.kind for rule in rules],
            "matched": [rule.matched for rule in rules],
            "messages": [rule.hits for rule in rules],
        },
    }
