"""Figures for a page: what the cases of a study do to a metric, to latencies and over time; and the numbers behind.

Each figure is drawn for one column and for two. Drawing reads only the numbers that are also written as CSV.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from sim.report.effects import Case, Effect, Estimate, axis_key, number_of, short
from sim.report.figures import COLOURS, DASHES, OUTAGE, STYLE, cdf, throughput, usual_height
from sim.report.outcome import Outcome

PRINT = STYLE.with_name("pilotzone-print.mplstyle")
WIDTHS_IN = {"one_column": 85 / 25.4, "two_columns": 178 / 25.4}
LINES_MAX = len(COLOURS)
DOTS_MAX = 40
_MARKS = ("o", "s", "^", "D", "v", "P", "X")
_SHARES = np.linspace(0, 1, 501)  # points of a distribution that are kept
_BINS_MAX = 75  # of a run's time

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class PaperFigure:
    """A figure to be published. `draw` makes it at a width, in."""

    name: str
    caption: str
    rows: list[Row]
    draw: Callable[[float], Figure]


def print_style() -> Any:
    """The drawing style as a context; it must hold while a figure is made and while it is saved."""
    return matplotlib.style.context([str(STYLE), str(PRINT)])


def _sheet(width_in: float, height_in: float) -> Figure:
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.02, h_pad=0.02)
    return figure


# A metric over the cases


def effect_rows(effect: Effect) -> list[Row]:
    """One row per case: what varied, n, mean, interval."""
    rows = []
    for one in effect.estimates:
        low, high = one.bounds if one.interval is not None else (None, None)
        level, method = (None, "none: one run") if one.interval is None else (one.interval.level, one.interval.method)
        rows.append(
            {"case": one.case.number, **one.case.values, "n": one.n, "planned": one.case.planned, "mean": one.mean,
             "low": low, "high": high, "level": level, "method": method}
        )  # fmt: skip
    return rows


def draw_effect(effect: Effect, width_in: float) -> Figure:
    """Lines over a numeric key where there is one and few lines result, else dots, one row per case."""
    estimates = effect.estimates
    key = axis_key([one.case for one in estimates])
    if key is not None:
        groups = _groups(estimates, key)
        if len(groups) <= LINES_MAX and len(groups) < len(estimates):
            return _lines(effect, key, groups, width_in)
        if len(estimates) > DOTS_MAX:
            return _lines(effect, key, {"": list(estimates)}, width_in, joined=False)
    return _dots(effect, width_in)


def _groups(estimates: Sequence[Estimate], key: str) -> dict[str, list[Estimate]]:
    groups: dict[str, list[Estimate]] = {}
    for one in estimates:
        name = short({k: v for k, v in one.case.values.items() if k != key})
        groups.setdefault(name, []).append(one)
    return groups


def _errors(estimates: Sequence[Estimate]) -> NDArray[np.float64]:
    return np.array([[one.mean - one.bounds[0], one.bounds[1] - one.mean] for one in estimates]).T


def _lines(
    effect: Effect, key: str, groups: dict[str, list[Estimate]], width_in: float, *, joined: bool = True
) -> Figure:
    with print_style():
        figure = _sheet(width_in, 2.4 if width_in < 5 else 3.0)
        axes = figure.add_subplot()
        for i, (name, members) in enumerate(groups.items()):
            at = [(_axis_number(one.case, key), one) for one in members]
            at.sort(key=lambda pair: pair[0])
            members = [one for _, one in at]
            axes.errorbar(
                [x for x, _ in at], [one.mean for one in members], yerr=_errors(members), capsize=2, elinewidth=0.8,
                color=COLOURS[i % LINES_MAX], marker=_MARKS[i % len(_MARKS)],
                linestyle=DASHES[i % len(DASHES)] if joined else "none", label=name,
            )  # fmt: skip
        xs = sorted({_axis_number(one.case, key) for one in effect.estimates})
        if xs[0] > 0 and xs[-1] / xs[0] >= 20:
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
        if len(xs) <= 8:
            axes.set_xticks(xs, [f"{x:g}" for x in xs], minor=False)
            axes.minorticks_off()
        number = number_of(effect.estimates[0].case.values[key])
        unit = number[1] if number else ""
        axes.set_xlabel(f"{_words(key)} [{unit}]" if unit else _words(key))
        axes.set_ylabel(effect.title)
        _from_zero(axes, effect)
        if len(groups) > 1:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2 if width_in < 5 else 4)
        return figure


def _axis_number(case: Case, key: str) -> float:
    number = number_of(case.values[key])
    assert number is not None
    return number[0]


def _words(key: str) -> str:
    """A dotted key for an axis: its last two words, without list indices."""
    parts = [part for part in key.split(".") if not part.isdecimal()]
    return " ".join(parts[-2:]).replace("_", " ")


def _from_zero(axes: Any, effect: Effect) -> None:
    """An axis from zero on, unless values are negative or their spread is small against them."""
    low, high = min(one.bounds[0] for one in effect.estimates), max(one.bounds[1] for one in effect.estimates)
    if low >= 0 and low < 0.8 * high:
        axes.set_ylim(0, 1.06 * high if high else 1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def _dots(effect: Effect, width_in: float) -> Figure:
    estimates = effect.estimates
    with print_style():
        figure = _sheet(width_in, 0.6 + 0.19 * max(len(estimates), 2))
        axes = figure.add_subplot()
        at = np.arange(len(estimates))
        axes.errorbar(
            [one.mean for one in estimates], at, xerr=_errors(estimates), linestyle="none", marker="o", capsize=2,
            elinewidth=0.8, color=COLOURS[0],
        )  # fmt: skip
        axes.set_yticks(at, [short(one.case.values) for one in estimates])
        axes.set_ylim(len(estimates) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(effect.title)
        low, high = min(one.bounds[0] for one in estimates), max(one.bounds[1] for one in estimates)
        if low >= 0 and low < 0.8 * high:
            axes.set_xlim(0, 1.06 * high)
        axes.xaxis.set_major_locator(MaxNLocator(5 if width_in < 5 else 8))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        return figure


# Latency distributions


def cdf_rows(groups: Sequence[tuple[Case, Sequence[Outcome]]]) -> list[Row]:
    """For each case and share of transactions: the latency of all replications together, and its range over them."""
    rows = []
    for case, outcomes in groups:
        each = [cdf(outcome) for outcome in outcomes]
        each = [pair for pair in each if len(pair[0])]
        if not each:
            continue
        together = _pooled(outcomes)
        for share in _SHARES:
            at = [_quantile(x, y, share) for x, y in each]
            rows.append(
                {"case": case.number, **case.values, "n": len(each), "share": round(float(share), 3),
                 "latency_ms": _quantile(*together, share), "least_ms": min(at), "greatest_ms": max(at)}
            )  # fmt: skip
    return rows


def _pooled(outcomes: Sequence[Outcome]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The distribution of all transactions of several runs."""
    tables = [outcome.tables["latency_client"] for outcome in outcomes]
    latency = np.concatenate([table["latency_us"] for table in tables])
    count = np.concatenate([table["transactions"] for table in tables])
    order = np.argsort(latency, kind="stable")
    total = np.cumsum(count[order])
    return latency[order] / 1000, total / total[-1]


def _quantile(x: NDArray[np.float64], share: NDArray[np.float64], wanted: float) -> float:
    return float(x[min(int(np.searchsorted(share, wanted - 1e-12)), len(x) - 1)])


def draw_cdf(rows: Sequence[Row], cases: Sequence[Case], mark: str, width_in: float) -> Figure:
    """Latency distributions on a logarithmic axis; bands from replication to replication. `mark`: (A) or nothing."""
    with print_style():
        figure = _sheet(width_in, 2.4 if width_in < 5 else 3.0)
        axes = figure.add_subplot()
        for i, case in enumerate(cases):
            mine = [row for row in rows if row["case"] == case.number]
            if not mine:
                continue
            share = [row["share"] for row in mine]
            axes.fill_betweenx(
                share, [row["least_ms"] for row in mine], [row["greatest_ms"] for row in mine],
                color=COLOURS[i], alpha=0.25, linewidth=0,
            )  # fmt: skip
            axes.plot(
                [row["latency_ms"] for row in mine], share, color=COLOURS[i], linestyle=DASHES[i % len(DASHES)],
                label=short(case.values),
            )  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=12))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        axes.set_ylabel("share of answered transactions")
        axes.set_xlabel(f"latency at the client [ms]{mark}")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2 if width_in < 5 else 4)
        return figure


# Throughput over time


def timeline_rows(groups: Sequence[tuple[Case, Sequence[Outcome]]]) -> list[Row]:
    """For each case and bin of time: mean committed rate over the replications, and its range over them."""
    rows = []
    for case, outcomes in groups:
        each = [_coarse(*throughput(outcome)) for outcome in outcomes]
        bins = min(len(rate) for _, rate in each)
        for k in range(bins):
            rates = [float(rate[k]) for _, rate in each]
            start, end = float(each[0][0][k]), float(each[0][0][k + 1])
            rows.append(
                {"case": case.number, **case.values, "n": len(each), "start_s": start, "end_s": end,
                 "faults": any(a < end and b > start for outcome in outcomes for a, b in outcome.outages_s),
                 "committed_tps": float(np.mean(rates)), "least_tps": min(rates), "greatest_tps": max(rates)}
            )  # fmt: skip
    return rows


def _coarse(edges: NDArray[np.float64], rate: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most so many bins, of equal numbers of the old ones but for the last."""
    starts = np.arange(0, len(rate), max(-(-len(rate) // _BINS_MAX), 1))
    wide = edges[np.append(starts, len(rate))]
    return wide, np.add.reduceat(rate * np.diff(edges), starts) / np.diff(wide) if len(rate) else rate


def draw_timeline(rows: Sequence[Row], cases: Sequence[Case], mark: str, width_in: float) -> Figure:
    """One strip per case on one scale; faults shaded, bands from replication to replication."""
    shown = [case for case in cases if any(row["case"] == case.number for row in rows)]
    top = max(usual_height(np.array([r["committed_tps"] for r in rows if r["case"] == c.number])) for c in shown)
    with print_style():
        figure = _sheet(width_in, 0.55 + (0.75 if width_in < 5 else 0.85) * len(shown))
        strips = figure.subplots(len(shown), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, case in zip(strips, shown, strict=True):
            i = cases.index(case)
            mine = [row for row in rows if row["case"] == case.number]
            edges = [mine[0]["start_s"], *(row["end_s"] for row in mine)]
            for row in mine:
                if row["faults"]:
                    axes.axvspan(row["start_s"], row["end_s"], facecolor=OUTAGE, edgecolor="none", zorder=0)
            axes.stairs(
                [row["greatest_tps"] for row in mine], edges, baseline=[row["least_tps"] for row in mine], fill=True,
                color=COLOURS[i], alpha=0.25, linewidth=0,
            )  # fmt: skip
            axes.stairs([row["committed_tps"] for row in mine], edges, color=COLOURS[i], linewidth=0.8, baseline=None)
            axes.set_title(short(case.values), color=COLOURS[i], pad=2, fontweight="normal")
            axes.set_ylim(0, top)
            axes.set_xlim(edges[0], edges[-1])
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            axes.yaxis.set_major_locator(MaxNLocator(3))
        figure.supylabel(f"committed [tx/s]{mark}", fontsize=7.5)
        strips[-1].set_xlabel("simulated time [s]")
        return figure
