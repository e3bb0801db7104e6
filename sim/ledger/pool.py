"""Mempools: what waits at each voter to be put into a block.

A mempool is a ring of (transaction, arrival time) per voter; what a node may put into a block is decided by what
that node itself knows. Clients' transactions are passed on from their entry node to all voters, or to the leader.
"""

from __future__ import annotations

import numpy as np

from sim.kernel.desk import BITS_WORDS, GROUP_MEMBER, GROUP_START, NOW, column, compiled
from sim.ledger.rows import (
    BACKLOG_BYTES,
    BATCH_AT,
    BATCH_ON,
    BATCH_TIMER,
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
def holds(desk, tx, node):
    """Whether the node's mempool holds the transaction."""
    at = tx * desk[BITS_WORDS] + (node >> 6)
    return (column(desk, TX_HELD)[at] >> (node & 63)) & 1 == 1


@compiled
def known_decided(desk, tx, node):
    decided = column(desk, TX)[tx * TX_WIDTH + TX_DECIDED]
    return 0 < decided <= column(desk, PEER)[node * PEER_WIDTH + TIP_HEIGHT]


@compiled
def pool_enter(desk, tx, node):
    """A transaction reaches a mempool now (its reference passes from the copy to the pool).

    Returns True if the node's proposer should be woken.
    """
    rows = column(desk, TX)
    if rows[tx * TX_WIDTH + TX_CLASS] >= desk[INVALID_CLASS]:
        if rows[tx * TX_WIDTH + TX_REFS] == 1:
            desk[REJECTED] += 1
            desk[EXPIRED] -= 1  # release_tx counts it there
        release_tx(desk, tx)
        return False
    entered = not holds(desk, tx, node) and not known_decided(desk, tx, node)
    peer = column(desk, PEER)
    p = node * PEER_WIDTH
    if entered:
        at = tx * desk[BITS_WORDS] + (node >> 6)
        column(desk, TX_HELD)[at] |= np.int64(1) << (node & 63)
        tail = peer[p + POOL_TAIL]
        slot = 2 * (node * desk[POOL_SIZE] + (tail & (desk[POOL_SIZE] - 1)))
        pool = column(desk, POOL)
        pool[slot] = tx
        pool[slot + 1] = desk[NOW]
        peer[p + POOL_TAIL] = tail + 1
        peer[p + FRESH] += 1
        if rows[tx * TX_WIDTH + TX_ENTRY] == node:
            forward(desk, tx, node, False)
    else:
        release_tx(desk, tx)
    return entered and batch_is_due(desk, node)


@compiled
def forward(desk, tx, node, again):
    """Pass a transaction on from its entry node: to all voters or to the leader; `again` as for `send_tx`."""
    if column(desk, PEER)[node * PEER_WIDTH + MUTE] > 0:
        return
    bytes_ = column(desk, CLASS)[column(desk, TX)[tx * TX_WIDTH + TX_CLASS] * CLASS_WIDTH + CLASS_BYTES]
    if desk[BROADCAST_TXS]:
        for i in range(column(desk, GROUP_START)[1]):
            dst = column(desk, GROUP_MEMBER)[i]
            if dst != node:
                send_tx(desk, tx, node, dst, bytes_, again)
        return
    leader = column(desk, PEER)[node * PEER_WIDTH + FORWARD_TO]
    if leader >= 0 and leader != node:
        send_tx(desk, tx, node, leader, bytes_, again)


@compiled
def batch_is_due(desk, node):
    """Whether a waiting proposer has a full block, or any transaction after its interval."""
    peer = column(desk, PEER)
    p = node * PEER_WIDTH
    if peer[p + BATCH_ON] == 0:
        return False
    if desk[BACKLOG_BYTES] > 0:
        return desk[NOW] >= peer[p + BATCH_AT]
    fresh = peer[p + FRESH]
    return fresh >= desk[PAYLOAD_SIZE] or (fresh > 0 and desk[NOW] >= peer[p + BATCH_AT])


@compiled
def trim_pool(desk, node):
    """Drop transactions that the node knows to be decided from the head of its ring."""
    peer = column(desk, PEER)
    p = node * PEER_WIDTH
    pool = column(desk, POOL)
    mask = desk[POOL_SIZE] - 1
    held = column(desk, TX_HELD)
    words = desk[BITS_WORDS]
    head = peer[p + POOL_HEAD]
    while head < peer[p + POOL_TAIL]:
        tx = pool[2 * (node * desk[POOL_SIZE] + (head & mask))]
        if not known_decided(desk, tx, node):
            break
        held[tx * words + (node >> 6)] &= ~(np.int64(1) << (node & 63))
        release_tx(desk, tx)
        head += 1
    peer[p + POOL_HEAD] = head


@compiled
def oldest_waiting_ns(desk, node):
    """When the oldest transaction that the node still waits to see decided arrived, or -1."""
    trim_pool(desk, node)
    peer = column(desk, PEER)
    p = node * PEER_WIDTH
    if peer[p + POOL_HEAD] == peer[p + POOL_TAIL]:
        return np.int64(-1)
    slot = 2 * (node * desk[POOL_SIZE] + (peer[p + POOL_HEAD] & (desk[POOL_SIZE] - 1)))
    return column(desk, POOL)[slot + 1]


@compiled
def lead(desk, node, leader):
    """The node follows `leader` now: what its own clients wait for is passed on again."""
    peer = column(desk, PEER)
    p = node * PEER_WIDTH
    if peer[p + FORWARD_TO] == leader:
        return
    peer[p + FORWARD_TO] = leader
    if desk[BROADCAST_TXS] or leader == node or leader < 0:
        return
    trim_pool(desk, node)
    pool = column(desk, POOL)
    rows = column(desk, TX)
    for i in range(peer[p + POOL_HEAD], peer[p + POOL_TAIL]):
        tx = pool[2 * (node * desk[POOL_SIZE] + (i & (desk[POOL_SIZE] - 1)))]
        if rows[tx * TX_WIDTH + TX_ENTRY] == node and not known_decided(desk, tx, node):
            forward(desk, tx, node, False)  # its new leader has had no copy from here, as a rule


@compiled
def forward_again(desk, node, before_ns, most):
    """Pass on again what the node's own clients sent before a time and nobody decided, oldest first.

    A copy to the leader, or to all, may have been lost. Looks at `most` transactions; returns how many it sent.
    """
    trim_pool(desk, node)
    peer = column(desk, PEER)
    p = node * PEER_WIDTH
    pool = column(desk, POOL)
    rows = column(desk, TX)
    sent = 0
    for i in range(peer[p + POOL_HEAD], min(peer[p + POOL_TAIL], peer[p + POOL_HEAD] + most)):
        slot = 2 * (node * desk[POOL_SIZE] + (i & (desk[POOL_SIZE] - 1)))
        if pool[slot + 1] > before_ns:
            break
        tx = pool[slot]
        if desk[FORKS] and rows[tx * TX_WIDTH + TX_BLOCK] >= 0:
            continue  # it did reach a proposer, and only grows deep
        if rows[tx * TX_WIDTH + TX_ENTRY] == node and not known_decided(desk, tx, node):
            forward(desk, tx, node, True)
            sent += 1
    return sent


@compiled
def spread_to(desk, node, dst, most):
    """Pass what has waited longest at a node, up to so many transactions, on to another node, whoever's they are."""
    trim_pool(desk, node)
    peer = column(desk, PEER)
    p = node * PEER_WIDTH
    if peer[p + MUTE] > 0:
        return
    pool = column(desk, POOL)
    rows, classes = column(desk, TX), column(desk, CLASS)
    for i in range(peer[p + POOL_HEAD], min(peer[p + POOL_TAIL], peer[p + POOL_HEAD] + most)):
        tx = pool[2 * (node * desk[POOL_SIZE] + (i & (desk[POOL_SIZE] - 1)))]
        if not known_decided(desk, tx, node):
            bytes_ = classes[rows[tx * TX_WIDTH + TX_CLASS] * CLASS_WIDTH + CLASS_BYTES]
            send_tx(desk, tx, node, dst, bytes_, True)


@compiled
def empty_pool(desk, node):
    """A crash: the mempool is gone."""
    peer = column(desk, PEER)
    p = node * PEER_WIDTH
    pool = column(desk, POOL)
    held = column(desk, TX_HELD)
    words = desk[BITS_WORDS]
    for i in range(peer[p + POOL_HEAD], peer[p + POOL_TAIL]):
        tx = pool[2 * (node * desk[POOL_SIZE] + (i & (desk[POOL_SIZE] - 1)))]
        held[tx * words + (node >> 6)] &= ~(np.int64(1) << (node & 63))
        release_tx(desk, tx)
    peer[p + POOL_HEAD] = peer[p + POOL_TAIL]
    peer[p + FRESH] = 0
    peer[p + BATCH_ON] = 0
    peer[p + BATCH_TIMER] = -1
