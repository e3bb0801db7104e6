"""MSER-5 removes transients that are known, and says when there is no steady state to be had."""

from __future__ import annotations

import numpy as np
import pytest

from sim.measure.statistics import SampleError, mser5
from sim.measure.statistics.warmup import squared_errors
from tests.unit.test_statistics_models import TRIALS, ar1, stream


def test_the_criterion_is_the_sum_of_squares_over_the_square_of_what_is_left() -> None:
    x = stream(30).normal(1e6, 1.0, 40)
    expected = [((x[d:] - x[d:].mean()) ** 2).sum() / (40 - d) ** 2 for d in range(40)]
    assert squared_errors(x) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_a_step_is_cut_where_it_ends() -> None:
    x = stream(31).normal(0.0, 1.0, 1000)
    x[:100] += 20.0
    found = mser5(x)
    assert found.index == 100 and not found.distrusted and found.n == 1000
    assert found.text() == "the first 100 of 1000 observations are warm-up"
    constant = np.full(1000, 3.3)
    constant[:40] = 9.9
    assert mser5(constant).index == 40
    assert mser5(np.full(1000, 3.3)).index == 0


def test_a_decaying_transient_loses_its_bias() -> None:
    """20 exp(-t/50) on AR(1) noise: the mean of everything is off by 1.0; what is left must be off by under 0.05."""
    noise = ar1(stream(32), TRIALS, 1000, 0.5)
    x = noise + 20 * np.exp(-np.arange(1000) / 50)
    found = [mser5(row) for row in x]
    whole, rest = x.mean(), np.mean([row[cut.index :].mean() for row, cut in zip(x, found, strict=True)])
    assert whole == pytest.approx(1.0, abs=0.02)
    assert abs(rest) < 0.05
    assert np.mean([cut.distrusted for cut in found]) < 0.05
    assert 100 < np.median([cut.index for cut in found]) < 300  # the transient is 2.7 at 100 and 0.05 at 300


def test_averaging_replications_finds_a_transient_that_one_run_hides() -> None:
    x = stream(33).normal(0.0, 10.0, (200, 1000)) + 5 * (np.arange(1000) < 150)
    assert abs(mser5(x).index - 150) <= 10
    assert mser5(x) == mser5(x.mean(axis=0))


def test_a_stationary_series_loses_little() -> None:
    """The criterion is noisy: some cut past the half happens, but seldom."""
    cuts = [mser5(row) for row in stream(34).normal(size=(TRIALS, 500))]
    assert np.mean([cut.distrusted for cut in cuts]) < 0.1
    assert np.median([cut.index for cut in cuts]) < 100


def test_a_queue_that_never_settles_is_distrusted() -> None:
    growing = np.arange(1000.0) + stream(35).normal(size=1000)
    late = np.where(np.arange(1000) < 700, 10.0, 0.0) + stream(36).normal(size=1000)
    for series in (growing, late):
        found = mser5(series)
        assert found.distrusted and found.index > 500
        assert "no steady state" in found.text()


def test_refusals() -> None:
    with pytest.raises(SampleError, match=r"99 observations, but 20 batches of 5 are needed \(100\)"):
        mser5(np.zeros(99))
    with pytest.raises(SampleError, match="observation 3 is nan"):
        mser5([0.0, 1.0, 2.0, float("nan")] * 50)
    with pytest.raises(SampleError, match="shape"):
        mser5(np.zeros((2, 3, 4)))
    with pytest.raises(SampleError, match="batch of 0"):
        mser5(np.zeros(200), batch=0)
