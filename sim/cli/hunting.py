"""The command that searches for a schedule that breaks a protocol: hunt."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.cli.options import (
    AsJson,
    Out,
    Overrides,
    ProtocolFile,
    Quiet,
    ScenarioPath,
    Seed,
    app,
    bad_input_is_an_error,
    compiling_is_announced,
    load,
    load_protocol,
    progress_bar,
)

if TYPE_CHECKING:
    from sim.plan.hunt import Hunt


@app.command(epilog="Exit codes: 0 nothing found, 3 safety broken, 4 progress broken, 2 bad scenario or option.")
def hunt(
    scenario: ScenarioPath,
    budget: Annotated[str, typer.Option("--budget", metavar="TIME", help="time on the wall clock")] = "1 min",
    set_: Overrides = None,
    seed: Seed = None,
    corrupted: Annotated[
        int | None, typer.Option("--corrupted", min=0, help="nodes that may misbehave; default: f, or none for Raft")
    ] = None,
    pause: Annotated[
        str | None, typer.Option("--pause", metavar="TIME", help="a longer pause after the trouble counts as broken")
    ] = None,
    most: Annotated[int | None, typer.Option("--schedules", min=1, help="try so many at the most")] = None,
    protocol_file: ProtocolFile = None,
    out: Out = Path("results"),
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Search for crashes, partitions, lost messages and lies that break a protocol; shrink what is found."""
    from sim.units import UnitError, parse_ns

    seconds: dict[str, float] = {}
    for option, text in (("--budget", budget), ("--pause", pause)):
        try:
            seconds[option] = 0.0 if text is None else parse_ns(text) / 1e9
        except UnitError as error:
            typer.echo(f"{option} {text}: {error}", err=True)
            raise typer.Exit(2) from None
    if seconds["--budget"] <= 0:
        typer.echo(f"--budget {budget}: leaves no time for a schedule; write 1 min", err=True)
        raise typer.Exit(2)
    replica = load_protocol(protocol_file)
    loaded = load(scenario, set_, seed, replica)
    if corrupted is not None and corrupted > loaded.network.n:
        typer.echo(f"--corrupted {corrupted}: there are {loaded.network.n} voters; take fewer", err=True)
        raise typer.Exit(2)
    with compiling_is_announced():
        from sim.plan import hunt as hunting
    started = time.monotonic()
    with bad_input_is_an_error(), progress_bar(f"hunt {loaded.name}", hidden=quiet or as_json) as progress:

        def tell(_tried: int) -> None:
            if progress is not None:
                progress(min((time.monotonic() - started) / seconds["--budget"], 1.0))

        found = hunting.hunt(
            scenario,
            budget_s=seconds["--budget"],
            overrides=set_ or [],
            seed=seed,
            replica=replica,
            corrupted=corrupted,
            pause_s=seconds["--pause"] if pause is not None else None,
            most=most,
            out=out,
            tell=tell,
        )
    _report(found, protocol_file, as_json=as_json)


def _report(found: Hunt, protocol_file: str | None, *, as_json: bool) -> None:
    limits, catch = found.limits, found.catch
    code = 0 if catch is None else (4 if catch.what == "progress" else 3)
    replay = None
    if catch is not None:
        words = ["pilotzone", "run", str(catch.file)]
        replay = shlex.join([*words, "--protocol-file", protocol_file] if protocol_file else words)
    if as_json:
        data = {
            "enumerated": found.enumerated,
            "drawn": found.drawn,
            "refused": found.refused,
            "corrupted_max": limits.corrupted,
            "found": None if catch is None else {"what": catch.what, "evidence": catch.evidence,
                                                 "schedule": catch.patch, "file": str(catch.file), "replay": replay},
            "share_below": None if found.bound is None else found.bound.high,
        }  # fmt: skip
        typer.echo(json.dumps(data, ensure_ascii=False, allow_nan=False))
        raise typer.Exit(code)
    typer.echo(
        f"{found.tried} schedules ({found.enumerated} enumerated, {found.drawn} drawn) with at most "
        f"{limits.corrupted} of {limits.voters} nodes corrupted, {found.wall_s:.0f} s"
    )
    if catch is not None:
        typer.echo(f"BROKEN {catch.what}: {catch.evidence}")
        typer.echo(f"again: {replay}")
    elif found.bound is not None:
        typer.echo(
            f"nothing found; of schedules like these fewer than {found.bound.high:.2%} break it "
            f"({100 * found.bound.level:g} %, {found.bound.method})"
        )
    else:
        typer.echo("no schedule was tried; allow more time")
    raise typer.Exit(code)
