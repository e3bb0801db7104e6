"""What a second start takes from the cache of compiled code: what the run calls, and no more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sim.engine import entry

ROOT = Path(__file__).parents[2]
_WHAT_A_RUN_LOADS = """
import sim
from numba.core.dispatcher import Dispatcher
from sim.engine import entry
def loaded():
    return [name for name in ("propose", "crash", "flood") if isinstance(getattr(entry, name), Dispatcher)]
print(loaded())
sim.run(sim.load("scenarios/protocols/pbft/baseline.yaml", ["stop_after_decisions=3"]))
print(loaded())
"""


def test_an_entry_is_loaded_by_its_first_call() -> None:
    assert entry.propose is not None  # imported here, so that all are in the cache by now
    done = subprocess.run(
        [sys.executable, "-c", _WHAT_A_RUN_LOADS], capture_output=True, text=True, cwd=ROOT, check=True, timeout=600
    )
    assert done.stdout.split("\n") == ["[]", "['propose']", ""]
