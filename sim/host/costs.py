"""What a node spends per message, and what went wrong where a protocol asks for the impossible."""

from __future__ import annotations

import dataclasses
from typing import Literal


class ProtocolError(Exception):
    """A protocol asked for something impossible (a bug in the protocol)."""


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a node spends per message. Times ns, sizes bytes."""

    signature_bytes: int = 64
    certificates: Literal["list", "aggregate", "threshold"] = "list"
    sign_ns: int = 0
    verify_ns: int = 0
    add_ns: int = 0  # per signer of an aggregate
    handle_ns: int = 0
    hash_ps_per_byte: int = 0
    persist_ns: int = 0
    executes: Literal["after", "between", "before_vote"] = "after"

    def verify_certificate_ns(self, signers: int) -> int:
        """Time to verify a certificate signed by that many."""
        if self.certificates == "list" or signers == 0:
            return signers * self.verify_ns
        return self.verify_ns + (signers * self.add_ns if self.certificates == "aggregate" else 0)
