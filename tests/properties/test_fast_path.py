"""One behaviour: with the fast path and with handlers alone, drawn configurations give the same bytes and verdict."""

from __future__ import annotations

import pytest

from sim.plan.campaign.draws import draw
from sim.plan.campaign.runs import scenario_of
from sim.protocols import PROTOCOLS
from sim.scenario.errors import ScenarioError
from sim.scenario.run import run

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
        fast, handlers = run(chosen), run(chosen, lane=False)
        if "truncated" in (fast.status, handlers.status):
            continue  # by events, of which either path has its own number
        if (fast.digest, fast.status) != (handlers.digest, handlers.status):
            found.append(f"{protocol} {number}: {fast.status} and {handlers.status}")
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_both_paths_agree(protocol: str) -> None:
    assert differences(protocol, range(22)) == []


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_both_paths_agree_in_many_configurations(protocol: str) -> None:
    assert differences(protocol, range(22, 380)) == []
