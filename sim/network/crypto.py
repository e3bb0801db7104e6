"""What signatures cost: time to sign and verify, and bytes on the wire, by profile.

Times come from `data/costs.csv`, whose rows name hardware and source. Signature sizes: 64 bytes for ECDSA and
SM2 as r || s and for Ed25519 (RFC 8032), 96 bytes for BLS12-381 with signatures in G2.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Literal

from sim.network.sites import DATA, read_rows

CryptoName = Literal["none", "ecdsa-p256", "ed25519", "sm2-slow", "sm2-fast", "bls12-381", "secp256k1"]

# profile -> (operation and library in costs.csv, signature bytes)
_ROWS: dict[str, tuple[str, str, int]] = {
    "ecdsa-p256": ("ECDSA P-256", "OpenSSL 3.0 AMD EPYC", 64),
    "ed25519": ("Ed25519", "OpenSSL 3.0 AMD EPYC", 64),
    "sm2-slow": ("SM2", "tjfoc/gmsm Go i7-7700K", 64),
    "sm2-fast": ("SM2", "AVX2 library i7-7700", 64),
    "bls12-381": ("BLS12-381", "blst i9-13900K", 96),
    "secp256k1": ("secp256k1", "libsecp256k1 modern x86", 64),
}
_BLS_ADD_NS = 1_200  # one signature added to an aggregate: 1.2 us, same row of costs.csv


@dataclasses.dataclass(frozen=True)
class CryptoProfile:
    """Costs of one signature scheme on one core.

    `aggregates` tells whether signatures on one message combine into one of the same size; then `add_ns` is
    the time to add one public key or signature, and verifying an aggregate of k takes `verify_ns + k add_ns`.
    """

    name: str
    sign_ns: int
    verify_ns: int
    signature_bytes: int
    aggregates: bool = False
    add_ns: int = 0
    source: str = ""


@functools.cache
def profiles() -> Mapping[str, CryptoProfile]:
    """All profiles by name; "none" costs nothing and takes no bytes."""
    rows = {(row["operation"], row["profile"]): row for row in read_rows(DATA / "costs.csv")}
    table = {"none": CryptoProfile("none", 0, 0, 0, source="no signatures: for exact laws only")}
    for name, (operation, library, signature_bytes) in _ROWS.items():
        row = rows[operation, library]
        aggregates = name == "bls12-381"
        table[name] = CryptoProfile(
            name=name,
            sign_ns=_us_to_ns(row["sign_us"]),
            verify_ns=_us_to_ns(row["verify_us"]),
            signature_bytes=signature_bytes,
            aggregates=aggregates,
            add_ns=_BLS_ADD_NS if aggregates else 0,
            source=f"{library}: {row['source']}",
        )
    return MappingProxyType(table)


def _us_to_ns(text: str) -> int:
    return int(Decimal(text) * 1000)
