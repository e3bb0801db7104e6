"""Quantities: what people write becomes exact integers, and anything doubtful is refused with a remedy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from sim import units
from sim.parameters import Bytes, Count, Nanoseconds, Parameters, key_of, quantity


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        (units.parse_ns, "20 ms", 20_000_000),
        (units.parse_ns, "0.1 ms", 100_000),
        (units.parse_ns, "10 min", 600_000_000_000),
        (units.parse_ns, "1.5us", 1_500),
        (units.parse_ns, "2 µs", 2_000),
        (units.parse_ns, "1e3 s", 10**12),
        (units.parse_ns, "0 s", 0),
        (units.parse_ns, "1 fortnight", 14 * 86_400 * 10**9),  # by way of pint
        (units.parse_bytes, "1 kB", 1_000),
        (units.parse_bytes, "1 KiB", 1_024),
        (units.parse_bytes, "1 MB", 1_000_000),
        (units.parse_bytes, "1 MiB", 1_048_576),
        (units.parse_bytes, "80 bit", 10),
        (units.parse_ps_per_byte, "100 Mbit/s", 80_000),
        (units.parse_ps_per_byte, "100 Mbps", 80_000),
        (units.parse_ps_per_byte, "1 GB/s", 1_000),
        (units.parse_ps_per_byte, "unlimited", 0),
        (units.parse_rate_tps, "80/s", 80.0),
        (units.parse_rate_tps, "80 tx/s", 80.0),
        (units.parse_rate_tps, "6 tx/min", 0.1),
        (units.parse_rate_tps, "80 tps", 80.0),
        (units.parse_fraction, "5 %", 0.05),
        (units.parse_fraction, 0.05, 0.05),
        (units.parse_fraction, "100%", 1.0),
    ],
)
def test_reads(parse: Callable[[object], float], text: object, expected: float) -> None:
    result = parse(text)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("parse", "text", "rule", "remedy"),
    [
        (units.parse_ns, 20, "has no unit", 'write "20 ms" or "20 s"'),
        (units.parse_ns, "0.5", "has no unit", 'write "0.5 ms" or "0.5 s"'),
        (units.parse_ns, "-5 ms", "must not be negative", 'write "20 ms"'),
        (units.parse_ns, "nan ms", "must be a finite number", 'write "20 ms"'),
        (units.parse_ns, float("inf"), "must be a finite number", 'write "20 ms"'),
        (units.parse_ns, "20 kB", "is a size where a time belongs", 'write for example "20 ms"'),
        (units.parse_ns, "20 furlongs", "is something else where a time belongs", '"20 ms"'),
        (units.parse_ns, "20 zorks", "unknown unit 'zorks'", '"20 ms"'),
        (units.parse_ns, "0.1 ns", "smaller than 1 ns", "write at least 1 ns"),
        (units.parse_ns, "10 years", "longer than 9 years", "write a shorter one"),
        (units.parse_ns, "1e999 s", "too large", "write a smaller value"),
        (units.parse_ns, "soon", "must be a time, a number and a unit", '"20 ms"'),
        (units.parse_ns, True, "must be a time", '"20 ms"'),
        (units.parse_bytes, "1 KB", "ambiguous unit 'KB'", "write kB (1000 B) or KiB (1024 B)"),
        (units.parse_bytes, "20 ms", "is a time where a size belongs", '"1 kB"'),
        (units.parse_ps_per_byte, "100 MB", "is a size where a bandwidth belongs", '"100 Mbit/s"'),
        (units.parse_ps_per_byte, "0 bit/s", "carries nothing", '"unlimited"'),
        (units.parse_ps_per_byte, "100 Tbit/s", "finest step", '"unlimited"'),
        (units.parse_rate_tps, "80", "has no unit", '"80 tx/s"'),
        (units.parse_rate_tps, "1e999 tx/s", "more than one per nanosecond", '"80 tx/s"'),
        (units.parse_fraction, "5 ms", "is a time where a fraction belongs", '"5 %"'),
        (units.parse_fraction, "120 %", "between 0 and 100 %", '"5 %"'),
        (units.parse_fraction, 5, "between 0 and 100 %", '"5 %"'),
    ],
)
def test_refuses(parse: Callable[[object], float], text: object, rule: str, remedy: str) -> None:
    with pytest.raises(units.UnitError) as caught:
        parse(text)
    said, _, advice = str(caught.value).partition("; ")
    assert rule in said or rule in str(caught.value)
    assert remedy in advice


def test_powers_are_not_evaluated() -> None:
    with pytest.raises(units.UnitError, match="unknown unit"):
        units.parse_ns("1 s**9999999999")


@given(st.integers(0, units.LONGEST_NS))
def test_times_survive_writing_and_reading(time_ns: int) -> None:
    assert units.parse_ns(units.format_ns(time_ns)) == time_ns


@given(st.integers(0, units.LARGEST))
def test_sizes_survive_writing_and_reading(size_bytes: int) -> None:
    assert units.parse_bytes(units.format_bytes(size_bytes)) == size_bytes


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (20_000_000, "20 ms"),
        (1_500_000_000, "1.5 s"),
        (90_000_000_000, "90 s"),
        (600 * 10**9, "10 min"),
        (0, "0 s"),
    ],
)
def test_times_read_well(time_ns: int, text: str) -> None:
    assert units.format_ns(time_ns) == text


def test_bandwidths_read_well() -> None:
    assert units.format_bandwidth(80_000) == "100 Mbit/s"
    assert units.format_bandwidth(0) == "unlimited"


def test_common_units_do_not_import_pint() -> None:
    code = "import sys; from sim import units; units.parse_ns('20 ms'); sys.exit('pint' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class _Example(Parameters):
    timeout_ns: Nanoseconds = quantity("2 s", "a time", positive=True)
    max_bytes: Bytes = quantity("1 MB", "a size", key="max_bytes")
    votes: Count = Field(description="a count")


def test_keys_drop_the_unit_unless_named() -> None:
    assert _Example.keys() == ("timeout", "max_bytes", "votes")
    assert key_of("bandwidth_ps_per_byte") == "bandwidth"
    assert key_of("rate_tps") == "rate"


def test_python_gives_integers_and_files_give_units() -> None:
    assert _Example(timeout_ns=5, votes=1).timeout_ns == 5
    assert _Example.from_text({"timeout": "3 s", "votes": 1}).timeout_ns == 3 * units.NS_PER_S
    with pytest.raises(ValueError, match="has no unit"):
        _Example.from_text({"timeout": 3, "votes": 1})
    with pytest.raises(ValueError, match="timeout_ns"):
        _Example.from_text({"timeout_ns": "3 s", "votes": 1})
    with pytest.raises(ValueError, match="must not be negative"):
        _Example(timeout_ns=-1, votes=1)


def test_every_parameter_is_described() -> None:
    with pytest.raises(TypeError, match="has no description"):

        class _Bare(Parameters):
            votes: int = 3


def test_units_show_in_the_json_schema() -> None:
    timeout = _Example.model_json_schema()["properties"]["timeout"]
    assert timeout["type"] == "string"
    assert "ns" in timeout["x-unit"]
    assert timeout["default"] == "2 s"
