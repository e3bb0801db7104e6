"""Keyed draws: the same from Python and from compiled code, evenly spread, with the distributions they claim."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sim.kernel import chance
from sim.kernel.chance import TABLE, below, compiled, exponential_ns, exponential_table, join, lognormal_table, part_of
from tests.oracle import world as oracle

_KEYS = st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1, max_size=5)


@compiled
def _chain(keys, count):
    state = np.uint64(0)
    for i in range(count):
        state = join(state, keys[i])
    return state


@compiled
def _below(keys, count, bound):
    return below(_chain(keys, count), bound)


@compiled
def _part_of(draw, bound):
    return part_of(np.uint64(draw), bound)


@compiled
def _exponentials(seed, mean_ns, table, out):
    for i in range(len(out)):
        out[i] = exponential_ns(join(join(np.uint64(0), seed), i), mean_ns, table)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(_KEYS, st.integers(1, (1 << 31) - 1))
def test_a_draw_in_python_equals_the_compiled_chain_and_the_oracle(keys: list[int], bound: int) -> None:
    array = np.array(keys, dtype=np.int64)
    number = chance.draw(*keys)
    assert number == int(_chain(array, len(keys))) == oracle.draw(*[k & oracle.MASK for k in keys])
    assert chance.draw_below(bound, *keys) == _below(array, len(keys), bound) == oracle.below(number, bound)
    assert 0 <= chance.draw_below(bound, *keys) < bound


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.integers(0, (1 << 64) - 1), st.integers(0, 1 << 52))
def test_a_part_of_a_long_span_lies_where_the_draw_does(draw: int, bound: int) -> None:
    found = int(_part_of(np.uint64(draw), bound))
    assert 0 <= found < max(bound, 1)
    assert 0 <= bound * (draw >> 34) / 2**30 - found < 2 + 2**-10


def test_the_mixer_is_splitmix64() -> None:
    """First outputs of SplitMix64 with seed 1234567, as published with the generator."""
    golden = 0x9E3779B97F4A7C15
    outputs = [chance._mix((1234567 + (i + 1) * golden) & chance.MASK64) for i in range(3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_order_and_number_of_keys_matter() -> None:
    assert len({chance.draw(1, 2), chance.draw(2, 1), chance.draw(1), chance.draw(1, 2, 0), chance.draw(0, 1, 2)}) == 5


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("bins", [2, 10, 97, 256])
def test_draws_are_uniform(seed: int, bins: int) -> None:
    counts = np.bincount([chance.draw_below(bins, seed, chance.JITTER, i) for i in range(20_000)], minlength=bins)
    assert stats.chisquare(counts).pvalue > 1e-4


def test_neighbouring_keys_are_uncorrelated() -> None:
    a = np.array([chance.draw(1, i) for i in range(20_000)], dtype=np.float64)
    b = np.array([chance.draw(1, i + 1) for i in range(20_000)], dtype=np.float64)
    c = np.array([chance.draw(2, i) for i in range(20_000)], dtype=np.float64)
    for other in (b, c):
        assert abs(np.corrcoef(a, other)[0, 1]) < 4 / math.sqrt(20_000)


@pytest.mark.parametrize("mean_ns", [1000, 999_999, 7_000_000_000])
def test_exponential_waits_have_the_mean_and_quantiles_of_the_distribution(mean_ns: int) -> None:
    waits = np.zeros(400_000, dtype=np.int64)
    _exponentials(7, mean_ns, exponential_table(), waits)
    assert waits.mean() == pytest.approx(mean_ns, rel=0.005)
    assert waits.std() == pytest.approx(mean_ns, rel=0.01)
    for p in (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999):
        assert np.quantile(waits, p) == pytest.approx(-math.log1p(-p) * mean_ns, rel=0.03 if p < 0.9999 else 0.1)
    assert waits.max() > math.log(TABLE) * mean_ns  # the tail goes on beyond the table


def test_tables_hold_the_true_quantiles() -> None:
    k = np.arange(TABLE)
    assert np.abs(exponential_table() / 2**20 + np.log1p(-k / TABLE)).max() < 2e-6
    for sigma in (0.05, 0.3, 1.0):
        u = (np.arange(TABLE + 1) + 0.5) / (TABLE + 1)
        truth = np.exp(sigma * stats.norm.ppf(u) - sigma**2 / 2)
        assert np.abs(lognormal_table(sigma) / 2**20 / truth - 1).max() < 1e-4
        assert lognormal_table(sigma).mean() / 2**20 == pytest.approx(1, abs=0.01)
