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

from sim.kernel.chance import KEYS, below, join
from sim.kernel.run_state import NOW, SEED, column, compiled, length, make_capacity
from sim.ledger.rows import (
    ACCESS,
    ACCESS_COUNT,
    ACCESS_FIRST,
    ACCESS_IGNORES,
    ACCESS_LEAVES,
    ACCESS_NEEDS,
    ACCESS_READS,
    ACCESS_SIZE,
    ACCESS_SKEW,
    ACCESS_STEPS,
    ACCESS_STREAM,
    ACCESS_WIDTH,
    ACCESS_WRITES,
    ANY,
    BLOCK_COST,
    BUSY_KEY,
    BUSY_MARK,
    BUSY_READ,
    BUSY_WIDTH,
    BUSY_WRITTEN,
    CLASS,
    CLASS_ACCESS_FIRST,
    CLASS_ACCESSES,
    CLASS_SUPERVISES,
    CLASS_VALID_NS,
    CLASS_WATCHED,
    CLASS_WIDTH,
    CONFLICT,
    CONFLICTS,
    CONFLICTS_ABORT,
    DONE_BLOCK,
    DONE_CLASS,
    DONE_HEIGHT,
    DONE_KEYS,
    DONE_NS,
    DONE_PLACE,
    DONE_RESULT,
    DONE_SNAPSHOT,
    DONE_SUBMIT,
    EXECUTE_BLOCK_NS,
    EXECUTE_NS,
    EXECUTED,
    EXECUTED_LEN,
    EXECUTED_WIDTH,
    HELD,
    IO_NS,
    KEY_BUSY,
    LANE_FREE,
    LANES,
    LEFT_FREE,
    LEFT_FROZEN,
    LEFT_HELD,
    LEFT_THAWED,
    OUTCOME,
    OUTCOME_WIDTH,
    RECORDS,
    REFUSALS,
    REFUSED,
    SKEW,
    SLIPPED,
    STATE_KEY,
    STATE_ON,
    STATE_ROOT,
    TX,
    TX_CLASS,
    TX_KEYS,
    TX_MORE,
    TX_MORE_WIDTH,
    TX_RESULT,
    TX_SNAPSHOT,
    TX_SUBMIT,
    TX_WIDTH,
    UNFROZEN,
    VALID,
    VERSION_BITS,
)

_HELD_BIT, _FROZEN_BIT, _FLAG_BITS = 1, 2, 2
_DRAWS = 64  # keys that one access may touch


@compiled
def key_of(run_state, number, access, place):
    """The key, by its number in the whole state, that a transaction touches at one place of one access of its class."""
    rows = column(run_state, ACCESS)
    a = access * ACCESS_WIDTH
    state = join(join(join(join(0, run_state[SEED]), KEYS), number), rows[a + ACCESS_STREAM] * _DRAWS + place)
    steps = rows[a + ACCESS_STEPS]
    if steps == 0:
        return rows[a + ACCESS_FIRST] + below(state, rows[a + ACCESS_SIZE])
    skew, first = column(run_state, SKEW), rows[a + ACCESS_SKEW]
    draw = np.int64(state >> np.uint64(32))
    low, high = np.int64(0), steps - 1
    while low < high:
        middle = (low + high) >> 1
        if draw < skew[2 * (first + middle) + 1]:
            high = middle
        else:
            low = middle + 1
    begin = skew[2 * (first + low)]
    end = skew[2 * (first + low + 1)] if low + 1 < steps else rows[a + ACCESS_SIZE]
    return rows[a + ACCESS_FIRST] + begin + below(join(state, 1), end - begin)


@compiled
def _judge(run_state, class_, number, snapshot):
    """Whether a transaction has an effect now: VALID, CONFLICT or REFUSED. Writes nothing."""
    rows, keys, classes = column(run_state, ACCESS), column(run_state, STATE_KEY), column(run_state, CLASS)
    first = classes[class_ * CLASS_WIDTH + CLASS_ACCESS_FIRST]
    last = first + classes[class_ * CLASS_WIDTH + CLASS_ACCESSES]
    result = VALID
    for access in range(first, last):
        a = access * ACCESS_WIDTH
        for place in range(rows[a + ACCESS_COUNT]):
            word = keys[key_of(run_state, number, access, place)]
            if run_state[CONFLICTS_ABORT] and rows[a + ACCESS_READS]:
                if word >> (_FLAG_BITS + VERSION_BITS) > snapshot:
                    return CONFLICT  # whatever its own rules would say: it saw another state
            needs = rows[a + ACCESS_NEEDS]
            if needs != ANY and (word & _HELD_BIT != 0) != (needs == HELD):
                result = REFUSED
            if rows[a + ACCESS_WRITES] and word & _FROZEN_BIT and rows[a + ACCESS_IGNORES] == 0:
                result = REFUSED
    return result


@compiled
def disagrees(run_state, tx, low, high):
    """Whether a key that a transaction reads was last written above one height and not above another."""
    rows, keys, classes = column(run_state, ACCESS), column(run_state, STATE_KEY), column(run_state, CLASS)
    class_ = column(run_state, TX)[tx * TX_WIDTH + TX_CLASS]
    number = column(run_state, TX_MORE)[tx * TX_MORE_WIDTH + TX_KEYS]
    first = classes[class_ * CLASS_WIDTH + CLASS_ACCESS_FIRST]
    for access in range(first, first + classes[class_ * CLASS_WIDTH + CLASS_ACCESSES]):
        a = access * ACCESS_WIDTH
        for place in range(rows[a + ACCESS_COUNT]):
            version = keys[key_of(run_state, number, access, place)] >> (_FLAG_BITS + VERSION_BITS)
            if rows[a + ACCESS_READS] and low < version <= high:
                return True
    return False


@compiled
def _apply(run_state, class_, number, version):
    """A transaction writes its keys."""
    rows, keys, classes = column(run_state, ACCESS), column(run_state, STATE_KEY), column(run_state, CLASS)
    first = classes[class_ * CLASS_WIDTH + CLASS_ACCESS_FIRST]
    last = first + classes[class_ * CLASS_WIDTH + CLASS_ACCESSES]
    for access in range(first, last):
        a = access * ACCESS_WIDTH
        if rows[a + ACCESS_WRITES] == 0:
            continue
        leaves = rows[a + ACCESS_LEAVES]
        for place in range(rows[a + ACCESS_COUNT]):
            key = key_of(run_state, number, access, place)
            flags = keys[key] & (_HELD_BIT | _FROZEN_BIT)
            if flags & _FROZEN_BIT and classes[class_ * CLASS_WIDTH + CLASS_SUPERVISES] == 0:
                run_state[UNFROZEN] += 1
            if leaves == LEFT_FREE:
                flags &= ~_HELD_BIT
            elif leaves == LEFT_HELD:
                flags |= _HELD_BIT
            elif leaves == LEFT_FROZEN:
                flags |= _FROZEN_BIT
            elif leaves == LEFT_THAWED:
                flags &= ~_FROZEN_BIT
            keys[key] = (version << _FLAG_BITS) | flags
            run_state[STATE_ROOT] = np.int64(join(join(run_state[STATE_ROOT], key), keys[key]))


@compiled
def execute(run_state, tx, block_number, height, place):
    """A transaction of a block that has just been decided is executed, the `place`-th of it."""
    more = column(run_state, TX_MORE)
    m = tx * TX_MORE_WIDTH
    class_ = column(run_state, TX)[tx * TX_WIDTH + TX_CLASS]
    number, snapshot = more[m + TX_KEYS], more[m + TX_SNAPSHOT]
    result = _judge(run_state, class_, number, snapshot) if run_state[STATE_ON] else VALID
    valid_ns = column(run_state, CLASS)[class_ * CLASS_WIDTH + CLASS_VALID_NS]
    if 0 < valid_ns < run_state[NOW] - column(run_state, TX)[tx * TX_WIDTH + TX_SUBMIT]:
        result = REFUSED
    slipped = run_state[UNFROZEN]
    if result == VALID and run_state[STATE_ON]:
        _apply(run_state, class_, number, (height << VERSION_BITS) + place + 1)
    more[m + TX_RESULT] = result
    outcome = column(run_state, OUTCOME)
    if result == CONFLICT:
        outcome[class_ * OUTCOME_WIDTH + CONFLICTS] += 1
    elif result == REFUSED:
        outcome[class_ * OUTCOME_WIDTH + REFUSALS] += 1
    if run_state[UNFROZEN] > slipped:
        _record(run_state, tx, block_number, height, place, SLIPPED)
    elif run_state[RECORDS] or _is_on_record(run_state, class_):
        _record(run_state, tx, block_number, height, place, result)


@compiled
def _is_on_record(run_state, class_):
    classes, c = column(run_state, CLASS), class_ * CLASS_WIDTH
    return classes[c + CLASS_SUPERVISES] > 0 or classes[c + CLASS_WATCHED] > 0


@compiled
def _record(run_state, tx, block_number, height, place, result):
    if (run_state[EXECUTED_LEN] + 1) * EXECUTED_WIDTH > length(run_state, EXECUTED):
        make_capacity(run_state, EXECUTED)
    rows, more, txs = column(run_state, EXECUTED), column(run_state, TX_MORE), column(run_state, TX)
    at, m = run_state[EXECUTED_LEN] * EXECUTED_WIDTH, tx * TX_MORE_WIDTH
    rows[at + DONE_HEIGHT] = height
    rows[at + DONE_PLACE] = place
    rows[at + DONE_KEYS] = more[m + TX_KEYS]
    rows[at + DONE_CLASS] = txs[tx * TX_WIDTH + TX_CLASS]
    rows[at + DONE_SNAPSHOT] = more[m + TX_SNAPSHOT]
    rows[at + DONE_RESULT] = result
    rows[at + DONE_SUBMIT] = txs[tx * TX_WIDTH + TX_SUBMIT]
    rows[at + DONE_BLOCK] = block_number
    rows[at + DONE_NS] = run_state[NOW]
    run_state[EXECUTED_LEN] += 1


# --- lanes -------------------------------------------------------------------------------------------------


@compiled
def begin_schedule(run_state):
    """Lanes are free: the execution of a block is laid out from now on."""
    lanes = column(run_state, LANE_FREE)
    for lane in range(run_state[LANES]):
        lanes[lane] = 0


@compiled
def _busy_at(run_state, key, mark):
    """Where it stands when a key is busy in the block of that mark. There are twice as many rows as it can touch."""
    busy = column(run_state, KEY_BUSY)
    rows = length(run_state, KEY_BUSY) // BUSY_WIDTH
    row = np.int64(join(0, key) & np.uint64(rows - 1))
    while busy[row * BUSY_WIDTH + BUSY_MARK] == mark and busy[row * BUSY_WIDTH + BUSY_KEY] != key:
        row = (row + 1) & (rows - 1)
    at = row * BUSY_WIDTH
    if busy[at + BUSY_MARK] != mark:
        busy[at + BUSY_MARK] = mark
        busy[at + BUSY_KEY] = key
        busy[at + BUSY_WRITTEN] = 0
        busy[at + BUSY_READ] = 0
    return at


@compiled
def schedule(run_state, tx, mark):
    """The next transaction of a block goes to the lane that is free first, once what it conflicts with is over.

    Two conflict if both touch a key and one of them writes it. `mark`: the block's, by which keys know of it.
    """
    class_ = column(run_state, TX)[tx * TX_WIDTH + TX_CLASS]
    number = column(run_state, TX_MORE)[tx * TX_MORE_WIDTH + TX_KEYS]
    rows, busy, classes = column(run_state, ACCESS), column(run_state, KEY_BUSY), column(run_state, CLASS)
    first = classes[class_ * CLASS_WIDTH + CLASS_ACCESS_FIRST]
    end_of = first + classes[class_ * CLASS_WIDTH + CLASS_ACCESSES]
    ready = np.int64(0)
    for access in range(first, end_of):
        a = access * ACCESS_WIDTH
        for place in range(rows[a + ACCESS_COUNT]):
            k = _busy_at(run_state, key_of(run_state, number, access, place), mark)
            ready = max(ready, busy[k + BUSY_WRITTEN])
            if rows[a + ACCESS_WRITES]:
                ready = max(ready, busy[k + BUSY_READ])
    lanes = column(run_state, LANE_FREE)
    best = 0
    for lane in range(1, run_state[LANES]):
        if lanes[lane] < lanes[best]:
            best = lane
    end = max(ready, lanes[best]) + run_state[EXECUTE_NS]
    lanes[best] = end
    for access in range(first, end_of):
        a = access * ACCESS_WIDTH
        for place in range(rows[a + ACCESS_COUNT]):
            k = _busy_at(run_state, key_of(run_state, number, access, place), mark)
            last = BUSY_WRITTEN if rows[a + ACCESS_WRITES] else BUSY_READ
            busy[k + last] = max(busy[k + last], end)


@compiled
def end_schedule(run_state, block, txs):
    """All transactions of a block are laid out: so long it takes to execute."""
    lanes = column(run_state, LANE_FREE)
    longest = np.int64(0)
    for lane in range(run_state[LANES]):
        longest = max(longest, lanes[lane])
    column(run_state, BLOCK_COST)[block] = run_state[EXECUTE_BLOCK_NS] + longest + txs * run_state[IO_NS]
