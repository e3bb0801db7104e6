"""No modules need each other in a circle: not as they are loaded, nor when a function imports what it needs."""

import ast
from collections.abc import Iterator
from pathlib import Path

import networkx as nx

import sim

ROOT = Path(sim.__file__).parent

# Circles of types alone, which load nothing. The parts of a run name the run they are parts of; the schema asks rules
# about a scenario, which they name; a script plays processes that act on it; bars show what a sweep tells.
OF_TYPES = [
    {"sim.faults.processes", "sim.faults.script"},
    {"sim.network.links", "sim.network.settings", "sim.network.topology"},
    {
        "sim.scenario.equipment",
        "sim.scenario.followers",
        "sim.scenario.patience",
        "sim.scenario.rules",
        "sim.scenario.schema",
    },
    {"sim.scenario.progress", "sim.scenario.sweep"},
]


def modules() -> dict[str, Path]:
    """Every module of the product and its file."""
    found = {}
    for file in ROOT.rglob("*.py"):
        parts = ["sim", *file.relative_to(ROOT).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(tree: ast.AST, *, types: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements, those for types alone (under `if TYPE_CHECKING`) if asked."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not types:
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        yield from imports(node, types=types)


def circles(*, types: bool) -> list[set[str]]:
    """Sets of modules each of which needs every other."""
    files = modules()
    graph = nx.DiGraph()
    for module, file in files.items():
        for node in imports(ast.parse(file.read_text(encoding="utf-8")), types=types):
            named = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                named = [f"{node.module}.{name}" if f"{node.module}.{name}" in files else node.module for name in named]
            graph.add_edges_from((module, other) for other in named if other in files and other != module)
    assert graph.number_of_edges() > 500
    return [set(found) for found in nx.strongly_connected_components(graph) if len(found) > 1]


def test_no_modules_import_each_other() -> None:
    assert circles(types=False) == []


def test_types_go_in_circles_only_where_it_is_said_and_why() -> None:
    found = circles(types=True)
    [host] = [circle for circle in found if "sim.host.run" in circle]
    assert all(module.startswith("sim.host.") for module in host)
    found.remove(host)
    assert sorted(map(sorted, found)) == sorted(map(sorted, OF_TYPES))
