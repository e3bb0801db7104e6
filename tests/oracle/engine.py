"""The oracle: the message engine once more, naively, in pure SimPy.

One SimPy event per message and per queue step, Python objects, no compiled code and no arrays; nothing is worked
out ahead of time. It follows the rules written in the docstrings of `sim.kernel.post`, `tally` and `calendar`
and in `docs/kernel.md`, and shares no code with them (not even the random draws).

The total order is (time; due events before arrivals; sequence of entry). SimPy orders events by (time, priority,
insertion), so the rule is written into the priority, an integer:

    0, 1               SimPy's own: the steps of queues, which nobody outside a queue can see
    DUE + sequence     something becomes due at a node: a message is handled, a timer expires, a call is made
    ARRIVAL + sequence a copy comes out of its link

One counter gives all sequence numbers. A copy takes the number of its arrival when it is posted, and that of its
handling when it arrives; a timer when it is set; a threshold reached by a vote that crossed no network when it
is cast. A threshold reached by a vote from the network is part of that vote's handling.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any

import simpy

from tests.oracle.cards import READY, ReceivingCard, SharedCard
from tests.oracle.world import (
    ALL,
    COPIES_MAX,
    DUPLICATE,
    GATE,
    JITTER,
    LOST_ARRIVING,
    LOST_SENDING,
    RECEIVER_DOWN,
    RULE_DELAY,
    RULED_OUT,
    Copy,
    Kind,
    Message,
    MessageRule,
    Network,
    Rule,
    Tally,
    below,
    draw,
    draw_from,
    join,
)

DUE, ARRIVAL = 1 << 60, 1 << 61

Process = Generator[simpy.Event, Any, None]


class Receiver:
    """Stages 4 to 6 at a node. A crash leaves it to run out, and none of what it still handles counts."""

    def __init__(self, oracle: Oracle, node: int) -> None:
        self.oracle, self.node, env = oracle, node, oracle.env
        self.nic, self.thread = simpy.Store(env), simpy.Store(env)
        self.card = ReceivingCard(env.now)
        self.workers = simpy.Resource(env, oracle.network.workers)
        env.process(self.receive())
        env.process(self.hand_over())

    def accept(self, copy: Copy) -> None:
        """A copy arrives. It takes its place at the NIC and, already, its place at the consensus thread."""
        copy.is_verified = self.oracle.env.event()
        copy.received_at = self.received_at(copy)
        self.nic.put(copy)
        self.thread.put(copy)

    def receive(self) -> Process:
        env = self.oracle.env
        while True:
            copy = yield self.nic.get()
            if copy.received_at is None:
                yield env.timeout(copy.message.kind.size * self.oracle.network.rx_ps[self.node] // 1000)
            else:
                yield env.timeout(copy.received_at - self.oracle.now)
            copy.received = self.oracle.now
            env.process(self.verify(copy, self.workers.request() if copy.message.kind.verify_ns > 0 else None))

    def received_at(self, copy: Copy) -> int | None:
        """When a copy that arrives now is received, where its bytes may have come in while they were sent."""
        network = self.oracle.network
        if network.sharing == "fifo" or not network.rx_ps[self.node]:
            return None
        takes = copy.message.kind.size * network.rx_ps[self.node] // 1000
        if network.is_shared(copy.message.src):
            return self.card.take_in(copy.arrived, copy.message.flow_ns, takes)
        return self.card.take_in(max(copy.arrived, self.card.free) + takes, 0, takes)

    def verify(self, copy: Copy, worker: Any) -> Process:
        if worker is not None:
            yield worker
            yield self.oracle.env.timeout(self.oracle.cost(self.node, copy.message.kind.verify_ns))
            self.workers.release(worker)
        copy.verified = self.oracle.now
        assert copy.is_verified is not None
        copy.is_verified.succeed()

    def hand_over(self) -> Process:
        env = self.oracle.env
        while True:
            copy = yield self.thread.get()
            yield copy.is_verified
            yield env.timeout(self.oracle.cost(self.node, copy.message.kind.handle_ns))
            copy.done = self.oracle.now
            self.oracle.due(self.node, copy.done, partial(self.oracle.handle, copy), copy.turn, self)


class Oracle:
    """The naive engine. `wake(what, node, ...)` is called when a node has something to decide."""

    def __init__(self, network: Network, wake: Callable[..., None]) -> None:
        self.network, self.wake, self.env = network, wake, simpy.Environment(0)
        self.sequence = self.messages = 0
        self.sent = self.delivered = self.dropped = self.in_flight = self.bytes_sent = self.duplicated = 0
        self.log: list[Copy] = []  # in order of arrival
        self.lost: list[Copy] = []  # never came out of their link
        self.tallies: list[Tally] = []
        self.rules: dict[tuple[int, int], Rule] = {}
        self.message_rules: list[MessageRule] = []
        self.last_arrival: dict[tuple[int, int], int] = {}
        nodes = range(network.nodes)
        self.up = [True for _ in nodes]
        self.receivers = [Receiver(self, node) for node in nodes]
        self.signing = [simpy.Store(self.env) for _ in nodes]
        self.outgoing = [simpy.Store(self.env) for _ in nodes]
        self.cards = [SharedCard(self, node, self.leave) for node in nodes]
        for node in nodes:
            self.env.process(self.sign(node))
            self.env.process(self.transmit(node))

    # --- time ------------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """Simulated time, ns."""
        return int(self.env.now)

    def run(self, until: int) -> None:
        """Run up to and including `until`."""
        while self.env.peek() <= until:
            self.env.step()

    def at(self, time: int, priority: int, call: Callable[[], None]) -> None:
        """Call at a time, at the place among equal times that `priority` says."""
        event = simpy.Event(self.env)
        event._ok, event._value = True, None
        event.callbacks = [lambda _: call()]
        self.env.schedule(event, priority, time - self.now)  # type: ignore[arg-type]  # any integer will do

    def next(self) -> int:
        self.sequence += 1
        return self.sequence

    def due(self, node: int | None, time: int, call: Callable[[], None], turn: int, receiver: Receiver | None) -> None:
        """Something is due at a node, void if the node crashes before."""

        def unless_crashed() -> None:
            if node is None or self.receivers[node] is receiver:
                call()

        self.at(time, DUE + turn, unless_crashed)

    def cost(self, node: int, cost_ns: int) -> int:
        """What takes `cost_ns` on a standard processor, at this node."""
        return (cost_ns * self.network.cpu_q10[node]) >> 10

    # --- stages 1 to 3 ---------------------------------------------------------------------------------

    def post(
        self,
        src: int,
        to: int | list[int],
        kind: Kind,
        key: int,
        tally: Tally | None = None,
        place: tuple[int, int] = (0, 0),
        *,
        again: bool = False,
    ) -> Message:
        """Send a message to a node or to everybody else. Its links are chosen, or found cut, at this moment.

        `again`: it is a vote that was sent before; what happens to it is drawn anew.
        """
        self.messages += 1
        named = draw(self.network.seed, JITTER, src, key)
        drawn = join(named, self.now) if again else named
        message = Message(self.messages, src, kind, drawn, tally, self.now, place)
        copies = [Copy(message, dst, 0, None) for dst in self.receivers_of(src, to)]
        self.bytes_sent += kind.size * len(copies)
        if not self.network.is_shared(src):
            for copy in copies:
                self.begin(copy)
            for copy in copies:
                self.judge(copy)
        self.signing[src].put((message, copies))
        return message

    def begin(self, copy: Copy) -> None:
        """A copy takes its number among arrivals, and its link's rule."""
        copy.entry, copy.rule = self.sequence + 1, self.rules.get((copy.message.src, copy.dst))
        self.sequence += COPIES_MAX
        self.sent += 1
        self.in_flight += 1

    def receivers_of(self, src: int, to: int | list[int]) -> list[int]:
        """A node, some nodes, or everybody who listens; never the sender."""
        if isinstance(to, int):
            to = [to] if to >= 0 else [node for node in range(self.network.nodes) if node not in self.network.deaf]
        return [node for node in to if node != src]

    def sign(self, node: int) -> Process:
        while True:
            message, copies = yield self.signing[node].get()
            yield self.env.timeout(self.cost(node, message.kind.sign_ns))
            if self.network.is_shared(node):
                self.at(self.now, READY + node, partial(self.share, node, copies))
            for copy in () if self.network.is_shared(node) else copies:
                self.outgoing[node].put(copy)

    def share(self, node: int, copies: list[Copy]) -> None:
        """A message is signed, and its copies go to a card that connections share."""
        for copy in copies:
            self.cards[node].add(copy)

    def leave(self, copy: Copy) -> None:
        """A copy leaves a shared card; what rules and links do to it is settled now."""
        self.begin(copy)
        self.judge(copy)
        self.travel(copy)

    def transmit(self, node: int) -> Process:
        while True:
            copy = yield self.outgoing[node].get()
            yield self.env.timeout(copy.message.kind.size * self.network.tx_ps[node] // 1000)
            self.travel(copy)

    def judge(self, copy: Copy) -> None:
        """Whether the link loses the copy, and whether it doubles it."""
        if self.delay(copy) is None:
            self.lose(copy, LOST_SENDING)
            return
        acting = []
        for number, rule in enumerate(self.message_rules):
            if rule.acts(copy.message, copy.dst, self.now):
                if rule.drops:
                    self.lose(copy, RULED_OUT)
                    return
                acting.append((number, rule))
        copy.acting = tuple(acting)
        self.sent += self.doubles(copy)
        self.duplicated += self.doubles(copy)
        self.in_flight += self.doubles(copy)

    def lose(self, copy: Copy, fate: int) -> None:
        copy.fate = fate
        self.dropped += 1
        self.in_flight -= 1

    def doubles(self, copy: Copy) -> int:
        """How many further copies arrive with this one."""
        rule = copy.rule
        doubled = rule is not None and draw_from(copy.message.key, DUPLICATE, copy.dst) >> 32 < rule.duplicate_q32
        return int(doubled) + sum(acting.copies for _, acting in copy.acting)

    def delay(self, copy: Copy) -> int | None:
        """The time the copy spends on its link, None if it is lost there."""
        net, key, dst, rule = self.network, copy.message.key, copy.dst, copy.rule
        base = net.latency_ns[net.site_of[copy.message.src]][net.site_of[dst]]
        delay = base + net.jitter_ns(base, join(key, dst))
        waits = [net.retransmission_ns(key, dst, net.loss_q32, 0)]
        if rule is not None:
            if rule.down:
                return None
            delay += rule.add_ns + below(draw_from(key, JITTER + 64, dst), rule.span_ns + 1)
            waits.append(net.retransmission_ns(key, dst, rule.loss_q32, 1))
        return None if None in waits else delay + sum(wait or 0 for wait in waits)

    def travel(self, copy: Copy) -> None:
        """A copy has left the NIC."""
        delay = self.delay(copy)
        if copy.fate in (LOST_SENDING, RULED_OUT):
            copy.arrived = self.now
            self.lost.append(copy)
            return
        assert delay is not None
        arrives = self.now + delay
        if self.network.ordered:
            link = (copy.message.src, copy.dst)
            arrives = max(arrives, self.last_arrival.get(link, 0))
            self.last_arrival[link] = arrives
        for number, rule in copy.acting:
            arrives = self.moved(copy, number, rule, arrives)
        for extra in range(1 + self.doubles(copy)):
            one = dataclasses.replace(copy, entry=copy.entry + extra)
            self.at(arrives, ARRIVAL + one.entry, partial(self.arrive, one))

    def moved(self, copy: Copy, number: int, rule: MessageRule, arrives: int) -> int:
        """When a copy arrives that would at `arrives`, after a rule has acted upon it."""
        later = arrives + rule.add_ns
        later += below(draw_from(copy.message.key, RULE_DELAY, copy.dst, number), rule.span_ns + 1)
        later = max(later, rule.hold_until)
        if rule.at_the_latest is None:
            return later
        return max(arrives, min(later, rule.at_the_latest))

    # --- stages 4 to 6 ---------------------------------------------------------------------------------

    def arrive(self, copy: Copy) -> None:
        """A copy comes out of its link."""
        copy.arrived = self.now
        self.in_flight -= 1
        self.log.append(copy)
        if not self.up[copy.dst] or self.is_down(copy.message.src, copy.dst):
            copy.fate = LOST_ARRIVING if self.up[copy.dst] else RECEIVER_DOWN
            self.dropped += 1
            return
        self.delivered += 1
        copy.turn = self.next()
        self.receivers[copy.dst].accept(copy)

    def is_down(self, src: int, dst: int) -> bool:
        rule = self.rules.get((src, dst))
        return rule is not None and rule.down

    def handle(self, copy: Copy) -> None:
        """The consensus thread has handled a copy."""
        message, node = copy.message, copy.dst
        if message.tally is None:
            self.wake("message", node, message)
        elif not message.tally.dropped:
            receiver = self.receivers[node]
            for tally, k in message.tally.add(node, self.network.voter(message.src), 1):
                if self.receivers[node] is receiver:  # no crash upon the threshold before
                    self.complete(node, tally, k)

    # --- what nodes do ---------------------------------------------------------------------------------

    def open_tally(
        self, kind: Kind, key: int, thresholds: Sequence[int], owner: int | None = None, parent: Tally | None = None
    ) -> Tally:
        """Count votes for a statement from now on."""
        self.tallies.append(Tally(kind, key, thresholds, owner, parent, self.network))
        return self.tallies[-1]

    def vote(self, node: int, tally: Tally, local_weight: int = 1) -> None:
        """A node votes; its own vote counts at once."""
        me = self.network.voter(node)
        if tally.owner is None or tally.owner == me:
            self.count_now(node, tally, me, local_weight, own=True)
        to = ALL if tally.owner is None else self.network.seats(tally.owner)
        if to != [node]:
            again = node in tally.cast
            tally.cast.add(node)
            self.post(node, to, tally.kind, tally.key, tally, tally.place, again=again)

    def open_gate(self, node: int, tally: Tally, voter: int) -> None:
        """The condition of a gated tally is met at a node, on the word of `voter`."""
        if voter not in tally.heard.get(node, set()):
            self.count_now(node, tally, voter, GATE)

    def count_now(self, node: int, tally: Tally, voter: int, weight: int, *, own: bool = False) -> None:
        for reached, k in tally.add(node, voter, weight, own=own):
            call = partial(self.complete, node, reached, k)
            self.due(node, self.now, call, self.next(), self.receivers[node])

    def complete(self, node: int, tally: Tally, k: int) -> None:
        if not tally.dropped:
            self.wake("quorum", node, tally, k)

    def set_timer(self, node: int, time: int, number: int) -> None:
        """Wake a node at a time."""
        self.due(node, time, lambda: self.wake("timer", node, number), self.next(), self.receivers[node])

    def call_at(self, time: int, call: Callable[[], None]) -> None:
        """Call back at a time; belongs to no node."""
        self.due(None, time, call, self.next(), None)

    def crash(self, node: int) -> None:
        """The node stops: queues and counts are gone, except its own votes."""
        self.up[node] = False
        self.receivers[node] = Receiver(self, node)
        for tally in self.tallies:
            if not tally.dropped and tally.owner in (None, self.network.voter(node)):
                tally.forget(node)

    def restart(self, node: int) -> None:
        """The node runs again, with empty queues."""
        self.up[node] = True
        self.receivers[node].card.free = self.now

    def set_link(self, src: int, dst: int, rule: Rule | None) -> None:
        """Put a link under a rule, or under none."""
        self.rules.pop((src, dst), None)
        if rule is not None:
            self.rules[src, dst] = rule
