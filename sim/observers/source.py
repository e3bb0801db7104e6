"""A voter's side: it answers those who follow it, and sends each block it decides to those who asked for that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sim.host import ReplicaContext, Run
from sim.ledger import rows as ledger
from sim.observers import messages

HEADERS_MAX = 256  # in one answer
BODY_BYTES = 512_000  # of several bodies in one message


def chunks(items: tuple[messages.Item, ...]) -> list[tuple[messages.Item, ...]]:
    """Cut a list of blocks into parts of about `BODY_BYTES`, each of one block at least."""
    parts: list[list[messages.Item]] = []
    room = 0
    for item in items:
        if not parts or item.bytes > room:
            parts.append([])
            room = BODY_BYTES
        parts[-1].append(item)
        room -= item.bytes
    return [tuple(part) for part in parts]


class Source:
    """What a voter's seat does for followers. While its own replica does not run it answers nobody."""

    def __init__(self, run: Run, seat: int) -> None:
        self.run = run
        self.host: ReplicaContext = run.hosts[seat]
        self.seat = seat
        self.signers = run.deciding_quorum()
        self.level: dict[int, tuple[int, bool]] = {}  # follower -> height sent up to, and whether it wants bodies

    def handlers(self) -> dict[Any, Callable[..., None]]:
        """What it does upon which message."""
        return {
            messages.SyncFollow: self._on_follow,
            messages.SyncLeave: self._on_leave,
            messages.SyncWanted: self._on_wanted,
            messages.HistoryWanted: self._on_history_wanted,
        }

    def start(self) -> None:
        """After a crash nobody follows; those who did will ask again."""
        self.level.clear()
        self._watch()

    def _watch(self) -> None:
        """Be told of decisions as long as somebody follows."""
        if self.level:
            self.run.watch(self.seat, self._decided)
        else:
            self.run.unwatch(self.seat)

    def _item(self, row: int) -> messages.Item:
        rows, at = self.run.blocks, row * ledger.BLOCK_WIDTH
        return messages.Item(
            row, int(rows[at + ledger.NUMBER]), int(rows[at + ledger.HEIGHT]), int(rows[at + ledger.BYTES])
        )

    def _above(self, height: int) -> tuple[messages.Item, ...]:
        """The blocks decided here above a height that the asker has, lowest first, a message's worth of them.

        If the asker's word is old, all have some of them by now, and they have been given back: it lacks only the rest.
        """
        rows = self.run.blocks
        row = int(self.run.peers[self.seat * ledger.PEER_WIDTH + ledger.TIP])
        found: list[int] = []
        while row >= 0 and rows[row * ledger.BLOCK_WIDTH + ledger.HEIGHT] > height:
            found.append(row)
            parent, number = (
                int(rows[row * ledger.BLOCK_WIDTH + field]) for field in (ledger.PARENT, ledger.PARENT_NUMBER)
            )
            row = parent if parent >= 0 and rows[parent * ledger.BLOCK_WIDTH + ledger.NUMBER] == number else -1
        return tuple(self._item(row) for row in found[::-1][:HEADERS_MAX])

    def _on_follow(self, src: int, message: messages.SyncFollow) -> None:
        if self.seat in self.run.without_replica:
            return
        items = self._above(message.above)
        self.host.send(src, messages.SyncHeaders(self.host.height, items, self.signers, True))
        if message.stay:
            self.level[src] = (items[-1].height if items else message.above, message.bodies)
            self._watch()
            if message.bodies:
                self._send_bodies(src, items)

    def _send_bodies(self, to: int, items: tuple[messages.Item, ...]) -> None:
        for part in chunks(items):
            self.host.send(to, messages.SyncBodies(part))

    def _on_leave(self, src: int, message: messages.SyncLeave) -> None:
        if self.level.pop(src, None) is not None:
            self._watch()

    def _on_wanted(self, src: int, message: messages.SyncWanted) -> None:
        if self.seat not in self.run.without_replica:
            self._send_bodies(src, message.blocks)

    def _on_history_wanted(self, src: int, message: messages.HistoryWanted) -> None:
        if self.seat not in self.run.without_replica:
            self.host.send(src, messages.History(message.first, message.count, message.body_bytes, self.signers))

    def _decided(self, row: int) -> None:
        """This voter has decided a block: on to those who follow and have all before it."""
        item = self._item(row)
        for follower, (height, bodies) in self.level.items():
            if item.height == height + 1:
                self.level[follower] = (item.height, bodies)
                self.host.send(follower, messages.SyncHeaders(item.height, (item,), self.signers, False))
                if bodies:
                    self.host.send(follower, messages.SyncBodies((item,)))
