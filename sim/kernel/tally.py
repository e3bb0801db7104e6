"""Tallies: votes counted where they are received, so that a replica is woken only when a count can matter.

A tally row stands for one statement ("prepare, view 3, sequence 7, this block"). Each receiver has its own
count in it, of distinct voters and their weights. Reaching a threshold is an event at the time the deciding
vote has been processed. Rows come in two shapes: *wide* (every voter counts: all-to-all votes) and *narrow*
(one receiver counts: votes to a leader).

A condition that is no vote (the proposal itself must be there) is a weight of GATE: a threshold of GATE + q
is met by the condition together with q votes, in any order.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from sim.kernel.desk import BITS_WORDS, TALLY, TALLY_BITS, TALLY_COUNT, TALLY_FIRED, column

ROW = 16  # integers per tally row
COUNT_AT, COUNT_STEP, BITS_AT, BITS_STEP = 0, 1, 2, 3  # where a receiver's count and bits are
THRESHOLD = 4  # three of them, ascending, 0 for none
REACTION = 7  # what the kernel does by itself at each threshold, 0 to wake the replica
REFERENCES = 10  # envelopes that still carry votes for this row
RELEASED = 11
PARENT = 12  # a row in which every vote of this row counts too, or -1
OWNER = 13  # the node whose narrow row it is, or -1
KEY = 14  # identity of the statement: the key of its jitter
KIND = 15
GATE = 1 << 32
THRESHOLDS = 3


@njit
def has_voted(desk, row, node, voter):
    """Whether `voter`'s vote is in `node`'s count."""
    t = row * ROW
    tally = column(desk, TALLY)
    at = tally[t + BITS_AT] + node * tally[t + BITS_STEP] + (voter >> 6)
    return (column(desk, TALLY_BITS)[at] >> (voter & 63)) & 1 == 1


@njit
def count_vote(desk, row, node, voter, weight):
    """Count a vote; returns the thresholds it reached for the first time as a bit mask (0: none).

    A voter counts once: a second vote changes nothing.
    """
    t = row * ROW
    tally = column(desk, TALLY)
    bits = column(desk, TALLY_BITS)
    at = tally[t + BITS_AT] + node * tally[t + BITS_STEP] + (voter >> 6)
    mask = np.int64(1) << (voter & 63)
    if bits[at] & mask:
        return 0
    bits[at] |= mask
    return add_weight(desk, row, node, weight)


@njit
def add_weight(desk, row, node, weight):
    """Add weight without a voter (the gate); returns as `count_vote`."""
    t = row * ROW
    tally = column(desk, TALLY)
    counts = column(desk, TALLY_COUNT)
    c = tally[t + COUNT_AT] + node * tally[t + COUNT_STEP]
    before = counts[c]
    after = before + weight
    counts[c] = after
    reached = 0
    for k in range(THRESHOLDS):
        threshold = tally[t + THRESHOLD + k]
        if threshold == 0:
            break
        if before < threshold <= after:
            reached |= 1 << k
    return reached


@njit
def clear_row(desk, row, nodes):
    """Empty a row for its next use."""
    t = row * ROW
    tally = column(desk, TALLY)
    counts = column(desk, TALLY_COUNT)
    bits = column(desk, TALLY_BITS)
    fired = column(desk, TALLY_FIRED)
    receivers = nodes if tally[t + COUNT_STEP] else 1
    words = desk[BITS_WORDS]
    for i in range(receivers):
        counts[tally[t + COUNT_AT] + i] = 0
        fired[tally[t + COUNT_AT] + i] = 0
    for i in range(receivers * words):
        bits[tally[t + BITS_AT] + i] = 0


@njit
def forget_node(desk, row, node):
    """A crash empties the node's count, except for its own vote, which it had written to disk."""
    t = row * ROW
    tally = column(desk, TALLY)
    c = tally[t + COUNT_AT] + node * tally[t + COUNT_STEP]
    words = desk[BITS_WORDS]
    at = tally[t + BITS_AT] + node * tally[t + BITS_STEP]
    bits = column(desk, TALLY_BITS)
    own = (bits[at + (node >> 6)] >> (node & 63)) & 1
    for i in range(words):
        bits[at + i] = 0
    bits[at + (node >> 6)] |= np.int64(own) << (node & 63)
    column(desk, TALLY_COUNT)[c] = own
    column(desk, TALLY_FIRED)[c] = 0
