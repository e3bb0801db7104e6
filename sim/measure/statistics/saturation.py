"""Where committed leaves offered: which loads a design keeps up with, judged with intervals.

A load is *kept up with* when the whole interval of committed/offered lies at or above 1 - tolerance, *saturated*
when the whole interval lies below, and otherwise undecided. All loads are judged together (Bonferroni), so that
trying more loads does not make a false alarm more likely.

Transactions under way at the end of a run are offered but not yet committed: with latency L and measured time T the
share falls short by up to L/T. Choose the tolerance above that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from sim.measure.statistics.intervals import (
    Interval,
    Sample,
    SampleError,
    as_sample,
    check_level,
    ratio_interval,
    t_interval,
)

State = Literal["kept up", "saturated", "undecided"]


@dataclasses.dataclass(frozen=True)
class Load:
    """One offered load: intervals of the rates, tx/s, and of committed/offered, over its replications."""

    offered_tps: Interval
    committed_tps: Interval
    share: Interval
    state: State


@dataclasses.dataclass(frozen=True)
class Saturation:
    """Loads in ascending order, and what they say about capacity.

    `kept_up_tps`: the largest offered load that was kept up with, below the first saturated one; `saturated_tps`: the
    smallest saturated one; None if there is no such load. `peak_tps`: the highest committed rate.
    `orderly`: no load was kept up with beyond a saturated one; otherwise something else than load is at work.
    """

    loads: tuple[Load, ...]
    kept_up_tps: float | None
    saturated_tps: float | None
    peak_tps: Interval
    tolerance: float
    orderly: bool

    def verdict(self) -> str:
        """In words."""
        peak = f"highest committed rate {self.peak_tps.text('tx/s')}"
        odd = "" if self.orderly else "; a higher load was kept up with again, so look for another cause than load"
        if self.saturated_tps is None and self.kept_up_tps is None:
            return f"undecided at every load, add replications; {peak}"
        if self.saturated_tps is None:
            return f"not saturated up to {self.kept_up_tps:.6g} tx/s; {peak}"
        if self.kept_up_tps is None:
            return f"saturated at {self.saturated_tps:.6g} tx/s, no lower load was kept up with; {peak}{odd}"
        return f"saturates between {self.kept_up_tps:.6g} and {self.saturated_tps:.6g} tx/s; {peak}{odd}"


def find_saturation(
    offered_tps: Sequence[Sample],
    committed_tps: Sequence[Sample],
    level: float = 0.95,
    *,
    tolerance: float = 0.01,
) -> Saturation:
    """Judge loads from replications: item i of both holds the rates of load i, tx/s, shape (replications_i,), >= 2.

    Committed is paired with what was offered in the same replication, so that the chance in the arrivals cancels.
    `tolerance`: fraction of the offered load that may be missing, 0 <= tolerance < 1.

    Raises SampleError for no loads, lists of different lengths, samples that are too small or rates that are not
    positive.
    """
    if not len(offered_tps) or len(offered_tps) != len(committed_tps):
        raise SampleError(
            f"saturation: {len(offered_tps)} offered and {len(committed_tps)} committed loads; pass one sample of "
            "each per load"
        )
    if not 0 <= tolerance < 1:
        raise SampleError(f"saturation: tolerance {tolerance!r} must lie in [0, 1); write 1 % as 0.01")
    each = 1 - (1 - check_level(level)) / len(offered_tps)
    pairs = zip(offered_tps, committed_tps, strict=True)
    loads = sorted(
        (_judge(i, offered, committed, each, level, tolerance) for i, (offered, committed) in enumerate(pairs)),
        key=lambda load: load.offered_tps.estimate,
    )
    saturated = [load.offered_tps.estimate for load in loads if load.state == "saturated"]
    kept_up = [load.offered_tps.estimate for load in loads if load.state == "kept up"]
    first = saturated[0] if saturated else None
    below = kept_up if first is None else [rate for rate in kept_up if rate < first]
    return Saturation(
        loads=tuple(loads),
        kept_up_tps=below[-1] if below else None,
        saturated_tps=first,
        peak_tps=max((load.committed_tps for load in loads), key=lambda interval: interval.estimate),
        tolerance=tolerance,
        orderly=len(below) == len(kept_up),
    )


def _judge(i: int, offered: Sample, committed: Sample, each: float, level: float, tolerance: float) -> Load:
    rates = as_sample(offered, 2, f"load {i}, offered")
    done = as_sample(committed, 2, f"load {i}, committed")
    if (rates <= 0).any():
        raise SampleError(f"load {i}: offered {rates.min():.6g} tx/s, but a load must be above zero; leave it out")
    share = ratio_interval(done, rates, each)
    state: State = "undecided"
    if share.low >= 1 - tolerance:
        state = "kept up"
    elif share.high < 1 - tolerance:
        state = "saturated"
    return Load(
        _joint(t_interval(rates, each), level), _joint(t_interval(done, each), level), _joint(share, level), state
    )


def _joint(interval: Interval, level: float) -> Interval:
    return dataclasses.replace(interval, level=level, method=f"{interval.method}, joint over loads")
