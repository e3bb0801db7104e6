"""Relays: a message that floods a network of neighbours, hop by hop, without entering Python.

At its first receipt of a flood a node verifies it, handles it, and passes it on to its neighbours but the one it
came from; a further copy is dropped as soon as it is received. Each hop is an ordinary message: it takes the
relay's signing thread (at no cost: a relay signs nothing), its network card, the link, and the receiver's queues.
A flood has a slot; `FLOOD_SEEN` holds per slot and node the time of the first receipt, plus one (0: not yet).
"""

from __future__ import annotations

from sim.kernel import due as events
from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.kernel.chance import JITTER, join
from sim.kernel.due import ready_push
from sim.kernel.post import drop_reference, envelope_ref, new_envelope
from sim.kernel.receiving import hand_over, receive
from sim.kernel.rules import begin_message
from sim.kernel.run_state import column, compiled
from sim.kernel.sending import count_kind, is_shared, put_on_link, sign, transmit
from sim.kernel.sharing import queue


@compiled
def flood_arrives(run_state, time, dst, envelope):
    """A copy of a flooding message arrives at a NIC."""
    e = envelope * post.ENVELOPE_WIDTH
    row = column(run_state, kernel.ENVELOPE)
    seen = column(run_state, kernel.FLOOD_SEEN)
    at = row[e + post.ARG] * run_state[kernel.NODES] + dst
    if seen[at] > 0:
        receive(run_state, time, row[e + post.SRC], dst, row[e + post.SIZE], 0, row[e + post.FLOW_NS])
        drop_reference(run_state, envelope)
        return
    _, verified = receive(
        run_state, time, row[e + post.SRC], dst, row[e + post.SIZE], row[e + post.VERIFY_NS], row[e + post.FLOW_NS]
    )
    done = hand_over(run_state, dst, verified, row[e + post.HANDLE_NS])
    seen[at] = done + 1
    ready_push(run_state, done, events.RELAY, dst, envelope)


@compiled
def relay(run_state, node, envelope):
    """The node has handled its first copy: it passes the message on. The copy's envelope is let go."""
    e = envelope * post.ENVELOPE_WIDTH
    row = column(run_state, kernel.ENVELOPE)
    spread(
        run_state,
        node,
        row[e + post.SRC],
        row[e + post.KIND],
        row[e + post.SIZE],
        row[e + post.VERIFY_NS],
        row[e + post.HANDLE_NS],
        row[e + post.ARG],
    )
    drop_reference(run_state, envelope)


@compiled
def spread(run_state, node, but, kind, size, verify_ns, handle_ns, flood):
    """Send a flooding message to the node's neighbours except `but`."""
    key = join(join(join(join(join(0, run_state[kernel.SEED]), JITTER), node), -3_000_000), flood)
    hop = new_envelope(run_state, node, kind, post.FLOOD, size, verify_ns, handle_ns, 0, key, 0, flood)
    starts = column(run_state, kernel.NEIGHBOUR_START)
    members = column(run_state, kernel.NEIGHBOUR)
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
        copies += put_on_link(run_state, key, envelope_ref(hop, dst), node, dst, leaves, kind, post.FLOOD, size)
    count_kind(run_state, kind, sent, size)
    row = column(run_state, kernel.ENVELOPE)
    row[hop * post.ENVELOPE_WIDTH + post.REFS] = max(copies, 1)
    if copies == 0:
        drop_reference(run_state, hop)


@compiled
def start_flood(run_state, node, kind, size, verify_ns, handle_ns, flood):
    """A node floods a message of its own."""
    column(run_state, kernel.FLOOD_SEEN)[flood * run_state[kernel.NODES] + node] = run_state[kernel.NOW] + 1
    spread(run_state, node, -1, kind, size, verify_ns, handle_ns, flood)
