"""Loading: every bad input gives one line with place, rule and remedy; good input is merged right."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import Field

from sim.parameters import Count, Nanoseconds, Parameters, quantity
from sim.scenario import source
from sim.scenario.errors import ScenarioError
from sim.scenario.load import load_scenario
from sim.scenario.schema import Scenario, json_schema, resolved, scenario_hash
from tests.runs import scenario


class _Quorums(Parameters):
    request_timeout_ns: Nanoseconds = quantity("2 s", "how long a backup waits")
    faults: Count = Field(default=1, ge=0, description="f")


class _Terms(Parameters):
    heartbeat_ns: Nanoseconds = quantity("50 ms", "time between heartbeats", positive=True)


@dataclasses.dataclass(frozen=True)
class _Entry:
    parameters: type[Parameters]
    content_names: tuple[str, ...] = ("Propose",)
    vote_names: tuple[str, ...] = ("PREPARE", "COMMIT")

    def check(self, parameters: Parameters, n: int) -> None:
        if isinstance(parameters, _Quorums) and n < 3 * parameters.faults + 1:
            needed = 3 * parameters.faults + 1
            raise ValueError(f"{parameters.faults} faults need {needed} voters (3f + 1); add voters or lower faults")


TABLE = {"pbft": _Entry(_Quorums), "raft": _Entry(_Terms)}

GOOD = """\
duration: 10 min
warm_up: 30 s
network:
  sites: [HAK, RSC, WEC, SYX]
  latency: {model: distance, quality: mid}
  loss: 0 %
protocol: {name: pbft, request_timeout: 2 s}
workload:
  - {kind: open, rate: 80 tx/s, bytes: 500 B}
faults:
  - {at: 60 s, for: 30 s, lose_domain: {domain: N}}
"""

Load = Callable[..., Scenario]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a text as the file s.yaml of the current directory."""
    monkeypatch.chdir(tmp_path)

    def load(text: str, *overrides: str, seed: int | None = None) -> Scenario:
        Path("s.yaml").write_text(text, encoding="utf-8")
        return load_scenario("s.yaml", overrides, seed, protocols=TABLE)

    return load


def _message(load: Load, text: str, *overrides: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        load(text, *overrides)
    return str(caught.value)


def test_a_good_scenario_has_its_defaults(load: Load) -> None:
    scenario = load(GOOD)
    assert (scenario.name, scenario.seed, scenario.network.n) == ("s", 1, 4)
    assert scenario.duration_ns == 600 * 10**9
    assert scenario.protocol.parameters == _Quorums(request_timeout_ns=2 * 10**9)
    assert scenario.faults[0].end_ns == 90 * 10**9
    assert scenario.faults[0].kind == "lose_domain"


BAD = {
    # what is replaced in GOOD, by what -> line, column, value, rule, remedy
    "misspelt key": ("  latency:", "  latancy:", "5:3", "latancy", "unknown key in network", "'latency'"),
    "misspelt top key": ("warm_up:", "warmup:", "2:1", "warmup", "unknown key in a scenario", "'warm_up'"),
    "misspelt key in a model": ("quality: mid", "qualty: mid", "5:30", "qualty", "unknown key", "'quality'"),
    "misspelt key in a list": (
        "bytes: 500",
        "byte: 500",
        "9:33",
        "byte",
        "unknown key in workload[0]",
        "'bytes'",
    ),
    "misspelt parameter": (
        "request_timeout:",
        "request_timout:",
        "7:24",
        "request_timout",
        "unknown key in protocol",
        "'request_timeout'",
    ),
    "key with unit": ("warm_up: 30 s", "warm_up_ns: 30 s", "2:1", "warm_up_ns", "unknown key", "'warm_up'"),
    "wrong unit": ("10 min", "10 kB", "1:11", "10 kB", "is a size where a time belongs", '"20 ms"'),
    "unknown unit": ("10 min", "10 mims", "1:11", "10 mims", "unknown unit 'mims'", '"20 ms"'),
    "no unit": ("10 min", "600", "1:11", "600", "has no unit", '"600 ms" or "600 s"'),
    "wrong unit of a parameter": ("timeout: 2 s", "timeout: 2 B", "7:41", "2 B", "is a size", '"20 ms"'),
    "negative time": ("30 s\nnet", "-30 s\nnet", "2:10", "-30 s", "must not be negative", '"20 ms"'),
    "negative delay": (
        "{model: distance, quality: mid}",
        "{model: fixed, one_way: -1 ms}",
        "5:36",
        "-1 ms",
        "must not be negative",
        '"20 ms"',
    ),
    "NaN": ("0 %", ".nan", "6:9", ".nan", "must be a finite number", '"5 %"'),
    "NaN text": ("80 tx/s", "nan tx/s", "9:24", "nan tx/s", "must be a finite number", '"80 tx/s"'),
    "infinity": ("10 min", ".inf", "1:11", ".inf", "must be a finite number", '"20 ms"'),
    "zero rate": ("80 tx/s", "0 tx/s", "9:24", "0 tx/s", "must be greater than 0", "raise it"),
    "loss of all": ("0 %", "100 %", "6:9", "100 %", "must be less than 1", "lower it"),
    "unknown site": ("SYX]", "SYY]", "4:26", "SYY", "no site has this code", "'SYX'"),
    "site by name": ("SYX]", "Sanya]", "4:26", "Sanya", "sites are given by code", "write SYX"),
    "empty domain": ("domain: N", "domain: W", "11:49", "W", "holds no voter", "N, E"),
    "unknown domain": (
        "domain: N",
        "domain: Q",
        "11:49",
        "Q",
        "no site is in such a fault domain",
        "choose from: N",
    ),
    "too few voters": (
        "timeout: 2 s",
        "timeout: 2 s, faults: 2",
        "4:10",
        "4 sites",
        "need 7 voters",
        "add voters",
    ),
    "no such protocol": (
        "name: pbft",
        "name: pbftt",
        "7:18",
        "pbftt",
        "no such protocol",
        "'pbft'? (known: pbft, raft)",
    ),
    "long warm-up": (
        "warm_up: 30 s",
        "warm_up: 11 min",
        "2:10",
        "11 min",
        "must be shorter than the duration",
        "shorten",
    ),
    "late fault": (
        "at: 60 s",
        "at: 60 min",
        "11:10",
        "60 min",
        "must be earlier than the end of the run",
        "earlier",
    ),
    "endless fault": ("for: 30 s", "for: 30 min", "11:21", "30 min", "ends at 31 min", "shorten it"),
    "two ends": ("for: 30 s", "for: 3 s, until: 70 s", "11:33", "70 s", "says the same as for", "remove one"),
    "no such node": (
        "lose_domain: {domain: N}",
        "crash: {nodes: [0, 4]}",
        "11:46",
        "4",
        "no node has this number",
        "nodes are 0 to 3",
    ),
    "overlapping groups": (
        "lose_domain: {domain: N}",
        "partition: {groups: [[0, 1], [1, 2]]}",
        "11:57",
        "1",
        "node 1 is in group 1 already",
        "remove it",
    ),
    "no action": (
        ", lose_domain: {domain: N}",
        "",
        "11:5",
        "faults[0]",
        "a fault is exactly one of crash",
        "split it",
    ),
    "both kinds of voters": (
        "  loss: 0 %",
        "  nodes: 4",
        "6:10",
        "4",
        "exactly one of nodes and sites",
        "remove one",
    ),
    "no voters": (
        "  sites: [HAK, RSC, WEC, SYX]\n",
        "",
        "3:1",
        "network",
        "exactly one of nodes and sites",
        "write nodes",
    ),
    "unknown model": (
        "model: distance",
        "model: distanse",
        "5:20",
        "distanse",
        "not among the choices",
        "'distance'",
    ),
    "no model": (
        "{model: distance, quality: mid}",
        "{quality: mid}",
        "5:3",
        "network.latency",
        "key model is missing",
        "add",
    ),
    "unknown choice": ("quality: mid", "quality: med", "5:39", "med", "not among the choices", "'mid'"),
    "missing key": (
        "duration: 10 min\n",
        "",
        "1:1",
        "scenario",
        "the key duration is missing",
        "add duration:",
    ),
    "missing inner key": (
        "rate: 80 tx/s, ",
        "",
        "9:5",
        "workload[0]",
        "says neither rate nor steps",
        "write rate: 100 tx/s",
    ),
    "not a mapping": (
        "{model: distance, quality: mid}",
        "distance",
        "5:12",
        "distance",
        "must be a mapping",
        "key: value",
    ),
    "not a list": ("workload:\n  -", "workload:\n   ", "9:5", "a mapping", "must be a list", "write [a, b]"),
    "number as text": (
        "duration: 10 min",
        "duration: 10 min\nseed: one",
        "2:7",
        "one",
        "must be a whole number",
        "write",
    ),
    "duplicate key": (
        "warm_up: 30 s",
        "duration: 5 min",
        "2:1",
        "duration",
        "duplicate key, first given at 1:1",
        "remove",
    ),
    "tag": (
        "10 min",
        "!!python/object:os.system x",
        "1:11",
        "!!python/object:os.system",
        "tags are not allowed",
        "plain",
    ),
    "merge key": (
        "  loss: 0 %",
        "  <<: {loss: 0 %}",
        "6:3",
        "<<",
        "merge keys are not read",
        "extends: other.yaml",
    ),
    "unknown alias": (
        "10 min",
        "*nowhere",
        "1:11",
        "*nowhere",
        "no finished &nowhere comes before",
        "write it out",
    ),
    "syntax": ("warm_up: 30 s", "warm_up: [30 s", "3:8", "network:", "not YAML", "check indentation"),
    "tab": ("  loss: 0 %", "\tloss: 0 %", "6:1", "loss: 0 %", "not YAML", "check indentation"),
    "control character": (
        "10 min",
        "10\x07 min",
        "1:13",
        "character U+0007",
        "may not be in a scenario",
        "remove it",
    ),
    "two documents": (
        "warm_up: 30 s\n",
        "---\n",
        "2:1",
        "---",
        "a file holds one scenario",
        "split the file",
    ),
    "extends nothing": (
        "warm_up: 30 s",
        "extends: gone.yaml",
        "2:10",
        "gone.yaml",
        "no such file",
        "relative",
    ),
    "extends itself": ("warm_up: 30 s", "extends: s.yaml", "2:10", "s.yaml", "in a circle", "remove one"),
    "jitter beyond latency": (
        "loss: 0 %",
        "jitter: {model: uniform, plus_minus: 1 ms}",
        "6:40",
        "1 ms",
        "exceeds the shortest latency, 250 us",
        "lower it",
    ),
    "clients nowhere": ("bytes: 500 B", "sites: [HAC]", "9:41", "HAC", "no site has this code", "'HAK'"),
    "backlog and clients": (
        "bytes: 500 B}",
        "bytes: 500 B}\n  - {kind: backlog}",
        "10:12",
        "backlog",
        "nothing else can be sent",
        "only entry",
    ),
    "graph without a path": (
        "loss: 0 %",
        "topology: {edges: [{from: HAK, to: RSC}]}",
        "6:3",
        "network.topology",
        "no path leads from HAK to WEC",
        "add an edge",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(load: Load, case: str) -> None:
    old, new, place, value, rule, remedy = BAD[case]
    assert GOOD.count(old) == 1, "the replacement must hit one place"
    message = _message(load, GOOD.replace(old, new))
    assert message.startswith(f"s.yaml:{place}: {value}: "), message
    assert rule in message
    assert remedy in message.split("; ", 1)[1]
    assert "\n" not in message, "one mistake, one line"


def test_three_voters_for_one_fault(load: Load) -> None:
    text = GOOD.replace("sites: [HAK, RSC, WEC, SYX]", "nodes: 3").replace(
        "model: distance, quality: mid", "model: fixed, one_way: 1 ms"
    )
    text = text[: text.index("faults:")]
    assert _message(load, text) == "s.yaml:4:10: 3: 1 faults need 4 voters (3f + 1); add voters or lower faults"


@pytest.mark.parametrize(
    ("protocol", "key", "complaint"),
    [
        ("tendermint, power: [1, 2]", "power", "a list: power: 2 values for 4 voters; "),
        ("raft, election_timeout_low: 5 s", "election_timeout_low", "5 s: election_timeout_low: 5 s is above "),
        ("raft, election_timeout_high: 9 ms", "election_timeout_high", "9 ms: election_timeout_low: 150 ms is above "),
        ("raft, check_quorum: false, reads: lease", "reads", "lease: reads: under a lease they need "),
        ("hotstuff, view_timeout: 40 s", "view_timeout", "40 s: view_timeout_max: 30 s must not be below "),
        ("hotstuff, min_block_delay: 3 s", "min_block_delay", "3 s: view_timeout: 2 s must be above min_block_delay"),
        ("rpbft, group: 2, rotate: 3", "rotate", "3: rotate: 3 must not be above group: 2"),
        ("kauri, faults: 2", "faults", "2: faults: 2 needs n >= 3f + 1 = 7 voters, not 4; lower faults"),
    ],
)
def test_a_rule_of_the_protocol_points_at_the_key_that_it_names(
    tmp_path: Path, protocol: str, key: str, complaint: str
) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(GOOD.replace("pbft, request_timeout: 2 s", protocol))
    column = f"protocol: {{name: {protocol}}}".index(f"{key}: ") + len(f"{key}: ") + 1
    with pytest.raises(ScenarioError) as caught:
        load_scenario(file)
    assert str(caught.value).startswith(f"{file}:7:{column}: {complaint}")


@pytest.mark.parametrize(
    ("text", "value", "rule"),
    [
        ("", "s.yaml", "is empty"),
        ("# only a comment\n", "s.yaml", "is empty"),
        ("---\n", "s.yaml", "is empty"),
        ("- 1\n- 2\n", "a list", "a scenario is a mapping"),
        ("hello\n", "hello", "a scenario is a mapping"),
    ],
)
def test_no_scenario_at_all(load: Load, text: str, value: str, rule: str) -> None:
    message = _message(load, text)
    assert message.startswith(f"s.yaml:1:1: {value}: {rule}"[: len(f"s.yaml:1:1: {value}: ")])
    assert rule in message
    assert "; " in message


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "big.yaml").write_text("#" * 1_000_001)
    (tmp_path / "endless.yaml").symlink_to("/dev/zero")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    for name, rule in {
        ".": "is a directory",
        "none.yaml": "no such file",
        "binary.yaml": "not UTF-8",
        "big.yaml": "1 MB",
        "endless.yaml": "is a pipe, a device or a folder",
        "loop.yaml": "cannot be read",
        "pipe.yaml": "is a pipe",
        "x" * 300: "cannot be read",
        "zero\0byte": "cannot be read",
    }.items():
        path = tmp_path / name
        with pytest.raises(ScenarioError) as caught:
            load_scenario(path, protocols=TABLE)
        assert str(caught.value).startswith(f"{path}:1:1: ")
        assert rule in str(caught.value)
        assert "; " in str(caught.value)


@pytest.mark.parametrize("name", ["loop.yaml", "x" * 300, '"zero\\0byte"'])
def test_extending_what_cannot_be_a_file(load: Load, tmp_path: Path, name: str) -> None:
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    message = _message(load, f"extends: {name}")
    assert message.startswith("s.yaml:1:10: ")
    assert "no such file beside s.yaml; give a path relative to it" in message


@pytest.mark.parametrize("name", [".".join(["a"] * 2_000), "9" * 5_000])
def test_an_override_of_a_path_that_no_scenario_has(load: Load, name: str) -> None:
    assert "an override is a path and a value; write --set network.nodes=16" in _message(load, GOOD, f"{name}=1")


@pytest.mark.parametrize("name", ["long.csv", "/dev/zero", '"zero\\0byte"'])
def test_a_table_of_round_trips_that_is_none(load: Load, tmp_path: Path, name: str) -> None:
    (tmp_path / "long.csv").write_text("from,to,rtt_ms\n" + "x" * 200_000 + ",HAK,1\n", encoding="utf-8")
    latency = f"{{model: matrix, file: {name}}}"
    message = _message(load, GOOD.replace("{model: distance, quality: mid}", latency))
    assert message.startswith("s.yaml:5:")
    assert "; give the path of a csv file" in message


def test_a_study_is_sent_to_sweep(tmp_path: Path) -> None:
    study = tmp_path / "mine.yaml"
    study.write_text("base: other.yaml\nsweep: {grid: {network.nodes: [4, 7]}}\n")
    with pytest.raises(ScenarioError, match=r"mine\.yaml: is a study, not a scenario; use pilotzone sweep"):
        load_scenario(study)


def test_a_yaml_bomb_is_refused(load: Load) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    message = _message(load, "\n".join(lines))
    assert message.startswith("s.yaml:")
    assert "aliases expand to more than 100 copies" in message
    assert "write the values out" in message


def test_deep_nesting_is_refused(load: Load) -> None:
    assert "nested more than 50 levels deep; flatten it" in _message(load, "a: " + "[" * 5000)


def test_many_values_are_refused(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source.NODES_MAX == 100_000
    monkeypatch.setattr(source, "NODES_MAX", 2_000)  # to read so many takes seconds
    assert "more than 2000 values" in _message(load, "a: [" + "1," * 2_001 + "]")


def test_few_aliases_are_fine(load: Load) -> None:
    text = GOOD.replace("{kind: open, rate: 80 tx/s, bytes: 500 B}", "&one {kind: open, rate: 80 tx/s}\n  - *one")
    assert len(load(text).workload) == 2


def test_five_problems_are_shown(load: Load) -> None:
    text = GOOD + "".join(f"extra_{i}: 1\n" for i in range(8))
    with pytest.raises(ScenarioError) as caught:
        load(text)
    assert len(caught.value.problems) == 8
    assert len(str(caught.value).splitlines()) == 5
    assert str(caught.value).endswith("(and 3 more)")


def test_problems_of_protocol_and_scenario_show_together(load: Load) -> None:
    message = _message(load, GOOD.replace("10 min", "10 kB").replace("timeout: 2 s", "timeout: 2 B"))
    assert [line.split(": ")[0] for line in message.splitlines()] == ["s.yaml:1:11", "s.yaml:7:41"]


def test_overrides_set_values(load: Load) -> None:
    scenario = load(
        GOOD,
        "network.loss=1 %",
        "workload.0.rate=5 tx/s",
        "network.sites.3=LSH",
        "block.interval=1 s",
        seed=9,
    )
    assert scenario.network.loss == 0.01
    assert scenario.network.sites == ("HAK", "RSC", "WEC", "LSH")
    assert (scenario.workload[0].rate_tps, scenario.block.interval_ns, scenario.seed) == (5.0, 10**9, 9)


def test_the_later_override_wins_and_null_removes(load: Load) -> None:
    scenario = load(
        GOOD, "seed=3", "seed=4", "faults=null", "network.sites=null", "network.nodes=4", "network.site=HAK"
    )
    assert (scenario.seed, scenario.faults, scenario.network.nodes) == (4, (), 4)


def test_another_protocol_starts_afresh(load: Load) -> None:
    assert load(GOOD, "protocol.heartbeat=1 s", "protocol.name=raft").protocol.parameters == _Terms(heartbeat_ns=10**9)


@pytest.mark.parametrize(
    ("override", "rule", "remedy"),
    [
        ("network.loss=5 ms", "5 ms: is a time where a fraction belongs", '"5 %"'),
        ("netwrk.loss=5 %", "netwrk: unknown key in a scenario", "'network'"),
        ("network.los=5 %", "los: unknown key in network", "'loss'"),
        ("workload.7.rate=5 tx/s", "7: the list has 1 entries, 0 to 0", "write an index that exists"),
        ("duration.x=5", "x: duration is a single value here", "set duration itself"),
        ("nonsense", "nonsense: an override is a path and a value", "--set network.nodes=16"),
        ("=5", "=5: an override is a path and a value", "--set network.nodes=16"),
        ("network.loss={", "not YAML", "check"),
        ("extends=other.yaml", "extends: what a scenario extends is read before", "extends: other.yaml"),
        ('network.loss=""', '"": must be a fraction', '"5 %"'),
        ("protocol.request_timeout=2", "2: has no unit", '"2 ms" or "2 s"'),
        ("faults.0.at=700 s", "700 s: must be earlier than the end of the run, 10 min", "earlier time"),
    ],
)
def test_a_bad_override_names_itself(load: Load, override: str, rule: str, remedy: str) -> None:
    message = _message(load, GOOD, override)
    assert message.startswith(f"--set {override}: "), message
    assert rule in message
    assert remedy in message.split("; ", 1)[1]


def test_extends_merges_deeply_and_keeps_places(load: Load, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "rtt.csv").write_text("from,to,rtt_ms\na,b,7\n")
    base = GOOD.replace("model: distance, quality: mid", "model: matrix, file: rtt.csv, regions: [a, b]")
    base = base.replace("sites: [HAK, RSC, WEC, SYX]", "nodes: 4")[
        : -len("faults:\n  - {at: 60 s, for: 30 s, lose_domain: {domain: N}}\n")
    ]
    (tmp_path / "parts" / "base.yaml").write_text(base)
    child = "extends: parts/base.yaml\nnetwork:\n  loss: 2 %\nprotocol: {request_timeout: 3 s}\n"
    scenario = load(child)
    assert (scenario.name, scenario.network.loss, scenario.network.places) == ("s", 0.02, ("a", "b"))
    assert scenario.protocol.parameters == _Quorums(request_timeout_ns=3 * 10**9)
    assert _message(load, child.replace("2 %", "2 s")).startswith("s.yaml:3:9: 2 s: ")
    (tmp_path / "parts" / "base.yaml").write_text(base.replace("rate: 80 tx/s", "rate: 80 kB"))
    assert _message(load, child).startswith("parts/base.yaml:9:24: 80 kB: ")


def test_extends_with_another_model_starts_that_section_afresh(load: Load, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(GOOD)
    scenario = load("extends: base.yaml\nnetwork: {latency: {model: fixed, one_way: 1 ms}}\nprotocol: {name: raft}\n")
    assert scenario.network.latency.model == "fixed"
    assert scenario.protocol.parameters == _Terms()


def test_words_are_words(load: Load) -> None:
    assert load(GOOD + "trace: off\n").trace == "off"


def test_the_resolved_form_is_plain_complete_and_canonical(load: Load) -> None:
    scenario = load(GOOD)
    plain = resolved(scenario)
    assert plain["duration_ns"] == 600 * 10**9
    assert plain["block"] == {
        "max_transactions": 1000, "max_bytes": 1_000_000, "interval_ns": 0, "batch_timeout_ns": 0,
        "batch_from": "transaction", "period_ns": None,
        "empty_period_ns": None, "built": "when_due", "rebuilt_every_ns": None, "ticks": False, "time_step_ns": 0,
    }  # fmt: skip
    assert plain["protocol"] == {"name": "pbft", "parameters": {"request_timeout_ns": 2 * 10**9, "faults": 1}}
    # The same content written differently is the same scenario; another seed is another.
    assert scenario_hash(load(GOOD.replace("10 min", "600 s"))) == scenario_hash(scenario)
    assert scenario_hash(load(GOOD, seed=2)) != scenario_hash(scenario)


def test_the_schema_offers_protocols_by_name() -> None:
    choices = json_schema(TABLE)["properties"]["protocol"]["oneOf"]
    assert [choice["properties"]["name"]["const"] for choice in choices] == ["pbft", "raft"]
    assert choices[0]["properties"]["request_timeout"]["x-unit"] == "time; ns inside"


@pytest.mark.parametrize("protocol", ["ibft", "qbft", "tendermint"])
def test_nobody_passes_transactions_on_to_a_leader_who_waits_for_them_in_turn(protocol: str) -> None:
    """Who alone holds one would wait for ever, without any fault (campaign --seed 30, tendermint 119)."""
    with pytest.raises(ScenarioError, match="there is no leader to pass them on to; write broadcast, or auto"):
        scenario(4, protocol=protocol, clients={"dissemination": "forward"})
    scenario(4, protocol="jolteon", clients={"dissemination": "forward"})


IBFT = """
duration: 10 s
network: {nodes: 4, latency: {model: fixed, one_way: 5 ms}}
protocol: {name: ibft, round_timeout: 10 s, proposer_policy: sticky}
workload: [{kind: backlog}]
"""


def test_another_protocol_keeps_the_parameters_that_it_has_too(tmp_path: Path) -> None:
    """By an override, by a file that extends another, in any order; and says which it has not."""
    (tmp_path / "ibft.yaml").write_text(IBFT)
    (tmp_path / "qbft.yaml").write_text("extends: ibft.yaml\nprotocol: {name: qbft}\n")
    dropped = ("qbft has no proposer_policy: what was written for ibft is dropped",)
    for found in (
        load_scenario(tmp_path / "ibft.yaml", ["protocol.name=qbft"]),
        load_scenario(tmp_path / "qbft.yaml"),
        load_scenario(tmp_path / "ibft.yaml", ["protocol.name=pbft", "protocol.name=qbft"]),
    ):
        assert found.protocol.name == "qbft"
        assert found.protocol.parameters.round_timeout_ns == 10_000_000_000
        assert found.protocol.notes == dropped
    own = load_scenario(tmp_path / "ibft.yaml", ["protocol.round_timeout=3 s", "protocol.name=qbft"])
    assert own.protocol.parameters.round_timeout_ns == 3_000_000_000
    with pytest.raises(ScenarioError, match="proposer_policy"):  # written for the new one: an error, as ever
        load_scenario(tmp_path / "ibft.yaml", ["protocol.name=qbft", "protocol.proposer_policy=sticky"])
    assert load_scenario(tmp_path / "ibft.yaml").protocol.notes == ()
