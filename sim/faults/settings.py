"""What a scenario says about faults: entries of the list `faults`, each one action with its times."""

from __future__ import annotations

from pydantic import Field, model_validator

from sim.faults.disasters import CutCable, LoseDomain, LosePower, Storm
from sim.faults.gray import ClientBurst, FlapLink, InvalidFlood, SkewClock, SlowNode
from sim.network.links import Ref
from sim.parameters import Fraction, Nanoseconds, Parameters, Problem, RuleError, quantity
from sim.units import format_ns

AT_LENGTH = (
    "a pause through all of it is given at that length; latencies, rates and counts are those of the run as played"
)

ACTIONS = (
    "crash", "lose_domain", "lose_power", "storm", "cut_link", "cut_cable", "partition", "degrade_link", "flap_link",
    "slow_node", "skew_clock", "client_burst", "invalid_flood",
)  # fmt: skip
ON_LINKS = ("storm", "cut_link", "cut_cable", "partition", "degrade_link", "flap_link")  # change what links do
_LINK = "two ends, each a node number or a place; both directions"


class Crash(Parameters):
    """Nodes stop, keep only what they persisted, and restart when the fault ends."""

    nodes: tuple[Ref, ...] = Field(min_length=1, description="node numbers, or places for all voters there")


class CutLink(Parameters):
    """Nothing passes between two ends."""

    between: tuple[Ref, Ref] = Field(description=_LINK)


class Partition(Parameters):
    """Nothing passes between groups. Nodes in no group form one more group together."""

    groups: tuple[tuple[Ref, ...], ...] = Field(min_length=1, description="groups of node numbers or places")


class DegradeLink(Parameters):
    """A link grows slower or loses messages."""

    between: tuple[Ref, Ref] = Field(description=_LINK)
    add_latency_ns: Nanoseconds = quantity("0 ms", "added to the one-way time")
    loss: Fraction = quantity("0 %", "probability of loss, besides the network's own")

    @model_validator(mode="after")
    def _does_something(self) -> DegradeLink:
        if self.add_latency_ns == 0 and self.loss == 0:
            message = "changes nothing; write add_latency: 50 ms or loss: 10 %"
            raise RuleError([Problem((), message)])
        return self


class Fault(Parameters):
    """One scripted fault: exactly one action, from `at` for a time or until a time (else to the end)."""

    at_ns: Nanoseconds = quantity(..., "when it begins")
    for_ns: Nanoseconds | None = quantity(None, "how long it lasts", positive=True)
    until_ns: Nanoseconds | None = quantity(None, "when it ends")
    stands_for_ns: Nanoseconds | None = quantity(
        None, "the longer time that it stands for, where an outage is played short: a pause through it is given so long"
    )
    crash: Crash | None = Field(default=None, description="nodes stop and restart")
    lose_domain: LoseDomain | None = Field(default=None, description="a whole fault domain stops and restarts")
    cut_link: CutLink | None = Field(default=None, description="one link carries nothing")
    partition: Partition | None = Field(default=None, description="the network falls into groups")
    degrade_link: DegradeLink | None = Field(default=None, description="one link grows slow or lossy")
    lose_power: LosePower | None = Field(default=None, description="batteries, then diesel, then nothing")
    storm: Storm | None = Field(default=None, description="a typhoon takes domains one by one")
    cut_cable: CutCable | None = Field(default=None, description="an edge of the topology is lost, others carry on")
    flap_link: FlapLink | None = Field(default=None, description="one link goes down and up, over and over")
    slow_node: SlowNode | None = Field(default=None, description="nodes' processors or disks grow slow")
    skew_clock: SkewClock | None = Field(default=None, description="nodes' clocks run fast or slow")
    client_burst: ClientBurst | None = Field(default=None, description="clients at a place submit more than usual")
    invalid_flood: InvalidFlood | None = Field(default=None, description="a voter is sent invalid transactions")

    @model_validator(mode="after")
    def _rules(self) -> Fault:
        problems = []
        given = [name for name in ACTIONS if getattr(self, name) is not None]
        if len(given) != 1:
            problems.append(Problem(tuple(given[1:2]), f"a fault is exactly one of {', '.join(ACTIONS)}; split it"))
        if self.for_ns is not None and self.until_ns is not None:
            problems.append(Problem(("until",), "says the same as for; remove one of them"))
        elif self.until_ns is not None and self.until_ns <= self.at_ns:
            problems.append(Problem(("until",), "must be later than at; write a later time, or for: 30 s"))
        if self.stands_for_ns is not None:
            if self.end_ns is None:
                problems.append(Problem(("stands_for",), "belongs to a fault that ends; write for: 2 min beside it"))
            elif self.stands_for_ns < self.end_ns - self.at_ns:
                problems.append(Problem(("stands_for",), "is shorter than the fault itself; exchange the two"))
        if self.draws_its_end and (self.for_ns is not None or self.until_ns is not None):
            key = "for" if self.for_ns is not None else "until"
            problems.append(Problem((key,), "nodes return at times drawn for each of them here; remove it"))
        if problems:
            raise RuleError(problems)
        return self

    @property
    def draws_its_end(self) -> bool:
        """Whether repairs are drawn, so that neither `for` nor `until` can say when it is over."""
        return self.storm is not None or (self.lose_domain is not None and self.lose_domain.repair is not None)

    @property
    def end_ns(self) -> int | None:
        """When the fault heals, ns; None if it lasts to the end, or ends by draws."""
        return self.at_ns + self.for_ns if self.for_ns is not None else self.until_ns

    @property
    def played_short(self) -> tuple[int, int, int] | None:
        """If it stands for a longer time: when it begins and ends, and how much longer that is, ns."""
        if self.stands_for_ns is None or self.end_ns is None:
            return None
        return self.at_ns, self.end_ns, self.stands_for_ns - (self.end_ns - self.at_ns)

    def scale(self) -> str:
        """What a reader must know of an outage that is played short."""
        if self.stands_for_ns is None or self.end_ns is None:
            return ""
        return f"{format_ns(self.end_ns - self.at_ns)} stand for {format_ns(self.stands_for_ns)} ({AT_LENGTH})"

    @property
    def kind(self) -> str:
        """Which action this is."""
        for name in ACTIONS:
            if getattr(self, name) is not None:
                return name
        raise AssertionError("validation lets no fault pass without an action")
