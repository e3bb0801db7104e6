"""Which number of the run state is whose: every scalar and every column is claimed here, by its owner, once.

A scalar is a place in the run state's array, a column a slot of its directory (sim.kernel.run_state). The numbers are
written out where the names are, since compiled code holds them as constants and must not depend on the order in which
modules are loaded. Two claims of one number are refused. ``python -m sim.kernel.layout`` prints the table.
"""

from __future__ import annotations

import importlib
import linecache
import pkgutil
import sys
from typing import NamedTuple

SCALARS = 200
COLUMNS = 116


class Claim(NamedTuple):
    """Where a number is claimed."""

    owner: str  # a module
    file: str
    line: int

    @property
    def name(self) -> str:
        """The name it is given there."""
        return linecache.getline(self.file, self.line).partition("=")[0].strip()


class Claims:
    """The numbers 0, 1, ... of one kind, and who has which."""

    def __init__(self, kind: str, room: int) -> None:
        self.kind, self.room = kind, room
        self.by_number: dict[int, Claim] = {}

    def __call__(self, number: int) -> int:
        """Claim a number for the line that calls. Raises ValueError if it is another's, or beyond the room."""
        frame = sys._getframe(1)
        claim = Claim(frame.f_globals["__name__"], frame.f_code.co_filename, frame.f_lineno)
        if not 0 <= number < self.room:
            raise ValueError(
                f"{claim.owner}:{claim.line}: {self.kind} {number} is not below {self.room}; see {__name__}"
            )
        first = self.by_number.setdefault(number, claim)
        if first != claim:
            taken = f"{self.kind} {number} is {first.name} of {first.owner}:{first.line}"
            raise ValueError(f"{claim.owner}:{claim.line}: {taken}; the next free one is {self.free()}")
        return number

    def free(self) -> int | None:
        """The least number that nobody has claimed."""
        return next((number for number in range(self.room) if number not in self.by_number), None)


scalar = Claims("scalar", SCALARS)
slot = Claims("column", COLUMNS)


def table() -> str:
    """Every scalar and column with its owner, a line each."""
    for package in ("sim.kernel", "sim.ledger", "sim.engine"):
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
            importlib.import_module(module.name)
    return "\n".join(
        f"{claims.kind:6} {number:3} {claim.name:20} {claim.owner}"
        for claims in (scalar, slot)
        for number, claim in sorted(claims.by_number.items())
    )


if __name__ == "__main__":
    from sim.kernel.layout import table as whole_table  # the module that others claimed in, not this run of it

    sys.stdout.write(whole_table() + "\n")
