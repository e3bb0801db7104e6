"""The command line. Heavy libraries are imported inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from sim.protocol import Replica
    from sim.report.outcome import Outcome
    from sim.scenario.results import Runs
    from sim.scenario.run import Progress, Result
    from sim.scenario.schema import Scenario
    from sim.scenario.sweep import State

app = typer.Typer(
    name="pilotzone",
    help="Simulate blockchain networks: throughput, finality and fault tolerance of designs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ScenarioPath = Annotated[Path, typer.Argument(metavar="SCENARIO", help="scenario file (YAML)")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="a.b=v", help="override a value of the scenario; repeatable"),
]
Seed = Annotated[int | None, typer.Option("--seed", help="override the scenario's seed")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="folder for results")]
AsJson = Annotated[bool, typer.Option("--json", help="print exactly one JSON object")]
ProtocolFile = Annotated[
    str | None,
    typer.Option("--protocol-file", metavar="FILE.py:CLASS", help="run this class in place of the scenario's protocol"),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress bar")]
CheckDeterminism = Annotated[
    bool,
    typer.Option(
        "--check-determinism",
        help="run twice, once in a fresh process, and compare every event; exits with 0 or 1 and stores nothing",
    ),
]

EXIT_CODES = (
    "Exit codes: 0 ok, 1 internal error, 2 bad scenario, 3 safety violation, 4 liveness failure, 5 limit reached."
)
COMPILE_NOTICE_AFTER_S = 4.0


def _version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        typer.echo(f"pilotzone {importlib.metadata.version('pilotzone')}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """Simulate blockchain networks: throughput, finality and fault tolerance of designs."""


def main() -> None:
    """Entry point of the console script."""
    app()


@contextlib.contextmanager
def bad_input_is_an_error() -> Iterator[None]:
    """Print one message and exit with 2 when a scenario cannot be used."""
    from sim.scenario.errors import ScenarioError

    try:
        yield
    except ScenarioError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


@contextlib.contextmanager
def compiling_is_announced() -> Iterator[None]:
    """Say so if importing the engine takes long: it is being compiled, once per version."""

    def tell() -> None:
        typer.echo("compiling the kernel (once per version, half a minute or so) ...", err=True)

    timer = threading.Timer(COMPILE_NOTICE_AFTER_S, tell)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def load(path: Path, overrides: list[str] | None, seed: int | None) -> Scenario:
    """Load a scenario or exit with 2."""
    from sim.scenario.load import load_scenario

    with bad_input_is_an_error():
        return load_scenario(path, overrides or [], seed)


def load_protocol(spec: str | None) -> type[Replica] | None:
    """The class named on the command line as FILE.py:CLASS, or exit with 2."""
    if spec is None:
        return None
    from sim.protocol import Replica

    name, _, class_name = spec.rpartition(":")
    path = Path(name)
    if not name:
        typer.echo(f"--protocol-file {spec}: names no class; write {spec}:MyProtocol", err=True)
        raise typer.Exit(2)
    if not path.is_file():
        typer.echo(f"--protocol-file {spec}: there is no file {path}; write my_protocol.py:MyProtocol", err=True)
        raise typer.Exit(2)
    import importlib.util

    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[path.stem] = module
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        line = getattr(error, "lineno", None) or (traceback.extract_tb(error.__traceback__)[-1].lineno)
        typer.echo(f"{path}:{line}: {type(error).__name__}: {error}; mend the file", err=True)
        raise typer.Exit(2) from None
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Replica)):
        names = [n for n, m in vars(module).items() if isinstance(m, type) and issubclass(m, Replica)]
        typer.echo(
            f"--protocol-file {spec}: {path} has no protocol class {class_name}; it has {', '.join(names) or 'none'}",
            err=True,
        )
        raise typer.Exit(2)
    return found


@contextlib.contextmanager
def progress_bar(label: str, *, hidden: bool) -> Iterator[Progress | None]:
    """A progress bar on a terminal; nothing elsewhere."""
    if hidden or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=1.0)
        yield lambda share: bar.update(task, completed=share)


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
) -> None:
    """Run a scenario, judge it, and store the result."""
    if check_determinism:
        _run_twice(scenario, set_ or [], seed, protocol_file, as_json=as_json, quiet=quiet)
    loaded = load(scenario, set_, seed)
    with compiling_is_announced():
        from sim.scenario import run as runner

        replica = load_protocol(protocol_file)
    _make_folder(out)
    with progress_bar(loaded.name, hidden=quiet or as_json) as progress, bad_input_is_an_error():
        result = runner.run(loaded, out=out, progress=progress, protocol=replica)
    if as_json:
        typer.echo(json.dumps(result.summary(), ensure_ascii=False, allow_nan=False))
    else:
        _print_result(result, _command(scenario, set_, loaded.seed, protocol_file))
    raise typer.Exit(result.exit_code)


def _command(scenario: Path, set_: list[str] | None, seed: int, protocol_file: str | None) -> str:
    """The command that makes this run again."""
    words = ["pilotzone", "run", str(scenario)]
    for override in set_ or []:
        words += ["--set", override]
    words += ["--seed", str(seed)]
    if protocol_file is not None:
        words += ["--protocol-file", protocol_file]
    return shlex.join(words)


def _make_folder(out: Path) -> None:
    """Make the folder for results, or exit with 2."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        typer.echo(f"--out {out}: {error.strerror}; name a folder that can be written", err=True)
        raise typer.Exit(2) from None


def _run_twice(
    path: Path, set_: list[str], seed: int | None, protocol_file: str | None, *, as_json: bool, quiet: bool
) -> NoReturn:
    """Compare two runs and exit with 0 (the same) or 1."""
    from dataclasses import asdict

    with compiling_is_announced():
        from sim.scenario import twice

        replica = load_protocol(protocol_file)
    loaded = load(path, [*set_, twice.LOG_ALL], seed)
    arguments = [str(path)]
    for override in set_:
        arguments += ["--set", override]
    if seed is not None:
        arguments += ["--seed", str(seed)]
    if protocol_file is not None:
        arguments += ["--protocol-file", protocol_file]
    with progress_bar(loaded.name, hidden=quiet or as_json) as progress, bad_input_is_an_error():
        found = twice.run_twice(loaded, arguments, protocol=replica, progress=progress)
    if as_json:
        typer.echo(json.dumps(asdict(found) | {"same": found.same}, allow_nan=False))
    else:
        typer.echo(f"{loaded.name}: " + "\n".join(found.lines()))
    raise typer.Exit(0 if found.same else 1)


def _print_result(result: Result, command: str) -> None:
    m = result.metrics
    typer.echo(f"{result.scenario.name}: {result.status}")
    for name in (
        "offered_tps", "committed_tps", "latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "decisions",
        "decision_latency_mean_ms", "block_interval_mean_ms", "messages_per_decision", "view_changes",
        "recovery_s", "longest_pause_s", "rejected", "expired", "pending", "simulated_s", "wall_s",
    ):  # fmt: skip
        if m.get(name) or (m.get(name) is not None and name not in ("rejected", "expired", "pending")):
            typer.echo(f"  {name:<26} {_short(m[name])}")
    marks = {"pass": "pass", "fail": "FAIL", "not applicable": "n/a"}
    typer.echo("  checks: " + ", ".join(f"{name} {marks[outcome]}" for name, outcome in result.checks.items()))
    for violation in result.violations:
        typer.echo(f"  VIOLATION {violation.check} at {violation.time_ns / 1e9:.6f} s: {violation.evidence}")
    for warning in result.warnings:
        typer.echo(f"  warning: {warning}")
    if result.violations:
        typer.echo(f"  again: {command}")
    typer.echo(f"  digest {result.digest}  seed {result.scenario.seed}")
    if result.path is not None:
        typer.echo(f"  stored in {result.path}")


def _short(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"


Scenarios = Annotated[list[Path], typer.Argument(metavar="SCENARIO...", help="two or more scenario files (YAML)")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, max=256, help="worker processes")]


@app.command(epilog=EXIT_CODES)
def compare(
    scenarios: Scenarios,
    set_: Overrides = None,
    seed: Seed = None,
    out: Out = Path("results"),
    as_json: AsJson = False,
    quiet: Quiet = False,
    jobs: Jobs = 2,
) -> None:
    """Put scenarios side by side: one table, one figure. Only what is not stored yet runs."""
    from sim.report import compare as comparing

    if len(scenarios) < 2:
        typer.echo(f"compare: {scenarios[0]} alone; name two or more scenarios, or use run", err=True)
        raise typer.Exit(2)
    named = [comparing.Job(path, tuple(set_ or ()), seed) for path in scenarios]
    with (
        bad_input_is_an_error(),
        progress_bar(f"{len(named)} scenarios", hidden=quiet or as_json) as progress,
    ):
        outcomes = comparing.gather(named, out, workers=jobs, progress=progress, announce=compiling_is_announced)
    from sim.report import figures, tables

    folder = out / "compare" / comparing.folder_of(outcomes)
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "table.csv"
    table.write_text(tables.as_csv(outcomes), encoding="utf-8")
    drawn = figures.comparison(outcomes, "pilotzone compare")
    _print_comparison(outcomes, [table, *figures.save(drawn, folder, "comparison")], as_json=as_json)


@app.command(epilog=EXIT_CODES)
def demo(out: Out = Path("results"), as_json: AsJson = False, quiet: Quiet = False, jobs: Jobs = 2) -> None:
    """The pilot zone's main question: three designs, with and without the storm; table, figures, map."""
    from sim.report import demo as main_job

    with (
        bad_input_is_an_error(),
        progress_bar("pilot-zone demo", hidden=quiet or as_json) as progress,
    ):
        outcomes, files = main_job.demo(out, workers=jobs, progress=progress, announce=compiling_is_announced)
    _print_comparison(outcomes, files, as_json=as_json, more=main_job.notes(outcomes))


def _print_comparison(outcomes: list[Outcome], files: list[Path], *, as_json: bool, more: Sequence[str] = ()) -> None:
    """Table, notes and file names, or one JSON object; exits with the worst run's code."""
    from sim.report import tables
    from sim.report.outcome import worst_exit_code

    code = worst_exit_code(outcomes)
    notes = [*tables.notes(outcomes), *more]
    if as_json:
        worst = next(outcome.status for outcome in outcomes if outcome.exit_code == code)
        data = {
            "status": worst,
            "runs": tables.as_data(outcomes),
            "notes": notes,
            "files": [str(file) for file in files],
        }
        typer.echo(json.dumps(data, ensure_ascii=False, allow_nan=False))
        raise typer.Exit(code)
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console()
        for table in tables.rich_tables(outcomes, console.width):
            console.print(table)
    else:
        typer.echo(tables.plain(outcomes))
    for note in notes:
        typer.echo(f"- {note}")
    typer.echo("written:")
    for file in files:
        typer.echo(f"  {file}")
    raise typer.Exit(code)


@app.command()
def check(scenario: ScenarioPath, set_: Overrides = None, seed: Seed = None) -> None:
    """Validate a scenario without running it."""
    loaded = load(scenario, set_, seed)
    from sim.scenario.schema import scenario_hash

    typer.echo(
        f"{scenario}: fine. {loaded.name}: {loaded.protocol.name}, {loaded.network.n} voters, "
        f"hash {scenario_hash(loaded)}"
    )


StudyPath = Annotated[Path, typer.Argument(metavar="STUDY", help="study file (YAML)")]
StudyPlace = Annotated[Path, typer.Argument(metavar="STUDY", help="study file (YAML), or its folder of results")]
ResultPath = Annotated[Path, typer.Argument(metavar="PATH", help="folder of a study's results")]
Workers = Annotated[int, typer.Option("--workers", min=1, max=256, help="worker processes; they change no result")]
Resume = Annotated[bool, typer.Option("--resume", help="go on: do not list the runs that are reused")]
SWEEP_EXIT_CODES = "Exit codes: as for run, of the worst run; 1 if a run has no result, 5 if a limit ended the sweep."


@app.command()
def show(scenario: ScenarioPath, set_: Overrides = None, seed: Seed = None, as_json: AsJson = False) -> None:
    """Print a scenario in full: after extends, --set and --seed, defaults written out."""
    loaded = load(scenario, set_, seed)
    from sim.scenario.schema import resolved, scenario_hash

    if as_json:
        typer.echo(json.dumps(resolved(loaded), ensure_ascii=False, allow_nan=False))
        return
    from sim.scenario.show import as_yaml

    typer.echo(f"# {scenario}, resolved; hash {scenario_hash(loaded)}")
    typer.echo(as_yaml(loaded), nl=False)


@contextlib.contextmanager
def sweep_display(*, quiet: bool) -> Iterator[Callable[[State], None]]:
    """A live line on a terminal, a line per finished run elsewhere; both on stderr."""
    lines = not sys.stderr.isatty()
    told = False

    def say(state: State) -> None:
        nonlocal told
        if not told:
            told = True
            for name, reason in state.again.items():
                typer.echo(f"damaged, runs again: {name}: {reason}", err=True)
        if lines and state.last:
            ended = state.total - state.left
            typer.echo(f"[{ended}/{state.total}] {state.last}{_eta(state)}", err=True)

    if quiet or lines:
        yield (lambda state: None) if quiet else say
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting")

        def draw(state: State) -> None:
            say(state)
            text = f"done {state.done + state.reused}/{state.total}, running {state.running}, failed {state.failed}"
            bar.update(task, total=state.total, completed=state.total - state.left, description=text + _eta(state))

        yield draw


def _eta(state: State) -> str:
    if state.eta_s is None or not state.left:
        return ""
    minutes, seconds = divmod(round(state.eta_s), 60)
    return f", ETA {minutes // 60}:{minutes % 60:02}:{seconds:02}"


@app.command(epilog=SWEEP_EXIT_CODES)
def sweep(
    study: StudyPath,
    set_: Overrides = None,
    workers: Workers = 2,
    resume: Resume = False,
    limit_wall: Annotated[
        str | None, typer.Option("--limit-wall", metavar="TIME", help='stop after this time, "2 h"; what is done stays')
    ] = None,
    out: Out = Path("results"),
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run a study: every case, every replication. Runs stored intact are not repeated."""
    from sim.report.outcome import EXIT_CODES as CODES
    from sim.scenario import sweep as sweeping
    from sim.units import UnitError, parse_ns

    try:
        limit_s = None if limit_wall is None else parse_ns(limit_wall) / 1e9
    except UnitError as error:
        typer.echo(f"--limit-wall {limit_wall}: {error}", err=True)
        raise typer.Exit(2) from None
    try:
        with bad_input_is_an_error(), sweep_display(quiet=quiet) as tell:
            swept = sweeping.sweep(
                study, out=out, workers=workers, overrides=set_ or [], limit_wall_s=limit_s, tell=tell
            )
    except KeyboardInterrupt:
        again = f"pilotzone sweep {study} --resume"
        typer.echo(f"interrupted; finished runs are kept, go on with: {again}", err=True)
        raise typer.Exit(130) from None
    state = swept.state
    codes = [CODES.get(status, 1) for status in swept.statuses if status != "missing"]
    code = max([*codes, 5 if swept.stopped else 0], key=(0, 5, 4, 3, 2, 1).index)
    if as_json:
        data = {
            "folder": str(swept.folder), "runs": state.total, "done": state.done, "reused": state.reused,
            "failed": state.failed, "missing": swept.statuses.get("missing", 0), "statuses": swept.statuses,
            "failures": swept.failures, "stopped": swept.stopped or None,
        }  # fmt: skip
        typer.echo(json.dumps(data, ensure_ascii=False, allow_nan=False))
        raise typer.Exit(code)
    if not resume and not quiet:
        for line in state.reused_runs:
            typer.echo(f"reused {line}")
    typer.echo(f"{state.done} done, {state.reused} reused, {state.failed} failed of {state.total}")
    _print_counts(swept.runs, swept.statuses, swept.failures)
    if swept.stopped:
        typer.echo(f"stopped: {swept.stopped}")
    raise typer.Exit(code)


def _print_counts(runs: Runs, statuses: dict[str, int], failures: dict[str, str]) -> None:
    from sim.scenario.results import others

    typer.echo(f"{runs.folder}: " + ", ".join(f"{status} {count}" for status, count in statuses.items()))
    if statuses.get("truncated"):
        typer.echo("  truncated runs reached a limit; their metrics are left out of tables")
    for name, reason in failures.items():
        typer.echo(f"  failed: {name}: {reason}")
    if more := others(runs):
        typer.echo(f"  besides, {more} stored runs are of another version of the study or of the model code")


@app.command()
def status(study: StudyPlace, set_: Overrides = None, out: Out = Path("results"), as_json: AsJson = False) -> None:
    """Count a study's runs: done (by status), failed, missing."""
    from sim.scenario import results as reading

    with bad_input_is_an_error():
        runs = reading.open_runs(study, out=out, overrides=set_ or [])
        statuses, failures = reading.counts(runs), reading.failures(runs)
    lost = {name: statuses.get(name, 0) for name in ("failed", "missing", "damaged")}
    done = sum(statuses.values()) - sum(lost.values())
    if as_json:
        data = {"folder": str(runs.folder), "runs": len(runs.runs), "done": done, **lost, "statuses": statuses}
        typer.echo(json.dumps(data | {"failures": failures}, ensure_ascii=False, allow_nan=False))
        return
    typer.echo(f"{len(runs.runs)} runs: {done} done, " + ", ".join(f"{count} {name}" for name, count in lost.items()))
    _print_counts(runs, statuses, failures)


@app.command()
def results(
    path: ResultPath,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="write the whole table here")] = None,
    truncated: Annotated[bool, typer.Option("--truncated", help="also show the metrics of truncated runs")] = False,
    out: Out = Path("results"),
) -> None:
    """Show a study as a table, one row per run: what varied, seed, status, metrics."""
    from sim.scenario import results as reading

    with bad_input_is_an_error():
        frame = reading.results(path, truncated=truncated, out=out)
    if csv is not None:
        temporary = csv.with_name(f".{csv.name}.part")
        frame.to_csv(temporary, index=False)
        temporary.replace(csv)
        typer.echo(f"wrote {csv}: {len(frame)} runs, {len(frame.columns)} columns")
        return
    front = list(frame.columns[: list(frame.columns).index("truncated")])
    shown = [*front, *(n for n in ("committed_tps", "latency_p50_ms", "latency_p99_ms", "view_changes") if n in frame)]
    typer.echo(frame[shown].to_string(index=False, max_rows=60, na_rep="-", float_format=lambda x: f"{x:,.3f}"))
    typer.echo(f"{len(frame)} runs; all {len(frame.columns)} columns with --csv FILE or sim.results({str(path)!r})")


@app.command(epilog="Exit codes: 0 every byte is the same, 1 something differs, 2 nothing to verify.")
def verify(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="folder of a study's results, or of one run")],
    sample: Annotated[int | None, typer.Option("--sample", min=1, metavar="K", help="only so many runs")] = None,
    workers: Workers = 2,
    as_json: AsJson = False,
) -> None:
    """Run stored scenarios again and compare with what is stored, byte by byte."""
    from sim.scenario.sweep import verify as verifying

    checked = []
    with bad_input_is_an_error(), progress_bar(f"verify {path}", hidden=as_json) as progress:
        for total, one in verifying(path, sample=sample, workers=workers):
            checked.append(one)
            if progress is not None:
                progress(len(checked) / total)
    wrong = sorted((one for one in checked if one.differences), key=lambda one: one.key)
    if as_json:
        data = {"checked": len(checked), "differences": {one.key: list(one.differences) for one in wrong}}
        typer.echo(json.dumps(data, ensure_ascii=False, allow_nan=False))
    else:
        for one in wrong:
            typer.echo(f"{one.key}: " + "; ".join(one.differences))
        typer.echo(f"{len(checked)} runs checked, {len(checked) - len(wrong)} the same, {len(wrong)} different")
    raise typer.Exit(1 if wrong else 0)


@app.command()
def protocols() -> None:
    """List the protocols and their parameters."""
    from sim.parameters import key_of
    from sim.protocols import PROTOCOLS

    for name, entry in PROTOCOLS.items():
        typer.echo(f"{name}: {entry.summary}; tolerates {entry.faults}")
        for field, info in entry.parameters.model_fields.items():
            typer.echo(f"    {key_of(field)}: {info.description} (default: {info.default})")


@app.command()
def schema() -> None:
    """Print the JSON Schema of scenario files, for editors."""
    from sim.scenario.schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, sort_keys=True, ensure_ascii=False))


@app.command()
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="one run per row, up to 256 voters")] = False,
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="also write table and plot here")] = None,
) -> None:
    """Measure how much consensus per second this machine simulates."""
    with compiling_is_announced():
        from sim import bench as bench_

    found = bench_.bench(quick=quick, tell=lambda text: typer.echo(text, err=as_json))
    if as_json:
        typer.echo(json.dumps(found, allow_nan=False))
    if out is not None:
        from sim.report.speed import publish

        for path in publish(found, out):
            typer.echo(f"wrote {path}", err=as_json)


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
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="write the diagram here instead of printing it")
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
    if perfetto is None and sequence is None:
        typer.echo(f"trace {run}: say what to make of it; add --perfetto FILE or --sequence HEIGHT", err=True)
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


if __name__ == "__main__":
    main()
