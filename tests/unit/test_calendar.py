"""The calendar gives messages back in order of (time, entry), whatever its width and their pattern."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.kernel import run_state as kernel
from sim.kernel.calendar import (
    BUCKET_MAX,
    BUCKETS,
    calendar_has_room,
    calendar_open,
    calendar_push,
    grow_calendar,
    lay_calendar,
)
from sim.kernel.heap import heap_drop
from sim.kernel.run_state import (
    IN_FLIGHT,
    NEAR,
    NEAR_LEN,
    NEVER,
    NOW,
    RUN,
    RUN_LEN,
    RUN_POS,
    RunState,
    column,
    compiled,
    pointer,
)

POP = -1
DONE, NO_ROOM = 0, 1


@compiled
def _play(array, delays, begin, out, until, state):
    """Perform delays[begin:]: enter a message that long from now, or POP. Fills `out` with (time, number) rows.

    state: numbers entered, numbers taken out. Returns where it stopped for want of room, or the end.
    """
    run_state = pointer(array)
    for i in range(begin, len(delays)):
        if not calendar_has_room(run_state, 1):
            return i
        if delays[i] != POP:
            calendar_push(run_state, run_state[NOW] + delays[i], state[0])
            state[0] += 1
            continue
        near = column(run_state, NEAR)
        if run_state[RUN_POS] < run_state[RUN_LEN]:
            arrives = column(run_state, RUN)[2 * run_state[RUN_POS]]
        elif run_state[NEAR_LEN] > 0:
            arrives = NEVER
        else:
            arrives = calendar_open(run_state, until)
            if arrives == -1:
                return i
        if run_state[NEAR_LEN] > 0 and near[0] < arrives:
            arrives, ref = near[0], near[2]
            heap_drop(run_state, NEAR, NEAR_LEN)
        elif arrives == NEVER:
            continue
        else:
            ref = column(run_state, RUN)[2 * run_state[RUN_POS] + 1]
            run_state[RUN_POS] += 1
        run_state[IN_FLIGHT] -= 1
        run_state[NOW] = arrives
        out[2 * state[1]] = arrives
        out[2 * state[1] + 1] = ref
        state[1] += 1
    return len(delays)


@pytest.fixture(scope="module", autouse=True)
def _compile() -> None:
    _in_order(np.array([5, POP]), 8)


def _in_order(delays: np.ndarray, shift: int, messages: int = 64) -> RunState:
    """Play and compare each pop with a sorted list (a heap of the model); returns the run state."""
    run_state = RunState()
    lay_calendar(run_state, shift, messages)
    delays = np.ascontiguousarray(delays, dtype=np.int64)
    out = np.zeros(2 * len(delays), dtype=np.int64)
    state = np.zeros(2, dtype=np.int64)
    at = 0
    while (at := int(_play(run_state.array, delays, at, out, 1 << 62, state))) < len(delays):
        grow_calendar(run_state, 64)
    model: list[tuple[int, int]] = []
    expected = []
    now = number = 0
    for delay in delays.tolist():
        if delay != POP:
            heapq.heappush(model, (now + delay, number))
            number += 1
        elif model:
            expected.append(heapq.heappop(model))
            now = expected[-1][0]
    assert [tuple(row) for row in out[: 2 * int(state[1])].reshape(-1, 2).tolist()] == expected
    assert run_state.array[kernel.IN_FLIGHT] == len(model)
    return run_state


delays_ns = st.one_of(
    st.just(POP),
    st.just(POP),
    st.sampled_from([0, 0, 1, 1000, 1000]),
    st.integers(0, 100),
    st.integers(0, 10**7),
    st.integers(0, 1 << 50),
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.lists(delays_ns, max_size=200), st.integers(4, 40))
def test_order_is_exact_for_any_pushes_and_pops_at_any_width(delays: list[int], shift: int) -> None:
    _in_order(np.array([*delays, *[POP] * len(delays)]), shift)


@pytest.mark.parametrize("in_flight", [20, 400, 5000])
@pytest.mark.parametrize("shift", [4, 8, 12, 16, 20, 30, 40])
def test_a_steady_load_keeps_its_order_while_the_width_adapts(shift: int, in_flight: int) -> None:
    rng = np.random.default_rng(1)
    hold = rng.integers(0, 100_000, 40_000)
    hold[::3] = 50_000  # many equal times
    delays = np.empty(2 * len(hold), dtype=np.int64)
    delays[:in_flight] = hold[:in_flight]  # then one out, one in
    rest = hold[: len(hold) - in_flight // 2]
    delays[in_flight:] = np.column_stack([np.full(len(rest), POP), rest]).reshape(-1)
    run_state = _in_order(delays, shift)
    if in_flight == 400:  # the ring is rebuilt only while all that is in it fits the far heap
        assert shift != 4 or run_state.array[kernel.CAL_SHIFT] > 4
        assert shift != 16 or run_state.array[kernel.CAL_SHIFT] < 16


def test_near_messages_come_after_those_of_the_open_bucket_at_equal_times() -> None:
    _in_order(np.array([100, 100, POP, 0, 0, POP, POP, POP]), 20)


def test_far_messages_come_before_later_entries_at_equal_times() -> None:
    shift = 4
    beyond = BUCKETS << shift
    _in_order(np.array([beyond + 5, 10, 20, POP, beyond - 5, beyond - 5, POP, POP, POP, POP]), shift)
    _in_order(np.array([beyond * 3, beyond * 3, 1, POP, beyond * 3 - 1, POP, POP, POP, POP]), shift)


@pytest.mark.parametrize("spread", [1, 3, 4000])
@pytest.mark.parametrize("count", [64, 65, 500, 3 * BUCKET_MAX])
def test_a_full_bucket_is_sorted_stably_whether_its_times_are_bunched_or_not(count: int, spread: int) -> None:
    """Bunched times defeat the bins and take the merge sort."""
    rng = np.random.default_rng(count)
    bunched = (1 << 20) + rng.integers(0, spread, count)
    alone = np.array([(1 << 20) + 900_000])  # the rest of the bucket is empty
    _in_order(np.concatenate([bunched, alone, np.full(count + 1, POP)]), 20)


def test_nothing_is_taken_beyond_the_limit() -> None:
    run_state = RunState()
    lay_calendar(run_state, 10, 64)
    out, state = np.zeros(8, dtype=np.int64), np.zeros(2, dtype=np.int64)
    assert _play(run_state.array, np.array([5000, POP, 100_000_000, POP]), 0, out, 3000, state) == 4
    assert state.tolist() == [2, 0]
    assert _play(run_state.array, np.array([POP, POP]), 0, out, 6000, state) == 2
    assert state.tolist() == [2, 1] and out[0] == 5000
