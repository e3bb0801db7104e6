"""How long a node takes to execute a block, and when platforms do it: the places that a scenario may choose."""

from __future__ import annotations

from sim.kernel.run_state import column, compiled
from sim.ledger import rows as ledger

PLACES = ("after", "between", "before_vote")
AFTER_ORDER, BETWEEN_BLOCKS, BEFORE_VOTE = range(3)  # EXECUTE_PLACE


@compiled
def execution_ns(run_state, block):
    """Time to execute a block: of each of its transactions alike, or as what conflicts lets them go side by side."""
    if run_state[ledger.SCHEDULES]:
        return column(run_state, ledger.BLOCK_COST)[block]
    return (
        run_state[ledger.EXECUTE_BLOCK_NS]
        + column(run_state, ledger.BLOCK)[block * ledger.BLOCK_WIDTH + ledger.TXS] * run_state[ledger.EXECUTE_NS]
    )
