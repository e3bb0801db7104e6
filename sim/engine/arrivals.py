"""Arrivals: what happens when a copy reaches a NIC, and when a reply reaches the clients."""

from __future__ import annotations

import numpy as np

from sim.engine.relay import flood_arrives
from sim.engine.votes import recycle_tally, vote_arrives
from sim.kernel import due as events
from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.kernel import tally as tallies
from sim.kernel.due import ready_push
from sim.kernel.post import _log, drop_reference, ref_dst, ref_index
from sim.kernel.receiving import hand_over, link_is_down, receive
from sim.kernel.run_state import column, compiled
from sim.ledger import rows as ledger
from sim.ledger.chain import maybe_close, trace
from sim.ledger.payload import acknowledge
from sim.ledger.transactions import ask_next, handed_in_by, release_tx


@compiled
def reply_arrives(run_state, envelope, gateway):
    e = envelope * post.ENVELOPE_WIDTH
    row = column(run_state, kernel.ENVELOPE)
    block = row[e + post.ARG]
    blocks = column(run_state, ledger.BLOCK)
    if blocks[block * ledger.BLOCK_WIDTH + ledger.NUMBER] != row[e + post.ACTION]:
        return  # a late reply: the block has been served and freed
    if blocks[block * ledger.BLOCK_WIDTH + ledger.STANDING] < ledger.SETTLED:
        return  # the word of a corrupted voter for a block that no correct one has decided
    entry = row[e + post.SRC]
    if run_state[ledger.ACKS_NEEDED] > 0:
        at = block * run_state[ledger.GATEWAYS] + gateway - run_state[ledger.GATEWAY_FIRST]
        replies = column(run_state, ledger.BLOCK_REPLIES)
        replies[at] += 1
        if replies[at] != run_state[ledger.ACKS_NEEDED]:
            return
        entry = np.int64(-1)
    count = acknowledge(run_state, block, gateway, entry)
    if count > 0 and blocks[block * ledger.BLOCK_WIDTH + ledger.STANDING] < ledger.TOLD:
        at = block * ledger.BLOCK_WIDTH
        blocks[at + ledger.STANDING] = ledger.TOLD
        trace(
            run_state,
            ledger.EVENT_TOLD,
            gateway,
            blocks[at + ledger.NUMBER],
            blocks[at + ledger.HEIGHT],
            blocks[at + ledger.VIEW],
            count,
            0,
        )
    maybe_close(run_state, block)
    if run_state[ledger.ASKING_CLASSES]:
        ask_next(run_state, gateway)


@compiled
def transaction_copy(run_state, time, ref):
    """A transaction's copy arrives at a voter's NIC."""
    dst = ref_dst(ref)
    tx = ref_index(ref)
    t = tx * ledger.TX_WIDTH
    rows = column(run_state, ledger.TX)
    src = rows[t + ledger.TX_ENTRY]
    if src == dst or src < 0:
        src = handed_in_by(run_state, tx)
    node = column(run_state, kernel.NODE)
    if node[dst * post.NODE_WIDTH + post.UP] == 0 or link_is_down(run_state, src, dst):
        run_state[kernel.DROPPED] += 1
        column(run_state, kernel.KIND_COUNT)[run_state[ledger.TX_KIND] * post.KIND_WIDTH + post.COUNT_DROPPED] += 1
        release_tx(run_state, tx)
        return
    classes, c = column(run_state, ledger.CLASS), rows[t + ledger.TX_CLASS] * ledger.CLASS_WIDTH
    verify_ns = run_state[ledger.TX_VERIFY_NS] * classes[c + ledger.CLASS_SIGNATURES]
    _, verified = receive(run_state, time, src, dst, classes[c + ledger.CLASS_BYTES], verify_ns, 0)
    peer = column(run_state, ledger.PEER)
    p = dst * ledger.PEER_WIDTH
    verified = max(verified, peer[p + ledger.TX_LAST])
    peer[p + ledger.TX_LAST] = verified
    ready_push(run_state, verified, events.TX_ARRIVES, dst, tx)


@compiled
def envelope_copy(run_state, time, ref):
    """A copy of an envelope arrives at a NIC."""
    dst = ref_dst(ref)
    envelope = ref_index(ref)
    e = envelope * post.ENVELOPE_WIDTH
    row = column(run_state, kernel.ENVELOPE)
    src = row[e + post.SRC]
    statement = row[e + post.STATEMENT]
    up = column(run_state, kernel.NODE)[dst * post.NODE_WIDTH + post.UP]
    if up == 0 or (run_state[kernel.LINKS_CHANGED] and link_is_down(run_state, src, dst)):
        run_state[kernel.DROPPED] += 1
        column(run_state, kernel.KIND_COUNT)[row[e + post.KIND] * post.KIND_WIDTH + post.COUNT_DROPPED] += 1
        if run_state[kernel.LOG_ON]:
            fate = post.FATE_LOST_ARRIVING if up else post.FATE_RECEIVER_DOWN
            _log(
                run_state,
                row[e + post.SENT_NS],
                src,
                dst,
                row[e + post.KIND],
                statement,
                time,
                0,
                0,
                0,
                row[e + post.SIZE],
                fate,
                np.uint64(row[e + post.KEY]),
            )
        drop_copy(run_state, envelope, statement)
        return
    if statement == post.FLOOD:
        flood_arrives(run_state, time, dst, envelope)
        return
    received, verified = receive(
        run_state, time, src, dst, row[e + post.SIZE], row[e + post.VERIFY_NS], row[e + post.FLOW_NS]
    )
    done = hand_over(run_state, dst, verified, row[e + post.HANDLE_NS])
    if run_state[kernel.LOG_ON]:
        _log(
            run_state, row[e + post.SENT_NS], src, dst, row[e + post.KIND], statement, time, received, verified, done,
            row[e + post.SIZE], post.FATE_DELIVERED, np.uint64(row[e + post.KEY]),
        )  # fmt: skip
    if statement >= 0:
        if column(run_state, kernel.TALLY)[statement * tallies.ROW + tallies.RELEASED] == 0:
            vote_arrives(run_state, statement, dst, row[e + post.VOTER], done)
        drop_copy(run_state, envelope, statement)
    else:
        ready_push(run_state, done, events.DELIVER, dst, envelope)


@compiled
def drop_copy(run_state, envelope, statement):
    """One copy of an envelope fewer; a tally that is over goes with the last."""
    if drop_reference(run_state, envelope) and statement >= 0:
        tally = column(run_state, kernel.TALLY)
        if (
            tally[statement * tallies.ROW + tallies.RELEASED] == 1
            and tally[statement * tallies.ROW + tallies.REFERENCES] == 0
        ):
            recycle_tally(run_state, statement)
