"""Figures of answers: differences between designs, the throughput/latency curve, sensitivity indices.

Every point has its interval; n, level, seeds and command stand below.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import FuncFormatter, NullFormatter

from sim.measure.names import METRICS, words_of
from sim.report.figures import COLOURS, heading, sheet, short_labels, style
from sim.scenario import store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sim.plan.compare import Comparison
    from sim.plan.saturate import Saturated
    from sim.plan.sensitivity import Sensitivity

MARKS = ("o", "s", "^", "D", "v", "P", "X")


def below(figure: Figure, note: str, command: str) -> None:
    """Small lines under a figure: what the points are, and the whole command that makes them again."""
    width = int(figure.get_figwidth() * 19)
    lines = textwrap.wrap(note, width) + textwrap.wrap(f"pilotzone {store.version()} · {command}", width)
    figure.text(0.008, 0.01, "\n".join(lines), fontsize=7, color="#5a5a5a", va="bottom", ha="left", linespacing=1.35)
    share = (0.14 + 0.14 * len(lines)) / figure.get_figheight()
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0.005, share, 0.99, 0.99 - share))


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


STATES = {"meets": ("#009E73", "o"), "undecided": ("#E69F00", "D"), "fails": ("#D55E00", "X")}


def saturation(found: Saturated, command: str) -> Figure:
    """Committed against offered above, latency against committed below; the answer and the knee are marked."""
    with style():
        figure = sheet(6.4, 7.0)
        above, under = figure.subplots(2, 1)
        drawn: set[str] = set()
        for load in found.loads:
            colour, mark = STATES[load.state]
            known = {} if load.state in drawn else {"label": load.state}
            drawn.add(load.state)
            points: dict[str, Any] = {"fmt": mark, "color": colour, "markersize": 5}
            if load.committed_tps is not None:
                committed = load.committed_tps
                error_bar(
                    above, load.offered_tps, committed.estimate, committed.low, committed.high, sideways=False,
                    **points, **known,
                )  # fmt: skip
                for name, fill in (("latency_p50_ms", "white"), ("latency_p99_ms", colour)):
                    latency = getattr(load, name)
                    if latency is not None:
                        error_bar(
                            under, committed.estimate, latency.estimate, max(latency.low, latency.estimate / 10),
                            latency.high, sideways=False, markerfacecolor=fill, **points,
                        )  # fmt: skip
        top = max(load.offered_tps for load in found.loads)
        above.plot([0, top], [0, top], color="#9a9a9a", linewidth=0.8, linestyle="--", zorder=0)
        for name in ("latency_p50_ms", "latency_p99_ms"):
            curve = [x for x in found.loads if x.committed_tps and getattr(x, name)]
            xs = [x.committed_tps.estimate for x in curve if x.committed_tps]
            ys = [getattr(x, name).estimate for x in curve]
            under.plot(xs, ys, color="#9a9a9a", linewidth=0.8, zorder=0)
        if found.meets is not None and found.fails is not None:
            above.axvspan(found.meets.offered_tps, found.fails.offered_tps, color="#e9e4da", zorder=0)
            middle = found.meets.offered_tps
            above.annotate("the answer ", (middle, 0.03 * top), fontsize=8, ha="right", va="bottom", color="#444444")
        knee = found.knee
        if knee is not None and knee.committed_tps is not None:
            for axes in (above, under):
                axes.axvline(
                    knee.offered_tps if axes is above else knee.committed_tps.estimate,
                    color="#0072B2", linewidth=0.9, linestyle=":", label="knee" if axes is above else None,
                )  # fmt: skip
        above.set_xlabel("offered [tx/s]; dashed: all of it")
        above.set_ylabel("committed [tx/s]")
        above.set_xlim(0, 1.03 * top)
        above.set_ylim(0, None)
        above.legend(loc="lower right")
        under.set_yscale("log")
        under.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        under.yaxis.set_minor_formatter(NullFormatter())
        under.set_xlim(0, None)
        under.set_xlabel("committed [tx/s]")
        under.set_ylabel("latency at the client [ms], p50 (open) and p99")
        heading(figure, f"{found.name}: {found.objective.text}")
        ns = sorted({load.n for load in found.loads})
        note = (
            f"Means over {' to '.join(map(str, (ns[0], ns[-1]) if len(ns) > 1 else ns))} replications per load on the "
            f"same seeds (first seed from {found.seed}), {100 * found.level:g} % intervals."
        )
        below(figure, note, command)
        return figure


def sensitivities(found: Sequence[Sensitivity], command: str) -> Figure | None:
    """A row of bars with intervals per metric: the parameters, most influential first. None if nothing varied."""
    shown = [one for one in found if one.parameters]
    if not shown:
        return None
    with style():
        longest = max(len(one.parameters) for one in shown)
        figure = sheet(4.2 * len(shown) + 1.2, 1.6 + 0.5 * longest)
        for i, one in enumerate(shown):
            axes = figure.add_subplot(1, len(shown), i + 1)
            morris = one.kind == "morris"
            ranked = sorted(one.parameters, key=lambda parameter: parameter.first if morris else parameter.total)
            for y, parameter in enumerate(ranked):
                first = "mu*" if morris else "alone (S1)"
                points = [(parameter.first, parameter.first_half, COLOURS[0], 0.0 if morris else -0.12, first)]
                if parameter.total_half is not None:
                    points.append((parameter.total, parameter.total_half, COLOURS[1], 0.12, "with others (ST)"))
                for value, half, colour, shift, label in points:
                    axes.barh(y + shift, value, 0.22, color=colour, alpha=0.35, edgecolor="none")
                    error_bar(
                        axes, value, y + shift, value - half, value + half, sideways=True, fmt="o", markersize=4,
                        color=colour, label=label if y == 0 else None,
                    )  # fmt: skip
            axes.set_yticks(range(len(ranked)), [parameter.key for parameter in ranked])
            axes.set_title(words_of(one.metric))
            unit = METRICS[one.metric].unit or "1"
            axes.set_xlabel(f"effect over the range [{unit}]" if morris else "share of variance")
            axes.axvline(0, color="#000000", linewidth=0.8)
            axes.legend(loc="lower right")
        one = shown[0]
        heading(figure, "Which parameter matters")
        method = "Morris" if one.kind == "morris" else "Saltelli"
        note = (
            f"{method} design of {one.cases} cases, means of {one.replications} replications on the same seeds; "
            f"{100 * one.level:g} % bootstrap intervals."
        )
        below(figure, note, command)
        return figure
