"""Seeded bugs of PBFT."""

from __future__ import annotations

from typing import cast

from sim.adversary.mutants.faulty_context import Twice
from sim.families.pbft.viewchange import ViewChange, min_s
from sim.protocol import Block, Context, Timer, upon
from sim.protocols.pbft import Pbft

ONCE = Timer("set once, never reset")


class Quorum2F(Pbft):
    """Two quorums need not share a correct replica."""

    def committed_quorum(self) -> int:
        return max(2 * self.f, 1)


class Quorum2FPlus1(Pbft):
    """Right for n = 3f + 1 only."""

    def committed_quorum(self) -> int:
        return 2 * self.f + 1


class VoterCountedTwice(Pbft):
    """A VIEW-CHANGE that is sent again counts again."""

    @upon(ViewChange)
    def on_view_change(self, sender: int, utterance: ViewChange) -> None:
        known = self.changes.get(utterance.view, {})
        again = sum(voter % self.context.n == sender for voter in known)
        super().on_view_change(sender + again * self.context.n, utterance)


class PreparedForgotten(Pbft):
    """A VIEW-CHANGE says nothing of what prepared and is not executed here."""

    def prepared(self) -> tuple[tuple[int, int, Block], ...]:
        height = self.context.height
        return tuple(known for known in super().prepared() if known[0] <= height)


class LowestPrepared(Pbft):
    """Of two batches for one sequence number the one of the older view is carried over."""

    def carried_over(self, changes: tuple[ViewChange, ...]) -> tuple[int, list[tuple[int, Block | None]]]:
        low = min_s(changes)
        best: dict[int, tuple[int, Block]] = {}
        for change in changes:
            for sequence, view, block in change.prepared:
                if sequence > low and (sequence not in best or view < best[sequence][0]):
                    best[sequence] = (view, block)
        top = max(best, default=low)
        return low, [(s, best[s][1] if s in best else None) for s in range(low + 1, top + 1)]


class TimerNeverReset(Pbft):
    """The timer of a view is set once and expires whatever was executed since."""

    def enter(self, view: int) -> None:
        super().enter(view)
        self.context.set_timer(ONCE, self.parameters.request_timeout_ns, view)

    @upon(ONCE)
    def on_once(self, view: int) -> None:
        """Time is up."""
        if self.active and self.view == view and not self.is_primary:
            self.on_request_timeout()


class TimeoutNotDoubled(Pbft):
    """Patience does not grow with failed view changes."""

    @property
    def timeout_ns(self) -> int:
        """Always the same."""
        patience: int = self.parameters.request_timeout_ns
        return patience

    @timeout_ns.setter
    def timeout_ns(self, value: int) -> None:
        """Not heeded."""


class EverythingTwice(Pbft):
    """Every message is sent twice."""

    def __init__(self, context: Context) -> None:
        super().__init__(cast(Context, Twice(context)))
