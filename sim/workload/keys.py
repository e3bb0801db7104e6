"""What transactions do with keyed state: what a scenario says of it, and how choices of keys are skewed."""

from __future__ import annotations

import decimal
import functools
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from sim.parameters import Count, Nanoseconds, Parameters, Problem, RuleError, quantity

KEYS_MAX = 50_000_000  # of all spaces: 400 MB, as far as they are touched
_SINGLE = 256  # ranks that stand alone in a table of skewed choices
_TRIES = 3
_GROWTH = 1.05  # by which the groups of further ranks grow


class KeyAccess(Parameters):
    """Keys of one space that each transaction of a class touches, drawn anew for each."""

    space: str = Field(description="name in state.spaces")
    access: Literal["read", "write", "update"] = Field(
        default="update", description="update: read and write; write: write without looking"
    )
    count: Count = Field(default=1, ge=1, le=64, description="how many keys")
    skew: float = Field(default=0, ge=0, le=4, description="exponent of Zipf's law, 0: all keys alike; 1: as words are")
    needs: Literal["any", "free", "held"] = Field(
        default="any", description="free: refused if somebody holds the key (a pledge), held: if nobody does"
    )
    leaves: Literal["same", "free", "held", "frozen", "thawed"] = Field(
        default="same",
        description="what becomes of the key: somebody holds it, or nobody; frozen: writes to it are refused",
    )
    ignores_freeze: bool = Field(
        default=False, description="a contract that does not look whether a key is frozen: a flaw, which runs report"
    )

    @property
    def reads(self) -> bool:
        """Whether what it does depends on the key."""
        return self.access != "write"

    @property
    def writes(self) -> bool:
        """Whether it changes the key."""
        return self.access != "read"

    @model_validator(mode="after")
    def _sound(self) -> KeyAccess:
        problems = []
        if self.needs != "any" and not self.reads:
            problems.append(Problem(("needs",), "looks at the key; write access: update"))
        if self.leaves != "same" and not self.writes:
            problems.append(Problem(("leaves",), "changes the key; write access: update"))
        if self.ignores_freeze and not self.writes:
            problems.append(Problem(("ignores_freeze",), "is about writes, and this only reads; remove it"))
        if problems:
            raise RuleError(problems)
        return self


class State(Parameters):
    """Keyed state, which blocks change: who conflicts with whom, and what becomes of it."""

    spaces: dict[str, Count] = Field(
        default={}, description="how many keys of each kind there are; those of documented uses are known already"
    )
    conflicts: Literal["serialise", "abort", "retry"] = Field(
        default="serialise",
        description="serialise: transactions are ordered, then executed one by one; abort: they read their keys "
        "where they enter, are ordered, and have no effect if one of those was written since; retry: then clients "
        "send them again",
    )
    tries: Count = Field(default=_TRIES, ge=1, le=1000, description="with retry: how often at most")
    try_again_after_ns: Nanoseconds = quantity("0 s", "with retry: how long after its client has learned of it")
    record: bool = Field(default=False, description="keep a row for every transaction executed (table executed)")

    @model_validator(mode="after")
    def _sound(self) -> State:
        problems = []
        if self.conflicts != "retry":
            given = {"tries": self.tries != _TRIES, "try_again_after": self.try_again_after_ns != 0}
            message = "goes with conflicts: retry; write that, or remove it"
            problems += [Problem((key,), message) for key, is_given in given.items() if is_given]
        problems += [
            Problem(("spaces", name), "has no key; write 1 or more") for name, size in self.spaces.items() if size < 1
        ]
        if problems:
            raise RuleError(problems)
        return self


@functools.cache
def skew_steps(keys: int, exponent: float) -> NDArray[np.int64]:
    """A table of choices by Zipf's law: first rank of each step, and 2**32 times the chance of it or an earlier one.

    Shape (steps, 2). The first 256 ranks stand alone; the others in groups that grow by a twentieth, in which all are
    alike and which weigh what the integral of the law gives them. Decimal arithmetic: the same on every machine.
    """
    firsts = list(range(min(keys, _SINGLE)))
    width = 1.0
    while firsts and firsts[-1] + int(width) < keys and keys > _SINGLE:
        firsts.append(firsts[-1] + int(width))
        width *= _GROWTH
    with decimal.localcontext() as context:
        context.prec = 20
        s, half, one = decimal.Decimal(repr(exponent)), decimal.Decimal("0.5"), decimal.Decimal(1)

        def until(rank: int) -> decimal.Decimal:
            """The integral of x**-s up to the edge before the rank of that number, counted from 0."""
            x = rank + half
            return x.ln() if s == one else ((one - s) * x.ln()).exp() / (one - s)

        weights = []
        for first, end in zip(firsts, [*firsts[1:], keys], strict=True):
            alone = end == first + 1 and first < _SINGLE
            weights.append((-s * decimal.Decimal(first + 1).ln()).exp() if alone else until(end) - until(first))
        total, passed, rows = sum(weights), decimal.Decimal(0), []
        for first, weight in zip(firsts, weights, strict=True):
            passed += weight
            rows.append((first, int(passed / total * (1 << 32))))
    table = np.array(rows, dtype=np.int64)
    table[-1, 1] = 1 << 32
    table.setflags(write=False)
    return table
