"""Gossip: what spreads from neighbour to neighbour, taken at its receivers without entering Python.

Each gossip message has a slot, and each slot a bit per seat that has seen it. A copy that arrives where it was seen,
or where its height is long past, ends there. A vote that is new to a replica whose guard is open is passed on to all
neighbours but the one it came from, and counted: what a handler would do (`sim.protocol.GossipMessage`). Everything
else goes to the handlers. A copy names its message in the envelope's ACTION, as OF_GOSSIP | generation << 32 | slot.
"""

from __future__ import annotations

import numpy as np

from sim.engine.lease import post_number
from sim.engine.votes import vote_arrives
from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.kernel import tally as tallies
from sim.kernel.chance import JITTER, join
from sim.kernel.layout import scalar, slot
from sim.kernel.post import new_envelope
from sim.kernel.run_state import column, compiled, length
from sim.kernel.sending import send_group
from sim.ledger import rows as ledger

# scalars
GOSSIP_KIND = scalar(126)  # message type of a gossip message passed on

# columns
GOSSIP = slot(80)  # GOSSIP_WIDTH per slot
HEARD = slot(81)  # per slot a bit set of seats
GOSSIPER = slot(82)  # GOSSIPER_WIDTH per seat
PASSES = slot(83)  # pairs: a neighbour, and the group of the others

GOSSIP_WIDTH = 8
HEIGHT, GENERATION, VOTE_ROW, VOTE_KEY, VOTER, SIZE, VERIFY_NS, HANDLE_NS = range(8)
GOSSIPER_WIDTH = 4
KEPT, FIRST, NEIGHBOURS = range(3)  # heights kept (0: it does not gossip); its part of PASSES (none: handlers do it)

OF_GOSSIP = 1 << 62
SLOT = (1 << 32) - 1
GENERATIONS = (1 << 30) - 1
TO_NOBODY = -1  # in PASSES, in place of a group
STRANGER = -1  # in PASSES, in place of a neighbour: it came from somebody else


@compiled
def deliver_once(run_state, node, slot):
    """The node is given a gossip message. False: it had before."""
    at = slot * run_state[kernel.BITS_WORDS] + (node >> 6)
    bit = np.int64(1) << (node & 63)
    heard = column(run_state, HEARD)
    if heard[at] & bit:
        return False
    heard[at] |= bit
    return True


@compiled
def has_seen(run_state, node, slot):
    """Whether the node has heard a gossip message."""
    return column(run_state, HEARD)[slot * run_state[kernel.BITS_WORDS] + (node >> 6)] >> (node & 63) & 1 > 0


@compiled
def forget_gossip(run_state, node):
    """The node crashes: it has heard nothing, and passes nothing on."""
    heard = column(run_state, HEARD)
    at = node >> 6
    while at < length(run_state, HEARD):
        heard[at] &= ~(np.int64(1) << (node & 63))
        at += run_state[kernel.BITS_WORDS]
    column(run_state, GOSSIPER)[node * GOSSIPER_WIDTH + KEPT] = 0
    column(run_state, GOSSIPER)[node * GOSSIPER_WIDTH + NEIGHBOURS] = 0


@compiled
def _pass_on(run_state, node, name, but):
    """Send a gossip message to the node's neighbours except `but`."""
    g = node * GOSSIPER_WIDTH
    gossiper, passes = column(run_state, GOSSIPER), column(run_state, PASSES)
    group = np.int64(TO_NOBODY)
    for i in range(gossiper[g + FIRST], gossiper[g + FIRST] + gossiper[g + NEIGHBOURS]):
        group = passes[2 * i + 1]
        if passes[2 * i] == but:
            break  # the last entry is that of a stranger
    if group == TO_NOBODY:
        return
    u = (name & SLOT) * GOSSIP_WIDTH
    gossip_message = column(run_state, GOSSIP)
    kind = run_state[GOSSIP_KIND]
    key = join(join(join(join(0, run_state[kernel.SEED]), JITTER), node), post_number(run_state, node, kind))
    size, verify_ns, handle_ns = gossip_message[u + SIZE], gossip_message[u + VERIFY_NS], gossip_message[u + HANDLE_NS]
    envelope = new_envelope(run_state, node, kind, post.MESSAGE, size, verify_ns, handle_ns, 0, key, name, 1)
    send_group(run_state, envelope, node, group, 0)


@compiled
def gossip_comes(run_state, node, envelope):
    """A copy of a gossip message has been handled at a node. False: the handlers see to it."""
    row = column(run_state, kernel.ENVELOPE)
    e = envelope * post.ENVELOPE_WIDTH
    name = row[e + post.ACTION]
    slot = name & SLOT
    gossip_message = column(run_state, GOSSIP)
    u = slot * GOSSIP_WIDTH
    gossiper = column(run_state, GOSSIPER)
    g = node * GOSSIPER_WIDTH
    if gossip_message[u + GENERATION] != (name >> 32) & GENERATIONS or has_seen(run_state, node, slot):
        return True
    tip = column(run_state, ledger.PEER)[node * ledger.PEER_WIDTH + ledger.TIP_HEIGHT]
    if gossiper[g + KEPT] > 0 and gossip_message[u + HEIGHT] <= tip - gossiper[g + KEPT]:
        return True
    vote = gossip_message[u + VOTE_ROW]
    if gossiper[g + NEIGHBOURS] == 0 or vote < 0 or run_state[kernel.RULES] > 0:
        return False
    tally = column(run_state, kernel.TALLY)
    if (
        tally[vote * tallies.ROW + tallies.KEY] != gossip_message[u + VOTE_KEY]
        or tally[vote * tallies.ROW + tallies.RELEASED] != 0
    ):
        return False  # its row serves another ballot now
    if gossip_message[u + VOTER] == column(run_state, kernel.IDENTITY)[node]:
        return False
    deliver_once(run_state, node, slot)
    _pass_on(run_state, node, name, row[e + post.SRC])
    if gossip_message[u + HEIGHT] > tip:
        vote_arrives(run_state, vote, node, gossip_message[u + VOTER], run_state[kernel.NOW])
    return True
