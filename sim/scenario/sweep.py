"""Run a study: take what is stored and intact, run the rest here or on a cluster, and check stored runs again."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.kernel import chance
from sim.manifests import MANIFEST, DamagedError, damage
from sim.manifests import read as read_manifest
from sim.scenario import store
from sim.scenario.errors import ScenarioError
from sim.scenario.results import (
    FAILED,
    STUDY,
    Runs,
    counts,
    failures,
    frame_of,
    open_runs,
    refuse_other_schema,
    replay,
    write_index,
    write_json,
)
from sim.scenario.schema import ProtocolChoice, Scenario, protocol_table, scenario_hash
from sim.scenario.study import Planned, Study, as_data, label, load_study
from sim.scenario.until import Standing
from sim.scenario.workers import Executor, LostWorkersError, Refused, Report, Task, local, sweep_up

if TYPE_CHECKING:
    import pandas as pd

_SAMPLE = 2  # key of the draw that picks runs to verify


@dataclasses.dataclass
class State:
    """How far a sweep is. `reused` runs were stored before; `again` names damaged ones that run once more."""

    total: int = 0
    reused: int = 0
    done: int = 0
    failed: int = 0
    running: int = 0
    again: dict[str, str] = dataclasses.field(default_factory=dict)
    reused_runs: list[str] = dataclasses.field(default_factory=list)
    started: float = dataclasses.field(default_factory=time.monotonic)
    last: str = ""  # what has just happened to a run or a worker, on one line; empty if nothing has
    seen: set[str] = dataclasses.field(default_factory=set, repr=False)  # keys of all runs counted so far

    @property
    def left(self) -> int:
        """Runs without an outcome yet."""
        return self.total - self.reused - self.done - self.failed

    @property
    def eta_s(self) -> float | None:
        """Expected time to the end, wall-clock s, at the pace so far; None before the first run has ended."""
        ended = self.done + self.failed
        return (time.monotonic() - self.started) / ended * self.left if ended else None


Tell = Callable[[State], None]


@dataclasses.dataclass(frozen=True)
class Swept:
    """A sweep that has ended. `stopped`: why before its last run (wall-clock limit, disk full), or empty.

    `standings`: where each case stands against the study's target, if it has one.
    """

    folder: Path
    study: Study
    runs: Runs
    state: State
    statuses: dict[str, int]
    failures: dict[str, str]
    stopped: str
    standings: tuple[Standing, ...] = ()

    def results(self) -> pd.DataFrame:
        """One row per run; see `sim.results`."""
        return frame_of(self.runs)

    def targets(self) -> list[dict[str, Any]]:
        """One entry per case of a study with a target: case, outcome, replications, and both in words."""
        until = self.study.until
        if until is None:
            return []
        return [
            {
                "case": f"case {case.number} ({label(case.values)})",
                "outcome": one.outcome,
                "replications": one.replications,
                "words": one.words(until),
            }
            for case, one in zip(self.study.cases, self.standings, strict=True)
        ]


def sweep(
    path: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] = "results",
    workers: int = 2,
    cluster: str | None = None,
    overrides: Sequence[str] = (),
    limit_wall_s: float | None = None,
    tell: Tell | None = None,
    progress: bool = False,
) -> Swept:
    """Run all runs of a study file that are not stored intact in `out`/<study>.

    `cluster`: address of a dask scheduler, whose workers then run everything instead of `workers` processes here.
    `limit_wall_s`: stop after this wall-clock time; runs not finished by then stay missing. `tell` is called
    whenever something happens; `progress` shows a bar instead, in a terminal or a notebook. The results do not depend
    on where they were made. Raises ScenarioError before anything runs.
    """
    study = load_study(path, overrides)
    if progress:
        from sim.scenario.progress import sweep_bar

        with sweep_bar() as draw:
            return run_study(study, out=out, workers=workers, cluster=cluster, limit_wall_s=limit_wall_s, tell=draw)
    return run_study(study, out=out, workers=workers, cluster=cluster, limit_wall_s=limit_wall_s, tell=tell)


def run_study(
    study: Study,
    *,
    out: str | os.PathLike[str] = "results",
    workers: int = 2,
    cluster: str | None = None,
    limit_wall_s: float | None = None,
    tell: Tell | None = None,
    execute: Executor | None = None,
) -> Swept:
    """The same for a study that is laid out already. `execute`: an executor to use in place of one of its own.

    A study with a target is run in stages: all runs of a stage end before the next is laid out, so that what is run
    follows from values alone and not from which worker was faster.
    """
    with contextlib.nullcontext(execute) if execute is not None else executor(workers, cluster) as chosen:
        return _run_stages(study, Path(out), chosen, limit_wall_s, tell)


def executor(workers: int, cluster: str | None = None) -> contextlib.AbstractContextManager[Executor]:
    """Who runs tasks: processes of this machine, or the workers of a dask scheduler at that address."""
    if cluster is None:
        return local(workers)
    from sim.scenario.cluster import connected

    return connected(cluster)


def _run_stages(study: Study, out: Path, execute: Executor, limit_wall_s: float | None, tell: Tell | None) -> Swept:
    folder = out / study.name
    state = State()
    until = None if limit_wall_s is None else time.monotonic() + limit_wall_s
    stopped = ""
    _prepare(study, folder)
    while True:
        study, standings = replay(study, folder)
        runs = _prepare(study, folder)
        tasks = _missing(study, folder, state)
        if tell is not None:
            tell(state)
        if not tasks:
            break
        stopped = _run_tasks(tasks, study, out, execute, until, state, tell)
        if not stopped and state.left:
            stopped = f"the wall-clock limit of {limit_wall_s:g} s was reached; sweep again to go on"
        if stopped or study.until is None:
            break
    sweep_up(folder)  # once more: a killed process may have been dying still when this sweep began
    if study.until is not None:
        study, standings = replay(study, folder)
        runs = _prepare(study, folder)
    write_index(runs)
    return Swept(folder, study, runs, state, counts(runs), failures(runs), stopped, standings)


def _run_tasks(
    tasks: list[Task], study: Study, out: Path, execute: Executor, until: float | None, state: State, tell: Tell | None
) -> str:
    """Run tasks and count what becomes of them. Returns why it stopped before the last, or an empty text."""
    folder = out / study.name
    try:
        with contextlib.closing(execute(tasks, out, study.name, until=until)) as reports:
            for report in reports:
                _count(report, state, study, folder)
                if tell is not None:
                    tell(state)
                if isinstance(report, Report) and report.disk_full:
                    return f"no space left on the disk of {folder}; free some and sweep again: finished runs are kept"
    except LostWorkersError as error:
        return f"{error}; sweep again to go on"
    return ""


def _count(report: Report | Refused | None, state: State, study: Study, folder: Path) -> None:
    """Bring the state up to date with a report."""
    state.last = ""
    if isinstance(report, Refused):
        state.last = f"worker {report.worker} is refused: {report.reason}"
    elif report is not None and report.outcome == "started":
        state.running += 1
    elif report is not None:
        state.running -= 1
        planned = study.runs[report.number]
        if report.disk_full:
            pass  # no fault of the run: it is missing, and the sweep ends
        elif report.outcome == "failed":
            state.failed += 1
            _note_failure(folder, planned, report.reason)
        elif report.outcome != "returned":
            state.done += 1
        state.last = f"{report.reason or report.status or 'found'}: {name_of(planned)}"


def name_of(planned: Planned) -> str:
    """A run as people name it."""
    return f"case {planned.case.number} ({label(planned.case.values)}), replication {planned.replication}"


def _prepare(study: Study, folder: Path) -> Runs:
    """The study's folder with its manifest and without what dead processes left.

    Raises ScenarioError if it cannot be written, or holds a study of another schema, which stays as it is.
    """
    refuse_other_schema(folder)
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        sweep_up(folder)
        write_json(folder / STUDY, as_data(study))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ScenarioError(f"{folder}: cannot be written ({reason}); choose another --out") from None
    return open_runs(folder)


def _missing(study: Study, folder: Path, state: State) -> list[Task]:
    """Tasks for what is not stored intact, apart from runs that were seen before; counts the rest as reused."""
    tasks = []
    for number, planned in enumerate(study.runs):
        if planned.key in state.seen:  # tried in an earlier stage, or the same run as that of another case
            continue
        state.seen.add(planned.key)
        state.total += 1
        place = folder / "runs" / planned.key
        if place.exists():
            reason = damage(place)
            if reason is None:
                state.reused += 1
                state.reused_runs.append(f"{name_of(planned)}: {planned.key}")
                _forget_failure(folder, planned.key)
                continue
            state.again[name_of(planned)] = reason
            if reason.startswith("its manifest"):
                (place / MANIFEST).unlink(missing_ok=True)  # the worker judges by what the folder itself says
        _forget_failure(folder, planned.key)
        tasks.append(Task(number, planned.key, planned.scenario))
    return tasks


def _note_failure(folder: Path, planned: Planned, reason: str) -> None:
    with contextlib.suppress(OSError):  # a full disk, perhaps
        (folder / FAILED).mkdir(exist_ok=True)
        write_json(folder / FAILED / f"{planned.key}.json", {"key": planned.key, "reason": reason})


def _forget_failure(folder: Path, key: str) -> None:
    with contextlib.suppress(OSError):
        (folder / FAILED / f"{key}.json").unlink()
        (folder / FAILED).rmdir()  # only if it is empty now


@dataclasses.dataclass(frozen=True)
class Checked:
    """A stored run that was run again. `differences` is empty if every byte was the same."""

    key: str
    differences: tuple[str, ...]


def verify(
    path: str | os.PathLike[str], *, sample: int | None = None, workers: int = 2, cluster: str | None = None
) -> Iterator[tuple[int, Checked]]:
    """Run stored scenarios again and compare with what is stored; yields (number of runs, one that was checked).

    `path`: the folder of a study or of one run. `sample`: so many runs, chosen by a draw keyed by their keys.
    `cluster`: address of a dask scheduler, whose workers then run them. Raises ScenarioError if there is nothing to
    verify.
    """
    folder = Path(path)
    places = [folder] if (folder / MANIFEST).exists() else _complete(open_runs(folder))
    if not places:
        raise ScenarioError(f"{path}: holds no complete run; run pilotzone sweep first")
    if sample is not None:
        places = sorted(places, key=lambda place: (chance.draw(chance.REPLICATION, _SAMPLE, _number(place)), place))
        places = sorted(places[:sample])
    tasks, manifests = [], []
    for i, place in enumerate(places):
        manifest, problem = _manifest(place)
        manifests.append(manifest)
        scenario = None if problem else _rebuilt(manifest)
        if scenario is None:
            yield len(places), Checked(place.name, (problem or "its scenario is not one of this version",))
        else:
            tasks.append(Task(i, store.run_key(scenario), scenario))
    keys = {task.number: task.key for task in tasks}
    with tempfile.TemporaryDirectory(prefix="pilotzone-") as temporary:
        out = Path(temporary)
        with executor(workers, cluster) as execute, contextlib.closing(execute(tasks, out, "verify")) as reports:
            for report in reports:
                if not isinstance(report, Report) or report.outcome in ("started", "returned"):
                    continue
                place = places[report.number]
                if report.outcome == "failed":
                    yield len(places), Checked(place.name, (f"cannot be run again: {report.reason}",))
                    continue
                again = out / "verify" / "runs" / keys[report.number]
                found = tuple(_differences(manifests[report.number], again))
                shutil.rmtree(again)
                yield len(places), Checked(place.name, found)


def _number(place: Path) -> int:
    return int.from_bytes(place.name.encode()[-7:], "big")


def _complete(runs: Runs) -> list[Path]:
    places = [runs.folder / "runs" / key for key in runs.keys]
    return [place for place in places if (place / MANIFEST).exists()]


def _manifest(place: Path) -> tuple[dict[str, Any], str | None]:
    """A stored manifest and what is wrong with its folder, if anything."""
    problem = damage(place)
    try:
        return read_manifest(place), problem
    except DamagedError as error:
        return {}, problem or str(error)


def _rebuilt(manifest: dict[str, Any]) -> Scenario | None:
    """The scenario that a manifest holds, or None if this version reads it differently."""
    try:
        data = dict(manifest["scenario"])
        choice = data["protocol"]
        entry = protocol_table()[choice["name"]]
        parameters = entry.parameters.model_validate(choice["parameters"])
        data["protocol"] = ProtocolChoice(name=choice["name"], parameters=parameters)
        scenario = Scenario.model_validate(data)
    except (KeyError, TypeError, ValueError):
        return None
    return scenario if scenario_hash(scenario) == manifest["scenario_hash"] else None


def _differences(stored: dict[str, Any], again: Path) -> Iterator[str]:
    """What differs between a stored manifest and that of the same scenario, run again."""
    fresh = read_manifest(again)
    code = "" if stored["model_digest"] == fresh["model_digest"] else " (the model code has changed since)"
    for name in ("digest", "status", "metrics", "checks", "violations", "warnings"):
        if stored.get(name) != fresh[name]:
            if name == "metrics":
                changed = sorted(k for k in fresh[name] if stored[name].get(k) != fresh[name][k])
                yield f"metrics {', '.join(changed[:5])}{code}"
            else:
                yield f"{name} {stored.get(name)} was {fresh[name]} this time{code}"
    for file, digest in fresh["files"].items():
        if stored["files"].get(file) != digest:
            yield f"{file} has other bytes{code}"
