"""One decision as a space-time diagram: a line per node, time to the right, a slanted line per message.

Lamport, Time, clocks, and the ordering of events in a distributed system, CACM 21 (7), 1978, figure 1, turned on its
side. A message is a thin line from where and when it was sent to when it arrived; from there until it was handled its
receiver's line is thick: it waited for the network card, a core or the consensus thread. Which messages belong to a
decision: sim.trace.sequence.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sim.report import figures
from sim.trace import read
from sim.trace.read import MESSAGES_MAX, StoredRun, TraceError
from sim.trace.sequence import Decision, messages_of

SUFFIXES = (".svg", ".png", ".pdf")
DRAWN_MAX = 20_000  # PBFT of 100 nodes just fits
_NAMES_MAX = 40  # nodes whose names stand at their lines; above, every second, third and so on
_LATE = 0.25  # opacity of messages that came when their receiver had decided
_DOTS_MAX = 3000  # messages up to which each arrival is a dot


def diagram(run: StoredRun, height: int, *, most: int = MESSAGES_MAX) -> Figure:
    """The decision at a height. Raises TraceError as sequence_diagram does."""
    decision, log = messages_of(run, height, most=most)
    if len(log) > DRAWN_MAX:
        raise TraceError(
            f"height {height}: {len(log):,} messages belong to its decision, more than the {DRAWN_MAX:,} a picture "
            f"shows; --sequence {height} merges them into few arrows"
        )
    with figures.style():
        figure = Figure(figsize=(9.0, min(11.0, 2.2 + 0.42 * run.voters)), layout="constrained")
        axes: Any = figure.add_subplot()
        _nodes(axes, run, decision)
        handles = _messages(axes, run, decision, log)
        _marks(axes, decision)
        axes.set_title(finding(run, decision), loc="left", fontsize=10.5, fontweight="bold")
        distance = run.scenario["network"]["latency"]["model"] == "distance"
        axes.set_xlabel("ms since the proposal" + (", round trips (A)" if distance else ""))
        axes.text(
            0.998, 0.004, _made(run), transform=axes.transAxes, ha="right", va="bottom", fontsize=7, color="#5a5a5a"
        )
        columns = max(1, min(len(handles) + 3, 5))
        figure.legend(handles=[*handles, *_legend()], loc="outside lower left", ncols=columns, fontsize=8)
        return figure


def finding(run: StoredRun, decision: Decision) -> str:
    """The title: what the picture shows, from the trace."""
    last_ms = (decision.end_ns - decision.start_ns) / 1e6
    decided = len(decision.decided)
    who = f"All {decided} nodes decide" if decided == run.voters else f"{decided} of {run.voters} nodes decide"
    by = _name(run, decision.proposed.node)
    text = f"{who} height {decision.height} within {last_ms:,.1f} ms of its proposal by {by}"
    if decision.late:
        text += f";\n{len(decision.late)} later"
    if decision.other_blocks:
        text += f";\nDISAGREEMENT: others decided block {', '.join(map(str, decision.other_blocks))} there"
    return text


def write(run: StoredRun, height: int, file: Path, *, most: int = MESSAGES_MAX) -> None:
    """Draw into a file, at once or not at all. Raises TraceError where its name ends in none of SUFFIXES."""
    if file.suffix not in SUFFIXES:
        raise TraceError(f"{file}: a space-time diagram is a picture; let its name end in {', '.join(SUFFIXES)}")
    if not file.parent.is_dir():
        raise TraceError(f"{file}: its folder does not exist; make it, or name a file elsewhere")
    figure, stream, kind = diagram(run, height, most=most), io.BytesIO(), file.suffix[1:]
    nothing = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}.get(
        kind, {"CreationDate": None, "Creator": None, "Producer": None}
    )
    with figures.style(), mpl.rc_context({"svg.hashsalt": "space-time"}):
        figures.settle(figure)
        figure.savefig(stream, format=kind, metadata=nothing)
    partial = file.with_name(file.name + ".part")
    partial.write_bytes(stream.getvalue())
    partial.replace(file)


def _made(run: StoredRun) -> str:
    """Version, seed and scenario behind the picture."""
    told = run.manifest
    return f"pilotzone {told['version']} · seed {told['seed']} · scenario {str(told['scenario_hash'])[:12]}"


def _name(run: StoredRun, node: int) -> str:
    """Name of a node for the title and its line."""
    return f"node {run.name(node)}"


def _nodes(axes: Any, run: StoredRun, decision: Decision) -> None:
    """A line per node, the first on top, with its name."""
    end_ms = (decision.end_ns - decision.start_ns) / 1e6
    margin = max(end_ms * 0.03, 1e-6)
    axes.set_xlim(-margin, end_ms + margin)
    axes.set_ylim(run.voters - 0.4 + 0.015 * run.voters, -0.6)  # room for what made the picture
    axes.hlines(range(run.voters), -margin, end_ms + margin, color="#b9b4aa", linewidth=0.8, zorder=1)
    step = -(-run.voters // _NAMES_MAX)
    named = range(0, run.voters, step)
    axes.set_yticks(named, [run.name(node) for node in named])
    axes.tick_params(axis="y", length=0)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.grid(visible=False)


def _messages(axes: Any, run: StoredRun, decision: Decision, log: np.ndarray) -> list[Line2D]:
    """A line per message in the colour of its type; returns one handle per type, in order of first sending."""
    if not len(log):
        return []
    decided = {row.node: row.time_ns for row in decision.decided}
    lost = log[:, read.FATE] != 0
    sent, arrived, done = ((log[:, at] - decision.start_ns) / 1e6 for at in (read.SENT, read.ARRIVED, read.DONE))
    over_ns = read.settled_ns(log)
    late = np.array(
        [over > decided.get(int(to), over) for over, to in zip(over_ns, log[:, read.DESTINATION], strict=True)]
    )
    handles = []
    kinds = log[np.argsort(log[:, read.SENT], kind="stable"), read.KIND]
    for at, kind in enumerate(dict.fromkeys(kinds.tolist())):
        colour = figures.COLOURS[at % len(figures.COLOURS)]
        of = log[:, read.KIND] == kind
        for which, opacity, style in (
            (of & ~late & ~lost, 1.0, "-"),
            (of & late & ~lost, _LATE, "-"),
            (of & lost, 1.0, ":"),
        ):
            rows = np.flatnonzero(which)
            flights = [((sent[i], log[i, read.SOURCE]), (arrived[i], log[i, read.DESTINATION])) for i in rows]
            width = 0.9 if len(log) < _DOTS_MAX else 0.3
            axes.add_collection(
                LineCollection(flights, colors=colour, linewidths=width, alpha=opacity, linestyles=style, zorder=2)
            )
            if style == ":":
                axes.plot(arrived[rows], log[rows, read.DESTINATION], "x", color=colour, ms=6, zorder=4)
                continue
            waits = [((arrived[i], log[i, read.DESTINATION]), (done[i], log[i, read.DESTINATION])) for i in rows]
            axes.add_collection(LineCollection(waits, colors=colour, linewidths=3, alpha=opacity * 0.6, zorder=2))
            if len(log) < _DOTS_MAX:
                axes.plot(done[rows], log[rows, read.DESTINATION], ".", color=colour, ms=4, alpha=opacity, zorder=3)
        label = f"{run.message_types[kind]} ({int(of.sum())})"
        handles.append(Line2D([], [], color=colour, marker=".", ms=4, linewidth=0.9, label=label))
    if lost.any():
        handles.append(Line2D([], [], color="#555555", marker="x", linestyle=":", label=f"lost ({int(lost.sum())})"))
    if (late & ~lost).any():
        label = f"after its receiver decided ({int((late & ~lost).sum())})"
        handles.append(Line2D([], [], color="#555555", alpha=_LATE, label=label))
    return handles


def _marks(axes: Any, decision: Decision) -> None:
    axes.plot(0, decision.proposed.node, "D", color="#1c1c1c", ms=7, zorder=6)
    at_ms = [(row.time_ns - decision.start_ns) / 1e6 for row in decision.decided]
    nodes = [row.node for row in decision.decided]
    axes.plot(at_ms, nodes, "o", mfc="white", mec="#1c1c1c", mew=1.5, ms=7, zorder=6)


def _legend() -> list[Line2D]:
    return [
        Line2D([], [], color="#1c1c1c", marker="D", linestyle="none", label="proposes"),
        Line2D([], [], color="#1c1c1c", marker="o", mfc="white", linestyle="none", label="decides"),
        Line2D([], [], color="#888888", linewidth=3, alpha=0.6, label="waits to be handled"),
    ]
