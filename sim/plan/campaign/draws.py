"""Configurations in trouble: a whole scenario as a function of a protocol, a seed and a number.

Hunts draw faults over one configuration. Here the configuration is drawn too: voters, links, processors, parameters of
the protocol, blocks, clients and where they enter, observers, members that change. A run has two phases. In the first
anything may break. From `QUIET_S` on a *healthy core* is left: every voter runs and is linked, but for at most f that
are crashed for good or corrupted. It must decide something within `BOUND_S`.

Timers are drawn, but from values that are long enough for the drawn links, as each protocol's page asks for: what a
protocol does with timers that are too short is no finding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sim.faults.rules import ROLES
from sim.kernel import chance
from sim.parameters import key_of
from sim.protocols import Entry

Data = dict[str, Any]

QUIET_S = 4.0  # trouble is over by then
BOUND_S = 60.0  # and something is decided so much later at the latest
DURATION_S = QUIET_S + 2 * BOUND_S
_KEY, _DEPLOYED_KEY, _KEYED_KEY = 41, 42, 43  # of the draws
_STEP_MS = 50  # times are multiples of this, so that findings read well


@dataclasses.dataclass(frozen=True)
class Draw:
    """One configuration: the scenario's data, and how many voters are corrupted in it."""

    data: Data
    corrupted: int
    bears: int  # how many corrupted voters the protocol tolerates in it


class _Dice:
    """A generator of one configuration's draws."""

    def __init__(self, *keys: int) -> None:
        self._rng = np.random.default_rng(chance.draw(*keys))

    def among(self, count: int) -> int:
        """A number below `count`."""
        return int(self._rng.integers(count))

    def happens(self, chance_: float) -> bool:
        return bool(self._rng.random() < chance_)

    def one(self, choices: Sequence[Any]) -> Any:
        return choices[self.among(len(choices))]

    def some(self, n: int, most: int, least: int = 1) -> list[int]:
        """Between `least` and `most` of n nodes."""
        size = least + self.among(max(most - least, 0) + 1)
        return sorted(self._rng.permutation(n)[:size].tolist())

    def split(self, nodes: Sequence[int]) -> tuple[list[int], list[int]]:
        """Two groups, neither of them empty."""
        mixed = self._rng.permutation(np.array(nodes)).tolist()
        middle = 1 + self.among(len(mixed) - 1)
        return sorted(mixed[:middle]), sorted(mixed[middle:])

    def halves(self, nodes: Sequence[int]) -> list[list[int]]:
        """Two groups as equal as they can be."""
        mixed = self._rng.permutation(np.array(nodes)).tolist()
        middle = len(mixed) // 2
        return [sorted(mixed[:middle]), sorted(mixed[middle:])]


def _apart(corrupted: list[Data]) -> list[Data]:
    """Faults that keep the groups of twins beyond the bound apart, for as long as there is trouble."""
    groups = corrupted[0].get("groups", ()) if corrupted[0]["behaviour"] == "twin" else ()
    pairs = [[a, b] for a in groups[0] for b in groups[1]] if groups else []
    return [{"at": "0 ms", "until": f"{QUIET_S:g} s", "cut_link": {"between": pair}} for pair in pairs]


def _ms(value: int) -> str:
    return f"{value} ms"


# --- what each protocol's parameters may be --------------------------------------------------------------------------

# Waits for one message exchange or a few: the multiples of the longest one-way delay that are drawn, never below the
# first number of milliseconds.
_WAITS = {
    "request_timeout": (300, (10, 20)), "view_timeout": (300, (12, 20)), "round_timeout": (300, (10, 20)),
    "timeout_propose": (200, (4, 8, 16)), "timeout_propose_delta": (100, (2, 8)),
    "timeout_prevote": (100, (2, 8)), "timeout_prevote_delta": (100, (2, 8)),
    "timeout_precommit": (100, (2, 8)), "timeout_precommit_delta": (100, (2, 8)), "resend_after": (1000, (10, 40)),
    "aggregation_timeout": (100, (3, 6)), "status_interval": (1000, (10, 40)),
}  # fmt: skip
_VALUES: dict[str, tuple[Any, ...]] = {
    "pipeline": (1, 1, 2, 4, 16), "proposer_policy": ("round-robin", "sticky"),
    "group": (4, 4, 5, 7), "epoch": (1, 3, 10, 1000), "rotate": (1, 1, 2), "timeout_commit": ("0 s", "0 s", "200 ms"),
    "dissemination": ("direct", "direct", "gossip"), "gossip_degree": (2, 3, 8),
    "membership": ("single", "joint"), "reads": ("off", "read_index", "lease"), "read_interval": ("10 ms", "100 ms"),
    "snapshot_every": (0, 0, 5, 50), "snapshot_size": ("10 kB", "1 MB"), "snapshot_chunk": ("1 kB", "100 kB"),
    "entries_per_append": (1, 4, 64), "pre_vote": (False, True), "check_quorum": (False, True),
    "min_block_delay": ("0 ms", "0 ms", "20 ms"), "empty_block_delay": ("0 ms", "0 ms", "100 ms"),
    "leader_views": (1, 1, 2, 4), "fanout": (2, 3, 4), "confirmations": (1, 3, 6),
    "spread": ("all", "hops"),
    "tie_break": ("lowest_hash", "first_seen"), "blocks_per_answer": (1, 8, 64), "finality": ("two_thirds", "majority"),
}  # fmt: skip
_VIEWS = ("request_timeout", "view_timeout", "round_timeout", "timeout_propose", "election_timeout_low")
_ROUNDS = {"checkpoint_interval": (1, 2, 4, 16, 128)}


def _parameters(dice: _Dice, entry: Entry, n: int, delay_ms: int) -> Data:
    """Parameters of a protocol for n voters on links of at most this one-way delay."""
    names = {key_of(name) for name in entry.parameters.model_fields}
    found: Data = {}
    for name in sorted(names):
        if name in _WAITS:
            least, times = _WAITS[name]
            found[name] = _ms(max(least, delay_ms * dice.one(times)))
        elif name in _VALUES and dice.happens(0.6):
            choices = [choice for choice in _VALUES[name] if _is_allowed(entry, name, choice, n)]
            if choices:
                found[name] = dice.one(choices)
    if "view_timeout_max" in names:
        patience_ms = int(found["view_timeout"].split()[0])
        # Views that may be lost while patience is greatest: two turns of dead leaders. In the first one, voters that
        # crashed at different times may each be in a view of its own, and n - f of them are needed.
        dead = 2 * ((n - 1) // 3) * found.get("leader_views", 1)
        most_ms = max(int(900 * BOUND_S) // (dead + 2), patience_ms)
        found["view_timeout_max"] = _ms(min(dice.one((2, 4)) * patience_ms, most_ms))
    if "delta" in names:
        found["delta"] = _ms(min(max(3 * delay_ms, 40), int(found["view_timeout"].split()[0]) - 50))
    if "checkpoint_interval" in names:
        every = dice.one(_ROUNDS["checkpoint_interval"])
        found["checkpoint_interval"] = every
        found["log_window"] = max(every * dice.one((1, 2, 4)), found.get("pipeline", 1))
    if "heartbeat_interval" in names:
        low = max(150, delay_ms * dice.one((5, 8)))
        high = min(low * dice.one((2, 2, 3)), low + 2000)  # one draw covers no more
        found["election_timeout_low"], found["election_timeout_high"] = _ms(low), _ms(high)
        found["heartbeat_interval"] = _ms(low // dice.one((3, 4)))
    if "snapshot_chunk" in found:  # of which a transfer takes a few dozen at the most
        found["snapshot_size"] = "10 kB" if found["snapshot_chunk"] == "1 kB" else found.get("snapshot_size", "1 MB")
    if found.get("reads") == "lease":
        found["check_quorum"] = True
    if "block_period" in names:
        found["block_period"] = _ms(max(100, delay_ms * dice.one((6, 12))))
        found["wiggle"] = _ms(max(20, delay_ms * dice.one((2, 4))))
    if "step_duration" in names:
        found["step_duration"] = _ms(max(100, delay_ms * dice.one((6, 12))))
    if "power" in names and dice.happens(0.15):
        found["power"] = [1 + dice.among(3) for _ in range(n)]
    if "faults" in names and n >= 7 and dice.happens(0.1):
        found["faults"] = 1
    if "heavy" in names and dice.happens(0.2):
        found["heavy"] = "fastest"
    return found


def _is_allowed(entry: Entry, name: str, value: Any, n: int) -> bool:
    """Whether a parameter takes a value: it is drawn for whatever protocol has one of this name."""
    try:
        entry.parameters.from_text({name: value})
    except ValueError:
        return False
    if not isinstance(value, int) or name not in ("group", "fanout", "gossip_degree"):
        return True
    return value <= n and not (name == "gossip_degree" and value * n % 2)


def tolerated(entry: Entry, parameters: Data, n: int) -> tuple[int, int]:
    """How many voters may be corrupted, and how many corrupted and crashed together, so that the rest must go on."""
    keys = {key_of(field) for field in entry.parameters.model_fields}
    if entry.tolerates_lies:
        group = min(int(parameters.get("group", 4)), n) if "group" in keys else n
        f = int(parameters.get("faults", (group - 1) // 3))
        if "power" in parameters:
            power = sorted(parameters["power"], reverse=True)
            f = 0
            while 3 * sum(power[: f + 1]) < sum(power):
                f += 1
        return f, f
    needed = 2 * n // 3 + 1 if "finality" in keys and parameters.get("finality") != "majority" else n // 2 + 1
    return 0, n - needed


# --- sections --------------------------------------------------------------------------------------------------------


def _network(dice: _Dice, n: int) -> tuple[Data, int]:
    """The links, and the longest time a small message takes on them (about), ms."""
    delay = dice.one((1, 5, 10, 30, 60))
    network: Data = {"nodes": n}
    if dice.happens(0.5):
        network["latency"] = {"model": "fixed", "one_way": _ms(delay)}
    else:
        network["latency"] = {"model": "uniform", "low": "1 ms", "high": _ms(delay + 1)}
    longest = delay + 1
    jitter = dice.among(6)
    if jitter == 0:
        network["jitter"] = {"model": "lognormal", "sigma": dice.one((0.1, 0.3))}
        longest *= 2
    elif jitter == 1 and network["latency"]["model"] == "fixed":
        network["jitter"] = {"model": "uniform", "plus_minus": f"{delay / 2:g} ms"}
        longest += delay
    elif jitter == 2:
        network["jitter"] = {"model": "proportional", "up_to": dice.one((0.1, 1.0))}
        longest *= 2
    if dice.happens(0.3):
        network["links"] = "datagram"
    if dice.happens(0.3):
        network["bandwidth"] = dice.one(("100 Mbit/s", "1 Gbit/s"))
        network["sharing"] = dice.one(("fair", "fair", "fifo", "priority"))
        longest += 40  # a block of 50 kB leaves nine times
    if dice.happens(0.15):
        network["loss"] = dice.one((0.001, 0.01, 0.05))
        if network.get("links") != "datagram":
            network["retransmit_after"] = dice.one(("20 ms", "200 ms"))
            longest += 200
    if dice.happens(0.1):
        network["gst"] = {"at": f"{QUIET_S - 1:g} s", "delta": _ms(longest), "up_to": _ms(dice.one((200, 1500)))}
    return network, longest


def _workload(dice: _Dice) -> list[Data]:
    kind = dice.among(10)
    size = {"bytes": dice.one(("100 B", "512 B"))}
    if kind < 5:
        return [{"kind": "open", "rate": dice.one(("2 tx/s", "20 tx/s", "100 tx/s", "300 tx/s"))} | size]
    if kind < 8:
        return [{"kind": "closed", "outstanding": dice.one((1, 4, 20, 100))} | size]
    return [{"kind": "backlog"} | size]


def _clients(dice: _Dice) -> Data:
    found: Data = {}
    for key, choices in (
        ("entry", ("local", "leader")),
        ("dissemination", ("auto", "forward", "broadcast")),
        ("acknowledge", ("entry", "quorum", "2f + 1")),
        ("resend_after", ("1 s", "5 s")),
        ("failover_after", ("200 ms", "1 s")),
    ):
        if dice.happens(0.4):
            found[key] = dice.one(choices)
    return found


def _cpu(dice: _Dice) -> Data:
    found: Data = {"crypto": dice.one(("none", "ed25519", "sm2-fast", "ecdsa-p256")), "cores": dice.one((1, 2, 4))}
    if dice.happens(0.5):
        found["handle"] = dice.one(("1 us", "20 us"))
    if dice.happens(0.5):
        found["fsync"] = dice.one(("100 us", "2 ms", "5 ms"))
    if dice.happens(0.3):
        found["execute"] = dice.one(("10 us", "200 us"))
    if dice.happens(0.2):
        found["certificates"] = "threshold"
    return found


def _costs_time(data: Data) -> bool:
    cpu = data.get("cpu", {})
    return "handle" in cpu or cpu.get("crypto", "none") != "none"


def _times(dice: _Dice) -> Data:
    last = int(QUIET_S * 1000)
    at = dice.among(last // _STEP_MS - 4) * _STEP_MS
    for_ = dice.one((20, 50, 100, 300, 500, 1000, 2000))
    return {"at": _ms(at), "until": _ms(min(at + for_, last))}


def _fault(dice: _Dice, n: int, *, slow: bool) -> list[Data]:
    """One fault, or one node after the other down for a moment. `slow`: processors cost time."""
    kind = dice.among(12)
    times = _times(dice)
    pair = dice.some(n, 2, 2)
    if kind < 3:
        return [times | {"crash": {"nodes": dice.some(n, n if dice.happens(0.2) else 2)}}]
    if kind < 5:
        return [times | {"partition": {"groups": [dice.some(n, n - 1)]}}]
    if kind == 5:
        return [times | {"cut_link": {"between": pair}}]
    if kind == 6:
        return [times | {"degrade_link": {"between": pair, "add_latency": _ms(dice.one((50, 400)))}}]
    if kind == 7 and slow:
        return [times | {"slow_node": {"nodes": dice.some(n, 2), "cpu": dice.one((2, 10))}}]
    if kind == 8:
        return [times | {"skew_clock": {"nodes": dice.some(n, 2), "rate": dice.one((0.5, 0.9, 1.1, 2))}}]
    if kind == 9:
        return [times | {"flap_link": {"between": pair, "up": "100 ms", "down": _ms(dice.one((20, 200)))}}]
    every, down = dice.one((100, 200, 400)), dice.one((20, 50))
    start = dice.among(20) * _STEP_MS
    turns = range(start, int(QUIET_S * 1000) - down, every)
    return [{"at": _ms(at), "until": _ms(at + down), "crash": {"nodes": [turn % n]}} for turn, at in enumerate(turns)][
        : 4 + dice.among(20)
    ]


def _produce(dice: _Dice, entry: Entry, data: Data) -> None:
    """Another rule of block production, if the protocol knows one; where blocks are executed; a pool that fills up."""
    block: Data = data.get("block", {})
    backlog = data["workload"][0]["kind"] == "backlog"
    if "period" in entry.protocol.block_rules and dice.happens(0.3):
        block.pop("interval", None)
        data["block"] = block | {"period": _ms(dice.one((100, 500)))}
        if dice.happens(0.3):
            data["block"]["empty_period"] = "1 s"
    if "batch_timeout" in entry.protocol.block_rules and not backlog and dice.happens(0.3):
        data["block"] = block | {"batch_timeout": _ms(dice.one((20, 200)))}
    if "execute" in data.get("cpu", {}) and dice.happens(0.5):
        data["cpu"]["execution"] = dice.one(("before_vote", "between", "after"))
    if "execute" in data.get("cpu", {}):  # a full block of 1,000 would outlast timers
        data["block"] = {"max_transactions": 100} | data.get("block", {})
    if not backlog and dice.happens(0.1):
        data["pool"] = {"max_transactions": 100}
        data["block"] = data.get("block", {}) | {"max_transactions": 100}


def _deploy(dice: _Dice, entry: Entry, data: Data, n: int, delay_ms: int) -> None:
    """What deployments add: nodes and links that differ, clocks, pools with limits, flushes, results agreed upon."""
    backlog = data["workload"][0]["kind"] == "backlog"
    network, cpu = data["network"], data.get("cpu", {})
    limited = network.get("sharing") == "fifo" and "bandwidth" in network
    if dice.happens(0.3):
        node: Data = {"nodes": dice.some(n, 2)}
        if dice.happens(0.5):
            node["upload"], node["download"] = dice.one(("100 Mbit/s", "1 Gbit/s")), "1 Gbit/s"
            data["block"] = {"max_transactions": 100} | data.get("block", {})  # 50 kB, and not ten times that
            limited = limited or network.get("sharing") == "fifo"
        if cpu.get("crypto", "none") != "none":
            node["cores"] = dice.one((1, 2, 4))
        if "fsync" in cpu:
            node["disk"] = 2
        if len(node) == 1 or dice.happens(0.3):
            clock = {dice.one(("ahead", "behind")): _ms(dice.one((5, 40)))}
            node["clock"] = clock | (
                {"drift_ppm": dice.one((-50, 50)), "sync_every": "30 s"} if dice.happens(0.5) else {}
            )
        data["nodes"] = [node]
    if dice.happens(0.3):
        link: Data = {"between": dice.some(n, 2, 2), "one_way": _ms(dice.one((1, max(delay_ms // 2, 1))))}
        if dice.happens(0.3):
            link["jitter"] = "2 ms"
        if dice.happens(0.3) and not limited:
            link["bandwidth"] = "100 Mbit/s"
        data["links"] = [link]
    if dice.happens(0.15):
        network |= {"flush_after": "5 ms"} | ({"look_every": "5 ms"} if dice.happens(0.5) else {})
    clients = data.setdefault("clients", {})
    if not entry.protocol.forks and dice.happens(0.3):
        clients["results"] = dice.one(("f + 1", "n - f"))
    block = data.setdefault("block", {})
    if block.get("batch_timeout") and dice.happens(0.6):
        block["batch_from"] = dice.one(("last_block", "beats"))
    elif "batch_timeout" in entry.protocol.block_rules and not block.get("period") and dice.happens(0.2):
        data["block"] = block = {**block, "interval": "50 ms", "ticks": True}
        block.pop("batch_timeout", None)
    if block.get("period") and dice.happens(0.5):
        block["built"] = "at_parent"
    if not backlog and dice.happens(0.3):
        pool = data.setdefault("pool", {})
        pool |= {"max_bytes": "200 kB", "when_full": dice.one(("reject", "evict_oldest"))}
        if dice.happens(0.5):
            pool["expires_after"] = dice.one(("2 s", "20 s"))
        if dice.happens(0.5):
            clients |= {"retries": 2, "retry_after": "500 ms"}


def _hold_state(dice: _Dice, entry: Entry, data: Data, n: int) -> None:
    """Keyed state, which transactions share; and where the order stands peers that endorse them before it."""
    data["state"] = {"spaces": {"few": dice.one((1, 5)), "many": 100_000}, "conflicts": "serialise"}
    access: list[Data] = [
        {
            "space": dice.one(("few", "many")),
            "access": dice.one(("read", "write", "update")),
            "count": 1 + dice.among(2),
        }
        for _ in range(1 + dice.among(2))
    ]
    if dice.happens(0.3):
        access.append({"space": "few", "needs": dice.one(("free", "held")), "leaves": dice.one(("free", "held"))})
    for load in data["workload"]:
        load["accesses"] = access
    if dice.happens(0.5):
        data["state"] |= {"conflicts": "abort"} if dice.happens(0.4) else {"conflicts": "retry", "tries": 2}
        clients = data.get("clients", {})
        asks = {"acknowledge", "results"} & {*clients} or clients.get("entry") == "leader"
        executes = data.get("cpu", {}).get("execution", "after") != "after"
        if not entry.protocol.forks and not asks and not executes and "observers" not in data and dice.happens(0.6):
            places = ["a", "b", "c"][: 1 + dice.among(3)]
            data["observers"] = [{"name": f"peer-{of}", "source": dice.among(n), "organisation": of} for of in places]
            policy = dice.one(("AND", "OR")) + f"({', '.join(places)})"
            orderer = dice.one(("drawn", "drawn", "all"))
            data["endorsement"] = {"policy": policy, "execute": "2 ms", "orderer": orderer, "timeout": "3 s"}


def _rule(dice: _Dice, n: int, types: Sequence[str]) -> Data:
    rule: Data = {"types": [dice.one(types)], "until": f"{QUIET_S:g} s"}
    if dice.happens(0.3):
        rule["until"] = _ms(_STEP_MS * (1 + dice.among(int(QUIET_S * 1000) // _STEP_MS)))
    kind = dice.among(6)
    if dice.happens(0.5):
        rule["src"] = dice.some(n, n - 1)
    if kind != 4 and dice.happens(0.4):
        rule["dst"] = dice.some(n, n - 1, 2)
    if dice.happens(0.3):
        rule["view"] = dice.among(5)
    elif dice.happens(0.2):
        rule["height"] = 1 + dice.among(8)
    if kind < 2:
        rule["drop"] = True
    elif kind == 2:
        rule["delay_by"] = _ms(_STEP_MS * (1 + dice.among(20)))
    elif kind == 3:
        rule |= {"delay_by": "0 ms", "spread": _ms(_STEP_MS * (1 + dice.among(10)))}
    elif kind == 4:
        rule["only_to"] = dice.some(n, n - 1)
    else:
        rule["duplicate"] = 1 + dice.among(2)
    return rule


def _behaviours(dice: _Dice, n: int, nodes: list[int], entry: Entry, *, beyond: bool) -> list[Data]:
    """What the corrupted nodes do: one thing, or two. `beyond`: mostly what can break safety, said to two groups."""
    types = (*entry.content_names, *entry.vote_names)
    others = [node for node in range(n) if node not in nodes]
    groups = [list(group) for group in dice.split(others)] if len(others) > 1 else [others, others]
    way = dice.among(10) if beyond else 9
    if way < 4:
        both = ({"behaviour": "equivocating"}, {"behaviour": "double-voting"})  # said to halves, liars among them
        return [{"nodes": nodes} | behaviour for behaviour in both]
    if way < 8:
        return [{"nodes": nodes, "behaviour": "twin", "groups": dice.halves(others)}]
    names = [dice.one(types)] if dice.happens(0.4) else []
    some = {"messages": names} if names else {}
    choices: list[Callable[[], Data]] = [
        lambda: {"behaviour": "equivocating", "groups": groups},
        lambda: {"behaviour": "equivocating", "groups": groups, "older": 1 + dice.among(3)},
        lambda: {"behaviour": "understating", "older": 1 + dice.among(3)},
        lambda: {"behaviour": "double-voting"},
        lambda: {"behaviour": "amnesia"},
        lambda: {"behaviour": "silent"} | some,
        lambda: {"behaviour": "withholding", "to": groups[0]} | some,
        lambda: {"behaviour": "slow", "delay": _ms(_STEP_MS * (1 + dice.among(20)))} | some,
        lambda: {"behaviour": "replaying", "after": _ms(_STEP_MS * (1 + dice.among(20))), "times": 2} | some,
        lambda: {"behaviour": "twin", "groups": groups},
    ]
    found = {}
    for _ in range(1 + dice.happens(0.4)):
        entry_ = choices[dice.among(len(choices))]()
        found[entry_["behaviour"]] = {"nodes": nodes} | entry_
    return [found["twin"]] if "twin" in found else [*found.values()]


def draw(name: str, entry: Entry, seed: int, number: int, *, beyond: bool = False) -> Draw:
    """Configuration `number` of a seed for a protocol; `beyond`: one voter more is corrupted than it tolerates."""
    dice = _Dice(seed, _KEY, sum(map(ord, name)) * 131 + len(name), number)
    n = dice.one((4, 4, 4, 5, 6, 7, 7, 8, 9, 10))
    network, delay_ms = _network(dice, n)
    parameters = _parameters(dice, entry, n, delay_ms)
    liars, down = tolerated(entry, parameters, n)
    corrupted = liars + 1 if beyond else (1 + dice.among(liars) if liars and dice.happens(0.5) else 0)
    data: Data = {
        "name": f"campaign-{name}-{number}",
        "seed": seed * 1_000_003 + number,
        "duration": f"{DURATION_S:g} s",
        "liveness_bound": f"{BOUND_S:g} s",
        "network": network,
        "protocol": {"name": name} | parameters,
        "workload": _workload(dice),
        "limits": {"wall": "60 s", "max_events": 3_000_000},
    }
    if dice.happens(0.7) or "bandwidth" in network:
        # The interval is part of the time that a view takes.
        shortest = min((int(parameters[key].split()[0]) for key in _VIEWS if key in parameters), default=4000)
        intervals = [ms for ms in (0, 50, 200, 1000) if 4 * ms <= shortest]
        data["block"] = {"max_transactions": dice.one((1, 10, 100)), "interval": _ms(dice.one(intervals))}
    if dice.happens(0.5):
        data["clients"] = _clients(dice)
        if not entry.protocol.lasting_leader and entry.protocol.progress == "waiting":
            data["clients"].pop("dissemination", None)  # some choices are refused where leaders wait in turn
    if dice.happens(0.35):
        data["cpu"] = _cpu(dice)
    faults = [fault for _ in range(dice.among(4)) for fault in _fault(dice, n, slow=_costs_time(data))]
    types = (*entry.content_names, *entry.vote_names)
    rules = [_rule(dice, n, types) for _ in range(dice.among(5))]
    if corrupted:
        nodes = dice.some(n, corrupted, corrupted)
        data["corrupted"] = _behaviours(dice, n, nodes, entry, beyond=beyond)
        if beyond:
            apart = _apart(data["corrupted"])
            faults = apart or faults
            rules = [] if apart else rules
    elif dice.happens(0.1) and entry.protocol.group_changes != "never":
        if dice.happens(0.5):
            network["members"] = list(range(n - 1))
            data["membership"] = [{"at": _ms(1000 + _STEP_MS * dice.among(40)), "add": [n - 1]}]
        else:
            data["membership"] = [{"at": _ms(1000 + _STEP_MS * dice.among(40)), "remove": [dice.among(n)]}]
    spare = down - corrupted
    if spare > 0 and "membership" not in data and dice.happens(0.25):
        gone = [node for node in dice.some(n, spare) if node not in data.get("corrupted", [{"nodes": []}])[0]["nodes"]]
        if gone:
            faults.append({"at": _ms(_STEP_MS * dice.among(60)), "crash": {"nodes": gone}})
    if faults:
        data["faults"] = faults
    if rules:
        data["rules"] = rules
    if dice.happens(0.05):
        data["observers"] = [{"name": "watcher"}]
    _produce(dice, entry, data)
    if dice.happens(0.2):
        data["protocol"]["first_leader"] = dice.among(min(3, int(parameters.get("group", 3))))
    if rules and dice.happens(0.2):
        rules[0] |= {"src": dice.one(ROLES)} if "only_to" in rules[0] or dice.happens(0.5) else {"dst": dice.one(ROLES)}
    deployed = _Dice(seed, _DEPLOYED_KEY, sum(map(ord, name)) * 131 + len(name), number)  # what is drawn above stays
    if not beyond and deployed.happens(0.4):
        _deploy(deployed, entry, data, n, delay_ms)
    keyed = _Dice(seed, _KEYED_KEY, sum(map(ord, name)) * 131 + len(name), number)
    if not beyond and data["workload"][0]["kind"] != "backlog" and keyed.happens(0.3):
        _hold_state(keyed, entry, data, n)
    return Draw(data, corrupted, liars)
