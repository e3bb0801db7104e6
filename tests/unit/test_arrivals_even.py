"""Evenly spaced arrivals: so many a second, exactly, over all sites in turn."""

from __future__ import annotations

import numpy as np
import pytest

from sim.ledger import rows as ledger
from sim.scenario.errors import ScenarioError
from sim.scenario.run import run
from tests.runs import S, begin, scenario

EVEN = {"kind": "open", "rate": "100 tx/s", "bytes": "100 B", "arrivals": "uniform"}


@pytest.mark.parametrize("sites", ["all", ["0"], ["1", "3"]])
def test_so_many_arrive_and_at_equal_distances(sites: object) -> None:
    run_ = begin(
        scenario(4, duration="10 s", workload=[EVEN | {"sites": sites}], **{"network.latency.one_way": "1 ms"})
    )
    run_.until(3 * S)
    submitted = np.sort(run_.world.run.engine.run_state[ledger.TX].reshape(-1, ledger.TX_WIDTH)[:, ledger.TX_SUBMIT])
    last = submitted[submitted > 2 * S]  # rows of those that were answered serve others now
    assert len(last) and set(last % 10_000_000) == {5_000_000}
    result = run(scenario(4, duration="10 s", workload=[EVEN | {"sites": sites}]))
    assert result.metrics["submitted"] == 1000


def test_long_runs_and_odd_rates_keep_count() -> None:
    """A window of times ends where the next begins."""
    odd = EVEN | {"rate": "333.3 tx/s"}
    result = run(scenario(4, duration="2 min", workload=[odd], block={"max_transactions": 100}))
    assert result.metrics["submitted"] == pytest.approx(333.3 * 120, abs=1)
    slow = run(scenario(4, duration="1 h", workload=[EVEN | {"rate": "0.01 tx/s"}]))
    assert slow.metrics["submitted"] == 36


def test_even_arrivals_have_no_shape_over_the_day() -> None:
    with pytest.raises(ScenarioError, match="goes with arrivals at random"):
        scenario(4, workload=[EVEN | {"shape": "office-hours"}])
