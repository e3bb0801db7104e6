"""Where the start of a run ends: the truncation point after which a series looks stationary.

MSER deletes the first d observations so that the estimated standard error of the mean of the rest is smallest:
deleting transient values lowers the variance, deleting too much lowers the number left. MSER-5 does so on means of
five successive observations, which smooths the criterion.

References: White, Simulation 69 (1997), "An effective truncation heuristic for bias reduction in simulation output";
White, Cobb and Spratt, Winter Simulation Conference 2000, "A comparison of five steady-state truncation heuristics";
Hoad, Robinson and Davies, JORS 61 (2010), for leaving the last five batches out of the search.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from sim.measure.statistics.intervals import Floats, Sample, SampleError

BATCH = 5  # observations averaged
_LAST = 5  # batches at the end that are never the truncation point: too few left to judge a variance
_LEAST = 20  # batches needed


@dataclasses.dataclass(frozen=True)
class Truncation:
    """Where to cut a series of `n` observations: keep `series[index:]`.

    `distrusted`: the cut lies past the half, which says that the run is too short or never becomes steady;
    lengthen it instead of using the rest. `statistic` is the squared standard error at the cut, in squared units.
    """

    index: int
    n: int
    statistic: float
    distrusted: bool

    def text(self) -> str:
        """In words."""
        if self.distrusted:
            return (
                f"no steady state found: the cut would fall at {self.index} of {self.n} observations, past the half; "
                "lengthen the run, or lower the load if the system is saturated"
            )
        return f"the first {self.index} of {self.n} observations are warm-up"


def mser5(series: Sample, *, batch: int = BATCH) -> Truncation:
    """Truncation point of a series, shape (n,), or of the average of replications, shape (replications, n).

    Averaging replications first makes the transient stand out from the noise. Observations are equally spaced
    (bins of a timeline) or successive (blocks); `index` counts them and is a multiple of `batch`. Up to `batch` - 1
    observations at the end that fill no batch are not looked at.

    Raises SampleError for fewer than 20 batches, other shapes or values that are not finite.
    """
    x = _averaged(series)
    if batch < 1:
        raise SampleError(f"MSER: batch of {batch} observations; at least 1 is needed")
    count = len(x) // batch
    if count < _LEAST:
        raise SampleError(
            f"MSER: {len(x)} observations, but {_LEAST} batches of {batch} are needed ({_LEAST * batch}); "
            "lengthen the run or take finer bins"
        )
    means = x[: count * batch].reshape(count, batch).mean(axis=1)
    criterion = squared_errors(means)[: count - _LAST]
    cut = int(np.argmin(criterion))
    return Truncation(cut * batch, len(x), float(criterion[cut]), cut > count / 2)


def squared_errors(means: Floats) -> Floats:
    """MSER criterion after deleting the first d values, d = 0 .. n-1: sum of squared deviations / (n - d)^2."""
    centred = means - np.median(means[len(means) // 2 :])  # near the steady mean, so that no digits cancel there
    left = np.arange(len(means), 0, -1, dtype=np.float64)
    total = np.cumsum(centred[::-1])[::-1]
    squares = np.cumsum(centred[::-1] ** 2)[::-1]
    criterion: Floats = np.maximum(squares - total**2 / left, 0.0) / left**2
    return criterion


def _averaged(series: Sample) -> Floats:
    x = np.asarray(series, dtype=np.float64)
    if x.ndim == 2 and x.shape[0]:
        x = x.mean(axis=0)
    if x.ndim != 1:
        raise SampleError(f"MSER: shape {x.shape}, but (n,) or (replications, n) is needed")
    finite = np.isfinite(x)
    if not finite.all():
        at = int(np.argmin(finite))
        raise SampleError(f"MSER: observation {at} is {x[at]}; fill or drop empty bins before looking for the warm-up")
    return x
