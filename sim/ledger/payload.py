"""What is inside a block: transactions taken from a mempool, final once it is decided, acknowledged, let go."""

from __future__ import annotations

import numpy as np

from sim.kernel.run_state import NOW, column, compiled
from sim.ledger.pool import known_decided, trim_pool
from sim.ledger.rows import (
    ACKED,
    BACKLOG_BYTES,
    BLOCK,
    BLOCK_BYTES_MAX,
    BLOCK_WIDTH,
    BUILDS_EARLY,
    BUILT_NS,
    BYTES,
    CLASS,
    CLASS_ACKED,
    CLASS_BYTES,
    CLASS_COMMITTED,
    CLASS_WIDTH,
    CLASSES,
    COMMITTED,
    COMMITTED_MEASURED,
    FORKS,
    FRESH,
    GATEWAY_FIRST,
    HEIGHT,
    HIST_CLIENT,
    HIST_FINAL,
    MARK,
    MEASURE_END_NS,
    MEASURED,
    NUMBER,
    PARENT,
    PARENT_NUMBER,
    PAYLOAD,
    PAYLOAD_AT,
    PAYLOAD_SIZE,
    PEER,
    PEER_WIDTH,
    POOL,
    POOL_HEAD,
    POOL_SIZE,
    POOL_TAIL,
    REBUILD_NS,
    REPEATED,
    SETTLED,
    STAMP,
    STANDING,
    TIP_HEIGHT,
    TX,
    TX_BLOCK,
    TX_BYTES_COMMITTED,
    TX_CLASS,
    TX_DECIDED,
    TX_ENTRY,
    TX_GATEWAY,
    TX_REFS,
    TX_SUBMIT,
    TX_WIDTH,
    TXS,
    UNACKED,
    WAITED,
    WAITED_COUNT,
    WAITED_GREATEST_NS,
    WAITED_LEAST_NS,
    WAITED_SUM_NS,
    WAITED_WIDTH,
    WARM_UP_NS,
)
from sim.ledger.transactions import histogram_bucket, release_tx


@compiled
def parent_of(run_state, block):
    """The parent's row, or -1 if it is the genesis block or has been given back."""
    rows = column(run_state, BLOCK)
    parent = rows[block * BLOCK_WIDTH + PARENT]
    if parent >= 0 and rows[parent * BLOCK_WIDTH + NUMBER] == rows[block * BLOCK_WIDTH + PARENT_NUMBER]:
        return parent
    return np.int64(-1)


@compiled
def _claim_payload(run_state, block):
    """Of several blocks that contain a transaction, it remembers one: let it be this one."""
    blocks = column(run_state, BLOCK)
    b = block * BLOCK_WIDTH
    if blocks[b + PAYLOAD_AT] < 0:
        return
    payload = column(run_state, PAYLOAD)
    at = blocks[b + PAYLOAD_AT] * run_state[PAYLOAD_SIZE]
    rows = column(run_state, TX)
    for i in range(blocks[b + TXS]):
        if payload[at + i] >= 0:
            rows[payload[at + i] * TX_WIDTH + TX_BLOCK] = block


@compiled
def _built_ns(run_state, node):
    """When the block that a node proposes now was put together: what came later waits for the next."""
    if run_state[BUILDS_EARLY] == 0:
        return run_state[NOW]
    since_ns = column(run_state, PEER)[node * PEER_WIDTH + BUILT_NS]
    if run_state[REBUILD_NS] > 0:
        since_ns += (run_state[NOW] - since_ns) // run_state[REBUILD_NS] * run_state[REBUILD_NS]
    return since_ns


@compiled
def fill_block(run_state, node, block):
    """Move waiting transactions into a new block, oldest first, up to the limits on count and bytes.

    Left out are transactions that the node knows to be decided or sees in an ancestor of the block that no correct
    voter has decided.
    Where branches compete, one that is final anywhere is left out: a copy would be void.
    """
    peer = column(run_state, PEER)
    p = node * PEER_WIDTH
    blocks = column(run_state, BLOCK)
    b = block * BLOCK_WIDTH
    limit = run_state[PAYLOAD_SIZE]
    if run_state[BACKLOG_BYTES] > 0:
        if run_state[BLOCK_BYTES_MAX] > 0:
            limit = min(limit, max(run_state[BLOCK_BYTES_MAX] // run_state[BACKLOG_BYTES], 1))
        blocks[b + TXS] = limit
        blocks[b + BYTES] = limit * run_state[BACKLOG_BYTES]
        return
    trim_pool(run_state, node)
    run_state[MARK] += 1
    mark = run_state[MARK]
    ancestor = blocks[b + PARENT]
    while ancestor >= 0 and (
        blocks[ancestor * BLOCK_WIDTH + HEIGHT] > peer[p + TIP_HEIGHT]
        or blocks[ancestor * BLOCK_WIDTH + STANDING] < SETTLED
    ):
        blocks[ancestor * BLOCK_WIDTH + STAMP] = mark
        if run_state[FORKS]:
            _claim_payload(run_state, ancestor)
        ancestor = parent_of(run_state, ancestor)
    pool = column(run_state, POOL)
    payload = column(run_state, PAYLOAD)
    at = blocks[b + PAYLOAD_AT] * limit
    rows = column(run_state, TX)
    classes = column(run_state, CLASS)
    mask = run_state[POOL_SIZE] - 1
    built_ns = _built_ns(run_state, node)
    total = 0
    count = 0
    i = peer[p + POOL_HEAD]
    while i < peer[p + POOL_TAIL] and count < limit:
        slot = 2 * (node * run_state[POOL_SIZE] + (i & mask))
        tx = pool[slot]
        if run_state[BUILDS_EARLY] and pool[slot + 1] >= built_ns:  # what came with it is too late too
            break
        t = tx * TX_WIDTH
        inside = rows[t + TX_BLOCK]
        decided = rows[t + TX_DECIDED] > 0 if run_state[FORKS] else known_decided(run_state, tx, node)
        if not decided and not (inside >= 0 and blocks[inside * BLOCK_WIDTH + STAMP] == mark):
            bytes_ = classes[rows[t + TX_CLASS] * CLASS_WIDTH + CLASS_BYTES]
            if run_state[BLOCK_BYTES_MAX] > 0 and count > 0 and total + bytes_ > run_state[BLOCK_BYTES_MAX]:
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
def settle_payload(run_state, block):
    """A correct voter decides the block, as the first, now: its transactions are final."""
    blocks = column(run_state, BLOCK)
    b = block * BLOCK_WIDTH
    if blocks[b + PAYLOAD_AT] < 0:
        run_state[COMMITTED] += blocks[b + TXS]
        run_state[TX_BYTES_COMMITTED] += blocks[b + BYTES]
        return
    payload = column(run_state, PAYLOAD)
    at = blocks[b + PAYLOAD_AT] * run_state[PAYLOAD_SIZE]
    rows = column(run_state, TX)
    classes = column(run_state, CLASS)
    histogram = column(run_state, HIST_FINAL)
    for i in range(blocks[b + TXS]):
        tx = payload[at + i]
        t = tx * TX_WIDTH
        if rows[t + TX_DECIDED] > 0:  # an earlier block has it: this copy is void
            run_state[REPEATED] += 1
            payload[at + i] = -1
            blocks[b + UNACKED] -= 1
            release_tx(run_state, tx)
            continue
        rows[t + TX_DECIDED] = blocks[b + HEIGHT]
        run_state[COMMITTED] += 1
        class_ = rows[t + TX_CLASS] * CLASS_WIDTH
        classes[class_ + CLASS_COMMITTED] += 1
        run_state[TX_BYTES_COMMITTED] += classes[class_ + CLASS_BYTES]
        if run_state[WARM_UP_NS] <= rows[t + TX_SUBMIT] < run_state[MEASURE_END_NS]:
            run_state[COMMITTED_MEASURED] += 1
            histogram[histogram_bucket(run_state[NOW] - rows[t + TX_SUBMIT])] += 1


@compiled
def note_wait(run_state, gateway, class_, wait_ns):
    """A client at this gateway has waited so long for the answer to a transaction of this class."""
    waited = column(run_state, WAITED)
    w = ((gateway - run_state[GATEWAY_FIRST]) * run_state[CLASSES] + class_) * WAITED_WIDTH
    if waited[w + WAITED_COUNT] == 0 or wait_ns < waited[w + WAITED_LEAST_NS]:
        waited[w + WAITED_LEAST_NS] = wait_ns
    waited[w + WAITED_COUNT] += 1
    waited[w + WAITED_SUM_NS] += wait_ns
    waited[w + WAITED_GREATEST_NS] = max(waited[w + WAITED_GREATEST_NS], wait_ns)


@compiled
def acknowledge(run_state, block, gateway, entry):
    """A gateway's clients learn now that their transactions in a block are final.

    `entry` < 0: all of the gateway's; otherwise those it had sent to that node. Returns how many.
    """
    blocks = column(run_state, BLOCK)
    b = block * BLOCK_WIDTH
    if blocks[b + PAYLOAD_AT] < 0:
        return 0
    payload = column(run_state, PAYLOAD)
    at = blocks[b + PAYLOAD_AT] * run_state[PAYLOAD_SIZE]
    rows = column(run_state, TX)
    classes = column(run_state, CLASS)
    histogram = column(run_state, HIST_CLIENT)
    count = 0
    for i in range(blocks[b + TXS]):
        tx = payload[at + i]
        if tx < 0:
            continue
        t = tx * TX_WIDTH
        if rows[t + TX_GATEWAY] != gateway or (entry >= 0 and rows[t + TX_ENTRY] != entry):
            continue
        count += 1
        run_state[ACKED] += 1
        classes[rows[t + TX_CLASS] * CLASS_WIDTH + CLASS_ACKED] += 1
        if run_state[WARM_UP_NS] <= rows[t + TX_SUBMIT] < run_state[MEASURE_END_NS]:
            wait_ns = run_state[NOW] - rows[t + TX_SUBMIT]
            run_state[MEASURED] += 1
            histogram[histogram_bucket(wait_ns)] += 1
            note_wait(run_state, gateway, rows[t + TX_CLASS], wait_ns)
        payload[at + i] = -1
        release_tx(run_state, tx)
    blocks[b + UNACKED] -= count
    return count


@compiled
def free_payload(run_state, block):
    """The block is gone: whatever it still held is let go."""
    blocks = column(run_state, BLOCK)
    b = block * BLOCK_WIDTH
    if blocks[b + PAYLOAD_AT] < 0:
        return
    payload = column(run_state, PAYLOAD)
    at = blocks[b + PAYLOAD_AT] * run_state[PAYLOAD_SIZE]
    rows = column(run_state, TX)
    for i in range(blocks[b + TXS]):
        tx = payload[at + i]
        if tx >= 0:
            if rows[tx * TX_WIDTH + TX_BLOCK] == block:
                rows[tx * TX_WIDTH + TX_BLOCK] = -1
            release_tx(run_state, tx)
