"""Mempools: what waits at each voter to be put into a block.

A mempool is a ring of (transaction, arrival time) per voter; what a node may put into a block is decided by what
that node itself knows. Clients' transactions are passed on from their entry node to all voters, or to the leader.
"""

from __future__ import annotations

import numpy as np

from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.kernel.run_state import column, compiled
from sim.ledger import rows as ledger
from sim.ledger.transactions import holds, refuse, reject, release_tx, send_tx


@compiled
def known_decided(run_state, tx, node):
    decided = column(run_state, ledger.TX)[tx * ledger.TX_WIDTH + ledger.TX_DECIDED]
    return 0 < decided <= column(run_state, ledger.PEER)[node * ledger.PEER_WIDTH + ledger.TIP_HEIGHT]


@compiled
def _bytes(run_state, tx):
    class_ = column(run_state, ledger.TX)[tx * ledger.TX_WIDTH + ledger.TX_CLASS]
    return column(run_state, ledger.CLASS)[class_ * ledger.CLASS_WIDTH + ledger.CLASS_BYTES]


@compiled
def _sender_at(run_state, tx, node):
    """Where it is counted how many transactions of a transaction's sender a node holds."""
    return (
        column(run_state, ledger.TX_MORE)[tx * ledger.TX_MORE_WIDTH + ledger.TX_SENDER] * run_state[kernel.SEATS] + node
    )


@compiled
def _leave(run_state, tx, node):
    """A transaction is in a node's mempool no more; its place in the ring is the caller's business."""
    column(run_state, ledger.TX_HELD)[tx * run_state[kernel.BITS_WORDS] + (node >> 6)] &= ~(np.int64(1) << (node & 63))
    if run_state[ledger.POOL_LIMITED]:
        column(run_state, ledger.POOL_FILL)[node * ledger.POOL_FILL_WIDTH + ledger.POOL_BYTES] -= _bytes(run_state, tx)
        if run_state[ledger.POOL_SENDER_LIMIT] > 0:
            column(run_state, ledger.SENDER_HELD)[_sender_at(run_state, tx, node)] -= 1
    release_tx(run_state, tx)


@compiled
def _sender_has_room(run_state, tx, node):
    limit = run_state[ledger.POOL_SENDER_LIMIT]
    return limit == 0 or column(run_state, ledger.SENDER_HELD)[_sender_at(run_state, tx, node)] < limit


@compiled
def _has_room(run_state, tx, node):
    """Whether one more transaction, this one, keeps to a mempool's limits on count and bytes."""
    peer = column(run_state, ledger.PEER)
    p = node * ledger.PEER_WIDTH
    held_bytes = column(run_state, ledger.POOL_FILL)[node * ledger.POOL_FILL_WIDTH + ledger.POOL_BYTES]
    return (
        peer[p + ledger.POOL_TAIL] - peer[p + ledger.POOL_HEAD] < run_state[ledger.POOL_LIMIT]
        and held_bytes + _bytes(run_state, tx) <= run_state[ledger.POOL_BYTES_LIMIT]
    )


@compiled
def _sort_out(run_state, node):
    """Take out of a ring what its node knows to be decided, wherever it stands; the rest keeps its order."""
    peer, pool = column(run_state, ledger.PEER), column(run_state, ledger.POOL)
    p = node * ledger.PEER_WIDTH
    first, mask = node * run_state[ledger.POOL_SIZE], run_state[ledger.POOL_SIZE] - 1
    fresh_from = peer[p + ledger.POOL_TAIL] - peer[p + ledger.FRESH]
    kept, fresh = peer[p + ledger.POOL_HEAD], np.int64(0)
    for i in range(peer[p + ledger.POOL_HEAD], peer[p + ledger.POOL_TAIL]):
        slot = 2 * (first + (i & mask))
        tx = pool[slot]
        if known_decided(run_state, tx, node):
            _leave(run_state, tx, node)
            continue
        to = 2 * (first + (kept & mask))
        pool[to] = tx
        pool[to + 1] = pool[slot + 1]
        kept += 1
        if i >= fresh_from:
            fresh += 1
    peer[p + ledger.POOL_TAIL] = kept
    peer[p + ledger.FRESH] = fresh
    column(run_state, ledger.POOL_FILL)[node * ledger.POOL_FILL_WIDTH + ledger.POOL_SORTED_HEIGHT] = peer[
        p + ledger.TIP_HEIGHT
    ]


@compiled
def _take_in(run_state, tx, node):
    """Whether a mempool with limits takes a transaction, which is counted then."""
    if not _make_place(run_state, tx, node):
        return False
    column(run_state, ledger.POOL_FILL)[node * ledger.POOL_FILL_WIDTH + ledger.POOL_BYTES] += _bytes(run_state, tx)
    if run_state[ledger.POOL_SENDER_LIMIT] > 0:
        column(run_state, ledger.SENDER_HELD)[_sender_at(run_state, tx, node)] += 1
    return True


@compiled
def _make_place(run_state, tx, node):
    """Whether there is room for a transaction; what is decided or too old goes first, then what is oldest."""
    if _has_room(run_state, tx, node) and _sender_has_room(run_state, tx, node):
        return True
    trim_pool(run_state, node)
    peer = column(run_state, ledger.PEER)
    p = node * ledger.PEER_WIDTH
    if (
        column(run_state, ledger.POOL_FILL)[node * ledger.POOL_FILL_WIDTH + ledger.POOL_SORTED_HEIGHT]
        != peer[p + ledger.TIP_HEIGHT]
    ):
        _sort_out(run_state, node)
    if not _sender_has_room(run_state, tx, node) or _bytes(run_state, tx) > run_state[ledger.POOL_BYTES_LIMIT]:
        return False
    while run_state[ledger.POOL_EVICTS] and not _has_room(run_state, tx, node):
        _went_undecided(run_state, node, _oldest_came_ns(run_state, node))
        _leave(run_state, _oldest(run_state, node), node)
        peer[p + ledger.POOL_HEAD] += 1
        peer[p + ledger.FRESH] = min(peer[p + ledger.FRESH], peer[p + ledger.POOL_TAIL] - peer[p + ledger.POOL_HEAD])
    return _has_room(run_state, tx, node)


@compiled
def _oldest_came_ns(run_state, node):
    """When the transaction came that stands first in a ring that is not empty."""
    head = column(run_state, ledger.PEER)[node * ledger.PEER_WIDTH + ledger.POOL_HEAD]
    return column(run_state, ledger.POOL)[
        2 * (node * run_state[ledger.POOL_SIZE] + (head & (run_state[ledger.POOL_SIZE] - 1))) + 1
    ]


@compiled
def _went_undecided(run_state, node, came_ns):
    """What came then leaves undecided. It waited all the same: else nobody who drops what is old loses patience."""
    fill = column(run_state, ledger.POOL_FILL)
    at = node * ledger.POOL_FILL_WIDTH + ledger.GONE_SINCE
    if fill[at] == 0 or came_ns + 1 < fill[at]:
        fill[at] = came_ns + 1


@compiled
def _oldest(run_state, node):
    """The transaction that stands first in a ring that is not empty."""
    head = column(run_state, ledger.PEER)[node * ledger.PEER_WIDTH + ledger.POOL_HEAD]
    return column(run_state, ledger.POOL)[
        2 * (node * run_state[ledger.POOL_SIZE] + (head & (run_state[ledger.POOL_SIZE] - 1)))
    ]


@compiled
def pool_enter(run_state, tx, node):
    """A transaction reaches a mempool now (its reference passes from the copy to the pool).

    Returns True if the node's proposer should be woken.
    """
    rows = column(run_state, ledger.TX)
    if rows[tx * ledger.TX_WIDTH + ledger.TX_CLASS] >= run_state[ledger.INVALID_CLASS]:
        if rows[tx * ledger.TX_WIDTH + ledger.TX_REFS] == 1:
            reject(run_state, tx)
        else:
            release_tx(run_state, tx)
        return False
    entered = not holds(run_state, tx, node) and not known_decided(run_state, tx, node)
    peer = column(run_state, ledger.PEER)
    p = node * ledger.PEER_WIDTH
    if entered and run_state[ledger.POOL_LIMITED] and not _take_in(run_state, tx, node):
        if rows[tx * ledger.TX_WIDTH + ledger.TX_ENTRY] == node and rows[tx * ledger.TX_WIDTH + ledger.TX_REFS] == 1:
            refuse(run_state, tx)
        else:
            release_tx(run_state, tx)
        return False
    if entered:
        at = tx * run_state[kernel.BITS_WORDS] + (node >> 6)
        column(run_state, ledger.TX_HELD)[at] |= np.int64(1) << (node & 63)
        tail = peer[p + ledger.POOL_TAIL]
        slot = 2 * (node * run_state[ledger.POOL_SIZE] + (tail & (run_state[ledger.POOL_SIZE] - 1)))
        pool = column(run_state, ledger.POOL)
        pool[slot] = tx
        pool[slot + 1] = run_state[kernel.NOW]
        peer[p + ledger.POOL_TAIL] = tail + 1
        peer[p + ledger.FRESH] += 1
        if rows[tx * ledger.TX_WIDTH + ledger.TX_ENTRY] == node:
            if (
                run_state[ledger.CONFLICTS_ABORT]
                and column(run_state, ledger.TX_MORE)[tx * ledger.TX_MORE_WIDTH + ledger.TX_SNAPSHOT] < 0
            ):
                column(run_state, ledger.TX_MORE)[tx * ledger.TX_MORE_WIDTH + ledger.TX_SNAPSHOT] = peer[
                    p + ledger.TIP_HEIGHT
                ]
            forward(run_state, tx, node, False)
    else:
        release_tx(run_state, tx)
    return entered and batch_is_due(run_state, node)


@compiled
def forward(run_state, tx, node, again):
    """Pass a transaction on from its entry node: to all voters or to the leader; `again` as for `send_tx`."""
    if column(run_state, ledger.PEER)[node * ledger.PEER_WIDTH + ledger.MUTE] > 0:
        return
    bytes_ = _bytes(run_state, tx)
    if run_state[ledger.BROADCAST_TXS]:
        for i in range(column(run_state, kernel.GROUP_START)[1]):
            dst = column(run_state, kernel.GROUP_MEMBER)[i]
            if dst != node:
                send_tx(run_state, tx, node, dst, bytes_, again)
        return
    leader = column(run_state, ledger.PEER)[node * ledger.PEER_WIDTH + ledger.FORWARD_TO]
    if leader >= 0 and leader != node:
        send_tx(run_state, tx, node, leader, bytes_, again)


@compiled
def something_is_new(run_state, node):
    """Whether anything waits at a node that none of its own blocks has held."""
    if run_state[ledger.BACKLOG_BYTES] > 0:
        return True
    peer = column(run_state, ledger.PEER)
    p = node * ledger.PEER_WIDTH
    tip = peer[p + ledger.TIP]
    if run_state[ledger.BATCH_TIMEOUT_NS] > 0 and tip >= 0:
        other = column(run_state, ledger.BLOCK)[tip * ledger.BLOCK_WIDTH + ledger.PROPOSER] != node
        if (
            other
            and column(run_state, ledger.POOL_FILL)[node * ledger.POOL_FILL_WIDTH + ledger.POOL_SORTED_HEIGHT]
            != peer[p + ledger.TIP_HEIGHT]
        ):
            _sort_out(run_state, node)  # what others have put into blocks fills none of its own
    return peer[p + ledger.FRESH] > 0


@compiled
def batch_is_due(run_state, node):
    """Whether a proposer waits, its interval is over, and there is something to order; however much, not before."""
    if column(run_state, ledger.PEER)[node * ledger.PEER_WIDTH + ledger.BATCH_ON] == 0 or not something_is_new(
        run_state, node
    ):
        return False
    return run_state[kernel.NOW] >= batch_due_ns(run_state, node)


@compiled
def _earliest_ns(run_state, node):
    """Before which a node proposes nothing: its interval, or the first beat that is left to it."""
    peer = column(run_state, ledger.PEER)
    if run_state[ledger.TICK_NS] == 0:
        return peer[node * ledger.PEER_WIDTH + ledger.BATCH_AT]
    last, spoken = (
        peer[node * ledger.PEER_WIDTH + ledger.LAST_TICK] >> 1,
        peer[node * ledger.PEER_WIDTH + ledger.LAST_TICK] & 1,
    )
    if spoken and run_state[kernel.NOW] <= last * run_state[ledger.TICK_NS]:
        return last * run_state[ledger.TICK_NS]  # it will look then, and finds what comes until then
    return (last + 1) * run_state[ledger.TICK_NS]


@compiled
def use_tick(run_state, node, proposes):
    """A node looks for a block, which it then proposes, or because it has decided one: that uses up a beat.

    Of those that went by unused two are left; if there is none, a look waits for the next, which is spoken for.
    """
    if run_state[ledger.TICK_NS] == 0:
        return
    peer = column(run_state, ledger.PEER)
    p = node * ledger.PEER_WIDTH
    now = run_state[kernel.NOW] // run_state[ledger.TICK_NS]
    last, spoken = peer[p + ledger.LAST_TICK] >> 1, peer[p + ledger.LAST_TICK] & 1
    if proposes and spoken and run_state[kernel.NOW] == last * run_state[ledger.TICK_NS]:
        peer[p + ledger.LAST_TICK] = last << 1
    elif proposes or last < now:
        peer[p + ledger.LAST_TICK] = max(last + 1, now - 1) << 1
    elif last == now:
        peer[p + ledger.LAST_TICK] = ((now + 1) << 1) | 1


@compiled
def batch_due_ns(run_state, node):
    """When a block of what waits at a node is due: after its interval, and if it is not full after the batch timeout.

    That counts from its first transaction, or from the last block: once, or for ever so many times. It is full with as
    many transactions as a block holds, or as many bytes if all are as long as the first.
    """
    peer = column(run_state, ledger.PEER)
    p = node * ledger.PEER_WIDTH
    earliest_ns = _earliest_ns(run_state, node)
    if run_state[ledger.BATCH_TIMEOUT_NS] == 0 or run_state[ledger.BACKLOG_BYTES] > 0:
        return earliest_ns
    fresh = peer[p + ledger.FRESH]
    if fresh >= run_state[ledger.PAYLOAD_SIZE]:
        return earliest_ns
    slot = 2 * (
        node * run_state[ledger.POOL_SIZE] + ((peer[p + ledger.POOL_TAIL] - fresh) & (run_state[ledger.POOL_SIZE] - 1))
    )
    first = column(run_state, ledger.POOL)[slot]
    bytes_ = _bytes(run_state, first)
    if run_state[ledger.BLOCK_BYTES_MAX] > 0 and (fresh + 1) * bytes_ > run_state[ledger.BLOCK_BYTES_MAX]:
        return earliest_ns
    since_ns = column(run_state, ledger.POOL)[slot + 1]
    if run_state[ledger.BATCH_FROM] > 0:
        first_ns, since_ns = since_ns, peer[p + ledger.BUILT_NS]
        if run_state[ledger.BATCH_FROM] == 2 and first_ns > since_ns:
            since_ns += (first_ns - since_ns) // run_state[ledger.BATCH_TIMEOUT_NS] * run_state[ledger.BATCH_TIMEOUT_NS]
    return max(earliest_ns, since_ns + run_state[ledger.BATCH_TIMEOUT_NS])


@compiled
def trim_pool(run_state, node):
    """Drop transactions that the node knows to be decided, or that are too old, from the head of its ring."""
    if run_state[ledger.POOL_LIMITED]:
        _trim_limited(run_state, node)
        return
    peer = column(run_state, ledger.PEER)
    p = node * ledger.PEER_WIDTH
    pool = column(run_state, ledger.POOL)
    mask = run_state[ledger.POOL_SIZE] - 1
    held = column(run_state, ledger.TX_HELD)
    words = run_state[kernel.BITS_WORDS]
    head = peer[p + ledger.POOL_HEAD]
    while head < peer[p + ledger.POOL_TAIL]:
        tx = pool[2 * (node * run_state[ledger.POOL_SIZE] + (head & mask))]
        if not known_decided(run_state, tx, node):
            break
        held[tx * words + (node >> 6)] &= ~(np.int64(1) << (node & 63))
        release_tx(run_state, tx)
        head += 1
    peer[p + ledger.POOL_HEAD] = head


@compiled
def _trim_limited(run_state, node):
    """`trim_pool` where leaving is counted."""
    peer, pool = column(run_state, ledger.PEER), column(run_state, ledger.POOL)
    p = node * ledger.PEER_WIDTH
    mask = run_state[ledger.POOL_SIZE] - 1
    head = peer[p + ledger.POOL_HEAD]
    progress_ns = column(run_state, kernel.NODE)[node * post.NODE_WIDTH + post.PROGRESS_NS]
    while head < peer[p + ledger.POOL_TAIL]:
        slot = 2 * (node * run_state[ledger.POOL_SIZE] + (head & mask))
        if (
            not known_decided(run_state, pool[slot], node)
            and run_state[kernel.NOW] - pool[slot + 1] < run_state[ledger.POOL_KEEPS_NS]
        ):
            break
        over_ns = pool[slot + 1] + run_state[ledger.POOL_KEEPS_NS]
        if not known_decided(run_state, pool[slot], node) and over_ns > progress_ns:
            _went_undecided(run_state, node, pool[slot + 1])
        _leave(run_state, pool[slot], node)
        head += 1
    peer[p + ledger.POOL_HEAD] = head
    peer[p + ledger.FRESH] = min(peer[p + ledger.FRESH], peer[p + ledger.POOL_TAIL] - head)


@compiled
def oldest_waiting_ns(run_state, node):
    """When the oldest transaction that the node still waits to see decided arrived, or -1."""
    trim_pool(run_state, node)
    p = node * ledger.PEER_WIDTH
    peer = column(run_state, ledger.PEER)
    if peer[p + ledger.POOL_HEAD] == peer[p + ledger.POOL_TAIL]:
        return np.int64(-1)
    return _oldest_came_ns(run_state, node)


@compiled
def patience_since_ns(run_state, node):
    """Since when the node waits to see something decided, or -1: what left undecided since its last decision counts."""
    waits_ns = oldest_waiting_ns(run_state, node)
    gone_ns = column(run_state, ledger.POOL_FILL)[node * ledger.POOL_FILL_WIDTH + ledger.GONE_SINCE] - 1
    return gone_ns if waits_ns < 0 or 0 <= gone_ns < waits_ns else waits_ns


@compiled
def lose_patience(run_state, node):
    """The node waits no longer for whoever leads. What is gone, with nothing after it, makes it lose patience once."""
    peer, p = column(run_state, ledger.PEER), node * ledger.PEER_WIDTH
    if peer[p + ledger.POOL_HEAD] == peer[p + ledger.POOL_TAIL]:
        column(run_state, ledger.POOL_FILL)[node * ledger.POOL_FILL_WIDTH + ledger.GONE_SINCE] = 0


@compiled
def lead(run_state, node, leader):
    """The node follows `leader` now: what its own clients wait for is passed on again."""
    peer = column(run_state, ledger.PEER)
    p = node * ledger.PEER_WIDTH
    if peer[p + ledger.FORWARD_TO] == leader:
        return
    peer[p + ledger.FORWARD_TO] = leader
    if run_state[ledger.BROADCAST_TXS] or leader == node or leader < 0:
        return
    trim_pool(run_state, node)
    pool = column(run_state, ledger.POOL)
    rows = column(run_state, ledger.TX)
    for i in range(peer[p + ledger.POOL_HEAD], peer[p + ledger.POOL_TAIL]):
        tx = pool[2 * (node * run_state[ledger.POOL_SIZE] + (i & (run_state[ledger.POOL_SIZE] - 1)))]
        if rows[tx * ledger.TX_WIDTH + ledger.TX_ENTRY] == node and not known_decided(run_state, tx, node):
            forward(run_state, tx, node, False)  # its new leader has had no copy from here, as a rule


@compiled
def forward_again(run_state, node, before_ns, most):
    """Pass on again what has waited here since before a time and nobody decided, oldest first.

    A copy to the leader, or to all, may have been lost; and who passed it on to this node may have taken it for the
    leader (a voter that was removed hears of no other): those it passes on after 1, 2, 4, 8 ... periods, as
    others hold them too. Looks at `most` transactions; returns how many it sent.
    """
    trim_pool(run_state, node)
    peer = column(run_state, ledger.PEER)
    p = node * ledger.PEER_WIDTH
    pool = column(run_state, ledger.POOL)
    rows = column(run_state, ledger.TX)
    sent = 0
    for i in range(peer[p + ledger.POOL_HEAD], min(peer[p + ledger.POOL_TAIL], peer[p + ledger.POOL_HEAD] + most)):
        slot = 2 * (node * run_state[ledger.POOL_SIZE] + (i & (run_state[ledger.POOL_SIZE] - 1)))
        if pool[slot + 1] > before_ns:
            break
        tx = pool[slot]
        if run_state[ledger.FORKS] and rows[tx * ledger.TX_WIDTH + ledger.TX_BLOCK] >= 0:
            continue  # it did reach a proposer, and only grows deep
        due = rows[tx * ledger.TX_WIDTH + ledger.TX_ENTRY] == node
        if not due and run_state[ledger.BROADCAST_TXS] == 0:
            periods = (run_state[kernel.NOW] - pool[slot + 1]) // (run_state[kernel.NOW] - before_ns)
            due = periods & (periods - 1) == 0
        if due and not known_decided(run_state, tx, node):
            forward(run_state, tx, node, True)
            sent += 1
    return sent


@compiled
def spread_to(run_state, node, dst, most):
    """Pass what has waited longest at a node, up to so many transactions, on to another node, whoever's they are."""
    trim_pool(run_state, node)
    peer = column(run_state, ledger.PEER)
    p = node * ledger.PEER_WIDTH
    if peer[p + ledger.MUTE] > 0:
        return
    pool = column(run_state, ledger.POOL)
    for i in range(peer[p + ledger.POOL_HEAD], min(peer[p + ledger.POOL_TAIL], peer[p + ledger.POOL_HEAD] + most)):
        tx = pool[2 * (node * run_state[ledger.POOL_SIZE] + (i & (run_state[ledger.POOL_SIZE] - 1)))]
        if not known_decided(run_state, tx, node):
            send_tx(run_state, tx, node, dst, _bytes(run_state, tx), True)


@compiled
def empty_pool(run_state, node):
    """A crash: the mempool is gone."""
    peer = column(run_state, ledger.PEER)
    p = node * ledger.PEER_WIDTH
    pool = column(run_state, ledger.POOL)
    for i in range(peer[p + ledger.POOL_HEAD], peer[p + ledger.POOL_TAIL]):
        _leave(
            run_state, pool[2 * (node * run_state[ledger.POOL_SIZE] + (i & (run_state[ledger.POOL_SIZE] - 1)))], node
        )
    peer[p + ledger.POOL_HEAD] = peer[p + ledger.POOL_TAIL]
    column(run_state, ledger.POOL_FILL)[node * ledger.POOL_FILL_WIDTH + ledger.GONE_SINCE] = 0
    peer[p + ledger.FRESH] = 0
    peer[p + ledger.BATCH_ON] = 0
    peer[p + ledger.BATCH_TIMER] = -1
