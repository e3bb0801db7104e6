"""The message pipeline: what happens to one message between the sender's decision and the receiver's.

In this order, each stage a first-in first-out queue that a message enters when it leaves the one before:

1. the sender's signing thread (sign_ns once per message, however many copies);
2. the sender's NIC, size / bandwidth per copy, copies in the order of the group;
3. the link: latency between the two sites, windows, jitter, loss, link rules; in order if the link is ordered;
4. the receiver's NIC, size / bandwidth;
5. the receiver's verification workers (skipped by messages that need no verification);
6. the receiver's consensus thread, in order of arrival: handle_ns.

No stage looks back, so everything from stage 4 on is settled the moment a copy arrives, and a message costs
one entry in the calendar. The copies of a message share one *envelope*. A calendar entry refers to an envelope
(or to a transaction, see sim.ledger) and a receiver.

Stages 1 to 3 are in sim.kernel.sending, 4 to 6 in sim.kernel.receiving; here is what they share: rows of nodes,
message types and link rules, the message log, and envelopes.

Rules: a copy whose link is down when it is sent or when it would arrive is dropped; so is a copy that arrives
at a node that is down. What a node sent before it crashed stays on its way. A crash empties the queues of
stages 4 to 6 (see sim.engine).
"""

from __future__ import annotations

import numpy as np

from sim.kernel import run_state as kernel
from sim.kernel import tally as tallies
from sim.kernel.run_state import column, compiled, inlined, length, make_capacity

# A node's row: the first two cache lines are what every message touches.
NODE_WIDTH = 32
RX_FREE, RX_PS, VERIFY_FREE, THREAD_FREE = 0, 1, 2, 3  # when each queue is free, ns; picoseconds per byte
UP, INCARNATION, CPU_Q10, GUARD = 4, 5, 6, 7
RX_BUSY, VERIFY_BUSY, THREAD_BUSY, RX_WAIT, CPU_WAIT, RX_BYTES = 8, 9, 10, 11, 12, 13
TX_FREE, TX_PS, SIGN_FREE, TX_BUSY, SIGN_BUSY, TX_BYTES, TX_WAIT = 16, 17, 18, 19, 20, 21, 22
DISK_FREE, DISK_BUSY, DISK_Q10, EXECUTE_FREE, EXECUTE_BUSY = 23, 24, 25, 26, 27
CRYPTO_Q10 = 30  # of signing and verifying, CPU_Q10 included
PROGRESS_NS, PROGRESS_NUMBER = 28, 29  # last progress and how often, for the progress timer
RX_COUNT, RX_LAST = 14, 15  # RX_LAST: when the copy that arrived last was received; kept where cards are shared
PROGRESS_TOKEN = 31  # which progress timer is the current one

# An envelope.
ENVELOPE_WIDTH = 16
REFS, SRC, STATEMENT, SIZE, VERIFY_NS, HANDLE_NS, VOTER, KIND = 0, 1, 2, 3, 4, 5, 6, 7
KEY, ACTION, SENT_NS, ARG = 8, 9, 10, 11
FLOW_NS = 12  # for how long the copy that left last was being sent, where cards are shared
MESSAGE, REPLY, FLOOD, RESULT, ENDORSEMENT = -1, -2, -3, -4, -5  # values of STATEMENT that are not a tally row

KINDS = 64  # message types of a run
KIND_WIDTH = 4
COUNT_SENT, COUNT_BYTES, COUNT_SIGNED, COUNT_DROPPED = 0, 1, 2, 3

RULE_WIDTH = 8
RULE_DOWN, RULE_ADD_NS, RULE_LOSS_Q32, RULE_DUPLICATE_Q32, RULE_HITS, RULE_SPAN_NS = 0, 1, 2, 3, 4, 5
RULE_CAP = 6  # its place in LINK_CAP; 0: it carries whatever comes

CAP_WIDTH = 2
CAP_PS, CAP_FREE = range(2)  # picoseconds per byte; when all that has been sent over it is through, ns

NO_JITTER, ADDED_JITTER, PROPORTIONAL_JITTER, TABLE_JITTER = 0, 1, 2, 3

LOG_WIDTH = 12  # sent, source, destination, kind, statement, arrived, received, verified, done, size, fate, key
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
def new_envelope(run_state, src, kind, statement, size, verify_ns, handle_ns, voter, key, action, arg):
    """Take an envelope from the free list, with no copies yet. `voter`: whose vote it is, if it is one."""
    if run_state[kernel.ENVELOPES_FREE] == 0:
        make_capacity(run_state, kernel.ENVELOPE_FREE)
    free = run_state[kernel.ENVELOPES_FREE] - 1
    run_state[kernel.ENVELOPES_FREE] = free
    envelope = column(run_state, kernel.ENVELOPE_FREE)[free]
    e = envelope * ENVELOPE_WIDTH
    row = column(run_state, kernel.ENVELOPE)
    row[e + REFS] = 0
    row[e + SRC] = src
    row[e + STATEMENT] = statement
    row[e + SIZE] = size
    row[e + VERIFY_NS] = verify_ns
    row[e + HANDLE_NS] = handle_ns
    row[e + VOTER] = voter
    row[e + KIND] = kind
    row[e + KEY] = np.int64(key)
    row[e + ACTION] = action
    row[e + SENT_NS] = run_state[kernel.NOW]
    row[e + ARG] = arg
    if statement >= 0:
        column(run_state, kernel.TALLY)[statement * tallies.ROW + tallies.REFERENCES] += 1
    return envelope


@inlined
def drop_reference(run_state, envelope):
    """One copy fewer; returns True if it was the last and the envelope is free again."""
    row = column(run_state, kernel.ENVELOPE)
    e = envelope * ENVELOPE_WIDTH
    refs = row[e + REFS] - 1
    row[e + REFS] = refs
    if refs > 0:
        return False
    if row[e + STATEMENT] >= 0:
        column(run_state, kernel.TALLY)[row[e + STATEMENT] * tallies.ROW + tallies.REFERENCES] -= 1
    column(run_state, kernel.ENVELOPE_FREE)[run_state[kernel.ENVELOPES_FREE]] = envelope
    run_state[kernel.ENVELOPES_FREE] += 1
    return True


@compiled
def _log(run_state, sent, src, dst, kind, statement, arrived, received, verified, done, size, fate, key):
    row = run_state[kernel.LOG_LEN] * LOG_WIDTH
    if row + LOG_WIDTH > length(run_state, kernel.LOG):
        make_capacity(run_state, kernel.LOG)
    log = column(run_state, kernel.LOG)
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
    run_state[kernel.LOG_LEN] += 1
