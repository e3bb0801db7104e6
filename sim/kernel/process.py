"""SimPy merged with the message pipeline: what unfolds over time is an ordinary SimPy process.

Workloads, clients, fault scripts and weather are generator processes on a `simpy.Environment` whose clock counts
integer nanoseconds. The run takes the earlier of SimPy's next event and the engine's; on equal times the engine
goes first. This is the only module that imports SimPy.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import simpy

Process = Generator[simpy.Event, Any, Any]


class Clock(simpy.Environment):
    """A SimPy environment in integer nanoseconds that runs in step with an engine."""

    def __init__(self) -> None:
        super().__init__(initial_time=0)

    @property
    def now_ns(self) -> int:
        """The time of SimPy's current event."""
        return int(self.now)

    def start(self, process: Process) -> simpy.Process:
        """Start a generator as a process."""
        return self.process(process)

    def wait(self, delay_ns: int) -> simpy.Timeout:
        """An event `delay_ns` from now."""
        return self.timeout(delay_ns)

    def drive(self, advance: Callable[[int], int], finished: int, until_ns: int) -> int:
        """Run both to `until_ns`. `advance(limit)` runs the engine up to and including `limit`.

        It returns `finished` when it got there; any other code ends the run and is returned.
        """
        while True:
            due = self.peek()
            limit = until_ns if due > until_ns else int(due)
            code = advance(limit)
            if code != finished or due > until_ns:
                return code
            self.step()
