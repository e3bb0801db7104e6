"""Due events: what happens at a node at a given time, void if the node crashes in between."""

from __future__ import annotations

import numpy as np

from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.kernel.heap import heap_push
from sim.kernel.run_state import column, compiled

# Kinds; an entry's `what` = kind | (node + 1) << 8 | incarnation << 32.
(
    DELIVER, FIRE, TIMER, TX_ARRIVES, BATCH, PROGRESS_CHECK, SUBMIT, DISK_DONE, CALL, RELAY, EXECUTED, VOTED, DECIDED,
    CARD, CLIENT, ENDORSE_TIMEOUT,
) = range(1, 17)  # fmt: skip


@compiled
def ready_push(run_state, time, kind, node, argument):
    """Enter something that becomes due at `time` at a node as it is now; node -1: nobody's."""
    sequence = run_state[kernel.READY_SEQ]
    run_state[kernel.READY_SEQ] = sequence + 1
    ready_push_at(run_state, time, sequence, kind, node, argument)


@compiled
def ready_push_at(run_state, time, sequence, kind, node, argument):
    """`ready_push` with a sequence number reserved earlier."""
    incarnation = np.int64(0)
    if node >= 0:
        incarnation = column(run_state, kernel.NODE)[node * post.NODE_WIDTH + post.INCARNATION]
    what = kind | (np.int64(node + 1) << 8) | (incarnation << 32)
    heap_push(run_state, kernel.READY, kernel.READY_LEN, time, sequence, what, argument)
