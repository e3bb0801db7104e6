"""Throughput against latency: one line per protocol, one panel per size of the network, from a study.

The study varies `protocol` and the rate of its first source, and perhaps `network.nodes`. Several studies are drawn as
one where protocols need runs of different length. Points are means over replications; bands and bars are Student
intervals at 95 %. A run that is not ok is left out, and said.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import FuncFormatter

from sim.measure.statistics import Interval, t_interval
from sim.measure.statistics.intervals import caution
from sim.protocols import PROTOCOLS
from sim.report.effects import LEVEL
from sim.report.figures import COLOURS, save, sheet, style
from sim.report.words import listed
from sim.scenario.errors import ScenarioError
from sim.units import parse_rate_tps

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

RATE, PROTOCOL, NODES = "workload.0.rate", "protocol", "network.nodes"
_MARKS = ("o", "s", "^", "D", "v", "P", "X")
_ENOUGH = 0.95  # of the offered load: who commits less does not keep up
_FIELDS = ("committed_tps", "latency_p50_ms", "latency_p99_ms")


@dataclasses.dataclass(frozen=True)
class Point:
    """One protocol at one size and offered rate; intervals of the metrics, None where no ok run has a value."""

    protocol: str
    nodes: str
    offered: str
    n: int
    left_out: int
    values: dict[str, Interval | None]


def check(swept: Sequence[str]) -> None:
    """Raise ScenarioError unless a study varies what the curves are drawn of."""
    missing = [key for key in (PROTOCOL, RATE) if key not in swept]
    if missing:
        raise ScenarioError(f"the study does not vary {' and '.join(missing)}; vary both, or use pilotzone publish")


def points(frame: pd.DataFrame) -> list[Point]:
    """All points of a study's frame (`sim.results`), in its order."""
    found = []
    for _, runs in frame.groupby("case", sort=True):
        first, ok = runs.iloc[0], runs[runs.status == "ok"]
        name, nodes, offered = _name(first[PROTOCOL]), str(first.get(NODES, "")), str(first[RATE])
        values = {field: _interval(ok[field].dropna().to_numpy(dtype=float)) for field in _FIELDS}
        found.append(Point(name, nodes, offered, len(ok), len(runs) - len(ok), values))
    return found


def gathered(frames: Sequence[pd.DataFrame]) -> list[Point]:
    """Points of several studies, those of the same size together, sizes as they came first."""
    found = [point for frame in frames for point in points(frame)]
    sizes = list(dict.fromkeys(point.nodes for point in found))
    return sorted(found, key=lambda point: sizes.index(point.nodes))


def _name(section: str) -> str:
    """The protocol's name, of the section that was set: JSON in a study's frame."""
    return str(json.loads(section)["name"])


def _interval(values: np.ndarray) -> Interval | None:
    if len(values) < 2:
        return None
    return t_interval(values, LEVEL).within(0, math.inf)  # throughputs and latencies


def answer(found: Sequence[Point]) -> list[str]:
    """A sentence for the least and the greatest load of each size: who keeps up, and who of them answers soonest.

    Protocols whose intervals of the median overlap the best one's are said together: chance may have ordered them.
    """
    lines = []
    for nodes in dict.fromkeys(point.nodes for point in found):
        of_size = [point for point in found if point.nodes == nodes]
        loads = sorted({point.offered for point in of_size}, key=parse_rate_tps)
        for offered in dict.fromkeys((loads[0], loads[-1])):
            before = f"{nodes} nodes, " if nodes else ""
            here = [point for point in of_size if point.offered == offered]
            lines.append(f"{before}{parse_rate_tps(offered):,g} tx/s: {_at(here, parse_rate_tps(offered))}.")
    return lines


def _at(here: list[Point], offered_tps: float) -> str:
    """What one load shows."""
    up: list[Point] = []
    short: list[Point] = []
    for point in here:
        if (committed := point.values["committed_tps"]) is not None:
            (up if committed.high >= _ENOUGH * offered_tps else short).append(point)
    known = [(interval.estimate, point.protocol) for point in short if (interval := point.values["committed_tps"])]
    unclear = [point.protocol for point in here if point.values["committed_tps"] is None]
    if not up:
        parts = [f"none commits {_ENOUGH:.0%} of it".replace("%", " %")]
        if known:
            parts.append(f"most: {max(known)[1]}, {max(known)[0]:,.0f} tx/s")
    elif len(up) > 2 * (len(short) + len(unclear)) and len(here) > 2:
        others = f" but {listed([point.protocol for point in short])}" if short else ""
        parts = [f"all{others or f' {len(up)}'} keep up{_soonest(up)}"]
    else:
        parts = [f"{listed([point.protocol for point in up])} {'keeps' if len(up) == 1 else 'keep'} up{_soonest(up)}"]
        if short:
            parts.append(f"{listed([point.protocol for point in short])} {'does' if len(short) == 1 else 'do'} not")
    if unclear:
        parts.append(f"too few ok runs of {listed(unclear)} to tell")
    return "; ".join(parts)


def _soonest(up: list[Point]) -> str:
    """Who answers soonest, as far as intervals tell."""
    medians = [(interval, point.protocol) for point in up if (interval := point.values["latency_p50_ms"])]
    if len(medians) < 2:
        return ""
    best, _ = min(medians, key=lambda one: one[0].estimate)
    level = [name for interval, name in medians if interval.low <= best.high]
    if len(level) == len(medians):
        return ", and intervals of their medians overlap"
    return f", soonest {listed(level)} (median from {best.estimate:,.4g} ms)"


def as_csv(found: list[Point]) -> str:
    """One row per point: estimates and bounds."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    bounds = [f"{name}_{part}" for name in _FIELDS for part in ("mean", "low", "high")]
    writer.writerow(["protocol", "nodes", "offered", "replications", "left_out", *bounds])
    for point in found:
        cells: list[str] = []
        for interval in point.values.values():
            cells += ["", "", ""] if interval is None else [
                f"{x:.6g}" for x in (interval.estimate, interval.low, interval.high)
            ]  # fmt: skip
        writer.writerow([point.protocol, point.nodes, point.offered, point.n, point.left_out, *cells])
    return stream.getvalue()


def families(names: Sequence[str]) -> dict[str, list[str]]:
    """Protocols that share a panel, by the title of their family; all in one, without a title, if colours suffice."""
    if len(names) <= len(COLOURS):
        return {"": list(names)}
    found: dict[str, list[str]] = {}
    for name in names:
        family = PROTOCOLS[name].family if name in PROTOCOLS else ""
        found.setdefault(family or "others", []).append(name)
    return found


def figure_of(found: list[Point], title: str, note: str) -> Figure:
    """Median latency against committed throughput; bands: intervals of the latency, bars: of the throughput.

    A panel per size; with more protocols than colours a row per size and a column per family, each with the first
    protocol of all in grey for comparison.
    """
    sizes = list(dict.fromkeys(point.nodes for point in found))
    names = list(dict.fromkeys(point.protocol for point in found))
    shown = families(names)
    many = len(shown) > 1
    columns = len(shown) if many else min(len(sizes), 2)
    rows = len(sizes) if many else -(-len(sizes) // columns)
    with style():
        figure = sheet((3.9 if many else 5.2) * columns + (0.4 if many else 2.2), (3.1 if many else 3.9) * rows + 1.0)
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        places = [(size, family) for size in sizes for family in shown]
        for (size, family), axes in zip(places, panels.flat, strict=False):
            _panel(axes, [p for p in found if p.nodes == size], shown[family], names[0])
            if size:
                axes.set_title(f"n = {size}", fontsize=9)
        for axes in panels[-1]:
            axes.set_xlabel("committed [tx/s]")
        for axes in panels[:, 0]:
            axes.set_ylabel("median latency at the client [ms]")
        if many:
            for family, axes in zip(shown, panels[0], strict=True):
                place = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.1 if sizes[0] else 1.02)}
                axes.legend(title=family, alignment="left", ncols=3, fontsize=7.5, columnspacing=1.0, **place)
        else:
            handles, labels = panels.flat[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside right upper")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        figure.supxlabel(textwrap.fill(note, 110 if columns > 1 else 80), fontsize=7, x=0.01, ha="left")
        return figure


def _panel(axes: Any, found: list[Point], names: Sequence[str], reference: str) -> None:
    """The curves of some protocols at one size, and that of another one in grey."""

    def line(name: str) -> list[Point]:
        return [p for p in found if p.protocol == name and all(p.values[f] for f in _FIELDS[:2])]

    if reference not in names:
        _draw(axes, line(reference), {"color": "0.6", "linestyle": (0, (5, 1.5)), "marker": "."}, reference)
    for i, name in enumerate(names):
        _draw(axes, line(name), {"color": COLOURS[i % len(COLOURS)], "marker": _MARKS[i % len(_MARKS)]}, name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def _draw(axes: Any, line: list[Point], look: dict[str, Any], name: str) -> None:
    tps = [p.values["committed_tps"] for p in line]
    ms = [p.values["latency_p50_ms"] for p in line]
    x = [interval.estimate for interval in tps if interval]
    y = [interval.estimate for interval in ms if interval]
    axes.plot(x, y, markersize=4, linewidth=1.3, label=name, **look)
    colour = look["color"]
    low = [max(interval.low, interval.estimate / 10) for interval in ms if interval]
    axes.fill_between(x, low, [interval.high for interval in ms if interval], color=colour, alpha=0.15, linewidth=0)
    for at, interval in zip(y, tps, strict=True):
        if interval is not None:
            axes.hlines(at, max(interval.low, interval.estimate / 10), interval.high, color=colour, linewidth=0.8)


def write(
    frames: Sequence[pd.DataFrame], name: str, description: str, command: str, out: Path, remarks: Sequence[str] = ()
) -> list[Path]:
    """CSV, Markdown (with remarks on the designs) and figure of studies, named after the first."""
    found = gathered(frames)
    out.mkdir(parents=True, exist_ok=True)
    table = out / f"{name}.csv"
    table.write_text(as_csv(found), encoding="utf-8")
    most = max((point.n for point in found), default=0)
    left_out = sum(point.left_out for point in found)
    note = (
        f"{most} replications per point on common seeds, {100 * LEVEL:g} % Student intervals; {left_out} of "
        f"{sum(map(len, frames))} runs left out (not ok). Links, rates and block limits are assumptions (A). {command}"
    )
    if caution(most):
        note += f"; intervals of {caution(most)}"
    page = out / f"{name}.md"
    text = "\n\n".join([*answer(found), note, *remarks])
    page.write_text(_markdown(found, description, text), encoding="utf-8")
    return [table, page, *save(figure_of(found, description, note), out, name)]


def _markdown(found: list[Point], description: str, note: str) -> str:
    lines = [
        f"# {description}", "", note, "",
        "| protocol | nodes | offered | committed [tx/s] | median latency [ms] | p99 latency [ms] |",
        "|---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for point in found:
        cells = [_cell(interval) for interval in point.values.values()]
        lines.append(f"| {point.protocol} | {point.nodes} | {point.offered} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    estimate, low, high = (
        f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.4g}" for x in (interval.estimate, interval.low, interval.high)
    )
    return f"{estimate} [{low}, {high}]"
