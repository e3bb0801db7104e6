"""A network script, and two stages to perform it on: the compiled engine and the oracle.

A script is a network, the costs of message types, tallies, timed actions, and reactions of nodes to what wakes
them. Both stages must tell the same story: every wake-up in order, and every copy's fate, to the nanosecond.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from sim.engine import entry, loop, votes
from sim.engine.engine import Engine
from sim.engine.settings import Settings
from sim.kernel import post, rules, sharing, tally
from sim.kernel import run_state as kernel
from tests.oracle.engine import Oracle
from tests.oracle.world import ALL, GATE, Kind, Message, MessageRule, Network, Rule, Tally

FOREVER_NS = 1 << 50
JITTER_MODES = {
    "none": post.NO_JITTER,
    "added": post.ADDED_JITTER,
    "proportional": post.PROPORTIONAL_JITTER,
    "table": post.TABLE_JITTER,
}
SHARING = {"fifo": sharing.FIFO, "fair": sharing.FAIR, "priority": sharing.PRIORITY}


@dataclasses.dataclass(frozen=True)
class TallySpec:
    """A tally; `owner` (a voter) None: everybody counts. `parent`: index of a later tally with the same owner."""

    kind: int
    thresholds: tuple[int, ...]
    owner: int | None = None
    parent: int | None = None


@dataclasses.dataclass(frozen=True)
class Script:
    """What happens. An action is a tuple: its name, then its arguments (see `Stage.act`).

    The gate of a tally opens on the word of voter 0, which casts no vote in such a tally or its relatives.

    `actions` are (time, action); `reactions` maps a cause, ("message", kind), ("quorum", tally, threshold) or
    ("timer", number), to what each woken node does upon it, once per node.
    """

    network: Network
    kinds: tuple[Kind, ...]
    tallies: tuple[TallySpec, ...] = ()
    rules: tuple[Rule, ...] = ()
    actions: tuple[tuple[int, tuple[Any, ...]], ...] = ()
    reactions: tuple[tuple[tuple[Any, ...], tuple[tuple[Any, ...], ...]], ...] = ()
    message_rules: tuple[MessageRule, ...] = ()


@dataclasses.dataclass
class Story:
    """What was seen: wake-ups in order, copies in order of arrival, copies lost in sending (sorted), counters."""

    wakes: list[tuple[Any, ...]]
    copies: list[tuple[int, ...]]
    lost: list[tuple[int, ...]]
    counters: dict[str, int]
    ruled: list[tuple[int, int]]  # per message rule: copies matched, and acted upon


class Stage(abc.ABC):
    """What the two stages share: actions, reactions and the record of wake-ups."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.up = [True] * script.network.nodes
        self.reactions = dict(script.reactions)
        self.reacted: set[tuple[Any, ...]] = set()
        self.wakes: list[tuple[Any, ...]] = []
        self.messages = 0
        self.timers = 0
        family = [i if spec.parent is None else spec.parent for i, spec in enumerate(script.tallies)]
        gated = {family[i] for i, spec in enumerate(script.tallies) if spec.thresholds[-1] >= GATE}
        self.gated = {i for i in range(len(family)) if family[i] in gated}
        self.renewed = [0] * len(script.tallies)
        for index in reversed(range(len(script.tallies))):  # parents first
            self.open(index)
        for number, (time, action) in enumerate(script.actions):
            self.call_at(time, number, action)

    def perform(self, number: int, action: tuple[Any, ...]) -> None:
        """A timed action; the counters at this moment are part of the story."""
        self.wakes.append((self.now(), "call", number, *self.counters().values()))
        self.act(action)

    def woken(self, node: int, cause: tuple[Any, ...], detail: tuple[Any, ...]) -> None:
        """A node has to decide something."""
        self.wakes.append((self.now(), node, *cause, *detail))
        if (node, cause) not in self.reacted:
            self.reacted.add((node, cause))
            for name, *arguments in self.reactions.get(cause, ()):
                self.act((name, node, *arguments))

    def act(self, action: tuple[Any, ...]) -> None:
        """Perform an action: of a node (which does nothing while it is down), or upon the network."""
        match action:
            case ("crash", node) if self.up[node]:
                self.up[node] = False
                self.crash(node)
            case ("restart", node) if not self.up[node]:
                self.up[node] = True
                self.restart(node)
            case ("link", src, dst, rule) if src != dst:
                self.set_link(src, dst, rule)
            case ("renew", _, index):  # this statement is done with; another takes its place
                self.renewed[index] += 1
                self.drop(index)
                self.open(index)
            case ("message", src, to, kind) if self.up[src] and src != to:
                self.messages += 1
                self.message(src, to, self.script.kinds[kind], 1000 + self.messages)
            case ("vote", node, index, weight) if self.up[node] and (
                self.who(node) > 0 or (self.who(node) == 0 and index not in self.gated)
            ):
                self.vote(node, index, weight)
            case ("gate", node, index, voter) if (
                self.up[node] and voter != self.who(node) and self.script.tallies[index].owner in (None, self.who(node))
            ):
                self.gate(node, index, voter)
            case ("timer", node, delay_ns) if self.up[node]:
                self.timers += 1
                self.set_timer(node, self.now() + delay_ns, self.timers)

    def who(self, node: int) -> int:
        """As whom a node votes."""
        return self.script.network.voter(node)

    @abc.abstractmethod
    def now(self) -> int: ...
    @abc.abstractmethod
    def counters(self) -> dict[str, int]: ...
    @abc.abstractmethod
    def call_at(self, time: int, number: int, action: tuple[Any, ...]) -> None: ...
    @abc.abstractmethod
    def open(self, index: int) -> None: ...
    @abc.abstractmethod
    def drop(self, index: int) -> None: ...
    @abc.abstractmethod
    def message(self, src: int, to: int, kind: Kind, key: int) -> None: ...
    @abc.abstractmethod
    def vote(self, node: int, index: int, weight: int) -> None: ...
    @abc.abstractmethod
    def gate(self, node: int, index: int, voter: int) -> None: ...
    @abc.abstractmethod
    def set_timer(self, node: int, time: int, number: int) -> None: ...
    @abc.abstractmethod
    def set_link(self, src: int, dst: int, rule: int) -> None: ...
    @abc.abstractmethod
    def crash(self, node: int) -> None: ...
    @abc.abstractmethod
    def restart(self, node: int) -> None: ...

    def key(self, index: int) -> int:
        """The identity of a tally's statement."""
        return 7 + index + 100 * self.renewed[index]

    def place(self, index: int) -> tuple[int, int]:
        """The view and height that a tally's votes are about."""
        return index, self.renewed[index]

    def message_place(self) -> tuple[int, int]:
        """The view and height that the last message is about."""
        return self.messages % 3, self.messages // 3


class Naive(Stage):
    """The script on the oracle."""

    def __init__(self, script: Script) -> None:
        self.oracle = Oracle(script.network, self.wake)
        self.rows: dict[int, Tally] = {}
        self.number: dict[int, int] = {}  # message -> message
        self.oracle.message_rules = [dataclasses.replace(rule) for rule in script.message_rules]
        super().__init__(script)

    def wake(self, what: str, node: int, *detail: Any) -> None:
        if what == "message":
            message: Message = detail[0]
            self.woken(node, ("message", message.kind.number), (message.src, self.number[message.number]))
        elif what == "quorum":
            index = next(i for i, row in self.rows.items() if row is detail[0])
            self.woken(node, ("quorum", index, detail[1]), (self.renewed[index],))
        else:
            self.woken(node, ("timer", detail[0]), ())

    def now(self) -> int:
        return self.oracle.now

    def counters(self) -> dict[str, int]:
        o = self.oracle
        return dict(
            sent=o.sent,
            delivered=o.delivered,
            dropped=o.dropped,
            in_flight=o.in_flight,
            bytes=o.bytes_sent,
            doubled=o.duplicated,
        )

    def open(self, index: int) -> None:
        spec = self.script.tallies[index]
        parent = None if spec.parent is None else self.rows[spec.parent]
        kind = self.script.kinds[spec.kind]
        self.rows[index] = self.oracle.open_tally(kind, self.key(index), spec.thresholds, spec.owner, parent)
        self.rows[index].place = self.place(index)

    def drop(self, index: int) -> None:
        self.rows.pop(index).dropped = True

    def call_at(self, time: int, number: int, action: tuple[Any, ...]) -> None:
        self.oracle.call_at(time, lambda: self.perform(number, action))

    def message(self, src: int, to: int, kind: Kind, key: int) -> None:
        message = self.oracle.post(src, to, kind, key, place=self.message_place())
        self.number[message.number] = self.messages

    def vote(self, node: int, index: int, weight: int) -> None:
        self.oracle.vote(node, self.rows[index], weight)

    def gate(self, node: int, index: int, voter: int) -> None:
        self.oracle.open_gate(node, self.rows[index], voter)

    def set_timer(self, node: int, time: int, number: int) -> None:
        self.oracle.set_timer(node, time, number)

    def set_link(self, src: int, dst: int, rule: int) -> None:
        self.oracle.set_link(src, dst, self.script.rules[rule - 1] if rule else None)

    def crash(self, node: int) -> None:
        self.oracle.crash(node)

    def restart(self, node: int) -> None:
        self.oracle.restart(node)

    def run(self) -> Story:
        self.oracle.run(FOREVER_NS)
        rows: list[tuple[int, ...]] = [
            (
                c.message.sent, c.message.src, c.dst, c.message.kind.number,
                c.arrived, c.received, c.verified, c.done, c.message.kind.size, c.fate,
            )
            for c in (*self.oracle.log, *self.oracle.lost)
        ]  # fmt: skip
        arrived = len(self.oracle.log)
        ruled = [(rule.matched, rule.hits) for rule in self.oracle.message_rules]
        return Story(self.wakes, rows[:arrived], sorted(rows[arrived:]), self.counters(), ruled)


class Compiled(Stage):
    """The script on the compiled engine."""

    def __init__(self, script: Script, shift: int | None = None) -> None:
        net = script.network
        self.engine = Engine(
            Settings(
                voters=max(net.identity) + 1 if net.identity else net.nodes, gateways=0, seed=net.seed,
                identity=tuple(net.identity),
                listeners=tuple(i for i, who in enumerate(net.identity) if who < 0 and i not in net.deaf),
                site_of=np.array(net.site_of), latency_ns=np.array(net.latency_ns),
                tx_ps_per_byte=np.array(net.tx_ps), rx_ps_per_byte=np.array(net.rx_ps),
                workers=net.workers, jitter_mode=JITTER_MODES[net.jitter], jitter_low_ns=net.jitter_low_ns,
                jitter_span=net.jitter_span, jitter_table=np.array(net.jitter_table) if net.jitter_table else None,
                loss_q32=net.loss_q32, retransmit_ns=net.retransmit_ns, ordered=net.ordered,
                links_change=bool(script.rules), log_messages=True, sharing=SHARING[net.sharing],
            )
        )  # fmt: skip
        self.run_state = self.engine.state
        if shift is not None:
            self.run_state[kernel.CAL_SHIFT] = shift
        self.engine.node()[:, post.CPU_Q10] = net.cpu_q10
        self.engine.node()[:, post.CRYPTO_Q10] = net.cpu_q10
        costs = self.engine.run_state[votes.KIND_COST].reshape(-1, votes.KIND_COST_WIDTH)
        for kind in script.kinds:
            self.engine.run_state[kernel.KIND_SMALL][kind.number] = kind.small
            if kind.weights:
                self.engine.lay_weights(kind.number, kind.weights)
            row = costs[kind.number]
            row[votes.COST_SIZE], row[votes.COST_SIGN_NS] = kind.size, kind.sign_ns
            row[votes.COST_VERIFY_NS], row[votes.COST_HANDLE_NS] = kind.verify_ns, kind.handle_ns
        table = self.engine.run_state[kernel.RULE].reshape(-1, post.RULE_WIDTH)
        for number, rule in enumerate(script.rules, 1):
            row = table[number]
            row[post.RULE_DOWN], row[post.RULE_ADD_NS], row[post.RULE_SPAN_NS] = rule.down, rule.add_ns, rule.span_ns
            row[post.RULE_LOSS_Q32], row[post.RULE_DUPLICATE_Q32] = rule.loss_q32, rule.duplicate_q32
        if script.message_rules:
            self.lay(script.message_rules)
        self.rows: dict[int, int] = {}
        self.bodies: dict[int, tuple[int, int]] = {}  # envelope -> kind, message
        self.calls: dict[int, Callable[[], None]] = {}
        super().__init__(script)

    def lay(self, given: tuple[MessageRule, ...]) -> None:
        """Write the script's message rules into the engine."""
        rows = np.zeros((len(given), rules.MESSAGE_RULE_WIDTH), dtype=np.int64)
        everything = (rules.ANY_LOW, rules.ANY_HIGH)
        for row, rule in zip(rows, given, strict=True):
            row[rules.VIEW_LOW], row[rules.VIEW_HIGH] = rule.view or everything
            row[rules.HEIGHT_LOW], row[rules.HEIGHT_HIGH] = rule.height or everything
            row[rules.VIEW_EVERY], row[rules.HEIGHT_EVERY] = rule.every_view, rule.every_height
            row[rules.FROM_NS], row[rules.UNTIL_NS] = rule.begins, kernel.NEVER if rule.ends is None else rule.ends
            row[rules.FIRST], row[rules.EVERY] = rule.first, rule.every
            row[rules.MOST] = kernel.NEVER if rule.most is None else rule.most
            row[rules.DROPS], row[rules.ADD_NS], row[rules.SPAN_NS] = rule.drops, rule.add_ns, rule.span_ns
            row[rules.HOLD_NS], row[rules.COPIES] = rule.hold_until, rule.copies
            row[rules.CAP_NS] = kernel.NEVER if rule.at_the_latest is None else rule.at_the_latest

        def table(chosen: list[frozenset[int] | None], count: int) -> np.ndarray:
            return np.array([[c is None or i in c for i in range(count)] for c in chosen])

        nodes = self.engine.endpoints
        self.engine.lay_rules(
            rows,
            table([rule.kinds for rule in given], post.KINDS),
            table([rule.sources for rule in given], nodes),
            table([rule.targets for rule in given], nodes),
        )

    def ask(self, function: Callable[..., int], *arguments: int) -> int:
        """Call an entry of the engine, making room as often as it asks."""
        while (result := int(function(self.run_state, *arguments))) == -1:
            self.engine.make_capacity()
        return result

    def now(self) -> int:
        return int(self.run_state[kernel.NOW])

    def counters(self) -> dict[str, int]:
        numbers = (
            kernel.SENT,
            kernel.DELIVERED,
            kernel.DROPPED,
            kernel.IN_FLIGHT,
            kernel.BYTES_SENT,
            kernel.DUPLICATED,
        )
        names = ("sent", "delivered", "dropped", "in_flight", "bytes", "doubled")
        return {name: int(self.run_state[number]) for name, number in zip(names, numbers, strict=True)}

    def open(self, index: int) -> None:
        spec = self.script.tallies[index]
        wide = int(spec.owner is None or self.engine.address[spec.owner] < 0)
        owner = -1 if wide or spec.owner is None else spec.owner
        thresholds = (*spec.thresholds, 0, 0, 0)[:3]
        row = self.ask(entry.tally_row, spec.kind, self.key(index), wide, owner, *thresholds)
        if spec.parent is not None:
            self.engine.run_state[kernel.TALLY][row * tally.ROW + tally.PARENT] = self.rows[spec.parent]
        self.rows[index] = row
        self.engine.run_state[kernel.TALLY_PLACE][2 * row : 2 * row + 2] = self.place(index)

    def drop(self, index: int) -> None:
        entry.drop_tally(self.run_state, self.rows.pop(index))

    def call_at(self, time: int, number: int, action: tuple[Any, ...]) -> None:
        self.calls[number] = lambda: self.perform(number, action)
        entry.set_call(self.run_state, time, number)

    def message(self, src: int, to: int, kind: Kind, key: int) -> None:
        self.run_state[kernel.MESSAGE_VIEW], self.run_state[kernel.MESSAGE_HEIGHT] = self.message_place()
        envelope = self.ask(
            entry.post_message, src, to, kind.number, kind.size, kind.sign_ns, kind.verify_ns, kind.handle_ns, key, 0, 0
        )
        self.bodies[envelope] = (kind.number, self.messages)

    def vote(self, node: int, index: int, weight: int) -> None:
        owner = self.script.tallies[index].owner
        self.ask(entry.vote, node, self.rows[index], ALL if owner is None else self.engine.address[owner], weight)

    def gate(self, node: int, index: int, voter: int) -> None:
        entry.open_gate(self.run_state, self.rows[index], node, voter)

    def set_timer(self, node: int, time: int, number: int) -> None:
        entry.set_timer(self.run_state, node, time, number)

    def set_link(self, src: int, dst: int, rule: int) -> None:
        self.engine.run_state[kernel.LINK_RULE][src * self.engine.endpoints + dst] = rule
        self.run_state[kernel.LINKS_CHANGED] = 1

    def crash(self, node: int) -> None:
        entry.crash(self.run_state, node, self.engine.tallies)

    def restart(self, node: int) -> None:
        entry.restart(self.run_state, node)

    def run(self) -> Story:
        while True:
            code, node, argument, _ = loop.advance(self.run_state, FOREVER_NS)
            if code == loop.UPCALL_MESSAGE:
                kind, message = self.bodies[argument]
                src = int(self.engine.run_state[kernel.ENVELOPE][argument * post.ENVELOPE_WIDTH + post.SRC])
                self.woken(node, ("message", kind), (src, message))
            elif code == loop.UPCALL_QUORUM:
                index = next(i for i, row in self.rows.items() if row == argument >> 2)
                self.woken(node, ("quorum", index, argument & 3), (self.renewed[index],))
            elif code == loop.UPCALL_TIMER:
                self.woken(node, ("timer", argument), ())
            elif code == loop.UPCALL_CALL:
                self.calls.pop(argument)()
            elif code == loop.CAPACITY:
                self.engine.make_capacity()
            elif code == loop.UNTIL:
                return self.told()
            else:
                raise AssertionError(f"advance returned {code}")

    def told(self) -> Story:
        rows = self.engine.take_log()
        keep = [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]  # not the statement, whose number is the engine's own, nor the key
        table = [tuple(int(row[i]) for i in keep) for row in rows]
        unsent = (post.FATE_LOST_SENDING, post.FATE_RULED_OUT)
        copies = [row for row in table if row[-1] not in unsent]
        ruled = []
        if self.script.message_rules:
            ruled = [(int(row[rules.SEEN]), int(row[rules.HITS])) for row in self.engine.message_rules()]
        lost = sorted(row for row in table if row[-1] in unsent)
        return Story(self.wakes, copies, lost, self.counters(), ruled)


def perform(script: Script) -> tuple[Story, Story]:
    """The story as the compiled engine and as the oracle tell it."""
    return Compiled(script).run(), Naive(script).run()


__all__ = [
    "ALL", "GATE", "Compiled", "Kind", "MessageRule", "Naive", "Network", "Rule", "Script", "Story", "TallySpec",
    "perform",
]  # fmt: skip
