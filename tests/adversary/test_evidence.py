"""Evidence accuses nobody honest: in drawn runs above the bound, whoever is accused is corrupted."""

from __future__ import annotations

import pytest

from sim.plan.campaign.draws import draw
from sim.plan.campaign.runs import scenario_of
from sim.protocols import PROTOCOLS
from sim.scenario.errors import ScenarioError
from sim.scenario.run import run
from tests.runs import scenario

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
    broken_runs(protocol, range(5))


@pytest.mark.slow
@pytest.mark.parametrize("protocol", LYING)
def test_the_accused_are_corrupted_in_many_runs(protocol: str) -> None:
    assert broken_runs(protocol, range(5, 300)) > 0


CHANGES = {
    "one joins": {"network.members": [0, 1, 2, 3], "membership": [{"at": "5 s", "add": [4]}]},
    "one has left": {"membership": [{"at": "1 s", "remove": [4]}]},
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("protocol", ["pbft", "wheat", "ibft", "qbft", "tendermint"])
def test_a_fork_convicts_also_where_members_change(protocol: str, change: str) -> None:
    """Four members, two of whom say one thing to replica 2 and another to replica 3: both signed both."""
    liars = [
        {"nodes": [0, 1], "behaviour": "double-voting", "at": "1.5 s"},
        {"nodes": [0], "behaviour": "equivocating", "groups": [[2], [3, 1]], "at": "1.5 s"},
        {"nodes": [1], "behaviour": "equivocating", "groups": [[2], [3, 0]], "at": "1.5 s"},
    ]
    forked = run(scenario(5, protocol=protocol, duration="4 s" if change == "one has left" else "5.5 s",
                          corrupted=liars, **CHANGES[change]))  # fmt: skip
    violation = next(violation for violation in forked.violations if violation.check == "agreement")
    assert violation.culprits == (0, 1)
    assert "COMMIT for block" in violation.evidence and "who signed both" in violation.evidence
