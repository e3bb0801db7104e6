"""Voters that join and leave at a height, as blocks say.

An operator's request rides in a block and is in force from a fixed number of heights later on. Two rules are known:

* the request is a transaction, and the next block carries it out at once: FISCO BCOS's consensus precompiled contract
  (addSealer, removeNode), the validator contract of Besu's and GoQuorum's QBFT, CometBFT's validator updates;
* each proposer's block carries that proposer's vote for one candidate, and more than half of the voters change the set:
  header votes of EIP-650 (IBFT), as in Clique.

Whoever is to join fetches the blocks and says so when it is level. Operators are told to wait for that, and a request
may say that they do; no platform does it for them, so one that is carried out at once may admit a voter that is not
there. A block that carries a request need not carry transactions, nor wait for the block interval.
"""

from __future__ import annotations

import dataclasses

from sim.protocol import Block, Context, MembersChange, Quorum

ENTRY_BYTES = 64  # in a block, per voter named in a request: key and sign


@dataclasses.dataclass(frozen=True, slots=True)
class ValidatorSet:
    """Who votes after a block that says so, and how far the operator's requests are. It is the block's body."""

    members: tuple[int, ...]
    request: MembersChange | None = None  # that the block carries
    done: tuple[int, ...] = ()  # numbers of the requests carried out
    votes: tuple[tuple[int, int], ...] = ()  # (voter, candidate): header votes not counted out yet

    def after(self, request: MembersChange) -> ValidatorSet:
        """The request carried out at once. If nobody would be left, nothing changes."""
        members = tuple(sorted({*self.members, *request.add} - {*request.remove})) or self.members
        return ValidatorSet(members, request, (*self.done, request.number))

    def with_vote(self, request: MembersChange, voter: int) -> ValidatorSet:
        """A voter's vote for the request's next candidate, which more than half admit or expel."""
        candidate = self.candidate(request)
        if candidate is None:
            return dataclasses.replace(self, request=request, done=(*self.done, request.number))
        votes = {*self.votes, (voter, candidate)}
        if 2 * sum(about == candidate for _, about in votes) <= len(self.members):
            return dataclasses.replace(self, request=request, votes=tuple(sorted(votes)))
        members = tuple(sorted({*self.members} ^ {candidate}))
        votes = {(who, about) for who, about in votes if about != candidate and who in members}
        changed = ValidatorSet(members, request, self.done, tuple(sorted(votes)))
        done = self.done if changed.candidate(request) is not None else (*self.done, request.number)
        return dataclasses.replace(changed, done=done)

    def candidate(self, request: MembersChange) -> int | None:
        """The first voter whom the request still has to admit or to expel; the last member is not expelled."""
        joining = (node for node in request.add if node not in self.members and node not in request.remove)
        leaving = (node for node in request.remove if node in self.members and len(self.members) > 1)
        return next(joining, next(leaving, None))


class Voters:
    """What one replica knows of the voters at each height, and of the requests.

    `delay`: a block at height h is in force from h + delay on. `by_vote`: header votes.
    """

    def __init__(self, context: Context, *, delay: int = 1, by_vote: bool = False) -> None:
        self.context = context
        self.delay = delay
        self.by_vote = by_vote
        self.validator_sets: list[tuple[int, ValidatorSet]] = [
            (1, ValidatorSet(context.membership.members))
        ]  # in force from a height on, ascending
        self.seen = 0  # height of the last block looked at
        self.requests: list[MembersChange] = []
        self.level = set(context.membership.members)  # replicas that have said that they are
        if not context.membership.may_change:
            return
        if "validator_sets" in context.disk.stable:
            self.validator_sets, self.requests = (
                list(context.disk.stable["validator_sets"]),
                list(context.disk.stable["requests"]),
            )
        self.seen = context.height

    def at(self, height: int) -> tuple[int, ...]:
        """Who votes at a height, as far as is known here."""
        return next(
            validator_set.members
            for first, validator_set in reversed(self.validator_sets)
            if first <= height or first == 1
        )

    @property
    def latest(self) -> ValidatorSet:
        """As of the last block decided here, in force or not."""
        return self.validator_sets[-1][1]

    def changes(self) -> int:
        """How many changes of the set are decided here."""
        return sum(
            a.members != b.members for (_, a), (_, b) in zip(self.validator_sets, self.validator_sets[1:], strict=False)
        )

    def follow(self) -> None:
        """Look at the blocks decided since the last call."""
        context, known = self.context, len(self.validator_sets)
        for height in range(self.seen + 1, context.height + 1):
            block = context.chain.decided(height)
            if block is not None and isinstance(block.body, ValidatorSet):
                self.validator_sets.append((height + self.delay, block.body))
        self.seen = context.height
        if len(self.validator_sets) > known:
            self.save()

    def save(self) -> None:
        """Write to disk."""
        self.context.disk.persist(validator_sets=tuple(self.validator_sets), requests=tuple(self.requests))

    def ask(self, request: MembersChange) -> None:
        """The operator asks."""
        self.requests.append(request)
        self.save()

    def adds(self, replica: int) -> bool:
        """Whether a request not carried out yet would make this replica a voter."""
        return replica not in self.latest.members and any(replica in request.add for request in self._open())

    def _open(self) -> list[MembersChange]:
        return [request for request in self.requests if request.number not in self.latest.done]

    def due(self) -> ValidatorSet | None:
        """What the next block says of the voters, if a request waits of which all newcomers are level."""
        voter, latest = self.context.me, self.latest
        for request in self._open():
            if not request.at_once and not {*request.add} <= self.level:
                continue
            if not self.by_vote:
                return latest.after(request)
            if (voter, latest.candidate(request)) not in latest.votes:
                return latest.with_vote(request, voter)
        return None

    def attach(self, block: Block) -> None:
        """Put what is due into a new block."""
        due = self.due()
        if due is not None:
            assert due.request is not None
            block.body = due
            block.bytes += ENTRY_BYTES * len((*due.request.add, *due.request.remove))

    def accepts(self, block: Block) -> bool:
        """Whether what a block on top of the last decided one says of the voters follows from what was before."""
        body, latest = block.body, self.latest
        if not isinstance(body, ValidatorSet) or body.request is None:
            return body is None
        if body.request.number in latest.done:
            return False
        if self.by_vote:
            return body == latest.with_vote(body.request, block.proposer)
        return body == latest.after(body.request)

    def quorum(self, height: int, votes: int, *, gated: bool = False, early: int = 0) -> Quorum:
        """So many of the voters at a height."""
        return self.quorum_of(self.at(height), votes, gated=gated, early=early)

    def quorum_of(self, members: tuple[int, ...], votes: int, *, gated: bool = False, early: int = 0) -> Quorum:
        """So many of these voters."""
        weights = tuple(int(voter in members) for voter in range(self.context.n))
        return Quorum(votes, gated=gated, early=early, weights=weights)
