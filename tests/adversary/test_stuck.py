"""Of which kind a liveness failure is, what each replica waits for, and who stays behind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sim.check.lasso import Loop
from sim.check.liveness import Decisions, behind
from sim.check.stuck import Moves, failure
from sim.check.verdict import Violation
from sim.ledger import rows as ledger
from sim.protocol import Ballot, upon
from sim.protocols.pbft import COMMIT, PREPARE, Executed, Fetch, Pbft
from sim.protocols.raft import Raft
from tests.runs import S, play, scenario

CALM = {"duration": "40 s", "liveness_bound": "10 s"}


def rows(*facts: tuple[int, int, int, int, int], txs: int = 1) -> np.ndarray:
    """Trace rows of (time, event, node, block or view, height)."""
    return np.array([[*fact, 0, txs, 0] for fact in facts], dtype=np.int64)


def stuck(**changes: object) -> Violation:
    """The only violation of a run that is not live."""
    protocol = changes.pop("protocol_class", None)
    found = play(scenario(**{**CALM, **changes}), protocol=protocol).verdict().violations  # type: ignore[arg-type]
    assert [violation.kind for violation in found] == ["liveness"]
    return found[0]


class Deaf(Pbft):
    """Nobody ever commits, and nobody has a timer."""

    @upon(PREPARE)
    def on_prepared(self, ballot: Ballot) -> None:
        """Casts no COMMIT."""

    def start(self) -> None:
        super().start()
        self.context.clock.watch_progress(0)


class OneCommits(Deaf):
    """Replica 0 alone commits."""

    @upon(PREPARE)
    def on_prepared(self, ballot: Ballot) -> None:
        if self.context.me == 0:
            Pbft.on_prepared(self, ballot)


class Restless(Pbft):
    """Nobody ever commits; views go by."""

    @upon(COMMIT)
    def on_committed(self, ballot: Ballot) -> None:
        """Decides nothing."""


def test_where_nothing_moves_it_is_a_halt_and_each_says_whose_votes_it_lacks() -> None:
    found = stuck(protocol_class=Deaf, corrupted=[{"nodes": [3], "behaviour": "silent"}])
    assert found.check == "halt"
    assert "halt: no correct replica has entered a view or proposed anything since" in found.evidence
    assert len(found.waits) == 3, "a line for each correct one"
    assert found.waits[0] == (
        "replica 0: height 0, view 0; primary 0; PREPARE for block 1, height 1, view 0 is complete; no timer runs"
    )


def test_votes_that_are_lacking_are_counted_and_those_who_owe_them_named() -> None:
    found = stuck(protocol_class=OneCommits, corrupted=[{"nodes": [3], "behaviour": "silent"}])
    lack = "COMMIT for block 1, height 1, view 0: 1 of 3 votes, none from 1, 2, 3 (corrupted)"
    assert found.waits[0] == f"replica 0: height 0, view 0; primary 0; {lack}; no timer runs"


def test_a_halt_is_no_livelock_and_says_nothing_of_one() -> None:
    outcomes = play(scenario(**CALM), protocol=Deaf).verdict().outcomes  # type: ignore[arg-type]
    assert (outcomes["liveness"], outcomes["halt"], outcomes["livelock"]) == ("fail", "fail", "not applicable")
    assert outcomes["behind"] == "not applicable"


@pytest.mark.parametrize(("n", "timeout"), [(4, "1 s"), (4, "4 s"), (7, "500 ms")])
def test_timers_that_double_do_not_hide_a_livelock(n: int, timeout: str) -> None:
    """Views become rare: each is looked at as it begins, not when somebody happens to look."""
    quick = {"name": "pbft", "request_timeout": timeout}
    found = stuck(n=n, protocol_class=Restless, protocol=quick, duration="60 s")
    assert found.check == "livelock", found.evidence
    assert len(found.waits) == n


def test_a_run_that_works_is_neither() -> None:
    outcomes = play(scenario(duration="2 s", liveness_bound="1 s")).verdict().outcomes
    assert [outcomes[name] for name in ("liveness", "halt", "livelock", "behind")] == ["pass"] * 4


def test_standing_still_is_much_longer_than_any_pause_before() -> None:
    moves = Moves(4)
    assert moves.stand_still(0, 5)
    moves(
        rows((10, ledger.EVENT_VIEW, 1, 1, 0), (20, ledger.EVENT_PROPOSED, 2, 7, 1), (40, ledger.EVENT_VIEW, 2, 2, 0))
    )
    moves(rows((90, ledger.EVENT_VIEW, 4, 2, 0), (95, ledger.EVENT_DECIDED, 2, 2, 0)))  # an observer, and no move
    assert not moves.stand_still(0, 120)
    assert moves.stand_still(0, 121)
    assert moves.stand_still(50, 51)


def test_decisions_that_are_rare_are_slow_and_a_loop_counts_only_where_something_moves() -> None:
    moves, loop = Moves(4), Loop(1, 4, 4)
    assert failure(loop, moves, 100, 140, [10, 10, 10]) == "slow"
    assert failure(loop, moves, 100, 141, [10, 10, 10]) == "halt"
    moves(rows((110, ledger.EVENT_VIEW, 1, 1, 0), (130, ledger.EVENT_VIEW, 1, 2, 0)))
    assert failure(loop, moves, 100, 160, [10]) == "livelock"
    assert failure(None, moves, 100, 160, [10]) == "slow"


class Slothful(Pbft):
    """Replica 3 asks nobody for what it has missed, and does not listen."""

    @upon(Executed)
    def on_executed(self, sender: int, message: Executed) -> None:
        """Replica 3 throws it away."""
        if self.context.me != 3:
            super().on_executed(sender, message)

    @upon(Fetch)
    def on_fetch(self, sender: int, message: Fetch) -> None:
        """Nobody answers."""


def test_a_linked_replica_that_stays_behind_is_named() -> None:
    away = [{"at": "2 s", "for": "3 s", "crash": {"nodes": [3]}}]
    whole = play(scenario(**CALM, faults=away)).verdict()  # type: ignore[arg-type]
    assert whole.violations == []
    found = play(scenario(**CALM, faults=away), protocol=Slothful).verdict().violations  # type: ignore[arg-type]
    assert [(violation.check, violation.node) for violation in found] == [("behind", 3)]
    assert "replica 3 runs, is linked and has decided nothing since" in found[0].evidence


def test_behind_counts_from_the_later_of_link_decision_and_the_block_above() -> None:
    decisions = Decisions(3)
    decisions(
        rows(
            (10, ledger.EVENT_DECIDED, 0, 1, 1),
            (12, ledger.EVENT_DECIDED, 1, 1, 1),
            (50, ledger.EVENT_DECIDED, 0, 2, 2),
        )
    )
    decisions(
        rows(
            (60, ledger.EVENT_DECIDED, 1, 2, 2),
            (60, ledger.EVENT_DECIDED, 2, 1, 1),
            (70, ledger.EVENT_DECIDED, 0, 3, 3),
        )
    )
    heights, linked = {0: 3, 1: 2, 2: 1}, {0: 0, 1: 0, 2: 0}
    assert decisions.missing_since_ns(0, 3) is None
    assert (decisions.missing_since_ns(1, 2), decisions.missing_since_ns(2, 1)) == (70, 60)
    assert [found.node for found in behind(decisions, heights, linked, 161, 90)] == [1, 2]
    assert [found.node for found in behind(decisions, heights, linked, 160, 90)] == [2]
    assert behind(decisions, heights, {0: 0, 1: 100}, 161, 90) == []


def test_who_lacks_empty_blocks_alone_is_not_behind() -> None:
    decisions = Decisions(2)
    decisions(rows((10, ledger.EVENT_DECIDED, 0, 1, 1), (10, ledger.EVENT_DECIDED, 1, 1, 1)))
    decisions(rows((20, ledger.EVENT_DECIDED, 0, 2, 2), txs=0))
    assert decisions.missing_since_ns(1, 1) is None
    decisions(rows((30, ledger.EVENT_DECIDED, 0, 3, 3)))
    assert decisions.missing_since_ns(1, 1) == 30


def test_who_is_far_behind_is_judged_by_the_oldest_height_that_is_remembered() -> None:
    decisions, kept = Decisions(2), 1 << 14
    for height in range(1, kept + 101):
        decisions(rows((10 * height, ledger.EVENT_DECIDED, 0, height, height)))
    assert decisions.missing_since_ns(1, 0) == 10 * 101, "since 10 in truth"
    assert decisions.missing_since_ns(1, kept) == 10 * (kept + 1)


def test_a_learner_or_a_voter_cut_off_is_not_behind() -> None:
    cut = [{"at": "2 s", "cut_link": {"between": [3, other]}} for other in (0, 1, 2)]
    assert play(scenario(**CALM, faults=cut)).verdict().violations == []  # type: ignore[arg-type]
    one_way = play(scenario(5, protocol="raft", **CALM, faults=[  # type: ignore[arg-type]
        {"at": "2 s", "partition": {"groups": [[0, 1, 2], [3, 4]]}}]), protocol=Raft)  # fmt: skip
    assert one_way.verdict().violations == []
    assert one_way.now_ns == 40 * S


def test_a_chain_that_grows_for_ever_without_a_commit_goes_in_a_circle() -> None:
    """Chained HotStuff, one silent leader of four: 0 commits per view (arXiv 2205.11652), blocks without end."""
    silent = [{"nodes": [1], "behaviour": "silent"}]
    quick = {"name": "hotstuff", "view_timeout": "100 ms"}
    found = stuck(protocol=quick, corrupted=silent, duration="40 s")
    assert found.check == "livelock", found.evidence


def elects_for_ever(duration: str, **changes: object) -> Any:
    """A run, far shorter than the bound, whose candidates give up before any vote can come back."""
    raft = {
        "name": "raft",
        "election_timeout_low": "40 ms",
        "election_timeout_high": "60 ms",
        "heartbeat_interval": "5 ms",
    }
    return play(
        scenario(
            4, protocol=raft, network={"nodes": 4, "latency": {"model": "fixed", "one_way": "50 ms"}},
            duration=duration, liveness_bound="1 min", **changes,
        )
    ).verdict()  # fmt: skip


def test_a_run_shorter_than_the_bound_fails_after_enough_views_in_vain() -> None:
    verdict = elects_for_ever("5 s")
    (found,) = verdict.violations
    assert found.check == "livelock" and "for 34 views" in found.evidence
    assert len(found.waits) == 4
    assert 1e9 < found.time_ns < 4e9


def test_a_few_views_in_vain_and_views_that_nobody_asked_for_are_no_failure() -> None:
    few = elects_for_ever("400 ms")
    assert not few.violations and any("nothing was decided" in warning for warning in few.warnings)
    steps = [{"rate": "0 tx/s", "for": "4900 ms"}, {"rate": "100 tx/s", "for": "100 ms"}]
    late = [{"kind": "open", "bytes": "100 B", "steps": steps}]
    assert not elects_for_ever("5 s", workload=late).violations
