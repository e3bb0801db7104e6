"""Saturation: committed against offered, on a service of known capacity."""

from __future__ import annotations

import numpy as np
import pytest

from sim.measure.statistics import SampleError, find_saturation
from tests.unit.test_statistics_models import Floats, stream

CAPACITY = 1000.0


def rates(number: int, loads: list[float], replications: int = 8, seconds: float = 100.0) -> tuple[list[Floats], ...]:
    """Offered Poisson, committed at most `CAPACITY` with 1 % noise between replications."""
    draws = stream(number)
    offered = [draws.poisson(load * seconds, replications) / seconds for load in loads]
    committed = [np.minimum(o, CAPACITY * draws.normal(1.0, 0.01, replications)) for o in offered]
    return offered, committed


def test_the_knee_is_bracketed() -> None:
    offered, committed = rates(90, [400.0, 1600.0, 800.0, 1200.0])
    found = find_saturation(offered, committed)
    assert [load.state for load in found.loads] == ["kept up", "kept up", "saturated", "saturated"]
    assert found.kept_up_tps == pytest.approx(800, rel=0.02) and found.saturated_tps == pytest.approx(1200, rel=0.02)
    assert found.peak_tps.contains(CAPACITY) and found.orderly
    assert found.verdict().startswith("saturates between ") and "95 % interval" in found.verdict()


def test_a_load_at_the_capacity_is_left_undecided() -> None:
    offered, committed = rates(91, [500.0, 1010.0, 2000.0], replications=3)
    assert [load.state for load in find_saturation(offered, committed).loads] == ["kept up", "undecided", "saturated"]


def test_tolerance_moves_the_line() -> None:
    offered = [np.array([100.0, 101.0, 99.0])]
    committed = [0.97 * offered[0]]
    assert find_saturation(offered, committed).loads[0].state == "saturated"
    assert find_saturation(offered, committed, tolerance=0.05).loads[0].state == "kept up"


def test_one_sided_findings_say_what_is_missing() -> None:
    offered, committed = rates(92, [200.0, 400.0])
    light = find_saturation(offered, committed)
    assert light.saturated_tps is None and light.verdict().startswith("not saturated up to ")
    assert light.kept_up_tps == pytest.approx(400, rel=0.02)
    offered, committed = rates(93, [3000.0, 2000.0])
    heavy = find_saturation(offered, committed)
    assert heavy.kept_up_tps is None and "no lower load was kept up with" in heavy.verdict()
    vague = find_saturation([[100.0, 100.0]], [[50.0, 110.0]])
    assert vague.verdict().startswith("undecided at every load")


def test_keeping_up_again_beyond_saturation_is_pointed_out() -> None:
    offered = [np.array([100.0, 101.0]), np.array([200.0, 201.0]), np.array([300.0, 301.0])]
    found = find_saturation(offered, [offered[0], 0.5 * offered[1], offered[2]])
    assert not found.orderly and found.kept_up_tps == pytest.approx(100.5)
    assert "look for another cause" in found.verdict()


def test_a_design_that_keeps_up_exactly_is_rarely_called_saturated() -> None:
    """The true share equals the line at every load, so each verdict is a false alarm; joint level 95 %, 5 loads.
    A run of 400 trials calls any load saturated in at most 2.5 % of trials: 99.95 % limit 22."""
    draws = stream(94)
    alarms = 0
    for _ in range(400):
        offered = [load * draws.normal(1.0, 0.05, 8) for load in (100.0, 200.0, 300.0, 400.0, 500.0)]
        committed = [0.99 * o + draws.normal(0.0, 2.0, 8) for o in offered]
        alarms += find_saturation(offered, committed).saturated_tps is not None
    assert 0 < alarms <= 22


def test_refusals() -> None:
    with pytest.raises(SampleError, match="0 offered and 0 committed"):
        find_saturation([], [])
    with pytest.raises(SampleError, match="1 offered and 0 committed"):
        find_saturation([[1.0, 2.0]], [])
    with pytest.raises(SampleError, match="load 0, offered: 1 values"):
        find_saturation([[1.0]], [[1.0]])
    with pytest.raises(SampleError, match="a load must be above zero"):
        find_saturation([[0.0, 1.0]], [[0.0, 1.0]])
    with pytest.raises(SampleError, match="write 1 % as"):
        find_saturation([[1.0, 2.0]], [[1.0, 2.0]], tolerance=1.0)
