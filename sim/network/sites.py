"""The places of the pilot zone, their coordinates and fault domains.

Source: `data/sites.csv` (GeoNames, CC BY 4.0; each row names its own). A fault domain is a set of places that
one event takes together: N, E, W, C are the island's north, east, west and centre, M the mainland.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import functools
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from sim.files import read_regular

DATA = Path(__file__).parent / "data"
TABLE_BYTES_MAX = 5_000_000


@dataclasses.dataclass(frozen=True)
class Site:
    """One place; latitude and longitude in degrees (WGS84), `domain` its fault domain."""

    code: str
    name: str
    name_zh: str
    latitude_deg: float
    longitude_deg: float
    domain: str
    jurisdiction: str
    role: str
    source: str

    @property
    def coordinates_deg(self) -> tuple[float, float]:
        """Latitude and longitude."""
        return self.latitude_deg, self.longitude_deg


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a csv file with a header line; lines that start with '#' are comments.

    Raises OSError, csv.Error, and ValueError if it is not UTF-8 text of at most 5 MB.
    """
    text = read_regular(path, TABLE_BYTES_MAX).decode("utf-8-sig")  # spreadsheets put a mark in front
    lines = io.StringIO(text, newline="")
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


@functools.cache
def sites() -> Mapping[str, Site]:
    """All known sites by code, in the file's order."""
    table = {}
    for row in read_rows(DATA / "sites.csv"):
        table[row["code"]] = Site(
            code=row["code"],
            name=row["name_en"],
            name_zh=row["name_zh"],
            latitude_deg=float(row["lat"]),
            longitude_deg=float(row["lon"]),
            domain=row["fault_domain"],
            jurisdiction=row["jurisdiction"],
            role=row["role"],
            source=row["source"],
        )
    return MappingProxyType(table)


def domains() -> tuple[str, ...]:
    """All fault domains, in the order of their first site."""
    return tuple(dict.fromkeys(site.domain for site in sites().values()))


def suggestion(word: str, known: Iterable[str], limit: int = 12) -> str:
    """ "did you mean 'HAK'?", or the choices if nothing known resembles the word."""
    choices = list(known)
    lowered = {choice.lower(): choice for choice in reversed(choices)}
    close = difflib.get_close_matches(word.lower(), lowered, n=3, cutoff=0.6)
    if close:
        # Among equally close words people mean the one that begins alike.
        best = max(close, key=lambda known: (_likeness(word.lower(), known), known[0] == word[:1].lower()))
        return f"did you mean '{lowered[best]}'?"
    shown = ", ".join(choices[:limit]) + (", ..." if len(choices) > limit else "")
    return f"choose from: {shown}" if choices else "there is none to choose from"


def _likeness(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()


def site_problem(code: str) -> str | None:
    """Why a code names no site ("rule; remedy"), or None if it does."""
    table = sites()
    if code in table:
        return None
    by_name = {site.name.lower(): site.code for site in table.values()}
    if code.lower() in by_name:
        return f"sites are given by code; write {by_name[code.lower()]}"
    return f"no site has this code; {suggestion(code, table, limit=20)}"
