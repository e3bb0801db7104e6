"""The calendar: messages in flight, ordered by arrival time, at the cost of a few array writes each.

A ring of buckets covers the near future; bucket number = arrival time >> shift. A bucket is a list of small
chunks, so entering a message appends one row, whatever is in flight. When its turn comes, a bucket is copied
out and sorted once: it becomes the *run*. Two heaps take the exceptions: messages that arrive within the
bucket that is already open (*near*) and those beyond the ring (*far*). The width of a bucket follows the load:
it is halved when too many messages are near or a bucket overflows the cache, doubled when buckets are empty.

Order is (time, order of entry), exactly, whatever the width:
a bucket's rows are kept and sorted stably; a far row enters its bucket before any row can be appended to that
bucket directly; a near row was entered after all rows of the run, so the run goes first on equal times.

The scheme is a ladder queue (Tang, Goh, Thng, ACM TOMACS 15(3), 2005, "Ladder queue: an O(1) priority queue
structure for large-scale discrete event simulation") with one rung.
"""

from __future__ import annotations

from sim.kernel.cold import LINE
from sim.kernel.desk import (
    BUCKET_HEAD,
    BUCKET_LEN,
    BUCKET_TAIL,
    CAL_CURRENT,
    CAL_FILLED,
    CAL_NEAR,
    CAL_OPENED,
    CAL_PUSHED,
    CAL_SHIFT,
    CAL_WISH,
    CHUNK_FREE,
    CHUNK_NEXT,
    CHUNK_ROWS,
    CHUNKS_FREE,
    FAR,
    FAR_LEN,
    HEAP_SEQ,
    IN_FLIGHT,
    IN_RING,
    NEAR,
    NEAR_LEN,
    NEVER,
    RUN,
    RUN_LEN,
    RUN_POS,
    SORT,
    SORT_COUNT,
    Desk,
    column,
    compiled,
    fetch,
    length,
    make_room,
)
from sim.kernel.heap import WIDTH, heap_drop, heap_push

BUCKETS = 4096  # ring size, a power of two
CHUNK = 64  # rows per chunk
REVIEW = 64  # buckets opened between two reviews of the width
BUCKET_MAX = 8192  # rows: more than this and sorting leaves the cache
FINE_BITS = 11  # a large bucket is sorted by this many bits at first
FEW = 64  # rows: below this, insertion sort
SHIFT_MIN, SHIFT_MAX = 4, 40


def lay_calendar(desk: Desk, shift: int, messages: int) -> None:
    """Allocate the calendar for about `messages` in flight, with buckets of 2**shift ns."""
    desk.allocate(BUCKET_HEAD, BUCKETS)
    desk.allocate(BUCKET_TAIL, BUCKETS)
    desk.allocate(BUCKET_LEN, BUCKETS)
    chunks = BUCKETS + messages // CHUNK + 64
    desk.allocate(CHUNK_NEXT, chunks)
    desk.allocate(CHUNK_ROWS, chunks * CHUNK * 2)
    free = desk.allocate(CHUNK_FREE, chunks)
    free[:] = range(chunks)
    desk.array[CHUNKS_FREE] = chunks
    desk.allocate(RUN, 2 * 1024)
    desk.allocate(SORT, 2 * 1024)
    desk.allocate(SORT_COUNT, (1 << FINE_BITS) + 1)
    desk.allocate(NEAR, WIDTH * 1024)
    desk.allocate(FAR, WIDTH * 1024)
    desk.array[CAL_SHIFT] = min(max(shift, SHIFT_MIN), SHIFT_MAX)


def grow_chunks(desk: Desk) -> None:
    """Double the store of chunks."""
    old, new = desk.grow(CHUNK_NEXT)
    desk.grow(CHUNK_ROWS)
    desk.grow(CHUNK_FREE)
    count = int(desk.array[CHUNKS_FREE])
    desk[CHUNK_FREE][count : count + new - old] = range(old, new)
    desk.array[CHUNKS_FREE] = count + new - old


def grow_calendar(desk: Desk, messages: int) -> None:
    """Make room for `messages` more than are in flight, with as much again to spare."""
    state = desk.array
    while state[CHUNKS_FREE] <= 2 * messages:
        grow_chunks(desk)
    for heap, used in ((NEAR, NEAR_LEN), (FAR, FAR_LEN)):
        while (state[used] + 2 * messages) * WIDTH > len(desk[heap]):
            desk.grow(heap)
    if state[CAL_WISH]:
        state[CAL_WISH] = 0
        while (state[FAR_LEN] + state[IN_RING] + 64) * WIDTH > len(desk[FAR]):
            desk.grow(FAR)
        while 2 * (state[IN_RING] + 64) > len(desk[RUN]):
            desk.grow(RUN)
            desk.grow(SORT)
    largest = int(desk[BUCKET_LEN].max())
    while 2 * largest > len(desk[RUN]):
        desk.grow(RUN)
        desk.grow(SORT)


@compiled
def calendar_has_room(desk, messages):
    """Whether `messages` more can be entered without Python's help."""
    return (
        desk[CHUNKS_FREE] > messages
        and (desk[NEAR_LEN] + messages) * WIDTH < length(desk, NEAR)
        and (desk[FAR_LEN] + messages) * WIDTH < length(desk, FAR)
    )


@compiled
def append_to_bucket(desk, bucket, time, ref):
    """Append a row to a bucket of the ring; the caller counts it (`count_appended`)."""
    slot = bucket & (BUCKETS - 1)
    lens = column(desk, BUCKET_LEN)
    tail = column(desk, BUCKET_TAIL)
    count = lens[slot]
    place = count & (CHUNK - 1)
    if place == 0:
        if desk[CHUNKS_FREE] == 0:
            make_room(desk, CHUNK_FREE)
        free = desk[CHUNKS_FREE] - 1
        desk[CHUNKS_FREE] = free
        chunk = column(desk, CHUNK_FREE)[free]
        if count == 0:
            column(desk, BUCKET_HEAD)[slot] = chunk
        else:
            column(desk, CHUNK_NEXT)[tail[slot]] = chunk
        tail[slot] = chunk
    rows = column(desk, CHUNK_ROWS)
    row = 2 * (tail[slot] * CHUNK + place)
    if 2 * place & (LINE - 1) == 0:  # the first row in its cache line: the next line will be needed later
        fetch(desk, CHUNK_ROWS, row + LINE)
    rows[row] = time
    rows[row + 1] = ref
    lens[slot] = count + 1


@compiled
def count_appended(desk, messages):
    """Count rows appended to the ring."""
    desk[IN_RING] += messages
    desk[IN_FLIGHT] += messages
    desk[CAL_PUSHED] += messages


@compiled
def calendar_push(desk, time, ref):
    """Enter a message that arrives at `time`; `ref` says what it is."""
    bucket = time >> desk[CAL_SHIFT]
    ahead = bucket - desk[CAL_CURRENT]
    if 0 < ahead < BUCKETS:
        append_to_bucket(desk, bucket, time, ref)
        count_appended(desk, 1)
    else:
        desk[IN_FLIGHT] += 1
        desk[CAL_PUSHED] += 1
        sequence = desk[HEAP_SEQ]
        desk[HEAP_SEQ] = sequence + 1
        if ahead <= 0:
            desk[CAL_NEAR] += 1
            heap_push(desk, NEAR, NEAR_LEN, time, sequence, ref, 0)
        else:
            heap_push(desk, FAR, FAR_LEN, time, sequence, ref, 0)


@compiled
def _insertion_sort(run, count):
    for i in range(1, count):
        time = run[2 * i]
        if run[2 * i - 2] > time:
            ref = run[2 * i + 1]
            j = i
            while j > 0 and run[2 * j - 2] > time:
                run[2 * j] = run[2 * j - 2]
                run[2 * j + 1] = run[2 * j - 1]
                j -= 1
            run[2 * j] = time
            run[2 * j + 1] = ref


@compiled
def _merge_sort(run, scratch, count):
    """Stable bottom-up merge sort: for buckets whose times are too bunched for the bins to part them."""
    width = 1
    in_scratch = False
    source, target = run, scratch
    while width < count:
        for start in range(0, count, 2 * width):
            i, j = start, min(start + width, count)
            middle, end = j, min(start + 2 * width, count)
            for o in range(start, end):
                if i < middle and (j >= end or source[2 * i] <= source[2 * j]):
                    target[2 * o] = source[2 * i]
                    target[2 * o + 1] = source[2 * i + 1]
                    i += 1
                else:
                    target[2 * o] = source[2 * j]
                    target[2 * o + 1] = source[2 * j + 1]
                    j += 1
        source, target = target, source
        in_scratch = not in_scratch
        width *= 2
    if in_scratch:
        for i in range(2 * count):
            run[i] = scratch[i]


@compiled
def _take_out(desk, bucket, count, out):
    """Copy the rows of `bucket` to `out` in order of entry and give its chunks back."""
    slot = bucket & (BUCKETS - 1)
    rows = column(desk, CHUNK_ROWS)
    after = column(desk, CHUNK_NEXT)
    free = column(desk, CHUNK_FREE)
    chunk = column(desk, BUCKET_HEAD)[slot]
    o = 0
    for start in range(0, count, CHUNK):
        base = 2 * chunk * CHUNK
        if start + CHUNK < count:
            for i in range(0, 2 * CHUNK, LINE):
                fetch(desk, CHUNK_ROWS, 2 * after[chunk] * CHUNK + i)
        for i in range(2 * min(count - start, CHUNK)):
            out[o] = rows[base + i]
            o += 1
        free[desk[CHUNKS_FREE]] = chunk
        desk[CHUNKS_FREE] += 1
        chunk = after[chunk]
    column(desk, BUCKET_LEN)[slot] = 0


@compiled
def _sort_bucket(desk, bucket, count):
    """Copy the rows of `bucket` into the run, sorted by time, equal times in order of entry."""
    run = column(desk, RUN)
    if count <= FEW:
        _take_out(desk, bucket, count, run)
        _insertion_sort(run, count)
        return
    scratch = column(desk, SORT)
    _take_out(desk, bucket, count, scratch)
    bins = column(desk, SORT_COUNT)
    shift = desk[CAL_SHIFT]
    bits = 5
    while bits < FINE_BITS and (1 << bits) < count:
        bits += 1
    bits = min(bits, shift)
    fine = shift - bits
    low = (1 << bits) - 1
    for i in range(low + 2):
        bins[i] = 0
    for i in range(count):
        bins[((scratch[2 * i] >> fine) & low) + 1] += 1
    most = 0
    for i in range(low + 1):
        most = max(most, bins[i + 1])
        bins[i + 1] += bins[i]
    for i in range(count):
        bin_ = (scratch[2 * i] >> fine) & low
        p = bins[bin_]
        bins[bin_] = p + 1
        run[2 * p] = scratch[2 * i]
        run[2 * p + 1] = scratch[2 * i + 1]
    if most <= FEW:
        _insertion_sort(run, count)
    else:
        _merge_sort(run, scratch, count)


@compiled
def _bring_near(desk):
    """Move far rows whose bucket the ring now covers into it, in order."""
    far = column(desk, FAR)
    horizon = desk[CAL_CURRENT] + BUCKETS
    while desk[FAR_LEN] > 0 and (far[0] >> desk[CAL_SHIFT]) < horizon:
        append_to_bucket(desk, far[0] >> desk[CAL_SHIFT], far[0], far[2])
        desk[IN_RING] += 1
        heap_drop(desk, FAR, FAR_LEN)


@compiled
def _change_width(desk, change):
    """Rebuild the ring with buckets 2**change times as wide. Called between two buckets (no run, no near)."""
    lens = column(desk, BUCKET_LEN)
    count = desk[IN_RING]
    old_shift = desk[CAL_SHIFT]
    current = desk[CAL_CURRENT]
    # All rows in time order through the far heap: rare, so simple beats quick. Their sequence numbers must
    # come before those of rows that are already far; both are only compared among equal times, which are
    # either all in the ring or all far, so fresh numbers keep the order.
    if (desk[FAR_LEN] + count + 1) * WIDTH >= length(desk, FAR) or 2 * count >= length(desk, RUN):
        desk[CAL_WISH] = 1
        return
    desk[CAL_WISH] = 0
    bucket = current + 1
    while desk[IN_RING] > 0:
        n = lens[bucket & (BUCKETS - 1)]
        if n > 0:
            _sort_bucket(desk, bucket, n)
            run = column(desk, RUN)
            for i in range(n):
                sequence = desk[HEAP_SEQ]
                desk[HEAP_SEQ] = sequence + 1
                heap_push(desk, FAR, FAR_LEN, run[2 * i], sequence, run[2 * i + 1], 0)
            desk[IN_RING] -= n
        bucket += 1
    desk[CAL_SHIFT] = old_shift + change
    start = (current + 1) << old_shift  # nothing in flight arrives before this time
    desk[CAL_CURRENT] = (start >> desk[CAL_SHIFT]) - 1
    _bring_near(desk)


@compiled
def _review_width(desk):
    opened = desk[CAL_OPENED]
    filled = desk[CAL_FILLED]
    near = desk[CAL_NEAR]
    pushed = desk[CAL_PUSHED]
    desk[CAL_OPENED] = 0
    desk[CAL_FILLED] = 0
    desk[CAL_NEAR] = 0
    desk[CAL_PUSHED] = 0
    shift = desk[CAL_SHIFT]
    if shift > SHIFT_MIN and (near * 4 > pushed or filled > BUCKET_MAX * opened):
        _change_width(desk, -1)
    elif shift < SHIFT_MAX and near * 16 < pushed and filled < 8 * opened:
        _change_width(desk, 1)


@compiled
def calendar_open(desk, until):
    """Open the next bucket that holds anything and starts no later than `until`.

    Returns the arrival time of its first message, NEVER if there is none, or -1 if Python must make room.
    """
    if desk[CAL_OPENED] >= REVIEW or desk[CAL_FILLED] > 4 * BUCKET_MAX * desk[CAL_OPENED]:
        _review_width(desk)
        if desk[CAL_WISH]:
            return -1
    if desk[IN_RING] == 0:
        if desk[FAR_LEN] == 0:
            return NEVER
        first = column(desk, FAR)[0] >> desk[CAL_SHIFT]
        if (first << desk[CAL_SHIFT]) > until:
            return NEVER
        desk[CAL_CURRENT] = first - 1
        _bring_near(desk)
    lens = column(desk, BUCKET_LEN)
    bucket = desk[CAL_CURRENT] + 1
    while lens[bucket & (BUCKETS - 1)] == 0:
        bucket += 1
    if (bucket << desk[CAL_SHIFT]) > until:
        return NEVER
    count = lens[bucket & (BUCKETS - 1)]
    if 2 * count > length(desk, RUN):
        return -1
    _sort_bucket(desk, bucket, count)
    desk[IN_RING] -= count
    desk[CAL_CURRENT] = bucket
    desk[CAL_OPENED] += 1
    desk[CAL_FILLED] += count
    desk[RUN_POS] = 0
    desk[RUN_LEN] = count
    _bring_near(desk)
    return column(desk, RUN)[0]
