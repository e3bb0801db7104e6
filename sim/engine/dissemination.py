"""Messages that go down a tree of voters and are answered on the way up, without entering Python.

A protocol declares it as the normal case of a message (`sim.protocol.Aggregate`). The root's host lays out the case for
one block: an action, as for any normal case, and a *aggregation*, which holds per voter how far it has come. A voter
that accepts the message passes it on to its children; it answers its parent once its whole subtree has. As everywhere
in the fast path a guard decides, and what does not fit goes to the handlers, which take over what was counted.

A message that overtakes those before it is *held* at its receiver until they have come.
"""

from __future__ import annotations

import numpy as np

from sim.engine import actions
from sim.engine.actions import current_action
from sim.engine.cases import CASE_WIDTH, CASES, open_case
from sim.engine.lease import NAME_BITS, post_number
from sim.engine.timers import TIMER_BITS, TIMER_NUMBER, by_clock
from sim.kernel import due as events
from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.kernel.chance import JITTER, join
from sim.kernel.due import ready_push
from sim.kernel.layout import slot
from sim.kernel.post import drop_reference, new_envelope
from sim.kernel.run_state import column, compiled, length
from sim.kernel.sending import send_group, send_one
from sim.ledger import rows as ledger
from sim.ledger.chain import await_decision, decide
from sim.ledger.payload import parent_of

# columns
TREE_NODE = slot(76)  # TREE_WIDTH per seat and tree
BUFFERED = slot(77)  # per seat BUFFERED_SLOTS envelopes + 1

AT_HANDLERS, WAITS, THROUGH = 0, 1, 2  # how far: in the lowest two bits
TOLD_PARENT = 4  # its parent has counted its answer
COUNT = 3  # from this bit on: votes counted, its own included

TREE_WIDTH = 8
TREE_PARENT, TREE_GROUP, TREE_SIZE, TREE_PATIENCE_NS, ANSWER_BYTES, ANSWER_VERIFY_NS = range(6)

# in a case's row, behind its votes
CASE_ANSWER, CASE_SIGN_NS, CASE_ANSWER_SIGN_NS, CASE_HANDLE_NS, CASE_QUORUM = range(16, 21)

BUFFERED_SLOTS = 8


@compiled
def _progress_of(run_state, aggregate, node):
    """Where a aggregation keeps how far a voter has come."""
    return aggregate * run_state[actions.AGGREGATE_STRIDE] + actions.AGGREGATE_HEAD + 2 * node


@compiled
def open_gathering(run_state, block, case):
    """A fresh aggregation, or -1 if there is none free."""
    if run_state[actions.AGGREGATES_FREE] == 0:
        return np.int64(-1)
    run_state[actions.AGGREGATES_FREE] -= 1
    aggregate = column(run_state, actions.AGGREGATE_FREE)[run_state[actions.AGGREGATES_FREE]]
    rows = column(run_state, actions.AGGREGATION)
    at = aggregate * run_state[actions.AGGREGATE_STRIDE]
    for i in range(run_state[actions.AGGREGATE_STRIDE]):
        rows[at + i] = 0
    rows[at + actions.AGGREGATE_BLOCK] = block
    rows[at + actions.AGGREGATE_CASE] = case
    return aggregate


@compiled
def send_down(
    run_state, case, src, kind, size, sign_ns, verify_ns, handle_ns, message_key, need, running, block, view, number,
    decided, tree, known_height,
):  # fmt: skip
    """Lay out the case of a message that goes down a tree, and send it to the root's children.

    Returns (envelope, the message's action); envelope -1: there was no room.
    """
    none = np.int64(-1)
    if run_state[actions.AGGREGATES_FREE] == 0:
        return none, none
    identity = column(run_state, ledger.BLOCK)[block * ledger.BLOCK_WIDTH + ledger.NUMBER]
    key = np.int64(join(join(join(0, view), number), identity) >> np.uint64(1))
    name, _, _, _ = open_case(run_state, case, need, running, running, block, key, none, none, decided, none)
    if name < 0:
        return none, none
    aggregate = open_gathering(run_state, block, case)
    column(run_state, actions.AGGREGATION)[_progress_of(run_state, aggregate, src)] = WAITS | (1 << COUNT)
    rows = column(run_state, actions.ACTIONS)
    r = (name & 0xFFFFFFFF) * actions.ACTION_WIDTH
    rows[r + actions.AGGREGATE] = aggregate + 1
    rows[r + actions.TREE] = tree
    rows[r + actions.VOTE_TO] = known_height
    whole_key = join(join(join(join(0, run_state[kernel.SEED]), JITTER), src), message_key)
    envelope = new_envelope(run_state, src, kind, post.MESSAGE, size, verify_ns, handle_ns, 0, whole_key, name, 0)
    group = column(run_state, TREE_NODE)[(tree * run_state[kernel.SEATS] + src) * TREE_WIDTH + TREE_GROUP]
    send_group(run_state, envelope, src, group, sign_ns)
    return envelope, name


@compiled
def _name_of(run_state, block):
    """A block's name in an envelope's ARG."""
    return (column(run_state, ledger.BLOCK)[block * ledger.BLOCK_WIDTH + ledger.NUMBER] << NAME_BITS) | block


@compiled
def _key_of(run_state, node, kind):
    return join(join(join(join(0, run_state[kernel.SEED]), JITTER), node), post_number(run_state, node, kind))


@compiled
def _answer(run_state, node, action, at, votes):
    """Send the votes of the node's whole subtree to its parent."""
    rows = column(run_state, actions.ACTIONS)
    r = action * actions.ACTION_WIDTH
    tree = column(run_state, TREE_NODE)
    aggregate = rows[r + actions.AGGREGATE] - 1
    cases = column(run_state, CASES)
    c = (
        column(run_state, actions.AGGREGATION)[aggregate * run_state[actions.AGGREGATE_STRIDE] + actions.AGGREGATE_CASE]
        * CASE_WIDTH
    )
    kind = cases[c + CASE_ANSWER] - 1
    envelope = new_envelope(
        run_state,
        node,
        kind,
        post.MESSAGE,
        tree[at + ANSWER_BYTES],
        tree[at + ANSWER_VERIFY_NS],
        cases[c + CASE_HANDLE_NS],
        votes,
        _key_of(run_state, node, kind),
        action + (rows[r + actions.GENERATION] << 32),
        _name_of(run_state, rows[r + actions.OF_BLOCK]),
    )
    send_one(run_state, envelope, node, tree[at + TREE_PARENT], cases[c + CASE_ANSWER_SIGN_NS])


@compiled
def _decides_next(run_state, node, block):
    """Whether the node can decide the block and those below, or has: few steps lead down to its last one."""
    rows, peer = column(run_state, ledger.BLOCK), column(run_state, ledger.PEER)
    p = node * ledger.PEER_WIDTH
    if block < 0 or rows[block * ledger.BLOCK_WIDTH + ledger.HEIGHT] <= peer[p + ledger.TIP_HEIGHT]:
        return True
    for _ in range(2 * BUFFERED_SLOTS):
        if rows[block * ledger.BLOCK_WIDTH + ledger.PARENT] == peer[p + ledger.TIP]:
            return True
        block = parent_of(run_state, block)
        if block < 0:
            return False
    return False


@compiled
def _decide_up_to(run_state, node, block):
    """Decide the block and those below, from the lowest on."""
    rows, peer = column(run_state, ledger.BLOCK), column(run_state, ledger.PEER)
    p = node * ledger.PEER_WIDTH
    while block >= 0 and rows[block * ledger.BLOCK_WIDTH + ledger.HEIGHT] > peer[p + ledger.TIP_HEIGHT]:
        lowest = block
        while rows[lowest * ledger.BLOCK_WIDTH + ledger.HEIGHT] > peer[p + ledger.TIP_HEIGHT] + 1:
            lowest = rows[lowest * ledger.BLOCK_WIDTH + ledger.PARENT]
        decide(run_state, node, lowest)


@compiled
def _accept(run_state, node, action, envelope):
    """The message fits: pass it on, decide, and answer or wait for answers."""
    rows = column(run_state, actions.ACTIONS)
    r = action * actions.ACTION_WIDTH
    state, peer = column(run_state, kernel.NODE), column(run_state, ledger.PEER)
    s, p = node * post.NODE_WIDTH, node * ledger.PEER_WIDTH
    state[s + post.GUARD] = rows[r + actions.GUARD_AFTER]
    peer[p + ledger.ACCEPTED] = rows[r + actions.OF_BLOCK]
    await_decision(run_state, node, rows[r + actions.OF_BLOCK])
    state[s + post.PROGRESS_NUMBER] += run_state[actions.PROGRESS_MODE] >> 1
    if run_state[actions.PROGRESS_MODE] == 2:
        state[s + post.PROGRESS_NS] = run_state[kernel.NOW]
    tree = column(run_state, TREE_NODE)
    at = (rows[r + actions.TREE] * run_state[kernel.SEATS] + node) * TREE_WIDTH
    aggregate = rows[r + actions.AGGREGATE] - 1
    if tree[at + TREE_GROUP] > 0:
        row = column(run_state, kernel.ENVELOPE)
        e = envelope * post.ENVELOPE_WIDTH
        kind = row[e + post.KIND]
        c = (
            column(run_state, actions.AGGREGATION)[
                aggregate * run_state[actions.AGGREGATE_STRIDE] + actions.AGGREGATE_CASE
            ]
            * CASE_WIDTH
        )
        further = new_envelope(
            run_state,
            node,
            kind,
            post.MESSAGE,
            row[e + post.SIZE],
            row[e + post.VERIFY_NS],
            row[e + post.HANDLE_NS],
            0,
            _key_of(run_state, node, kind),
            row[e + post.ACTION],
            _name_of(run_state, rows[r + actions.OF_BLOCK]),
        )
        send_group(run_state, further, node, tree[at + TREE_GROUP], column(run_state, CASES)[c + CASE_SIGN_NS])
    _decide_up_to(run_state, node, rows[r + actions.DECIDES_BLOCK])
    how = _progress_of(run_state, aggregate, node)
    words = column(run_state, actions.AGGREGATION)
    if tree[at + TREE_GROUP] == 0:
        words[how] = (words[how] & TOLD_PARENT) | THROUGH | (1 << COUNT)
        _answer(run_state, node, action, at, 1)
        return
    words[how] = (words[how] & TOLD_PARENT) | WAITS | (1 << COUNT)
    run_state[TIMER_NUMBER] += 1
    words[how + 1] = run_state[TIMER_NUMBER]
    due = run_state[kernel.NOW] + by_clock(run_state, node, tree[at + TREE_PATIENCE_NS])
    ready_push(run_state, due, events.TIMER, node, run_state[TIMER_NUMBER] | ((aggregate + 1) << TIMER_BITS))


@compiled
def _hold(run_state, node, action, envelope):
    """Keep a message whose turn has not come: True. False: it is not of this chain, or there is no place.

    One whose guard nobody has begins another view: it is for the handlers, not early.
    """
    rows, blocks = column(run_state, actions.ACTIONS), column(run_state, ledger.BLOCK)
    r = action * actions.ACTION_WIDTH
    here = column(run_state, kernel.NODE)[node * post.NODE_WIDTH + post.GUARD]
    if (
        here < 0
        or rows[r + actions.GUARD_BEFORE] < 0
        or not _decides_next(run_state, node, rows[r + actions.DECIDES_BLOCK])
    ):
        return False
    block = rows[r + actions.OF_BLOCK]
    height = blocks[block * ledger.BLOCK_WIDTH + ledger.HEIGHT]
    for _ in range(BUFFERED_SLOTS):
        block = parent_of(run_state, block)
        if block < 0 or blocks[block * ledger.BLOCK_WIDTH + ledger.NUMBER] == here:
            break
    base = np.int64(0)
    if block >= 0:
        if blocks[block * ledger.BLOCK_WIDTH + ledger.NUMBER] != here:
            return False
        base = blocks[block * ledger.BLOCK_WIDTH + ledger.HEIGHT]
    elif here != 0:
        return False
    if rows[r + actions.VOTE_TO] > base or height <= base:
        return False
    held = column(run_state, BUFFERED)
    free = np.int64(-1)
    for i in range(node * BUFFERED_SLOTS, (node + 1) * BUFFERED_SLOTS):
        if held[i] == 0:
            free = np.int64(i)
            continue
        other = column(run_state, kernel.ENVELOPE)[(held[i] - 1) * post.ENVELOPE_WIDTH + post.ACTION] & 0xFFFFFFFF
        if other == action:
            drop_reference(run_state, envelope)  # the same once more
            return True
        if blocks[rows[other * actions.ACTION_WIDTH + actions.OF_BLOCK] * ledger.BLOCK_WIDTH + ledger.HEIGHT] == height:
            return False
    if free < 0:
        return False
    held[free] = envelope + 1
    return True


@compiled
def _next_held(run_state, node):
    """A held message whose turn it is, no longer held; or -1."""
    held, row = column(run_state, BUFFERED), column(run_state, kernel.ENVELOPE)
    here = column(run_state, kernel.NODE)[node * post.NODE_WIDTH + post.GUARD]
    for i in range(node * BUFFERED_SLOTS, (node + 1) * BUFFERED_SLOTS):
        if held[i]:
            envelope = held[i] - 1
            action = current_action(run_state, row[envelope * post.ENVELOPE_WIDTH + post.ACTION])
            if (
                action > 0
                and column(run_state, actions.ACTIONS)[action * actions.ACTION_WIDTH + actions.GUARD_BEFORE] == here
            ):
                held[i] = 0
                return envelope
    return np.int64(-1)


@compiled
def _answered(run_state, node, action, envelope):
    """A child's votes: count them, and answer when they are the last. False: the handlers see to it."""
    rows, row = column(run_state, actions.ACTIONS), column(run_state, kernel.ENVELOPE)
    r, e = action * actions.ACTION_WIDTH, envelope * post.ENVELOPE_WIDTH
    aggregate = rows[r + actions.AGGREGATE] - 1
    words = column(run_state, actions.AGGREGATION)
    how = _progress_of(run_state, aggregate, node)
    if words[how] & 3 == AT_HANDLERS:
        return False
    height = column(run_state, ledger.BLOCK)[rows[r + actions.OF_BLOCK] * ledger.BLOCK_WIDTH + ledger.HEIGHT]
    child = _progress_of(run_state, aggregate, row[e + post.SRC])
    if (
        words[how] & 3 == WAITS
        and words[child] & TOLD_PARENT == 0
        and height > column(run_state, ledger.PEER)[node * ledger.PEER_WIDTH + ledger.TIP_HEIGHT]
    ):
        tree = column(run_state, TREE_NODE)
        at = (rows[r + actions.TREE] * run_state[kernel.SEATS] + node) * TREE_WIDTH
        count = (words[how] >> COUNT) + row[e + post.VOTER]
        if tree[at + TREE_PARENT] == node:
            c = words[aggregate * run_state[actions.AGGREGATE_STRIDE] + actions.AGGREGATE_CASE] * CASE_WIDTH
            if count >= column(run_state, CASES)[c + CASE_QUORUM]:
                words[how] = (words[how] & ~3) | THROUGH
                return False  # this one completes the quorum: its handler counts it
        words[child] |= TOLD_PARENT
        words[how] += row[e + post.VOTER] << COUNT
        if count == tree[at + TREE_SIZE] and tree[at + TREE_PARENT] != node:
            words[how] += THROUGH - WAITS
            _answer(run_state, node, action, at, count)
    drop_reference(run_state, envelope)
    return True


@compiled
def in_tree(run_state, node, action, envelope):
    """Perform what a message of a tree asks for, and let go of it. False: the handlers see to it."""
    rows = column(run_state, actions.ACTIONS)
    r = action * actions.ACTION_WIDTH
    aggregate = rows[r + actions.AGGREGATE] - 1
    c = (
        column(run_state, actions.AGGREGATION)[aggregate * run_state[actions.AGGREGATE_STRIDE] + actions.AGGREGATE_CASE]
        * CASE_WIDTH
    )
    if run_state[kernel.RULES] > 0:  # what rules must know of a message, its sender's host tells
        return False
    if (
        column(run_state, kernel.ENVELOPE)[envelope * post.ENVELOPE_WIDTH + post.KIND]
        == column(run_state, CASES)[c + CASE_ANSWER] - 1
    ):
        return _answered(run_state, node, action, envelope)
    if column(run_state, kernel.NODE)[node * post.NODE_WIDTH + post.GUARD] != rows[r + actions.GUARD_BEFORE]:
        return _hold(run_state, node, action, envelope)
    if not _decides_next(run_state, node, rows[r + actions.DECIDES_BLOCK]):
        return False
    while envelope >= 0:
        name = column(run_state, kernel.ENVELOPE)[envelope * post.ENVELOPE_WIDTH + post.ACTION]
        _accept(run_state, node, current_action(run_state, name), envelope)
        drop_reference(run_state, envelope)
        envelope = _next_held(run_state, node)
    return True


@compiled
def timer_is_idle(run_state, node, argument):
    """Whether nobody needs this timer of the fast path's any more."""
    aggregate = (argument >> TIMER_BITS) - 1
    if aggregate < 0:
        return False
    words = column(run_state, actions.AGGREGATION)
    how = _progress_of(run_state, aggregate, node)
    if words[aggregate * run_state[actions.AGGREGATE_STRIDE] + actions.AGGREGATE_BLOCK] < 0:  # its block is over
        return True
    return words[how + 1] != argument & 0xFFFFFFFF or words[how] & 3 == THROUGH


@compiled
def release_held(run_state, node):
    """A node crashes: the messages kept there are gone."""
    held = column(run_state, BUFFERED)
    for i in range(node * BUFFERED_SLOTS, (node + 1) * BUFFERED_SLOTS):
        if held[i]:
            drop_reference(run_state, held[i] - 1)
            held[i] = 0


@compiled
def forget_gatherings(run_state, node):
    """A node crashes: what it has counted is gone; what its parents have counted is not."""
    words = column(run_state, actions.AGGREGATION)
    for aggregate in range(length(run_state, actions.AGGREGATION) // run_state[actions.AGGREGATE_STRIDE]):
        how = _progress_of(run_state, aggregate, node)
        words[how] &= TOLD_PARENT
        words[how + 1] = 0


@compiled
def take_over(run_state, block_action, node):
    """What a voter has counted, in the handlers' hands from now on: its word as it was, or 0."""
    action = current_action(run_state, block_action)
    if action == 0:
        return np.int64(0)
    aggregate = column(run_state, actions.ACTIONS)[action * actions.ACTION_WIDTH + actions.AGGREGATE] - 1
    if aggregate < 0:
        return np.int64(0)
    words = column(run_state, actions.AGGREGATION)
    how = _progress_of(run_state, aggregate, node)
    word = words[how]
    if word & 3 == WAITS:
        words[how] = word & TOLD_PARENT
    return word


@compiled
def has_answered(run_state, block_action, child):
    """Whether the parent has counted a child's answer."""
    action = current_action(run_state, block_action)
    aggregate = column(run_state, actions.ACTIONS)[action * actions.ACTION_WIDTH + actions.AGGREGATE] - 1
    return column(run_state, actions.AGGREGATION)[_progress_of(run_state, aggregate, child)] & TOLD_PARENT > 0
