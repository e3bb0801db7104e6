"""Commands on how far a design goes and what it hangs on: saturate, sensitivity."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from sim.cli.comparing import records
from sim.cli.options import (
    AsJson,
    Cluster,
    Level,
    Out,
    Overrides,
    Quiet,
    ScenarioPath,
    Seed,
    Workers,
    app,
    bad_input_is_an_error,
)
from sim.cli.studies import StudyPath, sweep_display


@app.command(epilog="Exit codes: 0 answered, 2 bad input, 3 a safety violation, 5 stopped before the answer.")
def saturate(
    scenario: ScenarioPath,
    objective: Annotated[
        str, typer.Option("--objective", metavar="TEXT", help="what must hold: 'p99 < 2 s and success > 99.9 %'")
    ],
    set_: Overrides = None,
    seed: Seed = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="RATE", help='the first load tried, "1000 tx/s"; default: its own')
    ] = None,
    tolerance: Annotated[float, typer.Option("--tolerance", help="how far apart the ends may stay, as a share")] = 0.05,
    replications: Annotated[
        int, typer.Option("--replications", min=2, max=1000, help="runs of each load to begin with")
    ] = 5,
    most: Annotated[
        int, typer.Option("--most", min=2, max=1000, help="runs of a load at most, where it stays undecided")
    ] = 20,
    level: Level = 0.95,
    out: Out = Path("results"),
    workers: Workers = 2,
    cluster: Cluster = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find the largest offered load that still meets an objective, and draw the throughput/latency curve."""
    from sim.plan import saturate as saturating

    with bad_input_is_an_error(), sweep_display(quiet=quiet or as_json, away=cluster is not None) as tell:
        found = saturating.saturate(
            scenario, objective, start=start, tolerance=tolerance, replications=replications,
            most=max(most, replications), level=level, overrides=set_ or (), seed=seed, out=out, workers=workers,
            cluster=cluster, tell=tell,
        )  # fmt: skip
    from sim.plan import figures as answers
    from sim.report.figures import save
    from sim.report.verdicts import wrapped

    frame = found.frame()
    files = [found.folder / "curve.csv"]
    frame.to_csv(files[0], index=False)
    words = ["pilotzone", "saturate", str(scenario), "--objective", objective]
    words += [word for text in set_ or () for word in ("--set", text)]
    words += [] if start is None else ["--from", start]
    words += [] if seed is None else ["--seed", str(seed)]
    if found.loads:
        files += save(answers.saturation(found, shlex.join(words)), found.folder, "curve")
    code = 3 if "safety violation" in found.statuses else 5 if found.stopped else 0
    if as_json:
        data = {
            "objective": found.objective.text,
            "meets_tps": found.meets.offered_tps if found.meets else None,
            "fails_tps": found.fails.offered_tps if found.fails else None,
            "knee_tps": found.knee.offered_tps if found.knee else None,
            "level": found.level,
            "verdict": found.verdict(),
            "loads": records(frame),
            "stopped": found.stopped or None,
            "files": [str(file) for file in files],
        }
        typer.echo(json.dumps(data, ensure_ascii=False, allow_nan=False))
        raise typer.Exit(code)
    typer.echo(wrapped(found.verdict()))
    if found.loads:
        typer.echo("\n" + found.text() + "\n")
    typer.echo("written:")
    for file in files:
        typer.echo(f"  {file}")
    raise typer.Exit(code)


@app.command(epilog="Exit codes: 0 answered, 2 bad input or cases without a usable result.")
def sensitivity(
    study: StudyPath,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", metavar="NAME", help="of this metric; repeatable")
    ] = None,
    level: Level = 0.95,
    set_: Overrides = None,
    out: Out = Path("results"),
    workers: Workers = 2,
    cluster: Cluster = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run a study with a saltelli or morris sweep, and tell which of its keys matter for a metric."""
    from sim.plan import sensitivity as answering

    with bad_input_is_an_error(), sweep_display(quiet=quiet or as_json, away=cluster is not None) as tell:
        found = answering.sensitivity(
            study, metric or answering.DEFAULT, level=level, overrides=set_ or (), out=out, workers=workers,
            cluster=cluster, tell=tell,
        )  # fmt: skip
    from sim.plan import figures as answers
    from sim.report.figures import save
    from sim.report.verdicts import wrapped

    frame, folder = answering.frame(found), out / study.stem
    files = [folder / "sensitivity.csv"]
    frame.to_csv(files[0], index=False)
    words = ["pilotzone", "sensitivity", str(study)]
    words += [word for name in metric or () for word in ("--metric", name)]
    words += [word for text in set_ or () for word in ("--set", text)]
    drawn = answers.sensitivities(found, shlex.join(words))
    if drawn is not None:
        files += save(drawn, folder, "sensitivity")
    if as_json:
        data = {
            "verdict": [one.verdict() for one in found],
            "indices": records(frame),
            "files": [str(file) for file in files],
        }
        typer.echo(json.dumps(data, ensure_ascii=False, allow_nan=False))
        return
    typer.echo(wrapped(one.verdict() for one in found))
    if len(frame):
        typer.echo("\n" + frame.to_string(index=False, na_rep="-", float_format=lambda x: f"{x:,.3g}") + "\n")
    typer.echo("written:")
    for file in files:
        typer.echo(f"  {file}")
