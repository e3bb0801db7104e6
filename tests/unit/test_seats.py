"""Seats: twins sit on two of them with one identity, observers on one without a vote."""

from __future__ import annotations

from itertools import product
from typing import Any, ClassVar

import numpy as np
import pytest

from sim.engine import loop
from sim.engine.settings import Settings
from sim.host import Costs, ProtocolError, Run
from sim.ledger import rows as ledger
from sim.protocol import ALL, Message, Quorum, Replica, Signing, VoteType, upon
from sim.protocols.pbft import Pbft, PbftParameters

MS = 1_000_000


def _settings(voters: int, identity: tuple[int, ...], **changes: Any) -> Settings:
    ends = len(identity)
    zeros = np.zeros(ends, dtype=np.int64)
    return Settings(
        voters=voters, gateways=0, seed=1, site_of=zeros, latency_ns=np.full((1, 1), 10 * MS), tx_ps_per_byte=zeros,
        rx_ps_per_byte=zeros, backlog_bytes=512, links_change=True, identity=identity, **changes,
    )  # fmt: skip


def _decided(run: Run, until_ns: int) -> dict[int, dict[int, int]]:
    """Seat -> height -> block number."""
    rows: list[np.ndarray] = []
    run.trace_sinks.append(rows.append)
    run.start()
    assert run.advance(until_ns) == loop.UNTIL
    run.flush_trace()
    table = np.concatenate(rows)
    found: dict[int, dict[int, int]] = {}
    for row in table[table[:, 1] == ledger.EVENT_DECIDED].tolist():
        found.setdefault(row[2], {})[row[4]] = row[3]
    return found


def _pbft(voters: int, identity: tuple[int, ...]) -> Run:
    return Run(Pbft, PbftParameters(), _settings(voters, identity), Costs())


def test_a_backups_twin_works_and_decides_with_the_others() -> None:
    run = _pbft(4, (0, 1, 2, 3, 2))
    decided = _decided(run, 300 * MS)
    assert set(decided) == {0, 1, 2, 3, 4}
    assert all(decided[seat] == decided[0] for seat in decided)
    assert [host.me for host in run.hosts] == [0, 1, 2, 3, 2]
    assert {host.n for host in run.hosts} == {4}


def test_one_corrupted_voter_of_four_splits_nothing_even_as_twins() -> None:
    """Both copies of the primary propose; no two correct replicas decide different blocks."""
    decided = _decided(_pbft(4, (0, 1, 2, 3, 0)), 4_000 * MS)
    for a, b in product((1, 2, 3), repeat=2):
        assert all(decided[a][h] == decided[b][h] for h in decided[a].keys() & decided[b].keys())
    assert len(decided[1]) > 10


def test_two_pairs_of_twins_among_four_voters_make_correct_replicas_disagree() -> None:
    """Above the bound: each partition holds one copy of voters 0 and 1, and one correct replica."""
    run = _pbft(4, (0, 1, 2, 3, 0, 1))
    for a, b in product((0, 1, 2), (3, 4, 5)):
        run.cut(a, b)
    decided = _decided(run, 300 * MS)
    assert decided[2].keys() == decided[3].keys()
    assert all(decided[2][height] != decided[3][height] for height in decided[2])


def test_an_observer_beside_the_voters_leaves_the_run_as_it_is() -> None:
    """An observer that hears nothing changes nothing about the voters."""
    assert _decided(_pbft(4, (0, 1, 2, 3)), 200 * MS) == _decided(_pbft(4, (0, 1, 2, 3, -1)), 200 * MS)


class Word(Message):
    """A message that says who was told what."""

    __slots__ = ()

    def size_bytes(self, signing: Signing) -> int:
        return 10


YES = VoteType("YES", 10)


class Talk(Replica):
    """Voter 0 broadcasts; whoever hears it says YES to voter 1."""

    messages: ClassVar[tuple[type[Message], ...]] = (Word,)
    votes: ClassVar[tuple[VoteType, ...]] = (YES,)
    heard: ClassVar[list[tuple[int, int]]] = []
    told: ClassVar[list[int]] = []
    heavy: ClassVar[tuple[int, ...]] = ()

    def quorums(self) -> dict[VoteType, Quorum]:
        return {YES: Quorum(3, weights=self.heavy)}

    def start(self) -> None:
        if self.context.me == 0:
            self.context.broadcast(Word())

    @property
    def view_number(self) -> int:
        return 0

    @upon(Word)
    def on_word(self, src: int, word: Word) -> None:
        self.heard.append((self.context.seat, src))  # type: ignore[attr-defined]
        if self.context.me < self.context.n:
            self.context.vote(YES, self.context.votes.ballot(0, 1), to=1)

    @upon(YES)
    def on_yes(self, ballot: Any) -> None:
        self.told.append(self.context.seat)  # type: ignore[attr-defined]


def _talk(identity: tuple[int, ...], weights: tuple[int, ...] = (), **changes: Any) -> tuple[Run, type[Talk]]:
    class Fresh(Talk):
        heard: ClassVar[list[tuple[int, int]]] = []
        told: ClassVar[list[int]] = []
        heavy: ClassVar[tuple[int, ...]] = weights

    run = Run(Fresh, None, _settings(4, identity, **changes), Costs())
    run.start()
    run.advance(100 * MS)
    return run, Fresh


def test_observers_hear_broadcasts_only_if_they_ask() -> None:
    _, deaf = _talk((0, 1, 2, 3, -1))
    _, listening = _talk((0, 1, 2, 3, -1), listeners=(4,))
    assert deaf.heard == [(1, 0), (2, 0), (3, 0)]
    assert listening.heard == [(1, 0), (2, 0), (3, 0), (4, 0)]


def test_an_observer_has_no_vote() -> None:
    run, _ = _talk((0, 1, 2, 3, -1))
    observer = run.hosts[4]
    assert observer.me == 4
    with pytest.raises(ProtocolError, match="observers have no vote"):
        observer.vote(YES, observer.votes.ballot(0, 1), ALL)


def test_a_vote_for_a_twin_reaches_both_of_its_seats() -> None:
    """Voters 1, 2 and 3 say YES to voter 1, who sits on seats 1 and 4: three distinct votes at each."""
    _, talk = _talk((0, 1, 2, 3, 1))
    assert sorted(talk.told) == [1, 4]


def test_a_quorum_by_weight() -> None:
    _, light = _talk((0, 1, 2, 3), weights=(5, 1, 1, 0))
    _, heavy = _talk((0, 1, 2, 3), weights=(0, 1, 1, 1))
    assert light.told == []
    assert heavy.told == [1]
    assert Quorum(3, weights=(2, 1, 1, 0)).voters_needed() == 4
    assert Quorum(3, weights=(5, 1, 1, 0)).met_by([0]) and not Quorum(3, weights=(5, 1, 1, 0)).met_by([1, 2, 3])
