"""The observers of one run: checks and measures that read its trace, look at its replicas, and give the verdict."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import numpy as np

from sim.check import clients, conservation
from sim.check.certificates import rival_certificates
from sim.check.evidence import Certificate, charge, culprits, deciding_certificate
from sim.check.lasso import Lasso
from sim.check.liveness import Decisions, behind, liveness
from sim.check.safety import Conflict, Safety
from sim.check.stuck import Moves, failure, waits
from sim.check.supervision import Residency, unfrozen
from sim.check.verdict import Verdict, Violation
from sim.host import Contradiction
from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.ledger import rows as ledger
from sim.measure import metrics as metrics_
from sim.measure.blocks import Blocks
from sim.measure.observers import Lags
from sim.measure.orders import Orders
from sim.measure.reads import Reads
from sim.protocol import Quorum, Replica
from sim.scenario.build import World
from sim.trace.rows import Rows
from sim.units import format_ns

_BINS = 300  # of the timeline
_OWN_OPINION = (ledger.EVENT_DECIDED, ledger.EVENT_VIEW, ledger.EVENT_HEAD, ledger.EVENT_REVERTED, ledger.EVENT_READ)
_LATE_NS = 1_000_000_000  # so much execution at the end of a run is no backlog
_LOOKED_AT = 16  # replicas whose invariants are checked at one look, in turn


class RunMonitor:
    """Feed it the trace (it does so itself), let it `look` now and then, and ask for the `verdict`."""

    def __init__(self, world: World) -> None:
        self.world = world
        scenario = world.scenario
        n = scenario.network.n
        engine = world.run.engine
        self.corrupted = world.corrupted
        self.correct = [node for node in range(n) if node not in self.corrupted]
        self.safety = Safety(engine.seats, self.corrupted)
        self.blocks = Blocks(
            scenario.warm_up_ns,
            max(scenario.duration_ns // _BINS, 1),
            n,
            measure_end_ns=scenario.measure_end_ns,
            restarts=world.run.protocol.rounds_restart,
        )
        self.lags = Lags(n, engine.seats, scenario.warm_up_ns)
        self.decisions = Decisions(n, [fault.played_short for fault in world.scenario.faults if fault.played_short])
        self.decisions.watch(0)
        self.enough = world.run.voters_needed
        self.bound_ns = scenario.liveness_bound_ns + world.run.time_to_final_ns
        self.needs = self._needs(self.correct)
        self.quiet_from_ns: int | None = 0 if self._enough(self.correct) else None
        self.linked_from_ns = dict.fromkeys(self._linked(self.correct), 0)  # by voter that runs
        self.lasso = Lasso(rounds=max((n - 1) // 3 + 2, 3))  # f leaders may fail in a row, two more must not
        self.moves = Moves(n)
        self._entered = 0  # views, by correct replicas, since the last sample
        world.run.on_view = self._view_entered
        self.broken: dict[str, Violation] = {}  # invariant -> the first time it did not hold
        self.rivals: list[Violation] = []
        self.spent_s = 0.0  # on the wall clock, with checks
        self.halted = False  # within a handler: what holds after one need not hold now
        self._turn = 0
        world.faults.changed.append(self._changed)
        world.filters.changed.append(self._changed)
        self.orders = Orders(world.run)
        self.residency = self._residency()
        self.reads = Reads(scenario.warm_up_ns)
        self.history = clients.Reads(self.corrupted)
        self.acknowledged = clients.Acknowledged(n, self.corrupted)
        heard: list[Callable[[np.ndarray], None]] = [
            self.blocks, self.reads, self.lags, self.orders, self._timed(self.decisions), self._timed(self.moves),
        ]  # fmt: skip
        world.run.trace_sinks.append(self._timed(self.safety))
        if self.residency.abroad.size:
            world.run.trace_sinks.append(self._timed(self.residency))
        if world.run.protocol.answers_reads:
            world.run.trace_sinks.append(self._timed(self.history))
        if engine.settings.gateways:
            world.run.trace_sinks.append(self._timed(self.acknowledged))
        world.run.trace_sinks += map(self._of_correct, heard)

    def _of_correct(self, fold: Callable[[np.ndarray], None]) -> Callable[[np.ndarray], None]:
        """A fold that is not told what corrupted replicas decide, read, or think the view and the head to be."""
        if not self.corrupted:
            return fold
        corrupted = np.array(sorted(self.corrupted))

        def told(chunk: np.ndarray) -> None:
            rows = Rows(chunk)
            theirs = np.isin(rows.event, _OWN_OPINION) & np.isin(rows.node, corrupted)
            fold(chunk[~theirs])

        return told

    def _timed(self, fold: Callable[[np.ndarray], None]) -> Callable[[np.ndarray], None]:
        """A fold whose time is counted."""

        def timed(rows: np.ndarray) -> None:
            begun = time.perf_counter()
            fold(rows)
            self.spent_s += time.perf_counter() - begun

        return timed

    # --- while it runs ---------------------------------------------------------------------------------

    def look(self) -> None:
        """Check what a trace does not tell: invariants, certificates, and whether a run goes in circles."""
        begun = time.perf_counter()
        self._look()
        self.spent_s += time.perf_counter() - begun

    def _look(self) -> None:
        run = self.world.run
        for _ in range(min(_LOOKED_AT, len(self.correct))):
            self._turn = (self._turn + 1) % len(self.correct)
            self._invariants(self.correct[self._turn])
        if not self.rivals:
            self.rivals = list(itertools.islice(rival_certificates(run, self.correct), 3))
        self._sample()
        if run.members_change and self._needs(self._up()) != self.needs:
            self._changed(run.now_ns)

    def _sample(self) -> None:
        """While nothing is decided, note the state of all correct replicas, once per view."""
        run = self.world.run
        decided = int(run.run_state[ledger.DECISIONS])
        if decided != self.lasso.decided:
            self.lasso.sample(decided, -1, None)
            return
        for node in self.correct:
            run.hosts[node].fast_path.catch_up()
        up = [replica for node in self.correct if (replica := run.hosts[node].replica) is not None]
        view = min((replica.view_number for replica in up), default=-1)
        if view > self.lasso.view:
            self._entered = 0
            states = tuple(replica.abstract_state() for replica in up)
            self.lasso.sample(decided, view, None if None in states else states)

    def _invariants(self, node: int) -> None:
        replica: Replica | None = self.world.run.hosts[node].replica
        if replica is None:
            return
        for name, method in replica.invariants.items():
            if name not in self.broken and not getattr(replica, method)():
                text = f"replica {node}: {name}: does not hold in view {replica.view_number}"
                self.broken[name] = Violation("invariants", "safety", self.world.run.now_ns, node, text)

    def _changed(self, time_ns: int) -> None:
        """Faults changed: from now on something must be decided, if the voters that are left can."""
        self.quiet_from_ns = time_ns if self._can_decide() else None
        self.decisions.watch(time_ns)
        linked = self._linked(self._up())
        self.linked_from_ns = {node: self.linked_from_ns.get(node, time_ns) for node in linked}

    def _view_entered(self, node: int) -> None:
        """A replica has entered a view: when as many have as are correct, perhaps all are in a later one."""
        if node in self.corrupted:
            return
        self._entered += 1
        if self._entered >= len(self.linked_from_ns):
            begun = time.perf_counter()
            self._sample()
            self.spent_s += time.perf_counter() - begun

    def _up(self) -> list[int]:
        """Correct voters that run."""
        return [node for node in self.correct if self.world.run.works(node)]

    def _needs(self, up: list[int]) -> set[Quorum]:
        """What must be met to decide. Where members change: whatever a member that runs knows of, old or new."""
        hosts = self.world.run.hosts
        known = {node: replica.needs() for node in up if (replica := hosts[node].replica) is not None}
        if not known:
            return set()
        ahead = known[max(known, key=lambda node: hosts[node].height)]
        if not self.world.run.members_change:
            return set(ahead)
        return {*ahead}.union(*(needs for node, needs in known.items() if any(q.weights[node] for q in ahead)))

    def _enough(self, up: list[int]) -> bool:
        """Whether these voters can decide, if each is linked with each."""
        return bool(self.needs) and all(quorum.met_by(up) for quorum in self.needs)

    def _can_decide(self) -> bool:
        """Whether some set of running, correct, mutually linked voters is large enough."""
        up = self._up()
        self.needs = self._needs(up)
        if not self._enough(up):
            return False
        cut = self._cut()
        if not cut:
            return True
        return any(
            self._enough(near) and all((a, b) not in cut for a in near for b in near if a != b)
            for near in self._near(up, cut).values()
        )

    def _linked(self, up: list[int]) -> list[int]:
        """Voters of these that are linked with enough of them to decide."""
        return [i for i, near in self._near(up, self._cut()).items() if self._enough(near)] if self._enough(up) else []

    def _cut(self) -> set[tuple[int, int]]:
        """Links that are cut now."""
        held = self.world.faults.links.held.items()
        cut = {pair for pair, effects in held if any(effect.down for effect in effects.values())}
        return cut | self.world.filters.cut_links(self.world.run.now_ns)

    def _near(self, up: list[int], cut: set[tuple[int, int]]) -> dict[int, list[int]]:
        """For each of these voters that has a vote, those linked with it both ways, itself among them."""
        up = [i for i in up if any(not quorum.weights or quorum.weights[i] for quorum in self.needs)]
        if not cut:
            return dict.fromkeys(up, up)
        return {i: [j for j in up if i == j or ((i, j) not in cut and (j, i) not in cut)] for i in up}

    # --- at the end ------------------------------------------------------------------------------------

    def verdict(self, end_ns: int) -> Verdict:
        """Judge the run as a whole."""
        run, verdict = self.world.run, Verdict()
        engine = run.engine
        if not self.halted:
            self.look()
        verdict.record("agreement", [self._disagreement(i, c) for i, c in enumerate(self.safety.conflicts)])
        contradictions = [found for found in run.contradictions.values() if found.node not in self.corrupted]
        verdict.record(
            "finality", [*self.safety.finality, *(self._reverted(contradiction) for contradiction in contradictions)]
        )
        verdict.record("certificates", self.rivals)
        verdict.record("validity", self.safety.validity)
        verdict.record("order", self.safety.order)
        if self.acknowledged.count:
            verdict.record("acknowledged", self.acknowledged.violations)
        if self.reads.count:
            verdict.record("reads", self.history.violations)
        self._supervision(verdict)
        verdict.record("invariants", list(self.broken.values()), applicable=bool(run.protocol.invariants))
        verdict.record(
            "conservation_transactions",
            conservation.transactions(engine),
            applicable=engine.settings.gateways > 0,
        )
        verdict.record("conservation_messages", conservation.messages(engine))
        verdict.record("conservation_bytes", conservation.bytes_sent(engine))
        self._judge_liveness(verdict, end_ns)
        self._sometimes(verdict)
        return verdict

    def _residency(self) -> Residency:
        """The check of what leaves the country."""
        world, scenario = self.world, self.world.scenario
        n, engine = scenario.network.n, world.run.engine
        abroad = [seat for seat in range(engine.seats) if engine.settings.side and engine.settings.side[seat] == 1]
        headers = {seat for seat, observer in enumerate(scenario.observer_of_seat, n) if observer.headers_only}
        places = [*scenario.network.place_of_node, *scenario.place_of_observer]

        def name(end: int) -> str:
            if end < n:
                return f"voter {end} ({places[end]})"
            if end < len(places):
                return f"{scenario.observer_of_seat[end - n].name} ({places[end]})"
            return next((f"clients ({g.place})" for g in world.gateways if g.endpoint == end), f"endpoint {end}")

        def sends(seat: int) -> str:
            follower = world.followers.followers.get(seat)
            return "its proposer" if follower is None else name(follower.source)

        names = [kind.name for kind in world.classes]
        return Residency(engine, names, [seat for seat in abroad if seat not in headers], name, sends)

    def _supervision(self, verdict: Verdict) -> None:
        """Frozen keys stay as they are, and labelled records where they are."""
        world, engine = self.world, self.world.run.engine
        classes = engine.run_state[ledger.CLASS].reshape(-1, ledger.CLASS_WIDTH)
        supervised = bool(classes[:, ledger.CLASS_SUPERVISES].any())
        verdict.record("freeze", unfrozen(engine, [kind.name for kind in world.classes]), applicable=supervised)
        borders = bool(engine.state[kernel.BORDERS]) and bool(classes[:, ledger.CLASS_STAYS].any())
        verdict.record("residency", self.residency.violations() if borders else [], applicable=borders)

    def _disagreement(self, number: int, conflict: Conflict) -> Violation:
        """A conflict with its proof: both certificates of the first one; the others tell nothing new."""
        text = conflict.words()
        if number:
            return Violation("agreement", "safety", conflict.time_ns, conflict.node, text)
        blocks = [self.world.run.block_store.numbered(block) for block in (conflict.first_block, conflict.block)]
        found = [
            None if block is None else deciding_certificate(self.world.run, block, self.correct) for block in blocks
        ]
        return self._proven("agreement", conflict.time_ns, conflict.node, text, found)

    def _reverted(self, against: Contradiction) -> Violation:
        text = (
            f"replica {against.node} was to decide block {against.block.number} (height {against.block.height}, view "
            f"{against.block.view}) against its own block {against.decided.number} (height {against.decided.height})"
        )
        found = [
            deciding_certificate(self.world.run, block, self.correct) for block in (against.decided, against.block)
        ]
        return self._proven("finality", against.time_ns, against.node, text, found)

    def _proven(self, check: str, time_ns: int, node: int, text: str, found: list[Certificate | None]) -> Violation:
        first, second = found
        proof = charge(first, second, self.world.scenario.network.n)
        data = tuple(certificate.as_data() for certificate in found if certificate is not None)
        return Violation(check, "safety", time_ns, node, f"{text}; {proof}", culprits(first, second), data)

    def _judge_liveness(self, verdict: Verdict, end_ns: int) -> None:
        run = self.world.run
        bound_ns = self.bound_ns
        waiting = run.backlog or (int(run.run_state[ledger.LIVE_TXS]) > 0 and self._somebody_waits())
        found, applies = liveness(
            self.decisions, quiet_from_ns=self.quiet_from_ns, end_ns=end_ns, bound_ns=bound_ns, waiting=waiting
        )
        if found and not run.backlog and self._longest_wait_ns() <= bound_ns:
            found = []  # nothing was decided for long because nobody had asked for anything
        if fruitless := not applies and waiting:
            found = self._fruitless(end_ns)
            applies = bool(found)
        kind = self._kind(found[0], end_ns, fruitless=fruitless) if found else None
        verdict.record("liveness", [] if kind is None else [kind], applicable=applies)
        for name in ("halt", "livelock"):
            failed = kind is not None and kind.check == name
            judged = applies and (kind is None or kind.check == "slow" or failed)
            verdict.outcomes[name] = "fail" if failed else "pass" if judged else "not applicable"
        self._judge_each(verdict, end_ns, applicable=applies and kind is None)
        verdict.warnings += self._unjudged(end_ns, waiting, applies)

    def _somebody_waits(self) -> bool:
        """Where transactions expire, only what a correct voter still has, or voted for, is waited for by anybody."""
        if self.world.scenario.pool.expires_after_ns is None:
            return True
        peers = self.world.run.engine.peer()[self.correct]
        holds = peers[:, ledger.POOL_HEAD] < peers[:, ledger.POOL_TAIL]
        return bool((holds | (peers[:, ledger.OPEN_HEIGHT] > peers[:, ledger.TIP_HEIGHT])).any())

    def _fruitless(self, end_ns: int) -> list[Violation]:
        """A run too short for the bound fails all the same if nothing was decided in that many views."""
        if self.quiet_from_ns is None:
            return []
        since_ns = max(self.quiet_from_ns, self.decisions.last_ns, 0)
        fruitless_ns = self.moves.fruitless_ns(since_ns)
        if fruitless_ns is None or not (self.world.run.backlog or self._longest_wait_ns() >= end_ns - since_ns):
            return []
        text = (
            f"nothing was decided after {since_ns / 1e9:.3f} s although transactions waited and no fault changed, "
            f"for {self.moves.enough_views} views"
        )
        return [Violation("liveness", "liveness", fruitless_ns, -1, text)]

    def _kind(self, found: Violation, end_ns: int, *, fruitless: bool) -> Violation:
        """The same, told what kind of failure it is; and of a run that decides nothing any more, what it waits for."""
        last_ns = self.decisions.last_ns
        since_ns = max(last_ns, 0)
        loop = self.lasso.loop()
        kind = failure(loop, self.moves, since_ns, end_ns, self.decisions.last_pauses_ns)
        if kind == "livelock" and loop is not None:
            text = (
                f"livelock, not slowness: one state of all correct replicas came back in {loop.times} views between "
                f"{loop.first_view} and {loop.last_view}"
            )
        elif kind == "halt":
            last_move_ns = max((time_ns for time_ns in self.moves.times_ns if time_ns >= since_ns), default=since_ns)
            text = f"halt: no correct replica has entered a view or proposed anything since {last_move_ns / 1e9:.3f} s"
        else:
            text = "slow: it moves, and its states do not repeat"
        stuck = fruitless or end_ns - since_ns > self.bound_ns
        lines = waits(self.world.run, self.correct, self.world.scenario.network.owner) if stuck else ()
        return Violation(kind, "liveness", found.time_ns, -1, f"{found.evidence}; {text}", waits=lines)

    def _judge_each(self, verdict: Verdict, end_ns: int, *, applicable: bool) -> None:
        """Where the voters together decide, each that runs and is linked keeps up with them."""
        hosts = self.world.run.hosts
        heights = {node: hosts[node].height for node in self.correct if node in self.linked_from_ns}
        found = behind(self.decisions, heights, self.linked_from_ns, end_ns, self.bound_ns)
        verdict.record("behind", found, applicable=applicable)

    def _sometimes(self, verdict: Verdict) -> None:
        """What the scenario meant to happen, and whether it did."""
        for number, fault in enumerate(self.world.scenario.faults):
            if fault.stands_for_ns is not None and fault.end_ns is not None:
                verdict.warnings.append(f"fault {number} ({fault.kind}): {fault.scale()}")
        self._executed(verdict)
        for report in self.world.faults.finish():
            verdict.sometimes[f"fault {report.number} ({report.kind}) took effect"] = report.fired
            if not report.fired:
                verdict.warnings.append(f"fault {report.number} ({report.kind}) never took effect")
        for rule in self.world.filters.reports():
            name = "network.gst" if rule.number < 0 else f"rule {rule.number} ({rule.kind})"
            verdict.sometimes[f"{name} took effect"] = rule.hits > 0
            if not rule.hits:
                verdict.warnings.append(f"{name} never took effect")
        self._requests(verdict)
        for part in self.world.adversary.corrupted:
            verdict.sometimes[f"corrupted replica {part.node} ({part.name}) acted"] = part.behaviour.acts > 0
            if part.behaviour.acts == 0:
                verdict.warnings.append(f"corrupted replica {part.node} ({part.name}) never acted")

    def _executed(self, verdict: Verdict) -> None:
        """Whether nodes keep up with executing what is decided, where they do it beside consensus."""
        run = self.world.run
        nodes = run.engine.run_state[kernel.NODE].reshape(-1, post.NODE_WIDTH)
        late_ns = int(nodes[list(self.correct), post.EXECUTE_FREE].max(initial=0)) - run.now_ns
        if late_ns > _LATE_NS:
            verdict.warnings.append(
                f"execution does not keep up: at the end a voter had {late_ns / 1e9:.1f} s of blocks to execute, "
                f"and their clients wait; committed_tps is what is ordered"
            )

    def _requests(self, verdict: Verdict) -> None:
        """Requests of the operator, by their place in the scenario, and whether the protocol has carried them out."""
        hosts, membership = self.world.run.hosts, self.world.scenario.membership
        replicas = [replica for node in self.correct if (replica := hosts[node].replica) is not None]
        done = {number for replica in replicas for number in replica.carried_out()}
        in_time = sorted(range(len(membership)), key=lambda i: membership[i].at_ns)  # requests are numbered so from 1
        for number, place in sorted(enumerate(in_time, start=1), key=lambda pair: pair[1]):
            name = f"membership {place} (at {format_ns(membership[place].at_ns)})"
            verdict.sometimes[f"{name} took effect"] = number in done
            if number not in done:
                verdict.warnings.append(f"{name} never took effect")

    def _longest_wait_ns(self) -> int:
        """The longest that any transaction waited to be final, those that still wait included, ns."""
        run = self.world.run
        final_us, _ = metrics_.histogram(run, ledger.HIST_FINAL)
        txs = run.engine.run_state[ledger.TX].reshape(-1, ledger.TX_WIDTH)
        live = np.ones(len(txs), dtype=bool)
        live[run.engine.run_state[ledger.TX_FREE][: int(run.run_state[ledger.TX_FREE_LEN])]] = False
        since = txs[live & (txs[:, ledger.TX_DECIDED] == 0), ledger.TX_SUBMIT]
        waiting_ns = int(run.run_state[kernel.NOW]) - int(since.min()) if len(since) else 0
        return max(waiting_ns, int(final_us[-1]) * 1000 if len(final_us) else 0)

    def _unjudged(self, end_ns: int, waiting: bool, applies: bool) -> list[str]:
        """What a reader must know where liveness was not judged."""
        if applies or not (waiting or self.quiet_from_ns is None):
            return []
        bound_s = self.world.scenario.liveness_bound_ns / 1e9
        silent = "" if self.decisions.count else "nothing was decided; "
        tolerated = self.world.scenario.network.n - self.enough
        count = len({self.world.run.name_of_seat[seat] for seat in self.corrupted})
        if self.world.run.members_change:
            tolerated = count  # as many as the group of the moment bears
        if tolerated < 0:
            n = self.world.scenario.network.n
            return [f"{silent}the protocol asks for {self.enough} voters, there are {n}: liveness was not judged"]
        if count and not self._enough(self.correct):
            return [f"{silent}{count} corrupted, the protocol bears {tolerated}: liveness was not judged"]
        if self.quiet_from_ns is None:
            return [f"{silent}too few linked voters ran at the end to decide anything: liveness was not judged"]
        if silent or end_ns - self.decisions.last_ns > self.bound_ns:
            final_s = self.world.run.time_to_final_ns / 1e9
            more = f", a block needs up to {final_s:g} s more to be final" if final_s else ""
            return [
                f"{silent}liveness was not judged: the run ends {(end_ns - self.quiet_from_ns) / 1e9:g} s after faults "
                f"last changed, liveness_bound is {bound_s:g} s{more}; run longer or lower it"
            ]
        return []

    def recovery(self, end_ns: int) -> dict[str, float | int | None]:
        """Time from the healing of the last fault to the next decision, s, and the longest pause."""
        ends = [report.ended_ns for report in self.world.faults.reports if report.ended_ns is not None]
        first = self.decisions.marks.get(max(ends), -1) if ends else -1
        tail = (max(self.decisions.last_ns, 0), end_ns)  # the whole run if nothing was decided
        (tail_ns,) = self.decisions.lengths_ns(*(np.array([time_ns]) for time_ns in tail))
        longest_ns = 0 if self.decisions.longest is None else self.decisions.longest[2]
        return {
            "recovery_s": (first - max(ends)) / 1e9 if ends and first >= 0 else None,
            "longest_pause_s": max(longest_ns, int(tail_ns)) / 1e9,
        }
