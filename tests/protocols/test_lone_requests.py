"""One client, one request at a time: nothing else happens that could tell others of its decision."""

from __future__ import annotations

import pytest

from sim.protocols import PROTOCOLS
from sim.scenario.run import run
from tests.runs import scenario

FINAL = [name for name, entry in PROTOCOLS.items() if not entry.protocol.forks]
DELAY_MS = 10


@pytest.mark.parametrize("clients", [{"acknowledge": "quorum"}, {"results": "n - f"}], ids=["quorum", "results"])
@pytest.mark.parametrize("n", [4, 8])
@pytest.mark.parametrize("name", FINAL)
def test_enough_voters_answer_and_nobody_loses_patience(name: str, n: int, clients: dict[str, str]) -> None:
    """Followers of Kauri's tree learned of the last decision by a view change each time, 0.3 s later."""
    result = run(
        scenario(
            n, duration="8 s", warm_up="2 s", protocol={"name": name}, clients=clients,
            workload=[{"kind": "closed", "outstanding": 1, "bytes": "100 B"}],
            **{"network.latency": {"model": "fixed", "one_way": f"{DELAY_MS} ms"}},
        )
    )  # fmt: skip
    assert result.metrics["view_changes"] == 0
    slowest = 75 if name == "raft" else 0  # its followers learn of a commit with the next heartbeat
    assert result.metrics["latency_p99_ms"] <= 20 * DELAY_MS + slowest
    assert result.metrics["acknowledged"] >= 20
