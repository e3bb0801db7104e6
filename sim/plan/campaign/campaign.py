"""Many configurations, on all cores, until the time is over; resumed where it stopped."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from sim.kernel import COMPLETE
from sim.measure.statistics import rule_of_three
from sim.plan.campaign.draws import draw
from sim.plan.campaign.runs import INTERNAL, LIMIT, LIVENESS, PATHS, REFUSED, SAFETY, Outcome, attempt, shrink, write
from sim.protocols import PROTOCOLS
from sim.scenario.workers import end_with_parent

_AHEAD = 4  # configurations handed out per worker
_CHILD_RUNS = 400  # after which a worker is replaced: what leaks ends with it
_FINDINGS_SHRUNK = 3  # per protocol, kind and check


@dataclasses.dataclass(frozen=True)
class Row:
    """What a campaign says of one protocol. `bound`: of the share of such runs that break it, if none did (95 %)."""

    protocol: str
    runs: int
    faults_fired: int
    safety: int
    liveness: int
    limits: int
    paths: int
    internal: int
    explained: int
    bound: float | None


@dataclasses.dataclass(frozen=True)
class Campaign:
    """How a campaign stands: all outcomes so far, and the files that replay findings."""

    seed: int
    beyond: bool
    outcomes: tuple[Outcome, ...]
    files: dict[tuple[str, int], Path]
    wall_s: float

    @property
    def findings(self) -> list[Outcome]:
        """What somebody must look at."""
        return [outcome for outcome in self.outcomes if outcome.is_finding]

    def rows(self) -> list[Row]:
        """One row per protocol, in the order of the table of protocols."""
        found = []
        for name in PROTOCOLS:
            mine = [one for one in self.outcomes if one.protocol == name and one.kind != REFUSED]
            if not mine:
                continue
            counts = Counter(one.kind for one in mine if not one.explained)
            broken = len([one for one in mine if one.is_finding])
            bound = None if broken else rule_of_three(len(mine)).high
            found.append(
                Row(
                    name, len(mine), sum(one.faults_fired for one in mine), counts[SAFETY], counts[LIVENESS],
                    counts[LIMIT], counts[PATHS], counts[INTERNAL], sum(bool(one.explained) for one in mine), bound,
                )
            )  # fmt: skip
        return found


def campaign(
    names: Sequence[str],
    *,
    seed: int,
    budget_s: float,
    workers: int,
    out: Path,
    most: int | None = None,
    beyond: bool = False,
    both_paths: bool = False,
    tell: Callable[[float], None] | None = None,
) -> Campaign:
    """Run configurations 0, 1, 2, ... of a seed for each protocol, those left out that an earlier call has run.

    `most`: configurations per protocol. Outcomes are appended to `out`/campaign/<seed>.jsonl as they come, so that a
    kill costs what was running. Findings are shrunk at the end, and written beside as scenarios.
    """
    started = time.monotonic()
    variant = f"{seed}{'-beyond' if beyond else ''}{'-paths' if both_paths else ''}"
    folder = out / "campaign"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{variant}.jsonl"
    outcomes = _stored(log)
    done = {(one.protocol, one.number) for one in outcomes}
    numbered = ((name, number) for number in itertools.count() for name in names)
    jobs: Iterator[tuple[str, int]] = (job for job in numbered if job not in done)
    if most is not None:
        jobs = itertools.takewhile(lambda job: job[1] < most, jobs)
    if not COMPLETE.exists():
        attempt(names[0], seed, 0)  # compiles the engine here: no run's limit of wall time shall count that
    with log.open("a", encoding="utf-8") as stream:
        for outcome in _run(jobs, seed, workers, beyond, both_paths, started + budget_s):
            outcomes.append(outcome)
            stream.write(json.dumps(dataclasses.asdict(outcome)) + "\n")
            stream.flush()
            if tell is not None:
                tell(min((time.monotonic() - started) / budget_s, 1.0))
    wall_s = time.monotonic() - started
    found = Campaign(seed, beyond, tuple(outcomes), {}, wall_s)
    files = _write_findings(found, folder / variant) if not beyond else {}
    return dataclasses.replace(found, files=files)


def _stored(log: Path) -> list[Outcome]:
    """Outcomes of earlier calls; a line that a kill cut short is left out."""
    found = []
    if log.exists():
        for line in log.read_text(encoding="utf-8").splitlines():
            try:
                found.append(Outcome(**json.loads(line)))
            except (ValueError, TypeError):
                continue
    return found


def _run(
    jobs: Iterator[tuple[str, int]], seed: int, workers: int, beyond: bool, both_paths: bool, until: float
) -> Iterator[Outcome]:
    """Outcomes as they come. A worker that dies makes its configuration an internal error."""
    while True:
        suspects: list[tuple[str, int]] = []
        with _pool(workers) as pool:
            waiting: dict[concurrent.futures.Future[Outcome], tuple[str, int]] = {}
            try:
                while True:
                    while len(waiting) < _AHEAD * workers and time.monotonic() < until:
                        job = next(jobs, None)
                        if job is None:
                            break
                        future = pool.submit(attempt, job[0], seed, job[1], beyond=beyond, both_paths=both_paths)
                        waiting[future] = job
                    if not waiting:
                        return
                    finished, _ = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
                    for future in finished:
                        outcome = future.result()
                        del waiting[future]
                        yield outcome
            except BrokenProcessPool:
                suspects = list(waiting.values())
        for name, number in suspects:
            yield _alone(name, seed, number, beyond, both_paths)


def _alone(name: str, seed: int, number: int, beyond: bool, both_paths: bool) -> Outcome:
    """One of the configurations that ran when a worker died, in a process of its own."""
    with _pool(1) as pool:
        try:
            return pool.submit(attempt, name, seed, number, beyond=beyond, both_paths=both_paths).result()
        except BrokenProcessPool:
            return Outcome(name, number, INTERNAL, "died", "the process that ran it ended without a word")


def _pool(workers: int) -> concurrent.futures.ProcessPoolExecutor:
    return concurrent.futures.ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=end_with_parent,
        max_tasks_per_child=_CHILD_RUNS,
    )


def _write_findings(found: Campaign, folder: Path) -> dict[tuple[str, int], Path]:
    """The first findings of each sort, shrunk, as scenario files."""
    files: dict[tuple[str, int], Path] = {}
    seen: Counter[tuple[str, str, str]] = Counter()
    for one in found.findings:
        sort = (one.protocol, one.kind, one.what)
        seen[sort] += 1
        if one.what == "died" or seen[sort] > _FINDINGS_SHRUNK:
            continue
        data = draw(one.protocol, PROTOCOLS[one.protocol], found.seed, one.number).data
        files[one.protocol, one.number] = write(shrink(data, one.kind, one.what), folder, one)
    return files
