"""Votes: distinct voters, thresholds, gates, and what a crash and a new statement leave."""

from __future__ import annotations

import numpy as np
import pytest

from sim.engine import entry, votes
from sim.engine.engine import Engine
from sim.engine.settings import Settings
from sim.kernel import run_state as kernel
from sim.kernel import tally as t
from sim.kernel.run_state import compiled, pointer
from sim.kernel.tally import GATE


@compiled
def _arrive(array, row, node, voter):
    """A vote from the network that is processed at once; returns the thresholds reached."""
    number = t.count_arrival(pointer(array), row, node, voter)
    return t.settle_vote(pointer(array), row, node, number) if number else np.int64(0)


@compiled
def _arrive_only(array, row, node, voter):
    return t.count_arrival(pointer(array), row, node, voter)


@compiled
def _settle(array, row, node, number):
    return t.settle_vote(pointer(array), row, node, number)


@compiled
def _here(array, row, node, voter, weight):
    return t.count_here(pointer(array), row, node, voter, weight)


@compiled
def _forget(array, row, node):
    t.forget_node(pointer(array), row, node)


def _engine(voters: int) -> Engine:
    zeros = np.zeros(voters, dtype=np.int64)
    return Engine(Settings(voters, 0, 1, zeros, np.zeros((1, 1)), zeros, zeros))


def _open(engine: Engine, *thresholds: int, owner: int = -1) -> int:
    return int(entry.tally_row(engine.state, 5, 99, int(owner < 0), owner, *(*thresholds, 0, 0)[:3]))


@pytest.fixture
def engine() -> Engine:
    return _engine(7)


def test_a_voter_counts_once(engine: Engine) -> None:
    row = _open(engine, 3)
    assert [_arrive(engine.state, row, 0, v) for v in (1, 1, 2, 2, 1, 3, 3, 4)] == [0, 0, 0, 0, 0, 1, 0, 0]
    assert [entry.voted(engine.state, row, 0, v) for v in range(7)] == [0, 1, 1, 1, 1, 0, 0]


def test_receivers_count_apart(engine: Engine) -> None:
    row = _open(engine, 2)
    assert _arrive(engine.state, row, 0, 1) == 0
    assert _arrive(engine.state, row, 6, 2) == 0
    assert _arrive(engine.state, row, 6, 3) == 1
    assert entry.voted(engine.state, row, 0, 2) == 0


def test_more_than_64_voters_use_more_words() -> None:
    engine = _engine(200)
    row = _open(engine, 200)
    reached = [int(_arrive(engine.state, row, 199, v)) for v in range(199)]
    assert sum(reached) == 0
    assert _here(engine.state, row, 199, 199, 1) == 1
    assert all(entry.voted(engine.state, row, 199, v) for v in range(200))
    assert not any(entry.voted(engine.state, row, 198, v) for v in range(200))


def test_each_of_three_thresholds_is_reached_once(engine: Engine) -> None:
    row = _open(engine, 1, 2, 4)
    assert [_arrive(engine.state, row, 0, v) for v in range(1, 7)] == [1, 2, 0, 4, 0, 0]


def test_one_vote_may_reach_two_thresholds(engine: Engine) -> None:
    row = _open(engine, 2, GATE + 2)
    assert _here(engine.state, row, 0, 3, GATE) == 0
    assert [_arrive(engine.state, row, 0, v) for v in (1, 2)] == [0, 3]


def test_a_gate_and_votes_meet_a_gated_threshold_in_any_order(engine: Engine) -> None:
    for when in range(4):
        row = _open(engine, GATE + 2)
        reached = []
        for i, voter in enumerate((1, 2, 4)):
            if i == when:
                reached.append(int(_here(engine.state, row, 0, 3, GATE)))
            reached.append(int(_arrive(engine.state, row, 0, voter)))
        if when == 3:
            reached.append(int(_here(engine.state, row, 0, 3, GATE)))
        assert reached == {0: [0, 0, 1, 0], 1: [0, 0, 1, 0], 2: [0, 0, 1, 0], 3: [0, 0, 0, 1]}[when]


def test_a_gate_is_no_vote(engine: Engine) -> None:
    row = _open(engine, 1, GATE + 1)
    assert _here(engine.state, row, 0, 3, GATE) == 0
    assert _arrive(engine.state, row, 0, 3) == 0  # the one on whose word it opened does not count besides
    assert _arrive(engine.state, row, 0, 4) == 3


def test_a_gate_alone_meets_a_threshold_without_votes(engine: Engine) -> None:
    assert _here(engine.state, _open(engine, GATE), 0, 3, GATE) == 1


def test_an_own_vote_with_its_condition_counts_as_both(engine: Engine) -> None:
    row = _open(engine, GATE + 2)
    assert _arrive(engine.state, row, 0, 1) == 0
    assert _here(engine.state, row, 0, 0, GATE + 1) == 1


def test_the_own_vote_decides_with_processed_votes_only(engine: Engine) -> None:
    row = _open(engine, 3)
    assert [_arrive_only(engine.state, row, 0, v) for v in (1, 2, 3)] == [0, 2, 3]  # a threshold hangs on two of them
    assert _here(engine.state, row, 0, 0, 1) == 0  # none has been processed
    assert _settle(engine.state, row, 0, 2) == 1
    assert _settle(engine.state, row, 0, 3) == 0
    row = _open(engine, 3)
    assert _here(engine.state, row, 0, 0, 1) == 0
    assert [_arrive_only(engine.state, row, 0, v) for v in (1, 2, 3)] == [0, 2, 0]  # the own vote is in


def test_a_crash_leaves_the_own_vote(engine: Engine) -> None:
    row = _open(engine, 2)
    _here(engine.state, row, 0, 0, GATE + 1)
    assert _arrive(engine.state, row, 0, 1) == 1
    _arrive(engine.state, row, 3, 1)
    _forget(engine.state, row, 0)
    assert [entry.voted(engine.state, row, 0, v) for v in range(3)] == [1, 0, 0]
    assert entry.fired(engine.state, row, 0) == 0
    assert _arrive(engine.state, row, 0, 2) == 1
    assert _arrive(engine.state, row, 3, 2) == 1  # others are not touched


def test_a_condition_on_the_own_word_is_no_vote_and_does_not_outlive_a_crash(engine: Engine) -> None:
    row = _open(engine, GATE + 1)
    _here(engine.state, row, 0, 0, GATE)
    _forget(engine.state, row, 0)
    assert entry.voted(engine.state, row, 0, 0) == 0
    assert _arrive(engine.state, row, 0, 1) == 0
    assert _here(engine.state, row, 0, 0, GATE) == 1


@pytest.mark.parametrize("owner", [-1, 2])
def test_a_row_starts_empty_for_its_next_statement(engine: Engine, owner: int) -> None:
    row = _open(engine, 1, 2, owner=owner)
    node = max(owner, 0)
    for voter in range(7):
        _arrive(engine.state, row, node, voter)
    entry.drop_tally(engine.state, row)
    assert _open(engine, 2, owner=owner) == row
    assert not any(entry.voted(engine.state, row, node, v) for v in range(7))
    assert [_arrive(engine.state, row, node, v) for v in (4, 5)] == [0, 1]


def test_a_row_with_votes_on_their_way_is_not_used_again(engine: Engine) -> None:
    row = _open(engine, 3)
    entry.vote(engine.state, 1, row, -1, 1)
    entry.drop_tally(engine.state, row)
    assert _open(engine, 3) != row
    assert engine.run_state[kernel.TALLY][row * t.ROW + t.RELEASED] == 1


def test_rows_run_out_and_more_are_made(engine: Engine) -> None:
    rows: set[int] = set()
    while len(rows) < 100:
        row = _open(engine, 2)
        if row < 0:
            assert engine.state[votes.WIDE_FREE_LEN] == 0
            engine.make_capacity()
        else:
            assert row not in rows
            rows.add(row)
    assert all(_arrive(engine.state, row, 6, 5) == 0 for row in rows)


def test_votes_count_by_weight_and_a_threshold_hangs_on_the_vote_that_crosses_it(engine: Engine) -> None:
    engine.lay_weights(5, (5, 1, 1, 2, 3, 0, 4))
    row = _open(engine, 6)
    assert [_arrive_only(engine.state, row, 1, v) for v in (2, 3, 5, 4)] == [0, 0, 0, 6]  # 1, 3, 3, 6: past 6 - 1 and 6
    assert _settle(engine.state, row, 1, 6) == 1
    row = _open(engine, 6)
    assert [_arrive_only(engine.state, row, 0, v) for v in (2, 3)] == [1, 0]  # 6 less its own 5 is reached by the first
    assert _settle(engine.state, row, 0, 1) == 0
    assert _here(engine.state, row, 0, 0, 1) == 1
    row = _open(engine, 5)
    assert _here(engine.state, row, 0, 0, 1) == 1  # its own weight alone


def test_weights_that_do_not_fit_are_refused(engine: Engine) -> None:
    for weights in ((1, 2), (1, 1, 1, 1, 1, 1, -1), (1 << 21, 0, 0, 0, 0, 0, 0)):
        with pytest.raises(ValueError, match="weights"):
            engine.lay_weights(5, weights)


def _with_twin() -> Engine:
    """Voters 0..3; seat 4 is a second seat of voter 1, seat 5 an observer."""
    zeros = np.zeros(6, dtype=np.int64)
    return Engine(Settings(4, 0, 1, zeros, np.zeros((1, 1)), zeros, zeros, identity=(0, 1, 2, 3, 1, -1)))


def test_votes_of_twins_count_once_as_their_voters() -> None:
    engine = _with_twin()
    row = _open(engine, 2)
    entry.vote(engine.state, 4, row, -1, 1)  # the twin, at its own seat
    assert entry.voted(engine.state, row, 4, 1) == 1
    assert _arrive(engine.state, row, 4, 1) == 0  # the other's vote changes nothing
    assert _arrive(engine.state, row, 4, 2) == 1
    _forget(engine.state, row, 4)
    assert entry.voted(engine.state, row, 4, 1) == 1  # it was its own, on disk


def test_a_twins_own_vote_that_came_after_the_others_survives_a_crash() -> None:
    engine = _with_twin()
    row = _open(engine, 3)
    _arrive(engine.state, row, 4, 1)
    entry.vote(engine.state, 4, row, -1, 1)
    _forget(engine.state, row, 4)
    assert entry.voted(engine.state, row, 4, 1) == 1
    assert _arrive(engine.state, row, 4, 2) == 0
    assert _arrive(engine.state, row, 4, 3) == 1


def test_an_observer_counts_the_votes_of_others_only() -> None:
    engine = _with_twin()
    row = _open(engine, 2)
    assert _arrive(engine.state, row, 5, 0) == 0
    assert _arrive(engine.state, row, 5, 1) == 1


def test_seats_begin_with_the_voters() -> None:
    zeros = np.zeros(3, dtype=np.int64)
    for identity in ((1, 0, 0), (0, 1, 3), (0, -1, 1)):
        with pytest.raises(ValueError, match="seats"):
            Engine(Settings(2, 0, 1, zeros, np.zeros((1, 1)), zeros, zeros, identity=identity))
