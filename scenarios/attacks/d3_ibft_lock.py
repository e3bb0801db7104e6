"""D3: the locks of IBFT v1 hold up a height for ever.

R. Saltini, D. Hyland-Wood, "Correctness Analysis of IBFT", arXiv 1901.07160, 2019, section 7.1.

Two correct validators are locked on different blocks, one validator is down: no block can get a quorum of votes any
more. The safe quorum, ceil(2n / 3) = 4 of 5, is used, so that this is the locks' flaw alone. The control is QBFT,
whose round changes carry prepared certificates in place of locks.
"""

from __future__ import annotations

from sim.plan.attacks import Attack, Pair, Play, goes_on, livelocks
from sim.protocols.ibft import Ibft


class TwoThirds(Ibft):
    """Flawed by its locks only."""

    def quorum_size(self) -> int:
        return -(-2 * self.context.n // 3)


ATTACK = Attack(
    "D3",
    "IBFT v1, deadlock of locks",
    "Saltini and Hyland-Wood, arXiv 1901.07160, 7.1",
    "the height is frozen for ever, reported as livelock and not as slowness",
    "QBFT decides within two rounds of honest leaders",
    (
        Pair(
            "n = 5, two locks and a crash",
            Play("d3-deadlock.yaml", livelocks, protocol=TwoThirds),
            # Rounds 2 and 3 last up to 2 s and 4 s; the network is perfect from 1 s on.
            Play("d3-control.yaml", goes_on(within_s=6.0, after_s=1.0)),
        ),
    ),
)
