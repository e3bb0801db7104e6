"""Who submits transactions: SimPy processes that hand the engine arrays of times, and closed-loop clients."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from sim.engine import entry
from sim.host import Run
from sim.kernel.chance import Q20, exponential_table
from sim.kernel.process import Clock, Process
from sim.ledger import rows as r
from sim.units import NS_PER_H, NS_PER_S
from sim.workload.arrivals import DAY_NS, poisson_times
from sim.workload.shapes import multipliers_permille

_WINDOW_TXS = 8192  # about as many times are drawn at once
_WINDOW_MAX_NS = 3600 * NS_PER_S


@dataclasses.dataclass(frozen=True)
class Source:
    """One stream: a class of transactions at a gateway. `rate_tps` is the mean over a day.

    `of` is 0 for a Poisson process; else the stream is evenly spaced, number `turn` of so many that take turns.
    """

    gateway: int
    class_: int
    rate_tps: float
    shape: str = "constant"
    start_hour: float = 0.0
    of: int = 0
    turn: int = 0


class Streams:
    """The open-loop sources of a run. Times of several sources at one gateway are merged into one stream."""

    def __init__(self, clock: Clock, run: Run, sources: list[Source], end_ns: int) -> None:
        self.clock = clock
        self.run = run
        self.end_ns = end_ns
        self.quantiles = exponential_table()
        self.kept: dict[int, np.ndarray] = {}
        run.engine.run_state.allocate(r.STREAM, r.STREAM_WIDTH * max(len(sources), 1))
        for number, source in enumerate(sources):
            clock.start(self._feed(number, source))

    def _feed(self, number: int, source: Source) -> Process:
        """Times window by window, each before it begins, drawn or even, and start the engine on them."""
        if source.of:
            yield from self._feed_evenly(number, source)
            return
        permille = np.array(multipliers_permille(source.shape), dtype=np.int64)
        peak = int(permille.max())
        shape = (permille * Q20) // peak
        mean_wait_ns = round(NS_PER_S * 1000 / (source.rate_tps * peak))
        offset_ns = round(source.start_hour * NS_PER_H)
        cursor = np.zeros(2, dtype=np.int64)
        buffer = np.zeros(_WINDOW_TXS * 2, dtype=np.int64)
        window_ns = min(max(mean_wait_ns * _WINDOW_TXS, NS_PER_S), _WINDOW_MAX_NS)
        start_ns = 0
        while start_ns < self.end_ns:
            stop_ns = min(start_ns + window_ns, self.end_ns)
            parts = []
            while True:
                count = poisson_times(
                    self.run.seed,
                    number,
                    cursor,
                    stop_ns,
                    mean_wait_ns,
                    shape,
                    offset_ns % DAY_NS,
                    self.quantiles,
                    buffer,
                )
                parts.append(buffer[:count].copy())
                if count < len(buffer):
                    break
            times = np.concatenate(parts)
            if len(times):
                self._start(number, source, times)
            yield self.clock.wait(stop_ns - start_ns)
            start_ns = stop_ns

    def _feed_evenly(self, number: int, source: Source) -> Process:
        """Transaction k of all that take turns is due half an interval after k intervals."""
        wait_ns = NS_PER_S / (source.rate_tps * source.of)
        window_ns = min(max(round(wait_ns * source.of * _WINDOW_TXS), NS_PER_S), _WINDOW_MAX_NS)
        start_ns = sent = 0
        while start_ns < self.end_ns:
            stop_ns = min(start_ns + window_ns, self.end_ns)
            below = math.ceil((stop_ns / wait_ns - 0.5 - source.turn) / source.of)
            turns = np.arange(sent, max(below, sent), dtype=np.int64) * source.of + source.turn
            times = np.floor((turns + 0.5) * wait_ns).astype(np.int64)
            if len(times):
                self._start(number, source, times)
            sent += len(times)
            yield self.clock.wait(stop_ns - start_ns)
            start_ns = stop_ns

    def _start(self, number: int, source: Source, times: np.ndarray) -> None:
        self.kept[number] = times
        row = self.run.engine.run_state[r.STREAM].reshape(-1, r.STREAM_WIDTH)[number]
        row[r.STREAM_GATEWAY] = source.gateway
        row[r.STREAM_POS] = 0
        row[r.STREAM_LEN] = len(times)
        row[r.STREAM_TIMES] = times.ctypes.data
        row[r.STREAM_CLASS] = source.class_
        row[r.STREAM_CLASSES] = 0
        entry.start_stream(self.run.run_state, number, int(times[0]))


_RESENT_AT_ONCE = 1000  # transactions an entry voter passes on again per period


def resend(clock: Clock, run: Run, period_ns: int) -> Process:
    """Entry voters pass on again, every period, what their clients have waited for longer than one.

    What crashes made all voters forget, the clients send again; closed-loop clients whose requests were lost submit
    others then.
    """
    while True:
        yield clock.wait(period_ns)
        for node in range(run.engine.seats):
            if run.is_up(node):
                run.ensure_capacity(_RESENT_AT_ONCE * (run.engine.seats if run.engine.settings.broadcast_txs else 1))
                entry.resend(run.run_state, node, run.now_ns - period_ns, _RESENT_AT_ONCE)
        entry.resubmit(run.run_state, run.now_ns - period_ns)
        for gateway in range(run.engine.seats, run.engine.endpoints):
            _submit_owed(run, gateway)


def _submit_owed(run: Run, gateway: int) -> None:
    """Closed-loop clients whose requests were lost submit others."""
    peer = run.engine.peer()[gateway]
    owed, class_ = int(peer[r.OWED]), int(peer[r.CLOSED_LOOP]) - 1
    peer[r.OWED] = 0
    while owed > 0:
        step = min(owed, 256)
        run.ask(entry.submit_now, gateway, class_, step)
        owed -= step


def start_closed_loop(run: Run, gateway: int, class_: int, outstanding: int) -> None:
    """Clients at a gateway that keep `outstanding` requests under way."""
    run.engine.peer()[gateway, r.CLOSED_LOOP] = class_ + 1
    left = outstanding
    while left > 0:
        run.engine.make_capacity()
        step = min(left, 256)
        run.ask(entry.submit_now, gateway, class_, step)
        left -= step
