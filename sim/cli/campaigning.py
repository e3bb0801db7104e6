"""The command that runs drawn configurations without end: campaign."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.cli.options import AsJson, Out, Quiet, app, compiling_is_announced, progress_bar, unwritable_is_an_error

if TYPE_CHECKING:
    from sim.plan.campaign.campaign import Campaign


@app.command(
    epilog="Exit codes: 0 nothing left to explain (with --beyond: every protocol that states a bound was broken), "
    "1 internal errors or paths that differ, 2 bad option, 3 safety broken, 4 liveness broken, 5 a limit was reached."
)
def campaign(
    budget: Annotated[str, typer.Option("--budget", metavar="TIME", help="time on the wall clock")] = "10 min",
    protocols: Annotated[
        list[str] | None, typer.Option("--protocol", metavar="NAME", help="only this one; may be given again")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="of all configurations")] = 1,
    most: Annotated[int | None, typer.Option("--runs", min=1, help="configurations per protocol, at the most")] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=256, help="processes")] = os.cpu_count() or 1,
    beyond: Annotated[
        bool, typer.Option("--beyond", help="corrupt one voter more than the protocol tolerates: it must break")
    ] = False,
    both_paths: Annotated[
        bool, typer.Option("--both-paths", help="run each also without the fast path, and compare digests")
    ] = False,
    out: Out = Path("results"),
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Draw configurations with their faults, judge every run, and shrink what breaks; goes on where it stopped."""
    from sim.protocols import PROTOCOLS
    from sim.units import UnitError, parse_ns

    try:
        budget_s = parse_ns(budget) / 1e9
    except UnitError as error:
        typer.echo(f"--budget {budget}: {error}", err=True)
        raise typer.Exit(2) from None
    if budget_s <= 0:
        typer.echo(f"--budget {budget}: leaves no time for a run; write 10 min", err=True)
        raise typer.Exit(2)
    unknown = [name for name in protocols or () if name not in PROTOCOLS]
    if unknown:
        typer.echo(f"--protocol {unknown[0]}: no such protocol; choose from {', '.join(PROTOCOLS)}", err=True)
        raise typer.Exit(2)
    names = protocols or [name for name, entry in PROTOCOLS.items() if not beyond or entry.tolerates_lies]
    with compiling_is_announced():
        from sim.plan.campaign import campaign as campaigns
    with unwritable_is_an_error(out), progress_bar("campaign", hidden=quiet or as_json) as progress:
        found = campaigns.campaign(
            names, seed=seed, budget_s=budget_s, workers=workers, out=out, most=most, beyond=beyond,
            both_paths=both_paths, tell=progress,
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(_as_data(found), ensure_ascii=False, allow_nan=False))
    else:
        typer.echo(table(found))
        typer.echo(_LEGEND)
        for (name, number), file in found.files.items():
            typer.echo(f"{name} {number}: again: {shlex.join(['pilotzone', 'run', str(file)])}")
    raise typer.Exit(_exit_code(found))


_LEGEND = (
    "fired: faults that took effect; unsafe, stuck: safety or liveness broken;\n"
    "limit: cut short, which shows nothing; paths: fast path and handlers differ;\n"
    "error: internal; known: explained by the protocol's page; %: fewer than so\n"
    "many of such runs break it (95 %, rule of three)"
)


def table(found: Campaign) -> str:
    """The summary, as Markdown; 80 columns."""
    lines = [
        "| protocol | runs | fired | unsafe | stuck | limit | paths | error | known | % |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in found.rows():
        bound = "-" if row.bound is None else f"{100 * row.bound:.2g}"
        counts = (
            row.runs,
            row.faults_fired,
            row.safety,
            row.liveness,
            row.limits,
            row.paths,
            row.internal,
            row.explained,
        )
        lines.append(f"| {row.protocol} | {' | '.join(map(str, counts))} | {bound} |")
    return "\n".join(lines)


def _as_data(found: Campaign) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "seed": found.seed,
        "beyond": found.beyond,
        "protocols": [asdict(row) for row in found.rows()],
        "findings": [asdict(one) for one in found.findings],
        "files": {f"{name} {number}": str(file) for (name, number), file in found.files.items()},
    }


def _exit_code(found: Campaign) -> int:
    rows = found.rows()
    if found.beyond:
        return 0 if all(row.safety or row.explained for row in rows) else 3
    for code, count in (
        (1, sum(row.internal + row.paths for row in rows)),
        (3, sum(row.safety for row in rows)),
        (4, sum(row.liveness for row in rows)),
        (5, sum(row.limits for row in rows)),
    ):
        if count:
            return code
    return 0
