"""Confidence intervals of one sample of independent observations, usually one number per replication.

Observations within a run (latencies of successive blocks) depend on each other: take `batches` for those.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt
from scipy import special

Sample = npt.ArrayLike
Floats = npt.NDArray[np.float64]
FEW = 3  # with so many observations, or fewer, an interval is shown with a caution


class SampleError(ValueError):
    """The data cannot answer the question. The message names the value, the rule and the remedy."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate between two bounds, in the unit of the data.

    `level` is the nominal coverage in (0, 1), `n` the number of independent observations behind it (replications,
    batches, pairs, trials) and `method` says how it was made.
    """

    estimate: float
    low: float
    high: float
    level: float
    n: int
    method: str

    @property
    def half_width(self) -> float:
        """Half the distance between the bounds."""
        return (self.high - self.low) / 2

    def contains(self, value: float) -> bool:
        """Whether a value lies between the bounds, bounds included."""
        return self.low <= value <= self.high

    def within(self, least: float, most: float) -> Interval:
        """The same without what no value can be: a share below 0 or above 1, a negative count or time."""
        return dataclasses.replace(self, low=max(self.low, least), high=min(self.high, most))

    def text(self, unit: str = "") -> str:
        """In words, with two significant digits of the half-width.

        >>> Interval(3.14, 2.02, 4.26, 0.95, 10, "t").text("ms")
        '3.1 ms, 95 % interval [2.0, 4.3], n = 10'
        """
        estimate, low, high = rounded(self.estimate, self.low, self.high)
        named = f"{estimate} {unit}" if unit else estimate
        few = " (few)" if caution(self.n) else ""
        return f"{named}, {100 * self.level:g} % interval [{low}, {high}], n = {self.n}{few}"


def caution(n: int) -> str:
    """What to say beside an interval of two or three observations; "" beside others."""
    return f"{n} replications: it holds if values are normal, which so few cannot show" if 2 <= n <= FEW else ""


def rounded(estimate: float, low: float, high: float) -> tuple[str, str, str]:
    """The three numbers to the same decimals; a bound that is not zero is never shown as zero."""
    half = (high - low) / 2
    if not half > 0 or not math.isfinite(half):
        return f"{estimate:.6g}", f"{low:.6g}", f"{high:.6g}"
    places = min(max(1 - math.floor(math.log10(half)), 0), 15)
    while places < 15 and any(bound and float(f"{bound:.{places}f}") == 0 for bound in (low, high)):
        places += 1
    return f"{estimate:.{places}f}", f"{low:.{places}f}", f"{high:.{places}f}"


def as_sample(sample: Sample, least: int, what: str) -> Floats:
    """The sample as float64, shape (n,).

    Raises SampleError if it is not one-dimensional, holds fewer than `least` values or one that is not finite
    (None counts as such: a run without the metric must be left out knowingly, not averaged).
    """
    x = np.asarray(sample, dtype=np.float64)
    if x.ndim != 1:
        raise SampleError(f"{what}: shape {x.shape}, but one dimension is needed; pass one number per observation")
    finite = np.isfinite(x)
    if not finite.all():
        at = int(np.argmin(finite))
        raise SampleError(f"{what}: value {at} is {x[at]}; leave such runs out, and say how many were left out")
    if len(x) < least:
        raise SampleError(f"{what}: {len(x)} values, but at least {least} are needed; add observations")
    return x


def check_level(level: float) -> float:
    """The level itself. Raises SampleError unless it lies strictly between 0 and 1 (95 % is 0.95)."""
    if not 0 < level < 1:
        raise SampleError(f"level {level!r} must lie between 0 and 1; write 95 % as 0.95")
    return level


def t_quantile(level: float, freedom: float) -> float:
    """Two-sided Student factor: |T| stays below it with probability `level` at `freedom` degrees of freedom."""
    return float(special.stdtrit(freedom, (1 + check_level(level)) / 2))


def t_interval(sample: Sample, level: float = 0.95) -> Interval:
    """Student interval of the mean of independent observations, shape (n,), n >= 2: mean +- t s / sqrt(n).

    Exact for normal data; means over long runs are close to normal. Equal values give a width of zero.
    Raises SampleError for fewer than two values. Source: Law, Simulation Modeling and Analysis, 5th ed., 4.5.
    """
    x = as_sample(sample, 2, "t interval")
    mean = float(x.mean())
    half = t_quantile(level, len(x) - 1) * float(x.std(ddof=1)) / math.sqrt(len(x))
    return Interval(mean, mean - half, mean + half, level, len(x), "t of replications")


def quantile_interval(sample: Sample, q: float, level: float = 0.95) -> Interval:
    """Interval of the q-quantile (0 < q < 1) between two order statistics of independent observations, shape (n,).

    The bounds are the r-th and s-th smallest values, r the largest and s the smallest rank with
    P(B < r) <= a/2 and P(B >= s) <= a/2 for B ~ binomial(n, q), a = 1 - level: coverage is at least nominal for
    any distribution. The estimate is the ceil(q n)-th smallest value, as in the metrics of a run.

    Raises SampleError when the sample is too small to hold both ranks, and says how many values are needed
    (368 for the 99th percentile at 95 %). Source: Conover, Practical Nonparametric Statistics, 3rd ed., 3.2.
    """
    if not 0 < q < 1:
        raise SampleError(f"quantile {q!r} must lie between 0 and 1; write the 99th percentile as 0.99")
    tail = (1 - check_level(level)) / 2
    needed = math.ceil(math.log(tail) / math.log(max(q, 1 - q)))
    x = np.sort(as_sample(sample, 1, f"interval of the {q:g}-quantile"))
    n = len(x)
    low, high = quantile_ranks(n, q, level)
    if low < 1 or high > n:
        raise SampleError(
            f"interval of the {q:g}-quantile at {100 * level:g} %: {n} values, but at least {needed} are needed; "
            "add observations, or take the quantile of each replication and `t_interval` over replications"
        )
    estimate = float(x[max(math.ceil(q * n), 1) - 1])
    return Interval(estimate, float(x[low - 1]), float(x[high - 1]), level, n, f"order statistics {low} and {high}")


def quantile_ranks(n: int, q: float, level: float) -> tuple[int, int]:
    """Ranks (from 1) of the bounds of `quantile_interval`; rank 0 or n + 1 means that the sample has no such bound."""
    tail = (1 - level) / 2
    below = np.concatenate(([0.0], special.bdtr(np.arange(n + 1, dtype=np.float64), n, q)))  # P(B < k), k = 0..n+1
    low = int(np.searchsorted(below, tail, side="right")) - 1
    high = int(np.searchsorted(below, 1 - tail, side="left"))
    return low, high


def proportion_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Wilson score interval of a proportion, a fraction in [0, 1], from independent trials.

    Keeps its coverage near 0 and 1, where the interval p +- z sqrt(p(1-p)/n) collapses. For a bound on what never
    happened, see `rule_of_three`. Raises SampleError for no trials or more successes than trials.
    Source: Wilson, JASA 22 (1927); Brown, Cai and DasGupta, Statistical Science 16 (2001).
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise SampleError(f"{successes} successes of {trials} trials: needs 0 <= successes <= trials and a trial")
    z2 = float(special.ndtri((1 + check_level(level)) / 2)) ** 2
    p = successes / trials
    centre = (successes + z2 / 2) / (trials + z2)
    half = math.sqrt(z2 * (trials * p * (1 - p) + z2 / 4)) / (trials + z2)
    low = 0.0 if successes == 0 else max(centre - half, 0.0)
    high = 1.0 if successes == trials else min(centre + half, 1.0)
    return Interval(p, low, high, level, trials, "Wilson")


def rule_of_three(trials: int, level: float = 0.95) -> Interval:
    """Bound on the probability of what happened in none of `trials` independent trials: [0, 1 - (1-level)^(1/n)].

    One-sided and exact; about 3/n at 95 %. Raises SampleError for no trials.
    Source: Hanley and Lippman-Hand, JAMA 249 (1983), "If nothing goes wrong, is everything all right?".
    """
    if trials < 1:
        raise SampleError(f"{trials} trials bound nothing; at least one is needed")
    high = -math.expm1(math.log1p(-check_level(level)) / trials)
    return Interval(0.0, 0.0, high, level, trials, "rule of three, one-sided")


def ratio_interval(numerator: Sample, denominator: Sample, level: float = 0.95) -> Interval:
    """Fieller interval of mean(numerator) / mean(denominator); pairs from the same replications, shapes (n,), n >= 2.

    For ratios of totals that differ between replications, such as bytes per decision; the mean of the replications'
    own ratios would be biased. Exact for normal pairs.

    Raises SampleError when lengths differ, or when the denominator cannot be told from zero at this level: then
    every ratio is possible. Source: Fieller, JRSS B 16 (1954), "Some problems in interval estimation".
    """
    y = as_sample(numerator, 2, "ratio, numerator")
    x = as_sample(denominator, 2, "ratio, denominator")
    if len(x) != len(y):
        raise SampleError(f"ratio: {len(y)} numerators and {len(x)} denominators; they must come in pairs")
    n = len(x)
    mean_x = float(x.mean())
    t2 = t_quantile(level, n - 1) ** 2 / n
    var_x = float(x.var(ddof=1))
    a = mean_x**2 - t2 * var_x
    if a <= 0:
        raise SampleError(
            f"ratio: the mean denominator {mean_x:.6g} cannot be told from zero at {100 * level:g} % (n = {n}), "
            "so any ratio is possible; add replications"
        )
    ratio = float(y.mean()) / mean_x
    rest = y - ratio * x  # mean zero: written in these, no term cancels
    var_rest = float(rest.var(ddof=1))
    cross = float(((x - mean_x) * (rest - rest.mean())).sum()) / (n - 1)
    spread = math.sqrt(max(t2 * mean_x**2 * var_rest - t2**2 * (var_x * var_rest - cross**2), 0.0))
    centre = ratio - t2 * cross / a
    return Interval(ratio, centre - spread / a, centre + spread / a, level, n, "Fieller ratio")
