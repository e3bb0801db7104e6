"""Batch means and replication/deletion cover known steady-state means; the naive interval does not."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest

from sim.measure.statistics import SampleError, batch_means, lag1_check, replication_deletion, t_interval
from sim.measure.statistics.batches import CHECKED, KEPT
from tests.unit.test_statistics_models import TRIALS, Floats, ar1, limits, md1, mm1, stream


def covers(parts: Iterable[Floats], truth: float, refused_at_most: float) -> bool:
    """Whether the batch means intervals of `TRIALS` series, one per row of the parts, cover as often as they claim.

    A refusal claims nothing: refusals are left out of the coverage, and their share is bounded by itself.
    """
    hits = trials = refused = 0
    for row in itertools.chain.from_iterable(parts):
        trials += 1
        try:
            hits += batch_means(row).interval.contains(truth)
        except SampleError:
            refused += 1
    assert trials == TRIALS
    assert refused <= refused_at_most * trials, f"{refused} of {trials} refused"
    low, high = limits(0.95, trials - refused)
    print(f"batch means: {hits} of {trials - refused} cover, {refused} refused")
    return low <= hits / (trials - refused) <= high


def test_the_lag_check_passes_most_independent_series_and_few_others() -> None:
    white = stream(40).normal(size=(TRIALS, 100))
    passed = np.mean([lag1_check(row).passed for row in white])
    assert limits(0.95)[0] <= passed <= limits(0.95)[1]
    correlated = ar1(stream(41), TRIALS, CHECKED, 0.3)
    assert np.mean([lag1_check(row).passed for row in correlated]) < 0.4
    alternating = lag1_check([0.0, 1.0] * 10)
    assert alternating.passed and alternating.lag1 < -0.9


def test_the_lag_statistic_is_von_neumanns() -> None:
    x = stream(42).normal(size=30)
    centred = x - x.mean()
    lag1 = (centred[1:] * centred[:-1]).sum() / (centred**2).sum()
    ends = (centred[0] ** 2 + centred[-1] ** 2) / (2 * (centred**2).sum())
    found = lag1_check(x)
    assert found.lag1 == pytest.approx(lag1)
    assert found.statistic == pytest.approx(np.sqrt((30**2 - 1) / 28) * (lag1 + ends))


@pytest.mark.parametrize(("phi", "number"), [(0.0, 43), (0.5, 44), (0.9, 45)])
def test_batch_means_cover_the_mean_of_an_autoregression(phi: float, number: int) -> None:
    """At phi = 0.9 batches of 64, of which there are 128, are the first that can pass: hence some refusals."""
    assert covers([ar1(stream(number), TRIALS, 8192, phi)], 0.0, refused_at_most=0.10)


def test_the_naive_interval_of_dependent_observations_does_not_cover() -> None:
    """The same data as above, phi = 0.5: its standard error is too small by sqrt(3), so 74 % is expected."""
    share = np.mean([t_interval(row).contains(0.0) for row in ar1(stream(44), TRIALS, 8192, 0.5)])
    assert limits(0.742)[0] <= share <= limits(0.742)[1]
    assert share < limits(0.95)[0]


# Queues remember for about 1 / (1 - sqrt(rho))^2 services, 12 at rho = 0.5 and 90 at 0.8: lengths are chosen for 32
# batches of about 45 such times each.


def test_batch_means_cover_the_wait_in_md1() -> None:
    draws = stream(46)
    assert covers((md1(draws, 20, 1 << 14, 0.5) for _ in range(50)), 0.5, refused_at_most=0.05)


@pytest.mark.parametrize(
    ("rho", "length", "number"),
    [(0.5, 1 << 14, 47), (0.8, 1 << 17, 48), pytest.param(0.8, 1 << 19, 49, marks=pytest.mark.slow)],
)
def test_batch_means_cover_the_wait_in_mm1(rho: float, length: int, number: int) -> None:
    draws = stream(number)
    parts = (mm1(draws, 2, length, rho) for _ in range(TRIALS // 2))
    assert covers(parts, rho / (1 - rho), refused_at_most=0.05)


@pytest.mark.slow
def test_batch_means_cover_the_wait_in_md1_heavily_loaded() -> None:
    draws = stream(54)
    assert covers((md1(draws, 2, 1 << 17, 0.8) for _ in range(TRIALS // 2)), 2.0, refused_at_most=0.05)


def test_batches_are_few_long_and_taken_from_the_end() -> None:
    x = ar1(stream(50), 1, 10_007, 0.9)[0]
    found = batch_means(x, warm_up=7)
    assert KEPT <= found.interval.n < 2 * KEPT
    assert found.batch_size >= found.checked_size >= 8
    assert found.dropped == 10_000 - found.interval.n * found.batch_size
    assert found.interval.estimate == pytest.approx(x[7 + found.dropped :].mean())
    assert f"{found.interval.n} batches of {found.batch_size}" in found.interval.method


def test_batch_means_refuse_a_series_too_short_for_its_dependence() -> None:
    with pytest.raises(SampleError, match=r"lag-1 autocorrelation 0.* lengthen the run at least four times"):
        batch_means(ar1(stream(51), 1, 500, 0.99)[0])
    with pytest.raises(SampleError, match="63 observations, but at least 64"):
        batch_means(np.zeros(63))
    with pytest.raises(SampleError, match="warm-up of 90"):
        batch_means(np.zeros(90), warm_up=90)


def test_replication_deletion_covers_despite_a_start_far_from_the_mean() -> None:
    """Ten AR(1) runs that start 20 standard deviations of the noise off: deleting makes the interval cover again."""
    runs = ar1(stream(52), 10 * TRIALS, 500, 0.8, first=20.0).reshape(TRIALS, 10, 500)
    found = []
    for ten in runs:
        try:
            found.append(replication_deletion(list(ten))[0].contains(0.0))
        except SampleError:  # the cut fell past the half
            pass
    assert len(found) >= 0.95 * TRIALS
    low, high = limits(0.95, len(found))
    print(f"replication/deletion: {sum(found)} of {len(found)} cover")
    assert low <= np.mean(found) <= high
    raw = np.mean([replication_deletion(list(ten), warm_up=0)[0].contains(0.0) for ten in runs])
    assert raw < 0.6


def test_replication_deletion_covers_the_wait_of_queues_that_start_empty() -> None:
    draws = stream(53)
    hits = 0
    for _ in range(200):
        runs = mm1(draws, 50, 4000, 0.5, stationary=False).reshape(-1, 10, 4000)
        hits += sum(replication_deletion(list(ten), warm_up=200)[0].contains(1.0) for ten in runs)
    assert limits(0.95)[0] <= hits / TRIALS <= limits(0.95)[1]


def test_replication_deletion_takes_runs_of_unequal_length_and_refuses_hopeless_ones() -> None:
    interval, truncation = replication_deletion([np.arange(300.0) % 2, np.arange(200.0) % 2, np.arange(400.0) % 2])
    assert truncation is not None and truncation.n == 200 and interval.estimate == pytest.approx(0.5)
    with pytest.raises(SampleError, match="no steady state"):
        replication_deletion([np.arange(500.0), np.arange(500.0) + 1])
    with pytest.raises(SampleError, match="at least 2"):
        replication_deletion([np.zeros(500)])
    with pytest.raises(SampleError, match="shortest series has 50"):
        replication_deletion([np.zeros(500), np.zeros(50)], warm_up=50)
