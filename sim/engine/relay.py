"""Relays: a message that floods a network of neighbours, hop by hop, without entering Python.

At its first receipt of a flood a node verifies it, handles it, and passes it on to its neighbours but the one it
came from; a further copy is dropped as soon as it is received. Each hop is an ordinary message: it takes the
relay's signing thread (at no cost: a relay signs nothing), its network card, the link, and the receiver's queues.
A flood has a slot; `FLOOD_SEEN` holds per slot and node the time of the first receipt, plus one (0: not yet).
"""

from __future__ import annotations

from sim.kernel.chance import JITTER, join
from sim.kernel.due import RELAY, ready_push
from sim.kernel.post import (
    ARG,
    ENVELOPE_WIDTH,
    FLOOD,
    FLOW_NS,
    HANDLE_NS,
    KIND,
    REFS,
    SIZE,
    SRC,
    VERIFY_NS,
    drop_reference,
    envelope_ref,
    new_envelope,
)
from sim.kernel.receiving import hand_over, receive
from sim.kernel.rules import begin_message
from sim.kernel.run_state import (
    ENVELOPE,
    FLOOD_SEEN,
    NEIGHBOUR,
    NEIGHBOUR_START,
    NODES,
    NOW,
    SEED,
    column,
    compiled,
)
from sim.kernel.sending import count_kind, is_shared, put_on_link, sign, transmit
from sim.kernel.sharing import queue


@compiled
def flood_arrives(run_state, time, dst, envelope):
    """A copy of a flooding message arrives at a NIC."""
    e = envelope * ENVELOPE_WIDTH
    row = column(run_state, ENVELOPE)
    seen = column(run_state, FLOOD_SEEN)
    at = row[e + ARG] * run_state[NODES] + dst
    if seen[at] > 0:
        receive(run_state, time, row[e + SRC], dst, row[e + SIZE], 0, row[e + FLOW_NS])
        drop_reference(run_state, envelope)
        return
    _, verified = receive(run_state, time, row[e + SRC], dst, row[e + SIZE], row[e + VERIFY_NS], row[e + FLOW_NS])
    done = hand_over(run_state, dst, verified, row[e + HANDLE_NS])
    seen[at] = done + 1
    ready_push(run_state, done, RELAY, dst, envelope)


@compiled
def relay(run_state, node, envelope):
    """The node has handled its first copy: it passes the message on. The copy's envelope is let go."""
    e = envelope * ENVELOPE_WIDTH
    row = column(run_state, ENVELOPE)
    spread(
        run_state,
        node,
        row[e + SRC],
        row[e + KIND],
        row[e + SIZE],
        row[e + VERIFY_NS],
        row[e + HANDLE_NS],
        row[e + ARG],
    )
    drop_reference(run_state, envelope)


@compiled
def spread(run_state, node, but, kind, size, verify_ns, handle_ns, flood):
    """Send a flooding message to the node's neighbours except `but`."""
    key = join(join(join(join(join(0, run_state[SEED]), JITTER), node), -3_000_000), flood)
    hop = new_envelope(run_state, node, kind, FLOOD, size, verify_ns, handle_ns, 0, key, 0, flood)
    starts = column(run_state, NEIGHBOUR_START)
    members = column(run_state, NEIGHBOUR)
    ready = sign(run_state, node, 0)
    shared = is_shared(run_state, node)
    if not shared:
        begin_message(run_state, node, kind)
    copies = 0
    sent = 0
    for i in range(starts[node], starts[node + 1]):
        dst = members[i]
        if dst == but:
            continue
        sent += 1
        if shared:
            queue(run_state, node, envelope_ref(hop, dst), dst, ready, key, size, False)
            copies += 1
            continue
        leaves = transmit(run_state, node, ready, size)
        copies += put_on_link(run_state, key, envelope_ref(hop, dst), node, dst, leaves, kind, FLOOD, size)
    count_kind(run_state, kind, sent, size)
    row = column(run_state, ENVELOPE)
    row[hop * ENVELOPE_WIDTH + REFS] = max(copies, 1)
    if copies == 0:
        drop_reference(run_state, hop)


@compiled
def start_flood(run_state, node, kind, size, verify_ns, handle_ns, flood):
    """A node floods a message of its own."""
    column(run_state, FLOOD_SEEN)[flood * run_state[NODES] + node] = run_state[NOW] + 1
    spread(run_state, node, -1, kind, size, verify_ns, handle_ns, flood)
