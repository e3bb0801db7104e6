"""What studies cost: CPU time of the study layer over that of the bare runs, and time to list and load many results.

    python tests/benchmarks/studies.py [--runs 200] [--stored 10000]

The layer's share: a sweep of so many runs (of about one CPU second each on the machine the figures below are from) by
one worker, against the same scenarios run and stored one after the other in this process. CPU time of this process
and its children is counted, so that a busy machine does not matter; starting the one worker process, a constant of a
few seconds, is shown apart (a sweep of a single run). Loading: CPU time of `sim.results` on a folder of stored
runs without and with its index; best of three.
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

ROOT = Path(__file__).parents[2]
STUDY_TEXT = """
base: {base}
set: {{duration: 1500 s, network.nodes: 4, protocol.name: pbft, trace: off}}
sweep: {{cases: [{{}}]}}
replications: {runs}
"""


def cpu_s() -> float:
    """CPU time of this process and of its ended children, s."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def written(folder: Path, runs: int) -> Path:
    """A study file of so many equal runs."""
    file = folder / f"cost-{runs}.yaml"
    base = ROOT / "scenarios" / "protocols" / "pbft" / "baseline.yaml"
    file.write_text(STUDY_TEXT.format(base=base, runs=runs))
    return file


def layer(runs: int) -> None:
    """Print the study layer's share."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        planned = load_study(written(folder, runs)).runs
        sim.run(planned[0].scenario, out=folder / "warm")
        began = cpu_s()
        for run in planned:
            sim.run(run.scenario, out=folder / "bare", study="bare")
        bare = cpu_s() - began
        began = cpu_s()
        sweep(written(folder, 1), out=folder / "one", workers=1)
        start = cpu_s() - began - bare / runs
        began = cpu_s()
        sweep(written(folder, runs), out=folder / "many", workers=1)
        swept = cpu_s() - began
    print(f"{runs} runs: bare {bare:.1f} s of CPU ({bare / runs:.2f} s each), as a study {swept:.1f} s, of which")
    print(f"starting the worker {start:.1f} s; the layer adds {100 * (swept - start - bare) / bare:.1f} %,")
    print(f"over 200 such runs the start is another {100 * start * runs / bare / 200:.1f} %")


def loading(stored: int) -> None:
    """Print how long a folder of so many results takes to load."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        study = written(folder, 1)
        study.write_text(study.read_text().replace("1500 s", "1 s"))
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
    asked = parser.parse_args()
    loading(asked.stored)
    layer(asked.runs)
