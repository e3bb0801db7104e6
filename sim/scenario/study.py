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
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from sim.kernel import chance
from sim.parameters import Count, Parameters, Problem, RuleError, text_context
from sim.scenario import load, messages, store
from sim.scenario.errors import ScenarioError
from sim.scenario.schema import SEED_MAX, Scenario
from sim.scenario.source import Origin, Path, Source, read_file

RUNS_MAX = 100_000
_REFUSALS_MAX = 50  # cases with problems that are looked at
_DESIGN = 1  # key of the draw that seeds a sampled design
_NUMBER = re.compile(r"\s*([-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)\s*(.*?)\s*")
_KINDS = ("grid", "cases", "zip", "latin-hypercube", "sobol")


class Range(Parameters):
    """An interval that a sampled design covers. Whole ends give whole numbers, texts keep their unit."""

    low: int | float | str = Field(alias="from", description='least value: 4, 0.5 or "5 ms"')
    high: int | float | str = Field(alias="to", description="greatest value, in the same unit")
    scale: Literal["linear", "log"] = Field(default="linear", description="even steps, or even ratios")

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        low, high = _number(self.low), _number(self.high)
        for key, found in (("from", low), ("to", high)):
            if found is None:
                raise RuleError([Problem((key,), "must be a number, with its unit if it has one; write 5 ms")])
        assert low is not None
        assert high is not None
        if low[1] != high[1]:
            raise RuleError([Problem(("to",), f"must have the unit of from, {low[1] or 'none'}; convert it")])
        if high[0] <= low[0]:
            raise RuleError([Problem(("to",), "must be greater than from; swap the two")])
        if self.scale == "log" and low[0] <= 0:
            raise RuleError([Problem(("from",), "must be greater than 0 on a log scale; raise it")])
        return self

    def at(self, share: float) -> int | float | str:
        """The value at a share in [0, 1) of the range, to six significant digits."""
        low, high = _number(self.low), _number(self.high)
        assert low is not None
        assert high is not None
        whole = all(isinstance(end, int) for end in (self.low, self.high)) or low[1] == "B"
        a, b = low[0], high[0] + (1 if whole else 0)
        x = a * math.exp(share * math.log(b / a)) if self.scale == "log" else a + share * (b - a)
        if whole:
            x = min(math.floor(x), int(high[0]))
            return f"{x} {low[1]}" if low[1] else x
        x = float(f"{x:.6g}")
        return f"{x:g} {low[1]}".strip() if isinstance(self.low, str) else x


def _number(end: int | float | str) -> tuple[float, str] | None:
    """The number and unit of the end of a range."""
    if not isinstance(end, str):
        return (float(end), "") if math.isfinite(end) else None
    match = _NUMBER.fullmatch(end)
    return (float(match[1]), match[2]) if match else None


class Sampled(Parameters):
    """A space-filling design over ranges (scipy.stats.qmc)."""

    samples: Count = Field(ge=1, le=RUNS_MAX, description="number of cases; for sobol a power of two")
    ranges: dict[str, Range] = Field(min_length=1, description="dotted key: {from: .., to: .., scale: linear}")


class Sweep(Parameters):
    """What varies. Exactly one of its keys is given."""

    grid: dict[str, tuple[Any, ...]] | None = Field(default=None, description="every combination of the lists")
    cases: tuple[dict[str, Any], ...] | None = Field(default=None, description="a list of {dotted key: value}")
    zip: dict[str, tuple[Any, ...]] | None = Field(default=None, description="the i-th values of all lists together")
    latin_hypercube: Sampled | None = Field(
        default=None, alias="latin-hypercube", description="each range cut into as many strata as there are samples"
    )
    sobol: Sampled | None = Field(default=None, description="a scrambled Sobol sequence")

    @model_validator(mode="after")
    def _rules(self) -> Sweep:
        values = (self.grid, self.cases, self.zip, self.latin_hypercube, self.sobol)
        given = [name for name, value in zip(_KINDS, values, strict=True) if value is not None]
        if len(given) != 1:
            message = f"exactly one of {', '.join(_KINDS)} says what varies; write one of them"
            raise RuleError([Problem(tuple(given[1:2]), message)])
        found: list[Problem] = []
        for name, columns in (("grid", self.grid), ("zip", self.zip)):
            found += [] if columns is None else _column_problems(name, columns)
        if self.cases is not None and not self.cases:
            found.append(Problem(("cases",), "has no case; add one, such as - {network.nodes: 7}"))
        if self.sobol is not None and self.sobol.samples & (self.sobol.samples - 1):
            near = 1 << (self.sobol.samples - 1).bit_length()
            message = f"a Sobol sequence is balanced at powers of two only; write {near // 2} or {near}"
            found.append(Problem(("sobol", "samples"), message))
        if found:
            raise RuleError(found)
        return self


def _column_problems(name: str, columns: dict[str, tuple[Any, ...]]) -> Iterator[Problem]:
    if not columns:
        yield Problem((name,), "varies nothing; add a line such as network.nodes: [4, 7]")
    for key, values in columns.items():
        if not values:
            yield Problem((name, key), "has no value; add one, such as [4, 7]")
    lengths = {len(values) for values in columns.values()}
    if name == "zip" and len(lengths) > 1:
        yield Problem((name,), f"lists have lengths {', '.join(map(str, sorted(lengths)))}; make them equal")


class StudyFile(Parameters):
    """A study as its file says it."""

    base: str = Field(description="scenario file, relative to this one")
    description: str = Field(default="", description="one sentence for reports")
    set: dict[str, Any] = Field(default={}, description="dotted key: value, for all cases")
    sweep: Sweep = Field(description="what varies between the cases")
    replications: Count = Field(default=1, ge=1, le=RUNS_MAX, description="runs of each case, with different seeds")
    seed: Count | None = Field(default=None, ge=0, le=SEED_MAX, description="default: the base scenario's")


@dataclasses.dataclass(frozen=True)
class Case:
    """One design of a study: its number, the values it was given, and the scenario of each replication."""

    number: int
    values: dict[str, Any]
    scenarios: tuple[Scenario, ...] = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Planned:
    """One run of a study and the key of its result."""

    case: Case
    replication: int
    key: str

    @property
    def scenario(self) -> Scenario:
        """What is to be run."""
        return self.case.scenarios[self.replication]


@dataclasses.dataclass(frozen=True)
class Study:
    """A study with all its runs laid out: replications outermost, so that a cut sweep covers all cases."""

    name: str
    base: str
    description: str
    swept: tuple[str, ...]
    cases: tuple[Case, ...]
    seeds: tuple[int, ...]
    runs: tuple[Planned, ...]


def load_study(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Study:
    """Read a study file, lay out its cases and validate each of them.

    `overrides`: texts "a.b=v" for all cases, applied after the file's `set`. Raises ScenarioError, whose message
    has a line "file:line:column: VALUE: rule; remedy" per problem.
    """
    file = FilePath(path)
    source = read_file(file)
    if "base" not in source.data and "network" in source.data:
        raise ScenarioError(f"{file}:1:1: {file.name}: is a scenario, not a study; use pilotzone run {file}")
    written = _parse(source)
    origin = source.origin(("base",))
    base_file = FilePath(os.path.normpath(file.parent / written.base))
    if not base_file.is_file():
        raise ScenarioError(f"{origin.where}: {origin.text}: no such scenario; give a path relative to {file.name}")
    base = _changed_base(base_file, source, overrides)
    seed = base.data.get("seed", 1) if written.seed is None else written.seed
    if not isinstance(seed, int):
        load.load_scenario(base_file, overrides)  # the loader says what is wrong with the seed
        seed = 1
    _count_problem(written, source)
    points = list(_points(written.sweep, source, seed))
    swept = tuple(dict.fromkeys(key for point in points for key in point))
    _refuse_keys(source, swept, overrides)
    seeds = tuple(replication_seed(seed, k) for k in range(written.replications))
    cases = _cases(base, base_file, file, points, seeds)
    runs = tuple(Planned(case, k, store.run_key(case.scenarios[k])) for k in range(len(seeds)) for case in cases)
    _refuse_twins(runs, source)
    return Study(file.stem, written.base, written.description, swept, cases, seeds, runs)


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


def _count_problem(written: StudyFile, source: Source) -> None:
    """Refuse a study with too many runs before it is laid out."""
    sweep = written.sweep
    columns = sweep.grid or {}
    sampled = sweep.latin_hypercube or sweep.sobol
    cases = (
        math.prod(len(values) for values in columns.values())
        if columns
        else sampled.samples
        if sampled
        else len(sweep.cases or next(iter((sweep.zip or {}).values())))
    )
    if cases * written.replications > RUNS_MAX:
        where = source.origin(("sweep",)).key_where
        text = f"{cases} cases x {written.replications} replications"
        raise ScenarioError(
            f"{where}: sweep: {text} are {cases * written.replications} runs, and {RUNS_MAX} is the limit; "
            "vary less, or use latin-hypercube"
        )


def _changed_base(base_file: FilePath, source: Source, overrides: Sequence[str]) -> Source:
    """The base scenario's data with what holds for all cases."""
    base = load._read(base_file, ())
    common = {key: _part(source, ("set", key)) for key in source.data.get("set") or {}}
    _lay(base, common)
    for label, keys, value in sorted(load._parse_overrides(overrides), key=lambda o: not load._chooses(o[1])):
        load._override(base, keys, value, label)
    return base


def _part(source: Source, path: Path) -> Source:
    """One value of a file with its origins."""
    data: Any = source.data
    for part in path:
        data = data[part]
    depth = len(path)
    return Source(data, {p[depth:]: o for p, o in source.origins.items() if p[:depth] == path})


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
    for part in path:
        yield part, data
        data = data[part if isinstance(data, list) else str(part)]


def _points(sweep: Sweep, source: Source, seed: int) -> Iterator[dict[str, Source]]:
    """The values of each case, with their origins."""
    if sweep.cases is not None:
        for i, case in enumerate(sweep.cases):
            yield {key: _part(source, ("sweep", "cases", i, key)) for key in case}
    elif sweep.grid is not None or sweep.zip is not None:
        kind, columns = ("grid", sweep.grid) if sweep.grid is not None else ("zip", sweep.zip or {})
        parts: list[list[Source]] = []
        for key, values in columns.items():
            key_where = source.origin(("sweep", kind, key)).key_where
            column = [_part(source, ("sweep", kind, key, i)) for i in range(len(values))]
            for value in column:
                value.origins[()] = dataclasses.replace(value.origins[()], key_where=key_where)
            parts.append(column)
        rows = itertools.product(*parts) if kind == "grid" else zip(*parts, strict=True)
        for row in rows:
            yield dict(zip(columns, row, strict=True))
    else:
        kind = "sobol" if sweep.sobol is not None else "latin-hypercube"
        sampled = sweep.sobol or sweep.latin_hypercube
        assert sampled is not None
        for shares in _design(kind, sampled, seed):
            point = {}
            for (key, span), share in zip(sampled.ranges.items(), shares, strict=True):
                at = source.origin(("sweep", kind, "ranges", key))
                drawn = span.at(share)
                point[key] = Source(drawn, {(): Origin(at.where, at.key_where, str(drawn))})
            yield point


def _design(kind: str, sampled: Sampled, seed: int) -> list[list[float]]:
    """Points of a space-filling design in the unit cube, shape (samples, ranges); a function of the seed."""
    import numpy as np
    from scipy.stats import qmc  # a second to import: only where needed

    rng = np.random.default_rng(chance.draw(seed, chance.REPLICATION, _DESIGN))
    dimensions = len(sampled.ranges)
    engine = qmc.Sobol(dimensions, seed=rng) if kind == "sobol" else qmc.LatinHypercube(dimensions, seed=rng)
    shares: list[list[float]] = engine.random(sampled.samples).tolist()
    return shares


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
    base: Source, base_file: FilePath, file: FilePath, points: list[dict[str, Source]], seeds: tuple[int, ...]
) -> tuple[Case, ...]:
    found: list[str] = []
    refused = 0
    cases = []
    for number, point in enumerate(points):
        target = Source(copy.deepcopy(base.data), dict(base.origins))
        values = {key: value.data for key, value in point.items()}
        try:
            _lay(target, point)
            scenarios = _scenarios(target, base_file, seeds)
        except ScenarioError as error:
            refused += 1
            found += [_in_case(line, file, number, values) for line in error.problems]
            if refused >= _REFUSALS_MAX:
                break
            continue
        cases.append(Case(number, values, scenarios))
    if found:
        raise ScenarioError(*dict.fromkeys(found))
    return tuple(cases)


def _scenarios(target: Source, base_file: FilePath, seeds: tuple[int, ...]) -> tuple[Scenario, ...]:
    """A case's scenario for each seed. Seeds change nothing else, except where links are drawn at random."""
    made: list[Scenario] = []
    for seed in seeds:
        if made and made[0].network.topology.is_mesh:
            made.append(made[0].model_copy(update={"seed": seed}))
            continue
        target.data["seed"] = seed
        made.append(load._validate(target, base_file, None))
    return tuple(made)


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
    return {
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
            {"case": run.case.number, "replication": run.replication, "seed": study.seeds[run.replication],
             "key": run.key}
            for run in study.runs
        ],
    }  # fmt: skip
