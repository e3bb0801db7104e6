"""Patience on slow cards: raised where nobody sets it, left alone where somebody does, and said in both cases."""

from __future__ import annotations

import pytest

from sim.protocols import PROTOCOLS
from sim.scenario.patience import SENDINGS, block_bytes, sending_ns
from tests.runs import scenario

SLOW = {"network.bandwidth": "10 Mbit/s"}
SENDING_NS = 39 * 512_000 * 800  # 39 copies of half a megabyte at 800 ns a byte


def test_a_full_block_is_what_the_workload_and_the_block_allow() -> None:
    assert block_bytes(scenario(4)) == 512_000
    assert block_bytes(scenario(4, block={"max_transactions": 1000, "max_bytes": "100 kB"})) == 100_000
    assert sending_ns(scenario(40, **SLOW)) == SENDING_NS
    assert sending_ns(scenario(40)) == 0


@pytest.mark.parametrize("name", [name for name, entry in PROTOCOLS.items() if entry.parameters.patience()])
def test_what_nobody_sets_is_raised(name: str) -> None:
    before, after = (scenario(40, protocol={"name": name}, **more).protocol for more in ({}, SLOW))
    first, *rest = type(after.parameters).patience()
    wait_ns = getattr(after.parameters, first)
    at_once = getattr(after.parameters, "pipeline", 1)
    assert SENDINGS * at_once * SENDING_NS <= wait_ns < SENDINGS * at_once * SENDING_NS + 200_000_000
    factor = wait_ns / getattr(before.parameters, first)
    for field in rest:
        assert getattr(after.parameters, field) == pytest.approx(factor * getattr(before.parameters, field), rel=0.01)
    assert not before.notes
    assert "raised, since the scenario does not set it" in after.notes[0]


def test_what_somebody_sets_stays_and_is_warned_of() -> None:
    protocol = scenario(40, protocol={"name": "hotstuff", "view_timeout": "3 s"}, **SLOW).protocol
    assert protocol.parameters.view_timeout_ns == 3_000_000_000
    assert "view_timeout is 3 s: leaders that work are suspected" in protocol.notes[0]
    assert not scenario(40, protocol={"name": "hotstuff", "view_timeout": "20 s"}, **SLOW).protocol.notes


def test_raft_and_quick_cards_are_left_alone() -> None:
    assert not scenario(40, protocol={"name": "raft"}, **SLOW).protocol.notes  # heartbeats pass blocks
    assert not scenario(7, **{"network.bandwidth": "100 Mbit/s"}).protocol.notes


def test_the_same_scenario_twice_is_the_same() -> None:
    once = scenario(40, protocol={"name": "hotstuff"}, **SLOW)
    assert once == scenario(40, protocol={"name": "hotstuff"}, **SLOW)
