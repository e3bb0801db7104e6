"""What a client and peers tell each other about a request before it is ordered: the messages, and who is to endorse.

The steps themselves stand in `sim.ledger.peers`.
"""

from __future__ import annotations

import numpy as np

from sim.kernel import due as events
from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.kernel.chance import join
from sim.kernel.due import ready_push
from sim.kernel.post import new_envelope
from sim.kernel.run_state import column, compiled
from sim.kernel.sending import send_one
from sim.ledger import rows as ledger

# What an envelope says (VOTER: step | attempt << 3 | height << 19).
ASKS, ASKS_OTHER, ENDORSES_IT, IS_ENDORSED, DISAGREES, HANDS_IN = range(6)
ATTEMPTS = 0xFFFF
_NUMBER_BITS = 32  # of a transaction's number, in the name of a timeout


@compiled
def say(run_state, tx, src, dst, step, height, bytes_, verify_ns, sign_ns):
    """A message about a request, from one end to another."""
    more, rows = column(run_state, ledger.TX_MORE), column(run_state, ledger.TX)
    number = rows[tx * ledger.TX_WIDTH + ledger.TX_NUMBER]
    attempt = more[tx * ledger.TX_MORE_WIDTH + ledger.TX_ATTEMPT] & ATTEMPTS
    says = step | (attempt << 3) | (height << 19)
    key = join(join(join(join(join(0, run_state[kernel.SEED]), 3), np.int64(src) - 2_000_000), number), says)
    envelope = new_envelope(
        run_state,
        src,
        run_state[ledger.ENDORSE_KIND],
        post.ENDORSEMENT,
        bytes_,
        verify_ns,
        run_state[ledger.ENDORSE_HANDLE_NS],
        says,
        key,
        number,
        tx,
    )
    send_one(run_state, envelope, src, dst, sign_ns)


@compiled
def timeout_name(run_state, tx):
    """A request and the attempt that its client makes: row << 36 | attempt << 32 | number, each as far as it fits."""
    number = column(run_state, ledger.TX)[tx * ledger.TX_WIDTH + ledger.TX_NUMBER] & ((np.int64(1) << _NUMBER_BITS) - 1)
    attempt = column(run_state, ledger.TX_MORE)[tx * ledger.TX_MORE_WIDTH + ledger.TX_ATTEMPT] & 15
    return (np.int64(tx) << (_NUMBER_BITS + 4)) | (attempt << _NUMBER_BITS) | number


@compiled
def begin(run_state, tx, gateway, peer):
    """A client asks its peer for endorsements. It holds a reference until it hands the transaction in, or gives up."""
    more, rows = column(run_state, ledger.TX_MORE), column(run_state, ledger.TX)
    m, t = tx * ledger.TX_MORE_WIDTH, tx * ledger.TX_WIDTH
    more[m + ledger.TX_PEER] = peer
    more[m + ledger.TX_STAGE] = ledger.ENDORSING
    more[m + ledger.TX_ATTEMPT] += 1
    more[m + ledger.TX_PEERS_LEFT] = 0
    rows[t + ledger.TX_ENTRY] = -1
    bytes_ = column(run_state, ledger.CLASS)[rows[t + ledger.TX_CLASS] * ledger.CLASS_WIDTH + ledger.CLASS_BYTES]
    works_ns = run_state[ledger.ENDORSE_VERIFY_NS] + run_state[ledger.ENDORSE_NS]
    ready_push(
        run_state,
        run_state[kernel.NOW] + run_state[ledger.ENDORSE_TIMEOUT_NS],
        events.ENDORSE_TIMEOUT,
        np.int64(-1),
        timeout_name(run_state, tx),
    )
    say(run_state, tx, gateway, peer, ASKS, np.int64(0), bytes_, works_ns, np.int64(0))


@compiled
def plan_of(run_state, peer):
    """The first set of peers that meets the policy and is up, or 0."""
    plans, node = column(run_state, ledger.PLAN), column(run_state, kernel.NODE)
    first = (peer - run_state[ledger.PEER_FIRST]) * run_state[ledger.PLANS]
    for i in range(run_state[ledger.PLANS]):
        chosen = plans[first + i]
        if chosen == 0:
            return np.int64(0)
        up = True
        for k in range(run_state[ledger.PEERS]):
            if (chosen >> k) & 1 and node[(run_state[ledger.PEER_FIRST] + k) * post.NODE_WIDTH + post.UP] == 0:
                up = False
        if up:
            return chosen
    return np.int64(0)
