"""Patience: how long replicas wait for others where a full block takes long to send, or to execute.

A replica that waits less than a block needs on its way suspects a leader that does its work. Whoever runs a network
sets timers for its blocks and cards; so a scenario that sets none of its protocol's has them raised, and is told so.
Execution depends on what contracts do, and real networks stumble over it: there the scenario is told, and no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.parameters import Parameters, key_of
from sim.protocols import PROTOCOLS
from sim.units import format_ns
from sim.workload.settings import DemandLoad, Trace

if TYPE_CHECKING:
    from sim.scenario.schema import Scenario

# A leader's patience lasts while its own block leaves, and while the next leader's arrives; the third is to spare.
SENDINGS = 3
_STEP_NS = 100_000_000


def transaction_bytes(scenario: Scenario) -> int:
    """The largest transaction that anybody sends here, bytes."""
    largest = 0
    for load in scenario.workload:
        if isinstance(load, DemandLoad):
            largest = max(largest, *(one.row.size_bytes for one in load.classes()))
        elif isinstance(load, Trace):
            largest = max(largest, int(load.rows[:, 2].max()))
        else:
            largest = max(largest, load.size_bytes)
    return largest


def block_bytes(scenario: Scenario) -> int:
    """The most that the transactions of a block can take here, bytes."""
    return min(scenario.block.max_bytes, scenario.block.max_transactions * transaction_bytes(scenario))


def sending_ns(scenario: Scenario) -> int:
    """How long the slowest card of a voter takes to send a full block, or as many as may be under way, to all, ns."""
    at_once = getattr(scenario.protocol.parameters, "pipeline", 1)
    copies = (scenario.network.n - 1) * at_once
    cards = (rule.upload_ps_per_byte for rule in scenario.nodes if rule.upload_ps_per_byte is not None)
    return block_bytes(scenario) * copies * max(scenario.network.bandwidth_ps_per_byte, *cards, 0) // 1000


def raised(scenario: Scenario) -> tuple[dict[str, int], str]:
    """The waits of the scenario's protocol that are too short and were not set, ns, and a sentence about them.

    Empty where nothing is to be raised.
    """
    parameters: Parameters = scenario.protocol.parameters
    fields = parameters.patience()
    if not fields:
        return {}, ""
    took_ns, first_ns = sending_ns(scenario), getattr(parameters, fields[0])
    if first_ns >= SENDINGS * took_ns or not first_ns:
        return {}, ""
    what = f"a full block takes a card {took_ns / 1e9:.2g} s to send to all, and {key_of(fields[0])}"
    if {*fields} & parameters.model_fields_set:
        if first_ns >= took_ns:
            return {}, ""
        return {}, f"{what} is {format_ns(first_ns)}: leaders that work are suspected; raise it"
    longer = {name: _longer_ns(getattr(parameters, name), SENDINGS * took_ns, first_ns) for name in fields}
    now = ", ".join(f"{key_of(name)} {format_ns(value)}" for name, value in longer.items())
    return longer, f"{what} would be {format_ns(first_ns)}: raised, since the scenario does not set it, to {now}"


def executing(scenario: Scenario) -> str:
    """A sentence about full blocks whose execution, before a proposal and before votes, outlasts patience; or ""."""
    name, cpu, block = scenario.protocol.name, scenario.cpu, scenario.block
    parameters: Parameters = scenario.protocol.parameters
    wait = parameters.least_wait()
    if wait is None or name not in PROTOCOLS or scenario.endorsement is not None:
        return ""
    place = PROTOCOLS[name].protocol.executes if cpu.execution == "auto" else cpu.execution
    if place != "before_vote":
        return ""
    count = min(block.max_transactions, block.max_bytes // max(transaction_bytes(scenario), 1))
    each_ns = -(-cpu.execute_ns // cpu.lanes) + cpu.execute_io_ns
    took_ns, first_ns = cpu.execute_block_ns + count * each_ns, getattr(parameters, wait)
    if not first_ns or first_ns >= 2 * took_ns:
        return ""
    what = f"a block of {count} transactions takes {took_ns / 1e9:.2g} s to execute before it is proposed, and as long"
    remedy = "leaders that work are suspected once blocks are that full; raise it, or lower block.max_transactions"
    return f"{what} before votes; {key_of(wait)} is {format_ns(first_ns)}: {remedy}"


def _longer_ns(value_ns: Any, wanted_ns: int, first_ns: int) -> int:
    """A wait in the proportion in which the first wait grows, in steps of 100 ms."""
    return -(-int(value_ns) * wanted_ns // first_ns // _STEP_NS) * _STEP_NS
