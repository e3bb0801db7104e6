"""Comparisons: pairing under common random numbers, Welch, Dunnett, Tukey, and verdicts in words."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from scipy import integrate, special, stats

from sim.measure.statistics import (
    Difference,
    Interval,
    SampleError,
    against_control,
    all_pairs,
    independent,
    paired,
    paired_against_control,
)
from tests.unit.test_statistics_models import TRIALS, Floats, limits, stream, waits


def mean_waits(gaps: Floats, services: Floats, faster: float) -> Floats:
    """Mean wait of each row with services divided by `faster`."""
    return np.asarray(waits(gaps, services / faster).mean(axis=1))


def test_common_random_numbers_cut_the_variance_of_a_difference_and_the_factor_is_true() -> None:
    """Two M/M/1 designs, one 5 % faster, on the same arrivals and services. The factor that `paired` reports is
    compared with the one found by really running the second design on other numbers."""
    draws = stream(60)
    gaps, services = draws.standard_exponential((400, 2000)) / 0.7, draws.standard_exponential((400, 2000))
    other = stream(61)
    apart_gaps, apart_services = other.standard_exponential((400, 2000)) / 0.7, other.standard_exponential((400, 2000))
    a, b = mean_waits(gaps, services, 1.0), mean_waits(gaps, services, 1.05)
    apart = mean_waits(apart_gaps, apart_services, 1.05)
    found = paired(a, b)
    measured = (a - apart).var(ddof=1) / (a - b).var(ddof=1)
    assert found.variance_reduction is not None and found.variance_reduction > 3
    assert found.variance_reduction == pytest.approx(measured, rel=0.5)
    assert found.interval.half_width < independent(a, apart).interval.half_width / math.sqrt(3)


def test_paired_and_welch_cover_the_difference() -> None:
    draws = stream(62)
    shared = draws.normal(0.0, 5.0, (TRIALS, 10))
    a, b = shared + draws.normal(2.0, 1.0, shared.shape), shared + draws.normal(0.0, 1.0, shared.shape)
    share = np.mean([paired(x, y).interval.contains(2.0) for x, y in zip(a, b, strict=True)])
    assert limits(0.95)[0] <= share <= limits(0.95)[1]
    c, d = draws.normal(2.0, 1.0, (TRIALS, 10)), draws.normal(0.0, 4.0, (TRIALS, 25))
    share = np.mean([independent(x, y).interval.contains(2.0) for x, y in zip(c, d, strict=True)])
    assert limits(0.95)[0] <= share <= limits(0.95)[1]


def test_paired_and_welch_equal_scipy() -> None:
    draws = stream(63)
    a, b = draws.normal(1.0, 1.0, 9), draws.normal(0.0, 3.0, 9)
    for found, result in (
        (paired(a, b, 0.9), stats.ttest_rel(a, b)),
        (independent(a, b, 0.9), stats.ttest_ind(a, b, equal_var=False)),
    ):
        expected = result.confidence_interval(0.9)
        assert (found.interval.low, found.interval.high) == pytest.approx((expected.low, expected.high), rel=1e-10)
    assert paired(a, b).interval.contains(0.0) == (stats.ttest_rel(a, b).pvalue >= 0.05)


def test_variance_reduction_at_its_ends() -> None:
    a = np.array([1.0, 2.0, 4.0])
    assert paired(a, a - 1).variance_reduction == math.inf
    assert paired(np.ones(3), np.zeros(3)).variance_reduction is None
    assert paired(a, -a).variance_reduction == pytest.approx(0.5)
    assert independent(a, -a).variance_reduction is None
    assert independent(np.ones(3), np.zeros(3)).interval.half_width == 0


def test_no_common_draws_save_more_than_the_spreads_allow() -> None:
    a = np.array([1.0, 2.0, 4.0])
    assert paired(3 * a, a).variance_reduction == pytest.approx(10 / 4)  # moving together, it is reached
    assert paired(3 * a, a).variance_reduction_most == pytest.approx(10 / 4)
    assert paired(a - 7, a).variance_reduction_most == math.inf
    assert paired(np.ones(3), np.zeros(3)).variance_reduction_most is None
    assert paired(a, np.zeros(3)).variance_reduction_most == 1  # nothing to cancel against
    for draws in stream(65).normal(size=(50, 2, 6)) * np.array([[1.0], [4.0]]):
        found = paired(*draws)
        assert found.variance_reduction is not None and found.variance_reduction_most is not None
        assert found.variance_reduction <= found.variance_reduction_most * (1 + 1e-9)


def groups(number: int) -> dict[str, Floats]:
    draws = stream(number)
    return {name: draws.normal(mean, 1.0, 8) for name, mean in (("a", 0.0), ("control", 1.0), ("b", 3.0), ("c", 1.0))}


def dunnett_factor(others: int, freedom: int, level: float) -> float:
    """Two-sided critical value for equal group sizes (all correlations 1/2), by quadrature."""
    nodes, weights = special.roots_hermitenorm(80)

    def inside(scale: float, c: float) -> float:
        reach = special.ndtr(nodes + math.sqrt(2) * c * scale) - special.ndtr(nodes - math.sqrt(2) * c * scale)
        return float(weights @ reach**others) / math.sqrt(2 * math.pi)

    def coverage(c: float) -> float:
        density = stats.chi(freedom, scale=1 / math.sqrt(freedom)).pdf
        return float(integrate.quad(lambda s: inside(s, c) * density(s), 0.0, 4.0, limit=200)[0])

    low, high = 1.0, 6.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if coverage(middle) < level else (low, middle)
    return low


def test_dunnett_agrees_with_scipy_and_with_its_integral() -> None:
    assert dunnett_factor(2, 20, 0.95) == pytest.approx(2.38, abs=0.005)  # Dunnett (1964), table
    samples = groups(64)
    found = against_control(samples, "control")
    others = ["a", "b", "c"]
    assert [(one.a, one.b) for one in found] == [(name, "control") for name in others]
    result = stats.dunnett(*(samples[name] for name in others), control=samples["control"], rng=stream(65))
    expected = result.confidence_interval(0.95)
    pooled = math.sqrt(np.mean([x.var(ddof=1) for x in samples.values()]) * 2 / 8)
    half = dunnett_factor(3, 28, 0.95) * pooled
    for i, one in enumerate(found):
        assert one.interval.estimate == pytest.approx(samples[others[i]].mean() - samples["control"].mean())
        assert one.interval.low == pytest.approx(expected.low[i], abs=0.01 * half)
        assert one.interval.half_width == pytest.approx(half, rel=0.005)
        assert one.told_apart == (result.pvalue[i] < 0.05)
    assert against_control(samples, "control") == found


def test_tukey_agrees_with_scipy_and_with_the_studentized_range() -> None:
    samples = groups(66)
    found = all_pairs(samples)
    assert [(one.a, one.b) for one in found][:4] == [("a", "control"), ("a", "b"), ("a", "c"), ("control", "b")]
    result = stats.tukey_hsd(*samples.values())
    expected = result.confidence_interval(0.95)
    names = list(samples)
    half = stats.studentized_range.ppf(0.95, 4, 28) * math.sqrt(np.mean([x.var(ddof=1) for x in samples.values()]) / 8)
    for one in found:
        i, j = names.index(one.a), names.index(one.b)
        assert one.interval.low == pytest.approx(expected.low[i, j])
        assert one.interval.high == pytest.approx(expected.high[i, j])
        assert one.interval.half_width == pytest.approx(half, rel=1e-4)
        assert one.told_apart == (result.pvalue[i, j] < 0.05)


def test_games_howell_follows_each_pairs_own_spread() -> None:
    draws = stream(67)
    samples = {"calm": draws.normal(size=9), "calm too": draws.normal(size=9), "wild": draws.normal(0, 50.0, 9)}
    calm, first, second = (one.interval.half_width for one in all_pairs(samples, equal_variances=False))
    assert calm < 4 < 20 < min(first, second)
    assert min(one.interval.half_width for one in all_pairs(samples)) > 20


def test_joint_intervals_hold_together_where_single_ones_do_not() -> None:
    """Three designs against a control with no true differences, on common random numbers: all three intervals must
    hold zero at once in at least 95 % of trials (Bonferroni is conservative), which single paired ones do not."""
    draws = stream(68)
    data = draws.normal(0.0, 3.0, (TRIALS, 1, 10)) + draws.normal(size=(TRIALS, 4, 10))
    trials = [dict(zip("kabc", rows, strict=True)) for rows in data]
    joint = np.mean([not any(one.told_apart for one in paired_against_control(t, "k")) for t in trials])
    single = np.mean([not any(paired(t[name], t["k"]).told_apart for name in "abc") for t in trials])
    assert joint >= limits(0.95)[0]
    assert single < limits(0.95)[0]


@pytest.mark.slow
def test_tukey_holds_together_as_often_as_claimed() -> None:
    data = stream(69).normal(size=(TRIALS, 4, 8))
    trials = [dict(zip("abcd", rows, strict=True)) for rows in data]
    share = np.mean([not any(one.told_apart for one in all_pairs(t)) for t in trials])
    assert limits(0.95)[0] <= share <= limits(0.95)[1]


@pytest.mark.slow
def test_dunnett_holds_together_as_often_as_claimed() -> None:
    data = stream(70).normal(size=(TRIALS, 4, 8))
    trials = [dict(zip("kabc", rows, strict=True)) for rows in data]
    share = np.mean([not any(one.told_apart for one in against_control(t, "k")) for t in trials])
    assert limits(0.95)[0] <= share <= limits(0.95)[1]


def test_verdicts_in_words() -> None:
    lower = Difference("A", "B", Interval(-3.1, -4.2, -2.0, 0.95, 10, "paired t"))
    higher = Difference("A", "B", Interval(3.1, 2.0, 4.2, 0.95, 10, "paired t"))
    open_ = Difference("A", "B", Interval(-0.3, -1.4, 0.8, 0.95, 10, "paired t"))
    assert lower.verdict("ms") == "A is lower than B by 3.1 ms, 95 % interval [2.0, 4.2], n = 10"
    assert higher.verdict("ms") == "A is higher than B by 3.1 ms, 95 % interval [2.0, 4.2], n = 10"
    assert open_.verdict("ms") == ("A and B are not told apart: difference -0.3 ms, 95 % interval [-1.4, 0.8], n = 10")
    same = paired([1.0, 2.0], [1.0, 2.0])
    assert same.verdict() == "A and B are not told apart: difference 0, 95 % interval [0, 0], n = 2 (few)"


def test_refusals() -> None:
    ones = np.ones(3)
    cases = [
        (lambda: paired([1.0, 2.0, 3.0], [1.0, 2.0]), "A has 3 values and B 2"),
        (lambda: independent([1.0], [1.0, 2.0]), "A: 1 values, but at least 2"),
        (lambda: against_control({"a": ones}, "k"), "control 'k' is not among the samples; choose one of a"),
        (lambda: against_control({"k": ones}, "k"), "only the control"),
        (lambda: against_control({"k": ones, "a": ones}, "k"), "Dunnett: no sample varies"),
        (lambda: all_pairs({"k": ones, "a": 2 * ones}), "Tukey: no sample varies"),
        (lambda: all_pairs({"k": ones}), "1 samples, but at least 2"),
        (lambda: all_pairs({"k": ones, "a": ones}, 95), "0.95"),
    ]
    for call, words in cases:
        with pytest.raises(SampleError, match=re.escape(words)):
            call()
