"""State transfer: an answer that comes late is no reason to ask again, or it multiplies and chokes who is behind."""

from __future__ import annotations

import pytest

from sim.families.pbft.viewchange import Executed
from sim.families.sync import Blocks, Fetch
from tests.runs import MS, begin, scenario


@pytest.mark.parametrize("protocol", ["pbft", "wheat", "rpbft"])
def test_a_late_answer_of_the_pbft_family_asks_nothing(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begin(scenario(4, protocol=protocol))
    run.until(500 * MS)
    replica = run.replica(3)
    replica.absorb_fast_path()
    asked: list[int] = []
    monkeypatch.setattr(replica.context, "send", lambda to, message: asked.append(message.height))
    height, old = replica.context.height, replica.context.chain.decided(3)
    replica.fetch()
    late = Executed(0, (old,), 3, height + 100, True)
    for sender in (0, 1, 2, 0, 1):
        replica.on_executed(sender, late)
    replica.fetch_once()  # for a block that came with a gap below it
    assert asked == [height]
    replica.on_executed(replica.fetch_from, Executed(0, (), 3, height + 100, True))
    assert asked == [height, height]


def test_who_waits_in_vain_waits_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer may take longer to send and to verify than a first patience."""
    run = begin(scenario(4, protocol={"name": "pbft", "request_timeout": "300 ms"}))
    run.until(100 * MS)
    replica = run.replica(3)
    replica.fetch()
    waits = []
    for _ in range(4):
        replica.on_fetch_timeout(None)
        waits.append(replica.fetch_patience_ns // MS)
    assert waits == [600, 1200, 2400, 4800]
    replica.fetch_above -= 1  # something came since
    replica.on_fetch_timeout(None)
    assert replica.fetch_patience_ns == 300 * MS


@pytest.mark.parametrize("protocol", ["ibft", "qbft", "tendermint"])
def test_a_late_answer_between_heights_asks_nothing(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begin(scenario(4, protocol=protocol))
    run.until(500 * MS)
    replica = run.replica(3)
    replica.absorb_fast_path()
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(
        replica.context, "send", lambda to, message: isinstance(message, Fetch) and asked.append((to, message.height))
    )
    height, old = replica.context.height, replica.context.chain.decided(3)
    replica.blocks.fetch(1)
    for sender in (0, 2, 0):
        replica.on_blocks(sender, Blocks((old,), 3, height + 100))
    replica.on_blocks(1, Blocks((old,), 3, height + 100))  # to an older question
    assert asked == [(1, height)]


@pytest.mark.parametrize("protocol", ["pbft", "wheat", "rpbft"])
def test_a_primary_says_no_prepare_again(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pre-prepare is its prepare: a PREPARE besides would count it twice. Backups say theirs again.

    WHEAT's leader writes as all do, with a weight of its own, and its write may be lost as theirs may.
    """
    run = begin(scenario(4, protocol=protocol, faults=[{"at": "300 ms", "crash": {"nodes": [2, 3]}}]), fast_path=False)
    run.until(400 * MS)
    said: dict[int, list[str]] = {0: [], 1: []}
    for node, votes in said.items():
        replica = run.replica(node)
        replica.timeout_ns *= 2  # as after a failed view
        monkeypatch.setattr(replica.context, "vote", lambda vote, *_, votes=votes, **__: votes.append(vote.name))
        replica.vote_again((replica.view, replica.context.height))
    assert ("PREPARE" in said[0]) == (protocol == "wheat")
    assert "PREPARE" in said[1]
