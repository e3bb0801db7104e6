"""What a scenario says about its workload: the entries of its list, and how clients reach the voters."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

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
from sim.units import UnitError
from sim.workload.demand import Level, Tier
from sim.workload.shapes import ShapeName


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


def _transaction_size() -> Any:
    return quantity("512 B", "size of one transaction", key="bytes", positive=True, most=MESSAGE_BYTES_MAX)


class Backlog(Parameters):
    """Blocks are always full; no client sends anything. For laws and baselines."""

    kind: Literal["backlog"] = Field(description="blocks are always full, without client traffic")
    size_bytes: Bytes = _transaction_size()


class OpenLoop(Parameters):
    """Transactions arrive whether or not earlier ones were answered."""

    kind: Literal["open"] = Field(description="arrivals do not wait for answers")
    rate_tps: Rate = quantity(..., "mean rate, all sites together, split equally between them", positive=True)
    size_bytes: Bytes = _transaction_size()
    sites: SiteChoice = Field(default="all", description=_SITES)
    arrivals: Literal["poisson", "uniform"] = Field(
        default="poisson", description="at random, or evenly spaced over all sites in turn, as harnesses send"
    )
    shape: ShapeName = Field(default="constant", description="rate over the day (A)")
    start_hour: float = Field(default=9.0, ge=0, lt=24, description=_START)
    name: str = Field(default="open", description="name of this class in tables")
    label: Literal["general", "public", "personal", "important"] = Field(
        default="general",
        description="data label; shown with results; nothing keeps personal or important records where they are "
        "(see exported_bytes)",
    )

    @model_validator(mode="after")
    def _even_or_shaped(self) -> OpenLoop:
        if self.arrivals == "uniform" and self.shape != "constant":
            message = "goes with arrivals at random; write arrivals: poisson, or shape: constant"
            raise RuleError([Problem(("shape",), message)])
        return self


class DemandLoad(Parameters):
    """All documented uses as open-loop classes, scaled to a tier (`sim.workload.demand`)."""

    kind: Literal["demand"] = Field(description="documented uses of the pilot zone")
    tier: Tier = Field(default="T2", description="total rate: T1 20/200, T2 80/600, T3 400/3000 tx/s (A)")
    level: Level = Field(default="average", description="average, or coincident peaks")
    rate_tps: Rate | None = quantity(None, "total rate in place of the tier's, in the same proportions", positive=True)
    sites: SiteChoice = Field(default="all", description=_SITES)
    shape: Literal["constant", "own"] = Field(
        default="constant", description="constant rate, or each class its own shape of the day (A)"
    )
    start_hour: float = Field(default=9.0, ge=0, lt=24, description=_START)

    @model_validator(mode="after")
    def _no_double_peak(self) -> DemandLoad:
        if self.level == "peak" and self.shape == "own":
            message = "would raise the peak rate once more; write shape: constant, or level: average"
            raise RuleError([Problem(("shape",), message)])
        return self


class ClosedLoop(Parameters):
    """Each answer is followed at once by the next request."""

    kind: Literal["closed"] = Field(description="a fixed number of requests in flight")
    outstanding: Count = Field(ge=1, le=10_000_000, description="requests in flight, all sites together, split evenly")
    size_bytes: Bytes = _transaction_size()
    sites: SiteChoice = Field(default="all", description=_SITES)


Workload = Annotated[Backlog | OpenLoop | DemandLoad | ClosedLoop, Field(discriminator="kind")]


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
    resend_after_ns: Nanoseconds = quantity(
        "5 s",
        "an entry voter passes a transaction on again when it has waited this long, and if no other voter holds it "
        "the client asks the next one, after 1, 2, 4, 8, 16, 24 ... such times; under overload that is more traffic; "
        "0: never",
    )
    failover_after_ns: Nanoseconds = quantity(
        "1 s",
        "how long a client's entry voter may be down before the client turns to the next",
        positive=True,
    )
