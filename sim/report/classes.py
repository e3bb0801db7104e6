"""The classes of one run in words that fit 80 columns: what succeeded, how long it took, what missed its deadline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_ROWS_MAX = 60
_NAME = 24


def lines(table: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """Lines of the table `classes`, if some class has a deadline or met something that refused it."""
    if not any(table.get("deadline_s", ())) and not any(table.get("rule_refusals", ())):
        return
    yield f"  {'class':<{_NAME}} {'requests':>9} {'success':>8} {'p50 ms':>8} {'p99 ms':>8} {'missed':>13}"
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    rows = [row for row in rows if row["submitted"]]
    for row in rows[:_ROWS_MAX]:
        name = f"{row['name']} ({row['tag']})" if row["use"] else row["name"]
        share = row["success_share"]
        done = "-" if share is None else f"{100 * share:.2f} %" if share < 1 else "100 %"
        waits = (f"{_ms(row[f'latency_{q}_ms']):>8}" for q in ("p50", "p99"))
        yield f"  {_cut(name):<{_NAME}} {row['submitted']:>9,} {done:>8} {' '.join(waits)} {_missed(row):>13}"
    if len(rows) > _ROWS_MAX:
        yield f"  and {len(rows) - _ROWS_MAX} more classes, in the table classes"


def _cut(name: str) -> str:
    return name if len(name) <= _NAME else name[: _NAME - 5] + "~" + name[-4:]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}" if value < 10_000 else f"{value:,.0f}"


def _missed(row: Mapping[str, Any]) -> str:
    """How many missed their deadline, and what that is."""
    if row["deadline_s"] is None:
        return "-"
    deadline_s = row["deadline_s"]
    size, unit = next((size, unit) for size, unit in ((3600, "h"), (60, "min"), (0, "s")) if deadline_s >= size)
    return f"{row['deadline_missed']:,} of {deadline_s / (size or 1):g} {unit}"
