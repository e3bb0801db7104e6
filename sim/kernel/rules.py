"""Message rules: what a scenario's list `rules` does to single copies of messages.

A rule matches copies by type, sender, receiver, view, height and the time of sending, and acts on some of those it
matches (the first, every n-th, at most so many): it drops the copy, delays it, holds it until a time, or adds
further copies. Rules stand between the nodes and the links, like an adversary on the way: the copy first gets the
arrival it would have had, in its link's order, and the rules move it from there. So a copy that a rule delays holds
up nobody, and no other message is touched.

Most messages meet no rule, and must not pay for them. Per message, two bit masks (rules that know its type, rules
that know its sender) leave a few candidates, whose ranges are compared once; the receivers of those that remain are
one more bit mask, and only copies to these receivers are looked at singly.
"""

from __future__ import annotations

import numpy as np

from sim.kernel import run_state as kernel
from sim.kernel.chance import RULE_DELAY, below, join
from sim.kernel.run_state import column, compiled

MESSAGE_RULE_WIDTH = 24
(
    VIEW_LOW, VIEW_HIGH, HEIGHT_LOW, HEIGHT_HIGH, FROM_NS, UNTIL_NS,  # bounds included, but for UNTIL_NS
    FIRST, EVERY, MOST,  # of the copies matched: acts on number FIRST, then on every EVERY-th, at most MOST times
    DROPS, ADD_NS, SPAN_NS, HOLD_NS, CAP_NS, COPIES,
    SEEN, HITS,  # copies matched (until MOST is reached), and acted upon
    VIEW_EVERY, HEIGHT_EVERY,  # from the low bound (or 0) on, every so many; 0 is 1
    SRC_ROLE, DST_ROLE,  # 0: whoever the bit sets say; 1: who leads the sender's view; 2: who leads the view after it
) = range(21)  # fmt: skip
PLACE_WIDTH = 4  # of QUEUED_PLACE
NOWHERE = -(1 << 60)  # view or height of a message that has none
ANY_LOW, ANY_HIGH = -(1 << 61), 1 << 61


@compiled
def begin_message(run_state, src, kind):
    """Find the rules that copies of this message may meet. Called before its copies are put on their links."""
    if run_state[kernel.RULES] == 0:
        return
    words, ends = run_state[kernel.RULE_WORDS], run_state[kernel.END_WORDS]
    kinds, sources, targets = (
        column(run_state, kernel.RULE_KINDS),
        column(run_state, kernel.RULE_SOURCES),
        column(run_state, kernel.RULE_TARGETS),
    )
    active = column(run_state, kernel.RULE_ACTIVE)
    union = run_state[kernel.RULES] * ends  # the last row of the targets
    count = 0
    for w in range(words):
        wanted = kinds[kind * words + w]
        if run_state[kernel.MESSAGE_INSIDE] >> 32 == kind:
            wanted |= kinds[(run_state[kernel.MESSAGE_INSIDE] & 0xFFFFFFFF) * words + w]
        candidates = wanted & sources[src * words + w]
        rule = 64 * w
        while candidates:
            if candidates & 0xFF == 0:
                candidates = (candidates >> 8) & 0xFFFFFFFFFFFFFF
                rule += 8
                continue
            if candidates & 1 and _holds_now(run_state, rule) and _has_role(run_state, rule, SRC_ROLE, src):
                for i in range(ends):
                    mask = targets[rule * ends + i]
                    targets[union + i] = mask if count == 0 else targets[union + i] | mask
                active[count] = rule
                count += 1
            candidates = (candidates >> 1) & 0x7FFFFFFFFFFFFFFF
            rule += 1
    run_state[kernel.RULES_ACTIVE] = count


@compiled
def _holds_now(run_state, rule):
    row = column(run_state, kernel.MESSAGE_RULE)
    r = rule * MESSAGE_RULE_WIDTH
    return (
        row[r + FROM_NS] <= run_state[kernel.NOW] < row[r + UNTIL_NS]
        and row[r + HITS] < row[r + MOST]
        and row[r + VIEW_LOW] <= run_state[kernel.MESSAGE_VIEW] <= row[r + VIEW_HIGH]
        and row[r + HEIGHT_LOW] <= run_state[kernel.MESSAGE_HEIGHT] <= row[r + HEIGHT_HIGH]
        and _is_every(run_state[kernel.MESSAGE_VIEW], row[r + VIEW_LOW], row[r + VIEW_EVERY])
        and _is_every(run_state[kernel.MESSAGE_HEIGHT], row[r + HEIGHT_LOW], row[r + HEIGHT_EVERY])
    )


@compiled
def _has_role(run_state, rule, field, end):
    """Whether an endpoint is the one that a rule means by its role in the sender's view."""
    role = column(run_state, kernel.MESSAGE_RULE)[rule * MESSAGE_RULE_WIDTH + field]
    if role == 0:
        return True
    who = run_state[kernel.MESSAGE_LEADERS] >> 32 if role == 2 else run_state[kernel.MESSAGE_LEADERS] & 0xFFFFFFFF
    return who > 0 and column(run_state, kernel.IDENTITY)[end] == who - 1


@compiled
def keep_place(run_state, number):
    """A queued row is about what the current message is about."""
    place, p = column(run_state, kernel.QUEUED_PLACE), number * PLACE_WIDTH
    place[p], place[p + 1] = run_state[kernel.MESSAGE_VIEW], run_state[kernel.MESSAGE_HEIGHT]
    place[p + 2], place[p + 3] = run_state[kernel.MESSAGE_LEADERS], run_state[kernel.MESSAGE_INSIDE]


@compiled
def recall_place(run_state, number):
    """The current message is about what a queued row is about."""
    place, p = column(run_state, kernel.QUEUED_PLACE), number * PLACE_WIDTH
    run_state[kernel.MESSAGE_VIEW], run_state[kernel.MESSAGE_HEIGHT] = place[p], place[p + 1]
    run_state[kernel.MESSAGE_LEADERS], run_state[kernel.MESSAGE_INSIDE] = place[p + 2], place[p + 3]


@compiled
def _is_every(number, low, every):
    """Whether a view or height is the first of a range that begins at `low`, or one of every so many after it."""
    return every <= 1 or (number >= 0 and (number - max(low, 0)) % every == 0)


@compiled
def meets_rules(run_state, dst):
    """Whether the current message's copy to `dst` meets a rule."""
    at = run_state[kernel.RULES] * run_state[kernel.END_WORDS] + (dst >> 6)
    return (column(run_state, kernel.RULE_TARGETS)[at] >> (dst & 63)) & 1 == 1


@compiled
def apply_rules(run_state, key, dst, arrives):
    """All rules that the copy to `dst` meets, in their order: its new arrival, or -1 if it is dropped.

    `key`: of the message's draws. Leaves the number of further copies in RULE_COPIES.
    """
    rows = column(run_state, kernel.MESSAGE_RULE)
    active = column(run_state, kernel.RULE_ACTIVE)
    targets = column(run_state, kernel.RULE_TARGETS)
    run_state[kernel.RULE_COPIES] = 0
    for i in range(run_state[kernel.RULES_ACTIVE]):
        rule = active[i]
        if (targets[rule * run_state[kernel.END_WORDS] + (dst >> 6)] >> (dst & 63)) & 1 == 0:
            continue
        r = rule * MESSAGE_RULE_WIDTH
        if rows[r + HITS] >= rows[r + MOST] or not _has_role(run_state, rule, DST_ROLE, dst):
            continue
        rows[r + SEEN] += 1
        after = rows[r + SEEN] - rows[r + FIRST]
        if after < 0 or after % rows[r + EVERY] != 0:
            continue
        rows[r + HITS] += 1
        if rows[r + DROPS]:
            return np.int64(-1)
        later = arrives + rows[r + ADD_NS]
        if rows[r + SPAN_NS] > 0:
            later += below(join(join(join(key, RULE_DELAY), dst), rule), rows[r + SPAN_NS] + 1)
        later = max(later, rows[r + HOLD_NS])
        if rows[r + CAP_NS] < kernel.NEVER:
            later = max(arrives, min(later, rows[r + CAP_NS]))
        arrives = later
        run_state[kernel.RULE_COPIES] += rows[r + COPIES]
    return arrives
