"""Blocks: their tree, who has decided what, and the trace of these events.

A block is a row. A node decides a block once its parent is decided there; the node's *tip* is the last one.
If the protocol may learn of decisions out of order (PBFT), a block decided early is marked ready and follows
its parent.
"""

from __future__ import annotations

import numpy as np

from sim.kernel import due as events
from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.kernel.due import ready_push
from sim.kernel.run_state import column, compiled, length, make_capacity
from sim.ledger import rows as ledger
from sim.ledger.answers import answer, forget_results
from sim.ledger.execution import BEFORE_VOTE, BETWEEN_BLOCKS, execution_ns
from sim.ledger.payload import fill_block, free_payload, settle_payload
from sim.ledger.pool import use_tick


@compiled
def trace(run_state, event, node, a, b, c, d, e):
    """Append a row to the trace. The run loop empties it between events; one event may fill it."""
    at = run_state[ledger.TRACE_LEN] * ledger.TRACE_WIDTH
    if at + ledger.TRACE_WIDTH > length(run_state, ledger.TRACE):
        make_capacity(run_state, ledger.TRACE)
    rows = column(run_state, ledger.TRACE)
    rows[at] = run_state[kernel.NOW]
    rows[at + 1] = event
    rows[at + 2] = node
    rows[at + 3] = a
    rows[at + 4] = b
    rows[at + 5] = c
    rows[at + 6] = d
    rows[at + 7] = e
    run_state[ledger.TRACE_LEN] += 1


@compiled
def new_block(run_state, node, parent, height, view, empty):
    """A block proposed now by `node`, filled from its mempool.

    Returns its row, -1 if there is no room, or -2 if nothing waits and it may not be `empty`: then nobody has proposed.
    """
    if run_state[ledger.BLOCKS_FREE] == 0 or run_state[ledger.PAYLOADS_FREE] == 0:
        return np.int64(-1)
    run_state[ledger.BLOCKS_FREE] -= 1
    block = column(run_state, ledger.BLOCK_FREE)[run_state[ledger.BLOCKS_FREE]]
    rows = column(run_state, ledger.BLOCK)
    b = block * ledger.BLOCK_WIDTH
    rows[b + ledger.PARENT] = parent
    rows[b + ledger.HEIGHT] = height
    rows[b + ledger.VIEW] = view
    rows[b + ledger.PROPOSER] = node
    rows[b + ledger.PROPOSED_NS] = run_state[kernel.NOW]
    rows[b + ledger.DECIDED_BY] = 0
    rows[b + ledger.STANDING] = ledger.UNDECIDED
    rows[b + ledger.CHILD] = -1
    rows[b + ledger.SIBLING] = -1
    rows[b + ledger.STAMP] = 0
    rows[b + ledger.CLOSE_STATE] = 0
    rows[b + ledger.UNACKED] = 0
    rows[b + ledger.PARENT_NUMBER] = rows[parent * ledger.BLOCK_WIDTH + ledger.NUMBER] if parent >= 0 else -1
    rows[b + ledger.SEEN] = 1
    rows[b + ledger.CASE_ACTION] = 0
    for i in range(3):
        rows[b + ledger.CASE_ROWS + i] = -1
    rows[b + ledger.NUMBER] = run_state[ledger.BLOCK_SERIAL]
    run_state[ledger.BLOCK_SERIAL] += 1
    words = run_state[kernel.BITS_WORDS]
    ready = column(run_state, ledger.BLOCK_READY)
    for i in range(words):
        ready[block * words + i] = 0
    gateways = run_state[ledger.GATEWAYS]
    replies = column(run_state, ledger.BLOCK_REPLIES)
    for i in range(gateways):
        replies[block * gateways + i] = 0
    forget_results(run_state, block)
    rows[b + ledger.PAYLOAD_AT] = -1
    if gateways > 0:
        run_state[ledger.PAYLOADS_FREE] -= 1
        rows[b + ledger.PAYLOAD_AT] = column(run_state, ledger.PAYLOAD_FREE)[run_state[ledger.PAYLOADS_FREE]]
    if parent >= 0:
        rows[b + ledger.SIBLING] = rows[parent * ledger.BLOCK_WIDTH + ledger.CHILD]
        rows[parent * ledger.BLOCK_WIDTH + ledger.CHILD] = block
    fill_block(run_state, node, block)
    if rows[b + ledger.TXS] == 0 and not empty:
        free_block(run_state, block)
        return np.int64(-2)
    use_tick(run_state, node, True)
    trace(
        run_state,
        ledger.EVENT_PROPOSED,
        node,
        rows[b + ledger.NUMBER],
        height,
        view,
        rows[b + ledger.TXS],
        rows[b + ledger.BYTES],
    )
    return block


@compiled
def _forget_waiting(run_state, block):
    """Nobody waits any more for the ancestors of a block that goes."""
    ready = column(run_state, ledger.BLOCK_READY)
    words = run_state[kernel.BITS_WORDS]
    for i in range(words):
        if ready[block * words + i]:
            for k in range(min(64, run_state[kernel.SEATS] - 64 * i)):
                if (ready[block * words + i] >> k) & 1:
                    column(run_state, ledger.PEER)[(64 * i + k) * ledger.PEER_WIDTH + ledger.WAITING] -= 1
            ready[block * words + i] = 0


@compiled
def free_block(run_state, block):
    """Give a block's row back, and let its transactions go. No node may have it as its tip."""
    rows = column(run_state, ledger.BLOCK)
    b = block * ledger.BLOCK_WIDTH
    parent = rows[b + ledger.PARENT]
    free_payload(run_state, block)
    rows[b + ledger.NUMBER] = -1
    _forget_waiting(run_state, block)
    if rows[b + ledger.PAYLOAD_AT] >= 0:
        column(run_state, ledger.PAYLOAD_FREE)[run_state[ledger.PAYLOADS_FREE]] = rows[b + ledger.PAYLOAD_AT]
        run_state[ledger.PAYLOADS_FREE] += 1
    if parent >= 0 and rows[parent * ledger.BLOCK_WIDTH + ledger.CHILD] == block:
        rows[parent * ledger.BLOCK_WIDTH + ledger.CHILD] = rows[b + ledger.SIBLING]
    column(run_state, ledger.BLOCK_FREE)[run_state[ledger.BLOCKS_FREE]] = block
    run_state[ledger.BLOCKS_FREE] += 1


@compiled
def extends_tip(run_state, node, block):
    """Whether the block's parent is the last block the node has decided."""
    return (
        column(run_state, ledger.BLOCK)[block * ledger.BLOCK_WIDTH + ledger.PARENT]
        == column(run_state, ledger.PEER)[node * ledger.PEER_WIDTH + ledger.TIP]
    )


@compiled
def _deciding_messages(run_state):
    """Messages sent so far of the types that count in messages per decision."""
    counts = column(run_state, kernel.KIND_COUNT)
    mask = run_state[ledger.DECIDING_KINDS]
    total = np.int64(0)
    kind = 0
    while mask:
        if mask & 1:
            total += counts[kind * post.KIND_WIDTH + post.COUNT_SENT]
        mask >>= 1
        kind += 1
    return total


@compiled
def _decide_one(run_state, node, block):
    rows = column(run_state, ledger.BLOCK)
    b = block * ledger.BLOCK_WIDTH
    peer = column(run_state, ledger.PEER)
    peer[node * ledger.PEER_WIDTH + ledger.TIP] = block
    peer[node * ledger.PEER_WIDTH + ledger.TIP_HEIGHT] = rows[b + ledger.HEIGHT]
    use_tick(run_state, node, False)
    if run_state[ledger.FORKS] == 0:  # else it is the head that counts
        peer[node * ledger.PEER_WIDTH + ledger.BUILT_NS] = run_state[kernel.NOW]
    ready = column(run_state, ledger.BLOCK_READY)
    at = block * run_state[kernel.BITS_WORDS] + (node >> 6)
    if (ready[at] >> (node & 63)) & 1:
        ready[at] &= ~(np.int64(1) << (node & 63))
        peer[node * ledger.PEER_WIDTH + ledger.WAITING] -= 1
    column(run_state, kernel.NODE)[node * post.NODE_WIDTH + post.PROGRESS_NS] = run_state[kernel.NOW]
    column(run_state, kernel.NODE)[node * post.NODE_WIDTH + post.PROGRESS_NUMBER] += 1
    column(run_state, ledger.POOL_FILL)[node * ledger.POOL_FILL_WIDTH + ledger.GONE_SINCE] = 0
    messages = np.int64(0)
    if peer[node * ledger.PEER_WIDTH + ledger.APART]:
        rows[b + ledger.STANDING] = max(rows[b + ledger.STANDING], ledger.DECIDED_APART)
    elif rows[b + ledger.STANDING] < ledger.SETTLED:
        rows[b + ledger.STANDING] = ledger.SETTLED
        run_state[ledger.DECISIONS] += 1
        settle_payload(run_state, block)
        messages = _deciding_messages(run_state)
    rows[b + ledger.DECIDED_BY] += 1
    run_state[ledger.DECIDES] += 1
    trace(
        run_state,
        ledger.EVENT_DECIDED,
        node,
        rows[b + ledger.NUMBER],
        rows[b + ledger.HEIGHT],
        rows[b + ledger.VIEW],
        rows[b + ledger.TXS],
        messages,
    )
    if peer[node * ledger.PEER_WIDTH + ledger.WATCHED]:
        ready_push(
            run_state,
            run_state[kernel.NOW],
            events.DECIDED,
            node,
            (block << 32) | (rows[b + ledger.NUMBER] & 0xFFFFFFFF),
        )
    if peer[node * ledger.PEER_WIDTH + ledger.QUIET]:
        pass
    elif run_state[ledger.EXECUTE_PLACE] != BEFORE_VOTE and execution_ns(run_state, block) > 0:
        state = column(run_state, kernel.NODE)
        s = node * post.NODE_WIDTH
        cost = (execution_ns(run_state, block) * state[s + post.CPU_Q10]) >> 10
        done = max(run_state[kernel.NOW], state[s + post.EXECUTE_FREE]) + cost
        state[s + post.EXECUTE_FREE] = done
        state[s + post.EXECUTE_BUSY] += cost
        if run_state[ledger.EXECUTE_PLACE] == BETWEEN_BLOCKS:  # its consensus waits, and so does its patience
            state[s + post.THREAD_FREE] = max(state[s + post.THREAD_FREE], done)
            state[s + post.PROGRESS_NS] = done
        ready_push(run_state, done, events.EXECUTED, node, (block << 32) | (rows[b + ledger.NUMBER] & 0xFFFFFFFF))
    else:
        answer(run_state, node, block)
    maybe_close(run_state, block)


@compiled
def maybe_close(run_state, block):
    """Report a block that every seat has decided and whose clients are served: Python frees it."""
    rows = column(run_state, ledger.BLOCK)
    b = block * ledger.BLOCK_WIDTH
    if rows[b + ledger.PAYLOAD_AT] >= 0 and rows[b + ledger.DECIDED_BY] > 0 and rows[b + ledger.UNACKED] <= 0:
        # Every client has its answer: the list of transactions goes, however long the block is kept for catch-up.
        column(run_state, ledger.PAYLOAD_FREE)[run_state[ledger.PAYLOADS_FREE]] = rows[b + ledger.PAYLOAD_AT]
        run_state[ledger.PAYLOADS_FREE] += 1
        rows[b + ledger.PAYLOAD_AT] = -1
    if (
        rows[b + ledger.DECIDED_BY] >= run_state[kernel.SEATS]
        and rows[b + ledger.UNACKED] <= 0
        and rows[b + ledger.CLOSE_STATE] == 0
    ):
        rows[b + ledger.CLOSE_STATE] = 1
        if run_state[ledger.CLOSED_LEN] == length(run_state, ledger.CLOSED):
            make_capacity(run_state, ledger.CLOSED)
        column(run_state, ledger.CLOSED)[run_state[ledger.CLOSED_LEN]] = block
        run_state[ledger.CLOSED_LEN] += 1


@compiled
def await_decision(run_state, node, block):
    """The node has voted for a block: if there are transactions in it, it waits until that height is decided."""
    rows = column(run_state, ledger.BLOCK)
    height = rows[block * ledger.BLOCK_WIDTH + ledger.HEIGHT]
    if rows[block * ledger.BLOCK_WIDTH + ledger.TXS] == 0:
        return
    peer = column(run_state, ledger.PEER)
    p = node * ledger.PEER_WIDTH
    if peer[p + ledger.OPEN_HEIGHT] <= peer[p + ledger.TIP_HEIGHT]:
        peer[p + ledger.OPEN_NS] = run_state[kernel.NOW]
    peer[p + ledger.OPEN_HEIGHT] = max(peer[p + ledger.OPEN_HEIGHT], height)


@compiled
def decide(run_state, node, block):
    """The node decides a block whose parent it has decided, and any children that were waiting for it."""
    _decide_one(run_state, node, block)
    rows = column(run_state, ledger.BLOCK)
    ready = column(run_state, ledger.BLOCK_READY)
    words = run_state[kernel.BITS_WORDS]
    child = rows[block * ledger.BLOCK_WIDTH + ledger.CHILD]
    while child >= 0:
        if (ready[child * words + (node >> 6)] >> (node & 63)) & 1:
            _decide_one(run_state, node, child)
            child = rows[child * ledger.BLOCK_WIDTH + ledger.CHILD]
        else:
            child = rows[child * ledger.BLOCK_WIDTH + ledger.SIBLING]


@compiled
def undecide(run_state, node):
    """The node gives up the last block it has decided: its parent is the tip again."""
    rows = column(run_state, ledger.BLOCK)
    peer = column(run_state, ledger.PEER)
    b = peer[node * ledger.PEER_WIDTH + ledger.TIP] * ledger.BLOCK_WIDTH
    rows[b + ledger.DECIDED_BY] -= 1
    run_state[ledger.DECIDES] -= 1
    peer[node * ledger.PEER_WIDTH + ledger.TIP] = rows[b + ledger.PARENT]
    peer[node * ledger.PEER_WIDTH + ledger.TIP_HEIGHT] -= 1


@compiled
def decide_or_wait(run_state, node, block):
    """Decide the block now, or as soon as its parent is decided. Returns True if it is decided."""
    if (
        column(run_state, ledger.BLOCK)[block * ledger.BLOCK_WIDTH + ledger.HEIGHT]
        <= column(run_state, ledger.PEER)[node * ledger.PEER_WIDTH + ledger.TIP_HEIGHT]
    ):
        return True  # it came by state transfer; its parent's row may serve another block by now
    if extends_tip(run_state, node, block):
        decide(run_state, node, block)
        return True
    words = run_state[kernel.BITS_WORDS]
    at = block * words + (node >> 6)
    ready = column(run_state, ledger.BLOCK_READY)
    if (ready[at] >> (node & 63)) & 1 == 0:
        ready[at] |= np.int64(1) << (node & 63)
        column(run_state, ledger.PEER)[node * ledger.PEER_WIDTH + ledger.WAITING] += 1
    return False
