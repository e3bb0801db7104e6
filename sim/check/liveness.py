"""Liveness: once faults stop changing and enough voters run, something is decided within a bound."""

from __future__ import annotations

import numpy as np

from sim.check.verdict import Violation
from sim.ledger import rows as r
from sim.trace.rows import Rows


class Decisions:
    """Fold over trace rows: the times at which a voter decided anything new, thinned to what liveness asks.

    What corrupted voters decide must have been left out of the rows.
    """

    def __init__(self, voters: int) -> None:
        self.voters = voters
        self.last_ns = -1
        self.height = 0  # the highest decided by anybody: catching up below it decides nothing new
        self.count = 0
        self.gaps: list[tuple[int, int]] = []  # the longest pauses: (start, end), ns
        self.marks: dict[int, int] = {}  # time asked about -> first decision after it

    def watch(self, time_ns: int) -> None:
        """Note the first decision after this time."""
        self.marks.setdefault(time_ns, -1)

    def __call__(self, rows: np.ndarray) -> None:
        """Take in a chunk of trace rows."""
        decided = Rows(rows).of(r.EVENT_DECIDED)
        new = decided[(decided.node < self.voters) & (decided.height > self.height)]
        heights, first = np.unique(new.height, return_index=True)  # the first to decide a height above all before
        rising = np.minimum.accumulate(first[::-1])[::-1] == first  # not overtaken by a greater height
        times = new.time_ns[first[rising]]
        self.height = int(heights[-1]) if len(heights) else self.height
        if not len(times):
            return
        self.count += len(times)
        for mark, found in self.marks.items():
            if found < 0:
                after = times[np.searchsorted(times, mark, side="right") :]
                if len(after):
                    self.marks[mark] = int(after[0])
        steps = np.diff(np.concatenate(([max(self.last_ns, 0)], times)))
        longest = int(steps.argmax())
        end = int(times[longest])
        self.gaps = sorted([*self.gaps, (end - int(steps[longest]), end)], key=lambda gap: gap[0] - gap[1])[:8]
        self.last_ns = int(times[-1])


def liveness(
    decisions: Decisions, *, quiet_from_ns: int | None, end_ns: int, bound_ns: int, waiting: bool
) -> tuple[list[Violation], bool]:
    """Violations, and whether the check applies.

    `quiet_from_ns`: when faults last changed while enough voters ran (None: never enough). `waiting`: whether
    anything was left to decide at the end.
    """
    if quiet_from_ns is None or end_ns - quiet_from_ns < bound_ns:
        return [], False
    first = decisions.marks.get(quiet_from_ns, -1)
    if first < 0 and not waiting:
        return [], False
    if 0 <= first <= quiet_from_ns + bound_ns:
        if waiting and end_ns - decisions.last_ns > bound_ns:
            text = f"nothing was decided after {decisions.last_ns / 1e9:.3f} s although transactions waited"
            return [Violation("liveness", "liveness", decisions.last_ns, -1, text)], True
        return [], True
    seen = "nothing was decided" if first < 0 else f"the first decision came at {first / 1e9:.3f} s"
    text = f"faults were over at {quiet_from_ns / 1e9:.3f} s; {seen}, the bound is {bound_ns / 1e9:g} s"
    return [Violation("liveness", "liveness", quiet_from_ns + bound_ns, -1, text)], True
