"""Proposers that wait for their block interval: one timer each, however long the run and many the reasons to look."""

from __future__ import annotations

from typing import Any

import pytest

from sim.protocols import PROTOCOLS
from sim.scenario.run import run
from tests.runs import BACKLOG, scenario

LOADS: dict[str, list[dict[str, Any]]] = {
    "backlog": BACKLOG,
    "closed": [{"kind": "closed", "outstanding": 50, "bytes": "100 B"}],
}


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_waiting_for_the_interval_costs_a_bounded_number_of_events(protocol: str, load: str) -> None:
    """Kauri's root once set one more timer with each reason to look: 60 s of 20 ms took more than 3,000,000 events."""
    chosen = scenario(
        5, protocol=protocol, duration="60 s", workload=LOADS[load],
        **{"block.interval": "20 ms", "network.latency": {"model": "fixed", "one_way": "5 ms"}},
        limits={"max_events": 600_000},
    )  # fmt: skip
    result = run(chosen)
    assert result.status == "ok", result.warnings
    assert result.metrics["decisions"] > 0
