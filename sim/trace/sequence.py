"""One decision as a Mermaid sequence diagram: https://mermaid.js.org/syntax/sequenceDiagram.html.

Which messages belong to a decision is found without knowing the protocol, by going back from effect to cause:
a node decided when it had handled some message; a vote counts together with all votes on the same statement;
and a message was sent when its sender had handled another, back to the proposal. So the diagram of a chained
protocol holds the later proposals that make a block final, and that of PBFT does not hold the next batch.

Times are milliseconds since the proposal, at which the receiver has handled a message; arrows are dashed where
it had decided already. Up to ALL_ARROWS_MAX
nodes every message is an arrow. Above, a broadcast is one arrow to "all"; above LINES_MAX, nodes that only do
what many do are drawn as one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from sim.ledger import rows as ledger
from sim.trace import read
from sim.trace.read import MESSAGES_MAX, StoredRun, TraceError, messages_between
from sim.trace.rows import Fact, Rows

ALL_ARROWS_MAX = 7
LINES_MAX = 12
_LATE = 4  # nodes that decide after this many times the median latency are catching up
_OTHERS, _ALL = "others", "all"


@dataclasses.dataclass(frozen=True)
class Decision:
    """A height's decision: the block, and who decided it when (trace rows, in order of time)."""

    height: int
    block: int
    proposed: Fact
    decided: list[Fact]
    late: list[Fact]
    other_blocks: tuple[int, ...]

    @property
    def start_ns(self) -> int:
        """When it was proposed."""
        return self.proposed.time_ns

    @property
    def end_ns(self) -> int:
        """When the last node decided that is not late."""
        return self.decided[-1].time_ns


def sequence_diagram(run: StoredRun, height: int, *, most: int = MESSAGES_MAX) -> str:
    """The decision at a height as Mermaid text.

    Raises TraceError if nothing was decided there, the run has no message log, or there are too many messages.
    """
    decision, log = messages_of(run, height, most=most)
    return _Picture(run, decision, log).text()


def messages_of(run: StoredRun, height: int, *, most: int = MESSAGES_MAX) -> tuple[Decision, np.ndarray]:
    """The decision at a height and the rows of the message log that belong to it; raises TraceError as the diagram."""
    decision = find_decision(run, height)
    log = messages_between(run, decision.start_ns, decision.end_ns + 1, most)
    voters = (log[:, read.SOURCE] < run.voters) & (log[:, read.DESTINATION] < run.voters)
    log = log[voters & (log[:, read.SENT] >= decision.start_ns)]
    return decision, log[_belonging(run, decision, log)]


def find_decision(run: StoredRun, height: int) -> Decision:
    """Who proposed and decided what at a height. Raises TraceError."""
    rows: list[Fact] = []
    lowest, highest = 1 << 62, 0
    for chunk in run.events():
        some = Rows(chunk)
        decided = some.of(ledger.EVENT_DECIDED)
        if len(decided):
            lowest = min(lowest, int(decided.height.min()))
            highest = max(highest, int(decided.height.max()))
        some = some[(some.node < run.voters) & (some.height == height)]
        rows += some.of(ledger.EVENT_PROPOSED, ledger.EVENT_DECIDED)
    decided_rows = [row for row in rows if row.event == ledger.EVENT_DECIDED]
    if not decided_rows:
        remedy = f"name one from {lowest} to {highest}" if highest else "the run decided nothing at all"
        raise TraceError(f"height {height}: nothing was decided there; {remedy}")
    block = decided_rows[0].block
    proposed = next((row for row in rows if row.event == ledger.EVENT_PROPOSED and row.block == block), None)
    if proposed is None:
        raise TraceError(f"height {height}: block {block} was decided there and never proposed; see the run's verdict")
    others = tuple(sorted({row.block for row in decided_rows} - {block}))
    decided_rows = [row for row in decided_rows if row.block == block]
    start = proposed.time_ns
    median = decided_rows[(len(decided_rows) - 1) // 2].time_ns - start
    late = [row for row in decided_rows if row.time_ns - start > _LATE * median]
    in_time = [row for row in decided_rows if row.time_ns - start <= _LATE * median]
    return Decision(height, block, proposed, in_time, late, others)


def _belonging(run: StoredRun, decision: Decision, log: np.ndarray) -> np.ndarray:
    """Which rows belong to the decision, shape (rows,), bool."""
    taken = np.zeros(len(log), dtype=bool)
    handled = np.lexsort((log[:, read.DONE], log[:, read.DESTINATION]))
    delivered = handled[log[handled, read.FATE] == 0]
    ends = log[delivered, read.DESTINATION]
    by_node = {int(node): delivered[ends == node] for node in np.unique(ends)}
    disk_ns = int(run.scenario["cpu"]["fsync_ns"])

    def causes(node: int, time_ns: int) -> list[int]:
        """Rows whose handling made a node act at a time."""
        rows = by_node.get(node, delivered[:0])
        done = log[rows, read.DONE]
        found = rows[done == time_ns]
        if not len(found) and disk_ns:  # it wrote to its disk first
            found = rows[done <= time_ns - disk_ns][-1:]
        return [int(i) for i in found]

    start = decision.start_ns
    at_start = (log[:, read.SOURCE] == decision.proposed.node) & (log[:, read.SENT] == start)
    queue = np.flatnonzero(at_start & (log[:, read.STATEMENT] < 0)).tolist()
    for row in decision.decided:
        queue += causes(row.node, row.time_ns)
    while queue:
        i = queue.pop()
        if taken[i]:
            continue
        taken[i] = True
        one = log[i]
        same = (log[:, read.SOURCE] == one[read.SOURCE]) & (log[:, read.KEY] == one[read.KEY])  # its copies
        if one[read.STATEMENT] >= 0:
            same |= (log[:, read.STATEMENT] == one[read.STATEMENT]) & (log[:, read.KIND] == one[read.KIND])
        queue += np.flatnonzero(same & ~taken).tolist()
        if one[read.SENT] > start:
            queue += causes(int(one[read.SOURCE]), int(one[read.SENT]))
    taken[_in_vain(run, decision, log, taken)] = False
    return taken


def _in_vain(run: StoredRun, decision: Decision, log: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Votes that no node had a majority of when the decision was over: taken for causes by coincidence of time.

    A quorum is more than half of the voters, so that at least half of the others' votes had been handled.
    """
    vain = np.zeros(len(log), dtype=bool)
    votes = taken & (log[:, read.STATEMENT] >= 0)
    in_time = votes & (log[:, read.FATE] == 0) & (log[:, read.DONE] <= decision.end_ns)
    for statement, kind in np.unique(log[votes][:, [read.STATEMENT, read.KIND]], axis=0).tolist():
        same = (log[:, read.STATEMENT] == statement) & (log[:, read.KIND] == kind)
        most = np.bincount(log[in_time & same, read.DESTINATION], minlength=1).max()
        if 2 * most < run.voters - 1:
            vain |= same
    return vain


@dataclasses.dataclass(frozen=True)
class _Line:
    """One line of the diagram and its place in time."""

    time_ns: int
    rank: int
    text: str


class _Picture:
    """Turns the rows of a decision into lines of Mermaid."""

    def __init__(self, run: StoredRun, decision: Decision, log: np.ndarray) -> None:
        self.run = run
        self.decision = decision
        self.log = log[settled_order(log)]
        self.grouped = run.voters > ALL_ARROWS_MAX
        self.proposals = self._proposals()
        self.decided_ns = {row.node: row.time_ns for row in decision.decided}
        self.alone = self._alone()

    def _proposals(self) -> dict[tuple[int, int], Fact]:
        """Trace rows of proposals by (node, time), to name the block in a proposal's arrow."""
        rows = read.events_between(self.run, self.decision.start_ns, self.decision.end_ns + 1)
        return {(row.node, row.time_ns): row for row in rows.of(ledger.EVENT_PROPOSED)}

    def _alone(self) -> set[int]:
        """Nodes with a lifeline of their own: all if they are few, else who sends messages or collects votes."""
        everybody = set(range(self.run.voters))
        if len(everybody) <= LINES_MAX:
            return everybody
        single = {self.decision.proposed.node}
        for copies in self._broadcasts():
            first = copies[0]
            if first[read.STATEMENT] < 0 and len(copies) > 1:
                single.add(first[read.SOURCE])
            if first[read.STATEMENT] >= 0 and len(copies) == 1:
                single.add(first[read.DESTINATION])
        return set(sorted(single)[:LINES_MAX])

    def _lifeline(self, node: int) -> str:
        return f"n{node}" if node in self.alone else _OTHERS

    def _title(self, node: int) -> str:
        name = _plain(self.run.name(node))
        return f"node {name}" if name.isdigit() else name

    def _ms(self, time_ns: int) -> str:
        return f"{(time_ns - self.decision.start_ns) / 1e6:.2f}"

    def _span(self, times: list[int]) -> str:
        low, high = self._ms(min(times)), self._ms(max(times))
        return f"{low} ms" if low == high else f"{low} to {high} ms"

    def text(self) -> str:
        """The whole diagram."""
        d = self.decision
        head = ["sequenceDiagram"]
        for node in sorted(self.alone):
            head.append(f"    participant n{node} as {self._title(node)}")
        if len(self.alone) < self.run.voters:
            head.append(f"    participant {_OTHERS} as {self.run.voters - len(self.alone)} others")
        if self.grouped:
            head.append(f"    participant {_ALL} as all")
        node = d.proposed.node
        head.append(
            f"    Note over {self._lifeline(node)}: 0 ms: proposes height {d.height}<br/>"
            f"block {d.block}, view {d.proposed.view}, {d.proposed.txs} tx"
        )
        lines = [*(self._groups() if self.grouped else self._arrows()), *self._decisions()]
        lines.sort(key=lambda line: (line.time_ns, line.rank))
        return "\n".join([*head, *("    " + line.text for line in lines), *self._tail()]) + "\n"

    def _kind(self, row: list[int]) -> str:
        """Type of a message, with the height that a later proposal is for."""
        name = _plain(self.run.message_types[row[read.KIND]])
        born = self.proposals.get((row[read.SOURCE], row[read.SENT]))
        return f"{name} {born.height}" if born and row[read.STATEMENT] < 0 else name

    def _arrows(self) -> Iterable[_Line]:
        """One arrow per copy."""
        for row in self.log.tolist():
            a, b = self._lifeline(row[read.SOURCE]), self._lifeline(row[read.DESTINATION])
            if row[read.FATE] != 0:
                time_ns = row[read.ARRIVED]
                yield _Line(time_ns, 0, f"{a}-x{b}: {self._kind(row)}, {self._ms(time_ns)} ms, lost")
            else:
                time_ns = row[read.DONE]
                needed = time_ns <= self.decided_ns.get(row[read.DESTINATION], time_ns)
                arrow = "->>" if needed else "-->>"
                yield _Line(time_ns, 0, f"{a}{arrow}{b}: {self._kind(row)}, {self._ms(time_ns)} ms")

    def _broadcasts(self) -> list[list[list[int]]]:
        """Rows of the log by message: the copies of each."""
        found: dict[tuple[int, int], list[list[int]]] = {}
        for row in self.log.tolist():
            found.setdefault((row[read.SOURCE], row[read.KEY]), []).append(row)
        return list(found.values())

    def _groups(self) -> Iterable[_Line]:
        """Arrows for messages that look the same: one sender's to all, or many senders' of one type."""
        merged: dict[tuple[Any, ...], list[list[list[int]]]] = {}
        for copies in self._broadcasts():
            first = copies[0]
            to = _ALL if len(copies) > 1 else self._lifeline(first[read.DESTINATION])
            a = self._lifeline(first[read.SOURCE])
            statement = first[read.STATEMENT]
            name = (a, first[read.KEY]) if a != _OTHERS else (a, statement)
            merged.setdefault((*name, to, first[read.KIND]), []).append(copies)
        for (a, _, to, _), messages in sorted(merged.items(), key=lambda entry: entry[1][0][0][read.SOURCE]):
            rows = [row for copies in messages for row in copies]
            done = [row[read.DONE] for row in rows if row[read.FATE] == 0]
            sent = [row[read.SENT] for row in rows]
            count = f"{len(messages)} × " if len(messages) > 1 else ""
            text = f"{count}{self._kind(rows[0])}, sent {self._span(sent)}"
            if len(done) < len(rows):
                text += f", {len(rows) - len(done)} of {len(rows)} copies lost"
            if done:
                text += f"<br/>handled {self._span(done)}"
            yield _Line(min(sent), 1, f"{a}{'->>' if done else '-x'}{to}: {text}")

    def _decisions(self) -> Iterable[_Line]:
        groups: dict[str, list[int]] = {}
        for node, time_ns in sorted(self.decided_ns.items()):
            groups.setdefault(self._lifeline(node), []).append(time_ns)
        for line, times in groups.items():
            text = "decides" if line != _OTHERS else f"{len(times)} decide"
            yield _Line(min(times), 2, f"Note over {line}: {self._span(times)}: {text}")

    def _tail(self) -> Iterable[str]:
        d = self.decision
        width = f"n{min(self.alone)},{_ALL if self.grouped else f'n{max(self.alone)}'}"
        for row in d.late:
            name, ms = self._title(row.node), self._ms(row.time_ns)
            yield f"    Note over {width}: {name} decides late, after {ms} ms"
        absent = self.run.voters - len(d.decided) - len(d.late)
        if absent:
            yield f"    Note over {width}: {absent} of {self.run.voters} nodes did not decide this block in the run"
        if d.other_blocks:
            blocks = ", ".join(map(str, d.other_blocks))
            yield f"    Note over {width}: DISAGREEMENT: others decided block {blocks} at this height"


def settled_order(log: np.ndarray) -> np.ndarray:
    """Order of rows by the time each message was over; ties stay as they are."""
    return np.argsort(read.settled_ns(log), kind="stable")


def _plain(text: str) -> str:
    """Text that Mermaid takes literally."""
    return "".join(c if c.isalnum() or c in " -_.()" else " " for c in text).strip() or "?"
