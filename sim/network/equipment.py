"""What single nodes and single links have that others have not: a slower disk, a narrower uplink, a longer way."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from sim.network.links import Ref
from sim.parameters import Bandwidth, Count, Fraction, Nanoseconds, Parameters, Problem, RuleError, quantity

_Factor = Annotated[float, Field(ge=0.01, le=1000)]


class ClockRule(Parameters):
    """A clock that shows another time than it is: some way off when it is set, and farther the longer that is ago."""

    ahead_ns: Nanoseconds | None = quantity(None, "it shows so much more than the time when it is set")
    behind_ns: Nanoseconds | None = quantity(None, "or so much less")
    drift_ppm: float = Field(
        default=0, ge=-100_000, le=100_000, description="how much too fast it runs, in millionths; below 0: too slow"
    )
    sync_every_ns: Nanoseconds | None = quantity(
        None, "how often it is set again; absent: at the beginning alone", positive=True
    )

    @model_validator(mode="after")
    def _one_way(self) -> ClockRule:
        if self.ahead_ns is not None and self.behind_ns is not None:
            raise RuleError([Problem(("behind",), "and ahead are two answers to one question; remove one")])
        if not self.offset_ns and not self.drift_ppm:
            raise RuleError([Problem((), "is a clock that is right; write ahead, behind or drift_ppm, or remove it")])
        if self.sync_every_ns is not None and not self.drift_ppm:
            raise RuleError([Problem(("sync_every",), "does nothing to a clock that does not drift; remove it")])
        return self

    @property
    def offset_ns(self) -> int:
        """What it shows more than the time when it is set."""
        return (self.ahead_ns or 0) - (self.behind_ns or 0)


class NodeRule(Parameters):
    """Nodes that differ from the rest; a later entry overrides an earlier one, key by key."""

    nodes: tuple[Ref, ...] = Field(
        min_length=1, description="node numbers, places for all voters there, or names of observers"
    )
    cores: Count | None = Field(default=None, ge=1, le=1024, description="workers that verify signatures")
    cpu: _Factor | None = Field(default=None, description="everything on the processor takes so many times as long")
    crypto: _Factor | None = Field(
        default=None, description="signing and verifying, besides that: 0.1 is ten times as fast"
    )
    disk: _Factor | None = Field(default=None, description="writes take so many times as long")
    upload_ps_per_byte: Bandwidth | None = quantity(None, "of the network card, outwards")
    download_ps_per_byte: Bandwidth | None = quantity(None, "of the network card, inwards")
    clock: ClockRule | None = Field(default=None, description="their clocks, if they are wrong")
    parameters: dict[str, Any] = Field(
        default={}, description="of the protocol, where these nodes run with others: {round_timeout: 4 s}"
    )

    @model_validator(mode="after")
    def _something(self) -> NodeRule:
        if self.model_fields_set <= {"nodes"}:
            raise RuleError([Problem((), "says nothing of these nodes; write for example cores: 2")])
        return self


class LinkRule(Parameters):
    """A link that differs from the rest, between all nodes and clients at its two ends; a later entry overrides."""

    between: tuple[Ref, Ref] | None = Field(
        default=None, description="two ends, each a node number or a place; both directions alike"
    )
    start: Ref | None = Field(default=None, alias="from", description="one direction alone: where it begins")
    to: Ref | None = Field(default=None, description="and where it ends")
    one_way_ns: Nanoseconds | None = quantity(None, "latency in place of the model's")
    jitter_ns: Nanoseconds | None = quantity(
        None, "each message takes longer by up to this, drawn evenly, besides the network's jitter"
    )
    loss: Fraction | None = Field(default=None, lt=1, description="probability of a loss, besides the network's")
    bandwidth_ps_per_byte: Bandwidth | None = quantity(
        None, "what it carries in each direction, for all at its ends together, one message after the other"
    )

    @model_validator(mode="after")
    def _one_link(self) -> LinkRule:
        problems = []
        if (self.between is None) == (self.start is None and self.to is None):
            problems.append(Problem((), "has exactly one of between, and from with to; write between: [0, 1]"))
        elif (self.start is None) != (self.to is None):
            key = "from" if self.start is not None else "to"
            problems.append(Problem((key,), "says one end; write from and to, or between"))
        if self.model_fields_set <= {"between", "start", "to"}:
            problems.append(Problem((), "says nothing of this link; write for example one_way: 30 ms"))
        if problems:
            raise RuleError(problems)
        return self

    @property
    def directions(self) -> tuple[tuple[Ref, Ref], ...]:
        """Ends of each direction."""
        if self.between is not None:
            return (self.between, self.between[::-1])
        assert self.start is not None and self.to is not None
        return ((self.start, self.to),)
