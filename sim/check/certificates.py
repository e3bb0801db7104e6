"""Two quorums for different things, where the protocol allows one: no correct protocol lets that happen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sim.check.evidence import best_certificate, charge, culprits, has_quorum
from sim.check.verdict import Violation
from sim.host import Run
from sim.protocol import Ballot, VoteType


def rival_certificates(run: Run, correct: Iterable[int]) -> Iterator[Violation]:
    """Pairs of complete quorums, held by correct replicas, that exclude each other (`VoteType.unique`)."""
    nodes = list(correct)
    by_view: dict[int, list[Ballot]] = {}
    by_number: list[list[Ballot]] = []
    for (view, _), ballots in run.block_store.all_ballots():
        by_view.setdefault(view, []).extend(ballots)
        if len(ballots) > 1:
            by_number.append(ballots)
    groups: dict[str, list[list[Ballot]]] = {
        "number": by_number,
        "view": [ballots for ballots in by_view.values() if len(ballots) > 1],
    }
    for vote in run.protocol.votes:
        for rivals in groups.get(vote.unique, ()):
            yield from _pair(run, vote, rivals, nodes)


def _pair(run: Run, vote: VoteType, rivals: list[Ballot], nodes: list[int]) -> Iterator[Violation]:
    if sum(vote in ballot.rows for ballot in rivals) < 2:
        return
    complete = [ballot for ballot in rivals if has_quorum(run, ballot, vote, nodes)]
    if len(complete) < 2:
        return
    first, second = (best_certificate(run, ballot, vote, nodes) for ballot in complete[:2])
    if first is not None and second is not None:
        yield Violation(
            "certificates", "safety", run.now_ns, -1,
            f"two certificates where there can be one: {charge(first, second, run.engine.voters)}",
            culprits(first, second), (first.as_data(), second.as_data()),
        )  # fmt: skip
