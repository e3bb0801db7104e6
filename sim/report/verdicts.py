"""What became of runs, in a word and in plain sentences: the answer that stands before any table.

A run with faults *halts* if nothing was decided in the second half of some outage; it *slows* if it decided, but the
slowest answers took 1.25 times as long as in the same scenario without faults (where that was run too); else it
*goes on*. Without faults it *keeps up*, or *falls behind* where requests that could not have been answered yet pile up.
A run that ended badly is called what it is. Every sentence is computed from the results it speaks of.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sim.faults.settings import Fault
from sim.plan.contingency import SLOW
from sim.plan.objective import success
from sim.report.outcome import Outcome
from sim.report.tables import NOTHING, assumed_metrics, shown
from sim.report.words import Language, counted, listed, say
from sim.units import format_ns

WIDTH = 80
_ENDED = {
    "safety violation": "breaks",
    "liveness failure": "halts for good",
    "truncated": "cut short",
    "conservation violation": "wrong",
}
GRAVEST_FIRST = (
    "wrong", "failed", "breaks", "halts for good", "cut short", "halts", "falls behind", "slows", "goes on", "keeps up",
)  # fmt: skip
_BEHIND = 0.01  # of what was submitted: more that waits too long at the end is a backlog
_SAME = ("name", "description", "faults", "seed", "observers")  # may differ between a run and its calm twin


def verdict(outcome: Outcome, among: Iterable[Outcome] = ()) -> str:
    """What became of a run, in a word or two. `among`: runs in which its calm twin may be."""
    if outcome.status != "ok":
        return _ENDED.get(outcome.status, "failed")
    if not outcome.outages_s:
        return "falls behind" if _is_behind(outcome) else "keeps up"
    if _halts(outcome):
        return "halts"
    calm = calm_twin(outcome, among)
    p99, calm_p99 = outcome.metrics["latency_p99_ms"], calm and calm.metrics["latency_p99_ms"]
    return "slows" if p99 and calm_p99 and p99 > SLOW * calm_p99 else "goes on"


def _is_behind(outcome: Outcome) -> bool:
    share = success(outcome.metrics, float(outcome.metrics["latency_p99_ms"] or 0) / 1000)
    offered = outcome.metrics["offered_tps"]
    return offered is not None and share is not None and share < 1 - _BEHIND and bool(outcome.metrics["pending"])


def _halts(outcome: Outcome) -> bool:
    """Whether nothing was decided in the second half of an outage."""
    times = outcome.tables["timeline"]
    start, width = (np.asarray(times[name], float) for name in ("start_s", "width_s"))
    decisions = np.asarray(times["decisions"])
    for begins, ends in outcome.outages_s:
        inside = (start >= (begins + ends) / 2) & (start + width <= ends)
        if inside.any():
            if not decisions[inside].any():
                return True
        elif (outcome.metrics["longest_pause_s"] or 0) >= (ends - begins) / 2 > 0:
            return True  # shorter than a bin of the timeline
    return False


def calm_twin(outcome: Outcome, among: Iterable[Outcome]) -> Outcome | None:
    """The run of the same scenario without faults, if it is among these."""

    def rest(one: Outcome) -> str:
        return json.dumps({k: v for k, v in one.scenario.items() if k not in _SAME}, sort_keys=True)

    mine = rest(outcome)
    return next((one for one in among if not one.scenario["faults"] and rest(one) == mine), None)


# --- sentences --------------------------------------------------------------------------------------------------------


def answer(outcomes: Sequence[Outcome], language: Language = "en") -> list[str]:
    """What these runs show, a sentence or two each, the worst first."""
    said = {outcome.label: verdict(outcome, outcomes) for outcome in outcomes}
    lines = [_bad(outcome, said[outcome.label], language) for outcome in outcomes if outcome.status != "ok"]
    fine = [outcome for outcome in outcomes if outcome.status == "ok"]
    storms: dict[str, list[Outcome]] = {}
    for outcome in fine:
        if outcome.outages_s:
            storms.setdefault(what_is_lost(outcome, language), []).append(outcome)
    for lost, runs in storms.items():
        lines += _under(lost, runs, said, language)
    calm = [outcome for outcome in fine if not outcome.outages_s]
    if calm:
        lines += _calm(calm, said, language)
    return lines


def _bad(outcome: Outcome, word: str, language: Language) -> str:
    key = {"breaks": "is broken", "halts for good": "is stuck", "cut short": "is cut"}.get(word, "is bad")
    return say(language, key, names=outcome.label, status=outcome.status)


def _under(lost: str, runs: Sequence[Outcome], said: dict[str, str], language: Language) -> list[str]:
    halting = [run for run in runs if said[run.label] == "halts"]
    others = [run for run in runs if said[run.label] != "halts"]
    lines = []
    if halting:
        after = _recovery(halting, language)
        lines.append(say(language, "halt", lost=lost, names=names(halting, language), after=after))
    if others:
        pauses = listed([time(float(run.metrics["longest_pause_s"] or 0)) for run in others], language)
        key = "others" if halting else "none"
        values = {"lost": lost, "names": names(others, language), "times": pauses}
        lines.append(counted(language, key, len(others), **values))
        slow = [run for run in others if said[run.label] == "slows"]
        if slow:
            lines.append(counted(language, "slow", len(slow), names=names(slow, language), times=SLOW))
    return lines


def _recovery(halting: Sequence[Outcome], language: Language) -> str:
    times = [run.metrics["recovery_s"] for run in halting]
    if any(one is None for one in times):
        return ""
    said = listed([time(float(one or 0)) for one in times], language)
    return counted(language, "after", len(times), they="they decide", times=said)


def _calm(runs: Sequence[Outcome], said: dict[str, str], language: Language) -> list[str]:
    behind = [run for run in runs if said[run.label] == "falls behind"]
    fine = [run for run in runs if said[run.label] != "falls behind"]
    waits = [(run.label, shown(run.metrics["pending"], 0)) for run in behind]
    lines = [say(language, "behind", names=label, count=pending) for label, pending in waits]
    answered = [run for run in fine if run.metrics["latency_p99_ms"] is not None]
    if answered:
        p99 = listed([f"{shown(run.metrics['latency_p99_ms'], 1)} ms" for run in answered], language)
        values = {"names": names(answered, language), "rate": _rate(answered, language), "times": p99}
        lines.append(counted(language, "keep", len(answered), **values))
    return lines


def _rate(runs: Sequence[Outcome], language: Language) -> str:
    rates = {shown(run.metrics["offered_tps"], 1) for run in runs if run.metrics["offered_tps"] is not None}
    return say(language, "rate", rate=rates.pop()) if len(rates) == 1 else ""


def what_is_lost(outcome: Outcome, language: Language = "en") -> str:
    """The faults of a run as the subject of a sentence."""
    faults = outcome.scenario["faults"]
    if len(faults) != 1:
        return say(language, "faults", count=len(faults)) if faults else say(language, "no fault")
    fault = faults[0]
    kind = Fault.model_validate(fault).kind
    about = {key: value for key, value in (fault[kind] or {}).items() if value is not None}
    nodes = [str(node) for node in about.get("nodes", ())]
    those = say(language, "node" if len(nodes) == 1 else "nodes", nodes=listed(nodes or [""], language))
    words = {
        "domain": about.get("domain", ""),
        "between": "-".join(map(str, about.get("between", ()))),
        "nodes": those if nodes else say(language, "all nodes"),
    }
    length_ns = fault["stands_for_ns"] or fault["for_ns"]
    if length_ns is None and fault["until_ns"] is not None:
        length_ns = fault["until_ns"] - fault["at_ns"]
    length = "" if length_ns is None else say(language, "for", time=format_ns(length_ns))
    return say(language, kind, **words) + length


def names(outcomes: Sequence[Outcome], language: Language = "en") -> str:
    """Their labels in a row."""
    return listed([outcome.label for outcome in outcomes], language)


def time(seconds: float) -> str:
    """A time for people: 74 h, 4.24 s, 140 ms."""
    if seconds >= 3600:
        return f"{seconds / 3600:,.3g} h"
    if seconds >= 120:
        return f"{seconds / 60:,.3g} min"
    return f"{seconds:,.3g} s" if seconds >= 1 else f"{seconds * 1000:,.3g} ms"


def wrapped(lines: Iterable[str], width: int = WIDTH) -> str:
    """Sentences, each from a new line, none wider than the terminal."""
    return "\n".join(textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False) for line in lines)


# --- the short table --------------------------------------------------------------------------------------------------

_SHOWN = (("committed", "tx/s", "committed_tps"), ("p50", "ms", "latency_p50_ms"), ("p99", "ms", "latency_p99_ms"))


def short_table(outcomes: Sequence[Outcome]) -> str:
    """Whole names, verdicts and the four numbers that people ask for first. Below 80 columns for names up to 33."""
    marked = assumed_metrics(outcomes)
    heads = [["design", ""], ["verdict", ""]]
    heads += [[title, f"{unit}{' (A)' if metric in marked else ''}"] for title, unit, metric in _SHOWN]
    heads.append(["pause", "(A)" if "longest_pause_s" in marked else ""])
    body = [_row(outcome, outcomes) for outcome in outcomes]
    wide = [max(len(text) for text in [*head, *(row[i] for row in body)]) for i, head in enumerate(heads)]
    lines = [_joined([head[k] for head in heads], wide) for k in range(2)]
    return "\n".join([*lines, *(_joined(row, wide) for row in body)])


def _row(outcome: Outcome, among: Sequence[Outcome]) -> list[str]:
    numbers: list[Any] = [shown(outcome.metrics[metric], 1) for _, _, metric in _SHOWN]
    pause = outcome.metrics["longest_pause_s"]
    return [outcome.label, verdict(outcome, among), *numbers, NOTHING if pause is None else time(float(pause))]


def _joined(cells: Sequence[str], wide: Sequence[int]) -> str:
    left = [cell.ljust(width) for cell, width in zip(cells[:2], wide, strict=False)]
    right = [cell.rjust(width) for cell, width in zip(cells[2:], wide[2:], strict=True)]
    return "  ".join([*left, *right]).rstrip()
