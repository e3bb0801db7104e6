"""Who belongs to a group whose members change, as a configuration that entries of the log carry.

A configuration with `leaving` is joint (Raft's C_old,new): decisions need a majority of both sets of voters. The
latest one in the log is in force, committed or not (Raft thesis, chapter 4); or, as in etcd and what is built on it
(Fabric, GoQuorum), the latest that is committed: a change counts with the members before it.

Whoever asked for votes counts them, as messages, since the simulator's own count of votes knows no configurations. A
configuration rides on an entry together with transactions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator

from sim.families.raft.rpc import Granted, RequestVote
from sim.protocol import Ballot, Block, Context, MembersChange, Message


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


class Membership:
    """What one server knows of its group, and of the changes asked for."""

    def __init__(self, context: Context, *, joint: bool, when_applied: bool = False) -> None:
        self.context = context
        self.joint = joint  # all at once, or one voter at a time
        self.when_applied = when_applied  # a configuration is in force once it is committed, not before
        self.settled = Members(context.membership.members, context.membership.learners)  # as of the last decided entry
        self.members = self.settled  # as of the log's last entry: in force
        self.requests: list[MembersChange] = []
        self.joining: set[int] = set()  # a leader sends them the log before they become members
        self.asked = (0, 0)  # term and ballot of the election I stand in
        self.granted: set[int] = set()  # votes for me in it

    def restore(self) -> None:
        """Read it from disk."""
        self.settled, self.requests = self.context.disk.stable["settled"], list(self.context.disk.stable["requests"])

    def tell(self, servers: Iterable[int], message: Message) -> None:
        """Send a message to these servers but me."""
        for server in sorted({*servers} - {self.context.me}):
            self.context.send(server, message)

    def ask_votes(self, request: RequestVote) -> None:
        """Ask those who vote."""
        self.asked = (request.term, request.round_)
        self.granted = set()
        self.tell([node for node in self.members.everyone() if self.members.votes(node)], request)

    def count(self, voter: int, vote: Granted, enough: Callable[[Collection[int]], bool]) -> Ballot | None:
        """A vote for me. Returns the ballot if enough have voted for me in it."""
        if (vote.term, vote.round_) != self.asked:
            return None
        self.granted.add(voter)
        return Ballot(vote.term, vote.round_, None) if enough(self.granted) else None

    def receivers(self) -> set[int]:
        """Who gets the leader's log: members, those that a change lets go until it is committed, those to come."""
        return self.members.everyone() | self.settled.everyone() | self.joining

    def take(self, tail: list[Block]) -> bool:
        """The log's undecided end is this. Whether I got a vote by it, or lost mine."""
        me = self.context.me
        before = self.members.votes(me)
        found = (entry.body for entry in reversed(tail) if isinstance(entry.body, Members))
        self.members = self.settled if self.when_applied else next(found, self.settled)
        return self.members.votes(me) != before

    def is_under_way(self, tail: list[Block]) -> bool:
        """Whether a configuration is not committed yet: there is one at a time."""
        if self.when_applied:
            return any(isinstance(entry.body, Members) for entry in tail)
        return self.members != self.settled

    def settle(self, block: Block) -> None:
        """An entry is decided, perhaps one with a configuration."""
        if isinstance(block.body, Members):
            self.settled = block.body
            self.context.disk.persist(settled=self.settled)

    def ask(self, change: MembersChange) -> None:
        """The operator asks for a change."""
        self.requests.append(change)
        self.context.disk.persist(requests=tuple(self.requests))

    @property
    def has_left_me(self) -> bool:
        """Whether the configuration in force is not joint, and has no vote for me."""
        return self.members.leaving is None and not self.members.votes(self.context.me)

    def following(self, has_caught_up: Callable[[int], bool]) -> Members | None:
        """The configuration to append next, once the last one is decided (`settled`); None: not now.

        Voters to come receive the log first, so that they do not hold up commitment when they count.
        """
        members = self.members
        if members.leaving is not None:
            return members.settled()
        request = next(pending(self.requests, members), None)
        if request is None:
            return None
        goal = members.after(request)
        self.joining = {*goal.voters} - members.everyone()
        if not all(has_caught_up(server) for server in goal.voters if server not in members.voters):
            return None
        return members.jointly_to(goal) if self.joint else members.one_step_to(goal)
