"""The loop: it lets the engine advance until somebody must decide, and hands the event to that replica's handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.engine import loop, timers
from sim.kernel import post
from sim.ledger import rows as ledger
from sim.protocol import BATCH, DECIDED, NO_PROGRESS, Signal, Timer

if TYPE_CHECKING:
    from sim.host.run import Run

    Upcall = Callable[[Run, int, int], None]

OUT_OF_TIME = 100  # the deadline on the wall clock has passed


def run_until(run: Run, until_ns: int) -> int:
    """Turn the loop up to and including `until_ns`. Returns the code of what ended it."""
    run_state, advance = run.run_state, loop.advance
    wakes = 0
    if run.out_of_time():
        return OUT_OF_TIME
    entered = run.views_entered
    while True:
        if entered:
            for seat in entered:
                run.on_view(seat)
            entered.clear()
        code, node, argument, _time_ns = advance(run_state, until_ns)
        wakes += 1
        if wakes & 15 == 0 and run.out_of_time():
            return OUT_OF_TIME
        deal = _UPCALLS.get(code)
        if deal is not None:
            deal(run, node, argument)
        elif code != loop.PAUSE:
            return int(code)
        elif run.out_of_time():
            return OUT_OF_TIME


# --- what the engine calls for, a function each: the run, a seat, and the argument as `sim.engine.loop` has it --------


def _message(run: Run, node: int, argument: int) -> None:
    """A message has come: hand it to the handler of its type."""
    body = run.messages.at(argument)
    handler = run.hosts[node].handlers.get(type(body))
    if handler is not None:
        handler(run.name_of_seat[run.envelopes[argument * post.ENVELOPE_WIDTH + post.SRC]], body)


def _quorum(run: Run, node: int, argument: int) -> None:
    """A ballot has its quorum."""
    owner = run.block_store.owner(argument >> 2)
    if owner is not None:
        handler = run.hosts[node].handlers.get(owner[1])
        if handler is not None:
            handler(owner[0])


def _timer(run: Run, node: int, argument: int) -> None:
    """A timer has expired: a replica's own, or one that the engine set."""
    due: Any = run.timers.pop(argument, None)
    if argument >> timers.TIMER_BITS and not argument & timers.OF_DISK:
        due = _timer_of_engine(run, node, argument)
    if due is not None:
        handler = run.hosts[node].handlers.get(due[0])
        if handler is not None:
            handler(due[1])


def _timer_of_engine(run: Run, node: int, argument: int) -> tuple[Timer, Any]:
    """A timer that the engine has set, and what its handler gets."""
    if argument & timers.OF_TURN:
        turn_ns = int(run.turns[node * timers.TURN_WIDTH + timers.TURN_NS])
        return run.turn_timers[node], turn_ns + run.hosts[node].pacing.turn_offset_ns
    return run.dissemination.timer(argument)


def _decided(run: Run, node: int, argument: int) -> None:
    """A watched seat has decided a block, which may have been freed since."""
    row = argument >> 32
    if run.blocks[row * ledger.BLOCK_WIDTH + ledger.NUMBER] & 0xFFFFFFFF == argument & 0xFFFFFFFF:
        told = run.watchers.get(node)
        if told is not None:
            told(row)


def _signal(signal: Signal) -> Upcall:
    """What hands a signal to a replica that wants it."""

    def deal(run: Run, node: int, argument: int) -> None:
        handler = run.hosts[node].handlers.get(signal)
        if handler is not None:
            handler()

    return deal


_UPCALLS: dict[int, Upcall] = {
    loop.UPCALL_MESSAGE: _message,
    loop.UPCALL_QUORUM: _quorum,
    loop.UPCALL_TIMER: _timer,
    loop.UPCALL_BATCH: _signal(BATCH),
    loop.UPCALL_PROGRESS: _signal(NO_PROGRESS),
    loop.UPCALL_FAST_PATH: _signal(DECIDED),
    loop.UPCALL_DECIDED: _decided,
    loop.UPCALL_CALL: lambda run, _, argument: run.calls.pop(argument)(),
    loop.CLOSED_BLOCKS: lambda run, *_: run.block_store.sweep(),
    loop.EMPTY_TRACE: lambda run, *_: run.flush_trace(),
    loop.CAPACITY: lambda run, *_: run.make_capacity(),
}
