"""The command that writes a page to mail: report."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sim.cli.options import (
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
    from sim.scenario.schema import Scenario

DESIGNS_MAX = 60


@app.command(epilog="Exit codes: 0 written, 2 bad scenario or study, 1, 3, 4, 5 as the worst run on the page.")
def report(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SCENARIO|STUDY...", help="scenario files, or one study file (YAML)")
    ],
    lang: Annotated[Literal["en", "zh"], typer.Option("--lang", help="of the page")] = "en",
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE.html", help="default: results/report/NAME.html")
    ] = None,
    set_: Overrides = None,
    seed: Seed = None,
    out: Out = Path("results"),
    as_json: AsJson = False,
    quiet: Quiet = False,
    jobs: Jobs = 2,
) -> None:
    """Write one HTML file that can be mailed: the answer, figures, a map, and what it all rests on. Works offline."""
    from sim.scenario.source import read_file

    if to is not None and to.suffix not in (".html", ".htm"):
        typer.echo(f"--to {to}: a page is an HTML file; write {to.with_suffix('.html')}", err=True)
        raise typer.Exit(2)
    with bad_input_is_an_error():
        study = len(sources) == 1 and "sweep" in read_file(sources[0]).data
        runs, scenarios = (_of_study if study else _of_scenarios)(
            sources, set_ or [], seed, out, jobs, quiet or as_json
        )
    from sim.report import page
    from sim.report.outcome import worst_exit_code
    from sim.report.replications import differing
    from sim.report.verdicts import answer, short_table, wrapped

    file = to or out / "report" / f"{sources[0].stem}{'-zh' if lang == 'zh' else ''}.html"
    words = ["pilotzone", "report", *map(str, sources), *(["--lang", lang] if lang != "en" else [])]
    words += [word for text in set_ or () for word in ("--set", text)]
    words += [] if seed is None else ["--seed", str(seed)]
    size = page.write(runs, scenarios, shlex.join(words), file, lang)
    code = worst_exit_code([run for design in runs for run in design])
    outcomes = [design[0] for design in runs]
    said = [*differing(runs, lang), *answer(outcomes, lang)]
    if as_json:
        data = {"answer": said, "file": str(file), "bytes": size}
        typer.echo(json.dumps(data, ensure_ascii=False, allow_nan=False))
        raise typer.Exit(code)
    typer.echo(wrapped(said) + "\n\n" + short_table(outcomes) + "\n")
    typer.echo(f"written: {file} ({size / 1000:,.0f} kB)")
    raise typer.Exit(code)


def _check(sources: list[Path], count: int) -> None:
    from sim.scenario.errors import ScenarioError

    if count > DESIGNS_MAX:
        raise ScenarioError(
            f"{sources[0]}: a page shows {DESIGNS_MAX} runs at the most, and these are {count}; name some of the "
            "scenarios, or narrow the study with --set"
        )


def _of_scenarios(
    sources: list[Path], overrides: list[str], seed: int | None, out: Path, jobs: int, hidden: bool
) -> tuple[list[list[Outcome]], list[Scenario]]:
    """A run of each scenario, stored or made now."""
    from sim.report.compare import Job, aggregate

    _check(sources, len(sources))
    chosen = [Job(source, tuple(overrides), seed) for source in sources]
    with progress_bar("report", hidden=hidden) as progress:
        outcomes = aggregate(
            chosen, out, study="report", workers=jobs, progress=progress, announce=compiling_is_announced
        )
    return [[outcome] for outcome in outcomes], [job.load() for job in chosen]


def _of_study(
    sources: list[Path], overrides: list[str], seed: int | None, out: Path, jobs: int, hidden: bool
) -> tuple[list[list[Outcome]], list[Scenario]]:
    """All replications of each case of a study, swept if they are not stored; scenarios of the first ones."""
    from sim.cli.studies import sweep_display
    from sim.report import outcome
    from sim.scenario.errors import ScenarioError
    from sim.scenario.study import label, load_study
    from sim.scenario.sweep import run_study

    if seed is not None:
        raise ScenarioError(f"{sources[0]}: a study has seeds of its own; leave --seed out")
    study = load_study(sources[0], overrides)
    first = [planned for planned in study.runs if planned.replication == 0]
    _check(sources, len(first))
    with sweep_display(quiet=hidden) as tell:
        swept = run_study(study, out=out, workers=jobs, tell=tell)
    if swept.stopped or swept.failures:
        why = swept.stopped or "; ".join(f"{key}: {reason}" for key, reason in list(swept.failures.items())[:3])
        raise ScenarioError(f"{sources[0]}: not all of its runs are there ({why}); run the command again")
    designs: dict[str, list[Outcome]] = {}
    for planned in sorted(study.runs, key=lambda one: one.replication):
        name = label(planned.case.values)
        designs.setdefault(name, []).append(outcome.read(swept.folder / "runs" / planned.key, name))
    return [designs[label(planned.case.values)] for planned in first], [planned.scenario for planned in first]
