"""When the leader of a view proposes: least delays, and how long it waits for a transaction.

For protocols whose leaders change with every view and drive the chain forward with empty blocks if need be.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sim.parameters import Nanoseconds, Parameters, count, quantity
from sim.protocol import Block, Context, Timer

PROPOSE_TIMER = Timer("propose")
EMPTY_TIMER = Timer("empty block")


class ViewParameters(Parameters):
    """How long views last and how often they bring blocks."""

    view_timeout_ns: Nanoseconds = quantity(
        "2 s", "how long a replica waits in a view at first", positive=True
    )
    view_timeout_max_ns: Nanoseconds = quantity(
        "30 s", "the wait doubles with each expiry up to this, until a commit"
    )
    min_block_delay_ns: Nanoseconds = quantity(
        "0 ms", "least wait of a leader between certificate and proposal"
    )
    empty_block_delay_ns: Nanoseconds = quantity(
        "0 ms",
        "how long a leader waits for a transaction while nothing is under way; 0: empty blocks at once",
    )
    faults: int | None = count(
        None, "f: Byzantine replicas tolerated; by default the most that n allows", low=0
    )

    def tolerated(self, voters: int) -> int:
        """f."""
        return (voters - 1) // 3 if self.faults is None else self.faults

    def check(self, voters: int) -> None:
        """Raise ValueError if the parameters do not fit the number of voters."""
        f = self.tolerated(voters)
        if voters < 2:
            raise ValueError(f"{voters} voter: votes go to the next leader; take at least 2 voters")
        if voters < 3 * f + 1:
            raise ValueError(
                f"faults {f}: needs n >= 3f + 1 = {3 * f + 1} voters, not {voters}; lower faults"
            )
        if self.view_timeout_max_ns < self.view_timeout_ns:
            raise ValueError(
                f"view_timeout_max {self.view_timeout_max_ns} ns: must not be below view_timeout "
                f"{self.view_timeout_ns} ns; raise it"
            )
        waits = self.min_block_delay_ns + self.empty_block_delay_ns
        if waits >= self.view_timeout_ns:
            raise ValueError(
                f"min_block_delay + empty_block_delay {waits} ns: must be below view_timeout "
                f"{self.view_timeout_ns} ns, or views expire; shorten them or raise view_timeout"
            )


class Turn:
    """One replica's turns to propose. A timer or BATCH says when to ask again whether a block is due."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.parameters: Any = context.parameters
        self.view = 0  # the last view it prepared to propose in
        self.idle_view = 0  # the view in which it waits for a transaction
        self.proposed_ns: int | None = None

    def begin(self, view: int) -> bool:
        """It may propose in this view. False: it was told before, or PROPOSE_TIMER will say when."""
        if self.view >= view:
            return False
        self.view = view
        context = self.context
        wait = self.parameters.min_block_delay_ns
        if self.proposed_ns is not None and context.block_interval_ns:
            wait = max(wait, self.proposed_ns + context.block_interval_ns - context.now_ns)
        if wait > 0:
            context.set_timer(PROPOSE_TIMER, wait, view)
        return bool(wait <= 0)

    def due(self, view: int, under_way: Iterable[Block]) -> bool:
        """Whether to propose now. If not: BATCH or EMPTY_TIMER will say when.

        Blocks that carry transactions and are not final (`under_way`) are driven forward at once.
        """
        patience = self.parameters.empty_block_delay_ns
        if not patience or any(block.txs for block in under_way) or self.context.await_batch():
            return True
        self.idle_view = view
        self.context.set_timer(EMPTY_TIMER, patience, view)
        return False

    def waited(self, view: int, timer_view: int | None) -> bool:
        """Whether BATCH (None) or EMPTY_TIMER ends the wait of this view."""
        return self.idle_view == view and timer_view in (None, view)

    def proposed(self) -> None:
        """It proposes now."""
        self.idle_view = 0
        self.proposed_ns = self.context.now_ns
