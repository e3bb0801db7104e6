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
from sim.kernel.desk import BITS_WORDS, NODE, NOW, SEED, VOTERS, _pointer, column, compiled, make_room
from sim.kernel.post import DST_BITS, NODE_WIDTH, UP
from sim.kernel.rules import begin_message
from sim.kernel.sending import count_kind, put_on_link, transmit
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
def send_tx(desk, tx, src, dst, bytes_, again):
    """One copy of a transaction from `src` to `dst`; returns False if it was lost at once.

    `again`: perhaps not the first one, so what happens to it is drawn anew.
    """
    number = column(desk, TX)[tx * TX_WIDTH + TX_NUMBER]
    key = join(join(join(join(0, desk[SEED]), JITTER), np.int64(src) - 1_000_000), number)
    if again:
        key = join(key, desk[NOW])
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
    if desk[TX_FREE_LEN] == 0:
        make_room(desk, TX_FREE)
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
    if not send_tx(desk, tx, gateway, entry, classes[class_ * CLASS_WIDTH + CLASS_BYTES], False):
        desk[REJECTED] += 1
        desk[EXPIRED] -= 1  # release_tx counts it there
    release_tx(desk, tx)


@compiled
def _enough_hold(desk, tx):
    """Whether one more than a third of the voters, and as many correct ones, hold a transaction in their mempools.

    Fewer cannot replace a leader that never heard of it; whoever lies may keep it to itself.
    """
    held, peer = column(desk, TX_HELD), column(desk, PEER)
    missing = (desk[VOTERS] - 1) // 3 + 1
    for node in range(desk[VOTERS]):
        if (held[tx * desk[BITS_WORDS] + (node >> 6)] >> (node & 63)) & 1 and peer[node * PEER_WIDTH + APART] == 0:
            missing -= 1
            if missing == 0:
                return True
    return False


@compiled
def _next_entry(desk, gateway, after):
    """The next voter that runs, if the gateway does, or -1: a client without an answer asks them in turn."""
    node = column(desk, NODE)
    if node[gateway * NODE_WIDTH + UP] == 0 or column(desk, PEER)[gateway * PEER_WIDTH + ENTRY] < 0:
        return np.int64(-1)
    for step in range(desk[VOTERS]):
        entry = (after + 1 + step) % desk[VOTERS]
        if node[entry * NODE_WIDTH + UP]:
            return np.int64(entry)
    return np.int64(-1)


@compiled
def _loses_patience(desk, since_ns, before_ns):
    """Whether a client asks again now: after 1, 2, 4, 8, 16, 24 ... periods, of which one began at `before_ns`.

    Asking every period would double what an overloaded network carries, and more of it every period.
    """
    periods = (desk[NOW] - since_ns) // (desk[NOW] - before_ns)
    return periods & (periods - 1) == 0 if periods < _PERIODS_MAX else periods % _PERIODS_MAX == 0


@compiled
def submit_again(desk, tx, before_ns):
    """A client that has waited since before a time asks again: another voter, unless enough hold its transaction.

    Its entry voter may lie, or crashes emptied the mempools, and only a block that may never be decided contains it.
    Returns the voter whom it asks if the transaction is decided and only the answer was lost, or -1.
    """
    t = tx * TX_WIDTH
    rows, peer = column(desk, TX), column(desk, PEER)
    gateway = rows[t + TX_GATEWAY]
    if rows[t + TX_REFS] <= 0 or rows[t + TX_SUBMIT] > before_ns:
        return np.int64(-1)
    if not _loses_patience(desk, rows[t + TX_SUBMIT], before_ns):
        return np.int64(-1)
    if rows[t + TX_DECIDED] > 0:
        if peer[gateway * PEER_WIDTH + CLOSED_LOOP] == 0:
            return np.int64(-1)
        entry = _next_entry(desk, gateway, rows[t + TX_ENTRY])
        if entry < 0 or peer[entry * PEER_WIDTH + TIP_HEIGHT] < rows[t + TX_DECIDED]:
            return np.int64(-1)
        rows[t + TX_ENTRY] = entry
        return entry
    if _enough_hold(desk, tx):
        return np.int64(-1)
    entry = _next_entry(desk, gateway, rows[t + TX_ENTRY])
    if entry >= 0 and entry != rows[t + TX_ENTRY]:
        rows[t + TX_ENTRY] = entry
        class_ = rows[t + TX_CLASS] * CLASS_WIDTH
        send_tx(desk, tx, gateway, entry, column(desk, CLASS)[class_ + CLASS_BYTES], True)
    return np.int64(-1)


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
