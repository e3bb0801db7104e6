"""Commands on one scenario: run, check, show, trace."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from sim.cli.options import (
    EXIT_CODES,
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
    make_folder,
    own_code_is_an_error,
    progress_bar,
    unwritable_is_an_error,
)

if TYPE_CHECKING:
    from sim.scenario.run import Result
    from sim.scenario.schema import Scenario


_SHOWN = 3  # violations of one check
_WAITS_SHOWN = 20  # replicas of which it is said what they wait for

CheckDeterminism = Annotated[
    bool,
    typer.Option(
        "--check-determinism",
        help="run twice, once in a fresh process without the fast path, and compare every event; exits with 0 or 1 and "
        "stores nothing",
    ),
]

NoFastPath = Annotated[
    bool,
    typer.Option("--no-fast-path", help="every event goes to the protocol's own handlers: slower, the same bytes"),
]


Until = Annotated[
    str | None,
    typer.Option("--until", metavar="TIME", help='stop after the events of this simulated time, "1.25 s", and judge'),
]


@app.command(epilog=EXIT_CODES)
def run(
    scenario: ScenarioPath,
    set_: Overrides = None,
    seed: Seed = None,
    out: Out = Path("results"),
    as_json: AsJson = False,
    quiet: Quiet = False,
    protocol_file: ProtocolFile = None,
    check_determinism: CheckDeterminism = False,
    until: Until = None,
    no_fast_path: NoFastPath = False,
) -> None:
    """Run a scenario, judge it, and store the result."""
    if check_determinism:
        _run_twice(scenario, set_ or [], seed, protocol_file, as_json=as_json, quiet=quiet)
    until_ns = _time("--until", until)
    with compiling_is_announced():
        replica = load_protocol(protocol_file)
    loaded = load(scenario, set_, seed, replica)
    with compiling_is_announced():
        from sim.scenario import run as runner
    make_folder(out)
    bar, own_code = progress_bar(loaded.name, hidden=quiet or as_json), own_code_is_an_error(replica, loaded.seed)
    with bar as progress, bad_input_is_an_error(), unwritable_is_an_error(out), own_code:
        result = runner.run(
            loaded, out=out, progress=progress, protocol=replica, until_ns=until_ns, fast_path=not no_fast_path
        )
    if as_json:
        typer.echo(json.dumps(result.summary(), ensure_ascii=False, allow_nan=False))
    else:
        _print_result(result, _command(scenario, set_, loaded.seed, protocol_file))
    raise typer.Exit(result.exit_code)


def _time(option: str, text: str | None) -> int | None:
    """A time given on the command line, or exit with 2."""
    from sim.units import UnitError, parse_ns

    try:
        return None if text is None else parse_ns(text)
    except UnitError as error:
        typer.echo(f"{option} {text}: {error}", err=True)
        raise typer.Exit(2) from None


def _command(scenario: Path, set_: list[str] | None, seed: int, protocol_file: str | None) -> str:
    """The command that makes this run again."""
    words = ["pilotzone", "run", str(scenario)]
    for override in set_ or []:
        words += ["--set", override]
    words += ["--seed", str(seed)]
    if protocol_file is not None:
        words += ["--protocol-file", protocol_file]
    return shlex.join(words)


def _run_twice(
    path: Path, set_: list[str], seed: int | None, protocol_file: str | None, *, as_json: bool, quiet: bool
) -> NoReturn:
    """Compare two runs and exit with 0 (the same) or 1."""
    from dataclasses import asdict

    with compiling_is_announced():
        from sim.scenario import twice

        replica = load_protocol(protocol_file)
    loaded = load(path, [*set_, twice.LOG_ALL], seed, replica)
    arguments = [str(path)]
    for override in set_:
        arguments += ["--set", override]
    if seed is not None:
        arguments += ["--seed", str(seed)]
    if protocol_file is not None:
        arguments += ["--protocol-file", protocol_file]
    bar = progress_bar(loaded.name, hidden=quiet or as_json)
    with bar as progress, bad_input_is_an_error(), own_code_is_an_error(replica, loaded.seed):
        found = twice.run_twice(loaded, arguments, protocol=replica, progress=progress)
    if as_json:
        typer.echo(json.dumps(asdict(found) | {"same": found.same}, allow_nan=False))
    else:
        typer.echo(f"{loaded.name}: " + "\n".join(found.lines()))
    raise typer.Exit(0 if found.same else 1)


_SUMMARY = (
    "offered_tps", "committed_tps", "latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "decisions",
    "decision_latency_mean_ms", "block_interval_mean_ms", "messages_per_decision", "view_changes",
    "stale_blocks", "reorganisations", "reorg_depth_max", "reads", "read_latency_mean_ms",
    "observer_lag_p50_ms", "observer_lag_p99_ms", "observer_lag_max_blocks", "exported_bytes", "catch_up_s",
    "recovery_s", "longest_pause_s", "goodput_tps", "success_share", "deadline_missed", "wasted_share",
    "endorsement_mean_ms", "ordering_mean_ms", "committing_mean_ms", "endorsements_differing",
    "enforcement_mean_ms", "enforcement_max_ms", "rejected", "expired", "pending", "simulated_s", "wall_s",
)  # fmt: skip
_UNLESS_ZERO = ("stale_blocks", "reorganisations", "reorg_depth_max", "reads", "rejected", "expired", "pending")


def _print_result(result: Result, command: str) -> None:
    from sim.report import classes

    m = result.metrics
    typer.echo(f"{result.scenario.name}: {result.status}")
    for name in _SUMMARY:
        if name == "success_share" and m["conflicts"] is None:
            continue  # then what is not rejected and not expired succeeds
        if m.get(name) or (m.get(name) is not None and name not in _UNLESS_ZERO):
            typer.echo(f"  {name:<26} {_short(m[name])}")
    for line in classes.lines(result.tables["classes"]):
        typer.echo(line)
    marks = {"pass": "pass", "fail": "FAIL", "not applicable": "n/a"}
    typer.echo("  checks: " + ", ".join(f"{name} {marks[outcome]}" for name, outcome in result.checks.items()))
    for text in _effects(result):
        typer.echo(f"  {text}")
    shown = Counter[str]()
    for violation in result.violations:
        shown[violation.check] += 1
        if shown[violation.check] <= _SHOWN:
            typer.echo(f"  VIOLATION {violation.check} at {violation.time_ns / 1e9:.6f} s: {violation.evidence}")
            for line in violation.waits[:_WAITS_SHOWN]:
                typer.echo(f"    {line}")
            if len(violation.waits) > _WAITS_SHOWN:
                typer.echo(f"    and {len(violation.waits) - _WAITS_SHOWN} more, in the manifest")
    for check, count in shown.items():
        if count > _SHOWN:
            typer.echo(f"  and {count - _SHOWN} more of {check}")
    for warning in result.warnings:
        typer.echo(f"  warning: {warning}")
    if result.violations:
        first = result.violations[0]  # the gravest check comes first, its earliest event too
        typer.echo(f"  replay to {first.check}: {command} --until '{first.time_ns} ns'")
        typer.echo(f"  again: {command}")
    typer.echo(f"  digest {result.digest}  seed {result.scenario.seed}")
    if result.path is not None:
        typer.echo(f"  stored in {result.path}")


def _effects(result: Result) -> list[str]:
    """What each fault that has more to say, and each message rule, did."""
    rules, faults = result.tables["rules"], result.tables["faults"]
    said = zip(faults["fault"], faults["kind"], faults["note"], strict=True)
    lines = [f"fault {number} ({kind}): {note}" for number, kind, note in said if note]
    for number, kind, matched, hits in zip(*(rules[name] for name in rules), strict=True):
        name = "network.gst" if number < 0 else f"rule {number} ({kind})"
        lines.append(f"{name}: acted upon {hits} of {matched} messages matched")
    return lines


def _short(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"


def _tell(scenario: Scenario) -> None:
    for note in (*scenario.protocol.notes, *scenario.network.notes):
        typer.echo(f"note: {note}", err=True)


@app.command()
def check(scenario: ScenarioPath, set_: Overrides = None, seed: Seed = None) -> None:
    """Validate a scenario without running it."""
    loaded = load(scenario, set_, seed)
    from sim.scenario.schema import scenario_hash

    _tell(loaded)
    typer.echo(
        f"{scenario}: fine. {loaded.name}: {loaded.protocol.name}, {loaded.network.n} voters, "
        f"hash {scenario_hash(loaded)}"
    )


@app.command()
def show(scenario: ScenarioPath, set_: Overrides = None, seed: Seed = None, as_json: AsJson = False) -> None:
    """Print a scenario in full: after extends, --set and --seed, defaults written out."""
    loaded = load(scenario, set_, seed)
    from sim.scenario.schema import resolved, scenario_hash

    _tell(loaded)
    if as_json:
        typer.echo(json.dumps(resolved(loaded), ensure_ascii=False, allow_nan=False))
        return
    from sim.scenario.show import as_yaml

    typer.echo(f"# {scenario}, resolved; hash {scenario_hash(loaded)}")
    typer.echo(as_yaml(loaded), nl=False)


@app.command(epilog="Exit codes: 0 ok, 2 the trace cannot be shown.")
def trace(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a run, or of a study with one run")],
    perfetto: Annotated[
        Path | None,
        typer.Option("--perfetto", metavar="FILE", help="write a trace for https://ui.perfetto.dev"),
    ] = None,
    sequence: Annotated[
        int | None, typer.Option("--sequence", metavar="HEIGHT", help="draw one decision as a Mermaid diagram")
    ] = None,
    space_time: Annotated[
        int | None,
        typer.Option("--space-time", metavar="HEIGHT", help="draw one decision as a space-time diagram into --out"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="write the diagram here (.svg, .png, .pdf for --space-time)"),
    ] = None,
    from_: Annotated[str | None, typer.Option("--from", metavar="TIME", help='start of the window, "2 s"')] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="TIME", help='end of the window, "2.5 s"')] = None,
    most: Annotated[
        int, typer.Option("--max-messages", min=1, help="refuse to show more messages than this")
    ] = 200_000,
) -> None:
    """Look at a run that kept its messages (--set trace=messages): on a time line, or one decision."""
    from sim.trace.perfetto import write_perfetto
    from sim.trace.read import TraceError, open_run
    from sim.trace.sequence import sequence_diagram
    from sim.units import UnitError, parse_ns

    window = []
    for option, text, default in (("--from", from_, 0), ("--to", to, 1 << 62)):
        try:
            window.append(default if text is None else parse_ns(text))
        except UnitError as error:
            typer.echo(f"{option} {text}: {error}", err=True)
            raise typer.Exit(2) from None
    if perfetto is None and sequence is None and space_time is None:
        remedy = "add --perfetto FILE, --sequence HEIGHT or --space-time HEIGHT --out FILE.svg"
        typer.echo(f"trace {run}: say what to make of it; {remedy}", err=True)
        raise typer.Exit(2)
    if space_time is not None and (out is None or sequence is not None):
        typer.echo(f"--space-time {space_time}: a picture of its own; name its file with --out FILE.svg", err=True)
        raise typer.Exit(2)
    if window[0] >= window[1]:
        typer.echo(f"--from {from_} --to {to}: the window is empty; --to must be later", err=True)
        raise typer.Exit(2)
    try:
        stored = open_run(run)
        if perfetto is not None:
            written = write_perfetto(stored, perfetto, from_ns=window[0], to_ns=window[1], most=most)
            typer.echo(
                f"wrote {perfetto}: {written.messages} messages, {written.events} events; "
                "open it with https://ui.perfetto.dev",
                err=sequence is not None,
            )
        if space_time is not None and out is not None:
            from sim.report.space_time import write as write_space_time

            write_space_time(stored, space_time, out, most=most)
            typer.echo(f"wrote {out}")
        if sequence is not None:
            diagram = sequence_diagram(stored, sequence, most=most)
            if out is None:
                typer.echo(diagram, nl=False)
            else:
                out.write_text(diagram, encoding="utf-8")
                typer.echo(f"wrote {out}: paste it into a Markdown file as ```mermaid, or https://mermaid.live")
    except (TraceError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
