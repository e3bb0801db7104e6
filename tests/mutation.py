"""Small changes to the product, one at a time: does a test notice? `python -m tests.mutation` prints which survive.

A mutation is one changed operator, number or condition in one file of an area; the tests of that area run with it, up
to the first that fails. What survives is either of no consequence, or a rule that no test states. Compiled modules are
left out: each change there would compile everything again, and the oracle watches them.

The file is a plugin too: with MUTATION="file:number" in the environment, `pytest -p tests.mutation` changes that file
as it is imported.
"""

from __future__ import annotations

import argparse
import ast
import copy
import dataclasses
import importlib.abc
import importlib.util
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
PATIENCE_S = 300  # for the tests of one area; longer: the change made something endless, which is noticed too

CONFORMANCE = "tests/protocols/test_conformance.py"
INVARIANTS = "tests/protocols/test_invariants.py"
MEMBERS = "tests/protocols/test_bft_members.py"


@dataclasses.dataclass(frozen=True)
class Area:
    """Files, and the tests that should notice a change in them; `named`: those that name this protocol."""

    files: tuple[str, ...]
    tests: tuple[str, ...]
    named: str = ""


def _protocol(name: str, *more: str) -> Area:
    module = name.replace("-", "_")
    own = (f"tests/protocols/test_{module}.py", *more, "tests/golden", "tests/trust")
    return Area((f"sim/protocols/{module}.py",), (*own, CONFORMANCE, INVARIANTS), name)


AREAS = {
    "pbft": _protocol("pbft", MEMBERS),
    "wheat": _protocol("wheat", MEMBERS),
    "rpbft": _protocol("rpbft", MEMBERS),
    "ibft": _protocol("ibft", MEMBERS),
    "qbft": _protocol("qbft", MEMBERS),
    "tendermint": _protocol("tendermint", MEMBERS),
    "raft": _protocol("raft", "tests/protocols/test_raft_members.py", "tests/protocols/test_raft_reads.py"),
    "hotstuff": _protocol("hotstuff", "tests/protocols/test_certified_chains.py"),
    "hotstuff-basic": _protocol("hotstuff-basic", "tests/protocols/test_certified_chains.py"),
    "hotstuff-2": _protocol("hotstuff-2", "tests/protocols/test_certified_chains.py"),
    "jolteon": _protocol("jolteon", "tests/protocols/test_certified_chains.py"),
    "kauri": _protocol("kauri"),
    "clique": _protocol("clique"),
    "aura": _protocol("aura"),
    "families": Area(("sim/families/**/*.py",), ("tests/protocols", "tests/trust")),
    "check": Area(
        ("sim/check/*.py",),
        ("tests/unit/test_acknowledged.py", "tests/unit/test_conservation.py", "tests/unit/test_determinism.py",
         "tests/adversary", "tests/protocols/test_raft_reads.py", INVARIANTS, "tests/trust"),
    ),
    "measure": Area(
        ("sim/measure/**/*.py",),
        ("tests/unit/test_docs_metrics.py", "tests/unit/test_histogram.py", "tests/unit/test_observers.py",
         "tests/unit/test_resilience.py", "tests/unit/test_statistics_batches.py", "tests/golden",
         "tests/unit/test_statistics_compare.py", "tests/unit/test_statistics_intervals.py",
         "tests/unit/test_statistics_saturation.py", "tests/unit/test_statistics_sequential.py",
         "tests/unit/test_statistics_warmup.py", "tests/unit/test_docs_statistics.py"),
    ),
    "network": Area(
        ("sim/network/*.py",),
        ("tests/unit/test_latency.py", "tests/unit/test_shapes.py", "tests/unit/test_post.py",
         "tests/unit/test_faults.py", "tests/unit/test_scenario_load.py", "tests/golden"),
    ),
    "adversary": Area(("sim/adversary/*.py",), ("tests/adversary", "tests/trust")),
}  # fmt: skip

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_CALCULATED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult,
}  # fmt: skip
_SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any"}


def _changed(node: ast.AST) -> str:
    """Change a node in place, if it is of a kind that is changed; what was done, or ''."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARED:
        node.ops[0] = _COMPARED[type(node.ops[0])]()
        return f"{ast.unparse(node)}"
    if isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return ast.unparse(node)
    if isinstance(node, ast.BinOp) and type(node.op) in _CALCULATED and not _is_text(node):
        node.op = _CALCULATED[type(node.op)]()
        return ast.unparse(node)
    if isinstance(node, ast.Constant) and type(node.value) is int and 0 <= node.value < 100:
        node.value += 1
        return f"{node.value - 1} became {node.value}"
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        node.value = not node.value
        return f"{not node.value} became {node.value}"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _SWAPPED:
        node.func.id = _SWAPPED[node.func.id]
        return ast.unparse(node)
    if isinstance(node, ast.If) and not node.orelse:
        node.test = ast.Constant(value=False)
        return f"never: {ast.unparse(node.body[0])}"
    return ""


def _is_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(side, ast.JoinedStr | ast.List | ast.Tuple)
        or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in (node.left, node.right)
    )


def _places(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes inside of functions that may be changed: no messages of errors, assertions, annotations or defaults."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef) or "compiled" in map(ast.unparse, function.decorator_list):
            continue
        for statement in function.body:
            yield from _inside(statement)


def _inside(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Raise | ast.Assert | ast.FunctionDef | ast.JoinedStr | ast.Lambda):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _inside(child)


def mutate(text: str, number: int) -> tuple[ast.Module, int, str]:
    """The source with its mutation of that number: tree, line, what was done. Raises IndexError beyond the last."""
    tree = ast.parse(text)
    found = 0
    for node in _places(tree):
        if found == number:
            line = getattr(node, "lineno", 0)
            done = _changed(node)
            if done:
                return ast.fix_missing_locations(tree), line, done
            continue
        if _changed(copy.deepcopy(node)):
            found += 1
    raise IndexError(number)


def count(text: str) -> int:
    """How many mutations a source has."""
    return sum(bool(_changed(copy.deepcopy(node))) for node in _places(ast.parse(text)))


# --- as a plugin -----------------------------------------------------------------------------------------------------


class _Loader(importlib.abc.SourceLoader):
    def __init__(self, path: Path, number: int) -> None:
        self.path, self.number = path, number

    def get_filename(self, fullname: str) -> str:
        return str(self.path)

    def get_data(self, path: str | bytes) -> bytes:
        return Path(os.fsdecode(path)).read_bytes()

    def exec_module(self, module: ModuleType) -> None:
        tree, _, _ = mutate(self.path.read_text(encoding="utf-8"), self.number)
        exec(compile(tree, str(self.path), "exec"), module.__dict__)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, file: str, number: int) -> None:
        self.name = file.removesuffix(".py").replace("/", ".")
        self.loader = _Loader(ROOT / file, number)

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        return importlib.util.spec_from_loader(fullname, self.loader) if fullname == self.name else None


if "MUTATION" in os.environ and __name__ != "__main__":
    _file, _, _number = os.environ["MUTATION"].rpartition(":")
    sys.meta_path.insert(0, _Finder(_file, int(_number)))


# --- the run ---------------------------------------------------------------------------------------------------------


def _drawn(area: Area, most: int, seed: int) -> list[tuple[str, int]]:
    """Some mutations of an area, evenly over all that it has."""
    every = [
        (str(path.relative_to(ROOT)), number)
        for pattern in area.files
        for path in sorted(ROOT.glob(pattern))
        for number in range(count(path.read_text(encoding="utf-8")))
    ]
    return random.Random(seed).sample(every, min(most, len(every)))


def _survives(area: Area, file: str, number: int) -> bool:
    """Whether no test of the area fails with a mutation."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "tests.mutation",
        "-p",
        "no:cacheprovider",
        *area.tests,
    ]
    if area.named:
        command += ["-k", f"{area.named} or {area.named.replace('-', '_')}"]
    env = os.environ | {"MUTATION": f"{file}:{number}"}
    try:
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("areas", nargs="*", default=list(AREAS), help=f"of {', '.join(AREAS)}; default: all")
    parser.add_argument("--each", type=int, default=6, help="mutations per area (6)")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    tried = noticed = 0
    for name in chosen.areas:
        for file, number in _drawn(AREAS[name], chosen.each, chosen.seed):
            _, line, done = mutate((ROOT / file).read_text(encoding="utf-8"), number)
            begun = time.monotonic()
            survived = _survives(AREAS[name], file, number)
            tried, noticed = tried + 1, noticed + (not survived)
            word = "SURVIVED" if survived else "noticed"
            print(
                f"{word} {file}:{line}: {' '.join(done.split())[:120]} ({time.monotonic() - begun:.0f} s)", flush=True
            )
    print(f"{noticed} of {tried} noticed")


if __name__ == "__main__":
    main()
