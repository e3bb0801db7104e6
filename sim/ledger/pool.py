"""Transactions from submission to acknowledgement: numbers in columns, no object each.

A transaction lives as a row while somebody can still need it: copies on their way, mempools that hold it,
blocks that contain it. The count of these references frees the row. A mempool is a ring of (transaction,
arrival time) per voter; what a node may put into a block is decided by what that node itself knows.

Latencies are counted in histograms of one microsecond (one part in a million above two seconds), so that
quantiles are exact to that and memory does not depend on how long a run lasts.
"""

from __future__ import annotations

import numpy as np

from sim.kernel.chance import CLASS as DRAW_CLASS
from sim.kernel.chance import JITTER, below, join
from sim.kernel.desk import (
    BITS_WORDS,
    GROUP_MEMBER,
    GROUP_START,
    NODE,
    NOW,
    SEED,
    _pointer,
    column,
    compiled,
)
from sim.kernel.post import (
    DST_BITS,
    NODE_WIDTH,
    UP,
    count_kind,
    put_on_link,
    transmit,
)
from sim.kernel.rules import begin_message
from sim.ledger.rows import (
    ACKED,
    BACKLOG_BYTES,
    BATCH_AT,
    BATCH_ON,
    BLOCK,
    BLOCK_BYTES_MAX,
    BLOCK_WIDTH,
    BROADCAST_TXS,
    BYTES,
    CLASS,
    CLASS_ACKED,
    CLASS_BYTES,
    CLASS_COMMITTED,
    CLASS_SUBMITTED,
    CLASS_WIDTH,
    CLOSED_LOOP,
    COMMITTED,
    COMMITTED_MEASURED,
    ENTRY,
    EXPIRED,
    FORKS,
    FORWARD_TO,
    FRESH,
    HEIGHT,
    HIST_CLIENT,
    HIST_FINAL,
    INVALID_CLASS,
    LIVE_TXS,
    MARK,
    MEASURED,
    OWED,
    PARENT,
    PAYLOAD,
    PAYLOAD_AT,
    PAYLOAD_SIZE,
    PEER,
    PEER_WIDTH,
    POOL,
    POOL_HEAD,
    POOL_SIZE,
    POOL_TAIL,
    REJECTED,
    REPEATED,
    STAMP,
    STREAM,
    STREAM_CLASS,
    STREAM_CLASSES,
    STREAM_GATEWAY,
    STREAM_LEN,
    STREAM_POS,
    STREAM_TIMES,
    STREAM_WIDTH,
    SUBMISSIONS,
    SUBMITTED,
    TIP_HEIGHT,
    TX,
    TX_BLOCK,
    TX_BYTES_COMMITTED,
    TX_CLASS,
    TX_DECIDED,
    TX_ENTRY,
    TX_FREE,
    TX_FREE_LEN,
    TX_GATEWAY,
    TX_HELD,
    TX_KIND,
    TX_NUMBER,
    TX_REFS,
    TX_SUBMIT,
    TX_WIDTH,
    TXS,
    UNACKED,
    WARM_UP_NS,
)

HIST_EXACT_BITS = 20  # below 2**21 us a bucket is one microsecond; above, 2**20 buckets per doubling
HIST_LEN = 22 << HIST_EXACT_BITS


@compiled
def histogram_bucket(latency_ns):
    """Bucket of a latency: microseconds below 2**21 us, then a relative width of at most 2**-20."""
    us = latency_ns // 1000
    s = 0
    while us >> s >= (2 << HIST_EXACT_BITS):
        s += 1
    return (s << HIST_EXACT_BITS) + (us >> s)


@compiled
def tx_ref(tx, dst):
    """Calendar reference of a transaction on its way to `dst` (odd: an envelope's is even)."""
    return (np.int64(tx) << (DST_BITS + 1)) | (np.int64(dst) << 1) | 1


@compiled
def _owe(desk, gateway):
    """A closed-loop client's request is lost: it will submit another (see sim.workload.sources)."""
    peer = column(desk, PEER)
    if peer[gateway * PEER_WIDTH + CLOSED_LOOP] > 0:
        peer[gateway * PEER_WIDTH + OWED] += 1


@compiled
def release_tx(desk, tx):
    """One reference fewer; the last one frees the row, and counts the transaction as lost if undecided."""
    t = tx * TX_WIDTH
    rows = column(desk, TX)
    rows[t + TX_REFS] -= 1
    if rows[t + TX_REFS] > 0:
        return
    if rows[t + TX_DECIDED] == 0:
        desk[EXPIRED] += 1
        _owe(desk, rows[t + TX_GATEWAY])
    words = desk[BITS_WORDS]
    held = column(desk, TX_HELD)
    for i in range(words):
        held[tx * words + i] = 0
    column(desk, TX_FREE)[desk[TX_FREE_LEN]] = tx
    desk[TX_FREE_LEN] += 1
    desk[LIVE_TXS] -= 1


@compiled
def _send_tx(desk, tx, src, dst, bytes_):
    """One copy of a transaction from `src` to `dst`; returns False if it was lost at once."""
    number = column(desk, TX)[tx * TX_WIDTH + TX_NUMBER]
    key = join(join(join(join(0, desk[SEED]), JITTER), np.int64(src) - 1_000_000), number)
    kind = desk[TX_KIND]
    begin_message(desk, src, kind)
    leaves = transmit(desk, src, desk[NOW], bytes_)
    count_kind(desk, kind, 1, bytes_)
    copies = put_on_link(desk, key, tx_ref(tx, dst), src, dst, leaves, kind, -1, bytes_)
    column(desk, TX)[tx * TX_WIDTH + TX_REFS] += copies
    return copies > 0


@compiled
def submit_one(desk, gateway, class_):
    """A client at `gateway` submits a transaction now; it goes to the gateway's entry node."""
    desk[SUBMITTED] += 1
    classes = column(desk, CLASS)
    classes[class_ * CLASS_WIDTH + CLASS_SUBMITTED] += 1
    peer = column(desk, PEER)
    entry = peer[gateway * PEER_WIDTH + ENTRY]
    number = peer[gateway * PEER_WIDTH + SUBMISSIONS]
    peer[gateway * PEER_WIDTH + SUBMISSIONS] = number + 1
    node = column(desk, NODE)
    if entry < 0 or node[gateway * NODE_WIDTH + UP] == 0 or node[entry * NODE_WIDTH + UP] == 0:
        desk[REJECTED] += 1
        _owe(desk, gateway)
        return
    free = desk[TX_FREE_LEN] - 1
    desk[TX_FREE_LEN] = free
    tx = column(desk, TX_FREE)[free]
    desk[LIVE_TXS] += 1
    t = tx * TX_WIDTH
    rows = column(desk, TX)
    rows[t + TX_SUBMIT] = desk[NOW]
    rows[t + TX_GATEWAY] = gateway
    rows[t + TX_CLASS] = class_
    rows[t + TX_DECIDED] = 0
    rows[t + TX_BLOCK] = -1
    rows[t + TX_REFS] = 1
    rows[t + TX_ENTRY] = entry
    rows[t + TX_NUMBER] = (gateway << 40) + number
    if not _send_tx(desk, tx, gateway, entry, classes[class_ * CLASS_WIDTH + CLASS_BYTES]):
        desk[REJECTED] += 1
        desk[EXPIRED] -= 1  # release_tx counts it there
    release_tx(desk, tx)


@compiled
def submit_next(desk, stream):
    """Submit the stream's transaction that is due; returns the time of the next one or -1 at the end."""
    s = stream * STREAM_WIDTH
    rows = column(desk, STREAM)
    position = rows[s + STREAM_POS]
    count = rows[s + STREAM_LEN]
    times = _pointer(rows[s + STREAM_TIMES])
    class_ = rows[s + STREAM_CLASS]
    if rows[s + STREAM_CLASSES] > 1:  # cumulative shares in 1/2**20 follow at STREAM_CLASS
        shares = _pointer(rows[s + STREAM_CLASSES])
        u = below(join(join(join(join(0, desk[SEED]), DRAW_CLASS), stream), times[position]), 1 << 20)
        k = 0
        while shares[k] <= u:
            k += 1
        class_ += k
    submit_one(desk, rows[s + STREAM_GATEWAY], class_)
    rows[s + STREAM_POS] = position + 1
    if position + 1 < count:
        return times[position + 1]
    return np.int64(-1)


@compiled
def holds(desk, tx, node):
    """Whether the node's mempool holds the transaction."""
    at = tx * desk[BITS_WORDS] + (node >> 6)
    return (column(desk, TX_HELD)[at] >> (node & 63)) & 1 == 1


@compiled
def _known_decided(desk, tx, node):
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
    entered = not holds(desk, tx, node) and not _known_decided(desk, tx, node)
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
            forward(desk, tx, node)
    else:
        release_tx(desk, tx)
    return entered and batch_is_due(desk, node)


@compiled
def forward(desk, tx, node):
    """Pass a transaction on from its entry node: to all voters or to the leader."""
    bytes_ = column(desk, CLASS)[column(desk, TX)[tx * TX_WIDTH + TX_CLASS] * CLASS_WIDTH + CLASS_BYTES]
    if desk[BROADCAST_TXS]:
        for i in range(column(desk, GROUP_START)[1]):
            dst = column(desk, GROUP_MEMBER)[i]
            if dst != node:
                _send_tx(desk, tx, node, dst, bytes_)
        return
    leader = column(desk, PEER)[node * PEER_WIDTH + FORWARD_TO]
    if leader >= 0 and leader != node:
        _send_tx(desk, tx, node, leader, bytes_)


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
        if not _known_decided(desk, tx, node):
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
def _claim_payload(desk, block):
    """Of several blocks that contain a transaction, it remembers one: let it be this one."""
    blocks = column(desk, BLOCK)
    b = block * BLOCK_WIDTH
    if blocks[b + PAYLOAD_AT] < 0:
        return
    payload = column(desk, PAYLOAD)
    at = blocks[b + PAYLOAD_AT] * desk[PAYLOAD_SIZE]
    rows = column(desk, TX)
    for i in range(blocks[b + TXS]):
        if payload[at + i] >= 0:
            rows[payload[at + i] * TX_WIDTH + TX_BLOCK] = block


@compiled
def fill_block(desk, node, block):
    """Move waiting transactions into a new block, oldest first, up to the limits on count and bytes.

    Left out are transactions that the node knows to be decided or sees in an undecided ancestor of the block.
    Where branches compete, one that is final anywhere is left out: a copy would be void.
    """
    peer = column(desk, PEER)
    p = node * PEER_WIDTH
    blocks = column(desk, BLOCK)
    b = block * BLOCK_WIDTH
    limit = desk[PAYLOAD_SIZE]
    if desk[BACKLOG_BYTES] > 0:
        if desk[BLOCK_BYTES_MAX] > 0:
            limit = min(limit, max(desk[BLOCK_BYTES_MAX] // desk[BACKLOG_BYTES], 1))
        blocks[b + TXS] = limit
        blocks[b + BYTES] = limit * desk[BACKLOG_BYTES]
        return
    trim_pool(desk, node)
    desk[MARK] += 1
    mark = desk[MARK]
    ancestor = blocks[b + PARENT]
    while ancestor >= 0 and blocks[ancestor * BLOCK_WIDTH + HEIGHT] > peer[p + TIP_HEIGHT]:
        blocks[ancestor * BLOCK_WIDTH + STAMP] = mark
        if desk[FORKS]:
            _claim_payload(desk, ancestor)
        ancestor = blocks[ancestor * BLOCK_WIDTH + PARENT]
    pool = column(desk, POOL)
    payload = column(desk, PAYLOAD)
    at = blocks[b + PAYLOAD_AT] * limit
    rows = column(desk, TX)
    classes = column(desk, CLASS)
    mask = desk[POOL_SIZE] - 1
    total = 0
    count = 0
    i = peer[p + POOL_HEAD]
    while i < peer[p + POOL_TAIL] and count < limit:
        tx = pool[2 * (node * desk[POOL_SIZE] + (i & mask))]
        t = tx * TX_WIDTH
        inside = rows[t + TX_BLOCK]
        decided = rows[t + TX_DECIDED] > 0 if desk[FORKS] else _known_decided(desk, tx, node)
        if not decided and not (inside >= 0 and blocks[inside * BLOCK_WIDTH + STAMP] == mark):
            bytes_ = classes[rows[t + TX_CLASS] * CLASS_WIDTH + CLASS_BYTES]
            if desk[BLOCK_BYTES_MAX] > 0 and count > 0 and total + bytes_ > desk[BLOCK_BYTES_MAX]:
                break
            rows[t + TX_BLOCK] = block
            rows[t + TX_REFS] += 1
            payload[at + count] = tx
            count += 1
            total += bytes_
        i += 1
    peer[p + FRESH] = peer[p + POOL_TAIL] - i
    blocks[b + TXS] = count
    blocks[b + BYTES] = total
    blocks[b + UNACKED] = count


@compiled
def settle_payload(desk, block):
    """The block is decided for the first time, now: its transactions are final."""
    blocks = column(desk, BLOCK)
    b = block * BLOCK_WIDTH
    if blocks[b + PAYLOAD_AT] < 0:
        desk[COMMITTED] += blocks[b + TXS]
        desk[TX_BYTES_COMMITTED] += blocks[b + BYTES]
        return
    payload = column(desk, PAYLOAD)
    at = blocks[b + PAYLOAD_AT] * desk[PAYLOAD_SIZE]
    rows = column(desk, TX)
    classes = column(desk, CLASS)
    histogram = column(desk, HIST_FINAL)
    for i in range(blocks[b + TXS]):
        tx = payload[at + i]
        t = tx * TX_WIDTH
        if rows[t + TX_DECIDED] > 0:  # an earlier block has it: this copy is void
            desk[REPEATED] += 1
            payload[at + i] = -1
            blocks[b + UNACKED] -= 1
            release_tx(desk, tx)
            continue
        rows[t + TX_DECIDED] = blocks[b + HEIGHT]
        desk[COMMITTED] += 1
        class_ = rows[t + TX_CLASS] * CLASS_WIDTH
        classes[class_ + CLASS_COMMITTED] += 1
        desk[TX_BYTES_COMMITTED] += classes[class_ + CLASS_BYTES]
        if rows[t + TX_SUBMIT] >= desk[WARM_UP_NS]:
            desk[COMMITTED_MEASURED] += 1
            histogram[histogram_bucket(desk[NOW] - rows[t + TX_SUBMIT])] += 1


@compiled
def acknowledge(desk, block, gateway, entry):
    """A gateway's clients learn now that their transactions in a block are final.

    `entry` < 0: all of the gateway's; otherwise those it had sent to that node. Returns how many.
    """
    blocks = column(desk, BLOCK)
    b = block * BLOCK_WIDTH
    if blocks[b + PAYLOAD_AT] < 0:
        return 0
    payload = column(desk, PAYLOAD)
    at = blocks[b + PAYLOAD_AT] * desk[PAYLOAD_SIZE]
    rows = column(desk, TX)
    classes = column(desk, CLASS)
    histogram = column(desk, HIST_CLIENT)
    count = 0
    for i in range(blocks[b + TXS]):
        tx = payload[at + i]
        if tx < 0:
            continue
        t = tx * TX_WIDTH
        if rows[t + TX_GATEWAY] != gateway or (entry >= 0 and rows[t + TX_ENTRY] != entry):
            continue
        count += 1
        desk[ACKED] += 1
        classes[rows[t + TX_CLASS] * CLASS_WIDTH + CLASS_ACKED] += 1
        if rows[t + TX_SUBMIT] >= desk[WARM_UP_NS]:
            desk[MEASURED] += 1
            histogram[histogram_bucket(desk[NOW] - rows[t + TX_SUBMIT])] += 1
        payload[at + i] = -1
        release_tx(desk, tx)
    blocks[b + UNACKED] -= count
    return count


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
        if rows[tx * TX_WIDTH + TX_ENTRY] == node and not _known_decided(desk, tx, node):
            forward(desk, tx, node)


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
        if rows[tx * TX_WIDTH + TX_ENTRY] == node and not _known_decided(desk, tx, node):
            forward(desk, tx, node)
            sent += 1
    return sent


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


@compiled
def free_payload(desk, block):
    """The block is gone: whatever it still held is let go."""
    blocks = column(desk, BLOCK)
    b = block * BLOCK_WIDTH
    if blocks[b + PAYLOAD_AT] < 0:
        return
    payload = column(desk, PAYLOAD)
    at = blocks[b + PAYLOAD_AT] * desk[PAYLOAD_SIZE]
    rows = column(desk, TX)
    for i in range(blocks[b + TXS]):
        tx = payload[at + i]
        if tx >= 0:
            if rows[tx * TX_WIDTH + TX_BLOCK] == block:
                rows[tx * TX_WIDTH + TX_BLOCK] = -1
            release_tx(desk, tx)
