"""The schema for editors: it accepts every file that ships, and refuses what the loader would."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

SCENARIOS = Path("scenarios")
VALIDATOR = jsonschema.Draft202012Validator(json.loads((SCENARIOS / "schema.json").read_text()))
FILES = sorted(SCENARIOS.rglob("*.yaml"))


def read(path: Path) -> Any:
    """A file as plain data."""
    return YAML(typ="safe", pure=True).load(path)


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(VALIDATOR.schema)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_it_accepts_what_ships(path: Path) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(read(path))] == []


@pytest.mark.parametrize(
    ("file", "section", "key", "value"),
    [
        ("quickstart.yaml", "network", "bandwith", "1 Gbit/s"),
        ("quickstart.yaml", "network", "sharing", "fairly"),
        ("quickstart.yaml", "protocol", "name", "pfbt"),
        ("bench/hour-13.yaml", "network", "bandwith", "1 Gbit/s"),
        ("studies/tier-sweep.yaml", None, "replication", 3),
        ("attacks/d4-locks.yaml", "rules", "heigth", 1),
    ],
)
def test_it_refuses_what_the_loader_refuses(file: str, section: str | None, key: str, value: Any) -> None:
    data = copy.deepcopy(read(SCENARIOS / file))
    place = data if section is None else data[section]
    (place[0] if isinstance(place, list) else place)[key] = value
    assert not VALIDATOR.is_valid(data)
