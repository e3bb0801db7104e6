"""What a scenario says about corrupted replicas: entries of the list `corrupted`, each one behaviour of some nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from sim.network.links import Ref
from sim.parameters import Nanoseconds, Parameters, Problem, RuleError, count, quantity

Somebody = Literal["leader", "next leader"] | tuple[Ref, ...]
_ROLES = "; leader, next leader: of the replica's view"
ANY = "any"  # in place of a message type: every one
_TYPES = "message types, by name; none: all that the replica sends"
_TWO_GROUPS = "the two groups of nodes; by default the first half of the others, and the rest"


class Corruption(Parameters):
    """What every behaviour says: whose it is, and when."""

    nodes: tuple[Ref, ...] = Field(default=(), description="node numbers, or places for all voters there")
    count: int | None = count(None, "in place of nodes: so many voters, from number 0 on", low=1)
    at_ns: Nanoseconds = quantity("0 s", "the replica is correct until then")
    until_ns: Nanoseconds | None = quantity(None, "and from then on")

    @model_validator(mode="after")
    def _who(self) -> Corruption:
        problems = []
        if bool(self.nodes) == (self.count is not None):
            rule = "says the same as nodes; remove one of them" if self.nodes else "says of no node; write nodes: [0]"
            problems.append(Problem(("count",) if self.nodes else (), rule))
        if self.until_ns is not None and self.until_ns <= self.at_ns:
            problems.append(Problem(("until",), "must be later than at; write a later time"))
        problems += self.own_problems()
        if problems:
            raise RuleError(problems)
        return self

    def own_problems(self) -> Iterator[Problem]:
        """Broken rules of one behaviour."""
        return iter(())

    def message_names(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """The message types it names, each with its place."""
        for i, name in enumerate(getattr(self, "messages", ())):
            yield ("messages", i), name

    def content_names(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Those of them that must be messages."""
        return iter(())

    def vote_names(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Those of them that must be votes."""
        return iter(())

    def refs(self) -> Iterator[tuple[tuple[str | int, ...], Ref]]:
        """The nodes it names, each with its place."""
        for i, ref in enumerate(self.nodes):
            yield ("nodes", i), ref
        for i, ref in enumerate(getattr(self, "to", ())):
            yield ("to", i), ref
        for i, group in enumerate(getattr(self, "groups", None) or ()):
            for j, ref in enumerate(group):
                yield ("groups", i, j), ref


class Silent(Corruption):
    """Sends nothing, to clients neither, or nothing of some types."""

    behaviour: Literal["silent"] = Field(description="says nothing")
    messages: tuple[str, ...] = Field(default=(), description=_TYPES)


class Slow(Corruption):
    """Sends late: just before others lose patience, if the delay is chosen so."""

    behaviour: Literal["slow"] = Field(description="says everything late")
    delay_ns: Nanoseconds = quantity(..., "how long each message is held back", positive=True)
    messages: tuple[str, ...] = Field(default=(), description=_TYPES)


class Withholding(Corruption):
    """Sends some nodes nothing, or nothing of some types: no votes, no certificates."""

    behaviour: Literal["withholding"] = Field(description="keeps messages from some nodes")
    to: tuple[Ref, ...] = Field(min_length=1, description="nodes that get nothing of it")
    messages: tuple[str, ...] = Field(default=(), description=_TYPES)


class Equivocating(Corruption):
    """Proposes two blocks in place of each one, and says of the second to one group what it says of the first."""

    behaviour: Literal["equivocating"] = Field(description="proposes two blocks, and votes for both")
    groups: tuple[tuple[Ref, ...], tuple[Ref, ...]] | None = Field(default=None, description=_TWO_GROUPS)
    older: int = count(
        0, "the second block stands on a certificate so many blocks older, where blocks carry one", low=0, high=8
    )


class DoubleVoting(Corruption):
    """Votes for every block proposed in a view, where a correct replica votes for one."""

    behaviour: Literal["double-voting"] = Field(description="votes for all rivals of what it votes for")
    messages: tuple[str, ...] = Field(default=(), description="vote types, by name; none: all")

    def vote_names(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        return self.message_names()


class Replaying(Corruption):
    """Sends what it has sent again, and again."""

    behaviour: Literal["replaying"] = Field(description="says everything again later")
    after_ns: Nanoseconds = quantity(..., "time between a message and its repetition", positive=True)
    times: int = count(1, "repetitions of each message", low=1, high=1000)
    messages: tuple[str, ...] = Field(default=(), description=_TYPES)


class Understating(Corruption):
    """Reports older certificates than it has, in messages such as NEW-VIEW, where the protocol's blocks carry them."""

    behaviour: Literal["understating"] = Field(description="reports older certificates than it has")
    older: int = count(1, "so many blocks older", low=1, high=8)
    messages: tuple[str, ...] = Field(
        default=(), description="messages with content, by name; none: all that report certificates"
    )

    def content_names(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        return self.message_names()


class Amnesia(Corruption):
    """Comes back from a crash without what it wrote to disk: with no view, lock or vote of before."""

    behaviour: Literal["amnesia"] = Field(description="forgets its stable storage in a crash")


class Twin(Corruption):
    """Two copies of it run under one identity, each linked to one of two groups, and not to each other.

    Several twins that no group names are on both sides, first copies with first copies.
    """

    behaviour: Literal["twin"] = Field(description="runs twice under one identity")
    groups: tuple[tuple[Ref, ...], tuple[Ref, ...]] | None = Field(default=None, description=_TWO_GROUPS)

    def own_problems(self) -> Iterator[Problem]:
        if self.at_ns or self.until_ns is not None:
            yield Problem(("at",) if self.at_ns else ("until",), "a twin is there for the whole run; remove it")


class Step(Parameters):
    """A line of a script: when it receives or sends a message like this, it does this."""

    receives: str | None = Field(default=None, description="type of a message it is given, or any")
    sends: str | None = Field(default=None, description="type of a message it would send, or any")
    view: int | None = count(None, "in this view (term, round) only", low=0)
    from_view: int | None = count(None, "in this view and all later ones", low=0)
    every: int = count(1, "in every so many views only, counted from from_view, or 0", low=1)
    sender: Somebody = Field(default=(), description=f"with receives: from these nodes only{_ROLES}")
    times: int | None = count(None, "it acts so often at most", low=1)
    drop: bool = Field(default=False, description="the message is lost", strict=True)
    delay_ns: Nanoseconds | None = quantity(None, "the message is held back so long", positive=True)
    send: str | None = Field(default=None, description="besides, the last message of this type that it made is sent")
    vote: str | None = Field(default=None, description="besides, a vote of this type for the block of the message")
    to: Somebody = Field(default=(), description=f"receivers that this is about; none: all of the message's{_ROLES}")
    only_to: Somebody = Field(default=(), description=f"with sends: nobody else gets the message{_ROLES}")

    @model_validator(mode="after")
    def _rules(self) -> Step:
        problems = []
        if (self.receives is None) == (self.sends is None):
            problems.append(Problem((), "is about exactly one of receives and sends; write sends: and a message type"))
        actions = [
            name for name in ("drop", "delay", "send", "vote", "only_to") if getattr(self, _FIELDS.get(name, name))
        ]
        if len(actions) != 1:
            rule = "does exactly one of drop, delay, send, vote and only_to; split it"
            problems.append(Problem(tuple(actions[1:2]), rule))
        if self.only_to and self.sends is None:
            problems.append(Problem(("only_to",), "goes with sends; drop what it receives instead"))
        if self.sender and self.receives is None:
            problems.append(Problem(("sender",), "goes with receives; remove it"))
        if self.view is not None and self.from_view is not None:
            problems.append(Problem(("from_view",), "and view are two answers to one question; remove one"))
        if self.view is not None and self.every > 1:
            problems.append(Problem(("every",), "goes with from_view; one view is not every so many"))
        if self.receives is not None and self.to and (self.drop or self.delay_ns):
            problems.append(Problem(("to",), "what it receives is for itself; remove it"))
        if (self.send or self.vote) and not self.to and self.receives is not None:
            problems.append(Problem((), "says not to whom; add to: [1]"))
        if problems:
            raise RuleError(problems)
        return self


_FIELDS = {"delay": "delay_ns"}


class Scripted(Corruption):
    """Follows a short table."""

    behaviour: Literal["scripted"] = Field(description="follows a table of steps")
    script: tuple[Step, ...] = Field(min_length=1, description="steps; all that fit a message are done, in order")

    def message_names(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        for i, step in enumerate(self.script):
            if step.sends is not None and step.sends != ANY:
                yield ("script", i, "sends"), step.sends

    def content_names(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        for i, step in enumerate(self.script):
            if step.receives is not None and step.receives != ANY:
                yield ("script", i, "receives"), step.receives
            if step.send is not None:
                yield ("script", i, "send"), step.send

    def vote_names(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        for i, step in enumerate(self.script):
            if step.vote is not None:
                yield ("script", i, "vote"), step.vote

    def refs(self) -> Iterator[tuple[tuple[str | int, ...], Ref]]:
        yield from super().refs()
        for i, step in enumerate(self.script):
            for key in ("sender", "to", "only_to"):
                refs = getattr(step, key)
                for j, ref in enumerate(() if isinstance(refs, str) else refs):
                    yield ("script", i, key, j), ref


Corrupted = Annotated[
    Silent | Slow | Withholding | Equivocating | DoubleVoting | Replaying | Understating | Amnesia | Twin | Scripted,
    Field(discriminator="behaviour"),
]

NodesOf = Callable[[int | str], tuple[int, ...]]  # what a reference means


def nodes_at(refs: Iterable[Ref], nodes_of: NodesOf) -> tuple[int, ...]:
    """The nodes that references mean, each once."""
    return tuple(dict.fromkeys(node for ref in refs for node in nodes_of(ref)))


def nodes_meant(entry: Corruption, nodes_of: NodesOf, voters: int) -> tuple[int, ...]:
    """The nodes an entry is about."""
    if entry.count is not None:
        return tuple(range(min(entry.count, voters)))
    return nodes_at(entry.nodes, nodes_of)
