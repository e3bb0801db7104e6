"""Predictions beside measurements: `python -m tests.live.compare --to results/published` writes live.csv, live.md.

It also writes what pages say of each platform: sim/report/validated.csv.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sim.report.validated import FILE, Validation, summed
from tests.live.cases import measured, predicted_ms

COLUMNS = ("system", "case", "matrix", "site", "measured_ms", "predicted_ms", "error_percent")


@functools.cache
def compared() -> list[dict[str, Any]]:
    """A row per measured mean."""
    found = []
    for row in measured():
        predicted = predicted_ms(row.system, row.case, row.matrix, row.site)
        error = 100 * (predicted / row.latency_mean_ms - 1)
        values = (row.system, row.case, row.matrix, row.site, row.latency_mean_ms, round(predicted, 2), round(error, 1))
        found.append(dict(zip(COLUMNS, values, strict=True)))
    return found


def markdown(rows: list[dict[str, Any]]) -> str:
    """A line per case: its sites side by side."""
    lines = [
        "| platform | clients | delays | measured, ms, by site | predicted, ms | error |",
        "|---|---|---|---|---|---:|",
    ]
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["system"], row["case"], row["matrix"]), []).append(row)
    for (system, case, matrix), some in groups.items():
        real, model = (" / ".join(f"{row[key]:,.4g}" for row in some) for key in ("measured_ms", "predicted_ms"))
        errors = [row["error_percent"] for row in some]
        span = f"{min(errors):+.0f} %" if min(errors) == max(errors) else f"{min(errors):+.0f} to {max(errors):+.0f} %"
        lines.append(f"| {system} | {case} | {matrix} | {real} | {model} | {span} |")
    return "\n".join(lines) + "\n"


def summary(rows: Sequence[Mapping[str, object]]) -> str:
    """The file behind `sim.report.validated`."""
    text = io.StringIO()
    text.write("# Written by python -m tests.live.compare; row by row in docs/live.md.\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in dataclasses.fields(Validation)])
    writer.writerows(dataclasses.astuple(one) for one in summed(rows))
    return text.getvalue()


def main() -> None:
    """Write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", default="results/published", help="folder for live.csv and live.md")
    to = Path(parser.parse_args().to)
    rows = compared()
    with open(to / "live.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (to / "live.md").write_text(markdown(rows), encoding="utf-8")
    FILE.write_text(summary(rows), encoding="utf-8")
    print(markdown(rows))


if __name__ == "__main__":
    main()
