"""Figures of finished runs: latency distributions and committed throughput over time.

Colours are those of Okabe and Ito (2008), told apart by people with any colour vision; line styles repeat the
difference. Files are the same bytes whenever they are drawn from the same runs.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from sim.report.compare import fingerprint
from sim.report.outcome import Outcome
from sim.report.words import Language, say

STYLE = Path(__file__).parent / "pilotzone.mplstyle"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000", "#CC79A7", "#E69F00", "#56B4E9")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1.5, 1.5, 1.5)))
OUTAGE = "#e9e4da"
_LEVELS = 1000  # steps of a distribution that a figure can show
_SLIVER = 0.5  # a last bin that the run covers less of is not drawn: it ended at a decision
_SPIKE = 3.0  # an axis is cut where single bins exceed the usual height this many times
NOTE = (
    "Vendors claim 20,000-240,000 tx/s, 1-3 orders above documented demand; designs differ in fault tolerance, "
    "finality, residency, bursts."
)


@dataclasses.dataclass(frozen=True)
class Line:
    """One run as it is drawn."""

    outcome: Outcome
    label: str
    colour: str
    dashes: Any


def lines_of(outcomes: Sequence[Outcome]) -> list[Line]:
    """Each run with a colour and a line style of its own."""
    count = len(COLOURS)
    names = short_labels([outcome.label for outcome in outcomes])
    return [
        Line(outcome, name, COLOURS[i % count], DASHES[(i + i // count) % len(DASHES)])
        for i, (outcome, name) in enumerate(zip(outcomes, names, strict=True))
    ]


def short_labels(labels: Sequence[str]) -> list[str]:
    """Labels without the words that all of them begin with."""
    words = [label.split("-") for label in labels]
    same = 0
    while len(labels) > 1 and all(len(w) > same + 1 and w[same] == words[0][same] for w in words):
        same += 1
    return ["-".join(w[same:]) for w in words]


def cdf(outcome: Outcome) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Latency at the client, ms, and the share of measured transactions at or below it; both (k,)."""
    table = outcome.tables["latency_client"]
    count = np.cumsum(table["transactions"])
    if not len(count):
        return np.zeros(0), np.zeros(0)
    return table["latency_us"] / 1000, count / count[-1]


def throughput(outcome: Outcome) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Edges of the time bins, s, shape (k + 1,), and committed transactions per second in each, (k,)."""
    table, end = outcome.tables["timeline"], float(outcome.metrics["simulated_s"] or 0)
    start, width = table["start_s"], np.minimum(table["width_s"], end - table["start_s"])
    inside = width > _SLIVER * table["width_s"]
    if not inside.any():
        return np.zeros(1), np.zeros(0)
    edges = np.append(start[inside], start[inside][-1] + width[inside][-1])
    return edges, table["committed"][inside] / width[inside]


def draw_cdf(axes: Any, lines: Sequence[Line], language: Language = "en") -> None:
    """Latency distributions as steps on a logarithmic axis."""
    for line in lines:
        latency_ms, share = cdf(line.outcome)
        if not len(share):
            continue
        keep = np.unique(np.searchsorted(share, np.linspace(share[0], 1, _LEVELS)))
        x = np.concatenate((latency_ms[keep[:1]], latency_ms[keep]))
        y = np.concatenate(([0.0], share[keep]))
        axes.plot(
            x, y, drawstyle="steps-post", color=line.colour, linestyle=line.dashes, label=_answered(line, language)
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=10, numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}".replace("%", " %")))
    axes.set_ylabel("share of answered transactions")


def _answered(line: Line, language: Language) -> str:
    """The label, with the share of transactions that a latency distribution leaves out if there are any."""
    m = line.outcome.metrics
    submitted, missing = m["submitted"] or 0, (m["submitted"] or 0) - (m["acknowledged"] or 0)
    if not submitted or missing / submitted < 0.001:
        return line.label
    share = f"{missing / submitted:.1%}".replace("%", " %")
    return say(language, "unanswered", name=line.label, share=share)


def draw_throughput(
    axes: Any, line: Line, *, calm: Outcome | None = None, top: float | None = None, language: Language = "en"
) -> None:
    """Committed transactions per second, outages shaded; `calm`: the same design without faults, grey."""
    for begin, end in line.outcome.outages_s:
        axes.axvspan(begin, end, facecolor=OUTAGE, edgecolor="none", zorder=0)
    if calm is not None:
        edges, rate = throughput(calm)
        axes.stairs(rate, edges, color="#9a9a9a", linewidth=0.8, baseline=None)
    edges, rate = throughput(line.outcome)
    axes.stairs(rate, edges, color=line.colour, linewidth=1.3, baseline=None)
    limit = usual_height(rate) if top is None else top
    axes.set_xlim(0, max(float(edges[-1]), 1e-9))
    axes.set_ylim(0, limit)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    peak = int(rate.argmax()) if len(rate) else 0
    if len(rate) and rate[peak] > limit:
        cut = np.flatnonzero(rate > limit)
        right = edges[peak] > 0.75 * edges[-1]
        axes.annotate(
            say(language, "peak", rate=f"{rate[peak]:,.0f}"),
            (edges[cut[0]] if right else edges[cut[-1] + 1], limit),
            xytext=(-4 if right else 4, -2),
            textcoords="offset points",
            ha="right" if right else "left",
            va="top",
            fontsize=8,
            color="#444444",
        )


def usual_height(rate: NDArray[np.float64]) -> float:
    """Where to end the axis: above all bins, or above the usual ones if a few (a backlog) tower over them."""
    busy = rate[rate > 0]
    if not len(busy):
        return 1.0
    usual = float(np.quantile(busy, 0.9))
    return 1.6 * usual if busy.max() > _SPIKE * usual else 1.15 * float(busy.max())


def comparison(outcomes: Sequence[Outcome], command: str) -> Figure:
    """Latency distributions on the left, one strip of throughput per run on the right."""
    with style():
        lines = lines_of(outcomes)
        figure = sheet(11.0, max(4.6, 1.6 + 0.95 * len(lines)))
        grid = figure.add_gridspec(len(lines), 2, width_ratios=(1, 1.15))
        left = figure.add_subplot(grid[:, 0])
        draw_cdf(left, lines)
        heading(figure, "Latency at the client; committed transactions" + shading_words(outcomes))
        left.set_xlabel(f"submit to answer [ms, log scale]{_mark(outcomes)}")
        if left.lines:
            left.legend(loc="lower right")
        else:
            left.text(0.5, 0.5, "no client sent anything", transform=left.transAxes, ha="center")
        limits = [usual_height(throughput(line.outcome)[1]) for line in lines]
        ends = [float(throughput(line.outcome)[0][-1]) for line in lines]
        together = len(set(ends)) == 1  # runs of different length get an axis each
        strips: list[Any] = []
        for i, line in enumerate(lines):
            axes = figure.add_subplot(grid[i, 1], sharex=strips[0] if strips and together else None)
            draw_throughput(axes, line, top=max(limits))
            name_strip(axes, line)
            axes.set_ylabel("tx/s")
            axes.tick_params(labelbottom=not together or i == len(lines) - 1)
            strips.append(axes)
        strips[-1].set_xlabel("simulated time [s]")
        footer(figure, outcomes, command)
        return figure


def shading_words(outcomes: Sequence[Outcome]) -> str:
    """What shading means, if there is any."""
    return "; faults shaded" if any(outcome.outages_s for outcome in outcomes) else ""


def _mark(outcomes: Sequence[Outcome]) -> str:
    distance = any(outcome.scenario["network"]["latency"]["model"] == "distance" for outcome in outcomes)
    return ", round trips (A)" if distance else ""


def name_strip(axes: Any, line: Line, more: str = "") -> None:
    """The run's name above its own strip, in its own colour."""
    axes.set_title(line.label + more, fontsize=9, color=line.colour, pad=3)


def style() -> Any:
    """The drawing style as a context; it must hold while a figure is made and while it is saved."""
    return matplotlib.style.context(str(STYLE))


def sheet(width_in: float, height_in: float) -> Figure:
    """An empty figure with room for the footer."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    footer_share = 0.42 / height_in
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0.005, footer_share, 0.99, 1 - footer_share - 0.01), w_pad=0.06, h_pad=0.04)
    return figure


def heading(figure: Figure, text: str) -> None:
    """The title above all panels."""
    figure.suptitle(text, x=0.008, ha="left", fontsize=10.5, fontweight="bold")


def footer(figure: Figure, outcomes: Sequence[Outcome], command: str, source: str = "") -> None:
    """What was drawn, from which version, seed and scenarios, and by which command."""
    seeds = ", ".join(str(seed) for seed in sorted({outcome.seed for outcome in outcomes}))
    made = f"pilotzone {outcomes[0].version} · seed {seeds} · scenarios {fingerprint(outcomes)} · {command}"
    note = source or (NOTE + (" (A): assumption." if _mark(outcomes) else ""))
    width = int(figure.get_figwidth() * 19)
    text = "\n".join(textwrap.shorten(part, width, placeholder=" ...") for part in (note, made))
    figure.text(0.008, 0.01, text, fontsize=7, color="#5a5a5a", va="bottom", ha="left", linespacing=1.35)


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write PNG and SVG without dates or library versions; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    with style(), mpl.rc_context({"svg.hashsalt": name}):
        settle(figure)
        figure.savefig(png, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return [png, svg]


def settle(figure: Figure) -> None:
    """Lay out once and round: the layout's solver differs in the last bits from one time to the next."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        x, y, width, height = (round(value, 4) for value in axes.get_position(original=True).bounds)
        axes.set_position((x, y, width, height))
    for title in (figure._suptitle, figure._supylabel):  # type: ignore[attr-defined]
        if title is not None:
            title.set_position([round(value, 4) for value in title.get_position()])
