"""What the links between places do: the settings of latency, jitter and topology.

They are parts of `sim.network.settings.Network`; `sim.network.latency` and `sim.network.topology` compute
with them.
"""

from __future__ import annotations

import math
from fractions import Fraction as Rational
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from sim.network.sites import DATA
from sim.network.tables import read_latencies
from sim.parameters import Bandwidth, Count, Fraction, Nanoseconds, Parameters, Problem, RuleError, is_text, quantity
from sim.units import LONGEST_NS, NS_PER_MS, UnitError

BASE_DIR = "base_dir"  # key of the validation context: what relative file names are relative to
DRAW_SPAN_NS = (1 << 31) - 1  # chance draws below 2**31
_ABSENT = {"rtt_ns": None, "one_way_ns": None}


def _milliseconds(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UnitError("must be a plain number of milliseconds; write 10 or 0.25")
    if value < 0:
        raise UnitError("must not be negative; write a delay of 0 or more")
    if value > LONGEST_NS // NS_PER_MS:
        raise UnitError("is longer than 9 years; write a delay in milliseconds")
    return round(value * NS_PER_MS) if is_text(info) else value


def _ref(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise UnitError("must be a node number or a site code; write 0 or HAK")
    return value


Milliseconds = Annotated[int, BeforeValidator(_milliseconds, json_schema_input_type=float)]
Ref = Annotated[int | str, BeforeValidator(_ref)]  # a node by its number, or the nodes at a place by its name


class FixedLatency(Parameters):
    """Every link takes the same time."""

    model: Literal["fixed"] = Field(default="fixed", description="every link takes the same time")
    one_way_ns: Nanoseconds = quantity(..., "propagation time of every link, also between a client and its node")


class UniformLatency(Parameters):
    """One draw per pair of places, keyed by the seed, the same in both directions."""

    model: Literal["uniform"] = Field(default="uniform", description="one draw per pair, equal in both directions")
    low_ns: Nanoseconds = quantity(..., "least one-way time")
    high_ns: Nanoseconds = quantity(..., "greatest one-way time")

    @model_validator(mode="after")
    def _ordered(self) -> UniformLatency:
        if self.high_ns < self.low_ns:
            raise RuleError([Problem(("high",), "must not be below low; swap the two")])
        if self.high_ns - self.low_ns >= DRAW_SPAN_NS:
            raise RuleError([Problem(("high",), "must be within 2.147 s of low; narrow the range")])
        return self


class DistanceLatency(Parameters):
    """From great-circle distance, by fibre quality; an estimate, as no Haikou round trips are published."""

    model: Literal["distance"] = Field(default="distance", description="from great-circle distance between sites")
    quality: Literal["low", "mid", "high"] = Field(
        default="mid",
        description="detour and equipment overhead of the fibre path: low is the best case, high the worst",
    )
    intra_site_ns: Nanoseconds = quantity("0.25 ms", "one-way time within a site")


class RttRow(Parameters):
    """One measurement: a round trip, the same in both directions, or one direction alone."""

    start: str = Field(alias="from", description="place")
    to: str = Field(description="place")
    rtt_ns: Nanoseconds | None = quantity(None, "round-trip time, for both directions")
    one_way_ns: Nanoseconds | None = quantity(None, "time in this direction; a table has a row for the other one too")

    @model_validator(mode="after")
    def _one(self) -> RttRow:
        if (self.rtt_ns is None) == (self.one_way_ns is None):
            raise RuleError(
                [Problem(("rtt",) if self.rtt_ns is not None else (), "a row says one of rtt and one_way; keep one")]
            )
        return self


class MatrixLatency(Parameters):
    """From a table of measurements."""

    model: Literal["matrix"] = Field(default="matrix", description="from a table of measurements")
    file: str | None = Field(
        default=None,
        description="csv file, relative to this one: from,to,rtt_ms (or one_way_ms), or a square matrix of one-way ms; "
        "default: AWS regions, about 2023",
    )
    columns: dict[Literal["from", "to", "rtt_ms", "one_way_ms"], str] = Field(
        default={}, description="what the file calls these columns; of several rows for a pair the mean counts"
    )
    regions: tuple[str, ...] = Field(default=(), description="places of the table, given to nodes in turn")
    intra_site_ns: Nanoseconds = quantity("0.5 ms", "one-way time within a place")
    rtts: tuple[RttRow, ...] = Field(default=(), description="the table itself, in place of a file")

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, dict) or data.get("rtts"):
            return data
        name, columns = data.get("file"), data.get("columns") or {}
        if name is not None and not isinstance(name, str):
            return data  # the field's own check says what is wrong
        if not isinstance(columns, dict) or not all(isinstance(one, str) for pair in columns.items() for one in pair):
            return data
        base = Path((info.context or {}).get(BASE_DIR, "."))
        path = DATA / "rtt_aws_ms.csv" if name is None else base / name
        # as objects: what stands in a file has no unit, and is no text of the scenario's
        return data | {"rtts": [RttRow.model_construct(**_ABSENT | row) for row in read_latencies(path, columns)]}

    def one_ways_ns(self) -> dict[tuple[str, str], int]:
        """One-way times from place to place; half of a round trip where no row says that direction."""
        halves: dict[tuple[str, str], int] = {}
        for row in self.rtts:
            if row.rtt_ns is not None:
                half_ns = round(Rational(row.rtt_ns, 2))
                halves.setdefault((row.start, row.to), half_ns)
                halves.setdefault((row.to, row.start), half_ns)
        return halves | {(row.start, row.to): row.one_way_ns for row in self.rtts if row.one_way_ns is not None}


class ExplicitLatency(Parameters):
    """A full matrix, for laws on unequal delays."""

    model: Literal["explicit"] = Field(default="explicit", description="one-way times as a matrix")
    one_way_ns: tuple[tuple[Milliseconds, ...], ...] = Field(
        alias="one_way_ms",
        description="row: from, column: to, in ms; the diagonal is the way between a client and its node",
    )


Latency = Annotated[
    FixedLatency | UniformLatency | DistanceLatency | MatrixLatency | ExplicitLatency,
    Field(discriminator="model"),
]


class NoJitter(Parameters):
    """Every message takes the link's latency exactly."""

    model: Literal["none"] = Field(default="none", description="no variation")


class UniformJitter(Parameters):
    """Latency plus a uniform draw in [-plus_minus, +plus_minus]."""

    model: Literal["uniform"] = Field(default="uniform", description="uniform around the latency")
    plus_minus_ns: Nanoseconds = quantity(..., "greatest deviation to either side")


class ProportionalJitter(Parameters):
    """Latency times a uniform draw in [1, 1 + up_to]."""

    model: Literal["proportional"] = Field(
        default="proportional", description="uniform above the latency, in proportion"
    )
    up_to: Fraction = quantity(..., "greatest increase, as a fraction of the link's latency")


class LognormalJitter(Parameters):
    """Latency times a lognormal draw of mean 1, from a table of quantiles."""

    model: Literal["lognormal"] = Field(default="lognormal", description="lognormal factor with mean 1")
    sigma: float = Field(default=0.1, ge=0.01, le=1, description="standard deviation of the factor's logarithm")


Jitter = Annotated[NoJitter | UniformJitter | ProportionalJitter | LognormalJitter, Field(discriminator="model")]


class Gst(Parameters):
    """A partially synchronous network: before the global stabilisation time (GST) delays are arbitrary but bounded.

    The model of Dwork, Lynch and Stockmeyer, "Consensus in the presence of partial synchrony", JACM 35(2), 1988.
    """

    at_ns: Nanoseconds = quantity(..., "the global stabilisation time", positive=True)
    delta_ns: Nanoseconds = quantity(..., "what was sent before GST arrives at the latest this long after it")
    up_to_ns: Nanoseconds = quantity(
        ..., "greatest delay added to a message sent before GST, drawn uniformly for each copy", positive=True
    )

    @model_validator(mode="after")
    def _drawable(self) -> Gst:
        if self.up_to_ns >= DRAW_SPAN_NS:
            raise RuleError([Problem(("up_to",), "must be below 2.147 s; lower it")])
        return self


class GraphEdge(Parameters):
    """One edge of a given topology, both directions."""

    start: str = Field(alias="from", description="place or router")
    to: str = Field(description="place or router")
    one_way_ns: Nanoseconds | None = quantity(None, "latency of the edge; absent: from the latency model")
    loss: Fraction | None = Field(default=None, lt=1, description="probability of a loss on it, besides the network's")
    bandwidth_ps_per_byte: Bandwidth | None = quantity(
        None, "what it carries in each direction, for all paths whose narrowest edge it is, one message after the other"
    )
    directed: bool = Field(default=False, description="it carries only what goes from here to there")


class GraphCard(Parameters):
    """The network card of voters that stand at a node of a topology's file."""

    node: str = Field(description="of the file")
    upload_ps_per_byte: Bandwidth | None = quantity(None, "bandwidth of what they send")
    download_ps_per_byte: Bandwidth | None = quantity(None, "bandwidth of what they receive")


class Topology(Parameters):
    """Which places are linked directly; others are reached along the fastest path."""

    family: Literal["full-mesh", "ring", "line", "star", "tree", "random-regular"] | None = Field(
        default=None, description="a named graph over the places, in the order of the nodes"
    )
    degree: Count | None = Field(default=None, ge=2, description="links of each place in a random-regular graph")
    graphml: str | None = Field(
        default=None,
        description="GraphML or GML file, relative to this file; edges may carry one_way_ms, rtt_ms, latency or delay, "
        "or their ends coordinates",
    )
    quality: Literal["low", "mid", "high"] = Field(
        default="mid", description="of fibre between nodes of the file that have coordinates, as in latency by distance"
    )
    at: tuple[str, ...] = Field(
        default=(),
        description="at which node of the file each voter stands; default: at the one that has its place's name, or, "
        "if none has, at the first ones in the file's order",
    )
    routers: tuple[str, ...] = Field(default=(), description="the file's nodes (read from it)")
    cards: tuple[GraphCard, ...] = Field(
        default=(), description="network cards at the file's nodes, in place of network.bandwidth (read from it)"
    )
    unused: tuple[str, ...] = Field(default=(), description="attributes of the file that nothing uses (read from it)")
    edges: tuple[GraphEdge, ...] = Field(default=(), description="the edges themselves, in place of a file")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any, info: ValidationInfo) -> Any:
        if isinstance(data, str):
            return {"family": data}
        if isinstance(data, dict) and isinstance(data.get("graphml"), str) and not data.get("edges"):
            from sim.network.topology import read_graph  # imports networkx, which most scenarios do not need

            base = Path((info.context or {}).get(BASE_DIR, "."))
            chosen = str(data.get("quality"))
            quality = chosen if chosen in ("low", "mid", "high") else "mid"  # the field's own check refuses others
            file = read_graph(base / data["graphml"], quality)
            return data | {"edges": file.edges, "routers": file.nodes, "cards": file.cards, "unused": file.unused}
        return data

    @model_validator(mode="after")
    def _one(self) -> Topology:
        if (self.family is None) == (not self.edges):
            raise RuleError([Problem((), "exactly one of family, graphml and edges; write full-mesh")])
        if (self.degree is not None) != (self.family == "random-regular"):
            message = "belongs to random-regular, and to no other family; write {family: random-regular, degree: 4}"
            raise RuleError([Problem(("degree",) if self.degree is not None else ("family",), f"degree {message}")])
        return self

    @property
    def has_conditions(self) -> bool:
        """Whether any edge loses messages or has a bandwidth."""
        return any(edge.loss or edge.bandwidth_ps_per_byte for edge in self.edges)

    @property
    def is_mesh(self) -> bool:
        """Whether every two places are linked directly."""
        return self.family == "full-mesh"


class MeasuredRtt(Parameters):
    """A round trip that overrides the latency model."""

    between: tuple[Ref, Ref] = Field(description="two places")
    rtt_ns: Nanoseconds = quantity(..., "measured round-trip time")
