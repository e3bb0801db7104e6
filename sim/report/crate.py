"""The description of a published folder: an RO-Crate 1.1, metadata for people and machines in one JSON file.

References
    P. Sefton and others, RO-Crate Metadata Specification 1.1, 2020; https://w3id.org/ro/crate/1.1
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CRATE = "ro-crate-metadata.json"
_CONTEXT = "https://w3id.org/ro/crate/1.1/context"
_CONFORMS = "https://w3id.org/ro/crate/1.1"
_FORMATS = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".md": "text/markdown",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}


@dataclasses.dataclass(frozen=True)
class Part:
    """A file of the crate: its path in the folder, what it is, and the file that holds the numbers it shows."""

    path: str
    description: str
    based_on: str | None = None


@dataclasses.dataclass(frozen=True)
class About:
    """What a crate as a whole is. `date`: YYYY-MM-DD; `licence`: SPDX identifier."""

    name: str
    description: str
    date: str
    licence: str
    command: str
    version: str
    model_digest: str


def metadata(folder: Path, about: About, parts: Sequence[Part]) -> str:
    """The text of ro-crate-metadata.json for the files that are in the folder."""
    licence, software = _licence(about.licence), _licence("Apache-2.0")
    root: dict[str, Any] = {
        "@id": "./",
        "@type": "Dataset",
        "name": about.name,
        "description": about.description,
        "datePublished": about.date,
        "license": {"@id": licence["@id"]},
        "hasPart": [{"@id": part.path} for part in parts],
        "mentions": {"@id": "#made"},
    }
    graph: list[dict[str, Any]] = [
        {"@id": CRATE, "@type": "CreativeWork", "conformsTo": {"@id": _CONFORMS}, "about": {"@id": "./"}},
        root,
        *(_file(folder, part) for part in parts),
        {
            "@id": "#pilotzone",
            "@type": "SoftwareApplication",
            "name": "pilotzone",
            "version": about.version,
            "description": f"Discrete-event simulator of blockchain networks. Model code: {about.model_digest}.",
            "license": {"@id": software["@id"]},
        },
        {
            "@id": "#made",
            "@type": "CreateAction",
            "name": "Figures and tables from the results of a study",
            "description": about.command,
            "instrument": {"@id": "#pilotzone"},
            "object": [{"@id": part.path} for part in parts if part.path in ("runs.csv", "study.json")],
            "result": [{"@id": part.path} for part in parts if part.path not in ("runs.csv", "study.json")],
        },
        licence,
        *([] if software == licence else [software]),
    ]
    return json.dumps({"@context": _CONTEXT, "@graph": graph}, indent=2, ensure_ascii=False) + "\n"


def _file(folder: Path, part: Part) -> dict[str, Any]:
    path = folder / part.path
    entity: dict[str, Any] = {
        "@id": part.path,
        "@type": "File",
        "name": path.name,
        "description": part.description,
        "encodingFormat": _FORMATS[path.suffix],
        "contentSize": str(path.stat().st_size),
    }
    if part.based_on is not None:
        entity["isBasedOn"] = {"@id": part.based_on}
    return entity


def _licence(name: str) -> dict[str, Any]:
    return {"@id": f"https://spdx.org/licenses/{name}", "@type": "CreativeWork", "name": name, "identifier": name}


def earlier(folder: Path) -> tuple[list[str], str | None] | None:
    """The files that a crate in this folder lists, and its date; None if there is no crate that can be read."""
    try:
        graph = json.loads((folder / CRATE).read_text(encoding="utf-8"))["@graph"]
        root = next(entity for entity in graph if entity["@id"] == "./")
        paths = [str(part["@id"]) for part in root["hasPart"]]
        inside = [path for path in paths if not path.startswith("/") and ".." not in Path(path).parts]
        date = root.get("datePublished")
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None
    return inside, date if isinstance(date, str) else None
