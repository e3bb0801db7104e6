"""Seeded bugs of chained HotStuff."""

from __future__ import annotations

from typing import cast

from sim.adversary.mutants.faulty_context import WithoutOwnVotes
from sim.families.chained.tree import GENESIS, QC
from sim.protocol import Block, Context
from sim.protocols.hotstuff import HotStuff


class Quorum2F(HotStuff):
    """Two certificates of a view need not share a correct replica."""

    def quorum(self) -> int:
        return max(2 * self.f, 1)


class VotesForgotten(HotStuff):
    """What it voted for is not on disk: after a restart it may vote in the same view again."""

    def save(self) -> None:
        self.context.disk.persist(view=self.view, voted=None, high=self.high, locked=self.locked)


class LockForgotten(HotStuff):
    """A view that expires takes the lock with it."""

    def enter(self, view: int) -> None:
        self.locked = GENESIS
        super().enter(view)


class LockNotRaised(HotStuff):
    """It never locks."""

    def update(self, view: int, justify: QC) -> None:
        super().update(view, justify)
        self.locked = GENESIS


class CommitsAcrossGaps(HotStuff):
    """Three certified blocks in a row commit, whatever views lie between them."""

    def commits(self, justify: QC) -> Block | None:
        block = justify.block
        for _ in range(2):
            if block is None or block.body is None:
                return None
            block = block.body.block
        return block


class OwnVoteDropped(HotStuff):
    """The next leader does not count its own vote."""

    def __init__(self, context: Context) -> None:
        super().__init__(cast(Context, WithoutOwnVotes(context)))
