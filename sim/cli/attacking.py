"""Commands that attack protocols: attacks (known flaws), mutants (seeded bugs), hunts (both, searched for)."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sim.cli.options import AsJson, app, bad_input_is_an_error, compiling_is_announced


@app.command(epilog="Exit codes: 0 all as expected, 1 some not, 2 bad input.")
def attacks(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="attacks to run; all if none")] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="DIR", help="attack files; default: scenarios/attacks")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Replay known flaws of protocols, each with its control."""
    with compiling_is_announced():
        from sim.plan import attacks as attacks_

    with bad_input_is_an_error():
        chosen = attacks_.load_attacks(folder or attacks_.FOLDER, ids or [])
        found, told = [], ""
        for attack, outcome, wall_s in attacks_.play_all(chosen):
            found.append(outcome)
            if as_json:
                continue
            if attack.id != told:
                typer.echo(f"{attack.id} {attack.title} ({attack.source})")
                typer.echo(f"    expected: {attack.expected}")
                typer.echo(f"    control:  {attack.control}")
                told = attack.id
            mark = "ok  " if outcome.as_expected else "FAIL"
            typer.echo(f"  {mark} {outcome.pair} ({wall_s:.1f} s)")
            typer.echo(f"         seen:    {outcome.seen.text}")
            if outcome.control is not None:
                typer.echo(f"         control: {outcome.control.text}")
    good = sum(outcome.as_expected for outcome in found)
    if as_json:
        typer.echo(json.dumps({"outcomes": [asdict(o) | {"as_expected": o.as_expected} for o in found]}))
    else:
        typer.echo(f"{good} of {len(found)} as expected")
    raise typer.Exit(0 if good == len(found) else 1)


@app.command(epilog="Exit codes: 0 all caught, 1 some survived, 2 bad input.")
def mutants(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="mutants to try; all if none")] = None,
    budget: Annotated[int, typer.Option("--budget", min=1, metavar="SEEDS", help="trials per mutant at most")] = 200,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="also write mutants.md and mutants.json here")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Seed bugs into protocols, and see which the checks catch."""
    with compiling_is_announced():
        from sim.plan import mutation

    with bad_input_is_an_error():
        chosen = mutation.mutants(names or [])
    scores = []
    for one in mutation.score_all(chosen, budget):
        scores.append(one)
        if not as_json:
            fate = f"caught by {one.caught_by} (n = {one.voters})" if one.caught_by else "SURVIVED"
            typer.echo(f"{one.name:<26} {one.bug:<46} {fate}, {one.seeds} seeds, {one.wall_s:.1f} s")
    caught = sum(one.caught_by is not None for one in scores)
    data = {"budget": budget, "scores": [asdict(one) for one in scores]}
    if as_json:
        typer.echo(json.dumps(data))
    else:
        typer.echo(f"{caught} of {len(scores)} caught")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "mutants.md").write_text(mutation.table(scores, budget), encoding="utf-8")
        (out / "mutants.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    raise typer.Exit(0 if caught == len(scores) else 1)


@app.command(epilog="Exit codes: 0 the hunts were done, 1 a protocol as it is broke, 2 bad input.")
def hunts(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="what to hunt; all if none")] = None,
    schedules: Annotated[int, typer.Option("--schedules", min=2, help="try so many at the most for each")] = 300,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="also write hunts.md and hunts.json here")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Hunt every seeded bug, published flaws, and every protocol as it is: how good a hunt is."""
    with compiling_is_announced():
        from sim.plan import hunts as hunts_

    with bad_input_is_an_error():
        chosen = hunts_.targets(names or [])
    bags = []
    for bag in hunts_.hunt_all(chosen, schedules):
        bags.append(bag)
        if not as_json:
            fate = f"{bag.what} ({bag.source})" if bag.what else "nothing"
            bug = bag.bug or "as it is"
            typer.echo(f"{bag.name:<26} {bug:<62} {fate}, {bag.schedules} schedules, {bag.wall_s:.0f} s")
    data = {"schedules": schedules, "hunts": [asdict(bag) for bag in bags]}
    if as_json:
        typer.echo(json.dumps(data))
    else:
        broken = [bag for bag in bags if bag.bug]
        typer.echo(f"{sum(bag.what is not None for bag in broken)} of {len(broken)} found")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "hunts.md").write_text(hunts_.tables(bags, schedules), encoding="utf-8")
        (out / "hunts.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    raise typer.Exit(1 if any(bag.what is not None for bag in bags if not bag.bug) else 0)
