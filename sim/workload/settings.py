"""What a scenario says about its workload: the entries of its list, and how clients reach the voters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from sim.network.links import BASE_DIR
from sim.network.residency import DataLabel
from sim.parameters import (
    MESSAGE_BYTES_MAX,
    Bytes,
    Count,
    Fraction,
    Nanoseconds,
    Parameters,
    Problem,
    Rate,
    RuleError,
    quantity,
)
from sim.units import NS_PER_S, UnitError
from sim.workload.demand import DemandClass, Level, Tier, Use
from sim.workload.demand import classes as demand_classes
from sim.workload.events import Change, changed_pace
from sim.workload.keys import KeyAccess
from sim.workload.pace import Leg, Pace
from sim.workload.shapes import ShapeName
from sim.workload.traces import COLUMNS, read_trace, unpack


def _sites(value: Any) -> Any:
    if value == "all":
        return value
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(item, str) for item in value):
        raise UnitError("must be all or a list of site codes; write all or [HAK, SYX]")
    if len(set(value)) != len(value):
        raise UnitError("names a site twice; name each once")
    return tuple(value)


# "all": every place that has a voter.
SiteChoice = Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(_sites)]
_SITES = "places of the clients: all places of voters, or a list of site codes (a voter there is not needed)"
_START = "local hour of the day at simulated time zero"
_NAME = "name of this class in tables"


def _senders() -> Any:
    return Field(
        default=1,
        ge=1,
        le=100_000,
        description="accounts at each place, whose transactions take turns; see pool.per_sender",
    )


def _label() -> Any:
    return Field(
        default="general",
        description="data label: personal and important records must not leave the country (residency)",
    )


def _accesses() -> Any:
    return Field(
        default=(), max_length=16, description="keys of the state that each transaction reads and writes (state)"
    )


def _deadline() -> Any:
    return quantity(None, "an answer later than this after the request is too late; absent: none is", positive=True)


def _signatures() -> Any:
    return Field(default=1, ge=1, le=100, description="signatures on each transaction, which every voter verifies")


def _supervises() -> Any:
    return Field(
        default=False,
        description="orders of the supervising department: it alone freezes keys, and may write frozen ones",
    )


def _count() -> Any:
    return Field(default=None, ge=1, le=10**12, description="so many transactions in all, and no more")


def _transaction_size() -> Any:
    return quantity("512 B", "size of one transaction", key="bytes", positive=True, most=MESSAGE_BYTES_MAX)


class Backlog(Parameters):
    """Blocks are always full; no client sends anything. For laws and baselines."""

    kind: Literal["backlog"] = Field(description="blocks are always full, without client traffic")
    size_bytes: Bytes = _transaction_size()


class RateStep(Parameters):
    """A rate for a time; with `to`, the rate at its end, that it grows or falls to evenly."""

    rate_tps: Rate = quantity(..., "rate, or that at its beginning")
    to_tps: Rate | None = quantity(None, "rate at its end; absent: the same")
    for_ns: Nanoseconds = quantity(..., "how long", positive=True)

    def scaled(self, factor: float) -> RateStep:
        """The step with its rates multiplied, to six significant digits."""
        end = None if self.to_tps is None else float(f"{self.to_tps * factor:.6g}")
        return self.model_copy(update={"rate_tps": float(f"{self.rate_tps * factor:.6g}"), "to_tps": end})


class OpenLoop(Parameters):
    """Transactions arrive whether or not earlier ones were answered."""

    kind: Literal["open"] = Field(description="arrivals do not wait for answers")
    rate_tps: Rate | None = quantity(
        None, "mean rate, all sites together, split equally between them; this or steps", positive=True
    )
    steps: tuple[RateStep, ...] = Field(
        default=(), max_length=10_000, description="one rate after the other from the beginning, then nothing more"
    )
    count: Count | None = _count()
    send_limit_tps: Rate | None = quantity(
        None,
        "what the load generator itself can send, all sites together; what is due while it sends waits in it, and "
        "latency counts from when it is sent",
        positive=True,
    )
    size_bytes: Bytes = _transaction_size()
    sites: SiteChoice = Field(default="all", description=_SITES)
    arrivals: Literal["poisson", "uniform"] = Field(
        default="poisson", description="at random, or evenly spaced over all sites in turn, as harnesses send"
    )
    shape: ShapeName = Field(default="constant", description="rate over the day (A)")
    start_hour: float = Field(default=9.0, ge=0, lt=24, description=_START)
    senders: Count = _senders()
    accesses: tuple[KeyAccess, ...] = _accesses()
    follows: str | None = Field(
        default=None,
        description="an earlier class: the first transaction at a place touches the keys of its first one there, the "
        "second those of its second, and so on, as a release follows a pledge",
    )
    deadline_ns: Nanoseconds | None = _deadline()
    signatures: Count = _signatures()
    supervises: bool = _supervises()
    name: str = Field(default="open", description=_NAME)
    label: DataLabel = _label()

    @model_validator(mode="after")
    def _even_or_shaped(self) -> OpenLoop:
        if self.arrivals == "uniform" and self.shape != "constant":
            message = "goes with arrivals at random; write arrivals: poisson, or shape: constant"
            raise RuleError([Problem(("shape",), message)])
        if self.rate_tps is None and not self.steps:
            raise RuleError([Problem((), "says neither rate nor steps; write rate: 100 tx/s")])
        if self.steps:
            if self.rate_tps is not None:
                raise RuleError([Problem(("steps",), "and rate are two answers to one question; remove one")])
            if self.shape != "constant":
                raise RuleError([Problem(("shape",), "goes with a rate; remove it, or write the day as steps")])
            if not any(step.rate_tps or step.to_tps for step in self.steps):
                raise RuleError([Problem(("steps",), "send nothing at all; write a rate in one of them")])
        return self

    @property
    def is_plain(self) -> bool:
        """Whether it sends at its rate from the beginning to the end."""
        return not self.steps and self.count is None and self.send_limit_tps is None

    def pace(self, places: int) -> Pace | None:
        """The steps at one of so many places, or None."""
        if not self.steps:
            return None
        legs = [
            Leg(step.rate_tps / places, (step.rate_tps if step.to_tps is None else step.to_tps) / places, step.for_ns)
            for step in self.steps
        ]
        return Pace(legs)

    def mean_tps(self, duration_ns: int) -> float:
        """Mean rate within a duration, all places together, as far as `count` allows."""
        pace = self.pace(1)
        seconds = duration_ns / NS_PER_S
        due = float(self.rate_tps or 0) * seconds if pace is None else pace.due(duration_ns)
        if self.send_limit_tps is not None:
            due = min(due, self.send_limit_tps * seconds)
        return min(due, due if self.count is None else self.count) / seconds


class DemandEvent(Parameters):
    """A time at which demand is another than its shape says (A)."""

    kind: Literal["storm", "flash_crowd"] = Field(
        description="storm: people stay away and what they put off comes after it; flash_crowd: more come at once"
    )
    at_ns: Nanoseconds = quantity(..., "when it begins")
    for_ns: Nanoseconds = quantity(..., "how long it lasts", positive=True)
    times: float = Field(ge=0, le=1000, description="what is left of the rate, or how many times as much it is")
    uses: tuple[Use, ...] = Field(default=(), description="uses whose demand it changes; default: all")
    returns: Fraction = Field(default=1.0, description="storm: which part of what was put off comes after it")
    backlog_for_ns: Nanoseconds = quantity("24 h", "storm: over how long a time that comes, evenly", positive=True)

    @model_validator(mode="after")
    def _sound(self) -> DemandEvent:
        if self.kind == "storm" and self.times >= 1:
            message = "is what a storm leaves of the rate, below 1; write times: 0.2, or kind: flash_crowd"
            raise RuleError([Problem(("times",), message)])
        if self.kind == "flash_crowd" and self.times <= 1:
            raise RuleError([Problem(("times",), "is how many times as many come, above 1; write times: 5")])
        return self


class DemandLoad(Parameters):
    """All documented uses as open-loop classes, scaled to a tier (`sim.workload.demand`)."""

    kind: Literal["demand"] = Field(description="documented uses of the pilot zone")
    tier: Tier = Field(
        default="T2", description="total rate: T1 20/200, T2 80/600, T3 400/3000, T4 10,000 tx/s of containers (A)"
    )
    uses: tuple[Use, ...] = Field(default=(), description="only these uses, at the rates they have in the tier")
    beyond: bool = Field(
        default=False, description="also what the brief names and nobody published a figure for (A), besides the tier"
    )
    level: Level = Field(default="average", description="average, or coincident peaks")
    rate_tps: Rate | None = quantity(None, "total rate in place of the tier's, in the same proportions", positive=True)
    sites: Literal["own"] | SiteChoice = Field(
        default="all", description=f"{_SITES}; own: each class enters where its use is (A)"
    )
    shape: Literal["constant", "own"] = Field(
        default="constant", description="constant rate, or each class its own shape of the day (A)"
    )
    start_hour: float = Field(default=9.0, ge=0, lt=24, description=_START)
    events: tuple[DemandEvent, ...] = Field(
        default=(), max_length=100, description="storms and crowds: times at which demand is another"
    )
    senders: Count = _senders()

    @model_validator(mode="after")
    def _sound(self) -> DemandLoad:
        if self.level == "peak" and self.shape == "own":
            message = "would raise the peak rate once more; write shape: constant, or level: average"
            raise RuleError([Problem(("shape",), message)])
        known = {one.row.use for one in self.classes()}
        for i, use in enumerate(self.uses):
            if use not in known:
                message = f"has no class in {self.tier}; write beyond: true, or choose from: {', '.join(sorted(known))}"
                raise RuleError([Problem(("uses", i), message if known else "has no class; write beyond: true")])
        return self

    def classes(self) -> tuple[DemandClass, ...]:
        """The classes that send anything."""
        found = demand_classes(self.tier, self.level, self.rate_tps, uses=self.uses, beyond=self.beyond)
        return tuple(one for one in found if one.rate_tps > 0)

    @property
    def own_places(self) -> tuple[str, ...]:
        """Places that its classes enter at, where each has its own."""
        return tuple(dict.fromkeys(site for one in self.classes() for site in one.row.sites))

    def pace(self, one: DemandClass, places: int, duration_ns: int) -> Pace | None:
        """The rate of a class at one of so many places over a run, if anything changes it."""
        changes = [
            Change(
                event.at_ns,
                event.for_ns,
                event.times,
                event.returns if event.kind == "storm" else 0.0,
                event.backlog_for_ns,
            )
            for event in self.events
            if not event.uses or one.row.use in event.uses
        ]
        if not changes:
            return None
        shape = one.row.shape if self.shape == "own" else "constant"
        return changed_pace(one.rate_tps / places, shape, self.start_hour, duration_ns, changes)


class ClosedLoop(Parameters):
    """Each answer is followed by the next request, at once or after a time to think."""

    kind: Literal["closed"] = Field(description="a fixed number of requests in flight")
    outstanding: Count = Field(ge=1, le=10_000_000, description="requests in flight, all sites together, split evenly")
    think_time_ns: Nanoseconds = quantity("0 s", "from an answer to the client's next request")
    thinking: Literal["fixed", "exponential"] = Field(
        default="fixed", description="each time as long, or drawn with that mean"
    )
    count: Count | None = _count()
    size_bytes: Bytes = _transaction_size()
    sites: SiteChoice = Field(default="all", description=_SITES)
    senders: Count = _senders()
    accesses: tuple[KeyAccess, ...] = _accesses()
    deadline_ns: Nanoseconds | None = _deadline()
    signatures: Count = _signatures()
    supervises: bool = _supervises()
    name: str = Field(default="closed", description=_NAME)
    label: DataLabel = _label()


class Trace(Parameters):
    """Transactions as recorded, from a file."""

    kind: Literal["trace"] = Field(description="recorded transactions, from a file")
    file: str | None = Field(
        default=None,
        description="csv or Parquet file, relative to this one, with a column time and perhaps class, bytes and site",
    )
    columns: dict[Literal["time", "class", "bytes", "site"], str] = Field(
        default={}, description="what the file calls these columns"
    )
    time_unit: Literal["s", "ms", "us", "ns"] = Field(default="s", description="of the column time")
    starts_at: Literal["zero", "first"] = Field(
        default="zero", description="simulated time zero is the file's zero, or its first transaction"
    )
    size_bytes: Bytes = _transaction_size()
    sites: SiteChoice = Field(default="all", description=f"{_SITES}; in turn, where the file has no column site")
    senders: Count = _senders()
    accesses: tuple[KeyAccess, ...] = _accesses()
    deadline_ns: Nanoseconds | None = _deadline()
    signatures: Count = _signatures()
    supervises: bool = _supervises()
    label: DataLabel = _label()
    class_names: tuple[str, ...] = Field(default=(), description="classes of the file; written by pilotzone")
    place_names: tuple[str, ...] = Field(default=(), description="places of the file; written by pilotzone")
    packed: str = Field(default="", description="rows of the file; written by pilotzone")

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, dict) or data.get("packed"):
            return data
        name, columns, unit = data.get("file"), data.get("columns") or {}, data.get("time_unit", "s")
        sound = isinstance(columns, dict) and {*columns} <= {*COLUMNS} and unit in ("s", "ms", "us", "ns")
        if name is None:
            raise RuleError([Problem((), "says no file; write file: transactions.csv")])
        if not isinstance(name, str) or not sound or not all(isinstance(one, str) for one in columns.values()):
            return data  # the fields' own checks say what is wrong
        base = Path((info.context or {}).get(BASE_DIR, "."))
        return data | read_trace(base / name, columns, unit, from_first=data.get("starts_at") == "first")

    @model_validator(mode="after")
    def _sound(self) -> Trace:
        try:
            rows = self.rows
        except ValueError as error:
            raise RuleError([Problem(("packed",), str(error))]) from None
        if not len(rows) or rows[:, 1].max() >= len(self.class_names) or rows[:, 3].max() >= len(self.place_names):
            raise RuleError([Problem(("packed",), "is not what a trace was packed to; name its file instead")])
        return self

    @property
    def rows(self) -> NDArray[np.int64]:
        """Time (ns), class, size (bytes) and place of each transaction, int64, shape (rows, 4), in order of time."""
        rows = unpack(self.packed)
        rows[:, 2] = np.where(rows[:, 2] < 0, self.size_bytes, rows[:, 2])
        return rows

    @property
    def own_places(self) -> tuple[str, ...]:
        """Places that the file names."""
        return tuple(name for name in self.place_names if name)


class External(Parameters):
    """Transactions that come from outside of the chain: from another one, through a gateway (federations)."""

    kind: Literal["external"] = Field(description="submitted from outside, through a gateway between chains")
    name: str = Field(description=_NAME)
    site: str | None = Field(default=None, description="where its gateway stands; default: the first voter's place")
    size_bytes: Bytes = _transaction_size()
    label: DataLabel = _label()
    accesses: tuple[KeyAccess, ...] = _accesses()
    follows: str | None = Field(default=None, description="the class whose keys it touches")
    valid_for_ns: Nanoseconds | None = quantity(
        None, "so long after its submission a transaction has an effect; absent: always", positive=True
    )


Workload = Annotated[Backlog | OpenLoop | DemandLoad | ClosedLoop | Trace | External, Field(discriminator="kind")]


class Clients(Parameters):
    """How clients reach the voters, and when they hold a transaction for done."""

    entry: Literal["local", "leader"] = Field(
        default="local", description="submit to the nearest voter, or to the leader as far as it is known"
    )
    dissemination: Literal["auto", "forward", "broadcast"] = Field(
        default="auto",
        description="the entry voter passes transactions to the leader (forward) or to all voters (broadcast); "
        "auto: forward where the protocol has a lasting leader, else broadcast",
    )
    acknowledge: Literal["entry", "quorum", "2f + 1", "all"] = Field(
        default="entry",
        description="done when the entry voter says so, or when enough voters do: f + 1 (quorum), 2f + 1 or all; "
        "f is (n - 1) / 3, rounded down",
    )
    results: Literal["own", "f + 1", "n - f"] = Field(
        default="own",
        description="a voter answers with what it has executed by itself, or once so many voters, itself among them, "
        "have told each other, signed, what the block resulted in",
    )
    resend_after_ns: Nanoseconds = quantity(
        "5 s",
        "an entry voter passes a transaction on again when it has waited this long, and if no other voter holds it "
        "the client asks the next one, after 1, 2, 4, 8, 16, 24 ... such times; under overload that is more traffic; "
        "0: never",
    )
    retries: Count = Field(
        default=0, ge=0, le=1000, description="how often a client whose transaction was refused sends it again"
    )
    retry_after_ns: Nanoseconds = quantity(
        "1 s", "how long after the first refusal; after each further one twice as long", positive=True
    )
    retry_at_most_ns: Nanoseconds = quantity("1 min", "but not longer than this", positive=True)
    failover_after_ns: Nanoseconds = quantity(
        "1 s",
        "how long a client's entry voter may be down before the client turns to the next",
        positive=True,
    )

    def results_needed(self, voters: int) -> int:
        """How many voters must agree on a result before one answers; 0: none but itself, and nobody is told."""
        faults = (voters - 1) // 3
        return {"own": 0, "f + 1": faults + 1, "n - f": voters - faults}[self.results]
