"""How long a node takes to execute a block, and when platforms do it: the places that a scenario may choose."""

from __future__ import annotations

from sim.kernel.run_state import compiled
from sim.ledger.rows import EXECUTE_BLOCK_NS, EXECUTE_NS

PLACES = ("after", "between", "before_vote")
AFTER_ORDER, BETWEEN_BLOCKS, BEFORE_VOTE = range(3)  # EXECUTE_PLACE


@compiled
def execution_ns(run_state, txs):
    """Time to execute a block of so many transactions."""
    return run_state[EXECUTE_BLOCK_NS] + txs * run_state[EXECUTE_NS]
