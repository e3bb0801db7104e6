"""The fast path: the normal case of a protocol, declared by it and performed without entering Python.

As in a switch, the common case is wired and the rest goes to software. A protocol declares, for each type of
message that it wants treated so, the chain of votes that follows it (PBFT: pre-prepare, then PREPARE to all, then
COMMIT to all, then decide; basic HotStuff: one vote to the leader upon each of its messages). When a replica sends
such a message, that chain is laid out for one block (sim.engine.cases): tally rows, and a *action* for each step.
A action is guarded by one number per node (`GUARD`, for PBFT the view in which the node works normally): if it
does not match, the event goes to the protocol's own handler, which remains the definition of the protocol.
"""

from __future__ import annotations

import numpy as np

from sim.engine.timers import TAKES_TURNS, await_turn
from sim.engine.votes import cast_vote, count_now, let_go
from sim.kernel import due as events
from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.kernel import tally as tallies
from sim.kernel.due import ready_push
from sim.kernel.layout import scalar, slot
from sim.kernel.run_state import column, compiled
from sim.kernel.tally import has_fired, has_voted
from sim.ledger import rows as ledger
from sim.ledger.chain import await_decision, decide, decide_or_wait, extends_tip, trace

# scalars
ACTIONS_FREE = scalar(104)
STOP_WAKES = scalar(107)
PROGRESS_MODE = scalar(108)  # 0: off, 1: runs while a transaction waits, 2: runs always
PROGRESS_LOW_NS = scalar(109)
PROGRESS_SPAN_NS = scalar(110)
EVENTS = scalar(111)  # ready entries processed
EVENTS_MAX = scalar(112)
STILL_EVENTS = scalar(113)  # due events at the time of the last one
STILL_MAX = scalar(114)
STILL_AT_NS = scalar(118)  # time of the last due event: between two of them arrivals move time as well
HELD_MESSAGE = scalar(115)  # envelope + 1 that Python is dealing with
AGGREGATES_FREE = scalar(119)
AGGREGATE_STRIDE = scalar(121)  # integers of a aggregation
ADOPTS = scalar(
    124
)  # 1: where blocks compete, the block of a message becomes the head of whoever takes it in the fast path
SWEEP_DECISIONS = scalar(116)  # look again what can be freed: after so many decisions,
SWEEP_CLOSED = scalar(117)  # or with so many blocks closed
TURNS = scalar(122)  # of the run loop since it last paused
TURNS_MAX = scalar(123)  # turns after which it pauses; 0: never

# columns
ACTIONS = slot(56)
ACTION_FREE = slot(57)
PROGRESS = slot(62)  # PROGRESS_WIDTH per node: its progress timer
PROGRESS_WIDTH = 3
PERIOD_LOW, PERIOD_SPAN, PERIOD_STEP = range(3)  # STEP: periods are drawn in whole ones; 0: any
AGGREGATE_FREE = slot(75)  # aggregations (sim.engine.dissemination)
AGGREGATION = slot(74)  # their head, and two integers per seat: how far it has come, and the number of its timer

AGGREGATE_HEAD = 4
AGGREGATE_BLOCK, AGGREGATE_CASE = 0, 1
ACTION_WIDTH = 24
(
    GUARD_BEFORE,
    GUARD_AFTER,
    GATE_ROW,
    VOTE_ROW,
    VOTE_TO,
    LOCAL_WEIGHT,
    DECIDES_BLOCK,
    NOTIFIES,
    PERSIST_NS,
    OF_BLOCK,
    GATE_WEIGHT,
    WRITES,
    GENERATION,
    TOLD_ROW,
    AGGREGATE,
    TREE,
    MADE_NS,
) = range(17)
ACTION_NUMBER = (1 << 32) - 1  # a message names its action as number + (generation << 32)
SILENT = -1  # in place of a tally's action: nobody is told of this threshold

RELEASE_LATER = 1 << 32  # in WRITES: no longer wanted, but disk writes are under way
NOTIFY_NOBODY, NOTIFY_ALL = -1, -2  # in NOTIFIES, which else is the node that is told

PERFORMED, PERFORMED_WAKE, NOT_PERFORMED, PERFORMED_LEASE = 0, 1, 2, 3


@compiled
def _finish(run_state, node, action, voter):
    r = action * ACTION_WIDTH
    rows = column(run_state, ACTIONS)
    vote_row = rows[r + VOTE_ROW]
    # A quorum that was complete before a crash is told again afterwards; a vote outlasts the crash, and is cast once.
    if vote_row >= 0 and (
        voter >= 0 or not has_voted(run_state, vote_row, node, column(run_state, kernel.IDENTITY)[node])
    ):
        await_decision(run_state, node, rows[r + OF_BLOCK])
        cast_vote(run_state, node, vote_row, rows[r + VOTE_TO], rows[r + LOCAL_WEIGHT])
    _decide_in_fast_path(run_state, node, rows[r + DECIDES_BLOCK])
    return _notifies(run_state, node, action)


@compiled
def _decide_in_fast_path(run_state, node, block):
    if block >= 0:
        if run_state[ledger.DECIDE_WAITS]:
            decide_or_wait(run_state, node, block)
        else:
            decide(run_state, node, block)


@compiled
def _notifies(run_state, node, action):
    r = action * ACTION_WIDTH
    rows = column(run_state, ACTIONS)
    if rows[r + NOTIFIES] == NOTIFY_ALL:
        return PERFORMED_WAKE
    return PERFORMED_LEASE if rows[r + NOTIFIES] == node else PERFORMED


@compiled
def current_action(run_state, name):
    """The action a message names, or 0 if that one is over and its row serves another."""
    action = name & ACTION_NUMBER
    if column(run_state, ACTIONS)[action * ACTION_WIDTH + GENERATION] != name >> 32:
        return np.int64(0)
    return action


@compiled
def react(run_state, node, action, voter):
    """Perform an action at a node if its guard holds. `voter`: who sent the message, or -1 for a quorum."""
    r = action * ACTION_WIDTH
    rows = column(run_state, ACTIONS)
    state = column(run_state, kernel.NODE)
    s = node * post.NODE_WIDTH
    if state[s + post.GUARD] != rows[r + GUARD_BEFORE]:
        return NOT_PERFORMED
    told = rows[r + TOLD_ROW]
    if told >= 0 and not has_fired(run_state, told, node):
        return NOT_PERFORMED
    block = rows[r + DECIDES_BLOCK]
    if block >= 0 and run_state[ledger.DECIDE_WAITS] == 0 and not extends_tip(run_state, node, block):
        return NOT_PERFORMED
    gate = rows[r + GATE_ROW]
    if gate >= 0 and voter >= 0:
        if has_voted(run_state, gate, node, voter):
            return np.int64(PERFORMED)  # the same proposal once more
        count_now(run_state, gate, node, voter, rows[r + GATE_WEIGHT])
    elif voter >= 0 and rows[r + GUARD_BEFORE] == rows[r + GUARD_AFTER] and rows[r + VOTE_ROW] >= 0:
        if has_voted(run_state, rows[r + VOTE_ROW], node, column(run_state, kernel.IDENTITY)[node]):
            return np.int64(PERFORMED)  # once more, and the guard does not tell
    state[s + post.GUARD] = rows[r + GUARD_AFTER]
    if voter >= 0:
        state[s + post.PROGRESS_NUMBER] += run_state[PROGRESS_MODE] >> 1
        if run_state[PROGRESS_MODE] == 2:
            state[s + post.PROGRESS_NS] = run_state[kernel.NOW]
        column(run_state, ledger.PEER)[node * ledger.PEER_WIDTH + ledger.ACCEPTED] = rows[r + OF_BLOCK]
        if run_state[ADOPTS]:
            column(run_state, ledger.PEER)[node * ledger.PEER_WIDTH + ledger.BUILT_NS] = run_state[kernel.NOW]
            blocks, b = column(run_state, ledger.BLOCK), rows[r + OF_BLOCK] * ledger.BLOCK_WIDTH
            trace(run_state, ledger.EVENT_HEAD, node, blocks[b + ledger.NUMBER], blocks[b + ledger.HEIGHT], 0, 0, 0)
    if rows[r + PERSIST_NS] > 0:
        cost = (rows[r + PERSIST_NS] * state[s + post.DISK_Q10]) >> 10
        done = max(run_state[kernel.NOW], state[s + post.DISK_FREE]) + cost
        state[s + post.DISK_FREE] = done
        state[s + post.DISK_BUSY] += cost
        ready_push(run_state, done, events.DISK_DONE, node, action)
        rows[r + WRITES] += 1
        if rows[r + VOTE_ROW] >= 0:
            column(run_state, kernel.TALLY)[rows[r + VOTE_ROW] * tallies.ROW + tallies.REFERENCES] += 1
        _decide_in_fast_path(run_state, node, rows[r + DECIDES_BLOCK])  # what is decided does not wait for what is new
        outcome = PERFORMED
    else:
        outcome = _finish(run_state, node, action, voter)
    if voter >= 0 and run_state[TAKES_TURNS]:
        height = column(run_state, ledger.BLOCK)[rows[r + OF_BLOCK] * ledger.BLOCK_WIDTH + ledger.HEIGHT]
        await_turn(run_state, node, height + 1, rows[r + MADE_NS])
    return outcome


@compiled
def finish_after_disk(run_state, node, action):
    """The rest of an action once its record is on disk."""
    r = action * ACTION_WIDTH
    rows = column(run_state, ACTIONS)
    if rows[r + VOTE_ROW] >= 0:
        await_decision(run_state, node, rows[r + OF_BLOCK])
        cast_vote(run_state, node, rows[r + VOTE_ROW], rows[r + VOTE_TO], rows[r + LOCAL_WEIGHT])
    outcome = _notifies(run_state, node, action)
    end_write(run_state, action)
    return outcome


@compiled
def end_write(run_state, action):
    """A disk write of an action is over (done, or void by a crash): let go of what waited for it."""
    r = action * ACTION_WIDTH
    rows = column(run_state, ACTIONS)
    row = rows[r + VOTE_ROW]
    rows[r + WRITES] -= 1
    if row >= 0:
        let_go(run_state, row)
    if rows[r + WRITES] == RELEASE_LATER:
        rows[r + WRITES] = 0
        release_action(run_state, action)


@compiled
def release_action(run_state, action):
    """Put an action back. Messages that still name it name an earlier generation, and go to the handlers."""
    action &= ACTION_NUMBER
    r = action * ACTION_WIDTH
    rows = column(run_state, ACTIONS)
    rows[r + GUARD_BEFORE] = -(1 << 62)
    if rows[r + WRITES] > 0:
        rows[r + WRITES] += RELEASE_LATER
        return
    rows[r + GENERATION] += 1
    if rows[r + AGGREGATE] > 0:
        column(run_state, AGGREGATE_FREE)[run_state[AGGREGATES_FREE]] = rows[r + AGGREGATE] - 1
        run_state[AGGREGATES_FREE] += 1
        column(run_state, AGGREGATION)[
            (rows[r + AGGREGATE] - 1) * run_state[AGGREGATE_STRIDE] + AGGREGATE_BLOCK
        ] = -1  # its timers are idle
        rows[r + AGGREGATE] = 0
    column(run_state, ACTION_FREE)[run_state[ACTIONS_FREE]] = action
    run_state[ACTIONS_FREE] += 1
