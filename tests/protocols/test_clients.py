"""Clients as benchmark harnesses have them: steps and ramps, fixed numbers, limits, time to think, recorded traces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.ledger import rows as ledger
from sim.scenario.errors import ScenarioError
from sim.scenario.load import load_scenario
from sim.scenario.run import Result, run
from sim.scenario.schema import Scenario, resolved
from sim.workload.pace import Leg, Pace, not_faster_than
from tests.runs import begin, scenario

S = 10**9


def both_paths(chosen: Scenario) -> Result:
    """A run, which is the same with and without the fast path."""
    fast, handlers = run(chosen), run(chosen, fast_path=False)
    assert fast.digest == handlers.digest
    assert fast.status == "ok"
    return fast


def open_(**more: Any) -> dict[str, Any]:
    """An open loop of 1 kB."""
    return {"kind": "open", "bytes": "1 kB", **more}


def submitted_by(chosen: Scenario, *times_s: float) -> list[int]:
    """How many transactions have been submitted by each time."""
    played = begin(chosen)
    found = []
    for time_s in times_s:
        played.until(round(time_s * S))
        found.append(int(played.world.run.run_state[ledger.SUBMITTED]))
    return found


# --- steps and ramps -------------------------------------------------------------------------------------

STEPS = [{"rate": "10 tx/s", "for": "5 s"}, {"rate": "100 tx/s", "to": "0 tx/s", "for": "5 s"}]


def test_steps_and_ramps_send_the_integral_of_their_rate() -> None:
    """Fifty, then 250 of which three quarters come in the first half, and nothing after the last step."""
    chosen = scenario(duration="20 s", workload=[open_(steps=STEPS, arrivals="uniform")])
    times = (1, 5, 7.5, 10, 20)
    assert submitted_by(chosen, *times) == [10, 50, pytest.approx(50 + 187.5, abs=1), 300, 300]
    assert both_paths(chosen).metrics["offered_nominal_tps"] == 15


def test_drawn_arrivals_follow_the_steps() -> None:
    """A Poisson process of that rate: within four standard deviations of the integral, at every place."""
    steps = [{"rate": "1000 tx/s", "for": "5 s"}, {"rate": "2000 tx/s", "to": "0 tx/s", "for": "10 s"}]
    chosen = scenario(duration="20 s", workload=[open_(steps=steps)])
    found = submitted_by(chosen, 5, 10, 15, 20)
    for count, expected in zip(found, (5000, 5000 + 7500, 15_000, 15_000), strict=True):
        assert abs(count - expected) < 4 * expected**0.5
    waits = np.diff(np.sort(np.concatenate([times for times, *_ in begin_streams(chosen)])))
    assert waits.std() == pytest.approx(waits.mean(), rel=0.05)  # exponential: as wide as it is long


def begin_streams(chosen: Scenario) -> list[tuple[np.ndarray, ...]]:
    """The times that the first windows hold."""
    played = begin(chosen)
    played.until(1)
    streams = played.world.streams
    assert streams is not None
    return [(times[times < 5 * S],) for times, *_ in streams.kept.values()]


@given(
    st.lists(
        st.tuples(st.floats(0, 1e5), st.floats(0, 1e5), st.integers(1, 10**12)).filter(
            lambda leg: leg[0] + leg[1] > 0.01
        ),
        min_size=1,
        max_size=6,
    ),
    st.lists(st.floats(0, 0.999), min_size=1, max_size=20),
)
def test_when_so_many_are_due_so_many_are_due(legs: list[tuple[float, float, int]], shares: list[float]) -> None:
    pace = Pace([Leg(*leg) for leg in legs])
    places = np.sort(np.array(shares)) * pace.counts[-1]
    times = pace.times_ns(places)
    assert (np.diff(times) >= 0).all()
    assert (times >= 0).all() and (times < pace.end_ns).all()
    for place, time in zip(places, times.tolist(), strict=True):
        assert pace.due(time) <= place * (1 + 1e-9) + 1e-3
        assert pace.due(time + 2) >= place * (1 - 1e-9) - 1e-3


# --- what a generator can do -----------------------------------------------------------------------------


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50), st.integers(1, 10**5), st.integers(0, 10**6))
def test_a_generator_keeps_its_gap_and_never_waits_in_vain(due: list[int], gap: int, free: int) -> None:
    times = np.sort(np.array(due))
    sent = not_faster_than(times, gap, free)
    assert (np.diff(sent) >= gap).all() and (sent >= times).all() and sent[0] >= free
    for k, at in enumerate(sent.tolist()):
        assert at == max(int(times[k]), free if k == 0 else int(sent[k - 1]) + gap)


@pytest.mark.parametrize("arrivals", ["uniform", "poisson"])
def test_a_generator_sends_no_faster_than_it_can(arrivals: str) -> None:
    """Offered a hundred a second and able to send forty, for twenty seconds: a real harness reports 40 tx/s."""
    load = [open_(rate="100 tx/s", send_limit="40 tx/s", arrivals=arrivals)]
    chosen = scenario(duration="20 s", workload=load)
    assert submitted_by(chosen, 5, 20) == [pytest.approx(200, abs=12), pytest.approx(800, abs=12)]
    assert both_paths(chosen).metrics["offered_nominal_tps"] == 40


def test_a_burst_waits_in_the_generator() -> None:
    """A hundred within a tenth of a second, ten a second: the last leaves after ten, whatever window it was due in."""
    steps = [{"rate": "1000 tx/s", "for": "100 ms"}]
    chosen = scenario(duration="20 s", workload=[open_(steps=steps, arrivals="uniform", send_limit="10 tx/s")])
    assert submitted_by(chosen, 5, 9, 20) == [pytest.approx(50, abs=4), pytest.approx(90, abs=4), 100]


@pytest.mark.parametrize("arrivals", ["uniform", "poisson"])
def test_a_fixed_number(arrivals: str) -> None:
    chosen = scenario(duration="20 s", workload=[open_(rate="100 tx/s", count=77, arrivals=arrivals)])
    assert both_paths(chosen).metrics["submitted"] == 77
    many = scenario(duration="20 s", workload=[open_(steps=STEPS, count=133, arrivals=arrivals)])
    assert both_paths(many).metrics["submitted"] == 133


# --- closed loops ----------------------------------------------------------------------------------------


def closed(**more: Any) -> dict[str, Any]:
    """A closed loop of four requests."""
    return {"kind": "closed", "outstanding": 4, "bytes": "1 kB", **more}


def test_time_to_think_lies_between_answer_and_request() -> None:
    """One client at each voter, the leader's is answered after 50 ms: every 1.05 s from half a second on."""
    result = both_paths(scenario(duration="20 s", workload=[closed(think_time="1 s")]))
    counts = dict(
        zip(result.tables["latency_by_place"]["place"], result.tables["latency_by_place"]["transactions"], strict=True)
    )
    assert counts["0"] == int((20 - 0.5) / 1.05) + 1


def test_time_to_think_may_be_drawn() -> None:
    """Interactive response time law: clients = throughput x (response + think), within a few per cent."""
    load = [closed(outstanding=400, think_time="2 s", thinking="exponential")]
    chosen = scenario(duration="100 s", workload=load, warm_up="5 s", block={"interval": "10 ms"})
    metrics = both_paths(chosen).metrics
    response_s = metrics["latency_mean_ms"] / 1000
    assert metrics["committed_tps"] * (2 + response_s) == pytest.approx(400, rel=0.02)


def test_a_closed_loop_of_a_fixed_number() -> None:
    metrics = both_paths(scenario(duration="20 s", workload=[closed(count=100)])).metrics
    assert metrics["submitted"] == metrics["acknowledged"] == 100


def test_answers_to_others_start_no_request_of_a_closed_loop() -> None:
    """An open loop beside it, and a second closed loop: each has its own requests under way, and no more."""
    load = [closed(), closed(outstanding=2, name="pair", think_time="1 s"), open_(rate="50 tx/s")]
    chosen = scenario(duration="5 s", workload=load)
    played = begin(chosen)
    classes = played.world.run.engine.run_state[ledger.CLASS].reshape(-1, ledger.CLASS_WIDTH)
    for step in range(1, 50):
        played.until(step * S // 10)
        under_way = classes[:, ledger.CLASS_SUBMITTED] - classes[:, ledger.CLASS_ACKED]
        assert under_way[0] == 4 and under_way[1] <= 2
    table = both_paths(chosen).tables["classes"]
    assert table["name"] == ["closed", "pair", "open"]
    assert table["submitted"][1] <= 2 * 5


# --- what is measured ------------------------------------------------------------------------------------


def test_warm_up_and_cool_down_are_left_out() -> None:
    """Ten a second for twenty seconds, five and three of them not measured."""
    load = [open_(rate="10 tx/s", arrivals="uniform")]
    metrics = both_paths(scenario(duration="20 s", workload=load, warm_up="5 s", cool_down="3 s")).metrics
    assert metrics["measured_transactions"] == 120
    assert metrics["committed_tps"] == pytest.approx(10, rel=0.02)
    assert metrics["submitted"] == 200


def test_a_burst_at_the_end_changes_nothing_that_is_measured() -> None:
    load = [open_(steps=[{"rate": "10 tx/s", "for": "18 s"}, {"rate": "900 tx/s", "for": "2 s"}], arrivals="uniform")]
    calm = [open_(rate="10 tx/s", arrivals="uniform")]
    times = {"duration": "20 s", "warm_up": "5 s", "cool_down": "3 s"}
    one, other = (both_paths(scenario(workload=some, **times)).metrics for some in (load, calm))
    for name in ("latency_p99_ms", "latency_mean_ms", "committed_tps", "decision_latency_mean_ms"):
        assert one[name] == pytest.approx(other[name]), name


def test_nothing_is_left_to_measure() -> None:
    with pytest.raises(ScenarioError, match="and warm_up together leave nothing of the duration"):
        scenario(duration="20 s", warm_up="10 s", cool_down="10 s")


# --- traces ----------------------------------------------------------------------------------------------

ROWS = """time,class,bytes,site
0.5,trade,300,HAK
0.5,loans,9000,SYX
1.25,trade,500,HAK
3,trade,300,SYX
"""


def traced(folder: Path, text: str | bytes, name: str = "t.csv", **more: Any) -> Path:
    """A scenario whose clients replay a file."""
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    file = folder / "s.yaml"
    network = {"sites": ["HAK", "SYX", "DZH", "WNG"], "latency": {"model": "fixed", "one_way": "10 ms"}}
    entry = {"kind": "trace", "file": name, **more}
    data = {"duration": "10 s", "network": network, "protocol": {"name": "pbft"}, "workload": [entry]}
    file.write_text(json.dumps(data))
    return file


def replayed(chosen: Scenario) -> list[tuple[str, int, int]]:
    """Class, size and number of transactions submitted."""
    table = both_paths(chosen).tables["classes"]
    return sorted(zip(table["name"], table["bytes"], table["submitted"], strict=True))


EXPECTED = [("loans", 9000, 1), ("trade", 300, 2), ("trade", 500, 1)]


def test_a_trace_is_replayed(tmp_path: Path) -> None:
    chosen = load_scenario(traced(tmp_path, ROWS))
    assert replayed(chosen) == EXPECTED
    assert submitted_by(chosen, 0.499, 0.5, 1.25, 2.9, 3) == [0, 2, 3, 3, 4]
    waits = both_paths(chosen).tables["latency_by_place"]
    assert list(zip(waits["place"], waits["class"], waits["transactions"], strict=True)) == [
        ("HAK", "trade", 2), ("SYX", "trade", 1), ("SYX", "loans", 1),
    ]  # fmt: skip


def test_the_same_trace_as_parquet_or_with_other_names(tmp_path: Path) -> None:
    frame = pandas.DataFrame(
        {"when": [500, 500, 1250, 3000], "what": ["trade", "loans", "trade", "trade"], "size": [300, 9000, 500, 300],
         "where": ["HAK", "SYX", "HAK", "SYX"]}
    )  # fmt: skip
    names = {"columns": {"time": "when", "class": "what", "bytes": "size", "site": "where"}, "time_unit": "ms"}
    frame.to_parquet(tmp_path / "p.parquet")
    data = (tmp_path / "p.parquet").read_bytes()
    assert replayed(load_scenario(traced(tmp_path, data, "t.parquet", **names))) == EXPECTED
    semicolons = "\ufeff" + frame.to_csv(index=False, sep=";")
    assert replayed(load_scenario(traced(tmp_path, semicolons, **names))) == EXPECTED


def test_a_trace_of_times_alone(tmp_path: Path) -> None:
    """Epoch times, unsorted: from the first on, at all places in turn, of one size and class."""
    text = "time\n1700000002.5\n1700000000\n1700000001\n1700000004\n"
    chosen = load_scenario(traced(tmp_path, text, starts_at="first", bytes="700 B"))
    assert replayed(chosen) == [("trace", 700, 4)]
    assert submitted_by(chosen, 0, 1, 2.4, 2.5, 4) == [1, 2, 2, 3, 4]


def test_a_stored_scenario_needs_no_file(tmp_path: Path) -> None:
    """What a result is made of stands in its scenario, so that it can be read where the file is gone."""
    chosen = load_scenario(traced(tmp_path, ROWS))
    data = json.loads(json.dumps(resolved(chosen)))
    (tmp_path / "t.csv").unlink()
    load = data["workload"][0]
    again = type(chosen.workload[0]).model_validate(load)
    assert (again.rows == chosen.workload[0].rows).all()  # type: ignore[union-attr]


def test_a_trace_beside_the_file_that_another_extends(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    traced(tmp_path / "base", ROWS)
    (tmp_path / "more.yaml").write_text("extends: base/s.yaml\nduration: 20 s\n")
    assert replayed(load_scenario(tmp_path / "more.yaml")) == EXPECTED


BAD = {
    "no time": (ROWS.replace("time", "when"), {}, "the file has no column time; it has when, class, bytes, site"),
    "no such column": (ROWS, {"columns": {"bytes": "size"}}, "the file has no column size"),
    "not a number": (ROWS.replace("1.25", "soon"), {}, "says 'soon' in column time, row 3; write a number"),
    "negative": (ROWS.replace("1.25", "-1"), {}, "says '-1' in column time, row 3"),
    "empty cell": (ROWS.replace("1.25", ""), {}, "says '' in column time, row 3"),
    "no bytes": (ROWS.replace("9000", "0"), {}, "has sizes that are not between 1 B and 1 GB"),
    "unknown site": (ROWS.replace("SYX", "XXX"), {}, "names the site XXX"),
    "formula": (ROWS.replace("loans", "=cmd()"), {}, "has the class '=cmd()'; write a short name"),
    "no rows": ("time\n", {}, "has no rows"),
    "empty": ("", {}, "is no table"),
    "not text": (b"\x00\xff\xfe\x01" * 50, {}, "is no table"),
    "parquet in name": (b"PAR1" + b"\x00" * 50, {}, "is no table"),
    "late": (ROWS.replace("0.5", "50"), {"time_unit": "s"}, None),
    "all late": ("time\n20\n", {}, "begins at 20 s, after the run is over; write starts_at: first"),
    "epoch in ms": ("time\n1700000000000\n", {}, "has times beyond 9 years; write another time_unit"),
    "no file": (ROWS, {"file": "gone.csv"}, "cannot be read"),
    "a folder": (ROWS, {"file": "."}, "cannot be read; give the path"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_traces(case: str, tmp_path: Path) -> None:
    text, more, rule = BAD[case]
    file = traced(tmp_path, text)
    data = json.loads(file.read_text())
    data["workload"][0] |= more
    file.write_text(json.dumps(data))
    if rule is None:
        assert load_scenario(file).duration_ns == 10 * S
        return
    with pytest.raises(ScenarioError, match=r"s\.yaml:1:\d+: ") as error:
        load_scenario(file)
    assert rule in str(error.value)
    assert "; " in str(error.value)


# --- bad input -------------------------------------------------------------------------------------------

WRONG = {
    "rate and steps": (open_(rate="5 tx/s", steps=STEPS), "and rate are two answers to one question; remove one"),
    "neither": (open_(), "says neither rate nor steps; write rate: 100 tx/s"),
    "a shape of steps": (open_(steps=STEPS, shape="office-hours"), "goes with a rate; remove it"),
    "steps of nothing": (open_(steps=[{"rate": "0 tx/s", "for": "5 s"}]), "send nothing at all"),
    "no trace": ({"kind": "trace"}, "says no file; write file: transactions.csv"),
    "a limit of nothing": (open_(rate="5 tx/s", send_limit="0 tx/s"), "greater than 0"),
    "no think time": (closed(think_time="-1 s"), "must not be negative"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_clients(case: str) -> None:
    entry, rule = WRONG[case]
    with pytest.raises(ScenarioError) as error:
        scenario(workload=[entry])
    assert rule in str(error.value)
