"""What neither works nor is broken: slow nodes, flapping links, wrong clocks, and load that hurts. Settings only."""

from __future__ import annotations

from pydantic import Field, model_validator

from sim.network.links import Ref
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
)

_NODES = "node numbers, or places for all voters there"


class SlowNode(Parameters):
    """Nodes keep running, but their processor or disk takes several times as long."""

    nodes: tuple[Ref, ...] = Field(min_length=1, description=_NODES)
    cpu: float = Field(default=1, ge=1, le=10_000, description="how many times longer the processor takes")
    disk: float = Field(default=1, ge=1, le=10_000, description="how many times longer a write takes")

    @model_validator(mode="after")
    def _does_something(self) -> SlowNode:
        if self.cpu == 1 and self.disk == 1:
            raise RuleError([Problem((), "changes nothing; write cpu: 20 or disk: 20")])
        return self


class FlapLink(Parameters):
    """A link goes down and comes back, over and over; it begins with going down."""

    between: tuple[Ref, Ref] = Field(description="two ends, each a node number or a place; both directions")
    down_ns: Nanoseconds = quantity(..., "how long it is down each time", positive=True)
    up_ns: Nanoseconds = quantity(..., "how long it works in between", positive=True)


class SkewClock(Parameters):
    """Nodes' clocks run at a wrong rate: timers set meanwhile expire early or late. What they show is irrelevant."""

    nodes: tuple[Ref, ...] = Field(min_length=1, description=_NODES)
    rate: float = Field(ge=0.01, le=100, description="clock seconds per second: 2 halves every timeout, 0.5 doubles it")

    @model_validator(mode="after")
    def _does_something(self) -> SkewClock:
        if self.rate == 1:
            raise RuleError([Problem(("rate",), "is a clock that runs right; write 1.5, or 0.5")])
        return self


class ClientBurst(Parameters):
    """Clients at a place submit more than usual, evenly spaced."""

    site: str = Field(description="a place with clients")
    rate_tps: Rate = Field(gt=0, description="on top of what they submit anyway")


class InvalidFlood(Parameters):
    """Somebody beside a voter sends it transactions with bad signatures: it receives and verifies them, no more."""

    node: Count = Field(ge=0, description="number of the voter")
    rate_tps: Rate = Field(gt=0, description="evenly spaced")
    size_bytes: Bytes = quantity("512 B", "of one such transaction", key="bytes", positive=True, most=MESSAGE_BYTES_MAX)
