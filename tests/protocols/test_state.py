"""Keyed state: who conflicts with whom, what a rule refuses, how long blocks take, and what is left at the end."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.ledger import rows as ledger
from sim.measure.outcomes import executed
from sim.scenario.errors import ScenarioError
from sim.scenario.run import Result, run
from sim.workload.keys import skew_steps
from tests.oracle.ledger import Kind, Ledger, replay
from tests.runs import play, scenario

PROTOCOLS = ("pbft", "raft", "hotstuff", "tendermint", "qbft", "clique")


def load(name: str, rate: str, *accesses: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An open loop whose transactions touch these keys."""
    return {"kind": "open", "name": name, "rate": rate, "accesses": list(accesses), **more}


def both_paths(*, status: str = "ok", **changes: Any) -> Result:
    """A run, which is the same with and without the fast path."""
    chosen = scenario(**{"duration": "20 s", **changes})
    fast, handlers = run(chosen), run(chosen, fast_path=False)
    assert fast.digest == handlers.digest
    assert fast.tables["executed"]["result"] == handlers.tables["executed"]["result"]
    assert fast.status == status, fast.violations
    return fast


def of_class(result: Result, name: str) -> dict[str, Any]:
    """The row of a class."""
    table = result.tables["classes"]
    return {column: values[table["name"].index(name)] for column, values in table.items()}


# --- the reference ---------------------------------------------------------------------------------------

spaces = st.fixed_dictionaries({"a": st.integers(1, 6), "b": st.integers(1, 400), "c": st.integers(1, 2000)})
skews = st.sampled_from([0, 0, 0.5, 1.0, 1.7])


@st.composite
def accesses(draw: st.DrawFn, *, supervises: bool) -> dict[str, Any]:
    access = draw(st.sampled_from(["read", "write", "update", "update"]))
    one: dict[str, Any] = {
        "space": draw(st.sampled_from("abc")),
        "access": access,
        "count": draw(st.integers(1, 3)),
        "skew": draw(skews),
    }
    if access == "update" and not supervises:
        one["needs"] = draw(st.sampled_from(["any", "any", "free", "held"]))
    if access != "read":
        changes = ["same", "free", "held", *(["frozen", "thawed"] * 2 if supervises else [])]
        one["leaves"] = draw(st.sampled_from(changes))
        if not supervises:
            one["ignores_freeze"] = draw(st.sampled_from([False, False, True]))
    return one


@st.composite
def networks(draw: st.DrawFn) -> dict[str, Any]:
    """A small network with a few classes, some of which supervise."""
    supervising = draw(st.lists(st.booleans(), min_size=1, max_size=4))
    workload = [
        load(
            f"k{i}",
            f"{draw(st.integers(5, 60))} tx/s",
            *draw(st.lists(accesses(supervises=yes), min_size=1, max_size=3)),
            supervises=yes,
        )
        for i, yes in enumerate(supervising)
    ]
    if draw(st.booleans()):  # another that touches what the first does
        first = {one["space"]: one for one in reversed(workload[0]["accesses"])}
        led = [dict(one) for one in first.values()]
        if led:
            workload.append(load("last", "20 tx/s", *led, supervises=supervising[0], follows="k0"))
    conflicts = draw(st.sampled_from(["serialise", "abort", "retry"]))
    return {
        "protocol": draw(st.sampled_from(PROTOCOLS)),
        "seed": draw(st.integers(0, 99)),
        "state": {"spaces": draw(spaces), "conflicts": conflicts, "record": True}
        | ({"tries": draw(st.integers(1, 3))} if conflicts == "retry" else {}),
        "workload": workload,
        "cpu": draw(
            st.sampled_from([{}, {"execute": "1 ms", "lanes": 3}, {"execute": "1 ms", "execute_io": "100 us"}])
        ),
        "faults": draw(st.sampled_from([[], [{"crash": {"nodes": [0]}, "at": "500 ms", "for": "800 ms"}]])),
        "duration": "3 s",
    }


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
def test_a_sequential_ledger_reaches_the_same_fates_and_the_same_root(network: dict[str, Any]) -> None:
    chosen = scenario(**network)
    played = play(chosen)
    run_state = played.world.run.engine.run_state
    names = [kind.name for kind in played.world.classes]
    record = executed(played.world.run, names)
    kinds = [Kind(entry.accesses, entry.supervises, None if entry.follows is None else 0) for entry in chosen.workload]
    plain = Ledger(chosen.seed, chosen.key_spaces, kinds, aborts=chosen.state.conflicts != "serialise")
    assert replay(plain, record, names) == record["result"]
    assert plain.signed_root() == int(run_state.array[ledger.STATE_ROOT])
    words = run_state[ledger.STATE_KEY]
    assert {key: state.word() for key, state in plain.keys.items() if state.word()} == {
        int(key): int(words[key]) for key in np.flatnonzero(words)
    }
    assert len(record["result"]) == int(run_state.array[ledger.COMMITTED])


# --- conflicts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_hot_key_has_one_success_a_block(protocol: str) -> None:
    """Whatever is offered: the first of a block to have read the last version has its effect, all others have none."""
    result = both_paths(
        protocol={"name": protocol} | ({"block_period": "500 ms"} if protocol == "clique" else {}),
        state={"spaces": {"hot": 1}, "conflicts": "abort", "record": True},
        workload=[load("w", "400 tx/s", {"space": "hot"})],
        duration="5 s",
    )
    table = result.tables["executed"]
    valid = [h for h, found in zip(table["height"].tolist(), table["result"], strict=True) if found == "valid"]
    assert max(Counter(valid).values()) == 1
    assert len(valid) > (5 if protocol != "clique" else 1)  # what is final there is four blocks old
    assert of_class(result, "w")["conflicts"] == len(table["result"]) - len(valid) > 1000
    for height, read_at, found in zip(table["height"], table["read_at_height"], table["result"], strict=True):
        before = [h for h in valid if h < height]
        stale = bool(before) and before[-1] > read_at
        assert found == "conflict" if stale else True


def test_disjoint_keys_never_conflict() -> None:
    """Each class has a key of its own, and each of its requests waits for the one before."""
    closed = [
        {"kind": "closed", "outstanding": 1, "sites": ["0"], "name": f"c{i}", "accesses": [{"space": f"s{i}"}]}
        for i in range(6)
    ]
    result = both_paths(
        state={"spaces": {f"s{i}": 1 for i in range(6)}, "conflicts": "abort", "record": True}, workload=closed
    )
    assert result.metrics["conflicts"] == 0
    assert result.metrics["success_share"] == 1.0
    assert result.metrics["wasted_share"] == 0.0
    assert result.metrics["committed"] > 500


def test_blind_writes_and_reads_alone_never_conflict() -> None:
    for access in ("write", "read"):
        one = load("w", "200 tx/s", {"space": "hot", "access": access})
        found = both_paths(state={"spaces": {"hot": 1}, "conflicts": "abort", "record": True}, workload=[one])
        assert found.metrics["conflicts"] == 0


def test_serialised_transactions_all_have_their_effect() -> None:
    one = load("w", "300 tx/s", {"space": "hot", "count": 3})
    found = both_paths(state={"spaces": {"hot": 2}, "record": True}, workload=[one])
    assert found.metrics["conflicts"] == found.metrics["rule_refusals"] == 0
    assert set(found.tables["executed"]["result"]) == {"valid"}


def test_clients_try_again_and_their_wait_counts_from_the_first_try() -> None:
    """Two clients at one key: where both are in a block one has its effect, and the other must come again."""
    state = {"spaces": {"hot": 1}, "conflicts": "retry", "tries": 1000, "record": True}
    two = [
        {"kind": "closed", "outstanding": 2, "sites": ["0"], "name": "c", "accesses": [{"space": "hot"}],
         "think_time": "10 ms", "thinking": "exponential"}
    ]  # fmt: skip
    found = both_paths(state=state, workload=two, protocol="pbft")
    once = both_paths(state=state | {"conflicts": "abort", "tries": 3}, workload=two, protocol="pbft")
    row, without = of_class(found, "c"), of_class(once, "c")
    assert row["tried_again"] == pytest.approx(row["conflicts"], abs=2)
    assert row["given_up"] == 0
    assert row["success_share"] == 1.0
    assert row["submitted"] == pytest.approx(row["succeeded"], abs=2)  # a retry is no new request
    assert without["given_up"] == without["conflicts"] > 100
    assert found.metrics["latency_mean_ms"] > 1.3 * once.metrics["latency_mean_ms"]
    assert found.metrics["offered_tps"] == pytest.approx(row["submitted"] / 20, rel=0.01)


def test_who_has_no_try_left_gives_up() -> None:
    state = {"spaces": {"hot": 1}, "conflicts": "retry", "tries": 2, "try_again_after": "100 ms", "record": True}
    found = of_class(both_paths(state=state, workload=[load("w", "100 tx/s", {"space": "hot"})]), "w")
    assert found["given_up"] > 100
    assert found["conflicts"] == pytest.approx(found["tried_again"] + found["given_up"], abs=30)  # those on their way
    assert 2 * found["given_up"] <= found["tried_again"]


# --- rules -----------------------------------------------------------------------------------------------


def test_a_double_pledge_fails() -> None:
    """A receivable that is pledged cannot be pledged again until it is released, whoever orders first."""
    one = {"space": "receivables"}
    result = both_paths(
        state={"spaces": {"receivables": 3}, "record": True},
        workload=[
            load("pledge", "20 tx/s", {**one, "needs": "free", "leaves": "held"}),
            load("release", "10 tx/s", {**one, "needs": "held", "leaves": "free"}),
            load("transfer", "10 tx/s", {**one, "needs": "free"}),
        ],
    )
    rows = result.tables["executed"]
    pledged = sum(c == "pledge" and f == "valid" for c, f in zip(rows["class"], rows["result"], strict=True))
    released = sum(c == "release" and f == "valid" for c, f in zip(rows["class"], rows["result"], strict=True))
    assert 0 <= pledged - released <= 3
    assert of_class(result, "pledge")["rule_refusals"] > 100
    assert of_class(result, "transfer")["rule_refusals"] > 50


def test_who_follows_touches_the_same_keys() -> None:
    """Each pledge has a receivable of its own among a million; its release finds it, a second pledge fails on it."""

    def share(needs: str, leaves: str) -> float:
        one = {"space": "receivables"}
        result = both_paths(
            state={"spaces": {"receivables": 1_000_000}, "record": True},
            workload=[
                load("pledge", "20 tx/s", {**one, "needs": "free", "leaves": "held"}),
                load("next", "6 tx/s", {**one, "needs": needs, "leaves": leaves}, follows="pledge"),
            ],
        )
        assert of_class(result, "pledge")["success_share"] > 0.9  # but for those whose next came first
        return float(of_class(result, "next")["success_share"])

    assert share("held", "free") > 0.9
    assert share("free", "held") < 0.1


def test_a_freeze_holds_at_every_node_from_its_block_on() -> None:
    """One account, frozen after some time: payments before it pass, after it none, and all four voters enforce it."""
    result = both_paths(
        state={"spaces": {"account": 1}, "record": True},
        workload=[
            load("pay", "50 tx/s", {"space": "account"}),
            load("freeze", "1 tx/s", {"space": "account", "leaves": "frozen"}, supervises=True, count=1),
        ],
    )
    orders = result.tables["orders"]
    assert orders["nodes"] == [4]
    assert 10 < orders["first_ms"][0] <= orders["mean_ms"][0] <= orders["last_ms"][0] < 200
    assert result.metrics["enforcement_max_ms"] == orders["last_ms"][0]
    rows = result.tables["executed"]
    fates = list(zip(rows["class"], rows["result"], strict=True))
    at = fates.index(("freeze", "valid"))
    assert {fate for _, fate in fates[:at]} == {"valid"}
    assert {fate for _, fate in fates[at + 1 :]} == {"refused"}
    assert result.checks["freeze"] == "pass"


def test_a_path_that_a_freeze_leaves_open_is_a_violation() -> None:
    result = both_paths(
        status="safety violation",
        state={"spaces": {"account": 1}, "record": True},
        workload=[
            load("pay", "50 tx/s", {"space": "account"}),
            load("old-contract", "5 tx/s", {"space": "account", "ignores_freeze": True}),
            load("freeze", "1 tx/s", {"space": "account", "leaves": "frozen"}, supervises=True, count=1),
        ],
    )
    assert result.checks["freeze"] == "fail"
    assert result.exit_code == 3
    assert "old-contract" in result.violations[0].evidence


# --- lanes -----------------------------------------------------------------------------------------------

FULL = {
    "block": {"max_transactions": 20, "batch_timeout": "400 ms"},
    "duration": "4 s",
}


@pytest.mark.parametrize(("keys", "lanes", "expected_ms"), [(100_000_000 // 10, 4, 50), (1, 4, 200), (1, 1, 200)])
def test_a_block_takes_what_its_conflicts_allow(keys: int, lanes: int, expected_ms: float) -> None:
    """Twenty transactions of 10 ms: five after the other in four lanes if they are strangers, else all in a row."""
    played = play(
        scenario(
            **FULL, cpu={"execute": "10 ms", "lanes": lanes}, state={"spaces": {"k": keys}},
            workload=[load("w", "100 tx/s", {"space": "k"}, arrivals="uniform")],
        )
    )  # fmt: skip
    costs = played.world.run.engine.run_state[ledger.BLOCK_COST]
    assert set(costs[costs > 0].tolist()) == {expected_ms * 1_000_000}


def test_readers_of_one_key_go_side_by_side_and_a_writer_waits_for_them() -> None:
    def cost(**more: Any) -> int:
        played = play(
            scenario(
                **FULL, cpu={"execute": "10 ms", "lanes": 64, "execute_io": "1 ms"}, state={"spaces": {"k": 1}},
                workload=[load("w", "100 tx/s", {"space": "k", **more}, arrivals="uniform")],
            )
        )  # fmt: skip
        return int(played.world.run.engine.run_state[ledger.BLOCK_COST].max())

    one = {"space": "k"}
    both = [load(name, "50 tx/s", one | {"access": name}, arrivals="uniform") for name in ("read", "write")]
    turns = play(scenario(**FULL, cpu={"execute": "10 ms", "lanes": 64}, state={"spaces": {"k": 1}}, workload=both))
    assert (
        int(turns.world.run.engine.run_state[ledger.BLOCK_COST].max()) == 200_000_000
    )  # in turns: nobody beside another
    assert cost(access="read") == 30_000_000  # 10 ms all together, and 20 times 1 ms of state
    assert cost(access="update") == 220_000_000


@pytest.mark.parametrize("place", ["after", "between", "before_vote"])
def test_conflicts_slow_a_chain_wherever_it_executes(place: str) -> None:
    def throughput(keys: int) -> float:
        result = both_paths(
            cpu={"execute": "5 ms", "lanes": 8, "execution": place}, state={"spaces": {"k": keys}, "record": True},
            block={"max_transactions": 100}, workload=[load("w", "600 tx/s", {"space": "k"})], duration="10 s",
        )  # fmt: skip
        return result.metrics["goodput_tps"]

    free, hot = throughput(1_000_000), throughput(1)  # hot: one each 5 ms, at the proposer and then at the voters
    assert hot == pytest.approx(100 if place == "before_vote" else 200, rel=0.1)
    assert free > 1.9 * hot


# --- deadlines -------------------------------------------------------------------------------------------


def test_deadlines_are_missed_by_late_answers_and_by_none() -> None:
    """Blocks every second hold ten of twenty: answers come later and later, and what still waits is overdue too."""
    result = both_paths(
        block={"max_transactions": 10, "interval": "1 s"},
        workload=[{"kind": "open", "rate": "20 tx/s", "arrivals": "uniform", "deadline": "3 s", "name": "w"}],
    )
    row = of_class(result, "w")
    late = sum(n for us, n in zip(*result.tables["latency_client"].values(), strict=True) if us > 3_000_000)
    overdue = 20 * 17 - row["succeeded"]  # submitted more than 3 s before the end and not answered
    assert row["deadline_missed"] == pytest.approx(late + overdue, abs=11)
    assert row["deadline_s"] == 3.0
    assert result.metrics["deadline_missed"] == row["deadline_missed"]


def test_the_wait_of_each_class_is_that_of_all_where_there_is_one() -> None:
    result = both_paths(workload=[{"kind": "open", "rate": "200 tx/s", "name": "w"}])
    row = of_class(result, "w")
    for name in ("p50", "p95", "p99"):
        exact = result.metrics[f"latency_{name}_ms"]
        assert exact * (1 - 1 / 64) <= row[f"latency_{name}_ms"] <= exact


# --- signatures ------------------------------------------------------------------------------------------


def test_several_signatures_cost_a_verification_each() -> None:
    def busy(signatures: int) -> float:
        return both_paths(
            cpu={"crypto": "ecdsa-p256"},
            workload=[{"kind": "open", "rate": "200 tx/s", "signatures": signatures}],
            clients={"dissemination": "broadcast"},
        ).metrics["verify_utilisation_max"]  # fmt: skip

    one, five = busy(1), busy(5)
    assert five - one == pytest.approx(4 * 200 * 44.5e-6, rel=0.05)


# --- skew ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "exponent"), [(1, 1.0), (7, 0.5), (256, 1.0), (257, 2.0), (100_000, 0.9), (10**7, 1.2)]
)
def test_skewed_choices_follow_zipfs_law(keys: int, exponent: float) -> None:
    table = skew_steps(keys, exponent)
    weights = np.arange(1, keys + 1, dtype=float) ** -exponent
    passed = np.cumsum(weights) / weights.sum()
    ends = np.append(table[1:, 0], keys)
    assert np.abs(table[:, 1] / 2**32 - passed[ends - 1]).max() < 1e-6
    assert table[-1, 1] == 1 << 32
    assert (np.diff(table[:, 1]) >= 0).all()


# --- what cannot be ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state": {}, "workload": [{"kind": "open", "rate": "1 tx/s"}]}, "touches no keys"),
        ({"workload": [load("w", "1 tx/s", {"space": "a"})]}, "belong to a state"),
        ({"state": {"spaces": {"accounts": 5}}, "workload": [load("w", "1 tx/s", {"space": "acounts"})]},
         "did you mean 'accounts'"),
        ({"state": {"spaces": {"a": 0}}, "workload": [load("w", "1 tx/s", {"space": "a"})]}, "has no key"),
        ({"state": {"spaces": {"a": 10**9}}, "workload": [load("w", "1 tx/s", {"space": "a"})]}, "than 50,000,000"),
        ({"state": {"spaces": {"a": 5}, "tries": 4}, "workload": [load("w", "1 tx/s", {"space": "a"})]},
         "goes with conflicts: retry"),
        ({"state": {"spaces": {"a": 5}}, "workload": [load("w", "1 tx/s", {"space": "a", "leaves": "frozen"})]},
         "supervises: true"),
        ({"state": {"spaces": {"a": 5}},
          "workload": [load("w", "1 tx/s", {"space": "a", "access": "write", "needs": "free"})]}, "access: update"),
        ({"state": {"spaces": {"a": 5}},
          "workload": [load("w", "1 tx/s", {"space": "a", "access": "read", "leaves": "held"})]}, "access: update"),
        ({"state": {"spaces": {"a": 5}}, "workload": [{"kind": "backlog"}]}, "touch no keys"),
        ({"workload": [{"kind": "open", "rate": "1 tx/s", "supervises": True}]}, "write state"),
        ({"state": {"spaces": {"a": 5}}, "workload": [load("w", "1 tx/s", {"space": "a"}, follows="x")]},
         "no class before this one"),
        ({"state": {"spaces": {"a": 5, "b": 5}}, "workload": [
            load("x", "1 tx/s", {"space": "b"}), load("w", "1 tx/s", {"space": "a"}, follows="x")]},
         "touches no space that this class does"),
        ({"state": {"spaces": {"a": 5}}, "workload": [
            load("x", "1 tx/s", {"space": "a", "count": 2}), load("w", "1 tx/s", {"space": "a"}, follows="x")]},
         "another skew or count"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        scenario(**changes)


def test_played_twice_is_the_same() -> None:
    """With retries, freezes and lanes."""
    chosen = scenario(
        state={"spaces": {"a": 20}, "conflicts": "retry", "record": True}, duration="5 s",
        workload=[
            load("w", "100 tx/s", {"space": "a", "skew": 1.0}),
            load("f", "2 tx/s", {"space": "a", "leaves": "frozen"}, supervises=True),
        ],
        cpu={"execute": "1 ms", "lanes": 2},
    )  # fmt: skip
    first, second = run(chosen), run(chosen)
    assert first.digest == second.digest
