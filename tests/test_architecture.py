"""Rules of the house that no linter knows: what stands where, and what may not be said there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sim.kernel import layout
from sim.protocols import PROTOCOLS

ROOT = Path(__file__).parents[1]
SIM = ROOT / "sim"
FILES = sorted(SIM.rglob("*.py"))
NAMES = sorted(PROTOCOLS)
MODULES = sorted(entry.module for entry in PROTOCOLS.values())
PLAIN = {"__future__", "collections", "dataclasses", "enum", "functools", "pydantic", "typing"}  # words, not deeds
SEAM = {"sim.protocol", "sim.parameters", "sim.units"}
VARIANTS = {"wheat": {"sim.protocols.pbft"}, "rpbft": {"sim.protocols.pbft"}}  # subclasses of what they vary


def relative(path: Path) -> str:
    """A path as messages show it."""
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every call."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


# --- protocols -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_protocol_has_all_its_files(name: str) -> None:
    """Adding one touches: its file, a line of the table, a scenario, a page, a test."""
    module = name.replace("-", "_")
    assert PROTOCOLS[name].module == module
    for file in (
        f"sim/protocols/{module}.py",
        f"scenarios/protocols/{name}/baseline.yaml",
        f"docs/protocols/{name}.md",
        f"tests/protocols/test_{module}.py",
    ):
        assert (ROOT / file).is_file(), f"{file} is missing"


def test_every_protocol_file_is_in_the_table() -> None:
    assert sorted(file.stem for file in (SIM / "protocols").glob("[!_]*.py")) == MODULES


@pytest.mark.parametrize("name", NAMES)
def test_a_protocol_sees_the_seam_only(name: str) -> None:
    seen = {module for module in imports(SIM / "protocols" / f"{PROTOCOLS[name].module}.py")}
    ours = {module for module in seen if module.split(".")[0] == "sim"}
    seam = SEAM | VARIANTS.get(name, set())
    assert all(
        module in seam or module.rpartition(".")[0] in seam or module.startswith("sim.families.") for module in ours
    ), ours
    assert {module.split(".")[0] for module in seen - ours} <= PLAIN


def test_the_seam_has_one_door() -> None:
    found = [
        f"{relative(path)}: {module}"
        for path in FILES
        if path.parent != SIM / "protocol"
        for module in imports(path)
        if module.rpartition(".")[0].startswith("sim.protocol.")
    ]
    assert found == [], "import it from sim.protocol"


@pytest.mark.parametrize("name", NAMES)
def test_a_protocol_opens_like_its_paper(name: str) -> None:
    text = ast.get_docstring(ast.parse((SIM / "protocols" / f"{PROTOCOLS[name].module}.py").read_text()))
    assert text is not None
    assert re.search(r"\b(19|20)\d\d\b", text), "no citation"
    assert re.search(r"^paper +here$", text, re.MULTILINE), "no table of names"
    assert "Deviations" in text
    assert "Not modelled" in text


@pytest.mark.parametrize("name", NAMES)
def test_a_protocols_page_is_short_and_complete(name: str) -> None:
    text = (ROOT / "docs" / "protocols" / f"{name}.md").read_text()
    assert len(text.splitlines()) <= 80
    assert "```mermaid" in text
    from sim.parameters import key_of

    missing = [key_of(field) for field in PROTOCOLS[name].parameters.model_fields if f"`{key_of(field)}`" not in text]
    assert missing == []


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every string literal that is no docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.lineno, node.value


def test_a_protocols_name_stands_in_the_table_only() -> None:
    """Whoever asks for a protocol by name has found a reason why the seam is not narrow enough."""
    allowed = {SIM / "protocols" / "__init__.py", *(SIM / "protocols" / f"{module}.py" for module in MODULES)}
    names_platforms = SIM / "scenario" / "foreign"  # which protocol a platform's file is about
    found = [
        f"{relative(path)}:{line}: {text!r}"
        for path in FILES
        if path not in allowed and names_platforms not in path.parents
        for line, text in strings(path)
        if text in NAMES
    ]
    assert found == []


# --- chance, time and trust ---------------------------------------------------------------------------------------


def test_chance_comes_from_the_kernel() -> None:
    """No shared generator, no hash that differs between processes. Statistics may seed one with a keyed draw."""
    found = []
    for path in FILES:
        for module in imports(path):
            if module.split(".")[0] in ("random", "secrets", "uuid") or module.startswith("numpy.random"):
                found.append(f"{relative(path)}: imports {module}")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            keyed = name == "np.random.default_rng" and ast.unparse(node.args[0]).startswith("chance.draw(")
            model = path.relative_to(SIM).parts[0] in MODEL
            if re.match(r"(np|numpy)\.random\b|os\.urandom$|hash$", name) and (model or not keyed):
                found.append(f"{relative(path)}:{node.lineno}: {name}")
    assert found == []


# All that determines the events of a run. Elsewhere the clock on the wall tells durations to the reader.
MODEL = {
    "kernel", "engine", "ledger", "families", "network", "protocols", "adversary", "faults", "workload", "trace",
    "check", "host", "protocol", "parameters.py", "units.py",
}  # fmt: skip


def test_simulated_time_is_the_only_time() -> None:
    found = [
        f"{relative(path)}: imports {module}"
        for path in FILES
        if path.relative_to(SIM).parts[0] in MODEL or relative(path) == "sim/scenario/build.py"
        for module in imports(path)
        if module.split(".")[0] in ("time", "datetime", "timeit")
    ]
    assert found == []


def test_no_code_comes_from_data() -> None:
    found = []
    for path in FILES:
        found += [
            f"{relative(path)}: imports {m}"
            for m in imports(path)
            if m.split(".")[0] in ("pickle", "marshal", "shelve", "dill", "cloudpickle")
        ]
        found += [
            f"{relative(path)}:{n}: {c}" for n, c in calls(path) if c in ("eval", "exec", "compile", "__import__")
        ]
        found += [f"{relative(path)}:{n}: {c}" for n, c in calls(path) if c in ("os.system", "os.popen", "yaml.load")]
        found += [
            f"{relative(path)}: shell=True" for _ in re.finditer(r"shell\s*=\s*True", path.read_text(encoding="utf-8"))
        ]
    assert found == []


def test_simpy_has_one_door() -> None:
    users = {relative(path) for path in FILES if any(module.split(".")[0] == "simpy" for module in imports(path))}
    assert users == {"sim/kernel/process.py"}


# --- names and sizes -----------------------------------------------------------------------------------------------

EMPTY_WORDS = {"utils", "util", "helpers", "helper", "common", "base", "manager", "managers", "core", "misc"}


def test_names_say_what_is_inside() -> None:
    assert [relative(path) for path in SIM.rglob("*") if {*path.stem.lower().split("_")} & EMPTY_WORDS] == []


def test_every_module_says_what_it_is() -> None:
    silent = [relative(path) for path in FILES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert silent == []


def test_nothing_is_printed_but_by_the_command_line() -> None:
    found = [
        f"{relative(path)}:{line}"
        for path in FILES
        for line, name in calls(path)
        if name == "print" and SIM / "cli" not in path.parents
    ]
    assert found == []


@pytest.mark.parametrize(
    "layer", ["kernel", "engine", "ledger", "families", "network", "trace", "check", "measure", "workload", "faults"]
)
def test_layers_below_know_no_scenario_and_no_protocol(layer: str) -> None:
    for path in (SIM / layer).rglob("*.py"):
        above = [m for m in imports(path) if re.match(r"sim\.(scenario|cli|report|plan|protocols)\b", m)]
        assert above == [], relative(path)


# --- the engine ------------------------------------------------------------------------------------------------


def test_whatever_compiled_code_reads_of_the_run_state_is_claimed_by_one_owner() -> None:
    """Two claims of a number are refused as modules are loaded (tests/unit/test_layout.py)."""
    layout.table()  # loads all that claim
    claimed = {
        claims.kind: {claim.name for claim in claims.by_number.values()} for claims in (layout.scalar, layout.slot)
    }
    used: dict[str, set[str]] = {"scalar": set(), "column": set()}
    for file in FILES:
        if (
            file.parent.name in ("kernel", "ledger", "engine") and file.name != "engine.py"
        ):  # there both are `run_state`
            text = file.read_text(encoding="utf-8")
            used["column"] |= set(re.findall(r"column\(run_state, (?:\w+\.)?([A-Z0-9_]+)\)", text))
            used["scalar"] |= set(re.findall(r"\brun_state\[(?:\w+\.)?([A-Z][A-Z0-9_]*)\]", text))
    assert len(used["scalar"]) > 120 and len(used["column"]) > 80
    assert used["column"] <= claimed["column"]
    assert used["scalar"] - claimed["column"] <= claimed["scalar"]  # of Python, which looks columns up in the same way
