"""D2: the quorum of IBFT v1.

R. Saltini, D. Hyland-Wood, "Correctness Analysis of IBFT", arXiv 1901.07160, 2019.

2F + 1 with F = floor((n - 1) / 3) is a Byzantine quorum for n = 3F + 1 only. The control is ceil(2n / 3).
"""

from __future__ import annotations

import json

from sim.plan.attacks import Attack, Pair, Play, Seen, agrees, both, forks, goes_on
from sim.protocols.ibft import Ibft
from sim.scenario.run import Result

UNSAFE, SAFE = (5, 6, 8, 9, 11, 12), (4, 7, 10, 13)


class TwoThirds(Ibft):
    """The quorum as Quorum has it since 2020."""

    def quorum_size(self) -> int:
        return -(-2 * self.context.n // 3)


def by_the_equivocator(result: Result) -> Seen:
    """The fork is proven, and its culprits are corrupted ones."""
    seen = forks(result)
    first = next((violation for violation in result.violations if violation.check == "agreement"), None)
    guilty = set() if first is None else set(first.culprits)
    byzantine = range((result.scenario.network.n - 1) // 3)
    return Seen(seen.as_expected and bool(guilty) and guilty <= set(byzantine), seen.text)


def by_nobody(result: Result) -> Seen:
    """The fork is proven, and no replica signed both blocks."""
    seen = forks(result)
    first = next((violation for violation in result.violations if violation.check == "agreement"), None)
    return Seen(seen.as_expected and first is not None and first.culprits == (), seen.text)


def equivocation(n: int) -> Pair:
    """F Byzantine validators among n: the first proposer shows two blocks, the others vote for both."""
    f = (n - 1) // 3
    middle = f + (n - f + 1) // 2  # the correct ones are split as evenly as can be
    corrupted = [{"nodes": [0], "behaviour": "equivocating", "groups": [[*range(1, middle)], [*range(middle, n)]]}]
    if f > 1:
        corrupted.append({"nodes": [*range(1, f)], "behaviour": "double-voting"})
    sets = (f"network.nodes={n}", "duration=3 s", "liveness_bound=60 s", f"corrupted={json.dumps(corrupted)}")
    flawed = Play("d2-equivocation.yaml", by_the_equivocator if n in UNSAFE else agrees, sets)
    return Pair(
        f"(a) n = {n}, {f} Byzantine, 2F + 1 = {2 * f + 1}, {'unsafe' if n in UNSAFE else 'safe'}",
        flawed,
        Play("d2-equivocation.yaml", agrees, sets, TwoThirds),
    )


ATTACK = Attack(
    "D2",
    "IBFT v1, quorum 2F + 1",
    "Saltini and Hyland-Wood, arXiv 1901.07160",
    "two final blocks at one height, with both certificates and the culprit; unsafe for n = 5, 6, 8, 9, 11, 12, "
    "safe for 4, 7, 10, 13",
    "quorum ceil(2n / 3): (a) agrees, (b) stalls and recovers",
    (
        *(equivocation(n) for n in sorted(UNSAFE + SAFE)),
        Pair(
            "(b) n = 6, a 3 and 3 partition, nobody Byzantine",
            Play("d2-partition.yaml", by_nobody),
            Play("d2-partition.yaml", both(agrees, goes_on(within_s=3.0, after_s=4.0)), protocol=TwoThirds),
        ),
    ),
)
