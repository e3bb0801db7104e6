"""The same scenario twice, here and in a fresh process without the fast path, and what differs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from sim.check.determinism import Divergence, first_divergence
from sim.protocol import Replica
from sim.scenario.errors import ScenarioError
from sim.scenario.run import Progress, run
from sim.scenario.schema import Scenario
from sim.trace.read import open_run

LOG_ALL = "trace=messages"  # the override that makes every message comparable; it changes no digest


@dataclasses.dataclass(frozen=True)
class Twice:
    """Digests and statuses of both runs, and the first event that differs (None: none that is traced).

    `cause`, if they differ: the fast path, or the process.
    """

    digests: tuple[str, str]
    statuses: tuple[str, str]
    divergence: Divergence | None
    cause: str = ""

    @property
    def same(self) -> bool:
        """Whether both runs were the same, to the last traced event."""
        return self.digests[0] == self.digests[1] and self.statuses[0] == self.statuses[1] and self.divergence is None

    def lines(self) -> list[str]:
        """The report, line by line."""
        if self.same:
            how = "the second time in a fresh process without the fast path"
            return [f"same digest {self.digests[0]} twice, {how}"]
        head = f"two runs differ by {self.cause}: digests {self.digests[0]} and {self.digests[1]}"
        if self.statuses[0] != self.statuses[1]:
            head += f", {self.statuses[0]} and {self.statuses[1]}"
        if self.divergence is None:
            return [
                head,
                "all traced events and messages are equal: the difference is in client transactions or timers",
            ]
        return [head, *self.divergence.lines()]


def run_twice(
    scenario: Scenario,
    arguments: Sequence[str],
    *,
    protocol: type[Replica] | None = None,
    progress: Progress | None = None,
) -> Twice:
    """Run a scenario here and, by its command line `arguments`, with handlers alone and another PYTHONHASHSEED.

    `scenario` must keep all messages (LOG_ALL). Nothing is left on disk. Raises ScenarioError if the other
    process could not run it.
    """
    with tempfile.TemporaryDirectory(prefix="pilotzone-") as folder:
        here = Path(folder)
        with _elsewhere(arguments, here / "handlers", fast_path=False) as other:
            first = run(scenario, out=here / "fast", progress=progress, protocol=protocol)
            second = _answer(scenario.name, other)
        assert first.path is not None
        divergence = first_divergence(open_run(first.path), open_run(Path(second["path"])))
        found = Twice((first.digest, second["digest"]), (first.status, second["status"]), divergence)
        if found.same:
            return found
        with _elsewhere(arguments, here / "again", fast_path=True) as other:
            third = _answer(scenario.name, other)
        cause = "the fast path" if third["digest"] == first.digest else "the process"
        return dataclasses.replace(found, cause=cause)


@contextlib.contextmanager
def _elsewhere(arguments: Sequence[str], out: Path, *, fast_path: bool) -> Iterator[subprocess.Popen[str]]:
    """A run in another process, ended if what goes on meanwhile fails."""
    how = [] if fast_path else ["--no-fast-path"]
    # -P: the folder in which the command is given may hold a `sim` of its own.
    command = [sys.executable, "-P", "-m", "sim.cli", "run", *arguments, "--set", LOG_ALL, *how]
    hash_seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    with subprocess.Popen(
        [*command, "--out", str(out), "--json", "--quiet"],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as other:
        try:
            yield other
        except BaseException:
            other.kill()
            raise


def _answer(name: str, other: subprocess.Popen[str]) -> dict[str, str]:
    """What the other process printed."""
    output, errors = other.communicate()
    try:
        found: dict[str, str] = json.loads(output)
    except json.JSONDecodeError:
        last = errors.strip().splitlines()[-1:] or ["no message"]
        raise ScenarioError(
            f"{name}: ran here, but not in a fresh process (exit code {other.returncode}): {last[0]}"
        ) from None
    return found
