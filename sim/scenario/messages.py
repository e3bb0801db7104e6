"""Validation errors to lines for people: where, value, rule, remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from sim.network.sites import suggestion
from sim.parameters import Parameters, Problem, RuleError
from sim.scenario.source import Path, Source

_KINDS = {
    "int_type": "must be a whole number; write for example 4",
    "int_parsing": "must be a whole number; write for example 4",
    "int_from_float": "must be a whole number; write for example 4",
    "float_type": "must be a number; write for example 0.5",
    "float_parsing": "must be a number; write for example 0.5",
    "finite_number": "must be a finite number; write for example 0.5",
    "string_type": "must be text; put it in quotes",
    "bool_type": "must be true or false; write true",
    "tuple_type": "must be a list; write [a, b]",
    "model_type": "must be a mapping; write key: value lines below it",
    "model_attributes_type": "must be a mapping; write key: value lines below it",
    "dict_type": "must be a mapping; write key: value lines below it",
}
_BOUNDS = {
    "greater_than": ("gt", "must be greater than {}; raise it"),
    "greater_than_equal": ("ge", "must be at least {}; raise it"),
    "less_than": ("lt", "must be less than {}; lower it"),
    "less_than_equal": ("le", "must be at most {}; lower it"),
    "too_short": ("min_length", "must have at least {} entries; add one"),
    "too_long": ("max_length", "must have at most {} entries; remove some"),
}


_UNKNOWN_MAX = 30  # keys that are named; whoever has more has mistaken the file


def lines(
    error: ValidationError,
    source: Source,
    model: type[Parameters],
    prefix: Path = (),
    also: tuple[str, ...] = (),
) -> Iterator[str]:
    """One line per problem. `prefix`: path of the validated part; `also`: keys allowed besides its own."""
    items = error.errors(include_url=False)
    unknown = 0
    meant: set[Path] = set()  # keys that are there, but misspelt
    for item in [item for item in items if item["type"] == "extra_forbidden"][:_UNKNOWN_MAX]:
        loc = tuple(item["loc"])
        if item["type"] == "extra_forbidden":
            hint = suggestion(str(loc[-1]), _known(model, loc, also))
            meant.add((*loc[:-1], hint.removeprefix("did you mean '").removesuffix("'?")))
    for item in items:
        loc = tuple(item["loc"])
        path = _locate(source.data, prefix, loc)
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, RuleError):
            for problem in cause.problems:
                yield rule_line(source, Problem((*path, *problem.path), problem.message))
        elif item["type"] == "extra_forbidden":
            unknown += 1
            if unknown > _UNKNOWN_MAX:
                continue
            yield _unknown(source, path, _known(model, loc, also))
        elif item["type"] == "missing":
            if loc not in meant:
                yield _missing(source, (*prefix, *loc), path)
        elif item["type"] in ("union_tag_not_found", "union_tag_invalid"):
            yield _tag(source, path, item["ctx"])
        elif item["type"] == "too_short" and len(_value(source.data, path)) >= item["ctx"]["min_length"]:
            continue  # entries are there, but wrong, and reported by themselves
        else:
            origin = source.origin(path)
            yield f"{origin.where}: {origin.text}: {_rule(item, cause)}"
    if unknown > _UNKNOWN_MAX:
        origin = source.origin(prefix)
        yield f"{origin.where}: scenario: has {unknown - _UNKNOWN_MAX} more unknown keys; mend those above first"


def unknown_nulls(
    error: ValidationError, source: Source, model: type[Parameters], prefix: Path = (), also: tuple[str, ...] = ()
) -> Iterator[str]:
    """One line per key without a value that no section has: whatever else is wrong, it is misspelt."""
    for item in error.errors(include_url=False):
        loc = tuple(item["loc"])
        if item["type"] == "extra_forbidden" and item["input"] is None:
            yield _unknown(source, _locate(source.data, prefix, loc), _known(model, loc, also))


def _known(model: type[Parameters], loc: Path, also: tuple[str, ...]) -> tuple[str, ...]:
    return _keys(model, loc[:-1]) + (also if len(loc) == 1 else ())


def _value(data: Any, path: Path) -> Any:
    for part in path:
        data = data[part]
    return data


def rule_line(source: Source, problem: Problem) -> str:
    """The line of a broken rule."""
    path, message = problem.path, problem.message
    if path not in source.origins:
        # About something not written: name it, and point to the section that it belongs to.
        return _absent(source, path, message)
    origin = source.origins[path]
    if isinstance(_value(source.data, path), (dict, list)):
        return f"{origin.key_where}: {_name(path) or 'scenario'}: {message}"
    return f"{origin.where}: {origin.text}: {message}"


def _absent(source: Source, path: Path, message: str) -> str:
    origin = source.origin(path)
    name = next((str(part) for part in reversed(path) if isinstance(part, str)), "scenario")
    return f"{origin.key_where}: {name}: {message}"


def _locate(data: Any, prefix: Path, loc: Path) -> Path:
    """The path in the data of an error's location, which also names tags of unions."""
    data = _value(data, prefix)
    path = prefix
    for part in loc:
        inside = (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        if inside:
            data = data[part]
            path = (*path, part)
    return path


def _rule(item: Any, cause: object) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if cause is not None:
        return str(cause)
    if kind in _BOUNDS:
        name, text = _BOUNDS[kind]
        return text.format(context[name])
    if kind == "literal_error":
        choices = [word.strip().strip("'") for word in context["expected"].replace(" or ", ", ").split(",")]
        return f"not among the choices; {suggestion(str(item['input']), choices)}"
    return _KINDS.get(kind, f"{item['msg'][:1].lower()}{item['msg'][1:]}; see the output of pilotzone schema")


def _unknown(source: Source, path: Path, known: tuple[str, ...]) -> str:
    origin, key = source.origin(path), str(path[-1])
    section = f"in {_name(path[:-1])}" if len(path) > 1 else "in a scenario"
    return f"{origin.key_where}: {key}: unknown key {section}; {suggestion(key, known, limit=30)}"


def _missing(source: Source, wanted: Path, found: Path) -> str:
    origin, key = source.origin(found), wanted[-1]
    text = _name(found) if found else "scenario"
    if isinstance(key, int):
        return f"{origin.where}: {origin.text}: has too few entries; add another"
    return f"{origin.key_where}: {text}: the key {key} is missing; add {key}: and its value"


def _tag(source: Source, path: Path, context: Any) -> str:
    key = str(context["discriminator"]).strip("'")
    if "tag" in context:
        path = (*path, key)
        choices = [word.strip().strip("'") for word in str(context["expected_tags"]).split(",")]
        origin = source.origin(path)
        hint = suggestion(str(context["tag"]), choices)
        return f"{origin.where}: {origin.text}: not among the choices; {hint}"
    return f"{source.origin(path).key_where}: {_name(path)}: the key {key} is missing; add {key}: and its value"


def _name(path: Path) -> str:
    """A section as people name it: network.latency, workload[0]."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _keys(model: type[Parameters], loc: Path) -> tuple[str, ...]:
    """The keys known at an error's location below a model."""
    models = [model]
    for part in loc:
        if isinstance(part, int):
            continue
        inner = [
            found
            for candidate in models
            for name, field in candidate.model_fields.items()
            if (field.alias or name) == part
            for found in _models(field.annotation)
        ]
        models = inner or [candidate for candidate in models if _has_tag(candidate, part)] or models
    return tuple(dict.fromkeys(key for candidate in models for key in candidate.keys()))


def _models(annotation: Any) -> Iterator[type[Parameters]]:
    if isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, Parameters):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _has_tag(model: type[Parameters], tag: str) -> bool:
    return any(
        get_origin(field.annotation) is Literal and tag in get_args(field.annotation)
        for field in model.model_fields.values()
    )
