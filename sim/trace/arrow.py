"""Arrow tables from columns without `pyarrow.array`, which looks for pandas: slow to import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


def arrow_table(columns: Mapping[str, np.ndarray | Sequence[Any]]) -> pa.Table:
    """A table of the columns: arrays of int64 or float64, or lists of one of str, bool, int, float, and None."""
    import pyarrow as pa

    return pa.Table.from_arrays([_array(values) for values in columns.values()], names=list(columns))


def _array(values: np.ndarray | Sequence[Any]) -> pa.Array:
    import pyarrow as pa

    if isinstance(values, np.ndarray):
        return pa.Array.from_buffers(
            pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(np.ascontiguousarray(values))]
        )
    known = [value is not None for value in values]
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pa.nulls(len(values))
    present = None if all(known) else _bits(known)
    if kinds == {str}:
        encoded = [(value or "").encode() for value in values]
        ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
        return pa.Array.from_buffers(
            pa.utf8(), len(values), [present, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
        )
    if kinds == {bool}:
        return pa.Array.from_buffers(pa.bool_(), len(values), [present, _bits([bool(value) for value in values])])
    if not kinds <= {int, float}:
        raise TypeError(f"a column holds {', '.join(sorted(kind.__name__ for kind in kinds))}; one kind per column")
    dtype = np.dtype(np.float64 if float in kinds else np.int64)
    numbers = np.array([0 if value is None else value for value in values], dtype=dtype)
    return pa.Array.from_buffers(pa.from_numpy_dtype(dtype), len(values), [present, pa.py_buffer(numbers)])


def _bits(flags: Sequence[bool]) -> pa.Buffer:
    import pyarrow as pa

    return pa.py_buffer(np.packbits(flags, bitorder="little").tobytes())
