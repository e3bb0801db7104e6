"""Every scalar and column of the run state has one owner."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sim.kernel import layout, run_state
from sim.ledger import rows


def test_a_number_has_one_owner() -> None:
    claims = layout.Claims("column", 8)
    taken = claims(3)
    assert taken == 3
    with pytest.raises(ValueError, match=r"column 3 is taken of test_layout:\d+; the next free one is 0"):
        claims(3)
    with pytest.raises(ValueError, match="column 8 is not below 8"):
        claims(8)


def test_a_second_claim_of_a_number_of_the_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scalar 0 is NOW of sim\.kernel\.run_state"):
        layout.scalar(run_state.NOW)
    with pytest.raises(ValueError, match=r"column 41 is BLOCK of sim\.ledger\.rows"):
        layout.slot(rows.BLOCK)


def test_the_table_names_every_owner() -> None:
    done = subprocess.run([sys.executable, "-m", "sim.kernel.layout"], capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["scalar", "0", "NOW", "sim.kernel.run_state"] in lines
    assert ["column", "56", "ACTIONS", "sim.engine.actions"] in lines
    assert len(lines) == len(layout.table().splitlines())
    assert {line[3] for line in lines} > {"sim.kernel.run_state", "sim.ledger.rows", "sim.engine.actions"}
