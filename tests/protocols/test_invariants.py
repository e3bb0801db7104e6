"""Invariants of protocols: each is broken on purpose once, and the verdict names it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from sim.families.chained.tree import GENESIS, QC
from sim.families.raft.server import Role
from sim.protocol import Block, VoteType
from sim.protocols import PROTOCOLS, ibft, pbft, qbft, raft, tendermint
from tests.runs import MS, Played, begin, scenario

STRANGE = 1 << 40  # a block number that no run reaches
SETTINGS: dict[str, dict[str, Any]] = {
    "tendermint": {
        "name": "tendermint", "timeout_propose": "300 ms", "timeout_prevote": "100 ms",
        "timeout_precommit": "100 ms", "resend_after": "700 ms",
    },
    "pbft": {"name": "pbft", "request_timeout": "300 ms"},
    "ibft": {"name": "ibft", "round_timeout": "300 ms"},
    "qbft": {"name": "qbft", "round_timeout": "300 ms"},
    "raft": {"name": "raft"},
    "hotstuff": {"name": "hotstuff"},
    "hotstuff-basic": {"name": "hotstuff-basic"},
    "hotstuff-2": {"name": "hotstuff-2"},
    "jolteon": {"name": "jolteon"},
    "kauri": {"name": "kauri"},
    "clique": {"name": "clique", "block_period": "100 ms", "wiggle": "50 ms"},
    "aura": {"name": "aura", "step_duration": "100 ms"},
}  # fmt: skip


def cut(at: str, *pairs: tuple[int, int]) -> list[dict[str, Any]]:
    """These voters do not hear each other for 10 ms."""
    return [{"at": at, "for": "10 ms", "cut_link": {"between": list(pair)}} for pair in pairs]


# Others do not hear each other's first votes: 0 alone locks, or prepares, in round 0. Until when it has left it, ms.
FIRST_VOTES = cut("15 ms", *itertools.combinations((1, 2, 3), 2))
ALONE = {
    "pbft": (cut("25 ms", *itertools.combinations(range(4), 2)), 315),  # PREPAREs have arrived, COMMITs do not
    "tendermint": ([*cut("5 ms", (0, 1)), *cut("15 ms", (2, 3))], 530),
    "ibft": (FIRST_VOTES, 320),
    "qbft": (FIRST_VOTES, 320),
}


def block(height: int, view: int, parent: Block | None = None, body: Any = None, proposer: int = 0) -> Block:
    """A block that nobody has made."""
    made = Block(STRANGE, height, view, proposer, parent)
    made.body = body
    return made


# --- what breaks each invariant, at voter 0 -------------------------------------------------------------------


def votes_for_nothing(vote: VoteType) -> Callable[[Any], None]:
    """Vote a second time in this round."""

    def break_(replica: Any) -> None:
        context = replica.context
        context.vote(vote, context.votes.ballot(replica.round, replica.height))

    return break_


def sets(**values: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Give attributes other values."""

    def break_(replica: Any) -> None:
        for name, value in values.items():
            setattr(replica, name, value(replica))

    return break_


def votes_twice(vote: VoteType) -> Callable[[Any], None]:
    """Vote in this view for the next batch, and for nothing."""

    def break_(replica: Any) -> None:
        context = replica.context
        sequence = context.height + 1
        for batch in (None, block(sequence, replica.view)):
            context.vote(vote, context.votes.ballot(replica.view, sequence, batch))

    return break_


def certificate(name: str, later: int) -> Callable[[Any], QC]:
    """One of the replica's, as of a later view."""

    def made(replica: Any) -> QC:
        qc: QC = getattr(replica, name)
        return dataclasses.replace(qc, view=qc.view + later)

    return made


def forgets_what_prepared(replica: Any) -> None:
    own = replica.changes[replica.view]
    own[0] = dataclasses.replace(own[0], prepared=())


def leases(replica: Any) -> None:
    replica.role, replica.voted_for = Role.LEADER, 1
    replica.context.disk.persist(voted_for=1)


def votes_for_others(replica: Any) -> None:
    context = replica.context
    for candidate in range(1, context.n):
        context.vote(raft.VOTE, context.votes.ballot(replica.term, candidate), candidate)


def log_becomes(*entries: tuple[int, int]) -> Callable[[Any], None]:
    """The undecided log holds entries so far above the commit index, and of terms so far above this one."""

    def break_(replica: Any) -> None:
        height, term = replica.context.height, replica.term
        replica.log.tail = [block(height + above, term + later) for above, later in entries]

    return break_


def leads_in_a_later_term(replica: Any) -> None:
    """What it committed since it leads is of the term before."""
    replica.role, replica.term, replica.voted_for = Role.LEADER, replica.term + 1, 0
    replica.context.disk.persist(term=replica.term, voted_for=0)
    replica.commit_at_election = 0


def leaves_the_chain(replica: Any) -> None:
    """A head right above a block that rivals the last decided one."""
    replica.context.fast_path.absorb()
    height = replica.context.height
    replica.head = block(height + 1, 0, block(height, 0))


def seals_twice(replica: Any) -> None:
    """Two blocks of the head's signer in a row, otherwise sound."""
    header = replica.head.body
    more = dataclasses.replace(
        header, total=header.total + header.difficulty,
        time_ns=header.time_ns + replica.parameters.block_period_ns,
    )  # fmt: skip
    replica.head = block(replica.head.height + 1, 0, replica.head, more, header.signer)


def seals_too_early(replica: Any) -> None:
    replica.head.body = dataclasses.replace(replica.head.body, time_ns=0)


def turns_back(replica: Any) -> None:
    replica.context.fast_path.absorb()
    replica.head = block(replica.head.height + 1, 0, replica.head, replica.head.body, replica.head.proposer)


def notes_nothing(replica: Any) -> None:
    replica.context.disk.persist(sealed_step=-1)


@dataclasses.dataclass(frozen=True)
class Break:
    """How an invariant of a protocol is broken, and at what time: in the normal case, or in a round after a lock."""

    protocol: str
    invariant: str
    how: Callable[[Any], None]
    alone: bool = False


CASES = [
    Break("tendermint", "at most one vote of each type in a round", votes_for_nothing(tendermint.PREVOTE)),
    Break("tendermint", "lockedRound <= validRound <= round", sets(locked_round=lambda r: r.valid_round + 1)),
    Break("tendermint", "what is locked or valid is of this height", sets(
        valid_round=lambda r: 0, valid_value=lambda r: block(r.height + 1, 0))),
    Break("tendermint", "what is locked or valid is of this height", sets(
        locked_value=lambda r: None), alone=True),
    Break("tendermint", "locked on the last value it precommitted", sets(
        locked_value=lambda r: None, locked_round=lambda r: -1), alone=True),
    Break("pbft", "one batch is prepared for a view and sequence number", votes_twice(pbft.PREPARE)),
    Break("pbft", "one batch is committed for a view and sequence number", votes_twice(pbft.COMMIT)),
    Break("pbft", "a VIEW-CHANGE tells what its sender committed to", forgets_what_prepared, alone=True),
    Break("ibft", "at most one vote of each type in a round", votes_for_nothing(ibft.PREPARE)),
    Break("ibft", "the lock is of the height being decided", sets(locked=lambda r: block(r.height - 1, 0))),
    Break("ibft", "locked on whatever it sent COMMIT for", sets(locked=lambda r: None), alone=True),
    Break("ibft", "locked on whatever it sent COMMIT for", sets(locked=lambda r: block(r.height, 1)), alone=True),
    Break("qbft", "at most one vote of each type in a round", votes_for_nothing(qbft.PREPARE)),
    Break("qbft", "what it prepared is of this height, and of no round to come", sets(
        prepared=lambda r: (r.round + 1, block(r.height, 0)))),
    Break("qbft", "what it prepared is of this height, and of no round to come", sets(
        prepared=lambda r: (0, block(r.height - 1, 0)))),
    Break("qbft", "what it prepared has a quorum of PREPAREs", sets(prepared=lambda r: (0, block(r.height, 0)))),
    Break("qbft", "a ROUND-CHANGE tells the last block that its sender prepared", lambda r: r.changes[1].update(
        {0: dataclasses.replace(r.changes[1][0], prepared=None)}), alone=True),
    Break("raft", "currentTerm and votedFor are on disk", sets(term=lambda r: r.term + 1)),
    Break("raft", "currentTerm and votedFor are on disk", sets(voted_for=lambda r: r.context.n)),
    Break("raft", "who stands for election, or leads, has voted for itself", leases),
    Break("raft", "votes of a term go to one candidate", votes_for_others),
    Break("raft", "the log goes on where it is committed to", log_becomes((3, 0))),
    Break("raft", "entries follow each other, in terms that never go back", log_becomes((1, 0), (3, 0))),
    Break("raft", "entries follow each other, in terms that never go back", log_becomes((1, 0), (2, -1))),
    Break("raft", "no entry is of a later term than the server", log_becomes((1, 1))),
    Break("raft", "a leader commits entries of its own term, and older ones with them", leads_in_a_later_term),
    Break("hotstuff", "the lock is no higher than the highest certificate", sets(locked=certificate("high", 1))),
    Break("hotstuff", "votes are not for views to come", sets(voted_view=lambda r: r.view + 1)),
    Break("hotstuff", "the lock is as high as the last vote asks for", sets(locked=lambda r: GENESIS)),
    Break("hotstuff", "the last vote is on disk", lambda r: r.context.disk.persist(voted=None)),
    Break("hotstuff-basic", "the lock is no higher than the highest prepareQC", sets(locked=certificate("high", 1))),
    Break("hotstuff-basic", "votes are not for views to come", sets(stage=lambda r: (r.view + 1, r.stage[1]))),
    Break("hotstuff-2", "a vote for a certificate locks it", sets(confirmed_view=lambda r: r.locked.view + 1)),
    Break("hotstuff-2", "votes are not for views to come", sets(voted_view=lambda r: r.view + 1)),
    Break("jolteon", "votes are not for views to come", sets(voted_view=lambda r: r.view + 1)),
    Break("jolteon", "the highest certificate is not of a view to come", sets(high=certificate("high", 9))),
    Break("kauri", "the lock is no higher than the highest certificate", sets(locked=certificate("high", 1))),
    Break("clique", "the head lies on the decided chain", leaves_the_chain),
    Break("clique", "of SIGNER_LIMIT consecutive blocks no signer sealed two", seals_twice),
    Break("clique", "blocks are BLOCK_PERIOD apart, and each adds its difficulty", seals_too_early),
    Break("aura", "the head lies on the decided chain", leaves_the_chain),
    Break("aura", "steps grow along the chain, and each block is its step's primary's", turns_back),
    Break("aura", "whatever it sealed is of a step that it has noted", notes_nothing),
]  # fmt: skip


def played(case: Break) -> Played:
    """A sound run up to the moment: in the midst of a height's normal case, or when 0 has left round 0 with a lock."""
    faults, at_ms = ALONE[case.protocol] if case.alone else ([], 2025)
    run = begin(scenario(4, protocol=SETTINGS[case.protocol], duration="3 s", faults=faults))
    run.until(at_ms * MS).monitor.look()
    assert run.monitor.broken == {}
    return run


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.protocol}-{case.invariant}")
def test_a_broken_invariant_is_named_in_the_verdict(case: Break) -> None:
    run = played(case)
    replica = run.replica(0)
    replica.absorb_fast_path()
    case.how(replica)
    if case.how is votes_for_others:
        run.until(run.now_ns + 11 * MS)  # they have arrived
    verdict = run.verdict()
    assert verdict.outcomes["invariants"] == "fail"
    told = [violation.evidence for violation in verdict.violations if violation.check == "invariants"]
    assert any(case.invariant in evidence for evidence in told), told


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_each_protocol_has_invariants_and_each_of_them_is_broken_here(protocol: str) -> None:
    """Variants have those of what they vary."""
    chosen = PROTOCOLS[protocol].protocol
    broken = {case.invariant for case in CASES if issubclass(chosen, PROTOCOLS[case.protocol].protocol)}
    assert broken == set(chosen.invariants) != set()
