"""What varies between the cases of a study: listed values, or points that cover ranges.

Grids, lists and zips say the values themselves. The other kinds draw points in the unit cube, one coordinate per
range, as a function of the study's seed: Latin hypercube and Sobol (scipy.stats.qmc) to cover the ranges evenly,
Saltelli and Morris (SALib) for `pilotzone sensitivity`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, model_validator

from sim.kernel import chance
from sim.parameters import Count, Parameters, Problem, RuleError
from sim.scenario.errors import ScenarioError
from sim.scenario.source import Origin, Path, Source

RUNS_MAX = 100_000
_DESIGN = 1  # key of the draw that seeds a sampled design
_NUMBER = re.compile(r"\s*([-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)\s*(.*?)\s*")
_KINDS = ("grid", "cases", "zip", "latin-hypercube", "sobol", "saltelli", "morris")


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


class Trajectories(Parameters):
    """A Morris design: paths through a grid over the ranges, one step of one key at a time (SALib)."""

    samples: Count = Field(ge=2, le=RUNS_MAX, description="number of trajectories, 10 to 50 are usual")
    levels: Count = Field(default=4, ge=2, le=64, description="grid lines per range, an even number")
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
    saltelli: Sampled | None = Field(
        default=None, description="for Sobol indices: samples x (ranges + 2) cases, samples a power of two"
    )
    morris: Trajectories | None = Field(default=None, description="for Morris screening: samples x (ranges + 1) cases")

    @model_validator(mode="after")
    def _rules(self) -> Sweep:
        values = (self.grid, self.cases, self.zip, self.latin_hypercube, self.sobol, self.saltelli, self.morris)
        given = [name for name, value in zip(_KINDS, values, strict=True) if value is not None]
        if len(given) != 1:
            message = f"exactly one of {', '.join(_KINDS)} says what varies; write one of them"
            raise RuleError([Problem(tuple(given[1:2]), message)])
        found: list[Problem] = []
        for name, columns in (("grid", self.grid), ("zip", self.zip)):
            found += [] if columns is None else _column_problems(name, columns)
        if self.cases is not None and not self.cases:
            found.append(Problem(("cases",), "has no case; add one, such as - {network.nodes: 7}"))
        for name, sampled in (("sobol", self.sobol), ("saltelli", self.saltelli)):
            if sampled is not None and sampled.samples & (sampled.samples - 1):
                near = 1 << (sampled.samples - 1).bit_length()
                message = f"a Sobol sequence is balanced at powers of two only; write {near // 2} or {near}"
                found.append(Problem((name, "samples"), message))
        if self.morris is not None and self.morris.levels % 2:
            message = f"steps reach every line of a grid with an even number only; write {self.morris.levels + 1}"
            found.append(Problem(("morris", "levels"), message))
        if found:
            raise RuleError(found)
        return self

    @property
    def sampled(self) -> tuple[str, Sampled | Trajectories] | None:
        """The kind and settings of a sampled design; None if the file lists the values."""
        kinds = (
            ("latin-hypercube", self.latin_hypercube), ("sobol", self.sobol), ("saltelli", self.saltelli),
            ("morris", self.morris),
        )  # fmt: skip
        return next(((kind, settings) for kind, settings in kinds if settings is not None), None)

    @property
    def count(self) -> int:
        """How many cases there will be."""
        if self.sampled is not None:
            kind, settings = self.sampled
            more = {"saltelli": 2, "morris": 1}.get(kind)
            return settings.samples * (1 if more is None else len(settings.ranges) + more)
        if self.grid is not None:
            return math.prod(len(values) for values in self.grid.values())
        return len(self.cases if self.cases is not None else next(iter((self.zip or {}).values())))


def _column_problems(name: str, columns: dict[str, tuple[Any, ...]]) -> Iterator[Problem]:
    if not columns:
        yield Problem((name,), "varies nothing; add a line such as network.nodes: [4, 7]")
    for key, values in columns.items():
        if not values:
            yield Problem((name, key), "has no value; add one, such as [4, 7]")
    lengths = {len(values) for values in columns.values()}
    if name == "zip" and len(lengths) > 1:
        yield Problem((name,), f"lists have lengths {', '.join(map(str, sorted(lengths)))}; make them equal")


def part(source: Source, path: Path) -> Source:
    """One value of a file with its origins."""
    data: Any = source.data
    for key in path:
        data = data[key]
    depth = len(path)
    return Source(data, {p[depth:]: o for p, o in source.origins.items() if p[:depth] == path})


def points(sweep: Sweep, source: Source, seed: int) -> Iterator[dict[str, Source]]:
    """The values of each case, with their origins."""
    if sweep.cases is not None:
        for i, case in enumerate(sweep.cases):
            yield {key: part(source, ("sweep", "cases", i, key)) for key in case}
    elif sweep.grid is not None or sweep.zip is not None:
        kind, columns = ("grid", sweep.grid) if sweep.grid is not None else ("zip", sweep.zip or {})
        parts: list[list[Source]] = []
        for key, values in columns.items():
            key_where = source.origin(("sweep", kind, key)).key_where
            column = [part(source, ("sweep", kind, key, i)) for i in range(len(values))]
            for value in column:
                value.origins[()] = dataclasses.replace(value.origins[()], key_where=key_where)
            parts.append(column)
        rows = itertools.product(*parts) if kind == "grid" else zip(*parts, strict=True)
        for row in rows:
            yield dict(zip(columns, row, strict=True))
    elif sweep.sampled is not None:
        kind, settings = sweep.sampled
        for shares in unit_cube(kind, settings, seed):
            point = {}
            for (key, span), share in zip(settings.ranges.items(), shares, strict=True):
                at = source.origin(("sweep", kind, "ranges", key))
                drawn = span.at(share)
                point[key] = Source(drawn, {(): Origin(at.where, at.key_where, str(drawn))})
            yield point


def unit_cube(kind: str, settings: Sampled | Trajectories, seed: int) -> list[list[float]]:
    """The points of a sampled design, shape (cases, ranges), in [0, 1]; a function of the seed."""
    import numpy as np
    from scipy.stats import qmc  # a second to import: only where needed

    dimensions = len(settings.ranges)
    shares: list[list[float]]
    if isinstance(settings, Trajectories) or kind == "saltelli":
        problem = {"num_vars": dimensions, "names": list(settings.ranges), "bounds": [[0.0, 1.0]] * dimensions}
        small = chance.draw(seed, chance.REPLICATION, _DESIGN) % (1 << 32)
        try:
            from SALib.sample import morris, sobol
        except ImportError:
            rule = f"a {kind} design needs SALib, which is not installed; run pip install 'pilotzone[search]'"
            raise ScenarioError(f"sweep: {kind}: {rule}") from None
        if isinstance(settings, Trajectories):
            drawn = morris.sample(problem, settings.samples, num_levels=settings.levels, seed=small)
        else:
            drawn = sobol.sample(problem, settings.samples, calc_second_order=False, seed=small)
        shares = drawn.tolist()
        return shares
    rng = np.random.default_rng(chance.draw(seed, chance.REPLICATION, _DESIGN))
    engine = qmc.Sobol(dimensions, seed=rng) if kind == "sobol" else qmc.LatinHypercube(dimensions, seed=rng)
    shares = engine.random(settings.samples).tolist()
    return shares
