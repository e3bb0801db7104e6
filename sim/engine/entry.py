"""The compiled functions that Python calls, each with one fixed signature so that they load from the cache.

A result of -1 where a row number is expected means "make room and call again": nothing has been changed.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types

from sim.engine.lanes import (
    GATE,
    PROGRESS,
    cast_vote,
    open_case,
    open_tally,
    release_reaction,
    release_tally,
    vote_counts,
)
from sim.engine.loop import _arm_batch, _has_room, progress_period_ns
from sim.kernel.chance import JITTER, join
from sim.kernel.due import CALL, PROGRESS_CHECK, SUBMIT, TIMER, ready_push
from sim.kernel.desk import NODE, NOW, SEED, TALLY, TALLY_COUNT, TALLY_FIRED, VOTERS, WORKER_FREE, WORKERS, column
from sim.kernel.post import (
    DISK_FREE,
    EXECUTE_FREE,
    GUARD,
    INCARNATION,
    LETTER,
    NODE_WIDTH,
    PROGRESS_NS,
    PROGRESS_NUMBER,
    PROGRESS_TOKEN,
    RX_FREE,
    SIGN_FREE,
    THREAD_FREE,
    UP,
    VERIFY_FREE,
    new_envelope,
    send_group,
    send_one,
)
from sim.kernel.tally import COUNT_AT, COUNT_STEP, OWNER, RELEASED, ROW, forget_node, has_voted
from sim.kernel.tally import REACTION as TALLY_REACTION
from sim.ledger.chain import decide, decide_or_wait, extends_tip, free_block, maybe_close, new_block
from sim.ledger.pool import empty_pool, lead, submit_one
from sim.ledger.rows import BATCH_AT, BATCH_ON, BATCH_TIMER, PEER, PEER_WIDTH, TX_LAST

_I = types.int64
_D = types.Array(types.int64, 1, "C")


@njit(_I(_D, _I, _I, _I, _I, _I, _I, _I, _I, _I, _I), cache=True)
def post_letter(desk, src, to, kind, size, sign_ns, verify_ns, handle_ns, key, reaction, arg):
    """Send a letter to a node (`to` >= 0) or a group (-1 - group). Returns its envelope or -1."""
    if not _has_room(desk):
        return np.int64(-1)
    whole_key = join(join(join(join(0, desk[SEED]), JITTER), src), key)
    envelope = new_envelope(desk, src, kind, LETTER, size, verify_ns, handle_ns, 0, whole_key, reaction, arg)
    if to < 0:
        send_group(desk, envelope, src, -1 - to, sign_ns)
    else:
        send_one(desk, envelope, src, to, sign_ns)
    return envelope


@njit(_I(_D, _I, _I, _I, _I), cache=True)
def vote(desk, node, row, to, local_weight):
    """Cast a node's vote in a row; returns 0, or -1 for room."""
    if not _has_room(desk):
        return np.int64(-1)
    cast_vote(desk, node, row, to, local_weight, 1)
    return np.int64(0)


@njit(_I(_D, _I, _I, _I), cache=True)
def open_gate(desk, row, node, voter):
    """The condition of a gated row is met at a node, on the word of `voter`; returns 1 if it was met before."""
    if has_voted(desk, row, node, voter):
        return np.int64(1)
    vote_counts(desk, row, node, voter, GATE, desk[NOW])
    return np.int64(0)


@njit(_I(_D, _I, _I, _I), cache=True)
def voted(desk, row, node, voter):
    """1 if `voter` is in the node's count of a row."""
    return np.int64(has_voted(desk, row, node, voter))


@njit(_I(_D, _I, _I), cache=True)
def fired(desk, row, node):
    """Bit mask of the thresholds of a row that the node has been told of."""
    tally = column(desk, TALLY)
    return column(desk, TALLY_FIRED)[tally[row * ROW + COUNT_AT] + node * tally[row * ROW + COUNT_STEP]]


@njit(_I(_D, _I, _I, _I, _I, _I, _I, _I), cache=True)
def tally_row(desk, kind, key, wide, owner, threshold_1, threshold_2, threshold_3):
    """A fresh tally row or -1."""
    return open_tally(desk, kind, key, wide, owner, threshold_1, threshold_2, threshold_3)


@njit(types.UniTuple(_I, 4)(_D, _I, _I, _I, _I, _I, _I, _I, _I), cache=True)
def case(desk, case_, need, set_, block, key, to, decided, wakes):
    """Lay out a declared normal case; see `open_case`."""
    return open_case(desk, case_, need, set_, block, key, to, decided, wakes)


@njit(_I(_D, _I), cache=True)
def drop_tally(desk, row):
    """A tally row is needed no more."""
    release_tally(desk, row)
    return np.int64(0)


@njit(_I(_D, _I), cache=True)
def drop_reaction(desk, reaction):
    """A letter's reaction is needed no more."""
    release_reaction(desk, reaction)
    return np.int64(0)


@njit(_I(_D, _I, _I, _I, _I), cache=True)
def make_block(desk, node, parent, height, view):
    """A new block filled from the node's mempool, or -1."""
    return new_block(desk, node, parent, height, view)


@njit(_I(_D, _I), cache=True)
def drop_block(desk, block):
    """Give a block's row back."""
    free_block(desk, block)
    return np.int64(0)


@njit(_I(_D, _I, _I, _I), cache=True)
def decide_block(desk, node, block, wait):
    """The node decides a block: 1 done, 0 waits for its parent (`wait`), -2 its parent is not decided."""
    if wait:
        return np.int64(decide_or_wait(desk, node, block))
    if not extends_tip(desk, node, block):
        return np.int64(-2)
    decide(desk, node, block)
    return np.int64(1)


@njit(_I(_D, _I), cache=True)
def close_again(desk, block):
    """Look again whether a block can be freed."""
    maybe_close(desk, block)
    return np.int64(0)


@njit(_I(_D, _I, _I), cache=True)
def follow(desk, node, leader):
    """The node passes its clients' transactions to this leader from now on."""
    lead(desk, node, leader)
    return np.int64(0)


@njit(_I(_D, _I, _I, _I), cache=True)
def await_batch(desk, node, not_before_ns, empty_allowed):
    """Wake the node when a block is due. Returns 1 if one is due now (no wake follows)."""
    peer = column(desk, PEER)
    p = node * PEER_WIDTH
    peer[p + BATCH_ON] = 1
    peer[p + BATCH_AT] = not_before_ns
    peer[p + BATCH_TIMER] = -1
    if _arm_batch(desk, node):
        peer[p + BATCH_ON] = 0
        return np.int64(1)
    return np.int64(0)


@njit(_I(_D, _I, _I, _I), cache=True)
def set_timer(desk, node, at_ns, number):
    """Wake the node with this timer number at a time."""
    ready_push(desk, at_ns, TIMER, node, number)
    return np.int64(0)


@njit(_I(_D, _I, _I), cache=True)
def set_call(desk, at_ns, number):
    """Call Python back at a time."""
    ready_push(desk, at_ns, CALL, np.int64(-1), number)
    return np.int64(0)


@njit(_I(_D, _I, _I, _I, _I), cache=True)
def watch_progress(desk, node, low_ns, span_ns, again):
    """Start the node's progress timer afresh with a period drawn from [low, low + span], or stop it (low 0)."""
    state = column(desk, NODE)
    s = node * NODE_WIDTH
    rows = column(desk, PROGRESS)
    rows[2 * node] = low_ns
    rows[2 * node + 1] = span_ns
    state[s + PROGRESS_TOKEN] += 1
    if low_ns > 0:
        state[s + PROGRESS_NS] = desk[NOW]
        state[s + PROGRESS_NUMBER] += again
        ready_push(desk, desk[NOW] + progress_period_ns(desk, node), PROGRESS_CHECK, node, state[s + PROGRESS_TOKEN])
    return np.int64(0)


@njit(_I(_D, _I, _I), cache=True)
def start_stream(desk, stream, first_ns):
    """The stream's first transaction is due at a time."""
    ready_push(desk, first_ns, SUBMIT, np.int64(-1), stream)
    return np.int64(0)


@njit(_I(_D, _I, _I, _I), cache=True)
def submit_now(desk, gateway, class_, count):
    """A gateway's clients submit `count` transactions now; returns 0, or -1 for room."""
    if not _has_room(desk):
        return np.int64(-1)
    for _ in range(count):
        submit_one(desk, gateway, class_)
    return np.int64(0)


@njit(_I(_D, _I, _I), cache=True)
def crash(desk, node, rows):
    """The node stops: queues, mempool and counts are gone, and whatever was due to it is void."""
    state = column(desk, NODE)
    s = node * NODE_WIDTH
    state[s + UP] = 0
    state[s + INCARNATION] += 1
    state[s + GUARD] = -1
    state[s + PROGRESS_TOKEN] += 1
    if node < desk[VOTERS]:
        empty_pool(desk, node)
        tally = column(desk, TALLY)
        for row in range(rows):
            if tally[row * ROW + RELEASED] == 0 and (
                tally[row * ROW + COUNT_STEP] or tally[row * ROW + OWNER] == node
            ):
                forget_node(desk, row, node)
    return np.int64(0)


@njit(_I(_D, _I), cache=True)
def restart(desk, node):
    """The node runs again, with empty queues."""
    state = column(desk, NODE)
    s = node * NODE_WIDTH
    state[s + UP] = 1
    for queue in (RX_FREE, VERIFY_FREE, THREAD_FREE, SIGN_FREE, DISK_FREE, EXECUTE_FREE):
        state[s + queue] = desk[NOW]
    state[s + PROGRESS_NS] = desk[NOW]
    free = column(desk, WORKER_FREE)
    for w in range(desk[WORKERS]):
        free[node * desk[WORKERS] + w] = desk[NOW]
    column(desk, PEER)[node * PEER_WIDTH + TX_LAST] = desk[NOW]
    return np.int64(0)
