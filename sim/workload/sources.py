"""Who submits transactions: SimPy processes that hand the engine arrays of times, and closed-loop clients."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sim.engine import entry
from sim.host import Run
from sim.kernel.chance import Q20, exponential_table
from sim.kernel.process import Clock, Process
from sim.ledger import rows as ledger
from sim.units import NS_PER_H, NS_PER_S
from sim.workload.arrivals import DAY_NS, poisson_times
from sim.workload.pace import Pace, not_faster_than
from sim.workload.shapes import multipliers_permille

_WINDOW_TXS = 8192  # about as many times are drawn at once
_WINDOW_MAX_NS = 3600 * NS_PER_S


@dataclasses.dataclass(frozen=True)
class Source:
    """One stream: a class of transactions at a gateway. `rate_tps` is the mean over a day.

    `of` is 0 for a Poisson process; else the stream is evenly spaced, number `turn` of so many that take turns. `pace`
    stands in place of the rate: of this stream, or of all that take turns. `count`: after so many it ends. `gap_ns`:
    between two sendings. `offered_tps`: mean over the run, if that is not the rate. `times_ns`: the transactions
    themselves, and `kinds` what is added to the class of each.
    """

    gateway: int
    class_: int
    rate_tps: float
    shape: str = "constant"
    start_hour: float = 0.0
    of: int = 0
    turn: int = 0
    pace: Pace | None = None
    count: int | None = None
    gap_ns: int = 0
    offered_tps: float | None = None
    times_ns: NDArray[np.int64] | None = None
    kinds: NDArray[np.int64] | None = None


@dataclasses.dataclass(frozen=True)
class ClosedClients:
    """Clients at a gateway that keep `outstanding` requests of a class under way, each after some time to think."""

    class_: int
    outstanding: int
    think_ns: int = 0


class Streams:
    """The open-loop sources of a run. Times of several sources at one gateway are merged into one stream."""

    def __init__(self, clock: Clock, run: Run, sources: list[Source], end_ns: int) -> None:
        self.clock = clock
        self.run = run
        self.end_ns = end_ns
        self.quantiles = exponential_table()
        self.kept: dict[int, tuple[np.ndarray, ...]] = {}  # columns that the engine reads
        run.engine.run_state.allocate(ledger.STREAM, ledger.STREAM_WIDTH * max(len(sources), 1))
        for number, source in enumerate(sources):
            clock.start(self._feed(number, source))

    def _feed(self, number: int, source: Source) -> Process:
        """Start the engine on the times of each window, before it begins."""
        if source.times_ns is not None:
            within = source.times_ns[source.times_ns < self.end_ns]
            if len(within):
                self._start(number, source, within)
            return
        late = np.zeros(0, dtype=np.int64)  # what the generator sends after the window in which it was due
        start_ns = free_ns = sent = 0
        for stop_ns, times in self._windows(number, source):
            if source.gap_ns:
                times = np.concatenate((late, not_faster_than(times, source.gap_ns, free_ns)))
                free_ns = int(times[-1]) + source.gap_ns if len(times) else free_ns
                times, late = times[times < stop_ns], times[times >= stop_ns]
            if source.count is not None:
                times = times[: source.count - sent]
                sent += len(times)
            if len(times):
                self._start(number, source, times)
            if sent == source.count:
                return
            yield self.clock.wait(stop_ns - start_ns)
            start_ns = stop_ns
        late = late[late < self.end_ns][: None if source.count is None else source.count - sent]
        if len(late):
            self._start(number, source, late)

    def _windows(self, number: int, source: Source) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Ends of windows, and the times in each."""
        if source.pace is not None:
            return self._paced(number, source, source.pace)
        return self._even(source) if source.of else self._drawn(number, source)

    def _drawn(self, number: int, source: Source) -> Iterator[tuple[int, NDArray[np.int64]]]:
        permille = np.array(multipliers_permille(source.shape), dtype=np.int64)
        peak = int(permille.max())
        shape = (permille * Q20) // peak
        mean_wait_ns = round(NS_PER_S * 1000 / (source.rate_tps * peak))
        offset_ns = round(source.start_hour * NS_PER_H)
        cursor = np.zeros(2, dtype=np.int64)
        window_ns = min(max(mean_wait_ns * _WINDOW_TXS, NS_PER_S), _WINDOW_MAX_NS)
        start_ns = 0
        while start_ns < self.end_ns:
            start_ns = min(start_ns + window_ns, self.end_ns)
            yield start_ns, self._draw(number, cursor, start_ns, mean_wait_ns, shape, offset_ns)

    def _draw(
        self, number: int, cursor: np.ndarray, stop_ns: int, mean_wait_ns: int, shape: np.ndarray, offset_ns: int
    ) -> NDArray[np.int64]:
        """The next times before one, however many (`poisson_times`)."""
        buffer = np.zeros(_WINDOW_TXS * 2, dtype=np.int64)
        parts = []
        while True:
            count = poisson_times(
                self.run.seed, number, cursor, stop_ns, mean_wait_ns, shape, offset_ns % DAY_NS, self.quantiles, buffer
            )
            parts.append(buffer[:count].copy())
            if count < len(buffer):
                return np.concatenate(parts)

    def _paced(self, number: int, source: Source, pace: Pace) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """A Poisson process of rate one, or even counts, in the time that runs as fast as transactions come."""
        fastest_tps = max(pace.from_tps.max(), pace.to_tps.max())
        if fastest_tps == 0:  # a storm from the beginning to the end
            return
        window_ns = min(max(round(_WINDOW_TXS / fastest_tps * NS_PER_S), NS_PER_S), _WINDOW_MAX_NS)
        end_ns = min(self.end_ns, pace.end_ns)
        cursor, shape = np.zeros(2, dtype=np.int64), np.array([Q20])
        start_ns = sent = 0
        while start_ns < end_ns:
            stop_ns = min(start_ns + window_ns, end_ns)
            due = pace.due(stop_ns)
            if source.of:
                below = math.ceil((due - 0.5 - source.turn) / source.of)
                places = np.arange(sent, max(below, sent)) * float(source.of) + source.turn + 0.5
                sent += len(places)
            else:
                places = self._draw(number, cursor, math.floor(due * NS_PER_S), NS_PER_S, shape, 0) / NS_PER_S
            yield stop_ns, np.clip(pace.times_ns(places), start_ns, stop_ns - 1)
            start_ns = stop_ns

    def _even(self, source: Source) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Transaction k of all that take turns is due half an interval after k intervals."""
        wait_ns = NS_PER_S / (source.rate_tps * source.of)
        window_ns = min(max(round(wait_ns * source.of * _WINDOW_TXS), NS_PER_S), _WINDOW_MAX_NS)
        start_ns = sent = 0
        while start_ns < self.end_ns:
            stop_ns = min(start_ns + window_ns, self.end_ns)
            below = math.ceil((stop_ns / wait_ns - 0.5 - source.turn) / source.of)
            turns = np.arange(sent, max(below, sent), dtype=np.int64) * source.of + source.turn
            sent += len(turns)
            yield stop_ns, np.floor((turns + 0.5) * wait_ns).astype(np.int64)
            start_ns = stop_ns

    def _start(self, number: int, source: Source, times: np.ndarray) -> None:
        self.kept[number] = (times,) if source.kinds is None else (times, source.kinds)
        row = self.run.engine.run_state[ledger.STREAM].reshape(-1, ledger.STREAM_WIDTH)[number]
        row[ledger.STREAM_GATEWAY] = source.gateway
        row[ledger.STREAM_POS] = 0
        row[ledger.STREAM_LEN] = len(times)
        row[ledger.STREAM_TIMES] = times.ctypes.data
        row[ledger.STREAM_CLASS] = source.class_
        row[ledger.STREAM_EACH] = 0 if source.kinds is None else source.kinds.ctypes.data
        entry.start_stream(self.run.run_state, number, int(times[0]))


_AT_ONCE = 256  # requests submitted before the engine is asked for room
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
        _submit_owed(run)


def _submit_owed(run: Run) -> None:
    """Closed-loop clients whose requests were lost submit others."""
    if not run.run_state[ledger.ASKING_CLASSES]:
        return
    waited = run.engine.run_state[ledger.WAITED].reshape(-1, ledger.WAITED_WIDTH)
    for row in np.flatnonzero(waited[:, ledger.OWED]).tolist():
        gateway, class_ = divmod(row, int(run.run_state[ledger.CLASSES]))
        owed = int(waited[row, ledger.OWED])
        waited[row, ledger.OWED] = 0
        _submit(run, run.engine.seats + gateway, class_, owed)


def _submit(run: Run, gateway: int, class_: int, count: int) -> None:
    while count > 0:
        run.engine.make_capacity()
        step = min(count, _AT_ONCE)
        run.ask(entry.submit_now, gateway, class_, step)
        count -= step


def start_closed_loop(run: Run, gateway: int, clients: ClosedClients) -> None:
    """Clients at a gateway begin; if they think, one after the other within the first time to think."""
    if not clients.think_ns:
        _submit(run, gateway, clients.class_, clients.outstanding)
        return
    for first in range(0, clients.outstanding, _AT_ONCE):
        run.engine.make_capacity()
        for number in range(first, min(first + _AT_ONCE, clients.outstanding)):
            at_ns = run.now_ns + (2 * number + 1) * clients.think_ns // (2 * clients.outstanding)
            entry.begin(run.run_state, gateway, clients.class_, at_ns)
