"""Schedules of trouble: what a hunt tries on a scenario, as patches of its data.

Two sources. `enumerated` follows Twins (Bano et al., arXiv 2004.10617): in each of the first views the nodes fall into
two groups, and corrupted nodes speak for two blocks; all combinations, in an order drawn from the seed. `drawn` is a
Hypothesis strategy of crashes, partitions, cut links, message rules and corrupted replicas. Both stay within stated
limits: at most `corrupted` nodes misbehave, and everything else ends at `QUIET_S`.
"""

from __future__ import annotations

import dataclasses
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
    """What schedules may contain: voters, how many of them corrupted, and the protocol's message types."""

    voters: int
    corrupted: int
    letters: tuple[str, ...]
    votes: tuple[str, ...]

    @property
    def types(self) -> tuple[str, ...]:
        """All message types."""
        return (*self.letters, *self.votes)


def _ms(steps: int) -> str:
    return f"{steps * _STEP_MS} ms"


def enumerated(limits: Limits, seed: int, views: int = _VIEWS) -> Iterator[Patch]:
    """Every choice of two groups in each of the first views, in an order that is a function of the seed.

    A group is a bit pattern over the nodes; node 0 is always in the first, so that none comes twice.
    """
    n = limits.voters
    per_view = 1 << (n - 1)
    total = per_view**views
    rng = np.random.default_rng(chance.draw(seed, _TWINS_DRAW))
    start, stride = int(rng.integers(total)), _coprime(int(rng.integers(total)), total)
    for k in range(total):
        code = (start + k * stride) % total
        rules: list[dict[str, Any]] = []
        for view in range(views):
            pattern = code // per_view**view % per_view
            far = [node for node in range(1, n) if pattern >> (node - 1) & 1]
            near = [node for node in range(n) if node not in far]
            if far:
                for src, dst in ((near, far), (far, near)):
                    rules.append({"src": src, "dst": dst, "view": view, "until": f"{QUIET_S} s", "drop": True})
        patch: Patch = {"rules": rules}
        if limits.corrupted:
            traitors = list(range(limits.corrupted))
            patch["corrupted"] = [
                {"nodes": traitors, "behaviour": behaviour} for behaviour in ("equivocating", "double-voting")
            ]
        yield patch


def _coprime(number: int, total: int) -> int:
    """An odd stride visits all of a power of two."""
    return number | 1 if total > 1 else 1


def drawn(limits: Limits) -> st.SearchStrategy[Patch]:
    """Patches with up to three faults, four rules, and `limits.corrupted` corrupted nodes."""
    sections: dict[str, st.SearchStrategy[Any]] = {
        "faults": st.lists(_fault(limits), max_size=3),
        "rules": st.lists(_rule(limits), max_size=4),
    }
    if limits.corrupted:
        behaviours = st.lists(_behaviour(limits), min_size=1, max_size=2)
        sections["corrupted"] = st.tuples(_some(limits, limits.corrupted), behaviours).map(_corrupted)
    return st.fixed_dictionaries(sections)


def _corrupted(chosen: tuple[list[int], list[Patch]]) -> list[Patch]:
    nodes, behaviours = chosen
    found = {}  # each kind once
    for entry in behaviours:
        groups = [[node for node in group if node not in nodes] for group in entry.get("groups", ())]
        if all(groups):  # corrupted nodes hear themselves; a group of nobody says nothing
            found[entry["behaviour"]] = {"nodes": nodes} | entry | ({"groups": groups} if groups else {})
    return [*found.values()]


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


def _behaviour(limits: Limits) -> st.SearchStrategy[Patch]:
    messages = st.lists(st.sampled_from(limits.types), max_size=2, unique=True)
    choices = [
        st.just({"behaviour": "equivocating"}),
        _some(limits).map(
            lambda near: {
                "behaviour": "equivocating",
                "groups": [near, [node for node in range(limits.voters) if node not in near]],
            }
        ),
        st.just({"behaviour": "double-voting"}),
        st.just({"behaviour": "amnesia"}),
        messages.map(lambda names: {"behaviour": "silent", "messages": names}),
        st.tuples(_some(limits), messages).map(
            lambda given: {"behaviour": "withholding", "to": given[0], "messages": given[1]}
        ),
        st.integers(1, 20).map(lambda steps: {"behaviour": "slow", "delay": _ms(steps)}),
    ]
    return st.one_of(*choices)
