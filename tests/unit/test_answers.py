"""The answer stands first, in words that the results bear out, and no line is wider than a terminal."""

from __future__ import annotations

import dataclasses
from string import Formatter
from typing import Any

import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.faults.settings import ACTIONS
from sim.plan.contingency import halting
from sim.report import demo, verdicts
from sim.report.outcome import Outcome, of_result
from sim.report.words import WORDS
from sim.scenario.load import load_scenario
from sim.scenario.run import run
from tests.runs import scenario

LOAD = [{"kind": "open", "rate": "50 tx/s", "bytes": "100 B", "arrivals": "uniform"}]


def outcome(label: str, **more: Any) -> Outcome:
    base: dict[str, Any] = {
        "duration": "40 s",
        "liveness_bound": "10 s",
        "workload": LOAD,
        "protocol": {"name": "pbft"},
    }
    return of_result(run(scenario(4, **(base | more))), label)


def crash(nodes: list[int], for_: str = "10 s") -> dict[str, Any]:
    return {"faults": [{"at": "10 s", "for": for_, "crash": {"nodes": nodes}}]}


@pytest.fixture(scope="module")
def runs() -> dict[str, Outcome]:
    return {
        "calm": outcome("calm"),
        "backup lost": outcome("backup lost", **crash([2])),
        "two lost": outcome("two lost", **crash([1, 2])),
        "primary lost": outcome("primary lost", **crash([0])),
    }


def test_a_run_halts_or_goes_on_or_slows(runs: dict[str, Outcome]) -> None:
    among = [*runs.values()]
    said = {name: verdicts.verdict(one, among) for name, one in runs.items()}
    assert said == {"calm": "keeps up", "backup lost": "goes on", "two lost": "halts", "primary lost": "slows"}
    assert verdicts.verdict(runs["primary lost"]) == "goes on"  # nobody knows how long a calm run takes


def test_an_outage_shorter_than_a_bin_of_the_time_line_halts_too() -> None:
    long_bins = outcome("long bins", duration="20 min", **crash([1, 2], "3 s"))
    assert verdicts.verdict(long_bins) == "halts"
    assert verdicts.verdict(outcome("goes on", duration="20 min", **crash([2], "3 s"))) == "goes on"


def test_what_cannot_keep_up_is_told() -> None:
    slow = outcome(
        "slow", workload=[LOAD[0] | {"rate": "400 tx/s"}], block={"interval": "1 s", "max_transactions": 100}
    )
    assert verdicts.verdict(slow) == "falls behind"
    assert "slow falls behind: " in verdicts.answer([slow])[0]


@pytest.mark.parametrize(("status", "word"), [("safety violation", "breaks"), ("liveness failure", "halts for good")])
def test_a_run_that_ended_badly_is_called_so_first(runs: dict[str, Outcome], status: str, word: str) -> None:
    broken = dataclasses.replace(runs["calm"], label="broken", status=status)
    assert verdicts.verdict(broken) == word
    lines = verdicts.answer([runs["calm"], broken])
    assert lines[0].startswith(f"broken {word.split()[0]}")
    assert "calm keeps up" in lines[-1]


def test_the_sentences_name_who_halts_and_after_what_pause_others_go_on(runs: dict[str, Outcome]) -> None:
    lines = verdicts.answer([runs["calm"], runs["two lost"]])
    recovery = verdicts.time(float(runs["two lost"].metrics["recovery_s"] or 0))
    assert (
        lines[0] == f"Losing nodes 1 and 2 for 10 s halts two lost; once it is over, it decides again after {recovery}."
    )
    one = verdicts.answer([runs["backup lost"]])[0]
    pause = verdicts.time(float(runs["backup lost"].metrics["longest_pause_s"] or 0))
    assert one == f"Losing node 2 for 10 s does not halt backup lost: it goes on, with pauses of at most {pause}."


def test_the_short_table_has_whole_names_and_fits(runs: dict[str, Outcome]) -> None:
    named = [
        dataclasses.replace(one, label=f"a-design-with-a-very-long-name-{i}") for i, one in enumerate(runs.values())
    ]
    table = verdicts.short_table(named).splitlines()
    assert len(table) == 2 + len(named)
    assert max(map(len, table)) <= verdicts.WIDTH
    assert all(one.label in line for one, line in zip(named, table[2:], strict=True))


@pytest.mark.parametrize(
    ("seconds", "text"), [(266_400, "74 h"), (300, "5 min"), (119, "119 s"), (4.2449, "4.24 s"), (0.1234, "123 ms")]
)
def test_times_are_for_people(seconds: float, text: str) -> None:
    assert verdicts.time(seconds) == text


def test_domains_that_halt_the_demos_designs_by_arithmetic() -> None:
    folder = demo.scenario_folder()
    found = {
        name: [element.name for element in halting(load_scenario(folder / f"{name}.yaml"))]
        for name in ("island-7-pbft-storm", "island-7-raft-storm", "island-7-cured-pbft-storm")
    }
    assert found == {
        "island-7-pbft-storm": ["N", "E"], "island-7-raft-storm": [], "island-7-cured-pbft-storm": ["E"],
    }  # fmt: skip


@pytest.mark.parametrize("command", [["demo"], ["compare", *["scenarios/quickstart.yaml"] * 2, "--replications", "2"]])
def test_a_command_that_compares_says_the_answer_first_in_80_columns(
    command: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("results")
    done = CliRunner().invoke(app, [*command, "--out", str(out), "--quiet"])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    table = next(i for i, line in enumerate(lines) if line.startswith("design "))
    assert 0 < table < 12
    assert any(word in " ".join(lines[:table]) for word in ("halts", "keep up", "go on"))
    written = lines.index("written:")
    assert max(map(len, lines[:written])) <= 80
    assert any(line.endswith("table.md") for line in lines[written:])


def test_every_kind_of_fault_has_words() -> None:
    assert {*ACTIONS} <= {*WORDS}


def test_both_languages_say_everything_with_the_same_values() -> None:
    for key, (english, chinese) in WORDS.items():
        fields = [{name for _, name, _, _ in Formatter().parse(text) if name} for text in (english, chinese)]
        assert fields[1] <= fields[0] <= fields[1] | {"they"}, key
        assert any("\u4e00" <= letter <= "\u9fff" for letter in chinese) or key in ("assumption", "played short"), key


def test_the_same_answer_in_chinese(runs: dict[str, Outcome]) -> None:
    lines = verdicts.answer([runs["calm"], runs["two lost"]], "zh")
    recovery = verdicts.time(float(runs["two lost"].metrics["recovery_s"] or 0))
    assert lines[0] == f"失去节点 1、2持续 10 s，two lost停摆；故障结束后，经{recovery}恢复出块。"
