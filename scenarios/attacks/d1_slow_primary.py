"""D1: a slow primary of PBFT.

Y. Amir, B. Coan, J. Kirsch, J. Lane, "Prime: Byzantine Replication under Attack", IEEE TDSC 8(4), 2011;
P.-L. Aublin, S. Ben Mokhtar, V. Quema, "RBFT: Redundant Byzantine Fault Tolerance", ICDCS 2013.

The attack: one batch per timeout. Its worth: batch / (T - eps), whatever the network could do. The control is a
monitored primary (after RBFT's and Aardvark's idea, not their protocols): backups depose a primary whose batches
come more than `PATIENCE` times as far apart as the block interval says they could.
"""

from __future__ import annotations

from sim.plan.attacks import Attack, Look, Pair, Play, Seen, agrees
from sim.protocol import Timer, upon
from sim.protocols.pbft import COMMIT, Pbft
from sim.scenario.run import Result

BATCH = 100  # transactions
EPS_MS = 4
PATIENCE = 2
WATCH = Timer("monitor")


class MonitoredPbft(Pbft):
    """PBFT whose backups measure how often batches are executed, and depose a primary that is slow."""

    last_ns = 0
    watched = -1

    def enter(self, view: int) -> None:
        super().enter(view)
        self.last_ns = self.context.now_ns
        if self.watched < view:
            self.watched = view
            self.context.set_timer(WATCH, self.most_ns(), view)

    def most_ns(self) -> int:
        """The longest time between two batches that is put up with."""
        return PATIENCE * self.context.pacing.block_interval_ns + 10_000_000

    @upon(COMMIT)
    def on_committed(self, ballot) -> None:  # type: ignore[no-untyped-def]
        super().on_committed(ballot)
        self.last_ns = self.context.now_ns

    @upon(WATCH)
    def on_watch(self, view: int) -> None:
        """The primary's time for another batch is over."""
        if not self.active or view != self.view or self.is_primary:
            return
        quiet_ns = self.context.now_ns - self.last_ns
        if quiet_ns >= self.most_ns():
            self.change_view(view + 1)
        else:
            self.context.set_timer(WATCH, self.most_ns() - quiet_ns, view)


def one_batch_per_timeout(timeout_ms: int) -> Look:
    """Throughput within 10 % of batch / (T - eps), no view change, safe."""
    worth = BATCH / ((timeout_ms - EPS_MS) / 1000)

    def look(result: Result) -> Seen:
        tps, changes = float(result.metrics["committed_tps"] or 0), int(result.metrics["view_changes"] or 0)
        fits = abs(tps - worth) <= 0.1 * worth and changes == 0
        return Seen(fits and agrees(result).as_expected, f"{tps:.1f} tx/s of {worth:.1f}, {changes} view changes")

    return look


def half_of_unattacked(result: Result) -> Seen:
    """Unattacked: a batch per block interval of 50 ms."""
    tps, whole = float(result.metrics["committed_tps"] or 0), BATCH / 0.05
    return Seen(agrees(result).as_expected and tps >= whole / 2, f"{tps:.1f} tx/s of {whole:.0f} unattacked")


def pair(timeout_ms: int) -> Pair:
    """The attack on one timeout."""
    sets = (f"protocol.request_timeout={timeout_ms} ms", f"corrupted.0.delay={timeout_ms - EPS_MS - 3} ms")
    scenario = "d1-slow-primary.yaml"
    return Pair(
        f"T = {timeout_ms} ms",
        Play(scenario, one_batch_per_timeout(timeout_ms), sets),
        Play(scenario, half_of_unattacked, sets, MonitoredPbft),
    )


ATTACK = Attack(
    "D1",
    "PBFT, slow primary",
    "Amir et al. 2011; Aublin et al. 2013",
    "throughput within 10 % of batch / (T - eps) for T over a factor of 8, no view change, safe",
    "a monitored primary keeps at least half of the unattacked throughput",
    tuple(pair(timeout_ms) for timeout_ms in (500, 1000, 2000, 4000)),
)
