"""Time of processing per message, fitted: `python -m tests.live.fit`. One number a platform, from its `lan` row alone.

The model has no processors here, so what software takes from a message's arrival to its handler is a constant of the
platform on that machine (`network.processing`). It is the time with which the median of lone requests at all four sites
comes out best on links of 0.25 ms. Platforms whose timers hide it there (GoQuorum with QBFT, Clique) have none.
"""

from __future__ import annotations

import functools
import statistics

from sim.scenario.run import run
from tests.live.cases import SETTINGS, scenario_of

# Measured on `lan`, ms, by site: medians of lone requests, or means where their tails are those of Poisson arrivals.
LONE_MS: dict[tuple[str, str], tuple[float | None, ...]] = {
    ("cometbft", "F-closed"): (25.82, 26.75, 25.70, 24.43),
    ("goquorum-raft", "p10"): (22.28, 23.85, 25.09, 26.34),
    ("chainmaker-tbft", "closed"): (23.94, 23.75, 24.88, 23.95),
    ("chainmaker-raft", "closed"): (12.33, 13.79, 14.41, 13.48),
    ("etcd", "closed"): (1.156, 1.80),
    ("fabric-raft", "m1-closed"): (20.84, 21.99),
    ("fabric-smartbft", "bftm-closed"): (None, None, 25.14, 26.75),
}
_STEP_NS = 1_000_000


def _waits_ms(system: str, case: str, site: int, processing_ns: int) -> float:
    chosen = scenario_of(system, case, "lan", site if SETTINGS[system, case][1] else None)
    network = chosen.network.model_copy(update={"processing_ns": processing_ns})
    table = run(chosen.model_copy(update={"network": network})).tables["latency_by_place"]
    return float(dict(zip(table["place"], table["mean_ms"], strict=True))[str(site - 1)])


@functools.cache
def fitted_ms(system: str, case: str) -> float:
    """The median over sites of what is lacking, divided by what a millisecond of processing adds."""
    found = []
    for site, measured_ms in enumerate(LONE_MS[system, case], start=1):
        if measured_ms is None:
            continue
        without, with_one = (_waits_ms(system, case, site, ns) for ns in (0, _STEP_NS))
        found.append((measured_ms - without) / (with_one - without))
    return statistics.median(found)


def main() -> None:
    """Print what fits."""
    for system, case in LONE_MS:
        print(f"{system}: {fitted_ms(system, case):.2f} ms a message ({case})")


if __name__ == "__main__":
    main()
