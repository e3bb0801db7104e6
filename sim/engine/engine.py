"""The engine: one run's state, laid out from plain settings, and made longer when compiled code asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sim.engine import actions, cases, dissemination, gossip, growth, lease, timers, votes
from sim.engine.settings import NO_LIMIT, ClassRules, Settings
from sim.kernel import post, rules, sharing, tally
from sim.kernel import run_state as kernel
from sim.kernel.calendar import grow_calendar, lay_calendar
from sim.kernel.chance import exponential_table
from sim.kernel.heap import WIDTH
from sim.kernel.run_state import RunState
from sim.ledger import rows as ledger
from sim.ledger import transactions

LONG_AGO = -(1 << 62)
_CLOSED_ROWS = 8192
TRACE_ROWS = 1 << 15
_POOL_START = 1 << 10
_SWEPT_BYTES = 1 << 18


def first_shift(latency_ns: np.ndarray, voters: int) -> int:
    """A first guess of the calendar's bucket width, as a power of two.

    A sixteenth of a typical latency, or less if all-to-all votes would put more than a few thousand messages
    into a bucket.
    """
    typical = int(np.median(latency_ns[latency_ns > 0])) if (latency_ns > 0).any() else 1024
    width = min(typical // 16, typical * 2048 // voters**2)
    return max(width, 16).bit_length()


def _bit_sets(table: np.ndarray) -> np.ndarray:
    """Each row of a table of bool as words of 64 bits, lowest first."""
    words = (table.shape[1] + 63) // 64
    padded = np.zeros((len(table), 64 * words), dtype=bool)
    padded[:, : table.shape[1]] = table
    return np.packbits(padded, axis=1, bitorder="little").view("<u8").astype(np.uint64).view(np.int64)


class Engine:
    """Owns the state of one run."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.run_state = RunState()
        self.state = self.run_state.array
        self.voters = settings.voters
        self.endpoints = len(settings.site_of)
        self.identity = settings.identity or tuple(range(settings.voters))
        self.seats = len(self.identity)
        self.words = (self.seats + 63) // 64
        # Closed blocks, or decisions, between two sweeps: so many that their tallies stay in the processor's cache.
        self.sweep_every = min(max(_SWEPT_BYTES // (16 * self.seats * (self.words + 2)), 2), _CLOSED_ROWS // 32)
        if self.identity[: self.voters] != tuple(range(self.voters)) or max(self.identity) >= self.voters:
            raise ValueError("seats: the first are the voters in order, and others are their twins or observers (-1)")
        self.moved: Callable[[], None] = lambda: None  # told when columns were lengthened within an event
        self.run_state.on_full(self._lengthen)
        self._lay_scalars()
        self._lay_kernel()
        self._lay_tallies()
        self._lay_ledger()

    def _lay_scalars(self) -> None:
        s, state = self.settings, self.state
        state[kernel.NODES] = self.endpoints
        state[kernel.VOTERS] = s.voters
        state[kernel.SEATS] = self.seats
        state[kernel.SEED] = s.seed
        state[kernel.BITS_WORDS] = self.words
        state[kernel.SITES] = len(s.latency_ns)
        state[kernel.JITTER_MODE] = s.jitter_mode
        state[kernel.JITTER_LOW_NS] = s.jitter_low_ns
        state[kernel.JITTER_SPAN_NS] = s.jitter_span
        state[kernel.LOSS_Q32] = s.loss_q32
        state[kernel.RETRANSMIT_NS] = s.retransmit_ns
        order_matters = s.jitter_mode != post.NO_JITTER or s.loss_q32 > 0 or s.links_change
        state[kernel.ORDERED] = s.ordered and order_matters
        state[kernel.WORKERS] = s.workers
        state[kernel.LOG_ON] = s.log_messages
        state[kernel.FLUSH_NS] = s.flush_ns
        state[kernel.WINDOW] = s.window
        state[kernel.LOOK_NS] = s.look_ns
        state[ledger.DECIDE_WAITS] = s.decide_waits
        state[ledger.STOP_AFTER] = s.stop_after
        state[ledger.WARM_UP_NS] = s.warm_up_ns
        state[ledger.MEASURE_END_NS] = s.measure_end_ns
        state[ledger.PAYLOAD_SIZE] = s.block_txs
        state[ledger.BLOCK_BYTES_MAX] = s.block_bytes
        state[ledger.BACKLOG_BYTES] = s.backlog_bytes
        state[ledger.ACKS_NEEDED] = s.acks_needed
        state[ledger.BROADCAST_TXS] = s.broadcast_txs
        state[ledger.GATEWAY_FIRST] = self.seats
        state[ledger.GATEWAYS] = s.gateways
        state[ledger.INVALID_CLASS] = s.invalid_class
        state[ledger.TX_KIND] = s.tx_kind
        state[ledger.REPLY_KIND] = s.reply_kind
        state[ledger.RECEIPT_BYTES] = s.receipt_bytes
        state[ledger.RESULTS_NEEDED] = s.results_needed
        state[ledger.RESULT_KIND] = s.result_kind
        state[ledger.RESULT_BYTES] = s.result_bytes
        state[ledger.RESULT_SIGN_NS] = s.result_sign_ns
        state[ledger.RESULT_VERIFY_NS] = s.result_verify_ns
        state[ledger.RESULT_HANDLE_NS] = s.result_handle_ns
        state[ledger.EXECUTE_NS] = s.execute_ns
        state[ledger.EXECUTE_BLOCK_NS] = s.execute_block_ns
        state[ledger.EXECUTE_PLACE] = s.execute_place
        state[ledger.BATCH_TIMEOUT_NS] = s.batch_timeout_ns
        state[ledger.BATCH_FROM] = s.batch_from
        state[ledger.TICK_NS] = s.tick_ns
        state[ledger.BUILDS_EARLY] = s.builds_early
        state[ledger.REBUILD_NS] = s.rebuild_ns
        state[ledger.POOL_LIMIT] = s.pool_limit
        state[ledger.POOL_BYTES_LIMIT] = s.pool_bytes
        state[ledger.POOL_SENDER_LIMIT] = s.pool_per_sender
        state[ledger.POOL_EVICTS] = s.pool_evicts
        state[ledger.POOL_KEEPS_NS] = s.pool_keeps_ns
        state[ledger.POOL_LIMITED] = (
            s.pool_per_sender > 0 or min(s.pool_limit, s.pool_bytes, s.pool_keeps_ns) < NO_LIMIT
        )
        state[ledger.RETRIES_MAX] = s.retries
        state[ledger.KEEPS_MORE] = (
            s.retries > 0 or s.pool_per_sender > 0 or s.state is not None or s.endorsement is not None
        )
        state[ledger.KEEPS_MORE] |= any(entry.watched for entry in s.class_rules)
        state[ledger.EXECUTES] = s.state is not None or any(entry.watched for entry in s.class_rules)
        state[ledger.RETRY_NS] = s.retry_ns
        state[ledger.RETRY_MOST_NS] = s.retry_most_ns
        state[ledger.REPLY_SIGN_NS] = s.reply_sign_ns
        state[ledger.TX_VERIFY_NS] = s.tx_verify_ns
        state[actions.EVENTS_MAX] = s.events_max
        state[actions.STILL_MAX] = s.still_max

    def _lay_kernel(self) -> None:
        s, run_state = self.settings, self.run_state
        n = self.endpoints
        lay_calendar(run_state, first_shift(s.latency_ns, s.voters), 16 * n + 2 * s.block_txs)
        run_state.allocate(kernel.READY, WIDTH * (32 * n + 4096 + 4 * s.block_txs))
        node = run_state.allocate(kernel.NODE, n * post.NODE_WIDTH).reshape(n, post.NODE_WIDTH)
        node[:, post.UP] = 1
        node[:, post.GUARD] = -1
        self.set_speeds()
        node[:, post.TX_PS] = s.tx_ps_per_byte
        node[:, post.RX_PS] = s.rx_ps_per_byte
        run_state.allocate(kernel.WORKER_FREE, n * s.workers)
        if s.cores_of is not None:  # workers that a node does not have are never free
            run_state[kernel.WORKER_FREE].reshape(n, -1)[np.arange(s.workers) >= s.cores_of[:, None]] = NO_LIMIT
        caps = run_state.allocate(kernel.LINK_CAP, post.CAP_WIDTH * (1 + len(s.link_caps_ps)))
        caps.reshape(-1, post.CAP_WIDTH)[1:, post.CAP_PS] = s.link_caps_ps
        envelopes = 8 * n + 16 * s.gateways + 1024
        run_state.allocate(kernel.ENVELOPE, envelopes * post.ENVELOPE_WIDTH)
        run_state.adopt(kernel.ENVELOPE_FREE, np.arange(envelopes)[::-1])
        self.state[kernel.ENVELOPES_FREE] = envelopes
        run_state.adopt(kernel.SITE_OF, s.site_of)
        run_state.adopt(kernel.LATENCY, s.latency_ns)
        run_state.allocate(kernel.LAST_ARRIVAL, n * n if self.state[kernel.ORDERED] else 1)
        run_state.allocate(kernel.LINK_RULE, n * n if s.links_change else 1)
        run_state.adopt(kernel.FLUSH_AT, np.full(n * n if s.flush_ns else 1, -1))
        run_state.allocate(kernel.RULE, post.RULE_WIDTH * 256)
        run_state.adopt(kernel.QUANTILE, np.zeros(1) if s.jitter_table is None else s.jitter_table)
        run_state.allocate(kernel.KIND_COUNT, post.KINDS * post.KIND_WIDTH)
        self._lay_cards()
        self._lay_groups()
        run_state.adopt(kernel.IDENTITY, np.array([*self.identity, *[-1] * (n - self.seats)]))
        run_state.adopt(kernel.SIDE, np.array(s.side or (-1,)))
        self.state[kernel.BORDERS] = 0 in s.side and 1 in s.side
        run_state.adopt(kernel.KIND_WEIGHTS, np.full(post.KINDS, -1))
        run_state.allocate(kernel.VOTE_WEIGHT, 1)
        self._weights: dict[tuple[int, ...], int] = {}
        run_state.allocate(kernel.LOG, post.LOG_WIDTH * max(1 << 16, 64 * n) if s.log_messages else 1)
        for number in (
            kernel.MESSAGE_RULE,
            kernel.RULE_KINDS,
            kernel.RULE_SOURCES,
            kernel.RULE_TARGETS,
            kernel.RULE_ACTIVE,
        ):
            run_state.allocate(number, 1)
        run_state.allocate(actions.PROGRESS, actions.PROGRESS_WIDTH * n)
        leases = run_state.allocate(lease.LEASE, self.seats * lease.LEASE_WIDTH).reshape(-1, lease.LEASE_WIDTH)
        leases[:, lease.LAST] = -1
        leases[:, lease.LAST_NS] = LONG_AGO
        run_state.allocate(lease.POSTED, n * post.KINDS)
        run_state.allocate(timers.TURN, self.seats * timers.TURN_WIDTH)
        run_state.allocate(votes.KIND_COST, post.KINDS * votes.KIND_COST_WIDTH)
        run_state.allocate(cases.CASES, cases.CASES_MAX * cases.CASE_WIDTH)
        rows = 256
        run_state.allocate(actions.ACTIONS, rows * actions.ACTION_WIDTH)
        run_state.adopt(actions.ACTION_FREE, np.arange(1, rows)[::-1])  # number 0 means none
        self.state[actions.ACTIONS_FREE] = rows - 1
        self.state[actions.AGGREGATE_STRIDE] = actions.AGGREGATE_HEAD + 2 * self.seats
        run_state.allocate(actions.AGGREGATION, 0)  # made when the first tree is laid out
        run_state.allocate(actions.AGGREGATE_FREE, 0)
        run_state.allocate(dissemination.TREE_NODE, 0)
        run_state.allocate(dissemination.BUFFERED, self.seats * dissemination.BUFFERED_SLOTS)
        run_state.allocate(gossip.GOSSIP, 0)  # made when the first gossip message spreads
        run_state.allocate(gossip.HEARD, 0)
        run_state.allocate(gossip.PASSES, 2)  # its first pair is nobody's
        run_state.allocate(gossip.GOSSIPER, self.seats * gossip.GOSSIPER_WIDTH)

    def _lay_cards(self) -> None:
        """Rows of what shared cards send; a card without a limit shares nothing."""
        s, run_state, state = self.settings, self.run_state, self.state
        sent_ps, received_ps = s.tx_ps_per_byte, s.rx_ps_per_byte
        limited = s.sharing != sharing.FIFO and (sent_ps > 0).any()
        state[kernel.SHARING] = s.sharing if limited else sharing.FIFO
        state[kernel.CAPPED] = limited and received_ps.max() > sent_ps[sent_ps > 0].min()
        n, rows = (self.endpoints, 4 * self.endpoints + 64) if limited else (0, 0)
        run_state.allocate(kernel.CARDS, n * sharing.CARD_WIDTH)
        run_state.allocate(kernel.CONNECTION, n * n * sharing.LANES)
        run_state.allocate(kernel.QUEUED, rows * sharing.QUEUED_WIDTH)
        run_state.allocate(kernel.QUEUED_PLACE, rows * rules.PLACE_WIDTH)
        run_state.adopt(kernel.QUEUED_FREE, np.arange(rows)[::-1])
        state[kernel.QUEUED_FREE_LEN] = rows
        run_state.allocate(kernel.RX_GAPS, n * sharing.GAPS_WIDTH)
        run_state.allocate(kernel.KIND_SMALL, post.KINDS)

    def _lay_groups(self) -> None:
        """Group 0 is who gets broadcasts; one more for each voter with several seats."""
        listeners = {seat for seat, who in enumerate(self.identity) if who >= 0} | {*self.settings.listeners}
        groups = [sorted(listeners)]
        self.address = list(range(self.seats))  # of each voter, and of each observer: a seat, or -1 - group
        for voter in range(self.voters):
            seats = [seat for seat, who in enumerate(self.identity) if who == voter]
            if len(seats) > 1:
                groups.append(seats)
                self.address[voter] = -len(groups)
        self.twins = len(groups) > 1
        self.twin_seats = frozenset(seat for group in groups[1:] for seat in group)
        self.run_state.adopt(kernel.GROUP_START, np.cumsum([0, *(len(group) for group in groups)]))
        self.run_state.adopt(kernel.GROUP_MEMBER, np.array([seat for group in groups for seat in group]))
        self._groups: dict[tuple[int, ...], int] = {}  # asked for later: seats -> address

    def group(self, seats: tuple[int, ...]) -> int:
        """The address of several seats as receivers of one message, laid out when first asked for."""
        if seats not in self._groups:
            starts = self.run_state[kernel.GROUP_START]
            self._groups[seats] = -len(starts)
            self.run_state.adopt(
                kernel.GROUP_MEMBER, np.concatenate((self.run_state[kernel.GROUP_MEMBER][: starts[-1]], seats))
            )
            self.run_state.adopt(kernel.GROUP_START, np.append(starts, starts[-1] + len(seats)))
        return self._groups[seats]

    def lay_weights(self, kind: int, weights: Sequence[int]) -> None:
        """Votes of a type count by weight, one per voter. Raises ValueError unless they are whole and not too large."""
        if len(weights) != self.voters or min(weights) < 0 or sum(weights) > tally.WEIGHT_MAX:
            raise ValueError(
                f"weights: {len(weights)} of them, from {min(weights)}, adding up to {sum(weights)}; give each of the "
                f"{self.voters} voters a weight of 0 or more, at most {tally.WEIGHT_MAX} together"
            )
        self.run_state[kernel.KIND_WEIGHTS][kind] = self._weights_at(tuple(weights))

    def voters_in(self, row: int) -> tuple[int, ...]:
        """Voters whose vote is in some receiver's count."""
        row_ = self.run_state[kernel.TALLY][row * tally.ROW :]
        at, step = row_[tally.BITS_AT], row_[tally.BITS_STEP]
        seats = self.seats if step else 1
        bits = np.bitwise_or.reduce(
            self.run_state[kernel.TALLY_BITS][at : at + seats * self.words].reshape(seats, -1), axis=0
        )
        return tuple(voter for voter in range(self.voters) if int(bits[voter >> 6]) >> (voter & 63) & 1)

    def weigh(self, row: int, weights: tuple[int, ...]) -> None:
        """The votes of one tally count by these weights, whatever those of its type do."""
        self.run_state[kernel.TALLY_WEIGHTS][row] = self._weights_at(weights)

    def _weights_at(self, weights: tuple[int, ...]) -> int:
        """Where these weights begin among all, written there when first needed."""
        if weights not in self._weights:
            held = self.run_state[kernel.VOTE_WEIGHT]
            self._weights[weights] = len(held)
            self.run_state.adopt(kernel.VOTE_WEIGHT, np.concatenate((held, weights)))
            self.state[kernel.WEIGHTED] = 1
        return self._weights[weights]

    def _lay_tallies(self) -> None:
        """Rows 0..wide-1 are wide; narrow rows follow. Both kinds grow by adding rows at the end."""
        self.run_state.allocate(kernel.TALLY, 0)
        self.run_state.allocate(kernel.TALLY_COUNT, 0)
        self.run_state.allocate(kernel.TALLY_FIRED, 0)
        self.run_state.allocate(kernel.TALLY_BITS, 0)
        self.run_state.allocate(kernel.TALLY_PLACE, 0)
        self.run_state.allocate(kernel.TALLY_CAST, 0)
        self.run_state.allocate(kernel.TALLY_WEIGHTS, 0)
        self.run_state.allocate(votes.WIDE_FREE, 0)
        self.run_state.allocate(votes.NARROW_FREE, 0)
        growth.add_tallies(self.run_state, seats=self.seats, wide=True, count=16)
        growth.add_tallies(self.run_state, seats=self.seats, wide=False, count=32)

    def _lay_ledger(self) -> None:
        s, run_state, state = self.settings, self.run_state, self.state
        n = self.endpoints
        peer = run_state.allocate(ledger.PEER, n * ledger.PEER_WIDTH).reshape(n, ledger.PEER_WIDTH)
        peer[:, ledger.TIP] = -1
        peer[:, ledger.FORWARD_TO] = -1
        peer[:, ledger.ENTRY] = -1
        peer[:, ledger.BATCH_TIMER] = -1
        peer[:, ledger.LAST_TICK] = -2
        txs = 4096 + 4 * s.block_txs + 16 * n if s.gateways else 1
        run_state.allocate(ledger.TX, txs * ledger.TX_WIDTH)
        run_state.adopt(ledger.TX_FREE, np.arange(txs)[::-1])
        run_state.allocate(ledger.TX_HELD, txs * self.words)
        run_state.allocate(ledger.TX_MORE, txs * ledger.TX_MORE_WIDTH)
        run_state.allocate(ledger.POOL_FILL, self.seats * ledger.POOL_FILL_WIDTH)
        state[ledger.TX_FREE_LEN] = txs
        state[ledger.POOL_SIZE] = _POOL_START
        run_state.allocate(ledger.POOL, 2 * self.seats * _POOL_START if s.gateways else 1)
        blocks = 64
        run_state.allocate(ledger.BLOCK, blocks * ledger.BLOCK_WIDTH)
        run_state[ledger.BLOCK].reshape(-1, ledger.BLOCK_WIDTH)[:, ledger.NUMBER] = -1
        run_state.adopt(ledger.BLOCK_FREE, np.arange(blocks)[::-1])
        run_state.allocate(ledger.BLOCK_READY, blocks * self.words)
        run_state.allocate(lease.UNSEEN, blocks)
        run_state.allocate(ledger.BLOCK_REPLIES, max(blocks * s.gateways, 1))
        run_state.allocate(ledger.BLOCK_COST, blocks)
        run_state.allocate(ledger.BLOCK_RESULTS, blocks * self.seats * self.words if s.results_needed else 1)
        state[ledger.BLOCKS_FREE] = blocks
        run_state.seldom(
            ledger.BLOCK, ledger.BLOCK_READY, ledger.BLOCK_REPLIES, ledger.BLOCK_RESULTS, ledger.BLOCK_FREE
        )  # kept for whoever is down
        state[ledger.BLOCK_SERIAL] = 1
        payloads = 16
        run_state.allocate(ledger.PAYLOAD, payloads * s.block_txs if s.gateways else 1)
        run_state.adopt(ledger.PAYLOAD_FREE, np.arange(payloads)[::-1])
        state[ledger.PAYLOADS_FREE] = payloads
        run_state.allocate(ledger.HIST_CLIENT, transactions.HIST_LEN if s.gateways else 1)
        run_state.allocate(ledger.HIST_FINAL, transactions.HIST_LEN if s.gateways else 1)
        run_state.allocate(ledger.TRACE, ledger.TRACE_WIDTH * max(TRACE_ROWS, 256 * self.seats))
        run_state.allocate(ledger.CLOSED, _CLOSED_ROWS)
        run_state.allocate(ledger.HANDED, _CLOSED_ROWS)
        state[actions.SWEEP_CLOSED] = self.sweep_every
        state[actions.SWEEP_DECISIONS] = NO_LIMIT  # while all voters are up, nothing goes but what is closed
        classes = run_state.allocate(ledger.CLASS, len(s.class_bytes) * ledger.CLASS_WIDTH)
        senders = self._lay_classes(classes.reshape(-1, ledger.CLASS_WIDTH))
        run_state.allocate(ledger.SENDER_HELD, max(senders * self.seats, 1) if s.pool_per_sender else 1)
        state[ledger.CLASSES] = len(s.class_bytes)
        run_state.allocate(ledger.WAITED, ledger.WAITED_WIDTH * max(s.gateways * len(s.class_bytes), 1))
        run_state.allocate(ledger.STREAM, ledger.STREAM_WIDTH * 1)
        run_state.allocate(ledger.REPLY_COUNT, max(s.gateways, 1))

    def set_speeds(self) -> None:
        """Each endpoint's equipment works as it was built to."""
        node, speeds = self.node(), self.settings.speeds
        node[:, post.CPU_Q10] = 1024 if speeds is None else speeds.cpu_q10
        node[:, post.CRYPTO_Q10] = 1024 if speeds is None else speeds.crypto_q10
        node[:, post.DISK_Q10] = 1024 if speeds is None else speeds.disk_q10

    def _lay_classes(self, classes: np.ndarray) -> int:
        """The table of classes of transactions; returns how many senders there are at all gateways."""
        s, senders = self.settings, 0
        classes[:, ledger.CLASS_BYTES] = s.class_bytes
        for row, entry in zip(classes, s.class_rules or [ClassRules()] * len(classes), strict=True):
            row[ledger.CLASS_MOST] = entry.most
            row[ledger.CLASS_ASKS] = entry.asks
            row[ledger.CLASS_THINK_NS] = entry.think_ns
            row[ledger.CLASS_THINK_DRAWN] = entry.think_drawn
            row[ledger.CLASS_DEADLINE_NS] = entry.deadline_ns
            row[ledger.CLASS_SIGNATURES] = entry.signatures
            row[ledger.CLASS_SUPERVISES] = entry.supervises
            row[ledger.CLASS_STAYS] = entry.stays
            row[ledger.CLASS_WATCHED] = entry.watched
            row[ledger.CLASS_VALID_NS] = entry.valid_ns
            row[ledger.CLASS_SENDERS] = entry.senders
            row[ledger.CLASS_SENDER_FIRST] = senders
            senders += entry.senders * s.gateways
        self._lay_state(classes)
        self._lay_peers()
        self.state[ledger.ASKING_CLASSES] = any(entry.asks for entry in s.class_rules)
        drawn = any(entry.think_drawn for entry in s.class_rules)
        self.run_state.adopt(ledger.THINK_QUANTILE, exponential_table() if drawn else np.zeros(1, dtype=np.int64))
        return senders

    def _lay_peers(self) -> None:
        """Peers, and which of them together meet the policy."""
        given, state = self.settings.endorsement, self.state
        self.run_state.adopt(ledger.PLAN, np.zeros(1, dtype=np.int64) if given is None else given.plans)
        if given is None:
            return
        state[ledger.ENDORSES] = 1
        state[ledger.ENDORSE_KIND] = self.settings.endorse_kind
        state[ledger.ENDORSE_NS] = given.execute_ns
        state[ledger.ENDORSE_VERIFY_NS] = given.verify_ns
        state[ledger.ENDORSE_SIGN_NS] = given.sign_ns
        state[ledger.ENDORSE_HANDLE_NS] = given.handle_ns
        state[ledger.ENDORSE_TIMEOUT_NS] = given.timeout_ns
        state[ledger.ENDORSED_BYTES] = given.answer_bytes
        state[ledger.ORDERERS_ALL] = given.to_all
        state[ledger.PEER_FIRST] = given.first
        state[ledger.PEERS], state[ledger.PLANS] = given.plans.shape

    def _lay_state(self, classes: np.ndarray) -> None:
        """Keys, what classes do with them, and what became of each class's requests."""
        run_state, state, keyed = self.run_state, self.state, self.settings.state
        run_state.allocate(ledger.OUTCOME, len(classes) * ledger.OUTCOME_WIDTH)
        run_state.allocate(ledger.CLASS_WAITS, len(classes) * ledger.WAIT_BUCKETS if self.settings.gateways else 1)
        accesses: list[tuple[int, ...]] = []
        for row, entry in zip(classes, self.settings.class_rules or [ClassRules()] * len(classes), strict=True):
            row[ledger.CLASS_ACCESS_FIRST], row[ledger.CLASS_ACCESSES] = len(accesses), len(entry.accesses)
            accesses += entry.accesses
        run_state.adopt(ledger.ACCESS, np.array(accesses or [(0,) * ledger.ACCESS_WIDTH], dtype=np.int64))
        run_state.adopt(ledger.SKEW, np.zeros(1) if keyed is None or not len(keyed.skew) else keyed.skew)
        run_state.allocate(ledger.EXECUTED, ledger.EXECUTED_WIDTH * (1024 if self.state[ledger.EXECUTES] else 1))
        run_state.allocate(ledger.CROSSING, ledger.CROSSING_WIDTH * ledger.CROSSINGS_KEPT)
        run_state.allocate(ledger.CARRIED, ledger.CARRIED_WIDTH * 64)
        run_state.allocate(ledger.STATE_KEY, keyed.keys if keyed else 1)
        most = max(
            (sum(access[ledger.ACCESS_COUNT] for access in one.accesses) for one in self.settings.class_rules),
            default=1,
        )
        touched = 1 << (2 * max(most, 1) * self.settings.block_txs).bit_length()  # so that hashing finds a free row
        run_state.allocate(ledger.KEY_BUSY, ledger.BUSY_WIDTH * touched if keyed and keyed.lanes else ledger.BUSY_WIDTH)
        run_state.allocate(ledger.LANE_FREE, keyed.lanes if keyed and keyed.lanes else 1)
        if keyed is not None:
            state[ledger.STATE_ON] = 1
            state[ledger.CONFLICTS_ABORT] = keyed.aborts
            state[ledger.TRIES_MAX] = keyed.tries
            state[ledger.TRY_AGAIN_NS] = keyed.try_again_ns
            state[ledger.RECORDS] = keyed.records
            state[ledger.SCHEDULES] = keyed.lanes > 0
            state[ledger.LANES] = keyed.lanes
            state[ledger.IO_NS] = keyed.io_ns

    # --- room ------------------------------------------------------------------------------------------

    def make_capacity(self) -> None:
        """Lengthen whatever is nearly full. Called when compiled code returns CAPACITY or -1."""
        run_state, state = self.run_state, self.state
        copies = 1 + int(state[kernel.RULE_COPIES_MAX])
        margin = 16 * self.endpoints * copies + 1024 + 2 * self.settings.block_txs + 16 * self.settings.gateways
        grow_calendar(run_state, margin)
        while (state[kernel.READY_LEN] + margin) * WIDTH > len(run_state[kernel.READY]):
            run_state.grow(kernel.READY)
        if state[kernel.ENVELOPES_FREE] < 128 + 32 * self.settings.gateways:
            growth.double_envelopes(run_state)
        if self.settings.gateways and state[ledger.TX_FREE_LEN] <= 2 * margin:
            growth.double_transactions(run_state)
        if state[ledger.BLOCKS_FREE] <= 8:
            growth.add_blocks(run_state)
        if state[ledger.PAYLOADS_FREE] <= 8:
            growth.double(run_state, ledger.PAYLOAD_FREE, ledger.PAYLOADS_FREE, ((ledger.PAYLOAD, 0),))
        if state[actions.ACTIONS_FREE] < 16:
            growth.double(run_state, actions.ACTION_FREE, actions.ACTIONS_FREE, ((actions.ACTIONS, 0),), first=1)
        if state[votes.WIDE_FREE_LEN] < 4:
            more = max(16, min(256, (1 << 22) // self.voters**2))
            growth.add_tallies(run_state, seats=self.seats, wide=True, count=more)
        if state[votes.NARROW_FREE_LEN] < 4:
            growth.add_tallies(run_state, seats=self.seats, wide=False, count=max(64, self.tallies // 2))
        if len(run_state[dissemination.TREE_NODE]) and state[actions.AGGREGATES_FREE] < 2:
            growth.add_gatherings(run_state)
        if self.settings.gateways:
            growth.double_full_pools(run_state, self.seats)
        self.moved()

    def _lengthen(self, number: int) -> None:
        growth.lengthen(self.run_state, number)
        self.moved()

    @property
    def tallies(self) -> int:
        """How many tally rows there are."""
        return len(self.run_state[kernel.TALLY]) // tally.ROW

    def lay_tree(self, rows: np.ndarray) -> int:
        """One more tree that messages go down, int64, (seats, TREE_WIDTH): its number."""
        before = self.run_state[dissemination.TREE_NODE]
        self.run_state.adopt(dissemination.TREE_NODE, np.concatenate((before, rows.reshape(-1))))
        return len(before) // (self.seats * dissemination.TREE_WIDTH)

    def lay_rules(self, rows: np.ndarray, kinds: np.ndarray, sources: np.ndarray, targets: np.ndarray) -> None:
        """The run's message rules, in the order in which they apply (see sim.kernel.rules).

        `rows`: int64, (rules, MESSAGE_RULE_WIDTH); the others say what each rule matches, bool: `kinds`
        (rules, KINDS), `sources` and `targets` (rules, endpoints).
        """
        run_state, state = self.run_state, self.state
        none = np.zeros((1, self.endpoints), dtype=bool)
        state[kernel.RULES] = len(rows)
        state[kernel.RULE_COPIES_MAX] = rows[:, rules.COPIES].sum()
        run_state.adopt(kernel.MESSAGE_RULE, rows)
        run_state.adopt(kernel.RULE_KINDS, _bit_sets(kinds.T))
        run_state.adopt(kernel.RULE_SOURCES, _bit_sets(sources.T))
        run_state.adopt(kernel.RULE_TARGETS, _bit_sets(np.concatenate((targets, none))))
        run_state.allocate(kernel.RULE_ACTIVE, len(rows))
        state[kernel.RULE_WORDS] = (len(rows) + 63) // 64
        state[kernel.END_WORDS] = (self.endpoints + 63) // 64

    def lay_neighbours(self, neighbours: list[list[int]], floods: int) -> None:
        """The graph that flooding messages follow, per endpoint its neighbours, and slots for `floods` at a time."""
        lengths = [len(members) for members in neighbours]
        self.run_state.adopt(kernel.NEIGHBOUR_START, np.concatenate(([0], np.cumsum(lengths))))
        self.run_state.adopt(kernel.NEIGHBOUR, np.array([node for members in neighbours for node in members]))
        self.run_state.allocate(kernel.FLOOD_SEEN, floods * self.endpoints)

    def flood_receipts_ns(self, slot: int) -> np.ndarray:
        """When each endpoint had handled a flood, ns, shape (endpoints,); -1: not reached."""
        return self.run_state[kernel.FLOOD_SEEN].reshape(-1, self.endpoints)[slot] - 1

    def clear_flood(self, slot: int) -> None:
        """Free a flood's slot; no copy of it may be under way."""
        self.run_state[kernel.FLOOD_SEEN].reshape(-1, self.endpoints)[slot] = 0

    def sending_ns(self) -> np.ndarray:
        """How long each card has been busy with copies that have not left yet, ns, shape (endpoints,)."""
        busy_ps = np.zeros(self.endpoints, dtype=np.int64)
        if not self.state[kernel.SHARING]:
            return busy_ps
        rows = self.run_state[kernel.QUEUED].reshape(-1, sharing.QUEUED_WIDTH)
        for node, card in enumerate(self.run_state[kernel.CARDS].reshape(-1, sharing.CARD_WIDTH).tolist()):
            lanes = [card[at : at + sharing.LANE_WIDTH] for at in range(0, sharing.SERVED_NS, sharing.LANE_WIDTH)]
            if not any(lane[sharing.COUNT] for lane in lanes):
                continue
            busy_ps[node] = (int(self.state[kernel.NOW]) - card[sharing.SERVED_NS]) * 1000
            for lane in lanes:
                in_train, row = lane[sharing.MODE] == sharing.TRAIN, lane[sharing.HEAD]
                while row:
                    queued = rows[row - 1].tolist()
                    left_ps = queued[sharing.THROUGH_PS] - (0 if self.state[kernel.CAPPED] else lane[sharing.PASSED_PS])
                    sent_ps = queued[sharing.BYTES] * int(self.node()[node, post.TX_PS]) - left_ps
                    busy_ps[node] += sent_ps * (lane[sharing.COUNT] if in_train else 1)
                    row = 0 if in_train else queued[sharing.NEXT]
        return busy_ps // 1000

    # --- views for Python ------------------------------------------------------------------------------

    def message_rules(self) -> np.ndarray:
        """Rows of the message rules, shape (rules, MESSAGE_RULE_WIDTH)."""
        return self.run_state[kernel.MESSAGE_RULE].reshape(-1, rules.MESSAGE_RULE_WIDTH)

    def node(self) -> np.ndarray:
        """Node rows, shape (endpoints, NODE_WIDTH)."""
        return self.run_state[kernel.NODE].reshape(-1, post.NODE_WIDTH)

    def peer(self) -> np.ndarray:
        """Ledger rows of nodes, shape (endpoints, PEER_WIDTH)."""
        return self.run_state[ledger.PEER].reshape(-1, ledger.PEER_WIDTH)

    def block(self) -> np.ndarray:
        """Block rows, shape (blocks, BLOCK_WIDTH)."""
        return self.run_state[ledger.BLOCK].reshape(-1, ledger.BLOCK_WIDTH)

    def take_trace(self) -> np.ndarray:
        """The trace rows collected so far, shape (rows, TRACE_WIDTH); the trace is empty afterwards."""
        count = int(self.state[ledger.TRACE_LEN])
        self.state[ledger.TRACE_LEN] = 0
        return self.run_state[ledger.TRACE][: count * ledger.TRACE_WIDTH].reshape(-1, ledger.TRACE_WIDTH).copy()

    def take_log(self) -> np.ndarray:
        """The message log rows collected so far, shape (rows, LOG_WIDTH); the log is empty afterwards."""
        count = int(self.state[kernel.LOG_LEN])
        self.state[kernel.LOG_LEN] = 0
        return self.run_state[kernel.LOG][: count * post.LOG_WIDTH].reshape(-1, post.LOG_WIDTH).copy()
