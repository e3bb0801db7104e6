"""Rules on single messages: what they match, what they do, and which of them are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sim.families.sync import Fetch
from sim.protocol import Block, Message, Signing
from sim.protocols.hotstuff import Proposal
from sim.protocols.pbft import PrePrepare
from sim.scenario.errors import ScenarioError
from sim.trace import read
from tests.runs import MS, Played, play, scenario


def _run(*rules: dict[str, Any], n: int = 4, **changes: Any) -> Played:
    return play(scenario(n, rules=list(rules), **({"duration": "0.5 s"} | changes)))


def _hits(played: Played) -> list[tuple[int, int]]:
    return [(report.matched, report.hits) for report in played.world.filters.reports()]


def _refusal(rule: dict[str, Any], **changes: Any) -> str:
    with pytest.raises(ScenarioError) as caught:
        scenario(rules=[rule], **changes)
    return str(caught.value)


class Placeless(Message):
    """About no view and no height."""

    def size_bytes(self, signing: Signing) -> int:
        return 1


def test_a_message_says_which_view_and_height_it_is_about() -> None:
    block = Block(7, 3, 2, 0, None)
    assert PrePrepare(2, 5, block).place() == (2, 5)
    assert Fetch(4).place() == (None, 4)
    assert Proposal(9, block).place() == (9, 3)
    assert Placeless().place() == (None, None)


def test_a_dropped_vote_is_not_missed_by_a_larger_quorum() -> None:
    """Replica 3 hears no PREPARE of replica 1: with four replicas the others' are enough."""
    ruled = _run({"types": ["PREPARE"], "src": [1], "dst": [3], "drop": True})
    free = _run()
    assert ruled.decided_blocks(3) == free.decided_blocks(3)
    ((matched, hits),) = _hits(ruled)
    assert matched == hits > 10
    assert int(ruled.world.run.run_state[22]) == hits  # and no other copy was dropped
    assert ruled.verdict().outcomes["conservation_messages"] == "pass"


def test_a_delay_moves_the_copies_it_matches_and_no_others() -> None:
    rule = {"types": ["COMMIT"], "dst": [2], "height": {"from": 2, "to": 3}, "delay_by": "4 ms"}
    free, ruled = (_run(*rules, trace="messages").latencies_ns() for rules in ((), (rule,)))
    later = {key: ruled[key] - free[key] for key in ruled if ruled[key] != free[key]}
    assert later == {(2, 2): 4 * MS, (3, 2): 4 * MS}


def test_a_held_copy_does_not_hold_up_those_sent_after_it() -> None:
    """On ordered links too: a rule stands between the nodes and the link."""
    rule = {"types": ["PrePrepare"], "dst": [3], "height": 1, "delay_until": "400 ms"}
    played = _run(rule, **{"trace": "messages", "network.links": "ordered"})
    to_3 = played.log[(played.log[:, read.DESTINATION] == 3) & (played.log[:, read.SOURCE] == 0)]
    held = to_3[to_3[:, read.ARRIVED] == 400 * MS]
    assert held[:, read.SENT].tolist()[0] == 0
    assert (to_3[to_3[:, read.SENT] > 0, read.ARRIVED] == to_3[to_3[:, read.SENT] > 0, read.SENT] + 10 * MS).all()


def test_a_copy_held_until_a_fault_heals() -> None:
    fault = {"at": "50 ms", "for": "150 ms", "crash": {"nodes": [1]}}
    rule = {"types": ["COMMIT"], "src": [2], "dst": [3], "occurrence": {"count": 1}, "delay_until_healed": 0}
    played = _run(rule, faults=[fault], trace="messages")
    pairs = played.log[(played.log[:, read.DESTINATION] == 3) & (played.log[:, read.SOURCE] == 2)]
    assert pairs[pairs[:, read.ARRIVED] - pairs[:, read.SENT] > 10 * MS, read.ARRIVED].tolist() == [200 * MS]


def test_occurrences_are_counted_in_the_order_of_sending() -> None:
    rule = {"types": ["PREPARE"], "occurrence": {"first": 3, "every": 5, "count": 2}, "drop": True}
    played = _run(rule, trace="messages")
    prepares = played.log[played.log[:, read.KIND] == played.world.run.names.index("PREPARE")]
    dropped = prepares[prepares[:, read.FATE] == 4]
    assert _hits(played) == [(8, 2)]  # numbers 3 and 8; then it is used up, and counts no more
    assert dropped[:, [read.SENT, read.SOURCE, read.DESTINATION]].tolist() == [[10 * MS, 1, 3], [10 * MS, 3, 1]]


def test_duplicates_arrive_and_change_no_decision() -> None:
    free, ruled = _run(), _run({"types": ["PREPARE", "PrePrepare"], "duplicate": 2})
    assert ruled.latencies_ns() == free.latencies_ns()
    ((_, hits),) = _hits(ruled)
    assert int(ruled.world.run.run_state[20]) == int(free.world.run.run_state[20]) + 2 * hits  # d.SENT
    assert ruled.verdict().outcomes["conservation_messages"] == "pass"


def test_deliver_only_to_some() -> None:
    """A leader heard by two of six backups decides nothing; heard by four, those go on."""
    few, enough = (
        _run({"types": ["PrePrepare"], "src": [0], "only_to": to}, n=7, protocol={"name": "pbft"})
        for to in ([1, 2], [1, 2, 3, 4])
    )
    assert not len(few.decided())
    assert len(enough.decided(1))
    assert not len(enough.decided(6))


def test_one_way_silence_is_no_partition() -> None:
    """Nobody hears replica 3, which hears everybody and decides with them."""
    played = _run({"src": [3], "drop": True})
    assert len(played.decided(3)) == len(played.decided(0)) > 10


def test_rules_act_alike_in_the_fast_path_and_in_the_handlers() -> None:
    rules = [
        {"types": ["PREPARE"], "view": 0, "height": {"from": 3}, "delay_by": "1 ms", "spread": "6 ms"},
        {"types": ["COMMIT"], "src": [1, 2], "dst": [0], "occurrence": {"every": 3}, "drop": True},
    ]
    chosen = scenario(rules=rules, duration="1 s")
    assert play(chosen, fast_path=True).digest == play(chosen, fast_path=False).digest


def test_a_leader_goes_on_by_itself_while_rules_are_in_force() -> None:
    """Its messages then name their view and height as those of its handler do."""
    rules = [
        {"types": ["PrePrepare"], "view": 0, "height": {"from": 5, "to": 9}, "dst": [2], "delay_by": "3 ms"},
        {"types": ["PrePrepare"], "height": {"from": 700}, "drop": True},
    ]
    chosen = scenario(rules=rules, duration="1 s", **{"network.latency": {"model": "fixed", "one_way": "1 ms"}})
    fast_path, handlers = play(chosen, fast_path=True), play(chosen, fast_path=False)
    assert fast_path.digest == handlers.digest
    assert _hits(fast_path) == _hits(handlers) == [(5, 5), (0, 0)]
    assert len(fast_path.decided(0)) > 300
    assert len(fast_path.world.run.block_store.of_row) < 5  # the others never became objects


def test_before_gst_messages_are_late_and_afterwards_they_are_not() -> None:
    gst = {"at": "200 ms", "delta": "15 ms", "up_to": "300 ms"}
    played = _run(**{"network.gst": gst, "trace": "messages"})
    log = played.log
    takes = log[:, read.ARRIVED] - log[:, read.SENT]
    before = log[:, read.SENT] < 200 * MS
    assert takes[before].max() > 50 * MS
    assert log[before, read.ARRIVED].max() <= 215 * MS
    assert set(takes[~before].tolist()) == {10 * MS}
    assert played.verdict().outcomes["agreement"] == "pass"


def test_views_can_be_matched() -> None:
    """Without any message of view 0 the primary of view 0 is replaced, and view 1 works."""
    played = play(scenario(rules=[{"view": 0, "drop": True}], duration="8 s"))
    assert set(played.decided().view.tolist()) == {1}


def test_a_rule_that_did_nothing_is_named_in_a_warning() -> None:
    played = _run({"types": ["NewView"], "drop": True}, {"types": ["PREPARE"], "delay_by": "1 ms"})
    assert [w for w in played.verdict().warnings if "rule" in w] == ["rule 0 (drop) never took effect"]


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"types": ["PREPAR"], "drop": True}, "sends no such message; did you mean 'PREPARE'"),
        ({"src": [1], "dst": [1], "drop": True}, "is the sender itself"),
        ({"src": [9], "drop": True}, "no node has this number; nodes are 0 to 3"),
        ({"view": {"from": 3, "to": 2}, "drop": True}, "below from (3), so nothing matches"),
        ({"from": "2 s", "drop": True}, "must be earlier than the end of the run"),
        ({"from": "30 ms", "until": "20 ms", "drop": True}, "must be later than from"),
        ({"from": "30 ms", "delay_until": "20 ms"}, "it delays nothing"),
        ({"types": ["PREPARE"]}, "exactly one of drop, delay_by"),
        ({"drop": True, "duplicate": 1}, "exactly one of drop, delay_by"),
        ({"src": [], "drop": True}, "nothing matches; name some, or write all"),
        ({"dst": [1, 2], "only_to": [1, 2]}, "names every receiver"),
        ({"types": ["REPLY"], "view": 1, "drop": True}, "about no view or height"),
        ({"delay_until_healed": 0}, "there are none"),
        ({"spread": "1 ms", "drop": True}, "belongs to delay_by"),
        ({"occurrence": {"first": 0}, "drop": True}, "1"),
    ],
)
def test_a_rule_that_can_never_take_effect_is_refused_with_its_place(rule: dict[str, Any], says: str) -> None:
    message = _refusal(rule)
    assert says in message
    assert "test.yaml:1:" in message


def test_what_votes_count_under_is_not_sent() -> None:
    """An any-value tally of Tendermint: no rule on it can ever match."""
    with pytest.raises(ScenarioError, match="PREVOTES: tendermint sends no such message; did you mean 'PREVOTE'"):
        scenario(protocol="tendermint", rules=[{"types": ["PREVOTES"], "drop": True}])


def test_a_fault_that_never_heals_holds_no_message() -> None:
    message = _refusal({"delay_until_healed": 0}, faults=[{"at": "50 ms", "crash": {"nodes": [1]}}])
    assert "never heals" in message


def test_more_than_64_rules_and_endpoints() -> None:
    """Rule 70 of 80, from endpoint 70 to 69, acts; the others name a type that is not sent."""
    idle = {"types": ["NewView"], "drop": True}
    rules = [dict(idle) for _ in range(80)]
    rules[70] = {"types": ["COMMIT"], "src": [70], "dst": [69], "height": 1, "drop": True}
    played = _run(*rules, n=72, duration="50 ms")
    assert np.flatnonzero([hits for _, hits in _hits(played)]).tolist() == [70]
