"""Blocks: their tree, who has decided what, and the trace of these events.

A block is a row. A node decides a block once its parent is decided there; the node's *tip* is the last one.
If the protocol may learn of decisions out of order (PBFT), a block decided early is marked ready and follows
its parent.
"""

from __future__ import annotations

import numpy as np

from sim.kernel.due import DECIDED, EXECUTED, ready_push
from sim.kernel.post import (
    COUNT_SENT,
    CPU_Q10,
    EXECUTE_BUSY,
    EXECUTE_FREE,
    KIND_WIDTH,
    NODE_WIDTH,
    PROGRESS_NS,
    PROGRESS_NUMBER,
    THREAD_FREE,
)
from sim.kernel.run_state import (
    BITS_WORDS,
    KIND_COUNT,
    NODE,
    NOW,
    SEATS,
    column,
    compiled,
    length,
    make_capacity,
)
from sim.ledger.answers import answer, forget_results
from sim.ledger.execution import BEFORE_VOTE, BETWEEN_BLOCKS, execution_ns
from sim.ledger.payload import fill_block, free_payload, settle_payload
from sim.ledger.pool import use_tick
from sim.ledger.rows import (
    APART,
    BLOCK,
    BLOCK_FREE,
    BLOCK_READY,
    BLOCK_REPLIES,
    BLOCK_SERIAL,
    BLOCK_WIDTH,
    BLOCKS_FREE,
    BUILT_NS,
    BYTES,
    CASE_ACTION,
    CASE_ROWS,
    CHILD,
    CLOSE_STATE,
    CLOSED,
    CLOSED_LEN,
    DECIDED_APART,
    DECIDED_BY,
    DECIDES,
    DECIDING_KINDS,
    DECISIONS,
    EVENT_DECIDED,
    EVENT_PROPOSED,
    EXECUTE_PLACE,
    FORKS,
    GATEWAYS,
    GONE_SINCE,
    HEIGHT,
    NUMBER,
    OPEN_HEIGHT,
    OPEN_NS,
    PARENT,
    PARENT_NUMBER,
    PAYLOAD_AT,
    PAYLOAD_FREE,
    PAYLOADS_FREE,
    PEER,
    PEER_WIDTH,
    POOL_FILL,
    POOL_FILL_WIDTH,
    PROPOSED_NS,
    PROPOSER,
    QUIET,
    SEEN,
    SETTLED,
    SIBLING,
    STAMP,
    STANDING,
    TIP,
    TIP_HEIGHT,
    TRACE,
    TRACE_LEN,
    TRACE_WIDTH,
    TXS,
    UNACKED,
    UNDECIDED,
    VIEW,
    WAITING,
    WATCHED,
)


@compiled
def trace(run_state, event, node, a, b, c, d, e):
    """Append a row to the trace. The run loop empties it between events; one event may fill it."""
    at = run_state[TRACE_LEN] * TRACE_WIDTH
    if at + TRACE_WIDTH > length(run_state, TRACE):
        make_capacity(run_state, TRACE)
    rows = column(run_state, TRACE)
    rows[at] = run_state[NOW]
    rows[at + 1] = event
    rows[at + 2] = node
    rows[at + 3] = a
    rows[at + 4] = b
    rows[at + 5] = c
    rows[at + 6] = d
    rows[at + 7] = e
    run_state[TRACE_LEN] += 1


@compiled
def new_block(run_state, node, parent, height, view, empty):
    """A block proposed now by `node`, filled from its mempool.

    Returns its row, -1 if there is no room, or -2 if nothing waits and it may not be `empty`: then nobody has proposed.
    """
    if run_state[BLOCKS_FREE] == 0 or run_state[PAYLOADS_FREE] == 0:
        return np.int64(-1)
    run_state[BLOCKS_FREE] -= 1
    block = column(run_state, BLOCK_FREE)[run_state[BLOCKS_FREE]]
    rows = column(run_state, BLOCK)
    b = block * BLOCK_WIDTH
    rows[b + PARENT] = parent
    rows[b + HEIGHT] = height
    rows[b + VIEW] = view
    rows[b + PROPOSER] = node
    rows[b + PROPOSED_NS] = run_state[NOW]
    rows[b + DECIDED_BY] = 0
    rows[b + STANDING] = UNDECIDED
    rows[b + CHILD] = -1
    rows[b + SIBLING] = -1
    rows[b + STAMP] = 0
    rows[b + CLOSE_STATE] = 0
    rows[b + UNACKED] = 0
    rows[b + PARENT_NUMBER] = rows[parent * BLOCK_WIDTH + NUMBER] if parent >= 0 else -1
    rows[b + SEEN] = 1
    rows[b + CASE_ACTION] = 0
    for i in range(3):
        rows[b + CASE_ROWS + i] = -1
    rows[b + NUMBER] = run_state[BLOCK_SERIAL]
    run_state[BLOCK_SERIAL] += 1
    words = run_state[BITS_WORDS]
    ready = column(run_state, BLOCK_READY)
    for i in range(words):
        ready[block * words + i] = 0
    gateways = run_state[GATEWAYS]
    replies = column(run_state, BLOCK_REPLIES)
    for i in range(gateways):
        replies[block * gateways + i] = 0
    forget_results(run_state, block)
    rows[b + PAYLOAD_AT] = -1
    if gateways > 0:
        run_state[PAYLOADS_FREE] -= 1
        rows[b + PAYLOAD_AT] = column(run_state, PAYLOAD_FREE)[run_state[PAYLOADS_FREE]]
    if parent >= 0:
        rows[b + SIBLING] = rows[parent * BLOCK_WIDTH + CHILD]
        rows[parent * BLOCK_WIDTH + CHILD] = block
    fill_block(run_state, node, block)
    if rows[b + TXS] == 0 and not empty:
        free_block(run_state, block)
        return np.int64(-2)
    use_tick(run_state, node, True)
    trace(run_state, EVENT_PROPOSED, node, rows[b + NUMBER], height, view, rows[b + TXS], rows[b + BYTES])
    return block


@compiled
def _forget_waiting(run_state, block):
    """Nobody waits any more for the ancestors of a block that goes."""
    ready = column(run_state, BLOCK_READY)
    words = run_state[BITS_WORDS]
    for i in range(words):
        if ready[block * words + i]:
            for k in range(min(64, run_state[SEATS] - 64 * i)):
                if (ready[block * words + i] >> k) & 1:
                    column(run_state, PEER)[(64 * i + k) * PEER_WIDTH + WAITING] -= 1
            ready[block * words + i] = 0


@compiled
def free_block(run_state, block):
    """Give a block's row back, and let its transactions go. No node may have it as its tip."""
    rows = column(run_state, BLOCK)
    b = block * BLOCK_WIDTH
    parent = rows[b + PARENT]
    free_payload(run_state, block)
    rows[b + NUMBER] = -1
    _forget_waiting(run_state, block)
    if rows[b + PAYLOAD_AT] >= 0:
        column(run_state, PAYLOAD_FREE)[run_state[PAYLOADS_FREE]] = rows[b + PAYLOAD_AT]
        run_state[PAYLOADS_FREE] += 1
    if parent >= 0 and rows[parent * BLOCK_WIDTH + CHILD] == block:
        rows[parent * BLOCK_WIDTH + CHILD] = rows[b + SIBLING]
    column(run_state, BLOCK_FREE)[run_state[BLOCKS_FREE]] = block
    run_state[BLOCKS_FREE] += 1


@compiled
def extends_tip(run_state, node, block):
    """Whether the block's parent is the last block the node has decided."""
    return column(run_state, BLOCK)[block * BLOCK_WIDTH + PARENT] == column(run_state, PEER)[node * PEER_WIDTH + TIP]


@compiled
def _deciding_messages(run_state):
    """Messages sent so far of the types that count in messages per decision."""
    counts = column(run_state, KIND_COUNT)
    mask = run_state[DECIDING_KINDS]
    total = np.int64(0)
    kind = 0
    while mask:
        if mask & 1:
            total += counts[kind * KIND_WIDTH + COUNT_SENT]
        mask >>= 1
        kind += 1
    return total


@compiled
def _decide_one(run_state, node, block):
    rows = column(run_state, BLOCK)
    b = block * BLOCK_WIDTH
    peer = column(run_state, PEER)
    peer[node * PEER_WIDTH + TIP] = block
    peer[node * PEER_WIDTH + TIP_HEIGHT] = rows[b + HEIGHT]
    use_tick(run_state, node, False)
    if run_state[FORKS] == 0:  # else it is the head that counts
        peer[node * PEER_WIDTH + BUILT_NS] = run_state[NOW]
    ready = column(run_state, BLOCK_READY)
    at = block * run_state[BITS_WORDS] + (node >> 6)
    if (ready[at] >> (node & 63)) & 1:
        ready[at] &= ~(np.int64(1) << (node & 63))
        peer[node * PEER_WIDTH + WAITING] -= 1
    column(run_state, NODE)[node * NODE_WIDTH + PROGRESS_NS] = run_state[NOW]
    column(run_state, NODE)[node * NODE_WIDTH + PROGRESS_NUMBER] += 1
    column(run_state, POOL_FILL)[node * POOL_FILL_WIDTH + GONE_SINCE] = 0
    messages = np.int64(0)
    if peer[node * PEER_WIDTH + APART]:
        rows[b + STANDING] = max(rows[b + STANDING], DECIDED_APART)
    elif rows[b + STANDING] < SETTLED:
        rows[b + STANDING] = SETTLED
        run_state[DECISIONS] += 1
        settle_payload(run_state, block)
        messages = _deciding_messages(run_state)
    rows[b + DECIDED_BY] += 1
    run_state[DECIDES] += 1
    trace(run_state, EVENT_DECIDED, node, rows[b + NUMBER], rows[b + HEIGHT], rows[b + VIEW], rows[b + TXS], messages)
    if peer[node * PEER_WIDTH + WATCHED]:
        ready_push(run_state, run_state[NOW], DECIDED, node, (block << 32) | (rows[b + NUMBER] & 0xFFFFFFFF))
    if peer[node * PEER_WIDTH + QUIET]:
        pass
    elif run_state[EXECUTE_PLACE] != BEFORE_VOTE and execution_ns(run_state, block) > 0:
        state = column(run_state, NODE)
        s = node * NODE_WIDTH
        cost = (execution_ns(run_state, block) * state[s + CPU_Q10]) >> 10
        done = max(run_state[NOW], state[s + EXECUTE_FREE]) + cost
        state[s + EXECUTE_FREE] = done
        state[s + EXECUTE_BUSY] += cost
        if run_state[EXECUTE_PLACE] == BETWEEN_BLOCKS:  # its consensus waits, and so does its patience
            state[s + THREAD_FREE] = max(state[s + THREAD_FREE], done)
            state[s + PROGRESS_NS] = done
        ready_push(run_state, done, EXECUTED, node, (block << 32) | (rows[b + NUMBER] & 0xFFFFFFFF))
    else:
        answer(run_state, node, block)
    maybe_close(run_state, block)


@compiled
def maybe_close(run_state, block):
    """Report a block that every seat has decided and whose clients are served: Python frees it."""
    rows = column(run_state, BLOCK)
    b = block * BLOCK_WIDTH
    if rows[b + PAYLOAD_AT] >= 0 and rows[b + DECIDED_BY] > 0 and rows[b + UNACKED] <= 0:
        # Every client has its answer: the list of transactions goes, however long the block is kept for catch-up.
        column(run_state, PAYLOAD_FREE)[run_state[PAYLOADS_FREE]] = rows[b + PAYLOAD_AT]
        run_state[PAYLOADS_FREE] += 1
        rows[b + PAYLOAD_AT] = -1
    if rows[b + DECIDED_BY] >= run_state[SEATS] and rows[b + UNACKED] <= 0 and rows[b + CLOSE_STATE] == 0:
        rows[b + CLOSE_STATE] = 1
        if run_state[CLOSED_LEN] == length(run_state, CLOSED):
            make_capacity(run_state, CLOSED)
        column(run_state, CLOSED)[run_state[CLOSED_LEN]] = block
        run_state[CLOSED_LEN] += 1


@compiled
def await_decision(run_state, node, block):
    """The node has voted for a block: if there are transactions in it, it waits until that height is decided."""
    rows = column(run_state, BLOCK)
    height = rows[block * BLOCK_WIDTH + HEIGHT]
    if rows[block * BLOCK_WIDTH + TXS] == 0:
        return
    peer = column(run_state, PEER)
    p = node * PEER_WIDTH
    if peer[p + OPEN_HEIGHT] <= peer[p + TIP_HEIGHT]:
        peer[p + OPEN_NS] = run_state[NOW]
    peer[p + OPEN_HEIGHT] = max(peer[p + OPEN_HEIGHT], height)


@compiled
def decide(run_state, node, block):
    """The node decides a block whose parent it has decided, and any children that were waiting for it."""
    _decide_one(run_state, node, block)
    rows = column(run_state, BLOCK)
    ready = column(run_state, BLOCK_READY)
    words = run_state[BITS_WORDS]
    child = rows[block * BLOCK_WIDTH + CHILD]
    while child >= 0:
        if (ready[child * words + (node >> 6)] >> (node & 63)) & 1:
            _decide_one(run_state, node, child)
            child = rows[child * BLOCK_WIDTH + CHILD]
        else:
            child = rows[child * BLOCK_WIDTH + SIBLING]


@compiled
def undecide(run_state, node):
    """The node gives up the last block it has decided: its parent is the tip again."""
    rows = column(run_state, BLOCK)
    peer = column(run_state, PEER)
    b = peer[node * PEER_WIDTH + TIP] * BLOCK_WIDTH
    rows[b + DECIDED_BY] -= 1
    run_state[DECIDES] -= 1
    peer[node * PEER_WIDTH + TIP] = rows[b + PARENT]
    peer[node * PEER_WIDTH + TIP_HEIGHT] -= 1


@compiled
def decide_or_wait(run_state, node, block):
    """Decide the block now, or as soon as its parent is decided. Returns True if it is decided."""
    if (
        column(run_state, BLOCK)[block * BLOCK_WIDTH + HEIGHT]
        <= column(run_state, PEER)[node * PEER_WIDTH + TIP_HEIGHT]
    ):
        return True  # it came by state transfer; its parent's row may serve another block by now
    if extends_tip(run_state, node, block):
        decide(run_state, node, block)
        return True
    words = run_state[BITS_WORDS]
    at = block * words + (node >> 6)
    ready = column(run_state, BLOCK_READY)
    if (ready[at] >> (node & 63)) & 1 == 0:
        ready[at] |= np.int64(1) << (node & 63)
        column(run_state, PEER)[node * PEER_WIDTH + WAITING] += 1
    return False
