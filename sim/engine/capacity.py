"""Whether the next step finds room: compiled code never allocates, it asks before it moves anything."""

from __future__ import annotations

from sim.kernel.calendar import calendar_has_room
from sim.kernel.heap import WIDTH
from sim.kernel.run_state import ENVELOPES_FREE, NODES, READY, READY_LEN, RULE_COPIES_MAX, compiled, length
from sim.ledger.rows import BLOCKS_FREE, GATEWAYS, PAYLOAD_SIZE, PAYLOADS_FREE, TX_FREE_LEN


@compiled
def has_capacity(run_state):
    """Whether the columns have room for one more step."""
    # The most that one step can enter: a broadcast to all, a block's replies, a resubmission per client.
    margin = 8 * run_state[NODES] * (1 + run_state[RULE_COPIES_MAX]) + 8 * run_state[GATEWAYS] + 512
    if run_state[GATEWAYS] > 0:
        margin += 2 * run_state[PAYLOAD_SIZE]
    return (
        calendar_has_room(run_state, margin)
        and (run_state[READY_LEN] + margin) * WIDTH < length(run_state, READY)
        and run_state[ENVELOPES_FREE] > 64 + 16 * run_state[GATEWAYS]
        and (run_state[GATEWAYS] == 0 or run_state[TX_FREE_LEN] > margin)
        and run_state[BLOCKS_FREE] > 4
        and run_state[PAYLOADS_FREE] > 4
    )
