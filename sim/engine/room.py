"""Whether the next step finds room: compiled code never allocates, it asks before it moves anything."""

from __future__ import annotations

from sim.kernel.calendar import calendar_has_room
from sim.kernel.desk import ENVELOPES_FREE, NODES, READY, READY_LEN, RULE_COPIES_MAX, compiled, length
from sim.kernel.heap import WIDTH
from sim.ledger.rows import BLOCKS_FREE, GATEWAYS, PAYLOAD_SIZE, PAYLOADS_FREE, TX_FREE_LEN


@compiled
def has_room(desk):
    """Whether the columns have room for one more step."""
    # The most that one step can enter: a broadcast to all, a block's replies, a resubmission per client.
    margin = 8 * desk[NODES] * (1 + desk[RULE_COPIES_MAX]) + 8 * desk[GATEWAYS] + 512
    if desk[GATEWAYS] > 0:
        margin += 2 * desk[PAYLOAD_SIZE]
    return (
        calendar_has_room(desk, margin)
        and (desk[READY_LEN] + margin) * WIDTH < length(desk, READY)
        and desk[ENVELOPES_FREE] > 64 + 16 * desk[GATEWAYS]
        and (desk[GATEWAYS] == 0 or desk[TX_FREE_LEN] > margin)
        and desk[BLOCKS_FREE] > 4
        and desk[PAYLOADS_FREE] > 4
    )
