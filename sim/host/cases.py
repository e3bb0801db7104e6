"""What the engine is told of a protocol: the costs of its votes, and its normal cases."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sim.engine import lanes
from sim.host.costs import ProtocolError
from sim.host.tallies import threshold
from sim.protocol import NormalCase, VoteType

if TYPE_CHECKING:
    from sim.host.run import Run


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A declared normal case: its number in the engine's table, and its types of votes (an ordered set)."""

    number: int
    votes: dict[VoteType, None]


def lay_costs(run: Run) -> None:
    """Write what each type of vote costs, and its weights, into the engine's tables."""
    table = run.engine.desk[lanes.KIND_COST].reshape(-1, lanes.KIND_COST_WIDTH)
    for vote in run.protocol.votes:
        row = table[run.kinds[vote]]
        row[lanes.COST_SIZE] = vote.size_bytes + (run.costs.signature_bytes if vote.signed else 0)
        row[lanes.COST_SIGN_NS] = run.costs.sign_ns if vote.signed else 0
        row[lanes.COST_VERIFY_NS] = run.costs.verify_ns if vote.signed else 0
        row[lanes.COST_HANDLE_NS] = run.costs.handle_ns
        if vote.certified:
            signers = run.quorums[vote].votes
            row[lanes.COST_SIZE] += run.signing.certificate_bytes(signers)
            row[lanes.COST_VERIFY_NS] += run.costs.verify_certificate_ns(signers)
        weights = run.quorums[vote].weights
        if weights:
            run.engine.lay_weights(run.kinds[vote], weights)


def declare(run: Run, case: NormalCase) -> None:
    """Write a declared normal case into the engine's table."""
    number = len(run.cases)
    if number == lanes.CASES_MAX or len(case.votes) > lanes.CASE_VOTES_MAX or case.upon in run.cases:
        raise ProtocolError(
            f"normal case number {number + 1}, upon {case.upon.__name__} with {len(case.votes)} votes: a protocol "
            f"declares at most {lanes.CASES_MAX} cases of {lanes.CASE_VOTES_MAX} votes, one per type of letter"
        )
    run.cases[case.upon] = Case(number, dict.fromkeys(step.vote for step in case.votes))
    run.case_votes.append(tuple(run.cases[case.upon].votes))
    if case.gather is not None:
        run.trees.declare(number, case)
    c = run.engine.desk[lanes.CASES][number * lanes.CASE_WIDTH :]
    c[lanes.CASE_VOTES] = len(case.votes)
    c[lanes.CASE_GATED] = case.gate
    c[lanes.CASE_PERSIST_NS] = run.costs.persist_ns if case.persist else 0
    c[lanes.CASE_DECIDES] = lanes.DECIDES_AT_END if case.decide else lanes.DECIDES_NOTHING
    for i, step in enumerate(case.votes):
        at = lanes.CASE_VOTE + 4 * i
        c[at] = run.kinds[step.vote]
        c[at + 1] = step.to_all
        c[at + 2] = threshold(run.quorums[step.vote])
