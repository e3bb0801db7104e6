"""What takes many nodes at once: lost domains with repairs, power, cables, storms. Settings only."""

from __future__ import annotations

from pydantic import Field, model_validator

from sim.network.links import Ref
from sim.parameters import Fraction, Nanoseconds, Parameters, Problem, RuleError, quantity

_HOUR = "simulated time that stands for one hour of the real event"


class Repair(Parameters):
    """How long each node of a lost domain is away: a Weibull draw for each."""

    shape: float = Field(default=0.7, ge=0.2, le=10, description="below 1: most return soon, some very late")
    scale_ns: Nanoseconds = quantity(..., "time after which 63 % are back", positive=True)
    cap_ns: Nanoseconds | None = quantity(None, "none takes longer", positive=True)


class LoseDomain(Parameters):
    """All voters and clients of a fault domain stop."""

    domain: str = Field(description="fault domain of sites.csv: N, E, W, C, M, ...")
    repair: Repair | None = Field(
        default=None, description="each returns at a time of its own; absent: all when the fault ends"
    )


class LosePower(Parameters):
    """Mains power fails: nodes run on batteries, then on diesel where it starts, then stop until the fault ends."""

    nodes: tuple[Ref, ...] = Field(min_length=1, description="node numbers, or places for all voters there")
    battery_ns: Nanoseconds = quantity(..., "how long batteries last")
    diesel_ns: Nanoseconds = quantity("0 s", "how long the fuel of a generator lasts after that")
    diesel_starts: Fraction = quantity("100 %", "probability that a node's generator starts, drawn for each")


class CutCable(Parameters):
    """One edge of the topology carries nothing; messages take the fastest of the paths that are left."""

    between: tuple[str, str] = Field(description="the two ends of an edge of network.topology, routers included")


class Storm(Parameters):
    """A typhoon's core moves over the island and takes domains one by one.

    Shares and durations are those of storms.csv, which are assumptions (A) after the Yagi outage curve.
    """

    track: tuple[str, ...] = Field(min_length=1, description="fault domains that the core passes, in order")
    flank: tuple[str, ...] = Field(default=(), description="domains beside the track, struck when it begins")
    hour_ns: Nanoseconds = quantity(..., _HOUR, positive=True)
    pace_h: float = Field(default=3, gt=0, le=1000, description="hours from one domain of the track to the next")
    down_core: Fraction = quantity("25 %", "share of nodes that go down in the core (A)")
    down_flank: Fraction = quantity("5 %", "and on the flank (A)")
    cut_core: Fraction = quantity("35 %", "share of the other nodes whose access fibre is cut in the core (A)")
    cut_flank: Fraction = quantity("10 %", "and on the flank (A)")
    shape: float = Field(default=0.7, ge=0.2, le=10, description="of the Weibull distribution of outages (A)")
    scale_h: float = Field(default=74, gt=0, le=10_000, description="its scale in hours (A)")
    cap_h: float = Field(default=192, gt=0, le=100_000, description="hours that none takes longer than (A)")

    @model_validator(mode="after")
    def _once(self) -> Storm:
        named = (*self.track, *self.flank)
        for i, domain in enumerate(named):
            if domain in named[:i]:
                raise RuleError([Problem((), f"names domain {domain} twice; a storm strikes it once")])
        return self
