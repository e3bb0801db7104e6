"""Relays: a message that floods a network of neighbours, hop by hop, without entering Python.

At its first receipt of a flood a node verifies it, handles it, and passes it on to its neighbours but the one it
came from; a further copy is dropped as soon as it is received. Each hop is an ordinary message: it takes the
relay's signing thread (at no cost: a relay signs nothing), its network card, the link, and the receiver's queues.
A flood has a slot; `FLOOD_SEEN` holds per slot and node the time of the first receipt, plus one (0: not yet).
"""

from __future__ import annotations

from sim.kernel.chance import JITTER, join
from sim.kernel.desk import (
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
from sim.kernel.due import RELAY, ready_push
from sim.kernel.post import (
    ARG,
    ENVELOPE_WIDTH,
    FLOOD,
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
from sim.kernel.sending import count_kind, put_on_link, sign, transmit


@compiled
def flood_arrives(desk, time, dst, envelope):
    """A copy of a flooding message arrives at a NIC."""
    e = envelope * ENVELOPE_WIDTH
    row = column(desk, ENVELOPE)
    seen = column(desk, FLOOD_SEEN)
    at = row[e + ARG] * desk[NODES] + dst
    if seen[at] > 0:
        receive(desk, time, dst, row[e + SIZE], 0)
        drop_reference(desk, envelope)
        return
    _, verified = receive(desk, time, dst, row[e + SIZE], row[e + VERIFY_NS])
    done = hand_over(desk, dst, verified, row[e + HANDLE_NS])
    seen[at] = done + 1
    ready_push(desk, done, RELAY, dst, envelope)


@compiled
def relay(desk, node, envelope):
    """The node has handled its first copy: it passes the message on. The copy's envelope is let go."""
    e = envelope * ENVELOPE_WIDTH
    row = column(desk, ENVELOPE)
    spread(desk, node, row[e + SRC], row[e + KIND], row[e + SIZE], row[e + VERIFY_NS], row[e + HANDLE_NS], row[e + ARG])
    drop_reference(desk, envelope)


@compiled
def spread(desk, node, but, kind, size, verify_ns, handle_ns, flood):
    """Send a flooding message to the node's neighbours except `but`."""
    key = join(join(join(join(join(0, desk[SEED]), JITTER), node), -3_000_000), flood)
    hop = new_envelope(desk, node, kind, FLOOD, size, verify_ns, handle_ns, 0, key, 0, flood)
    starts = column(desk, NEIGHBOUR_START)
    members = column(desk, NEIGHBOUR)
    begin_message(desk, node, kind)
    ready = sign(desk, node, 0)
    copies = 0
    sent = 0
    for i in range(starts[node], starts[node + 1]):
        dst = members[i]
        if dst == but:
            continue
        leaves = transmit(desk, node, ready, size)
        copies += put_on_link(desk, key, envelope_ref(hop, dst), node, dst, leaves, kind, FLOOD, size)
        sent += 1
    count_kind(desk, kind, sent, size)
    row = column(desk, ENVELOPE)
    row[hop * ENVELOPE_WIDTH + REFS] = max(copies, 1)
    if copies == 0:
        drop_reference(desk, hop)


@compiled
def start_flood(desk, node, kind, size, verify_ns, handle_ns, flood):
    """A node floods a message of its own."""
    column(desk, FLOOD_SEEN)[flood * desk[NODES] + node] = desk[NOW] + 1
    spread(desk, node, -1, kind, size, verify_ns, handle_ns, flood)
