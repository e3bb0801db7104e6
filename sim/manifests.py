"""What a stored result says of itself, and whether it is still what was written.

A run's folder holds files and a manifest with the digest of each, and of the manifest itself. Whoever reads a result
reads it through here: what was altered, cut, left out, added or never ends is damaged, and nothing of it is believed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

from sim.files import read_json

SCHEMA = 2  # of the result folder
MANIFEST = "manifest.json"
_DIGEST = "manifest_digest"
_BYTES_MAX = 64_000_000
_TEXTS = ("key", "status", "digest", "version", "scenario_hash")


class DamagedError(ValueError):
    """A folder that is not the complete, unaltered result it says to be; the message says why."""


def digest_of(data: bytes) -> str:
    """BLAKE2b, 16 bytes, hex."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _own_digest(manifest: dict[str, Any]) -> str:
    rest = {name: value for name, value in manifest.items() if name != _DIGEST}
    return digest_of(json.dumps(rest, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode())


def sealed(manifest: dict[str, Any]) -> bytes:
    """A manifest as it is stored, with its own digest in it."""
    whole = manifest | {"result_schema": SCHEMA}
    whole |= {_DIGEST: _own_digest(whole)}
    return (json.dumps(whole, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def schema_of(folder: Path) -> int | None:
    """For which version of the result folder a run was written; None if that cannot be told."""
    try:
        schema = read_json(folder / MANIFEST, _BYTES_MAX)["result_schema"]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return schema if type(schema) is int else None


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a run, if it is whole; its files are another matter (`damage`). Raises DamagedError."""
    try:
        found = read_json(folder / MANIFEST, _BYTES_MAX)
    except FileNotFoundError:
        raise DamagedError("no manifest") from None
    except (OSError, ValueError):
        raise DamagedError("its manifest cannot be read") from None
    if not isinstance(found, dict) or found.get(_DIGEST) != _digest_if_any(found):
        raise DamagedError("its manifest was altered")
    if found.get("result_schema") != SCHEMA:
        raise DamagedError("its manifest belongs to another version of results")
    if not _has_shape(found):
        raise DamagedError("its manifest is not that of a run")
    return found


def _digest_if_any(manifest: dict[str, Any]) -> str | None:
    try:
        return _own_digest(manifest)
    except (ValueError, RecursionError):
        return None


def _has_shape(manifest: dict[str, Any]) -> bool:
    metrics, files = manifest.get("metrics"), manifest.get("files")
    return (
        all(isinstance(manifest.get(name), str) for name in _TEXTS)
        and type(manifest.get("seed")) is int
        and isinstance(manifest.get("scenario"), dict)
        and isinstance(metrics, dict)
        and all(value is None or _is_number(value) for value in metrics.values())
        and isinstance(files, dict)
        and all(isinstance(digest, str) and Path(name).name == name for name, digest in files.items())
    )


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < 1 << 80 if isinstance(value, int) else math.isfinite(value)


def damage(folder: Path) -> str | None:
    """Why a run's folder is not the complete, unaltered result of its key, or None if it is."""
    try:
        manifest = read(folder)
    except DamagedError as error:
        return str(error)
    if manifest["key"] != folder.name:
        return "its manifest belongs to another run or another schema"
    try:
        there = {name for name in os.listdir(folder) if name != MANIFEST}
    except OSError:
        return "cannot be listed"
    files: dict[str, str] = manifest["files"]
    for name, expected in files.items():
        if name not in there:
            return f"{name} is missing"
        if _digest_of_file(folder / name) != expected:
            return f"{name} differs from its digest"
    foreign = sorted(there - set(files))
    return f"{foreign[0]} is no part of it" if foreign else None


def _digest_of_file(path: Path) -> str | None:
    """Digest of a regular file, not of what a link points to; None if it is none."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(path, flags)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
