"""A schematic map: where voters stand, their fault domains, and the links between them.

The outline is `data/hainan.geojson` (made with Natural Earth, public domain). Positions are to scale; links
are straight lines between sites, not the course of cables.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sim.network.links import Topology
from sim.network.sites import Site, sites
from sim.network.topology import family_edges
from sim.report.figures import COLOURS, footer, sheet, style
from sim.report.outcome import Outcome

OUTLINE = Path(__file__).parent / "data" / "hainan.geojson"
SOURCE = (
    "Schematic, sites to scale. Outline: Natural Earth (public domain). Sites: GeoNames (CC BY 4.0). "
    "Assumed (A): fault domains."
)
KM_PER_DEGREE = 111.195  # of latitude, on a sphere of 6371.0088 km
MARKERS = {"N": "o", "E": "s", "W": "^", "C": "D", "M": "v"}
_DOMAIN_COLOURS = {"N": COLOURS[1], "E": COLOURS[0], "W": COLOURS[2], "C": COLOURS[4], "M": COLOURS[5]}
_DOMAIN_NAMES = {"N": "north", "E": "east", "W": "west", "C": "centre", "M": "mainland"}
OTHER = "#555555"
OUTLINE_COLOURS = ("#f3f0e8", "#b9b2a3")  # land, coast
# Where a site's name stands: offset in points, and its alignment. Others: to the right.
_NAME_AT = {
    "HAK": ((9, 5), "left"),
    "RSC": ((-9, 5), "right"),
    "WEC": ((10, 2), "left"),
    "QHI": ((11, -2), "left"),
    "LSH": ((11, -6), "left"),
    "SYX": ((-11, -8), "right"),
    "YPG": ((-8, -13), "right"),
    "WZS": ((-11, -4), "right"),
}
_SHORT = {"RSC": "Laocheng park"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a map shows: sites of voters, linked pairs of them, a domain to mark, and a voter that moves."""

    voters: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    lost: str | None = None
    moved: tuple[str, str] | None = None


def plan_of(outcome: Outcome, *, storm: Outcome | None = None, cured: Outcome | None = None) -> Plan:
    """The map of a run's network; `storm` says which domain is lost, `cured` which voter stands elsewhere."""
    network = outcome.scenario["network"]
    voters = tuple(network["sites"] or ())
    places = list(dict.fromkeys(voters))
    topology = network["topology"]
    if topology["edges"]:
        links = tuple((edge["start"], edge["to"]) for edge in topology["edges"])
    else:
        graph = Topology(family=topology["family"], degree=topology["degree"])
        links = tuple((places[a], places[b]) for a, b in family_edges(graph, len(places), outcome.scenario["seed"]))
    lost = None
    for fault in storm.scenario["faults"] if storm is not None else ():
        lost = fault["lose_domain"]["domain"] if fault["lose_domain"] else lost
    moved = None
    if cured is not None:
        other = cured.scenario["network"]["sites"]
        pairs = [(a, b) for a, b in zip(voters, other, strict=True) if a != b]
        moved = pairs[0] if len(pairs) == 1 else None
    return Plan(voters, links, lost, moved)


def island_map(plan: Plan, outcomes: Sequence[Outcome], command: str) -> Figure:
    """The island with its voters."""
    with style():
        figure = sheet(7.6, 6.6)
        axes: Any = figure.add_subplot()
        shore = outline()
        land, coast = OUTLINE_COLOURS
        axes.fill(shore[:, 0], shore[:, 1], facecolor=land, edgecolor=coast, linewidth=0.9, zorder=1)
        table = sites()
        if plan.lost is not None:
            _mark_lost(axes, plan, table)
        for a, b in plan.links:
            _link(axes, table[a], table[b], broken=plan.lost in (table[a].domain, table[b].domain))
        _voters(axes, plan, table)
        if plan.moved is not None:
            _move(axes, table[plan.moved[0]], table[plan.moved[1]])
        frame(axes, shore, [table[code] for code in plan.voters])
        _key(axes, plan, table)
        axes.set_title(f"{len(plan.voters)} voters on Hainan: sites, fault domains, links")
        footer(figure, outcomes, command, SOURCE)
        return figure


def outline() -> NDArray[np.float64]:
    """The shore as longitude and latitude, degrees, shape (points, 2)."""
    data = json.loads(OUTLINE.read_text(encoding="utf-8"))
    return np.array(data["geometry"]["coordinates"][0], dtype=np.float64)


def circle_around(points: Sequence[tuple[float, float]], margin_km: float) -> tuple[float, float, float]:
    """Centre (longitude, latitude) and radius, km, of a circle about the middle of the farthest two."""
    lon, lat = np.array(points).T
    stretch = np.cos(np.radians(lat.mean()))
    apart = np.hypot((lon[:, None] - lon) * stretch, lat[:, None] - lat)
    a, b = np.unravel_index(int(apart.argmax()), apart.shape)
    x, y = (lon[a] + lon[b]) / 2, (lat[a] + lat[b]) / 2
    radius = np.hypot((lon - x) * stretch, lat - y).max() * KM_PER_DEGREE + margin_km
    return float(x), float(y), float(radius)


def _mark_lost(axes: Any, plan: Plan, table: Any) -> None:
    inside = [table[code] for code in plan.voters if table[code].domain == plan.lost]
    if not inside:
        return
    lon, lat, radius_km = circle_around([(s.longitude_deg, s.latitude_deg) for s in inside], 8)
    turn = np.linspace(0, 2 * np.pi, 181)
    x = lon + radius_km * np.cos(turn) / (KM_PER_DEGREE * np.cos(np.radians(lat)))
    y = lat + radius_km * np.sin(turn) / KM_PER_DEGREE
    colour = _DOMAIN_COLOURS.get(plan.lost or "", COLOURS[1])
    axes.fill(x, y, facecolor=colour, alpha=0.10, edgecolor="none", zorder=2)
    axes.plot(x, y, color=colour, linewidth=1.1, linestyle=(0, (4, 2)), zorder=2)
    axes.annotate(
        f"domain {plan.lost}: lost in the storm,\n{len(inside)} of {len(plan.voters)} voters",
        (x[20], y[20]),
        xytext=(8, 4),
        textcoords="offset points",
        fontsize=8.5,
        color=colour,
        fontweight="bold",
        va="bottom",
    )


def _link(axes: Any, a: Site, b: Site, *, broken: bool) -> None:
    axes.plot(
        [a.longitude_deg, b.longitude_deg],
        [a.latitude_deg, b.latitude_deg],
        color=COLOURS[1] if broken else "#7d8790",
        linewidth=0.7 if broken else 0.9,
        linestyle=(0, (2, 2)) if broken else "-",
        zorder=3,
    )


def _voters(axes: Any, plan: Plan, table: Any) -> None:
    for code in dict.fromkeys(plan.voters):
        site, count = table[code], plan.voters.count(code)
        _dot(axes, site, filled=True)
        name_site(axes, site, f" ×{count}" if count > 1 else "")


def _dot(axes: Any, site: Site, *, filled: bool) -> None:
    colour = _DOMAIN_COLOURS.get(site.domain, OTHER)
    axes.plot(
        site.longitude_deg,
        site.latitude_deg,
        marker=MARKERS.get(site.domain, "P"),
        markersize=9.5,
        markerfacecolor=colour if filled else "white",
        markeredgecolor="white" if filled else colour,
        markeredgewidth=1.0 if filled else 1.8,
        linestyle="none",
        zorder=5,
    )


def name_site(axes: Any, site: Site, more: str = "", *, name: str | None = None) -> None:
    offset, align = _NAME_AT.get(site.code, ((10, -3), "left"))
    axes.annotate(
        f"{site.code} {name or _SHORT.get(site.code, site.name)}{more}",
        (site.longitude_deg, site.latitude_deg),
        xytext=offset,
        textcoords="offset points",
        ha=align,
        fontsize=8.5,
        color="#222222",
        zorder=6,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
    )


def _move(axes: Any, old: Site, new: Site) -> None:
    _dot(axes, new, filled=False)
    name_site(axes, new)
    axes.annotate(
        "",
        (new.longitude_deg, new.latitude_deg),
        xytext=(old.longitude_deg, old.latitude_deg),
        arrowprops={
            "arrowstyle": "-|>",
            "color": _DOMAIN_COLOURS.get(new.domain, OTHER),
            "linewidth": 1.6,
            "shrinkA": 7,
            "shrinkB": 7,
            "connectionstyle": "arc3,rad=0.25",
        },
        zorder=4,
    )


def frame(axes: Any, shore: NDArray[np.float64], voters: Sequence[Site]) -> None:
    lon = np.concatenate((shore[:, 0], [site.longitude_deg for site in voters]))
    lat = np.concatenate((shore[:, 1], [site.latitude_deg for site in voters]))
    axes.set_xlim(lon.min() - 0.32, lon.max() + 0.38)
    axes.set_ylim(lat.min() - 0.34, lat.max() + 0.26)
    axes.set_aspect(1 / np.cos(np.radians(lat.mean())))
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    x, y = lon.max() - 0.35, lat.min() - 0.22
    length = 50 / (KM_PER_DEGREE * np.cos(np.radians(y)))
    axes.plot([x, x + length], [y, y], color="#333333", linewidth=2, solid_capstyle="butt")
    axes.text(x + length / 2, y + 0.03, "50 km", ha="center", va="bottom", fontsize=8.5, color="#333333")


def _key(axes: Any, plan: Plan, table: Any) -> None:
    from matplotlib.lines import Line2D

    codes = [*plan.voters, *([plan.moved[1]] if plan.moved else [])]
    shown = dict.fromkeys(table[code].domain for code in codes)
    items: list[Any] = []
    for domain in shown:
        filled = any(table[code].domain == domain for code in plan.voters)
        colour = _DOMAIN_COLOURS.get(domain, OTHER)
        items.append(
            Line2D(
                [], [],
                marker=MARKERS.get(domain, "P"),
                linestyle="none",
                markersize=8,
                markerfacecolor=colour if filled else "white",
                markeredgecolor=colour,
                label=f"domain {domain} ({_DOMAIN_NAMES.get(domain, 'other')})",
            )
        )  # fmt: skip
    items.append(Line2D([], [], color="#7d8790", linewidth=0.9, label="link"))
    if plan.lost is not None:
        text = f"link lost with {plan.lost}"
        items.append(Line2D([], [], color=COLOURS[1], linewidth=0.9, linestyle=(0, (2, 2)), label=text))
    if plan.moved is not None:
        colour = _DOMAIN_COLOURS.get(table[plan.moved[1]].domain, OTHER)
        text = f"cured design: voter moves\nfrom {plan.moved[0]} to {plan.moved[1]}"
        items.append(Line2D([], [], color=colour, linewidth=1.6, label=text))
    axes.legend(handles=items, loc="upper left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0)
