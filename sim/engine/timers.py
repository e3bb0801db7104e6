"""Timers that the engine sets by itself; they share one numbering with those that handlers set.

A replica that *awaits its turn* (`Pacing.await_turn`) proposes on top of the newest block it has unless
somebody comes first. Each block that it takes in the fast path ends that wait and begins the next, so the rule of the
wait stands here, in one place for handlers and fast path.
"""

from __future__ import annotations

import numpy as np

from sim.kernel import due as events
from sim.kernel import run_state as kernel
from sim.kernel.chance import TURN_DRAW, join, part_of
from sim.kernel.due import ready_push
from sim.kernel.layout import scalar, slot
from sim.kernel.run_state import column, compiled
from sim.ledger import rows as ledger

# scalars
TIMER_NUMBER = scalar(120)  # of the last timer that anybody set
TAKES_TURNS = scalar(125)  # 1: some replica awaits its turn

# columns
TURN = slot(79)  # TURN_WIDTH per seat

TURN_WIDTH = 8
PERIOD_NS, SPREAD_NS, PLACE, PLACES, LOWEST, EARLIEST_NS, TURN_TIMER, TURN_NS = range(8)

TIMER_BITS = 32  # of a timer's argument: its number; above them who set it, 0: a handler
OF_DISK = 1 << 61  # of the argument of a finished write: a handler waits for it, not an action
OF_TURN = 1 << 62  # it is the turn's timer; else the number of a aggregation + 1 (sim.engine.dissemination)


@compiled
def by_clock(run_state, node, delay_ns):
    """How long a delay takes by the node's clock."""
    rate = column(run_state, ledger.PEER)[node * ledger.PEER_WIDTH + ledger.CLOCK_Q20]
    if rate == 0:
        return delay_ns
    return max(((delay_ns // rate) << 20) + ((delay_ns % rate) << 20) // rate, np.int64(delay_ns > 0))


@compiled
def await_turn(run_state, node, height, since_ns):
    """Wait for the node's turn to propose at a height, on top of a block made at a time; wait for no other turn."""
    turns = column(run_state, TURN)
    t = node * TURN_WIDTH
    turns[t + TURN_TIMER] = 0
    if turns[t + PLACES] == 0 or height < turns[t + LOWEST]:
        return
    turn_ns = max(since_ns + turns[t + PERIOD_NS], run_state[kernel.NOW], turns[t + EARLIEST_NS])
    delay_ns = turn_ns - run_state[kernel.NOW]
    if height % turns[t + PLACES] != turns[t + PLACE]:
        delay_ns += part_of(
            join(join(join(join(0, run_state[kernel.SEED]), TURN_DRAW), node), height), turns[t + SPREAD_NS]
        )
    run_state[TIMER_NUMBER] += 1
    turns[t + TURN_TIMER] = run_state[TIMER_NUMBER]
    turns[t + TURN_NS] = turn_ns
    ready_push(
        run_state,
        run_state[kernel.NOW] + by_clock(run_state, node, delay_ns),
        events.TIMER,
        node,
        run_state[TIMER_NUMBER] | OF_TURN,
    )


@compiled
def turn_has_come(run_state, node, argument):
    """Whether this timer of a turn is the one the node waits for; it waits no longer."""
    t = node * TURN_WIDTH + TURN_TIMER
    turns = column(run_state, TURN)
    if turns[t] != argument & ((1 << TIMER_BITS) - 1):
        return False
    turns[t] = 0
    return True
