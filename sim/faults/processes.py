"""Faults that unfold: what nodes do after power is lost, how a storm moves, how a link flaps, how floods are sent.

Each is a SimPy process that a fault's script starts and waits for. What a reader should know besides times and
counts it writes into the fault's report.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from sim.faults.disasters import LoseDomain, LosePower, Storm
from sim.faults.gray import ClientBurst, FlapLink, InvalidFlood
from sim.faults.settings import Fault
from sim.faults.weibull import weibull_ns
from sim.kernel import chance

if TYPE_CHECKING:
    from sim.faults.script import FaultScript

_MOST_AT_ONCE = 100  # transactions
_LEAST_STEP_NS = 1_000_000
_HIT, _CUT, _DOWN_NS, _CUT_NS, _DIESEL = range(5)  # what is drawn of a node

FaultProcess = Generator[Any, Any, None]


def course_of(script: FaultScript, number: int, fault: Fault) -> FaultProcess | None:
    """The process of a fault that unfolds; None if it only begins and ends."""
    if fault.lose_domain is not None and fault.lose_domain.repair is not None:
        return _repairs(script, number, fault.lose_domain)
    if fault.lose_power is not None:
        return _power(script, number, fault, fault.lose_power)
    if fault.storm is not None:
        return _storm(script, number, fault.storm)
    if fault.flap_link is not None:
        return _flap(script, number, fault, fault.flap_link)
    if fault.client_burst is not None:
        return _burst(script, number, fault, fault.client_burst)
    if fault.invalid_flood is not None:
        return _flood(script, number, fault, fault.invalid_flood)
    return None


def _share(script: FaultScript, number: int, node: int, what: int) -> float:
    """A draw in [0, 1) for a fault and a node."""
    return chance.draw_below(1 << 30, script.run.seed, chance.FAULT, number, node, what) / (1 << 30)


def _strike(script: FaultScript, number: int, node: int, length_ns: int, *, down: bool) -> None:
    """A node stops, or loses its access fibre, and is back after a while."""
    if down:
        script.stop(number, (node,))
        script.later(length_ns, lambda: script.release(number, node))
    else:
        script.isolate(number, node)
        script.later(length_ns, lambda: script.rejoin(number, node))


def _repairs(script: FaultScript, number: int, action: LoseDomain) -> FaultProcess:
    repair = action.repair
    assert repair is not None
    longest = 0
    for node in script.ends.domain(action.domain):
        keys = (script.run.seed, chance.FAULT, number, node, _DOWN_NS)
        length_ns = weibull_ns(repair.shape, repair.scale_ns, repair.cap_ns, *keys)
        longest = max(longest, length_ns)
        _strike(script, number, node, length_ns, down=True)
    script.tell()
    script.reports[number].note = f"the last is back after {longest / 1e9:.3g} s"
    yield script.clock.wait(longest)


def _power(script: FaultScript, number: int, fault: Fault, action: LosePower) -> FaultProcess:
    """Batteries carry all, generators those whose draw lets them start; then nodes stop until the fault ends."""
    nodes = script.ends.nodes(action.nodes)
    diesel = [node for node in nodes if _share(script, number, node, _DIESEL) < action.diesel_starts]
    script.reports[number].note = f"{len(diesel)} of {len(nodes)} generators start"
    left_ns = None if fault.end_ns is None else fault.end_ns - fault.at_ns
    without = tuple(node for node in nodes if node not in diesel)
    stages = ((action.battery_ns, without), (action.battery_ns + action.diesel_ns, tuple(diesel)))
    passed_ns = 0
    for after_ns, stopped in stages:
        if left_ns is not None and after_ns >= left_ns:
            break
        yield script.clock.wait(after_ns - passed_ns)
        passed_ns = after_ns
        script.stop(number, stopped)
        script.tell()
    if left_ns is not None:
        yield script.clock.wait(left_ns - passed_ns)


def _storm(script: FaultScript, number: int, storm: Storm) -> FaultProcess:
    """The core passes a domain every `pace_h` hours; a node is struck when its domain is."""
    strikes = [(i * storm.pace_h, domain, storm.down_core, storm.cut_core) for i, domain in enumerate(storm.track)]
    strikes += [(0.0, domain, storm.down_flank, storm.cut_flank) for domain in storm.flank]
    strikes.sort(key=lambda strike: strike[0])
    scale_ns, cap_ns = round(storm.scale_h * storm.hour_ns), round(storm.cap_h * storm.hour_ns)
    begin_ns = over_ns = script.clock.now_ns
    struck = [0, 0]
    for hours, domain, down_share, cut_share in strikes:
        yield script.clock.wait(begin_ns + round(hours * storm.hour_ns) - script.clock.now_ns)
        for node in script.ends.voters_in(domain):
            down = _share(script, number, node, _HIT) < down_share
            if not (down or _share(script, number, node, _CUT) < cut_share):
                continue
            keys = (script.run.seed, chance.FAULT, number, node, _DOWN_NS if down else _CUT_NS)
            length_ns = weibull_ns(storm.shape, scale_ns, cap_ns, *keys)
            over_ns = max(over_ns, script.clock.now_ns + length_ns)
            _strike(script, number, node, length_ns, down=down)
            struck[not down] += 1
        script.tell()
        script.reports[number].note = f"{struck[0]} nodes down, {struck[1]} cut off; shares and durations assumed (A)"
    yield script.clock.wait(over_ns - script.clock.now_ns)


def _flap(script: FaultScript, number: int, fault: Fault, action: FlapLink) -> FaultProcess:
    pairs = script.ends.pairs(*action.between)
    times = 0
    while script.clock.now_ns != fault.end_ns:
        script.cut(number, pairs)
        times += 1
        script.reports[number].note = f"down {times} times"
        if times == 1:
            script.tell()
        yield script.clock.wait(_until_end(script, fault, action.down_ns))
        script.links.let_go(number)
        if script.clock.now_ns != fault.end_ns:
            yield script.clock.wait(_until_end(script, fault, action.up_ns))


def _until_end(script: FaultScript, fault: Fault, length_ns: int) -> int:
    """A period, or what is left of the fault."""
    return length_ns if fault.end_ns is None else min(length_ns, fault.end_ns - script.clock.now_ns)


def _burst(script: FaultScript, number: int, fault: Fault, action: ClientBurst) -> FaultProcess:
    gateway, class_ = script.ends.clients(action.site)
    return _submit(script, number, fault, action.rate_tps, gateway, class_)


def _flood(script: FaultScript, number: int, fault: Fault, action: InvalidFlood) -> FaultProcess:
    gateway, class_ = script.ends.attacker(number)
    return _submit(script, number, fault, action.rate_tps, gateway, class_)


def _submit(script: FaultScript, number: int, fault: Fault, rate_tps: float, gateway: int, class_: int) -> FaultProcess:
    """Transactions evenly spaced; above a thousand a second, several at a time every millisecond."""
    at_once = max(int(rate_tps * _LEAST_STEP_NS / 1e9), 1)
    begin_ns, sent = script.clock.now_ns, 0
    while fault.end_ns is None or script.clock.now_ns < fault.end_ns:
        left = at_once
        while left > 0:
            script.run.submit(gateway, class_, min(left, _MOST_AT_ONCE))
            left -= _MOST_AT_ONCE
        sent += at_once
        script.reports[number].transactions = sent
        script.reports[number].note = f"{sent} transactions"
        next_ns = begin_ns + max(round(sent * 1e9 / rate_tps), 1)
        yield script.clock.wait(_until_end(script, fault, next_ns - script.clock.now_ns))
