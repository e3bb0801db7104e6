"""What keeps a run within its limits where the run loop cannot: while it is built, and in handlers that do not return.

The limits on the clock and on memory are looked at between events. A timer of the operating system looks besides, many
times a second. While a run is built, it ends the building wherever that stands: nothing has been stored. Later it
leaves at once only where that does no harm: in the protocol's own code, or in what that calls outside of the simulator.
In the simulator's code the alarm waits and rings again, for `PATIENCE_S` or a tenth of the memory more; then the run is
an internal error, of which nothing is stored. Compiled code is not interrupted. Without SIGALRM, in a thread, and where
somebody else uses the signal there is no alarm.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, FunctionType

from sim.protocol import Replica
from sim.scenario.errors import LimitReachedError

PATIENCE_S = 10.0  # with the simulator's own code; no event of it takes so long
GRACE_S = 1.0  # after the limit: a handler that returns by then ends the run between events
_EVERY_S = 0.05
_SIMULATOR = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class Overdue(BaseException):
    """A handler did not return in time, or took too much memory; `where` it stood."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where


class StuckError(RuntimeError):
    """The simulator's own code did not return in time, or took too much memory: nothing of the run can be stored."""


def resident_bytes() -> int:
    """Memory of this process that is in use."""
    with open("/proc/self/statm", encoding="ascii") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Limits:
    """What a run may take: until when on the clock of `time.perf_counter`, and how much memory. None: as it likes."""

    def __init__(self, deadline_s: float | None, memory_bytes: int | None) -> None:
        self.deadline_s = deadline_s
        self.memory_bytes = memory_bytes
        self._looked_s = 0.0

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return self.deadline_s is not None or self.memory_bytes is not None

    def passed_by_far(self) -> str | None:
        """Which limit was passed so far that the run does not end by itself, or None."""
        if self.deadline_s is not None and time.perf_counter() > self.deadline_s + PATIENCE_S:
            return "wall"
        if self.memory_bytes is not None and resident_bytes() > 1.1 * self.memory_bytes:
            return "memory"
        return None

    def reached(self, grace_s: float = 0.0) -> str | None:
        """Which limit is reached now, or None. Memory is looked at a few dozen times a second."""
        now_s = time.perf_counter()
        if self.deadline_s is not None and now_s > self.deadline_s + grace_s:
            return "wall"
        if self.memory_bytes is not None and now_s > self._looked_s + _EVERY_S / 2:
            self._looked_s = now_s
            if resident_bytes() > self.memory_bytes:
                return "memory"
        return None


@contextlib.contextmanager
def building(limits: Limits) -> Iterator[None]:
    """Raise LimitReachedError if a limit is reached while the body lasts."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        reached = limits.reached()
        if reached is not None:
            text = f"limits.{reached}: was reached while the run was built; raise it, or make the scenario smaller"
            raise LimitReachedError(text)

    with _ringing(ring if limits.any else None, 0.0):
        yield


@contextlib.contextmanager
def alarm(limits: Limits, protocol: type[Replica]) -> Iterator[None]:
    """Raise Overdue in a protocol's code if a limit is reached there, that on the clock `GRACE_S` later."""
    files = _files(protocol)

    def ring(_number: int, frame: FrameType | None) -> None:
        if limits.reached(GRACE_S) is not None:
            where = _left_without_harm(frame, files)
            if where is not None:
                raise Overdue(where)
            far = limits.passed_by_far()
            if far is not None:
                text = f"limits.{far}: was passed by far within one event, in the simulator's own code"
                raise StuckError(f"{text}; nothing is stored; please report the scenario and the seed")

    with _ringing(ring if limits.any else None, _EVERY_S):
        yield


@contextlib.contextmanager
def _ringing(ring: Callable[[int, FrameType | None], None] | None, first_s: float) -> Iterator[None]:
    if ring is None or not _is_free():
        yield
        return
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(first_s, _EVERY_S), _EVERY_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _is_free() -> bool:
    """Whether this thread can be interrupted, and nobody else wants to."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        return False
    return signal.getsignal(signal.SIGALRM) is signal.SIG_DFL and signal.getitimer(signal.ITIMER_REAL)[0] == 0


def _files(protocol: type[Replica]) -> set[str]:
    """The files that a protocol's methods stand in."""
    replicas = [cls for cls in protocol.__mro__ if issubclass(cls, Replica)]
    methods = [member for cls in replicas for member in vars(cls).values() if isinstance(member, FunctionType)]
    return {method.__code__.co_filename for method in methods}


def _left_without_harm(frame: FrameType | None, files: set[str]) -> str | None:
    """Where the protocol's code stands, if no code of the simulator is under way on its behalf."""
    while frame is not None:
        code = frame.f_code
        if code.co_filename in files:
            return f"{code.co_qualname} ({code.co_filename}:{frame.f_lineno})"
        if code.co_filename.startswith(_SIMULATOR):
            return None
        frame = frame.f_back
    return None
