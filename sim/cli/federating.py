"""The command `federate`: several chains in one run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sim.cli.options import (
    AsJson,
    Out,
    Overrides,
    Quiet,
    app,
    bad_input_is_an_error,
    compiling_is_announced,
    make_folder,
    progress_bar,
    unwritable_is_an_error,
)


@app.command(epilog="Exit codes: 0 ok, 2 bad file, 3 safety or atomicity broken, 4 a chain halted.")
def federate(
    file: Annotated[Path, typer.Argument(metavar="FEDERATION", help="federation file (YAML)")],
    set_: Overrides = None,
    out: Out = Path("results"),
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run several chains side by side, with anchors and transfers between them."""
    with compiling_is_announced(), bad_input_is_an_error():
        from sim.plan.federation import run_federation
        from sim.report import federation as report
        from sim.scenario.federation import load_federation

        loaded = load_federation(file, set_ or [])
    make_folder(out)
    bar = progress_bar(loaded.name, hidden=quiet or as_json)
    with bar as progress, bad_input_is_an_error(), unwritable_is_an_error(out):
        found = run_federation(loaded, out=out, progress=progress)
    if as_json:
        data = {
            "name": loaded.name,
            "chains": report.chain_rows(found),
            "anchors": report.anchor_rows(found),
            "transfers": report.transfer_rows(found),
            "violations": [violation.evidence for violation in found.violations],
        }
        typer.echo(json.dumps(data, ensure_ascii=False, allow_nan=False))
    else:
        for line in report.lines(found):
            typer.echo(line)
        typer.echo(f"  stored in {out / loaded.name}")
    raise typer.Exit(found.exit_code)
