"""Commands about the tool itself: protocols, schema, bench."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from sim.cli.options import AsJson, app, compiling_is_announced


@app.command()
def protocols() -> None:
    """List the protocols and their parameters."""
    from sim.parameters import key_of
    from sim.protocols import PROTOCOLS

    for name, entry in PROTOCOLS.items():
        typer.echo(f"{name}: {entry.summary}; tolerates {entry.faults}")
        for field, info in entry.parameters.model_fields.items():
            typer.echo(f"    {key_of(field)}: {info.description} (default: {info.default})")


@app.command("platforms")
def list_platforms(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="one of them, with all its values")] = None,
) -> None:
    """List the deployed platforms that a scenario may name, or what one of them sets and where that is from."""
    from sim.network.sites import suggestion
    from sim.scenario.platforms import platforms

    known = platforms()
    if name is None:
        for one in known.values():
            typer.echo(f"{one.name}: {one.what}, version {one.version}; {one.protocol}")
        return
    if name not in known:
        typer.echo(f"{name}: no such platform; {suggestion(name, tuple(known), limit=30)}", err=True)
        raise typer.Exit(2)
    chosen = known[name]
    typer.echo(f"{chosen.name}: {chosen.what}, version {chosen.version}")
    for value in chosen.values:
        typer.echo(f"    {'.'.join(value.path)}: {value.text}  # {value.source}")
    typer.echo(f"    not in the model: {'; '.join(chosen.missing)}")


@app.command()
def uses(as_json: AsJson = False) -> None:
    """List the pilot zone's uses: rates, deadlines and tags of their classes, and what they come to."""
    from sim.report import uses as report

    if as_json:
        typer.echo(json.dumps(report.data(), ensure_ascii=False, allow_nan=False))
        return
    for line in report.lines():
        typer.echo(line)


@app.command()
def schema() -> None:
    """Print the JSON Schema of scenario and study files, for editors."""
    from sim.scenario.file_schema import file_schema

    typer.echo(json.dumps(file_schema(), indent=2, sort_keys=True, ensure_ascii=False))


@app.command()
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="one run per row, up to 256 voters")] = False,
    all_protocols: Annotated[
        bool, typer.Option("--protocols", help="every protocol at 100 voters, from its tenth decision on")
    ] = False,
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="also write table and plot here")] = None,
) -> None:
    """Measure how much consensus per second this machine simulates."""
    with compiling_is_announced():
        from sim import bench as bench_

    if all_protocols:
        rows = bench_.measure_protocols(lambda text: typer.echo(text, err=as_json), seconds=0.3 if quick else 1.0)
        if as_json:
            data = {"machine": bench_.machine(), "protocols": [dataclasses.asdict(row) for row in rows]}
            typer.echo(json.dumps(data, allow_nan=False))
        return
    found = bench_.bench(quick=quick, tell=lambda text: typer.echo(text, err=as_json))
    if as_json:
        typer.echo(json.dumps(found, allow_nan=False))
    if out is not None:
        from sim.report.speed import publish

        for path in publish(found, out):
            typer.echo(f"wrote {path}", err=as_json)
