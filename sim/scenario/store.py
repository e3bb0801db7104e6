"""Results on disk: results/<study>/runs/<key>/, complete or absent.

A run is written into a hidden folder beside its place; its files are synced, its manifest is written last and synced;
then the folder is renamed into place. A folder without a manifest is no result.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from sim.manifests import MANIFEST, SCHEMA, sealed
from sim.scenario.schema import Scenario, resolved, scenario_hash
from sim.trace.arrow import arrow_table

_PACKAGES = ("numpy", "numba", "simpy", "networkx", "pydantic", "pyarrow")
_MODEL = (
    "kernel",
    "engine",
    "ledger",
    "network",
    "protocols",
    "adversary",
    "faults",
    "workload",
    "trace",
    "check",
    "host",
    "protocol",
    "families",
    "observers",
    "measure",
)
_SCENARIO = (
    "alarm",
    "build",
    "equipment",
    "followers",
    "load",
    "messages",
    "monitor",
    "rules",
    "run",
    "schema",
    "source",
)
_ROOT = Path(__file__).parent.parent


def model_files() -> list[Path]:
    """The sources and tables that determine a run's events, verdict and metrics."""
    files = [_ROOT / name for name in ("parameters.py", "units.py", "past.py")]
    files += [_ROOT / "scenario" / f"{name}.py" for name in _SCENARIO]
    for folder in _MODEL:
        files += sorted((_ROOT / folder).rglob("*.py")) + sorted((_ROOT / folder).rglob("*.csv"))
    return files


@functools.cache
def model_digest() -> str:
    """BLAKE2b of the sources that determine a run: a result of others is no longer current."""
    digest = hashlib.blake2b(digest_size=16)
    for path in model_files():
        digest.update(path.relative_to(_ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def variant_of(protocol: type) -> str:
    """Name of a rule override, and the digest of the file it stands in."""
    name = f"{protocol.__module__}.{protocol.__qualname__}"
    file = getattr(sys.modules.get(protocol.__module__), "__file__", None)
    if file is None:
        return name
    return f"{name} {hashlib.blake2b(Path(file).read_bytes(), digest_size=16).hexdigest()}"


def run_key(scenario: Scenario, variant: str = "") -> str:
    """Content address of a run: scenario and seed, model code, result schema, and a protocol override if any."""
    text = f"{scenario_hash(scenario)} {model_digest()} {SCHEMA} {variant}"
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


@functools.cache
def commit() -> str | None:
    """The checkout's commit, with + if it has changes; None outside a checkout."""
    if not (_ROOT.parent / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(_ROOT.parent)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def version() -> str:
    """Version of the distribution."""
    try:
        return importlib.metadata.version("pilotzone")
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"


class RunFolder:
    """The folder of one run while it is written."""

    def __init__(self, out: Path, study: str, key: str) -> None:
        self.metadata = {"pilotzone.key": key, "pilotzone.version": version(), "pilotzone.result_schema": str(SCHEMA)}
        self.place = out / study / "runs" / key
        self.work = self.place.parent / f".{key}.{os.getpid()}"
        self._sweep_dead()
        self.work.mkdir(parents=True, exist_ok=True)

    def _sweep_dead(self) -> None:
        """Remove what processes that no longer run left behind for this run."""
        for folder in self.place.parent.glob(f".{self.place.name}.*"):
            owner = folder.name.removesuffix(".old").rpartition(".")[2]
            if owner.isdigit() and not Path(f"/proc/{owner}").exists():
                shutil.rmtree(folder, ignore_errors=True)

    def file(self, name: str) -> Path:
        """Path of a file of this run."""
        return self.work / name

    def table(self, name: str, columns: dict[str, Any]) -> None:
        """Write a table as Parquet."""
        import pyarrow.parquet as pq

        table = arrow_table(columns).replace_schema_metadata(self.metadata)
        pq.write_table(table, self.file(f"{name}.parquet"), compression="zstd", write_statistics=False)

    def finish(self, manifest: dict[str, Any]) -> Path:
        """Write the manifest, with the digests of all files, and move the folder into place."""
        files = {}
        for path in sorted(self.work.iterdir()):
            with open(path, "rb") as stream:  # a message log may be larger than memory
                whole = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16))
            files[path.name] = whole.hexdigest()
        return self.seal(sealed(manifest | {"files": files}))

    def seal(self, manifest: bytes) -> Path:
        """Put the manifest beside the files that are there and move the folder into place.

        Everything is on the disk before the manifest has its name, so a power cut leaves a complete result or none.
        """
        for path in self.work.iterdir():
            with open(path, "rb") as written:
                os.fsync(written.fileno())
        temporary = self.work / f".{MANIFEST}"
        with open(temporary, "wb") as stream:
            stream.write(manifest)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(self.work / MANIFEST)
        old = self.work.with_suffix(f"{self.work.suffix}.old")
        while True:  # two renames: a kill between them leaves the finished run in its hidden folder
            with contextlib.suppress(FileNotFoundError):
                self.place.rename(old)
            try:
                self.work.rename(self.place)
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            shutil.rmtree(old, ignore_errors=True)  # another process stored the same run in between
        shutil.rmtree(old, ignore_errors=True)
        return self.place

    def discard(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self.work, ignore_errors=True)


def adopt(out: Path, study: str, key: str, files: dict[str, bytes]) -> Path:
    """Store a run whose files were made elsewhere, byte for byte. Raises ValueError if they are not those of `key`."""
    manifest = json.loads(files[MANIFEST])
    digests = {name: hashlib.blake2b(data, digest_size=16).hexdigest() for name, data in files.items()}
    if manifest["key"] != key or manifest["files"] != {n: d for n, d in digests.items() if n != MANIFEST}:
        raise ValueError(f"the files that were handed over are not the complete result of {key}")
    folder = RunFolder(out, study, key)
    try:
        for name in manifest["files"]:
            folder.file(name).write_bytes(files[name])
        return folder.seal(files[MANIFEST])
    except BaseException:
        folder.discard()
        raise


def manifest_of(scenario: Scenario) -> dict[str, Any]:
    """The part of a manifest that is known before the run."""
    return {
        "scenario": resolved(scenario),
        "scenario_hash": scenario_hash(scenario),
        "seed": scenario.seed,
        "model_digest": model_digest(),
        "version": version(),
        "commit": commit(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }
