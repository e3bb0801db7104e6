"""The command line: exit codes, one JSON object, one message for bad input, and nothing written by accident."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from sim.cli import app

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "scenarios" / "quickstart.yaml"
BASELINE = ROOT / "scenarios" / "protocols" / "pbft" / "baseline.yaml"
SHORT = ("--set", "duration=2 s", "--set", "faults=[]")
METRICS = {
    "committed_tps", "offered_tps", "latency_p50_ms", "latency_p99_ms", "decision_latency_mean_ms",
    "messages_per_decision", "decisions", "view_changes", "simulated_s", "wall_s",
}  # fmt: skip
WEAK = '''
from sim.protocols.pbft import Pbft


class Weak(Pbft):
    """Two of four replicas are a quorum: two halves can decide two blocks."""

    def committed_quorum(self):
        return 2


class Broken(Pbft):
    def start(self):
        raise RuntimeError("a bug in somebody's protocol")
'''


def complaint(done: Result) -> str:
    """The one line on stderr, apart from the notice that the kernel is being compiled."""
    [line] = [line for line in done.stderr.splitlines() if not line.startswith("compiling the kernel")]
    return line


def cli(*arguments: str | Path) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def weak(tmp_path: Path) -> Path:
    """A file of rule overrides."""
    file = tmp_path / "weak.py"
    file.write_text(WEAK)
    return file


# --- exit codes ------------------------------------------------------------------------------------------------


def test_0_and_what_it_says(tmp_path: Path) -> None:
    done = cli("run", QUICKSTART, *SHORT, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert "quickstart: ok" in done.output
    (manifest,) = tmp_path.glob("quickstart/runs/*/manifest.json")
    told = json.loads(manifest.read_text())
    assert told["status"] == "ok"
    assert told["digest"] in done.output
    assert {"version", "commit", "scenario", "seed", "digest", "checks", "packages", "files"} <= set(told)
    assert set(told["files"]) | {"manifest.json"} == {file.name for file in manifest.parent.iterdir()}


def test_1_is_a_bug(weak: Path, tmp_path: Path) -> None:
    done = cli("run", BASELINE, "--out", tmp_path / "out", "--protocol-file", f"{weak}:Broken")
    assert done.exit_code == 1
    said = f"{weak}:14: RuntimeError: a bug in somebody's protocol; in a run of Broken at 0.000000000 s, seed 1"
    assert said in done.stderr
    assert list((tmp_path / "out").rglob("*.parquet")) == []


def test_3_is_a_safety_violation(weak: Path, tmp_path: Path) -> None:
    fault = '[{at: "1 s", partition: {groups: [[0, 1], [2, 3]]}}]'
    done = cli(
        "run", BASELINE, "--out", tmp_path / "out", "--protocol-file", f"{weak}:Weak", "--set", f"faults={fault}",
        "--set", "stop_after_decisions=null", "--set", "duration=20 s", "--json",
    )  # fmt: skip
    assert done.exit_code == 3, done.output
    told = json.loads(done.output)
    assert told["status"] == "safety violation"
    assert told["checks"]["agreement"] == "fail"
    assert told["violations"][0]["check"] == "agreement"
    honest = cli("run", BASELINE, "--out", tmp_path / "out", "--set", f"faults={fault}", "--set",
                 "stop_after_decisions=null", "--set", "duration=20 s")  # fmt: skip
    assert honest.exit_code == 0, honest.output


def test_4_is_a_liveness_failure(tmp_path: Path) -> None:
    done = cli(
        "run", QUICKSTART, "--out", tmp_path, "--set", "protocol.request_timeout=1 h", "--set", "liveness_bound=5 s",
        "--set", "faults=[{at: 2 s, crash: {nodes: [HAK]}}]",
    )  # fmt: skip
    assert done.exit_code == 4, done.output
    assert "VIOLATION halt" in done.output
    assert "replica 1: height" in done.output
    assert "no progress in 3600 s" in done.output
    assert "--seed 1" in done.output  # how to see it again


@pytest.mark.parametrize("limit", ["max_events=100", "wall=1 ns", "memory=1 MB", "simulated=100 ms"])
def test_5_is_a_limit(limit: str, tmp_path: Path) -> None:
    done = cli("run", QUICKSTART, *SHORT, "--out", tmp_path, "--set", f"limits.{limit}", "--json")
    assert done.exit_code == 5, done.output
    told = json.loads(done.output)
    assert told["status"] == "truncated"
    assert limit.split("=")[0] in told["warnings"][-1]


# --- bad input ---------------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "duration": "1 s",
    "network": {"sites": ["HAK", "QHI", "SYX", "YPG"], "latency": {"model": "distance"}},
    "protocol": {"name": "pbft"},
    "workload": [{"kind": "open", "rate": "80 tx/s", "bytes": "500 B"}],
}
FIXED = {"model": "fixed", "one_way": "1 ms"}
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
BAD: dict[str, tuple[str, str]] = {
    "misspelt key": (json.dumps(GOOD | {"durration": "1 s"}), "duration"),
    "wrong unit": (json.dumps(GOOD | {"duration": "1 km"}), "1 km"),
    "no unit": (json.dumps(GOOD | {"duration": 5}), "unit"),
    "three voters": (
        json.dumps(GOOD | {"protocol": {"name": "pbft", "faults": 1}, "network": {"nodes": 3, "latency": FIXED}}),
        "3f + 1",
    ),
    "negative delay": (
        json.dumps(GOOD | {"network": {"nodes": 4, "latency": FIXED | {"one_way": "-1 ms"}}}), "negative"
    ),
    "NaN": (json.dumps(GOOD | {"duration": ".nan s"}), "nan"),
    "NaN rate": (json.dumps(GOOD).replace('"80 tx/s"', ".nan"), "rate"),
    "unknown site": (json.dumps(GOOD).replace("SYX", "XYZ"), "XYZ"),
    "empty domain": (json.dumps(GOOD | {"faults": [{"at": "0 s", "lose_domain": {"domain": "M"}}]}), "holds no voter"),
    "duplicate key": (json.dumps(GOOD)[:-1] + ', "duration": "2 s"}', "duration"),
    "YAML bomb": (BOMB, "alias"),
    "empty file": ("", "empty"),
    "not a mapping": ("[1, 2]", "mapping"),
    "not YAML": ("{a: [", ""),
    "no such protocol": (json.dumps(GOOD | {"protocol": {"name": "pbtf"}}), "pbft"),
    "a name that leaves its folder": (json.dumps(GOOD | {"name": "../../elsewhere"}), "folder"),
    "a fault after the end": (json.dumps(GOOD | {"faults": [{"at": "2 s", "crash": {"nodes": [0]}}]}), "earlier"),
}  # fmt: skip


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize("case", BAD)
def test_2_is_bad_input(case: str, command: str, tmp_path: Path) -> None:
    text, hint = BAD[case]
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    out = tmp_path / "out"
    done = cli(command, file, *(["--out", out] if command == "run" else []))
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{file}:")
    place = line.removeprefix(f"{file}:").split(":")
    assert place[0].isdigit()
    assert place[1].isdigit()
    assert hint in line
    assert done.stdout == ""
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        (ROOT / "scenarios",),
        (ROOT / "nothing.yaml",),
        (QUICKSTART, "--seed", "-1"),
        (QUICKSTART, "--set", "network.nodes"),
        (QUICKSTART, "--set", "durration=1 s"),
        (QUICKSTART, "--protocol-file", "nothing.py:Weak"),
        (QUICKSTART, "--protocol-file", f"{__file__}:Weak"),
    ],
    ids=lambda arguments: " ".join(map(str, arguments[-2:])).rsplit("/", 1)[-1],
)
def test_2_is_bad_usage(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = cli("run", *arguments, "--out", tmp_path / "out")
    assert done.exit_code == 2, done.output
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_2_is_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = cli("run", QUICKSTART, *SHORT, "--out", tmp_path / "file" / "results")
    assert done.exit_code == 2, done.output
    assert "Not a directory; name a folder" in complaint(done)


def test_2_is_a_folder_in_which_nothing_can_be_stored(tmp_path: Path) -> None:
    (tmp_path / "quickstart").write_text("in the way")
    done = cli("run", QUICKSTART, *SHORT, "--out", tmp_path)
    assert done.exit_code == 2, done.output
    assert complaint(done).startswith(f"--out {tmp_path}: Not a directory; name a folder that can be written")


# --- JSON, overrides, the other commands ---------------------------------------------------------------------------


def test_json_is_one_object(tmp_path: Path) -> None:
    done = cli("run", QUICKSTART, *SHORT, "--out", tmp_path, "--json")
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 1
    told = json.loads(done.stdout)
    assert {"status", "metrics", "checks", "digest", "key", "path"} <= set(told)
    assert set(told["metrics"]) >= METRICS
    assert all(value is None or isinstance(value, (int, float)) for value in told["metrics"].values())
    assert set(told["checks"].values()) <= {"pass", "fail", "not applicable"}
    assert told["metrics"]["simulated_s"] == 2
    assert (Path(told["path"]) / "manifest.json").is_file()
    assert told["key"] == Path(told["path"]).name


def metrics(*arguments: str | Path, out: Path) -> dict[str, Any]:
    """The metrics of a run."""
    done = cli("run", *arguments, "--out", out, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)["metrics"]
    return found


@pytest.mark.parametrize("n", [4, 16])
def test_set_changes_the_number_of_nodes(n: int, tmp_path: Path) -> None:
    m = metrics(BASELINE, "--set", f"network.nodes={n}", out=tmp_path)
    assert m["decisions"] == 100
    # The run stops at the 100th decision; the primary has multicast its next pre-prepare by then, no more.
    assert 2 * n * (n - 1) <= m["messages_per_decision"] <= 2 * n * (n - 1) + (n - 1) / 100
    assert m["decision_latency_mean_ms"] == 30


def test_seed_changes_the_draws(tmp_path: Path) -> None:
    digests = set()
    for seed in ("1", "2", "2"):
        done = cli("run", QUICKSTART, *SHORT, "--seed", seed, "--out", tmp_path, "--json")
        told = json.loads(done.stdout)
        assert told["seed"] == int(seed)
        digests.add(told["digest"])
    assert len(digests) == 2


def test_other_rules_have_another_key(weak: Path, tmp_path: Path) -> None:
    """A result's key names all that determined it, the text of a rule override included."""
    keys = []
    for text in (WEAK, WEAK.replace("return 2", "return 3")):
        weak.write_text(text)
        done = cli("run", BASELINE, "--out", tmp_path / "out", "--protocol-file", f"{weak}:Weak", "--json")
        keys.append(json.loads(done.stdout)["key"])
    plain = json.loads(cli("run", BASELINE, "--out", tmp_path / "out", "--json").stdout)["key"]
    assert len({*keys, plain}) == 3


def test_check_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("check", QUICKSTART)
    assert done.exit_code == 0
    assert "4 voters" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_protocols_lists_parameters() -> None:
    done = cli("protocols")
    assert done.exit_code == 0
    for word in ("pbft", "raft", "hotstuff", "request_timeout", "heartbeat"):
        assert word in done.stdout


def test_the_committed_schema_is_the_commands() -> None:
    """If this fails on purpose: pilotzone schema > scenarios/schema.json."""
    assert cli("schema").stdout == (ROOT / "scenarios" / "schema.json").read_text()


# --- processes -------------------------------------------------------------------------------------------------------

_WHAT_HELP_IMPORTS = """
import sys
from typer.testing import CliRunner
from sim.cli import app
assert CliRunner().invoke(app, ["--help"]).exit_code == 0
print([name for name in ("numpy", "numba", "pydantic", "pyarrow", "simpy", "matplotlib") if name in sys.modules])
"""


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WHAT_HELP_IMPORTS], capture_output=True, text=True, cwd=ROOT, check=True, timeout=600
    )
    assert done.stdout.strip() == "[]"


def test_a_killed_run_leaves_no_result(tmp_path: Path) -> None:
    """kill -9 in the middle: no folder that looks like a result, and the next run is fine."""
    command = [sys.executable, "-m", "sim.cli", "run", str(QUICKSTART), "--out", str(tmp_path), "--set"]
    running = subprocess.Popen(
        [*command, "duration=100 h"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 240
        while not list(tmp_path.glob("quickstart/runs/.*/*.parquet")):
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    assert [folder.name for folder in tmp_path.glob("quickstart/runs/*") if folder.name[0] != "."] == []
    assert list(tmp_path.rglob("manifest.json")) == []
    done = cli("run", QUICKSTART, *SHORT, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert len(list(tmp_path.glob("quickstart/runs/*/manifest.json"))) == 1


def test_the_summary_names_the_lag_of_observers_and_the_catching_up(tmp_path: Path) -> None:
    observed = "observers=[{name: regulator, site: PEK, mode: pull, interval: 1 s}]"
    away = "catch_up=[{node: 3, blocks: 10, block_interval: 1 s, rate: 10 tx/s}]"
    done = cli("run", QUICKSTART, *SHORT, "--out", tmp_path, "--set", observed, "--set", away)
    assert done.exit_code == 0, done.output
    shown = {line.split()[0] for line in done.output.splitlines() if line.startswith("  ")}
    assert {"observer_lag_p50_ms", "observer_lag_p99_ms", "catch_up_s"} <= shown
    assert not {"reads", "reorganisations"} & shown  # nothing of the kind happened


def test_a_protocol_file_that_leaves_python_is_refused(tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text("raise SystemExit(0)\n")
    done = cli("run", QUICKSTART, "--protocol-file", f"{tmp_path / 'leaves.py'}:Any")
    assert done.exit_code == 2
    assert "leaves.py:1: SystemExit: 0; mend the file" in done.output


OWN = """
import sys
from sim.protocol import upon
from sim.protocols.pbft import Pbft, PrePrepare


class Leaves(Pbft):
    @upon(PrePrepare)
    def on_pre_prepare(self, sender, message):
        sys.exit(7)


class Divides(Pbft):
    @upon(PrePrepare)
    def on_pre_prepare(self, sender, message):
        super().on_pre_prepare(sender, message)
        self.divide()

    def divide(self):
        return 1 / 0


class Loops(Pbft):
    @upon(PrePrepare)
    def on_pre_prepare(self, sender, message):
        while True:
            try:
                self.context.height
            except Exception:
                pass
"""


@pytest.mark.parametrize(
    ("name", "says"),
    [("Leaves", "10: RuntimeError: SystemExit: 7"), ("Divides", "20: ZeroDivisionError: division by zero")],
)
def test_what_breaks_in_somebodys_protocol_is_said_with_their_lines_alone(tmp_path: Path, name: str, says: str) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    done = cli("run", BASELINE, "--out", tmp_path / "out", "--seed", "3", "--protocol-file", f"{file}:{name}")
    assert done.exit_code == 1
    first, *more = [line for line in done.stderr.splitlines() if not line.startswith("compiling the kernel")]
    assert first == f"{file}:{says}; in a run of {name} at 0.010000000 s, seed 3"
    assert all(str(file) in line for line in more if line.lstrip().startswith("File "))
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_a_handler_that_never_returns_ends_by_the_limit_of_wall_time(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    assert cli("run", BASELINE, *SHORT, "--out", tmp_path / "out").exit_code == 0  # compiled and loaded
    limit = ("--set", "limits.wall=2 s")
    done = cli("run", BASELINE, "--out", tmp_path / "out", *limit, "--protocol-file", f"{file}:Loops")
    assert done.exit_code == 5, done.output
    assert f"wall: 2 s reached in Loops.on_pre_prepare ({file}:2" in done.output
    assert "invariants pass" in done.output
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_request_of_the_operator_that_is_never_carried_out_is_a_warning(tmp_path: Path) -> None:
    scenario = ROOT / "scenarios" / "protocols" / "qbft" / "membership.yaml"
    newcomer = "membership=[{at: 20 s, add: [4], when: level}, {at: 10 s, remove: [0]}]"
    crash = "faults=[{at: 1 s, crash: {nodes: [4]}}]"
    done = cli("run", scenario, "--out", tmp_path, "--set", "duration=30 s", "--set", newcomer, "--set", crash)
    assert done.exit_code == 0
    assert "warning: membership 0 (at 20 s) never took effect" in done.output
    assert "membership 1" not in done.output
