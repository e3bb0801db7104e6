"""What a scenario says about a group that changes: entries of the list `membership`, requests of the operator."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sim.network.links import Ref
from sim.parameters import Nanoseconds, Parameters, Problem, RuleError, quantity


class MembershipChange(Parameters):
    """At a time, the operator asks the group to take voters in, or to let them go; the protocol sees to it."""

    at_ns: Nanoseconds = quantity(..., "when the operator asks")
    add: tuple[Ref, ...] = Field(default=(), description="voters that join: from then on their votes count")
    remove: tuple[Ref, ...] = Field(default=(), description="voters that leave")
    learn: tuple[Ref, ...] = Field(
        default=(), description="voters that receive everything and have no vote from then on"
    )

    when: Literal["auto", "level", "at_once"] = Field(
        default="auto",
        description="whoever joins has a vote when it has what was decided (level), or at once, there or not; auto: as "
        "platforms do, at once with ibft, qbft and tendermint",
    )
    told: Literal["all"] | tuple[Ref, ...] = Field(
        default="all", description="the voters that the operator tells; others learn of it from the protocol, if at all"
    )

    @model_validator(mode="after")
    def _does_something(self) -> MembershipChange:
        if not (self.add or self.remove or self.learn):
            raise RuleError([Problem((), "changes nothing; write add: [4], remove: [0] or learn: [5]")])
        if self.told == ():
            raise RuleError([Problem(("told",), "names nobody, so nothing happens; name a voter, or write all")])
        return self
