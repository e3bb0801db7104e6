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
    """A scenario of the rounds of a Caliper benchmark, one after the other, as far as they say a rate."""
    draft = Draft("a benchmark file of Caliper")
    test = section(data, "test", "")
    rounds = test["rounds"]
    if not isinstance(rounds, list) or not rounds or not all(isinstance(entry, Mapping) for entry in rounds):
        raise ForeignFileError("test.rounds: must be a list of rounds; check the file")
    steps: list[tuple[float, float, int]] = []
    for i, entry in enumerate(rounds):
        step = _round(draft, entry, f"test.rounds.{i}", alone=len(rounds) == 1)
        if step is None and i:
            labels = ", ".join(str(other.get("label", "?")) for other in rounds[i : i + 8])
            draft.leave("test.rounds", f"what comes before {labels} is the scenario; write another for the rest")
        if step is None:
            break
        steps.append(step)
    if steps:
        at = "test.rounds" if len(rounds) > 1 else "test.rounds.0.rateControl"
        _put_steps(draft, steps, f"{at}: {len(steps)} of {len(rounds)}" if len(rounds) > 1 else at)
        draft.put("duration", shown_time(sum(ns for _, _, ns in steps)), at)
    draft.leave_rest(test, {"rounds"}, "test.")
    draft.leave_rest(data, {"test"}, "")
    draft.assume()
    return draft


def _round(draft: Draft, entry: Mapping[str, Any], at: str, *, alone: bool) -> tuple[float, float, int] | None:
    """A round's rate at its beginning and end, and its length, ns; None if it has none, or is a closed loop."""
    control = section(entry, "rateControl", f"{at}.")
    options = section(control, "opts", f"{at}.rateControl.")
    kind = str(control.get("type", "fixed-rate"))
    draft.leave_rest(entry, {"rateControl", "txDuration", "txNumber", "label"}, f"{at}.")
    at_options = f"{at}.rateControl.opts"
    if kind == "fixed-load" and alone:
        load = whole(options.get("transactionLoad", 10), f"{at_options}.transactionLoad")
        text = f"kind: closed, outstanding: {load}"
        if "txNumber" in entry:
            text += f", count: {whole(entry['txNumber'], f'{at}.txNumber')}"
        draft.put("workload", f"[{{{text}}}]", f"{at}.rateControl: fixed-load")
        if "txDuration" in entry:
            draft.put("duration", shown_time(seconds_ns(entry["txDuration"], f"{at}.txDuration")), f"{at}.txDuration")
        return None
    if kind == "linear-rate":
        low, high = (number(options.get(key, 0), f"{at_options}.{key}") for key in ("startingTps", "finishingTps"))
    elif "tps" in options:
        low = high = number(options["tps"], f"{at_options}.tps")
        if kind != "fixed-rate":
            draft.leave(f"{at}.rateControl", f"{kind} is a constant rate here")
    else:
        draft.leave(f"{at}.rateControl", f"{kind} has no rate that could be carried over")
        return None
    if low + high == 0:
        raise ForeignFileError(f"{at_options}: the rate is 0 tx/s, so that nothing is sent; raise it")
    if "txDuration" in entry:
        return low, high, seconds_ns(entry["txDuration"], f"{at}.txDuration")
    if "txNumber" in entry:
        length_s = whole(entry["txNumber"], f"{at}.txNumber") / ((low + high) / 2)
        return low, high, max(seconds_ns(length_s, f"{at}.txNumber") // 10**6, 1) * 10**6
    draft.leave(at, "has no length; it lasts a minute here")
    return low, high, 60 * 10**9


def _put_steps(draft: Draft, steps: list[tuple[float, float, int]], why: str) -> None:
    """An open loop of rates one after the other, as evenly spaced as harnesses send."""
    if all(low == high == steps[0][0] for low, high, _ in steps):
        draft.put("workload", f"[{{kind: open, rate: {steps[0][0]:g} tx/s, arrivals: uniform}}]", why)
        return
    shown = []
    for low, high, ns in steps:
        to = "" if low == high else f" to: {high:g} tx/s,"
        shown.append(f"{{rate: {low:g} tx/s,{to} for: {shown_time(ns)}}}")
    draft.put("workload", f"[{{kind: open, arrivals: uniform, steps: [{', '.join(shown)}]}}]", why)


def convert_diablo(data: Mapping[str, Any]) -> Draft:
    """A scenario of a Diablo workload: rates that change evenly from each point to the next."""
    draft = Draft("a workload file of Diablo")
    points = sorted(
        (number(time, f"bench.txs.{time}"), number(rate, f"bench.txs.{time}"))
        for time, rate in section(section(data, "bench", ""), "txs", "bench.").items()
    )
    if not points:
        raise ForeignFileError("bench.txs: is empty; write seconds and rates, such as 0: 70")
    if not any(rate for _, rate in points):
        raise ForeignFileError("bench.txs: the rate is 0 tx/s, so that nothing is sent; raise it")
    ends = itertools.pairwise(points)
    steps = [(a[1], b[1], seconds_ns(b[0] - a[0], "bench.txs")) for a, b in ends if b[0] > a[0]]
    if points[0][0] > 0:
        steps.insert(0, (0.0, 0.0, seconds_ns(points[0][0], "bench.txs")))
    if steps:
        draft.put("duration", shown_time(sum(ns for _, _, ns in steps)), f"bench.txs ends at {points[-1][0]:g} s")
    _put_steps(draft, steps or [(points[0][1], points[0][1], 1)], "bench.txs")
    draft.leave_rest(section(data, "bench", ""), {"txs"}, "bench.")
    draft.leave_rest(data, {"bench"}, "")
    draft.assume()
    return draft
