"""The same scenario twice, here and in a fresh process, and what differs."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
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
    """Digests of both runs, and the first event that differs (None: none that is traced)."""

    digests: tuple[str, str]
    divergence: Divergence | None

    @property
    def same(self) -> bool:
        """Whether both runs were the same, to the last traced event."""
        return self.digests[0] == self.digests[1] and self.divergence is None

    def lines(self) -> list[str]:
        """The report, line by line."""
        if self.same:
            return [f"same digest {self.digests[0]} twice, the second time in a fresh process"]
        head = f"two runs differ: digests {self.digests[0]} and {self.digests[1]}"
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
    """Run a scenario here and, by its command line `arguments`, in a process with another PYTHONHASHSEED.

    `scenario` must keep all messages (LOG_ALL). Nothing is left on disk. Raises ScenarioError if the other
    process could not run it.
    """
    with tempfile.TemporaryDirectory(prefix="pilotzone-") as folder:
        here, there = Path(folder) / "here", Path(folder) / "there"
        command = [sys.executable, "-m", "sim.cli", "run", *arguments, "--set", LOG_ALL]
        hash_seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
        with subprocess.Popen(
            [*command, "--out", str(there), "--json", "--quiet"],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as other:
            try:
                first = run(scenario, out=here, progress=progress, protocol=protocol)
                output, errors = other.communicate()
            except BaseException:
                other.kill()
                raise
        try:
            second = json.loads(output)
        except json.JSONDecodeError:
            last = errors.strip().splitlines()[-1:] or ["no message"]
            raise ScenarioError(
                f"{scenario.name}: ran here, but not in a fresh process (exit code {other.returncode}): {last[0]}"
            ) from None
        assert first.path is not None
        divergence = first_divergence(open_run(first.path), open_run(Path(second["path"])))
        return Twice((first.digest, str(second["digest"])), divergence)
