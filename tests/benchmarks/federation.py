"""How much longer chains take in one run than apart, in turn: `python tests/benchmarks/federation.py`."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from sim.plan.federation import run_federation
from sim.scenario.federation import load_federation
from sim.scenario.run import run

FOLDER = Path(__file__).parents[2] / "scenarios" / "federations"


def seconds(work: Callable[[], object]) -> float:
    """Wall time of some work."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    """Print the median of the ratios for each federation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    turns = parser.parse_args().turns
    for file in sorted(FOLDER.glob("*.yaml")):
        federation = load_federation(file)
        apart = lambda chosen=federation: [run(scenario) for scenario in chosen.scenarios.values()]  # noqa: E731
        together = lambda chosen=federation: run_federation(chosen)  # noqa: E731
        ratios = [seconds(together) / seconds(apart) for _ in range(turns)]
        print(f"{federation.name}: {statistics.median(ratios):.2f} times as long as apart")


if __name__ == "__main__":
    main()
