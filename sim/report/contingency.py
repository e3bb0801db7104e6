"""A contingency study as a table, a matrix of losses, and a map."""

from __future__ import annotations

import csv
import io
import textwrap
from pathlib import Path
from typing import Any

from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sim.network.sites import sites
from sim.plan.contingency import Contingency, Effect, Loss
from sim.plan.downtime import assumptions
from sim.plan.losses import Element
from sim.report.figures import COLOURS, save, sheet, style
from sim.report.island_map import OUTLINE_COLOURS, frame, name_site, outline

EFFECTS: tuple[Effect, ...] = ("carries on", "slows", "halts")
_SHADES = {"carries on": "#e3ece6", "slows": COLOURS[5], "halts": COLOURS[1]}
_MARKS = {"carries on": "o", "slows": "^", "halts": "X"}
_COLUMNS = (
    "lost", "elements", "effect", "predicted_halt", "committed_ratio", "latency_p99_ratio", "recovery_s",
    "sensitivity_s", "status", "key",
)  # fmt: skip


def write(study: Contingency, command: str) -> list[Path]:
    """Table, summary and figures beside the study's runs."""
    folder = study.folder
    table, page = folder / "contingency.csv", folder / "contingency.md"
    table.write_text(as_csv(study), encoding="utf-8")
    page.write_text(f"# Contingencies of {study.scenario.name}\n\n" + markdown(study, command), encoding="utf-8")
    files = [table, page, *save(matrix(study, command), folder, "contingency_matrix")]
    known = sites()
    if all(place in known for place in study.scenario.network.place_of_node):
        files += save(loss_map(study, command), folder, "contingency_map")
    return files


def as_csv(study: Contingency) -> str:
    """One row per loss, all columns; empty where a number does not exist."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for loss in study.losses:
        writer.writerow([
            loss.name, len(loss.lost), loss.effect, loss.predicted_halt, f"{loss.committed_ratio:.4f}",
            _text(loss.latency_p99_ratio), _text(loss.recovery_s), _text(loss.sensitivity_s), loss.status, loss.key,
        ])  # fmt: skip
    return stream.getvalue()


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def lines(study: Contingency) -> list[str]:
    """The answer in words: counts, what halts, expected downtime, and where runs and prediction disagree."""
    found = []
    for count in sorted({len(loss.lost) for loss in study.losses}):
        of = [loss for loss in study.losses if len(loss.lost) == count]
        parts = [f"{sum(loss.effect == effect for loss in of)} {effect}" for effect in EFFECTS]
        found.append(f"N-{count}: {len(of)} losses: " + ", ".join(parts))
    halting = [loss for loss in study.losses if loss.effect == "halts"]
    minimal = [loss for loss in halting if not any(set(other.lost) < set(loss.lost) for other in halting)]
    if minimal:
        found.append("smallest losses that halt it: " + "; ".join(loss.name for loss in minimal[:12]))
    worst = [loss for loss in study.losses if loss.effect == "slows" and loss.latency_p99_ratio]
    if worst:
        slowest = max(worst, key=lambda loss: loss.latency_p99_ratio or 0.0)
        found.append(f"slowest: {slowest.name}, p99 latency {slowest.latency_p99_ratio:,.0f} times the calm run's")
    if study.mispredicted:
        names = "; ".join(loss.name for loss in study.mispredicted[:6])
        found.append(f"quorum arithmetic says otherwise for {len(study.mispredicted)} losses: {names}")
    if study.downtime is not None:
        d = study.downtime
        total = d.total_min_per_year
        found.append(
            f"expected downtime (A): {total.estimate:,.0f} min/year [{total.low:,.0f}, {total.high:,.0f}]: "
            f"{d.halting_share:.1%} of super typhoons halt it, {d.per_storm_h.text('h')} per storm; "
            f"cables {d.cable_min_per_year:,.0f} min/year"
        )
    return found


def markdown(study: Contingency, command: str) -> str:
    """The summary, then every loss that does not simply carry on."""
    text = [f"- {line}" for line in lines(study)]
    heads = "| lost | effect | committed, of calm | p99 latency, of calm | recovery | sensitivity |"
    text += ["", heads, "|---|---|---:|---:|---:|---:|"]
    for loss in study.losses:
        if loss.effect != "carries on":
            p99 = "-" if loss.latency_p99_ratio is None else f"{loss.latency_p99_ratio:,.1f}"
            back = f"{loss.recovery_s:.3f} s" if loss.effect == "halts" and loss.recovery_s is not None else "-"
            area = f"{loss.sensitivity_s:.3g} s"
            text.append(f"| {loss.name} | {loss.effect} | {loss.committed_ratio:.2f} | {p99} | {back} | {area} |")
    text += ["", "Assumptions behind expected downtime:", *(f"- {line}" for line in assumptions())]
    return "\n".join([*text, "", f"Made with `{command}`."]) + "\n"


def _effect_of(study: Contingency) -> dict[frozenset[Element], Loss]:
    return {frozenset(loss.lost): loss for loss in study.losses}


def matrix(study: Contingency, command: str) -> Figure:
    """Elements against elements: the diagonal is each one alone, the rest are pairs; grey: implied by one of them."""
    table, names = _effect_of(study), [str(element) for element in study.elements]
    count = len(names)
    cells = [[-1] * count for _ in range(count)]
    for i, a in enumerate(study.elements):
        for j, b in enumerate(study.elements[: i + 1]):
            loss = table.get(frozenset({a, b}))
            cells[i][j] = EFFECTS.index(loss.effect) if loss is not None else -1
    with style():
        size = min(max(0.19 * count + 2.6, 4.5), 14)
        figure = sheet(size + 2.6, size)
        axes: Any = figure.add_subplot()
        colours = ["#ffffff", *(_SHADES[effect] for effect in EFFECTS)]
        norm = BoundaryNorm([-1.5, -0.5, 0.5, 1.5, 2.5], 4)
        axes.imshow(cells, cmap=ListedColormap(colours), norm=norm, interpolation="nearest")
        axes.set_xticks(range(count), names, rotation=90, fontsize=7)
        axes.set_yticks(range(count), names, fontsize=7)
        axes.set_xticks([x - 0.5 for x in range(1, count)], minor=True)
        axes.set_yticks([y - 0.5 for y in range(1, count)], minor=True)
        axes.grid(False)
        axes.grid(True, which="minor", color="white", linewidth=0.8)
        axes.tick_params(which="both", length=0)
        for row in range(count):
            for column in range(row + 1):
                if cells[row][column] == 2:
                    axes.text(column, row, "×", ha="center", va="center", fontsize=7, color="white")
        handles = [Patch(facecolor=_SHADES[effect], edgecolor="#999999", label=effect) for effect in EFFECTS]
        handles.append(Patch(facecolor="white", edgecolor="#999999", label="implied by one, or not run"))
        figure.legend(handles=handles, loc="outside right upper", title="losing both (diagonal: alone)")
        axes.set_title(f"{study.scenario.name}: {study.scenario.protocol.name}, quorum {study.quorum} of "
                       f"{study.scenario.network.n}")  # fmt: skip
        _note(figure, f"{len(study.losses)} runs, seed {study.scenario.seed}; {command}", width=int(13 * size))
        return figure


def _note(figure: Figure, text: str, width: int) -> None:
    """How the figure was made, below it."""
    figure.supxlabel(textwrap.fill(text, width), fontsize=7, x=0.01, ha="left")


def _mark(effect: Effect | None) -> dict[str, Any]:
    """How a voter is drawn; None: nobody has run its loss."""
    if effect is None:
        return {"marker": "o", "linestyle": "none", "markerfacecolor": "none", "markeredgecolor": "0.45"}
    colour = COLOURS[2] if effect == "carries on" else _SHADES[effect]
    return {"marker": _MARKS[effect], "linestyle": "none", "color": colour, "markeredgecolor": "white"}


def loss_map(study: Contingency, command: str) -> Figure:
    """Voters marked by what losing each alone does, as far as that was run."""
    table = sites()
    network = study.scenario.network
    single = [loss for loss in study.losses if len(loss.lost) == 1]
    alone = {loss.lost[0].nodes: loss for loss in single if loss.lost[0].kind == "node"}
    with style():
        figure = sheet(7.6, 6.6)
        axes: Any = figure.add_subplot()
        shore = outline()
        axes.fill(shore[:, 0], shore[:, 1], facecolor=OUTLINE_COLOURS[0], edgecolor=OUTLINE_COLOURS[1], zorder=1)
        for node, place in enumerate(network.place_of_node):
            loss = alone.get(frozenset({node}))
            site = table[place]
            axes.plot(
                site.longitude_deg,
                site.latitude_deg,
                markersize=11,
                zorder=5,
                **_mark(None if loss is None else loss.effect),
            )
            name_site(axes, site)
        frame(axes, shore, [table[place] for place in network.place_of_node])
        for effect in EFFECTS if alone else ():
            axes.plot([], [], label=f"losing it: {effect}", **_mark(effect))
        if len(alone) < network.n:
            axes.plot([], [], label="losing it alone: not run", **_mark(None))
        domains = [loss.name for loss in single if loss.lost[0].kind == "domain" and loss.effect == "halts"]
        axes.legend(loc="upper left")
        more = f"; halted by {', '.join(domains)}" if domains else ""
        axes.set_title(f"{study.scenario.name}: losing one voter{more}")
        source = "Outline: Natural Earth (public domain)"
        _note(figure, f"seed {study.scenario.seed}; {command}. {source}", width=110)
        return figure
