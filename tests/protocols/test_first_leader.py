"""Whoever a scenario names leads first, and the others follow in the protocol's own order."""

from __future__ import annotations

import pytest

from sim.protocols import PROTOCOLS
from sim.scenario.errors import ScenarioError
from sim.scenario.run import run
from tests.runs import begin, scenario

SLOW = {"clique": "30 s", "aura": "30 s"}
LASTING = {"pbft", "rpbft", "wheat", "raft", "kauri"}


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("first", range(5))
def test_the_first_blocks_are_the_first_leaders(name: str, first: int) -> None:
    if name == "rpbft" and first == 4:
        return  # outside its first group of four
    named = scenario(5, protocol={"name": name, "first_leader": first}, duration=SLOW.get(name, "2 s"))
    results = [run(named, fast_path=fast_path) for fast_path in (True, False)]
    assert results[0].digest == results[1].digest
    proposers = [int(node) for node in results[0].tables["blocks"]["proposer"][:3]]
    turns = [first] * 3 if name in LASTING else [(first + turn) % 5 for turn in range(3)]
    assert proposers == turns[: len(proposers)] and proposers


@pytest.mark.parametrize("name", PROTOCOLS)
def test_by_default_it_is_as_published(name: str) -> None:
    """What a protocol does of itself is what it does if told to begin with the one it begins with."""
    plain = run(scenario(4, protocol=name, duration=SLOW.get(name, "2 s")))
    first = int(plain.tables["blocks"]["proposer"][0])
    if name != "raft":  # its first election is drawn
        again = run(scenario(4, protocol={"name": name, "first_leader": first}, duration=SLOW.get(name, "2 s")))
        assert again.digest == plain.digest


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_replica_says_who_leads(name: str) -> None:
    """As long as it has heard nothing of the first proposal; a candidate must have won first."""
    run_ = begin(scenario(4, protocol={"name": name, "first_leader": 2}, duration="10 s"))
    run_.until(30_000_000 if name == "raft" else 1_000_000)
    replica = run_.replica(0)
    assert replica.leader() == (1 if name == "aura" else 2)  # its step 0 is nobody's: all seal from step 1 on
    following = {"raft": None, "kauri": 0, "aura": 2}
    assert replica.leader(1) == following.get(name, 3)


def test_who_is_no_member_cannot_lead_first() -> None:
    with pytest.raises(ScenarioError, match="first_leader is no voter at the start; write one of 0, 1, 2"):
        scenario(4, protocol={"name": "pbft", "first_leader": 3}, **{"network.members": [0, 1, 2]})
    with pytest.raises(ScenarioError, match="first_leader"):
        scenario(4, protocol={"name": "raft", "first_leader": 9})
    with pytest.raises(ScenarioError, match="first_leader: 4 is outside the first group, replicas 0 to 3"):
        scenario(5, protocol={"name": "rpbft", "first_leader": 4})
