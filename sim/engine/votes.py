"""Votes where they are cast, where they arrive and where they complete a tally.

A vote from the network counts when it arrives, and is reported when it has been processed; a node's own counts at once
(sim.kernel.tally has the arithmetic of one row). Rows are taken from a list, and go back to it when no event and no
envelope refers to them any more.
"""

from __future__ import annotations

import numpy as np

from sim.kernel import due as events
from sim.kernel import run_state as kernel
from sim.kernel import tally as tallies
from sim.kernel.chance import JITTER, join
from sim.kernel.due import ready_push, ready_push_at
from sim.kernel.layout import scalar, slot
from sim.kernel.post import new_envelope
from sim.kernel.run_state import column, compiled, inlined
from sim.kernel.sending import send_group, send_one
from sim.kernel.tally import cast_again, clear_row, count_arrival, count_here, settle_vote

# scalars
WIDE_FREE_LEN = scalar(105)
NARROW_FREE_LEN = scalar(106)

# columns
KIND_COST = slot(59)  # KIND_COST_WIDTH per message type
WIDE_FREE = slot(60)  # rows that every voter counts in
NARROW_FREE = slot(61)  # rows of one receiver

ROWS_MAX = 1 << 20  # of tallies: the event of a processed vote names its row in 20 bits
KIND_COST_WIDTH = 8
COST_SIZE, COST_SIGN_NS, COST_VERIFY_NS, COST_HANDLE_NS, COST_WEIGHTED = range(5)


@compiled
def fire(run_state, row, node, reached, sequence):
    """Enter an event, due now, for each threshold in the mask; `sequence`: the first of those reserved, or -1."""
    for k in range(3):
        if reached & (1 << k):
            column(run_state, kernel.TALLY)[row * tallies.ROW + tallies.REFERENCES] += 1
            if sequence < 0:
                ready_push(run_state, run_state[kernel.NOW], events.FIRE, node, row * 4 + k)
            else:
                ready_push_at(run_state, run_state[kernel.NOW], sequence + k, events.FIRE, node, row * 4 + k)


@compiled
def count_now(run_state, row, node, voter, weight):
    """Count a node's own vote or a condition in a row and in the row's parent; see `count_here`."""
    fire(run_state, row, node, count_here(run_state, row, node, voter, weight), -1)
    parent = column(run_state, kernel.TALLY)[row * tallies.ROW + tallies.PARENT]
    if parent >= 0:
        fire(run_state, parent, node, count_here(run_state, parent, node, voter, weight), -1)


@inlined
def vote_arrives(run_state, row, node, voter, done):
    """Count a vote from the network, which will be processed at `done`, in its row and in the row's parent."""
    number = count_arrival(run_state, row, node, voter)
    parent = column(run_state, kernel.TALLY)[row * tallies.ROW + tallies.PARENT]
    in_parent = np.int64(0)
    if parent >= 0:
        in_parent = count_arrival(run_state, parent, node, voter)
    if number != 0 or in_parent != 0:
        _follow_up(run_state, row, parent, node, number, in_parent, done)


@compiled
def _follow_up(run_state, row, parent, node, number, in_parent, done):
    """A threshold may hang on the vote that has just been counted: look again when it has been processed."""
    if done == run_state[kernel.NOW]:
        if number:
            fire(run_state, row, node, settle_vote(run_state, row, node, number), -1)
        if in_parent:
            fire(run_state, parent, node, settle_vote(run_state, parent, node, in_parent), -1)
        return
    tally = column(run_state, kernel.TALLY)
    tally[row * tallies.ROW + tallies.REFERENCES] += 1
    if parent >= 0:
        tally[parent * tallies.ROW + tallies.REFERENCES] += 1
    ready_push(run_state, done, events.VOTED, node, row | (number << 20) | (in_parent << 41))
    run_state[kernel.READY_SEQ] += 6  # for the thresholds that it may reach, here and in the parent


@compiled
def vote_is_processed(run_state, node, argument, sequence):
    """A vote on which a threshold may hang has been processed: `vote_arrives`, at `done`."""
    row = argument & (ROWS_MAX - 1)
    number = (argument >> 20) & 0x1FFFFF
    in_parent = argument >> 41
    tally = column(run_state, kernel.TALLY)
    parent = tally[row * tallies.ROW + tallies.PARENT]
    if number and tally[row * tallies.ROW + tallies.RELEASED] == 0:
        fire(run_state, row, node, settle_vote(run_state, row, node, number), sequence + 1)
    if in_parent and tally[parent * tallies.ROW + tallies.RELEASED] == 0:
        fire(run_state, parent, node, settle_vote(run_state, parent, node, in_parent), sequence + 4)


@compiled
def let_go(run_state, row):
    """An event or an envelope refers to a row no longer."""
    tally = column(run_state, kernel.TALLY)
    tally[row * tallies.ROW + tallies.REFERENCES] -= 1
    if tally[row * tallies.ROW + tallies.RELEASED] == 1 and tally[row * tallies.ROW + tallies.REFERENCES] == 0:
        recycle_tally(run_state, row)


@compiled
def let_go_vote(run_state, argument):
    """The event of a processed vote refers to its row, and the row's parent, no longer."""
    row = argument & (ROWS_MAX - 1)
    parent = column(run_state, kernel.TALLY)[row * tallies.ROW + tallies.PARENT]
    let_go(run_state, row)
    if parent >= 0:
        let_go(run_state, parent)


@compiled
def _is_among(run_state, node, to):
    """Whether a node is the receiver `to`, or one of the group that it names."""
    if to >= -1:
        return to == -1 or to == node
    starts, members = column(run_state, kernel.GROUP_START), column(run_state, kernel.GROUP_MEMBER)
    for i in range(starts[-1 - to], starts[-to]):
        if members[i] == node:
            return True
    return False


@compiled
def cast_vote(run_state, node, row, to, local_weight):
    """The node votes as its identity: its own vote counts at once, copies go to `to` (a node, or -1 - group).

    `local_weight` 0: its own vote does not count now.
    """
    voter = column(run_state, kernel.IDENTITY)[node]
    if local_weight > 0 and _is_among(run_state, node, to):
        count_now(run_state, row, node, voter, local_weight)
    if to == node:
        return
    send_vote(run_state, node, row, to, cast_again(run_state, row, node))


@compiled
def send_vote(run_state, node, row, to, again):
    """The node's vote leaves for `to`; `again`: not for the first time, so what happens to it is drawn anew."""
    tally = column(run_state, kernel.TALLY)
    kind = tally[row * tallies.ROW + tallies.KIND]
    voter = column(run_state, kernel.IDENTITY)[node]
    cost = column(run_state, KIND_COST)
    c = kind * KIND_COST_WIDTH
    key = join(join(join(join(0, run_state[kernel.SEED]), JITTER), node), tally[row * tallies.ROW + tallies.KEY])
    if again:
        key = join(key, run_state[kernel.NOW])
    envelope = new_envelope(
        run_state,
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
    if run_state[kernel.RULES] > 0:
        place = column(run_state, kernel.TALLY_PLACE)
        run_state[kernel.MESSAGE_VIEW], run_state[kernel.MESSAGE_HEIGHT] = place[2 * row], place[2 * row + 1]
    if to < 0:
        send_group(run_state, envelope, node, -1 - to, cost[c + COST_SIGN_NS])
    else:
        send_one(run_state, envelope, node, to, cost[c + COST_SIGN_NS])


@compiled
def open_tally(run_state, kind, key, wide, owner, threshold_1, threshold_2, threshold_3):
    """A fresh tally row; -1 if there is none free. `wide`: every voter counts; else only `owner` does."""
    if wide:
        if run_state[WIDE_FREE_LEN] == 0:
            return np.int64(-1)
        run_state[WIDE_FREE_LEN] -= 1
        row = column(run_state, WIDE_FREE)[run_state[WIDE_FREE_LEN]]
    else:
        if run_state[NARROW_FREE_LEN] == 0:
            return np.int64(-1)
        run_state[NARROW_FREE_LEN] -= 1
        row = column(run_state, NARROW_FREE)[run_state[NARROW_FREE_LEN]]
    tally = column(run_state, kernel.TALLY)
    t = row * tallies.ROW
    tally[t + tallies.THRESHOLD] = threshold_1
    tally[t + tallies.THRESHOLD + 1] = threshold_2
    tally[t + tallies.THRESHOLD + 2] = threshold_3
    for k in range(3):
        tally[t + tallies.ACTION + k] = 0
    tally[t + tallies.REFERENCES] = 0
    tally[t + tallies.RELEASED] = 0
    tally[t + tallies.PARENT] = -1
    tally[t + tallies.OWNER] = owner
    tally[t + tallies.KEY] = np.int64(join(key, kind))
    tally[t + tallies.KIND] = kind
    if run_state[kernel.WEIGHTED]:
        column(run_state, kernel.TALLY_WEIGHTS)[row] = column(run_state, kernel.KIND_WEIGHTS)[kind]
    return row


@compiled
def recycle_tally(run_state, row):
    """Empty a released row that nothing refers to any more and put it back."""
    tally = column(run_state, kernel.TALLY)
    clear_row(run_state, row, run_state[kernel.SEATS])
    tally[row * tallies.ROW + tallies.RELEASED] = 2
    if tally[row * tallies.ROW + tallies.COUNT_STEP]:
        column(run_state, WIDE_FREE)[run_state[WIDE_FREE_LEN]] = row
        run_state[WIDE_FREE_LEN] += 1
    else:
        column(run_state, NARROW_FREE)[run_state[NARROW_FREE_LEN]] = row
        run_state[NARROW_FREE_LEN] += 1
