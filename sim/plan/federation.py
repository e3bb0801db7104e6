"""Run chains side by side in conservative windows: none is ahead of what another may still send it.

A window is as long as the least gateway latency. Within it every chain runs alone; what is decided in it reaches other
chains after a gateway's latency, so in a later window. In which order, or where, the chains of a window run changes
nothing (Chandy and Misra 1979; Fujimoto 1990 on lookahead).

A transfer: *lock* on the first chain; when that is decided, *release* on the other, which has an effect only until the
timeout; when that is decided, *settle* on the first. A lock whose release had no effect by the timeout, as seen through
the gateway, is *refunded*. The check `atomicity` fails if a lock is both released and refunded.
"""

from __future__ import annotations

import dataclasses
import functools
import heapq
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from sim.check.verdict import Violation
from sim.engine import entry, loop
from sim.kernel import chance
from sim.ledger import rows as ledger
from sim.scenario import store
from sim.scenario.alarm import Limits
from sim.scenario.federation import Federation, Gateway, anchor_class, transfer_class
from sim.scenario.run import Result, Session, finish, open_session, own_collection

Progress = Callable[[float], None]
_LOOKS = 100  # at replicas, per run
_TRANSFERS = 61  # of the draws


@dataclasses.dataclass
class AssetTransfer:
    """One transfer. Times of decisions, ns; -1: not yet."""

    entry: int
    number: int
    asked_ns: int
    locked_ns: int = -1
    released_ns: int = -1
    settled_ns: int = -1
    refunded_ns: int = -1
    refund_asked: bool = False

    @property
    def state(self) -> str:
        """What became of it."""
        if self.released_ns >= 0 and self.refund_asked:
            return "both"
        if self.settled_ns >= 0:
            return "settled"
        if self.refunded_ns >= 0:
            return "refunded"
        return "asked" if self.locked_ns < 0 else "released" if self.released_ns >= 0 else "locked"


@dataclasses.dataclass
class AnchorRecord:
    """One root: submitted at a time, ns, for all blocks decided before `covers_ns`; decided at a time, or -1."""

    entry: int
    submitted_ns: int
    covers_ns: int
    decided_ns: int = -1


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a federation's run came to. `violations` are of the federation itself; each chain has its own."""

    federation: Federation
    results: dict[str, Result]
    transfers: list[AssetTransfer]
    anchors: list[AnchorRecord]
    violations: list[Violation]
    wall_s: float
    digest: str

    @property
    def exit_code(self) -> int:
        """The gravest of all chains', or 3 if the federation itself broke something."""
        order = (1, 3, 4, 5, 0)
        codes = {result.exit_code for result in self.results.values()} | ({3} if self.violations else set())
        return next(code for code in order if code in codes)


class _Chain:
    """One chain under way: its session, what is on its way to it, and what it has told."""

    def __init__(self, name: str, session: Session) -> None:
        self.name, self.session = name, session
        self.run = session.world.run
        self.classes = [kind.name for kind in session.world.classes]
        self.ours = {one.name for one in session.scenario.workload if one.kind == "external"}
        self.inbox: list[tuple[int, int, str, int, int]] = []  # time, order, class, key, since
        self.order = 0
        self.read = 0  # rows of EXECUTED
        self.gateway_of = {name: self._gateway(i) for i, name in enumerate(self.classes)}

    def _gateway(self, class_: int) -> int:
        """The endpoint at which a class is submitted: that of its place."""
        load = self.session.scenario.workload
        site = next((one.site for one in load if getattr(one, "name", None) == self.classes[class_]
                     and one.kind == "external"), None)  # fmt: skip
        place = site or self.session.scenario.network.places[0]
        return next((g.endpoint for g in self.session.world.gateways if g.place == place), -1)

    def post(self, time_ns: int, class_: str, key: int, since_ns: int | None = None) -> None:
        """A transaction of a class is submitted at a time; `key`: its number, by which keys are drawn.

        `since_ns`: what it waited for in a gateway counts from then, for its latency and for how long it is valid.
        """
        heapq.heappush(self.inbox, (time_ns, self.order, class_, key, time_ns if since_ns is None else since_ns))
        self.order += 1

    def advance(self, until_ns: int) -> None:
        """Run up to and including a time, with what comes in until then."""
        while self.inbox and self.inbox[0][0] <= until_ns:
            time_ns, _, class_, key, since_ns = heapq.heappop(self.inbox)
            self.run.call_at(time_ns, functools.partial(self._submit, self.classes.index(class_), key, since_ns))
        begun = time.perf_counter()
        self.session.world.clock.drive(self.run.advance, loop.UNTIL, until_ns)
        self.session.drive_s += time.perf_counter() - begun

    def _submit(self, class_: int, key: int, since_ns: int) -> None:
        state = self.run.engine.run_state
        gateway, classes = self.gateway_of[self.classes[class_]], int(self.run.run_state[ledger.CLASSES])
        row = (gateway - int(self.run.run_state[ledger.GATEWAY_FIRST])) * classes + class_
        state[ledger.WAITED].reshape(-1, ledger.WAITED_WIDTH)[row, ledger.ORDINAL] = key
        self.run.engine.make_capacity()
        live = int(self.run.run_state[ledger.LIVE_TXS])
        self.run.ask(entry.submit_now, gateway, class_, 1)
        if int(self.run.run_state[ledger.LIVE_TXS]) > live and since_ns != self.run.now_ns:
            newest = int(state[ledger.TX_FREE][int(self.run.run_state[ledger.TX_FREE_LEN])])
            state[ledger.TX].reshape(-1, ledger.TX_WIDTH)[newest, ledger.TX_SUBMIT] = since_ns

    def told(self) -> Iterator[tuple[int, str, int, bool]]:
        """What was decided since the last look: time, class, number, and whether it had an effect."""
        count = int(self.run.run_state[ledger.EXECUTED_LEN])
        if count == self.read:
            return
        rows = self.run.engine.run_state[ledger.EXECUTED].reshape(-1, ledger.EXECUTED_WIDTH)[self.read : count]
        self.read = count
        for row in rows.tolist():
            if self.classes[row[ledger.DONE_CLASS]] not in self.ours:
                continue  # the chain's own records
            number = row[ledger.DONE_KEYS] & ((1 << 40) - 1)
            yield (
                row[ledger.DONE_NS],
                self.classes[row[ledger.DONE_CLASS]],
                number,
                row[ledger.DONE_RESULT] == ledger.VALID,
            )


class _Bridge:
    """What gateways do: they carry proofs, submit anchors, and see to transfers."""

    def __init__(self, federation: Federation, chains: dict[str, _Chain]) -> None:
        self.federation, self.chains = federation, chains
        self.file = federation.file
        self.transfers: list[list[AssetTransfer]] = [[] for _ in self.file.transfers]
        self.anchors: list[list[AnchorRecord]] = [[] for _ in self.file.anchors]
        self.waiting: list[tuple[int, int, int]] = []  # looks at timeouts: time, entry, number
        for i, anchor in enumerate(self.file.anchors):
            self._plan_anchors(i, anchor.every_ns, self.file.gateways[anchor.through])
        for i, transfer in enumerate(self.file.transfers):
            self._plan_transfers(i, transfer.rate_tps)

    def _plan_anchors(self, i: int, every_ns: int, gateway: Gateway) -> None:
        anchor = self.file.anchors[i]
        for at_ns in range(every_ns, self.file.duration_ns, every_ns):
            leaves_ns = _up_from(gateway, at_ns)
            if leaves_ns < self.file.duration_ns:
                number = len(self.anchors[i])
                self.anchors[i].append(AnchorRecord(i, leaves_ns, leaves_ns - gateway.latency_ns))
                self.chains[anchor.to].post(leaves_ns, anchor_class(i), number)

    def _plan_transfers(self, i: int, rate_tps: float) -> None:
        rng = np.random.default_rng(chance.draw(self.file.seed, _TRANSFERS, i))
        at_s, end_s = float(rng.exponential(1 / rate_tps)), self.file.duration_ns / 1e9
        chain = self.chains[self.file.transfers[i].chain]
        while at_s < end_s:
            number = len(self.transfers[i])
            self.transfers[i].append(AssetTransfer(i, number, round(at_s * 1e9)))
            chain.post(round(at_s * 1e9), transfer_class("lock", i), number)
            at_s += float(rng.exponential(1 / rate_tps))

    def hear(self, name: str) -> None:
        """A chain tells what it has decided."""
        for at_ns, class_, number, valid in self.chains[name].told():
            step, _, entry_ = class_.rpartition("-")
            if step == "anchor" and valid:
                self.anchors[int(entry_)][number].decided_ns = at_ns
            elif step in ("lock", "release", "settle", "refund"):
                self._moved(step, self.transfers[int(entry_)][number], at_ns, valid=valid)

    def _moved(self, step: str, one: AssetTransfer, at_ns: int, *, valid: bool) -> None:
        transfer = self.file.transfers[one.entry]
        gateway = self.file.gateways[transfer.through]
        arrives_ns = _up_from(gateway, at_ns) + gateway.latency_ns
        if not valid:
            return  # a release that came too late: the timeout sees to it
        if step == "lock":
            one.locked_ns = at_ns
            since_ns = at_ns + gateway.latency_ns
            self.chains[transfer.to].post(arrives_ns, transfer_class("release", one.entry), one.number, since_ns)
            look_ns = at_ns + transfer.timeout_ns + (0 if transfer.blind else 2 * gateway.latency_ns)
            heapq.heappush(self.waiting, (look_ns, one.entry, one.number))
        elif step == "release":
            one.released_ns = at_ns
            if not one.refund_asked:
                self.chains[transfer.chain].post(arrives_ns, transfer_class("settle", one.entry), one.number)
        elif step == "settle":
            one.settled_ns = at_ns
        else:
            one.refunded_ns = at_ns

    def look(self, until_ns: int) -> None:
        """Timeouts that are over by then: what was not released is refunded.

        A gateway that is down looks when it is up again, with all in hand that was decided until its latency ago.
        """
        while self.waiting and self.waiting[0][0] <= until_ns:
            at_ns, entry_, number = heapq.heappop(self.waiting)
            transfer, one = self.file.transfers[entry_], self.transfers[entry_][number]
            gateway = self.file.gateways[transfer.through]
            up_ns = _up_from(gateway, at_ns)
            if up_ns > at_ns:
                heapq.heappush(self.waiting, (up_ns + gateway.latency_ns, entry_, number))
                continue
            known = one.released_ns >= 0 and (not transfer.blind or one.released_ns + gateway.latency_ns <= at_ns)
            if not known and not one.refund_asked:
                one.refund_asked = True
                self.chains[transfer.chain].post(max(at_ns, until_ns + 1), transfer_class("refund", entry_), number)

    def violations(self) -> list[Violation]:
        """Transfers that were released on one chain and refunded on the other."""
        found = []
        for one in (one for some in self.transfers for one in some):
            if one.released_ns >= 0 and one.refund_asked:
                transfer = self.file.transfers[one.entry]
                text = (
                    f"transfer {one.number} from {transfer.chain} to {transfer.to} was locked at "
                    f"{one.locked_ns / 1e9:.3f} s, released at {one.released_ns / 1e9:.3f} s, and refunded"
                )
                found.append(Violation("atomicity", "safety", one.released_ns, -1, text))
        return found


def _up_from(gateway: Gateway, time_ns: int) -> int:
    """When a gateway passes on what it has at a time."""
    for outage in sorted(gateway.down, key=lambda one: one.at_ns):
        if outage.at_ns <= time_ns < outage.at_ns + outage.for_ns:
            time_ns = outage.at_ns + outage.for_ns
    return time_ns


def run_federation(
    federation: Federation, *, out: Path | None = None, progress: Progress | None = None, backwards: bool = False
) -> Outcome:
    """Run all chains to the end. `backwards`: chains of a window in the opposite order, which changes nothing."""
    started = time.perf_counter()
    variant = f"federation {federation.name}: {federation.file.model_dump_json()}"
    names = list(federation.scenarios)
    sessions: dict[str, Session] = {}
    try:
        with own_collection():
            for name, scenario in federation.scenarios.items():
                key = store.run_key(scenario, variant)
                folder = None if out is None else store.RunFolder(out, federation.name, key)
                sessions[name] = open_session(scenario, folder, key, Limits(None, None))
            chains = {name: _Chain(name, session) for name, session in sessions.items()}
            bridge = _Bridge(federation, chains)
            _drive(federation, chains, bridge, names[::-1] if backwards else names, progress)
            results = {name: finish(sessions[name]) for name in names}
    except BaseException:
        for session in sessions.values():
            if session.folder is not None:
                session.folder.discard()
        raise
    transfers = [one for some in bridge.transfers for one in some]
    anchors = [one for some in bridge.anchors for one in some]
    digest = " ".join(result.digest for result in results.values())
    return Outcome(federation, results, transfers, anchors, bridge.violations(), time.perf_counter() - started, digest)


def _drive(
    federation: Federation, chains: dict[str, _Chain], bridge: _Bridge, names: list[str], progress: Progress | None
) -> None:
    end_ns, step_ns = federation.file.duration_ns, federation.lookahead_ns
    looked_ns, at_ns = 0, 0
    while at_ns < end_ns:
        at_ns = min(at_ns + step_ns, end_ns)
        until_ns = at_ns - 1 if at_ns < end_ns else end_ns
        for name in names:
            chains[name].advance(until_ns)
        for name in sorted(names):
            bridge.hear(name)
        bridge.look(until_ns)
        if at_ns - looked_ns >= end_ns // _LOOKS or at_ns == end_ns:
            looked_ns = at_ns
            for name in names:
                chains[name].session.monitor.look()
            if progress is not None:
                progress(at_ns / end_ns)
