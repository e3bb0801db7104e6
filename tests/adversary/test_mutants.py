"""Seeded bugs: the table is whole, a few are caught at once, and sound protocols pass the scripted trials."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sim.adversary.mutants import MUTANTS, NOT_INJECTED
from sim.cli import app
from sim.plan.mutation import home, mutants, score
from sim.plan.trials import SCRIPTS, trial
from sim.protocols import PROTOCOLS
from sim.scenario.run import run

# The bugs that the checks are to be measured with.
BUGS = {
    "quorum 2f", "quorum 2f + 1 where n is not 3f + 1", "a duplicate voter counted twice",
    "votes of another term accepted", "double vote after restart", "lock forgotten on view change", "lock not raised",
    "commit on a non-consecutive chain", "view change picks the lowest prepared", "no transaction deduplication",
    "timer never reset", "timeout not doubled", "stale leader commits", "Raft commit of an old-term entry by counting",
    "Raft without the up-to-date check", "Raft voting twice in a term", "Raft commit on n/2",
    "Clique recency limit off by one", "self-message dropped", "message duplicated",
}  # fmt: skip


def test_every_bug_has_a_mutant_or_a_reason() -> None:
    assert {mutant.bug for mutant in MUTANTS} | set(NOT_INJECTED) == BUGS
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("name", ["pbft-quorum-2f+1", "hotstuff-lock-not-raised", "raft-votes-twice", "pbft-doubled"])
def test_a_mutant_is_caught(name: str) -> None:
    assert score(mutants([name])[0], 12).caught_by is not None


@pytest.mark.parametrize("name", sorted({home(mutant)[0] for mutant in MUTANTS}))
def test_the_sound_protocol_passes_the_scripted_trials(name: str) -> None:
    entry = PROTOCOLS[name]
    for number in range(len(SCRIPTS)):
        result = run(trial(number, name, entry, 4, PROTOCOLS))
        assert [violation.evidence for violation in result.violations if violation.kind == "safety"] == []


def test_a_trial_is_a_function_of_its_number() -> None:
    name, entry = home(MUTANTS[0])
    assert trial(77, name, entry, 5, PROTOCOLS) == trial(77, name, entry, 5, PROTOCOLS)
    assert trial(77, name, entry, 5, PROTOCOLS) != trial(78, name, entry, 5, PROTOCOLS)


def test_the_command_names_survivors() -> None:
    result = CliRunner().invoke(app, ["mutants", "pbft-doubled", "raft-old-term-commit", "--budget", "1", "--json"])
    assert result.exit_code == 1
    scores = json.loads(result.output)["scores"]
    assert [one["caught_by"] for one in scores] == ["messages per decision", None]
    assert "no such mutant" in CliRunner().invoke(app, ["mutants", "nobody"]).output


@pytest.mark.parametrize("name", ["mutants.md", "hunts.md"])
def test_the_page_shows_what_was_published(name: str) -> None:
    """The tables of docs/mutants.md are the commands' own output (`--out results/published`)."""
    root = Path(__file__).resolve().parents[2]
    assert (root / "results" / "published" / name).read_text().strip() in (root / "docs" / "mutants.md").read_text()
