"""The post office: what happens to one message between the sender's decision and the receiver's.

In this order, each stage a first-in first-out queue that a message enters when it leaves the one before:

1. the sender's signing thread (sign_ns once per message, however many copies);
2. the sender's NIC, size / bandwidth per copy, copies in the order of the group;
3. the link: latency between the two sites, jitter, loss, link rules; in order if the link is ordered;
4. the receiver's NIC, size / bandwidth;
5. the receiver's verification workers (skipped by messages that need no verification);
6. the receiver's consensus thread, in order of arrival: handle_ns.

No stage looks back, so everything from stage 4 on is settled the moment a copy arrives, and a message costs
one entry in the calendar. The copies of a message share one *envelope*. A calendar entry refers to an envelope
(or to a transaction, see sim.ledger) and a receiver.

Rules: a copy whose link is down when it is sent or when it would arrive is dropped; so is a copy that arrives
at a node that is down. What a node sent before it crashed stays on its way. A crash empties the queues of
stages 4 to 6 (see sim.engine).
"""

from __future__ import annotations

import numpy as np

from sim.kernel.calendar import BUCKETS, append_to_bucket, calendar_push, count_appended
from sim.kernel.chance import DUPLICATE, JITTER, LOSS, TABLE, below, join
from sim.kernel.desk import (
    BORDERS,
    BYTES_ABROAD,
    BYTES_SENT,
    CAL_CURRENT,
    CAL_SHIFT,
    DELIVERED,
    DIGEST_SUM,
    DROPPED,
    DUPLICATED,
    ENVELOPE,
    ENVELOPE_FREE,
    ENVELOPES_FREE,
    GROUP_MEMBER,
    GROUP_START,
    JITTER_LOW_NS,
    JITTER_MODE,
    JITTER_SPAN_NS,
    KIND_COUNT,
    LAST_ARRIVAL,
    LATENCY,
    LINK_RULE,
    LINKS_CHANGED,
    LOG,
    LOG_LEN,
    LOG_ON,
    LOSS_Q32,
    NODE,
    NODES,
    NOW,
    ORDERED,
    QUANTILE,
    RETRANSMIT_NS,
    RULE,
    RULE_COPIES,
    RULES_ACTIVE,
    SENT,
    SIDE,
    SITE_OF,
    SITES,
    TALLY,
    WORKER_FREE,
    WORKERS,
    column,
    compiled,
    inlined,
    length,
)
from sim.kernel.rules import apply_rules, begin_message, meets_rules
from sim.kernel.tally import REFERENCES, ROW

# A node's row: the first two cache lines are what every message touches.
NODE_WIDTH = 32
RX_FREE, RX_PS, VERIFY_FREE, THREAD_FREE = 0, 1, 2, 3  # when each queue is free, ns; picoseconds per byte
UP, INCARNATION, CPU_Q10, GUARD = 4, 5, 6, 7
RX_BUSY, VERIFY_BUSY, THREAD_BUSY, RX_WAIT, CPU_WAIT, RX_BYTES = 8, 9, 10, 11, 12, 13
TX_FREE, TX_PS, SIGN_FREE, TX_BUSY, SIGN_BUSY, TX_BYTES, TX_WAIT = 16, 17, 18, 19, 20, 21, 22
DISK_FREE, DISK_BUSY, DISK_Q10, EXECUTE_FREE, EXECUTE_BUSY = 23, 24, 25, 26, 27
PROGRESS_NS, PROGRESS_NUMBER = 28, 29  # last progress and how often, for the progress timer
RX_COUNT = 14
PROGRESS_TOKEN = 31  # which progress timer is the current one

# An envelope.
ENVELOPE_WIDTH = 16
REFS, SRC, STATEMENT, SIZE, VERIFY_NS, HANDLE_NS, VOTER, KIND = 0, 1, 2, 3, 4, 5, 6, 7
KEY, REACTION, SENT_NS, ARG = 8, 9, 10, 11
LETTER, REPLY, FLOOD = -1, -2, -3  # values of STATEMENT that are not a tally row

KINDS = 64  # message types of a run
KIND_WIDTH = 4
COUNT_SENT, COUNT_BYTES, COUNT_SIGNED, COUNT_DROPPED = 0, 1, 2, 3

RULE_WIDTH = 8
RULE_DOWN, RULE_ADD_NS, RULE_LOSS_Q32, RULE_DUPLICATE_Q32, RULE_HITS, RULE_SPAN_NS = 0, 1, 2, 3, 4, 5

NO_JITTER, ADDED_JITTER, PROPORTIONAL_JITTER, TABLE_JITTER = 0, 1, 2, 3

LOG_WIDTH = (
    12  # sent, source, destination, kind, statement, arrived, received, verified, done, size, fate, key
)
FATE_DELIVERED, FATE_LOST_SENDING, FATE_LOST_ARRIVING, FATE_RECEIVER_DOWN, FATE_RULED_OUT = 0, 1, 2, 3, 4

DST_BITS = 20
_DST_MASK = (1 << DST_BITS) - 1


@compiled
def envelope_ref(envelope, dst):
    """Calendar reference of a copy of an envelope."""
    return (np.int64(envelope) << (DST_BITS + 1)) | (np.int64(dst) << 1)


@compiled
def ref_dst(ref):
    """Receiver of a calendar reference."""
    return (ref >> 1) & _DST_MASK


@compiled
def ref_index(ref):
    """Envelope or transaction of a calendar reference."""
    return ref >> (DST_BITS + 1)


@compiled
def new_envelope(desk, src, kind, statement, size, verify_ns, handle_ns, voter, key, reaction, arg):
    """Take an envelope from the free list (the caller has made sure there is one) with no copies yet.

    `voter`: whose vote it is, if it is one.
    """
    free = desk[ENVELOPES_FREE] - 1
    desk[ENVELOPES_FREE] = free
    envelope = column(desk, ENVELOPE_FREE)[free]
    e = envelope * ENVELOPE_WIDTH
    row = column(desk, ENVELOPE)
    row[e + REFS] = 0
    row[e + SRC] = src
    row[e + STATEMENT] = statement
    row[e + SIZE] = size
    row[e + VERIFY_NS] = verify_ns
    row[e + HANDLE_NS] = handle_ns
    row[e + VOTER] = voter
    row[e + KIND] = kind
    row[e + KEY] = np.int64(key)
    row[e + REACTION] = reaction
    row[e + SENT_NS] = desk[NOW]
    row[e + ARG] = arg
    if statement >= 0:
        column(desk, TALLY)[statement * ROW + REFERENCES] += 1
    return envelope


@inlined
def drop_reference(desk, envelope):
    """One copy fewer; returns True if it was the last and the envelope is free again."""
    row = column(desk, ENVELOPE)
    e = envelope * ENVELOPE_WIDTH
    refs = row[e + REFS] - 1
    row[e + REFS] = refs
    if refs > 0:
        return False
    if row[e + STATEMENT] >= 0:
        column(desk, TALLY)[row[e + STATEMENT] * ROW + REFERENCES] -= 1
    column(desk, ENVELOPE_FREE)[desk[ENVELOPES_FREE]] = envelope
    desk[ENVELOPES_FREE] += 1
    return True


@compiled
def jitter_ns(mode, low_ns, span, table, base_ns, draw):
    """What is added to a latency of `base_ns`: see the modes above. May be negative."""
    if mode == ADDED_JITTER:  # uniform in [low, low + span]
        return low_ns + below(draw, span + 1)
    if mode == PROPORTIONAL_JITTER:  # uniform in [0, span/2**20 of the latency]
        return (((base_ns * span) >> 20) * np.int64(draw >> np.uint64(40))) >> 24
    position = below(draw, TABLE)
    q = table[position] + (((table[position + 1] - table[position]) * np.int64(draw & np.uint64(0xFFFFF))) >> 20)
    return ((base_ns * q) >> 20) - base_ns


@compiled
def _lost_ns(desk, key, dst, loss_q32, salt):
    """Delay by retransmissions on an ordered link, or -1 for a datagram that is lost."""
    wait = np.int64(0)
    step = desk[RETRANSMIT_NS]
    tries = 0
    while True:
        draw = join(join(join(key, LOSS), dst), tries * 4 + salt)
        if np.int64(draw >> np.uint64(32)) >= loss_q32:
            return wait
        if desk[RETRANSMIT_NS] == 0 or tries >= 15:
            return np.int64(-1)
        wait += step
        step *= 2
        tries += 1


@compiled
def _log(desk, sent, src, dst, kind, statement, arrived, received, verified, done, size, fate, key):
    row = desk[LOG_LEN] * LOG_WIDTH
    log = column(desk, LOG)
    if row + LOG_WIDTH > length(desk, LOG):
        return
    log[row] = sent
    log[row + 1] = src
    log[row + 2] = dst
    log[row + 3] = kind
    log[row + 4] = statement
    log[row + 5] = arrived
    log[row + 6] = received
    log[row + 7] = verified
    log[row + 8] = done
    log[row + 9] = size
    log[row + 10] = fate
    log[row + 11] = key
    desk[LOG_LEN] += 1


@compiled
def _ruled(desk, rule, key, dst, arrives, ref):
    """A link rule in force: the new arrival time, or -1 if the copy is dropped. May enter a duplicate."""
    r = rule * RULE_WIDTH
    rules = column(desk, RULE)
    rules[r + RULE_HITS] += 1
    if rules[r + RULE_DOWN]:
        return np.int64(-1)
    arrives += rules[r + RULE_ADD_NS]
    if rules[r + RULE_SPAN_NS] > 0:
        arrives += below(join(join(key, JITTER + 64), dst), rules[r + RULE_SPAN_NS] + 1)
    if rules[r + RULE_LOSS_Q32] > 0:
        wait = _lost_ns(desk, key, dst, rules[r + RULE_LOSS_Q32], 1)
        if wait < 0:
            return np.int64(-1)
        arrives += wait
    return arrives


@compiled
def _crosses(desk, src, dst):
    """Whether a copy from `src` to `dst` leaves home."""
    side = column(desk, SIDE)
    return side[src] == 0 and side[dst] == 1


@compiled
def put_on_link(desk, key, ref, src, dst, leaves, kind, statement, size):
    """Stage 3 for one copy that leaves the sender's NIC at `leaves`. Returns copies entered: 0, 1, or more."""
    site = column(desk, SITE_OF)
    base = column(desk, LATENCY)[site[src] * desk[SITES] + site[dst]]
    arrives = leaves + base
    if desk[JITTER_MODE] != NO_JITTER:
        extra = jitter_ns(
            desk[JITTER_MODE], desk[JITTER_LOW_NS], desk[JITTER_SPAN_NS], column(desk, QUANTILE), base, join(key, dst)
        )
        arrives = max(leaves, arrives + extra)
    desk[SENT] += 1
    if desk[BORDERS] and _crosses(desk, src, dst):
        desk[BYTES_ABROAD] += size
    lost = False
    if desk[LOSS_Q32] > 0:
        wait = _lost_ns(desk, key, dst, desk[LOSS_Q32], 0)
        lost = wait < 0
        arrives += wait
    rule = np.int64(0)
    if desk[LINKS_CHANGED]:
        rule = column(desk, LINK_RULE)[src * desk[NODES] + dst]
        if rule > 0 and not lost:
            ruled = _ruled(desk, rule, key, dst, arrives, ref)
            lost = ruled < 0
            arrives = ruled
    if lost:
        _dropped(desk, kind)
        if desk[LOG_ON]:
            _log(desk, desk[NOW], src, dst, kind, statement, leaves, 0, 0, 0, size, FATE_LOST_SENDING, key)
        return 0
    link = src * desk[NODES] + dst
    if desk[ORDERED]:
        arrives = max(arrives, column(desk, LAST_ARRIVAL)[link])
    moved = arrives
    copies = 1
    if desk[RULES_ACTIVE] > 0 and meets_rules(desk, dst):
        moved = apply_rules(desk, key, dst, arrives)
        if moved < 0:
            _dropped(desk, kind)
            if desk[LOG_ON]:
                _log(desk, desk[NOW], src, dst, kind, statement, leaves, 0, 0, 0, size, FATE_RULED_OUT, key)
            return 0
        copies += desk[RULE_COPIES]
    if desk[ORDERED]:
        column(desk, LAST_ARRIVAL)[link] = arrives
    if rule > 0:
        chance = column(desk, RULE)[rule * RULE_WIDTH + RULE_DUPLICATE_Q32]
        if chance > 0 and np.int64(join(join(key, DUPLICATE), dst) >> np.uint64(32)) < chance:
            copies += 1
    _enter(desk, moved, ref, copies)
    return copies


@compiled
def _dropped(desk, kind):
    desk[DROPPED] += 1
    column(desk, KIND_COUNT)[kind * KIND_WIDTH + COUNT_DROPPED] += 1


@compiled
def _enter(desk, arrives, ref, copies):
    """Put a copy on its way, and those that double it; the first has been counted as sent."""
    for _ in range(copies):
        calendar_push(desk, arrives, ref)
    desk[SENT] += copies - 1
    desk[DUPLICATED] += copies - 1


@compiled
def sign(desk, src, sign_ns):
    """Stage 1: returns when the message is signed."""
    node = column(desk, NODE)
    s = src * NODE_WIDTH
    cost = (sign_ns * node[s + CPU_Q10]) >> 10
    signed = max(desk[NOW], node[s + SIGN_FREE]) + cost
    node[s + SIGN_FREE] = signed
    node[s + SIGN_BUSY] += cost
    return signed


@compiled
def transmit(desk, src, ready, size):
    """Stage 2 for one copy that is ready at `ready`: returns when it has left the NIC."""
    node = column(desk, NODE)
    s = src * NODE_WIDTH
    node[s + TX_BYTES] += size
    if node[s + TX_PS] == 0:
        return max(ready, node[s + TX_FREE])
    cost = (size * node[s + TX_PS]) // 1000
    start = max(ready, node[s + TX_FREE])
    node[s + TX_WAIT] += start - ready
    node[s + TX_BUSY] += cost
    node[s + TX_FREE] = start + cost
    return start + cost


@compiled
def count_kind(desk, kind, messages, size):
    """Count one signature and the copies of a message of some type."""
    count = column(desk, KIND_COUNT)
    count[kind * KIND_WIDTH + COUNT_SENT] += messages
    count[kind * KIND_WIDTH + COUNT_BYTES] += messages * size
    count[kind * KIND_WIDTH + COUNT_SIGNED] += 1
    desk[BYTES_SENT] += messages * size


@compiled
def send_one(desk, envelope, src, dst, sign_ns):
    """Send an envelope to one node. Returns the copies entered; an envelope without any is freed."""
    e = envelope * ENVELOPE_WIDTH
    row = column(desk, ENVELOPE)
    size, kind, statement = row[e + SIZE], row[e + KIND], row[e + STATEMENT]
    begin_message(desk, src, kind)
    leaves = transmit(desk, src, sign(desk, src, sign_ns), size)
    copies = put_on_link(
        desk, np.uint64(row[e + KEY]), envelope_ref(envelope, dst), src, dst, leaves, kind, statement, size
    )
    count_kind(desk, kind, 1, size)
    row[e + REFS] = copies
    if copies == 0:
        row[e + REFS] = 1
        drop_reference(desk, envelope)
    return copies


@compiled
def _copies_one_by_one(desk, envelope, src, group, ready):
    """Stages 2 and 3 for every member of a group, when copies can be lost or ruled. Returns (entered, sent)."""
    e = envelope * ENVELOPE_WIDTH
    row = column(desk, ENVELOPE)
    size, kind, statement = row[e + SIZE], row[e + KIND], row[e + STATEMENT]
    key = np.uint64(row[e + KEY])
    starts = column(desk, GROUP_START)
    members = column(desk, GROUP_MEMBER)
    copies = 0
    sent = 0
    for i in range(starts[group], starts[group + 1]):
        dst = members[i]
        if dst != src:
            leaves = transmit(desk, src, ready, size)
            copies += put_on_link(desk, key, envelope_ref(envelope, dst), src, dst, leaves, kind, statement, size)
            sent += 1
    return copies, sent


@compiled
def _copies_in_a_row(desk, envelope, src, group, ready):
    """The same when no link is lossy or ruled: one loop with everything at hand, for it runs once per message."""
    e = envelope * ENVELOPE_WIDTH
    size = column(desk, ENVELOPE)[e + SIZE]
    key = np.uint64(column(desk, ENVELOPE)[e + KEY])
    node = column(desk, NODE)
    s = src * NODE_WIDTH
    limited = node[s + TX_PS] > 0
    cost = (size * node[s + TX_PS]) // 1000
    free = max(ready, node[s + TX_FREE]) if limited else ready
    mode, low_ns, span = desk[JITTER_MODE], desk[JITTER_LOW_NS], desk[JITTER_SPAN_NS]
    quantiles = column(desk, QUANTILE)
    site = column(desk, SITE_OF)
    latency = column(desk, LATENCY)
    from_here = site[src] * desk[SITES]
    ordered = desk[ORDERED]
    last = column(desk, LAST_ARRIVAL)
    link = src * desk[NODES]
    shift, current = desk[CAL_SHIFT], desk[CAL_CURRENT]
    ruled = desk[RULES_ACTIVE] > 0
    starts = column(desk, GROUP_START)
    members = column(desk, GROUP_MEMBER)
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
        if mode != NO_JITTER:
            arrives = max(free, arrives + jitter_ns(mode, low_ns, span, quantiles, base, join(key, dst)))
        if ordered:
            arrives = max(arrives, last[link + dst])
        if ruled and meets_rules(desk, dst):
            moved = apply_rules(desk, key, dst, arrives)
            if moved < 0:
                _dropped(desk, column(desk, ENVELOPE)[e + KIND])
                continue
            if ordered:
                last[link + dst] = arrives
            _enter(desk, moved, envelope_ref(envelope, dst), 1 + desk[RULE_COPIES])
            copies += 1 + desk[RULE_COPIES]
            continue
        if ordered:
            last[link + dst] = arrives
        bucket = arrives >> shift
        if 0 < bucket - current < BUCKETS:
            append_to_bucket(desk, bucket, arrives, envelope_ref(envelope, dst))
            appended += 1
        else:
            calendar_push(desk, arrives, envelope_ref(envelope, dst))
        copies += 1
    count_appended(desk, appended)
    if desk[BORDERS]:
        for i in range(starts[group], starts[group + 1]):
            if members[i] != src and _crosses(desk, src, members[i]):
                desk[BYTES_ABROAD] += size
    desk[SENT] += sent
    node[s + TX_BYTES] += sent * size
    if limited:
        node[s + TX_FREE] = free
        node[s + TX_BUSY] += sent * cost
        node[s + TX_WAIT] += wait_ns
    return copies, sent


@compiled
def send_group(desk, envelope, src, group, sign_ns):
    """Send an envelope to every member of a group but the sender. Returns the copies entered."""
    e = envelope * ENVELOPE_WIDTH
    row = column(desk, ENVELOPE)
    size, kind = row[e + SIZE], row[e + KIND]
    begin_message(desk, src, kind)
    ready = sign(desk, src, sign_ns)
    if desk[LOSS_Q32] > 0 or desk[LINKS_CHANGED] or desk[LOG_ON]:
        copies, sent = _copies_one_by_one(desk, envelope, src, group, ready)
    else:
        copies, sent = _copies_in_a_row(desk, envelope, src, group, ready)
    count_kind(desk, kind, sent, size)
    row[e + REFS] = copies
    if copies == 0:
        row[e + REFS] = 1
        drop_reference(desk, envelope)
    return copies


@compiled
def link_is_down(desk, src, dst):
    """Whether the link from `src` to `dst` is cut at this moment."""
    if desk[LINKS_CHANGED] == 0:
        return False
    rule = column(desk, LINK_RULE)[src * desk[NODES] + dst]
    if rule == 0:
        return False
    if column(desk, RULE)[rule * RULE_WIDTH + RULE_DOWN] == 0:
        return False
    column(desk, RULE)[rule * RULE_WIDTH + RULE_HITS] += 1
    return True


@inlined
def verified_at(desk, dst, received, cost):
    """Stage 5: when a message received at `received` is verified, `cost` ns on the first free worker."""
    node = column(desk, NODE)
    d = dst * NODE_WIDTH
    if desk[WORKERS] == 1:
        start = max(received, node[d + VERIFY_FREE])
        node[d + VERIFY_FREE] = start + cost
    else:
        free = column(desk, WORKER_FREE)
        worker = dst * desk[WORKERS]
        last = worker + desk[WORKERS] - 1
        start = max(received, free[worker])
        # Which worker it is does not matter: times are kept in ascending order, and the first is the next to be free.
        while worker < last and free[worker + 1] < start + cost:
            free[worker] = free[worker + 1]
            worker += 1
        free[worker] = start + cost
    node[d + VERIFY_BUSY] += cost
    node[d + CPU_WAIT] += start - received
    return start + cost


@inlined
def receive(desk, time, dst, size, verify_ns):
    """Stages 4 and 5: returns (received, verified) times of a copy that arrives at `time`."""
    node = column(desk, NODE)
    d = dst * NODE_WIDTH
    received = time
    if node[d + RX_PS] > 0:
        cost = (size * node[d + RX_PS]) // 1000
        start = max(time, node[d + RX_FREE])
        received = start + cost
        node[d + RX_FREE] = received
        node[d + RX_BUSY] += cost
        node[d + RX_WAIT] += start - time
    node[d + RX_BYTES] += size
    node[d + RX_COUNT] += 1
    desk[DELIVERED] += 1
    desk[DIGEST_SUM] += (received ^ (np.int64(dst) << 48)) * np.int64(0x9E3779B97F4A7C1) + size
    verified = received
    if verify_ns > 0:
        verified = verified_at(desk, dst, received, (verify_ns * node[d + CPU_Q10]) >> 10)
    return received, verified


@inlined
def hand_over(desk, dst, verified, handle_ns):
    """Stage 6: when the consensus thread has handled a message verified at `verified`."""
    node = column(desk, NODE)
    d = dst * NODE_WIDTH
    cost = (handle_ns * node[d + CPU_Q10]) >> 10
    start = max(verified, node[d + THREAD_FREE])
    node[d + THREAD_FREE] = start + cost
    node[d + THREAD_BUSY] += cost
    node[d + CPU_WAIT] += start - verified
    return start + cost
