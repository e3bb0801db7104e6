"""The oracle's network cards where connections share them (stage 2).

Naive: every connection is a list of copies, and the card is asked anew after each change which one is through first.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

from tests.oracle.world import Copy

if TYPE_CHECKING:
    from tests.oracle.engine import Oracle

CARD, READY = 2, 1 << 30  # priorities of what happens at cards: before everything that is due
SMALL_BYTES_MAX = 65_536
WHOLE = 1 << 30  # a share that is not one part in k is counted in parts of this


class Waiting:
    """A copy at the head of its connection, or behind, and what of it is still to be sent, ps of the whole card."""

    def __init__(self, copy: Copy, left_ps: int) -> None:
        self.copy, self.left_ps = copy, left_ps
        self.since = 0  # when it came to the head
        self.order = 0  # among those that came to a head


class ReceivingCard:
    """A card that takes in what others send side by side. It remembers when it was idle lately, four times at most."""

    def __init__(self, free: int = 0) -> None:
        self.free = free  # all it does before this is settled
        self.idle: list[tuple[int, int]] = []  # from, to
        self.last = 0

    def take_in(self, arrives: int, flow_ns: int, takes: int) -> int:
        """When a copy is received whose bytes have come in over so long, and for which the card takes so long."""
        begins = arrives - max(flow_ns, takes)
        left, still = takes, []
        for start, end in self.idle:
            used = max(min(left, end - max(start, begins)), 0)
            left -= used
            if start < end - used:
                still.append((start, end - used))
        self.idle = still
        received = arrives
        if left:
            if begins > self.free:
                self.note(self.free, begins)
            self.free = max(self.free, begins) + left
            received = max(arrives, self.free)
        self.last = max(received, self.last)
        return self.last

    def note(self, start: int, end: int) -> None:
        """It was idle from then until then: one interval with the last one if little lies between, or one more."""
        if self.idle:
            before, ended = self.idle[-1]
            if (start - ended) * 16 <= ended - before + end - start:
                self.idle[-1] = (start - (ended - before), end)
                return
        self.idle.append((start, end))
        if len(self.idle) > 4:
            self.merge()

    def merge(self) -> None:
        """The two with the least between them, the last one not among them, become one that ends with the later."""
        pairs = list(zip(self.idle, self.idle[1:-1], strict=False))
        i = min(range(len(pairs)), key=lambda k: pairs[k][1][0] - pairs[k][0][1])
        (start, end), (later, ends) = pairs[i]
        self.idle[i : i + 2] = [(later - (end - start), ends)]


class SharedCard:
    """A card whose connections send side by side: one to each receiver for small messages, and one for the rest."""

    def __init__(self, oracle: Oracle, node: int, leave: Callable[[Copy], None]) -> None:
        self.oracle, self.node, self.leave = oracle, node, leave
        self.ps = oracle.network.tx_ps[node]
        self.connections: list[dict[int, list[Waiting]]] = [{}, {}]  # small and the rest: in order, by receiver
        self.served = 0
        self.version = self.begun = 0

    def add(self, copy: Copy) -> None:
        """A copy is signed: it is sent, or waits for those before it on its connection."""
        kind = copy.message.kind
        lane = 0 if kind.small and kind.size <= SMALL_BYTES_MAX else 1
        behind = self.connections[lane].get(copy.dst)
        waiting = Waiting(copy, kind.size * self.ps)
        if behind is not None:
            behind.append(waiting)
        else:
            self.serve()
            self.connections[lane][copy.dst] = [waiting]
            self.begin(waiting)
        self.plan()

    def begin(self, waiting: Waiting) -> None:
        """A copy is at the head of its connection now."""
        self.begun += 1
        waiting.since, waiting.order = self.oracle.now, self.begun

    def sending(self) -> list[tuple[int, list[Waiting]]]:
        """The connections that get something of the card now, with their receivers."""
        small, rest = self.connections
        if self.oracle.network.sharing == "priority":
            return list((small or rest).items())
        return [*small.items(), *rest.items()]

    def shares(self) -> list[tuple[Waiting, int | Fraction]]:
        """What each head gets of the card: one part in k, or parts of WHOLE if receivers hold some back."""
        heads = [(dst, connection[0]) for dst, connection in self.sending()]
        if not self.oracle.network.capped:
            return [(head, Fraction(1, len(heads))) for _, head in heads]
        level = WHOLE // len(heads) if heads else WHOLE
        while True:
            held_back = [cap for cap in (self.cap(dst) for dst, _ in heads) if cap < level]
            free = len(heads) - len(held_back)
            better = (WHOLE - sum(held_back)) // free if free else WHOLE
            if better <= level or not heads:
                return [(head, min(level, self.cap(dst))) for dst, head in heads]
            level = better

    def cap(self, dst: int) -> int:
        """The part of this card that the receiver's card takes in."""
        in_ps = self.oracle.network.rx_ps[dst]
        return WHOLE if in_ps <= self.ps else max(int(self.ps / in_ps * WHOLE), 1)

    def serve(self) -> None:
        """Count what has been sent since the shares changed last."""
        passed_ps = (self.oracle.now - self.served) * 1000
        self.served = self.oracle.now
        for head, share in self.shares():
            if isinstance(share, Fraction):
                head.left_ps -= passed_ps * share.numerator // share.denominator
            else:
                head.left_ps -= passed_ps * share // WHOLE

    def through_ns(self) -> int | None:
        """When the first copy is through as things are, ns."""
        times = []
        for head, share in self.shares():
            left_ps = max(head.left_ps, 0)
            if isinstance(share, Fraction):
                takes = -(-left_ps * share.denominator // 1000)
            elif left_ps:
                left_ns = left_ps // 1000 + 1
                takes = (left_ns // share) * WHOLE + (left_ns % share) * WHOLE // share + 1
            else:
                takes = 0
            times.append(self.served + takes)
        return min(times, default=None)

    def plan(self) -> None:
        """Be called when the next copy is through, unless something changes before."""
        self.version += 1
        time = self.through_ns()
        if time is not None:
            call = partial(self.go_on, self.version)
            self.oracle.at(max(time, self.oracle.now), CARD + self.node, call)

    def go_on(self, version: int) -> None:
        """What is through leaves, small messages first."""
        if version != self.version:
            return
        self.serve()
        for connections in self.connections:
            if connections is self.connections[1] and self.connections[0] and self.oracle.network.sharing == "priority":
                continue  # they have to wait
            through = [(dst, heads[0]) for dst, heads in connections.items() if heads[0].left_ps <= 0]
            if not self.oracle.network.capped:  # the order in which they are through, within the nanosecond
                through.sort(key=lambda one: (one[1].left_ps, one[1].order))
            for dst, head in through:
                connections[dst].pop(0)
                head.copy.message.flow_ns = self.oracle.now - head.since
                if connections[dst]:
                    self.begin(connections[dst][0])
                else:
                    del connections[dst]
            for _, head in through:
                self.leave(head.copy)
        self.plan()
