"""Planners' questions as commands: plan placement, minimal, downtime, capacity, frontier, stop-one-by-one."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.cli.options import (
    AsJson,
    Out,
    Overrides,
    Quiet,
    ScenarioPath,
    Seed,
    Workers,
    app,
    bad_input_is_an_error,
    compiling_is_announced,
    progress_bar,
)

if TYPE_CHECKING:
    from sim.report.plans import Answer

plan = typer.Typer(
    name="plan",
    help="Planners' questions: where voters stand, how few are enough, how much load, how long down.",
    no_args_is_help=True,
)
app.add_typer(plan)

Candidates = Annotated[
    str | None,
    typer.Option("--candidates", metavar="SITE,...", help="sites to choose among; default: all mainland ones"),
]
Organisation = Annotated[
    list[str] | None,
    typer.Option("--organisation", metavar="NAME=SITE,...", help="who would run the voters at which sites; repeatable"),
]
Designs = Annotated[list[Path], typer.Argument(metavar="SCENARIO...", help="scenario files (YAML), one per design")]
ANSWERED = "Exit codes: 0 answered, 2 bad input or out of reach, 5 limit reached."


@plan.command(epilog=f"{ANSWERED} Example: pilotzone plan placement scenarios/designs/island-7.yaml --voters 7")
def placement(
    scenario: ScenarioPath,
    voters: Annotated[int | None, typer.Option("--voters", min=1, max=1000, help="default: as many as it has")] = None,
    candidates: Candidates = None,
    organisation: Organisation = None,
    finalists: Annotated[int, typer.Option("--finalists", min=1, max=100, help="placements to simulate")] = 5,
    set_: Overrides = None,
    seed: Seed = None,
    out: Out = Path("results"),
    workers: Workers = 2,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Where voters should stand: no domain or organisation can halt the network, and p99 is least."""
    from sim.plan.placement import placement as place

    with bad_input_is_an_error(), progress_bar("placement", hidden=quiet or as_json) as progress:
        found = place(
            scenario, voters, candidates=_listed(candidates), organisations=_owners(organisation),
            finalists=finalists, overrides=set_ or (), seed=seed, out=out, workers=workers, progress=progress,
            announce=compiling_is_announced,
        )  # fmt: skip
    from sim.report.plans import of_placement

    more: list[str] = [] if voters is None else ["--voters", str(voters)]
    more += [] if candidates is None else ["--candidates", candidates]
    more += [word for text in organisation or () for word in ("--organisation", text)]
    command = _command(
        "placement", [scenario], set_, seed, [*more, *(["--finalists", str(finalists)] * (finalists != 5))]
    )
    _emit(of_placement(found, command), out / f"plan-placement-{found.scenario.name}-{found.voters}", command, as_json)


@plan.command(
    epilog=f"{ANSWERED} Example: pilotzone plan minimal scenarios/designs/island-7.yaml --objective 'p99 < 20 ms'"
)
def minimal(
    scenario: ScenarioPath,
    objective: Annotated[str, typer.Option("--objective", metavar="TEXT", help="what must hold: 'p99 < 20 ms'")],
    survive: Annotated[
        list[str] | None,
        typer.Option("--survive", metavar="LOSS", help="'domain N', 'site HAK + domain E'; default: each domain"),
    ] = None,
    candidates: Candidates = None,
    organisation: Organisation = None,
    liars: Annotated[int, typer.Option("--liars", help="lying voters to tolerate, where the protocol can")] = 1,
    most: Annotated[int, typer.Option("--most", min=1, max=100, help="voters to try")] = 22,
    set_: Overrides = None,
    seed: Seed = None,
    out: Out = Path("results"),
    workers: Workers = 2,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """The fewest voters that meet an objective and survive a list of losses, each of them played."""
    from sim.plan.minimal import minimal as fewest

    with bad_input_is_an_error(), progress_bar("minimal", hidden=quiet or as_json) as progress:
        found = fewest(
            scenario, objective, survive=survive or (), candidates=_listed(candidates),
            organisations=_owners(organisation), liars=liars, most=most, overrides=set_ or (), seed=seed, out=out,
            workers=workers, progress=progress, announce=compiling_is_announced,
        )  # fmt: skip
    from sim.report.plans import of_minimal

    more = ["--objective", objective, *(word for text in survive or () for word in ("--survive", text))]
    more += [] if candidates is None else ["--candidates", candidates]
    more += [word for text in organisation or () for word in ("--organisation", text)]
    more += ["--liars", str(liars)] * (liars != 1) + ["--most", str(most)] * (most != 22)
    command = _command("minimal", [scenario], set_, seed, more)
    code = 0 if found.met is not None else 2
    _emit(of_minimal(found, command), out / f"plan-minimal-{scenario.stem}", command, as_json, code)


@plan.command(epilog="Exit codes: 0 answered, 2 bad input. Nothing is simulated: quorums, storms and cables alone.")
def downtime(
    designs: Designs, set_: Overrides = None, seed: Seed = None, out: Out = Path("results"), as_json: AsJson = False
) -> None:
    """Expected minutes a year without a quorum, per design, under storms and cable failures (A)."""
    with bad_input_is_an_error(), compiling_is_announced():
        from sim.plan.contingency import needs_of
        from sim.plan.downtime import downtime as expected
        from sim.scenario.errors import ScenarioError
        from sim.scenario.load import load_scenario

        found = {}
        for path in designs:
            loaded = load_scenario(path, set_ or [], seed)
            one = expected(loaded.network, needs_of(loaded), loaded.seed)
            if one is None:
                raise ScenarioError(
                    f"{path}: network: no voter stands at a site, so no storm finds it; write sites: [...]"
                )
            found[loaded.name if loaded.name not in found else str(path)] = one
    from sim.report.plans import of_downtime

    command = _command("downtime", designs, set_, seed, [])
    _emit(of_downtime(found, command), out / "plan-downtime", command, as_json)


@plan.command(epilog="Exit codes: 0 answered, 2 bad input, 3 a safety violation, 5 stopped before the answer.")
def capacity(
    designs: Designs,
    objective: Annotated[str, typer.Option("--objective", metavar="TEXT", help="what must hold: 'p99 < 2 s'")],
    tolerance: Annotated[float, typer.Option("--tolerance", help="how far apart the ends may stay, as a share")] = 0.05,
    replications: Annotated[int, typer.Option("--replications", min=2, max=1000, help="runs of each load")] = 5,
    set_: Overrides = None,
    seed: Seed = None,
    out: Out = Path("results"),
    workers: Workers = 2,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """The largest load of each design that still meets an objective, all designs at once."""
    from sim.cli.studies import sweep_display
    from sim.plan.saturate import MOST, saturate

    found = []
    with bad_input_is_an_error(), sweep_display(quiet=quiet or as_json) as tell:
        for path in designs:
            found.append(
                saturate(
                    path,
                    objective,
                    tolerance=tolerance,
                    replications=replications,
                    most=max(MOST, replications),
                    curve=False,
                    overrides=set_ or (),
                    seed=seed,
                    out=out,
                    workers=workers,
                    tell=tell,
                )
            )
    from sim.report.plans import of_capacity

    more = ["--objective", objective, *(["--tolerance", f"{tolerance:g}"] * (tolerance != 0.05))]
    command = _command("capacity", designs, set_, seed, more)
    unsafe = any("safety violation" in one.statuses for one in found)
    code = 3 if unsafe else 5 if any(one.stopped for one in found) else 0
    _emit(of_capacity(found, command), out / "plan-capacity", command, as_json, code)


@plan.command(epilog=f"{ANSWERED} Example: pilotzone plan frontier scenarios/designs/island-7.yaml --voters 4,7,10")
def frontier(
    scenario: ScenarioPath,
    protocols: Annotated[str, typer.Option("--protocols", metavar="NAME,...")] = "pbft,raft,hotstuff",
    voters: Annotated[str, typer.Option("--voters", metavar="N,...", help="numbers of voters")] = "4,7,10",
    costs: Annotated[
        Path | None, typer.Option("--costs", metavar="FILE.csv", help="what things cost a year; default: assumed (A)")
    ] = None,
    candidates: Candidates = None,
    set_: Overrides = None,
    seed: Seed = None,
    out: Out = Path("results"),
    workers: Workers = 2,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Designs that no other beats in cost a year, p99 and downtime at once, over protocols and numbers of voters."""
    numbers = _listed(voters) or []
    wrong = [text for text in numbers if not text.isdecimal() or not 1 <= int(text) <= 1000]
    if wrong or not numbers:
        typer.echo(f"--voters {voters}: {wrong[0] if wrong else 'none'} is no number of voters; write 4,7,10", err=True)
        raise typer.Exit(2)
    from sim.plan.frontier import COSTS
    from sim.plan.frontier import frontier as designs_of

    with bad_input_is_an_error(), progress_bar("frontier", hidden=quiet or as_json) as progress:
        found = designs_of(
            scenario, protocols=_listed(protocols) or [], voters=[int(text) for text in numbers],
            costs_file=costs or COSTS, candidates=_listed(candidates), overrides=set_ or (), seed=seed, out=out,
            workers=workers, progress=progress, announce=compiling_is_announced,
        )  # fmt: skip
    from sim.report.plans import of_frontier

    more = ["--protocols", protocols, "--voters", voters, *(["--costs", str(costs)] if costs is not None else [])]
    more += [] if candidates is None else ["--candidates", candidates]
    command = _command("frontier", [scenario], set_, seed, more)
    _emit(of_frontier(found, command), out / f"plan-frontier-{found.scenario.name}", command, as_json)


@plan.command("stop-one-by-one", epilog="Exit codes: 0 all passed, 2 bad input, 4 a test failed.")
def stop_one_by_one(
    scenario: ScenarioPath,
    set_: Overrides = None,
    seed: Seed = None,
    out: Out = Path("results"),
    workers: Workers = 2,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """A sheet of acceptance tests: stop voters one by one, restart, add and remove, synchronise."""
    from sim.plan.acceptance import acceptance

    with bad_input_is_an_error(), progress_bar("acceptance", hidden=quiet or as_json) as progress:
        found = acceptance(
            scenario, overrides=set_ or (), seed=seed, out=out, workers=workers, progress=progress,
            announce=compiling_is_announced,
        )  # fmt: skip
    from sim.report.plans import of_acceptance

    command = _command("stop-one-by-one", [scenario], set_, seed, [])
    code = 4 if any(line.state == "FAIL" for line in found.lines) else 0
    _emit(of_acceptance(found, command), out / f"plan-acceptance-{found.scenario.name}", command, as_json, code)


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _owners(texts: list[str] | None) -> dict[str, list[str]]:
    """Organisations from NAME=SITE,..., or exit with 2."""
    found: dict[str, list[str]] = {}
    for text in texts or ():
        name, sign, places = text.partition("=")
        if not sign or not name.strip() or not _listed(places):
            typer.echo(f"--organisation {text}: is not NAME=SITE,...; write for example bank=HAK,SYX", err=True)
            raise typer.Exit(2)
        found[name.strip()] = _listed(places) or []
    return found


def _command(name: str, paths: list[Path], set_: list[str] | None, seed: int | None, more: list[str]) -> str:
    words = ["pilotzone", "plan", name, *map(str, paths), *more]
    words += [word for text in set_ or () for word in ("--set", text)]
    return shlex.join(words + ([] if seed is None else ["--seed", str(seed)]))


def _emit(answer: Answer, folder: Path, command: str, as_json: bool, code: int = 0) -> None:
    """The answer first, then the table, then files; or one JSON object. Exits with `code`."""
    from sim.report.verdicts import wrapped

    files = answer.write(folder, command)
    if as_json:
        data = {
            "answer": answer.lines,
            "rows": [{key: _finite(value) for key, value in row.items()} for row in answer.rows],
            "notes": answer.notes,
            "command": command,
            "files": [str(file) for file in files],
        }
        typer.echo(json.dumps(data, ensure_ascii=False, allow_nan=False))
        raise typer.Exit(code)
    typer.echo(wrapped(answer.lines) + "\n\n" + answer.table() + "\n")
    typer.echo(wrapped([f"(A): assumed; notes and all numbers are in {files[0].name}."]) + "\nwritten:")
    for file in files:
        typer.echo(f"  {file}")
    raise typer.Exit(code)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
