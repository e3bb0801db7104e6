"""Workloads of benchmark harnesses: Caliper's benchmark files and Diablo's.

Caliper documentation, "Rate controllers"; Diablo's workload files as in its repository.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from sim.scenario.foreign.draft import Draft, ForeignFileError, number, seconds_ns, section, shown_time, whole


def is_caliper(data: Any) -> bool:
    """Whether this is a benchmark file of Caliper."""
    test = data.get("test") if isinstance(data, Mapping) else None
    return isinstance(test, Mapping) and "rounds" in test


def is_diablo(data: Any) -> bool:
    """Whether this is a workload file of Diablo."""
    bench = data.get("bench") if isinstance(data, Mapping) else None
    return isinstance(bench, Mapping) and "txs" in bench


def convert_caliper(data: Mapping[str, Any]) -> Draft:
    """A scenario of the first round of a Caliper benchmark."""
    draft = Draft("a benchmark file of Caliper")
    test = section(data, "test", "")
    rounds = test["rounds"]
    if not isinstance(rounds, list) or not rounds or not isinstance(rounds[0], Mapping):
        raise ForeignFileError("test.rounds: must be a list of rounds; check the file")
    first = rounds[0]
    control = section(first, "rateControl", "test.rounds.0.")
    options = section(control, "opts", "test.rounds.0.rateControl.")
    kind, at = str(control.get("type", "fixed-rate")), "test.rounds.0.rateControl"
    rate: float | None = None
    if kind == "fixed-load":
        load = whole(options.get("transactionLoad", 10), f"{at}.opts.transactionLoad")
        draft.put("workload", f"[{{kind: closed, outstanding: {load}}}]", f"{at}: fixed-load")
    elif kind == "linear-rate":
        low, high = (number(options.get(key, 0), f"{at}.opts.{key}") for key in ("startingTps", "finishingTps"))
        rate = (low + high) / 2
        draft.leave(at, f"the rate rises from {low:g} to {high:g} tx/s there, and is their mean here")
    elif "tps" in options:
        rate = number(options["tps"], f"{at}.opts.tps")
        if kind != "fixed-rate":
            draft.leave(at, f"{kind} is a constant rate here")
    else:
        draft.leave(at, f"{kind} has no rate that could be carried over")
    if rate is not None:
        if rate == 0:
            raise ForeignFileError(f"{at}.opts: the rate is 0 tx/s, so that nothing is sent; raise it")
        draft.put("workload", f"[{{kind: open, rate: {rate:g} tx/s, arrivals: uniform}}]", f"{at}: {kind}")
    if "txDuration" in first:
        time_ns = seconds_ns(first["txDuration"], "test.rounds.0.txDuration")
        draft.put("duration", shown_time(time_ns), f"test.rounds.0.txDuration: {first['txDuration']}")
    elif "txNumber" in first and rate:
        time_ns = seconds_ns(whole(first["txNumber"], "test.rounds.0.txNumber") / rate, "test.rounds.0.txNumber")
        draft.put(
            "duration",
            shown_time(max(time_ns // 10**6, 1) * 10**6),
            f"test.rounds.0.txNumber: {first['txNumber']} at that rate",
        )
    if len(rounds) > 1:
        labels = ", ".join(str(entry.get("label", "?")) if isinstance(entry, Mapping) else "?" for entry in rounds[1:8])
        draft.leave("test.rounds", f"the first alone is a scenario; the others are {labels}")
    draft.leave_rest(first, {"rateControl", "txDuration", "txNumber", "label"}, "test.rounds.0.")
    draft.leave_rest(test, {"rounds"}, "test.")
    draft.leave_rest(data, {"test"}, "")
    draft.assume()
    return draft


def convert_diablo(data: Mapping[str, Any]) -> Draft:
    """A scenario of a Diablo workload: its mean rate."""
    draft = Draft("a workload file of Diablo")
    steps = section(section(data, "bench", ""), "txs", "bench.")
    points = sorted(
        (number(time, f"bench.txs.{time}"), number(rate, f"bench.txs.{time}")) for time, rate in steps.items()
    )
    if not points:
        raise ForeignFileError("bench.txs: is empty; write seconds and rates, such as 0: 70")
    length_s = points[-1][0]
    if length_s > 0:
        sent = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))
        rate = sent / length_s
        draft.put("duration", shown_time(seconds_ns(length_s, "bench.txs")), f"bench.txs ends at {length_s:g} s")
    else:
        rate = points[0][1]
    if rate <= 0:
        raise ForeignFileError("bench.txs: the rate is 0 tx/s, so that nothing is sent; raise it")
    if len({value for _, value in points}) > 1:
        draft.leave("bench.txs", "the rate changes over time there, and is its mean here")
    draft.put("workload", f"[{{kind: open, rate: {rate:g} tx/s, arrivals: uniform}}]", "bench.txs")
    draft.leave_rest(section(data, "bench", ""), {"txs"}, "bench.")
    draft.leave_rest(data, {"bench"}, "")
    draft.assume()
    return draft
