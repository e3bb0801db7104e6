"""What the oracle's engine moves about: a network and its rules, draws, messages and their copies, and tallies.

Plain Python, as naive as the engine (tests/oracle/engine.py), and nothing of it is shared with the product.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import simpy

GATE = 1 << 32
ALL = -1
MASK = (1 << 64) - 1
JITTER, LOSS, DUPLICATE, RULE_DELAY = 1, 2, 3, 13  # purposes of draws
DELIVERED, LOST_SENDING, LOST_ARRIVING, RECEIVER_DOWN, RULED_OUT = 0, 1, 2, 3, 4
COPIES_MAX = 100  # of one copy, doubled by its link and by rules
RETRANSMISSIONS_MAX = 15


def join(state: int, key: int) -> int:
    """One step of the chain of draws: SplitMix64's finaliser over the state and one more key."""
    x = (state + 0x9E3779B97F4A7C15 + key * 0x94D049BB133111EB) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def draw(*keys: int) -> int:
    """The draw for a list of keys."""
    state = 0
    for key in keys:
        state = join(state, key)
    return state


def below(number: int, bound: int) -> int:
    """A draw -> an integer in [0, bound)."""
    return ((number >> 32) * bound) >> 32


@dataclasses.dataclass(frozen=True)
class Network:
    """Everything that stays as it is during a run. Lists are indexed by node or site; times ns, sizes bytes."""

    nodes: int
    latency_ns: Sequence[Sequence[int]]
    site_of: Sequence[int]
    tx_ps: Sequence[int]  # picoseconds per byte, 0: unlimited
    rx_ps: Sequence[int]
    cpu_q10: Sequence[int]  # slowness of a node's processor times 1024
    seed: int = 1
    workers: int = 1
    jitter: str = "none"  # none, added, proportional, table
    jitter_low_ns: int = 0
    jitter_span: int = 0
    jitter_table: Sequence[int] = ()
    loss_q32: int = 0
    retransmit_ns: int = 0  # 0: what is lost stays lost
    ordered: bool = True
    identity: Sequence[int] = ()  # of each node: as whom it votes, -1: it does not; default: as itself
    deaf: Sequence[int] = ()  # nodes that broadcasts do not go to
    sharing: str = "fifo"  # fifo, fair, priority

    @property
    def capped(self) -> bool:
        """Whether some card takes in less than another sends."""
        return max(self.rx_ps) > min((ps for ps in self.tx_ps if ps), default=1 << 62)

    def is_shared(self, node: int) -> bool:
        """Whether what a node sends goes out side by side."""
        return self.sharing != "fifo" and self.tx_ps[node] > 0

    def voter(self, node: int) -> int:
        """As whom a node votes."""
        return self.identity[node] if self.identity else node

    def seats(self, voter: int) -> list[int]:
        """The nodes that vote as this voter."""
        return [node for node in range(self.nodes) if self.voter(node) == voter]

    def jitter_ns(self, base_ns: int, number: int) -> int:
        """The jitter that belongs to a draw."""
        if self.jitter == "added":
            return self.jitter_low_ns + below(number, self.jitter_span + 1)
        if self.jitter == "proportional":
            return (((base_ns * self.jitter_span) >> 20) * (number >> 40)) >> 24
        if self.jitter == "table":
            k = below(number, 1024)
            low, high = self.jitter_table[k], self.jitter_table[k + 1]
            return ((base_ns * (low + (((high - low) * (number & 0xFFFFF)) >> 20))) >> 20) - base_ns
        return 0

    def retransmission_ns(self, key: int, dst: int, loss_q32: int, salt: int) -> int | None:
        """The delay by lost transmissions, each wait twice the one before; None if the copy never arrives."""
        wait = 0
        for tries in range(RETRANSMISSIONS_MAX + 1):
            if draw_from(key, LOSS, dst, tries * 4 + salt) >> 32 >= loss_q32:
                return wait
            wait += self.retransmit_ns << tries
            if self.retransmit_ns == 0:
                break
        return None


def draw_from(state: int, *keys: int) -> int:
    """Go on with a chain of draws."""
    for key in keys:
        state = join(state, key)
    return state


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a degraded link does to each copy."""

    down: bool = False
    add_ns: int = 0
    loss_q32: int = 0
    duplicate_q32: int = 0
    span_ns: int = 0


@dataclasses.dataclass
class MessageRule:
    """What happens to single copies on their way. None matches everything."""

    kinds: frozenset[int] | None = None
    sources: frozenset[int] | None = None
    targets: frozenset[int] | None = None
    view: tuple[int, int] | None = None
    height: tuple[int, int] | None = None
    every_view: int = 1
    every_height: int = 1
    begins: int = 0
    ends: int | None = None
    first: int = 1
    every: int = 1
    most: int | None = None
    drops: bool = False
    add_ns: int = 0
    span_ns: int = 0
    hold_until: int = 0
    at_the_latest: int | None = None
    copies: int = 0
    matched: int = 0
    hits: int = 0

    def acts(self, message: Message, dst: int, now: int) -> bool:
        """Whether the rule acts upon this copy, which leaves its sender's hands now; counts it."""
        pairs = ((self.kinds, message.kind.number), (self.sources, message.src), (self.targets, dst))
        if any(chosen is not None and value not in chosen for chosen, value in pairs):
            return False
        spans = ((self.view, message.place[0]), (self.height, message.place[1]))
        if any(span is not None and not span[0] <= value <= span[1] for span, value in spans):
            return False
        steps = ((self.view, self.every_view, message.place[0]), (self.height, self.every_height, message.place[1]))
        if any((value - (span[0] if span else 0)) % every for span, every, value in steps):
            return False
        if now < self.begins or (self.ends is not None and now >= self.ends):
            return False
        if self.hits == self.most:
            return False
        self.matched += 1
        if self.matched < self.first or (self.matched - self.first) % self.every:
            return False
        self.hits += 1
        return True


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a message of a type costs."""

    number: int
    size: int = 100
    sign_ns: int = 0
    verify_ns: int = 0
    handle_ns: int = 0
    weights: tuple[int, ...] = ()  # of each voter's vote; empty: 1
    small: bool = False  # it has a connection of its own where cards are shared


class Tally:
    """Votes for one statement: at every receiver (owner None), or only where its owner, a voter, sits."""

    def __init__(
        self,
        kind: Kind,
        key: int,
        thresholds: Sequence[int],
        owner: int | None,
        parent: Tally | None,
        network: Network,
    ) -> None:
        self.network = network
        self.kind, self.key, self.thresholds, self.owner, self.parent = (
            kind,
            join(key, kind.number),
            thresholds,
            owner,
            parent,
        )
        self.heard: dict[int, set[int]] = {}  # at each receiver: voters, and those on whose word its gate opened
        self.votes: dict[int, set[int]] = {}  # at each receiver: distinct voters
        self.cast: set[int] = set()  # seats that have sent their vote
        self.own: set[int] = set()  # receivers that cast their own vote
        self.gates: set[int] = set()  # receivers whose gate is open
        self.dropped = False
        self.place = (0, 0)

    def met(self, node: int) -> set[int]:
        """The thresholds met at a node. One of GATE + q needs the gate besides q votes."""
        votes = sum(self.kind.weights[v] if self.kind.weights else 1 for v in self.votes.get(node, ()))
        return {k for k, t in enumerate(self.thresholds) if votes >= t % GATE and (t < GATE or node in self.gates)}

    def add(self, node: int, voter: int, weight: int, *, own: bool = False) -> list[tuple[Tally, int]]:
        """A vote (1), the gate (GATE) or both count here and in the parent; returns the thresholds met by that.

        `own`: it is the node's own vote. If its twin's has been counted for it, it still opens the gate.
        """
        before = self.met(node)
        if own and voter in self.heard.get(node, set()) and node not in self.own and weight >= GATE:
            self.gates.add(node)
        if own:
            self.own.add(node)
        if voter not in self.heard.setdefault(node, set()):
            self.heard[node].add(voter)
            if weight % GATE:
                self.votes.setdefault(node, set()).add(voter)
            if weight >= GATE:
                self.gates.add(node)
        reached = [(self, k) for k in sorted(self.met(node) - before)]
        return reached + (self.parent.add(node, voter, weight, own=own) if self.parent else [])

    def forget(self, node: int) -> None:
        """The node has crashed: only its own vote, on disk, is left."""
        self.votes[node] = {self.network.voter(node)} if node in self.own else set()
        self.heard[node] = set(self.votes[node])
        self.gates.discard(node)


@dataclasses.dataclass
class Message:
    """A message (tally None) or a vote."""

    number: int
    src: int
    kind: Kind
    key: int
    tally: Tally | None
    sent: int
    place: tuple[int, int]  # view and height
    flow_ns: int = 0  # for how long the copy that left last was being sent, by a card that is shared


@dataclasses.dataclass
class Copy:
    """One copy of a message, and the times of its stages."""

    message: Message
    dst: int
    entry: int  # sequence of its arrival
    rule: Rule | None  # of its link, when it was sent
    acting: tuple[tuple[int, MessageRule], ...] = ()  # the rules that act upon it, with their numbers
    turn: int = 0  # sequence of its handling
    received_at: int | None = None  # settled when it arrives, where cards are shared
    is_verified: simpy.Event | None = None
    arrived: int = 0
    received: int = 0
    verified: int = 0
    done: int = 0
    fate: int = DELIVERED
