"""Results of a study as a tidy table: one row per run, with what varied, the status and all metrics.

Only what is intact is believed: every manifest and every file of a run is held against its digest each time.
`index.parquet`, written at the end of a sweep, repeats the rows for other programs, and is never read here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim import manifests
from sim.files import read_json
from sim.scenario import store
from sim.scenario.errors import ScenarioError
from sim.scenario.study import Case, Study, as_data, label, lay_out, load_study, plain
from sim.scenario.until import Standing, Value, stand

if TYPE_CHECKING:
    import pandas as pd

STUDY = "study.json"
INDEX = "index.parquet"
FAILED = "failed"
STUDY_SCHEMA = 1
_FRONT = ("case", "replication", "seed", "status", "truncated", "key")
_SWEPT = b"pilotzone.swept"  # metadata of the index: which columns are keys of the scenario
_STUDY_BYTES_MAX = 256_000_000

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Runs:
    """The runs that a study folder is meant to hold; `planned` is False if only the folder itself tells."""

    folder: Path
    swept: tuple[str, ...]
    runs: tuple[Row, ...]  # case, values, replication, seed, key
    planned: bool

    @property
    def keys(self) -> list[str]:
        """Keys of the runs, in their order."""
        return [run["key"] for run in self.runs]


def write_json(file: Path, data: Any) -> None:
    """Write JSON in one step: the file has its old or its new content, whatever happens."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8") as stream:
            stream.write(json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def open_runs(path: str | os.PathLike[str], *, out: Path = Path("results"), overrides: Sequence[str] = ()) -> Runs:
    """The runs of a study, named by its folder or by its study file. Raises ScenarioError."""
    place = Path(path)
    if place.suffix in (".yaml", ".yml"):
        study = load_study(place, overrides)
        study, _ = replay(study, out / study.name)
        return _planned(out / study.name, as_data(study))
    if place.name == "runs" and not (place / "runs").is_dir():
        place = place.parent
    if not place.is_dir():
        rule = "is no folder" if place.exists() else "no such folder"
        raise ScenarioError(f"{path}: {rule}; name the folder of a study, such as results/my-study")
    try:
        return _planned(place, read_json(place / STUDY, _STUDY_BYTES_MAX))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise ScenarioError(f"{place / STUDY}: cannot be read; write it again with pilotzone sweep") from None
    if not (place / "runs").is_dir():
        inner = sorted(child.name for child in place.iterdir() if (child / "runs").is_dir())
        remedy = f"it has studies: {', '.join(inner[:12])}" if inner else "run pilotzone sweep first"
        raise ScenarioError(f"{place}: holds no runs of a study; {remedy}")
    names = sorted(name for name in os.listdir(place / "runs") if not name.startswith("."))
    return Runs(place, (), tuple({"case": None, "values": {}, "replication": None, "key": n} for n in names), False)


def replay(study: Study, folder: Path) -> tuple[Study, tuple[Standing, ...]]:
    """The study with the runs of all stages that its stored results lead to, and where each case stands.

    A function of the stored values alone. Without a target the study stays as it is, and there are no standings.
    """
    until = study.until
    if until is None:
        return study, ()
    keys = {(run.case.number, run.replication): run.key for run in study.runs}

    def value_of(case: Case, replication: int) -> Value:
        key = keys.get((case.number, replication)) or store.run_key(case.scenario(study.seed_of(replication)))
        row = _stored(folder / "runs" / key)
        if row is None or row["status"] == "damaged":
            return None
        if row["status"] != "ok":
            return f"ended with status {row['status']}"
        value = row.get(until.metric)
        return f"has no {until.metric}" if value is None else float(value)

    found = tuple(stand(until, functools.partial(value_of, case)) for case in study.cases)
    return lay_out(study, [one.replications for one in found]), found


def refuse_other_schema(folder: Path) -> None:
    """Raise ScenarioError if a folder's study.json was written for another schema; nothing else is looked at."""
    try:
        schema = read_json(folder / STUDY, _STUDY_BYTES_MAX)["study_schema"]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return
    if schema != STUDY_SCHEMA:
        raise ScenarioError(
            f"{folder / STUDY}: has study schema {schema}, and this version reads {STUDY_SCHEMA}; "
            "use the version that wrote it, or sweep into another folder"
        )


def _planned(folder: Path, data: Any) -> Runs:
    refuse_other_schema(folder)
    if not _has_shape(data):
        raise ValueError("is not the plan of a study")
    values = {case["case"]: case["values"] for case in data["cases"]}
    runs = tuple({**run, "values": values[run["case"]]} for run in data["runs"])
    return Runs(folder, tuple(data["swept"]), runs, True)


def _has_shape(data: Any) -> bool:
    """Whether a plan has cases with values, runs that name them, and the keys that vary."""
    return (
        isinstance(data, dict)
        and isinstance(data["swept"], list)
        and all(isinstance(name, str) for name in data["swept"])
        and all(type(case["case"]) is int and isinstance(case["values"], dict) for case in data["cases"])
        and all(
            type(run["case"]) is int
            and type(run["replication"]) is int
            and type(run.get("seed", 0)) is int
            and re.fullmatch(r"[0-9a-f]{8,64}", run["key"]) is not None
            for run in data["runs"]
        )
    )


def rows(runs: Runs) -> list[Row]:
    """One row per run: metrics of complete ones, and status missing, failed or damaged for the others."""
    made = []
    for run in runs.runs:
        key = run["key"]
        stored = _stored(runs.folder / "runs" / key)
        if stored is None:
            failed = (runs.folder / FAILED / f"{key}.json").exists()
            stored = {"status": "failed" if failed else "missing"}
        swept = {name: plain(run["values"].get(name)) for name in runs.swept}
        head = {"case": run["case"], "replication": run["replication"], "seed": run.get("seed"), "key": key}
        made.append(head | {name: value for name, value in stored.items() if name != "seed" or head["seed"] is None}
                    | {"truncated": stored["status"] == "truncated"} | {"values": swept})  # fmt: skip
    return made


def _stored(folder: Path) -> Row | None:
    """A stored run's row; None if there is no result. What is not intact is damaged, and says nothing else."""
    if not os.path.lexists(folder):
        return None
    schema = manifests.schema_of(folder)
    if schema is not None and schema != manifests.SCHEMA:
        raise ScenarioError(
            f"{folder / manifests.MANIFEST}: has result schema {schema}, and this version reads {manifests.SCHEMA}; "
            "use the version that wrote it, or another --out"
        )
    if manifests.damage(folder) is not None:
        return {"status": "damaged"}
    try:
        manifest = manifests.read(folder)
    except manifests.DamagedError:  # meanwhile
        return {"status": "damaged"}
    return {
        "status": manifest["status"],
        "seed": manifest["seed"],
        "digest": manifest["digest"],
        "version": manifest["version"],
        **manifest["metrics"],
    }


def write_index(runs: Runs) -> None:
    """Write all complete runs as one table, for other programs. Failing to is no error: it only repeats manifests."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    complete = [row for row in rows(runs) if "digest" in row]
    names = dict.fromkeys(name for row in complete for name in row if name not in ("case", "replication", "values"))
    columns = {name: pa.array([row[name] for row in complete], pa.int64()) for name in ("case", "replication")}
    columns |= {name: _swept_column([row["values"][name] for row in complete]) for name in runs.swept}
    temporary = runs.folder / f".{INDEX}.{os.getpid()}"
    with contextlib.suppress(OSError, pa.ArrowException):
        table = pa.table(columns | {name: [row.get(name) for row in complete] for name in names})
        pq.write_table(table.replace_schema_metadata({_SWEPT: json.dumps(runs.swept)}), temporary)
        temporary.replace(runs.folder / INDEX)
    temporary.unlink(missing_ok=True)


def _swept_column(values: list[Any]) -> Any:
    """Values of a key that varies, as an Arrow column: as text where their kinds differ."""
    import pyarrow as pa

    try:
        return pa.array(values)
    except pa.ArrowException:
        return pa.array([None if value is None else str(value) for value in values])


def frame_of(runs: Runs, *, truncated: bool = False) -> pd.DataFrame:
    """A tidy frame, one row per run. Metrics of truncated runs are NaN unless `truncated` asks for them."""
    import pandas as pd

    found = rows(runs)
    columns: dict[str, list[Any]] = {}
    for name in _FRONT:
        columns[name] = [row.get(name) for row in found]
    swept = {name: [row["values"][name] for row in found] for name in runs.swept}
    extra = ("digest", "version")
    hidden = {*_FRONT, *extra, "values"}
    names = dict.fromkeys(name for row in found for name in row if name not in hidden)
    metrics = {
        name: pd.to_numeric(
            pd.Series([None if row["truncated"] and not truncated else row.get(name) for row in found], dtype=object)
        ).astype(float)
        for name in names
    }
    frame = pd.DataFrame({"case": columns.pop("case"), **swept, **columns, **metrics})
    for name in extra:
        frame[name] = [row.get(name) for row in found]
    for name in ("case", "replication", "seed"):
        frame[name] = frame[name].astype("Int64")
    return frame


def results(path: str | os.PathLike[str], *, truncated: bool = False, out: Path = Path("results")) -> pd.DataFrame:
    """The results of a study folder (or study file) as a tidy frame, one row per run.

    Columns: case, the swept keys, replication, seed, status, truncated, key, then every metric of docs/metrics.md.
    Runs without a result are there with status missing, failed or damaged. Metrics of truncated runs are NaN, so
    that nothing averages them, unless `truncated` is true. Raises ScenarioError.
    """
    return frame_of(open_runs(path, out=out), truncated=truncated)


def counts(runs: Runs) -> dict[str, int]:
    """How many runs have each status."""
    found: dict[str, int] = {}
    for row in rows(runs):
        found[row["status"]] = found.get(row["status"], 0) + 1
    return dict(sorted(found.items()))


def others(runs: Runs) -> int:
    """Complete-looking run folders that are not part of the study: of an earlier version of it or of the code."""
    if not runs.planned or not (runs.folder / "runs").is_dir():
        return 0
    names = {name for name in os.listdir(runs.folder / "runs") if not name.startswith(".")}
    return len(names - set(runs.keys))


def failures(runs: Runs) -> dict[str, str]:
    """Why runs failed, by "case, replication"."""
    found = {}
    for run in runs.runs:
        file = runs.folder / FAILED / f"{run['key']}.json"
        if file.exists():
            name = f"case {run['case']} ({label(run['values'])}), replication {run['replication']}"
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError):
                found[name] = str(read_json(file, _STUDY_BYTES_MAX)["reason"])
    return found
