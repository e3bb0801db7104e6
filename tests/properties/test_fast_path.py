"""One behaviour: with the fast path and with handlers alone, drawn configurations give the same bytes and verdict."""

from __future__ import annotations

import pytest

from sim.plan.campaign.draws import draw
from sim.plan.campaign.runs import scenario_of
from sim.protocol import Replica
from sim.protocols import PROTOCOLS
from sim.scenario.errors import ScenarioError
from sim.scenario.run import run
from tests.runs import play, scenario

SEED = 11


def differences(protocol: str, numbers: range) -> list[str]:
    """Configurations in which the two paths differ, in words; each runs for 6 s, past its trouble."""
    found = []
    for number in numbers:
        data = draw(protocol, PROTOCOLS[protocol], SEED, number).data
        try:
            chosen = scenario_of(data | {"duration": "6 s"})
        except ScenarioError:
            continue  # for example a rule that can never match
        fast, handlers = run(chosen), run(chosen, fast_path=False)
        if "truncated" in (fast.status, handlers.status):
            continue  # by events, of which either path has its own number
        if (fast.digest, fast.status) != (handlers.digest, handlers.status):
            found.append(f"{protocol} {number}: {fast.status} and {handlers.status}")
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_both_paths_agree(protocol: str) -> None:
    assert differences(protocol, range(22)) == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_it_is_taken(protocol: str) -> None:
    """Where nothing goes wrong most voters' guards are open, or both paths would be one and the same."""
    played = play(scenario(7, protocol=protocol, duration="5 s"))
    guards = [host.fast_path.guard for host in played.world.run.hosts[:7]]
    assert sum(guard >= 0 for guard in guards) >= 5, guards


class Undeclared:
    """What a protocol has that never heard of the fast path: the base class's."""

    normal_cases = Replica.normal_cases
    guard = Replica.guard
    absorb_fast_path = Replica.absorb_fast_path
    message_of = staticmethod(Replica.message_of)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_protocol_that_declares_nothing_is_complete(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a file says of the fast path is taken away; its handlers decide the same, in the same order."""
    entry = PROTOCOLS[protocol]
    stripped = type("Stripped", (Undeclared, entry.protocol), {})
    found = []
    for number in range(6):
        data = draw(protocol, entry, SEED, number).data
        if "corrupted" in data:
            continue  # a liar looks at what is declared to know whom it lies to
        try:
            chosen = scenario_of(data | {"duration": "6 s"})
        except ScenarioError:
            continue
        whole = run(chosen)
        with monkeypatch.context() as patch:
            patch.setattr(type(entry), "protocol", property(lambda _: stripped))
            plain = run(chosen)
        if "truncated" not in (whole.status, plain.status):
            found.append((whole.digest, whole.status) == (plain.digest, plain.status))
    assert found
    assert all(found)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_both_paths_agree_in_many_configurations(protocol: str) -> None:
    assert differences(protocol, range(22, 380)) == []
