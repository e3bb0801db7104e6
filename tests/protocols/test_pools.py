"""Pools with limits: by count, bytes and sender, what a full one does, expiry, and clients who try again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.ledger import rows as ledger
from sim.scenario.errors import ScenarioError
from sim.scenario.run import Result, run
from tests.runs import Played, begin, scenario

SLOW = {"max_transactions": 5, "interval": "1 s"}  # five transactions a second


def even(rate: str, **more: Any) -> dict[str, Any]:
    """An open loop of evenly spaced transactions of 1 kB."""
    return {"kind": "open", "rate": rate, "bytes": "1 kB", "arrivals": "uniform", **more}


def both_paths(**changes: Any) -> Result:
    """A run, which is the same with and without the fast path."""
    chosen = scenario(**{"duration": "20 s", "block": SLOW, **changes})
    fast, handlers = run(chosen), run(chosen, fast_path=False)
    assert fast.digest == handlers.digest
    assert fast.status == "ok"
    return fast


def committed(result: Result) -> dict[str, int]:
    """Committed transactions by class."""
    table = result.tables["classes"]
    return dict(zip(table["name"], table["committed"], strict=True))


# --- limits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [{"max_transactions": 10}, {"max_bytes": "10 kB"}], ids=["count", "bytes"])
def test_a_full_pool_refuses(limit: Any) -> None:
    """Twenty times as much as blocks take: four pools of ten hold what is pending, and the rest was refused at once."""
    metrics = both_paths(workload=[even("100 tx/s")], pool=limit).metrics
    assert metrics["committed"] == 96  # at 15 ms the first, then five a second
    assert 30 <= metrics["pending"] <= 40
    assert metrics["expired"] == metrics["retries"] == 0
    assert metrics["rejected"] == 2000 - metrics["committed"] - metrics["pending"]
    assert metrics["latency_p99_ms"] <= 2010  # ten in a pool, five a second


def test_a_pool_of_bytes_takes_small_ones_where_a_large_one_finds_no_room() -> None:
    load = [even("4 tx/s", name="large", bytes="8 kB"), even("4 tx/s", name="small", bytes="100 B")]
    result = both_paths(workload=load, pool={"max_bytes": "9 kB"}, block={"max_transactions": 1, "interval": "500 ms"})
    found = committed(result)
    assert found["small"] > found["large"] > 0


def test_one_sender_cannot_fill_a_pool() -> None:
    """Five hundred times as much from one account at each place: what others send is never refused."""
    load = [even("1000 tx/s", name="much"), even("2 tx/s", name="little")]
    result = both_paths(workload=load, pool={"per_sender": 20}, block={"max_transactions": 20, "interval": "1 s"})
    classes = result.tables["classes"]
    waiting = classes["submitted"][1] - classes["committed"][1]
    assert waiting <= 2 * 5 + 1  # two a second; one waits for four pools of twenty, twenty a second, and a block
    assert result.metrics["rejected"] > 19_000
    many = [even("1000 tx/s", name="much", senders=50), load[1]]
    more = both_paths(workload=many, pool={"per_sender": 20}, block={"max_transactions": 20, "interval": "1 s"})
    assert more.metrics["pending"] > 10 * result.metrics["pending"]  # fifty accounts may hold fifty times as much


def test_a_full_pool_may_let_the_oldest_go() -> None:
    """Nobody is refused, and what is committed came last: ten transactions at a hundred a second wait for 0.1 s."""
    metrics = both_paths(
        workload=[even("100 tx/s")], pool={"max_transactions": 10, "when_full": "evict_oldest"}
    ).metrics
    assert metrics["rejected"] == 0
    assert metrics["committed"] == 96
    assert metrics["latency_p99_ms"] <= 10 * 10 + 60
    assert metrics["expired"] == 2000 - metrics["committed"] - metrics["pending"]


def test_what_waits_too_long_leaves() -> None:
    metrics = both_paths(workload=[even("100 tx/s")], pool={"expires_after": "2 s"}).metrics
    assert metrics["rejected"] == 0
    assert metrics["pending"] == 202  # two seconds, and what is on its way or in a block
    assert metrics["latency_p99_ms"] <= 2000 + 60


def test_a_pool_expires_where_nothing_is_decided() -> None:
    """Two of four are gone: nothing is committed, and after two seconds nobody holds a transaction any more."""
    gone = [{"at": "0 s", "crash": {"nodes": [2, 3]}}]
    chosen = scenario(duration="20 s", workload=[even("10 tx/s", count=50)], pool={"expires_after": "2 s"}, faults=gone)
    metrics = run(chosen).metrics
    assert metrics["committed"] == 0
    assert metrics["expired"] + metrics["rejected"] + metrics["pending"] == 50
    assert metrics["pending"] <= 1  # in the block that never was decided


def test_half_an_hour_of_ten_times_as_much_in_bounded_memory() -> None:
    """Transactions take rows as long as somebody holds them, and no more rows are laid than a minute needs."""
    rows = []
    for minutes in (1, 30):
        block = {"max_transactions": 20, "interval": "500 ms"}
        load = [even("400 tx/s", senders=10)]
        pool = {"max_transactions": 500, "max_bytes": "400 kB", "per_sender": 100}
        retrying = {"retries": 2, "retry_after": "500 ms"}
        chosen = scenario(duration=f"{minutes} min", workload=load, block=block, pool=pool, clients=retrying)
        played = begin(chosen)
        played.until(chosen.duration_ns)
        assert not played.verdict().has("conservation")
        rows.append(len(played.world.run.engine.run_state[ledger.TX]))
    assert rows[0] == rows[1]


# --- clients who try again -------------------------------------------------------------------------------


def waits_ms(result: Result) -> list[float]:
    """How long clients waited, one entry per transaction, ms."""
    table = result.tables["latency_client"]
    return np.repeat(np.asarray(table["latency_us"]) / 1000, table["transactions"]).tolist()


def test_a_refused_client_tries_again_after_twice_as_long_each_time() -> None:
    """One place, one transaction to a pool and to a block; of four at once one enters and three are refused at 10 ms.

    The entry is the leader: a block is sent as it comes in, and final after three delays. The refusal is back at 20 ms,
    the next try leaves at 1.02 s and arrives at 1.03 s, when the pool is empty; two are refused again and try at
    1.04 + 2 s, one of them again at 3.06 + 4 s.
    """
    four = {"kind": "open", "steps": [{"rate": "4000 tx/s", "for": "1 ms"}], "arrivals": "uniform", "sites": ["HAK"]}
    result = both_paths(
        network={"sites": ["HAK", "SYX", "DZH", "WNG"], "latency": {"model": "fixed", "one_way": "10 ms"}},
        workload=[four],
        pool={"max_transactions": 1},
        block={"max_transactions": 1},
        clients={"retries": 5},
    )
    assert result.metrics["submitted"] == result.metrics["acknowledged"] == 4
    assert result.metrics["retries"] == 3 + 2 + 1
    assert waits_ms(result) == pytest.approx([50, 1070, 3090, 7110], abs=0.2)


def test_the_wait_between_tries_is_bounded() -> None:
    load = [even("100 tx/s", count=200)]
    patient = {"retries": 1000, "retry_after": "100 ms", "retry_at_most": "400 ms"}
    metrics = both_paths(duration="60 s", workload=load, pool={"max_transactions": 5}, clients=patient).metrics
    assert metrics["acknowledged"] == 200  # five a second: all are through after 40 s
    assert metrics["latency_p99_ms"] > 30_000


def test_clients_without_a_voter_try_again() -> None:
    """Their voter is down for three seconds and they wait for it: nothing is lost, and nothing without tries."""
    gone = [{"at": "5 s", "for": "3 s", "crash": {"nodes": [3]}}]
    load = [even("10 tx/s", sites=["WNG"])]
    sites = {"sites": ["HAK", "SYX", "DZH", "WNG"], "latency": {"model": "fixed", "one_way": "10 ms"}}
    common = {"network": sites, "workload": load, "faults": gone, "block": {}}
    lost = both_paths(**common, clients={"failover_after": "10 s"}).metrics
    kept = both_paths(**common, clients={"failover_after": "10 s", "retries": 3}).metrics
    assert lost["rejected"] > 20
    assert kept["rejected"] == 0
    assert kept["retries"] > 20


def test_closed_loop_clients_that_are_refused_go_on() -> None:
    """Forty clients and pools of five: each client whose last try failed submits another later, and none is lost."""
    load = [{"kind": "closed", "outstanding": 40, "bytes": "1 kB"}]
    metrics = both_paths(duration="60 s", workload=load, pool={"max_transactions": 5}, clients={"retries": 1}).metrics
    assert metrics["committed"] >= 5 * 59 - 5
    assert metrics["rejected"] > 0


def test_power_that_fails_takes_refused_transactions_along() -> None:
    """Clients who wait for another try when their place goes dark are done; sums hold."""
    dark = [{"at": "10 s", "for": "2 s", "lose_power": {"nodes": [3], "battery": "0 s"}}]
    load = [even("100 tx/s", sites=["WNG"])]
    sites = {"sites": ["HAK", "SYX", "DZH", "WNG"], "latency": {"model": "fixed", "one_way": "10 ms"}}
    pool = {"max_transactions": 10}
    metrics = both_paths(network=sites, workload=load, faults=dark, pool=pool, clients={"retries": 4}).metrics
    parts = metrics["committed"] + metrics["rejected"] + metrics["expired"] + metrics["pending"]
    assert parts == metrics["submitted"] == 2000


# --- the books -------------------------------------------------------------------------------------------


def books_are_right(played: Played) -> None:
    """What is counted as held is what the rings hold."""
    engine = played.world.run.engine
    columns, seats, words = engine.run_state, engine.seats, engine.words
    state = engine.state
    size = int(state[ledger.POOL_SIZE])
    pool = columns[ledger.POOL].reshape(seats, size, 2)
    txs = columns[ledger.TX].reshape(-1, ledger.TX_WIDTH)
    held = columns[ledger.TX_HELD].reshape(-1, words)
    peers, fill = engine.peer(), columns[ledger.POOL_FILL].reshape(-1, ledger.POOL_FILL_WIDTH)
    sizes = columns[ledger.CLASS].reshape(-1, ledger.CLASS_WIDTH)[:, ledger.CLASS_BYTES]
    senders = columns[ledger.TX_MORE].reshape(-1, ledger.TX_MORE_WIDTH)[:, ledger.TX_SENDER]
    for node in range(seats):
        ring = np.arange(peers[node, ledger.POOL_HEAD], peers[node, ledger.POOL_TAIL]) % size
        inside = pool[node, ring, 0]
        assert sorted(inside.tolist()) == np.flatnonzero((held[:, node >> 6] >> (node & 63)) & 1).tolist()
        assert 0 <= peers[node, ledger.FRESH] <= len(ring)
        assert fill[node, ledger.POOL_BYTES] == sizes[txs[inside, ledger.TX_CLASS]].sum()
        if state[ledger.POOL_SENDER_LIMIT]:
            counted = columns[ledger.SENDER_HELD].reshape(-1, seats)[:, node]
            assert (np.bincount(senders[inside], minlength=len(counted)) == counted).all()
            assert counted.max() <= state[ledger.POOL_SENDER_LIMIT]
        assert len(ring) <= state[ledger.POOL_LIMIT]
        assert fill[node, ledger.POOL_BYTES] <= state[ledger.POOL_BYTES_LIMIT]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    protocol=st.sampled_from(["pbft", "raft", "tendermint", "hotstuff", "ibft", "clique"]),
    limits=st.fixed_dictionaries(
        {"max_bytes": st.sampled_from(["20 kB", "60 kB", "1 MB"])},
        optional={
            "max_transactions": st.sampled_from([20, 50]),
            "per_sender": st.sampled_from([3, 15]),
            "expires_after": st.sampled_from(["300 ms", "3 s"]),
            "when_full": st.just("evict_oldest"),
        },
    ),
    retries=st.integers(0, 3),
    down=st.booleans(),
    seed=st.integers(0, 99),
)
def test_what_is_counted_as_held_is_held(
    protocol: str, limits: dict[str, Any], retries: int, down: bool, seed: int
) -> None:
    senders = {"senders": 3} if "per_sender" in limits else {}
    load = [
        {"kind": "open", "rate": "150 tx/s", "bytes": "1 kB", **senders},
        {"kind": "open", "rate": "30 tx/s", "bytes": "4 kB", "name": "large", **senders},
        {"kind": "closed", "outstanding": 9, "think_time": "100 ms", "thinking": "exponential"},
    ]
    gone = [{"at": "1 s", "for": "1 s", "crash": {"nodes": [seed % 4]}}]
    chosen = scenario(
        protocol=protocol, seed=seed, duration="5 s", workload=load, pool=limits, faults=gone if down else [],
        block={"max_transactions": 10, "interval": "100 ms"}, clients={"retries": retries, "retry_after": "200 ms"},
    )  # fmt: skip
    digests = set()
    for fast_path in (True, False):
        played = begin(chosen, fast_path=fast_path)
        for at_s in (1, 3, 5):
            played.until(at_s * 10**9)
            books_are_right(played)
        assert not played.verdict().has("conservation")
        digests.add(played.digest)
    assert len(digests) == 1


# --- bad input -------------------------------------------------------------------------------------------

BAD = {
    "too small for a block": ({"max_transactions": 4}, {}, "no block is ever full"),
    "too small for a transaction": ({"max_bytes": "500 B"}, {}, "is below the size of a transaction"),
    "never full": ({"when_full": "evict_oldest", "per_sender": 2}, {}, "no pool is ever full here"),
    "no such policy": ({"max_transactions": 50, "when_full": "random"}, {}, "among the choices"),
    "retries that end before they begin": ({}, {"retries": 1, "retry_at_most": "10 ms"}, "is below retry_after"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_pools(case: str) -> None:
    pool, clients, rule = BAD[case]
    with pytest.raises(ScenarioError, match=rule):
        scenario(block=SLOW, workload=[even("10 tx/s")], pool=pool, clients=clients)


def test_senders_that_nobody_asks_for_are_refused() -> None:
    with pytest.raises(ScenarioError, match=r"nothing asks who sends here; write pool: \{per_sender: 100\}"):
        scenario(workload=[even("10 tx/s", senders=5)])


def test_a_backlog_goes_through_no_pool() -> None:
    for pool in ({"max_transactions": 5000}, {"max_bytes": "10 MB"}, {"per_sender": 5}, {"expires_after": "1 s"}):
        with pytest.raises(ScenarioError, match="a backlog goes through no pool"):
            scenario(pool=pool)
    with pytest.raises(ScenarioError, match="a backlog has no clients"):
        scenario(clients={"retries": 1})
