"""pilotzone: a discrete-event simulator for blockchain networks.

>>> import sim
>>> scenario = sim.load("scenarios/quickstart.yaml")
>>> result = sim.run(scenario)
>>> result.status
'ok'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.plan.compare import compare
    from sim.plan.saturate import saturate
    from sim.plan.sensitivity import sensitivity
    from sim.scenario.load import load_scenario as load
    from sim.scenario.progress import share_bar as progress
    from sim.scenario.results import results
    from sim.scenario.run import Result, run
    from sim.scenario.schema import Scenario
    from sim.scenario.sweep import sweep

__all__ = ["Result", "Scenario", "compare", "load", "progress", "results", "run", "saturate", "sensitivity", "sweep"]
_HOMES = {
    "compare": ("sim.plan.compare", "compare"),
    "load": ("sim.scenario.load", "load_scenario"),
    "progress": ("sim.scenario.progress", "share_bar"),
    "results": ("sim.scenario.results", "results"),
    "run": ("sim.scenario.run", "run"),
    "saturate": ("sim.plan.saturate", "saturate"),
    "sensitivity": ("sim.plan.sensitivity", "sensitivity"),
    "sweep": ("sim.scenario.sweep", "sweep"),
    "Result": ("sim.scenario.run", "Result"),
    "Scenario": ("sim.scenario.schema", "Scenario"),
}


def __getattr__(name: str) -> Any:
    """Import public names when first used, so that `import sim` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sim' has no attribute {name!r}; it has {', '.join(__all__)}")
    import importlib

    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)
