"""What a scenario says about its network: where voters are, and what the links between them do.

A *place* is what latency is counted between: a site with its code, a region of a latency table, or, for
voters without a location, each voter by itself ("0", "1", ...). Voters at one place, and a client beside a
voter, are one diagonal entry of the latency matrix apart (`sim.network.latency`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from sim.network.links import (
    DRAW_SPAN_NS,
    DistanceLatency,
    ExplicitLatency,
    FixedLatency,
    Gst,
    Jitter,
    Latency,
    MatrixLatency,
    MeasuredRtt,
    NoJitter,
    Ref,
    Topology,
    UniformJitter,
    UniformLatency,
)
from sim.network.sites import site_problem, sites, suggestion
from sim.parameters import Bandwidth, Bytes, Count, Fraction, Nanoseconds, Parameters, Problem, RuleError, quantity
from sim.units import format_ns

NODES_MAX = 20_000


class Network(Parameters):
    """Voters, where they are, and the links between them."""

    nodes: Count | None = Field(
        default=None, ge=1, le=NODES_MAX, description="number of equal voters without own sites"
    )
    site: str | None = Field(default=None, description="where all `nodes` stand")
    sites: tuple[str, ...] | None = Field(
        default=None, min_length=1, max_length=NODES_MAX, description="one voter per entry, by site code"
    )
    members: tuple[Ref, ...] | None = Field(
        default=None, min_length=1, description="voters whose votes count at the start; by default all but learners"
    )
    learners: tuple[Ref, ...] = Field(
        default=(), description="voters that receive everything at the start and have no vote"
    )
    organisations: dict[str, tuple[Ref, ...]] = Field(
        default={},
        description="who runs which voters: {bank: [0, HAK]}; faults, corrupted, membership and studies may name them",
    )
    latency: Latency = Field(description="propagation time between places")
    measured_rtt: tuple[MeasuredRtt, ...] = Field(default=(), description="round trips that override the latency model")
    jitter: Jitter = Field(default=NoJitter(), description="variation from message to message")
    bandwidth_ps_per_byte: Bandwidth = quantity("unlimited", "of each node's network card, in each direction")
    sharing: Literal["fair", "fifo", "priority"] = Field(
        default="fair",
        description="how copies share their sender's card: side by side; one after the other; or side by side with "
        "votes and other small messages before blocks",
    )
    loss: Fraction = Field(default="0 %", lt=1, description="probability that one transmission of a message is lost")  # type: ignore[assignment]
    retransmit_after_ns: Nanoseconds = quantity(
        "200 ms",
        "what the first loss of a message costs on ordered links; doubles with each further one",
        positive=True,
    )
    links: Literal["ordered", "datagram"] = Field(
        default="ordered",
        description="ordered: like TCP, late but in order; datagram: lost messages stay lost",
    )
    flush_after_ns: Nanoseconds = quantity(
        "0 ms", "a connection between nodes is flushed so long after the first byte that waits in it; 0: at once"
    )
    look_every_ns: Nanoseconds = quantity(
        "0 ms", "how often a node looks what it has for a peer (gossip); with flush_after, in which such times overlap"
    )
    window_bytes: Bytes | None = quantity(
        None,
        "so much of a message is under way before the first of it is acknowledged: a longer one takes a round trip for "
        "each further window; absent: all of it",
        positive=True,
    )
    processing_ns: Nanoseconds = quantity(
        "0 ms",
        "how long software takes from a message's arrival to its handler, clients' messages included; nothing waits",
    )
    topology: Topology = Field(default=Topology(family="full-mesh"), description="which places are linked directly")

    gst: Gst | None = Field(
        default=None, description="partial synchrony: messages sent before this time are late, within bounds"
    )

    @model_validator(mode="after")
    def _rules(self) -> Network:
        problems = list(_network_problems(self))
        if problems:
            raise RuleError(problems)
        return self

    @property
    def n(self) -> int:
        """Number of voters."""
        return len(self.sites) if self.sites is not None else self.nodes or 0

    @property
    def place_of_node(self) -> tuple[str, ...]:
        """The place of each voter, shape (n,)."""
        if self.sites is not None:
            return self.sites
        if isinstance(self.latency, MatrixLatency):
            regions = self.latency.regions
            return tuple(regions[i % len(regions)] for i in range(self.n))
        if isinstance(self.latency, DistanceLatency):
            return (self.site or "",) * self.n
        return tuple(str(i) for i in range(self.n))

    @property
    def places(self) -> tuple[str, ...]:
        """The distinct places of voters, in the order of the nodes."""
        return tuple(dict.fromkeys(self.place_of_node))

    @property
    def site_of_node(self) -> tuple[str | None, ...]:
        """The site code of each voter, None where it has no location; shape (n,)."""
        return self.sites if self.sites is not None else (self.site,) * self.n

    @property
    def domain_of_node(self) -> tuple[str | None, ...]:
        """The fault domain of each voter, None where it has no location; shape (n,)."""
        table = sites()
        return tuple(None if code is None else table[code].domain for code in self.site_of_node)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results must know: what files say that nothing uses."""
        unused = self.topology.unused
        return (f"{self.topology.graphml}: {', '.join(unused)}: not used",) if unused else ()

    def nodes_of(self, ref: int | str) -> tuple[int, ...]:
        """The voters that a reference means: one by its number, all at a place, or all of an organisation.

        Empty if there is none.
        """
        if isinstance(ref, int):
            return (ref,) if 0 <= ref < self.n else ()
        if ref in self.organisations:
            inside = {i for one in self.organisations[ref] if one not in self.organisations for i in self.nodes_of(one)}
            return tuple(sorted(inside))
        return tuple(i for i, place in enumerate(self.place_of_node) if place == ref)

    @property
    def owner(self) -> dict[int, str]:
        """The organisation of each voter that has one."""
        return {node: name for name in self.organisations for node in self.nodes_of(name)}

    @property
    def member_nodes(self) -> tuple[int, ...]:
        """Voters whose votes count at the start."""
        if self.members is not None:
            return tuple(sorted({node for ref in self.members for node in self.nodes_of(ref)}))
        return tuple(node for node in range(self.n) if node not in self.learner_nodes)

    @property
    def learner_nodes(self) -> tuple[int, ...]:
        """Voters that receive everything at the start and have no vote."""
        return tuple(sorted({node for ref in self.learners for node in self.nodes_of(ref)}))

    def ref_problem(self, ref: int | str) -> str | None:
        """Why a reference means no voter ("rule; remedy"), or None."""
        if self.nodes_of(ref):
            return None
        if isinstance(ref, int):
            return f"no node has this number; nodes are 0 to {self.n - 1}"
        what = (
            "is no organisation, and no voter stands at this place"
            if self.organisations
            else ("no voter stands at this place")
        )
        return f"{what}; {suggestion(ref, (*self.organisations, *self.places))}"

    def client_problem(self, place: str) -> str | None:
        """Why clients cannot be at this place ("rule; remedy"), or None. They may be where no voter is."""
        if place in self.places:
            return None
        if self.sites is None or isinstance(self.latency, ExplicitLatency):
            return f"clients must be at a voter's place here; {suggestion(place, self.places)}"
        if isinstance(self.latency, MatrixLatency):
            known = _names(self.latency)
            return None if place in known else f"the latency table has no such place; {suggestion(place, known)}"
        return site_problem(place)


def _names(latency: MatrixLatency) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for row in latency.rtts for name in (row.start, row.to)))


def _network_problems(network: Network) -> Iterator[Problem]:
    """Rules between the fields of a network."""
    latency = network.latency
    if (network.nodes is None) == (network.sites is None):
        both = network.sites is not None
        message = "exactly one of nodes and sites says where voters are"
        remedy = "remove one of them" if both else "write nodes: 4 or sites: [HAK, RSC, WEC, QHI]"
        yield Problem(("nodes",) if both else (), f"{message}; {remedy}")
        return
    if network.look_every_ns and not network.flush_after_ns:
        yield Problem(("look_every",), "goes with flush_after; write flush_after: 100 ms beside it")
    if network.site is not None:
        if network.sites is not None:
            yield Problem(("site",), "goes with nodes, not with sites; remove it")
        elif (problem := site_problem(network.site)) is not None:
            yield Problem(("site",), problem)
    if network.sites is not None:
        for i, code in enumerate(network.sites):
            if (problem := site_problem(code)) is not None:
                yield Problem(("sites", i), problem)
    if isinstance(latency, DistanceLatency) and network.sites is None and network.site is None:
        yield Problem(("latency", "model"), "distance needs locations; give sites: [...] or site: HAK")
        return
    if isinstance(latency, MatrixLatency):
        yield from _matrix_problems(network, latency)
        if network.sites is None and not latency.regions:
            return
    if isinstance(latency, ExplicitLatency):
        count = len(network.places)
        if len(latency.one_way_ns) != count or any(len(row) != count for row in latency.one_way_ns):
            yield Problem(
                ("latency", "one_way_ms"),
                f"must be {count} rows of {count} numbers, one per place; add or remove",
            )
            return
    yield from _standing_problems(network)
    yield from _organisation_problems(network)
    yield from _member_problems(network)
    for i, measured in enumerate(network.measured_rtt):
        for j, ref in enumerate(measured.between):
            if (problem := network.ref_problem(ref)) is not None:
                yield Problem(("measured_rtt", i, "between", j), problem)
    yield from _jitter_problems(network)


def _standing_problems(network: Network) -> Iterator[Problem]:
    """Each voter stands at a node that the topology's file has."""
    topology, path = network.topology, ("topology", "at")
    if not topology.at:
        return
    if not topology.routers:
        yield Problem(path, "names nodes of a file, and there is none; write graphml: FILE, or remove it")
    elif len(topology.at) != network.n:
        yield Problem(path, f"names {len(topology.at)} nodes for {network.n} voters; name one for each")
    elif {*network.places} & {*topology.routers}:
        yield Problem(path, "is not needed: nodes of the file are called like places of voters; remove it")
    else:
        for i, node in enumerate(topology.at):
            if node not in topology.routers:
                yield Problem((*path, i), f"the file has no such node; {suggestion(node, topology.routers)}")


def _member_problems(network: Network) -> Iterator[Problem]:
    """Members and learners are voters, and nobody is both."""
    for key, refs in (("members", network.members or ()), ("learners", network.learners)):
        for i, ref in enumerate(refs):
            if (problem := network.ref_problem(ref)) is not None:
                yield Problem((key, i), problem)
            both = {*network.nodes_of(ref)} & {*network.member_nodes} if key == "learners" else ()
            if both:
                yield Problem((key, i), f"node {min(both)} is among the members already; name it once")
    if not network.member_nodes:
        yield Problem(("learners",), "all voters are learners, and nobody can vote; leave at least one out")


def _organisation_problems(network: Network) -> Iterator[Problem]:
    runs: dict[int, str] = {}
    for name, refs in network.organisations.items():
        if name in network.places:
            yield Problem(("organisations", name), "is a place where voters stand too; choose another name")
        for i, ref in enumerate(refs):
            path = ("organisations", name, i)
            if ref in network.organisations:
                yield Problem(path, "is an organisation itself; name nodes or places")
                continue
            if (problem := network.ref_problem(ref)) is not None:
                yield Problem(path, problem)
            for node in network.nodes_of(ref):
                if runs.setdefault(node, name) != name:
                    yield Problem(path, f"node {node} belongs to {runs[node]} already; name it once")


def _matrix_problems(network: Network, latency: MatrixLatency) -> Iterator[Problem]:
    known = _names(latency)
    if network.sites is not None and latency.regions:
        yield Problem(("latency", "regions"), "are for nodes; with sites the table names site codes, remove regions")
        return
    if network.sites is None and not latency.regions:
        yield Problem(("latency", "model"), "matrix with nodes needs regions; write regions: [us-east-1, eu-north-1]")
        return
    path: tuple[str, ...] = ("latency", "regions") if latency.regions else ("sites",)
    used = latency.regions or network.sites or ()
    for i, name in enumerate(used):
        if name not in known:
            yield Problem((*path, i), f"the latency table has no such place; {suggestion(name, known)}")
            return
    known_ways = latency.one_ways_ns()
    names = list(dict.fromkeys(used))
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            for start, to in ((a, b), (b, a)):
                if (start, to) not in known_ways:
                    ways = "and" if (to, start) not in known_ways else "to"
                    yield Problem(path, f"the latency table has no row for {start} {ways} {to}; add it")
                    return


def _jitter_problems(network: Network) -> Iterator[Problem]:
    if not isinstance(network.jitter, UniformJitter):
        return
    latency, jitter_ns = network.latency, network.jitter.plus_minus_ns
    if isinstance(latency, FixedLatency):
        least_ns = latency.one_way_ns
    elif isinstance(latency, UniformLatency):
        least_ns = latency.low_ns
    elif isinstance(latency, ExplicitLatency):
        least_ns = min(min(row) for row in latency.one_way_ns)
    else:
        least_ns = latency.intra_site_ns
    least_ns = min([least_ns, *(m.rtt_ns // 2 for m in network.measured_rtt)])
    path = ("jitter", "plus_minus")
    if jitter_ns > least_ns:
        yield Problem(
            path,
            f"exceeds the shortest latency, {format_ns(least_ns)}, and time runs forward; lower it",
        )
    elif jitter_ns > DRAW_SPAN_NS // 2:
        yield Problem(path, "must be at most 1 s; use proportional or lognormal jitter")
