"""Short runs in trouble, as functions of a number: first a few scripted ones, then drawn ones without end.

A trial is a scenario of `voters` equal nodes with quick timers. Trouble ends at `QUIET_S`; what is not decided
`BOUND_S` later is a liveness failure. At most one node is corrupted, and only where a protocol bears that.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sim.kernel import chance
from sim.protocols import Entry
from sim.scenario.load import load_scenario
from sim.scenario.schema import Scenario

Patch = dict[str, Any]

QUIET_S = 3.0
BOUND_S = 3.0
CALM = 0  # the number of the trial without trouble
_TRIALS_DRAW = 5  # key of the draw that makes a trial
_MS = 25  # times are multiples of this
# Timers that are quick beside links of 10 ms, for whatever protocol has such a parameter.
_QUICK = {
    "request_timeout": "200 ms", "view_timeout": "200 ms", "view_timeout_max": "400 ms", "round_timeout": "200 ms",
    "delta": "40 ms", "block_period": "100 ms", "wiggle": "40 ms", "status_interval": "500 ms",
    "heartbeat_interval": "50 ms",
}  # fmt: skip


def quick(entry: Entry) -> list[str]:
    """Overrides of a scenario that give a protocol such timers and small blocks."""
    keys = entry.parameters.keys()
    timers = [f"protocol.{key}={value}" for key, value in _QUICK.items() if key in keys]
    return [*timers, "block.max_transactions=10", "block.interval=50 ms"]


def _crash(at_ms: int, for_ms: int | None, *nodes: int) -> Patch:
    lasting = {} if for_ms is None else {"for": f"{for_ms} ms"}
    return {"at": f"{at_ms} ms", **lasting, "crash": {"nodes": list(nodes)}}


def _partition(at_ms: int, for_ms: int, *groups: list[int]) -> Patch:
    return {"at": f"{at_ms} ms", "for": f"{for_ms} ms", "partition": {"groups": [list(group) for group in groups]}}


def _equivocation(n: int) -> Patch:
    middle = 1 + n // 2
    groups = [list(range(1, middle)), list(range(middle, n))]
    return {"corrupted": [{"nodes": [0], "behaviour": "equivocating", "groups": groups}]}


def _in_turn(n: int, times: int, every_ms: int, for_ms: int, *, isolated: bool) -> list[Patch]:
    """One node after the other is cut off, or crashes."""
    turns = [(200 + turn * every_ms, turn * 2 % n if n % 2 else turn % n) for turn in range(times)]
    if isolated:
        return [_partition(at_ms, for_ms, [node]) for at_ms, node in turns]
    return [_crash(at_ms, for_ms, node) for at_ms, node in turns]


SCRIPTS: tuple[Callable[[int], Patch], ...] = (
    lambda n: {},
    lambda n: {"faults": [_crash(300, None, n - 1)]},
    lambda n: {"faults": [_crash(300, 600, 0), _crash(1500, 600, 1)]},
    lambda n: {"faults": [_partition(300, 2000, list(range(n // 2)), list(range(n // 2, n)))]},
    lambda n: {"faults": [_partition(300, 1500, [0])]},
    _equivocation,
    lambda n: {"network.latency.one_way": "250 ms", "duration": "60 s", "liveness_bound": "30 s"},
    lambda n: {"faults": _in_turn(n, 12, 200, 300, isolated=True)},
    lambda n: {"faults": _in_turn(n, 24, 100, 50, isolated=False)},
)


def patch(number: int, n: int, types: tuple[str, ...], *, lies: bool) -> Patch:
    """What a trial lays over its scenario."""
    if number < len(SCRIPTS):
        found = SCRIPTS[number](n)
        return found if lies else {key: value for key, value in found.items() if key != "corrupted"}
    rng = np.random.default_rng(chance.draw(number, _TRIALS_DRAW, n))
    kind = (_mixed, _mixed, _by_view, _by_view, _restarts)[int(rng.integers(5))]
    made = kind(rng, n, types)
    if lies and rng.integers(2):
        made["corrupted"] = [_liar(rng, n)]
    return made


def _some(rng: np.random.Generator, n: int, most: int) -> list[int]:
    found: list[int] = sorted(rng.permutation(n)[: int(rng.integers(1, most + 1))].tolist())
    return found


def _mixed(rng: np.random.Generator, n: int, types: tuple[str, ...]) -> Patch:
    """Up to four of: crashes, partitions, lost, late and doubled messages, one node after the other down or cut off."""
    last = int(QUIET_S * 1000) // _MS
    faults: list[Patch] = []
    rules: list[Patch] = []
    for _ in range(int(rng.integers(1, 5))):
        kind = int(rng.integers(7))
        at = int(rng.integers(1, last - 4))
        at_ms, for_ms = at * _MS, int(rng.integers(2, last - at)) * _MS
        if kind == 0:
            faults.append(_crash(at_ms, for_ms, *_some(rng, n, n)))
        elif kind == 1:
            faults.append(_partition(at_ms, for_ms, _some(rng, n, n - 1)))
        elif kind in (4, 5):
            every_ms, for_ms = (int(rng.integers(2, 10)) * _MS for _ in range(2))
            times = (int(QUIET_S * 1000) - 200 - for_ms) // every_ms
            faults += _in_turn(n, min(times, 20), every_ms, for_ms, isolated=kind == 4)
        else:
            rule: Patch = {"from": f"{at_ms} ms", "until": f"{at_ms + for_ms} ms"}
            if rng.integers(2):
                rule["types"] = [types[int(rng.integers(len(types)))]]
            side = int(rng.integers(3))
            rule |= {"src": _some(rng, n, n - 1)} if side == 0 else {"dst": _some(rng, n, n - 1)} if side == 1 else {}
            late = {"delay_by": f"{int(rng.integers(1, 20)) * _MS} ms"}
            rules.append(rule | ({"drop": True} if kind == 2 else late if kind == 3 else {"duplicate": 1}))
    made: Patch = {"faults": faults, "rules": rules, "network.jitter": {"model": "uniform", "plus_minus": "5 ms"}}
    if rng.integers(4) == 0:
        made["network.loss"] = "5 %"
    return made


def _by_view(rng: np.random.Generator, n: int, types: tuple[str, ...]) -> Patch:
    """In each of the first views, each type of message reaches all, only some, or all from only some."""
    rules: list[Patch] = []
    for view in range(5):
        for name in types:
            kind = int(rng.integers(8))
            rule: Patch = {"types": [name], "view": view, "until": f"{QUIET_S:g} s"}
            if kind == 0:
                rules.append(rule | {"only_to": _some(rng, n, n - 1)})
            elif kind == 1:
                rules.append(rule | {"src": _some(rng, n, n - 1), "drop": True})
            elif kind == 2:
                rules.append(rule | {"src": _some(rng, n, n - 1), "delay_by": f"{int(rng.integers(1, 60)) * _MS} ms"})
    return {"rules": rules}


def _restarts(rng: np.random.Generator, n: int, types: tuple[str, ...]) -> Patch:
    """Messages take long and overtake each other, while one node after the other crashes and is back at once."""
    spread_ms = int(rng.integers(2, 16)) * _MS
    late: Patch = {"until": f"{QUIET_S:g} s", "delay_by": "0 ms", "spread": f"{spread_ms} ms"}
    if rng.integers(2):
        late["types"] = [types[int(rng.integers(len(types)))]]
    every_ms = int(rng.integers(1, 8)) * _MS
    times = min((int(QUIET_S * 1000) - 300) // every_ms, 60)
    return {"rules": [late], "faults": _in_turn(n, times, every_ms, 20, isolated=False)}


def _liar(rng: np.random.Generator, n: int) -> Patch:
    """One corrupted node."""
    node = int(rng.integers(n))
    halves = [int(other) for other in rng.permutation(n) if other != node]
    middle = int(rng.integers(1, n - 1))
    groups = [sorted(halves[:middle]), sorted(halves[middle:])]
    behaviours: tuple[Patch, ...] = (
        {"behaviour": "equivocating", "groups": groups},
        {"behaviour": "equivocating", "groups": groups, "older": int(rng.integers(1, 4))},
        {"behaviour": "understating", "older": int(rng.integers(1, 4))},
        {"behaviour": "double-voting"},
        {"behaviour": "silent"},
        {"behaviour": "withholding", "to": groups[0]},
        {"behaviour": "amnesia"},
        {"behaviour": "replaying", "after": f"{int(rng.integers(1, 20)) * _MS} ms", "times": 3},
        {"behaviour": "twin", "groups": groups},
    )
    return {"nodes": [node]} | behaviours[int(rng.integers(len(behaviours)))]


def trial(number: int, name: str, entry: Entry, n: int, protocols: Mapping[str, Entry]) -> Scenario:
    """The scenario of a trial."""
    keys = entry.parameters.keys()
    data: dict[str, Any] = {
        "name": f"trial-{number}",
        "seed": number,
        "duration": f"{QUIET_S + 2 * BOUND_S:g} s",
        "liveness_bound": f"{BOUND_S:g} s",
        "network": {"nodes": n, "latency": {"model": "fixed", "one_way": "10 ms"}},
        "protocol": {"name": name} | {key: value for key, value in _QUICK.items() if key in keys},
        "block": {"max_transactions": 10, "interval": "50 ms"},
        "workload": [{"kind": "backlog", "bytes": "512 B"}],
        "limits": {"max_events": 400_000},
    }
    types = (*entry.content_names, *entry.vote_names)
    for key, value in patch(number, n, types, lies=entry.tolerates_lies).items():
        *sections, last = key.split(".")
        inner = data
        for section in sections:
            inner = inner[section]
        inner[last] = value
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trial.yaml"
        file.write_text(json.dumps(data))  # JSON is YAML
        return load_scenario(file, protocols=protocols)
