"""WHEAT: PBFT with weighted votes.

J. Sousa, A. Bessani, "Separating the WHEAT from the Chaff: An Empirical Design for Geo-Replicated State Machines",
SRDS 2015, sections IV and V (weights and quorums: V-A and V-B).

With more replicas than 3f + 1, n = 3f + 1 + delta, a quorum need not grow: give 2f replicas, those near to most, the
weight Vmax = 1 + delta / f and all others Vmin = 1, and let weight Qv = 2(f + delta) + 1 be a quorum. Any two quorums
share more weight than f replicas can have, so a correct replica; without any f replicas the rest still has Qv; and the
2f heavy ones with a single other are enough, 2f + 1 replicas whatever n is. Everything else is PBFT (pbft.py), with
the phases of BFT-SMaRt: a leader that proposes also writes.

Safe as PBFT is, with weight for number: two quorums share more weight than f replicas have. Live as PBFT is: without
any f replicas the rest has Qv.

paper                    here
-----                    ----
n, f, delta              context.n, f, delta
Vmax, Vmin               f + delta, f: integers, all weights times f
Qv                       f (2 (f + delta) + 1)
PROPOSE, WRITE, ACCEPT   PrePrepare, PREPARE (of the leader too), COMMIT
u: replica -> weight     quorum_among; the heavy replicas are a parameter, or `fastest` chooses them
regency                  view

Deviations
* The normal case is PBFT's with views, checkpoints, view changes and state transfer as in pbft.py, and its deviations,
  in place of Mod-SMaRt's leader change; quorums of view changes and checkpoints are weighted as well.
* Certificates are counted with 2f + 1 signatures, the fewest that reach Qv.
* f = 0 has no heavy replica: all weights are 1, and a majority is a quorum.
* `fastest` goes by the latencies that the scenario declares, once for each group; every replica knows them.
* Replicas join and leave as in PBFT (sim.families.pbft.groups). Each group has its own n, f, delta and weights, and the
  votes of a height are weighed as its group says. Two quorums are compared within one group only: the batch that ends a
  group is decided with that group's weights, and nothing of the next is proposed before.

Not modelled: tentative execution, choosing the weights from measurements while running (AWARE), and whatever pbft.py
does not model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Literal

from pydantic import Field

from sim.protocol import Ballot, Context, NormalCase, Quorum, Step, VoteType
from sim.protocols.pbft import CHECKPOINT, COMMIT, PREPARE, Pbft, PbftParameters, PrePrepare


class WheatParameters(PbftParameters):
    """Parameters of WHEAT: those of PBFT, and who is heavy."""

    heavy: tuple[int, ...] | Literal["fastest"] | None = Field(
        None,
        description="the 2f replicas of weight Vmax, or fastest: those with the nearest quorums by the links' declared "
        "latencies; by default the first of the scenario",
    )


def tolerated(parameters: PbftParameters, voters: int) -> int:
    """f."""
    return (voters - 1) // 3 if parameters.faults is None else parameters.faults


class Wheat(Pbft):
    """One replica of WHEAT."""

    @staticmethod
    def check(parameters: PbftParameters, voters: int) -> None:
        """Refuse parameters that n replicas cannot run with."""
        Pbft.check(parameters, voters)
        assert isinstance(parameters, WheatParameters)
        heavy = parameters.heavy
        if heavy is None or heavy == "fastest":
            return
        wanted = 2 * tolerated(parameters, voters)
        if len(set(heavy)) != wanted or len(heavy) != wanted or not all(0 <= node < voters for node in heavy):
            raise ValueError(
                f"heavy: {list(heavy)} must name 2f = {wanted} different replicas out of 0 to {voters - 1}; "
                f"write heavy: {list(range(wanted))}, or another faults:"
            )

    def __init__(self, context: Context) -> None:
        self.known: dict[tuple[int, ...], Quorum] = {}  # Qv and weights by group
        super().__init__(context)

    # --- weights, section V ----------------------------------------------------------------------------

    def heavy_of(self, members: tuple[int, ...]) -> tuple[int, ...]:
        """The 2f heavy replicas of a group: those named, in their order, and the group's first for want of others."""
        wanted, chosen = 2 * self.tolerated_of(len(members)), self.parameters.heavy
        if chosen == "fastest":
            return self.fastest(members, wanted)
        named = [member for member in chosen or () if member in members]
        return tuple([*named, *(member for member in members if member not in named)][:wanted])

    def fastest(self, members: tuple[int, ...], wanted: int) -> tuple[int, ...]:
        """The 2f that get answers from 2f others of the group soonest, then from all, then by number."""
        context = self.context

        def answers_ns(node: int) -> tuple[int, int, int]:
            trips = sorted(
                context.membership.latency_ns(node, other) + context.membership.latency_ns(other, node)
                for other in members
                if other != node
            )
            return (trips[wanted - 1], sum(trips), node) if wanted else (0, 0, node)

        return tuple(sorted(sorted(members, key=answers_ns)[:wanted]))

    @property
    def heavy(self) -> tuple[int, ...]:
        """The heavy replicas of this group."""
        return self.heavy_of(self.members)

    def quorum_among(self, members: tuple[int, ...]) -> Quorum:
        """Qv, and Vmax for a group's heavy replicas, Vmin for its others, all times f; 0 for who is no member."""
        if members not in self.known:
            f, heavy = self.tolerated_of(len(members)), self.heavy_of(members)
            delta = len(members) - 3 * f - 1
            light, enough = (f, f * (2 * (f + delta) + 1)) if f else (1, len(members) // 2 + 1)
            weights = ((light + delta * (node in heavy)) * (node in members) for node in range(self.context.n))
            self.known[members] = Quorum(enough, gated=True, weights=tuple(weights))
        return self.known[members]

    def weights(self) -> tuple[int, ...]:
        """Of this group."""
        return self.quorum_among(self.members).weights

    def committed_quorum(self) -> int:
        """Qv times f, in this group."""
        return self.quorum_among(self.members).votes

    def quorums(self) -> dict[VoteType, Quorum]:
        quorum = self.quorum_among(self.members)
        return {PREPARE: quorum, COMMIT: quorum, CHECKPOINT: dataclasses.replace(quorum, gated=False)}

    def quorum_of(self, vote: VoteType, ballot: Ballot) -> Quorum:
        quorum = self.quorum_among(self.group_at(ballot.number).members)
        return dataclasses.replace(quorum, gated=False) if vote is CHECKPOINT else quorum

    def need_of(self, members: tuple[int, ...]) -> Quorum:
        return self.quorum_among(members)

    def enough(self, replicas: Collection[int]) -> bool:
        return self.quorum_among(self.members).met_by(replicas)

    def signers(self) -> int:
        return 2 * self.f + 1 if self.f else self.committed_quorum()

    # --- the leader writes, section IV -----------------------------------------------------------------

    def normal_cases(self) -> tuple[NormalCase, ...]:
        if self.context.membership.may_change:
            return ()  # the fast path knows one group
        return (NormalCase(upon=PrePrepare, votes=(Step(PREPARE), Step(COMMIT)), decide=True),)

    def said_again(self) -> tuple[VoteType, ...]:
        return PREPARE, COMMIT  # the leader's own write too

    def who_prepared(self, ballot: Ballot) -> set[int]:
        return {*self.context.votes.signers(PREPARE, ballot)} & {*self.members}

    def accept(self, ballot: Ballot, primary: int) -> None:
        """The proposal is here: write, the leader too, with its own weight."""
        self.context.vote(PREPARE, ballot, self.audience, gate=True)
