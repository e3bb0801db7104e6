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
PBFT_IN_CACHE = 512  # above, the messages in flight outgrow the processor's cache, and each costs more
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
        found.append(("hour", "hour-13.yaml", []))  # the longest: 36 million transactions
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
        top = PBFT_IN_CACHE if name == "pbft" else max(HOTSTUFF_VOTERS)
        chosen = [row for row in rows if row["series"] == name and row["voters"] <= top]
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
    terms = [[row["transactions"] / 1e9, row["decisions"] / 1e6] for row in chosen]
    per_tx, per_block = solve(chosen, terms, [work(row) for row in chosen])
    found["ns_per_transaction"] = per_tx
    found["us_per_block_13"] = per_block
    longest = max((row for row in rows if row["series"] == "duration"), key=lambda row: float(row["simulated_s"]))
    found["us_per_block_7"] = (work(longest) - longest["transactions"] * per_tx / 1e9) / longest["decisions"] * 1e6
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
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    def logarithmic(axis: Any, subs: tuple[int, ...]) -> None:
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,g}"))

    rows, fitted, start_s = found["rows"], found["fit"], found["start_cpu_s"]
    by = {name: [row for row in rows if row["series"] == name] for name in COLOURS}
    figure, ((a, b), (c, d)) = plt.subplots(2, 2, figsize=(9.8, 7.4), layout="constrained")
    for name, label in (("pbft", "PBFT"), ("hotstuff", "chained HotStuff")):
        n = [row["voters"] for row in by[name]]
        marker, colour = "o" if name == "pbft" else "s", COLOURS[name]
        per_ms = [max(row["cpu_s"] - start_s, 1e-3) / row["decisions"] * 1e3 for row in by[name]]
        model = [
            fitted[f"{name}_us_per_decision"] / 1e3
            + fitted[f"{name}_ns_per_message"] * row["messages"] / row["decisions"] / 1e6
            for row in by[name]
        ]
        a.plot(n, per_ms, marker, color=colour, label=f"{label}, measured")
        a.plot(n, model, "-", color=colour, lw=1, label=f"{label}, model")
        b.plot(n, [row["peak_mb"] for row in by[name]], marker, color=colour, label=f"{label}, measured")
        power, unit = (2, "pair") if name == "pbft" else (1, "voter")
        slope = fitted[f"{name}_bytes_per_{unit}"]
        b.plot(
            n, [fitted[f"{name}_base_mb"] + slope * v**power / 1e6 for v in n], "-", color=colour, lw=1,
            label=f"{label}, model",
        )  # fmt: skip
    a.set(title="Time against voters", xlabel="voters n", ylabel="CPU time per decision (ms)")
    b.set(title="Memory against voters", xlabel="voters n", ylabel="peak resident memory (MB)", ylim=(100, 2000))
    panels = (
        (c, "rate", [row["rate_tps"] for row in by["rate"]], "us_per_block_13"),
        (d, "duration", [row["simulated_s"] / 60 for row in by["duration"]], "us_per_block_7"),
    )
    for axes, name, x, per_block in panels:
        model = [
            fitted[per_block] * row["decisions"] / 1e6 + fitted["ns_per_transaction"] * row["transactions"] / 1e9
            for row in by[name]
        ]
        seconds = [max(row["cpu_s"] - start_s, 1e-3) for row in by[name]]
        axes.plot(x, seconds, "o", color=COLOURS[name], label="CPU time, measured")
        axes.plot(x, model, "-", color=COLOURS[name], lw=1, label="CPU time, model")
        axes.plot([], [], "s--", color="#000000", lw=1, label="memory (right)")
        axes.set(ylabel="CPU time (s)", ylim=(0.05, 20))
        right = axes.twinx()
        right.plot(x, [row["peak_mb"] for row in by[name]], "s--", color="#000000", lw=1)
        right.set(ylabel="peak resident memory (MB)", yscale="log", ylim=(10, 2000))
        logarithmic(right.yaxis, (1,))
    c.set(title="Time and memory against rate: 13 voters, 5 minutes", xlabel="offered rate (tx/s)")
    d.set(title="Time and memory against duration: 7 voters, 1,000 tx/s", xlabel="simulated time (minutes)")
    voters = (4, 16, 64, 256, 1000, 10_000)
    for axes, ticks in ((a, voters), (b, voters), (c, RATES_TPS), (d, DURATIONS_MIN)):
        axes.set_xscale("log")
        axes.set_yscale("log")
        logarithmic(axes.yaxis, (1, 2, 5) if axes is b else (1,))
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(True, which="major", color="#dddddd", lw=0.6)
        axes.legend(frameon=False, fontsize=8, loc="upper left")
        axes.title.set_fontsize(10.5)
    machine_ = found["machine"]
    figure.supxlabel(
        f"{machine_['cpu']}, {machine_['cores']} cores, shared with other work; CPU time without the start of "
        f"{start_s:.1f} s. {found['command']}",
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
