"""The loop: it lets the engine advance until somebody must decide, and hands the event to that replica's handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.engine import loop, timers
from sim.kernel import post
from sim.ledger import rows as r
from sim.protocol import BATCH, DECIDED, NO_PROGRESS, Signal, Timer

if TYPE_CHECKING:
    from sim.host.run import Run

OUT_OF_TIME = 100  # the deadline on the wall clock has passed


def run_until(run: Run, until_ns: int) -> int:
    """Turn the loop up to and including `until_ns`. Returns the code of what ended it."""
    run_state = run.run_state
    hosts = run.hosts
    advance = loop.advance
    message_code, quorum_code = loop.UPCALL_MESSAGE, loop.UPCALL_QUORUM
    envelopes_src = post.SRC
    names = run.name_of_seat
    width = post.ENVELOPE_WIDTH
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
        if code == message_code:
            body = run.messages.at(argument)
            src = names[run.envelopes[argument * width + envelopes_src]]
            handler = hosts[node].handlers.get(type(body))
            if handler is not None:
                handler(src, body)
        elif code == quorum_code:
            owner = run.block_store.owner(argument >> 2)
            if owner is not None:
                handler = hosts[node].handlers.get(owner[1])
                if handler is not None:
                    handler(owner[0])
        elif code == loop.UPCALL_FAST_PATH:
            _signal(run, node, DECIDED)
        elif code == loop.UPCALL_BATCH:
            _signal(run, node, BATCH)
        elif code == loop.UPCALL_PROGRESS:
            _signal(run, node, NO_PROGRESS)
        elif code == loop.UPCALL_TIMER:
            entry_: Any = run.timers.pop(argument, None)
            if argument >> timers.TIMER_BITS and not argument & timers.OF_DISK:
                entry_ = _timer_of_engine(run, node, argument)
            if entry_ is not None:
                handler = hosts[node].handlers.get(entry_[0])
                if handler is not None:
                    handler(entry_[1])
        elif code == loop.CLOSED_BLOCKS:
            run.block_store.sweep()
        elif code == loop.EMPTY_TRACE:
            run.flush_trace()
        elif code == loop.CAPACITY:
            run.make_capacity()
        elif code == loop.UPCALL_DECIDED:
            _tell_decided(run, node, argument)
        elif code == loop.UPCALL_CALL:
            run.calls.pop(argument)()
        elif code == loop.PAUSE:
            if run.out_of_time():
                return OUT_OF_TIME
        else:
            return int(code)


def _timer_of_engine(run: Run, node: int, argument: int) -> tuple[Timer, Any]:
    """A timer that the engine has set, and what its handler gets."""
    if argument & timers.OF_TURN:
        turn_ns = int(run.turns[node * timers.TURN_WIDTH + timers.TURN_NS])
        return run.turn_timers[node], turn_ns + run.hosts[node].pacing.turn_offset_ns
    return run.dissemination.timer(argument)


def _tell_decided(run: Run, node: int, argument: int) -> None:
    row = argument >> 32
    if run.blocks[row * r.BLOCK_WIDTH + r.NUMBER] & 0xFFFFFFFF == argument & 0xFFFFFFFF:
        told = run.watchers.get(node)
        if told is not None:
            told(row)


def _signal(run: Run, node: int, signal: Signal) -> None:
    handler = run.hosts[node].handlers.get(signal)
    if handler is not None:
        handler()
