"""A scenario in the making: values that another program's file gave, each with where it stood, and what was assumed."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from sim.units import format_ns

ASSUMED = "assumed (A): not in the file"
_NO_PLACE = "not modelled, or of no effect here"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_DURATION_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGkmg]?)(?:i?[Bb])?")


class ForeignFileError(ValueError):
    """Something in another program's file cannot be used: "key: value: rule; remedy"."""


@dataclasses.dataclass
class Draft:
    """Keys of a scenario in the order in which they are written, and what could not be carried over."""

    source: str  # what the file is
    values: dict[tuple[str, ...], tuple[str, str]] = dataclasses.field(default_factory=dict)  # text, and why
    left: list[str] = dataclasses.field(default_factory=list)

    def put(self, path: str, value: object, why: str = ASSUMED) -> None:
        """Write a value under a dotted path."""
        self.values[tuple(path.split("."))] = str(value), why

    def leave(self, key: str, why: str) -> None:
        """Something of the file has no place in a scenario."""
        self.left.append(f"{key}: {why}")

    def leave_rest(self, found: Mapping[str, Any], used: set[str], at: str) -> None:
        """What else stands in a section."""
        rest = [key for key in found if key not in used]
        if rest:
            shown = ", ".join(f"{at}{key}"[:80] for key in rest[:12])
            self.leave(shown + (f" and {len(rest) - 12} more" if len(rest) > 12 else ""), _NO_PLACE)

    def assume(self) -> None:
        """Whatever a scenario needs and the file does not say."""
        for path, value in (
            ("duration", "2 min"),
            ("network.nodes", "4"),
            ("network.latency", "{model: fixed, one_way: 10 ms}"),
            ("protocol.name", "pbft"),
            ("workload", "[{kind: open, rate: 80 tx/s}]"),
        ):
            if tuple(path.split(".")) not in self.values:
                self.put(path, value)

    def text(self, file: str) -> str:
        """The scenario as YAML, with a comment for each value."""
        lines = [f"# Made by `pilotzone import {file}` from {self.source}."]
        lines += [f"# Not carried over: {_in_one_line(text)}." for text in self.left]
        order = ("duration", "warm_up", "network", "protocol", "block", "pool", "cpu", "workload", "clients")
        sections: dict[str, list[tuple[tuple[str, ...], str, str]]] = {key: [] for key in order}
        for path, (value, why) in self.values.items():
            sections[path[0]].append((path, value, why))
        for name, entries in sections.items():
            if entries and len(entries[0][0]) > 1:
                lines.append(f"{name}:")
            for path, value, why in sorted(entries, key=lambda entry: entry[0] != (name, "name")):
                indent = "  " * (len(path) - 1)
                lines.append(f"{indent}{path[-1]}: {value}  # {_in_one_line(why)}")
        return "\n".join(lines) + "\n"


def section(data: Any, key: str, at: str) -> dict[str, Any]:
    """A mapping inside a mapping; empty if it is not there."""
    found = data.get(key) if isinstance(data, Mapping) else None
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise ForeignFileError(f"{at}{key}: {_short(found)}: must be a mapping; check the file")
    return dict(found)


def seconds_ns(value: Any, key: str) -> int:
    """A number of seconds."""
    return _whole(number(value, key) * 1e9, value, key)


def duration_ns(value: Any, key: str) -> int:
    """A duration as Go and TOML files write it: 500ms, 2s, 1m30s; a number alone is nanoseconds."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _whole(float(value), value, key)
    text = str(value).strip()
    parts = _DURATION.findall(text)
    if not parts or "".join(a + b for a, b in parts) != text:
        raise ForeignFileError(f"{key}: {_short(value)}: is no duration; write one such as 2s or 500ms")
    return _whole(sum(float(a) * _DURATION_NS[b] for a, b in parts), value, key)


def size_bytes(value: Any, key: str) -> int:
    """A size as Fabric writes it: 512 KB is 524,288 bytes."""
    found = _SIZE.fullmatch(str(value).strip())
    if found is None:
        raise ForeignFileError(f"{key}: {_short(value)}: is no size; write one such as 512 KB")
    scale = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}[found[2].lower()]
    return _whole(float(found[1]) * scale, value, key)


def number(value: Any, key: str) -> float:
    """A number, also as text."""
    try:
        found = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found) or found < 0:
        raise ForeignFileError(f"{key}: {_short(value)}: must be a number from 0 on; check the file")
    return found


def whole(value: Any, key: str) -> int:
    """A whole number from 1 on."""
    found = number(value, key)
    if found != int(found) or found < 1:
        raise ForeignFileError(f"{key}: {_short(value)}: must be a whole number from 1 on; check the file")
    return int(found)


def shown_time(time_ns: int) -> str:
    """A time as a scenario writes it."""
    return format_ns(time_ns)


def _whole(found: float, value: Any, key: str) -> int:
    if not math.isfinite(found) or found > 9.2e18:
        raise ForeignFileError(f"{key}: {_short(value)}: is too large; check the file")
    return round(found)


def _in_one_line(text: str) -> str:
    """What a file says cannot leave the comment that it stands in."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:400]


def _short(value: Any) -> str:
    if isinstance(value, (Mapping, list)):
        return "a list" if isinstance(value, list) else "a mapping"  # its text may be as long as memory
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
