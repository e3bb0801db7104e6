"""Arrivals: what happens when a copy reaches a NIC, and when a reply reaches the clients."""

from __future__ import annotations

import numpy as np

from sim.engine.relay import flood_arrives
from sim.engine.votes import recycle_tally, vote_arrives
from sim.kernel.due import DELIVER, TX_ARRIVES, ready_push
from sim.kernel.post import (
    ACTION,
    COUNT_DROPPED,
    ENVELOPE_WIDTH,
    FATE_DELIVERED,
    FATE_LOST_ARRIVING,
    FATE_RECEIVER_DOWN,
    FLOOD,
    FLOW_NS,
    HANDLE_NS,
    KEY,
    KIND,
    KIND_WIDTH,
    NODE_WIDTH,
    SENT_NS,
    SIZE,
    SRC,
    STATEMENT,
    UP,
    VERIFY_NS,
    VOTER,
    _log,
    drop_reference,
    ref_dst,
    ref_index,
)
from sim.kernel.post import ARG as ENVELOPE_ARG
from sim.kernel.receiving import hand_over, link_is_down, receive
from sim.kernel.run_state import DROPPED, ENVELOPE, KIND_COUNT, LINKS_CHANGED, LOG_ON, NODE, TALLY, column, compiled
from sim.kernel.tally import REFERENCES, RELEASED, ROW
from sim.ledger.chain import maybe_close, trace
from sim.ledger.payload import acknowledge
from sim.ledger.rows import (
    ACKS_NEEDED,
    ASKING_CLASSES,
    BLOCK,
    BLOCK_REPLIES,
    BLOCK_WIDTH,
    CLASS,
    CLASS_BYTES,
    CLASS_SIGNATURES,
    CLASS_WIDTH,
    EVENT_TOLD,
    GATEWAY_FIRST,
    GATEWAYS,
    HEIGHT,
    NUMBER,
    PEER,
    PEER_WIDTH,
    SETTLED,
    STANDING,
    TOLD,
    TX,
    TX_CLASS,
    TX_ENTRY,
    TX_KIND,
    TX_LAST,
    TX_VERIFY_NS,
    TX_WIDTH,
    VIEW,
)
from sim.ledger.transactions import ask_next, handed_in_by, release_tx


@compiled
def reply_arrives(run_state, envelope, gateway):
    e = envelope * ENVELOPE_WIDTH
    row = column(run_state, ENVELOPE)
    block = row[e + ENVELOPE_ARG]
    blocks = column(run_state, BLOCK)
    if blocks[block * BLOCK_WIDTH + NUMBER] != row[e + ACTION]:
        return  # a late reply: the block has been served and freed
    if blocks[block * BLOCK_WIDTH + STANDING] < SETTLED:
        return  # the word of a corrupted voter for a block that no correct one has decided
    entry = row[e + SRC]
    if run_state[ACKS_NEEDED] > 0:
        at = block * run_state[GATEWAYS] + gateway - run_state[GATEWAY_FIRST]
        replies = column(run_state, BLOCK_REPLIES)
        replies[at] += 1
        if replies[at] != run_state[ACKS_NEEDED]:
            return
        entry = np.int64(-1)
    count = acknowledge(run_state, block, gateway, entry)
    if count > 0 and blocks[block * BLOCK_WIDTH + STANDING] < TOLD:
        at = block * BLOCK_WIDTH
        blocks[at + STANDING] = TOLD
        trace(run_state, EVENT_TOLD, gateway, blocks[at + NUMBER], blocks[at + HEIGHT], blocks[at + VIEW], count, 0)
    maybe_close(run_state, block)
    if run_state[ASKING_CLASSES]:
        ask_next(run_state, gateway)


@compiled
def transaction_copy(run_state, time, ref):
    """A transaction's copy arrives at a voter's NIC."""
    dst = ref_dst(ref)
    tx = ref_index(ref)
    t = tx * TX_WIDTH
    rows = column(run_state, TX)
    src = rows[t + TX_ENTRY]
    if src == dst or src < 0:
        src = handed_in_by(run_state, tx)
    node = column(run_state, NODE)
    if node[dst * NODE_WIDTH + UP] == 0 or link_is_down(run_state, src, dst):
        run_state[DROPPED] += 1
        column(run_state, KIND_COUNT)[run_state[TX_KIND] * KIND_WIDTH + COUNT_DROPPED] += 1
        release_tx(run_state, tx)
        return
    classes, c = column(run_state, CLASS), rows[t + TX_CLASS] * CLASS_WIDTH
    verify_ns = run_state[TX_VERIFY_NS] * classes[c + CLASS_SIGNATURES]
    _, verified = receive(run_state, time, src, dst, classes[c + CLASS_BYTES], verify_ns, 0)
    peer = column(run_state, PEER)
    p = dst * PEER_WIDTH
    verified = max(verified, peer[p + TX_LAST])
    peer[p + TX_LAST] = verified
    ready_push(run_state, verified, TX_ARRIVES, dst, tx)


@compiled
def envelope_copy(run_state, time, ref):
    """A copy of an envelope arrives at a NIC."""
    dst = ref_dst(ref)
    envelope = ref_index(ref)
    e = envelope * ENVELOPE_WIDTH
    row = column(run_state, ENVELOPE)
    src = row[e + SRC]
    statement = row[e + STATEMENT]
    up = column(run_state, NODE)[dst * NODE_WIDTH + UP]
    if up == 0 or (run_state[LINKS_CHANGED] and link_is_down(run_state, src, dst)):
        run_state[DROPPED] += 1
        column(run_state, KIND_COUNT)[row[e + KIND] * KIND_WIDTH + COUNT_DROPPED] += 1
        if run_state[LOG_ON]:
            fate = FATE_LOST_ARRIVING if up else FATE_RECEIVER_DOWN
            _log(
                run_state,
                row[e + SENT_NS],
                src,
                dst,
                row[e + KIND],
                statement,
                time,
                0,
                0,
                0,
                row[e + SIZE],
                fate,
                np.uint64(row[e + KEY]),
            )
        drop_copy(run_state, envelope, statement)
        return
    if statement == FLOOD:
        flood_arrives(run_state, time, dst, envelope)
        return
    received, verified = receive(run_state, time, src, dst, row[e + SIZE], row[e + VERIFY_NS], row[e + FLOW_NS])
    done = hand_over(run_state, dst, verified, row[e + HANDLE_NS])
    if run_state[LOG_ON]:
        _log(
            run_state, row[e + SENT_NS], src, dst, row[e + KIND], statement, time, received, verified, done,
            row[e + SIZE], FATE_DELIVERED, np.uint64(row[e + KEY]),
        )  # fmt: skip
    if statement >= 0:
        if column(run_state, TALLY)[statement * ROW + RELEASED] == 0:
            vote_arrives(run_state, statement, dst, row[e + VOTER], done)
        drop_copy(run_state, envelope, statement)
    else:
        ready_push(run_state, done, DELIVER, dst, envelope)


@compiled
def drop_copy(run_state, envelope, statement):
    """One copy of an envelope fewer; a tally that is over goes with the last."""
    if drop_reference(run_state, envelope) and statement >= 0:
        tally = column(run_state, TALLY)
        if tally[statement * ROW + RELEASED] == 1 and tally[statement * ROW + REFERENCES] == 0:
            recycle_tally(run_state, statement)
