"""Files of other programs: what they are, and the scenario that each makes.

Nothing in them is run: JSON, TOML and plain YAML are data. The scenario says in a comment where each value stood, what
was assumed, and what could not be carried over.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sim.files import UnfitFileError, read_regular
from sim.scenario.errors import ScenarioError
from sim.scenario.foreign import benchmarks, cometbft, ethereum, fabric
from sim.scenario.foreign.draft import Draft, ForeignFileError

FILE_BYTES_MAX = 1_000_000
KINDS: tuple[tuple[str, Callable[[Any], bool], Callable[[Any], Draft]], ...] = (
    ("a genesis file of Besu or GoQuorum", ethereum.recognises, ethereum.convert),
    ("Fabric's configtx.yaml", fabric.recognises, fabric.convert),
    ("CometBFT's config.toml", cometbft.is_config, cometbft.convert_config),
    ("a manifest of CometBFT's test networks", cometbft.is_manifest, cometbft.convert_manifest),
    ("a benchmark file of Caliper", benchmarks.is_caliper, benchmarks.convert_caliper),
    ("a workload file of Diablo", benchmarks.is_diablo, benchmarks.convert_diablo),
)


def kind_of(path: Path) -> str | None:
    """What a file of another program is, in words; None if it is none of those known, or cannot be read."""
    try:
        data = _parsed(read_regular(path, FILE_BYTES_MAX).decode("utf-8-sig"))
    except (OSError, ValueError):
        return None
    return next((name for name, recognises, _ in KINDS if recognises(data)), None)


def scenario_text(path: Path) -> str:
    """The scenario that a file makes. Raises ScenarioError."""
    at = f"{path}:1:1: {path.name}"
    try:
        data = _parsed(read_regular(path, FILE_BYTES_MAX).decode("utf-8-sig"))
    except UnfitFileError as error:
        raise ScenarioError(f"{at}: {error}; such files are short texts") from None
    except UnicodeDecodeError:
        raise ScenarioError(f"{at}: is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise ScenarioError(f"{at}: cannot be read ({error.strerror}); check the path and its rights") from None
    except ValueError as error:
        raise ScenarioError(f"{at}: is no JSON, TOML or YAML ({error}); check the file") from None
    for _, recognises, convert in KINDS:
        if recognises(data):
            try:
                return convert(data).text(path.name)
            except ForeignFileError as error:
                raise ScenarioError(f"{path}: {error}") from None
    known = "; ".join(name for name, _, _ in KINDS)
    raise ScenarioError(f"{at}: {_looks_like(data)}; known are {known}")


def _parsed(text: str) -> Any:
    """JSON, TOML or YAML, whichever reads it. Raises ValueError."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    for parse in (json.loads, tomllib.loads):
        try:
            return parse(text)
        except (ValueError, RecursionError):
            continue
    try:
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, RecursionError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(str(error).split("\n", 1)[0][:100]) from None


def _looks_like(data: Any) -> str:
    if isinstance(data, dict):
        keys = ", ".join(str(key)[:30] for key in list(data)[:6])
        if "network" in data and "protocol" in data:
            return "is a scenario already; run it"
        return f"has the keys {keys}, by which it is none of the files that can be imported" if keys else "is empty"
    return f"is a {type(data).__name__}, not a mapping"
