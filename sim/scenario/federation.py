"""What a federation file says: chains, the gateways between them, anchors and transfers."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from sim.files import is_plain_name
from sim.network.sites import suggestion
from sim.parameters import (
    MESSAGE_BYTES_MAX,
    Bytes,
    Count,
    Nanoseconds,
    Parameters,
    Problem,
    Rate,
    RuleError,
    quantity,
    text_context,
)
from sim.scenario import messages
from sim.scenario.errors import ScenarioError
from sim.scenario.load import load_scenario
from sim.scenario.schema import SEED_MAX, Scenario
from sim.scenario.source import Source, read_file

CHAINS_MAX = 50


class Chain(Parameters):
    """One chain: a scenario, and what is changed of it."""

    scenario: str = Field(description="scenario file, relative to this one")
    set: dict[str, Any] = Field(default={}, description="dotted key: value, changes of the scenario")


class Outage(Parameters):
    """A gateway passes nothing on for a time; what comes meanwhile waits in it."""

    at_ns: Nanoseconds = quantity(..., "when it begins")
    for_ns: Nanoseconds = quantity(..., "how long it lasts", positive=True)


class Gateway(Parameters):
    """Who has a client on two chains, and carries proofs from one to the other."""

    between: tuple[str, str] = Field(description="two chains")
    latency_ns: Nanoseconds = quantity(
        ..., "from a decision on one chain to the submission on the other", positive=True
    )
    down: tuple[Outage, ...] = Field(default=(), max_length=1000, description="when it passes nothing on")


class Anchor(Parameters):
    """A chain's root is written on another one, every so often."""

    chain: str = Field(alias="from", description="chain whose blocks are anchored")
    to: str = Field(description="chain that holds the roots")
    through: str = Field(description="gateway that submits them")
    every_ns: Nanoseconds = quantity(..., "time between two anchors", positive=True)
    size_bytes: Bytes = quantity("200 B", "size of one", key="bytes", positive=True, most=MESSAGE_BYTES_MAX)


class Transfer(Parameters):
    """Assets that move from one chain to another: locked there, released here, settled or refunded there."""

    chain: str = Field(alias="from", description="chain on which they are locked")
    to: str = Field(description="chain on which they are released")
    through: str = Field(description="gateway that carries the proofs")
    rate_tps: Rate = quantity(..., "transfers, at random", positive=True)
    timeout_ns: Nanoseconds = quantity(
        "30 s", "so long after the lock a release may still have its effect, else the lock is refunded", positive=True
    )
    size_bytes: Bytes = quantity(
        "500 B", "size of each transaction", key="bytes", positive=True, most=MESSAGE_BYTES_MAX
    )
    blind: bool = Field(
        default=False, description="the gateway refunds at the timeout without a look at the other chain: a flaw"
    )


class FederationFile(Parameters):
    """A federation as its file says it."""

    description: str = Field(default="", description="one sentence for reports")
    duration_ns: Nanoseconds = quantity(..., "simulated time of all chains", positive=True)
    seed: Count = Field(default=1, ge=0, le=SEED_MAX, description="of every random draw")
    chains: dict[str, Chain] = Field(min_length=1, max_length=CHAINS_MAX, description="chains by name")
    gateways: dict[str, Gateway] = Field(default={}, max_length=1000, description="gateways by name")
    anchors: tuple[Anchor, ...] = Field(default=(), max_length=1000, description="who anchors where")
    transfers: tuple[Transfer, ...] = Field(default=(), max_length=1000, description="what moves between chains")

    @model_validator(mode="after")
    def _sound(self) -> FederationFile:
        found = list(_problems(self))
        if found:
            raise RuleError(found)
        return self


def _problems(file: FederationFile) -> Iterator[Problem]:
    for name in file.chains:
        if not is_plain_name(name):
            yield Problem(("chains", name), "names a folder of results; write letters, digits and dashes")
    for name, gateway in file.gateways.items():
        for i, chain in enumerate(gateway.between):
            if chain not in file.chains:
                yield Problem(("gateways", name, "between", i), f"no such chain; {suggestion(chain, file.chains)}")
        if gateway.between[0] == gateway.between[1]:
            yield Problem(("gateways", name, "between"), "names one chain twice; name two")
    for i, one in enumerate(file.anchors):
        yield from _ends(one, file, ("anchors", i))
    for i, other in enumerate(file.transfers):
        yield from _ends(other, file, ("transfers", i))
    after: dict[str, set[str]] = {}
    for i, anchor in enumerate(file.anchors):
        after.setdefault(anchor.chain, set()).add(anchor.to)
        if anchor.chain in _reached(after, anchor.to):
            rule = f"{anchor.chain} and {anchor.to} anchor in a circle, and neither holds the other's roots for good"
            yield Problem(("anchors", i, "to"), f"{rule}; remove one of them")
            return


def _reached(after: Mapping[str, set[str]], start: str) -> set[str]:
    """Chains that a chain's roots end up on, itself among them."""
    found, left = {start}, [start]
    while left:
        for chain in after.get(left.pop(), ()):
            if chain not in found:
                found.add(chain)
                left.append(chain)
    return found


def _ends(entry: Anchor | Transfer, file: FederationFile, path: tuple[str | int, ...]) -> Iterator[Problem]:
    for key, chain in (("from", entry.chain), ("to", entry.to)):
        if chain not in file.chains:
            yield Problem((*path, key), f"no such chain; {suggestion(chain, file.chains)}")
            return
    gateway = file.gateways.get(entry.through)
    if gateway is None:
        yield Problem((*path, "through"), f"no such gateway; {suggestion(entry.through, file.gateways)}")
    elif {*gateway.between} != {entry.chain, entry.to}:
        rule = f"{entry.through} joins {' and '.join(gateway.between)}, not {entry.chain} and {entry.to}"
        fitting = [name for name, one in file.gateways.items() if {*one.between} == {entry.chain, entry.to}]
        yield Problem((*path, "through"), f"{rule}; {suggestion(entry.through, fitting)}")


@dataclasses.dataclass(frozen=True)
class Federation:
    """A federation that can be run: the scenarios of its chains, with what comes through gateways in their workload."""

    name: str
    file: FederationFile
    scenarios: Mapping[str, Scenario]

    @property
    def lookahead_ns(self) -> int:
        """Nothing that happens on a chain reaches another one sooner than this."""
        return min((gateway.latency_ns for gateway in self.file.gateways.values()), default=self.file.duration_ns)


# Classes of transactions that a federation adds to a chain's workload, by what they do.
def anchor_class(number: int) -> str:
    """Anchors of the chain of entry `number`, on the chain that holds them."""
    return f"anchor-{number}"


def transfer_class(step: str, number: int) -> str:
    """One step of the transfers of entry `number`: lock, settle and refund on one chain, release on the other."""
    return f"{step}-{number}"


def load_federation(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Federation:
    """Read a federation and its chains' scenarios. Raises ScenarioError with a line per problem."""
    file = Path(path)
    source = read_file(file)
    if not isinstance(source.data, dict) or "chains" not in source.data:
        raise ScenarioError(f"{file}:1:1: {file.name}: has no chains; write chains: {{a: {{scenario: a.yaml}}, ...}}")
    if not is_plain_name(file.stem):
        rule = "a federation is called like its file, which names a folder of results"
        raise ScenarioError(f"{file}:1:1: {file.name}: {rule}; rename it to letters, digits and dashes")
    try:
        written = FederationFile.model_validate(source.data, context=text_context(), by_alias=True, by_name=False)
    except ValidationError as error:
        raise ScenarioError(*messages.lines(error, source, FederationFile)) from None
    scenarios = {
        name: _scenario(name, number, chain, written, file, source, overrides)
        for number, (name, chain) in enumerate(written.chains.items())
    }
    return Federation(file.stem, written, scenarios)


def _scenario(
    name: str, number: int, chain: Chain, file: FederationFile, path: Path, source: Source, overrides: Sequence[str]
) -> Scenario:
    """A chain's scenario with the classes of anchors and transfers that end or begin on it."""
    import json

    origin = source.origin(("chains", name, "scenario"))
    place = Path(os.path.normpath(path.parent / chain.scenario))
    if not place.is_file():
        raise ScenarioError(f"{origin.where}: {origin.text}: no such scenario; give a path relative to {path.name}")
    own = [f"{key}={json.dumps(value)}" for key, value in chain.set.items()]
    fixed = [f"name={name}", f"duration={file.duration_ns} ns", f"seed={(file.seed * 1_000 + number) & SEED_MAX}"]
    loaded = load_scenario(place, [*own, *fixed, *overrides])
    more = list(_classes(name, file))
    if not more:
        return loaded
    own_names = {getattr(entry, "name", None) for entry in loaded.workload}
    for class_ in more:
        if class_["name"] in own_names:
            rule = f"has a class {class_['name']}, which is what gateways call theirs"
            raise ScenarioError(f"{origin.where}: {origin.text}: {rule}; give it another name")
    data = [json.loads(entry.model_dump_json(by_alias=False)) for entry in loaded.workload]
    whole = loaded.model_dump(mode="json", by_alias=False) | {"workload": [*data, *more]}
    whole["protocol"] = loaded.protocol
    try:
        return Scenario.model_validate(whole)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ScenarioError(f"{origin.where}: {origin.text}: with what gateways add: {first['msg']}") from None


def _classes(name: str, file: FederationFile) -> Iterator[dict[str, Any]]:
    for i, anchor in enumerate(file.anchors):
        if anchor.to == name:
            yield {"kind": "external", "name": anchor_class(i), "size_bytes": anchor.size_bytes}
    for i, transfer in enumerate(file.transfers):
        if transfer.chain == name:
            for step in ("lock", "settle", "refund"):
                yield {"kind": "external", "name": transfer_class(step, i), "size_bytes": transfer.size_bytes}
        if transfer.to == name:
            latency_ns = file.gateways[transfer.through].latency_ns
            yield {
                "kind": "external", "name": transfer_class("release", i), "size_bytes": transfer.size_bytes,
                "valid_for_ns": max(transfer.timeout_ns - latency_ns, 1),
            }  # fmt: skip
