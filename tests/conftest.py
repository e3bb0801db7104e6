"""Tests that say at length what a quicker one says too: they run with -m slow, so that CI ends in time."""

from __future__ import annotations

import re

import pytest

AT_LENGTH = re.compile(
    "|".join(
        (
            r"test_full_disk\.py::test_a_disk_that_fills_up",
            r"test_contingency\.py::test_runs_agree_with_quorum_arithmetic",
            r"test_trust_cases\.py.*\[(pbft-one-voter-down|pbft-liar-keeps-the-request|kauri-patience-with-what-expires|jolteon-asks-for-what-a-liar-keeps)\]",
            r"test_cluster\.py::test_two_workers_one_of_which_dies",
            r"test_orphans\.py.*\[sweep\]",
            r"test_statistics_batches\.py::test_(batch_means_cover_the_wait|replication_deletion_covers)",
            r"test_determinism\.py::test_a_rule_that_no_seed_determines.*\[(time|int)\.",
            r"test_study\.py::test_(two_sweeps_into_one_folder|verify_finds_what_differs)",
            r"test_until\.py::test_a_sweep_stops_by_itself",
            r"test_recovery\.py::test_recovery_does.*(ibft|hotstuff-2|hotstuff-basic|jolteon|kauri)",
            r"test_plan_sensitivity\.py::test_a_study_end_to_end",
            r"test_evidence\.py::test_the_accused_are_corrupted\[(kauri|rpbft|wheat|jolteon|hotstuff-2|hotstuff-basic|ibft)\]",
        )
    )
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them before -m is looked at."""
    for item in items:
        if AT_LENGTH.search(item.nodeid):
            item.add_marker(pytest.mark.slow)
