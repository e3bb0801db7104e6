"""Demand of the pilot zone: documented uses as transaction classes, scaled to a tier.

Source: `sim/network/data/demand.csv`; each row names its own. Tier T1 is today's uses, T2 adds one hash per
data-sharing call ("all anchored"), T3 assumes five-fold growth of that. A tier fixes the total rate on
average and at coincident peaks (A); rows keep their proportions, sizes, labels and tags. Vendors' claims of
20 000 to 240 000 tx/s lie one to three orders of magnitude above these totals.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

from sim.network.sites import DATA, read_rows

Tier = Literal["T1", "T2", "T3"]
Level = Literal["average", "peak"]

# Total rate of all classes, tx/s: (average, coincident peaks).
TIER_TPS: dict[str, tuple[float, float]] = {"T1": (20.0, 200.0), "T2": (80.0, 600.0), "T3": (400.0, 3000.0)}
_ANCHORS = "sharing_anchor"  # the row that T1 leaves out


@dataclasses.dataclass(frozen=True)
class DemandRow:
    """One documented use. Rates in tx/s, `tag` D (derived from a published figure) or A (assumed)."""

    use: str
    name: str
    average_tps: float
    peak_tps: float
    shape: str
    size_bytes: int
    data_label: str
    tag: str
    source: str


@dataclasses.dataclass(frozen=True)
class DemandClass:
    """A transaction class at a tier and level: `rate_tps` summed over all sites."""

    name: str
    rate_tps: float
    size_bytes: int
    shape: str
    data_label: str
    tag: str


@functools.cache
def rows() -> tuple[DemandRow, ...]:
    """The documented uses, in the file's order."""
    return tuple(
        DemandRow(
            use=row["use"],
            name=row["class"],
            average_tps=float(row["average_tps"]),
            peak_tps=float(row["peak_tps"]),
            shape=row["arrival_shape"],
            size_bytes=int(row["bytes"]),
            data_label=row["data_label"],
            tag=row["tag"],
            source=row["source"],
        )
        for row in read_rows(DATA / "demand.csv")
    )


def total_tps(tier: str, level: str) -> float:
    """Rate of all classes of a tier at a level, tx/s."""
    average, peak = TIER_TPS[tier]
    return average if level == "average" else peak


def classes(tier: str, level: str, rate_tps: float | None = None) -> tuple[DemandClass, ...]:
    """Classes of a tier ("T1", "T2", "T3") at a level ("average", "peak"); rates sum to the tier's total or `rate_tps`.

    Raises KeyError for an unknown tier, ValueError for an unknown level.
    """
    if level not in ("average", "peak"):
        raise ValueError(f"{level}: no such level; choose average or peak")
    chosen = [row for row in rows() if tier != "T1" or row.name != _ANCHORS]
    raw = [row.average_tps if level == "average" else row.peak_tps for row in chosen]
    goal, total = total_tps(tier, level) if rate_tps is None else rate_tps, sum(raw)
    return tuple(
        DemandClass(row.name, tps * goal / total, row.size_bytes, row.shape, row.data_label, row.tag)
        for row, tps in zip(chosen, raw, strict=True)
    )
