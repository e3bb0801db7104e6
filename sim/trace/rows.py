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
    """Some rows of the trace, in order of time, over an integer array of shape (rows, TRACE_WIDTH)."""

    __slots__ = ("values",)

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, which: int) -> Fact: ...

    @overload
    def __getitem__(self, which: slice | np.ndarray) -> Rows: ...

    def __getitem__(self, which: int | slice | np.ndarray) -> Fact | Rows:
        """One row, or the rows that a slice, a mask or an array of positions names."""
        found: np.ndarray = self.values[which]
        return Fact(*found.tolist()) if isinstance(which, int) else Rows(found)

    def __iter__(self) -> Iterator[Fact]:
        """Row by row: for what is put in words, not for what is counted."""
        return (Fact(*row) for row in self.values.tolist())

    def of(self, *events: int) -> Rows:
        """The rows of these events."""
        found: np.ndarray = self.event == events[0]
        for event in events[1:]:
            found |= self.event == event
        return self[found]

    @property
    def time_ns(self) -> np.ndarray:
        """When it happened."""
        return self.values[:, 0]

    @property
    def event(self) -> np.ndarray:
        """EVENT_... of `sim.ledger.rows`."""
        return self.values[:, 1]

    @property
    def node(self) -> np.ndarray:
        """At which endpoint."""
        return self.values[:, 2]

    @property
    def block(self) -> np.ndarray:
        """Number of the block; of EVENT_VIEW the view, of EVENT_READ how long the answer took, ns."""
        return self.values[:, 3]

    @property
    def height(self) -> np.ndarray:
        """Height of the block."""
        return self.values[:, 4]

    @property
    def view(self) -> np.ndarray:
        """View of the block; of EVENT_HEAD the blocks left, of EVENT_REVERTED the block that takes the place."""
        return self.values[:, 5]

    @property
    def txs(self) -> np.ndarray:
        """Transactions in the block."""
        return self.values[:, 6]

    @property
    def bytes(self) -> np.ndarray:
        """Bytes of a proposed block; of its first decision the deciding messages sent until then."""
        return self.values[:, 7]
