"""Whether the next step finds room: compiled code never allocates, it asks before it moves anything."""

from __future__ import annotations

from sim.kernel import run_state as kernel
from sim.kernel.calendar import calendar_has_room
from sim.kernel.heap import WIDTH
from sim.kernel.run_state import compiled, length
from sim.ledger import rows as ledger


@compiled
def has_capacity(run_state):
    """Whether the columns have room for one more step."""
    # The most that one step can enter: a broadcast to all, a block's replies, a resubmission per client.
    margin = (
        8 * run_state[kernel.NODES] * (1 + run_state[kernel.RULE_COPIES_MAX]) + 8 * run_state[ledger.GATEWAYS] + 512
    )
    if run_state[ledger.GATEWAYS] > 0:
        margin += 2 * run_state[ledger.PAYLOAD_SIZE]
    return (
        calendar_has_room(run_state, margin)
        and (run_state[kernel.READY_LEN] + margin) * WIDTH < length(run_state, kernel.READY)
        and run_state[kernel.ENVELOPES_FREE] > 64 + 16 * run_state[ledger.GATEWAYS]
        and (run_state[ledger.GATEWAYS] == 0 or run_state[ledger.TX_FREE_LEN] > margin)
        and run_state[ledger.BLOCKS_FREE] > 4
        and run_state[ledger.PAYLOADS_FREE] > 4
    )
