"""Evidence accuses nobody honest: in drawn runs above the bound, whoever is accused is corrupted."""

from __future__ import annotations

import pytest

from sim.plan.campaign.draws import draw
from sim.plan.campaign.runs import scenario_of
from sim.protocols import PROTOCOLS
from sim.scenario.errors import ScenarioError
from sim.scenario.run import run

SEED = 5
LYING = [name for name, entry in PROTOCOLS.items() if entry.tolerates_lies]


def broken_runs(protocol: str, numbers: range) -> int:
    """How many of these runs violate safety; in each the accused are corrupted."""
    found = 0
    for number in numbers:
        data = draw(protocol, PROTOCOLS[protocol], SEED, number, beyond=True).data
        try:
            result = run(scenario_of(data | {"duration": "6 s"}))
        except ScenarioError:
            continue
        corrupted = {node for entry in data["corrupted"] for node in entry["nodes"]}
        violations = [violation for violation in result.violations if violation.kind == "safety"]
        found += bool(violations)
        for violation in violations:
            assert {*violation.culprits} <= corrupted, (protocol, number, violation.evidence)
    return found


@pytest.mark.parametrize("protocol", LYING)
def test_the_accused_are_corrupted(protocol: str) -> None:
    broken_runs(protocol, range(12))


@pytest.mark.slow
@pytest.mark.parametrize("protocol", LYING)
def test_the_accused_are_corrupted_in_many_runs(protocol: str) -> None:
    assert broken_runs(protocol, range(12, 300)) > 0
