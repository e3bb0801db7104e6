"""Occupied buckets are found without looking at all of them."""

import numpy as np
import pytest

from sim.measure.metrics import QUANTILES, occupied, quantile_ms


@pytest.mark.parametrize("at", [[], [0], [5, 7], [262_143, 262_144], [3, 700_000], [999_999]])
def test_all_occupied_buckets_are_found(at):
    counts = np.zeros(1_000_000, dtype=np.int64)
    counts[at] = 3
    assert occupied(counts, 3 * len(at)).tolist() == at


def test_the_search_ends_with_the_last_transaction():
    counts = np.zeros(1_000_000, dtype=np.int64)
    counts[[4, 900_000]] = 1
    assert occupied(counts, 1).tolist() == [4]


@pytest.mark.parametrize(
    ("q", "expected_ms"), [(0.5, 1.0), (0.8, 1.0), (0.81, 2.0), (0.9, 2.0), (0.95, 2.0), (0.96, 9.0)]
)
def test_a_quantile_is_the_least_latency_that_so_many_did_not_exceed(q, expected_ms):
    """Of a hundred transactions eighty took 1 ms, fifteen 2 ms and five 9 ms."""
    latency_us, count = np.array([1000, 2000, 9000]), np.array([80, 15, 5])
    assert quantile_ms(latency_us, count, q) == expected_ms


def test_p99_is_read_at_99_percent():
    """Two of a hundred are slow: the 99th is one of them, the 95th and the 98th are not."""
    latency_us, count = np.array([1000, 9000]), np.array([98, 2])
    assert [quantile_ms(latency_us, count, q) for q in (*QUANTILES.values(), 0.98)] == [1.0, 1.0, 9.0, 1.0]


def test_without_transactions_there_is_no_quantile():
    assert quantile_ms(np.zeros(0), np.zeros(0, dtype=np.int64), 0.5) is None
