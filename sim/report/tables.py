"""The whole table of a comparison, as Markdown and as CSV. Assumptions are marked (A)."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sim.faults.settings import Fault
from sim.report.outcome import Outcome
from sim.report.words import say
from sim.units import format_ns

VENDOR_NOTE = say("en", "vendors")
NOTHING = "–"


@dataclasses.dataclass(frozen=True)
class Column:
    """A metric as a column: `digits` behind the point."""

    title: str
    metric: str
    unit: str
    digits: int = 1


COLUMNS = (
    Column("offered", "offered_tps", "tx/s"),
    Column("committed", "committed_tps", "tx/s"),
    Column("latency p50", "latency_p50_ms", "ms"),
    Column("latency p95", "latency_p95_ms", "ms"),
    Column("latency p99", "latency_p99_ms", "ms"),
    Column("decision latency", "decision_latency_mean_ms", "ms"),
    Column("messages/ decision", "messages_per_decision", ""),
    Column("longest pause", "longest_pause_s", "s", 2),
    Column("recovery", "recovery_s", "s", 3),
    Column("rejected", "rejected", "tx"),
    Column("pending", "pending", "tx"),
)
_CSV_MORE = ("submitted", "committed", "acknowledged", "expired", "decisions", "view_changes", "simulated_s")

_FROM_DEMAND = ("offered_tps", "committed_tps", "rejected", "pending")
_FROM_DISTANCE = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "decision_latency_mean_ms")
_FROM_FAULTS = ("latency_p95_ms", "latency_p99_ms", "longest_pause_s", "recovery_s", "rejected", "pending")


def assumed(outcome: Outcome) -> dict[str, tuple[str, ...]]:
    """Why a run's numbers rest on assumptions: reason -> the metrics that do."""
    found: dict[str, tuple[str, ...]] = {}
    if "A" in outcome.tables["classes"]["tag"]:
        found["rates and sizes of the transaction classes with tag A"] = _FROM_DEMAND
    if outcome.scenario["network"]["latency"]["model"] == "distance":
        found["round trips are estimated from distance; no measured ones were found"] = _FROM_DISTANCE
    if outcome.scenario["faults"]:
        found["when faults come, how long they last, and that all their nodes fail together"] = _FROM_FAULTS
    return found


def assumed_metrics(outcomes: Sequence[Outcome]) -> set[str]:
    """The metrics that rest on an assumption in any of the runs."""
    return {metric for outcome in outcomes for metrics in assumed(outcome).values() for metric in metrics}


def notes(outcomes: Sequence[Outcome]) -> list[str]:
    """What belongs under a table or figure of these runs."""
    lines = []
    reasons: dict[str, list[str]] = {}
    for outcome in outcomes:
        for reason, metrics in assumed(outcome).items():
            reasons.setdefault(reason, list(metrics))
    if reasons:
        titles = {column.metric: column.title.replace("/ ", "/") for column in COLUMNS}
        lines += [f"(A) {', '.join(titles[m] for m in metrics)}: {reason}." for reason, metrics in reasons.items()]
    played_short: dict[str, list[str]] = {}
    for outcome in outcomes:
        for fault in outcome.scenario["faults"]:
            if scale := Fault.model_validate(fault).scale():
                played_short.setdefault(scale, []).append(outcome.label)
    lines += different_rules((outcome.label, outcome.scenario) for outcome in outcomes)
    lines += [f"{', '.join(labels)}: {text}." for text, labels in played_short.items()]
    lines.append(VENDOR_NOTE)
    return lines


_PERIODS = {  # parameters with which protocols space blocks
    "block_period_ns": "block_period", "step_duration_ns": "step_duration", "timeout_commit_ns": "timeout_commit",
    "min_block_delay_ns": "min_block_delay",
}  # fmt: skip


def different_rules(designs: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """A line, if blocks of designs (name, resolved scenario) are made by different rules: which rule each has."""
    produced: dict[str, list[str]] = {}
    for name, scenario in designs:
        names = produced.setdefault(block_production(scenario), [])
        if name not in names:
            names.append(name)
    if len(produced) < 2:
        return []
    ways = "; ".join(f"{', '.join(names)}: {way}" for way, names in produced.items())
    return [f"Blocks are made by different rules: {ways}."]


def block_production(scenario: Mapping[str, Any]) -> str:
    """When blocks of a resolved scenario are made, in words."""
    block, parameters = scenario["block"], scenario["protocol"]["parameters"]
    keys = ("period", "empty_period", "batch_timeout", "interval", "time_step", "rebuilt_every")
    rules = [(key, block[f"{key}_ns"]) for key in keys]
    rules += [(name, parameters.get(field)) for field, name in _PERIODS.items()]
    said = [f"{name} {format_ns(time_ns)}" for name, time_ns in rules if time_ns]
    if block["batch_from"] != "transaction":
        said.append(f"batches from the {block['batch_from'].replace('_', ' ')}")
    said += ["at beats"] * block["ticks"] + ["built when the parent comes"] * (block["built"] == "at_parent")
    return ", ".join(said) or "as soon as something waits"


def headings(outcomes: Sequence[Outcome]) -> list[str]:
    """Titles of the columns with unit, and (A) where numbers rest on assumptions."""
    marked = assumed_metrics(outcomes)
    titles = ["design", "status"]
    for column in COLUMNS:
        unit = f" [{column.unit}]" if column.unit else ""
        titles.append(f"{column.title}{unit}{' (A)' if column.metric in marked else ''}")
    return titles


def rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """One row of text per run, in the order of `headings`."""
    return [[o.label, o.status, *(shown(o.metrics.get(c.metric), c.digits) for c in COLUMNS)] for o in outcomes]


def shown(value: float | int | None, digits: int) -> str:
    """A number for people: thousands separated, whole from 10,000 on; a dash where there is none."""
    if value is None:
        return NOTHING
    if isinstance(value, int) or abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:,.{digits}f}"


def markdown(outcomes: Sequence[Outcome], command: str) -> str:
    """A page of its own: table, notes, and the command that makes it again."""
    titles = [title.replace("/ ", "/") for title in headings(outcomes)]
    lines = ["| " + " | ".join(titles) + " |", "|---|---|" + "---:|" * len(COLUMNS)]
    lines += ["| " + " | ".join(row) + " |" for row in rows(outcomes)]
    lines += ["", *(f"- {note}" for note in notes(outcomes))]
    first = outcomes[0]
    seeds = ", ".join(map(str, sorted({outcome.seed for outcome in outcomes})))
    lines += [f"- pilotzone {first.version}, seed {seeds}; made by `{command}`."]
    return "\n".join(lines) + "\n"


def as_csv(outcomes: Sequence[Outcome]) -> str:
    """Metrics under their own names, unrounded, and what determines each run. Empty: no such number."""
    names = [*(column.metric for column in COLUMNS), *_CSV_MORE]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["design", "status", *names, "assumed", "seed", "version", "scenario_hash", "digest"])
    for o in outcomes:
        values = ["" if o.metrics.get(name) is None else repr(o.metrics[name]) for name in names]
        marked = " ".join(column.metric for column in COLUMNS if column.metric in assumed_metrics([o]))
        writer.writerow([o.label, o.status, *values, marked, o.seed, o.version, o.scenario_hash, o.digest])
    return stream.getvalue()


CALIPER = (
    "Name", "Succ", "Fail", "Send Rate (TPS)", "Max Latency (s)", "Min Latency (s)", "Avg Latency (s)",
    "Throughput (TPS)",
)  # fmt: skip


def as_caliper(outcomes: Sequence[Outcome]) -> str:
    """The columns of Caliper's report, so that runs and measurements stand in one table. A run without clients: none.

    Succ are transactions whose clients were answered, Fail those that were refused or lost; what still waits is
    neither, as in Caliper. Latencies are of transactions submitted after the warm-up; throughput is of the whole run.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CALIPER)
    for o in outcomes:
        if o.metrics["offered_tps"] is None:
            continue
        waits = o.tables["latency_client"]
        latency_us, weight = np.asarray(waits["latency_us"], float), np.asarray(waits["transactions"], float)
        succ, refused, lost = (int(o.metrics[name] or 0) for name in ("acknowledged", "rejected", "expired"))
        times = [""] * 3
        if weight.sum() > 0:
            mean_us = (latency_us * weight).sum() / weight.sum()
            times = [f"{us / 1e6:.3f}" for us in (latency_us[-1], latency_us[0], mean_us)]
        throughput = succ / float(o.metrics["simulated_s"] or 1)
        writer.writerow([o.label, succ, refused + lost, f"{o.metrics['offered_tps']:.1f}", *times, f"{throughput:.1f}"])
    return stream.getvalue()


def as_data(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """For `--json`: one object per run, with all its metrics."""
    return [
        {
            "design": o.label,
            "status": o.status,
            "metrics": o.metrics,
            "assumed": {reason: list(metrics) for reason, metrics in assumed(o).items()},
            "seed": o.seed,
            "scenario_hash": o.scenario_hash,
            "digest": o.digest,
        }
        for o in outcomes
    ]
