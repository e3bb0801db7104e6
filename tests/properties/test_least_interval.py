"""`block: {interval}` is the least time between two proposals of one proposer, for all protocols and loads."""

from __future__ import annotations

import pytest

from sim.ledger import rows as ledger
from sim.protocols import PROTOCOLS
from tests.runs import S, play, scenario

OPEN = [{"kind": "open", "rate": "100 tx/s", "bytes": "1 kB"}]
BACKLOG = [{"kind": "backlog", "bytes": "1 kB"}]
BY_TURNS_OF_TIME = ("clique", "aura")  # their blocks have a period of their own


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("load", [OPEN, BACKLOG], ids=["open", "backlog"])
@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name not in BY_TURNS_OF_TIME])
def test_no_proposer_is_early_however_much_waits(protocol: str, load: list[dict[str, str]], fast_path: bool) -> None:
    """Ten transactions a block and a hundred a second: full blocks wait all the time."""
    changes = {
        "workload": load,
        "block": {"max_transactions": 10, "interval": "1 s"},
        "network.latency.one_way": "1 ms",
    }
    run = play(scenario(4, protocol=protocol, duration="12 s", **changes), fast_path=fast_path)
    last: dict[int, int] = {}
    gaps = []
    for row in run.events(ledger.EVENT_PROPOSED):
        gaps.append(row.time_ns - last.get(row.node, -S))
        last[row.node] = row.time_ns
    assert len(gaps) >= 10
    assert min(gaps) >= S
    if protocol == "qbft":  # as full as the load can make them: 25 transactions wait for every block of ten
        assert max(row.txs for row in run.events(ledger.EVENT_PROPOSED)) == 10
