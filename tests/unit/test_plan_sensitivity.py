"""Sensitivity: indices of functions whose indices are known, noise that is told apart, and a study end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.plan.sensitivity import indices, sensitivity, table
from sim.scenario.designs import unit_cube
from sim.scenario.errors import ScenarioError
from sim.scenario.study import Study, load_study
from tests.unit.test_statistics_models import Floats, stream
from tests.unit.test_study import write

RANGES = "ranges: {network.latency.one_way: {from: 5 ms, to: 50 ms}, block.max_transactions: {from: 10, to: 19}}"


def designed(folder: Path, text: str) -> tuple[Study, Floats]:
    """A study and the points of its design in the unit square."""
    study = load_study(write(folder, f"sweep: {{{text}, {RANGES}}}}}\n"))
    assert study.sampled is not None
    return study, np.array(unit_cube(*study.sampled, study.seed))


def test_saltelli_finds_the_shares_of_a_sum(tmp_path: Path) -> None:
    """y = 3 a + b: variances 9 and 1, so 0.9 and 0.1 alone and in total."""
    study, x = designed(tmp_path, "saltelli: {samples: 256")
    assert len(study.cases) == 256 * 4
    y = 3 * x[:, 0] + x[:, 1] + 1000
    found = indices(study, "latency_p99_ms", [np.array([value, value]) for value in y])
    assert [parameter.key for parameter in found.parameters] == ["network.latency.one_way", "block.max_transactions"]
    for parameter, truth in zip(found.parameters, (0.9, 0.1), strict=True):
        assert abs(parameter.first - truth) < 2 * parameter.first_half
        assert abs(parameter.total - truth) < 2 * (parameter.total_half or 0)
    assert found.noise == 0
    assert "network.latency.one_way matters most" in found.verdict() and "ahead of block.max" in found.verdict()


def test_saltelli_tells_interaction_from_effect(tmp_path: Path) -> None:
    """y = (a - 1/2)(b - 1/2): neither matters alone, both do together."""
    study, x = designed(tmp_path, "saltelli: {samples: 256")
    y = (x[:, 0] - 0.5) * (x[:, 1] - 0.5)
    found = indices(study, "latency_p99_ms", [np.array([value]) for value in y])
    for parameter in found.parameters:
        assert abs(parameter.first) < 2 * parameter.first_half
        assert abs(parameter.total - 1) < 2 * (parameter.total_half or 0)
    assert found.noise is None and "noise is not known" in found.verdict()


def test_noise_is_measured_and_replications_lower_it(tmp_path: Path) -> None:
    """Variance of 3 a + b is 10/12; noise of variance 1 per run is 1/r of that in means of r."""
    study, x = designed(tmp_path, "saltelli: {samples: 128")
    y = 3 * x[:, 0] + x[:, 1]
    draws = stream(800)
    for replications in (2, 10):
        values = [value + draws.normal(0.0, 1.0, replications) for value in y]
        found = indices(study, "latency_p99_ms", values)
        expected = (1 / replications) / (10 / 12 + 1 / replications)
        assert found.noise == pytest.approx(expected, rel=0.25)


def test_a_seed_that_shifts_all_cases_alike_is_no_noise_between_them(tmp_path: Path) -> None:
    study, x = designed(tmp_path, "saltelli: {samples: 64")
    y = 3 * x[:, 0] + x[:, 1]
    shift = np.array([-5.0, 5.0, 7.0])
    plain = indices(study, "latency_p99_ms", [np.array([value] * 3) for value in y])
    moved = indices(study, "latency_p99_ms", [value + shift for value in y])
    assert [parameter.first for parameter in moved.parameters] == pytest.approx(
        [parameter.first for parameter in plain.parameters]
    )
    assert moved.noise == pytest.approx(0, abs=1e-12)


def test_morris_finds_the_slopes(tmp_path: Path) -> None:
    study, x = designed(tmp_path, "morris: {samples: 10")
    assert len(study.cases) == 10 * 3
    found = indices(study, "latency_p99_ms", [np.array([value]) for value in 7 * x[:, 0] - 2 * x[:, 1]])
    assert [parameter.first for parameter in found.parameters] == pytest.approx([7, 2])
    assert [parameter.total for parameter in found.parameters] == pytest.approx([0, 0], abs=1e-9)
    flat = indices(study, "latency_p99_ms", [np.array([1.0])] * len(x))
    assert flat.parameters == () and "no parameter in these ranges matters" in flat.verdict()


def test_a_run_that_did_not_end_ok_is_never_left_out_silently(tmp_path: Path) -> None:
    study, _ = designed(tmp_path, "morris: {samples: 2")
    rows = [{"case": case.number, "status": "ok", "latency_p99_ms": 1.0} for case in study.cases]
    assert len(table(study, rows, "latency_p99_ms")) == 6
    rows[2] |= {"status": "truncated"}
    rows[3] |= {"latency_p99_ms": None}
    with pytest.raises(ScenarioError, match=r"2 of 6 runs have no usable value \(no latency_p99_ms 1, truncated 1\)"):
        table(study, rows, "latency_p99_ms")


def test_a_study_end_to_end(tmp_path: Path) -> None:
    file = write(tmp_path, f"sweep: {{morris: {{samples: 4, {RANGES}}}}}\nreplications: 2\n")
    words = ["sensitivity", str(file), "--metric", "decision_latency_mean_ms", "--out", str(tmp_path / "out"), "--json"]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    latency, block = told["indices"]
    assert latency["mu_star"] == pytest.approx(3 * 45, rel=0.05)  # three one-way delays over the whole range
    assert block["mu_star"] < 1
    assert told["verdict"][0].startswith("mean decision latency: network.latency.one_way matters most (mu* 13")
    assert sorted(Path(name).suffix for name in told["files"]) == [".csv", ".png", ".svg"]
    again = sensitivity(file, ["decision_latency_mean_ms"], out=tmp_path / "out")
    assert again[0].parameters[0].first == pytest.approx(latency["mu_star"])


def test_other_studies_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="indices need a sweep of the kind saltelli or morris"):
        sensitivity(write(tmp_path, "sweep: {cases: [{}]}\n"), out=tmp_path / "out")
    with pytest.raises(ScenarioError, match="p99: is no metric of a run"):
        sensitivity(write(tmp_path, f"sweep: {{morris: {{samples: 4, {RANGES}}}}}\n"), ["p99"], out=tmp_path / "out")
    with pytest.raises(ScenarioError, match="balanced at powers of two only; write 4 or 8"):
        load_study(write(tmp_path, f"sweep: {{saltelli: {{samples: 5, {RANGES}}}}}\n"))
    with pytest.raises(ScenarioError, match="even number only; write 6"):
        load_study(write(tmp_path, f"sweep: {{morris: {{samples: 4, levels: 5, {RANGES}}}}}\n"))
    assert not (tmp_path / "out").exists()
