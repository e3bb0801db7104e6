"""Stage 2 where a network card is shared: the copies that a node sends go out side by side.

Two nodes have two connections: one for votes and for small messages without a block, the other for the rest. What is
sent on a connection goes one after the other; connections that have something to send share the card. `FAIR`: equally,
so that each of k gets one part in k, and none more than its receiver's card takes in (max-min fair between one sender
and its receivers). `PRIORITY`: the first connections among themselves, and the others only while those have nothing.

What a copy has to send is counted in picoseconds of the whole card. All that a lane sends has got the same since it
began: so a lane counts what each of its connections has got so far, a row says at which count it is through
(`THROUGH_PS`; until it is sent, what it has to send), and rows stand in that order, so that an event looks at the
first. Where receivers hold some back, each row counts what it still has to send. A copy leaves at the first nanosecond
at which nothing is left, so when it leaves depends on what is sent later: it is put on its link when it leaves, by an
event of its card, and not when it is sent. Between two changes of the connections that send, the shares stay.

Most of the time a card sends one message at a time to the same receivers, all of whose copies leave together. Then the
message is one row in a *train*, and costs one event. A message to other receivers, sent while the train is under way,
takes it apart: from then on each copy is a row of its own, until all have left. Nobody can tell from outside.
"""

from __future__ import annotations

import numpy as np

from sim.kernel import due as events
from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.kernel.due import ready_push_at
from sim.kernel.post import envelope_ref, ref_index
from sim.kernel.rules import PLACE_WIDTH, keep_place
from sim.kernel.run_state import column, compiled, make_capacity

FIFO, FAIR, PRIORITY = 0, 1, 2  # values of SHARING; with FIFO nothing of this module is used
SMALL_BYTES_MAX = 1 << 16  # a longer message goes with the blocks, whatever it is

# A queued copy, or a queued message to several. Rows are named by their number + 1, and 0 means none.
QUEUED_WIDTH = 8
REF, TARGET, THROUGH_PS, SINCE_NS, NEXT, BEHIND, DRAWS, BYTES = range(8)  # SINCE_NS: signed, or sent since

# A card: two lanes, one for each sort of connection; when it was last looked at, and when its next event is.
SMALL, REST = 0, 1
LANES = 2
LANE_WIDTH = 8
HEAD, TAIL, COUNT, MODE, WAITING, WAITING_TAIL, RECEIVERS, PASSED_PS = range(8)
TRAIN, MIXED = 0, 1
CARD_WIDTH = LANES * LANE_WIDTH + 8
SERVED_NS, LEVEL_Q30, EVENT_NS, PLANNED_NS = range(LANES * LANE_WIDTH, LANES * LANE_WIDTH + 4)
GAPS_MAX = 4
MERGED = 16  # what lies between two intervals that become one: this many times as long are they together
GAPS_WIDTH = 2 * GAPS_MAX  # intervals in which a card took in nothing, in order: from, to
_WHOLE = 1 << 30
_FIRST = -(1 << 40)  # cards come before whatever else is due at the same time, in their order


@compiled
def _lane_of(src, lane):
    return src * CARD_WIDTH + lane * LANE_WIDTH


@compiled
def _take_row(run_state, ref, target, left_ps, ready_ns, draws, size):
    """A row for a copy or a message, not queued anywhere yet: its number + 1."""
    if run_state[kernel.QUEUED_FREE_LEN] == 0:
        make_capacity(run_state, kernel.QUEUED_FREE)
    free = run_state[kernel.QUEUED_FREE_LEN] - 1
    run_state[kernel.QUEUED_FREE_LEN] = free
    number = column(run_state, kernel.QUEUED_FREE)[free]
    rows = column(run_state, kernel.QUEUED)
    q = number * QUEUED_WIDTH
    rows[q + REF] = ref
    rows[q + TARGET] = target
    rows[q + THROUGH_PS] = left_ps
    rows[q + SINCE_NS] = ready_ns
    rows[q + NEXT] = 0
    rows[q + BEHIND] = 0
    rows[q + DRAWS] = np.int64(draws)
    rows[q + BYTES] = size
    if run_state[kernel.RULES] > 0:  # rules look at it when it leaves, and must know what it is about
        keep_place(run_state, number)
    return number + 1


@compiled
def free_row(run_state, row):
    """The copy has left, and so have those of a message to several."""
    column(run_state, kernel.QUEUED_FREE)[run_state[kernel.QUEUED_FREE_LEN]] = row - 1
    run_state[kernel.QUEUED_FREE_LEN] += 1


@compiled
def receivers_of(run_state, src, target):
    """How many copies a message to a node (>= 0) or a group (-1 - group) has."""
    if target >= 0:
        return np.int64(1)
    starts, members = column(run_state, kernel.GROUP_START), column(run_state, kernel.GROUP_MEMBER)
    count = np.int64(0)
    for i in range(starts[-1 - target], starts[-target]):
        if members[i] != src:
            count += 1
    return count


@compiled
def _times(left_ps, shares):
    """How long a copy takes that gets one part in so many of the card, ns, rounded up."""
    return (left_ps // 1000) * shares + ((left_ps % 1000) * shares + 999) // 1000


@compiled
def _part_q30(ps, share_q30):
    """That part of a time, without passing 64 bits."""
    return (ps >> 30) * share_q30 + (((ps & (_WHOLE - 1)) * share_q30) >> 30)


@compiled
def _whole_ns(left_ps, share_q30):
    """How long a copy takes that gets that part of the card, ns; to three nanoseconds above."""
    left_ns = left_ps // 1000 + 1
    return ((left_ns // share_q30) << 30) + ((left_ns % share_q30) << 30) // share_q30 + 1


@compiled
def _cap_q30(run_state, src, dst):
    """The part of the sender's card that the receiver's card can take in."""
    node = column(run_state, kernel.NODE)
    out_ps, in_ps = node[src * post.NODE_WIDTH + post.TX_PS], node[dst * post.NODE_WIDTH + post.RX_PS]
    if in_ps <= out_ps:
        return np.int64(_WHOLE)
    return max(np.int64(np.float64(out_ps) / np.float64(in_ps) * _WHOLE), 1)


@compiled
def _senders(run_state, src, lane):
    """Among how many connections the card is divided, for those of a lane; 0: they have to wait."""
    cards = column(run_state, kernel.CARDS)
    small, rest = cards[_lane_of(src, SMALL) + COUNT], cards[_lane_of(src, REST) + COUNT]
    if run_state[kernel.SHARING] == FAIR:
        return small + rest
    if lane == SMALL:
        return small
    return rest if small == 0 else np.int64(0)


@compiled
def _find_level(run_state, src):
    """The share of whoever is not held back by its receiver: what those leave, divided equally."""
    cards, rows = column(run_state, kernel.CARDS), column(run_state, kernel.QUEUED)
    senders = max(_senders(run_state, src, SMALL), _senders(run_state, src, REST))
    level = np.int64(_WHOLE) // max(senders, 1)
    while senders > 0:
        left, free = np.int64(_WHOLE), senders
        for lane in range(LANES):
            row = cards[_lane_of(src, lane) + HEAD] if _senders(run_state, src, lane) else np.int64(0)
            while row:
                q = (row - 1) * QUEUED_WIDTH
                cap = _cap_q30(run_state, src, rows[q + TARGET])
                if cap < level:
                    left -= cap
                    free -= 1
                row = rows[q + NEXT]
        better = left // free if free else np.int64(_WHOLE)
        if better <= level:
            break
        level = better
    cards[src * CARD_WIDTH + LEVEL_Q30] = level


@compiled
def _serve(run_state, src):
    """Count what has been sent since the shares changed last."""
    cards, rows = column(run_state, kernel.CARDS), column(run_state, kernel.QUEUED)
    c = src * CARD_WIDTH
    passed_ps = (run_state[kernel.NOW] - cards[c + SERVED_NS]) * 1000
    cards[c + SERVED_NS] = run_state[kernel.NOW]
    if passed_ps == 0:
        return
    for lane in range(LANES):
        at = _lane_of(src, lane)
        senders = _senders(run_state, src, lane)
        if senders == 0:
            continue
        if not run_state[kernel.CAPPED]:
            cards[at + PASSED_PS] += passed_ps // senders
            continue
        row = cards[at + HEAD]
        while row:
            q = (row - 1) * QUEUED_WIDTH
            share = min(cards[c + LEVEL_Q30], _cap_q30(run_state, src, rows[q + TARGET]))
            rows[q + THROUGH_PS] -= _part_q30(passed_ps, share)
            row = rows[q + NEXT]


@compiled
def _next_leaves_ns(run_state, src, lane):
    """When a lane's next copy leaves if nothing else is sent, or NEVER."""
    cards, rows = column(run_state, kernel.CARDS), column(run_state, kernel.QUEUED)
    senders = _senders(run_state, src, lane)
    at = _lane_of(src, lane)
    row = cards[at + HEAD]
    if senders == 0 or row == 0:
        return np.int64(kernel.NEVER)
    served_ns, level = cards[src * CARD_WIDTH + SERVED_NS], cards[src * CARD_WIDTH + LEVEL_Q30]
    if not run_state[kernel.CAPPED]:
        left_ps = rows[(row - 1) * QUEUED_WIDTH + THROUGH_PS] - cards[at + PASSED_PS]
        return served_ns + _times(max(left_ps, 0), senders)
    due = np.int64(kernel.NEVER)
    while row:
        q = (row - 1) * QUEUED_WIDTH
        left_ps = rows[q + THROUGH_PS]
        if left_ps > 0:
            share = min(level, _cap_q30(run_state, src, rows[q + TARGET]))
            due = min(due, served_ns + _whole_ns(left_ps, share))
        else:
            due = min(due, served_ns)
        row = rows[q + NEXT]
    return due


@compiled
def plan(run_state, src):
    """See to it that the card's next event comes when something changes."""
    if run_state[kernel.CAPPED]:
        _find_level(run_state, src)
    due = np.int64(kernel.NEVER)
    for lane in range(LANES):
        due = min(due, _next_leaves_ns(run_state, src, lane))
        waiting = column(run_state, kernel.CARDS)[_lane_of(src, lane) + WAITING]
        if waiting:
            due = min(due, column(run_state, kernel.QUEUED)[(waiting - 1) * QUEUED_WIDTH + SINCE_NS])
    cards = column(run_state, kernel.CARDS)
    c = src * CARD_WIDTH
    cards[c + PLANNED_NS] = due
    if due < kernel.NEVER and (cards[c + EVENT_NS] == 0 or due < cards[c + EVENT_NS]):
        cards[c + EVENT_NS] = due
        ready_push_at(run_state, due, _FIRST + src, events.CARD, np.int64(-1), src)


@compiled
def event_counts(run_state, src):
    """Whether this event of the card is one that something happens at; if not, the next one has been entered."""
    cards = column(run_state, kernel.CARDS)
    c = src * CARD_WIDTH
    if cards[c + EVENT_NS] != run_state[kernel.NOW]:
        return False  # an earlier one came in between
    cards[c + EVENT_NS] = 0
    planned = cards[c + PLANNED_NS]
    if planned <= run_state[kernel.NOW]:
        return True
    if planned < kernel.NEVER:
        cards[c + EVENT_NS] = planned
        ready_push_at(run_state, planned, _FIRST + src, events.CARD, np.int64(-1), src)
    return False


@compiled
def _append(run_state, head_at, tail_at, row):
    """Put a row at the end of a list of the cards'."""
    cards = column(run_state, kernel.CARDS)
    if cards[head_at] == 0:
        cards[head_at] = row
    else:
        column(run_state, kernel.QUEUED)[(cards[tail_at] - 1) * QUEUED_WIDTH + NEXT] = row
    cards[tail_at] = row


@compiled
def _is_sent(run_state, src, lane, row, copies):
    """A row is sent from now on; until now its copies have waited for the card."""
    q = (row - 1) * QUEUED_WIDTH
    rows = column(run_state, kernel.QUEUED)
    if not run_state[kernel.CAPPED]:
        rows[q + THROUGH_PS] += column(run_state, kernel.CARDS)[_lane_of(src, lane) + PASSED_PS]
    column(run_state, kernel.NODE)[src * post.NODE_WIDTH + post.TX_WAIT] += copies * (
        run_state[kernel.NOW] - rows[q + SINCE_NS]
    )
    rows[q + SINCE_NS] = run_state[kernel.NOW]


@compiled
def _insert(run_state, src, lane, row):
    """Put a row among those that are sent, behind those that are through no later."""
    cards, rows = column(run_state, kernel.CARDS), column(run_state, kernel.QUEUED)
    at = _lane_of(src, lane)
    through_ps = rows[(row - 1) * QUEUED_WIDTH + THROUGH_PS]
    last = cards[at + TAIL]
    if cards[at + HEAD] == 0 or run_state[kernel.CAPPED] or rows[(last - 1) * QUEUED_WIDTH + THROUGH_PS] <= through_ps:
        _append(run_state, at + HEAD, at + TAIL, row)
        return
    before, after = np.int64(0), cards[at + HEAD]
    while rows[(after - 1) * QUEUED_WIDTH + THROUGH_PS] <= through_ps:
        before, after = after, rows[(after - 1) * QUEUED_WIDTH + NEXT]
    rows[(row - 1) * QUEUED_WIDTH + NEXT] = after
    if before:
        rows[(before - 1) * QUEUED_WIDTH + NEXT] = row
    else:
        cards[at + HEAD] = row


@compiled
def _connect(run_state, src, lane, row, goes_on):
    """A single copy is ready: it is sent at once, or after those before it on its connection.

    `goes_on`: it has been sending already, in a train; the shares do not change.
    """
    rows, cards = column(run_state, kernel.QUEUED), column(run_state, kernel.CARDS)
    q = (row - 1) * QUEUED_WIDTH
    nodes = run_state[kernel.NODES]
    connections = column(run_state, kernel.CONNECTION)
    connection = (lane * nodes + src) * nodes + rows[q + TARGET]
    before = connections[connection]
    connections[connection] = row
    if before:
        rows[(before - 1) * QUEUED_WIDTH + BEHIND] = row
        return
    if not goes_on:
        _serve(run_state, src)
        _is_sent(run_state, src, lane, row, 1)
    _insert(run_state, src, lane, row)
    cards[_lane_of(src, lane) + COUNT] += 1


@compiled
def _single(run_state, row, dst):
    """A row for the copy to one of a message's receivers, like the message's own row."""
    number = (row - 1) * QUEUED_WIDTH
    ref = envelope_ref(ref_index(column(run_state, kernel.QUEUED)[number + REF]), dst)
    single = _take_row(
        run_state,
        ref,
        dst,
        column(run_state, kernel.QUEUED)[number + THROUGH_PS],
        column(run_state, kernel.QUEUED)[number + SINCE_NS],
        column(run_state, kernel.QUEUED)[number + DRAWS],
        column(run_state, kernel.QUEUED)[number + BYTES],
    )
    if run_state[kernel.RULES] > 0:
        place = column(run_state, kernel.QUEUED_PLACE)
        for i in range(PLACE_WIDTH):
            place[PLACE_WIDTH * (single - 1) + i] = place[PLACE_WIDTH * (row - 1) + i]
    return single


@compiled
def _connect_all(run_state, src, lane, row, goes_on):
    """A message is ready, and its copies are sent one by one; several copies take the place of its row."""
    target = column(run_state, kernel.QUEUED)[(row - 1) * QUEUED_WIDTH + TARGET]
    if target >= 0:
        _connect(run_state, src, lane, row, goes_on)
        return
    envelope = ref_index(column(run_state, kernel.QUEUED)[(row - 1) * QUEUED_WIDTH + REF])
    copies = np.int64(0)
    for i in range(column(run_state, kernel.GROUP_START)[-1 - target], column(run_state, kernel.GROUP_START)[-target]):
        dst = column(run_state, kernel.GROUP_MEMBER)[i]
        if dst != src:
            _connect(run_state, src, lane, _single(run_state, row, dst), goes_on)
            copies += 1
    column(run_state, kernel.ENVELOPE)[envelope * post.ENVELOPE_WIDTH + post.REFS] = copies
    free_row(run_state, row)


@compiled
def _take_apart(run_state, src, lane):
    """From now on each copy of the lane is a row of its own; what it has sent is counted when the shares change."""
    cards = column(run_state, kernel.CARDS)
    at = _lane_of(src, lane)
    row = cards[at + HEAD]
    cards[at + MODE] = MIXED
    cards[at + HEAD] = cards[at + TAIL] = cards[at + COUNT] = 0
    while row:
        after = column(run_state, kernel.QUEUED)[(row - 1) * QUEUED_WIDTH + NEXT]
        column(run_state, kernel.QUEUED)[(row - 1) * QUEUED_WIDTH + NEXT] = 0
        _connect_all(run_state, src, lane, row, True)
        row = after


@compiled
def _begin(run_state, src, lane, row):
    """A message is ready to leave."""
    cards, rows = column(run_state, kernel.CARDS), column(run_state, kernel.QUEUED)
    at = _lane_of(src, lane)
    target = rows[(row - 1) * QUEUED_WIDTH + TARGET]
    if cards[at + MODE] == TRAIN and not run_state[kernel.CAPPED]:
        if cards[at + HEAD] == 0:
            _serve(run_state, src)
            cards[at + RECEIVERS] = target
            cards[at + COUNT] = receivers_of(run_state, src, target)
            _append(run_state, at + HEAD, at + TAIL, row)
            _is_sent(run_state, src, lane, row, cards[at + COUNT])
            return
        if cards[at + RECEIVERS] == target:
            _append(run_state, at + HEAD, at + TAIL, row)
            return
    if cards[at + MODE] == TRAIN:
        _take_apart(run_state, src, lane)
    _connect_all(run_state, src, lane, row, False)


@compiled
def queue(run_state, src, ref, target, ready_ns, draws, size, small):
    """A message is signed at `ready_ns` and sent to a node, or to a group, by a card that is shared."""
    left_ps = size * column(run_state, kernel.NODE)[src * post.NODE_WIDTH + post.TX_PS]
    row = _take_row(run_state, ref, target, left_ps, ready_ns, draws, size)
    lane = np.int64(SMALL) if small else np.int64(REST)
    if ready_ns > run_state[kernel.NOW]:
        at = _lane_of(src, lane)
        _append(run_state, at + WAITING, at + WAITING_TAIL, row)
    else:
        _begin(run_state, src, lane, row)
    plan(run_state, src)


@compiled
def queue_envelope(run_state, src, envelope, target, ready_ns):
    """`queue` for an envelope; the card holds it until its copies leave."""
    e = envelope * post.ENVELOPE_WIDTH
    row = column(run_state, kernel.ENVELOPE)
    row[e + post.REFS] = 1
    small = column(run_state, kernel.KIND_SMALL)[row[e + post.KIND]] > 0 and row[e + post.SIZE] <= SMALL_BYTES_MAX
    ref = envelope_ref(envelope, max(target, 0))
    queue(run_state, src, ref, target, ready_ns, row[e + post.KEY], row[e + post.SIZE], small)


@compiled
def begin_ready(run_state, src, lane):
    """What is signed by now begins to leave."""
    at = _lane_of(src, lane)
    cards = column(run_state, kernel.CARDS)
    while cards[at + WAITING]:
        row = cards[at + WAITING]
        q = (row - 1) * QUEUED_WIDTH
        if column(run_state, kernel.QUEUED)[q + SINCE_NS] > run_state[kernel.NOW]:
            break
        cards[at + WAITING] = column(run_state, kernel.QUEUED)[q + NEXT]
        column(run_state, kernel.QUEUED)[q + NEXT] = 0
        _begin(run_state, src, lane, row)


@compiled
def leaving(run_state, src, lane):
    """What leaves a lane of the card now, as a list of rows linked by NEXT, or 0."""
    if _next_leaves_ns(run_state, src, lane) > run_state[kernel.NOW]:
        return np.int64(0)
    _serve(run_state, src)
    cards, rows = column(run_state, kernel.CARDS), column(run_state, kernel.QUEUED)
    at = _lane_of(src, lane)
    if cards[at + MODE] == TRAIN:
        first = cards[at + HEAD]
        q = (first - 1) * QUEUED_WIDTH
        cards[at + HEAD] = rows[q + NEXT]
        if rows[q + NEXT]:
            _is_sent(run_state, src, lane, rows[q + NEXT], cards[at + COUNT])
        else:
            cards[at + COUNT] = cards[at + PASSED_PS] = 0
        rows[q + NEXT] = 0
        return first
    first = (
        _held_back_leaving(run_state, src, lane) if run_state[kernel.CAPPED] else _first_leaving(run_state, src, lane)
    )
    if cards[at + COUNT] == 0:
        cards[at + MODE], cards[at + PASSED_PS] = TRAIN, 0
    return first


@compiled
def _through(run_state, src, lane, row):
    """A row is through: returns what is sent next on its connection, or 0 if that has ended."""
    rows = column(run_state, kernel.QUEUED)
    q = (row - 1) * QUEUED_WIDTH
    after = rows[q + BEHIND]
    if after:
        _is_sent(run_state, src, lane, after, 1)
    else:
        nodes = run_state[kernel.NODES]
        column(run_state, kernel.CONNECTION)[(lane * nodes + src) * nodes + rows[q + TARGET]] = 0
        column(run_state, kernel.CARDS)[_lane_of(src, lane) + COUNT] -= 1
    rows[q + NEXT] = 0
    return after


@compiled
def _first_leaving(run_state, src, lane):
    """Take the rows that are through from the front, and let those behind them on their connections begin."""
    cards, rows = column(run_state, kernel.CARDS), column(run_state, kernel.QUEUED)
    at = _lane_of(src, lane)
    first = last = np.int64(0)
    row = cards[at + HEAD]
    while row and rows[(row - 1) * QUEUED_WIDTH + THROUGH_PS] <= cards[at + PASSED_PS]:
        if first == 0:
            first = row
        last = row
        row = rows[(row - 1) * QUEUED_WIDTH + NEXT]
    cards[at + HEAD] = row
    row = first
    while row:
        follows = rows[(row - 1) * QUEUED_WIDTH + NEXT] if row != last else np.int64(0)
        after = _through(run_state, src, lane, row)
        rows[(row - 1) * QUEUED_WIDTH + NEXT] = follows
        if after:
            _insert(run_state, src, lane, after)
        row = follows
    return first


@compiled
def _held_back_leaving(run_state, src, lane):
    """The same where receivers hold some back: any row may be through, and what follows takes its place."""
    cards, rows = column(run_state, kernel.CARDS), column(run_state, kernel.QUEUED)
    at = _lane_of(src, lane)
    first = last = np.int64(0)
    row = cards[at + HEAD]
    cards[at + HEAD] = cards[at + TAIL] = 0
    while row:
        q = (row - 1) * QUEUED_WIDTH
        after, keeps = rows[q + NEXT], row
        if rows[q + THROUGH_PS] <= 0:
            keeps = _through(run_state, src, lane, row)
            if first:
                rows[(last - 1) * QUEUED_WIDTH + NEXT] = row
            else:
                first = row
            last = row
        if keeps:
            rows[(keeps - 1) * QUEUED_WIDTH + NEXT] = 0
            _append(run_state, at + HEAD, at + TAIL, keeps)
        row = after
    return first


@compiled
def count_left(run_state, src, row):
    """Count the copies of a row that leave now: bytes, and for how long they kept the card busy and waited for it."""
    q = (row - 1) * QUEUED_WIDTH
    rows, node = column(run_state, kernel.QUEUED), column(run_state, kernel.NODE)
    copies = receivers_of(run_state, src, rows[q + TARGET])
    s = src * post.NODE_WIDTH
    cost = (rows[q + BYTES] * node[s + post.TX_PS]) // 1000
    node[s + post.TX_BYTES] += copies * rows[q + BYTES]
    node[s + post.TX_BUSY] += copies * cost
    node[s + post.TX_WAIT] += copies * (run_state[kernel.NOW] - rows[q + SINCE_NS] - cost)


@compiled
def take_in(run_state, dst, time, flow_ns, cost):
    """A copy arrives at `time` whose bytes came in over the last `flow_ns`; the card takes `cost` for them.

    Returns when it is received: at once if the card was idle for long enough meanwhile, else when it has caught up.
    What comes in later may use the same idle time: of that the card remembers the last few intervals.
    """
    node, gaps = column(run_state, kernel.NODE), column(run_state, kernel.RX_GAPS)
    d = dst * post.NODE_WIDTH
    first = dst * GAPS_WIDTH
    begins = time - max(flow_ns, cost)
    left = cost
    for i in range(GAPS_MAX if gaps[first + GAPS_WIDTH - 1] > begins else 0):  # the last one ends last
        g = first + 2 * i
        taken = min(left, gaps[g + 1] - max(gaps[g], begins))
        if taken > 0:
            gaps[g + 1] -= taken
            left -= taken
    received = time
    if left > 0:
        free = node[d + post.RX_FREE]
        if begins > free:
            _note_gap(run_state, dst, free, begins)
        node[d + post.RX_FREE] = max(free, begins) + left
        received = max(time, node[d + post.RX_FREE])
    received = max(received, node[d + post.RX_LAST])
    node[d + post.RX_LAST] = received
    node[d + post.RX_BUSY] += cost
    return received


@compiled
def _note_gap(run_state, dst, begins, ends):
    """The card was idle for a while. With little since it was last idle, both are one interval; else, if that is one
    too many, the two with the least between them become one. It is as long as both, and ends when the later one did.
    """
    gaps = column(run_state, kernel.RX_GAPS)
    g = dst * GAPS_WIDTH
    last = known = g + GAPS_WIDTH - 2
    while known > g and gaps[known] >= gaps[known + 1]:  # used up since
        known -= 2
    idle = gaps[known + 1] - gaps[known]
    if idle > 0 and (begins - gaps[known + 1]) * MERGED <= idle + ends - begins:
        gaps[known] = gaps[known + 1] = 0
        gaps[last], gaps[last + 1] = begins - idle, ends
        return
    empty = np.int64(-1)
    for i in range(GAPS_MAX):
        if gaps[g + 2 * i] >= gaps[g + 2 * i + 1]:
            empty = np.int64(i)
            break
    if empty < 0:
        least = np.int64(kernel.NEVER)
        for i in range(GAPS_MAX - 1):
            between = gaps[g + 2 * i + 2] - gaps[g + 2 * i + 1]
            if between < least:
                least, empty = between, np.int64(i)
        gaps[g + 2 * empty + 2] -= gaps[g + 2 * empty + 1] - gaps[g + 2 * empty]
    for i in range(empty, GAPS_MAX - 1):
        gaps[g + 2 * i], gaps[g + 2 * i + 1] = gaps[g + 2 * i + 2], gaps[g + 2 * i + 3]
    gaps[g + 2 * GAPS_MAX - 2], gaps[g + 2 * GAPS_MAX - 1] = begins, ends


@compiled
def forget_gaps(run_state, dst):
    """The node has been down: what its card did before does not count."""
    if run_state[kernel.SHARING] == FIFO:
        return
    gaps = column(run_state, kernel.RX_GAPS)
    for i in range(dst * GAPS_WIDTH, (dst + 1) * GAPS_WIDTH):
        gaps[i] = 0
    column(run_state, kernel.NODE)[dst * post.NODE_WIDTH + post.RX_LAST] = 0
