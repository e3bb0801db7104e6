"""The fast path of one replica, seen from both sides: what it did, and who keeps the replica in step with it.

The host brackets every handler. Before it, what the fast path did becomes the replica's own; after it, the guard is
what the replica's state says. So no protocol keeps books for the fast path, and none can forget to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.kernel import post
from sim.ledger import rows as ledger
from sim.protocol import Block, Message, Replica

if TYPE_CHECKING:
    from sim.host.context import ReplicaContext

CLOSED = -1  # a guard that no event meets


class FastPathBracket:
    """What `sim.protocol.FastPathView` promises a replica, and the bracket around its handlers."""

    def __init__(self, host: ReplicaContext, *, allowed: bool) -> None:
        self.host = host
        self.allowed = allowed  # for this seat: not for corrupted voters, nor for observers
        self.is_used = False  # whether its replica declares a normal case
        self._peer_at = host.seat * ledger.PEER_WIDTH
        self._guard_at = host.seat * post.NODE_WIDTH + post.GUARD
        host.run.peers[self._peer_at + ledger.ACCEPTED] = -1  # row 0 is a block like any other

    # --- around every handler ---------------------------------------------------------------------------

    def seat(self, replica: Replica) -> dict[Any, Callable[..., None]]:
        """The handlers of a fresh replica, bracketed if the engine will do anything for it."""
        self.is_used = self.allowed and bool(replica.normal_cases())
        return {cause: self.bracket(handler, replica) for cause, handler in replica.bound_handlers().items()}

    def bracket(self, handler: Callable[..., None], replica: Replica) -> Callable[..., None]:
        """A handler that finds its replica up to date, and leaves the guard as the replica's state says."""
        if not self.is_used:
            return handler
        run, host, accepted_at, guard_at = self.host.run, self.host, self._peer_at + ledger.ACCEPTED, self._guard_at
        absorb, guard_of = replica.absorb_fast_path, replica.guard

        def handle(*arguments: Any) -> None:
            # `absorb`, the handler, and `settle` in one: this runs a few hundred thousand times a second
            if run.adopts:
                host.chain.head = self.block() or host.chain.head
            absorb()
            run.peers[accepted_at] = -1
            handler(*arguments)
            guard = guard_of()
            before = run.nodes[guard_at]
            if guard != before or before == CLOSED:
                self._lay(CLOSED if guard is None else guard, before)

        return handle

    def absorb(self) -> None:
        """What the fast path did becomes the replica's own."""
        host = self.host
        replica = host.replica
        if not self.is_used or replica is None:
            return
        if host.run.adopts:
            host.chain.head = self.block() or host.chain.head  # my branch ends in the last block accepted for me
        replica.absorb_fast_path()
        host.run.peers[self._peer_at + ledger.ACCEPTED] = -1

    def settle(self) -> None:
        """The guard follows from what the replica is now."""
        replica = self.host.replica
        if replica is not None:
            guard = replica.guard()
            self._lay(CLOSED if guard is None else guard, self.host.run.nodes[self._guard_at])

    def _lay(self, guard: int, before: int) -> None:
        """No block is proposed without a replica under another guard, or none."""
        run = self.host.run
        if guard == before != CLOSED:
            return
        run.nodes[self._guard_at] = guard
        if guard == CLOSED or before != CLOSED:  # else a handler that opens the guard gave the lease, for this guard
            run.block_store.end_lease(self.host.seat)

    def catch_up(self) -> None:
        """For whoever looks at the replica between events: what it takes over is its own, and the guard says so."""
        if self.is_used:
            self.absorb()
            self.settle()

    def begin(self) -> None:
        """The replica has started."""
        if self.is_used:
            self.settle()

    def crash(self) -> None:
        """What the fast path did is on disk, as if handlers had written it as they went along; then it ends."""
        self.absorb()
        self.host.run.peers[self._peer_at + ledger.ACCEPTED] = -1
        self.host.run.nodes[self._guard_at] = CLOSED

    # --- what a replica may ask -------------------------------------------------------------------------

    @property
    def guard(self) -> int:
        return self.host.run.nodes[self._guard_at]

    def block(self) -> Block | None:
        run = self.host.run
        return run.block_store.at(run.peers[self._peer_at + ledger.ACCEPTED])

    def last_proposal(self) -> Block | None:
        return self.host.run.block_store.proposed_last(self.host.seat)

    def aggregated(self, block: Block) -> dict[int, int]:
        return self.host.run.dissemination.aggregated(self.host.seat, block)

    def buffered(self) -> list[tuple[int, Message]]:
        dissemination = self.host.run.dissemination
        return dissemination.buffered(self.host.seat) if dissemination.answers else []
