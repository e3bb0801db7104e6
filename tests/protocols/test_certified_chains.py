"""What the protocols of certified chains have in common: exact laws, signatures, the fast path, trouble, and safety.

One table says how they differ; what only one of them does is tested in its own file.
"""

from __future__ import annotations

import dataclasses
import fractions
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sim.engine import loop
from sim.families.chained.certified import CertifiedChain
from sim.host import Run
from sim.kernel import run_state as kernel
from sim.ledger import rows as ledger
from sim.protocols.hotstuff import HotStuff, HotStuffParameters
from sim.protocols.hotstuff_2 import HotStuff2, HotStuff2Parameters
from sim.protocols.hotstuff_basic import HotStuffBasic, HotStuffBasicParameters
from sim.protocols.jolteon import Jolteon, JolteonParameters
from sim.protocols.kauri import Kauri, KauriParameters
from tests import chains
from tests.chains import (
    CASES,
    DELAY,
    JITTER,
    MS,
    agree,
    both_paths,
    decided,
    equal_delays,
    events,
    lossy_crashes,
    replica,
)
from tests.runs import play, scenario

BRIEF = {"view_timeout_ns": 150 * MS, "view_timeout_max_ns": 1_200 * MS}


@dataclasses.dataclass(frozen=True)
class Chain:
    """One protocol. Delays are one-way, all equal; `leader(view, n)` learns first that the block of a view is final."""

    name: str
    protocol: type[CertifiedChain]
    parameters: Callable[..., Any]
    proposal: str  # name of the message with the block
    period: int = 2  # delays from block to block; as many times n - 1 messages
    final: int = 4  # delays until the first knows that a block is final; the others one more
    first: Callable[[int], int] = lambda view: view  # whose view the first is the leader of
    certificates: int = 1  # in a proposal
    keeps: tuple[str, ...] = ("high",)  # what a restart leaves as it was
    brief: dict[str, int] = dataclasses.field(default_factory=lambda: BRIEF)

    def world(self, n: int, **more: Any) -> Run:
        """A started run; `parameters` may be given as keywords of the protocol's."""
        given = more.pop("parameters", {})
        return chains.world(n, more.pop("protocol", self.protocol), self.parameters(**given), **more)


TURNS = (
    Chain(
        "hotstuff", HotStuff, HotStuffParameters, "Proposal", final=6, first=lambda view: view + 3,
        keeps=("voted_view", "voted"),
    ),
    Chain(
        "hotstuff-basic", HotStuffBasic, HotStuffBasicParameters, "Prepare", period=8, final=6,
        keeps=("stage", "high", "locked"),
    ),
    Chain(
        "jolteon", Jolteon, JolteonParameters, "Proposal", first=lambda view: view + 2, keeps=("voted_view", "high")
    ),
    Chain(
        "hotstuff-2", HotStuff2, HotStuff2Parameters, "Propose", period=4, first=lambda view: view + 1, certificates=2,
        keeps=("voted_view", "confirmed_view"), brief=BRIEF | {"delta_ns": 40 * MS},
    ),
)  # fmt: skip
KAURI = Chain(
    "kauri", Kauri, KauriParameters, "Proposal",
    brief={"view_timeout_ns": 300 * MS, "view_timeout_max_ns": 1_200 * MS, "aggregation_timeout_ns": 60 * MS},
)  # fmt: skip
ALL = (*TURNS, KAURI)

in_turns = pytest.mark.parametrize("chain", TURNS, ids=lambda chain: chain.name)
every = pytest.mark.parametrize("chain", ALL, ids=lambda chain: chain.name)


# --- laws ------------------------------------------------------------------------------------------------


@in_turns
@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("n", [4, 5, 7, 31])
def test_messages_period_and_latency_follow_the_laws(chain: Chain, n: int, fast_path: bool) -> None:
    """A message to or from the leader and voters per delay; final first at the leader that completes the proof."""
    run = chain.world(n, fast_path=fast_path)
    blocks, period = 60, chain.period
    assert run.advance(period * DELAY * blocks - 1) == loop.UNTIL
    proposed = {row.block: row for row in events(run, ledger.EVENT_PROPOSED)}
    assert len(proposed) == blocks
    assert run.run_state[kernel.SENT] == period * (n - 1) * blocks
    for view, row in enumerate(proposed.values(), 1):
        assert (row.time_ns, row.node, row.height, row.view) == (period * DELAY * (view - 1), view % n, view, view)
    rows = decided(run)
    for node in range(n):
        assert len(rows[node]) >= blocks - 4
        for row in rows[node]:
            delays = chain.final + (node != chain.first(row.view) % n)
            assert row.time_ns - proposed[row.block].time_ns == delays * DELAY


def period_ns(chain: Chain, latency: np.ndarray, old: int, new: int, q: int) -> int:
    """From one proposal to the next with unequal delays: order statistics of the ways to the voters and back."""
    back = sorted(int(latency[old, i] + latency[i, old]) for i in range(len(latency)))[q - 1]
    on = sorted(int(latency[old, i] + latency[i, new]) for i in range(len(latency)))[q - 1]
    if chain.period == 2:
        return max(on, int(latency[old, new]))  # the next leader must have the block itself
    return (chain.period // 2 - 1) * back + on


@in_turns
@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_unequal_delays_make_the_period_a_sum_of_order_statistics(chain: Chain, seed: int, fast_path: bool) -> None:
    n, q = 7, 5
    latency = np.random.default_rng(seed).integers(1 * MS, 40 * MS, (n, n))
    np.fill_diagonal(latency, 0)
    run = chain.world(n, latency_ns=latency, fast_path=fast_path)
    run.advance(6_000 * MS)
    times = [row.time_ns for row in events(run, ledger.EVENT_PROPOSED)]
    assert len(times) > 20
    for view, (before, after) in enumerate(itertools.pairwise(times), 1):
        assert after - before == period_ns(chain, latency, view % n, (view + 1) % n, q)


@every
def test_scaling_delays_scales_time(chain: Chain) -> None:
    ends = []
    for k in (1, 3):
        run = chain.world(4, latency_ns=equal_delays(4, k * DELAY), stop_after=50)
        assert run.advance(1 << 60) == loop.STOP
        ends.append(run.now_ns)
    assert ends[1] == 3 * ends[0]


@pytest.mark.parametrize("chain", [one for one in TURNS if one.period == 2], ids=lambda chain: chain.name)
def test_an_idle_chain_waits_for_transactions_but_not_for_ever(chain: Chain) -> None:
    """No transactions: with `empty_block_delay` a block that often, else one every two delays."""
    counts = []
    for delay in (0, 100 * MS):
        run = chain.world(
            4, parameters={"empty_block_delay_ns": delay}, backlog_bytes=0, gateways=1,
            site_of=np.array([0, 1, 2, 3, 0]), latency_ns=equal_delays(4),
        )  # fmt: skip
        run.advance(12_000 * MS - 1)
        counts.append(len(events(run, ledger.EVENT_PROPOSED)))
    assert counts == [600, 100]


# --- signatures ------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("kind", ["list", "aggregate", "threshold"])
def test_a_proposal_is_as_large_and_as_slow_to_verify_as_its_certificates(chain: Chain, kind: str) -> None:
    """BLS signatures of seven voters, five in a certificate: listed, aggregated, or combined into one."""
    chosen = scenario(
        7, protocol=chain.name, duration="2 s", trace="messages",
        **{"cpu.crypto": "bls12-381", "cpu.certificates": kind, "cpu.cores": 8, "block.max_transactions": 1},
    )  # fmt: skip
    run = play(chosen)
    world = run.world.run
    signature, verify_ns, add_ns = world.costs.signature_bytes, world.costs.verify_ns, world.costs.add_ns
    assert (signature, add_ns) == (96, 1_200)
    size, time_ns = {
        "list": (5 * (96 + 2), 5 * verify_ns),  # two bytes name a signer
        "aggregate": (96 + 1, verify_ns + 5 * add_ns),  # a bit per voter
        "threshold": (96, verify_ns),
    }[kind]
    proposals = run.log[run.log[:, 3] == world.names.index(chain.proposal)]
    whole = proposals[proposals[:, 9] == proposals[:, 9].max()]  # the first of all carry no certificate
    assert len(whole) > 0.8 * len(proposals)
    assert set(whole[:, 9]) == {48 + 512 + chain.certificates * (48 + size) + signature}
    assert set(whole[:, 7] - whole[:, 6]) == {verify_ns + chain.certificates * time_ns}


# --- the fast path ---------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("n", [4, 7])
@pytest.mark.parametrize("case", CASES)
def test_fast_path_and_handlers_give_the_same_events(chain: Chain, n: int, case: str) -> None:
    """Fast path on and off: the same events at the same nanosecond, whatever goes wrong meanwhile."""
    fast, slow = both_paths(n, chain.protocol, chain.parameters(**chain.brief), case)
    assert fast == slow


@in_turns
def test_the_fast_path_waits_before_a_proposal_as_the_handlers_do(chain: Chain) -> None:
    waits = chain.brief | {"min_block_delay_ns": 3 * MS}
    fast, slow = both_paths(4, chain.protocol, chain.parameters(**waits), "jitter")
    assert fast == slow


# --- trouble ---------------------------------------------------------------------------------------------

_BEE_GEES = {  # n, crashed: three-chain and two-chain
    (4, (3,)): ("0", "1/4"),
    (5, (4,)): ("1/5", "2/5"),
    (6, (5,)): ("2/6", "3/6"),
    (7, (6,)): ("3/7", "4/7"),
    (7, (5, 6)): ("2/7", "3/7"),
    (7, (3, 6)): ("0", "1/7"),
    (10, (9,)): ("6/10", "7/10"),
    (10, (7, 8, 9)): ("4/10", "5/10"),
    (10, (3, 6, 9)): ("0", "1/10"),
    (13, (9, 10, 11, 12)): ("6/13", "7/13"),
    (13, (3, 6, 9, 12)): ("0", "1/13"),
}


@pytest.mark.parametrize(("n", "crashed"), _BEE_GEES)
@pytest.mark.parametrize("links", [3, 2])
def test_crashed_leaders_cost_commits_as_published(n: int, crashed: tuple[int, ...], links: int) -> None:
    """Giridharan et al., BeeGees (arXiv 2205.11652): commits per view, round-robin leaders, 3-chain and 2-chain."""
    protocol, parameters = ((Jolteon, JolteonParameters), (HotStuff, HotStuffParameters))[links - 2]
    even = parameters(view_timeout_ns=100 * MS, view_timeout_max_ns=100 * MS)
    published = fractions.Fraction(_BEE_GEES[n, crashed][3 - links])
    assert chains.commits_per_view(n, set(crashed), protocol, even) == published


@every
@pytest.mark.parametrize("node", [0, 3, 6])
def test_progress_resumes_after_a_crash_and_all_catch_up_after_a_restart(chain: Chain, node: int) -> None:
    run = chain.world(7)
    run.advance(1_005 * MS)
    run.crash(node)
    before = run.run_state[ledger.DECISIONS]
    run.advance(31_000 * MS)
    assert run.run_state[ledger.DECISIONS] > before + 10
    run.restart(node)
    run.advance(40_000 * MS)
    heights = [host.height for host in run.hosts]
    assert max(heights) - min(heights) <= (1 if chain is not KAURI else KauriParameters().pipeline)
    assert agree(run)
    if chain is not KAURI:  # all is normal again, so that the fast path works; Kauri goes on with another tree
        before = run.run_state[ledger.DECISIONS]
        run.advance(run.now_ns + 100 * chain.period * DELAY)
        assert run.run_state[ledger.DECISIONS] - before == 100


@every
@pytest.mark.parametrize("groups", [({0, 1}, {2, 3}), ({0}, {1, 2, 3}), ({0, 2}, {1, 3})])
def test_a_partition_heals(chain: Chain, groups: tuple[set[int], set[int]]) -> None:
    run = chain.world(4, links_change=True)
    run.advance(500 * MS)
    pairs = list(itertools.product(*groups))
    for a, b in pairs:
        run.cut(a, b)
    run.advance(60_000 * MS)
    alone = [host.height for host in run.hosts]
    for a, b in pairs:
        run.heal(a, b)
    run.advance(run.now_ns + 2 * chain.parameters().view_timeout_max_ns)
    assert min(host.height for host in run.hosts) > max(alone) + 50
    assert agree(run)


@every
@pytest.mark.parametrize("seed", range(24))
def test_agreement_and_progress_with_jitter_loss_and_crashes(chain: Chain, seed: int) -> None:
    """f crashed replicas come back one by one, datagrams are lost until then: no two decisions, then progress."""
    run = lossy_crashes((4, 7, 5, 10)[seed % 4], seed, chain.protocol, chain.parameters(**chain.brief))
    before = run.run_state[ledger.DECISIONS]
    run.advance(14_000 * MS)
    assert run.run_state[ledger.DECISIONS] > before + 20
    assert agree(run)
    heights = [host.height for host in run.hosts]
    assert max(heights) - min(heights) <= (1 if chain is not KAURI else KauriParameters().pipeline)


# --- safety ----------------------------------------------------------------------------------------------


def noting(protocol: type[CertifiedChain], cast: dict[tuple[int, int], set[int]]) -> type[CertifiedChain]:
    """The protocol, and every vote that a handler casts is noted; the fast path stays open."""

    class Noting(protocol):  # type: ignore[misc, valid-type]
        normal_cases = protocol.normal_cases

        def may_vote(self, block: Any, *more: Any) -> bool:
            votes = super().may_vote(block, *more)
            if votes:
                cast.setdefault((self.context.me, block.view), set()).add(block.number)
            return bool(votes)

    return Noting


@in_turns
@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_a_restarted_replica_never_votes_twice_and_keeps_its_locks(chain: Chain, seed: int, fast_path: bool) -> None:
    cast: dict[tuple[int, int], set[int]] = {}
    run = chain.world(
        4, protocol=noting(chain.protocol, cast), fast_path=fast_path, seed=seed, parameters=chain.brief, **JITTER
    )
    chance = np.random.default_rng(seed)
    for _ in range(20):
        run.advance(run.now_ns + int(chance.integers(1, 400 * MS)))
        node = int(chance.integers(4))
        before = replica(run, node)
        run.crash(node)
        if chance.random() < 0.5:
            run.advance(run.now_ns + int(chance.integers(1, 900 * MS)))
        run.restart(node)
        after = replica(run, node)
        assert [getattr(after, name) for name in chain.keeps] == [getattr(before, name) for name in chain.keeps]
        for lock in {"locked", "high"} & set(dir(after)):
            assert getattr(after, lock).view >= getattr(before, lock).view
    run.advance(run.now_ns + 5_000 * MS)
    assert all(len(numbers) == 1 for numbers in cast.values())
    assert agree(run)
    assert run.run_state[ledger.DECISIONS] > 30


@in_turns
def test_a_restarted_leader_does_not_propose_twice_in_a_view(chain: Chain) -> None:
    """Whatever comes late and would let it lead: a certificate, NEW-VIEW messages, blocks that it asked for."""
    run = chain.world(4, parameters=chain.brief)
    run.advance(40 * DELAY)
    *_, (_, _, node, _, _, view, *_) = events(run, ledger.EVENT_PROPOSED)
    run.crash(node)
    run.restart(node)
    back = replica(run, node)
    back.view = view
    back.lead(view)
    assert [row.view for row in events(run, ledger.EVENT_PROPOSED)].count(view) == 1


@in_turns
def test_too_small_a_quorum_is_seen_to_split(chain: Chain) -> None:
    """A plain partition, and half of the votes for a certificate: `agree` can fail."""

    class Weak(chain.protocol):  # type: ignore[misc, name-defined]
        def quorum(self) -> int:
            return self.context.n // 2

    run = chain.world(8, protocol=Weak, links_change=True, parameters=chain.brief)
    for a, b in itertools.product(range(4), range(4, 8)):
        run.cut(a, b)
    run.advance(10_000 * MS)
    assert not agree(run)


@every
def test_check_names_value_rule_and_remedy(chain: Chain) -> None:
    chain.protocol.check(chain.parameters(), 4)
    with pytest.raises(ValueError, match=r"faults: 2 needs n >= 3f \+ 1 = 7 voters, not 6; lower faults"):
        chain.protocol.check(chain.parameters(faults=2), 6)
    with pytest.raises(ValueError, match="view_timeout_max: 1 ns"):
        chain.protocol.check(chain.parameters(view_timeout_max_ns=1), 4)
    if chain is not KAURI:
        with pytest.raises(ValueError, match="raise view_timeout"):
            chain.protocol.check(chain.parameters(min_block_delay_ns=2_000 * MS), 4)
