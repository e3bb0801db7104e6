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

from sim.kernel import run_state as kernel
from sim.kernel.cold import LINE
from sim.kernel.heap import WIDTH, heap_drop, heap_push
from sim.kernel.run_state import RunState, column, compiled, fetch, length, make_capacity

BUCKETS = 4096  # ring size, a power of two
CHUNK = 64  # rows per chunk
REVIEW = 64  # buckets opened between two reviews of the width
BUCKET_MAX = 8192  # rows: more than this and sorting leaves the cache
FINE_BITS = 11  # a large bucket is sorted by this many bits at first
FEW = 64  # rows: below this, insertion sort
SHIFT_MIN, SHIFT_MAX = 4, 40


def lay_calendar(run_state: RunState, shift: int, messages: int) -> None:
    """Allocate the calendar for about `messages` in flight, with buckets of 2**shift ns."""
    run_state.allocate(kernel.BUCKET_HEAD, BUCKETS)
    run_state.allocate(kernel.BUCKET_TAIL, BUCKETS)
    run_state.allocate(kernel.BUCKET_LEN, BUCKETS)
    chunks = BUCKETS + messages // CHUNK + 64
    run_state.allocate(kernel.CHUNK_NEXT, chunks)
    run_state.allocate(kernel.CHUNK_ROWS, chunks * CHUNK * 2)
    free = run_state.allocate(kernel.CHUNK_FREE, chunks)
    free[:] = range(chunks)
    run_state.array[kernel.CHUNKS_FREE] = chunks
    run_state.allocate(kernel.RUN, 2 * 1024)
    run_state.allocate(kernel.SORT, 2 * 1024)
    run_state.allocate(kernel.SORT_COUNT, (1 << FINE_BITS) + 1)
    run_state.allocate(kernel.NEAR, WIDTH * 1024)
    run_state.allocate(kernel.FAR, WIDTH * 1024)
    run_state.array[kernel.CAL_SHIFT] = min(max(shift, SHIFT_MIN), SHIFT_MAX)


def grow_chunks(run_state: RunState) -> None:
    """Double the store of chunks."""
    old, new = run_state.grow(kernel.CHUNK_NEXT)
    run_state.grow(kernel.CHUNK_ROWS)
    run_state.grow(kernel.CHUNK_FREE)
    count = int(run_state.array[kernel.CHUNKS_FREE])
    run_state[kernel.CHUNK_FREE][count : count + new - old] = range(old, new)
    run_state.array[kernel.CHUNKS_FREE] = count + new - old


def grow_calendar(run_state: RunState, messages: int) -> None:
    """Make room for `messages` more than are in flight, with as much again to spare."""
    state = run_state.array
    while state[kernel.CHUNKS_FREE] <= 2 * messages:
        grow_chunks(run_state)
    for heap, used in ((kernel.NEAR, kernel.NEAR_LEN), (kernel.FAR, kernel.FAR_LEN)):
        while (state[used] + 2 * messages) * WIDTH > len(run_state[heap]):
            run_state.grow(heap)
    if state[kernel.CAL_WISH]:
        state[kernel.CAL_WISH] = 0
        while (state[kernel.FAR_LEN] + state[kernel.IN_RING] + 64) * WIDTH > len(run_state[kernel.FAR]):
            run_state.grow(kernel.FAR)
        while 2 * (state[kernel.IN_RING] + 64) > len(run_state[kernel.RUN]):
            run_state.grow(kernel.RUN)
            run_state.grow(kernel.SORT)
    largest = int(run_state[kernel.BUCKET_LEN].max())
    while 2 * largest > len(run_state[kernel.RUN]):
        run_state.grow(kernel.RUN)
        run_state.grow(kernel.SORT)


@compiled
def calendar_has_room(run_state, messages):
    """Whether `messages` more can be entered without Python's help."""
    return (
        run_state[kernel.CHUNKS_FREE] > messages
        and (run_state[kernel.NEAR_LEN] + messages) * WIDTH < length(run_state, kernel.NEAR)
        and (run_state[kernel.FAR_LEN] + messages) * WIDTH < length(run_state, kernel.FAR)
    )


@compiled
def append_to_bucket(run_state, bucket, time, ref):
    """Append a row to a bucket of the ring; the caller counts it (`count_appended`)."""
    slot = bucket & (BUCKETS - 1)
    lens = column(run_state, kernel.BUCKET_LEN)
    tail = column(run_state, kernel.BUCKET_TAIL)
    count = lens[slot]
    place = count & (CHUNK - 1)
    if place == 0:
        if run_state[kernel.CHUNKS_FREE] == 0:
            make_capacity(run_state, kernel.CHUNK_FREE)
        free = run_state[kernel.CHUNKS_FREE] - 1
        run_state[kernel.CHUNKS_FREE] = free
        chunk = column(run_state, kernel.CHUNK_FREE)[free]
        if count == 0:
            column(run_state, kernel.BUCKET_HEAD)[slot] = chunk
        else:
            column(run_state, kernel.CHUNK_NEXT)[tail[slot]] = chunk
        tail[slot] = chunk
    rows = column(run_state, kernel.CHUNK_ROWS)
    row = 2 * (tail[slot] * CHUNK + place)
    if 2 * place & (LINE - 1) == 0:  # the first row in its cache line: the next line will be needed later
        fetch(run_state, kernel.CHUNK_ROWS, row + LINE)
    rows[row] = time
    rows[row + 1] = ref
    lens[slot] = count + 1


@compiled
def count_appended(run_state, messages):
    """Count rows appended to the ring."""
    run_state[kernel.IN_RING] += messages
    run_state[kernel.IN_FLIGHT] += messages
    run_state[kernel.CAL_PUSHED] += messages


@compiled
def calendar_push(run_state, time, ref):
    """Enter a message that arrives at `time`; `ref` says what it is."""
    bucket = time >> run_state[kernel.CAL_SHIFT]
    ahead = bucket - run_state[kernel.CAL_CURRENT]
    if 0 < ahead < BUCKETS:
        append_to_bucket(run_state, bucket, time, ref)
        count_appended(run_state, 1)
    else:
        run_state[kernel.IN_FLIGHT] += 1
        run_state[kernel.CAL_PUSHED] += 1
        sequence = run_state[kernel.HEAP_SEQ]
        run_state[kernel.HEAP_SEQ] = sequence + 1
        if ahead <= 0:
            run_state[kernel.CAL_NEAR] += 1
            heap_push(run_state, kernel.NEAR, kernel.NEAR_LEN, time, sequence, ref, 0)
        else:
            heap_push(run_state, kernel.FAR, kernel.FAR_LEN, time, sequence, ref, 0)


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
def _take_out(run_state, bucket, count, out):
    """Copy the rows of `bucket` to `out` in order of entry and give its chunks back."""
    slot = bucket & (BUCKETS - 1)
    rows = column(run_state, kernel.CHUNK_ROWS)
    after = column(run_state, kernel.CHUNK_NEXT)
    free = column(run_state, kernel.CHUNK_FREE)
    chunk = column(run_state, kernel.BUCKET_HEAD)[slot]
    o = 0
    for start in range(0, count, CHUNK):
        base = 2 * chunk * CHUNK
        if start + CHUNK < count:
            for i in range(0, 2 * CHUNK, LINE):
                fetch(run_state, kernel.CHUNK_ROWS, 2 * after[chunk] * CHUNK + i)
        for i in range(2 * min(count - start, CHUNK)):
            out[o] = rows[base + i]
            o += 1
        free[run_state[kernel.CHUNKS_FREE]] = chunk
        run_state[kernel.CHUNKS_FREE] += 1
        chunk = after[chunk]
    column(run_state, kernel.BUCKET_LEN)[slot] = 0


@compiled
def _sort_bucket(run_state, bucket, count):
    """Copy the rows of `bucket` into the run, sorted by time, equal times in order of entry."""
    run = column(run_state, kernel.RUN)
    if count <= FEW:
        _take_out(run_state, bucket, count, run)
        _insertion_sort(run, count)
        return
    scratch = column(run_state, kernel.SORT)
    _take_out(run_state, bucket, count, scratch)
    bins = column(run_state, kernel.SORT_COUNT)
    shift = run_state[kernel.CAL_SHIFT]
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
def _bring_near(run_state):
    """Move far rows whose bucket the ring now covers into it, in order."""
    far = column(run_state, kernel.FAR)
    horizon = run_state[kernel.CAL_CURRENT] + BUCKETS
    while run_state[kernel.FAR_LEN] > 0 and (far[0] >> run_state[kernel.CAL_SHIFT]) < horizon:
        append_to_bucket(run_state, far[0] >> run_state[kernel.CAL_SHIFT], far[0], far[2])
        run_state[kernel.IN_RING] += 1
        heap_drop(run_state, kernel.FAR, kernel.FAR_LEN)


@compiled
def _change_width(run_state, change):
    """Rebuild the ring with buckets 2**change times as wide. Called between two buckets (no run, no near)."""
    lens = column(run_state, kernel.BUCKET_LEN)
    count = run_state[kernel.IN_RING]
    old_shift = run_state[kernel.CAL_SHIFT]
    current = run_state[kernel.CAL_CURRENT]
    # All rows in time order through the far heap: rare, so simple beats quick. Their sequence numbers must
    # come before those of rows that are already far; both are only compared among equal times, which are
    # either all in the ring or all far, so fresh numbers keep the order.
    if (run_state[kernel.FAR_LEN] + count + 1) * WIDTH >= length(run_state, kernel.FAR) or 2 * count >= length(
        run_state, kernel.RUN
    ):
        run_state[kernel.CAL_WISH] = 1
        return
    run_state[kernel.CAL_WISH] = 0
    bucket = current + 1
    while run_state[kernel.IN_RING] > 0:
        n = lens[bucket & (BUCKETS - 1)]
        if n > 0:
            _sort_bucket(run_state, bucket, n)
            run = column(run_state, kernel.RUN)
            for i in range(n):
                sequence = run_state[kernel.HEAP_SEQ]
                run_state[kernel.HEAP_SEQ] = sequence + 1
                heap_push(run_state, kernel.FAR, kernel.FAR_LEN, run[2 * i], sequence, run[2 * i + 1], 0)
            run_state[kernel.IN_RING] -= n
        bucket += 1
    run_state[kernel.CAL_SHIFT] = old_shift + change
    start = (current + 1) << old_shift  # nothing in flight arrives before this time
    run_state[kernel.CAL_CURRENT] = (start >> run_state[kernel.CAL_SHIFT]) - 1
    _bring_near(run_state)


@compiled
def _review_width(run_state):
    opened = run_state[kernel.CAL_OPENED]
    filled = run_state[kernel.CAL_FILLED]
    near = run_state[kernel.CAL_NEAR]
    pushed = run_state[kernel.CAL_PUSHED]
    run_state[kernel.CAL_OPENED] = 0
    run_state[kernel.CAL_FILLED] = 0
    run_state[kernel.CAL_NEAR] = 0
    run_state[kernel.CAL_PUSHED] = 0
    shift = run_state[kernel.CAL_SHIFT]
    if shift > SHIFT_MIN and (near * 4 > pushed or filled > BUCKET_MAX * opened):
        _change_width(run_state, -1)
    elif shift < SHIFT_MAX and near * 16 < pushed and filled < 8 * opened:
        _change_width(run_state, 1)


@compiled
def calendar_open(run_state, until):
    """Open the next bucket that holds anything and starts no later than `until`.

    Returns the arrival time of its first message, NEVER if there is none, or -1 if Python must make room.
    """
    if (
        run_state[kernel.CAL_OPENED] >= REVIEW
        or run_state[kernel.CAL_FILLED] > 4 * BUCKET_MAX * run_state[kernel.CAL_OPENED]
    ):
        _review_width(run_state)
        if run_state[kernel.CAL_WISH]:
            return -1
    if run_state[kernel.IN_RING] == 0:
        if run_state[kernel.FAR_LEN] == 0:
            return kernel.NEVER
        first = column(run_state, kernel.FAR)[0] >> run_state[kernel.CAL_SHIFT]
        if (first << run_state[kernel.CAL_SHIFT]) > until:
            return kernel.NEVER
        run_state[kernel.CAL_CURRENT] = first - 1
        _bring_near(run_state)
    lens = column(run_state, kernel.BUCKET_LEN)
    bucket = run_state[kernel.CAL_CURRENT] + 1
    while lens[bucket & (BUCKETS - 1)] == 0:
        bucket += 1
    if (bucket << run_state[kernel.CAL_SHIFT]) > until:
        return kernel.NEVER
    count = lens[bucket & (BUCKETS - 1)]
    if 2 * count > length(run_state, kernel.RUN):
        return -1
    _sort_bucket(run_state, bucket, count)
    run_state[kernel.IN_RING] -= count
    run_state[kernel.CAL_CURRENT] = bucket
    run_state[kernel.CAL_OPENED] += 1
    run_state[kernel.CAL_FILLED] += count
    run_state[kernel.RUN_POS] = 0
    run_state[kernel.RUN_LEN] = count
    _bring_near(run_state)
    return column(run_state, kernel.RUN)[0]
