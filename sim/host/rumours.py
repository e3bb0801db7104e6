"""Rumours: what a run's hosts know of what spreads from neighbour to neighbour (compiled: sim.engine.rumours)."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np

from sim.engine import entry, growth, rumours
from sim.kernel import run_state as d
from sim.kernel import tally
from sim.ledger import rows as r
from sim.protocol import Rumour

if TYPE_CHECKING:
    from sim.host.run import Run


class Rumours:
    """The rumours of a run: their slots, by author and content, and their messages, as they are passed on."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._slots: dict[tuple[int, Hashable], int] = {}
        self._contents: dict[int, Rumour] = {}  # by slot
        self._of_height: dict[int, list[int]] = {}  # slots, in the order in which their rumours arose
        self._free: list[int] = []
        self._kept: dict[int, int] = {}  # by seat: how many heights it keeps

    def gossip(self, seat: int, neighbours: tuple[int, ...], kept: int, *, in_fast_path: bool) -> None:
        """A seat passes rumours on to these neighbours from now on."""
        run, run_state = self.run, self.run.engine.run_state
        self._kept[seat] = kept
        passes: list[int] = []
        for sender in (*neighbours, rumours.STRANGER) if in_fast_path else ():
            others = tuple(other for other in neighbours if other != sender)
            passes += sender, -1 - run.messages.several(others) if others else rumours.TO_NOBODY
        row = run_state[rumours.GOSSIPER][seat * rumours.GOSSIPER_WIDTH :]
        before = run_state[rumours.PASSES]
        if len(passes) > 0 and row[rumours.FIRST] == 0:
            run_state.adopt(rumours.PASSES, np.concatenate((before, np.array(passes))))
            row[rumours.FIRST] = len(before) // 2
        row[rumours.KEPT] = kept
        row[rumours.NEIGHBOURS] = len(passes) // 2

    def name(self, rumour: Rumour) -> int:
        """What copies of a rumour are marked with; a new one gets a slot."""
        slot = self._slots.get((rumour.author, rumour.content))
        if slot is None:
            slot = self._enlist(rumour)
        generation = int(self._row(slot)[rumours.GENERATION])
        return rumours.OF_RUMOUR | generation << 32 | slot

    def hear(self, seat: int, rumour: Rumour) -> bool:
        """A seat has heard a rumour. False: it had before."""
        return bool(entry.hear(self.run.run_state, seat, self.name(rumour) & rumours.SLOT))

    def heard(self, seat: int, height: int) -> list[Rumour]:
        """What a seat has heard of a height."""
        run_state = self.run.run_state
        return [
            self._contents[slot] for slot in self._of_height.get(height, ()) if entry.has_heard(run_state, seat, slot)
        ]

    def message(self, name: int) -> Rumour | None:
        """The message of a copy that the engine has sent; None if nobody keeps its height any more."""
        slot = name & rumours.SLOT
        if self._row(slot)[rumours.GENERATION] != (name >> 32) & rumours.GENERATIONS:
            return None
        return self._contents[slot]

    def _row(self, slot: int) -> np.ndarray:
        return self.run.engine.run_state[rumours.RUMOUR][slot * rumours.RUMOUR_WIDTH :]

    def _enlist(self, rumour: Rumour) -> int:
        run, message = self.run, rumour.passed_on()
        if rumour.height not in self._of_height:
            self._forget()
            self._of_height[rumour.height] = []
        if not self._free:
            self._free = growth.add_rumours(run.engine.run_state)
        slot = self._free.pop()
        size, verify_ns = run.messages.size_and_verification(message)
        run.run_state[rumours.RUMOUR_KIND] = run.kinds[type(message)]
        vote_row, key, voter = -1, 0, -1
        cast = rumour.counts()
        if cast is not None:
            vote, view, number, block, voter = cast
            vote_row = run.tree.ballot(view, number, block).rows.get(vote, -1)
            key = int(run.engine.run_state[d.TALLY][vote_row * tally.ROW + tally.KEY])
        row = self._row(slot)
        row[rumours.HEIGHT], row[rumours.VOTE_ROW], row[rumours.VOTE_KEY] = rumour.height, vote_row, key
        row[rumours.VOTER], row[rumours.SIZE], row[rumours.VERIFY_NS] = voter, size, verify_ns
        row[rumours.HANDLE_NS] = run.costs.handle_ns
        self._slots[rumour.author, rumour.content] = slot
        self._contents[slot] = message
        self._of_height[rumour.height].append(slot)
        return slot

    def _forget(self) -> None:
        """Free the slots of heights that no seat that runs keeps any more."""
        run = self.run
        tips = run.engine.peer()[:, r.TIP_HEIGHT]
        lowest = min((int(tips[seat]) - kept for seat, kept in self._kept.items() if run.is_up(seat)), default=0)
        words = run.engine.words
        for height in [height for height in self._of_height if height <= lowest]:
            for slot in self._of_height.pop(height):
                message = self._contents.pop(slot)
                del self._slots[message.author, message.content]
                self._row(slot)[rumours.GENERATION] += 1
                run.engine.run_state[rumours.HEARD][slot * words : (slot + 1) * words] = 0
                self._free.append(slot)
