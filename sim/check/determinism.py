"""Where two runs of one scenario part: the first event or message that differs between their traces.

Pure: it reads two finished runs, in chunks, and keeps no more than one of each in memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from sim.trace import read
from sim.trace.events import COLUMNS, EVENTS, FATES, MESSAGE_COLUMNS
from sim.trace.read import StoredRun
from sim.trace.rows import Fact


@dataclasses.dataclass(frozen=True)
class Divergence:
    """The first difference: what happened in each run (None: nothing more), in words and as columns."""

    time_ns: int
    node: int | None
    event: str
    index: int  # of the row in its table
    table: str
    first: dict[str, int | str] | None
    second: dict[str, int | str] | None

    def lines(self) -> list[str]:
        """The report, line by line."""
        where = "" if self.node is None else f" at node {self.node}"
        row = f"row {self.index} of {self.table}"
        head = f"first divergent event: {self.event}{where}, {self.time_ns / 1e9:.9f} s ({row})"
        return [head, f"  run 1: {_columns(self.first)}", f"  run 2: {_columns(self.second)}"]


def _columns(row: dict[str, int | str] | None) -> str:
    if row is None:
        return "nothing more"
    return ", ".join(f"{name} {value}" for name, value in row.items())


def first_divergence(first: StoredRun, second: StoredRun) -> Divergence | None:
    """The earliest difference between two runs that kept trace and messages, or None if all rows are equal.

    An event counts at its time, a message at the time its arrival (or loss on sending) was settled. Which row of the
    engine's tables counts a vote is no part of what happened.
    """
    found = []
    parted = part(first.events(), second.events())
    if parted is not None:
        found.append(_event(*parted))
    parted = part(_without_rows(first.messages()), _without_rows(second.messages()))
    if parted is not None:
        found.append(_message(first, *parted))
    return min(found, key=lambda divergence: divergence.time_ns, default=None)


def _without_rows(chunks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Messages with 0 for the tally row of every vote."""
    at = MESSAGE_COLUMNS.index("statement")
    for chunk in chunks:
        rows = chunk.copy()
        rows[:, at] = np.minimum(rows[:, at], 0)
        yield rows


_Row = list[int] | None


def part(first: Iterator[np.ndarray], second: Iterator[np.ndarray]) -> tuple[int, _Row, _Row] | None:
    """Index and both rows of the first difference between two streams of rows, whatever their chunks."""
    index = 0
    nothing = np.zeros((0, 0), dtype=np.int64)
    a = b = nothing
    while True:
        a = a if len(a) else next((chunk for chunk in first if len(chunk)), nothing)
        b = b if len(b) else next((chunk for chunk in second if len(chunk)), nothing)
        if not len(a) and not len(b):
            return None
        if not len(a) or not len(b):
            return index, a[0].tolist() if len(a) else None, b[0].tolist() if len(b) else None
        rows = min(len(a), len(b))
        different = np.flatnonzero((a[:rows] != b[:rows]).any(axis=1))
        if len(different):
            at = int(different[0])
            return index + at, a[at].tolist(), b[at].tolist()
        index += rows
        a, b = a[rows:], b[rows:]


def _event(index: int, first: _Row, second: _Row) -> Divergence:
    fact = min((Fact(*row) for row in (first, second) if row is not None), key=lambda fact: fact.time_ns)
    return Divergence(
        fact.time_ns,
        fact.node if fact.node >= 0 else None,
        EVENTS.get(fact.event, f"event {fact.event}"),
        index,
        read.EVENTS_FILE,
        _named(COLUMNS, first, event=EVENTS),
        _named(COLUMNS, second, event=EVENTS),
    )


def _message(run: StoredRun, index: int, first: _Row, second: _Row) -> Divergence:
    row = min((row for row in (first, second) if row is not None), key=lambda row: row[read.ARRIVED])
    kinds = dict(enumerate(run.message_types))
    name = kinds.get(row[read.KIND], f"type {row[read.KIND]}")
    return Divergence(
        row[read.ARRIVED],
        row[read.DESTINATION],
        f"{name} from node {row[read.SOURCE]} {FATES.get(row[read.FATE], 'settled')}",
        index,
        read.MESSAGES_FILE,
        _named(MESSAGE_COLUMNS, first, kind=kinds, fate=FATES),
        _named(MESSAGE_COLUMNS, second, kind=kinds, fate=FATES),
    )


def _named(columns: tuple[str, ...], row: _Row, **words: dict[int, str]) -> dict[str, int | str] | None:
    """A row by column, with words for numbers that stand for some."""
    if row is None:
        return None
    return {name: words.get(name, {}).get(value, value) for name, value in zip(columns, row, strict=True)}
