"""The guide that adds a protocol: its pieces make a file, and its commands do what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sim.cli import app

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "add-a-protocol.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^pilotzone (run .*)$", GUIDE, flags=re.M)


@pytest.fixture
def guide_files(tmp_path: Path) -> Path:
    """The files that the guide writes, in a folder of their own."""
    pieces = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.S)
    (tmp_path / "two_step.py").write_text("\n\n".join(pieces))
    for name, text in re.findall(r"```python file=(\S+)\n(.*?)```", GUIDE, flags=re.S):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_protocol_and_the_override_are_as_short_as_promised(guide_files: Path) -> None:
    code = [line for line in (guide_files / "two_step.py").read_text().splitlines() if line.strip()]
    assert len(code) < 100
    assert len((guide_files / "weak.py").read_text().splitlines()) <= 30


@pytest.mark.parametrize(("number", "exit_code"), [(0, 0), (1, 4), (2, 3)])
def test_commands_do_what_the_guide_says(guide_files: Path, number: int, exit_code: int) -> None:
    command = re.sub(r"(two_step|weak)\.py", lambda match: str(guide_files / match[0]), COMMANDS[number])
    done = CliRunner().invoke(app, [*shlex.split(command), "--out", str(guide_files / "out")])
    assert done.exit_code == exit_code, done.output


def test_three_messages_per_follower_and_decision(guide_files: Path) -> None:
    file = guide_files / "two_step.py"
    args = ["run", str(ROOT / "scenarios/protocols/pbft/baseline.yaml"), "--protocol-file", f"{file}:TwoStep"]
    done = CliRunner().invoke(app, [*args, "--set", "protocol.name=two-step", "--out", str(guide_files / "out")])
    assert "messages_per_decision      9.000" in done.output


@pytest.mark.parametrize(
    ("target", "more", "says"),
    [
        ("two_step.py:TwoStep", [], "add --set protocol.name=two-step"),
        ("weak.py:WeakQuorum", ["--set", "protocol.name=raft"], "add --set protocol.name=pbft"),
        ("two_step.py:TwoStep", ["--set", "protocol.patience=-1 s"], "patience"),
        ("bare.py:Bare", [], "write class BareParameters(Parameters)"),
    ],
)
def test_a_class_that_does_not_fit_is_refused(guide_files: Path, target: str, more: list[str], says: str) -> None:
    (guide_files / "bare.py").write_text("from sim.protocol import Replica\n\n\nclass Bare(Replica):\n    pass\n")
    out = guide_files / "none"
    if "patience" in says:
        more = ["--set", "protocol.name=two-step", *more]
    args = ["run", "scenarios/quickstart.yaml", "--protocol-file", f"{guide_files}/{target}", "--out", str(out)]
    done = CliRunner().invoke(app, [*args, *more])
    assert done.exit_code == 2, done.output
    assert says in done.output
    assert not out.exists()
