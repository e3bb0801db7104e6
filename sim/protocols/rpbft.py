"""rPBFT: PBFT in a rotating working group.

FISCO BCOS, "rPBFT consensus algorithm", documentation of version 2.x, 2020 (epoch_sealer_num, epoch_block_num).

Of n consensus nodes a working group of k runs PBFT for an epoch of E blocks; the others synchronise blocks from it and
verify their certificates. At the end of an epoch the group moves on by r nodes in the fixed order of all: the first r
leave, the next r join. The cost of a decision depends on k and not on n. Inside an epoch everything is PBFT (pbft.py).

paper                    here
-----                    ----
epoch_sealer_num         k, parameters.group
epoch_block_num          E, parameters.epoch
working sealers          group_of(epoch)
rotating, chosen index   rotate (r); the group of epoch e starts at node e r mod n
leader index             primary_of(view): the view counts from 0 in each epoch
view                     view = epoch * VIEWS + view in the epoch, so that all know where an epoch begins
block sync               Committed (one member to each node outside, another one for each block), Fetch, Executed

Deviations
* A primary leads until the epoch ends or its view changes, as in PBFT; FISCO BCOS changes the leader at every block.
* A replica enters an epoch when it has executed the last block before it; there is no message for it. The last block
  of an epoch is its checkpoint. What was executed is certified, so h of a VIEW-CHANGE is the sender's height.
* Who asks for a view of an epoch that is over is sent the blocks that ended it.
* A node outside that misses a block (a gap, or silence while transactions wait) fetches it from the group.

Not modelled: choosing the group by a verifiable random function, the tree in which 2.x can pass on blocks and
transactions, and whatever pbft.py does not model.
"""

from __future__ import annotations

import dataclasses

from sim.ledger.groups import VIEWS
from sim.ledger.viewchange import HEADER_BYTES, Executed, Fetch, NewView, ViewChange
from sim.parameters import Nanoseconds, Parameters, count, quantity
from sim.protocol import ALL, NO_PROGRESS, Ballot, Block, Context, Letter, Quorum, Signing, VoteType, group, upon
from sim.protocols.pbft import COMMIT, PREPARE, Pbft, PrePrepare


class RpbftParameters(Parameters):
    """Parameters of rPBFT."""

    group: int = count(4, "k: replicas in the working group; all if there are fewer", low=1)
    epoch: int = count(1000, "E: blocks that a group decides before it moves on", low=1)
    rotate: int = count(1, "r: replicas that leave and join after an epoch")
    request_timeout_ns: Nanoseconds = quantity(
        "2 s", "a member waits this long for progress before a view change, a node outside before it fetches"
    )
    pipeline: int = count(1, "batches the primary has under way at a time", low=1)


@dataclasses.dataclass(frozen=True, slots=True)
class Committed(Letter):
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

    letters = (*Pbft.letters, Committed)
    votes = (PREPARE, COMMIT)
    group_changes = "never"  # but by turns

    @staticmethod
    def check(parameters: Parameters, voters: int) -> None:
        """Refuse parameters that n replicas cannot run with."""
        assert isinstance(parameters, RpbftParameters)
        if parameters.rotate > parameters.group:
            raise ValueError(
                f"rotate: {parameters.rotate} must not be above group: {parameters.group}, which is all of them; "
                f"write rotate: {parameters.group}, or a larger group"
            )

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.asked = -1  # height at which a gap was last seen
        self.begin_epoch(self.epoch_of(context.height + 1))

    # --- the working group -----------------------------------------------------------------------------

    @property
    def k(self) -> int:
        """Size of a group."""
        size: int = self.parameters.group
        return min(size, self.context.n)

    def tolerated(self) -> int:
        """Of k, not of n."""
        return (self.k - 1) // 3

    def committed_quorum(self) -> int:
        return (self.k + self.f) // 2 + 1

    def quorums(self) -> dict[VoteType, Quorum]:
        return {
            PREPARE: Quorum(self.prepared_quorum(), gated=True),
            COMMIT: Quorum(self.committed_quorum(), gated=True),
        }

    def voters_needed(self) -> int:
        """Whichever f are missing, every group can decide."""
        return self.context.n - self.f

    @property
    def turns(self) -> int:
        """How many groups there are, one after the other."""
        n, r = self.context.n, self.parameters.rotate
        return 1 if self.k == n else next(turns for turns in range(1, n + 1) if turns * r % n == 0)

    def groups(self) -> tuple[tuple[int, ...], ...]:
        return () if self.k == self.context.n else tuple(self.group_of(turn) for turn in range(self.turns))

    def group_of(self, epoch: int) -> tuple[int, ...]:
        """The group of an epoch, in its order."""
        n = self.context.n
        return tuple((epoch * self.parameters.rotate + i) % n for i in range(self.k))

    def epoch_of(self, height: int) -> int:
        """Which epoch decides a height."""
        return int((height - 1) // self.parameters.epoch)

    def primary_of(self, view: int) -> int:
        """The view counts in its epoch."""
        return self.group_of(view // VIEWS)[view % VIEWS % self.k]

    def begin_epoch(self, epoch: int) -> None:
        """This epoch is the one of the next block here."""
        self.epoch = epoch
        self.first_view = epoch * VIEWS
        self.is_member = self.context.me in self.group_of(epoch)
        self.audience = ALL if self.k == self.context.n else group(epoch % self.turns)

    def checkpoint(self, *, again: bool = False) -> None:
        """The last block of an epoch takes the place of a checkpoint: the next group goes on."""
        context = self.context
        epoch = self.epoch_of(context.height + 1)
        if epoch == self.epoch:
            return
        self.begin_epoch(epoch)
        context.cancel(self.change_timer)
        self.changes = {}
        self.low_mark = context.height
        self.timeout_ns = self.parameters.request_timeout_ns
        context.persist(low_mark=self.low_mark)
        self.enter(self.first_view)

    @property
    def window(self) -> int:
        return int(self.parameters.epoch)

    @property
    def high_mark(self) -> int:
        """The end of the epoch."""
        return (self.epoch + 1) * self.window

    # --- normal case in the group ----------------------------------------------------------------------

    def pre_prepare(self, block: Block) -> None:
        """Multicast <PRE-PREPARE, v, n, d> in the group."""
        context = self.context
        ballot = context.ballot(self.view, block.height, block)
        context.persist(proposed=(self.view, block))
        context.proposing()
        context.broadcast(PrePrepare(self.view, block.height, block), self.audience)
        self.accept(ballot, context.me)

    def keep(self, sender: int, message: PrePrepare) -> None:
        super().keep(sender, message)
        if message.sequence > self.context.height + 1 + self.parameters.pipeline:
            self.fill_gap()

    @upon(COMMIT)
    def on_committed(self, ballot: Ballot) -> None:
        """committed-local(m, v, n, i): execute in order of n, hand out what was executed, go on."""
        assert ballot.block is not None
        if self.active and ballot.view == self.view:
            before = self.context.height
            self.context.decide(ballot.block)
            for height in range(before + 1, self.context.height + 1):
                self.hand_out(height)
            self.propose()

    # --- outside the group -----------------------------------------------------------------------------

    def hand_out(self, height: int) -> None:
        """Send a decided block to the nodes outside that are mine for this height."""
        context, members = self.context, self.group_of(self.epoch)
        block = context.decided_block(height)
        assert block is not None
        outside = [(members[-1] + 1 + i) % context.n for i in range(context.n - self.k)]
        for node in outside[(members.index(context.me) - height) % self.k :: self.k]:
            context.send(node, Committed(block, block.number, self.signers()))

    @upon(Committed)
    def on_block(self, sender: int, message: Committed) -> None:
        """Execute a certified block; with a gap below it waits, and what is missing is fetched."""
        context, block = self.context, message.block
        if message.digest != block.number or block.height <= context.height:
            return
        if not context.decide(block):
            self.fill_gap()
        self.propose()

    def fill_gap(self) -> None:
        """Fetch, once at each height."""
        if self.asked < self.context.height:
            self.asked = self.context.height
            self.fetch()

    @upon(NO_PROGRESS)
    def on_request_timeout(self) -> None:
        """A member asks for a view change; a node outside asks for blocks."""
        if self.is_member:
            super().on_request_timeout()
            return
        self.fetch()
        self.context.made_progress()
        self.context.watch_progress(self.timeout_ns)

    def peers(self) -> tuple[int, ...]:
        """The group that decides the next height here, as far as this node knows; alone in it: everybody."""
        group_ = sorted({*self.group_of(self.epoch)} - {self.context.me})
        return tuple(group_) or super().peers()

    @upon(Executed)
    def on_executed(self, sender: int, message: Executed) -> None:
        super().on_executed(sender, message)
        if self.context.behind():
            self.fill_gap()

    # --- view changes in the group ---------------------------------------------------------------------

    def change_view(self, view: int) -> None:
        """h is the height: what was executed is certified. Outside the group there is nothing to change."""
        if not self.is_member:
            self.enter(self.view)
            return
        self.low_mark = self.context.height
        self.context.persist(low_mark=self.low_mark)
        super().change_view(view)

    @upon(ViewChange)
    def on_view_change(self, sender: int, message: ViewChange) -> None:
        """Of this epoch and group: as in PBFT. Others are behind, or this replica is."""
        epoch = message.view // VIEWS
        if epoch < self.epoch:
            self.on_fetch(sender, Fetch(message.low_mark))
        elif epoch > self.epoch:
            self.fill_gap()
        elif self.is_member and sender in self.group_of(epoch):
            super().on_view_change(sender, message)

    @upon(NewView)
    def on_new_view(self, sender: int, message: NewView) -> None:
        """Of an epoch that has not begun here: this replica is behind."""
        if message.view // VIEWS > self.epoch:
            self.fill_gap()
        else:
            super().on_new_view(sender, message)
