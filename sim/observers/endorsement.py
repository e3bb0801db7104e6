"""What a scenario says about endorsement: which organisations' peers must execute a request before it is ordered."""

from __future__ import annotations

import dataclasses
import itertools
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from sim.parameters import MESSAGE_BYTES_MAX, Bytes, Nanoseconds, Parameters, quantity
from sim.units import UnitError

PEERS_MAX = 60  # a set of them is a bit set
ORGANISATIONS_MAX = 12  # in a policy
PLANS_MAX = 64  # ways to meet a policy that a peer knows
_DEPTH_MAX = 20
_WORD = re.compile(r"\s*(?:([A-Za-z0-9_.-]+)|([(),]))")


class PolicyError(ValueError):
    """A policy that cannot be read: "rule; remedy"."""


@dataclasses.dataclass(frozen=True)
class Policy:
    """So many of these must be met: organisations by name, or policies."""

    least: int
    parts: tuple[str | Policy, ...]

    def met_by(self, organisations: frozenset[str]) -> bool:
        """Whether these organisations are enough."""
        met = sum(part in organisations if isinstance(part, str) else part.met_by(organisations) for part in self.parts)
        return met >= self.least

    @property
    def organisations(self) -> tuple[str, ...]:
        """All that it names, in their order."""
        names = ((part,) if isinstance(part, str) else part.organisations for part in self.parts)
        return tuple(dict.fromkeys(itertools.chain.from_iterable(names)))

    def ways(self) -> list[frozenset[str]]:
        """Sets of organisations that meet it and of which none can be left out, the smallest first."""
        names, found = self.organisations, list[frozenset[str]]()
        for count in range(1, len(names) + 1):
            for chosen in map(frozenset, itertools.combinations(names, count)):
                if self.met_by(chosen) and not any(one <= chosen for one in found):
                    found.append(chosen)
        return found


def parse_policy(text: str) -> Policy:
    """Read "AND(a, OR(b, c))" or "OutOf(2, a, b, c)", as Fabric writes policies. Raises PolicyError."""
    words = []
    at = 0
    while at < len(text.rstrip()):
        match = _WORD.match(text, at)
        if match is None:
            raise PolicyError(f"has no name, bracket or comma at {text[at:].strip()[:10]!r}; remove that")
        words.append(match[1] or match[2])
        at = match.end()
    policy, left = _read(words, 0)
    if left:
        raise PolicyError(f"goes on after its end with {left[0]!r}; remove that")
    if isinstance(policy, str):
        policy = Policy(1, (policy,))
    if len(policy.organisations) > ORGANISATIONS_MAX:
        raise PolicyError(f"names {len(policy.organisations)} organisations, more than {ORGANISATIONS_MAX}; name fewer")
    return policy


def _read(words: list[str], depth: int) -> tuple[str | Policy, list[str]]:
    """The first expression of some words, and the rest."""
    if not words or words[0] in "(),":
        raise PolicyError("lacks a name where one must stand; write AND(org1, org2)")
    if depth > _DEPTH_MAX:
        raise PolicyError(f"is nested more than {_DEPTH_MAX} deep; flatten it")
    word, rest = words[0], words[1:]
    if not rest or rest[0] != "(":
        return word, rest
    kind, rest, parts = word.lower(), rest[1:], list[str | Policy]()
    if kind not in ("and", "or", "outof"):
        raise PolicyError(f"has {word}(...); write AND, OR or OutOf")
    while True:
        part, rest = _read(rest, depth + 1)
        parts.append(part)
        if not rest:
            raise PolicyError("lacks a closing bracket; add it")
        closes, rest = rest[0] == ")", rest[1:]
        if closes:
            break
    if kind != "outof":
        return Policy(len(parts) if kind == "and" else 1, tuple(parts)), rest
    least, parts = parts[0], parts[1:]
    if not isinstance(least, str) or not least.isdecimal():
        raise PolicyError("has OutOf without a number in front; write OutOf(2, a, b, c)")
    if not 1 <= int(least) <= len(parts):
        raise PolicyError(f"wants {least} of {len(parts)}, which nobody can meet; write 1 to {len(parts)}")
    return Policy(int(least), tuple(parts)), rest


def _policy(value: Any) -> Any:
    if not isinstance(value, str):
        raise UnitError("must be a policy; write AND(org1, org2), OR(org1, org2) or OutOf(2, org1, org2, org3)")
    try:
        parse_policy(value)
    except PolicyError as error:
        raise UnitError(str(error)) from None
    return value


class Endorsement(Parameters):
    """Execute, then order: peers are the observers with an organisation, voters only order."""

    policy: Annotated[str, BeforeValidator(_policy)] = Field(
        description="organisations whose peers execute and sign: AND(a, OR(b, c)), OutOf(2, a, b, c)"
    )
    execute_ns: Nanoseconds = quantity("5 ms", "how long a peer executes a request, on one of its cores")
    orderer: Literal["drawn", "all"] = Field(
        default="drawn", description="peers hand a transaction to an orderer drawn for it (Raft), or to all (SmartBFT)"
    )
    answer_bytes: Bytes = quantity(
        "1 kB", "size of a peer's answer: the result with its signature", positive=True, most=MESSAGE_BYTES_MAX
    )
    timeout_ns: Nanoseconds = quantity(
        "15 s", "after which a client gives up waiting for endorsements, as if refused", positive=True
    )
