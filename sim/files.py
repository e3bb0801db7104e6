"""Files from outside: read only if they are files, and only as much of them as can be meant.

A pipe never ends and a device may not; a packed file of a few kilobytes may hold gigabytes.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
from pathlib import Path
from typing import Any


class UnfitFileError(OSError):
    """A file that is not read: the message is "rule; remedy"."""


def read_regular(path: Path, most_bytes: int) -> bytes:
    """The content of a regular file of at most so many bytes. Raises UnfitFileError, or OSError if it is unreadable."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # opening a pipe would wait for a writer
    with os.fdopen(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UnfitFileError("is a pipe, a device or a folder, which may never end; give a file")
        data = stream.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise UnfitFileError(f"is larger than {most_bytes / 1e6:g} MB; give a smaller one")
    return data


def unpacked(data: bytes, most_bytes: int) -> bytes:
    """`data`, or what is inside of it if it is packed with gzip. Raises UnfitFileError if that is too much."""
    if not data.startswith(b"\x1f\x8b"):
        return data
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        found = stream.read(most_bytes + 1)
    if len(found) > most_bytes:
        raise UnfitFileError(f"unpacks to more than {most_bytes / 1e6:g} MB; give a smaller one")
    return found


def read_json(path: Path, most_bytes: int) -> Any:
    """JSON from a regular file. Raises ValueError for whatever is none, however deep or long, and OSError."""
    try:
        return json.loads(read_regular(path, most_bytes))
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def is_plain_name(name: str) -> bool:
    """Whether a name can stand in a path, in a table's cell and in a caption without meaning anything there.

    A cell that begins with = + - or @ is a formula to a spreadsheet, and < > & are markup.
    """
    return bool(name.strip(" .")) and name[0] not in ".=+-@" and name.isprintable() and not {*name} & {*"/\\<>&|`\"'"}
