"""What commands share: the application, arguments, errors of bad input, progress."""

from __future__ import annotations

import contextlib
import functools
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sim.protocol import Replica
    from sim.scenario.run import Progress
    from sim.scenario.schema import Scenario


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
Jobs = Annotated[int, typer.Option("--jobs", min=1, max=256, help="worker processes")]
Workers = Annotated[int, typer.Option("--workers", min=1, max=256, help="worker processes; they change no result")]
Cluster = Annotated[
    str | None,
    typer.Option("--cluster", metavar="tcp://HOST:PORT", help="run on the workers of this dask scheduler instead"),
]
Level = Annotated[float, typer.Option("--level", metavar="SHARE", help="of the intervals, 0.95 for 95 %")]
EXIT_CODES = (
    "Exit codes: 0 ok, 1 internal error, 2 bad scenario, 3 safety violation, 4 liveness failure, 5 limit reached."
)


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


@contextlib.contextmanager
def bad_input_is_an_error() -> Iterator[None]:
    """Print one message where a scenario cannot be used (exit 2), built (5), or believed once it has run (1)."""
    from sim.scenario.errors import DamagedRunError, LimitReachedError, ScenarioError

    try:
        yield
    except ScenarioError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    except LimitReachedError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(5) from None
    except DamagedRunError as error:
        typer.echo(f"internal error: {error}", err=True)
        raise typer.Exit(1) from None


@functools.cache
def announce_compiling() -> None:
    """Say, once, that the engine has to be compiled before anything runs: nothing of this version is cached yet."""
    from sim import kernel

    if not kernel.COMPLETE.exists():
        typer.echo("compiling the kernel (once per version, a minute or so) ...", err=True)


@contextlib.contextmanager
def compiling_is_announced() -> Iterator[None]:
    """Around what imports the engine."""
    announce_compiling()
    yield


def load(path: Path, overrides: list[str] | None, seed: int | None, replica: type[Replica] | None = None) -> Scenario:
    """Load a scenario or exit with 2. `replica`: the class that takes its protocol's place, or is it."""
    from sim.scenario.load import load_scenario

    if replica is None:
        with bad_input_is_an_error():
            return load_scenario(path, overrides or [], seed)
    from sim.protocols import PROTOCOLS, own, variant

    kind = next((entry for entry in PROTOCOLS.values() if issubclass(replica, entry.protocol)), None)
    if kind is not None:  # a rule override, which may send messages of its own
        variants = {name: variant(entry, replica) for name, entry in PROTOCOLS.items()}
        with bad_input_is_an_error():
            loaded = load_scenario(path, overrides or [], seed, protocols=variants)
        if issubclass(replica, PROTOCOLS[loaded.protocol.name].protocol):
            return loaded
        text = f"is a variant of {kind.module}, and the scenario's protocol is {loaded.protocol.name}"
        remedy = f"--set protocol.name={kind.module}"
    else:
        try:
            name, entry = own(replica)
        except ValueError as error:
            typer.echo(f"--protocol-file: {error}", err=True)
            raise typer.Exit(2) from None
        with bad_input_is_an_error():
            loaded = load_scenario(path, overrides or [], seed, protocols=PROTOCOLS | {name: entry})
        if loaded.protocol.name == name:
            return loaded
        text = f"is a protocol of its own, and the scenario's is {loaded.protocol.name}"
        remedy = f"--set protocol.name={name}"
    typer.echo(f"--protocol-file: {replica.__name__} {text}; add {remedy}", err=True)
    raise typer.Exit(2)


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

    if path.suffix != ".py" or _is_taken(path):
        rule = "the file of a protocol is Python, and no module is called like it"
        typer.echo(f"--protocol-file {spec}: {path.name}: {rule}; call it for example my_protocol.py", err=True)
        raise typer.Exit(2)
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[path.stem] = module
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
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
    for one in (found, *found.messages, *found.later_messages):
        missing = sorted(getattr(one, "__abstractmethods__", ()))
        if missing:
            rule = f"{one.__name__} lacks {', '.join(missing)}, which every {_kind(one)} has"
            typer.echo(f"--protocol-file {spec}: {path}: {rule}; write what is lacking", err=True)
            raise typer.Exit(2)
    return found


def _kind(one: type) -> str:
    from sim.protocol import Replica

    return "protocol" if issubclass(one, Replica) else "message"


def _is_taken(path: Path) -> bool:
    """Whether a module of this name is there already, from another file."""
    from importlib.machinery import PathFinder

    if "." in path.stem or path.stem in sys.stdlib_module_names:
        return True
    found = PathFinder.find_spec(path.stem)  # on the disk: of those loaded already, one may be an earlier protocol
    return found is not None and (found.origin is None or Path(found.origin).resolve() != path.resolve())


@contextlib.contextmanager
def own_code_is_an_error(replica: type[Replica] | None, seed: int) -> Iterator[None]:
    """Where code of --protocol-file raises: say what, where in that file, in which run and when, and exit with 1."""
    from sim.scenario.errors import LimitReachedError

    try:
        yield
    except LimitReachedError:
        raise
    except (Exception, SystemExit) as error:
        file = None if replica is None else sys.modules[replica.__module__].__file__
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        if replica is None or not frames:
            raise
        note = "; ".join(getattr(error, "__notes__", ())) or f"as a run of {replica.__name__} began, seed {seed}"
        text = " ".join(str(error).split())
        typer.echo(f"{file}:{frames[-1].lineno}: {type(error).__name__}: {text}; {note}", err=True)
        typer.echo("".join(traceback.format_list(frames)), err=True, nl=False)
        raise typer.Exit(1) from None


@contextlib.contextmanager
def progress_bar(label: str, *, hidden: bool) -> Iterator[Progress | None]:
    """A progress bar on a terminal; nothing elsewhere."""
    if hidden or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    from sim.scenario.progress import share_bar

    with share_bar(label, console=Console(stderr=True)) as bar:
        yield bar


@contextlib.contextmanager
def unwritable_is_an_error(out: Path) -> Iterator[None]:
    """Print one message and exit with 2 when results cannot be written: no right, no room, a file in the way."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        typer.echo(f"--out {out}: {reason}; name a folder that can be written, with enough room", err=True)
        raise typer.Exit(2) from None


def make_folder(out: Path) -> None:
    """Make the folder for results, or exit with 2."""
    with unwritable_is_an_error(out):
        out.mkdir(parents=True, exist_ok=True)
