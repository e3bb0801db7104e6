"""The seam: all that a consensus protocol sees of the simulator, and all that the simulator sees of it.

A protocol is a class whose handlers react: *upon* a message, a quorum of votes, a timer. It speaks through one
narrow door, the `Context`, and knows neither time's passing nor the network. A file that defines one imports
this module, and nothing numerical, random or graphical.

Two kinds of message:

* a *message* carries content and is handed to a handler at each receiver;
* a *vote* says "I, this replica, agree to this ballot" and wakes nobody by itself: votes are counted where they
  arrive, and the handler declared for the vote type runs when a quorum is complete.

Both travel through the same queues and links, and cost the same signatures, bytes and time.

Here is the door. Behind it stand `messages`, `blocks`, `ballots`, `causes` (what handlers wait for), `normal_case`
(the fast path), `context` and `replica`.
"""

from sim.protocol.ballots import Ballot
from sim.protocol.blocks import Block
from sim.protocol.causes import BATCH, DECIDED, MEMBERSHIP, NO_PROGRESS, MembersChange, Signal, Timer, invariant, upon
from sim.protocol.context import Context
from sim.protocol.messages import ALL, Audience, GossipMessage, Message, Quorum, Signing, VoteType
from sim.protocol.normal_case import Aggregate, FastPath, FastPathView, Lease, NormalCase, Step, Tree, Turns
from sim.protocol.replica import Replica, highest

__all__ = [
    "ALL",
    "BATCH",
    "DECIDED",
    "MEMBERSHIP",
    "NO_PROGRESS",
    "Aggregate",
    "Audience",
    "Ballot",
    "Block",
    "Context",
    "FastPath",
    "FastPathView",
    "GossipMessage",
    "Lease",
    "MembersChange",
    "Message",
    "NormalCase",
    "Quorum",
    "Replica",
    "Signal",
    "Signing",
    "Step",
    "Timer",
    "Tree",
    "Turns",
    "VoteType",
    "highest",
    "invariant",
    "upon",
]
