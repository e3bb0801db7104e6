"""Run scenarios on the workers of a dask cluster; the same reports as those of the local pool in workers.py.

Workers are started with the ordinary `dask worker`. Each worker process has one run at a time and hands the files of
the finished run back as bytes; only the client writes into the study's folder, so the machines need no common disk.
The client itself says which worker runs what, and takes a run back when its worker has gone. A worker whose version
of the model code is another one gets nothing to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import itertools
import logging
import queue
import re
import socket
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from sim.scenario import store
from sim.scenario.errors import ScenarioError
from sim.scenario.workers import Executor, LostWorkersError, Refused, Report, Task, attempt, keep

Client = Any  # of distributed
Future = Any

_ADDRESS = re.compile(r"(?P<scheme>tcp|tls)://(?P<host>[^\s:/]+|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]{1,5})")
_TRIES = 3  # at a run whose workers go away
_PATIENCE_S = 5  # for the scheduler's first answer
_TICK_S = 0.5  # between looks at who is there
_ALONE_S = 60  # without any worker, before the sweep ends; a nanny restarts a worker within seconds
_PARCEL_BYTES_MAX = 1 << 30


@contextlib.contextmanager
def connected(address: str) -> Iterator[Executor]:
    """An executor on the cluster of a scheduler. Raises ScenarioError if nothing usable answers within seconds."""
    if not _ADDRESS.fullmatch(address):
        raise ScenarioError(f"--cluster {address}: must be a dask scheduler's address; write tcp://HOST:8786")
    try:
        from distributed import Client
    except ImportError:
        raise ScenarioError(
            f"--cluster {address}: needs dask; install it with: pip install 'pilotzone[distributed]'"
        ) from None
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters becomes an error of ours
    try:
        _probe(address)
        client = Client(address, timeout=_PATIENCE_S, set_as_default=False, name="pilotzone")
    except Exception as error:  # whatever a stranger at that address may answer
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ScenarioError(
            f"--cluster {address}: no dask scheduler answers there ({reason}); start one with dask scheduler, and "
            "name the address that it prints"
        ) from None
    try:
        crew = _Crew(client, address)
        if not crew.muster().free:
            reasons = "; ".join(f"{worker} is refused: {reason}" for worker, reason in crew.refused.items())
            raise ScenarioError(
                f"--cluster {address}: no worker to run anything ({reasons or 'none is there'}); start some of this "
                f"version with: dask worker {address} --nthreads 1"
            )
        yield functools.partial(_run_all, crew)
    finally:
        with contextlib.suppress(Exception):  # the scheduler may have gone
            client.close(timeout=_PATIENCE_S)


def _probe(address: str) -> None:
    """Shake hands with whatever is there. A Client that fails at this leaves threads that complain later."""
    from distributed.comm import connect

    match = _ADDRESS.fullmatch(address)
    assert match is not None
    socket.create_connection((match["host"].strip("[]"), int(match["port"])), timeout=_PATIENCE_S).close()

    async def shake() -> None:
        comm = await connect(address, timeout=_PATIENCE_S)
        comm.abort()

    if match["scheme"] == "tcp":  # tls needs the certificates of dask's configuration: left to the client
        asyncio.run(shake())


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A finished run on its way: what became of it, and its files by name."""

    report: Report
    files: dict[str, bytes]


def identify() -> tuple[str, str]:
    """On a worker: its version, and the digest of its model code."""
    return store.version(), store.model_digest()


def perform(task: Task) -> FinishedRun:
    """On a worker: run a task in a folder of its own and pack the result."""
    with tempfile.TemporaryDirectory(prefix="pilotzone-") as temporary:
        report = attempt(task, Path(temporary), "study")
        if report.outcome != "done":
            return FinishedRun(dataclasses.replace(report, disk_full=False), {})  # not the disk of the study
        files = sorted((Path(temporary) / "study" / "runs" / task.key).iterdir())
        size = sum(file.stat().st_size for file in files)
        if size > _PARCEL_BYTES_MAX:
            reason = (
                f"its files have {size} bytes and {_PARCEL_BYTES_MAX} is the most that a cluster's worker hands back; "
                "run this study without --cluster"
            )
            return FinishedRun(Report(task.number, "failed", reason=reason), {})
        return FinishedRun(report, {file.name: file.read_bytes() for file in files})


@dataclasses.dataclass
class _Busy:
    """What a worker is doing."""

    task: Task
    future: Future


class _Crew:
    """The workers of a cluster, as the client knows them."""

    def __init__(self, client: Client, address: str) -> None:
        self.client, self.address = client, address
        self.present: dict[str, _Busy | None] = {}  # accepted workers
        self.refused: dict[str, str] = {}
        self.told: set[str] = set()
        self.inbox: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.serial = itertools.count()
        self.seen_s = time.monotonic()  # when a worker was last there

    @property
    def free(self) -> list[str]:
        """Workers with nothing to do."""
        return [worker for worker, busy in self.present.items() if busy is None]

    def muster(self) -> _Crew:
        """Look who is there, and ask newcomers for their version."""
        try:
            there = set(self.client.nthreads())
            new = sorted(there - set(self.present) - set(self.refused))
            answers = self.client.run(identify, workers=new, on_error="return") if new else {}
        except (OSError, TimeoutError, RuntimeError) as error:
            raise LostWorkersError(f"the scheduler {self.address} has gone ({error})") from None
        for worker, answer in sorted(answers.items()):
            if isinstance(answer, OSError):
                continue  # it has just gone, or it will be asked again
            reason = _objection(answer)
            if reason is None:
                self.present[worker] = None
            else:
                self.refused[worker] = reason
        self.there = there
        if set(self.present) & there:
            self.seen_s = time.monotonic()
        return self

    def gone(self) -> list[Task]:
        """Forget workers that have gone; their runs."""
        left = []
        for worker in set(self.present) - self.there:
            busy = self.present.pop(worker)
            if busy is not None:
                busy.future.cancel()
                left.append(busy.task)
        return left

    def hand(self, worker: str, task: Task) -> None:
        """Give a free worker a run."""
        key = f"pilotzone-{self.client.id}-{next(self.serial)}"
        future = self.client.submit(perform, task, key=key, workers=[worker], pure=False)
        self.present[worker] = _Busy(task, future)

        def arrived(future: Future) -> None:  # in a thread of the client
            try:
                self.inbox.put((worker, (key, future.result())))
            except BaseException as error:
                self.inbox.put((worker, (key, error)))

        future.add_done_callback(arrived)

    def take(self, wait_s: float) -> tuple[Task, FinishedRun | BaseException] | None:
        """What the next worker hands over, or None if that takes longer."""
        try:
            worker, (key, found) = self.inbox.get(timeout=wait_s)
        except queue.Empty:
            return None
        busy = self.present.get(worker)
        if busy is None or busy.future.key != key:
            return None  # taken back already
        self.present[worker] = None
        return busy.task, found


def _objection(answer: Any) -> str | None:
    """Why a worker that answered so cannot take part, or None."""
    if isinstance(answer, ImportError):
        return f"pilotzone {store.version()} cannot be imported there ({answer}); install it where the worker runs"
    if isinstance(answer, BaseException):
        return f"it cannot say which version it has ({type(answer).__name__}: {answer})"
    version, digest = answer
    if digest == store.model_digest():
        return None
    return (
        f"its model code is {digest[:12]} (version {version}), and the client's is {store.model_digest()[:12]} "
        f"(version {store.version()}); install the same version and start the worker again"
    )


def _run_all(
    crew: _Crew, tasks: Sequence[Task], out: Path, study: str, *, until: float | None = None
) -> Generator[Report | Refused | None, None, None]:
    """Run tasks on a cluster, as an executor does. Raises LostWorkersError if all have gone."""
    waiting = list(reversed(tasks))
    tries: dict[int, int] = {}
    looked_s = -1.0
    try:
        while waiting or any(crew.present.values()):
            now = time.monotonic()
            if until is not None and now >= until:
                return
            if now - looked_s >= _TICK_S:
                looked_s = now
                for task in crew.muster().gone():
                    tries[task.number] = tries.get(task.number, 0) + 1
                    yield _returned(task, tries[task.number], waiting)
                for worker in sorted(set(crew.refused) - crew.told):
                    crew.told.add(worker)
                    yield Refused(worker, crew.refused[worker])
                if now - crew.seen_s > _ALONE_S:
                    raise LostWorkersError(f"no worker has been there for {_ALONE_S} s")
            for worker in crew.free if waiting else ():
                if waiting:
                    task = waiting.pop()
                    crew.hand(worker, task)
                    yield Report(task.number, "started")
            arrived = crew.take(_TICK_S if until is None else max(min(_TICK_S, until - time.monotonic()), 0.0))
            yield None if arrived is None else _settle(*arrived, out, study)
    finally:
        for worker, busy in crew.present.items():
            if busy is not None:
                with contextlib.suppress(Exception):
                    busy.future.cancel()
                crew.present[worker] = None


def _returned(task: Task, tries: int, waiting: list[Task]) -> Report:
    """A run whose worker has gone waits for another one, unless it had several."""
    if tries == _TRIES:
        return Report(task.number, "failed", reason=f"{_TRIES} workers ended while they had it")
    waiting.append(task)
    return Report(task.number, "returned", reason="its worker has gone")


def _settle(task: Task, found: FinishedRun | BaseException, out: Path, study: str) -> Report:
    """Store what a worker handed over."""
    if isinstance(found, BaseException):
        reason = f"{type(found).__name__}: {str(found).partition(chr(10))[0]}"
        return Report(task.number, "failed", reason=reason)
    if found.report.outcome != "done":
        return found.report
    return keep(task, out, study, lambda: (store.adopt(out, study, task.key, found.files), found.report.status)[1])
