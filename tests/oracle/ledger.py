"""A ledger in plain Python that executes what a run has executed, one transaction after the other.

It shares with the engine the tables of skewed choices and nothing else: keys are a dictionary of (last writer, held,
frozen), a transaction's fate follows from what its class says of its keys, and chance is the mixer as published.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from sim.kernel.chance import KEYS
from sim.workload.keys import KeyAccess, skew_steps

_MASK = (1 << 64) - 1


def _join(state: int, key: int) -> int:
    """SplitMix64's finaliser over a state and one more key."""
    x = (state + 0x9E3779B97F4A7C15 + key * 0x94D049BB133111EB) & _MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK
    return x ^ (x >> 31)


def _below(draw: int, bound: int) -> int:
    return ((draw >> 32) * bound) >> 32


@dataclasses.dataclass
class Key:
    """What the state says of a key."""

    height: int = 0
    place: int = -1
    held: bool = False
    frozen: bool = False

    def word(self) -> int:
        """As the engine packs it."""
        version = (self.height << 21) + self.place + 1 if self.height else 0
        return version << 2 | self.frozen << 1 | self.held


@dataclasses.dataclass(frozen=True)
class Kind:
    """A class of transactions: what it does with keys, and whether it supervises."""

    accesses: tuple[KeyAccess, ...]
    supervises: bool = False
    follows: int | None = None  # the class whose keys it touches, where they share a space


class Ledger:
    """Execute transactions in their order; `aborts`: who has read something out of date has no effect."""

    def __init__(self, seed: int, spaces: dict[str, int], kinds: Sequence[Kind], *, aborts: bool) -> None:
        self.seed, self.spaces, self.kinds, self.aborts = seed, spaces, kinds, aborts
        self.first, total = {}, 0
        for name, size in spaces.items():
            self.first[name] = total
            total += size
        self.streams: list[list[int]] = []  # class -> access -> the number of the access whose draws it has
        numbered = 0
        for kind in kinds:
            own = list(range(numbered, numbered + len(kind.accesses)))
            numbered += len(kind.accesses)
            if kind.follows is not None:
                led = [access.space for access in kinds[kind.follows].accesses]
                for i, access in enumerate(kind.accesses):
                    if access.space in led:
                        own[i] = self.streams[kind.follows][led.index(access.space)]
            self.streams.append(own)
        self.keys: dict[int, Key] = {}
        self.root = 0

    def touched(self, class_: int, number: int) -> Iterator[tuple[KeyAccess, int]]:
        """Each access of a transaction with a key that it draws."""
        for i, access in enumerate(self.kinds[class_].accesses):
            for place in range(access.count):
                draw = _join(_join(_join(_join(0, self.seed), KEYS), number), self.streams[class_][i] * 64 + place)
                yield access, self.first[access.space] + self._choice(access, draw)

    def _choice(self, access: KeyAccess, draw: int) -> int:
        size = self.spaces[access.space]
        if not access.skew or size == 1:
            return _below(draw, size)
        table = skew_steps(size, access.skew).tolist()
        step = bisect.bisect_right([below_ for _, below_ in table], draw >> 32)
        start = table[step][0]
        end = table[step + 1][0] if step + 1 < len(table) else size
        return start + _below(_join(draw, 1), end - start)

    def execute(self, class_: int, number: int, height: int, place: int, read_at: int) -> str:
        """The fate of a transaction, which has its effect."""
        kind, found = self.kinds[class_], list(self.touched(class_, number))
        states = [(access, self.keys.setdefault(key, Key())) for access, key in found]
        if self.aborts and any(access.reads and key.height > read_at for access, key in states):
            return "conflict"
        for access, key in states:
            if access.needs != "any" and key.held != (access.needs == "held"):
                return "refused"
            if access.writes and key.frozen and not (access.ignores_freeze or kind.supervises):
                return "refused"
        slipped = False
        for (access, key), (_, name) in zip(states, found, strict=True):
            if not access.writes:
                continue
            slipped |= key.frozen and not kind.supervises
            key.height, key.place = height, place
            key.held = {"held": True, "free": False}.get(access.leaves, key.held)
            key.frozen = {"frozen": True, "thawed": False}.get(access.leaves, key.frozen)
            self.root = _join(_join(self.root, name), key.word())
        return "valid though frozen" if slipped else "valid"

    def signed_root(self) -> int:
        """The root as the engine holds it, a signed integer."""
        return self.root - (1 << 64) if self.root >> 63 else self.root


def replay(ledger: Ledger, executed: dict[str, Any], names: list[str]) -> list[str]:
    """The fate of every transaction on record."""
    columns = (executed[name] for name in ("class", "number", "height", "place", "read_at_height"))
    rows = zip(*columns, strict=True)
    return [
        ledger.execute(names.index(c), int(number), int(height), int(place), int(read_at))
        for c, number, height, place, read_at in rows
    ]
