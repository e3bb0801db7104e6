"""The area between two latency distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sim.measure.resilience import sensitivity_s
from sim.scenario.run import run
from tests.runs import scenario


def table(*latencies_us: int) -> dict[str, list[int]]:
    """Each latency once."""
    return {"latency_us": sorted(latencies_us), "transactions": [1] * len(latencies_us)}


def test_a_shift_is_its_own_area() -> None:
    assert sensitivity_s(table(1_500_000, 2_500_000), table(1_000_000, 2_000_000)) == pytest.approx(0.5)


def test_the_same_distribution_has_no_area() -> None:
    assert sensitivity_s(table(10, 20, 30), table(10, 20, 30)) == 0


def test_the_end_of_liveness_is_infinite() -> None:
    assert sensitivity_s(table(1), table(1), live=False) == math.inf
    assert sensitivity_s(table(), table(1)) == math.inf


def test_a_slow_link_costs_what_it_adds() -> None:
    """All links 5 ms longer: every step of the way, so every latency is longer by half."""
    load = {"workload": [{"kind": "open", "rate": "50 tx/s", "bytes": "500 B"}], "duration": "20 s"}
    fast = run(scenario(**load))
    slow = run(scenario(**load, **{"network.latency": {"model": "fixed", "one_way": "15 ms"}}))
    area = sensitivity_s(slow.tables["latency_final"], fast.tables["latency_final"])
    means_us = []
    for one in (slow, fast):
        latency, weight = (np.asarray(one.tables["latency_final"][name]) for name in ("latency_us", "transactions"))
        means_us.append(float((latency * weight).sum() / weight.sum()))
    assert area == pytest.approx((means_us[0] - means_us[1]) / 1e6, rel=1e-6)
