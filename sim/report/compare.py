"""Several scenarios side by side: take what is stored, run what is not, write one table and one figure."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import multiprocessing
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from sim.manifests import MANIFEST
from sim.report import outcome
from sim.report.outcome import Outcome
from sim.scenario import store
from sim.scenario.load import load_scenario
from sim.scenario.schema import Scenario
from sim.scenario.workers import end_with_parent

Progress = Callable[[float], None]
Announce = Callable[[], AbstractContextManager[None]]
Pool = Callable[["list[Job]", Path, "str | None", "Progress | None"], "list[tuple[int, Path]]"]
_POLL_S = 0.1
_NAME_MAX = 80


@dataclasses.dataclass(frozen=True)
class Job:
    """One scenario to run, as the command line names it. `label`: its name in tables."""

    path: Path
    overrides: tuple[str, ...] = ()
    seed: int | None = None
    label: str | None = None

    def load(self) -> Scenario:
        """Raises ScenarioError."""
        return load_scenario(self.path, self.overrides, self.seed)


def stored(out: Path, key: str) -> Path | None:
    """The complete result of this key in any study under `out`, if there is one."""
    for manifest in sorted(out.glob(f"*/runs/{key}/{MANIFEST}")):
        try:
            outcome.read(manifest.parent)
        except (OSError, ValueError, KeyError):
            continue
        return manifest.parent
    return None


def aggregate(
    jobs: Sequence[Job],
    out: Path,
    *,
    study: str | None = None,
    workers: int = 2,
    progress: Progress | None = None,
    announce: Announce = nullcontext,
    pool: Pool | None = None,
) -> list[Outcome]:
    """The outcome of each job, in order. Runs with a stored result of the same key are not repeated.

    Other runs go to `workers` processes, or to `pool` if several calls share one; who runs them changes nothing but the
    time it takes. `announce()` is a context that holds while the engine is loaded, which may compile it. Raises
    ScenarioError before anything runs.
    """
    scenarios = [job.load() for job in jobs]
    keys = [store.run_key(scenario) for scenario in scenarios]
    folders: dict[str, Path | None] = {key: stored(out, key) for key in keys}
    missing = [i for i, key in enumerate(keys) if folders[key] is None and keys.index(key) == i]
    if missing:
        with announce():
            import sim.scenario.run  # noqa: F401  compiled once here, before workers load it
    with nullcontext(pool) if pool is not None else pool_of(workers, len(missing)) as chosen:
        for i, made in chosen([jobs[i] for i in missing], out, study, progress):
            folders[keys[missing[i]]] = made
    found = []
    for job, key, label in zip(jobs, keys, labels(jobs, scenarios), strict=True):
        folder = folders[key]
        assert folder is not None
        found.append(outcome.read(folder, job.label or label))
    return found


@contextlib.contextmanager
def pool_of(workers: int, most: int) -> Iterator[Pool]:
    """Runs up to `most` jobs at a time; its processes start when they are first needed and end with the context."""
    context = multiprocessing.get_context("spawn")
    seen = context.Array("d", max(most, 1), lock=False)
    with contextlib.ExitStack() as stack:

        @functools.cache
        def processes() -> concurrent.futures.ProcessPoolExecutor:
            return stack.enter_context(
                concurrent.futures.ProcessPoolExecutor(
                    min(workers, most), mp_context=context, initializer=_start_worker, initargs=(seen,)
                )
            )

        def run(jobs: list[Job], out: Path, study: str | None, progress: Progress | None) -> list[tuple[int, Path]]:
            if workers == 1 or len(jobs) <= 1:
                return _run_here(jobs, out, study, progress)
            seen[:] = [0.0] * len(seen)
            futures = [processes().submit(_run_in_worker, i, job, out, study) for i, job in enumerate(jobs)]
            waiting = set(futures)
            while waiting:
                done, waiting = concurrent.futures.wait(waiting, _POLL_S)
                for future in done:
                    future.result()  # a failure ends the comparison at once
                if progress is not None:
                    progress(sum(seen) / len(jobs))
            return [(i, future.result()) for i, future in enumerate(futures)]

        yield run


def _run_here(jobs: list[Job], out: Path, study: str | None, progress: Progress | None) -> list[tuple[int, Path]]:
    """Run jobs one after the other in this process."""
    shares = [0.0] * len(jobs)
    done = []
    for i, job in enumerate(jobs):

        def tell(share: float, i: int = i) -> None:
            shares[i] = share
            if progress is not None:
                progress(sum(shares) / len(shares))

        done.append((i, _run_one(job, out, study, tell)))
    return done


_seen: MutableSequence[float] = []  # in a worker: the progress of each job, shared with the parent


def _start_worker(seen: MutableSequence[float]) -> None:
    global _seen
    end_with_parent()
    _seen = seen


def _run_in_worker(i: int, job: Job, out: Path, study: str | None) -> Path:
    def tell(share: float) -> None:
        _seen[i] = share

    return _run_one(job, out, study, tell)


def _run_one(job: Job, out: Path, study: str | None, progress: Progress) -> Path:
    from sim.scenario.run import run

    path = run(job.load(), out=out, study=study, progress=progress).path
    assert path is not None
    return path


def labels(jobs: Sequence[Job], scenarios: Sequence[Scenario]) -> list[str]:
    """A different name for each scenario: its own, with its folder or a number where names are equal."""
    names = [scenario.name for scenario in scenarios]
    if len(set(names)) < len(names):
        names = [
            f"{job.path.resolve().parent.name}/{name}" if names.count(name) > 1 else name
            for job, name in zip(jobs, names, strict=True)
        ]
    return [f"{name} #{names[: i + 1].count(name)}" if names.count(name) > 1 else name for i, name in enumerate(names)]


def folder_of(outcomes: Sequence[Outcome]) -> str:
    """Name of the folder for a comparison: the designs, and a short hash of what determines their runs."""
    names = "-vs-".join(outcome.label.replace("/", "-").replace(" ", "-") for outcome in outcomes)
    return f"{names[:_NAME_MAX]}-{fingerprint(outcomes)}"


def fingerprint(outcomes: Sequence[Outcome]) -> str:
    """Eight hex digits of the scenarios that runs were made from."""
    text = " ".join(outcome.scenario_hash for outcome in outcomes)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
