"""Columns in files: what is kept for long, and seldom looked at, need not stay in memory.

While a voter is down, every block decided meanwhile is kept for it: after hours, half a million rows of which hardly
one is touched. Such a column lies in a file without a name that ends with the process. `rest` lets go of the pages in
memory; whichever is touched again comes back by itself. To compiled code it is a column like any other, guard words
included, and it is lengthened without a copy.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Any

import numpy as np

LINE = 8  # integers in a cache line
GUARD = 0x5AFE_C0DE_5AFE_C0DE  # what the words around a column hold
_FIRST = 2 * LINE  # the file's first page begins a pair of cache lines, and so does the column


class ColdColumn:
    """A column whose integers lie in a file. Raises OSError if there is no room for it."""

    def __init__(self, values: np.ndarray) -> None:
        self._file: Any = tempfile.TemporaryFile(prefix="pilotzone-")
        self._map: mmap.mmap
        self.data = np.zeros(0, dtype=np.int64)
        self.lengthen(len(values))
        self.data[:] = values

    def lengthen(self, length: int) -> np.ndarray:
        """The column, longer now; what is new is zero. Older views of it show the same memory."""
        size_bytes = 8 * (_FIRST + length + LINE)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._file.fileno(), 0, size_bytes)  # a full disk is an error here, and no signal later
        else:
            os.ftruncate(self._file.fileno(), size_bytes)
        self._map = mmap.mmap(self._file.fileno(), size_bytes)
        whole = np.frombuffer(self._map, dtype=np.int64)
        before = _FIRST + len(self.data)
        whole[before : before + LINE] = 0
        whole[_FIRST - LINE : _FIRST] = GUARD
        whole[_FIRST + length :] = GUARD
        self.data = whole[_FIRST : _FIRST + length]
        return self.data

    def rest(self) -> None:
        """Let go of its pages in memory."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
