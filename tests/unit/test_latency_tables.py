"""Latency tables as others keep them: lists, square matrices, pings; separators, marks, names and noise."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sim.network.latency import one_way_matrix_ns
from sim.network.settings import Network
from sim.scenario.errors import ScenarioError
from sim.scenario.run import run
from tests.runs import scenario

SQUARE = "From/to,east,west,south\neast,0,31,58\nwest,30,0,88\nsouth,58,88,0\n"
PINGS = (
    '"source","destination","timestamp","min","avg","max","mdev"\n'
    '"1","2","2020-01-01 00:00:17.000","7.1","8.2","9.3","0.8"\n'
    '"2","1","2020-01-01 00:00:17.000","7.2","8.4","9.5","0.9"\n'
)


def matrix_ms(folder: Path, text: str, regions: list[str], encoding: str = "utf-8", **more: Any) -> list[list[float]]:
    """One-way milliseconds between the regions, by a table with this text."""
    (folder / "table.csv").write_text(text, encoding=encoding)
    latency = {"model": "matrix", "file": "table.csv", "regions": regions, **more}
    network = Network.from_text({"nodes": len(regions), "latency": latency}, base_dir=str(folder))
    return [[ns / 1e6 for ns in row] for row in one_way_matrix_ns(network, 1).tolist()]


def test_a_square_matrix_says_each_direction(tmp_path: Path) -> None:
    found = matrix_ms(tmp_path, SQUARE, ["east", "west", "south"])
    assert found == [[0.5, 31, 58], [30, 0.5, 88], [58, 88, 0.5]]


def test_rows_and_columns_of_a_matrix_may_stand_in_any_order(tmp_path: Path) -> None:
    text = ",b,a\na,1,0\nb,0,2\n"
    assert matrix_ms(tmp_path, text, ["a", "b"]) == [[0.5, 1], [2, 0.5]]


def test_it_runs_as_the_same_numbers_by_hand_do(tmp_path: Path) -> None:
    by_hand = scenario(3, protocol="tendermint", **{"network.latency": {
        "model": "explicit", "one_way_ms": [[0.5, 31, 58], [30, 0.5, 88], [58, 88, 0.5]],
    }})  # fmt: skip
    (tmp_path / "square.csv").write_text(SQUARE)
    table = {"model": "matrix", "file": str(tmp_path / "square.csv"), "regions": ["east", "west", "south"]}
    read = scenario(3, protocol="tendermint", **{"network.latency": table})
    assert run(read).digest == run(by_hand).digest


def test_pings_are_known_and_their_mean_counts(tmp_path: Path) -> None:
    assert matrix_ms(tmp_path, PINGS, ["1", "2"])[0][1] == 4.15
    least = {"from": "source", "to": "destination", "rtt_ms": "min"}
    assert matrix_ms(tmp_path, PINGS, ["1", "2"], columns=least)[0][1] == 3.575


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("from,to,rtt_ms\nA,B,10\n", "utf-8-sig"),
        ("from, to , rtt_ms\n A , B, 10 \n", "utf-8"),
        ("from;to;rtt_ms\nA;B;10,0\n", "utf-8"),
        ("from\tto\trtt_ms\r\nA\tB\t10\r\n", "utf-8"),
        ("# measured by us\nFrom,To,RTT\nA,B,10\n\n", "utf-8"),
        ("src,dst,one_way_ms\nA,B,5\nB,A,5\n", "utf-8"),
    ],
)
def test_the_same_table_in_six_hands(tmp_path: Path, text: str, encoding: str) -> None:
    assert matrix_ms(tmp_path, text, ["A", "B"], encoding) == [[0.5, 5], [5, 0.5]]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a,b\nA,B\n", "has the columns a, b; give it the columns from,to,rtt_ms"),
        ("from,to,rtt_ms\nA,B,ten\n", "row 1 has 'ten' for a time; write a number of milliseconds"),
        ("from,to,rtt_ms\nA,B,-1\n", "row 1 has the time -1.0 ms; write 0 or more"),
        ("from,to,rtt_ms\nA,B,nan\n", "row 1 has the time nan ms; write 0 or more"),
        ("from,to,rtt_ms\nA,B,9e9\n", "write at most 1 h"),
        ("from,to,rtt_ms\nA,B\n", "row 1 has 2 cells, and the header 3; add what lacks"),
        ("from,to,rtt_ms\nA,B,1\nB,A,2\n", "row 2 says 2 ms for B and A, an earlier row 1 ms; keep one"),
        ("from,to,one_way_ms\nA,B,1\n", "the latency table has no row for B to A; add it"),
        (",A,B\nA,0,1\nB,0\n", "row B of the matrix has 1 numbers for 2 columns; add what lacks"),
        ("", "is empty; give it the columns"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=re.escape(rule)):
        matrix_ms(tmp_path, text, ["A", "B"])


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the file has no column median; it has source, destination"):
        matrix_ms(tmp_path, PINGS, ["1", "2"], columns={"rtt_ms": "median"})


def test_a_row_says_one_of_the_two() -> None:
    rows = [{"from": "A", "to": "B", "rtt": "10 ms", "one_way": "5 ms"}]
    with pytest.raises(ScenarioError, match="a row says one of rtt and one_way"):
        scenario(2, **{"network.latency": {"model": "matrix", "rtts": rows, "regions": ["A", "B"]}})
