"""Which losses halt a design, which slow it, and by how much: every element alone and every set of up to k.

As in a power grid's N-1 and N-2 studies. Each loss is one run of the scenario, whose own faults are left out: the
elements are lost at 10 s, for a time, and come back together; the calm run is compared with. The runs are an
ordinary study, stored and reused like one.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from sim.measure.resilience import sensitivity_s
from sim.plan.downtime import Downtime, downtime
from sim.plan.losses import KINDS, Element, Kind, can_decide, elements, losses
from sim.protocol import Quorum
from sim.scenario.build import build
from sim.scenario.errors import ScenarioError
from sim.scenario.load import load_scenario
from sim.scenario.results import frame_of
from sim.scenario.schema import Scenario
from sim.scenario.sweep import Tell, sweep
from sim.units import format_ns

AT_S = 10
RUNS_MAX = 5_000
SLOW = 1.25  # a p99 latency above this multiple of the calm run's counts as slow
OUTAGE_NS = 20_000_000_000
TAIL_NS = 10_000_000_000  # least time to recover in
Effect = Literal["carries on", "slows", "halts"]


@dataclasses.dataclass(frozen=True)
class Loss:
    """What losing a set of elements did. Ratios are to the calm run; None where nothing was answered."""

    lost: tuple[Element, ...]
    effect: Effect
    predicted_halt: bool
    committed_ratio: float
    latency_p99_ratio: float | None
    recovery_s: float | None
    sensitivity_s: float  # area between the latency distributions of this and the calm run (Stabl); infinite: halted
    status: str
    key: str

    @property
    def name(self) -> str:
        """The elements in words."""
        return " + ".join(map(str, self.lost))


@dataclasses.dataclass(frozen=True)
class Contingency:
    """A finished study: the losses, singles first, and expected downtime where voters have locations."""

    scenario: Scenario
    needs: tuple[Quorum, ...]  # all to be met by voters that hear each other, to decide anything
    elements: tuple[Element, ...]
    losses: tuple[Loss, ...]
    downtime: Downtime | None
    folder: Path

    @property
    def quorum(self) -> int:
        """So many voters are enough, whichever they are."""
        return max(need.voters_needed() for need in self.needs)

    @property
    def mispredicted(self) -> tuple[Loss, ...]:
        """Losses whose run disagrees with the structure function."""
        return tuple(loss for loss in self.losses if loss.predicted_halt != (loss.effect == "halts"))


def contingency(
    path: str | os.PathLike[str],
    *,
    most: int = 1,
    kinds: Iterable[Kind] = KINDS,
    outage_ns: int = OUTAGE_NS,
    overrides: Sequence[str] = (),
    out: str | os.PathLike[str] = "results",
    workers: int = 2,
    tell: Tell | None = None,
) -> Contingency:
    """Lose every element of a scenario, and every set of up to `most`. Raises ScenarioError."""
    base = load_scenario(Path(path), list(overrides))
    found = elements(base.network, kinds)
    sets = losses(found, most)
    if len(sets) > RUNS_MAX:
        raise ScenarioError(
            f"{path}: up to {most} of {len(found)} elements together are {len(sets)} runs, and {RUNS_MAX} is the "
            "limit; lose fewer at a time (-k), or fewer kinds (--kinds node,domain)"
        )
    study = _write_study(Path(path), base, sets, outage_ns, Path(out))
    swept = sweep(study, out=out, workers=workers, overrides=overrides, tell=tell)
    if swept.stopped:
        raise ScenarioError(f"{study}: the sweep ended early: {swept.stopped}; run the command again")
    needs = needs_of(base)
    rows = frame_of(swept.runs, truncated=True).to_dict("records")
    calm = rows[0]
    latencies = {key: _latencies(swept.folder, key) for key in (str(row["key"]) for row in rows)}
    window = (AT_S, AT_S + outage_ns / 1e9)
    calm_txs, _ = _committed(swept.folder, str(calm["key"]), window)
    judged = [
        _judge(lost, row, calm, calm_txs, swept.folder, window, can_decide(base.network.n, needs, lost), latencies)
        for lost, row in zip(sets, rows[1:], strict=True)
    ]
    return Contingency(base, needs, tuple(found), tuple(judged), downtime(base.network, needs, base.seed), swept.folder)


def _write_study(path: Path, base: Scenario, sets: Sequence[tuple[Element, ...]], outage_ns: int, out: Path) -> Path:
    """The study file: the calm case, then one case per loss."""
    times = {"at": f"{AT_S} s", "for": format_ns(outage_ns)}
    cases = [{"faults": []}, *({"faults": [times | element.fault for element in lost]} for lost in sets)]
    tail_ns = max(outage_ns, TAIL_NS)
    folder = out / f"contingency-{base.name}"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"contingency-{base.name}.yaml"
    data = {
        "base": os.path.relpath(path, folder),
        "description": f"contingencies of {base.name}",
        "set": {
            "duration": format_ns(AT_S * 10**9 + outage_ns + tail_ns),
            "warm_up": "5 s",
            "liveness_bound": format_ns(tail_ns),
            "stop_after_decisions": None,
        },
        "sweep": {"cases": cases},
    }
    file.write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")  # JSON is YAML
    return file


def needs_of(base: Scenario) -> tuple[Quorum, ...]:
    """What voters must meet to decide anything, as the protocol itself says."""
    replica = build(base).run.hosts[0].replica
    assert replica is not None
    return replica.needs()


def halting(base: Scenario, kinds: Iterable[Kind] = ("domain",)) -> list[Element]:
    """Elements whose loss alone halts a scenario, by the arithmetic of its quorums: nothing is run."""
    needs = needs_of(base)
    return [element for element in elements(base.network, kinds) if not can_decide(base.network.n, needs, (element,))]


def _committed(folder: Path, key: str, window: tuple[float, float]) -> tuple[int, int]:
    """Transactions committed while the elements were lost, and blocks decided in the second half of that time."""
    table = pq.read_table(folder / "runs" / key / "timeline.parquet").to_pydict()
    half = (window[0] + window[1]) / 2
    txs = blocks = 0
    columns = (table["start_s"], table["width_s"], table["committed"], table["decisions"])
    for start, width, committed, decisions in zip(*columns, strict=True):
        if window[0] <= start and start + width <= window[1]:  # whole bins: what heals in the last one is no decision
            txs += committed
            blocks += decisions if start >= half else 0
    return txs, blocks


def _latencies(folder: Path, key: str) -> dict[str, Any]:
    """Latency at the client, or to finality where no client was answered."""
    tables = (pq.read_table(folder / "runs" / key / f"latency_{what}.parquet") for what in ("client", "final"))
    client, final = (dict(table.to_pydict()) for table in tables)
    return client if client["transactions"] else final


def _judge(
    lost: tuple[Element, ...],
    row: Mapping[Hashable, Any],
    calm: Mapping[Hashable, Any],
    calm_txs: int,
    folder: Path,
    window: tuple[float, float],
    possible: bool,
    latencies: Mapping[str, Mapping[str, Any]],
) -> Loss:
    key = str(row["key"])
    txs, blocks = _committed(folder, key, window)
    p99, calm_p99 = _number(row["latency_p99_ms"]), _number(calm["latency_p99_ms"])
    ratio = p99 / calm_p99 if p99 is not None and calm_p99 else None
    effect: Effect = "halts" if blocks == 0 else ("slows" if ratio is not None and ratio > SLOW else "carries on")
    return Loss(
        lost,
        effect,
        not possible,
        txs / calm_txs if calm_txs else 0.0,
        ratio,
        _number(row.get("recovery_s")),
        sensitivity_s(latencies[key], latencies[str(calm["key"])], live=row["status"] != "liveness failure"),
        str(row["status"]),
        key,
    )


def _number(value: object) -> float | None:
    """A metric that is there."""
    return float(value) if isinstance(value, (int, float)) and value == value else None


__all__ = ["Contingency", "Effect", "Loss", "contingency"]
