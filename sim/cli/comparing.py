"""Commands that put scenarios side by side: compare, demo."""

from __future__ import annotations

import json
import math
import shlex
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
TPS = "Designs differ in fault tolerance, finality, residency and bursts, not in headline TPS."

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
    from sim.report import figures, tables, verdicts
    from sim.report.outcome import worst_exit_code
    from sim.report.words import listed

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
    files.insert(1, folder / "table.md")
    files[1].write_text(_page(found, command), encoding="utf-8")
    if as_json:
        data = _comparison_data(found) | {"files": [str(file) for file in files]}
        typer.echo(json.dumps(data, ensure_ascii=False, allow_nan=False))
        raise typer.Exit(code)
    if found.replications == 1:
        _print_answer(found.first, [])
        typer.echo("One run of each: differences have no interval; add --replications 5.")
    else:
        differ, equal = found.told_apart()
        same = [f"No difference could be shown in {listed(equal)}."] if equal else []
        _print_answer(found.first, [])
        typer.echo(f"(replication 1 of {found.replications}, seed {found.seeds[0][0]})\n")
        typer.echo(verdicts.wrapped([*differ, *same]) + "\n")
    if found.notes:
        typer.echo(verdicts.wrapped(found.notes))
    _print_files(files, files[1])
    raise typer.Exit(code)


def _page(found: Comparison, command: str) -> str:
    """All numbers, means, differences and notes of a comparison."""
    from sim.report import tables, verdicts

    text = [
        "# " + verdicts.names(found.first),
        "",
        *verdicts.answer(found.first),
        "",
        tables.markdown(found.first, command),
    ]
    if found.replications > 1:
        text += ["```text", found.text(), "```", "", *(f"- {line}" for line in found.verdict())]
        text += ["", "```text", *found.savings(), "```"] if found.savings() else []
    return "\n".join(text) + "\n"


def _comparison_data(found: Comparison) -> dict[str, Any]:
    """What `compare --json` prints."""
    from sim.report import tables, verdicts
    from sim.report.outcome import worst_exit_code

    every = [run for runs in found.outcomes for run in runs]
    code = worst_exit_code(every)
    return {
        "status": next(run.status for run in every if run.exit_code == code),
        "answer": verdicts.answer(found.first),
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
    more = main_job.by_arithmetic(main_job.scenario_folder())
    _print_comparison(outcomes, files, as_json=as_json, said=more, notes=main_job.notes(outcomes))


def _print_comparison(
    outcomes: list[Outcome], files: list[Path], *, as_json: bool, said: Sequence[str], notes: Sequence[str]
) -> None:
    """The answer, a table and file names, or one JSON object; exits with the worst run's code."""
    from sim.report import tables, verdicts
    from sim.report.outcome import worst_exit_code

    code = worst_exit_code(outcomes)
    if as_json:
        worst = next(outcome.status for outcome in outcomes if outcome.exit_code == code)
        data = {
            "status": worst,
            "answer": [*verdicts.answer(outcomes), *said],
            "runs": tables.as_data(outcomes),
            "notes": [*tables.notes(outcomes), ONE_RUN, *notes],
            "files": [str(file) for file in files],
        }
        typer.echo(json.dumps(data, ensure_ascii=False, allow_nan=False))
        raise typer.Exit(code)
    _print_answer(outcomes, said)
    typer.echo(verdicts.wrapped([ONE_RUN]))
    _print_files(files, next(file for file in files if file.suffix == ".md"))
    raise typer.Exit(code)


def _print_answer(outcomes: Sequence[Outcome], said: Sequence[str]) -> None:
    from sim.report import verdicts

    typer.echo(verdicts.wrapped([*verdicts.answer(outcomes), *said]))
    typer.echo("\n" + verdicts.short_table(outcomes))


def _print_files(files: Sequence[Path], page: Path) -> None:
    from sim.report import verdicts

    said = f"(A): assumed; all numbers, and what they rest on, are in {page.name}. {TPS}"
    typer.echo(verdicts.wrapped([said]) + "\nwritten:")
    for file in files:
        typer.echo(f"  {file}")
