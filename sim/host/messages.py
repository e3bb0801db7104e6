"""Messages on their way: whom they reach, what they cost, and the normal case that goes with a proposal.

Their bodies live here as Python objects; the engine knows them by the number of their envelope.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from sim.engine import actions, entry, gossip, lease
from sim.host.cases import Case
from sim.kernel import post, rules
from sim.kernel import run_state as kernel
from sim.ledger import rows as ledger
from sim.protocol import ALL, Audience, Ballot, Block, FastPath, GossipMessage, Message, Tree

if TYPE_CHECKING:
    from sim.host.run import Run

_AUDIENCES = -1 << 20  # destinations from here down are sets of voters
MessageCosts = tuple[int, int, int, int]  # type, size, and times to sign and verify


class Messages:
    """The messages of one run, and the sets of replicas they go to."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.bodies: dict[int, Message] = {}  # by envelope
        self._groups_of: dict[tuple[int, ...], int] = {}  # of the engine, for sets of replicas
        self._audiences: list[tuple[int, ...]] = []  # sets of voters that were asked for
        self._audience_of: dict[tuple[int, ...], int] = {}  # their numbers

    def target(self, to: int) -> int:
        """Where a protocol's destination is: a seat, or -1 - group of the engine."""
        if to >= 0:
            return self.run.engine.address[to]
        if to <= _AUDIENCES:
            return self.several(self._audiences[_AUDIENCES - to])
        return to  # all

    def meant_by(self, to: int) -> tuple[int, ...]:
        """The voters that a protocol's destination means, the sender among them perhaps."""
        if to >= 0:
            return (to,)
        return tuple(range(self.run.engine.voters)) if to == ALL else self._audiences[_AUDIENCES - to]

    def audience(self, members: tuple[int, ...]) -> Audience:
        """The destination of messages and votes to these voters."""
        number = self._audience_of.get(members)
        if number is None:
            number = self._audience_of[members] = len(self._audiences)
            self._audiences.append(members)
        return Audience(_AUDIENCES - number)

    def post(self, src: int, to: int, message: Message) -> None:
        """Send a message with its costs."""
        run = self.run
        kind, size, sign_ns, verify_ns, key = self._costs_of(src, message)
        if run.ruled:
            self._name_place(message)
            self.name_leaders(src)
        handle_ns = run.costs.handle_ns
        if run.costs.executes != "after":
            before_ns, before_vote_ns = self._executes(src, message)
            sign_ns, verify_ns = sign_ns + before_ns, verify_ns + before_vote_ns
        name = run.gossip.name(cast(GossipMessage, message)) if message.is_gossip else 0
        envelope = run.ask(entry.post_message, src, to, kind, size, sign_ns, verify_ns, handle_ns, key, name, 0)
        self.bodies[envelope] = message

    def seats_of(self, names: tuple[int, ...]) -> tuple[int, ...]:
        """The seats of replicas, one after the other: a voter may have several."""
        return tuple(seat for name in names for seat, own in enumerate(self.run.name_of_seat) if own == name)

    def several(self, names: tuple[int, ...]) -> int:
        """Where these replicas are, as receivers of one message: a group of the engine."""
        group = self._groups_of.get(names)
        if group is None:
            group = self._groups_of[names] = self.run.engine.group(self.seats_of(names))
        return group

    def _name_place(self, message: Message) -> None:
        """Tell the engine which view and height the next message is about, for the rules."""
        view, height = message.place()
        self.run.scalars[kernel.MESSAGE_VIEW] = rules.NOWHERE if view is None else view
        self.run.scalars[kernel.MESSAGE_HEIGHT] = rules.NOWHERE if height is None else height
        if message.is_gossip:
            kinds, inside = self.run.kinds, cast(GossipMessage, message).inside()
            self.run.scalars[kernel.MESSAGE_INSIDE] = kinds[type(message)] << 32 | kinds.get(
                inside, kinds[type(message)]
            )

    def name_leaders(self, src: int) -> None:
        """Tell the engine who leads the view of whoever speaks next, and the view after, if some rule asks."""
        if self.run.rules_name_leaders:
            replica = self.run.hosts[src].replica
            leader, following = (None, None) if replica is None else (replica.leader(), replica.leader(1))
            packed = (0 if leader is None else leader + 1) | (0 if following is None else following + 1) << 32
            self.run.scalars[kernel.MESSAGE_LEADERS] = packed

    def _costs_of(self, src: int, message: Message) -> tuple[int, int, int, int, int]:
        """Type, size, signing and verification time, and identity of a message."""
        run = self.run
        kind = run.kinds[type(message)]
        size, verify_ns = self.size_and_verification(message)
        sign_ns = run.costs.sign_ns if message.signed else 0
        at = src * post.KINDS + kind
        number = run.posted[at]
        run.posted[at] = number + 1
        return kind, size, sign_ns, verify_ns, (kind << 48) + number

    def _executes(self, src: int, message: Message) -> tuple[int, int]:
        """What a proposer executes before its proposal leaves, and its receivers before they handle it, ns."""
        run, block = self.run, message.carries()
        if block is None:
            return 0, 0
        proposes = block.proposer == run.name_of_seat[src]
        if run.costs.executes == "before_vote":
            execution_ns = run.execution_ns(block)
            return execution_ns if proposes else 0, execution_ns
        still_ns = int(run.nodes[src * post.NODE_WIDTH + post.EXECUTE_FREE]) - run.scalars[kernel.NOW]
        return max(still_ns, 0) if proposes else 0, 0  # receivers' consensus waits by itself

    def size_and_verification(self, message: Message) -> tuple[int, int]:
        """Bytes of a message with its signature, and time to verify it."""
        costs = self.run.costs
        size = message.size_bytes(self.run.signing)
        verify_ns = 0
        if costs.verify_ns:
            verify_ns = costs.verify_ns * message.signatures()
            for signers in message.certificates():
                verify_ns += costs.verify_certificate_ns(signers)
        if message.signed:
            size += costs.signature_bytes
            verify_ns += costs.verify_ns
        if costs.hash_ps_per_byte:
            verify_ns += size * costs.hash_ps_per_byte // 1000
        return size, verify_ns

    def propose(self, src: int, message: Message, ballot: Ballot, case: Case, fast: FastPath, audience: int) -> None:
        """Send the message that proposes a block, or takes it further, with its normal case (`send_case`)."""
        costs = self.send_case(src, message, ballot, case, fast, audience, nobody=src)
        assert ballot.block is not None
        if fast.made_ns is not None:
            at = (ballot.block.actions[-1] & actions.ACTION_NUMBER) * actions.ACTION_WIDTH
            self.run.engine.run_state[actions.ACTIONS][at + actions.MADE_NS] = fast.made_ns
        self._note_proposal(src, ballot.block)
        if fast.lease is not None:
            self._give_lease(src, fast, case, ballot, self.target(audience), costs, message.place())

    def send_case(
        self, src: int, message: Message, ballot: Ballot, case: Case, fast: FastPath, audience: int, *, nobody: int
    ) -> MessageCosts:
        """Send a message with the normal case declared for it. `nobody`: who is told where `fast` names no one.

        Returns the message's type, size, and times to sign and verify it.
        """
        block = ballot.block
        assert block is not None
        decided_row = -1 if fast.decided is None else fast.decided.row
        notify = nobody if fast.notify is None else actions.NOTIFY_ALL if fast.notify == ALL else fast.notify
        done = fast.after if fast.done is None else fast.done
        costs, found = self._send(
            entry.propose, src, message, case, block, fast.before, fast.after, done,
            block.row, ballot.view, ballot.number, fast.to, self.target(audience), decided_row, notify,
        )  # fmt: skip
        mine, owner = ballot.rows, self.run.block_store.owner_of_row
        last = len(case.votes) - 1
        for i, (vote, row) in enumerate(zip(case.votes, found[2:], strict=False)):
            mine[vote] = row
            owner[row] = (ballot, vote)
            if vote.any_value is not None:
                self.run.tallies.lay_any_value(ballot, vote.any_value, row, done if i == last else fast.after)
        return costs

    def send_down(self, src: int, message: Message, ballot: Ballot, case: Case, fast: FastPath, tree: Tree) -> None:
        """Send a message to the root's children in a tree, together with the normal case declared for it."""
        block = ballot.block
        assert block is not None
        decided_row = -1 if fast.decided is None else fast.decided.row
        number = self.run.dissemination.number(case.number, tree, block)
        required_height = 0 if fast.requires is None else fast.requires.height
        self._send(
            entry.send_down, src, message, case, block, fast.before, fast.after, block.row,
            ballot.view, ballot.number, decided_row, number, required_height,
        )  # fmt: skip
        self._note_proposal(src, block)

    def _send(
        self, enter: Callable[..., tuple[int, ...]], src: int, message: Message, case: Case, block: Block, *about: int
    ) -> tuple[MessageCosts, tuple[int, ...]]:  # fmt: skip
        """Enter the engine with a message and its block's case, making room as often as it asks.

        Returns what the message costs, and what the engine tells: the message's envelope, its action, and more.
        """
        run = self.run
        kind, size, sign_ns, verify_ns, key = self._costs_of(src, message)
        if run.ruled:
            self._name_place(message)
            self.name_leaders(src)
        handle_ns = run.costs.handle_ns
        before_ns, before_vote_ns = (0, 0) if run.costs.executes == "after" else self._executes(src, message)
        costs_ns = sign_ns + before_ns, verify_ns + before_vote_ns, handle_ns
        while True:
            found = enter(run.run_state, case.number, src, kind, size, *costs_ns, key, *about)
            if found[0] >= 0:
                break
            run.make_capacity()
        self.bodies[found[0]] = message
        block.actions.append(found[1])
        return (kind, size, sign_ns, verify_ns), found

    def _note_proposal(self, src: int, block: Block) -> None:
        leases, at = self.run.leases, src * lease.LEASE_WIDTH
        leases[at + lease.LAST] = block.row
        leases[at + lease.LAST_NUMBER] = block.number
        leases[at + lease.LAST_HEIGHT] = block.height

    def _give_lease(
        self, src: int, fast: FastPath, case: Case, ballot: Ballot, audience: int, costs: MessageCosts,
        said: tuple[int | None, int | None],
    ) -> None:  # fmt: skip
        """What the engine must know to propose by itself. `said`: the view and height that the message is about."""
        run, granted = self.run, fast.lease
        assert granted is not None
        block = ballot.block
        assert block is not None
        leases, at = run.leases, src * lease.LEASE_WIDTH
        kind, size, sign_ns, verify_ns = costs
        hash_ps = run.costs.hash_ps_per_byte
        leases[at + lease.UNTIL] = granted.until
        leases[at + lease.PIPELINE] = granted.pipeline
        leases[at + lease.INTERVAL_NS] = run.block_interval_ns
        leases[at + lease.IN_VIEW] = ballot.view
        leases[at + lease.IN_CASE] = case.number
        leases[at + lease.OF_KIND] = kind
        leases[at + lease.EXTRA_BYTES] = size - block.bytes
        leases[at + lease.SIGN_NS] = sign_ns
        leases[at + lease.VERIFY_NS] = verify_ns - size * hash_ps // 1000
        leases[at + lease.HASH_PS] = hash_ps
        leases[at + lease.HANDLE_NS] = run.costs.handle_ns
        leases[at + lease.NEEDS], leases[at + lease.RUNNING] = fast.before, fast.after
        leases[at + lease.AFTER] = fast.after if fast.done is None else fast.done
        leases[at + lease.VOTES_TO], leases[at + lease.AUDIENCE] = fast.to, audience
        leases[at + lease.SAID_VIEW] = rules.NOWHERE if said[0] is None else said[0]
        leases[at + lease.SAID_HEIGHT] = rules.NOWHERE if said[1] is None else said[1] - block.height

    def at(self, envelope: int) -> Message | None:
        """What an envelope carries; None: a message of the engine's about what nobody needs any more."""
        run = self.run
        name = run.envelopes[envelope * post.ENVELOPE_WIDTH + post.ARG]
        if name == 0:
            return self.bodies[envelope]
        of_gossip = run.envelopes[envelope * post.ENVELOPE_WIDTH + post.ACTION]
        if of_gossip & gossip.OF_GOSSIP:
            return run.gossip.message(of_gossip)
        row = name & ((1 << lease.NAME_BITS) - 1)
        if run.blocks[row * ledger.BLOCK_WIDTH + ledger.NUMBER] != name >> lease.NAME_BITS:
            return None
        block = run.block_store.at(row)
        assert block is not None
        return (
            run.dissemination.message(envelope, block) if run.dissemination.answers else run.protocol.message_of(block)
        )
