"""Network cards that connections share: shares worked out by hand and by an exact reference, and what follows."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.scenario.run import run
from tests.oracle.script import Script, perform
from tests.oracle.world import ALL, Kind
from tests.properties.test_kernel_stories import ARRIVED, DST, RECEIVED, network, story
from tests.runs import scenario

LATENCY_NS = 1000
BLOCK, SMALL = Kind(0, size=100), Kind(1, size=100, small=True)


def arrivals(sharing: str, *sent: tuple[Any, ...], nodes: int = 5, rx_ps: tuple[int, ...] = ()) -> dict[int, list[int]]:
    """When copies of messages (time, to, kind) of node 0 arrive, by receiver, less the latency. 1 us per 100 B."""
    cards: dict[str, Any] = dict(tx_ps=(10_000,) * nodes, rx_ps=rx_ps or (10_000,) * nodes, sharing=sharing)
    actions = tuple((time, ("message", 0, to, kind)) for time, to, kind in sent)
    told = story(Script(network(nodes, **cards), (BLOCK, SMALL), actions=actions))
    found: dict[int, list[int]] = {}
    for copy in told.copies:
        found.setdefault(copy[DST], []).append(copy[ARRIVED] - LATENCY_NS)
    return found


def test_copies_of_one_message_leave_together() -> None:
    assert arrivals("fair", (0, ALL, 0)) == {1: [4000], 2: [4000], 3: [4000], 4: [4000]}
    assert arrivals("fifo", (0, ALL, 0)) == {1: [1000], 2: [2000], 3: [3000], 4: [4000]}


def test_a_message_to_another_receiver_takes_half_of_the_card_and_one_to_the_same_waits() -> None:
    assert arrivals("fair", (0, 1, 0), (500, 2, 0)) == {1: [1500], 2: [2000]}
    assert arrivals("fair", (0, 1, 0), (500, 1, 0)) == {1: [1000, 2000]}


def test_a_slow_receiver_takes_what_it_can_and_the_others_share_the_rest() -> None:
    """Node 1 takes in a fifth: nodes 2 to 4 get four fifteenths each, and leave it nothing more when they are done."""
    found = arrivals("fair", (0, ALL, 0), rx_ps=(10_000, 50_000, 10_000, 10_000, 10_000))
    assert found[1][0] == pytest.approx(5000, abs=6)
    assert [found[i][0] for i in (2, 3, 4)] == [pytest.approx(3750, abs=6)] * 3


def test_small_messages_have_connections_of_their_own() -> None:
    """Beside four blocks a small message has a fifth of the card; with priority all of it."""
    fair, priority = (arrivals(sharing, (0, ALL, 0), (1000, 1, 1)) for sharing in ("fair", "priority"))
    assert fair[1] == [4750, 5000]  # five connections until each block's 750 are through, then one
    assert priority == {1: [2000, 5000], 2: [5000], 3: [5000], 4: [5000]}
    assert arrivals("fifo", (0, ALL, 0), (1000, 1, 1))[1] == [1000, 5000]


def test_what_comes_in_while_it_is_sent_is_received_when_its_last_byte_arrives() -> None:
    """A lone copy, one that others overtake on the way, and many at once: then the card is what they wait for."""
    cards: dict[str, Any] = dict(tx_ps=(10_000,) * 4, rx_ps=(10_000,) * 4, sharing="fair")

    def received(*sent: tuple[int, int, int, int]) -> list[int]:
        actions = tuple((time, ("message", src, to, kind)) for time, src, to, kind in sent)
        told = story(Script(network(4, **cards), (Kind(0, size=1000), Kind(1, size=1)), actions=actions))
        return sorted(copy[RECEIVED] for copy in told.copies if copy[DST] == 1)

    assert received((0, 0, 1, 0)) == [11_000]
    assert received((0, 0, ALL, 0), (15_000, 2, 1, 1), (20_000, 2, 1, 1)) == [16_010, 21_010, 31_000]
    assert received((0, 0, 1, 0), (0, 2, 1, 0), (0, 3, 1, 0)) == [11_000, 21_000, 31_000]


def exact_leaves(sent: list[tuple[int, int, int]], caps: list[Fraction]) -> dict[int, list[Fraction]]:
    """When the bytes of messages (time, to, size) are through: progressive filling, in fractions. 10 ns a byte."""
    waiting = sorted(sent)
    queues: dict[int, list[Fraction]] = {}
    through: dict[int, list[Fraction]] = {}
    now = Fraction(0)
    while waiting or queues:
        rates: dict[int, Fraction] = {}
        left, rest = Fraction(1), set(queues)
        while rest:
            level = left / len(rest)
            held = {dst for dst in rest if caps[dst] < level}
            rates |= {dst: caps[dst] for dst in held} if held else dict.fromkeys(rest, level)
            left -= sum(caps[dst] for dst in held)
            rest = rest - held if held else set()
        ends = [now + queue[0] / rates[dst] for dst, queue in queues.items()]
        upcoming = min([*ends, *(Fraction(waiting[0][0]) for _ in waiting[:1])])
        for dst, queue in queues.items():
            queue[0] -= (upcoming - now) * rates[dst]
        now = upcoming
        for dst in [dst for dst, queue in queues.items() if queue[0] == 0]:
            through.setdefault(dst, []).append(now)
            queues[dst].pop(0)
            if not queues[dst]:
                del queues[dst]
        while waiting and waiting[0][0] == now:
            _, dst, size = waiting.pop(0)
            queues.setdefault(dst, []).append(Fraction(10 * size))
    return through


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 4), st.sampled_from([100, 500, 999])), max_size=12),
    st.lists(st.sampled_from([10_000, 10_000, 25_000, 90_000]), min_size=5, max_size=5),
)
def test_shares_are_max_min_fair(sent: list[tuple[int, int, int]], rx_ps: list[int]) -> None:
    """Each departure is within some ns of the exact one: what is left is rounded at each change of the shares."""
    sizes = [100, 500, 999]
    kinds = tuple(Kind(i, size=size) for i, size in enumerate(sizes))
    cards: dict[str, Any] = dict(tx_ps=(10_000,) * 5, rx_ps=tuple(rx_ps), sharing="fair")
    actions = tuple((time, ("message", 0, to, sizes.index(size))) for time, to, size in sent)
    compiled, _ = perform(Script(network(5, **cards), kinds, actions=actions))
    expected = exact_leaves(sent, [Fraction(10_000, max(ps, 10_000)) for ps in rx_ps])
    for dst in range(1, 5):
        found = sorted(copy[ARRIVED] - LATENCY_NS for copy in compiled.copies if copy[DST] == dst)
        assert found == [pytest.approx(float(time), abs=40) for time in expected.get(dst, [])]


def test_a_lone_entry_of_etcd_on_slow_cards() -> None:
    """Two copies of 40 ms share the leader's card and are there after 80 ms, and 20 ms of round trip: measured 106."""
    one = {"network.bandwidth": "20 Mbit/s", "block": {"max_transactions": 1}, "duration": "10 s"}
    put = scenario(3, protocol="raft", workload=[{"kind": "backlog", "bytes": "100 kB"}], **one)
    assert run(put).metrics["decision_latency_mean_ms"] == pytest.approx(100, abs=0.2)


@pytest.mark.parametrize("sharing", ["fair", "priority"])
def test_heartbeats_pass_blocks(sharing: str) -> None:
    """1 MB to 15 followers takes 1.2 s of the card, many election timeouts; in one queue nobody would ever lead."""
    cards = {"network.bandwidth": "100 Mbit/s", "network.sharing": sharing, "block": {"max_transactions": 2000}}
    result = run(scenario(16, protocol="raft", duration="30 s", **cards))
    assert result.metrics["view_changes"] == 0
    assert result.metrics["block_interval_mean_ms"] == pytest.approx(15 * 80 + 20, rel=0.01)
    table = result.tables["messages_by_type"]
    assert dict(zip(table["type"], map(int, table["messages"]), strict=True)).get("Repair", 0) == 0
