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


@pytest.mark.parametrize(("name", "wait"), [("qbft", "round_timeout"), ("raft", "election_timeout_low")])
def test_blocks_that_take_longer_to_execute_than_anybody_waits_are_told_of(name: str, wait: str) -> None:
    before = getattr(scenario(4, protocol={"name": name}).protocol.parameters, f"{wait}_ns")
    least_us = before // 1000 // 20  # ten transactions, executed twice, last as long
    for execute_us, told in ((least_us, False), (least_us + 1, True)):
        cpu = {"execute": f"{execute_us} us", "execution": "before_vote"}
        notes = scenario(4, protocol={"name": name}, cpu=cpu, block={"max_transactions": 10}).protocol.notes
        assert [wait in note and "a block of 10 transactions" in note for note in notes] == [True] * told
        cpu["execution"] = "between"
        assert not scenario(4, protocol={"name": name}, cpu=cpu, block={"max_transactions": 10}).protocol.notes


def test_lanes_and_small_blocks_count_for_execution() -> None:
    cpu = {"execute": "5 ms"}
    assert "5 s to execute" in scenario(4, protocol={"name": "qbft"}, cpu=cpu).protocol.notes[0]
    assert not scenario(4, protocol={"name": "qbft"}, cpu=cpu | {"lanes": 8}).protocol.notes
    assert not scenario(4, protocol={"name": "qbft"}, cpu=cpu, block={"max_bytes": "50 kB"}).protocol.notes
