"""The base of all parameter classes, and the annotated types of their fields.

A parameter class lives with the code that it steers (a protocol, a latency model). In Python a field's name
ends in its unit and holds the internal integer; in YAML the unit is written with the value instead:

    class PbftParameters(Parameters):
        request_timeout_ns: Nanoseconds = quantity("2 s", "how long a backup waits for the primary")

    PbftParameters(request_timeout_ns=2_000_000_000)      # from Python: integers of the named unit
    PbftParameters.from_text({"request_timeout": "2 s"})  # from YAML: every quantity carries its unit

Every field needs a description: the JSON schema, and through it an editor, shows it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from types import EllipsisType
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema

from sim import units

MESSAGE_BYTES_MAX = 10**9  # on the slowest card its time is still a 64-bit count of picoseconds
_SUFFIXES = ("_ps_per_byte", "_bytes", "_tps", "_ns")
_FROM_TEXT = "from_text"
PATIENCE = "x-raised-on-slow-cards"  # in the schema of a field


@dataclasses.dataclass(frozen=True)
class Problem:
    """One broken rule: where (YAML keys and list indices below the object judged), and "rule; remedy"."""

    path: tuple[str | int, ...]
    message: str


class RuleError(ValueError):
    """Rules between several fields are broken; `problems` names each with its place."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(f"{'.'.join(map(str, p.path))}: {p.message}" for p in problems))
        self.problems = tuple(problems)


def text_context(**more: Any) -> dict[str, Any]:
    """The validation context of values that come from a file: bare numbers are then no quantities."""
    return {_FROM_TEXT: True, **more}


def is_text(info: ValidationInfo) -> bool:
    """Whether the value being validated comes from a file."""
    return bool(info.context and info.context.get(_FROM_TEXT))


def key_of(field: str) -> str:
    """The YAML key of a Python field name: the name without its unit."""
    for suffix in _SUFFIXES:
        if field.endswith(suffix) and len(field) > len(suffix):
            return field[: -len(suffix)]
    return field


def _reader(parse: Callable[[object], float]) -> BeforeValidator:
    def read(value: Any, info: ValidationInfo) -> Any:
        plain_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if plain_number and not is_text(info):
            if not math.isfinite(value):
                raise units.UnitError("must be a finite number; give a number of the field's unit")
            if value < 0:
                raise units.UnitError("must not be negative; give 0 or more")
            return value
        return parse(value)

    return BeforeValidator(read)


def _schema(unit: str, pattern: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": list(examples), "x-unit": unit})


_QUANTITY = r"^\s*\+?[0-9.][0-9.eE+-]*\s*[A-Za-zµμ%/].*$"
_FRACTION_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": r"^\s*\+?[0-9.][0-9.eE+-]*\s*%?\s*$"},
        {"type": "number", "minimum": 0, "maximum": 1},
    ],
    "examples": ["5 %", 0.05],
    "x-unit": "fraction of 1",
}

Nanoseconds = Annotated[int, _reader(units.parse_ns), _schema("time; ns inside", _QUANTITY, "20 ms", "10 min")]
Bytes = Annotated[int, _reader(units.parse_bytes), _schema("size; bytes inside", _QUANTITY, "512 B", "1 MB")]
Bandwidth = Annotated[
    int,
    _reader(units.parse_ps_per_byte),
    _schema(
        "bandwidth; ps per byte inside, 0 is unlimited",
        rf"{_QUANTITY}|^unlimited$",
        "100 Mbit/s",
        "unlimited",
    ),
]
Rate = Annotated[float, _reader(units.parse_rate_tps), _schema("rate; per second inside", _QUANTITY, "80 tx/s")]
Fraction = Annotated[float, _reader(units.parse_fraction), Field(ge=0, le=1), WithJsonSchema(_FRACTION_SCHEMA)]
Count = Annotated[int, Field(strict=True)]  # strict: true, "4" and 4.0 are not counts


def quantity(
    default: str | EllipsisType | None,
    description: str,
    *,
    positive: bool = False,
    key: str | None = None,
    most: int | None = None,
    patience: bool = False,
) -> Any:
    """A field that holds a quantity.

    `default`: as written in YAML ("2 s"), `...` if the field is required, None if it may be absent.
    `positive` refuses 0, `most` what is larger (in the field's unit). `key`: the YAML key where it is not the field's
    name without its unit. `patience`: a wait for others, whose default is raised where cards are slow
    (`sim.scenario.patience`); the first such field of a class is what a full block must get through in.
    """
    more: dict[str, Any] = {} if key is None else {"alias": key}
    if patience:
        more["json_schema_extra"] = {PATIENCE: True}
    if positive:
        more["gt"] = 0
    if most is not None:
        more["le"] = most
    return Field(default, description=description, **more)


class Parameters(BaseModel):
    """Frozen, refuses unknown keys, and insists that every field is described."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        validate_by_alias=True,
        validate_by_name=True,
        alias_generator=key_of,
        allow_inf_nan=False,
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **keywords: Any) -> None:
        super().__pydantic_init_subclass__(**keywords)
        for name, field in cls.model_fields.items():
            if not field.description:
                raise TypeError(f"{cls.__name__}.{name} has no description; add Field(description=...)")

    @classmethod
    def from_text(cls, data: Mapping[str, Any], **context: Any) -> Self:
        """Validate what a file says: YAML keys, quantities with units. Raises pydantic.ValidationError."""
        return cls.model_validate(data, context=text_context(**context), by_alias=True, by_name=False)

    @classmethod
    def patience(cls) -> tuple[str, ...]:
        """The fields that say how long to wait for others, in order."""
        extras = ((name, field.json_schema_extra) for name, field in cls.model_fields.items())
        return tuple(name for name, extra in extras if isinstance(extra, dict) and PATIENCE in extra)

    @classmethod
    def least_wait(cls) -> str | None:
        """The field that says after which silence a leader is suspected at the earliest, if there is one."""
        return next(iter(cls.patience()), None)

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """The YAML keys, in order."""
        return tuple(field.alias or name for name, field in cls.model_fields.items())


def count(default: int | EllipsisType | None, description: str, *, low: int = 0, high: int | None = None) -> Any:
    """A whole-number field in [low, high]; None if it may be absent."""
    return Field(default, description=description, ge=low, le=high, strict=True)
