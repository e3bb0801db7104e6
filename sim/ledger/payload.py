"""What is inside a block: transactions taken from a mempool, final once it is decided, acknowledged, let go."""

from __future__ import annotations

import numpy as np

from sim.kernel.run_state import BORDERS, NOW, column, compiled, length, make_capacity
from sim.ledger.pool import known_decided, trim_pool
from sim.ledger.rows import (
    ACKED,
    ANSWERED,
    BACKLOG_BYTES,
    BLOCK,
    BLOCK_BYTES_MAX,
    BLOCK_WIDTH,
    BUILDS_EARLY,
    BUILT_NS,
    BYTES,
    CARRIED,
    CARRIED_BLOCK,
    CARRIED_CLASS,
    CARRIED_COUNT,
    CARRIED_LEN,
    CARRIED_TX,
    CARRIED_WIDTH,
    CLASS,
    CLASS_ACKED,
    CLASS_BYTES,
    CLASS_COMMITTED,
    CLASS_DEADLINE_NS,
    CLASS_STAYS,
    CLASS_WAITS,
    CLASS_WIDTH,
    CLASSES,
    COMMITTED,
    COMMITTED_MEASURED,
    COMMITTING_NS,
    CONFLICT,
    ENDORSES,
    EXECUTES,
    FORKS,
    FRESH,
    GATEWAY_FIRST,
    GIVEN_UP,
    HEIGHT,
    HIST_CLIENT,
    HIST_FINAL,
    LATE,
    MARK,
    MEASURE_END_NS,
    MEASURED,
    NUMBER,
    ORDERED,
    ORDERING_NS,
    OUTCOME,
    OUTCOME_WIDTH,
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
    SCHEDULES,
    SETTLED,
    STAMP,
    STANDING,
    SUCCEEDED,
    TIP_HEIGHT,
    TRIES_MAX,
    TX,
    TX_BLOCK,
    TX_BYTES_COMMITTED,
    TX_CLASS,
    TX_DECIDED,
    TX_ENDORSED_NS,
    TX_ENTRY,
    TX_GATEWAY,
    TX_MORE,
    TX_MORE_WIDTH,
    TX_NUMBER,
    TX_ORDERED_NS,
    TX_PEER,
    TX_REFS,
    TX_RESULT,
    TX_SUBMIT,
    TX_TRIES,
    TX_WIDTH,
    TXS,
    UNACKED,
    VALID,
    WAIT_BITS,
    WAIT_BUCKETS,
    WAITED,
    WAITED_COUNT,
    WAITED_GREATEST_NS,
    WAITED_LEAST_NS,
    WAITED_SUM_NS,
    WAITED_WIDTH,
    WARM_UP_NS,
)
from sim.ledger.state import begin_schedule, end_schedule, execute, schedule
from sim.ledger.transactions import histogram_bucket, release_tx, try_again


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
    schedules = run_state[SCHEDULES] > 0
    if schedules:
        begin_schedule(run_state)
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
            if schedules:
                schedule(run_state, tx, mark)
        i += 1
    peer[p + FRESH] = peer[p + POOL_TAIL] - i
    blocks[b + TXS] = count
    blocks[b + BYTES] = total
    blocks[b + UNACKED] = count
    if schedules:
        end_schedule(run_state, block, count)


@compiled
def _note_carried(run_state, tx, number):
    """A block that is decided holds a transaction that must not leave the country."""
    count = run_state[CARRIED_LEN]
    if count > 0:
        last = (count - 1) * CARRIED_WIDTH
        if column(run_state, CARRIED)[last + CARRIED_BLOCK] == number:
            column(run_state, CARRIED)[last + CARRIED_COUNT] += 1
            return
    if (count + 1) * CARRIED_WIDTH > length(run_state, CARRIED):
        make_capacity(run_state, CARRIED)
    rows, at = column(run_state, CARRIED), count * CARRIED_WIDTH
    rows[at + CARRIED_BLOCK] = number
    rows[at + CARRIED_COUNT] = 1
    rows[at + CARRIED_TX] = column(run_state, TX)[tx * TX_WIDTH + TX_NUMBER]
    rows[at + CARRIED_CLASS] = column(run_state, TX)[tx * TX_WIDTH + TX_CLASS]
    run_state[CARRIED_LEN] += 1


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
        if run_state[BORDERS] and classes[rows[t + TX_CLASS] * CLASS_WIDTH + CLASS_STAYS]:
            _note_carried(run_state, tx, blocks[b + NUMBER])
        if run_state[ENDORSES]:
            more = column(run_state, TX_MORE)
            run_state[ORDERED] += 1
            run_state[ORDERING_NS] += run_state[NOW] - more[tx * TX_MORE_WIDTH + TX_ENDORSED_NS]
            more[tx * TX_MORE_WIDTH + TX_ORDERED_NS] = run_state[NOW]
        if run_state[EXECUTES]:
            execute(run_state, tx, blocks[b + NUMBER], blocks[b + HEIGHT], i)
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
def answerer(run_state, tx):
    """Whose word a transaction's client waits for: its entry voter's, or where requests are endorsed its peer's."""
    if run_state[ENDORSES]:
        return column(run_state, TX_MORE)[tx * TX_MORE_WIDTH + TX_PEER]
    return column(run_state, TX)[tx * TX_WIDTH + TX_ENTRY]


@compiled
def wait_bucket(wait_ns):
    """Bucket of a wait in a class's own histogram: whole microseconds below 128 us, then at most 1/64 wide."""
    us = wait_ns // 1000
    s = 0
    while us >> s >= (2 << WAIT_BITS):
        s += 1
    return min((s << WAIT_BITS) + (us >> s), WAIT_BUCKETS - 1)


@compiled
def _note_outcome(run_state, class_, result, wait_ns):
    """A request is over for its client, who has heard of success, or of a failure after which it does not try again."""
    outcome, o = column(run_state, OUTCOME), class_ * OUTCOME_WIDTH
    if result != VALID:
        outcome[o + GIVEN_UP] += 1
        return
    outcome[o + SUCCEEDED] += 1
    deadline_ns = column(run_state, CLASS)[class_ * CLASS_WIDTH + CLASS_DEADLINE_NS]
    if 0 < deadline_ns < wait_ns:
        outcome[o + LATE] += 1


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
        if rows[t + TX_GATEWAY] != gateway or (entry >= 0 and answerer(run_state, tx) != entry):
            continue
        count += 1
        run_state[ACKED] += 1
        class_ = rows[t + TX_CLASS]
        result = column(run_state, TX_MORE)[tx * TX_MORE_WIDTH + TX_RESULT] if run_state[EXECUTES] else VALID
        if result == CONFLICT and column(run_state, TX_MORE)[tx * TX_MORE_WIDTH + TX_TRIES] < run_state[TRIES_MAX]:
            try_again(run_state, tx)
            rows = column(run_state, TX)  # it may have grown
        else:
            classes[class_ * CLASS_WIDTH + CLASS_ACKED] += 1
            if run_state[ENDORSES]:
                run_state[ANSWERED] += 1
                ordered_ns = column(run_state, TX_MORE)[tx * TX_MORE_WIDTH + TX_ORDERED_NS]
                run_state[COMMITTING_NS] += run_state[NOW] - ordered_ns
            wait_ns = run_state[NOW] - rows[t + TX_SUBMIT]
            _note_outcome(run_state, class_, result, wait_ns)
            if result == VALID and run_state[WARM_UP_NS] <= rows[t + TX_SUBMIT] < run_state[MEASURE_END_NS]:
                run_state[MEASURED] += 1
                histogram[histogram_bucket(wait_ns)] += 1
                column(run_state, CLASS_WAITS)[class_ * WAIT_BUCKETS + wait_bucket(wait_ns)] += 1
                note_wait(run_state, gateway, class_, wait_ns)
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
