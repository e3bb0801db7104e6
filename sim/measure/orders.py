"""Orders of the supervising department: how long from an order to its enforcement at every node."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.host import Run
from sim.ledger import rows as ledger
from sim.trace.rows import Rows


class Orders:
    """Fold over trace rows. A node enforces an order from when it decides the order's block."""

    def __init__(self, run: Run) -> None:
        self.run = run
        classes = run.engine.run_state[ledger.CLASS].reshape(-1, ledger.CLASS_WIDTH)
        self.supervising = np.flatnonzero(classes[:, ledger.CLASS_SUPERVISES])
        self.known = 0  # rows of EXECUTED looked at
        self.rows: list[list[int]] = []  # one per order: class, number, submitted, block, result
        self.at: dict[int, list[int]] = {}  # block -> orders
        self.enforced: dict[int, dict[int, int]] = {}  # block -> node -> time, ns

    def __call__(self, chunk: np.ndarray) -> None:
        """Take in a chunk of trace rows, shape (rows, TRACE_WIDTH), in order of time."""
        if not len(self.supervising):
            return
        self._learn()
        decided = Rows(chunk).of(ledger.EVENT_DECIDED)
        if not len(decided) or not self.at:
            return
        for fact in decided[np.isin(decided.block, list(self.at))]:
            self.enforced.setdefault(fact.block, {}).setdefault(fact.node, fact.time_ns)

    def _learn(self) -> None:
        """Orders that have been executed since."""
        count = int(self.run.run_state[ledger.EXECUTED_LEN])
        rows = self.run.engine.run_state[ledger.EXECUTED].reshape(-1, ledger.EXECUTED_WIDTH)[self.known : count]
        self.known = count
        for row in rows[np.isin(rows[:, ledger.DONE_CLASS], self.supervising)].tolist():
            number = len(self.rows)
            self.rows.append(
                [
                    row[i]
                    for i in (
                        ledger.DONE_CLASS,
                        ledger.DONE_KEYS,
                        ledger.DONE_SUBMIT,
                        ledger.DONE_BLOCK,
                        ledger.DONE_RESULT,
                    )
                ]
            )
            self.at.setdefault(row[ledger.DONE_BLOCK], []).append(number)

    def table(self, names: list[str]) -> dict[str, list[Any]]:
        """A row per order that had its effect: when it was given, and how long until nodes enforced it."""
        found: dict[str, list[Any]] = {
            name: [] for name in ("class", "number", "ordered_s", "nodes", "first_ms", "mean_ms", "last_ms")
        }
        for class_, number, submit_ns, block, result in self.rows:
            times = sorted(self.enforced.get(block, {}).values())
            if result != ledger.VALID or not times:
                continue
            after_ms = [(time - submit_ns) / 1e6 for time in times]
            mean_ms = sum(after_ms) / len(times)
            shown = (names[class_], number, submit_ns / 1e9, len(times), after_ms[0], mean_ms, after_ms[-1])
            for column, value in zip(found.values(), shown, strict=True):
                column.append(value)
        return found

    def metrics(self) -> dict[str, float | None]:
        """Mean over orders and nodes, and the longest time until the last node enforces one."""
        table = self.table([""] * (int(self.supervising.max(initial=0)) + 1))
        nodes, means = table["nodes"], table["mean_ms"]
        total = sum(nodes)
        mean = sum(n * ms for n, ms in zip(nodes, means, strict=True)) / total if total else None
        return {"enforcement_mean_ms": mean, "enforcement_max_ms": max(table["last_ms"], default=None)}
