"""Transactions as somebody recorded them: tables of time, class, size and place, from CSV or Parquet files.

The rows of a file are kept inside the scenario, packed, so that a result says what it came from.
"""

from __future__ import annotations

import base64
import binascii
import io
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from sim.files import UnfitFileError, is_plain_name, read_regular
from sim.parameters import MESSAGE_BYTES_MAX, Problem, RuleError
from sim.units import LONGEST_NS

if TYPE_CHECKING:
    import pandas

ROWS_MAX = 2_000_000
_FILE_BYTES_MAX = 200 * 10**6
_NAMES_MAX = 1_000  # of classes, of places, of pairs of class and size
COLUMNS = ("time", "class", "bytes", "site")
UNITS_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
TIME_NS, CLASS, BYTES, PLACE = range(4)


def _refuse(message: str, *path: str) -> NoReturn:
    raise RuleError([Problem(path or ("file",), message)])


def read_trace(path: Path, columns: Mapping[str, str], unit: str, *, from_first: bool) -> dict[str, Any]:
    """The fields `class_names`, `place_names` and `packed` of a `Trace` from a file.

    `columns`: what the file calls time, class, bytes and site; only time must be there. Rows are put in order of time,
    which is counted `from_first`, or from zero. A size of -1 stands where the file says none.
    Raises RuleError.
    """
    table = _table(path)
    names = {column: columns.get(column, column) for column in COLUMNS}
    for column, name in names.items():
        if name not in table.columns and (column == "time" or column in columns):
            shown = ", ".join(map(str, table.columns))[:200]
            _refuse(f"the file has no column {name}; it has {shown}", "columns" if column in columns else "file")
    if not len(table):
        _refuse("has no rows; give one with transactions")
    if len(table) > ROWS_MAX:
        _refuse(f"has {len(table):,} rows, more than {ROWS_MAX:,}; cut it")
    rows = np.zeros((len(table), 4), dtype=np.int64)
    times = _numbers(table[names["time"]], "time")
    times = times - times.min() if from_first else times
    if int(times.max()) > LONGEST_NS // UNITS_NS[unit]:
        _refuse("has times beyond 9 years; write another time_unit, or starts_at: first", "time_unit")
    rows[:, TIME_NS] = np.floor(times * UNITS_NS[unit])
    rows[:, BYTES] = -1
    if names["bytes"] in table.columns:
        sizes = _numbers(table[names["bytes"]], "bytes")
        if not 1 <= sizes.min() or sizes.max() > MESSAGE_BYTES_MAX:
            _refuse("has sizes that are not between 1 B and 1 GB; correct them")
        rows[:, BYTES] = np.floor(sizes)
    class_names, rows[:, CLASS] = _named(table, names["class"], "trace")
    for name in class_names:
        if not is_plain_name(name):  # it stands in tables and captions
            _refuse(f"has the class {name[:40]!r}; write a short name of letters, digits and dashes")
    place_names, rows[:, PLACE] = _named(table, names["site"], "")
    order = np.argsort(rows[:, TIME_NS], kind="stable")
    return {"class_names": class_names, "place_names": place_names, "packed": pack(rows[order])}


def _table(path: Path) -> pandas.DataFrame:
    import pandas

    kind = "a csv or Parquet file with a column time"
    try:
        data = read_regular(path, _FILE_BYTES_MAX)
        if data.startswith(b"PAR1"):
            from pyarrow import parquet

            file = parquet.ParquetFile(io.BytesIO(data))
            if file.metadata.num_rows > ROWS_MAX:
                _refuse(f"has {file.metadata.num_rows:,} rows, more than {ROWS_MAX:,}; cut it")
            table = file.read().to_pandas()
            return pandas.DataFrame(table)
        text = data.decode("utf-8-sig")
        first = text.partition("\n")[0]
        separator = max(",;\t", key=first.count)
        table = pandas.read_csv(
            io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, skipinitialspace=True, comment="#"
        )
    except RuleError:
        raise
    except OSError as error:
        _refuse(str(error) if isinstance(error, UnfitFileError) else f"cannot be read; give the path of {kind}")
    except Exception:  # whatever pandas and pyarrow raise at what is no table of theirs
        _refuse(f"is no table; give {kind}")
    table.columns = [str(name).strip() for name in table.columns]
    return pandas.DataFrame(table)


def _numbers(column: pandas.Series[Any], name: str) -> NDArray[Any]:
    import pandas

    values = pandas.to_numeric(column, errors="coerce").to_numpy()  # whole numbers stay exact
    values = values if values.dtype == np.int64 else values.astype(float)
    wrong = np.flatnonzero(~np.isfinite(values) | (values < 0))
    if len(wrong):
        shown = str(column.iloc[int(wrong[0])])[:40]
        _refuse(f"says {shown!r} in column {name}, row {int(wrong[0]) + 1}; write a number of 0 or more")
    return np.asarray(values)


def _named(table: pandas.DataFrame, column: str, otherwise: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The distinct names of a column in order of appearance, and each row's."""
    import pandas

    if column not in table.columns:
        return (otherwise,), np.zeros(len(table), dtype=np.int64)
    codes, names = pandas.factorize(table[column].astype(str).str.strip())
    if len(names) > _NAMES_MAX:
        _refuse(f"has {len(names):,} different entries in column {column}, more than {_NAMES_MAX:,}; merge some")
    return tuple(map(str, names)), np.asarray(codes, dtype=np.int64)


def pack(rows: NDArray[np.int64]) -> str:
    """Rows (time in ns, class, bytes, place), shape (rows, 4), as text."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(rows.T, dtype="<i8").tobytes(), 9)).decode("ascii")


def unpack(text: str) -> NDArray[np.int64]:
    """What `pack` was given. Raises ValueError for anything else."""
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(text, validate=True), 32 * ROWS_MAX)
    except (binascii.Error, zlib.error):
        raise ValueError("is not what a trace was packed to; name its file instead") from None
    if unpacker.unconsumed_tail or len(data) % 32 or not data:
        raise ValueError("is not what a trace was packed to; name its file instead")
    return np.frombuffer(data, dtype="<i8").reshape(4, -1).T.astype(np.int64)
