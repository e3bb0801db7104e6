"""rPBFT: a group of k decides, the others follow, and the group moves on; what f of k means for n."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from sim.families.voters import ValidatorSet
from sim.ledger import rows as ledger
from sim.protocol import DECIDED, upon
from sim.protocols.rpbft import Committed, Rpbft
from sim.scenario.errors import ScenarioError
from tests.runs import MS, Played, S, play, scenario, unsafe

OPEN = [{"kind": "open", "rate": "80 tx/s", "bytes": "500 B"}]


def rpbft(group: int = 4, epoch: int = 5, rotate: int = 1, request_timeout: str = "300 ms") -> dict[str, Any]:
    """The protocol section of a scenario."""
    return {"name": "rpbft", "group": group, "epoch": epoch, "rotate": rotate, "request_timeout": request_timeout}


def one_at_a_time(n: int, **protocol: Any) -> Played:
    """Full blocks, one every 100 ms, for 1.98 s: at the end nothing is on its way.

    A new primary does not wait for the interval of the one before.
    """
    changes = {"block.interval": "100 ms"}
    return play(scenario(n, protocol=rpbft(**protocol), duration="1980 ms", **changes))


def crash(nodes: list[int], at: str, for_: str | None = None) -> dict[str, Any]:
    """A scripted crash."""
    return {"at": at, "crash": {"nodes": nodes}} | ({} if for_ is None else {"for": for_})


def proposers(run: Played) -> dict[int, int]:
    """Height -> who proposed it last."""
    return {row.height: row.node for row in run.events(ledger.EVENT_PROPOSED)}


def validator_sets(run: Played) -> dict[int, ValidatorSet]:
    """Blocks that change the set of nodes, by height."""
    blocks = run.world.run.block_store.of_row.values()
    return {block.height: block.body for block in blocks if isinstance(block.body, ValidatorSet)}


# --- laws --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(4, 4), (7, 4), (10, 4), (10, 7), (31, 7), (7, 5)])
def test_a_decision_costs_2k_times_k_minus_1_messages_and_a_block_to_each_other_node(n: int, k: int) -> None:
    run = one_at_a_time(n, group=k)
    decisions = len({row.block for row in run.decided()})
    assert decisions == 23
    assert run.sent() == 2 * k * (k - 1) * decisions
    assert run.sent("PrePrepare") == (k - 1) * decisions
    assert run.sent("Committed") == (n - k) * decisions
    assert run.sent("Fetch", "Executed", "ViewChange", "NewView") == 0


def test_the_group_decides_after_three_delays_and_the_others_know_after_four() -> None:
    run = one_at_a_time(10)
    latencies = run.latencies_ns()
    height = {row.block: row.height for row in run.decided()}
    for (block, node), latency_ns in latencies.items():
        epoch = (height[block] - 1) // 5
        assert latency_ns == (30 if (node - epoch) % 10 < 4 else 40) * MS
    assert len(latencies) == 23 * 10


@pytest.mark.parametrize(("n", "k", "rotate"), [(7, 4, 1), (10, 4, 3), (9, 4, 4), (4, 4, 1), (7, 4, 0)])
def test_after_each_epoch_the_group_moves_on(n: int, k: int, rotate: int) -> None:
    run = one_at_a_time(n, group=k, rotate=rotate)
    assert proposers(run) == {height: (height - 1) // 5 * rotate % n for height in range(1, len(proposers(run)) + 1)}
    assert min(len(run.decided_blocks(node)) for node in range(n)) >= len(proposers(run)) - 1  # the last is under way


def test_a_full_pipeline_stops_at_the_end_of_an_epoch() -> None:
    run = play(scenario(7, protocol={**rpbft(), "pipeline": 3}, duration="2 s"))
    assert all(who == (height - 1) // 5 % 7 for height, who in proposers(run).items())
    assert max(proposers(run)) > 80
    assert unsafe(run) == []


# --- members and others that fail --------------------------------------------------------------------------


def test_a_dead_primary_costs_a_view_change_and_the_next_epoch_begins_afresh() -> None:
    faults = [crash([0], "100 ms")]
    run = play(scenario(7, protocol=rpbft(), duration="2 s", workload=OPEN, faults=faults))
    views = dict.fromkeys(run.views())  # 1000 times the epoch, and the view in it
    assert list(views)[:3] == [0, 1, 1000]
    assert proposers(run)[5] == 1
    assert unsafe(run) == []


def test_nodes_outside_fetch_what_a_dead_member_owed_them() -> None:
    """At worst they ask the dead one first, and somebody else ten blocks later."""
    run = play(scenario(10, protocol=rpbft(epoch=50), duration="1490 ms", faults=[crash([2], "500 ms")]))
    assert run.sent("Fetch") > 0
    assert min(len(run.decided_blocks(node)) for node in range(10) if node != 2) >= 35
    assert unsafe(run) == []


def test_who_was_away_for_several_epochs_catches_up_and_serves_again() -> None:
    run = play(scenario(7, protocol=rpbft(), duration="6 s", faults=[crash([3], "200 ms", "2 s")]))
    served = [height for height, who in proposers(run).items() if who == 3]
    assert max(served) > 100
    assert len(run.decided_blocks(3)) >= len(run.decided_blocks(0)) - 2
    assert unsafe(run) == []


def test_two_dead_nodes_that_never_meet_in_a_group_stop_nobody() -> None:
    """f = 1 of k = 4; nodes 0 and 5 of 10 are never among the same four."""
    run = play(scenario(10, protocol=rpbft(), duration="6 s", faults=[crash([0, 5], "500 ms")]))
    assert max(row.time_ns for row in run.decided()) > 5 * S
    assert unsafe(run) == []


def test_two_dead_neighbours_stop_everybody_when_their_epoch_comes() -> None:
    """Two of n = 10 are less than a third, and more than f of the group that has them both."""
    run = play(scenario(10, protocol=rpbft(), duration="6 s", faults=[crash([7, 8], "100 ms", "4 s")]))
    times = [row.time_ns for row in run.decided()]
    heights = [row.height for row in run.decided() if row.time_ns < 4 * S]
    assert max(heights) == 25  # epoch 5 is the first with both 7 and 8: nodes 5, 6, 7, 8
    assert max(times) > 5.9 * S
    assert unsafe(run) == []


@pytest.mark.parametrize("seed", range(8))
def test_nodes_agree_while_one_equivocates_and_others_come_and_go(seed: int) -> None:
    rng = random.Random(f"rpbft {seed}")
    n = rng.choice([5, 7, 10])
    liar, away = rng.sample(range(n), 2)
    group = sorted(rng.sample(range(n), n // 2))
    run = play(
        scenario(
            n,
            protocol=rpbft(epoch=rng.choice([1, 2, 5]), rotate=rng.choice([1, 2])),
            seed=seed,
            duration="10 s",
            workload=OPEN,
            corrupted=[{"nodes": [liar], "behaviour": "equivocating"}],
            faults=[
                {"at": "500 ms", "for": "700 ms", "partition": {"groups": [group]}},
                crash([away], "1500 ms", "400 ms"),
            ],
            **{"network.jitter": {"model": "proportional", "up_to": "30 %"}},
        )
    )
    assert unsafe(run) == []
    assert max(row.time_ns for row in run.decided()) > 4 * S


@pytest.mark.parametrize("seeds", [range(6), pytest.param(range(6, 100), marks=pytest.mark.slow)], ids=["few", "many"])
def test_the_fast_path_does_what_the_handlers_do(seeds: range) -> None:
    """In groups of one to five, with crashes, a partition, loss, and messages that overtake each other."""
    for seed in seeds:
        rng = random.Random(f"rpbft fast path {seed}")
        n = rng.choice([5, 7, 10])
        one, two = rng.sample(range(n), 2)
        chosen = scenario(
            n,
            protocol=rpbft(rng.choice([1, 3, 4, 5]), rng.choice([1, 2, 5, 20])) | {"pipeline": rng.choice([1, 3])},
            seed=seed,
            duration="4 s",
            workload=OPEN if seed % 2 else [{"kind": "backlog", "bytes": "500 B"}],
            faults=[
                {"at": "500 ms", "for": "400 ms", "partition": {"groups": [sorted(rng.sample(range(n), n // 2))]}},
                crash([one], "1200 ms", "400 ms"),
                crash([two], "1900 ms", f"{rng.randrange(50, 900)} ms"),
                {"at": "2900 ms", "for": "300 ms", "degrade_link": {"between": [one, two], "loss": "40 %"}},
            ],
            **{
                "network.jitter": {"model": "proportional", "up_to": "80 %"},
                "network.links": rng.choice(["ordered", "datagram"]),
                "network.retransmit_after": "20 ms",
            },
        )
        fast, slow = play(chosen, fast_path=True), play(chosen, fast_path=False)
        np.testing.assert_array_equal(fast.rows, slow.rows, err_msg=f"seed {seed}")
        assert fast.digest == slow.digest, f"seed {seed}"


def test_outside_the_group_only_the_last_block_of_an_epoch_wakes_a_handler() -> None:
    heard: list[int] = []

    class Counting(Rpbft):
        normal_cases = Rpbft.normal_cases

        @upon(Committed)
        def on_block(self, sender: int, message: Committed) -> None:
            raise AssertionError("every block fits the fast path")

        @upon(DECIDED)
        def on_decided_in_fast_path(self) -> None:
            if not self.is_voter:
                heard.append(self.context.height)
            super().on_decided_in_fast_path()

    chosen = scenario(10, protocol=rpbft(), duration="1980 ms", **{"block.interval": "100 ms"})
    run = play(chosen, protocol=Counting)
    assert heard == [height for height in (5, 10, 15, 20) for _ in range(6)]
    assert {len(run.decided_blocks(node)) for node in range(10)} == {23}


# --- nodes that join and leave -----------------------------------------------------------------------------


def test_who_joins_takes_its_turn_and_who_leaves_has_none() -> None:
    """Of six nodes with the others; the change is in force from the next epoch on, for group and blocks handed out."""
    requests = [{"at": "400 ms", "add": [6]}, {"at": "2 s", "remove": [2]}]
    run = play(scenario(7, protocol=rpbft(), duration="6 s", membership=requests, **{"network.members": [*range(6)]}))
    changed = {validator_set.request.number: height for height, validator_set in validator_sets(run).items()}
    epochs = {number: (height - 1) // 5 + 1 for number, height in changed.items()}
    order: list[int] = []
    for height, who in sorted(proposers(run).items()):
        epoch = (height - 1) // 5
        order = [0, 1, 2, 3, 4, 5] if epoch < epochs[1] else [*range(7)] if epoch < epochs[2] else [0, 1, 3, 4, 5, 6]
        assert who == order[epoch % len(order)], height
    assert 6 in order
    assert 2 not in order
    hosts, last = run.world.run.hosts, max(proposers(run))
    assert hosts[2].height == epochs[2] * 5
    assert {hosts[node].height for node in (0, 1, 3, 4, 5, 6)} <= {last, last - 1}
    assert unsafe(run) == []


@pytest.mark.parametrize("seed", range(6))
def test_nodes_agree_while_the_set_changes_in_trouble(seed: int) -> None:
    rng = random.Random(f"rpbft members {seed}")
    requests = [
        {"at": "800 ms", "add": [4, 7]},
        {"at": "1.9 s", "remove": [rng.randrange(4)]},
        {"at": "3 s", "add": [5], "remove": [7]},
    ]
    run = play(
        scenario(
            8,
            protocol=rpbft(rng.choice([3, 4]), rng.choice([1, 2, 5, 9]), rng.choice([0, 1, 2])),
            seed=seed,
            duration="8 s",
            workload=OPEN,
            membership=requests,
            faults=[
                crash([rng.randrange(8)], "900 ms", "500 ms"),
                {"at": "1.8 s", "for": "600 ms", "partition": {"groups": [rng.sample(range(8), 2)]}},
                crash([rng.randrange(8)], "2.9 s", "400 ms"),
            ],
            **{"network.members": [*range(4)], "network.jitter": {"model": "proportional", "up_to": "50 %"}},
        )
    )
    stay = {*range(6)} - {*requests[1]["remove"]}
    assert {row.node for row in run.decided() if row.time_ns > 7 * S} == stay
    assert unsafe(run) == []


# --- parameters --------------------------------------------------------------------------------------------


def test_a_group_cannot_replace_more_than_it_has() -> None:
    with pytest.raises(ScenarioError, match="rotate: 5 must not be above group: 4"):
        scenario(10, protocol=rpbft(rotate=5))
