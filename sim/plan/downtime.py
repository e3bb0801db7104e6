"""Expected downtime under storms and cable failures: a Monte Carlo over what an event takes and for how long.

A super typhoon has its core over one of the island's coastal domains (which one: equally likely, an assumption)
and its flank over the rest of the island; mainland voters are out of its reach (an assumption). Each voter stops,
and each access fibre is cut, with the probabilities of `data/hazards.csv`, independently, each for a time of a
Weibull distribution with a cap. The design is down until a quorum is back. Nearly all of these numbers are
assumptions; the result says so.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.kernel import chance
from sim.measure.statistics import Interval, t_interval
from sim.network.settings import Network
from sim.network.sites import read_rows
from sim.protocol import Quorum

HAZARDS = Path(__file__).parent / "data" / "hazards.csv"
COASTAL = ("N", "E", "W")
ISLAND = (*COASTAL, "C")
STORMS = 20_000
_STORM_DRAW = 3  # key of the draw that seeds the storms
_HOUR_MIN = 60.0


@dataclasses.dataclass(frozen=True)
class Downtime:
    """What storms and cable failures cost a design.

    `storm_min_per_year`: interval of the expected minutes per year: least with the low storm rate, greatest with
    the high one, each end widened by the sampling error (95 %). `halting_share`: share of storms that halt the
    design. `per_storm_h`: mean hours of downtime per storm. `cable_min_per_year`: if losing the strait halts it.
    """

    storms: int
    halting_share: float
    per_storm_h: Interval
    storm_min_per_year: Interval
    cable_min_per_year: float

    @property
    def total_min_per_year(self) -> Interval:
        """Both hazards together."""
        storm, more = self.storm_min_per_year, self.cable_min_per_year
        return dataclasses.replace(storm, estimate=storm.estimate + more, low=storm.low + more, high=storm.high + more)


def told_apart(a: Downtime, b: Downtime) -> bool:
    """Whether the expected minutes of two designs differ by more than their intervals say."""
    one, other = a.total_min_per_year, b.total_min_per_year
    return one.high < other.low or other.high < one.low


@functools.cache
def hazards() -> dict[str, float]:
    """Values of `data/hazards.csv` by "hazard.quantity"."""
    return {f"{row['hazard']}.{row['quantity']}": float(row["value"]) for row in read_rows(HAZARDS)}


def assumptions() -> list[str]:
    """The rows of `data/hazards.csv` that are assumptions, in words."""
    return [
        f"{row['hazard']} {row['quantity'].replace('_', ' ')}: {row['value']} {row['unit']} (A)"
        for row in read_rows(HAZARDS)
        if row["tag"] == "A"
    ]


def downtime(network: Network, needs: Sequence[Quorum], seed: int, storms: int = STORMS) -> Downtime | None:
    """Expected downtime of a design; None if no voter has a location. `needs`: what voters must meet to decide."""
    domains = network.domain_of_node
    if all(domain is None for domain in domains):
        return None
    down_h = storm_downtime_h(domains, needs, seed, storms)
    per_storm = t_interval(down_h)
    h = hazards()
    rates = (h["storm.rate_low"], h["storm.rate_high"])
    per_year = Interval(
        per_storm.estimate * sum(rates) / 2 * _HOUR_MIN,
        max(per_storm.low, 0.0) * rates[0] * _HOUR_MIN,
        per_storm.high * rates[1] * _HOUR_MIN,
        0.95,
        storms,
        "Monte Carlo over storms, t; storm rates from low to high",
    )
    return Downtime(
        storms,
        float((down_h > 0).mean()),
        per_storm,
        per_year,
        _cable_min_per_year(domains, needs),
    )


def storm_downtime_h(
    domains: tuple[str | None, ...], needs: Sequence[Quorum], seed: int, storms: int = STORMS
) -> NDArray[np.float64]:
    """Hours without a quorum after each of `storms` storms, shape (storms,)."""
    h = hazards()
    rng = np.random.default_rng(chance.draw(seed, _STORM_DRAW))
    n = len(domains)
    core = rng.integers(len(COASTAL), size=storms)
    away_h = np.zeros((storms, n))
    for cause in ("node", "fibre"):
        hit, length = rng.random((storms, n)), rng.weibull(h["storm.weibull_shape"], (storms, n))
        length = np.minimum(length * h["storm.weibull_scale"], h["storm.cap"])
        for node, domain in enumerate(domains):
            if domain not in ISLAND:
                continue
            inside = np.array([domain == name for name in COASTAL])[core]
            share = np.where(inside, h[f"storm.{cause}_core"], h[f"storm.{cause}_flank"])
            struck = hit[:, node] < share
            away_h[struck, node] = np.maximum(away_h[struck, node], length[struck, node])
    # Voters come back in this order; a quorum is back when their votes together are enough.
    order = np.argsort(away_h, axis=1, kind="stable")
    down = np.zeros(storms)
    for need in needs:
        votes = np.cumsum(np.array(need.weights or (1,) * n)[order], axis=1)
        last = np.argmax(votes >= need.votes, axis=1)
        down = np.maximum(down, away_h[np.arange(storms), order[np.arange(storms), last]])
    return down


def _cable_min_per_year(domains: tuple[str | None, ...], needs: Sequence[Quorum]) -> float:
    """Minutes per year without a quorum on either side of the strait, if one crossing carries all traffic (A)."""
    island = [node for node, domain in enumerate(domains) if domain in ISLAND]
    mainland = [node for node in range(len(domains)) if node not in island]
    if not island or any(all(need.met_by(side) for need in needs) for side in (island, mainland)):
        return 0.0
    h = hazards()
    return h["cable.rate"] * h["cable.repair"] * _HOUR_MIN
