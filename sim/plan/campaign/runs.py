"""One run of a campaign: what became of it, and whether what it found is explained."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import traceback
from pathlib import Path
from typing import Any

from sim.plan.campaign.draws import QUIET_S, Data, draw
from sim.protocols import PROTOCOLS
from sim.scenario.errors import LimitReachedError, ScenarioError
from sim.scenario.load import load_scenario
from sim.scenario.run import Result, run
from sim.scenario.schema import Scenario

OK, REFUSED, SAFETY, LIVENESS, LIMIT, PATHS, INTERNAL = (
    "ok", "refused", "safety", "liveness", "limit", "paths differ", "internal error",
)  # fmt: skip
_KINDS = {"ok": OK, "safety violation": SAFETY, "liveness failure": LIVENESS, "truncated": LIMIT}
_SHORT_S = QUIET_S + 8.0  # long enough for nearly all runs to decide after the trouble


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one configuration. `explained`: why this is no fault of the protocol as implemented, or ''."""

    protocol: str
    number: int
    kind: str
    what: str = ""
    evidence: str = ""
    faults_fired: int = 0
    explained: str = ""

    @property
    def is_finding(self) -> bool:
        """Whether somebody must look at it. A run that a limit ended shows nothing, and is counted apart."""
        return self.kind not in (OK, REFUSED, LIMIT) and not self.explained


def attempt(protocol: str, seed: int, number: int, *, beyond: bool = False, both_paths: bool = False) -> Outcome:
    """Run configuration `number` of a seed. `both_paths`: and once more with handlers alone."""
    data = draw(protocol, PROTOCOLS[protocol], seed, number, beyond=beyond).data
    kind, what, evidence, fired = judge(data, both_paths=both_paths)
    return Outcome(protocol, number, kind, what, evidence, fired, explained(protocol, data, kind))


def judge(data: Data, *, both_paths: bool = False) -> tuple[str, str, str, int]:
    """Run a configuration: kind of outcome, what was broken, the evidence, and how many faults took effect.

    Most runs decide soon after the trouble: a run is first made short, and whole only if that did not happen.
    """
    try:
        scenario = scenario_of(data | {"duration": f"{_SHORT_S:g} s"})
    except ScenarioError as error:
        return REFUSED, "", str(error), 0
    try:
        result = run(scenario)
        if result.status == "ok" and _last_decision_s(result) < QUIET_S + 2:
            scenario = scenario_of(data)
            result = run(scenario)
        other = run(scenario, fast_path=False) if both_paths else result
    except (MemoryError, LimitReachedError) as error:
        return LIMIT, "memory" if isinstance(error, MemoryError) else "building", str(error), 0
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        return INTERNAL, type(error).__name__, f"{error} ({where})", 0
    fired = sum(result.sometimes.values())
    limited = "truncated" in (result.status, other.status)  # by events, of which either path has its own number
    if not limited and (other.digest, other.status) != (result.digest, result.status):
        return PATHS, "digest", f"{result.status} with the fast path, {other.status} with handlers alone", fired
    kind = _KINDS.get(result.status, INTERNAL)
    if result.violations:
        first = result.violations[0]
        if kind == LIMIT:  # cut short after it was broken
            kind = SAFETY if first.kind == "safety" else LIVENESS
        return kind, first.check, f"{first.time_ns / 1e9:.6f} s: {first.evidence}", fired
    return kind, result.status if kind != OK else "", result.warnings[-1] if kind == LIMIT else "", fired


def scenario_of(data: Data) -> Scenario:
    """The scenario of a configuration. Raises ScenarioError."""
    with tempfile.TemporaryDirectory(prefix="pilotzone-") as folder:
        file = Path(folder) / "campaign.yaml"
        file.write_text(json.dumps(data))  # JSON is YAML
        return load_scenario(file)


def _last_decision_s(result: Result) -> float:
    times = result.tables["blocks"]["first_ns"]
    return max((int(time_ns) for time_ns in times), default=0) / 1e9


# --- what is explained -----------------------------------------------------------------------------------------------


def explained(protocol: str, data: Data, kind: str) -> str:
    """Why an outcome is what the protocol's page says (`Replica.known_weakness`), or ''."""
    if kind not in (SAFETY, LIVENESS):
        return ""
    n = int(data["network"]["nodes"])
    changes = data.get("membership", ())
    first = len(data["network"].get("members", range(n)))
    sizes = {first, *(first + len(change.get("add", ())) - len(change.get("remove", ())) for change in changes)}
    return PROTOCOLS[protocol].protocol.known_weakness(
        kind,
        sizes=sizes,
        gone=_lasting(data),
        lying=bool(data.get("corrupted")),
        lossy=data["network"].get("links") == "datagram" and "loss" in data["network"],
        parameters={key: value for key, value in data["protocol"].items() if key != "name"},
    )


def _lasting(data: Data) -> set[int]:
    """Voters that are crashed for good, or corrupted."""
    found = {node for entry in data.get("corrupted", ()) for node in entry["nodes"]}
    for fault in data.get("faults", ()):
        if "crash" in fault and "until" not in fault:
            found |= {*fault["crash"]["nodes"]}
    return found


# --- a finding, as small as it gets ----------------------------------------------------------------------------------


def shrink(data: Data, kind: str, what: str, *, most: int = 60) -> Data:
    """Leave out one part after the other as long as the same is broken; at most so many runs."""
    found = data
    tried = 0
    smaller = True
    while smaller and tried < most:
        smaller = False
        for candidate in _smaller(found):
            tried += 1
            if tried > most:
                break
            got = judge(candidate, both_paths=kind == PATHS)
            if got[:2] == (kind, what):
                found, smaller = candidate, True
                break
    return found


def _smaller(data: Data) -> list[Data]:
    """The configuration without one entry of a list, or without a section."""
    found: list[Data] = []
    for section in ("faults", "rules", "corrupted", "observers", "membership"):
        entries: list[Any] = data.get(section, [])
        for i in range(len(entries)):
            rest = entries[:i] + entries[i + 1 :]
            found.append(
                {key: value for key, value in data.items() if key != section} | ({section: rest} if rest else {})
            )
    for section in ("cpu", "clients", "block"):
        if section in data:
            found.append({key: value for key, value in data.items() if key != section})
    for key in ("jitter", "bandwidth", "loss", "links", "gst"):
        if key in data["network"]:
            gone = (key, "retransmit_after") if key == "loss" else (key,)
            network = {name: value for name, value in data["network"].items() if name not in gone}
            found.append(data | {"network": network})
    return found


def write(data: Data, folder: Path, outcome: Outcome) -> Path:
    """A scenario file that replays a finding."""
    from ruamel.yaml import YAML

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{outcome.protocol}-{outcome.number}-{outcome.kind.replace(' ', '-')}.yaml"
    writer = YAML()
    writer.width, writer.default_flow_style = 120, None
    partial = file.with_suffix(f".{os.getpid()}.part")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(f"# Found by a campaign: {outcome.kind}, {outcome.what}.\n")
        writer.dump(data, stream)
    partial.replace(file)
    return file
