"""The scenario: everything that determines a run, validated and inert.

A scenario file is YAML; keys are the field names here without their units, quantities carry theirs. The parts
live with their owners (`sim.network.settings`, `sim.workload.settings`, `sim.faults.settings`, and each
protocol's parameters in its own file). `sim.scenario.load` reads files, `sim.scenario.rules` holds the rules
between parts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal
from typing import Protocol as Interface

from pydantic import BeforeValidator, Field, PrivateAttr, SerializeAsAny, model_validator

from sim.adversary.settings import Corrupted
from sim.faults.membership import MembershipChange
from sim.faults.rules import MessageRule
from sim.faults.settings import Fault
from sim.files import is_plain_name
from sim.network.crypto import CryptoName
from sim.network.equipment import LinkRule, NodeRule
from sim.network.residency import Residency, jurisdictions
from sim.network.settings import Network
from sim.network.sites import suggestion
from sim.observers.endorsement import Endorsement
from sim.observers.settings import CatchUp, Observer
from sim.parameters import (
    MESSAGE_BYTES_MAX,
    Bandwidth,
    Bytes,
    Count,
    Nanoseconds,
    Parameters,
    Problem,
    RuleError,
    quantity,
)
from sim.units import LONGEST_NS, UnitError
from sim.workload.demand import spaces
from sim.workload.keys import State
from sim.workload.settings import Clients, DemandLoad, External, Trace, Workload

SEED_MAX = (1 << 62) - 1
COUNT_MAX = 10**15  # of events or decisions: more than any run has
_NAME_MAX = 100


def _folder_name(value: Any) -> Any:
    """A name becomes a folder of results, which must stay where it is put."""
    if isinstance(value, str) and (len(value) > _NAME_MAX or not is_plain_name(value)):
        raise UnitError(
            "names a folder of results and stands in tables; write a short name of letters, digits and dashes"
        )
    return value


class ProtocolEntry(Interface):
    """What the table `sim.protocols.PROTOCOLS` says of a protocol, as far as scenarios need it."""

    @property
    def parameters(self) -> type[Parameters]:
        """The class of its parameters."""

    @property
    def content_names(self) -> tuple[str, ...]:
        """Its message types with content."""

    @property
    def vote_names(self) -> tuple[str, ...]:
        """Its vote types."""

    def check(self, parameters: Any, n: int) -> None:
        """Raise ValueError ("rule; remedy") if n voters cannot run with these parameters."""


class Cpu(Parameters):
    """What each node's processor and disk cost."""

    cores: Count = Field(default=1, ge=1, le=1024, description="workers that verify signatures")
    crypto: CryptoName = Field(
        default="none", description="signature scheme; times and sizes from sim/network/data/costs.csv"
    )
    certificates: Literal["list", "aggregate", "threshold"] = Field(
        default="list",
        description="what becomes of a quorum's signatures: all listed, one aggregate (BLS only), or one "
        "threshold signature of the scheme's size and verification time (combining shares is not modelled)",
    )
    handle_ns: Nanoseconds = quantity("0 us", "time of the consensus thread per message")
    hash_ps_per_byte: Bandwidth = quantity("unlimited", "hashing speed, for example 1.63 GB/s")
    execute_ns: Nanoseconds = quantity("0 us", "time to execute a transaction")
    execute_block_ns: Nanoseconds = quantity("0 us", "time to execute a block, besides that of its transactions")
    execute_io_ns: Nanoseconds = quantity(
        "0 us", "time a transaction reads and writes state, besides that; one after the other, whatever the lanes"
    )
    lanes: Count = Field(default=1, ge=1, le=1024, description="transactions executed side by side")
    execution: Literal["auto", "before_vote", "between", "after"] = Field(
        default="auto",
        description="when a block is executed: before its proposer proposes it and before others vote for it; between "
        "blocks, before the next is proposed; or after, beside consensus; auto: as the protocol's platforms do",
    )
    fsync_ns: Nanoseconds = quantity("0 us", "time of one write to stable storage, where the protocol persists")


class ProtocolChoice(Parameters):
    """The protocol by name, with its own parameters."""

    name: str = Field(description="name in the table of protocols")
    parameters: SerializeAsAny[Parameters] = Field(description="written beside the name in YAML")
    _notes: tuple[str, ...] = PrivateAttr(default=())

    def drop(self, keys: Mapping[str, str]) -> None:
        """Parameters, with the protocols they were written for, that this one does not have."""
        self._notes = tuple(
            f"{self.name} has no {key}: what was written for {of} is dropped" for key, of in keys.items()
        )

    def lengthen(self, waits_ns: Mapping[str, int], note: str) -> None:
        """Raise waits that nobody has set, before anybody has seen them."""
        if waits_ns:
            self.__dict__["parameters"] = self.parameters.model_copy(update=dict(waits_ns))
        self._notes += (note,)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results must know of how this came about."""
        return self._notes


class BlockLimits(Parameters):
    """When a block is full, and how soon the next may follow."""

    max_transactions: Count = Field(default=1000, ge=1, le=1_000_000, description="transactions in a block")
    max_bytes: Bytes = quantity(
        "1 MB", "size of a block's transactions", key="max_bytes", positive=True, most=MESSAGE_BYTES_MAX
    )
    interval_ns: Nanoseconds = quantity("0 ms", "least time between two proposals of one proposer")
    batch_timeout_ns: Nanoseconds = quantity(
        "0 ms", "a block that is not full waits so long for more, from its first transaction on; 0: for none"
    )
    batch_from: Literal["transaction", "last_block", "beats"] = Field(
        default="transaction",
        description="whether batch_timeout counts from the first transaction that waits, from the last block decided, "
        "or from there in beats, of which the next one counts",
    )
    period_ns: Nanoseconds | None = quantity(
        None, "time from block to block, full, half full or empty; round timers begin when it is over", positive=True
    )
    empty_period_ns: Nanoseconds | None = quantity(
        None, "with period: the time to a block without transactions, if it is to be longer", positive=True
    )

    ticks: bool = Field(
        default=False,
        description="the interval is beaten by a clock that runs on: proposing a block or deciding one uses up a beat, "
        "and if none of the last two is left a block waits for the next",
    )
    built: Literal["when_due", "at_parent"] = Field(
        default="when_due",
        description="with a period: a block holds what waits when it is due, or what waited when its parent came",
    )
    rebuilt_every_ns: Nanoseconds | None = quantity(
        None, "with built: at_parent: it is put together anew so often until it is due; absent: never", positive=True
    )
    time_step_ns: Nanoseconds = quantity(
        "0 s", "with period: times in headers are rounded down to this, so that periods begin at whole ones"
    )

    @model_validator(mode="after")
    def _one_rule(self) -> BlockLimits:
        problems = []
        if self.ticks and not self.interval_ns:
            problems.append(Problem(("ticks",), "belongs to interval; write interval: 50 ms beside it"))
        if self.batch_from != "transaction" and not self.batch_timeout_ns:
            problems.append(Problem(("batch_from",), "belongs to batch_timeout; write batch_timeout: 500 ms beside it"))
        if self.rebuilt_every_ns is not None and self.built == "when_due":
            problems.append(Problem(("rebuilt_every",), "belongs to built: at_parent; write that beside it"))
        if self.time_step_ns and self.period_ns is None:
            problems.append(Problem(("time_step",), "belongs to period; write period beside it"))
        elif self.time_step_ns and self.period_ns is not None and self.period_ns % self.time_step_ns:
            problems.append(Problem(("time_step",), "does not go into period whole times; change one of them"))
        if self.period_ns is not None:
            if self.interval_ns:
                problems.append(Problem(("interval",), "and period are two answers to one question; remove one"))
            if self.batch_timeout_ns:
                problems.append(Problem(("batch_timeout",), "and period are two answers to one question; remove one"))
        if self.empty_period_ns is not None:
            if self.period_ns is None:
                problems.append(Problem(("empty_period",), "belongs to period; write period beside it"))
            elif self.empty_period_ns < self.period_ns:
                problems.append(Problem(("empty_period",), "is below period; raise it, or remove it"))
        if problems:
            raise RuleError(problems)
        return self


class Pool(Parameters):
    """What waits at a voter to be put into blocks, and when that is too much."""

    max_transactions: Count | None = Field(
        default=None, ge=1, description="a voter at which so many wait refuses more of its clients'; absent: no limit"
    )
    max_bytes: Bytes | None = quantity(
        None, "the same for their bytes; absent: no limit", key="max_bytes", positive=True
    )
    per_sender: Count | None = Field(
        default=None, ge=1, description="the same for those of one sender (workload senders); absent: no limit"
    )
    when_full: Literal["reject", "evict_oldest"] = Field(
        default="reject", description="refuse what comes, or let go of what has waited longest; per_sender refuses"
    )
    expires_after_ns: Nanoseconds | None = quantity(
        None, "what has waited so long at a voter leaves its pool; absent: never", positive=True
    )


class Limits(Parameters):
    """When to give up on a run (exit code 5)."""

    max_events: Count | None = Field(default=None, ge=1, le=COUNT_MAX, description="simulated events")
    simulated_ns: Nanoseconds | None = quantity(
        None, "simulated time by which the run must have ended of itself (stop_after_decisions)", positive=True
    )
    wall_ns: Nanoseconds | None = quantity(None, "time on the wall clock", positive=True)
    memory_bytes: Bytes | None = quantity(None, "resident memory", positive=True)


class Scenario(Parameters):
    """One run. Together with the version it determines every byte of the result."""

    name: Annotated[str, BeforeValidator(_folder_name)] = Field(
        description="short name, also of the results' folder; default: the file's name without its ending"
    )
    description: str = Field(default="", description="one sentence for reports")
    seed: Count = Field(default=1, ge=0, le=SEED_MAX, description="of every random draw")
    duration_ns: Nanoseconds = quantity(..., "simulated time", positive=True)
    warm_up_ns: Nanoseconds = quantity("0 s", "transactions submitted before this are not measured")
    cool_down_ns: Nanoseconds = quantity("0 s", "nor those submitted within this before the duration is over")
    stop_after_decisions: Count | None = Field(
        default=None, ge=1, le=COUNT_MAX, description="end early after this many decided blocks"
    )
    platform: str | None = Field(
        default=None,
        description="a deployed platform (`pilotzone platforms`): start from what it sets, overridden by the rest",
    )
    network: Network = Field(description="voters, their places and links")
    cpu: Cpu = Field(default=Cpu(), description="processor and disk of each node")
    nodes: tuple[NodeRule, ...] = Field(
        default=(), max_length=20_000, description="nodes whose equipment or parameters differ from the rest"
    )
    links: tuple[LinkRule, ...] = Field(
        default=(), max_length=20_000, description="links that differ from the rest, one or both directions"
    )
    protocol: ProtocolChoice = Field(description="consensus protocol")
    block: BlockLimits = Field(default=BlockLimits(), description="size and spacing of blocks")
    workload: tuple[Workload, ...] = Field(min_length=1, max_length=1000, description="who sends what")
    clients: Clients = Field(default=Clients(), description="how clients reach voters")
    state: State | None = Field(
        default=None, description="keyed state that transactions read and write; absent: they conflict with nothing"
    )
    residency: Residency | None = Field(
        default=None, description="what must not leave the country, and who may vote abroad"
    )
    pool: Pool = Field(default=Pool(), description="what waits at voters to be put into blocks")
    faults: tuple[Fault, ...] = Field(default=(), description="what breaks, and when")
    corrupted: tuple[Corrupted, ...] = Field(
        default=(), max_length=1000, description="which replicas do not follow the protocol, and how"
    )
    rules: tuple[MessageRule, ...] = Field(
        default=(), max_length=1000, description="what happens to single messages on their way"
    )
    membership: tuple[MembershipChange, ...] = Field(
        default=(), max_length=1000, description="when the operator asks voters to join or to leave"
    )
    endorsement: Endorsement | None = Field(
        default=None, description="peers execute and sign requests before voters order them (Fabric); absent: no peers"
    )
    observers: tuple[Observer, ...] = Field(
        default=(), max_length=1000, description="nodes without a vote that follow the chain"
    )
    catch_up: tuple[CatchUp, ...] = Field(
        default=(), max_length=1000, description="nodes that were away and lack a part of the ledger at the start"
    )
    limits: Limits = Field(default=Limits(), description="when to give up")
    trace: Literal["off", "blocks", "messages"] = Field(default="blocks", description="how much is recorded")
    liveness_bound_ns: Nanoseconds = quantity(
        "60 s",
        "after the last fault heals, something must be decided within this (and the time that finality by depth "
        "takes); a shorter run fails once as many views as voters, and thirty more, went by in vain",
        positive=True,
    )

    @model_validator(mode="after")
    def _rules(self) -> Scenario:
        from sim.scenario.patience import executing, raised  # these import this module for its types
        from sim.scenario.rules import problems

        found = list(problems(self))
        if found:
            raise RuleError(found)
        longer, note = raised(self)
        for waits_ns, said in ((longer, note), ({}, executing(self))):
            if said:
                self.protocol.lengthen(waits_ns, said)
        return self

    @property
    def measure_end_ns(self) -> int:
        """When transactions that are submitted are measured no more."""
        return self.duration_ns - self.cool_down_ns if self.cool_down_ns else LONGEST_NS

    @property
    def rules_of_place(self) -> Residency:
        """Rules of residency, written or not."""
        return Residency() if self.residency is None else self.residency

    def jurisdictions(self, places: Iterable[str]) -> dict[str, str]:
        """The jurisdiction of each of these places that has one."""
        if self.network.site is not None:  # then voters are places by their numbers
            places = [*places, self.network.site]
        return jurisdictions(places, self.rules_of_place.places)

    @property
    def key_spaces(self) -> dict[str, int]:
        """How many keys each space of the state has: those that the file names, then those of documented uses."""
        if self.state is None:
            return {}
        known = spaces() if any(isinstance(entry, DemandLoad) for entry in self.workload) else {}
        return {**known, **self.state.spaces}

    @property
    def places(self) -> tuple[str, ...]:
        """All places latency is counted between: the voters', then those that only clients are at."""
        more = [site for entry in self.workload for site in _sites(entry) if site not in self.network.places]
        return tuple(dict.fromkeys((*self.network.places, *more, *self.place_of_observer)))

    @property
    def observer_of_seat(self) -> tuple[Observer, ...]:
        """What the scenario says of each observer; their seats follow the voters'."""
        return tuple(observer for observer in self.observers for _ in range(observer.count))

    @property
    def place_of_observer(self) -> tuple[str, ...]:
        """The place of each observer."""
        return tuple(observer.site or self.network.places[0] for observer in self.observer_of_seat)

    def nodes_of(self, ref: int | str) -> tuple[int, ...]:
        """The nodes that a reference means: a voter by number, voters by place, or observers by name."""
        seats = enumerate(self.observer_of_seat, self.network.n)
        named = tuple(seat for seat, observer in seats if observer.name == ref)
        return named or self.network.nodes_of(ref)

    def ref_problem(self, ref: int | str) -> str | None:
        """Why a reference means no voter and no observer ("rule; remedy"), or None."""
        if self.nodes_of(ref):
            return None
        known = (*self.network.places, *(observer.name for observer in self.observers))
        if isinstance(ref, str) and self.observers:
            return f"no voter stands at this place, and no observer has this name; {suggestion(ref, known)}"
        return self.network.ref_problem(ref)


def _sites(entry: Workload) -> tuple[str, ...]:
    if isinstance(entry, Trace) and entry.own_places:
        return entry.own_places
    if isinstance(entry, External):
        return () if entry.site is None else (entry.site,)
    if isinstance(entry, DemandLoad) and entry.sites == "own":
        return entry.own_places
    chosen = getattr(entry, "sites", "all")
    return () if chosen == "all" else tuple(chosen)


def resolved(scenario: Scenario) -> dict[str, Any]:
    """All fields, defaults filled in, as plain JSON data; quantities are integers named with their unit."""
    return scenario.model_dump(mode="json", by_alias=False)


def scenario_hash(scenario: Scenario) -> str:
    """BLAKE2b (16 bytes, hex) of the resolved scenario as canonical JSON: sorted keys, no spaces, UTF-8."""
    data = resolved(scenario)
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def json_schema(protocols: Mapping[str, ProtocolEntry] | None = None) -> dict[str, Any]:
    """One JSON Schema (draft 2020-12) for scenario files, protocol parameters included.

    `protocols` defaults to the table of `sim.protocols`.
    """
    if protocols is None:
        protocols = protocol_table()
    schema = Scenario.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "pilotzone scenario"
    schema["required"] = [key for key in schema["required"] if key != "name"]
    # A scenario that extends another may leave out everything that the other says.
    required = schema.pop("required")
    schema["anyOf"] = [{"required": ["extends"]}, {"required": required}]
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "scenario file, relative to this one, whose values hold where this one says nothing",
    }
    definitions = schema["$defs"]
    definitions.pop("ProtocolChoice")
    definitions.pop("Parameters", None)
    choices = []
    for name, entry in protocols.items():
        own = entry.parameters.model_json_schema(by_alias=True, ref_template="#/$defs/{model}")
        definitions.update(own.pop("$defs", {}))
        own["title"] = name
        own["properties"] = {"name": {"const": name}} | own.get("properties", {})
        own["required"] = ["name", *own.get("required", [])]
        choices.append(own)
    schema["properties"]["protocol"] = {
        "description": "consensus protocol and its parameters",
        "oneOf": choices,
    }
    return schema


def protocol_table() -> Mapping[str, ProtocolEntry]:
    """The table of protocols, imported when first asked for."""
    from sim.protocols import PROTOCOLS

    table: Mapping[str, ProtocolEntry] = PROTOCOLS
    return table
