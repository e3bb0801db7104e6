"""Slow cards, no faults: a copy behind others is on its way, and nobody fetches what will come."""

from __future__ import annotations

import pytest

from sim.scenario.run import Result, run
from tests.protocols.laws import LAWS
from tests.runs import scenario

JITTER = {"model": "lognormal", "sigma": 0.3}
BY_CLOCK = ("clique", "aura")  # their blocks come when it is time, whether or not the last one has arrived
# Half a megabyte and a whole one on a card of 100 Mbit/s, and half a one on a tenth of that: with 40 voters a block
# takes 1.6, 3.2 and 16 s to send to all. Most protocols' patience is two seconds unless it is raised.
CARDS = {"usual": ("100 Mbit/s", 1000), "large": ("100 Mbit/s", 2000), "slow": ("10 Mbit/s", 1000)}
# In a queue Raft's heartbeats wait behind blocks (docs/guides/cards.md).
CASES = [
    (protocol, n, sharing)
    for protocol in LAWS
    for n in (4, 16, 40)
    for sharing in ("fifo", "fair")
    if protocol not in BY_CLOCK and (protocol, sharing) != ("raft", "fifo")
]


def _is_slow(protocol: str, n: int, cards: str, jitter: int) -> bool:
    return (protocol == "raft" and n == 40) or (cards != "usual" and bool(jitter))


ALL = [
    pytest.param(*case, cards, jitter, marks=[pytest.mark.slow] if _is_slow(*case[:2], cards, jitter) else [])
    for case in CASES
    for cards in CARDS
    for jitter in (0, 1)
]
FETCHING = {"Fetch", "Executed", "Blocks", "ViewChange", "RoundChange", "NewView"}


def on_slow_cards(
    protocol: dict[str, object], n: int, jitter: bool, sharing: str, cards: str = "usual", least_s: int = 60
) -> Result:
    """As long as some forty blocks take, a minute at least."""
    bandwidth, transactions = CARDS[cards]
    sending_s = (n - 1) * transactions * 512 * 8 / 1e6 / float(bandwidth.split()[0])
    length = f"{max(least_s, round(40 * sending_s))} s"
    more = {
        "network.bandwidth": bandwidth,
        "network.sharing": sharing,
        "block": {"max_transactions": transactions, "max_bytes": "2 MB"},
        "liveness_bound": length,
    }
    more |= {"network.jitter": JITTER} if jitter else {}
    return run(scenario(n, protocol=protocol, duration=length, **more))


def types(result: Result) -> dict[str, int]:
    """How many messages of each type were sent."""
    table = result.tables["messages_by_type"]
    return dict(zip(table["type"], map(int, table["messages"]), strict=True))


@pytest.mark.parametrize(("protocol", "n", "sharing", "cards", "jitter"), ALL)
def test_the_law_of_messages_holds(protocol: str, n: int, sharing: str, cards: str, jitter: bool) -> None:
    result = on_slow_cards({"name": protocol}, n, jitter, sharing, cards)
    assert result.status == "ok"
    assert result.metrics["view_changes"] == 0
    assert result.metrics["decisions"] > 20
    assert not FETCHING & {name for name, sent in types(result).items() if sent}
    law = LAWS[protocol].messages(n)
    if (
        sharing == "fifo" and protocol in ("ibft", "qbft", "tendermint") and n > 4
    ):  # who gets a block after its commit quorum need not vote
        assert law * (2 * n // 3 + 1) / n < result.metrics["messages_per_decision"] < law
    else:
        under_way = law / result.metrics["decisions"]  # when the run ends
        assert result.metrics["messages_per_decision"] == pytest.approx(law, abs=max(under_way, 0.002 * law))


@pytest.mark.parametrize("jitter", [False, True])
@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("n", [16, 40])
@pytest.mark.parametrize("protocol", ["pbft", "wheat"])
def test_a_stable_checkpoint_that_overtakes_its_batch_is_no_reason_to_fetch(
    protocol: str, n: int, every: int, jitter: bool
) -> None:
    """At n = 40 the last copy leaves 1.6 s after the first, and others are several checkpoints ahead."""
    result = on_slow_cards({"name": protocol, "checkpoint_interval": every}, n, jitter, "fifo")
    assert result.status == "ok"
    assert not FETCHING & {name for name, sent in types(result).items() if sent}
    assert result.metrics["messages_per_decision"] == pytest.approx(LAWS[protocol].messages(n), rel=0.002)


@pytest.mark.parametrize("sharing", ["fifo", "fair"])
@pytest.mark.parametrize("n", [4, 16, 40])
@pytest.mark.parametrize("protocol", BY_CLOCK)
def test_blocks_that_come_by_the_clock_follow_one_another_if_it_is_slow_enough(
    protocol: str, n: int, sharing: str
) -> None:
    """A period, or step, of four times what a block takes to leave; nobody seals out of turn in Clique meanwhile."""
    period_ms = max(1000, 4 * (n - 1) * 42)  # half a megabyte takes 41 ms
    period = f"{period_ms} ms"
    clock = {"block_period": period, "wiggle": "1000 s"} if protocol == "clique" else {"step_duration": period}
    result = on_slow_cards({"name": protocol} | clock, n, False, sharing, least_s=60 * period_ms // 1000)
    assert result.status == "ok"
    assert result.metrics["stale_blocks"] == 0 and result.metrics["reorganisations"] == 0
    sent = types(result)
    blocks = result.metrics["decisions"]
    assert blocks >= 5 and not sent["GetBlocks"]
    assert sent["NewBlock"] / (n - 1) == pytest.approx(blocks, abs=n)  # those that are not final yet besides
