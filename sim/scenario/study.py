"""Studies: one base scenario, what varies between its cases, and how often each case is repeated.

A study file is YAML and is read by the loader of scenarios, so every refused value is reported with its place:

    base: ../pilot-zone/island-7-pbft.yaml
    set: {duration: 60 s}
    sweep:
      grid: {protocol.name: [pbft, raft], network.bandwidth: [10 Mbit/s, 100 Mbit/s]}
    replications: 10

Replication k has the same seed in every case (common random numbers): differences between cases are then
differences of designs. The seeds are draws keyed by the study's seed and k, so more replications extend a study.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path as FilePath
from typing import Any

from pydantic import Field, ValidationError, model_validator

from sim.files import is_plain_name
from sim.kernel import chance
from sim.parameters import Count, Parameters, Problem, RuleError, text_context
from sim.scenario import load, messages, store
from sim.scenario.designs import RUNS_MAX, Sampled, Sweep, Trajectories, part, points
from sim.scenario.errors import ScenarioError
from sim.scenario.schema import SEED_MAX, Scenario
from sim.scenario.source import Path, Source, read_file
from sim.scenario.until import EXAMPLE, LEAST, MOST, Until, parse

_REFUSALS_MAX = 50  # cases with problems that are looked at
_REPEATING = ("saltelli", "morris")  # their points may fall together where a range has few values


class Replications(Parameters):
    """Replications until a target is met."""

    until: str | None = Field(default=None, description=f"the target, such as {EXAMPLE}")
    least: Count = Field(default=LEAST, ge=3, le=RUNS_MAX, description="replications of the first stage")
    most: Count = Field(default=MOST, ge=3, le=RUNS_MAX, description="replications at which a case is given up")


class StudyFile(Parameters):
    """A study as its file says it."""

    base: str = Field(description="scenario file, relative to this one")
    description: str = Field(default="", description="one sentence for reports")
    set: dict[str, Any] = Field(default={}, description="dotted key: value, for all cases")
    sweep: Sweep = Field(description="what varies between the cases")
    replications: Count | Replications = Field(
        default=1, description="runs of each case, with different seeds; or {least: 10, most: 200} beside until"
    )
    until: str | None = Field(default=None, description=f"replications until a target is met: {EXAMPLE}")
    seed: Count | None = Field(default=None, ge=0, le=SEED_MAX, description="default: the base scenario's")

    @model_validator(mode="after")
    def _replications(self) -> StudyFile:
        count = self.replications
        if isinstance(count, int):
            if not 1 <= count <= RUNS_MAX:
                rule = "must be at least 1; raise it" if count < 1 else f"must be at most {RUNS_MAX}; lower it"
                raise RuleError([Problem(("replications",), rule)])
            if self.until is not None and "replications" in self.model_fields_set:
                rule = "is fixed, but until asks for as many as it takes; write {least: 10, most: 200}, or remove one"
                raise RuleError([Problem(("replications",), rule)])
        elif (count.until is None) == (self.until is None):
            rule = f"needs a target, once; write until: {EXAMPLE}"
            raise RuleError([Problem(("replications",), rule)])
        if self.target is not None:
            bounds = count if isinstance(count, Replications) else Replications()
            path = ("until",) if self.until is not None else ("replications", "until")
            try:
                parse(self.target, bounds.least, bounds.most)
            except ValueError as error:
                raise RuleError([Problem(path, str(error))]) from None
        return self

    @property
    def target(self) -> str | None:
        """The text of the target, wherever it is written; None if the replications are fixed."""
        inner = None if isinstance(self.replications, int) else self.replications.until
        return inner if self.until is None else self.until

    @property
    def goal(self) -> Until | None:
        """The target."""
        if self.target is None:
            return None
        bounds = Replications() if isinstance(self.replications, int) else self.replications
        return parse(self.target, bounds.least, bounds.most)


@dataclasses.dataclass(frozen=True)
class Case:
    """One design of a study: its number, the values it was given, and its scenario for a seed."""

    number: int
    values: dict[str, Any]
    scenario: Callable[[int], Scenario] = dataclasses.field(repr=False, compare=False)


@dataclasses.dataclass(frozen=True)
class Planned:
    """One run of a study and the key of its result."""

    case: Case
    replication: int
    seed: int
    scenario: Scenario = dataclasses.field(repr=False)
    key: str


@dataclasses.dataclass(frozen=True)
class Study:
    """A study with its runs laid out: replications outermost, so that a cut sweep covers all cases.

    With `until`, these are the runs of the stages so far (`sim.scenario.results.replay` finds the next). `sampled`:
    kind and settings of a sampled design. `twins`: several cases may be the same scenario and share its runs.
    """

    name: str
    base: str
    description: str
    swept: tuple[str, ...]
    cases: tuple[Case, ...]
    seed_of: Callable[[int], int] = dataclasses.field(repr=False, compare=False)
    counts: tuple[int, ...]  # replications of each case
    runs: tuple[Planned, ...]
    until: Until | None = None
    sampled: tuple[str, Sampled | Trajectories] | None = None
    seed: int = 0

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each replication."""
        return tuple(self.seed_of(k) for k in range(max(self.counts, default=0)))


def lay_out(study: Study, counts: Sequence[int]) -> Study:
    """The study with so many replications of each case; runs that it has already are kept."""
    known = {(run.case.number, run.replication): run for run in study.runs}
    runs = []
    for k in range(max(counts, default=0)):
        seed = study.seed_of(k)
        for case, count in zip(study.cases, counts, strict=True):
            if k < count:
                run = known.get((case.number, k))
                if run is None:
                    scenario = case.scenario(seed)
                    run = Planned(case, k, seed, scenario, store.run_key(scenario))
                runs.append(run)
    return dataclasses.replace(study, counts=tuple(counts), runs=tuple(runs))


def load_study(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Study:
    """Read a study file, lay out its cases and validate each of them.

    `overrides`: texts "a.b=v" for all cases, applied after the file's `set`. Raises ScenarioError, whose message
    has a line "file:line:column: VALUE: rule; remedy" per problem.
    """
    file = FilePath(path)
    source = read_file(file)
    if "base" not in source.data and "network" in source.data:
        raise ScenarioError(f"{file}:1:1: {file.name}: is a scenario, not a study; use pilotzone run {file}")
    if not is_plain_name(file.stem):
        rule = "a study is called like its file, which names a folder of results and stands in tables"
        raise ScenarioError(f"{file}:1:1: {file.name}: {rule}; rename it to letters, digits and dashes")
    written = _parse(source)
    origin = source.origin(("base",))
    base_file = FilePath(os.path.normpath(file.parent / written.base))
    if not os.path.isfile(base_file):
        raise ScenarioError(f"{origin.where}: {origin.text}: no such scenario; give a path relative to {file.name}")
    base = _changed_base(base_file, source, overrides)
    seed = base.data.get("seed", 1) if written.seed is None else written.seed
    if not isinstance(seed, int):
        load.load_scenario(base_file, overrides)  # the loader says what is wrong with the seed
        seed = 1
    goal = written.goal
    _refuse_many(written, source)
    placed = list(points(written.sweep, source, seed))
    swept = tuple(dict.fromkeys(key for point in placed for key in point))
    _refuse_keys(source, swept, overrides)
    cases = _cases(base, base_file, file, placed, replication_seed(seed, 0))
    least = written.replications if isinstance(written.replications, int) else written.replications.least
    if goal is not None:
        least = goal.least
    empty = Study(
        file.stem, written.base, written.description, swept, cases, lambda k: replication_seed(seed, k), (), (),
        goal, written.sweep.sampled, seed,
    )  # fmt: skip
    study = lay_out(empty, [least] * len(cases))
    if study.sampled is None or study.sampled[0] not in _REPEATING:
        _refuse_twins(study.runs, source)
    return study


def replication_seed(seed: int, replication: int) -> int:
    """The seed of a replication, the same in every case."""
    return chance.draw(seed, chance.REPLICATION, 0, replication) & SEED_MAX


def _parse(source: Source) -> StudyFile:
    try:
        return StudyFile.model_validate(source.data, context=text_context(), by_alias=True, by_name=False)
    except ValidationError as error:
        lines = messages.lines(error, source, StudyFile)
        wording = ((" in a scenario;", " in a study;"), (": scenario: the key", ": study: the key"))
        raise ScenarioError(*(_reworded(line, wording) for line in lines)) from None


def _reworded(line: str, wording: Sequence[tuple[str, str]]) -> str:
    for old, new in wording:
        line = line.replace(old, new)
    return line


def _refuse_many(written: StudyFile, source: Source) -> None:
    """Refuse a study with too many runs before it is laid out."""
    cases = written.sweep.count
    each = written.replications if isinstance(written.replications, int) else written.replications.most
    if written.goal is not None:
        each = written.goal.most
    if cases * each > RUNS_MAX:
        where = source.origin(("sweep",)).key_where
        text = f"{cases} cases x {each} replications"
        raise ScenarioError(
            f"{where}: sweep: {text} are {cases * each} runs, and {RUNS_MAX} is the limit; "
            "vary less, or use latin-hypercube"
        )


def _changed_base(base_file: FilePath, source: Source, overrides: Sequence[str]) -> Source:
    """The base scenario's data with what holds for all cases."""
    base = load._read(base_file, ())
    common = {key: part(source, ("set", key)) for key in source.data.get("set") or {}}
    _lay(base, common)
    for label, keys, value in sorted(load._parse_overrides(overrides), key=lambda o: not load._chooses(o[1])):
        load._override(base, keys, value, label)
    return base


def _keys(key: str, where: str) -> Path:
    parts = key.split(".")
    if not all(load._KEY.fullmatch(part) for part in parts):
        raise ScenarioError(f"{where}: {key}: is not a dotted key; write for example network.nodes")
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def _lay(target: Source, point: dict[str, Source]) -> None:
    """Set values by dotted keys; each keeps the place where the study says it."""
    ordered = [(_keys(key, value.origin(()).key_where), value) for key, value in point.items()]
    for path, value in sorted(ordered, key=lambda item: not load._chooses(item[0])):
        whole = value.origin(())
        fresh = Source(copy.deepcopy(value.data), value.origins)
        load._override(target, path, fresh, whole.key_where)
        path = tuple(part if isinstance(inside, list) else str(part) for part, inside in _along(target.data, path))
        for inner, origin in value.origins.items():
            if (*path, *inner) in target.origins:
                target.origins[(*path, *inner)] = origin


def _along(data: Any, path: Path) -> Iterator[tuple[str | int, Any]]:
    """Each part of a path with the container that it is looked up in."""
    for key in path:
        yield key, data
        data = data[key if isinstance(data, list) else str(key)]


def _refuse_keys(source: Source, swept: tuple[str, ...], overrides: Sequence[str]) -> None:
    """Refuse swept keys that contradict replications, each other, or an override."""
    where = source.origin(("sweep",)).key_where
    for key in swept:
        if key == "seed":
            raise ScenarioError(f"{where}: seed: replications draw the seeds; remove it and write replications: 10")
        if key == "name":
            raise ScenarioError(f"{where}: name: names a scenario and changes nothing; remove it")
    for one, other in itertools.permutations(swept, 2):
        if other.startswith(f"{one}."):
            raise ScenarioError(f"{where}: {other}: lies within {one}, which varies too; vary one of them")
    for text in overrides:
        name = text.partition("=")[0].strip()
        if name in swept:
            raise ScenarioError(f"--set {text}: {name}: the study varies this key; change the study's sweep")
    if "seed" in (source.data.get("set") or {}):
        at = source.origin(("set", "seed"))
        raise ScenarioError(f"{at.key_where}: seed: replications draw the seeds; write seed: beside base:")


def _cases(
    base: Source, base_file: FilePath, file: FilePath, placed: list[dict[str, Source]], seed: int
) -> tuple[Case, ...]:
    """All cases, each validated with one seed."""
    found: list[str] = []
    refused = 0
    cases = []
    for number, point in enumerate(placed):
        target = Source(copy.deepcopy(base.data), dict(base.origins))
        values = {key: value.data for key, value in point.items()}
        try:
            _lay(target, point)
            first = _with_seed(target, base_file, seed)
        except ScenarioError as error:
            refused += 1
            found += [_in_case(line, file, number, values) for line in error.problems]
            if refused >= _REFUSALS_MAX:
                break
            continue
        cases.append(Case(number, values, _maker(first, target, base_file)))
    if found:
        raise ScenarioError(*dict.fromkeys(found))
    return tuple(cases)


def _maker(first: Scenario, target: Source, base_file: FilePath) -> Callable[[int], Scenario]:
    """A case's scenario for each seed. Seeds change nothing else, except where links are drawn at random."""
    if first.network.topology.is_mesh:
        return lambda seed: first.model_copy(update={"seed": seed})
    return lambda seed: _with_seed(target, base_file, seed)


def _with_seed(target: Source, base_file: FilePath, seed: int) -> Scenario:
    target.data["seed"] = seed
    return load._validate(target, base_file, None)


def _in_case(line: str, file: FilePath, number: int, values: dict[str, Any]) -> str:
    """The problem of a case; where its place is not in the study file, the case is named too."""
    if line.startswith(f"{file}:"):
        return line
    return f"{line} (in case {number}: {label(values)})"


def _refuse_twins(runs: tuple[Planned, ...], source: Source) -> None:
    """Refuse two cases that are one scenario: its runs would count twice."""
    first: dict[str, Planned] = {}
    for run in runs:
        twin = first.setdefault(run.key, run)
        if twin is not run:
            where = source.origin(("sweep",)).key_where
            raise ScenarioError(
                f"{where}: sweep: cases {twin.case.number} and {run.case.number} ({label(run.case.values)}) are "
                "the same scenario, and its runs would count twice; remove one, or take fewer samples"
            )


def label(values: dict[str, Any]) -> str:
    """A case's values on one line."""
    return ", ".join(f"{key}={plain(value)}" for key, value in values.items()) or "as the base"


def plain(value: Any) -> Any:
    """A swept value as a table cell: scalars as they are, lists and mappings as JSON text."""
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return value


def as_data(study: Study) -> dict[str, Any]:
    """What study.json holds: the same bytes for the same study and model code, without times or machine names."""
    data = {
        "study_schema": 1,
        "name": study.name,
        "base": study.base,
        "description": study.description,
        "version": store.version(),
        "model_digest": store.model_digest(),
        "swept": list(study.swept),
        "cases": [{"case": case.number, "values": case.values} for case in study.cases],
        "seeds": list(study.seeds),
        "runs": [
            {"case": run.case.number, "replication": run.replication, "seed": run.seed, "key": run.key}
            for run in study.runs
        ],
    }
    if study.until is not None:
        data["until"] = {"target": study.until.text(), "least": study.until.least, "most": study.until.most}
    return data
