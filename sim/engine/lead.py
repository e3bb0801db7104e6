"""A proposer that goes on by itself: what a leader does while nothing is wrong, without entering Python.

A protocol whose leader proposes one block after another may give the engine leave to do so (`sim.protocol.Lead`):
whenever the leader has decided a block in the fast path, or a batch is due, the engine makes the next block, lays out
its normal case and sends the letter, as the protocol's handler would. It stops where the leave ends, and when it
finds no room; then the handler runs.

Python makes an object of such a block only if a handler asks for it. Until then the block is *unseen*, found by
its height through `UNSEEN`, and freed by the engine.
"""

from __future__ import annotations

import numpy as np

from sim.engine.actions import ACTIONS_FREE, release_action
from sim.engine.cases import CASE_GATED, CASE_VOTE, CASE_WIDTH, CASES, first_vote_weight, open_case, release_tally
from sim.engine.room import has_room
from sim.engine.votes import NARROW_FREE_LEN, WIDE_FREE_LEN, cast_vote, count_now
from sim.kernel.chance import JITTER, join
from sim.kernel.desk import (
    MESSAGE_HEIGHT,
    MESSAGE_VIEW,
    NODE,
    NOW,
    RULES,
    SEATS,
    SEED,
    TALLY,
    TALLY_PLACE,
    column,
    compiled,
    length,
    make_room,
)
from sim.kernel.due import BATCH, ready_push
from sim.kernel.post import KINDS, LETTER, NODE_WIDTH, UP, new_envelope
from sim.kernel.rules import NOWHERE
from sim.kernel.sending import send_group
from sim.kernel.tally import GATE, REFERENCES, ROW
from sim.ledger.chain import await_decision, free_block, new_block
from sim.ledger.payload import parent_of
from sim.ledger.pool import batch_is_due
from sim.ledger.rows import (
    BACKLOG_BYTES,
    BATCH_AT,
    BATCH_ON,
    BATCH_TIMER,
    BLOCK,
    BLOCK_WIDTH,
    BYTES,
    CASE,
    CASE_ACTION,
    CASE_ROWS,
    CLOSED,
    CLOSED_LEN,
    FRESH,
    HANDED,
    HEIGHT,
    NEXT_UNSEEN,
    NUMBER,
    PEER,
    PEER_WIDTH,
    POOL_HEAD,
    POOL_TAIL,
    PROPOSED_NS,
    SEEN,
    TIP,
    TIP_HEIGHT,
)

# columns
LEAD = 54  # LEAD_WIDTH per seat
POSTED = 55  # per endpoint and message type, how many letters it has posted: identities for their chance
UNSEEN = 63  # by height (modulo the length): row + 1 of the first unseen block, linked by NEXT_UNSEEN

LEAD_WIDTH = 24
(
    UNTIL,  # last height the engine may propose; 0: no leave
    PIPELINE,
    LAST,  # block proposed last, its number and height
    LAST_NUMBER,
    LAST_HEIGHT,
    LAST_NS,  # when anything was proposed last
    INTERVAL_NS,  # least time between two proposals
    IN_VIEW,
    IN_CASE,
    OF_KIND,
    EXTRA_BYTES,  # of a letter besides its block
    SIGN_NS,
    VERIFY_NS,  # besides hashing
    HASH_PS,  # per byte
    HANDLE_NS,
    NEEDS,  # guards before, during and after the case
    RUNNING,
    AFTER,
    VOTES_TO,
    SAID_VIEW,  # what rules match: the letter's view, and its height less the block's (NOWHERE: it has none)
    SAID_HEIGHT,
    AUDIENCE,  # whom the letter and votes to all go to, -1 - group
) = range(22)
NAME_BITS = 24  # a letter of the engine's names its block in ARG: number << NAME_BITS | row


@compiled
def arm_batch(desk, node):
    """A proposer waits: True if a block is due now, else wake it when its interval ends."""
    peer = column(desk, PEER)
    p = node * PEER_WIDTH
    if batch_is_due(desk, node):
        return True
    at = peer[p + BATCH_AT]
    if at > desk[NOW] and peer[p + BATCH_TIMER] != at and (desk[BACKLOG_BYTES] > 0 or peer[p + FRESH] > 0):
        peer[p + BATCH_TIMER] = at
        ready_push(desk, at, BATCH, node, 0)
    return False


@compiled
def await_batch(desk, node, not_before_ns):
    """Wake the node when a block is due. True: one is due now, and no wake follows."""
    peer = column(desk, PEER)
    p = node * PEER_WIDTH
    peer[p + BATCH_ON] = 1
    peer[p + BATCH_AT] = not_before_ns
    if arm_batch(desk, node):
        peer[p + BATCH_ON] = 0
        return True
    return False


@compiled
def send_case(
    desk, case, src, kind, size, sign_ns, verify_ns, handle_ns, letter_key,
    need, running, after, block, view, number, to, audience, decided, wakes, arg,
):  # fmt: skip
    """Lay out a normal case for a block and the ballot (view, number), and send its letter to the audience.

    Returns (envelope, the letter's action, its tally rows); envelope -1: there was no room.
    """
    none = np.int64(-1)
    identity = column(desk, BLOCK)[block * BLOCK_WIDTH + NUMBER]
    key = np.int64(join(join(join(0, view), number), identity) >> np.uint64(1))
    action, row_1, row_2, row_3 = open_case(desk, case, need, running, after, block, key, to, audience, decided, wakes)
    if action < 0:
        return none, none, none, none, none
    if desk[RULES] > 0:
        for row in (row_1, row_2, row_3):
            if row >= 0:
                column(desk, TALLY_PLACE)[2 * row] = view
                column(desk, TALLY_PLACE)[2 * row + 1] = number
    whole_key = join(join(join(join(0, desk[SEED]), JITTER), src), letter_key)
    envelope = new_envelope(desk, src, kind, LETTER, size, verify_ns, handle_ns, 0, whole_key, action, arg)
    send_group(desk, envelope, src, -1 - audience, sign_ns)
    return envelope, action, row_1, row_2, row_3


@compiled
def post_number(desk, src, kind):
    """Identity of a letter: its type, and how many of that type its sender has posted before."""
    posted = column(desk, POSTED)
    number = posted[src * KINDS + kind]
    posted[src * KINDS + kind] = number + 1
    return (kind << 48) + number


@compiled
def _propose(desk, node, parent, height):
    """Make the next block and send it. False: nothing waits after all."""
    lead = column(desk, LEAD)
    at = node * LEAD_WIDTH
    block = new_block(desk, node, parent, height, lead[at + IN_VIEW], False)
    if block < 0:
        return False
    rows = column(desk, BLOCK)
    b = block * BLOCK_WIDTH
    lead[at + LAST] = block
    lead[at + LAST_NUMBER] = rows[b + NUMBER]
    lead[at + LAST_HEIGHT] = height
    lead[at + LAST_NS] = desk[NOW]
    kind = lead[at + OF_KIND]
    size = lead[at + EXTRA_BYTES] + rows[b + BYTES]
    verify_ns = lead[at + VERIFY_NS] + size * lead[at + HASH_PS] // 1000
    case, to, audience = lead[at + IN_CASE], lead[at + VOTES_TO], lead[at + AUDIENCE]
    if desk[RULES] > 0:
        desk[MESSAGE_VIEW] = lead[at + SAID_VIEW]
        desk[MESSAGE_HEIGHT] = NOWHERE if lead[at + SAID_HEIGHT] == NOWHERE else height + lead[at + SAID_HEIGHT]
    _, action, row_1, row_2, row_3 = send_case(
        desk, case, node, kind, size, lead[at + SIGN_NS], verify_ns, lead[at + HANDLE_NS],
        post_number(desk, node, kind), lead[at + NEEDS], lead[at + RUNNING], lead[at + AFTER], block,
        lead[at + IN_VIEW], height, to, audience, np.int64(-1), node, (rows[b + NUMBER] << NAME_BITS) | block,
    )  # fmt: skip
    rows[b + CASE] = case
    rows[b + CASE_ACTION] = action
    rows[b + CASE_ROWS] = row_1
    rows[b + CASE_ROWS + 1] = row_2
    rows[b + CASE_ROWS + 2] = row_3
    enlist(desk, block)
    c = case * CASE_WIDTH
    if column(desk, CASES)[c + CASE_GATED]:
        count_now(desk, row_1, node, node, GATE)
    elif row_1 >= 0:
        await_decision(desk, node, block)
        target = audience if column(desk, CASES)[c + CASE_VOTE + 1] else to
        cast_vote(desk, node, row_1, target, first_vote_weight(desk, c))
    return True


@compiled
def go_on(desk, node):
    """Propose while the node's leave, its pipeline and the waiting transactions allow.

    False: its handler must see to it, because the leave ends or there is no room.
    """
    lead = column(desk, LEAD)
    at = node * LEAD_WIDTH
    if lead[at + UNTIL] == 0:
        return False
    peer = column(desk, PEER)
    p = node * PEER_WIDTH
    while True:
        decided = peer[p + TIP_HEIGHT]
        ahead = lead[at + LAST_HEIGHT] > decided
        top = lead[at + LAST_HEIGHT] if ahead else decided
        if top >= decided + lead[at + PIPELINE]:
            return True
        if top >= lead[at + UNTIL] or not has_room(desk):
            return False
        if desk[WIDE_FREE_LEN] < 3 or desk[NARROW_FREE_LEN] < 3 or desk[ACTIONS_FREE] < 4:
            return False
        due_ns = lead[at + LAST_NS] + lead[at + INTERVAL_NS]
        if not await_batch(desk, node, due_ns):
            return True
        if desk[BACKLOG_BYTES] == 0 and peer[p + POOL_TAIL] == peer[p + POOL_HEAD]:
            peer[p + FRESH] = 0  # what had come was decided elsewhere meanwhile
            await_batch(desk, node, due_ns)
            return True
        if not _propose(desk, node, lead[at + LAST] if ahead else peer[p + TIP], top + 1):
            await_batch(desk, node, due_ns)
            return True


# --- blocks that Python has not seen -------------------------------------------------------------------------


@compiled
def enlist(desk, block):
    """Python has no object of the block, or none any more."""
    rows = column(desk, BLOCK)
    b = block * BLOCK_WIDTH
    heads = column(desk, UNSEEN)
    slot = rows[b + HEIGHT] & (length(desk, UNSEEN) - 1)
    rows[b + SEEN] = 0
    rows[b + NEXT_UNSEEN] = heads[slot]
    heads[slot] = block + 1


@compiled
def see(desk, block):
    """Python has an object of the block from now on, and is the one to free it."""
    rows = column(desk, BLOCK)
    b = block * BLOCK_WIDTH
    if rows[b + SEEN]:
        return
    rows[b + SEEN] = 1
    heads = column(desk, UNSEEN)
    slot = rows[b + HEIGHT] & (length(desk, UNSEEN) - 1)
    if heads[slot] == block + 1:
        heads[slot] = rows[b + NEXT_UNSEEN]
        return
    before = heads[slot] - 1
    while rows[before * BLOCK_WIDTH + NEXT_UNSEEN] != block + 1:
        before = rows[before * BLOCK_WIDTH + NEXT_UNSEEN] - 1
    rows[before * BLOCK_WIDTH + NEXT_UNSEEN] = rows[b + NEXT_UNSEEN]


@compiled
def unseen_at(desk, height):
    """An unseen block of a height, or -1."""
    rows = column(desk, BLOCK)
    block = column(desk, UNSEEN)[height & (length(desk, UNSEEN) - 1)] - 1
    while block >= 0 and rows[block * BLOCK_WIDTH + HEIGHT] != height:
        block = rows[block * BLOCK_WIDTH + NEXT_UNSEEN] - 1
    return block


@compiled
def release_case(desk, block):
    """The normal case laid out for a block is over."""
    rows = column(desk, BLOCK)
    b = block * BLOCK_WIDTH
    if rows[b + CASE_ACTION] > 0:
        release_action(desk, rows[b + CASE_ACTION])
        rows[b + CASE_ACTION] = 0
    for i in range(3):
        if rows[b + CASE_ROWS + i] >= 0:
            release_tally(desk, rows[b + CASE_ROWS + i])
            rows[b + CASE_ROWS + i] = -1


@compiled
def sweep(desk, lowest):
    """Free the closed blocks below a height. Returns how many of them Python must free.

    Their rows are put into HANDED.
    """
    if length(desk, HANDED) < desk[CLOSED_LEN]:
        make_room(desk, HANDED)
    closed = column(desk, CLOSED)
    handed = column(desk, HANDED)
    rows = column(desk, BLOCK)
    kept = np.int64(0)
    seen = np.int64(0)
    for i in range(desk[CLOSED_LEN]):
        block = closed[i]
        if rows[block * BLOCK_WIDTH + HEIGHT] >= lowest:
            closed[kept] = block
            kept += 1
        elif rows[block * BLOCK_WIDTH + SEEN]:
            handed[seen] = block
            seen += 1
        else:
            release_case(desk, block)
            see(desk, block)
            free_block(desk, block)
    desk[CLOSED_LEN] = kept
    return seen


@compiled
def _is_quiet(desk, block):
    """Whether no vote of the block's case is on its way or waits to be processed."""
    rows = column(desk, BLOCK)
    for i in range(3):
        row = rows[block * BLOCK_WIDTH + CASE_ROWS + i]
        if row >= 0 and column(desk, TALLY)[row * ROW + REFERENCES] > 0:
            return False
    return True


@compiled
def shed(desk, low, since_ns):
    """Let go of the tallies of blocks that are kept only for voters that are down.

    These are blocks above height `low`, proposed after `since_ns` (nobody who is down has voted on them), that all
    voters who are up have decided, 64 heights ago. Returns (height up to which that holds, how many rows Python
    must see to: they are put into HANDED).
    """
    peer, node = column(desk, PEER), column(desk, NODE)
    lowest = np.int64(-1)
    for i in range(desk[SEATS]):
        if node[i * NODE_WIDTH + UP] and (
            lowest < 0 or peer[i * PEER_WIDTH + TIP_HEIGHT] < peer[lowest * PEER_WIDTH + TIP_HEIGHT]
        ):
            lowest = np.int64(i)
    seen = np.int64(0)
    if lowest < 0:
        return low, seen
    rows = column(desk, BLOCK)
    high = peer[lowest * PEER_WIDTH + TIP_HEIGHT] - 64
    block = peer[lowest * PEER_WIDTH + TIP]
    while block >= 0:
        b = block * BLOCK_WIDTH
        if rows[b + HEIGHT] <= low or rows[b + PROPOSED_NS] <= since_ns:
            break
        if rows[b + HEIGHT] <= high:
            if rows[b + SEEN] == 0:
                if _is_quiet(desk, block):
                    release_case(desk, block)
            else:
                if seen == length(desk, HANDED):
                    make_room(desk, HANDED)
                column(desk, HANDED)[seen] = block
                seen += 1
        block = parent_of(desk, block)
    return max(low, high), seen
