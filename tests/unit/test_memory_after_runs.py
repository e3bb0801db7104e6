"""A run's columns are given back when it ends: a worker of a sweep lives through thousands of runs."""

import gc

import sim
from sim.host.run import Run
from tests.runs import scenario


def _engines() -> int:
    return sum(isinstance(thing, Run) for thing in gc.get_objects())


def test_nothing_of_the_engine_outlives_a_run() -> None:
    gc.collect()  # what other tests left
    before = _engines()
    gc.disable()  # the command line lets Python look so rarely that a forgotten cycle is never found
    try:
        results = [sim.run(scenario(4)) for _ in range(2)]
        assert _engines() == before
    finally:
        gc.enable()
    assert all(result.tables for result in results), "what was measured stays"
