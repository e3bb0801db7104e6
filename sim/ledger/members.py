"""Who belongs to a group whose members change, as a configuration that entries of the log carry.

A configuration with `leaving` is joint (Raft's C_old,new): decisions need a majority of both sets of voters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator

from sim.protocol import MembersChange


@dataclasses.dataclass(frozen=True, slots=True)
class Members:
    """A configuration: whose votes count, who only receives, and the last request of the operator in it."""

    voters: tuple[int, ...]
    learners: tuple[int, ...] = ()
    leaving: tuple[int, ...] | None = None  # the voters before, while both sets decide
    request: int = 0

    def everyone(self) -> set[int]:
        """All who receive the log."""
        return {*self.voters, *self.learners, *(self.leaving or ())}

    def votes(self, node: int) -> bool:
        """Whether a node's vote counts."""
        return node in self.voters or node in (self.leaving or ())

    def agrees(self, nodes: Collection[int]) -> bool:
        """Whether these nodes are a majority, of both sets if there are two."""
        sets = [self.voters] if self.leaving is None else [self.voters, self.leaving]
        return all(2 * sum(node in nodes for node in voters) > len(voters) for voters in sets)

    def after(self, change: MembersChange) -> Members:
        """The configuration asked for. Whoever leaves or learns has no vote; without a voter nothing changes."""
        voters = {*self.voters, *change.add} - {*change.remove, *change.learn}
        learners = ({*self.learners, *change.learn} - {*change.add}) - {*change.remove}
        if not voters:
            return dataclasses.replace(self, request=change.number)
        return Members(tuple(sorted(voters)), tuple(sorted(learners)), None, change.number)

    def one_step_to(self, goal: Members) -> Members:
        """At most one voter joins or leaves, joining first, learners with the last step."""
        joining = [node for node in goal.voters if node not in self.voters]
        leaving = [node for node in self.voters if node not in goal.voters]
        if len(joining) + len(leaving) <= 1:
            return goal
        if joining:
            voters = {*self.voters, joining[0]}
        else:
            voters = {*self.voters} - {leaving[0]}
        learners = tuple(node for node in self.learners if node not in voters)
        return Members(tuple(sorted(voters)), learners, None, self.request)

    def jointly_to(self, goal: Members) -> Members:
        """Both sets of voters at once, if more than learners change."""
        if goal.voters == self.voters:
            return goal
        return dataclasses.replace(goal, leaving=self.voters)

    def settled(self) -> Members:
        """The new set alone."""
        return dataclasses.replace(self, leaving=None)


def pending(requests: Collection[MembersChange], members: Members) -> Iterator[MembersChange]:
    """Requests that a configuration does not contain yet, in order."""
    yield from sorted((r for r in requests if r.number > members.request), key=lambda r: r.number)
