"""What reports know of a run: its numbers and tidy tables, from memory or from a stored result."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.manifests import damage
from sim.manifests import read as read_manifest
from sim.scenario import store
from sim.scenario.schema import resolved, scenario_hash

if TYPE_CHECKING:
    from sim.scenario.run import Result

Table = dict[str, NDArray[Any]]
TABLES = ("timeline", "latency_client", "classes", "faults")  # the ones that reports read
EXIT_CODES = {
    "ok": 0,
    "conservation violation": 1,
    "safety violation": 3,
    "liveness failure": 4,
    "truncated": 5,
}
_MILD_TO_SEVERE = (0, 5, 4, 3, 2, 1)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A finished run under its name in tables and figures. `scenario` is resolved, in plain data."""

    label: str
    status: str
    metrics: dict[str, float | int | None]
    seed: int
    version: str
    scenario_hash: str
    digest: str
    scenario: dict[str, Any]
    tables: dict[str, Table]
    warnings: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """What `pilotzone run` exits with after such a run."""
        return EXIT_CODES.get(self.status, 1)

    @property
    def outages_s(self) -> list[tuple[float, float]]:
        """When faults held, (from, to), s; one that never healed lasts to the end of the run."""
        faults = self.tables["faults"]
        end = float(self.metrics["simulated_s"] or 0)
        spans = zip(_seconds(faults["began_s"]), _seconds(faults["ended_s"]), strict=True)
        return [(a, end if np.isnan(b) else b) for a, b in spans if not np.isnan(a)]


def of_result(result: Result, label: str | None = None) -> Outcome:
    """A run that has just ended."""
    tables = {name: {key: np.asarray(values) for key, values in result.tables[name].items()} for name in TABLES}
    return Outcome(
        label=label or result.scenario.name,
        status=result.status,
        metrics={name: value for name, value in result.metrics.items() if not name.endswith("wall_s")},
        seed=result.scenario.seed,
        version=store.version(),
        scenario_hash=scenario_hash(result.scenario),
        digest=result.digest,
        scenario=resolved(result.scenario),
        tables=tables,
        warnings=result.warnings,
    )


def read(folder: Path, label: str | None = None) -> Outcome:
    """A stored run. Raises OSError or ValueError if the folder holds no complete result."""
    import pyarrow.parquet as pq

    problem = damage(folder)
    if problem is not None:
        raise ValueError(f"{folder}: {problem}; delete the folder and run again")
    manifest = read_manifest(folder)
    tables = {}
    for name in TABLES:
        file = folder / f"{name}.parquet"
        table = pq.read_table(file)
        tables[name] = {key: table.column(key).to_numpy(zero_copy_only=False) for key in table.column_names}
    return Outcome(
        label=label or manifest["scenario"]["name"],
        status=manifest["status"],
        metrics=manifest["metrics"],
        seed=manifest["seed"],
        version=manifest["version"],
        scenario_hash=manifest["scenario_hash"],
        digest=manifest["digest"],
        scenario=manifest["scenario"],
        tables=tables,
        warnings=tuple(manifest["warnings"]),
    )


def worst_exit_code(outcomes: list[Outcome]) -> int:
    """The exit code of several runs: internal error before safety, liveness, limit, ok."""
    return max((outcome.exit_code for outcome in outcomes), key=_MILD_TO_SEVERE.index, default=0)


def _seconds(values: NDArray[Any]) -> list[float]:
    return [float("nan") if value is None else float(value) for value in values]
