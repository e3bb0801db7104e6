"""Files of other programs become scenarios, and are told for what they are where a scenario is expected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sim.cli import app
from sim.scenario.errors import ScenarioError
from sim.scenario.foreign import KINDS, kind_of, scenario_text
from sim.scenario.foreign.ethereum import validators
from sim.scenario.load import load_scenario
from sim.scenario.run import run
from sim.scenario.schema import Scenario
from sim.units import NS_PER_S

FOLDER = Path(__file__).parent / "foreign"
FILES = sorted(FOLDER.iterdir())


def imported(file: Path, folder: Path) -> Scenario:
    """The scenario that a file makes."""
    made = folder / "made.yaml"
    made.write_text(scenario_text(file), encoding="utf-8")
    return load_scenario(made)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_kind_makes_a_scenario_and_is_named_where_one_is_expected(file: Path, tmp_path: Path) -> None:
    assert kind_of(file) in [name for name, _, _ in KINDS]
    imported(file, tmp_path)
    for command in ("check", "run"):
        answer = CliRunner().invoke(app, [command, str(file)])
        assert answer.exit_code == 2
        assert f"{file}:1:1: {file.name}: is " in answer.stderr
        assert f"make one of it with: pilotzone import {file}" in answer.stderr
        assert len(answer.stderr.strip().splitlines()) == 1


def test_each_kind_has_a_file_here() -> None:
    assert {kind_of(file) for file in FILES} == {name for name, _, _ in KINDS}


def test_besu(tmp_path: Path) -> None:
    made = imported(FOLDER / "genesis.json", tmp_path)
    assert (made.protocol.name, made.block.period_ns) == ("qbft", 2 * NS_PER_S)
    assert made.protocol.parameters.round_timeout_ns == 4 * NS_PER_S  # type: ignore[attr-defined]
    text = scenario_text(FOLDER / "genesis.json")
    assert "period: 2 s  # config.qbft.blockperiodseconds: 2" in text
    assert "# Not carried over: config.qbft.epochlength" in text
    assert "nodes: 4  # assumed (A)" in text


def test_goquorum_and_clique(tmp_path: Path) -> None:
    made = imported(FOLDER / "goquorum.json", tmp_path)
    assert (made.protocol.name, made.block.period_ns) == ("ibft", 5 * NS_PER_S)
    assert made.protocol.parameters.proposer_policy == "sticky"  # type: ignore[attr-defined]
    made = imported(FOLDER / "clique.json", tmp_path)
    assert (made.protocol.name, made.block.period_ns) == ("clique", None)
    assert made.protocol.parameters.block_period_ns == 15 * NS_PER_S  # type: ignore[attr-defined]


def test_fabric(tmp_path: Path) -> None:
    made = imported(FOLDER / "configtx.yaml", tmp_path)
    raft = made.protocol.parameters
    assert (made.protocol.name, made.block.batch_timeout_ns) == ("raft", 2 * NS_PER_S)
    assert (made.block.max_transactions, made.block.max_bytes) == (10, 512 * 1024)
    assert raft.election_timeout_low_ns == 5 * NS_PER_S  # type: ignore[attr-defined]
    assert raft.election_timeout_high_ns == 9_500_000_000  # type: ignore[attr-defined]
    assert raft.heartbeat_interval_ns == 500_000_000  # type: ignore[attr-defined]
    smart = imported(FOLDER / "smartbft.yaml", tmp_path)
    assert (smart.protocol.name, smart.network.n) == ("pbft", 4)
    assert smart.protocol.parameters.request_timeout_ns == 20 * NS_PER_S  # type: ignore[attr-defined]


def test_cometbft(tmp_path: Path) -> None:
    made = imported(FOLDER / "config.toml", tmp_path)
    assert made.protocol.parameters.timeout_commit_ns == 90 * NS_PER_S  # type: ignore[attr-defined]
    assert made.pool.max_transactions == 5000
    assert imported(FOLDER / "testnet.toml", tmp_path).network.n == 1


def test_harnesses(tmp_path: Path) -> None:
    (load,) = imported(FOLDER / "caliper.yaml", tmp_path).workload
    assert load.rate_tps == 100  # type: ignore[union-attr]
    diablo = imported(FOLDER / "diablo.yaml", tmp_path)
    (load,) = diablo.workload
    assert diablo.duration_ns == 30 * NS_PER_S
    assert load.mean_tps(diablo.duration_ns) == (10 * 70 + 20 * 55) / 30  # type: ignore[union-attr]
    assert [step.rate_tps for step in load.steps] == [70, 70]  # type: ignore[union-attr]


ROUNDS = """
test:
  rounds:
    - {label: warm, txDuration: 10, rateControl: {type: fixed-rate, opts: {tps: 50}}}
    - {label: ramp, txNumber: 1500, rateControl: {type: linear-rate, opts: {startingTps: 50, finishingTps: 250}}}
    - {label: peak, txDuration: 5, rateControl: {type: fixed-rate, opts: {tps: 250}}}
"""


def test_rounds_of_caliper_are_steps_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(ROUNDS)
    made = imported(tmp_path / "r.yaml", tmp_path)
    (load,) = made.workload
    assert made.duration_ns == 25 * NS_PER_S
    assert load.mean_tps(made.duration_ns) == (500 + 1500 + 1250) / 25  # type: ignore[union-attr]
    assert run(made).metrics["submitted"] == 3250


def test_a_fixed_load_of_caliper_is_a_closed_loop(tmp_path: Path) -> None:
    control = "{type: fixed-load, opts: {transactionLoad: 7}}"
    (tmp_path / "r.yaml").write_text(f"test: {{rounds: [{{label: a, txNumber: 90, rateControl: {control}}}]}}")
    made = imported(tmp_path / "r.yaml", tmp_path)
    assert run(made).metrics["submitted"] == 90
    later = ROUNDS + f"    - {{label: closed, txNumber: 90, rateControl: {control}}}\n"
    (tmp_path / "r.yaml").write_text(later)
    assert "what comes before closed is the scenario" in scenario_text(tmp_path / "r.yaml")


def test_timers_of_cometbft_that_hold_messages_back(tmp_path: Path) -> None:
    text = (
        FOLDER / "config.toml"
    ).read_text() + 'peer_gossip_sleep_duration = "5ms"\n[p2p]\nflush_throttle_timeout = "1ms"\n'
    (tmp_path / "c.toml").write_text(text)
    network = imported(tmp_path / "c.toml", tmp_path).network
    assert (network.flush_after_ns, network.look_every_ns) == (1_000_000, 5_000_000)


def test_the_command_prints_or_writes_and_overwrites_nothing(tmp_path: Path) -> None:
    file, to = FOLDER / "genesis.json", tmp_path / "mine.yaml"
    printed = CliRunner().invoke(app, ["import", str(file)])
    assert printed.exit_code == 0 and printed.stdout == scenario_text(file)
    assert CliRunner().invoke(app, ["import", str(file), "--to", str(to)]).exit_code == 0
    assert to.read_text(encoding="utf-8") == printed.stdout
    to.write_text("mine", encoding="utf-8")
    again = CliRunner().invoke(app, ["import", str(file), "--to", str(to)])
    assert again.exit_code == 2 and "cannot be written" in again.stderr
    assert to.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("a.json", '{"config": {"qbft": {"blockperiodseconds": "soon"}}}', "blockperiodseconds: 'soon': must be"),
        ("a.json", '{"config": {"qbft": {"blockperiodseconds": NaN}}}', "must be a number from 0 on"),
        ("a.json", '{"config": {"qbft": {"blockperiodseconds": 1e300}}}', "is too large; check the file"),
        ("a.json", '{"config": {"qbft": 7}}', "config.qbft: 7: must be a mapping"),
        ("a.yaml", "Orderer: {OrdererType: etcdraft, BatchTimeout: 2 parsecs}", "is no duration; write one such as 2s"),
        ("a.yaml", "Orderer: {BatchSize: {MaxMessageCount: 0}}", "must be a whole number from 1 on"),
        ("a.yaml", "test: {rounds: []}", "test.rounds: must be a list of rounds"),
        ("a.yaml", "bench: {txs: {0: 0, 10: 0}}", "the rate is 0 tx/s, so that nothing is sent"),
        ("a.yaml", "hello: world", "has the keys hello, by which it is none of the files"),
        ("a.yaml", "network: {nodes: 4}\nprotocol: {name: pbft}", "is a scenario already; run it"),
        ("a.yaml", "- 1", "is a list, not a mapping"),
        ("a.yaml", "a: [1", "is no JSON, TOML or YAML"),
        ("a.json", "[" * 100_000, "is no JSON, TOML or YAML"),
        ("a.yaml", "a: &a [x, x]\nOrderer: {OrdererType: etcdraft, BatchTimeout: *a}", "a list: is no duration"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_place_and_remedy(name: str, text: str, rule: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ScenarioError) as told:
        scenario_text(tmp_path / name)
    assert rule in str(told.value)
    answer = CliRunner().invoke(app, ["import", str(tmp_path / name)])
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert "Traceback" not in answer.stderr


def test_a_large_file_a_pipe_and_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "large.json").write_bytes(b" " * 2_000_000)
    for name in ("large.json", "none.json", "."):
        answer = CliRunner().invoke(app, ["import", str(tmp_path / name)])
        assert answer.exit_code == 2 and answer.stderr.count("\n") == 1


def test_a_value_cannot_leave_its_comment(tmp_path: Path) -> None:
    """What a file says stands in comments only, on one line."""
    data = {
        "config": {"qbft": {"blockperiodseconds": 2, "x\nprotocol: {name: raft}\n#": 1}, "chainId": "a\nduration: 9 h"}
    }
    (tmp_path / "sly.json").write_text(json.dumps(data), encoding="utf-8")
    made = imported(tmp_path / "sly.json", tmp_path)
    assert made.protocol.name == "qbft"


@given(st.binary(max_size=40), st.integers(0, len(FILES) - 1), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_damaged_files_make_a_scenario_or_one_error(damage: bytes, which: int, where: float) -> None:
    import tempfile

    data = FILES[which].read_bytes()
    at = int(where * len(data))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / FILES[which].name
        file.write_bytes(data[:at] + damage + data[at + len(damage) :])
        answer = CliRunner().invoke(app, ["import", str(file)])
        assert answer.exit_code in (0, 2), answer.output
        assert answer.exception is None or isinstance(answer.exception, SystemExit)


def rlp(item: bytes | list[Any]) -> bytes:
    """Recursive length prefix, as the Yellow Paper's appendix B has it."""
    if isinstance(item, bytes) and len(item) == 1 and item[0] < 0x80:
        return item
    body = item if isinstance(item, bytes) else b"".join(map(rlp, item))
    offset = 0x80 if isinstance(item, bytes) else 0xC0
    if len(body) < 56:
        return bytes([offset + len(body)]) + body
    size = len(body).to_bytes(4, "big").lstrip(b"\0")
    return bytes([offset + 55 + len(size)]) + size + body


@pytest.mark.parametrize("count", [1, 4, 13, 200])
def test_the_first_validators_are_counted(count: int) -> None:
    addresses = [bytes([i % 256]) * 20 for i in range(count)]
    vanity = bytes(32)
    besu = rlp([vanity, addresses, b"", b"\0\0\0\0", []])
    goquorum = vanity + rlp([addresses, b"", []])
    clique = vanity + b"".join(addresses) + bytes(65)
    for data in (besu, goquorum, clique):
        assert validators("0x" + data.hex()) == count


@given(st.binary(max_size=300))
def test_any_extra_data_is_read_without_an_error(data: bytes) -> None:
    assert validators("0x" + data.hex()) >= 0
    assert validators(data.hex() + "x") == 0


def test_a_genesis_file_says_how_many_validators(tmp_path: Path) -> None:
    data = json.loads((FOLDER / "genesis.json").read_text())
    data["extraData"] = "0x" + rlp([bytes(32), [bytes([i]) * 20 for i in range(7)], b"", b"\0\0\0\0", []]).hex()
    file = tmp_path / "genesis.json"
    file.write_text(json.dumps(data))
    assert "nodes: 7  # extraData: 7 validators" in scenario_text(file)
