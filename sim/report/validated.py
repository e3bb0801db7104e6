"""Which real systems the model was held against, and how far off it was: the rows that pages show beside a design."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from sim.network.sites import read_rows
from sim.scenario.platforms import platforms

FILE = Path(__file__).parent / "validated.csv"
FITTED = "lan"  # delays under which one number a platform was fitted: no predictions


@dataclasses.dataclass(frozen=True)
class Validation:
    """Errors of predicted mean latencies of one platform, percent of the measured ones, `lan` left out."""

    platform: str
    protocol: str
    means: int
    low_percent: float
    median_percent: float
    high_percent: float


@functools.cache
def validations() -> tuple[Validation, ...]:
    """All of them, as docs/live.md has them row by row."""
    return tuple(
        Validation(
            row["platform"],
            row["protocol"],
            int(row["means"]),
            float(row["low_percent"]),
            float(row["median_percent"]),
            float(row["high_percent"]),
        )
        for row in read_rows(FILE)
    )


def validated(platform: str | None, protocol: str) -> tuple[Validation, ...]:
    """Those of the platform, else those of all platforms that run the protocol; of a platform never measured, none."""
    if platform is not None:
        return tuple(one for one in validations() if one.platform == platform)
    return tuple(one for one in validations() if one.protocol == protocol)


def summed(rows: Sequence[Mapping[str, object]]) -> list[Validation]:
    """A validation per platform of rows with `system`, `matrix` and `error_percent` (those of live.csv)."""
    errors: dict[str, list[float]] = {}
    for row in rows:
        if row["matrix"] != FITTED:
            errors.setdefault(str(row["system"]), []).append(float(str(row["error_percent"])))
    found = []
    for platform, some in sorted(errors.items()):
        off = sorted(abs(error) for error in some)
        median = (off[(len(off) - 1) // 2] + off[len(off) // 2]) / 2
        protocol = platforms()[platform].protocol
        found.append(Validation(platform, protocol, len(some), min(some), round(median, 1), max(some)))
    return found
