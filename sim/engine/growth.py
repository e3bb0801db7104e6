"""Columns that grow: compiled code never allocates, so Python doubles what is nearly full (`Engine.make_capacity`).

`lengthen` is what compiled code calls when an event fills a column that had room for any ordinary one.
"""

from __future__ import annotations

import numpy as np

from sim.engine import actions, gossip, lease, votes
from sim.kernel import run_state as kernel
from sim.kernel import tally
from sim.kernel.calendar import grow_chunks
from sim.kernel.run_state import RunState
from sim.ledger import rows as ledger

# Columns that rows are appended to, with nothing beside them.
_BLOCKS_AT_ONCE = 1 << 14
_CHAINS_MAX = 1 << 16  # of unseen blocks, by height

_LISTS = frozenset(
    {kernel.READY, kernel.NEAR, kernel.FAR, kernel.LOG, ledger.TRACE, ledger.CLOSED, ledger.EXECUTED, ledger.CARRIED}
)


def lengthen(run_state: RunState, number: int) -> None:
    """Make room in a column that compiled code has found full (`make_capacity`): the one place that does.

    Raises KeyError for a column that cannot be full, because compiled code asks for its rows beforehand.
    """
    if number in _LISTS:
        run_state.grow(number)
    elif number == ledger.HANDED:
        run_state.allocate(
            ledger.HANDED, max(2 * len(run_state[ledger.HANDED]), len(run_state[ledger.CLOSED]))
        )  # what it held was seen to
    elif number == kernel.CHUNK_FREE:
        grow_chunks(run_state)
    elif number == kernel.ENVELOPE_FREE:
        double_envelopes(run_state)
    elif number == ledger.TX_FREE:
        double_transactions(run_state)
    elif number == kernel.QUEUED_FREE:
        double(run_state, kernel.QUEUED_FREE, kernel.QUEUED_FREE_LEN, ((kernel.QUEUED, 0), (kernel.QUEUED_PLACE, 0)))
    else:
        raise KeyError(f"column {number} is no list and no table that grows within an event")


def double_envelopes(run_state: RunState) -> None:
    """Double the table of envelopes."""
    double(run_state, kernel.ENVELOPE_FREE, kernel.ENVELOPES_FREE, ((kernel.ENVELOPE, 0),))


def double_transactions(run_state: RunState) -> None:
    """Double the table of transactions."""
    double(run_state, ledger.TX_FREE, ledger.TX_FREE_LEN, ((ledger.TX, 0), (ledger.TX_HELD, 0), (ledger.TX_MORE, 0)))


def add_tallies(run_state: RunState, *, seats: int, wide: bool, count: int) -> None:
    """More tally rows: every seat counts in wide ones, in a narrow one only the seat that owns it."""
    state = run_state.array
    words = int(state[kernel.BITS_WORDS])
    receivers = seats if wide else 1
    before = len(run_state[kernel.TALLY]) // tally.ROW
    if before + count > votes.ROWS_MAX:
        raise MemoryError(f"{before + count} tallies at one time; events name at most {votes.ROWS_MAX}")
    old_counts, old_bits = len(run_state[kernel.TALLY_COUNT]), len(run_state[kernel.TALLY_BITS])
    for number, extra in (
        (kernel.TALLY, count * tally.ROW),
        (kernel.TALLY_COUNT, count * receivers),
        (kernel.TALLY_FIRED, count * receivers),
        (kernel.TALLY_BITS, count * receivers * words),
        (kernel.TALLY_PLACE, 2 * count),
        (kernel.TALLY_CAST, count * ((seats + 63) >> 6)),
        (kernel.TALLY_WEIGHTS, count),
    ):
        data = kernel.zeros(len(run_state[number]) + extra)
        data[: len(run_state[number])] = run_state[number]
        run_state.replace(number, data)
    table = run_state[kernel.TALLY].reshape(-1, tally.ROW)
    new = np.arange(before, before + count)
    table[new, tally.COUNT_AT] = old_counts + np.arange(count) * receivers
    table[new, tally.COUNT_STEP] = int(wide)
    table[new, tally.BITS_AT] = old_bits + np.arange(count) * receivers * words
    table[new, tally.BITS_STEP] = words if wide else 0
    table[new, tally.RELEASED] = 2
    free, length = (votes.WIDE_FREE, votes.WIDE_FREE_LEN) if wide else (votes.NARROW_FREE, votes.NARROW_FREE_LEN)
    kept = run_state[free][: state[length]]
    data = kernel.zeros(len(run_state[free]) + count)
    data[: len(kept)] = kept
    data[len(kept) : len(kept) + count] = new[::-1]
    run_state.replace(free, data)
    state[length] = len(kept) + count


def add_gatherings(run_state: RunState) -> None:
    """Double the aggregations of messages that go down trees; sixteen at first."""
    state = run_state.array
    stride = int(state[actions.AGGREGATE_STRIDE])
    rows = len(run_state[actions.AGGREGATION]) // stride
    more = max(rows, 16)
    data = kernel.zeros((rows + more) * stride)
    data[: rows * stride] = run_state[actions.AGGREGATION]
    run_state.replace(actions.AGGREGATION, data)
    count = int(state[actions.AGGREGATES_FREE])
    free = kernel.zeros(rows + more)
    free[:count] = run_state[actions.AGGREGATE_FREE][:count]
    free[count : count + more] = np.arange(rows + more - 1, rows - 1, -1)
    run_state.replace(actions.AGGREGATE_FREE, free)
    state[actions.AGGREGATES_FREE] = count + more


def add_rumours(run_state: RunState) -> list[int]:
    """Double the slots of gossip messages, 1024 at first: the new ones, to be taken from the end."""
    rows = len(run_state[gossip.GOSSIP]) // gossip.GOSSIP_WIDTH
    more = max(rows, 1024)
    words = int(run_state.array[kernel.BITS_WORDS])
    for number, width in ((gossip.GOSSIP, gossip.GOSSIP_WIDTH), (gossip.HEARD, words)):
        data = kernel.zeros((rows + more) * width)
        data[: rows * width] = run_state[number]
        run_state.replace(number, data)
    return list(range(rows + more - 1, rows - 1, -1))


def double(run_state: RunState, free: int, length: int, columns: tuple[tuple[int, int], ...], first: int = 0) -> None:
    """Double a table: its columns, each with what fills it, and its list of free rows.

    Rows are taken from the end of that list, and the new ones are put at its beginning: so which row is used next does
    not depend on when the table grew, which the fast path and handlers bring about at different times.
    """
    state = run_state.array
    rows = len(run_state[free]) + first
    for number, fill in columns:
        run_state.grow(number, fill)
    run_state.grow(free)
    if len(run_state[free]) < 2 * rows - first:
        data = kernel.zeros(2 * rows - first)
        data[: len(run_state[free])] = run_state[free]
        run_state.replace(free, data)
    count = int(state[length])
    run_state[free][rows : rows + count] = run_state[free][:count].copy()
    run_state[free][:rows] = np.arange(2 * rows - 1, rows - 1, -1)
    state[length] = count + rows


def add_blocks(run_state: RunState) -> None:
    """Twice the blocks, but not more than so many at a time; unseen ones lie in as many chains, up to a number."""
    state = run_state.array
    rows = len(run_state[ledger.BLOCK_FREE])
    more = min(rows, _BLOCKS_AT_ONCE)
    for number in (
        ledger.BLOCK,
        ledger.BLOCK_READY,
        ledger.BLOCK_REPLIES,
        ledger.BLOCK_RESULTS,
        ledger.BLOCK_COST,
        ledger.BLOCK_FREE,
    ):
        fill = -1 if number == ledger.BLOCK else 0
        width = len(run_state[number]) // rows
        run_state.grow_to(number, (rows + more) * width if width else len(run_state[number]), fill)
    count = int(state[ledger.BLOCKS_FREE])
    run_state[ledger.BLOCK_FREE][count : count + more] = np.arange(rows + more - 1, rows - 1, -1)
    state[ledger.BLOCKS_FREE] = count + more
    if len(run_state[lease.UNSEEN]) < _CHAINS_MAX:
        _lay_chains(run_state, 2 * len(run_state[lease.UNSEEN]))


def _lay_chains(run_state: RunState, count: int) -> None:
    """Put the unseen blocks into so many chains, a power of two."""
    heads = kernel.zeros(count)
    blocks = run_state[ledger.BLOCK].reshape(-1, ledger.BLOCK_WIDTH)
    for row in np.flatnonzero((blocks[:, ledger.NUMBER] >= 0) & (blocks[:, ledger.SEEN] == 0)).tolist():
        slot = int(blocks[row, ledger.HEIGHT]) & (len(heads) - 1)
        blocks[row, ledger.NEXT_UNSEEN] = heads[slot]
        heads[slot] = row + 1
    run_state.replace(lease.UNSEEN, heads)


def double_full_pools(run_state: RunState, seats: int) -> None:
    """Double every mempool's ring if one of them is nearly full."""
    state = run_state.array
    size = int(state[ledger.POOL_SIZE])
    peer = run_state[ledger.PEER].reshape(-1, ledger.PEER_WIDTH)[:seats]
    if (peer[:, ledger.POOL_TAIL] - peer[:, ledger.POOL_HEAD]).max() < size - 2:
        return
    old = run_state[ledger.POOL].reshape(seats, size, 2)
    run_state.spare(run_state[ledger.POOL].nbytes)
    data = kernel.zeros(2 * len(run_state[ledger.POOL]))
    new = data.reshape(seats, 2 * size, 2)
    for node in range(seats):
        live = np.arange(peer[node, ledger.POOL_HEAD], peer[node, ledger.POOL_TAIL])
        new[node, live % (2 * size)] = old[node, live % size]
    run_state.replace(ledger.POOL, data)
    state[ledger.POOL_SIZE] = 2 * size
