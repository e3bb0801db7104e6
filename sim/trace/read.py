"""Stored traces, read back: which run a folder holds, what its numbers mean, and its rows in bounded chunks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sim.manifests import MANIFEST, DamagedError
from sim.manifests import read as read_manifest
from sim.trace.events import COLUMNS, MESSAGE_COLUMNS
from sim.trace.rows import Rows

EVENTS_FILE, MESSAGES_FILE = "trace.parquet", "messages.parquet"
CHUNK_ROWS = 1 << 16
MESSAGES_MAX = 200_000  # that a picture of a trace takes in, unless told otherwise

# Positions in a row of messages; rows of events have `sim.trace.rows`.
SENT, SOURCE, DESTINATION, KIND, STATEMENT, ARRIVED, RECEIVED, VERIFIED, DONE, SIZE, FATE, KEY = range(
    len(MESSAGE_COLUMNS)
)


class TraceError(Exception):
    """A trace cannot be shown; the message names the value, the rule and the remedy."""


@dataclasses.dataclass(frozen=True)
class StoredRun:
    """A finished run on disk.

    `places` holds the place of every endpoint: the voters 0..voters-1, observers, then the gateways of the clients;
    `message_types` the name of every number in the messages' column `kind`.
    """

    folder: Path
    manifest: dict[str, Any]
    voters: int
    places: tuple[str, ...]
    message_types: tuple[str, ...]
    observers: tuple[str, ...] = ()

    @property
    def seats(self) -> int:
        """Voters and observers."""
        return self.voters + len(self.observers)

    def name(self, endpoint: int) -> str:
        """Name of an endpoint for people: "2 SYX", or "clients SYX"."""
        place = self.places[endpoint]
        observer = endpoint - self.voters
        if observer >= len(self.observers):
            return f"clients {place}"
        if observer >= 0:
            return f"{endpoint} {self.observers[observer]}"
        return str(endpoint) if place in ("", str(endpoint)) else f"{endpoint} {place}"

    @property
    def scenario(self) -> dict[str, Any]:
        """The resolved scenario."""
        found: dict[str, Any] = self.manifest["scenario"]
        return found

    def events(self) -> Iterator[np.ndarray]:
        """Trace rows in order of time, shape (rows, len(COLUMNS)). Raises TraceError if none were kept."""
        return _chunks(self._file(EVENTS_FILE, "blocks"), COLUMNS)

    def messages(self) -> Iterator[np.ndarray]:
        """Message rows in order of arrival (of sending, if lost then), shape (rows, len(MESSAGE_COLUMNS)).

        Client transactions are not among them, nor what was on its way when the run ended.
        Raises TraceError if none were kept.
        """
        return _chunks(self._file(MESSAGES_FILE, "messages"), MESSAGE_COLUMNS)

    def _file(self, name: str, level: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            kept = self.scenario.get("trace", "blocks")
            raise TraceError(
                f"{self.folder}: was run at trace level {kept} and has no {name}; "
                f"run the scenario again with --set trace={level}"
            )
        return path


def _chunks(path: Path, columns: tuple[str, ...]) -> Iterator[np.ndarray]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=list(columns)):
            yield np.column_stack([batch.column(name).to_numpy() for name in columns])


def find_run(path: Path) -> Path:
    """The run folder meant by `path`: itself, or the only run of a study folder. Raises TraceError."""
    if (path / MANIFEST).is_file():
        return path
    runs = sorted(folder.parent for folder in path.glob(f"runs/[!.]*/{MANIFEST}"))
    if len(runs) == 1:
        return runs[0]
    if not runs:
        raise TraceError(f"{path}: holds no run; name a folder that `pilotzone run` wrote, such as results/quickstart")
    logged = [run for run in runs if (run / MESSAGES_FILE).is_file()]
    if len(logged) == 1:
        return logged[0]
    shown = "\n".join(f"  {run}" for run in (logged or runs)[:10])
    raise TraceError(f"{path}: holds {len(logged or runs)} runs to choose from; name one of them:\n{shown}")


def open_run(path: Path) -> StoredRun:
    """Open a run, or the only run of a study. Raises TraceError."""
    folder = find_run(path)
    try:
        manifest = read_manifest(folder)
    except DamagedError as error:
        raise TraceError(f"{folder}: {error}; run the scenario again") from None
    if "message_types" not in manifest:
        raise TraceError(f"{folder}: was written by a version that kept no names; run the scenario again")
    return StoredRun(
        folder,
        manifest,
        int(manifest["voters"]),
        tuple(manifest["places"]),
        tuple(manifest["message_types"]),
        tuple(manifest.get("observers", ())),
    )


def settled_ns(rows: np.ndarray) -> np.ndarray:
    """When each message was over, ns: handled if it was delivered, else lost. Shape (rows,)."""
    return np.where(rows[:, FATE] == 0, rows[:, DONE], rows[:, ARRIVED])


def messages_between(run: StoredRun, from_ns: int, to_ns: int, most: int) -> np.ndarray:
    """Messages under way at any time in [from_ns, to_ns). Raises TraceError if they are more than `most`."""
    parts = []
    count = 0
    for chunk in run.messages():
        part = chunk[(chunk[:, SENT] < to_ns) & (settled_ns(chunk) >= from_ns)]
        count += len(part)
        if count <= most:
            parts.append(part)
    if count > most:
        raise TraceError(
            f"{run.folder}: {count} messages between {from_ns / 1e9:g} s and {min(to_ns, _end_ns(run)) / 1e9:g} s "
            f"are more than the {most} a viewer handles well; cut a window with --from and --to"
        )
    return np.concatenate(parts) if parts else np.zeros((0, len(MESSAGE_COLUMNS)), dtype=np.int64)


def events_between(run: StoredRun, from_ns: int, to_ns: int) -> Rows:
    """Trace rows with a time in [from_ns, to_ns)."""
    parts = [Rows(chunk) for chunk in run.events()]
    found = [rows[(rows.time_ns >= from_ns) & (rows.time_ns < to_ns)].values for rows in parts]
    return Rows(np.concatenate(found) if found else np.zeros((0, len(COLUMNS)), dtype=np.int64))


def _end_ns(run: StoredRun) -> int:
    return int(run.scenario["duration_ns"])
