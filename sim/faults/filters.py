"""Message rules of a run: written into the engine before it starts, and counted afterwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from sim.faults.rules import ROLES, MessageRule, Span
from sim.faults.script import Ends
from sim.host import Run
from sim.kernel import post, rules
from sim.kernel import run_state as kernel
from sim.kernel.process import Clock, Process
from sim.network.links import Gst

TRANSACTION, REPLY, RESULT = "TRANSACTION", "REPLY", "RESULT"


@dataclasses.dataclass(frozen=True)
class RuleReport:
    """What one rule did: `matched` copies, and those it acted upon. `number` -1 stands for `network.gst`."""

    number: int
    kind: str
    matched: int
    hits: int


class MessageFilters:
    """The rules of a run. Tells `changed` the time whenever a rule begins or ends to match."""

    def __init__(
        self,
        clock: Clock,
        run: Run,
        entries: Sequence[MessageRule],
        gst: Gst | None,
        ends: Ends,
        healed_ns: Callable[[int], int],
    ) -> None:
        self.run = run
        self.entries = tuple(entries)
        self.gst = gst
        self.changed: list[Callable[[int], None]] = []
        self.cuts: dict[int, list[tuple[int, int]]] = {}  # rule -> links on which it drops everything
        count = len(entries) + (gst is not None)
        if not count:
            return
        rows = np.zeros((count, rules.MESSAGE_RULE_WIDTH), dtype=np.int64)
        kinds = np.zeros((count, post.KINDS), dtype=bool)
        sources = np.zeros((count, ends.endpoints), dtype=bool)
        targets = np.zeros((count, ends.endpoints), dtype=bool)
        for i, entry in enumerate(entries):
            self._match(entry, rows[i], kinds[i])
            sources[i, _members(entry.src, ends)] = True
            targets[i, _members(entry.dst, ends)] = True
            if entry.only_to is not None:
                targets[i, _members(entry.only_to, ends)] = False
            self._act(entry, rows[i], healed_ns)
            if entry.kind == "duplicate":
                kinds[i, run.names.index(REPLY)] = False
            if _cuts(entry):
                self.cuts[i] = [(int(a), int(b)) for a, b in np.argwhere(np.outer(sources[i], targets[i]))]
        if gst is not None:
            _stay_below(gst, rows[-1])
            kinds[-1] = sources[-1] = targets[-1] = True
        run.lay_rules(rows, kinds, sources, targets)
        clock.start(self._tell(clock))

    def _match(self, entry: MessageRule, row: np.ndarray, kinds: np.ndarray) -> None:
        names = self.run.names
        for i, name in enumerate(names):
            kinds[i] = entry.types == "all" or name in entry.types
            if (entry.names_place or entry.names_leader) and name in (TRANSACTION, REPLY, RESULT):
                kinds[i] = False
        row[rules.VIEW_LOW], row[rules.VIEW_HIGH] = _bounds(entry.view)
        row[rules.HEIGHT_LOW], row[rules.HEIGHT_HIGH] = _bounds(entry.height)
        row[rules.VIEW_EVERY] = 1 if entry.view is None else entry.view.every
        row[rules.HEIGHT_EVERY] = 1 if entry.height is None else entry.height.every
        row[rules.SRC_ROLE], row[rules.DST_ROLE] = (
            1 + ROLES.index(end) if end in ROLES else 0 for end in (entry.src, entry.dst)
        )
        row[rules.FROM_NS] = entry.from_ns
        row[rules.UNTIL_NS] = kernel.NEVER if entry.until_ns is None else entry.until_ns
        chosen = entry.occurrence
        row[rules.FIRST] = 1 if chosen is None else chosen.first
        row[rules.EVERY] = 1 if chosen is None else chosen.every
        row[rules.MOST] = kernel.NEVER if chosen is None or chosen.count is None else chosen.count

    def _act(self, entry: MessageRule, row: np.ndarray, healed_ns: Callable[[int], int]) -> None:
        row[rules.DROPS] = entry.drop is not None or entry.only_to is not None
        row[rules.ADD_NS] = entry.delay_by_ns or 0
        row[rules.SPAN_NS] = entry.spread_ns
        row[rules.HOLD_NS] = entry.delay_until_ns or 0
        if entry.delay_until_healed is not None:
            row[rules.HOLD_NS] = healed_ns(entry.delay_until_healed)
        row[rules.CAP_NS] = kernel.NEVER
        row[rules.COPIES] = entry.duplicate or 0

    def _tell(self, clock: Clock) -> Process:
        """What can be decided changes when a rule begins or ceases to match."""
        times = {entry.from_ns for entry in self.entries} | {entry.until_ns for entry in self.entries}
        times |= {self.gst.at_ns + self.gst.delta_ns} if self.gst is not None else set()
        for time in sorted(time for time in times if time):
            yield clock.wait(time - clock.now_ns)
            for listener in self.changed:
                listener(clock.now_ns)

    def cut_links(self, time_ns: int) -> set[tuple[int, int]]:
        """Links on which rules drop everything at a time."""
        return {
            pair
            for i, pairs in self.cuts.items()
            if self.entries[i].from_ns <= time_ns < (self.entries[i].until_ns or kernel.NEVER)
            for pair in pairs
        }

    def reports(self) -> list[RuleReport]:
        """What each rule did, in the scenario's order; `network.gst` last."""
        if not self.run.ruled:
            return []
        rows = self.run.engine.message_rules()
        kinds = [(i, entry.kind) for i, entry in enumerate(self.entries)] + [(-1, "gst")] * (self.gst is not None)
        return [
            RuleReport(number, kind, int(row[rules.SEEN]), int(row[rules.HITS]))
            for (number, kind), row in zip(kinds, rows, strict=True)
        ]


def _members(refs: str | tuple[int | str, ...], ends: Ends) -> list[int]:
    """Endpoints meant by the references of a rule."""
    return list(range(ends.endpoints)) if isinstance(refs, str) else list(ends.with_gateways(refs))


def _bounds(span: Span | None) -> tuple[int, int]:
    if span is None:
        return rules.ANY_LOW, rules.ANY_HIGH
    return 0 if span.low is None else span.low, rules.ANY_HIGH if span.high is None else span.high


def _cuts(entry: MessageRule) -> bool:
    """Whether it drops everything that passes between its ends."""
    drops = entry.drop is not None or entry.only_to is not None
    anybody = not (entry.names_place or entry.names_leader)
    return drops and entry.types == "all" and anybody and entry.occurrence is None


def _stay_below(gst: Gst, row: np.ndarray) -> None:
    """Partial synchrony: what is sent before GST comes when it may, at the latest at GST + delta."""
    row[rules.VIEW_LOW], row[rules.VIEW_HIGH] = rules.ANY_LOW, rules.ANY_HIGH
    row[rules.HEIGHT_LOW], row[rules.HEIGHT_HIGH] = rules.ANY_LOW, rules.ANY_HIGH
    row[rules.UNTIL_NS] = gst.at_ns
    row[rules.FIRST], row[rules.EVERY], row[rules.MOST] = 1, 1, kernel.NEVER
    row[rules.SPAN_NS] = gst.up_to_ns
    row[rules.CAP_NS] = gst.at_ns + gst.delta_ns
