"""All replicas of one run, and the loop that wakes them.

The loop lets the engine advance until somebody must decide, and hands the event to that replica's handler.
Bodies of letters and blocks live here as Python objects; the engine knows them by number only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any
from typing import Protocol as Interface

import numpy as np

from sim.engine import entry, lanes, lead, loop, timers, trees
from sim.engine.office import Engine, Settings
from sim.host.blocks import Blocks
from sim.host.costs import Costs, ProtocolError
from sim.host.seat import STORED, Host
from sim.host.trees import Trees
from sim.kernel import chance, post, rules, tally
from sim.kernel import desk as d
from sim.kernel.calendar import grow_calendar
from sim.ledger import rows as r
from sim.protocol import (
    ALL,
    BATCH,
    DECIDED,
    MEMBERSHIP,
    NO_PROGRESS,
    Ballot,
    Block,
    Lead,
    Letter,
    MembersChange,
    NormalCase,
    Quorum,
    Replica,
    Signal,
    Signing,
    Timer,
    Tree,
    VoteType,
)

# Who sits between a host and its replica: returns the replica, and the handlers that the run calls in its place.
Disguise = Callable[[Host], tuple[Replica, dict[Any, Callable[..., None]]]]


class Service(Interface):
    """What works at a seat beside its replica, or in its place: it sends and receives housekeeping letters."""

    def handlers(self) -> dict[Any, Callable[..., None]]:
        """What it does upon which letter or timer."""

    def start(self) -> None:
        """Begin, at the start of the run and after each crash of the seat."""


_PROGRESS_MODES = {"never": 0, "waiting": 1, "always": 2}
OUT_OF_TIME = 100  # `Run.advance`: the deadline on the wall clock has passed
_TRANSACTION, _REPLY = 0, 1  # message types every run has
_AUDIENCES = -1 << 20  # destinations from here down are sets of voters


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A declared normal case: its number in the engine's table, and its types of votes (an ordered set)."""

    number: int
    votes: dict[VoteType, None]


def _threshold(quorum: Quorum) -> int:
    """What completes a tally: so many votes, and the condition if it is gated."""
    return quorum.votes + (tally.GATE if quorum.gated else 0)


def _ballot_key(ballot: Ballot) -> int:
    """Identity of a ballot: the key of its votes' jitter."""
    return chance.draw(ballot.view, ballot.number, -1 if ballot.block is None else ballot.block.number) >> 1


@dataclasses.dataclass(frozen=True)
class Breach:
    """A replica was about to decide a block that contradicts one it has decided (the ledger did not follow)."""

    time_ns: int
    node: int
    block: Block
    decided: Block


class Run:
    """All replicas of one run, their letters, ballots and blocks, and the loop that wakes them."""

    def __init__(
        self,
        protocol: type[Replica],
        parameters: Any,
        settings: Settings,
        costs: Costs,
        *,
        block_interval_ns: int = 0,
        lane: bool = True,
        disguises: Mapping[int, Disguise] | None = None,
        members: tuple[int, ...] | None = None,
        learners: tuple[int, ...] = (),
        members_change: bool = False,
        letters: tuple[type[Letter], ...] = (),
    ) -> None:
        self.protocol = protocol
        self.members = tuple(range(settings.voters)) if members is None else members
        self.learners = learners
        self.members_change = members_change or len(self.members) < settings.voters
        self.disguises = dict(disguises or {})
        self.parameters = parameters
        self.costs = costs
        self.signing = Signing(settings.voters, costs.signature_bytes, costs.certificates)
        self.seed = settings.seed
        self.block_interval_ns = block_interval_ns
        self.backlog = settings.backlog_bytes > 0
        self.decides_out_of_order = protocol.decides_out_of_order
        self.names: list[str] = ["TRANSACTION", "REPLY"]
        self.kinds: dict[Any, int] = {}
        causes: list[Any] = [*protocol.letters, *protocol.votes, *protocol.later_letters, *letters]
        for kind in causes:
            self.kinds[kind] = len(self.names)
            self.names.append(kind.name if isinstance(kind, VoteType) else str(kind.__name__))
        settings = dataclasses.replace(
            settings, decide_waits=self.decides_out_of_order, tx_kind=_TRANSACTION, reply_kind=_REPLY
        )
        self.engine = Engine(settings)
        self.desk = self.engine.state
        self.desk[r.DECIDING_KINDS] = sum(1 << kind for cause, kind in self.kinds.items() if cause.decides)
        self.desk[r.FORKS] = protocol.forks
        self.engine.state[lanes.PROGRESS_MODE] = _PROGRESS_MODES[protocol.progress]
        self.engine.state[lanes.ADOPTS] = self.adopts = protocol.forks
        self.bodies: dict[int, Letter] = {}
        self.tree = Blocks(self)
        self.trees = Trees(self)
        self.breaches: dict[int, Breach] = {}  # replica -> the first time it went against its own decisions
        self.timers: dict[int, tuple[Timer, Any, int]] = {}
        self.turn_timers: dict[int, Timer] = {}  # of the seats that await their turn
        self.out_of_time: Callable[[], bool] = lambda: False
        self.calls: dict[int, Callable[[], None]] = {}
        self.trace_sinks: list[Callable[[np.ndarray], None]] = []
        self.log_sinks: list[Callable[[np.ndarray], None]] = []
        self.logging = settings.log_messages
        self.services: dict[int, list[Service]] = {}  # by seat
        self.not_serving = set(range(settings.voters)) - {*self.members, *learners}  # voters who turn clients away
        self.on_serving: Callable[[int], None] = lambda voter: None  # told who begins or ends
        self.vacant: set[int] = set()  # seats whose replica does not run, though the node does
        self.watchers: dict[int, Callable[[int], None]] = {}  # by seat: told the row of each block it decides
        self.ruled = False  # message rules are laid: messages must say which view and height they are about
        # A subclass that changes rules must not be bypassed by its parent's lane: it declares its own or has none.
        # Twins are adversaries: they need exact handlers, not speed, and the lane knows one seat per voter.
        self.lane_allowed = lane and "normal_cases" in vars(protocol) and not self.engine.twins
        self.cases: dict[type[Letter], Case] = {}
        self.case_votes: list[tuple[VoteType, ...]] = []  # by number of the case
        self.entry_follows_leader = False
        self._refresh_views()
        self._groups_of: dict[tuple[int, ...], int] = {}  # of the engine, for sets of replicas
        self._audiences: list[tuple[int, ...]] = []  # sets of voters that were asked for
        self._audience_of: dict[tuple[int, ...], int] = {}  # their numbers
        # What replicas call each other: a voter's number, for each of its seats; an observer's seat.
        self.name_of_seat = [who if who >= 0 else seat for seat, who in enumerate(self.engine.identity)]
        self.hosts = [Host(self, seat) for seat in range(self.engine.seats)]
        self.requests: list[MembersChange] = []  # of the operator
        self.told = [0] * self.engine.seats  # how many of them each seat has heard
        self._seat_all()

    def _refresh_views(self) -> None:
        """Columns that Python reads and writes often, as memory views: five times quicker than arrays."""
        self.scalars = self.desk.data
        self.nodes = self.engine.desk[d.NODE].data
        self.peers = self.engine.desk[r.PEER].data
        self.blocks = self.engine.desk[r.BLOCK].data
        self.envelopes = self.engine.desk[d.ENVELOPE].data
        self.leads = self.engine.desk[lead.LEAD].data
        self.posted = self.engine.desk[lead.POSTED].data
        self.held = self.engine.desk[trees.HELD].data
        self.turns = self.engine.desk[timers.TURN].data

    def _seat_all(self) -> None:
        for host in self.hosts:
            self.seat(host)
        first = self.hosts[0].replica
        assert first is not None
        self.quorums: dict[VoteType, Quorum] = first.quorums()
        self.voters_needed = first.voters_needed()
        self._row_quorums: dict[int, Quorum] = {}  # by tally row, where members change
        self._lay_costs()
        self.normal_cases = first.normal_cases()  # as declared, whether the fast lane is used or not
        for case in self.normal_cases if self.lane_allowed else ():
            self._declare(case)

    def seat(self, host: Host) -> None:
        """Give a host a fresh replica (at the start, and after a crash)."""
        disguise = self.disguises.get(host.seat)
        if host.seat in self.vacant:
            host.replica, host.handlers = None, {}
        elif disguise is None:
            host.replica = self.protocol(host)
            host.handlers = {c: getattr(host.replica, name) for c, name in host.replica.handlers.items()}
        else:
            host.replica, host.handlers = disguise(host)
        host.handlers[STORED] = lambda then: then()
        for service in self.services.get(host.seat, ()):
            host.handlers |= service.handlers()

    def _begin(self, host: Host) -> None:
        if host.replica is not None:
            host.replica.start()
        for service in self.services.get(host.seat, ()):
            service.start()

    # --- seats without a replica -----------------------------------------------------------------------

    def serve(self, seat: int, service: Service) -> None:
        """Let a service work at a seat, before the run starts."""
        self.services.setdefault(seat, []).append(service)
        self.hosts[seat].handlers |= service.handlers()

    def vacate(self, seat: int) -> None:
        """No replica runs at a seat, from before the start of the run: the node keeps blocks and does nothing else."""
        host = self.hosts[seat]
        self.vacant.add(seat)
        host.replica = None
        host.handlers = {}
        self.engine.peer()[seat, r.QUIET] = 1
        if host.votes:
            self.tree.voter_goes(seat)

    def occupy(self, seat: int) -> None:
        """The replica of a vacant seat starts, with the blocks that the seat has decided."""
        host = self.hosts[seat]
        self.vacant.discard(seat)
        self.engine.peer()[seat, r.QUIET] = 0
        self.tree.voter_comes(seat)
        self.seat(host)
        assert host.replica is not None
        host.replica.start()
        self._tell_requests(host)

    def works(self, seat: int) -> bool:
        """Whether a seat's node runs, and its replica with it."""
        return self.is_up(seat) and seat not in self.vacant

    def serves(self, seat: int) -> bool:
        """Whether clients can submit to a seat's replica."""
        return self.works(seat) and seat not in self.not_serving

    def serve_clients(self, seat: int, *, yes: bool) -> None:
        """A replica serves clients from now on, or turns them away."""
        if yes != (seat not in self.not_serving):
            self.not_serving ^= {seat}
            self.on_serving(seat)

    def watch(self, seat: int, told: Callable[[int], None]) -> None:
        """Tell of each block that a seat decides, by its row, at the moment it does."""
        self.watchers[seat] = told
        self.engine.peer()[seat, r.WATCHED] = 1

    def unwatch(self, seat: int) -> None:
        """Tell no more of what a seat decides."""
        self.watchers.pop(seat, None)
        self.engine.peer()[seat, r.WATCHED] = 0

    def deciding_quorum(self) -> int:
        """How many sign the largest certificate that decides; 1 (who proposed it) if signed votes decide nothing."""
        votes = [vote for vote in self.protocol.votes if vote.decides and vote.signed]
        return max((self.quorums[vote].voters_needed() for vote in votes), default=1)

    def _lay_costs(self) -> None:
        table = self.engine.desk[lanes.KIND_COST].reshape(-1, lanes.KIND_COST_WIDTH)
        for vote in self.protocol.votes:
            row = table[self.kinds[vote]]
            row[lanes.COST_SIZE] = vote.size_bytes + (self.costs.signature_bytes if vote.signed else 0)
            row[lanes.COST_SIGN_NS] = self.costs.sign_ns if vote.signed else 0
            row[lanes.COST_VERIFY_NS] = self.costs.verify_ns if vote.signed else 0
            row[lanes.COST_HANDLE_NS] = self.costs.handle_ns
            if vote.certified:
                signers = self.quorums[vote].votes
                row[lanes.COST_SIZE] += self.signing.certificate_bytes(signers)
                row[lanes.COST_VERIFY_NS] += self.costs.verify_certificate_ns(signers)
            weights = self.quorums[vote].weights
            if weights:
                self.engine.lay_weights(self.kinds[vote], weights)

    def _declare(self, case: NormalCase) -> None:
        """Write a declared normal case into the engine's table."""
        number = len(self.cases)
        if number == lanes.CASES_MAX or len(case.votes) > lanes.CASE_VOTES_MAX or case.upon in self.cases:
            raise ProtocolError(
                f"normal case number {number + 1}, upon {case.upon.__name__} with {len(case.votes)} votes: a protocol "
                f"declares at most {lanes.CASES_MAX} cases of {lanes.CASE_VOTES_MAX} votes, one per type of letter"
            )
        self.cases[case.upon] = Case(number, dict.fromkeys(step.vote for step in case.votes))
        self.case_votes.append(tuple(self.cases[case.upon].votes))
        if case.gather is not None:
            self.trees.declare(number, case)
        c = self.engine.desk[lanes.CASES][number * lanes.CASE_WIDTH :]
        c[lanes.CASE_VOTES] = len(case.votes)
        c[lanes.CASE_GATED] = case.gate
        c[lanes.CASE_PERSIST_NS] = self.costs.persist_ns if case.persist else 0
        c[lanes.CASE_DECIDES] = lanes.DECIDES_AT_END if case.decide else lanes.DECIDES_NOTHING
        for i, step in enumerate(case.votes):
            at = lanes.CASE_VOTE + 4 * i
            c[at] = self.kinds[step.vote]
            c[at + 1] = step.to_all
            c[at + 2] = _threshold(self.quorums[step.vote])

    # --- room ------------------------------------------------------------------------------------------

    def ask(self, function: Callable[..., int], *arguments: int) -> int:
        """Call an engine entry, making room as often as it asks."""
        if self.logging:
            self.ensure_log()
        result = function(self.desk, *arguments)
        while result == -1:
            self.engine.make_room()
            self._refresh_views()
            result = function(self.desk, *arguments)
        return result

    def ensure_room(self, messages: int) -> None:
        """Make room for that many calendar entries."""
        grow_calendar(self.engine.desk, messages * (1 + int(self.desk[d.RULE_COPIES_MAX])))
        self._refresh_views()

    # --- messages --------------------------------------------------------------------------------------

    def target(self, to: int) -> int:
        """Where a protocol's destination is: a seat, or -1 - group of the engine."""
        if to >= 0:
            return self.engine.address[to]
        if to <= _AUDIENCES:
            return self.several(self._audiences[_AUDIENCES - to])
        return to  # all

    def meant_by(self, to: int) -> tuple[int, ...]:
        """The voters that a protocol's destination means, the sender among them perhaps."""
        if to >= 0:
            return (to,)
        return tuple(range(self.engine.voters)) if to == ALL else self._audiences[_AUDIENCES - to]

    def audience(self, members: tuple[int, ...]) -> int:
        """The destination of letters and votes to these voters."""
        number = self._audience_of.get(members)
        if number is None:
            number = self._audience_of[members] = len(self._audiences)
            self._audiences.append(members)
        return _AUDIENCES - number

    def post(self, src: int, to: int, letter: Letter) -> None:
        """Send a letter with its costs."""
        kind, size, sign_ns, verify_ns, key = self._costs_of(src, letter)
        if self.ruled:
            self._name_place(letter)
        handle_ns = self.costs.handle_ns
        envelope = self.ask(entry.post_letter, src, to, kind, size, sign_ns, verify_ns, handle_ns, key, 0, 0)
        self.bodies[envelope] = letter

    def seats_of(self, names: tuple[int, ...]) -> tuple[int, ...]:
        """The seats of replicas, one after the other: a voter may have several."""
        return tuple(seat for name in names for seat, own in enumerate(self.name_of_seat) if own == name)

    def several(self, names: tuple[int, ...]) -> int:
        """Where these replicas are, as receivers of one message: a group of the engine."""
        group = self._groups_of.get(names)
        if group is None:
            group = self._groups_of[names] = self.engine.group(self.seats_of(names))
        return group

    def _name_place(self, letter: Letter) -> None:
        """Tell the engine which view and height the next message is about, for the rules."""
        view, height = letter.place()
        self.scalars[d.MESSAGE_VIEW] = rules.NOWHERE if view is None else view
        self.scalars[d.MESSAGE_HEIGHT] = rules.NOWHERE if height is None else height

    def _costs_of(self, src: int, letter: Letter) -> tuple[int, int, int, int, int]:
        """Type, size, signing and verification time, and identity of a letter."""
        kind = self.kinds[type(letter)]
        size, verify_ns = self.size_and_verification(letter)
        sign_ns = self.costs.sign_ns if letter.signed else 0
        at = src * post.KINDS + kind
        number = self.posted[at]
        self.posted[at] = number + 1
        return kind, size, sign_ns, verify_ns, (kind << 48) + number

    def size_and_verification(self, letter: Letter) -> tuple[int, int]:
        """Bytes of a letter with its signature, and time to verify it."""
        costs = self.costs
        size = letter.size_bytes(self.signing)
        verify_ns = 0
        if costs.verify_ns:
            verify_ns = costs.verify_ns * letter.signatures()
            for signers in letter.certificates():
                verify_ns += costs.verify_certificate_ns(signers)
        if letter.signed:
            size += costs.signature_bytes
            verify_ns += costs.verify_ns
        if costs.hash_ps_per_byte:
            verify_ns += size * costs.hash_ps_per_byte // 1000
        return size, verify_ns

    # --- ballots and their tallies ---------------------------------------------------------------------

    def row(self, ballot: Ballot, vote: VoteType, to: int, host: Host) -> int:
        """The tally row of a ballot's votes, opened if new. `host`: who votes or counts."""
        row = ballot.rows.get(vote)
        if row is None:
            quorum = self.quorums[vote]
            if self.members_change and host.replica is not None:
                quorum = host.replica.quorum_of(vote, ballot)
            thresholds = (quorum.early, _threshold(quorum), 0) if quorum.early else (_threshold(quorum), 0, 0)
            key = _ballot_key(ballot)
            wide = self.target(to) < 0  # a voter of several seats counts at each of them
            row = self.ask(entry.tally_row, self.kinds[vote], key, int(wide), -1 if wide else to, *thresholds)
            ballot.rows[vote] = row
            self.tree.owner_of_row[row] = (ballot, vote)
            if self.members_change:
                self._row_quorums[row] = quorum
                self.engine.weigh(row, quorum.weights or (1,) * self.engine.voters)
            if self.ruled:
                self.engine.desk[d.TALLY_PLACE][2 * row : 2 * row + 2] = ballot.view, ballot.number
            if vote.umbrella is not None:
                parent = self.row(self.tree.umbrella(ballot), vote.umbrella, ALL, host)
                self.engine.desk[d.TALLY][row * tally.ROW + tally.PARENT] = parent
        return row

    def quorum_of_row(self, row: int, vote: VoteType) -> Quorum:
        """What completes a tally."""
        return self._row_quorums.get(row) or self.quorums[vote]

    def _lay_umbrella(self, ballot: Ballot, vote: VoteType, row: int, guard: int) -> None:
        """The umbrella of a row that the fast lane has laid out."""
        over, quorum = self.tree.umbrella(ballot), self.quorums[vote]
        assert ballot.block is not None
        kind, key, block = self.kinds[vote], _ballot_key(over), ballot.block.row
        parent = self.ask(entry.umbrella, row, kind, key, quorum.early, quorum.votes, guard, block)
        over.rows[vote] = parent
        self.tree.owner_of_row[parent] = (over, vote)

    # --- the fast lane ---------------------------------------------------------------------------------

    def propose(
        self,
        src: int,
        letter: Letter,
        ballot: Ballot,
        case: Case,
        guards: tuple[int, int, int],
        receivers: tuple[int, int],
        decided: Block | None,
        wakes: int,
        leave: Lead | None,
        made_ns: int | None,
    ) -> None:
        """Send the letter that proposes a block, or takes it further, with its normal case (`send_case`)."""
        costs = self.send_case(src, letter, ballot, case, guards, receivers, decided, wakes)
        assert ballot.block is not None
        if made_ns is not None:
            at = (ballot.block.reactions[-1] & lanes.REACTION_NUMBER) * lanes.REACTION_WIDTH
            self.engine.desk[lanes.REACTIONS][at + lanes.MADE_NS] = made_ns
        self._note_proposal(src, ballot.block)
        if leave is not None:
            self._give_leave(src, leave, case, ballot, guards, receivers, costs, letter.place())

    def send_case(
        self, src: int, letter: Letter, ballot: Ballot, case: Case, guards: tuple[int, int, int],
        receivers: tuple[int, int], decided: Block | None, wakes: int,
    ) -> tuple[int, int, int, int]:  # fmt: skip
        """Send a letter with the normal case declared for it. `guards`: before, during and after.

        `receivers`: of votes that do not go to all, and, as the engine calls them, all: of the letter and other votes.
        Returns the letter's type, size, and times to sign and verify it.
        """
        block = ballot.block
        assert block is not None
        kind, size, sign_ns, verify_ns, key = self._costs_of(src, letter)
        if self.ruled:
            self._name_place(letter)
        decided_row = -1 if decided is None else decided.row
        while True:
            envelope, reaction, *rows = entry.propose(
                self.desk, case.number, src, kind, size, sign_ns, verify_ns, self.costs.handle_ns, key,
                guards[0], guards[1], guards[2], block.row, ballot.view, ballot.number, *receivers,
                decided_row, wakes,
            )  # fmt: skip
            if envelope >= 0:
                break
            self.engine.make_room()
            self._refresh_views()
        self.bodies[envelope] = letter
        mine, owner = ballot.rows, self.tree.owner_of_row
        last = len(case.votes) - 1
        for i, (vote, row) in enumerate(zip(case.votes, rows, strict=False)):
            mine[vote] = row
            owner[row] = (ballot, vote)
            if vote.umbrella is not None:
                self._lay_umbrella(ballot, vote.umbrella, row, guards[2] if i == last else guards[1])
        block.reactions.append(reaction)
        return kind, size, sign_ns, verify_ns

    def send_down(
        self, src: int, letter: Letter, ballot: Ballot, case: Case, guard: tuple[int, int], along: Tree,
        decided: Block | None, known: Block | None,
    ) -> None:  # fmt: skip
        """Send a letter to the root's children in a tree, together with the normal case declared for it."""
        block = ballot.block
        assert block is not None
        tree = self.trees.number(case.number, along, block)
        kind, size, sign_ns, verify_ns, key = self._costs_of(src, letter)
        if self.ruled:
            self._name_place(letter)
        decided_row, known_height = -1 if decided is None else decided.row, 0 if known is None else known.height
        while True:
            envelope, reaction = entry.send_down(
                self.desk, case.number, src, kind, size, sign_ns, verify_ns, self.costs.handle_ns, key,
                guard[0], guard[1], block.row, ballot.view, ballot.number, decided_row, tree, known_height,
            )  # fmt: skip
            if envelope >= 0:
                break
            self.engine.make_room()
            self._refresh_views()
        self.bodies[envelope] = letter
        block.reactions.append(reaction)
        self._note_proposal(src, block)

    def _note_proposal(self, src: int, block: Block) -> None:
        leads, at = self.leads, src * lead.LEAD_WIDTH
        leads[at + lead.LAST] = block.row
        leads[at + lead.LAST_NUMBER] = block.number
        leads[at + lead.LAST_HEIGHT] = block.height

    def _give_leave(
        self, src: int, leave: Lead, case: Case, ballot: Ballot, guards: tuple[int, int, int],
        receivers: tuple[int, int], costs: tuple[int, int, int, int], said: tuple[int | None, int | None],
    ) -> None:  # fmt: skip
        """What the engine must know to propose by itself. `said`: the view and height that the letter is about."""
        block = ballot.block
        assert block is not None
        leads, at = self.leads, src * lead.LEAD_WIDTH
        kind, size, sign_ns, verify_ns = costs
        hash_ps = self.costs.hash_ps_per_byte
        leads[at + lead.UNTIL] = leave.until
        leads[at + lead.PIPELINE] = leave.pipeline
        leads[at + lead.INTERVAL_NS] = self.block_interval_ns
        leads[at + lead.IN_VIEW] = ballot.view
        leads[at + lead.IN_CASE] = case.number
        leads[at + lead.OF_KIND] = kind
        leads[at + lead.EXTRA_BYTES] = size - block.bytes
        leads[at + lead.SIGN_NS] = sign_ns
        leads[at + lead.VERIFY_NS] = verify_ns - size * hash_ps // 1000
        leads[at + lead.HASH_PS] = hash_ps
        leads[at + lead.HANDLE_NS] = self.costs.handle_ns
        leads[at + lead.NEEDS], leads[at + lead.RUNNING], leads[at + lead.AFTER] = guards
        leads[at + lead.VOTES_TO], leads[at + lead.AUDIENCE] = receivers
        leads[at + lead.SAID_VIEW] = rules.NOWHERE if said[0] is None else said[0]
        leads[at + lead.SAID_HEIGHT] = rules.NOWHERE if said[1] is None else said[1] - block.height

    def letter(self, envelope: int) -> Letter | None:
        """What an envelope carries; None: a proposal of the engine's whose block nobody needs any more."""
        name = self.envelopes[envelope * post.ENVELOPE_WIDTH + post.ARG]
        if name == 0:
            return self.bodies[envelope]
        row = name & ((1 << lead.NAME_BITS) - 1)
        if self.blocks[row * r.BLOCK_WIDTH + r.NUMBER] != name >> lead.NAME_BITS:
            return None
        block = self.tree.at(row)
        assert block is not None
        return self.trees.letter(envelope, block) if self.trees.answers else self.protocol.letter_of(block)

    def breach(self, node: int, block: Block, decided: Block) -> None:
        """A replica contradicts its own decision: kept for the verdict, once per replica."""
        self.breaches.setdefault(node, Breach(self.now_ns, node, block, decided))

    # --- the loop --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start every replica, in order of their numbers."""
        for host in self.hosts:
            self._begin(host)

    @property
    def now_ns(self) -> int:
        """Simulated time."""
        return self.scalars[d.NOW]

    def turn_clients(self, node: int, leader: int) -> None:
        """Clients who last asked `node` submit to `leader` from now on."""
        peers = self.engine.peer()
        for gateway in range(self.engine.seats, self.engine.endpoints):
            if peers[gateway, r.ENTRY] == node:
                peers[gateway, r.ENTRY] = leader

    # --- crash and restart -----------------------------------------------------------------------------

    def is_up(self, node: int) -> bool:
        """Whether an endpoint runs."""
        return bool(self.nodes[node * post.NODE_WIDTH + post.UP])

    def crash(self, node: int) -> None:
        """Stop an endpoint: what it had in memory and in its queues is gone, stable storage stays."""
        if not self.is_up(node):
            return
        entry.crash(self.desk, node, self.engine.tallies)
        self.note(r.EVENT_CRASHED, node)
        if node < self.engine.seats:
            host = self.hosts[node]
            host.replica = None
            host.handlers = {}
            host.quiet()
            self.tree.voter_goes(node)

    def restart(self, node: int) -> None:
        """Start a stopped endpoint again, from its stable storage."""
        if self.is_up(node):
            return
        entry.restart(self.desk, node)
        self.note(r.EVENT_RESTARTED, node)
        if node < self.engine.seats:
            if node not in self.vacant or not self.hosts[node].votes:
                self.tree.voter_comes(node)
            self.seat(self.hosts[node])
            self._begin(self.hosts[node])
            self._tell_requests(self.hosts[node])

    def submit(self, gateway: int, class_: int, count: int) -> None:
        """Clients at a gateway submit so many transactions now (a few hundred at most)."""
        self.ask(entry.submit_now, gateway, class_, count)

    def lay_rules(self, rows: np.ndarray, kinds: np.ndarray, sources: np.ndarray, targets: np.ndarray) -> None:
        """Message rules for the whole run, before it starts; see `Engine.lay_rules`."""
        self.engine.lay_rules(rows, kinds, sources, targets)
        self.ruled = len(rows) > 0

    def set_link(self, src: int, dst: int, rule: int) -> None:
        """Put a link under a rule (0: none). Rules are rows of the engine's rule table."""
        self.engine.desk[d.LINK_RULE][src * self.engine.endpoints + dst] = rule
        if rule:
            self.desk[d.LINKS_CHANGED] = 1

    def cut(self, src: int, dst: int, *, both: bool = True) -> None:
        """Cut a link; rule 1 is the cut."""
        self.engine.desk[d.RULE][post.RULE_WIDTH + post.RULE_DOWN] = 1
        self.set_link(src, dst, 1)
        if both:
            self.set_link(dst, src, 1)

    def heal(self, src: int, dst: int, *, both: bool = True) -> None:
        """Mend a link."""
        self.set_link(src, dst, 0)
        if both:
            self.set_link(dst, src, 0)

    def change_members(self, change: MembersChange) -> None:
        """The operator asks for other members: every replica that runs hears of it, others when they run again."""
        self.note(r.EVENT_MEMBERSHIP, -1, change.number)
        self.requests.append(change)
        for host in self.hosts:
            self._tell_requests(host)

    def _tell_requests(self, host: Host) -> None:
        """Tell a replica that runs of the requests it has not heard."""
        handler = host.handlers.get(MEMBERSHIP)
        while handler is not None and self.told[host.seat] < len(self.requests):
            self.told[host.seat] += 1
            handler(self.requests[self.told[host.seat] - 1])

    def note(self, event: int, node: int, a: int = 0, b: int = 0, c: int = 0) -> None:
        """Write a row to the trace."""
        self.ensure_trace()
        at = int(self.desk[r.TRACE_LEN]) * r.TRACE_WIDTH
        row = (self.desk[d.NOW], event, node, a, b, c, 0, 0)
        self.engine.desk[r.TRACE][at : at + r.TRACE_WIDTH] = row
        self.desk[r.TRACE_LEN] += 1

    def ensure_trace(self) -> None:
        """Empty the trace if it is nearly full."""
        if self.desk[r.TRACE_LEN] * r.TRACE_WIDTH > len(self.engine.desk[r.TRACE]) - 1024 * r.TRACE_WIDTH:
            self.flush_trace()

    def ensure_log(self) -> None:
        """Empty the message log if what one replica sends at once might not fit (lost copies are logged)."""
        if (self.desk[d.LOG_LEN] + self.engine.endpoints) * post.LOG_WIDTH > len(self.engine.desk[d.LOG]):
            self.flush_trace()

    def flush_trace(self) -> None:
        """Hand the collected trace rows to those who read them."""
        rows = self.engine.take_trace()
        if len(rows):
            for sink in self.trace_sinks:
                sink(rows)
        if self.desk[d.LOG_LEN] > 0:
            log = self.engine.take_log()
            for sink in self.log_sinks:
                sink(log)

    def call_at(self, time_ns: int, call: Callable[[], None]) -> None:
        """Call back at a time."""
        number = self.next_timer()
        self.calls[number] = call
        entry.set_call(self.desk, time_ns, number)

    def next_timer(self) -> int:
        """The number of a new timer or call."""
        number = self.scalars[timers.TIMER_NUMBER] + 1
        self.scalars[timers.TIMER_NUMBER] = number
        return number

    def stop_when(self, out_of_time: Callable[[], bool]) -> None:
        """Ask this now and then, also while no replica has anything to do; True ends the run."""
        self.out_of_time = out_of_time
        self.scalars[lanes.TURNS_MAX] = max((1 << 20) // self.engine.seats, 256)  # a turn is at most one broadcast

    def advance(self, until_ns: int) -> int:
        """Run up to and including `until_ns`. Returns loop.UNTIL, or the code of what ended the run before.

        What a handler raises is passed on with a note of when and where.
        """
        try:
            return self._advance(until_ns)
        except Exception as error:
            error.add_note(f"in a run of {self.protocol.__name__} at {self.now_ns / 1e9:.9f} s, seed {self.seed}")
            raise

    def _advance(self, until_ns: int) -> int:
        desk = self.desk
        hosts = self.hosts
        advance = loop.advance
        letter_code, quorum_code = loop.WAKE_LETTER, loop.WAKE_QUORUM
        envelopes_src = post.SRC
        names = self.name_of_seat
        width = post.ENVELOPE_WIDTH
        wakes = 0
        if self.out_of_time():
            return OUT_OF_TIME
        while True:
            code, node, argument, _time_ns = advance(desk, until_ns)
            wakes += 1
            if wakes & 15 == 0 and self.out_of_time():
                return OUT_OF_TIME
            if code == letter_code:
                body = self.letter(argument)
                src = names[self.envelopes[argument * width + envelopes_src]]
                handler = hosts[node].handlers.get(type(body))
                if handler is not None:
                    handler(src, body)
            elif code == quorum_code:
                owner = self.tree.owner(argument >> 2)
                if owner is not None:
                    handler = hosts[node].handlers.get(owner[1])
                    if handler is not None:
                        handler(owner[0])
            elif code == loop.WAKE_LANE:
                self._signal(node, DECIDED)
            elif code == loop.WAKE_BATCH:
                self._signal(node, BATCH)
            elif code == loop.WAKE_PROGRESS:
                self._signal(node, NO_PROGRESS)
            elif code == loop.WAKE_TIMER:
                entry_: Any = self.timers.pop(argument, None)
                if argument >> timers.TIMER_BITS:
                    entry_ = self._timer_of_lane(node, argument)
                if entry_ is not None:
                    handler = hosts[node].handlers.get(entry_[0])
                    if handler is not None:
                        handler(entry_[1])
            elif code == loop.CLOSED_BLOCKS:
                self.tree.sweep()
            elif code == loop.EMPTY_TRACE:
                self.flush_trace()
            elif code == loop.ROOM:
                self.engine.make_room()
                self._refresh_views()
            elif code == loop.WAKE_DECIDED:
                self._tell_decided(node, argument)
            elif code == loop.WAKE_CALL:
                self.calls.pop(argument)()
            elif code == loop.PAUSE:
                if self.out_of_time():
                    return OUT_OF_TIME
            else:
                return int(code)

    def _timer_of_lane(self, node: int, argument: int) -> tuple[Timer, Any]:
        """A timer that the engine has set, and what its handler gets."""
        if argument & timers.OF_TURN:
            return self.turn_timers[node], int(self.turns[node * timers.TURN_WIDTH + timers.TURN_NS])
        return self.trees.timer(argument)

    def _tell_decided(self, node: int, argument: int) -> None:
        row = argument >> 32
        if self.blocks[row * r.BLOCK_WIDTH + r.NUMBER] & 0xFFFFFFFF == argument & 0xFFFFFFFF:
            told = self.watchers.get(node)
            if told is not None:
                told(row)

    def _signal(self, node: int, signal: Signal) -> None:
        handler = self.hosts[node].handlers.get(signal)
        if handler is not None:
            handler()
