"""Stored results are believed only if they are intact, whatever happened to them."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import sim
from sim import manifests
from sim.cli import app
from sim.report import outcome
from sim.scenario.run import run
from sim.trace.read import TraceError, open_run
from tests.runs import scenario

runner = CliRunner()
Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study folder with one run."""
    out = tmp_path_factory.mktemp("results")
    run(scenario(duration="200 ms", name="study"), out=out)
    return out / "study"


@pytest.fixture
def copied(stored: Path, tmp_path: Path) -> Path:
    shutil.copytree(stored, tmp_path / "study")
    return tmp_path / "study"


def the_run(study: Path) -> Path:
    return next((study / "runs").iterdir())


def assert_disbelieved(study: Path) -> None:
    """Every reader says so, in words."""
    folder = the_run(study)
    assert manifests.damage(folder) is not None
    frame = sim.results(study)
    assert frame.status.tolist() == ["damaged"]
    assert "committed_tps" not in frame or frame.committed_tps.isna().all()
    with pytest.raises((OSError, ValueError, KeyError)):
        outcome.read(folder)
    for command in (["results", str(study)], ["status", str(study)], ["verify", str(study)]):
        answer = runner.invoke(app, command)
        assert answer.exception is None or isinstance(answer.exception, SystemExit), command


def test_an_intact_result_is_believed(copied: Path) -> None:
    assert manifests.damage(the_run(copied)) is None
    assert sim.results(copied).status.tolist() == ["ok"]


def _manifest(change: Callable[[dict[str, Any]], Any]) -> Damage:
    def damage(folder: Path) -> None:
        file = folder / manifests.MANIFEST
        data = json.loads(file.read_text())
        changed = change(data)
        file.write_text(json.dumps(data if changed is None else changed))

    return damage


def _text(text: str | bytes) -> Damage:
    def damage(folder: Path) -> None:
        (folder / manifests.MANIFEST).write_bytes(text.encode() if isinstance(text, str) else text)

    return damage


def _pipe(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return damage


def _link(name: str, to: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(to)

    return damage


NAMED: dict[str, Damage] = {
    "metric": _manifest(lambda data: data["metrics"].update(latency_p99_ms=123456.0)),
    "status": _manifest(lambda data: data.update(status="ok!")),
    "status is a list": _manifest(lambda data: data.update(status=["ok"])),
    "metrics are text": _manifest(lambda data: data.update(metrics="none")),
    "metric without end": _manifest(lambda data: data["metrics"].update(decisions=10**400)),
    "infinite metric": _manifest(lambda data: data["metrics"].update(latency_p99_ms=float("inf"))),
    "no files": _manifest(lambda data: data.update(files={})),
    "a file elsewhere": _manifest(lambda data: data["files"].update({"../../x": "0"})),
    "a list": _manifest(lambda data: [data]),
    "no digest": _manifest(lambda data: data.pop("manifest_digest") and None),
    "another key": _manifest(lambda data: data.update(key="0" * 24)),
    "empty": _text(""),
    "not JSON": _text("{"),
    "not text": _text(b"\xff\xfe\x00"),
    "deep": _text("[" * 100_000 + "]" * 100_000),
    "deep objects": _text('{"a":' * 100_000 + "1" + "}" * 100_000),
    "manifest is a pipe": _pipe(manifests.MANIFEST),
    "table is a pipe": _pipe("blocks.parquet"),
    "table never ends": _link("blocks.parquet", "/dev/zero"),
    "manifest never ends": _link(manifests.MANIFEST, "/dev/zero"),
    "table missing": lambda folder: (folder / "blocks.parquet").unlink(),
    "manifest missing": lambda folder: (folder / manifests.MANIFEST).unlink(),
    "foreign file": lambda folder: (folder / "more.parquet").write_bytes(b"x"),
    "foreign folder": lambda folder: (folder / "more").mkdir(),
}


@pytest.mark.parametrize("name", NAMED)
def test_named_damage_is_noticed_and_gives_no_traceback(copied: Path, name: str) -> None:
    NAMED[name](the_run(copied))
    assert_disbelieved(copied)


def _drawn(folder: Path, seed: int) -> None:
    """Some damage to some file: a byte altered, cut, doubled, filled up, or two files exchanged."""
    chance = random.Random(seed)
    files = sorted(path for path in folder.iterdir())
    file = chance.choice(files)
    data = bytearray(file.read_bytes())
    kind = chance.randrange(6)
    at = chance.randrange(len(data))
    if kind == 0:
        data[at] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        data += data[at:] or b"x"
    elif kind == 3:
        data[at : at + 16] = bytes(len(data[at : at + 16])) if any(data[at : at + 16]) else b"\1"
    elif kind == 4:
        other = chance.choice([path for path in files if path != file])
        data = bytearray(other.read_bytes())
    else:
        data.insert(at, chance.randrange(256))
    file.write_bytes(data)


@pytest.mark.parametrize("first", range(0, 180, 20))
def test_drawn_damage_is_noticed_and_gives_no_traceback(copied: Path, first: int) -> None:
    whole = {path.name: path.read_bytes() for path in the_run(copied).iterdir()}
    for seed in range(first, first + 20):
        folder = the_run(copied)
        _drawn(folder, seed)
        if {path.name: path.read_bytes() for path in folder.iterdir()} != whole:
            reason = manifests.damage(folder)
            # A blank more or less in the manifest alters nothing that it says.
            same = reason is None and json.loads((folder / manifests.MANIFEST).read_text()) == json.loads(
                whole[manifests.MANIFEST]
            )
            assert reason is not None or same, seed
            try:
                open_run(folder)
            except TraceError:
                pass
        for name, data in whole.items():
            (folder / name).write_bytes(data)


PLANS = {
    "key is a number": '{"swept": [], "cases": [], "runs": [{"case": 0, "replication": 0, "key": 5}]}',
    "values are a list": '{"study_schema": 1, "swept": [], "cases": [{"case": 0, "values": []}], "runs": []}',
    "a list": "[]",
    "a number": "5",
    "deep": "[" * 100_000,
    "no text": "\x00",
}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_that_is_none_is_refused_in_words(copied: Path, name: str) -> None:
    (copied / "study.json").write_text(PLANS[name])
    for command in ("results", "status", "verify", "publish"):
        answer = runner.invoke(app, [command, str(copied)])
        assert answer.exit_code == 2, (command, answer.output)
        assert isinstance(answer.exception, SystemExit)


def test_an_index_is_never_believed(copied: Path) -> None:
    (copied / "index.parquet").write_bytes(b"PAR1 nothing")
    assert sim.results(copied).status.tolist() == ["ok"]
