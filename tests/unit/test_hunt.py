"""Hunts: what they find in flawed protocols, what they report of correct ones, and that a find replays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from typer.testing import CliRunner

from sim.cli import app
from sim.plan.hunt import hunt
from sim.plan.schedules import Limits, drawn, enumerated
from sim.scenario.errors import ScenarioError
from sim.scenario.load import load_scenario

IBFT = "scenarios/protocols/ibft/baseline.yaml"
PBFT = "scenarios/protocols/pbft/baseline.yaml"
FOUR = Limits(4, 1, ("PrePrepare", "ViewChange"), ("PREPARE", "COMMIT"))


def test_enumerated_schedules_are_all_different_and_follow_the_seed() -> None:
    first, again, other = ([*enumerated(FOUR, seed, views=2)] for seed in (1, 1, 2))
    assert len({json.dumps(patch) for patch in first}) == len(first) == 8 * 8**2  # 4 traitors in 2 forms
    assert first == again
    assert first != other


@settings(max_examples=20, deadline=None)
@given(drawn(FOUR))
def test_drawn_schedules_stay_within_their_limits(patch: dict[str, list[dict[str, object]]]) -> None:
    assert len({node for entry in patch.get("corrupted", []) for node in entry["nodes"]}) <= 1  # type: ignore[attr-defined]
    more = [f"{section}={json.dumps(entries)}" for section, entries in patch.items() if entries]
    try:
        loaded = load_scenario(PBFT, ["duration=6 s", *more])
    except ScenarioError:  # such as a rule that can never match: a hunt counts it as refused
        assume(False)
    assert all(fault.end_ns is not None and fault.end_ns <= 2_000_000_000 for fault in loaded.faults)
    assert all(rule.until_ns is not None and rule.until_ns <= 2_000_000_000 for rule in loaded.rules)


def test_the_ibft_fork_of_six_needs_no_liar_and_one_short_partition(tmp_path: Path) -> None:
    """Attack D2 b, found without being told: quorum 2F + 1 of n = 6 lets two halves decide."""
    quick = ["network.nodes=6", "protocol.round_timeout=300 ms"]
    found = hunt(IBFT, budget_s=600, overrides=quick, corrupted=0, most=120, out=tmp_path)
    assert found.catch is not None
    assert found.catch.what == "agreement"
    assert sum(map(len, found.catch.patch.values())) <= 2  # shrunk
    again = CliRunner().invoke(app, ["run", str(found.catch.file), "--out", str(tmp_path / "again")])
    assert again.exit_code == 3, again.output


def test_the_same_hunt_finds_the_same_schedule(tmp_path: Path) -> None:
    """One equivocating proposer of five (attack D2 a)."""
    hunts = [hunt(IBFT, budget_s=600, overrides=["network.nodes=5"], most=300, out=tmp_path) for _ in range(2)]
    assert hunts[0].catch is not None
    assert hunts[0].catch == hunts[1].catch
    assert hunts[0].limits.corrupted == 1


def test_a_correct_protocol_gets_a_bound_and_no_verdict(tmp_path: Path) -> None:
    args = ["hunt", PBFT, "--budget", "10 min", "--schedules", "12", "--out", str(tmp_path), "--json"]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    tried = told["enumerated"] + told["drawn"]
    assert tried >= 12
    assert told["found"] is None
    assert told["share_below"] == pytest.approx(1 - 0.05 ** (1 / tried))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--budget", "10"], "--budget 10"),
        (["--budget", "0 s"], "leaves no time"),
        (["--corrupted", "9"], "there are 4 voters"),
        (["--set", "network.nodes=0"], "network.nodes"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(more: list[str], says: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["hunt", PBFT, "--out", str(tmp_path / "none"), *more])
    assert done.exit_code == 2
    assert says in done.output
    assert not (tmp_path / "none").exists()
