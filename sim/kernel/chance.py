"""Chance: every random draw is a pure function of (seed, purpose, keys).

No generator carries state, so one more draw here never moves a draw there: two designs can be compared under
common random numbers, and an observer or an added fault leaves every other draw as it was.

The mixer is the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014, "Fast splittable pseudorandom number
generators"), applied once per key. Distributions go through tables of integers made with exact decimal
arithmetic, because libm's log and exp may differ in the last bit between machines.
"""

from __future__ import annotations

import decimal
import functools

import numpy as np

from sim.kernel.run_state import compiled

MASK64 = (1 << 64) - 1
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_S27, _S30, _S31, _S32, _S34 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32), np.uint64(34)

# Purposes. A number is never used twice and never changes its meaning; 5 has been used.
JITTER = 1
LOSS = 2
DUPLICATE = 3
ARRIVALS = 4
TIMEOUT = 6
PLACEMENT = 7
LATENCY_PAIR = 8
WORKLOAD = 9
FAULT = 10
REPLICATION = 11
TOPOLOGY = 12
RULE_DELAY = 13
TURN_DRAW = 14
THINK = 15
LOOK = 16
KEYS = 17
ORDERER = 18

TABLE = 1024  # intervals of a quantile table
Q20 = 1 << 20


@compiled
def mix(x):
    """SplitMix64 finaliser: uint64 -> uint64."""
    x = np.uint64(x)
    x ^= x >> _S30
    x *= _M1
    x ^= x >> _S27
    x *= _M2
    x ^= x >> _S31
    return x


@compiled
def join(state, key):
    """Fold one more key into a draw; order matters."""
    return mix(np.uint64(state) + _GOLDEN + np.uint64(key) * _M2)


@compiled
def below(draw, bound):
    """A draw -> an integer in [0, bound), bound < 2**31, from the draw's high 32 bits."""
    return np.int64(((draw >> _S32) * np.uint64(bound)) >> _S32)


@compiled
def part_of(draw, bound):
    """A draw -> an integer in [0, bound) as one of 2**30 steps; 0 if bound is 0. For spans of more than 2 s."""
    steps = np.int64(draw >> _S34)
    return ((steps * (bound >> 20)) >> 10) + ((steps * (bound & 0xFFFFF)) >> 30)


@compiled
def exponential_ns(state, mean_ns, table):
    """An exponential wait with the given mean, ns; `table` is `exponential_table()`.

    Linear between quantiles; beyond the last one the memoryless property starts afresh, so the tail is exact
    in shape.
    """
    base = np.int64(0)
    draw = join(state, 0)
    tries = 0
    while True:
        position = below(draw, TABLE)
        if position < TABLE - 1:
            fraction = np.int64(draw & np.uint64(0xFFFFF))
            q = table[position] + (((table[position + 1] - table[position]) * fraction) >> 20)
            return base + ((q * (mean_ns >> 10)) >> 10) + ((q * (mean_ns & 1023)) >> 20)
        tries += 1
        base += ((table[TABLE - 1] * (mean_ns >> 10)) >> 10) + ((table[TABLE - 1] * (mean_ns & 1023)) >> 20)
        draw = join(state, tries)


def _mix(x: int) -> int:
    x ^= x >> 30
    x = (x * 0xBF58476D1CE4E5B9) & MASK64
    x ^= x >> 27
    x = (x * 0x94D049BB133111EB) & MASK64
    return x ^ (x >> 31)


def draw(*keys: int) -> int:
    """The draw for (seed, purpose, keys...): an integer in [0, 2**64). Equals the compiled chain of `join`s."""
    state = 0
    for key in keys:
        state = _mix((state + 0x9E3779B97F4A7C15 + (key & MASK64) * 0x94D049BB133111EB) & MASK64)
    return state


def draw_below(bound: int, *keys: int) -> int:
    """An integer in [0, bound) for (seed, purpose, keys...), from the high 32 bits; bound < 2**31."""
    return ((draw(*keys) >> 32) * bound) >> 32


@functools.cache
def exponential_table() -> np.ndarray:
    """Quantiles of the exponential distribution with mean 1 at k/TABLE, Q20 integers, shape (TABLE,)."""
    with decimal.localcontext() as context:
        context.prec = 16
        size = decimal.Decimal(TABLE)
        top = size.ln()
        rows = [int((top - (size - k).ln()) * Q20) for k in range(TABLE)]
    return np.array(rows, dtype=np.int64)


def lognormal_table(sigma: float) -> np.ndarray:
    """Quantiles of exp(sigma*Z - sigma^2/2) (mean 1) at (k+1/2)/TABLE, Q20 integers, shape (TABLE + 1,).

    Z's quantiles by Acklam's rational approximation in decimal arithmetic (relative error under 1.2e-9).
    """
    with decimal.localcontext() as context:
        context.prec = 18
        s = decimal.Decimal(repr(sigma))
        rows = []
        for k in range(TABLE + 1):
            u = (decimal.Decimal(k) + decimal.Decimal("0.5")) / (TABLE + 1)
            rows.append(int((s * _normal_quantile(u) - s * s / 2).exp() * Q20))
    return np.array(rows, dtype=np.int64)


_A = (
    "-39.69683028665376",
    "220.9460984245205",
    "-275.9285104469687",
    "138.357751867269",
    "-30.66479806614716",
    "2.506628277459239",
)
_B = (
    "-54.47609879822406",
    "161.5858368580409",
    "-155.6989798598866",
    "66.80131188771972",
    "-13.28068155288572",
    "1",
)
_C = (
    "-0.007784894002430293",
    "-0.3223964580411365",
    "-2.400758277161838",
    "-2.549732539343734",
    "4.374664141464968",
    "2.938163982698783",
)
_D = ("0.007784695709041462", "0.3224671290700398", "2.445134137142996", "3.754408661907416", "1")


def _polynomial(coefficients: tuple[str, ...], x: decimal.Decimal) -> decimal.Decimal:
    total = decimal.Decimal(0)
    for c in coefficients:
        total = total * x + decimal.Decimal(c)
    return total


def _normal_quantile(u: decimal.Decimal) -> decimal.Decimal:
    edge = decimal.Decimal("0.02425")
    if u < edge:
        q = (-2 * u.ln()).sqrt()
        return _polynomial(_C, q) / _polynomial(_D, q)
    if u > 1 - edge:
        return -_normal_quantile(1 - u)
    q = u - decimal.Decimal("0.5")
    r = q * q
    return _polynomial(_A, r) * q / _polynomial(_B, r)
