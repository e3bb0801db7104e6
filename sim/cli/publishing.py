"""Commands that make something to hand on: publish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim.cli.options import Quiet, app, bad_input_is_an_error, progress_bar


@app.command(epilog="Exit codes: 0 written, 2 nothing to publish or nowhere to write it.")
def publish(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="folder of a study's results, or its file (YAML)")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="folder to write, new or published before")],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", metavar="NAME", help="draw this metric over the cases; repeatable")
    ] = None,
    date: Annotated[
        str | None, typer.Option("--date", metavar="YYYY-MM-DD", help="of publication; default: as before, or today")
    ] = None,
    licence: Annotated[
        str, typer.Option("--licence", metavar="SPDX", help="licence of the figures and numbers")
    ] = "Apache-2.0",
    results: Annotated[Path, typer.Option("--results", metavar="DIR", help="where a study file's results are")] = Path(
        "results"
    ),
    quiet: Quiet = False,
) -> None:
    """Write a study's figures, the numbers behind them, captions and an RO-Crate into a folder."""
    from sim.report.publish import publish as publishing

    with bad_input_is_an_error(), progress_bar(f"publish {study}", hidden=quiet) as progress:
        made = publishing(study, out, metrics=metric or [], date=date, licence=licence, out=results, progress=progress)
    for note in made.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"wrote {made.folder}: {len(made.files)} files; start with {made.folder / 'captions.md'}")
