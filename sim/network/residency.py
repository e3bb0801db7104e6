"""What must not leave the country: labels of data, who stands where, and who may vote abroad.

Rules of the place (Hainan's negative list for data, in force since 2025-02-19): voters stand on the mainland, records
labelled personal or important stay there, nodes abroad hold headers and hashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import Field

from sim.network.sites import sites
from sim.parameters import Parameters

HOME = "mainland"  # jurisdiction that data must not leave

DataLabel = Literal["general", "public", "personal", "important"]


class Residency(Parameters):
    """Rules of residency. Without this section they hold as far as places have a known jurisdiction."""

    labels: tuple[DataLabel, ...] = Field(
        default=("personal", "important"), description="data labels whose transactions must not leave the country"
    )
    voters: Literal["home", "anywhere"] = Field(
        default="home", description="where voters may stand; anywhere: a breach is left to the run to find"
    )
    places: dict[str, str] = Field(
        default={}, description="jurisdiction of places that the table of sites does not know; home is mainland"
    )


def jurisdictions(places: Iterable[str], own: Mapping[str, str]) -> dict[str, str]:
    """The jurisdiction of each of these places that has one: as the scenario says, or as the table of sites does."""
    table = sites()
    known = {place: own.get(place) or (table[place].jurisdiction if place in table else None) for place in places}
    return {place: name for place, name in known.items() if name is not None}
