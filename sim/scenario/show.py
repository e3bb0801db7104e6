"""A scenario as the file that would say all of it: every key written out, quantities with their units."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

from sim.parameters import Parameters, key_of
from sim.scenario.schema import ProtocolChoice, Scenario
from sim.units import NS_PER_MS, PS_PER_S, format_bandwidth, format_bytes, format_ns, parse_ps_per_byte


def as_yaml(scenario: Scenario) -> str:
    """YAML text that loads as the same scenario (files it names stay relative to the original's folder)."""
    from ruamel.yaml import YAML

    writer = YAML()
    writer.width = 120
    writer.default_flow_style = None
    stream = io.StringIO()
    writer.dump(written(scenario), stream)
    return stream.getvalue()


def written(model: Parameters) -> dict[str, Any]:
    """The YAML keys and values of a model; what is None is left out."""
    if isinstance(model, ProtocolChoice):
        return {"name": model.name, **written(model.parameters)}
    data = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if value is not None:
            data[field.alias or key_of(name)] = _plain(value, name, field.alias)
    return data


def _plain(value: Any, name: str, alias: str | None) -> Any:
    if isinstance(value, Parameters):
        return written(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item, name, alias) for item in value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if name.endswith("_ns"):
        return value / NS_PER_MS if alias is not None and alias.endswith("_ms") else format_ns(int(value))
    if name.endswith("_ps_per_byte"):
        return _bandwidth(int(value))
    if name.endswith("bytes"):
        return format_bytes(int(value))
    return f"{value!r} tx/s" if name.endswith("_tps") else value


def _bandwidth(ps_per_byte: int) -> str:
    """Text that is read back as the same integer."""
    text = format_bandwidth(ps_per_byte)
    if parse_ps_per_byte(text) == ps_per_byte:
        return text
    return f"{float(Fraction(PS_PER_S, ps_per_byte))!r} B/s"
