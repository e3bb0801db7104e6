"""The run loop: take the earlier of the next due event and the next arrival, until Python has to decide.

`advance` returns a code, a node, an argument and the time. Everything that needs no decision happens inside:
queues, votes below their threshold, transactions on their way to mempools, replies to clients, the declared
normal case of the protocol, and relays. Equal times: due events before arrivals, each in order of entry.
"""

from __future__ import annotations

import numpy as np
from numba import types

from sim.engine.actions import (
    ACTION_WIDTH,
    ACTIONS,
    AGGREGATE,
    EVENTS,
    EVENTS_MAX,
    HELD_MESSAGE,
    NOT_PERFORMED,
    PERFORMED,
    PERFORMED_LEASE,
    PERFORMED_WAKE,
    PERIOD_LOW,
    PERIOD_SPAN,
    PERIOD_STEP,
    PROGRESS,
    PROGRESS_MODE,
    PROGRESS_WIDTH,
    SILENT,
    STILL_AT_NS,
    STILL_EVENTS,
    STILL_MAX,
    SWEEP_CLOSED,
    SWEEP_DECISIONS,
    TURNS,
    TURNS_MAX,
    current_action,
    end_write,
    finish_after_disk,
    react,
)
from sim.engine.arrivals import envelope_copy, reply_arrives, transaction_copy
from sim.engine.capacity import has_capacity
from sim.engine.dissemination import in_tree, timer_is_idle
from sim.engine.gossip import OF_GOSSIP, gossip_comes
from sim.engine.lease import arm_batch, go_on
from sim.engine.leaving import card_is_due
from sim.engine.relay import relay
from sim.engine.timers import OF_DISK, OF_TURN, TIMER_BITS, turn_has_come
from sim.engine.votes import let_go, let_go_vote, vote_is_processed
from sim.kernel.calendar import calendar_open
from sim.kernel.chance import TIMEOUT, below, join, part_of
from sim.kernel.due import (
    BATCH,
    CALL,
    CARD,
    CLIENT,
    DECIDED,
    DELIVER,
    DISK_DONE,
    ENDORSE_TIMEOUT,
    EXECUTED,
    FIRE,
    PROGRESS_CHECK,
    RELAY,
    SUBMIT,
    TIMER,
    TX_ARRIVES,
    VOTED,
    ready_push,
)
from sim.kernel.heap import heap_drop
from sim.kernel.post import (
    ACTION,
    ENDORSEMENT,
    ENVELOPE_WIDTH,
    INCARNATION,
    LOG_WIDTH,
    NODE_WIDTH,
    PROGRESS_NS,
    PROGRESS_NUMBER,
    PROGRESS_TOKEN,
    REPLY,
    RESULT,
    SRC,
    STATEMENT,
    drop_reference,
)
from sim.kernel.run_state import (
    DIGEST_ORDER,
    ENVELOPE,
    IN_FLIGHT,
    LOG,
    LOG_LEN,
    LOG_ON,
    MESSAGES_DONE,
    NEAR,
    NEAR_LEN,
    NEVER,
    NODE,
    NODES,
    NOW,
    READY,
    READY_DROPPED,
    READY_LEN,
    RUN,
    RUN_LEN,
    RUN_POS,
    SEATS,
    SEED,
    TALLY,
    TALLY_FIRED,
    column,
    compiled,
    entry,
    length,
    pointer,
)
from sim.kernel.tally import ACTION as TALLY_ACTION
from sim.kernel.tally import COUNT_AT, COUNT_STEP, FIRED, RELEASED, ROW
from sim.ledger.answers import answer_if_same, result_arrives
from sim.ledger.peers import endorsement_arrives, is_late
from sim.ledger.pool import oldest_waiting_ns, pool_enter
from sim.ledger.rows import (
    BACKLOG_BYTES,
    BATCH_ON,
    BATCH_TIMER,
    CLOSED_LEN,
    DECISIONS,
    OPEN_HEIGHT,
    OPEN_NS,
    PEER,
    PEER_WIDTH,
    POOL_HEAD,
    POOL_SIZE,
    POOL_TAIL,
    STOP_AFTER,
    TIP_HEIGHT,
    TRACE,
    TRACE_LEN,
    TRACE_WIDTH,
    TX,
    TX_NUMBER,
    TX_WIDTH,
)
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


@compiled
def _event_digest(run_state, time, what, argument):
    value = np.uint64(run_state[DIGEST_ORDER])
    run_state[DIGEST_ORDER] = np.int64(join(join(value, time), what + argument * 7))


DRAW_SPAN_MAX = (1 << 31) - 1  # `below` draws no more values; wider spans are drawn in 2**30 steps


@compiled
def progress_period_ns(run_state, node):
    """The progress timer's current period: a draw per period from [low, low + span], in whole steps if it has some."""
    rows = column(run_state, PROGRESS)
    p = node * PROGRESS_WIDTH
    low, span, step = rows[p + PERIOD_LOW], rows[p + PERIOD_SPAN], rows[p + PERIOD_STEP]
    if span == 0:
        return low
    number = column(run_state, NODE)[node * NODE_WIDTH + PROGRESS_NUMBER]
    draw = join(join(join(join(0, run_state[SEED]), TIMEOUT), node), number)
    if step > 0:
        return low + below(draw, span // step + 1) * step
    return low + (below(draw, span + 1) if span < DRAW_SPAN_MAX else part_of(draw, span + 1))


@compiled
def _check_progress(run_state, node):
    """The progress timer's entry came up: wait on, go idle (-1), or report expiry (0)."""
    state = column(run_state, NODE)
    since = state[node * NODE_WIDTH + PROGRESS_NS]
    if run_state[PROGRESS_MODE] == 1:
        oldest = oldest_waiting_ns(run_state, node)
        peer = column(run_state, PEER)
        p = node * PEER_WIDTH
        # What it voted for is not decided. Where something waits always, it has waited since the last decision.
        if run_state[BACKLOG_BYTES] == 0 and peer[p + OPEN_HEIGHT] > peer[p + TIP_HEIGHT]:
            oldest = peer[p + OPEN_NS] if oldest < 0 else min(oldest, peer[p + OPEN_NS])
        if oldest < 0 and run_state[BACKLOG_BYTES] == 0:
            # Nothing waits. Looking again after one period cannot miss an expiry: a transaction that
            # arrives in between is at most one period old then.
            return run_state[NOW] + progress_period_ns(run_state, node)
        since = max(since, oldest)
    due = since + progress_period_ns(run_state, node)
    if due > run_state[NOW]:
        return due
    return np.int64(0)


@compiled
def _or_lead(run_state, node, outcome):
    """A action's outcome; a proposer who would be woken goes on by itself if it may."""
    if outcome != PERFORMED_LEASE:
        return outcome
    return np.int64(PERFORMED) if go_on(run_state, node) else np.int64(PERFORMED_WAKE)


@compiled
def _pool_full(run_state, node):
    peer = column(run_state, PEER)
    p = node * PEER_WIDTH
    return peer[p + POOL_TAIL] - peer[p + POOL_HEAD] >= run_state[POOL_SIZE] - 1


_OUT = types.UniTuple(types.int64, 4)
_DESK = types.Array(types.int64, 1, "C")


@entry(_OUT(_DESK, types.int64), always=True)
def advance(array, until):
    """Run until something needs Python or nothing is left up to and including `until` (ns).

    Returns (code, node, argument, time).
    """
    run_state = pointer(array)
    none = np.int64(-1)
    if run_state[HELD_MESSAGE] > 0:  # Python has dealt with the message it was last woken for
        drop_reference(run_state, run_state[HELD_MESSAGE] - 1)
        run_state[HELD_MESSAGE] = 0
    while True:
        run_state[TURNS] += 1
        if run_state[TURNS_MAX] > 0 and run_state[TURNS] > run_state[TURNS_MAX]:
            run_state[TURNS] = 0
            return PAUSE, none, none, run_state[NOW]
        if run_state[TRACE_LEN] * TRACE_WIDTH + 64 * run_state[SEATS] * TRACE_WIDTH > length(run_state, TRACE):
            return EMPTY_TRACE, none, none, run_state[NOW]
        if run_state[LOG_ON] and (run_state[LOG_LEN] + 8 * run_state[NODES] + 512) * LOG_WIDTH > length(run_state, LOG):
            return EMPTY_TRACE, none, none, run_state[NOW]
        if not has_capacity(run_state):
            return CAPACITY, none, none, run_state[NOW]
        if run_state[CLOSED_LEN] >= run_state[SWEEP_CLOSED] or run_state[DECISIONS] >= run_state[SWEEP_DECISIONS]:
            return CLOSED_BLOCKS, none, none, run_state[NOW]
        if run_state[STOP_AFTER] > 0 and run_state[DECISIONS] >= run_state[STOP_AFTER]:
            return STOP, none, none, run_state[NOW]
        # --- arrivals up to the next due event
        limit = until
        if run_state[READY_LEN] > 0:
            limit = min(column(run_state, READY)[0] - 1, until)
        steps = 0
        while True:
            near = column(run_state, NEAR)
            if run_state[RUN_POS] < run_state[RUN_LEN]:
                arrives = column(run_state, RUN)[2 * run_state[RUN_POS]]
            elif run_state[NEAR_LEN] > 0:
                arrives = NEVER
            else:
                arrives = calendar_open(run_state, limit)
                if arrives == -1:
                    return CAPACITY, none, none, run_state[NOW]
            if run_state[NEAR_LEN] > 0 and near[0] < arrives:
                arrives = near[0]
                if arrives > limit:
                    break
                ref = near[2]
                heap_drop(run_state, NEAR, NEAR_LEN)
            else:
                if arrives > limit:
                    break
                ref = column(run_state, RUN)[2 * run_state[RUN_POS] + 1]
                run_state[RUN_POS] += 1
            run_state[IN_FLIGHT] -= 1
            run_state[NOW] = arrives
            if ref & 1:
                transaction_copy(run_state, arrives, ref)
            else:
                envelope_copy(run_state, arrives, ref)
            if run_state[READY_LEN] > 0:
                limit = min(column(run_state, READY)[0] - 1, until)
            steps += 1
            if steps >= 64:
                break
        if steps >= 64:
            continue
        # --- the due event
        ready = column(run_state, READY)
        if run_state[READY_LEN] == 0 or ready[0] > until:
            run_state[NOW] = max(run_state[NOW], until) if until != NEVER else run_state[NOW]
            return UNTIL, none, none, run_state[NOW]
        time, sequence, what, argument = ready[0], ready[1], ready[2], ready[3]
        heap_drop(run_state, READY, READY_LEN)
        if what & 255 == CARD:
            run_state[NOW] = time
            card_is_due(run_state, argument)
            continue
        if time == run_state[STILL_AT_NS]:
            if what & 255 != TX_ARRIVES:  # any number of transactions may arrive at one time
                run_state[STILL_EVENTS] += 1
            if run_state[STILL_EVENTS] > run_state[STILL_MAX]:
                return STANDS_STILL, none, none, time
        else:
            run_state[STILL_EVENTS] = 0
            run_state[STILL_AT_NS] = time
        run_state[NOW] = time
        run_state[EVENTS] += 1
        if run_state[EVENTS] > run_state[EVENTS_MAX]:
            return TOO_MANY_EVENTS, none, none, time
        kind = what & 255
        node = ((what >> 8) & 0xFFFFFF) - 1
        if node >= 0 and column(run_state, NODE)[node * NODE_WIDTH + INCARNATION] != what >> 32:
            run_state[READY_DROPPED] += 1  # the node has crashed in between
            if kind == TX_ARRIVES:
                release_tx(run_state, argument)
            elif kind == CLIENT:
                client_is_gone(run_state, node, argument)
            elif kind == DELIVER or kind == RELAY:
                drop_reference(run_state, argument)
            elif kind == FIRE:
                let_go(run_state, argument >> 2)
            elif kind == VOTED:
                let_go_vote(run_state, argument)
            elif kind == DISK_DONE and argument & OF_DISK == 0:
                end_write(run_state, argument)
            continue
        if kind == VOTED:
            vote_is_processed(run_state, node, argument, sequence)
            let_go_vote(run_state, argument)
            continue
        if kind == TX_ARRIVES and _pool_full(run_state, node):
            ready_push(run_state, time, TX_ARRIVES, node, argument)
            return CAPACITY, node, none, time
        if kind != BATCH and kind != PROGRESS_CHECK:
            identity = argument  # never a row number: rows are reused in an order that means nothing
            if kind == DELIVER or kind == FIRE:
                identity = np.int64(0)
            elif kind == TX_ARRIVES or (kind == CLIENT and argument >= 0):
                identity = column(run_state, TX)[argument * TX_WIDTH + TX_NUMBER]
            elif kind == EXECUTED or kind == DECIDED or kind == TIMER:
                identity = argument & ((1 << TIMER_BITS) - 1)
            elif kind == ENDORSE_TIMEOUT:
                identity = argument & 0xFFFFFFFF
            elif kind == DISK_DONE:
                identity = np.int64(0)
            _event_digest(run_state, time, what, identity)
        if kind == FIRE:
            row = argument >> 2
            tally = column(run_state, TALLY)
            let_go(run_state, row)
            if tally[row * ROW + RELEASED] != 0:
                continue
            at = tally[row * ROW + COUNT_AT] + node * tally[row * ROW + COUNT_STEP]
            column(run_state, TALLY_FIRED)[at] |= FIRED << (argument & 3)
            action = tally[row * ROW + TALLY_ACTION + (argument & 3)]
            if action == SILENT:
                continue
            if action > 0:
                outcome = _or_lead(run_state, node, react(run_state, node, action, none))
                if outcome == PERFORMED_WAKE:
                    return UPCALL_FAST_PATH, node, argument, time
                if outcome != NOT_PERFORMED:
                    continue
            return UPCALL_QUORUM, node, argument, time
        if kind == DELIVER:
            run_state[MESSAGES_DONE] += 1
            e = argument * ENVELOPE_WIDTH
            envelopes = column(run_state, ENVELOPE)
            if envelopes[e + STATEMENT] == REPLY:
                reply_arrives(run_state, argument, node)
                drop_reference(run_state, argument)
                continue
            if envelopes[e + STATEMENT] == RESULT:
                result_arrives(run_state, argument, node)
                drop_reference(run_state, argument)
                continue
            if envelopes[e + STATEMENT] == ENDORSEMENT:
                endorsement_arrives(run_state, argument, node)
                drop_reference(run_state, argument)
                continue
            if envelopes[e + ACTION] & OF_GOSSIP:
                if gossip_comes(run_state, node, argument):
                    drop_reference(run_state, argument)
                    continue
                run_state[HELD_MESSAGE] = argument + 1
                return UPCALL_MESSAGE, node, argument, time
            action = current_action(run_state, envelopes[e + ACTION])
            if action > 0 and column(run_state, ACTIONS)[action * ACTION_WIDTH + AGGREGATE] > 0:
                if in_tree(run_state, node, action, argument):
                    continue
            elif action > 0:
                outcome = _or_lead(run_state, node, react(run_state, node, action, envelopes[e + SRC]))
                if outcome == PERFORMED_WAKE:
                    run_state[HELD_MESSAGE] = argument + 1
                    return UPCALL_FAST_PATH, node, argument, time
                if outcome != NOT_PERFORMED:
                    drop_reference(run_state, argument)
                    continue
            run_state[HELD_MESSAGE] = argument + 1
            return UPCALL_MESSAGE, node, argument, time
        if kind == TX_ARRIVES:
            if pool_enter(run_state, argument, node):
                column(run_state, PEER)[node * PEER_WIDTH + BATCH_ON] = 0
                if go_on(run_state, node):
                    continue
                return UPCALL_BATCH, node, none, time
            if column(run_state, PEER)[node * PEER_WIDTH + BATCH_ON]:
                arm_batch(run_state, node)
        elif kind == SUBMIT:
            after = submit_next(run_state, argument)
            if after >= 0:
                ready_push(run_state, after, SUBMIT, none, argument)
        elif kind == CLIENT:
            client_acts(run_state, node, argument)
        elif kind == ENDORSE_TIMEOUT:
            is_late(run_state, argument)
        elif kind == BATCH:
            peer = column(run_state, PEER)
            if peer[node * PEER_WIDTH + BATCH_TIMER] != time:
                continue  # the proposer awaits another time since
            peer[node * PEER_WIDTH + BATCH_TIMER] = -1
            if peer[node * PEER_WIDTH + BATCH_ON] and arm_batch(run_state, node):
                peer[node * PEER_WIDTH + BATCH_ON] = 0
                if go_on(run_state, node):
                    continue
                return UPCALL_BATCH, node, none, time
        elif kind == PROGRESS_CHECK:
            if argument == column(run_state, NODE)[node * NODE_WIDTH + PROGRESS_TOKEN]:
                again = _check_progress(run_state, node)
                if again > 0:
                    ready_push(run_state, again, PROGRESS_CHECK, node, argument)
                else:
                    return UPCALL_PROGRESS, node, none, time
        elif kind == DISK_DONE:
            if argument & OF_DISK:
                return UPCALL_TIMER, node, argument, time
            if _or_lead(run_state, node, finish_after_disk(run_state, node, argument)) == PERFORMED_WAKE:
                return UPCALL_FAST_PATH, node, argument, time
        elif kind == RELAY:
            relay(run_state, node, argument)
        elif kind == EXECUTED:
            answer_if_same(run_state, node, argument)
        elif kind == DECIDED:
            return UPCALL_DECIDED, node, argument, time
        elif kind == TIMER:
            if argument & OF_TURN:
                if not turn_has_come(run_state, node, argument):
                    continue
            elif timer_is_idle(run_state, node, argument):
                continue
            return UPCALL_TIMER, node, argument, time
        elif kind == CALL:
            return UPCALL_CALL, node, argument, time
