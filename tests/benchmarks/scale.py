"""Time and memory of runs against voters, rate and duration: the table behind docs/cost-model.md.

    python tests/benchmarks/scale.py --out results/published

Every point is a run of its own in a fresh process; time is the process's CPU time (user and system), memory its
peak resident set, both as the operating system counts them. Writes cost-model.csv, .json and .png; takes about
ten minutes. --quick leaves out the largest points; --plot draws again from the JSON file.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "scenarios" / "bench"
COMMAND = "python tests/benchmarks/scale.py --out results/published"
COLOURS = {"pbft": "#0072B2", "hotstuff": "#D55E00", "rate": "#009E73", "duration": "#CC79A7"}  # Okabe-Ito
PBFT_VOTERS = (4, 16, 64, 128, 256, 512, 1000, 2000)
HOTSTUFF_VOTERS = (4, 16, 64, 256, 1000, 2000, 5000, 10_000)
RATES_TPS = (100, 300, 1000, 3000, 10_000)
DURATIONS_MIN = (1, 10, 60)
COLUMNS = (
    "series", "voters", "rate_tps", "simulated_s", "decisions", "messages", "transactions", "cpu_s", "start_cpu_s",
    "wall_s", "drive_wall_s", "peak_mb", "status",
)  # fmt: skip


def points(quick: bool) -> list[tuple[str, str, list[str]]]:
    """(series, scenario file, overrides) of every run."""
    found = []
    for n in PBFT_VOTERS:
        blocks = max(3, min(20_000, 40_000_000 // (2 * n * n)))
        found.append(("pbft", "large.yaml", [f"network.nodes={n}", f"stop_after_decisions={blocks}"]))
    for n in HOTSTUFF_VOTERS:
        blocks = max(10, min(20_000, 10_000_000 // (2 * n)))
        found.append(("hotstuff", "large-hotstuff.yaml", [f"network.nodes={n}", f"stop_after_decisions={blocks}"]))
    for rate in RATES_TPS:
        load = f"workload=[{{kind: open, rate: {rate} tx/s, bytes: 512 B}}]"
        found.append(("rate", "hour-13.yaml", ["duration=5 min", load]))
    for minutes in DURATIONS_MIN:
        found.append(("duration", "hour.yaml", [f"duration={minutes} min"]))
    if not quick:
        found.append(("hour", "hour-13.yaml", []))
    return [point for point in found if not quick or point[2][0] not in ("network.nodes=2000", "network.nodes=10000")]


def measure(series: str, file: str, overrides: list[str], out: Path) -> dict[str, Any]:
    """Run one point in a fresh process and return its row."""
    command = [sys.executable, "-m", "sim.cli", "run", str(BENCH / file), "--out", str(out), "--json"]
    for override in overrides:
        command += ["--set", override]
    log = out / "answer.json"
    started = time.perf_counter()
    with open(log, "wb") as stream:
        process = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=subprocess.DEVNULL)
        _, code, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    wall_s = time.perf_counter() - started
    try:
        answer = json.loads(log.read_text(encoding="utf-8"))
    except ValueError:
        sys.exit(f"{' '.join(command)}: exit {process.returncode}, no result; run it by hand to see why")
    m = answer["metrics"]
    voters = next((int(o.split("=")[1]) for o in overrides if o.startswith("network.nodes=")), None)
    return {
        "series": series,
        "voters": voters or (7 if file == "hour.yaml" else 13),
        "rate_tps": m["offered_nominal_tps"] and round(m["offered_nominal_tps"]),
        "simulated_s": m["simulated_s"],
        "decisions": m["decisions"],
        "messages": m["messages_sent"],
        "transactions": m["submitted"],
        "cpu_s": used.ru_utime + used.ru_stime,
        "wall_s": wall_s,
        "drive_wall_s": m["drive_wall_s"],
        "peak_mb": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6,
        "status": answer["status"],
    }


def run_all(quick: bool) -> dict[str, Any]:
    """All rows, and what they were measured on. The first two runs compile and measure the start."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        small = ["network.nodes=4", "stop_after_decisions=1"]
        starts = [measure("start", "large.yaml", small, out)["cpu_s"] for _ in range(4)][1:]
        start_s = sorted(starts)[1]
        rows = []
        for series, file, overrides in points(quick):
            row = measure(series, file, overrides, out) | {"start_cpu_s": start_s}
            rows.append({name: row[name] for name in COLUMNS})
            print(
                f"{series:<9} n={row['voters']:<6} {row['rate_tps'] or '':>6} {row['simulated_s']:>8.1f} s simulated  "
                f"{row['messages']:>11,} messages {row['transactions']:>11,} tx  "
                f"cpu {row['cpu_s']:6.2f} s  peak {row['peak_mb']:6.0f} MB  {row['status']}",
                flush=True,
            )
    return {"command": COMMAND, "machine": machine(), "start_cpu_s": start_s, "fit": fit(rows), "rows": rows}


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import numba
    import numpy

    model = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "numba": numba.__version__,
        "numpy": numpy.__version__,
        "load_average": os.getloadavg()[0],
    }


def fit(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The constants of the cost model: least squares on relative errors, over the rows they belong to."""
    import numpy as np

    def solve(chosen: list[dict[str, Any]], terms: list[list[float]], measured: list[float]) -> list[float]:
        a, b = np.array(terms, dtype=float), np.array(measured, dtype=float)
        weight = 1 / b
        solution, *_ = np.linalg.lstsq(a * weight[:, None], b * weight, rcond=None)
        return [float(x) for x in solution]

    def work(row: dict[str, Any]) -> float:
        return max(row["cpu_s"] - row["start_cpu_s"], 1e-3)

    found = {}
    for name in ("pbft", "hotstuff"):
        chosen = [row for row in rows if row["series"] == name and work(row) > 0.05]
        terms = [[row["messages"] / 1e9, row["decisions"] / 1e6] for row in chosen]
        per_message, per_decision = solve(chosen, terms, [work(row) for row in chosen])
        found[f"{name}_ns_per_message"] = per_message
        found[f"{name}_us_per_decision"] = per_decision
        memory = [row for row in rows if row["series"] == name]
        power = 2 if name == "pbft" else 1
        base, slope = solve(
            memory, [[1.0, row["voters"] ** power / 1e6] for row in memory], [row["peak_mb"] for row in memory]
        )
        found[f"{name}_base_mb"] = base
        found[f"{name}_bytes_per_{'pair' if power == 2 else 'voter'}"] = slope
    chosen = [row for row in rows if row["series"] in ("rate", "hour")]
    if chosen:
        terms = [[row["transactions"] / 1e9, row["simulated_s"] / 1e3] for row in chosen]
        per_tx, per_second = solve(chosen, terms, [work(row) for row in chosen])
        found["ns_per_transaction"] = per_tx
        found["ms_per_simulated_second_13"] = per_second
    return found


def write(found: dict[str, Any], out: Path) -> None:
    """CSV, JSON and plot."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "cost-model.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    with open(out / "cost-model.csv", "w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        table.writeheader()
        for row in found["rows"]:
            table.writerow({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()})
    plot(found, out / "cost-model.png")


def plot(found: dict[str, Any], path: Path) -> None:
    """Four panels: time and memory against n, time and memory against rate and duration."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows, fitted, start_s = found["rows"], found["fit"], found["start_cpu_s"]
    by = {name: [row for row in rows if row["series"] == name] for name in COLOURS}
    figure, ((a, b), (c, d)) = plt.subplots(2, 2, figsize=(9.4, 7.2), layout="constrained")
    names = {"pbft": "PBFT", "hotstuff": "chained HotStuff"}
    for name, label in names.items():
        n = [row["voters"] for row in by[name]]
        per = [max(row["cpu_s"] - start_s, 1e-3) / row["decisions"] * 1e3 for row in by[name]]
        each = [row["messages"] / row["decisions"] for row in by[name]]
        model = [
            fitted[f"{name}_us_per_decision"] / 1e3 + fitted[f"{name}_ns_per_message"] * count / 1e6 for count in each
        ]
        marker = "o" if name == "pbft" else "s"
        a.plot(n, per, marker, color=COLOURS[name], label=f"{label}, measured")
        a.plot(n, model, "-", color=COLOURS[name], lw=1, label=f"{label}, model")
        b.plot(n, [row["peak_mb"] for row in by[name]], marker, color=COLOURS[name], label=f"{label}, measured")
        power = 2 if name == "pbft" else 1
        slope = fitted[f"{name}_bytes_per_{'pair' if power == 2 else 'voter'}"]
        memory = [fitted[f"{name}_base_mb"] + slope * v**power / 1e6 for v in n]
        b.plot(n, memory, "-", color=COLOURS[name], lw=1, label=f"{label}, model")
    a.set(title="Time per decision", xlabel="voters n", ylabel="CPU time per decision (ms)")
    b.set(title="Memory against voters", xlabel="voters n", ylabel="peak resident memory (MB)")
    rates = by["rate"]
    rate = [row["rate_tps"] for row in rates]
    c.plot(rate, [row["cpu_s"] - start_s for row in rates], "o", color=COLOURS["rate"], label="CPU time (s), measured")
    model = [
        fitted["ms_per_simulated_second_13"] * row["simulated_s"] / 1e3
        + fitted["ns_per_transaction"] * row["transactions"] / 1e9
        for row in rates
    ]
    c.plot(rate, model, "-", color=COLOURS["rate"], lw=1, label="CPU time (s), model")
    c.plot(rate, [row["peak_mb"] / 100 for row in rates], "s--", color="#000000", lw=1, label="peak memory (100 MB)")
    c.set(title="5 simulated minutes, 13 voters", xlabel="offered rate (tx/s)", ylabel="CPU time (s), memory (100 MB)")
    spans = by["duration"]
    minutes = [row["simulated_s"] / 60 for row in spans]
    d.plot(
        minutes, [row["cpu_s"] - start_s for row in spans], "o-", color=COLOURS["duration"], lw=1, label="CPU time (s)"
    )
    d.plot(minutes, [row["peak_mb"] / 100 for row in spans], "s--", color="#000000", lw=1, label="peak memory (100 MB)")
    d.set(title="1,000 tx/s, 7 voters", xlabel="simulated time (minutes)", ylabel="CPU time (s), memory (100 MB)")
    for axes, ticks in (
        (a, (4, 16, 64, 256, 1000, 10_000)), (b, (4, 16, 64, 256, 1000, 10_000)), (c, RATES_TPS), (d, DURATIONS_MIN),
    ):  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], minor=False)
        axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axes.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda y, _: f"{y:,g}"))
        axes.grid(True, which="major", color="#dddddd", lw=0.6)
        axes.legend(frameon=False, fontsize=8)
        axes.title.set_fontsize(11)
        axes.title.set_ha("center")
    b.set_ylim(100, 2000)
    b.set_yticks([100, 200, 500, 1000, 2000])
    b.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    machine_ = found["machine"]
    figure.supxlabel(
        f"{machine_['cpu']}, {machine_['cores']} cores, shared; CPU time without the start of {start_s:.1f} s. "
        f"Made by: {found['command']}",
        fontsize=7, color="#555555",
    )  # fmt: skip
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/published"), metavar="DIR")
    parser.add_argument("--quick", action="store_true", help="leave out the largest points")
    parser.add_argument("--plot", action="store_true", help="fit and draw again from DIR/cost-model.json")
    options = parser.parse_args()
    if options.plot:
        found = json.loads((options.out / "cost-model.json").read_text(encoding="utf-8"))
        found["fit"] = fit(found["rows"])
    else:
        found = run_all(options.quick)
    write(found, options.out)
    print(f"wrote {options.out}/cost-model.csv, .json, .png")


if __name__ == "__main__":
    main()
