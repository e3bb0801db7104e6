"""The message pipeline, stages 1 to 3: a message is signed, leaves the NIC copy by copy, and is put on its links.

What links and rules do to a copy (loss, delay, doubles, order) is settled here: when it is sent or, if it shares its
sender's card with others, when it leaves (sim.kernel.sharing).
"""

from __future__ import annotations

import numpy as np

from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.kernel.calendar import BUCKETS, append_to_bucket, calendar_push, count_appended
from sim.kernel.chance import DUPLICATE, JITTER, LOOK, LOSS, TABLE, below, join
from sim.kernel.post import _log, drop_reference, envelope_ref, ref_index
from sim.kernel.rules import apply_rules, begin_message, meets_rules
from sim.kernel.run_state import column, compiled
from sim.kernel.sharing import FIFO, queue_envelope, receivers_of


@compiled
def jitter_ns(mode, low_ns, span, table, base_ns, draw):
    """What is added to a latency of `base_ns`: see the modes above. May be negative."""
    if mode == post.ADDED_JITTER:  # uniform in [low, low + span]
        return low_ns + below(draw, span + 1)
    if mode == post.PROPORTIONAL_JITTER:  # uniform in [0, span/2**20 of the latency]
        return (((base_ns * span) >> 20) * np.int64(draw >> np.uint64(40))) >> 24
    position = below(draw, TABLE)
    q = table[position] + (((table[position + 1] - table[position]) * np.int64(draw & np.uint64(0xFFFFF))) >> 20)
    return ((base_ns * q) >> 20) - base_ns


@compiled
def _lost_ns(run_state, key, dst, loss_q32, salt):
    """Delay by retransmissions on an ordered link, or -1 for a datagram that is lost."""
    wait = np.int64(0)
    step = run_state[kernel.RETRANSMIT_NS]
    tries = 0
    while True:
        draw = join(join(join(key, LOSS), dst), tries * 4 + salt)
        if np.int64(draw >> np.uint64(32)) >= loss_q32:
            return wait
        if run_state[kernel.RETRANSMIT_NS] == 0 or tries >= 15:
            return np.int64(-1)
        wait += step
        step *= 2
        tries += 1


@compiled
def _ruled(run_state, rule, key, dst, leaves, arrives, size):
    """A link rule in force: the new arrival time, or -1 if the copy is dropped."""
    r = rule * post.RULE_WIDTH
    rules = column(run_state, kernel.RULE)
    rules[r + post.RULE_HITS] += 1
    if rules[r + post.RULE_DOWN]:
        return np.int64(-1)
    arrives += rules[r + post.RULE_ADD_NS]
    if rules[r + post.RULE_SPAN_NS] > 0:
        arrives += below(join(join(key, JITTER + 64), dst), rules[r + post.RULE_SPAN_NS] + 1)
    if rules[r + post.RULE_LOSS_Q32] > 0:
        wait = _lost_ns(run_state, key, dst, rules[r + post.RULE_LOSS_Q32], 1)
        if wait < 0:
            return np.int64(-1)
        arrives += wait
    if rules[r + post.RULE_CAP] > 0:
        caps, c = column(run_state, kernel.LINK_CAP), rules[r + post.RULE_CAP] * post.CAP_WIDTH
        through = max(leaves, caps[c + post.CAP_FREE]) + (size * caps[c + post.CAP_PS]) // 1000
        caps[c + post.CAP_FREE] = through
        arrives += through - leaves
    return arrives


@compiled
def _crosses(run_state, src, dst):
    """Whether a copy from `src` to `dst` leaves home."""
    side = column(run_state, kernel.SIDE)
    return side[src] == 0 and side[dst] == 1


@compiled
def _sent_ns(run_state, ref):
    """When the sender sent a copy; of a transaction, when it left."""
    if ref & 1:
        return run_state[kernel.NOW]
    return column(run_state, kernel.ENVELOPE)[ref_index(ref) * post.ENVELOPE_WIDTH + post.SENT_NS]


@compiled
def _flushed(run_state, key, ref, src, dst, ready):
    """When a message that is ready for a connection leaves: with the flush that its first byte, or another's, set off.

    What it tells of itself goes in at once and sets off the flush; itself it goes in when the sender looks next, and
    waits for another flush if that one is over. A transaction is passed on as it comes.
    """
    at = src * run_state[kernel.NODES] + dst
    flush = column(run_state, kernel.FLUSH_AT)
    if flush[at] < ready:
        flush[at] = ready + run_state[kernel.FLUSH_NS]
    if ref & 1 == 0 and run_state[kernel.LOOK_NS] > 0:
        looked = ready + below(join(join(key, LOOK), dst), run_state[kernel.LOOK_NS])
        if looked > flush[at]:
            flush[at] = looked + run_state[kernel.FLUSH_NS]
    return flush[at]


@compiled
def put_on_link(run_state, key, ref, src, dst, leaves, kind, statement, size):
    """Stage 3 for one copy that leaves the sender's NIC at `leaves`. Returns copies entered: 0, 1, or more."""
    if run_state[kernel.FLUSH_NS] > 0 and max(src, dst) < run_state[kernel.SEATS]:
        leaves = _flushed(run_state, key, ref, src, dst, leaves)
    site = column(run_state, kernel.SITE_OF)
    base = column(run_state, kernel.LATENCY)[site[src] * run_state[kernel.SITES] + site[dst]]
    arrives = leaves + base
    if run_state[kernel.WINDOW] > 0:
        back = column(run_state, kernel.LATENCY)[site[dst] * run_state[kernel.SITES] + site[src]]
        arrives += (size - 1) // run_state[kernel.WINDOW] * (base + back)
    if run_state[kernel.JITTER_MODE] != post.NO_JITTER:
        extra = jitter_ns(
            run_state[kernel.JITTER_MODE],
            run_state[kernel.JITTER_LOW_NS],
            run_state[kernel.JITTER_SPAN_NS],
            column(run_state, kernel.QUANTILE),
            base,
            join(key, dst),
        )
        arrives = max(leaves, arrives + extra)
    run_state[kernel.SENT] += 1
    if run_state[kernel.BORDERS] and _crosses(run_state, src, dst):
        run_state[kernel.BYTES_ABROAD] += size
    lost = False
    if run_state[kernel.LOSS_Q32] > 0:
        wait = _lost_ns(run_state, key, dst, run_state[kernel.LOSS_Q32], 0)
        lost = wait < 0
        arrives += wait
    rule = np.int64(0)
    if run_state[kernel.LINKS_CHANGED]:
        rule = column(run_state, kernel.LINK_RULE)[src * run_state[kernel.NODES] + dst]
        if rule > 0 and not lost:
            ruled = _ruled(run_state, rule, key, dst, leaves, arrives, size)
            lost = ruled < 0
            arrives = ruled
    if lost:
        _dropped(run_state, kind)
        if run_state[kernel.LOG_ON]:
            sent_ns = _sent_ns(run_state, ref)
            _log(run_state, sent_ns, src, dst, kind, statement, leaves, 0, 0, 0, size, post.FATE_LOST_SENDING, key)
        return 0
    link = src * run_state[kernel.NODES] + dst
    if run_state[kernel.ORDERED]:
        arrives = max(arrives, column(run_state, kernel.LAST_ARRIVAL)[link])
    moved = arrives
    copies = 1
    if run_state[kernel.RULES_ACTIVE] > 0 and meets_rules(run_state, dst):
        moved = apply_rules(run_state, key, dst, arrives)
        if moved < 0:
            _dropped(run_state, kind)
            if run_state[kernel.LOG_ON]:
                sent_ns = _sent_ns(run_state, ref)
                _log(run_state, sent_ns, src, dst, kind, statement, leaves, 0, 0, 0, size, post.FATE_RULED_OUT, key)
            return 0
        copies += run_state[kernel.RULE_COPIES]
    if run_state[kernel.ORDERED]:
        column(run_state, kernel.LAST_ARRIVAL)[link] = arrives
    if rule > 0:
        chance = column(run_state, kernel.RULE)[rule * post.RULE_WIDTH + post.RULE_DUPLICATE_Q32]
        if chance > 0 and np.int64(join(join(key, DUPLICATE), dst) >> np.uint64(32)) < chance:
            copies += 1
    _enter(run_state, moved, ref, copies)
    return copies


@compiled
def _dropped(run_state, kind):
    run_state[kernel.DROPPED] += 1
    column(run_state, kernel.KIND_COUNT)[kind * post.KIND_WIDTH + post.COUNT_DROPPED] += 1


@compiled
def _enter(run_state, arrives, ref, copies):
    """Put a copy on its way, and those that double it; the first has been counted as sent."""
    for _ in range(copies):
        calendar_push(run_state, arrives, ref)
    run_state[kernel.SENT] += copies - 1
    run_state[kernel.DUPLICATED] += copies - 1


@compiled
def sign(run_state, src, sign_ns):
    """Stage 1: returns when the message is signed."""
    node = column(run_state, kernel.NODE)
    s = src * post.NODE_WIDTH
    cost = (sign_ns * node[s + post.CRYPTO_Q10]) >> 10
    signed = max(run_state[kernel.NOW], node[s + post.SIGN_FREE]) + cost
    node[s + post.SIGN_FREE] = signed
    node[s + post.SIGN_BUSY] += cost
    return signed


@compiled
def transmit(run_state, src, ready, size):
    """Stage 2 for one copy that is ready at `ready`: returns when it has left the NIC."""
    node = column(run_state, kernel.NODE)
    s = src * post.NODE_WIDTH
    node[s + post.TX_BYTES] += size
    if node[s + post.TX_PS] == 0:
        return max(ready, node[s + post.TX_FREE])
    cost = (size * node[s + post.TX_PS]) // 1000
    start = max(ready, node[s + post.TX_FREE])
    node[s + post.TX_WAIT] += start - ready
    node[s + post.TX_BUSY] += cost
    node[s + post.TX_FREE] = start + cost
    return start + cost


@compiled
def is_shared(run_state, src):
    """Whether what a node sends goes out side by side, so that it is put on its links when it leaves."""
    return run_state[kernel.SHARING] != FIFO and column(run_state, kernel.NODE)[src * post.NODE_WIDTH + post.TX_PS] > 0


@compiled
def count_kind(run_state, kind, messages, size):
    """Count one signature and the copies of a message of some type."""
    count = column(run_state, kernel.KIND_COUNT)
    count[kind * post.KIND_WIDTH + post.COUNT_SENT] += messages
    count[kind * post.KIND_WIDTH + post.COUNT_BYTES] += messages * size
    count[kind * post.KIND_WIDTH + post.COUNT_SIGNED] += 1
    run_state[kernel.BYTES_SENT] += messages * size


@compiled
def send_one(run_state, envelope, src, dst, sign_ns):
    """Send an envelope to one node. Returns the copies entered; an envelope without any is freed."""
    e = envelope * post.ENVELOPE_WIDTH
    row = column(run_state, kernel.ENVELOPE)
    size, kind, statement = row[e + post.SIZE], row[e + post.KIND], row[e + post.STATEMENT]
    if is_shared(run_state, src):
        ready = sign(run_state, src, sign_ns)
        queue_envelope(run_state, src, envelope, dst, ready)
        count_kind(run_state, kind, 1, size)
        return np.int64(1)
    begin_message(run_state, src, kind)
    leaves = transmit(run_state, src, sign(run_state, src, sign_ns), size)
    copies = put_on_link(
        run_state, np.uint64(row[e + post.KEY]), envelope_ref(envelope, dst), src, dst, leaves, kind, statement, size
    )
    count_kind(run_state, kind, 1, size)
    row[e + post.REFS] = copies
    if copies == 0:
        row[e + post.REFS] = 1
        drop_reference(run_state, envelope)
    return copies


@compiled
def _copies_one_by_one(run_state, envelope, src, group, ready, queues):
    """Stages 2 (if it `queues`) and 3 for all members of a group, if copies can be lost. Returns (entered, sent)."""
    e = envelope * post.ENVELOPE_WIDTH
    row = column(run_state, kernel.ENVELOPE)
    size, kind, statement = row[e + post.SIZE], row[e + post.KIND], row[e + post.STATEMENT]
    key = np.uint64(row[e + post.KEY])
    starts = column(run_state, kernel.GROUP_START)
    members = column(run_state, kernel.GROUP_MEMBER)
    copies = 0
    sent = 0
    for i in range(starts[group], starts[group + 1]):
        dst = members[i]
        if dst != src:
            leaves = transmit(run_state, src, ready, size) if queues else ready
            copies += put_on_link(run_state, key, envelope_ref(envelope, dst), src, dst, leaves, kind, statement, size)
            sent += 1
    return copies, sent


@compiled
def _copies_in_a_row(run_state, envelope, src, group, ready, queues):
    """The same when no link is lossy or ruled: one loop with everything at hand, for it runs once per message."""
    e = envelope * post.ENVELOPE_WIDTH
    size = column(run_state, kernel.ENVELOPE)[e + post.SIZE]
    key = np.uint64(column(run_state, kernel.ENVELOPE)[e + post.KEY])
    node = column(run_state, kernel.NODE)
    s = src * post.NODE_WIDTH
    limited = queues and node[s + post.TX_PS] > 0
    cost = (size * node[s + post.TX_PS]) // 1000
    free = max(ready, node[s + post.TX_FREE]) if limited else ready
    mode, low_ns, span = (
        run_state[kernel.JITTER_MODE],
        run_state[kernel.JITTER_LOW_NS],
        run_state[kernel.JITTER_SPAN_NS],
    )
    quantiles = column(run_state, kernel.QUANTILE)
    site = column(run_state, kernel.SITE_OF)
    latency = column(run_state, kernel.LATENCY)
    from_here = site[src] * run_state[kernel.SITES]
    ordered = run_state[kernel.ORDERED]
    last = column(run_state, kernel.LAST_ARRIVAL)
    link = src * run_state[kernel.NODES]
    shift, current = run_state[kernel.CAL_SHIFT], run_state[kernel.CAL_CURRENT]
    ruled = run_state[kernel.RULES_ACTIVE] > 0
    starts = column(run_state, kernel.GROUP_START)
    members = column(run_state, kernel.GROUP_MEMBER)
    wait_ns = 0
    copies = 0
    sent = 0
    appended = 0
    for i in range(starts[group], starts[group + 1]):
        dst = members[i]
        if dst == src:
            continue
        sent += 1
        if limited:
            wait_ns += free - ready
            free += cost
        base = latency[from_here + site[dst]]
        arrives = free + base
        if mode != post.NO_JITTER:
            arrives = max(free, arrives + jitter_ns(mode, low_ns, span, quantiles, base, join(key, dst)))
        if ordered:
            arrives = max(arrives, last[link + dst])
        if ruled and meets_rules(run_state, dst):
            moved = apply_rules(run_state, key, dst, arrives)
            if moved < 0:
                _dropped(run_state, column(run_state, kernel.ENVELOPE)[e + post.KIND])
                continue
            if ordered:
                last[link + dst] = arrives
            _enter(run_state, moved, envelope_ref(envelope, dst), 1 + run_state[kernel.RULE_COPIES])
            copies += 1 + run_state[kernel.RULE_COPIES]
            continue
        if ordered:
            last[link + dst] = arrives
        bucket = arrives >> shift
        if 0 < bucket - current < BUCKETS:
            append_to_bucket(run_state, bucket, arrives, envelope_ref(envelope, dst))
            appended += 1
        else:
            calendar_push(run_state, arrives, envelope_ref(envelope, dst))
        copies += 1
    count_appended(run_state, appended)
    if run_state[kernel.BORDERS]:
        for i in range(starts[group], starts[group + 1]):
            if members[i] != src and _crosses(run_state, src, members[i]):
                run_state[kernel.BYTES_ABROAD] += size
    run_state[kernel.SENT] += sent
    if queues:
        node[s + post.TX_BYTES] += sent * size
    if limited:
        node[s + post.TX_FREE] = free
        node[s + post.TX_BUSY] += sent * cost
        node[s + post.TX_WAIT] += wait_ns
    return copies, sent


@compiled
def put_group(run_state, envelope, src, group, ready, queues):
    """Stages 2 and 3 of a message to a group, or 3 alone for one that leaves now. Returns copies (entered, sent)."""
    begin_message(run_state, src, column(run_state, kernel.ENVELOPE)[envelope * post.ENVELOPE_WIDTH + post.KIND])
    held = run_state[kernel.FLUSH_NS] > 0 or run_state[kernel.WINDOW] > 0
    if held or run_state[kernel.LOSS_Q32] > 0 or run_state[kernel.LINKS_CHANGED] or run_state[kernel.LOG_ON]:
        return _copies_one_by_one(run_state, envelope, src, group, ready, queues)
    return _copies_in_a_row(run_state, envelope, src, group, ready, queues)


@compiled
def send_group(run_state, envelope, src, group, sign_ns):
    """Send an envelope to every member of a group but the sender. Returns the copies entered, or queued."""
    e = envelope * post.ENVELOPE_WIDTH
    row = column(run_state, kernel.ENVELOPE)
    size, kind = row[e + post.SIZE], row[e + post.KIND]
    ready = sign(run_state, src, sign_ns)
    if is_shared(run_state, src):
        copies = receivers_of(run_state, src, -1 - group)
        if copies > 0:
            queue_envelope(run_state, src, envelope, -1 - group, ready)
            count_kind(run_state, kind, copies, size)
            return copies
    copies, sent = put_group(run_state, envelope, src, group, ready, True)
    count_kind(run_state, kind, sent, size)
    row[e + post.REFS] = copies
    if copies == 0:
        row[e + post.REFS] = 1
        drop_reference(run_state, envelope)
    return copies
