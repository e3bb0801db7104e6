"""Demand over a run when something happens: a storm that keeps people away and their backlog, or a crowd."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from sim.units import NS_PER_H, NS_PER_S
from sim.workload.pace import Leg, Pace
from sim.workload.shapes import DAY_NS, MEAN_PERMILLE, QUARTER_NS, multipliers_permille


@dataclasses.dataclass(frozen=True)
class Change:
    """From `at_ns` on for a time the rate is so many times its own.

    The part `returns` of what that leaves away comes evenly within `backlog_ns` after it, besides what comes anyway.
    """

    at_ns: int
    for_ns: int
    times: float
    returns: float = 0.0
    backlog_ns: int = 0

    @property
    def end_ns(self) -> int:
        """When it is over."""
        return self.at_ns + self.for_ns


def changed_pace(rate_tps: float, shape: str, start_hour: float, duration_ns: int, changes: Sequence[Change]) -> Pace:
    """The rate of a class over a run: its shape of the day, times what happens, and what comes later.

    Where several changes overlap their factors multiply. A backlog is what its change alone kept away.
    """
    cuts = {0, duration_ns}
    for change in changes:
        cuts |= {change.at_ns, change.end_ns, change.end_ns + change.backlog_ns}
    quarter_ns = round(start_hour * NS_PER_H) % QUARTER_NS
    cuts |= {*range(QUARTER_NS - quarter_ns, duration_ns, QUARTER_NS)} if shape != "constant" else set()
    edges = sorted(cut for cut in cuts if 0 <= cut <= duration_ns)
    spans = list(itertools.pairwise(edges))
    permille = multipliers_permille(shape)
    offset_ns = round(start_hour * NS_PER_H)
    own = [rate_tps * permille[(start + offset_ns) % DAY_NS // QUARTER_NS] / MEAN_PERMILLE for start, _ in spans]
    rates = list(own)
    for change in changes:
        inside = [change.at_ns <= start < change.end_ns for start, _ in spans]
        rates = [rate * change.times if within else rate for rate, within in zip(rates, inside, strict=True)]
    for change in changes:
        if not change.returns or change.end_ns >= duration_ns:
            continue
        away = sum(
            rate * (1 - change.times) * (end - start) / NS_PER_S
            for rate, (start, end) in zip(own, spans, strict=True)
            if change.at_ns <= start < change.end_ns
        )
        more = away * change.returns / (change.backlog_ns / NS_PER_S)
        after_ns = change.end_ns + change.backlog_ns
        rates = [
            rate + more if change.end_ns <= start < after_ns else rate
            for rate, (start, _) in zip(rates, spans, strict=True)
        ]
    return Pace([Leg(rate, rate, end - start) for rate, (start, end) in zip(rates, spans, strict=True)])
