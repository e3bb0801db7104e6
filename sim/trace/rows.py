"""Trace rows by the names of their columns (what each means, by event: see `sim.trace.events`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, overload

import numpy as np


class Fact(NamedTuple):
    """One row."""

    time_ns: int
    event: int
    node: int
    block: int
    height: int
    view: int
    txs: int
    bytes: int


class Rows:
    """Some rows of the trace, in order of time, over an integer array of shape (rows, TRACE_WIDTH).

    `at`: which of its rows, by position; None: all. A column is copied when it is first asked for, and no other is.
    """

    __slots__ = ("_all", "_at", "_copied")

    def __init__(self, rows: np.ndarray, at: np.ndarray | None = None) -> None:
        self._all = rows
        self._at = at
        self._copied: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._all if self._at is None else self._at)

    @property
    def values(self) -> np.ndarray:
        """The rows themselves, shape (rows, TRACE_WIDTH)."""
        return self._all if self._at is None else self._all[self._at]

    @overload
    def __getitem__(self, which: int) -> Fact: ...

    @overload
    def __getitem__(self, which: slice | np.ndarray) -> Rows: ...

    def __getitem__(self, which: int | slice | np.ndarray) -> Fact | Rows:
        """One row, or the rows that a slice, a mask or an array of positions names."""
        if isinstance(which, int):
            return Fact(*self._all[which if self._at is None else self._at[which]].tolist())
        if self._at is not None:
            return Rows(self._all, self._at[which])
        if isinstance(which, slice):
            return Rows(self._all[which])
        return Rows(self._all, np.flatnonzero(which) if which.dtype == bool else which)

    def __iter__(self) -> Iterator[Fact]:
        """Row by row: for what is put in words, not for what is counted."""
        return (Fact(*row) for row in self.values.tolist())

    def of(self, *events: int) -> Rows:
        """The rows of these events."""
        found: np.ndarray = self.event == events[0]
        for event in events[1:]:
            found |= self.event == event
        return self[found]

    def _column(self, number: int) -> np.ndarray:
        if self._at is None:
            column: np.ndarray = self._all[:, number]
            return column
        found = self._copied.get(number)
        if found is None:
            found = self._copied[number] = self._all[self._at, number]
        return found

    @property
    def time_ns(self) -> np.ndarray:
        """When it happened."""
        return self._column(0)

    @property
    def event(self) -> np.ndarray:
        """EVENT_... of `sim.ledger.rows`."""
        return self._column(1)

    @property
    def node(self) -> np.ndarray:
        """At which endpoint."""
        return self._column(2)

    @property
    def block(self) -> np.ndarray:
        """Number of the block; of EVENT_VIEW the view, of EVENT_READ how long the answer took, ns."""
        return self._column(3)

    @property
    def height(self) -> np.ndarray:
        """Height of the block."""
        return self._column(4)

    @property
    def view(self) -> np.ndarray:
        """View of the block; of EVENT_HEAD the blocks left, of EVENT_REVERTED the block that takes the place."""
        return self._column(5)

    @property
    def txs(self) -> np.ndarray:
        """Transactions in the block."""
        return self._column(6)

    @property
    def bytes(self) -> np.ndarray:
        """Bytes of a proposed block; of its first decision the deciding messages sent until then."""
        return self._column(7)
