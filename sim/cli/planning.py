"""Commands that answer planners' questions by many runs: contingency, curves."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from sim.cli.options import AsJson, Out, Overrides, Quiet, ScenarioPath, Workers, app, bad_input_is_an_error
from sim.cli.studies import sweep_display


@app.command(epilog="Exit codes: 0 ok, 2 bad scenario or option. A design that halts is an answer, not an error.")
def contingency(
    scenario: ScenarioPath,
    most: Annotated[int, typer.Option("-k", min=1, max=3, help="lose up to this many elements together")] = 1,
    kinds: Annotated[
        str, typer.Option("--kinds", metavar="KIND,...", help="of node, domain, link, organisation")
    ] = "node,domain,link,organisation",
    outage: Annotated[str, typer.Option("--outage", metavar="TIME", help="how long they are lost")] = "20 s",
    set_: Overrides = None,
    out: Out = Path("results"),
    workers: Workers = 2,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Lose every node, domain, link and organisation (-k 2: every pair): what halts, what slows, expected downtime."""
    from sim.plan.contingency import contingency as study_of
    from sim.plan.losses import KINDS
    from sim.report import contingency as report
    from sim.units import UnitError, parse_ns

    chosen = [kind for kind in KINDS if kind in kinds.split(",")]
    unknown = sorted(set(kinds.split(",")) - set(KINDS))
    if unknown or not chosen:
        text = f"there is no kind {', '.join(unknown)}" if unknown else "names no kind"
        typer.echo(f"--kinds {kinds}: {text}; choose from {', '.join(KINDS)}", err=True)
        raise typer.Exit(2)
    try:
        outage_ns = parse_ns(outage)
    except UnitError as error:
        typer.echo(f"--outage {outage}: {error}", err=True)
        raise typer.Exit(2) from None
    if outage_ns < 10**9:
        typer.echo(f"--outage {outage}: is too short to tell a halt from a pause; write 1 s or more", err=True)
        raise typer.Exit(2)
    words = ["pilotzone", "contingency", str(scenario), "-k", str(most), "--kinds", ",".join(chosen)]
    words += ["--outage", outage]
    for override in set_ or []:
        words += ["--set", override]
    with bad_input_is_an_error(), sweep_display(quiet=quiet or as_json) as tell:
        found = study_of(
            scenario,
            most=most,
            kinds=chosen,
            outage_ns=outage_ns,
            overrides=set_ or [],
            out=out,
            workers=workers,
            tell=tell,
        )
    files = report.write(found, shlex.join(words))
    if as_json:
        data = {
            "scenario": found.scenario.name,
            "quorum": found.quorum,
            "losses": [
                {"lost": [str(element) for element in loss.lost], "effect": loss.effect,
                 "predicted_halt": loss.predicted_halt, "committed_ratio": loss.committed_ratio,
                 "latency_p99_ratio": loss.latency_p99_ratio, "recovery_s": loss.recovery_s, "key": loss.key}
                for loss in found.losses
            ],
            "summary": report.lines(found),
            "files": [str(file) for file in files],
        }  # fmt: skip
        typer.echo(json.dumps(data, ensure_ascii=False, allow_nan=False))
        return
    for line in report.lines(found):
        typer.echo(line)
    typer.echo("written:")
    for file in files:
        typer.echo(f"  {file}")


@app.command()
def curves(
    studies: Annotated[
        list[Path], typer.Argument(metavar="STUDY", help="study files (YAML); drawn as one, named by the first")
    ],
    set_: Overrides = None,
    out: Out = Path("results"),
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="folder of the figure; default: the study's")
    ] = None,
    workers: Workers = 2,
    quiet: Quiet = False,
) -> None:
    """Sweep studies over protocols and rates, and draw throughput against latency with intervals."""
    from sim.report import curves as report
    from sim.report.tables import different_rules
    from sim.report.verdicts import wrapped
    from sim.scenario.schema import resolved
    from sim.scenario.study import load_study
    from sim.scenario.sweep import sweep

    words = ["pilotzone", "curves", *map(str, studies)]
    for override in set_ or []:
        words += ["--set", override]
    with bad_input_is_an_error(), sweep_display(quiet=quiet) as tell:
        planned = [load_study(study, set_ or []) for study in studies]
        for each in planned:
            report.check(each.swept)
        frames, folder = [], to
        for study in studies:
            swept = sweep(study, out=out, workers=workers, overrides=set_ or [], tell=tell)
            if swept.stopped:
                typer.echo(f"stopped: {swept.stopped}", err=True)
                raise typer.Exit(5)
            frames.append(swept.results())
            folder = folder or swept.folder
        assert folder is not None  # there is a first study
        rules = different_rules(
            (run.scenario.protocol.name, resolved(run.scenario)) for study in planned for run in study.runs
        )
        files = report.write(frames, planned[0].name, planned[0].description, shlex.join(words), folder, rules)
    typer.echo(wrapped([*report.answer(report.gathered(frames)), *rules]))
    for file in files:
        typer.echo(f"wrote {file}")
