"""The command line. Heavy libraries are imported inside the commands, so that `--help` answers at once."""

# The order of `--help`.
# isort: off
from sim.cli.options import app
from sim.cli import running, comparing, studies, planning, publishing, about
# isort: on


def main() -> None:
    """Entry point of the console script."""
    app()


__all__ = ["about", "app", "comparing", "main", "planning", "publishing", "running", "studies"]
