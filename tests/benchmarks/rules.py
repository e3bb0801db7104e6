"""What 100 message rules cost: CPU time of PBFT with 64 voters, with and without them, in turns in one process.

    python tests/benchmarks/rules.py

Three lists of a hundred rules: `links`, each delaying every COMMIT on one link of its own; `looked at`, each
matching all types, senders and receivers at a view that never comes; `dropped`, each dropping one voter's PREPAREs
to one other. Prints the ratio of the best times of several turns (the machine may be busy with other things).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from sim.engine import loop
from sim.scenario.build import build
from sim.scenario.load import load_scenario

SCENARIO = Path(__file__).parents[2] / "scenarios" / "bench" / "pbft-whole.yaml"
RULES, VOTERS, DECISIONS = 100, 64, 400


def lists() -> dict[str, list[dict[str, Any]]]:
    """The lists of rules to compare, by name."""
    links = [(i % VOTERS, (i * 7 + 1) % VOTERS) for i in range(RULES)]
    links = [(a, b if a != b else (b + 1) % VOTERS) for a, b in links]
    return {
        "none": [],
        "links": [{"types": ["COMMIT"], "src": [a], "dst": [b], "delay_by": "10 us"} for a, b in links],
        "looked at": [{"view": 1_000_000 + i, "drop": True} for i in range(RULES)],
        "dropped": [{"types": ["PREPARE"], "src": [a], "dst": [b], "drop": True} for a, b in links],
    }


def seconds(rules: list[dict[str, Any]]) -> float:
    """CPU time per decision of one run."""
    import json

    chosen = load_scenario(
        SCENARIO,
        [f"network.nodes={VOTERS}", f"stop_after_decisions={DECISIONS}", f"rules={json.dumps(rules)}"],
    )
    world = build(chosen)
    begin = time.process_time()
    assert world.clock.drive(world.run.advance, loop.UNTIL, chosen.duration_ns) == loop.STOP
    return (time.process_time() - begin) / DECISIONS


def main() -> None:
    """Measure in turns and print a line per list."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    turns = parser.parse_args().turns
    best: dict[str, float] = {}
    for _ in range(turns):
        for name, rules in lists().items():
            best[name] = min(best.get(name, float("inf")), seconds(rules))
    for name, time_s in best.items():
        print(f"{name:<10} {time_s * 1e6:8.1f} us per decision, {time_s / best['none'] - 1:+.1%}")


if __name__ == "__main__":
    main()
