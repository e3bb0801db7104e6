"""Raft, as conversations: elect, replicate, crash, cut, heal; and the laws of fault-free runs, to the ns."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from sim.engine import loop
from sim.engine.settings import Settings
from sim.families.raft.catchup import Catchup
from sim.families.raft.rpc import RequestVote
from sim.families.raft.server import Role
from sim.host import Costs, Run
from sim.kernel import chance, post
from sim.kernel import run_state as kernel
from sim.ledger import rows as ledger
from sim.protocol import Block, Context
from sim.protocols.raft import Raft, RaftParameters
from sim.scenario.errors import ScenarioError
from sim.scenario.run import run as run_scenario
from tests.runs import S, begin, play, scenario, unsafe

MS = 1_000_000


class Lab:
    """A run of Raft whose trace is kept. Times in ms; backlog: the leader always has transactions."""

    def __init__(
        self,
        n: int,
        *,
        seed: int = 1,
        one_way_ms: float | np.ndarray = 10,
        jitter: float = 0.0,
        fast_path: bool = True,
        persist_ns: int = 0,
        protocol: type[Raft] = Raft,
        block_interval_ms: int = 0,
        stop_after: int = 0,
        **parameters: Any,
    ) -> None:
        latency = np.asarray(np.ones((n, n)) * one_way_ms * MS).astype(np.int64)
        np.fill_diagonal(latency, 0)
        settings = Settings(
            voters=n, gateways=0, seed=seed, site_of=np.arange(n), latency_ns=latency,
            tx_ps_per_byte=np.zeros(n, np.int64), rx_ps_per_byte=np.zeros(n, np.int64),
            jitter_mode=post.PROPORTIONAL_JITTER if jitter else post.NO_JITTER,
            jitter_span=int(jitter * 2**20), block_txs=1, backlog_bytes=500, links_change=True,
            stop_after=stop_after, events_max=20_000_000,
            still_max=100_000,
        )  # fmt: skip
        values = {key if key in RaftParameters.model_fields else f"{key}_ns": v for key, v in parameters.items()}
        self.run = Run(
            protocol, RaftParameters(**values), settings, Costs(persist_ns=persist_ns),
            block_interval_ns=block_interval_ms * MS, fast_path=fast_path,
        )  # fmt: skip
        self.n = n
        self.rows: list[np.ndarray] = []
        self.run.trace_sinks.append(self.rows.append)
        self.run.start()

    def advance(self, for_ms: float) -> None:
        """Let time pass; nothing may end the run early."""
        assert self.run.advance(self.run.now_ns + int(for_ms * MS)) in (loop.UNTIL, loop.STOP)

    def server(self, node: int) -> Raft:
        """A server brought up to date with its fast path."""
        replica = self.run.hosts[node].replica
        assert isinstance(replica, Raft)
        replica.absorb_fast_path()
        return replica

    def leader(self) -> int:
        """The leader of the highest term among those that run."""
        up = [node for node in range(self.n) if self.run.is_up(node)]
        leaders = [node for node in up if self.server(node).role is Role.LEADER]
        return max(leaders, key=lambda node: self.server(node).term)

    def until_elected(self) -> int:
        """Let time pass until somebody leads."""
        for _ in range(1000):
            if any(self.server(v).role is Role.LEADER for v in range(self.n) if self.run.is_up(v)):
                return self.leader()
            self.advance(10)
        raise AssertionError("nobody was elected within 10 s")

    def events(self, kind: int) -> list[tuple[int, int, int, int, int]]:
        """(time, node, block, height, view) of all events of a kind."""
        self.run.flush_trace()
        rows = np.concatenate(self.rows) if self.rows else np.zeros((0, ledger.TRACE_WIDTH), np.int64)
        return [tuple(row) for row in rows[rows[:, 1] == kind][:, [0, 2, 3, 4, 5]].tolist()]

    def decided(self) -> dict[int, int]:
        """Height -> block; asserts that no two servers decided differently, and none skipped a height."""
        chain: dict[int, int] = {}
        tips = [0] * self.n
        for _, node, block, height, _ in self.events(ledger.EVENT_DECIDED):
            assert chain.setdefault(height, block) == block, f"two blocks decided at height {height}"
            assert height == tips[node] + 1
            tips[node] = height
        return chain

    def proposers(self) -> dict[int, set[int]]:
        """Term -> servers that proposed in it."""
        found: dict[int, set[int]] = {}
        for _, node, _, _, view in self.events(ledger.EVENT_PROPOSED):
            found.setdefault(view, set()).add(node)
        return found

    def cut_off(self, *some: int) -> None:
        """Separate some servers from the rest."""
        for a, b in itertools.product(some, set(range(self.n)) - set(some)):
            self.run.cut(a, b)

    def heal(self) -> None:
        """Mend all links."""
        for a, b in itertools.permutations(range(self.n), 2):
            self.run.heal(a, b, both=False)

    @property
    def order(self) -> int:
        """Digest of all events in their order."""
        return int(self.run.run_state[kernel.DIGEST_ORDER])


def sent(lab: Lab, name: str) -> int:
    """Messages of a type sent so far."""
    counts = lab.run.engine.run_state[kernel.KIND_COUNT].reshape(-1, post.KIND_WIDTH)
    return int(counts[lab.run.names.index(name), post.COUNT_SENT])


# --- laws of fault-free runs ----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 5, 7])
def test_a_decision_costs_2_n_minus_1_messages_and_two_delays(n: int) -> None:
    lab = Lab(n, one_way_ms=7)
    lab.advance(3000)
    decisions = len(lab.decided())
    assert decisions > 150
    under_way = 1
    assert sent(lab, "AppendEntries") == (decisions + under_way) * (n - 1)
    assert 0 <= sent(lab, "AppendEntries") - sent(lab, "ACK") <= n - 1
    assert sent(lab, "Heartbeat") == 0, "a leader that sends entries needs no heartbeats"
    leader = lab.leader()
    proposed = {block: time for time, _, block, _, _ in lab.events(ledger.EVENT_PROPOSED)}
    for time, node, block, _, _ in lab.events(ledger.EVENT_DECIDED):
        if node == leader:
            assert time - proposed[block] == 14 * MS


@pytest.mark.parametrize("n", [3, 5, 7])
def test_a_leader_commits_at_the_quorum_of_round_trips(n: int) -> None:
    delays = np.array([[2 + chance.draw(a, b) % 20 for b in range(n)] for a in range(n)])
    lab = Lab(n, one_way_ms=delays)
    lab.advance(3000)
    leader = lab.leader()
    round_trips = sorted(int(delays[leader, i] + delays[i, leader]) for i in range(n) if i != leader)
    expected = round_trips[n // 2 - 1] * MS  # the leader itself and the fastest floor(n/2) others
    proposed = {block: time for time, _, block, _, _ in lab.events(ledger.EVENT_PROPOSED)}
    times = {time - proposed[block] for time, node, block, _, _ in lab.events(ledger.EVENT_DECIDED) if node == leader}
    assert times == {expected}


@pytest.mark.parametrize("n", [1, 2])
def test_one_and_two_servers_decide(n: int) -> None:
    lab = Lab(n, block_interval_ms=10)
    lab.advance(1000)
    assert len(lab.decided()) > 20


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("pipeline", [1, 4])
@pytest.mark.parametrize("interval", [0, 100])
def test_the_fast_path_changes_nothing(n: int, pipeline: int, interval: int) -> None:
    def run(fast_path: bool) -> Lab:
        lab = Lab(n, jitter=0.3, fast_path=fast_path, pipeline=pipeline, block_interval_ms=interval)
        lab.advance(1500)
        first = lab.leader()
        lab.run.crash(first)
        lab.advance(1500)
        lab.run.restart(first)
        lab.advance(1000)
        other = (lab.leader() + 1) % n
        lab.cut_off(other)
        lab.advance(1000)
        lab.heal()
        lab.advance(3000)
        return lab

    with_it, without = run(True), run(False)
    assert with_it.decided() == without.decided()
    assert with_it.order == without.order
    assert len(with_it.decided()) > (60 if interval else 200)


def test_disks_write_in_parallel() -> None:
    lab = Lab(3, one_way_ms=7, persist_ns=3 * MS)
    lab.advance(2000)
    proposed = {block: time for time, _, block, _, _ in lab.events(ledger.EVENT_PROPOSED)}
    leader = lab.leader()
    times = {time - proposed[block] for time, node, block, _, _ in lab.events(ledger.EVENT_DECIDED) if node == leader}
    assert times == {17 * MS}


def test_the_fast_path_changes_nothing_with_slow_disks() -> None:
    def run(fast_path: bool) -> list[tuple[int, int, int, int, int]]:
        lab = Lab(3, seed=2, one_way_ms=5, jitter=0.4, persist_ns=15 * MS, pipeline=3, fast_path=fast_path)
        random_faults(lab, 2)
        lab.advance(3000)
        return sorted(lab.events(ledger.EVENT_DECIDED))

    assert run(True) == run(False)


# --- elections --------------------------------------------------------------------------------------------


def test_a_leader_is_elected_and_followers_follow() -> None:
    lab = Lab(5)
    leader = lab.until_elected()
    lab.advance(100)
    assert [lab.server(v).known_leader for v in range(5)] == [leader] * 5
    assert lab.run.now_ns < 1000 * MS
    term = lab.server(leader).term
    lab.advance(5000)
    assert lab.leader() == leader
    assert lab.server(leader).term == term, "a healthy leader is not deposed"


def test_a_crashed_leader_is_replaced_and_catches_up() -> None:
    lab = Lab(5, entries_per_append=4)
    first = lab.until_elected()
    lab.advance(500)
    before = dict(lab.decided())
    lab.run.crash(first)
    lab.advance(2000)
    second = lab.leader()
    assert second != first
    after = lab.decided()
    assert all(after[height] == block for height, block in before.items())
    assert len(after) > len(before) + 30
    assert lab.run.hosts[first].height <= len(before)
    lab.run.restart(first)
    lab.advance(1000)
    assert lab.server(first).role is Role.FOLLOWER
    assert lab.leader() == second
    assert lab.run.hosts[first].height >= len(lab.decided()) - 2
    assert sent(lab, "Repair") >= 20 // 4


def test_heartbeats_keep_an_idle_leader_and_spread_its_commit_index() -> None:
    lab = Lab(3, block_interval_ms=10_000)
    leader = lab.until_elected()
    lab.advance(5000)
    assert lab.leader() == leader
    assert [lab.run.hosts[v].height for v in range(3)] == [1, 1, 1], "the term's first entry"
    assert sent(lab, "Heartbeat") == pytest.approx(2 * 5000 / 75, abs=4)


def test_a_restarted_server_does_not_vote_twice_in_a_term() -> None:
    lab = Lab(3)
    leader = lab.until_elected()
    voter = (leader + 1) % 3
    server = lab.server(voter)
    term, voted_for = server.term, server.voted_for
    assert voted_for is not None
    lab.run.crash(voter)
    lab.run.restart(voter)
    assert (lab.server(voter).term, lab.server(voter).voted_for) == (term, voted_for)
    rival = 3 - leader - voter
    before = sent(lab, "VOTE")
    if voted_for != rival:
        lab.server(voter).on_request_vote(rival, RequestVote(term, 1 << 20, term, rival, False))
        assert sent(lab, "VOTE") == before
    lab.server(voter).on_request_vote(rival, RequestVote(term + 1, 1 << 20, term, rival, False))
    assert sent(lab, "VOTE") == before + 1
    assert lab.server(voter).voted_for == rival


def test_a_candidate_with_a_stale_log_is_not_elected() -> None:
    lab = Lab(3)
    leader = lab.until_elected()
    stale, other = (leader + 1) % 3, (leader + 2) % 3
    lab.cut_off(stale)
    lab.advance(1000)
    assert lab.server(stale).role is Role.CANDIDATE
    lab.run.crash(leader)
    lab.heal()
    lab.advance(2000)
    assert lab.leader() == other
    lab.decided()


def test_split_votes_are_resolved() -> None:
    terms = []
    for seed in range(8):
        lab = Lab(
            5,
            seed=seed,
            election_timeout_low=150 * MS,
            election_timeout_high=155 * MS,
            heartbeat_interval=70 * MS,
        )
        terms.append(lab.server(lab.until_elected()).term)
        lab.advance(100)
        assert all(len(nodes) == 1 for nodes in lab.proposers().values())
    assert max(terms) > 4, "timeouts closer together than a message's delay split votes"


# --- partitions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check_quorum", [False, True])
def test_a_minority_makes_no_progress_and_heals(check_quorum: bool) -> None:
    lab = Lab(5, check_quorum=check_quorum)
    old = lab.until_elected()
    lab.advance(300)
    friend = (old + 1) % 5
    lab.cut_off(old, friend)
    at = lab.run.now_ns
    lab.advance(2000)
    majority = [v for v in range(5) if v not in (old, friend)]
    assert (lab.server(old).role is Role.LEADER) == (not check_quorum)
    late = [node for time, node, *_ in lab.events(ledger.EVENT_DECIDED) if time > at + 30 * MS]
    assert set(late) <= set(majority)
    assert len(late) > 100
    proposed_there = [b for _, node, b, _, _ in lab.events(ledger.EVENT_PROPOSED) if node == old][-1]
    lab.heal()
    lab.advance(2000)
    chain = lab.decided()
    assert min(lab.run.hosts[v].height for v in range(5)) >= len(chain) - 2
    if proposed_there not in chain.values():
        assert proposed_there in lab.run.block_store.abandoned or proposed_there not in {
            block.number for block in lab.run.block_store.of_row.values()
        }


def test_pre_vote_spares_a_healthy_leader_the_return_of_a_lonely_server() -> None:
    terms = {}
    for pre_vote in (False, True):
        lab = Lab(3, pre_vote=pre_vote)
        leader = lab.until_elected()
        term = lab.server(leader).term
        lab.cut_off((leader + 1) % 3)
        lab.advance(3000)
        lab.heal()
        lab.advance(1000)
        terms[pre_vote] = lab.server(lab.leader()).term - term
        assert len(lab.decided()) > 100
    assert terms[False] > 5
    assert terms[True] == 0


@pytest.mark.parametrize("options", [{}, {"pre_vote": True, "check_quorum": True}])
def test_partly_linked_servers_disturb_every_leader_without_pre_vote_and_check_quorum(options: dict[str, Any]) -> None:
    """Servers 1 to 3 hear each other, 4 hears only 2, 5 only 3, which leads: 4 cannot win, yet it can disturb."""
    lab = Lab(5, **options)
    _one, two, three, four, five = range(5)
    lab.server(three).on_election_timeout()
    lab.advance(100)
    assert lab.leader() == three
    for lonely, friend in ((four, two), (five, three)):
        for other in set(range(5)) - {lonely, friend}:
            lab.run.cut(lonely, other)
    term, began_ns = lab.server(three).term, lab.run.now_ns
    lab.advance(20_000)
    terms = len({view for time, _, _, _, view in lab.events(ledger.EVENT_PROPOSED) if time > began_ns})
    if options:
        assert (lab.leader(), lab.server(three).term) == (three, term), "one leader, for good"
        assert terms == 1
    else:
        assert lab.server(four).term > term + 50, "terms grow for ever"
        tenure_ms = 20_000 / terms
        assert 75 < tenure_ms < 600, "a leader lasts about one election timeout, 150 to 300 ms"
    assert len(lab.decided()) > (900 if options else 100)


def test_a_leader_that_cannot_hear_keeps_its_followers_unless_it_checks_for_a_quorum() -> None:
    heights = {}
    for check_quorum in (False, True):
        lab = Lab(3, check_quorum=check_quorum)
        leader = lab.until_elected()
        for other in {0, 1, 2} - {leader}:
            lab.run.cut(other, leader, both=False)
        lab.advance(3000)
        heights[check_quorum] = len(lab.decided())
    assert heights[False] < 20 < heights[True]


# --- safety -----------------------------------------------------------------------------------------------


class CountsAnyTerm(Raft):
    """Forgets section 5.4.2: commits entries of earlier terms by counting."""

    def may_commit(self, block: Block) -> bool:
        return True


@pytest.mark.parametrize(("protocol", "safe"), [(Raft, True), (CountsAnyTerm, False)])
def test_figure_8(protocol: type[Raft], safe: bool) -> None:
    """An entry of term 2 reaches a majority in term 4, and can be overwritten all the same."""
    lab = Lab(
        5, protocol=protocol, entries_per_append=1, one_way_ms=1, fast_path=False, block_interval_ms=1_000_000,
        election_timeout_low=1000_000 * MS, election_timeout_high=1000_001 * MS, heartbeat_interval=20 * MS,
    )  # fmt: skip
    run = lab.run
    s1, s2, s3, s4, s5 = range(5)

    def stand(node: int) -> None:
        lab.server(node).on_election_timeout()

    stand(s1)
    lab.advance(100)
    assert [host.height for host in run.hosts] == [1] * 5
    stand(s1)  # (a) term 2: all vote for S1, but its entry reaches only S2
    lab.advance(1.5)
    for node in (s3, s4, s5):
        run.cut(s1, node, both=False)
    lab.advance(2)
    assert [lab.server(v).log.last_index for v in range(5)] == [2, 2, 1, 1, 1]
    run.crash(s1)
    stand(s5)  # (b) term 3: S3 and S4 vote for S5, whose entry reaches nobody
    lab.advance(1.5)
    for node in (s2, s3, s4):
        run.cut(s5, node, both=False)
    lab.advance(2)
    assert lab.server(s5).log.last_index == 2
    run.crash(s5)
    lab.heal()
    run.restart(s1)  # (c) term 4: S1 leads again; S3 gets the entry of term 2, but not yet that of term 4
    stand(s1)
    lab.advance(2.5)
    stand(s1)
    lab.advance(1.5)
    run.cut(s1, s4, both=False)
    lab.advance(4)
    run.cut(s1, s3, both=False)
    lab.advance(1)
    assert lab.server(s1).term == 4
    assert [lab.server(v).log.last_index for v in range(4)] == [3, 3, 2, 1]
    assert run.hosts[s1].height == (1 if safe else 2)
    assert lab.server(s1).commits_its_own() is safe
    run.crash(s1)
    lab.heal()
    run.restart(s5)  # (d) term 5: S5's log ends in term 3, that of S3 in term 2
    for _ in range(2):
        stand(s5)
        lab.advance(4)
    lab.advance(200)
    assert lab.leader() == s5
    if safe:
        assert len(lab.decided()) == 3
    else:
        with pytest.raises(AssertionError, match="two blocks decided at height 2"):
            lab.decided()


class VotesForAnyLog(Raft):
    """Forgets section 5.4.1."""

    def log_is_up_to_date(self, last_index: int, last_term: int) -> bool:
        return True


@pytest.mark.parametrize(("protocol", "safe"), [(Raft, True), (VotesForAnyLog, False)])
def test_the_up_to_date_check_protects_committed_entries(protocol: type[Raft], safe: bool) -> None:
    lab = Lab(3, protocol=protocol, fast_path=False)
    leader = lab.until_elected()
    lab.cut_off((leader + 1) % 3)
    lab.advance(1000)
    lab.run.crash(leader)
    lab.heal()
    stale = (leader + 1) % 3
    while lab.server(stale).role is not Role.LEADER and lab.run.now_ns < 2500 * MS:
        lab.server(stale).on_election_timeout()
        lab.advance(30)
    assert (lab.server(stale).role is Role.LEADER) == (not safe)
    lab.advance(1000)
    if safe:
        lab.decided()
    else:
        with pytest.raises(AssertionError, match="two blocks decided"):
            lab.decided()


# --- parameters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"election_timeout_low_ns": 400 * MS}, "exchange them"),
        ({"heartbeat_interval_ns": 150 * MS}, "half of it"),
    ],
)
def test_impossible_parameters_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Raft.check(RaftParameters(**values), 5)
    Raft.check(RaftParameters(), 5)


# --- figure 16 of the paper: time without a leader -------------------------------------------------------


class NoRepair(Catchup):
    """Leaves the logs of followers as they are."""

    def repair(self, follower: int, first: int, term: int) -> None:
        pass


class LeavesLogsUnequal(Raft):
    """A leader that repairs no log, as if it crashed before it could."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.catchup = NoRepair(context, self.log)


def downtimes_ms(low_ms: int, high_ms: int, trials: int, *, one_way_ms: float, disk_ms: float) -> list[float]:
    """Times from a leader's crash to the next leader's election, ascending.

    The paper's set-up: five servers whose logs all have different lengths; the leader sends heartbeats to all
    at one moment and crashes uniformly within the heartbeat interval, half of `low_ms`.
    """
    found = []
    for trial in range(trials):
        lab = Lab(
            5, seed=trial, one_way_ms=one_way_ms, persist_ns=int(disk_ms * MS), protocol=LeavesLogsUnequal,
            block_interval_ms=1_000_000, heartbeat_interval=low_ms * MS // 2, pipeline=8,
            election_timeout_low=low_ms * MS, election_timeout_high=high_ms * MS,
        )  # fmt: skip
        leader, others = 0, [1, 2, 3, 4]
        lab.server(leader).on_election_timeout()
        lab.advance(3 * one_way_ms + 2 * disk_ms + 1)
        for behind in others[:3]:
            lab.run.cut(leader, behind, both=False)
            server = lab.server(leader)
            block = server.context.new_block(server.log.entry(server.log.last_index), server.term, empty=True)
            assert block is not None
            server.replicate(block)
            lab.advance(one_way_ms + 0.1)
        lab.heal()
        assert lab.leader() == leader
        server = lab.server(leader)
        server.sent_ns = -(1 << 60)
        server.on_heartbeat_due(server.term)
        lab.advance(chance.draw(trial, 16) % (low_ms * MS // 2) / MS)
        lab.run.crash(leader)
        assert len({lab.server(v).log.last_index for v in others}) == 4
        crashed_ns = lab.run.now_ns
        while not any(lab.server(v).role is Role.LEADER for v in others):
            lab.advance(1)
            if lab.run.now_ns - crashed_ns > 15_000 * MS:
                break
        found.append((lab.run.now_ns - crashed_ns) / MS)
    return sorted(found)


@pytest.mark.slow
def test_downtimes_after_a_leader_crash_are_as_measured() -> None:
    """Figure 16. One parameter is fitted, on the first row, then frozen: how soon a RequestVote arrives.

    The paper gives 15 ms for requests and answers together. Half of it, 7.5 ms, splits nearly every vote of
    timeouts 5 ms apart (median 1.4 s here, 287 ms measured), so most of it must follow the arrival: 2.8 ms.
    Tolerance 15 %; the worst of 1,000 trials at 150-200 ms comes out lower than the 513 ms measured: a miss.
    """
    near = downtimes_ms(150, 155, 1000, one_way_ms=2.8, disk_ms=0)
    assert near[500] == pytest.approx(287, rel=0.15)
    wide = downtimes_ms(150, 200, 1000, one_way_ms=2.8, disk_ms=0)
    assert wide[-1] < 513 * 1.15
    never = downtimes_ms(150, 150, 20, one_way_ms=2.8, disk_ms=0)
    assert never[0] > 10_000


# --- any faults -------------------------------------------------------------------------------------------


def random_faults(lab: Lab, seed: int, rounds: int = 12) -> None:
    """Crashes, restarts, cuts and heals at drawn times, then peace."""
    down: set[int] = set()
    for step in range(rounds):
        lab.advance(50 + chance.draw(seed, step, 0) % 400)
        node = chance.draw(seed, step, 1) % lab.n
        what = chance.draw(seed, step, 2) % 4
        if what == 0 and len(down) < (lab.n - 1) // 2 and node not in down:
            lab.run.crash(node)
            down.add(node)
        elif what == 1 and down:
            back = sorted(down)[node % len(down)]
            lab.run.restart(back)
            down.remove(back)
        elif what == 2:
            lab.run.cut(node, (node + 1 + chance.draw(seed, step, 3) % (lab.n - 1)) % lab.n, both=bool(node & 1))
        else:
            lab.heal()
    lab.heal()
    for node in sorted(down):
        lab.run.restart(node)


@pytest.mark.parametrize("seed", range(50))
def test_agreement_under_random_faults(seed: int) -> None:
    options: dict[str, Any] = dict(
        seed=seed, one_way_ms=5, jitter=0.5, pipeline=1 + seed % 4, pre_vote=bool(seed & 4),
        check_quorum=bool(seed & 8), entries_per_append=8 + 56 * (seed & 1),
        block_interval_ms=(seed % 3) * 20,
    )  # fmt: skip
    lab = Lab(3 + 2 * (seed & 1), **options)
    random_faults(lab, seed)
    before = len(lab.decided())
    lab.advance(4000)
    chain = lab.decided()
    assert len(chain) > before + 20, "progress after the last fault"
    assert min(lab.run.hosts[v].height for v in range(lab.n)) >= len(chain) - 5
    assert all(len(nodes) == 1 for nodes in lab.proposers().values()), "one leader per term"
    again = Lab(lab.n, fast_path=False, **options)
    random_faults(again, seed)
    again.advance(4000)
    assert again.order == lab.order
    assert again.decided() == chain


@pytest.mark.parametrize(
    ("doubled", "parameters", "most"),
    [("Repair", {"snapshot_every": 0}, 60), ("InstallSnapshot", {"snapshot_every": 20, "snapshot_chunk": "1 kB"}, 40)],
)
def test_what_links_double_is_answered_once(doubled: str, parameters: dict[str, Any], most: int) -> None:
    """Each copy of a chunk asked for the next one, so every doubling doubled all that followed, without end."""
    run = play(
        scenario(
            3,
            duration="3 s",
            protocol={"name": "raft", "entries_per_append": 4, "snapshot_size": "10 kB", **parameters},
            faults=[{"at": "500 ms", "for": "1 s", "partition": {"groups": [[2]]}}],
            rules=[{"types": [doubled], "duplicate": 1}],
            **{"block.interval": "10 ms"},
        )
    )
    assert run.sent(doubled) > 5
    assert run.sent(doubled) <= most
    assert len(run.decided(2)) > 60  # level again, and at work
    assert unsafe(run) == []


@pytest.mark.parametrize(
    ("last_index", "last_term", "up_to_date"),
    [(3, 2, True), (2, 2, False), (4, 2, True), (9, 1, False), (1, 3, True), (0, 0, False)],
)
def test_a_later_term_counts_before_a_longer_log(last_index: int, last_term: int, up_to_date: bool) -> None:
    """Section 5.4.1, against a log whose last entry is the third, of term 2."""
    run = begin(scenario(3, protocol="raft"))
    log = run.replica(0).log
    log.tail = [Block(number, number, term, 0, None) for number, term in ((1, 1), (2, 1), (3, 2))]
    assert log.is_up_to_date(last_index, last_term) is up_to_date


def test_terms_that_elect_nobody_are_counted_and_a_livelock() -> None:
    """Two servers 250 ms apart, whose timeouts are shorter than an election takes: each gives up too early."""
    protocol = {"name": "raft", "election_timeout_low": "200 ms", "election_timeout_high": "400 ms"}
    run = play(scenario(2, protocol=protocol, duration="30 s", liveness_bound="10 s",
                        **{"network.latency.one_way": "250 ms"}))  # fmt: skip
    terms = run.replica(0).term
    assert terms > 50
    assert run.monitor.blocks.view_changes >= terms - 3
    assert run.verdict().outcomes["livelock"] == "fail"


def test_election_timeouts_of_any_length_are_drawn_evenly() -> None:
    """Fabric's default, 5 to 10 s: the first of three timers fires after 5 + 5/4 s on average, and never before 5 s."""
    fabric = {
        "name": "raft",
        "election_timeout_low": "5 s",
        "election_timeout_high": "10 s",
        "heartbeat_interval": "500 ms",
    }
    first_s = []
    for seed in range(80):
        run = play(scenario(3, protocol=fabric, duration="10 s", seed=seed))
        first_s.append(min(row.time_ns for row in run.events(ledger.EVENT_PROPOSED)) / S)
    assert min(first_s) > 5
    assert max(first_s) < 10
    assert np.mean(first_s) == pytest.approx(5 + 5 / 4 + 0.02, abs=0.35)  # 0.97 s / sqrt(80) is one deviation
    assert max(first_s) > 7.2, "wider than what one draw covers"


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize(("commits", "answer_ms"), [("next", 504), ("at_once", 14)])
def test_clients_of_followers_wait_for_the_news_of_a_commit(commits: str, answer_ms: float, *, fast_path: bool) -> None:
    """Three servers 4 ms apart, heartbeats of half a second: etcd's followers hear at once."""
    named = {
        "name": "raft", "commits": commits, "first_leader": 0, "heartbeat_interval": "500 ms",
        "election_timeout_low": "5 s", "election_timeout_high": "7 s",
    }  # fmt: skip
    chosen = scenario(
        3, protocol=named, duration="2 min", workload=[{"kind": "open", "rate": "0.2 tx/s", "sites": ["1"]}],
        **{"network.latency": {"model": "fixed", "one_way": "4 ms"}},
    )  # fmt: skip
    result = run_scenario(chosen, fast_path=fast_path)
    assert result.metrics["latency_p99_ms"] == pytest.approx(answer_ms + 8, abs=8)
    assert result.digest == run_scenario(chosen).digest


def test_election_timeouts_in_whole_ticks() -> None:
    """etcd draws 10 to 19 ticks: over many seeds all of these come, and nothing between."""
    found: dict[bool, set[int]] = {True: set(), False: set()}
    for ticks in (True, False):
        times = {"election_timeout_low": "1 s", "election_timeout_high": "1900 ms", "heartbeat_interval": "100 ms"}
        named = {"name": "raft", "first_leader": 0, **times, **({"election_tick": "100 ms"} if ticks else {})}
        for seed in range(40):
            gone = [{"at": "2 s", "crash": {"nodes": [0]}}]
            run = play(
                scenario(3, protocol=named, seed=seed, duration="60 s", faults=gone, **{"block.interval": "10 s"})
            )
            stands = min(row.time_ns for row in run.events(ledger.EVENT_VIEW) if row.time_ns > 2 * 10**9)
            found[ticks].add(stands)
    assert len(found[False]) == 40
    assert all(stands % 10**7 == 0 for stands in found[True])  # ticks and delays of 10 ms, also when two stood at once
    assert all(stands % 10**7 for stands in found[False])
    assert len(found[True]) >= 6


def test_a_tick_is_no_longer_than_a_timeout() -> None:
    with pytest.raises(ScenarioError, match="election_tick: 200 ms is above election_timeout_low, 150 ms"):
        scenario(3, protocol={"name": "raft", "election_tick": "200 ms"})
