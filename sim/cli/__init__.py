"""The command line. Heavy libraries are imported inside the commands, so that `--help` answers at once."""

import gc

# The order of `--help`.
# isort: off
from sim.cli.options import app
from sim.cli import running
from sim.cli import comparing
from sim.cli import studies
from sim.cli import federating
from sim.cli import planning
from sim.cli import saturating
from sim.cli import questions
from sim.cli import reporting
from sim.cli import attacking
from sim.cli import hunting
from sim.cli import campaigning
from sim.cli import publishing
from sim.cli import importing
from sim.cli import about
# isort: on


def main() -> None:
    """Entry point of the console script."""
    gc.set_threshold(200_000, 20, 20)  # imports make a million objects and no garbage worth looking for
    app()


__all__ = [
    "about",
    "app",
    "attacking",
    "campaigning",
    "comparing",
    "federating",
    "hunting",
    "importing",
    "main",
    "planning",
    "publishing",
    "questions",
    "reporting",
    "running",
    "saturating",
    "studies",
]
