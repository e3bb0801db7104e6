"""After an outage a view synchroniser brings all together within a time that does not depend on how long it lasted."""

from __future__ import annotations

import pytest

from sim.scenario.run import run
from tests.runs import scenario

PATIENCE = {"view_timeout": "500 ms", "view_timeout_max": "3600 s"}
SYNCHRONISED = {
    "hotstuff": PATIENCE,
    "hotstuff-basic": PATIENCE,
    "hotstuff-2": PATIENCE,
    "kauri": PATIENCE,
    "jolteon": PATIENCE,
    "pbft": {"request_timeout": "500 ms"},
    "ibft": {"round_timeout": "500 ms"},
    "qbft": {"round_timeout": "500 ms"},
}


def recovery_s(protocol: dict[str, object], outage_s: int, seed: int) -> float:
    """Time from the healing of a network that was cut into halves to the first decision."""
    halves = {"at": "10 s", "for": f"{outage_s} s", "partition": {"groups": [[0, 1], [2, 3]]}}
    latency = {"model": "uniform", "low": "5 ms", "high": "15 ms"}
    result = run(
        scenario(
            4, protocol=protocol, duration="180 s", liveness_bound="60 s", seed=seed, faults=[halves],
            block={"max_transactions": 10}, **{"network.latency": latency},
        )
    )  # fmt: skip
    assert result.status == "ok"
    return float(result.metrics["recovery_s"])


@pytest.mark.parametrize("seeds", [range(1), pytest.param(range(1, 3), marks=pytest.mark.slow)], ids=["one", "more"])
@pytest.mark.parametrize("protocol", SYNCHRONISED)
def test_recovery_does_not_grow_with_the_outage(protocol: str, seeds: range) -> None:
    """Patience of half a second: a wish, a timeout or a VIEW-CHANGE is said again so often; then a view or a few."""
    named = {"name": protocol} | SYNCHRONISED[protocol]
    for seed in seeds:
        times_s = [recovery_s(named, outage_s, seed) for outage_s in (10, 40, 150)]
        assert max(times_s) < 6, times_s
        assert times_s[2] < times_s[1] + 1, times_s


@pytest.mark.parametrize(
    "protocol",
    [
        {"name": "pbft", "request_timeout": "300 ms"},
        {"name": "rpbft", "request_timeout": "300 ms", "group": 7},
        {"name": "qbft", "round_timeout": "300 ms"},
        {"name": "tendermint", "timeout_propose": "300 ms", "resend_after": "1 s"},
    ],
    ids=lambda protocol: str(protocol["name"]),
)
def test_what_is_lost_is_said_again(protocol: dict[str, object]) -> None:
    """Two of seven are silent, so that every other vote counts, and one message in twenty is lost for good."""
    for seed in range(2):
        result = run(
            scenario(
                7, protocol=protocol, duration="2 min", liveness_bound="60 s", seed=seed,
                block={"max_transactions": 10},
                corrupted=[{"nodes": [0, 5], "behaviour": "silent"}],
                workload=[{"kind": "open", "rate": "20 tx/s", "bytes": "100 B"}],
                **{"network.links": "datagram", "network.loss": "5 %"},
            )
        )  # fmt: skip
        assert result.status == "ok"
        assert result.metrics["decisions"] > 20
