"""Intervals for the steady-state mean of series whose observations depend on each other.

`batch_means` cuts one long run into batches whose means are close to independent; `replication_deletion` takes one
mean from each of several runs. The second needs no check of dependence but pays one warm-up per run.

References: Fishman, Management Science 24 (1978), "Grouping observations in digital simulation", and von Neumann,
Annals of Mathematical Statistics 12 (1941), for the check; Schmeiser, Operations Research 30 (1982), "Batch size
effects in the analysis of simulation output", for stopping at 20 to 39 batches; Law, 5th ed., 9.5.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from sim.measure.statistics.intervals import Floats, Interval, Sample, SampleError, as_sample, t_interval
from sim.measure.statistics.warmup import Truncation, mser5

CHECKED = 64  # batches that the check needs at least: it then finds a correlation of 0.3 three times out of four
KEPT = 20  # batches behind the interval: between this and twice this; more narrow it by under 3 %
SIGNIFICANCE = 0.05  # of the check: one series of independent values in twenty is batched once more than needed


@dataclasses.dataclass(frozen=True)
class LagCheck:
    """Von Neumann check of n values for positive dependence of neighbours: `statistic` is normal if there is none."""

    lag1: float
    statistic: float
    passed: bool


@dataclasses.dataclass(frozen=True)
class BatchMeans:
    """Interval of the mean, and how the series was cut.

    `batch_size` observations in each of `interval.n` batches; `checked_size` is the batch size at which neighbouring
    means showed no dependence, `lag1` their autocorrelation there; `dropped` observations at the start fill no batch.
    """

    interval: Interval
    batch_size: int
    checked_size: int
    lag1: float
    dropped: int


def lag1_check(values: Sample, significance: float = SIGNIFICANCE) -> LagCheck:
    """Whether successive values, shape (n,), n >= 8, may pass for independent of their neighbours.

    The statistic sqrt((n^2-1)/(n-2)) * (1 - V/2), with V the sum of squared steps over the sum of squared deviations
    (von Neumann's ratio), is close to standard normal for independent values, and large under positive dependence.
    Negative dependence passes: it makes intervals too wide, not too narrow. Raises SampleError below 8 values.
    """
    x = as_sample(values, 8, "lag-1 check")
    n = len(x)
    deviations = x - x.mean()
    squares = _inner(deviations, deviations)
    if squares == 0:
        return LagCheck(0.0, 0.0, True)
    steps = np.diff(deviations)
    lag1 = _inner(deviations[1:], deviations[:-1]) / squares
    ratio = _inner(steps, steps) / squares
    statistic = math.sqrt((n * n - 1) / (n - 2)) * (1 - ratio / 2)
    return LagCheck(lag1, statistic, statistic <= float(special.ndtri(1 - significance)))


def batch_means(series: Sample, level: float = 0.95, *, warm_up: int = 0) -> BatchMeans:
    """Interval of the steady-state mean of one series of successive observations, shape (n,), in its unit.

    The batch size doubles from 1 until `lag1_check` passes on at least 64 batch means; then batches are joined in
    pairs until 20 to 39 are left, and their means get a t interval. `warm_up` observations are skipped
    (see `mser5`). What fills no batch is dropped at the start.

    Raises SampleError when fewer than 64 batches are left before the check passes: the series is too short for its
    dependence, and the message says how far it got.
    """
    x = as_sample(series, 1, "batch means")
    if not 0 <= warm_up < len(x):
        raise SampleError(f"batch means: warm-up of {warm_up} observations in a series of {len(x)}; keep some")
    x = x[warm_up:]
    if len(x) < CHECKED:
        raise SampleError(f"batch means: {len(x)} observations, but at least {CHECKED} are needed; lengthen the run")
    size, means = 1, x
    while True:
        check = lag1_check(means)
        if check.passed:
            break
        if len(means) // 2 < CHECKED:
            raise SampleError(
                f"batch means: {len(x)} observations in batches of {size} still depend on their neighbours (lag-1 "
                f"autocorrelation {check.lag1:.2f}) and fewer than {CHECKED} larger batches would be left; lengthen "
                "the run at least four times, or use several replications"
            )
        size, means = 2 * size, joined(means)
    checked_size = size
    while len(means) // 2 >= KEPT:
        size, means = 2 * size, joined(means)
    interval = dataclasses.replace(t_interval(means, level), method=f"batch means, {len(means)} batches of {size}")
    return BatchMeans(interval, size, checked_size, check.lag1, len(x) - len(means) * size)


def joined(means: Floats) -> Floats:
    """Means of successive pairs, shape (n // 2,). Of an odd number the first is left out, nearest to the start."""
    odd = len(means) % 2
    pairs: Floats = (means[odd::2] + means[odd + 1 :: 2]) / 2
    return pairs


def _inner(a: Floats, b: Floats) -> float:
    """Sum of products, not by BLAS: there the last bits depend on the number of threads."""
    return float(np.einsum("i,i->", a, b))


def replication_deletion(
    replications: Sequence[Sample], level: float = 0.95, *, warm_up: int | None = None
) -> tuple[Interval, Truncation | None]:
    """Interval of the steady-state mean from independent runs, and the warm-up found.

    `replications`: one series per run, shape (n_i,); at least two. Without `warm_up` (observations), MSER-5 cuts the
    average of the series, as far as the shortest goes; its truncation is returned, otherwise None.

    Raises SampleError for fewer than two series, a warm-up that leaves a series empty, or a truncation past the half.
    """
    if len(replications) < 2:
        raise SampleError(f"replication/deletion: {len(replications)} series, but at least 2 are needed; add runs")
    rows = [as_sample(series, 1, f"replication {i}") for i, series in enumerate(replications)]
    shortest = min(len(row) for row in rows)
    truncation = None
    if warm_up is None:
        truncation = mser5(np.stack([row[:shortest] for row in rows]))
        if truncation.distrusted:
            raise SampleError(f"replication/deletion: {truncation.text()}")
        warm_up = truncation.index
    if not 0 <= warm_up < shortest:
        raise SampleError(
            f"replication/deletion: warm-up of {warm_up} observations, but the shortest series has {shortest}; "
            "lengthen the runs or lower the warm-up"
        )
    means = [float(row[warm_up:].mean()) for row in rows]
    interval = t_interval(means, level)
    return dataclasses.replace(interval, method=f"replication/deletion, first {warm_up} deleted"), truncation
