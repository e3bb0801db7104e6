"""CometBFT: config.toml of a node, and manifests of its end-to-end test networks.

CometBFT documentation, "config.toml"; test/e2e/pkg/manifest.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.scenario.foreign.draft import Draft, duration_ns, number, section, shown_time, whole

_TIMEOUTS = (
    "timeout_propose", "timeout_propose_delta", "timeout_prevote", "timeout_prevote_delta", "timeout_precommit",
    "timeout_precommit_delta", "timeout_commit",
)  # fmt: skip


def is_config(data: Any) -> bool:
    """Whether this is a config.toml."""
    consensus = data.get("consensus") if isinstance(data, Mapping) else None
    return isinstance(consensus, Mapping) and any(key in consensus for key in (*_TIMEOUTS, "create_empty_blocks"))


def is_manifest(data: Any) -> bool:
    """Whether this is a manifest of a test network."""
    if not isinstance(data, Mapping):
        return False
    nodes = data.get("node")
    return isinstance(nodes, Mapping) and bool(nodes) and all(isinstance(node, Mapping) for node in nodes.values())


def convert_config(data: Mapping[str, Any]) -> Draft:
    """A scenario of a config.toml."""
    draft = Draft("CometBFT's config.toml")
    draft.put("protocol.name", "tendermint", "CometBFT")
    consensus = section(data, "consensus", "")
    used = set()
    for key in _TIMEOUTS:
        if key in consensus:
            used.add(key)
            time_ns = duration_ns(consensus[key], f"consensus.{key}")
            draft.put(f"protocol.{key}", shown_time(time_ns), f"consensus.{key}")
    look = "peer_gossip_sleep_duration"
    p2p = section(data, "p2p", "")
    if "flush_throttle_timeout" in p2p:
        time_ns = duration_ns(p2p["flush_throttle_timeout"], "p2p.flush_throttle_timeout")
        draft.put("network.flush_after", shown_time(time_ns), "p2p.flush_throttle_timeout")
        if look in consensus:
            used.add(look)
            time_ns = duration_ns(consensus[look], f"consensus.{look}")
            draft.put("network.look_every", shown_time(time_ns), f"consensus.{look}")
    if consensus.get("create_empty_blocks", True) is True:
        used.add("create_empty_blocks")
        draft.leave("consensus.create_empty_blocks", "an idle chain makes no blocks here")
    draft.leave_rest(consensus, used, "consensus.")
    pool = section(data, "mempool", "")
    if "size" in pool:
        size = whole(pool["size"], "mempool.size")
        draft.put("pool.max_transactions", size, "mempool.size")
        draft.put("block.max_transactions", min(size, 1000), "assumed (A): it stands in the genesis file, in bytes")
    draft.leave_rest(pool, {"size"}, "mempool.")
    draft.leave_rest(p2p, {"flush_throttle_timeout"}, "p2p.")
    draft.leave_rest(data, {"consensus", "mempool", "p2p"}, "")
    draft.assume()
    return draft


def convert_manifest(data: Mapping[str, Any]) -> Draft:
    """A scenario of a manifest."""
    draft = Draft("a manifest of CometBFT's test networks")
    draft.put("protocol.name", "tendermint", "CometBFT")
    nodes = section(data, "node", "")
    voters = [name for name, node in nodes.items() if node.get("mode", "validator") == "validator"]
    if not voters:
        voters = list(nodes)
    draft.put("network.nodes", len(voters), f"node.*: {len(voters)} of {len(nodes)} have the mode validator")
    if len(voters) < len(nodes):
        draft.leave("node.*", f"{len(nodes) - len(voters)} are full nodes, seeds or light clients; write observers")
    powers = section(data, "validators", "")
    if powers and all(name in powers for name in voters):
        listed = [max(whole(powers[name], f"validators.{name}"), 1) for name in voters]
        if len(set(listed)) > 1:
            draft.put("protocol.power", f"[{', '.join(map(str, listed))}]", "validators")
    late = [name for name in voters if number(nodes[name].get("start_at", 0), f"node.{name}.start_at") > 0]
    if late:
        draft.leave("node.*.start_at", f"{', '.join(late)} start later; write faults: and crash them until then")
    used = {key for node in nodes.values() for key in node} - {"mode", "start_at"}
    if used:
        draft.leave_rest(dict.fromkeys(sorted(used)), set(), "node.*.")
    draft.leave_rest(data, {"node", "validators"}, "")
    draft.assume()
    return draft
