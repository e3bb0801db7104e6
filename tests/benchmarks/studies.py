"""What studies cost: CPU time of the study layer over that of the bare runs, and time to list and load many results.

    python tests/benchmarks/studies.py [--runs 200] [--seconds 1] [--stored 10000]

The layer's share: a sweep of so many runs of one second each (`--seconds`; their simulated time is found by a trial) by
one worker, against the same scenarios run and stored one after the other in this process. CPU time of this process
and its children is counted, so that a busy machine does not matter, and time on the wall clock beside it; starting the
one worker process, a constant of a few seconds, is shown apart (a sweep of a single run). Loading: CPU time of
`sim.results` on a folder of stored runs without and with its index; best of three.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import sim
from sim.scenario import store
from sim.scenario.results import STUDY, open_runs, write_index
from sim.scenario.study import load_study
from sim.scenario.sweep import sweep

TRIAL_S = 1000
ROOT = Path(__file__).parents[2]
STUDY_TEXT = """
base: {base}
set: {{duration: {duration_s} s, stop_after_decisions: null, trace: off}}
sweep: {{cases: [{{}}]}}
replications: {runs}
"""


def cpu_s() -> float:
    """CPU time of this process and of its ended children, s."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


class Stopwatch:
    """Since it was made: CPU time of this process and of its ended children, and time on the wall clock, s."""

    def __init__(self) -> None:
        self.began = cpu_s(), time.monotonic()

    def read(self) -> tuple[float, float]:
        return cpu_s() - self.began[0], time.monotonic() - self.began[1]


def written(folder: Path, runs: int, duration_s: int) -> Path:
    """A study file of so many equal runs."""
    file = folder / f"cost-{runs}.yaml"
    base = ROOT / "scenarios" / "protocols" / "pbft" / "baseline.yaml"
    file.write_text(STUDY_TEXT.format(base=base, runs=runs, duration_s=duration_s))
    return file


def duration_of(folder: Path, seconds: float) -> int:
    """Simulated seconds that take about so many seconds of CPU."""
    scenario = load_study(written(folder, 1, TRIAL_S)).runs[0].scenario
    sim.run(scenario)  # loads the engine
    watch = Stopwatch()
    sim.run(scenario)
    return max(round(TRIAL_S * seconds / watch.read()[0]), 1)


def layer(runs: int, seconds: float) -> None:
    """Print the study layer's share."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        duration_s = duration_of(folder, seconds)
        planned = load_study(written(folder, runs, duration_s)).runs
        watch = Stopwatch()
        for run in planned:
            sim.run(run.scenario, out=folder / "bare", study="bare")
        bare = watch.read()
        watch = Stopwatch()
        sweep(written(folder, 1, duration_s), out=folder / "one", workers=1)
        start = [one - whole / runs for one, whole in zip(watch.read(), bare, strict=True)]
        watch = Stopwatch()
        sweep(written(folder, runs, duration_s), out=folder / "many", workers=1)
        swept = watch.read()
    for name, alone, begun, whole in zip(("CPU time", "wall clock"), bare, start, swept, strict=True):
        share = 100 * (whole - begun - alone) / alone
        print(f"{name}: {runs} runs bare {alone:.1f} s ({alone / runs:.2f} s each), as a study {whole:.1f} s, of which")
        print(f"  {begun:.1f} s ({100 * begun / alone:.1f} %) start the worker; the layer adds {share:.1f} % per run")


def loading(stored: int) -> None:
    """Print how long a folder of so many results takes to load."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        study = written(folder, 1, 1)
        sweep(study, out=folder, workers=1)
        place = folder / study.stem
        data = json.loads((place / STUDY).read_text())
        manifest = (place / "runs" / data["runs"][0]["key"] / store.MANIFEST).read_text()
        data["runs"] = [{**data["runs"][0], "replication": k, "key": f"{k:024x}"} for k in range(stored)]
        many = folder / "many"
        for run in data["runs"]:
            (many / "runs" / run["key"]).mkdir(parents=True)
            (many / "runs" / run["key"] / store.MANIFEST).write_text(manifest)
        (many / STUDY).write_text(json.dumps(data))
        for name in ("without", "with"):
            times = []
            for _ in range(3):
                began = time.process_time()
                assert len(sim.results(many)) == stored
                times.append(time.process_time() - began)
            print(f"{stored} finished runs load {name} an index in {min(times):.2f} s of CPU")
            write_index(open_runs(many))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--stored", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=1.0)
    asked = parser.parse_args()
    loading(asked.stored)
    layer(asked.runs, asked.seconds)
