"""Fabric's configtx.yaml: the ordering service. Fabric documentation, "configtx.yaml", "Raft configuration".

A tick of etcd's Raft is TickInterval; a follower stands for election after ElectionTick ticks and up to twice as many,
drawn anew each time, and a leader is silent for HeartbeatTick ticks at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.scenario.foreign.draft import Draft, duration_ns, section, shown_time, size_bytes, whole


def recognises(data: Any) -> bool:
    """Whether this is a configtx.yaml."""
    orderer = data.get("Orderer") if isinstance(data, Mapping) else None
    return isinstance(orderer, Mapping) and any(key in orderer for key in ("OrdererType", "BatchTimeout", "BatchSize"))


def convert(data: Mapping[str, Any]) -> Draft:
    """A scenario of a configtx.yaml."""
    draft = Draft("Fabric's configtx.yaml")
    orderer = section(data, "Orderer", "")
    kind = str(orderer.get("OrdererType", "etcdraft"))
    raft = kind != "BFT"
    if raft:
        draft.put("protocol.name", "raft", f"Orderer.OrdererType: {kind}")
        _raft(draft, section(orderer, "EtcdRaft", "Orderer."))
    else:
        draft.put("protocol.name", "pbft", "Orderer.OrdererType: BFT; SmartBFT's three phases are PBFT's")
        _smart(draft, orderer)
    if "BatchTimeout" in orderer:
        time_ns = duration_ns(orderer["BatchTimeout"], "Orderer.BatchTimeout")
        draft.put("block.batch_timeout", shown_time(time_ns), f"Orderer.BatchTimeout: {orderer['BatchTimeout']}")
    size = section(orderer, "BatchSize", "Orderer.")
    if "MaxMessageCount" in size:
        count = whole(size["MaxMessageCount"], "Orderer.BatchSize.MaxMessageCount")
        draft.put("block.max_transactions", count, "Orderer.BatchSize.MaxMessageCount")
    if "PreferredMaxBytes" in size:
        key = "Orderer.BatchSize.PreferredMaxBytes"
        draft.put(
            "block.max_bytes", f"{size_bytes(size['PreferredMaxBytes'], key)} B", f"{key}: {size['PreferredMaxBytes']}"
        )
    if "AbsoluteMaxBytes" in size:
        draft.leave("Orderer.BatchSize.AbsoluteMaxBytes", "no transaction here is larger than a block")
    draft.leave_rest(
        orderer, {"OrdererType", "BatchTimeout", "BatchSize", "EtcdRaft", "SmartBFT", "ConsenterMapping"}, "Orderer."
    )
    draft.leave_rest(data, {"Orderer"}, "")
    draft.assume()
    return draft


def _raft(draft: Draft, raft: Mapping[str, Any]) -> None:
    options = section(raft, "Options", "Orderer.EtcdRaft.")
    at = "Orderer.EtcdRaft.Options"
    tick_ns = duration_ns(options.get("TickInterval", "500ms"), f"{at}.TickInterval")
    election, beat = (
        whole(options.get("ElectionTick", 10), f"{at}.ElectionTick"),
        whole(options.get("HeartbeatTick", 1), f"{at}.HeartbeatTick"),
    )
    given = "" if options else "; Fabric's defaults"
    draft.put(
        "protocol.election_timeout_low",
        shown_time(tick_ns * election),
        f"{election} ticks of {shown_time(tick_ns)}{given}",
    )
    draft.put(
        "protocol.election_timeout_high",
        shown_time(tick_ns * (2 * election - 1) if election > 1 else tick_ns),
        "one tick less than twice as many",
    )
    draft.put("protocol.election_tick", shown_time(tick_ns), f"{at}.TickInterval")
    draft.put("protocol.heartbeat_interval", shown_time(tick_ns * beat), f"{beat} tick of {shown_time(tick_ns)}{given}")
    draft.put("protocol.pre_vote", "true", "etcd's Raft in Fabric has it on")
    draft.put("protocol.check_quorum", "true", "etcd's Raft in Fabric has it on")
    draft.put("protocol.commits", "at_once", "etcd's Raft")
    draft.put("protocol.configurations", "applied", "etcd's Raft")
    if "MaxInflightBlocks" in options:
        draft.put(
            "protocol.pipeline",
            whole(options["MaxInflightBlocks"], f"{at}.MaxInflightBlocks"),
            f"{at}.MaxInflightBlocks",
        )
    draft.leave_rest(options, {"TickInterval", "ElectionTick", "HeartbeatTick", "MaxInflightBlocks"}, f"{at}.")
    _members(draft, raft.get("Consenters"), "Orderer.EtcdRaft.Consenters")


def _smart(draft: Draft, orderer: Mapping[str, Any]) -> None:
    options = section(orderer, "SmartBFT", "Orderer.")
    key = "RequestComplainTimeout"
    if key in options:
        time_ns = duration_ns(options[key], f"Orderer.SmartBFT.{key}")
        draft.put("protocol.request_timeout", shown_time(time_ns), f"Orderer.SmartBFT.{key}: {options[key]}")
    draft.leave_rest(options, {key}, "Orderer.SmartBFT.")
    _members(draft, orderer.get("ConsenterMapping"), "Orderer.ConsenterMapping")


def _members(draft: Draft, listed: Any, key: str) -> None:
    if isinstance(listed, list) and listed:
        draft.put("network.nodes", len(listed), f"{key} lists {len(listed)}")
