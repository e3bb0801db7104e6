"""Columns that grow: compiled code never allocates, so Python doubles what is nearly full (`Engine.make_room`).

`lengthen` is what compiled code calls when an event fills a column that had room for any ordinary one.
"""

from __future__ import annotations

import numpy as np

from sim.engine import actions, lead, rumours, votes
from sim.kernel import desk as d
from sim.kernel import tally
from sim.kernel.calendar import grow_chunks
from sim.kernel.desk import Desk
from sim.ledger import rows as r

# Columns that rows are appended to, with nothing beside them.
_BLOCKS_AT_ONCE = 1 << 14
_CHAINS_MAX = 1 << 16  # of unseen blocks, by height

_LISTS = frozenset({d.READY, d.NEAR, d.FAR, d.LOG, r.TRACE, r.CLOSED})


def lengthen(desk: Desk, number: int) -> None:
    """Make room in a column that compiled code has found full (`desk.make_room`): the one place that does.

    Raises KeyError for a column that cannot be full, because compiled code asks for its rows beforehand.
    """
    if number in _LISTS:
        desk.grow(number)
    elif number == r.HANDED:
        desk.allocate(r.HANDED, max(2 * len(desk[r.HANDED]), len(desk[r.CLOSED])))  # what it held was seen to
    elif number == d.CHUNK_FREE:
        grow_chunks(desk)
    elif number == d.ENVELOPE_FREE:
        double_envelopes(desk)
    elif number == r.TX_FREE:
        double_transactions(desk)
    else:
        raise KeyError(f"column {number} is no list and no table that grows within an event")


def double_envelopes(desk: Desk) -> None:
    """Double the table of envelopes."""
    double(desk, d.ENVELOPE_FREE, d.ENVELOPES_FREE, ((d.ENVELOPE, 0),))


def double_transactions(desk: Desk) -> None:
    """Double the table of transactions."""
    double(desk, r.TX_FREE, r.TX_FREE_LEN, ((r.TX, 0), (r.TX_HELD, 0)))


def add_tallies(desk: Desk, *, seats: int, wide: bool, count: int) -> None:
    """More tally rows: every seat counts in wide ones, in a narrow one only the seat that owns it."""
    state = desk.array
    words = int(state[d.BITS_WORDS])
    receivers = seats if wide else 1
    before = len(desk[d.TALLY]) // tally.ROW
    if before + count > votes.ROWS_MAX:
        raise MemoryError(f"{before + count} tallies at one time; events name at most {votes.ROWS_MAX}")
    old_counts, old_bits = len(desk[d.TALLY_COUNT]), len(desk[d.TALLY_BITS])
    for number, extra in (
        (d.TALLY, count * tally.ROW),
        (d.TALLY_COUNT, count * receivers),
        (d.TALLY_FIRED, count * receivers),
        (d.TALLY_BITS, count * receivers * words),
        (d.TALLY_PLACE, 2 * count),
        (d.TALLY_CAST, count * ((seats + 63) >> 6)),
        (d.TALLY_WEIGHTS, count),
    ):
        data = d.zeros(len(desk[number]) + extra)
        data[: len(desk[number])] = desk[number]
        desk.replace(number, data)
    table = desk[d.TALLY].reshape(-1, tally.ROW)
    new = np.arange(before, before + count)
    table[new, tally.COUNT_AT] = old_counts + np.arange(count) * receivers
    table[new, tally.COUNT_STEP] = int(wide)
    table[new, tally.BITS_AT] = old_bits + np.arange(count) * receivers * words
    table[new, tally.BITS_STEP] = words if wide else 0
    table[new, tally.RELEASED] = 2
    free, length = (votes.WIDE_FREE, votes.WIDE_FREE_LEN) if wide else (votes.NARROW_FREE, votes.NARROW_FREE_LEN)
    kept = desk[free][: state[length]]
    data = d.zeros(len(desk[free]) + count)
    data[: len(kept)] = kept
    data[len(kept) : len(kept) + count] = new[::-1]
    desk.replace(free, data)
    state[length] = len(kept) + count


def add_gatherings(desk: Desk) -> None:
    """Double the gatherings of letters that go down trees; sixteen at first."""
    state = desk.array
    stride = int(state[actions.GATHER_STRIDE])
    rows = len(desk[actions.GATHERING]) // stride
    more = max(rows, 16)
    data = d.zeros((rows + more) * stride)
    data[: rows * stride] = desk[actions.GATHERING]
    desk.replace(actions.GATHERING, data)
    count = int(state[actions.GATHERS_FREE])
    free = d.zeros(rows + more)
    free[:count] = desk[actions.GATHER_FREE][:count]
    free[count : count + more] = np.arange(rows + more - 1, rows - 1, -1)
    desk.replace(actions.GATHER_FREE, free)
    state[actions.GATHERS_FREE] = count + more


def add_rumours(desk: Desk) -> list[int]:
    """Double the slots of rumours, 1024 at first: the new ones, to be taken from the end."""
    rows = len(desk[rumours.RUMOUR]) // rumours.RUMOUR_WIDTH
    more = max(rows, 1024)
    words = int(desk.array[d.BITS_WORDS])
    for number, width in ((rumours.RUMOUR, rumours.RUMOUR_WIDTH), (rumours.HEARD, words)):
        data = d.zeros((rows + more) * width)
        data[: rows * width] = desk[number]
        desk.replace(number, data)
    return list(range(rows + more - 1, rows - 1, -1))


def double(desk: Desk, free: int, length: int, columns: tuple[tuple[int, int], ...], first: int = 0) -> None:
    """Double a table: its columns, each with what fills it, and its list of free rows.

    Rows are taken from the end of that list, and the new ones are put at its beginning: so which row is used next does
    not depend on when the table grew, which the fast path and handlers bring about at different times.
    """
    state = desk.array
    rows = len(desk[free]) + first
    for number, fill in columns:
        desk.grow(number, fill)
    desk.grow(free)
    if len(desk[free]) < 2 * rows - first:
        data = d.zeros(2 * rows - first)
        data[: len(desk[free])] = desk[free]
        desk.replace(free, data)
    count = int(state[length])
    desk[free][rows : rows + count] = desk[free][:count].copy()
    desk[free][:rows] = np.arange(2 * rows - 1, rows - 1, -1)
    state[length] = count + rows


def add_blocks(desk: Desk) -> None:
    """Twice the blocks, but not more than so many at a time; unseen ones lie in as many chains, up to a number."""
    state = desk.array
    rows = len(desk[r.BLOCK_FREE])
    more = min(rows, _BLOCKS_AT_ONCE)
    for number, fill in ((r.BLOCK, -1), (r.BLOCK_READY, 0), (r.BLOCK_REPLIES, 0), (r.BLOCK_FREE, 0)):
        width = len(desk[number]) // rows
        desk.grow_to(number, (rows + more) * width if width else len(desk[number]), fill)
    count = int(state[r.BLOCKS_FREE])
    desk[r.BLOCK_FREE][count : count + more] = np.arange(rows + more - 1, rows - 1, -1)
    state[r.BLOCKS_FREE] = count + more
    if len(desk[lead.UNSEEN]) < _CHAINS_MAX:
        _lay_chains(desk, 2 * len(desk[lead.UNSEEN]))


def _lay_chains(desk: Desk, count: int) -> None:
    """Put the unseen blocks into so many chains, a power of two."""
    heads = d.zeros(count)
    blocks = desk[r.BLOCK].reshape(-1, r.BLOCK_WIDTH)
    for row in np.flatnonzero((blocks[:, r.NUMBER] >= 0) & (blocks[:, r.SEEN] == 0)).tolist():
        slot = int(blocks[row, r.HEIGHT]) & (len(heads) - 1)
        blocks[row, r.NEXT_UNSEEN] = heads[slot]
        heads[slot] = row + 1
    desk.replace(lead.UNSEEN, heads)


def double_full_pools(desk: Desk, seats: int) -> None:
    """Double every mempool's ring if one of them is nearly full."""
    state = desk.array
    size = int(state[r.POOL_SIZE])
    peer = desk[r.PEER].reshape(-1, r.PEER_WIDTH)[:seats]
    if (peer[:, r.POOL_TAIL] - peer[:, r.POOL_HEAD]).max() < size - 2:
        return
    old = desk[r.POOL].reshape(seats, size, 2)
    desk.spare(desk[r.POOL].nbytes)
    data = d.zeros(2 * len(desk[r.POOL]))
    new = data.reshape(seats, 2 * size, 2)
    for node in range(seats):
        live = np.arange(peer[node, r.POOL_HEAD], peer[node, r.POOL_TAIL])
        new[node, live % (2 * size)] = old[node, live % size]
    desk.replace(r.POOL, data)
    state[r.POOL_SIZE] = 2 * size
