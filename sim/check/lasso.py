"""Livelock told from slowness: the same abstract state comes back view after view, and nothing is decided."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable


@dataclasses.dataclass(frozen=True)
class Loop:
    """A state that came back: views between which it did, and how often it was seen."""

    first_view: int
    last_view: int
    times: int


class Lasso:
    """Samples of a run since its last decision. `rounds`: views in which a state must recur to count as a loop."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.decided = -1
        self.seen: dict[Hashable, list[int]] = {}  # state -> views it was seen in, ascending
        self.view = -1  # of the last sample

    def sample(self, decided: int, view: int, state: Hashable) -> None:
        """The number of decisions so far, the lowest view that a correct replica is in, and their states."""
        if decided != self.decided:
            self.decided = decided
            self.seen = {}
        self.view = view
        views = self.seen.setdefault(state, [])
        if not views or view > views[-1]:
            views.append(view)

    def loop(self) -> Loop | None:
        """The loop that the run is in, if it is in one: by the state that came back most often, not just the last."""
        known = [views for state, views in self.seen.items() if state is not None]
        views = max(known, key=len, default=[])
        return Loop(views[0], views[-1], len(views)) if len(views) >= self.rounds else None
