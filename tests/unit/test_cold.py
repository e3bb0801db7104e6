"""Columns in files: the same integers, guarded alike, out of memory until somebody looks."""

from __future__ import annotations

import os

import numpy as np
import pytest

from sim.kernel import cold
from sim.kernel.cold import ColdColumn
from sim.kernel.run_state import COLD_BYTES, RunState
from sim.past import Past
from tests.runs import S, play, scenario

LONG = COLD_BYTES // 8


def desk_with(column: int, length: int) -> RunState:
    run_state = RunState()
    run_state.allocate(column, length)
    run_state.seldom(column)
    run_state[column][:] = np.arange(length)
    return run_state


def test_a_long_column_moves_to_a_file_and_grows_there() -> None:
    run_state = desk_with(40, LONG)
    for length in (LONG + 10, LONG + 5000, 3 * LONG):
        run_state.grow_to(40, length, fill=-1)
        assert len(run_state[40]) == length
        run_state.rest()
        assert run_state[40][:LONG].tolist() == list(range(LONG))
        assert set(run_state[40][LONG:].tolist()) == {-1}
    assert run_state.damage() == []


def test_what_is_short_stays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.kernel.run_state.ColdColumn", None)  # it would fail
    run_state = desk_with(40, 100)
    run_state.grow_to(40, 200)
    assert run_state[40][:100].tolist() == list(range(100))


@pytest.mark.parametrize("place", [-1, -8, "end"])
def test_guard_words_tell_of_a_write_outside(place: int | str) -> None:
    run_state = desk_with(40, LONG)
    run_state.grow_to(40, LONG + 100)
    run_state.grow_to(40, LONG + 200)
    whole = run_state[40].base
    first = (run_state[40].ctypes.data - whole.ctypes.data) // 8
    whole[first + (len(run_state[40]) if place == "end" else int(place))] = 7
    assert run_state.damage() == [40]
    run_state.grow_to(40, LONG + 300)
    assert run_state.damage() == [40], "nor does growing hide it"


def test_a_full_disk_leaves_the_column_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    run_state = desk_with(40, LONG)
    run_state.grow_to(40, LONG + 100)
    monkeypatch.setattr(os, "posix_fallocate", full)
    run_state.grow_to(40, LONG + 200)
    assert run_state[40][:LONG].tolist() == list(range(LONG))
    assert run_state.damage() == []
    run_state[40][:] = 1
    run_state.rest()
    assert int(run_state[40].sum()) == LONG + 200


def test_a_file_begins_a_pair_of_cache_lines() -> None:
    column = ColdColumn(np.arange(1000))
    assert column.data.ctypes.data % (16 * cold.LINE) == 0
    assert column.data.tolist() == list(range(1000))


@pytest.mark.parametrize("width", [1, 10])
def test_the_past_keeps_everything(width: int) -> None:
    past = Past(width)
    for index in range(0, 200_000, 37):
        past.reach(index)[index] = index + 1
    shown = past.values if width == 1 else past.values[:, width - 1]
    assert len(shown) < 270_000
    assert np.flatnonzero(shown).tolist() == list(range(0, 200_000, 37))
    assert int(shown.sum()) == sum(index + 1 for index in range(0, 200_000, 37))


@pytest.mark.parametrize("protocol", ["pbft", "raft", "hotstuff", "qbft"])
@pytest.mark.parametrize("fast_path", [True, False])
def test_who_returns_finds_what_was_set_aside(protocol: str, fast_path: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns go to files at once, objects of blocks are given up, and a voter returns twice."""
    gone = [{"at": at, "until": until, "crash": {"nodes": [3]}} for at, until in (("1 s", "14 s"), ("15 s", "19 s"))]
    chosen = scenario(
        4, protocol=protocol, duration="24 s", faults=gone,
        workload=[{"kind": "open", "rate": "60 tx/s", "bytes": "200 B"}],
        **{"network.latency": {"model": "fixed", "one_way": "2 ms"}, "block.max_transactions": 1},
    )  # fmt: skip
    plain = play(chosen, fast_path=fast_path)
    monkeypatch.setattr("sim.kernel.run_state.COLD_BYTES", 0)
    monkeypatch.setattr("sim.host.blocks._REST_EVERY", 1)
    again = play(chosen, fast_path=fast_path)
    assert again.digest == plain.digest
    assert again.world.run.engine.run_state.damage() == []
    assert len(set(again.decided(3).block.tolist())) > 200
    assert again.now_ns == 24 * S
