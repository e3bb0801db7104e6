"""Answers to planners' questions: the sentences, a table that fits a terminal, a figure whose title is the finding."""

from __future__ import annotations

import csv
import dataclasses
import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sim.network.sites import sites
from sim.plan.acceptance import STEP_S, Sheet
from sim.plan.downtime import Downtime, assumptions, told_apart
from sim.plan.figures import below
from sim.plan.frontier import Frontier
from sim.plan.minimal import Minimal
from sim.plan.placement import Placement, Placements
from sim.plan.saturate import Saturated
from sim.report import tables
from sim.report.figures import COLOURS, save, sheet, style, throughput
from sim.report.island_map import OUTLINE_COLOURS, frame, name_site, outline
from sim.report.words import listed

_TITLE_WIDTH = 78
ESTIMATED = "round trips are estimated from distance (A); no measured ones were found"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a question came to. `rows`: one mapping per line of the table, with names and units as keys."""

    name: str
    lines: list[str]
    heads: tuple[str, ...]
    cells: list[list[str]]
    rows: list[dict[str, Any]]
    notes: list[str]
    figure: Figure | None

    def table(self) -> str:
        """For a terminal: texts left, numbers right."""
        body = [list(self.heads), *self.cells]
        wide = [max(len(row[i]) for row in body) for i in range(len(self.heads))]
        left = [not all(_is_number(row[i]) for row in self.cells) for i in range(len(self.heads))]
        return "\n".join(
            "  ".join(
                c.ljust(w) if to_left else c.rjust(w) for c, w, to_left in zip(row, wide, left, strict=True)
            ).rstrip()
            for row in body
        )

    def markdown(self, command: str) -> str:
        """A page: answer, table, notes, and the command that makes it again."""
        text = [f"# {self.name}", "", *(f"- {line}" for line in self.lines), ""]
        text += ["| " + " | ".join(self.heads) + " |", "|---" * len(self.heads) + "|"]
        text += ["| " + " | ".join(row) + " |" for row in self.cells]
        text += ["", *(f"- {note}" for note in self.notes), "", f"Made with `{command}`."]
        return "\n".join(text) + "\n"

    def write(self, folder: Path, command: str) -> list[Path]:
        """Page, table and figure into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        page, table = folder / "answer.md", folder / "answer.csv"
        page.write_text(self.markdown(command), encoding="utf-8")
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(self.rows[0]) if self.rows else ["nothing"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        table.write_text(stream.getvalue(), encoding="utf-8")
        files = [page, table]
        if self.figure is not None:
            files += save(self.figure, folder, "answer")
        return files


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell == tables.NOTHING


# --- where, and how many ----------------------------------------------------------------------------------------------


def of_placement(found: Placements, command: str) -> Answer:
    """Finalists, the best first, and the scenario's own places."""
    rows, cells = [], []
    shown = [*found.finalists, *([found.own] if found.own is not None else [])]
    for one in shown:
        own = one is found.own
        spread = " ".join(f"{domain}{count}" for domain, count in one.per_domain().items())
        p50 = None if one.outcome is None else one.outcome.metrics["latency_p50_ms"]
        rows.append(
            {
                "places": " ".join(one.places),
                "domains": spread,
                "p50_ms": p50,
                "p99_ms": one.p99_ms,
                "screen_ms": None if own else one.estimate_ms,
                "status": one.outcome and one.outcome.status,
                "own": own,
            }
        )
        cells.append(
            [" ".join(one.places) + (" (now)" if own else ""), spread, tables.shown(p50, 1), f"{one.p99_ms:,.1f}"]
        )
    notes = [
        f"a screen ordered them; {len(found.finalists)} were simulated, one run each, seed {found.scenario.seed}",
        ESTIMATED,
        f"candidates: {' '.join(found.candidates)}",
    ]
    title = f"{found.voters} voters with the least p99, and nobody holds {found.blocking} of them"
    figure = _map(found.best, f"{title}: {found.best.p99_ms:,.1f} ms (A)", command, notes[0])
    heads = ("places", "per domain", "p50 ms (A)", "p99 ms (A)")
    return Answer(f"Where {found.voters} voters should stand", found.answer(), heads, cells, rows, notes, figure)


def of_minimal(found: Minimal, command: str) -> Answer:
    """Every number of voters that was tried."""
    rows, cells = [], []
    for one in found.tried:
        best = None if one.found is None else one.found.best
        places = tables.NOTHING if best is None else " ".join(best.places)
        p99 = tables.NOTHING if best is None else f"{best.p99_ms:,.1f}"
        rows.append({"voters": one.voters, "places": places, "p99_ms": best and best.p99_ms, "why_not": one.why})
        cells.append([str(one.voters), textwrap.shorten(places, 32, placeholder=" ..."), p99, one.why or "meets all"])
    met = found.met
    figure = None
    notes = [f"losses played: {', '.join(name for name, _ in met.losses)}" if met else "no loss was played", ESTIMATED]
    if met is not None and met.found is not None:
        title = f"{met.voters} voters are enough for {found.objective.text}"
        figure = _map(met.found.best, title, command, notes[0])
    return Answer(
        "The fewest voters",
        found.answer(),
        ("voters", "places", "p99 ms (A)", "what is lacking"),
        cells,
        rows,
        notes,
        figure,
    )


def _map(best: Placement, title: str, command: str, note: str) -> Figure:
    """Voters on the island, or wider where some stand elsewhere."""
    table = sites()
    with style():
        figure = sheet(7.6, 6.6)
        axes: Any = figure.add_subplot()
        shore = outline()
        axes.fill(shore[:, 0], shore[:, 1], facecolor=OUTLINE_COLOURS[0], edgecolor=OUTLINE_COLOURS[1], zorder=1)
        domains = list(dict.fromkeys(table[place].domain for place in best.places))
        for place in best.places:
            site = table[place]
            colour = COLOURS[domains.index(site.domain) % len(COLOURS)]
            axes.plot(site.longitude_deg, site.latitude_deg, "o", markersize=11, color=colour, zorder=5)
            name_site(axes, site)
        for i, domain in enumerate(domains):
            count = best.per_domain()[domain]
            axes.plot([], [], "o", color=COLOURS[i % len(COLOURS)], label=f"domain {domain}: {count}")
        frame(axes, shore, [table[place] for place in best.places])
        axes.legend(loc="upper left")
        axes.set_title(textwrap.fill(title, _TITLE_WIDTH), loc="left")
        below(figure, f"{note}; outline: Natural Earth (public domain)", command)
        return figure


def of_frontier(found: Frontier, command: str) -> Answer:
    """All designs, cheapest first."""
    rows, cells = [], []
    for one in found.designs:
        rows.append(
            {
                "design": one.name,
                "cost_per_year": one.cost,
                "p99_ms": one.best.p99_ms,
                "down_min_per_year": one.down_min,
                "places": " ".join(one.best.places),
                "beaten_by": one.beaten_by,
            }
        )
        cells.append(
            [one.name, f"{one.cost:,.0f}", f"{one.best.p99_ms:,.1f}", f"{one.down_min:,.0f}", one.beaten_by or "nobody"]
        )
    with style():
        figure = sheet(7.6, 4.6)
        axes: Any = figure.add_subplot()
        names = list(dict.fromkeys(one.protocol for one in found.designs))
        for one in found.designs:
            colour = COLOURS[names.index(one.protocol) % len(COLOURS)]
            face = "white" if one.beaten_by else colour
            axes.plot(one.cost / 1e6, one.best.p99_ms, "o", ms=9, mfc=face, mec=colour, mew=1.6)
            text = f"{one.name}: {one.down_min:,.0f} min"
            axes.annotate(text, (one.cost / 1e6, one.best.p99_ms), (7, 4), textcoords="offset points", fontsize=8)
        axes.set_xlabel(f"million {found.unit} (A)")
        axes.set_ylabel("p99 [ms] (A)")
        axes.margins(0.14)
        kept = f"{len(found.kept)} of {len(found.designs)} designs are beaten by none"
        axes.set_title(textwrap.fill(f"{kept} (filled); beside each: minutes down a year", _TITLE_WIDTH), loc="left")
        below(figure, f"one run each, seed {found.scenario.seed}; costs: all assumed", command)
    heads = ("design", f"{found.unit} (A)", "p99 ms (A)", "min down (A)", "beaten by")
    notes = [
        ESTIMATED,
        "costs come from a table that a planner edits (--costs); in the one given here all are assumed (A)",
    ]
    return Answer("Cost, latency and downtime", found.answer(), heads, cells, rows, notes, figure)


# --- how long down, how much load -------------------------------------------------------------------------------------


def of_downtime(found: Mapping[str, Downtime], command: str) -> Answer:
    """Expected minutes a year, least first."""
    order = sorted(found, key=lambda name: found[name].total_min_per_year.estimate)
    rows, cells = [], []
    for name in order:
        one = found[name]
        total = one.total_min_per_year
        rows.append(
            {
                "design": name,
                "min_per_year": total.estimate,
                "low_min_per_year": total.low,
                "high_min_per_year": total.high,
                "halting_share_of_storms": one.halting_share,
                "h_per_storm": one.per_storm_h.estimate,
                "cable_min_per_year": one.cable_min_per_year,
            }
        )
        between = f"{total.low:,.0f} to {total.high:,.0f}"
        cells.append(
            [name, f"{total.estimate:,.0f}", between, f"{one.halting_share:.1%}", f"{one.cable_min_per_year:,.0f}"]
        )
    best = order[0]
    lines = [f"{best} is down least: {found[best].total_min_per_year.text('minutes a year')} (A)."]
    close = [name for name in order[1:] if not told_apart(found[best], found[name])]
    if close:
        lines.append(f"Its interval and that of {listed(close)} overlap: no difference could be shown.")
    far = [name for name in order[1:] if name not in close]
    if far:
        worst = found[far[-1]].total_min_per_year
        verb = "is" if len(far) == 1 else "are"
        lines.append(f"{listed(far)} {verb} down longer, up to {worst.estimate:,.0f} minutes.")
    with style():
        figure = sheet(7.6, 1.6 + 0.42 * len(order))
        axes: Any = figure.add_subplot()
        for i, name in enumerate(reversed(order)):
            total = found[name].total_min_per_year
            axes.plot([max(total.low, 0.1), max(total.high, 0.1)], [i, i], color=COLOURS[0], linewidth=2)
            axes.plot(max(total.estimate, 0.1), i, "o", color=COLOURS[0], markersize=7)
        axes.set_yticks(range(len(order)), list(reversed(order)))
        axes.set_xscale("log")
        axes.set_xlabel("expected minutes without a quorum in a year (A); line: storm rates from low to high")
        least = found[best].total_min_per_year.estimate
        axes.set_title(
            textwrap.fill(f"{best} is down least: {least:,.0f} minutes a year (A)", _TITLE_WIDTH), loc="left"
        )
        below(figure, "storms and cables of data/hazards.csv, nearly all of them assumptions (A)", command)
    heads = ("design", "min/year (A)", "interval", "storms halting", "cables")
    return Answer("Expected downtime", lines, heads, cells, rows, assumptions(), figure)


def of_capacity(found: Sequence[Saturated], command: str) -> Answer:
    """The largest load of each design, greatest first."""
    order = sorted(found, key=lambda one: -(one.meets.offered_tps if one.meets else 0.0))
    rows, cells = [], []
    for one in order:
        meets, fails = one.meets, one.fails
        holds = None if meets is None else meets.offered_tps
        no = None if fails is None else fails.offered_tps
        why = "" if fails is None else fails.why
        rows.append({"design": one.name, "holds_tps": holds, "fails_tps": no, "why": why, "stopped": one.stopped})
        cells.append(
            [one.name, tables.shown(holds, 1), tables.shown(no, 1), textwrap.shorten(why, 30, placeholder=" ...")]
        )
    best = order[0]
    lines = [f"No design holds {best.objective.text} at any load tried."]
    if best.meets is not None:
        lines = [f"{best.name} carries most within {best.objective.text}: {best.meets.offered_tps:,.4g} tx/s."]
        same = [o.name for o in order[1:] if o.meets and best.fails and o.fails and o.fails.factor >= best.meets.factor]
        if same:
            lines.append(f"{listed(same)} cannot be told apart from it: their brackets overlap.")
        rest = [o for o in order[1:] if o.name not in same and o.meets]
        if rest:
            said = [f"{o.name} {o.meets.offered_tps:,.4g} tx/s" for o in rest if o.meets]
            lines.append(f"Then {listed(said)}.")
    with style():
        figure = sheet(7.6, 1.6 + 0.42 * len(order))
        axes: Any = figure.add_subplot()
        for i, one in enumerate(reversed(order)):
            if one.meets is not None:
                end = one.fails.offered_tps if one.fails else one.meets.offered_tps
                axes.plot([one.meets.offered_tps, end], [i, i], color=COLOURS[0], linewidth=4, solid_capstyle="butt")
                axes.plot(one.meets.offered_tps, i, "|", color=COLOURS[0], markersize=14)
        axes.set_yticks(range(len(order)), [one.name for one in reversed(order)])
        axes.set_xscale("log")
        axes.set_xlabel("offered load [tx/s]: from the largest that holds to the least that fails")
        axes.set_title(textwrap.fill(lines[0].rstrip("."), _TITLE_WIDTH), loc="left")
        below(figure, f"brackets at {100 * best.level:g} %, seed {best.seed}", command)
    heads = ("design", "holds tx/s", "fails tx/s", "why")
    return Answer("How much load each design carries", lines, heads, cells, rows, [], figure)


# --- acceptance -------------------------------------------------------------------------------------------------------


def of_acceptance(found: Sheet, command: str) -> Answer:
    """The sheet, a line per test."""
    rows = [{"test": one.test, "asked": one.asked, "found": one.found, "state": one.state} for one in found.lines]
    cells = [
        [one.test, one.asked, textwrap.shorten(one.found, 34, placeholder=" ..."), one.state] for one in found.lines
    ]
    notes = [
        f"voters are stopped every {STEP_S} s, the first leader last; after JR/T 0193-2020, section 7",
        "how soon a voter must have caught up is an assumption (A)",
    ]
    with style():
        figure = sheet(8.2, 3.4)
        axes: Any = figure.add_subplot()
        edges, rate = throughput(found.stopping)
        axes.stairs(rate, edges, color=COLOURS[0], linewidth=1.2, baseline=None)
        top = float(np.max(rate)) if len(rate) else 1.0
        for k, at in enumerate(found.stops_s, start=1):
            axes.axvline(at, color="#999999", linewidth=0.8, linestyle=(0, (4, 3)))
            axes.text(at + 0.4, top * 1.02, f"{k} stopped", fontsize=7.5, color="#555555", va="bottom")
        axes.set_xlabel("simulated time [s]")
        axes.set_ylabel("committed [tx/s]")
        axes.set_title(found.answer()[-1].rstrip("."), loc="left", pad=16)
        below(figure, f"seed {found.scenario.seed}", command)
    heads = ("test", "asked", "found", "")
    return Answer(f"Acceptance sheet of {found.scenario.name}", found.answer(), heads, cells, rows, notes, figure)
