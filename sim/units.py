"""Quantities as people write them ("20 ms", "100 Mbit/s") to the integers used inside, and back.

Inside the simulator a time is integer nanoseconds, a size integer bytes, and a bandwidth integer picoseconds
per byte, so that a transmission time is one multiplication. Rates are floats per second, fractions floats in
[0, 1]. Common units are found in a table; anything else goes to pint, imported only then because that costs
half a second. All arithmetic is on exact fractions, so "0.1 ms" is 100 000 ns on every machine.
"""

from __future__ import annotations

import functools
import re
from fractions import Fraction
from typing import Any

NS_PER_US = 1_000
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
NS_PER_MIN = 60 * NS_PER_S
NS_PER_H = 3600 * NS_PER_S
PS_PER_S = 10**12
LARGEST = 1 << 62  # what a signed 64-bit column holds with one bit to spare for sums
SLOWEST_PS_PER_BYTE = 8_000_000_000  # 1 kbit/s
LONGEST_NS = 1 << 58  # 9.1 years: sums of a few times stay within 64 bits

_TIME, _SIZE, _BANDWIDTH, _RATE, _FRACTION = "time", "size", "bandwidth", "rate", "fraction"
_EXAMPLE = {
    _TIME: "20 ms",
    _SIZE: "1 kB",
    _BANDWIDTH: "100 Mbit/s",
    _RATE: "80 tx/s",
    _FRACTION: "5 %",
}
_ARTICLE = {
    _TIME: "a time",
    _SIZE: "a size",
    _BANDWIDTH: "a bandwidth",
    _RATE: "a rate",
    _FRACTION: "a fraction",
}

_PREFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
_SECONDS = {
    ("ns", "nanosecond", "nanoseconds"): Fraction(1, 10**9),
    ("us", "µs", "μs", "microsecond", "microseconds"): Fraction(1, 10**6),
    ("ms", "millisecond", "milliseconds"): Fraction(1, 10**3),
    ("s", "sec", "second", "seconds"): Fraction(1),
    ("min", "minute", "minutes"): Fraction(60),
    ("h", "hour", "hours"): Fraction(3600),
    ("d", "day", "days"): Fraction(86400),
}
_EVENTS = ("", "tx", "event", "events", "transactions")
_AMBIGUOUS = {"KB": "kB (1000 B) or KiB (1024 B)", "KB/s": "kB/s or KiB/s"}

_NUMBER = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?)\s*(.*)", re.DOTALL)
_NOT_FINITE = re.compile(r"[+-]?\.?(nan|inf|infinity)\b.*", re.IGNORECASE | re.DOTALL)
_PINT_UNIT = re.compile(r"[A-Za-zµμ/* ]{1,40}")


class UnitError(ValueError):
    """A quantity that cannot be read. The message is "rule; remedy"; the value itself is not repeated."""


def _table() -> dict[str, tuple[str, Fraction]]:
    """Unit text -> (dimension, factor to seconds, bytes, bytes/s, 1/s or 1)."""
    percent = (_FRACTION, Fraction(1, 100))
    units: dict[str, tuple[str, Fraction]] = {"%": percent, "percent": percent}
    for names, seconds in _SECONDS.items():
        for name in names:
            units[name] = (_TIME, seconds)
            for event in _EVENTS:
                units[f"{event}/{name}"] = (_RATE, 1 / seconds)
    units["tps"] = units["Hz"] = (_RATE, Fraction(1))
    for prefix, factor in (_PREFIXES | _BINARY).items():
        for byte in ("B", "byte", "bytes"):
            units[prefix + byte] = (_SIZE, Fraction(factor))
            units[f"{prefix}{byte}/s"] = (_BANDWIDTH, Fraction(factor))
        for bit in ("bit", "bits", "b"):
            units[f"{prefix}{bit}/s"] = (_BANDWIDTH, Fraction(factor, 8))
        units[f"{prefix}bit"] = (_SIZE, Fraction(factor, 8))
        units[f"{prefix}bps"] = (_BANDWIDTH, Fraction(factor, 8))
    return units


_UNITS = _table()


@functools.cache
def _pint_registry() -> Any:
    """All units that pint knows: half a second to build."""
    import pint  # type: ignore[import-untyped,unused-ignore]

    return pint.UnitRegistry(non_int_type=Fraction)


@functools.cache
def _ask_pint(unit: str) -> tuple[str, Fraction] | None:
    """Dimension and factor of a unit that the table does not hold; None if pint does not know it either."""
    if not _PINT_UNIT.fullmatch(unit):
        return None  # no digits, powers or brackets: pint would evaluate them
    import pint  # type: ignore[import-untyped,unused-ignore]  # slow to import, rarely needed

    registry = _pint_registry()
    try:
        root = registry.Quantity(Fraction(1), registry.parse_units(unit)).to_root_units()
    except (pint.errors.PintError, pint.errors.DefinitionSyntaxError, ValueError, TypeError, AttributeError):
        return None
    kinds: dict[frozenset[tuple[str, Any]], tuple[str, int]] = {
        frozenset({("second", 1)}): (_TIME, 1),
        frozenset({("bit", 1)}): (_SIZE, 8),
        frozenset({("bit", 1), ("second", -1)}): (_BANDWIDTH, 8),
        frozenset({("second", -1)}): (_RATE, 1),
        frozenset(): (_FRACTION, 1),
    }
    found = kinds.get(frozenset((str(name), int(power)) for name, power in root.unit_items()))
    if found is None:
        return "other", Fraction(1)
    return found[0], Fraction(root.magnitude) / found[1]


def _read(text: object, dimension: str) -> Fraction:
    """The exact value in seconds, bytes, bytes/s, 1/s or 1. Raises UnitError."""
    example = _EXAMPLE[dimension]
    if isinstance(text, bool) or not isinstance(text, (str, int, float)):
        raise UnitError(f'must be {_ARTICLE[dimension]} with its unit; write "{example}"')
    if not isinstance(text, str):
        text = repr(text)
    text = text.strip()
    if _NOT_FINITE.fullmatch(text):
        raise UnitError(f'must be a finite number; write "{example}"')
    match = _NUMBER.fullmatch(text) if len(text) <= 80 else None
    if match is None:
        raise UnitError(f'must be {_ARTICLE[dimension]}, a number and a unit; write "{example}"')
    number, unit = Fraction(match[1]), match[2].strip()
    if not unit:
        if dimension != _FRACTION:
            remedy = f'"{text} ms" or "{text} s"' if dimension == _TIME else f'"{example}"'
            raise UnitError(f"has no unit, and {_ARTICLE[dimension]} needs one; write {remedy}")
        kind, factor = _FRACTION, Fraction(1)
    else:
        kind, factor = _find(unit, dimension)
    if kind != dimension:
        is_a = _ARTICLE.get(kind, "something else")
        raise UnitError(f'is {is_a} where {_ARTICLE[dimension]} belongs; write for example "{example}"')
    if number < 0:
        raise UnitError(f'must not be negative; write "{example}" or 0 of that unit')
    return number * factor


def _find(unit: str, dimension: str) -> tuple[str, Fraction]:
    if unit in _AMBIGUOUS:
        raise UnitError(f"has the ambiguous unit '{unit}'; write {_AMBIGUOUS[unit]}")
    found = _UNITS.get(unit) or _UNITS.get(re.sub(r"\s*/\s*", "/", unit)) or _ask_pint(unit)
    if found is None:
        raise UnitError(f"has the unknown unit '{unit[:40]}'; write for example \"{_EXAMPLE[dimension]}\"")
    return found


def _whole(value: Fraction, smallest: str) -> int:
    """Round to the nearest integer (ties to even), refusing what vanishes or overflows."""
    result = round(value)
    if result == 0 and value > 0:
        raise UnitError(f"is smaller than {smallest}, the finest step; write at least {smallest}, or 0")
    if result > LARGEST:
        raise UnitError("is too large for a 64-bit count; write a smaller value")
    return result


def parse_ns(text: object) -> int:
    """A time, "20 ms" -> integer ns. Raises UnitError for another dimension, no unit, < 0, NaN, infinity."""
    result = _whole(_read(text, _TIME) * NS_PER_S, "1 ns")
    if result > LONGEST_NS:
        raise UnitError("is longer than 9 years, the longest time kept; write a shorter one")
    return result


def parse_bytes(text: object) -> int:
    """A size, "1 kB" (1000) or "1 KiB" (1024) -> integer bytes. Raises UnitError."""
    return _whole(_read(text, _SIZE), "1 B")


def parse_ps_per_byte(text: object) -> int:
    """A bandwidth, "100 Mbit/s" -> integer ps per byte (80 000), "unlimited" -> 0. Raises UnitError."""
    if isinstance(text, str) and text.strip().lower() == "unlimited":
        return 0
    if isinstance(text, str) and re.search(r"\dm?\s*m(bit|b/|bps|B)", text.replace(" ", "")):
        raise UnitError('counts in thousandths of a bit: m is milli, M is mega; write "100 Mbit/s"')
    bytes_per_s = _read(text, _BANDWIDTH)
    if bytes_per_s == 0:
        raise UnitError('carries nothing at 0; write "100 Mbit/s" or "unlimited", or cut the link by a fault')
    ps = round(PS_PER_S / bytes_per_s)
    if ps == 0:
        raise UnitError('is beyond the finest step of 1 ps per byte (8 Tbit/s); write "unlimited"')
    if ps > SLOWEST_PS_PER_BYTE:
        raise UnitError('is too slow to be meant; write at least "1 kbit/s"')
    return ps


def parse_rate_tps(text: object) -> float:
    """A rate, "80 tx/s", "80/s" or "3 tx/min" -> events per second. Raises UnitError."""
    rate = _read(text, _RATE)
    if rate > NS_PER_S:
        raise UnitError('is more than one per nanosecond; write a rate such as "80 tx/s"')
    return float(rate)


def parse_fraction(text: object) -> float:
    """A fraction, "5 %" or 0.05 -> float in [0, 1]. Raises UnitError."""
    value = _read(text, _FRACTION)
    if value > 1:
        raise UnitError('must lie between 0 and 100 %; write "5 %" or 0.05')
    return float(value)


def _decimal(value: Fraction) -> str | None:
    """A short exact decimal, or None if it has more than six places."""
    millionths = value * 10**6
    if millionths.denominator != 1:
        return None
    whole, rest = divmod(millionths.numerator, 10**6)
    return f"{whole}.{rest:06d}".rstrip("0").rstrip(".")


def _format(value: Fraction, steps: list[tuple[str, Fraction]]) -> str:
    """The largest unit that the value reaches and in which it is a short exact decimal."""
    for unit, size in steps:
        if value >= size:
            text = _decimal(value / size)
            if text is not None:
                return f"{text} {unit}"
    return f"{round(value)} {steps[-1][0]}"


def format_ns(time_ns: int) -> str:
    """Integer ns as text that `parse_ns` reads back exactly: 20_000_000 -> "20 ms"."""
    steps = [
        ("h", Fraction(NS_PER_H)),
        ("min", Fraction(NS_PER_MIN)),
        ("s", Fraction(NS_PER_S)),
        ("ms", Fraction(NS_PER_MS)),
        ("us", Fraction(NS_PER_US)),
        ("ns", Fraction(1)),
    ]
    if time_ns < 0:
        return f"-{format_ns(-time_ns)}"
    if time_ns == 0:
        return "0 s"
    # Hours and minutes only when whole: "1.5 min" reads worse than "90 s".
    return _format(Fraction(time_ns), [s for i, s in enumerate(steps) if i > 1 or time_ns % int(s[1]) == 0])


def format_bytes(size_bytes: int) -> str:
    """Integer bytes as text that `parse_bytes` reads back exactly: 1_000_000 -> "1 MB"."""
    return _format(Fraction(size_bytes), [(p + "B", Fraction(_PREFIXES[p])) for p in ("G", "M", "k", "")])


def format_bandwidth(ps_per_byte: int) -> str:
    """Picoseconds per byte as bandwidth, rounded to 1 bit/s: 80_000 -> "100 Mbit/s", 0 -> "unlimited"."""
    if ps_per_byte == 0:
        return "unlimited"
    bits = Fraction(round(Fraction(8 * PS_PER_S, ps_per_byte)))
    return _format(bits, [(p + "bit/s", Fraction(_PREFIXES[p])) for p in ("G", "M", "k", "")])
