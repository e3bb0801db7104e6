"""Votes where they are cast, where they arrive and where they complete a tally.

A vote from the network counts when it arrives, and is reported when it has been processed; a node's own counts at once
(sim.kernel.tally has the arithmetic of one row). Rows are taken from a list, and go back to it when no event and no
envelope refers to them any more.
"""

from __future__ import annotations

import numpy as np

from sim.kernel.chance import JITTER, join
from sim.kernel.desk import (
    GROUP_MEMBER,
    GROUP_START,
    IDENTITY,
    KIND_WEIGHTS,
    MESSAGE_HEIGHT,
    MESSAGE_VIEW,
    NOW,
    READY_SEQ,
    RULES,
    SEATS,
    SEED,
    TALLY,
    TALLY_PLACE,
    TALLY_WEIGHTS,
    WEIGHTED,
    column,
    compiled,
    inlined,
)
from sim.kernel.due import FIRE, VOTED, ready_push, ready_push_at
from sim.kernel.post import new_envelope
from sim.kernel.sending import send_group, send_one
from sim.kernel.tally import ACTION as TALLY_ACTION
from sim.kernel.tally import (
    COUNT_STEP,
    KEY,
    KIND,
    OWNER,
    PARENT,
    REFERENCES,
    RELEASED,
    ROW,
    THRESHOLD,
    cast_again,
    clear_row,
    count_arrival,
    count_here,
    settle_vote,
)

# scalars
WIDE_FREE_LEN = 105
NARROW_FREE_LEN = 106

# columns
KIND_COST = 59  # KIND_COST_WIDTH per message type
WIDE_FREE = 60  # rows that every voter counts in
NARROW_FREE = 61  # rows of one receiver

ROWS_MAX = 1 << 20  # of tallies: the event of a processed vote names its row in 20 bits
KIND_COST_WIDTH = 8
COST_SIZE, COST_SIGN_NS, COST_VERIFY_NS, COST_HANDLE_NS, COST_WEIGHTED = range(5)


@compiled
def fire(desk, row, node, reached, sequence):
    """Enter an event, due now, for each threshold in the mask; `sequence`: the first of those reserved, or -1."""
    for k in range(3):
        if reached & (1 << k):
            column(desk, TALLY)[row * ROW + REFERENCES] += 1
            if sequence < 0:
                ready_push(desk, desk[NOW], FIRE, node, row * 4 + k)
            else:
                ready_push_at(desk, desk[NOW], sequence + k, FIRE, node, row * 4 + k)


@compiled
def count_now(desk, row, node, voter, weight):
    """Count a node's own vote or a condition in a row and in the row's parent; see `count_here`."""
    fire(desk, row, node, count_here(desk, row, node, voter, weight), -1)
    parent = column(desk, TALLY)[row * ROW + PARENT]
    if parent >= 0:
        fire(desk, parent, node, count_here(desk, parent, node, voter, weight), -1)


@inlined
def vote_arrives(desk, row, node, voter, done):
    """Count a vote from the network, which will be processed at `done`, in its row and in the row's parent."""
    number = count_arrival(desk, row, node, voter)
    parent = column(desk, TALLY)[row * ROW + PARENT]
    in_parent = np.int64(0)
    if parent >= 0:
        in_parent = count_arrival(desk, parent, node, voter)
    if number != 0 or in_parent != 0:
        _follow_up(desk, row, parent, node, number, in_parent, done)


@compiled
def _follow_up(desk, row, parent, node, number, in_parent, done):
    """A threshold may hang on the vote that has just been counted: look again when it has been processed."""
    if done == desk[NOW]:
        if number:
            fire(desk, row, node, settle_vote(desk, row, node, number), -1)
        if in_parent:
            fire(desk, parent, node, settle_vote(desk, parent, node, in_parent), -1)
        return
    tally = column(desk, TALLY)
    tally[row * ROW + REFERENCES] += 1
    if parent >= 0:
        tally[parent * ROW + REFERENCES] += 1
    ready_push(desk, done, VOTED, node, row | (number << 20) | (in_parent << 41))
    desk[READY_SEQ] += 6  # for the thresholds that it may reach, here and in the parent


@compiled
def vote_is_processed(desk, node, argument, sequence):
    """A vote on which a threshold may hang has been processed: `vote_arrives`, at `done`."""
    row = argument & (ROWS_MAX - 1)
    number = (argument >> 20) & 0x1FFFFF
    in_parent = argument >> 41
    tally = column(desk, TALLY)
    parent = tally[row * ROW + PARENT]
    if number and tally[row * ROW + RELEASED] == 0:
        fire(desk, row, node, settle_vote(desk, row, node, number), sequence + 1)
    if in_parent and tally[parent * ROW + RELEASED] == 0:
        fire(desk, parent, node, settle_vote(desk, parent, node, in_parent), sequence + 4)


@compiled
def let_go(desk, row):
    """An event or an envelope refers to a row no longer."""
    tally = column(desk, TALLY)
    tally[row * ROW + REFERENCES] -= 1
    if tally[row * ROW + RELEASED] == 1 and tally[row * ROW + REFERENCES] == 0:
        recycle_tally(desk, row)


@compiled
def let_go_vote(desk, argument):
    """The event of a processed vote refers to its row, and the row's parent, no longer."""
    row = argument & (ROWS_MAX - 1)
    parent = column(desk, TALLY)[row * ROW + PARENT]
    let_go(desk, row)
    if parent >= 0:
        let_go(desk, parent)


@compiled
def _is_among(desk, node, to):
    """Whether a node is the receiver `to`, or one of the group that it names."""
    if to >= -1:
        return to == -1 or to == node
    starts, members = column(desk, GROUP_START), column(desk, GROUP_MEMBER)
    for i in range(starts[-1 - to], starts[-to]):
        if members[i] == node:
            return True
    return False


@compiled
def cast_vote(desk, node, row, to, local_weight):
    """The node votes as its identity: its own vote counts at once, copies go to `to` (a node, or -1 - group).

    `local_weight` 0: its own vote does not count now.
    """
    voter = column(desk, IDENTITY)[node]
    if local_weight > 0 and _is_among(desk, node, to):
        count_now(desk, row, node, voter, local_weight)
    if to == node:
        return
    send_vote(desk, node, row, to, cast_again(desk, row, node))


@compiled
def send_vote(desk, node, row, to, again):
    """The node's vote leaves for `to`; `again`: not for the first time, so what happens to it is drawn anew."""
    tally = column(desk, TALLY)
    kind = tally[row * ROW + KIND]
    voter = column(desk, IDENTITY)[node]
    cost = column(desk, KIND_COST)
    c = kind * KIND_COST_WIDTH
    key = join(join(join(join(0, desk[SEED]), JITTER), node), tally[row * ROW + KEY])
    if again:
        key = join(key, desk[NOW])
    envelope = new_envelope(
        desk,
        node,
        kind,
        row,
        cost[c + COST_SIZE],
        cost[c + COST_VERIFY_NS],
        cost[c + COST_HANDLE_NS],
        voter,
        key,
        0,
        0,
    )
    if desk[RULES] > 0:
        place = column(desk, TALLY_PLACE)
        desk[MESSAGE_VIEW], desk[MESSAGE_HEIGHT] = place[2 * row], place[2 * row + 1]
    if to < 0:
        send_group(desk, envelope, node, -1 - to, cost[c + COST_SIGN_NS])
    else:
        send_one(desk, envelope, node, to, cost[c + COST_SIGN_NS])


@compiled
def open_tally(desk, kind, key, wide, owner, threshold_1, threshold_2, threshold_3):
    """A fresh tally row; -1 if there is none free. `wide`: every voter counts; else only `owner` does."""
    if wide:
        if desk[WIDE_FREE_LEN] == 0:
            return np.int64(-1)
        desk[WIDE_FREE_LEN] -= 1
        row = column(desk, WIDE_FREE)[desk[WIDE_FREE_LEN]]
    else:
        if desk[NARROW_FREE_LEN] == 0:
            return np.int64(-1)
        desk[NARROW_FREE_LEN] -= 1
        row = column(desk, NARROW_FREE)[desk[NARROW_FREE_LEN]]
    tally = column(desk, TALLY)
    t = row * ROW
    tally[t + THRESHOLD] = threshold_1
    tally[t + THRESHOLD + 1] = threshold_2
    tally[t + THRESHOLD + 2] = threshold_3
    for k in range(3):
        tally[t + TALLY_ACTION + k] = 0
    tally[t + REFERENCES] = 0
    tally[t + RELEASED] = 0
    tally[t + PARENT] = -1
    tally[t + OWNER] = owner
    tally[t + KEY] = np.int64(join(key, kind))
    tally[t + KIND] = kind
    if desk[WEIGHTED]:
        column(desk, TALLY_WEIGHTS)[row] = column(desk, KIND_WEIGHTS)[kind]
    return row


@compiled
def recycle_tally(desk, row):
    """Empty a released row that nothing refers to any more and put it back."""
    tally = column(desk, TALLY)
    clear_row(desk, row, desk[SEATS])
    tally[row * ROW + RELEASED] = 2
    if tally[row * ROW + COUNT_STEP]:
        column(desk, WIDE_FREE)[desk[WIDE_FREE_LEN]] = row
        desk[WIDE_FREE_LEN] += 1
    else:
        column(desk, NARROW_FREE)[desk[NARROW_FREE_LEN]] = row
        desk[NARROW_FREE_LEN] += 1
