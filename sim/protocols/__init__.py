"""The table of protocols: the one place where their names stand."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.parameters import Parameters
    from sim.protocol import Replica


@dataclasses.dataclass(frozen=True)
class Entry:
    """One protocol: where it is, and what a scenario may say about it."""

    module: str
    replica: str
    summary: str
    faults: str  # tolerated faults, in words
    family: str = ""  # with which it shares a panel where many are drawn
    package: str = "sim.protocols."  # empty for a user's own file

    @functools.cached_property
    def protocol(self) -> type[Replica]:
        """The replica class."""
        found: type[Replica] = getattr(importlib.import_module(self.package + self.module), self.replica)
        return found

    @functools.cached_property
    def parameters(self) -> type[Parameters]:
        """The class of its parameters: its name with Parameters, in the same file."""
        module = importlib.import_module(self.package + self.module)
        found: type[Parameters] = getattr(module, f"{self.replica}Parameters")
        return found

    @property
    def tolerates_lies(self) -> bool:
        """Whether any of its faults may be Byzantine."""
        return "Byzantine" in self.faults

    @property
    def content_names(self) -> tuple[str, ...]:
        """Its message types with content."""
        return tuple(message.__name__ for message in (*self.protocol.messages, *self.protocol.later_messages))

    @property
    def vote_names(self) -> tuple[str, ...]:
        """Its vote types, but for any-value tallies, which nobody casts."""
        over = {vote.any_value for vote in self.protocol.votes}
        return tuple(vote.name for vote in self.protocol.votes if vote not in over)

    def check(self, parameters: Parameters, voters: int) -> None:
        """Raise ValueError if the parameters do not fit the number of voters."""
        check = getattr(self.protocol, "check", None)
        if check is not None:
            check(parameters, voters)


def variant(entry: Entry, replica: type[Replica]) -> Entry:
    """The entry with a class in its protocol's place that changes a rule of it; the entry itself for other classes."""
    if not issubclass(replica, entry.protocol):
        return entry
    changed = dataclasses.replace(entry)
    vars(changed)["protocol"] = replica
    return changed


def own(replica: type[Replica]) -> tuple[str, Entry]:
    """Name and entry of a protocol from a user's file: class TwoStep is called two-step.

    Raises ValueError ("rule; remedy") if its file lacks the class of its parameters.
    """
    name = re.sub(r"(?<!^)(?=[A-Z])", "-", replica.__name__).lower()
    if not hasattr(importlib.import_module(replica.__module__), f"{replica.__name__}Parameters"):
        text = f"{replica.__name__}: its file has no class {replica.__name__}Parameters"
        raise ValueError(f"{text}; write class {replica.__name__}Parameters(Parameters), empty if it has none")
    return name, Entry(replica.__module__, replica.__name__, "from a file", "not stated", package="")


_PBFT, _HOTSTUFF, _OTHER = "PBFT and its variants", "HotStuff and its variants", "crash faults and forks"

PROTOCOLS: dict[str, Entry] = {
    "pbft": Entry("pbft", "Pbft", "three phases, all-to-all votes, stable primary", "f Byzantine of 3f + 1", _PBFT),
    "ibft": Entry(
        "ibft", "Ibft", "PBFT per height with locks, as first specified", "F Byzantine of 3F + 1 (safety)", _PBFT
    ),
    "qbft": Entry("qbft", "Qbft", "IBFT with prepared certificates in place of locks", "f Byzantine of 3f + 1", _PBFT),
    "rpbft": Entry(
        "rpbft", "Rpbft", "PBFT in a rotating group of k voters", "f Byzantine in any group of 3f + 1", _PBFT
    ),
    "tendermint": Entry(
        "tendermint",
        "Tendermint",
        "prevotes, precommits, locks that newer prevotes release",
        "f Byzantine of 3f + 1",
        _PBFT,
    ),
    "wheat": Entry(
        "wheat",
        "Wheat",
        "PBFT with weighted votes: 2f heavy replicas, small quorums",
        "f Byzantine of 3f + 1 + delta",
        _PBFT,
    ),
    "raft": Entry("raft", "Raft", "replicated log under an elected leader", "f crashed of 2f + 1", _OTHER),
    "hotstuff": Entry(
        "hotstuff", "HotStuff", "chained three-chain, votes to the next leader", "f Byzantine of 3f + 1", _HOTSTUFF
    ),
    "hotstuff-basic": Entry(
        "hotstuff_basic",
        "HotStuffBasic",
        "three phases and a decision in each view",
        "f Byzantine of 3f + 1",
        _HOTSTUFF,
    ),
    "hotstuff-2": Entry(
        "hotstuff_2",
        "HotStuff2",
        "two phases, a leader waits Delta only after a failure",
        "f Byzantine of 3f + 1",
        _HOTSTUFF,
    ),
    "kauri": Entry(
        "kauri", "Kauri", "HotStuff over trees, several blocks under way", "f Byzantine of 3f + 1", _HOTSTUFF
    ),
    "jolteon": Entry(
        "jolteon",
        "Jolteon",
        "chained two-chain, timeout certificates from all to all",
        "f Byzantine of 3f + 1",
        _HOTSTUFF,
    ),
    "clique": Entry(
        "clique",
        "Clique",
        "signers in turn, heaviest chain, final by depth",
        "crashes of a minority; forks heal",
        _OTHER,
    ),
    "aura": Entry(
        "aura",
        "Aura",
        "a validator a step, longest chain, final by signers on top",
        "crashes of a third; forks heal",
        _OTHER,
    ),
}
