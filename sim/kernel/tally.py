"""Tallies: votes counted where they are received, so that a replica is woken only when a count can matter.

A tally row stands for one statement ("prepare, view 3, sequence 7, this block"). Each receiver has its own
count in it, of distinct voters. Reaching a threshold is an event at the time the deciding vote has been
processed. Rows come in two shapes: *wide* (every voter counts: all-to-all votes) and *narrow* (one receiver
counts: votes to a leader).

A condition that is no vote (the proposal itself must be there) is a weight of GATE: a threshold of GATE + q
is met by the condition together with q votes, in any order. A threshold below GATE counts votes only.

A vote from the network is counted the moment it arrives, although it is processed later (post, stages 5 and 6).
The receiver's own vote and the condition count at once, and may overtake votes that wait to be processed. So a
threshold of q votes hangs on two votes from the network: the (q - 1)-th, which decides together with the
receiver's own, and the q-th. Only these two are followed up when they have been processed (`settle_vote`);
all others cost a few array writes.

Votes may have integer weights: then a threshold T hangs on the vote from the network with which their weight first
reaches T less the receiver's own weight, and on the one with which it first reaches T. Every vote of weight 1 is
the case above.

A vote is an identity's. Two seats may share one (twins): it counts once, from whichever vote is processed first. A
seat's own vote counts at once even if its twin's has arrived and waits; TWIN_AFTER tells whether q - 1 others had come
before the twin's, for then the first event decides, else the second.
"""

from __future__ import annotations

import numpy as np

from sim.kernel import run_state as kernel
from sim.kernel.run_state import column, compiled, inlined

ROW = 16  # integers per tally row
COUNT_AT, COUNT_STEP, BITS_AT, BITS_STEP = 0, 1, 2, 3  # where a receiver's count and bits are
THRESHOLD = 4  # three of them, ascending, 0 for none
ACTION = 7  # what the kernel does by itself at each threshold, 0 to wake the replica
REFERENCES = 10  # envelopes that carry votes for this row and events that are due to it
RELEASED = 11
PARENT = 12  # a row in which every vote of this row counts too, or -1
OWNER = 13  # the node whose narrow row it is, or -1
KEY = 14  # identity of the statement: the key of its jitter
KIND = 15
GATE = 1 << 32
THRESHOLDS = 3

# A receiver's state in a row, one bit per threshold and one for its own vote.
FIRED, NEAR, MET, REACHED = 1, 1 << 4, 1 << 8, 1 << 12  # told; votes - 1 and votes processed; due to be told
OWN = 1 << 16
OWN_LATE = 1 << 17  # its own vote, when its twin's had been counted on arrival
TWIN_AFTER = 1 << 20  # one bit per threshold: the twin's vote arrived after the votes that need but the own one
WEIGHT_MAX = (1 << 21) - 1  # of all votes in a tally together


@inlined
def weight_of(run_state, row, voter):
    """What a voter's vote counts in a row; an observer (-1) has no weight."""
    if run_state[kernel.WEIGHTED] == 0:
        return np.int64(voter >= 0)
    first = column(run_state, kernel.TALLY_WEIGHTS)[row]
    if first < 0 or voter < 0:
        return np.int64(voter >= 0)
    return column(run_state, kernel.VOTE_WEIGHT)[first + voter]


@compiled
def has_voted(run_state, row, node, voter):
    """Whether `voter`'s vote is in `node`'s count."""
    t = row * ROW
    tally = column(run_state, kernel.TALLY)
    at = tally[t + BITS_AT] + node * tally[t + BITS_STEP] + (voter >> 6)
    return (column(run_state, kernel.TALLY_BITS)[at] >> (voter & 63)) & 1 == 1


@compiled
def has_fired(run_state, row, node):
    """Whether the node has been told of any threshold of the row."""
    t = row * ROW
    tally = column(run_state, kernel.TALLY)
    return column(run_state, kernel.TALLY_FIRED)[tally[t + COUNT_AT] + node * tally[t + COUNT_STEP]] & 7 != 0


@compiled
def _enter_voter(run_state, row, node, voter):
    """Put a voter into a node's set; False if it is there already."""
    t = row * ROW
    tally = column(run_state, kernel.TALLY)
    bits = column(run_state, kernel.TALLY_BITS)
    at = tally[t + BITS_AT] + node * tally[t + BITS_STEP] + (voter >> 6)
    mask = np.int64(1) << (voter & 63)
    if bits[at] & mask:
        return False
    bits[at] |= mask
    return True


@inlined
def count_arrival(run_state, row, node, voter):
    """Count a vote from the network; returns the votes counted so far if a threshold may hang on it, else 0.

    A voter counts once: a second vote changes nothing.
    """
    if not _enter_voter(run_state, row, node, voter):
        return np.int64(0)
    t = row * ROW
    tally = column(run_state, kernel.TALLY)
    c = tally[t + COUNT_AT] + node * tally[t + COUNT_STEP]
    weight = weight_of(run_state, row, voter)
    own = weight_of(run_state, row, column(run_state, kernel.IDENTITY)[node])
    count = column(run_state, kernel.TALLY_COUNT)[c] + weight
    column(run_state, kernel.TALLY_COUNT)[c] = count
    number = count & (GATE - 1)
    before = number - weight
    if voter == column(run_state, kernel.IDENTITY)[node]:
        _note_twin(run_state, row, node, before)
    for k in range(THRESHOLDS):
        threshold = tally[t + THRESHOLD + k]
        if threshold == 0:
            break
        votes = threshold & (GATE - 1)
        if before < votes - own <= number:
            return number
        if before < votes <= number and column(run_state, kernel.TALLY_FIRED)[c] & OWN == 0:
            return number
    return np.int64(0)


@compiled
def _note_twin(run_state, row, node, before):
    """The vote of the node's twin has arrived, after others of weight `before`."""
    t = row * ROW
    tally = column(run_state, kernel.TALLY)
    c = tally[t + COUNT_AT] + node * tally[t + COUNT_STEP]
    own = weight_of(run_state, row, column(run_state, kernel.IDENTITY)[node])
    for k in range(THRESHOLDS):
        if before >= (tally[t + THRESHOLD + k] & (GATE - 1)) - own:
            column(run_state, kernel.TALLY_FIRED)[c] |= TWIN_AFTER << k


@compiled
def settle_vote(run_state, row, node, number):
    """The vote that made it `number` has been processed; returns the thresholds reached as a bit mask."""
    t = row * ROW
    tally = column(run_state, kernel.TALLY)
    c = tally[t + COUNT_AT] + node * tally[t + COUNT_STEP]
    state = column(run_state, kernel.TALLY_FIRED)
    own = weight_of(run_state, row, column(run_state, kernel.IDENTITY)[node])
    for k in range(THRESHOLDS):
        votes = tally[t + THRESHOLD + k] & (GATE - 1)
        if number >= votes - own:
            state[c] |= NEAR << k
        if number >= votes:
            state[c] |= MET << k
    return _reached(run_state, row, node)


@compiled
def count_here(run_state, row, node, voter, weight):
    """Count what needs no processing: the node's own vote (weight 1), a condition (GATE), or both (GATE + 1).

    Returns the thresholds reached as a bit mask.
    """
    t = row * ROW
    tally = column(run_state, kernel.TALLY)
    c = tally[t + COUNT_AT] + node * tally[t + COUNT_STEP]
    if not _enter_voter(run_state, row, node, voter):
        state = column(run_state, kernel.TALLY_FIRED)
        if weight & 1 == 0 or state[c] & (OWN | OWN_LATE):
            return np.int64(0)
        state[c] |= OWN_LATE
        if weight >= GATE:
            column(run_state, kernel.TALLY_COUNT)[c] += GATE
        return _reached(run_state, row, node)
    if weight & 1:
        column(run_state, kernel.TALLY_FIRED)[c] |= OWN
    if weight >= GATE:
        column(run_state, kernel.TALLY_COUNT)[c] += GATE
    return _reached(run_state, row, node)


@compiled
def _reached(run_state, row, node):
    """The thresholds that what has been processed meets, for the first time, as a bit mask."""
    t = row * ROW
    tally = column(run_state, kernel.TALLY)
    c = tally[t + COUNT_AT] + node * tally[t + COUNT_STEP]
    state = column(run_state, kernel.TALLY_FIRED)[c]
    gate_is_open = column(run_state, kernel.TALLY_COUNT)[c] >= GATE
    own = weight_of(run_state, row, column(run_state, kernel.IDENTITY)[node])
    reached = np.int64(0)
    for k in range(THRESHOLDS):
        threshold = tally[t + THRESHOLD + k]
        if threshold == 0:
            break
        if state & (REACHED << k) or (threshold >= GATE and not gate_is_open):
            continue
        votes = threshold & (GATE - 1)
        near = votes <= own or state & (NEAR << k)
        decides = state & OWN or (state & OWN_LATE and state & (TWIN_AFTER << k))
        if votes == 0 or state & (MET << k) or (near and decides):
            reached |= 1 << k
    column(run_state, kernel.TALLY_FIRED)[c] = state | reached * REACHED
    return reached


@inlined
def cast_words(seats):
    """Words of a bit set of seats."""
    return (seats + 63) >> 6


@compiled
def cast_again(run_state, row, node):
    """Whether a node has sent its vote in a row before; from now on it has.

    A vote that is said again is another message: its fate on a link that loses some is another one too.
    """
    cast = column(run_state, kernel.TALLY_CAST)
    at = row * cast_words(run_state[kernel.SEATS]) + (node >> 6)
    mask = np.int64(1) << (node & 63)
    before = cast[at] & mask
    cast[at] |= mask
    return before != 0


@compiled
def clear_row(run_state, row, nodes):
    """Empty a row for its next use."""
    t = row * ROW
    tally = column(run_state, kernel.TALLY)
    counts = column(run_state, kernel.TALLY_COUNT)
    bits = column(run_state, kernel.TALLY_BITS)
    fired = column(run_state, kernel.TALLY_FIRED)
    receivers = nodes if tally[t + COUNT_STEP] else 1
    words = run_state[kernel.BITS_WORDS]
    for i in range(receivers):
        counts[tally[t + COUNT_AT] + i] = 0
        fired[tally[t + COUNT_AT] + i] = 0
    for i in range(receivers * words):
        bits[tally[t + BITS_AT] + i] = 0
    sent = cast_words(run_state[kernel.SEATS])
    for i in range(sent):
        column(run_state, kernel.TALLY_CAST)[row * sent + i] = 0


@compiled
def forget_node(run_state, row, node):
    """A crash empties the node's count, except for its own vote, which it had written to disk."""
    t = row * ROW
    tally = column(run_state, kernel.TALLY)
    c = tally[t + COUNT_AT] + node * tally[t + COUNT_STEP]
    words = run_state[kernel.BITS_WORDS]
    at = tally[t + BITS_AT] + node * tally[t + BITS_STEP]
    bits = column(run_state, kernel.TALLY_BITS)
    own = OWN if column(run_state, kernel.TALLY_FIRED)[c] & (OWN | OWN_LATE) else 0
    for i in range(words):
        bits[at + i] = 0
    if own:
        voter = column(run_state, kernel.IDENTITY)[node]
        bits[at + (voter >> 6)] |= np.int64(1) << (voter & 63)
    column(run_state, kernel.TALLY_COUNT)[c] = 0
    column(run_state, kernel.TALLY_FIRED)[c] = own
    _reached(run_state, row, node)  # what its own vote alone meets is no news
