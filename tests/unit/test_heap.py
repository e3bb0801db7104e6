"""The heap gives rows back in order of (time, sequence)."""

from __future__ import annotations

import heapq

from hypothesis import given, settings
from hypothesis import strategies as st

from sim.kernel.heap import WIDTH, heap_drop, heap_push
from sim.kernel.run_state import READY, READY_LEN, RunState, compiled, pointer

_OPERATIONS = st.lists(st.one_of(st.none(), st.integers(0, 20), st.integers(0, 1 << 60)), max_size=300)


@compiled
def _push(array, time, sequence, a, b):
    heap_push(pointer(array), READY, READY_LEN, time, sequence, a, b)


@compiled
def _drop(array):
    heap_drop(pointer(array), READY, READY_LEN)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(_OPERATIONS, st.booleans())
def test_rows_come_out_in_order_of_time_then_sequence(operations: list[int | None], rising: bool) -> None:
    run_state = RunState()
    rows = run_state.allocate(READY, WIDTH * 400)
    model: list[tuple[int, int, int, int]] = []
    for i, time in enumerate([*operations, *[None] * len(operations)]):
        if time is None:
            if model:
                assert tuple(rows[:WIDTH].tolist()) == heapq.heappop(model)
                _drop(run_state.array)
        else:
            sequence = i if rising else 1000 - i
            row = (time, sequence, 3 * i, -i)
            heapq.heappush(model, row)
            _push(run_state.array, *row)
        assert run_state.array[READY_LEN] == len(model)
