"""Transactions from submission to release: numbers in columns, no object each.

A transaction lives as a row while somebody can still need it: copies on their way, mempools that hold it,
blocks that contain it. The count of these references frees the row.

Latencies are counted in histograms of one microsecond (one part in a million above two seconds), so that
quantiles are exact to that and memory does not depend on how long a run lasts.
"""

from __future__ import annotations

import numpy as np

from sim.kernel.chance import JITTER, THINK, exponential_ns, join
from sim.kernel.due import CLIENT, ready_push
from sim.kernel.post import DST_BITS, NODE_WIDTH, UP
from sim.kernel.rules import begin_message
from sim.kernel.run_state import (
    BITS_WORDS,
    BORDERS,
    LATENCY,
    NODE,
    NOW,
    SEED,
    SIDE,
    SITE_OF,
    SITES,
    VOTERS,
    _pointer,
    column,
    compiled,
    make_capacity,
)
from sim.kernel.sending import count_kind, is_shared, put_on_link, transmit
from sim.kernel.sharing import queue
from sim.ledger.endorsement import begin
from sim.ledger.rows import (
    APART,
    CLASS,
    CLASS_ACKED,
    CLASS_ASKS,
    CLASS_BYTES,
    CLASS_FOLLOWED,
    CLASS_MOST,
    CLASS_SENDER_FIRST,
    CLASS_SENDERS,
    CLASS_STAYS,
    CLASS_SUBMITTED,
    CLASS_THINK_DRAWN,
    CLASS_THINK_NS,
    CLASS_WIDTH,
    CLASSES,
    CROSSED,
    CROSSING,
    CROSSING_CLASS,
    CROSSING_FROM,
    CROSSING_NS,
    CROSSING_TO,
    CROSSING_TX,
    CROSSING_WIDTH,
    CROSSINGS_KEPT,
    ENDORSES,
    ENTRY,
    EXECUTED_HEIGHT,
    EXPIRED,
    GATEWAY_FIRST,
    KEEPS_MORE,
    LIVE_TXS,
    LOST,
    ORDINAL,
    OUTCOME,
    OUTCOME_WIDTH,
    OWED,
    PEER,
    PEER_FIRST,
    PEER_WIDTH,
    PEERS,
    REJECTED,
    RETRIED,
    RETRIES_MAX,
    RETRY_MOST_NS,
    RETRY_NS,
    STREAM,
    STREAM_CLASS,
    STREAM_EACH,
    STREAM_GATEWAY,
    STREAM_LEN,
    STREAM_POS,
    STREAM_TIMES,
    STREAM_WIDTH,
    SUBMISSIONS,
    SUBMITTED,
    THINK_QUANTILE,
    THOUGHTS,
    TIP_HEIGHT,
    TRIED_AGAIN,
    TRY_AGAIN_NS,
    TURNED_AWAY,
    TX,
    TX_ATTEMPT,
    TX_BLOCK,
    TX_CLASS,
    TX_DECIDED,
    TX_ENTRY,
    TX_FREE,
    TX_FREE_LEN,
    TX_GATEWAY,
    TX_HELD,
    TX_KEYS,
    TX_KIND,
    TX_MORE,
    TX_MORE_WIDTH,
    TX_NUMBER,
    TX_PEER,
    TX_REFS,
    TX_REFUSALS,
    TX_RESULT,
    TX_SENDER,
    TX_SNAPSHOT,
    TX_SUBMIT,
    TX_TRIES,
    TX_WIDTH,
    VALID,
    WAITED,
    WAITED_WIDTH,
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
def _asks(run_state, class_):
    """Whether this class of transactions comes from clients who ask again once they have an answer."""
    return column(run_state, CLASS)[class_ * CLASS_WIDTH + CLASS_ASKS] > 0


@compiled
def _owe(run_state, gateway, class_):
    """A closed-loop client's request is lost: it will submit another (see sim.workload.sources)."""
    if _asks(run_state, class_):
        at = (gateway - run_state[GATEWAY_FIRST]) * run_state[CLASSES] + class_
        column(run_state, WAITED)[at * WAITED_WIDTH + OWED] += 1


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
        column(run_state, OUTCOME)[rows[t + TX_CLASS] * OUTCOME_WIDTH + LOST] += 1
        _owe(run_state, rows[t + TX_GATEWAY], rows[t + TX_CLASS])
    words = run_state[BITS_WORDS]
    held = column(run_state, TX_HELD)
    for i in range(words):
        held[tx * words + i] = 0
    column(run_state, TX_FREE)[run_state[TX_FREE_LEN]] = tx
    run_state[TX_FREE_LEN] += 1
    run_state[LIVE_TXS] -= 1


@compiled
def _note_crossing(run_state, tx, src, dst):
    """A transaction is sent from `src` to `dst`: that may be abroad, where those of some classes must not go."""
    side, rows = column(run_state, SIDE), column(run_state, TX)
    class_ = rows[tx * TX_WIDTH + TX_CLASS]
    if side[src] != 0 or side[dst] != 1 or column(run_state, CLASS)[class_ * CLASS_WIDTH + CLASS_STAYS] == 0:
        return
    if run_state[CROSSED] < CROSSINGS_KEPT:
        kept, at = column(run_state, CROSSING), run_state[CROSSED] * CROSSING_WIDTH
        kept[at + CROSSING_NS] = run_state[NOW]
        kept[at + CROSSING_FROM] = src
        kept[at + CROSSING_TO] = dst
        kept[at + CROSSING_TX] = rows[tx * TX_WIDTH + TX_NUMBER]
        kept[at + CROSSING_CLASS] = class_
    run_state[CROSSED] += 1


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
    if run_state[BORDERS]:
        _note_crossing(run_state, tx, src, dst)
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
    """A client at `gateway` submits a transaction now, if its class may; it goes to the gateway's entry node."""
    classes = column(run_state, CLASS)
    c = class_ * CLASS_WIDTH
    if classes[c + CLASS_SUBMITTED] >= classes[c + CLASS_MOST]:
        return
    run_state[SUBMITTED] += 1
    classes[c + CLASS_SUBMITTED] += 1
    peer = column(run_state, PEER)
    entry = _entry_of(run_state, gateway)
    number = peer[gateway * PEER_WIDTH + SUBMISSIONS]
    peer[gateway * PEER_WIDTH + SUBMISSIONS] = number + 1
    if entry < 0 and run_state[RETRIES_MAX] == 0:
        run_state[REJECTED] += 1
        column(run_state, OUTCOME)[class_ * OUTCOME_WIDTH + TURNED_AWAY] += 1
        _owe(run_state, gateway, class_)
        return
    tx = _new_row(run_state, gateway, class_, number, entry)
    if run_state[KEEPS_MORE]:  # who else would read it
        more = column(run_state, TX_MORE)
        m = tx * TX_MORE_WIDTH
        senders = classes[c + CLASS_SENDERS]
        more[m + TX_REFUSALS] = 0
        more[m + TX_SENDER] = (
            classes[c + CLASS_SENDER_FIRST] + (gateway - run_state[GATEWAY_FIRST]) * senders + number % senders
        )
        waited = column(run_state, WAITED)
        at = ((gateway - run_state[GATEWAY_FIRST]) * run_state[CLASSES] + class_) * WAITED_WIDTH + ORDINAL
        more[m + TX_KEYS] = (gateway << 40) + waited[at]
        waited[at] += 1
        more[m + TX_SNAPSHOT] = -1
        more[m + TX_RESULT] = VALID
        more[m + TX_TRIES] = 0
        more[m + TX_ATTEMPT] = 0
    if run_state[ENDORSES]:
        if entry >= 0:
            begin(run_state, tx, gateway, entry)
        else:
            refuse(run_state, tx)
    elif entry >= 0 and send_tx(run_state, tx, gateway, entry, classes[c + CLASS_BYTES], False):
        release_tx(run_state, tx)
    else:
        refuse(run_state, tx)


@compiled
def _new_row(run_state, gateway, class_, number, entry):
    """The row of a transaction that a gateway's clients submit now, its `number`-th; the caller holds a reference."""
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
    return tx


@compiled
def try_again(run_state, old):
    """A client has learned that its transaction met a conflict: it will send it once more, as another transaction.

    The keys are those of the first try, which it reads anew, and its latency counts from the first. It looks for an
    entry voter when its time comes.
    """
    rows, peer = column(run_state, TX), column(run_state, PEER)
    gateway, class_ = rows[old * TX_WIDTH + TX_GATEWAY], rows[old * TX_WIDTH + TX_CLASS]
    number = peer[gateway * PEER_WIDTH + SUBMISSIONS]
    peer[gateway * PEER_WIDTH + SUBMISSIONS] = number + 1
    tx = _new_row(run_state, gateway, class_, number, np.int64(-1))
    run_state[SUBMITTED] += 1
    column(run_state, OUTCOME)[class_ * OUTCOME_WIDTH + TRIED_AGAIN] += 1
    column(run_state, TX)[tx * TX_WIDTH + TX_SUBMIT] = column(run_state, TX)[old * TX_WIDTH + TX_SUBMIT]
    more, m, o = column(run_state, TX_MORE), tx * TX_MORE_WIDTH, old * TX_MORE_WIDTH
    for i in range(TX_MORE_WIDTH):
        more[m + i] = more[o + i]
    more[m + TX_REFUSALS] = 0
    more[m + TX_SNAPSHOT] = -1
    more[m + TX_RESULT] = VALID
    more[m + TX_TRIES] = more[o + TX_TRIES] + 1
    ready_push(run_state, run_state[NOW] + run_state[TRY_AGAIN_NS], CLIENT, gateway, tx)


@compiled
def _entry_of(run_state, gateway):
    """The voter that takes a gateway's transactions now, or -1."""
    entry = column(run_state, PEER)[gateway * PEER_WIDTH + ENTRY]
    node = column(run_state, NODE)
    if entry < 0 or node[gateway * NODE_WIDTH + UP] == 0 or node[entry * NODE_WIDTH + UP] == 0:
        return np.int64(-1)
    return entry


@compiled
def reject(run_state, tx):
    """Nobody holds a transaction but who refuses it now, for good."""
    run_state[REJECTED] += 1
    run_state[EXPIRED] -= 1  # release_tx counts it there
    outcome, o = column(run_state, OUTCOME), column(run_state, TX)[tx * TX_WIDTH + TX_CLASS] * OUTCOME_WIDTH
    outcome[o + TURNED_AWAY] += 1
    outcome[o + LOST] -= 1
    release_tx(run_state, tx)


@compiled
def refuse(run_state, tx):
    """Nobody holds a transaction but who refuses it now: its client tries again after a while, or is left without.

    The word comes back as fast as the link is long, and costs its card nothing.
    """
    rows, more = column(run_state, TX), column(run_state, TX_MORE)
    t = tx * TX_WIDTH
    if run_state[RETRIES_MAX] == 0 or more[tx * TX_MORE_WIDTH + TX_REFUSALS] >= run_state[RETRIES_MAX]:
        reject(run_state, tx)
        return
    refusals = more[tx * TX_MORE_WIDTH + TX_REFUSALS]
    more[tx * TX_MORE_WIDTH + TX_REFUSALS] = refusals + 1
    wait_ns = run_state[RETRY_NS]
    for _ in range(refusals):
        wait_ns = min(2 * wait_ns, run_state[RETRY_MOST_NS])
    gateway, entry = rows[t + TX_GATEWAY], rows[t + TX_ENTRY]
    if entry >= 0:
        site = column(run_state, SITE_OF)
        wait_ns += column(run_state, LATENCY)[site[entry] * run_state[SITES] + site[gateway]]
    rows[t + TX_ENTRY] = -1  # with its client, who asks nobody else meanwhile
    ready_push(run_state, run_state[NOW] + wait_ns, CLIENT, gateway, tx)


@compiled
def client_acts(run_state, gateway, argument):
    """A client sends a transaction (>= 0) that was refused again, or having thought submits one of class -1 - argument.

    What it sends again is the same transaction: its latency counts from when it was first submitted.
    """
    if argument < 0:
        submit_one(run_state, gateway, -1 - argument)
        return
    rows = column(run_state, TX)
    t = argument * TX_WIDTH
    if run_state[RETRIES_MAX] > 0 and column(run_state, TX_MORE)[argument * TX_MORE_WIDTH + TX_REFUSALS] > 0:
        run_state[RETRIED] += 1  # else it met a conflict, and nobody has refused it yet
    entry = _entry_of(run_state, gateway)
    bytes_ = column(run_state, CLASS)[rows[t + TX_CLASS] * CLASS_WIDTH + CLASS_BYTES]
    rows[t + TX_ENTRY] = entry
    if run_state[ENDORSES] and entry >= 0:
        begin(run_state, argument, gateway, entry)
    elif entry >= 0 and send_tx(run_state, argument, gateway, entry, bytes_, True):
        release_tx(run_state, argument)
    else:
        refuse(run_state, argument)


@compiled
def client_is_gone(run_state, gateway, argument):
    """Its place lost its power before a client did what it was about to do: what it held is refused for good."""
    if argument < 0:
        _owe(run_state, gateway, -1 - argument)
    else:
        reject(run_state, argument)


@compiled
def ask_next(run_state, gateway):
    """Clients who have just been answered submit their next requests, at once or having thought."""
    classes = column(run_state, CLASS)
    peer = column(run_state, PEER)
    for class_ in range(run_state[CLASSES]):
        c = class_ * CLASS_WIDTH
        answered = classes[c + CLASS_ACKED] - classes[c + CLASS_FOLLOWED]
        classes[c + CLASS_FOLLOWED] = classes[c + CLASS_ACKED]
        if classes[c + CLASS_ASKS] == 0:
            continue
        for _ in range(answered):
            wait_ns = classes[c + CLASS_THINK_NS]
            if wait_ns == 0:
                submit_one(run_state, gateway, class_)
                continue
            if classes[c + CLASS_THINK_DRAWN]:
                thoughts = peer[gateway * PEER_WIDTH + THOUGHTS]
                peer[gateway * PEER_WIDTH + THOUGHTS] = thoughts + 1
                state = join(join(join(join(0, run_state[SEED]), THINK), gateway), thoughts)
                wait_ns = exponential_ns(state, wait_ns, column(run_state, THINK_QUANTILE))
            ready_push(run_state, run_state[NOW] + wait_ns, CLIENT, gateway, -1 - class_)


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
def handed_in_by(run_state, tx):
    """Who passes a transaction to its entry voter: its client's gateway, or the peer through which it was endorsed."""
    if run_state[ENDORSES]:
        return column(run_state, TX_MORE)[tx * TX_MORE_WIDTH + TX_PEER]
    return column(run_state, TX)[tx * TX_WIDTH + TX_GATEWAY]


@compiled
def _next_peer(run_state, tx):
    """The peer that a client asks about its decided transaction: its own, or the next that has executed it."""
    node, peers, more = column(run_state, NODE), column(run_state, PEER), column(run_state, TX_MORE)
    decided = column(run_state, TX)[tx * TX_WIDTH + TX_DECIDED]
    m = tx * TX_MORE_WIDTH
    own = more[m + TX_PEER] - run_state[PEER_FIRST]
    for step in range(run_state[PEERS]):
        peer = run_state[PEER_FIRST] + (own + step) % run_state[PEERS]
        if node[peer * NODE_WIDTH + UP] and peers[peer * PEER_WIDTH + EXECUTED_HEIGHT] >= decided:
            more[m + TX_PEER] = peer
            return peer
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
    if rows[t + TX_REFS] <= 0 or rows[t + TX_SUBMIT] > before_ns or rows[t + TX_ENTRY] < 0:
        return np.int64(-1)
    if not _loses_patience(run_state, rows[t + TX_SUBMIT], before_ns):
        return np.int64(-1)
    if rows[t + TX_DECIDED] > 0:
        if not _asks(run_state, rows[t + TX_CLASS]):
            return np.int64(-1)
        if run_state[ENDORSES]:
            return _next_peer(run_state, tx)
        entry = _next_entry(run_state, gateway, rows[t + TX_ENTRY])
        if entry < 0:
            return np.int64(-1)
        rows[t + TX_ENTRY] = (
            entry  # who does not know yet that it is decided answers nothing, and the next is asked then
        )
        return entry if peer[entry * PEER_WIDTH + TIP_HEIGHT] >= rows[t + TX_DECIDED] else np.int64(-1)
    if _enough_hold(run_state, tx):
        return np.int64(-1)
    entry = _next_entry(run_state, gateway, rows[t + TX_ENTRY])
    if entry >= 0 and entry != rows[t + TX_ENTRY]:
        rows[t + TX_ENTRY] = entry
        class_ = rows[t + TX_CLASS] * CLASS_WIDTH
        send_tx(run_state, tx, handed_in_by(run_state, tx), entry, column(run_state, CLASS)[class_ + CLASS_BYTES], True)
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
    if rows[s + STREAM_EACH] != 0:
        class_ += _pointer(rows[s + STREAM_EACH])[position]
    submit_one(run_state, rows[s + STREAM_GATEWAY], class_)
    rows[s + STREAM_POS] = position + 1
    if position + 1 < count:
        return times[position + 1]
    return np.int64(-1)
