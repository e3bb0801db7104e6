"""Occupied buckets are found without looking at all of them."""

import numpy as np
import pytest

from sim.measure.metrics import occupied


@pytest.mark.parametrize("at", [[], [0], [5, 7], [262_143, 262_144], [3, 700_000], [999_999]])
def test_all_occupied_buckets_are_found(at):
    counts = np.zeros(1_000_000, dtype=np.int64)
    counts[at] = 3
    assert occupied(counts, 3 * len(at)).tolist() == at


def test_the_search_ends_with_the_last_transaction():
    counts = np.zeros(1_000_000, dtype=np.int64)
    counts[[4, 900_000]] = 1
    assert occupied(counts, 1).tolist() == [4]
