"""Submission times of an open loop, compiled: a Poisson process whose rate follows the hour of the day."""

from __future__ import annotations

import numpy as np
from numba import njit, types

from sim.kernel.chance import ARRIVALS, exponential_ns, join

DAY_NS = 86_400_000_000_000
_I = types.int64
_A = types.Array(types.int64, 1, "C")


@njit(_I(_I, _I, _A, _I, _I, _A, _I, _A, _A), cache=True)
def poisson_times(seed, source, cursor, end_ns, mean_wait_ns, shape, day_offset_ns, quantiles, out):
    """Fill `out` with the next times before `end_ns`; returns how many.

    `cursor`: [number of the next draw, time reached, ns], moved on by the call. `mean_wait_ns`: mean wait at the
    shape's peak. `shape`: rate in 1/2**20 of the peak for equal parts of a day; a draw is kept with that
    probability (thinning, Lewis and Shedler 1979). `quantiles`: `exponential_table()`. A call that fills `out`
    is to be repeated.
    """
    base = join(join(join(0, seed), ARRIVALS), source)
    parts = len(shape)
    count = 0
    while count < len(out):
        state = join(base, cursor[0])
        time = cursor[1] + exponential_ns(state, mean_wait_ns, quantiles)
        if time >= end_ns:
            return count
        cursor[0] += 1
        cursor[1] = time
        part = (((time + day_offset_ns) % DAY_NS) * parts) // DAY_NS
        if np.int64(join(state, 1_000_000) >> np.uint64(44)) < shape[part]:
            out[count] = time
            count += 1
    return count
