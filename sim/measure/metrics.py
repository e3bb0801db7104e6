"""The flat table of metrics of one run. Each name ends in its unit and is defined in docs/metrics.md."""

from __future__ import annotations

import numpy as np

from sim.engine.settings import NO_LIMIT
from sim.host import Run
from sim.kernel import post
from sim.kernel import run_state as kernel
from sim.ledger import rows as ledger
from sim.ledger import transactions
from sim.ledger.header import HEADER_BYTES
from sim.measure import outcomes
from sim.measure.blocks import Blocks
from sim.measure.observers import Lags

QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
Metrics = dict[str, float | int | None]


_COUNTED = {
    ledger.HIST_CLIENT: ledger.MEASURED,
    ledger.HIST_FINAL: ledger.COMMITTED_MEASURED,
}  # what the counts add up to
_PART = 1 << 18  # buckets looked at in one go


def histogram_edges_us(buckets: np.ndarray) -> np.ndarray:
    """Lower edge of latency buckets, microseconds (the inverse of `transactions.histogram_bucket`)."""
    bits = transactions.HIST_EXACT_BITS
    s = np.maximum((buckets >> bits) - 1, 0)
    edges: np.ndarray = (buckets - (s << bits)) << s
    return edges


def histogram(run: Run, column: int) -> tuple[np.ndarray, np.ndarray]:
    """Occupied latency buckets of a run: (latency_us, count), ascending."""
    counts = run.engine.run_state[column]
    buckets = occupied(counts, int(run.run_state[_COUNTED[column]]))
    return histogram_edges_us(buckets), counts[buckets]


def occupied(counts: np.ndarray, total: int) -> np.ndarray:
    """Where `counts` is not zero, ascending, if it adds up to `total`.

    Latencies reach a few of the 23 million buckets, nearly always the first ones; the rest need not be looked at.
    """
    parts, seen = [np.zeros(0, dtype=np.intp)], 0
    for at in range(0, len(counts), _PART):
        if seen >= total:
            break
        here = at + np.flatnonzero(counts[at : at + _PART])
        seen += int(counts[here].sum())
        parts.append(here)
    return np.concatenate(parts)


def quantile_ms(latency_us: np.ndarray, count: np.ndarray, q: float) -> float | None:
    """The smallest latency that at least a fraction `q` of transactions did not exceed, ms."""
    total = int(count.sum())
    if total == 0:
        return None
    rank = max(int(np.ceil(q * total)), 1)
    return float(latency_us[np.searchsorted(np.cumsum(count), rank)]) / 1000


def collect(run: Run, blocks: Blocks, lags: Lags, *, end_ns: int, offered_tps: float) -> Metrics:
    """All metrics but wall-clock ones."""
    s = run.run_state
    measured_s = max(min(end_ns, blocks.measure_end_ns) - blocks.warm_up_ns, 0) / 1e9
    simulated_s = end_ns / 1e9
    m: Metrics = {}
    clients = run.engine.settings.gateways > 0
    attack, attack_over = _attack(run)
    rejected = max(int(s[ledger.REJECTED]) - attack_over, 0)
    submitted = int(s[ledger.SUBMITTED]) - attack
    again = int(run.engine.run_state[ledger.OUTCOME].reshape(-1, ledger.OUTCOME_WIDTH)[:, ledger.TRIED_AGAIN].sum())
    m["offered_tps"] = _ratio(submitted - again, simulated_s) if clients else None
    m["offered_nominal_tps"] = offered_tps or None
    m["committed_tps"] = _ratio(blocks.measured_txs, measured_s)
    m["committed_share"] = _ratio(int(s[ledger.COMMITTED]), submitted) if clients else None
    for kind, column in (("latency", ledger.HIST_CLIENT), ("finality", ledger.HIST_FINAL)):
        us, count = histogram(run, column)
        for name, q in QUANTILES.items():
            m[f"{kind}_{name}_ms"] = quantile_ms(us, count, q)
        m[f"{kind}_mean_ms"] = float((us * count).sum() / count.sum() / 1000) if len(count) else None
    m["decisions"] = blocks.count
    m["decision_latency_mean_ms"] = _ratio(blocks.latency_sum_ns / 1e6, blocks.measured)
    m["decision_latency_max_ms"] = blocks.latency_max_ns / 1e6 if blocks.count else None
    m["decision_latency_replica_mean_ms"] = _ratio(blocks.replica_sum_ns / 1e6, blocks.replica_count)
    span_ns = blocks.last_decision_ns - blocks.first_decision_ns
    m["block_interval_mean_ms"] = _ratio(span_ns / 1e6, blocks.count - 1) if blocks.count > 1 else None
    m["transactions_per_block"] = _ratio(int(s[ledger.COMMITTED]), blocks.count)
    m["stale_blocks"] = blocks.stale
    m["reorganisations"] = blocks.reorganisations
    m["reorg_depth_max"] = blocks.reorganisation_depth_max
    m.update(_ledger(run, blocks, lags, measured_s))
    m.update(_messages(run, blocks))
    m["view_changes"] = blocks.view_changes
    m.update(outcomes.collect(run, measured_s))
    m.update(_resources(run, end_ns))
    m["submitted"] = submitted
    m["attack_submitted"] = attack
    m["committed"] = int(s[ledger.COMMITTED])
    m["acknowledged"] = int(s[ledger.ACKED])
    m["rejected"] = rejected
    m["retries"] = int(s[ledger.RETRIED])
    m["expired"] = int(s[ledger.EXPIRED])
    m["pending"] = max(submitted - int(s[ledger.COMMITTED] + s[ledger.EXPIRED]) - rejected, 0) if clients else 0
    m["repeated"] = int(s[ledger.REPEATED])
    m["measured_transactions"] = int(s[ledger.MEASURED])
    m["messages_sent"] = int(s[kernel.SENT])
    m["messages_dropped"] = int(s[kernel.DROPPED])
    m["events"] = int(s[kernel.DELIVERED])
    m["simulated_s"] = simulated_s
    return m


def _attack(run: Run) -> tuple[int, int]:
    """Invalid transactions of a flood: how many were sent, and how many of them were dealt with."""
    first, run_state = run.engine.settings.invalid_class, run.engine.run_state
    if first == NO_LIMIT:
        return 0, 0
    sent = int(run_state[ledger.CLASS].reshape(-1, ledger.CLASS_WIDTH)[first:, ledger.CLASS_SUBMITTED].sum())
    rows = run_state[ledger.TX].reshape(-1, ledger.TX_WIDTH)
    live = np.ones(len(rows), dtype=bool)
    live[run_state[ledger.TX_FREE][: int(run.run_state[ledger.TX_FREE_LEN])]] = False
    return sent, sent - int((live & (rows[:, ledger.TX_CLASS] >= first)).sum())


def _ratio(a: float, b: float) -> float | None:
    return a / b if b else None


def message_table(run: Run) -> list[dict[str, int | str | bool]]:
    """Messages sent per type: name, whether it counts as deciding, copies, bytes, dropped."""
    counts = run.engine.run_state[kernel.KIND_COUNT].reshape(-1, post.KIND_WIDTH)
    deciding = {run.names[kind] for cause, kind in run.kinds.items() if cause.decides}
    return [
        {
            "type": name,
            "decides": name in deciding,
            "messages": int(counts[i, post.COUNT_SENT]),
            "bytes": int(counts[i, post.COUNT_BYTES]),
            "dropped": int(counts[i, post.COUNT_DROPPED]),
        }
        for i, name in enumerate(run.names)
    ]


def _messages(run: Run, blocks: Blocks) -> Metrics:
    decisions = blocks.count
    table = message_table(run)
    deciding = [row for row in table if row["decides"]]
    total = sum(int(row["messages"]) for row in deciding)
    if decisions > 1:  # from the first decision to the last: what is under way at the end does not count
        per_decision = (blocks.last_messages - blocks.first_messages) / (decisions - 1)
    else:
        per_decision = float(total)
    return {
        "messages_per_decision": per_decision if decisions else None,
        "bytes_per_decision": _ratio(sum(int(row["bytes"]) for row in deciding), decisions),
        "messages_apart": sum(int(row["messages"]) for row in table if not row["decides"]),
    }


def _ledger(run: Run, blocks: Blocks, lags: Lags, measured_s: float) -> Metrics:
    """How the ledger grows, who has it how late, and what leaves the country."""
    header_bytes = HEADER_BYTES + run.signing.certificate_bytes(run.deciding_quorum())
    grown = blocks.measured_bytes + blocks.measured_decisions * header_bytes
    per_s = _ratio(grown, measured_s)
    m: Metrics = {
        "ledger_growth_gb_per_day": None if per_s is None else per_s * 86_400 / 1e9,
        "ledger_growth_tb_per_year": None if per_s is None else per_s * 86_400 * 365 / 1e12,
        "exported_bytes": int(run.run_state[kernel.BYTES_ABROAD]) if run.run_state[kernel.BORDERS] else None,
    }
    for name in ("p50", "p99", "max"):
        m[f"observer_lag_{name}_ms"] = lags.quantile_ms(name)
        m[f"observer_lag_{name}_blocks"] = lags.quantile_blocks(name)
    return m


def done_by(end_ns: int, busy_ns: np.ndarray, free_ns: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """Of the work that queues have taken in, what they had done by the end, ns.

    `busy_ns`: per node, all of it; `free_ns`: when its servers will have done it, shape (nodes, servers). What a server
    does after the end it does in one go, unless the stage before is `behind` too: then its work comes in pieces, and is
    taken to be spread evenly.
    """
    after_ns = np.maximum(free_ns - end_ns, 0).sum(axis=1)
    whole = np.maximum(busy_ns - after_ns, 0)
    last_ns = np.maximum(free_ns.max(axis=1), end_ns)
    pieces = busy_ns * (end_ns / last_ns)
    done: np.ndarray = np.minimum(np.where(behind, pieces, whole), end_ns * free_ns.shape[1])
    return done


def _resources(run: Run, end_ns: int) -> Metrics:
    nodes = run.engine.node()[: run.engine.seats]
    workers = run.engine.settings.workers
    if not end_ns:
        return {}
    received = np.maximum(nodes[:, post.RX_COUNT], 1)
    sending_ns = run.engine.sending_ns()[: run.engine.seats]
    free = {name: nodes[:, [getattr(post, f"{name}_FREE")]] for name in ("SIGN", "TX", "RX", "THREAD", "EXECUTE")}
    free["VERIFY"] = nodes[:, [post.VERIFY_FREE]]
    cores = np.ones(len(nodes), dtype=np.int64)
    if workers > 1:
        free["VERIFY"] = run.engine.run_state[kernel.WORKER_FREE].reshape(-1, workers)[: run.engine.seats]
        there = free["VERIFY"] < NO_LIMIT  # of workers that a node does not have, none is ever free
        free["VERIFY"], cores = np.where(there, free["VERIFY"], 0), there.sum(axis=1)

    def used(stage: str, before: str = "") -> float:
        """The greatest share of the run for which a node's stage was at work; `before`: the stage that feeds it."""
        behind = free[before].max(axis=1) > end_ns if before else np.zeros(len(nodes), dtype=bool)
        taken_in_ns = nodes[:, getattr(post, f"{stage}_BUSY")] + (sending_ns if stage == "TX" else 0)
        busy = done_by(end_ns, taken_in_ns, free[stage], behind)
        return float((busy / (end_ns * (cores if stage == "VERIFY" else 1))).max())

    return {
        "nic_send_utilisation_max": used("TX", "SIGN"),
        "nic_receive_utilisation_max": used("RX"),
        "verify_utilisation_max": used("VERIFY", "RX"),
        "sign_utilisation_max": used("SIGN"),
        "thread_utilisation_max": used("THREAD", "VERIFY"),
        "execute_utilisation_max": used("EXECUTE"),
        "nic_receive_wait_mean_us": float((nodes[:, post.RX_WAIT] / received).max() / 1e3),
        "cpu_wait_mean_us": float((nodes[:, post.CPU_WAIT] / received).max() / 1e3),
    }
