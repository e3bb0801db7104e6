"""Gossip: what a run's hosts know of what spreads from neighbour to neighbour (compiled: sim.engine.gossip)."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np

from sim.engine import entry, gossip, growth
from sim.kernel import run_state as kernel
from sim.kernel import tally
from sim.ledger import rows as ledger
from sim.protocol import GossipMessage

if TYPE_CHECKING:
    from sim.host.run import Run


class GossipStore:
    """The gossip messages of a run: their slots, by author and content, and their messages, as they are passed on."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._slots: dict[tuple[int, Hashable], int] = {}
        self._contents: dict[int, GossipMessage] = {}  # by slot
        self._of_height: dict[int, list[int]] = {}  # slots, in the order in which their gossip messages arose
        self._free: list[int] = []
        self._kept: dict[int, int] = {}  # by seat: how many heights it keeps

    def begin(self, seat: int, neighbours: tuple[int, ...], kept: int, *, in_fast_path: bool) -> None:
        """A seat passes gossip messages on to these neighbours from now on."""
        run, run_state = self.run, self.run.engine.run_state
        self._kept[seat] = kept
        passes: list[int] = []
        for sender in (*neighbours, gossip.STRANGER) if in_fast_path else ():
            others = tuple(other for other in neighbours if other != sender)
            passes += sender, -1 - run.messages.several(others) if others else gossip.TO_NOBODY
        row = run_state[gossip.GOSSIPER][seat * gossip.GOSSIPER_WIDTH :]
        before = run_state[gossip.PASSES]
        if len(passes) > 0 and row[gossip.FIRST] == 0:
            run_state.adopt(gossip.PASSES, np.concatenate((before, np.array(passes))))
            row[gossip.FIRST] = len(before) // 2
        row[gossip.KEPT] = kept
        row[gossip.NEIGHBOURS] = len(passes) // 2

    def name(self, gossip_message: GossipMessage) -> int:
        """What copies of a gossip message are marked with; a new one gets a slot."""
        slot = self._slots.get((gossip_message.author, gossip_message.content))
        if slot is None:
            slot = self._enlist(gossip_message)
        generation = int(self._row(slot)[gossip.GENERATION])
        return gossip.OF_GOSSIP | generation << 32 | slot

    def deliver_once(self, seat: int, gossip_message: GossipMessage) -> bool:
        """A seat has heard a gossip message. False: it had before."""
        return bool(entry.deliver_once(self.run.run_state, seat, self.name(gossip_message) & gossip.SLOT))

    def seen(self, seat: int, height: int) -> list[GossipMessage]:
        """What a seat has heard of a height."""
        run_state = self.run.run_state
        return [
            self._contents[slot] for slot in self._of_height.get(height, ()) if entry.has_seen(run_state, seat, slot)
        ]

    def message(self, name: int) -> GossipMessage | None:
        """The message of a copy that the engine has sent; None if nobody keeps its height any more."""
        slot = name & gossip.SLOT
        if self._row(slot)[gossip.GENERATION] != (name >> 32) & gossip.GENERATIONS:
            return None
        return self._contents[slot]

    def _row(self, slot: int) -> np.ndarray:
        return self.run.engine.run_state[gossip.GOSSIP][slot * gossip.GOSSIP_WIDTH :]

    def _enlist(self, gossip_message: GossipMessage) -> int:
        run, message = self.run, gossip_message.passed_on()
        if gossip_message.height not in self._of_height:
            self._forget()
            self._of_height[gossip_message.height] = []
        if not self._free:
            self._free = growth.add_rumours(run.engine.run_state)
        slot = self._free.pop()
        size, verify_ns = run.messages.size_and_verification(message)
        run.run_state[gossip.GOSSIP_KIND] = run.kinds[type(message)]
        vote_row, key, voter = -1, 0, -1
        cast = gossip_message.counts()
        if cast is not None:
            vote, view, number, block, voter = cast
            vote_row = run.block_store.ballot(view, number, block).rows.get(vote, -1)
            key = int(run.engine.run_state[kernel.TALLY][vote_row * tally.ROW + tally.KEY])
        row = self._row(slot)
        row[gossip.HEIGHT], row[gossip.VOTE_ROW], row[gossip.VOTE_KEY] = gossip_message.height, vote_row, key
        row[gossip.VOTER], row[gossip.SIZE], row[gossip.VERIFY_NS] = voter, size, verify_ns
        row[gossip.HANDLE_NS] = run.costs.handle_ns
        self._slots[gossip_message.author, gossip_message.content] = slot
        self._contents[slot] = message
        self._of_height[gossip_message.height].append(slot)
        return slot

    def _forget(self) -> None:
        """Free the slots of heights that no seat that runs keeps any more."""
        run = self.run
        tips = run.engine.peer()[:, ledger.TIP_HEIGHT]
        lowest = min((int(tips[seat]) - kept for seat, kept in self._kept.items() if run.is_up(seat)), default=0)
        words = run.engine.words
        for height in [height for height in self._of_height if height <= lowest]:
            for slot in self._of_height.pop(height):
                message = self._contents.pop(slot)
                del self._slots[message.author, message.content]
                self._row(slot)[gossip.GENERATION] += 1
                run.engine.run_state[gossip.HEARD][slot * words : (slot + 1) * words] = 0
                self._free.append(slot)
