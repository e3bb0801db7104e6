"""Genesis files of Besu and GoQuorum: consensus is configured in `config`.

Besu documentation, "Configure QBFT", "IBFT 2.0", "Clique"; GoQuorum documentation, "Configure IBFT", "QBFT".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.scenario.foreign.draft import Draft, number, seconds_ns, section, shown_time

_ENGINES = ("qbft", "ibft2", "istanbul", "ibft", "clique")


def recognises(data: Any) -> bool:
    """Whether this is a genesis file."""
    config = data.get("config") if isinstance(data, Mapping) else None
    return isinstance(config, Mapping) and ("chainId" in config or any(engine in config for engine in _ENGINES))


def convert(data: Mapping[str, Any]) -> Draft:
    """A scenario of a genesis file."""
    draft = Draft("a genesis file of Besu or GoQuorum")
    config = section(data, "config", "")
    engine = next((name for name in _ENGINES if name in config), None)
    if engine is None:
        draft.leave("config", "it names no consensus engine of a permissioned network (qbft, ibft2, istanbul, clique)")
    else:
        at = f"config.{engine}"
        options = section(config, engine, "config.")
        if engine == "clique":
            _clique(draft, options, at)
        else:
            _istanbul(draft, engine, options, at)
    draft.leave_rest(config, {engine or ""}, "config.")
    draft.leave_rest(data, {"config", "extraData"}, "")
    if "extraData" in data:
        count = validators(data["extraData"])
        if count:
            draft.put("network.nodes", count, f"extraData: {count} validators")
        else:
            draft.leave("extraData", "no validators were found in it; write network.nodes")
    draft.assume()
    return draft


# --- extraData: who the first validators are ----------------------------------------------------------------

_VANITY, _ADDRESS, _SEAL = 32, 20, 65  # bytes


def validators(extra: object) -> int:
    """How many addresses a genesis block's extraData lists; 0 if none are found.

    Clique (EIP-225): vanity, addresses, seal. QBFT and Besu's IBFT 2.0: an RLP list of vanity, addresses and more.
    GoQuorum's IBFT: vanity, then such a list without it.
    """
    text = str(extra).removeprefix("0x")
    try:
        data = bytes.fromhex(text)
    except ValueError:
        return 0
    for start in (0, _VANITY):
        try:
            found, rest = _rlp(data[start:], 0)
        except (IndexError, RecursionError):
            continue
        if not rest and isinstance(found, list):
            return next((len(item) for item in found if _are_addresses(item)), 0)
    addresses, odd = divmod(len(data) - _VANITY - _SEAL, _ADDRESS)
    return addresses if addresses > 0 and not odd else 0


def _are_addresses(item: object) -> bool:
    return isinstance(item, list) and bool(item) and all(isinstance(a, bytes) and len(a) == _ADDRESS for a in item)


def _rlp(data: bytes, depth: int) -> tuple[bytes | list[Any], bytes]:
    """The first item of some RLP, and what follows it. Raises IndexError if it is cut, RecursionError if too deep."""
    if depth > 8:
        raise RecursionError
    first = data[0]
    if first < 0x80:
        return data[:1], data[1:]
    is_list, short = first >= 0xC0, (first - 0xC0 if first >= 0xC0 else first - 0x80)
    long = max(short - 55, 0)  # bytes of the length
    size = int.from_bytes(data[1 : 1 + long], "big") if long else short
    begin = 1 + long
    if len(data) < begin + size:
        raise IndexError
    body, rest = data[begin : begin + size], data[begin + size :]
    if not is_list:
        return body, rest
    items = []
    while body:
        item, body = _rlp(body, depth + 1)
        items.append(item)
    return items, rest


def _istanbul(draft: Draft, engine: str, options: Mapping[str, Any], at: str) -> None:
    names = {"qbft": ("qbft", at), "ibft2": ("qbft", f"{at}; IBFT 2.0 has QBFT's quorum and certificates")}
    name, why = names.get(engine, ("ibft", f"{at}; as GoQuorum's IBFT"))
    draft.put("protocol.name", name, why)
    used = set()
    milliseconds = options.get("xblockperiodmilliseconds")
    for key, path, scale in (
        ("xblockperiodmilliseconds", "block.period", 1000),
        ("blockperiodseconds", "block.period", 1),
        ("xemptyblockperiodseconds", "block.empty_period", 1),
        ("emptyblockperiodseconds", "block.empty_period", 1),
        ("requesttimeoutseconds", "protocol.round_timeout", 1),
    ):
        if key not in options or (key == "blockperiodseconds" and milliseconds):
            continue
        used.add(key)
        if number(options[key], f"{at}.{key}") > 0:
            time_ns = seconds_ns(options[key], f"{at}.{key}") // scale
            draft.put(path, shown_time(time_ns), f"{at}.{key}: {options[key]}")
    if name == "ibft" and "policy" in options:
        used.add("policy")
        sticky = int(number(options["policy"], f"{at}.policy")) == 1
        draft.put(
            "protocol.proposer_policy", "sticky" if sticky else "round-robin", f"{at}.policy: {options['policy']}"
        )
    if ("block", "period") not in draft.values:
        draft.put("block.period", "1 s", "assumed (A): the file leaves it to the command line")
    if "epochlength" in options:
        used.add("epochlength")
        draft.leave(f"{at}.epochlength", "votes on validators do not expire here")
    draft.leave_rest(options, used, f"{at}.")


def _clique(draft: Draft, options: Mapping[str, Any], at: str) -> None:
    draft.put("protocol.name", "clique", at)
    used = set()
    for key in ("blockperiodseconds", "period"):
        if key in options and number(options[key], f"{at}.{key}") > 0:
            used.add(key)
            time_ns = seconds_ns(options[key], f"{at}.{key}")
            draft.put("protocol.block_period", shown_time(time_ns), f"{at}.{key}: {options[key]}")
    draft.leave_rest(options, used, f"{at}.")
