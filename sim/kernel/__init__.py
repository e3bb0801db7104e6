"""Time and chance, nothing else: the compiled message pipeline, keyed draws and the SimPy clock.

Read in this order: ``run_state`` (where state lives), ``heap`` and ``calendar`` (what happens next),
``chance`` (every random draw), ``post`` (one message from sender to receiver), ``tally`` (votes), and
``process`` (SimPy merged with all that). The kernel knows no protocol and no ledger.
"""

import hashlib
import importlib
import os
import pathlib
import sys

import llvmlite.binding
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


def _load_numba() -> None:
    """Load what Numba needs to load cached code, before anything asks for it.

    On its way Numba looks for the BLAS of SciPy, which takes a quarter of a second to import. Integer code needs
    none, so it looks absent for a moment, unless it is there already.
    """
    absent = "scipy.linalg" not in sys.modules
    if absent:
        sys.modules["scipy.linalg"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        if absent:
            del sys.modules["scipy.linalg"]


CHECKED = os.environ.get("PILOTZONE_CHECKED") == "1"  # compile with every index looked at (sim.kernel.run_state)
_DIGEST = ("checked-" if CHECKED else "") + _source_digest()
if "NUMBA_CACHE_DIR" not in os.environ:
    numba.config.CACHE_DIR = str(_HERE / "__pycache__" / f"compiled-{_DIGEST}")  # type: ignore[attr-defined]
_load_numba()
# This file exists once everything has been compiled, and is in the cache, for this code and this processor.
COMPLETE = pathlib.Path(
    numba.config.CACHE_DIR,  # type: ignore[attr-defined]
    f"complete-{_DIGEST}-{llvmlite.binding.get_host_cpu_name()}",
)
