"""Transactions from submission to release: numbers in columns, no object each.

A transaction lives as a row while somebody can still need it: copies on their way, mempools that hold it,
blocks that contain it. The count of these references frees the row.

Latencies are counted in histograms of one microsecond (one part in a million above two seconds), so that
quantiles are exact to that and memory does not depend on how long a run lasts.
"""

from __future__ import annotations

import numpy as np

from sim.kernel import due as events
from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.kernel.chance import JITTER, THINK, exponential_ns, join
from sim.kernel.due import ready_push
from sim.kernel.rules import begin_message
from sim.kernel.run_state import _pointer, column, compiled, make_capacity
from sim.kernel.sending import count_kind, is_shared, put_on_link, transmit
from sim.kernel.sharing import queue
from sim.ledger import rows as ledger
from sim.ledger.endorsement import begin

HIST_EXACT_BITS = 20  # below 2**21 us a bucket is one microsecond; above, 2**20 buckets per doubling
_PATIENT = 4  # periods after which a client hands its request to voters that lack it, however many hold it
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
    return (np.int64(tx) << (post.DST_BITS + 1)) | (np.int64(dst) << 1) | 1


@compiled
def _asks(run_state, class_):
    """Whether this class of transactions comes from clients who ask again once they have an answer."""
    return column(run_state, ledger.CLASS)[class_ * ledger.CLASS_WIDTH + ledger.CLASS_ASKS] > 0


@compiled
def _owe(run_state, gateway, class_):
    """A closed-loop client's request is lost: it will submit another (see sim.workload.sources)."""
    if _asks(run_state, class_):
        at = (gateway - run_state[ledger.GATEWAY_FIRST]) * run_state[ledger.CLASSES] + class_
        column(run_state, ledger.WAITED)[at * ledger.WAITED_WIDTH + ledger.OWED] += 1


@compiled
def release_tx(run_state, tx):
    """One reference fewer; the last one frees the row, and counts the transaction as lost if undecided."""
    t = tx * ledger.TX_WIDTH
    rows = column(run_state, ledger.TX)
    rows[t + ledger.TX_REFS] -= 1
    if rows[t + ledger.TX_REFS] > 0:
        return
    if rows[t + ledger.TX_DECIDED] == 0:
        run_state[ledger.EXPIRED] += 1
        column(run_state, ledger.OUTCOME)[rows[t + ledger.TX_CLASS] * ledger.OUTCOME_WIDTH + ledger.LOST] += 1
        _owe(run_state, rows[t + ledger.TX_GATEWAY], rows[t + ledger.TX_CLASS])
    words = run_state[kernel.BITS_WORDS]
    held = column(run_state, ledger.TX_HELD)
    for i in range(words):
        held[tx * words + i] = 0
    column(run_state, ledger.TX_FREE)[run_state[ledger.TX_FREE_LEN]] = tx
    run_state[ledger.TX_FREE_LEN] += 1
    run_state[ledger.LIVE_TXS] -= 1


@compiled
def _note_crossing(run_state, tx, src, dst):
    """A transaction is sent from `src` to `dst`: that may be abroad, where those of some classes must not go."""
    side, rows = column(run_state, kernel.SIDE), column(run_state, ledger.TX)
    class_ = rows[tx * ledger.TX_WIDTH + ledger.TX_CLASS]
    if (
        side[src] != 0
        or side[dst] != 1
        or column(run_state, ledger.CLASS)[class_ * ledger.CLASS_WIDTH + ledger.CLASS_STAYS] == 0
    ):
        return
    if run_state[ledger.CROSSED] < ledger.CROSSINGS_KEPT:
        kept, at = column(run_state, ledger.CROSSING), run_state[ledger.CROSSED] * ledger.CROSSING_WIDTH
        kept[at + ledger.CROSSING_NS] = run_state[kernel.NOW]
        kept[at + ledger.CROSSING_FROM] = src
        kept[at + ledger.CROSSING_TO] = dst
        kept[at + ledger.CROSSING_TX] = rows[tx * ledger.TX_WIDTH + ledger.TX_NUMBER]
        kept[at + ledger.CROSSING_CLASS] = class_
    run_state[ledger.CROSSED] += 1


@compiled
def send_tx(run_state, tx, src, dst, bytes_, again):
    """One copy of a transaction from `src` to `dst`; returns False if it was lost at once.

    `again`: perhaps not the first one, so what happens to it is drawn anew.
    """
    number = column(run_state, ledger.TX)[tx * ledger.TX_WIDTH + ledger.TX_NUMBER]
    key = join(join(join(join(0, run_state[kernel.SEED]), JITTER), np.int64(src) - 1_000_000), number)
    if again:
        key = join(key, run_state[kernel.NOW])
    kind = run_state[ledger.TX_KIND]
    if run_state[kernel.BORDERS]:
        _note_crossing(run_state, tx, src, dst)
    count_kind(run_state, kind, 1, bytes_)
    if is_shared(run_state, src):
        queue(run_state, src, tx_ref(tx, dst), dst, run_state[kernel.NOW], key, bytes_, False)
        column(run_state, ledger.TX)[tx * ledger.TX_WIDTH + ledger.TX_REFS] += 1
        return True
    begin_message(run_state, src, kind)
    leaves = transmit(run_state, src, run_state[kernel.NOW], bytes_)
    copies = put_on_link(run_state, key, tx_ref(tx, dst), src, dst, leaves, kind, -1, bytes_)
    column(run_state, ledger.TX)[tx * ledger.TX_WIDTH + ledger.TX_REFS] += copies
    return copies > 0


@compiled
def submit_one(run_state, gateway, class_):
    """A client at `gateway` submits a transaction now, if its class may; it goes to the gateway's entry node."""
    classes = column(run_state, ledger.CLASS)
    c = class_ * ledger.CLASS_WIDTH
    if classes[c + ledger.CLASS_SUBMITTED] >= classes[c + ledger.CLASS_MOST]:
        return
    run_state[ledger.SUBMITTED] += 1
    classes[c + ledger.CLASS_SUBMITTED] += 1
    peer = column(run_state, ledger.PEER)
    entry = _entry_of(run_state, gateway)
    number = peer[gateway * ledger.PEER_WIDTH + ledger.SUBMISSIONS]
    peer[gateway * ledger.PEER_WIDTH + ledger.SUBMISSIONS] = number + 1
    if entry < 0 and run_state[ledger.RETRIES_MAX] == 0:
        run_state[ledger.REJECTED] += 1
        column(run_state, ledger.OUTCOME)[class_ * ledger.OUTCOME_WIDTH + ledger.TURNED_AWAY] += 1
        _owe(run_state, gateway, class_)
        return
    tx = _new_row(run_state, gateway, class_, number, entry)
    if run_state[ledger.KEEPS_MORE]:  # who else would read it
        more = column(run_state, ledger.TX_MORE)
        m = tx * ledger.TX_MORE_WIDTH
        senders = classes[c + ledger.CLASS_SENDERS]
        more[m + ledger.TX_REFUSALS] = 0
        more[m + ledger.TX_SENDER] = (
            classes[c + ledger.CLASS_SENDER_FIRST]
            + (gateway - run_state[ledger.GATEWAY_FIRST]) * senders
            + number % senders
        )
        waited = column(run_state, ledger.WAITED)
        at = (
            (gateway - run_state[ledger.GATEWAY_FIRST]) * run_state[ledger.CLASSES] + class_
        ) * ledger.WAITED_WIDTH + ledger.ORDINAL
        more[m + ledger.TX_KEYS] = (gateway << 40) + waited[at]
        waited[at] += 1
        more[m + ledger.TX_SNAPSHOT] = -1
        more[m + ledger.TX_RESULT] = ledger.VALID
        more[m + ledger.TX_TRIES] = 0
        more[m + ledger.TX_ATTEMPT] = 0
    if run_state[ledger.ENDORSES]:
        if entry >= 0:
            begin(run_state, tx, gateway, entry)
        else:
            refuse(run_state, tx)
    elif entry >= 0 and send_tx(run_state, tx, gateway, entry, classes[c + ledger.CLASS_BYTES], False):
        release_tx(run_state, tx)
    else:
        refuse(run_state, tx)


@compiled
def _new_row(run_state, gateway, class_, number, entry):
    """The row of a transaction that a gateway's clients submit now, its `number`-th; the caller holds a reference."""
    if run_state[ledger.TX_FREE_LEN] == 0:
        make_capacity(run_state, ledger.TX_FREE)
    free = run_state[ledger.TX_FREE_LEN] - 1
    run_state[ledger.TX_FREE_LEN] = free
    tx = column(run_state, ledger.TX_FREE)[free]
    run_state[ledger.LIVE_TXS] += 1
    t = tx * ledger.TX_WIDTH
    rows = column(run_state, ledger.TX)
    rows[t + ledger.TX_SUBMIT] = run_state[kernel.NOW]
    rows[t + ledger.TX_GATEWAY] = gateway
    rows[t + ledger.TX_CLASS] = class_
    rows[t + ledger.TX_DECIDED] = 0
    rows[t + ledger.TX_BLOCK] = -1
    rows[t + ledger.TX_REFS] = 1
    rows[t + ledger.TX_ENTRY] = entry
    rows[t + ledger.TX_NUMBER] = (gateway << 40) + number
    return tx


@compiled
def try_again(run_state, old):
    """A client has learned that its transaction met a conflict: it will send it once more, as another transaction.

    The keys are those of the first try, which it reads anew, and its latency counts from the first. It looks for an
    entry voter when its time comes.
    """
    rows, peer = column(run_state, ledger.TX), column(run_state, ledger.PEER)
    gateway, class_ = rows[old * ledger.TX_WIDTH + ledger.TX_GATEWAY], rows[old * ledger.TX_WIDTH + ledger.TX_CLASS]
    number = peer[gateway * ledger.PEER_WIDTH + ledger.SUBMISSIONS]
    peer[gateway * ledger.PEER_WIDTH + ledger.SUBMISSIONS] = number + 1
    tx = _new_row(run_state, gateway, class_, number, np.int64(-1))
    run_state[ledger.SUBMITTED] += 1
    column(run_state, ledger.OUTCOME)[class_ * ledger.OUTCOME_WIDTH + ledger.TRIED_AGAIN] += 1
    column(run_state, ledger.TX)[tx * ledger.TX_WIDTH + ledger.TX_SUBMIT] = column(run_state, ledger.TX)[
        old * ledger.TX_WIDTH + ledger.TX_SUBMIT
    ]
    more, m, o = column(run_state, ledger.TX_MORE), tx * ledger.TX_MORE_WIDTH, old * ledger.TX_MORE_WIDTH
    for i in range(ledger.TX_MORE_WIDTH):
        more[m + i] = more[o + i]
    more[m + ledger.TX_REFUSALS] = 0
    more[m + ledger.TX_SNAPSHOT] = -1
    more[m + ledger.TX_RESULT] = ledger.VALID
    more[m + ledger.TX_TRIES] = more[o + ledger.TX_TRIES] + 1
    ready_push(run_state, run_state[kernel.NOW] + run_state[ledger.TRY_AGAIN_NS], events.CLIENT, gateway, tx)


@compiled
def _entry_of(run_state, gateway):
    """The voter that takes a gateway's transactions now, or -1."""
    entry = column(run_state, ledger.PEER)[gateway * ledger.PEER_WIDTH + ledger.ENTRY]
    node = column(run_state, kernel.NODE)
    if entry < 0 or node[gateway * post.NODE_WIDTH + post.UP] == 0 or node[entry * post.NODE_WIDTH + post.UP] == 0:
        return np.int64(-1)
    return entry


@compiled
def reject(run_state, tx):
    """Nobody holds a transaction but who refuses it now, for good."""
    run_state[ledger.REJECTED] += 1
    run_state[ledger.EXPIRED] -= 1  # release_tx counts it there
    outcome, o = (
        column(run_state, ledger.OUTCOME),
        column(run_state, ledger.TX)[tx * ledger.TX_WIDTH + ledger.TX_CLASS] * ledger.OUTCOME_WIDTH,
    )
    outcome[o + ledger.TURNED_AWAY] += 1
    outcome[o + ledger.LOST] -= 1
    release_tx(run_state, tx)


@compiled
def refuse(run_state, tx):
    """Nobody holds a transaction but who refuses it now: its client tries again after a while, or is left without.

    The word comes back as fast as the link is long, and costs its card nothing.
    """
    rows, more = column(run_state, ledger.TX), column(run_state, ledger.TX_MORE)
    t = tx * ledger.TX_WIDTH
    if (
        run_state[ledger.RETRIES_MAX] == 0
        or more[tx * ledger.TX_MORE_WIDTH + ledger.TX_REFUSALS] >= run_state[ledger.RETRIES_MAX]
    ):
        reject(run_state, tx)
        return
    refusals = more[tx * ledger.TX_MORE_WIDTH + ledger.TX_REFUSALS]
    more[tx * ledger.TX_MORE_WIDTH + ledger.TX_REFUSALS] = refusals + 1
    wait_ns = run_state[ledger.RETRY_NS]
    for _ in range(refusals):
        wait_ns = min(2 * wait_ns, run_state[ledger.RETRY_MOST_NS])
    gateway, entry = rows[t + ledger.TX_GATEWAY], rows[t + ledger.TX_ENTRY]
    if entry >= 0:
        site = column(run_state, kernel.SITE_OF)
        wait_ns += column(run_state, kernel.LATENCY)[site[entry] * run_state[kernel.SITES] + site[gateway]]
    rows[t + ledger.TX_ENTRY] = -1  # with its client, who asks nobody else meanwhile
    ready_push(run_state, run_state[kernel.NOW] + wait_ns, events.CLIENT, gateway, tx)


@compiled
def client_acts(run_state, gateway, argument):
    """A client sends a transaction (>= 0) that was refused again, or having thought submits one of class -1 - argument.

    What it sends again is the same transaction: its latency counts from when it was first submitted.
    """
    if argument < 0:
        submit_one(run_state, gateway, -1 - argument)
        return
    rows = column(run_state, ledger.TX)
    t = argument * ledger.TX_WIDTH
    if (
        run_state[ledger.RETRIES_MAX] > 0
        and column(run_state, ledger.TX_MORE)[argument * ledger.TX_MORE_WIDTH + ledger.TX_REFUSALS] > 0
    ):
        run_state[ledger.RETRIED] += 1  # else it met a conflict, and nobody has refused it yet
    entry = _entry_of(run_state, gateway)
    bytes_ = column(run_state, ledger.CLASS)[rows[t + ledger.TX_CLASS] * ledger.CLASS_WIDTH + ledger.CLASS_BYTES]
    rows[t + ledger.TX_ENTRY] = entry
    if run_state[ledger.ENDORSES] and entry >= 0:
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
    classes = column(run_state, ledger.CLASS)
    peer = column(run_state, ledger.PEER)
    for class_ in range(run_state[ledger.CLASSES]):
        c = class_ * ledger.CLASS_WIDTH
        answered = classes[c + ledger.CLASS_ACKED] - classes[c + ledger.CLASS_FOLLOWED]
        classes[c + ledger.CLASS_FOLLOWED] = classes[c + ledger.CLASS_ACKED]
        if classes[c + ledger.CLASS_ASKS] == 0:
            continue
        for _ in range(answered):
            wait_ns = classes[c + ledger.CLASS_THINK_NS]
            if wait_ns == 0:
                submit_one(run_state, gateway, class_)
                continue
            if classes[c + ledger.CLASS_THINK_DRAWN]:
                thoughts = peer[gateway * ledger.PEER_WIDTH + ledger.THOUGHTS]
                peer[gateway * ledger.PEER_WIDTH + ledger.THOUGHTS] = thoughts + 1
                state = join(join(join(join(0, run_state[kernel.SEED]), THINK), gateway), thoughts)
                wait_ns = exponential_ns(state, wait_ns, column(run_state, ledger.THINK_QUANTILE))
            ready_push(run_state, run_state[kernel.NOW] + wait_ns, events.CLIENT, gateway, -1 - class_)


@compiled
def holds(run_state, tx, node):
    """Whether a node's mempool holds a transaction."""
    at = tx * run_state[kernel.BITS_WORDS] + (node >> 6)
    return (column(run_state, ledger.TX_HELD)[at] >> (node & 63)) & 1 == 1


@compiled
def _enough_hold(run_state, tx):
    """Whether one more than a third of the voters, and as many correct ones, hold a transaction in their mempools.

    Fewer cannot replace a leader that never heard of it; whoever lies may keep it to itself.
    """
    peer = column(run_state, ledger.PEER)
    missing = (run_state[kernel.VOTERS] - 1) // 3 + 1
    for node in range(run_state[kernel.VOTERS]):
        if holds(run_state, tx, node) and peer[node * ledger.PEER_WIDTH + ledger.APART] == 0:
            missing -= 1
            if missing == 0:
                return True
    return False


@compiled
def _next_entry(run_state, gateway, after):
    """The next voter that runs, if the gateway does, or -1: a client without an answer asks them in turn."""
    node = column(run_state, kernel.NODE)
    if (
        node[gateway * post.NODE_WIDTH + post.UP] == 0
        or column(run_state, ledger.PEER)[gateway * ledger.PEER_WIDTH + ledger.ENTRY] < 0
    ):
        return np.int64(-1)
    for step in range(run_state[kernel.VOTERS]):
        entry = (after + 1 + step) % run_state[kernel.VOTERS]
        if node[entry * post.NODE_WIDTH + post.UP]:
            return np.int64(entry)
    return np.int64(-1)


@compiled
def handed_in_by(run_state, tx):
    """Who passes a transaction to its entry voter: its client's gateway, or the peer through which it was endorsed."""
    if run_state[ledger.ENDORSES]:
        return column(run_state, ledger.TX_MORE)[tx * ledger.TX_MORE_WIDTH + ledger.TX_PEER]
    return column(run_state, ledger.TX)[tx * ledger.TX_WIDTH + ledger.TX_GATEWAY]


@compiled
def _next_peer(run_state, tx):
    """The peer that a client asks about its decided transaction: its own, or the next that has executed it."""
    node, peers, more = (
        column(run_state, kernel.NODE),
        column(run_state, ledger.PEER),
        column(run_state, ledger.TX_MORE),
    )
    decided = column(run_state, ledger.TX)[tx * ledger.TX_WIDTH + ledger.TX_DECIDED]
    m = tx * ledger.TX_MORE_WIDTH
    own = more[m + ledger.TX_PEER] - run_state[ledger.PEER_FIRST]
    for step in range(run_state[ledger.PEERS]):
        peer = run_state[ledger.PEER_FIRST] + (own + step) % run_state[ledger.PEERS]
        if (
            node[peer * post.NODE_WIDTH + post.UP]
            and peers[peer * ledger.PEER_WIDTH + ledger.EXECUTED_HEIGHT] >= decided
        ):
            more[m + ledger.TX_PEER] = peer
            return peer
    return np.int64(-1)


@compiled
def _loses_patience(run_state, since_ns, before_ns):
    """Whether a client asks again now: after 1, 2, 4, 8, 16, 24 ... periods, of which one began at `before_ns`.

    Asking every period would double what an overloaded network carries, and more of it every period.
    """
    periods = (run_state[kernel.NOW] - since_ns) // (run_state[kernel.NOW] - before_ns)
    return periods & (periods - 1) == 0 if periods < _PERIODS_MAX else periods % _PERIODS_MAX == 0


@compiled
def _next_without(run_state, tx, after):
    """The next voter that runs and does not hold a transaction, or -1."""
    node = column(run_state, kernel.NODE)
    for step in range(run_state[kernel.VOTERS]):
        voter = (after + 1 + step) % run_state[kernel.VOTERS]
        if node[voter * post.NODE_WIDTH + post.UP] and not holds(run_state, tx, voter):
            return np.int64(voter)
    return np.int64(-1)


@compiled
def _hand_in_again(run_state, tx, entry):
    """A client sends its request to another voter."""
    class_ = column(run_state, ledger.TX)[tx * ledger.TX_WIDTH + ledger.TX_CLASS] * ledger.CLASS_WIDTH
    bytes_ = column(run_state, ledger.CLASS)[class_ + ledger.CLASS_BYTES]
    send_tx(run_state, tx, handed_in_by(run_state, tx), entry, bytes_, True)


@compiled
def submit_again(run_state, tx, before_ns):
    """A client that has waited since before a time asks again: another voter, unless enough hold its transaction.

    Its entry voter may lie, or crashes emptied the mempools, and only a block that may never be decided contains it.
    Returns the voter whom it asks if the transaction is decided and only the answer was lost, or -1.
    """
    t = tx * ledger.TX_WIDTH
    rows, peer = column(run_state, ledger.TX), column(run_state, ledger.PEER)
    gateway = rows[t + ledger.TX_GATEWAY]
    nowhere = rows[t + ledger.TX_ENTRY] == ledger.NO_ENTRY
    if rows[t + ledger.TX_REFS] <= 0 or rows[t + ledger.TX_SUBMIT] > before_ns or nowhere:
        return np.int64(-1)
    if not _loses_patience(run_state, rows[t + ledger.TX_SUBMIT], before_ns):
        return np.int64(-1)
    if rows[t + ledger.TX_DECIDED] > 0:
        if not _asks(run_state, rows[t + ledger.TX_CLASS]):
            return np.int64(-1)
        if run_state[ledger.ENDORSES]:
            return _next_peer(run_state, tx)
        entry = _next_entry(run_state, gateway, rows[t + ledger.TX_ENTRY])
        if entry < 0:
            return np.int64(-1)
        rows[t + ledger.TX_ENTRY] = entry
        if peer[entry * ledger.PEER_WIDTH + ledger.TIP_HEIGHT] >= rows[t + ledger.TX_DECIDED]:
            return entry
        _hand_in_again(run_state, tx, entry)  # who does not know that it is decided waits for it from now on
        return np.int64(-1)
    if _enough_hold(run_state, tx):
        waited = (run_state[kernel.NOW] - rows[t + ledger.TX_SUBMIT]) // (run_state[kernel.NOW] - before_ns)
        # They may not be those who decide (a group), or their leader may be a liar whom too few suspect: tell others.
        other = _next_without(run_state, tx, rows[t + ledger.TX_ENTRY]) if waited >= _PATIENT else np.int64(-1)
        if other >= 0 and _next_entry(run_state, gateway, other) >= 0:
            rows[t + ledger.TX_ENTRY] = other
            _hand_in_again(run_state, tx, other)
        return np.int64(-1)
    if rows[t + ledger.TX_ENTRY] == ledger.EVERY_ENTRY:  # crashes made all of them forget
        for entry in range(run_state[kernel.VOTERS]):
            _hand_in_again(run_state, tx, np.int64(entry))
        return np.int64(-1)
    entry = _next_entry(run_state, gateway, rows[t + ledger.TX_ENTRY])
    if entry >= 0 and entry != rows[t + ledger.TX_ENTRY]:
        rows[t + ledger.TX_ENTRY] = entry
        _hand_in_again(run_state, tx, entry)
    return np.int64(-1)


@compiled
def submit_next(run_state, stream):
    """Submit the stream's transaction that is due; returns the time of the next one or -1 at the end."""
    s = stream * ledger.STREAM_WIDTH
    rows = column(run_state, ledger.STREAM)
    position = rows[s + ledger.STREAM_POS]
    count = rows[s + ledger.STREAM_LEN]
    times = _pointer(rows[s + ledger.STREAM_TIMES])
    class_ = rows[s + ledger.STREAM_CLASS]
    if rows[s + ledger.STREAM_EACH] != 0:
        class_ += _pointer(rows[s + ledger.STREAM_EACH])[position]
    submit_one(run_state, rows[s + ledger.STREAM_GATEWAY], class_)
    rows[s + ledger.STREAM_POS] = position + 1
    if position + 1 < count:
        return times[position + 1]
    return np.int64(-1)
