"""Limits: a run that reaches one is cut, says which, and stays out of every mean."""

from __future__ import annotations

from pathlib import Path

import pytest

import sim
from sim.engine import loop
from sim.host import OUT_OF_TIME
from sim.host.messages import Messages
from sim.protocol import Timer, upon
from sim.protocols.pbft import Pbft
from sim.scenario import alarm
from sim.scenario.build import build
from sim.scenario.run import EXIT_LIMIT, Result, run
from sim.scenario.store import run_key
from tests.runs import scenario

SPIN = Timer("SPIN")


class Spinning(Pbft):
    """A rule override that sets a timer of no length each time it fires."""

    def start(self) -> None:
        super().start()
        self.context.set_timer(SPIN, 0)

    @upon(SPIN)
    def again(self, about: object) -> None:
        self.context.set_timer(SPIN, 0)


def test_events_without_time_moving_are_an_instant_livelock() -> None:
    found = sim.run(scenario(4), protocol=Spinning)
    assert (found.status, found.exit_code) == ("truncated", EXIT_LIMIT)
    assert found.warnings[-1] == "truncated: instant livelock: events without time moving"
    assert found.metrics["simulated_s"] == 0


def cut(**limits: str | int) -> Result:
    return sim.run(scenario(4, limits=limits))


def test_a_limit_of_simulated_time_cuts_the_run_there() -> None:
    found = cut(simulated="300 ms")
    assert (found.status, found.metrics["simulated_s"]) == ("truncated", 0.3)
    assert found.warnings[-1] == "truncated: simulated: 0.3 s reached"
    assert cut(simulated="1 s").status == "ok"  # the run's own length
    assert cut(simulated="2 s").status == "ok"
    early = sim.run(scenario(4, stop_after_decisions=3, limits={"simulated": "900 ms"}))
    assert (early.status, early.metrics["decisions"]) == ("ok", 3)


def test_a_limit_of_events_cuts_the_run_near_them() -> None:
    found = cut(max_events=100)
    assert found.status == "truncated"
    assert 0 < int(found.metrics["events"] or 0) <= 1000
    assert found.checks["conservation_messages"] == "pass"


def test_a_cut_run_is_stored_as_such_and_shown_without_numbers(tmp_path: Path) -> None:
    chosen = scenario(4, limits={"simulated": "300 ms"})
    stored = sim.run(chosen, out=tmp_path)
    assert stored.key == run_key(chosen)
    frame = sim.results(tmp_path / "test")
    assert frame.status.tolist() == ["truncated"]
    assert frame.committed_tps.isna().all()
    assert sim.results(tmp_path / "test", truncated=True).committed_tps.notna().all()


def test_a_run_that_wakes_nobody_looks_at_the_clock_all_the_same() -> None:
    """The fast path decides hundreds of blocks between two wakes; each look at this clock takes it a tick further."""
    looks = []

    def late() -> bool:
        looks.append(world.run.now_ns)
        return len(looks) > 5

    world = build(scenario(64, duration="100 s"))
    world.run.stop_when(late)
    assert world.clock.drive(world.run.advance, loop.UNTIL, 100_000_000_000) == OUT_OF_TIME
    assert 0 < world.run.now_ns < 10_000_000_000


@pytest.mark.parametrize("which", ["wall", "memory"])
def test_the_simulators_own_code_ends_too(which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code behind the context that does not return, or fills the memory: an internal error, and nothing is stored."""
    kept = []
    limit = {"wall": "200 ms"} if which == "wall" else {"memory": f"{alarm.resident_bytes() // 10**6 + 500} MB"}

    def endless(*_: object) -> None:
        while True:
            kept.append(bytearray(1 << 20) if which == "memory" else None)
            if which == "wall":
                kept.clear()

    monkeypatch.setattr(alarm, "PATIENCE_S", 0.3)
    monkeypatch.setattr(Messages, "post", endless)
    faults = [{"at": "1 s", "crash": {"nodes": [0]}}]  # a view change is the first message that no fast path sends
    with pytest.raises(alarm.StuckError, match=f"limits.{which}: was passed by far within one event"):
        run(scenario(4, duration="60 s", limits=limit, faults=faults), out=tmp_path)
    assert not list(tmp_path.rglob("manifest.json"))
