"""Platforms as deployed: each makes a scenario that runs, says where its values are from, and gives way to others."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.protocols import PROTOCOLS
from sim.scenario.errors import ScenarioError
from sim.scenario.load import load_scenario
from sim.scenario.platforms import platforms
from sim.scenario.run import run
from sim.scenario.schema import Scenario
from sim.units import NS_PER_S

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "platforms.md"
NAMED = {
    "besu-qbft", "besu-ibft2", "goquorum-ibft", "goquorum-qbft", "goquorum-raft", "cometbft", "fabric-raft",
    "fabric-smartbft", "fisco-bcos-pbft", "fisco-bcos-rpbft", "chainmaker-tbft", "chainmaker-raft",
    "chainmaker-hotstuff", "etcd", "bft-smart", "hotstuff-mempool", "geth-clique", "openethereum-aura",
}  # fmt: skip


def on(
    folder: Path, platform: str, more: str = "", load: str = "{kind: open, rate: 20 tx/s}", n: int = 7,
    duration: str = "1 min",
) -> Scenario:  # fmt: skip
    """A small scenario on a platform."""
    file = folder / "s.yaml"
    file.write_text(
        f"duration: {duration}\nplatform: {platform}\nworkload: [{load}]\n"
        f"network: {{nodes: {n}, latency: {{model: fixed, one_way: 10 ms}}}}\n{more}\n"
    )
    return load_scenario(file)


def test_every_platform_is_there() -> None:
    assert set(platforms()) == NAMED
    assert {platform.protocol for platform in platforms().values()} <= set(PROTOCOLS)


@pytest.mark.parametrize("name", sorted(NAMED))
def test_each_runs_alike_on_both_paths_and_commits(name: str, tmp_path: Path) -> None:
    chosen = on(tmp_path, name)
    fast, handlers = run(chosen), run(chosen, fast_path=False)
    assert fast.status == "ok" and fast.digest == handlers.digest
    assert fast.metrics["committed_tps"] > 10
    assert fast.metrics["view_changes"] in (0, 1) or chosen.protocol.name == "aura"
    full = on(tmp_path, name, load="{kind: backlog}", duration="1 min" if chosen.block.period_ns else "5 s")
    assert run(full).status == "ok"  # etcd would decide 25,000 entries a second for a minute


@pytest.mark.parametrize("name", sorted(NAMED))
def test_each_value_has_a_source_and_is_in_force(name: str, tmp_path: Path) -> None:
    platform = platforms()[name]
    assert all(value.source and len(value.path) == 2 for value in platform.values)
    assert platform.missing and platform.version
    plain = on(tmp_path, name).model_dump()
    parameters = {key for key in plain["protocol"]["parameters"]}
    assert plain["platform"] == name and plain["protocol"]["name"] == platform.protocol and parameters


def test_what_the_scenario_says_wins(tmp_path: Path) -> None:
    chosen = on(tmp_path, "besu-qbft", "protocol: {round_timeout: 9 s}\nblock: {max_transactions: 50}")
    assert chosen.protocol.name == "qbft"
    assert chosen.protocol.parameters.round_timeout_ns == 9 * NS_PER_S  # type: ignore[attr-defined]
    assert (chosen.block.max_transactions, chosen.block.period_ns) == (50, 2 * NS_PER_S)
    spaced = on(tmp_path, "besu-qbft", "block: {interval: 3 s}")
    assert (spaced.block.interval_ns, spaced.block.period_ns) == (3 * NS_PER_S, None)
    file = tmp_path / "s.yaml"
    assert load_scenario(file, ["platform=goquorum-qbft", "block=null"]).block.period_ns == NS_PER_S


def test_a_lone_request_takes_what_the_timers_say(tmp_path: Path) -> None:
    """Fabric: BatchTimeout; Besu: a block every two seconds, empty or not."""
    lone = "{kind: open, rate: 0.05 tx/s}"
    fabric = run(on(tmp_path, "fabric-raft", load=lone, n=4, more="warm_up: 20 s\nseed: 3"))
    assert fabric.metrics["finality_p99_ms"] == pytest.approx(2046, abs=12)  # ten steps of 1.61 ms among them
    besu = run(on(tmp_path, "besu-qbft", load=lone, n=4))
    assert besu.metrics["block_interval_mean_ms"] == pytest.approx(2000)


def test_fisco_bcos_answers_after_the_checkpoint_and_spaces_blocks_from_the_last_order(tmp_path: Path) -> None:
    """Ways to and from the voter, to the leader, three steps and the checkpoint, 10 ms each; blocks 500 ms apart."""
    lone = run(on(tmp_path, "fisco-bcos-pbft", load="{kind: open, rate: 0.1 tx/s}", n=4))
    assert lone.metrics["latency_p50_ms"] == pytest.approx(70, abs=0.5)
    busy = run(on(tmp_path, "fisco-bcos-pbft", load="{kind: open, rate: 100 tx/s}", n=4))
    assert busy.metrics["block_interval_mean_ms"] == pytest.approx(500 + 30, abs=1)
    messages = dict(zip(*(busy.tables["messages_by_type"][key] for key in ("type", "messages")), strict=True))
    assert messages["RESULT"] == pytest.approx(12 * busy.metrics["decisions"], abs=12)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("platform", "more", "rule"),
    [
        ("besu-qbtf", "", "besu-qbtf: no such platform; did you mean 'besu-qbft'"),
        ("besu-qbft", "protocol: {name: raft}", "raft: platform besu-qbft runs qbft; remove one of the two"),
        ("{name: etcd, version: 9}", "", "etcd is described as of version 3.4.23; leave the version out"),
        ("{version: 9}", "", "a platform has a name and a version"),
        ("[etcd]", "", "no such platform"),
    ],
)
def test_contradictions_are_refused(platform: str, more: str, rule: str, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError) as told:
        on(tmp_path, platform, more)
    assert rule in str(told.value) and "s.yaml:" in str(told.value)


def test_a_version_may_be_said(tmp_path: Path) -> None:
    assert on(tmp_path, "{name: etcd, version: 3.4.23}").platform == "etcd"


def test_the_command_lists_them_and_tells_of_one() -> None:
    listed = CliRunner().invoke(app, ["platforms"])
    assert [line.split(":")[0] for line in listed.stdout.splitlines()] == list(platforms())
    told = CliRunner().invoke(app, ["platforms", "fabric-raft"])
    assert "block.batch_timeout: 2 s  # sampleconfig/configtx.yaml: BatchTimeout" in told.stdout
    assert CliRunner().invoke(app, ["platforms", "fabrik"]).exit_code == 2


def table() -> str:
    """The guide's table."""
    rows = ["| platform | version | protocol | assumed (A) | not in the model |", "|---|---|---|---|---|"]
    for one in platforms().values():
        assumed = ", ".join(f"`{'.'.join(value.path)}`" for value in one.values if value.assumed) or "–"
        rows.append(f"| `{one.name}` | {one.version} | {one.protocol} | {assumed} | {'; '.join(one.missing)} |")
    return "\n".join(rows)


def test_the_guide_has_the_table() -> None:
    assert table() in GUIDE.read_text(encoding="utf-8")
