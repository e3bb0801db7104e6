"""Copies leave a network card that is shared, and are put on their links (sim.kernel.sharing)."""

from __future__ import annotations

import numpy as np

from sim.engine.arrivals import drop_copy
from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.kernel.post import ref_index
from sim.kernel.rules import begin_message, recall_place
from sim.kernel.run_state import column, compiled
from sim.kernel.sending import put_group, put_on_link
from sim.kernel.sharing import (
    BYTES,
    DRAWS,
    LANES,
    NEXT,
    QUEUED_WIDTH,
    REF,
    SINCE_NS,
    TARGET,
    begin_ready,
    count_left,
    event_counts,
    free_row,
    leaving,
    plan,
)
from sim.ledger import rows as ledger
from sim.ledger.transactions import release_tx


@compiled
def card_is_due(run_state, src):
    """An event of a card: what is through leaves, what is ready begins, and the next event is planned."""
    if not event_counts(run_state, src):
        return
    for lane in range(LANES):
        row = leaving(run_state, src, lane)
        while row:
            after = column(run_state, kernel.QUEUED)[(row - 1) * QUEUED_WIDTH + NEXT]
            _leave(run_state, src, row)
            row = after
    for lane in range(LANES):
        begin_ready(run_state, src, lane)
    plan(run_state, src)


@compiled
def _leave(run_state, src, row):
    """A row's copies leave: rules and links do to them what they do now."""
    count_left(run_state, src, row)
    q = (row - 1) * QUEUED_WIDTH
    rows = column(run_state, kernel.QUEUED)
    since_ns = rows[q + SINCE_NS]
    ref, target, key, size = rows[q + REF], rows[q + TARGET], np.uint64(rows[q + DRAWS]), rows[q + BYTES]
    if run_state[kernel.RULES] > 0:
        recall_place(run_state, row - 1)
    free_row(run_state, row)
    if ref & 1:
        _leave_tx(run_state, src, target, ref, key, size)
        return
    envelope = ref_index(ref)
    e = envelope * post.ENVELOPE_WIDTH
    column(run_state, kernel.ENVELOPE)[e + post.FLOW_NS] = run_state[kernel.NOW] - since_ns
    kind, statement = (
        column(run_state, kernel.ENVELOPE)[e + post.KIND],
        column(run_state, kernel.ENVELOPE)[e + post.STATEMENT],
    )
    if target < 0:
        copies, _ = put_group(run_state, envelope, src, -1 - target, run_state[kernel.NOW], False)
    else:
        begin_message(run_state, src, kind)
        copies = put_on_link(run_state, key, ref, src, target, run_state[kernel.NOW], kind, statement, size)
    if copies == 0:
        drop_copy(run_state, envelope, statement)
    else:
        column(run_state, kernel.ENVELOPE)[e + post.REFS] += copies - 1


@compiled
def _leave_tx(run_state, src, dst, ref, key, size):
    """A transaction's copy leaves; the card let it live until now."""
    tx = ref_index(ref)
    kind = run_state[ledger.TX_KIND]
    begin_message(run_state, src, kind)
    copies = put_on_link(run_state, key, ref, src, dst, run_state[kernel.NOW], kind, -1, size)
    if copies == 0:
        release_tx(run_state, tx)
    else:
        column(run_state, ledger.TX)[tx * ledger.TX_WIDTH + ledger.TX_REFS] += copies - 1
