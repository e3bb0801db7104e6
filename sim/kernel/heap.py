"""A binary heap of (time, sequence, a, b) rows in a column: what becomes due, in total order.

Order is time first, then sequence, so that equal times keep the order in which they were entered.
"""

from __future__ import annotations

from sim.kernel.run_state import column, compiled, length, make_capacity

WIDTH = 4  # integers per entry


@compiled
def heap_push(run_state, heap_column, length_scalar, time, sequence, a, b):
    """Enter a row."""
    i = run_state[length_scalar]
    if (i + 1) * WIDTH > length(run_state, heap_column):
        make_capacity(run_state, heap_column)
    heap = column(run_state, heap_column)
    run_state[length_scalar] = i + 1
    while i > 0:
        parent = (i - 1) >> 1
        p = parent * WIDTH
        if heap[p] < time or (heap[p] == time and heap[p + 1] < sequence):
            break
        for k in range(WIDTH):
            heap[i * WIDTH + k] = heap[p + k]
        i = parent
    i *= WIDTH
    heap[i] = time
    heap[i + 1] = sequence
    heap[i + 2] = a
    heap[i + 3] = b


@compiled
def heap_drop(run_state, heap_column, length_scalar):
    """Remove the first row (read it before: it is entry 0 of the column)."""
    heap = column(run_state, heap_column)
    n = run_state[length_scalar] - 1
    run_state[length_scalar] = n
    if n == 0:
        return
    last = n * WIDTH
    time = heap[last]
    sequence = heap[last + 1]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= n:
            break
        c = child * WIDTH
        if child + 1 < n:
            d = c + WIDTH
            if heap[d] < heap[c] or (heap[d] == heap[c] and heap[d + 1] < heap[c + 1]):
                child += 1
                c = d
        if time < heap[c] or (time == heap[c] and sequence < heap[c + 1]):
            break
        for k in range(WIDTH):
            heap[i * WIDTH + k] = heap[c + k]
        i = child
    for k in range(WIDTH):
        heap[i * WIDTH + k] = heap[last + k]
