"""Liveness: once faults stop changing and enough voters run, something is decided within a bound."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

import numpy as np

from sim.check.verdict import Violation
from sim.ledger import rows as ledger
from sim.trace.rows import Rows

_RING = 1 << 14  # heights whose first decision is remembered


class Decisions:
    """Fold over trace rows: the times at which a voter decided anything new, thinned to what liveness asks.

    What corrupted voters decide must have been left out of the rows.
    """

    def __init__(self, voters: int, played_short: Sequence[tuple[int, int, int]] = ()) -> None:
        """`played_short`: outages that stand for longer ones: begin, end, and how much more time, ns."""
        self.voters = voters
        self.played_short = tuple(played_short)
        self.last_ns = -1
        self.height = 0  # the highest decided by anybody: catching up below it decides nothing new
        self.count = 0
        self.longest: tuple[int, int, int] | None = None  # pause: start, end, length (`lengths_ns`), ns
        self.marks: dict[int, int] = {}  # time asked about -> first decision after it
        self.last_pauses_ns: collections.deque[int] = collections.deque(maxlen=3)  # before the last decisions
        self.last_of_ns = np.full(voters, -1, dtype=np.int64)  # each voter's last decision
        # Height modulo their length, of the last ones: the first decision, and whether transactions are in its block.
        self._first_ns, self._is_full = np.zeros(_RING, dtype=np.int64), np.zeros(_RING, dtype=bool)

    def lengths_ns(self, begins_ns: np.ndarray, ends_ns: np.ndarray) -> np.ndarray:
        """How long pauses are, shape (pauses,): one that lasts as long as an outage, as long as that stands for.

        It goes on from the first half of what is played to the end. What a design pauses within an outage, or when it
        is over, its timers say: that is no longer in a longer one.
        """
        lengths_ns: np.ndarray = ends_ns - begins_ns
        for at_ns, end_ns, more_ns in self.played_short:
            lasts = (begins_ns <= at_ns + (end_ns - at_ns) // 2) & (ends_ns >= end_ns)
            lengths_ns = lengths_ns + lasts * more_ns
        return lengths_ns

    def watch(self, time_ns: int) -> None:
        """Note the first decision after this time."""
        self.marks.setdefault(time_ns, -1)

    def __call__(self, rows: np.ndarray) -> None:
        """Take in a chunk of trace rows."""
        decided = Rows(rows).of(ledger.EVENT_DECIDED)
        if not len(decided):
            return
        if int(decided.node.max()) >= self.voters:
            decided = decided[decided.node < self.voters]
        self.last_of_ns[decided.node] = decided.time_ns  # in order of time: the last stays
        heights = decided.height
        before = np.maximum.accumulate(np.concatenate(([self.height], heights)))[:-1]
        new = np.flatnonzero(heights > before)  # the first to decide a height above all before
        if not len(new):
            return
        times, heights = decided.time_ns[new], heights[new]
        self.height = int(heights[-1])
        self._first_ns[heights % _RING], self._is_full[heights % _RING] = times, decided.txs[new] > 0
        self.count += len(times)
        for mark, found in self.marks.items():
            if found < 0:
                after = times[np.searchsorted(times, mark, side="right") :]
                if len(after):
                    self.marks[mark] = int(after[0])
        since = np.concatenate(([max(self.last_ns, 0)], times[:-1]))
        self.last_pauses_ns.extend((times - since)[-3:].tolist())
        lengths_ns = self.lengths_ns(since, times)
        longest = int(lengths_ns.argmax())
        if not self.longest or lengths_ns[longest] > self.longest[2]:
            self.longest = (int(since[longest]), int(times[longest]), int(lengths_ns[longest]))
        self.last_ns = int(times[-1])

    def missing_since_ns(self, node: int, height: int) -> int | None:
        """Since when a voter, decided up to this height, gets nothing of what others have; None: it lacks nothing.

        From the later of its own last decision and the first one of a height above it with transactions: who lacks
        empty blocks alone, with which others have come to know what is final, lacks nothing.
        """
        oldest = max(height + 1, self.height + 1 - _RING)  # of what is known: of a height below, later than the truth
        above = np.arange(oldest, self.height + 1) % _RING
        full = above[self._is_full[above]]
        return max(int(self._first_ns[full[0]]), int(self.last_of_ns[node])) if len(full) else None


def behind(
    decisions: Decisions, heights: Mapping[int, int], linked_from_ns: Mapping[int, int], end_ns: int, bound_ns: int
) -> list[Violation]:
    """Voters that stayed behind others for longer than the bound, though they ran and were linked with enough of them.

    `heights`: of each voter to judge; `linked_from_ns`: since when it has run and been linked, if it is.
    """
    found = []
    for node, height in heights.items():
        since_ns = decisions.missing_since_ns(node, height)
        if since_ns is None or node not in linked_from_ns:
            continue
        since_ns = max(since_ns, linked_from_ns[node])
        if end_ns - since_ns > bound_ns:
            text = (
                f"replica {node} runs, is linked and has decided nothing since {since_ns / 1e9:.3f} s, at height "
                f"{height} while others are at {decisions.height}; the bound is {bound_ns / 1e9:g} s"
            )
            found.append(Violation("behind", "liveness", since_ns + bound_ns, node, text))
    return found


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
