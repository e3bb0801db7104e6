"""PBFT's fault-free normal case on the oracle: how fast is one SimPy event per message and queue step?

`decisions_per_second(n, decisions)` is the yardstick of `pilotzone bench`, which imports this file by its path
when the checkout is there. Pre-prepare, prepares and commits to all, one batch under way at a time.
"""

from __future__ import annotations

import time
from typing import Any

from tests.oracle.engine import Oracle
from tests.oracle.world import ALL, GATE, Kind, Network, Tally

FOREVER_NS = 1 << 60


class Pbft:
    """n replicas, replica 0 is the primary; a replica is two tallies per sequence number."""

    def __init__(self, network: Network, kinds: tuple[Kind, Kind, Kind], decisions: int) -> None:
        self.network, self.kinds, self.decisions = network, kinds, decisions
        self.oracle = Oracle(network, self.wake)
        self.faulty = (network.nodes - 1) // 3
        self.quorum = (network.nodes + self.faulty) // 2 + 1
        self.tallies: dict[int, tuple[Tally, Tally]] = {}
        self.of_tally: dict[int, tuple[int, int]] = {}  # tally -> sequence number, 0 for prepare or 1 for commit
        self.decided: list[list[int]] = []  # per sequence number: when each replica decided, ns
        self.of_message: dict[int, int] = {}

    def propose(self) -> None:
        """The primary's pre-prepare of the next batch."""
        number = len(self.decided)
        self.decided.append([])
        _, prepare_kind, commit_kind = self.kinds
        prepare = self.oracle.open_tally(prepare_kind, 2 * number, (GATE + self.quorum - 1,))
        commit = self.oracle.open_tally(commit_kind, 2 * number + 1, (self.quorum,))
        self.tallies[number] = prepare, commit
        self.of_tally[id(prepare)], self.of_tally[id(commit)] = (number, 0), (number, 1)
        self.oracle.open_gate(0, prepare, 0)
        self.of_message[self.oracle.post(0, ALL, self.kinds[0], number).number] = number

    def wake(self, what: str, node: int, *detail: Any) -> None:
        """Upon a pre-prepare: prepare. Upon 2f prepares: commit. Upon 2f + 1 commits: decide."""
        if what == "message":
            prepare, _ = self.tallies[self.of_message[detail[0].number]]
            self.oracle.open_gate(node, prepare, 0)
            self.oracle.vote(node, prepare)
            return
        number, phase = self.of_tally[id(detail[0])]
        if phase == 0:
            self.oracle.vote(node, self.tallies[number][1])
            return
        self.decided[number].append(self.oracle.now)
        if node == 0 and number + 1 < self.decisions:
            self.propose()

    def run(self) -> None:
        """Run until every replica has decided every batch."""
        self.propose()
        self.oracle.run(FOREVER_NS)


def lan(n: int, *, latency_ns: int = 1_000_000) -> Network:
    """n replicas at equal distances, 1 Gbit/s, with jitter: the network of the benchmark."""
    return Network(
        nodes=n,
        latency_ns=((latency_ns,),),
        site_of=(0,) * n,
        tx_ps=(8000,) * n,
        rx_ps=(8000,) * n,
        cpu_q10=(1024,) * n,
        jitter="proportional",
        jitter_span=1 << 17,
    )


COSTS = (Kind(2, 560, 20_000, 50_000, 2_000), Kind(3, 112, 20_000, 50_000, 2_000), Kind(4, 112, 20_000, 50_000, 2_000))


def decisions_per_second(n: int, decisions: int, network: Network | None = None) -> float:
    """Decisions per second of wall-clock time."""
    pbft = Pbft(network or lan(n), COSTS, decisions)
    begin = time.perf_counter()
    pbft.run()
    return decisions / (time.perf_counter() - begin)


if __name__ == "__main__":
    for replicas, batches in ((4, 500), (16, 30), (32, 8), (64, 2)):
        print(f"n={replicas}: {decisions_per_second(replicas, batches):.3g} decisions/s")
