"""Latency tables as others keep them: lists of pairs, square matrices, and tables of pings.

* A list has a row per pair: `from`, `to`, and `rtt_ms` (both directions) or `one_way_ms` (this direction). Columns with
  other names are mapped (`columns: {rtt_ms: median}`), or known, as `source`, `destination`, `avg` of WonderNetwork.
* A square matrix has the same names in its first row and its first column: one-way times in ms, row: from, column: to,
  as in CometBFT's aws-latencies.csv. Its diagonal is not used.

Cells are separated by commas, semicolons (then decimal commas are read) or tabs; a spreadsheet's mark in front and
blanks around cells do not matter, and lines that begin with '#' are comments.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from sim.files import read_regular
from sim.network.sites import TABLE_BYTES_MAX
from sim.parameters import Problem, RuleError
from sim.units import NS_PER_MS

COLUMNS = ("from", "to", "rtt_ms", "one_way_ms")
_KNOWN = {
    "from": ("from", "source", "src", "origin"),
    "to": ("to", "destination", "dst", "dest", "target"),
    "rtt_ms": ("rtt_ms", "rtt", "avg", "avg_ms", "mean", "mean_ms"),
    "one_way_ms": ("one_way_ms", "one_way"),
}
_EXACT = {"rtt_ms", "one_way_ms"}  # said once per pair; of other columns, measured more often, the mean counts
_MS_MAX = 3_600_000.0
_AT = ("file",)
_FORMS = "give it the columns from,to,rtt_ms (or one_way_ms), name others by columns:, or write a square matrix"


def read_latencies(path: Path, columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """Fields of `RttRow` from a file, times in whole nanoseconds. Raises RuleError."""
    try:
        text = read_regular(path, TABLE_BYTES_MAX).decode("utf-8-sig")
        cells = _cells(text)
    except (OSError, ValueError, csv.Error):  # ValueError: too long, not UTF-8, or a path with a zero byte
        raise RuleError([Problem(_AT, "is no table of at most 5 MB of text; give the path of a csv file")]) from None
    if not cells:
        _refuse(f"is empty; {_FORMS}")
    header, rows = cells[0], cells[1:]
    where = _places_of(header, columns)
    if where is not None:
        return _list(header, rows, where)
    if columns:
        absent = next(name for name in columns.values() if name not in header)
        raise RuleError([Problem(("columns",), f"the file has no column {absent}; it has {', '.join(header)[:200]}")])
    names = [row[0] for row in rows if row]
    if len(header) > 2 and len(set(names)) == len(names) and set(header[1:]) == set(names):
        return _square(header[1:], rows)
    _refuse(f"has the columns {', '.join(header)[:200] or 'none'}; {_FORMS}")


def _cells(text: str) -> list[list[str]]:
    """Rows of stripped cells without comments and empty lines."""
    lines = [line for line in io.StringIO(text, newline="") if line.strip() and not line.startswith("#")]
    first = lines[0] if lines else ""
    separator = max(",;\t", key=first.count)
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator)]
    if separator == ";":
        rows = [
            [cell.replace(",", ".") if _is_number(cell.replace(",", ".")) else cell for cell in row] for row in rows
        ]
    return rows


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _places_of(header: Sequence[str], columns: Mapping[str, str]) -> dict[str, int] | None:
    """Which column is which, or None if the table is no list of pairs."""
    lower = [name.lower() for name in header]
    found: dict[str, int] = {}
    for column in COLUMNS:
        if column in columns:
            if columns[column] in header:
                found[column] = header.index(columns[column])
        else:
            known = next((name for name in _KNOWN[column] if name in lower), None)
            if known is not None:
                found[column] = lower.index(known)
    if "rtt_ms" in found and "one_way_ms" in found:
        del found["rtt_ms" if "one_way_ms" in columns else "one_way_ms"]
    whole = {"from", "to"} <= found.keys() and {"rtt_ms", "one_way_ms"} & found.keys()
    return found if whole and all(name in header for name in columns.values()) else None


def _list(header: Sequence[str], rows: Sequence[Sequence[str]], where: Mapping[str, int]) -> list[dict[str, Any]]:
    kind = "rtt_ms" if "rtt_ms" in where else "one_way_ms"
    exact = header[where[kind]].lower() in _EXACT
    found: dict[tuple[str, str], list[float]] = {}
    for number, row in enumerate(rows, 1):
        try:
            start, to, text = (row[where[name]] for name in ("from", "to", kind))
        except IndexError:
            _refuse(f"row {number} has {len(row)} cells, and the header {len(header)}; add what lacks")
        ms = _ms(text, f"row {number}")
        pair = (start, to) if kind == "one_way_ms" or start <= to else (to, start)
        known = found.setdefault(pair, [])
        if exact and known and known[0] != ms:
            message = f"row {number} says {ms:g} ms for {start} and {to}, an earlier row {known[0]:g} ms; keep one"
            raise RuleError([Problem(_AT, message)])
        known.append(ms)
    field = "rtt_ns" if kind == "rtt_ms" else "one_way_ns"
    return [
        {"start": start, "to": to, field: round(math.fsum(all_ms) / len(all_ms) * NS_PER_MS)}
        for (start, to), all_ms in found.items()
    ]


def _square(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    found = []
    for row in rows:
        if len(row) != len(names) + 1:
            _refuse(f"row {row[0]} of the matrix has {len(row) - 1} numbers for {len(names)} columns; add what lacks")
        for to, text in zip(names, row[1:], strict=True):
            if to != row[0]:
                ns = round(_ms(text, f"row {row[0]}, column {to}") * NS_PER_MS)
                found.append({"start": row[0], "to": to, "one_way_ns": ns})
    return found


def _ms(text: str, where: str) -> float:
    try:
        ms = float(text)
    except ValueError:
        _refuse(f"{where} has '{text[:40]}' for a time; write a number of milliseconds")
    if not (math.isfinite(ms) and ms >= 0):
        _refuse(f"{where} has the time {ms} ms; write 0 or more")
    if ms > _MS_MAX:
        _refuse(f"{where} has the time {ms:g} ms; write at most 1 h")
    return ms


def _refuse(message: str) -> NoReturn:
    raise RuleError([Problem(_AT, message)])
