"""The pilot zone's uses: facts for each class, totals as published, scenarios that run, and demand that changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.network.residency import DataLabel
from sim.network.sites import sites
from sim.report import classes, uses
from sim.scenario.errors import ScenarioError
from sim.scenario.load import load_scenario
from sim.scenario.run import Result, run
from sim.units import NS_PER_H, NS_PER_S
from sim.workload.demand import TIER_TPS, Use, rows, spaces
from sim.workload.demand import classes as demand_classes
from sim.workload.events import Change, changed_pace
from sim.workload.shapes import SHAPES, multiplier_permille
from tests.runs import scenario

FOLDER = Path(__file__).parents[2] / "scenarios" / "uses"
ALONE = [use.replace("_", "-") for use in get_args(Use)]


# --- facts -----------------------------------------------------------------------------------------------


def test_totals_are_those_of_the_table() -> None:
    totals = uses.totals()
    documented, anchored = totals["documented uses"], totals["with a hash per data-sharing call"]
    assert (documented["average_tps"], documented["peak_tps"]) == pytest.approx((19.5, 191.3), abs=0.1)
    assert (anchored["average_tps"], anchored["peak_tps"]) == pytest.approx((77.5, 580.3), abs=0.1)
    assert 0 < documented["assumed_average_tps"] < 2


def test_every_class_has_facts_that_make_sense() -> None:
    names = [row.name for row in rows()]
    assert len(names) == len({*names})
    for row in rows():
        assert row.use in get_args(Use)
        assert row.data_label in get_args(DataLabel)
        assert row.shape in SHAPES
        assert row.tag in ("A", "D")
        assert {*row.sites} <= {*sites()}
        assert row.accesses and {access.space for access in row.accesses} <= {*spaces()}
        assert row.organisations and row.deadline_ns > 0
        if row.follows is not None:
            led = next(one for one in rows() if one.name == row.follows)
            assert names.index(row.follows) < names.index(row.name)
            assert led.sites == row.sites
            assert led.use == row.use  # so that a scenario of one use has it
            assert {a.space for a in led.accesses} & {a.space for a in row.accesses}
    assert {row.use for row in rows()} == {*get_args(Use)}


@pytest.mark.parametrize("tier", TIER_TPS)
@pytest.mark.parametrize("level", ["average", "peak"])
def test_rates_of_a_tier_sum_to_its_total_and_uses_share_it(tier: str, level: str) -> None:
    goal = TIER_TPS[tier][level == "peak"]
    assert sum(one.rate_tps for one in demand_classes(tier, level)) == pytest.approx(goal)
    known = {one.row.use for one in demand_classes(tier, level)}
    parts = [sum(one.rate_tps for one in demand_classes(tier, level, uses=(use,))) for use in sorted(known)]
    assert sum(parts) == pytest.approx(goal)
    beyond = demand_classes(tier, level, beyond=True)
    assert {one.row.use for one in beyond} == {*get_args(Use)}
    assert sum(one.rate_tps for one in beyond if not one.row.beyond) == pytest.approx(goal)


def test_containers_are_most_of_t4() -> None:
    most = max(demand_classes("T4", "average"), key=lambda one: one.rate_tps)
    assert most.row.name == "container_event" and most.rate_tps > 9_000


def test_the_command_lists_every_class_within_80_columns() -> None:
    result = CliRunner().invoke(app, ["uses"])
    assert result.exit_code == 0
    assert all(row.name in result.output for row in rows())
    assert max(map(len, result.output.splitlines())) <= 80
    data = json.loads(CliRunner().invoke(app, ["uses", "--json"]).output)
    assert len(data["rows"]) == len(rows())


# --- scenarios -------------------------------------------------------------------------------------------


def play(name: str, *overrides: str) -> Result:
    return run(load_scenario(FOLDER / f"{name}.yaml", list(overrides)))


@pytest.mark.parametrize("name", ALONE)
def test_each_use_runs_alone_and_reports_its_classes(name: str) -> None:
    result = play(name, "duration=60 s", "warm_up=0 s")
    assert result.status == "ok"
    table = result.tables["classes"]
    use = name.replace("-", "_")
    own = [i for i, of in enumerate(table["use"]) if of == use]
    known = [row.name for row in rows() if row.use == use]
    assert [table["name"][i] for i in own] == known
    assert sum(table["submitted"][i] for i in own) > 0
    for i in own:
        assert table["deadline_missed"][i] is not None
        if table["succeeded"][i]:
            assert 0 < table["latency_p50_ms"][i] <= table["latency_p99_ms"][i] < 10_000
    lines = list(classes.lines(table))
    assert max(map(len, lines)) <= 80
    assert len(lines) == 1 + sum(1 for n in table["submitted"] if n)


def test_all_uses_run_together_and_their_rates_are_those_of_the_tier() -> None:
    result = play("all", "duration=5 min", "workload=[{kind: demand, tier: T2, beyond: true, sites: own}]")
    assert result.status == "ok"
    table = result.tables["classes"]
    assert len(table["name"]) == len(rows())
    of_tier = sum(n for n, row in zip(table["submitted"], rows(), strict=True) if not row.beyond)
    assert of_tier / 300 == pytest.approx(80, rel=0.03)
    assert result.checks["freeze"] == "pass"


def test_no_second_pledge_succeeds() -> None:
    table = play("double-pledge", "duration=60 s").tables["classes"]
    done = dict(zip(table["name"], table["succeeded"], strict=True))
    assert done["pledge"] > 1000
    assert done["second-pledge"] <= 3  # those that came before their first


@pytest.mark.parametrize("name", ["demand-storm", "flash-crowd", "stress", "day-13"])
def test_the_long_ones_start(name: str) -> None:
    assert play(name, "duration=20 s", "warm_up=0 s", "workload.0.events=[]").status == "ok"


def test_orders_are_enforced_at_every_voter_and_at_the_regulator() -> None:
    result = play("supervision", "duration=10 min")
    orders = result.tables["orders"]
    assert len(orders["nodes"]) > 3
    assert {*orders["nodes"][:-1]} == {8}  # seven voters and the regulator; the last may be under way
    assert all(0 < first <= last < 1000 for first, last in zip(orders["first_ms"], orders["last_ms"], strict=True))


# --- shapes and events -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("start_hour", [0.0, 9.0, 19.9])
def test_a_pace_without_changes_is_the_shape(shape: str, start_hour: float) -> None:
    pace = changed_pace(8.0, shape, start_hour, 24 * NS_PER_H, [])
    assert pace.due(24 * NS_PER_H) == pytest.approx(8 * 86_400)
    for at_ns in range(0, 24 * NS_PER_H, 7 * NS_PER_H // 4):
        rate = pace.due(at_ns + NS_PER_S) - pace.due(at_ns)
        assert rate == pytest.approx(8 * multiplier_permille(shape, at_ns, start_hour) / 1000, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("shape", ["constant", "holiday", "night-batch"])
def test_a_storm_takes_away_and_gives_back(shape: str) -> None:
    storm = Change(3 * NS_PER_H, 6 * NS_PER_H, 0.25, returns=0.8, backlog_ns=10 * NS_PER_H)
    plain = changed_pace(5.0, shape, 7.0, 24 * NS_PER_H, [])
    changed = changed_pace(5.0, shape, 7.0, 24 * NS_PER_H, [storm])
    own = plain.due(9 * NS_PER_H) - plain.due(3 * NS_PER_H)
    during = changed.due(9 * NS_PER_H) - changed.due(3 * NS_PER_H)
    assert changed.due(3 * NS_PER_H) == pytest.approx(plain.due(3 * NS_PER_H))
    assert during == pytest.approx(0.25 * own, abs=1e-6)
    after = changed.due(19 * NS_PER_H) - changed.due(9 * NS_PER_H)
    assert after == pytest.approx(plain.due(19 * NS_PER_H) - plain.due(9 * NS_PER_H) + 0.8 * 0.75 * own)
    rest = changed.due(24 * NS_PER_H) - changed.due(19 * NS_PER_H)
    assert rest == pytest.approx(plain.due(24 * NS_PER_H) - plain.due(19 * NS_PER_H))


def test_a_crowd_comes_to_the_uses_it_is_about() -> None:
    def counts(events: list[dict[str, Any]]) -> dict[str, int]:
        load = {"kind": "demand", "tier": "T2", "events": events}
        network = {"sites": ["HAK", "SYX", "YPG", "QHI"], "latency": {"model": "distance", "quality": "mid"}}
        result = run(scenario(None, network=network, workload=[load], duration="100 s"))
        return dict(zip(result.tables["classes"]["name"], result.tables["classes"]["submitted"], strict=True))

    crowd = {"kind": "flash_crowd", "at": "20 s", "for": "40 s", "times": 11, "uses": ["people"]}
    plain, crowded = counts([]), counts([crowd])
    for name in ("airport_passenger", "strait_ferry"):  # 60 s of 100 as before, 40 s elevenfold: five times as many
        assert crowded[name] == pytest.approx(5 * plain[name], abs=6 * np.sqrt(5 * plain[name]))
    assert crowded["medical_settlement"] == pytest.approx(plain["medical_settlement"], rel=0.15)


def test_a_storm_may_leave_nothing() -> None:
    storm = {"kind": "storm", "at": "0 s", "for": "10 s", "times": 0, "returns": 0}
    result = run(scenario(workload=[{"kind": "demand", "events": [storm]}], duration="10 s"))
    assert result.status == "ok"
    assert result.metrics["submitted"] == 0


@pytest.mark.parametrize(
    ("load", "message"),
    [
        ({"uses": ["cross_border"]}, "write beyond: true"),
        ({"uses": ["tourism"]}, "tourism"),
        ({"events": [{"kind": "storm", "at": "1 s", "for": "1 s", "times": 3}]}, "below 1"),
        ({"events": [{"kind": "flash_crowd", "at": "1 s", "for": "1 s", "times": 0.5}]}, "above 1"),
        ({"events": [{"kind": "storm", "at": "1 h", "for": "1 s", "times": 0.1}]}, "earlier than the end of the run"),
        ({"sites": "own"}, "clients must be at a voter's place"),
    ],
)
def test_demand_that_makes_no_sense_is_refused(load: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        scenario(workload=[{"kind": "demand", **load}])
