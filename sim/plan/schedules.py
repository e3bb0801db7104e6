"""Schedules of trouble: what a hunt tries on a scenario, as patches of its data.

Two sources. `enumerated` follows Twins (Bano et al., arXiv 2004.10617): who is corrupted (and so which views it leads),
as an equivocator or as twins, and into which two groups the nodes fall in each of the first views; all combinations,
in an order drawn from the seed. `drawn` is a Hypothesis strategy of crashes, quick restarts, partitions, cut links,
message rules and corrupted replicas. Both stay within stated limits: at most `corrupted` nodes misbehave, and
everything else ends at `QUIET_S`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st

from sim.kernel import chance

Patch = dict[str, Any]  # sections of a scenario: faults, rules, corrupted

QUIET_S = 2.0  # trouble is over by then
_STEP_MS = 50  # times are multiples of this, so that found schedules read well
_TWINS_DRAW = 4  # key of the draw that orders enumerated schedules
_VIEWS = 4


@dataclasses.dataclass(frozen=True)
class Limits:
    """What schedules may contain: voters, how many of them corrupted, and the protocol's message types.

    `later`: the messages that open the later phases of a normal case, which carry certificates.
    """

    voters: int
    corrupted: int
    messages: tuple[str, ...]
    votes: tuple[str, ...]
    later: tuple[str, ...] = ()

    @property
    def types(self) -> tuple[str, ...]:
        """All message types."""
        return (*self.messages, *self.votes)


def _ms(steps: int) -> str:
    return f"{steps * _STEP_MS} ms"


def enumerated(limits: Limits, seed: int, views: int = _VIEWS) -> Iterator[Patch]:
    """Every choice of traitors, their form, and two groups in each of the first views, in an order given by the seed.

    Traitors are `limits.corrupted` nodes in a row: whom the turn of leaders brings to lead which views. They propose
    and vote for two blocks, or are twins, two copies of each, who share the others as the groups of the first view do.
    A group is a bit pattern over the nodes; node 0 is always in the first, so that none comes twice.
    """
    n = limits.voters
    patterns = 1 << (n - 1)
    forms = 2 * n if limits.corrupted else 1
    total = forms * patterns**views
    rng = np.random.default_rng(chance.draw(seed, _TWINS_DRAW))
    start, stride = int(rng.integers(total)), _coprime(int(rng.integers(total)), total)
    for k in range(total):
        code, form = divmod((start + k * stride) % total, forms)
        groups = [_two_groups(n, code // patterns**view % patterns) for view in range(views)]
        rules: list[dict[str, Any]] = []
        for view, (near, far) in enumerate(groups):
            for src, dst in ((near, far), (far, near)) if far else ():
                rules.append({"src": src, "dst": dst, "view": view, "until": f"{QUIET_S} s", "drop": True})
        patch: Patch = {"rules": rules}
        if limits.corrupted:
            traitors = sorted((form // 2 + i) % n for i in range(limits.corrupted))
            patch["corrupted"] = _traitors(n, traitors, groups[0], twins=form % 2 == 1)
        yield patch


def _two_groups(n: int, pattern: int) -> tuple[list[int], list[int]]:
    far = [node for node in range(1, n) if pattern >> (node - 1) & 1]
    return [node for node in range(n) if node not in far], far


def _traitors(n: int, traitors: list[int], groups: tuple[list[int], list[int]], *, twins: bool) -> list[Patch]:
    if not twins:
        return [{"nodes": traitors, "behaviour": behaviour} for behaviour in ("equivocating", "double-voting")]
    halves = [[node for node in group if node not in traitors] for group in groups]
    return [{"nodes": traitors, "behaviour": "twin"} | ({"groups": halves} if all(halves) else {})]


def _coprime(number: int, total: int) -> int:
    """The least number from this one on that has no divisor in common with the total: a stride that visits all."""
    while math.gcd(number, total) != 1:
        number += 1
    return number


def drawn(limits: Limits) -> st.SearchStrategy[Patch]:
    """Patches with up to three faults or one row of restarts, six rules, and `limits.corrupted` corrupted nodes."""
    sections: dict[str, st.SearchStrategy[Any]] = {
        "faults": st.one_of(st.lists(_fault(limits), max_size=3), _restarts(limits)),
        "rules": st.lists(st.one_of(_rule(limits), _by_view(limits)), max_size=6),
    }
    if limits.corrupted:
        behaviours = st.one_of(st.lists(_behaviour(limits), min_size=1, max_size=2), _hides(limits))
        sections["corrupted"] = st.tuples(_some(limits, limits.corrupted), behaviours).map(_corrupted)
    return st.fixed_dictionaries(sections)


def _corrupted(chosen: tuple[list[int], list[Patch]]) -> list[Patch]:
    nodes, behaviours = chosen
    found = {}  # each kind once
    for entry in behaviours:
        groups = [[node for node in group if node not in nodes] for group in entry.get("groups", ())]
        if all(groups):  # corrupted nodes hear themselves; a group of nobody says nothing
            found[entry["behaviour"]] = {"nodes": nodes} | entry | ({"groups": groups} if groups else {})
    return [found["twin"]] if "twin" in found else [*found.values()]  # a twin is that and nothing else


def _some(limits: Limits, most: int | None = None) -> st.SearchStrategy[list[int]]:
    """Some nodes, at least one."""
    top = limits.voters if most is None else most
    return st.sets(st.integers(0, limits.voters - 1), min_size=1, max_size=top).map(sorted)


def _fault(limits: Limits) -> st.SearchStrategy[Patch]:
    last = int(QUIET_S * 1000) // _STEP_MS
    times = st.tuples(st.integers(0, last - 4), st.integers(1, last)).map(
        lambda t: {"at": _ms(t[0]), "until": _ms(min(t[0] + t[1], last))}
    )
    crash = _some(limits).map(lambda nodes: {"crash": {"nodes": nodes}})
    if limits.voters == 1:
        return st.tuples(times, crash).map(lambda parts: parts[0] | parts[1])
    pair = st.lists(st.integers(0, limits.voters - 1), min_size=2, max_size=2, unique=True)
    action = st.one_of(
        crash,
        _some(limits, limits.voters - 1).map(lambda nodes: {"partition": {"groups": [nodes]}}),
        pair.map(lambda ends: {"cut_link": {"between": ends}}),
    )
    return st.tuples(times, action).map(lambda parts: parts[0] | parts[1])


def _restarts(limits: Limits) -> st.SearchStrategy[list[Patch]]:
    """One node after the other crashes and is back at once."""

    def turns(every: int, for_ms: int) -> list[Patch]:
        times = range(_STEP_MS, int(QUIET_S * 1000) - for_ms, every * _STEP_MS)
        return [
            {"at": f"{at} ms", "for": f"{for_ms} ms", "crash": {"nodes": [turn % limits.voters]}}
            for turn, at in enumerate(times)
        ]

    return st.tuples(st.integers(1, 8), st.sampled_from([20, 50, 100])).map(lambda given: turns(*given))


def _by_view(limits: Limits) -> st.SearchStrategy[Patch]:
    """Messages of one type and view reach only some, come from only some, or come late from some."""
    action = st.one_of(
        _some(limits, max(limits.voters - 1, 1)).map(lambda nodes: {"only_to": nodes}),
        _some(limits, max(limits.voters - 1, 1)).map(lambda nodes: {"src": nodes, "drop": True}),
        st.tuples(_some(limits, max(limits.voters - 1, 1)), st.integers(1, 30)).map(
            lambda given: {"src": given[0], "delay_by": _ms(given[1])}
        ),
    )
    names = st.sampled_from(limits.types).map(lambda name: [name])
    place = st.fixed_dictionaries({"types": names, "view": st.integers(0, _VIEWS), "until": st.just(f"{QUIET_S} s")})
    return st.tuples(place, action).map(_joined)


def _rule(limits: Limits) -> st.SearchStrategy[Patch]:
    types = st.lists(st.sampled_from(limits.types), min_size=1, max_size=2, unique=True)
    place: st.SearchStrategy[Patch] = st.one_of(
        st.just({}),
        st.integers(0, _VIEWS).map(lambda view: {"view": view}),
        st.integers(1, _VIEWS).map(lambda height: {"height": height}),
    )
    action = st.one_of(
        st.just({"drop": True}),
        st.integers(1, 20).map(lambda steps: {"delay_by": _ms(steps)}),
        st.integers(1, 8).map(lambda steps: {"delay_by": "0 ms", "spread": _ms(steps)}),
        st.just({"duplicate": 1}),
        _some(limits).map(lambda nodes: {"only_to": nodes}),
    )
    parts = st.tuples(
        st.fixed_dictionaries({"types": types, "until": st.just(f"{QUIET_S} s")}),
        st.one_of(st.just({}), _some(limits).map(lambda nodes: {"src": nodes})),
        st.one_of(st.just({}), _some(limits).map(lambda nodes: {"dst": nodes})),
        place,
        action,
    )
    return parts.map(_joined)


def _joined(parts: tuple[Patch, ...]) -> Patch:
    """One rule of its parts; `only_to` names the receivers, so nothing else does."""
    rule = {key: value for part in parts for key, value in part.items()}
    if "only_to" in rule:
        rule.pop("dst", None)
    return rule


def _hides(limits: Limits) -> st.SearchStrategy[list[Patch]]:
    """It gives some nodes neither votes nor certificates, and reports an older certificate than it has."""
    names = [*limits.votes, *limits.later]
    return _some(limits, max(limits.voters - 2, 1)).map(
        lambda to: [
            {"behaviour": "withholding", "to": to, "messages": names},
            {"behaviour": "understating", "older": 1},
        ]
    )


def _behaviour(limits: Limits) -> st.SearchStrategy[Patch]:
    messages = st.lists(st.sampled_from(limits.types), max_size=3, unique=True)
    parted = _some(limits).map(lambda near: [near, [node for node in range(limits.voters) if node not in near]])
    older = st.integers(1, 3)
    choices: list[st.SearchStrategy[Patch]] = [
        st.just({"behaviour": "equivocating"}),
        parted.map(lambda groups: {"behaviour": "equivocating", "groups": groups}),
        st.tuples(parted, older).map(
            lambda given: {"behaviour": "equivocating", "groups": given[0], "older": given[1]}
        ),
        older.map(lambda blocks: {"behaviour": "understating", "older": blocks}),
        st.just({"behaviour": "double-voting"}),
        st.just({"behaviour": "amnesia"}),
        parted.map(lambda groups: {"behaviour": "twin", "groups": groups}),
        messages.map(lambda names: {"behaviour": "silent", "messages": names}),
        st.tuples(_some(limits), messages).map(
            lambda given: {"behaviour": "withholding", "to": given[0], "messages": given[1]}
        ),
        st.integers(1, 20).map(lambda steps: {"behaviour": "slow", "delay": _ms(steps)}),
        st.integers(1, 20).map(lambda steps: {"behaviour": "replaying", "after": _ms(steps), "times": 2}),
    ]
    return st.one_of(*choices)
