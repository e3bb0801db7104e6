"""Compiled code stays inside its columns: guard words, the checked build, and events that fill every list."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from numba import njit, types

from sim.engine import growth
from sim.kernel import CHECKED
from sim.kernel import run_state as kernel
from sim.ledger import rows as ledger
from sim.protocol import Timer, upon
from sim.protocols.pbft import Pbft, PbftParameters, PrePrepare
from sim.scenario.errors import DamagedRunError
from sim.scenario.run import run
from tests.runs import begin, play, scenario, unsafe

_DESK = types.Array(types.int64, 1, "C")


@njit(types.int64(_DESK, types.int64, types.int64))
def scribble(array, number, at):  # type: ignore[no-untyped-def]
    """Write where the caller says, as compiled code can."""
    run_state = kernel.pointer(array)
    kernel.column(run_state, number)[at] = 7
    return 0


unchecked = pytest.mark.skipif(CHECKED, reason="the checked build refuses the write itself")


@unchecked
@pytest.mark.parametrize("at", [-1, -8, 64, 71])
def test_a_write_beside_a_column_is_found(at: int) -> None:
    run_state = kernel.RunState()
    run_state.allocate(kernel.READY, 64)
    scribble(run_state.array, kernel.READY, 0)
    assert run_state.damage() == []
    scribble(run_state.array, kernel.READY, at)
    assert run_state.damage() == [kernel.READY]
    run_state.grow(kernel.READY)  # what was found broken stays so
    with pytest.raises(kernel.DamagedError):
        run_state.verify()


@unchecked
def test_a_run_that_wrote_beside_a_column_is_no_result(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    class Scribbling(Pbft):
        def start(self) -> None:
            super().start()
            run_state = self.context.run.engine.run_state  # type: ignore[attr-defined]
            scribble(run_state.array, ledger.PEER, len(run_state[ledger.PEER]))

    with pytest.raises(DamagedRunError, match="written to outside"):
        run(scenario(), protocol=Scribbling, out=tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_checked_build_refuses_the_write_itself() -> None:
    """In a process of its own, for the switch is thrown when the kernel is imported."""
    program = textwrap.dedent(
        """
        from numba import njit, types
        from sim.kernel import run_state as kernel

        @njit(types.int64(types.Array(types.int64, 1, "C"), types.int64))
        def scribble(array, at):
            run_state = kernel.pointer(array)
            kernel.column(run_state, kernel.READY)[at] = 7
            return 0

        @njit(types.int64(types.Array(types.int64, 1, "C")))
        def stale(array):
            run_state = kernel.pointer(array)
            rows = kernel.column(run_state, kernel.READY)
            kernel.make_capacity(run_state, kernel.READY)
            rows[0] = 7
            return 0

        run_state = kernel.RunState()
        run_state.allocate(kernel.READY, 64)
        run_state.on_full(run_state.grow)
        scribble(run_state.array, 63)
        array = run_state.array
        for call in (lambda: scribble(array, 64), lambda: scribble(array, -1), lambda: stale(array)):
            try:
                call()
            except IndexError:
                print("refused", int(run_state.array[kernel.WRONG_COLUMN]), int(run_state.array[kernel.WRONG_INDEX]))
        print(run_state.damage())
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PILOTZONE_CHECKED": "1"}, capture_output=True, text=True
    )
    refused = [f"refused {kernel.READY} {index}" for index in (64, -1, -1)]
    assert done.stdout.splitlines() == [*refused, "[]"]


class ManyTimersParameters(PbftParameters):
    """Of `ManyTimers`."""


class ManyTimers(Pbft):
    """Replica 0 sets more timers in one handler than the list of due events holds, and sends as many messages."""

    AGAIN = Timer("again")
    heard: list[int]

    def start(self) -> None:
        super().start()
        self.heard = []
        if self.context.me == 0:
            for i in range(20_000):
                self.context.set_timer(self.AGAIN, 1_000 + 7919 * i % 20_000, i)

    @upon(AGAIN)
    def on_again(self, number: int) -> None:
        self.heard.append(number)


def test_many_timers_in_one_handler_all_fire_in_order() -> None:
    played = play(scenario(duration="100 ms"), protocol=ManyTimers)
    heard = played.replica(0).heard
    assert heard == sorted(range(20_000), key=lambda i: (7919 * i % 20_000, i))
    played.world.run.engine.run_state.verify()


class ManyMessages(Pbft):
    """Replica 0 sends more messages in one handler than there are envelopes, buckets or rows of the message log."""

    def start(self) -> None:
        super().start()
        if self.context.me == 0:
            block = self.context.new_block(None, 0, empty=True)
            assert block is not None
            for _ in range(5_000):
                self.context.broadcast(PrePrepare(0, 1, block))


def test_many_messages_in_one_handler_all_arrive() -> None:
    played = play(scenario(duration="100 ms", trace="messages"), protocol=ManyMessages)
    assert played.sent("PrePrepare") >= 15_000
    played.world.run.engine.run_state.verify()
    assert len(played.log[played.log[:, 3] == played.world.run.kinds[PrePrepare]]) >= 15_000


@pytest.mark.parametrize(
    "number",
    [
        kernel.READY,
        kernel.NEAR,
        kernel.FAR,
        kernel.LOG,
        ledger.TRACE,
        ledger.CLOSED,
        kernel.CHUNK_FREE,
        kernel.ENVELOPE_FREE,
    ],
)
def test_a_list_can_be_lengthened_in_the_middle_of_a_run(number: int) -> None:
    chosen = scenario(5, duration="300 ms", trace="messages", faults=[{"at": "100 ms", "crash": {"nodes": [4]}}])
    played = begin(chosen).until(150_000_000)
    growth.lengthen(played.world.run.engine.run_state, number)
    played.world.run.make_capacity()
    played.until(chosen.duration_ns)
    assert played.digest == play(chosen).digest
    assert unsafe(played) == []


def test_a_table_that_is_full_within_an_event_grows_before_anything_is_written() -> None:
    """Columns cut to what they hold: each next entry has to ask, and the run is the same."""
    chosen = scenario(4, duration="300 ms", workload=[{"kind": "open", "rate": "2000 tx/s"}])
    played = begin(chosen)
    run_state = played.world.run.engine.run_state
    for number, used, width in (
        (kernel.READY, kernel.READY_LEN, 4),
        (kernel.NEAR, kernel.NEAR_LEN, 4),
        (kernel.FAR, kernel.FAR_LEN, 4),
    ):
        rows = max(int(run_state.array[used]), 1)
        short = kernel.zeros(rows * width)
        short[:] = run_state[number][: rows * width]
        run_state.replace(number, short)
    grown: list[int] = []
    run_state.on_full(lambda number: (grown.append(number), growth.lengthen(run_state, number))[1])
    for i in range(100):  # set by Python, between events: nothing looks at the margins before
        played.world.run.call_at(1_000_000 + i, lambda: None)
    assert kernel.READY in grown
    played.until(chosen.duration_ns)
    assert np.all(run_state[kernel.READY][: 4 * int(run_state.array[kernel.READY_LEN])] >= -1)
    run_state.verify()
    assert unsafe(played) == []


def test_room_that_cannot_be_had_ends_the_run_as_a_limit() -> None:
    result = run(
        scenario(4, duration="1 h", workload=[{"kind": "open", "rate": "200000 tx/s"}], limits={"memory": "700 MB"})
    )
    assert result.status == "truncated"
    assert any(warning.startswith("truncated: memory") for warning in result.warnings)
