"""D8: a cloned sealer of Clique.

P. Ekparinya, V. Gramoli, G. Jourjon, "The Attack of the Clones against Proof-of-Authority", NDSS 2020
(arXiv 1902.10244).

With the clone each side of a 4 and 4 split of nine sealers has five, and goes on. When the sides hear each other
again, one of them gives up a branch as deep as the split was long, final blocks included: what was paid there can be
paid again. The control has no clone, and the ninth sealer is down during the split: neither side reaches five.
"""

from __future__ import annotations

import numpy as np

from sim.plan.attacks import Attack, Pair, Play, Seen
from sim.scenario.run import Result

FROM_S, TO_S, PERIOD_S = 30, 60, 1


def reorganises(result: Result) -> Seen:
    """A reorganisation about as deep as the split was long, and final blocks given up (a double spend)."""
    depth = int(result.metrics["reorg_depth_max"] or 0)
    flagged = [violation for violation in result.violations if violation.check == "finality"]
    deep = depth >= 0.6 * (TO_S - FROM_S) / PERIOD_S
    text = f"reorganisation {depth} blocks deep, {len(flagged)} final blocks given up"
    return Seen(deep and bool(flagged), text)


def halts(result: Result) -> Seen:
    """Nothing is final during the split (but its first blocks), nothing is given up, and it goes on after."""
    times_s = np.asarray(result.tables["blocks"]["first_ns"]) / 1e9
    during = int(((times_s > FROM_S + 6 * PERIOD_S) & (times_s < TO_S)).sum())
    after = int((times_s > TO_S).sum())
    safe = not any(violation.kind == "safety" for violation in result.violations)
    text = f"{during} decisions during the split, {after} after it, " + ("safe" if safe else "NOT safe")
    return Seen(safe and during == 0 and after > 0, text)


ATTACK = Attack(
    "D8",
    "Clique, cloned sealer",
    "Ekparinya et al., NDSS 2020, arXiv 1902.10244",
    "both sides extend; on healing a reorganisation as deep as the split was long; a double spend is flagged",
    "without the clone a 4 and 4 split halts both sides",
    (
        Pair(
            "n = 9, split 4 and 4 for 30 s",
            Play("d8-clone.yaml", reorganises),
            Play(
                "d8-clone.yaml",
                halts,
                ("corrupted=[]", f"faults=[{{at: {FROM_S} s, for: {TO_S - FROM_S} s, crash: {{nodes: [8]}}}}]"),
            ),
        ),
    ),
)
