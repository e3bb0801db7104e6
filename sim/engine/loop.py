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
    EVENTS,
    EVENTS_MAX,
    GATHER,
    HELD_LETTER,
    NOT_PERFORMED,
    PERFORMED,
    PERFORMED_LEAD,
    PERFORMED_WAKE,
    PROGRESS,
    PROGRESS_MODE,
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
from sim.engine.lead import arm_batch, go_on
from sim.engine.relay import relay
from sim.engine.room import has_room
from sim.engine.rumours import OF_RUMOUR, rumour_comes
from sim.engine.timers import OF_DISK, OF_TURN, TIMER_BITS, turn_has_come
from sim.engine.trees import in_tree, timer_is_idle
from sim.engine.votes import let_go, let_go_vote, vote_is_processed
from sim.kernel.calendar import calendar_open
from sim.kernel.chance import TIMEOUT, below, join
from sim.kernel.desk import (
    DIGEST_ORDER,
    ENVELOPE,
    IN_FLIGHT,
    LETTERS_DONE,
    LOG,
    LOG_LEN,
    LOG_ON,
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
    bench,
    column,
    compiled,
    entry,
    length,
)
from sim.kernel.due import (
    BATCH,
    CALL,
    DECIDED,
    DELIVER,
    DISK_DONE,
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
    ENVELOPE_WIDTH,
    INCARNATION,
    LOG_WIDTH,
    NODE_WIDTH,
    PROGRESS_NS,
    PROGRESS_NUMBER,
    PROGRESS_TOKEN,
    REPLY,
    SRC,
    STATEMENT,
    drop_reference,
)
from sim.kernel.tally import ACTION as TALLY_ACTION
from sim.kernel.tally import COUNT_AT, COUNT_STEP, FIRED, RELEASED, ROW
from sim.ledger.chain import reply_if_same
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
from sim.ledger.transactions import release_tx, submit_next

# What advance returns.
(
    UNTIL,  # nothing is due before the limit
    WAKE_LETTER,  # node received a letter; argument: envelope
    WAKE_QUORUM,  # argument: tally row * 4 + threshold index
    WAKE_TIMER,  # argument: timer number
    WAKE_BATCH,  # the proposer's next block is due
    WAKE_PROGRESS,  # the progress timer expired
    WAKE_FAST_PATH,  # the fast path performed something the proposer wants to know; argument: action or row
    WAKE_CALL,  # argument: number of a Python callback
    ROOM,  # a column is nearly full
    EMPTY_TRACE,  # the trace is nearly full
    STOP,  # enough decisions
    CLOSED_BLOCKS,  # blocks that can be freed
    TOO_MANY_EVENTS,
    STANDS_STILL,  # events without time moving: an instant livelock
    WAKE_DECIDED,  # a watched node has decided a block; argument: row << 32 | number
    PAUSE,  # Python wants to look at the clock on the wall
) = range(16)


@compiled
def _event_digest(desk, time, what, argument):
    value = np.uint64(desk[DIGEST_ORDER])
    desk[DIGEST_ORDER] = np.int64(join(join(value, time), what + argument * 7))


@compiled
def progress_period_ns(desk, node):
    """The progress timer's current period: a draw per period from [low, low + span], so that it is no tick."""
    rows = column(desk, PROGRESS)
    low, span = rows[2 * node], rows[2 * node + 1]
    if span == 0:
        return low
    number = column(desk, NODE)[node * NODE_WIDTH + PROGRESS_NUMBER]
    return low + below(join(join(join(join(0, desk[SEED]), TIMEOUT), node), number), span + 1)


@compiled
def _check_progress(desk, node):
    """The progress timer's entry came up: wait on, go idle (-1), or report expiry (0)."""
    state = column(desk, NODE)
    since = state[node * NODE_WIDTH + PROGRESS_NS]
    if desk[PROGRESS_MODE] == 1:
        oldest = oldest_waiting_ns(desk, node)
        peer = column(desk, PEER)
        p = node * PEER_WIDTH
        # What it voted for is not decided. Where something waits always, it has waited since the last decision.
        if desk[BACKLOG_BYTES] == 0 and peer[p + OPEN_HEIGHT] > peer[p + TIP_HEIGHT]:
            oldest = peer[p + OPEN_NS] if oldest < 0 else min(oldest, peer[p + OPEN_NS])
        if oldest < 0 and desk[BACKLOG_BYTES] == 0:
            # Nothing waits. Looking again after one period cannot miss an expiry: a transaction that
            # arrives in between is at most one period old then.
            return desk[NOW] + progress_period_ns(desk, node)
        since = max(since, oldest)
    due = since + progress_period_ns(desk, node)
    if due > desk[NOW]:
        return due
    return np.int64(0)


@compiled
def _or_lead(desk, node, outcome):
    """A action's outcome; a proposer who would be woken goes on by itself if it may."""
    if outcome != PERFORMED_LEAD:
        return outcome
    return np.int64(PERFORMED) if go_on(desk, node) else np.int64(PERFORMED_WAKE)


@compiled
def _pool_full(desk, node):
    peer = column(desk, PEER)
    p = node * PEER_WIDTH
    return peer[p + POOL_TAIL] - peer[p + POOL_HEAD] >= desk[POOL_SIZE] - 1


_OUT = types.UniTuple(types.int64, 4)
_DESK = types.Array(types.int64, 1, "C")


@entry(_OUT(_DESK, types.int64), always=True)
def advance(array, until):
    """Run until something needs Python or nothing is left up to and including `until` (ns).

    Returns (code, node, argument, time).
    """
    desk = bench(array)
    none = np.int64(-1)
    if desk[HELD_LETTER] > 0:  # Python has dealt with the letter it was last woken for
        drop_reference(desk, desk[HELD_LETTER] - 1)
        desk[HELD_LETTER] = 0
    while True:
        desk[TURNS] += 1
        if desk[TURNS_MAX] > 0 and desk[TURNS] > desk[TURNS_MAX]:
            desk[TURNS] = 0
            return PAUSE, none, none, desk[NOW]
        if desk[TRACE_LEN] * TRACE_WIDTH + 64 * desk[SEATS] * TRACE_WIDTH > length(desk, TRACE):
            return EMPTY_TRACE, none, none, desk[NOW]
        if desk[LOG_ON] and (desk[LOG_LEN] + 8 * desk[NODES] + 512) * LOG_WIDTH > length(desk, LOG):
            return EMPTY_TRACE, none, none, desk[NOW]
        if not has_room(desk):
            return ROOM, none, none, desk[NOW]
        if desk[CLOSED_LEN] >= desk[SWEEP_CLOSED] or desk[DECISIONS] >= desk[SWEEP_DECISIONS]:
            return CLOSED_BLOCKS, none, none, desk[NOW]
        if desk[STOP_AFTER] > 0 and desk[DECISIONS] >= desk[STOP_AFTER]:
            return STOP, none, none, desk[NOW]
        # --- arrivals up to the next due event
        limit = until
        if desk[READY_LEN] > 0:
            limit = min(column(desk, READY)[0] - 1, until)
        steps = 0
        while True:
            near = column(desk, NEAR)
            if desk[RUN_POS] < desk[RUN_LEN]:
                arrives = column(desk, RUN)[2 * desk[RUN_POS]]
            elif desk[NEAR_LEN] > 0:
                arrives = NEVER
            else:
                arrives = calendar_open(desk, limit)
                if arrives == -1:
                    return ROOM, none, none, desk[NOW]
            if desk[NEAR_LEN] > 0 and near[0] < arrives:
                arrives = near[0]
                if arrives > limit:
                    break
                ref = near[2]
                heap_drop(desk, NEAR, NEAR_LEN)
            else:
                if arrives > limit:
                    break
                ref = column(desk, RUN)[2 * desk[RUN_POS] + 1]
                desk[RUN_POS] += 1
            desk[IN_FLIGHT] -= 1
            desk[NOW] = arrives
            if ref & 1:
                transaction_copy(desk, arrives, ref)
            else:
                envelope_copy(desk, arrives, ref)
            if desk[READY_LEN] > 0:
                limit = min(column(desk, READY)[0] - 1, until)
            steps += 1
            if steps >= 64:
                break
        if steps >= 64:
            continue
        # --- the due event
        ready = column(desk, READY)
        if desk[READY_LEN] == 0 or ready[0] > until:
            desk[NOW] = max(desk[NOW], until) if until != NEVER else desk[NOW]
            return UNTIL, none, none, desk[NOW]
        time, sequence, what, argument = ready[0], ready[1], ready[2], ready[3]
        heap_drop(desk, READY, READY_LEN)
        if time == desk[STILL_AT_NS]:
            if what & 255 != TX_ARRIVES:  # any number of transactions may arrive at one time
                desk[STILL_EVENTS] += 1
            if desk[STILL_EVENTS] > desk[STILL_MAX]:
                return STANDS_STILL, none, none, time
        else:
            desk[STILL_EVENTS] = 0
            desk[STILL_AT_NS] = time
        desk[NOW] = time
        desk[EVENTS] += 1
        if desk[EVENTS] > desk[EVENTS_MAX]:
            return TOO_MANY_EVENTS, none, none, time
        kind = what & 255
        node = ((what >> 8) & 0xFFFFFF) - 1
        if node >= 0 and column(desk, NODE)[node * NODE_WIDTH + INCARNATION] != what >> 32:
            desk[READY_DROPPED] += 1  # the node has crashed in between
            if kind == TX_ARRIVES:
                release_tx(desk, argument)
            elif kind == DELIVER or kind == RELAY:
                drop_reference(desk, argument)
            elif kind == FIRE:
                let_go(desk, argument >> 2)
            elif kind == VOTED:
                let_go_vote(desk, argument)
            elif kind == DISK_DONE and argument & OF_DISK == 0:
                end_write(desk, argument)
            continue
        if kind == VOTED:
            vote_is_processed(desk, node, argument, sequence)
            let_go_vote(desk, argument)
            continue
        if kind == TX_ARRIVES and _pool_full(desk, node):
            ready_push(desk, time, TX_ARRIVES, node, argument)
            return ROOM, node, none, time
        if kind != BATCH and kind != PROGRESS_CHECK:
            identity = argument  # never a row number: rows are reused in an order that means nothing
            if kind == DELIVER or kind == FIRE:
                identity = np.int64(0)
            elif kind == TX_ARRIVES:
                identity = column(desk, TX)[argument * TX_WIDTH + TX_NUMBER]
            elif kind == EXECUTED or kind == DECIDED or kind == TIMER:
                identity = argument & ((1 << TIMER_BITS) - 1)
            elif kind == DISK_DONE:
                identity = np.int64(0)
            _event_digest(desk, time, what, identity)
        if kind == FIRE:
            row = argument >> 2
            tally = column(desk, TALLY)
            let_go(desk, row)
            if tally[row * ROW + RELEASED] != 0:
                continue
            at = tally[row * ROW + COUNT_AT] + node * tally[row * ROW + COUNT_STEP]
            column(desk, TALLY_FIRED)[at] |= FIRED << (argument & 3)
            action = tally[row * ROW + TALLY_ACTION + (argument & 3)]
            if action == SILENT:
                continue
            if action > 0:
                outcome = _or_lead(desk, node, react(desk, node, action, none))
                if outcome == PERFORMED_WAKE:
                    return WAKE_FAST_PATH, node, argument, time
                if outcome != NOT_PERFORMED:
                    continue
            return WAKE_QUORUM, node, argument, time
        if kind == DELIVER:
            desk[LETTERS_DONE] += 1
            e = argument * ENVELOPE_WIDTH
            envelopes = column(desk, ENVELOPE)
            if envelopes[e + STATEMENT] == REPLY:
                reply_arrives(desk, argument, node)
                drop_reference(desk, argument)
                continue
            if envelopes[e + ACTION] & OF_RUMOUR:
                if rumour_comes(desk, node, argument):
                    drop_reference(desk, argument)
                    continue
                desk[HELD_LETTER] = argument + 1
                return WAKE_LETTER, node, argument, time
            action = current_action(desk, envelopes[e + ACTION])
            if action > 0 and column(desk, ACTIONS)[action * ACTION_WIDTH + GATHER] > 0:
                if in_tree(desk, node, action, argument):
                    continue
            elif action > 0:
                outcome = _or_lead(desk, node, react(desk, node, action, envelopes[e + SRC]))
                if outcome == PERFORMED_WAKE:
                    desk[HELD_LETTER] = argument + 1
                    return WAKE_FAST_PATH, node, argument, time
                if outcome != NOT_PERFORMED:
                    drop_reference(desk, argument)
                    continue
            desk[HELD_LETTER] = argument + 1
            return WAKE_LETTER, node, argument, time
        if kind == TX_ARRIVES:
            if pool_enter(desk, argument, node):
                column(desk, PEER)[node * PEER_WIDTH + BATCH_ON] = 0
                if go_on(desk, node):
                    continue
                return WAKE_BATCH, node, none, time
            if column(desk, PEER)[node * PEER_WIDTH + BATCH_ON]:
                arm_batch(desk, node)
        elif kind == SUBMIT:
            after = submit_next(desk, argument)
            if after >= 0:
                ready_push(desk, after, SUBMIT, none, argument)
        elif kind == BATCH:
            peer = column(desk, PEER)
            if peer[node * PEER_WIDTH + BATCH_TIMER] != time:
                continue  # the proposer awaits another time since
            peer[node * PEER_WIDTH + BATCH_TIMER] = -1
            if peer[node * PEER_WIDTH + BATCH_ON] and arm_batch(desk, node):
                peer[node * PEER_WIDTH + BATCH_ON] = 0
                if go_on(desk, node):
                    continue
                return WAKE_BATCH, node, none, time
        elif kind == PROGRESS_CHECK:
            if argument == column(desk, NODE)[node * NODE_WIDTH + PROGRESS_TOKEN]:
                again = _check_progress(desk, node)
                if again > 0:
                    ready_push(desk, again, PROGRESS_CHECK, node, argument)
                else:
                    return WAKE_PROGRESS, node, none, time
        elif kind == DISK_DONE:
            if argument & OF_DISK:
                return WAKE_TIMER, node, argument, time
            if _or_lead(desk, node, finish_after_disk(desk, node, argument)) == PERFORMED_WAKE:
                return WAKE_FAST_PATH, node, argument, time
        elif kind == RELAY:
            relay(desk, node, argument)
        elif kind == EXECUTED:
            reply_if_same(desk, node, argument)
        elif kind == DECIDED:
            return WAKE_DECIDED, node, argument, time
        elif kind == TIMER:
            if argument & OF_TURN:
                if not turn_has_come(desk, node, argument):
                    continue
            elif timer_is_idle(desk, node, argument):
                continue
            return WAKE_TIMER, node, argument, time
        elif kind == CALL:
            return WAKE_CALL, node, argument, time
