"""A folder to publish: figures of a study as PDF, SVG and PNG, the numbers behind them, captions, and an RO-Crate.

The same results give the same bytes: nothing in the folder depends on when, where or how often it was made, but for
the date, which is part of the command that every caption names.
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import functools
import io
import json
import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

from sim.measure.statistics.intervals import caution
from sim.report import outcome, paper, tables
from sim.report.crate import CRATE, About, Part, earlier, metadata
from sim.report.effects import LEVEL, METRICS, Case, Effect, cases_of, effect, swept_keys
from sim.report.figures import settle
from sim.report.outcome import Outcome
from sim.report.paper import PaperFigure
from sim.scenario.errors import ScenarioError
from sim.scenario.results import STUDY, Runs, frame_of, open_runs

if TYPE_CHECKING:
    import pandas as pd

FORMATS: dict[str, dict[str, None]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}
_LEFT_OUT = {"missing": "have no result", "failed": "failed to run", "damaged": "are damaged on disk"}


@dataclasses.dataclass(frozen=True)
class Published:
    """What was written. `notes`: what a reader must know, such as runs that were left out."""

    folder: Path
    files: tuple[str, ...]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Material:
    """What figures and captions are made from."""

    name: str
    frame: pd.DataFrame
    cases: list[Case]
    outcomes: dict[int, list[Outcome]]  # of ok runs, by case; empty where they are not drawn
    samples: list[Outcome]  # one of each case: for what its numbers rest on
    command: str


def publish(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    metrics: Sequence[str] = (),
    date: str | None = None,
    licence: str = "Apache-2.0",
    out: Path = Path("results"),
    progress: Callable[[float], None] | None = None,
) -> Published:
    """Write the folder for a study (its folder of results or its file). Raises ScenarioError before writing anything.

    `metrics`: drawn over the cases; default: throughput and latencies, those that there are. `date`: of publication,
    YYYY-MM-DD; default: that of an earlier crate in the folder, else today.
    """
    runs, target = open_runs(path, out=out), Path(folder)
    old = _check_target(target)
    date = _check_date(date) or (old and old[1]) or datetime.date.today().isoformat()
    frame = _check_frame(runs, metrics)
    words = ["pilotzone", "publish", f"results/{runs.folder.name}", "--out", f"{runs.folder.name}-published"]
    words += [word for metric in metrics for word in ("--metric", metric)] + ["--date", date, "--licence", licence]
    material = _read(runs, frame, shlex.join(words))
    plates = _plates(material, list(metrics) or [name for name in METRICS if name in frame])
    try:
        _clear(target, old[0] if old else [])
        parts = _write(target, runs, material, plates, progress)
        about = _about(runs, material, date, licence)
        (target / CRATE).write_text(metadata(target, about, parts), encoding="utf-8")
    except OSError as error:
        raise ScenarioError(f"--out {target}: {error.strerror or error}; name a folder that can be written") from None
    return Published(target, (*(part.path for part in parts), CRATE), tuple(_notes(frame, material)))


def _check_target(target: Path) -> tuple[list[str], str | None] | None:
    """What an earlier crate says of the folder. Raises ScenarioError if the folder holds something else."""
    if target.exists() and not target.is_dir():
        raise ScenarioError(f"--out {target}: is a file; name a folder")
    old = earlier(target)
    if old is None and target.exists() and any(target.iterdir()):
        raise ScenarioError(f"--out {target}: holds files that no pilotzone publish has written; name a new folder")
    return old


def _check_date(date: str | None) -> str | None:
    try:
        return None if date is None else datetime.date.fromisoformat(date).isoformat()
    except ValueError:
        raise ScenarioError(f"--date {date}: is no date; write it as 2026-01-31") from None


def _check_frame(runs: Runs, metrics: Sequence[str]) -> pd.DataFrame:
    frame = frame_of(runs)
    if not runs.planned:
        raise ScenarioError(f"{runs.folder}: has no {STUDY}; publish the results of pilotzone sweep")
    if not (frame.status == "ok").any():
        raise ScenarioError(f"{runs.folder}: none of {len(frame)} runs is ok; run pilotzone sweep, then look at status")
    names = list(frame.columns)
    known = names[names.index("key") + 1 : names.index("digest")]
    for metric in metrics:
        if metric not in known:
            raise ScenarioError(f"--metric {metric}: unknown; this study has {', '.join(known)}")
        if frame.loc[frame.status == "ok", metric].isna().all():
            raise ScenarioError(f"--metric {metric}: has no value in any run that is ok; choose another")
    return frame


def _read(runs: Runs, frame: pd.DataFrame, command: str) -> _Material:
    cases = cases_of(frame)
    ok = frame[frame.status == "ok"]
    keys = {case.number: ok.loc[ok.case == case.number, "key"].tolist() for case in cases}
    few = len([number for number in keys if keys[number]]) <= paper.LINES_MAX

    def read(key: str) -> Outcome:
        try:
            return outcome.read(runs.folder / "runs" / key)
        except (OSError, ValueError, KeyError) as error:
            raise ScenarioError(f"{runs.folder}: run {key} cannot be read ({error}); sweep again") from None

    outcomes = {number: [read(key) for key in found] for number, found in keys.items() if found} if few else {}
    samples = [outcomes[n][0] if few else read(found[0]) for n, found in keys.items() if found]
    return _Material(runs.folder.name, frame, cases, outcomes, samples, command)


def _plates(material: _Material, metrics: Sequence[str]) -> list[PaperFigure]:
    plates = []
    marked = tables.assumed_metrics(material.samples)
    for metric in metrics:
        found = effect(material.frame, material.cases, metric, assumed=metric in marked)
        if found is not None:
            plates.append(_effect_plate(material, found))
    groups = [(case, material.outcomes[case.number]) for case in material.cases if case.number in material.outcomes]
    cases = [case for case, _ in groups]
    if rows := paper.cdf_rows(groups):
        text = f"Latency at the client. Lines: all answered transactions of the replications together{_band(rows)}."
        text += _unanswered(groups)
        draw = functools.partial(paper.draw_cdf, rows, cases, " (A)" if "latency_p99_ms" in marked else "")
        plates.append(PaperFigure("latency_cdf", _caption(material, text), rows, draw))
    if groups:
        rows = paper.timeline_rows(groups)
        text = f"Committed transactions over simulated time. Lines: means of the replications{_band(rows)}."
        text += " Shaded: faults." if any(row["faults"] for row in rows) else ""
        draw = functools.partial(paper.draw_timeline, rows, cases, " (A)" if "committed_tps" in marked else "")
        plates.append(PaperFigure("throughput", _caption(material, text), rows, draw))
    return plates


def _effect_plate(material: _Material, found: Effect) -> PaperFigure:
    varied = " and ".join(swept_keys(material.frame)) or "nothing"
    level = f"{100 * LEVEL:g} %"
    text = f"{found.title} against {varied}. Points: means over {found.replications} replications; "
    single = sum(one.interval is None for one in found.estimates)
    text += f"whiskers: {level} Student intervals of the mean."
    if single == len(found.estimates):
        text = f"{found.title} against {varied}. Points: one run each, so there is no interval."
    elif single:
        text += f" {single} cases have one run and so no interval."
    fewest = min((one.n for one in found.estimates if one.interval is not None), default=0)
    if caution(fewest):
        text += f" Intervals of {caution(fewest)}."
    caption = _caption(material, text, found.metric)
    return PaperFigure(found.metric, caption, paper.effect_rows(found), functools.partial(paper.draw_effect, found))


def _band(rows: Sequence[dict[str, Any]]) -> str:
    n = {row["n"] for row in rows}
    return f" (n = {_span(n)}); bands: their range" if max(n) > 1 else " (n = 1: no spread is known)"


def _span(numbers: set[int]) -> str:
    return str(min(numbers)) if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"


def _unanswered(groups: Sequence[tuple[Case, Sequence[Outcome]]]) -> str:
    """Transactions without an answer are not in a latency distribution: how many."""
    worst = 0.0
    for _, outcomes in groups:
        submitted = sum(one.metrics["submitted"] or 0 for one in outcomes)
        answered = sum(one.metrics["acknowledged"] or 0 for one in outcomes)
        worst = max(worst, 1 - answered / submitted if submitted else 0.0)
    return "" if worst < 0.001 else f" Not in it: transactions without an answer, up to {100 * worst:.1f} % of a case."


def _caption(material: _Material, text: str, metric: str | None = None) -> str:
    """The whole caption: what is shown, what is left out, what it rests on, seeds, command."""
    frame = material.frame
    seeds = [str(seed) for seed in frame.seed.dropna().unique().tolist()]
    shown = ", ".join(seeds[:12]) + (f", ... ({len(seeds)} in all, in runs.csv)" if len(seeds) > 12 else "")
    parts = [text, *_left_out(frame)]
    reasons: dict[str, tuple[str, ...]] = {}
    for one in material.samples:
        reasons |= tables.assumed(one)
    parts += [f"(A), an assumption: {why}." for why, what in reasons.items() if metric is None or metric in what]
    parts.append(f"Replication k has the same seed in every case; seeds: {shown}.")
    parts.append(f"pilotzone {frame.version.dropna().iloc[0]}; made by: {material.command}")
    return " ".join(parts)


def _left_out(frame: pd.DataFrame) -> list[str]:
    """Runs that figures do not show, by status."""
    found = []
    for status, count in frame.status.value_counts().sort_index().items():
        if status != "ok":
            why = _LEFT_OUT.get(str(status), f"ended as {status!r}")
            found.append(f"{count} of {len(frame)} runs {why}: not shown.")
    return found


def _notes(frame: pd.DataFrame, material: _Material) -> list[str]:
    notes = _left_out(frame)
    if not material.outcomes:
        notes.append(f"more than {paper.LINES_MAX} cases: distributions and time series are not drawn")
    return notes


def _about(runs: Runs, material: _Material, date: str, licence: str) -> About:
    study = json.loads((runs.folder / STUDY).read_text(encoding="utf-8"))
    ok = int((material.frame.status == "ok").sum())
    varied = ", ".join(swept_keys(material.frame)) or "nothing"
    text = f"Simulation study {material.name}: {len(material.cases)} cases, {ok} runs. Varied: {varied}."
    if study.get("description"):
        text += f" {study['description'].strip()}"
    version = str(material.frame.version.dropna().iloc[0])
    return About(material.name, text, date, licence, material.command, version, study["model_digest"])


def _clear(target: Path, listed: Sequence[str]) -> None:
    """Remove what an earlier publication wrote, and nothing else."""
    for path in listed:
        (target / path).unlink(missing_ok=True)
    (target / CRATE).unlink(missing_ok=True)
    for name in ("figures", "data"):
        (target / name).mkdir(parents=True, exist_ok=True)


def _write(
    target: Path,
    runs: Runs,
    material: _Material,
    plates: Sequence[PaperFigure],
    progress: Callable[[float], None] | None,
) -> list[Part]:
    shutil.copyfile(runs.folder / STUDY, target / STUDY)
    (target / "runs.csv").write_text(_runs_csv(material.frame), encoding="utf-8")
    parts = [
        Part(STUDY, "The study as it was laid out: cases, seeds, and the key of every run."),
        Part("runs.csv", "One row per run: what varied, seed, status, key, digest, and all metrics."),
    ]
    page = [f"# {material.name}\n"]
    for done, plate in enumerate(plates):
        numbers = f"data/{plate.name}.csv"
        (target / numbers).write_text(_csv(plate.rows), encoding="utf-8")
        parts.append(Part(numbers, f"The numbers behind the figure {plate.name}.", "runs.csv"))
        for column, width_in in paper.WIDTHS_IN.items():
            name = f"{plate.name}-{column}"
            _save(plate, name, width_in, target / "figures")
            parts += [Part(f"figures/{name}.{ending}", plate.caption, numbers) for ending in FORMATS]
        page.append(f"## {plate.name}\n\n![{plate.name}](figures/{plate.name}-two_columns.svg)\n\n{plate.caption}\n")
        if progress is not None:
            progress((done + 1) / len(plates))
    (target / "captions.md").write_text("\n".join(page), encoding="utf-8")
    return [*parts, Part("captions.md", "All figures with their captions.")]


def _save(plate: PaperFigure, name: str, width_in: float, folder: Path) -> None:
    figure = plate.draw(width_in)
    with paper.print_style(), mpl.rc_context({"svg.hashsalt": name}):
        settle(figure)
        for ending, fixed in FORMATS.items():
            figure.savefig(folder / f"{name}.{ending}", metadata=fixed)


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows under the names of their columns, numbers unrounded; empty: no value."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: repr(v) if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return stream.getvalue()


def _runs_csv(frame: pd.DataFrame) -> str:
    return str(frame.to_csv(index=False, lineterminator="\n"))
