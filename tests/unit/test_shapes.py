"""Demand: shapes keep their mean, classes keep their proportions."""

from __future__ import annotations

import pytest

from sim.units import NS_PER_H
from sim.workload.demand import TIER_TPS, classes, rows
from sim.workload.shapes import DAY_NS, SHAPES, multiplier_permille, multipliers_permille, peak_permille


@pytest.mark.parametrize("shape", SHAPES)
def test_a_day_has_mean_one_exactly(shape: str) -> None:
    multipliers = multipliers_permille(shape)
    assert len(multipliers) == 96
    assert sum(multipliers) == 96_000
    assert min(multipliers) >= 0


def test_office_hours_peak_twice_with_a_break_between() -> None:
    hours = [multiplier_permille("office-hours", h * NS_PER_H) for h in range(24)]
    assert hours[12] < hours[10] and hours[12] < hours[15]
    assert max(hours[20:] + hours[:7]) < 1000 < hours[10]


def test_the_night_batch_fills_four_hours() -> None:
    assert multipliers_permille("night-batch") == (6000,) * 16 + (0,) * 80
    assert peak_permille("night-batch") == 6000


def test_time_zero_is_the_start_hour_and_days_repeat() -> None:
    at_ten = multiplier_permille("office-hours", 10 * NS_PER_H)
    assert multiplier_permille("office-hours", 0, start_hour=10) == at_ten
    assert multiplier_permille("office-hours", DAY_NS, start_hour=10) == at_ten
    assert multiplier_permille("office-hours", 16 * NS_PER_H, start_hour=18) == at_ten


def test_published_rows_sum_to_the_documented_demand() -> None:
    # About 77 tx/s on average and 580 at coincident peaks, with one hash per data-sharing call; rows of the
    # regulator and of data trading, which the documented sum leaves out, add 1.2 and 11.5.
    assert sum(row.average_tps for row in rows() if not row.beyond) == pytest.approx(77.5 + 1.23, abs=0.5)
    assert sum(row.peak_tps for row in rows() if not row.beyond) == pytest.approx(580 + 11.5, abs=1)


@pytest.mark.parametrize("tier", TIER_TPS)
@pytest.mark.parametrize("level", ["average", "peak"])
def test_classes_sum_to_the_tier(tier: str, level: str) -> None:
    total = TIER_TPS[tier][level == "peak"]
    assert sum(one.rate_tps for one in classes(tier, level)) == pytest.approx(total, rel=1e-12)


def test_classes_keep_proportions_sizes_and_tags() -> None:
    by_name = {one.row.name: one for one in classes("T2", "average")}
    assert by_name["medical_settlement"].rate_tps / by_name["fiscal_e_receipt"].rate_tps == pytest.approx(6.7 / 4.9)
    assert by_name["customs_declaration"].row.size_bytes == 2000
    assert by_name["sharing_anchor"].row.tag == "A"
    assert by_name["medical_settlement"].row.data_label == "personal"
    assert all(one.row.shape in SHAPES for one in by_name.values())
    assert "sharing_anchor" not in {one.row.name for one in classes("T1", "average")}


def test_unknown_names_are_refused() -> None:
    with pytest.raises(KeyError):
        multipliers_permille("weekend")
    with pytest.raises(KeyError):
        classes("T9", "average")
    with pytest.raises(ValueError, match="choose average or peak"):
        classes("T2", "median")
