"""Keyed state: what transactions read and write, which of them conflict, and how long a block takes to execute.

There is one state, the one that all correct voters agree on: a block changes it once, when the first correct voter
decides it, and the order of decisions is the order of blocks. Which keys a transaction touches follows from its number
and class alone, so it is the same wherever, and however often, it is executed.

Two ways with conflicts. *Order, then execute*: transactions are executed one after the other, and only a rule
of their own can refuse them (a receivable that is pledged already, an account that is frozen). *Execute, then order*
(CONFLICTS_ABORT): a transaction read its keys at the height that its entry voter had reached when it came, and has no
effect if any of them was written since (the version check of Hyperledger Fabric; Androulaki et al., EuroSys 2018, 3.5).
"""

from __future__ import annotations

import numpy as np

from sim.kernel import run_state as kernel
from sim.kernel.chance import KEYS, below, join
from sim.kernel.run_state import column, compiled, length, make_capacity
from sim.ledger import rows as ledger

_HELD_BIT, _FROZEN_BIT, _FLAG_BITS = 1, 2, 2
_DRAWS = 64  # keys that one access may touch


@compiled
def key_of(run_state, number, access, place):
    """The key, by its number in the whole state, that a transaction touches at one place of one access of its class."""
    rows = column(run_state, ledger.ACCESS)
    a = access * ledger.ACCESS_WIDTH
    state = join(
        join(join(join(0, run_state[kernel.SEED]), KEYS), number), rows[a + ledger.ACCESS_STREAM] * _DRAWS + place
    )
    steps = rows[a + ledger.ACCESS_STEPS]
    if steps == 0:
        return rows[a + ledger.ACCESS_FIRST] + below(state, rows[a + ledger.ACCESS_SIZE])
    skew, first = column(run_state, ledger.SKEW), rows[a + ledger.ACCESS_SKEW]
    draw = np.int64(state >> np.uint64(32))
    low, high = np.int64(0), steps - 1
    while low < high:
        middle = (low + high) >> 1
        if draw < skew[2 * (first + middle) + 1]:
            high = middle
        else:
            low = middle + 1
    begin = skew[2 * (first + low)]
    end = skew[2 * (first + low + 1)] if low + 1 < steps else rows[a + ledger.ACCESS_SIZE]
    return rows[a + ledger.ACCESS_FIRST] + begin + below(join(state, 1), end - begin)


@compiled
def _judge(run_state, class_, number, snapshot):
    """Whether a transaction has an effect now: VALID, CONFLICT or REFUSED. Writes nothing."""
    rows, keys, classes = (
        column(run_state, ledger.ACCESS),
        column(run_state, ledger.STATE_KEY),
        column(run_state, ledger.CLASS),
    )
    first = classes[class_ * ledger.CLASS_WIDTH + ledger.CLASS_ACCESS_FIRST]
    last = first + classes[class_ * ledger.CLASS_WIDTH + ledger.CLASS_ACCESSES]
    result = ledger.VALID
    for access in range(first, last):
        a = access * ledger.ACCESS_WIDTH
        for place in range(rows[a + ledger.ACCESS_COUNT]):
            word = keys[key_of(run_state, number, access, place)]
            if run_state[ledger.CONFLICTS_ABORT] and rows[a + ledger.ACCESS_READS]:
                if word >> (_FLAG_BITS + ledger.VERSION_BITS) > snapshot:
                    return ledger.CONFLICT  # whatever its own rules would say: it saw another state
            needs = rows[a + ledger.ACCESS_NEEDS]
            if needs != ledger.ANY and (word & _HELD_BIT != 0) != (needs == ledger.HELD):
                result = ledger.REFUSED
            if rows[a + ledger.ACCESS_WRITES] and word & _FROZEN_BIT and rows[a + ledger.ACCESS_IGNORES] == 0:
                result = ledger.REFUSED
    return result


@compiled
def disagrees(run_state, tx, low, high):
    """Whether a key that a transaction reads was last written above one height and not above another."""
    rows, keys, classes = (
        column(run_state, ledger.ACCESS),
        column(run_state, ledger.STATE_KEY),
        column(run_state, ledger.CLASS),
    )
    class_ = column(run_state, ledger.TX)[tx * ledger.TX_WIDTH + ledger.TX_CLASS]
    number = column(run_state, ledger.TX_MORE)[tx * ledger.TX_MORE_WIDTH + ledger.TX_KEYS]
    first = classes[class_ * ledger.CLASS_WIDTH + ledger.CLASS_ACCESS_FIRST]
    for access in range(first, first + classes[class_ * ledger.CLASS_WIDTH + ledger.CLASS_ACCESSES]):
        a = access * ledger.ACCESS_WIDTH
        for place in range(rows[a + ledger.ACCESS_COUNT]):
            version = keys[key_of(run_state, number, access, place)] >> (_FLAG_BITS + ledger.VERSION_BITS)
            if rows[a + ledger.ACCESS_READS] and low < version <= high:
                return True
    return False


@compiled
def _apply(run_state, class_, number, version):
    """A transaction writes its keys."""
    rows, keys, classes = (
        column(run_state, ledger.ACCESS),
        column(run_state, ledger.STATE_KEY),
        column(run_state, ledger.CLASS),
    )
    first = classes[class_ * ledger.CLASS_WIDTH + ledger.CLASS_ACCESS_FIRST]
    last = first + classes[class_ * ledger.CLASS_WIDTH + ledger.CLASS_ACCESSES]
    for access in range(first, last):
        a = access * ledger.ACCESS_WIDTH
        if rows[a + ledger.ACCESS_WRITES] == 0:
            continue
        leaves = rows[a + ledger.ACCESS_LEAVES]
        for place in range(rows[a + ledger.ACCESS_COUNT]):
            key = key_of(run_state, number, access, place)
            flags = keys[key] & (_HELD_BIT | _FROZEN_BIT)
            if flags & _FROZEN_BIT and classes[class_ * ledger.CLASS_WIDTH + ledger.CLASS_SUPERVISES] == 0:
                run_state[ledger.UNFROZEN] += 1
            if leaves == ledger.LEFT_FREE:
                flags &= ~_HELD_BIT
            elif leaves == ledger.LEFT_HELD:
                flags |= _HELD_BIT
            elif leaves == ledger.LEFT_FROZEN:
                flags |= _FROZEN_BIT
            elif leaves == ledger.LEFT_THAWED:
                flags &= ~_FROZEN_BIT
            keys[key] = (version << _FLAG_BITS) | flags
            run_state[ledger.STATE_ROOT] = np.int64(join(join(run_state[ledger.STATE_ROOT], key), keys[key]))


@compiled
def execute(run_state, tx, block_number, height, place):
    """A transaction of a block that has just been decided is executed, the `place`-th of it."""
    more = column(run_state, ledger.TX_MORE)
    m = tx * ledger.TX_MORE_WIDTH
    class_ = column(run_state, ledger.TX)[tx * ledger.TX_WIDTH + ledger.TX_CLASS]
    number, snapshot = more[m + ledger.TX_KEYS], more[m + ledger.TX_SNAPSHOT]
    result = _judge(run_state, class_, number, snapshot) if run_state[ledger.STATE_ON] else ledger.VALID
    valid_ns = column(run_state, ledger.CLASS)[class_ * ledger.CLASS_WIDTH + ledger.CLASS_VALID_NS]
    if 0 < valid_ns < run_state[kernel.NOW] - column(run_state, ledger.TX)[tx * ledger.TX_WIDTH + ledger.TX_SUBMIT]:
        result = ledger.REFUSED
    slipped = run_state[ledger.UNFROZEN]
    if result == ledger.VALID and run_state[ledger.STATE_ON]:
        _apply(run_state, class_, number, (height << ledger.VERSION_BITS) + place + 1)
    more[m + ledger.TX_RESULT] = result
    outcome = column(run_state, ledger.OUTCOME)
    if result == ledger.CONFLICT:
        outcome[class_ * ledger.OUTCOME_WIDTH + ledger.CONFLICTS] += 1
    elif result == ledger.REFUSED:
        outcome[class_ * ledger.OUTCOME_WIDTH + ledger.REFUSALS] += 1
    if run_state[ledger.UNFROZEN] > slipped:
        _record(run_state, tx, block_number, height, place, ledger.SLIPPED)
    elif run_state[ledger.RECORDS] or _is_on_record(run_state, class_):
        _record(run_state, tx, block_number, height, place, result)


@compiled
def _is_on_record(run_state, class_):
    classes, c = column(run_state, ledger.CLASS), class_ * ledger.CLASS_WIDTH
    return classes[c + ledger.CLASS_SUPERVISES] > 0 or classes[c + ledger.CLASS_WATCHED] > 0


@compiled
def _record(run_state, tx, block_number, height, place, result):
    if (run_state[ledger.EXECUTED_LEN] + 1) * ledger.EXECUTED_WIDTH > length(run_state, ledger.EXECUTED):
        make_capacity(run_state, ledger.EXECUTED)
    rows, more, txs = (
        column(run_state, ledger.EXECUTED),
        column(run_state, ledger.TX_MORE),
        column(run_state, ledger.TX),
    )
    at, m = run_state[ledger.EXECUTED_LEN] * ledger.EXECUTED_WIDTH, tx * ledger.TX_MORE_WIDTH
    rows[at + ledger.DONE_HEIGHT] = height
    rows[at + ledger.DONE_PLACE] = place
    rows[at + ledger.DONE_KEYS] = more[m + ledger.TX_KEYS]
    rows[at + ledger.DONE_CLASS] = txs[tx * ledger.TX_WIDTH + ledger.TX_CLASS]
    rows[at + ledger.DONE_SNAPSHOT] = more[m + ledger.TX_SNAPSHOT]
    rows[at + ledger.DONE_RESULT] = result
    rows[at + ledger.DONE_SUBMIT] = txs[tx * ledger.TX_WIDTH + ledger.TX_SUBMIT]
    rows[at + ledger.DONE_BLOCK] = block_number
    rows[at + ledger.DONE_NS] = run_state[kernel.NOW]
    run_state[ledger.EXECUTED_LEN] += 1


# --- lanes -------------------------------------------------------------------------------------------------


@compiled
def begin_schedule(run_state):
    """Lanes are free: the execution of a block is laid out from now on."""
    lanes = column(run_state, ledger.LANE_FREE)
    for lane in range(run_state[ledger.LANES]):
        lanes[lane] = 0


@compiled
def _busy_at(run_state, key, mark):
    """Where it stands when a key is busy in the block of that mark. There are twice as many rows as it can touch."""
    busy = column(run_state, ledger.KEY_BUSY)
    rows = length(run_state, ledger.KEY_BUSY) // ledger.BUSY_WIDTH
    row = np.int64(join(0, key) & np.uint64(rows - 1))
    while (
        busy[row * ledger.BUSY_WIDTH + ledger.BUSY_MARK] == mark
        and busy[row * ledger.BUSY_WIDTH + ledger.BUSY_KEY] != key
    ):
        row = (row + 1) & (rows - 1)
    at = row * ledger.BUSY_WIDTH
    if busy[at + ledger.BUSY_MARK] != mark:
        busy[at + ledger.BUSY_MARK] = mark
        busy[at + ledger.BUSY_KEY] = key
        busy[at + ledger.BUSY_WRITTEN] = 0
        busy[at + ledger.BUSY_READ] = 0
    return at


@compiled
def schedule(run_state, tx, mark):
    """The next transaction of a block goes to the lane that is free first, once what it conflicts with is over.

    Two conflict if both touch a key and one of them writes it. `mark`: the block's, by which keys know of it.
    """
    class_ = column(run_state, ledger.TX)[tx * ledger.TX_WIDTH + ledger.TX_CLASS]
    number = column(run_state, ledger.TX_MORE)[tx * ledger.TX_MORE_WIDTH + ledger.TX_KEYS]
    rows, busy, classes = (
        column(run_state, ledger.ACCESS),
        column(run_state, ledger.KEY_BUSY),
        column(run_state, ledger.CLASS),
    )
    first = classes[class_ * ledger.CLASS_WIDTH + ledger.CLASS_ACCESS_FIRST]
    end_of = first + classes[class_ * ledger.CLASS_WIDTH + ledger.CLASS_ACCESSES]
    ready = np.int64(0)
    for access in range(first, end_of):
        a = access * ledger.ACCESS_WIDTH
        for place in range(rows[a + ledger.ACCESS_COUNT]):
            k = _busy_at(run_state, key_of(run_state, number, access, place), mark)
            ready = max(ready, busy[k + ledger.BUSY_WRITTEN])
            if rows[a + ledger.ACCESS_WRITES]:
                ready = max(ready, busy[k + ledger.BUSY_READ])
    lanes = column(run_state, ledger.LANE_FREE)
    best = 0
    for lane in range(1, run_state[ledger.LANES]):
        if lanes[lane] < lanes[best]:
            best = lane
    end = max(ready, lanes[best]) + run_state[ledger.EXECUTE_NS]
    lanes[best] = end
    for access in range(first, end_of):
        a = access * ledger.ACCESS_WIDTH
        for place in range(rows[a + ledger.ACCESS_COUNT]):
            k = _busy_at(run_state, key_of(run_state, number, access, place), mark)
            last = ledger.BUSY_WRITTEN if rows[a + ledger.ACCESS_WRITES] else ledger.BUSY_READ
            busy[k + last] = max(busy[k + last], end)


@compiled
def end_schedule(run_state, block, txs):
    """All transactions of a block are laid out: so long it takes to execute."""
    lanes = column(run_state, ledger.LANE_FREE)
    longest = np.int64(0)
    for lane in range(run_state[ledger.LANES]):
        longest = max(longest, lanes[lane])
    column(run_state, ledger.BLOCK_COST)[block] = (
        run_state[ledger.EXECUTE_BLOCK_NS] + longest + txs * run_state[ledger.IO_NS]
    )
