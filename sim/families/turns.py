"""Who leads first, where a protocol's leaders follow one another in a fixed order."""

from __future__ import annotations

from sim.parameters import Parameters, count


class FirstLeader(Parameters):
    """The parameter that all such protocols share."""

    first_leader: int | None = count(
        None, "number of the voter that leads first, the others follow in order; by default as published", low=0
    )

    def steps_to(self, published: int) -> int:
        """How far the first leader stands behind the one that a publication begins with; negative: before it."""
        return 0 if self.first_leader is None else self.first_leader - published
