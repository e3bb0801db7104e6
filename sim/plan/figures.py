"""Figures of answers: differences between designs, the throughput/latency curve, sensitivity indices.

Every point has its interval; n, level, seeds and command stand below.
"""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import FuncFormatter

from sim.measure.names import METRICS
from sim.report.figures import COLOURS, heading, sheet, short_labels, style
from sim.scenario import store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sim.plan.compare import Comparison

MARKS = ("o", "s", "^", "D", "v", "P", "X")


def below(figure: Figure, note: str, command: str) -> None:
    """Two small lines under a figure: what the points are, and how to make them again."""
    width = int(figure.get_figwidth() * 19)
    made = f"pilotzone {store.version()} · {command}"
    lines = [textwrap.shorten(text, width, placeholder=" ...") for text in (note, made)]
    figure.text(0.008, 0.01, "\n".join(lines), fontsize=7, color="#5a5a5a", va="bottom", ha="left", linespacing=1.35)


def error_bar(axes: Any, x: float, y: float, low: float, high: float, *, sideways: bool, **options: Any) -> None:
    """A point with its interval."""
    around = [[max((x if sideways else y) - low, 0.0)], [max(high - (x if sideways else y), 0.0)]]
    axes.errorbar([x], [y], **{"xerr" if sideways else "yerr": around}, capsize=2.5, elinewidth=1.1, **options)


def differences(comparison: Comparison, command: str) -> Figure | None:
    """Each metric's difference to the first design, in per cent of that design's mean; None if there is none."""
    summary = comparison.summary()
    base = summary[summary.design == comparison.names[0]].set_index("metric").estimate
    found = []
    for finding in comparison.findings:
        mean = float(base.get(finding.metric) or math.nan)
        if finding.difference is not None and math.isfinite(mean) and mean != 0:
            interval = finding.difference.interval
            scale = 100 / abs(mean)
            found.append((finding, interval.estimate * scale, interval.low * scale, interval.high * scale))
    if not found:
        return None
    metrics = list(dict.fromkeys(finding.metric for finding, *_ in found))
    others = list(comparison.names[1:])
    labels = dict(zip(comparison.names, short_labels(comparison.names), strict=True))
    with style():
        figure = sheet(7.2, 1.5 + 0.34 * len(metrics) * max(1, 0.6 * len(others)))
        axes = figure.add_subplot()
        drawn = set()
        for finding, estimate, low, high in found:
            i = others.index(finding.a)
            y = metrics.index(finding.metric) + (i - (len(others) - 1) / 2) * 0.25
            known = {} if finding.a in drawn else {"label": labels[finding.a]}
            drawn.add(finding.a)
            error_bar(
                axes, estimate, y, low, high, sideways=True, fmt=MARKS[i % len(MARKS)], markersize=4.5,
                color=COLOURS[(i + 1) % len(COLOURS)], **known,
            )  # fmt: skip
        axes.axvline(0, color="#000000", linewidth=0.8)
        span = max(abs(value) for _, *values in found for value in values)
        if span > 300:
            axes.set_xscale("symlog", linthresh=10)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+,g}"))
        axes.set_yticks(range(len(metrics)), [METRICS[name].words for name in metrics])
        axes.set_ylim(len(metrics) - 0.5, -0.5)
        axes.set_xlabel(f"difference to {labels[comparison.names[0]]} [% of its mean]")
        if len(others) > 1:
            axes.legend(loc="best")
        heading(figure, f"Differences to {comparison.names[0]}" + (f": {others[0]}" if len(others) == 1 else ""))
        n = comparison.replications
        note = (
            f"Paired differences over {n} replications on the same seeds, {100 * comparison.level:g} % intervals"
            + (", together over the designs" if len(others) > 1 else "")
            + f"; first seed {comparison.seeds[0][0]}."
        )
        below(figure, note, command)
        return figure
