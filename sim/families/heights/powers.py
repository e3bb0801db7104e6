"""Voting power: quorums of voters who do not weigh the same, and whose turn it is to propose.

Turns are Tendermint's weighted round robin (the proposer priority of CometBFT, spec/consensus/proposer-selection.md):
at every step each voter's priority grows by its power; the highest priority has the turn, of several the lowest number,
and pays the total power. Where voters never change, over as many steps as the total power each has exactly its power in
turns, and all priorities are back where they began.

Where they change, priorities go on: who joins begins at -9/8 of the new total, so that nobody gains by leaving and
coming back; then all are scaled into a window of twice the total, and centred.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

POWER_MAX = (1 << 21) - 1  # of all voters together: what a tally can count


class Powers:
    """Voting powers, whole numbers, one per replica; 0: it has no vote. `priorities`: with which turns begin."""

    def __init__(self, powers: tuple[int, ...], priorities: tuple[int, ...] = ()) -> None:
        self.powers = powers
        self.total = sum(self.powers)
        self._goes_round = not priorities  # turns repeat after `total` steps
        self._first = list(priorities) or [0] * len(powers)
        self._priorities = self._first
        self._turns: list[int] = []  # of the steps asked for so far

    @property
    def weights(self) -> tuple[int, ...]:
        """For `Quorum.weights`: empty if all have the same power."""
        return () if max(self.powers) == min(self.powers) == 1 else self.powers

    def quorum(self) -> int:
        """The least power above two thirds: 2f + 1 of 3f + 1."""
        return 2 * self.total // 3 + 1

    def one_correct(self) -> int:
        """The least power that cannot be all Byzantine: f + 1 of 3f + 1."""
        return (self.total - 1) // 3 + 1

    def turn(self, step: int) -> int:
        """Whose turn step 0, 1, 2, ... is. Computed as far as asked for, at most once around."""
        if self._goes_round:
            step %= self.total
        while len(self._turns) <= step:
            self._turns.append(self._next())
        return self._turns[step]

    def _next(self) -> int:
        priorities = [priority + power for priority, power in zip(self._priorities, self.powers, strict=True)]
        voters = (voter for voter, power in enumerate(self.powers) if power)
        chosen = max(voters, key=lambda voter: (priorities[voter], -voter))
        priorities[chosen] -= self.total
        self._priorities = priorities
        return chosen

    def changed(self, steps: int, powers: tuple[int, ...]) -> Powers:
        """Other powers after so many steps; priorities go on as in CometBFT (ValidatorSet.UpdateWithChangeSet)."""
        before = Powers(self.powers, tuple(self._first))
        for _ in range(steps % self.total if self._goes_round else steps):
            before._next()
        staying = [voter for voter, power in enumerate(powers) if power]
        total = sum(power or old for power, old in zip(powers, self.powers, strict=True))  # those who leave included
        priorities = {voter: before._priorities[voter] for voter in staying}
        priorities |= {voter: -(total + total // 8) for voter in staying if not self.powers[voter]}
        window, spread = 2 * sum(powers), max(priorities.values()) - min(priorities.values())
        if spread > window:
            ratio = -(-spread // window)
            priorities = {voter: abs(p) // ratio * (1 if p > 0 else -1) for voter, p in priorities.items()}
        centre = sum(priorities.values()) // len(staying)
        return Powers(powers, tuple(priorities.get(voter, centre) - centre for voter in range(len(powers))))


@functools.lru_cache(maxsize=8)
def powers_of(powers: tuple[int, ...]) -> Powers:
    """Powers that never change, in units of their greatest common divisor, worked out once for all replicas."""
    unit = math.gcd(*powers)
    return Powers(tuple(power // unit for power in powers))


@functools.lru_cache(maxsize=64)
def powers_after(history: tuple[tuple[int, tuple[int, ...]], ...]) -> Powers:
    """Powers that change: (height from which in force, powers), ascending. Step 0 is that of the last height."""
    if len(history) == 1:
        return Powers(history[0][1])
    (before, _), (height, powers) = history[-2:]
    return powers_after(history[:-1]).changed(height - before, powers)


def powers_at(
    height: int, power: tuple[int, ...], validator_sets: Iterable[tuple[int, tuple[int, ...]]]
) -> tuple[int, Powers]:
    """Since when the powers of a height are in force, and which they are: `power` for members, 0 for others.

    `validator_sets`: (height from which in force, members), ascending, from height 1 on.
    """
    known = [(first, members) for first, members in validator_sets if first <= height or first == 1]
    changes = [pair for i, pair in enumerate(known) if i == 0 or pair[1] != known[i - 1][1]]
    everybody = range(len(power))
    history = tuple((first, tuple(power[i] * (i in members) for i in everybody)) for first, members in changes)
    return history[-1][0], powers_after(history)


def check_power(power: tuple[int, ...] | None, voters: int) -> None:
    """Raise ValueError if the parameter `power` does not fit the number of voters."""
    if power is not None and len(power) != voters:
        raise ValueError(f"power: {len(power)} values for {voters} voters; give each voter one, or leave power out")
    if power is not None and sum(power) > POWER_MAX:
        raise ValueError(f"power: adds up to {sum(power)}, at most {POWER_MAX}; give it in a larger unit")
