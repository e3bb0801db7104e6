"""A pool of processes that run scenarios one at a time each and survive the death of any of them.

Workers are spawned, not forked, and take no part in handing out work: the parent gives each its next task over a
pipe. A worker that dies (killed, out of memory) costs the run it had; a new one takes its place. Workers end by
themselves when their parent is gone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Literal, Protocol

from sim.manifests import damage
from sim.scenario.schema import Scenario

_TRIES = 3  # at a run whose folder another process replaces at the same time, and at starting workers
_MEANWHILE = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT)
_OWNED = re.compile(
    r"\.(study\.json|index\.parquet|[0-9a-f]{24}(\.json|\.damaged)?)\.(?P<pid>[0-9]+)(\.old)?"
)  # names of what a process is writing
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclasses.dataclass(frozen=True)
class Task:
    """One run: its scenario, and the key that its result must have."""

    number: int
    key: str
    scenario: Scenario


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of a task.

    `outcome`: started, done, found (another process stored it meanwhile), failed, or returned (its worker has gone,
    and it will be started again).
    """

    number: int
    outcome: Literal["started", "done", "found", "failed", "returned"]
    status: str = ""  # of the run, if it is done
    reason: str = ""  # if it failed or was returned
    disk_full: bool = False


@dataclasses.dataclass(frozen=True)
class Refused:
    """A worker of a cluster that gets nothing to do."""

    worker: str
    reason: str


class LostWorkersError(RuntimeError):
    """Nobody is left to run anything. What is stored stays."""


class Executor(Protocol):
    """Runs tasks, stores results in `out`/`study`/runs, and reports as it goes; None: nothing happened for a while.

    `until`: value of time.monotonic() at which what is still running is given up. Closing the iterator early ends
    what is running; finished results stay, unfinished ones leave nothing behind. May be called again, one call at a
    time: workers stay between calls.
    """

    def __call__(
        self, tasks: Sequence[Task], out: Path, study: str, *, until: float | None = None
    ) -> Generator[Report | Refused | None, None, None]: ...


@dataclasses.dataclass(frozen=True)
class _Assignment:
    """A task and where its result is to be stored."""

    task: Task
    out: Path
    study: str

    @property
    def runs(self) -> Path:
        return self.out / self.study / "runs"


@dataclasses.dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    pipe: Connection
    busy: _Assignment | None = None
    loaded: bool = False


@contextlib.contextmanager
def local(workers: int) -> Iterator[Executor]:
    """The executor of this machine: so many processes, started when they are first needed, ended with the context."""
    crew: list[_Worker] = []
    try:
        yield functools.partial(_run_all, crew, workers)
    finally:
        _dismiss(crew, crew)


def _run_all(
    crew: list[_Worker], workers: int, tasks: Sequence[Task], out: Path, study: str, *, until: float | None = None
) -> Generator[Report | None, None, None]:
    """Run tasks in `workers` processes, as an executor does."""
    queue = [_Assignment(task, out, study) for task in reversed(tasks)]
    stillborn = 0
    try:
        while queue or any(worker.busy for worker in crew):
            if until is not None and time.monotonic() >= until:
                return
            # The first worker alone loads the engine, which may compile it; then come the others.
            wanted = workers if any(worker.loaded for worker in crew) else 1
            idle = sum(worker.busy is None for worker in crew)
            while len(queue) > idle and len(crew) < wanted:
                crew.append(_hire())
                idle += 1
            for worker in crew:
                if queue and worker.busy is None:
                    yield _hand(worker, queue)
            pause = 0.2 if until is None else max(min(0.2, until - time.monotonic()), 0.0)
            ready = wait([worker.pipe for worker in crew], pause)
            if not ready:
                yield None
            for worker in [worker for worker in crew if worker.pipe in ready]:
                try:
                    message = worker.pipe.recv()
                except (EOFError, OSError):
                    crew.remove(worker)
                    if (lost := _bury(worker)) is not None:
                        yield lost
                    stillborn += not worker.loaded
                    if stillborn == _TRIES:
                        rule = f"{_TRIES} worker processes in a row ended before they had loaded the engine"
                        raise RuntimeError(rule) from None
                    continue
                if message is None:  # the engine is loaded
                    worker.loaded, stillborn = True, 0
                else:
                    worker.busy = None
                    yield message
    finally:
        _dismiss(crew, [worker for worker in crew if worker.busy is not None])


def _hire() -> _Worker:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there,), daemon=True)
    with _without_main(), _deaf_to_interrupts():
        process.start()
    there.close()  # so that the worker's death ends the pipe
    return _Worker(process, here)


def _dismiss(crew: list[_Worker], leaving: Sequence[_Worker]) -> None:
    """End workers at once, and remove what they were writing."""
    leaving = list(leaving)
    for worker in leaving:
        worker.process.kill()
    for worker in leaving:
        crew.remove(worker)
        _bury(worker)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Spawned workers import this package only: a user's script needs no `if __name__ == "__main__"`."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes started here never see Ctrl-C, which reaches the whole group: a mask is inherited from birth on."""
    resource_tracker.ensure_running()  # would be started with the first process, and lift the mask again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _hand(worker: _Worker, queue: list[_Assignment]) -> Report:
    worker.busy = queue.pop()
    with contextlib.suppress(OSError):  # it has just died: its pipe says so next
        worker.pipe.send(worker.busy)
    return Report(worker.busy.task.number, "started")


def _bury(worker: _Worker) -> Report | None:
    """What a dead worker's run is called, if it had one; removes what it was writing."""
    worker.process.join()
    worker.pipe.close()
    if worker.busy is None:
        return None
    task = worker.busy.task
    shutil.rmtree(worker.busy.runs / f".{task.key}.{worker.process.pid}", ignore_errors=True)
    code = worker.process.exitcode or 0
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return Report(task.number, "failed", reason=f"the worker process {how}")


def _work(pipe: Connection) -> None:
    """A worker's life."""
    import sim.scenario.run  # noqa: F401  the engine, once

    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        pipe.send(None)
        while True:
            given: _Assignment = pipe.recv()
            pipe.send(attempt(given.task, given.out, given.study))


def attempt(task: Task, out: Path, study: str) -> Report:
    """Run a task in this process and store its result; whatever goes wrong becomes a report."""
    from sim.scenario.run import run

    def make() -> str:
        result = run(task.scenario, out=out, study=study)
        if result.key != task.key:
            raise RuntimeError("the model code changed during the sweep; start it again")
        return result.status

    return keep(task, out, study, make)


def keep(task: Task, out: Path, study: str, make: Callable[[], str]) -> Report:
    """Have a task's result made and stored, unless it is there already. `make` stores it and returns its status."""
    place = out / study / "runs" / task.key
    for last in (*[False] * (_TRIES - 1), True):
        try:
            if place.exists():
                if damage(place) is None:
                    return Report(task.number, "found")
                _set_aside(place)
            return Report(task.number, "done", status=make())
        except OSError as error:
            if error.errno in _FULL:
                return Report(task.number, "failed", reason="no space left on the disk", disk_full=True)
            if last or error.errno not in _MEANWHILE:
                return Report(task.number, "failed", reason=f"{type(error).__name__}: {error}")
        except MemoryError:
            return Report(task.number, "failed", reason="out of memory")
        except Exception as error:  # the study goes on without this run
            return Report(task.number, "failed", reason=f"{type(error).__name__}: {error}")
    raise AssertionError("the last try returns")


def _set_aside(place: Path) -> None:
    """Take a damaged result away in one step, so that no other process sees half of it."""
    aside = place.parent / f".{place.name}.damaged.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        place.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def sweep_up(study: Path) -> int:
    """Remove hidden files and work folders of processes that are gone from a study's folder. Returns how many."""
    found = 0
    for place in (study, study / "runs", study / "failed"):
        for left in place.glob(".*") if place.is_dir() else ():
            owned = _OWNED.fullmatch(left.name)
            if owned is None or _is_alive(int(owned["pid"])):
                continue
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
            found += 1
    return found


def end_with_parent() -> None:
    """Have this process end when its parent does; for pools whose idle processes would wait for ever for more to do."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="ends with its parent", daemon=True).start()


def _is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be noticed does not."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            return stat.read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
        except (OSError, IndexError):
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
