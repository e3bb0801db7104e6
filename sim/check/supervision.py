"""What supervision forbids: data that leaves the country, and frozen keys that somebody writes all the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sim.check.verdict import Violation
from sim.engine.engine import Engine
from sim.ledger import rows as ledger
from sim.trace.rows import Rows

_SHOWN = 3  # violations of a kind that are told one by one; the last one says how many there are


def unfrozen(engine: Engine, classes: Sequence[str]) -> list[Violation]:
    """Writes to frozen keys by classes that do not supervise: paths that the freeze has left open."""
    count = int(engine.state[ledger.EXECUTED_LEN])
    rows = engine.run_state[ledger.EXECUTED][: count * ledger.EXECUTED_WIDTH].reshape(-1, ledger.EXECUTED_WIDTH)
    slipped = rows[rows[:, ledger.DONE_RESULT] == ledger.SLIPPED]
    found = []
    for row in slipped[:_SHOWN]:
        height, place, keys = row[ledger.DONE_HEIGHT], row[ledger.DONE_PLACE], row[ledger.DONE_KEYS]
        name = f"{classes[row[ledger.DONE_CLASS]]} {keys} (height {height}, place {place})"
        text = f"{name} wrote a frozen key: its class ignores freezes; {len(slipped)} in all"
        found.append(Violation("freeze", "safety", int(row[ledger.DONE_SUBMIT]), -1, text))
    return found


class Residency:
    """Transactions that must stay, on their way abroad: alone, or within blocks that a node abroad comes to have.

    A fold over trace rows. `abroad`: seats abroad that keep whole blocks; `sends(seat)` names who sends them to it.
    """

    def __init__(
        self, engine: Engine, classes: Sequence[str], abroad: Sequence[int], name: Callable[[int], str],
        sends: Callable[[int], str],
    ) -> None:  # fmt: skip
        self.engine, self.classes, self.abroad = engine, classes, np.array(sorted(abroad), dtype=np.int64)
        self.name, self.sends = name, sends
        self.known = 0  # rows of CARRIED looked at
        self.carried: dict[int, tuple[int, int, int]] = {}  # block -> how many, the first, its class
        self.blocks = 0  # times that a node abroad came to have one
        self.found: list[Violation] = []

    def __call__(self, chunk: np.ndarray) -> None:
        """Take in a chunk of trace rows, shape (rows, TRACE_WIDTH), in order of time."""
        if not len(self.abroad):
            return
        count = int(self.engine.state[ledger.CARRIED_LEN])
        rows = self.engine.run_state[ledger.CARRIED].reshape(-1, ledger.CARRIED_WIDTH)[self.known : count]
        self.known = count
        for block, txs, first, class_ in rows.tolist():
            self.carried[block] = (txs, first, class_)
        decided = Rows(chunk).of(ledger.EVENT_DECIDED)
        if not len(decided) or not self.carried:
            return
        for fact in decided[np.isin(decided.node, self.abroad)]:
            if fact.block not in self.carried:
                continue
            self.blocks += 1
            if len(self.found) < _SHOWN:
                txs, first, class_ = self.carried[fact.block]
                text = (
                    f"block {fact.block} (height {fact.height}) holds {txs} transactions that must not leave the "
                    f"country, among them {self.classes[class_]} {first}, and went {self.sends(fact.node)} -> "
                    f"{self.name(fact.node)}, which is abroad: nodes there may hold headers and hashes (headers_only)"
                )
                self.found.append(Violation("residency", "safety", fact.time_ns, fact.node, text))

    def violations(self) -> list[Violation]:
        """What was found: transactions on their way first, then blocks."""
        crossed = int(self.engine.state[ledger.CROSSED])
        kept = self.engine.run_state[ledger.CROSSING].reshape(-1, ledger.CROSSING_WIDTH)[: min(crossed, _SHOWN)]
        alone = []
        for at_ns, src, dst, number, class_ in kept.tolist():
            text = (
                f"transaction {self.classes[class_]} {number} must not leave the country and was sent "
                f"{self.name(src)} -> {self.name(dst)}, which is abroad; {crossed} in all"
            )
            alone.append(Violation("residency", "safety", at_ns, src, text))
        return [*alone, *self.found]
