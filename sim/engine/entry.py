"""The compiled functions that Python calls, each with one fixed signature so that they load from the cache.

A result of -1 where a row number is expected means "make room and call again": nothing has been changed.
"""

from __future__ import annotations

import numpy as np
from numba import types

from sim.engine import actions, dissemination, gossip, timers
from sim.engine import lease as leading
from sim.engine.actions import release_action
from sim.engine.capacity import has_capacity
from sim.engine.cases import open_any_value, release_tally
from sim.engine.loop import progress_period_ns
from sim.engine.relay import start_flood
from sim.engine.settings import NO_LIMIT
from sim.engine.votes import cast_vote, count_now, open_tally, send_vote, vote_arrives
from sim.kernel import due as events
from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.kernel import tally as tallies
from sim.kernel.chance import JITTER, join
from sim.kernel.due import ready_push
from sim.kernel.post import drop_reference, new_envelope
from sim.kernel.run_state import all_is_compiled, column, entry, pointer
from sim.kernel.sending import send_group, send_one
from sim.kernel.sharing import forget_gaps
from sim.kernel.tally import cast_again, forget_node, has_voted
from sim.ledger import rows as ledger
from sim.ledger.answers import resubmit as answers_resubmit
from sim.ledger.chain import decide, decide_or_wait, extends_tip, free_block, maybe_close, new_block, undecide
from sim.ledger.execution import BETWEEN_BLOCKS
from sim.ledger.pool import empty_pool, forward_again, lead, oldest_waiting_ns, spread_to, trim_pool
from sim.ledger.transactions import submit_one

_I = types.int64
_D = types.Array(types.int64, 1, "C")


@entry(_I(_D, _I, _I, _I, _I, _I, _I, _I, _I, _I, _I))
def post_message(array, src, to, kind, size, sign_ns, verify_ns, handle_ns, key, action, arg):
    """Send a message to a node (`to` >= 0) or a group (-1 - group). Returns its envelope or -1."""
    run_state = pointer(array)
    if not has_capacity(run_state):
        return np.int64(-1)
    whole_key = join(join(join(join(0, run_state[kernel.SEED]), JITTER), src), key)
    envelope = new_envelope(run_state, src, kind, post.MESSAGE, size, verify_ns, handle_ns, 0, whole_key, action, arg)
    if to < 0:
        send_group(run_state, envelope, src, -1 - to, sign_ns)
    else:
        send_one(run_state, envelope, src, to, sign_ns)
    return envelope


@entry(_I(_D, _I, _I, _I, _I))
def vote(array, node, row, to, local_weight):
    """Cast a node's vote in a row; returns 0, or -1 for room."""
    run_state = pointer(array)
    if not has_capacity(run_state):
        return np.int64(-1)
    cast_vote(run_state, node, row, to, local_weight)
    return np.int64(0)


@entry(_I(_D, _I, _I, _I, _I))
def vote_to(array, node, row, to, again):
    """A node's vote leaves for one other node; `again`: it has been sent before. Returns 0, or -1 for room."""
    run_state = pointer(array)
    if not has_capacity(run_state):
        return np.int64(-1)
    send_vote(run_state, node, row, to, again != 0)
    return np.int64(0)


@entry(_I(_D, _I, _I))
def sends_again(array, node, row):
    """Whether a node has sent its vote in a row before; from now on it has."""
    run_state = pointer(array)
    return np.int64(cast_again(run_state, row, node))


@entry(_I(_D, _I, _I, _I))
def count_vote(array, row, node, voter):
    """Another voter's vote has reached a node inside a message: it counts now. Returns 0, or -1 for room."""
    run_state = pointer(array)
    if not has_capacity(run_state):
        return np.int64(-1)
    vote_arrives(run_state, row, node, voter, run_state[kernel.NOW])
    return np.int64(0)


@entry(_I(_D, _I, _I, _I))
def open_gate(array, row, node, voter):
    """The condition of a gated row is met at a node, on the word of `voter`; returns 1 if it was met before."""
    run_state = pointer(array)
    if has_voted(run_state, row, node, voter):
        return np.int64(1)
    count_now(run_state, row, node, voter, tallies.GATE)
    return np.int64(0)


@entry(_I(_D, _I, _I, _I))
def voted(array, row, node, voter):
    """1 if `voter` is in the node's count of a row."""
    run_state = pointer(array)
    return np.int64(has_voted(run_state, row, node, voter))


@entry(_I(_D, _I, _I))
def fired(array, row, node):
    """Bit mask of the thresholds of a row that the node has been told of."""
    run_state = pointer(array)
    tally = column(run_state, kernel.TALLY)
    return (
        column(run_state, kernel.TALLY_FIRED)[
            tally[row * tallies.ROW + tallies.COUNT_AT] + node * tally[row * tallies.ROW + tallies.COUNT_STEP]
        ]
        & 7
    )


@entry(_I(_D, _I, _I, _I, _I, _I, _I, _I))
def tally_row(array, kind, key, wide, owner, threshold_1, threshold_2, threshold_3):
    """A fresh tally row or -1."""
    run_state = pointer(array)
    return open_tally(run_state, kind, key, wide, owner, threshold_1, threshold_2, threshold_3)


@entry(types.UniTuple(_I, 5)(_D, *[_I] * 18))
def propose(
    array, case, src, kind, size, sign_ns, verify_ns, handle_ns, message_key,
    need, running, after, block, view, number, to, audience, decided, notify,
):  # fmt: skip
    """Lay out a declared normal case for a block and the ballot (view, number), and send the message to its audience.

    Returns (envelope, the message's action, its tally rows); envelope -1: make room and call again.
    """
    run_state = pointer(array)
    none = np.int64(-1)
    if not has_capacity(run_state):
        return none, none, none, none, none
    return leading.send_case(
        run_state, case, src, kind, size, sign_ns, verify_ns, handle_ns, message_key,
        need, running, after, block, view, number, to, audience, decided, notify, 0,
    )  # fmt: skip


@entry(types.UniTuple(_I, 2)(_D, *[_I] * 16))
def send_down(
    array, case, src, kind, size, sign_ns, verify_ns, handle_ns, message_key, need, running, block, view, number,
    decided, tree, known_height,
):  # fmt: skip
    """Lay out the case of a message that goes down a tree and send it to the root's children.

    Returns (envelope, the message's action); envelope -1: make room and call again.
    """
    run_state = pointer(array)
    none = np.int64(-1)
    if not has_capacity(run_state):
        return none, none
    return dissemination.send_down(
        run_state, case, src, kind, size, sign_ns, verify_ns, handle_ns, message_key, need, running, block, view,
        number, decided, tree, known_height,
    )  # fmt: skip


@entry(_I(_D, _I, _I))
def take_over(array, action, node):
    """What a voter has counted of a tree's answers, at its handlers from now on (see `dissemination.take_over`)."""
    run_state = pointer(array)
    return dissemination.take_over(run_state, action, node)


@entry(_I(_D, _I, _I))
def has_answered(array, action, child):
    """1 if a child's answer has been counted by its parent."""
    run_state = pointer(array)
    return np.int64(dissemination.has_answered(run_state, action, child))


@entry(_I(_D, _I, _I))
def deliver_once(array, node, slot):
    """The node is given a gossip message; 0 if it had before."""
    run_state = pointer(array)
    return np.int64(gossip.deliver_once(run_state, node, slot))


@entry(_I(_D, _I, _I))
def has_seen(array, node, slot):
    """1 if the node has heard a gossip message."""
    run_state = pointer(array)
    return np.int64(gossip.has_seen(run_state, node, slot))


@entry(_I(_D, _I))
def let_message_go(array, envelope):
    """A message that was held for Python is needed no more."""
    run_state = pointer(array)
    return np.int64(drop_reference(run_state, envelope))


@entry(_I(_D, _I))
def see_block(array, block):
    """Python makes an object of a block of the engine's."""
    run_state = pointer(array)
    leading.see(run_state, block)
    return np.int64(0)


@entry(_I(_D, _I))
def unsee_block(array, block):
    """Python has let go of its object of a block, which has no case any more."""
    run_state = pointer(array)
    leading.enlist(run_state, block)
    return np.int64(0)


@entry(_I(_D, _I))
def unseen_at(array, height):
    """A block of the engine's of that height that Python has no object of, or -1."""
    run_state = pointer(array)
    return np.int64(leading.unseen_at(run_state, height))


@entry(_I(_D, _I))
def sweep(array, lowest):
    """Free closed blocks below a height; returns how many Python must free (see `lead.sweep`)."""
    run_state = pointer(array)
    return leading.sweep(run_state, lowest)


@entry(types.UniTuple(_I, 2)(_D, _I, _I))
def trim(array, low, since_ns):
    """Let go of what is kept with blocks that only voters who are down still need (see `lead.trim`)."""
    run_state = pointer(array)
    return leading.trim(run_state, low, since_ns)


@entry(_I(_D, _I))
def has_votes_under_way(array, row):
    """Whether votes of a tally row are on their way or wait to be processed."""
    run_state = pointer(array)
    return np.int64(column(run_state, kernel.TALLY)[row * tallies.ROW + tallies.REFERENCES] > 0)


@entry(_I(_D, *[_I] * 7))
def any_value(array, row, kind, key, early, threshold, guard, block):
    """The any-value tally of a tally row that `propose` has laid out, or -1."""
    run_state = pointer(array)
    return open_any_value(run_state, row, kind, key, early, threshold, guard, block)


@entry(_I(_D, _I))
def drop_tally(array, row):
    """A tally row is needed no more."""
    run_state = pointer(array)
    release_tally(run_state, row)
    return np.int64(0)


@entry(_I(_D, _I))
def drop_action(array, action):
    """A message's action is needed no more."""
    run_state = pointer(array)
    release_action(run_state, action)
    return np.int64(0)


@entry(_I(_D, _I, _I, _I, _I, _I))
def drop_case(array, block, action, row_1, row_2, row_3):
    """A block is over: give back its row, its message's action (0: none) and its tallies (-1: none)."""
    run_state = pointer(array)
    if action > 0:
        release_action(run_state, action)
    if row_1 >= 0:
        release_tally(run_state, row_1)
    if row_2 >= 0:
        release_tally(run_state, row_2)
    if row_3 >= 0:
        release_tally(run_state, row_3)
    free_block(run_state, block)
    return np.int64(0)


@entry(_I(_D, _I, _I, _I, _I, _I))
def make_block(array, node, parent, height, view, empty):
    """A new block filled from the node's mempool, -1 for room, or -2 if it were empty and must not be."""
    run_state = pointer(array)
    return new_block(run_state, node, parent, height, view, empty != 0)


@entry(_I(_D, _I, _I, _I))
def decide_block(array, node, block, wait):
    """The node decides a block: 1 done, 0 waits for its parent (`wait`), -2 its parent is not decided."""
    run_state = pointer(array)
    if wait:
        return np.int64(decide_or_wait(run_state, node, block))
    if not extends_tip(run_state, node, block):
        return np.int64(-2)
    decide(run_state, node, block)
    return np.int64(1)


@entry(_I(_D, _I))
def undecide_tip(array, node):
    """The node gives up the last block it has decided."""
    run_state = pointer(array)
    undecide(run_state, node)
    return np.int64(0)


@entry(_I(_D, _I))
def close_again(array, block):
    """Look again whether a block can be freed."""
    run_state = pointer(array)
    maybe_close(run_state, block)
    return np.int64(0)


@entry(_I(_D, _I, _I))
def follow(array, node, leader):
    """The node passes its clients' transactions to this leader from now on."""
    run_state = pointer(array)
    lead(run_state, node, leader)
    return np.int64(0)


@entry(_I(_D))
def trim_pools(array):
    """Take out of every mempool what its node knows to be decided, or what is too old, as far as it stands first."""
    run_state = pointer(array)
    for node in range(run_state[kernel.SEATS]):
        trim_pool(run_state, node)
    return np.int64(0)


@entry(_I(_D, _I))
def waits(array, node):
    """Whether a transaction waits at a node to be decided: 1 or 0."""
    run_state = pointer(array)
    return np.int64(oldest_waiting_ns(run_state, node) >= 0 or run_state[ledger.BACKLOG_BYTES] > 0)


@entry(_I(_D, _I, _I, _I))
def resend(array, node, before_ns, most):
    """The entry voter passes on again what has waited since before a time; returns how many transactions."""
    run_state = pointer(array)
    return np.int64(forward_again(run_state, node, before_ns, most))


@entry(_I(_D, _I))
def resubmit(array, before_ns):
    """Clients send again what waits since before a time and every mempool has lost."""
    run_state = pointer(array)
    answers_resubmit(run_state, before_ns)
    return np.int64(0)


@entry(_I(_D, _I, _I, _I))
def spread(array, node, dst, most):
    """The node passes what has waited longest there on to another, at most so many transactions."""
    run_state = pointer(array)
    spread_to(run_state, node, dst, most)
    return np.int64(0)


@entry(_I(_D, _I, _I))
def await_batch(array, node, not_before_ns):
    """Wake the node when a block is due. Returns 1 if one is due now (no wake follows)."""
    run_state = pointer(array)
    return np.int64(leading.await_batch(run_state, node, not_before_ns))


@entry(_I(_D, _I, _I, _I))
def set_timer(array, node, at_ns, number):
    """Wake the node with this timer number at a time."""
    run_state = pointer(array)
    ready_push(run_state, at_ns, events.TIMER, node, number)
    return np.int64(0)


@entry(_I(_D, _I, _I, _I))
def await_disk(array, node, at_ns, number):
    """Wake the node with this number when a write that one of its handlers waits for is done."""
    run_state = pointer(array)
    ready_push(run_state, at_ns, events.DISK_DONE, node, number | timers.OF_DISK)
    return np.int64(0)


@entry(_I(_D, *[_I] * 9))
def await_turn(array, node, height, since_ns, lowest, earliest_ns, period_ns, spread_ns, place, places):
    """The node waits for its turn to propose, by this rule from now on (see `timers.await_turn`)."""
    run_state = pointer(array)
    turns = column(run_state, timers.TURN)
    t = node * timers.TURN_WIDTH
    turns[t + timers.LOWEST] = lowest
    turns[t + timers.EARLIEST_NS] = earliest_ns
    turns[t + timers.PERIOD_NS] = period_ns
    turns[t + timers.SPREAD_NS] = spread_ns
    turns[t + timers.PLACE] = place
    turns[t + timers.PLACES] = places
    run_state[timers.TAKES_TURNS] = 1
    timers.await_turn(run_state, node, height, since_ns)
    return np.int64(0)


@entry(_I(_D, _I, _I))
def set_call(array, at_ns, number):
    """Call Python back at a time."""
    run_state = pointer(array)
    ready_push(run_state, at_ns, events.CALL, np.int64(-1), number)
    return np.int64(0)


@entry(_I(_D, _I, _I, _I, _I, _I))
def watch_progress(array, node, low_ns, span_ns, step_ns, again):
    """Start the node's progress timer afresh with a period from [low, low + span], in steps, or stop it (low 0)."""
    run_state = pointer(array)
    state = column(run_state, kernel.NODE)
    s = node * post.NODE_WIDTH
    rows = column(run_state, actions.PROGRESS)
    rows[node * actions.PROGRESS_WIDTH + actions.PERIOD_LOW] = low_ns
    rows[node * actions.PROGRESS_WIDTH + actions.PERIOD_SPAN] = span_ns
    rows[node * actions.PROGRESS_WIDTH + actions.PERIOD_STEP] = step_ns
    state[s + post.PROGRESS_TOKEN] += 1
    if low_ns > 0:
        state[s + post.PROGRESS_NS] = run_state[kernel.NOW]
        if run_state[ledger.EXECUTE_PLACE] == BETWEEN_BLOCKS:
            state[s + post.PROGRESS_NS] = max(run_state[kernel.NOW], state[s + post.EXECUTE_FREE])
        state[s + post.PROGRESS_NUMBER] += again
        ready_push(
            run_state,
            state[s + post.PROGRESS_NS] + progress_period_ns(run_state, node),
            events.PROGRESS_CHECK,
            node,
            state[s + post.PROGRESS_TOKEN],
        )
    return np.int64(0)


@entry(_I(_D, _I, _I))
def start_stream(array, stream, first_ns):
    """The stream's first transaction is due at a time."""
    run_state = pointer(array)
    ready_push(run_state, first_ns, events.SUBMIT, np.int64(-1), stream)
    return np.int64(0)


@entry(_I(_D, _I, _I, _I))
def submit_now(array, gateway, class_, count):
    """A gateway's clients submit `count` transactions now; returns 0, or -1 for room."""
    run_state = pointer(array)
    if not has_capacity(run_state):
        return np.int64(-1)
    for _ in range(count):
        submit_one(run_state, gateway, class_)
    return np.int64(0)


@entry(_I(_D, _I, _I, _I))
def begin(array, gateway, class_, at_ns):
    """A client at a gateway submits its first request at a time."""
    run_state = pointer(array)
    ready_push(run_state, at_ns, events.CLIENT, gateway, -1 - class_)
    return np.int64(0)


@entry(_I(_D, _I, _I, _I, _I, _I, _I))
def flood(array, node, kind, size, verify_ns, handle_ns, slot):
    """A node floods a message through the neighbour graph; returns 0, or -1 for room."""
    run_state = pointer(array)
    if not has_capacity(run_state):
        return np.int64(-1)
    start_flood(run_state, node, kind, size, verify_ns, handle_ns, slot)
    return np.int64(0)


@entry(_I(_D, _I, _I))
def crash(array, node, rows):
    """The node stops: queues, mempool and counts are gone, and whatever was due to it is void."""
    run_state = pointer(array)
    state = column(run_state, kernel.NODE)
    s = node * post.NODE_WIDTH
    state[s + post.UP] = 0
    state[s + post.INCARNATION] += 1
    state[s + post.GUARD] = -1
    state[s + post.PROGRESS_TOKEN] += 1
    if node < run_state[kernel.SEATS]:
        empty_pool(run_state, node)
        dissemination.release_held(run_state, node)
        dissemination.forget_gatherings(run_state, node)
        gossip.forget_gossip(run_state, node)
        tally = column(run_state, kernel.TALLY)
        for row in range(rows):
            if tally[row * tallies.ROW + tallies.RELEASED] == 0 and (
                tally[row * tallies.ROW + tallies.COUNT_STEP] or tally[row * tallies.ROW + tallies.OWNER] == node
            ):
                forget_node(run_state, row, node)
    return np.int64(0)


@entry(_I(_D, _I))
def restart(array, node):
    """The node runs again, with empty queues, except for what it had sent: that is still signed and transmitted."""
    run_state = pointer(array)
    state = column(run_state, kernel.NODE)
    s = node * post.NODE_WIDTH
    state[s + post.UP] = 1
    for queue in (post.RX_FREE, post.VERIFY_FREE, post.THREAD_FREE, post.DISK_FREE, post.EXECUTE_FREE):
        state[s + queue] = run_state[kernel.NOW]
    forget_gaps(run_state, node)
    state[s + post.PROGRESS_NS] = run_state[kernel.NOW]
    free = column(run_state, kernel.WORKER_FREE)
    for w in range(run_state[kernel.WORKERS]):
        if free[node * run_state[kernel.WORKERS] + w] < NO_LIMIT:
            free[node * run_state[kernel.WORKERS] + w] = run_state[kernel.NOW]
    column(run_state, ledger.PEER)[node * ledger.PEER_WIDTH + ledger.TX_LAST] = run_state[kernel.NOW]
    column(run_state, ledger.PEER)[node * ledger.PEER_WIDTH + ledger.OPEN_NS] = run_state[
        kernel.NOW
    ]  # it had written down what it voted for
    return np.int64(0)


all_is_compiled()
