"""Latency by distance: how far two places are apart, and how long light needs in the fibre between them.

RTT = 2 * km * rf / 204 + overhead, in ms, where km is the great-circle distance on a sphere of radius 6371.0088 km
(mean Earth radius), 204 km/ms the speed of light in fibre, rf how much longer the fibre is than the great circle, and
the overhead what equipment adds. One way is half of it. The figures are estimates (A): no measured Haikou round trips
were found.

Distances are rounded to the metre before the formula and everything after is exact, so a last-bit difference between
two machines' sines does not reach the matrix.
"""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

EARTH_RADIUS_KM = 6371.0088
FIBRE_KM_PER_MS = 204


@dataclasses.dataclass(frozen=True)
class FibreQuality:
    """`route_factor`: fibre length per great-circle length; `overhead_ms`: added to the round trip."""

    route_factor: Fraction
    overhead_ms: Fraction


QUALITIES = {
    "low": FibreQuality(Fraction("1.4"), Fraction("0.9")),
    "mid": FibreQuality(Fraction("1.8"), Fraction(2)),
    "high": FibreQuality(Fraction("2.5"), Fraction(5)),
}


def great_circle_km(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Distance between (latitude, longitude) in degrees by the haversine formula, km, rounded to the metre."""
    lat_a, lat_b = math.radians(a[0]), math.radians(b[0])
    half_lat = (lat_b - lat_a) / 2
    half_lon = math.radians(b[1] - a[1]) / 2
    h = math.sin(half_lat) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin(half_lon) ** 2
    return round(2 * EARTH_RADIUS_KM * math.asin(math.sqrt(h)), 3)


def rtt_ms(km: float, quality: str) -> Fraction:
    """Round trip of the distance model, ms, exact for a distance in whole metres."""
    q = QUALITIES[quality]
    return 2 * Fraction(round(km * 1000), 1000) * q.route_factor / FIBRE_KM_PER_MS + q.overhead_ms
