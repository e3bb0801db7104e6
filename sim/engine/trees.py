"""Letters that go down a tree of voters and are answered on the way up, without entering Python.

A protocol declares it as the normal case of a letter (`sim.protocol.Gather`). The root's host lays out the case for
one block: an action, as for any normal case, and a *gathering*, which holds per voter how far it has come. A voter
that accepts the letter passes it on to its children; it answers its parent once its whole subtree has. As everywhere
in the fast path a guard decides, and what does not fit goes to the handlers, which take over what was counted.

A letter that overtakes those before it is *held* at its receiver until they have come.
"""

from __future__ import annotations

import numpy as np

from sim.engine.actions import (
    ACTION_WIDTH,
    ACTIONS,
    DECIDES_BLOCK,
    GATHER,
    GATHER_BLOCK,
    GATHER_CASE,
    GATHER_FREE,
    GATHER_HEAD,
    GATHER_STRIDE,
    GATHERING,
    GATHERS_FREE,
    GENERATION,
    GUARD_AFTER,
    GUARD_BEFORE,
    OF_BLOCK,
    PROGRESS_MODE,
    TREE,
    VOTE_TO,
    current_action,
)
from sim.engine.cases import CASE_WIDTH, CASES, open_case
from sim.engine.lead import NAME_BITS, post_number
from sim.engine.timers import TIMER_BITS, TIMER_NUMBER, by_clock
from sim.kernel.chance import JITTER, join
from sim.kernel.desk import ENVELOPE, NODE, NOW, RULES, SEATS, SEED, column, compiled, length
from sim.kernel.due import TIMER, ready_push
from sim.kernel.post import ACTION as LETTERS_ACTION
from sim.kernel.post import (
    ENVELOPE_WIDTH,
    GUARD,
    HANDLE_NS,
    KIND,
    LETTER,
    NODE_WIDTH,
    PROGRESS_NS,
    PROGRESS_NUMBER,
    SIZE,
    SRC,
    VERIFY_NS,
    VOTER,
    drop_reference,
    new_envelope,
)
from sim.kernel.sending import send_group, send_one
from sim.ledger.chain import await_decision, decide
from sim.ledger.payload import parent_of
from sim.ledger.rows import (
    ACCEPTED,
    BLOCK,
    BLOCK_WIDTH,
    HEIGHT,
    NUMBER,
    PARENT,
    PEER,
    PEER_WIDTH,
    TIP,
    TIP_HEIGHT,
)

# columns
TREE_NODE = 76  # TREE_WIDTH per seat and tree
HELD = 77  # per seat HELD_SLOTS envelopes + 1

AT_HANDLERS, WAITS, THROUGH = 0, 1, 2  # how far: in the lowest two bits
TOLD_PARENT = 4  # its parent has counted its answer
COUNT = 3  # from this bit on: votes counted, its own included

TREE_WIDTH = 8
TREE_PARENT, TREE_GROUP, TREE_SIZE, TREE_PATIENCE_NS, ANSWER_BYTES, ANSWER_VERIFY_NS = range(6)

# in a case's row, behind its votes
CASE_ANSWER, CASE_SIGN_NS, CASE_ANSWER_SIGN_NS, CASE_HANDLE_NS, CASE_QUORUM = range(16, 21)

HELD_SLOTS = 8


@compiled
def _progress_of(desk, gather, node):
    """Where a gathering keeps how far a voter has come."""
    return gather * desk[GATHER_STRIDE] + GATHER_HEAD + 2 * node


@compiled
def open_gathering(desk, block, case):
    """A fresh gathering, or -1 if there is none free."""
    if desk[GATHERS_FREE] == 0:
        return np.int64(-1)
    desk[GATHERS_FREE] -= 1
    gather = column(desk, GATHER_FREE)[desk[GATHERS_FREE]]
    rows = column(desk, GATHERING)
    at = gather * desk[GATHER_STRIDE]
    for i in range(desk[GATHER_STRIDE]):
        rows[at + i] = 0
    rows[at + GATHER_BLOCK] = block
    rows[at + GATHER_CASE] = case
    return gather


@compiled
def send_down(
    desk, case, src, kind, size, sign_ns, verify_ns, handle_ns, letter_key, need, running, block, view, number,
    decided, tree, known_height,
):  # fmt: skip
    """Lay out the case of a letter that goes down a tree, and send it to the root's children.

    Returns (envelope, the letter's action); envelope -1: there was no room.
    """
    none = np.int64(-1)
    if desk[GATHERS_FREE] == 0:
        return none, none
    identity = column(desk, BLOCK)[block * BLOCK_WIDTH + NUMBER]
    key = np.int64(join(join(join(0, view), number), identity) >> np.uint64(1))
    name, _, _, _ = open_case(desk, case, need, running, running, block, key, none, none, decided, none)
    if name < 0:
        return none, none
    gather = open_gathering(desk, block, case)
    column(desk, GATHERING)[_progress_of(desk, gather, src)] = WAITS | (1 << COUNT)
    rows = column(desk, ACTIONS)
    r = (name & 0xFFFFFFFF) * ACTION_WIDTH
    rows[r + GATHER] = gather + 1
    rows[r + TREE] = tree
    rows[r + VOTE_TO] = known_height
    whole_key = join(join(join(join(0, desk[SEED]), JITTER), src), letter_key)
    envelope = new_envelope(desk, src, kind, LETTER, size, verify_ns, handle_ns, 0, whole_key, name, 0)
    group = column(desk, TREE_NODE)[(tree * desk[SEATS] + src) * TREE_WIDTH + TREE_GROUP]
    send_group(desk, envelope, src, group, sign_ns)
    return envelope, name


@compiled
def _name_of(desk, block):
    """A block's name in an envelope's ARG."""
    return (column(desk, BLOCK)[block * BLOCK_WIDTH + NUMBER] << NAME_BITS) | block


@compiled
def _key_of(desk, node, kind):
    return join(join(join(join(0, desk[SEED]), JITTER), node), post_number(desk, node, kind))


@compiled
def _answer(desk, node, action, at, votes):
    """Send the votes of the node's whole subtree to its parent."""
    rows = column(desk, ACTIONS)
    r = action * ACTION_WIDTH
    tree = column(desk, TREE_NODE)
    gather = rows[r + GATHER] - 1
    cases = column(desk, CASES)
    c = column(desk, GATHERING)[gather * desk[GATHER_STRIDE] + GATHER_CASE] * CASE_WIDTH
    kind = cases[c + CASE_ANSWER] - 1
    envelope = new_envelope(
        desk, node, kind, LETTER, tree[at + ANSWER_BYTES], tree[at + ANSWER_VERIFY_NS], cases[c + CASE_HANDLE_NS],
        votes, _key_of(desk, node, kind), action + (rows[r + GENERATION] << 32), _name_of(desk, rows[r + OF_BLOCK]),
    )  # fmt: skip
    send_one(desk, envelope, node, tree[at + TREE_PARENT], cases[c + CASE_ANSWER_SIGN_NS])


@compiled
def _decides_next(desk, node, block):
    """Whether the node can decide the block and those below, or has: few steps lead down to its last one."""
    rows, peer = column(desk, BLOCK), column(desk, PEER)
    p = node * PEER_WIDTH
    if block < 0 or rows[block * BLOCK_WIDTH + HEIGHT] <= peer[p + TIP_HEIGHT]:
        return True
    for _ in range(2 * HELD_SLOTS):
        if rows[block * BLOCK_WIDTH + PARENT] == peer[p + TIP]:
            return True
        block = parent_of(desk, block)
        if block < 0:
            return False
    return False


@compiled
def _decide_up_to(desk, node, block):
    """Decide the block and those below, from the lowest on."""
    rows, peer = column(desk, BLOCK), column(desk, PEER)
    p = node * PEER_WIDTH
    while block >= 0 and rows[block * BLOCK_WIDTH + HEIGHT] > peer[p + TIP_HEIGHT]:
        lowest = block
        while rows[lowest * BLOCK_WIDTH + HEIGHT] > peer[p + TIP_HEIGHT] + 1:
            lowest = rows[lowest * BLOCK_WIDTH + PARENT]
        decide(desk, node, lowest)


@compiled
def _accept(desk, node, action, envelope):
    """The letter fits: pass it on, decide, and answer or wait for answers."""
    rows = column(desk, ACTIONS)
    r = action * ACTION_WIDTH
    state, peer = column(desk, NODE), column(desk, PEER)
    s, p = node * NODE_WIDTH, node * PEER_WIDTH
    state[s + GUARD] = rows[r + GUARD_AFTER]
    peer[p + ACCEPTED] = rows[r + OF_BLOCK]
    await_decision(desk, node, rows[r + OF_BLOCK])
    state[s + PROGRESS_NUMBER] += desk[PROGRESS_MODE] >> 1
    if desk[PROGRESS_MODE] == 2:
        state[s + PROGRESS_NS] = desk[NOW]
    tree = column(desk, TREE_NODE)
    at = (rows[r + TREE] * desk[SEATS] + node) * TREE_WIDTH
    gather = rows[r + GATHER] - 1
    if tree[at + TREE_GROUP] > 0:
        row = column(desk, ENVELOPE)
        e = envelope * ENVELOPE_WIDTH
        kind = row[e + KIND]
        c = column(desk, GATHERING)[gather * desk[GATHER_STRIDE] + GATHER_CASE] * CASE_WIDTH
        further = new_envelope(
            desk, node, kind, LETTER, row[e + SIZE], row[e + VERIFY_NS], row[e + HANDLE_NS], 0,
            _key_of(desk, node, kind), row[e + LETTERS_ACTION], _name_of(desk, rows[r + OF_BLOCK]),
        )  # fmt: skip
        send_group(desk, further, node, tree[at + TREE_GROUP], column(desk, CASES)[c + CASE_SIGN_NS])
    _decide_up_to(desk, node, rows[r + DECIDES_BLOCK])
    how = _progress_of(desk, gather, node)
    words = column(desk, GATHERING)
    if tree[at + TREE_GROUP] == 0:
        words[how] = (words[how] & TOLD_PARENT) | THROUGH | (1 << COUNT)
        _answer(desk, node, action, at, 1)
        return
    words[how] = (words[how] & TOLD_PARENT) | WAITS | (1 << COUNT)
    desk[TIMER_NUMBER] += 1
    words[how + 1] = desk[TIMER_NUMBER]
    due = desk[NOW] + by_clock(desk, node, tree[at + TREE_PATIENCE_NS])
    ready_push(desk, due, TIMER, node, desk[TIMER_NUMBER] | ((gather + 1) << TIMER_BITS))


@compiled
def _hold(desk, node, action, envelope):
    """Keep a letter whose turn has not come: True. False: it is not of this chain, or there is no place."""
    rows, blocks = column(desk, ACTIONS), column(desk, BLOCK)
    r = action * ACTION_WIDTH
    here = column(desk, NODE)[node * NODE_WIDTH + GUARD]
    if here < 0 or not _decides_next(desk, node, rows[r + DECIDES_BLOCK]):
        return False
    block = rows[r + OF_BLOCK]
    height = blocks[block * BLOCK_WIDTH + HEIGHT]
    for _ in range(HELD_SLOTS):
        block = parent_of(desk, block)
        if block < 0 or blocks[block * BLOCK_WIDTH + NUMBER] == here:
            break
    base = np.int64(0)
    if block >= 0:
        if blocks[block * BLOCK_WIDTH + NUMBER] != here:
            return False
        base = blocks[block * BLOCK_WIDTH + HEIGHT]
    elif here != 0:
        return False
    if rows[r + VOTE_TO] > base or height <= base:
        return False
    held = column(desk, HELD)
    free = np.int64(-1)
    for i in range(node * HELD_SLOTS, (node + 1) * HELD_SLOTS):
        if held[i] == 0:
            free = np.int64(i)
            continue
        other = column(desk, ENVELOPE)[(held[i] - 1) * ENVELOPE_WIDTH + LETTERS_ACTION] & 0xFFFFFFFF
        if other == action:
            drop_reference(desk, envelope)  # the same once more
            return True
        if blocks[rows[other * ACTION_WIDTH + OF_BLOCK] * BLOCK_WIDTH + HEIGHT] == height:
            return False
    if free < 0:
        return False
    held[free] = envelope + 1
    return True


@compiled
def _next_held(desk, node):
    """A held letter whose turn it is, no longer held; or -1."""
    held, row = column(desk, HELD), column(desk, ENVELOPE)
    here = column(desk, NODE)[node * NODE_WIDTH + GUARD]
    for i in range(node * HELD_SLOTS, (node + 1) * HELD_SLOTS):
        if held[i]:
            envelope = held[i] - 1
            action = current_action(desk, row[envelope * ENVELOPE_WIDTH + LETTERS_ACTION])
            if action > 0 and column(desk, ACTIONS)[action * ACTION_WIDTH + GUARD_BEFORE] == here:
                held[i] = 0
                return envelope
    return np.int64(-1)


@compiled
def _answered(desk, node, action, envelope):
    """A child's votes: count them, and answer when they are the last. False: the handlers see to it."""
    rows, row = column(desk, ACTIONS), column(desk, ENVELOPE)
    r, e = action * ACTION_WIDTH, envelope * ENVELOPE_WIDTH
    gather = rows[r + GATHER] - 1
    words = column(desk, GATHERING)
    how = _progress_of(desk, gather, node)
    if words[how] & 3 == AT_HANDLERS:
        return False
    height = column(desk, BLOCK)[rows[r + OF_BLOCK] * BLOCK_WIDTH + HEIGHT]
    child = _progress_of(desk, gather, row[e + SRC])
    if (
        words[how] & 3 == WAITS
        and words[child] & TOLD_PARENT == 0
        and height > column(desk, PEER)[node * PEER_WIDTH + TIP_HEIGHT]
    ):
        tree = column(desk, TREE_NODE)
        at = (rows[r + TREE] * desk[SEATS] + node) * TREE_WIDTH
        count = (words[how] >> COUNT) + row[e + VOTER]
        if tree[at + TREE_PARENT] == node:
            c = words[gather * desk[GATHER_STRIDE] + GATHER_CASE] * CASE_WIDTH
            if count >= column(desk, CASES)[c + CASE_QUORUM]:
                words[how] = (words[how] & ~3) | THROUGH
                return False  # this one completes the quorum: its handler counts it
        words[child] |= TOLD_PARENT
        words[how] += row[e + VOTER] << COUNT
        if count == tree[at + TREE_SIZE] and tree[at + TREE_PARENT] != node:
            words[how] += THROUGH - WAITS
            _answer(desk, node, action, at, count)
    drop_reference(desk, envelope)
    return True


@compiled
def in_tree(desk, node, action, envelope):
    """Perform what a letter of a tree asks for, and let go of it. False: the handlers see to it."""
    rows = column(desk, ACTIONS)
    r = action * ACTION_WIDTH
    gather = rows[r + GATHER] - 1
    c = column(desk, GATHERING)[gather * desk[GATHER_STRIDE] + GATHER_CASE] * CASE_WIDTH
    if desk[RULES] > 0:  # what rules must know of a letter, its sender's host tells
        return False
    if column(desk, ENVELOPE)[envelope * ENVELOPE_WIDTH + KIND] == column(desk, CASES)[c + CASE_ANSWER] - 1:
        return _answered(desk, node, action, envelope)
    if column(desk, NODE)[node * NODE_WIDTH + GUARD] != rows[r + GUARD_BEFORE]:
        return _hold(desk, node, action, envelope)
    if not _decides_next(desk, node, rows[r + DECIDES_BLOCK]):
        return False
    while envelope >= 0:
        name = column(desk, ENVELOPE)[envelope * ENVELOPE_WIDTH + LETTERS_ACTION]
        _accept(desk, node, current_action(desk, name), envelope)
        drop_reference(desk, envelope)
        envelope = _next_held(desk, node)
    return True


@compiled
def timer_is_idle(desk, node, argument):
    """Whether nobody needs this timer of the fast path's any more."""
    gather = (argument >> TIMER_BITS) - 1
    if gather < 0:
        return False
    words = column(desk, GATHERING)
    how = _progress_of(desk, gather, node)
    if words[gather * desk[GATHER_STRIDE] + GATHER_BLOCK] < 0:  # its block is over
        return True
    return words[how + 1] != argument & 0xFFFFFFFF or words[how] & 3 == THROUGH


@compiled
def release_held(desk, node):
    """A node crashes: the letters kept there are gone."""
    held = column(desk, HELD)
    for i in range(node * HELD_SLOTS, (node + 1) * HELD_SLOTS):
        if held[i]:
            drop_reference(desk, held[i] - 1)
            held[i] = 0


@compiled
def forget_gatherings(desk, node):
    """A node crashes: what it has counted is gone; what its parents have counted is not."""
    words = column(desk, GATHERING)
    for gather in range(length(desk, GATHERING) // desk[GATHER_STRIDE]):
        how = _progress_of(desk, gather, node)
        words[how] &= TOLD_PARENT
        words[how + 1] = 0


@compiled
def take_over(desk, block_action, node):
    """What a voter has counted, in the handlers' hands from now on: its word as it was, or 0."""
    action = current_action(desk, block_action)
    if action == 0:
        return np.int64(0)
    gather = column(desk, ACTIONS)[action * ACTION_WIDTH + GATHER] - 1
    if gather < 0:
        return np.int64(0)
    words = column(desk, GATHERING)
    how = _progress_of(desk, gather, node)
    word = words[how]
    if word & 3 == WAITS:
        words[how] = word & TOLD_PARENT
    return word


@compiled
def has_answered(desk, block_action, child):
    """Whether the parent has counted a child's answer."""
    action = current_action(desk, block_action)
    gather = column(desk, ACTIONS)[action * ACTION_WIDTH + GATHER] - 1
    return column(desk, GATHERING)[_progress_of(desk, gather, child)] & TOLD_PARENT > 0
