"""Designs that no other beats in cost, latency and downtime at once.

For each protocol and number of voters the best placement is found (`sim.plan.placement`); its cost a year follows
from a table that a planner edits, its p99 from the simulated run, and its downtime from the storm model. A design is
*beaten* if another is no worse in all three and better in one. What is left is the frontier: to gain in one, give in
another.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from sim.network.settings import Network
from sim.network.sites import read_rows, sites
from sim.plan.contingency import needs_of
from sim.plan.downtime import ISLAND, Downtime, downtime
from sim.plan.placement import NEAR, NoPlacementError, Placement, placement
from sim.protocols import PROTOCOLS
from sim.report.compare import Announce, Progress
from sim.scenario.errors import ScenarioError
from sim.scenario.load import load_scenario
from sim.scenario.schema import Scenario

COSTS = Path(__file__).parent / "data" / "costs_per_year.csv"
ITEMS = ("voter", "line_100_mbit", "line_mainland", "hsm")
DESIGNS_MAX = 60
_PS_PER_BYTE_AT_100_MBIT = 80_000


@dataclasses.dataclass(frozen=True)
class Design:
    """A protocol on so many voters, at their best places. `beaten_by`: the cheapest design that beats it, or ""."""

    protocol: str
    best: Placement
    cost: float
    downtime: Downtime
    beaten_by: str = ""

    @property
    def name(self) -> str:
        """Protocol and number of voters."""
        return f"{self.protocol}-{len(self.best.places)}"

    @property
    def down_min(self) -> float:
        """Expected minutes a year without a quorum."""
        return self.downtime.total_min_per_year.estimate


@dataclasses.dataclass(frozen=True)
class Frontier:
    """All designs, cheapest first, and those that have no placement, with the reason."""

    scenario: Scenario
    designs: tuple[Design, ...]
    without: tuple[str, ...]
    unit: str

    @property
    def kept(self) -> tuple[Design, ...]:
        """Those that nobody beats."""
        return tuple(design for design in self.designs if not design.beaten_by)

    def answer(self) -> list[str]:
        """In words."""
        kept = self.kept
        cheapest = min(kept, key=lambda one: one.cost)
        quickest = min(kept, key=lambda one: one.best.p99_ms)
        surest = min(kept, key=lambda one: one.down_min)
        names = ", ".join(one.name for one in kept)
        lines = [
            f"{len(kept)} of {len(self.designs)} designs are beaten by none in cost, p99 and "
            f"downtime together: {names}.",
            f"Cheapest: {cheapest.name}, {cheapest.cost:,.0f} {self.unit} (A).",
            f"Least p99: {quickest.name}, {quickest.best.p99_ms:,.1f} ms (A).",
            f"Least downtime: {surest.name}, {surest.down_min:,.0f} minutes a year (A).",
        ]
        return [*lines, *(f"{text}." for text in self.without)]


def costs(path: Path = COSTS) -> tuple[dict[str, float], str]:
    """The items of a cost table and their unit. Raises ScenarioError with file, row, rule and remedy."""
    try:
        rows = read_rows(path)
    except (OSError, csv.Error, ValueError) as error:
        raise ScenarioError(f"{path}: cannot be read ({error}); copy {COSTS.name} and edit it") from None
    found: dict[str, float] = {}
    unit = ""
    for number, row in enumerate(rows, start=1):
        item, text = (row.get("item") or "").strip(), (row.get("cost") or "").strip()
        if item not in ITEMS:
            raise ScenarioError(f"{path}: row {number}: item {item!r} is unknown; it knows {', '.join(ITEMS)}")
        if item in found:
            raise ScenarioError(f"{path}: row {number}: item {item} stands twice; keep one")
        try:
            found[item] = float(text)
        except ValueError:
            raise ScenarioError(f"{path}: row {number}: cost {text!r} is no number; write for example 90000") from None
        if not 0 <= found[item] < 1e15:
            raise ScenarioError(f"{path}: row {number}: cost {text} must be a number from 0 on; correct it")
        unit = unit or " ".join((row.get("unit") or "").split()[:3])
    missing = [item for item in ITEMS if item not in found]
    if missing:
        raise ScenarioError(f"{path}: lacks {', '.join(missing)}; add the rows, 0 where nothing is paid")
    return found, unit or "a year"


def cost_of(network: Network, prices: Mapping[str, float], *, signs: bool) -> float:
    """What voters, lines and modules of a network cost a year."""
    table = sites()
    off = sum(place in table and table[place].domain not in ISLAND for place in network.place_of_node)
    card_ps = network.bandwidth_ps_per_byte
    lines = _PS_PER_BYTE_AT_100_MBIT / card_ps if card_ps else 1.0  # a card without a limit: one line
    each = prices["voter"] + prices["line_100_mbit"] * lines + prices["hsm"] * signs
    return network.n * each + off * prices["line_mainland"]


def frontier(
    path: str | Path,
    *,
    protocols: Sequence[str],
    voters: Sequence[int],
    costs_file: Path = COSTS,
    candidates: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    out: str | Path = "results",
    workers: int = 2,
    progress: Progress | None = None,
    announce: Announce = nullcontext,
) -> Frontier:
    """Place and price every protocol on every number of voters. Raises ScenarioError."""
    prices, unit = costs(costs_file)
    unknown = [name for name in protocols if name not in PROTOCOLS]
    if unknown or not protocols:
        raise ScenarioError(f"{path}: protocol {', '.join(unknown) or 'none'}: choose from {', '.join(PROTOCOLS)}")
    if not voters or len(protocols) * len(voters) > DESIGNS_MAX:
        asked = f"{len(protocols)} protocols on {len(voters)} numbers of voters"
        raise ScenarioError(f"{path}: {asked}: must be 1 to {DESIGNS_MAX} designs; name fewer")
    base = load_scenario(Path(path), list(overrides), seed)
    found: list[Design] = []
    without: list[str] = []
    for name in protocols:
        for n in voters:
            words = (*overrides, f"protocol.name={name}")
            try:
                placed = placement(
                    path, n, candidates=candidates, finalists=2, overrides=words, seed=seed, out=out, workers=workers,
                    progress=progress, announce=announce,
                )  # fmt: skip
            except NoPlacementError:
                without.append(f"{name} on {n} voters is halted by some domain wherever they stand")
                continue
            best = placed.best
            sized = load_scenario(Path(path), [*words, "faults=[]", f"network.sites=[{', '.join(best.places)}]"], seed)
            down = downtime(sized.network, needs_of(sized), sized.seed)
            assert down is not None  # voters stand at sites
            signs = sized.cpu.crypto != "none"
            found.append(Design(name, best, cost_of(sized.network, prices, signs=signs), down))
    if not found:
        raise ScenarioError(f"{path}: no design has a placement that no domain halts; take other numbers of voters")
    found.sort(key=lambda one: (one.cost, one.best.p99_ms))
    return Frontier(base, tuple(_judged(one, found) for one in found), tuple(without), unit)


def _down_longer(a: Downtime, b: Downtime) -> int:
    """1 if the first is down longer than storms drawn at random explain, -1 if the second is, else 0."""
    if a.cable_min_per_year != b.cable_min_per_year:
        return 1 if a.total_min_per_year.estimate > b.total_min_per_year.estimate else -1
    if a.per_storm_h.low > b.per_storm_h.high:
        return 1
    return -1 if b.per_storm_h.low > a.per_storm_h.high else 0


def _judged(design: Design, among: Sequence[Design]) -> Design:
    """With the cheapest design that beats it; what runs or storms do not tell apart is alike."""
    for other in among:
        p99, mine = other.best.p99_ms, design.best.p99_ms
        longer = _down_longer(other.downtime, design.downtime)
        no_worse = other.cost <= design.cost and p99 <= NEAR * mine and longer <= 0
        better = other.cost < design.cost or p99 * NEAR < mine or longer < 0
        if other is not design and no_worse and better:
            return dataclasses.replace(design, beaten_by=other.name)
    return design
