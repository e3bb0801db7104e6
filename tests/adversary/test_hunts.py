"""What hunts find of what is known to be broken: one bug here, more in the slow test, all in docs/mutants.md."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from sim.adversary.mutants import MUTANTS
from sim.cli import app
from sim.plan.hunts import hunt_all, tables, targets
from sim.protocols import PROTOCOLS


def test_everything_known_is_hunted_and_every_protocol_as_it_is() -> None:
    found = targets()
    names = [target.name for target in found]
    assert len(set(names)) == len(names)
    assert {mutant.name for mutant in MUTANTS} < set(names)
    assert {target.name for target in found if not target.bug} == set(PROTOCOLS)


def test_a_seeded_bug_is_found_and_the_protocol_as_it_is_gets_a_bound() -> None:
    broken, sound = hunt_all(targets(["pbft-quorum-2f", "pbft"]), 6)
    assert (broken.what, broken.source) == ("agreement", "enumerated")
    assert sound.what is None
    assert sound.share_below == pytest.approx(1 - 0.05 ** (1 / sound.schedules))
    text = tables([broken, sound], 6)
    assert "1 of 1 found" in text
    assert f"| `pbft` | nothing | {sound.schedules} |" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["d2-equivocation", "d2-partition", "d5-hidden-lock", "raft-half", "clique-recency"])
def test_published_flaws_and_bugs_are_found(name: str) -> None:
    (bag,) = hunt_all(targets([name]), 300)
    assert bag.what is not None


def test_the_command_refuses_unknown_names_and_answers_in_json() -> None:
    refused = CliRunner().invoke(app, ["hunts", "nobody"])
    assert refused.exit_code == 2
    assert "nobody: nothing of that name to hunt" in refused.output
    done = CliRunner().invoke(app, ["hunts", "raft-votes-twice", "--schedules", "4", "--json"])
    assert done.exit_code == 0, done.output
    assert [one["source"] for one in json.loads(done.output)["hunts"]] == ["enumerated"]
