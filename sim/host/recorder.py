"""What a run has written down: the trace, and the log of messages if one is kept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sim.engine.engine import Engine
from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.ledger import rows as ledger


class TraceRecorder:
    """Rows that the engine and the hosts have written, handed on to whoever reads them before their room is full."""

    def __init__(self, engine: Engine, *, logging: bool) -> None:
        self._engine = engine
        self._run_state = engine.state
        self.logging = logging
        self.trace_sinks: list[Callable[[np.ndarray], None]] = []
        self.log_sinks: list[Callable[[np.ndarray], None]] = []

    def note(self, event: int, node: int, a: int = 0, b: int = 0, c: int = 0) -> None:
        """Write a row to the trace."""
        self.ensure_trace()
        at = int(self._run_state[ledger.TRACE_LEN]) * ledger.TRACE_WIDTH
        row = (self._run_state[kernel.NOW], event, node, a, b, c, 0, 0)
        self._engine.run_state[ledger.TRACE][at : at + ledger.TRACE_WIDTH] = row
        self._run_state[ledger.TRACE_LEN] += 1

    def ensure_trace(self) -> None:
        """Empty the trace if it is nearly full."""
        if (
            self._run_state[ledger.TRACE_LEN] * ledger.TRACE_WIDTH
            > len(self._engine.run_state[ledger.TRACE]) - 1024 * ledger.TRACE_WIDTH
        ):
            self.flush()

    def ensure_log(self) -> None:
        """Empty the message log if what one replica sends at once might not fit (lost copies are logged)."""
        if (self._run_state[kernel.LOG_LEN] + self._engine.endpoints) * post.LOG_WIDTH > len(
            self._engine.run_state[kernel.LOG]
        ):
            self.flush()

    def flush(self) -> None:
        """Hand the collected trace rows to those who read them."""
        rows = self._engine.take_trace()
        if len(rows):
            for sink in self.trace_sinks:
                sink(rows)
        if self._run_state[kernel.LOG_LEN] > 0:
            log = self._engine.take_log()
            for sink in self.log_sinks:
                sink(log)
