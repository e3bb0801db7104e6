"""One HTML file that can be mailed: the answer, then what it rests on. No script, no font, no picture from elsewhere.

Figures are drawn as SVG whose labels stay text: widths are those of a font that is here, the reader's own fonts show
them in either language, and nothing is fetched. Widths from a phone to a laptop, dark mode, print and screen readers
are the page's own style and markup.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from sim.measure.statistics.intervals import FEW
from sim.network.sites import sites
from sim.plan.contingency import halting
from sim.report import figures, replications, tables, verdicts
from sim.report.island_map import OUTLINE_COLOURS, frame, name_site, outline
from sim.report.outcome import Outcome
from sim.report.replications import Runs
from sim.report.validated import Validation, validated
from sim.report.words import Language, listed, say
from sim.scenario.schema import Scenario
from sim.units import format_ns

BYTES_MAX = 3_000_000
FONTS = (
    "Noto Sans", "Noto Sans CJK SC", "Noto Sans SC", "Microsoft YaHei", "PingFang SC", "DejaVu Sans", "sans-serif",
)  # fmt: skip
_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #fff; --line: #d5d2cb; --soft: #f4f2ee; --bad: #b0300f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececec; --paper: #17181a; --line: #44464a; --soft: #232528; --bad: #ff8a65; }
}
body { margin: 0 auto; padding: 1rem; max-width: 60rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.55 "Noto Sans", "Noto Sans CJK SC", "Microsoft YaHei", "PingFang SC", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.45rem; line-height: 1.25; overflow-wrap: anywhere } h2 { font-size: 1.15rem; margin-top: 2rem }
.answer { border-left: .35rem solid #0072B2; background: var(--soft); padding: .6rem 1rem; font-size: 1.08rem }
.answer p { margin: .35rem 0 } .wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th:first-child, td:first-child, td:nth-child(2) { white-space: nowrap }
table.names td:first-child { white-space: normal; min-width: 9rem }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
td.n, th.n { text-align: right } td.n { white-space: nowrap } td.bad { color: var(--bad); font-weight: 600 }
figure { margin: 1rem 0; background: #fff; padding: .4rem; border: 1px solid var(--line) }
figure svg { width: 100%; height: auto; display: block } figcaption { color: #333; font-size: .9rem; padding: .3rem }
code { overflow-wrap: anywhere; font-size: .88em } li { margin: .25rem 0; overflow-wrap: anywhere }
@media print { body { max-width: none; font-size: 10pt } h2 { break-after: avoid } figure, tr { break-inside: avoid } }
"""
_BAD = ("halts", "falls behind", "breaks", "halts for good", "cut short", "wrong", "failed")


def page(runs: Runs, scenarios: Sequence[Scenario], command: str, language: Language = "en") -> str:
    """The whole document. `runs[i][k]`: replication k of design i; `scenarios`: of the first ones, in their order."""
    outcomes = [design[0] for design in runs]
    title = say(language, "title", names=verdicts.names(outcomes, language))
    parts = [
        _section(language, "answer", _answer(runs, scenarios, language)),
        _section(language, "comparison", _comparison(runs, language)),
        _section(language, "place", _map(outcomes, scenarios, language)),
        _section(language, "latency", _latency(outcomes, language)),
        _section(language, "time line", _time_line(outcomes, language)),
        _section(language, "losses", _losses(outcomes, scenarios, language)),
        _section(language, "uses", _uses(outcomes, language)),
        _section(language, "validated", _validated(outcomes, scenarios, language)),
        _section(language, "rests", _rests(runs, language)),
        _section(language, "provenance", _provenance(outcomes, command, language)),
    ]
    return (
        f'<!doctype html>\n<html lang="{"zh-Hans" if language == "zh" else "en"}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _section(language: Language, key: str, body: str) -> str:
    """A part of the page; nothing where there is nothing to say."""
    if not body:
        return ""
    return f'<section aria-labelledby="{_id(key)}">\n<h2 id="{_id(key)}">{say(language, key)}</h2>\n{body}\n</section>'


def _id(key: str) -> str:
    return key.replace(" ", "-")


def _two_lines(value: str) -> str:
    """A cell's text; what stands behind a line break is small."""
    first, _, second = html.escape(value).partition("\n")
    return f"{first}<br><small>{second}</small>" if second else first


def _cells(values: Sequence[str], *, head: bool = False, left: int = 1, bad: Sequence[int] = ()) -> str:
    tag = "th" if head else "td"
    found = []
    for i, value in enumerate(values):
        names = " ".join(["n"] * (i >= left) + ["bad"] * (i in bad))
        scope = ' scope="col"' if head else ""
        found.append(f"<{tag}{scope}{f' class={chr(34)}{names}{chr(34)}' if names else ''}>{_two_lines(value)}</{tag}>")
    return "<tr>" + "".join(found) + "</tr>"


def _table(
    heads: Sequence[str], rows: Sequence[tuple[Sequence[str], Sequence[int]]], left: int, kind: str = "plain"
) -> str:
    """Rows and the columns of each that are bad news; `kind` "names": the first column lists several."""
    body = "\n".join(_cells(row, left=left, bad=bad) for row, bad in rows)
    head = _cells(heads, head=True, left=left)
    inside = f"<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>"
    return f'<div class="wide" tabindex="0"><table class="{kind}">\n{inside}</table></div>'


# --- the parts --------------------------------------------------------------------------------------------------------


def _answer(runs: Runs, scenarios: Sequence[Scenario], language: Language) -> str:
    outcomes = [design[0] for design in runs]
    lines = [*replications.differing(runs, language), *verdicts.answer(outcomes, language)]
    lines += arithmetic(outcomes, scenarios, language)
    return '<div class="answer">\n' + "\n".join(f"<p>{html.escape(line)}</p>" for line in lines) + "\n</div>"


def arithmetic(outcomes: Sequence[Outcome], scenarios: Sequence[Scenario], language: Language) -> list[str]:
    """Which domains halt which designs, by their quorums; nothing where no voter has a domain."""
    found: dict[str, list[str]] = {}
    none: list[str] = []
    for outcome, scenario in zip(outcomes, scenarios, strict=True):
        if all(domain is None for domain in scenario.network.domain_of_node):
            continue
        elements = halting(scenario)
        for element in elements:
            found.setdefault(say(language, "domain", name=element.name), []).append(outcome.label)
        if not elements:
            none.append(outcome.label)
    lines = [
        say(language, "arithmetic", element=element, names=listed(names, language)) for element, names in found.items()
    ]
    return [*lines, *([say(language, "no element", names=listed(none, language))] if none else [])]


def _comparison(runs: Runs, language: Language) -> str:
    outcomes = [design[0] for design in runs]
    marked = tables.assumed_metrics(outcomes)
    columns = (
        ("offered", "offered_tps"),
        ("committed", "committed_tps"),
        ("p50", "latency_p50_ms"),
        ("p99", "latency_p99_ms"),
    )
    heads = [say(language, "design"), say(language, "verdict")]
    heads += [say(language, key) + (" (A)" if metric in marked else "") for key, metric in columns]
    heads.append(say(language, "pause") + (" (A)" if "longest_pause_s" in marked else ""))
    rows = []
    for design, count in zip(runs, replications.counts(runs), strict=True):
        word = replications.worst(count)
        pauses = [float(pause) for run in design if (pause := run.metrics["longest_pause_s"]) is not None]
        numbers = [replications.cell(design, metric).replace(" [", "\n[") for _, metric in columns]
        last = verdicts.time(max(pauses)) if pauses else tables.NOTHING
        rows.append(([design[0].label, say(language, word), *numbers, last], [1] if word in _BAD else []))
    return _table(heads, rows, left=2)


def _losses(outcomes: Sequence[Outcome], scenarios: Sequence[Scenario], language: Language) -> str:
    """Fault domains against designs: which halts which, by arithmetic."""
    domains: dict[str, None] = {}
    for scenario in scenarios:
        domains |= dict.fromkeys(domain for domain in scenario.network.domain_of_node if domain is not None)
    if not domains:
        return ""
    rows = []
    for outcome, scenario in zip(outcomes, scenarios, strict=True):
        halted = {element.name for element in halting(scenario)}
        there = {*scenario.network.domain_of_node}
        cells = [
            tables.NOTHING if domain not in there else say(language, "halted" if domain in halted else "stands")
            for domain in domains
        ]
        rows.append(([outcome.label, *cells], [i + 1 for i, domain in enumerate(domains) if domain in halted]))
    heads = [say(language, "design"), *(say(language, "domain", name=domain) for domain in domains)]
    return _table(heads, rows, left=1 + len(domains))


def _uses(outcomes: Sequence[Outcome], language: Language) -> str:
    """A line per class of the first design, where there are several."""
    first = outcomes[0]
    classes = first.tables["classes"]
    if len(classes["name"]) < 2:
        return ""
    heads = [say(language, "use"), *(say(language, key) for key in ("requests", "success", "p50", "p99", "late"))]
    rows: list[tuple[list[str], list[int]]] = []
    for i, name in enumerate(classes["name"]):
        tag = str(classes["tag"][i])
        share = classes["success_share"][i]
        numbers = [classes[f"latency_{q}_ms"][i] for q in ("p50", "p99")]
        rows.append(
            (
                [
                    f"{name} ({tag})" if tag else str(name),
                    f"{int(classes['submitted'][i]):,}",
                    tables.NOTHING if share is None or share != share else f"{float(share):.2%}",
                    *(tables.NOTHING if one is None or one != one else f"{float(one):,.1f}" for one in numbers),
                    f"{int(classes['deadline_missed'][i] or 0):,}",
                ],
                [],
            )
        )
    return f"<p>{html.escape(first.label)}</p>\n" + _table(heads, rows, left=1)


def _validated(outcomes: Sequence[Outcome], scenarios: Sequence[Scenario], language: Language) -> str:
    """What real systems the designs' protocols were held against: designs with the same ones share a line."""
    shared: dict[tuple[Validation, ...], list[str]] = {}
    for outcome, scenario in zip(outcomes, scenarios, strict=True):
        shared.setdefault(validated(scenario.platform, scenario.protocol.name), []).append(outcome.label)
    rows: list[tuple[list[str], list[int]]] = []
    for found, names in shared.items():
        for one in found:
            span = say(language, "error span", low=f"{one.low_percent:+g}", high=f"{one.high_percent:+g}")
            rows.append(
                ([listed(names, language), one.platform, f"{one.means}", span, f"{one.median_percent:g} %"], [])
            )
        if not found:
            rows.append(([listed(names, language), say(language, "not measured"), *[tables.NOTHING] * 3], []))
    heads = [say(language, key) for key in ("design", "compared with", "means", "errors", "half within")]
    note = html.escape(say(language, "validation note"))
    return _table(heads, rows, left=2, kind="names") + f"\n<p>{note}</p>"


def _rests(runs: Runs, language: Language) -> str:
    outcomes = [design[0] for design in runs]
    reasons = dict.fromkeys(reason for outcome in outcomes for reason in tables.assumed(outcome))
    notes = [say(language, "assumed"), *(say(language, "assumption", reason=say(language, one)) for one in reasons)]
    played: dict[str, list[str]] = {}
    for outcome in outcomes:
        for fault in outcome.scenario["faults"]:
            length_ns = fault["for_ns"] or ((fault["until_ns"] or 0) - fault["at_ns"])
            if fault["stands_for_ns"] is not None:
                text = f"{format_ns(length_ns)} = {format_ns(fault['stands_for_ns'])}"
                played.setdefault(text, []).append(outcome.label)
    notes += [say(language, "played short", names=listed(names, language), text=text) for text, names in played.items()]
    most = max(len(design) for design in runs)
    notes.append(say(language, "one run") if most == 1 else say(language, "replicated", count=most))
    for design in runs:
        lost = sum(run.status != "ok" for run in design)
        if lost and most > 1:
            notes.append(say(language, "left out", names=design[0].label, count=lost))
    if 1 < most <= FEW:
        notes.append(say(language, "few"))
    notes.append(say(language, "vendors"))
    return "<ul>\n" + "\n".join(f"<li>{html.escape(note)}</li>" for note in notes) + "\n</ul>"


def _provenance(outcomes: Sequence[Outcome], command: str, language: Language) -> str:
    heads = [say(language, key) for key in ("design", "version", "seed", "scenario", "digest")]
    rows: list[tuple[list[str], list[int]]] = [
        ([o.label, o.version, str(o.seed), o.scenario_hash, o.digest], []) for o in outcomes
    ]
    return _table(heads, rows, left=5) + f"\n<p>{say(language, 'again')} <code>{html.escape(command)}</code></p>"


# --- figures ----------------------------------------------------------------------------------------------------------


def _svg(figure: Figure, name: str, text: str) -> str:
    """A figure as part of the page: its labels are text, and a screen reader hears what it shows."""
    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figures.settle(figure)
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    drawn = stream.getvalue()
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    used = {*re.findall(r'(?:href="|url\()#([^")]+)', drawn)}  # the others name parts, some of them twice
    drawn = re.sub(r' id="([^"]+)"', lambda at: f' id="{name}-{at[1]}"' if at[1] in used else "", drawn)
    drawn = re.sub(r'(href="|url\()#', rf"\1#{name}-", drawn)
    drawn = re.sub(r"font: ([\d.]+px)[^;\"]*", rf"font: \1 {', '.join(FONTS)}", drawn)
    drawn = drawn.replace("<svg ", f'<svg role="img" aria-label="{html.escape(text, quote=True)}" ', 1)
    return f"<figure>\n{drawn}\n<figcaption>{html.escape(text)}</figcaption>\n</figure>"


def _latency(outcomes: Sequence[Outcome], language: Language) -> str:
    """Distributions of all runs that answered anything."""
    answered = [one for one in outcomes if one.metrics["latency_p50_ms"] is not None]
    if not answered:
        return ""
    best = min(answered, key=lambda one: float(one.metrics["latency_p50_ms"] or 0))
    p50 = tables.shown(best.metrics["latency_p50_ms"], 1)
    with figures.style(), mpl.rc_context({"font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(7.6, 3.6), layout="constrained")
        axes: Any = figure.add_subplot()
        figures.draw_cdf(axes, figures.lines_of(answered), language)
        axes.set_xlabel(say(language, "ms axis"))
        axes.set_ylabel(say(language, "share axis"))
        axes.legend(loc="lower right")
        return _svg(figure, "latency", say(language, "latency finding", best=best.label, p50=p50))


def _time_line(outcomes: Sequence[Outcome], language: Language) -> str:
    """A strip per run with faults; without any, nothing."""
    shown = [one for one in outcomes if one.outages_s]
    if not shown:
        return ""
    with figures.style(), mpl.rc_context({"font.family": "DejaVu Sans"}):
        lines = figures.lines_of(shown)
        figure = Figure(figsize=(7.6, 0.9 + 0.95 * len(lines)), layout="constrained")
        strips = figure.subplots(len(lines), 1, sharex=True, squeeze=False)[:, 0]
        for axes, line in zip(strips, lines, strict=True):
            figures.draw_throughput(axes, line, language=language)
            axes.set_title(line.outcome.label, fontsize=9, color=line.colour, pad=3, loc="left")
            axes.set_ylabel(say(language, "tps axis"))
        strips[-1].set_xlabel(say(language, "s axis"))
        said = " ".join(line for line in verdicts.answer(shown, language))
        return _svg(figure, "timeline", say(language, "time finding", lost=said))


def _map(outcomes: Sequence[Outcome], scenarios: Sequence[Scenario], language: Language) -> str:
    """Voters of the first design at known sites, those of domains that halt it ringed."""
    first, network = outcomes[0], scenarios[0].network
    table = sites()
    places = [place for place in dict.fromkeys(network.place_of_node) if place in table]
    if not places:
        return ""
    halted = [element.name for element in halting(scenarios[0])]
    domains = list(dict.fromkeys(table[place].domain for place in places))
    with figures.style(), mpl.rc_context({"font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(6.4, 5.4), layout="constrained")
        axes: Any = figure.add_subplot()
        shore = outline()
        axes.fill(shore[:, 0], shore[:, 1], facecolor=OUTLINE_COLOURS[0], edgecolor=OUTLINE_COLOURS[1], zorder=1)
        for place in places:
            site = table[place]
            colour = figures.COLOURS[domains.index(site.domain) % len(figures.COLOURS)]
            if site.domain in halted:
                axes.plot(
                    site.longitude_deg, site.latitude_deg, "o", ms=17, mfc="none", mec="#b0300f", mew=1.6, zorder=4
                )
            axes.plot(site.longitude_deg, site.latitude_deg, "o", ms=10, color=colour, zorder=5)
            name_site(axes, site, name=site.name_zh if language == "zh" else None)
        frame(axes, shore, [table[place] for place in places])
        which = listed([say(language, "domain", name=name) for name in halted], language) if halted else ""
        more = say(language, "map halting", names=which, design=first.label) if halted else ""
        text = say(language, "map finding", halting=more) + ". " + say(language, "outline")
        return _svg(figure, "map", text)


def write(runs: Runs, scenarios: Sequence[Scenario], command: str, file: Path, language: Language = "en") -> int:
    """Write the page at once or not at all; returns its bytes."""
    text = page(runs, scenarios, command, language)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)
    return len(text.encode("utf-8"))
