"""What must not leave the country: transactions, and blocks that hold them, on whatever way."""

from __future__ import annotations

from typing import Any

import pytest

from sim.scenario.errors import ScenarioError
from sim.scenario.run import Result, run
from tests.runs import scenario

PLACES = {"sites": ["HAK", "QHI", "SYX", "YPG"], "latency": {"model": "distance", "quality": "mid"}}


def played(*, network: dict[str, Any] | None = None, **changes: Any) -> Result:
    """A run, the same on both paths."""
    load = [{"kind": "open", "rate": "40 tx/s", "label": "personal", "name": "record"}]
    values = {"workload": load, "duration": "5 s", **changes}
    chosen = scenario(None, network=PLACES | (network or {}), **values)
    fast, handlers = run(chosen), run(chosen, fast_path=False)
    assert fast.digest == handlers.digest
    assert fast.checks["residency"] == handlers.checks["residency"]
    return fast


@pytest.mark.parametrize("protocol", ["pbft", "raft", "hotstuff", "tendermint", "clique"])
@pytest.mark.parametrize("mode", ["push", "pull"])
def test_a_whole_block_abroad_is_a_violation_and_a_header_is_none(protocol: str, mode: str) -> None:
    abroad = {"name": "o", "site": "HKG", "mode": mode}
    clock = {"block_period": "500 ms"} if protocol == "clique" else {}
    result = played(protocol={"name": protocol, **clock}, observers=[abroad])
    assert result.status == "safety violation"
    assert result.exit_code == 3
    first = next(v for v in result.violations if v.check == "residency")
    assert "record" in first.evidence and "-> o (HKG)" in first.evidence and "headers_only" in first.evidence
    headers = played(protocol={"name": protocol, **clock}, observers=[abroad | {"headers_only": True}])
    assert headers.status == "ok"
    assert headers.checks["residency"] == "pass"


def test_what_may_go_may_go() -> None:
    load = [{"kind": "open", "rate": "40 tx/s", "label": "public"}]
    result = played(observers=[{"name": "o", "site": "HKG"}], workload=load)
    assert result.status == "ok"
    assert result.checks["residency"] == "not applicable"
    chosen = played(observers=[{"name": "o", "site": "HKG"}], workload=load, residency={"labels": ["public"]})
    assert chosen.status == "safety violation"


def test_at_home_nothing_crosses() -> None:
    assert played(observers=[{"name": "o", "site": "PEK"}]).checks["residency"] == "not applicable"


def test_a_transaction_passed_on_to_a_voter_abroad_is_a_violation() -> None:
    result = played(
        network={"sites": ["HAK", "QHI", "SYX", "HKG"]}, residency={"voters": "anywhere"},
        clients={"dissemination": "broadcast"},
    )  # fmt: skip
    alone = [v.evidence for v in result.violations if v.check == "residency" and "was sent" in v.evidence]
    assert alone and "-> voter 3 (HKG)" in alone[0] and "in all" in alone[0]
    blocks = [v for v in result.violations if v.check == "residency" and "block" in v.evidence]
    assert blocks and blocks[0].node == 3


def test_jurisdictions_of_other_places_can_be_given() -> None:
    """Three regions of the table of measured round trips, of which one is abroad."""
    regions = ["us-west-1", "eu-north-1", "us-east-1"]
    network = {"nodes": 3, "latency": {"model": "matrix", "regions": regions}}
    own = {"us-west-1": "mainland", "eu-north-1": "mainland", "us-east-1": "elsewhere"}
    load = [{"kind": "open", "rate": "40 tx/s", "label": "personal"}]
    result = run(
        scenario(
            None, network=network, residency={"places": own, "voters": "anywhere"}, protocol="raft", workload=load,
            duration="2 s",
        )
    )  # fmt: skip
    assert result.checks["residency"] == "fail"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": PLACES | {"sites": ["HAK", "QHI", "SYX", "SIN"]}}, "SIN is in singapore"),
        ({"network": {"nodes": 4, "latency": {"model": "fixed", "one_way": "5 ms"}}, "residency": {}},
         "nobody knows in which jurisdiction"),
        ({"network": PLACES, "residency": {"places": {"PAR": "france"}}}, "nobody stands there"),
    ],
)  # fmt: skip
def test_what_the_rules_of_the_place_forbid_is_refused(changes: dict[str, Any], message: str) -> None:
    load = [{"kind": "open", "rate": "1 tx/s", "label": "important"}]
    with pytest.raises(ScenarioError, match=message):
        scenario(None, workload=load, **changes)
