"""The pilot zone's uses as a table: documented rates with their tags and sources, and the totals of the tiers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from sim.units import format_ns
from sim.workload.demand import TIER_TPS, DemandRow, rows

_ANCHORS = "sharing_anchor"
_BESIDE = ("data_asset_trade", "regulator_query")  # rows of the table that its totals leave out


def data() -> dict[str, Any]:
    """Rows and totals as plain values."""
    return {
        "rows": [
            {field.name: getattr(row, field.name) for field in dataclasses.fields(row) if field.name != "accesses"}
            | {"accesses": [access.model_dump(mode="json") for access in row.accesses]}
            for row in rows()
        ],
        "totals": totals(),
        "tiers": {tier: {"average_tps": both[0], "peak_tps": both[1]} for tier, both in TIER_TPS.items()},
    }


def totals() -> dict[str, dict[str, float]]:
    """Sums of rates as published or assumed, tx/s, before tiers round and scale them."""
    documented = [row for row in rows() if not row.beyond]
    parts = {
        "documented uses": [row for row in documented if row.name not in (_ANCHORS, *_BESIDE)],
        "with a hash per data-sharing call": [row for row in documented if row.name not in _BESIDE],
        "all rows of the table": documented,
        "beyond the table": [row for row in rows() if row.beyond],
    }
    return {name: _sum(part) for name, part in parts.items()}


def _sum(part: list[DemandRow]) -> dict[str, float]:
    assumed = sum(row.average_tps for row in part if row.tag == "A")
    return {
        "average_tps": sum(row.average_tps for row in part),
        "peak_tps": sum(row.peak_tps for row in part),
        "assumed_average_tps": assumed,
    }


def lines() -> Iterator[str]:
    """The table at 80 columns."""
    yield f"{'use':<12} {'class':<23} {'average':>7} {'peak':>6}  {'tag':<3} {'answered by':<11} {'label'}"
    last = None
    for row in rows():
        if row.beyond and last is not None:
            yield "named by the brief, no figure published:"
            last = None
        elif not row.beyond:
            last = row
        yield (
            f"{row.use:<12} {row.name:<23} {row.average_tps:>7g} {row.peak_tps:>6g}  {row.tag:<3} "
            f"{format_ns(row.deadline_ns):<11} {row.data_label}"
        )
    yield "D: derived from a published figure; A: assumed. Deadlines and keys are assumed."
    yield ""
    yield f"{'total, tx/s':<36} {'average':>8} {'peak':>8} {'assumed':>9}"
    for name, total in totals().items():
        assumed = 100 * total["assumed_average_tps"] / total["average_tps"]
        yield f"{name:<36} {total['average_tps']:>8.1f} {total['peak_tps']:>8.1f} {assumed:>7.0f} %"
    yield ""
    for tier, (average, peak) in TIER_TPS.items():
        yield f"{tier}: {average:,g} tx/s on average, {peak:,g} at coincident peaks (A)"
