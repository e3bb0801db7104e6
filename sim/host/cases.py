"""What the engine is told of a protocol: the costs of its votes, and its normal cases."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sim.engine import cases, votes
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
    table = run.engine.run_state[votes.KIND_COST].reshape(-1, votes.KIND_COST_WIDTH)
    for vote in run.protocol.votes:
        row = table[run.kinds[vote]]
        row[votes.COST_SIZE] = vote.size_bytes + (run.costs.signature_bytes if vote.signed else 0)
        row[votes.COST_SIGN_NS] = run.costs.sign_ns if vote.signed else 0
        row[votes.COST_VERIFY_NS] = run.costs.verify_ns if vote.signed else 0
        row[votes.COST_HANDLE_NS] = run.costs.handle_ns
        if vote.certified:
            signers = run.quorums[vote].votes
            row[votes.COST_SIZE] += run.signing.certificate_bytes(signers)
            row[votes.COST_VERIFY_NS] += run.costs.verify_certificate_ns(signers)
        weights = run.quorums[vote].weights
        if weights:
            run.engine.lay_weights(run.kinds[vote], weights)


def declare(run: Run, case: NormalCase) -> None:
    """Write a declared normal case into the engine's table."""
    number = len(run.cases)
    if number == cases.CASES_MAX or len(case.votes) > cases.CASE_VOTES_MAX or case.upon in run.cases:
        raise ProtocolError(
            f"normal case number {number + 1}, upon {case.upon.__name__} with {len(case.votes)} votes: a protocol "
            f"declares at most {cases.CASES_MAX} cases of {cases.CASE_VOTES_MAX} votes, one per type of message"
        )
    run.cases[case.upon] = Case(number, dict.fromkeys(step.vote for step in case.votes))
    run.case_votes.append(tuple(run.cases[case.upon].votes))
    if case.aggregate is not None:
        run.dissemination.declare(number, case)
    c = run.engine.run_state[cases.CASES][number * cases.CASE_WIDTH :]
    c[cases.CASE_VOTES] = len(case.votes)
    c[cases.CASE_GATED] = case.gate
    c[cases.CASE_PERSIST_NS] = run.costs.persist_ns if case.persist else 0
    c[cases.CASE_DECIDES] = cases.DECIDES_AT_END if case.decide else cases.DECIDES_NOTHING
    for i, step in enumerate(case.votes):
        at = cases.CASE_VOTE + 4 * i
        c[at] = run.kinds[step.vote]
        c[at + 1] = step.to_all
        c[at + 2] = threshold(run.quorums[step.vote])
