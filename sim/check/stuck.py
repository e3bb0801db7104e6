"""Why nothing is decided: the run stands still, goes in a circle, or is slow; and what every replica waits for.

A *halt*: nothing moves any more; no replica enters a view or proposes, nor has for much longer than that took before. A
*livelock*: views go by and come back to one state (`sim.check.lasso`). *Slow*: whatever else is later than the bound.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import Literal

import numpy as np

from sim.check.lasso import Loop
from sim.host import Run
from sim.ledger import rows as ledger
from sim.protocol import Ballot, Quorum, VoteType
from sim.trace.rows import Rows

Failure = Literal["halt", "livelock", "slow"]
_MOVES = np.isin(
    np.arange(ledger.EVENT_TOLD + 1), (ledger.EVENT_VIEW, ledger.EVENT_PROPOSED, ledger.EVENT_HEAD)
)  # by event
_KEPT = 1_000  # moves; of more voters than that fruitless views are not counted
_STILL = 4  # so many times the longest pause between moves before: timers double, they do not more
_VIEWS_MORE = 30  # than voters, before views are fruitless: timers that double have outgrown any delay by then
_VOTES_SHOWN = 2  # open tallies per replica


class Moves:
    """Fold over trace rows: when views were entered and blocks proposed. Rows of corrupted voters must be left out."""

    def __init__(self, voters: int) -> None:
        self.voters = voters
        self.times_ns: collections.deque[int] = collections.deque(maxlen=_KEPT)  # the latest, ascending
        self.views_ns: collections.deque[int] = collections.deque(maxlen=_KEPT)  # a view above all before was entered
        self._view = 0
        self.enough_views = voters + _VIEWS_MORE

    def __call__(self, chunk: np.ndarray) -> None:
        """Take in a chunk of trace rows."""
        rows = Rows(chunk)
        times = rows[_MOVES[rows.event] & (rows.node < self.voters)].time_ns[-_KEPT:]
        self.times_ns.extend(times[np.diff(times, prepend=-1) > 0].tolist())
        entered = rows[(rows.event == ledger.EVENT_VIEW) & (rows.node < self.voters)]
        if len(entered):
            views = entered.block
            highest = np.maximum.accumulate(np.concatenate(([self._view], views)))
            self.views_ns.extend(entered.time_ns[views > highest[:-1]].tolist())
            self._view = int(highest[-1])

    def fruitless_ns(self, since_ns: int) -> int | None:
        """When as many views as voters, and more, had gone by since a time; None: they have not.

        Where rounds restart at each height, views of an earlier one are not told from later ones: then it is later.
        """
        views_ns = [time_ns for time_ns in self.views_ns if time_ns > since_ns]
        return views_ns[self.enough_views - 1] if len(views_ns) >= self.enough_views else None

    def stand_still(self, since_ns: int, end_ns: int) -> bool:
        """Whether nothing has moved for much longer than between any two moves since a time."""
        moves = [since_ns, *(time for time in self.times_ns if time > since_ns)]
        if len(moves) == 1:
            return True
        return end_ns - moves[-1] > _STILL * max(b - a for a, b in itertools.pairwise(moves))


def failure(loop: Loop | None, moves: Moves, since_ns: int, end_ns: int, pauses_ns: Collection[int]) -> Failure:
    """Of which kind it is that nothing has been decided since a time, after such pauses between decisions."""
    if end_ns - since_ns <= _STILL * min(pauses_ns, default=0):
        return "slow"
    if moves.stand_still(since_ns, end_ns):
        return "halt"
    return "slow" if loop is None else "livelock"


_NOBODY: Mapping[int, str] = {}


def waits(run: Run, correct: Collection[int], owner: Mapping[int, str] = _NOBODY) -> tuple[str, ...]:
    """A line for each correct replica: where it is, whose votes it lacks, what it says itself, which timers run.

    `owner`: the organisation of each replica that has one.
    """
    return tuple(_line(run, node, correct, f"replica {node}{_of(owner, node)}") for node in correct)


def _of(owner: Mapping[int, str], node: int) -> str:
    return f" ({owner[node]})" if node in owner else ""


def _line(run: Run, node: int, correct: Collection[int], name: str) -> str:
    host = run.hosts[node]
    replica = host.replica
    if replica is None:
        return f"{name}: is down"
    parts = [f"{name}: height {host.height}, view {replica.view_number}"]
    said = replica.waits_for()
    if said:
        parts.append(said)
    parts += _votes(run, node, correct)
    names = collections.Counter(timer.name for timer, _, seat in run.timers.values() if seat == node)
    timers = [name if count == 1 else f"{count} x {name}" for name, count in sorted(names.items())]
    if host.clock.period_ns:
        timers.append(f"no progress in {host.clock.period_ns / 1e9:g} s")
    parts.append(f"timers: {', '.join(timers)}" if timers else "no timer runs")
    return "; ".join(parts)


def _votes(run: Run, node: int, correct: Collection[int]) -> Iterator[str]:
    """Tallies begun here, of the latest view and the next height first: those that lack votes, or else the first."""
    host = run.hosts[node]
    begun: list[tuple[int, int, int, VoteType, Ballot, list[int]]] = []
    for (view, number), ballots in run.block_store.ballots.items():
        for ballot in ballots if number > host.height else ():
            for vote in ballot.rows:
                have = [voter for voter in range(host.n) if host.votes.has_voted(vote, ballot, voter)]
                if vote in run.quorums and have:
                    begun.append((-view, number, len(begun), vote, ballot, have))
    begun.sort(key=lambda one: one[:3])
    lacking = [one for one in begun if not host.votes.is_complete(one[3], one[4])]
    for _, _, _, vote, ballot, have in lacking[:_VOTES_SHOWN]:
        yield _tally(run, vote, ballot, have, correct)
    if begun and not lacking:
        *_, vote, ballot, _ = begun[0]
        yield f"{vote.name} for {_about(ballot)} is complete"


def _about(ballot: Ballot) -> str:
    block = ballot.block
    what = f"height {ballot.number}" if block is None else f"block {block.number}, height {block.height}"
    return f"{what}, view {ballot.view}"


def _tally(run: Run, vote: VoteType, ballot: Ballot, have: list[int], correct: Collection[int]) -> str:
    quorum = _quorum(run, vote, ballot)
    unit = "weight" if quorum.weights else "votes"
    weight = sum(quorum.weights[voter] for voter in have) if quorum.weights else len(have)
    lacking = [voter for voter in range(run.engine.voters) if voter not in have and (
        not quorum.weights or quorum.weights[voter])]  # fmt: skip
    named = ", ".join(
        f"{voter}{'' if voter in correct and run.works(voter) else ' (down)' if voter in correct else ' (corrupted)'}"
        for voter in lacking[:8]
    )
    more = f" and {len(lacking) - 8} more" if len(lacking) > 8 else ""
    gate = ", and its condition" if quorum.gated and weight >= quorum.votes else ""
    return f"{vote.name} for {_about(ballot)}: {weight} of {quorum.votes} {unit}{gate}, none from {named}{more}"


def _quorum(run: Run, vote: VoteType, ballot: Ballot) -> Quorum:
    """What a tally asks for; where members change it is the group's of the ballot."""
    replica = next((host.replica for host in run.hosts if host.replica is not None), None)
    return run.quorums[vote] if replica is None or not run.members_change else replica.quorum_of(vote, ballot)
