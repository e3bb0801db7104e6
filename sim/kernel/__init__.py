"""Time and chance, nothing else: the compiled post office, keyed draws and the SimPy clock.

Read in this order: ``desk`` (where state lives), ``heap`` and ``calendar`` (what happens next),
``chance`` (every random draw), ``post`` (one message from sender to receiver), ``tally`` (votes), and
``process`` (SimPy merged with all that). The kernel knows no protocol and no ledger.
"""

import hashlib
import os
import pathlib

import numba

_HERE = pathlib.Path(__file__).parent
_COMPILED = sorted(
    [
        *_HERE.glob("*.py"),
        *_HERE.parent.glob("ledger/*.py"),
        *_HERE.parent.glob("engine/*.py"),
        *_HERE.parent.glob("workload/arrivals.py"),
    ]
)


def _source_digest() -> str:
    """Digest of every file that holds compiled code: Numba itself notices only the caller's own file."""
    digest = hashlib.blake2b(digest_size=8)
    for path in _COMPILED:
        digest.update(path.read_bytes())
    return digest.hexdigest()


if "NUMBA_CACHE_DIR" not in os.environ:
    numba.config.CACHE_DIR = str(_HERE / "__pycache__" / f"compiled-{_source_digest()}")  # type: ignore[attr-defined]
