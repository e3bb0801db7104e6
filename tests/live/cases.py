"""Scenarios of the measured deployments: a platform's profile, the delays in force, and the clients.

What follows from the settings of a measurement, and is no default of its platform, stands in `SETTINGS`.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import tempfile
from pathlib import Path
from typing import Any

from sim.scenario.load import load_scenario
from sim.scenario.platforms import platforms
from sim.scenario.run import run
from sim.scenario.schema import Scenario

MEASURED = Path(__file__).with_name("measured.csv")
TRIP_MS = 0.11  # of the user-space network between the namespaces
_WIDE4_MS = {(1, 2): 10, (1, 3): 30, (1, 4): 60, (2, 3): 25, (2, 4): 55, (3, 4): 40}


@dataclasses.dataclass(frozen=True)
class Row:
    """One measured mean: clients of a case at a site."""

    system: str
    case: str
    matrix: str
    site: int
    latency_mean_ms: float


@functools.cache
def measured() -> tuple[Row, ...]:
    """All rows."""
    with open(MEASURED, encoding="utf-8") as stream:
        table = csv.DictReader(line for line in stream if not line.startswith("#"))
        return tuple(
            Row(row["system"], row["case"], row["matrix"], int(row["site"]), float(row["latency_mean_ms"]))
            for row in table
        )


def one_way_ms(matrix: str, n: int) -> list[list[float]]:
    """One-way delays between sites; a client reaches the node at its own over loopback."""

    def between(i: int, j: int) -> float:
        if i == j:
            return 0.0
        return {"lan": 0.25, "even50": 50.0, "slow": 10.0}.get(matrix, _WIDE4_MS[min(i, j), max(i, j)]) + TRIP_MS

    return [[between(i, j) for j in range(1, n + 1)] for i in range(1, n + 1)]


def _closed(think: str, outstanding: int = 1) -> dict[str, Any]:
    return {"kind": "closed", "outstanding": outstanding, "think_time": think, "bytes": "100 B"}


def _poisson(rate: str) -> dict[str, Any]:
    return {"kind": "open", "rate": rate, "bytes": "100 B"}


_BARE = {"protocol": {"timeout_commit": "0 ms"}}  # B and F: blocks follow one another at once
_FAST = {"flush_after": "1 ms", "look_every": "5 ms"}  # F: timers of gossip and flushing
_SLOW = [{"nodes": [0, 1, 2], "upload": "20 Mbit/s"}]  # the cards of the servers; clients are at their side
_GONE = [{"at": "0 s", "crash": {"nodes": [3]}}]
_SEEN = {"protocol": {"block_period": "1 s", "confirmations": 0}}  # Clique's clients were answered by the first block
_LEADER = {"protocol": {"first_leader": 0}}


def _fabric(
    batch: str, most: int, sources: tuple[int, int], *, leader: int = 0, orderer: str = "drawn"
) -> dict[str, Any]:
    """Two organisations with a peer each at sites 1 and 2; `sources`: the orderers (from 0) they take blocks from.

    The peer at site 2 stands first: who is as far from both turns to it.
    """
    return {
        "protocol": {"first_leader": leader},
        "block": {"batch_timeout": batch, "max_transactions": most, "max_bytes": "512 kB"},
        "observers": [
            {"name": "p2", "site": "1", "organisation": "org2", "source": sources[1]},
            {"name": "p1", "site": "0", "organisation": "org1", "source": sources[0]},
        ],
        "endorsement": {"policy": "AND(org1, org2)", "execute": "0 ms", "orderer": orderer},
    }


# (system, case): clients, whether they are at one site at a time, and other keys of the scenario
SETTINGS: dict[tuple[str, str], tuple[dict[str, Any], bool, dict[str, Any]]] = {
    ("cometbft", "B-closed"): (_closed("375 ms"), True, _BARE),
    ("cometbft", "F-closed"): (_closed("375 ms"), True, _BARE | {"network": _FAST}),
    ("cometbft", "D-closed"): (_closed("0 s", 4), False, {}),
    ("cometbft", "D-poisson"): (_poisson("4 tx/s"), False, {}),
    ("cometbft", "D-closed-killed"): (_closed("0 s", 3) | {"sites": ["0", "1", "2"]}, False, {"faults": _GONE}),
    ("cometbft", "D-poisson-killed"): (_poisson("3 tx/s") | {"sites": ["0", "1", "2"]}, False, {"faults": _GONE}),
    ("goquorum-qbft", "closed"): (_closed("0 s", 4), False, {}),
    ("goquorum-qbft", "p10"): (_poisson("10 tx/s"), False, {}),
    ("geth-clique", "closed"): (_closed("0 s", 4), False, _SEEN),
    ("geth-clique", "p10"): (_poisson("10 tx/s"), False, _SEEN),
    ("goquorum-raft", "closed"): (_closed("0 s"), True, _LEADER),
    ("goquorum-raft", "p10"): (_poisson("10 tx/s"), False, _LEADER),
    ("chainmaker-tbft", "closed"): (_closed("0 s"), True, {}),
    ("chainmaker-raft", "closed"): (_closed("150 ms") | {"thinking": "exponential"}, True, _LEADER),
    ("etcd", "closed"): (_closed("50 ms"), True, _LEADER),
    ("etcd", "closed-killed"): (_closed("50 ms"), True, _LEADER | {"faults": [{"at": "0 s", "crash": {"nodes": [1]}}]}),
    ("etcd", "closed-100kB"): (_closed("50 ms") | {"bytes": "100 kB"}, True, _LEADER | {"nodes": _SLOW}),
    ("etcd", "poisson-10"): (_poisson("10 tx/s"), False, _LEADER),
    ("etcd", "poisson-50"): (_poisson("50 tx/s"), False, _LEADER),
    ("etcd", "poisson-200"): (_poisson("200 tx/s"), False, _LEADER),
    ("bft-smart", "closed"): (_closed("50 ms"), True, {}),
    ("bft-smart", "poisson-50"): (_poisson("50 tx/s"), False, {}),
    ("hotstuff-mempool", "poisson-10"): (_poisson("10 tx/s"), False, {}),
    ("fabric-raft", "m1-closed"): (_closed("0 s"), True, _fabric("200 ms", 1, (3, 1))),
    ("fabric-raft", "t200-closed"): (_closed("0 s"), True, _fabric("200 ms", 500, (0, 1))),
    ("fabric-raft", "t2000-closed"): (_closed("0 s"), True, _fabric("2 s", 500, (1, 1))),
    ("fabric-raft", "far-closed"): (_closed("0 s"), True, _fabric("200 ms", 500, (1, 1), leader=3)),
    ("fabric-raft", "t200-poisson-50"): (_poisson("50 tx/s"), False, _fabric("200 ms", 500, (0, 1))),
    ("fabric-smartbft", "bft-closed"): (_closed("0 s"), True, _fabric("200 ms", 500, (2, 1), orderer="all")),
    ("fabric-smartbft", "bftm-closed"): (_closed("0 s"), True, _fabric("50 ms", 1, (0, 2), orderer="all")),
}  # fmt: skip


def scenario_of(system: str, case: str, matrix: str, site: int | None) -> Scenario:
    """The scenario of a case; `site`: where its only client is, if it has but one at a time."""
    load, _, more = SETTINGS[system, case]
    n = 3 if system == "etcd" else 4
    network = {"nodes": n, "latency": {"model": "explicit", "one_way_ms": one_way_ms(matrix, n)}}
    data: dict[str, Any] = {
        "name": "live",
        "duration": "60 s" if load["kind"] == "closed" and system != "geth-clique" else "600 s",  # drawn: more of them
        "warm_up": "10 s",
        "platform": system,
        "network": network | more.get("network", {}),
        "protocol": {"name": platforms()[system].protocol} | more.get("protocol", {}),
        "faults": more.get("faults", []),
        "nodes": more.get("nodes", []),
        **{key: more[key] for key in ("block", "observers", "endorsement") if key in more},
        "workload": [load if site is None else load | {"sites": [str(site - 1)]}],
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "live.yaml"
        file.write_text(json.dumps(data), encoding="utf-8")
        return load_scenario(file)


@functools.cache
def predicted_ms(system: str, case: str, matrix: str, site: int) -> float:
    """The mean latency of requests at a site, ms."""
    alone = SETTINGS[system, case][1]
    waits = _waits(system, case, matrix, site if alone else None)
    return waits[str(site - 1)]


@functools.cache
def _waits(system: str, case: str, matrix: str, site: int | None) -> dict[str, float]:
    table = run(scenario_of(system, case, matrix, site)).tables["latency_by_place"]
    return dict(zip(table["place"], table["mean_ms"], strict=True))
