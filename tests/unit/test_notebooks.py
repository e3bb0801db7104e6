"""Every notebook runs from top to bottom.

IPython runs the cells itself, without a kernel process and its sockets: over those a message was lost now and then, and
the test waited for ever.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def run(notebook: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", "--no-confirm-exit", str(notebook)]
    environment = {**os.environ, "MPLBACKEND": "Agg", "IPYTHONDIR": str(tmp_path)}
    return subprocess.run(
        command, cwd=notebook.parent, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(notebook, tmp_path):
    done = run(notebook, tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_one_that_fails_is_noticed(tmp_path):
    bad = tmp_path / "bad.ipynb"
    cell = '{"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": null, "source": ["assert 1 == 2"]}'
    bad.write_text(f'{{"cells": [{cell}], "metadata": {{}}, "nbformat": 4, "nbformat_minor": 5}}')
    assert run(bad, tmp_path).returncode != 0
