"""A proposer that goes on by itself: what a leader does while nothing is wrong, without entering Python.

A protocol whose leader proposes one block after another may give the engine leave to do so (`sim.protocol.Lease`):
whenever the leader has decided a block in the fast path, or a batch is due, the engine makes the next block, lays out
its normal case and sends the message, as the protocol's handler would. It stops where the leave ends, and when it
finds no room; then the handler runs.

Python makes an object of such a block only if a handler asks for it. Until then the block is *unseen*, found by
its height through `UNSEEN`, and freed by the engine.
"""

from __future__ import annotations

import numpy as np

from sim.engine import actions
from sim.engine.actions import release_action
from sim.engine.capacity import has_capacity
from sim.engine.cases import CASE_GATED, CASE_VOTE, CASE_WIDTH, CASES, first_vote_weight, open_case, release_tally
from sim.engine.votes import NARROW_FREE_LEN, WIDE_FREE_LEN, cast_vote, count_now
from sim.kernel import due as events
from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.kernel import tally as tallies
from sim.kernel.chance import JITTER, join
from sim.kernel.due import ready_push
from sim.kernel.layout import slot
from sim.kernel.post import new_envelope
from sim.kernel.rules import NOWHERE
from sim.kernel.run_state import column, compiled, length, make_capacity
from sim.kernel.sending import send_group
from sim.ledger import rows as ledger
from sim.ledger.chain import await_decision, free_block, new_block
from sim.ledger.execution import BEFORE_VOTE, BETWEEN_BLOCKS, execution_ns
from sim.ledger.payload import parent_of
from sim.ledger.pool import batch_due_ns, batch_is_due, something_is_new

# columns
LEASE = slot(54)  # LEASE_WIDTH per seat
POSTED = slot(55)  # per endpoint and message type, how many messages it has posted: identities for their chance
UNSEEN = slot(63)  # by height (modulo the length): row + 1 of the first unseen block, linked by NEXT_UNSEEN

LEASE_WIDTH = 24
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
    EXTRA_BYTES,  # of a message besides its block
    SIGN_NS,
    VERIFY_NS,  # besides hashing
    HASH_PS,  # per byte
    HANDLE_NS,
    NEEDS,  # guards before, during and after the case
    RUNNING,
    AFTER,
    VOTES_TO,
    SAID_VIEW,  # what rules match: the message's view, and its height less the block's (NOWHERE: it has none)
    SAID_HEIGHT,
    AUDIENCE,  # whom the message and votes to all go to, -1 - group
) = range(22)
NAME_BITS = 24  # a message of the engine's names its block in ARG: number << NAME_BITS | row


@compiled
def arm_batch(run_state, node):
    """A proposer waits: True if a block is due now, else wake it when its interval ends."""
    peer = column(run_state, ledger.PEER)
    p = node * ledger.PEER_WIDTH
    if batch_is_due(run_state, node):
        return True
    if something_is_new(run_state, node):
        at = batch_due_ns(run_state, node)
        if at > run_state[kernel.NOW] and peer[p + ledger.BATCH_TIMER] != at:
            peer[p + ledger.BATCH_TIMER] = at
            ready_push(run_state, at, events.BATCH, node, 0)
    return False


@compiled
def await_batch(run_state, node, not_before_ns):
    """Wake the node when a block is due. True: one is due now, and no wake follows."""
    peer = column(run_state, ledger.PEER)
    p = node * ledger.PEER_WIDTH
    peer[p + ledger.BATCH_ON] = 1
    peer[p + ledger.BATCH_AT] = not_before_ns
    if arm_batch(run_state, node):
        peer[p + ledger.BATCH_ON] = 0
        return True
    return False


@compiled
def send_case(
    run_state, case, src, kind, size, sign_ns, verify_ns, handle_ns, message_key,
    need, running, after, block, view, number, to, audience, decided, notify, arg,
):  # fmt: skip
    """Lay out a normal case for a block and the ballot (view, number), and send its message to the audience.

    Returns (envelope, the message's action, its tally rows); envelope -1: there was no room.
    """
    none = np.int64(-1)
    identity = column(run_state, ledger.BLOCK)[block * ledger.BLOCK_WIDTH + ledger.NUMBER]
    key = np.int64(join(join(join(0, view), number), identity) >> np.uint64(1))
    action, row_1, row_2, row_3 = open_case(
        run_state, case, need, running, after, block, key, to, audience, decided, notify
    )
    if action < 0:
        return none, none, none, none, none
    if run_state[kernel.RULES] > 0:
        for row in (row_1, row_2, row_3):
            if row >= 0:
                column(run_state, kernel.TALLY_PLACE)[2 * row] = view
                column(run_state, kernel.TALLY_PLACE)[2 * row + 1] = number
    whole_key = join(join(join(join(0, run_state[kernel.SEED]), JITTER), src), message_key)
    envelope = new_envelope(run_state, src, kind, post.MESSAGE, size, verify_ns, handle_ns, 0, whole_key, action, arg)
    send_group(run_state, envelope, src, -1 - audience, sign_ns)
    return envelope, action, row_1, row_2, row_3


@compiled
def post_number(run_state, src, kind):
    """Identity of a message: its type, and how many of that type its sender has posted before."""
    posted = column(run_state, POSTED)
    number = posted[src * post.KINDS + kind]
    posted[src * post.KINDS + kind] = number + 1
    return (kind << 48) + number


@compiled
def _propose(run_state, node, parent, height):
    """Make the next block and send it. False: nothing waits after all."""
    lease = column(run_state, LEASE)
    at = node * LEASE_WIDTH
    block = new_block(run_state, node, parent, height, lease[at + IN_VIEW], False)
    if block < 0:
        return False
    rows = column(run_state, ledger.BLOCK)
    b = block * ledger.BLOCK_WIDTH
    lease[at + LAST] = block
    lease[at + LAST_NUMBER] = rows[b + ledger.NUMBER]
    lease[at + LAST_HEIGHT] = height
    lease[at + LAST_NS] = run_state[kernel.NOW]
    kind = lease[at + OF_KIND]
    size = lease[at + EXTRA_BYTES] + rows[b + ledger.BYTES]
    verify_ns = lease[at + VERIFY_NS] + size * lease[at + HASH_PS] // 1000
    sign_ns = lease[at + SIGN_NS]
    if run_state[ledger.EXECUTE_PLACE] == BEFORE_VOTE:
        verify_ns += execution_ns(run_state, block)
        sign_ns += execution_ns(run_state, block)
    elif run_state[ledger.EXECUTE_PLACE] == BETWEEN_BLOCKS:
        sign_ns += max(
            column(run_state, kernel.NODE)[node * post.NODE_WIDTH + post.EXECUTE_FREE] - run_state[kernel.NOW], 0
        )
    case, to, audience = lease[at + IN_CASE], lease[at + VOTES_TO], lease[at + AUDIENCE]
    if run_state[kernel.RULES] > 0:
        run_state[kernel.MESSAGE_VIEW] = lease[at + SAID_VIEW]
        run_state[kernel.MESSAGE_HEIGHT] = (
            NOWHERE if lease[at + SAID_HEIGHT] == NOWHERE else height + lease[at + SAID_HEIGHT]
        )
    _, action, row_1, row_2, row_3 = send_case(
        run_state, case, node, kind, size, sign_ns, verify_ns, lease[at + HANDLE_NS],
        post_number(run_state, node, kind), lease[at + NEEDS], lease[at + RUNNING], lease[at + AFTER], block,
        lease[at + IN_VIEW], height, to, audience, np.int64(-1), node, (rows[b + ledger.NUMBER] << NAME_BITS) | block,
    )  # fmt: skip
    rows[b + ledger.CASE] = case
    rows[b + ledger.CASE_ACTION] = action
    rows[b + ledger.CASE_ROWS] = row_1
    rows[b + ledger.CASE_ROWS + 1] = row_2
    rows[b + ledger.CASE_ROWS + 2] = row_3
    enlist(run_state, block)
    c = case * CASE_WIDTH
    if column(run_state, CASES)[c + CASE_GATED]:
        count_now(run_state, row_1, node, node, tallies.GATE)
    elif row_1 >= 0:
        await_decision(run_state, node, block)
        target = audience if column(run_state, CASES)[c + CASE_VOTE + 1] else to
        cast_vote(run_state, node, row_1, target, first_vote_weight(run_state, c))
    return True


@compiled
def go_on(run_state, node):
    """Propose while the node's leave, its pipeline and the waiting transactions allow.

    False: its handler must see to it, because the leave ends or there is no room.
    """
    lease = column(run_state, LEASE)
    at = node * LEASE_WIDTH
    if lease[at + UNTIL] == 0:
        return False
    peer = column(run_state, ledger.PEER)
    p = node * ledger.PEER_WIDTH
    while True:
        decided = peer[p + ledger.TIP_HEIGHT]
        ahead = lease[at + LAST_HEIGHT] > decided
        top = lease[at + LAST_HEIGHT] if ahead else decided
        if top >= decided + lease[at + PIPELINE]:
            return True
        if top >= lease[at + UNTIL] or not has_capacity(run_state):
            return False
        if run_state[WIDE_FREE_LEN] < 3 or run_state[NARROW_FREE_LEN] < 3 or run_state[actions.ACTIONS_FREE] < 4:
            return False
        due_ns = lease[at + LAST_NS] + lease[at + INTERVAL_NS]
        if not await_batch(run_state, node, due_ns):
            return True
        if run_state[ledger.BACKLOG_BYTES] == 0 and peer[p + ledger.POOL_TAIL] == peer[p + ledger.POOL_HEAD]:
            peer[p + ledger.FRESH] = 0  # what had come was decided elsewhere meanwhile
            await_batch(run_state, node, due_ns)
            return True
        if not _propose(run_state, node, lease[at + LAST] if ahead else peer[p + ledger.TIP], top + 1):
            await_batch(run_state, node, due_ns)
            return True


# --- blocks that Python has not seen -------------------------------------------------------------------------


@compiled
def enlist(run_state, block):
    """Python has no object of the block, or none any more."""
    rows = column(run_state, ledger.BLOCK)
    b = block * ledger.BLOCK_WIDTH
    heads = column(run_state, UNSEEN)
    slot = rows[b + ledger.HEIGHT] & (length(run_state, UNSEEN) - 1)
    rows[b + ledger.SEEN] = 0
    rows[b + ledger.NEXT_UNSEEN] = heads[slot]
    heads[slot] = block + 1


@compiled
def see(run_state, block):
    """Python has an object of the block from now on, and is the one to free it."""
    rows = column(run_state, ledger.BLOCK)
    b = block * ledger.BLOCK_WIDTH
    if rows[b + ledger.SEEN]:
        return
    rows[b + ledger.SEEN] = 1
    heads = column(run_state, UNSEEN)
    slot = rows[b + ledger.HEIGHT] & (length(run_state, UNSEEN) - 1)
    if heads[slot] == block + 1:
        heads[slot] = rows[b + ledger.NEXT_UNSEEN]
        return
    before = heads[slot] - 1
    while rows[before * ledger.BLOCK_WIDTH + ledger.NEXT_UNSEEN] != block + 1:
        before = rows[before * ledger.BLOCK_WIDTH + ledger.NEXT_UNSEEN] - 1
    rows[before * ledger.BLOCK_WIDTH + ledger.NEXT_UNSEEN] = rows[b + ledger.NEXT_UNSEEN]


@compiled
def unseen_at(run_state, height):
    """An unseen block of a height, or -1."""
    rows = column(run_state, ledger.BLOCK)
    block = column(run_state, UNSEEN)[height & (length(run_state, UNSEEN) - 1)] - 1
    while block >= 0 and rows[block * ledger.BLOCK_WIDTH + ledger.HEIGHT] != height:
        block = rows[block * ledger.BLOCK_WIDTH + ledger.NEXT_UNSEEN] - 1
    return block


@compiled
def release_case(run_state, block):
    """The normal case laid out for a block is over."""
    rows = column(run_state, ledger.BLOCK)
    b = block * ledger.BLOCK_WIDTH
    if rows[b + ledger.CASE_ACTION] > 0:
        release_action(run_state, rows[b + ledger.CASE_ACTION])
        rows[b + ledger.CASE_ACTION] = 0
    for i in range(3):
        if rows[b + ledger.CASE_ROWS + i] >= 0:
            release_tally(run_state, rows[b + ledger.CASE_ROWS + i])
            rows[b + ledger.CASE_ROWS + i] = -1


@compiled
def sweep(run_state, lowest):
    """Free the closed blocks below a height. Returns how many of them Python must free.

    Their rows are put into HANDED.
    """
    if length(run_state, ledger.HANDED) < run_state[ledger.CLOSED_LEN]:
        make_capacity(run_state, ledger.HANDED)
    closed = column(run_state, ledger.CLOSED)
    handed = column(run_state, ledger.HANDED)
    rows = column(run_state, ledger.BLOCK)
    kept = np.int64(0)
    seen = np.int64(0)
    for i in range(run_state[ledger.CLOSED_LEN]):
        block = closed[i]
        if rows[block * ledger.BLOCK_WIDTH + ledger.HEIGHT] >= lowest:
            closed[kept] = block
            kept += 1
        elif rows[block * ledger.BLOCK_WIDTH + ledger.SEEN]:
            handed[seen] = block
            seen += 1
        else:
            release_case(run_state, block)
            see(run_state, block)
            free_block(run_state, block)
    run_state[ledger.CLOSED_LEN] = kept
    return seen


@compiled
def _is_quiet(run_state, block):
    """Whether no vote of the block's case is on its way or waits to be processed."""
    rows = column(run_state, ledger.BLOCK)
    for i in range(3):
        row = rows[block * ledger.BLOCK_WIDTH + ledger.CASE_ROWS + i]
        if row >= 0 and column(run_state, kernel.TALLY)[row * tallies.ROW + tallies.REFERENCES] > 0:
            return False
    return True


@compiled
def trim(run_state, low, since_ns):
    """Let go of the tallies of blocks that are kept only for voters that are down.

    These are blocks above height `low`, proposed after `since_ns` (nobody who is down has voted on them), that all
    voters who are up have decided, 64 heights ago. Returns (height up to which that holds, how many rows Python
    must see to: they are put into HANDED).
    """
    peer, node = column(run_state, ledger.PEER), column(run_state, kernel.NODE)
    lowest = np.int64(-1)
    for i in range(run_state[kernel.SEATS]):
        if node[i * post.NODE_WIDTH + post.UP] and (
            lowest < 0
            or peer[i * ledger.PEER_WIDTH + ledger.TIP_HEIGHT] < peer[lowest * ledger.PEER_WIDTH + ledger.TIP_HEIGHT]
        ):
            lowest = np.int64(i)
    seen = np.int64(0)
    if lowest < 0:
        return low, seen
    rows = column(run_state, ledger.BLOCK)
    high = peer[lowest * ledger.PEER_WIDTH + ledger.TIP_HEIGHT] - 64
    block = peer[lowest * ledger.PEER_WIDTH + ledger.TIP]
    while block >= 0:
        b = block * ledger.BLOCK_WIDTH
        if rows[b + ledger.HEIGHT] <= low or rows[b + ledger.PROPOSED_NS] <= since_ns:
            break
        if rows[b + ledger.HEIGHT] <= high:
            if rows[b + ledger.SEEN] == 0:
                if _is_quiet(run_state, block):
                    release_case(run_state, block)
            else:
                if seen == length(run_state, ledger.HANDED):
                    make_capacity(run_state, ledger.HANDED)
                column(run_state, ledger.HANDED)[seen] = block
                seen += 1
        block = parent_of(run_state, block)
    return max(low, high), seen
