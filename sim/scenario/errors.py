"""The error of a scenario that cannot be run."""

from __future__ import annotations

SHOWN_MAX = 5


class ScenarioError(Exception):
    """A scenario is refused. The message has one line per problem, "file:line:column: VALUE: rule; remedy".

    At most five problems are shown; all are in `problems`.
    """

    def __init__(self, *problems: str) -> None:
        shown = list(problems[:SHOWN_MAX])
        if len(problems) > SHOWN_MAX:
            shown[-1] += f" (and {len(problems) - SHOWN_MAX} more)"
        super().__init__("\n".join(shown))
        self.problems = problems


class LimitReachedError(RuntimeError):
    """A limit was reached before anything could run: there is no result."""


class DamagedRunError(RuntimeError):
    """The engine's memory is not what it should be: nothing of the run is believed, and nothing is stored."""
