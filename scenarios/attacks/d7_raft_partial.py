"""D7: Raft without PreVote under partial connectivity.

H. Howard, I. Abraham, "Raft does not guarantee liveness in the face of network faults", 2020; T. Lianza, C. Snook,
"A Byzantine failure in the real world", Cloudflare, 2020 (an outage of six and a half hours).

A server that does not hear the leader cannot win, yet each of its candidacies deposes the leader. PreVote stops it
from standing, CheckQuorum stops the others from listening.
"""

from __future__ import annotations

import numpy as np

from sim.plan.attacks import Attack, Pair, Play, Seen, agrees
from sim.scenario.run import Result

BEGUN_S = 1.0
TIMEOUT_MS = (150, 300)  # election timeout, as by default


def terms(result: Result) -> np.ndarray:
    """Terms of the entries proposed after the links were cut."""
    blocks = result.tables["blocks"]
    late = np.asarray(blocks["proposed_ns"]) >= BEGUN_S * 1e9
    return np.asarray(blocks["view"])[late]


def restless(result: Result) -> Seen:
    """Terms grow for ever, and a leader lasts about one election timeout."""
    seen = terms(result)
    leaders = len(np.unique(seen))
    tenure_ms = (result.scenario.duration_ns / 1e9 - BEGUN_S) * 1000 / max(leaders, 1)
    good = int(seen.max()) > 100 and TIMEOUT_MS[0] / 2 < tenure_ms < 2 * TIMEOUT_MS[1]
    tps = float(result.metrics["committed_tps"] or 0)
    text = f"term {int(seen.max())}, a leader lasts {tenure_ms:.0f} ms, {tps:.0f} tx/s"
    return Seen(good and agrees(result).as_expected, text)


def calm(result: Result) -> Seen:
    """One leader, for good."""
    seen = terms(result)
    tps = float(result.metrics["committed_tps"] or 0)
    one = len(np.unique(seen)) == 1
    return Seen(one and agrees(result).as_expected, f"term {int(seen.max())} for good, {tps:.0f} tx/s")


ATTACK = Attack(
    "D7",
    "Raft without PreVote, partial connectivity",
    "Howard and Abraham 2020; Cloudflare 2020",
    "terms grow for ever, a leader lasts about one election timeout, throughput collapses",
    "PreVote and CheckQuorum: one stable leader",
    (
        Pair(
            "5 servers, two of them with one link",
            Play("d7-partial.yaml", restless),
            Play("d7-partial.yaml", calm, ("protocol.pre_vote=true", "protocol.check_quorum=true")),
        ),
    ),
)
