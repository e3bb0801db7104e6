"""Platforms as deployed: what each sets, with the source of every value, and which of its rules are missing here.

A scenario that names one starts from its values (`profiles.yaml`); whatever the scenario says itself wins.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

FILE = Path(__file__).with_name("profiles.yaml")
_RULES = ("interval", "batch_timeout", "period", "empty_period")  # of block: ways to say when blocks are made
_BUILT = ("built", "rebuilt_every")  # what goes with a period


@dataclasses.dataclass(frozen=True)
class Value:
    """One value of a platform. `assumed`: nobody published it (A)."""

    path: tuple[str, ...]
    text: str
    source: str

    @property
    def assumed(self) -> bool:
        """Whether it is an assumption."""
        return self.source.startswith("(A)")


@dataclasses.dataclass(frozen=True)
class Platform:
    """A platform of one version."""

    name: str
    what: str
    version: str
    values: tuple[Value, ...]
    missing: tuple[str, ...]

    @property
    def protocol(self) -> str:
        """Its protocol here."""
        return next(value.text for value in self.values if value.path == ("protocol", "name"))

    def applies(self, value: Value, block: object) -> bool:
        """Whether a value goes with what a scenario says of blocks: one rule of production at a time."""
        own = {*block} & {*_RULES} if isinstance(block, dict) else set()
        if not own or value.path[0] != "block":
            return True
        if value.path[1] in _BUILT:
            return "period" in own
        if value.path[1] == "batch_from":
            return "batch_timeout" in own
        return value.path[1] not in (*_RULES, "time_step", "ticks")


@functools.cache
def platforms() -> dict[str, Platform]:
    """All of them, by name."""
    from ruamel.yaml import YAML

    with open(FILE, encoding="utf-8") as stream:
        data = YAML(typ="safe", pure=True).load(stream)
    return {
        name: Platform(
            name,
            entry["is"],
            str(entry["version"]),
            tuple(Value(tuple(path.split(".")), _text(value), source) for path, value, source in entry["values"]),
            tuple(entry["missing"]),
        )
        for name, entry in data.items()
    }


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
