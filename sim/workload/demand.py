"""Demand of the pilot zone: documented uses as transaction classes, scaled to a tier.

Source: `sim/network/data/demand.csv`; each row names its own. Tier T1 is today's uses, T2 adds one hash per
data-sharing call ("all anchored"), T3 assumes five-fold growth of that, T4 is T3 with so many container events that
all together are 10 000 tx/s. A tier fixes the total rate on average and at coincident peaks (A); rows keep their
proportions, sizes, labels and tags. Vendors' claims of 20 000 to 240 000 tx/s lie one to three orders of magnitude
above these totals. What classes do with shared state, where they enter and by when they must be answered stands in
`uses.yaml` (A), and so do classes that the brief names and nobody published a figure for.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, Literal

from sim.network.sites import DATA, read_rows
from sim.units import parse_bytes, parse_ns, parse_rate_tps
from sim.workload.keys import KeyAccess

Tier = Literal["T1", "T2", "T3", "T4"]
Level = Literal["average", "peak"]
Use = Literal[
    "trade",
    "investment",
    "finance",
    "transport",
    "people",
    "livelihood",
    "sme_finance",
    "bank_risk",
    "data",
    "supervision",
    "cross_border",
]
USES_FILE = Path(__file__).with_name("uses.yaml")

# Total rate of all classes, tx/s: (average, coincident peaks).
TIER_TPS: dict[str, tuple[float, float]] = {
    "T1": (20.0, 200.0),
    "T2": (80.0, 600.0),
    "T3": (400.0, 3000.0),
    "T4": (10_000.0, 10_000.0),
}
_ANCHORS = "sharing_anchor"  # the row that T1 leaves out
_CONTAINERS = "container_event"  # the row that grows in T4


@dataclasses.dataclass(frozen=True)
class DemandRow:
    """One use. Rates in tx/s, `tag` D (derived from a published figure) or A (assumed).

    `beyond`: named by the brief, but no part of the tiers' totals. Everything from `sites` on is assumed.
    """

    use: str
    name: str
    figure: str
    average_tps: float
    peak_tps: float
    shape: str
    size_bytes: int
    data_label: str
    tag: str
    source: str
    beyond: bool
    sites: tuple[str, ...]
    organisations: tuple[str, ...]
    deadline_ns: int
    signatures: int
    supervises: bool
    follows: str | None
    accesses: tuple[KeyAccess, ...]


@dataclasses.dataclass(frozen=True)
class DemandClass:
    """A transaction class at a tier and level: `rate_tps` summed over all sites."""

    row: DemandRow
    rate_tps: float


@functools.cache
def _facts() -> dict[str, Any]:
    from ruamel.yaml import YAML

    loaded: dict[str, Any] = YAML(typ="safe", pure=True).load(USES_FILE)
    return loaded


@functools.cache
def spaces() -> dict[str, int]:
    """How many keys of each kind the documented uses share."""
    return dict(_facts()["spaces"])


def _details(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "sites": tuple(facts["sites"]),
        "organisations": tuple(facts["organisations"]),
        "deadline_ns": parse_ns(facts["deadline"]),
        "signatures": facts.get("signatures", 1),
        "supervises": facts.get("supervises", False),
        "follows": facts.get("follows"),
        "accesses": tuple(KeyAccess.from_text(access) for access in facts["accesses"]),
    }


@functools.cache
def rows() -> tuple[DemandRow, ...]:
    """The uses: those of the table, in the file's order, then those beyond it."""
    classes = _facts()["classes"]
    documented = [
        DemandRow(
            use=row["use"],
            name=row["class"],
            figure=row["published_figure"],
            average_tps=float(row["average_tps"]),
            peak_tps=float(row["peak_tps"]),
            shape=row["arrival_shape"],
            size_bytes=int(row["bytes"]),
            data_label=row["data_label"],
            tag=row["tag"],
            source=row["source"],
            beyond=False,
            **_details(classes[row["class"]]),
        )
        for row in read_rows(DATA / "demand.csv")
    ]
    more = [
        DemandRow(
            use=facts["use"],
            name=name,
            figure="named by the brief; no figure published",
            average_tps=parse_rate_tps(facts["average"]),
            peak_tps=parse_rate_tps(facts["peak"]),
            shape=facts["shape"],
            size_bytes=parse_bytes(facts["bytes"]),
            data_label=facts["label"],
            tag="A",
            source="none",
            beyond=True,
            **_details(facts),
        )
        for name, facts in _facts()["beyond"].items()
    ]
    return (*documented, *more)


def total_tps(tier: str, level: str) -> float:
    """Rate of all classes of a tier at a level, tx/s."""
    average, peak = TIER_TPS[tier]
    return average if level == "average" else peak


def classes(
    tier: str, level: str, rate_tps: float | None = None, *, uses: tuple[str, ...] = (), beyond: bool = False
) -> tuple[DemandClass, ...]:
    """Classes of a tier ("T1" to "T4") at a level ("average", "peak"); rates sum to the tier's total or `rate_tps`.

    `uses` picks some: they keep the rates they have among all, or share `rate_tps`. `beyond` adds what the brief names
    besides, at its own rates, which grow with the tier. Raises KeyError for an unknown tier, ValueError for a level.
    """
    if level not in ("average", "peak"):
        raise ValueError(f"{level}: no such level; choose average or peak")
    if rate_tps is not None and not uses and not beyond and tier != "T4":
        return tuple(_scaled(tier, level, rate_tps))
    found = _scaled(tier, level, total_tps(tier, level))
    if beyond:
        growth = 5.0 if tier in ("T3", "T4") else 1.0
        more = (row for row in rows() if row.beyond)
        found += [DemandClass(row, growth * (row.average_tps if level == "average" else row.peak_tps)) for row in more]
    found = [one for one in found if not uses or one.row.use in uses]
    if rate_tps is not None:
        total = sum(one.rate_tps for one in found)
        found = [dataclasses.replace(one, rate_tps=one.rate_tps * rate_tps / total) for one in found]
    return tuple(found)


def _scaled(tier: str, level: str, goal: float) -> list[DemandClass]:
    """The rows of the table, at rates that sum to a goal, tx/s."""
    if tier == "T4":
        found = _scaled("T3", level, total_tps("T3", level))
        rest = goal - sum(one.rate_tps for one in found if one.row.name != _CONTAINERS)
        return [dataclasses.replace(one, rate_tps=rest) if one.row.name == _CONTAINERS else one for one in found]
    chosen = [row for row in rows() if not row.beyond and (tier != "T1" or row.name != _ANCHORS)]
    raw = [row.average_tps if level == "average" else row.peak_tps for row in chosen]
    total = sum(raw)
    return [DemandClass(row, tps * goal / total) for row, tps in zip(chosen, raw, strict=True)]
