"""Seeded bugs of Clique."""

from __future__ import annotations

from sim.protocols.clique import Clique


class RecencyOffByOne(Clique):
    """A signer may seal one of n // 2 consecutive blocks, not of n // 2 + 1: half of the signers suffice."""

    def signer_limit(self) -> int:
        return self.context.n // 2

    def voters_needed(self) -> int:
        return self.context.n // 2 + 1
