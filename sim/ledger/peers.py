"""Execute, then order: peers execute a client's request and sign the result before the orderers see it (Fabric).

A client turns to the peer of its place. That peer executes the request, and then asks peers of other organisations, as
many as the policy needs; when all have answered the client has its endorsed transaction, and hands it in through that
peer: to an orderer drawn for each transaction, or to all. Orderers order and neither execute nor answer. Peers take
blocks from their orderer as observers do, validate and commit them, and a client hears from its peer. What an execution
read is the state that its peer had committed (TX_HIGH); peers at different heights disagree where a key was written in
between. A client whose endorsements do not come in time, or disagree, counts its request as refused, and may try again.

The steps of the gateway service as of Fabric 2.4: hyperledger/fabric, internal/pkg/gateway; measured: docs/live.md.
"""

from __future__ import annotations

import numpy as np

from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.kernel.chance import ORDERER, below, join
from sim.kernel.run_state import column, compiled
from sim.ledger import rows as ledger
from sim.ledger.endorsement import (
    ASKS,
    ASKS_OTHER,
    ATTEMPTS,
    DISAGREES,
    ENDORSES_IT,
    HANDS_IN,
    IS_ENDORSED,
    plan_of,
    say,
    timeout_name,
)
from sim.ledger.state import disagrees
from sim.ledger.transactions import refuse, release_tx, send_tx


@compiled
def is_late(run_state, name):
    """The time is over in which a request was to be handed in, endorsed: if it is not, its client gives up."""
    tx = name >> 36
    rows, more = column(run_state, ledger.TX), column(run_state, ledger.TX_MORE)
    stage = more[tx * ledger.TX_MORE_WIDTH + ledger.TX_STAGE]
    waits = stage == ledger.ENDORSING or (
        stage == ledger.ORDERING and rows[tx * ledger.TX_WIDTH + ledger.TX_ENTRY] == ledger.NO_ENTRY
    )
    if waits and timeout_name(run_state, tx) == name:
        _give_up(run_state, tx)


@compiled
def _give_up(run_state, tx):
    column(run_state, ledger.TX_MORE)[tx * ledger.TX_MORE_WIDTH + ledger.TX_STAGE] = ledger.GONE
    refuse(run_state, tx)


@compiled
def endorsement_arrives(run_state, envelope, node):
    """A message about a request has been handled at a peer, or at a client."""
    e = envelope * post.ENVELOPE_WIDTH
    row = column(run_state, kernel.ENVELOPE)
    tx, number, says = row[e + post.ARG], row[e + post.ACTION], row[e + post.VOTER]
    step, attempt, height = says & 7, (says >> 3) & ATTEMPTS, says >> 19
    src = row[e + post.SRC]
    rows, more = column(run_state, ledger.TX), column(run_state, ledger.TX_MORE)
    m = tx * ledger.TX_MORE_WIDTH
    if rows[tx * ledger.TX_WIDTH + ledger.TX_NUMBER] != number or more[m + ledger.TX_ATTEMPT] & ATTEMPTS != attempt:
        return  # the row serves another request, or its client has begun anew
    if step == HANDS_IN:
        _hand_in(run_state, tx, node)
        return
    if more[m + ledger.TX_STAGE] != ledger.ENDORSING:
        return
    if step == ASKS:
        _is_asked(run_state, tx, node)
    elif step == ASKS_OTHER:
        mine = column(run_state, ledger.PEER)[node * ledger.PEER_WIDTH + ledger.EXECUTED_HEIGHT]
        say(
            run_state,
            tx,
            node,
            src,
            ENDORSES_IT,
            mine,
            run_state[ledger.ENDORSED_BYTES],
            run_state[ledger.ENDORSE_VERIFY_NS],
            run_state[ledger.ENDORSE_SIGN_NS],
        )
    elif step == ENDORSES_IT:
        bit = np.int64(1) << (src - run_state[ledger.PEER_FIRST])
        if more[m + ledger.TX_PEERS_LEFT] & bit:
            more[m + ledger.TX_PEERS_LEFT] &= ~bit
            more[m + ledger.TX_LOW] = min(more[m + ledger.TX_LOW], height)
            more[m + ledger.TX_HIGH] = max(more[m + ledger.TX_HIGH], height)
            if more[m + ledger.TX_PEERS_LEFT] == 0:
                _tell_client(run_state, tx, node)
    elif step == IS_ENDORSED:
        bytes_ = column(run_state, ledger.CLASS)[
            rows[tx * ledger.TX_WIDTH + ledger.TX_CLASS] * ledger.CLASS_WIDTH + ledger.CLASS_BYTES
        ]
        run_state[ledger.ENDORSED] += 1
        run_state[ledger.ENDORSING_NS] += run_state[kernel.NOW] - rows[tx * ledger.TX_WIDTH + ledger.TX_SUBMIT]
        more[m + ledger.TX_STAGE] = ledger.ORDERING
        more[m + ledger.TX_ENDORSED_NS] = run_state[kernel.NOW]
        say(run_state, tx, node, more[m + ledger.TX_PEER], HANDS_IN, np.int64(0), bytes_, np.int64(0), np.int64(0))
    elif step == DISAGREES:
        run_state[ledger.MISMATCHED] += 1
        _give_up(run_state, tx)


@compiled
def _hand_in(run_state, tx, node):
    """A client's peer has its endorsed transaction: on to an orderer."""
    rows, more = column(run_state, ledger.TX), column(run_state, ledger.TX_MORE)
    m, t = tx * ledger.TX_MORE_WIDTH, tx * ledger.TX_WIDTH
    if more[m + ledger.TX_STAGE] != ledger.ORDERING or rows[t + ledger.TX_ENTRY] != ledger.NO_ENTRY:
        return
    bytes_ = column(run_state, ledger.CLASS)[rows[t + ledger.TX_CLASS] * ledger.CLASS_WIDTH + ledger.CLASS_BYTES]
    sent = False
    if run_state[ledger.ORDERERS_ALL]:
        rows[t + ledger.TX_ENTRY] = ledger.EVERY_ENTRY
        for orderer in range(run_state[kernel.VOTERS]):
            sent |= send_tx(run_state, tx, node, np.int64(orderer), bytes_, False)
    else:
        orderer = _orderer(run_state, rows[t + ledger.TX_NUMBER])
        if orderer >= 0:
            rows[t + ledger.TX_ENTRY] = orderer
            sent = send_tx(run_state, tx, node, orderer, bytes_, False)
    if sent:
        release_tx(run_state, tx)
    else:
        _give_up(run_state, tx)


@compiled
def _orderer(run_state, number):
    """The orderer drawn for a transaction, or the next one that is up; -1: none is."""
    node = column(run_state, kernel.NODE)
    first = below(join(join(join(0, run_state[kernel.SEED]), ORDERER), number), run_state[kernel.VOTERS])
    for i in range(run_state[kernel.VOTERS]):
        orderer = (first + i) % run_state[kernel.VOTERS]
        if node[orderer * post.NODE_WIDTH + post.UP]:
            return np.int64(orderer)
    return np.int64(-1)


@compiled
def _is_asked(run_state, tx, peer):
    """A client's peer has executed its request: it asks the others that the policy needs, or answers at once."""
    more = column(run_state, ledger.TX_MORE)
    m = tx * ledger.TX_MORE_WIDTH
    chosen = plan_of(run_state, peer)
    if chosen == 0:
        return  # its client waits in vain, until its time is over
    height = column(run_state, ledger.PEER)[peer * ledger.PEER_WIDTH + ledger.EXECUTED_HEIGHT]
    more[m + ledger.TX_LOW] = height
    more[m + ledger.TX_HIGH] = height
    own = np.int64(1) << (peer - run_state[ledger.PEER_FIRST])
    more[m + ledger.TX_PEERS_LEFT] = chosen & ~own
    if more[m + ledger.TX_PEERS_LEFT] == 0:
        _tell_client(run_state, tx, peer)
        return
    bytes_ = column(run_state, ledger.CLASS)[
        column(run_state, ledger.TX)[tx * ledger.TX_WIDTH + ledger.TX_CLASS] * ledger.CLASS_WIDTH + ledger.CLASS_BYTES
    ]
    works_ns = run_state[ledger.ENDORSE_VERIFY_NS] + run_state[ledger.ENDORSE_NS]
    left = more[m + ledger.TX_PEERS_LEFT]
    for k in range(run_state[ledger.PEERS]):
        if (left >> k) & 1:
            other = run_state[ledger.PEER_FIRST] + k
            say(run_state, tx, peer, other, ASKS_OTHER, np.int64(0), bytes_, works_ns, np.int64(0))


@compiled
def _tell_client(run_state, tx, peer):
    """All peers have executed a request: its client has what it needs, unless they saw different states."""
    more, rows = column(run_state, ledger.TX_MORE), column(run_state, ledger.TX)
    m, t = tx * ledger.TX_MORE_WIDTH, tx * ledger.TX_WIDTH
    more[m + ledger.TX_SNAPSHOT] = more[m + ledger.TX_HIGH]
    step = IS_ENDORSED
    if more[m + ledger.TX_LOW] < more[m + ledger.TX_HIGH] and disagrees(
        run_state, tx, more[m + ledger.TX_LOW], more[m + ledger.TX_HIGH]
    ):
        step = DISAGREES
    say(
        run_state,
        tx,
        peer,
        rows[t + ledger.TX_GATEWAY],
        step,
        np.int64(0),
        run_state[ledger.ENDORSED_BYTES],
        np.int64(0),
        run_state[ledger.ENDORSE_SIGN_NS],
    )
