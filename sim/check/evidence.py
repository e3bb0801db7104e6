"""What proves a violation: certificates, who signed them, and whom two of them convict."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from sim.host import Run
from sim.kernel import run_state as kernel
from sim.kernel import tally as tallies
from sim.protocol import Ballot, Block, VoteType


@dataclasses.dataclass(frozen=True)
class Certificate:
    """Who signed one ballot, as one node counted them. `complete`: they are a quorum.

    Where a condition belongs to the quorum (PBFT's pre-prepare), who stood for it is among the signers.
    """

    vote: str
    view: int
    number: int
    block: int | None
    voters: tuple[int, ...]
    complete: bool

    def as_data(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)

    def words(self) -> str:
        """In words."""
        about = "" if self.block is None else f" for block {self.block}"
        short = "" if self.complete else " (no quorum)"
        return f"{self.vote}{about} in view {self.view} by {numbers(self.voters)}{short}"


def numbers(nodes: Iterable[int]) -> str:
    """Nodes in words."""
    return ", ".join(map(str, sorted(nodes))) or "nobody"


def certificate_at(run: Run, ballot: Ballot, vote: VoteType, node: int) -> Certificate | None:
    """A ballot's votes as a node counts them; votes that one node collects: as that one does. None: no vote."""
    row = ballot.rows.get(vote)
    if row is None:
        return None
    tally, bits = run.engine.run_state[kernel.TALLY], run.engine.run_state[kernel.TALLY_BITS]
    first = int(tally[row * tallies.ROW + tallies.BITS_AT] + node * tally[row * tallies.ROW + tallies.BITS_STEP])
    everybody = range(run.engine.voters)
    voters = tuple(voter for voter in everybody if (int(bits[first + (voter >> 6)]) >> (voter & 63)) & 1)
    block = None if ballot.block is None else ballot.block.number
    complete = has_quorum(run, ballot, vote, (node,))
    return Certificate(vote.name, ballot.view, ballot.number, block, voters, complete) if voters else None


def has_quorum(run: Run, ballot: Ballot, vote: VoteType, nodes: Iterable[int]) -> bool:
    """Whether some of the nodes holds a quorum of these votes."""
    row = ballot.rows.get(vote)
    if row is None:
        return False
    run_state, quorum = run.engine.run_state, run.tallies.quorum_of(row, vote)
    counts, fired = run_state[kernel.TALLY_COUNT], run_state[kernel.TALLY_FIRED]
    start, step = (
        int(run_state[kernel.TALLY][row * tallies.ROW + column]) for column in (tallies.COUNT_AT, tallies.COUNT_STEP)
    )
    for node in nodes:
        count = int(counts[start + node * step])
        own = quorum.weights[node] if quorum.weights else 1
        votes = count % tallies.GATE + (own if int(fired[start + node * step]) & tallies.OWN else 0)
        if votes >= quorum.votes and (count >= tallies.GATE or not quorum.gated):
            return True
    return False


def best_certificate(run: Run, ballot: Ballot, vote: VoteType, nodes: Iterable[int]) -> Certificate | None:
    """The fullest certificate of a ballot among those that some nodes hold."""
    found = [held for node in nodes if (held := certificate_at(run, ballot, vote, node)) is not None]
    return max(found, key=lambda held: (held.complete, len(held.voters)), default=None)


def deciding_certificate(run: Run, block: Block, nodes: Iterable[int]) -> Certificate | None:
    """The certificate on which a block was decided: of the latest kind of vote that has a quorum, latest view."""
    everyone = list(nodes)
    found: list[Certificate] = []
    for vote in reversed([vote for vote in run.protocol.votes if vote.decides]):
        for ballot in sorted(block.ballots, key=lambda ballot: -ballot.view):
            certificate = best_certificate(run, ballot, vote, everyone)
            if certificate is not None and certificate.complete:
                return certificate
            found += [certificate] if certificate is not None else []
    return max(found, key=lambda certificate: len(certificate.voters), default=None)


def culprits(first: Certificate | None, second: Certificate | None) -> tuple[int, ...]:
    """Who signed both of two conflicting certificates of one view: a correct replica never does.

    In a later view it may sign another block, so two views accuse nobody.
    """
    if first is None or second is None or (first.vote, first.view) != (second.vote, second.view):
        return ()
    return tuple(sorted(set(first.voters) & set(second.voters)))


def charge(first: Certificate | None, second: Certificate | None, voters: int) -> str:
    """Both certificates, and what they prove."""
    if first is None and second is None:
        return "no certificates on record"
    shown = "; ".join(c.words() if c is not None else "no certificate on record" for c in (first, second))
    if first is None or second is None:
        return shown
    both = tuple(sorted({*first.voters} & {*second.voters}))
    if not both:
        return f"{shown}; nobody signed both: {len(first.voters)} and {len(second.voters)} of {voters} need not meet"
    if culprits(first, second):
        return f"{shown}; culprits, who signed both in view {first.view}: {numbers(both)}"
    return f"{shown}; in views {first.view} and {second.view}, which accuses nobody: {numbers(both)} signed both"
