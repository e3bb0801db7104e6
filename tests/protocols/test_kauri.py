"""Kauri: its trees, its exact laws, votes in order, and what a crashed root or inner voter costs."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from sim.host import Run
from sim.kernel import run_state as kernel
from sim.ledger import rows as ledger
from sim.protocol import Block, Signing, Tree
from sim.protocols.kauri import QC, Kauri, KauriParameters, Proposal, Shares
from tests import chains
from tests.chains import (
    DELAY,
    JITTER,
    MS,
    agree,
    decided,
    digest,
    events,
    replica,
)
from tests.runs import S, play, scenario, unsafe

BRIEF = KauriParameters(view_timeout_ns=300 * MS, view_timeout_max_ns=1_200 * MS, aggregation_timeout_ns=60 * MS)


def world(n: int, *, protocol: type[Kauri] = Kauri, parameters: KauriParameters = BRIEF, **more: Any) -> Run:
    return chains.world(n, protocol, parameters, **more)


@pytest.mark.parametrize(("n", "fanout"), [(4, 2), (7, 2), (16, 4), (31, 2), (100, 10), (5, 4)])
def test_a_tree_reaches_everybody_once(n: int, fanout: int) -> None:
    tree = Tree(n, 3 % n, fanout)
    seen = [tree.first]
    for node in seen:
        children = tree.children(node)
        assert all(tree.parent(child) == node for child in children)
        assert tree.below(node)[0] == 1 + sum(tree.below(child)[0] for child in children)
        seen += children
    assert sorted(seen) == list(range(n))
    assert tree.below(tree.first)[0] == n


def test_inner_voters_of_successive_trees_are_disjoint_then_stars_follow() -> None:
    found = replica(world(7), 0)
    inner = [[node for node in range(7) if found.tree_of(view).children(node)] for view in range(1, 11)]
    assert inner[: found.bins] == [[0, 1, 2], [3, 4, 5]]
    assert inner[found.bins : found.bins + 7] == [[node] for node in range(7)]


@pytest.mark.parametrize("pipeline", [1, 3, 6])
@pytest.mark.parametrize(("n", "fanout", "levels"), [(7, 2, 2), (15, 2, 3), (7, 6, 1)])
def test_messages_period_and_latency_follow_the_laws(n: int, fanout: int, levels: int, pipeline: int) -> None:
    """2(n-1) messages a block; `pipeline` blocks in 2h delays; final after 6h at the root."""
    parameters = KauriParameters(fanout=fanout, pipeline=pipeline)
    run = world(n, parameters=parameters)
    rounds = 12
    run.advance(2 * levels * DELAY * rounds - 1)
    proposed = {row.block: row.time_ns for row in events(run, ledger.EVENT_PROPOSED)}
    assert len(proposed) == rounds * pipeline
    assert run.run_state[kernel.SENT] == 2 * (n - 1) * rounds * pipeline
    assert {row.time_ns - proposed[row.block] for row in decided(run)[0]} == {6 * levels * DELAY}


def test_shares_are_an_aggregate_as_large_as_its_signers() -> None:
    block = Block(1, 1, 1, 0, None)
    assert Shares(block, 1).size_bytes(Signing(100, 48, "aggregate")) == 48
    assert Shares(block, 9).size_bytes(Signing(100, 48, "aggregate")) == 48 + 48 + 13
    assert Shares(block, 9).size_bytes(Signing(100)) == 48 + 9 * 66
    assert Shares(block, 9).certificates() == (9,)


@pytest.mark.parametrize("node", [0, 1, 3, 6])
def test_a_crashed_root_or_inner_voter_costs_a_tree_and_a_leaf_costs_patience(node: int) -> None:
    run = world(7)
    run.advance(1_005 * MS)
    run.crash(node)
    before = run.run_state[ledger.DECISIONS]
    run.advance(6_000 * MS)
    assert run.run_state[ledger.DECISIONS] > before + 20
    views = {replica(run, other).view for other in range(7) if other != node}
    # With two levels, the subtree of inner voter 1 is three of seven: no quorum without it.
    assert views == ({2} if node in (0, 1) else {1})
    assert agree(run)


def test_voters_leave_a_view_together_however_far_apart_their_timers_are() -> None:
    """Clocks that differ, patience at its bound, all survivors needed: every view begins within two delays."""
    steady = KauriParameters(view_timeout_ns=300 * MS, view_timeout_max_ns=300 * MS, aggregation_timeout_ns=60 * MS)
    run = world(7, parameters=steady, **JITTER)
    for node in range(7):
        run.hosts[node].clock.run_at(0.8 + 0.1 * node)
    run.advance(505 * MS)
    run.crash(0)
    run.crash(4)
    run.advance(6_000 * MS)
    entered: dict[int, list[int]] = {}
    for time, _, _, view, *_ in events(run, ledger.EVENT_VIEW):
        entered.setdefault(view, []).append(time)
    assert [max(times) - min(times) <= 3 * DELAY for times in entered.values()] == [True] * len(entered)
    assert set(entered) == {2, 3, 4}  # a broken tree, a star around a crashed voter, a star
    assert {len(times) for times in entered.values()} == {5}
    assert max(row.time_ns for row in decided(run)[1]) > 5_900 * MS
    assert agree(run)


def test_voters_cut_off_from_the_root_wait_in_its_view() -> None:
    """They wish for the next tree, and are there when others need them: in this view, or to leave it."""
    run = world(13)
    run.advance(505 * MS)
    run.crash(1)  # four below it with itself: f; the nine others go on
    run.advance(10_000 * MS)
    assert {replica(run, node).view for node in range(13) if node != 1} == {1}
    assert {replica(run, node).pacemaker.wishes[node] for node in (4, 5, 6)} == {2}
    run.restart(1)
    run.advance(12_000 * MS)
    assert {replica(run, node).pacemaker.timeout_ns for node in (4, 5, 6)} == {300 * MS}
    run.crash(1)
    run.crash(0)
    run.advance(16_000 * MS)
    assert max(row.time_ns for row in decided(run)[4]) > 15_900 * MS
    assert {replica(run, node).view for node in range(2, 13)} == {2}
    assert agree(run)


@pytest.mark.parametrize(
    ("gray", "views"),
    [
        ((), {1}),
        ((1,), {1}),  # the five others are enough, once inner voters have lost patience
        ((2, 4), {1}),  # inner voters of two trees
        ((1, 2), {1, 2}),
        ((0, 4), {1, 2}),
        ((0, 3), {1, 2, 3, 4}),  # the roots of both trees, and of the first star
    ],
)
def test_voters_that_drop_all_for_their_children_cost_their_trees(gray: tuple[int, ...], views: set[int]) -> None:
    """Gray faults: f at the most vote and speak upwards as if nothing were wrong. The page states the bound."""
    timeout_ns, bins, f = 300 * MS, 2, 2
    silent = [{"src": list(gray), "types": ["Proposal"], "from": "1 s", "until": "6 s", "drop": True}] if gray else []
    protocol = {"name": "kauri", "aggregation_timeout": "60 ms"}
    protocol |= dict.fromkeys(("view_timeout", "view_timeout_max"), "300 ms")
    changes: dict[str, Any] = {"rules": silent, "network.jitter": {"model": "proportional", "up_to": "20 %"}}
    run = play(scenario(7, protocol=protocol, duration="8 s", **changes))
    times = sorted({row.time_ns for row in run.decided()})
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert max(gaps) <= (bins + f + 2) * timeout_ns
    assert {1, *run.views()} == views
    assert {row.node for row in run.decided() if row.time_ns > 7 * S} == set(range(7))
    assert unsafe(run) == []


def test_a_question_to_a_dead_root_keeps_nobody_from_asking_others() -> None:
    """Replica 7 lacks the root's last certified blocks, and all six survivors of eight are needed."""
    protocol = {"name": "kauri", "view_timeout": "300 ms", "view_timeout_max": "300 ms", "aggregation_timeout": "60 ms"}
    missed = [{"types": ["Proposal"], "dst": [7], "from": "500 ms", "until": "600 ms", "drop": True}]
    faults = [{"at": "600 ms", "crash": {"nodes": [0, 2]}}]
    run = play(scenario(8, protocol=protocol, rules=missed, faults=faults, duration="3 s"))
    assert {row.node for row in run.decided() if row.time_ns > 2.5 * S} == {1, 3, 4, 5, 6, 7}
    assert set(run.views()) == {2}
    assert unsafe(run) == []


def test_late_children_and_a_slow_clock_give_the_same_events_in_the_fast_path() -> None:
    """An inner voter whose clock runs at half the rate waits twice as long for a leaf that is down."""
    seen = []
    for fast_path in (True, False):
        run = world(7, fast_path=fast_path, **JITTER)
        run.hosts[2].clock.run_at(0.5)
        run.advance(500 * MS)
        for leaf in (4, 6):
            run.crash(leaf)
        run.advance(4_000 * MS)
        run.restart(4)
        run.advance(6_000 * MS)
        seen.append((digest(run), decided(run)))
    assert seen[0] == seen[1]
    assert len(seen[0][1][5]) > 100


def test_the_fast_path_does_all_but_the_roots_work() -> None:
    """Also where blocks sent together overtake each other: handlers run only for the share that completes a quorum."""
    calls: list[str] = []

    class Watched(Kauri):
        normal_cases = Kauri.normal_cases

        def on_proposal(self, sender: int, message: Proposal) -> None:
            calls.append("proposal")
            super().on_proposal(sender, message)

        def on_shares(self, sender: int, message: Shares) -> None:
            assert self.context.me == 0
            calls.append("shares")
            super().on_shares(sender, message)

    run = world(13, protocol=Watched, ordered=False, **JITTER)
    run.advance(2_000 * MS)
    blocks = len(events(run, ledger.EVENT_PROPOSED))
    assert "proposal" not in calls
    assert blocks - 3 <= len(calls) <= blocks
    assert run.run_state[ledger.DECISIONS] > 70


@pytest.mark.parametrize("seed", range(3))
def test_a_restarted_replica_votes_for_one_branch_in_order(seed: int) -> None:
    class Noting(Kauri):
        def may_vote(self, block: Block) -> bool:
            votes = super().may_vote(block)
            if votes:
                cast.setdefault((self.context.me, block.view, block.height), set()).add(block.number)
            return votes

    cast: dict[tuple[int, int, int], set[int]] = {}
    run = world(4, protocol=Noting, seed=seed, **JITTER)
    for step in range(12):
        run.advance(run.now_ns + (97 + 61 * seed) * MS)
        run.crash(step % 4)
        run.advance(run.now_ns + 13 * MS)
        run.restart(step % 4)
    run.advance(run.now_ns + 5_000 * MS)
    assert len(cast) > 100
    assert all(len(numbers) == 1 for numbers in cast.values())
    assert agree(run)


def test_chain_rules_stay_within_a_view() -> None:
    run = world(4)
    run.advance(20 * DELAY)
    found = replica(run, 0)
    high = found.high
    assert found.locks(high) is high.block.body
    assert found.commits(high) is high.block.body.block.body.block
    assert found.locks(QC(high.view + 1, high.block, 3)) is None
    assert found.commits(QC(high.view + 1, high.block, 3)) is None
