"""Files from outside end, unpack to what is meant, and are refused in words."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.files import UnfitFileError, is_plain_name, read_json, read_regular, unpacked
from sim.scenario.errors import ScenarioError
from sim.scenario.load import load_scenario

runner = CliRunner()


def test_only_regular_files_of_a_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular(tmp_path / "file", 5) == b"12345"
    with pytest.raises(UnfitFileError, match="larger"):
        read_regular(tmp_path / "file", 4)
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "/dev/zero"):
        with pytest.raises(UnfitFileError, match="never end"):
            read_regular(tmp_path / name, 100)


def test_what_is_packed_is_unpacked_up_to_a_size() -> None:
    assert unpacked(b"plain", 3) == b"plain"
    assert unpacked(gzip.compress(b"x" * 100), 100) == b"x" * 100
    with pytest.raises(UnfitFileError, match="unpacks to more"):
        unpacked(gzip.compress(b" " * 10_000_000), 5_000_000)


def test_deep_json_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"deep|Expecting"):
        read_json(tmp_path / "deep.json", 1_000_000)


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@x", "<img>", "a&b", "a/b", "..", " ", "a`b", ".x", "a|b"])
def test_names_that_mean_something_elsewhere_are_not_plain(name: str) -> None:
    assert not is_plain_name(name)


@pytest.mark.parametrize("name", ["island-7", "Case 1", "链上海南", "x.1"])
def test_names_are_plain(name: str) -> None:
    assert is_plain_name(name)


def written(folder: Path, **sections: Any) -> Path:
    data: dict[str, Any] = {
        "duration": "1 s",
        "network": {"nodes": 4, "latency": {"model": "fixed", "one_way": "1 ms"}},
        "protocol": "pbft",
        "workload": [{"kind": "backlog"}],
    }
    file = folder / "scenario.yaml"
    file.write_text(json.dumps(data | sections))
    return file


def refusal(file: Path) -> str:
    with pytest.raises(ScenarioError) as caught:
        load_scenario(file)
    assert str(caught.value).startswith(str(file))
    return str(caught.value)


def test_a_graph_that_is_a_pipe_or_a_bomb_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.graphml")
    (tmp_path / "bomb.graphml").write_bytes(gzip.compress(b" " * 50_000_000))
    network = {"nodes": 4, "latency": {"model": "fixed", "one_way": "1 ms"}}
    for name, rule in (("pipe", "never end"), ("bomb", "unpacks to more")):
        file = written(tmp_path, network=network | {"topology": {"graphml": f"{name}.graphml"}})
        assert rule in refusal(file)


def table(folder: Path, *rows: str) -> Path:
    (folder / "table.csv").write_text("\n".join(["from,to,rtt_ms", *rows]) + "\n", encoding="utf-8")
    latency = {"model": "matrix", "file": "table.csv", "regions": ["a", "b"]}
    return written(folder, network={"nodes": 2, "latency": latency})


def test_latency_tables_say_one_thing_and_no_nonsense(tmp_path: Path) -> None:
    assert "an earlier row" in refusal(table(tmp_path, "a,b,10", "b,a,20"))
    assert "at most 1 h" in refusal(table(tmp_path, "a,b,1e300"))
    load_scenario(table(tmp_path, "a,b,10", "b,a,10"))


def test_a_spreadsheets_mark_and_blanks_after_commas_do_no_harm(tmp_path: Path) -> None:
    file = table(tmp_path)
    (tmp_path / "table.csv").write_bytes("\ufefffrom,to,rtt_ms\na, b,10\n".encode())
    assert load_scenario(file).network.n == 2


def test_numbers_beyond_what_can_be_counted_are_refused(tmp_path: Path) -> None:
    assert "at most" in refusal(written(tmp_path, workload=[{"kind": "backlog", "bytes": "5e17 B"}]))
    assert "at most" in refusal(written(tmp_path, stop_after_decisions=10**30))
    assert "at most" in refusal(written(tmp_path, limits={"max_events": 10**30}))


def test_keys_without_a_value_must_exist(tmp_path: Path) -> None:
    assert "did you mean 'faults'" in refusal(written(tmp_path, fualts=None))
    assert "did you mean 'request_timeout'" in refusal(
        written(tmp_path, protocol={"name": "pbft", "reqest_timeout": None})
    )
    load_scenario(written(tmp_path, stop_after_decisions=None, faults=None))


def test_paths_between_very_many_places_are_refused_in_time(tmp_path: Path) -> None:
    network = {"nodes": 20_000, "latency": {"model": "fixed", "one_way": "1 ms"}, "topology": "ring"}
    assert "at most 2000" in refusal(written(tmp_path, network=network))


def test_very_many_unknown_keys_are_not_all_named(tmp_path: Path) -> None:
    base = written(tmp_path)
    file = tmp_path / "many.yaml"
    file.write_text(f"extends: {base.name}\n" + "".join(f"key{i}: {i}\n" for i in range(20_000)))
    with pytest.raises(ScenarioError) as caught:
        load_scenario(file)
    assert len(caught.value.problems) < 50
    assert "19970 more unknown keys" in caught.value.problems[-1]


def test_a_protocol_file_takes_no_modules_name(tmp_path: Path) -> None:
    scenario = written(tmp_path)
    for name in ("json.py", "numpy.py", "notes.txt"):
        (tmp_path / name).write_text("some notes")
        answer = runner.invoke(app, ["run", str(scenario), "--protocol-file", f"{tmp_path / name}:X"])
        assert answer.exit_code == 2, answer.output
        assert isinstance(answer.exception, SystemExit)


@pytest.mark.parametrize("name", ["...yaml", "<img>.yaml", "=1.yaml"])
def test_a_study_whose_name_means_something_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    base = written(tmp_path)
    study = tmp_path / name
    study.write_text(f"base: {base.name}\nsweep: {{grid: {{network.nodes: [4, 7]}}}}\n")
    answer = runner.invoke(app, ["sweep", str(study), "--out", str(tmp_path / "out" / "inner")])
    assert answer.exit_code == 2, answer.output
    assert not (tmp_path / "out").exists()
