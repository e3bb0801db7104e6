"""Which sources a stored result depends on: all that a run loads, or a changed model would pass for the old one."""

from __future__ import annotations

import json
import subprocess
import sys

LOADED = """
import json, pathlib, sys
import sim
from sim.scenario import store
from sim.protocols import PROTOCOLS
from tests.runs import play, scenario

for name in PROTOCOLS:
    play(scenario(4, protocol=name, duration="100 ms", observers=[{"name": "watcher"}]))
root = pathlib.Path(sim.__file__).parent
known = {*store.model_files()}
files = [getattr(module, "__file__", None) for name, module in sys.modules.items() if name.split(".")[0] == "sim"]
print(json.dumps([str(pathlib.Path(file).relative_to(root)) for file in files if pathlib.Path(file) not in known]))
"""
# What reads, keeps and complains: it has no part in what happens in a run. What a platform sets, and a raised
# patience, stand in the scenario.
APART = {
    "__init__.py", "files.py", "manifests.py", "scenario/__init__.py", "scenario/errors.py", "scenario/store.py",
    "scenario/patience.py", "scenario/platforms/__init__.py",
}  # fmt: skip


def test_every_source_that_a_run_loads_is_in_the_digest() -> None:
    """Once `sim/families` was not, and results of an older view change would have been taken for new ones."""
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, timeout=600)
    assert {*json.loads(done.stdout)} <= APART
