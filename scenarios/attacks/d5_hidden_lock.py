"""D5: two-phase HotStuff without the wait of Delta, and a lock that one replica hides.

D. Malkhi, K. Nayak, "HotStuff-2: Optimal Two-Phase Responsive BFT", ePrint 2023/397, section 1.

The Byzantine leader of view v shows a certificate to p2 alone. The honest leader of v + 1 proposes upon the first
n - f locks it is told, without p2's; p2 does not vote below its lock, and the Byzantine node does not vote at all: a
view fails that had an honest leader and a timely network. It happens each time the Byzantine node leads.
"""

from __future__ import annotations

import numpy as np

from sim.families.chained.tree import QC
from sim.plan.attacks import Attack, Pair, Play, Seen, agrees
from sim.protocols.hotstuff_2 import HotStuff2
from sim.scenario.run import Result

BYZANTINE, NEXT = 1, 2


class HidesItsLock(HotStuff2):
    """The Byzantine node tells the next leader of an older lock than it has."""

    def lock(self, certificate: QC) -> None:
        if self.context.me != BYZANTINE or self.leader_of(certificate.view) != BYZANTINE:
            super().lock(certificate)


class WithoutWait(HidesItsLock):
    """Flawed: a leader proposes upon the first n - f locks."""

    def status_wait_ns(self) -> int:
        return 0


def views_of_the_next_leader(result: Result) -> tuple[int, int]:
    """Of the views led by the honest leader after the Byzantine one: how many were decided, and how many there were."""
    views = np.asarray(result.tables["blocks"]["view"])
    first_ns = np.asarray(result.tables["blocks"]["first_ns"])
    done = np.unique(views[first_ns >= 0])
    return int((done % 4 == NEXT).sum()), int(done.max()) // 4


def fails(result: Result) -> Seen:
    """None of them is decided."""
    done, led = views_of_the_next_leader(result)
    return Seen(agrees(result).as_expected and led > 20 and done == 0, f"{done} of {led} honest views after it decided")


def succeeds(result: Result) -> Seen:
    """All of them are."""
    done, led = views_of_the_next_leader(result)
    text = f"{done} of {led} honest views after it decided"
    return Seen(agrees(result).as_expected and led > 20 and done >= led - 1, text)


ATTACK = Attack(
    "D5",
    "two-phase HotStuff without Delta, hidden lock",
    "HotStuff-2, ePrint 2023/397",
    "an honest, synchronous view fails each time after the Byzantine node has led",
    "waiting Delta (HotStuff-2's rule): every such view decides",
    (
        Pair(
            "n = 4, a certificate shown to one",
            Play("d5-hidden-lock.yaml", fails, protocol=WithoutWait),
            Play("d5-hidden-lock.yaml", succeeds, protocol=HidesItsLock),
        ),
    ),
)
