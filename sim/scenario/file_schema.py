"""The JSON Schema of what people write: scenario files, those that extend another, and study files.

A model's own schema (`sim.scenario.schema.json_schema`) describes a scenario that is complete. A file that extends
another may leave out whatever the other says, in its sections too, or take it away with null; so each section stands
a second time in the schema, with nothing required.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from sim.scenario.federation import FederationFile
from sim.scenario.schema import json_schema
from sim.scenario.study import StudyFile

Schema = dict[str, Any]
_REF = "#/$defs/"
_PART = "_in_part"


def file_schema() -> Schema:
    """One JSON Schema (draft 2020-12) for the files that `pilotzone` reads: which one a file is, its keys say."""
    whole = json_schema()
    definitions = whole.pop("$defs")
    study = StudyFile.model_json_schema(by_alias=True)
    definitions |= study.pop("$defs", {})
    _numbers_stand_for_spans(definitions)
    for keyword in ("$schema", "title", "anyOf"):
        whole.pop(keyword)
    required = [name for name in ("duration", "network", "protocol", "workload") if name in whole["properties"]]
    definitions["Scenario"] = whole | {"required": required}
    definitions["Study"] = study
    federation = FederationFile.model_json_schema(by_alias=True, ref_template=f"{_REF}{{model}}")
    definitions |= federation.pop("$defs", {})
    definitions["Federation"] = federation
    _in_part("Scenario", definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pilotzone scenario, study or federation",
        "if": {"required": ["base"]},
        "then": {"$ref": f"{_REF}Study"},
        "else": {
            "if": {"required": ["chains"]},
            "then": {"$ref": f"{_REF}Federation"},
            "else": {
                "if": {"required": ["extends"]},
                "then": {"$ref": f"{_REF}Scenario{_PART}"},
                "else": {"$ref": f"{_REF}Scenario"},
            },
        },
        "$defs": definitions,
    }


def _numbers_stand_for_spans(definitions: Schema) -> None:
    """A view or height may be one number in place of {from, to}."""
    number = {"type": "integer", "minimum": 0}
    for definition in definitions.values():
        for key, value in definition.get("properties", {}).items():
            if {"$ref": f"{_REF}Span"} in value.get("anyOf", ()):
                definition["properties"][key]["anyOf"] = [number, *value["anyOf"]]


def _in_part(name: str, definitions: Schema) -> str:
    """Add a definition that is like another with nothing required, in its sections neither; returns its name."""
    partial = name + _PART
    if partial not in definitions:
        definitions[partial] = {}  # a section may contain its like
        definitions[partial] = _relaxed(copy.deepcopy(definitions[name]), lambda ref: _in_part(ref, definitions))
    return partial


def _relaxed(schema: Schema, part_of: Callable[[str], str]) -> Schema:
    """A schema with nothing required. Lists replace the other's as a whole, so what is in them stays as it is."""
    schema.pop("required", None)
    schema.pop("discriminator", None)
    if "oneOf" in schema:  # what is left of several may fit more than one
        schema["anyOf"] = schema.pop("oneOf")
    if "$ref" in schema:
        schema["$ref"] = _REF + part_of(schema["$ref"].removeprefix(_REF))
    for keyword in ("anyOf", "allOf"):
        if keyword in schema:
            schema[keyword] = [_relaxed(choice, part_of) for choice in schema[keyword]]
    for key, value in schema.get("properties", {}).items():
        said = {"description": value["description"]} if "description" in value else {}
        schema["properties"][key] = {"anyOf": [_relaxed(value, part_of), {"type": "null"}]} | said
    return schema
