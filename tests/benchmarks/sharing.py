"""What sharing a network card costs: `python tests/benchmarks/sharing.py`, some rows of `pilotzone bench` alone."""

from __future__ import annotations

import argparse

from sim.bench import measure_sharing, sharing_line


def main() -> None:
    """Measure in turns and print a line per network and way of sharing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    for row in measure_sharing(parser.parse_args().turns):
        print(sharing_line(row))


if __name__ == "__main__":
    main()
