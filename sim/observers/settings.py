"""What a scenario says about observers, and about nodes that were away: the lists `observers` and `catch_up`."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from sim.network.links import Ref
from sim.parameters import (
    MESSAGE_BYTES_MAX,
    Bandwidth,
    Bytes,
    Count,
    Nanoseconds,
    Parameters,
    Problem,
    Rate,
    RuleError,
    quantity,
)
from sim.units import NS_PER_S

_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
OBSERVERS_MAX = 1000


class Observer(Parameters):
    """Nodes without a vote that follow the chain at one place."""

    name: str = Field(description="what faults and tables call it: small letters, digits and dashes")
    site: str | None = Field(default=None, description="where it stands; default: the first voter's place")
    count: Count = Field(default=1, ge=1, le=OBSERVERS_MAX, description="how many such nodes; a name means all of them")
    mode: Literal["push", "pull"] = Field(
        default="push", description="push: a voter sends each block it decides; pull: the observer asks now and then"
    )
    interval_ns: Nanoseconds = quantity("1 s", "time from one question to the next in mode pull", positive=True)
    source: Ref | None = Field(
        default=None, description="voter that it follows first, by number or place; default: the nearest"
    )
    timeout_ns: Nanoseconds = quantity(
        "5 s", "how long it waits for an answer before it turns to the next nearest voter", positive=True
    )
    organisation: str | None = Field(
        default=None, description="whose peer it is, where requests are endorsed before they are ordered (endorsement)"
    )
    headers_only: bool = Field(default=False, description="keep headers and hashes, no transactions")
    bandwidth_ps_per_byte: Bandwidth | None = quantity(None, "of its network card; default: the network's")

    @model_validator(mode="after")
    def _rules(self) -> Observer:
        problems = []
        if not _NAME.fullmatch(self.name):
            message = "must begin with a small letter, then small letters, digits and dashes; write name: regulator"
            problems.append(Problem(("name",), message))
        if self.mode == "push" and self.interval_ns != NS_PER_S:  # the default may stand there: `show` writes it
            problems.append(Problem(("interval",), "is for mode: pull, where the observer asks; remove it"))
        if problems:
            raise RuleError(problems)
        return self


class CatchUp(Parameters):
    """A voter or observer that begins the run with a ledger that lacks its newest blocks."""

    node: Ref = Field(description="voter by its number or place, or observer by its name")
    away_ns: Nanoseconds | None = quantity(None, "how long the ledger grew without it", positive=True)
    blocks: Count | None = Field(default=None, ge=1, le=1_000_000_000, description="or how many blocks it lacks")
    block_interval_ns: Nanoseconds = quantity(..., "time between the blocks that it missed", positive=True)
    rate_tps: Rate = quantity(..., "rate of the transactions in them")
    bytes: Bytes = quantity("1 kB", "size of one transaction", key="bytes", positive=True, most=MESSAGE_BYTES_MAX)
    window_bytes: Bytes = quantity("1 MB", "how much it asks for ahead of what has come", positive=True)

    @model_validator(mode="after")
    def _rules(self) -> CatchUp:
        if (self.away_ns is None) == (self.blocks is None):
            both = self.blocks is not None
            remedy = "remove one of them" if both else "write away: 8 h, or blocks: 10"
            message = f"exactly one of away and blocks says how much it missed; {remedy}"
            raise RuleError([Problem(("blocks",) if both else (), message)])
        if self.away_ns is not None and self.away_ns < self.block_interval_ns:
            raise RuleError([Problem(("away",), "is shorter than block_interval, so no block was missed; lengthen it")])
        return self

    @property
    def backlog_blocks(self) -> int:
        """How many blocks it lacks."""
        return self.blocks if self.blocks is not None else (self.away_ns or 0) // self.block_interval_ns

    @property
    def block_bytes(self) -> int:
        """Size of the transactions of one of them."""
        return round(self.rate_tps * self.block_interval_ns / NS_PER_S * self.bytes)
