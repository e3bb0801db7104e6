"""What studies cost: CPU time of the study layer over that of the bare runs, and time to list and load many results.

    python tests/benchmarks/studies.py [--runs 200] [--seconds 1] [--stored 10000]

The layer's share: blocks of runs of one second each (`--seconds`; their simulated time is found by a trial), in turn as
a study by one worker that stays, and bare: run and stored one after the other in this process. A block of both is a
pair, so that a machine that is busy in between does not matter much. CPU time of this process and of the worker is
counted, and time on the wall clock beside it. Starting the worker, a constant of a few seconds, is shown apart.
Loading: CPU time of
`sim.results` on a folder of stored runs without and with its index; best of three.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import psutil

import sim
from sim.measure.statistics import ratio_interval, t_interval
from sim.scenario import store
from sim.scenario.results import STUDY, open_runs, write_index
from sim.scenario.study import load_study
from sim.scenario.sweep import executor, run_study, sweep

TRIAL_S = 1000
BLOCKS = 10
ROOT = Path(__file__).parents[2]
STUDY_TEXT = """
base: {base}
set: {{duration: {duration_s} s, stop_after_decisions: null, trace: off}}
sweep: {{cases: [{{}}]}}
seed: {seed}
replications: {runs}
"""


def cpu_s() -> float:
    """CPU time of this process and of its children that run now, s."""
    now = psutil.Process()
    times = [process.cpu_times() for process in (now, *now.children())]
    return sum(one.user + one.system for one in times)


class Stopwatch:
    """Since it was made: CPU time of this process and of its children, and time on the wall clock, s."""

    def __init__(self) -> None:
        self.began = cpu_s(), time.monotonic()

    def read(self) -> tuple[float, float]:
        return cpu_s() - self.began[0], time.monotonic() - self.began[1]


def written(folder: Path, runs: int, duration_s: int, seed: int = 1) -> Path:
    """A study file of so many runs that differ in their seeds."""
    file = folder / f"cost-{seed}-{runs}.yaml"
    base = ROOT / "scenarios" / "protocols" / "pbft" / "baseline.yaml"
    file.write_text(STUDY_TEXT.format(base=base, runs=runs, duration_s=duration_s, seed=seed))
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
    with tempfile.TemporaryDirectory() as temporary, executor(1) as execute:
        folder = Path(temporary)
        duration_s = duration_of(folder, seconds)
        watch = Stopwatch()
        run_study(load_study(written(folder, 1, 1, seed=0)), out=folder, execute=execute)
        print(f"starting the worker: {watch.read()[0]:.1f} s of CPU")
        pairs = []
        for block in range(1, BLOCKS + 1):
            file = written(folder, runs // BLOCKS, duration_s, seed=block)
            watch = Stopwatch()
            run_study(load_study(file), out=folder / "study", execute=execute)
            as_study = watch.read()
            planned = load_study(file).runs
            watch = Stopwatch()
            for run in planned:
                sim.run(run.scenario, out=folder / "bare", study=file.stem)
            pairs.append((as_study, watch.read()))
    each = runs // BLOCKS
    for i, name in enumerate(("CPU time", "wall clock")):
        bare = t_interval([one[i] / each for _, one in pairs])
        added = t_interval([(whole[i] - alone[i]) / each for whole, alone in pairs])
        share = ratio_interval([whole[i] - alone[i] for whole, alone in pairs], [alone[i] for _, alone in pairs])
        print(f"{name} of a run: {bare.text('s')}, {BLOCKS} blocks of {each}")
        print(f"  a study adds {added.text('s')}")
        print(f"  which is {100 * share.estimate:.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}]")


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
