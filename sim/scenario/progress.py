"""Progress bars of runs, comparisons and sweeps, in a terminal and in a notebook."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from sim.scenario.sweep import State


@contextlib.contextmanager
def share_bar(label: str = "", *, console: Console | None = None) -> Iterator[Callable[[float], None]]:
    """A bar for `progress=` of `sim.run` and `sim.compare`: a callable that takes a share of 1.

    >>> with share_bar("one run") as bar:
    ...     bar(0.5)
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=1.0)
        yield lambda share: bar.update(task, completed=share)


@contextlib.contextmanager
def sweep_bar(*, console: Console | None = None) -> Iterator[Callable[[State], None]]:
    """A bar for `tell=` of `sim.sweep`: done, running, failed, and when it will end."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting")

        def draw(state: State) -> None:
            text = f"done {state.done + state.reused}/{state.total}, running {state.running}, failed {state.failed}"
            bar.update(task, total=state.total, completed=state.total - state.left, description=text + eta(state))

        yield draw


def eta(state: State) -> str:
    """When a sweep will end, as the tail of a line; empty where nothing can be said."""
    if state.eta_s is None or not state.left:
        return ""
    minutes, seconds = divmod(round(state.eta_s), 60)
    return f", ETA {minutes // 60}:{minutes % 60:02}:{seconds:02}"
