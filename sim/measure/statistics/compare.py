"""Differences between designs, with the interval that fits how they were run.

Two designs run with the same seeds share their arrivals and delays (common random numbers): compare them in pairs.
Several at once need wider intervals, because each comparison is one more chance to be wrong.

References: Law, 5th ed., 10.2 (paired and Welch) and 10.3 (Bonferroni); Welch, Biometrika 34 (1947);
Dunnett, JASA 50 (1955); Tukey, The Problem of Multiple Comparisons (1953); Games and Howell, J. Educational
Statistics 1 (1976), for Tukey intervals with unequal variances.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping

import numpy as np

from sim.kernel import chance
from sim.measure.statistics.intervals import (
    Floats,
    Interval,
    Sample,
    SampleError,
    as_sample,
    check_level,
    t_interval,
    t_quantile,
)

_DUNNETT = 1002  # purpose of the draws behind the multivariate t integral


@dataclasses.dataclass(frozen=True)
class Difference:
    """Mean of `a` minus mean of `b`, in their unit.

    `variance_reduction`: how many times smaller pairing made the variance of the difference; below 1 pairing did
    harm. `variance_reduction_most`: what it would be if the two moved together as closely as their spreads allow; no
    choice of common draws does better. Both are None where nothing was paired, or nothing varied.
    """

    a: str
    b: str
    interval: Interval
    variance_reduction: float | None = None
    variance_reduction_most: float | None = None

    @property
    def told_apart(self) -> bool:
        """Whether the interval leaves out zero."""
        return not self.interval.contains(0.0)

    def verdict(self, unit: str = "") -> str:
        """In words: 'A is lower than B by 3.1 ms, 95 % interval [2.0, 4.2], n = 10'."""
        interval = self.interval
        if not self.told_apart:
            return f"{self.a} and {self.b} are not told apart: difference {interval.text(unit)}"
        if interval.estimate < 0:
            turned = dataclasses.replace(interval, estimate=-interval.estimate, low=-interval.high, high=-interval.low)
            return f"{self.a} is lower than {self.b} by {turned.text(unit)}"
        return f"{self.a} is higher than {self.b} by {interval.text(unit)}"


def paired(a: Sample, b: Sample, level: float = 0.95, *, names: tuple[str, str] = ("A", "B")) -> Difference:
    """Paired-t comparison: value i of both samples comes from the same seed; shapes (n,), n >= 2.

    Raises SampleError when lengths differ.
    """
    x, y = as_sample(a, 2, names[0]), as_sample(b, 2, names[1])
    if len(x) != len(y):
        raise SampleError(
            f"{names[0]} has {len(x)} values and {names[1]} {len(y)}, but pairs need the same seeds in both; "
            "run the missing ones, or compare as independent"
        )
    interval = dataclasses.replace(t_interval(x - y, level), method="paired t")
    return Difference(*names, interval, variance_reduction(x, y), variance_reduction_most(x, y))


def variance_reduction(a: Floats, b: Floats) -> float | None:
    """(var a + var b) / var(a - b) of paired samples, shapes (n,): what independent runs would have cost in n.

    Infinite when all differences are equal though the values vary; None when nothing varies.
    """
    apart = float(a.var(ddof=1) + b.var(ddof=1))
    together = float((a - b).var(ddof=1))
    if together > 0:
        return apart / together
    return math.inf if apart > 0 else None


def variance_reduction_most(a: Floats, b: Floats) -> float | None:
    """The most that `variance_reduction` can be for samples with these variances: that at a correlation of 1.

    (s_a^2 + s_b^2) / (s_a - s_b)^2: if one varies much more than the other, most of its variance has nothing to cancel
    against. Infinite for equal variances; None when nothing varies.
    """
    u, v = float(a.std(ddof=1)), float(b.std(ddof=1))
    if u == v:
        return math.inf if u > 0 else None
    return (u * u + v * v) / (u - v) ** 2


def independent(a: Sample, b: Sample, level: float = 0.95, *, names: tuple[str, str] = ("A", "B")) -> Difference:
    """Welch comparison of independent samples, shapes (n_a,) and (n_b,), each >= 2; variances may differ.

    `interval.n` is the smaller of the two. Raises SampleError for fewer than two values.
    """
    x, y = as_sample(a, 2, names[0]), as_sample(b, 2, names[1])
    u, v = float(x.var(ddof=1)) / len(x), float(y.var(ddof=1)) / len(y)
    difference = float(x.mean() - y.mean())
    half = 0.0
    if u + v > 0:
        freedom = (u + v) ** 2 / (u * u / (len(x) - 1) + v * v / (len(y) - 1))
        half = t_quantile(level, freedom) * math.sqrt(u + v)
    interval = Interval(difference, difference - half, difference + half, level, min(len(x), len(y)), "Welch t")
    return Difference(*names, interval)


def paired_against_control(samples: Mapping[str, Sample], control: str, level: float = 0.95) -> list[Difference]:
    """Each sample minus the control, all run with the same seeds, right together with probability `level`.

    Bonferroni: each of k paired-t intervals is made at 1 - (1 - level)/k, which holds under any dependence; Dunnett
    and Tukey assume independent samples. `interval.level` is the joint level. Raises SampleError as `paired` does.
    """
    others = _others(samples, control)
    each = 1 - (1 - check_level(level)) / len(others)
    found = []
    for name in others:
        one = paired(samples[name], samples[control], each, names=(name, control))
        joint = dataclasses.replace(one.interval, level=level, method=f"paired t, Bonferroni over {len(others)}")
        found.append(dataclasses.replace(one, interval=joint))
    return found


def against_control(
    samples: Mapping[str, Sample], control: str, level: float = 0.95, *, seed: int = 0
) -> list[Difference]:
    """Dunnett: each independent sample, shape (n_i,), minus the control, right together with probability `level`.

    Assumes normal data of equal variance. The multivariate t integral is a keyed Monte Carlo sum: bounds carry a
    relative error of about 0.1 % and repeat with `seed`. Raises SampleError for an unknown control, fewer than two
    samples, fewer than two values in one, or values that nowhere vary.
    """
    from scipy import stats

    others = _others(samples, control)
    check_level(level)
    rows = {name: as_sample(sample, 2, name) for name, sample in samples.items()}
    _must_vary(rows, "Dunnett")
    draws = np.random.default_rng(chance.draw(seed, _DUNNETT))
    result = stats.dunnett(*(rows[name] for name in others), control=rows[control], random_state=draws)
    bounds = result.confidence_interval(level)
    found = []
    for i, name in enumerate(others):
        n = min(len(rows[name]), len(rows[control]))
        difference = float(rows[name].mean() - rows[control].mean())
        interval = Interval(difference, float(bounds.low[i]), float(bounds.high[i]), level, n, "Dunnett")
        found.append(Difference(name, control, interval))
    return found


def all_pairs(samples: Mapping[str, Sample], level: float = 0.95, *, equal_variances: bool = True) -> list[Difference]:
    """Tukey: differences of all pairs of independent samples, shape (n_i,), right together with probability `level`.

    Pairs come in the order of the samples. Unequal variances (a saturated design beside an idle one) need
    `equal_variances=False`, the Games-Howell intervals. Raises SampleError for fewer than two samples, fewer than
    two values in one, or values that nowhere vary.
    """
    from scipy import stats

    check_level(level)
    if len(samples) < 2:
        raise SampleError(f"Tukey: {len(samples)} samples, but at least 2 are needed")
    rows = {name: as_sample(sample, 2, name) for name, sample in samples.items()}
    _must_vary(rows, "Tukey")
    options = {} if equal_variances else {"equal_var": False}
    bounds = stats.tukey_hsd(*rows.values(), **options).confidence_interval(level)
    method = "Tukey HSD" if equal_variances else "Games-Howell"
    found = []
    for (i, a), (j, b) in itertools.combinations(enumerate(rows), 2):
        difference = float(rows[a].mean() - rows[b].mean())
        n = min(len(rows[a]), len(rows[b]))
        interval = Interval(difference, float(bounds.low[i, j]), float(bounds.high[i, j]), level, n, method)
        found.append(Difference(a, b, interval))
    return found


def _others(samples: Mapping[str, Sample], control: str) -> list[str]:
    if control not in samples:
        raise SampleError(f"control {control!r} is not among the samples; choose one of {', '.join(samples)}")
    if len(samples) < 2:
        raise SampleError(f"only the control {control!r} is given; add a sample to compare with it")
    return [name for name in samples if name != control]


def _must_vary(rows: Mapping[str, Floats], method: str) -> None:
    if all(float(np.ptp(row)) == 0 for row in rows.values()):
        raise SampleError(
            f"{method}: no sample varies, so there is no spread to judge differences by; vary the seeds, or read the "
            "differences as exact"
        )
