"""Scenario files to scenarios: reading, `extends`, overrides, and validation with places in every message."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from sim.network.links import BASE_DIR
from sim.network.sites import suggestion
from sim.observers.messages import MESSAGES
from sim.parameters import Parameters, Problem, RuleError, key_of, text_context
from sim.scenario import messages
from sim.scenario.errors import ScenarioError
from sim.scenario.platforms import platforms
from sim.scenario.schema import ProtocolChoice, ProtocolEntry, Scenario, protocol_table
from sim.scenario.source import DEPTH_MAX, Origin, Path, Source, read_file, read_text

_EXTENDS_MAX = 20
_FILES = (("network", "latency", "file"), ("network", "topology", "graphml"))  # values that name files
_NOT_OF_A_BACKLOG = (("pool", "max_transactions"), ("block", "batch_timeout"), ("block", "batch_from"))
_NAMED = re.compile(r"\b[a-z0-9]+(?:(?:_[a-z0-9]+)+\b|(?=:))")  # keys in a sentence: "group:", log_window
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*|[0-9]{1,9}")


def load_scenario(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    seed: int | None = None,
    *,
    protocols: Mapping[str, ProtocolEntry] | None = None,
) -> Scenario:
    """Read and validate a scenario file.

    `overrides`: texts "a.b=v", a dotted path with list indices and a YAML value; later ones win, and null
    removes a key. `seed` replaces the file's. `protocols` defaults to the table of `sim.protocols`. Where an
    override or an extending file names another model, kind or family, that section starts afresh. Another protocol
    keeps the parameters that it has too; `Scenario.notes` names those it has not.
    Raises ScenarioError, whose message has a line "file:line:column: VALUE: rule; remedy" per problem.
    """
    file = FilePath(path)
    try:
        source = _read(file, ())
    except ScenarioError:
        _refuse_foreign(file)
        raise
    if not {*source.data} & {"network", "protocol", "base"}:
        _refuse_foreign(file)
    if "base" in source.data and "network" not in source.data:
        remedy = f"use pilotzone sweep {file} (a scenario starts from another one by extends:)"
        raise ScenarioError(f"{file}:1:1: {file.name}: is a study, not a scenario; {remedy}")
    if "chains" in source.data and "network" not in source.data:
        rule = "is a federation of several chains, not a scenario"
        raise ScenarioError(f"{file}:1:1: {file.name}: {rule}; use pilotzone federate {file}")
    for label, keys, value in sorted(_parse_overrides(overrides), key=lambda o: not _chooses(o[1])):
        _override(source, keys, value, label)
    if seed is not None:
        label = f"--seed {seed}"
        _override(source, ("seed",), read_text(str(seed), "", label), label)
    _stand_on_platform(source)
    return _validate(source, file, protocols)


def _stand_on_platform(source: Source) -> None:
    """What the scenario's platform sets, where the scenario says nothing itself."""
    name = source.data.get("platform")
    if name is None:
        return
    origin = source.origin(("platform",))
    at = f"{origin.where}: {origin.text}"
    version = None
    if isinstance(name, dict):
        if not {*name} <= {"name", "version"} or "name" not in name:
            raise ScenarioError(f"{at}: a platform has a name and a version; write platform: besu-qbft")
        name, version = name["name"], name.get("version")
        source.data["platform"] = name
    if not isinstance(name, str) or name not in platforms():
        raise ScenarioError(f"{at}: no such platform; {suggestion(str(name), tuple(platforms()), limit=30)}")
    platform = platforms()[name]
    if version is not None and str(version) != platform.version:
        raise ScenarioError(f"{at}: {name} is described as of version {platform.version}; leave the version out")
    said = source.data.get("protocol")
    named = said.get("name") if isinstance(said, dict) else None
    if named is not None and named != platform.protocol:
        where = source.origin(("protocol", "name"))
        rule = f"platform {name} runs {platform.protocol}; remove one of the two"
        raise ScenarioError(f"{where.where}: {where.text}: {rule}")
    block = source.data.get("block")
    block = dict(block) if isinstance(block, dict) else block
    load = source.data.get("workload")
    full = isinstance(load, list) and any(isinstance(entry, dict) and entry.get("kind") == "backlog" for entry in load)
    for value in platform.values:
        if full and value.path in _NOT_OF_A_BACKLOG:
            continue  # blocks of a backlog are always full, and go through no pool
        section = source.data.get(value.path[0])
        given = isinstance(section, dict) and value.path[1] in section
        if (section is None or isinstance(section, dict)) and not given and platform.applies(value, block):
            label = f"platform {name} ({value.source})"
            _override(source, value.path, read_text(value.text, "", label), label)


def _refuse_foreign(file: FilePath) -> None:
    """If it is another program's file, say so, and what to do with it."""
    from sim.scenario.foreign import kind_of

    kind = kind_of(file)
    if kind is not None:
        remedy = f"make one of it with: pilotzone import {file}"
        raise ScenarioError(f"{file}:1:1: {file.name}: is {kind}, not a scenario; {remedy}") from None


def _read(file: FilePath, trail: tuple[FilePath, ...]) -> Source:
    """A file merged over what it extends."""
    source = read_file(file)
    base_name = source.data.pop("extends", None)
    if base_name is None:
        return source
    origin = source.origin(("extends",))
    at = f"{origin.where}: {origin.text}"
    source.forget(("extends",))
    if not isinstance(base_name, str):
        raise ScenarioError(f"{at}: extends names one scenario file; write extends: other.yaml")
    base_file = FilePath(os.path.normpath(file.parent / base_name))
    if not os.path.isfile(base_file):
        raise ScenarioError(f"{at}: no such file beside {file.name}; give a path relative to it")
    trail = (*trail, file.resolve())
    if base_file.resolve() in trail:
        raise ScenarioError(f"{at}: scenarios extend each other in a circle; remove one extends")
    if len(trail) > _EXTENDS_MAX:
        raise ScenarioError(f"{at}: more than {_EXTENDS_MAX} files extend each other; merge some")
    base = _read(base_file, trail)
    _move_files(base.data, base_file.parent, file.parent)
    base.data.pop("name", None)  # each file has its own name
    base.forget(("name",))
    base.origins[()] = source.origins[()]
    _merge(base, source, (), _by_prefix(source))
    return base


def _by_prefix(source: Source) -> dict[Path, list[Path]]:
    """For each path, those of all values at and below it."""
    below: dict[Path, list[Path]] = {}
    for path in source.origins:
        for depth in range(len(path) + 1):
            below.setdefault(path[:depth], []).append(path)
    return below


def _move_files(data: Any, old: FilePath, new: FilePath) -> None:
    """Make file names that were relative to one directory relative to another."""
    load = data.get("workload")
    for entry in load if isinstance(load, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("file"), str):
            entry["file"] = os.path.relpath(old / entry["file"], new)
    for *section, key in _FILES:
        inner = data
        for part in section:
            inner = inner.get(part) if isinstance(inner, dict) else None
        if isinstance(inner, dict) and isinstance(inner.get(key), str):
            inner[key] = os.path.relpath(old / inner[key], new)


def _chooses(path: Path) -> bool:
    """Whether the value at a path decides which keys its section has."""
    return path[-1] in ("model", "kind", "family", "behaviour") or path == ("protocol", "name")


def _switches(old: Any, new: Any, path: Path) -> bool:
    """Whether one mapping is of another kind than the one it is merged over."""
    if path == ("protocol",):
        return False  # what both protocols have stays
    return any(key in old and key in new and old[key] != new[key] for key in new if _chooses((*path, key)))


def _merge(base: Source, over: Source, path: Path, below: Mapping[Path, Sequence[Path]]) -> None:
    """Lay the values of `over` at a path over those of `base`: mappings key by key, anything else whole."""
    old, new = _get(base.data, path), _get(over.data, path)
    if path == ("protocol",):
        _inherit(base, old, new)
    for key, value in new.items():
        inner = (*path, key)
        if isinstance(value, dict) and isinstance(old.get(key), dict) and not _switches(old[key], value, inner):
            base.origins[inner] = over.origins[inner]
            _merge(base, over, inner, below)
            continue
        if key in old:
            base.forget(inner)
        old[key] = value
        base.origins.update({p: over.origins[p] for p in below.get(inner, ())})


def _inherit(source: Source, old: dict[str, Any], new: dict[str, Any]) -> None:
    """The section `protocol` as it was, `old`, is laid under `new`, which may name another protocol."""
    if old.get("name") != new.get("name", old.get("name")):
        source.inherited |= {key: str(old.get("name")) for key in old if key not in {"name", *source.inherited}}
    for key in new:
        source.inherited.pop(key, None)


def _get(data: Any, path: Path) -> Any:
    for part in path:
        data = data[part]
    return data


def _parse_overrides(overrides: Sequence[str]) -> list[tuple[str, Path, Source]]:
    parsed = []
    for text in overrides:
        label = "--set " + " ".join(text.split())  # a message is one line
        name, equals, value = text.partition("=")
        keys = name.strip().split(".")
        if not equals or len(keys) > DEPTH_MAX or not all(_KEY.fullmatch(key) for key in keys):
            raise ScenarioError(f"{label}: {text}: an override is a path and a value; write --set network.nodes=16")
        if keys == ["extends"]:
            rule = "what a scenario extends is read before overrides apply"
            raise ScenarioError(f"{label}: extends: {rule}; write a file that says extends: {value.strip()}")
        path: Path = tuple(int(key) if key.isdecimal() else key for key in keys)
        parsed.append((label, path, read_text(value, "", label)))
    return parsed


def _override(source: Source, path: Path, value: Source, label: str) -> None:
    """Set one value, creating mappings on the way."""
    data = source.data
    for i, key in enumerate(path):
        last = i == len(path) - 1
        here = path[: i + 1]
        if isinstance(data, list):
            if not isinstance(key, int) or key >= len(data):
                size = len(data)
                rule = f"the list has {size} entries" + (f", 0 to {size - 1}" if size else "")
                raise ScenarioError(f"{label}: {key}: {rule}; write an index that exists")
        elif isinstance(data, dict):
            key = str(key)
            here = (*path[:i], key)
        else:
            section = ".".join(map(str, path[:i]))
            raise ScenarioError(f"{label}: {key}: {section} is a single value here; set {section} itself")
        if last:
            if path[0] == "protocol" and len(path) == 2 and isinstance(data, dict):
                _inherit(source, data, {str(key): value.data})
            elif isinstance(data, dict) and _chooses(here) and data.get(key) != value.data:
                for other in list(data):
                    source.forget((*path[:i], other))
                data.clear()
            source.forget(here)
            data[key] = value.data
            source.origins.update({(*here, *p): _labelled(o, label) for p, o in value.origins.items()})
        else:
            if isinstance(data, dict) and data.get(key) is None:
                data[key] = {}
                source.origins[here] = Origin(label, label, "a mapping")
            data = data[key]


def _labelled(origin: Origin, label: str) -> Origin:
    return Origin(label, label, origin.text)


def _validate(source: Source, file: FilePath, protocols: Mapping[str, ProtocolEntry] | None) -> Scenario:
    data = dict(source.data)
    if data.get("name") is None:
        data["name"] = file.stem
    found: list[str] = []
    if data.get("protocol") is not None:
        choice = _protocol(source, data["protocol"], protocol_table() if protocols is None else protocols, found)
        data["protocol"] = choice or ProtocolChoice(name="", parameters=Parameters())
    scenario = None
    context = text_context(**{BASE_DIR: str(file.parent)})
    try:
        scenario = Scenario.model_validate(_without_nulls(data), context=context, by_alias=True, by_name=False)
    except ValidationError as error:
        found = [*messages.lines(error, source, Scenario, also=("extends",)), *found]
    if _has_nulls(data):
        try:  # only to see which keys without a value there are
            Scenario.model_validate(data, context=context, by_alias=True, by_name=False)
        except ValidationError as error:
            empty = messages.unknown_nulls(error, source, Scenario, also=("extends",))
            found += [line for line in empty if line not in found]
    if scenario is not None and not found:
        found.extend(_late(source, scenario, protocols))
    if scenario is None or found:
        raise ScenarioError(*found)
    return scenario


def _has_nulls(value: Any) -> bool:
    """Whether some key, at any depth, has no value."""
    if isinstance(value, dict):
        return any(inner is None or _has_nulls(inner) for inner in value.values())
    return isinstance(value, list) and any(_has_nulls(inner) for inner in value)


def _without_nulls(value: Any) -> Any:
    """Without the keys whose value is null: they count as not written."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _protocol(
    source: Source, section: Any, table: Mapping[str, ProtocolEntry], found: list[str]
) -> ProtocolChoice | None:
    """The protocol's section, validated by its own parameter class; adds to `found` what is wrong."""
    if isinstance(section, str):
        section = {"name": section}  # short form, all parameters at their defaults
    origin = source.origin(("protocol",))
    if not isinstance(section, dict):
        found.append(f"{origin.where}: {origin.text}: must be a mapping; write protocol: {{name: pbft}}")
        return None
    name = section.get("name")
    if not isinstance(name, str):
        found.append(f"{origin.key_where}: protocol: the key name is missing; add name: and one of {', '.join(table)}")
        return None
    entry = table.get(name)
    if entry is None:
        origin = source.origin(("protocol", "name"))
        known = ", ".join(table)
        hint = suggestion(name, table)
        remedy = hint if hint.startswith("choose") else f"{hint} (known: {known})"
        found.append(f"{origin.where}: {origin.text}: no such protocol; {remedy}")
        return None
    known_keys = {key_of(field) for field in entry.parameters.model_fields}
    dropped = {key: of for key, of in source.inherited.items() if key in section and key not in known_keys}
    section = {key: value for key, value in section.items() if key not in dropped}
    try:
        entry.parameters.from_text({key: value for key, value in section.items() if key != "name"})
    except ValidationError as error:
        found.extend(messages.unknown_nulls(error, source, entry.parameters, ("protocol",), also=("name",)))
    rest = _without_nulls({key: value for key, value in section.items() if key != "name"})
    try:
        choice = ProtocolChoice(name=name, parameters=entry.parameters.from_text(rest))
        choice.drop(dropped)
        return choice
    except ValidationError as error:
        found.extend(messages.lines(error, source, entry.parameters, ("protocol",), also=("name",)))
        return None


_ROUTED_MAX = 2_000  # places of a topology: all pairs have paths


def _late(source: Source, scenario: Scenario, protocols: Mapping[str, ProtocolEntry] | None) -> list[str]:
    """What can be judged only when every part is sound: protocol against voters, topology against places."""
    found = []
    table = protocol_table() if protocols is None else protocols
    network = scenario.network
    try:
        table[scenario.protocol.name].check(scenario.protocol.parameters, network.n)
    except ValueError as error:
        found.append(_misfit(source, scenario, str(error)))
    first = getattr(scenario.protocol.parameters, "first_leader", None)
    if first is not None and first not in network.member_nodes:
        members = ", ".join(map(str, sorted(network.member_nodes)))
        rule = f"first_leader is no voter at the start; write one of {members}"
        found.append(messages.rule_line(source, Problem(("protocol", "first_leader"), rule)))
    found += [messages.rule_line(source, problem) for problem in _message_names(scenario, table)]
    entry = table[scenario.protocol.name]
    followed = tuple(message.__name__ for message in MESSAGES) if scenario.observers or scenario.catch_up else ()
    found.extend(_unknown_types(source, scenario, (*entry.content_names, *entry.vote_names, *followed)))
    if not network.topology.is_mesh and len(scenario.places) > _ROUTED_MAX:
        message = f"fastest paths between {len(scenario.places)} places: at most {_ROUTED_MAX} can be; take a full mesh"
        found.append(messages.rule_line(source, Problem(("network", "topology"), message)))
    elif not network.topology.is_mesh:
        from sim.network.latency import one_way_matrix_ns  # numpy and networkx: only where needed

        try:
            one_way_matrix_ns(network, scenario.seed, scenario.places)
        except RuleError as error:
            found.extend(messages.rule_line(source, Problem(p.path, p.message)) for p in error.problems)
        else:
            found.extend(messages.rule_line(source, problem) for problem in _unknown_cables(scenario))
    return found


def _misfit(source: Source, scenario: Scenario, rule: str) -> str:
    """The line of a rule of the protocol: at the first of the protocol's keys that it names and the file has."""
    for match in _NAMED.finditer(rule):
        path = ("protocol", match[0])
        if match[0] in scenario.protocol.parameters.keys() and path in source.origins:
            origin = source.origins[path]
            return f"{origin.where}: {origin.text}: {rule}"
    network = scenario.network
    origin = source.origin(("network", "sites" if network.nodes is None else "nodes"))
    return f"{origin.where}: {f'{network.n} sites' if network.nodes is None else origin.text}: {rule}"


def _unknown_cables(scenario: Scenario) -> Iterator[Problem]:
    """Cables that faults cut and the topology does not have."""
    from sim.network.latency import without_cables_ns

    for i, fault in enumerate(scenario.faults):
        if fault.cut_cable is not None:
            try:
                without_cables_ns(scenario.network, scenario.seed, scenario.places, [fault.cut_cable.between])
            except RuleError as error:
                for problem in error.problems:
                    yield Problem(("faults", i, "cut_cable", "between"), problem.message)


def _message_names(scenario: Scenario, table: Mapping[str, ProtocolEntry]) -> Iterator[Problem]:
    """Message types that corrupted replicas name and the protocol does not have."""
    if not scenario.corrupted:
        return
    entry = table[scenario.protocol.name]
    messages, votes = entry.content_names, entry.vote_names
    for i, corruption in enumerate(scenario.corrupted):
        for named, known, kind in (
            (corruption.message_names(), (*messages, *votes), "message type"),
            (corruption.content_names(), messages, "message type with content"),
            (corruption.vote_names(), votes, "vote"),
        ):
            for path, name in named:
                if name not in known:
                    hint = suggestion(name, known, limit=30)
                    yield Problem(("corrupted", i, *path), f"{scenario.protocol.name} has no such {kind}; {hint}")


def _unknown_types(source: Source, scenario: Scenario, of_protocol: Sequence[str]) -> list[str]:
    """Message types that rules name and the protocol does not send, and matches that such types cannot meet."""
    found = []
    known = (*of_protocol, "TRANSACTION", "REPLY")
    for i, rule in enumerate(scenario.rules):
        named = () if rule.types == "all" else rule.types
        for j, name in enumerate(named):
            if name not in known:
                message = f"{scenario.protocol.name} sends no such message; {suggestion(name, known)}"
                found.append(messages.rule_line(source, Problem(("rules", i, "types", j), message)))
        if named and rule.names_place and not {*named} - {"TRANSACTION", "REPLY"}:
            key = "view" if rule.view is not None else "height"
            message = "transactions and replies are about no view or height; remove it, or name other types"
            found.append(messages.rule_line(source, Problem(("rules", i, key), message)))
        if rule.duplicate is not None and named == ("REPLY",):
            message = "replies are not doubled, as clients count them; name other types"
            found.append(messages.rule_line(source, Problem(("rules", i, "types"), message)))
    return found
