"""Seeded bugs: protocols with one rule broken each. What catches them is worth its name.

Each is a subclass that overrides as little as it can. `MUTANTS` lists them; nothing but `pilotzone mutants` and the
tests runs them.
"""

from __future__ import annotations

import dataclasses

from sim.adversary.mutants import clique, hotstuff, pbft, raft
from sim.protocol import Replica


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A seeded bug: its name, what is wrong, the class, and numbers of voters at which it can show."""

    name: str
    bug: str
    protocol: type[Replica]
    voters: tuple[int, ...] = (4, 5, 6, 7)


_NOT_3F_1 = (5, 6)

MUTANTS: tuple[Mutant, ...] = (
    Mutant("pbft-quorum-2f", "quorum 2f", pbft.Quorum2F),
    Mutant("hotstuff-quorum-2f", "quorum 2f", hotstuff.Quorum2F),
    Mutant("pbft-quorum-2f+1", "quorum 2f + 1 where n is not 3f + 1", pbft.Quorum2FPlus1, _NOT_3F_1),
    Mutant("pbft-voter-twice", "a duplicate voter counted twice", pbft.VoterCountedTwice),
    Mutant("raft-other-term", "votes of another term accepted", raft.VotesOfAnotherTerm),
    Mutant("hotstuff-vote-lost", "double vote after restart", hotstuff.VotesForgotten),
    Mutant("raft-vote-lost", "double vote after restart", raft.VoteForgotten),
    Mutant("hotstuff-lock-forgotten", "lock forgotten on view change", hotstuff.LockForgotten),
    Mutant("pbft-prepared-forgotten", "lock forgotten on view change", pbft.PreparedForgotten),
    Mutant("hotstuff-lock-not-raised", "lock not raised", hotstuff.LockNotRaised),
    Mutant("hotstuff-commit-gap", "commit on a non-consecutive chain", hotstuff.CommitsAcrossGaps),
    Mutant("pbft-lowest-prepared", "view change picks the lowest prepared", pbft.LowestPrepared),
    Mutant("pbft-timer-not-reset", "timer never reset", pbft.TimerNeverReset),
    Mutant("pbft-timeout-not-doubled", "timeout not doubled", pbft.TimeoutNotDoubled),
    Mutant("raft-stale-leader", "stale leader commits", raft.StaleLeaderCommits),
    Mutant("raft-old-term-commit", "Raft commit of an old-term entry by counting", raft.CommitsOldTerms),
    Mutant("raft-not-up-to-date", "Raft without the up-to-date check", raft.AnyLogWillDo),
    Mutant("raft-votes-twice", "Raft voting twice in a term", raft.VotesTwice),
    Mutant("raft-half", "Raft commit on n/2", raft.CommitsOnHalf),
    Mutant("clique-recency", "Clique recency limit off by one", clique.RecencyOffByOne),
    Mutant("hotstuff-own-vote-dropped", "self-message dropped", hotstuff.OwnVoteDropped),
    Mutant("pbft-doubled", "message duplicated", pbft.EverythingTwice),
)

# Of the list of bugs, what no rule override can inject.
NOT_INJECTED = {
    "no transaction deduplication": "the ledger settles a transaction once, whatever protocols do; "
    "tests/unit/test_conservation.py and the oracle stand for it",
}
