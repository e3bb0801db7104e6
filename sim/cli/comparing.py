"""Commands that put scenarios side by side: compare, demo."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.cli.options import (
    EXIT_CODES,
    AsJson,
    Jobs,
    Out,
    Overrides,
    Quiet,
    Seed,
    app,
    bad_input_is_an_error,
    compiling_is_announced,
    progress_bar,
)

if TYPE_CHECKING:
    from sim.report.outcome import Outcome


Scenarios = Annotated[list[Path], typer.Argument(metavar="SCENARIO...", help="two or more scenario files (YAML)")]


@app.command(epilog=EXIT_CODES)
def compare(
    scenarios: Scenarios,
    set_: Overrides = None,
    seed: Seed = None,
    out: Out = Path("results"),
    as_json: AsJson = False,
    quiet: Quiet = False,
    jobs: Jobs = 2,
) -> None:
    """Put scenarios side by side: one table, one figure. Only what is not stored yet runs."""
    from sim.report import compare as comparing

    if len(scenarios) < 2:
        typer.echo(f"compare: {scenarios[0]} alone; name two or more scenarios, or use run", err=True)
        raise typer.Exit(2)
    named = [comparing.Job(path, tuple(set_ or ()), seed) for path in scenarios]
    with (
        bad_input_is_an_error(),
        progress_bar(f"{len(named)} scenarios", hidden=quiet or as_json) as progress,
    ):
        outcomes = comparing.gather(named, out, workers=jobs, progress=progress, announce=compiling_is_announced)
    from sim.report import figures, tables

    folder = out / "compare" / comparing.folder_of(outcomes)
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "table.csv"
    table.write_text(tables.as_csv(outcomes), encoding="utf-8")
    drawn = figures.comparison(outcomes, "pilotzone compare")
    _print_comparison(outcomes, [table, *figures.save(drawn, folder, "comparison")], as_json=as_json)


@app.command(epilog=EXIT_CODES)
def demo(out: Out = Path("results"), as_json: AsJson = False, quiet: Quiet = False, jobs: Jobs = 2) -> None:
    """The pilot zone's main question: three designs, with and without the storm; table, figures, map."""
    from sim.report import demo as main_job

    with (
        bad_input_is_an_error(),
        progress_bar("pilot-zone demo", hidden=quiet or as_json) as progress,
    ):
        outcomes, files = main_job.demo(out, workers=jobs, progress=progress, announce=compiling_is_announced)
    _print_comparison(outcomes, files, as_json=as_json, more=main_job.notes(outcomes))


def _print_comparison(outcomes: list[Outcome], files: list[Path], *, as_json: bool, more: Sequence[str] = ()) -> None:
    """Table, notes and file names, or one JSON object; exits with the worst run's code."""
    from sim.report import tables
    from sim.report.outcome import worst_exit_code

    code = worst_exit_code(outcomes)
    notes = [*tables.notes(outcomes), *more]
    if as_json:
        worst = next(outcome.status for outcome in outcomes if outcome.exit_code == code)
        data = {
            "status": worst,
            "runs": tables.as_data(outcomes),
            "notes": notes,
            "files": [str(file) for file in files],
        }
        typer.echo(json.dumps(data, ensure_ascii=False, allow_nan=False))
        raise typer.Exit(code)
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console()
        for table in tables.rich_tables(outcomes, console.width):
            console.print(table)
    else:
        typer.echo(tables.plain(outcomes))
    for note in notes:
        typer.echo(f"- {note}")
    typer.echo("written:")
    for file in files:
        typer.echo(f"  {file}")
    raise typer.Exit(code)
