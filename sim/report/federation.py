"""A federation's outcome in words and tables: each chain, what anchoring costs and lags, what became of transfers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from sim.plan.federation import Outcome
from sim.scenario.federation import anchor_class


def chain_rows(found: Outcome) -> list[dict[str, Any]]:
    """A row per chain: its verdict and main numbers."""
    rows = []
    for name, result in found.results.items():
        pause_s = result.metrics["longest_pause_s"]
        rows.append(
            {
                "chain": name,
                "protocol": result.scenario.protocol.name,
                "voters": result.scenario.network.n,
                "status": result.status,
                "committed_tps": result.metrics["committed_tps"],
                "latency_p50_ms": result.metrics["latency_p50_ms"],
                "latency_p99_ms": result.metrics["latency_p99_ms"],
                "longest_pause_s": pause_s,
                "ledger_growth_gb_per_day": result.metrics["ledger_growth_gb_per_day"],
                "digest": result.digest,
            }
        )
    return rows


def anchor_rows(found: Outcome) -> list[dict[str, Any]]:
    """A row per anchoring: how far roots lag behind blocks, and what share of the other chain's transactions they are.

    The lag of a block counts from its first decision to the decision of the first root that covers it.
    """
    rows = []
    for i, anchor in enumerate(found.federation.file.anchors):
        mine = [one for one in found.anchors if one.entry == i]
        done = sorted((one for one in mine if one.decided_ns >= 0), key=lambda one: one.covers_ns)
        blocks = np.sort(found.results[anchor.chain].tables["blocks"]["first_ns"])
        covers = np.array([one.covers_ns for one in done], dtype=np.int64)
        decided = np.array([one.decided_ns for one in done], dtype=np.int64)
        at = np.searchsorted(covers, blocks)
        covered = at < len(covers)
        earliest = np.minimum.accumulate(decided[::-1])[::-1] if len(decided) else decided
        lag_s = (earliest[at[covered]] - blocks[covered]) / 1e9
        table = found.results[anchor.to].tables["classes"]
        own = sum(n for n, name in zip(table["committed"], table["name"], strict=True) if name == anchor_class(i))
        whole = sum(table["committed"])
        rows.append(
            {
                "from": anchor.chain,
                "to": anchor.to,
                "submitted": len(mine),
                "decided": len(done),
                "lag_mean_s": float(lag_s.mean()) if len(lag_s) else None,
                "lag_max_s": float(lag_s.max()) if len(lag_s) else None,
                "blocks_not_anchored": int((~covered).sum()),
                "share_of_transactions": own / whole if whole else None,
            }
        )
    return rows


def transfer_rows(found: Outcome) -> list[dict[str, Any]]:
    """A row per kind of transfer: how many ended how, and how long those that were settled took."""
    rows = []
    for i, transfer in enumerate(found.federation.file.transfers):
        mine = [one for one in found.transfers if one.entry == i]
        states = Counter(one.state for one in mine)
        took_s = [(one.released_ns - one.asked_ns) / 1e9 for one in mine if one.released_ns >= 0]
        rows.append(
            {
                "from": transfer.chain,
                "to": transfer.to,
                "asked": len(mine),
                **{state: states[state] for state in ("settled", "refunded", "both")},
                "under_way": len(mine) - states["settled"] - states["refunded"] - states["both"],
                "released_mean_s": float(np.mean(took_s)) if took_s else None,
                "released_max_s": float(np.max(took_s)) if took_s else None,
            }
        )
    return rows


def lines(found: Outcome) -> Iterator[str]:
    """The outcome at 80 columns."""
    yield f"{found.federation.name}: {_verdict(found)}"
    head = ("tx/s", "p50 ms", "p99 ms", "pause s")
    yield f"  {'chain':<16} {'protocol':<10} {'voters':>6} {' '.join(f'{title:>8}' for title in head)}  status"
    for row in chain_rows(found):
        numbers = (row["committed_tps"], row["latency_p50_ms"], row["latency_p99_ms"], row["longest_pause_s"])
        shown = " ".join("       -" if value is None else f"{value:>8,.1f}" for value in numbers)
        yield f"  {row['chain'][:16]:<16} {row['protocol'][:10]:<10} {row['voters']:>6} {shown}  {row['status'][:9]}"
    for row in anchor_rows(found):
        mean_s, share = row["lag_mean_s"], row["share_of_transactions"]
        lag = "none decided" if mean_s is None else f"lag {mean_s:.1f} s, at most {row['lag_max_s']:.1f}"
        load = "" if share is None else f", {100 * share:.1f} % of its load"
        yield f"  anchors {row['from']} -> {row['to']}: {row['decided']} of {row['submitted']} decided{load}"
        yield f"    {lag}, {row['blocks_not_anchored']} blocks not covered at the end"
    for row in transfer_rows(found):
        took = "" if row["released_mean_s"] is None else f", released in {row['released_mean_s']:.2f} s on average"
        yield f"  transfers {row['from']} -> {row['to']}: {row['asked']}{took}"
        states = ("settled", "refunded", "under_way", "both")
        ends = ", ".join(f"{row[name]} {name.replace('_', ' ')}" for name in states)
        yield f"    {ends}"
    for violation in found.violations[:3]:
        yield f"  VIOLATION {violation.check}: {violation.evidence}"
    if len(found.violations) > 3:
        yield f"  and {len(found.violations) - 3} more of {found.violations[0].check}"


_STANDS_STILL_S = 10.0


def _verdict(found: Outcome) -> str:
    """In words: which chains went on, which stood still or broke, and whether transfers were atomic."""
    words = []
    for name, result in found.results.items():
        pause_s = result.metrics["longest_pause_s"] or 0.0
        if result.status != "ok":
            words.append(f"{name}: {result.status}")
        elif pause_s > _STANDS_STILL_S:
            words.append(f"{name} stood still for {pause_s:.0f} s")
    told = "; ".join(words) or "all chains went on"
    if words and len(words) < len(found.results):
        told += "; the others went on"
    if found.violations:
        return f"{told}; transfers were NOT atomic"
    return f"{told}; transfers were atomic" if found.transfers else told
