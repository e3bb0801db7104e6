"""What can be lost of a network, and whether what is left can still decide.

An *element* is what one event takes: a node, a fault domain, a link between two places, an organisation. The
structure function `largest_meeting` counts the voters that can still all hear each other; comparing it with the
protocol's quorum predicts whether a design halts. Simulated runs check the prediction (`sim.plan.contingency`).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from sim.network.settings import Network
from sim.protocol import Quorum

Kind = Literal["node", "domain", "link", "organisation"]
KINDS: tuple[Kind, ...] = ("node", "domain", "link", "organisation")


@dataclasses.dataclass(frozen=True)
class Element:
    """One thing to lose: `fault` is its entry in a scenario's list of faults, times apart."""

    kind: Kind
    name: str
    fault: dict[str, Any] = dataclasses.field(compare=False, repr=False)
    nodes: frozenset[int]
    links: frozenset[tuple[int, int]] = frozenset()

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def elements(network: Network, kinds: Iterable[Kind] = KINDS) -> list[Element]:
    """All elements of these kinds, in the order of `KINDS`, then of the scenario."""
    wanted = set(kinds)
    found: list[Element] = []
    place, everyone = network.place_of_node, range(network.n)
    if "node" in wanted:
        for node in everyone:
            name = f"{node} ({place[node]})" if network.sites is not None else str(node)
            found.append(Element("node", name, {"crash": {"nodes": [node]}}, frozenset({node})))
    if "domain" in wanted:
        for domain in dict.fromkeys(d for d in network.domain_of_node if d is not None):
            inside = frozenset(node for node in everyone if network.domain_of_node[node] == domain)
            found.append(Element("domain", domain, {"lose_domain": {"domain": domain}}, inside))
    if "link" in wanted:
        for a, b in _linked_places(network):
            pairs = frozenset((min(i, j), max(i, j)) for i in network.nodes_of(a) for j in network.nodes_of(b))
            found.append(Element("link", f"{a}-{b}", {"cut_link": {"between": [a, b]}}, frozenset(), pairs))
    if "organisation" in wanted:
        for name, refs in network.organisations.items():
            inside = frozenset(node for ref in refs for node in network.nodes_of(ref))
            found.append(Element("organisation", name, {"crash": {"nodes": sorted(inside)}}, inside))
    return found


def _linked_places(network: Network) -> Iterator[tuple[int | str, int | str]]:
    """Pairs of places, or of nodes where each is its own place, that a direct link joins."""
    if network.sites is None:
        yield from itertools.combinations(range(network.n), 2)
    else:
        yield from itertools.combinations(network.places, 2)


def losses(found: list[Element], most: int) -> list[tuple[Element, ...]]:
    """Every single element, then every pair, ... up to `most` together; none whose loss another one implies."""
    sets: list[tuple[Element, ...]] = []
    for count in range(1, most + 1):
        for chosen in itertools.combinations(found, count):
            if not any(_implies(a, b) or _implies(b, a) for a, b in itertools.combinations(chosen, 2)):
                sets.append(chosen)
    return sets


def _implies(big: Element, small: Element) -> bool:
    """Whether losing `big` loses all that `small` would."""
    if small.links:
        return all(a in big.nodes or b in big.nodes or (a, b) in big.links for a, b in small.links)
    return small.nodes <= big.nodes


def can_meet(up: Iterable[int], cuts: Iterable[tuple[int, int]], needs: Sequence[Quorum]) -> bool:
    """Whether some of the running voters, of which every two hear each other, meet all that is needed to decide."""
    alive = frozenset(up)
    if not all(need.met_by(alive) for need in needs):
        return False
    inside = [pair for pair in cuts if pair[0] in alive and pair[1] in alive]
    if not inside:
        return True
    a, b = inside[0]
    return can_meet(alive - {a}, inside, needs) or can_meet(alive - {b}, inside, needs)


def can_decide(n: int, needs: Sequence[Quorum], lost: Iterable[Element]) -> bool:
    """Whether voters are left that can all hear each other and meet what the protocol needs (`Replica.needs`)."""
    down: set[int] = set()
    cuts: set[tuple[int, int]] = set()
    for element in lost:
        down |= element.nodes
        cuts |= element.links
    return can_meet(set(range(n)) - down, cuts, needs)
