"""What is known of every height or block of a run, however long: memory holds the latest part, a file the rest."""

from __future__ import annotations

import contextlib

import numpy as np

from sim.kernel.cold import ColdColumn

_START = 1024  # rows
_STEP = 1 << 14  # integers that memory holds before they move to a file, and by which it grows


class Past:
    """Rows of integers by index, zero at first; `values` is an array, to be asked for anew after `reach`."""

    def __init__(self, width: int = 1) -> None:
        """`values` has the shape (rows,) with a width of 1, or else (rows, width)."""
        self._width = width
        self._file: ColdColumn | None = None
        self.values = self._shaped(np.zeros(_START * width, dtype=np.int64))

    def reach(self, index: int) -> np.ndarray:
        """The values, at least up to an index."""
        if index < len(self.values):
            return self.values
        flat = self.values.reshape(-1)
        step = max(_STEP // self._width, 1)
        rows = (index // step + 1) * step
        if rows * self._width > _STEP:
            with contextlib.suppress(OSError):  # no room for a file: all stays in memory
                self._file = self._file or ColdColumn(flat)
                self.values = self._shaped(self._file.lengthen(rows * self._width))
                self.rest()
                return self.values
        self._file = None
        longer = np.zeros(max(2 * len(self.values), index + 1) * self._width, dtype=np.int64)
        longer[: len(flat)] = flat
        self.values = self._shaped(longer)
        return self.values

    def rest(self) -> None:
        """Let go of the memory of what lies in the file, until somebody looks."""
        if self._file is not None:
            self._file.rest()

    def _shaped(self, flat: np.ndarray) -> np.ndarray:
        return flat if self._width == 1 else flat.reshape(-1, self._width)
