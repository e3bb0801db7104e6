"""Same version, scenario and seed give the same events, whoever watches, and wherever it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.scenario.load import load_scenario
from sim.scenario.run import run
from sim.scenario.schema import Scenario
from tests.golden.regenerate import GOLDEN, figures, golden_file
from tests.runs import BACKLOG, Played, play, scenario

ROOT = Path(__file__).parents[2]
NAMES = list(GOLDEN)
# Everything that draws: jitter, loss, arrivals; and what faults do to it.
ROUGH = {
    "duration": "4 s",
    "workload": [{"kind": "demand", "tier": "T2"}],
    "network.latency": {"model": "uniform", "low": "1 ms", "high": "20 ms"},
    "network.jitter": {"model": "lognormal", "sigma": 0.5},
    "network.loss": "1 %",
    "network.bandwidth": "50 Mbit/s",
    "cpu": {"crypto": "ed25519", "cores": 2},
    "faults": [
        {"at": "1 s", "for": "1 s", "crash": {"nodes": [0]}},
        {"at": "3 s", "for": "500 ms", "degrade_link": {"between": [1, 2], "loss": "20 %", "add_latency": "5 ms"}},
    ],
}


def rough(protocol: str = "pbft", **changes: Any) -> Scenario:
    """A scenario that draws for everything."""
    return scenario(5, protocol=protocol, **(ROUGH | changes))


@pytest.mark.parametrize("protocol", ["pbft", "raft", "hotstuff"])
def test_twice_in_one_process(protocol: str) -> None:
    first, second = run(rough(protocol)), run(rough(protocol))
    assert first.digest == second.digest
    simulated = [{k: v for k, v in each.metrics.items() if not k.endswith("wall_s")} for each in (first, second)]
    assert simulated[0] == simulated[1]


def test_another_seed_is_another_run() -> None:
    """A digest that never changes would pass every other test here."""
    digests = {run(rough(seed=seed)).digest for seed in range(5)}
    assert len(digests) == 5
    assert run(rough(**{"network.loss": "1.5 %"})).digest not in digests
    assert run(rough(duration="3999 ms")).digest not in digests


FRESH = """
import json, sys
from sim.scenario.run import run
from tests.properties.test_repeatability import rough
print(json.dumps([run(rough(protocol)).digest for protocol in ("pbft", "raft", "hotstuff")]))
"""


def test_fresh_processes_with_other_hash_seeds() -> None:
    here = [run(rough(protocol)).digest for protocol in ("pbft", "raft", "hotstuff")]
    for hash_seed in ("0", "1", "random"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", FRESH],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment,
            check=True,
            timeout=600,
        )
        assert json.loads(done.stdout) == here, f"PYTHONHASHSEED={hash_seed}"


@pytest.mark.parametrize("protocol", ["pbft", "raft", "hotstuff"])
@pytest.mark.parametrize("trace", ["off", "blocks", "messages"])
def test_the_trace_level_changes_nothing(protocol: str, trace: str, tmp_path: Path) -> None:
    plain = run(rough(protocol))
    kept = run(rough(protocol, trace=trace), out=tmp_path)
    assert kept.digest == plain.digest
    assert {f.name for f in (kept.path or tmp_path).iterdir()} >= {
        "off": set(), "blocks": {"trace.parquet"}, "messages": {"trace.parquet", "messages.parquet"}
    }[trace]  # fmt: skip


def test_watching_changes_nothing() -> None:
    shares: list[float] = []
    assert run(rough(), progress=shares.append).digest == run(rough()).digest
    assert len(shares) > 10
    assert shares == sorted(shares)
    assert shares[-1] == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"crash": {"nodes": [2]}},
        {"cut_link": {"between": [0, 1]}},
        {"partition": {"groups": [[0, 1], [2, 3]]}},
        {"degrade_link": {"between": [0, 1], "loss": "90 %"}},
    ],
    ids=lambda fault: next(iter(fault)),
)
@pytest.mark.parametrize("load", ["backlog", "open"])
def test_a_fault_that_never_comes_changes_nothing(fault: dict[str, Any], load: str) -> None:
    """The run stops after 100 decisions, long before the fault."""
    changes: dict[str, Any] = {
        "duration": "60 s",
        "stop_after_decisions": 100,
        "network.jitter": {"model": "proportional", "up_to": 1.0},
        "workload": BACKLOG if load == "backlog" else [{"kind": "open", "rate": "200 tx/s", "bytes": "500 B"}],
    }
    with_fault = run(scenario(4, faults=[{"at": "50 s", **fault}], **changes))
    assert with_fault.digest == run(scenario(4, **changes)).digest
    assert "never took effect" in with_fault.warnings[0]


@pytest.mark.parametrize("name", NAMES)
def test_golden_figures(name: str) -> None:
    """If this fails on purpose: python -m tests.golden.regenerate, and say in the commit why figures moved."""
    assert figures(name) == json.loads(golden_file(name).read_text())


# What a message is, for the one who compares two runs: source, destination, type, key of its chance.
_SENT, _SRC, _DST, _KIND, _ARRIVED, _FATE, _KEY = 0, 1, 2, 3, 5, 10, 11


def journeys(played: Played) -> dict[tuple[int, ...], tuple[int, int]]:
    """(source, destination, type, key) -> (time on the link, lost on sending). Names that occur twice are left out."""
    log = played.log
    names = [tuple(row) for row in log[:, [_SRC, _DST, _KIND, _KEY]].tolist()]
    seen = Counter(names)
    return {
        name: (int(row[_ARRIVED] - row[_SENT]), int(row[_FATE] == 1))
        for name, row in zip(names, log, strict=True)
        if seen[name] == 1
    }


@pytest.mark.parametrize("fast_path", [True, False])
def test_a_crash_leaves_other_messages_their_jitter_and_loss(fast_path: bool) -> None:
    changes: dict[str, Any] = {
        "duration": "5 s", "trace": "messages", "network.links": "datagram", "network.loss": "0.5 %",
        "network.jitter": {"model": "lognormal", "sigma": 0.3},
    }  # fmt: skip
    calm = journeys(play(scenario(7, **changes), fast_path=fast_path))
    crash = [{"at": "500 ms", "for": "2 s", "crash": {"nodes": [5]}}]
    stormy = journeys(play(scenario(7, faults=crash, **changes), fast_path=fast_path))
    common = [name for name in calm if name in stormy]
    assert len(common) > 0.6 * len(calm)
    assert any(name[0] == 5 for name in calm if name not in stormy)
    assert {name: calm[name] for name in common} == {name: stormy[name] for name in common}


def test_jitter_is_there_to_be_compared() -> None:
    """The test above would pass if nothing were drawn."""
    played = play(scenario(4, trace="messages", **{"network.jitter": {"model": "lognormal", "sigma": 0.3}}))
    times = np.array([time for time, _ in journeys(played).values()])
    assert len(set(times.tolist())) > 0.9 * len(times)


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("trace", ["blocks", "messages"])
def test_results_are_the_same_bytes(trace: str, tmp_path: Path) -> None:
    results = [run(rough(trace=trace), out=tmp_path / place) for place in ("here", "there")]
    here, there = files(tmp_path / "here"), files(tmp_path / "there")
    assert list(here) == list(there)
    assert {name for name in here if here[name] != there[name]} == set()
    assert results[0].key == results[1].key


def test_a_second_run_replaces_the_first(tmp_path: Path) -> None:
    first = run(rough(), out=tmp_path)
    before = files(tmp_path)
    assert run(rough(), out=tmp_path).path == first.path
    assert files(tmp_path) == before


def test_every_scenario_of_the_repository_can_be_named_by_its_hash() -> None:
    """The key says which scenario, seed and model made a result."""
    quick = load_scenario(GOLDEN["quickstart"])
    keys = {run(quick).key, run(quick.model_copy(update={"seed": 2})).key, run(rough()).key}
    assert len(keys) == 3
