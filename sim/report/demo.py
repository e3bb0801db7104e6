"""The main job: three designs of the seven-city network, with and without the storm, and one cured design."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from matplotlib.figure import Figure

import sim
from sim.plan.contingency import halting
from sim.report import figures, island_map, tables, verdicts
from sim.report.compare import Announce, Job, Progress, aggregate
from sim.report.outcome import Outcome
from sim.report.words import listed
from sim.scenario.errors import ScenarioError
from sim.scenario.load import load_scenario

STUDY = "pilot-zone-demo"
COMMAND = "pilotzone demo"
FOLDER = Path("scenarios") / "pilot-zone"


@dataclasses.dataclass(frozen=True)
class Design:
    """One row of the question: a design with its scenario in calm weather, if any, and in the storm."""

    label: str
    calm: str | None
    storm: str


DESIGNS = (
    Design("PBFT", "island-7-pbft", "island-7-pbft-storm"),
    Design("Raft", "island-7-raft", "island-7-raft-storm"),
    Design("HotStuff", "island-7-hotstuff", "island-7-hotstuff-storm"),
    Design("PBFT cured", None, "island-7-cured-pbft-storm"),
)
FAULT_MODEL_NOTE = (
    "Raft tolerates crashed voters only, PBFT and HotStuff also lying ones: surviving the storm with four of "
    "seven voters is what that weaker promise buys."
)
LEADER_NOTE = (
    "{label}: no change of leader in the storm, so the leader stood outside the lost domain. With another "
    "seed it may stand inside, and an election comes first."
)


def scenario_folder() -> Path:
    """The demo's scenarios in the checkout that the code runs from, or in the current directory.

    Raises ScenarioError if they are in neither.
    """
    checkout = Path(sim.__file__).resolve().parent.parent
    for root in (checkout, Path.cwd()):
        if all((root / FOLDER / f"{name}.yaml").is_file() for name in names()):
            return root / FOLDER
    raise ScenarioError(
        f"{FOLDER}: the demo's scenario files are neither in {checkout} nor in {Path.cwd()}; "
        "run `pilotzone demo` in a checkout of the repository"
    )


def names() -> list[str]:
    """The demo's scenarios: calm ones first."""
    calm = [design.calm for design in DESIGNS if design.calm is not None]
    return calm + [design.storm for design in DESIGNS]


def notes(outcomes: Sequence[Outcome]) -> list[str]:
    """What the demo says besides what every comparison does."""
    kept = [o for o in outcomes if o.outages_s and o.metrics["view_changes"] == 0]
    return [FAULT_MODEL_NOTE, *(LEADER_NOTE.format(label=outcome.label) for outcome in kept)]


def by_arithmetic(folder: Path) -> list[str]:
    """Which domains halt which designs when they are lost, in a sentence: by quorums, not by runs."""
    found: dict[str, list[str]] = {}
    for design in DESIGNS:
        for element in halting(load_scenario(folder / f"{design.storm}.yaml")):
            found.setdefault(f"domain {element.name}", []).append(design.label)
    if not found:
        return []
    said = [f"{domain} halts {listed(labels)}" for domain, labels in found.items()]
    return [f"By the arithmetic of quorums, not run here: losing {listed(said)}."]


def demo(
    out: Path, *, workers: int = 2, progress: Progress | None = None, announce: Announce = nullcontext
) -> tuple[list[Outcome], list[Path]]:
    """Run what is not stored, write table, figures and map. Returns the outcomes and the files."""
    folder = scenario_folder()
    jobs = [Job(folder / f"{name}.yaml", label=name) for name in names()]
    outcomes = aggregate(jobs, out, study=STUDY, workers=workers, progress=progress, announce=announce)
    return outcomes, write(outcomes, out / STUDY)


def write(outcomes: Sequence[Outcome], folder: Path) -> list[Path]:
    """Table and figures of the demo's outcomes."""
    folder.mkdir(parents=True, exist_ok=True)
    by_name = {outcome.label: outcome for outcome in outcomes}
    table, page = folder / "table.csv", folder / "table.md"
    table.write_text(tables.as_csv(outcomes), encoding="utf-8")
    page.write_text(
        "# Three designs of the seven-city network, calm and in the storm\n\n"
        + "".join(f"- {line}\n" for line in [*verdicts.answer(outcomes), *by_arithmetic(scenario_folder())])
        + "\n"
        + tables.markdown(outcomes, COMMAND)
        + "".join(f"- {note}\n" for note in notes(outcomes)),
        encoding="utf-8",
    )
    files = [table, page]
    files += figures.save(latency(by_name), folder, "latency_cdf")
    files += figures.save(timeline(by_name), folder, "throughput")
    pbft, cured = DESIGNS[0], DESIGNS[3]
    assert pbft.calm is not None
    plan = island_map.plan_of(by_name[pbft.calm], storm=by_name[pbft.storm], cured=by_name[cured.storm])
    shown = [by_name[pbft.storm], by_name[cured.storm]]
    files += figures.save(island_map.island_map(plan, shown, COMMAND), folder, "island_map")
    return files


def _line(by_name: dict[str, Outcome], design: Design, name: str) -> figures.Line:
    at = DESIGNS.index(design)
    return figures.Line(by_name[name], design.label, figures.COLOURS[at], figures.DASHES[at])


def latency(by_name: dict[str, Outcome]) -> Figure:
    """Latency distributions: calm above, storm below, on one axis."""
    with figures.style():
        figure = figures.sheet(8.2, 6.4)
        above = figure.add_subplot(2, 1, 1)
        below = figure.add_subplot(2, 1, 2, sharex=above)
        figures.draw_cdf(above, [_line(by_name, d, d.calm) for d in DESIGNS if d.calm is not None])
        figures.draw_cdf(below, [_line(by_name, d, d.storm) for d in DESIGNS])
        above.set_title("Latency at the client, calm")
        below.set_title("The same with the northern domain lost for 148 s: 74 h, scaled (A)")
        above.legend(loc="lower right")
        below.legend(loc="center right")
        above.tick_params(labelbottom=False)
        below.set_xlabel("submit to answer [ms, log scale]; round trips estimated from distance (A)")
        figures.footer(figure, list(by_name.values()), COMMAND)
        return figure


def timeline(by_name: dict[str, Outcome]) -> Figure:
    """Committed throughput, one strip per design, on one scale."""
    with figures.style():
        figure = figures.sheet(8.6, 6.6)
        lines = [_line(by_name, design, design.storm) for design in DESIGNS]
        top = max(figures.usual_height(figures.throughput(line.outcome)[1]) for line in lines)
        strips = figure.subplots(len(lines), 1, sharex=True, sharey=True)
        for axes, line, design in zip(strips, lines, DESIGNS, strict=True):
            calm = None if design.calm is None else by_name[design.calm]
            figures.draw_throughput(axes, line, calm=calm, top=top)
            pause = line.outcome.metrics["longest_pause_s"] or 0
            long = f" ({pause / 3600:,.1f} h)" if pause >= 3600 else ""
            figures.name_strip(axes, line, f": longest pause {pause:,.2f} s{long}")
            axes.set_ylabel("tx/s (A)")
        title = "Committed transactions; shaded: northern voters and clients lost; grey: without the storm"
        figures.heading(figure, title)
        strips[-1].set_xlabel("simulated time [s]; 1 h of outage is 2 s here (A)")
        figures.footer(figure, list(by_name.values()), COMMAND)
        return figure
