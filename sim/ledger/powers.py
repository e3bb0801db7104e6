"""Voting power: quorums of voters who do not weigh the same, and whose turn it is to propose.

Turns are Tendermint's weighted round robin (the proposer priority of CometBFT, spec/consensus/proposer-selection.md,
for a set of voters that never changes): at every step each voter's priority grows by its power; the highest
priority has the turn, of several the lowest number, and pays the total power. Over as many steps as the total power
each voter has exactly its power in turns, and all priorities are back where they began.
"""

from __future__ import annotations

import functools
import math


class Powers:
    """Voting powers, whole numbers from 1, in units of their greatest common divisor."""

    def __init__(self, powers: tuple[int, ...]) -> None:
        unit = math.gcd(*powers)
        self.powers = tuple(power // unit for power in powers)
        self.total = sum(self.powers)
        self._priorities = [0] * len(powers)
        self._turns: list[int] = []  # of the steps asked for so far

    @property
    def weights(self) -> tuple[int, ...]:
        """For `Quorum.weights`: empty if all powers are equal."""
        return () if max(self.powers) == 1 else self.powers

    def quorum(self) -> int:
        """The least power above two thirds: 2f + 1 of 3f + 1."""
        return 2 * self.total // 3 + 1

    def one_correct(self) -> int:
        """The least power that cannot be all Byzantine: f + 1 of 3f + 1."""
        return (self.total - 1) // 3 + 1

    def turn(self, step: int) -> int:
        """Whose turn step 0, 1, 2, ... is. Computed as far as asked for, at most once around."""
        step %= self.total
        while len(self._turns) <= step:
            self._turns.append(self._next())
        return self._turns[step]

    def _next(self) -> int:
        priorities = [priority + power for priority, power in zip(self._priorities, self.powers, strict=True)]
        chosen = max(range(len(priorities)), key=lambda voter: (priorities[voter], -voter))
        priorities[chosen] -= self.total
        self._priorities = priorities
        return chosen


@functools.lru_cache(maxsize=8)
def powers_of(powers: tuple[int, ...]) -> Powers:
    """These powers, worked out once for all replicas of a run."""
    return Powers(powers)
