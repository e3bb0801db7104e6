"""A published flaw of two-phase HotStuff, for hunts (D. Malkhi, K. Nayak, "HotStuff-2", ePrint 2023/397, section 1)."""

from __future__ import annotations

from sim.protocols.hotstuff_2 import HotStuff2


class WithoutWait(HotStuff2):
    """A leader proposes upon the first n - f locks it is told."""

    def status_wait_ns(self) -> int:
        return 0
