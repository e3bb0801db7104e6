"""What became of requests, by class: success, conflicts, rules that refused, deadlines, and waits of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.engine.settings import NO_LIMIT
from sim.host import Run
from sim.kernel import run_state as kernel
from sim.ledger import rows as ledger

Metrics = dict[str, float | int | None]
_QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


def _table(run: Run, column: int, width: int) -> np.ndarray:
    """A column per class, shape (classes, width), without floods' classes."""
    rows = run.engine.run_state[column].reshape(-1, width)
    last = run.engine.settings.invalid_class
    return rows if last == NO_LIMIT else rows[:last]


def wait_edges_us() -> np.ndarray:
    """Lower edges of the buckets of a class's waits, microseconds (the inverse of `payload.wait_bucket`)."""
    buckets = np.arange(ledger.WAIT_BUCKETS)
    s = np.maximum((buckets >> ledger.WAIT_BITS) - 1, 0)
    edges: np.ndarray = (buckets - (s << ledger.WAIT_BITS)) << s
    return edges


def _waits_ms(run: Run) -> dict[str, list[float | None]]:
    """Quantiles of each class's waits for success, ms: lower edges of buckets, at most 1/64 below the exact one."""
    edges = wait_edges_us() / 1000
    found: dict[str, list[float | None]] = {name: [] for name in _QUANTILES}
    for counts in _table(run, ledger.CLASS_WAITS, ledger.WAIT_BUCKETS):
        passed = np.cumsum(counts)
        for name, q in _QUANTILES.items():
            rank = max(int(np.ceil(q * passed[-1])), 1)
            found[name].append(float(edges[np.searchsorted(passed, rank)]) if passed[-1] else None)
    return found


def _overdue(run: Run) -> np.ndarray:
    """Requests by class that nobody has answered and whose deadline is over, shape (classes,)."""
    run_state = run.engine.run_state
    txs = run_state[ledger.TX].reshape(-1, ledger.TX_WIDTH)
    waiting = txs[:, ledger.TX_DECIDED] == 0
    waiting[run_state[ledger.TX_FREE][: int(run.run_state[ledger.TX_FREE_LEN])]] = False
    blocks = run_state[ledger.BLOCK].reshape(-1, ledger.BLOCK_WIDTH)
    decided = (
        (blocks[:, ledger.NUMBER] >= 0)
        & (blocks[:, ledger.STANDING] >= ledger.SETTLED)
        & (blocks[:, ledger.PAYLOAD_AT] >= 0)
    )
    size = int(run.run_state[ledger.PAYLOAD_SIZE])
    for at, count in blocks[decided][:, [ledger.PAYLOAD_AT, ledger.TXS]].tolist():
        inside = run_state[ledger.PAYLOAD][at * size : at * size + count]
        waiting[inside[inside >= 0]] = True
    classes = _table(run, ledger.CLASS, ledger.CLASS_WIDTH)
    of = txs[waiting, ledger.TX_CLASS]
    mine = of < len(classes)
    deadline_ns = classes[of[mine], ledger.CLASS_DEADLINE_NS]
    age_ns = int(run.run_state[kernel.NOW]) - txs[waiting, ledger.TX_SUBMIT][mine]
    return np.bincount(of[mine][(deadline_ns > 0) & (age_ns > deadline_ns)], minlength=len(classes))


def by_class(run: Run) -> dict[str, list[Any]]:
    """Columns of the table of classes: counts of requests, shares, and quantiles of waits in ms."""
    outcome = _table(run, ledger.OUTCOME, ledger.OUTCOME_WIDTH)
    classes = _table(run, ledger.CLASS, ledger.CLASS_WIDTH)
    over = outcome[:, [ledger.SUCCEEDED, ledger.GIVEN_UP, ledger.TURNED_AWAY, ledger.LOST]].sum(axis=1)
    has_deadline = classes[:, ledger.CLASS_DEADLINE_NS] > 0
    missed = over - outcome[:, ledger.SUCCEEDED] + outcome[:, ledger.LATE] + _overdue(run)
    waits = _waits_ms(run)
    return {
        "succeeded": outcome[:, ledger.SUCCEEDED].tolist(),
        "conflicts": outcome[:, ledger.CONFLICTS].tolist(),
        "rule_refusals": outcome[:, ledger.REFUSALS].tolist(),
        "tried_again": outcome[:, ledger.TRIED_AGAIN].tolist(),
        "given_up": outcome[:, ledger.GIVEN_UP].tolist(),
        "rejected": outcome[:, ledger.TURNED_AWAY].tolist(),
        "expired": outcome[:, ledger.LOST].tolist(),
        "success_share": [_share(row[ledger.SUCCEEDED], total) for row, total in zip(outcome, over, strict=True)],
        "deadline_s": [float(row) / 1e9 if row else None for row in classes[:, ledger.CLASS_DEADLINE_NS]],
        "deadline_missed": [int(n) if has else None for n, has in zip(missed, has_deadline, strict=True)],
        **{f"latency_{name}_ms": values for name, values in waits.items()},
    }


def collect(run: Run, measured_s: float) -> Metrics:
    """The same for all classes together. Where nothing conflicts, what only a keyed state tells is None."""
    outcome = _table(run, ledger.OUTCOME, ledger.OUTCOME_WIDTH)
    clients, keyed = run.engine.settings.gateways > 0, run.engine.settings.state is not None
    total = {name: int(outcome[:, i].sum()) for i, name in enumerate(_COUNTS)}
    over = sum(total[name] for name in ("succeeded", "given_up", "rejected", "expired"))
    executed = int(run.run_state[ledger.COMMITTED])
    without_effect = total["conflicts"] + total["rule_refusals"]
    missed = [count for count in by_class(run)["deadline_missed"] if count is not None] if clients else []
    return {
        "success_share": _share(total["succeeded"], over) if clients else None,
        "deadline_missed": sum(missed) if missed else None,
        "goodput_tps": _share(int(run.run_state[ledger.MEASURED]), measured_s) if keyed else None,
        "conflicts": total["conflicts"] if keyed else None,
        "rule_refusals": total["rule_refusals"] if keyed else None,
        "tried_again": total["tried_again"] if keyed else None,
        "wasted_share": _share(without_effect, executed) if keyed else None,
        **_stages(run),
    }


def _stages(run: Run) -> Metrics:
    """Where requests are endorsed before they are ordered: how long each stage took on average, and disagreements."""
    s = run.run_state
    stages = {
        "endorsement_mean_ms": (ledger.ENDORSING_NS, ledger.ENDORSED),
        "ordering_mean_ms": (ledger.ORDERING_NS, ledger.ORDERED),
        "committing_mean_ms": (ledger.COMMITTING_NS, ledger.ANSWERED),
    }
    found: Metrics = {name: _share(int(s[sum_ns]) / 1e6, int(s[count])) for name, (sum_ns, count) in stages.items()}
    return found | {"endorsements_differing": int(s[ledger.MISMATCHED]) if s[ledger.ENDORSES] else None}


_COUNTS = ("succeeded", "conflicts", "rule_refusals", "tried_again", "given_up", "late", "rejected", "expired")


def _share(part: float, whole: float) -> float | None:
    return float(part) / float(whole) if whole else None


def executed(run: Run, names: list[str]) -> dict[str, Any]:
    """A row per executed transaction that is on record: where, which class, what it saw, and what came of it."""
    count = int(run.run_state[ledger.EXECUTED_LEN])
    rows = run.engine.run_state[ledger.EXECUTED][: count * ledger.EXECUTED_WIDTH].reshape(-1, ledger.EXECUTED_WIDTH)
    results = ("valid", "conflict", "refused", "valid though frozen")
    return {
        "height": rows[:, ledger.DONE_HEIGHT].copy(),
        "place": rows[:, ledger.DONE_PLACE].copy(),
        "block": rows[:, ledger.DONE_BLOCK].copy(),
        "number": rows[:, ledger.DONE_KEYS].copy(),
        "class": [names[i] for i in rows[:, ledger.DONE_CLASS].tolist()],
        "read_at_height": rows[:, ledger.DONE_SNAPSHOT].copy(),
        "result": [results[i] for i in rows[:, ledger.DONE_RESULT].tolist()],
        "submitted_s": rows[:, ledger.DONE_SUBMIT] / 1e9,
        "decided_s": rows[:, ledger.DONE_NS] / 1e9,
    }
