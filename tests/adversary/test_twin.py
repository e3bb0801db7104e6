"""Two copies of a replica under one identity, each with its own group."""

from __future__ import annotations

import numpy as np
import pytest

from tests.runs import S, begin, play, scenario, unsafe

TWIN = [{"nodes": [0], "behaviour": "twin", "groups": [[1], [2, 3]]}]


def test_the_copies_stand_on_seats_of_their_own_and_hear_their_group_only() -> None:
    run = begin(scenario(duration="2 s", trace="messages", corrupted=TWIN)).until(2 * S)
    assert run.world.run.engine.identity == (0, 1, 2, 3, 0)
    heard = {(int(row[1]), int(row[2])) for row in run.log if row[10] == 0}
    assert not heard & {(0, 2), (0, 3), (2, 0), (3, 0), (0, 4), (4, 0), (1, 4), (4, 1)}
    assert heard & {(0, 1), (1, 0)}
    assert heard & {(2, 4), (4, 2)}


def test_twins_do_not_divide_correct_replicas_of_a_sound_protocol() -> None:
    run = play(scenario(duration="10 s", protocol={"name": "pbft", "request_timeout": "300 ms"}, corrupted=TWIN))
    assert unsafe(run) == []
    assert len(np.unique(run.decided().height)) > 10


@pytest.mark.parametrize(
    "protocol", ["pbft", "ibft", "qbft", "wheat", "rpbft", "tendermint", "hotstuff-basic", "kauri"]
)
def test_two_twins_of_four_divide_every_protocol(protocol: str) -> None:
    """Each side has its own correct replica and a copy of both twins: three of four, and nothing in common."""
    twins = [{"nodes": [0, 1], "behaviour": "twin", "groups": [[2], [3]]}]
    apart = [{"at": "0 s", "cut_link": {"between": [2, 3]}}]
    run = play(scenario(4, protocol=protocol, duration="6 s", corrupted=twins, faults=apart))
    assert run.verdict().outcomes["agreement"] == "fail"


@pytest.mark.parametrize("protocol", ["hotstuff", "hotstuff-2", "jolteon"])
def test_three_twins_of_seven_divide_protocols_whose_leaders_rotate(protocol: str) -> None:
    """On either side five leaders follow each other, one more than a three-chain commit needs."""
    twins = [{"nodes": [0, 1, 2], "behaviour": "twin", "groups": [[3, 4], [5, 6]]}]
    apart = [{"at": "0 s", "cut_link": {"between": [a, b]}} for a in (3, 4) for b in (5, 6)]
    run = play(scenario(7, protocol=protocol, duration="30 s", corrupted=twins, faults=apart))
    assert run.verdict().outcomes["agreement"] == "fail"
