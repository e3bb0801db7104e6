"""What execution costs the simulator: `python tests/benchmarks/execution.py` at 10,000 tx/s."""

from __future__ import annotations

import argparse
import statistics
import time

import sim
from tests.runs import scenario

PROTOCOLS = ("pbft", "qbft", "raft", "hotstuff")
COSTS = {
    "eight lanes": {"execute": "0.2 ms", "lanes": 8},
    "and state": {"execute": "0.2 ms", "lanes": 8, "execute_io": "10 us"},
}
LOAD = [{"kind": "open", "rate": "10000 tx/s", "bytes": "500 B"}]


def seconds(protocol: str, cpu: dict[str, object] | None) -> float:
    """Processor time of a run of seven voters over twenty simulated seconds."""
    more = {} if cpu is None else {"cpu": cpu}
    chosen = scenario(7, protocol=protocol, duration="20 s", workload=LOAD, block={"max_transactions": 2000}, **more)
    begun = time.process_time()
    sim.run(chosen)
    return time.process_time() - begun


def main() -> None:
    """Measure in turns, and print the median ratio of each protocol and cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    turns = parser.parse_args().turns
    for protocol in PROTOCOLS:
        seconds(protocol, None)  # compiles
        plain = [(seconds(protocol, None), *(seconds(protocol, cpu) for cpu in COSTS.values())) for _ in range(turns)]
        ratios = [statistics.median(row[k] / row[0] for row in plain) for k in range(1, len(COSTS) + 1)]
        print(protocol, ", ".join(f"{name} {ratio:.2f}" for name, ratio in zip(COSTS, ratios, strict=True)))


if __name__ == "__main__":
    main()
