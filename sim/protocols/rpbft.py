"""rPBFT: PBFT in a rotating working group.

FISCO BCOS, "rPBFT consensus algorithm", documentation of version 2.x, 2020 (epoch_sealer_num, epoch_block_num).

Of n consensus nodes a working group of k runs PBFT for an epoch of E blocks; the others synchronise blocks from it and
verify their certificates. At the end of an epoch the group moves on by r nodes in the fixed order of all: the first r
leave, the next r join. The cost of a decision depends on k and not on n. Inside an epoch everything is PBFT (pbft.py).

Safe as PBFT is, as long as at most f of each group of k = 3f + 1 are Byzantine, whatever the others are: a node
outside takes a block upon a quorum of that group, and both know the next group from the chain alone. Live while a
quorum of every group runs: a group that has lost more is not replaced, for groups change with blocks.

paper                    here
-----                    ----
epoch_sealer_num         k, parameters.group
epoch_block_num          E, parameters.epoch
working sealers          group_at(height).members; the others are waiting
rotating, chosen index   rotate (r); the group of epoch e starts at node e r mod n
leader index             primary_of(view): the view counts from 0 in each epoch
addSealer, removeNode    a ValidatorSet in a block; in force from the next epoch on (sim.families.pbft.groups)
view                     view = epoch * VIEWS + view in the epoch, so that all know where an epoch begins
block sync               Committed (one member to each node outside, another one for each block), Fetch, Executed

Deviations
* A primary leads until the epoch ends or its view changes, as in PBFT; FISCO BCOS changes the leader at every block.
* Quorums are PBFT's, the least above (k + f) / 2; FISCO BCOS waits for k - f, one more for k = 3f + 3.
* A replica enters an epoch when it has executed the last block before it; there is no message for it. The last block
  of an epoch is its checkpoint. What was executed is certified, so h of a VIEW-CHANGE is the sender's height.
* Who asks for a view of an epoch that is over is sent the blocks that ended it.
* A node outside that misses a block (a gap, or silence while transactions wait) fetches it from the group; and once at
  each height when none came for a request timeout, for whoever was to hand out the last may be down.
* Nodes that join or leave change the order of all at the end of an epoch; when they do is open in the documentation.

Not modelled: choosing the group by a verifiable random function, the tree in which 2.x can pass on blocks and
transactions, and whatever pbft.py does not model.
"""

from __future__ import annotations

import dataclasses

from sim.families.pbft.groups import Group
from sim.families.pbft.viewchange import Executed
from sim.families.sync import HEADER_BYTES
from sim.families.turns import FirstLeader
from sim.parameters import Nanoseconds, count, quantity
from sim.protocol import (
    ALL,
    DECIDED,
    NO_PROGRESS,
    Audience,
    Ballot,
    Block,
    FastPath,
    Message,
    NormalCase,
    Quorum,
    Signing,
    Timer,
    upon,
)
from sim.protocols.pbft import COMMIT, PREPARE, Pbft, PrePrepare


class RpbftParameters(FirstLeader):
    """Parameters of rPBFT."""

    group: int = count(4, "k: replicas in the working group; all if there are fewer", low=1)
    epoch: int = count(1000, "E: blocks that a group decides before it moves on", low=1)
    rotate: int = count(1, "r: replicas that leave and join after an epoch")
    request_timeout_ns: Nanoseconds = quantity(
        "2 s",
        "a member waits this long for progress before a view change, a node outside before it fetches",
        patience=True,
    )
    pipeline: int = count(1, "batches the primary has under way at a time", low=1)


LOOK_TIMER = Timer("look for blocks")


@dataclasses.dataclass(frozen=True, slots=True)
class Committed(Message):
    """A decided block with its commit certificate, for a node outside the group. `digest`: what the group signed."""

    block: Block
    digest: int
    signers: int
    decides = False

    def size_bytes(self, signing: Signing) -> int:
        return 2 * HEADER_BYTES + self.block.bytes + signing.certificate_bytes(self.signers)

    def certificates(self) -> tuple[int, ...]:
        return (self.signers,)

    def carries(self) -> Block:
        return self.block


class Rpbft(Pbft):
    """One node of rPBFT, in the group or outside."""

    messages = (*Pbft.messages, Committed)
    votes = (PREPARE, COMMIT)

    @staticmethod
    def check(parameters: FirstLeader, voters: int) -> None:
        """Refuse parameters that n replicas cannot run with."""
        assert isinstance(parameters, RpbftParameters)
        if parameters.rotate > parameters.group:
            raise ValueError(
                f"rotate: {parameters.rotate} must not be above group: {parameters.group}, which is all of them; "
                f"write rotate: {parameters.group}, or a larger group"
            )
        first = parameters.first_leader
        if first is not None and parameters.group <= first < voters:
            raise ValueError(
                f"first_leader: {first} is outside the first group, replicas 0 to {parameters.group - 1}; "
                f"write one of these, or a larger group"
            )

    # --- the working group -----------------------------------------------------------------------------

    def tolerated_of(self, members: int) -> int:
        """f, of k and not of n."""
        return (members - 1) // 3

    @property
    def k(self) -> int:
        """Members of this group."""
        return len(self.members)

    def voters_needed(self) -> int:
        """Whichever f are missing, every group can decide."""
        return self.context.n - self.f

    def need_of(self, members: tuple[int, ...]) -> Quorum:
        """All but f, for these take turns."""
        f = self.tolerated_of(min(self.parameters.group, len(members)))
        return self.voters.quorum_of(members, len(members) - f)

    @property
    def groups_change(self) -> bool:
        """By turns."""
        return True

    def groups_before(self, height: int) -> int:
        """Which epoch decides a height."""
        return int((height - 1) // self.parameters.epoch)

    def group_at(self, height: int) -> Group:
        """k of all nodes as of the beginning of the epoch, from one place in their order on; the others wait."""
        epoch = self.groups_before(height)
        everyone = self.voters.at(epoch * self.window + 1)
        start = epoch * self.parameters.rotate % len(everyone)
        order = everyone[start:] + everyone[:start]
        return Group(order[: self.parameters.group], order[self.parameters.group :])

    def join_group(self) -> None:
        """With a part of the nodes outside for each member."""
        super().join_group()
        outside = self.group.waiting
        self.handed_out = self.context.height  # up to which this member has sent its part what it executed
        self.place = self.members.index(self.context.me) if self.is_voter else 0
        self.parts: list[Audience] = []
        if self.is_voter:
            self.parts = [
                self.context.membership.audience(outside[i :: self.k]) for i in range(min(self.k, len(outside)))
            ]

    def checkpoint(self, *, again: bool = False) -> None:
        """The last block of an epoch takes the place of a checkpoint: the next group goes on."""
        self.begin_group()

    @property
    def window(self) -> int:
        return int(self.parameters.epoch)

    @property
    def high_mark(self) -> int:
        """The end of the epoch."""
        return (self.epoch + 1) * self.window

    # --- normal case in the group ----------------------------------------------------------------------

    def normal_cases(self) -> tuple[NormalCase, ...]:
        cases = super().normal_cases()
        return (*cases, NormalCase(upon=Committed, decide=True)) if cases else ()

    def guard(self) -> int | None:
        """Twice the view in the group; outside, where blocks must come in order, twice the height and one."""
        if not self.active or not self.lacks_nothing():
            return None
        return 2 * self.view if self.is_voter else 2 * self.context.height + 1

    def pre_prepare(self, block: Block) -> None:
        """Multicast <PRE-PREPARE, v, n, d> in the group."""
        context, number = self.context, 2 * self.view
        ballot = context.votes.ballot(self.view, block.height, block)
        context.disk.persist(proposed=(self.view, block))
        message = PrePrepare(self.view, block.height, block)
        context.propose(message, ballot, FastPath(number, number, notify=ALL), audience=self.audience)
        self.accept(ballot, context.me)

    @upon(COMMIT)
    def on_committed(self, ballot: Ballot) -> None:
        """committed-local(m, v, n, i): execute in order of n, hand out what was executed, go on."""
        assert ballot.block is not None
        if self.active and ballot.view == self.view:
            self.context.decide(ballot.block)
            self.on_decided_in_fast_path()

    @upon(DECIDED)
    def on_decided_in_fast_path(self) -> None:
        """The fast path executed a block: in the group each, outside the last of an epoch."""
        self.hand_out()
        self.propose()

    # --- outside the group -----------------------------------------------------------------------------

    def start(self) -> None:
        self.level_at = -1  # height at which a member last had no more than this node
        super().start()
        if self.parameters.group < self.context.n:
            self.context.set_timer(LOOK_TIMER, self.parameters.request_timeout_ns, -1)

    @upon(LOOK_TIMER)
    def look(self, height: int) -> None:
        """No block came for a while: the last one may be lost with who was to hand it out. Once at each height."""
        context = self.context
        if context.height == height and self.level_at < height and self.belongs and not self.is_voter:
            self.fetch_once()
        context.set_timer(LOOK_TIMER, self.parameters.request_timeout_ns, context.height)

    def hand_out(self) -> None:
        """Send each block executed since the last call to the nodes outside that are mine for its height."""
        context, first = self.context, self.handed_out + 1
        self.handed_out = context.height
        if not self.parts:
            return
        for height in range(first, context.height + 1):
            part, block = (self.place - height) % self.k, context.chain.decided(height)
            if part < len(self.parts) and block is not None:
                context.broadcast(
                    Committed(block, block.number, self.signers()),
                    self.parts[part],
                    fast=FastPath(2 * height - 1, 2 * height + 1, notify=ALL if height == self.high_mark else None),
                )

    @upon(Committed)
    def on_block(self, sender: int, message: Committed) -> None:
        """Execute a certified block; with a gap below it waits, and what is missing is fetched."""
        context, block = self.context, message.block
        if message.digest != block.number or block.height <= context.height:
            return
        if not context.decide(block):
            self.fetch_once()
        self.handed_out = context.height
        self.propose()

    @upon(NO_PROGRESS)
    def on_request_timeout(self) -> None:
        """A member asks for a view change; a node outside asks for blocks, and tells the group what waits.

        The primary that it passes transactions on to may be down, and members that wait for none would not mind.
        """
        if self.is_voter:
            super().on_request_timeout()
            return
        self.fetch()
        self.context.clients.spread(self.peers())
        self.context.clock.made_progress()
        self.context.clock.watch_progress(self.timeout_ns)

    def peers(self) -> tuple[int, ...]:
        """The group that decides the next height here, as far as this node knows; alone in it: everybody."""
        return super().peers() or tuple(sorted(self.group.waiting))

    @upon(Executed)
    def on_executed(self, sender: int, message: Executed) -> None:
        super().on_executed(sender, message)
        self.handed_out = self.context.height
        if message.last <= self.context.height:
            self.level_at = self.context.height
        if self.context.chain.is_behind():
            self.fetch_once()

    # --- view changes in the group ---------------------------------------------------------------------

    def change_view(self, view: int) -> None:
        """h is the height: what was executed is certified. Outside the group there is nothing to change."""
        if self.is_voter:
            self.low_mark = self.context.height
            self.context.disk.persist(low_mark=self.low_mark)
            super().change_view(view)
        elif self.belongs:
            self.enter(self.view)
