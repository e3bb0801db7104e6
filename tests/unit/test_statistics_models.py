"""Models whose truth is known, on which the statistics are tested, checked here themselves.

Every stream of numbers in these tests comes from `stream(k)`, seeded with (6, k): fixed before anything was run, and
never changed to please a test. A share of `TRIALS` trials is held against exact binomial limits that a correct method
leaves once in a thousand.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import signal, stats

Floats = npt.NDArray[np.float64]
TRIALS = 1000


def stream(number: int) -> np.random.Generator:
    return np.random.default_rng((6, number))


def limits(share: float, trials: int = TRIALS) -> tuple[float, float]:
    """Shares between which a fraction `share` of trials falls, except once in a thousand."""
    low, high = stats.binom.ppf([0.0005, 0.9995], trials, share) / trials
    return float(low), float(high)


def waits(arrivals: Floats, services: Floats, first: Floats | float = 0.0) -> Floats:
    """Waiting times in queues of one server (Lindley), one row per queue: shapes (rows, n) -> (rows, n).

    `arrivals` are the gaps before customers 1 .. n-1 (column 0 is not used), `first` customer 0's wait.
    """
    steps = np.empty_like(services)
    steps[:, 0] = first
    steps[:, 1:] = services[:, :-1] - arrivals[:, 1:]
    walk = np.cumsum(steps, axis=1)
    lowest: Floats = np.minimum(np.minimum.accumulate(walk, axis=1), 0.0)
    return walk - lowest


def mm1(draws: np.random.Generator, rows: int, n: int, rho: float, *, stationary: bool = True) -> Floats:
    """Waits in M/M/1 with mean service 1: mean rho / (1 - rho). Starts in equilibrium or empty."""
    first: Floats | float = 0.0
    if stationary:
        first = np.where(draws.random(rows) < rho, draws.standard_exponential(rows) / (1 - rho), 0.0)
    return waits(draws.standard_exponential((rows, n)) / rho, draws.standard_exponential((rows, n)), first)


def md1(draws: np.random.Generator, rows: int, n: int, rho: float, burn: int = 2000) -> Floats:
    """Waits in M/D/1 with service 1, after `burn` customers: mean rho / (2 (1 - rho))."""
    return waits(draws.standard_exponential((rows, n + burn)) / rho, np.ones((rows, n + burn)))[:, burn:]


def ar1(draws: np.random.Generator, rows: int, n: int, phi: float, first: float | None = None) -> Floats:
    """x[t] = phi x[t-1] + noise of variance 1, mean zero; starts at `first` or in equilibrium."""
    start = draws.standard_normal(rows) / np.sqrt(1 - phi * phi) if first is None else np.full(rows, first)
    x, _ = signal.lfilter([1.0], [1.0, -phi], draws.standard_normal((rows, n)), axis=1, zi=phi * start[:, None])
    return np.asarray(x, dtype=np.float64)


def test_waits_follow_the_recursion_customer_by_customer() -> None:
    draws = stream(1)
    gaps, services = draws.standard_exponential((3, 200)), draws.standard_exponential((3, 200))
    found = waits(gaps, services, 2.5)
    for row in range(3):
        wait = 2.5
        for i in range(200):
            assert found[row, i] == pytest.approx(wait, abs=1e-9)
            if i < 199:
                wait = max(0.0, wait + services[row, i] - gaps[row, i + 1])


@pytest.mark.parametrize("rho", [0.5, 0.8])
def test_the_queues_have_the_means_of_theory(rho: float) -> None:
    """Means of 1,000 independent queues lie within 3.3 of their own standard errors of the formula."""
    for means, truth in (
        (mm1(stream(2), TRIALS, 2000, rho).mean(axis=1), rho / (1 - rho)),
        (md1(stream(3), TRIALS, 2000, rho).mean(axis=1), rho / (2 * (1 - rho))),
    ):
        assert abs(means.mean() - truth) < 3.3 * means.std(ddof=1) / np.sqrt(TRIALS)


def test_the_autoregression_has_its_variance_and_correlation() -> None:
    x = ar1(stream(4), 2000, 50, 0.8)
    assert x[:, 0].var() == pytest.approx(1 / 0.36, rel=0.11)  # 3.3 standard errors, sqrt(2/2000) each
    assert np.corrcoef(x[:, 30], x[:, 31])[0, 1] == pytest.approx(0.8, abs=0.027)  # 3.3 * (1 - 0.64) / sqrt(2000)


def test_limits_reject_a_method_that_covers_three_percent_too_little() -> None:
    low, high = limits(0.95)
    assert 0.92 < low < 0.95 < high < 0.98
    assert stats.binom.cdf(low * TRIALS - 1, TRIALS, 0.92) > 0.5
