"""What is inside a block: transactions taken from a mempool, final once it is decided, acknowledged, let go."""

from __future__ import annotations

import numpy as np

from sim.kernel import run_state as kernel
from sim.kernel.run_state import column, compiled, length, make_capacity
from sim.ledger import rows as ledger
from sim.ledger.pool import known_decided, trim_pool
from sim.ledger.state import begin_schedule, end_schedule, execute, schedule
from sim.ledger.transactions import histogram_bucket, release_tx, try_again


@compiled
def parent_of(run_state, block):
    """The parent's row, or -1 if it is the genesis block or has been given back."""
    rows = column(run_state, ledger.BLOCK)
    parent = rows[block * ledger.BLOCK_WIDTH + ledger.PARENT]
    if (
        parent >= 0
        and rows[parent * ledger.BLOCK_WIDTH + ledger.NUMBER] == rows[block * ledger.BLOCK_WIDTH + ledger.PARENT_NUMBER]
    ):
        return parent
    return np.int64(-1)


@compiled
def _claim_payload(run_state, block):
    """Of several blocks that contain a transaction, it remembers one: let it be this one."""
    blocks = column(run_state, ledger.BLOCK)
    b = block * ledger.BLOCK_WIDTH
    if blocks[b + ledger.PAYLOAD_AT] < 0:
        return
    payload = column(run_state, ledger.PAYLOAD)
    at = blocks[b + ledger.PAYLOAD_AT] * run_state[ledger.PAYLOAD_SIZE]
    rows = column(run_state, ledger.TX)
    for i in range(blocks[b + ledger.TXS]):
        if payload[at + i] >= 0:
            rows[payload[at + i] * ledger.TX_WIDTH + ledger.TX_BLOCK] = block


@compiled
def _built_ns(run_state, node):
    """When the block that a node proposes now was put together: what came later waits for the next."""
    if run_state[ledger.BUILDS_EARLY] == 0:
        return run_state[kernel.NOW]
    since_ns = column(run_state, ledger.PEER)[node * ledger.PEER_WIDTH + ledger.BUILT_NS]
    if run_state[ledger.REBUILD_NS] > 0:
        since_ns += (run_state[kernel.NOW] - since_ns) // run_state[ledger.REBUILD_NS] * run_state[ledger.REBUILD_NS]
    return since_ns


@compiled
def fill_block(run_state, node, block):
    """Move waiting transactions into a new block, oldest first, up to the limits on count and bytes.

    Left out are transactions that the node knows to be decided or sees in an ancestor of the block that no correct
    voter has decided.
    Where branches compete, one that is final anywhere is left out: a copy would be void.
    """
    peer = column(run_state, ledger.PEER)
    p = node * ledger.PEER_WIDTH
    blocks = column(run_state, ledger.BLOCK)
    b = block * ledger.BLOCK_WIDTH
    limit = run_state[ledger.PAYLOAD_SIZE]
    if run_state[ledger.BACKLOG_BYTES] > 0:
        if run_state[ledger.BLOCK_BYTES_MAX] > 0:
            limit = min(limit, max(run_state[ledger.BLOCK_BYTES_MAX] // run_state[ledger.BACKLOG_BYTES], 1))
        blocks[b + ledger.TXS] = limit
        blocks[b + ledger.BYTES] = limit * run_state[ledger.BACKLOG_BYTES]
        return
    trim_pool(run_state, node)
    run_state[ledger.MARK] += 1
    mark = run_state[ledger.MARK]
    ancestor = blocks[b + ledger.PARENT]
    while ancestor >= 0 and (
        blocks[ancestor * ledger.BLOCK_WIDTH + ledger.HEIGHT] > peer[p + ledger.TIP_HEIGHT]
        or blocks[ancestor * ledger.BLOCK_WIDTH + ledger.STANDING] < ledger.SETTLED
    ):
        blocks[ancestor * ledger.BLOCK_WIDTH + ledger.STAMP] = mark
        if run_state[ledger.FORKS]:
            _claim_payload(run_state, ancestor)
        ancestor = parent_of(run_state, ancestor)
    pool = column(run_state, ledger.POOL)
    payload = column(run_state, ledger.PAYLOAD)
    at = blocks[b + ledger.PAYLOAD_AT] * limit
    rows = column(run_state, ledger.TX)
    classes = column(run_state, ledger.CLASS)
    mask = run_state[ledger.POOL_SIZE] - 1
    built_ns = _built_ns(run_state, node)
    total = 0
    count = 0
    schedules = run_state[ledger.SCHEDULES] > 0
    if schedules:
        begin_schedule(run_state)
    i = peer[p + ledger.POOL_HEAD]
    while i < peer[p + ledger.POOL_TAIL] and count < limit:
        slot = 2 * (node * run_state[ledger.POOL_SIZE] + (i & mask))
        tx = pool[slot]
        if run_state[ledger.BUILDS_EARLY] and pool[slot + 1] >= built_ns:  # what came with it is too late too
            break
        t = tx * ledger.TX_WIDTH
        inside = rows[t + ledger.TX_BLOCK]
        decided = rows[t + ledger.TX_DECIDED] > 0 if run_state[ledger.FORKS] else known_decided(run_state, tx, node)
        if not decided and not (inside >= 0 and blocks[inside * ledger.BLOCK_WIDTH + ledger.STAMP] == mark):
            bytes_ = classes[rows[t + ledger.TX_CLASS] * ledger.CLASS_WIDTH + ledger.CLASS_BYTES]
            if (
                run_state[ledger.BLOCK_BYTES_MAX] > 0
                and count > 0
                and total + bytes_ > run_state[ledger.BLOCK_BYTES_MAX]
            ):
                break
            rows[t + ledger.TX_BLOCK] = block
            rows[t + ledger.TX_REFS] += 1
            payload[at + count] = tx
            count += 1
            total += bytes_
            if schedules:
                schedule(run_state, tx, mark)
        i += 1
    peer[p + ledger.FRESH] = peer[p + ledger.POOL_TAIL] - i
    blocks[b + ledger.TXS] = count
    blocks[b + ledger.BYTES] = total
    blocks[b + ledger.UNACKED] = count
    if schedules:
        end_schedule(run_state, block, count)


@compiled
def _note_carried(run_state, tx, number):
    """A block that is decided holds a transaction that must not leave the country."""
    count = run_state[ledger.CARRIED_LEN]
    if count > 0:
        last = (count - 1) * ledger.CARRIED_WIDTH
        if column(run_state, ledger.CARRIED)[last + ledger.CARRIED_BLOCK] == number:
            column(run_state, ledger.CARRIED)[last + ledger.CARRIED_COUNT] += 1
            return
    if (count + 1) * ledger.CARRIED_WIDTH > length(run_state, ledger.CARRIED):
        make_capacity(run_state, ledger.CARRIED)
    rows, at = column(run_state, ledger.CARRIED), count * ledger.CARRIED_WIDTH
    rows[at + ledger.CARRIED_BLOCK] = number
    rows[at + ledger.CARRIED_COUNT] = 1
    rows[at + ledger.CARRIED_TX] = column(run_state, ledger.TX)[tx * ledger.TX_WIDTH + ledger.TX_NUMBER]
    rows[at + ledger.CARRIED_CLASS] = column(run_state, ledger.TX)[tx * ledger.TX_WIDTH + ledger.TX_CLASS]
    run_state[ledger.CARRIED_LEN] += 1


@compiled
def settle_payload(run_state, block):
    """A correct voter decides the block, as the first, now: its transactions are final."""
    blocks = column(run_state, ledger.BLOCK)
    b = block * ledger.BLOCK_WIDTH
    if blocks[b + ledger.PAYLOAD_AT] < 0:
        run_state[ledger.COMMITTED] += blocks[b + ledger.TXS]
        run_state[ledger.TX_BYTES_COMMITTED] += blocks[b + ledger.BYTES]
        return
    payload = column(run_state, ledger.PAYLOAD)
    at = blocks[b + ledger.PAYLOAD_AT] * run_state[ledger.PAYLOAD_SIZE]
    rows = column(run_state, ledger.TX)
    classes = column(run_state, ledger.CLASS)
    histogram = column(run_state, ledger.HIST_FINAL)
    for i in range(blocks[b + ledger.TXS]):
        tx = payload[at + i]
        t = tx * ledger.TX_WIDTH
        if rows[t + ledger.TX_DECIDED] > 0:  # an earlier block has it: this copy is void
            run_state[ledger.REPEATED] += 1
            payload[at + i] = -1
            blocks[b + ledger.UNACKED] -= 1
            release_tx(run_state, tx)
            continue
        rows[t + ledger.TX_DECIDED] = blocks[b + ledger.HEIGHT]
        rows[t + ledger.TX_BLOCK] = (
            block  # not a rival that holds it too: of this one a client is answered, if it asks again
        )
        if run_state[kernel.BORDERS] and classes[rows[t + ledger.TX_CLASS] * ledger.CLASS_WIDTH + ledger.CLASS_STAYS]:
            _note_carried(run_state, tx, blocks[b + ledger.NUMBER])
        if run_state[ledger.ENDORSES]:
            more = column(run_state, ledger.TX_MORE)
            run_state[ledger.ORDERED] += 1
            run_state[ledger.ORDERING_NS] += (
                run_state[kernel.NOW] - more[tx * ledger.TX_MORE_WIDTH + ledger.TX_ENDORSED_NS]
            )
            more[tx * ledger.TX_MORE_WIDTH + ledger.TX_ORDERED_NS] = run_state[kernel.NOW]
        if run_state[ledger.EXECUTES]:
            execute(run_state, tx, blocks[b + ledger.NUMBER], blocks[b + ledger.HEIGHT], i)
        run_state[ledger.COMMITTED] += 1
        class_ = rows[t + ledger.TX_CLASS] * ledger.CLASS_WIDTH
        classes[class_ + ledger.CLASS_COMMITTED] += 1
        run_state[ledger.TX_BYTES_COMMITTED] += classes[class_ + ledger.CLASS_BYTES]
        if run_state[ledger.WARM_UP_NS] <= rows[t + ledger.TX_SUBMIT] < run_state[ledger.MEASURE_END_NS]:
            run_state[ledger.COMMITTED_MEASURED] += 1
            histogram[histogram_bucket(run_state[kernel.NOW] - rows[t + ledger.TX_SUBMIT])] += 1


@compiled
def note_wait(run_state, gateway, class_, wait_ns):
    """A client at this gateway has waited so long for the answer to a transaction of this class."""
    waited = column(run_state, ledger.WAITED)
    w = ((gateway - run_state[ledger.GATEWAY_FIRST]) * run_state[ledger.CLASSES] + class_) * ledger.WAITED_WIDTH
    if waited[w + ledger.WAITED_COUNT] == 0 or wait_ns < waited[w + ledger.WAITED_LEAST_NS]:
        waited[w + ledger.WAITED_LEAST_NS] = wait_ns
    waited[w + ledger.WAITED_COUNT] += 1
    waited[w + ledger.WAITED_SUM_NS] += wait_ns
    waited[w + ledger.WAITED_GREATEST_NS] = max(waited[w + ledger.WAITED_GREATEST_NS], wait_ns)


@compiled
def answerer(run_state, tx):
    """Whose word a transaction's client waits for: its entry voter's, or where requests are endorsed its peer's."""
    if run_state[ledger.ENDORSES]:
        return column(run_state, ledger.TX_MORE)[tx * ledger.TX_MORE_WIDTH + ledger.TX_PEER]
    return column(run_state, ledger.TX)[tx * ledger.TX_WIDTH + ledger.TX_ENTRY]


@compiled
def wait_bucket(wait_ns):
    """Bucket of a wait in a class's own histogram: whole microseconds below 128 us, then at most 1/64 wide."""
    us = wait_ns // 1000
    s = 0
    while us >> s >= (2 << ledger.WAIT_BITS):
        s += 1
    return min((s << ledger.WAIT_BITS) + (us >> s), ledger.WAIT_BUCKETS - 1)


@compiled
def _note_outcome(run_state, class_, result, wait_ns):
    """A request is over for its client, who has heard of success, or of a failure after which it does not try again."""
    outcome, o = column(run_state, ledger.OUTCOME), class_ * ledger.OUTCOME_WIDTH
    if result != ledger.VALID:
        outcome[o + ledger.GIVEN_UP] += 1
        return
    outcome[o + ledger.SUCCEEDED] += 1
    deadline_ns = column(run_state, ledger.CLASS)[class_ * ledger.CLASS_WIDTH + ledger.CLASS_DEADLINE_NS]
    if 0 < deadline_ns < wait_ns:
        outcome[o + ledger.LATE] += 1


@compiled
def acknowledge(run_state, block, gateway, entry):
    """A gateway's clients learn now that their transactions in a block are final.

    `entry` < 0: all of the gateway's; otherwise those it had sent to that node. Returns how many.
    """
    blocks = column(run_state, ledger.BLOCK)
    b = block * ledger.BLOCK_WIDTH
    if blocks[b + ledger.PAYLOAD_AT] < 0:
        return 0
    payload = column(run_state, ledger.PAYLOAD)
    at = blocks[b + ledger.PAYLOAD_AT] * run_state[ledger.PAYLOAD_SIZE]
    rows = column(run_state, ledger.TX)
    classes = column(run_state, ledger.CLASS)
    histogram = column(run_state, ledger.HIST_CLIENT)
    count = 0
    for i in range(blocks[b + ledger.TXS]):
        tx = payload[at + i]
        if tx < 0:
            continue
        t = tx * ledger.TX_WIDTH
        if rows[t + ledger.TX_GATEWAY] != gateway or (entry >= 0 and answerer(run_state, tx) != entry):
            continue
        count += 1
        run_state[ledger.ACKED] += 1
        class_ = rows[t + ledger.TX_CLASS]
        result = (
            column(run_state, ledger.TX_MORE)[tx * ledger.TX_MORE_WIDTH + ledger.TX_RESULT]
            if run_state[ledger.EXECUTES]
            else ledger.VALID
        )
        if (
            result == ledger.CONFLICT
            and column(run_state, ledger.TX_MORE)[tx * ledger.TX_MORE_WIDTH + ledger.TX_TRIES]
            < run_state[ledger.TRIES_MAX]
        ):
            try_again(run_state, tx)
            rows = column(run_state, ledger.TX)  # it may have grown
        else:
            classes[class_ * ledger.CLASS_WIDTH + ledger.CLASS_ACKED] += 1
            if run_state[ledger.ENDORSES]:
                run_state[ledger.ANSWERED] += 1
                ordered_ns = column(run_state, ledger.TX_MORE)[tx * ledger.TX_MORE_WIDTH + ledger.TX_ORDERED_NS]
                run_state[ledger.COMMITTING_NS] += run_state[kernel.NOW] - ordered_ns
            wait_ns = run_state[kernel.NOW] - rows[t + ledger.TX_SUBMIT]
            _note_outcome(run_state, class_, result, wait_ns)
            if (
                result == ledger.VALID
                and run_state[ledger.WARM_UP_NS] <= rows[t + ledger.TX_SUBMIT] < run_state[ledger.MEASURE_END_NS]
            ):
                run_state[ledger.MEASURED] += 1
                histogram[histogram_bucket(wait_ns)] += 1
                column(run_state, ledger.CLASS_WAITS)[class_ * ledger.WAIT_BUCKETS + wait_bucket(wait_ns)] += 1
                note_wait(run_state, gateway, class_, wait_ns)
        payload[at + i] = -1
        release_tx(run_state, tx)
    blocks[b + ledger.UNACKED] -= count
    return count


@compiled
def free_payload(run_state, block):
    """The block is gone: whatever it still held is let go."""
    blocks = column(run_state, ledger.BLOCK)
    b = block * ledger.BLOCK_WIDTH
    if blocks[b + ledger.PAYLOAD_AT] < 0:
        return
    payload = column(run_state, ledger.PAYLOAD)
    at = blocks[b + ledger.PAYLOAD_AT] * run_state[ledger.PAYLOAD_SIZE]
    rows = column(run_state, ledger.TX)
    for i in range(blocks[b + ledger.TXS]):
        tx = payload[at + i]
        if tx >= 0:
            if rows[tx * ledger.TX_WIDTH + ledger.TX_BLOCK] == block:
                rows[tx * ledger.TX_WIDTH + ledger.TX_BLOCK] = -1
            release_tx(run_state, tx)
