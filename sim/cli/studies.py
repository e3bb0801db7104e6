"""Commands on studies: sweep, status, results, verify."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.cli.options import (
    AsJson,
    Cluster,
    Out,
    Overrides,
    Quiet,
    Workers,
    announce_compiling,
    app,
    bad_input_is_an_error,
    progress_bar,
)

if TYPE_CHECKING:
    from sim.scenario.results import Runs
    from sim.scenario.sweep import State


StudyPath = Annotated[Path, typer.Argument(metavar="STUDY", help="study file (YAML)")]
StudyPlace = Annotated[Path, typer.Argument(metavar="STUDY", help="study file (YAML), or its folder of results")]
ResultPath = Annotated[Path, typer.Argument(metavar="PATH", help="folder of a study's results")]
Resume = Annotated[bool, typer.Option("--resume", help="go on: do not list the runs that are reused")]
SWEEP_EXIT_CODES = (
    "Exit codes: as for run, of the worst run; 1 if a run has no result, 2 if a target is out of reach, 5 if a limit "
    "ended the sweep or a target was not reached."
)


@contextlib.contextmanager
def sweep_display(*, quiet: bool, away: bool = False) -> Iterator[Callable[[State], None]]:
    """A live line on a terminal, a line per finished run elsewhere; both on stderr. `away`: runs are made elsewhere."""
    from sim.scenario.progress import eta

    lines = not sys.stderr.isatty()
    told = False

    def say(state: State) -> None:
        nonlocal told
        if not told:
            told = True
            for name, reason in state.again.items():
                typer.echo(f"damaged, runs again: {name}: {reason}", err=True)
        if state.running and not away:
            announce_compiling()
        if lines and state.last:
            ended = state.total - state.left
            typer.echo(f"[{ended}/{state.total}] {state.last}{eta(state)}", err=True)

    if quiet or lines:
        yield (lambda state: None) if quiet else say
        return
    from rich.console import Console

    from sim.scenario.progress import sweep_bar

    with sweep_bar(console=Console(stderr=True)) as draw:

        def say_and_draw(state: State) -> None:
            say(state)
            draw(state)

        yield say_and_draw


@app.command(epilog=SWEEP_EXIT_CODES)
def sweep(
    study: StudyPath,
    set_: Overrides = None,
    workers: Workers = 2,
    cluster: Cluster = None,
    resume: Resume = False,
    limit_wall: Annotated[
        str | None, typer.Option("--limit-wall", metavar="TIME", help='stop after this time, "2 h"; what is done stays')
    ] = None,
    out: Out = Path("results"),
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run a study: every case, every replication. Runs stored intact are not repeated."""
    from sim.report.outcome import EXIT_CODES as CODES
    from sim.scenario import sweep as sweeping
    from sim.units import UnitError, parse_ns

    try:
        limit_s = None if limit_wall is None else parse_ns(limit_wall) / 1e9
    except UnitError as error:
        typer.echo(f"--limit-wall {limit_wall}: {error}", err=True)
        raise typer.Exit(2) from None
    try:
        with bad_input_is_an_error(), sweep_display(quiet=quiet, away=cluster is not None) as tell:
            swept = sweeping.sweep(
                study, out=out, workers=workers, cluster=cluster, overrides=set_ or [], limit_wall_s=limit_s, tell=tell
            )
    except KeyboardInterrupt:
        words = ["pilotzone", "sweep", str(study), "--out", str(out), "--workers", str(workers)]
        words += [word for override in set_ or [] for word in ("--set", override)]
        words += ["--cluster", cluster] if cluster is not None else []
        words += ["--limit-wall", limit_wall] if limit_wall is not None else []
        again = shlex.join([*words, "--resume"])
        typer.echo(f"interrupted; finished runs are kept, go on with: {again}", err=True)
        raise typer.Exit(130) from None
    state = swept.state
    codes = [CODES.get(status, 1) for status in swept.statuses if status != "missing"]
    missed = [one.outcome for one in swept.standings]
    codes += [5 if swept.stopped or "capped" in missed else 0, 2 if "out of reach" in missed else 0]
    code = max(codes, key=(0, 5, 4, 3, 2, 1).index)
    if as_json:
        data = {
            "folder": str(swept.folder), "runs": state.total, "done": state.done, "reused": state.reused,
            "failed": state.failed, "missing": swept.statuses.get("missing", 0), "statuses": swept.statuses,
            "failures": swept.failures, "stopped": swept.stopped or None, "targets": swept.targets(),
        }  # fmt: skip
        typer.echo(json.dumps(data, ensure_ascii=False, allow_nan=False))
        raise typer.Exit(code)
    if not resume and not quiet:
        for line in state.reused_runs:
            typer.echo(f"reused {line}")
    typer.echo(f"{state.done} done, {state.reused} reused, {state.failed} failed of {state.total}")
    _print_counts(swept.runs, swept.statuses, swept.failures)
    for one in swept.targets():
        typer.echo(f"  {one['case']}: {one['words']}", err=one["outcome"] == "out of reach")
    if swept.stopped:
        typer.echo(f"stopped: {swept.stopped}")
    raise typer.Exit(code)


def _print_counts(runs: Runs, statuses: dict[str, int], failures: dict[str, str]) -> None:
    from sim.scenario.results import others

    typer.echo(f"{runs.folder}: " + ", ".join(f"{status} {count}" for status, count in statuses.items()))
    if statuses.get("truncated"):
        typer.echo("  truncated runs reached a limit; their metrics are left out of tables")
    for name, reason in failures.items():
        typer.echo(f"  failed: {name}: {reason}")
    if more := others(runs):
        typer.echo(f"  besides, {more} stored runs are of another version of the study or of the model code")


@app.command()
def status(study: StudyPlace, set_: Overrides = None, out: Out = Path("results"), as_json: AsJson = False) -> None:
    """Count a study's runs: done (by status), failed, missing."""
    from sim.scenario import results as reading

    with bad_input_is_an_error():
        runs = reading.open_runs(study, out=out, overrides=set_ or [])
        statuses, failures = reading.counts(runs), reading.failures(runs)
    lost = {name: statuses.get(name, 0) for name in ("failed", "missing", "damaged")}
    done = sum(statuses.values()) - sum(lost.values())
    if as_json:
        data = {"folder": str(runs.folder), "runs": len(runs.runs), "done": done, **lost, "statuses": statuses}
        typer.echo(json.dumps(data | {"failures": failures}, ensure_ascii=False, allow_nan=False))
        return
    typer.echo(f"{len(runs.runs)} runs: {done} done, " + ", ".join(f"{count} {name}" for name, count in lost.items()))
    _print_counts(runs, statuses, failures)


@app.command()
def results(
    path: ResultPath,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="write the whole table here")] = None,
    truncated: Annotated[bool, typer.Option("--truncated", help="also show the metrics of truncated runs")] = False,
    out: Out = Path("results"),
) -> None:
    """Show a study as a table, one row per run: what varied, seed, status, metrics."""
    from sim.scenario import results as reading

    with bad_input_is_an_error():
        frame = reading.results(path, truncated=truncated, out=out)
    if csv is not None:
        temporary = csv.with_name(f".{csv.name}.part")
        frame.to_csv(temporary, index=False)
        temporary.replace(csv)
        typer.echo(f"wrote {csv}: {len(frame)} runs, {len(frame.columns)} columns")
        return
    front = list(frame.columns[: list(frame.columns).index("truncated")])
    shown = [*front, *(n for n in ("committed_tps", "latency_p50_ms", "latency_p99_ms", "view_changes") if n in frame)]
    typer.echo(frame[shown].to_string(index=False, max_rows=60, na_rep="-", float_format=lambda x: f"{x:,.3f}"))
    typer.echo(f"{len(frame)} runs; all {len(frame.columns)} columns with --csv FILE or sim.results({str(path)!r})")


@app.command(epilog="Exit codes: 0 every byte is the same, 1 something differs, 2 nothing to verify.")
def verify(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="folder of a study's results, or of one run")],
    sample: Annotated[int | None, typer.Option("--sample", min=1, metavar="K", help="only so many runs")] = None,
    workers: Workers = 2,
    cluster: Cluster = None,
    as_json: AsJson = False,
) -> None:
    """Run stored scenarios again and compare with what is stored, byte by byte."""
    from sim.scenario.sweep import verify as verifying

    checked = []
    with bad_input_is_an_error(), progress_bar(f"verify {path}", hidden=as_json) as progress:
        for total, one in verifying(path, sample=sample, workers=workers, cluster=cluster):
            checked.append(one)
            if progress is not None:
                progress(len(checked) / total)
    wrong = sorted((one for one in checked if one.differences), key=lambda one: one.key)
    if as_json:
        data = {"checked": len(checked), "differences": {one.key: list(one.differences) for one in wrong}}
        typer.echo(json.dumps(data, ensure_ascii=False, allow_nan=False))
    else:
        for one in wrong:
            typer.echo(f"{one.key}: " + "; ".join(one.differences))
        typer.echo(f"{len(checked)} runs checked, {len(checked) - len(wrong)} the same, {len(wrong)} different")
    raise typer.Exit(1 if wrong else 0)
