"""The metrics of a run by name: what people call each, its unit, and which direction is better.

Imports nothing heavy, so that a study can be checked before an engine is loaded. docs/metrics.md defines the names.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from typing import Literal

Better = Literal["lower", "higher", ""]


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric in words. `better` is empty where neither direction is."""

    words: str
    unit: str = ""
    better: Better = ""


METRICS: dict[str, Metric] = {
    "offered_tps": Metric("offered load", "tx/s"),
    "offered_nominal_tps": Metric("nominal load", "tx/s"),
    "committed_tps": Metric("committed throughput", "tx/s", "higher"),
    "committed_share": Metric("committed share", "", "higher"),
    "transactions_per_block": Metric("transactions per block"),
    "goodput_tps": Metric("goodput", "tx/s", "higher"),
    "success_share": Metric("share of requests that succeeded", "", "higher"),
    "deadline_missed": Metric("missed deadlines", "", "lower"),
    "conflicts": Metric("transactions without effect by conflict", "tx", "lower"),
    "rule_refusals": Metric("transactions that a rule refused", "tx"),
    "tried_again": Metric("requests tried again after a conflict", "tx", "lower"),
    "wasted_share": Metric("share of executions without effect", "", "lower"),
    "endorsement_mean_ms": Metric("mean time to endorsement", "ms", "lower"),
    "ordering_mean_ms": Metric("mean time from endorsement to order", "ms", "lower"),
    "committing_mean_ms": Metric("mean time from order to answer", "ms", "lower"),
    "endorsements_differing": Metric("requests whose endorsements differed", "tx", "lower"),
    "enforcement_mean_ms": Metric("mean time from order to enforcement", "ms", "lower"),
    "enforcement_max_ms": Metric("longest time from order to enforcement", "ms", "lower"),
    "latency_p50_ms": Metric("p50", "ms", "lower"),
    "latency_p95_ms": Metric("p95", "ms", "lower"),
    "latency_p99_ms": Metric("p99", "ms", "lower"),
    "latency_mean_ms": Metric("mean latency", "ms", "lower"),
    "finality_p50_ms": Metric("p50 of finality", "ms", "lower"),
    "finality_p95_ms": Metric("p95 of finality", "ms", "lower"),
    "finality_p99_ms": Metric("p99 of finality", "ms", "lower"),
    "finality_mean_ms": Metric("mean finality", "ms", "lower"),
    "decisions": Metric("decisions"),
    "decision_latency_mean_ms": Metric("mean decision latency", "ms", "lower"),
    "decision_latency_max_ms": Metric("longest decision latency", "ms", "lower"),
    "decision_latency_replica_mean_ms": Metric("mean decision latency over replicas", "ms", "lower"),
    "block_interval_mean_ms": Metric("mean block interval", "ms"),
    "view_changes": Metric("view changes", "", "lower"),
    "longest_pause_s": Metric("longest pause", "s", "lower"),
    "recovery_s": Metric("recovery", "s", "lower"),
    "reorganisations": Metric("reorganisations", "", "lower"),
    "reorg_depth_max": Metric("deepest reorganisation", "blocks", "lower"),
    "stale_blocks": Metric("stale blocks", "", "lower"),
    "reads": Metric("reads answered"),
    "read_latency_mean_ms": Metric("mean latency of reads", "ms", "lower"),
    "read_latency_max_ms": Metric("longest latency of reads", "ms", "lower"),
    "messages_per_decision": Metric("messages per decision", "", "lower"),
    "bytes_per_decision": Metric("bytes per decision", "B", "lower"),
    "messages_apart": Metric("other messages", "", "lower"),
    "messages_sent": Metric("messages sent", "", "lower"),
    "messages_dropped": Metric("messages dropped", "", "lower"),
    "events": Metric("messages delivered"),
    "ledger_growth_gb_per_day": Metric("ledger growth", "GB/day"),
    "ledger_growth_tb_per_year": Metric("ledger growth", "TB/year"),
    "exported_bytes": Metric("bytes that left the country", "B", "lower"),
    "observer_lag_p50_ms": Metric("p50 of observers' lag", "ms", "lower"),
    "observer_lag_p99_ms": Metric("p99 of observers' lag", "ms", "lower"),
    "observer_lag_max_ms": Metric("longest lag of observers", "ms", "lower"),
    "observer_lag_p50_blocks": Metric("p50 of observers' lag", "blocks", "lower"),
    "observer_lag_p99_blocks": Metric("p99 of observers' lag", "blocks", "lower"),
    "observer_lag_max_blocks": Metric("longest lag of observers", "blocks", "lower"),
    "catch_up_s": Metric("catching up", "s", "lower"),
    "nic_send_utilisation_max": Metric("use of the busiest sending card"),
    "nic_receive_utilisation_max": Metric("use of the busiest receiving card"),
    "sign_utilisation_max": Metric("use of the busiest signer"),
    "verify_utilisation_max": Metric("use of the busiest verifier"),
    "thread_utilisation_max": Metric("use of the busiest consensus thread"),
    "execute_utilisation_max": Metric("use of the busiest executor"),
    "nic_receive_wait_mean_us": Metric("mean wait for the receiving card", "us", "lower"),
    "cpu_wait_mean_us": Metric("mean wait for the processor", "us", "lower"),
    "submitted": Metric("submitted transactions", "tx"),
    "committed": Metric("committed transactions", "tx", "higher"),
    "acknowledged": Metric("answered transactions", "tx", "higher"),
    "rejected": Metric("rejected transactions", "tx", "lower"),
    "retries": Metric("further tries of refused transactions", "tx", "lower"),
    "attack_submitted": Metric("transactions of a flood", "tx"),
    "expired": Metric("expired transactions", "tx", "lower"),
    "pending": Metric("pending transactions", "tx", "lower"),
    "repeated": Metric("repeated copies", "tx", "lower"),
    "measured_transactions": Metric("measured transactions", "tx"),
    "simulated_s": Metric("simulated time", "s"),
}


def words_of(name: str) -> str:
    """What people call a metric."""
    return METRICS[name].words if name in METRICS else name


def unknown(name: str) -> str:
    """The complaint about a name that is no metric: "rule; remedy"."""
    near = difflib.get_close_matches(name, METRICS, 1, 0.5)
    return f"is no metric of a run; {f'did you mean {near[0]}?' if near else 'docs/metrics.md lists them'}"


def possible(name: str) -> tuple[float, float]:
    """The least and the greatest value that a metric can have: shares end at 1, and none of the others is negative."""
    if name not in METRICS:
        return -math.inf, math.inf
    return 0.0, 1.0 if name.endswith("_share") or "utilisation" in name else math.inf
