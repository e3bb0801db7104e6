"""A follower's side: it asks a voter for headers and bodies, keeps what has come in order, and changes voters.

Of the blocks of the run it has those that the ledger counts as decided at its seat: with their bodies, or with their
headers alone if it keeps no more. Blocks from before the run (`Backlog`) are only counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from sim.engine import entry
from sim.host import ReplicaContext, Run
from sim.ledger import rows as ledger
from sim.ledger.header import HEADER_BYTES
from sim.observers import messages
from sim.observers.source import chunks
from sim.protocol import Message, Timer

POLL = Timer("poll")
CHECK = Timer("check")
_PARTS = 8  # messages that a window of history is cut into


@dataclasses.dataclass
class Backlog:
    """Blocks from before the run that a node lacks: first all headers, then all bodies, a window of them ahead."""

    blocks: int
    block_bytes: int
    window_bytes: int
    headers_only: bool = False
    asked: int = 0  # of the present kind, up to which number
    bodies: bool = False  # headers are complete
    under_way: dict[int, int] = dataclasses.field(default_factory=dict)  # first -> count
    headers_ns: int | None = None  # when the last header had come
    done_ns: int | None = None  # when the node had caught up
    complete: bool = False

    @property
    def body_bytes(self) -> int | None:
        """Bytes of a body, if bodies are what is asked for now."""
        return self.block_bytes if self.bodies else None

    def next(self, header_bytes: int) -> list[messages.HistoryWanted]:
        """What to ask for now."""
        each = max(self.block_bytes if self.bodies else header_bytes, 1)
        most = max(self.window_bytes // _PARTS // each, 1)
        found = []
        while len(self.under_way) < _PARTS and self.asked < self.blocks:
            count = min(most, self.blocks - self.asked)
            self.under_way[self.asked] = count
            found.append(messages.HistoryWanted(self.asked, count, self.body_bytes))
            self.asked += count
        return found

    def again(self) -> list[messages.HistoryWanted]:
        """What has been asked for and has not come."""
        return [messages.HistoryWanted(first, count, self.body_bytes) for first, count in self.under_way.items()]

    def take(self, message: messages.History, now_ns: int) -> None:
        """Some blocks have come."""
        if message.body_bytes != self.body_bytes or self.under_way.pop(message.first, None) is None:
            return  # it came twice
        if self.under_way or self.asked < self.blocks:
            return
        if not self.bodies:
            self.headers_ns = now_ns
        self.complete = self.bodies or self.headers_only
        self.bodies, self.asked = True, self.blocks if self.complete else 0


class Follower:
    """One node that follows. `order`: voters, the one to ask first in front."""

    def __init__(
        self,
        run: Run,
        seat: int,
        order: tuple[int, ...],
        *,
        interval_ns: int | None,
        timeout_ns: int,
        headers_only: bool = False,
        backlog: Backlog | None = None,
        caught_up: Callable[[], None] = lambda: None,
    ) -> None:
        self.run = run
        self.host: ReplicaContext = run.hosts[seat]
        self.seat = seat
        self.order = order
        self.interval_ns = interval_ns  # None: voters push
        self.timeout_ns = timeout_ns
        self.headers_only = headers_only
        self.backlog = backlog
        self.caught_up = caught_up
        self.header_bytes = HEADER_BYTES + run.signing.certificate_bytes(run.deciding_quorum())
        self.turn = 0
        self.switches = 0
        self.stopped = False
        self._forget()

    def _forget(self) -> None:
        """What is in memory only: headers whose bodies have not come, and what has been asked."""
        self.headers: dict[int, messages.Item] = {}  # by height, above what is kept
        self.bodies: set[int] = set()
        self.known = self.host.height  # of the last header that follows all before
        self.tip = self.known  # of the source's chain, as last told
        self.probed: int | None = None  # another voter that was asked how far it is
        self.next_probe = 1  # places after the source's in the order
        self.news_ns = self.run.now_ns  # when a block last came, or somebody was asked whether there is one
        self.heard_ns = self.run.now_ns
        self.asked_ns: int | None = None  # since when an answer is due

    @property
    def source(self) -> int:
        """The voter it follows now."""
        return self.order[self.turn]

    def handlers(self) -> dict[Any, Callable[..., None]]:
        """What it does upon which message or timer."""
        return {
            messages.SyncHeaders: self._on_headers,
            messages.SyncBodies: self._on_bodies,
            messages.History: self._on_history,
            POLL: self._on_poll,
            CHECK: self._on_check,
        }

    def start(self) -> None:
        """Ask for what is missing."""
        self._forget()
        self._ask()
        if self.interval_ns is not None:
            self.host.set_timer(POLL, self.interval_ns)
        self.host.set_timer(CHECK, self.timeout_ns // 2)
        self._ask_history(again=True)

    def stop(self) -> None:
        """Follow no longer."""
        self.stopped = True
        self._send(messages.SyncLeave())

    def _send(self, message: Message) -> None:
        self.host.send(self.source, message)

    # --- asking ----------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Begin anew from what is kept."""
        self.headers, self.bodies, self.known = {}, set(), self.host.height
        self.asked_ns = self.run.now_ns
        self._send(messages.SyncFollow(self.known, stay=self.interval_ns is None, bodies=not self.headers_only))

    def _ask_history(self, *, again: bool = False) -> None:
        if self.backlog is not None:
            for message in self.backlog.again() if again else []:
                self._send(message)
            for message in self.backlog.next(self.header_bytes):
                self._send(message)

    def _on_poll(self, about: Any) -> None:
        if self.stopped:
            return
        assert self.interval_ns is not None
        self.host.set_timer(POLL, self.interval_ns)
        if self.asked_ns is None and not self.headers:
            self._ask()

    def _on_check(self, about: Any) -> None:
        """Has the source been silent for too long?"""
        if self.stopped:
            return
        self.host.set_timer(CHECK, self.timeout_ns // 2)
        now_ns = self.run.now_ns
        if now_ns - self.news_ns >= self.timeout_ns + 2 * (self.interval_ns or 0):  # who polls hears late anyway
            self._probe()
        if now_ns - max(self.heard_ns, self.asked_ns or 0) < self.timeout_ns:
            return
        waits = self.backlog is not None and bool(self.backlog.under_way)
        if self.asked_ns is not None:
            self._switch(1)
        elif self.interval_ns is None or self.headers or waits:
            self._ask()
            self._ask_history(again=True)

    def _probe(self) -> None:
        """Nothing new for so long: is another voter further, and the source behind?"""
        self.news_ns = self.run.now_ns
        if len(self.order) > 1:
            self.probed = self.order[(self.turn + self.next_probe) % len(self.order)]
            self.host.send(self.probed, messages.SyncFollow(self.known, stay=False, bodies=False))
            self.next_probe = self.next_probe % (len(self.order) - 1) + 1

    def _on_probe(self, message: messages.SyncHeaders) -> None:
        """Another voter says how far it is."""
        probed, self.probed = self.probed, None
        assert probed is not None
        if message.tip > max(self.tip, self.known):
            self._switch((self.order.index(probed) - self.turn) % len(self.order))

    def _switch(self, places: int) -> None:
        """Turn to another voter, so many places further: the next nearest, or one that is further."""
        self._send(messages.SyncLeave())
        self.turn = (self.turn + places) % len(self.order)
        self.next_probe = 1
        self.switches += 1
        self._ask()
        self._ask_history(again=True)

    # --- receiving -------------------------------------------------------------------------------------

    def _from_source(self, src: int) -> bool:
        if src != self.source:
            self.host.send(src, messages.SyncLeave())
            return False
        self.heard_ns = self.run.now_ns
        return True

    def _on_headers(self, src: int, message: messages.SyncHeaders) -> None:
        if not self.stopped and src == self.probed and src != self.source and message.answer:
            self._on_probe(message)
            return
        if self.stopped or not self._from_source(src):
            return
        if message.answer:
            self.asked_ns = None
        self.tip = max(self.tip, message.tip)
        fresh = []
        for item in message.blocks:
            if item.height == self.known + 1:
                self.known += 1
                self.headers[item.height] = item
                fresh.append(item)
                self.news_ns, self.next_probe = self.run.now_ns, 1
            elif item.height > self.known:  # one before it was lost, or is in the answer that is due
                if self.asked_ns is None:
                    self._ask()
                return
        if self.interval_ns is not None and not self.headers_only:
            for part in chunks(tuple(fresh)):
                self._send(messages.SyncWanted(part))
        self._keep()

    def _on_bodies(self, src: int, message: messages.SyncBodies) -> None:
        if self.stopped or not self._from_source(src):
            return
        self.bodies.update(item.height for item in message.blocks)
        self._keep()

    def _keep(self) -> None:
        """Keep what follows what is kept, and ask on if the source has more."""
        while (item := self.headers.get(self.host.height + 1)) is not None:
            if not self.headers_only and item.height not in self.bodies:
                return
            if not self._decide(item):
                break
        if self.tip > self.known and self.asked_ns is None:
            self._ask()
        self._look_whether_caught_up()

    def _decide(self, item: messages.Item) -> bool:
        """The node has this block. False: its source's chain is not the one that was followed so far."""
        if self.run.blocks[item.row * ledger.BLOCK_WIDTH + ledger.NUMBER] == item.number and (
            entry.decide_block(self.run.run_state, self.seat, item.row, 0) == 1
        ):
            del self.headers[item.height]
            self.bodies.discard(item.height)
            return True
        return False

    # --- blocks from before the run --------------------------------------------------------------------

    def _on_history(self, src: int, message: messages.History) -> None:
        if self.stopped or self.backlog is None or not self._from_source(src):
            return
        self.backlog.take(message, self.run.now_ns)
        self._ask_history()
        self._look_whether_caught_up()

    def _look_whether_caught_up(self) -> None:
        backlog = self.backlog
        if backlog is None or not backlog.complete or backlog.done_ns is not None or self.host.height < self.tip:
            return
        backlog.done_ns = self.run.now_ns
        self.caught_up()
