"""How long a node takes to execute a block, and when platforms do it: the places that a scenario may choose."""

from __future__ import annotations

from sim.kernel.run_state import column, compiled
from sim.ledger.rows import BLOCK, BLOCK_COST, BLOCK_WIDTH, EXECUTE_BLOCK_NS, EXECUTE_NS, SCHEDULES, TXS

PLACES = ("after", "between", "before_vote")
AFTER_ORDER, BETWEEN_BLOCKS, BEFORE_VOTE = range(3)  # EXECUTE_PLACE


@compiled
def execution_ns(run_state, block):
    """Time to execute a block: of each of its transactions alike, or as what conflicts lets them go side by side."""
    if run_state[SCHEDULES]:
        return column(run_state, BLOCK_COST)[block]
    return run_state[EXECUTE_BLOCK_NS] + column(run_state, BLOCK)[block * BLOCK_WIDTH + TXS] * run_state[EXECUTE_NS]
