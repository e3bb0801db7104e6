"""The command that makes a scenario of another program's file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from sim.cli.options import app, bad_input_is_an_error


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="genesis.json, configtx.yaml, config.toml, ...")],
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="write the scenario here, which must not exist")
    ] = None,
) -> None:
    """Make a scenario of a file of Besu, GoQuorum, Fabric, CometBFT, Caliper or Diablo, with comments.

    Each value says where it stood; what the file does not say is assumed, and marked (A).
    """
    from sim.scenario.errors import ScenarioError
    from sim.scenario.foreign import scenario_text
    from sim.scenario.load import load_scenario

    with bad_input_is_an_error():
        text = scenario_text(file)
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder) / "imported.yaml"
            draft.write_text(text, encoding="utf-8")
            try:
                load_scenario(draft)
            except ScenarioError as error:
                told = str(error).replace(f"{draft}:", "  line ")
                raise ScenarioError(f"{file}: makes no scenario that can run:\n{told}") from None
        if to is not None:
            try:
                with open(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "w", encoding="utf-8") as stream:
                    stream.write(text)
            except OSError as error:
                raise ScenarioError(f"{to}: cannot be written ({error.strerror}); give another name") from None
    if to is None:
        typer.echo(text, nl=False)
    else:
        typer.echo(f"wrote {to}; look at its comments, then: pilotzone run {to}")
