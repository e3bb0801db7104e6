"""What a verdict is: violations found, and the outcome of each check."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

Outcome = Literal["pass", "fail", "not applicable"]
Kind = Literal["safety", "liveness", "conservation"]


@dataclasses.dataclass(frozen=True)
class Violation:
    """One thing that must not happen: what, when, where, and the evidence in words.

    `culprits`: who is proven to have broken the rules; `certificates`: the quorums that contradict each other;
    `waits`: where nothing is decided any more, a line for each correct replica about what it waits for.
    """

    check: str
    kind: Kind
    time_ns: int
    node: int
    evidence: str
    culprits: tuple[int, ...] = ()
    certificates: tuple[dict[str, Any], ...] = ()
    waits: tuple[str, ...] = ()


@dataclasses.dataclass
class Verdict:
    """The outcome of every check of a run."""

    outcomes: dict[str, Outcome] = dataclasses.field(default_factory=dict)
    violations: list[Violation] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    sometimes: dict[str, bool] = dataclasses.field(default_factory=dict)  # what was meant to happen, and did it

    def record(self, check: str, violations: list[Violation], *, applicable: bool = True) -> None:
        """Enter a check's outcome."""
        self.outcomes[check] = "not applicable" if not applicable else ("fail" if violations else "pass")
        if applicable:
            self.violations += violations

    def has(self, kind: Kind) -> bool:
        """Whether any violation is of this kind."""
        return any(violation.kind == kind for violation in self.violations)
