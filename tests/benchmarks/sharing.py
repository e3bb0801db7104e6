"""What sharing a network card costs: CPU time of PBFT with 64 voters, side by side and in a queue, in turns.

    python tests/benchmarks/sharing.py

Two networks: `idle`, the whole-engine row of `pilotzone bench`, whose cards of 10 Gbit/s send one message at a time;
and `busy`, cards of 100 Mbit/s with clients' transactions and answers among blocks and votes, so that trains are taken
apart. Prints the ratio of the best times of several turns per message (the machine may be busy with other things).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from sim.engine import loop
from sim.kernel import run_state as d
from sim.scenario.build import build
from sim.scenario.load import load_scenario

SCENARIO = Path(__file__).parents[2] / "scenarios" / "bench" / "pbft-whole.yaml"
NETWORKS = {
    "idle": ["stop_after_decisions=400"],
    "busy": [
        "stop_after_decisions=60",
        "network.bandwidth=100 Mbit/s",
        "block.max_transactions=200",
        "workload=[{kind: open, rate: 1000 tx/s, bytes: 500 B}]",
    ],
}
SHARINGS = ("fifo", "fair", "priority")


def nanoseconds(network: str, sharing: str) -> float:
    """CPU time per message of one run."""
    chosen = load_scenario(SCENARIO, ["network.nodes=64", f"network.sharing={sharing}", *NETWORKS[network]])
    world = build(chosen)
    begin = time.process_time()
    assert world.clock.drive(world.run.advance, loop.UNTIL, chosen.duration_ns) == loop.STOP
    return (time.process_time() - begin) * 1e9 / int(world.run.run_state[d.SENT])


def main() -> None:
    """Measure in turns and print a line per network and way of sharing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    turns = parser.parse_args().turns
    best: dict[tuple[str, str], float] = {}
    for _ in range(turns):
        for network in NETWORKS:
            for sharing in SHARINGS:
                found = nanoseconds(network, sharing)
                best[network, sharing] = min(best.get((network, sharing), float("inf")), found)
    for (network, sharing), time_ns in best.items():
        print(f"{network:<5} {sharing:<9} {time_ns:7.1f} ns per message, {time_ns / best[network, 'fifo']:.2f} of fifo")


if __name__ == "__main__":
    main()
