"""What a fault does to latencies as a whole: the area between two distributions.

V. Gramoli, R. Guerraoui, A. Lebedev, G. Voron, "Stabl: The Sensitivity of Blockchains to Failures", Middleware 2024:
sensitivity is the area between the latency distributions of a run with failures and one without; it is infinite where
the failures end liveness.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def sensitivity_s(altered: Mapping[str, Any], baseline: Mapping[str, Any], *, live: bool = True) -> float:
    """Area between two cumulative distributions of latency, seconds.

    Each is a table of a result (`latency_client` or `latency_final`): columns latency_us, ascending, and transactions.
    Infinite if the altered run is not `live` or either is empty.
    """
    sides = []
    for table in (altered, baseline):
        latency = np.asarray(table["latency_us"], dtype=float)
        weight = np.asarray(table["transactions"], dtype=float)
        if not live or weight.sum() == 0:
            return math.inf
        sides.append((latency, np.cumsum(weight) / weight.sum()))
    points = np.union1d(sides[0][0], sides[1][0])
    shares = [_share(*side, points) for side in sides]
    gap = np.abs(shares[0] - shares[1])[:-1]
    return float((gap * np.diff(points)).sum()) / 1e6


def _share(latency: np.ndarray, cumulative: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The share of transactions at most as late as each point."""
    at = np.searchsorted(latency, points, side="right")
    return np.concatenate(([0.0], cumulative))[at]
