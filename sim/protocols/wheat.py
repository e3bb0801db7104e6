"""WHEAT: PBFT with weighted votes.

J. Sousa, A. Bessani, "Separating the WHEAT from the Chaff: An Empirical Design for Geo-Replicated State Machines",
SRDS 2015, sections IV and V (weights and quorums: V-A and V-B).

With more replicas than 3f + 1, n = 3f + 1 + delta, a quorum need not grow: give 2f replicas, those near to most, the
weight Vmax = 1 + delta / f and all others Vmin = 1, and let weight Qv = 2(f + delta) + 1 be a quorum. Any two quorums
share more weight than f replicas can have, so a correct replica; without any f replicas the rest still has Qv; and the
2f heavy ones with a single other are enough, 2f + 1 replicas whatever n is. Everything else is PBFT (pbft.py), with
the phases of BFT-SMaRt: a leader that proposes also writes.

paper                    here
-----                    ----
n, f, delta              context.n, f, delta
Vmax, Vmin               f + delta, f: integers, all weights times f
Qv                       f (2 (f + delta) + 1)
PROPOSE, WRITE, ACCEPT   PrePrepare, PREPARE (of the leader too), COMMIT
u: replica -> weight     weights; the heavy replicas are a parameter, or `fastest` chooses them
regency                  view

Deviations
* The normal case is PBFT's with views, checkpoints, view changes and state transfer as in pbft.py, and its deviations,
  in place of Mod-SMaRt's leader change; quorums of view changes and checkpoints are weighted as well.
* Certificates are counted with 2f + 1 signatures, the fewest that reach Qv.
* f = 0 has no heavy replica: all weights are 1, and a majority is a quorum.
* `fastest` goes by the latencies that the scenario declares, once, at the start; every replica knows them.

Not modelled: tentative execution, choosing the weights from measurements while running (AWARE), and whatever pbft.py
does not model.
"""

from __future__ import annotations

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

    group_changes = "never"  # weights are given once

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
        super().__init__(context)
        self.delta = context.n - 3 * self.f - 1
        chosen = self.parameters.heavy
        if chosen == "fastest":
            chosen = self.fastest()
        self.heavy = tuple(range(2 * self.f)) if chosen is None else tuple(chosen)
        self.quorum = Quorum(self.committed_quorum(), gated=True, weights=self.weights())

    # --- weights, section V ----------------------------------------------------------------------------

    def fastest(self) -> tuple[int, ...]:
        """The 2f replicas that get answers from 2f others soonest, then from all, then by number."""
        context, everyone = self.context, range(self.context.n)

        def answers_ns(node: int) -> tuple[int, int, int]:
            trips = sorted(
                context.latency_ns(node, other) + context.latency_ns(other, node) for other in everyone if other != node
            )
            return (trips[2 * self.f - 1], sum(trips), node) if self.f else (0, 0, node)

        return tuple(sorted(sorted(everyone, key=answers_ns)[: 2 * self.f]))

    def weights(self) -> tuple[int, ...]:
        """Vmax for the heavy, Vmin for the others, times f."""
        f = self.f
        if f == 0:
            return (1,) * self.context.n
        return tuple(f + self.delta if node in self.heavy else f for node in range(self.context.n))

    def committed_quorum(self) -> int:
        """Qv times f."""
        f = self.f
        return f * (2 * (f + self.delta) + 1) if f else self.context.n // 2 + 1

    def quorums(self) -> dict[VoteType, Quorum]:
        weights = self.weights()
        checkpoint = Quorum(self.committed_quorum(), weights=weights)
        return {PREPARE: self.quorum, COMMIT: self.quorum, CHECKPOINT: checkpoint}

    def enough(self, replicas: Collection[int]) -> bool:
        return self.quorum.met_by(replicas)

    def signers(self) -> int:
        return 2 * self.f + 1 if self.f else self.committed_quorum()

    # --- the leader writes, section IV -----------------------------------------------------------------

    def normal_cases(self) -> tuple[NormalCase, ...]:
        return (NormalCase(upon=PrePrepare, votes=(Step(PREPARE), Step(COMMIT)), decide=True),)

    def accept(self, ballot: Ballot, primary: int) -> None:
        """The proposal is here: write, the leader too, with its own weight."""
        self.context.vote(PREPARE, ballot, gate=True)
