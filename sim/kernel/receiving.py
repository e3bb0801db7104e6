"""The message pipeline, stages 4 to 6: a copy enters through the NIC, is verified, and handed to the consensus thread.

All of it is settled the moment the copy arrives, for no stage looks back.
"""

from __future__ import annotations

import numpy as np

from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.kernel.run_state import column, compiled, inlined
from sim.kernel.sharing import FIFO, take_in


@compiled
def link_is_down(run_state, src, dst):
    """Whether the link from `src` to `dst` is cut at this moment."""
    if run_state[kernel.LINKS_CHANGED] == 0:
        return False
    rule = column(run_state, kernel.LINK_RULE)[src * run_state[kernel.NODES] + dst]
    if rule == 0:
        return False
    if column(run_state, kernel.RULE)[rule * post.RULE_WIDTH + post.RULE_DOWN] == 0:
        return False
    column(run_state, kernel.RULE)[rule * post.RULE_WIDTH + post.RULE_HITS] += 1
    return True


@inlined
def verified_at(run_state, dst, received, cost):
    """Stage 5: when a message received at `received` is verified, `cost` ns on the first free worker."""
    node = column(run_state, kernel.NODE)
    d = dst * post.NODE_WIDTH
    if run_state[kernel.WORKERS] == 1:
        start = max(received, node[d + post.VERIFY_FREE])
        node[d + post.VERIFY_FREE] = start + cost
    else:
        free = column(run_state, kernel.WORKER_FREE)
        worker = dst * run_state[kernel.WORKERS]
        last = worker + run_state[kernel.WORKERS] - 1
        start = max(received, free[worker])
        # Which worker it is does not matter: times are kept in ascending order, and the first is the next to be free.
        while worker < last and free[worker + 1] < start + cost:
            free[worker] = free[worker + 1]
            worker += 1
        free[worker] = start + cost
    node[d + post.VERIFY_BUSY] += cost
    node[d + post.CPU_WAIT] += start - received
    return start + cost


@inlined
def receive(run_state, time, src, dst, size, verify_ns, flow_ns):
    """Stages 4 and 5: returns (received, verified) times of a copy that arrives at `time`.

    `flow_ns`: for how long it was being sent, if its sender's card is shared; then its bytes have come in meanwhile.
    """
    node = column(run_state, kernel.NODE)
    d = dst * post.NODE_WIDTH
    received = time
    if node[d + post.RX_PS] > 0:
        cost = (size * node[d + post.RX_PS]) // 1000
        if run_state[kernel.SHARING] == FIFO:
            start = max(time, node[d + post.RX_FREE])
            received = start + cost
            node[d + post.RX_FREE] = received
            node[d + post.RX_BUSY] += cost
            node[d + post.RX_WAIT] += start - time
        elif node[src * post.NODE_WIDTH + post.TX_PS] > 0:
            received = take_in(run_state, dst, time, flow_ns, cost)
            node[d + post.RX_WAIT] += received - time
        else:  # it comes all at once
            start = max(time, node[d + post.RX_FREE])
            received = take_in(run_state, dst, start + cost, 0, cost)
            node[d + post.RX_WAIT] += start - time
    node[d + post.RX_BYTES] += size
    node[d + post.RX_COUNT] += 1
    run_state[kernel.DELIVERED] += 1
    run_state[kernel.DIGEST_SUM] += (received ^ (np.int64(dst) << 48)) * np.int64(0x9E3779B97F4A7C1) + size
    verified = received
    if verify_ns > 0:
        verified = verified_at(run_state, dst, received, (verify_ns * node[d + post.CRYPTO_Q10]) >> 10)
    return received, verified


@inlined
def hand_over(run_state, dst, verified, handle_ns):
    """Stage 6: when the consensus thread has handled a message verified at `verified`."""
    node = column(run_state, kernel.NODE)
    d = dst * post.NODE_WIDTH
    cost = (handle_ns * node[d + post.CPU_Q10]) >> 10
    start = max(verified, node[d + post.THREAD_FREE])
    node[d + post.THREAD_FREE] = start + cost
    node[d + post.THREAD_BUSY] += cost
    node[d + post.CPU_WAIT] += start - verified
    return start + cost
