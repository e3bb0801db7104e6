"""What is documented is executed: the tutorial's commands, the guide's examples, its tables, and all links.

`python tests/unit/test_docs.py` writes the outputs that the tutorial shows anew, from the lines that it shows now:
after a change of the model, read what the page says of them.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from sim.cli import app
from sim.parameters import key_of
from sim.protocols import PROTOCOLS
from sim.scenario.load import load_scenario
from sim.scenario.schema import json_schema

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
TUTORIAL = (DOCS / "tutorial.md").read_text(encoding="utf-8")
GUIDE = (DOCS / "guides" / "scenarios.md").read_text(encoding="utf-8")
COSTS = (DOCS / "cost-model.md").read_text(encoding="utf-8")
CHANGES = re.compile(r"^  (wall_s|stored in) ")  # lines that differ from run to run


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of every fenced block, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[tuple[list[str], str | None]]:
    """Arguments of every pilotzone command in the page's sh blocks, and the text block that follows, if one does."""
    found: list[tuple[list[str], str | None]] = []
    every = blocks(page)
    for i, (language, text) in enumerate(every):
        if language == "sh":
            lines = [line for line in text.replace("\\\n", " ").splitlines() if line.startswith("pilotzone ")]
            after = every[i + 1] if i + 1 < len(every) else ("", "")
            for line in lines:
                shown = after[1] if line is lines[-1] and after[0] == "text" else None
                found.append((shlex.split(line)[1:], shown))
    return found


def matches(shown: str, printed: str) -> bool:
    """Whether a shown output is what was printed; a line `...` stands for any lines."""
    lines = [line.rstrip() for line in printed.splitlines() if not CHANGES.match(line)]
    pattern = ""
    for line in shown.splitlines():
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
        elif not CHANGES.match(line):
            pattern += re.escape(line.rstrip()) + r"\n"
    return re.fullmatch(pattern, "".join(line + "\n" for line in lines)) is not None


def refreshed(shown: str, printed: str) -> str:
    """The printed output, or only those of its lines that begin with the same word as a shown one."""
    lines = [line.rstrip() for line in printed.splitlines()]
    if "..." not in shown.splitlines():
        return "\n".join(re.sub(r"^(  stored in .*/)\w+$", r"\1...", line) for line in lines) + "\n"
    found = []
    for line in shown.splitlines():
        same = [one for one in lines if one.split()[:1] == line.split()[:1]]
        found.append(same[0] if same and not line.startswith("  stored in") else line)
    return "\n".join(found) + "\n"


def refresh() -> None:
    """Run the tutorial's commands and write what they print into the page."""
    page = TUTORIAL
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        shutil.copytree(ROOT / "scenarios", "scenarios")
        for arguments, shown in commands(TUTORIAL):
            answer = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
            if shown is not None:
                page = page.replace(shown, refreshed(shown, answer.stdout), 1)
    (DOCS / "tutorial.md").write_text(page, encoding="utf-8")


@pytest.fixture()
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a copy of the scenarios, made the current one."""
    shutil.copytree(ROOT / "scenarios", tmp_path / "scenarios")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def test_every_command_of_the_tutorial_prints_what_it_shows(copy: Path) -> None:
    every = commands(TUTORIAL)
    assert len(every) >= 8
    assert sum(shown is not None for _, shown in every) >= 7
    for arguments, shown in every:
        answer = CliRunner().invoke(app, arguments)
        assert answer.exit_code == 0, (arguments, answer.output)
        if shown is not None:
            assert matches(shown, answer.stdout), f"{arguments} printed\n{answer.stdout}\nthe page shows\n{shown}"
        if "--json" in arguments:
            assert json.loads(answer.stdout)["status"] == "ok"


def test_a_wrong_output_would_be_noticed() -> None:
    printed = "a: ok\n  x 1\n  wall_s 3\n  y 2\n"
    assert matches("a: ok\n...\n  y 2\n", printed)
    assert matches("a: ok\n  x 1\n  wall_s 9\n  y 2\n", printed)
    assert not matches("a: ok\n...\n  y 3\n", printed)
    assert not matches("a: ok\n  y 2\n", printed)


def test_every_command_of_the_guide_runs(copy: Path) -> None:
    for arguments, _ in commands(GUIDE):
        assert CliRunner().invoke(app, arguments).exit_code == 0, arguments


@pytest.mark.parametrize("text", [text for language, text in blocks(GUIDE) if language == "yaml"])
def test_every_example_of_the_guide_is_a_scenario(text: str, tmp_path: Path) -> None:
    yaml = YAML(typ="safe")
    example: dict[str, Any] = yaml.load(text)
    if "extends" not in example:
        example = yaml.load((ROOT / "scenarios" / "quickstart.yaml").read_text(encoding="utf-8")) | {
            "duration": "10 min", "faults": [], **example,
        }  # fmt: skip
    else:
        example["extends"] = str(ROOT / "scenarios" / "pilot-zone" / example["extends"])
    file = tmp_path / "example.yaml"
    with open(file, "w", encoding="utf-8") as stream:
        yaml.dump(example, stream)
    load_scenario(file)


def table_after(marker: str) -> dict[str, list[str]]:
    """Rows of the guide's table that follows a marker, by key."""
    start = GUIDE.index(f"<!-- {marker} -->")
    lines = GUIDE[start:].splitlines()[2:]
    rows = {}
    for line in lines[2:]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows[cells[0].strip("`")] = cells[1:]
    return rows


def shown_default(schema: dict[str, Any], *, required: bool) -> str:
    if "default" not in schema:
        return "required" if required else "none"
    default = schema["default"]
    if default in (None, "", []):
        return "none"
    return "see below" if isinstance(default, dict) else f"`{default}`"


SCHEMA = json_schema()
OBJECTS = {"Scenario": SCHEMA} | SCHEMA["$defs"]


@pytest.mark.parametrize("name", OBJECTS)
def test_the_guide_lists_every_key_with_its_default_and_meaning(name: str) -> None:
    known = OBJECTS[name]
    required = SCHEMA["anyOf"][1]["required"] if name == "Scenario" else known.get("required", [])
    rows = table_after(f"schema: {name}")
    assert set(rows) == set(known["properties"])
    for key, property_ in known["properties"].items():
        says = [shown_default(property_, required=key in required), property_["description"]]
        assert rows[key][1:] == says, key


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_guide_lists_every_parameter_of_a_protocol(name: str) -> None:
    rows = table_after(f"protocol: {name}")
    fields = {key_of(field): info for field, info in PROTOCOLS[name].parameters.model_fields.items()}
    assert set(rows) == set(fields)
    for key, info in fields.items():
        assert rows[key] == ["none" if info.default is None else f"`{info.default}`", info.description]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_cost_model_states_the_constants_that_were_fitted() -> None:
    fit = json.loads((ROOT / "results" / "published" / "cost-model.json").read_text(encoding="utf-8"))["fit"]
    stated = (
        f"{fit['pbft_us_per_decision']:.1f} us | {fit['pbft_ns_per_message']:.0f} ns",
        f"{fit['hotstuff_us_per_decision']:.1f} us | {fit['hotstuff_ns_per_message']:.0f} ns",
        f"{fit['us_per_block_13']:.1f} us | in *d* and *t* | {fit['ns_per_transaction']:.0f} ns",
        f"{fit['us_per_block_7']:.1f} us | in *d* and *t* |",
        f"{fit['pbft_base_mb']:.0f} MB",
        f"{fit['pbft_bytes_per_pair']:.0f} B per ordered pair",
        f"{fit['hotstuff_bytes_per_voter'] / 1e3:.0f} kB per voter",
    )
    for text in stated:
        assert text in COSTS, text


def test_tests_that_pages_name_exist() -> None:
    text = (DOCS / "validation.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:tests|sim)/[\w/]+\.py)`", text))
    assert len(named) >= 8
    for name in named:
        assert (ROOT / name).is_file(), name


def test_the_documentation_builds_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("furo")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(DOCS), str(tmp_path / "html")],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr


if __name__ == "__main__":
    refresh()
