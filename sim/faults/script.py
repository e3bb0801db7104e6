"""Scripted faults: each entry of a scenario's list, played by a SimPy process, with a count of its effects.

What several faults do to one link adds up: down if any says so, latencies summed, losses combined. Nodes stay
down as long as any fault holds them down.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from sim.faults.gray import SkewClock, SlowNode
from sim.faults.processes import course_of
from sim.faults.settings import Fault
from sim.host import Run
from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.kernel.process import Clock, Process
from sim.ledger import rows as ledger

RULES_MAX = 255  # distinct link states at one time


@dataclasses.dataclass(frozen=True)
class LinkEffect:
    """What a fault does to one direction of a link."""

    down: bool = False
    add_ns: int = 0
    loss: float = 0.0
    span_ns: int = 0  # and longer by up to this
    cap: int = 0  # place in LINK_CAP

    def joined(self, other: LinkEffect) -> LinkEffect:
        """Both at once."""
        return LinkEffect(
            self.down or other.down,
            self.add_ns + other.add_ns,
            1 - (1 - self.loss) * (1 - other.loss),
            self.span_ns + other.span_ns,
            self.cap or other.cap,
        )


@dataclasses.dataclass
class FaultReport:
    """What one scripted fault did. `messages`: copies it dropped, delayed or made late; `note`: more, in words."""

    number: int
    kind: str
    began_ns: int | None = None
    ended_ns: int | None = None
    nodes: tuple[int, ...] = ()
    messages: int = 0
    transactions: int = 0
    note: str = ""

    @property
    def fired(self) -> bool:
        """Whether it took effect at all."""
        return self.began_ns is not None and (bool(self.nodes) or self.messages > 0 or self.transactions > 0)


class Links:
    """Which faults hold which links, and the engine's rule rows for their combinations."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.held: dict[tuple[int, int], dict[int, LinkEffect]] = {}
        self.rows: dict[tuple[tuple[int, ...], LinkEffect], int] = {}
        self.row_of: dict[tuple[int, int], int] = {}  # of links that are held
        self.users = [0] * (RULES_MAX + 1)  # links by row
        self.past_hits: dict[int, int] = {}  # by fault, of rows given to another combination since

    def hold(self, fault: int, links: Iterable[tuple[int, int]], effect: LinkEffect) -> None:
        """A fault takes hold of links (directed pairs of endpoints)."""
        for link in links:
            self.held.setdefault(link, {})[fault] = effect
            self._apply(link)

    def let_go(self, fault: int, links: Iterable[tuple[int, int]] | None = None) -> None:
        """A fault lets go of links: of all that it holds, if none are named."""
        for link in list(self.held) if links is None else links:
            if self.held.get(link, {}).pop(fault, None) is not None:
                self._apply(link)

    def _apply(self, link: tuple[int, int]) -> None:
        self.users[self.row_of.pop(link, 0)] -= 1
        effects = self.held[link]
        if not effects:
            del self.held[link]
            self.run.set_link(*link, 0)
            return
        joined = LinkEffect()
        for number in sorted(effects):
            joined = joined.joined(effects[number])
        row = self._row((tuple(sorted(effects)), joined))
        self.users[row] += 1
        self.row_of[link] = row
        self.run.set_link(*link, row)

    def _row(self, key: tuple[tuple[int, ...], LinkEffect]) -> int:
        """The engine's row for a combination; once all are taken, that of one that holds no link any more."""
        if key in self.rows:
            return self.rows[key]
        row = len(self.rows) + 1
        if row > RULES_MAX:
            unused = next((old for old, number in self.rows.items() if self.users[number] == 0), None)
            if unused is None:
                raise ValueError(f"{RULES_MAX} combinations of link faults at one time are the most a run can have")
            for fault in unused[0]:
                self.past_hits[fault] = self.past_hits.get(fault, 0) + self._hits(self.rows[unused])
            row = self.rows.pop(unused)
        self.rows[key] = row
        effect, rule = key[1], self._rule(row)
        rule[post.RULE_DOWN] = effect.down
        rule[post.RULE_ADD_NS] = effect.add_ns
        rule[post.RULE_LOSS_Q32] = int(effect.loss * (1 << 32))
        rule[post.RULE_SPAN_NS] = effect.span_ns
        rule[post.RULE_CAP] = effect.cap
        rule[post.RULE_HITS] = 0
        return row

    def _rule(self, row: int) -> np.ndarray:
        rule: np.ndarray = self.run.engine.run_state[kernel.RULE].reshape(-1, post.RULE_WIDTH)[row]
        return rule

    def _hits(self, row: int) -> int:
        return int(self._rule(row)[post.RULE_HITS])

    def hits(self, fault: int) -> int:
        """Copies that met a rule this fault was part of."""
        now = sum(self._hits(row) for (faults, _), row in self.rows.items() if fault in faults)
        return now + self.past_hits.get(fault, 0)


class FaultScript:
    """All scripted faults of a run."""

    def __init__(self, clock: Clock, run: Run, faults: tuple[Fault, ...], ends: Ends) -> None:
        self.clock = clock
        self.run = run
        self.faults = faults
        self.ends = ends
        self.links = Links(run)
        self.down: dict[int, set[int]] = {}
        self.slow: dict[int, SlowNode] = {}  # by fault, those that hold now
        self.skewed: dict[int, SkewClock] = {}
        self.cables: dict[int, tuple[str, str]] = {}
        self.apart: dict[int, set[int]] = {}  # by fault, nodes whose access is cut
        self.reports = [FaultReport(i, fault.kind) for i, fault in enumerate(faults)]
        self.changed: list[Callable[[int], None]] = []  # told the time whenever anything breaks or heals
        for i in range(len(faults)):
            clock.start(self._play(i))

    def _play(self, number: int) -> Process:
        fault, report = self.faults[number], self.reports[number]
        yield self.clock.wait(fault.at_ns)
        report.began_ns = self.clock.now_ns
        self.run.recorder.note(ledger.EVENT_FAULT, -1, number)
        course = course_of(self, number, fault)
        if course is not None:
            yield from course
        else:
            self._begin(number)
            self.tell()
            if fault.end_ns is not None:
                yield self.clock.wait(fault.end_ns - fault.at_ns)
        if fault.end_ns is None and not fault.draws_its_end:
            return
        self._end(number)
        report.ended_ns = self.clock.now_ns
        self.run.recorder.note(ledger.EVENT_HEALED, -1, number)
        self.tell()

    def heals_ns(self, number: int) -> int:
        """When a fault heals, ns; NEVER if it lasts to the end."""
        end = self.faults[number].end_ns
        return int(kernel.NEVER) if end is None else end

    def tell(self) -> None:
        """Something broke or healed."""
        for listener in self.changed:
            listener(self.clock.now_ns)

    def later(self, delay_ns: int, act: Callable[[], None]) -> None:
        """Do something after a while, and tell."""

        def wait() -> Process:
            yield self.clock.wait(delay_ns)
            act()
            self.tell()

        self.clock.start(wait())

    def _begin(self, number: int) -> None:
        fault, report = self.faults[number], self.reports[number]
        if fault.crash is not None:
            self.stop(number, self.ends.nodes(fault.crash.nodes))
        elif fault.lose_domain is not None:
            self.stop(number, self.ends.domain(fault.lose_domain.domain))
        elif fault.cut_link is not None:
            self.cut(number, self.ends.pairs(*fault.cut_link.between))
        elif fault.partition is not None:
            self.cut(number, self.ends.across(fault.partition.groups))
        elif fault.degrade_link is not None:
            degrade = fault.degrade_link
            effect = LinkEffect(add_ns=degrade.add_latency_ns, loss=degrade.loss)
            self.links.hold(number, self.ends.pairs(*degrade.between), effect)
        elif fault.cut_cable is not None:
            self.cables[number] = fault.cut_cable.between
            self._reroute()
        elif fault.slow_node is not None:
            report.nodes = self.ends.nodes(fault.slow_node.nodes)
            self.slow[number] = fault.slow_node
            self._set_speeds()
        elif fault.skew_clock is not None:
            report.nodes = self.ends.nodes(fault.skew_clock.nodes)
            self.skewed[number] = fault.skew_clock
            self._set_clocks()

    # --- effects ---------------------------------------------------------------------------------------

    def stop(self, number: int, nodes: tuple[int, ...]) -> None:
        """A fault stops nodes."""
        for node in nodes:
            self.down.setdefault(node, set()).add(number)
            self.run.crash(node)
            self.ends.stopped(node)
        self.reports[number].nodes += nodes

    def release(self, number: int, node: int) -> None:
        """A fault no longer holds a node down; it restarts unless another does."""
        if number not in self.down.get(node, ()):
            return
        self.down[node].discard(number)
        if not self.down[node]:
            self.run.restart(node)
            self.ends.restarted(node)

    def cut(self, number: int, links: Iterable[tuple[int, int]]) -> None:
        """A fault cuts links."""
        self.links.hold(number, links, LinkEffect(down=True))

    def isolate(self, number: int, node: int) -> None:
        """A fault cuts all links of a node."""
        self.apart.setdefault(number, set()).add(node)
        self.cut(number, self.ends.links_of(node))
        self.reports[number].nodes += (node,)

    def rejoin(self, number: int, node: int) -> None:
        """A fault no longer cuts a node off, except from others that it cuts off."""
        self.apart[number].discard(node)
        held = self.apart[number]
        self.links.let_go(number, [(a, b) for a, b in self.ends.links_of(node) if a not in held and b not in held])

    def _reroute(self) -> None:
        """Cables were cut or mended: latencies of the paths that are left, and links without any are down."""
        whole = self.run.engine.settings.latency_ns
        left = self.ends.latency_ns(tuple(self.cables.values()))
        self.run.engine.run_state[kernel.LATENCY][:] = np.where(left < 0, whole, left).reshape(-1)
        at = self.run.engine.settings.site_of
        everyone = range(self.ends.endpoints)
        longer = [(i, j) for i in everyone for j in everyone if i != j and left[at[i], at[j]] > whole[at[i], at[j]]]
        lost = [(i, j) for i in everyone for j in everyone if i != j and left[at[i], at[j]] < 0]
        self.ends.reroute(self.links, tuple(self.cables.values()))
        for number in self.cables:
            self.links.let_go(number)
            self.links.hold(number, longer, LinkEffect())
            self.cut(number, lost)
            if not self.reports[number].note:
                note = f"{len(longer)} links take longer paths, {len(lost)} have none (both directions)"
                self.reports[number].note = note

    def _set_speeds(self) -> None:
        nodes = self.run.engine.node()
        self.run.engine.set_speeds()
        for column, speed in ((post.CPU_Q10, "cpu"), (post.CRYPTO_Q10, "cpu"), (post.DISK_Q10, "disk")):
            for action in self.slow.values():
                for node in self.ends.nodes(action.nodes):
                    nodes[node, column] = round(int(nodes[node, column]) * getattr(action, speed))

    def _set_clocks(self) -> None:
        for host in self.run.hosts:
            rate = 1.0
            for action in self.skewed.values():
                if host.seat in self.ends.nodes(action.nodes):
                    rate *= action.rate
            host.clock.run_at(rate)

    def _end(self, number: int) -> None:
        self.links.let_go(number)
        for node in self.reports[number].nodes:
            self.release(number, node)
        if self.slow.pop(number, None) is not None:
            self._set_speeds()
        if self.skewed.pop(number, None) is not None:
            self._set_clocks()
        if self.cables.pop(number, None) is not None:
            self._reroute()

    def finish(self) -> list[FaultReport]:
        """The reports, with the counts of link effects filled in."""
        for report in self.reports:
            report.messages = self.links.hits(report.number)
        return self.reports


@dataclasses.dataclass(frozen=True)
class Ends:
    """What the references in a fault mean: voters and the gateways beside them, as endpoint numbers."""

    nodes_of: Callable[[int | str], tuple[int, ...]]
    gateways_of: Callable[[int | str], tuple[int, ...]]
    domain: Callable[[str], tuple[int, ...]]  # voters and gateways of a fault domain
    voters_in: Callable[[str], tuple[int, ...]]
    clients: Callable[[str], tuple[int, int]]  # of a place: their gateway, and the class they submit
    attacker: Callable[[int], tuple[int, int]]  # of a flood, by its fault: a gateway, and the class of the invalid
    latency_ns: Callable[[tuple[tuple[str, str], ...]], np.ndarray]  # without some cables; -1: no path
    reroute: Callable[[Links, tuple[tuple[str, str], ...]], None]  # what other cables do to messages, without some
    endpoints: int
    homes: tuple[tuple[int, int], ...]  # gateways, and a voter at the same place, where one stands
    stopped: Callable[[int], None]
    restarted: Callable[[int], None]

    def nodes(self, refs: Iterable[int | str]) -> tuple[int, ...]:
        """Voters meant by references."""
        return tuple(dict.fromkeys(node for ref in refs for node in self.nodes_of(ref)))

    def with_gateways(self, refs: Iterable[int | str]) -> tuple[int, ...]:
        """Voters meant by references, and the gateways at places."""
        found = [end for ref in refs for end in (*self.nodes_of(ref), *self.gateways_of(ref))]
        return tuple(dict.fromkeys(found))

    def pairs(self, a: int | str, b: int | str) -> list[tuple[int, int]]:
        """Both directions of every link between two ends."""
        ends_a, ends_b = self.with_gateways([a]), self.with_gateways([b])
        one_way = [(i, j) for i in ends_a for j in ends_b if i != j]
        return one_way + [(j, i) for i, j in one_way]

    def links_of(self, node: int) -> list[tuple[int, int]]:
        """All links of an endpoint, both directions."""
        others = [end for end in range(self.endpoints) if end != node]
        return [(node, end) for end in others] + [(end, node) for end in others]

    def across(self, groups: Iterable[Iterable[int | str]]) -> list[tuple[int, int]]:
        """All links between groups; who is in none is in one more, but clients stay with the voter beside them."""
        group = np.zeros(self.endpoints, dtype=int)
        for number, members in enumerate(groups, start=1):
            for end in self.with_gateways(members):
                group[end] = number
        for gateway, voter in self.homes:
            group[gateway] = group[gateway] or group[voter]
        everyone = range(self.endpoints)
        return [(i, j) for i in everyone for j in everyone if group[i] != group[j]]
