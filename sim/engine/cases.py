"""A declared normal case, laid out for one block: tally rows, and an action for each step.

`CASES` is the table of what the protocol declares (written by sim.host.cases); `open_case` makes of one of its rows the
chain for one block, which sim.engine.actions then performs.
"""

from __future__ import annotations

import numpy as np

from sim.engine import actions
from sim.engine.actions import release_action
from sim.engine.votes import NARROW_FREE_LEN, WIDE_FREE_LEN, open_tally, recycle_tally
from sim.kernel import run_state as kernel
from sim.kernel import tally as tallies
from sim.kernel.layout import slot
from sim.kernel.run_state import column, compiled

# columns
CASES = slot(58)  # CASE_WIDTH per declared case

CASES_MAX, CASE_VOTES_MAX = 16, 3
CASE_WIDTH = 32
CASE_VOTES, CASE_DECIDES, CASE_PERSIST_NS, CASE_GATED = 0, 1, 2, 3
CASE_VOTE = 4  # four numbers per vote: kind, wide (1) or narrow (0), threshold, -
DECIDES_NOTHING, DECIDES_AT_END = 0, 1


@compiled
def release_tally(run_state, row):
    """The row is needed no more; it is free as soon as no vote for it is on its way. Its actions go too."""
    tally = column(run_state, kernel.TALLY)
    t = row * tallies.ROW
    for k in range(3):
        action = tally[t + tallies.ACTION + k]
        if action > 0:
            release_action(run_state, action)
            tally[t + tallies.ACTION + k] = 0
    tally[t + tallies.RELEASED] = 1
    if tally[t + tallies.REFERENCES] == 0:
        recycle_tally(run_state, row)


@compiled
def _new_action(run_state, need, set_, gate, vote_row, to, local_weight, decides, notify, persist_ns, block):
    run_state[actions.ACTIONS_FREE] -= 1
    action = column(run_state, actions.ACTION_FREE)[run_state[actions.ACTIONS_FREE]]
    rows = column(run_state, actions.ACTIONS)
    r = action * actions.ACTION_WIDTH
    rows[r + actions.GUARD_BEFORE] = need
    rows[r + actions.GUARD_AFTER] = set_
    rows[r + actions.GATE_ROW] = gate
    rows[r + actions.VOTE_ROW] = vote_row
    rows[r + actions.VOTE_TO] = to
    rows[r + actions.LOCAL_WEIGHT] = local_weight
    rows[r + actions.DECIDES_BLOCK] = decides
    rows[r + actions.NOTIFIES] = notify
    rows[r + actions.PERSIST_NS] = persist_ns
    rows[r + actions.OF_BLOCK] = block
    rows[r + actions.GATE_WEIGHT] = tallies.GATE
    rows[r + actions.WRITES] = 0
    rows[r + actions.TOLD_ROW] = -1
    rows[r + actions.AGGREGATE] = 0
    rows[r + actions.MADE_NS] = run_state[kernel.NOW]
    return action


@compiled
def open_any_value(run_state, row, kind, key, early, threshold, guard, block):
    """A tally in which every vote of `row`, laid out by `open_case`, counts too; -1 if there is no room.

    Its quorum is no news to a node that works in the fast path (`guard`) and has been told of the row's own quorum.
    """
    if run_state[WIDE_FREE_LEN] < 1 or run_state[actions.ACTIONS_FREE] < 2:
        return np.int64(-1)
    none = np.int64(-1)
    tally = column(run_state, kernel.TALLY)
    first = early if early > 0 else threshold
    any_value = open_tally(run_state, kind, key, 1, none, first, threshold if early > 0 else 0, 0)
    action = _new_action(run_state, guard, guard, none, none, none, 0, none, np.int64(actions.NOTIFY_NOBODY), 0, block)
    column(run_state, actions.ACTIONS)[action * actions.ACTION_WIDTH + actions.TOLD_ROW] = row
    tally[row * tallies.ROW + tallies.PARENT] = any_value
    if early > 0:
        tally[any_value * tallies.ROW + tallies.ACTION] = actions.SILENT
        tally[any_value * tallies.ROW + tallies.ACTION + 1] = action
    else:
        tally[any_value * tallies.ROW + tallies.ACTION] = action
    return any_value


@compiled
def first_vote_weight(run_state, c):
    """What a voter's own first vote counts: it opens the gate if the message's sender does not."""
    cases = column(run_state, CASES)
    gated = cases[c + CASE_VOTE + 2] >= tallies.GATE and cases[c + CASE_GATED] == 0
    return tallies.GATE + 1 if gated else np.int64(1)


@compiled
def _chain(run_state, c, i, row, next_row, running, after, to, audience, block, notify):
    """The action to the quorum of a case's vote number i: the next vote, or the decision, or none."""
    cases = column(run_state, CASES)
    none = np.int64(-1)
    if i + 1 < cases[c + CASE_VOTES]:
        v = c + CASE_VOTE + 4 * (i + 1)
        target = audience if cases[v + 1] else to
        weight = tallies.GATE + 1 if cases[v + 2] >= tallies.GATE else np.int64(1)
        action = _new_action(
            run_state, running, running, none, next_row, target, weight, none, np.int64(actions.NOTIFY_NOBODY), 0, block
        )
    elif cases[c + CASE_DECIDES] == DECIDES_AT_END:
        action = _new_action(run_state, running, after, none, none, none, 0, block, notify, 0, block)
    else:
        return
    column(run_state, kernel.TALLY)[row * tallies.ROW + tallies.ACTION] = action


@compiled
def open_case(run_state, case, need, running, after, block, key, to, audience, decided, notify):
    """Lay out a declared normal case for one block.

    Guards: `need` before the message, `running` from then on, `after` when the case is through. Votes go to the
    `audience` (-1 - group) or, where the case says so, to the node `to`.
    Returns (message's action, first tally row, second, third), -1 where there is none; a message's action of -1
    means that Python must make room.
    """
    c = case * CASE_WIDTH
    cases = column(run_state, CASES)
    votes = cases[c + CASE_VOTES]
    none = np.int64(-1)
    if run_state[WIDE_FREE_LEN] < 3 or run_state[NARROW_FREE_LEN] < 3 or run_state[actions.ACTIONS_FREE] < 4:
        return none, none, none, none
    row_1, row_2, row_3 = none, none, none
    for i in range(votes):
        v = c + CASE_VOTE + 4 * i
        row = open_tally(run_state, cases[v], key, cases[v + 1], none if cases[v + 1] else to, cases[v + 2], 0, 0)
        if i == 0:
            row_1 = row
        elif i == 1:
            row_2 = row
        else:
            row_3 = row
    target = audience if cases[c + CASE_VOTE + 1] else to
    decides = decided
    if votes == 0 and cases[c + CASE_DECIDES] == DECIDES_AT_END:
        decides = block
    message = _new_action(
        run_state,
        need,
        running if votes else after,
        row_1 if cases[c + CASE_GATED] else none,
        row_1,
        target,
        first_vote_weight(run_state, c),
        decides,
        np.int64(actions.NOTIFY_NOBODY) if votes else notify,
        cases[c + CASE_PERSIST_NS],
        block,
    )
    if votes > 0:
        _chain(run_state, c, 0, row_1, row_2, running, after, to, audience, block, notify)
    if votes > 1:
        _chain(run_state, c, 1, row_2, row_3, running, after, to, audience, block, notify)
    if votes > 2:
        _chain(run_state, c, 2, row_3, none, running, after, to, audience, block, notify)
    generation = column(run_state, actions.ACTIONS)[message * actions.ACTION_WIDTH + actions.GENERATION]
    return message + (generation << 32), row_1, row_2, row_3
