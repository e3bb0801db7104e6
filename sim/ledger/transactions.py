"""Transactions from submission to release: numbers in columns, no object each.

A transaction lives as a row while somebody can still need it: copies on their way, mempools that hold it,
blocks that contain it. The count of these references frees the row.

Latencies are counted in histograms of one microsecond (one part in a million above two seconds), so that
quantiles are exact to that and memory does not depend on how long a run lasts.
"""

from __future__ import annotations

import numpy as np

from sim.kernel.chance import CLASS as DRAW_CLASS
from sim.kernel.chance import JITTER, below, join
from sim.kernel.post import DST_BITS, NODE_WIDTH, UP
from sim.kernel.rules import begin_message
from sim.kernel.run_state import BITS_WORDS, NODE, NOW, SEED, VOTERS, _pointer, column, compiled, make_capacity
from sim.kernel.sending import count_kind, is_shared, put_on_link, transmit
from sim.kernel.sharing import queue
from sim.ledger.rows import (
    APART,
    CLASS,
    CLASS_BYTES,
    CLASS_SUBMITTED,
    CLASS_WIDTH,
    CLOSED_LOOP,
    ENTRY,
    EXPIRED,
    LIVE_TXS,
    OWED,
    PEER,
    PEER_WIDTH,
    REJECTED,
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
)

HIST_EXACT_BITS = 20  # below 2**21 us a bucket is one microsecond; above, 2**20 buckets per doubling
_PERIODS_MAX = 8  # between two requests of a client that has no answer
HIST_LEN = 22 << HIST_EXACT_BITS


@compiled
def histogram_bucket(latency_ns):
    """Bucket of a latency: microseconds below 2**21 us, then a relative width of at most 2**-20."""
    us = latency_ns // 1000
    s = 0
    while us >> s >= (2 << HIST_EXACT_BITS):
        s += 1
    return min((s << HIST_EXACT_BITS) + (us >> s), HIST_LEN - 1)  # the last one: 25 days and more


@compiled
def tx_ref(tx, dst):
    """Calendar reference of a transaction on its way to `dst` (odd: an envelope's is even)."""
    return (np.int64(tx) << (DST_BITS + 1)) | (np.int64(dst) << 1) | 1


@compiled
def _owe(run_state, gateway):
    """A closed-loop client's request is lost: it will submit another (see sim.workload.sources)."""
    peer = column(run_state, PEER)
    if peer[gateway * PEER_WIDTH + CLOSED_LOOP] > 0:
        peer[gateway * PEER_WIDTH + OWED] += 1


@compiled
def release_tx(run_state, tx):
    """One reference fewer; the last one frees the row, and counts the transaction as lost if undecided."""
    t = tx * TX_WIDTH
    rows = column(run_state, TX)
    rows[t + TX_REFS] -= 1
    if rows[t + TX_REFS] > 0:
        return
    if rows[t + TX_DECIDED] == 0:
        run_state[EXPIRED] += 1
        _owe(run_state, rows[t + TX_GATEWAY])
    words = run_state[BITS_WORDS]
    held = column(run_state, TX_HELD)
    for i in range(words):
        held[tx * words + i] = 0
    column(run_state, TX_FREE)[run_state[TX_FREE_LEN]] = tx
    run_state[TX_FREE_LEN] += 1
    run_state[LIVE_TXS] -= 1


@compiled
def send_tx(run_state, tx, src, dst, bytes_, again):
    """One copy of a transaction from `src` to `dst`; returns False if it was lost at once.

    `again`: perhaps not the first one, so what happens to it is drawn anew.
    """
    number = column(run_state, TX)[tx * TX_WIDTH + TX_NUMBER]
    key = join(join(join(join(0, run_state[SEED]), JITTER), np.int64(src) - 1_000_000), number)
    if again:
        key = join(key, run_state[NOW])
    kind = run_state[TX_KIND]
    count_kind(run_state, kind, 1, bytes_)
    if is_shared(run_state, src):
        queue(run_state, src, tx_ref(tx, dst), dst, run_state[NOW], key, bytes_, False)
        column(run_state, TX)[tx * TX_WIDTH + TX_REFS] += 1
        return True
    begin_message(run_state, src, kind)
    leaves = transmit(run_state, src, run_state[NOW], bytes_)
    copies = put_on_link(run_state, key, tx_ref(tx, dst), src, dst, leaves, kind, -1, bytes_)
    column(run_state, TX)[tx * TX_WIDTH + TX_REFS] += copies
    return copies > 0


@compiled
def submit_one(run_state, gateway, class_):
    """A client at `gateway` submits a transaction now; it goes to the gateway's entry node."""
    run_state[SUBMITTED] += 1
    classes = column(run_state, CLASS)
    classes[class_ * CLASS_WIDTH + CLASS_SUBMITTED] += 1
    peer = column(run_state, PEER)
    entry = peer[gateway * PEER_WIDTH + ENTRY]
    number = peer[gateway * PEER_WIDTH + SUBMISSIONS]
    peer[gateway * PEER_WIDTH + SUBMISSIONS] = number + 1
    node = column(run_state, NODE)
    if entry < 0 or node[gateway * NODE_WIDTH + UP] == 0 or node[entry * NODE_WIDTH + UP] == 0:
        run_state[REJECTED] += 1
        _owe(run_state, gateway)
        return
    if run_state[TX_FREE_LEN] == 0:
        make_capacity(run_state, TX_FREE)
    free = run_state[TX_FREE_LEN] - 1
    run_state[TX_FREE_LEN] = free
    tx = column(run_state, TX_FREE)[free]
    run_state[LIVE_TXS] += 1
    t = tx * TX_WIDTH
    rows = column(run_state, TX)
    rows[t + TX_SUBMIT] = run_state[NOW]
    rows[t + TX_GATEWAY] = gateway
    rows[t + TX_CLASS] = class_
    rows[t + TX_DECIDED] = 0
    rows[t + TX_BLOCK] = -1
    rows[t + TX_REFS] = 1
    rows[t + TX_ENTRY] = entry
    rows[t + TX_NUMBER] = (gateway << 40) + number
    if not send_tx(run_state, tx, gateway, entry, classes[class_ * CLASS_WIDTH + CLASS_BYTES], False):
        run_state[REJECTED] += 1
        run_state[EXPIRED] -= 1  # release_tx counts it there
    release_tx(run_state, tx)


@compiled
def _enough_hold(run_state, tx):
    """Whether one more than a third of the voters, and as many correct ones, hold a transaction in their mempools.

    Fewer cannot replace a leader that never heard of it; whoever lies may keep it to itself.
    """
    held, peer = column(run_state, TX_HELD), column(run_state, PEER)
    missing = (run_state[VOTERS] - 1) // 3 + 1
    for node in range(run_state[VOTERS]):
        if (held[tx * run_state[BITS_WORDS] + (node >> 6)] >> (node & 63)) & 1 and peer[node * PEER_WIDTH + APART] == 0:
            missing -= 1
            if missing == 0:
                return True
    return False


@compiled
def _next_entry(run_state, gateway, after):
    """The next voter that runs, if the gateway does, or -1: a client without an answer asks them in turn."""
    node = column(run_state, NODE)
    if node[gateway * NODE_WIDTH + UP] == 0 or column(run_state, PEER)[gateway * PEER_WIDTH + ENTRY] < 0:
        return np.int64(-1)
    for step in range(run_state[VOTERS]):
        entry = (after + 1 + step) % run_state[VOTERS]
        if node[entry * NODE_WIDTH + UP]:
            return np.int64(entry)
    return np.int64(-1)


@compiled
def _loses_patience(run_state, since_ns, before_ns):
    """Whether a client asks again now: after 1, 2, 4, 8, 16, 24 ... periods, of which one began at `before_ns`.

    Asking every period would double what an overloaded network carries, and more of it every period.
    """
    periods = (run_state[NOW] - since_ns) // (run_state[NOW] - before_ns)
    return periods & (periods - 1) == 0 if periods < _PERIODS_MAX else periods % _PERIODS_MAX == 0


@compiled
def submit_again(run_state, tx, before_ns):
    """A client that has waited since before a time asks again: another voter, unless enough hold its transaction.

    Its entry voter may lie, or crashes emptied the mempools, and only a block that may never be decided contains it.
    Returns the voter whom it asks if the transaction is decided and only the answer was lost, or -1.
    """
    t = tx * TX_WIDTH
    rows, peer = column(run_state, TX), column(run_state, PEER)
    gateway = rows[t + TX_GATEWAY]
    if rows[t + TX_REFS] <= 0 or rows[t + TX_SUBMIT] > before_ns:
        return np.int64(-1)
    if not _loses_patience(run_state, rows[t + TX_SUBMIT], before_ns):
        return np.int64(-1)
    if rows[t + TX_DECIDED] > 0:
        if peer[gateway * PEER_WIDTH + CLOSED_LOOP] == 0:
            return np.int64(-1)
        entry = _next_entry(run_state, gateway, rows[t + TX_ENTRY])
        if entry < 0 or peer[entry * PEER_WIDTH + TIP_HEIGHT] < rows[t + TX_DECIDED]:
            return np.int64(-1)
        rows[t + TX_ENTRY] = entry
        return entry
    if _enough_hold(run_state, tx):
        return np.int64(-1)
    entry = _next_entry(run_state, gateway, rows[t + TX_ENTRY])
    if entry >= 0 and entry != rows[t + TX_ENTRY]:
        rows[t + TX_ENTRY] = entry
        class_ = rows[t + TX_CLASS] * CLASS_WIDTH
        send_tx(run_state, tx, gateway, entry, column(run_state, CLASS)[class_ + CLASS_BYTES], True)
    return np.int64(-1)


@compiled
def submit_next(run_state, stream):
    """Submit the stream's transaction that is due; returns the time of the next one or -1 at the end."""
    s = stream * STREAM_WIDTH
    rows = column(run_state, STREAM)
    position = rows[s + STREAM_POS]
    count = rows[s + STREAM_LEN]
    times = _pointer(rows[s + STREAM_TIMES])
    class_ = rows[s + STREAM_CLASS]
    if rows[s + STREAM_CLASSES] > 1:  # cumulative shares in 1/2**20 follow at STREAM_CLASS
        shares = _pointer(rows[s + STREAM_CLASSES])
        u = below(join(join(join(join(0, run_state[SEED]), DRAW_CLASS), stream), times[position]), 1 << 20)
        k = 0
        while shares[k] <= u:
            k += 1
        class_ += k
    submit_one(run_state, rows[s + STREAM_GATEWAY], class_)
    rows[s + STREAM_POS] = position + 1
    if position + 1 < count:
        return times[position + 1]
    return np.int64(-1)
