"""D4: locks of Tendermint that nobody lets go of.

E. Buchman, "Tendermint: Byzantine Fault Tolerance in the Age of Blockchains", thesis, University of Guelph, 2016, which
tells the schedule; quoted and discussed in tendermint/tendermint issue 9251. That a lock must give way to a later one,
and that this needs the proof of it, is analysed in Y. Amoussou-Guenou et al., arXiv 1809.09858, 2018.

B is locked on one block, C and D on another one of a later round, and A, whose prevote made that lock, is silent for
good. The flawed variant votes for nothing but the block it is locked on. The control is the algorithm of arXiv
1807.04938: the valid value is proposed again with its round, and B votes for it, having heard by gossip of the prevotes
that made it valid.

That algorithm relies on gossip (what one correct process has received, all will): where votes go from each to all and
nobody passes them on, the Byzantine validator alone can bring about the same, in a perfect network. This is the second
pair; tendermint issue 1047 names gossip as what the thesis left out and the code had. What the simulator's Tendermint
does without gossip, a certificate of those prevotes in the proposal, mends it too: the third pair.
"""

from __future__ import annotations

from sim.plan.attacks import Attack, Pair, Play, goes_on, livelocks
from sim.protocol import Ballot
from sim.protocols.tendermint import Proposal, Tendermint

BYZANTINE = 0


class Faithless(Tendermint):
    """A prevotes against its lock."""

    def may_prevote(self, proposal: Proposal) -> bool:
        return self.context.me == BYZANTINE or super().may_prevote(proposal)


class NeverUnlocks(Faithless):
    """Flawed: no proof of a later lock opens a lock."""

    def may_prevote(self, proposal: Proposal) -> bool:
        free = self.locked_value is None or self.locked_value is proposal.block
        return self.context.me == BYZANTINE or free


class Unproven(Faithless):
    """Flawed without gossip: takes a process's own count of prevotes for the only proof that a value is valid."""

    def is_certified(self, ballot: Ballot) -> bool:
        return False


ATTACK = Attack(
    "D4",
    "Tendermint, locks that are not opened",
    "Buchman's thesis, 2016; tendermint issue 9251; arXiv 1809.09858",
    "a permanent halt with one fault, reported as livelock and not as slowness",
    "the algorithm of arXiv 1807.04938 decides within one turn of proposers",
    (
        Pair(
            "n = 4, two locks, the Byzantine validator silent",
            Play("d4-locks.yaml", livelocks, protocol=NeverUnlocks),
            Play("d4-locks.yaml", goes_on(within_s=4.0, after_s=2.0), protocol=Faithless),
        ),
        Pair(
            "n = 4, the same without gossip",
            Play("d4-gossip.yaml", livelocks, protocol=Unproven),
            Play("d4-gossip.yaml", goes_on(within_s=4.0), ("protocol.dissemination=gossip",), Unproven),
        ),
        Pair(
            "n = 4, without gossip, the proposal with its proof",
            Play("d4-gossip.yaml", livelocks, protocol=Unproven),
            Play("d4-gossip.yaml", goes_on(within_s=4.0), protocol=Faithless),
        ),
    ),
)
