"""Commands that put scenarios side by side: compare, demo."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    import pandas as pd

    from sim.plan.compare import Comparison
    from sim.report.outcome import Outcome

ONE_RUN = (
    "One run of each design, so no number here has an interval of replications: pilotzone compare tells what holds "
    "beyond these runs."
)

Scenarios = Annotated[list[Path], typer.Argument(metavar="SCENARIO...", help="two or more scenario files (YAML)")]


@app.command(epilog=f"{EXIT_CODES} With --until also 2 if its target is out of reach, 5 if it was not reached.")
def compare(
    scenarios: Scenarios,
    set_: Overrides = None,
    seed: Seed = None,
    replications: Annotated[
        int | None,
        typer.Option(
            "--replications", min=1, max=10_000, help="runs of each design, on the same seeds; 5, or 10 with --until"
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until", metavar="TARGET", help="until differences are known so closely: 'latency_p99_ms +-1 ms at 95%'"
        ),
    ] = None,
    most: Annotated[int, typer.Option("--most", min=3, max=10_000, help="most runs of a design, with --until")] = 200,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", metavar="NAME", help="compare this metric; repeatable")
    ] = None,
    level: Annotated[
        float | None, typer.Option("--level", metavar="SHARE", help="of the intervals; 0.95, or what --until says")
    ] = None,
    independent: Annotated[
        bool, typer.Option("--independent", help="other seeds in each design, to see what common ones save")
    ] = False,
    out: Out = Path("results"),
    as_json: AsJson = False,
    quiet: Quiet = False,
    jobs: Jobs = 2,
) -> None:
    """Which design is better, and by how much: replications on the same seeds, differences with intervals, a verdict.

    Each scenario is compared with the first. Only what is not stored yet runs.
    """
    from sim.plan import compare as comparing

    with (
        bad_input_is_an_error(),
        progress_bar(f"{len(scenarios)} designs", hidden=quiet or as_json) as progress,
    ):
        found = comparing.compare(
            scenarios, replications=replications, until=until, most=most, overrides=set_ or (), seed=seed,
            metrics=metric, level=level, common=not independent, out=out, workers=jobs, progress=progress,
            announce=compiling_is_announced,
        )  # fmt: skip
    from sim.plan import figures as answers
    from sim.report import figures, tables
    from sim.report.outcome import worst_exit_code

    folder = out / "compare" / comparing.folder_of(found)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "table.csv"]
    every = [run for runs in found.outcomes for run in runs]
    files[0].write_text(tables.as_csv(every), encoding="utf-8")
    files.append(folder / "caliper.csv")
    files[-1].write_text(tables.as_caliper(every), encoding="utf-8")
    for name, frame in (("summary", found.summary()), ("differences", found.differences())):
        files.append(folder / f"{name}.csv")
        frame.to_csv(files[-1], index=False)
    changes = [word for text in set_ or () for word in ("--set", text)]
    words = ["pilotzone", "compare", *map(str, scenarios), *changes, "--replications", str(found.replications)]
    command = shlex.join(words + ([] if seed is None else ["--seed", str(seed)]))
    files += figures.save(figures.comparison(found.first, command), folder, "comparison")
    drawn = answers.differences(found, command) if found.replications > 1 else None
    if drawn is not None:
        files += figures.save(drawn, folder, "differences")
    code = worst_exit_code([run for runs in found.outcomes for run in runs])
    if not code and found.enough is not None:
        code = {"reached": 0, "out of reach": 2}.get(found.enough.outcome, 5)
    if as_json:
        data = _comparison_data(found) | {"files": [str(file) for file in files]}
        typer.echo(json.dumps(data, ensure_ascii=False, allow_nan=False))
        raise typer.Exit(code)
    _print_table(found.first)
    if found.replications == 1:
        typer.echo("one run of each: differences have no interval; add --replications 5")
    else:
        typer.echo(f"(one run each: replication 1 of {found.replications}, seed {found.seeds[0][0]})\n")
        typer.echo(found.text() + "\n")
    for line in found.verdict() if found.replications > 1 else found.notes:
        typer.echo(line)
    if found.replications > 1 and (saved := found.savings()):
        typer.echo("\n" + "\n".join(saved) + "\n")
    _print_notes(tables.notes(found.first), files)
    raise typer.Exit(code)


def _comparison_data(found: Comparison) -> dict[str, Any]:
    """What `compare --json` prints."""
    from sim.report import tables
    from sim.report.outcome import worst_exit_code

    every = [run for runs in found.outcomes for run in runs]
    code = worst_exit_code(every)
    return {
        "status": next(run.status for run in every if run.exit_code == code),
        "runs": tables.as_data(found.first),
        "replications": found.replications,
        "seeds": [list(row) for row in found.seeds],
        "statuses": [[run.status for run in runs] for runs in found.outcomes],
        "summary": records(found.summary()),
        "differences": records(found.differences()) if found.replications > 1 else [],
        "verdict": found.verdict() if found.replications > 1 else list(found.notes),
        "notes": tables.notes(found.first),
    }


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a frame as JSON data: what is no finite number is null."""
    return [{str(key): _finite(value) for key, value in row.items()} for row in frame.astype(object).to_dict("records")]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
    notes = [*tables.notes(outcomes), ONE_RUN, *more]
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
    _print_table(outcomes)
    _print_notes(notes, files)
    raise typer.Exit(code)


def _print_table(outcomes: Sequence[Outcome]) -> None:
    from sim.report import tables

    if sys.stdout.isatty():
        from rich.console import Console

        console = Console()
        for table in tables.rich_tables(outcomes, console.width):
            console.print(table)
    else:
        typer.echo(tables.plain(outcomes))


def _print_notes(notes: Sequence[str], files: Sequence[Path]) -> None:
    for note in notes:
        typer.echo(f"- {note}")
    typer.echo("written:")
    for file in files:
        typer.echo(f"  {file}")
