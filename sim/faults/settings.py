"""What a scenario says about faults: entries of the list `faults`, each one action with its times."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sim.network.links import Ref
from sim.parameters import Fraction, Nanoseconds, Parameters, Problem, RuleError, quantity

ACTIONS = ("crash", "lose_domain", "cut_link", "partition", "degrade_link")
_LINK = "two ends, each a node number or a place; both directions"


class Crash(Parameters):
    """Nodes stop, keep only what they persisted, and restart when the fault ends."""

    nodes: tuple[Ref, ...] = Field(min_length=1, description="node numbers, or places for all voters there")


class LoseDomain(Parameters):
    """All voters and clients of a fault domain stop."""

    domain: str = Field(description="fault domain of sites.csv: N, E, W, C, M, ...")


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
    crash: Crash | None = Field(default=None, description="nodes stop and restart")
    lose_domain: LoseDomain | None = Field(
        default=None, description="a whole fault domain stops and restarts"
    )
    cut_link: CutLink | None = Field(default=None, description="one link carries nothing")
    partition: Partition | None = Field(default=None, description="the network falls into groups")
    degrade_link: DegradeLink | None = Field(default=None, description="one link grows slow or lossy")

    @model_validator(mode="after")
    def _rules(self) -> Fault:
        problems = []
        given = [name for name in ACTIONS if getattr(self, name) is not None]
        if len(given) != 1:
            problems.append(
                Problem(tuple(given[1:2]), f"a fault is exactly one of {', '.join(ACTIONS)}; split it")
            )
        if self.for_ns is not None and self.until_ns is not None:
            problems.append(Problem(("until",), "says the same as for; remove one of them"))
        elif self.until_ns is not None and self.until_ns <= self.at_ns:
            problems.append(Problem(("until",), "must be later than at; write a later time, or for: 30 s"))
        if problems:
            raise RuleError(problems)
        return self

    @property
    def end_ns(self) -> int | None:
        """When the fault heals, ns; None if it lasts to the end."""
        return self.at_ns + self.for_ns if self.for_ns is not None else self.until_ns

    @property
    def kind(self) -> Literal["crash", "lose_domain", "cut_link", "partition", "degrade_link"]:
        """Which action this is."""
        for name in ACTIONS:
            if getattr(self, name) is not None:
                return name  # type: ignore[return-value]
        raise AssertionError("validation lets no fault pass without an action")
