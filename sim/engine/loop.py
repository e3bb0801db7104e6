"""The run loop: take the earlier of the next due event and the next arrival, until Python has to decide.

`advance` returns a code, a node, an argument and the time. Everything that needs no decision happens inside:
queues, votes below their threshold, transactions on their way to mempools, replies to clients, the declared
normal case of the protocol, and relays. Equal times: due events before arrivals, each in order of entry.
"""

from __future__ import annotations

import numpy as np
from numba import types

from sim.engine import actions
from sim.engine.actions import current_action, end_write, finish_after_disk, react
from sim.engine.arrivals import envelope_copy, reply_arrives, transaction_copy
from sim.engine.capacity import has_capacity
from sim.engine.dissemination import in_tree, timer_is_idle
from sim.engine.gossip import OF_GOSSIP, gossip_comes
from sim.engine.lease import arm_batch, go_on
from sim.engine.leaving import card_is_due
from sim.engine.relay import relay
from sim.engine.timers import OF_DISK, OF_TURN, TIMER_BITS, turn_has_come
from sim.engine.votes import let_go, let_go_vote, vote_is_processed
from sim.kernel import due as events
from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.kernel import tally as tallies
from sim.kernel.calendar import calendar_open
from sim.kernel.chance import TIMEOUT, below, join, part_of
from sim.kernel.due import ready_push
from sim.kernel.heap import heap_drop
from sim.kernel.post import drop_reference
from sim.kernel.run_state import column, compiled, entry, length, pointer
from sim.ledger import rows as ledger
from sim.ledger.answers import answer_if_same, result_arrives
from sim.ledger.peers import endorsement_arrives, is_late
from sim.ledger.pool import lose_patience, patience_since_ns, pool_enter
from sim.ledger.transactions import client_acts, client_is_gone, release_tx, submit_next

# What advance returns.
(
    UNTIL,  # nothing is due before the limit
    UPCALL_MESSAGE,  # node received a message; argument: envelope
    UPCALL_QUORUM,  # argument: tally row * 4 + threshold index
    UPCALL_TIMER,  # argument: timer number
    UPCALL_BATCH,  # the proposer's next block is due
    UPCALL_PROGRESS,  # the progress timer expired
    UPCALL_FAST_PATH,  # the fast path performed something the proposer wants to know; argument: action or row
    UPCALL_CALL,  # argument: number of a Python callback
    CAPACITY,  # a column is nearly full
    EMPTY_TRACE,  # the trace is nearly full
    STOP,  # enough decisions
    CLOSED_BLOCKS,  # blocks that can be freed
    TOO_MANY_EVENTS,
    STANDS_STILL,  # events without time moving: an instant livelock
    UPCALL_DECIDED,  # a watched node has decided a block; argument: row << 32 | number
    PAUSE,  # Python wants to look at the clock on the wall
) = range(16)
GO_ON = -1  # nothing of that: what was due has been dealt with


@compiled
def _event_digest(run_state, time, what, argument):
    value = np.uint64(run_state[kernel.DIGEST_ORDER])
    run_state[kernel.DIGEST_ORDER] = np.int64(join(join(value, time), what + argument * 7))


DRAW_SPAN_MAX = (1 << 31) - 1  # `below` draws no more values; wider spans are drawn in 2**30 steps


@compiled
def progress_period_ns(run_state, node):
    """The progress timer's current period: a draw per period from [low, low + span], in whole steps if it has some."""
    rows = column(run_state, actions.PROGRESS)
    p = node * actions.PROGRESS_WIDTH
    low, span, step = rows[p + actions.PERIOD_LOW], rows[p + actions.PERIOD_SPAN], rows[p + actions.PERIOD_STEP]
    if span == 0:
        return low
    number = column(run_state, kernel.NODE)[node * post.NODE_WIDTH + post.PROGRESS_NUMBER]
    draw = join(join(join(join(0, run_state[kernel.SEED]), TIMEOUT), node), number)
    if step > 0:
        return low + below(draw, span // step + 1) * step
    return low + (below(draw, span + 1) if span < DRAW_SPAN_MAX else part_of(draw, span + 1))


@compiled
def _check_progress(run_state, node):
    """The progress timer's entry came up: wait on, go idle (-1), or report expiry (0)."""
    state = column(run_state, kernel.NODE)
    since = state[node * post.NODE_WIDTH + post.PROGRESS_NS]
    if run_state[actions.PROGRESS_MODE] == 1:
        oldest = patience_since_ns(run_state, node)
        peer = column(run_state, ledger.PEER)
        p = node * ledger.PEER_WIDTH
        # What it voted for is not decided. Where something waits always, it has waited since the last decision.
        if run_state[ledger.BACKLOG_BYTES] == 0 and peer[p + ledger.OPEN_HEIGHT] > peer[p + ledger.TIP_HEIGHT]:
            oldest = peer[p + ledger.OPEN_NS] if oldest < 0 else min(oldest, peer[p + ledger.OPEN_NS])
        if oldest < 0 and run_state[ledger.BACKLOG_BYTES] == 0:
            # Nothing waits. Looking again after one period cannot miss an expiry: a transaction that
            # arrives in between is at most one period old then.
            return run_state[kernel.NOW] + progress_period_ns(run_state, node)
        since = max(since, oldest)
    due = since + progress_period_ns(run_state, node)
    if due > run_state[kernel.NOW]:
        return due
    return np.int64(0)


@compiled
def _or_lead(run_state, node, outcome):
    """A action's outcome; a proposer who would be woken goes on by itself if it may."""
    if outcome != actions.PERFORMED_LEASE:
        return outcome
    return np.int64(actions.PERFORMED) if go_on(run_state, node) else np.int64(actions.PERFORMED_WAKE)


@compiled
def _pool_full(run_state, node):
    peer = column(run_state, ledger.PEER)
    p = node * ledger.PEER_WIDTH
    return peer[p + ledger.POOL_TAIL] - peer[p + ledger.POOL_HEAD] >= run_state[ledger.POOL_SIZE] - 1


# --- before each turn -------------------------------------------------------------------------------------------------


@compiled
def _python_is_wanted(run_state):
    """What Python must see to before anything else happens, or GO_ON."""
    run_state[actions.TURNS] += 1
    if run_state[actions.TURNS_MAX] > 0 and run_state[actions.TURNS] > run_state[actions.TURNS_MAX]:
        run_state[actions.TURNS] = 0
        return PAUSE
    rows = run_state[ledger.TRACE_LEN] + 64 * run_state[kernel.SEATS]
    if rows * ledger.TRACE_WIDTH > length(run_state, ledger.TRACE):
        return EMPTY_TRACE
    if run_state[kernel.LOG_ON]:
        rows = run_state[kernel.LOG_LEN] + 8 * run_state[kernel.NODES] + 512
        if rows * post.LOG_WIDTH > length(run_state, kernel.LOG):
            return EMPTY_TRACE
    if not has_capacity(run_state):
        return CAPACITY
    closed, decisions = run_state[ledger.CLOSED_LEN], run_state[ledger.DECISIONS]
    if closed >= run_state[actions.SWEEP_CLOSED] or decisions >= run_state[actions.SWEEP_DECISIONS]:
        return CLOSED_BLOCKS
    if run_state[ledger.STOP_AFTER] > 0 and decisions >= run_state[ledger.STOP_AFTER]:
        return STOP
    return GO_ON


# --- arrivals ---------------------------------------------------------------------------------------------------------

_ARRIVALS_A_TURN = 64  # so that columns are looked at now and then


@compiled
def _last_before(run_state, until):
    """Up to which time copies may arrive before the next due event."""
    if run_state[kernel.READY_LEN] > 0:
        return min(column(run_state, kernel.READY)[0] - 1, until)
    return until


@compiled
def _take_arrivals(run_state, until):
    """Copies arrive, up to the next due event: CAPACITY, GO_ON, or PAUSE if more may come before that."""
    limit = _last_before(run_state, until)
    for _ in range(_ARRIVALS_A_TURN):
        near = column(run_state, kernel.NEAR)
        if run_state[kernel.RUN_POS] < run_state[kernel.RUN_LEN]:
            arrives = column(run_state, kernel.RUN)[2 * run_state[kernel.RUN_POS]]
        elif run_state[kernel.NEAR_LEN] > 0:
            arrives = kernel.NEVER
        else:
            arrives = calendar_open(run_state, limit)
            if arrives == -1:
                return CAPACITY
        if run_state[kernel.NEAR_LEN] > 0 and near[0] < arrives:
            arrives = near[0]
            if arrives > limit:
                return GO_ON
            ref = near[2]
            heap_drop(run_state, kernel.NEAR, kernel.NEAR_LEN)
        else:
            if arrives > limit:
                return GO_ON
            ref = column(run_state, kernel.RUN)[2 * run_state[kernel.RUN_POS] + 1]
            run_state[kernel.RUN_POS] += 1
        run_state[kernel.IN_FLIGHT] -= 1
        run_state[kernel.NOW] = arrives
        if ref & 1:
            transaction_copy(run_state, arrives, ref)
        else:
            envelope_copy(run_state, arrives, ref)
        limit = _last_before(run_state, until)
    return PAUSE


# --- due events, one function each: what Python must do, or GO_ON -----------------------------------------------------


@compiled
def _time_stands_still(run_state, time, kind):
    """Count due events at one time; whether there are too many."""
    if time != run_state[actions.STILL_AT_NS]:
        run_state[actions.STILL_EVENTS] = 0
        run_state[actions.STILL_AT_NS] = time
        return False
    if kind != events.TX_ARRIVES:  # any number of transactions may arrive at one time
        run_state[actions.STILL_EVENTS] += 1
    return run_state[actions.STILL_EVENTS] > run_state[actions.STILL_MAX]


@compiled
def _is_gone(run_state, node, kind, argument):
    """An event of a node that has crashed since: what it holds is let go."""
    run_state[kernel.READY_DROPPED] += 1
    if kind == events.TX_ARRIVES:
        release_tx(run_state, argument)
    elif kind == events.CLIENT:
        client_is_gone(run_state, node, argument)
    elif kind == events.DELIVER or kind == events.RELAY:
        drop_reference(run_state, argument)
    elif kind == events.FIRE:
        let_go(run_state, argument >> 2)
    elif kind == events.VOTED:
        let_go_vote(run_state, argument)
    elif kind == events.DISK_DONE and argument & OF_DISK == 0:
        end_write(run_state, argument)


@compiled
def _identity(run_state, kind, argument):
    """What stands for an event's argument in the digest: never a row number, for rows are reused in any order."""
    if kind == events.DELIVER or kind == events.FIRE or kind == events.DISK_DONE:
        return np.int64(0)
    if kind == events.TX_ARRIVES or (kind == events.CLIENT and argument >= 0):
        return column(run_state, ledger.TX)[argument * ledger.TX_WIDTH + ledger.TX_NUMBER]
    if kind == events.EXECUTED or kind == events.DECIDED or kind == events.TIMER:
        return argument & ((1 << TIMER_BITS) - 1)
    if kind == events.ENDORSE_TIMEOUT:
        return argument & 0xFFFFFFFF
    return argument


@compiled
def _quorum(run_state, node, argument):
    """A tally has reached a threshold."""
    row = argument >> 2
    tally = column(run_state, kernel.TALLY)
    let_go(run_state, row)
    if tally[row * tallies.ROW + tallies.RELEASED] != 0:
        return GO_ON
    at = tally[row * tallies.ROW + tallies.COUNT_AT] + node * tally[row * tallies.ROW + tallies.COUNT_STEP]
    column(run_state, kernel.TALLY_FIRED)[at] |= tallies.FIRED << (argument & 3)
    action = tally[row * tallies.ROW + tallies.ACTION + (argument & 3)]
    if action == actions.SILENT:
        return GO_ON
    if action > 0:
        outcome = _or_lead(run_state, node, react(run_state, node, action, np.int64(-1)))
        if outcome == actions.PERFORMED_WAKE:
            return UPCALL_FAST_PATH
        if outcome != actions.NOT_PERFORMED:
            return GO_ON
    return UPCALL_QUORUM


@compiled
def _deliver(run_state, node, envelope):
    """A message has been processed. While Python deals with it, it is held."""
    run_state[kernel.MESSAGES_DONE] += 1
    e = envelope * post.ENVELOPE_WIDTH
    envelopes = column(run_state, kernel.ENVELOPE)
    code = GO_ON
    if envelopes[e + post.STATEMENT] == post.REPLY:
        reply_arrives(run_state, envelope, node)
    elif envelopes[e + post.STATEMENT] == post.RESULT:
        result_arrives(run_state, envelope, node)
    elif envelopes[e + post.STATEMENT] == post.ENDORSEMENT:
        endorsement_arrives(run_state, envelope, node)
    elif envelopes[e + post.ACTION] & OF_GOSSIP:
        if not gossip_comes(run_state, node, envelope):
            code = UPCALL_MESSAGE
    else:
        action = current_action(run_state, envelopes[e + post.ACTION])
        if action > 0 and column(run_state, actions.ACTIONS)[action * actions.ACTION_WIDTH + actions.AGGREGATE] > 0:
            if in_tree(run_state, node, action, envelope):
                return GO_ON  # it is kept, or let go, there
            code = UPCALL_MESSAGE
        elif action > 0:
            outcome = _or_lead(run_state, node, react(run_state, node, action, envelopes[e + post.SRC]))
            if outcome == actions.PERFORMED_WAKE:
                code = UPCALL_FAST_PATH
            elif outcome == actions.NOT_PERFORMED:
                code = UPCALL_MESSAGE
        else:
            code = UPCALL_MESSAGE
    if code == GO_ON:
        drop_reference(run_state, envelope)
    else:
        run_state[actions.HELD_MESSAGE] = envelope + 1
    return code


@compiled
def _look_for_batch(run_state, node):
    """The proposer may look for a block now: it goes on by itself, or Python does."""
    column(run_state, ledger.PEER)[node * ledger.PEER_WIDTH + ledger.BATCH_ON] = 0
    return GO_ON if go_on(run_state, node) else UPCALL_BATCH


@compiled
def _transaction(run_state, node, tx):
    """A transaction enters a mempool."""
    if pool_enter(run_state, tx, node):
        return _look_for_batch(run_state, node)
    if column(run_state, ledger.PEER)[node * ledger.PEER_WIDTH + ledger.BATCH_ON]:
        arm_batch(run_state, node)
    return GO_ON


@compiled
def _batch(run_state, node, time):
    """The time has come that a proposer awaits, unless it awaits another since."""
    peer, p = column(run_state, ledger.PEER), node * ledger.PEER_WIDTH
    if peer[p + ledger.BATCH_TIMER] != time:
        return GO_ON
    peer[p + ledger.BATCH_TIMER] = -1
    if peer[p + ledger.BATCH_ON] and arm_batch(run_state, node):
        return _look_for_batch(run_state, node)
    return GO_ON


@compiled
def _progress(run_state, node, token):
    """A progress timer's entry came up, if it is still the current one."""
    if token != column(run_state, kernel.NODE)[node * post.NODE_WIDTH + post.PROGRESS_TOKEN]:
        return GO_ON
    again = _check_progress(run_state, node)
    if again <= 0:
        lose_patience(run_state, node)
        return UPCALL_PROGRESS
    ready_push(run_state, again, events.PROGRESS_CHECK, node, token)
    return GO_ON


@compiled
def _written(run_state, node, argument):
    """What was written is on disk."""
    if argument & OF_DISK:
        return UPCALL_TIMER
    outcome = _or_lead(run_state, node, finish_after_disk(run_state, node, argument))
    return UPCALL_FAST_PATH if outcome == actions.PERFORMED_WAKE else GO_ON


@compiled
def _timer(run_state, node, argument):
    """A timer is due, unless the engine set it and nothing has to be done."""
    if argument & OF_TURN:
        return UPCALL_TIMER if turn_has_come(run_state, node, argument) else GO_ON
    return GO_ON if timer_is_idle(run_state, node, argument) else UPCALL_TIMER


@compiled
def _is_due(run_state, time, kind, node, argument):
    """Whatever else is due: those kinds that are not so frequent."""
    code = GO_ON
    if kind == events.SUBMIT:
        after = submit_next(run_state, argument)
        if after >= 0:
            ready_push(run_state, after, events.SUBMIT, np.int64(-1), argument)
    elif kind == events.CLIENT:
        client_acts(run_state, node, argument)
    elif kind == events.ENDORSE_TIMEOUT:
        is_late(run_state, argument)
    elif kind == events.BATCH:
        code = _batch(run_state, node, time)
    elif kind == events.PROGRESS_CHECK:
        code = _progress(run_state, node, argument)
    elif kind == events.DISK_DONE:
        code = _written(run_state, node, argument)
    elif kind == events.RELAY:
        relay(run_state, node, argument)
    elif kind == events.EXECUTED:
        answer_if_same(run_state, node, argument)
    elif kind == events.DECIDED:
        code = UPCALL_DECIDED
    elif kind == events.TIMER:
        code = _timer(run_state, node, argument)
    elif kind == events.CALL:
        code = UPCALL_CALL
    return code


# --- the loop ---------------------------------------------------------------------------------------------------------

_OUT = types.UniTuple(types.int64, 4)
_DESK = types.Array(types.int64, 1, "C")


@entry(_OUT(_DESK, types.int64), always=True)
def advance(array, until):
    """Run until something needs Python or nothing is left up to and including `until` (ns).

    Returns (code, node, argument, time).
    """
    run_state = pointer(array)
    none = np.int64(-1)
    if run_state[actions.HELD_MESSAGE] > 0:  # Python has dealt with the message it was last woken for
        drop_reference(run_state, run_state[actions.HELD_MESSAGE] - 1)
        run_state[actions.HELD_MESSAGE] = 0
    while True:
        code = _python_is_wanted(run_state)
        if code != GO_ON:
            return code, none, none, run_state[kernel.NOW]
        code = _take_arrivals(run_state, until)
        if code == PAUSE:
            continue
        if code == CAPACITY:
            return code, none, none, run_state[kernel.NOW]
        ready = column(run_state, kernel.READY)
        if run_state[kernel.READY_LEN] == 0 or ready[0] > until:
            if until != kernel.NEVER:
                run_state[kernel.NOW] = max(run_state[kernel.NOW], until)
            return UNTIL, none, none, run_state[kernel.NOW]
        time, sequence, what, argument = ready[0], ready[1], ready[2], ready[3]
        kind, node = what & 255, ((what >> 8) & 0xFFFFFF) - 1
        heap_drop(run_state, kernel.READY, kernel.READY_LEN)
        if kind == events.CARD:  # comes before all else at its time, and is no event of any node
            run_state[kernel.NOW] = time
            card_is_due(run_state, argument)
            continue
        if _time_stands_still(run_state, time, kind):
            return STANDS_STILL, none, none, time
        run_state[kernel.NOW] = time
        run_state[actions.EVENTS] += 1
        if run_state[actions.EVENTS] > run_state[actions.EVENTS_MAX]:
            return TOO_MANY_EVENTS, none, none, time
        if node >= 0 and column(run_state, kernel.NODE)[node * post.NODE_WIDTH + post.INCARNATION] != what >> 32:
            _is_gone(run_state, node, kind, argument)
            continue
        if kind == events.VOTED:
            vote_is_processed(run_state, node, argument, sequence)
            let_go_vote(run_state, argument)
            continue
        if kind == events.TX_ARRIVES and _pool_full(run_state, node):
            ready_push(run_state, time, events.TX_ARRIVES, node, argument)
            return CAPACITY, node, none, time
        if kind != events.BATCH and kind != events.PROGRESS_CHECK:
            _event_digest(run_state, time, what, _identity(run_state, kind, argument))
        if kind == events.FIRE:
            code = _quorum(run_state, node, argument)
        elif kind == events.DELIVER:
            code = _deliver(run_state, node, argument)
        elif kind == events.TX_ARRIVES:
            code = _transaction(run_state, node, argument)
        else:
            code = _is_due(run_state, time, kind, node, argument)
        if code != GO_ON:
            return code, node, argument, time
