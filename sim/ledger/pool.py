"""Mempools: what waits at each voter to be put into a block.

A mempool is a ring of (transaction, arrival time) per voter; what a node may put into a block is decided by what
that node itself knows. Clients' transactions are passed on from their entry node to all voters, or to the leader.
"""

from __future__ import annotations

import numpy as np

from sim.kernel.run_state import BITS_WORDS, GROUP_MEMBER, GROUP_START, NOW, column, compiled
from sim.ledger.rows import (
    BACKLOG_BYTES,
    BATCH_AT,
    BATCH_ON,
    BATCH_TIMEOUT_NS,
    BATCH_TIMER,
    BLOCK_BYTES_MAX,
    BROADCAST_TXS,
    CLASS,
    CLASS_BYTES,
    CLASS_WIDTH,
    EXPIRED,
    FORKS,
    FORWARD_TO,
    FRESH,
    INVALID_CLASS,
    MUTE,
    PAYLOAD_SIZE,
    PEER,
    PEER_WIDTH,
    POOL,
    POOL_HEAD,
    POOL_LIMIT,
    POOL_SIZE,
    POOL_TAIL,
    REJECTED,
    TIP_HEIGHT,
    TX,
    TX_BLOCK,
    TX_CLASS,
    TX_DECIDED,
    TX_ENTRY,
    TX_HELD,
    TX_REFS,
    TX_WIDTH,
)
from sim.ledger.transactions import release_tx, send_tx


@compiled
def holds(run_state, tx, node):
    """Whether the node's mempool holds the transaction."""
    at = tx * run_state[BITS_WORDS] + (node >> 6)
    return (column(run_state, TX_HELD)[at] >> (node & 63)) & 1 == 1


@compiled
def known_decided(run_state, tx, node):
    decided = column(run_state, TX)[tx * TX_WIDTH + TX_DECIDED]
    return 0 < decided <= column(run_state, PEER)[node * PEER_WIDTH + TIP_HEIGHT]


@compiled
def pool_enter(run_state, tx, node):
    """A transaction reaches a mempool now (its reference passes from the copy to the pool).

    Returns True if the node's proposer should be woken.
    """
    rows = column(run_state, TX)
    if rows[tx * TX_WIDTH + TX_CLASS] >= run_state[INVALID_CLASS]:
        if rows[tx * TX_WIDTH + TX_REFS] == 1:
            run_state[REJECTED] += 1
            run_state[EXPIRED] -= 1  # release_tx counts it there
        release_tx(run_state, tx)
        return False
    entered = not holds(run_state, tx, node) and not known_decided(run_state, tx, node)
    peer = column(run_state, PEER)
    p = node * PEER_WIDTH
    if entered and peer[p + POOL_TAIL] - peer[p + POOL_HEAD] >= run_state[POOL_LIMIT]:
        trim_pool(run_state, node)
        if peer[p + POOL_TAIL] - peer[p + POOL_HEAD] >= run_state[POOL_LIMIT]:
            if rows[tx * TX_WIDTH + TX_ENTRY] == node and rows[tx * TX_WIDTH + TX_REFS] == 1:
                run_state[REJECTED] += 1
                run_state[EXPIRED] -= 1  # release_tx counts it there
            release_tx(run_state, tx)
            return False
    if entered:
        at = tx * run_state[BITS_WORDS] + (node >> 6)
        column(run_state, TX_HELD)[at] |= np.int64(1) << (node & 63)
        tail = peer[p + POOL_TAIL]
        slot = 2 * (node * run_state[POOL_SIZE] + (tail & (run_state[POOL_SIZE] - 1)))
        pool = column(run_state, POOL)
        pool[slot] = tx
        pool[slot + 1] = run_state[NOW]
        peer[p + POOL_TAIL] = tail + 1
        peer[p + FRESH] += 1
        if rows[tx * TX_WIDTH + TX_ENTRY] == node:
            forward(run_state, tx, node, False)
    else:
        release_tx(run_state, tx)
    return entered and batch_is_due(run_state, node)


@compiled
def forward(run_state, tx, node, again):
    """Pass a transaction on from its entry node: to all voters or to the leader; `again` as for `send_tx`."""
    if column(run_state, PEER)[node * PEER_WIDTH + MUTE] > 0:
        return
    bytes_ = column(run_state, CLASS)[column(run_state, TX)[tx * TX_WIDTH + TX_CLASS] * CLASS_WIDTH + CLASS_BYTES]
    if run_state[BROADCAST_TXS]:
        for i in range(column(run_state, GROUP_START)[1]):
            dst = column(run_state, GROUP_MEMBER)[i]
            if dst != node:
                send_tx(run_state, tx, node, dst, bytes_, again)
        return
    leader = column(run_state, PEER)[node * PEER_WIDTH + FORWARD_TO]
    if leader >= 0 and leader != node:
        send_tx(run_state, tx, node, leader, bytes_, again)


@compiled
def batch_is_due(run_state, node):
    """Whether a proposer waits, its interval is over, and there is something to order; however much, not before."""
    peer = column(run_state, PEER)
    p = node * PEER_WIDTH
    if peer[p + BATCH_ON] == 0 or (run_state[BACKLOG_BYTES] == 0 and peer[p + FRESH] == 0):
        return False
    return run_state[NOW] >= batch_due_ns(run_state, node)


@compiled
def batch_due_ns(run_state, node):
    """When a block of what waits at a node is due: after its interval, and if it is not full after the batch timeout.

    It is full with as many transactions as a block holds, or as many bytes if all are as long as the first.
    """
    peer = column(run_state, PEER)
    p = node * PEER_WIDTH
    fresh = peer[p + FRESH]
    if run_state[BATCH_TIMEOUT_NS] == 0 or run_state[BACKLOG_BYTES] > 0 or fresh >= run_state[PAYLOAD_SIZE]:
        return peer[p + BATCH_AT]
    slot = 2 * (node * run_state[POOL_SIZE] + ((peer[p + POOL_TAIL] - fresh) & (run_state[POOL_SIZE] - 1)))
    first = column(run_state, POOL)[slot]
    bytes_ = column(run_state, CLASS)[column(run_state, TX)[first * TX_WIDTH + TX_CLASS] * CLASS_WIDTH + CLASS_BYTES]
    if run_state[BLOCK_BYTES_MAX] > 0 and (fresh + 1) * bytes_ > run_state[BLOCK_BYTES_MAX]:
        return peer[p + BATCH_AT]
    return max(peer[p + BATCH_AT], column(run_state, POOL)[slot + 1] + run_state[BATCH_TIMEOUT_NS])


@compiled
def trim_pool(run_state, node):
    """Drop transactions that the node knows to be decided from the head of its ring."""
    peer = column(run_state, PEER)
    p = node * PEER_WIDTH
    pool = column(run_state, POOL)
    mask = run_state[POOL_SIZE] - 1
    held = column(run_state, TX_HELD)
    words = run_state[BITS_WORDS]
    head = peer[p + POOL_HEAD]
    while head < peer[p + POOL_TAIL]:
        tx = pool[2 * (node * run_state[POOL_SIZE] + (head & mask))]
        if not known_decided(run_state, tx, node):
            break
        held[tx * words + (node >> 6)] &= ~(np.int64(1) << (node & 63))
        release_tx(run_state, tx)
        head += 1
    peer[p + POOL_HEAD] = head


@compiled
def oldest_waiting_ns(run_state, node):
    """When the oldest transaction that the node still waits to see decided arrived, or -1."""
    trim_pool(run_state, node)
    peer = column(run_state, PEER)
    p = node * PEER_WIDTH
    if peer[p + POOL_HEAD] == peer[p + POOL_TAIL]:
        return np.int64(-1)
    slot = 2 * (node * run_state[POOL_SIZE] + (peer[p + POOL_HEAD] & (run_state[POOL_SIZE] - 1)))
    return column(run_state, POOL)[slot + 1]


@compiled
def lead(run_state, node, leader):
    """The node follows `leader` now: what its own clients wait for is passed on again."""
    peer = column(run_state, PEER)
    p = node * PEER_WIDTH
    if peer[p + FORWARD_TO] == leader:
        return
    peer[p + FORWARD_TO] = leader
    if run_state[BROADCAST_TXS] or leader == node or leader < 0:
        return
    trim_pool(run_state, node)
    pool = column(run_state, POOL)
    rows = column(run_state, TX)
    for i in range(peer[p + POOL_HEAD], peer[p + POOL_TAIL]):
        tx = pool[2 * (node * run_state[POOL_SIZE] + (i & (run_state[POOL_SIZE] - 1)))]
        if rows[tx * TX_WIDTH + TX_ENTRY] == node and not known_decided(run_state, tx, node):
            forward(run_state, tx, node, False)  # its new leader has had no copy from here, as a rule


@compiled
def forward_again(run_state, node, before_ns, most):
    """Pass on again what has waited here since before a time and nobody decided, oldest first.

    A copy to the leader, or to all, may have been lost; and who passed it on to this node may have taken it for the
    leader (a voter that was removed hears of no other): those it passes on after 1, 2, 4, 8 ... periods, as
    others hold them too. Looks at `most` transactions; returns how many it sent.
    """
    trim_pool(run_state, node)
    peer = column(run_state, PEER)
    p = node * PEER_WIDTH
    pool = column(run_state, POOL)
    rows = column(run_state, TX)
    sent = 0
    for i in range(peer[p + POOL_HEAD], min(peer[p + POOL_TAIL], peer[p + POOL_HEAD] + most)):
        slot = 2 * (node * run_state[POOL_SIZE] + (i & (run_state[POOL_SIZE] - 1)))
        if pool[slot + 1] > before_ns:
            break
        tx = pool[slot]
        if run_state[FORKS] and rows[tx * TX_WIDTH + TX_BLOCK] >= 0:
            continue  # it did reach a proposer, and only grows deep
        due = rows[tx * TX_WIDTH + TX_ENTRY] == node
        if not due and run_state[BROADCAST_TXS] == 0:
            periods = (run_state[NOW] - pool[slot + 1]) // (run_state[NOW] - before_ns)
            due = periods & (periods - 1) == 0
        if due and not known_decided(run_state, tx, node):
            forward(run_state, tx, node, True)
            sent += 1
    return sent


@compiled
def spread_to(run_state, node, dst, most):
    """Pass what has waited longest at a node, up to so many transactions, on to another node, whoever's they are."""
    trim_pool(run_state, node)
    peer = column(run_state, PEER)
    p = node * PEER_WIDTH
    if peer[p + MUTE] > 0:
        return
    pool = column(run_state, POOL)
    rows, classes = column(run_state, TX), column(run_state, CLASS)
    for i in range(peer[p + POOL_HEAD], min(peer[p + POOL_TAIL], peer[p + POOL_HEAD] + most)):
        tx = pool[2 * (node * run_state[POOL_SIZE] + (i & (run_state[POOL_SIZE] - 1)))]
        if not known_decided(run_state, tx, node):
            bytes_ = classes[rows[tx * TX_WIDTH + TX_CLASS] * CLASS_WIDTH + CLASS_BYTES]
            send_tx(run_state, tx, node, dst, bytes_, True)


@compiled
def empty_pool(run_state, node):
    """A crash: the mempool is gone."""
    peer = column(run_state, PEER)
    p = node * PEER_WIDTH
    pool = column(run_state, POOL)
    held = column(run_state, TX_HELD)
    words = run_state[BITS_WORDS]
    for i in range(peer[p + POOL_HEAD], peer[p + POOL_TAIL]):
        tx = pool[2 * (node * run_state[POOL_SIZE] + (i & (run_state[POOL_SIZE] - 1)))]
        held[tx * words + (node >> 6)] &= ~(np.int64(1) << (node & 63))
        release_tx(run_state, tx)
    peer[p + POOL_HEAD] = peer[p + POOL_TAIL]
    peer[p + FRESH] = 0
    peer[p + BATCH_ON] = 0
    peer[p + BATCH_TIMER] = -1
