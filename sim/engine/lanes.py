"""The fast lane: the normal case of a protocol, declared by it and performed without entering Python.

As in a switch, the common case is wired and the rest goes to software. A protocol declares, for each type of
letter that it wants treated so, the chain of votes that follows it (PBFT: pre-prepare, then PREPARE to all, then
COMMIT to all, then decide; basic HotStuff: one vote to the leader upon each of its letters). When a replica sends
such a letter, `open_case` lays out that chain for one block: tally rows, and a *reaction* for each step.
A reaction is guarded by one number per node (`GUARD`, for PBFT the view in which the node works normally): if it
does not match, the event goes to the protocol's own handler, which remains the definition of the protocol.
"""

from __future__ import annotations

import numpy as np

from sim.engine.timers import TAKES_TURNS, await_turn
from sim.kernel.chance import JITTER, join
from sim.kernel.desk import (
    GROUP_MEMBER,
    GROUP_START,
    IDENTITY,
    KIND_WEIGHTS,
    MESSAGE_HEIGHT,
    MESSAGE_VIEW,
    NODE,
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
from sim.kernel.due import DISK_DONE, FIRE, VOTED, ready_push, ready_push_at
from sim.kernel.post import (
    DISK_BUSY,
    DISK_FREE,
    DISK_Q10,
    GUARD,
    NODE_WIDTH,
    PROGRESS_NS,
    PROGRESS_NUMBER,
    new_envelope,
    send_group,
    send_one,
)
from sim.kernel.tally import (
    COUNT_STEP,
    GATE,
    KEY,
    KIND,
    OWNER,
    PARENT,
    REFERENCES,
    RELEASED,
    ROW,
    THRESHOLD,
    clear_row,
    count_arrival,
    count_here,
    has_fired,
    has_voted,
    settle_vote,
)
from sim.kernel.tally import REACTION as TALLY_REACTION
from sim.ledger.chain import decide, decide_or_wait, extends_tip, trace
from sim.ledger.rows import (
    BLOCK,
    BLOCK_WIDTH,
    DECIDE_WAITS,
    EVENT_HEAD,
    HEIGHT,
    LANE_NUMBER,
    LAST_LANE,
    NUMBER,
    PEER,
    PEER_WIDTH,
)

# scalars
REACTIONS_FREE = 104
WIDE_FREE_LEN = 105
NARROW_FREE_LEN = 106
STOP_WAKES = 107
PROGRESS_MODE = 108  # 0: off, 1: runs while a transaction waits, 2: runs always
PROGRESS_LOW_NS = 109
PROGRESS_SPAN_NS = 110
EVENTS = 111  # ready entries processed
EVENTS_MAX = 112
STILL_EVENTS = 113  # due events at the time of the last one
STILL_MAX = 114
STILL_AT_NS = 118  # time of the last due event: between two of them arrivals move time as well
HELD_LETTER = 115  # envelope + 1 that Python is dealing with
GATHERS_FREE = 119
ADOPTS = 124  # 1: where blocks compete, the block of a letter becomes the head of whoever takes it in the lane
SWEEP_DECISIONS = 116  # look again what can be freed: after so many decisions,
SWEEP_CLOSED = 117  # or with so many blocks closed
TURNS = 122  # of the run loop since it last paused
TURNS_MAX = 123  # turns after which it pauses; 0: never

# columns
REACTIONS = 56
REACTION_FREE = 57
CASES = 58
KIND_COST = 59
WIDE_FREE = 60
NARROW_FREE = 61
PROGRESS = 62  # per node: low, span (progress timer)
GATHER_FREE = 75  # gatherings (sim.engine.trees)

REACTION_WIDTH = 24
(
    NEED,
    SET,
    GATE_ROW,
    VOTE_ROW,
    VOTE_TO,
    LOCAL_WEIGHT,
    DECIDES_BLOCK,
    WAKES,
    PERSIST_NS,
    OF_BLOCK,
    GATE_WEIGHT,
    WRITES,
    GENERATION,
    TOLD_ROW,
    GATHER,
    TREE,
    MADE_NS,
) = range(17)
REACTION_NUMBER = (1 << 32) - 1  # a letter names its reaction as number + (generation << 32)
SILENT = -1  # in place of a tally's reaction: nobody is told of this threshold

RELEASE_LATER = 1 << 32  # in WRITES: no longer wanted, but disk writes are under way
WAKE_NOBODY, WAKE_ALL = -1, -2  # in WAKES, which else is the node that is told

KIND_COST_WIDTH = 8
COST_SIZE, COST_SIGN_NS, COST_VERIFY_NS, COST_HANDLE_NS, COST_WEIGHTED = range(5)

CASES_MAX, CASE_VOTES_MAX = 16, 3
CASE_WIDTH = 32
CASE_VOTES, CASE_DECIDES, CASE_PERSIST_NS, CASE_GATED = 0, 1, 2, 3
CASE_VOTE = 4  # four numbers per vote: kind, wide (1) or narrow (0), threshold, -
DECIDES_NOTHING, DECIDES_AT_END = 0, 1

PERFORMED, PERFORMED_WAKE, NOT_PERFORMED, PERFORMED_LEAD = 0, 1, 2, 3


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
    row = argument & 0xFFFFF
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
    row = argument & 0xFFFFF
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
    tally = column(desk, TALLY)
    kind = tally[row * ROW + KIND]
    voter = column(desk, IDENTITY)[node]
    if local_weight > 0 and _is_among(desk, node, to):
        count_now(desk, row, node, voter, local_weight)
    if to == node:
        return
    cost = column(desk, KIND_COST)
    c = kind * KIND_COST_WIDTH
    key = join(join(join(join(0, desk[SEED]), JITTER), node), tally[row * ROW + KEY])
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
def _finish(desk, node, reaction):
    r = reaction * REACTION_WIDTH
    rows = column(desk, REACTIONS)
    vote_row = rows[r + VOTE_ROW]
    if vote_row >= 0:
        cast_vote(desk, node, vote_row, rows[r + VOTE_TO], rows[r + LOCAL_WEIGHT])
    _decide_in_lane(desk, node, rows[r + DECIDES_BLOCK])
    return _wakes(desk, node, reaction)


@compiled
def _decide_in_lane(desk, node, block):
    if block >= 0:
        if desk[DECIDE_WAITS]:
            decide_or_wait(desk, node, block)
        else:
            decide(desk, node, block)


@compiled
def _wakes(desk, node, reaction):
    r = reaction * REACTION_WIDTH
    rows = column(desk, REACTIONS)
    if rows[r + WAKES] == WAKE_ALL:
        return PERFORMED_WAKE
    return PERFORMED_LEAD if rows[r + WAKES] == node else PERFORMED


@compiled
def current_reaction(desk, name):
    """The reaction a letter names, or 0 if that one is over and its row serves another."""
    reaction = name & REACTION_NUMBER
    if column(desk, REACTIONS)[reaction * REACTION_WIDTH + GENERATION] != name >> 32:
        return np.int64(0)
    return reaction


@compiled
def react(desk, node, reaction, voter):
    """Perform a reaction at a node if its guard holds. `voter`: who sent the letter, or -1 for a quorum."""
    r = reaction * REACTION_WIDTH
    rows = column(desk, REACTIONS)
    state = column(desk, NODE)
    s = node * NODE_WIDTH
    if state[s + GUARD] != rows[r + NEED]:
        return NOT_PERFORMED
    told = rows[r + TOLD_ROW]
    if told >= 0 and not has_fired(desk, told, node):
        return NOT_PERFORMED
    block = rows[r + DECIDES_BLOCK]
    if block >= 0 and desk[DECIDE_WAITS] == 0 and not extends_tip(desk, node, block):
        return NOT_PERFORMED
    gate = rows[r + GATE_ROW]
    if gate >= 0 and voter >= 0:
        if has_voted(desk, gate, node, voter):
            return PERFORMED  # the same proposal once more
        count_now(desk, gate, node, voter, rows[r + GATE_WEIGHT])
    state[s + GUARD] = rows[r + SET]
    column(desk, PEER)[node * PEER_WIDTH + LANE_NUMBER] = rows[r + SET]
    if voter >= 0:
        state[s + PROGRESS_NUMBER] += desk[PROGRESS_MODE] >> 1
        if desk[PROGRESS_MODE] == 2:
            state[s + PROGRESS_NS] = desk[NOW]
        column(desk, PEER)[node * PEER_WIDTH + LAST_LANE] = rows[r + OF_BLOCK]
        if desk[ADOPTS]:
            blocks, b = column(desk, BLOCK), rows[r + OF_BLOCK] * BLOCK_WIDTH
            trace(desk, EVENT_HEAD, node, blocks[b + NUMBER], blocks[b + HEIGHT], 0, 0, 0)
    if rows[r + PERSIST_NS] > 0:
        cost = (rows[r + PERSIST_NS] * state[s + DISK_Q10]) >> 10
        done = max(desk[NOW], state[s + DISK_FREE]) + cost
        state[s + DISK_FREE] = done
        state[s + DISK_BUSY] += cost
        ready_push(desk, done, DISK_DONE, node, reaction)
        rows[r + WRITES] += 1
        if rows[r + VOTE_ROW] >= 0:
            column(desk, TALLY)[rows[r + VOTE_ROW] * ROW + REFERENCES] += 1
        _decide_in_lane(desk, node, rows[r + DECIDES_BLOCK])  # what is decided does not wait for what is new
        outcome = PERFORMED
    else:
        outcome = _finish(desk, node, reaction)
    if voter >= 0 and desk[TAKES_TURNS]:
        height = column(desk, BLOCK)[rows[r + OF_BLOCK] * BLOCK_WIDTH + HEIGHT]
        await_turn(desk, node, height + 1, rows[r + MADE_NS])
    return outcome


@compiled
def finish_after_disk(desk, node, reaction):
    """The rest of a reaction once its record is on disk."""
    r = reaction * REACTION_WIDTH
    rows = column(desk, REACTIONS)
    if rows[r + VOTE_ROW] >= 0:
        cast_vote(desk, node, rows[r + VOTE_ROW], rows[r + VOTE_TO], rows[r + LOCAL_WEIGHT])
    outcome = _wakes(desk, node, reaction)
    end_write(desk, reaction)
    return outcome


@compiled
def end_write(desk, reaction):
    """A disk write of a reaction is over (done, or void by a crash): let go of what waited for it."""
    r = reaction * REACTION_WIDTH
    rows = column(desk, REACTIONS)
    row = rows[r + VOTE_ROW]
    rows[r + WRITES] -= 1
    if row >= 0:
        let_go(desk, row)
    if rows[r + WRITES] == RELEASE_LATER:
        rows[r + WRITES] = 0
        release_reaction(desk, reaction)


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
        tally[t + TALLY_REACTION + k] = 0
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
def release_tally(desk, row):
    """The row is needed no more; it is free as soon as no vote for it is on its way. Its reactions go too."""
    tally = column(desk, TALLY)
    t = row * ROW
    for k in range(3):
        reaction = tally[t + TALLY_REACTION + k]
        if reaction > 0:
            release_reaction(desk, reaction)
            tally[t + TALLY_REACTION + k] = 0
    tally[t + RELEASED] = 1
    if tally[t + REFERENCES] == 0:
        recycle_tally(desk, row)


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


@compiled
def release_reaction(desk, reaction):
    """Put a reaction back. Letters that still name it name an earlier generation, and go to the handlers."""
    reaction &= REACTION_NUMBER
    r = reaction * REACTION_WIDTH
    rows = column(desk, REACTIONS)
    rows[r + NEED] = -(1 << 62)
    if rows[r + WRITES] > 0:
        rows[r + WRITES] += RELEASE_LATER
        return
    rows[r + GENERATION] += 1
    if rows[r + GATHER] > 0:
        column(desk, GATHER_FREE)[desk[GATHERS_FREE]] = rows[r + GATHER] - 1
        desk[GATHERS_FREE] += 1
        rows[r + GATHER] = 0
    column(desk, REACTION_FREE)[desk[REACTIONS_FREE]] = reaction
    desk[REACTIONS_FREE] += 1


@compiled
def _new_reaction(desk, need, set_, gate, vote_row, to, local_weight, decides, wakes, persist_ns, block):
    desk[REACTIONS_FREE] -= 1
    reaction = column(desk, REACTION_FREE)[desk[REACTIONS_FREE]]
    rows = column(desk, REACTIONS)
    r = reaction * REACTION_WIDTH
    rows[r + NEED] = need
    rows[r + SET] = set_
    rows[r + GATE_ROW] = gate
    rows[r + VOTE_ROW] = vote_row
    rows[r + VOTE_TO] = to
    rows[r + LOCAL_WEIGHT] = local_weight
    rows[r + DECIDES_BLOCK] = decides
    rows[r + WAKES] = wakes
    rows[r + PERSIST_NS] = persist_ns
    rows[r + OF_BLOCK] = block
    rows[r + GATE_WEIGHT] = GATE
    rows[r + WRITES] = 0
    rows[r + TOLD_ROW] = -1
    rows[r + GATHER] = 0
    rows[r + MADE_NS] = desk[NOW]
    return reaction


@compiled
def open_umbrella(desk, row, kind, key, early, threshold, guard, block):
    """A tally in which every vote of `row`, laid out by `open_case`, counts too; -1 if there is no room.

    Its quorum is no news to a node that works in the lane (`guard`) and has been told of the row's own quorum.
    """
    if desk[WIDE_FREE_LEN] < 1 or desk[REACTIONS_FREE] < 2:
        return np.int64(-1)
    none = np.int64(-1)
    tally = column(desk, TALLY)
    first = early if early > 0 else threshold
    umbrella = open_tally(desk, kind, key, 1, none, first, threshold if early > 0 else 0, 0)
    reaction = _new_reaction(desk, guard, guard, none, none, none, 0, none, np.int64(WAKE_NOBODY), 0, block)
    column(desk, REACTIONS)[reaction * REACTION_WIDTH + TOLD_ROW] = row
    tally[row * ROW + PARENT] = umbrella
    if early > 0:
        tally[umbrella * ROW + TALLY_REACTION] = SILENT
        tally[umbrella * ROW + TALLY_REACTION + 1] = reaction
    else:
        tally[umbrella * ROW + TALLY_REACTION] = reaction
    return umbrella


@compiled
def first_vote_weight(desk, c):
    """What a voter's own first vote counts: it opens the gate if the letter's sender does not."""
    cases = column(desk, CASES)
    gated = cases[c + CASE_VOTE + 2] >= GATE and cases[c + CASE_GATED] == 0
    return GATE + 1 if gated else np.int64(1)


@compiled
def _chain(desk, c, i, row, next_row, running, after, to, audience, block, wakes):
    """The reaction to the quorum of a case's vote number i: the next vote, or the decision, or none."""
    cases = column(desk, CASES)
    none = np.int64(-1)
    if i + 1 < cases[c + CASE_VOTES]:
        v = c + CASE_VOTE + 4 * (i + 1)
        target = audience if cases[v + 1] else to
        weight = GATE + 1 if cases[v + 2] >= GATE else np.int64(1)
        reaction = _new_reaction(
            desk, running, running, none, next_row, target, weight, none, np.int64(WAKE_NOBODY), 0, block
        )
    elif cases[c + CASE_DECIDES] == DECIDES_AT_END:
        reaction = _new_reaction(desk, running, after, none, none, none, 0, block, wakes, 0, block)
    else:
        return
    column(desk, TALLY)[row * ROW + TALLY_REACTION] = reaction


@compiled
def open_case(desk, case, need, running, after, block, key, to, audience, decided, wakes):
    """Lay out a declared normal case for one block.

    Guards: `need` before the letter, `running` from then on, `after` when the case is through. Votes go to the
    `audience` (-1 - group) or, where the case says so, to the node `to`.
    Returns (letter's reaction, first tally row, second, third), -1 where there is none; a letter's reaction of -1
    means that Python must make room.
    """
    c = case * CASE_WIDTH
    cases = column(desk, CASES)
    votes = cases[c + CASE_VOTES]
    none = np.int64(-1)
    if desk[WIDE_FREE_LEN] < 3 or desk[NARROW_FREE_LEN] < 3 or desk[REACTIONS_FREE] < 4:
        return none, none, none, none
    row_1, row_2, row_3 = none, none, none
    for i in range(votes):
        v = c + CASE_VOTE + 4 * i
        row = open_tally(desk, cases[v], key, cases[v + 1], none if cases[v + 1] else to, cases[v + 2], 0, 0)
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
    letter = _new_reaction(
        desk,
        need,
        running if votes else after,
        row_1 if cases[c + CASE_GATED] else none,
        row_1,
        target,
        first_vote_weight(desk, c),
        decides,
        np.int64(WAKE_NOBODY) if votes else wakes,
        cases[c + CASE_PERSIST_NS],
        block,
    )
    if votes > 0:
        _chain(desk, c, 0, row_1, row_2, running, after, to, audience, block, wakes)
    if votes > 1:
        _chain(desk, c, 1, row_2, row_3, running, after, to, audience, block, wakes)
    if votes > 2:
        _chain(desk, c, 2, row_3, none, running, after, to, audience, block, wakes)
    generation = column(desk, REACTIONS)[letter * REACTION_WIDTH + GENERATION]
    return letter + (generation << 32), row_1, row_2, row_3
