"""What a scenario says about single messages: entries of the list `rules`, each one match and one action."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from sim.network.links import DRAW_SPAN_NS, Ref
from sim.parameters import Count, Nanoseconds, Parameters, Problem, RuleError, quantity

ACTIONS = ("drop", "delay_by", "delay_until", "delay_until_healed", "duplicate", "only_to")
ROLES = ("leader", "next leader")  # numbers 1 and 2 of sim.kernel.rules
_ENDS = (
    "node numbers, names of observers, or places for the voters and clients there; leader: who leads the sender's view "
    "(round, term), next leader: the view after; all: everybody"
)
Ends = Literal["all", "leader", "next leader"] | tuple[Ref, ...]


class Span(Parameters):
    """A range of views or heights, both ends included; a number alone stands for itself."""

    low: Count | None = Field(default=None, ge=0, alias="from", description="least; absent: no bound")
    high: Count | None = Field(default=None, ge=0, alias="to", description="greatest; absent: no bound")
    every: Count = Field(default=1, ge=1, le=1 << 53, description="and of these the first and every so many more")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        if isinstance(data, int) and not isinstance(data, bool):
            return {"from": data, "to": data}
        return data

    @model_validator(mode="after")
    def _not_empty(self) -> Span:
        if self.low is None and self.high is None and self.every == 1:
            raise RuleError([Problem((), "has no bound; write from: 1, to: 5, both, every: 3, or one number")])
        if self.low is not None and self.high is not None and self.high < self.low:
            raise RuleError([Problem(("to",), f"is below from ({self.low}), so nothing matches; swap the two")])
        return self


class Occurrence(Parameters):
    """Which of the copies that a rule matches it acts upon, counted over all links in the order of sending."""

    first: Count = Field(default=1, ge=1, description="the first one it acts upon")
    every: Count = Field(default=1, ge=1, description="and from there on every so many")
    count: Count | None = Field(default=None, ge=1, description="at most so many; absent: no limit")


class MessageRule(Parameters):
    """One rule: which copies of messages it matches, and exactly one thing that happens to them."""

    src: Ends = Field(default="all", description=f"senders: {_ENDS}")
    dst: Ends = Field(default="all", description=f"receivers: {_ENDS}")
    types: Literal["all"] | tuple[str, ...] = Field(
        default="all", description="message types as the protocol names them, TRANSACTION and REPLY; all: every type"
    )
    view: Span | None = Field(default=None, description="views (rounds, terms) that the message is about")
    height: Span | None = Field(default=None, description="heights (sequence numbers) that the message is about")
    from_ns: Nanoseconds = quantity("0 s", "matches what is sent from this time on")
    until_ns: Nanoseconds | None = quantity(None, "matches what is sent before this time; absent: to the end")
    occurrence: Occurrence | None = Field(default=None, description="which of the copies matched; absent: every one")
    drop: Literal[True] | None = Field(default=None, description="the copy never arrives")
    delay_by_ns: Nanoseconds | None = quantity(None, "the copy arrives this much later")
    spread_ns: Nanoseconds = quantity("0 ms", "with delay_by: and up to this much more, drawn for each copy")
    delay_until_ns: Nanoseconds | None = quantity(None, "the copy arrives at this time, or when it would if later")
    delay_until_healed: Count | None = Field(
        default=None, ge=0, description="the same with the time at which this fault (its place in faults, from 0) heals"
    )
    duplicate: Count | None = Field(
        default=None, ge=1, le=100, description="so many further copies arrive with it (replies are not doubled)"
    )
    only_to: tuple[Ref, ...] | None = Field(
        default=None, min_length=1, description="of the receivers matched, only these get it"
    )

    @model_validator(mode="after")
    def _rules(self) -> MessageRule:
        problems = []
        given = [name for name in ACTIONS if getattr(self, _FIELDS.get(name, name)) is not None]
        if len(given) != 1:
            problems.append(
                Problem(tuple(given[1:2]), f"a rule does exactly one of {', '.join(ACTIONS)}; write one rule for each")
            )
        if self.spread_ns and self.delay_by_ns is None:
            problems.append(Problem(("spread",), "belongs to delay_by; write delay_by: 0 ms beside it"))
        if self.spread_ns >= DRAW_SPAN_NS:
            problems.append(Problem(("spread",), "must be below 2.147 s; narrow it"))
        if self.delay_by_ns == 0 and self.spread_ns == 0:
            problems.append(Problem(("delay_by",), "changes nothing; write a longer delay, or a spread"))
        if self.until_ns is not None and self.until_ns <= self.from_ns:
            problems.append(Problem(("until",), "must be later than from, or nothing matches; write a later time"))
        for name in ("src", "dst", "types"):
            if getattr(self, name) == ():
                problems.append(Problem((name,), "is empty, so nothing matches; name some, or write all"))
        if problems:
            raise RuleError(problems)
        return self

    @property
    def kind(self) -> str:
        """Which action this is."""
        return next(name for name in ACTIONS if getattr(self, _FIELDS.get(name, name)) is not None)

    @property
    def names_leader(self) -> bool:
        """Whether one of its ends is whoever leads; it then means no transactions and no replies."""
        return {self.src, self.dst} & {*ROLES} != set()

    @property
    def names_place(self) -> bool:
        """Whether it matches by view or height, which transactions and replies do not have."""
        return self.view is not None or self.height is not None


_FIELDS = {"delay_by": "delay_by_ns", "delay_until": "delay_until_ns"}
