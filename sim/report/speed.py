"""The benchmark as a table and a plot: results/published/bench.*."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

# Fault-free PBFT decisions per wall second of other simulators on two cores of an Intel Xeon, n -> figure, as
# measured for this project's design (release versions, their own fidelity: no NIC or CPU queues in the first two).
PEERS: dict[str, dict[int, float]] = {
    "Wittgenstein (Java), minimal PBFT": {4: 178_600, 16: 12_600, 32: 3_475, 64: 974, 128: 231, 256: 51},
    "BFT-Simulator (DSN'22)": {4: 6_807, 16: 304, 32: 54, 64: 7.7, 128: 0.63, 256: 0.027},
    "JABS": {4: 3_094, 16: 1_076, 32: 334, 64: 94, 128: 19, 256: 4.2},
    "QUANTAS (C++)": {4: 812, 16: 117, 32: 24, 64: 5.3, 128: 1.9},
}
COMMAND = "pilotzone bench --out results/published"


def publish(found: dict[str, Any], out: Path) -> list[Path]:
    """Write bench.json, bench.csv, bench.md and bench.png to a folder; returns their paths."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"bench.{kind}" for kind in ("json", "csv", "md", "png")]
    paths[0].write_text(json.dumps(found, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    with open(paths[1], "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(found["rows"][0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found["rows"])
    paths[2].write_text(_markdown(found), encoding="utf-8")
    _plot(found, paths[3])
    return paths


def _markdown(found: dict[str, Any]) -> str:
    machine = found["machine"]
    lines = [
        f"Measured on {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, "
        f"Numba {machine['numba']}, with `{COMMAND}`. Median of {found['rows'][0]['runs']} runs; "
        "timings move with the machine.",
        "",
        "| what | n | per wall second | least-greatest | million messages/s | checks, share of time |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in found["rows"]:
        lines.append(
            f"| {row['name']} ({row['unit']}) | {row['voters']:,} | {row['per_second']:,.0f} | "
            f"{row['low']:,.0f}-{row['high']:,.0f} | {row['messages_per_second'] / 1e6:.1f} | "
            f"{row['checks_percent']:.0f} % |"
        )
    lines.append("")
    for ratio in found["oracle"]:
        lines.append(
            f"PBFT n={ratio['voters']}: {ratio['ratio']:,.0f} times the naive SimPy engine of tests/oracle "
            f"({ratio['oracle_per_second']:,.2f} decisions/s) on the same work in the same run."
        )
    lines += ["", "| cards | sharing | ns per message | of fifo |", "|---|---|---:|---:|"]
    for row in found["sharing"]:
        lines.append(f"| {row['cards']} | {row['sharing']} | {row['ns_per_message']:.0f} | {row['ratio']:.2f} |")
    lines.append("")
    lines.append(f"Peak memory {found['peak_memory_mb']:,.0f} MB.")
    return "\n".join(lines) + "\n"


def _plot(found: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colours = {"PBFT, whole engine": "#0072B2", "PBFT, fidelity of peers": "#56B4E9"}
    figure, axes = plt.subplots(figsize=(7.2, 4.6), layout="constrained")
    for name, colour in colours.items():
        rows = [row for row in found["rows"] if row["name"] == name]
        axes.plot(
            [row["voters"] for row in rows], [row["per_second"] for row in rows], "o-", color=colour, lw=2,
            label=f"pilotzone, {name.split(', ')[1]}",
        )  # fmt: skip
    styles = (("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "v"), ("#E69F00", "D"))
    for (name, figures), (colour, marker) in zip(PEERS.items(), styles, strict=True):
        axes.plot(list(figures), list(figures.values()), marker + "--", color=colour, lw=1, ms=4, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = [4, 16, 32, 64, 128, 256, 1000]
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.set_xlabel("voters n")
    axes.set_ylabel("PBFT decisions per wall second")
    axes.grid(True, which="major", color="#dddddd", lw=0.6)
    axes.legend(frameon=False, fontsize=8)
    axes.set_title("Fault-free PBFT, message by message", loc="left", fontsize=11)
    machine = found["machine"]
    figure.text(
        0.005, -0.03, f"{machine['cpu']}, {machine['cores']} cores; {COMMAND}. Other simulators: measured earlier on "
        "two cores of an Intel Xeon, see sim/report/speed.py.", fontsize=6, color="#555555",
    )  # fmt: skip
    figure.savefig(path, dpi=150, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
