"""The guide that adds a protocol: its pieces make a file, and its commands do what it says."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.protocol import upon
from tests import chains

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "add-a-protocol.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^pilotzone (run .*)$", GUIDE, flags=re.M)

BARE = """
from sim.protocol import Message, Replica


class Bare(Replica):
    pass


class Word(Message):
    pass


class Plain(Replica):
    view_number = 0

    def quorums(self):
        return {}

    def start(self):
        pass


class Mute(Plain):
    messages = (Word,)
"""


@pytest.fixture
def guide_files(tmp_path: Path) -> Path:
    """The files that the guide writes, in a folder of their own."""
    pieces = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.S)
    (tmp_path / "two_step.py").write_text("\n\n".join(pieces))
    [fast] = re.findall(r"```python fast\n(.*?)```", GUIDE, flags=re.S)
    (tmp_path / "fast.py").write_text("\n\n".join([*pieces, fast]))
    for name, text in re.findall(r"```python file=(\S+)\n(.*?)```", GUIDE, flags=re.S):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_protocol_and_the_override_are_as_short_as_promised(guide_files: Path) -> None:
    code = [line for line in (guide_files / "two_step.py").read_text().splitlines() if line.strip()]
    assert len(code) < 100
    assert len((guide_files / "weak.py").read_text().splitlines()) <= 30


@pytest.mark.parametrize(("number", "exit_code"), [(0, 0), (1, 4), (2, 0), (3, 3)])
def test_commands_do_what_the_guide_says(guide_files: Path, number: int, exit_code: int) -> None:
    command = COMMANDS[number].replace("two_step.py:Fast", "fast.py:Fast")  # the same file with the last piece
    command = re.sub(r"(two_step|weak|fast)\.py", lambda match: str(guide_files / match[0]), command)
    done = CliRunner().invoke(app, [*shlex.split(command), "--out", str(guide_files / "out")])
    assert done.exit_code == exit_code, done.output


def test_the_fast_path_of_the_guide_is_taken_and_the_law_still_holds(guide_files: Path) -> None:
    spec = importlib.util.spec_from_file_location("fast", guide_files / "fast.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fast"] = module
    spec.loader.exec_module(module)
    handled = []

    class Counted(module.FastTwoStep):  # type: ignore[name-defined,misc]
        normal_cases = module.FastTwoStep.normal_cases  # nobody inherits one

        @upon(module.Propose)
        def on_propose(self, sender: int, message: object) -> None:
            handled.append(sender)
            super().on_propose(sender, message)

    counts = {}
    for fast_path in (True, False):
        handled.clear()
        run = chains.world(5, Counted, module.TwoStepParameters(), fast_path=fast_path)
        run.advance(1000 * chains.MS)
        counts[fast_path] = run.hosts[0].height, len(handled)
    (blocks, none), (same, all_) = counts[True], counts[False]
    assert blocks == same > 10
    assert none == 0
    assert all_ >= 4 * blocks


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
        ("bare.py:Bare", [], "Bare lacks quorums, start, view_number, which every protocol has"),
        ("bare.py:Mute", [], "Word lacks size_bytes, which every message has"),
        ("bare.py:Plain", [], "write class PlainParameters(Parameters)"),
    ],
)
def test_a_class_that_does_not_fit_is_refused(guide_files: Path, target: str, more: list[str], says: str) -> None:
    (guide_files / "bare.py").write_text(BARE)
    out = guide_files / "none"
    if "patience" in says:
        more = ["--set", "protocol.name=two-step", *more]
    args = ["run", "scenarios/quickstart.yaml", "--protocol-file", f"{guide_files}/{target}", "--out", str(out)]
    done = CliRunner().invoke(app, [*args, *more])
    assert done.exit_code == 2, done.output
    assert says in done.output
    assert not out.exists()
