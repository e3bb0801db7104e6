"""What ends a handler that never returns: the limit `wall` is looked at between events, and then there is none.

A timer of the operating system interrupts the run some time after the limit. What it interrupts is left at once only
where that does no harm: in the protocol's own code, or in what that calls outside of the simulator. In the simulator's
code and in compiled code the alarm waits and rings again. Without SIGALRM, in a thread, and where somebody else uses
the signal there is no alarm.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, FunctionType

from sim.protocol import Replica

GRACE_S = 1.0  # after the limit: a handler that returns by then ends the run between events
_AGAIN_S = 0.05
_SIMULATOR = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class Overdue(BaseException):
    """A handler did not return in time; `where` it stood."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where


@contextlib.contextmanager
def alarm(after_s: float, protocol: type[Replica]) -> Iterator[None]:
    """Raise Overdue in a protocol's code if the body is not done so long from now, and `GRACE_S` later."""
    if not _is_free():
        yield
        return
    files = _files(protocol)

    def ring(_number: int, frame: FrameType | None) -> None:
        where = _left_without_harm(frame, files)
        if where is not None:
            raise Overdue(where)

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(after_s, 0) + GRACE_S, _AGAIN_S)
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
